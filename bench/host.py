"""What the operating system counts about a process, summed over its threads. Linux: it reads /proc."""

import contextlib
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Final

import msgspec

PACKAGES: Final = (
    "feedhandler", "picows", "msgspec", "pyzmq", "uvloop", "ccxt", "websockets", "numpy"
)  # fmt: skip


class Usage(msgspec.Struct, frozen=True):
    """CPU seconds and context switches since the start, and resident memory now."""

    cpu_s: float
    switches: int
    resident_mb: float

    def __sub__(self, earlier: "Usage") -> "Usage":
        """What was used since then; memory as it is now."""
        return Usage(self.cpu_s - earlier.cpu_s, self.switches - earlier.switches, self.resident_mb)


def usage(pid: int) -> Usage:
    """Return what a process used so far.

    CPU from schedstat, in nanoseconds: /proc/PID/stat, which psutil reads too, counts in hundredths of a
    second. Raises ProcessLookupError or FileNotFoundError if it is gone.
    """
    cpu_ns = switches = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            cpu_ns += int((task / "schedstat").read_text().split()[0])
            for line in (task / "status").read_text().splitlines():
                if "ctxt_switches" in line:
                    switches += int(line.split()[1])
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return Usage(cpu_ns / 1e9, switches, pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20))


def proportional_mb(pid: int) -> float:
    """Return a process's memory, in which what several processes share is divided among them."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def build() -> str:
    """Return how this interpreter is linked: one in a shared library is slower whenever it was asleep."""
    return "a shared library" if "libpython" in Path("/proc/self/maps").read_text() else "in one piece"


def description() -> dict[str, str]:
    """Return host and versions, for the head of a report."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if "model name" in line), platform.processor())
    facts = {
        "processor": model,
        "cores": str(len(os.sched_getaffinity(0))),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_version()}, {build()}",
    }
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            facts[package] = metadata.version(package)
    return facts
