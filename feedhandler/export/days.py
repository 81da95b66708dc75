"""Many files that grow at once, one for each symbol and day: each is open only while something is added to it."""

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

from feedhandler.export.jobs import Made

WAITING_MAX: Final = 64 << 20  # bytes, of all files
CHUNK_SIZE: Final = 256 << 10  # that is written at once
EPOCH: Final = datetime.date(1970, 1, 1).toordinal()

K = TypeVar("K")


def date_of(day: int) -> datetime.date:
    """Return the date of a day since 1970."""
    return datetime.date.fromordinal(EPOCH + day)


class DayFiles(Generic[K]):
    """Files in a folder, by key; path says what each is called.

    packed is what a piece of a file becomes on the disk, heading what it begins with.
    """

    def __init__(
        self,
        folder: Path,
        path: Callable[[K], str],
        packed: Callable[[bytes], bytes] = bytes,
        heading: Callable[[K], bytes] | None = None,
    ) -> None:
        self._folder = folder
        self._path = path
        self._packed = packed
        self._heading = heading
        self._waiting: dict[K, bytearray] = {}
        self._size = 0
        self.rows: dict[K, int] = {}

    def add(self, key: K, data: bytes, rows: int) -> None:
        """Add rows to a file."""
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = bytearray()
            if key not in self.rows and self._heading is not None:
                waiting += self._heading(key)
        waiting += data
        self._size += len(data)
        self.rows[key] = self.rows.get(key, 0) + rows
        if len(waiting) >= CHUNK_SIZE:
            self._write(key)
        elif self._size >= WAITING_MAX:
            self.flush()

    def flush(self) -> None:
        """Write all that waits."""
        for key in list(self._waiting):
            self._write(key)

    def _write(self, key: K) -> None:
        data = self._waiting.pop(key)
        path = self.file(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(self._packed(bytes(data)))
        self._size = max(0, self._size - len(data))

    def file(self, key: K) -> Path:
        """Return the path of a file."""
        return self._folder / self._path(key)

    def finish(self) -> list[Made]:
        """Write what waits, and say what there is."""
        self.flush()
        return [Made(self._path(key), rows) for key, rows in self.rows.items()]
