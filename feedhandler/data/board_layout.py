"""The board: the newest records of every topic in a file that readers map into their memory.

The one definition of its layout; `docs/board.md` describes the same bytes for readers without Python. Pure: no
files, no clock. A header of 4,096 bytes, then slots of equal size, one per topic. A slot is its topic, the number
of its newest complete record, and `depth` cells: record number n (from 1, per slot) is in cell n % depth.

How a record is written and read, with nobody waiting for anybody:

    writer  cell.stamp = 2n - 1, odd: being written    reader  n = slot.newest (acquire); 0: nothing yet
            fence (release)                                    cell.stamp must be 2n (acquire)
            the record, 24 words                               copy the record
            cell.stamp = 2n (release)                          fence (acquire)
            slot.newest = n (release)                          cell.stamp must still be 2n, else again

The record that `newest` names is never the one that is being written, so a writer that dies in mid-write leaves it
whole, and a reader has to try again only if the writer went on meanwhile.

Records that are larger than a ticker are in a file of another form, the merger's ring: there a cell has no record,
but where it lies in the rest of the slot, a ring of bytes: u64 position, counted from the first byte that was ever
written, and u64 size. `reserved` in the slot is the position up to which the writer has written, or is writing:

    writer  slot.reserved = end of the record          reader  the cell of n, as above: position, size
            fence (release)                                    copy the record
            the record, word by word                           fence (acquire)
            the cell, as above                                 slot.reserved must be within a ring of position

No record goes around the end: the next one begins at the ring's start.
"""

import struct
from typing import Final, NamedTuple, Protocol

from feedhandler.data import wire
from feedhandler.data.contracts import Slot
from feedhandler.data.errors import DecodeError

MAGIC: Final = b"FHBOARD\0"
RING_MAGIC: Final = b"FHRING\0\0"
VERSION: Final = 2  # of the layout in this file; the records have `wire.VERSION`

WORD: Final = 8  # all that changes is written in aligned words of this size, which no processor tears
HEADER_SIZE: Final = 4096  # a page
#   magic, version, wire version, header size, record size, cell size, depth, slot size, slots_max, pid, session,
#   created_ns
FIXED: Final = struct.Struct("<8sIIIIIIIIIIq")
# What changes, each in a cache line of its own.
COUNT_OFFSET: Final = 64  # u64: slots in use; written when the new one is complete
HEARTBEAT_NS_OFFSET: Final = 128  # i64: the writer lived, Unix nanoseconds
HEARTBEAT_MONO_NS_OFFSET: Final = 136  # i64: the same by the host's monotonic clock
CLOSED_OFFSET: Final = 192  # u64: 0, or one of
ENDED: Final = 1  # the writer ended
SUPERSEDED: Final = 2  # another writer has replaced this file
assert FIXED.size <= COUNT_OFFSET

SLOT_HEADER_SIZE: Final = 128  # topic, newest, and 56 bytes to spare
NEWEST_OFFSET: Final = wire.TOPIC_SIZE  # u64 in a slot: number of the newest complete record
CELL_SIZE: Final = 256  # stamp, record, and 56 bytes to spare: whole cache lines
RECORD_OFFSET: Final = 8  # in a cell, after the u64 stamp
RECORD_WORDS: Final = wire.TICKER_SIZE // WORD
assert wire.TICKER_SIZE % WORD == wire.PUBLISH_NS_OFFSET % WORD == 0, "copied word by word"
assert NEWEST_OFFSET % WORD == RECORD_OFFSET % WORD == 0
assert NEWEST_OFFSET + WORD <= SLOT_HEADER_SIZE
assert RECORD_OFFSET + wire.TICKER_SIZE <= CELL_SIZE

RESERVED_OFFSET: Final = NEWEST_OFFSET + WORD  # u64 in a slot of a ring
RING_CELL_SIZE: Final = 32  # stamp, position, size, and 8 bytes to spare
# As many bytes for each record as the largest of fixed size has; of those of variable size few are larger. With the
# last 64 records a topic takes 52 kB, 5,000 topics 261 MB.
RING_BYTES_EACH: Final = 768
RING_RECORD_SIZE_MAX: Final = wire.RECORD_SIZE_MAX
assert RESERVED_OFFSET + WORD <= SLOT_HEADER_SIZE
assert RING_BYTES_EACH % WORD == RING_RECORD_SIZE_MAX % WORD == 0

DEPTH_MIN: Final = 2
DEPTH_MAX: Final = 1025
NO_DEPTH: Final = (
    f"a slot has {DEPTH_MIN} to {DEPTH_MAX} cells: one may be in the writing while another is read"
)
SLOTS_MAX: Final = 50_000  # as many topics as the merger has at most

