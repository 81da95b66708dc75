"""/ws: what browsers see, as it changes, each at its own speed.

Every message is text, JSON, with a type. Market data are encoded and framed once, and leave in one write per
client and flush, past aiohttp on the same transport: 500 clients of 15 symbols at 10 a second are 75,000 messages.
Who does not read is passed over until it does, and then gets the newest: it costs WAITING_MAX and one snapshot.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from socket import SO_SNDBUF, SOL_SOCKET
from typing import Annotated, Any, Final, TypeVar

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from feedhandler.data import wire
from feedhandler.data.errors import UNDECODABLE
from feedhandler.data.kinds import named
from feedhandler.data.status import Heartbeat
from feedhandler.gateway.app import Parts
from feedhandler.gateway.conflation import EVERYTHING, Interest, Newest
from feedhandler.gateway.problem import Problem
from feedhandler.gateway.rows import ExchangeRow, TickerRow, ticker_row
from feedhandler.gateway.watched import TOPICS_MAX, VIEWS, Reading, WatchedTopics
from feedhandler.runtime.checks import UPDATES_PER_S_MAX

TURN_S: Final = 1 / UPDATES_PER_S_MAX
CLIENTS_MAX: Final = 1000
WAITING_MAX: Final = 256 << 10  # bytes that a client has not read, beyond which it is passed over
KERNEL_MAX: Final = 128 << 10  # and bytes that the kernel keeps besides, about twice
UNREAD_S: Final = 30.0  # so long, and then it is cut off
MESSAGE_SIZE_MAX: Final = 64 << 10  # incoming: thousands of symbols
MESSAGES_PER_S_MAX: Final = 20  # incoming
MISTAKES_MAX: Final = 5
SYMBOLS_MAX: Final = 5000
PING_EVERY_S: Final = 20.0
AUTH_WITHIN_S: Final = 5.0
CLOSE_WITHIN_S: Final = 2.0
TEXT: Final = 0x81  # RFC 6455: a whole message of text, unmasked, as servers send

PerSecond = Annotated[float, msgspec.Meta(ge=0.1, le=UPDATES_PER_S_MAX)]
Names = Annotated[list[Annotated[str, msgspec.Meta(max_length=64)]], msgspec.Meta(max_length=SYMBOLS_MAX)]

K = TypeVar("K")

TICKER: Final = "ticker"
NO_TICKERS: Final = Interest(symbols=frozenset())
KINDS: Final = (TICKER, *VIEWS)


class SubscribeMessage(msgspec.Struct, tag="subscribe", forbid_unknown_fields=True):
    """What is wanted of a kind, from now on; of other kinds than tickers only what is named."""

    kind: Annotated[str, msgspec.Meta(max_length=64)] = TICKER
    symbols: Names | None = None
    exchanges: Names | None = None


class RateMessage(msgspec.Struct, tag="rate", forbid_unknown_fields=True):
    per_s: PerSecond


class AuthMessage(msgspec.Struct, tag="auth", forbid_unknown_fields=True):
    token: str

    def __repr__(self) -> str:
        return "AuthMessage(…)"


class ScreenPulse(msgspec.Struct):
    """merger: null while it is silent. events: how many there were; when it has changed, /v1/events has more."""

    now_ns: int
    merger: Heartbeat | None
    events: int


class Snapshot(ScreenPulse):
    exchanges: dict[str, ExchangeRow]
    tickers: list[TickerRow]


def framed(text: bytes) -> bytes:
    """Return a message as a server's WebSocket frame."""
    size = len(text)
    if size < 126:
        return bytes((TEXT, size)) + text
    if size < 65536:
        return bytes((TEXT, 126)) + size.to_bytes(2, "big") + text
    return bytes((TEXT, 127)) + size.to_bytes(8, "big") + text


def message(kind: str, data: Any = None) -> bytes:
    """Return a framed message."""
    return framed(msgspec.json.encode({"type": kind} if data is None else {"type": kind, "data": data}))


class Screen:
    """One client: what it wants, what it has seen, what else it is due."""

    def __init__(self, socket: web.WebSocketResponse, transport: asyncio.Transport, per_s: float) -> None:
        self.socket = socket
        self.interest = EVERYTHING
        self.readings: dict[str, list[Reading]] = {}  # by kind
        self.period_s = 1 / per_s
        self.seen = 0
        self.next_s = 0.0  # monotonic
        self.is_authorized = False
        self.is_snapshot_due = True
        self.statuses_due: set[str] = set()
        self.accounts_due: set[str] = set()
        self.is_pulse_due = False
        self.mistakes = 0
        self.waiting_since: float | None = None
        self._transport = transport
        self._second, self._messages = 0, 0

    def admits(self, now: float) -> bool:
        """Count an incoming message; False if there are too many of them."""
        if int(now) != self._second:
            self._second, self._messages = int(now), 0
        self._messages += 1
        return self._messages <= MESSAGES_PER_S_MAX

    def write(self, data: bytes) -> None:
        """Send frames, unless it is being closed."""
        if not self.socket.closed and not self._transport.is_closing():
            self._transport.write(data)

    def is_reading(self, now: float) -> bool:
        """Return whether it keeps up; one that has not for too long is cut off."""
        if self._transport.get_write_buffer_size() <= WAITING_MAX:
            self.waiting_since = None
            return True
        if self.waiting_since is None:
            self.waiting_since = now
        return False

    def cut_off(self) -> None:
        """End it without a word: it would not read it."""
        self._transport.abort()


