"""Addresses, and how connections come about: who connects, who listens, how long a handshake may take."""

import contextlib
import errno
import functools
import os
import socket
import struct
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from feedhandler.data.errors import ConfigError
from feedhandler.transport import private
from feedhandler.transport.loop import Events, TimedEvents
from feedhandler.transport.peer import Peer
from feedhandler.transport.private import IPC_PATH_SIZE_MAX
from feedhandler.transport.subscribing import Budget, Cancellable
from feedhandler.transport.zmtp import log

PEER: Final = struct.Struct("iII")  # struct ucred: pid, uid, gid of who listens, as of then
HANDSHAKE_S: Final = 10.0  # after which a connection that is no socket yet is closed; it takes milliseconds
CLOSED_PER_TURN: Final = 20  # of those: each is some system calls, and thousands may be due at once
GROUP_MAY_CONNECT: Final = 0o660  # to connect to a socket is to write to it
BACKLOG: Final = 128  # connections that wait to be accepted
# To accept takes some 100 us, and a peer that comes and goes in a loop would have it done for nothing: at most 5 %
# of a processor in the long run. A few thousand that come at once are accepted at once.
ACCEPTS_PER_S: Final = 500.0
ACCEPTS_BURST_S: Final = 6.0
CONNECT_TIMEOUT_S: Final = 0.5  # on loopback
CONNECT_EVERY_S: Final = 0.1
PATIENT_CONNECT_TIMEOUT_S: Final = 5.0


class Connector:
    """Connects to an endpoint of this host, whenever `poll` is called; on_connected gets the socket."""

    def __init__(self, endpoint: str, on_connected: Callable[[socket.socket], None]) -> None:
        self._endpoint = endpoint
        self._on_connected = on_connected
        self._next_mono_s = 0.0

    def poll(self) -> None:
        """Try at once, but not again and again: who accepts and hangs up would be asked without a pause."""
        now_s = time.monotonic()
        if now_s < self._next_mono_s:
            return
        self._next_mono_s = now_s + CONNECT_EVERY_S
        if (sock := connected(self._endpoint)) is not None:
            self._on_connected(sock)

    def close(self) -> None:
        """Nothing is under way."""


class PatientConnector(Connector):
    """The same without waiting for an answer, which one who hangs does not give."""

    def __init__(self, events: Events, endpoint: str, on_connected: Callable[[socket.socket], None]) -> None:
        super().__init__(endpoint, on_connected)
        self._events = events
        self._sock: socket.socket | None = None
        self._deadline_mono_s = 0.0

    def poll(self) -> None:
        """Begin to connect, or go on; a name is looked up first, which a host file or cache should answer."""
        if self._sock is not None:
            if time.monotonic() >= self._deadline_mono_s:
                self.close()
            return
        if time.monotonic() < self._next_mono_s:
            return
        self._next_mono_s = time.monotonic() + CONNECT_EVERY_S
        family, address = address_of(self._endpoint)
        self._sock = sock = _socket(family)
        if sock is None:
            return
        sock.setblocking(False)
        self._deadline_mono_s = time.monotonic() + PATIENT_CONNECT_TIMEOUT_S
        try:
            error = sock.connect_ex(address)
        except OSError:  # no such name
            error = errno.EHOSTUNREACH
        if error in (0, errno.EINPROGRESS):
            self._events.add_writer(sock.fileno(), self._on_writable)
        else:
            self._sock = None
            sock.close()

    def _on_writable(self) -> None:
        sock, self._sock = self._sock, None
        assert sock is not None, "called as long as there is one"
        self._events.remove_writer(sock.fileno())
        if sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            sock.close()
        else:
            self._on_connected(sock)

    def close(self) -> None:
        """Give up an attempt that is under way."""
        if self._sock is not None:
            self._events.remove_writer(self._sock.fileno())
            self._sock.close()
            self._sock = None


def connector(
    events: Events,
    endpoint: str,
    on_connected: Callable[[socket.socket], None],
    *,
    is_patient: bool = False,
) -> Connector:
    """Return what connects to an endpoint.

    An answer comes at once, unless who listens hangs and many have asked already: is_patient is for loops that
    must not wait even then.
    """
    return (
        PatientConnector(events, endpoint, on_connected) if is_patient else Connector(endpoint, on_connected)
    )


