"""The slots of boards and rings, written and read: what is done to them per record.

The order of stores and loads is that of `board_layout`; `memory` keeps it. Compiled where there is a compiler, with
the types of `cells.pxd`.
"""

import mmap
import time

from feedhandler.data import board_layout, raw, unpacked, wire
from feedhandler.data.contracts import Slot
from feedhandler.data.errors import DecodeError
from feedhandler.transport.memory import Memory

HEADER_SIZE = board_layout.HEADER_SIZE
SLOT_HEADER_SIZE = board_layout.SLOT_HEADER_SIZE
CELL_SIZE = board_layout.CELL_SIZE
COUNT_OFFSET = board_layout.COUNT_OFFSET
CLOSED_OFFSET = board_layout.CLOSED_OFFSET
HEARTBEAT_MONO_NS_OFFSET = board_layout.HEARTBEAT_MONO_NS_OFFSET
NEWEST_OFFSET = board_layout.NEWEST_OFFSET
DEAD_NS = board_layout.DEAD_NS
AHEAD_NS_MAX = board_layout.AHEAD_NS_MAX
TRIES_MAX = board_layout.TRIES_MAX
TOPIC_SIZE = wire.TOPIC_SIZE
RECORD_HEADER_SIZE = wire.HEADER_SIZE
RECORD_SIZE = wire.TICKER_SIZE
FLAGS_OFFSET = wire.FLAGS_OFFSET
PUBLISH_NS_OFFSET = wire.PUBLISH_NS_OFFSET
DOWN = wire.DOWN
VERSION = wire.VERSION
VERSION_OFFSET = wire.VERSION_OFFSET
KIND_OFFSET = wire.KIND_OFFSET
TICKER = wire.TICKER
Ticker = wire.Ticker
TICKER_KIND = wire.TICKER
FLAGS_OF = wire.FLAGS_OF
NUMBER_MAX = (1 << 63) - 1  # of a record, whose stamp is twice that
RING_CELL_SIZE = board_layout.RING_CELL_SIZE
RING_RECORD_SIZE_MAX = board_layout.RING_RECORD_SIZE_MAX
RESERVED_OFFSET = board_layout.RESERVED_OFFSET
WORD = board_layout.WORD
PLACE_SIZE = 16  # of a record in a ring: position and size
RECORD_OFFSET = board_layout.RECORD_OFFSET
assert RECORD_OFFSET == 8, "a record follows its stamp"


def _slot_size(depth: int, form: board_layout.Form) -> int:
    if not board_layout.DEPTH_MIN <= depth <= board_layout.DEPTH_MAX:
        raise ValueError(board_layout.NO_DEPTH)
    return form.slot_size(depth)


def _memory_of(file: mmap.mmap | memoryview | Memory, offset: int, size: int) -> Memory:
    """Return the memory of a file that has a slot of this size there, to be written."""
    memory = file if isinstance(file, Memory) else Memory(file)
    if not memory.is_writable:
        raise BufferError("a board that cannot be written")
    if offset < 0 or offset % board_layout.WORD or offset > memory.size - size:
        raise ValueError("the board has no such slot")
    return memory


def as_published(record: bytes | bytearray, publish_ns: int) -> bytearray:
    """Return a copy of a record that says that it was published at that time."""
    copy = bytearray(record)
    raw.put_i64(copy, PUBLISH_NS_OFFSET, publish_ns)
    return copy


class BoardSlot(Slot):
    """Where one topic's records are written; number is that of the newest."""

    def __init__(self, file: mmap.mmap | memoryview | Memory, offset: int, depth: int) -> None:
        """Offset is that of the slot, whose topic is there already."""
        size = _slot_size(depth, board_layout.BOARD)
        self._memory = memory = _memory_of(file, offset, size)
        self._offset = offset
        self._depth = depth
        self.topic = memory.cut(offset, TOPIC_SIZE)
        self.number = memory.load(offset + NEWEST_OFFSET)
        for index in range(depth):  # so that it needs not be written each time
            memory.paste(offset + SLOT_HEADER_SIZE + index * CELL_SIZE + RECORD_OFFSET, self.topic)

    def write(self, record: bytes | bytearray, publish_ns: int) -> None:
        """Write a record under this slot's topic, as published at that time."""
        # hot: `make bench-micro`, board
        if raw.size(record) != RECORD_SIZE:
            raise ValueError("not a ticker record")
        if raw.get_i64(record, PUBLISH_NS_OFFSET) != publish_ns:
            record = as_published(record, publish_ns)
        number = self.number + 1
        self.number = number
        cell = self._offset + SLOT_HEADER_SIZE + number % self._depth * CELL_SIZE
        self._memory.put(cell, number, self._offset + NEWEST_OFFSET, record, TOPIC_SIZE)

    def newest(self) -> bytes | None:
        """Return the newest record, None if there is none yet."""
        if not self.number:
            return None
        cell = self._offset + SLOT_HEADER_SIZE + self.number % self._depth * CELL_SIZE
        return self._memory.take(cell, self.number, RECORD_SIZE)


