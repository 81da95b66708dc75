"""The shell of the simulated exchanges: sockets, clock, tasks, HTTP. It decides nothing about a protocol.

One listener serves REST, WebSocket and the simulator's own pages:

    GET  /_sim/state     connections, subscriptions, counters, lateness, violations, faults, accounts
    POST /_sim/faults    see faults.py

Handshakes and incoming frames are aiohttp's; market data is framed here and leaves in one write per
connection and tick, past aiohttp, on the same transport.

Budget: a connection may hold WRITE_LIMIT of unread data before it is dropped, and one tick adds at most
`rate.CATCH_UP_S` worth of messages; all that is kept for `/_sim/state` sits in bounded deques.
"""

import asyncio
import json
import logging
import random
import socket
import struct
import time
import zlib
from collections import Counter, deque
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from decimal import Decimal
from urllib.parse import urlsplit

import msgspec
from aiohttp import WebSocketError, WSMsgType, web

from feedhandler.sim import faults, frames
from feedhandler.sim.account import AccountError, Update
from feedhandler.sim.broadcast import LATE_FRAMES, Broadcast, Schedule
from feedhandler.sim.faults import FaultError, fault_kinds
from feedhandler.sim.market import Instrument
from feedhandler.sim.playback import Recording
from feedhandler.sim.protocol import (
    NS_PER_MS,
    NS_PER_S,
    Close,
    Content,
    DataStream,
    Dialog,
    Exchange,
    HttpAnswer,
    HttpRequest,
    Now,
    Outbox,
    Reply,
)
from feedhandler.sim.rate import FixedRate
from feedhandler.sim.rhythm import Activity, Rhythm
from feedhandler.sim.simulated import SIMULATED, Rules
from feedhandler.sim.sources import ChangeSource, WindowSource

__all__ = ["SimServer", "SimSettings", "fault_kinds", "serve"]

WRITE_LIMIT = 16 * 1024 * 1024  # bytes that a client leaves unread before it is cut off
UNREAD_MAX = 256 * 1024  # beyond which a recording waits for a client
MESSAGE_LIMIT = 64 * 1024  # incoming, larger ones end the connection with 1009
BODY_LIMIT = 64 * 1024
TICK_S = 0.001  # shortest pause between two writes to a connection: the resolution of the loop's timers
HOUSEKEEPING_S = 0.02  # deadlines of dialogs and faults are looked at this often
KEPT_VIOLATIONS = 100
KEPT_CONNECTIONS = 1000  # that are closed, for what was sent on them
CLOSE_WITHIN_S = 1.0  # a client that does not answer a close frame is dropped after this
_FRAMES = (WSMsgType.TEXT, WSMsgType.BINARY, WSMsgType.PING, WSMsgType.PONG)
_LINGER_0 = struct.pack("ii", 1, 0)  # SO_LINGER on, 0 s: close() sends RST and drops what is buffered

log = logging.getLogger(__name__)


class SimSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What the market of one exchange looks like."""

    messages_per_s: float = 0.0  # per exchange, 1 .. 50_000; 0: each symbol changes by itself, see `activity`
    activity: Activity = Activity()
    instruments: int = 300  # per exchange, at most 5000
    seed: int = 1

    def __post_init__(self) -> None:
        if self.messages_per_s and not 1 <= self.messages_per_s <= 50_000:
            raise ValueError(f"messages_per_s must be 0 or from 1 to 50000, not {self.messages_per_s}")
        if not 1 <= self.instruments <= 5000:
            raise ValueError(f"instruments must be from 1 to 5000, not {self.instruments}")


def make_exchange(name: str, settings: SimSettings, rules: Rules | None = None) -> Exchange:
    """Make one exchange, pure. Raises ValueError for a name that is not in SIMULATED, or another's rules."""
    simulated = SIMULATED.get(name)
    if simulated is None or not isinstance(rules, simulated.rules | None):
        raise ValueError(
            f"no simulated exchange {name!r} with {type(rules).__name__}; choose from {', '.join(SIMULATED)}"
        )
    return simulated.make(settings.instruments, settings.seed, rules)


async def serve(servers: Sequence["SimServer"], stop: asyncio.Event) -> None:
    """Run the servers until `stop` is set. Raises OSError if one cannot bind, after closing the others."""
    try:
        for server in servers:
            await server.start()
        await stop.wait()
    finally:
        await asyncio.gather(*(server.close() for server in servers))


