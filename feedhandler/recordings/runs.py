"""What of recordings is decoded as a whole: a run, and the items of one.

    recordings/binance/   A  B  C │ D  E      A run begins where the feed was started anew, and ends where the next
                          one run │ another   one begins. What its books and numbers are follows from all before.

A capture in JSON lines is one run, and so is a segment that is named alone.
"""

import zlib
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from feedhandler.data.errors import UNDECODABLE, ConfigError
from feedhandler.data.shard import WHOLE
from feedhandler.data.units import NS_PER_S
from feedhandler.recordings import directory, segments
from feedhandler.recordings.captures import CaptureReader
from feedhandler.recordings.directory import SegmentFile
from feedhandler.recordings.packing import unpack
from feedhandler.recordings.traffic import GAP, HEADER, Item

CAPTURED: Final = 256  # items of a capture that are handed on together
NOTHING: Final = "has no recordings: neither folders of segments, nor is it a segment or a capture"


class _Head(msgspec.Struct):
    """What counts here of the header of a segment."""

    exchange: str = ""
    session_ns: int = 0
    simulated: bool = False


class Run(msgspec.Struct, frozen=True):
    """One of them. exchange is "" where only its content tells; begun_ns is Unix time, 0 where only that tells."""

    name: str  # the same whenever and from where it is read: feed, and beginning
    exchange: str
    feed: str
    files: tuple[Path, ...]
    begun_ns: int = 0
    is_simulated: bool = False
    is_capture: bool = False
    is_open: bool = False  # its last file is being written


def find_runs(source: Path, exchanges: Sequence[str] = ()) -> list[Run]:
    """Return the runs of a directory of recordings, or that of a segment or capture; of these exchanges, (): all.

    Raises ConfigError if there are none, or it cannot be read.
    """
    try:
        if source.is_dir():
            found = directory.find(source)
            if not found:
                raise ConfigError(f"{source} {NOTHING}")
            being_written = directory.open_files(source, found)
            wanted = (files for files in found.values() if not exchanges or files[0].exchange in exchanges)
            return [
                msgspec.structs.replace(run, is_open=run.files[-1] in being_written)
                for files in wanted
                for run in _runs_of(files)
            ]
        with source.open("rb") as file:
            is_segment = file.read(len(segments.MAGIC)) == segments.MAGIC
    except OSError as exc:
        raise ConfigError(f"{exc.filename or source}: {exc.strerror}") from exc
    if is_segment:
        named = directory.segment_file(source.absolute())
        (run,) = _runs_of([named or SegmentFile(source, "", WHOLE, 0)])
        return [run] if not exchanges or run.exchange in ("", *exchanges) else []
    place = zlib.crc32(str(source.resolve()).encode())
    return [Run(f"{source.name.partition('.')[0]}-{place:08x}", "", "", (source,), is_capture=True)]


def _runs_of(files: Sequence[SegmentFile]) -> list[Run]:
    """Return the runs of one feed."""
    runs: list[Run] = []
    session_ns = 0
    for file in files:
        head = _head_of(file.path)
        if runs and (not head.session_ns or head.session_ns == session_ns):
            runs[-1] = msgspec.structs.replace(runs[-1], files=(*runs[-1].files, file.path))
            continue
        session_ns = head.session_ns
        exchange = file.exchange or head.exchange
        feed = file.feed or exchange
        name = f"{feed}-{file.path.name.removesuffix(directory.SUFFIX)}"
        begun_ns = session_ns or file.begun_ns
        runs.append(Run(name, exchange, feed, (file.path,), begun_ns, head.simulated))
    return runs


def _head_of(path: Path) -> _Head:
    """Return what a segment says that it is; one that is damaged there does not tell."""
    try:
        with path.open("rb") as file:
            for block in segments.blocks(file):
                if isinstance(block, segments.Block) and block.what == segments.ITEMS:
                    item = next(unpack(block.data))
                    return msgspec.json.decode(item.data, type=_Head) if item.what is HEADER else _Head()
    except (*UNDECODABLE, ValueError, StopIteration):
        pass
    return _Head()


class RunReader:
    """The items of a run; position is how many bytes of its files have been read, of size in all."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.size = sum(path.stat().st_size for path in run.files)
        self._done = 0
        self._file: BinaryIO | None = None  # that is read; is it the last one?
        self._is_last = False
        self._capture: CaptureReader | None = CaptureReader(run.files[0]) if run.is_capture else None
        self.begun_ns = run.begun_ns  # of a capture once its items are read
        self.problems: list[str] = []  # of a capture: lines that cannot be read

    @property
    def position(self) -> int:
        if self._capture is not None:
            return int(self._capture.progress * self.size)
        return self._done + (self._file.tell() if self._file is not None and not self._file.closed else 0)

    def __iter__(self) -> Iterator[Item]:
        """Yield them in order; of a capture, in which they may stand anywhere, the answers first, as repeated ones.

        Raises ConfigError or OSError for what cannot be read at all; what is damaged is a GAP in its place.
        """
        return chain.from_iterable(self.parts())

    def parts(self) -> Iterator[list[Item]]:
        """Yield the same in lists of some hundred."""
        if self._capture is not None:
            yield from self._captured(self._capture)
            return
        for part in directory.parts(self._files(), self._on_open):
            if self._is_last and self.run.is_open:  # it goes on
                yield [
                    item for item in part if item.what is not GAP or not item.name.startswith(segments.TORN)
                ]
            else:
                yield part

    def _captured(self, capture: CaptureReader) -> Iterator[list[Item]]:
        self.begun_ns = capture.begun_ns
        items = chain(capture.answers(), capture)
        while part := list(islice(items, CAPTURED)):
            yield part
        self.problems += [f"line {bad.number}: {bad.reason}" for bad in capture.bad]
        self.problems += [capture.cut] if capture.cut else []

    def _on_open(self, file: BinaryIO) -> None:
        self._file = file

    def _files(self) -> Iterator[SegmentFile]:
        for path in self.run.files:
            self._is_last = path is self.run.files[-1]
            yield directory.segment_file(path) or SegmentFile(
                path, self.run.exchange, WHOLE, self.run.begun_ns
            )
            self._done += path.stat().st_size


def begun_s(run: Run, first_ns: int) -> int:
    """Return the Unix second of a run's beginning; first_ns is its first item's, where nothing else tells."""
    return (run.begun_ns or first_ns) // NS_PER_S
