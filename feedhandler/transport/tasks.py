"""Tasks that talk to the outside: what they raise is taken in one place, and their ends have a limit.

Nobody can name every error of every library in advance, and none of them is worth a process that others depend
on. So what was not foreseen is counted, logged with its traceback the first time, and waited out, longer each time
in a row. What goes on and ends the process: an assertion of ours that failed, since then our own state is not what
we think; a configuration that cannot be used; and a plain `FeedError`, such as for a file that is gone.
"""

import asyncio
import contextlib
import logging
import time
import traceback
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from feedhandler.data.errors import ConfigError, FeedError, ProtocolError, one_line

PAUSE_S: Final = (1.0, 60.0)  # after the first, doubling up to the last
FORGET_S: Final = 60.0  # without a failure, after which the next one is the first again
END_TASKS_S: Final = 0.5  # for tasks to end that were cancelled
PACKAGE: Final = __name__.partition(".")[0]

log = logging.getLogger(__name__)


class Failures:
    """What was not foreseen in one process; counts are by place and type."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        # of each place: the newest one, and when it is over
        self._pauses: dict[str, tuple[float, float]] = {}

    @contextlib.contextmanager
    def converted(self, place: str, *foreseen: type[Exception], is_secret: bool = False) -> Iterator[None]:
        """Raise a ProtocolError for whatever is raised within, but for our own errors, and those foreseen.

        is_secret: its text may hold what is nobody's business.
        """
        try:
            yield
        except FeedError:
            raise
        except foreseen:
            raise
        except Exception as exc:  # noqa: BLE001  # this is the one place
            pause_s = self.take(place, exc, is_secret=is_secret)
            said = "" if is_secret else f": {one_line(exc)}"
            raise ProtocolError(f"{place}: {type(exc).__name__}{said}", pause_s) from None

    async def attempt(self, place: str, work: Callable[[], Awaitable[None]]) -> float | None:
        """Do a work; return None if it was done, else for how long to leave it alone, in s."""
        try:
            await work()
        except asyncio.CancelledError as exc:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return self.take(place, exc)  # it is not we who are cancelled, but something in a library
        except Exception as exc:  # noqa: BLE001  # and this, for tasks
            return self.take(place, exc)
        return None

    def attempt_now(self, place: str, work: Callable[[], object]) -> float | None:
        """The same for a work that waits for nothing, where there is no event loop of asyncio's."""
        try:
            work()
        except Exception as exc:  # noqa: BLE001  # and this, for loops of our own
            return self.take(place, exc)
        return None

    async def endure(self, place: str, work: Callable[[], Awaitable[None]]) -> None:
        """Do a work, and begin it again after whatever it raised, until it returns."""
        pause_s = await self.attempt(place, work)
        while pause_s is not None:
            await asyncio.sleep(pause_s)
            pause_s = await self.attempt(place, work)

    def on_loop_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """For `set_exception_handler`: what a callback has raised, or a task whose result nobody fetched."""
        exc = context.get("exception")
        if not isinstance(exc, Exception) or is_fatal(exc):
            loop.default_exception_handler(context)
            return
        frames = traceback.extract_tb(exc.__traceback__)
        where = f", at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        self.take(f"a callback{where}", exc)

    def take(self, place: str, exc: BaseException, *, is_secret: bool = False) -> float:
        """Count an error and log the first of its kind; return for how long to leave the place alone, in s.

        Raises it again if it is to end the process.
        """
        if is_fatal(exc):
            raise exc
        pause_s = self._pause_s(place)
        kind = f"{place}: {type(exc).__name__}"
        self.counts[kind] += 1
        count = self.counts[kind]
        if count & (count - 1) == 0:  # the first, second, fourth, …
            said = type(exc).__name__ if is_secret else f"{type(exc).__name__}: {one_line(exc)}"
            where = f"\n{''.join(traceback.format_tb(exc.__traceback__))}" if count == 1 else ""
            log.error(
                "%s: unforeseen, %d times by now; tried again in %.0f s: %s%s",
                place,
                count,
                pause_s,
                said,
                where,
            )
        return pause_s

    def _pause_s(self, place: str) -> float:
        first_s, last_s = PAUSE_S
        now = time.monotonic()
        before_s, over_mono_s = self._pauses.get(place, (0.0, 0.0))
        if now < over_mono_s:  # one event that many tasks meet
            return before_s
        pause_s = min(last_s, 2 * before_s) if before_s and now < over_mono_s + FORGET_S else first_s
        self._pauses[place] = pause_s, now + pause_s
        return pause_s


def is_fatal(exc: BaseException) -> bool:
    """Whether an error is to end the process; see above. An assertion of a library's is an error like others."""
    if isinstance(exc, AssertionError):
        trace = exc.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        module = PACKAGE if trace is None else trace.tb_frame.f_globals.get("__name__", "")
        return str(module).partition(".")[0] == PACKAGE
    return isinstance(exc, ConfigError) or type(exc) is FeedError


async def end_tasks(tasks: Iterable[asyncio.Task[Any]], limit_s: float = END_TASKS_S) -> None:
    """Cancel tasks, and wait for their ends; one that does not end is left behind, and named.

    Halfway they are cancelled again: a library may lose a cancellation, as `asyncio.wait_for` of Python 3.11 does.
    """
    waiting = set(tasks)
    for _ in range(2):
        for task in waiting:
            task.cancel()
        if waiting:
            _, waiting = await asyncio.wait(waiting, timeout=limit_s / 2)
    for task in waiting:
        log.error("a task does not end and is left behind: %s", task.get_name())
