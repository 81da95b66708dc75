"""Recorded traffic, decoded as a feed decodes it: items in, records out.

    Item ──address──▶ market ──▶ Market.decode ──▶ states ──▶ records
                                      ▲
    answers that are bases ───────────┘ as soon as the changes that follow them are there

Symbols and kinds need not be named: the states of whatever a frame is about are made with the first one. What
nobody has recorded, such as a request of ours for trades that were missed, is not made up.
"""

from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from feedhandler.data import raw, wire
from feedhandler.data.book import BOOK
from feedhandler.data.errors import UNDECODABLE, DecodeError, ProtocolError
from feedhandler.data.ticker import TICKER
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.arbitration import LINES_MAX, Line
from feedhandler.exchanges.base import Control, Market, StatedQuote
from feedhandler.exchanges.full_book import FullBookState
from feedhandler.exchanges.state import State
from feedhandler.recordings.traffic import Item, What

BASES_MAX: Final = 64  # of one symbol, the newest, for the changes that follow them: some 4 MB


class Place(NamedTuple):
    """Whose an address is. market None: of a market of that exchange that we do not have, or of no exchange."""

    exchange: str = ""
    market: type[Market] | None = None


def place_of(address: str) -> Place:
    """Return what an address is, by its host and path."""
    host = urlsplit(address).hostname or ""
    for exchange in EXCHANGES.values():
        for market in exchange.markets:
            if any(host == domain or host.endswith(f".{domain}") for domain in market.domains):
                found = next((m for m in exchange.markets if m.addresses.match(address)), None)
                return Place(exchange.name, found)
    return Place()


def _named_in(connection: str) -> type[Market] | None:
    """Return the market of the exchange that the name of a connection begins with, if it does."""
    exchange = EXCHANGES.get(connection.partition(".")[0].lower())
    return exchange.main if exchange else None


class Decoded(NamedTuple):
    """What an item has come to.

    market is None where it is of none of ours, and where says what it is of. kind and native are those of the state
    that a frame is about, "" if it is about none: an answer, or a channel that is not ours. problem says why it
    cannot be decoded. has_lost: a book's chain has ended on that connection, was_crossed: it was crossed before.
    is_guessed: its connection has no address, so it is of what else there is to go by. carrier tells apart what was
    decoded apart, since more connections were open than a symbol may have.
    """

    where: str = ""
    market: Market | None = None
    kind: str = ""
    native: str = ""
    records: list[bytes] = []
    control: Control | None = None
    problem: str = ""
    quote: StatedQuote | None = None
    has_lost: bool = False
    was_crossed: bool = False
    carrier: int = 0
    is_guessed: bool = False


class _Met(dict[str, Any]):
    """The states of one kind: whoever is asked for is there."""

    def __init__(self, market: Market, kind: str, note: Callable[[State], None]) -> None:
        self._market, self._kind, self._note = market, kind, note

    def get(self, native: str, default: Any = None) -> Any:
        """Return a symbol's state."""
        state = dict.get(self, native)
        if state is None:
            try:
                (state,) = self._market.add([native], 0, self._kind) if native else (None,)
            except ValueError:  # no name of a symbol is as long
                state = None
        if state is not None:
            self._note(state)
        return default if state is None else state

    def __contains__(self, native: object) -> bool:
        return True


