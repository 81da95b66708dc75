"""Files under the run directory: locks that make a process the only one of its kind, and the cache."""

import contextlib
import errno
import fcntl
import os
import re
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar

import msgspec

from feedhandler.data.errors import UNDECODABLE, ConfigError
from feedhandler.data.instruments import InstrumentList
from feedhandler.data.shard import Shard, parse
from feedhandler.data.status import RecorderStatus, RelayStatus
from feedhandler.data.wanted import Wanted
from feedhandler.transport import private

T = TypeVar("T")

POSITIONS_REMEDY: Final = "remove it, and state again what is held (PUT /v1/positions)"
LOCK_PATIENCE_S: Final = 5.0
WANTED_SIZE_MAX: Final = 4 << 20  # 50,000 symbols are one megabyte
LIST_SIZE_MAX: Final = 64 << 20  # 3,000 instruments are one megabyte
STATUS_SIZE_MAX: Final = 1 << 20
NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
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
        try:
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as exc:
            self.__exit__(None, None, None)
            raise _unwritable(self._path.parent, exc) from exc
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if _is_current(self._path, self._fd):
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
        os.close(self._fd)
        self._fd = -1

    def look(self) -> None:
        """Take the lock anew if its file is gone: others could come. Raises ConfigError if one has."""
        if not _is_current(self._path, self._fd):
            lost, self._fd = self._fd, -1
            try:
                self.__enter__()
            except ConfigError:
                self._fd = lost
                raise
            os.close(lost)


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
        fd = private.open_file(Path(run_dir) / f"{name}.lock", os.O_RDONLY)
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
def feed_lock(run_dir: str, exchange: str, shard: Shard) -> Iterator[list[Callable[[], None]]]:
    """Make this process the only one of its shard, among shards of the same count only.

    Otherwise the same records would be published twice. Yields what looks whether its files are there. Raises
    ConfigError that names what runs.
    """
    own = Lock(run_dir, feed_name(exchange, shard))
    locks: list[Lock | _AmongShards] = (
        [own] if shard.is_whole else [_AmongShards(run_dir, exchange, shard), own]
    )
    with contextlib.ExitStack() as stack:
        try:
            for lock in locks:
                stack.enter_context(lock)
        except ConfigError:
            running = running_feeds(run_dir, exchange)
            if not running or shard in running:
                raise
            raise ConfigError(_refusal(run_dir, exchange, shard, running)) from None
        yield [lock.look for lock in locks]


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
        raise ConfigError(f"no feed of {exchange} runs in {run_dir}/ that could do it")
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


class _AmongShards:
    """The exchange's lock, held together with shards of the same count, and with nobody else.

    The file has the count: it is written by who holds the lock alone, and so by the first of them, and believed by
    who holds it together with others.
    """

    def __init__(self, run_dir: str, exchange: str, shard: Shard) -> None:
        self._path = Path(run_dir) / f"{feed_name(exchange, Shard())}.lock"
        self._refusal = (
            f"{feed_name(exchange, shard)}: other feeds of {exchange} run in {run_dir}/;"
            " stop them first, or set another run_dir"
        )
        self._text = f"of {shard.count}\n".encode()
        self._fd = -1

    def __enter__(self) -> "_AmongShards":
        """Raises ConfigError if others have it."""
        deadline = time.monotonic() + SHARED_TRIES_S
        while (fd := _share(self._path, self._text)) is None:
            if time.monotonic() >= deadline:
                raise ConfigError(self._refusal)
            time.sleep(0.01)
        self._fd = fd
        return self

    def look(self) -> None:
        """As `Lock.look`."""
        if not _is_current(self._path, self._fd):
            lost = self._fd
            self.__enter__()
            os.close(lost)

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(BlockingIOError):  # others go on
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_current(self._path, self._fd):
                self._path.unlink()
        os.close(self._fd)


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
    except OSError as exc:
        os.close(fd)
        raise _unwritable(path.parent, exc) from exc
    os.close(fd)
    return None


def _open(path: Path) -> int:
    private.take_over(path.parent)
    try:
        return private.open_file(path, os.O_RDWR | os.O_CREAT)
    except OSError as exc:
        raise _unwritable(path.parent, exc) from exc


def _unwritable(run_dir: Path, exc: OSError) -> ConfigError:
    remedy = "make room, or set another run_dir" if exc.errno in NO_ROOM else "set another run_dir"
    return ConfigError(f"run_dir: cannot write to {run_dir}/: {exc.strerror}; {remedy}")


def _is_current(path: Path, fd: int) -> bool:
    """False if somebody removed the file since it was opened."""
    try:
        return path.stat().st_ino == os.fstat(fd).st_ino
    except FileNotFoundError:
        return False


def write_instruments(run_dir: str, rest_url: str, listing: InstrumentList) -> None:
    """Keep an instrument list for a start without the exchange's REST host; whole or not at all. Raises OSError."""
    path = _cache_path(run_dir, rest_url, listing.exchange)
    private.make_folder(path.parent)
    private.write_whole(path, msgspec.json.encode(listing), is_durable=False)


def read_instruments(run_dir: str, rest_url: str, exchange: str) -> InstrumentList | None:
    """Return the list kept earlier from the same host, None if there is none that can be read."""
    try:
        body = private.read_plain(_cache_path(run_dir, rest_url, exchange), LIST_SIZE_MAX)
        return msgspec.json.decode(body, type=InstrumentList)
    except (OSError, ValueError, *UNDECODABLE):
        return None


