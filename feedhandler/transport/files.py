"""Files under the run directory: locks that make a process the only one of its kind, and the cache."""

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final

import msgspec

from feedhandler.errors import ConfigError
from feedhandler.exchanges.base import UNDECODABLE
from feedhandler.instruments import InstrumentList
from feedhandler.wanted import Wanted

LOCK_PATIENCE_S: Final = 5.0


class Lock:
    """Makes this process the only one of its name in a run directory.

    The kernel releases it however the process ends, so a leftover file never blocks anybody.
    """

    def __init__(self, run_dir: str, name: str) -> None:
        self._path = Path(run_dir) / f"{name}.lock"
        self._name = name
        self._fd = -1

    def __enter__(self) -> "Lock":
        """Raises ConfigError, with the owner's pid, if another process has it."""
        while self._fd < 0:
            fd = self._open()
            try:
                _lock(fd)
            except BlockingIOError:
                owner = os.read(fd, 32).decode(errors="replace").strip()
                os.close(fd)
                raise ConfigError(
                    f"{self._name} runs already in {self._path.parent}/ (pid {owner or 'unknown'});"
                    " stop it first, or set another run_dir"
                ) from None
            if self._is_current(fd):
                self._fd = fd
            else:
                os.close(fd)  # a predecessor removed the file between our open and our lock
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        return self

    def _open(self) -> int:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as exc:
            raise ConfigError(
                f"run_dir: cannot write to {self._path.parent}/: {exc.strerror}; set another run_dir"
            ) from exc

    def _is_current(self, fd: int) -> bool:
        try:
            return self._path.stat().st_ino == os.fstat(fd).st_ino
        except FileNotFoundError:
            return False

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        os.close(self._fd)
        self._fd = -1


def _lock(fd: int) -> None:
    """Raises BlockingIOError if another process has it for longer than a look at it takes."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        time.sleep(0.05)  # `lock_owner` may have been looking
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)


def lock_owner(run_dir: str, name: str) -> int | None:
    """Return the pid of the process that holds a lock, None if nobody does."""
    try:
        fd = os.open(Path(run_dir) / f"{name}.lock", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return int(os.read(fd, 32) or 0) or None  # empty: it holds it for no longer than this line takes
    finally:
        os.close(fd)
    return None


def write_instruments(run_dir: str, rest_url: str, listing: InstrumentList) -> None:
    """Keep an instrument list for a start without the exchange's REST host; whole or not at all."""
    path = _cache_path(run_dir, rest_url, listing.exchange)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(
        ".tmp"
    )  # one name: a kill in mid-write leaves one file, overwritten next time
    temporary.write_bytes(msgspec.json.encode(listing))
    temporary.replace(path)


def read_instruments(run_dir: str, rest_url: str, exchange: str) -> InstrumentList | None:
    """Return the list kept earlier from the same host, None if there is none that can be read."""
    try:
        body = _cache_path(run_dir, rest_url, exchange).read_bytes()
        return msgspec.json.decode(body, type=InstrumentList)
    except (OSError, *UNDECODABLE):
        return None


Stamp = tuple[int, int, int]  # of a file: changes with its content


def wanted_stamp(run_dir: str, exchange: str) -> Stamp | None:
    """Return what changes whenever `change_wanted` has changed something; None if there is nothing."""
    try:
        status = wanted_path(run_dir, exchange).stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def read_wanted(run_dir: str, exchange: str) -> Wanted:
    """Return what is wanted besides the configuration. Raises ConfigError for a file that cannot be understood."""
    path = wanted_path(run_dir, exchange)
    try:
        return msgspec.json.decode(path.read_bytes(), type=Wanted)
    except FileNotFoundError:
        return Wanted()
    except (OSError, *UNDECODABLE) as exc:
        raise ConfigError(
            f"{path}: cannot be used: {exc}; remove it (the configured symbols remain), and subscribe again"
        ) from exc


def change_wanted(run_dir: str, exchange: str, change: Callable[[Wanted], None]) -> Wanted:
    """Change what is wanted, as the only one at a time, and whole or not at all. Raises ConfigError."""
    path = wanted_path(run_dir, exchange)
    temporary = path.with_suffix(".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("wb") as lock:
            _lock_soon(lock.fileno(), path)
            wanted = read_wanted(run_dir, exchange)
            change(wanted)
            with temporary.open("wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(wanted)))
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be written: {exc.strerror}; set another run_dir") from exc
    return wanted


def _lock_soon(fd: int, path: Path) -> None:
    """Raises ConfigError if others are at it for longer than a change takes."""
    deadline = time.monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            return fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise ConfigError(f"{path}: another process holds its lock; is one stopped?") from None
            time.sleep(0.01)


def wanted_path(run_dir: str, exchange: str) -> Path:
    """Return the file that says what is wanted besides the configuration."""
    return Path(run_dir) / "wanted" / f"{exchange}.json"


def _cache_path(run_dir: str, rest_url: str, exchange: str) -> Path:
    """One file per host: a simulator's or testnet's list must never stand in for the real one."""
    host = re.sub(r"[^a-z0-9.]+", "-", rest_url.lower())
    return Path(run_dir) / "instruments" / f"{exchange}-{host}.json"
