"""The board's slots, written and read: the two things that are done to them per record. Twins of both are compiled.

The order of stores and loads is that of `board`. In Python an aligned word is stored and loaded by one instruction
(`memoryview.cast("Q")`), in the order of the program: on x86-64 that is all that is needed. Processors of weaker
order (aarch64) may show them in another, which Python has no fence against: there the compiled twins are the ones
to use, and are used wherever they could be built.
"""

import mmap
import time
from typing import Final

from feedhandler.data import board_layout, wire
from feedhandler.data.errors import DecodeError

TOPIC_WORDS: Final = wire.TOPIC_SIZE // board_layout.WORD
NEWEST: Final = board_layout.NEWEST_OFFSET // board_layout.WORD
RECORD_AT: Final = board_layout.RECORD_OFFSET
PUBLISH_NS: Final = wire.PUBLISH_NS_OFFSET


def mapped(file: mmap.mmap) -> memoryview:
    """Return the bytes of a mapped board. The compiled twin survives a file that is cut short; this one cannot."""
    return memoryview(file)


def _slot_size(depth: int) -> int:
    if not board_layout.DEPTH_MIN <= depth <= board_layout.DEPTH_MAX:
        raise ValueError(board_layout.NO_DEPTH)
    return board_layout.slot_size(depth)


def _words(view: memoryview) -> memoryview:
    """Return the words of a buffer, whole ones only."""
    return view[: len(view) // board_layout.WORD * board_layout.WORD].cast("Q")


class BoardSlot:
    """Where one topic's records are written; number is that of the newest."""

    def __init__(self, file: mmap.mmap | memoryview, offset: int, depth: int) -> None:
        """Offset is that of the slot, whose topic is there already."""
        size = _slot_size(depth)
        self._bytes = memoryview(file)
        if self._bytes.readonly:
            raise BufferError("a board that cannot be written")
        if offset < 0 or offset % board_layout.WORD or offset > len(self._bytes) - size:
            raise ValueError("the board has no such slot")
        self._words = _words(self._bytes)
        self._offset = offset
        self._depth = depth
        self.number = self._words[offset // board_layout.WORD + NEWEST]

    @property
    def topic(self) -> bytes:
        """The topic, padded."""
        return bytes(self._bytes[self._offset : self._offset + wire.TOPIC_SIZE])

    def write(self, record: bytes | bytearray | memoryview, publish_ns: int) -> None:
        """Write a record under this slot's topic, as published at that time."""
        # hot: `make bench-micro`, board
        if len(record) != wire.TICKER_SIZE:
            raise ValueError("not a ticker record")
        whole = (
            self.topic
            + record[wire.TOPIC_SIZE : PUBLISH_NS]
            + publish_ns.to_bytes(8, "little", signed=True)
            + record[wire.HEADER_SIZE :]
        )
        number = self.number + 1
        self.number = number
        offset, words = self._offset, self._words
        cell = offset + board_layout.cell_offset(self._depth, number)
        at = cell + RECORD_AT
        words[cell >> 3] = 2 * number - 1
        self._bytes[at : at + wire.TICKER_SIZE] = whole
        words[cell >> 3] = 2 * number
        words[(offset >> 3) + NEWEST] = number

    def newest(self) -> bytes | None:
        """Return the newest record, None if there is none yet."""
        if not self.number:
            return None
        at = self._offset + board_layout.cell_offset(self._depth, self.number) + RECORD_AT
        return bytes(self._bytes[at : at + wire.TICKER_SIZE])


class BoardCells:
    """The records of all slots, as a reader finds them. Raises DecodeError for a slot that contradicts itself."""

    def __init__(self, file: mmap.mmap | memoryview, depth: int) -> None:
        self._size = _slot_size(depth)
        self._bytes = memoryview(file)
        if len(self._bytes) < board_layout.HEADER_SIZE:
            raise ValueError("too short for a board")
        self._words = _words(self._bytes)
        self._depth = depth
        self._slots = (len(self._bytes) - board_layout.HEADER_SIZE) // self._size

    def count(self) -> int:
        """Return how many slots are in use."""
        return min(self._slots, self._words[board_layout.COUNT_OFFSET >> 3])

    def topic(self, index: int) -> bytes:
        """Return a slot's topic, padded."""
        offset = self._offset(index)
        return bytes(self._bytes[offset : offset + wire.TOPIC_SIZE])

    def is_alive(self) -> bool:
        """True if somebody keeps the records current."""
        words = self._words
        return board_layout.is_alive(
            words[board_layout.CLOSED_OFFSET >> 3],
            words[board_layout.HEARTBEAT_MONO_NS_OFFSET >> 3],
            time.monotonic_ns(),
        )

    def number(self, index: int) -> int:
        """Return the number of the newest record, 0 if there is none."""
        return self._words[(self._offset(index) >> 3) + NEWEST]

    def newest(self, index: int) -> bytes | None:
        """Return the newest record as it was written, None if there is none."""
        # hot: `make bench-micro`, board
        at = self._offset(index)
        for _ in range(board_layout.TRIES_MAX):
            number = self._words[(at >> 3) + NEWEST]
            if not number:
                return None
            if (record := self._take(at, number)) is not None:
                return record
        raise DecodeError(f"slot {index} of the board is damaged")

    def record(self, index: int, number: int) -> bytes | None:
        """Return the record of a number, from 1; None if it is not written yet, or not there any more."""
        at = self._offset(index)
        return self._take(at, number) if number > 0 else None

    def _take(self, at: int, number: int) -> bytes | None:
        cell = at + board_layout.cell_offset(self._depth, number)
        if self._words[cell >> 3] != 2 * number:
            return None
        record = bytes(self._bytes[cell + RECORD_AT : cell + RECORD_AT + wire.TICKER_SIZE])
        return record if self._words[cell >> 3] == 2 * number else None

    def _offset(self, index: int) -> int:
        if not 0 <= index < self._slots:
            raise IndexError("the board has no such slot")
        return board_layout.HEADER_SIZE + index * self._size

    def ticker(self, index: int) -> wire.Ticker | None:
        """Return the newest record, None if there is none; flagged DOWN if nobody keeps it current."""
        record = self.newest(index)
        if record is None:
            return None
        ticker = wire.unpack(record)
        assert isinstance(ticker, wire.Ticker), "nothing else has this size"
        ticker.topic = self.topic(index).rstrip(b"\0")
        if not self.is_alive():
            ticker.flags |= wire.DOWN
        return ticker

    def copy(self, first: int = 0) -> bytearray:
        """Return the newest records of all slots in use from that one on, back to back, each whole.

        Slots without a record are left out. Flagged DOWN if nobody keeps them current.
        """
        if first < 0:
            raise IndexError("the board has no such slot")
        found = (self.newest(index) for index in range(first, self.count()))
        records = bytearray().join(record for record in found if record is not None)
        if not self.is_alive():
            for at in range(wire.FLAGS_OFFSET, len(records), wire.TICKER_SIZE):
                (flags,) = wire.FLAGS.unpack_from(records, at)
                wire.FLAGS.pack_into(records, at, flags | wire.DOWN)
        return records

    def wait(self, index: int, after: int, spin_ns: int) -> bool:
        """Look until the newest number is another than after, awake, for so long at most; True if it is."""
        at = (self._offset(index) >> 3) + NEWEST
        words = self._words
        deadline = time.monotonic_ns() + spin_ns
        while words[at] == after:
            if time.monotonic_ns() >= deadline:
                return False
        return True
