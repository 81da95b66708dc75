"""One connection to an exchange, a WebSocket or one for each path: the shell around `Session`.

It owns the sockets, the clock and the timer, and decides nothing: it reports to the session and does what
the session's steps order. picows' core API calls us for each frame, inside the event loop's read callback.
"""

import asyncio
import contextlib
import errno
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any
from urllib.parse import urlsplit

import picows

from feedhandler.data.errors import DecodeError, ProtocolError, one_line
from feedhandler.data.refusal import first_words
from feedhandler.data.status import Phase
from feedhandler.data.units import NS_PER_S
from feedhandler.exchanges.base import Endpoint, Market
from feedhandler.feed.session import Actions, Session
from feedhandler.feed.signs import SocketSigns
from feedhandler.feed.tap import OnFrame, Tap, TappedConnection
from feedhandler.transport.dial import TLS_HANDSHAKE_S, address_of, dial, to_its_end
from feedhandler.transport.http import HttpClient, refusal, retry_after_s
from feedhandler.transport.tasks import Failures

FRAME_SIZE_MAX = 1 << 20  # the largest frame that an exchange documents is a few kilobytes
READ_BUFFER_SIZE = 1 << 16  # about 300 frames; one read of a burst is one message to the merger
CLOSE_TIMEOUT_S = 1.0
PLACE = "the WebSocket"  # of a failure; one for all, since their number grows
HANDSHAKE_TIMEOUT_S = 30.0

# Codes with which we close, other than 1000, and why.
OUR_REASONS = {
    1002: "the exchange broke the WebSocket protocol",
    1007: "the exchange sent text that is none",
    1009: "the exchange sent more than a message may have",
    1011: "a frame could not be taken",
}

log = logging.getLogger(__name__)

TEXT, BINARY, CONTINUATION = picows.WSMsgType.TEXT, picows.WSMsgType.BINARY, picows.WSMsgType.CONTINUATION
PING, CLOSE = picows.WSMsgType.PING, picows.WSMsgType.CLOSE


class Socket(picows.WSListener):
    """One attempt's socket, on one path: passes picows' calls to the connection, until that lets go of it."""

    def __init__(
        self,
        connection: "Connection",
        signs: SocketSigns,
        on_frame: OnFrame,
        url: str,
        tapped: TappedConnection | None,
    ) -> None:
        self.signs = signs
        self.url = url  # of the present attempt
        self.address = ""  # of the exchange, once it is connected to
        self.transport: picows.WSTransport | None = None  # once it is open
        self.is_closing = False  # by us
        self.tapped = tapped  # as it is recorded
        self._connection = connection
        self._on_frame = on_frame
        self._on_ping = signs.on_ping
        self._wake = connection.wake
        self._fragments = bytearray()
        self._complaint = ""  # why we close: picows may have read on, and met a close frame, before we say so

    def let_go(self) -> None:
        """Pass on nothing more, not even what is read already."""
        self._on_frame, self._on_ping = _discard, _ignore

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self._connection.on_connected(self, transport)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        self._connection.on_disconnected(self, self._complaint or _close_reason(transport))

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        # hot: `make bench`. With picows answering pings itself, a ping at the end of a read would hide
        # `last_in_buffer` from us, and the read's records would wait for the next one.
        recv_ns = time.time_ns()
        kind = frame.msg_type
        if (kind is TEXT or kind is BINARY) and frame.fin:
            if self._on_frame(frame.get_payload_as_memoryview(), recv_ns):
                self._wake()
        else:
            self._on_rare_frame(transport, frame, kind, recv_ns)
        if frame.last_in_buffer:
            self._connection.flush()

    def _on_rare_frame(
        self, transport: picows.WSTransport, frame: picows.WSFrame, kind: picows.WSMsgType, recv_ns: int
    ) -> None:
        if kind in (TEXT, BINARY, CONTINUATION):
            self._on_fragment(frame, recv_ns)
            return
        self._on_ping()
        if kind is PING:
            transport.send_pong(frame.get_payload_as_bytes())
        elif kind is CLOSE:
            transport.send_close(frame.get_close_code() or picows.WSCloseCode.OK)  # 0: it gave none
            transport.disconnect()

    def _on_fragment(self, frame: picows.WSFrame, recv_ns: int) -> None:
        if len(self._fragments) + frame.payload_size > FRAME_SIZE_MAX:
            code, text = (
                picows.WSCloseCode.MESSAGE_TOO_BIG,
                f"message in fragments exceeds {FRAME_SIZE_MAX} bytes",
            )
            self._complaint = _closed_by_us(code.value, text)
            raise picows.WSProtocolError(code, text)
        self._fragments += frame.get_payload_as_memoryview()
        if frame.fin:
            message, self._fragments = self._fragments, bytearray()
            if self._on_frame(message, recv_ns):
                self._wake()


