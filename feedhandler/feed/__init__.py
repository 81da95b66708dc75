"""The feed: one exchange's connections, and what is made of their frames, up to the records for the merger."""