class ClientConnection:
    """One WebSocket: its dialog, its outbox, its transport."""

    def __init__(self, number: int, dialog: Dialog, request: web.Request, now: Now) -> None:
        assert request.transport is not None
        self.number = number
        self.dialog = dialog
        self.outbox = Outbox()
        self.ws = web.WebSocketResponse(
            autoping=False,
            autoclose=False,
            compress=False,
            timeout=CLOSE_WITHIN_S,
            max_msg_size=MESSAGE_LIMIT,
        )
        self.write_limit = WRITE_LIMIT
        self.transport = request.transport
        self.remote = request.remote or ""
        self.path = _shown_path(request)
        self.opened = now
        self.is_closing = False
        self.is_half_open = False  # as if the way to the client were cut: a fault
        self.close_deadline_ns = 0  # when to stop waiting for the client's close frame
        self.sent = 0
        self.sent_size = 0
        self.texts = 0
        self.texts_crc = 0
        self.received = 0
        self.silent_topics: set[str] = set()  # acknowledged, and nothing follows
        self.kept_back_topics: set[str] = set()  # subscribed while a fault kept their first data back
        self._pieces: deque[bytes] = deque()  # while cut at random: what waits for the loop's next turn

    @property
    def _is_over(self) -> bool:
        return self.is_closing or self.is_half_open or self.transport.is_closing()

    def note_texts(self, framed: bytes, count: int) -> None:
        """Count whole text messages, framed, that are written next: whoever receives them can compare."""
        if not self._is_over:
            self.texts += count
            self.texts_crc = zlib.crc32(framed, self.texts_crc)

    def write(self, data: bytes) -> None:
        if self._is_over:
            return
        if self._pieces:
            self._pieces.append(data)
        else:
            self.transport.write(data)
        self.sent_size += len(data)

    def write_in_pieces(self, data: bytes, rng: random.Random) -> None:
        """Hand the bytes over in pieces, one per turn of the loop, so that they leave in several segments."""
        is_idle = not self._pieces
        self._pieces.extend(frames.cut_anywhere(data, rng))
        self.sent_size += len(data)
        if is_idle:
            self._write_piece()

    def _write_piece(self) -> None:
        if self._pieces and not self.transport.is_closing():
            self.transport.write(self._pieces.popleft())
            asyncio.get_running_loop().call_soon(self._write_piece)

    @property
    def unread_size(self) -> int:
        return self.transport.get_write_buffer_size() + sum(map(len, self._pieces))

    def begin_close(self, code: int, reason: str, mono_ns: int) -> None:
        """Send a close frame; what the client still sends is read until its own comes."""
        self.write(frames.close(code, reason))
        self.is_closing = True
        self.close_deadline_ns = mono_ns + int(CLOSE_WITHIN_S * NS_PER_S)

    def end_close(self, code: int | None) -> None:
        """Answer the client's close frame, unless it is the answer to ours, and hang up."""
        if not self.is_closing:
            self.write(frames.close(code if code and 1000 <= code < 5000 else 1000))
        self.is_closing = True
        self.transport.close()

    def abort(self) -> None:
        """Drop the connection without a close frame."""
        self.is_closing = True
        self.transport.abort()

    def reset(self) -> None:
        """Drop the connection with a TCP reset."""
        _linger_0(self.transport)
        self.abort()


