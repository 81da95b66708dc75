"""What every exchange file provides, and the words it shares with the session.

An exchange file holds all that is peculiar to its exchange: URLs, handshake, commands, heartbeat,
limits, message shapes, symbols. Shared code works through `Exchange` and never asks which one it has.
Pure: bytes and times in, states and control words out.
"""

import abc
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, ClassVar, Final, TypeVar

import msgspec

from feedhandler import wire
from feedhandler.errors import DecodeError, ProtocolError
from feedhandler.instruments import Instrument

# A price, size or volume as exchanges send it. The bounds also turn away "nan" and "inf", which the
# lenient decoder would accept: no comparison with them holds.
Amount = Annotated[float, msgspec.Meta(ge=0.0, le=sys.float_info.max)]
# Times whose nanoseconds fit the wire's i64, whatever the unit.
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=(2**63 - 1) // 1_000_000)]
UpdateId = Annotated[
    int, msgspec.Meta(ge=0, le=2**63 - 1)
]  # what msgspec can bound; the wire has one bit more

T = TypeVar("T")

# Everything that msgspec raises for bytes that are not what was asked for; RecursionError: "[[[[[…".
UNDECODABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

# An event further than this in our future cannot be: one of the clocks is wrong. Old ones can be true.
AHEAD_NS_MAX: Final = 60_000_000_000

# While the fast quote channel has spoken within this time, slower channels that also carry a quote
# do not overwrite it: theirs is older. Longer silence means a quiet book, and both agree.
QUOTE_FRESH_NS: Final = 2_000_000_000

NO_ORDERS: Final = (0.0, 0.0)  # price and size of an empty side


class State(wire.Ticker, gc=False, kw_only=True):
    """The ticker of one symbol as a feed keeps it, updated in place by each frame.

    topic carries the native symbol. `*_heard_ns` is when (recv_ns) the channel of that name last spoke on
    the present connection, 0 = not yet. It has a compiled twin beside the sockets, which is its own record.
    """

    native: str
    base_flags: int = 0
    statistics_heard_ns: int = 0
    quote_heard_ns: int = 0
    last_heard_ns: int = 0

    def forget(self) -> None:
        """Make every value unknown: the state belongs to a connection that is gone."""
        for name in wire.TICKER_VALUES:
            setattr(self, name, wire.NAN)
        self.flags = self.base_flags
        self.exchange_sequence = self.exchange_ns = self.recv_ns = 0
        self.statistics_heard_ns = self.quote_heard_ns = self.last_heard_ns = 0

    def set_quote(self, bid: float, bid_size: float, ask: float, ask_size: float) -> None:
        """Take the quote over. A price of 0 is that of an empty side."""
        self.bid, self.bid_size = bid or wire.NAN, bid_size
        self.ask, self.ask_size = ask or wire.NAN, ask_size

    def set_statistics(
        self, open_24h: float, high_24h: float, low_24h: float, base_volume: float, quote_volume: float
    ) -> None:
        """Take the 24 h statistics over. A price of 0 is that of an instrument which never traded."""
        self.open_24h = open_24h or wire.NAN
        self.high_24h = high_24h or wire.NAN
        self.low_24h = low_24h or wire.NAN
        self.base_volume_24h, self.quote_volume_24h = base_volume, quote_volume

    def on_news(self, recv_ns: int) -> None:
        """Note when the frame came that changed this state; every flag is decided anew."""
        self.recv_ns = recv_ns
        is_ahead = self.exchange_ns > recv_ns + AHEAD_NS_MAX
        self.flags = self.base_flags | (wire.BAD_EXCHANGE_TIME if is_ahead else 0)

    def heard(self) -> int:
        """Return how many channels have spoken on the present connection."""
        return sum(map(self.has_heard, range(3)))

    def has_heard(self, channel: int) -> bool:
        """True if a channel has spoken on the present connection; they count as in `Exchange.topics`."""
        return (self.statistics_heard_ns, self.quote_heard_ns, self.last_heard_ns)[channel] != 0

    def record(self) -> bytes:
        """Return the record as it is published."""
        return wire.pack_ticker(self)


class Request(msgspec.Struct, frozen=True):
    """An HTTP request without a body; path with query, to be appended to `rest_url`."""

    path: str
    method: str = "GET"


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
    """A command was refused. id "" = the exchange did not say which.

    is_transient: the same command may succeed a little later. is_satisfied: it asked for what already is.
    """

    id: str
    reason: str
    is_transient: bool = False
    is_satisfied: bool = False


