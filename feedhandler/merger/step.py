"""What the merger does to each record: the topic's next number, the time, the last value; then it is sent.

Pure: messages of the feed hop come in, messages to subscribers go out through outlets. Compiled where there is a
compiler, with the types of `step.pxd`. What is rare, and every decision about feeds, is `merge`'s.
"""

from collections.abc import Callable

from feedhandler.data import raw, ticker, wire
from feedhandler.data.contracts import Fanout, Sink, Slot
from feedhandler.data.layout import Description, Retention
from feedhandler.data.units import NS_PER_S
from feedhandler.transport import calls
from feedhandler.transport.calls import clock_of

# A time further from ours is that of a clock that is wrong, or a lie: no sample. A feed that was held up for longer
# is no latency either.
LATENCY_NS_MAX = 3600 * NS_PER_S
NOT_FRESH = wire.SNAPSHOT | wire.NOT_LIVE
# A feed repeats its states, flagged, when a merger joined. Here they are the first of their topic and take a
# number; the flag says on this side that a record takes none.
NO_REPLAY = 0xFFFF & ~wire.SNAPSHOT

SIZES = wire.SIZES
COUNTS = wire.COUNTS
VERSION = wire.VERSION
VERSION_OFFSET = wire.VERSION_OFFSET
TOPIC_SIZE = wire.TOPIC_SIZE
HEADER_SIZE = wire.HEADER_SIZE
RECORD_SIZE = wire.TICKER_SIZE
KIND_OFFSET = wire.KIND_OFFSET
FLAGS_OFFSET = wire.FLAGS_OFFSET
SESSION_OFFSET = wire.SESSION_OFFSET
SEQUENCE_OFFSET = wire.SEQUENCE_OFFSET
RECV_NS_OFFSET = wire.RECV_NS_OFFSET
PUBLISH_NS_OFFSET = wire.PUBLISH_NS_OFFSET


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
    """One topic: whose records it has, and its newest record as it was published.

    Of a kind that keeps every record nothing is published twice: `condition` has the flags of its condition, which
    end with its next record.
    """

    def __init__(self, topic: bytes, traffic: Traffic, kind: Description = ticker.TICKER) -> None:
        self.topic = topic
        self.code = kind.code
        self.keeps_every = kind.retention is Retention.EVERY
        # There SNAPSHOT is the exchange's; of the others, see NO_REPLAY.
        self.mask = 0xFFFF if self.keeps_every else NO_REPLAY
        self.condition = 0
        # Boards have cells of one size, which a smaller record does not fill; a larger one is in a ring.
        self.cell = (
            bytearray(RECORD_SIZE) if kind.size_max <= RECORD_SIZE and kind.size != RECORD_SIZE else None
        )
        self.traffic = traffic  # another one, if another feed has the symbol from now on
        self.sequence = 0
        self.slot: Slot | None = None  # where its records are written before they are sent
        self.record = bytearray(wire.pack(kind.record(wire.unpadded(topic), kind=kind.code)))

    def resize(self, length: int) -> None:
        """Have a record of this size from now on; whoever has the last one keeps it as it was."""
        if len(self.record) != length:
            record = bytearray(length)
            raw.copy(record, 0, self.record, 0, HEADER_SIZE)
            self.record = record

    def keep(self, publish_ns: int) -> None:
        """Write the newest record where those who missed it find it."""
        if self.slot is None:
            return
        if self.cell is None:
            self.slot.write(self.record, publish_ns)
        else:
            raw.copy(self.cell, 0, self.record, 0, len(self.record))
            self.slot.write(self.cell, publish_ns)


