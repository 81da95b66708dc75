"""`feedhandler captures list` and `verify`: what a directory of recordings holds, and whether it is complete."""

import datetime
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from feedhandler.data.book import BOOK
from feedhandler.data.errors import EXIT_CONFIG, EXIT_FAILED, EXIT_OK, ConfigError
from feedhandler.data.units import NS_PER_S
from feedhandler.recordings import directory, segments
from feedhandler.recordings.directory import SegmentFile
from feedhandler.recordings.quality import Quality, QualityRow
from feedhandler.recordings.runs import RunReader, find_runs
from feedhandler.recordings.verification import FeedVerification, MissingRange

PROGRESS_S: Final = 5.0
SHOWN: Final = 10  # of what is missing, and of what is damaged, for each feed


def _check(path: Path) -> None:
    if not path.is_dir():
        raise ConfigError(f"{path}: is no directory of recordings")


class ListedSegment(msgspec.Struct, kw_only=True):
    """A file, as far as it is known without reading all of it. state: closed, open, or torn."""

    path: str
    state: str
    size: int
    begun_ns: int
    last_ns: int = 0
    received: int = 0
    items_size: int = 0
    lost: int = 0
    reason: str = ""


class ListedFeed(msgspec.Struct, kw_only=True):
    """The segments of one feed."""

    feed: str
    segments: list[ListedSegment]


def show_list(path: Path, exchanges: Sequence[str], *, is_json: bool) -> int:
    """Print what there is; returns the exit status. Raises ConfigError."""
    _check(path)
    found = directory.find(path, exchanges)
    if not found:
        raise ConfigError(f"{path}: there are no recordings in it")
    entries = {entry.path: entry for entry in directory.manifest(path)}
    being_written = directory.open_files(path, found)
    for feed, files in found.items():
        listed = ListedFeed(
            feed=feed, segments=[_listed(path, file, entries, file.path in being_written) for file in files]
        )
        if is_json:
            print(msgspec.json.encode(listed).decode(), flush=True)
        else:
            print("\n".join(_list_lines(listed)), flush=True)
    return EXIT_OK


def _listed(
    path: Path, file: SegmentFile, entries: dict[str, directory.Entry], is_open: bool
) -> ListedSegment:
    name = str(file.path.relative_to(path))
    size = file.path.stat().st_size
    listed = ListedSegment(path=name, state="torn", size=size, begun_ns=file.begun_ns)
    entry = entries.get(name)
    if is_open:
        listed.state = "open"
    elif entry is not None:
        listed.state, listed.reason = entry.event, entry.reason or entry.why
        listed.last_ns, listed.received = entry.last_ns, entry.received
        listed.items_size, listed.lost = entry.items_size, entry.lost
    elif (footer := _footer(file.path)) is not None:
        listed.state, listed.reason = "closed", footer.reason
        listed.last_ns, listed.received = footer.last_ns, footer.received
        listed.items_size, listed.lost = footer.items_size, footer.lost
    return listed


def _footer(path: Path) -> segments.Footer | None:
    try:
        with path.open("rb") as file:
            return segments.footer(file)
    except segments.NotASegment:
        return None


def _list_lines(listed: ListedFeed) -> Iterator[str]:
    found = listed.segments
    size = sum(each.size for each in found)
    yield f"{listed.feed}: {_count(len(found), 'segment')}, {_mb(size)}"
    for each in found:
        frames = _count(each.received, "frame") if each.received else ""
        lost = f"{each.lost:,} lost" if each.lost else ""
        words = [
            _time(each.begun_ns),
            _time(each.last_ns)[11:] if each.last_ns else "",
            _mb(each.size),
            each.state,
            frames,
            lost,
        ]
        yield f"  {each.path}  {'  '.join(filter(None, words))}"


def verify(path: Path, exchanges: Sequence[str], *, is_json: bool, has_ids: bool = False) -> int:
    """Print what is missing; returns the exit status. Raises ConfigError."""
    _check(path)
    progress = _Progress(path)
    try:
        reports = directory.verify(path, exchanges, progress.look)
    except OSError as exc:
        raise ConfigError(f"{exc.filename or path}: cannot be read: {exc.strerror or exc}") from exc
    if not reports:
        raise ConfigError(f"{path}: there are no recordings in it")
    is_whole = all(report.is_complete for report in reports)
    for report in reports:
        rows = _quality(path, report.feed) if has_ids else []
        is_whole = is_whole and not any(row.missing for row in rows)
        if is_json:
            found = msgspec.to_builtins(report) | ({"ids": msgspec.to_builtins(rows)} if has_ids else {})
            print(msgspec.json.encode(found).decode(), flush=True)
        else:
            print("\n".join([*_verify_lines(report), *_quality_lines(rows)]), flush=True)
    if not all(report.is_sound for report in reports):
        return EXIT_CONFIG
    return EXIT_OK if is_whole else EXIT_FAILED


