"""Recorded traffic, decoded as a feed decodes it: items in, records out.

    Item ──address──▶ market ──▶ Market.decode ──▶ states ──▶ records
                                      ▲
    answers that are bases ───────────┘ as soon as the changes that follow them are there

Symbols and kinds need not be named: the states of whatever a frame is about are made with the first one. What
nobody has recorded, such as a request of ours for trades that were missed, is not made up.
"""

from collections import deque
from collections.abc import Collection, Iterable
from typing import Final, NamedTuple
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from feedhandler.data import wire
from feedhandler.data.book import BOOK
from feedhandler.data.contract import CONTRACT
from feedhandler.data.errors import DecodeError, ProtocolError
from feedhandler.data.instruments import SPOT, Instrument
from feedhandler.data.kinds import RECORD_WORDS
from feedhandler.data.trade import TRADE
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.base import Control, Market, StatedQuote
from feedhandler.exchanges.full_book import FullBookState
from feedhandler.exchanges.polled import Poll, take_polled
from feedhandler.exchanges.state import State
from feedhandler.exchanges.trades import TradeState
from feedhandler.recordings.carriers import Carrier, KeptBase, RecordedConnection
from feedhandler.recordings.homes import Homes
from feedhandler.recordings.listed import ListedNatives
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


def _sharing(market: type[Market], address: str, connection: str) -> list[type[Market]]:
    """Return the other markets that a connection may be of, by its address, unless it is named after one."""
    markets = EXCHANGES[market.exchange].markets
    if any(each.name == connection.partition(".")[0] for each in markets):
        return []
    if not address and market.handshake_request is None:
        address = market().endpoint(market.ws_url, b"", "").url
    return [each for each in markets if each is not market and each.addresses.match(address)]


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
        self._homes = Homes()
        self._placed: type[Market] | None = None  # the first market that addresses have told of
        self._connections: dict[str, RecordedConnection] = {}
        self._carriers: dict[type[Market], Carrier] = {}
        self._bases: dict[type[Market], dict[str, deque[KeptBase]]] = {}  # by native symbol
        self._requests: dict[type[Market], Market] = {}  # of each one that reads answers
        self._listed: dict[type[Market], ListedNatives] = {}

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
            self._homes.read(item.data)
        elif what is SENT:
            return self._take_sent(item)
        return Decoded()

    def _take_sent(self, item: Item) -> Decoded:
        """Note what a frame of ours subscribes to."""
        connection = self._connections.get(item.connection)
        if connection is None:
            return self._open(item.connection, item.name) if item.name else Decoded()
        for each in connection.all():
            asked = each.carrier.market.requested(item.data) if each.carrier is not None else None
            if asked is not None:
                is_first, topics = asked
                (each.topics.update if is_first else each.topics.difference_update)(topics)
        return Decoded()

    @property
    def _headed(self) -> type[Market] | None:
        """What the header says."""
        return self._homes.exchange.main if self._homes.exchange else None

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
            if (
                market.lists(url)
                or market.base_at(url)
                or market.past_trades_at(url)
                or market.polled_at(url) is not None
            ):
                return where, made
        return where, found

    def _open(self, name: str, address: str) -> Decoded:
        closed = self._close(name)
        where, market = self._market_at(address, name)
        connection = self._others(name, market) or RecordedConnection(where, not address)
        self._connections[name] = connection
        if market is None:
            closed.where = where
            return closed
        carrier = connection.carrier = self._carrier(market)
        if connection.beside is None:
            self._put_beside(connection, _sharing(market, address, name))
        return Decoded(where, carrier.market, records=closed.records)

    def _put_beside(self, connection: RecordedConnection, markets: Iterable[type[Market]]) -> None:
        """A connection may as well be of these markets."""
        for market in markets:
            connection.beside = RecordedConnection(connection.where, connection.is_guessed)
            connection = connection.beside
            connection.carrier = self._carrier(market)

    def _others(self, name: str, market: type[Market] | None) -> RecordedConnection | None:
        """Return the connection of which the other sockets are: their names differ in the path."""
        whole, slash, path = name.partition("/")
        if market is None or slash + path not in market.paths:
            return None
        others = (self._connections.get(whole + other) for other in market.paths)
        return next((other for other in others if other is not None), None)

    def _carrier(self, market: type[Market]) -> Carrier:
        carrier = self._carriers.get(market)
        if carrier is None:
            bases = self._bases.setdefault(market, {})
            carrier = self._carriers[market] = Carrier(market, self._kinds, self._base_flags, bases)
            carrier.market.contract_sizes = self._reader(market).contract_sizes
            carrier.listed = self._listed_of(market).natives
        return carrier

    def _reader(self, made: type[Market]) -> Market:
        """Return who reads a market's answers, and learns from its lists."""
        if made not in self._requests:
            self._requests[made] = made()
        return self._requests[made]

    def _listed_of(self, made: type[Market]) -> ListedNatives:
        if made not in self._listed:
            self._listed[made] = ListedNatives(self._reader(made))
        return self._listed[made]

    def _close(self, name: str) -> Decoded:
        connection = self._connections.pop(name, None)
        if connection is None or connection.carrier is None:
            return Decoded()
        carrier = connection.carrier
        whole = name.partition("/")[0]
        for path in carrier.market.paths:  # it ends with the first of its sockets
            if self._connections.get(whole + path) is connection:
                del self._connections[whole + path]
        records: list[bytes] = []
        for each in connection.all():
            if each.carrier is not None:
                for native in each.lines:  # others have subscribed to it, and had nothing of it yet
                    self._subscribed(each.carrier, native)
                each.carrier.close(each)
                records += each.carrier.take_records()
        return Decoded(connection.where, carrier.market, records=records)

    # --- frames

    def connection_of(self, item: Item) -> RecordedConnection:
        """Return the connection that a frame came on; one that nothing was known of begins with it."""
        connection = self._connections.get(item.connection)
        if connection is None:
            self._open(item.connection, item.name)
            connection = self._connections[item.connection]
        return connection

    def receive(self, item: Item, connection: RecordedConnection) -> tuple[Carrier, list[bytes]]:
        """Decode a frame of one of our markets; returns the one whose it is, and the records."""
        assert connection.carrier is not None
        first = connection.carrier
        for each in connection.all():
            carrier = each.carrier
            assert carrier is not None
            records = carrier.receive(item, each)
            if carrier.met is not None or carrier.control is not None:
                return carrier, records
        return first, []

    def _receive(self, item: Item) -> Decoded:
        connection = self.connection_of(item)
        if connection.carrier is None:
            return Decoded(connection.where)
        carrier, records = self.receive(item, connection)
        market, met, problem = carrier.market, carrier.met, carrier.problem
        return Decoded(
            connection.where,
            market,
            met.kind if met else "",
            met.native if met else "",
            records,
            carrier.control,
            problem,
            market.stated_quote(item.data) if self._has_quotes and not problem else None,
            carrier.has_lost,
            carrier.was_crossed,
            connection.is_guessed,
        )

    # --- answers

    def instruments(self, item: Item) -> tuple[Market, list[Instrument]] | None:
        """Return what an answer lists, natives with the market's prefix; None if it is no list that can be read."""
        item = self._homes.at_home(item)
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
        natives = [each.native for each in rows.items if market.name == SPOT or each.settle]
        if sized := [each.native for each in rows.items if each.contract_size]:
            natives = sized  # the others are inverse, and frames about them cannot be converted
        self._listed_of(made).take(item.name, item.data, natives, is_whole=not rows.problem)
        return market, [market.prefixed(each) for each in rows.items]

    def take_answer(self, item: Item) -> Decoded:
        """Take the answer to a request; it may be known long before the frames around it."""
        item = self._homes.at_home(item)
        where, made = self._market_of_answer(item.name)
        if made is None:
            return Decoded(where)
        market = self._reader(made)
        if (listed := self.instruments(item)) is not None:
            market.learn(listed[1])
        asked = market.base_at(item.name)
        if asked is None:
            if (poll := market.polled_at(item.name)) is not None:
                return self._take_polled(item, poll, Decoded(where, market))
            return self._take_past_trades(item, Decoded(where, market))
        native, limit = asked
        try:
            last_id = market.decode_base(native, item.data).last_id
        except (DecodeError, ProtocolError) as exc:
            return Decoded(where, market, BOOK.name, native, problem=str(exc))
        bases = self._bases.setdefault(made, {}).setdefault(native, deque(maxlen=BASES_MAX))
        if any(each.is_ahead and each.data == item.data for each in bases):
            return Decoded(where, market, BOOK.name, native)
        bases.append(KeptBase(last_id, item.data, limit, item.is_repeated))
        carrier = self._carriers.get(made)
        state = self._subscribed(carrier, native) if carrier is not None else None
        if carrier is None or not isinstance(state, FullBookState):
            return Decoded(where, market, BOOK.name, native)
        if lines := carrier.lines_of(native):  # also to those that are known: it may have levels that are not
            base = replace(market.decode_base(native, item.data), limit=limit)
            state.offer(lines, base, item.wall_ns, carrier.emit)
        return Decoded(where, market, BOOK.name, native, carrier.take_records())

    def _subscribed(self, carrier: Carrier, native: str) -> State | None:
        """Return the state of a symbol's book, of which nothing but a subscription need have been seen."""
        topics = carrier.market.topics(native, BOOK.name) if BOOK.name in carrier.states else ()
        for connection in (each for first in self._connections.values() for each in first.all()):
            if connection.carrier is carrier and not connection.topics.isdisjoint(topics):
                carrier.join(connection, native)
        return carrier.state_of(BOOK.name, native)

    def _take_polled(self, item: Item, poll: Poll, found: Decoded) -> Decoded:
        """Take what no channel has of contracts."""
        market = found.market
        assert market is not None
        carrier = self._carriers.get(type(market))
        if carrier is None or CONTRACT.name not in carrier.states:
            return found
        try:
            rows = market.decode_poll(poll, item.data, item.wall_ns).items
        except (DecodeError, ProtocolError) as exc:
            return Decoded(found.where, market, CONTRACT.name, problem=str(exc))
        states = carrier.states[CONTRACT.name].values()
        take_polled(poll, rows, states, item.wall_ns, carrier.emit)
        return Decoded(found.where, market, CONTRACT.name, records=carrier.take_records())

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
