"""What a subscriber makes of messages: the records that are news, and the holes in each topic's sequence.

Pure: messages come in, records go out through a callable. `Follower` has a compiled twin beside the sockets.
"""

from collections.abc import Callable

import msgspec

from feedhandler import wire
from feedhandler.errors import DecodeError


class Loss(msgspec.Struct):
    """What a subscriber knows of one topic's sequence."""

    session: int
    sequence: int  # newest seen
    lost: int = 0  # records missing in holes, less those that came after all
    gaps: int = 0  # holes
    recovered: int = 0  # records that came after all, because they were asked for


Record = wire.Ticker | wire.Document
OnHole = Callable[[Record, Loss, int], bool]
OnNotice = Callable[[wire.Document], object]


class Follower:
    """Unpacks messages and passes on the records that were not seen before; follows each topic's sequence.

    losses is by topic; undecodable counts messages that this version cannot read. on_hole is called with a record
    before which others are missing, what is known of its topic, and the first number that is missing; True: it has
    taken the record. While a topic is in held, its records are added to the list there. on_notice takes what the
    publisher says of this subscriber; without it these are records like others.
    """

    def __init__(
        self,
        emit: Callable[[Record], object],
        on_hole: OnHole | None = None,
        on_notice: OnNotice | None = None,
    ) -> None:
        self._emit = emit
        self.on_hole = on_hole
        self._on_notice = on_notice
        self.held: dict[bytes, list[Record]] = {}
        self.losses: dict[bytes, Loss] = {}
        self.undecodable = 0

    def __call__(self, message: bytes | memoryview) -> None:
        """Take a message, which at a batch endpoint may hold several records."""
        # hot: `make bench-micro`, client
        if wire.is_batch(message):
            for start in range(0, len(message), wire.TICKER_SIZE):
                self._take(message[start : start + wire.TICKER_SIZE])
        else:
            self._take(message)

    def _take(self, message: bytes | memoryview) -> None:
        try:
            record = wire.unpack(message)
        except DecodeError:
            self.undecodable += 1
            return
        if record.kind == wire.NOTICE and self._on_notice is not None:
            assert isinstance(record, wire.Document), "tickers have a kind of their own"
            self._on_notice(record)
            return
        if not self._is_news(record):
            return
        if self.held and (held := self.held.get(record.topic)) is not None:
            held.append(record)
        else:
            self._emit(record)

    def _is_news(self, record: Record) -> bool:
        """Follow the topic's sequence; False for a record that was seen before, or that was taken for later."""
        loss = self.losses.get(record.topic)
        if loss is None or loss.session != record.session:
            # The first of its topic, or of a new merger: what came before it is unknown, not lost.
            before = loss or Loss(0, 0)
            self.losses[record.topic] = Loss(
                record.session, record.sequence, before.lost, before.gaps, before.recovered
            )
            return True
        first = loss.sequence + 1
        missing = record.sequence - first
        if missing < 0:
            return False
        loss.sequence = record.sequence
        if missing:
            loss.lost += missing
            loss.gaps += 1
            if self.on_hole is not None and self.on_hole(record, loss, first):
                return False
        return True
