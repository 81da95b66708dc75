"""A directory of recordings: its segments by feed and time, and their items as one stream.

DIRECTORY/manifest.jsonl
DIRECTORY/binance/20261129T220615.123456789Z.segment
DIRECTORY/kucoin-1of2/…                                  a shard of an exchange's symbols
"""

import contextlib
import datetime
import fcntl
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import msgspec

from feedhandler.data.errors import UNDECODABLE
from feedhandler.data.shard import WHOLE, Shard, parse
from feedhandler.data.units import NS_PER_S
from feedhandler.recordings import segments
from feedhandler.recordings.traffic import ANSWERED, GAP, HEADER, OPENED, RECEIVED, Item, What
from feedhandler.recordings.verification import FeedVerification, SegmentReport, Verifier

SUFFIX: Final = ".segment"
MANIFEST: Final = "manifest.jsonl"
LOCK: Final = "recorder.lock"
STARTED: Final = "started"  # in the manifest
NAME: Final = re.compile(r"(\d{8}T\d{6})\.(\d{9})Z" + re.escape(SUFFIX))
FOLDER: Final = re.compile(r"([a-z0-9_]+)(?:-(\d+of\d+))?")
TIME: Final = "%Y%m%dT%H%M%S"
REPEATED: Final = (HEADER, OPENED, ANSWERED)  # at the beginning of each segment


class SegmentFile(NamedTuple):
    """A file that is a segment by its name."""

    path: Path
    exchange: str
    shard: Shard
    begun_ns: int

    @property
    def feed(self) -> str:
        """The folder's name: an exchange, or a shard of one."""
        return self.exchange + self.shard.suffix


def file_name(begun_ns: int) -> str:
    """Return what a segment that began then is called: names are in the order of time."""
    seconds, rest = divmod(begun_ns, NS_PER_S)
    return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):{TIME}}.{rest:09d}Z{SUFFIX}"


def segment_file(path: Path) -> SegmentFile | None:
    """Return what a path's names tell; None: it is no segment."""
    name, folder = NAME.fullmatch(path.name), FOLDER.fullmatch(path.parent.name)
    if name is None or folder is None:
        return None
    try:
        shard = parse(folder[2].replace("of", "/")) if folder[2] else WHOLE
        began = datetime.datetime.strptime(f"{name[1]}+0000", f"{TIME}%z")
    except ValueError:
        return None
    return SegmentFile(path, folder[1], shard, int(began.timestamp()) * NS_PER_S + int(name[2]))


def find(
    directory: Path, exchanges: Sequence[str] = (), start_ns: int = 0, end_ns: int = 0
) -> dict[str, list[SegmentFile]]:
    """Return the segments of a directory in order, by feed; of these exchanges, (): all.

    start_ns, end_ns: those in which there may be something of then; 0: no limit. Raises OSError.
    """
    found: dict[str, list[SegmentFile]] = {}
    for folder in sorted(path for path in directory.iterdir() if path.is_dir()):
        files = sorted(filter(None, map(segment_file, folder.iterdir())), key=lambda file: file.begun_ns)
        if not files or (exchanges and files[0].exchange not in exchanges):
            continue
        # A segment lasts until the next one begins, or a little longer.
        first = max((n for n, file in enumerate(files) if file.begun_ns <= start_ns), default=0)
        chosen = [file for file in files[max(0, first - 1) :] if not end_ns or file.begun_ns < end_ns]
        if chosen:
            found[folder.name] = chosen
    return found


class Entry(msgspec.Struct, kw_only=True):
    """A line of the manifest: a segment was closed, is torn, or was removed; the last fields are of its footer.

    Or a recorder has started: then it has no path.
    """

    event: str
    at_ns: int
    path: str
    size: int
    why: str = ""
    reason: str = ""
    last_ns: int = 0
    received: int = 0
    items_size: int = 0
    lost: int = 0


def manifest(directory: Path) -> Iterator[Entry]:
    """Yield the lines of a directory's manifest; one that cannot be read, a torn one, is passed over."""
    with contextlib.suppress(FileNotFoundError), (directory / MANIFEST).open("rb") as lines:
        for line in lines:
            with contextlib.suppress(*UNDECODABLE):
                yield _decode_entry(line)


