"""Connections that leave this host: libzmq's sockets, under CURVE, as libzmq has it.

Here are those that connect: a subscriber's and a feed's. Those that bind are the relay's. libzmq reads, writes and
encrypts in a thread of its own; ours takes what has come whenever its loop calls.
Source: http://api.zeromq.org/4-3:zmq-setsockopt, http://api.zeromq.org/4-3:zmq-curve.
"""

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import zmq
from zmq.utils.monitor import parse_monitor_message

from feedhandler.data.contracts import Sink, sink_of
from feedhandler.transport.keys import KeyPair
from feedhandler.transport.loop import Events
from feedhandler.transport.zmtp import HOP_MESSAGE_SIZE_MAX, REQUEST_SIZE_MAX

READS_MAX: Final = 500  # messages in a turn of the loop; the rest in the next one
QUEUE_MAX: Final = 100_000  # records or answers that wait for one that does not read: some 25 MB
HOP_QUEUE_MAX: Final = 10_000  # messages from a feed, each of them some records
ANSWER_SIZE_MAX: Final = 1 << 26  # as `router` has it
RECONNECT_MS: Final = 100
RECONNECT_MS_MAX: Final = 1000  # whoever is refused does not knock ten times a second
HANDSHAKE_MS: Final = 5_000  # also what one whose key is refused waits until it tries again
# A host that is gone without a word is noticed within 10 s, whether or not we have something to send.
HEARTBEAT_MS: Final = 3_000
HEARTBEAT_TIMEOUT_MS: Final = 6_000
CLOSE_MS: Final = 200  # for what is queued, at the end
LOG_EVERY_S: Final = 60.0
SUBSCRIBE: Final = b"\x01"

FAILED: Final = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
CONNECTED: Final = zmq.EVENT_HANDSHAKE_SUCCEEDED
ENDED: Final = zmq.EVENT_DISCONNECTED

log = logging.getLogger(__name__)


