"""A book as its records make it: a snapshot, then changes, none of which may be missing.

    snapshot, id 100 ── changes 101 to 104 ── changes 105 to 105 ── changes 107 to 109
                              next                   next                gap: the book is not valid any more

A book that lacks a change looks sound and is wrong. So it is valid only while each record followed the one before
it, by the number of its topic and by the exchange's ids, and otherwise it has no levels at all. Pure: records come
in; who asks for a snapshot, or waits for the next one, is the caller's business. Compiled where there is a
compiler, with the types of `kept_book.pxd`.
"""

import math
from typing import Any, Final, NamedTuple

from feedhandler.data import book, raw, unpacked, wire
from feedhandler.data.book import BookRecord
from feedhandler.data.errors import DecodeError
from feedhandler.data.levels import Levels

NO_SNAPSHOT: Final = "no snapshot has come yet"
MISSED: Final = "a record was missed"
UNLINKED: Final = "the exchange's ids do not follow"
CUT_SHORT: Final = "a part of a message is missing"
DAMAGED: Final = "a record cannot be read"
RESTARTED: Final = "the merger was restarted"
INVALID: Final = "the feed says that it is invalid"
DOWN: Final = "it is down"
UNCERTAIN: Final = "the connection was lost"

# For the functions and the class: what has a type in the .pxd is not to be had from Python.
_NO_BIDS = Levels(True)
_NO_ASKS = Levels(False)
_BookRecord, _BOOK_KIND, _FLAGS_OF = BookRecord, wire.BOOK, wire.FLAGS_OF
_VERSION, _CODE = wire.VERSION, book.CODE
_TOPIC_BYTES_MAX, _VERSION_OFFSET, _KIND_OFFSET = wire.TOPIC_BYTES_MAX, wire.VERSION_OFFSET, wire.KIND_OFFSET
_COUNTS: Final = wire.counts_of(book.BOOK)
assert _COUNTS is not None
_FIRST_COUNT, _SECOND_COUNT, _LEVEL_SIZE, _SIZE_MIN, _SIZE_MAX = _COUNTS
_FLAGS_OFFSET, _SESSION_OFFSET, _SEQUENCE_OFFSET = (
    wire.FLAGS_OFFSET,
    wire.SESSION_OFFSET,
    wire.SEQUENCE_OFFSET,
)
_EXCHANGE_NS_OFFSET, _RECV_NS_OFFSET = wire.EXCHANGE_NS_OFFSET, wire.RECV_NS_OFFSET
_PUBLISH_NS_OFFSET = wire.PUBLISH_NS_OFFSET
_FIRST_ID_OFFSET, _LAST_ID_OFFSET, _PART_OFFSET, _PARTS_OFFSET = (
    book.BOOK.layout.offset(name) for name in ("first_id", "last_id", "part", "parts")
)
_NO_CHANGES, _ORIGIN = wire.SNAPSHOT | wire.INVALID, wire.ORIGIN


class Best(NamedTuple):
    """The best level of each side; NaN where there is none, or the book is not valid."""

    bid: float
    bid_size: float
    ask: float
    ask_size: float


def read(data: bytes, topic: str) -> wire.Record:
    """Return the record that these bytes are, as `wire.unpack` does; topic is its own, as text, if it is known."""
    if topic and _is_whole(data) and not raw.get_u8(data, _TOPIC_BYTES_MAX):
        return unpacked.book(_BookRecord, topic, _BOOK_KIND, _FLAGS_OF, data, 0, len(data))
    return wire.unpack(data)


def _is_whole(data: bytes) -> bool:
    """True for a book's record, as long as it says that it is."""
    size = len(data)
    return (
        _SIZE_MIN <= size <= _SIZE_MAX
        and raw.get_u8(data, _KIND_OFFSET) == _CODE
        and raw.get_u8(data, _VERSION_OFFSET) == _VERSION
        and size
        == _SIZE_MIN + (raw.get_u16(data, _FIRST_COUNT) + raw.get_u16(data, _SECOND_COUNT)) * _LEVEL_SIZE
    )


