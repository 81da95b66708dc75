"""Recorded traffic, decoded as a feed decodes it: items in, records out.

    Item ──address──▶ market ──▶ Market.decode ──▶ states ──▶ records
                                      ▲
    answers that are bases ───────────┘ as soon as the changes that follow them are there

Symbols and kinds need not be named: the states of whatever a frame is about are made with the first one. What
nobody has recorded, such as a request of ours for trades that were missed, is not made up.
"""

from collections import deque
from collections.abc import Callable, Collection
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import msgspec

from feedhandler.data import wire
from feedhandler.data.book import BOOK
from feedhandler.data.errors import UNDECODABLE, DecodeError, ProtocolError
from feedhandler.data.instruments import Instrument
from feedhandler.data.kinds import RECORD_WORDS
from feedhandler.data.ticker import TICKER
from feedhandler.data.trade import TRADE
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.arbitration import LINES_MAX, Line
from feedhandler.exchanges.base import Control, Market, StatedQuote
from feedhandler.exchanges.full_book import FullBookState
from feedhandler.exchanges.state import State
from feedhandler.exchanges.trades import TradeState
from feedhandler.recordings.traffic import ANSWERED, CLOSED, HEADER, OPENED, RECEIVED, SENT, Item

BASES_MAX: Final = 64  # of one symbol, the newest, for the changes that follow them: some 4 MB


class Place(NamedTuple):
    """Whose an address is. market None: of a market of that exchange that we do not have, or of no exchange."""

    exchange: str = ""
    market: type[Market] | None = None


def place_of(address: str, connection: str = "") -> Place:
    """Return what an address is, by its host and path; of markets that share it, by the connection's name."""
    host = urlsplit(address).hostname or ""
    for exchange in EXCHANGES.values():
        for market in exchange.markets:
            if any(host == domain or host.endswith(f".{domain}") for domain in market.domains):
                found = [m for m in exchange.markets if m.addresses.match(address)]
                named = [m for m in found if m.name == connection.partition(".")[0]]
                return Place(exchange.name, next(iter([*named, *found]), None))
    return Place()


def _named_in(connection: str) -> type[Market] | None:
    """Return the market of the exchange that the name of a connection begins with, if it does."""
    exchange = EXCHANGES.get(connection.partition(".")[0].lower())
    return exchange.main if exchange else None


class Decoded(msgspec.Struct, gc=False):
    """What an item has come to.

    market is None where it is of none of ours, and where says what it is of. kind and native are those of the state
    that a frame is about, "" if it is about none: an answer, or a channel that is not ours. problem says why it
    cannot be decoded. has_lost: a book's chain has ended on that connection, was_crossed: it was crossed before.
    is_guessed: its connection has no address, so it is of what else there is to go by.
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
    is_guessed: bool = False


class _Met(dict[str, Any]):
    """The states of one kind: whoever is asked for is there, and gets the present frame if note agrees."""

    def __init__(self, market: Market, kind: str, base_flags: int, note: Callable[[State], bool]) -> None:
        self._market, self._kind, self._base_flags, self._note = market, kind, base_flags, note

    def get(self, native: str, default: Any = None) -> Any:
        """Return a symbol's state."""
        state = dict.get(self, native)
        if state is None:
            try:
                (state,) = self._market.add([native], self._base_flags, self._kind) if native else (None,)
            except ValueError:  # no name of a symbol is as long
                state = None
        return default if state is None or not self._note(state) else state

    def __contains__(self, native: object) -> bool:
        return True


class _Connection(msgspec.Struct, eq=False):
    where: str
    is_guessed: bool = False  # without an address
    carrier: "Carrier | None" = None
    line: Line = Line(0)  # that most of its symbols have it as
    lines: dict[str, int] = {}  # which line of each native symbol it is
    topics: set[str] = set()  # that are subscribed to, as far as frames of ours are recorded


