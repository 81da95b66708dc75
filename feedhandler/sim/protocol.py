"""What the simulated exchanges have in common: shapes and small tools, no fact about any of them.

Pure: times come as arguments, decisions leave as values. `Exchange` answers REST and handshakes,
`Dialog` is one WebSocket connection seen from the exchange's side, `Reply` is what it decided.
"""

import abc
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import ClassVar, NamedTuple, Protocol

import msgspec

from feedhandler.sim.account import Account, Update
from feedhandler.sim.market import (
    ContractInstrument,
    Instrument,
    Listing,
    contracts_of,
    instruments_of,
    universe,
)
from feedhandler.sim.order_book import Level
from feedhandler.sim.sources import Source

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
NS_PER_US = 1_000
UNIFIED = "unified"  # the key is good, the account is of a kind that a classic interface does not read
KEY_REFUSALS = ("key", "permission", "address", "expired", "maintenance", UNIFIED)


class Now(NamedTuple):
    """One reading of both clocks. `unix_ns` is what the exchange believes: a fault may shift it."""

    mono_ns: int
    unix_ns: int

    @property
    def unix_ms(self) -> int:
        return self.unix_ns // NS_PER_MS


class HttpRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP request, REST or the start of a WebSocket."""

    method: str
    path: str  # as decoded by the server, without the query
    query: list[tuple[str, str]] = []  # in order, decoded; a name may come twice
    raw_query: str = ""  # as sent, which is what signatures are about
    headers: Mapping[str, str] = {}  # case-insensitive in the shell
    body: bytes = b""
    remote: str = ""  # the client's address: limits are per IP

    def one(self, name: str) -> str | None:
        return next((value for key, value in self.query if key == name), None)


class HttpAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """One HTTP answer."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = {}
    content_type: str = "application/json"
    violation: str = ""
    remark: str = ""


class Refusal(msgspec.Struct, frozen=True):
    """Why a signed request is refused, in the exchange's own numbers and words; `status` is HTTP's."""

    code: int | str
    text: str
    status: int
    blame: str = "client"  # or "clock": neither need be right; or "command": a fault has it so

    @property
    def violation(self) -> str:
        return self._said if self.blame == "client" else ""

    @property
    def remark(self) -> str:
        return self._said if self.blame == "clock" else ""

    @property
    def _said(self) -> str:
        """What is noted: without what the exchange repeats of the request, in brackets."""
        return f"{self.code} {self.text.partition('[')[0]}"

    def answer(self) -> HttpAnswer:
        """Print it as an object of code and text."""
        body = to_json({"code": self.code, "msg": self.text})
        return HttpAnswer(body=body, status=self.status, violation=self.violation, remark=self.remark)


class Close(msgspec.Struct, frozen=True):
    """End the connection; code 0 drops it without a close frame, which a client reports as 1006."""

    code: int
    reason: str = ""


class Reply(msgspec.Struct, kw_only=True):
    """What a connection answers, in the order of the fields."""

    texts: list[bytes] = []  # payloads of text frames
    ping: bytes | None = None
    pong: bytes | None = None
    unsubscribe: list[str] = []
    subscribe: list[str] = []  # topics accepted just now; snapshots, if any, follow the texts
    close: Close | None = None
    violation: str = ""  # a rule that the client broke
    repeats: str = (
        ""  # if it was broken by asking for this topic again: no fault of whom we kept an answer from
    )
    remark: str = ""  # against the exchange's advice, and tolerated by it


