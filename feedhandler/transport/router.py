"""Requests and answers over ZeroMQ: a ROUTER that binds, for any number of REQ and DEALER sockets, and a DEALER.

Beside the tick path, and never on it: these sockets are plain Python, on any loop that `zmtp` works with.
Source: https://rfc.zeromq.org/spec/28/ (REQ, DEALER, ROUTER).
"""

import logging
import socket
import time
from collections.abc import Callable, Iterable
from typing import Final

from feedhandler.transport import endpoints, private
from feedhandler.transport.endpoints import Handshakes, Listener
from feedhandler.transport.loop import Events, TimedEvents
from feedhandler.transport.peer import Peer
from feedhandler.transport.queues import Queues
from feedhandler.transport.subscribing import Budget, Cancellable

log = logging.getLogger(__name__)

PEERS_MAX: Final = 1000
ANSWERS_SIZE_MAX: Final = 1 << 22  # that may wait for one that sends requests and does not read
ANSWER_SIZE_MAX: Final = 1 << 26  # as much as an instrument list may have
# What may be requested, in records: by one, and by all together. A tenth of a second's worth at once is nothing
# unusual after a reconnection, hence the burst.
RATE_EACH: Final = 20_000.0  # a second
RATE_ALL: Final = 50_000.0
# What is answered in one turn of the loop, in records: a second's worth at once would hold up everybody else.
TURN_COST: Final = 500
TURN_S: Final = 0.001


def _cannot_be_cut(peer: Peer) -> bool:
    return False  # an answer is whole, or of no use


class Router:
    """Binds; on_request gets each request and returns the frames of its answer, and what it cost.

    One that sends requests faster than its share is not read for a while: it waits, and no other does. Raises
    ConfigError if an endpoint cannot be bound; key names it in messages. `on_time` is to be called every
    fraction of a second.
    """

    def __init__(
        self,
        events: TimedEvents,
        endpoints: Iterable[str],
        on_request: Callable[[bytes], tuple[list[bytes], int]],
        *,
        key: str,
        request_size_max: int,
        queues: Queues | None = None,
        group: int = private.NOBODY,
    ) -> None:
        """queues are what this router shares with others."""
        self._queues = queues
        self._events = events
        self._on_request = on_request
        self._request_size_max = request_size_max
        self._peers: dict[Peer, Budget] = {}
        self._paused: dict[Peer, float] = {}  # until when
        self._turn_cost = 0  # of what was answered in this turn
        self._timer: Cancellable | None = None  # that begins the next one
        self._of_all = Budget(RATE_ALL, time.monotonic())
        self.requests = 0
        self.delays = 0  # how often somebody had to wait
        self.refused = 0  # connections
        self._handshakes = Handshakes(events)
        self._listener = Listener(events, endpoints, self._on_accept, key, group)

    def _on_accept(self, sock: socket.socket) -> None:
        if len(self._peers) >= PEERS_MAX and not self._handshakes.make_room():
            self.refused += 1
            sock.close()
            return
        peer = Peer(
            self._events,
            sock,
            b"ROUTER",
            peer_types=(b"REQ", b"DEALER", b"ROUTER"),
            on_ready=lambda peer: None,
            on_closed=self._on_closed,
            message_size_max=self._request_size_max,
            on_parts=self._on_parts,
        )
        if peer.is_open:  # it may have gone while it was greeted
            peer.queues = self._queues
            self._handshakes.watch(peer)
            now_s = time.monotonic()
            self._peers[peer] = Budget(RATE_EACH, now_s)
            self._wait(peer, self._of_all.spend(0.0, now_s), now_s)  # who comes anew waits with the others

    def _on_parts(self, peer: Peer, parts: list[bytes]) -> None:
        """Answer a request. Raises ValueError for one whose peer does not read its answers."""
        if peer.queued > ANSWERS_SIZE_MAX:
            raise ValueError("it sends requests and does not read the answers")
        self.requests += 1
        frames, cost = self._on_request(parts[-1])
        peer.put_parts([*parts[:-1], *frames])  # what precedes a request is where its answer goes
        budget = self._peers[peer]
        peer.flush()
        if self._queues is not None and peer.queued > peer.room:
            self._queues.grant(peer, _cannot_be_cut)
        now_s = time.monotonic()
        wait_s = max(budget.spend(cost, now_s), self._of_all.spend(cost, now_s))
        self._turn_cost += cost
        if self._timer is None:
            self._timer = self._events.call_later(TURN_S, self._begin_turn)
        if not peer.is_open:
            return  # it has gone while we answered
        self._wait(peer, wait_s, now_s)
        if self._turn_cost >= TURN_COST and peer not in self._paused:
            self._paused[peer] = now_s
            peer.pause()

    def _begin_turn(self) -> None:
        self._timer = None
        self._turn_cost = 0
        self.on_time()

    def _wait(self, peer: Peer, wait_s: float, now_s: float) -> None:
        if wait_s > 0:
            self.delays += 1
            self._paused[peer] = now_s + wait_s
            peer.pause()

    def _on_closed(self, peer: Peer) -> None:
        self._peers.pop(peer, None)
        self._paused.pop(peer, None)

    def on_time(self) -> None:
        """Go on reading from those that have waited."""
        now_s = time.monotonic()
        for peer in [peer for peer, until_s in self._paused.items() if until_s <= now_s]:
            del self._paused[peer]
            if peer.has_hung_up():
                peer.close()  # the answers to its further requests would not be received
            else:
                peer.resume()

    def look(self) -> None:
        """See that requests can still come, as `Listener.look` does."""
        self._listener.look()

    def close(self) -> None:
        """Close everything, after a moment for what is queued."""
        self._listener.close()
        self._handshakes.close()
        if self._timer is not None:
            self._timer.cancel()
        for peer in list(self._peers):
            peer.close_gently(0.1)


class Dealer:
    """A DEALER that connects, and again when the other side is gone, whenever `poll` is called.

    on_answer gets the frames of each answer; on_closed is called when a connection ended.
    """

    def __init__(
        self,
        events: Events,
        endpoint: str,
        on_answer: Callable[[list[bytes]], None],
        on_closed: Callable[[], None],
        *,
        is_patient: bool = False,
    ) -> None:
        """is_patient: as for `links.Downlink`."""
        self._events = events
        self._connector = endpoints.connector(events, endpoint, self._adopt, is_patient=is_patient)
        self._on_answer = on_answer
        self._on_closed = on_closed
        self._peer: Peer | None = None

    @property
    def is_ready(self) -> bool:
        """True if a request would be received."""
        return self._peer is not None and self._peer.is_ready

    def poll(self) -> bool:
        """Connect if there is no connection; True if there is one."""
        if self._peer is None:
            self._connector.poll()
        return self._peer is not None

    def _adopt(self, sock: socket.socket) -> None:
        peer = Peer(
            self._events,
            sock,
            b"DEALER",
            peer_types=(b"ROUTER", b"DEALER", b"REP"),
            on_ready=lambda peer: None,
            on_closed=self._forget,
            message_size_max=ANSWER_SIZE_MAX,
            on_parts=lambda peer, parts: self._on_answer(parts),
        )
        self._peer = peer if peer.is_open else None  # it may have gone while it was greeted

    def send(self, request: bytes) -> None:
        """Send a request, if there is a connection."""
        if self._peer is not None:
            self._peer.put(request)
            self._peer.flush()

    def _forget(self, peer: Peer) -> None:
        self._peer = None
        self._on_closed()

    def close(self) -> None:
        """Close the connection."""
        self._connector.close()
        if self._peer is not None:
            self._peer.close()
