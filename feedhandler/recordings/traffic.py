"""What any recording of traffic yields, whatever its format: items, in the order in which they were written.

A reader of a format makes items, and whoever decodes, exports or replays takes items alone.
"""

import enum

import msgspec


class What(enum.IntEnum):
    """What an item is. OPENED, CLOSED, SENT and RECEIVED are of a WebSocket connection."""

    HEADER = 1  # data: what was to be recorded, as the format states it
    OPENED = 2  # name: the address
    CLOSED = 3  # name: the reason; number: how many frames were received, 0 if that is not known
    SENT = 4  # data: a frame of ours
    RECEIVED = 5  # data: a frame of the exchange
    ANSWERED = 6  # name: the URL that was requested; data: the body of the answer
    GAP = 7  # name: why; number: how many frames were not recorded, 0 if that is not known


# The same for whoever looks at each item: before Python 3.12 `What.GAP` takes as long as seven names.
HEADER, OPENED, CLOSED, SENT, RECEIVED, ANSWERED, GAP = What


class Item(msgspec.Struct, frozen=True, gc=False):
    """One piece of traffic.

    wall_ns is Unix time, mono_ns that of the monotonic clock, each 0 where the format has none. connection tells
    connections of one recording apart, "" where there is none. number counts the frames of a connection from 1, in
    each direction, and answers of one feed; 0 where the format has no numbers. is_repeated: it is of before this
    part of the recording began, and stands there for whoever reads no other part.
    """

    what: What
    wall_ns: int = 0
    mono_ns: int = 0
    connection: str = ""
    number: int = 0
    name: str = ""
    data: bytes = b""
    is_repeated: bool = False