class RingSlot(Slot):
    """Where one topic's records of any size are written; number is that of the newest."""

    def __init__(self, file: mmap.mmap | memoryview | Memory, offset: int, depth: int) -> None:
        """Offset is that of the slot, whose topic is there already."""
        size = _slot_size(depth, board_layout.RING)
        self._memory = memory = _memory_of(file, offset, size)
        self._offset = offset
        self._depth = depth
        self._size = board_layout.ring_size(depth)
        self._place = bytearray(PLACE_SIZE)
        self.topic = memory.cut(offset, TOPIC_SIZE)
        self.number = memory.load(offset + NEWEST_OFFSET)
        self._reserved = memory.load(offset + RESERVED_OFFSET)

    def write(self, record: bytes | bytearray, publish_ns: int) -> None:
        """Write a record, whose topic is this slot's, as published at that time."""
        size = raw.size(record)
        if not RECORD_HEADER_SIZE <= size <= RING_RECORD_SIZE_MAX:
            raise ValueError("no record, or one that is too large")
        if raw.get_i64(record, PUBLISH_NS_OFFSET) != publish_ns:
            record = as_published(record, publish_ns)
        number = self.number + 1
        position = self._reserved
        at = position % self._size
        if size > self._size - at:
            position += self._size - at
            at = 0
        self._reserved = position + (size + 7) // 8 * 8
        self.number = number
        raw.put_u64(self._place, 0, position)
        raw.put_u64(self._place, 8, size)
        cells = self._offset + SLOT_HEADER_SIZE
        ring = cells + self._depth * RING_CELL_SIZE
        self._memory.put_guarded(ring + at, record, self._offset + RESERVED_OFFSET, self._reserved)
        cell = cells + number % self._depth * RING_CELL_SIZE
        self._memory.put(cell, number, self._offset + NEWEST_OFFSET, self._place, 0)

    def newest(self) -> bytes | None:
        """Return the newest record, None if there is none yet."""
        if not self.number:
            return None
        cells = self._offset + SLOT_HEADER_SIZE
        place = self._memory.take(cells + self.number % self._depth * RING_CELL_SIZE, self.number, PLACE_SIZE)
        assert place is not None, "nobody else writes here"
        at = cells + self._depth * RING_CELL_SIZE + raw.get_u64(place, 0) % self._size
        return self._memory.cut(at, raw.get_u64(place, 8))


