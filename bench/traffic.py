"""Trades, depth and changes of books by number: what a message says follows from its number, and nothing else.

    number ──▶ symbol, turn of that symbol ──▶ id, frame as Binance sends it ──▶ …path… ──▶ what must come of it

Messages visit the symbols in the order of `numbered`; the exchange's id counts a symbol's messages, so id and
symbol tell the number again. Changes have the shape of real traffic: 8 levels a message in the mean, 60 at the 99th
percentile, most of them near the best prices, a quarter of them removals. Each book has 1,000 levels a side, and
its middle stays where it is, so that it never crosses. Pure: no clock, no sockets.
"""

import math
import statistics
import struct
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench import numbered

ID_FIRST: Final = 10**9
MIDDLE: Final = 1_000_000  # in hundredths: 10,000.00
BOOK_LEVELS: Final = 1_000  # of a side
IDS_PER_CHANGE: Final = 3  # a message of changes has so many of the exchange's ids
DEPTH_LEVELS: Final = 20
SIZES: Final = 99_991  # a prime: sizes repeat after so many
LEVELS_MEAN, LEVELS_P99 = 8.0, 60.0  # changed levels of a message
_NEAR: Final = 211  # levels of a side that change; a prime: steps of 3 visit each before any comes again
_REMOVED: Final = 4  # one change in so many removes its level

# The quantiles of a lognormal distribution with a mean of 8 and a 99th percentile of 60.
_LEVELS: Final = statistics.NormalDist(1.417, 1.151)
COUNTS: Final = [max(1, round(math.exp(_LEVELS.inv_cdf((n + 0.5) / 1009)))) for n in range(1009)]

# of a sink that keeps none, in place of id and best of it
NO_BOOK: Final = struct.pack("<5d", *[math.nan] * 5)

Change = tuple[int, int]  # place of a level, from the best, and its size in thousandths; 0 removes it
Changes = tuple[list[Change], list[Change]]  # bids, asks