class Carrier:
    """As many connections of one market as symbols may have, and the states of what they carry."""

    def __init__(self, made: type[Market], index: int) -> None:
        self.index = index
        self.market = made()
        self.states: dict[str, _Met] = {k: _Met(self.market, k, self.note) for k in made.kinds}
        self.market.states = dict(self.states)
        self.market.tickers = self.states[TICKER.name]
        topics = [topic for kind in made.kinds for topic in self.market.topics("\0", kind)]
        self._topics = [topic.split("\0") for topic in topics]  # what stands before and behind a symbol
        self.free = list(range(LINES_MAX))
        self.met: State | None = None  # of the present frame,
        self.line = Line(0)  # and its connection
        self.was_known = self.was_crossed = False
        self.records: list[bytes] = []

    def is_decoded(self, topic: str) -> bool:
        """True for a channel that is ours."""
        return any(topic.startswith(before) and topic.endswith(behind) for before, behind in self._topics)

    def note(self, state: State) -> None:
        """Note what the present frame is about."""
        if state is self.met:
            return
        self.met = state
        if isinstance(state, FullBookState):
            book = state.lines[self.line.index]
            self.was_known, self.was_crossed = book.is_known, book.is_known and book.is_crossed

    def emit(self, state: State) -> None:
        """Take the record of a state, under the topic's next number, as a feed does."""
        takes_number = state.takes_number
        record = bytearray(state.record())
        if takes_number:
            state.sequence += 1
            raw.put_u64(record, wire.SEQUENCE_OFFSET, state.sequence)
        self.records.append(bytes(record))

    def take_records(self) -> list[bytes]:
        """Return what was emitted since the last call."""
        records, self.records = self.records, []
        return records

    def books(self) -> list[FullBookState]:
        """Return the states of all books."""
        return list(self.states[BOOK.name].values()) if BOOK.name in self.states else []

    def renew(self, line: int) -> None:
        """Another connection has a line, and has sent nothing yet."""
        for state in self.market.all_states:
            state.renew(line)
        self._settle()

    def release(self, line: int) -> None:
        """A line's connection is closed."""
        for state in self.market.all_states:
            state.release(line)
        self._settle()

    def _settle(self) -> None:
        for state in self.books():
            state.settle(self.emit)


class _KeptBase(NamedTuple):
    last_id: int
    data: bytes  # the answer: levels take four times as much
    limit: int


class _Connection(msgspec.Struct):
    where: str
    is_guessed: bool  # without an address
    carrier: Carrier | None = None
    line: Line | None = None