class Screens:
    """All clients, and the newest of the stream; counts are for metrics."""

    def __init__(self, tick_of: Callable[[wire.Ticker], str]) -> None:
        self._tick_of = tick_of
        self.watched = WatchedTopics(message)
        self.newest = Newest(lambda ticker, flags: message("market_update", self.row(ticker, flags)))
        self.clients: set[Screen] = set()
        self._strangers: set[Screen] = set()  # connected, and have not sent the token yet
        self.updates = self.passed_over = self.trades_passed_over = self.cut_off = self.refused = 0
        self._decode = msgspec.json.Decoder(SubscribeMessage | RateMessage | AuthMessage).decode

    def row(self, ticker: wire.Ticker, flags: int) -> TickerRow:
        """Return a ticker as browsers get it."""
        return ticker_row(ticker, flags, self._tick_of(ticker))

    # --- what is new

    def on_status(self, exchange: str) -> None:
        """An exchange's status is new."""
        for client in self.clients:
            client.statuses_due.add(exchange)

    def on_account(self, exchange: str) -> None:
        """An account's status is new."""
        for client in self.clients:
            if client.is_authorized:
                client.accounts_due.add(exchange)

    async def run(self, parts: Parts) -> None:
        """Send what is due; for ever."""
        next_pulse = 0.0
        while True:
            now = time.monotonic()
            flags = 0 if parts.market_data.is_merger_up else wire.DOWN
            self.newest.set_flags(flags)
            self.watched.set_flags(flags)
            if now >= next_pulse:
                next_pulse = now + 1.0
                if not parts.market_data.is_merger_up:
                    parts.events.on_merger(0, time.time_ns())
                for client in self.clients:
                    client.is_pulse_due = True
            self._flush(parts, now)
            await asyncio.sleep(max(0.0, now + TURN_S - time.monotonic()))

    def _flush(self, parts: Parts, now: float) -> None:
        """Send each client what it is due; those that are alike share the bytes."""
        # hot: 500 clients at 10 a second
        shared: dict[tuple[int, Interest], tuple[bytes, int]] = {}
        common = Common(parts, self)
        for client in list(self.clients):
            if now < client.next_s:
                continue
            client.next_s = max(client.next_s + client.period_s, now)
            if not client.is_reading(now):
                self._pass_over(client, now)
                continue
            head = self._head(client, common)
            key = (client.seen, client.interest)
            if key not in shared:
                topics = self.newest.since(*key)
                shared[key] = b"".join(map(self.newest.text, topics)), len(topics)
            data, count = shared[key]
            client.seen = self.newest.changes
            self.updates += count
            if client.readings:
                data += self._watched_updates(client)
            if head or data:
                client.write(head + data)

    def _watched_updates(self, client: Screen) -> bytes:
        """Return what a client is due of the topics that it looks at."""
        updates = [self.watched.update(each) for readings in client.readings.values() for each in readings]
        self.updates += sum(bool(update.text) for update in updates)
        self.trades_passed_over += sum(update.passed_over for update in updates)
        return b"".join(update.text for update in updates)

    def _pass_over(self, client: Screen, now: float) -> None:
        self.passed_over += 1
        assert client.waiting_since is not None, "it waits"
        if now - client.waiting_since > UNREAD_S:
            self.cut_off += 1
            client.cut_off()

    def _head(self, client: Screen, common: "Common") -> bytes:
        """Return what a client is due besides updates."""
        data = b""
        if client.is_snapshot_due:
            client.is_snapshot_due = False
            client.statuses_due.clear()
            client.seen = self.newest.changes
            data += common.snapshot(client.interest)
        for exchange in client.statuses_due:
            data += common.status(exchange)
        for exchange in client.accounts_due:
            data += common.account(exchange)
        if client.is_pulse_due:
            data += common.pulse()
        client.statuses_due.clear()
        client.accounts_due.clear()
        client.is_pulse_due = False
        return data

    # --- one client

    async def serve(self, request: web.Request, parts: Parts) -> web.WebSocketResponse:
        """Serve a browser until it goes."""
        wishes, per_s = _wishes(request, parts)
        socket = web.WebSocketResponse(
            heartbeat=PING_EVERY_S,
            compress=False,
            max_msg_size=MESSAGE_SIZE_MAX,
            timeout=CLOSE_WITHIN_S,
        )
        await socket.prepare(request)
        if len(self.clients) + len(self._strangers) >= CLIENTS_MAX:
            self.refused += 1
            await socket.close(code=WSCloseCode.TRY_AGAIN_LATER, message=b"too many clients")
            return socket
        assert request.transport is not None, "it was upgraded"
        # Left to itself the kernel would keep some megabytes for each that does not read.
        request.transport.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_SNDBUF, KERNEL_MAX)
        client = Screen(socket, request.transport, per_s)
        if not parts.access.is_open and not await self._first_word(client, parts):
            return socket
        self.clients.add(client)
        try:
            client.interest = NO_TICKERS
            for wish in wishes:
                self._follow(client, wish, parts)
            async for incoming in socket:
                if incoming.type is not WSMsgType.TEXT:
                    await socket.close(code=WSCloseCode.UNSUPPORTED_DATA, message=b"text only")
                elif not client.admits(time.monotonic()):
                    await self._refuse(client, b"too many messages")
                elif not self._take(client, incoming.data, parts):
                    await self._refuse(client, b"too many mistakes")
        finally:
            self.clients.discard(client)
            for kind in VIEWS:
                self._look_at(client, kind, (), parts)
        return socket

    async def _first_word(self, client: Screen, parts: Parts) -> bool:
        """One that is not on this machine sends the token first; nothing is sent to it before."""
        self._strangers.add(client)
        try:
            text = await client.socket.receive_str(timeout=AUTH_WITHIN_S)
            self._take(client, text, parts)
        except (TimeoutError, TypeError):
            pass  # it sent nothing, or no text
        finally:
            self._strangers.discard(client)
        if not client.is_authorized:
            await self._refuse(client, b"the first message has to be auth, with the token")
        return client.is_authorized

    async def _refuse(self, client: Screen, reason: bytes) -> None:
        self.refused += 1
        await client.socket.close(code=WSCloseCode.POLICY_VIOLATION, message=reason)

    def _take(self, client: Screen, text: str, parts: Parts) -> bool:
        """Take a client's message; False if it has made too many mistakes."""
        try:
            wish = self._decode(text)
        except msgspec.ValidationError as exc:  # it quotes no value
            return self._mistake(client, str(exc).replace("`", ""))
        except UNDECODABLE:
            return self._mistake(client, "the message is no JSON")
        if isinstance(wish, RateMessage):
            client.period_s = 1 / wish.per_s
        elif isinstance(wish, SubscribeMessage):
            if wrong := _mistake_in(wish, parts):
                return self._mistake(client, ": ".join(wrong))
            self._follow(client, wish, parts)
        elif not parts.access.is_token(wish.token):
            return self._mistake(client, "token: is not the gateway's")
        else:
            client.is_authorized = True
            client.accounts_due.update(parts.config.exchanges)
            client.write(message("authorized"))
        return True

    def _follow(self, client: Screen, wish: SubscribeMessage, parts: Parts) -> None:
        """Send what is wanted from now on, and say of what nothing will come: it may be there tomorrow."""
        exchanges = wish.exchanges if wish.exchanges is not None else list(parts.config.exchanges)
        if wish.kind == TICKER:
            client.interest = _interest(wish.symbols, wish.exchanges)
            client.is_snapshot_due = True
            detail = parts.unlisted(sorted(set(wish.symbols or ())), exchanges)
        else:
            symbols = list(dict.fromkeys(wish.symbols or ()))
            self._look_at(client, wish.kind, _topics(wish, parts), parts)
            detail = parts.unlisted(symbols, exchanges) or parts.unwanted(wish.kind, symbols, exchanges)
        if detail:
            client.write(message("error", {"detail": f"symbols: {detail}"}))

    def _look_at(self, client: Screen, kind: str, topics: Iterable[str], parts: Parts) -> None:
        """Have a client look at these topics of a kind, and at no others."""
        for reading in client.readings.pop(kind, ()):
            self.watched.close(reading)
        data = parts.market_data
        readings = [
            self.watched.open(topic, data.newest(topic), data.flags_of(topic), data.tick_at(topic))
            for topic in topics
        ]
        if readings:
            client.readings[kind] = readings

    def _mistake(self, client: Screen, detail: str) -> bool:
        client.mistakes += 1
        client.write(message("error", {"detail": detail}))
        return client.mistakes < MISTAKES_MAX

    async def close(self) -> None:
        """Say goodbye to all."""
        await asyncio.gather(
            *(
                client.socket.close(code=WSCloseCode.GOING_AWAY, message=b"the gateway stops")
                for client in (*self.clients, *self._strangers)
            )
        )


