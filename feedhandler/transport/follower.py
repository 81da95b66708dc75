"""What a subscriber makes of messages: the records that it has not seen, and the gaps in each topic's sequence.

Pure: messages come in, records go out through a callable. Compiled where there is a compiler, with the types of
`follower.pxd`.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from feedhandler.data import raw, unpacked, wire
from feedhandler.data.contracts import Sink
from feedhandler.data.errors import DecodeError

TOPICS_MAX = 100_000  # that are known by their padded names; more than any merger has
GATHERED_SIZE_FIRST = 64 * wire.TICKER_SIZE  # of a buffer of records, which then doubles

Ticker, Trade, Depth, BookRecord = wire.Ticker, wire.Trade, wire.Depth, wire.BookRecord
VERSION = wire.VERSION
TICKER, TRADE, DEPTH, BOOK = int(wire.TICKER), int(wire.TRADE), int(wire.DEPTH), int(wire.BOOK)
TICKER_KIND, TRADE_KIND, DEPTH_KIND, BOOK_KIND = wire.TICKER, wire.TRADE, wire.DEPTH, wire.BOOK
FLAGS_OF = wire.FLAGS_OF
SIDES = {side.value: side for side in wire.Side}
TRADE_SIZE, DEPTH_SIZE = wire.SIZES[wire.TRADE], wire.SIZES[wire.DEPTH]
_COUNTS: Final = wire.COUNTS[wire.BOOK]
assert _COUNTS is not None
BIDS_OFFSET, ASKS_OFFSET, LEVEL_SIZE, BOOK_SIZE, BOOK_SIZE_MAX = _COUNTS
TOPIC_SIZE = wire.TOPIC_SIZE
TOPIC_BYTES_MAX = wire.TOPIC_BYTES_MAX
RECORD_SIZE = wire.TICKER_SIZE
VERSION_OFFSET = wire.VERSION_OFFSET
KIND_OFFSET = wire.KIND_OFFSET
SESSION_OFFSET = wire.SESSION_OFFSET
SEQUENCE_OFFSET = wire.SEQUENCE_OFFSET


class Loss:
    """What a subscriber knows of one topic's sequence; sequence is the newest number seen.

    lost: records missing in gaps, less those that came after all; gaps: how many; recovered: records that came
    after all, because they were asked for.
    """

    def __init__(self, session: int, sequence: int, lost: int = 0, gaps: int = 0, recovered: int = 0) -> None:
        self.session = session
        self.sequence = sequence
        self.lost = lost
        self.gaps = gaps
        self.recovered = recovered
        self.topic = ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Loss) and repr(self) == repr(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return (
            f"Loss(session={self.session}, sequence={self.sequence}, lost={self.lost}, gaps={self.gaps},"
            f" recovered={self.recovered})"
        )


Record = wire.Record
OnGap = Callable[[Record, int], bool]
Aside = Mapping[int, Callable[[wire.Document], bool]]
NOBODY: Final[Aside] = {}


class Follower(Sink):
    """Unpacks messages and passes on the records that were not seen before; follows each topic's sequence.

    losses and newest (the newest record that has come) are by topic; undecodable counts messages that this version
    cannot read. on_gap is called with a record before which others are missing, and the first number that is
    missing; True: it has taken the record. While a topic is in held, its records are added
    to the list there. aside has, by kind, who is asked about a document first; True: it is for nobody else.
    emit_other gets what is no ticker, instead of emit.
    """

    def __init__(
        self,
        emit: Callable[[Record], object],
        on_gap: OnGap | None = None,
        aside: Aside = NOBODY,
        emit_other: Callable[[Record], object] | None = None,
    ) -> None:
        self._emit = emit
        self._emit_other = emit if emit_other is None else emit_other
        self.on_gap = on_gap
        self._aside = aside
        self._padded: dict[bytes, Loss] = {}  # the same as in losses, by topics as they stand in records
        self._topic = ""  # of the record that was followed last,
        self._missing = 0  # and how many are missing before it
        self.held: dict[str, list[Record]] = {}
        self.losses: dict[str, Loss] = {}
        self.newest: dict[str, Record] = {}
        self.undecodable = 0

    def take(self, data: bytes) -> None:
        """Take a message, which at a batch endpoint may hold several records."""
        # hot: `make bench-micro`, client
        size = len(data)
        if not size:
            self.undecodable += 1
        start = 0
        while start < size:
            if (
                size - start >= RECORD_SIZE
                and raw.get_u8(data, start + KIND_OFFSET) == TICKER
                and raw.get_u8(data, start + VERSION_OFFSET) == VERSION
                and not raw.get_u8(data, start + TOPIC_BYTES_MAX)
            ):
                self._take_ticker(data, start)
                start += RECORD_SIZE
            else:
                step = self._size_of_many(data, start, size)
                if step:
                    self._take_many(data, start, step)
                else:
                    step = wire.size_at(data, start)
                    self._take_other(raw.cut(data, start, step))
                start += step

    def _take_ticker(self, data: bytes, start: int) -> None:
        """Take one record of a message."""
        if self._is_news(data, start):
            self._pass(unpacked.ticker(Ticker, self._topic, TICKER_KIND, FLAGS_OF, data, start))

    def _size_of_many(self, data: bytes, start: int, size: int) -> int:
        """Return the size of the trade, depth or record of a book that begins there; 0: it is something else."""
        left = size - start
        if left < BOOK_SIZE or raw.get_u8(data, start + VERSION_OFFSET) != VERSION:
            return 0
        if raw.get_u8(data, start + TOPIC_BYTES_MAX):
            return 0
        code = raw.get_u8(data, start + KIND_OFFSET)
        if code == TRADE:
            length = TRADE_SIZE
        elif code == DEPTH:
            length = DEPTH_SIZE
        elif code == BOOK:
            count = raw.get_u16(data, start + BIDS_OFFSET) + raw.get_u16(data, start + ASKS_OFFSET)
            length = BOOK_SIZE + count * LEVEL_SIZE
            if length > BOOK_SIZE_MAX:
                return 0
        else:
            return 0
        return length if length <= left else 0

    def _take_many(self, data: bytes, start: int, size: int) -> None:
        """Take one of those, in one step: `wire.unpack` knows all kinds, and takes four times as long."""
        if not self._is_news(data, start):
            return
        code = raw.get_u8(data, start + KIND_OFFSET)
        if code == BOOK:
            self._pass(unpacked.book(BookRecord, self._topic, BOOK_KIND, FLAGS_OF, data, start, size))
        elif code == TRADE:
            self._pass(unpacked.trade(Trade, self._topic, TRADE_KIND, FLAGS_OF, SIDES, data, start))
        else:
            self._pass(unpacked.depth(Depth, self._topic, DEPTH_KIND, FLAGS_OF, data, start))

    def _take_other(self, data: bytes) -> None:
        try:
            record: Any = wire.unpack(data)
        except DecodeError:
            self.undecodable += 1
            return
        take_aside = self._aside.get(record.kind)
        if take_aside is not None and take_aside(record):
            return
        if record.kind == wire.NOTICE:
            return  # about a connection, and under a topic that is another's
        if isinstance(record, wire.Condition):
            self._take_condition(record, data)
        elif isinstance(record, wire.Unknown):
            self._hand_on(record)
        elif self._is_news(data, 0):
            self._pass(record)

    def _take_condition(self, record: Record, data: bytes) -> None:
        """Hand on a condition unless it is an old one: it has the number of the topic's last record."""
        loss = self._padded.get(raw.cut(data, 0, TOPIC_SIZE))
        known = loss.sequence if loss is not None and loss.session == record.session else None
        if known is not None and record.sequence < known:
            return
        is_news = self._is_news(data, 0)
        if is_news and known is not None and loss is not None:
            # That record has not come either.
            if not self._missing:
                loss.gaps += 1
            self._missing += 1
            loss.lost += 1
            if self.on_gap is not None and self.on_gap(record, known + 1):
                return
        self._hand_on(record)

    def _pass(self, record: Record) -> None:
        """Hand on a record that was not seen before."""
        self.newest[self._topic] = record
        if self._missing and self.on_gap is not None and self.on_gap(record, record.sequence - self._missing):
            return
        self._hand_on(record)

    def _hand_on(self, record: Record) -> None:
        if self.held:
            held = self.held.get(record.topic)
            if held is not None:
                held.append(record)
                return
        if type(record) is Ticker:
            self._emit(record)
        else:
            self._emit_other(record)

    def _is_news(self, data: bytes, start: int) -> bool:
        """Follow the topic's sequence; says in `_missing` how many are missing before this record."""
        session = raw.get_u32(data, start + SESSION_OFFSET)
        sequence = raw.get_u64(data, start + SEQUENCE_OFFSET)
        padded = raw.cut(data, start, TOPIC_SIZE)
        self._missing = 0
        loss = self._padded.get(padded)
        if loss is None:
            loss = self._first_of(padded, session, sequence)
            if loss is None:
                return True
        self._topic = loss.topic
        if loss.session != session:
            # The first of a new merger: what came before it is unknown, not lost.
            loss.session, loss.sequence = session, sequence
            return True
        if sequence <= loss.sequence:
            return False
        missing = sequence - loss.sequence - 1
        loss.sequence = sequence
        if missing:
            self._missing = missing
            loss.lost += missing
            loss.gaps += 1
        return True

    def _first_of(self, padded: bytes, session: int, sequence: int) -> Loss | None:
        """Know a topic by its padded name from now on; returns what is known of it, None if it is the first."""
        if len(self._padded) >= TOPICS_MAX:  # names that somebody makes up
            self._padded.clear()
        topic = self._topic = wire.unpadded(padded)
        known = self.losses.get(topic)
        loss = known
        if loss is None:
            loss = self.losses[topic] = Loss(session, sequence)
        loss.topic = topic
        self._padded[padded] = loss
        return known


