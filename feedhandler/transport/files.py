"""Files under the run directory: locks that make a process the only one of its kind, and the cache."""

import contextlib
import fcntl
import os
import re
import signal
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar

import msgspec

from feedhandler.errors import ConfigError
from feedhandler.exchanges.base import UNDECODABLE
from feedhandler.instruments import InstrumentList
from feedhandler.shard import Shard, parse
from feedhandler.status import RelayStatus
from feedhandler.wanted import Wanted

T = TypeVar("T")

POSITIONS_REMEDY: Final = "remove it, and say again what is held (PUT /v1/positions)"
LOCK_PATIENCE_S: Final = 5.0
WANTED_SIZE_MAX: Final = 4 << 20  # 50,000 symbols are one megabyte
SHARED_TRIES_S: Final = 1.0  # who looks at a lock, or is about to leave, has it for a moment


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
            fd = _open(self._path)
            try:
                _lock(fd)
            except BlockingIOError:
                owner = os.read(fd, 32).decode(errors="replace").strip()
                os.close(fd)
                raise ConfigError(
                    f"{self._name} runs already in {self._path.parent}/"
                    f" (pid {owner if owner.isdigit() else 'unknown'});"
                    " stop it first, or set another run_dir"
                ) from None
            if _is_current(self._path, fd):
                self._fd = fd
            else:
                os.close(fd)  # a predecessor removed the file between our open and our lock
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        return self

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
        text = os.read(fd, 32).strip()
        return int(text) if text.isdigit() else None  # it has only just come, or shares it in a moment
    finally:
        os.close(fd)
    return None


@contextlib.contextmanager
def feed_lock(run_dir: str, exchange: str, shard: Shard) -> Iterator[None]:
    """Make this process the only one of its shard, among shards of the same count only.

    Otherwise the same records would be published twice. Raises ConfigError that names what runs.
    """
    with contextlib.ExitStack() as stack:
        try:
            if shard.is_whole:
                stack.enter_context(Lock(run_dir, feed_name(exchange, shard)))
            else:
                stack.enter_context(_among_shards(run_dir, exchange, shard))
                stack.enter_context(Lock(run_dir, feed_name(exchange, shard)))
        except ConfigError:
            running = running_feeds(run_dir, exchange)
            if not running or shard in running:
                raise
            raise ConfigError(_refusal(run_dir, exchange, shard, running)) from None
        yield


def running_feeds(run_dir: str, exchange: str) -> dict[Shard, int]:
    """Return the pids of an exchange's feeds that run, by shard."""
    start = feed_name(exchange, Shard())
    found = {}
    for path in sorted(Path(run_dir).glob(f"{start}*.lock")):
        text = path.stem.removeprefix(start).removeprefix("-").replace("of", "/")
        with contextlib.suppress(ValueError):
            shard = parse(text) if text else Shard()
            if pid := lock_owner(run_dir, path.stem):
                found[shard] = pid
    return dict(sorted(found.items()))


def renew_feeds(run_dir: str, exchange: str) -> dict[Shard, int]:
    """Ask an exchange's feeds to renew their connections; returns their pids. Raises ConfigError if none runs."""
    running = running_feeds(run_dir, exchange)
    asked = {}
    for shard, pid in running.items():
        with contextlib.suppress(OSError):  # it has ended meanwhile, or is another user's
            os.kill(pid, signal.SIGUSR1)
            asked[shard] = pid
    if not asked:
        raise ConfigError(f"no feed of {exchange} runs in {run_dir}/ that could be asked")
    return asked


def feed_name(exchange: str, shard: Shard) -> str:
    """Return what a feed process is called, in locks, logs and the supervisor."""
    return f"feed-{exchange}{shard.suffix}"


def _refusal(run_dir: str, exchange: str, shard: Shard, running: dict[Shard, int]) -> str:
    parts = [
        f"{feed_name(exchange, Shard())} runs already in {run_dir}/ (pid {pid})"
        if other.is_whole
        else f"shard {other} (pid {pid})"
        for other, pid in running.items()
    ]
    if Shard() not in running:
        parts[0] = f"{feed_name(exchange, Shard())} runs already in {run_dir}/, as {parts[0]}"
    what = "unsharded" if shard.is_whole else f"as shard {shard}"
    return (
        f"{', '.join(parts)}; {what} it would send the same again: stop those first, or set another run_dir"
    )


@contextlib.contextmanager
def _among_shards(run_dir: str, exchange: str, shard: Shard) -> Iterator[None]:
    """Hold the exchange's lock together with shards of the same count, and with nobody else.

    The file has the count: it is written by who holds the lock alone, and so by the first of them, and believed by
    who holds it together with others. Raises ConfigError if others have it.
    """
    path = Path(run_dir) / f"{feed_name(exchange, Shard())}.lock"
    deadline = time.monotonic() + SHARED_TRIES_S
    while (fd := _share(path, f"of {shard.count}\n".encode())) is None:
        if time.monotonic() >= deadline:
            raise ConfigError(
                f"{feed_name(exchange, shard)}: other feeds of {exchange} run in {run_dir}/;"
                " stop them first, or set another run_dir"
            )
        time.sleep(0.01)
    try:
        yield
    finally:
        with contextlib.suppress(BlockingIOError):  # others go on
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_current(path, fd):
                path.unlink()
        os.close(fd)


