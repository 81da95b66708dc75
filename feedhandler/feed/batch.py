"""What leaves a feed: numbered records, joined to messages for the merger, and each alone to direct subscribers.

Pure: states come in, messages go out through the two ends that it is given, whoever owns them. `Batch` has a
compiled twin beside the sockets.
"""

from collections.abc import Callable, Iterable
from typing import Final, Protocol

from feedhandler.data import wire
from feedhandler.exchanges.base import State

RECORDS_MAX: Final = 512  # in one message: bounds it when a whole exchange is flagged at once


class Hop(Protocol):
    """The way to the merger; it copies messages."""

    def send(self, message: bytes | bytearray) -> None: ...


class Direct(Protocol):
    """The way to direct subscribers; topic is padded."""

    is_wanted: bool  # while at least one subscription covers tickers

    def send(self, topic: bytes, message: bytes | bytearray) -> None: ...

    def flush(self) -> None: ...


class Batch:
    """The records that leave together; clock returns Unix nanoseconds. records counts those sent to the merger."""

    def __init__(self, hop: Hop, direct: Direct, clock: Callable[[], int]) -> None:
        self._hop = hop
        self._direct = direct
        self._clock = clock
        self._present: list[bytes | bytearray] = []
        self.records = 0

    def emit(self, state: State) -> None:
        """Number a state's record, and add it to the present message."""
        # hot: `make bench-micro`, feed
        state.sequence += 1
        record = state.record()
        if state.slot is not None:  # before anything else: whoever reads there is early by the hop
            state.slot.write(record, self._clock())
        self._present.append(record)
        if len(self._present) >= RECORDS_MAX:
            self.flush()

    def flush(self) -> None:
        """Send the present message, if there is one."""
        # hot: `make bench-micro`, feed
        if not self._present:
            return
        records = self._taken()
        if self._direct.is_wanted:
            for record in records:
                message = bytearray(record)
                wire.TIME.pack_into(message, wire.PUBLISH_NS_OFFSET, self._clock())
                self._direct.send(bytes(record[: wire.TOPIC_SIZE]), message)
            self._direct.flush()
        self._send(records)

    def repeat(self, records: Iterable[bytes | bytearray]) -> None:
        """Send records as they are, to the merger alone; what was emitted before goes first."""
        self.flush()
        for record in records:
            if len(record) != wire.TICKER_SIZE:
                raise ValueError("not a ticker record")
            self._present.append(record)
            if len(self._present) >= RECORDS_MAX:
                self._send(self._taken())
        if self._present:
            self._send(self._taken())

    def _taken(self) -> list[bytes | bytearray]:
        """Take the present message out: it is gone from here, and counted, whatever comes of it."""
        records, self._present = self._present, []
        self.records += len(records)
        return records

    def _send(self, records: list[bytes | bytearray]) -> None:
        message = bytearray().join(records)
        # In the first record alone: there the merger looks how long we took.
        wire.TIME.pack_into(message, wire.PUBLISH_NS_OFFSET, self._clock())
        self._hop.send(message)