class Cells:
    """The records of all slots, as a reader finds them. Raises DecodeError for a slot that contradicts itself."""

    def __init__(self, file: mmap.mmap | memoryview, depth: int) -> None:
        self._size = _slot_size(depth, self._form())
        self._memory = Memory(file)
        if self._memory.size < HEADER_SIZE:
            raise ValueError("too short for a board")
        self._depth = depth
        self._slots = (self._memory.size - HEADER_SIZE) // self._size
        self._names: dict[int, str] = {}  # topics of slots, once somebody asks

    def _form(self) -> board_layout.Form:
        raise NotImplementedError

    def count(self) -> int:
        """Return how many slots are in use."""
        return min(self._slots, self._memory.load(COUNT_OFFSET))

    def topic(self, index: int) -> bytes:
        """Return a slot's topic, padded."""
        return self._memory.cut(self._offset(index), TOPIC_SIZE)

    def is_alive(self) -> bool:
        """True if somebody keeps the records current."""
        if self._memory.load(CLOSED_OFFSET):
            return False
        age_ns = time.monotonic_ns() - self._memory.load(HEARTBEAT_MONO_NS_OFFSET)
        return -AHEAD_NS_MAX <= age_ns < DEAD_NS

    def number(self, index: int) -> int:
        """Return the number of the newest record, 0 if there is none."""
        return self._memory.load(self._offset(index) + NEWEST_OFFSET)

    def newest(self, index: int) -> bytes | None:
        """Return the newest record as it was written, None if there is none."""
        # hot: `make bench-micro`, board
        offset = self._offset(index)
        for _ in range(TRIES_MAX):
            number = self._memory.load(offset + NEWEST_OFFSET)
            if not number:
                return None
            record = self._take(offset, number)
            if record is not None:
                return record
        raise DecodeError(f"slot {index} of the board is damaged")

    def record(self, index: int, number: int) -> bytes | None:
        """Return the record of a number, from 1; None if it is not written yet, or not there any more."""
        offset = self._offset(index)
        return self._take(offset, number) if 0 < number <= NUMBER_MAX else None

    def _take(self, offset: int, number: int) -> bytes | None:
        """Return the record of a number, None if it is not there, of the slot that begins at offset."""
        raise NotImplementedError

    def _offset(self, index: int) -> int:
        if not 0 <= index < self._slots:
            raise IndexError("the board has no such slot")
        return HEADER_SIZE + index * self._size

    def wait(self, index: int, after: int, spin_ns: int) -> bool:
        """Look until the newest number is another than after, awake, for so long at most; True if it is."""
        return self._memory.wait(self._offset(index) + NEWEST_OFFSET, after, spin_ns)


class BoardCells(Cells):
    """The same of a board: tickers, or what is smaller and padded to their size."""

    def _form(self) -> board_layout.Form:
        return board_layout.BOARD

    def _take(self, offset: int, number: int) -> bytes | None:
        cell = offset + SLOT_HEADER_SIZE + number % self._depth * CELL_SIZE
        return self._memory.take(cell, number, RECORD_SIZE)

    def ticker(self, index: int) -> wire.Ticker | None:
        """Return the newest record, None if there is none; flagged DOWN if nobody keeps it current."""
        # hot: `make bench-micro`, board
        record = self.newest(index)
        if record is None:
            return None
        if raw.get_u8(record, VERSION_OFFSET) != VERSION or raw.get_u8(record, KIND_OFFSET) != TICKER:
            raise DecodeError(f"slot {index} of the board is damaged")
        name = self._names.get(index)
        if name is None:
            name = self._names[index] = wire.unpadded(self.topic(index))
        ticker = unpacked.ticker(Ticker, name, TICKER_KIND, FLAGS_OF, record, 0)
        if not self.is_alive():
            ticker.flags = FLAGS_OF[ticker.flags | DOWN]
        return ticker

    def copy(self, first: int = 0) -> bytearray:
        """Return the newest records of all slots in use from that one on, back to back, each whole.

        Slots without a record are left out. Flagged DOWN if nobody keeps them current.
        """
        if first < 0:
            raise IndexError("the board has no such slot")
        count = self.count()
        records = bytearray(max(0, count - first) * RECORD_SIZE)
        used = 0
        for index in range(first, count):
            record = self.newest(index)
            if record is not None:
                raw.copy(records, used, record, 0, RECORD_SIZE)
                used += RECORD_SIZE
        del records[used:]
        if not self.is_alive():
            for at in range(FLAGS_OFFSET, used, RECORD_SIZE):
                raw.put_u16(records, at, raw.get_u16(records, at) | DOWN)
        return records


class RingCells(Cells):
    """The same of a ring: records of any size, as they were written."""

    def _form(self) -> board_layout.Form:
        return board_layout.RING

    def _take(self, offset: int, number: int) -> bytes | None:
        cells = offset + SLOT_HEADER_SIZE
        place = self._memory.take(cells + number % self._depth * RING_CELL_SIZE, number, PLACE_SIZE)
        if place is None:
            return None
        position, size = raw.get_u64(place, 0), raw.get_u64(place, 8)
        ring = cells + self._depth * RING_CELL_SIZE
        ring_size = offset + self._size - ring
        at = position % ring_size
        if at % WORD or size > ring_size - at or position > NUMBER_MAX:
            raise DecodeError("a slot of the ring is damaged")
        return self._memory.take_guarded(ring + at, size, offset + RESERVED_OFFSET, position + ring_size)