DEAD_NS: Final = 1_000_000_000  # a heartbeat this old: nobody keeps the records current
# A heartbeat may be so far in the future of a reader whose clock is coarser; further, the host has restarted since.
AHEAD_NS_MAX: Final = 100_000_000
TRIES_MAX: Final = 10_000  # to read one record: each failure means that several were written meanwhile


class Slots(Protocol):
    """Who gives slots: one per topic, whose records have at most so many bytes; None: there is no room for it."""

    def slot(self, topic: str, size_max: int = wire.TICKER_SIZE) -> Slot | None: ...


class Form(NamedTuple):
    """How records lie in their slot: each in a cell, or all in a ring, whose cells say where."""

    magic: bytes
    record_size: int  # of every record, in a ring of the largest
    cell_size: int

    @property
    def is_ring(self) -> bool:
        return self.magic == RING_MAGIC

    def slot_size(self, depth: int) -> int:
        """Return the size of one slot in bytes: 640 of two cells of a board."""
        return SLOT_HEADER_SIZE + depth * self.cell_size + (ring_size(depth) if self.is_ring else 0)


BOARD: Final = Form(MAGIC, wire.TICKER_SIZE, CELL_SIZE)
RING: Final = Form(RING_MAGIC, RING_RECORD_SIZE_MAX, RING_CELL_SIZE)


class FixedHeader(NamedTuple):
    """The part of the header that never changes."""

    depth: int
    slots_max: int
    pid: int
    session: int  # Unix seconds at which the writer started
    created_ns: int
    form: Form = BOARD

    @property
    def slot_size(self) -> int:
        return self.form.slot_size(self.depth)

    @property
    def file_size(self) -> int:
        return HEADER_SIZE + self.slots_max * self.slot_size

    def slot_offset(self, index: int) -> int:
        """Return where a slot begins in the file."""
        return HEADER_SIZE + index * self.slot_size


def ring_size(depth: int) -> int:
    """Return the bytes for records in one slot of a ring.

    However few are kept: one of the largest, the next one, and what is left free behind the last one at the end, so
    that the newest is whole while its successor is written.
    """
    return max(depth * RING_BYTES_EACH, 3 * RING_RECORD_SIZE_MAX)


def cell_offset(depth: int, number: int) -> int:
    """Return where in its slot the record of a number is."""
    return SLOT_HEADER_SIZE + number % depth * CELL_SIZE


def pack_fixed(layout: FixedHeader) -> bytes:
    """Return the first bytes of a file. Raises ValueError for a depth or slots_max out of bounds."""
    if not (DEPTH_MIN <= layout.depth <= DEPTH_MAX and 1 <= layout.slots_max <= SLOTS_MAX):
        raise ValueError(f"a board has {DEPTH_MIN} to {DEPTH_MAX} cells a slot, and 1 to {SLOTS_MAX} slots")
    return FIXED.pack(
        layout.form.magic,
        VERSION,
        wire.VERSION,
        HEADER_SIZE,
        layout.form.record_size,
        layout.form.cell_size,
        layout.depth,
        layout.slot_size,
        layout.slots_max,
        layout.pid,
        layout.session,
        layout.created_ns,
    )


def unpack_fixed(head: bytes | memoryview, file_size: int, form: Form = BOARD) -> FixedHeader:
    """Read the first bytes of a file. Raises DecodeError for what is not of this form, or of another version."""
    if len(head) < HEADER_SIZE or head[: len(MAGIC)] != form.magic:
        raise DecodeError("no board: it does not begin as one")
    _, version, wire_version, *sizes, depth, size, slots_max, pid, session, created_ns = FIXED.unpack_from(
        head
    )
    if (version, wire_version) != (VERSION, wire.VERSION):
        raise DecodeError(
            f"a board of version {version} with records of version {wire_version};"
            f" this is a reader of {VERSION} and {wire.VERSION}"
        )
    layout = FixedHeader(depth, slots_max, pid, session, created_ns, form)
    is_sound = DEPTH_MIN <= depth <= DEPTH_MAX and 1 <= slots_max <= SLOTS_MAX and size == layout.slot_size
    if sizes != [HEADER_SIZE, form.record_size, form.cell_size] or not is_sound:
        raise DecodeError("a board whose sizes contradict each other")
    if file_size < layout.file_size:
        raise DecodeError(f"a board of {file_size} bytes, expected {layout.file_size}")
    return layout


def is_alive(closed: int, heartbeat_mono_ns: int, now_mono_ns: int) -> bool:
    """True if somebody keeps the records current."""
    return not closed and -AHEAD_NS_MAX <= now_mono_ns - heartbeat_mono_ns < DEAD_NS
