"""What the merger decides: canonical symbols, sequence numbers, last values, which feeds are down.

Pure: messages from feeds and times come in, messages to subscribers go out through outlets; the shell owns
sockets and clock. Records of one topic leave in the order in which they came. It knows no exchange.

What happens to each record is `step`'s; everything else is `Merger`.
"""

from collections.abc import Callable, Mapping
from typing import Final, Protocol

import msgspec

from feedhandler.data import board_layout, wire
from feedhandler.data.contracts import Fanout
from feedhandler.data.errors import UNDECODABLE, DecodeError
from feedhandler.data.instruments import InstrumentList
from feedhandler.data.kinds import BY_CODE
from feedhandler.data.shard import parse as parse_shard
from feedhandler.data.shard import shards
from feedhandler.data.status import FEED_HEARTBEAT_NS, FeedStatus, Heartbeat
from feedhandler.data.topics import Topics, symbol_in
from feedhandler.data.units import NS_PER_MS, NS_PER_S
from feedhandler.merger.feeds import ExchangeView, FeedView
from feedhandler.merger.step import Route, Step, Traffic

# A feed sends something every 200 ms. Subscribers are to know within 1 s that it died.
FEED_SILENCE_NS: Final = 850 * NS_PER_MS
TICK_NS: Final = 50 * NS_PER_MS
STATUS_EVERY_NS: Final = NS_PER_S
assert FEED_SILENCE_NS + 2 * TICK_NS < NS_PER_S, "DOWN within 1 s"
assert FEED_SILENCE_NS > 4 * FEED_HEARTBEAT_NS, "three late heartbeats must not cost a DOWN"

LATENCY_SAMPLES: Final = 2000  # a second and exchange, about: sorting them takes under a millisecond
TOPICS_MAX: Final = 50_000  # routes: 50,000 x about 1 kB


class FeedHeartbeat(msgspec.Struct):
    """Body of a feed's heartbeat."""

    pid: int
    shard: str = "1/1"


class InstrumentListTime(msgspec.Struct):
    """What has to be known of an instrument list to pass it over."""

    as_of_ns: int


class Queues(Protocol):
    """How the queues of the subscribers are, in bytes; published in the heartbeat."""

    size: int
    size_max: int
    cuts: int
    closed: int