class Turns:
    """How messages are spread over symbols: number ⇄ symbol's index, and which of that symbol's messages it is."""

    def __init__(self, symbols: int) -> None:
        self.symbols = symbols
        stride = numbered.spread_stride(symbols)
        self._places = np.empty(symbols, dtype=np.int64)  # of each symbol among as many messages
        self._places[np.arange(symbols) * stride % symbols] = np.arange(symbols)

    def numbers(self, index: NDArray[np.int64], turn: NDArray[np.int64]) -> numbered.Numbers:
        """Return the numbers of messages."""
        return turn * self.symbols + self._places[index]

    def count(self, index: int, sent: int) -> int:
        """Return how many of the first `sent` messages are a symbol's."""
        return max(0, -(-(sent - int(self._places[index])) // self.symbols))


class Trades:
    """One trade a message, with consecutive ids."""

    streams = ("trade", "aggTrade")  # cryptofeed takes the latter; here it has one trade each

    def turns(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return which of its symbol's messages has each id."""
        return ids - ID_FIRST

    def event(self, stream: str, symbol: bytes, index: int, turn: int, unix: int) -> bytes:
        """Print a message as the exchange does."""
        price, lots, is_sell = _trade(index, turn)
        number = ID_FIRST + turn
        ids = b'"t":%d' % number if stream == "trade" else b'"a":%d,"f":%d,"l":%d' % (number, number, number)
        return b'{"e":"%b","E":%d,"s":"%b",%b,"p":"%b","q":"%b","T":%d,"m":%b,"M":true}' % (
            stream.encode(),
            unix,
            symbol,
            ids,
            _price(price),
            _size(lots),
            unix,
            b"true" if is_sell else b"false",
        )

    def values(self, index: int, turn: int) -> bytes:
        """Return what a sink notes of it: price, size, and 1 if the taker bought, 2 if it sold."""
        price, lots, is_sell = _trade(index, turn)
        return struct.pack("<3d", price / 100, lots / 1000, 1 + is_sell)


class Depths:
    """The best 20 levels of each side, whole each time."""

    streams = ("depth20@100ms",)

    def turns(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return which of its symbol's messages has each id."""
        return ids - ID_FIRST

    def event(self, stream: str, symbol: bytes, index: int, turn: int, unix: int) -> bytes:
        """Print a message as the exchange does: neither symbol nor time is in it."""
        bids, asks = (
            b",".join(b'["%b","%b"]' % (_price(price), _size(lots)) for price, lots in side)
            for side in _depth(index, turn)
        )
        return b'{"lastUpdateId":%d,"bids":[%b],"asks":[%b]}' % (ID_FIRST + turn, bids, asks)

    def values(self, index: int, turn: int) -> bytes:
        """Return what a sink notes of it: price and size of each bid, then of each ask."""
        flat = [
            value
            for side in _depth(index, turn)
            for price, lots in side
            for value in (price / 100, lots / 1000)
        ]
        return struct.pack(f"<{len(flat)}d", *flat)


class Books:
    """Changes of a book, and the book that they make."""

    streams = ("depth@100ms",)

    def turns(self, ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return which of its symbol's messages ends with each id."""
        return (ids - ID_FIRST) // IDS_PER_CHANGE - 1

    def event(self, stream: str, symbol: bytes, index: int, turn: int, unix: int) -> bytes:
        """Print a message as the exchange does."""
        first = ID_FIRST + turn * IDS_PER_CHANGE + 1
        bids, asks = changes(index, turn)
        return b'{"e":"depthUpdate","E":%d,"s":"%b","U":%d,"u":%d,"b":[%b],"a":[%b]}' % (
            unix,
            symbol,
            first,
            first + IDS_PER_CHANGE - 1,
            b",".join(b'["%b","%b"]' % (_price(MIDDLE - 1 - place), _size(lots)) for place, lots in bids),
            b",".join(b'["%b","%b"]' % (_price(MIDDLE + 1 + place), _size(lots)) for place, lots in asks),
        )

    def values(self, index: int, turn: int) -> bytes:
        """Return the levels as records have them. A sink notes id and best of its book before them."""
        return pairs(*changes(index, turn))


TRAFFIC: Final[dict[str, Trades | Depths | Books]] = {"trade": Trades(), "depth": Depths(), "book": Books()}


class ModelBook:
    """A symbol's book after so many of its messages: what everybody's must be then."""

    def __init__(self, index: int) -> None:
        self._index = index
        self.turns = 0
        self.bids, self.asks = (
            {place: _lots(index, place, side) for place in range(BOOK_LEVELS)} for side in (1, 2)
        )

    @property
    def last_id(self) -> int:
        return ID_FIRST + self.turns * IDS_PER_CHANGE

    def advance(self, turns: int) -> None:
        """Take its messages up to there."""
        for turn in range(self.turns, turns):
            for side, changed in zip((self.bids, self.asks), changes(self._index, turn), strict=True):
                for place, lots in changed:
                    if lots:
                        side[place] = lots
                    else:
                        side.pop(place, None)
        self.turns = max(self.turns, turns)

    def levels(self) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
        """Return price in hundredths and size in thousandths of each level, best first."""
        bids = [(MIDDLE - 1 - place, lots) for place, lots in sorted(self.bids.items())]
        return bids, [(MIDDLE + 1 + place, lots) for place, lots in sorted(self.asks.items())]

    def values(self) -> bytes:
        """Return all levels as records have them, best first."""
        return pairs(sorted(self.bids.items()), sorted(self.asks.items()))

    def best(self) -> tuple[float, float, float, float]:
        """Return best bid, its size, best ask, its size."""
        bid, ask = min(self.bids), min(self.asks)
        return (
            (MIDDLE - 1 - bid) / 100,
            self.bids[bid] / 1000,
            (MIDDLE + 1 + ask) / 100,
            self.asks[ask] / 1000,
        )


def changes(index: int, turn: int) -> Changes:
    """Return what a message changes: each level once."""
    mixed = turn * 7919 + index * 104_729
    count = COUNTS[mixed % len(COUNTS)]
    start = (mixed % 40) ** 2 // 40  # most often near the best
    of_bids = (count + mixed % 2) // 2
    bids = [((start + 3 * n) % _NEAR, _changed(mixed, n)) for n in range(of_bids)]
    return bids, [((start + 3 * n) % _NEAR, _changed(mixed, n + 1)) for n in range(count - of_bids)]


def pairs(bids: Sequence[Change], asks: Sequence[Change]) -> bytes:
    """Return levels, given by their places, as records have them."""
    flat = [value for place, lots in bids for value in ((MIDDLE - 1 - place) / 100, lots / 1000)]
    flat += [value for place, lots in asks for value in ((MIDDLE + 1 + place) / 100, lots / 1000)]
    return struct.pack(f"<{len(flat)}d", *flat)


def as_levels(values: NDArray[np.float64]) -> dict[float, float]:
    """Return price → size of levels as they were noted, in whatever order."""
    return dict(zip(values[::2].tolist(), values[1::2].tolist(), strict=True))


def model_books(symbols: int) -> list[ModelBook]:
    """Return every symbol's book before its first message."""
    return [ModelBook(index) for index in range(symbols)]


def _changed(mixed: int, n: int) -> int:
    value = mixed * 31 + n * 6_151
    return 0 if value // 7 % _REMOVED == 0 else 1 + value % SIZES


def _trade(index: int, turn: int) -> tuple[int, int, bool]:
    mixed = turn * 7919 + index * 104_729
    return MIDDLE + mixed % 1_999, 1 + mixed % SIZES, bool(mixed // 3 % 2)


def _depth(index: int, turn: int) -> Changes:
    """Return price and size of the levels of both sides."""
    mixed = turn * 7919 + index * 104_729
    best = MIDDLE + mixed % 1_999
    bids = [(best - n, _lots(mixed, n, 1)) for n in range(DEPTH_LEVELS)]
    return bids, [(best + 1 + n, _lots(mixed, n, 2)) for n in range(DEPTH_LEVELS)]


def _lots(index: int, place: int, side: int) -> int:
    return 1 + (index * 7919 + place * 613 + side * 104_729) % SIZES


def _price(hundredths: int) -> bytes:
    return b"%d.%02d000000" % divmod(hundredths, 100)


def _size(thousandths: int) -> bytes:
    return b"%d.%03d00000" % divmod(thousandths, 1000)
