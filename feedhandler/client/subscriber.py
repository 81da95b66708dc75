"""The synchronous subscriber: an iterator of records that knows when it lost some. For one thread.

with Subscriber(topics=["ticker.binance."]) as subscriber:
    for record in subscriber:
        print(record.symbol, record.bid, record.ask)
"""

import time
from collections.abc import Iterator, Sequence
from types import TracebackType

from feedhandler import pace, wire
from feedhandler.client.stream import DEFAULT_ENDPOINT, RECONNECT_S, Curve, Stream
from feedhandler.follow import Loss
from feedhandler.transport import tick


class Subscriber:
    """Receives the records of the topics that start with one of the prefixes; all of them by default.

    A prefix that ends with NUL is an exact topic: `"ticker.binance.BTC/USDT\\0"`. Reconnects by itself.
    Records that were seen before (a replay for another subscriber) are not returned again; those that were missed
    are asked for, and come in their place as far as the relay has them.
    """

    def __init__(
        self,
        endpoint: str = DEFAULT_ENDPOINT,
        topics: Sequence[str] = ("",),
        *,
        mode: str | int = "",
        recover: str | None = None,
        curve: Curve | None = None,
        spin_s: float = 0.0,
    ) -> None:
        """Raises ValueError if endpoint is neither `tcp://HOST:PORT` nor `ipc://PATH`, or there is no such mode.

        mode is how records are wanted: "all", "latest" (the newest of each topic, for those who may be slow), or a
        number of milliseconds (the same, at most so often). recover is where missing records are asked for: beside
        the endpoint unless it says otherwise; "" is nowhere. curve is for an endpoint on another host.

        spin_s is how long to go on looking, awake, before sleeping: to be woken costs some 30 us. It takes a
        processor of its own, and only there it pays.
        """
        self._loop = tick.Loop()
        self._spin_s = spin_s
        self._is_awake = False
        self._stream = Stream(self._loop, endpoint, topics, mode=mode, recover=recover, curve=curve)
        self._records = self._stream.records

    def __enter__(self) -> "Subscriber":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; what is queued is dropped."""
        self._stream.close()
        self._loop.close()

    @property
    def losses(self) -> dict[bytes, Loss]:
        """What is known of each topic's sequence."""
        return self._stream.losses

    @property
    def undecodable(self) -> int:
        """How many messages this version could not read."""
        return self._stream.undecodable

    @property
    def lost(self) -> int:
        """How many records never arrived, over all topics; in a conflated mode, those that were passed over."""
        return sum(loss.lost for loss in self.losses.values())

    @property
    def recovered(self) -> int:
        """How many records came after all, because they were asked for."""
        return self._stream.recovered

    @property
    def notice(self) -> pace.Notice:
        """What the publisher last said of this subscriber: its mode, and how much of it was passed over."""
        return self._stream.notice

    def __iter__(self) -> Iterator[wire.Ticker | wire.Document]:
        """Yield records for ever."""
        # hot: `make bench`
        records = self._records
        while True:
            while records:
                yield records.popleft()
            self._wait(RECONNECT_S)

    def receive(self, timeout_s: float | None = None) -> wire.Ticker | wire.Document | None:
        """Return the next record; None if there is none within timeout_s (None: wait for ever)."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._records:
            left_s = RECONNECT_S if deadline is None else deadline - time.monotonic()
            self._wait(min(RECONNECT_S, max(0.0, left_s)))
            if deadline is not None and not self._records and time.monotonic() >= deadline:
                return None
        return self._records.popleft()

    def _wait(self, timeout_s: float) -> None:
        """Take what comes within a while; connect first, if the publisher was away."""
        self._stream.poll()
        if self._spin_s and self._is_awake:  # in a market that pauses there is nothing to be early for
            deadline = time.monotonic() + min(self._spin_s, timeout_s)
            while not self._records and time.monotonic() < deadline:
                self._loop.run_once(0.0)
            if self._records:
                return
        self._loop.run_once(timeout_s)
        self._is_awake = bool(self._records)
