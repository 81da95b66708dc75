"""The limit orders of one made-up instrument, level by level: they come, go, and are traded.

Pure, and seeded. Whatever happens has a number of its own, `update_id`, rising by one; also what no level shows.
Invariants, after any number of steps: every bid is below every ask, sizes are above zero, a trade's price was a
level's, its size is what that level lost. Prices are in ticks and sizes in lots, as in market.py.
"""

import random
from bisect import bisect_left, insort
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple, Protocol

FILLS_KEPT = 2000  # the newest, for REST
LEVELS_TAKEN_MAX = 12  # by one market order
LEVELS_OF_A_THIN_BOOK = 3
_EVENTS = (1,) * 8 + (2,) * 4 + (3, 3, 5, 12)  # of one change of the market
_HIDDEN = 0  # price of what no level shows
_GAP = 2  # ticks between two levels, on average


class Fill(NamedTuple):
    """One trade: of what came with one level, or with a part of it."""

    trade_id: int
    update_id: int  # of the level's change
    price: int
    size: int
    is_sell: bool  # the taker's side
    unix_ns: int


class LevelChange(NamedTuple):
    """One level as it is now; size 0: it is gone. Price 0: something happened that no level shows."""

    update_id: int
    is_bid: bool
    price: int
    size: int


class FillLog(Protocol):
    """Who is told of each fill: a list, or what merges them."""

    def append(self, fill: Fill, /) -> None: ...


Level = tuple[int, int]  # price, size


