"""/ws: what browsers see, as it changes, each at its own speed.

Every message is text, JSON, with a type. Market data are encoded and framed once, and leave in one write per
client and flush, past aiohttp on the same transport: 500 clients of 15 symbols at 10 a second are 75,000 messages.
Who does not read is passed over until it does, and then gets the newest: it costs WAITING_MAX and one snapshot.
"""

import asyncio
import time
from collections.abc import Callable
from http import HTTPStatus
from socket import SO_SNDBUF, SOL_SOCKET
from typing import Annotated, Any, Final, TypeVar

import msgspec
from aiohttp import WSCloseCode, WSMsgType, web

from feedhandler.data import wire
from feedhandler.data.errors import UNDECODABLE
from feedhandler.data.status import Heartbeat
from feedhandler.gateway.app import Parts
from feedhandler.gateway.conflation import EVERYTHING, Interest, Newest
from feedhandler.gateway.problem import Problem
from feedhandler.gateway.rows import ExchangeRow, TickerRow, ticker_row
from feedhandler.runtime.config import UPDATES_PER_S_MAX

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


class SubscribeMessage(msgspec.Struct, tag="subscribe", forbid_unknown_fields=True):
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
        self.newest = Newest(lambda ticker, flags: message("market_update", self.row(ticker, flags)))
        self.clients: set[Screen] = set()
        self._strangers: set[Screen] = set()  # connected, and have not sent the token yet
        self.updates = self.passed_over = self.cut_off = self.refused = 0
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
            self.newest.set_flags(0 if parts.market_data.is_merger_up else wire.DOWN)
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
            if head or data:
                client.write(head + data)

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
        interest, per_s = _wishes(request, parts)
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
        client.interest = interest
        if not parts.access.is_open and not await self._first_word(client, parts):
            return socket
        self.clients.add(client)
        self._tell_unlisted(client, parts)
        try:
            async for incoming in socket:
                if incoming.type is not WSMsgType.TEXT:
                    await socket.close(code=WSCloseCode.UNSUPPORTED_DATA, message=b"text only")
                elif not client.admits(time.monotonic()):
                    await self._refuse(client, b"too many messages")
                elif not self._take(client, incoming.data, parts):
                    await self._refuse(client, b"too many mistakes")
        finally:
            self.clients.discard(client)
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
            if unknown := [name for name in wish.exchanges or () if name not in parts.config.exchanges]:
                return self._mistake(client, f"exchanges: {unknown[0]!r} is not configured")
            client.interest = _interest(wish.symbols, wish.exchanges)
            client.is_snapshot_due = True
            self._tell_unlisted(client, parts)
        elif not parts.access.is_token(wish.token):
            return self._mistake(client, "token: is not the gateway's")
        else:
            client.is_authorized = True
            client.accounts_due.update(parts.config.exchanges)
            client.write(message("authorized"))
        return True

    def _tell_unlisted(self, client: Screen, parts: Parts) -> None:
        """Tell a client of a symbol of which nothing will come; no mistake: it may be listed tomorrow."""
        symbols, among = client.interest.symbols, client.interest.exchanges
        exchanges = [name for name in parts.config.exchanges if among is None or name in among]
        if detail := parts.unlisted(sorted(symbols or ()), exchanges):
            client.write(message("error", {"detail": f"symbols: {detail}"}))

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


def _wishes(request: web.Request, parts: Parts) -> tuple[Interest, float]:
    """Return what the query selects. Raises Problem that names the parameter."""
    known = {"symbols", "exchanges", "per_s"}
    for name in request.query:
        if name not in known:
            raise Problem(
                HTTPStatus.BAD_REQUEST,
                f"{name}: unknown parameter (known: {', '.join(sorted(known))})",
                field=name,
            )
    lists = {
        name: request.query[name].split(",") if name in request.query else None
        for name in ("symbols", "exchanges")
    }
    for name in lists["exchanges"] or ():
        if name not in parts.config.exchanges:
            raise Problem(
                HTTPStatus.BAD_REQUEST, f"exchanges: {name[:100]!r} is not configured", field="exchanges"
            )
    per_s = request.query.get("per_s", str(parts.config.gateway.updates_per_s))
    try:
        rate = msgspec.convert(float(per_s), PerSecond)
    except (ValueError, msgspec.ValidationError):
        raise Problem(
            HTTPStatus.BAD_REQUEST,
            f"per_s: must be from 0.1 to {UPDATES_PER_S_MAX}, such as 5",
            field="per_s",
        ) from None
    return _interest(lists["symbols"], lists["exchanges"]), rate


def routes(screens: Screens, parts: Parts) -> list[web.RouteDef]:
    """Return the WebSocket's route."""

    async def serve(request: web.Request) -> web.StreamResponse:
        return await screens.serve(request, parts)

    return [web.get("/ws", serve)]
