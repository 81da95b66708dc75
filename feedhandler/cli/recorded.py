"""`feedhandler captures decode`: recorded traffic through the decoders, and whether the books of it are right."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from feedhandler.cli.arguments import Commands
from feedhandler.data.errors import EXIT_CONFIG, EXIT_FAILED, EXIT_OK, ConfigError
from feedhandler.exchanges import EXCHANGES
from feedhandler.recordings.captures import BadLine, CaptureReader
from feedhandler.recordings.tally import BookTally, MarketTally, Tally, UndecodedFrame
from feedhandler.recordings.traffic import What

PROGRESS_S: Final = 5.0  # between two lines about a long file
ITEMS: Final = 1000  # between two looks at the clock
BAD_SHOWN: Final = 3


def add(commands: Commands) -> None:
    """Add the command of this module."""
    text = "look at recordings of real traffic"
    parser = commands.add_parser("captures", help=text, description=text[0].upper() + text[1:] + ".")
    actions = parser.add_subparsers(title="actions", required=True, metavar="ACTION")
    text = "run every frame through the decoders and books, and count what comes of it"
    decode = actions.add_parser(
        "decode",
        help=text,
        description=text[0].upper() + text[1:] + ".",
        epilog="exit status: 0 all books are right; 1 one was crossed, or disagrees with a quote of the same id;"
        " 2 a file or a line of it cannot be read. docs/captures.md has the format.",
    )
    decode.add_argument("files", nargs="+", metavar="FILE", help="JSON lines, as they are or in zstd or gzip")
    decode.add_argument(
        "--exchange",
        metavar="NAME",
        help=f"whose traffic it is, where addresses in the file do not tell: {', '.join(EXCHANGES)}",
    )
    decode.add_argument("--json", action="store_true", help="one JSON object per file")
    decode.set_defaults(run=_decode, name="captures decode")


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


def _decode(arguments: argparse.Namespace) -> int:
    name = arguments.exchange or ""
    if name and name not in EXCHANGES:
        raise ConfigError(f"--exchange {name}: is none of {', '.join(EXCHANGES)}")
    status = EXIT_OK
    for file in arguments.files:
        try:
            report = _report(Path(file), name)
        except ConfigError as exc:
            print(f"feedhandler: {exc}", file=sys.stderr)
            status = status or EXIT_CONFIG
            continue
        if arguments.json:
            print(msgspec.json.encode(report).decode(), flush=True)
        else:
            print("\n".join(_lines(report)), flush=True)
        for bad in report.bad_lines[:BAD_SHOWN]:
            print(f"feedhandler: {file}: line {bad.number} cannot be read: {bad.reason}", file=sys.stderr)
        if more := len(report.bad_lines[BAD_SHOWN:]):
            print(f"feedhandler: {file}: and {more:,} more", file=sys.stderr)
        if report.cut:
            print(f"feedhandler: {file}: {report.cut}; what is before it was read", file=sys.stderr)
        if not report.is_right:
            status = EXIT_FAILED
        elif report.bad_lines:
            status = status or EXIT_CONFIG
    return status


def _report(path: Path, name: str) -> FileReport:
    """Read a file: the answers first, for they may stand before or behind the frames that they belong to."""
    reader, tally = CaptureReader(path), Tally(name)
    progress = _Progress(reader)
    for item in reader.answers():
        tally.take(item)
    for item in reader:
        progress.look(tally.frames)
        if item.what is not What.ANSWERED:
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


def _lines(report: FileReport) -> list[str]:
    """Return a report as text."""
    lines = [f"{report.file}: {_count(report.frames, 'frame')}, {report.sent:,} of ours"]
    if report.gaps:
        lines.append(
            f"  {_count(report.gaps, 'gap')} in the recording, {report.not_recorded:,} frames or more"
        )
    for what, count in report.elsewhere.items():
        lines.append(f"  {what}: {_count(count, 'frame')}, not decoded")
    for word, count in report.unknown_lines.items():
        lines.append(f"  {_count(count, 'line')} of a kind that is not known: {word!r}")
    for market in report.markets:
        lines += _market_lines(market)
    return lines


def _market_lines(market: MarketTally) -> list[str]:
    trades = _count(market.trades, "trade")
    if market.trades_missing:
        trades += f" ({market.trades_missing:,} missing by their ids)"
    depths = _count(market.depths, "depth")
    if market.depths_crossed:
        depths += f" ({market.depths_crossed:,} crossed, flagged INVALID)"
    lines = [
        f"  {market.exchange} {market.market}: {_count(market.frames, 'frame')}",
        f"    {trades}, {depths}, {_count(market.tickers, 'ticker')}",
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
