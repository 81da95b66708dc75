"""`feedhandler captures sizes`: what recordings take on disk, so that one can reckon what a day of them will."""

import importlib.util
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

from feedhandler.data.errors import EXIT_OK
from feedhandler.export import sizes
from feedhandler.export.sizes import KindSize
from feedhandler.recordings.runs import Run, find_runs

PROGRESS_S: Final = 5.0
GB: Final = 1e9
COLUMNS: Final = (
    "exchange",
    "kind",
    "messages",
    "a second",
    "received",
    "segments",
    "Parquet",
    "gzip",
    "GB/day",
)
NO_PARQUET: Final = "Parquet is left out: pip install 'feedhandler[parquet]'"


def show(path: Path, exchanges: Sequence[str], *, is_json: bool) -> int:
    """Print what kinds take; returns the exit status. Raises ConfigError."""
    runs = find_runs(path, exchanges)
    has_parquet = importlib.util.find_spec("pyarrow") is not None
    found = sizes.measure(runs, on_progress=_Progress())
    if has_parquet:
        sizes.add_parquet(found, runs)
    if is_json:
        for each in found:
            print(msgspec.json.encode(each).decode())
        return EXIT_OK
    print("\n".join(lines(found)))
    if not has_parquet:
        print(f"feedhandler: {NO_PARQUET}", file=sys.stderr)
    return EXIT_OK


def lines(found: Sequence[KindSize]) -> list[str]:
    """Return a table in Markdown: bytes a message, and GB of segments a day at the rate of the recording."""
    rows = [_row(each) for each in found]
    widths = [max(map(len, column)) for column in zip(COLUMNS, *rows, strict=True)]
    rule = ["-" * width if at < 2 else "-" * (width - 1) + ":" for at, width in enumerate(widths)]
    return [_line(COLUMNS, widths), _line(rule, widths), *(_line(row, widths) for row in rows)]


def _row(size: KindSize) -> list[str]:
    stored = (size.received, size.segments, size.parquet, size.gzip)
    a_message = [f"{each / size.messages:,.1f}" if each else "" for each in stored]
    a_second = size.messages / size.seconds if size.seconds else 0.0
    day = size.a_day(size.segments) / GB
    return [size.exchange, size.kind, f"{size.messages:,}", f"{a_second:,.1f}", *a_message, f"{day:,.2f}"]


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = (
        cell.ljust(width) if at < 2 else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return f"| {' | '.join(padded)} |"


class _Progress:
    """Says on a terminal how far it is."""

    def __init__(self) -> None:
        self._due_s = time.monotonic() + PROGRESS_S

    def __call__(self, run: Run, position: int) -> None:
        """So much of a run was read."""
        if (now_s := time.monotonic()) >= self._due_s:
            self._due_s = now_s + PROGRESS_S
            if sys.stderr.isatty():
                print(f"feedhandler: {run.name}: {position / 1e6:,.1f} MB", file=sys.stderr)
