"""Depth: the best 20 levels of each side of one instrument's book, so the newest record is always enough."""

import struct
from collections.abc import Sequence
from itertools import chain
from typing import Annotated, Final, Self, cast

from feedhandler.data.header import HEADER, Record
from feedhandler.data.layout import LEVEL_SIZE, Description, Retention, layout, levels, u16, u32, u64

CODE: Final = 7
LEVELS_MAX: Final = 20  # of a side
NONE: Final = struct.pack("<d", float("nan")) * (LEVELS_MAX * LEVEL_SIZE // 8)  # all of them unused
LEVEL: Final = struct.Struct("<dd")

BookLevel = tuple[float, float]  # price and size


class Depth(Record):
    """The best levels of a book. Prices in quote currency, sizes in base currency; unused levels are NaN.

    `bids` and `asks` are tuples of (price, size), best first, made when they are asked for.
    """

    kind: int = CODE
    exchange_sequence: Annotated[
        int, u64("", "the update id that the exchange gave for these levels; 0 = it gives none")
    ] = 0
    bid_count: Annotated[int, u16("", "levels of the bids, at most 20; the others are unused")] = 0
    ask_count: Annotated[int, u16("", "levels of the asks, likewise")] = 0
    reserved: Annotated[int, u32("", "0")] = 0
    bid_levels: Annotated[bytes, levels(LEVELS_MAX, "best bids, the highest first; unused ones are NaN")] = (
        NONE
    )
    ask_levels: Annotated[bytes, levels(LEVELS_MAX, "best asks, the lowest first; unused ones are NaN")] = (
        NONE
    )

    @classmethod
    def of(cls, topic: str, bids: Sequence[BookLevel], asks: Sequence[BookLevel], **header: int) -> Self:
        """Return a record of levels, best first. Raises ValueError for more than `LEVELS_MAX` of a side."""
        return cls(
            topic,
            bid_count=len(bids),
            ask_count=len(asks),
            bid_levels=_packed(bids),
            ask_levels=_packed(asks),
            **header,
        )

    @property
    def bids(self) -> tuple[BookLevel, ...]:
        return unpacked_levels(self.bid_levels[: self.bid_count * LEVEL_SIZE])

    @property
    def asks(self) -> tuple[BookLevel, ...]:
        return unpacked_levels(self.ask_levels[: self.ask_count * LEVEL_SIZE])


def _packed(side: Sequence[BookLevel]) -> bytes:
    if len(side) > LEVELS_MAX:
        raise ValueError(f"{len(side)} levels of a side, {LEVELS_MAX} fit a record")
    used = struct.pack(f"<{2 * len(side)}d", *chain.from_iterable(side))
    return used + NONE[len(used) :]


def unpacked_levels(side: bytes) -> tuple[BookLevel, ...]:
    """Return levels that stand side by side, as in records."""
    return cast(tuple[BookLevel, ...], tuple(LEVEL.iter_unpack(side)))


DEPTH: Final = Description(
    CODE,
    "depth",
    "the best 20 levels of each side of an instrument's book",
    Retention.LATEST,
    Depth,
    layout("depth", "the best levels of each side of one instrument's book, in full", Depth, HEADER),
)
assert DEPTH.size == 760
