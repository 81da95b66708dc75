"""Connections under CURVE: what leaves this host is encrypted, and both ends prove which key they have.

`ServerSecurity` is for endpoints that bind, `ClientSecurity` for those that connect; the sockets of `zmtp` and
`router` take either. Plain Python on any loop: the compiled tick path stays on the own host.
"""

import logging
import socket
import struct
import time
import weakref
from collections.abc import Callable
from typing import Any, Final, Protocol

from feedhandler.transport import curve, zmtp
from feedhandler.transport.curve import KeyPair
from feedhandler.transport.zmtp import Events, Peer

log = logging.getLogger(__name__)

STRANGERS_MAX: Final = 100  # connections at once that have not proven who they are
LOG_EVERY_S: Final = 60.0
# A host that is gone without a word is noticed within 10 s, whether or not we have something to send.
KEEPALIVE_IDLE_S: Final = 4
KEEPALIVE_EVERY_S: Final = 2
KEEPALIVE_COUNT: Final = 3
UNHEARD_MS_MAX: Final = 10_000  # of what was sent: one who lives acknowledges, also while he does not read
assert KEEPALIVE_IDLE_S + KEEPALIVE_COUNT * KEEPALIVE_EVERY_S <= UNHEARD_MS_MAX / 1000
# struct tcp_info of linux/tcp.h: packets that are not acknowledged, and when an acknowledgement last came, in ms.
TCP_INFO: Final = struct.Struct("=8x16xI28xI")
LOOK_EVERY_S: Final = 1.0


class Authorized(Protocol):
    """Those who may connect."""

    def has(self, public_key: bytes) -> bool: ...


class CurvePeer(Peer):
    """A connection whose messages are boxed; the handshake is `curve`'s."""

    def __init__(
        self,
        mechanism: curve.Server | curve.Client,
        on_failed: Callable[[str], None],
        events: Events,
        sock: socket.socket,
        socket_type: bytes,
        *,
        message_size_max: int,
        **settings: Any,
    ) -> None:
        self._mechanism = mechanism
        self._on_failed = on_failed
        self._reason = "the other side ended it"
        keep_alive(sock)
        super().__init__(
            events, sock, socket_type, message_size_max=message_size_max + curve.OVERHEAD, **settings
        )

    @property
    def sock(self) -> socket.socket:
        """The socket, to be looked at."""
        return self._sock

    @property
    def client_key(self) -> bytes:
        """What a client has proven to have; b"" before that."""
        return self._mechanism.client_key if isinstance(self._mechanism, curve.Server) else b""

    def _greeting(self) -> bytes:
        return zmtp.greeting_of(curve.MECHANISM, is_server=isinstance(self._mechanism, curve.Server))

    def _greet(self, greeting: bytes) -> None:
        zmtp.check_greeting(greeting, curve.MECHANISM)
        self._is_greeted = True
        self._put_handshake(self._mechanism.greet())

    def _put_handshake(self, commands: list[bytes]) -> None:
        for command in commands:
            self.queue += zmtp.frame_head(len(command), zmtp.COMMAND) + command
        self.flush()

    def _on_command(self, body: bytes) -> None:
        if self._mechanism.channel is not None:
            self._on_frame(0, memoryview(body))  # some send encrypted messages as commands
            return
        if body.startswith(curve.ERROR):
            raise ValueError(f"it refused us: {body[len(curve.ERROR) + 1 :].decode(errors='replace')}")
        # Who is not authorized is told nothing: at an ERROR libzmq's sockets give up for good, and a key may be
        # authorized in a minute.
        commands, metadata = self._mechanism.take(body)
        self._put_handshake(commands)
        if metadata is not None:
            zmtp.check_metadata(metadata, self._peer_types)
            self.is_ready = True
            self._on_ready(self)

    def _on_frame(self, flags: int, frame: memoryview) -> None:
        channel = self._mechanism.channel
        if channel is None:
            raise ValueError("it sent a message before it was ready")
        inner, message = channel.open(bytes(frame))
        if inner & curve.INNER_COMMAND:
            super()._on_command(message)
        else:
            super()._on_frame(zmtp.MORE if inner & curve.INNER_MORE else 0, memoryview(message))

    def close(self) -> None:
        """End the connection; what is queued is lost."""
        if self.is_open and not self.is_ready:
            self._on_failed(self._reason)
        super().close()

    def cut_off(self, reason: str) -> None:
        """End the connection, and say why, unless it is a stranger's."""
        if self.is_ready:
            super().cut_off(reason)
            return
        self._reason = reason  # whoever knocks ten times a second is not to fill a log
        self.close()

    def put(self, message: bytes | bytearray | memoryview) -> None:
        """Queue a message, boxed."""
        self._put_sealed(0, message)

    def put_parts(self, parts: list[bytes]) -> None:
        """Queue a message of several parts, each boxed."""
        for part in parts[:-1]:
            self._put_sealed(curve.INNER_MORE, part)
        self._put_sealed(0, parts[-1])

    def _put_command(self, command: bytes) -> None:
        self._put_sealed(curve.INNER_COMMAND, command)

    def _put_sealed(self, flags: int, message: bytes | bytearray | memoryview) -> None:
        channel = self._mechanism.channel
        assert channel is not None, "nothing is sent before the handshake is over"
        frame = channel.seal(flags, message)
        self.queue += zmtp.frame_head(len(frame))
        self.queue += frame


