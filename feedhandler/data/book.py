"""Book: every level that an exchange offers, as changes, with snapshots among them.

What a record has is in `BookRecord`; what becomes of several, and when a book may be used, in `kept_book`. Compiled
where there is a compiler, with the types of `book.pxd`.
"""

import struct
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Annotated, Final, Self

from feedhandler.data import raw
from feedhandler.data.depth import LEVEL, BookLevel, unpacked_levels
from feedhandler.data.header import HEADER, SNAPSHOT, Record
from feedhandler.data.layout import LEVEL_SIZE, Body, Description, Entries, Retention, layout, u16, u64

CODE: Final = 8
RECORD_LEVELS_MAX: Final = 256  # of a record, both sides together
_SIZE_MAX: Final = RECORD_LEVELS_MAX * LEVEL_SIZE
_LEVELS_SIZE_MAX = (
    _SIZE_MAX  # the same for the functions: what has a type in the .pxd is not to be had from Python
)
_LEVEL_SIZE = LEVEL_SIZE
_SIZE_OFFSET = LEVEL_SIZE // 2


class BookRecord(Record):
    """Levels of a book: a part of a snapshot, or changes. Prices in quote currency, sizes in base currency.

    `bids` and `asks` are tuples of (price, size) as they stand in the record, made when they are asked for; of
    changes a size of 0 removes the level.
    """

    kind: int = CODE
    first_id: Annotated[
        int,
        u64("", "the exchange's id of the first change in its message; in a snapshot the same as last_id"),
    ] = 0
    last_id: Annotated[int, u64("", "the id of the last one: with it applied, the book is at this id")] = 0
    bid_count: Annotated[int, u16("", "levels of the bids that follow")] = 0
    ask_count: Annotated[int, u16("", "levels of the asks, which follow those")] = 0
    part: Annotated[int, u16("", "which part of a snapshot, or of a message's changes, this is; from 0")] = 0
    parts: Annotated[int, u16("", "how many there are: the book changes when the last one has come")] = 1
    levels: Annotated[
        bytes,
        Entries(
            ("bid_count", "ask_count"),
            LEVEL_SIZE,
            RECORD_LEVELS_MAX,
            "`level`s: bids, then asks; in snapshots best first, each with its size; of changes a size of 0 "
            "removes the level",
        ),
    ] = b""

    @classmethod
    def of(
        cls, topic: str, bids: Sequence[BookLevel] = (), asks: Sequence[BookLevel] = (), **fields: int
    ) -> Self:
        """Return a record of levels."""
        levels = packed_levels(bids) + packed_levels(asks)
        return cls(topic, bid_count=len(bids), ask_count=len(asks), levels=levels, **fields)

    @property
    def bids(self) -> tuple[BookLevel, ...]:
        return unpacked_levels(self.levels[: self.bid_count * LEVEL_SIZE])

    @property
    def asks(self) -> tuple[BookLevel, ...]:
        return unpacked_levels(self.levels[self.bid_count * LEVEL_SIZE :])


BOOK: Final = Description(
    CODE,
    "book",
    "changes of an instrument's whole book, and snapshots of it",
    Retention.EVERY,
    BookRecord,
    layout("book", "levels of a book, before those that follow", BookRecord, HEADER),
    Body.COUNTED,
)
assert (BOOK.size, BOOK.size_max) == (128, 128 + 4096)
_FIELDS: Final = struct.Struct("<" + BOOK.layout.codes)  # what stands between header and levels
_pack = _FIELDS.pack


def packed_levels(levels: Iterable[BookLevel]) -> bytes:
    """Return levels as they stand in records."""
    numbers = list(chain.from_iterable(levels))
    return struct.pack(f"<{len(numbers)}d", *numbers)


def edge(price: float) -> bytes:
    """Return what a side begins with if nothing is known of it beyond a price, whose level follows.

    In a snapshot that may be its last level; among changes it is the next one.
    """
    return LEVEL.pack(price, 0.0)


def bodies(first_id: int, last_id: int, bids: bytes, asks: bytes) -> list[bytes]:
    """Return the bodies of the records that say this: a snapshot, if the ids are the same, or changes.

    Both sides are packed. It is one record, or as many parts as levels make necessary; no part has both sides then,
    so that the beginning of one is not cut.
    """
    if len(bids) + len(asks) <= _LEVELS_SIZE_MAX:
        fields = _pack(first_id, last_id, len(bids) // _LEVEL_SIZE, len(asks) // _LEVEL_SIZE, 0, 1)
        return [b"".join((fields, bids, asks))]
    cut = [(bids[at : at + _SIZE_MAX], b"") for at in range(0, len(bids), _SIZE_MAX)]
    cut += [(b"", asks[at : at + _SIZE_MAX]) for at in range(0, len(asks), _SIZE_MAX)]
    return [
        _FIELDS.pack(first_id, last_id, len(one) // LEVEL_SIZE, len(other) // LEVEL_SIZE, part, len(cut))
        + one
        + other
        for part, (one, other) in enumerate(cut)
    ]


def edge_of(data: bytes, start: int, count: int, is_snapshot: bool) -> float:
    """Return the price beyond which nothing is known of a side; 0 if it does not say that.

    The side is so many levels as they stand in a record, from there on.
    """
    if not count:
        return 0.0
    price, size = raw.get_f64(data, start), raw.get_f64(data, start + _SIZE_OFFSET)
    if size == 0.0 and not is_snapshot:
        is_edge = count > 1 and raw.get_f64(data, start + _LEVEL_SIZE) == price
    else:
        is_edge = size == 0.0
    return price if is_edge else 0.0


def without_edges(record: BookRecord) -> tuple[tuple[BookLevel, ...], tuple[BookLevel, ...]]:
    """Return the bids and asks of a record, but for what says that no more is known of a side."""
    is_snapshot = bool(record.flags & SNAPSHOT)
    bids, asks, count = record.bids, record.asks, record.bid_count
    if edge_of(record.levels, 0, count, is_snapshot):
        bids = bids[1:]
    if edge_of(record.levels, count * LEVEL_SIZE, record.ask_count, is_snapshot):
        asks = asks[1:]
    return bids, asks
