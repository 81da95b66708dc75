"""A PUB that binds, for one subscriber at a time: what a feed offers to whoever records it.

Other than an `Outlet` it has no topics and no last values, and whoever sends keeps what there is no room for.
"""

import socket
from collections.abc import Callable, Iterable

from feedhandler.data.contracts import Called
from feedhandler.transport import private
from feedhandler.transport.endpoints import Handshakes, Listener
from feedhandler.transport.loop import TimedEvents
from feedhandler.transport.peer import Peer
from feedhandler.transport.subscribing import CANCEL, SUBSCRIBE
from feedhandler.transport.zmtp import REQUEST_SIZE_MAX


class Offer:
    """on_join is called when a subscriber has come: what is sent then is the first that it gets.

    A second subscriber is turned away as long as there is one. Raises ConfigError if an endpoint cannot be bound;
    key names it in messages.
    """

    def __init__(
        self,
        events: TimedEvents,
        endpoints: Iterable[str],
        on_join: Callable[[], object],
        *,
        key: str,
        queue_size_max: int,
        group: int = private.NOBODY,
    ) -> None:
        self._events = events
        self._on_join = on_join
        self._queue_size_max = queue_size_max
        self._peer: Peer | None = None
        self.is_joined = False
        self._handshakes = Handshakes(events)
        self._listener = Listener(events, endpoints, self._on_accept, key, group)
        self.look = self._listener.look

    def send(self, message: bytes | bytearray) -> bool:
        """Send one message; False: nobody is there, or too much waits for who is."""
        peer = self._peer
        if peer is None or not self.is_joined or peer.queued > self._queue_size_max:
            return False
        peer.put(message)
        peer.flush()
        return True

    def _on_accept(self, sock: socket.socket) -> None:
        if self._peer is not None and not self._peer.has_hung_up():
            sock.close()
            return
        if self._peer is not None:
            self._peer.close()
        peer = Peer(
            self._events,
            sock,
            b"XPUB",
            peer_types=(b"SUB", b"XSUB"),
            on_ready=lambda peer: None,
            sink=Called(self._on_request),
            on_closed=self._on_closed,
            message_size_max=REQUEST_SIZE_MAX,
        )
        if peer.is_open:  # it may have gone while it was greeted
            self._peer = peer
            self._handshakes.watch(peer)

    def _on_request(self, message: bytes) -> None:
        if not message:
            return
        if message[0] == SUBSCRIBE and not self.is_joined:
            self.is_joined = True
            self._on_join()
        elif message[0] == CANCEL and self.is_joined and self._peer is not None:
            # It leaves in order: it gets what is queued, and then the end, whenever it reads.
            self.is_joined = False
            self._peer.on_room = _close_if_empty
            _close_if_empty(self._peer)

    def _on_closed(self, peer: Peer) -> None:
        if peer is self._peer:
            self._peer = None
            self.is_joined = False

    def close(self, wait_s: float = 0.2) -> None:
        """Close everything, after a moment for what is queued."""
        self._listener.close()
        self._handshakes.close()
        if self._peer is not None:
            self._peer.close_gently(wait_s)


def _close_if_empty(peer: Peer) -> None:
    if not peer.queued:
        peer.close()