class Decoding:
    """What becomes of the items of one recording.

    name is the exchange whose traffic it is, where addresses do not tell, or tell of a market of it that we do not
    have: then it is decoded as its main one. "" = nobody has said. Raises KeyError for one that there is not.
    """

    def __init__(self, name: str = "") -> None:
        self._named = EXCHANGES[name].main if name else None
        self._headed: type[Market] | None = None  # what the header says
        self._placed: type[Market] | None = None  # the first market that addresses have told of
        self._connections: dict[str, _Connection] = {}
        self._carriers: dict[type[Market], list[Carrier]] = defaultdict(list)
        self._bases: dict[tuple[type[Market], str], deque[_KeptBase]] = {}
        self._requests: dict[type[Market], Market] = {}  # of each one that reads answers

    @property
    def carriers(self) -> list[Carrier]:
        """All that was decoded, and its states."""
        return [carrier for carriers in self._carriers.values() for carrier in carriers]

    def take(self, item: Item) -> Decoded:
        """Take the next item."""
        what = item.what
        if what is What.RECEIVED:
            return self._receive(item)
        if what is What.OPENED:
            if item.is_repeated and item.connection in self._connections:
                return Decoded()
            return self._open(item.connection, item.name)
        if what is What.CLOSED:
            return self._close(item.connection)
        if what is What.ANSWERED:
            return self.take_answer(item)
        if what is What.HEADER:
            self._read_header(item.data)
        elif what is What.SENT and item.name and item.connection not in self._connections:
            return self._open(item.connection, item.name)
        return Decoded()

    def _read_header(self, data: bytes) -> None:
        try:
            name = msgspec.json.decode(data, type=dict[str, Any]).get("exchange")
        except UNDECODABLE:
            return
        found = EXCHANGES.get(name.lower()) if isinstance(name, str) else None
        self._headed = found.main if found else None

    # --- connections

    def _market_at(self, address: str, connection: str = "") -> tuple[str, type[Market] | None]:
        """Return what an address is, in words, and its market; without any, what else there is to go by."""
        place = place_of(address)
        if place.market is not None:
            self._placed = self._placed or place.market
            return place.exchange, place.market
        if place.exchange and (self._named is None or self._named.exchange != place.exchange):
            return f"{place.exchange}, a market that is not decoded", None
        market = self._named or (None if address else self._placed or self._headed or _named_in(connection))
        if market is None:
            host = urlsplit(address).hostname
            return f"{host}, no exchange of ours" if host else "an unknown exchange", None
        return market.exchange, market

    def _open(self, name: str, address: str) -> Decoded:
        closed = self._close(name)
        where, market = self._market_at(address, name)
        connection = self._connections[name] = _Connection(where, not address)
        if market is None:
            return closed._replace(where=where)
        carrier = connection.carrier = self._carrier(market)
        index = carrier.free.pop(0)
        connection.line = Line(index)
        carrier.renew(index)
        records = closed.records + carrier.take_records()
        return Decoded(where, carrier.market, records=records, carrier=carrier.index)

    def _carrier(self, market: type[Market]) -> Carrier:
        """Return one with a line to spare."""
        carriers = self._carriers[market]
        for carrier in carriers:
            if carrier.free:
                return carrier
        carriers.append(Carrier(market, len(carriers)))
        return carriers[-1]

    def _close(self, name: str) -> Decoded:
        connection = self._connections.pop(name, None)
        if connection is None or connection.carrier is None or connection.line is None:
            return Decoded()
        carrier, index = connection.carrier, connection.line.index
        carrier.release(index)
        carrier.free.append(index)
        return Decoded(
            connection.where, carrier.market, records=carrier.take_records(), carrier=carrier.index
        )

    # --- frames

    def _receive(self, item: Item) -> Decoded:
        connection = self._connections.get(item.connection)
        if connection is None:
            self._open(item.connection, item.name)
            connection = self._connections[item.connection]
        carrier, line = connection.carrier, connection.line
        if carrier is None or line is None:
            return Decoded(connection.where)
        market = carrier.market
        carrier.met, carrier.line = None, line
        carrier.was_known = carrier.was_crossed = False
        control, problem = None, ""
        try:
            control = market.decode(item.data, item.wall_ns, line, carrier.emit)
        except DecodeError as exc:
            topic = market.topic_of(item.data)
            if carrier.met is not None or not topic or carrier.is_decoded(topic):
                problem = str(exc)
            for state in carrier.books():  # it had a change, perhaps, as a feed has to take it
                if topic in market.topics(state.native, BOOK.name):
                    carrier.note(state)
                    state.lose(line.index, carrier.emit)
        met = carrier.met
        has_lost = False
        if isinstance(met, FullBookState):
            has_lost = carrier.was_known and not met.lines[line.index].is_known
            self._begin(carrier, met, line.index, item.wall_ns)
        return Decoded(
            connection.where,
            market,
            met.kind if met else "",
            met.native if met else "",
            carrier.take_records(),
            control,
            problem,
            None if problem else market.stated_quote(item.data),
            has_lost,
            carrier.was_crossed,
            carrier.index,
            connection.is_guessed,
        )

    # --- bases

    def take_answer(self, item: Item) -> Decoded:
        """Take the answer to a request; it may be known long before the frames around it."""
        where, made = self._market_at(item.name)
        if made is None:
            return Decoded(where)
        market = self._requests.setdefault(made, made())
        asked = market.base_at(item.name)
        if asked is None:
            return Decoded(where, market)
        native, limit = asked
        try:
            last_id = market.decode_base(item.data).last_id
        except (DecodeError, ProtocolError) as exc:
            return Decoded(where, market, BOOK.name, native, problem=str(exc))
        kept = _KeptBase(last_id, item.data, limit)
        self._bases.setdefault((made, native), deque(maxlen=BASES_MAX)).append(kept)
        return Decoded(where, market, BOOK.name, native)

    def _begin(self, carrier: Carrier, state: FullBookState, line: int, recv_ns: int) -> None:
        """Have a line's book begin, if there is a base from which its changes go on."""
        bases = self._bases.get((type(carrier.market), state.native))
        if not bases or state.lines[line].is_known:
            return
        for kept in sorted(bases, key=lambda each: -each.last_id):
            if state.can_begin(line, kept.last_id):
                base = msgspec.structs.replace(carrier.market.decode_base(kept.data), limit=kept.limit)
                if state.offer([line], base, recv_ns, carrier.emit):
                    return