class DataStream:
    """One topic that carries data, and its subscribers.

    `encode(variant, now)` prints the instrument as it stands, or the message of `source` where events are sent;
    `variant` is the dialog's: an exchange that has only one form uses 0. A stream is `regular` (sent by its own
    clock) or in real time. Whether it is sent at all without a change is the schedule's business.
    """

    __slots__ = (
        "at_most_every_ns",
        "audiences",
        "encode",
        "encode_repeat",
        "has_subscribers",
        "instrument",
        "is_lost",
        "is_muted",
        "is_trade",
        "is_waiting",
        "last_mono_ns",
        "last_payloads",
        "lost_messages",
        "moves_quote",
        "next_instrument",
        "rank",
        "regular_every_ns",
        "repeat_every_ns",
        "shows_book",
        "shows_quote",
        "source",
        "topic",
    )

    def __init__(
        self,
        topic: str,
        instrument: Instrument,
        encode: Callable[[int, Now], bytes],
        *,
        regular_every_ns: int = 0,
        at_most_every_ns: int = 0,
        repeat_every_ns: int = 0,
        encode_repeat: Callable[[int, Now], bytes] | None = None,
        is_trade: bool = False,
        shows_quote: bool = True,
        shows_book: bool = False,
        next_instrument: Callable[[int], Instrument] | None = None,
        source: Source | None = None,
    ) -> None:
        self.topic = topic
        self.instrument = instrument
        self.encode = encode
        self.regular_every_ns = regular_every_ns  # 0: real time
        self.at_most_every_ns = at_most_every_ns  # 0: no limit of its own
        self.repeat_every_ns = repeat_every_ns  # something again after this much silence; 0: never
        self.encode_repeat = encode_repeat  # None: the same payload
        self.is_trade = is_trade
        self.shows_quote = shows_quote and not is_trade  # else only a trade changes what it shows
        self.shows_book = shows_book  # levels behind the best as well
        self.moves_quote = not (regular_every_ns or at_most_every_ns or is_trade or shows_book)
        self.next_instrument = next_instrument  # for a topic that carries many: picks one by random bits
        self.rank = -1 if next_instrument else instrument.index
        self.audiences: dict[int, list[Outbox]] = {}
        self.has_subscribers = False
        self.is_waiting = False  # something has changed, and its clock does not allow it to be sent yet
        self.is_muted = False  # not sent, and at a known rate its share of the market does not move
        self.is_lost = False  # the market moves, and nothing is sent
        self.lost_messages = 0  # so many are not sent
        self.last_mono_ns = 0
        self.last_payloads: dict[int, bytes] = {}
        self.source = source

    def lose(self) -> bool:
        """What it has not sent so far it never sends; False if there was nothing to be sent."""
        return self.source is None or self.source.lose()


class Outbox:
    """Frames that wait for the end of the tick, for one connection."""

    __slots__ = ("frames",)

    def __init__(self) -> None:
        self.frames: list[bytes] = []


class Dialog(abc.ABC):
    """One connection, as the exchange sees it. Every call may decide to end it."""

    variant: int = 0
    is_private: bool = False  # made for an account's own data
    pushed: int = 0  # messages of data that it was sent, as known at the last tick

    def __init__(self) -> None:
        self.topics: dict[str, None] = {}  # subscribed, oldest first

    @abc.abstractmethod
    def on_open(self, now: Now) -> Reply: ...

    @abc.abstractmethod
    def on_text(self, text: str, now: Now) -> Reply: ...

    def on_ping(self, payload: bytes, now: Now) -> Reply:
        """Answer it, which proves nothing where the exchange has a ping of its own."""
        return Reply(pong=payload)

    def on_pong(self, payload: bytes, now: Now) -> Reply:
        return Reply()

    @abc.abstractmethod
    def on_tick(self, now: Now) -> Reply:
        """Called a few times a second: pings and deadlines."""

    def on_account(self, update: Update, now: Now) -> Reply:
        """Send a change of the account, if this connection is to get it."""
        return Reply()


class BookState(NamedTuple):
    """A book at one moment."""

    update_id: int
    at: Now
    bids: list[Level]  # the best first
    asks: list[Level]


class Private(Protocol):
    """The account's side of an exchange."""

    accounts: dict[str, Account]  # by wallet, the one that trades first
    key_refusal: str  # a fault: why every key is refused, one of KEY_REFUSALS; "" if none is


class NoPrivate:
    """Of an exchange whose accounts are not played."""

    def __init__(self) -> None:
        self.accounts: dict[str, Account] = {}
        self.key_refusal = ""


class Content(Protocol):
    """What an exchange has to send, beside the protocol: a simulated market's, or a recording's."""

    def stream(self, topic: str) -> DataStream | None:
        """Make the stream of an accepted topic; None: acknowledged, and silent for ever."""
        ...

    def snapshot(self, stream: DataStream, variant: int, now: Now) -> bytes | None:
        """Print what a new subscriber gets at once, if this exchange does that."""
        ...

    def symbols_of(self, stream: DataStream) -> str:
        """Name the symbol that a stream carries, as clients spell it."""
        ...

    def rest(self, request: HttpRequest, now: Now) -> HttpAnswer:
        """Answer a request."""
        ...


