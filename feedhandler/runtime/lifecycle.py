"""What every process of ours does alike: logs, signals, and not outliving its supervisor."""

import asyncio
import ctypes
import gc
import logging
import os
import resource
import select
import signal
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Final

from pythonjsonlogger.msgspec import MsgspecFormatter

from feedhandler.data import hints
from feedhandler.data.errors import EXIT_FAILED, EXIT_OK, ConfigError, one_line
from feedhandler.runtime.settings import Config
from feedhandler.transport import starts
from feedhandler.transport.tasks import Failures, end_tasks

SUPERVISED_ENV: Final = "FEEDHANDLER_SUPERVISED"  # set by the supervisor's configuration
PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
PR_SET_DUMPABLE: Final = 4
CPUS_MAX: Final = 1024  # as many as the kernel numbers at most
END_S: Final = 4.0  # for a process to end in order; each of its parts takes less

log = logging.getLogger(__name__)


def set_up_logging(name: str, *, is_verbose: bool = False) -> None:
    """Log state changes to standard error, which the supervisor writes to a rotated file.

    For people on a terminal; elsewhere each line is a JSON object, also that of an exception that ends the process.
    """
    handler = logging.StreamHandler()
    handler.addFilter(_spell)
    handler.setFormatter(_for_people(name) if sys.stderr.isatty() else _for_programs(name))
    logging.basicConfig(level=logging.DEBUG if is_verbose else logging.INFO, handlers=[handler], force=True)
    sys.excepthook = _log_exception
    set_up_picows_log(is_verbose=is_verbose)


