"""Records as tables: the columns of a kind are the fields of its description.

Records wait as bytes, back to back, and become a table at once: no object is made of one.
"""

import enum
import typing
from array import array
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, TypeAlias, cast

from feedhandler.data import wire
from feedhandler.data.book import BOOK
from feedhandler.data.condition import CONDITION
from feedhandler.data.header import HEADER
from feedhandler.data.layout import LEVEL, NUMPY_FORMATS, Description, Field, numpy_dtype_fields
from feedhandler.replay import RecordingGap

try:
    import numpy as np
    import pyarrow as pa
except ImportError as exc:
    raise ImportError("Parquet needs pyarrow and NumPy: pip install 'feedhandler[parquet]'") from exc

Array: TypeAlias = "np.ndarray[Any, np.dtype[Any]]"

TIME: Final = pa.timestamp("ns", tz="UTC")
# Fields of the header that are columns; what a path has, or a recording does not, is none.
TIMES: Final = {"recv_ns": "receive_time", "exchange_ns": "exchange_time"}
RECEIVED, *_ = TIMES.values()
NUMBERS: Final = ("flags", "session", "sequence")
LEFT_OUT: Final = frozenset({"reserved"})
SYMBOL: Final = "symbol"
TOPIC_KIND: Final = "topic_kind"  # of a condition: the kind that its topic has
SIDE: Final = "side"
SIDES: Final = ("bid", "ask")
TYPES: Final = {
    "u8": pa.uint8(),
    "u16": pa.uint16(),
    "u32": pa.uint32(),
    "u64": pa.uint64(),
    "i64": pa.int64(),
    "f64": pa.float64(),
    "char": pa.string(),
    "level": pa.list_(pa.struct([(name, pa.float64()) for name in LEVEL])),
}
GAPS: Final = pa.schema(
    [(RECEIVED, TIME), ("connection", pa.string()), ("reason", pa.string()), ("count", pa.uint64())]
)


class RecordTopic(NamedTuple):
    """Whose a record is."""

    kind: str
    exchange: str
    symbol: str


class _Shape(NamedTuple):
    """How the records of a kind become a table."""

    dtype: "np.dtype[Any]"
    fields: tuple[Field, ...]  # of the body
    words: dict[str, tuple[str, ...]]  # of fields that are numbers with names
    schema: Any
    has_levels: bool


def _shape(kind: Description) -> _Shape:
    header = {field.name: field for field in HEADER.all_fields}
    fields = tuple(
        field
        for field in (kind.layout.fields if kind.layout is not HEADER and kind is not CONDITION else ())
        if field.name not in LEFT_OUT
    )
    hints = typing.get_type_hints(kind.record)
    words = {
        field.name: tuple(str(member) for member in sorted(hints[field.name]))
        for field in fields
        if isinstance(hints[field.name], type) and issubclass(hints[field.name], enum.IntEnum)
    }
    columns: list[tuple[str, Any]] = [(name, TIME) for name in TIMES.values()]
    columns.append((SYMBOL, pa.string()))
    if kind is CONDITION:
        columns.append((TOPIC_KIND, pa.string()))
    columns += [(name, TYPES[header[name].type]) for name in NUMBERS]
    columns += [(each.name, pa.string() if each.name in words else TYPES[each.type]) for each in fields]
    has_levels = kind.layout.entries is not None
    if has_levels:
        columns += [(SIDE, pa.string()), *((name, pa.float64()) for name in LEVEL)]
    dtype = np.dtype(cast(Any, numpy_dtype_fields(kind.layout)))
    return _Shape(dtype, fields, words, pa.schema(columns), has_levels)


