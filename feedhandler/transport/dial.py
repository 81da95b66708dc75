"""Outgoing connections: addresses are raced, and a socket on its way into the event loop is never cancelled.

uvloop closes the descriptor of a socket that it was given when what waits for it is cancelled, or fails, and leaves
the number in the socket object. When that is collected the same number is closed again, and by then it is
somebody else's file. aiohttp and picows hand such sockets to the loop; both go through here.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

import aiohappyeyeballs
import aiohttp
from aiohttp.client_proto import ResponseHandler

NEXT_ADDRESS_S: Final = (
    0.25  # after so long without an answer the next address is tried as well: RFC 8305, section 5
)
TLS_HANDSHAKE_S: Final = (
    30.0  # also of a connection that nobody waits for any more; its socket is shut down, too
)

LISTENS_S: Final = 1.0

T = TypeVar("T")


async def dial(host: str, port: int, source_address: str = "") -> socket.socket:
    """Return a socket that is connected to the first of a host's addresses to answer.

    source_address is this host's to connect from, "" for any. Raises OSError. There is no limit of time here.
    """
    there, here = await resolve(host, port), None
    if source_address:
        here = await resolve(source_address, 0)
        families = {family for family, *_ in here}
        there = [info for info in there if info[0] in families]
        if not there:
            raise OSError(f"{host} has no address of the same family")
    return await aiohappyeyeballs.start_connection(
        there, local_addr_infos=here, happy_eyeballs_delay=NEXT_ADDRESS_S
    )


async def listens(url: str) -> bool:
    """Return whether anybody accepts connections at an address with a port, now."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(LISTENS_S):
            (await dial(parts.hostname or "", parts.port or 80)).close()
    except OSError:  # a timeout is one
        return False
    return True


async def resolve(host: str, port: int) -> list[aiohappyeyeballs.AddrInfoType]:
    """Return the addresses of a host, in the system's order. Raises OSError."""
    return list(await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM))


def address_of(sock: socket.socket) -> str:
    """Return where a connected socket leads, as address:port; "" if it is connected no more."""
    try:
        address, port = sock.getpeername()[:2]
    except OSError:
        return ""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


async def to_its_end(sock: socket.socket, opening: Coroutine[Any, Any, T], close: Callable[[T], object]) -> T:
    """Return what opening makes of a connected socket, which is its own from now on.

    If the caller is cancelled, opening is not: the socket is shut down, so that it fails soon, and what it
    returns all the same is closed.
    """
    task = asyncio.create_task(_hand_over(sock, opening))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)
        task.add_done_callback(lambda done: _close_late(done, close))
        raise


async def _hand_over(sock: socket.socket, opening: Coroutine[Any, Any, T]) -> T:
    identity = _identity(sock)
    try:
        return await opening
    except BaseException:  # also a cancellation: the loop's last act is to cancel everything
        if _identity(sock) != identity:  # closed behind the object's back
            sock.detach()
        raise


def _identity(sock: socket.socket) -> int | None:
    """Return which socket the object's number stands for, None if it is none."""
    try:
        return os.fstat(sock.fileno()).st_ino
    except OSError:
        return None


def _close_late(done: "asyncio.Task[T]", close: Callable[[T], object]) -> None:
    if not done.cancelled() and done.exception() is None:
        close(done.result())


assert hasattr(aiohttp.TCPConnector, "_wrap_create_connection"), "else the one below is never called"


class TcpConnector(aiohttp.TCPConnector):
    """aiohttp's, whose sockets reach the event loop whatever happens to the request; see `to_its_end`."""

    async def _wrap_create_connection(
        self,
        *args: Any,
        addr_infos: Sequence[aiohappyeyeballs.AddrInfoType],
        req: aiohttp.ClientRequest,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  # aiohttp's own signature
        client_error: type[Exception] = aiohttp.ClientConnectorError,
        **kwargs: Any,
    ) -> tuple[asyncio.Transport, ResponseHandler]:
        try:
            async with asyncio.timeout(timeout.sock_connect):
                sock = await aiohappyeyeballs.start_connection(
                    addr_infos, happy_eyeballs_delay=self._happy_eyeballs_delay, interleave=self._interleave
                )
        except OSError as exc:
            if exc.errno is None and isinstance(exc, TimeoutError):
                raise
            raise client_error(req.connection_key, exc) from exc
        if kwargs.get("ssl"):
            kwargs["ssl_handshake_timeout"] = TLS_HANDSHAKE_S
        opening = self._wrap_existing_connection(
            *args, req=req, timeout=aiohttp.ClientTimeout(), client_error=client_error, sock=sock, **kwargs
        )
        return await to_its_end(sock, opening, lambda opened: opened[0].abort())
