"""What every process of ours does alike: logs, signals, and not outliving its supervisor."""

import ctypes
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Final

from feedhandler.errors import ConfigError

SUPERVISED_ENV: Final = "FEEDHANDLER_SUPERVISED"  # set by the supervisor's configuration
PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


def set_up_logging(name: str, *, is_verbose: bool = False) -> None:
    """Log state changes to standard error, which the supervisor writes to a rotated file."""
    logging.Formatter.converter = time.gmtime
    logging.basicConfig(
        level=logging.DEBUG if is_verbose else logging.INFO,
        format=f"%(asctime)s.%(msecs)03dZ %(levelname)s {name}[{os.getpid()}]: %(message)s",
        datefmt="%Y-%m-%dT%H:%M:%S",
        force=True,
    )
    # One line a connection at INFO; we log these changes ourselves, with the reason.
    logging.getLogger("picows").setLevel(logging.DEBUG if is_verbose else logging.ERROR)


def die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent dies, so that a killed supervisor leaves nothing behind.

    Linux only; elsewhere a killed supervisor leaves its children running. No allocation-heavy work: it also
    runs between fork and exec.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def follow_supervisor() -> None:
    """End with the supervisor, if there is one."""
    if not os.environ.get(SUPERVISED_ENV):
        return
    parent = os.getppid()
    die_with_parent()
    if os.getppid() != parent:  # it died before we asked
        raise SystemExit(0)


def use_cpus(cpus: Sequence[int], where: str) -> None:
    """Keep this process, and the threads that it starts from now on, on these processors; all if there are none.

    Raises ConfigError if the machine does not have them.
    """
    if not cpus:
        return
    try:
        os.sched_setaffinity(0, cpus)
    except OSError as exc:
        there = ", ".join(map(str, sorted(os.sched_getaffinity(0))))
        raise ConfigError(f"{where}: {list(cpus)} are not there; this machine lets us use {there}") from exc


def settle() -> None:
    """Take what exists by now out of the garbage collector's rounds: it will live as long as the process."""
    gc.collect()
    gc.freeze()


def on_stop_signals(callback: Callable[[], None]) -> None:
    """Call back on SIGTERM and SIGINT, in the main thread between two bytecodes."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: callback())
