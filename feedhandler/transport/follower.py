"""What a subscriber makes of messages: the records that are news, and the holes in each topic's sequence.

Pure: messages come in, records go out through a callable. `Follower` has a compiled twin beside the sockets.
"""

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from feedhandler.data import wire
from feedhandler.data.errors import DecodeError


class Loss(msgspec.Struct):
    """What a subscriber knows of one topic's sequence."""

    session: int
    sequence: int  # newest seen
    lost: int = 0  # records missing in holes, less those that came after all
    gaps: int = 0  # holes
    recovered: int = 0  # records that came after all, because they were asked for


Record = wire.Ticker | wire.Document
OnHole = Callable[[Record, int], bool]
Aside = Mapping[int, Callable[[wire.Document], bool]]
NOBODY: Final[Aside] = {}


class Follower:
    """Unpacks messages and passes on the records that were not seen before; follows each topic's sequence.

    losses and newest (the newest record that has come) are by topic; undecodable counts messages that this version
    cannot read. on_hole is called with a record before which others are missing, and the first number that is
    missing; True: it has taken the record. While a topic is in held, its records are added
    to the list there. aside has, by kind, who is asked about a document first; True: it is for nobody else.
    """

    def __init__(
        self,
        emit: Callable[[Record], object],
        on_hole: OnHole | None = None,
        aside: Aside = NOBODY,
    ) -> None:
        self._emit = emit
        self.on_hole = on_hole
        self._aside = aside
        self.held: dict[bytes, list[Record]] = {}
        self.losses: dict[bytes, Loss] = {}
        self.newest: dict[bytes, Record] = {}
        self.undecodable = 0

    def __call__(self, message: bytes | memoryview) -> None:
        """Take a message, which at a batch endpoint may hold several records."""
        # hot: `make bench-micro`, client
        if wire.is_batch(message):
            for start in range(0, len(message), wire.TICKER_SIZE):
                if message[start + wire.KIND_OFFSET] == wire.TICKER:
                    self._take(message[start : start + wire.TICKER_SIZE])
                else:  # nothing else is sent with others
                    self.undecodable += 1
        else:
            self._take(message)

    def _take(self, message: bytes | memoryview) -> None:
        try:
            record = wire.unpack(message)
        except DecodeError:
            self.undecodable += 1
            return
        if isinstance(record, wire.Document):
            take_aside = self._aside.get(record.kind)
            if take_aside is not None and take_aside(record):
                return
        missing = self._follow(record)
        if missing < 0:
            return
        self.newest[record.topic] = record
        if missing and self.on_hole is not None and self.on_hole(record, record.sequence - missing):
            return
        if self.held and (held := self.held.get(record.topic)) is not None:
            held.append(record)
        else:
            self._emit(record)

    def _follow(self, record: wire.Record) -> int:
        """Follow the topic's sequence; returns how many are missing before this record, -1 if it is no news."""
        loss = self.losses.get(record.topic)
        if loss is None or loss.session != record.session:
            # The first of its topic, or of a new merger: what came before it is unknown, not lost.
            before = loss or Loss(0, 0)
            self.losses[record.topic] = Loss(
                record.session, record.sequence, before.lost, before.gaps, before.recovered
            )
            return 0
        missing = record.sequence - loss.sequence - 1
        if missing < 0:
            return -1
        loss.sequence = record.sequence
        if missing:
            loss.lost += missing
            loss.gaps += 1
        return missing


class Gatherer(Follower):
    """Follows as `Follower` does, and copies the ticker records that are news into one buffer, as they came.

    No object is made of a record: there is no newest of them, and nothing is held back. Documents go aside, or
    become the newest of their topic.
    """

    def __init__(self, aside: Aside = NOBODY) -> None:
        super().__init__(_ignore, None, aside)
        self._records = bytearray()

    @property
    def count(self) -> int:
        """How many records are in the buffer."""
        return len(self._records) // wire.TICKER_SIZE

    def collect(self) -> bytearray:
        """Return the buffer, which belongs to the caller; what comes next goes to another one."""
        records, self._records = self._records, bytearray()
        return records

    def _take(self, message: bytes | memoryview) -> None:
        # hot: `make bench-micro`, client
        if len(message) != wire.TICKER_SIZE or message[wire.KIND_OFFSET] != wire.TICKER:
            super()._take(message)
            return
        topic, version, *fields = wire.HEADER.unpack_from(message)
        if version != wire.VERSION or topic[wire.TOPIC_BYTES_MAX]:
            self.undecodable += 1
            return
        if self._follow(wire.Record(topic.rstrip(b"\0"), version, *fields)) >= 0:
            self._records += message


def _ignore(record: Record) -> None:
    pass
