"""What drives sockets: the part of an event loop that they need, and the smallest one there can be.

`Loop` is for processes that have nothing to do but sockets; compiled where there is a compiler, with the types of
`loop.pxd`. asyncio's loops will do as well.
"""

import contextlib
import heapq
import select
from collections.abc import Callable
from typing import Any, Protocol

from feedhandler.data import modes, raw
from feedhandler.data.contracts import Readable
from feedhandler.transport import calls
from feedhandler.transport.subscribing import Cancellable

READY_MAX = 64  # taken from the kernel at once
TIMEOUT_MS_MAX = 1_000_000_000
EPOLLOUT = select.EPOLLOUT
NEVER = modes.NEVER


class Events(Protocol):
    """The part of an event loop that sockets need."""

    def add_reader(self, fd: int, callback: Callable[[], Any]) -> object: ...

    def remove_reader(self, fd: int) -> object: ...

    def add_writer(self, fd: int, callback: Callable[[], Any]) -> object: ...

    def remove_writer(self, fd: int) -> object: ...


class TimedEvents(Events, Protocol):
    """The same with a clock: what endpoints that bind need."""

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Cancellable: ...


class Timer:
    """A callback that is due at a time."""

    def __init__(self, due_mono_ns: int, callback: Callable[[], None]) -> None:
        self.due_mono_ns = due_mono_ns
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Do not call back."""
        self.callback = None

    def __lt__(self, other: "Timer") -> bool:
        return self.due_mono_ns < other.due_mono_ns


class Timers:
    """The callbacks of a loop that wait for their time."""

    def __init__(self) -> None:
        self._heap: list[Timer] = []

    def due_mono_ns(self) -> int:
        """When `run` is to be called; `NEVER` if nothing waits."""
        if not self._heap:
            return NEVER
        timer = self._heap[0]
        return timer.due_mono_ns

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Have `run` call back once so much time has passed."""
        timer = Timer(calls.monotonic_ns() + int(delay_s * 1e9), callback)
        heapq.heappush(self._heap, timer)
        return timer

    def run(self, now_mono_ns: int) -> None:
        """Call back for all that is due, but not for what that puts off."""
        due = []
        while self._heap and self._heap[0].due_mono_ns <= now_mono_ns:
            due.append(heapq.heappop(self._heap))
        for timer in due:
            if timer.callback is not None:
                timer.callback()


class Loop:
    """The smallest event loop: epoll and callbacks, for a process that has nothing to do but sockets.

    is_alone: no other thread of the process is let run while this one waits, which costs 340 instructions a turn.
    """

    def __init__(self, *, is_alone: bool = False) -> None:
        self._epoll = select.epoll()
        self._fd = self._epoll.fileno()
        self._found = bytearray(READY_MAX * calls.READY_SIZE)
        self._readers: dict[int, Callable[[], object]] = {}
        self._streams: list[Readable | None] = []  # by file descriptor, of those that read
        self._is_alone = is_alone
        self._writers: dict[int, Callable[[], object]] = {}
        self._timers = Timers()
        self._is_open = True

    def run_once(self, timeout_s: float) -> None:
        """Wait for something, and call back for all that is there or due."""
        timeout_s = min(timeout_s, 1e9) if timeout_s > 0 else 0.0  # or no number
        until_mono_ns = calls.monotonic_ns() + int(timeout_s * 1e9)
        self._run(until_mono_ns)

    def run_until(self, mono_ns: int) -> None:
        """Call back for all that comes until then."""
        while calls.monotonic_ns() < mono_ns:
            self._run(mono_ns)

    def _run(self, until_mono_ns: int) -> None:
        # hot: `make bench`
        if not self._is_open:
            raise ValueError("the loop is closed")
        due_mono_ns = self._timers.due_mono_ns()
        left_ns = min(until_mono_ns, due_mono_ns) - calls.monotonic_ns()
        timeout_ms = min(TIMEOUT_MS_MAX, (left_ns + 999_999) // 1_000_000) if left_ns > 0 else 0
        count = calls.wait(self._epoll, self._fd, self._found, timeout_ms, self._is_alone)
        for index in range(count):
            at = index * calls.READY_SIZE
            mask = raw.get_u32(self._found, at)
            fd = raw.get_u32(self._found, at + 4)
            if mask & ~EPOLLOUT:
                stream = self._streams[fd] if fd < len(self._streams) else None
                if stream is not None:
                    stream.read()
                else:
                    callback = self._readers.get(fd)
                    if callback is not None:
                        callback()
            if mask & EPOLLOUT:
                callback = self._writers.get(fd)
                if callback is not None:
                    callback()
        if due_mono_ns != NEVER:
            now_mono_ns = calls.monotonic_ns()
            if now_mono_ns >= due_mono_ns:
                self._timers.run(now_mono_ns)

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer:
        """Call back once so many seconds have passed."""
        return self._timers.call_later(delay, callback)

    def add_reader(self, fd: int, callback: Callable[[], object]) -> None:
        self._readers[fd] = callback
        self._update(fd)
        owner = getattr(callback, "__self__", None)
        is_stream = isinstance(owner, Readable) and callback == owner.read
        self._streams += [None] * (fd + 1 - len(self._streams))  # it is one that the kernel knows by now
        self._streams[fd] = owner if is_stream else None

    def remove_reader(self, fd: int) -> None:
        self._readers.pop(fd, None)
        if 0 <= fd < len(self._streams):
            self._streams[fd] = None
        self._update(fd)

    def add_writer(self, fd: int, callback: Callable[[], object]) -> None:
        self._writers[fd] = callback
        self._update(fd)

    def remove_writer(self, fd: int) -> None:
        self._writers.pop(fd, None)
        self._update(fd)

    def _update(self, fd: int) -> None:
        wanted = (select.EPOLLIN if fd in self._readers else 0) | (
            select.EPOLLOUT if fd in self._writers else 0
        )
        if not wanted:
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)
            return
        try:
            self._epoll.modify(fd, wanted)
        except FileNotFoundError:
            self._epoll.register(fd, wanted)

    def close(self) -> None:
        self._is_open = False
        self._epoll.close()