def _spell(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    if (spelled := hints.spelled(text)) != text:
        record.msg, record.args = spelled, None
    return True


def set_up_messages() -> None:
    """Let a command that only looks log what our client logs, such as why nothing comes."""
    handler = logging.StreamHandler()
    handler.addFilter(_spell)
    handler.setFormatter(logging.Formatter("feedhandler: %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)


def set_up_picows_log(*, is_verbose: bool) -> None:
    """Let picows log nothing of its own: we log its changes ourselves, with the reason in words."""
    logging.getLogger("picows").setLevel(logging.DEBUG if is_verbose else logging.CRITICAL)


def _for_people(name: str) -> logging.Formatter:
    logging.Formatter.converter = time.gmtime
    return _OneLine(
        f"%(asctime)s.%(msecs)03dZ %(levelname)s {name}[{os.getpid()}]: %(message)s", "%Y-%m-%dT%H:%M:%S"
    )


class _OneLine(logging.Formatter):
    """What a library words in several lines is one; a traceback follows it in its own."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        if not record.name.startswith(f"{__package__.partition('.')[0]}."):
            record.message = one_line(record.message)
        return super().formatMessage(record)


def _for_programs(name: str) -> logging.Formatter:
    return MsgspecFormatter(
        ["levelname", "name", "message"],
        timestamp="time",
        static_fields={"process": name, "pid": os.getpid()},
        rename_fields={"levelname": "level", "name": "logger", "exc_info": "traceback"},
    )


def _log_exception(kind: type[BaseException], exc: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, exc, trace)
    else:
        logging.getLogger(__name__).critical("ends: %s", exc, exc_info=(kind, exc, trace))


def die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent dies, so that a killed supervisor leaves nothing behind.

    Linux only; elsewhere a killed supervisor leaves its children running. No allocation-heavy work: it also
    runs between fork and exec.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def is_supervised() -> bool:
    """True if a supervisor has started this process."""
    return bool(os.environ.get(SUPERVISED_ENV))


def follow_supervisor() -> None:
    """End with the supervisor, if there is one."""
    if not is_supervised():
        return
    die_with_parent()
    if _is_unread():  # it died before that took effect, while this process was being loaded
        raise SystemExit(0)


def _is_unread() -> bool:
    """True if our output is a pipe that nobody reads any more: as that to a supervisor that is gone."""
    poller = select.poll()
    poller.register(sys.__stdout__.fileno() if sys.__stdout__ else 1, 0)
    return any(event & select.POLLERR for _, event in poller.poll(0))


def note_start(config: Config, name: str) -> Config:
    """Note that the supervisor, if there is one, has started this process; returns the configuration."""
    if is_supervised():
        starts.note(config.run_dir, name)
    return config


def keep_secrets_in_memory() -> None:
    """Let no core dump, and no other process of this user, see our memory."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0)


def use_cpus(cpus: Sequence[int], where: str) -> None:
    """Keep this process, and the threads that it starts from now on, on these processors; all if there are none.

    Raises ConfigError if the machine does not have them.
    """
    check_cpus(cpus, where)
    if cpus:
        os.sched_setaffinity(0, cpus)


def check_cpus(cpus: Sequence[int], where: str) -> None:
    """Raise ConfigError if some of these processors are not there for us.

    The kernel refuses a list of which it has none, and takes one of which it has some. What we are kept on now, by
    `taskset` for example, does not limit what others may use: so each is tried.
    """
    missing = [cpu for cpu in cpus if not _is_there(cpu)]
    if missing:
        there = [str(cpu) for cpu in range(CPUS_MAX) if _is_there(cpu)]
        raise ConfigError(f"{where}: {missing} are not there; this machine lets us use {', '.join(there)}")


def _is_there(cpu: int) -> bool:
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, (cpu,))
        os.sched_setaffinity(0, before)
    except OSError:
        return False
    return True


def settle() -> None:
    """Take what exists by now out of the garbage collector's rounds: it will live as long as the process."""
    gc.collect()
    gc.freeze()


def settle_the_rest() -> None:
    """The same again while data flow: without a look at what is old, which may take 15 ms with 15,000 topics.

    To be called each second. What is in a cycle and lives for longer than that is never freed: only for processes
    whose connections leave no cycles behind.
    """
    gc.collect(1)
    gc.freeze()


def on_stop_signals(
    callback: Callable[[], None],
    loop: asyncio.AbstractEventLoop | None = None,
    *,
    limit_s: float | None = None,
) -> None:
    """Call back on SIGTERM and SIGINT, in the loop if there is one; `limit_s` later all is over in any case.

    By default that is `END_S`: who waits for other processes to end needs longer than they do.

    The same on SIGHUP, of a terminal that is closed, unless we are to outlive it: `nohup` ignores it beforehand.
    """

    def stop(*_: object) -> None:
        end_within(END_S if limit_s is None else limit_s, EXIT_OK)
        callback()

    is_to_outlive = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    for number in (signal.SIGTERM, signal.SIGINT, *(() if is_to_outlive else (signal.SIGHUP,))):
        if loop is None:
            signal.signal(number, stop)  # in the main thread, between two bytecodes
        else:
            loop.add_signal_handler(number, stop)


def end_within(limit_s: float, status: int) -> None:
    """Let this process end in order, for so long; then it ends as it is, with this status.

    Whatever it waits for: a part whose end has no limit may be a library's. The supervisor would kill it a moment
    later, and would not know the status.
    """
    watch = threading.Timer(limit_s, _cut_off, (limit_s, status))
    watch.daemon = True
    watch.start()


def _cut_off(limit_s: float, status: int) -> None:
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    log.error(
        "not ended within %g s, and ends as it is; it was at:\n%s",
        limit_s,
        "".join(traceback.format_stack(frame)),
    )
    logging.shutdown()
    os._exit(status)


async def run_together(
    failures: Failures, works: Mapping[str, Callable[[], Awaitable[None]]], stop: asyncio.Event
) -> None:
    """Do the works of a process until it is to stop, or one of them returns; raises what one could not endure."""
    tasks = [asyncio.create_task(failures.endure(what, work)) for what, work in works.items()]
    for task in tasks:
        task.add_done_callback(lambda _: stop.set())
    settle()
    await stop.wait()
    end_within(END_S, EXIT_FAILED)  # unless it was a signal, which came first
    await end_tasks(tasks)
    for task in tasks:
        if task.done() and not task.cancelled():
            task.result()
