"""Files and folders of this user alone, whatever the umask is: nobody else may read, replace or plant them.

One exception, if the configuration names it: a group that may subscribe passes through a folder to the sockets and
boards that are for subscribers, and to nothing else.
"""

import contextlib
import grp
import os
import pwd
import stat
import tempfile
import time
from pathlib import Path
from typing import Final

from feedhandler.data.errors import ConfigError

IPC_PATH_SIZE_MAX: Final = 107  # sockaddr_un, less its NUL
FOLDER: Final = 0o700
FILE: Final = 0o600
NOBODY: Final = -1  # no group: for `os.chown`, too
OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH
SHARED_FOLDER: Final = "board"  # what a group may look into, where there is one
SHARED_SUFFIX: Final = ".board"
TOKEN: Final = "api-token"  # stays as it is: to be read by others is a reason to make another
LEFT_BEHIND_S: Final = 60.0  # nobody writes a file for so long


def make_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing. Raises OSError."""
    for missing in reversed([each for each in (path, *path.parents) if not each.exists()]):
        with contextlib.suppress(FileExistsError):  # somebody was faster
            missing.mkdir(FOLDER)
    if not path.is_dir():
        path.mkdir()  # whose error has what it is instead


def take_over(folder: Path, key: str = "run_dir") -> None:
    """Make a folder, or take the one that is there for ours, and close what an older version left open in it.

    Raises ConfigError, with the remedy, if others may write there: what is in it may be theirs.
    """
    try:
        make_folder(folder)
        if reason := refusal(folder):
            raise ConfigError(f"{key}: {reason}")
        _tighten(folder, stat.S_IXGRP)
        for each in folder.iterdir():
            _tidy(each)
            if each.is_dir() and not each.is_symlink():
                for inner in each.iterdir():
                    _tidy(inner)
    except OSError as exc:
        raise ConfigError(f"{key}: cannot write to {folder}/: {exc.strerror}; set another {key}") from exc


def refusal(folder: Path) -> str:
    """Return why a folder that is there is not ours to use, with the remedy; "" if it is."""
    status = folder.stat()
    if status.st_mode & OTHERS_WRITE:
        return (
            f"others may write to {folder}/ (mode {stat.S_IMODE(status.st_mode):04o}), and may have; look whether"
            f" you know what is in it, then `chmod 700 {folder}`, or set another run_dir"
        )
    if status.st_uid != os.geteuid():
        return (
            f"{folder}/ belongs to {_name(status.st_uid)}, not to {_name(os.geteuid())}; set another run_dir"
        )
    for parent in folder.resolve().parents:
        mode = parent.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            return f"everybody may replace what is in {parent}/; `chmod o-w {parent}`, or set another run_dir"
    return ""


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _tidy(path: Path) -> None:
    """Close a file or folder to others, and remove what somebody who was killed had half written."""
    with contextlib.suppress(OSError):  # it has gone, or is another's
        status = path.lstat()
        if stat.S_ISDIR(status.st_mode):
            _tighten(path, stat.S_IRGRP | stat.S_IXGRP if path.name == SHARED_FOLDER else 0)
        elif stat.S_ISREG(status.st_mode):
            if path.suffix == ".tmp" and time.time() - status.st_mtime > LEFT_BEHIND_S:
                path.unlink()
            elif path.name != TOKEN:
                _tighten(path, stat.S_IRGRP if path.suffix == SHARED_SUFFIX else 0)


def _tighten(path: Path, kept: int) -> None:
    """Take from others what they may, and from the group too but for kept: `let_in` decides about that."""
    mode = stat.S_IMODE(path.stat().st_mode)
    if taken := mode & (stat.S_IRWXG | stat.S_IRWXO) & ~kept:
        path.chmod(mode & ~taken)


def let_in(path: Path, mode: int, group: int) -> None:
    """Give a file, or a folder, to a group as far as mode says; to NOBODY: to the user alone. Raises OSError."""
    if group == NOBODY:
        mode &= stat.S_IRWXU
    else:
        os.chown(path, -1, group)
    path.chmod(mode)


def let_pass(folder: Path, group: int) -> None:
    """Let a group through a folder of ours that is closed to it. Raises OSError."""
    status = folder.stat()
    if status.st_uid == os.geteuid() and not status.st_mode & stat.S_IXOTH:
        let_in(folder, stat.S_IMODE(status.st_mode) | stat.S_IXGRP, group)


def group_of(name: str, key: str) -> int:
    """Return a group's number, NOBODY for "". Raises ConfigError for one that is not there, or not ours to give."""
    if not name:
        return NOBODY
    try:
        group = grp.getgrnam(name).gr_gid
    except KeyError:
        raise ConfigError(f"{key}: {name!r} is no group of this host; `groupadd {name}` makes it") from None
    if os.geteuid() and group not in (os.getegid(), *os.getgroups()):
        user = _name(os.geteuid())
        raise ConfigError(f"{key}: {user} is not in the group {name!r}; `usermod -aG {name} {user}` adds it")
    return group


def identity(path: Path) -> tuple[int, int]:
    """Return what distinguishes a file from another of its name, or from none."""
    try:
        status = path.lstat()
    except OSError:
        return 0, 0
    return status.st_dev, status.st_ino


def keep_young(path: Path) -> None:
    """Have a file look used to cleaners of temporary files, and all that is in a folder."""
    with contextlib.suppress(OSError):  # it has gone, or is another's
        os.utime(path, follow_symlinks=False)
        if path.is_dir() and not path.is_symlink():
            for each in path.iterdir():
                keep_young(each)


def open_file(path: Path, flags: int) -> int:
    """Open a file, made for its user alone if need be; never through a link, nor waiting. Raises OSError."""
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, FILE)


def read_plain(path: Path, size_max: int) -> bytes:
    """Raises OSError, and ValueError for what is no plain file of a sound size: a pipe would block for ever."""
    with os.fdopen(open_file(path, os.O_RDONLY), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_size > size_max:
            raise ValueError(f"no plain file of at most {size_max >> 20} MiB")
        return file.read()


def write_whole(path: Path, data: bytes, *, mode: int = FILE, is_durable: bool = True) -> None:
    """Replace a file, whole or not at all; if it is durable, also if the machine stops. Raises OSError.

    What is half written has a name that nobody knows beforehand; `take_over` removes those of who was killed.
    """
    fd, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(fd, "wb") as file:
            os.fchmod(fd, mode)
            file.write(data)
            file.flush()
            if is_durable:
                os.fsync(fd)
        Path(name).replace(path)
    except BaseException as exc:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        if isinstance(exc, OSError):
            exc.filename = str(path)  # not that which nobody knows, or none
        raise
