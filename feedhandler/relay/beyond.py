"""What the relay has for other hosts: libzmq's sockets, under CURVE, for subscribers, their questions, and feeds.

libzmq encrypts in a thread of this process, and a subscriber on a slow line fills a queue here: nobody else
notices. An XPUB sends the same to all, so there are no modes, and last values that one subscriber is to get go to
all that subscribe to those topics; whoever has seen them knows them by their numbers.
"""

import contextlib
import itertools
import logging
import socket
import time
from collections.abc import Callable
from typing import Final

import zmq
from zmq.utils.monitor import parse_monitor_message

from feedhandler.data import retransmission, wire
from feedhandler.data.errors import ConfigError
from feedhandler.data.kinds import BY_CODE
from feedhandler.data.layout import Retention
from feedhandler.data.topics import Topics
from feedhandler.runtime.curve import server_keys
from feedhandler.runtime.settings import Config
from feedhandler.transport import zmtp
from feedhandler.transport.keys import Clients, KeyPair
from feedhandler.transport.links import Uplink
from feedhandler.transport.loop import Events, Loop, TimedEvents
from feedhandler.transport.remote import FAILED, HOP_QUEUE_MAX, QUEUE_MAX, SUBSCRIBE, Reader, set_options
from feedhandler.transport.router import RATE_EACH, TURN_COST, TURN_S
from feedhandler.transport.subscribing import Budget

ZAP_ENDPOINT: Final = "inproc://zeromq.zap.01"  # where libzmq asks
ZAP_VERSION: Final = b"1.0"
ZAP_DOMAIN: Final = b"feedhandler"
AUTHORIZED: Final = b"200"
# "Temporary": the connection ends in silence, and its socket tries again. At 400, which pyzmq's own authenticator
# answers, libzmq's sockets give up for good, and a key may be authorized in a minute.
NOT_AUTHORIZED: Final = b"300"
# Last values for new subscriptions, a second: what one that joins and leaves in a loop costs the others.
REPLAY_RATE: Final = 5000.0
ASKED_MAX: Final = 10_000  # new subscriptions in a turn; of more, everything is repeated
ANSWERS_MAX: Final = 12  # that wait for one who asks and does not read, of up to 336 kB
LOOK_EVERY_S: Final = 1.0
PATIENCE_S: Final = 5.0  # with an address that was ours: libzmq takes a moment to give it back
TRAFFIC: Final = zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | FAILED
SOCKETS: Final[dict[str, tuple[int, int, dict[int, int]]]] = {  # kind, largest message, options of its own
    "relay.remote_ticks": (zmq.XPUB, zmtp.REQUEST_SIZE_MAX, {zmq.XPUB_VERBOSE: 1, zmq.SNDHWM: QUEUE_MAX}),
    "relay.remote_recover": (zmq.ROUTER, retransmission.REQUEST_SIZE_MAX, {zmq.SNDHWM: ANSWERS_MAX}),
    "relay.remote_feeds": (zmq.SUB, zmtp.HOP_MESSAGE_SIZE_MAX, {zmq.RCVHWM: HOP_QUEUE_MAX}),
}

Context = zmq.Context[zmq.Socket[bytes]]

log = logging.getLogger(__name__)
log.addFilter(zmtp.NotAgain())


class Authenticator:
    """Tells libzmq whose key may connect; libzmq asks for each connection once, after its handshake.

    Source: https://rfc.zeromq.org/spec/27/ (ZAP).
    """

    def __init__(self, events: Events, context: Context, clients: Clients) -> None:
        self._clients = clients
        self._sock = context.socket(zmq.ROUTER)
        self._sock.set(zmq.LINGER, 0)
        self._sock.bind(ZAP_ENDPOINT)
        self._reader = Reader(events, self._sock, self._on_request)

    def _on_request(self, parts: list[bytes]) -> None:
        asker, empty, _, number, _, address, _, mechanism, *credentials = parts
        is_authorized = mechanism == b"CURVE" and len(credentials) == 1 and self._clients.has(credentials[0])
        if not is_authorized:
            log.warning(
                "%s: its key is not authorized (`feedhandler keys authorize FILE`)",
                address.decode(errors="replace"),
            )
        status = AUTHORIZED if is_authorized else NOT_AUTHORIZED
        self._sock.send_multipart([asker, empty, ZAP_VERSION, number, status, b"", b"", b""], zmq.NOBLOCK)

    def close(self) -> None:
        """Answer no more."""
        self._reader.close()


