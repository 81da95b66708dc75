"""The bytes as data: name, offset, type, unit and meaning of each field, for whoever generates from them.

`wire` has names, order and types; what each means stands here, once. `languages/generate.py` makes from both the
readers in other languages and the tables of `docs/wire.md`. Pure.
"""

import re
import struct
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from feedhandler.data import wire

TYPES: Final = {"B": "u8", "H": "u16", "I": "u32", "Q": "u64", "q": "i64", "d": "f64"}
NUMPY_FORMATS: Final = {"u8": "u1", "u16": "<u2", "u32": "<u4", "u64": "<u8", "i64": "<i8", "f64": "<f8"}


class Field(msgspec.Struct, frozen=True):
    """One field; offset is from the first byte of the message.

    type is `u8`, `u16`, `u32`, `u64`, `i64`, `f64`, or `char` for `size` bytes padded with NUL. unit may be empty.
    """

    name: str
    type: str
    offset: int
    size: int
    unit: str
    meaning: str


class Layout(msgspec.Struct, frozen=True):
    """A struct without padding. With a base, it begins with the fields of that; fields are its own."""

    name: str
    meaning: str
    fields: tuple[Field, ...]
    base: "Layout | None" = None

    @property
    def size(self) -> int:
        return self.fields[-1].offset + self.fields[-1].size

    @property
    def all_fields(self) -> tuple[Field, ...]:
        return (*self.base.all_fields, *self.fields) if self.base else self.fields


class Constant(msgspec.Struct, frozen=True):
    """A kind, or one bit of the flags."""

    name: str
    value: int
    meaning: str


def layout(
    name: str,
    meaning: str,
    packing: struct.Struct,
    meanings: Mapping[str, tuple[str, str]],
    base: Layout | None = None,
) -> Layout:
    """Return the layout of what `packing` packs: little-endian, meanings are unit and text by name, in its order.

    Raises ValueError if they do not fit each other, or if a field is not aligned to its size: the structs of other
    languages would then have padding where the bytes have none.
    """
    codes = re.findall(r"(\d*)([a-zA-Z?])", packing.format.removeprefix("<"))
    types = []
    for count, code in codes:
        if code == "s":
            types.append(("char", int(count or 1)))
        elif code in TYPES:
            types += [(TYPES[code], struct.calcsize("<" + code))] * int(count or 1)
        else:
            raise ValueError(
                f"{name}: the format {packing.format!r} has {code!r}; known are s {' '.join(TYPES)}"
            )
    if not packing.format.startswith("<") or len(types) != len(meanings):
        raise ValueError(
            f"{name}: {packing.format!r} has {len(types)} fields (little-endian: '<'), meanings {len(meanings)}"
        )
    offset, fields = base.size if base else 0, []
    for (type_, size), (field, (unit, text)) in zip(types, meanings.items(), strict=True):
        if type_ != "char" and offset % size:
            raise ValueError(f"{name}.{field}: a {type_} at offset {offset} is not aligned to its size")
        fields.append(Field(field, type_, offset, size, unit, text))
        offset += size
    return Layout(name, meaning, tuple(fields), base)


HEADER: Final = layout(
    "header",
    "what every message begins with",
    wire.HEADER,
    {
        "topic": ("", "UTF-8, padded with NUL, at least one NUL: `ticker.binance.BTC/USDT`"),
        "version": ("", f"{wire.VERSION}. Refuse any other"),
        "kind": (
            "",
            ", ".join(f"{value} {name}" for value, name in wire.KIND_NAMES.items()) + ". Ignore any other",
        ),
        "flags": ("", "a bit set: the flags"),
        "session": ("Unix s", "when the merger started. A new value restarts all sequences"),
        "sequence": ("", "per topic and session, from 1, without holes: a hole is loss"),
        "exchange_ns": ("Unix ns", "event time as the exchange states it; 0 = it states none"),
        "recv_ns": ("Unix ns", "the feed took the frame from the socket"),
        "publish_ns": ("Unix ns", "just before the merger sent"),
    },
)

TICKER: Final = layout(
    "ticker",
    "the full current state of one instrument; NaN is not known (yet)",
    wire.TICKER_BODY,
    {
        "exchange_sequence": (
            "",
            "the newest update id that the exchange gave for this instrument; 0 = it gives none",
        ),
        "last": ("quote currency", "price of the last trade"),
        "bid": ("quote currency", "best bid price"),
        "bid_size": ("base currency", "what is bid for at that price"),
        "ask": ("quote currency", "best ask price"),
        "ask_size": ("base currency", "what is offered at that price"),
        "open_24h": ("quote currency", "price 24 hours ago (rolling, not the UTC day)"),
        "high_24h": ("quote currency", "highest price of the last 24 hours"),
        "low_24h": ("quote currency", "lowest price of the last 24 hours"),
        "base_volume_24h": ("base currency", "traded in the last 24 hours"),
        "quote_volume_24h": ("quote currency", "traded in the last 24 hours"),
    },
    base=HEADER,
)

KIND_MEANINGS: Final = {
    wire.TICKER: "one instrument's prices, sizes and 24 h statistics",
    wire.STATUS: "JSON: how an exchange is doing",
    wire.INSTRUMENTS: "JSON: an exchange's instruments",
    wire.HEARTBEAT: "JSON: the merger lives",
    wire.NOTICE: "JSON: to one subscriber, about the mode that it declared",
}
FLAG_MEANINGS: Final = {
    wire.SNAPSHOT: "the last value again, because somebody subscribed; not a new event, and no number of its own",
    wire.STALE: "the connection lives, but its data have stopped: all of them, or one channel of this symbol that "
    "speaks otherwise (which one, and why we think so: `feed.stale_topics` of the status). Values of other "
    "channels may be fresh",
    wire.DOWN: "the exchange is not connected, its feed process is gone, or the symbol is not subscribed to any "
    "more: the values are the last known ones",
    wire.SIMULATED: "not a real exchange",
    wire.BAD_EXCHANGE_TIME: "the exchange's time cannot be right: it is later than the exchange's own clock, by "
    "more than 1 s and what that is uncertain (`feed.clock_uncertainty_ms`); as long as that clock is not known, "
    "more than 60 s in our future",
}
KINDS: Final = tuple(
    Constant(name.upper(), value, KIND_MEANINGS[value]) for value, name in wire.KIND_NAMES.items()
)
FLAGS: Final = tuple(Constant(name, bit, FLAG_MEANINGS[bit]) for bit, name in wire.FLAG_NAMES.items())
NOT_LIVE: Final = wire.NOT_LIVE

# The names are those of the records in Python, and the parts make up the whole.
assert tuple(field.name for field in HEADER.all_fields) == wire.Record.__struct_fields__
assert tuple(field.name for field in TICKER.all_fields) == wire.Ticker.__struct_fields__
assert (HEADER.size, TICKER.size) == (wire.HEADER_SIZE, wire.TICKER_SIZE)


def numpy_dtype_fields(of: Layout = TICKER) -> dict[str, Any]:
    """Return what `numpy.dtype()` takes: names, formats, offsets, itemsize. Needs no NumPy."""
    fields: Sequence[Field] = of.all_fields
    return {
        "names": [field.name for field in fields],
        "formats": [f"S{f.size}" if f.type == "char" else NUMPY_FORMATS[f.type] for f in fields],
        "offsets": [field.offset for field in fields],
        "itemsize": of.size,
    }