class Gatherer(Follower):
    """Follows as `Follower` does, and copies the ticker records that are new into one buffer, as they came.

    No object is made of a record: there is no newest of them, and nothing is held back. Documents go aside, or
    become the newest of their topic.
    """

    def __init__(self, aside: Aside = NOBODY) -> None:
        super().__init__(_ignore, None, aside)
        self._records = bytearray()
        self._used = 0  # of that: whole records

    @property
    def count(self) -> int:
        """How many records are in the buffer."""
        return self._used // RECORD_SIZE

    def collect(self) -> bytearray:
        """Return the records, which belong to the caller; what comes next goes to another buffer."""
        records, used = self._records, self._used
        self._records, self._used = bytearray(), 0
        del records[used:]
        return records

    def _take_ticker(self, data: bytes, start: int) -> None:
        # hot: `make bench-micro`, client
        if not self._is_news(data, start):
            return
        if len(self._records) - self._used < RECORD_SIZE:
            self._records.extend(bytes(max(len(self._records), GATHERED_SIZE_FIRST)))
        raw.copy(self._records, self._used, data, start, RECORD_SIZE)
        self._used += RECORD_SIZE

    def _pass(self, record: Record) -> None:
        self.newest[record.topic] = record

    def _hand_on(self, record: Record) -> None:
        pass  # of no use in an array


def _ignore(record: Record) -> None:
    pass
