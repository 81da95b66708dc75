"""Subscribing from Python: an iterator of records that knows when it lost some.

    with Subscriber(topics=["ticker.binance."]) as subscriber:
        for record in subscriber:
            print(record.symbol, record.bid, record.ask)

Synchronous and for one thread. The bytes behind it are in `wire`, and in `docs/wire.md` for other languages.
"""

import collections
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Final

import msgspec
import zmq

from feedhandler import wire
from feedhandler.errors import DecodeError
from feedhandler.transport import zmq_sockets

DEFAULT_ENDPOINT: Final = "tcp://127.0.0.1:5555"


class Loss(msgspec.Struct):
    """What a subscriber knows of one topic's sequence."""

    session: int
    sequence: int  # newest seen
    lost: int = 0  # records missing in holes
    gaps: int = 0  # holes


class Subscriber:
    """Receives the records of the topics that start with one of the prefixes; all of them by default.

    A prefix that ends with NUL is an exact topic: `"ticker.binance.BTC/USDT\\0"`. Reconnects by itself.
    Records that were seen before (a replay for another subscriber) are not returned again.
    `undecodable` counts messages that this version cannot read.
    """

    def __init__(self, endpoint: str = DEFAULT_ENDPOINT, topics: Sequence[str] = ("",)) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
        prefixes = [topic.encode() for topic in topics]
        self._socket = zmq_sockets.ticks_subscriber(self._context, endpoint, prefixes)
        self.losses: dict[bytes, Loss] = {}
        self.undecodable = 0
        self._waiting: collections.deque[wire.Ticker | wire.Document] = collections.deque()  # of a batch

    def __enter__(self) -> "Subscriber":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; what is queued is dropped."""
        self._socket.close()
        self._context.term()

    @property
    def lost(self) -> int:
        """How many records never arrived, over all topics."""
        return sum(loss.lost for loss in self.losses.values())

    def __iter__(self) -> Iterator[wire.Ticker | wire.Document]:
        """Yield records for ever."""
        # hot: `make bench-micro`, client. A blocking receive: to try first and then poll cost 25 us more.
        receive = self._socket.recv
        while True:
            message = receive()
            if len(message) <= wire.TICKER_SIZE:
                if (record := self._take(message)) is not None:
                    yield record
            else:
                yield from self._take_batch(message)

    def receive(self, timeout_s: float | None = None) -> wire.Ticker | wire.Document | None:
        """Return the next record; None if there is none within timeout_s (None: wait for ever)."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            if self._waiting:
                return self._waiting.popleft()
            left_ms = None if deadline is None else max(0, int((deadline - time.monotonic()) * 1000))
            if left_ms is not None and not self._socket.poll(left_ms):
                return None
            self._waiting.extend(self._take_batch(self._socket.recv()))

    def _take_batch(self, message: bytes) -> Iterator[wire.Ticker | wire.Document]:
        """Yield the new records of a message, which at a batch endpoint may be several."""
        if wire.is_batch(message):
            for start in range(0, len(message), wire.TICKER_SIZE):
                if (record := self._take(message[start : start + wire.TICKER_SIZE])) is not None:
                    yield record
        elif (record := self._take(message)) is not None:
            yield record

    def _take(self, message: bytes) -> wire.Ticker | wire.Document | None:
        """Return the record, None if it is no news: undecodable, or seen before."""
        try:
            record = wire.unpack(message)
        except DecodeError:
            self.undecodable += 1
            return None
        loss = self.losses.get(record.topic)
        if loss is None or loss.session != record.session:
            # The first of its topic, or of a new merger: what came before it is unknown, not lost.
            lost, gaps = (loss.lost, loss.gaps) if loss else (0, 0)
            self.losses[record.topic] = Loss(record.session, record.sequence, lost, gaps)
            return record
        missing = record.sequence - loss.sequence - 1
        if missing:
            if missing < 0:
                return None
            loss.lost += missing
            loss.gaps += 1
        loss.sequence = record.sequence
        return record
