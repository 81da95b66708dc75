"""The subscriber for asyncio, and for uvloop: the same stream, driven by the loop that runs.

async with AsyncSubscriber(topics=["ticker.binance."]) as subscriber:
    async for record in subscriber:
        print(record.symbol, record.bid, record.ask)
"""

import asyncio
import functools
import inspect
from collections.abc import Callable, Iterable
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


class AsyncSubscriber(RecordSubscription):
    """Receives the records of the topics that start with one of the prefixes; all of them by default.

    It is `Subscriber`, in a loop: records come while the program awaits something else. Of those that it does not
    take, pending_max wait here (and one read's worth on top); then the socket is not read until half of them are
    gone, and the rest waits at the publisher, where the mode decides. A task that is cancelled while it waits takes
    no record with it; several tasks may share a subscriber, each record goes to one of them.
    """

    def __init__(
        self,
        endpoint: str = DEFAULT_ENDPOINT,
        topics: Iterable[str] = ("",),
        *,
        mode: str | int = "",
        recover: bool | str | None = None,
        curve: Curve | None = None,
        pending_max: int = PENDING_MAX,
    ) -> None:
        """As `Subscriber`; it may be made before there is a loop, and connects when it is entered."""
        check_count(pending_max)
        self._pending_max = pending_max
        self._gate = Gate(self._after_read)
        # never shut: answers are few, and what waits for them is held back
        relay_gate = Gate(self._after_read)
        self._gates = (self._gate, relay_gate)
        self._has_come = asyncio.Event()  # records, a stop, or the end
        self._timer: asyncio.TimerHandle | None = None
        super().__init__(
            Stream(
                self._gate,
                endpoint,
                topics,
                mode=mode,
                recover=recover,
                curve=curve,
                is_patient=True,
                relay_events=relay_gate,
            )
        )

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for gate in self._gates:
            gate.loop = loop
        self._on_time(loop)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the sockets; what is queued is dropped. An `async for` ends, other calls raise RuntimeError."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        super().close()
        self._records.clear()
        self._has_come.set()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Record:
        # hot: `make bench-micro`, client
        while True:
            while not self._records:
                if self._stream.is_closed:
                    raise StopAsyncIteration
                await self._something()
            if self._stream.is_conflated:
                await self._catch_up()
            if self._records:  # another task may have taken them
                return self._pop()

    async def receive(self, timeout_s: float | None = None) -> Record | None:
        """Return the next record; None if there is none within timeout_s (None: wait for ever)."""
        if not self._records and not await self._wait_until(lambda: bool(self._records), timeout_s):
            return None
        if self._stream.is_conflated:
            await self._catch_up()
        return self._pop() if self._records else await self.receive(timeout_s)

    async def receive_many(
        self, max_count: int = PENDING_MAX, timeout_s: float | None = None
    ) -> list[Record]:
        """Return what has come, at most max_count records; waits for the first one, [] after timeout_s.

        Raises ValueError if max_count is not positive.
        """
        check_count(max_count)
        if not self._records:
            await self._wait_until(lambda: bool(self._records), timeout_s)
        if self._stream.is_conflated:
            await self._catch_up()
        taken = self._stream.take(max_count)
        self._open_again()
        return taken

    async def wait_for(self, *topics: str, timeout_s: float | None = None) -> dict[str, Record]:
        """Wait until each of the topics has had a live record, and return the newest of each; nothing is taken.

        What comes meanwhile is returned afterwards; of more than pending_max records only the newest of each
        topic. Raises TimeoutError with what is missing, and why as far as it is known; ValueError for a topic
        that is not subscribed to.
        """
        wanted = Awaited(self._stream, topics)

        def is_there() -> bool:
            if len(self._records) >= self._pending_max:
                self._stream.condense()
                self._gate.open()
            return wanted.is_there()

        if not await self._wait_until(is_there, timeout_s):
            raise wanted.timeout(timeout_s)
        return wanted.found()

    async def run(self, on_record: Callable[[Record], object], *, timeout_s: float | None = None) -> None:
        """Call back for each record, until `stop` is called or timeout_s has passed; what it returns is awaited.

        A plain function does as well as a coroutine function: one record at a time, in order. What the callback
        raises ends it, and comes out of here; the records after that one are still to come.
        """
        loop = asyncio.get_running_loop()
        deadline = None if timeout_s is None else loop.time() + timeout_s
        while not self._is_stopping:
            left_s = None if deadline is None else deadline - loop.time()
            if left_s is not None and left_s <= 0:
                break
            if not await self._wait_until(lambda: self._is_stopping or bool(self._records), left_s):
                break
            for _ in range(len(self._records)):
                if self._is_stopping or not self._records:  # another task may have taken them
                    break
                result = on_record(self._pop())
                if inspect.isawaitable(result):
                    await result
        self._is_stopping = False

    def stop(self) -> None:
        """End `run`, or the next one if there is none; to be called in the loop's thread."""
        self._is_stopping = True
        self._has_come.set()

    async def _catch_up(self) -> None:
        """In a conflated mode, let the loop read what is there, and keep each topic's newest."""
        for _ in range(2):  # as in `_wait_until`
            await asyncio.sleep(0)
        if self._records:
            self._stream.condense()

    def _pop(self) -> Record:
        record = self._records.popleft()
        if not self._gate.is_open:
            self._open_again()
        return record

    def _open_again(self) -> None:
        if not self._gate.is_open and len(self._records) <= self._pending_max // 2:
            self._gate.open()

    async def _wait_until(self, is_true: Callable[[], bool], timeout_s: float | None) -> bool:
        """Wait until something is true; False if it is not within timeout_s. Raises RuntimeError once closed."""
        if timeout_s is not None and timeout_s <= 0:
            for _ in range(
                2
            ):  # in the first turn the loop sees what is there, in the second it has been read
                await asyncio.sleep(0)
            self._check_usable()
            return is_true()
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    self._check_usable()
                    if is_true():
                        return True
                    await self._something()
        except TimeoutError:
            return is_true()

    async def _something(self) -> None:
        """Wait until a record has come, or something else has changed."""
        self._check_usable()
        self._has_come.clear()
        await self._has_come.wait()

    def _check_usable(self) -> None:
        if self._stream.is_closed:
            raise RuntimeError("the subscriber is closed; make another one")
        if self._timer is None:
            raise RuntimeError("the subscriber is not connected: use it in `async with`")

    # --- driven by the loop

    def _on_time(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = loop.call_later(RECONNECT_S, self._on_time, loop)
        self._turn()

    def _turn(self) -> None:
        if not self._stream.is_closed:
            self._stream.poll()
            self._note_records()

    def _after_read(self) -> None:
        # hot: `make bench-micro`, client
        if self._stream.is_recovering:
            self._stream.poll()
        self._note_records()

    def _note_records(self) -> None:
        if self._records:
            if len(self._records) >= self._pending_max:
                self._gate.shut()
            self._has_come.set()


class Gate:
    """The loop, as the sockets see it: reading can be shut off, and after each read somebody is called."""

    def __init__(self, after_read: Callable[[], None]) -> None:
        self._after_read = after_read
        self._readers: dict[int, Callable[[], None]] = {}
        self.loop: asyncio.AbstractEventLoop | None = None
        self.is_open = True

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        self._readers[fd] = functools.partial(self._read, callback)
        if self.is_open:
            self._loop.add_reader(fd, self._readers[fd])

    def remove_reader(self, fd: int) -> None:
        if self._readers.pop(fd, None) is not None and self.is_open:
            self._loop.remove_reader(fd)

    def add_writer(self, fd: int, callback: Callable[[], None]) -> None:
        self._loop.add_writer(fd, callback)

    def remove_writer(self, fd: int) -> None:
        self._loop.remove_writer(fd)

    def shut(self) -> None:
        """Read no more."""
        if self.is_open:
            self.is_open = False
            for fd in self._readers:
                self._loop.remove_reader(fd)

    def open(self) -> None:
        """Read again."""
        if not self.is_open:
            self.is_open = True
            for fd, read in self._readers.items():
                self._loop.add_reader(fd, read)

    @property
    def _loop(self) -> asyncio.AbstractEventLoop:
        assert self.loop is not None, "there is no socket before the subscriber was entered"
        return self.loop

    def _read(self, callback: Callable[[], None]) -> None:
        # hot: `make bench-micro`, client
        callback()
        self._after_read()