class Book:
    """One topic's book. `apply` gets its records and conditions in the order of the stream.

    While `is_valid` is false there are no levels, and `reason` says why. bids and asks are the sides as they are
    now, best first: sequences of (price, size), so `book.bids[:5]` are the best five. sequence is the number of the
    newest record that is in the book, last_id the exchange's id of its last change. known_from is the lowest price
    from which all bids are known, known_to the highest to which all asks are: beyond, levels are there once they
    changed.
    """

    def __init__(self, topic: str = "") -> None:
        self.topic = topic
        self.reason = NO_SNAPSHOT  # "" while it is valid
        self.session = self.sequence = 0
        self.last_id = 0
        self.exchange_ns = self.recv_ns = self.publish_ns = 0  # of the newest record that is in it
        self.is_stale = False
        self.origin = 0  # flags, of the newest
        self._bids, self._asks = Levels(True), Levels(False)
        self._known_from, self._known_to = 0.0, math.inf
        self._has_base = False
        self._base_sequence = 0  # number of the snapshot that it began with
        self._invalid_sequence = -1  # that of the newest INVALID: a snapshot of before that is none
        self._seen = 0  # number of the newest record, which may be a part of a message that is not complete
        self._parts: list[BookRecord] = []  # of that message

    def __repr__(self) -> str:
        best = self.best
        what = f"{best.bid} / {best.ask}" if self.is_valid else f"not valid: {self.reason}"
        return f"<Book {self.topic} #{self.sequence} {what}>"

    @property
    def is_valid(self) -> bool:
        """True if the levels may be used."""
        return not self.reason

    @property
    def has_base(self) -> bool:
        """True if it is valid, or will be without another snapshot if nothing was missed."""
        return self._has_base

    @property
    def lacks_snapshot(self) -> bool:
        """True if it is not valid before another snapshot has come, and somebody else may have one."""
        return not self._has_base and not self._parts and self.reason != INVALID

    @property
    def seen(self) -> int:
        """The number of the newest record that has come."""
        return self._seen

    @property
    def bids(self) -> Levels:
        """The bids, the highest first. They change as the book does: copy what you keep."""
        return _NO_BIDS if self.reason else self._bids

    @property
    def asks(self) -> Levels:
        """The asks, the lowest first; as for bids."""
        return _NO_ASKS if self.reason else self._asks

    @property
    def best(self) -> Best:
        """The best bid and ask with their sizes."""
        bids, asks = (_NO_BIDS, _NO_ASKS) if self.reason else (self._bids, self._asks)
        # As `Best` does, which is Python: a third of the time.
        return tuple.__new__(Best, (bids.best(), bids.best_size(), asks.best(), asks.best_size()))

    @property
    def known_from(self) -> float:
        """The lowest price from which all bids are known; 0: all of them are."""
        return math.nan if self.reason else self._known_from

    @property
    def known_to(self) -> float:
        """The highest price to which all asks are known; infinite: all of them are."""
        return math.nan if self.reason else self._known_to

    def bids_array(self) -> Any:
        """Return the bids as a NumPy array of their own, with fields price and size."""
        return _array(self.bids)

    def asks_array(self) -> Any:
        """Return the asks, likewise."""
        return _array(self.asks)

    def apply(self, record: wire.Record | bytes) -> bool:
        """Take the topic's next record or condition, or its bytes; True if it changed what the book says.

        Records that are older than the book change nothing. Raises ValueError for a record of another topic.
        """
        # hot: `make bench-micro`, books
        if isinstance(record, bytes):
            try:
                record = wire.unpack(record)
            except DecodeError:
                return self.doubt(DAMAGED)
        if record.topic != self.topic:
            if self.topic:
                raise ValueError(f"a record of {record.topic}, and this is the book of {self.topic}")
            self.topic = record.topic
        if not isinstance(record, _BookRecord):
            if isinstance(record, wire.Condition):
                return self._apply_condition(record)
            raise ValueError(f"{record.topic}: a {record.kind} record, and a book is made of book records")
        is_snapshot = bool(record.flags & wire.SNAPSHOT)
        if record.session != self.session:
            self._begin(record.session, record.sequence)
        elif is_snapshot and self._continues(record):
            pass
        elif is_snapshot and not record.part and record.sequence > self._oldest_base():
            self._parts = []  # another base, whatever came before it
        elif record.sequence <= self._seen:
            return self.confirm(record.sequence)
        elif record.sequence != self._seen + 1:
            self._seen = record.sequence
            return self.doubt(MISSED)
        self._seen = record.sequence
        if record.flags & wire.INVALID:
            return self.doubt(INVALID)
        if not is_snapshot and not self._has_base:
            self._parts = []
            return False
        return self._take(record, is_snapshot)

    def follow(self, data: bytes) -> bool:
        """Take the topic's next record as it was sent, if it has changes alone that follow; else do nothing.

        What `apply` would do with it, without the object: False says that it is a case for that.
        """
        # hot: `make bench`, the relay
        if not self._has_base or self._parts or not _is_whole(data):
            return False
        flags = raw.get_u16(data, _FLAGS_OFFSET)
        sequence, last_id = raw.get_u64(data, _SEQUENCE_OFFSET), raw.get_u64(data, _LAST_ID_OFFSET)
        if (
            flags & _NO_CHANGES
            or raw.get_u16(data, _PARTS_OFFSET) != 1
            or raw.get_u16(data, _PART_OFFSET)
            or raw.get_u32(data, _SESSION_OFFSET) != self.session
            or sequence != self._seen + 1
            or not raw.get_u64(data, _FIRST_ID_OFFSET) <= self.last_id + 1 <= last_id
        ):
            return False
        self._seen = sequence
        bid_count, ask_count = raw.get_u16(data, _FIRST_COUNT), raw.get_u16(data, _SECOND_COUNT)
        try:
            self._set_levels(data, _SIZE_MIN, bid_count, ask_count, False)
        except (DecodeError, IndexError):
            self.doubt(DAMAGED)
            return True
        self.exchange_ns = raw.get_i64(data, _EXCHANGE_NS_OFFSET)
        self.recv_ns = raw.get_i64(data, _RECV_NS_OFFSET)
        self.publish_ns = raw.get_i64(data, _PUBLISH_NS_OFFSET)
        self._note(sequence, last_id, flags)
        return True

    def confirm(self, sequence: int) -> bool:
        """Take note that this is the topic's newest number: if it is known here, nothing was missed."""
        return self._resume(UNCERTAIN) if sequence == self._seen else False

    def doubt(self, reason: str) -> bool:
        """Have no levels until the next snapshot; True if it had some."""
        had = self._has_base
        self.reason = reason
        self._has_base = self.is_stale = False
        self._parts = []
        self._bids.clear()
        self._asks.clear()
        self.last_id = 0
        return had

    def suspend(self, reason: str) -> bool:
        """Have no levels until it is known that nothing was missed: with the next record, if that follows."""
        if not self._has_base:
            return False
        was_valid = self.is_valid
        self.reason = reason
        return was_valid

    def _begin(self, session: int, sequence: int) -> None:
        """Begin anew with the first record or condition of another session."""
        self.doubt(RESTARTED if self.session else NO_SNAPSHOT)
        self.session, self._seen, self.sequence = session, sequence, 0
        self._invalid_sequence = -1

    def _oldest_base(self) -> int:
        """Return the number that a snapshot has to be beyond."""
        return max(self._seen, self._invalid_sequence) if self._has_base else self._invalid_sequence

    def _resume(self, *reasons: str) -> bool:
        """Nothing was missed: if it was suspended for one of these reasons, that is over."""
        if not self._has_base or self.reason not in reasons:
            return False
        self.reason = ""
        return True

    def _apply_condition(self, condition: wire.Condition) -> bool:
        flags, is_invalid = condition.flags, bool(condition.flags & wire.INVALID)
        if condition.session != self.session:
            self._begin(condition.session, condition.sequence)
        elif condition.sequence < self._seen:
            # An old one; but INVALID ends with nothing but a snapshot.
            is_in_force = is_invalid and condition.sequence >= self._base_sequence
            return self._mark_invalid(condition.sequence) if is_in_force else False
        elif condition.sequence > self._seen:
            self._seen = condition.sequence
            self.doubt(MISSED)
        if is_invalid:
            return self._mark_invalid(condition.sequence)
        was_stale, self.is_stale = self.is_stale, bool(flags & wire.STALE) and self._has_base
        if flags & wire.DOWN:
            return self.suspend(DOWN)
        return self._resume(UNCERTAIN, DOWN) or was_stale != self.is_stale

    def _mark_invalid(self, sequence: int) -> bool:
        self._invalid_sequence = max(self._invalid_sequence, sequence)
        return self.doubt(INVALID)

    def _continues(self, record: BookRecord) -> bool:
        """True for the next part of a snapshot; those that a relay sends have one number."""
        if not self._parts or record.part != len(self._parts):
            return False
        return record.sequence in (self._seen, self._seen + 1) and _is_of(record, self._parts[0])

    def _take(self, record: BookRecord, is_snapshot: bool) -> bool:
        """Take a record that follows; a message of several parts changes the book with its last one."""
        parts = self._parts
        if record.parts != 1 or parts:
            if record.part != len(parts) or record.part >= record.parts:
                return self.doubt(CUT_SHORT)
            if parts and not _is_of(record, parts[0]):
                return self.doubt(CUT_SHORT)
            parts.append(record)
            if record.part + 1 < record.parts:
                return False
            self._parts = []
        else:
            parts = [record]
        if is_snapshot:
            self._bids.clear()
            self._asks.clear()
            self._known_from, self._known_to = 0.0, math.inf
            self._base_sequence = parts[0].sequence
        elif not record.first_id <= self.last_id + 1 <= record.last_id:
            # Ids of before are those of another count: the snapshot that it began with has not come.
            return self.doubt(UNLINKED)
        try:
            for part in parts:
                self._set_levels(part.levels, 0, part.bid_count, part.ask_count, is_snapshot)
        except (DecodeError, IndexError):
            return self.doubt(DAMAGED)
        self.exchange_ns, self.recv_ns, self.publish_ns = (
            record.exchange_ns,
            record.recv_ns,
            record.publish_ns,
        )
        self._note(record.sequence, record.last_id, record.flags)
        return True

    def _note(self, sequence: int, last_id: int, flags: int) -> None:
        """A record is in it, and so it is valid."""
        self._has_base = True
        self.reason = ""
        self.is_stale = False
        self.origin = flags & _ORIGIN
        self.sequence, self.last_id = sequence, last_id

    def _set_levels(self, data: bytes, start: int, bid_count: int, ask_count: int, is_snapshot: bool) -> None:
        asks_start = start + bid_count * _LEVEL_SIZE
        edge = book.edge_of(data, start, bid_count, is_snapshot)
        if edge:
            self._known_from = edge
        edge = book.edge_of(data, asks_start, ask_count, is_snapshot)
        if edge:
            self._known_to = edge
        self._bids.take(data, start, bid_count)
        self._asks.take(data, asks_start, ask_count)

    @property
    def is_simulated(self) -> bool:
        return bool(self.origin & wire.SIMULATED)

    @property
    def is_replay(self) -> bool:
        return bool(self.origin & wire.REPLAY)

    def snapshot(self) -> list[bytes]:
        """Return the records of a snapshot of it, all with the number of its last change; none if it is not valid.

        Times are those of that change.
        """
        if self.reason:
            return []
        bids, asks = self._bids.packed(), self._asks.packed()
        if self._known_from > 0.0:
            bids = book.edge(self._known_from) + bids
        if self._known_to < math.inf:
            asks = book.edge(self._known_to) + asks
        head = wire.HEADER.pack(
            self.topic.encode(),
            wire.VERSION,
            book.CODE,
            wire.SNAPSHOT | self.origin,
            self.session,
            self.sequence,
            self.exchange_ns,
            self.recv_ns,
            self.publish_ns,
        )
        return [head + body for body in book.bodies(self.last_id, self.last_id, bids, asks)]


def _is_of(record: BookRecord, first: BookRecord) -> bool:
    """True if a record is a part of the message that another one begins."""
    return (record.first_id, record.last_id, record.parts) == (first.first_id, first.last_id, first.parts)


def _array(levels: Levels) -> Any:
    try:
        import numpy as np
    except ImportError as exc:
        raise ImportError("levels as arrays need NumPy: pip install 'feedhandler[numpy]'") from exc
    return np.frombuffer(bytearray(levels.packed()), [("price", "<f8"), ("size", "<f8")])
