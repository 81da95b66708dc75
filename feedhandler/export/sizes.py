"""What recordings take on disk, by exchange and kind: in segments, as Parquet, and as JSON lines in gzip.

    items ──kind by kind──▶ a segment of its own, and a gzip ──▶ bytes
    runs ──export──▶ Parquet ──▶ bytes

A recorder puts kinds together in one segment, so what is told of one of them is what it takes when it is alone.
"""

import tempfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, cast

import msgspec

from feedhandler.data.kinds import RECORD_WORDS
from feedhandler.data.units import NS_PER_DAY
from feedhandler.export import jobs, work
from feedhandler.export.jobs import Options
from feedhandler.recordings.decoding import Decoding
from feedhandler.recordings.packing import pack
from feedhandler.recordings.runs import Run, RunReader
from feedhandler.recordings.segments import SegmentWriter
from feedhandler.recordings.traffic import Item, What

OTHER: Final = "other"  # acknowledgements, what was sent, answers over REST
GZIP_LEVEL: Final = 6  # the program's own
GZIP_WINDOW: Final = 31  # of zlib: with the head of a gzip file


class KindSize(msgspec.Struct, kw_only=True):
    """One kind of one exchange. Sizes are in bytes; those of whole messages as they were received, and as stored.

    seconds is how long that exchange was recorded. parquet is 0 where nothing was exported.
    """

    exchange: str
    kind: str
    seconds: float = 0.0
    messages: int = 0
    received: int = 0
    segments: int = 0
    gzip: int = 0
    parquet: int = 0
    rows: int = 0  # of Parquet

    def a_day(self, size: int) -> float:
        """Return what a size becomes in 24 hours at the same rate."""
        return size * NS_PER_DAY / 1e9 / self.seconds if self.seconds else 0.0


class _Nowhere:
    """A file of which nothing is kept."""

    def write(self, data: bytes) -> int:
        """Write nothing."""
        return len(data)


class _Stored:
    """One kind, as it is written."""

    def __init__(self, exchange: str, kind: str) -> None:
        self.size = KindSize(exchange=exchange, kind=kind)
        self._segment = SegmentWriter(cast(Any, _Nowhere()), 0)
        self._gzip = zlib.compressobj(GZIP_LEVEL, wbits=GZIP_WINDOW)

    def add(self, item: Item) -> None:
        """Take an item."""
        size = self.size
        size.messages += 1
        size.received += len(item.data)
        self._segment.add(pack(item))
        line = b'{"time":%d,"mono":%d,"connection":"%s","number":%d,"data":%s}\n' % (
            item.wall_ns,
            item.mono_ns,
            item.connection.encode(),
            item.number,
            item.data or b"null",
        )
        size.gzip += len(self._gzip.compress(line))

    def close(self, seconds: float) -> KindSize:
        """Return what it has come to."""
        self._segment.flush()
        self.size.segments = self._segment.size
        self.size.gzip += len(self._gzip.flush())
        self.size.seconds = seconds
        return self.size


def measure(
    runs: Sequence[Run],
    exchange: str = "",
    on_progress: Callable[[Run, int], object] = lambda run, size: None,
) -> list[KindSize]:
    """Return what the kinds of some runs take; exchange is whose traffic it is where they do not tell.

    Raises OSError.
    """
    stored: dict[tuple[str, str], _Stored] = {}
    seconds: dict[str, float] = {}
    for run in runs:
        decoding = Decoding(run.exchange or exchange, has_quotes=False)
        reader = RunReader(run)
        first_ns = last_ns = 0
        name = run.exchange or exchange
        for item in reader:
            found = decoding.take(item)
            if item.what is What.HEADER or item.what is What.GAP or item.is_repeated:
                continue
            name = name or decoding.exchange_of(item.connection)
            first_ns, last_ns = first_ns or item.wall_ns, max(last_ns, item.wall_ns)
            kind = found.kind if item.what is What.RECEIVED and found.kind else OTHER
            key = name, kind
            if key not in stored:
                stored[key] = _Stored(*key)
            stored[key].add(item)
            on_progress(run, reader.position)
        seconds[name] = seconds.get(name, 0.0) + (last_ns - first_ns) / 1e9
    order = (*RECORD_WORDS, OTHER)
    keys = sorted(stored, key=lambda key: (key[0], order.index(key[1])))
    return [stored[key].close(seconds.get(key[0], 0.0)) for key in keys]


def add_parquet(sizes: Iterable[KindSize], runs: Sequence[Run], exchange: str = "") -> None:
    """Export some runs to a place that is removed again, and note what that takes. Raises what an export does."""
    with tempfile.TemporaryDirectory(prefix="feedhandler-sizes-") as name:
        out, options = Path(name), Options()
        manifest = jobs.read(out, options)
        todo = jobs.plan(runs, manifest, tuple(RECORD_WORDS), out, exchange)
        made = []
        for job, entry in work.do_all(todo, out, 1, lambda *_: None):
            made += [(job, each) for each in entry.outputs]
    by_key = {(each.exchange, each.kind): each for each in sizes}
    for _, output in made:
        kind, of = (part.partition("=")[2] for part in output.path.split("/")[:2])
        if found := by_key.get((of, kind)):
            found.parquet += output.size
            found.rows += output.rows
