"""One run, decoded: what a merger of its own makes of its items, and the gaps among them.

items ──▶ Decoding ──▶ Merger ──▶ records

Compiled where there is a compiler, with the types of `player.pxd`.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Final

import msgspec
from msgspec.structs import replace

from feedhandler.data import raw, wire
from feedhandler.data.contracts import Fanout, Sink
from feedhandler.data.instruments import Instrument, instrument_list
from feedhandler.data.kinds import RECORD_WORDS
from feedhandler.data.topics import symbol_in
from feedhandler.exchanges import EXCHANGES
from feedhandler.merger.merge import Merger
from feedhandler.recordings.carriers import RecordedConnection
from feedhandler.recordings.decoding import Decoding
from feedhandler.recordings.runs import Run, RunReader, begun_s
from feedhandler.recordings.traffic import ANSWERED, CLOSED, GAP, HEADER, OPENED, RECEIVED, SENT, Item

PART: Final = 512  # records that are handed on together: some ms of decoding, and 150 kB
UNKNOWN: Final = "unknown"  # the exchange of a gap, where nothing tells
UNKNOWN_QUOTE: Final = "?"  # where neither a list nor the spelling tells

# For what is compiled: what has a type in the .pxd is not to be had from Python.
_CONDITION = int(wire.CONDITION)
_KIND_OFFSET, _FLAGS_OFFSET = wire.KIND_OFFSET, wire.FLAGS_OFFSET
_TOPIC_SIZE = wire.TOPIC_SIZE
_SIZES = wire.SIZES


class RecordingGap(msgspec.Struct, frozen=True):
    """A place in a recording where something is missing; count is how many items, 0 if that is not known."""

    exchange: str
    connection: str
    recv_ns: int
    reason: str
    count: int


class Unheard(Fanout):
    """Whom nobody listens to."""

    def send(self, topic: bytes, message: bytes | bytearray) -> None:
        """Send nothing."""


class Published(Fanout):
    """What the merger publishes of records; found is what has come since it was taken, gaps among it."""

    def __init__(self, flags: int) -> None:
        super().__init__()
        self.is_wanted = True
        self.found: list[bytes | RecordingGap] = []
        self._flags = flags

    def send(self, topic: bytes, message: bytes | bytearray) -> None:
        """Keep a record."""
        code = raw.get_u8(message, _KIND_OFFSET)
        if not _SIZES[code]:
            return  # a document
        record = raw.cut(message, 0, len(message))
        if code == _CONDITION:  # its flags are the merger's, of records the feed's
            changed = bytearray(record)
            raw.put_u16(changed, _FLAGS_OFFSET, raw.get_u16(record, _FLAGS_OFFSET) | self._flags)
            record = bytes(changed)
        self.found.append(record)


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
        self._published = Published(flags)
        self._merger: Merger | None = None
        self._step = Sink()  # the merger's, once there is one
        self._now_ns = 0
        self._listed: dict[str, dict[str, Instrument]] = {name: {} for name in EXCHANGES}  # by native symbol
        self._topics: set[bytes] = set()  # native ones, that have a symbol
        # As they are until something else than frames comes.
        self._connections: dict[str, RecordedConnection] = {}
        self._received: dict[str, int] = {}  # number of each connection's last frame
        self._sent: dict[str, int] = {}
        self.items = 0
        self.elsewhere: Counter[str] = Counter()  # frames of markets that are not decoded, and of which
        self.undecodable = 0  # frames

    def __iter__(self) -> Iterator[bytes | RecordingGap]:
        return chain.from_iterable(self.parts())

    def parts(self) -> Iterator[list[bytes | RecordingGap]]:
        """Yield the same in lists of some hundred."""
        published = self._published
        for part in self.reader.parts():
            for item in part:
                self._take(item)
                if len(published.found) >= PART:
                    yield published.found
                    published.found = []
        if published.found:
            yield published.found
            published.found = []

    def _take(self, item: Item) -> None:
        """Take the next item; what comes of it is published."""
        # hot: `make bench-micro`, replay
        self.items += 1
        wall_ns = item.wall_ns
        if wall_ns > self._now_ns and not item.is_repeated:  # what is read ahead is not of now
            self._now_ns = wall_ns
        if item.what is not RECEIVED:
            self._take_other(item)
            return
        name, number = item.connection, item.number
        if self._merger is None or self._received.get(name) != number - 1:
            self._look(item)
        else:
            self._received[name] = number  # nothing is missing
        connection = self._connections.get(name)
        if connection is None:
            connection = self._connections[name] = self._decoding.connection_of(item)
        carrier = connection.carrier
        if carrier is None:
            self.elsewhere[connection.where] += 1
            return
        if connection.beside is None:
            records = carrier.receive(item, connection)
        else:
            carrier, records = self._decoding.receive(item, connection)
        self._publish(records)
        if carrier.problem and not records:
            self.undecodable += 1

    def _take_other(self, item: Item) -> None:
        """Take an item that is no frame of an exchange's."""
        self._connections.clear()
        self._look(item)
        self._publish(self._decoding.take(item).records)

    def _publish(self, records: list[bytes]) -> None:
        for record in records:
            topic = raw.cut(record, 0, _TOPIC_SIZE)
            if topic not in self._topics:
                self._name(topic)
            self._step.take(record)

    def _look(self, item: Item) -> None:
        """Look at an item for what it tells beside frames, and for what is missing before it."""
        what = item.what
        if self._merger is None and what is not HEADER:  # which may have no time
            self._begin()
        gap = None
        if what is ANSWERED:
            self._list(item)
        elif what is GAP:
            gap = self._gap(item)
        elif what is OPENED:
            if not item.is_repeated:
                self._received[item.connection] = self._sent[item.connection] = 0
        elif item.number:
            gap = self._missing(item)
        if gap is not None:
            self._published.found.append(gap)

    def _begin(self) -> None:
        self._merger = Merger(
            dict.fromkeys(EXCHANGES, 1),
            self._published,
            Unheard(),
            lambda: self._now_ns,
            session=begun_s(self._run, self._now_ns or self.reader.begun_ns),
            pid=0,
            now_mono_ns=0,
        )
        self._step = self._merger.step

    @property
    def unnamed(self) -> int:
        """How many records were left out: more than one instrument claims their symbol."""
        return sum(view.unmapped for view in self._merger.exchanges.values()) if self._merger else 0

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
        what, number, connection = item.what, item.number, item.connection
        if what is HEADER:
            return None
        numbers, which = (self._sent, "sent") if what is SENT else (self._received, "received")
        if what is CLOSED:
            number += 1  # it has that of the last one
        last = numbers.get(connection, number - 1)  # a recording may begin in the middle
        numbers[connection] = number
        if what is CLOSED:
            del numbers[connection]
            self._sent.pop(connection, None)
        count = number - last - 1
        if count <= 0:
            return None
        reason = f"frames {last + 1} to {number - 1} {which} are missing, by their numbers"
        return self._gap(replace(item, name=reason, number=count))


def _spelled(exchange: str, native: str) -> Instrument:
    """Return what a native symbol is where no list has it; what it is quoted in may be unknown."""
    for made in sorted(EXCHANGES[exchange].markets, key=lambda m: -len(m().prefix)):
        market = made()
        if native.startswith(market.prefix):
            found = market.spelled(native.removeprefix(market.prefix))
            if found is not None:
                return market.prefixed(found)
    return Instrument(native, native, UNKNOWN_QUOTE)
