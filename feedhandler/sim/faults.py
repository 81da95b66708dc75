"""What can be made to go wrong: the requests, how they are read, and what lasts how long.

Pure. A fault either happens once (`close`, `garbage`) or lasts some seconds (`stall`, `mute`); `Active`
keeps the lasting ones. What a fault does to a socket is the server's business.

    POST /_sim/faults    {"fault": "stall", "seconds": 5}
"""

import random
from collections.abc import Sequence
from decimal import Decimal
from difflib import get_close_matches

import msgspec

from feedhandler.sim import frames
from feedhandler.sim.protocol import KEY_REFUSALS, NS_PER_S
from feedhandler.sim.simulated import ACCOUNTS, SIMULATED

OVERSIZE_MAX = 64 * 1024 * 1024
COUNT_MAX = 10_000
SECONDS_MAX = 86_400.0


class FaultError(Exception):
    """The request cannot be carried out; the message names the culprit and the valid choices."""


class _Fault(msgspec.Struct, kw_only=True, forbid_unknown_fields=True, tag_field="fault"):
    pass


class CloseAll(_Fault, tag="close"):
    """close connections with a close frame; code, reason, connection (default: all), private=1, path: only those"""

    code: int = 1001
    reason: str = ""
    connection: int | None = None
    private: bool = False
    path: str = ""


class Rst(_Fault, tag="rst"):
    """drop connections with a TCP reset; connection (default: all), private=1, path=/linear/market: only those"""

    connection: int | None = None
    private: bool = False
    path: str = ""


class Stall(_Fault, tag="stall"):
    """send nothing at all for seconds, sockets stay open; answer_pings keeps pings and pongs alive"""

    seconds: float
    answer_pings: bool = False


class HalfOpen(_Fault, tag="half_open"):
    """leave connections open, and for ever send nothing and answer nothing; connection (default: all), path"""

    connection: int | None = None
    path: str = ""


class Mute(_Fault, tag="mute"):
    """stop market data for seconds; acknowledgements, pings and pongs go on; path: of those connections alone"""

    seconds: float
    path: str = ""


class MuteSymbol(_Fault, tag="mute_symbol"):
    """stop the data of one symbol, for seconds (default: until cleared)"""

    symbol: str
    seconds: float = SECONDS_MAX


class LoseTopic(_Fault, tag="lose_topic"):
    """send no more of one channel, such as orderbook.1.BTCUSDT, for seconds; heals: until it is subscribed anew"""

    topic: str
    seconds: float = SECONDS_MAX
    heals: bool = False


class LoseMessages(_Fault, tag="lose_messages"):
    """lose the next count messages of one channel, such as btcusdt@depth@100ms, with what they say"""

    topic: str
    count: int = 1


class Unlist(_Fault, tag="unlist"):
    """leave a symbol out of the instrument list, for seconds; its data are another matter (mute_symbol)"""

    symbol: str
    seconds: float = SECONDS_MAX


class AckWithoutData(_Fault, tag="ack_without_data"):
    """acknowledge what is subscribed within seconds, and never send data for it"""

    seconds: float


class Garbage(_Fault, tag="garbage"):
    """send count frames of nonsense: random bytes, bad UTF-8, broken JSON, impossible numbers; connection"""

    count: int = 1
    connection: int | None = None


class Oversize(_Fault, tag="oversize"):
    """send one text message of size bytes; connection"""

    size: int
    connection: int | None = None


class Refuse(_Fault, tag="refuse"):
    """turn away new connections and requests for seconds, how: rst or 503, path; /_sim/ stays reachable"""

    seconds: float
    how: str = "rst"
    path: str = ""  # begins so; "": all of them


class ExpiredToken(_Fault, tag="expired_token"):
    """KuCoin: forget all tokens; open connections get error 401 and are closed unless keep_open"""

    keep_open: bool = False


class HttpStatus(_Fault, tag="http_status"):
    """answer REST with status (429, 418, 403, 503 ...) and Retry-After: retry_after, for seconds"""

    status: int
    seconds: float
    retry_after: int = 1


class SlowRest(_Fault, tag="slow_rest"):
    """for seconds, send each answer of REST after_s later, as it was when it was asked for"""

    seconds: float
    after_s: float = 1.0


class OldBooks(_Fault, tag="old_books"):
    """for seconds, answer REST with order books as they are now; those that nobody wants yet are no older"""

    seconds: float