class Connection:
    """Runs one session: connects, passes frames, sends, closes, until `stop`.

    flush is called at the end of each socket read, so that what one read brought leaves as one message.
    source_address is this host's address to connect from, "" for any; failures are counted with those given, and
    what is received and sent goes to tap as well.
    """

    def __init__(
        self,
        label: str,
        session: Session,
        market: Market,
        http: HttpClient,
        ws_url: str,
        flush: Callable[[], None],
        source_address: str = "",
        failures: Failures | None = None,
        tap: Tap | None = None,
    ) -> None:
        self.session = session
        self.flush = flush
        self._label = label
        self._market = market
        self._http = http
        self._ws_url = ws_url  # as configured
        self._source_address = source_address
        self._failures = failures or Failures()
        self._tap = tap
        self._sockets: list[Socket] = []  # of the present attempt, one on each path; others are let go
        self._connecting: asyncio.Task[None] | None = None
        self._ending: set[asyncio.Task[Any]] = set()  # of sockets: each has one that waits for its end
        self._fault: BaseException | None = None  # of ours, in a callback of picows'
        self._woken = asyncio.Event()
        self.wake = self._woken.set
        self._is_stopping = False
        self._close_reason = ""  # ours, if it was we who closed

    # --- the sockets call these

    def on_connected(self, socket: Socket, transport: picows.WSTransport) -> None:
        """A WebSocket is open; too late, if its attempt was given up."""
        if socket not in self._sockets:
            socket.let_go()
            transport.disconnect(graceful=False)
            return
        socket.transport = transport
        if socket.tapped is not None:
            socket.tapped.on_opened(socket.url)
        self._await(_end(transport))
        if not self._is_open:
            return
        if self.session.connects > 1:
            log.info("%s: leg %d is connected again", self._label, self.session.leg)
        self.session.on_open(time.monotonic_ns())
        self.wake()

    def on_disconnected(self, socket: Socket, reason: str) -> None:
        """An open WebSocket has ended, and the connection with it."""
        if socket not in self._sockets:
            return
        reason = self._close_reason or (f"{reason}, on {path}" if (path := socket.signs.path) else reason)
        if self.session.phase is Phase.CONNECTING:  # others are not open yet
            self._cut(reason)
            return
        if not self._is_stopping:
            log.warning("%s: leg %d: %s", self._label, self.session.leg, reason)
        self._let_go(reason)
        self.session.on_closed(time.monotonic_ns(), reason)
        self.flush()
        self.wake()

    @property
    def _is_open(self) -> bool:
        return bool(self._sockets) and all(socket.transport is not None for socket in self._sockets)

    @property
    def address(self) -> str:
        """Where the sockets are connected to, as long as they are."""
        return ", ".join(dict.fromkeys(socket.address for socket in self._sockets if socket.address))

    def _await(self, end: Coroutine[Any, Any, None]) -> None:
        """Wait for the end of a socket; what is raised besides is for `run`."""
        task = asyncio.create_task(self._failures.attempt(PLACE, lambda: end))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        task.add_done_callback(self._on_end)

    def _let_go(self, reason: str) -> None:
        """Have done with the sockets of the present attempt: close those that are open."""
        sockets, self._sockets = self._sockets, []
        for socket in sockets:
            socket.let_go()
            if socket.tapped is not None:
                socket.tapped.on_closed(reason)
            transport = socket.transport
            if transport is not None and not socket.is_closing and not transport.is_disconnected:
                self._await(self._hang_up(socket, transport))

    # --- the feed calls these

    async def run(self) -> None:
        """Keep the connection up until `stop`; begun again after a failure, with new sockets."""
        if self._sockets:
            self._cut("its last failure")
        while not self._is_stopping:
            if self._fault is not None:
                raise self._fault
            step = self.session.advance(time.monotonic_ns())
            self.flush()
            if step.connect:
                self._connecting = asyncio.create_task(self._connect())
                self._connecting.add_done_callback(self._on_end)
            if (step.ping or step.send) and self._is_open:
                self._send(self._sockets[step.socket], step)
            if step.close:
                await self._close(step.close)
                continue
            await self._sleep_until(self.session.deadline_mono_ns)

    def _send(self, socket: Socket, step: Actions) -> None:
        assert socket.transport is not None, "the caller has looked"
        if step.ping:
            socket.transport.send_ping()
        for message in step.send:
            socket.transport.send(TEXT, message)
            if socket.tapped is not None:
                socket.tapped.on_sent(message)

    def _cut(self, reason: str) -> None:
        """Let go of the sockets as they are."""
        self._close_reason = reason
        if self.session.phase is Phase.CONNECTING:
            if self._connecting is not None:
                self._connecting.cancel()
            self._failed(reason)
        else:
            for socket in self._sockets:
                if socket.transport is not None:
                    socket.is_closing = True
                    socket.transport.disconnect(graceful=False)
            if self._sockets:
                self.on_disconnected(self._sockets[0], reason)

    async def stop(self) -> None:
        """Close with a proper close frame, within `CLOSE_TIMEOUT_S`; what still comes is nobody's."""
        self._is_stopping = True
        for socket in self._sockets:
            socket.let_go()
        self.wake()
        await self._close("stopping")

    async def _sleep_until(self, deadline_mono_ns: int) -> None:
        # At least one turn of the event loop, so that a late loop still reads its sockets.
        delay_s = max(0.001, (deadline_mono_ns - time.monotonic_ns()) / NS_PER_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay_s):
                await self._woken.wait()
        self._woken.clear()

    async def _connect(self) -> None:
        """Shake hands and open the sockets, one after the other; any failure goes to the session."""
        takers: dict[str, OnFrame] = {signs.path: signs.on_frame for signs in self.session.sockets}
        tapped: Mapping[str, TappedConnection] = {}
        if self._tap is not None:
            tapped = self._tap.connections(self._market.name, takers)
            takers |= {path: each.on_frame for path, each in tapped.items()}
        self._sockets = sockets = [
            Socket(self, signs, takers[signs.path], self._ws_url + signs.path, tapped.get(signs.path))
            for signs in self.session.sockets
        ]
        self._close_reason = ""
        try:
            for socket in sockets:
                if socket in self._sockets:  # else one before it has failed
                    await self._connect_socket(socket)
        finally:
            self.wake()

    async def _connect_socket(self, socket: Socket) -> None:
        try:
            with self._failures.converted(PLACE, OSError, ValueError, picows.WSError):
                endpoint = await self._handshake(socket.url)
                socket.url = endpoint.url
                socket.signs.on_endpoint(endpoint)
                transport = await self._open(endpoint.url, socket)
        except picows.WSHandshakeError as exc:
            text, wait_s = _refusal(exc)
            self._failed(f"WebSocket handshake refused by {_host(socket.url)}: {text}", wait_s)
        except (DecodeError, ProtocolError) as exc:
            self._failed(str(exc), exc.retry_after_s)
        except (OSError, ValueError, picows.WSError) as exc:
            self._failed(
                f"cannot connect to {_host(socket.url)}{self._whence(exc)}: {exc or type(exc).__name__}"
            )
        else:
            if transport.is_disconnected:
                self._failed("connection closed during the WebSocket handshake")

    async def _open(self, url: str, socket: Socket) -> picows.WSTransport:
        """Return the open WebSocket. A cancellation leaves none behind."""
        parts = urlsplit(url)
        is_secure = parts.scheme == "wss"
        tcp = await dial(parts.hostname or "", parts.port or (443 if is_secure else 80), self._source_address)
        opening = picows.ws_connect(
            lambda: socket,
            url,
            # The session watches the time; this makes picows let go of a socket that we gave up on.
            websocket_handshake_timeout=HANDSHAKE_TIMEOUT_S,
            enable_auto_pong=False,  # see on_ws_frame
            use_aiofastnet=is_secure,  # for each kind what costs less: docs/design.md
            max_frame_size=FRAME_SIZE_MAX,
            read_buffer_init_size=READ_BUFFER_SIZE,
            logger_name=self._label,
            socket_factory=lambda _: tcp,
            max_redirects=0,  # past our budget of connections, and to whom?
            ssl_handshake_timeout=TLS_HANDSHAKE_S if is_secure else None,
        )
        socket.address = address_of(tcp)
        transport, _ = await to_its_end(tcp, opening, lambda opened: opened[0].disconnect(graceful=False))
        return transport

    def _whence(self, exc: Exception) -> str:
        """Return the source address for a message, and whether it is to blame."""
        if not self._source_address:
            return ""
        is_foreign = isinstance(exc, OSError) and exc.errno == errno.EADDRNOTAVAIL
        return f" from {self._source_address}" + (
            ", which is no address of this machine" if is_foreign else ""
        )

    def _failed(self, reason: str, retry_after_s: float = 0.0) -> None:
        reason = one_line(reason)
        if self.session.phase is Phase.CONNECTING:
            self._let_go(reason)
            attempts = self.session.attempts
            if (
                not self._is_stopping and attempts & (attempts - 1) == 0
            ):  # the first, second, fourth, … in a row
                log.warning("%s: leg %d, attempt %d: %s", self._label, self.session.leg, attempts, reason)
            self.session.on_closed(time.monotonic_ns(), reason, retry_after_s)

    async def _handshake(self, ws_url: str) -> Endpoint:
        request = self._market.handshake_request
        body = b"" if request is None else await self._http.fetch(request)
        return self._market.endpoint(ws_url, body, connect_id=f"{time.time_ns():x}")

    def _on_end(self, task: "asyncio.Task[Any]") -> None:
        """A task of ours is over: what it raised is for `run`."""
        if not task.cancelled() and (exc := task.exception()) is not None:
            self._fault = exc
            self.wake()

    async def _close(self, reason: str) -> None:
        if self._connecting is not None and not self._connecting.done():
            self._connecting.cancel()
            await asyncio.wait([self._connecting], timeout=CLOSE_TIMEOUT_S)
        self._close_reason = reason
        if self.session.phase is Phase.CONNECTING or not self._is_open:
            self._failed(reason)
        else:
            open_ = [(socket, socket.transport) for socket in self._sockets if socket.transport is not None]
            await asyncio.gather(*(self._hang_up(socket, transport) for socket, transport in open_))
        if self._is_stopping and self._ending:
            await asyncio.wait(self._ending, timeout=CLOSE_TIMEOUT_S)

    async def _hang_up(self, socket: Socket, transport: picows.WSTransport) -> None:
        """Close an open WebSocket with a close frame, and cut it off if the other side does not read it."""
        socket.is_closing = True
        transport.send_close(picows.WSCloseCode.OK)
        transport.disconnect()
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await transport.wait_disconnected()
        except TimeoutError:
            transport.disconnect(graceful=False)  # the peer does not read: cut it off
            with contextlib.suppress(Exception):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await transport.wait_disconnected()
        except (OSError, picows.WSError) as exc:
            log.debug("%s: while closing: %s", self._label, exc)


