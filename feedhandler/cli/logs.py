"""The last line of a supervised process's log."""

from pathlib import Path
from typing import Final

import msgspec

TAIL_SIZE: Final = 1 << 16


class _Line(msgspec.Struct):
    message: str
    pid: int = 0


def last_line(path: Path, successor: int = 0) -> str:
    """Return the end of a log in words, "" if there is none; lines of a successor, by its pid, are passed over."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_SIZE))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return ""
    for text in reversed(lines):
        try:
            line = msgspec.json.decode(text, type=_Line)
        except msgspec.DecodeError:
            if text.strip():
                return text.strip()  # of an end before there was a log
            continue
        if not successor or line.pid != successor:
            return line.message
    return ""