class RestartBooks(_Fault, tag="restart_books"):
    """Bybit: send subscribed books as snapshots with u = 1, as after a restart; OKX: count ids anew; symbol"""

    symbol: str = ""


class NoSnapshots(_Fault, tag="no_snapshots"):
    """OKX: begin books that are subscribed within seconds without a snapshot, as announced: REST has one"""

    seconds: float = SECONDS_MAX


class CrossBook(_Fault, tag="cross_book"):
    """let the next message of one channel of deltas have a bid above the best ask, which never was"""

    topic: str


class Burst(_Fault, tag="burst"):
    """let count trades of a symbol happen at once"""

    symbol: str
    count: int = 1025


class ServerShutdown(_Fault, tag="server_shutdown"):
    """Binance, OKX: announce it, and close those connections after seconds"""

    seconds: float = 3.0


class Duplicate(_Fault, tag="duplicate"):
    """send the next count updates twice; symbol"""

    count: int = 1
    symbol: str = ""


class Late(_Fault, tag="late"):
    """send the next count updates once more, after newer ones of their symbol; symbol"""

    count: int = 1
    symbol: str = ""


class Fragment(_Fault, tag="fragment"):
    """for seconds, split messages into continuation frames, and frames into TCP segments, anywhere"""

    seconds: float


class RejectSymbol(_Fault, tag="reject_symbol"):
    """refuse new subscriptions to one symbol as the exchange would, for seconds (default: until cleared)"""

    symbol: str
    seconds: float = SECONDS_MAX


class WrongClock(_Fault, tag="clock"):
    """state exchange times wrong by offset_s, for seconds"""

    offset_s: float
    seconds: float = SECONDS_MAX


class Rate(_Fault, tag="rate"):
    """change the market rate to messages_per_s"""

    messages_per_s: float


class Deposit(_Fault, tag="deposit"):
    """add amount of asset to the account, negative: a withdrawal; wallet; silent=1: no private stream gets it"""

    asset: str
    amount: Decimal
    wallet: str = ""
    silent: bool = False


class Hold(_Fault, tag="hold"):
    """reserve amount of asset as for an open order, negative: release it; wallet; silent=1, as in deposit"""

    asset: str
    amount: Decimal
    wallet: str = ""
    silent: bool = False


class Trade(_Fault, tag="trade"):
    """buy amount of a symbol's base at its last price, negative: sell; silent=1, as in deposit"""

    symbol: str
    amount: Decimal
    silent: bool = False


class RefuseKey(_Fault, tag="refuse_key"):
    """refuse every key for seconds; kind: key, permission, address, expired, maintenance, or unified (KuCoin)"""

    kind: str
    seconds: float = SECONDS_MAX


class EndSubscriptions(_Fault, tag="end_subscriptions"):
    """Binance: end the user data subscriptions with eventStreamTerminated; connections stay open"""


class Clear(_Fault, tag="none"):
    """end all faults that last"""


Fault = (
    CloseAll
    | Rst
    | Stall
    | HalfOpen
    | Mute
    | MuteSymbol
    | LoseTopic
    | LoseMessages
    | Unlist
    | AckWithoutData
    | Garbage
    | Oversize
    | Refuse
    | ExpiredToken
    | HttpStatus
    | SlowRest
    | OldBooks
    | RestartBooks
    | NoSnapshots
    | CrossBook
    | Burst
    | ServerShutdown
    | Duplicate
    | Late
    | Fragment
    | RejectSymbol
    | WrongClock
    | Rate
    | Deposit
    | Hold
    | Trade
    | RefuseKey
    | EndSubscriptions
    | Clear
)
# They change a market, an account, or what is made of them; all others are about how it is sent.
OF_A_MARKET = (
    Unlist,
    OldBooks,
    RestartBooks,
    NoSnapshots,
    CrossBook,
    Burst,
    Rate,
    Deposit,
    Hold,
    Trade,
    RefuseKey,
    EndSubscriptions,
    WrongClock,
)
_KINDS: tuple[type[_Fault], ...] = Fault.__args__
_BY_NAME = {str(kind.__struct_config__.tag): kind for kind in _KINDS}
_RANGES: dict[str, tuple[float, float]] = {
    "seconds": (0.0, SECONDS_MAX),
    "code": (1000, 4999),
    "count": (1, COUNT_MAX),
    "size": (1, OVERSIZE_MAX),
    "status": (400, 599),
    "retry_after": (0, SECONDS_MAX),
    "after_s": (0, SECONDS_MAX),
    "messages_per_s": (1, 50_000),
    "offset_s": (-10 * SECONDS_MAX * 365, 10 * SECONDS_MAX * 365),
}
ONLY_ON = {
    **{
        fault: tuple(name for name, each in SIMULATED.items() if fault in each.faults)
        for row in SIMULATED.values()
        for fault in row.faults
    },
    **dict.fromkeys(("deposit", "hold", "trade", "refuse_key"), tuple(ACCOUNTS)),
}