class Step(Sink):
    """One message of a feed to messages for subscribers.

    routes are by the native topic, padded; find_route makes one for a topic met for the first time, or returns
    None. What takes no number of a topic's records goes to on_document: documents, and conditions, which are a
    header alone. clock returns Unix nanoseconds.
    """

    def __init__(
        self,
        routes: dict[bytes, Route],
        find_route: Callable[[bytes], Route | None],
        on_document: Callable[[bytes], None],
        each: Fanout,
        batches: Fanout,
        clock: Callable[[], int],
        session: int,
    ) -> None:
        self._routes = routes
        self._find_route = find_route
        self._on_document = on_document
        self._each = each
        self._batches = batches
        self._clock = clock_of(clock)
        self._session = session

    def take(self, data: bytes) -> None:
        """Take one message of the feed hop: records back to back, of whatever kinds."""
        # hot: `make bench-micro`, merge
        size = len(data)
        start = 0
        while start < size:
            end = self._take_run(data, start, size)
            if end < size:
                step = wire.size_at(data, end)
                self._on_document(raw.cut(data, end, step))
                end += step
            start = end
        if not size:
            self._on_document(data)

    def _take_run(self, data: bytes, first: int, size: int) -> int:
        """Take the records of a known size from there on; returns where something else begins, or the end.

        A batch has records of one kind: a message is filtered by one topic, also by the subscriber's own ZeroMQ.
        """
        is_each_wanted, is_batch_wanted = self._each.is_wanted, self._batches.is_wanted
        batch = bytearray(size - first) if is_batch_wanted else None
        used = 0  # of that
        kind = 0  # of its records
        count = 0
        publish_ns = 0
        last = None
        newest = start = first
        while size - start >= HEADER_SIZE:
            code = raw.get_u8(data, start + KIND_OFFSET)
            length = known = SIZES[code]
            if known < 0:
                length = self._counted(code, data, start, size)
            if (
                length <= HEADER_SIZE
                or length > size - start
                or raw.get_u8(data, start + VERSION_OFFSET) != VERSION
            ):
                break
            newest = start
            start += length
            native_topic = raw.cut(data, newest, TOPIC_SIZE)
            route = self._routes.get(native_topic)
            if route is None:
                route = self._find_route(native_topic)
                if route is None:
                    continue
            if route.code != code:
                continue  # a topic of one kind with a record of another: no feed sends that
            if known < 0:
                route.resize(length)
            if code != kind:
                if batch is not None and last is not None:
                    self._batches.send(last.topic, batch[:used])
                used, kind = 0, code
            last = route
            publish_ns = calls.unix_ns(self._clock)
            record = self._number(route, data, newest, length, publish_ns)
            if is_each_wanted:
                self._each.send(route.topic, record)
            if batch is not None:
                raw.copy(batch, used, record, 0, length)
            used += length
            count += 1
        if last is not None:
            if batch is not None:
                self._batches.send(last.topic, batch[:used])
            self._note(last.traffic, data, first, newest, count, publish_ns)
        return start

    def _counted(self, code: int, data: bytes, start: int, size: int) -> int:
        """Return how long a record is by its own counts; 0 if it is none that may be."""
        counts = COUNTS[code]
        assert counts is not None, "so SIZES has it"
        if counts.head > size - start:
            return 0
        count = raw.get_u16(data, start + counts.first) + raw.get_u16(data, start + counts.second)
        length = counts.head + count * counts.size
        return length if length <= counts.size_max else 0

    def _number(self, route: Route, data: bytes, start: int, length: int, publish_ns: int) -> bytearray:
        """Make a record of a feed the newest of its topic, under the next number, and return it."""
        record = route.record
        route.sequence += 1
        route.condition = 0
        # Version and kind are the route's own, the times those of the feed; what is ours is put in their place.
        raw.copy(record, TOPIC_SIZE, data, start + TOPIC_SIZE, length - TOPIC_SIZE)
        raw.put_u16(record, FLAGS_OFFSET, raw.get_u16(data, start + FLAGS_OFFSET) & route.mask)
        raw.put_u32(record, SESSION_OFFSET, self._session)
        raw.put_u64(record, SEQUENCE_OFFSET, route.sequence)
        raw.put_i64(record, PUBLISH_NS_OFFSET, publish_ns)
        if route.slot is not None:
            if route.cell is None:
                route.slot.write(record, publish_ns)
            else:
                route.keep(publish_ns)
        return record

    def _note(
        self, traffic: Traffic, data: bytes, first: int, newest: int, records: int, publish_ns: int
    ) -> None:
        """Count records that came together, all of one process, and so of one exchange."""
        traffic.is_heard = True
        traffic.records += records
        traffic.messages += 1
        recv_ns = raw.get_i64(data, newest + RECV_NS_OFFSET)
        # What lies ahead is now.
        traffic.newest_recv_ns = min(max(traffic.newest_recv_ns, recv_ns), publish_ns)
        if traffic.messages & traffic.sample_mask or raw.get_u16(data, first + FLAGS_OFFSET) & NOT_FRESH:
            return
        first_ns, last_ns = publish_ns - LATENCY_NS_MAX, publish_ns + LATENCY_NS_MAX
        recv_ns, sent_ns = (
            raw.get_i64(data, first + RECV_NS_OFFSET),
            raw.get_i64(data, first + PUBLISH_NS_OFFSET),
        )
        if first_ns <= recv_ns <= last_ns and first_ns <= sent_ns <= last_ns:
            traffic.latencies.append((sent_ns - recv_ns, publish_ns - sent_ns))
