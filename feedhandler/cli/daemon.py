"""`feedhandler prod`: the supervisor as a daemon, which is started, looked at and stopped by commands that end.

It listens at a socket in `run_dir`, so that two of them with two directories know nothing of each other.
"""

import contextlib
import http.client
import os
import socket
import sys
import time
import xmlrpc.client
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from feedhandler.cli import compiled, view
from feedhandler.cli.logs import last_line
from feedhandler.cli.supervision import UMASK, control_path, error_log, install, log_dir, spawn
from feedhandler.data import hints
from feedhandler.data.errors import EXIT_FAILED, EXIT_OK, ConfigError, FeedError
from feedhandler.runtime.host import look
from feedhandler.runtime.settings import Config
from feedhandler.transport.files import lock_owner

STAYS_S: Final = 5.0  # who has been up for so long has read its configuration, and has its sockets
BEGIN_S: Final = 60.0  # for the supervisor, and for a process, to be there; a second is usual
ASK_S: Final = 10.0  # for an answer of it
END_S: Final = 60.0  # for all programs, one priority after the other
LOOK_EVERY_S: Final = 0.2
UP: Final = "RUNNING"
TO_COME: Final = ("STOPPED", "STARTING", UP)  # of one that has not failed yet


class Program(msgspec.Struct, frozen=True, kw_only=True):
    """A process as the supervisor knows it; pid 0: there is none."""

    name: str
    statename: str
    pid: int = 0
    exitstatus: int = 0
    spawnerr: str = ""


class Stays:
    """Who stays up after a start, counted from when it has its lock; how long loading takes is no matter. Pure."""

    def __init__(self, now_mono: float) -> None:
        self._end_mono = now_mono + BEGIN_S  # who has no lock by then will have none
        self._pids: dict[str, int] = {}
        self._begun_mono: dict[str, float] = {}
        self.ended: list[str] = []  # who did not

    def take(self, programs: Sequence[Program], begun: Container[str], now_mono: float) -> bool:
        """Take the supervisor's answer, and who has begun; returns whether it is known of each by now."""
        is_known = True
        for program in programs:
            name = program.name
            if name in self.ended:
                continue
            pid = self._pids.setdefault(name, program.pid) or program.pid
            self._pids[name] = pid
            is_late = name not in begun and now_mono >= self._end_mono
            if program.statename not in TO_COME or program.pid != pid or is_late:
                self.ended.append(name)
            elif name not in begun or now_mono - self._begun_mono.setdefault(name, now_mono) < STAYS_S:
                is_known = False
        return is_known


class Supervisor:
    """What the supervisor of a `run_dir` answers. OSError: there is none."""

    def __init__(self, run_dir: str) -> None:
        self._path = str(control_path(run_dir))
        self._proxy = xmlrpc.client.ServerProxy("http://localhost/RPC2", _Transport(self._path))

    def programs(self) -> list[Program]:
        """Return all processes, in the order of their names. Raises OSError, FeedError."""
        return msgspec.convert(self._ask("getAllProcessInfo"), list[Program])

    def pid(self) -> int:
        """Return its own pid. Raises OSError, FeedError."""
        return msgspec.convert(self._ask("getPID"), int)

    def shut_down(self) -> None:
        """Let it stop everything, and end. Raises OSError, FeedError."""
        self._ask("shutdown")

    def _ask(self, method: str) -> Any:
        try:
            return getattr(self._proxy.supervisor, method)()
        except TimeoutError as exc:
            raise FeedError(f"the supervisor at {self._path} does not answer within {ASK_S:g} s") from exc
        except (xmlrpc.client.Error, http.client.HTTPException) as exc:
            text = exc.faultString if isinstance(exc, xmlrpc.client.Fault) else str(exc) or type(exc).__name__
            raise FeedError(f"the supervisor at {self._path} answers {text}; is it being stopped?") from exc