class OrderBook:
    """Two sides of levels around a price that moves between a floor and a ceiling.

    `levels`: how many each side has, about. Who wants to know of every change or fill hands in a list that they
    are appended to, and empties it: `change_logs`, `fill_logs`.
    """

    __slots__ = (
        "_ask_prices",
        "_bid_prices",
        "_ceiling",
        "_floor",
        "_is_thin",
        "_levels",
        "_quantum",
        "_random",
        "_sizes",
        "_span",
        "asks",
        "bids",
        "change_logs",
        "fill_logs",
        "fills",
        "trade_id",
        "update_id",
    )

    def __init__(
        self,
        best: tuple[Level, Level],
        last: Fill,
        *,
        levels: int,
        quantum: int,
        bounds: tuple[int, int],
        sizes: Sequence[int],
        is_thin: bool,
        seed: str,
    ) -> None:
        self._random = random.Random(seed)
        self._sizes = sizes
        self._quantum = quantum
        self._floor, self._ceiling = bounds
        self._levels = LEVELS_OF_A_THIN_BOOK if is_thin else levels
        self._is_thin = is_thin
        self._span = _GAP * self._levels  # how far from the best price orders come, in ticks
        self.update_id = last.update_id
        self.trade_id = last.trade_id
        self.fills: deque[Fill] = deque([last], maxlen=FILLS_KEPT)
        self.change_logs: list[list[LevelChange]] = []
        self.fill_logs: list[FillLog] = []
        (bid, bid_size), (ask, ask_size) = best
        self.bids = {bid: bid_size}
        self.asks = {ask: ask_size}
        for _ in range(1, self._levels):
            bid -= self._random.randint(1, 2 * _GAP - 1)
            ask += self._random.randint(1, 2 * _GAP - 1)
            self.asks[ask] = self._random.choice(sizes)
            if bid > 0:
                self.bids[bid] = self._random.choice(sizes)
        self._bid_prices = sorted(self.bids)  # the best is the last
        self._ask_prices = sorted(self.asks)  # the best is the first

    def best_bids(self, count: int) -> list[Level]:
        """Return up to `count` levels, the best first."""
        return [(price, self.bids[price]) for price in self._bid_prices[: -count - 1 : -1]]

    def best_asks(self, count: int) -> list[Level]:
        """Return up to `count` levels, the best first."""
        return [(price, self.asks[price]) for price in self._ask_prices[:count]]

    def step(self, unix_ns: int) -> None:
        """Let one thing or several happen at once."""
        draw = self._random.getrandbits
        for _ in range(_EVENTS[draw(4)]):
            kind, is_bid = draw(5), bool(draw(1))
            if kind < 2:
                self._note(is_bid, _HIDDEN, 0)
            elif kind < 6:
                # Most take a part of the best level, and few take several: else no base would last.
                self.take(
                    is_bid,
                    self._sizes[draw(9)] * 4 if draw(4) == 0 else 1 + self._sizes[draw(9)] // 8,
                    unix_ns,
                )
            elif kind < 7:
                self.push(is_bid, unix_ns)
            else:
                self._place_or_cancel(is_bid, kind)

    def take(self, is_sell: bool, size: int, unix_ns: int) -> None:
        """Let a market order take the best levels of one side, as many as its size asks for."""
        prices, levels = (self._bid_prices, self.bids) if is_sell else (self._ask_prices, self.asks)
        for _ in range(LEVELS_TAKEN_MAX):
            if not prices or size <= 0:
                return
            price = prices[-1] if is_sell else prices[0]
            there = levels[price]
            if len(prices) == 1 and not self._is_thin:
                there -= 1  # somebody is always there, but in a thin book
            taken = min(size, there)
            if taken <= 0:
                return
            size -= taken
            part = taken // 2 if self._random.getrandbits(2) == 0 else 0  # of two orders, one after the other
            for each in (part, taken - part):
                if each:
                    self._fill(is_sell, price, each, unix_ns)

    def burst(self, count: int, unix_ns: int) -> None:
        """Let `count` orders of one lot come at once, each a trade of its own."""
        for _ in range(count):
            is_sell = bool(self._random.getrandbits(1))
            prices, levels = (self._bid_prices, self.bids) if is_sell else (self._ask_prices, self.asks)
            if not prices or (len(prices) == 1 and levels[prices[0]] == 1):
                self._place(is_sell, self._sizes[self._random.getrandbits(9)])
            self._fill(is_sell, prices[-1] if is_sell else prices[0], 1, unix_ns)

    def _fill(self, is_sell: bool, price: int, size: int, unix_ns: int) -> None:
        left = (self.bids if is_sell else self.asks)[price] - size
        self._set(is_sell, price, left)
        self.trade_id += 1
        fill = Fill(self.trade_id, self.update_id, price, size, is_sell, unix_ns)
        self.fills.append(fill)
        for log in self.fill_logs:
            log.append(fill)

    def push(self, is_up: bool, unix_ns: int) -> None:
        """Move the price by half a step at most: what is in the way is traded or withdrawn, the rest follows."""
        if is_up:
            is_up = not self._ask_prices or self._ask_prices[0] + self._quantum < self._ceiling
        else:
            is_up = bool(self._bid_prices) and self._bid_prices[-1] - self._quantum <= self._floor
        facing = self._ask_prices if is_up else self._bid_prices
        if not facing:
            self._place(not is_up, self._sizes[self._random.getrandbits(9)])
            return
        distance = 1 + (self._quantum * self._random.getrandbits(8) >> 9)
        reached = facing[0] + distance if is_up else facing[-1] - distance
        while len(facing) > 1 and (facing[0] <= reached if is_up else facing[-1] >= reached):
            price = facing[0] if is_up else facing[-1]
            if self._random.getrandbits(1):
                self._set(not is_up, price, 0)
            else:
                self._fill(not is_up, price, (self.asks if is_up else self.bids)[price], unix_ns)
        free = facing[0] - 1 if is_up else facing[-1] + 1
        self._set(is_up, min(reached, free) if is_up else max(reached, free), self._drawn_size())

    def _place_or_cancel(self, is_bid: bool, bits: int) -> None:
        count = len(self._bid_prices if is_bid else self._ask_prices)
        if count > self._levels * 5 // 4 + 4:
            self._cancel_farthest(is_bid)
        elif count < max(2, self._levels * 3 // 4) or bits & 1:
            self._place(is_bid, self._drawn_size())
        else:
            self._cancel(is_bid)

    def _place(self, is_bid: bool, size: int) -> None:
        """Add an order: most come near the best price, some between the two sides, and none crosses."""
        away = self._drawn_position(self._span)
        facing, own = (self._ask_prices, self._bid_prices) if is_bid else (self._bid_prices, self._ask_prices)
        if facing:
            price = facing[0] - 1 - away if is_bid else facing[-1] + 1 + away
        elif own:
            price = own[-1] - away if is_bid else own[0] + away
        else:
            price = self._floor + away if is_bid else self._ceiling - away
        price = max(1, price)  # asks are above 1: what they were placed over was a bid
        levels = self.bids if is_bid else self.asks
        self._set(is_bid, price, levels.get(price, 0) + size)

    def _cancel(self, is_bid: bool) -> None:
        prices, levels = (self._bid_prices, self.bids) if is_bid else (self._ask_prices, self.asks)
        if not prices:
            return
        away = self._drawn_position(len(prices))
        price = prices[-1 - away] if is_bid else prices[away]
        left = levels[price] // 2 if self._random.getrandbits(1) else 0
        if left or len(prices) > 1 or self._is_thin:
            self._set(is_bid, price, left)

    def _cancel_farthest(self, is_bid: bool) -> None:
        self._set(is_bid, self._bid_prices[0] if is_bid else self._ask_prices[-1], 0)

    def _drawn_size(self) -> int:
        return self._sizes[self._random.getrandbits(9)]

    def _drawn_position(self, count: int) -> int:
        """Draw from 0 to `count` - 1, small ones far more often."""
        bits = self._random.getrandbits(16)
        return count * bits * bits * bits >> 48

    def _set(self, is_bid: bool, price: int, size: int) -> None:
        levels, prices = (self.bids, self._bid_prices) if is_bid else (self.asks, self._ask_prices)
        if size:
            if price not in levels:
                insort(prices, price)
            levels[price] = size
        elif levels.pop(price, 0):
            del prices[bisect_left(prices, price)]
        self._note(is_bid, price, size)

    def _note(self, is_bid: bool, price: int, size: int) -> None:
        self.update_id += 1
        for log in self.change_logs:
            log.append(LevelChange(self.update_id, is_bid, price, size))
