"""What leaves a feed: numbered records, joined to messages for the merger, and each alone to direct subscribers.

Pure: states come in, messages go out through the two ends that it is given, whoever owns them. Compiled where there
is a compiler, with the types of `batch.pxd`.
"""

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from feedhandler.data import raw, wire
from feedhandler.exchanges.state import State

RECORDS_MAX: Final = 512  # in one message: bounds it when a whole exchange is flagged at once

TOPIC_SIZE = wire.TOPIC_SIZE
RECORD_SIZE = wire.TICKER_SIZE
SIZES = wire.SIZES
KIND_OFFSET = wire.KIND_OFFSET
PUBLISH_NS_OFFSET = wire.PUBLISH_NS_OFFSET
MESSAGE_SIZE_MAX = RECORDS_MAX * RECORD_SIZE


class Hop(Protocol):
    """The way to the merger; it copies messages."""

    def send(self, message: bytes | bytearray) -> None: ...


class Direct(Protocol):
    """The way to direct subscribers; topic is padded."""

    is_wanted: bool  # while at least one subscription covers tickers

    def send(self, topic: bytes, message: bytes | bytearray) -> None: ...

    def flush(self) -> None: ...


class Series:
    """One topic of a kind that keeps every record, as a feed numbers its records.

    topic carries the native symbol; flags are those of every record.
    """

    def __init__(self, topic: str, *, session: int, flags: int = 0) -> None:
        self.topic = topic
        self.session = session
        self.flags = flags
        self.sequence = 0


class Batch:
    """The records that leave together; clock returns Unix nanoseconds. records counts those sent to the merger."""

    def __init__(self, hop: Hop, direct: Direct, clock: Callable[[], int]) -> None:
        self._hop = hop
        self._direct = direct
        self._clock = clock
        self._present = bytearray(MESSAGE_SIZE_MAX)
        self._used = 0  # of that: whole records
        self._count = 0  # how many
        self.records = 0

    def emit(self, state: State) -> None:
        """Number a state's record, and add it to the present message."""
        # hot: `make bench-micro`, feed
        start = self._used
        state.sequence += 1
        state.pack(self._present, start)
        if state.slot is not None:  # before anything else: whoever reads there is early by the hop
            state.slot.write(raw.cut(self._present, start, RECORD_SIZE), self._clock())
        self._used = start + RECORD_SIZE
        self._count += 1
        if self._used > MESSAGE_SIZE_MAX - RECORD_SIZE:
            self.flush()

    def append(self, series: Series, record: wire.Record) -> None:
        """Give a record the next number of its topic, and add it to the present message.

        A frame may bring any number of them. A condition has the number of the record before it.
        """
        if not isinstance(record, wire.Condition):
            series.sequence += 1
        record.topic, record.session, record.sequence = series.topic, series.session, series.sequence
        record.flags |= series.flags
        packed = wire.pack(record)
        if self._used > MESSAGE_SIZE_MAX - len(packed):
            self.flush()
        raw.copy(self._present, self._used, packed, 0, len(packed))
        self._used += len(packed)
        self._count += 1
        if self._used > MESSAGE_SIZE_MAX - RECORD_SIZE:
            self.flush()

    def flush(self) -> None:
        """Send the present message, if there is one."""
        # hot: `make bench-micro`, feed
        if not self._used:
            return
        message = self._taken()
        if self._direct.is_wanted:
            self._send_directly(message)
        self._send(message)

    def repeat(self, records: Iterable[bytes | bytearray]) -> None:
        """Send records as they are, to the merger alone; what was emitted before goes first."""
        self.flush()
        for record in records:
            if len(record) != RECORD_SIZE:
                raise ValueError("not a ticker record")
            raw.copy(self._present, self._used, record, 0, RECORD_SIZE)
            self._used += RECORD_SIZE
            self._count += 1
            if self._used > MESSAGE_SIZE_MAX - RECORD_SIZE:
                self._send(self._taken())
        if self._used:
            self._send(self._taken())

    def _taken(self) -> bytearray:
        """Take the present message out: it is gone from here, and counted, whatever comes of it."""
        message = self._present[: self._used]
        self.records += self._count
        self._used = self._count = 0
        return message

    def _send(self, message: bytearray) -> None:
        # In the first record alone: there the merger looks how long we took.
        raw.put_i64(message, PUBLISH_NS_OFFSET, self._clock())
        self._hop.send(message)

    def _send_directly(self, message: bytearray) -> None:
        start = 0
        while start < len(message):
            size = SIZES[raw.get_u8(message, start + KIND_OFFSET)]
            record = bytearray(raw.cut(message, start, size))
            start += size
            raw.put_i64(record, PUBLISH_NS_OFFSET, self._clock())
            self._direct.send(raw.cut(record, 0, TOPIC_SIZE), record)
        self._direct.flush()
