"""The recorder: what feeds receive and send, to disk."""
