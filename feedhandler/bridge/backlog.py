"""What the bridge has still to publish.

Every record in its order while there is room, and beyond that the newest of each topic, so that it is bounded
however slow the other side is. Pure: the shell owns sockets and clocks.
"""

from collections import Counter, deque
from typing import Final

from feedhandler.data import wire
from feedhandler.data.errors import DecodeError
from feedhandler.data.kinds import BY_CODE, keeps_every

QUEUE_SIZE_MAX: Final = 4 << 20  # bytes that wait in order; beyond them, the newest of each topic
CHUNK_RECORDS: Final = 256  # published between two looks at what else there is to do
SETTLE_NS: Final = 10_000_000_000  # for a new merger to have all that the last one had
REJOIN_EVERY_NS: Final = 10_000_000_000  # at most so often everything is requested again

SESSION: Final = slice(wire.FLAGS_OFFSET + wire.FLAGS.size, wire.SEQUENCE_OFFSET)


class Backlog:
    """The newest record of each topic, and what of them is still to be published.

    Counters are by kind's name. missed counts numbers that the merger gave and that did not arrive.
    """

    def __init__(self) -> None:
        self.newest: dict[bytes, bytes] = {}  # by topic, padded
        self._conditions: dict[bytes, bytes] = {}  # in force, of topics whose records are not repeated
        self.conflated: Counter[str] = Counter()
        self.missed = 0
        self.undecodable = 0
        self.is_flagged_down = False  # all tickers, by us
        self.is_away = False  # the other side: then what waits is the newest of each topic, however little
        self.queue_size = 0
        self._queue: deque[bytes] = deque()
        self._waiting: dict[bytes, bytes] = {}  # newest of each topic, behind the queue
        self._session = b""  # of the merger whose record was the last
        self._settling_session = b""
        self._settling_mono_ns = 0
        self._rejoined_mono_ns = -REJOIN_EVERY_NS
        self._has_gap = False

    def __len__(self) -> int:
        return len(self._queue) + len(self._waiting)

    # --- in

    def take(self, message: bytes | memoryview) -> None:
        """Take a message of the merger: records back to back, or one document; it is on loan."""
        # hot: `python -m bench.bridge`
        for record in wire.split(message):
            if len(record) != wire.TICKER_SIZE:
                try:
                    wire.unpack(record)
                except DecodeError:
                    self.undecodable += 1
                    continue
            self._take(bytes(record))

    def _take(self, record: bytes) -> None:
        topic = record[: wire.TOPIC_SIZE]
        if record[wire.KIND_OFFSET] == wire.NOTICE:
            return  # about us: the numbers say the same of each topic
        if record[wire.VERSION_OFFSET] != wire.VERSION or record[wire.KIND_OFFSET] not in BY_CODE:
            self.undecodable += 1
            return
        self._session = record[SESSION]
        if record[wire.KIND_OFFSET] == wire.CONDITION:
            self._take_condition(topic, record)
            return
        before = self.newest.get(topic)
        if before is not None and before[SESSION] == self._session:
            ahead = wire.sequence_of(record) - wire.sequence_of(before)
            if ahead <= 0:
                # A repetition, as a new subscription brings: it counts if we flagged it DOWN, or its flags differ.
                is_same = _flags(record) | wire.SNAPSHOT == _flags(before) | wire.SNAPSHOT
                if ahead or (is_same and not self.is_flagged_down):
                    return
            elif ahead > 1:
                self.missed += ahead - 1
                self._has_gap = True
        self.newest[topic] = record
        self._conditions.pop(topic, None)
        self.put(topic, record)

    def _take_condition(self, topic: bytes, record: bytes) -> None:
        """Take what the merger says of a topic whose records are not repeated; a replay of it is no news."""
        before = self._conditions.get(topic)
        record = cleared(record, wire.SNAPSHOT)
        if before is not None and _head(before) == _head(record) and not self.is_flagged_down:
            return
        self._conditions[topic] = record
        self.put(topic, record)

    def put(self, topic: bytes, record: bytes) -> None:
        """Have a record published, whether it is new or not."""
        if not self._waiting and not self.is_away and self.queue_size + len(record) <= QUEUE_SIZE_MAX:
            self._queue.append(record)
            self.queue_size += len(record)
        else:
            self._note(topic, record)

    def _note(self, topic: bytes, record: bytes) -> None:
        if topic in self._waiting:
            self.conflated[wire.KIND_NAMES[record[wire.KIND_OFFSET]]] += 1
        self._waiting[topic] = record

    # --- out

    def take_chunk(self) -> list[bytes]:
        """Return what is to be published next, in order: a few, [] if nothing is."""
        queue = self._queue
        if queue:
            chunk = [queue.popleft() for _ in range(min(len(queue), CHUNK_RECORDS))]
            self.queue_size -= sum(map(len, chunk))
            return chunk
        waiting = self._waiting
        topics = [topic for topic, _ in zip(waiting, range(CHUNK_RECORDS), strict=False)]
        return [waiting.pop(topic) for topic in topics]

    def return_first(self, records: list[bytes]) -> None:
        """Take the rest of the last chunk back, for which there was no room after all."""
        self._queue.extendleft(reversed(records))
        self.queue_size += sum(map(len, records))

    def put_back(self, records: list[bytes]) -> None:
        """Publish the newest of these topics again: the records were not published, or may be lost.

        The side that they were for is away.
        """
        self.is_away = True
        before, self._waiting = [*records, *self._queue, *self._waiting.values()], {}
        self._queue.clear()
        self.queue_size = 0
        for record in before:
            topic = record[: wire.TOPIC_SIZE]
            if _is_kept(record):
                self._note(topic, record)  # not repeated: it has never been published, as far as is known
                continue
            newest = self.newest.get(topic, record)
            is_down = self.is_flagged_down and newest[wire.KIND_OFFSET] == wire.TICKER
            self._note(topic, flagged(newest, wire.DOWN | wire.SNAPSHOT) if is_down else newest)

    # --- the merger's condition

    def flag_down(self) -> None:
        """The merger is silent: its tickers are flagged DOWN, each as a repetition of its newest record.

        Of kinds that keep every record nothing is repeated: they get a condition.
        """
        self.is_flagged_down = True
        for topic, record in self.newest.items():
            if _is_kept(record):
                self.put(topic, condition(record, wire.DOWN))
            elif record[wire.KIND_OFFSET] == wire.TICKER:
                self.put(topic, flagged(record, wire.DOWN | wire.SNAPSHOT))

    def clear_down(self) -> None:
        """The same merger sends again: its tickers have the flags that they had before.

        What another one has is new; what only the last one had stays DOWN.
        """
        if not self.is_flagged_down:
            return
        self.is_flagged_down = False
        for topic, record in self.newest.items():
            if record[SESSION] != self._session:
                continue
            if _is_kept(record):
                self.put(topic, self._conditions.get(topic) or condition(record, 0))
            elif record[wire.KIND_OFFSET] == wire.TICKER:
                self.put(topic, flagged(record, wire.SNAPSHOT))

    def repeat(self) -> None:
        """Publish all that is known once more: others may have been away, and missed it."""
        for topic, record in self.newest.items():
            if _is_kept(record):
                if self.is_flagged_down:
                    self.put(topic, condition(record, wire.DOWN))
                elif topic in self._conditions:
                    self.put(topic, self._conditions[topic])
                continue
            is_down = self.is_flagged_down and record[wire.KIND_OFFSET] == wire.TICKER
            self.put(topic, flagged(record, wire.SNAPSHOT | wire.DOWN if is_down else wire.SNAPSHOT))

    def on_time(self, now_mono_ns: int) -> bool:
        """Look after sessions, some times a second; True if some was missed, and all is to be requested again."""
        if self._session != self._settling_session:
            self._settling_session, self._settling_mono_ns = self._session, now_mono_ns
        elif self._settling_mono_ns and now_mono_ns - self._settling_mono_ns > SETTLE_NS:
            self._settling_mono_ns = 0
            self._forget_others()
        if not self._has_gap or now_mono_ns - self._rejoined_mono_ns < REJOIN_EVERY_NS:
            return False
        self._has_gap, self._rejoined_mono_ns = False, now_mono_ns
        return True

    def _forget_others(self) -> None:
        """What only a former merger had is gone: DOWN, for the last time."""
        for topic, record in list(self.newest.items()):
            if record[SESSION] == self._session:
                continue
            del self.newest[topic]
            self._conditions.pop(topic, None)
            if _is_kept(record):
                self.put(topic, condition(record, wire.DOWN))
            elif record[wire.KIND_OFFSET] == wire.TICKER:
                self.put(topic, flagged(record, wire.DOWN | wire.SNAPSHOT))


