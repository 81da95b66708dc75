"""`feedhandler captures list` and `verify`: what a directory of recordings holds, and whether it is complete."""

import contextlib
import datetime
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec

from feedhandler.data.errors import EXIT_CONFIG, EXIT_FAILED, EXIT_OK, ConfigError
from feedhandler.data.units import NS_PER_S
from feedhandler.exchanges import EXCHANGES
from feedhandler.recordings import directory, segments
from feedhandler.recordings.directory import SegmentFile
from feedhandler.recordings.quality import (
    AWAY,
    COMPLETE,
    MISSING,
    QUIET,
    UNKNOWN,
    MissingIds,
    Quality,
    QualityReport,
    QualityRow,
)
from feedhandler.recordings.verification import FeedVerification, MissingRange

PROGRESS_S: Final = 5.0
SHOWN: Final = 10  # of what is missing, and of what is damaged, for each feed
ROWS_SHOWN: Final = 40  # of hours in which not all is well
VERDICTS: Final = (COMPLETE, QUIET, MISSING, UNKNOWN, AWAY)


def _check(path: Path) -> None:
    if not path.is_dir():
        raise ConfigError(f"{path}: is no directory of recordings")


class ListedSegment(msgspec.Struct, kw_only=True):
    """A file, as far as it is known without reading all of it. state: closed, open, torn, or of another size."""

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
    for listed in _list(path, exchanges):
        if is_json:
            print(msgspec.json.encode(listed).decode(), flush=True)
        else:
            print("\n".join(_list_lines(listed)), flush=True)
    return EXIT_OK


