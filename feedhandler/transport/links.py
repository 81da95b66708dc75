"""The sockets with one other side, or one kind of it: Inlet, Uplink, Downlink. What they have to do is `peer`'s.

Compiled where there is a compiler, with the types of `links.pxd`.
"""

import socket
from collections.abc import Callable, Iterable

from feedhandler.data.contracts import Called, Sink, sink_of
from feedhandler.transport.endpoints import Connector, Handshakes, Listener, connector
from feedhandler.transport.loop import Events, TimedEvents
from feedhandler.transport.outlet import Outlet
from feedhandler.transport.peer import Peer, shrink_receive_buffer
from feedhandler.transport.subscribing import CANCEL, SUBSCRIBE
from feedhandler.transport.zmtp import HOP_MESSAGE_SIZE_MAX, REQUEST_SIZE_MAX


class Inlet(Sink):
    """A SUB that binds and subscribes to everything; sink gets each message.

    outlets are flushed after the messages of one read. Raises ConfigError if the endpoint cannot be bound; key
    names it in messages.
    """

    def __init__(
        self,
        events: TimedEvents,
        endpoint: str,
        sink: Sink | Callable[[bytes], object],
        *,
        key: str,
        outlets: Iterable[Outlet] = (),
    ) -> None:
        self._events = events
        self._sink = sink_of(sink)
        self._outlets = tuple(outlets)
        self._peers: set[Peer] = set()
        self._handshakes = Handshakes(events)
        self._listener = Listener(events, [endpoint], self._on_accept, key)

    def _on_accept(self, sock: socket.socket) -> None:
        peer = Peer(
            self._events,
            sock,
            b"SUB",
            peer_types=(b"PUB", b"XPUB"),
            on_ready=subscribe_to_everything,
            sink=self,
            on_closed=self._peers.discard,
            message_size_max=HOP_MESSAGE_SIZE_MAX,
        )
        if peer.is_open:  # it may have gone while it was greeted
            self._peers.add(peer)
            self._handshakes.watch(peer)

    def take(self, data: bytes) -> None:
        """Hand on a message."""
        self._sink.take(data)

    def flush(self) -> None:
        """Have what was sent because of it leave."""
        for outlet in self._outlets:
            outlet.flush()

    def look(self) -> None:
        """See that publishers can still come, as `Listener.look` does."""
        self._listener.look()

    def close(self) -> None:
        """Close everything."""
        self._listener.close()
        self._handshakes.close()
        for peer in list(self._peers):
            peer.close()


def subscribe_to_everything(peer: Peer) -> None:
    peer.put(bytes((SUBSCRIBE,)))
    peer.flush()


class Uplink:
    """A PUB that connects to the one SUB that binds there, and again when it is gone, whenever `poll` is called.

    on_join is called each time that a subscriber joined: what it sends is the first that comes there. Nothing is
    queued while there is no subscriber: `send` then does nothing. A subscriber that does not read costs messages
    beyond queue_size_max, never time; `take_loss` tells when there is room again.
    """

    def __init__(
        self,
        events: Events,
        endpoint: str,
        on_join: Callable[[], object],
        *,
        queue_size_max: int,
    ) -> None:
        self._events = events
        self._connector = Connector(endpoint, self._adopt)
        self._on_join = on_join
        self._queue_size_max = queue_size_max
        self._peer: Peer | None = None
        self._is_subscribed = False

    def poll(self) -> None:
        """Connect if there is no connection."""
        if self._peer is None:
            self._connector.poll()

    def take_loss(self) -> bool:
        """Return, once, that messages were dropped, when there is room again for what they said."""
        peer = self._peer
        if peer is None or not peer.dropped or peer.queued > self._queue_size_max // 2:
            return False
        peer.dropped = 0
        return True

    def send(self, message: bytes | bytearray) -> None:
        """Send one message, if a subscriber is there and reads."""
        # hot: `make bench`
        peer = self._peer
        if peer is None or not self._is_subscribed:
            return
        if peer.is_blocked and peer.queued > self._queue_size_max:
            peer.dropped += 1
            return
        peer.put(message)
        peer.flush()

    def _adopt(self, sock: socket.socket) -> None:
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
        self._peer = peer if peer.is_open else None  # it may have gone while it was greeted

    def _on_request(self, message: bytes) -> None:
        if message and message[0] == SUBSCRIBE and not self._is_subscribed:
            self._is_subscribed = True
            self._on_join()

    def _on_closed(self, peer: Peer) -> None:
        self._peer = None
        self._is_subscribed = False

    def close(self, wait_s: float = 0.2) -> None:
        """Close the connection, after a moment for what is queued."""
        self._connector.close()
        if self._peer is not None:
            self._peer.close_gently(wait_s)


class Downlink:
    """A SUB that connects, and again when the publisher is gone, whenever `poll` is called.

    sink gets each message that starts with one of the prefixes. is_conflated: what
    is not the newest any more is not to lie in the kernel for long. is_patient: connecting must not make the loop
    wait.
    """

    def __init__(
        self,
        events: Events,
        endpoint: str,
        prefixes: Iterable[bytes],
        sink: Sink | Callable[[bytes], object],
        *,
        is_conflated: bool = False,
        is_patient: bool = False,
    ) -> None:
        self._is_conflated = is_conflated
        self._events = events
        self._connector = connector(events, endpoint, self._adopt, is_patient=is_patient)
        self._prefixes = list(prefixes)
        self._sink = sink_of(sink)
        self._peer: Peer | None = None
        self.ends = 0  # of connections: what was sent meanwhile was missed

    @property
    def is_connected(self) -> bool:
        """True while there is a connection."""
        return self._peer is not None

    def poll(self) -> bool:
        """Connect if there is no connection; True if there is one."""
        if self._peer is None:
            self._connector.poll()
        return self._peer is not None

    def _adopt(self, sock: socket.socket) -> None:
        peer = Peer(
            self._events,
            sock,
            b"SUB",
            peer_types=(b"PUB", b"XPUB"),
            on_ready=self._subscribe,
            sink=self._sink,
            on_closed=self._on_closed,
            message_size_max=HOP_MESSAGE_SIZE_MAX,
        )
        if self._is_conflated:
            shrink_receive_buffer(sock)
        self._peer = peer if peer.is_open else None  # it may have gone while it was greeted

    def _subscribe(self, peer: Peer) -> None:
        for prefix in self._prefixes:
            peer.put(bytes((SUBSCRIBE,)) + prefix)
        peer.flush()

    def pause(self) -> None:
        """Read nothing more for now: what the publisher sends waits there."""
        if self._peer is not None:
            self._peer.pause()

    def resume(self) -> None:
        """Read on."""
        if self._peer is not None:
            self._peer.resume()

    def leave(self) -> None:
        """Want nothing more. What is under way still comes; an `Offer` then ends the connection."""
        if self._peer is not None:
            for prefix in self._prefixes:
                self._peer.put(bytes((CANCEL,)) + prefix)
            self._peer.flush()

    def _on_closed(self, peer: Peer) -> None:
        self._peer = None
        self.ends += 1

    def close(self) -> None:
        """Close the connection."""
        self._connector.close()
        if self._peer is not None:
            self._peer.close()
