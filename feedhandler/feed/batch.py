"""What leaves a feed: numbered records, joined to messages for the merger, and each alone to direct subscribers.

Pure: states come in, messages go out through the two ends that it is given, whoever owns them. Compiled where there
is a compiler, with the types of `batch.pxd`.
"""

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from feedhandler.data import raw, wire
from feedhandler.data.contracts import Fanout
from feedhandler.exchanges.state import State
from feedhandler.transport import calls
from feedhandler.transport.calls import clock_of

RECORDS_MAX: Final = 512  # tickers in one message: bounds it when a whole exchange is flagged at once
LONGEST: Final = wire.RECORD_SIZE_MAX

TOPIC_SIZE = wire.TOPIC_SIZE
HEADER_SIZE = wire.HEADER_SIZE
RECORD_SIZE = wire.TICKER_SIZE
SIZES = wire.SIZES
KIND_OFFSET = wire.KIND_OFFSET
SEQUENCE_OFFSET = wire.SEQUENCE_OFFSET
PUBLISH_NS_OFFSET = wire.PUBLISH_NS_OFFSET
MESSAGE_SIZE_MAX = RECORDS_MAX * RECORD_SIZE


class Hop(Protocol):
    """The way to the merger; it copies messages."""

    def send(self, message: bytes | bytearray) -> None: ...


class Batch:
    """The records that leave together; clock returns Unix nanoseconds. records counts those sent to the merger."""

    def __init__(self, hop: Hop, direct: Fanout, clock: Callable[[], int]) -> None:
        self._hop = hop
        self._direct = direct
        self._clock = clock_of(clock)
        self._present = bytearray(MESSAGE_SIZE_MAX + LONGEST)
        self._used = 0  # of that: whole records
        self._count = 0  # how many
        self.records = 0

    def emit(self, state: State) -> None:
        """Add a state's record to the present message, under the topic's next number, or its condition under none.

        A frame may bring any number of them.
        """
        # hot: `make bench-micro`, feed
        start = self._used
        takes_number = state.takes_number
        size = state.pack(self._present, start)
        if takes_number:  # now that nothing can fail any more
            state.sequence += 1
            raw.put_u64(self._present, start + SEQUENCE_OFFSET, state.sequence)
        if state.slot is not None:  # before anything else: whoever reads there is early by the hop
            state.slot.write(raw.cut(self._present, start, size), calls.unix_ns(self._clock))
        self._used = start + size
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
            size = len(record)
            if size < HEADER_SIZE or size > LONGEST or size != _stated_size(record):
                raise ValueError("not one record of a size that is known")
            raw.copy(self._present, self._used, record, 0, size)
            self._used += size
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
        raw.put_i64(message, PUBLISH_NS_OFFSET, calls.unix_ns(self._clock))
        self._hop.send(message)

    def _send_directly(self, message: bytearray) -> None:
        start = 0
        while start < len(message):
            size = SIZES[raw.get_u8(message, start + KIND_OFFSET)]
            if size < 0:
                size = wire.size_at(message, start)
            record = bytearray(raw.cut(message, start, size))
            start += size
            raw.put_i64(record, PUBLISH_NS_OFFSET, calls.unix_ns(self._clock))
            self._direct.send(raw.cut(record, 0, TOPIC_SIZE), record)
        self._direct.flush()


def _stated_size(record: bytes | bytearray) -> int:
    """Return the size of a record by its kind and its own counts, 0 if they do not give it."""
    kind = raw.get_u8(record, KIND_OFFSET)
    counts = wire.COUNTS[kind]
    if counts is None:
        return int(SIZES[kind])
    return wire.counted_size(record, 0, counts) if len(record) >= counts.head else 0
