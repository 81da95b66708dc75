"""How often each process was started again, in a file of its own under the run directory.

Each notes its own start, before anything can go wrong with it: so it is known whatever the supervisor is, and needs
nothing of it. Who starts a process by hand is no supervisor: that is not noted.
"""

import contextlib
import os
import time
from pathlib import Path
from typing import Final

import msgspec

from feedhandler.data.errors import UNDECODABLE
from feedhandler.data.processes import Starts, started
from feedhandler.transport import private

SIZE_MAX: Final = 1 << 20
START_FIELD: Final = 19  # of /proc/PID/stat, after the name: when it started, in ticks since the machine did


def note(run_dir: str, name: str) -> None:
    """Note that this process was started by its parent. Where nothing can be written, nothing is noted."""
    path = _path(run_dir, name)
    with contextlib.suppress(OSError):
        private.make_folder(path.parent)
        if private.refusal(Path(run_dir)):
            return  # the process itself will report it
        starts = started(_read(path), _identity(os.getppid()), time.time_ns())
        private.write_whole(path, msgspec.json.encode(starts), is_durable=False)


def read(run_dir: str, name: str) -> Starts | None:
    """Return how often the supervisor that runs now has started a process; None if none runs, or none was noted."""
    starts = _read(_path(run_dir, name))
    if starts is None:
        return None
    pid = starts.supervisor.partition(" ")[0]
    is_there = pid.isdecimal() and _identity(int(pid)) == starts.supervisor
    return starts if is_there else None


def _read(path: Path) -> Starts | None:
    try:
        return msgspec.json.decode(private.read_plain(path, SIZE_MAX), type=Starts)
    except (OSError, ValueError, *UNDECODABLE):
        return None


def _identity(pid: int) -> str:
    """Return what distinguishes a process from a later one with its pid; as much of it as can be had."""
    try:
        fields = (
            Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        )
        return f"{pid} {fields[START_FIELD]}"
    except (OSError, IndexError):
        return f"{pid}"


def _path(run_dir: str, name: str) -> Path:
    return Path(run_dir) / "processes" / f"{name}.json"
