"""The directory that is recorded to: its lock, files, manifest, and how much room there is.

Nothing here decides; whatever the system refuses is an OSError.
"""

import contextlib
import errno
import fcntl
import logging
import os
import time
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final

import msgspec

from feedhandler.data.errors import ConfigError
from feedhandler.recorder.retention import KeptSegment, expired
from feedhandler.recordings import directory, segments
from feedhandler.recordings.segments import Footer
from feedhandler.transport import private

PROBE: Final = ".probe"

log = logging.getLogger(__name__)


class RecordingsDirectory:
    """Owned by one recorder at a time; a context manager.

    key names the setting in messages. Raises ConfigError, with the remedy, for a directory that cannot be used.
    """

    def __init__(self, path: str, key: str) -> None:
        self.path = Path(path)
        self._key = key
        self._lock = -1
        self._open: set[str] = set()  # segments that are being written
        self.size = 0  # of all segments but those

    def __enter__(self) -> "RecordingsDirectory":
        try:
            private.make_folder(self.path)
            self._take_lock()
            self._try_to_write()
        except OSError as exc:
            self._release()
            remedy = "make room" if exc.errno in (errno.ENOSPC, errno.EDQUOT) else "set another directory"
            raise ConfigError(
                f"{self._key}: cannot write to {self.path}/: {exc.strerror or exc}; {remedy}"
            ) from exc
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def _take_lock(self) -> None:
        self._lock = private.open_file(self.path / directory.LOCK, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self._lock, 32, 0).decode(errors="replace").strip()
            os.close(self._lock)
            self._lock = -1
            raise ConfigError(
                f"{self._key}: another recorder writes to {self.path}/"
                f" (pid {pid if pid.isdigit() else 'unknown'}); stop it first, or set another directory"
            ) from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)

    def _try_to_write(self) -> None:
        """Permissions tell little of mounted file systems."""
        probe = self.path / PROBE
        probe.write_bytes(b"\0")
        probe.unlink()

    def _release(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    # --- segments

    def open(self, feed: str, begun_ns: int) -> tuple[str, BinaryIO]:
        """Make the file of a segment, as `recording.Store` has it."""
        folder = self.path / feed
        if not self.path.is_dir():  # not made anew: it may be that of a disk that is gone
            raise FileNotFoundError(errno.ENOENT, "the directory is gone", str(self.path))
        folder.mkdir(exist_ok=True)
        path = folder / directory.file_name(begun_ns)
        file = path.open("xb", buffering=0)
        name = str(path.relative_to(self.path))
        self._open.add(name)
        return name, file

    def closed(self, path: str, footer: Footer, size: int) -> None:
        """Note that a segment is complete."""
        self._open.discard(path)
        self.size += size
        self._note("closed", path, size, **_facts(footer))

    def given_up(self, path: str, size: int, why: str, *, is_empty: bool) -> None:
        """Note that a segment has no footer; if the disk takes no note either, the next start makes up for it."""
        self._open.discard(path)
        with contextlib.suppress(OSError):
            if is_empty:
                (self.path / path).unlink()
                return
            self.size += size
            self._note("torn", path, size, why=why)

    def _note(self, event: str, path: str, size: int, **facts: object) -> None:
        line = msgspec.json.encode(
            {"event": event, "at_ns": time.time_ns(), "path": path, "size": size, **facts}
        )
        with (self.path / directory.MANIFEST).open("a+b", buffering=0) as manifest:
            size = manifest.seek(0, os.SEEK_END)
            manifest.seek(max(0, size - 1))
            is_whole = manifest.read(1) in (b"", b"\n")  # else somebody was killed in the middle of a line
            manifest.write((b"" if is_whole else b"\n") + line + b"\n")

    def recover(self) -> int:
        """Note what earlier recorders have left without a word, and that we start; returns how many were torn."""
        noted = {entry.path for entry in directory.manifest(self.path)}
        torn = 0
        for kept in self._segments():
            self.size += kept.size
            if kept.path in noted:
                continue
            footer = _footer_of(self.path / kept.path)
            if footer is not None:
                self._note("closed", kept.path, kept.size, **_facts(footer))
            else:
                torn += 1
                self._note("torn", kept.path, kept.size, why="the recorder was killed")
                log.warning("%s is torn: what was written is kept, its last moment is lost", kept.path)
        self._note(directory.STARTED, "", 0)
        return torn

    def _segments(self) -> list[KeptSegment]:
        """Return the segments that are not being written."""
        found = []
        for files in directory.find(self.path).values():
            for file in files:
                name = str(file.path.relative_to(self.path))
                if name in self._open:
                    continue
                with contextlib.suppress(FileNotFoundError):
                    status = file.path.stat()
                    found.append(KeptSegment(name, status.st_size, file.begun_ns, status.st_mtime_ns))
        return found

    def remove_expired(self, now_ns: int, *, max_age_ns: int, max_size: int, open_size: int) -> None:
        """Remove what is too old or too much; open_size: of segments that are being written."""
        found = self._segments()
        self.size = sum(kept.size for kept in found)
        limits = {"max_age_ns": max_age_ns, "max_size": max_size, "other_size": open_size}
        for kept, why in expired(found, now_ns, **limits):
            (self.path / kept.path).unlink(missing_ok=True)
            self.size -= kept.size
            self._note("removed", kept.path, kept.size, why=why)
            log.info("removed %s, %.1f MB: %s", kept.path, kept.size / 1e6, why)

    def free(self) -> int:
        """Return how many bytes of the file system are free for us."""
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize


def _footer_of(path: Path) -> Footer | None:
    try:
        with path.open("rb") as file:
            return segments.footer(file)
    except segments.NotASegment:
        return None


def _facts(footer: Footer) -> dict[str, object]:
    """Return what a manifest's line has of a footer: all but what is needed to read the file."""
    facts: dict[str, object] = msgspec.to_builtins(footer)
    del facts["index"]
    return facts
