"""A directory of recordings: its segments by feed and time, and their items as one stream.

DIRECTORY/manifest.jsonl
DIRECTORY/binance/20261129T220615.123456789Z.segment
DIRECTORY/kucoin-1of2/…                                  a shard of an exchange's symbols
"""

import datetime
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from feedhandler.data.shard import WHOLE, Shard, parse
from feedhandler.data.units import NS_PER_S
from feedhandler.recordings import segments
from feedhandler.recordings.traffic import Item, What

SUFFIX: Final = ".segment"
MANIFEST: Final = "manifest.jsonl"
NAME: Final = re.compile(r"(\d{8}T\d{6})\.(\d{9})Z" + re.escape(SUFFIX))
FOLDER: Final = re.compile(r"([a-z0-9_]+)(?:-(\d+of\d+))?")
TIME: Final = "%Y%m%dT%H%M%S"


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


def items(files: Iterable[SegmentFile]) -> Iterator[Item]:
    """Yield the items of the segments of one feed, in order; what segments repeat, once.

    A file that is no segment is a GAP in its place. Raises OSError.
    """
    told: set[tuple[What, int, str, str]] = set()
    for file in files:
        with file.path.open("rb") as opened:
            try:
                for item in segments.items(opened):
                    if item.what in (What.HEADER, What.OPENED, What.ANSWERED):
                        key = (item.what, item.wall_ns, item.connection, item.name)
                        if item.is_repeated and key in told:
                            continue
                        told.add(key)
                    yield item
            except segments.NotASegment as exc:
                yield Item(What.GAP, file.begun_ns, name=f"{segments.DAMAGED}: {file.path.name}: {exc}")