class SimServer:
    """One simulated exchange on its port, or two ports if the URLs differ.

    recording: what it sends, in the place of a market.
    """

    def __init__(
        self,
        exchange: str,
        settings: SimSettings,
        *,
        ws_url: str,
        rest_url: str,
        rules: Rules | None = None,
        recording: Recording | None = None,
    ) -> None:
        self.ws_url = ws_url
        self.rest_url = rest_url
        self._settings = settings
        self._exchange = make_exchange(exchange, settings, rules)
        self._recording = recording
        self._content: Content = self._exchange
        self._schedule: Schedule
        if recording is None:
            self._schedule = self._make_schedule()
        else:
            recording.join(self._exchange, self._has_room)
            self._content = self._schedule = recording
            self._exchange.knows_all = True
        self._broadcast = Broadcast(self._schedule)
        self._random = random.Random(f"faults {settings.seed}")
        self._active = faults.Active()
        self._effects: Counter[str] = Counter()  # by fault
        self._connections: dict[int, ClientConnection] = {}
        # by id(outbox): outboxes live as long as their connection
        self._by_outbox: dict[int, ClientConnection] = {}
        self._opened = 0
        self._slow = 0
        self._violation_count = 0
        self._violations: deque[dict[str, object]] = deque(maxlen=KEPT_VIOLATIONS)
        self._remark_count = 0
        self._remarks: deque[dict[str, object]] = deque(maxlen=KEPT_VIOLATIONS)
        self._closed_sent = 0  # messages of connections that are gone
        self._closed: deque[dict[str, object]] = deque(maxlen=KEPT_CONNECTIONS)
        self._shutdown_mono_ns = 0
        self._shutdown_last = 0  # the newest connection that it concerns
        self._started_mono_ns = 0
        self._wake = asyncio.Event()
        self._is_empty = asyncio.Event()  # of connections
        self._is_empty.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._runner: web.AppRunner | None = None

    def _make_schedule(self) -> FixedRate | Rhythm:
        settings = self._settings
        if settings.messages_per_s:
            return FixedRate(settings.messages_per_s, settings.seed)
        exchange = self._exchange
        return Rhythm(exchange.instruments, settings.activity, settings.seed, exchange.other_instruments)

    # Life.

    async def start(self) -> None:
        """Bind and begin. Raises OSError if a port is taken; nothing is left open then."""
        app = web.Application(client_max_size=BODY_LIMIT)
        app.router.add_route("*", "/{path:.*}", self._on_request)
        runner = web.AppRunner(
            app,
            access_log=None,
            handle_signals=False,
            shutdown_timeout=CLOSE_WITHIN_S,
            auto_decompress=False,  # no exchange takes packed bodies, and a megabyte may unpack to a gigabyte
        )
        await runner.setup()
        self._runner = runner
        try:
            await self._listen(runner)
        except BaseException:
            await runner.cleanup()
            self._runner = None
            raise
        self._exchange.ws_url = self.ws_url
        self._started_mono_ns = time.monotonic_ns()
        self._spawn(self._pump(), "pump")
        self._spawn(self._keep_house(), "housekeeping")
        log.info("simulated %s: %s %s", self._exchange.name, self.ws_url, self.rest_url)

    async def _listen(self, runner: web.AppRunner) -> None:
        is_one = urlsplit(self.ws_url).netloc == urlsplit(self.rest_url).netloc
        self.ws_url = await _listen(runner, self.ws_url)
        bound = urlsplit(self.ws_url).netloc
        if is_one:
            self.rest_url = urlsplit(self.rest_url)._replace(netloc=bound).geturl()
        else:
            self.rest_url = await _listen(runner, self.rest_url)

    async def close(self) -> None:
        """Close connections with 1001, then the listeners; within CLOSE_WITHIN_S and a moment."""
        runner, self._runner = self._runner, None
        if runner is None:
            return
        for site in list(runner.sites):
            await site.stop()
        self._close_all(Close(1001, "going away"), None)
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_WITHIN_S):
                await self._is_empty.wait()
        for connection in list(self._connections.values()):
            connection.abort()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await runner.cleanup()
        log.info("simulated %s: closed", self._exchange.name)

    def _spawn(self, work: Coroutine[None, None, None], name: str) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)

    def _on_done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error(
                "simulated %s: %s failed", self._exchange.name, task.get_name(), exc_info=task.exception()
            )

    def _now(self) -> Now:
        clock = self._active.get("clock") if self._active else None
        offset_s = clock.offset_s if isinstance(clock, faults.WrongClock) else 0.0
        return Now(time.monotonic_ns(), time.time_ns() + int(offset_s * NS_PER_S))

    # Market data.

    async def _pump(self) -> None:
        dirty: list[Outbox] = []
        while True:
            now = self._now()
            if self._is_quiet():
                self._keep_back(now)
            else:
                self._broadcast.run(now, dirty)
                self._flush(dirty)
            due_ns = self._broadcast.next_due_ns(now.mono_ns)
            pause_s = max(TICK_S, (due_ns - time.monotonic_ns()) / NS_PER_S)
            if pause_s < 0.1:
                await asyncio.sleep(pause_s)
            else:
                await self._wait(pause_s)

    async def _wait(self, seconds: float) -> None:
        """Sleep, and wake early when a subscription changes what is due."""
        self._wake.clear()
        handle = asyncio.get_running_loop().call_later(seconds, self._wake.set)
        await self._wake.wait()
        handle.cancel()

    def _has_room(self) -> bool:
        """True if clients have read what was sent, but for a little."""
        return all(each.unread_size < UNREAD_MAX for each in self._connections.values())

    @property
    def topics(self) -> int:
        """How many somebody has subscribed to."""
        return len(self._broadcast.topics())

    @property
    def unread_size(self) -> int:
        """Bytes that were sent, and that clients have not read yet."""
        return sum(each.unread_size for each in self._connections.values())

    def close_connections(self, reason: str) -> None:
        """End all connections; the clients may come again."""
        self._close_all(Close(1001, reason), None)

    def _is_quiet(self) -> bool:
        """True while nobody is sent data."""
        if not self._active:
            return False
        return self._active.get("stall") is not None or self._muted_path() == ""

    def _muted_path(self) -> str | None:
        """Return with what the path of a connection begins that is sent no data; None: there is no such one."""
        mute = self._active.get("mute") if self._active else None
        return mute.path if isinstance(mute, faults.Mute) else None

    def _keep_back(self, now: Now) -> None:
        """Let the market go on, and send nothing."""
        self._broadcast.pause(now)
        if self._broadcast.topics():
            self._effects["stall" if self._active.get("stall") else "mute"] += 1

    def _flush(self, dirty: list[Outbox]) -> None:
        # hot: bench/load.py, once per connection and tick
        is_cut = bool(self._active) and self._active.get("fragment") is not None
        muted = self._muted_path()
        for outbox in dirty:
            connection = self._by_outbox.get(id(outbox))
            waiting = outbox.frames
            if connection is None or connection.is_half_open:
                waiting.clear()
                continue
            if muted is not None and connection.path.startswith(muted):
                self._effects["mute"] += len(waiting)
                waiting.clear()
                continue
            connection.sent += len(waiting)
            whole = b"".join(waiting)
            connection.note_texts(whole, len(waiting))
            if is_cut:
                cut = [frames.fragmented(frame, self._random) for frame in waiting]
                self._effects["fragment"] += len(cut)
                connection.write_in_pieces(b"".join(cut), self._random)
            else:
                connection.write(whole)
            waiting.clear()
            if connection.unread_size > connection.write_limit:
                self._slow += 1
                log.warning(
                    "simulated %s: connection %d does not read", self._exchange.name, connection.number
                )
                connection.abort()
        dirty.clear()

    async def _keep_house(self) -> None:
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            now = self._now()
            if self._active and self._active.expire(now.mono_ns):
                self._apply_lasting_faults()
            stall = self._active.get("stall") if self._active else None
            is_frozen = isinstance(stall, faults.Stall) and not stall.answer_pings
            for connection in list(self._connections.values()):
                if connection.is_closing:
                    if now.mono_ns > connection.close_deadline_ns:
                        connection.abort()
                elif (
                    not is_frozen and not connection.is_half_open
                ):  # a client cannot answer a ping that is kept from it
                    connection.dialog.pushed = connection.sent
                    self._apply(connection, connection.dialog.on_tick(now), now)
            if self._shutdown_mono_ns and now.mono_ns >= self._shutdown_mono_ns:
                self._shutdown_mono_ns = 0
                # Who has come since the announcement is on another machine.
                for number in [n for n in self._connections if n <= self._shutdown_last]:
                    self._close_all(Close(1001, "server shutdown"), number)

    # Requests.

    async def _on_request(self, request: web.Request) -> web.StreamResponse:
        if request.path == "/_sim/state" and request.method == "GET":
            return _json(self.state())
        if request.path == "/_sim/faults":
            return await self._on_fault(request)
        refusal = self._active.get("refuse") if self._active else None
        if isinstance(refusal, faults.Refuse) and request.path.startswith(refusal.path):
            self._effects["refuse"] += 1
            return _refused(request, refusal)
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._on_socket(request)
        return await self._on_rest(request)

    async def _on_rest(self, request: web.Request) -> web.Response:
        body = await request.read()
        now = self._now()
        broken = self._active.get("http_status") if self._active else None
        if isinstance(broken, faults.HttpStatus):
            self._effects["http_status"] += 1
            return _response(self._exchange.throttled(broken.status, broken.retry_after, now))
        answer = self._content.rest(_request(request, body), now)
        slow = self._active.get("slow_rest") if self._active else None
        if isinstance(slow, faults.SlowRest):
            self._effects["slow_rest"] += 1
            await asyncio.sleep(slow.after_s)
        if answer.violation:
            self._note_violation(0, answer.violation)
        if answer.remark:
            self._note_remark(0, answer.remark)
        return _response(answer)

    async def _on_socket(self, request: web.Request) -> web.StreamResponse:
        now = self._now()
        dialog = self._exchange.accept(_request(request), now)
        if isinstance(dialog, HttpAnswer):
            if dialog.violation:
                self._note_violation(0, dialog.violation)
            return _response(dialog)
        self._opened += 1
        connection = ClientConnection(self._opened, dialog, request, now)
        await connection.ws.prepare(request)
        self._connections[connection.number] = connection
        self._is_empty.clear()
        self._by_outbox[id(connection.outbox)] = connection
        log.info("simulated %s: connection %d opened", self._exchange.name, connection.number)
        try:
            self._apply(connection, dialog.on_open(now), now)
            await self._read(connection)
        finally:
            self._forget(connection)
        return connection.ws

    async def _read(self, connection: ClientConnection) -> None:
        """Hand what arrives to the dialog, until either side ends it."""
        dialog = connection.dialog
        while True:
            message = await connection.ws.receive()
            now = self._now()
            if connection.is_half_open:
                if message.type in _FRAMES:
                    continue
                while not connection.transport.is_closing():  # noqa: ASYNC110 - a transport has no event
                    await asyncio.sleep(HOUSEKEEPING_S)
                return
            if message.type not in _FRAMES:
                if isinstance(message.data, WebSocketError):
                    self._note_violation(connection.number, f"broken frame: {message.data}")
                connection.end_close(message.data if message.type is WSMsgType.CLOSE else None)
                return
            connection.received += 1
            if connection.is_closing:
                continue
            if message.type is WSMsgType.TEXT:
                self._apply(connection, dialog.on_text(message.data, now), now)
            elif message.type is WSMsgType.BINARY:
                self._apply(connection, dialog.on_text(message.data.decode(errors="replace"), now), now)
            elif message.type is WSMsgType.PING:
                self._apply(connection, dialog.on_ping(bytes(message.data), now), now)
            else:
                self._apply(connection, dialog.on_pong(bytes(message.data), now), now)

    def _forget(self, connection: ClientConnection) -> None:
        connection.is_closing = True
        self._unsubscribe_all(connection)
        self._connections.pop(connection.number, None)
        self._by_outbox.pop(id(connection.outbox), None)
        self._closed_sent += connection.sent
        self._closed.append(_texts_of(connection))
        if not self._connections:
            self._is_empty.set()
        log.info("simulated %s: connection %d gone", self._exchange.name, connection.number)

    def _apply(self, connection: ClientConnection, reply: Reply, now: Now) -> None:
        """Do what the dialog decided."""
        if reply.violation and reply.repeats not in connection.silent_topics | connection.kept_back_topics:
            self._note_violation(connection.number, reply.violation)
        if reply.remark:
            self._note_remark(connection.number, reply.remark)
        stall = self._active.get("stall") if self._active else None
        is_stalled = isinstance(stall, faults.Stall)
        if not is_stalled:
            for text in reply.texts:
                self._send_text(connection, text)
        if not is_stalled or (isinstance(stall, faults.Stall) and stall.answer_pings):
            if reply.ping is not None:
                connection.write(frames.frame(frames.PING, reply.ping))
            if reply.pong is not None:
                connection.write(frames.frame(frames.PONG, reply.pong))
        for topic in reply.unsubscribe:
            self._broadcast.remove(topic, connection.outbox)
        if reply.subscribe:
            self._subscribe(connection, reply.subscribe, now)
        if reply.close is not None:
            self._close(connection, reply.close)

    def _send_text(self, connection: ClientConnection, text: bytes) -> None:
        frame = frames.text(text)
        connection.note_texts(frame, 1)
        if self._active and self._active.get("fragment") is not None:
            connection.write_in_pieces(frames.fragmented(frame, self._random), self._random)
        else:
            connection.write(frame)

    def _subscribe(self, connection: ClientConnection, topics: list[str], now: Now) -> None:
        is_silent = bool(self._active) and self._active.get("ack_without_data") is not None
        snapshots: list[bytes] = []
        for topic in topics:
            stream = None if is_silent else self._broadcast.find(topic) or self._content.stream(topic)
            self._effects["ack_without_data"] += is_silent
            if stream is None:
                connection.silent_topics.add(topic)
                continue
            connection.silent_topics.discard(topic)
            fault = self._active.get("lose_topic", topic)
            if isinstance(fault, faults.LoseTopic) and fault.heals:
                self._active.remove("lose_topic", topic)
            self._apply_to(stream)
            variant = connection.dialog.variant
            snapshot = self._content.snapshot(stream, variant, now)
            if self._is_quiet() or stream.is_muted or stream.is_lost:
                connection.kept_back_topics.add(topic)
            elif snapshot is not None:
                snapshots.append(frames.text(snapshot))
            self._broadcast.add(stream, variant, connection.outbox, now.mono_ns)
        if snapshots:
            connection.sent += len(snapshots)
            whole = b"".join(snapshots)
            connection.note_texts(whole, len(snapshots))
            connection.write(whole)
        self._wake.set()

    def _unsubscribe_all(self, connection: ClientConnection) -> None:
        for topic in connection.dialog.topics:
            self._broadcast.remove(topic, connection.outbox)
        connection.outbox.frames.clear()

    def _close(self, connection: ClientConnection, close: Close) -> None:
        if connection.is_closing:
            return
        self._unsubscribe_all(connection)
        if close.code == 0:
            connection.abort()
        else:
            connection.begin_close(close.code, close.reason, time.monotonic_ns())

    def _close_all(self, close: Close, number: int | None) -> None:
        for connection in self._chosen(number):
            self._close(connection, close)

    def _chosen(
        self, number: int | None, path: str = "", *, is_private: bool = False
    ) -> list[ClientConnection]:
        """Pick one connection, all, or all that are private; none but those whose path begins so."""
        if number is None:
            return [
                each
                for each in self._connections.values()
                if (each.dialog.is_private or not is_private) and each.path.startswith(path)
            ]
        if number not in self._connections:
            numbers = ", ".join(map(str, self._connections)) or "none"
            raise FaultError(f"no connection {number}; open: {numbers}")
        return [self._connections[number]]

    # Faults.

    async def _on_fault(self, request: web.Request) -> web.Response:
        if request.method == "GET":
            return _json(fault_kinds())
        if request.method != "POST":
            return _json({"error": "POST a fault, or GET the list of them"}, status=405)
        try:
            fault = faults.parse(await request.read(), self._exchange.name)
            self._start_fault(fault)
        except FaultError as error:
            return _json({"error": str(error)}, status=400)
        log.warning("simulated %s: fault %s", self._exchange.name, fault)
        return _json({"ok": True, "faults": self._active.describe(time.monotonic_ns())})

    def _start_fault(self, fault: faults.Fault) -> None:
        """Carry out a fault. Raises FaultError if what it names does not exist here."""
        now = self._now()
        if self._recording is not None and isinstance(fault, faults.OF_A_MARKET):
            raise FaultError("this is a recording: nothing in it can be changed, but how it is sent")
        match fault:
            case faults.Clear():
                self._clear_faults()
            case faults.Rate():
                self._set_rate(fault.messages_per_s)
            case faults.CloseAll():
                close = Close(fault.code, fault.reason)
                for connection in self._chosen(fault.connection, fault.path, is_private=fault.private):
                    self._effects["close"] += 1
                    self._close(connection, close)
            case faults.Rst():
                for connection in self._chosen(fault.connection, fault.path, is_private=fault.private):
                    self._effects["rst"] += 1
                    connection.reset()
            case faults.HalfOpen():
                for connection in self._chosen(fault.connection, fault.path):
                    self._effects["half_open"] += 1
                    connection.is_half_open = True
            case faults.Garbage():
                for connection in self._chosen(fault.connection):
                    self._effects["garbage"] += fault.count
                    connection.write(
                        b"".join(faults.garbage(self._random, self._sample(connection, now), fault.count))
                    )
            case faults.Oversize():
                for connection in self._chosen(fault.connection):
                    self._effects["oversize"] += 1
                    connection.write_limit = WRITE_LIMIT + fault.size
                    connection.write(faults.oversized(fault.size))
            case faults.ExpiredToken():
                self._expire_tokens(fault, now)
            case faults.ServerShutdown():
                self._announce_shutdown(fault, now)
            case faults.EndSubscriptions():
                for connection in list(self._connections.values()):
                    self._apply(connection, self._exchange.end_subscriptions(connection.dialog, now), now)
            case faults.Deposit() | faults.Hold() | faults.Trade():
                self._change_account(fault, now)
            case faults.Duplicate():
                self._broadcast.tamper(fault.count, 0, self._topics_of(fault.symbol))
            case faults.Late():
                self._broadcast.tamper(fault.count, LATE_FRAMES, self._topics_of(fault.symbol))
            case faults.LoseMessages():
                self._subscribed(fault.topic).lost_messages = fault.count
            case faults.CrossBook():
                source = self._subscribed(fault.topic).source
                if not isinstance(source, ChangeSource | WindowSource):
                    raise FaultError(f"{fault.topic!r} has no deltas of a book")
                source.is_crossed_next = True
            case faults.RestartBooks():
                self._restart_books(self._topics_of(fault.symbol), now)
            case faults.Burst():
                self._burst(self._instrument(fault.symbol), fault.count, now)
            case _:
                if isinstance(fault, faults.OldBooks):
                    self._exchange.keep_books(now)
                if isinstance(fault, faults.MuteSymbol | faults.RejectSymbol | faults.Unlist):
                    self._check_symbol(fault.symbol)
                if isinstance(fault, faults.LoseTopic):
                    self._subscribed(fault.topic)
                self._active.add(fault, now.mono_ns)
                self._apply_lasting_faults()

    def _subscribed(self, topic: str) -> DataStream:
        stream = self._broadcast.find(topic)
        if stream is None:
            topics = ", ".join(self._broadcast.topics()[:3]) or "none"
            raise FaultError(f"nobody is subscribed to {topic!r}; channels are {topics} …")
        return stream

    def _restart_books(self, topics: set[str] | None, now: Now) -> None:
        dirty: list[Outbox] = []
        for stream in self._broadcast.streams():
            if (topics is None or stream.topic in topics) and self._exchange.restart_book(stream):
                self._effects["restart_books"] += 1
                if not (self._is_quiet() or stream.is_muted):
                    self._broadcast.send_now(stream, now, dirty)
        self._flush(dirty)

    def _burst(self, instrument: Instrument, count: int, now: Now) -> None:
        instrument.burst(count, now.unix_ns)
        self._effects["burst"] += count
        if not self._is_quiet():
            dirty: list[Outbox] = []
            self._broadcast.show(instrument, now, dirty)
            self._flush(dirty)

    def _set_rate(self, messages_per_s: float) -> None:
        if not isinstance(self._schedule, FixedRate):
            raise FaultError(
                "this market has no rate, as each symbol changes by itself; start it with sim.messages_per_s"
            )
        self._schedule.set_rate(messages_per_s)

    def _clear_faults(self) -> None:
        self._active.clear()
        self._broadcast.stop_tampering()
        for stream in self._broadcast.streams():
            stream.lost_messages = 0
        self._shutdown_mono_ns = 0
        self._apply_lasting_faults()

    def _apply_lasting_faults(self) -> None:
        for stream in self._broadcast.streams():
            self._apply_to(stream)
        for symbols, name in (
            (self._exchange.rejected_symbols, "reject_symbol"),
            (self._exchange.unlisted_symbols, "unlist"),
        ):
            symbols.clear()
            symbols.update(self._active.symbols(name))
        self._exchange.has_snapshots = self._active.get("no_snapshots") is None
        if self._active.get("old_books") is None:
            self._exchange.old_books.clear()
        refusal = self._active.get("refuse_key")
        self._exchange.private.key_refusal = refusal.kind if isinstance(refusal, faults.RefuseKey) else ""

    def _apply_to(self, stream: DataStream) -> None:
        stream.is_muted = self._content.symbols_of(stream) in self._active.symbols("mute_symbol")
        stream.is_lost = stream.topic in self._active.symbols("lose_topic")

    def _instrument(self, symbol: str) -> Instrument:
        self._check_symbol(symbol)
        instrument = self._exchange.find(symbol)
        assert instrument is not None, "only in a recording, whose market no command changes"
        return instrument

    def _check_symbol(self, symbol: str) -> None:
        if not self._exchange.knows(symbol):
            known = self._exchange.by_symbol
            plain = "".join(filter(str.isalnum, symbol))
            close = [name for name in known if "".join(filter(str.isalnum, name)) == plain]
            hint = f"did you mean {close[0]}" if close else f"they look like {next(iter(known))}"
            raise FaultError(f"{self._exchange.name} has no symbol {symbol!r} in its own spelling; {hint}")

    def _change_account(self, fault: faults.Deposit | faults.Hold | faults.Trade, now: Now) -> None:
        """Change what the account holds, and send that on the private streams unless it is not wanted."""
        try:
            update = self._changed_account(fault, now)
        except AccountError as error:
            raise FaultError(str(error)) from None
        for connection in list(self._connections.values()) if not fault.silent else ():
            if not connection.is_closing:
                self._apply(connection, connection.dialog.on_account(update, now), now)

    def _changed_account(self, fault: faults.Deposit | faults.Hold | faults.Trade, now: Now) -> Update:
        accounts = self._exchange.private.accounts
        account = next(iter(accounts.values()))
        if isinstance(fault, faults.Trade):
            instrument = self._instrument(fault.symbol)
            base, quote = instrument.listing.base, instrument.listing.quote
            price = Decimal(instrument.last).scaleb(-instrument.price_decimals)
            return account.trade(base, quote, fault.amount, price, now.unix_ns)
        if fault.wallet and fault.wallet not in accounts:
            raise FaultError(f"no wallet {fault.wallet!r} here; choose from: {', '.join(accounts)}")
        account = accounts.get(fault.wallet, account)
        change = account.transfer if isinstance(fault, faults.Deposit) else account.hold
        return change(fault.asset, fault.amount, now.unix_ns)

    def _topics_of(self, symbol: str) -> set[str] | None:
        if not symbol:
            return None
        streams = self._broadcast.streams()
        topics = {stream.topic for stream in streams if self._content.symbols_of(stream) == symbol}
        if not topics:
            raise FaultError(f"nobody is subscribed to {symbol!r}")
        return topics

    def _sample(self, connection: ClientConnection, now: Now) -> bytes:
        """Print a frame of something that this client has subscribed to."""
        for topic in connection.dialog.topics:
            stream = self._broadcast.find(topic)
            if stream is not None:
                return stream.encode(connection.dialog.variant, now)
        return b""

    def _expire_tokens(self, fault: faults.ExpiredToken, now: Now) -> None:
        self._exchange.expire_tokens(now)
        if fault.keep_open:
            return
        for connection in list(self._connections.values()):
            error = self._exchange.expired_token_error(connection.dialog)
            if error is not None:
                self._send_text(connection, error)
            self._effects["expired_token"] += 1
            self._close(connection, Close(1000, "Bye"))

    def _announce_shutdown(self, fault: faults.ServerShutdown, now: Now) -> None:
        for connection in self._connections.values():
            notice = self._exchange.shutdown_notice(connection.dialog, now)
            if notice is not None:
                self._effects["server_shutdown"] += 1
                self._send_text(connection, notice)
        self._shutdown_mono_ns = now.mono_ns + int(fault.seconds * NS_PER_S)
        self._shutdown_last = self._opened

    # State.

    def _note_violation(self, connection: int, text: str) -> None:
        self._violation_count += 1
        self._violations.append(_entry(connection, text))
        log.warning("simulated %s: connection %d: %s", self._exchange.name, connection, text)

    def _note_remark(self, connection: int, text: str) -> None:
        self._remark_count += 1
        self._remarks.append(_entry(connection, text))

    def state(self) -> dict[str, object]:
        """What `GET /_sim/state` answers. Connection 0 is an HTTP request.

        `fault_effects` counts how often a fault has shown: connections that it ended or cut, messages that it sent
        or split, requests that it refused, topics that it left silent, moments of a market that it kept back.
        Faults about one symbol or an account are not counted: they show in what is sent.
        `texts_sent` and `texts_crc` of a connection are of all text messages on it, acknowledgements too: how many,
        and the CRC-32 of them as whole frames, one after the other. Nonsense that a fault sends is none of them.
        """
        now = self._now()
        broadcast = self._broadcast
        return {
            "exchange": self._exchange.name,
            "ws_url": self.ws_url,
            "rest_url": self.rest_url,
            "uptime_s": round((now.mono_ns - self._started_mono_ns) / NS_PER_S, 3),
            "messages_per_s": self._schedule.messages_per_s
            if isinstance(self._schedule, FixedRate)
            else None,
            "instruments": len(self._exchange.instruments),
            "seed": self._settings.seed,
            "connections_opened": self._opened,
            "connections": [self._describe(each, now) for each in self._connections.values()],
            "connections_closed": list(self._closed),
            "topics": len(broadcast.topics()),
            "updates": broadcast.updates,
            "messages_sent": self._closed_sent + sum(each.sent for each in self._connections.values()),
            "late_ms": round(self._schedule.late_ns / NS_PER_MS, 3),
            "late_ms_max": round(self._schedule.late_ns_max / NS_PER_MS, 3),
            "updates_skipped": self._schedule.skipped,
            "slow_disconnects": self._slow,
            "violations_total": self._violation_count,
            "violations": list(self._violations),
            "remarks_total": self._remark_count,
            "remarks": list(self._remarks),
            "faults": self._active.describe(now.mono_ns),
            "fault_effects": self._effects | broadcast.effects,
            "accounts": {
                name: account.describe() for name, account in self._exchange.private.accounts.items()
            },
        }

    def _describe(self, connection: ClientConnection, now: Now) -> dict[str, object]:
        return _texts_of(connection) | {
            "remote": connection.remote,
            "path": connection.path,
            "is_private": connection.dialog.is_private,
            "is_half_open": connection.is_half_open,
            "age_s": round((now.mono_ns - connection.opened.mono_ns) / NS_PER_S, 3),
            "subscriptions": list(connection.dialog.topics),
            "silent": sorted(connection.silent_topics & connection.dialog.topics.keys()),
            "messages_sent": connection.sent,
            "bytes_sent": connection.sent_size,
            "messages_received": connection.received,
            "unread_bytes": connection.unread_size,
        }


