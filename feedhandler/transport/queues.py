"""One limit for all queues of a process: what waits for those who do not read, of all endpoints together.

Each queue has its own limit, too; but a thousand of them are a host's memory. Queues are granted room in steps, so
that nothing is counted per message. Once all of it is given away, the longest is cut: its subscriber starts anew,
as a late joiner, and gets the newest of each topic when it reads. Where that frees nothing the connection is ended.
"""

import logging
import os
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Protocol

MB: Final = 1 << 20
STEP: Final = 1 << 16
SHARE: Final = 8  # of memory, the eighth part, where nothing else is configured
CGROUP: Final = Path("/sys/fs/cgroup")

log = logging.getLogger("feedhandler.transport.zmtp")  # whose peers they are: repetitions are dropped there


class Holder(Protocol):
    """A connection with a queue; marks are ends of messages in it, counted as `sent` is."""

    room: int  # that it was granted, in bytes
    marks: deque[int]

    @property
    def is_open(self) -> bool: ...

    @property
    def queued(self) -> int: ...

    @property
    def sent(self) -> int: ...

    def close(self) -> None: ...


class Queues:
    """The room for all queues of a process, in bytes; cuts and closed count what happened at its limit."""

    def __init__(self, size_max: int) -> None:
        self.size_max = size_max
        self.size = 0  # granted
        self.cuts = 0
        self.closed = 0
        self._cut: dict[Any, Callable[[Any], bool]] = {}  # by holder

    def grant(self, holder: Holder, cut: Callable[[Any], bool]) -> bool:
        """Give a queue that has outgrown its room more of it; False if the holder itself was cut, or closed.

        cut shortens a queue and sees to it that nothing is missed for ever; it returns False if it cannot.
        """
        self._cut[holder] = cut
        holder.marks.append(holder.sent + holder.queued)
        more = ((holder.queued - holder.room) // STEP + 1) * STEP
        holder.room += more
        self.size += more
        is_whole = True
        while self.size > self.size_max and self._cut:
            longest = max(self._cut, key=_room)
            self._shorten(longest)
            is_whole = is_whole and longest is not holder
        return is_whole

    def _shorten(self, longest: Holder) -> None:
        before = longest.room
        if self._cut[longest](longest) and longest.is_open:
            room = min(before, -(-longest.queued // STEP) * STEP)
            longest.room = room
            self.size += room - before
            if room < before:
                self.cuts += 1
                log.warning("the limit for all queues (queues_mb) is reached: the longest was cut")
                return
        self.closed += 1
        log.warning("the limit for all queues (queues_mb) is reached: who has the longest was cut off")
        longest.close()
        self.release(longest)

    def release(self, holder: Holder) -> None:
        """Take back the room of a queue that is empty, or gone."""
        if self._cut.pop(holder, None) is not None:
            self.size -= holder.room
            holder.room = 0
            holder.marks.clear()


def _room(holder: Holder) -> int:
    return holder.room


def size_of(queues_mb: int) -> int:
    """Return the limit in bytes; 0: a share of this host's memory, or of what this process may have of it."""
    return queues_mb * MB if queues_mb else memory_size() // SHARE


def memory_size() -> int:
    """Return how many bytes this process may have at most: the host's, or those of its control group."""
    sizes = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    try:
        own = Path("/proc/self/cgroup").read_text(encoding="ascii").rpartition("::")[2].strip().lstrip("/")
        limit = (CGROUP / own / "memory.max").read_text(encoding="ascii").strip()
        if limit.isdigit():
            sizes.append(int(limit))
    except OSError:
        pass  # no such control groups here
    return min(sizes)