def set_options(sock: zmq.Socket[bytes], *, message_size_max: int) -> None:
    """Set what all sockets have, whether they bind or connect."""
    sock.set(zmq.LINGER, 0)
    sock.set(zmq.MAXMSGSIZE, message_size_max)
    sock.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    sock.set(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
    sock.set(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TIMEOUT_MS)


class Reader:
    """Hands on what a libzmq socket receives, in a loop of ours.

    libzmq's descriptor is readable when something has changed, not as long as something is there, and sending may
    take that sign away: `wake` is to be called after it. on_parts gets each message.
    """

    def __init__(
        self, events: Events, sock: zmq.Socket[bytes], on_parts: Callable[[list[bytes]], None]
    ) -> None:
        self._events = events
        self._sock = sock
        self._on_parts = on_parts
        self._is_paused = False
        self._fd = sock.fileno()
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        for fd in (self._fd, self._wake_fd):
            events.add_reader(fd, self._read)
        self.wake()

    def wake(self) -> None:
        """Look for messages in the next turn of the loop."""
        os.eventfd_write(self._wake_fd, 1)

    def pause(self) -> None:
        """Take nothing more, from this message on."""
        self._is_paused = True

    def resume(self) -> None:
        """Go on where `pause` left off."""
        self._is_paused = False
        self.wake()

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(self._wake_fd)
        for _ in range(READS_MAX):
            if self._is_paused or self._sock.closed:
                return
            try:
                parts = self._sock.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._on_parts(parts)
        self.wake()

    def close(self) -> None:
        """Stop reading, and close the socket."""
        for fd in (self._fd, self._wake_fd):
            self._events.remove_reader(fd)
        os.close(self._wake_fd)
        self._sock.close()


class Connecting:
    """A socket that connects under CURVE, and again when the other side is gone; libzmq does that by itself.

    keys are our own, server_key is what the other side has to prove to have. The first `poll` makes the socket:
    before that there may be no loop.
    """

    def __init__(self, events: Events, endpoint: str, keys: KeyPair, server_key: bytes) -> None:
        self._events = events
        self._endpoint = endpoint
        self._keys = keys
        self._server_key = server_key
        self._reader: Reader | None = None
        self._monitor: Reader | None = None
        self._sock: zmq.Socket[bytes] | None = None
        self._failures = 0
        self._logged_mono_s = -LOG_EVERY_S
        self.is_connected = False
        self.ends = 0  # of connections

    def _open(self, kind: int, message_size_max: int, options: Mapping[int, int]) -> zmq.Socket[bytes]:
        """Make the socket, and have it connect."""
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        sock = context.socket(kind)
        set_options(sock, message_size_max=message_size_max)
        sock.set(zmq.CURVE_PUBLICKEY, self._keys.public)
        sock.set(zmq.CURVE_SECRETKEY, self._keys.secret)
        sock.set(zmq.CURVE_SERVERKEY, self._server_key)
        sock.set(zmq.RECONNECT_IVL, RECONNECT_MS)
        sock.set(zmq.RECONNECT_IVL_MAX, RECONNECT_MS_MAX)
        for option, value in options.items():
            sock.set(option, value)
        self._monitor = Reader(
            self._events, sock.get_monitor_socket(CONNECTED | ENDED | FAILED), self._on_event
        )
        self._reader = Reader(self._events, sock, self._on_parts)
        sock.connect(self._endpoint)
        self._sock = sock
        return sock

    def _on_event(self, parts: list[bytes]) -> None:
        event = parse_monitor_message(parts)["event"]
        if event & FAILED:
            self._on_failed()
        elif event == CONNECTED:
            self.is_connected = True
        elif self.is_connected:
            self.is_connected = False
            self.ends += 1
            self._on_disconnected()

    def _on_failed(self) -> None:
        self._failures += 1
        if (now_s := time.monotonic()) - self._logged_mono_s >= LOG_EVERY_S:
            self._logged_mono_s = now_s
            log.warning(
                "%s: a secure connection ended in its handshake (%d so far): is our key authorized there, and the"
                " server's key that we have the right one?",
                self._endpoint,
                self._failures,
            )

    def _on_disconnected(self) -> None:
        """Nothing is to be done about it."""

    def _on_parts(self, parts: list[bytes]) -> None:
        raise NotImplementedError

    def close(self, wait_s: float = 0.0) -> None:
        """Close the connection, after a moment for what is queued."""
        if self._sock is None:
            return
        assert self._monitor is not None
        assert self._reader is not None
        self._sock.set(zmq.LINGER, int(wait_s * 1000))
        self._sock.disable_monitor()
        self._monitor.close()
        self._reader.close()
        self._sock, self.is_connected = None, False


class Downlink(Connecting):
    """A SUB with prefixes; sink gets each message. It looks like `links.Downlink`."""

    def __init__(
        self,
        events: Events,
        endpoint: str,
        prefixes: Iterable[bytes],
        sink: Sink | Callable[[bytes], object],
        keys: KeyPair,
        server_key: bytes,
    ) -> None:
        super().__init__(events, endpoint, keys, server_key)
        self._prefixes = list(prefixes)
        self._sink = sink_of(sink)

    def poll(self) -> bool:
        """Connect, the first time; True if there is a connection."""
        if self._sock is None:
            sock = self._open(zmq.SUB, HOP_MESSAGE_SIZE_MAX, {zmq.RCVHWM: QUEUE_MAX})
            for prefix in self._prefixes:
                sock.subscribe(prefix)
        return self.is_connected

    def _on_parts(self, parts: list[bytes]) -> None:
        self._sink.take(parts[0])


class Dealer(Connecting):
    """A DEALER; on_answer gets the frames of each answer, on_closed is called when a connection ended."""

    def __init__(
        self,
        events: Events,
        endpoint: str,
        on_answer: Callable[[list[bytes]], None],
        on_closed: Callable[[], None],
        keys: KeyPair,
        server_key: bytes,
    ) -> None:
        super().__init__(events, endpoint, keys, server_key)
        self._on_answer = on_answer
        self._on_closed = on_closed

    @property
    def is_ready(self) -> bool:
        """True if a request would be received."""
        return self.is_connected

    def poll(self) -> bool:
        """Connect, the first time; True if there is a connection."""
        if self._sock is None:
            self._open(zmq.DEALER, ANSWER_SIZE_MAX, {zmq.IMMEDIATE: 1})
        return self.is_connected

    def send(self, request: bytes) -> None:
        """Send a request, if there is a connection."""
        if self._sock is not None and self._reader is not None:
            with contextlib.suppress(zmq.Again):
                self._sock.send(request, zmq.NOBLOCK)
            self._reader.wake()

    def _on_parts(self, parts: list[bytes]) -> None:
        self._on_answer(parts)

    def _on_disconnected(self) -> None:
        self._on_closed()


class Uplink(Connecting):
    """A feed's PUB to the relay of another host, for the merger there. It looks like `links.Uplink`.

    The relay subscribes when its merger is there, and again for each new one.
    """

    def __init__(
        self, events: Events, endpoint: str, on_join: Callable[[], object], keys: KeyPair, server_key: bytes
    ) -> None:
        super().__init__(events, endpoint, keys, server_key)
        self._on_join = on_join
        self._is_subscribed = False
        self._dropped = 0

    def poll(self) -> None:
        """Connect, the first time."""
        if self._sock is None:
            # Nothing is queued while there is no connection; a relay that hangs costs messages, which are counted.
            self._open(
                zmq.XPUB,
                REQUEST_SIZE_MAX,
                {zmq.IMMEDIATE: 1, zmq.XPUB_VERBOSE: 1, zmq.XPUB_NODROP: 1, zmq.SNDHWM: HOP_QUEUE_MAX},
            )
        elif self._reader is not None:
            self._reader.wake()

    def send(self, message: bytes | bytearray) -> None:
        """Send one message, if a merger is there and reads."""
        if not self._is_subscribed or self._sock is None:
            return
        try:
            self._sock.send(message, zmq.NOBLOCK)
        except zmq.Again:
            self._dropped += 1

    def take_loss(self) -> bool:
        """Return, once, that messages were dropped, when there is room again for what they had."""
        if not self._dropped or self._sock is None or not self._sock.poll(0, zmq.POLLOUT):
            return False
        self._dropped = 0
        return True

    def _on_parts(self, parts: list[bytes]) -> None:
        is_subscribed = parts[0][:1] == SUBSCRIBE
        self._is_subscribed = is_subscribed
        if is_subscribed:
            self._on_join()

    def _on_disconnected(self) -> None:
        self._is_subscribed = False

    def close(self, wait_s: float = CLOSE_MS / 1000) -> None:
        super().close(wait_s)
