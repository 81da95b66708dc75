"""Recordings played again offline: the records that subscribers got, or would have got, at full speed.

    for record in replay.records("recordings", kinds=["trade", "book"]):
        ...                                    # what a Subscriber yields, in the order in which it was received

    items ──▶ Decoding ──▶ a Merger of its own, a run ──▶ records

Topics, symbols and numbers are the merger's. session is the second in which the feed was started, or the capture
begins; publish_ns is the time of receipt; REPLAY is set. What only a running feed knows is not there: STALE, and
first values of tickers over REST.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from feedhandler.data import wire
from feedhandler.data.contracts import Fanout
from feedhandler.data.errors import ConfigError
from feedhandler.data.instruments import Instrument, instrument_list
from feedhandler.data.kinds import RECORD_WORDS
from feedhandler.data.topics import symbol_in
from feedhandler.exchanges import EXCHANGES
from feedhandler.merger.merge import Merger
from feedhandler.recordings.decoding import Decoded, Decoding
from feedhandler.recordings.runs import Run, RunReader, begun_s, find_runs
from feedhandler.recordings.traffic import Item, What

CONDITION: Final = int(wire.CONDITION)
KIND_OFFSET: Final = wire.KIND_OFFSET
SIZES: Final = wire.SIZES
UNKNOWN: Final = "unknown"  # the exchange of a gap, where nothing tells
UNKNOWN_QUOTE: Final = "?"  # where neither a list nor the spelling tells


class RecordingGap(msgspec.Struct, frozen=True):
    """A place in a recording where something is missing; count is how many items, 0 if that is not known."""

    exchange: str
    connection: str
    recv_ns: int
    reason: str
    count: int


class _Unheard(Fanout):
    """Whom nobody listens to."""

    def send(self, topic: bytes, message: bytes | bytearray) -> None:
        """Send nothing."""


class _Published(Fanout):
    """What the merger publishes of records."""

    def __init__(self, flags: int) -> None:
        super().__init__()
        self.is_wanted = True
        self.records: list[bytes] = []
        self._flags = flags

    def send(self, topic: bytes, message: bytes | bytearray) -> None:
        """Keep a record."""
        code = message[KIND_OFFSET]
        if not SIZES[code]:
            return  # a document
        if code == CONDITION:  # its flags are the merger's, of records the feed's
            message = bytearray(message)
            (flags,) = wire.FLAGS.unpack_from(message, wire.FLAGS_OFFSET)
            wire.FLAGS.pack_into(message, wire.FLAGS_OFFSET, flags | self._flags)
        self.records.append(bytes(message))


class Player:
    """One run, decoded: iterate for what comes of it, record by record as bytes, and gaps among them.

    name is the exchange of a run that does not tell. kinds are decoded, and no others.
    """

    def __init__(self, run: Run, name: str = "", kinds: Iterable[str] = RECORD_WORDS) -> None:
        self.reader = RunReader(run)
        self._run = run
        flags = wire.REPLAY | (wire.SIMULATED if run.is_simulated else 0)
        named = run.exchange if run.exchange in EXCHANGES else name
        self._decoding = Decoding(named, kinds=frozenset(kinds), base_flags=flags, has_quotes=False)
        self._published = _Published(flags)
        self._merger: Merger | None = None
        self._now_ns = 0
        self._listed: dict[str, dict[str, Instrument]] = {name: {} for name in EXCHANGES}  # by native symbol
        self._topics: set[bytes] = set()  # native ones, that have a symbol
        self._last: dict[tuple[str, What], int] = {}  # number of each connection's last frame
        self.items = 0
        self.elsewhere: Counter[str] = Counter()  # frames of markets that are not decoded, and of which
        self.undecodable = 0  # frames

    def __iter__(self) -> Iterator[bytes | RecordingGap]:
        # hot: `feedhandler export`
        take, published = self._decoding.take, self._published
        topics, topic_size = self._topics, wire.TOPIC_SIZE
        merger: Merger | None = None
        for item in self.reader:
            self.items += 1
            if item.wall_ns > self._now_ns:
                self._now_ns = item.wall_ns
            what = item.what
            if merger is None and what is not What.HEADER:  # which may have no time
                merger = self._merger = self._begin()
                on_message = merger.on_message
            if what is What.ANSWERED:
                self._list(item)
            elif what is What.GAP:
                yield self._gap(item)
            elif what is What.OPENED:
                if not item.is_repeated:
                    self._last.update(dict.fromkeys(_counts_of(item.connection), 0))
            elif item.number and (gap := self._missing(item)) is not None:
                yield gap
            found = take(item)
            if not found.records:
                self._count(item, found)
                continue
            for record in found.records:
                topic = record[:topic_size]
                if topic not in topics:
                    self._name(topic)
                on_message(record)
            records, published.records = published.records, []
            yield from records

    def _begin(self) -> Merger:
        return Merger(
            dict.fromkeys(EXCHANGES, 1),
            self._published,
            _Unheard(),
            lambda: self._now_ns,
            session=begun_s(self._run, self._now_ns),
            pid=0,
            now_mono_ns=0,
        )

    @property
    def unnamed(self) -> int:
        """How many records were left out: more than one instrument claims their symbol."""
        return sum(view.unmapped for view in self._merger.exchanges.values()) if self._merger else 0

    def _count(self, item: Item, found: Decoded) -> None:
        """Count a frame of which nothing has come, if there should have."""
        if item.what is What.RECEIVED:
            if found.market is None:
                self.elsewhere[found.where] += 1
            elif found.problem:
                self.undecodable += 1

    # --- symbols

    def _list(self, item: Item) -> None:
        """Take an answer, if it is a list of instruments."""
        found = self._decoding.instruments(item)
        if found is not None:
            market, instruments = found
            listed = self._listed[market.exchange]
            listed.update((each.native, each) for each in instruments)
            self._tell(market.exchange)

    def _name(self, topic: bytes) -> None:
        """Have a symbol for a native topic that is met for the first time."""
        self._topics.add(topic)
        exchange = wire.unpadded(topic).split(".", 2)[1]
        native = symbol_in(topic)
        listed = self._listed[exchange]
        if native not in listed:
            listed[native] = _spelled(exchange, native)
            self._tell(exchange)

    def _tell(self, exchange: str) -> None:
        """Tell the merger what is known of instruments, as a feed does."""
        assert self._merger is not None
        listing = instrument_list(exchange, self._now_ns, self._listed[exchange].values())
        topic = wire.topic(wire.INSTRUMENTS, exchange)
        document = wire.Document(topic, kind=wire.INSTRUMENTS, body=msgspec.json.encode(listing))
        self._merger.on_message(wire.pack_document(document))

    # --- gaps

    def _gap(self, item: Item) -> RecordingGap:
        exchange = self._decoding.exchange_of(item.connection) or self._run.exchange or UNKNOWN
        recv_ns = item.wall_ns or self._now_ns or self._run.begun_ns
        return RecordingGap(exchange, item.connection, recv_ns, item.name, item.number)

    def _missing(self, item: Item) -> RecordingGap | None:
        """Return what is missing before a frame, or the end of a connection, by its number."""
        what, number = item.what, item.number
        if what is What.CLOSED:
            what, number = What.RECEIVED, number + 1  # it has that of the last one
        elif what is not What.RECEIVED and what is not What.SENT:
            return None
        key = item.connection, what
        last = self._last.get(key, number - 1)  # a recording may begin in the middle
        self._last[key] = number
        if item.what is What.CLOSED:
            for each in _counts_of(item.connection):
                self._last.pop(each, None)
        count = number - last - 1
        if count <= 0:
            return None
        which = "received" if what is What.RECEIVED else "sent"
        reason = f"frames {last + 1} to {number - 1} {which} are missing, by their numbers"
        return self._gap(item._replace(name=reason, number=count))


def _counts_of(connection: str) -> list[tuple[str, What]]:
    """Return what counts frames of a connection."""
    return [(connection, What.RECEIVED), (connection, What.SENT)]


def _spelled(exchange: str, native: str) -> Instrument:
    """Return what a native symbol is where no list has it; what it is quoted in may be unknown."""
    for made in sorted(EXCHANGES[exchange].markets, key=lambda m: -len(m().prefix)):
        market = made()
        if native.startswith(market.prefix):
            found = market.spelled(native.removeprefix(market.prefix))
            if found is not None:
                return market.prefixed(found)
    return Instrument(native, native, UNKNOWN_QUOTE)


def messages(
    *sources: str | Path,
    kinds: Iterable[str] = (),
    symbols: Iterable[str] = (),
    exchanges: Iterable[str] = (),
    exchange: str = "",
) -> Iterator[bytes]:
    """Yield records as bytes, in the order in which they were received, over all exchanges.

    sources are directories of recordings, segments or captures. kinds, symbols and exchanges are those wanted, all
    of them if none is named; conditions come with the kinds that they are about. exchange is whose traffic it is
    where a recording does not tell. Raises ConfigError for what is no recording or no kind.
    """
    wanted, names, only = check_kinds(kinds), frozenset(check_symbols(symbols)), check_exchanges(exchanges)
    check_exchanges([exchange] if exchange else [])
    feeds: dict[tuple[str, str], list[Run]] = {}
    for source in sources:
        for run in find_runs(Path(source), only):
            key = (str(source), run.feed)
            feeds.setdefault(key, []).append(run)
    streams = [_stream(runs, exchange, wanted, names, frozenset(only)) for runs in feeds.values()]
    if len(streams) == 1:
        return (record for _, record in streams[0])
    return (record for _, record in heapq.merge(*streams, key=lambda each: each[0]))


def records(
    *sources: str | Path,
    kinds: Iterable[str] = (),
    symbols: Iterable[str] = (),
    exchanges: Iterable[str] = (),
    exchange: str = "",
) -> Iterator[wire.Record]:
    """Yield records as a `Subscriber` does; arguments and errors as for `messages`."""
    found = messages(*sources, kinds=kinds, symbols=symbols, exchanges=exchanges, exchange=exchange)
    return map(wire.unpack, found)


def _stream(
    runs: Sequence[Run], exchange: str, kinds: Sequence[str], symbols: frozenset[str], only: frozenset[str]
) -> Iterator[tuple[int, bytes]]:
    """Yield the records of one feed, each with its place in the order of all."""
    newest_ns = 0
    is_wanted = _chooser(symbols, only)
    unpack_from = wire.TIME.unpack_from
    for run in runs:
        for found in Player(run, exchange, kinds):
            if isinstance(found, bytes) and is_wanted(found):
                (recv_ns,) = unpack_from(found, wire.RECV_NS_OFFSET)
                if recv_ns > newest_ns:
                    newest_ns = recv_ns
                yield newest_ns, found


def _chooser(symbols: frozenset[str], exchanges: frozenset[str]) -> Callable[[bytes], bool]:
    """Return what says whether a record is of one of these symbols and exchanges; of none: of all."""
    known: dict[bytes, bool] = {}

    def is_wanted(record: bytes) -> bool:
        topic = record[: wire.TOPIC_SIZE]
        found = known.get(topic)
        if found is None:
            _, exchange, symbol = wire.unpadded(topic).split(".", 2)
            found = (not symbols or symbol in symbols) and (not exchanges or exchange in exchanges)
            known[topic] = found
        return found

    return is_wanted if symbols or exchanges else lambda record: True


def check_kinds(kinds: Iterable[str]) -> tuple[str, ...]:
    """Return kinds of records, all if none is named. Raises ConfigError for what is none."""
    named = tuple(dict.fromkeys(kinds))
    for kind in named:
        if kind not in RECORD_WORDS:
            raise ConfigError(f"{kind!r} is no kind of records; they are {', '.join(RECORD_WORDS)}")
    return named or RECORD_WORDS


def check_symbols(symbols: Iterable[str]) -> tuple[str, ...]:
    """Return symbols. Raises ConfigError for what is spelled as an exchange does."""
    named = tuple(symbols)
    for symbol in named:
        if "/" not in symbol:
            raise ConfigError(f"{symbol!r} is no symbol of ours; they are spelled BTC/USDT")
    return named


def check_exchanges(names: Iterable[str]) -> tuple[str, ...]:
    """Return exchanges. Raises ConfigError for what is none."""
    named = tuple(names)
    for name in named:
        if name not in EXCHANGES:
            raise ConfigError(f"{name!r} is no exchange; they are {', '.join(EXCHANGES)}")
    return named