class Merger:
    """The merger's state.

    Two kinds of subscribers get the same records: `each` sends each record alone, `batches` those that came
    together in one message, back to back. Documents go to both. exchanges has for each how many feeds share it; if
    the feeds state another number, that counts. session is the Unix second at which this merger
    started; clock returns Unix nanoseconds and is read once per record, just before it is sent. Each
    record is in the ring, the number of its writing being its own sequence, before it is sent. `step` takes
    messages of the feed hop, as does `on_message`.
    """

    def __init__(
        self,
        exchanges: Mapping[str, int],
        each: Fanout,
        batches: Fanout,
        clock: Callable[[], int],
        *,
        session: int,
        pid: int,
        now_mono_ns: int,
        ring: board_layout.Slots | None = None,
        queues: Queues | None = None,
    ) -> None:
        self._each = each
        self._batches = batches
        self._clock = clock
        self._session = session
        self._pid = pid
        self._started_ns = clock()
        self._ring = ring
        self._queues = queues
        self._routes: dict[bytes, Route] = {}  # of all feeds, by the native topic, padded
        self._by_topic: dict[bytes, Route] = {}  # by the canonical topic
        self._documents: dict[bytes, bytes] = {}  # newest of each topic, as published
        self._topics = Topics()  # of both
        self._kinds = {kind.name: kind for kind in BY_CODE.values() if kind.size and kind.has_topics}
        self._sequences: dict[bytes, int] = {}  # of documents
        self._status_mono_ns = now_mono_ns - STATUS_EVERY_NS
        self._last_tick_mono_ns = now_mono_ns
        self.malformed = 0
        self.exchanges = {name: ExchangeView(name, self._started_ns) for name in exchanges}
        for name, count in exchanges.items():
            self.exchanges[name].spread(self._make_feeds(name, count))
        self.step = Step(self._routes, self._find_route, self._on_document, each, batches, clock, session)
        self.on_message = self.step.take

    def _make_feeds(self, exchange: str, count: int) -> list[FeedView]:
        return [FeedView(exchange, shard, Traffic(), self._last_tick_mono_ns) for shard in shards(count)]

    # --- from the feeds

    def _find_route(self, native_topic: bytes) -> Route | None:
        """Find the canonical topic for a native one met for the first time; None if it has none."""
        words = native_topic.rstrip(b"\0").decode(errors="replace").split(".", 2)
        exchange = self.exchanges.get(words[1]) if len(words) == 3 else None
        kind = self._kinds.get(words[0])
        if exchange is None or kind is None:
            self.malformed += 1
            return None
        feed = exchange.feed_of(words[2])
        feed.traffic.is_heard = True
        symbol = exchange.table.symbol_of(words[2]) if exchange.table else None
        if symbol is None or len(self._by_topic) >= TOPICS_MAX:
            feed.traffic.records += 1  # received, though not published: so that the hop's count stays right
            exchange.unmapped += 1
            return None
        topic = wire.padded(wire.topic(kind.code, exchange.name, symbol))
        route = self._by_topic.get(topic)
        if route is None:
            route = self._by_topic[topic] = Route(topic, feed.traffic, kind)
            self._topics.add(topic)
            if self._ring is not None:
                route.slot = self._ring.slot(wire.unpadded(topic), kind.size_max)
        else:
            self._take_over(exchange, feed, route)
        self._routes[native_topic] = feed.routes[native_topic] = route
        return route

    def _take_over(self, exchange: ExchangeView, feed: FeedView, route: Route) -> None:
        """A topic that is known belongs to another symbol from now on, of this feed: what it was before is over."""
        for other in exchange.feeds.values():
            for native_topic in [native for native, known in other.routes.items() if known is route]:
                del other.routes[native_topic], self._routes[native_topic]
            other.flagged.pop(route, None)
        route.traffic = feed.traffic

    def _on_document(self, message: bytes) -> None:
        try:
            document = wire.unpack(message)
            exchange = self.exchanges[document.exchange]
        except (DecodeError, UnicodeDecodeError, IndexError, KeyError):
            self.malformed += 1
            return
        try:
            if isinstance(document, wire.Condition):
                self._on_condition(document)
            elif not isinstance(document, wire.Document):
                self.malformed += 1  # of a kind that this merger does not know
            elif document.kind == wire.STATUS:
                self._on_status(exchange, msgspec.json.decode(document.body, type=FeedStatus))
            elif document.kind == wire.INSTRUMENTS:
                self._on_instruments(exchange, document.body)
            else:
                self._on_heartbeat(exchange, msgspec.json.decode(document.body, type=FeedHeartbeat))
        except (*UNDECODABLE, ValueError):
            exchange.malformed += 1

    def _on_heartbeat(self, exchange: ExchangeView, heartbeat: FeedHeartbeat) -> None:
        feed = exchange.feeds.get(heartbeat.shard)
        if feed is None:
            parse_shard(heartbeat.shard)  # of a feed whose status is still to come, or that was
            return
        feed.on_report()
        if feed.is_down and heartbeat.pid == feed.pid:
            self._revive(exchange, feed)

    def _on_status(self, exchange: ExchangeView, status: FeedStatus) -> None:
        feed = exchange.feeds.get(status.shard)
        if feed is None:
            shard = parse_shard(status.shard)
            if not exchange.has_begun_anew(status):
                return
            self._begin_anew(exchange, shard.count)
            feed = exchange.feeds[status.shard]
        feed.on_report()
        if status.pid != feed.pid:
            self._flag_down(feed)  # a new process knows nothing yet, even if it was back in no time
            feed.flagged.clear()
        if (status.pid, status.resync) != (feed.pid, feed.resync):
            feed.pid, feed.resync = status.pid, status.resync
            feed.hop_base = feed.traffic.records - status.hop_records
        # Messages of one feed arrive in order, so whatever it sent before this one is here or lost.
        if (lost := status.hop_records - (feed.traffic.records - feed.hop_base)) > 0:
            feed.hop_lost += lost
            feed.hop_base -= lost
            self._flag_lost(feed, status)
        feed.status, feed.started_ns = status, min(status.started_ns, self._clock())
        if feed.is_down:
            self._revive(exchange, feed)
        self._check_state(exchange, feed)

    def _flag_lost(self, feed: FeedView, status: FeedStatus) -> None:
        """Records were lost: of what counts each record nobody knows which topic's, so all are told.

        The feed sends again how each topic is. DOWN of what is not wanted any more it does not.
        """
        wanted = {
            (status.renamed.get(symbol, symbol), kind)
            for symbol, kinds in status.wanted.items()
            for kind in kinds
        }
        for route in feed.routes.values():
            if (symbol_in(route.topic), wire.KIND_NAMES[route.code]) not in wanted:
                feed.flagged.pop(route, None)
                self._publish_down(route)
            elif route.keeps_every and not route.condition & wire.DOWN:
                self._republish(route, route.condition | wire.STALE)

    def _begin_anew(self, exchange: ExchangeView, count: int) -> None:
        """Feeds of another count of shards have followed: none of them knows anything yet."""
        for feed in exchange.feeds.values():
            self._flag_down(feed)
        exchange.spread(self._make_feeds(exchange.name, count))

    def _on_instruments(self, exchange: ExchangeView, body: bytes) -> None:
        """Take over a list; of several feeds each has its own, and sends it again to a merger that joined."""
        if body == exchange.instruments_body:
            return
        as_of_ns = min(msgspec.json.decode(body, type=InstrumentListTime).as_of_ns, self._clock())
        if as_of_ns < exchange.instruments_as_of_ns:
            return
        table = msgspec.json.decode(body, type=InstrumentList).table()
        exchange.table, exchange.instruments_body, exchange.instruments_as_of_ns = table, body, as_of_ns
        for feed in exchange.feeds.values():
            for native_topic, route in list(feed.routes.items()):
                native = symbol_in(native_topic)
                if native not in table.by_native:
                    continue  # delisted, or the list is short: as long as data come, they are what they were
                symbol = table.symbol_of(native)
                word = wire.unpadded(native_topic).partition(".")[0]
                kind = self._kinds[word].code
                topic = wire.padded(wire.topic(kind, exchange.name, symbol)) if symbol else b""
                if topic != route.topic:
                    self._drop_route(feed, native_topic)
        self._publish_document(wire.INSTRUMENTS, exchange.name, body)

    def _drop_route(self, feed: FeedView, native_topic: bytes) -> None:
        """Renamed, or in conflict: the topic gets no more records from here, and is DOWN."""
        route = feed.routes.pop(native_topic)
        del self._routes[native_topic]
        feed.flagged.pop(route, None)
        flags = _flags_of(route)
        if not flags & wire.DOWN:
            self._republish(route, flags | wire.DOWN)

    def _on_condition(self, condition: wire.Condition) -> None:
        """Pass on what a feed says of a topic whose records are not repeated."""
        native_topic = wire.padded(condition.topic)
        route = self._routes.get(native_topic) or self._find_route(native_topic)
        if route is not None and route.keeps_every:
            route.traffic.is_heard = True
            route.traffic.records += 1
            if not route.sequence:  # there is no record yet that tells
                wire.FLAGS.pack_into(route.record, wire.FLAGS_OFFSET, condition.flags & wire.ORIGIN)
            self._republish(route, condition.flags)

    # --- to the subscribers

    def _send(self, topic: bytes, message: bytes | bytearray) -> None:
        """Send one message to both kinds of subscribers; for all but the stream itself."""
        self._each.send(topic, message)
        self._batches.send(topic, message)

    def topics(self, prefix: bytes) -> list[bytes]:
        """Return the topics that a new subscription matches, padded, in order."""
        return self._topics.under(prefix)

    def last(self, topic: bytes) -> bytearray | None:
        """Return a topic's last value, flagged SNAPSHOT; None if there was none yet.

        Of a kind that keeps every record it is its condition, while it has one.
        """
        route = self._by_topic.get(topic)
        if route is None:
            return self._replayed(self._documents[topic])
        if route.keeps_every:
            return self._replayed(self._condition_of(route)) if route.condition else None
        return self._replayed(route.record) if route.sequence else None

    def _replayed(self, message: bytes | bytearray) -> bytearray:
        message = bytearray(message)
        (flags,) = wire.FLAGS.unpack_from(message, wire.FLAGS_OFFSET)
        wire.FLAGS.pack_into(message, wire.FLAGS_OFFSET, flags | wire.SNAPSHOT)
        wire.TIME.pack_into(message, wire.PUBLISH_NS_OFFSET, self._clock())
        return message

    def _publish_document(self, kind: int, exchange: str, body: bytes) -> None:
        name = wire.topic(kind, exchange)
        topic = wire.padded(name)
        sequence = self._sequences[topic] = self._sequences.get(topic, 0) + 1
        now = self._clock()
        view = self.exchanges.get(exchange)
        origin = view.origin if view else 0
        message = wire.pack_document(
            wire.Document(name, wire.VERSION, kind, origin, self._session, sequence, 0, now, now, body)
        )
        if topic not in self._documents:
            self._topics.add(topic)
        self._documents[topic] = message
        self._send(topic, message)

    # --- time

    def on_tick(self, now_mono_ns: int) -> None:
        """Look at the clock; call every `TICK_NS` or so, after draining what the feeds sent."""
        gap = now_mono_ns - self._last_tick_mono_ns
        self._last_tick_mono_ns = now_mono_ns
        for exchange in self.exchanges.values():
            for feed in exchange.feeds.values():
                self._watch(exchange, feed, now_mono_ns, gap if gap > 4 * TICK_NS else 0)
        if (elapsed_ns := now_mono_ns - self._status_mono_ns) >= STATUS_EVERY_NS:
            self._status_mono_ns = now_mono_ns
            self._publish_status(elapsed_ns)

    def _watch(self, exchange: ExchangeView, feed: FeedView, now_mono_ns: int, stalled_ns: int) -> None:
        """Look whether a feed has sent anything; stalled_ns is how long it was we who did not read."""
        feed.received_mono_ns += stalled_ns
        feed.reported_mono_ns += stalled_ns
        if feed.has_reported:
            feed.has_reported, feed.reported_mono_ns = False, now_mono_ns
        feed.is_without_reports = (
            feed.is_without_reports or now_mono_ns - feed.reported_mono_ns >= FEED_SILENCE_NS
        )
        if feed.traffic.is_heard:
            feed.traffic.is_heard = feed.is_silent = False
            feed.received_mono_ns = now_mono_ns
        elif not feed.is_silent and now_mono_ns - feed.received_mono_ns >= FEED_SILENCE_NS:
            feed.is_silent = True
            self._mark_down(exchange, feed, "feed process is silent")

    def _revive(self, exchange: ExchangeView, feed: FeedView) -> None:
        """The same process sends again, or a new one: what we flagged for silence was current after all."""
        feed.is_down, feed.reason = False, ""
        for route, (flags, sequence) in feed.flagged.items():
            if route.sequence == sequence:  # else it has sent a record since, perhaps a DOWN of its own
                self._republish(route, flags)
        feed.flagged.clear()
        self._check_state(exchange, feed)

    def _mark_down(self, exchange: ExchangeView, feed: FeedView, reason: str) -> None:
        feed.is_down, feed.reason = True, reason
        feed.status = None
        self._flag_down(feed)
        self._check_state(exchange, feed)

    def _flag_down(self, feed: FeedView) -> None:
        """Flag every record of a feed: nobody keeps it current."""
        for route in feed.routes.values():
            flags = self._publish_down(route)
            if not flags & wire.DOWN:
                feed.flagged[route] = flags, route.sequence

    def _publish_down(self, route: Route) -> int:
        """Publish a topic's newest record as DOWN, unless it is; return the flags that it had."""
        flags = _flags_of(route)
        if not flags & wire.DOWN:
            self._republish(route, flags & ~wire.STALE | wire.DOWN)
        return flags

    def _condition_of(self, route: Route) -> bytes:
        """Return the condition of a topic as a record, which takes no number."""
        (base,) = wire.FLAGS.unpack_from(route.record, wire.FLAGS_OFFSET)
        flags = route.condition | base & wire.ORIGIN
        now = self._clock()
        topic = wire.unpadded(route.topic)
        return wire.pack(
            wire.Condition(
                topic,
                flags=flags,
                session=self._session,
                sequence=route.sequence,
                recv_ns=now,
                publish_ns=now,
            )
        )

    def _republish(self, route: Route, flags: int) -> None:
        """Publish a topic's newest record once more, under other flags and the next number.

        Of a kind that keeps every record, its condition alone.
        """
        if route.keeps_every:
            if route.condition != flags & CONDITIONS:
                route.condition = flags & CONDITIONS
                self._send(route.topic, self._condition_of(route))
            return
        route.sequence += 1
        wire.SEQUENCE_AFTER_FLAGS.pack_into(
            route.record, wire.FLAGS_OFFSET, flags, self._session, route.sequence
        )
        publish_ns = self._clock()
        wire.TIME.pack_into(route.record, wire.PUBLISH_NS_OFFSET, publish_ns)
        route.keep(publish_ns)
        self._send(route.topic, route.record)

    def on_stop(self) -> None:
        """Publish that everything is down: this merger publishes no more."""
        for exchange in self.exchanges.values():
            for feed in exchange.feeds.values():
                if not feed.is_down:
                    self._mark_down(exchange, feed, "merger stopped")

    def _check_state(self, exchange: ExchangeView, feed: FeedView) -> None:
        """Publish the status at once when the state of a feed changes."""
        if feed.is_down:
            state = "down" if feed.pid else "absent"
        else:
            state = feed.status.state if feed.status else "starting"
        if state == feed.state:
            return
        feed.state = state
        if (joined_state := exchange.joined_state()) != exchange.state:
            exchange.state, exchange.since_ns = joined_state, self._clock()
        self._publish_exchange_status(exchange)

    def _publish_status(self, elapsed_ns: int) -> None:
        for exchange in self.exchanges.values():
            for feed in exchange.feeds.values():
                count, feed.records_seen = feed.traffic.records - feed.records_seen, feed.traffic.records
                feed.rate = count * NS_PER_S / elapsed_ns
            self._publish_exchange_status(exchange)
            for feed in exchange.feeds.values():
                exchange.count_latencies(feed)
                self._begin_second(feed, LATENCY_SAMPLES // len(exchange.feeds))
        heartbeat = Heartbeat(
            pid=self._pid,
            started_ns=self._started_ns,
            topics=len(self._by_topic),
            records=sum(exchange.records for exchange in self.exchanges.values()),
            records_per_s=sum(exchange.rate for exchange in self.exchanges.values()),
            exchanges={name: exchange.state for name, exchange in self.exchanges.items()},
        )
        if (queues := self._queues) is not None:
            heartbeat.queues_bytes, heartbeat.queues_bytes_max = queues.size, queues.size_max
            heartbeat.queues_cut, heartbeat.queues_closed = queues.cuts, queues.closed
        self._publish_document(wire.HEARTBEAT, "merger", msgspec.json.encode(heartbeat))

    def _begin_second(self, feed: FeedView, samples: int) -> None:
        """Take about so many samples of latency in the next second as well."""
        feed.traffic.latencies.clear()
        messages, feed.messages_seen = feed.traffic.messages - feed.messages_seen, feed.traffic.messages
        feed.traffic.sample_mask = (1 << (messages // samples).bit_length()) - 1

    def _publish_exchange_status(self, exchange: ExchangeView) -> None:
        self._publish_document(wire.STATUS, exchange.name, msgspec.json.encode(exchange.status()))


def _flags_of(route: Route) -> int:
    """Return the flags of a topic: those of its newest record, or its condition where no record is repeated."""
    if route.keeps_every:
        return route.condition
    (flags,) = wire.FLAGS.unpack_from(route.record, wire.FLAGS_OFFSET)
    return int(flags)


CONDITIONS: Final = wire.STALE | wire.DOWN | wire.INVALID
