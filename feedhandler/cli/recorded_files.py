"""What `feedhandler captures decode` finds in a file, and how it is shown."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from feedhandler.recordings.captures import BadLine, CaptureReader
from feedhandler.recordings.tally import BookTally, MarketTally, Tally, UndecodedFrame

PROGRESS_S: Final = 5.0  # between two lines about a long file
ITEMS: Final = 1000  # between two looks at the clock


class FileReport(msgspec.Struct):
    """What is in one file. elsewhere are frames of markets that are not decoded, by what they are of."""

    file: str
    lines: int
    frames: int
    sent: int
    gaps: int
    not_recorded: int
    elsewhere: dict[str, int]
    unknown_lines: dict[str, int]
    bad_lines: list[BadLine]
    cut: str
    is_right: bool
    markets: list[MarketTally]

    def json(self) -> str:
        """Return all of it in one line."""
        return msgspec.json.encode(self).decode()


def report(path: Path, name: str) -> FileReport:
    """Read a file: books and lists first, for they may stand before or behind the frames that they belong to."""
    reader, tally = CaptureReader(path), Tally(name)
    progress = _Progress(reader)
    for item in reader.answers():
        tally.take(item)
    for item in reader:
        progress.look(tally.frames)
        tally.take(item)
    markets = tally.finish()
    books = [book for market in markets for book in market.books]
    return FileReport(
        str(path),
        reader.lines,
        tally.frames,
        tally.sent,
        tally.gaps,
        tally.not_recorded,
        dict(tally.elsewhere),
        dict(reader.unknown),
        reader.bad,
        reader.cut,
        not any(book.crossed or book.disagreed for book in books),
        markets,
    )


class _Progress:
    """Says on stderr how far a long file has been read."""

    def __init__(self, reader: CaptureReader) -> None:
        self._reader = reader
        self._left = ITEMS
        self._due_s = time.monotonic() + PROGRESS_S

    def look(self, frames: int) -> None:
        """Say it, if it is time."""
        self._left -= 1
        if self._left:
            return
        self._left = ITEMS
        now = time.monotonic()
        if now >= self._due_s:
            self._due_s = now + PROGRESS_S
            text = f"{self._reader.path}: {self._reader.progress:.0%}, {frames:,} frames"
            print(f"feedhandler: {text}", file=sys.stderr, flush=True)


def lines(found: FileReport) -> list[str]:
    """Return a report as text."""
    text = [f"{found.file}: {_count(found.frames, 'frame')}, {found.sent:,} of ours"]
    if found.gaps:
        text.append(f"  {_count(found.gaps, 'gap')} in the recording, {found.not_recorded:,} frames or more")
    for what, count in found.elsewhere.items():
        text.append(f"  {what}: {_count(count, 'frame')}, not decoded")
    for word, count in found.unknown_lines.items():
        text.append(f"  {_count(count, 'line')} of a kind that is not known: {word!r}")
    for market in found.markets:
        text += _market_lines(market)
    return text


def _market_lines(market: MarketTally) -> list[str]:
    trades = _count(market.trades, "trade")
    if market.trades_missing:
        trades += f" ({market.trades_missing:,} missing by their ids)"
    depths = _count(market.depths, "depth")
    if market.depths_invalid:
        depths += f" ({market.depths_invalid:,} flagged INVALID: crossed, or an update was missed)"
    guessed = f", {market.guessed:,} of them on connections without an address" if market.guessed else ""
    others = "".join(f", {_count(count, kind)}" for kind, count in market.others.items())
    lines = [
        f"  {market.exchange} {market.market}: {_count(market.frames, 'frame')}{guessed}",
        f"    {trades}, {depths}, {_count(market.tickers, 'ticker')}{others}",
        f"    books: {_count(market.changes, 'delta')} with {_count(market.levels, 'level')},"
        f" {_count(market.snapshots, 'snapshot')}; {market.bases:,} requested",
        f"    {_count(market.answers, 'answer')} to commands, {market.refused:,} of them refusals",
        f"    {_count(market.other, 'frame')} of channels that are not decoded{_channels(market)}",
        f"    {_count(market.undecodable, 'frame')} undecodable",
        *(f"      {_problem(problem)}" for problem in market.problems),
    ]
    return lines + (_table(market.books) if market.books else [])


def _channels(market: MarketTally) -> str:
    named = [f"{count:,} {name}" for name, count in market.channels.most_common()]
    return f": {', '.join(named)}" if named else ""


def _problem(problem: UndecodedFrame) -> str:
    return f"{_time(problem.wall_ns)} {problem.reason}: {problem.head!r}"


def _time(wall_ns: int) -> str:
    try:
        return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(wall_ns // 10**9))
    except (OverflowError, ValueError):
        return str(wall_ns)


COLUMNS: Final = (
    "book",
    "deltas",
    "levels",
    "begun",
    "crossed",
    "gaps",
    "compared",
    "disagreed",
    "at the end",
)


def _table(books: Sequence[BookTally]) -> list[str]:
    rows: list[tuple[Any, ...]] = [COLUMNS]
    for b in books:
        end = "valid" if b.is_valid else f"waits for {b.waits_for}" if b.waits_for else "invalid"
        counts = (b.messages, b.levels, b.began, b.crossed, b.gaps, b.compared, b.disagreed)
        rows.append((b.symbol, *(f"{count:,}" for count in counts), end))
    widths = [max(len(row[place]) for row in rows) for place in range(len(COLUMNS) - 1)]
    lines = []
    for row in rows:
        numbers = "  ".join(text.rjust(width) for text, width in zip(row[1:-1], widths[1:], strict=True))
        lines.append(f"    {row[0]:{widths[0]}}  {numbers}  {row[-1]}")
    return lines + [f"      {b.symbol}: {b.first_disagreement}" for b in books if b.first_disagreement]


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}" + ("s" if number != 1 else "")