class Exchange(abc.ABC):
    """One simulated exchange: everything but sockets, clocks and the market's rate.

    `odd`: what it lists beside the majors. `spell` prints a symbol as the exchange does. `instruments` are most
    traded first.
    """

    name: ClassVar[str]
    rest_levels: ClassVar[int] = 5000  # a side of a book, at most
    private: Private

    def __init__(
        self, count: int, seed: int, odd: Sequence[Listing], spell: Callable[[Instrument], str]
    ) -> None:
        self.instruments = instruments_of(universe(seed, count, odd), seed)
        self.by_symbol = {spell(instrument): instrument for instrument in self.instruments}
        self.other_instruments: list[Instrument] = []  # of another market, which moves by itself
        self._spell = spell
        self.knows_all = False  # in a recording there may be any symbol
        self.ws_url = ""  # where its socket really is, known once bound
        self.rejected_symbols: set[str] = set()  # a fault: refuse these
        self.unlisted_symbols: set[str] = set()  # a fault: they are in no instrument list
        self.has_snapshots = True  # a fault: where books begin with a snapshot, they do not
        self.old_books: dict[str, BookState] = {}  # a fault: REST has these, by symbol

    def list_contracts(
        self, pairs: Iterable[tuple[Instrument, Listing]], seed: int
    ) -> list[ContractInstrument]:
        """List contracts as well, each with the pair that it is about."""
        contracts = contracts_of(pairs, seed)
        self.instruments += contracts
        self.by_symbol |= {self._spell(each): each for each in contracts}
        return contracts

    def find(self, symbol: str) -> Instrument | None:
        """Return the instrument of a symbol, in the exchange's spelling."""
        return self.by_symbol.get(symbol)

    def knows(self, symbol: str) -> bool:
        """True if there may be such a symbol, in the exchange's spelling."""
        return self.knows_all or self.find(symbol) is not None

    def listed(self) -> list[Instrument]:
        """Return what the instrument list has."""
        return [each for each in self.instruments if self._spell(each) not in self.unlisted_symbols]

    @abc.abstractmethod
    def accept(self, request: HttpRequest, now: Now) -> Dialog | HttpAnswer:
        """Answer a WebSocket handshake: a dialog, or why not."""

    @abc.abstractmethod
    def stream(self, topic: str) -> DataStream | None:
        """Make the stream of an accepted topic; None: acknowledged, and silent for ever."""

    def snapshot(self, stream: DataStream, variant: int, now: Now) -> bytes | None:
        """Print what a new subscriber gets at once, if this exchange does that."""
        return None

    def symbols_of(self, stream: DataStream) -> str:
        """Name the symbol that a stream carries, as clients spell it."""
        return self._spell(stream.instrument)

    def keep_books(self, now: Now) -> None:
        """Let REST have the books as they are now, until `old_books` is emptied."""
        for each in self.instruments:
            if each.book is not None:
                self.old_books[self._spell(each)] = self._newest_state(each, now)

    def book_state(self, instrument: Instrument, now: Now) -> BookState:
        """Return a book as REST has it."""
        return self.old_books.get(self._spell(instrument)) or self._newest_state(instrument, now)

    def _newest_state(self, instrument: Instrument, now: Now) -> BookState:
        book, levels = instrument.order_book(), self.rest_levels
        return BookState(book.update_id, now, book.best_bids(levels), book.best_asks(levels))

    def restart_book(self, stream: DataStream) -> bool:
        """Let a stream begin anew with its next message, if this exchange does that; True if it does."""
        return False

    @abc.abstractmethod
    def rest(self, request: HttpRequest, now: Now) -> HttpAnswer: ...

    @abc.abstractmethod
    def throttled(self, status: int, retry_after_s: int, now: Now) -> HttpAnswer:
        """Print the exchange's refusal of a REST call, whatever was requested."""

    def expire_tokens(self, now: Now) -> None:  # noqa: B027  # most have none
        """Forget every token handed out."""

    def expired_token_error(self, dialog: Dialog) -> bytes | None:
        """Print what a connection is sent whose token has expired."""
        return None

    def shutdown_notice(self, dialog: Dialog, now: Now) -> bytes | None:
        """Print the notice that precedes a restart; None if this exchange gives none."""
        return None

    def end_subscriptions(self, dialog: Dialog, now: Now) -> Reply:
        """End what a private connection gets of the account, if this exchange does that."""
        return Reply()