def keep_alive(sock: socket.socket) -> None:
    """Notice a host that is gone."""
    if sock.family == socket.AF_UNIX:
        return
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_IDLE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_EVERY_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_COUNT)


def is_gone(sock: socket.socket) -> bool:
    """Return whether the other host acknowledges nothing any more; the user timeout would not do.

    The kernel applies that to one who does not read as well, however well he lives.
    """
    if sock.family == socket.AF_UNIX:
        return False
    unacknowledged, since_ms = TCP_INFO.unpack(
        sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO.size)
    )
    return bool(unacknowledged) and since_ms > UNHEARD_MS_MAX


class Peers:
    """The connections of one security, as long as somebody has them."""

    def __init__(self) -> None:
        self._peers: weakref.WeakSet[CurvePeer] = weakref.WeakSet()
        self._looked_mono_s = -LOOK_EVERY_S

    def add(self, peer: CurvePeer) -> None:
        self._peers.add(peer)

    def open(self) -> list[CurvePeer]:
        return [peer for peer in self._peers if peer.is_open]

    def look(self) -> list[CurvePeer]:
        """Return the open ones, once a second, without those whose host is gone: these are closed."""
        now_s = time.monotonic()
        if now_s - self._looked_mono_s < LOOK_EVERY_S:
            return []
        self._looked_mono_s = now_s
        for peer in self.open():
            if is_gone(peer.sock):
                log.warning(
                    "a connection was ended: its host has not been heard for %d s", UNHEARD_MS_MAX // 1000
                )
                peer.close()
        return self.open()


class ClientSecurity:
    """For an endpoint that connects: our key pair, and the public key that the other side has to prove to have."""

    def __init__(self, keys: KeyPair, server_key: bytes) -> None:
        self._keys = keys
        self._server_key = server_key
        self._peers = Peers()
        self._logged_mono_s = -LOG_EVERY_S
        self.failures = 0

    def make_peer(self, events: Events, sock: socket.socket, socket_type: bytes, **settings: Any) -> Peer:
        """Return the connection over a socket that has connected."""
        mechanism = curve.Client(self._keys, self._server_key, zmtp.metadata_of(socket_type))
        peer = CurvePeer(mechanism, self._on_failed, events, sock, socket_type, **settings)
        self._peers.add(peer)
        return peer

    def on_time(self) -> None:
        """End connections to a host that is gone."""
        self._peers.look()

    def _on_failed(self, reason: str) -> None:
        self.failures += 1
        if (now_s := time.monotonic()) - self._logged_mono_s >= LOG_EVERY_S:
            self._logged_mono_s = now_s
            log.warning(
                "a secure connection ended in its handshake (%d so far), %s: is our key authorized there, and the"
                " server's key that we have the right one?",
                self.failures,
                reason,
            )


class ServerSecurity:
    """For an endpoint that binds: our key pair, and those who may connect.

    unauthorized counts connections that were refused for their key, failures all that ended in the handshake.
    `on_time` is to be called every second or more often; it looks once a second.
    """

    def __init__(self, keys: KeyPair, authorized: Authorized) -> None:
        self._keys = keys
        self._authorized = authorized
        self._peers = Peers()
        self._logged_mono_s = -LOG_EVERY_S
        self.unauthorized = 0
        self.failures = 0

    def make_peer(self, events: Events, sock: socket.socket, socket_type: bytes, **settings: Any) -> Peer:
        """Return the connection over a socket that was accepted."""
        mechanism = curve.Server(self._keys, self._is_authorized, zmtp.metadata_of(socket_type))
        strangers = [peer for peer in self._peers.open() if not peer.is_ready]
        if len(strangers) >= STRANGERS_MAX:
            min(strangers, key=lambda peer: peer.opened_mono_s).close()
        peer = CurvePeer(mechanism, self._on_failed, events, sock, socket_type, **settings)
        self._peers.add(peer)
        return peer

    def _on_failed(self, reason: str) -> None:
        self.failures += 1
        if (now_s := time.monotonic()) - self._logged_mono_s >= LOG_EVERY_S:
            self._logged_mono_s = now_s
            log.warning(
                "a connection ended in its handshake: %s (%d so far, %d of them not authorized)",
                reason,
                self.failures,
                self.unauthorized,
            )

    def _is_authorized(self, public_key: bytes) -> bool:
        is_authorized = self._authorized.has(public_key)
        self.unauthorized += not is_authorized
        return is_authorized

    def on_time(self) -> None:
        """End connections of those who may not connect any more."""
        for peer in self._peers.look():
            if peer.client_key and not self._authorized.has(peer.client_key):
                log.warning("a connection was ended: its key is not authorized any more")
                peer.close()
