"""Files of recordings, compressed or not: told by their first bytes, not by their names."""

import gzip
import importlib
import zlib
from pathlib import Path
from types import ModuleType
from typing import IO, Any, Final, cast

from feedhandler.data.errors import ConfigError

ZSTD_MAGICS: Final = (b"\x28\xb5\x2f\xfd", *(bytes((low, 0x2A, 0x4D, 0x18)) for low in range(0x50, 0x60)))
GZIP_MAGIC: Final = b"\x1f\x8b"
NO_ZSTD: Final = "is zstd, for which Python before 3.14 needs a package: pip install backports.zstd"


def zstd() -> ModuleType | None:
    """Return Python's module for zstd, or the package in its place; None if there is neither."""
    for name in ("compression.zstd", "backports.zstd"):
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    return None


class Torn(Exception):
    """A compressed file ends before its end."""


class Damaged(Exception):
    """What is left of a compressed file cannot be read."""


class CompressedFile:
    """The bytes of a file, line by line. Raises ConfigError if it cannot be opened.

    size and position are those of the file as it lies on the disk.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._file = path.open("rb")
        except IsADirectoryError:
            text = "is a directory; `feedhandler captures verify` is for one that a recorder has written"
            raise ConfigError(f"{path}: {text}") from None
        except OSError as exc:
            raise ConfigError(f"{path}: {exc.strerror}") from exc
        try:
            self.size = path.stat().st_size
            head = self._file.peek(4)[:4]
            self._errors: tuple[type[Exception], ...] = (OSError, zlib.error)
            self._lines = self._opened(path, head)
        except BaseException:
            self._file.close()
            raise

    def _opened(self, path: Path, head: bytes) -> IO[bytes]:
        if head.startswith(GZIP_MAGIC):
            return cast(IO[bytes], gzip.GzipFile(fileobj=self._file))
        if not head.startswith(ZSTD_MAGICS):
            return self._file
        module: Any = zstd()
        if module is None:
            raise ConfigError(f"{path}: {NO_ZSTD}")
        self._errors = (*self._errors, module.ZstdError)
        return cast(IO[bytes], module.ZstdFile(self._file))

    @property
    def position(self) -> int:
        return self._file.tell()

    def readline(self, size_max: int) -> bytes:
        """Return the next line with its end, or so much of it at most; nothing at the end. Raises Torn, Damaged."""
        try:
            return self._lines.readline(size_max)
        except EOFError as exc:
            raise Torn(str(exc) or type(exc).__name__) from exc
        except self._errors as exc:
            raise Damaged(str(exc) or type(exc).__name__) from exc

    def close(self) -> None:
        """Close the file."""
        self._lines.close()
        self._file.close()
