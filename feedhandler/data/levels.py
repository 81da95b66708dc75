"""The levels of one side of a book: price and size of each, best first.

They lie side by side as they stand in records: so the best of a side are copied, and of a book of thousands of
levels each takes 16 bytes. Tried on real changes, with 50 and with 200 levels a side: a dict that is sorted at each
update takes 10 and 16 us, one with a list that `bisect` keeps in order 8.6 us, sortedcontainers' SortedDict 19 to
49 us, and this 1.3 us compiled. There is room before the best and behind the worst, so that a level that comes or
goes moves those on its nearer side: most changes are near the best, and to move the 1,000 levels behind it was half
of what a message cost. Pure. Compiled where there is a compiler, with the types of `levels.pxd`.
"""

import math
import struct
import sys
from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Final, cast

import msgspec

from feedhandler.data import depth, raw
from feedhandler.data.depth import BookLevel
from feedhandler.data.errors import DecodeError
from feedhandler.data.layout import LEVEL_SIZE

# A price, size or volume as exchanges send it. The bounds also turn away "nan" and "inf", which the
# lenient decoder would accept: no comparison with them holds.
Amount = Annotated[float, msgspec.Meta(ge=0.0, le=sys.float_info.max)]

_decode = msgspec.json.Decoder(list[tuple[Amount, Amount]], strict=False).decode
_PAIR: Final = struct.Struct("<dd")
# The largest snapshots that exchanges offer have 10,000 levels a side: what has more than this is no book.
LEVELS_MAX: Final = depth.LEVELS_MAX << 12

# For the class: what has a type in the .pxd is not to be had from Python.
_LEVELS_MAX = LEVELS_MAX
_LEVEL_SIZE = LEVEL_SIZE
_SIZE_OFFSET = LEVEL_SIZE // 2
_NAN, _INFINITE = math.nan, math.inf
_NONE = depth.NONE
_DEPTH_MAX = depth.LEVELS_MAX
_SIDE_SIZE = _DEPTH_MAX * LEVEL_SIZE
_ROOM_MIN = 16  # levels that there is room for besides, once there was none on the side where it was needed