def condition(record: bytes, flags: int) -> bytes:
    """Return the condition of a record's topic, with its numbers; where it comes from is told on."""
    changed = bytearray(record[: wire.HEADER_SIZE])
    changed[wire.KIND_OFFSET] = wire.CONDITION
    wire.FLAGS.pack_into(changed, wire.FLAGS_OFFSET, flags | _flags(record) & wire.ORIGIN)
    return bytes(changed)


def cleared(record: bytes, flags: int) -> bytes:
    """Return a record without these flags."""
    changed = bytearray(record)
    wire.FLAGS.pack_into(changed, wire.FLAGS_OFFSET, _flags(record) & ~flags)
    return bytes(changed)


def _head(record: bytes) -> bytes:
    """Return flags, session and sequence of a condition: the same ones say nothing new."""
    return record[wire.FLAGS_OFFSET : wire.EXCHANGE_NS_OFFSET]


def _is_kept(record: bytes) -> bool:
    """True for a record that counts in itself, or says something of such."""
    kind = record[wire.KIND_OFFSET]
    return kind == wire.CONDITION or keeps_every(kind)


def flagged(record: bytes, flags: int) -> bytes:
    """Return a record with these flags besides its own."""
    changed = bytearray(record)
    wire.FLAGS.pack_into(changed, wire.FLAGS_OFFSET, _flags(record) | flags)
    return bytes(changed)


def _flags(record: bytes) -> int:
    (flags,) = wire.FLAGS.unpack_from(record, wire.FLAGS_OFFSET)
    return int(flags)