class SlidingWindow:
    """At most `limit` events in any `period_ns`; remembers no more than that many."""

    def __init__(self, limit: int, period_s: float) -> None:
        self._times: deque[int] = deque(maxlen=limit)
        self._limit = limit
        self._period_ns = int(period_s * NS_PER_S)

    def admit(self, mono_ns: int) -> bool:
        """Count one event; False if it is one too many. A refused one counts as well."""
        times = self._times
        is_full = len(times) == self._limit and mono_ns - times[0] < self._period_ns
        times.append(mono_ns)
        return not is_full

    def left(self, mono_ns: int) -> int:
        """How many more are admitted now."""
        return self._limit - sum(mono_ns - at_ns < self._period_ns for at_ns in self._times)

    def reset_s(self, mono_ns: int) -> float:
        """How long until the oldest event is forgotten."""
        return max(0.0, (self._times[0] + self._period_ns - mono_ns) / NS_PER_S) if self._times else 0.0


class ServerPings:
    """The pings of an exchange that expects each payload back; remembers within / every of them."""

    def __init__(self, every_s: float, within_s: float, mono_ns: int) -> None:
        self._every_ns = int(every_s * NS_PER_S)
        self._within_ns = int(within_s * NS_PER_S)
        self._next_ns = mono_ns + self._every_ns
        self._unanswered: dict[bytes, int] = {}  # payload: when sent

    def on_pong(self, payload: bytes) -> None:
        if payload in self._unanswered:
            # An answer to a later ping proves life as well: what was sent before it needs none.
            sent_ns = self._unanswered[payload]
            self._unanswered = {each: at_ns for each, at_ns in self._unanswered.items() if at_ns > sent_ns}

    def is_late(self, mono_ns: int) -> bool:
        """True if a ping has waited too long."""
        return mono_ns - min(self._unanswered.values(), default=mono_ns) > self._within_ns

    def due(self, now: Now) -> bytes | None:
        """Return the payload of the next ping, when it is time for it."""
        if now.mono_ns < self._next_ns:
            return None
        self._next_ns += self._every_ns
        payload = b"%d" % now.unix_ms
        self._unanswered[payload] = now.mono_ns
        return payload


class Attempts:
    """Connection attempts per client address, for a bounded number of addresses."""

    ADDRESSES = 1024

    def __init__(self, limit: int, period_s: float) -> None:
        self._limit = limit
        self._period_s = period_s
        self._windows: dict[str, SlidingWindow] = {}

    def admit(self, remote: str, mono_ns: int) -> bool:
        window = self._windows.pop(remote, None) or SlidingWindow(self._limit, self._period_s)
        self._windows[remote] = window  # moved to the end: the first is the longest unused
        if len(self._windows) > self.ADDRESSES:
            del self._windows[next(iter(self._windows))]
        return window.admit(mono_ns)


class Weight:
    """Request weight used per client address in the running fixed window."""

    def __init__(self, period_s: float) -> None:
        self._period_ns = int(period_s * NS_PER_S)
        self._used: dict[str, int] = {}
        self._window = -1

    def use(self, remote: str, weight: int, mono_ns: int) -> int:
        """Add `weight`; returns what the address has used since the window began."""
        window = mono_ns // self._period_ns
        if window != self._window:
            self._window = window
            self._used.clear()
        used = self._used.get(remote, 0) + weight
        if len(self._used) < Attempts.ADDRESSES or remote in self._used:
            self._used[remote] = used
        return used

    def left_s(self, mono_ns: int) -> float:
        """How long the window still runs."""
        return (self._period_ns - mono_ns % self._period_ns) / NS_PER_S


def decode_object(text: str | bytes) -> dict[str, object] | None:
    """Decode a JSON object; None for anything else."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def to_json(value: object) -> bytes:
    """Print JSON in our field order; for all but market data, which uses templates."""
    return msgspec.json.encode(value)