def _list(path: Path, exchanges: Sequence[str]) -> list[ListedFeed]:
    """Return what there is. Raises ConfigError if that is nothing, or cannot be read."""
    with _readable(path):
        found = directory.find(path, exchanges)
        if not found:
            raise ConfigError(_nothing(path))
        entries = {entry.path: entry for entry in directory.manifest(path)}
        being_written = directory.open_files(path, found)
        return [
            ListedFeed(
                feed=feed,
                segments=[_listed(path, file, entries, file.path in being_written) for file in files],
            )
            for feed, files in found.items()
        ]


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn an OSError into a ConfigError that names the file."""
    try:
        yield
    except BrokenPipeError:  # whoever reads what is printed has enough
        raise
    except OSError as exc:
        raise ConfigError(f"{exc.filename or path}: cannot be read: {exc.strerror or exc}") from exc


def _nothing(path: Path) -> str:
    """Return that there are no recordings in a directory, and what is in their place."""
    text = f"{path}: there are no recordings in it"
    names = sorted(each.name for each in path.iterdir() if ".jsonl" in each.suffixes)
    captures = [name for name in names if name != directory.MANIFEST]
    if not captures:
        return text
    return f"{text}, but captures such as {captures[0]}: `feedhandler captures decode FILE...` looks at those"


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
        if entry.event == "closed" and size != entry.size:
            listed.state, listed.reason = "another size", f"it had {entry.size} bytes when it was closed"
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


def verify(
    path: Path, exchanges: Sequence[str], *, is_json: bool, has_ids: bool = True, shows_all: bool = False
) -> int:
    """Print what is missing; returns the exit status. Raises ConfigError."""
    _check(path)
    with _readable(path):
        progress = _Progress(path, 2 if has_ids else 1)
        reports = directory.verify(path, exchanges, progress.look)
        if not reports:
            raise ConfigError(_nothing(path))
        is_whole = all(report.is_complete for report in reports)
        for report in reports:
            found = _quality(path, report.feed, progress) if has_ids else None
            is_whole = is_whole and not (found and found.missing)
            if is_json:
                ids = {"ids": msgspec.to_builtins(found)} if found else {}
                print(msgspec.json.encode(msgspec.to_builtins(report) | ids).decode(), flush=True)
            else:
                lines = [
                    *_verify_lines(report),
                    *(_quality_lines(found, shows_all=shows_all) if found else ()),
                ]
                print("\n".join(lines), flush=True)
    if not all(report.is_sound for report in reports):
        return EXIT_CONFIG
    return EXIT_OK if is_whole else EXIT_FAILED


def _quality(path: Path, feed: str, progress: "_Progress") -> QualityReport | None:
    """Decode all of a feed. Raises OSError for what cannot be read."""
    files = [file for file in directory.find(path).get(feed, ()) if file.path.exists()]
    if not files or files[0].exchange not in EXCHANGES:
        return None
    quality = Quality(files[0].exchange)
    for file in files:
        progress.look(file.path, 0)
        try:
            for item in directory.items([file]):
                quality.take(item)
        except FileNotFoundError:
            continue  # retention has taken it meanwhile
    return quality.report()


COLUMNS: Final = ("hour", "market", "symbol", "kind", "received", "missing", "connected", "")


def _quality_lines(found: QualityReport, *, shows_all: bool) -> Iterator[str]:
    """Yield what ids prove: a summary, what is missing, and a table of the hours in which not all is well."""
    if not found.rows:
        return
    for key, text in found.legend.items():
        market, kind = key.split()
        verdicts = Counter(row.verdict for row in found.rows if (row.market, row.kind) == (market, kind))
        hours = ", ".join(f"{verdicts[verdict]:,} {verdict}" for verdict in VERDICTS if verdicts[verdict])
        yield f"  {market} {kind}, hours of symbols: {hours}"
        yield f"    {text}"
    for gap in found.gaps[:SHOWN]:
        yield f"  {_gap_text(gap)}"
    if (more := len(found.gaps) - SHOWN) > 0:
        yield f"  … and {more:,} more"
    shown = [row for row in found.rows if shows_all or row.verdict not in (COMPLETE, QUIET)]
    if not shows_all:
        shown = [row for row in shown if row.missing is not None or row.connected_s < row.seconds]
    shown.sort(key=lambda row: (row.hour_ns, row.market, row.symbol, row.kind))
    if shown:
        yield from _table(shown if shows_all else shown[:ROWS_SHOWN])
        if not shows_all and (more := len(shown) - ROWS_SHOWN) > 0:
            yield f"  … and {more:,} more: --hours shows all"


def _gap_text(gap: MissingIds) -> str:
    numbers = f"{gap.first:,}" if gap.first == gap.last else f"{gap.first:,} to {gap.last:,}"
    what = f"{numbers} missing" if gap.last else "perhaps something is missing"
    when = f"between {_time(gap.after_ns)} and {_time(gap.before_ns)[11:]}"
    return f"{gap.kind} {gap.symbol}: {what} {when}: {gap.why}"


def _table(rows: Sequence[QualityRow]) -> Iterator[str]:
    table = [COLUMNS]
    for row in rows:
        missing = UNKNOWN if row.missing is None else f"{row.missing:,}"
        if row.recovered:
            missing += f", {row.recovered:,} by REST"
        if row.undecodable:
            missing += f", {row.undecodable:,} undecodable"
        connected = f"{row.connected_s:,.0f} of {row.seconds:,.0f} s"
        hour = _time(row.hour_ns)[:13]
        verdict = "" if row.verdict == UNKNOWN and row.missing is None else row.verdict
        table.append(
            (hour, row.market, row.symbol, row.kind, f"{row.received:,}", missing, connected, verdict)
        )
    widths = [max(len(line[place]) for line in table) for place in range(len(COLUMNS) - 1)]
    for line in table:
        texts = [text.ljust(width) for text, width in zip(line, widths, strict=False)]
        yield f"  {'  '.join([*texts, line[-1]]).rstrip()}"


class _Progress:
    """Says on stderr how much of a directory has been read, all of it so many times."""

    def __init__(self, path: Path, times: int) -> None:
        self._sizes = {
            file.path: file.path.stat().st_size for files in directory.find(path).values() for file in files
        }
        self._total = times * sum(self._sizes.values())
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