def _share(path: Path, text: bytes) -> int | None:
    """Return a descriptor that holds a lock on a file with this text together with others; None: try again."""
    fd = _open(path)
    try:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(fd, 0)
            os.pwrite(fd, text, 0)
        # Between the two somebody else may have it, and write: the kernel lets one go before it gives the other.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        if os.pread(fd, len(text) + 1, 0) == text and _is_current(path, fd):
            return fd
    except BlockingIOError:
        pass
    os.close(fd)
    return None


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as exc:
        raise ConfigError(
            f"run_dir: cannot write to {path.parent}/: {exc.strerror}; set another run_dir"
        ) from exc


def _is_current(path: Path, fd: int) -> bool:
    """False if somebody removed the file since it was opened."""
    try:
        return path.stat().st_ino == os.fstat(fd).st_ino
    except FileNotFoundError:
        return False


def write_instruments(run_dir: str, rest_url: str, listing: InstrumentList) -> None:
    """Keep an instrument list for a start without the exchange's REST host; whole or not at all.

    Of several feeds that would keep theirs at the same moment, one does.
    """
    path = _cache_path(run_dir, rest_url, listing.exchange)
    path.parent.mkdir(parents=True, exist_ok=True)
    # One name: a kill in mid-write leaves one file, overwritten next time.
    temporary = path.with_suffix(".tmp")
    with os.fdopen(os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        if _is_current(temporary, file.fileno()):
            file.truncate()
            file.write(msgspec.json.encode(listing))
            file.flush()
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
        return msgspec.json.decode(_read_plain(path), type=Wanted)
    except FileNotFoundError:
        return Wanted()
    except (OSError, ValueError, *UNDECODABLE) as exc:
        raise ConfigError(
            f"{path}: cannot be used: {exc}; remove it (the configured symbols remain), and subscribe again"
        ) from exc


def _read_plain(path: Path) -> bytes:
    """Raises ValueError for what is no plain file of a sound size: a pipe would block its reader for ever."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > WANTED_SIZE_MAX:
        raise ValueError(f"no plain file of at most {WANTED_SIZE_MAX >> 20} MiB")
    return path.read_bytes()


def read_positions(run_dir: str, kind: type[T]) -> T | None:
    """Return the positions kept earlier, a list of some kind; None if there are none.

    Raises ConfigError for a file that cannot be understood.
    """
    path = _positions_path(run_dir)
    try:
        return msgspec.json.decode(_read_plain(path), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, *UNDECODABLE) as exc:
        raise ConfigError(f"{path}: cannot be used: {exc}; {POSITIONS_REMEDY}") from exc


def write_positions(run_dir: str, positions: Sequence[object]) -> None:
    """Keep positions over restarts, whole or not at all, and for this user alone. Raises ConfigError."""
    path = _positions_path(run_dir)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_whole(path, msgspec.json.encode(positions), 0o600)
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be written: {exc.strerror}; set another run_dir") from exc


def _write_whole(path: Path, data: bytes, mode: int = 0o666) -> None:
    """Replace a file, whole or not at all, also if the machine stops; by one caller at a time. Raises OSError."""
    temporary = path.with_suffix(".tmp")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _positions_path(run_dir: str) -> Path:
    return Path(run_dir) / "wanted" / "positions.json"


def write_relay_status(run_dir: str, status: RelayStatus) -> None:
    """Replace what the relay says of itself; a machine that stops may lose it. Raises OSError."""
    path = relay_status_path(run_dir)
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(msgspec.json.encode(status))
    temporary.replace(path)


def read_relay_status(run_dir: str) -> RelayStatus | None:
    """Return what the relay last said of itself, None if that cannot be had."""
    try:
        return msgspec.json.decode(relay_status_path(run_dir).read_bytes(), type=RelayStatus)
    except (OSError, *UNDECODABLE):
        return None


def relay_status_path(run_dir: str) -> Path:
    """Return the file that the relay renews each second."""
    return Path(run_dir) / "relay.json"


def change_wanted(run_dir: str, exchange: str, change: Callable[[Wanted], None]) -> Wanted:
    """Change what is wanted, as the only one at a time, and whole or not at all. Raises ConfigError."""
    path = wanted_path(run_dir, exchange)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_suffix(".lock").open("wb") as lock:
            _lock_soon(lock.fileno(), path)
            wanted = read_wanted(run_dir, exchange)
            change(wanted)
            text = msgspec.json.format(msgspec.json.encode(wanted))
            if len(text) > WANTED_SIZE_MAX:  # nobody would read it any more
                raise ConfigError(
                    f"{path}: would exceed {WANTED_SIZE_MAX >> 20} MiB; take back some of what is wanted first"
                )
            _write_whole(path, text)
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
