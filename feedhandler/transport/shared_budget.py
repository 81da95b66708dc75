"""The budget for new connections that all processes of this host share: exchanges count them by address.

A file of times, one per exchange and address, under a lock that is held for a read and a write. A feed that dies
and comes back, over and over, finds there what its predecessors have used.
"""

import array
import contextlib
import errno
import fcntl
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from feedhandler.data.connecting import ConnectBudget
from feedhandler.data.units import NS_PER_S
from feedhandler.transport import private

OVERTAKEN_NS: Final = 60 * NS_PER_S  # longer than anybody waits between a look at the clock and at the file

log = logging.getLogger(__name__)


def path_of(exchange: str, url: str, folder: str = "", budget: str = "") -> Path:
    """Return the file of one exchange at one address, by default where all processes of this user find it.

    budget is the name under which the exchange counts, "" if that is its own.
    """
    host = re.sub(r"[^a-z0-9.]+", "-", url.lower())
    return (
        (Path(folder) if folder else _of_this_user())
        / "connects"
        / "-".join(filter(None, (exchange, budget, host)))
    )


def _of_this_user() -> Path:
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        return Path(runtime) / "feedhandler"
    return Path(tempfile.gettempdir()) / f"feedhandler-{os.getuid()}"


class SharedBudget(ConnectBudget):
    """Permission for new connections, shared through a file: `count` in any `per_s`.

    Times are the kernel's monotonic ones, the same in all processes. If the file cannot be used, this process
    keeps to the budget by itself, and logs that once.
    """

    def __init__(self, path: Path, count: int, per_s: float) -> None:
        super().__init__(count, per_s)
        self._path = path
        self._count = count
        self._has_warned = False

    def next_mono_ns(self, now_mono_ns: int, more: int = 1) -> int:
        """Return the earliest time at which so many more connections are permitted."""
        own = ConnectBudget.next_mono_ns(self, now_mono_ns, more)
        try:
            with self._open() as fd:
                return max(own, self._next(self._read(fd, now_mono_ns), more))
        except OSError as exc:
            self._warn(exc)
            return own

    def take(self, now_mono_ns: int, more: int = 1) -> bool:
        """Count so many connections, if they are permitted now."""
        try:
            with self._open() as fd:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go when it is closed
                times = self._read(fd, now_mono_ns)
                if self._next(times, more) > now_mono_ns:
                    return False
                times += [now_mono_ns] * more
                self._times.extend([now_mono_ns] * more)
                os.pwrite(fd, array.array("q", times[-self._count :]).tobytes(), 0)
                return True
        except BlockingIOError:
            return False
        except OSError as exc:
            self._warn(exc)
            return super().take(now_mono_ns, more)

    @contextlib.contextmanager
    def _open(self) -> Iterator[int]:
        folder = self._path.parent
        private.make_folder(folder)
        if folder.stat().st_uid != os.getuid():  # in a directory that everybody may write to
            raise PermissionError(errno.EPERM, f"{folder} belongs to somebody else")
        fd = private.open_file(self._path, os.O_RDWR | os.O_CREAT)
        try:
            yield fd
        finally:
            os.close(fd)

    def _read(self, fd: int, now_mono_ns: int) -> list[int]:
        """Return the times in order; those of before the last boot are far in this one's future.

        Others may be a little: whoever looked at its clock and then waited for a processor is not to forget them.
        """
        data = os.pread(fd, self._count * 8, 0)
        times = array.array("q", data[: len(data) // 8 * 8])
        return sorted(at for at in times if now_mono_ns - self._per_ns < at <= now_mono_ns + OVERTAKEN_NS)

    def _warn(self, exc: OSError) -> None:
        if not self._has_warned:
            self._has_warned = True
            log.warning("connections are counted for this process alone: %s: %s", self._path, exc.strerror)
