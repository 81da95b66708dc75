"""Parquet files by kind, exchange and day, each in the order of time: `kind=trade/exchange=NAME/date=2026-11-29/`.

    records ─▶ 16 MiB ─▶ table in order ─▶ a row group; what came within the last second waits for the next

A clock that was set back puts rows where they do not belong: such row groups are read once more at the end, and
written in order.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from feedhandler.data import kinds, wire
from feedhandler.data.book import BOOK, BookRecord
from feedhandler.data.condition import CONDITION
from feedhandler.data.depth import DEPTH
from feedhandler.data.depth import LEVELS_MAX as DEPTH_MAX
from feedhandler.data.depth import NONE as NO_LEVELS
from feedhandler.data.header import HEADER
from feedhandler.data.kept_book import Book
from feedhandler.data.layout import Description
from feedhandler.data.units import NS_PER_DAY, NS_PER_S
from feedhandler.export.days import date_of
from feedhandler.export.jobs import GAP, Job, Made
from feedhandler.export.tables import (
    GAPS,
    RECEIVED,
    RecordTopic,
    WaitingRows,
    count_until,
    gaps_table,
    ordered,
    span,
)
from feedhandler.replay import RecordingGap

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError as exc:
    raise ImportError("Parquet needs pyarrow and NumPy: pip install 'feedhandler[parquet]'") from exc

GROUP_SIZE: Final = 16 << 20  # bytes of records that become a row group
GAPS_MAX: Final = 100_000  # that wait
HOLD_NS: Final = NS_PER_S  # rows may be that late, and are put in order on the way
COMPRESSION: Final = {"compression": "zstd", "compression_level": 3}
CONDITION_CODE: Final = CONDITION.code
BOOK_CODE: Final = BOOK.code
PACKED_DEPTH: Final = struct.Struct("<" + DEPTH.layout.codes)


class PartFile:
    """One file while it is written."""

    def __init__(self, path: Path, schema: Any) -> None:
        self.path = path
        self.rows = 0
        self._schema = schema
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = _writer(path, schema)
        self._held = schema.empty_table()
        self._spans: list[tuple[int, int]] = []  # of each row group

    def take(self, table: Any, *, is_all: bool) -> None:
        """Write rows; not is_all: more of the same time may come."""
        if self._held.num_rows:
            table = pa.concat_tables([self._held, table])
        if not table.num_rows:
            return
        table = ordered(table)
        _, last_ns = span(table)
        count = table.num_rows if is_all else count_until(table, last_ns - HOLD_NS)
        self._held = table.slice(count)
        if count:
            self._write(self._writer, table.slice(0, count))
            self._spans.append(span(table.slice(0, count)))
            self.rows += count

    def _write(self, writer: Any, table: Any) -> None:
        writer.write_table(table, row_group_size=table.num_rows)

    def close(self) -> None:
        """Complete the file."""
        self.take(self._schema.empty_table(), is_all=True)
        self._writer.close()
        if any(second[0] < first[1] for first, second in zip(self._spans, self._spans[1:], strict=False)):
            self._put_in_order()

    def abandon(self) -> None:
        """Write no more."""
        self._writer.close()

    def _put_in_order(self) -> None:
        other = self.path.with_suffix(".ordered")
        with pq.ParquetFile(self.path) as source, _writer(other, self._schema) as writer:
            for groups in self._overlapping():
                table = pa.concat_tables([source.read_row_group(group) for group in groups])
                self._write(writer, ordered(table))
        other.replace(self.path)

    def _overlapping(self) -> Iterator[list[int]]:
        """Yield row groups that have times in common, in order."""
        together: list[int] = []
        last_ns = 0
        for group in sorted(range(len(self._spans)), key=lambda each: self._spans[each]):
            first_ns, end_ns = self._spans[group]
            if together and first_ns > last_ns:
                yield together
                together = []
            together.append(group)
            last_ns = max(last_ns, end_ns)
        if together:
            yield together


def _writer(path: Path, schema: Any) -> Any:
    names = [name for name in (RECEIVED, "sequence") if name in schema.names]
    order = pq.SortingColumn.from_ordering(schema, [(name, "ascending") for name in names])
    return pq.ParquetWriter(path, schema, sorting_columns=order, **COMPRESSION)


class _Part:
    """The rows of one kind, exchange and day."""

    def __init__(self, kind: Description, day: int, file: PartFile) -> None:
        self.records = WaitingRows(kind)
        self.add = self.records.add
        self.day = day
        self.file = file

    def flush(self, topics: list[RecordTopic], *, is_all: bool) -> None:
        """Write what waits."""
        self.file.take(self.records.table(topics), is_all=is_all)


class _Route:
    """Where the records of one topic go; part is that of the day of the last one."""

    def __init__(self, index: int, topic: RecordTopic, kind: Description) -> None:
        self.index = index
        self.topic = topic
        self.kind = kind
        self.book: Book | None = None
        self.day = -1
        self.part: _Part | None = None


class ParquetWriter:
    """Writes what comes of one run."""

    def __init__(self, job: Job, folder: Path) -> None:
        self._job = job
        self._folder = folder
        self._topics: list[RecordTopic] = []
        self._routes: dict[bytes, _Route] = {}
        self._parts: dict[tuple[str, str, int], _Part] = {}
        self._gaps: dict[tuple[str, int], list[RecordingGap]] = {}
        self._gap_files: dict[tuple[str, int], PartFile] = {}

    def take(self, record: bytes, recv_ns: int) -> None:
        """Take a record."""
        # hot: `feedhandler export`
        key = record[: wire.TOPIC_SIZE]
        route = self._routes.get(key)
        if route is None:
            route = self._routes[key] = self._route(key)
        day = recv_ns // NS_PER_DAY
        if record[wire.KIND_OFFSET] == CONDITION_CODE:
            if route.book is not None:
                route.book.apply(record)
            self._add(self._part(CONDITION, route.topic.exchange, day, CONDITION.name), record, route)
            return
        if route.book is not None:
            depth = _depth_of(route.book, record)
            if depth is None:
                return
            record = depth
        part = route.part
        if part is None or route.day != day:
            part = route.part = self._part(route.kind, route.topic.exchange, day, route.topic.kind)
            route.day = day
        self._add(part, record, route)

    def _add(self, part: _Part, record: bytes, route: _Route) -> None:
        part.add(record, route.index)
        if part.records.size >= GROUP_SIZE:
            part.flush(self._topics, is_all=False)

    def take_gap(self, gap: RecordingGap) -> None:
        """Take a gap."""
        key = gap.exchange, gap.recv_ns // NS_PER_DAY
        gaps = self._gaps.setdefault(key, [])
        gaps.append(gap)
        if len(gaps) >= GAPS_MAX:
            self._write_gaps(key, is_all=False)

    def _write_gaps(self, key: tuple[str, int], *, is_all: bool) -> None:
        file = self._gap_files.get(key)
        if file is None:
            file = self._gap_files[key] = PartFile(self._path(GAP, *key), GAPS)
        gaps, self._gaps[key] = self._gaps[key], []
        file.take(gaps_table(gaps), is_all=is_all)

    def _route(self, key: bytes) -> _Route:
        topic = RecordTopic(*wire.unpadded(key).split(".", 2))
        kind = kinds.named(topic.kind)
        self._topics.append(topic)
        route = _Route(len(self._topics) - 1, topic, kind)
        if kind is BOOK and self._job.options.books == "depth":
            route.book, route.kind = Book(), DEPTH
        return route

    def _part(self, kind: Description, exchange: str, day: int, word: str) -> _Part:
        key = word, exchange, day
        part = self._parts.get(key)
        if part is None:
            for (other, of, past), each in self._parts.items():
                if (other, of) == (word, exchange) and past < day and each.records.size:
                    each.flush(self._topics, is_all=True)  # it is over, but for what comes late
            file = PartFile(self._path(word, exchange, day), WaitingRows(kind).schema)
            part = self._parts[key] = _Part(kind, day, file)
        return part

    def _path(self, word: str, exchange: str, day: int) -> Path:
        return self._folder / f"kind={word}/exchange={exchange}/date={date_of(day)}/{self._job.name}.parquet"

    def finish(self) -> list[Made]:
        """Complete all files, and say what is in them."""
        for part in self._parts.values():
            part.flush(self._topics, is_all=True)
            part.file.close()
        for key in self._gaps:
            self._write_gaps(key, is_all=True)
        for file in self._gap_files.values():
            file.close()
        files = [*(part.file for part in self._parts.values()), *self._gap_files.values()]
        return [Made(str(file.path.relative_to(self._folder)), file.rows) for file in files]

    def abandon(self) -> None:
        """Write no more."""
        for file in (*(part.file for part in self._parts.values()), *self._gap_files.values()):
            file.abandon()


def _depth_of(book: Book, record: bytes) -> bytes | None:
    """Return the best levels of a book after a record, as a record of depth; None if there is no change to tell."""
    unpacked = wire.unpack(record)
    if not isinstance(unpacked, BookRecord) or not book.apply(unpacked) or not book.is_valid:
        return None
    sides = [side.packed(0, min(len(side), DEPTH_MAX)) for side in (book.bids, book.asks)]
    counts = [len(side) * DEPTH_MAX // len(NO_LEVELS) for side in sides]
    levels = [side + NO_LEVELS[len(side) :] for side in sides]
    return record[: HEADER.size] + PACKED_DEPTH.pack(book.last_id, *counts, 0, *levels)