class Carrier:
    """One market: what its connections carry, and which line of each symbol a connection is.

    Connections that share no symbol may be the same line. Of one that shares a symbol with more than it may have,
    that symbol's last line is one more: what counts once does so all the same, by its ids.
    """

    def __init__(self, made: type[Market], kinds: Collection[str], base_flags: int) -> None:
        self.market = made()
        self.states: dict[str, _Met] = {
            kind: _Met(self.market, kind, base_flags, self.note) for kind in made.kinds if kind in kinds
        }
        self.market.states.update(self.states)
        self.market.tickers = self.states.get(TICKER.name, self.market.tickers)
        topics = [topic for kind in made.kinds for topic in self.market.topics("\0", kind)]
        # What stands before and behind a symbol; a topic of all symbols has none.
        self._topics = [(before, behind) for before, _, behind in (topic.partition("\0") for topic in topics)]
        self._lines = [Line(index) for index in range(LINES_MAX)]
        self._taken: dict[str, list[int]] = {}  # how many connections are each line of a native symbol
        self.met: State | None = None  # of the present frame,
        self.connection = _Connection("")  # and where it came
        self.line = self._lines[0]
        self.is_of_another_line = False
        self.was_known = self.was_crossed = False
        self.records: list[bytes] = []
        self._buffer = bytearray(wire.RECORD_SIZE_MAX)
        self._packed = memoryview(self._buffer)
        self.begun_ns: dict[State, int] = {}  # when the exchange made the first record of each

    def is_decoded(self, topic: str) -> bool:
        """True for a channel that is ours."""
        return any(topic.startswith(before) and topic.endswith(behind) for before, behind in self._topics)

    def decode(self, item: Item, connection: _Connection) -> Control | None:
        """Decode a frame. Raises DecodeError, and afterwards knows what it is about all the same."""
        # hot: `make bench-micro`, replay
        self.connection, self.line = connection, connection.line
        try:
            control = self._attempt(item)
        except DecodeError:
            if not self.is_of_another_line:
                raise
        if not self.is_of_another_line:
            return control
        connection.line = self.line
        return self._attempt(item)

    def _attempt(self, item: Item) -> Control | None:
        self.met, self.is_of_another_line = None, False
        self.was_known = self.was_crossed = False
        return self.market.decode(item.data, item.wall_ns, self.line, self.emit)

    def note(self, state: State) -> bool:
        """Note what the present frame is about; False if it has to be decoded as that of another line."""
        if state is self.met:
            return True
        index = self.connection.lines.get(state.native)
        if index is None:
            index = self.line_of(state.native)
        if index != self.line.index:
            self.line, self.is_of_another_line = self._lines[index], True
            return False
        self.meet(state, index)
        return True

    def meet(self, state: State, index: int) -> None:
        """The present frame is about this, on that line of it."""
        self.met = state
        if isinstance(state, FullBookState):
            book = state.lines[index]
            self.was_known, self.was_crossed = book.is_known, book.is_known and book.is_crossed

    def line_of(self, native: str) -> int:
        """Return which line of a symbol the present connection is: the same as of others, if that is free."""
        index = self.connection.lines.get(native)
        if index is None:
            taken = self._taken.setdefault(native, [0] * LINES_MAX)
            free = [line for line, count in enumerate(taken) if not count]
            index = self.line.index if self.line.index in free else free[0] if free else LINES_MAX - 1
            self.connection.lines[native] = index
            taken[index] += 1
            if taken[index] == 1:
                for state in self._states_of(native):
                    state.renew(index)
                    self._settle(state)
        return index

    def join(self, connection: _Connection, native: str) -> None:
        """A connection is to bring a symbol's book."""
        self.connection, self.line, self.met = connection, connection.line, None
        self.line = self._lines[self.line_of(native)]
        self.states[BOOK.name].get(native)

    def lines_of(self, native: str) -> list[int]:
        """Return the lines of a symbol that are connections."""
        return [line for line, count in enumerate(self._taken.get(native, ())) if count]

    def state_of(self, kind: str, native: str) -> State | None:
        """Return a symbol's state, None if nothing about it has come."""
        return dict.get(self.states[kind], native) if kind in self.states else None

    def _states_of(self, native: str) -> list[State]:
        found = (self.state_of(kind, native) for kind in self.states)
        return [state for state in found if state is not None]

    def _settle(self, state: State) -> None:
        if isinstance(state, FullBookState):
            state.settle(self.emit)

    def emit(self, state: State) -> None:
        """Take the record of a state, under the topic's next number, as a feed does."""
        if state.takes_number:
            state.sequence += 1
            if state.sequence == 1:
                self.begun_ns[state] = state.exchange_ns
        size = state.pack(self._buffer, 0)
        self.records.append(bytes(self._packed[:size]))

    def take_records(self) -> list[bytes]:
        """Return what was emitted since the last call."""
        records, self.records = self.records, []
        return records

    def books(self) -> list[FullBookState]:
        """Return the states of all books."""
        return list(self.states[BOOK.name].values()) if BOOK.name in self.states else []

    def close(self, connection: _Connection) -> None:
        """A connection is closed."""
        for native, index in connection.lines.items():
            taken = self._taken[native]
            taken[index] -= 1
            if not taken[index]:
                for state in self._states_of(native):
                    state.release(index)
                    self._settle(state)