def _texts_of(connection: ClientConnection) -> dict[str, object]:
    return {
        "connection": connection.number,
        "texts_sent": connection.texts,
        "texts_crc": connection.texts_crc,
    }


def _entry(connection: int, text: str) -> dict[str, object]:
    return {"time_ns": time.time_ns(), "connection": connection, "text": text}


async def _listen(runner: web.AppRunner, url: str) -> str:
    """Open a listener at the URL's host and port; returns the URL with the port that it got."""
    parts = urlsplit(url)
    host, port = parts.hostname or "127.0.0.1", parts.port or 0
    site = web.TCPSite(runner, host, port, backlog=1024, reuse_address=True)
    await site.start()
    bound = runner.addresses[-1][1]
    return parts._replace(netloc=f"[{host}]:{bound}" if ":" in host else f"{host}:{bound}").geturl()


def _request(request: web.Request, body: bytes = b"") -> HttpRequest:
    return HttpRequest(
        method=request.method,
        path=request.path,
        query=list(request.query.items()),
        raw_query=request.raw_path.partition("?")[2],
        headers=request.headers,
        body=body,
        remote=request.remote or "",
    )


def _shown_path(request: web.Request) -> str:
    """Print where a connection went, without the token that let it in."""
    url = request.rel_url
    return str(url.update_query(token="*") if "token" in url.query else url)


def _response(answer: HttpAnswer) -> web.Response:
    headers = {**answer.headers, "Content-Type": f"{answer.content_type}; charset=utf-8"}
    return web.Response(body=answer.body, status=answer.status, headers=headers)


def _json(value: object, status: int = 200) -> web.Response:
    return web.Response(
        body=json.dumps(value, ensure_ascii=False).encode(), status=status, content_type="application/json"
    )


def _refused(request: web.Request, refusal: faults.Refuse) -> web.Response:
    """Turn a request away; with `rst` the response never leaves, as its connection is gone."""
    if refusal.how == "rst" and request.transport is not None:
        _linger_0(request.transport)
        request.transport.abort()
    return web.Response(status=503, headers={"Retry-After": "1"})


def _linger_0(transport: asyncio.Transport) -> None:
    sock: socket.socket | None = transport.get_extra_info("socket")
    if sock is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
