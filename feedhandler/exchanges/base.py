"""What every exchange file provides, and the words it shares with the session.

An exchange file holds all that is peculiar to its exchange: URLs, handshake, commands, heartbeat,
limits, message shapes, symbols, for each of its markets. Shared code works through `Market` and never asks
which one it has. Pure: bytes and times in, states and control words out. A state is what a feed keeps of one symbol
in one kind; its decoder updates it and emits it.
"""

import abc
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Final, Generic, TypeVar
from urllib.parse import parse_qs, urlsplit

import msgspec

from feedhandler.data import kinds, wire
from feedhandler.data.book import BOOK
from feedhandler.data.contract import CONTRACT
from feedhandler.data.depth import DEPTH
from feedhandler.data.errors import UNDECODABLE, DecodeError, ProtocolError
from feedhandler.data.instruments import SPOT, Instrument
from feedhandler.data.liquidation import LIQUIDATION
from feedhandler.data.refusal import FINAL_S, REGION_REMEDY, first_words, is_of_a_region
from feedhandler.data.rest import LimitHeader, RestRequest
from feedhandler.data.ticker import TICKER
from feedhandler.data.trade import TRADE
from feedhandler.exchanges.arbitration import LINES_MAX, Arbitration, Line
from feedhandler.exchanges.books import Base, ChainRule
from feedhandler.exchanges.contract_state import ContractState
from feedhandler.exchanges.depth_state import DepthState
from feedhandler.exchanges.full_book import FullBookState
from feedhandler.exchanges.polled import Poll, PolledContract
from feedhandler.exchanges.state import AHEAD_NS_MAX, QUOTE, RecordState, State, TickerState
from feedhandler.exchanges.trades import PastTrade, TradeState

# The price or size of a trade: that of nothing, or for nothing, is none.
Traded = Annotated[float, msgspec.Meta(gt=0.0, le=sys.float_info.max)]
# Of funding, which may be negative.
FundingRate = Annotated[float, msgspec.Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
# How much of its base asset one contract is, as a fraction.
ContractSize = tuple[int, int]
WHOLE: Final[ContractSize] = (1, 1)  # of what is no contract
Count = TypeVar("Count", float, float | None)
# Times whose nanoseconds fit the wire's i64, whatever the unit.
MILLISECONDS_MAX: Final = (2**63 - 1) // 1_000_000
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=MILLISECONDS_MAX)]
# what msgspec can bound; the wire has one bit more
UpdateId = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]

T = TypeVar("T")
Emit = Callable[[State], None]  # takes what a decoder has changed: its record leaves as it is then
Channel = tuple[str, int]  # of symbols, in a kind: its place in `Market.topics`

ROW_SIZE_SHOWN: Final = 120  # of a row that cannot be read, in messages


_VERSIONS: Final = re.compile(r"/v\d+/")

NO_ORDERS: Final = (0.0, 0.0)  # price and size of an empty side


def is_same(ours: Sequence[float], theirs: Sequence[float]) -> bool:
    """Compare as many numbers, of which some may be unknown."""
    return all(a == b or (a != a and b != b) for a, b in zip(ours, theirs, strict=True))


class StatedQuote(msgspec.Struct, frozen=True):
    """The best levels of a book after one of its changes, as another channel states them. A side may be empty."""

    native: str
    last_id: int
    levels: tuple[float, float, float, float]  # as in a quote


class Rows(msgspec.Struct, Generic[T], frozen=True):
    """What could be read of a list; problem: how many of its rows could not, and why, "" if all could."""

    items: list[T]
    problem: str = ""


class Quote(msgspec.Struct, frozen=True):
    """Best bid and offer as REST states them. An empty side has price NaN and size 0, as in a state."""

    bid: float
    bid_size: float
    ask: float
    ask_size: float


class RestTicker(msgspec.Struct, frozen=True):
    """What REST states of one symbol among all; what it leaves out is None, or NaN.

    statistics are open, high, low, base and quote volume, as in `TickerState.set_statistics`.
    """

    native: str
    quote: Quote | None = None
    last: float = wire.NAN
    statistics: tuple[float, float, float, float, float] | None = None


