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
    lost: int = 0  # records missing in holes
    gaps: int = 0  # holes


class Follower:
    """Unpacks messages and passes on the records that were not seen before; follows each topic's sequence.

    losses is by topic; undecodable counts messages that this version cannot read.
    """

    def __init__(self, emit: Callable[[wire.Ticker | wire.Document], object]) -> None:
        self._emit = emit
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
        if self._is_news(record):
            self._emit(record)

    def _is_news(self, record: wire.Record) -> bool:
        """Follow the topic's sequence; False for a record that was seen before."""
        loss = self.losses.get(record.topic)
        if loss is None or loss.session != record.session:
            # The first of its topic, or of a new merger: what came before it is unknown, not lost.
            lost, gaps = (loss.lost, loss.gaps) if loss else (0, 0)
            self.losses[record.topic] = Loss(record.session, record.sequence, lost, gaps)
            return True
        missing = record.sequence - loss.sequence - 1
        if missing:
            if missing < 0:
                return False
            loss.lost += missing
            loss.gaps += 1
        loss.sequence = record.sequence
        return True