class Common:
    """What several clients are due in a turn, encoded once."""

    def __init__(self, parts: Parts, screens: Screens) -> None:
        self._parts = parts
        self._newest = screens.newest
        self._row = screens.row
        self._merger = parts.market_data.heartbeat if parts.market_data.is_merger_up else None
        self._made: dict[tuple[str, object], bytes] = {}

    def status(self, exchange: str) -> bytes:
        return self._once("status_update", exchange, self._parts.row)

    def account(self, exchange: str) -> bytes:
        return self._once("balance_update", exchange, self._parts.accounts.status)

    def pulse(self) -> bytes:
        return self._once(
            "heartbeat", "", lambda _: ScreenPulse(time.time_ns(), self._merger, self._parts.events.count)
        )

    def snapshot(self, interest: Interest) -> bytes:
        return self._once("snapshot", interest, self._make_snapshot)

    def _make_snapshot(self, interest: Interest) -> Snapshot:
        topics = self._newest.since(-1, interest)
        return Snapshot(
            now_ns=time.time_ns(),
            merger=self._merger,
            events=self._parts.events.count,
            exchanges=self._parts.rows(),
            tickers=[self._row(topic.ticker, self._newest.flags) for topic in topics],
        )

    def _once(self, kind: str, whose: K, make: Callable[[K], msgspec.Struct]) -> bytes:
        key = kind, whose
        if key not in self._made:
            self._made[key] = message(kind, make(whose))
        return self._made[key]