class Endpoint(msgspec.Struct, frozen=True):
    """Where and how to open one socket: the answer to a handshake."""

    url: str
    ping_interval_s: float | None = None  # None: the exchange's own default
    pong_timeout_s: float | None = None


class Welcome(msgspec.Struct, frozen=True):
    """The exchange is ready for commands."""


class Pong(msgspec.Struct, frozen=True):
    """Answer to our ping."""


class Ack(msgspec.Struct, frozen=True):
    """A command was accepted; id is ours, as text."""

    id: str


class Nack(msgspec.Struct, frozen=True):
    """A command was refused. id "" = the exchange did not state which.

    is_transient: the same command may succeed a little later. is_satisfied: it requested what already is. topics:
    what of it was refused, where the exchange has granted the others; () = all.
    """

    id: str
    reason: str
    is_transient: bool = False
    is_satisfied: bool = False
    topics: tuple[str, ...] = ()


class Goodbye(msgspec.Struct, frozen=True):
    """The exchange ends, or is about to end, this connection."""

    reason: str


class Resubscribe(msgspec.Struct, frozen=True):
    """Of a topic updates are missing on this connection: it is to be subscribed to anew, to begin with a base."""

    topic: str


Control = Welcome | Pong | Ack | Nack | Goodbye | Resubscribe

WELCOME: Final = Welcome()
PONG: Final = Pong()


class Capability(msgspec.Struct, frozen=True):
    """What an exchange offers of a kind in a market, in words for people.

    channels: what its topics are called, in their order. gaps: how it is found that something is missing.
    unproven: what cannot be shown of it there. left_out: what the exchange leaves out on purpose, "" if nothing.
    """

    channels: tuple[str, ...]
    pace: str
    gaps: str
    unproven: str
    left_out: str = ""