class _KeptBase(NamedTuple):
    last_id: int
    data: bytes  # the answer: levels take four times as much
    limit: int


class Decoding:
    """What becomes of the items of one recording.

    name is the exchange whose traffic it is, where addresses do not tell, or tell of a market of it that we do not
    have: then it is of the market that the connection is named after, or its main one. "" = nobody has said.
    Raises KeyError for one that there is not. kinds are decoded; base_flags are those of all records. has_quotes:
    what channels state of books is wanted, which costs as much as to decode them.
    """

    def __init__(
        self,
        name: str = "",
        *,
        kinds: Collection[str] = RECORD_WORDS,
        base_flags: int = 0,
        has_quotes: bool = True,
    ) -> None:
        self._named = EXCHANGES[name] if name else None
        self._kinds = kinds
        self._base_flags = base_flags
        self._has_quotes = has_quotes
        self._headed: type[Market] | None = None  # what the header says
        self._placed: type[Market] | None = None  # the first market that addresses have told of
        self._connections: dict[str, _Connection] = {}
        self._carriers: dict[type[Market], Carrier] = {}
        self._bases: dict[tuple[type[Market], str], deque[_KeptBase]] = {}
        self._requests: dict[type[Market], Market] = {}  # of each one that reads answers

    @property
    def carriers(self) -> list[Carrier]:
        """All that was decoded, and its states."""
        return list(self._carriers.values())

    def take(self, item: Item) -> Decoded:
        """Take the next item."""
        what = item.what
        if what is RECEIVED:
            return self._receive(item)
        if what is OPENED:
            if item.is_repeated and item.connection in self._connections:
                return Decoded()
            return self._open(item.connection, item.name)
        if what is CLOSED:
            return self._close(item.connection)
        if what is ANSWERED:
            return self.take_answer(item)
        if what is HEADER:
            self._read_header(item.data)
        elif what is SENT:
            return self._take_sent(item)
        return Decoded()

    def _take_sent(self, item: Item) -> Decoded:
        """Note what a frame of ours subscribes to."""
        connection = self._connections.get(item.connection)
        if connection is None:
            return self._open(item.connection, item.name) if item.name else Decoded()
        asked = connection.carrier.market.requested(item.data) if connection.carrier is not None else None
        if asked is not None:
            is_first, topics = asked
            (connection.topics.update if is_first else connection.topics.difference_update)(topics)
        return Decoded()

    def _read_header(self, data: bytes) -> None:
        try:
            name = msgspec.json.decode(data, type=dict[str, Any]).get("exchange")
        except UNDECODABLE:
            return
        found = EXCHANGES.get(name.lower()) if isinstance(name, str) else None
        self._headed = found.main if found else None

    def exchange_of(self, connection: str) -> str:
        """Return whose a connection is, or the recording, as far as is known; else ""."""
        known = self._connections.get(connection)
        if known is not None and known.carrier is not None:
            return known.carrier.market.exchange
        if self._named is not None:
            return self._named.name
        market = self._placed or self._headed
        return market.exchange if market is not None else ""

    # --- connections

    def _market_at(self, address: str, connection: str = "") -> tuple[str, type[Market] | None]:
        """Return what an address is, in words, and its market; without any, what else there is to go by."""
        place = place_of(address, connection)
        if place.market is not None:
            self._placed = self._placed or place.market
            return place.exchange, place.market
        if place.exchange and (self._named is None or self._named.name != place.exchange):
            return f"{place.exchange}, a market that is not decoded", None
        if self._named is not None:
            word = connection.partition(".")[0]
            named = next((m for m in self._named.markets if m.name == word), self._named.main)
            return self._named.name, named
        market = None if address else self._placed or self._headed or _named_in(connection)
        if market is None:
            host = urlsplit(address).hostname
            return f"{host}, no exchange of ours" if host else "an unknown exchange", None
        return market.exchange, market

    def _market_of_answer(self, url: str) -> tuple[str, type[Market] | None]:
        """Return the same of a request; where the host does not tell, as in a simulation, the rest of it does."""
        where, found = self._market_at(url)
        if found is None or place_of(url).exchange:
            return where, found
        for made in EXCHANGES[found.exchange].markets:
            market = self._reader(made)
            if market.lists(url) or market.base_at(url) or market.past_trades_at(url):
                return where, made
        return where, found

    def _open(self, name: str, address: str) -> Decoded:
        closed = self._close(name)
        where, market = self._market_at(address, name)
        connection = self._connections[name] = _Connection(where, not address)
        if market is None:
            closed.where = where
            return closed
        carrier = connection.carrier = self._carrier(market)
        return Decoded(where, carrier.market, records=closed.records)

    def _carrier(self, market: type[Market]) -> Carrier:
        carrier = self._carriers.get(market)
        if carrier is None:
            carrier = self._carriers[market] = Carrier(market, self._kinds, self._base_flags)
            carrier.market.contract_sizes = self._reader(market).contract_sizes
        return carrier

    def _reader(self, made: type[Market]) -> Market:
        """Return who reads a market's answers, and learns from its lists."""
        if made not in self._requests:
            self._requests[made] = made()
        return self._requests[made]

    def _close(self, name: str) -> Decoded:
        connection = self._connections.pop(name, None)
        if connection is None or connection.carrier is None:
            return Decoded()
        carrier = connection.carrier
        carrier.close(connection)
        return Decoded(connection.where, carrier.market, records=carrier.take_records())

    # --- frames

    def _receive(self, item: Item) -> Decoded:
        connection = self._connections.get(item.connection)
        if connection is None:
            self._open(item.connection, item.name)
            connection = self._connections[item.connection]
        carrier = connection.carrier
        if carrier is None:
            return Decoded(connection.where)
        market = carrier.market
        control, problem = None, ""
        try:
            control = carrier.decode(item, connection)
        except DecodeError as exc:
            topic = market.topic_of(item.data)
            if carrier.met is not None or not topic or carrier.is_decoded(topic):
                problem = str(exc)
            for state in carrier.books():  # it had a change, perhaps, as a feed has to take it
                if topic in market.topics(state.native, BOOK.name):
                    index = carrier.line_of(state.native)
                    carrier.meet(state, index)
                    state.lose(index, carrier.emit)
        met = carrier.met
        has_lost = False
        if isinstance(met, FullBookState):
            line = connection.lines[met.native]
            has_lost = carrier.was_known and not met.lines[line].is_known
            self._begin(carrier, met, line, item.wall_ns)
        return Decoded(
            connection.where,
            market,
            met.kind if met else "",
            met.native if met else "",
            carrier.take_records(),
            control,
            problem,
            market.stated_quote(item.data) if self._has_quotes and not problem else None,
            has_lost,
            carrier.was_crossed,
            connection.is_guessed,
        )

    # --- answers

    def instruments(self, item: Item) -> tuple[Market, list[Instrument]] | None:
        """Return what an answer lists, natives with the market's prefix; None if it is no list that can be read."""
        _, made = self._market_of_answer(item.name)
        place = place_of(item.name)
        if made is None or (place.exchange and place.market is None):
            return None  # another market's, though its frames are decoded as this one's
        market = self._reader(made)
        if not market.lists(item.name):
            return None
        try:
            rows = market.decode_instruments(item.data)
        except (DecodeError, ProtocolError):
            return None
        return market, [market.prefixed(each) for each in rows.items]

    def take_answer(self, item: Item) -> Decoded:
        """Take the answer to a request; it may be known long before the frames around it."""
        where, made = self._market_of_answer(item.name)
        if made is None:
            return Decoded(where)
        market = self._reader(made)
        if (listed := self.instruments(item)) is not None:
            market.learn(listed[1])
        asked = market.base_at(item.name)
        if asked is None:
            return self._take_past_trades(item, Decoded(where, market))
        native, limit = asked
        try:
            last_id = market.decode_base(native, item.data).last_id
        except (DecodeError, ProtocolError) as exc:
            return Decoded(where, market, BOOK.name, native, problem=str(exc))
        kept = _KeptBase(last_id, item.data, limit)
        self._bases.setdefault((made, native), deque(maxlen=BASES_MAX)).append(kept)
        carrier = self._carriers.get(made)
        state = self._subscribed(carrier, native) if carrier is not None else None
        if carrier is None or not isinstance(state, FullBookState):
            return Decoded(where, market, BOOK.name, native)
        if lines := carrier.lines_of(native):  # also to those that are known: it may have levels that are not
            base = msgspec.structs.replace(market.decode_base(native, item.data), limit=limit)
            state.offer(lines, base, item.wall_ns, carrier.emit)
        return Decoded(where, market, BOOK.name, native, carrier.take_records())

    def _subscribed(self, carrier: Carrier, native: str) -> State | None:
        """Return the state of a symbol's book, of which nothing but a subscription need have been seen."""
        topics = carrier.market.topics(native, BOOK.name) if BOOK.name in carrier.states else ()
        for connection in self._connections.values():
            if connection.carrier is carrier and not connection.topics.isdisjoint(topics):
                carrier.join(connection, native)
        return carrier.state_of(BOOK.name, native)

    def _take_past_trades(self, item: Item, found: Decoded) -> Decoded:
        """Take trades that no connection brought, if that is what an answer has."""
        market = found.market
        assert market is not None
        carrier = self._carriers.get(type(market))
        native = market.past_trades_at(item.name)
        state = carrier.state_of(TRADE.name, native) if carrier is not None and native else None
        if carrier is None or not isinstance(state, TradeState):
            return found
        try:
            rows = market.decode_past_trades(native, item.data).items
        except (DecodeError, ProtocolError) as exc:
            return Decoded(found.where, market, TRADE.name, native, problem=str(exc))
        begun_ns = carrier.begun_ns.get(state, item.wall_ns)
        new = [
            row
            for row in sorted(rows, key=lambda row: (row.number, row.exchange_ns))
            if row.exchange_ns > begun_ns
            and state.trades.add(row.key, row.exchange_ns, item.wall_ns, row.number)
        ]
        for row in new:
            state.publish(
                row.trade,
                row.exchange_ns,
                item.wall_ns,
                carrier.emit,
                sequence=row.sequence,
                count=row.count,
                bits=row.bits,
                flags=wire.RECOVERED | (wire.LAST if row is new[-1] else 0),
            )
        return Decoded(found.where, market, TRADE.name, native, carrier.take_records())

    def _begin(self, carrier: Carrier, state: FullBookState, line: int, recv_ns: int) -> None:
        """Have a line's book begin, if there is a base from which its changes go on."""
        bases = self._bases.get((type(carrier.market), state.native))
        if not bases or state.lines[line].is_known:
            return
        for kept in sorted(bases, key=lambda each: -each.last_id):
            if state.can_begin(line, kept.last_id):
                base = msgspec.structs.replace(
                    carrier.market.decode_base(state.native, kept.data), limit=kept.limit
                )
                if state.offer([line], base, recv_ns, carrier.emit):
                    return