class Levels:
    """One side of a book: price and size of each level, best first.

    It is a sequence of such pairs: its length, `[0]`, `[:5]`, and what iterates over it.
    """

    def __init__(self, is_bids: bool) -> None:
        self.is_bids = is_bids
        self.count = 0
        self._first = 0  # at which place the best is,
        self._data = bytearray(_SIDE_SIZE)  # in what grows by doubling

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            first, end, step = index.indices(self.count)
            if step == 1:
                return pairs_of(self.packed(first, max(0, end - first)))
            return self.pairs()[index]
        return pairs_of(self.packed(range(self.count)[index], 1))[0]

    def __iter__(self) -> Iterator[BookLevel]:
        return iter(self.pairs())

    def clear(self) -> None:
        """Have no levels."""
        self.count = self._first = 0

    def replace(self, levels: Iterable[BookLevel]) -> None:
        """Have these levels alone, in whatever order they come."""
        # hot: `make bench-micro`, decode. They come in their order, as a rule: then nothing is looked for.
        self.count = self._first = 0
        for price, size in levels:
            if size == 0.0 or not self._is_worst(price) or not self._append(price, size):
                self.set(price, size)

    def _is_worst(self, price: float) -> bool:
        """True if a price is worse than all that are there."""
        if not self.count:
            return price > 0.0
        worst = raw.get_f64(self._data, (self._first + self.count - 1) * _LEVEL_SIZE)
        return 0.0 < price < worst if self.is_bids else price > worst

    def _append(self, price: float, size: float) -> bool:
        """Add a level that is worse than the others; False if there is no room for it."""
        end = (self._first + self.count) * _LEVEL_SIZE
        if end + _LEVEL_SIZE > len(self._data):
            return False
        raw.put_f64(self._data, end, price)
        raw.put_f64(self._data, end + _SIZE_OFFSET, size)
        self.count += 1
        return True

    def change(self, levels: Iterable[BookLevel]) -> None:
        """Set the size at each of some prices; 0 takes the level away, if there is one. A price of 0 is no level.

        Raises DecodeError where there would be more levels than any book has.
        """
        # hot: `make bench-micro`, decode
        for price, size in levels:
            self.set(price, size)

    def set(self, price: float, size: float) -> None:
        """Set the size at a price, as `change` does."""
        if price <= 0.0:
            return
        at = self._place(price)
        count = self.count
        is_there = at < count and raw.get_f64(self._data, (self._first + at) * _LEVEL_SIZE) == price
        if size == 0.0:
            if is_there:
                self._remove(at)
            return
        if not is_there:
            if count == _LEVELS_MAX:
                raise DecodeError(f"a book of more than {_LEVELS_MAX} levels a side")
            self._insert(at)
            raw.put_f64(self._data, (self._first + at) * _LEVEL_SIZE, price)
        raw.put_f64(self._data, (self._first + at) * _LEVEL_SIZE + _SIZE_OFFSET, size)

    def _insert(self, at: int) -> None:
        """Have room for one more level there."""
        first, count = self._first, self.count
        is_front = 2 * at < count
        if (first == 0) if is_front else ((first + count + 1) * _LEVEL_SIZE > len(self._data)):
            first = self._make_room()
        if is_front:
            self._move(first, first - 1, at)
            self._first = first - 1
        else:
            self._move(first + at, first + at + 1, count - at)
        self.count = count + 1

    def _remove(self, at: int) -> None:
        first, count = self._first, self.count
        if 2 * at < count:
            self._move(first, first + 1, at)
            self._first = first + 1
        else:
            self._move(first + at + 1, first + at, count - at - 1)
        self.count = count - 1

    def _make_room(self) -> int:
        """Have room on both sides of the levels; returns at which place the best is then."""
        first = (len(self._data) // _LEVEL_SIZE - self.count) // 2
        if 2 * first < _ROOM_MIN:
            self._data += bytes(len(self._data))
            first = (len(self._data) // _LEVEL_SIZE - self.count) // 2
        self._move(self._first, first, self.count)
        self._first = first
        return first

    def replace_packed(self, levels: bytes) -> None:
        """Have these levels alone, which stand as in a record."""
        # hot: `make bench-micro`, decode
        count = len(levels) // _LEVEL_SIZE
        self.count = self._first = 0
        for index in range(count):
            at = index * _LEVEL_SIZE
            price, size = raw.get_f64(levels, at), raw.get_f64(levels, at + _SIZE_OFFSET)
            if size == 0.0 or not self._is_worst(price) or not self._append(price, size):
                self.set(price, size)

    def record(self, levels: bytes) -> bytes:
        """Set sizes as `change` does, of each price the last one alone; returns those. Both stand as in records.

        A price has the place at which it comes first.
        """
        # hot: `make bench-micro`, decode
        before = 0.0
        is_rising = is_falling = True
        for index in range(len(levels) // _LEVEL_SIZE):  # a range with a step would be an object
            price = raw.get_f64(levels, index * _LEVEL_SIZE)
            is_rising = is_rising and price > before
            is_falling = is_falling and price > 0.0 and (index == 0 or price < before)
            before = price
        if not is_rising and not is_falling:  # a price may be there twice, or be none
            levels = pack_levels({price: size for price, size in pairs_of(levels) if price > 0.0}.items())
        for index in range(len(levels) // _LEVEL_SIZE):
            at = index * _LEVEL_SIZE
            self.set(raw.get_f64(levels, at), raw.get_f64(levels, at + _SIZE_OFFSET))
        return levels

    def take(self, data: bytes, start: int, count: int) -> None:
        """Set so many levels as they stand in a record from there on, as `change` does.

        Raises DecodeError for what is no price or no size, IndexError for what lies beyond the record.
        """
        # hot: `make bench-micro`, books
        for index in range(count):
            at = start + index * _LEVEL_SIZE
            price, size = raw.get_f64(data, at), raw.get_f64(data, at + _SIZE_OFFSET)
            if not (0.0 <= price < _INFINITE and 0.0 <= size < _INFINITE):
                raise DecodeError("a level whose price or size is none")
            self.set(price, size)

    def packed(self, first: int = 0, count: int = -1) -> bytes:
        """Return levels as they stand in records, from the first, best one on; -1: all that follow."""
        first = min(max(first, 0), self.count)
        count = self.count - first if count < 0 else min(count, self.count - first)
        return raw.cut(self._data, (self._first + first) * _LEVEL_SIZE, count * _LEVEL_SIZE)

    def cut(self, count: int) -> None:
        """Drop the worst levels, so that there are at most so many."""
        if self.count > count >= 0:
            self.count = count

    def best_size(self) -> float:
        """Return the size at the best price, NaN if there is none."""
        return raw.get_f64(self._data, self._first * _LEVEL_SIZE + _SIZE_OFFSET) if self.count else _NAN

    def best(self) -> float:
        """Return the best price, NaN if there is none."""
        return raw.get_f64(self._data, self._first * _LEVEL_SIZE) if self.count else _NAN

    def worst(self) -> float:
        """Return the worst price, NaN if there is none."""
        return raw.get_f64(self._data, (self._first + self.count - 1) * _LEVEL_SIZE) if self.count else _NAN

    def count_to(self, price: float) -> int:
        """Return how many levels are at a price, or better."""
        at = self._place(price)
        is_there = at < self.count and raw.get_f64(self._data, (self._first + at) * _LEVEL_SIZE) == price
        return at + is_there

    def size_at(self, price: float) -> float:
        """Return the size at a price, 0 if there is no such level."""
        at = self._place(price)
        place = (self._first + at) * _LEVEL_SIZE
        if at < self.count and raw.get_f64(self._data, place) == price:
            return raw.get_f64(self._data, place + _SIZE_OFFSET)
        return 0.0

    def copy_best(self, target: bytearray, start: int) -> int:
        """Write as many of the best as depth has into a buffer, NaN behind them; returns how many there were."""
        count = min(self.count, _DEPTH_MAX)
        used = count * _LEVEL_SIZE
        raw.copy(target, start, self._data, self._first * _LEVEL_SIZE, used)
        raw.copy(target, start + used, _NONE, 0, _SIDE_SIZE - used)
        return count

    def pairs(self) -> list[BookLevel]:
        """Return all levels, best first."""
        return pairs_of(self.packed())

    def _place(self, price: float) -> int:
        """Return how many levels are better than a price."""
        at = self._first * _LEVEL_SIZE
        return raw.count_before(self._data, at, _LEVEL_SIZE, self.count, price, self.is_bids)

    def _move(self, start: int, to: int, count: int) -> None:
        raw.copy(self._data, to * _LEVEL_SIZE, self._data, start * _LEVEL_SIZE, count * _LEVEL_SIZE)


def read_levels(text: msgspec.Raw) -> bytes:
    """Return levels that an exchange sends as pairs of price and size, as they stand in records.

    Raises msgspec.MsgspecError for what are none.
    """
    # hot: `make bench-micro`, decode. Of 20 levels, written as they mostly are, msgspec makes objects in 1.6 us, of
    # which this makes bytes in 0.2 more; without those it takes 0.55 us.
    levels = raw.get_levels(text)
    return pack_levels(_decode(text)) if levels is None else levels


def pack_levels(levels: Iterable[BookLevel]) -> bytes:
    """Return levels as they stand in records."""
    # hot: `make bench-micro`, decode
    pairs = levels if isinstance(levels, list) else list(levels)
    packed = bytearray(len(pairs) * _LEVEL_SIZE)
    at = 0
    for price, size in pairs:
        raw.put_f64(packed, at, price)
        raw.put_f64(packed, at + _SIZE_OFFSET, size)
        at += _LEVEL_SIZE
    return raw.cut(packed, 0, at)


def pairs_of(levels: bytes) -> list[BookLevel]:
    """Return levels that stand as in records as pairs of price and size."""
    return cast(list[BookLevel], list(_PAIR.iter_unpack(levels)))