class Market(abc.ABC):
    """One market of an exchange: its hosts, limits, messages and symbols.

    An instance belongs to one feed, and holds the states of the market's symbols, one a kind that is wanted.
    """

    exchange: ClassVar[str]  # its name, in topics and in the configuration
    name: ClassVar[str]  # of the market: `SPOT`, or a word of the same kind, such as "linear"
    kinds: ClassVar[tuple[str, ...]] = (TICKER.name,)  # of records, that can be had of its symbols
    capabilities: ClassVar[Mapping[str, Capability]] = {}  # by kind
    ws_url: ClassVar[str]  # production; scheme, host and port
    rest_url: ClassVar[str]
    instruments_request: ClassVar[RestRequest]
    time_request: ClassVar[RestRequest]
    # for all symbols' tickers at once, in the order in which they are sent
    survey_requests: ClassVar[tuple[RestRequest, ...]]
    rest_limit: ClassVar[tuple[int, float]]  # weight permitted to one address, per seconds
    # Under what name the exchange counts that weight, and new connections: markets with the same share them. "" is
    # the exchange's own, for all that does not say otherwise.
    rest_budget: ClassVar[str] = ""
    rest_header: ClassVar[LimitHeader | None] = None  # where it tells how much of that is used
    connect_budget: ClassVar[str] = ""
    # Answers of these statuses are about the path that was asked for; all others that refuse, about the address.
    path_statuses: ClassVar[frozenset[int]] = frozenset()
    handshake_request: ClassVar[RestRequest | None] = None  # before each connection, e.g. for a token
    # Its quote changes many times a second wherever it trades: a connection without it is without data.
    canary: ClassVar[str] = "BTC/USDT"

    trade_ids_are_consecutive: ClassVar[bool] = False  # one that is skipped is a trade that is missing
    trades_begin_with_last: ClassVar[bool] = (
        False  # a subscription brings the last one that was made before it
    )
    past_trades_max: ClassVar[int] = 0  # in the answer to a `past_trades_request`; 0: none can be had

    # Of books: what their ids say, how many levels a side messages keep current (0: all), and how many a base has
    # that is requested over REST (0: they begin with a message).
    book_rule: ClassVar[ChainRule] = ChainRule()
    book_levels: ClassVar[int] = 0
    base_levels: ClassVar[int] = 0
    base_lag_s: ClassVar[float] = 1.0  # such a base may be so old

    # What its contracts lack in all channels, and REST has.
    polls: ClassVar[tuple[Poll, ...]] = ()

    # By what a recording is known to be of it: the exchange's domains, and the addresses there of this market,
    # as they are and have been.
    domains: ClassVar[tuple[str, ...]] = ()
    addresses: ClassVar[re.Pattern[str]] = re.compile("(?!)")

    # How native symbols are spelled, for recordings without a list of instruments: what stands between base and
    # quote, or, where nothing does, the assets that are quoted in.
    separator: ClassVar[str] = ""
    quote_assets: ClassVar[tuple[str, ...]] = ()

    topic_key: ClassVar[bytes]  # under which a message names its topic
    # Where its topics are, behind the address: a connection has a socket for each, with a canary on each.
    paths: ClassVar[tuple[str, ...]] = ("",)
    topics_max: ClassVar[int]  # of one socket; its canary comes on top
    awaits_welcome: ClassVar[bool] = False
    command_interval_s: ClassVar[float]  # between any two frames of ours on one connection
    requests_max: ClassVar[tuple[int, float] | None] = None  # permitted on one connection: count, per seconds
    connects: ClassVar[tuple[int, float]]  # new sockets permitted: count, per seconds
    # How often the exchange wants to be pinged; None: it pings by itself. Whoever is silent is pinged in any case.
    ping_interval_s: ClassVar[float | None] = None
    pong_timeout_s: ClassVar[float] = 10.0  # a ping, and no frame at all for so long: the connection is dead
    # Seconds within which a channel repeats itself even if nothing has changed; only what is promised.
    repeats_s: ClassVar[Mapping[Channel, float]] = {}
    # channels whose update id is the time of sending: it never rests
    clocked: ClassVar[frozenset[Channel]] = frozenset()
    # Channels about something else, such as a contract's index: they go on when the symbol itself is gone.
    foreign: ClassVar[frozenset[Channel]] = frozenset()
    # of a connection; where none is documented, we choose when it ends
    max_age_s: ClassVar[float] = 24 * 3600.0

    def __init__(self) -> None:
        self.tickers: dict[str, TickerState] = {}  # by native symbol
        # Of all that is wanted, by kind and native symbol; each kind has a class of its own.
        self.states: dict[str, dict[str, Any]] = {kind: {} for kind in self.kinds} | {
            TICKER.name: self.tickers
        }
        self.contract_sizes: dict[str, ContractSize] = {}  # by native symbol, where sizes are in contracts
        self.changes = 0  # of that set
        self._parted: dict[str, State] = {}  # what was, by topic: its numbers go on if it is wanted again
        self._clock = (0, AHEAD_NS_MAX)
        self._groups = 0

    @property
    def prefix(self) -> str:
        """What stands before native symbols where those of all markets meet: two may share a spelling."""
        return "" if self.name == SPOT else f"{self.name}:"

    @classmethod
    def names(cls, symbol: str) -> bool:
        """Return whether a canonical symbol has the form of this market's: what is settled is not spot's."""
        return (":" in symbol) == (cls.name != SPOT)

    def prefixed(self, instrument: Instrument) -> Instrument:
        """Return an instrument as it is known where those of all markets meet."""
        native = self.prefix + instrument.native
        return msgspec.structs.replace(instrument, native=native, market=self.name)

    def learn(self, instruments: Iterable[Instrument]) -> None:
        """Take from the list of instruments what frames leave out: how much a contract is."""
        for each in instruments:
            if each.contract_size:
                native = each.native.removeprefix(self.prefix)
                self.contract_sizes[native] = Decimal(each.contract_size).as_integer_ratio()

    def contract_size(self, native: str) -> ContractSize:
        """Return how much of its base asset one contract is. Raises DecodeError if no list has told."""
        try:
            return self.contract_sizes[native]
        except KeyError:
            raise DecodeError(
                f"{self.exchange}: how much a contract of {native!r} is, is not known"
            ) from None

    def new_group(self) -> int:
        """Return a number for the lines that carry some symbols together, and for the states of those."""
        self._groups += 1
        return self._groups

    @property
    def all_states(self) -> list[State]:
        """All that is wanted, of every kind."""
        return [state for states in self.states.values() for state in states.values()]

    def add(self, natives: Iterable[str], base_flags: int, kind: str = TICKER.name) -> list[State]:
        """Take symbols, in a kind, into the set whose frames are decoded, all values unknown; returns their states.

        Raises ValueError for one whose topic does not fit a record.
        """
        self.changes += 1
        added = []
        for native in natives:
            topic = wire.topic(kinds.named(kind).code, self.exchange, self.prefix + native)
            state = self._parted.pop(topic, None) or self.make_state(kind, topic, native, base_flags)
            self.states[kind][native] = state
            state.offset_ns, state.ahead_ns_max = self._clock
            added.append(state)
        return added

    def make_state(self, kind: str, topic: str, native: str, base_flags: int) -> State:
        """Return a state of a kind, all values unknown.

        An exchange's file may have one of its own, or other channels: whatever has `Arbitration`'s methods.
        """
        if kind == TICKER.name:
            return TickerState(topic=topic, native=native, base_flags=base_flags, flags=base_flags)
        if kind == TRADE.name:
            return TradeState(
                topic=topic,
                native=native,
                base_flags=base_flags,
                flags=base_flags,
                is_consecutive=self.trade_ids_are_consecutive,
                begins_with_last=self.trades_begin_with_last,
            )
        if kind == LIQUIDATION.name:
            return TradeState(
                LIQUIDATION, topic=topic, native=native, base_flags=base_flags, flags=base_flags
            )
        if kind == CONTRACT.name:
            return ContractState(
                tuple(Arbitration() for _ in self.topics(native, kind)),
                topic=topic,
                native=native,
                base_flags=base_flags,
                flags=base_flags,
            )
        if kind == DEPTH.name:
            return DepthState(topic=topic, native=native, base_flags=base_flags, flags=base_flags)
        if kind == BOOK.name:
            return FullBookState(
                self.book_rule,
                self.book_levels,
                keeps=self.base_levels > 0,
                topic=topic,
                native=native,
                base_flags=base_flags,
                flags=base_flags,
            )
        description = kinds.named(kind)
        is_once = kinds.keeps_every(description.code)
        channels = tuple(Arbitration(is_once=is_once) for _ in self.topics(native, kind))
        return RecordState(
            description,
            channels,
            topic=topic,
            native=native,
            base_flags=base_flags,
            flags=base_flags,
        )

    def remove(self, states: Iterable[State]) -> None:
        """Take these out of that set; what still comes about them is ignored."""
        self.changes += 1
        for state in states:
            self._parted[state.topic] = self.states[state.kind].pop(state.native)
            state.base_flags &= wire.ORIGIN
            state.forget()

    def spoke_ns(self, state: State) -> int:
        """Return when something about a state's symbol itself came last, in Unix time; 0: on no connection."""
        channels = enumerate(state.channels)
        own = [channel for number, channel in channels if (state.kind, number) not in self.foreign]
        if len(own) == len(state.channels):
            return state.recv_ns
        heard_ns: list[int] = [channel.heard_ns(line) for channel in own for line in range(LINES_MAX)]
        return max(heard_ns)

    def set_clock(self, offset_ns: int = 0, ahead_ns_max: int = AHEAD_NS_MAX) -> None:
        """Say how far the exchange's clock is ahead of ours, and from how far ahead of ours events are doubted."""
        self._clock = offset_ns, ahead_ns_max
        for state in self.all_states:  # each has its own: to look elsewhere would cost something a frame
            state.offset_ns, state.ahead_ns_max = offset_ns, ahead_ns_max

    @abc.abstractmethod
    def decode_instruments(self, body: bytes) -> Rows[Instrument]:
        """Decode the answer to `instruments_request`, row by row. Raises DecodeError or ProtocolError."""

    def rest_of_list(self, request: RestRequest, body: bytes) -> RestRequest | None:
        """Return what is to be requested after an answer with instruments; None: the list is complete.

        For lists that come in pages, or by state. Raises DecodeError or ProtocolError.
        """
        return None

    @abc.abstractmethod
    def decode_time(self, body: bytes) -> int:
        """Decode the answer to `time_request`: the exchange's clock in Unix ns.

        Raises DecodeError or ProtocolError.
        """

    @abc.abstractmethod
    def quote_request(self, native: str) -> RestRequest:
        """Return the request for the present quote of one symbol."""

    @abc.abstractmethod
    def decode_quote(self, body: bytes) -> Quote:
        """Decode the answer to a `quote_request`.

        Raises ProtocolError where the exchange refused, as for an unknown symbol, and DecodeError for what is no
        quote.
        """

    def past_trades_request(self, native: str, number: int) -> RestRequest:
        """Return the request for trades of one symbol from this number on, or else for its newest."""
        raise NotImplementedError

    def decode_past_trades(self, native: str, body: bytes) -> Rows[PastTrade]:
        """Decode the answer to it, row by row, in whatever order. Raises DecodeError or ProtocolError."""
        raise NotImplementedError

    def past_trades_at(self, url: str) -> str:
        """Return whose trades a URL requests as `past_trades_request` does, "" if it does not; for recordings."""
        if not self.past_trades_max:
            return ""
        path = self.past_trades_request("", 0).path.partition("?")[0]
        return parameters(url).get("symbol", "") if urlsplit(url).path == path else ""

    def base_request(self, native: str) -> RestRequest:
        """Return the request for the book of one symbol, as deep as it is to be had at a fair price."""
        raise NotImplementedError

    def decode_base(self, native: str, body: bytes) -> Base:
        """Decode the answer to it. Raises DecodeError or ProtocolError."""
        raise NotImplementedError

    def poll_request(self, poll: Poll, native: str) -> RestRequest:
        """Return the request for what is polled of one symbol."""
        raise NotImplementedError

    def decode_poll(self, poll: Poll, body: bytes, recv_ns: int) -> Rows[PolledContract]:
        """Decode the answer to it, or to `Poll.request`; recv_ns is when it came, in Unix time.

        Raises DecodeError or ProtocolError.
        """
        raise NotImplementedError

    def polled_at(self, url: str) -> Poll | None:
        """Return which poll a URL is a request of; None: of none. For recordings."""
        path = urlsplit(url).path
        for poll in self.polls:
            if poll.request is not None and path == urlsplit(poll.request.path).path:
                return poll
            # A symbol is the last part of the path, or in the query: then nothing follows.
            if poll.is_single:
                before = urlsplit(self.poll_request(poll, "").path).path
                if path == before or (before.endswith("/") and path.rpartition("/")[0] == before[:-1]):
                    return poll
        return None

    def lists(self, url: str) -> bool:
        """Return whether a URL requests the instruments, in whatever version of the API; for recordings."""
        return _VERSIONS.sub("/", urlsplit(url).path) == _VERSIONS.sub(
            "/", self.instruments_request.path.partition("?")[0]
        )

    def spelled(self, native: str) -> Instrument | None:
        """Return what a native symbol is by its spelling, None if that does not tell; for recordings."""
        if self.separator:
            base, _, quote = native.partition(self.separator)
        else:
            found = [asset for asset in self.quote_assets if native.endswith(asset)]
            quote = max(found, key=len, default="")
            base = native.removesuffix(quote)
        return Instrument(native, base, quote, market=self.name) if base and quote else None

    def base_at(self, url: str) -> tuple[str, int] | None:
        """Return whose book a URL requests, and how many levels a side that can have, 0 = all; None: no book.

        Any that the exchange has or had, for recordings; `decode_base` reads the answer.
        """
        return None

    def stated_quote(self, payload: bytes) -> StatedQuote | None:
        """Return what a message states of a book beside the id of one of its changes, of the book's own count.

        It is to be what `decode` makes of the book's messages: for checks of recordings.
        """
        return None

    @abc.abstractmethod
    def decode_survey(self, body: bytes) -> Rows[RestTicker]:
        """Decode the answer to one of `survey_requests`, row by row. Raises DecodeError or ProtocolError."""

    @abc.abstractmethod
    def endpoint(self, ws_url: str, handshake: bytes, connect_id: str) -> Endpoint:
        """Return the socket to open; handshake is the answer to `handshake_request`, or empty.

        ws_url ends with one of `paths`, for each of which there is one. Raises DecodeError or ProtocolError if that
        answer is unusable.
        """

    def connections(self, states: Sequence[State]) -> list[list[State]]:
        """Spread states over as few connections as the exchange's limits allow, in their order."""
        return spread(states, self._topic_counts, self.topics_max)

    def _topic_counts(self, state: State) -> Sequence[int]:
        """Return how many topics a state has on each path."""
        on = [self.path_of(topic) for topic in self.topics(state.native, state.kind)]
        return [on.count(path) for path in self.paths]

    @abc.abstractmethod
    def topics(self, native: str, kind: str) -> tuple[str, ...]:
        """Return the channels of one symbol in a kind.

        Of a ticker they are statistics, quote and, where it is a third one, last. One may be that of several kinds:
        it is subscribed to once.
        """

    def path_of(self, topic: str) -> str:
        """Return on which of `paths` a topic is."""
        return self.paths[0]

    def quote_topic(self, native: str) -> str:
        """Return the channel of a symbol's quote."""
        return self.topics(native, TICKER.name)[QUOTE]

    def canary_topics(self, native: str) -> tuple[str, ...]:
        """Return the channels, one on each path, on which something comes all the time wherever it is traded."""
        return (self.quote_topic(native),)

    @abc.abstractmethod
    def batches(self, topics: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """Cut topics of one path into requests that the exchange accepts."""

    @abc.abstractmethod
    def subscribe(self, topics: Sequence[str], command_id: str) -> bytes:
        """Return the request for one batch."""

    @abc.abstractmethod
    def unsubscribe(self, topics: Sequence[str], command_id: str) -> bytes:
        """Return the request that takes one batch back."""

    def requested(self, frame: bytes) -> tuple[bool, Sequence[str]] | None:
        """Return what one of `subscribe`'s or `unsubscribe`'s frames asks for: is it the first, and the topics.

        None for any other frame of ours. For recordings.
        """
        return None

    def ping(self, command_id: str) -> bytes | None:
        """Return the message that is answered by a pong; None: the WebSocket's own ping is."""
        return None

    def topic_of(self, head: bytes) -> str:
        """Return the topic that a message names in its beginning, "" if none; it need not be decodable."""
        match = re.search(rb'"%s"\s*:\s*"([^"\\]*)"' % self.topic_key, head)
        return match[1].decode(errors="replace") if match else ""

    @abc.abstractmethod
    def decode(
        self, payload: bytes | bytearray | memoryview, recv_ns: int, line: Line, emit: Emit
    ) -> Control | None:
        """Decode one message of a line.

        Each record that it brings is taken over by its state, if that accepts it (`State.accept`), and emitted:
        none, one or many, of whatever symbols and kinds, each after its `State.on_news`. Returns a control message,
        or None. payload is borrowed: valid until this returns.

        Raises DecodeError for anything else, whatever the bytes; the states are then as before, and nothing was
        emitted. Rows of a message that are records of their own are judged one by one: sound ones are emitted, and
        the error is raised after the last.
        """


class Exchange(msgspec.Struct, frozen=True):
    """A company and its API: what topics and the configuration call it, and its markets."""

    name: str
    markets: tuple[type[Market], ...]

    def __post_init__(self) -> None:
        for market in self.markets:
            assert market.exchange == self.name
            assert len(market.paths) <= market.connects[0], "a connection has a socket for each"
            for other in self.markets:
                if other.rest_budget == market.rest_budget:
                    assert other.rest_limit == market.rest_limit, "one budget has one limit"
                    assert other.rest_header == market.rest_header, "and is told in one way"
                if other.connect_budget == market.connect_budget:
                    assert other.connects == market.connects, "one budget has one limit"

    @property
    def main(self) -> type[Market]:
        """The market whose hosts stand for the exchange's, as for its clock."""
        return self.markets[0]

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of records that can be had of some market."""
        return tuple(dict.fromkeys(kind for market in self.markets for kind in market.kinds))

    def market(self, name: str) -> type[Market]:
        """Return one of its markets, which has to be there."""
        return next(market for market in self.markets if market.name == name)


def chunks(items: Sequence[str], size: int) -> Iterator[tuple[str, ...]]:
    """Cut a sequence into runs of at most `size`."""
    for start in range(0, len(items), size):
        yield tuple(items[start : start + size])


def spread(
    states: Iterable[State], costs: Callable[[State], Sequence[int]], cost_max: int
) -> list[list[State]]:
    """Cut states into runs, each with costs of at most so much each; one alone that costs more is a run."""
    runs: list[list[State]] = []
    used: list[int] = []
    for state in states:
        own = costs(state)
        if not runs or any(before + more > cost_max for before, more in zip(used, own, strict=True)):
            runs.append([])
            used = [0] * len(own)
        runs[-1].append(state)
        used = [before + more for before, more in zip(used, own, strict=True)]
    return runs


def decode_sparse(decode: Callable[[bytes], T], payload: bytes | bytearray | memoryview, refused: str) -> T:
    """Decode a message once more, in forms that mean the same to decoders which take texts for numbers.

    First with all numbers as texts, of the digits that came, so that it is no matter which of the two an exchange
    sends; then also without the fields that are empty or null: what they state is unknown. For messages that were
    refused only, refused being the reason. Raises DecodeError with it, if they are refused in every form.
    """
    try:
        message = decode_digits(payload)
    except (*UNDECODABLE, ValueError):
        raise DecodeError(refused) from None
    for has_empty in (True, False):
        try:
            return decode(msgspec.json.encode(_texts(message, has_empty=has_empty)))
        # DecodeError: a row that its reader refuses. ValueError: an integer of thousands of digits.
        except (*UNDECODABLE, DecodeError, ValueError):
            continue
    raise DecodeError(refused)


decode_digits: Final = msgspec.json.Decoder(float_hook=str).decode


def _texts(value: Any, *, has_empty: bool) -> Any:
    """Return a JSON value with texts for its numbers; in lists places have a meaning, and what is empty stays."""
    if isinstance(value, dict):
        return {
            name: _texts(each, has_empty=has_empty)
            for name, each in value.items()
            if has_empty or (each is not None and each != "")
        }
    if isinstance(value, list):
        return [_texts(each, has_empty=has_empty) for each in value]
    return str(value) if type(value) is int else value


def decode_rest(decoder: msgspec.json.Decoder[T], body: bytes, what: str) -> T:
    """Decode a REST answer; what is empty or null in it is unknown, as of a market in which nothing was traded.

    The decoder is one that takes texts for numbers. Raises DecodeError that names what was requested.
    """
    try:
        return decoder.decode(body)
    except UNDECODABLE as exc:
        head = body[:120].decode(errors="replace")
        return decode_sparse(decoder.decode, body, f"{what}: {exc}; answer starts {head!r}")


def read_rows(
    read: Callable[[msgspec.Raw], T],
    rows: Iterable[msgspec.Raw],
    what: str,
    size_shown: int = ROW_SIZE_SHOWN,
    *,
    is_page: bool = False,
) -> Rows[T]:
    """Read the rows of a list, each for itself: one that is odd must not cost the others.

    Where a reader decodes, its decoder is one that takes texts for numbers (`decode_sparse`).
    size_shown: how much of one may be quoted. Raises ProtocolError where there are rows, and none can be read; not
    of a page, which may have a single one.
    """
    found: list[T] = []
    count = bad = 0
    reason = ""
    for row in rows:
        count += 1
        try:
            found.append(read_row(read, row))
        except DecodeError as exc:
            bad += 1
            if not reason:
                head = bytes(row)[:size_shown].decode(errors="replace")
                reason = f"the first of them, {exc}" + (f": {head!r}" if head else "")
    if bad and not found and not is_page:
        raise ProtocolError(f"{what}: none of {count} rows can be read; {reason}")
    return Rows(
        found, f"{what}: {bad} of {count} rows cannot be read and are left out; {reason}" if bad else ""
    )


def read_row(read: Callable[[msgspec.Raw], T], row: msgspec.Raw) -> T:
    """Read a row of a list as `decode_sparse` does, if need be. Raises DecodeError."""
    try:
        return read(row)
    except (*UNDECODABLE, DecodeError) as exc:
        return decode_sparse(lambda text: read(msgspec.Raw(text)), bytes(row), str(exc))


def requested(
    frame: bytes, command: type[T], read: Callable[[T], tuple[str, Sequence[str]]]
) -> tuple[bool, Sequence[str]] | None:
    """Read a frame of ours as a command, whose verb and topics read returns; None if it is neither of the two."""
    try:
        verb, topics = read(msgspec.json.decode(frame, type=command))
    except UNDECODABLE:
        return None
    verb = verb.lower()
    return (verb == "subscribe", topics) if verb in ("subscribe", "unsubscribe") else None


def parameters(url: str) -> dict[str, str]:
    """Return the query of a URL."""
    return {name: values[-1] for name, values in parse_qs(urlsplit(url).query).items()}


def newest_time(state: State, time_ns: int, recv_ns: int) -> int:
    """Return the newer of a state's event time and another's; a known one that cannot be gives way to any."""
    known_ns = state.exchange_ns
    return time_ns if known_ns > recv_ns + state.ahead_ns_max else max(known_ns, time_ns)


def in_base_asset(count: Count, size: ContractSize) -> Count:
    """Return how much so many contracts are: multiplied, then divided, so 3 of 0.1 are 0.3. None stays None."""
    return count if count is None or size is WHOLE else count * size[0] / size[1]


def rest_quote(bid: float | None, bid_size: float | None, ask: float | None, ask_size: float | None) -> Quote:
    """Return the quote of a REST answer. A price of 0, or none, is that of an empty side."""
    return Quote(
        bid or wire.NAN, (bid_size or 0.0) if bid else 0.0, ask or wire.NAN, (ask_size or 0.0) if ask else 0.0
    )


def rest_ticker(
    native: str,
    quote: tuple[float | None, float | None, float | None, float | None],
    last: float | None = None,
    statistics: tuple[float | None, ...] = (),
) -> RestTicker:
    """Return what a row of a REST answer states; quote and statistics count only if they are complete.

    Raises DecodeError for a row of which nothing can be used. A price of 0 is that of what never traded.
    """
    known = tuple(number for number in statistics if number is not None)
    found = RestTicker(
        native,
        None if None in quote else rest_quote(*quote),
        last or wire.NAN,
        (known[0], known[1], known[2], known[3], known[4]) if len(known) == 5 else None,
    )
    if found.quote is None and found.statistics is None and found.last != found.last:
        raise DecodeError(f"{native!r} is without a quote, a price and statistics")
    return found


def rest_refusal(what: str, code: object, message: str) -> ProtocolError:
    """Return the error for a REST answer that carries an error code."""
    said, wait_s, remedy = first_words(message), 0.0, ""
    if is_of_a_region(message):
        wait_s, remedy = FINAL_S, f"; {REGION_REMEDY}"
    return ProtocolError(f"{what} refused: {said or 'no reason given'} (code {code}){remedy}", wait_s)
