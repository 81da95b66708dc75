"""A record as an object, in one step: half of what a subscriber does. Of the kinds of which there are many.

`unpacked.pxd` has the same for compiled modules, which reads the numbers where they lie: 2,300 instructions less of
6,000 a record. The two files change together. What is read is a record of that kind: whoever calls has looked at
its version and size.
"""

from collections.abc import Mapping
from typing import Any

from feedhandler.data import wire

unpack_from = wire.TICKER_RECORD.unpack_from


def ticker(
    make: type[wire.Ticker], topic: str, kind: int, flags_of: Mapping[int, Any], data: bytes, start: int
) -> wire.Ticker:
    """Return the record that begins there; topic is its own, as text."""
    # Positional, and the name given afterwards: half the time.
    record = make(*unpack_from(data, start))
    record.topic, record.kind = topic, kind
    record.flags = flags_of[record.flags]
    return record


def trade(
    make: type[wire.Trade],
    topic: str,
    kind: int,
    flags_of: Mapping[int, Any],
    sides: Mapping[int, Any],
    data: bytes,
    start: int,
) -> wire.Trade:
    """The same of a trade."""
    record = make(*wire.PACKINGS[wire.TRADE].unpack_from(data, start))
    record.topic, record.kind = topic, kind
    record.flags, record.side = flags_of[record.flags], sides.get(record.side, record.side)
    record.trade_id = wire.unpadded(record.trade_id)  # type: ignore[arg-type]
    return record


def depth(
    make: type[wire.Depth], topic: str, kind: int, flags_of: Mapping[int, Any], data: bytes, start: int
) -> wire.Depth:
    """The same of depth."""
    record = make(*wire.PACKINGS[wire.DEPTH].unpack_from(data, start))
    record.topic, record.kind = topic, kind
    record.flags = flags_of[record.flags]
    return record


def book(
    make: type[wire.BookRecord],
    topic: str,
    kind: int,
    flags_of: Mapping[int, Any],
    data: bytes,
    start: int,
    size: int,
) -> wire.BookRecord:
    """The same of a book's record, of so many bytes."""
    packing = wire.PACKINGS[wire.BOOK]
    record = make(*packing.unpack_from(data, start))
    record.topic, record.kind = topic, kind
    record.flags, record.levels = flags_of[record.flags], data[start + packing.size : start + size]
    return record