async def _end(transport: picows.WSTransport) -> None:
    """Wait for the end, and take the failure that picows leaves there: the session has its reason already."""
    try:
        await transport.wait_disconnected()
    except (OSError, picows.WSError) as exc:
        log.debug("connection ended: %s", exc)


def _discard(payload: memoryview | bytearray, recv_ns: int) -> bool:
    return False


def _ignore() -> None:
    pass


def _close_reason(transport: picows.WSTransport) -> str:
    """Return in words who ended a connection, and why."""
    handshake = transport.close_handshake
    if handshake is None:
        return "connection lost without a close frame"
    # Whoever is first closes; what comes then is the answer.
    if (info := handshake.recv) is not None and (handshake.recv_then_sent or handshake.sent is None):
        code = f"code {int(info.code.value)}" if info.code else "without a code"
        return f"closed by the exchange, {code}" + (f" {info.reason!r}" if info.reason else "")
    if (info := handshake.sent) is None:
        return "connection lost without a close frame"
    return _closed_by_us(info.code.value, info.reason)


def _closed_by_us(code: int, reason: str) -> str:
    if why := OUR_REASONS.get(code):
        return f"closed by us, since {why}: {reason or 'no more is known'} (code {code})"
    return f"closed by us, code {code}"


def _host(url: str) -> str:
    """Return the part of an address that may be shown: a token may follow."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _refusal(exc: picows.WSHandshakeError) -> tuple[str, float]:
    """Return what is known of a refused upgrade, and for how long not to try again, in s."""
    if exc.response is None:
        return first_words(str(exc)), 0.0
    status, headers = int(exc.response.status), exc.response.headers
    if status == 101:  # an upgrade, and not a right one
        return first_words(str(exc)), 0.0
    text, wait_s = refusal(status, exc.raw_body or b"", headers.get("Location", ""))
    return text, retry_after_s(headers, status) or wait_s