class Binding:
    """A socket that binds under CURVE, and can be closed and opened again; key is that of its endpoints.

    failures counts connections that ended in their handshake.
    """

    def __init__(
        self, events: Events, context: Context, keys: KeyPair, key: str, endpoints: tuple[str, ...]
    ) -> None:
        self._events = events
        self._context = context
        self._keys = keys
        self._key = key
        self._endpoints = endpoints
        self._connections: set[int] = set()
        self._monitor: Reader | None = None
        self.reader: Reader | None = None
        self.sock: zmq.Socket[bytes] | None = None
        self.failures = 0

    def open(self, on_parts: Callable[[list[bytes]], None]) -> None:
        """Let others come, if there are endpoints; on_parts gets what they send.

        Raises ConfigError if one cannot be bound.
        """
        if not self._endpoints:
            return
        kind, message_size_max, options = SOCKETS[self._key]
        sock = self._context.socket(kind)
        set_options(sock, message_size_max=message_size_max)
        sock.set(zmq.CURVE_SERVER, 1)
        sock.set(zmq.CURVE_SECRETKEY, self._keys.secret)
        sock.set(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
        sock.set(zmq.ZAP_ENFORCE_DOMAIN, 1)  # while nobody answers, nobody comes in
        for option, value in options.items():
            sock.set(option, value)
        monitor = sock.get_monitor_socket(TRAFFIC)
        for endpoint in self._endpoints:
            try:
                sock.bind(_numeric(endpoint))
            except (OSError, zmq.ZMQError) as exc:
                sock.disable_monitor()
                monitor.close()
                sock.close()
                raise ConfigError(
                    f"{self._key}: cannot bind {endpoint}: {exc.strerror}; stop what holds it, or configure another"
                    " address"
                ) from exc
        self._monitor = Reader(self._events, monitor, self._on_event)
        self.reader = Reader(self._events, sock, on_parts)
        self.sock = sock

    @property
    def connections(self) -> int:
        """How many there are, those in their handshake too."""
        return len(self._connections)

    def _on_event(self, parts: list[bytes]) -> None:
        event = parse_monitor_message(parts)
        if event["event"] == zmq.EVENT_ACCEPTED:
            self._connections.add(event["value"])
        elif event["event"] == zmq.EVENT_DISCONNECTED:
            self._connections.discard(event["value"])
        else:
            self.failures += 1
            log.warning(
                "%s: a connection ended in its handshake: it has no key, one that is not authorized, or another"
                " server's",
                self._key,
            )

    def close(self) -> None:
        """End all connections."""
        if self.sock is None or self.reader is None or self._monitor is None:
            return
        self.sock.disable_monitor()
        self._monitor.close()
        self.reader.close()
        self._connections.clear()
        self.sock = self.reader = self._monitor = None


def _numeric(endpoint: str) -> str:
    """Return an endpoint as libzmq binds it: without a name. Raises OSError for one that nobody knows."""
    _, _, place = endpoint.partition("://")
    host, _, port = place.rpartition(":")
    return f"tcp://{socket.gethostbyname(host)}:{port}"


class MergerStream:
    """The merger's stream, message for message, and the last values of what is newly subscribed to.

    Last values are what was sent here last, of kinds that have one. What the merger has written may be newer than
    what a subscriber has, and would look like a gap to it.
    """

    def __init__(self, binding: Binding) -> None:
        self._binding = binding
        self._last: dict[bytes, bytes] = {}  # by topic, padded
        self._topics = Topics()
        self._asked: set[bytes] = set()  # prefixes of new subscriptions
        self.joins = 0  # how many of those there have been
        self._due: dict[bytes, None] = {}  # topics whose last value is to be sent
        self._budget = Budget(REPLAY_RATE, time.monotonic())
        self._next_mono_s = 0.0

    def open(self) -> None:
        """Let subscribers come."""
        self._binding.open(self._on_parts)

    def send(self, message: bytes) -> None:
        """Pass on one record or document. A subscriber that does not read loses what does not fit its queue."""
        topic = message[: wire.TOPIC_SIZE]
        if topic not in self._last:
            self._topics.add(topic)
        kind = BY_CODE.get(message[wire.KIND_OFFSET])
        # Of a kind that keeps every record nothing is repeated, and its condition is over.
        self._last[topic] = message if kind is not None and kind.retention is Retention.LATEST else b""
        if self._binding.sock is not None:
            self._binding.sock.send(message, zmq.NOBLOCK)

    def forget(self) -> None:
        """The merger has gone, and what it said is over."""
        self._last.clear()
        self._topics.clear()
        self._due.clear()

    def _on_parts(self, parts: list[bytes]) -> None:
        request = parts[0]
        if request[:1] == SUBSCRIBE:
            self.joins += 1
            self._asked.add(request[1:] if len(self._asked) < ASKED_MAX else b"")

    def on_time(self, now_s: float) -> None:
        """Send what new subscriptions are to get, some in each turn."""
        for prefix in self._asked:
            self._due.update(dict.fromkeys(self._topics.under(prefix)))
        self._asked.clear()
        if not self._due or now_s < self._next_mono_s or self._binding.sock is None:
            return
        topics = list(itertools.islice(self._due, TURN_COST))
        for topic in topics:
            del self._due[topic]
            if message := self._last[topic]:
                self._binding.sock.send(retransmission.replayed(message), zmq.NOBLOCK)
        self._next_mono_s = now_s + self._budget.spend(len(topics), now_s)

    def wait_s(self, now_s: float, most_s: float) -> float:
        """Return how long until `on_time` has something to do."""
        return min(most_s, max(0.0, self._next_mono_s - now_s)) if self._due else most_s


class Answers:
    """Answers requests, as `router.Router` does. One budget for all: who asks too much has the others wait."""

    def __init__(
        self,
        events: TimedEvents,
        binding: Binding,
        on_request: Callable[[bytes], tuple[list[bytes], int]],
    ) -> None:
        self._events = events
        self._binding = binding
        self._on_request = on_request
        self._budget = Budget(RATE_EACH, time.monotonic())
        self._turn_cost = 0
        self.requests = 0
        self.delays = 0

    def open(self) -> None:
        """Let requests come."""
        self._binding.open(self._on_parts)

    def _on_parts(self, parts: list[bytes]) -> None:
        assert self._binding.sock is not None
        assert self._binding.reader is not None
        self.requests += 1
        frames, cost = self._on_request(parts[-1])
        if frames:
            with contextlib.suppress(zmq.ZMQError):  # it has gone while we answered
                self._binding.sock.send_multipart([*parts[:-1], *frames], zmq.NOBLOCK)
        wait_s = self._budget.spend(cost, time.monotonic())
        self._turn_cost += cost
        if wait_s > 0 or self._turn_cost >= TURN_COST:
            self.delays += wait_s > 0
            self._binding.reader.pause()
            self._events.call_later(max(wait_s, TURN_S), self._resume)

    def _resume(self) -> None:
        self._turn_cost = 0
        if self._binding.reader is not None:
            self._binding.reader.resume()


class Feeds:
    """Passes on to the merger what feeds of other hosts send, as if they were here."""

    def __init__(self, loop: Loop, binding: Binding, merger: str) -> None:
        self._binding = binding
        self._has_merger = False
        self._uplink = Uplink(loop, merger, self._on_merger, queue_size_max=zmtp.QUEUE_SIZE_MAX)

    def open(self) -> None:
        """Let feeds come."""
        self._binding.open(lambda parts: self._uplink.send(parts[0]))
        if self._has_merger:
            self._subscribe()

    def on_time(self) -> None:
        """Connect to the merger, if it was away."""
        self._uplink.poll()
        if self._uplink.take_loss():
            self._subscribe()

    def _on_merger(self) -> None:
        self._has_merger = True
        self._subscribe()

    def _subscribe(self) -> None:
        """Have all feeds repeat what they know."""
        if self._binding.sock is not None and self._binding.reader is not None:
            self._binding.sock.unsubscribe(b"")
            self._binding.sock.subscribe(b"")
            self._binding.reader.wake()

    def close(self) -> None:
        """Close the hop."""
        self._uplink.close()


class Beyond:
    """All that other hosts connect to. `on_time` is to be called in each turn of the loop.

    on_request is as `router.Router` has it. When a key is withdrawn all connections end, since libzmq cannot end
    a single one: those of keys that remain come back by themselves. Raises ConfigError, at the start alone.
    """

    def __init__(
        self, loop: Loop, config: Config, on_request: Callable[[bytes], tuple[list[bytes], int]]
    ) -> None:
        relay = config.relay
        keys, self._clients = server_keys(config)
        self._withdrawn = self._clients.withdrawn
        self._looked_mono_s = time.monotonic()
        self._closed_mono_s = 0.0
        self._context: Context = zmq.Context()
        self._authenticator = Authenticator(loop, self._context, self._clients)
        self._ticks, self._recover, self._hop = (
            Binding(loop, self._context, keys, key, endpoints)
            for key, endpoints in zip(
                SOCKETS, (relay.remote_ticks, relay.remote_recover, relay.remote_feeds), strict=True
            )
        )
        self.stream = MergerStream(self._ticks)
        self.answers = Answers(loop, self._recover, on_request)
        self._feeds = Feeds(loop, self._hop, config.merger.feeds) if relay.remote_feeds else None
        self._is_open = False
        try:
            self._open()
        except ConfigError:
            self.close()
            raise

    @property
    def subscribers(self) -> int:
        """How many are connected."""
        return self._ticks.connections

    @property
    def strangers(self) -> int:
        """How many connections ended in their handshake."""
        return sum(each.failures for each in (self._ticks, self._recover, self._hop))

    def _open(self) -> None:
        try:
            self.stream.open()
            self.answers.open()
            if self._feeds is not None:
                self._feeds.open()
        except ConfigError:
            self._close()
            raise
        self._is_open = True

    def _close(self) -> None:
        self._is_open = False
        for binding in (self._ticks, self._recover, self._hop):
            binding.close()

    def on_time(self) -> None:
        """Do what is due."""
        now_s = time.monotonic()
        if now_s - self._looked_mono_s >= LOOK_EVERY_S:
            self._looked_mono_s = now_s
            self._look(now_s)
        if not self._is_open:
            self._open_again(now_s)
        self.stream.on_time(now_s)
        if self._feeds is not None:
            self._feeds.on_time()

    def _look(self, now_s: float) -> None:
        """End all connections if somebody may not connect any more."""
        self._clients.look()
        if self._clients.withdrawn != self._withdrawn:
            self._withdrawn = self._clients.withdrawn
            log.warning("a key may not connect any more: all connections of other hosts are made anew")
            self._closed_mono_s = now_s
            self._close()

    def _open_again(self, now_s: float) -> None:
        try:
            self._open()
        except ConfigError as exc:
            if now_s - self._closed_mono_s >= PATIENCE_S:
                log.error("%s", exc)

    def wait_s(self, most_s: float) -> float:
        """Return how long `on_time` may wait."""
        return self.stream.wait_s(time.monotonic(), most_s)

    def close(self) -> None:
        """Close everything."""
        if self._feeds is not None:
            self._feeds.close()
        self._close()
        self._authenticator.close()
        self._context.destroy(linger=0)
