"""Records described as data: a class of fields whose annotations state type, unit and meaning of the bytes.

    class Ticker(Header):
        bid: Annotated[float, f64("quote currency", "best bid price")] = NAN

From such a class follow offsets, sizes, the format that packs it, the NumPy dtype, the readers in other languages
and the tables of `docs/wire.md`. Pure.
"""

import enum
import typing
from collections.abc import Callable
from typing import Any, Final

import msgspec

SIZES: Final = {"u8": 1, "u16": 2, "u32": 4, "u64": 8, "i64": 8, "f64": 8}
STRUCT_CODES: Final = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i64": "q", "f64": "d"}
NUMPY_FORMATS: Final = {"u8": "u1", "u16": "<u2", "u32": "<u4", "u64": "<u8", "i64": "<i8", "f64": "<f8"}


class Number(msgspec.Struct, frozen=True):
    """How a field stands in the bytes. unit may be empty; size is in bytes, of an array in all."""

    type: str
    size: int
    unit: str
    meaning: str
    count: int = 0  # of elements, if it is an array; each is a level


def _number(type_: str) -> Callable[[str, str], Number]:
    return lambda unit, meaning: Number(type_, SIZES[type_], unit, meaning)


u8: Final = _number("u8")
u16: Final = _number("u16")
u32: Final = _number("u32")
u64: Final = _number("u64")
i64: Final = _number("i64")
f64: Final = _number("f64")


def char(size: int, meaning: str) -> Number:
    """Describe text of at most so many bytes, padded with NUL."""
    return Number("char", size, "", meaning)


LEVEL: Final = ("price", "size")  # of a book: two f64, in this order
LEVEL_SIZE: Final = len(LEVEL) * SIZES["f64"]


def levels(count: int, meaning: str) -> Number:
    """Describe an array of so many levels of a book; in Python it is bytes, which cost nothing until read."""
    return Number("level", count * LEVEL_SIZE, "", meaning, count)


class Entries(msgspec.Struct, frozen=True):
    """What may follow the fields: as many entries, of a size in bytes, as two u16 fields add up to.

    It annotates the last member of a class, of type bytes. There are never more than count_max in a record.
    """

    counts: tuple[str, str]
    size: int
    count_max: int
    meaning: str


class Field(msgspec.Struct, frozen=True):
    """One field; offset is from the first byte of the record. unit may be empty.

    type is one of SIZES, or `char`, or `level`, of which it is an array of so many as count says.
    """

    name: str
    type: str
    offset: int
    size: int
    unit: str
    meaning: str
    count: int = 0

    @property
    def alignment(self) -> int:
        """What its offset has to be a multiple of."""
        return SIZES["f64"] if self.type == "level" else 1 if self.type == "char" else self.size

    @property
    def declared(self) -> str:
        """Its type as documents have it: `f64`, `char[64]`, `level[20]`."""
        return {"char": f"char[{self.size}]", "level": f"level[{self.count}]"}.get(self.type, self.type)

    @property
    def code(self) -> str:
        """It in the language of `struct`, without byte order: what is no number is bytes."""
        return STRUCT_CODES.get(self.type, f"{self.size}s")

    @property
    def numpy_format(self) -> Any:
        """What NumPy makes of it."""
        if self.type == "level":
            return [(name, NUMPY_FORMATS["f64"]) for name in LEVEL], (self.count,)
        return NUMPY_FORMATS.get(self.type, f"S{self.size}")


class Layout(msgspec.Struct, frozen=True):
    """A struct without padding. With a base, it begins with the fields of that; fields are its own.

    size is that of the fields. Entries, if there are any, follow them.
    """

    name: str
    meaning: str
    fields: tuple[Field, ...]
    base: "Layout | None" = None
    entries: Entries | None = None

    @property
    def size(self) -> int:
        return sum(field.size for field in self.all_fields)

    @property
    def all_fields(self) -> tuple[Field, ...]:
        return (*self.base.all_fields, *self.fields) if self.base else self.fields

    @property
    def codes(self) -> str:
        """The own fields in the language of `struct`, without byte order."""
        return "".join(field.code for field in self.fields)

    @property
    def format(self) -> str:
        """The whole in the language of `struct`: little-endian, unpadded."""
        return "<" + (self.base.codes if self.base else "") + self.codes

    def offset(self, name: str) -> int:
        """Return where a field begins. Raises KeyError if there is none of that name."""
        return self._field(name).offset

    def type_of(self, name: str) -> str:
        """Return the type of a field. Raises KeyError if there is none of that name."""
        return self._field(name).type

    def _field(self, name: str) -> Field:
        return {field.name: field for field in self.all_fields}[name]


def layout(name: str, meaning: str, record: type[msgspec.Struct], base: Layout | None = None) -> Layout:
    """Return the layout of a class, in the order of its fields; with a base, of those that follow its fields.

    Raises ValueError for a field without a description, and for one that is not aligned to its size: the structs
    of other languages would then have padding where the bytes have none.
    """
    hints = typing.get_type_hints(record, include_extras=True)
    offset, skipped = (base.size, len(base.all_fields)) if base else (0, 0)
    fields = []
    entries = None
    for field in record.__struct_fields__[skipped:]:
        found = [
            each for each in getattr(hints[field], "__metadata__", ()) if isinstance(each, Number | Entries)
        ]
        if not found or entries is not None:
            raise ValueError(f"{name}.{field}: say how it stands in the bytes, e.g. f64(unit, meaning)")
        [number] = found
        if isinstance(number, Entries):
            entries = number
            continue
        described = Field(field, number.type, offset, number.size, number.unit, number.meaning, number.count)
        if offset % described.alignment:
            raise ValueError(f"{name}.{field}: a {number.type} at offset {offset} is not aligned to its size")
        fields.append(described)
        offset += number.size
    made = Layout(name, meaning, tuple(fields), base, entries)
    if entries is not None and any(made.type_of(count) != "u16" for count in entries.counts):
        raise ValueError(f"{name}: {' and '.join(entries.counts)} count entries, and are not both u16")
    return made


def numpy_dtype_fields(of: Layout) -> dict[str, Any]:
    """Return what `numpy.dtype()` takes: names, formats, offsets, itemsize. Needs no NumPy."""
    fields = of.all_fields
    return {
        "names": [field.name for field in fields],
        "formats": [field.numpy_format for field in fields],
        "offsets": [field.offset for field in fields],
        "itemsize": of.size,
    }


class Retention(enum.Enum):
    """What a record means to the one before it of its topic."""

    LATEST = "latest"  # it replaces all before it
    EVERY = "every"  # each counts, once


class Body(enum.Enum):
    """What follows the header."""

    FIXED = "fixed"  # the fields of the layout
    COUNTED = "counted"  # the same, and so many entries as two of the fields add up to
    JSON = "JSON"  # UTF-8 up to the end of the message


class Description(msgspec.Struct, frozen=True):
    """A kind of records, all of it: code in the header, word in the topic, class in Python, layout, retention."""

    code: int
    name: str
    meaning: str
    retention: Retention
    record: type[Any]
    layout: Layout
    body: Body = Body.FIXED
    has_topics: bool = True  # False: it is about the topics of others, or one subscriber

    @property
    def size(self) -> int:
        """Bytes of one record, at least, if entries may follow; 0: it takes the rest of its message."""
        return 0 if self.body is Body.JSON else self.layout.size

    @property
    def size_max(self) -> int:
        """Bytes of the largest record; 0 as for size."""
        entries = self.layout.entries
        return self.size + (entries.size * entries.count_max if entries is not None else 0)