def fault_kinds() -> dict[str, str]:
    """Name every fault, with one line of help that names its fields."""
    return {name: str(kind.__doc__) for name, kind in _BY_NAME.items()}


def parse(body: bytes, exchange: str) -> Fault:
    """Read one request. Raises FaultError, with a message for whoever typed it."""
    try:
        request = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise FaultError(f"the body is not JSON: {error}") from None
    if not isinstance(request, dict) or "fault" not in request:
        raise FaultError(f'the body must be an object with "fault", one of: {", ".join(_BY_NAME)}')
    name = request["fault"]
    kind = _BY_NAME.get(name) if isinstance(name, str) else None
    if kind is None:
        hint = _did_you_mean(str(name), list(_BY_NAME))
        raise FaultError(f"unknown fault {name!r}{hint}; choose from: {', '.join(_BY_NAME)}")
    if exchange not in ONLY_ON.get(name, (exchange,)):
        raise FaultError(f"fault {name!r} exists on {', '.join(ONLY_ON[name])} only, and this is {exchange}")
    _check_names(name, kind, request)
    try:
        fault: Fault = msgspec.convert(request, Fault, strict=False)  # a command line has texts only
    except msgspec.ValidationError as error:
        raise FaultError(f"fault {name!r}: {error}; it takes: {_fields(kind)}") from None
    _check_values(name, fault, exchange)
    return fault


def _check_names(name: str, kind: type[_Fault], request: dict[str, object]) -> None:
    unknown = [key for key in request if key != "fault" and key not in kind.__struct_fields__]
    if unknown:
        hint = _did_you_mean(unknown[0], list(kind.__struct_fields__))
        raise FaultError(f"fault {name!r} has no field {unknown[0]!r}{hint}; it takes: {_fields(kind)}")


def _check_values(name: str, fault: Fault, exchange: str) -> None:
    for field in fault.__struct_fields__:
        low, high = _RANGES.get(field, (None, None))
        value = getattr(fault, field)
        if low is not None and high is not None and not low <= value <= high:
            raise FaultError(f"fault {name!r}: {field} must be from {low:g} to {high:g}, not {value!r}")
    if isinstance(fault, Refuse) and fault.how not in ("rst", "503"):
        raise FaultError(f"fault {name!r}: how must be rst or 503, not {fault.how!r}")
    if isinstance(fault, RefuseKey) and fault.kind not in KEY_REFUSALS:
        raise FaultError(f"fault {name!r}: kind must be one of {', '.join(KEY_REFUSALS)}, not {fault.kind!r}")
    if isinstance(fault, RefuseKey) and exchange not in (
        has := ONLY_ON.get(f"{name} {fault.kind}", (exchange,))
    ):
        raise FaultError(f"fault {name!r}: kind {fault.kind!r} exists at {', '.join(has)} only")
    if isinstance(fault, Deposit | Hold | Trade) and not fault.amount.is_finite():
        raise FaultError(f"fault {name!r}: amount must be a number, not {fault.amount}")
    for field in ("symbol", "topic", "asset"):
        if getattr(fault, field, None) == "" and field in _required(type(fault)):
            raise FaultError(f"fault {name!r}: {field} must not be empty")


def _required(kind: type[_Fault]) -> set[str]:
    return {field.name for field in msgspec.structs.fields(kind) if field.required}


def _fields(kind: type[_Fault]) -> str:
    return ", ".join(kind.__struct_fields__) or "no fields"


def _did_you_mean(name: str, choices: Sequence[str]) -> str:
    close = get_close_matches(name, choices, n=1)
    return f' (did you mean "{close[0]}"?)' if close else ""