def _quality(path: Path, feed: str) -> list[QualityRow]:
    """Decode all of a feed. Raises ConfigError or OSError for what cannot be read."""
    found = [run for run in find_runs(path) if run.feed == feed]
    quality = Quality(found[0].exchange) if found else None
    for run in found:
        assert quality is not None
        quality.begin()
        for item in RunReader(run):
            quality.take(item)
    return quality.rows() if quality is not None else []


QUALITY_COLUMNS: Final = ("hour", "market", "symbol", "kind", "received", "missing")
CANNOT_BE_KNOWN: Final = "cannot be known"


def _quality_lines(rows: Sequence[QualityRow]) -> list[str]:
    """Return a table of what ids prove."""
    if not rows:
        return []
    table = [QUALITY_COLUMNS]
    for row in sorted(rows, key=lambda row: (row.hour_ns, row.market, row.symbol, row.kind)):
        missing = CANNOT_BE_KNOWN if row.missing is None else f"{row.missing:,}"
        if row.kind == BOOK.name:
            missing += " times"
        if row.recovered:
            missing += f", {row.recovered:,} by REST"
        if row.undecodable:
            missing += f", {row.undecodable:,} undecodable"
        hour = _time(row.hour_ns)[:13]
        table.append((hour, row.market, row.symbol, row.kind, f"{row.received:,}", missing))
    widths = [max(len(line[place]) for line in table) for place in range(5)]
    return [
        "  " + "  ".join([*(text.ljust(width) for text, width in zip(line, widths, strict=False)), line[5]])
        for line in table
    ]


class _Progress:
    """Says on stderr how much of a directory has been read."""

    def __init__(self, path: Path) -> None:
        self._sizes = {
            file.path: file.path.stat().st_size for files in directory.find(path).values() for file in files
        }
        self._total = sum(self._sizes.values())
        self._done = 0
        self._path: Path | None = None
        self._due_s = time.monotonic() + PROGRESS_S

    def look(self, path: Path, offset: int) -> None:
        """Say it, if it is time."""
        if path != self._path:
            self._done += self._sizes.get(self._path, 0) if self._path is not None else 0
            self._path = path
        now_s = time.monotonic()
        if now_s >= self._due_s:
            self._due_s = now_s + PROGRESS_S
            part = (self._done + offset) / max(1, self._total)
            print(
                f"feedhandler: {min(part, 1.0):.0%} of {_mb(self._total)} read", file=sys.stderr, flush=True
            )


def _verify_lines(report: FeedVerification) -> Iterator[str]:
    yield f"{report.feed}: {_verdict(report)}"
    states = {state: sum(each.state == state for each in report.segments) for state in _STATES}
    named = ", ".join(f"{count:,} {state}" for state, count in states.items() if count)
    yield f"  {_count(len(report.segments), 'segment')} ({named}), {_count(report.sessions, 'start')} of the feed"
    yield (
        f"  {_count(report.received, 'frame')} received, {report.sent:,} sent,"
        f" {_count(report.answered, 'answer')}"
    )
    for each in report.ranges[:SHOWN]:
        yield f"  missing: {_range(each)}"
    if (more := len(report.ranges) - SHOWN) > 0:
        yield f"  … and {more:,} ranges more"
    damage = [f"{each.path}: {text}" for each in report.segments for text in each.damage]
    for text in damage[:SHOWN]:
        yield f"  damaged: {text}"
    if (more := len(damage) - SHOWN) > 0:
        yield f"  … and {more:,} places more"
    if report.unknown_ends:
        yield (
            f"  {_count(report.unknown_ends, 'torn end')}, behind which the feed did not go on:"
            " a second may be missing"
        )
    if report.cut_sessions:
        yield (
            f"  {_count(report.cut_sessions, 'end')} of the feed without a word:"
            " what it received in its last moment cannot be known"
        )


_STATES: Final = ("closed", "open", "torn", "unreadable", "gone")


def _verdict(report: FeedVerification) -> str:
    if report.is_complete:
        return "complete"
    if not report.is_sound:
        text = "damaged" if report.damaged else "incomplete"
        return f"{text}, {report.missing:,} missing, of {report.unexplained:,} of which nothing tells why"
    if missing := max(report.missing, report.lost):
        return f"incomplete, {missing:,} missing, and told why"
    return "torn, nothing that can be seen is missing"


def _range(each: MissingRange) -> str:
    whose = f"{each.connection} {each.what}" if each.connection else each.what
    numbers = f"{each.first:,}" if each.first == each.last else f"{each.first:,} to {each.last:,}"
    when = f", after {_time(each.after_ns)}" if each.after_ns else ""
    return f"{whose} {numbers}{when}: {each.why or 'nothing tells why'}"


def _time(ns: int) -> str:
    seconds, rest = divmod(ns, NS_PER_S)
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%d %H:%M:%S}.{rest // 10**6:03d}"


def _mb(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}" + ("" if number == 1 else "s")