def _interest(symbols: list[str] | None, exchanges: list[str] | None) -> Interest:
    return Interest(
        None if symbols is None else frozenset(symbols), None if exchanges is None else frozenset(exchanges)
    )


def _topics(wish: SubscribeMessage, parts: Parts) -> list[str]:
    """Return the topics of a wish for symbols of a kind. Raises ValueError for what no topic has room for."""
    exchanges = wish.exchanges if wish.exchanges is not None else parts.config.exchanges
    code = named(wish.kind).code
    symbols = dict.fromkeys(wish.symbols or ())
    return [wire.topic(code, name, symbol) for name in dict.fromkeys(exchanges) for symbol in symbols]


def _mistake_in(wish: SubscribeMessage, parts: Parts) -> tuple[str, str] | None:
    """Return which field of a wish is wrong, and what is wrong with it."""
    if wish.kind not in KINDS:
        return "kind", f"{wish.kind[:100]!r} is none of {', '.join(KINDS)}"
    for name in wish.exchanges or ():
        if name not in parts.config.exchanges:
            return "exchanges", f"{name[:100]!r} is not configured"
    if wish.kind == TICKER:
        return None
    if wish.symbols is None:
        return "symbols", f"name those of which {wish.kind} is wanted; all of them are too many"
    try:
        count = len(_topics(wish, parts))
    except ValueError as exc:
        return "symbols", str(exc)
    if count > TOPICS_MAX:
        return "symbols", f"{count} topics of {wish.kind}, {TOPICS_MAX} at most: name fewer, or the exchanges"
    return None


def _wishes(request: web.Request, parts: Parts) -> tuple[list[SubscribeMessage], float]:
    """Return what the query selects, and how often. Raises Problem that names the parameter."""
    known = {"symbols", "exchanges", "kinds", "per_s"}
    for name in request.query:
        if name not in known:
            raise _refused(name, f"unknown parameter (known: {', '.join(sorted(known))})")
    symbols, exchanges, kinds = (
        request.query[name].split(",") if name in request.query else None
        for name in ("symbols", "exchanges", "kinds")
    )
    wishes = [SubscribeMessage(kind, symbols, exchanges) for kind in dict.fromkeys(kinds or (TICKER,))]
    for wish in wishes:
        if wrong := _mistake_in(wish, parts):
            raise _refused({"kind": "kinds"}.get(wrong[0], wrong[0]), wrong[1])
    per_s = request.query.get("per_s", str(parts.config.gateway.updates_per_s))
    try:
        rate = msgspec.convert(float(per_s), PerSecond)
    except (ValueError, msgspec.ValidationError):
        raise _refused("per_s", f"must be from 0.1 to {UPDATES_PER_S_MAX}, such as 5") from None
    return wishes, rate


def _refused(field: str, text: str) -> Problem:
    return Problem(HTTPStatus.BAD_REQUEST, f"{field}: {text}", field=field)


def routes(screens: Screens, parts: Parts) -> list[web.RouteDef]:
    """Return the WebSocket's route."""

    async def serve(request: web.Request) -> web.StreamResponse:
        return await screens.serve(request, parts)

    return [web.get("/ws", serve)]