def _socket(family: int) -> socket.socket | None:
    """Return a new socket, None if there is no descriptor for it: some may be given back until the next try."""
    try:
        return socket.socket(family, socket.SOCK_STREAM)
    except OSError as exc:
        log.error("no connection can be made: %s (see `ulimit -n`)", exc.strerror)
        return None


def connected(endpoint: str) -> socket.socket | None:
    """Return a connection to an endpoint, None if nobody listens there."""
    family, address = address_of(endpoint)
    if (sock := _socket(family)) is None:
        return None
    sock.settimeout(CONNECT_TIMEOUT_S)
    try:
        sock.connect(address)
    except OSError:
        sock.close()
        return None
    return sock


class Listener:
    """Binds endpoints and accepts connections. Raises ConfigError, with the remedy; key is for its message.

    More connections than its budget has wait in the kernel until their turn has come. Who may connect to an ipc
    endpoint is this user, and group if there is one.
    """

    def __init__(
        self,
        events: TimedEvents,
        endpoints: Iterable[str],
        on_accept: Callable[[socket.socket], None],
        key: str,
        group: int = private.NOBODY,
    ) -> None:
        self._group = group
        self._key = key
        self._events = events
        self._on_accept = on_accept
        self._sockets: dict[str, socket.socket] = {}  # by endpoint
        self._accepts = Budget(ACCEPTS_PER_S, time.monotonic(), ACCEPTS_BURST_S)
        self._timers: dict[socket.socket, Cancellable] = {}  # of those that are not looked at for a while
        self._files: dict[str, tuple[Path, tuple[int, int]]] = {}  # those of sockets, as they were made
        self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        for endpoint in endpoints:
            self._bind(endpoint)

    def _bind(self, endpoint: str) -> None:
        family, address = address_of(endpoint)
        path = None
        if family == socket.AF_UNIX and isinstance(address, str) and not address.startswith("\0"):
            if is_ipc_in_use(endpoint):
                raise ConfigError(
                    f"{self._key}: {endpoint} is in use by another process; stop it, or configure another address"
                )
            path = _vacated(Path(address), endpoint, self._key)
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            if path is not None:
                # what bind makes of it: open to nobody else for no moment
                os.fchmod(sock.fileno(), private.FILE)
            _bind_patiently(sock, address)
            if path is not None:
                self._files[endpoint] = path, private.identity(path)
                if self._group != private.NOBODY:
                    private.let_in(path, GROUP_MAY_CONNECT, self._group)
                    private.let_pass(path.parent, self._group)
            sock.listen(BACKLOG)
        except OSError as exc:
            sock.close()
            raise ConfigError(
                f"{self._key}: cannot bind {endpoint}: {exc.strerror}; stop what holds it,"
                " or configure another address"
            ) from exc
        sock.setblocking(False)
        self._sockets[endpoint] = sock
        self._look_at(sock)

    def _look_at(self, sock: socket.socket) -> None:
        self._timers.pop(sock, None)
        self._events.add_reader(sock.fileno(), functools.partial(self._accept, sock))

    def look(self) -> None:
        """Bind anew where the file of a socket is gone: nobody could connect any more. To be called every second.

        Connections that there are stay. Raises ConfigError if it cannot be bound, or somebody else has done so.
        """
        for endpoint, (path, made) in list(self._files.items()):
            if private.identity(path) == made:
                continue
            log.warning("%s: the file of %s is gone; it is bound anew", self._key, endpoint)
            self._unbind(endpoint)
            self._bind(endpoint)

    def _unbind(self, endpoint: str) -> None:
        sock = self._sockets.pop(endpoint)
        if (timer := self._timers.pop(sock, None)) is not None:
            timer.cancel()
        else:
            self._events.remove_reader(sock.fileno())
        sock.close()

    def _accept(self, sock: socket.socket) -> None:
        if wait_s := self._accepts.spend(1.0, time.monotonic()):
            self._events.remove_reader(sock.fileno())
            self._timers[sock] = self._events.call_later(wait_s, functools.partial(self._look_at, sock))
        try:
            accepted, _ = sock.accept()
        except OSError as exc:
            if exc.errno in (errno.EMFILE, errno.ENFILE):
                self._turn_away(sock)
            return  # else it has gone already
        self._on_accept(accepted)

    def _turn_away(self, sock: socket.socket) -> None:
        """Accept with the descriptor kept for this, and hang up: what waits would wake us again and again."""
        log.error("no file descriptor is left: a connection was turned away (see `ulimit -n`)")
        os.close(self._spare)
        with contextlib.suppress(OSError):
            sock.accept()[0].close()
        with contextlib.suppress(OSError):
            self._spare = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def close(self) -> None:
        """Stop listening, and remove the socket files."""
        for endpoint in list(self._sockets):
            self._unbind(endpoint)
        with contextlib.suppress(OSError):
            os.close(self._spare)
        for path, made in self._files.values():
            if private.identity(path) == made:
                path.unlink(missing_ok=True)


