"""The synchronous subscriber: an iterator of records that knows when it lost some. For one thread.

with Subscriber(topics=["ticker.binance."]) as subscriber:
    for record in subscriber:
        print(record.symbol, record.bid, record.ask)
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Self

from feedhandler.client.stream import (
    DEFAULT_ENDPOINT,
    PENDING_MAX,
    RECONNECT_S,
    Awaited,
    Curve,
    RecordSubscription,
    Stream,
    check_count,
)
from feedhandler.transport.follower import Record
from feedhandler.transport.loop import Loop

READS_MAX = 100  # to catch up: a publisher may be faster than we read


class Subscriber(RecordSubscription):
    """Receives the records of the topics that start with one of the prefixes; all of them by default.

    A prefix that ends with NUL is an exact topic, which `exact` makes of one. Reconnects by itself.
    Records that were seen before (a replay for another subscriber) are not returned again; those that were missed
    are counted (`lost`, `losses`).

    It reads when it has nothing left to return, so a consumer that is slow leaves the rest to the publisher's
    queue, where the mode decides.
    """

    def __init__(
        self,
        endpoint: str = DEFAULT_ENDPOINT,
        topics: Iterable[str] = ("",),
        *,
        mode: str | int = "",
        recover: bool | str | None = None,
        curve: Curve | None = None,
        spin_s: float = 0.0,
    ) -> None:
        """Raises ValueError for an endpoint, a topic or a mode that cannot be, TypeError if topics is no list.

        mode is how records are wanted: "all", "latest" (the newest of each topic, for those who may be slow), a
        number of milliseconds (the same, at most so often), or "within=50" (all, together what comes within so many
        milliseconds: for whoever is not to be woken for each). curve is for an endpoint on another host.

        With recover, missing records are requested: of the relay beside the endpoint (True), or at an endpoint.
        They come in their place as far as the relay has them, and newer ones of the topic wait for them, a second
        at most. A ticker replaces those before it, so only a program that needs each of them has a use for this;
        of kinds that keep every record (None, the default) the missing ones are asked for.

        spin_s is how long to go on looking, awake, before sleeping: to be woken costs some 30 us. It takes a
        processor of its own, and only there it pays.
        """
        self._loop = Loop()
        self._spin_s = spin_s
        self._is_awake = False
        self._poll_mono_s = 0.0  # when the stream is to be looked after, though nothing is amiss
        super().__init__(Stream(self._loop, endpoint, topics, mode=mode, recover=recover, curve=curve))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the sockets; what is queued is dropped."""
        if not self._stream.is_closed:
            super().close()
            self._loop.close()

    def __iter__(self) -> Iterator[Record]:
        """Yield records for ever."""
        # hot: `make bench`
        records, is_conflated = self._records, self._stream.is_conflated
        while True:
            while records:
                if is_conflated:
                    self._catch_up()
                yield records.popleft()
            self._wait(RECONNECT_S)

    def receive(self, timeout_s: float | None = None) -> Record | None:
        """Return the next record; None if there is none within timeout_s (None: wait for ever)."""
        if not self._records and not self._wait_until(lambda: bool(self._records), timeout_s):
            return None
        self._catch_up()
        return self._records.popleft()

    def receive_many(self, max_count: int = PENDING_MAX, timeout_s: float | None = None) -> list[Record]:
        """Return what has come, at most max_count records; waits for the first one, [] after timeout_s.

        Raises ValueError if max_count is not positive.
        """
        check_count(max_count)
        if not self._records:
            self._wait_until(lambda: bool(self._records), timeout_s)
        self._catch_up()
        return self._stream.take(max_count)

    def wait_for(self, *topics: str, timeout_s: float | None = None) -> dict[str, Record]:
        """Wait until each of the topics has had a live record, and return the newest of each; nothing is taken.

        What comes meanwhile is returned afterwards; of more than PENDING_MAX records only the newest of each
        topic. Raises TimeoutError with what is missing, and why as far as it is known; ValueError for a topic
        that is not subscribed to.
        """
        wanted = Awaited(self._stream, topics)

        def is_there() -> bool:
            if len(self._records) > PENDING_MAX:
                self._stream.condense()
            return wanted.is_there()

        if not self._wait_until(is_there, timeout_s):
            raise wanted.timeout(timeout_s)
        return wanted.found()

    def run(self, on_record: Callable[[Record], object], *, timeout_s: float | None = None) -> None:
        """Call back for each record, until `stop` is called or timeout_s has passed.

        What the callback raises ends it, and comes out of here; the records after that one are still to come.
        """
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        records = self._records
        while not self._is_stopping and (left_s := deadline - time.monotonic()) > 0:
            for _ in range(len(records)):
                self._catch_up()
                if not records:
                    break
                on_record(records.popleft())
                if self._is_stopping:
                    break
            else:
                self._wait(min(RECONNECT_S, left_s))
        self._is_stopping = False

    def stop(self) -> None:
        """End `run`, or the next one if there is none: from its callback, another thread, or a signal's handler."""
        self._is_stopping = True

    def _catch_up(self) -> None:
        """In a conflated mode, read all that is there, and keep each topic's newest: the others are old by now."""
        if not self._stream.is_conflated:
            return
        for _ in range(READS_MAX):
            waiting = len(self._records)
            self._loop.run_once(0.0)
            is_more = len(self._records) > waiting
            if len(self._records) > 1:
                self._stream.condense()
            if not is_more:
                break

    def _wait_until(self, is_true: Callable[[], bool], timeout_s: float | None) -> bool:
        deadline = math.inf if timeout_s is None else time.monotonic() + timeout_s
        while not is_true():
            self._wait(min(RECONNECT_S, max(0.0, deadline - time.monotonic())))
            if time.monotonic() >= deadline:
                return is_true()
        return True

    def _wait(self, timeout_s: float) -> None:
        """Take what comes within a while; connect first, if the publisher was away."""
        # hot: to look after the stream for each record takes as long as the record.
        stream, now_s = self._stream, time.monotonic()
        if now_s >= self._poll_mono_s or stream.is_recovering or not stream.is_connected:
            self._poll_mono_s = now_s + RECONNECT_S
            stream.poll()
        waiting = len(self._records)
        if self._spin_s and self._is_awake:  # in a market that pauses there is nothing to be early for
            deadline = time.monotonic() + min(self._spin_s, timeout_s)
            while len(self._records) == waiting and time.monotonic() < deadline:
                self._loop.run_once(0.0)
            if len(self._records) > waiting:
                return
        self._loop.run_once(timeout_s)
        self._is_awake = len(self._records) > waiting