Stamp = tuple[int, int, int]  # of a file: changes with its content


def wanted_stamp(run_dir: str, exchange: str) -> Stamp | None:
    """Return what changes whenever `change_wanted` has changed something; None if there is nothing."""
    return _stamp(wanted_path(run_dir, exchange))


def _stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


def request_snapshots(run_dir: str, topics: Sequence[str]) -> None:
    """Have feeds of this host publish snapshots of these books, and no more of those before. Raises OSError."""
    private.write_whole(_snapshots_path(run_dir), msgspec.json.encode(topics), is_durable=False)


def snapshots_stamp(run_dir: str) -> Stamp | None:
    """Return what changes whenever snapshots are requested; None if that has never been."""
    return _stamp(_snapshots_path(run_dir))


def read_requested_snapshots(run_dir: str) -> list[str]:
    """Return the topics of the books that were requested last; none if that cannot be read."""
    try:
        body = private.read_plain(_snapshots_path(run_dir), WANTED_SIZE_MAX)
        return msgspec.json.decode(body, type=list[str])
    except (OSError, ValueError, *UNDECODABLE):
        return []


def _snapshots_path(run_dir: str) -> Path:
    return Path(run_dir) / "snapshots.json"


def read_wanted(run_dir: str, exchange: str) -> Wanted:
    """Return what is wanted besides the configuration. Raises ConfigError for a file that cannot be understood."""
    path = wanted_path(run_dir, exchange)
    try:
        return msgspec.json.decode(private.read_plain(path, WANTED_SIZE_MAX), type=Wanted)
    except FileNotFoundError:
        return Wanted()
    except (OSError, ValueError, *UNDECODABLE) as exc:
        raise ConfigError(
            f"{path}: cannot be used: {exc}; remove it (the configured symbols remain), and subscribe again"
        ) from exc


def read_positions(run_dir: str, kind: type[T]) -> T | None:
    """Return the positions kept earlier, a list of some kind; None if there are none.

    Raises ConfigError for a file that cannot be understood.
    """
    path = _positions_path(run_dir)
    try:
        return msgspec.json.decode(private.read_plain(path, WANTED_SIZE_MAX), type=kind)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, *UNDECODABLE) as exc:
        raise ConfigError(f"{path}: cannot be used: {exc}; {POSITIONS_REMEDY}") from exc


def write_positions(run_dir: str, positions: Sequence[object]) -> None:
    """Keep positions over restarts, whole or not at all. Raises ConfigError."""
    path = _positions_path(run_dir)
    try:
        private.make_folder(path.parent)
        private.write_whole(path, msgspec.json.encode(positions))
    except OSError as exc:
        raise ConfigError(f"{path}: cannot be written: {exc.strerror}; set another run_dir") from exc


def _positions_path(run_dir: str) -> Path:
    return Path(run_dir) / "wanted" / "positions.json"


def write_relay_status(run_dir: str, status: RelayStatus) -> None:
    """Replace the relay's status; a machine that stops may lose it. Raises OSError."""
    private.write_whole(relay_status_path(run_dir), msgspec.json.encode(status), is_durable=False)


def read_relay_status(run_dir: str) -> RelayStatus | None:
    """Return the relay's last status, None if that cannot be had."""
    return _read_status(relay_status_path(run_dir), RelayStatus)


def relay_status_path(run_dir: str) -> Path:
    """Return the file that the relay renews each second."""
    return Path(run_dir) / "relay.json"


def write_recorder_status(run_dir: str, status: RecorderStatus) -> None:
    """Replace the recorder's status; a machine that stops may lose it. Raises OSError."""
    private.write_whole(recorder_status_path(run_dir), msgspec.json.encode(status), is_durable=False)


def read_recorder_status(run_dir: str) -> RecorderStatus | None:
    """Return the recorder's last status, None if that cannot be had."""
    return _read_status(recorder_status_path(run_dir), RecorderStatus)


def recorder_status_path(run_dir: str) -> Path:
    """Return the file that the recorder renews each second."""
    return Path(run_dir) / "recorder.json"


def _read_status(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(private.read_plain(path, STATUS_SIZE_MAX), type=kind)
    except (OSError, ValueError, *UNDECODABLE):
        return None


def change_wanted(run_dir: str, exchange: str, change: Callable[[Wanted], None]) -> Wanted:
    """Change what is wanted, as the only one at a time, and whole or not at all. Raises ConfigError."""
    path = wanted_path(run_dir, exchange)
    try:
        private.make_folder(path.parent)
        with os.fdopen(private.open_file(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT), "wb") as lock:
            _lock_soon(lock.fileno(), path)
            wanted = read_wanted(run_dir, exchange)
            change(wanted)
            text = msgspec.json.format(msgspec.json.encode(wanted))
            if len(text) > WANTED_SIZE_MAX:  # nobody would read it any more
                raise ConfigError(
                    f"{path}: would exceed {WANTED_SIZE_MAX >> 20} MiB; take back some of what is wanted first"
                )
            private.write_whole(path, text)
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
    """Return the file with what is wanted besides the configuration."""
    return Path(run_dir) / "wanted" / f"{exchange}.json"


def _cache_path(run_dir: str, rest_url: str, exchange: str) -> Path:
    """One file per host: a simulator's or testnet's list must never stand in for the real one."""
    host = re.sub(r"[^a-z0-9.]+", "-", rest_url.lower())
    return Path(run_dir) / "instruments" / f"{exchange}-{host}.json"