class WaitingRows:
    """Records of one kind that wait to be a table."""

    def __init__(self, kind: Description) -> None:
        self._shape = _shape(kind)
        self.schema = self._shape.schema
        self._head = kind.size
        self._data = bytearray()
        self._levels = bytearray()
        self._topics = array("I")

    @property
    def size(self) -> int:
        """How many bytes wait."""
        return len(self._data) + len(self._levels)

    def add(self, record: bytes, topic: int) -> None:
        """Take a record, and the place of its topic in the list that `table` gets."""
        # hot: `feedhandler export`
        if self._shape.has_levels:
            self._data += record[: self._head]
            self._levels += record[self._head :]
        else:
            self._data += record
        self._topics.append(topic)

    def table(self, topics: Sequence[RecordTopic]) -> Any:
        """Return what waits as a table, and begin anew."""
        shape = self._shape
        rows = np.frombuffer(bytes(self._data), shape.dtype)
        places = np.array(self._topics, np.int64)
        levels = np.frombuffer(bytes(self._levels), [(name, NUMPY_FORMATS["f64"]) for name in LEVEL])
        self._data, self._levels, self._topics = bytearray(), bytearray(), array("I")
        sides: Array | None = None
        if shape.has_levels:
            bids, asks = (rows[name].astype(np.int64) for name in ("bid_count", "ask_count"))
            sides = np.repeat(np.tile(np.array([0, 1]), len(rows)), np.stack([bids, asks], axis=1).ravel())
            counts = bids + asks
            rows, places = np.repeat(rows, counts), np.repeat(places, counts)
        columns = [_times(rows[name]) for name in TIMES]
        columns.append(_named(places, [topic.symbol for topic in topics]))
        if TOPIC_KIND in shape.schema.names:
            columns.append(_named(places, [topic.kind for topic in topics]))
        columns += [pa.array(np.ascontiguousarray(rows[name])) for name in NUMBERS]
        for field in shape.fields:
            words = shape.words.get(field.name)
            values = rows[field.name]
            columns.append(_named(values, words) if words is not None else _column(field.type, values))
        if sides is not None:
            columns += [_named(sides, SIDES), *(_column("f64", levels[name]) for name in LEVEL)]
        return pa.Table.from_arrays(columns, schema=shape.schema)


def _times(values: Array) -> Any:
    """Return Unix times; 0 is none."""
    values = np.ascontiguousarray(values)
    return pa.array(values, pa.int64(), mask=values == 0).cast(TIME)


def _named(values: Array, words: Sequence[str]) -> Any:
    """Return a word for each number; none for those that have none."""
    indices = np.ascontiguousarray(values).astype(np.int64)
    found = pa.array(indices, mask=indices >= len(words))
    return pa.array(words, pa.string()).take(found)


def _column(type_: str, values: Array) -> Any:
    """Return the values of a field; NaN is null."""
    if type_ == "level":
        prices, sizes = (values[name] for name in LEVEL)
        used = ~np.isnan(prices)
        offsets = np.concatenate([[0], np.cumsum(used.sum(axis=1))])
        pairs = pa.StructArray.from_arrays(
            [pa.array(prices[used]), pa.array(sizes[used])], fields=list(TYPES["level"].value_type)
        )
        return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pairs, type=TYPES["level"])
    if type_ == "char":
        try:
            return pa.array(values.tolist(), pa.binary()).cast(pa.string())
        except pa.ArrowInvalid:  # cut in the middle of a character
            return pa.array([wire.unpadded(value) for value in values.tolist()], pa.string())
    values = np.ascontiguousarray(values)
    return pa.array(values, mask=np.isnan(values) if type_ == "f64" else None)


def gaps_table(gaps: Sequence[RecordingGap]) -> Any:
    """Return gaps as a table."""
    return pa.Table.from_arrays(
        [
            pa.array([gap.recv_ns for gap in gaps], pa.int64()).cast(TIME),
            pa.array([gap.connection for gap in gaps], pa.string()),
            pa.array([gap.reason for gap in gaps], pa.string()),
            pa.array([gap.count for gap in gaps], pa.uint64()),
        ],
        schema=GAPS,
    )


def ordered(table: Any) -> Any:
    """Return a table in the order of time and number; what has the same keeps its order."""
    received = _numbers(table, RECEIVED)
    names = [name for name in ("sequence",) if name in table.schema.names]
    keys = [_numbers(table, name) for name in names]
    step = np.diff(received)
    if (step > 0).all():
        return table
    return table.take(pa.array(np.lexsort((*keys, received))))


def span(table: Any) -> tuple[int, int]:
    """Return the first and the last time of a table in order."""
    received = _numbers(table, RECEIVED)
    return int(received[0]), int(received[-1])


def count_until(table: Any, until_ns: int) -> int:
    """Return how many rows of a table in order are not later than that."""
    return int(np.searchsorted(_numbers(table, RECEIVED), until_ns, "right"))


def _numbers(table: Any, name: str) -> Array:
    column = table[name].combine_chunks()
    return cast(
        Array, (column.cast(pa.int64()) if name == RECEIVED else column).to_numpy(zero_copy_only=False)
    )


assert BOOK.layout.entries is not None and BOOK.layout.entries.counts == ("bid_count", "ask_count")