_decode_entry = msgspec.json.Decoder(Entry).decode


def is_recorded(directory: Path) -> bool:
    """True while a recorder writes to a directory. Raises OSError."""
    try:
        file = (directory / LOCK).open("rb")
    except FileNotFoundError:
        return False
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def open_files(directory: Path, found: Mapping[str, Sequence[SegmentFile]]) -> set[Path]:
    """Return the segments that are being written: the last of each feed, unless it was closed. Raises OSError."""
    if not is_recorded(directory):
        return set()
    closed = {directory / entry.path for entry in manifest(directory)}
    return {files[-1].path for files in found.values()} - closed


def verify(
    directory: Path,
    exchanges: Sequence[str] = (),
    on_progress: Callable[[Path, int], object] = lambda path, offset: None,
) -> list[FeedVerification]:
    """Read every segment of a directory, and tell what is missing. Raises OSError.

    on_progress gets the file, and how far it was read.
    """
    found = find(directory, exchanges)
    entries = {entry.path: entry for entry in manifest(directory)}  # the last word about each
    starts = [entry.at_ns for entry in manifest(directory) if entry.event == STARTED]
    being_written = open_files(directory, found)
    verifiers = {feed: Verifier(feed) for feed in found}
    for feed, files in found.items():
        verifier = verifiers[feed]
        before_ns = 0
        for file in files:
            if before_ns and any(before_ns < at_ns <= file.begun_ns for at_ns in starts):
                verifier.tell("the recorder was started anew")
            before_ns = file.begun_ns
            name = str(file.path.relative_to(directory))
            try:
                opened = file.path.open("rb")
            except FileNotFoundError:
                continue  # it was removed meanwhile, or see below
            with opened:
                segment = verifier.take(
                    name,
                    opened,
                    opened.seek(0, 2),
                    is_open=file.path in being_written,
                    on_progress=functools.partial(on_progress, file.path),
                )
            entry = entries.get(name)
            if entry is not None and entry.event == "closed" and segment.state == "torn":
                verifier.damage(segment, "it was closed once, and its end is gone")
    for name, entry in {entry.path: entry for entry in manifest(directory)}.items():
        feed = name.partition("/")[0]
        is_wanted = name and (not exchanges or feed.partition("-")[0] in exchanges)
        if entry.event != "removed" and is_wanted and not (directory / name).exists():
            verifier = verifiers.setdefault(feed, Verifier(feed))
            gone = SegmentReport(path=name, size=0, state="gone", damage=[])
            verifier.report.segments.append(gone)
            verifier.damage(gone, "the file is gone, and the recorder has not removed it")
    return [verifiers[feed].end() for feed in sorted(verifiers)]


def items(
    files: Iterable[SegmentFile], on_open: Callable[[BinaryIO], object] = lambda file: None
) -> Iterator[Item]:
    """Yield the items of the segments of one feed, in order; what segments repeat, once.

    A file that is no segment is a GAP in its place. on_open gets each file that is read. Raises OSError.
    """
    return chain.from_iterable(parts(files, on_open))


def parts(
    files: Iterable[SegmentFile], on_open: Callable[[BinaryIO], object] = lambda file: None
) -> Iterator[list[Item]]:
    """Yield the same in lists, one a block."""
    told: set[tuple[What, int, str, str]] = set()

    def is_new(item: Item) -> bool:
        if item.what not in REPEATED:
            return True
        key = (item.what, item.wall_ns, item.connection, item.name)
        was_told = key in told
        told.add(key)
        return not (item.is_repeated and was_told)

    for file in files:
        with file.path.open("rb") as opened:
            on_open(opened)
            try:
                for part in segments.parts(opened):
                    yield [item for item in part if item.what is RECEIVED or is_new(item)]
            except segments.NotASegment as exc:
                yield [Item(GAP, file.begun_ns, name=f"{segments.DAMAGED}: {file.path.name}: {exc}")]