class Active:
    """The faults that last, by name; several symbols can be muted or rejected at once.

    Bounded: SYMBOLS entries, the oldest goes first.
    """

    SYMBOLS = 1000

    def __init__(self) -> None:
        self._until: dict[tuple[str, str], tuple[int, Fault]] = {}

    def add(self, fault: Fault, mono_ns: int) -> None:
        """Start a fault that has `seconds`; the same one again replaces it."""
        key = (_name(fault), getattr(fault, "symbol", "") or getattr(fault, "topic", ""))
        self._until.pop(key, None)
        self._until[key] = (mono_ns + int(getattr(fault, "seconds", 0.0) * NS_PER_S), fault)
        if len(self._until) > self.SYMBOLS:
            del self._until[next(iter(self._until))]

    def clear(self) -> None:
        self._until.clear()

    def expire(self, mono_ns: int) -> bool:
        """Drop what is over; True if anything was."""
        over = [key for key, (until_ns, _) in self._until.items() if until_ns <= mono_ns]
        for key in over:
            del self._until[key]
        return bool(over)

    def get(self, name: str, about: str = "") -> Fault | None:
        """Return the fault of this name, and of this symbol or topic; None if there is none."""
        found = self._until.get((name, about))
        return found[1] if found else None

    def remove(self, name: str, about: str) -> None:
        """End one; harmless if it is over."""
        self._until.pop((name, about), None)

    def symbols(self, name: str) -> set[str]:
        """Return the symbols, or topics, that faults of this name are about."""
        return {about for kind, about in self._until if kind == name}

    def __bool__(self) -> bool:
        return bool(self._until)

    def describe(self, mono_ns: int) -> list[dict[str, object]]:
        """List them with the seconds that are left."""
        return [
            msgspec.to_builtins(fault) | {"seconds_left": round((until_ns - mono_ns) / NS_PER_S, 3)}
            for until_ns, fault in self._until.values()
        ]


def _name(fault: Fault) -> str:
    return str(fault.__struct_config__.tag)


def garbage(rng: random.Random, sample: bytes, count: int) -> list[bytes]:
    """Make `count` frames that no decoder should swallow; `sample`: a payload of this exchange, or b""."""
    makers = (
        _random_bytes,
        _bad_utf8,
        _truncated,
        _broken_number,
        _wrong_shape,
        _binary,
        _deep,
        _replaced_digits,
    )
    return [
        makers[index % len(makers)](rng, sample or b'{"e":"x","u":1,"b":"1.0"}') for index in range(count)
    ]


def _random_bytes(rng: random.Random, sample: bytes) -> bytes:
    """Bytes that are text at least: a bad byte would end the connection at once, see `_bad_utf8`."""
    return frames.text(bytes(rng.randrange(32, 127) for _ in range(rng.randrange(1, 200))))


def _broken_number(rng: random.Random, sample: bytes) -> bytes:
    value = rng.choice(
        (b'"nan"', b"NaN", b'"inf"', b"%d" % 2**64, b"-1", b'"-12.5"', b"1e999", b'""', b"null")
    )
    head, colon, tail = sample.rpartition(b":")
    end = b"}" * (tail.count(b"}") or 1)
    return frames.text(head + colon + value + end)


def _replaced_digits(rng: random.Random, sample: bytes) -> bytes:
    """Keep the shape, spoil every price: 0.5 becomes -.-."""
    return frames.text(bytes(ord("-") if 48 <= byte <= 57 else byte for byte in sample))


def _truncated(rng: random.Random, sample: bytes) -> bytes:
    return frames.text(sample[: rng.randrange(len(sample))].decode(errors="ignore").encode())


def _wrong_shape(rng: random.Random, sample: bytes) -> bytes:
    return frames.text(
        rng.choice((b"null", b"[]", b"{}", b'"text"', b"0", b"", b"[[]]", b'{"data":[]}', b'{"data":null}'))
    )


def _binary(rng: random.Random, sample: bytes) -> bytes:
    return frames.frame(frames.BINARY, rng.randbytes(rng.randrange(1, 64)))


def _deep(rng: random.Random, sample: bytes) -> bytes:
    return frames.text(b"[" * 5000)


def _bad_utf8(rng: random.Random, sample: bytes) -> bytes:
    """A client that checks ends the connection with 1007; one that does not must not stumble either."""
    cut = rng.randrange(len(sample))
    return frames.text(sample[:cut] + b"\xff\xfe" + sample[cut:])


def oversized(size: int) -> bytes:
    """Make one valid JSON text of exactly `size` bytes, or as near as its braces allow."""
    return frames.text(b'{"padding":"%b"}' % (b"x" * max(0, size - 14)))
