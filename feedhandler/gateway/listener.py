"""Where browsers and programs connect: aiohttp's server, and what it leaves without a limit or lets pass.

Each connection has a limit for everything that its peer may be slow at. The limits are those of docs/operations.md.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any, Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

BACKLOG: Final = 128  # connections that wait to be accepted
LINE_SIZE_MAX: Final = 8190  # of a request, and of each of its headers
SHUTDOWN_S: Final = 2.0  # for requests under way; all in all the gateway is to end within 5 s
IDLE_S: Final = 30.0  # without a whole request, from the connection or the last answer on
BODY_S: Final = 10.0  # for the body of one
UNREAD_BODY_S: Final = 2.0  # for what is left of a body that nobody wants
UNREAD_ANSWER_S: Final = 30.0  # without a byte of an answer that is taken
HEAD_SIZE: Final = 2  # of a WebSocket's frame, before its length and mask
MASKED: Final = 0x80
NOT_MASKED: Final = b"\x88\x02\x03\xea"  # a frame that closes with 1002, a protocol error

log = logging.getLogger(__name__)


def _is_no_quote(record: logging.LogRecord) -> bool:
    """Return False for what aiohttp logs of a request that is no HTTP: it quotes headers, which may hold the token.

    Anybody can send such a request; it is answered with 400.
    """
    return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


log.addFilter(_is_no_quote)


class HttpListener:
    """Serves an application at one address until `close`."""

    def __init__(self, app: web.Application, *, idle_s: float = IDLE_S) -> None:
        self._settings: dict[str, Any] = {
            "access_log": None,
            "logger": log,
            "max_line_size": LINE_SIZE_MAX,
            "max_field_size": LINE_SIZE_MAX,
            "keepalive_timeout": idle_s,
            "lingering_time": UNREAD_BODY_S,
            # A body is unpacked when it comes, before anybody has looked at the token: 1 MB may become 1 GB.
            "auto_decompress": False,
        }
        self._runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=SHUTDOWN_S, **self._settings)
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port. Raises OSError if that is not possible."""
        await self._runner.setup()
        loop, manager = asyncio.get_running_loop(), self._runner.server
        assert manager is not None, "it was set up"
        self._server = await loop.create_server(
            lambda: HttpConnection(manager, loop=loop, **self._settings), host, port, backlog=BACKLOG
        )
        for sock in self._server.sockets:  # what they accept inherits it
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_ANSWER_S * 1000))
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Listen no more, and end what is under way."""
        if self._server is not None:
            self._server.close()
        await self._runner.cleanup()


class HttpConnection(web.RequestHandler):
    """One connection; once it is a WebSocket, its frames have to be masked (RFC 6455, 5.1)."""

    __slots__ = ()

    def set_parser(self, parser: Any, data_received_cb: Callable[[], None] | None = None) -> None:
        check: Any = MaskCheck(parser, self._refuse)
        super().set_parser(check, data_received_cb)

    def _refuse(self) -> None:
        if self.transport is not None:
            self.transport.write(NOT_MASKED)
            self.transport.close()


class MaskCheck:
    """Hands on what a browser sends to aiohttp's parser, up to a frame that is not masked."""

    def __init__(self, parser: Any, on_not_masked: Callable[[], None]) -> None:
        self._parser = parser
        self._on_not_masked = on_not_masked
        self._head = bytearray()
        self._left = 0  # bytes of the payload
        self._is_refused = False

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Take bytes, however frames are cut; returns what aiohttp's parser does."""
        if self._is_refused or not self._are_masked(data):
            return False, b""
        end: tuple[bool, bytes] = self._parser.feed_data(data)
        return end

    def feed_eof(self) -> None:
        self._parser.feed_eof()

    def _are_masked(self, data: bytes) -> bool:
        position = 0
        while position < len(data):
            if self._left:
                step = min(self._left, len(data) - position)
                self._left -= step
                position += step
                continue
            self._head.append(data[position])
            position += 1
            if len(self._head) == HEAD_SIZE and not self._head[1] & MASKED:
                self._is_refused = True
                self._on_not_masked()
                return False
            self._take_head()
        return True

    def _take_head(self) -> None:
        """Know how long the payload is, if the head is whole."""
        head = self._head
        if len(head) < HEAD_SIZE:
            return
        short = head[1] & ~MASKED
        length_size = {126: 2, 127: 8}.get(short, 0)
        if len(head) == HEAD_SIZE + length_size + 4:  # and its mask
            self._left = (
                int.from_bytes(head[HEAD_SIZE : HEAD_SIZE + length_size], "big") if length_size else short
            )
            head.clear()