class Goodbye(msgspec.Struct, frozen=True):
    """The exchange ends, or is about to end, this connection."""

    reason: str


Control = Welcome | Pong | Ack | Nack | Goodbye

WELCOME: Final = Welcome()
PONG: Final = Pong()


class Exchange(abc.ABC):
    """One exchange's protocol. An instance belongs to one feed and holds the states of its symbols."""

    name: ClassVar[str]
    ws_url: ClassVar[str]  # production; scheme, host and port
    rest_url: ClassVar[str]
    instruments_request: ClassVar[Request]
    handshake_request: ClassVar[Request | None] = None  # before each connection, e.g. for a token

    awaits_welcome: ClassVar[bool] = False
    command_interval_s: ClassVar[float]  # between any two frames of ours on one connection
    connects: ClassVar[tuple[int, float]]  # new connections permitted: count, per seconds
    ping_interval_s: ClassVar[float | None] = None  # None: the exchange pings, we only answer
    pong_timeout_s: ClassVar[float] = 10.0
    frame_silence_s: ClassVar[float]  # a connection without any frame for so long is dead

    def __init__(self, make_state: type[State] = State) -> None:
        self.make_state = make_state  # `State` or its compiled twin
        self.states: dict[str, State] = {}

    def add(self, natives: Iterable[str], base_flags: int) -> None:
        """Take symbols into the set whose frames are decoded, all values unknown.

        Raises ValueError for one whose topic does not fit a record.
        """
        for native in natives:
            topic = wire.topic(wire.TICKER, self.name, native)
            self.states[native] = self.make_state(
                topic=topic, native=native, base_flags=base_flags, flags=base_flags
            )

    @abc.abstractmethod
    def decode_instruments(self, body: bytes) -> list[Instrument]:
        """Decode the answer to `instruments_request`. Raises DecodeError or ProtocolError."""

    @abc.abstractmethod
    def endpoint(self, ws_url: str, handshake: bytes, connect_id: str) -> Endpoint:
        """Return the socket to open; handshake is the answer to `handshake_request`, or empty.

        Raises DecodeError or ProtocolError if that answer is unusable.
        """

    @abc.abstractmethod
    def connections(self, natives: Sequence[str]) -> list[list[str]]:
        """Spread symbols over as few connections as the exchange's limits allow."""

    @abc.abstractmethod
    def topics(self, native: str) -> tuple[str, ...]:
        """Return the channels of one symbol: statistics, quote and, where it is a third one, last."""

    @abc.abstractmethod
    def batches(self, topics: Sequence[str]) -> Iterator[tuple[str, ...]]:
        """Cut topics into requests that the exchange accepts."""

    @abc.abstractmethod
    def subscribe(self, topics: Sequence[str], command_id: str) -> bytes:
        """Return the request for one batch."""

    def ping(self, command_id: str) -> bytes:
        """Return the frame that keeps the connection alive; only where `ping_interval_s` is set."""
        raise NotImplementedError(f"{self.name} pings by itself")

    @abc.abstractmethod
    def decode(self, payload: bytes | bytearray | memoryview, recv_ns: int) -> State | Control | None:
        """Decode one message.

        Returns the state that it changed, a control word, or None for what concerns nobody. payload is
        borrowed: valid until this returns. Raises DecodeError for anything else, whatever the bytes; the
        states are then as before.
        """


def is_late(update_id: int, newest: int) -> bool:
    """True for an update older than the newest; far below it, the exchange has begun to count anew."""
    return newest // 2 < update_id < newest


def chunks(items: Sequence[str], size: int) -> Iterator[tuple[str, ...]]:
    """Cut a sequence into runs of at most `size`."""
    for start in range(0, len(items), size):
        yield tuple(items[start : start + size])


def decode_rest(decoder: msgspec.json.Decoder[T], body: bytes, what: str) -> T:
    """Decode a REST answer. Raises DecodeError that names what was asked for."""
    try:
        return decoder.decode(body)
    except UNDECODABLE as exc:
        head = body[:120].decode(errors="replace")
        raise DecodeError(f"{what}: {exc}; answer starts {head!r}") from exc


def rest_refusal(what: str, code: object, message: str) -> ProtocolError:
    """Return the error for a REST answer that carries an error code."""
    return ProtocolError(f"{what} refused: {message or 'no reason given'} (code {code})")
