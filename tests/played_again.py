"""Records as they were published, and as a recording gives them again: what of them has to be alike."""

from feedhandler.data import wire


def bare(record):
    """A record without session, time of publication and REPLAY."""
    found = bytearray(record)
    (flags,) = wire.FLAGS.unpack_from(found, wire.FLAGS_OFFSET)
    wire.FLAGS.pack_into(found, wire.FLAGS_OFFSET, flags & ~wire.REPLAY)
    wire.SESSION.pack_into(found, wire.SESSION_OFFSET, 0)
    wire.TIME.pack_into(found, wire.PUBLISH_NS_OFFSET, 0)
    return bytes(found)
