"""What the merger does to each record: the topic's next number, the time, the last value; then it is sent.

Pure: messages of the feed hop come in, messages to subscribers go out through outlets. Compiled where there is a
compiler, with the types of `step.pxd`. What is rare, and every decision about feeds, is `merge`'s.
"""

from collections.abc import Callable
from typing import Final, Protocol

from feedhandler.data import board_layout, raw, wire

NS_PER_S: Final = 1_000_000_000
# A time further from ours is that of a clock that is wrong, or a lie: no sample. A feed that was held up for longer
# is no latency either.
LATENCY_NS_MAX = 3600 * NS_PER_S
NOT_FRESH = wire.SNAPSHOT | wire.STALE | wire.DOWN
# A feed repeats its states, flagged, when a merger joined. Here they are the first of their topic and take a
# number; the flag says on this side that a record takes none.
NO_REPLAY = 0xFFFF & ~wire.SNAPSHOT

TICKER = wire.TICKER
TOPIC_SIZE = wire.TOPIC_SIZE
HEADER_SIZE = wire.HEADER_SIZE
RECORD_SIZE = wire.TICKER_SIZE
KIND_OFFSET = wire.KIND_OFFSET
FLAGS_OFFSET = wire.FLAGS_OFFSET
SESSION_OFFSET = wire.SESSION_OFFSET
SEQUENCE_OFFSET = wire.SEQUENCE_OFFSET
EXCHANGE_NS_OFFSET = wire.EXCHANGE_NS_OFFSET
RECV_NS_OFFSET = wire.RECV_NS_OFFSET
PUBLISH_NS_OFFSET = wire.PUBLISH_NS_OFFSET
assert EXCHANGE_NS_OFFSET < RECV_NS_OFFSET < PUBLISH_NS_OFFSET, "two times are copied at once"


class Outlet(Protocol):
    """Where messages go to subscribers; it copies them. topic is padded."""

    is_wanted: bool  # while at least one subscription covers tickers

    def send(self, topic: bytes, message: bytes | bytearray) -> None: ...


class Traffic:
    """What came from one feed."""

    def __init__(self) -> None:
        self.is_heard = False  # anything at all, since the last look
        self.records = 0
        self.messages = 0  # that brought records
        self.newest_recv_ns = 0  # of their last ones
        self.sample_mask = 0  # the first record of a message is a sample if its number has none of these bits
        # Of each sample: from receipt to the feed's send, and from there to our publishing it.
        self.latencies: list[tuple[int, int]] = []


class Route:
    """One topic: whose records it has, and its newest record as it was published."""

    def __init__(self, topic: bytes, traffic: Traffic) -> None:
        self.topic = topic
        self.traffic = traffic  # another one, if another feed has the symbol from now on
        self.sequence = 0
        self.slot: board_layout.Slot | None = None  # where its records are written before they are sent
        self.record = bytearray(wire.pack_ticker(wire.Ticker(wire.unpadded(topic))))


class Step:
    """One message of a feed to messages for subscribers.

    routes are by the native topic, padded; find_route makes one for a topic met for the first time, or returns
    None. What is no run of ticker records goes to on_document. clock returns Unix nanoseconds.
    """

    def __init__(
        self,
        routes: dict[bytes, Route],
        find_route: Callable[[bytes], Route | None],
        on_document: Callable[[bytes], None],
        each: Outlet,
        batches: Outlet,
        clock: Callable[[], int],
        session: int,
    ) -> None:
        self._routes = routes
        self._find_route = find_route
        self._on_document = on_document
        self._each = each
        self._batches = batches
        self._clock = clock
        self._session = session

    def take(self, message: bytes | memoryview) -> None:
        """Take one message of the feed hop: ticker records back to back, or one document."""
        # hot: `make bench-micro`, merge
        data = bytes(message)
        size = len(data)
        if not size or size % RECORD_SIZE or raw.get_u8(data, KIND_OFFSET) != TICKER:
            self._on_document(data)
            return
        is_each_wanted, is_batch_wanted = self._each.is_wanted, self._batches.is_wanted
        batch = bytearray(size) if is_batch_wanted else None
        used = 0  # of that
        publish_ns = 0
        last = None
        for start in range(0, size, RECORD_SIZE):
            native_topic = raw.cut(data, start, TOPIC_SIZE)
            route = self._routes.get(native_topic)
            if route is None:
                route = self._find_route(native_topic)
                if route is None:
                    continue
            last = route
            publish_ns = self._clock()
            record = self._number(route, data, start, publish_ns)
            if is_each_wanted:
                self._each.send(route.topic, record)
            if batch is not None:
                raw.copy(batch, used, record, 0, RECORD_SIZE)
            used += RECORD_SIZE
        if last is None:
            return
        if batch is not None:
            self._batches.send(last.topic, batch[:used])
        self._note(last.traffic, data, used // RECORD_SIZE, publish_ns)

    def _number(self, route: Route, data: bytes, start: int, publish_ns: int) -> bytearray:
        """Make a record of a feed the newest of its topic, under the next number, and return it."""
        record = route.record
        route.sequence += 1
        raw.put_u16(record, FLAGS_OFFSET, raw.get_u16(data, start + FLAGS_OFFSET) & NO_REPLAY)
        raw.put_u32(record, SESSION_OFFSET, self._session)
        raw.put_u64(record, SEQUENCE_OFFSET, route.sequence)
        raw.copy(
            record,
            EXCHANGE_NS_OFFSET,
            data,
            start + EXCHANGE_NS_OFFSET,
            PUBLISH_NS_OFFSET - EXCHANGE_NS_OFFSET,
        )
        raw.put_i64(record, PUBLISH_NS_OFFSET, publish_ns)
        raw.copy(record, HEADER_SIZE, data, start + HEADER_SIZE, RECORD_SIZE - HEADER_SIZE)
        if route.slot is not None:
            route.slot.write(record, publish_ns)
        return record

    def _note(self, traffic: Traffic, data: bytes, records: int, publish_ns: int) -> None:
        """Count a message, whose records are of one process, and so of one exchange."""
        traffic.is_heard = True
        traffic.records += records
        traffic.messages += 1
        recv_ns = raw.get_i64(data, len(data) - RECORD_SIZE + RECV_NS_OFFSET)
        # What lies ahead is now.
        traffic.newest_recv_ns = min(max(traffic.newest_recv_ns, recv_ns), publish_ns)
        if traffic.messages & traffic.sample_mask or raw.get_u16(data, FLAGS_OFFSET) & NOT_FRESH:
            return
        first_ns, last_ns = publish_ns - LATENCY_NS_MAX, publish_ns + LATENCY_NS_MAX
        recv_ns, sent_ns = raw.get_i64(data, RECV_NS_OFFSET), raw.get_i64(data, PUBLISH_NS_OFFSET)
        if first_ns <= recv_ns <= last_ns and first_ns <= sent_ns <= last_ns:
            traffic.latencies.append((sent_ns - recv_ns, publish_ns - sent_ns))