def _vacated(path: Path, endpoint: str, key: str) -> Path:
    """Make room for a socket file: its directory, and no file left behind by a process that was killed."""
    try:
        private.make_folder(path.parent)
        if path.exists() and not path.is_socket():
            raise ConfigError(f"{key}: {endpoint} names a file that is no socket; configure another address")
        path.unlink(missing_ok=True)
    except OSError as exc:
        raise ConfigError(
            f"{key}: cannot bind {endpoint}: {exc.strerror}; configure another address"
        ) from exc
    return path


def _bind_patiently(sock: socket.socket, address: str | tuple[str, int]) -> None:
    """Bind within a second: a predecessor killed a moment ago may still hold the port. Raises OSError."""
    deadline = time.monotonic() + 1.0
    while True:
        try:
            sock.bind(address)
            return
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE or time.monotonic() >= deadline:
                raise
            time.sleep(0.05)


def is_half_open(peer: Peer) -> bool:
    """True for a connection that is no socket yet."""
    return peer.is_open and not peer.is_ready


class Handshakes:
    """The limit on handshakes at an endpoint: whoever connects and says nothing keeps no descriptor for longer."""

    def __init__(self, events: TimedEvents) -> None:
        self._events = events
        self._waiting: deque[Peer] = deque()  # the oldest first
        self._timer: Cancellable | None = None

    def watch(self, peer: Peer) -> None:
        """Close this connection if it is not ready in time."""
        self._forget_the_ready()
        self._waiting.append(peer)
        if self._timer is None:
            self._timer = self._events.call_later(HANDSHAKE_S, self._look)

    def _forget_the_ready(self) -> None:
        while self._waiting and not is_half_open(self._waiting[0]):
            self._waiting.popleft()

    def _look(self) -> None:
        """Close those whose time is over, some in each turn of the loop, and sleep until that of the next."""
        oldest_mono_s = time.monotonic() - HANDSHAKE_S
        self._timer = None
        for _ in range(CLOSED_PER_TURN):
            self._forget_the_ready()
            if not self._waiting:
                return
            if (left_s := self._waiting[0].opened_mono_s - oldest_mono_s) > 0:
                self._timer = self._events.call_later(left_s, self._look)
                return
            self._waiting.popleft().close()
        self._timer = self._events.call_later(0.0, self._look)

    def make_room(self) -> bool:
        """Close the oldest connection that is no socket yet; False if there is none."""
        self._forget_the_ready()
        if not self._waiting:
            return False
        self._waiting.popleft().close()
        return True

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def address_of(endpoint: str) -> tuple[int, str | tuple[str, int]]:
    """Return family and address of an `ipc://` or `tcp://` endpoint. Raises ValueError if it is neither."""
    scheme, _, place = endpoint.partition("://")
    if scheme == "ipc" and place and len(place.encode()) <= IPC_PATH_SIZE_MAX:
        return socket.AF_UNIX, "\0" + place[1:] if place.startswith("@") else place
    host, _, port = place.rpartition(":")
    if (
        scheme != "tcp"
        or not host.strip("*[]")
        or ":" in host
        or not port.isdigit()
        or not 0 < int(port) < 65536
    ):
        raise ValueError(f"{endpoint!r} is no endpoint")
    return socket.AF_INET, (host, int(port))


def is_ipc_in_use(endpoint: str) -> bool:
    """True if a process listens at an ipc address; a file left behind by a killed one does not count."""
    return listener_of(endpoint) is not None


def listener_of(endpoint: str) -> int | None:
    """Return the pid of who listens at an ipc address, 0 if it is not to be seen from here; None if nobody does."""
    family, address = address_of(endpoint)
    if family != socket.AF_UNIX:
        return None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        if probe.connect_ex(address):
            return None
        pid, _, _ = PEER.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
        return int(pid)