class _Transport(xmlrpc.client.Transport):
    """Of a socket's path. supervisor's own waits for an answer without end."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        return _Connection(self._path)


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=ASK_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def refuse_second(config: Config) -> None:
    """Raise ConfigError if something is started from this configuration's `run_dir` already."""
    with contextlib.suppress(OSError):
        raise ConfigError(
            f"{config.path}: everything runs already in {config.run_dir}/ (supervisor pid"
            f" {Supervisor(config.run_dir).pid()}); `feedhandler prod stop` ends it, and the next"
            " start takes up what has changed in the configuration"
        )
    if pid := lock_owner(config.run_dir, "run"):
        raise ConfigError(
            f"{config.path}: `feedhandler run` runs in {config.run_dir}/ (pid {pid}); stop it first, or set"
            " another run_dir"
        )


def become(config: Config) -> int:
    """Be the supervisor, for those who watch it themselves, as systemd does; does not return."""
    command = install(config, has_control=True)
    os.umask(UMASK)
    os.execv(command[0], command)


def start(config: Config) -> int:
    """Start everything, and print what runs once each process has stayed up; returns the exit status."""
    child = spawn(config, install(config, has_control=True), ends_with_us=False)
    started_mono = time.monotonic()
    supervisor, stays = Supervisor(config.run_dir), Stays(started_mono)
    programs: list[Program] | None = None
    while programs is None or not stays.take(programs, _begun(config, programs), time.monotonic()):
        time.sleep(LOOK_EVERY_S)
        if child.poll() is not None:
            reason = last_line(error_log(config.run_dir)) or f"see {log_dir(config.run_dir)}/supervisord.log"
            raise FeedError(f"the supervisor has ended by itself, status {child.returncode}: {reason}")
        try:
            programs = supervisor.programs()
        except OSError as exc:  # not yet there
            if time.monotonic() - started_mono > BEGIN_S:
                raise FeedError(f"the supervisor (pid {child.pid}) does not listen: {exc}") from exc
    show(config)
    for program in programs:
        if program.name in stays.ended:
            text = f"{program.name} did not stay up for {STAYS_S:g} s: {_reason(config, program)}"
            print(f"feedhandler: {text}", file=sys.stderr)
    if stays.ended:
        text = "it is started again and again, and the others run on; `feedhandler prod stop` ends everything"
        for line in filter(None, (text, compiled.advice())):
            print(f"feedhandler: {hints.spelled(line)}", file=sys.stderr)
        return EXIT_FAILED
    text = f"started; `feedhandler prod status` looks at it, logs are in {log_dir(config.run_dir)}/"
    print(hints.spelled(text))
    return EXIT_OK


def is_running(config: Config) -> bool:
    """Return whether there is a daemon, whatever its processes do. Raises FeedError if it does not answer."""
    try:
        return bool(Supervisor(config.run_dir).pid())
    except OSError:
        return False


def stop(config: Config) -> int:
    """Stop everything, and wait for its end; returns the exit status."""
    supervisor = Supervisor(config.run_dir)
    try:
        pid = supervisor.pid()
        supervisor.shut_down()
    except OSError:
        print("not running")
        return EXIT_OK
    deadline = time.monotonic() + END_S
    while time.monotonic() < deadline:
        if not Path(f"/proc/{pid}").exists() or _is_zombie(pid):
            print("stopped")
            return EXIT_OK
        time.sleep(LOOK_EVERY_S)
    where = f"{log_dir(config.run_dir)}/supervisord.log"
    raise FeedError(f"the supervisor (pid {pid}) is still stopping after {END_S:g} s; see {where}")


def show(config: Config) -> None:
    """Print a line per process: what it is doing, and since when."""
    view.show(view.process_table(look(config), time.time_ns()))
    sys.stdout.flush()  # before what goes to stderr


def _begun(config: Config, programs: Sequence[Program]) -> set[str]:
    """Return who has its lock: that is the first thing that each of our processes does."""
    return {each.name for each in programs if each.pid and lock_owner(config.run_dir, each.name) == each.pid}


def _is_zombie(pid: int) -> bool:
    """True for one that has ended, and whose parent does not wait for it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(") ")[2].startswith("Z")
    except OSError:
        return True


def _reason(config: Config, program: Program) -> str:
    """Return the last log line of the last one that ended."""
    line = last_line(log_dir(config.run_dir) / f"{program.name}.log", program.pid)
    return line or program.spawnerr or f"it ended with status {program.exitstatus}, and its log is empty"
