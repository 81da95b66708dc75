"""The order book keeps its promises, whatever the seed: checked from the outside, by its logs alone."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedhandler.sim.market import Instrument, Listing, instruments_of, universe
from feedhandler.sim.order_book import Fill, LevelChange, OrderBook

ODD = (
    Listing(base="TINY", quote="USDT", price=0.000_001_23),
    Listing(base="THIN", quote="USDT", price=0.0519, is_thin=True),
)
SEEDS = st.integers(0, 2**32)


class Follower:
    """Keeps the book of an instrument from its changes, as somebody would who has never seen it."""

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.book = instrument.order_book()
        self.bids, self.asks = dict(self.book.bids), dict(self.book.asks)
        self.update_id, self.trade_id = self.book.update_id, self.book.trade_id
        self.changes: list[LevelChange] = []
        self.fills: list[Fill] = []
        self.book.change_logs.append(self.changes)
        self.book.fill_logs.append(self.fills)
        self.base_volume, self.quote_volume = instrument.base_volume, instrument.quote_volume

    def check(self) -> None:
        """Apply what was logged since the last call, and hold everything against it."""
        fills = {fill.update_id: fill for fill in self.fills}
        for change in self.changes:
            self._apply(change, fills.pop(change.update_id, None))
        assert not fills, "a trade without a change of its level"
        self.changes.clear()
        self.fills.clear()
        self._check_instrument()

    def _apply(self, change: LevelChange, fill: Fill | None) -> None:
        self.update_id += 1
        assert change.update_id == self.update_id
        levels = self.bids if change.is_bid else self.asks
        if fill is not None:
            self.trade_id += 1
            assert (fill.trade_id, fill.price, fill.is_sell) == (self.trade_id, change.price, change.is_bid)
            assert fill.size > 0
            best = max(self.bids) if fill.is_sell else min(self.asks)
            assert fill.price == best, "better prices were there"
            assert levels[change.price] - fill.size == change.size
            self.base_volume += fill.size
            self.quote_volume += fill.size * fill.price
        if change.price == 0:
            assert change.size == 0
        elif change.size:
            levels[change.price] = change.size
        else:
            del levels[change.price]
        assert all(size > 0 for size in (change.size or 1,))
        assert not self.bids or not self.asks or max(self.bids) < min(self.asks), "crossed"

    def _check_instrument(self) -> None:
        each, book = self.instrument, self.book
        assert (self.bids, self.asks) == (book.bids, book.asks)
        assert min(self.bids, default=1) > 0
        assert (each.update_id, each.trade_id) == (self.update_id, self.trade_id)
        assert (each.base_volume, each.quote_volume) == (self.base_volume, self.quote_volume)
        assert (each.is_bid_empty, each.is_ask_empty) == (not self.bids, not self.asks)
        if self.bids:
            assert (each.bid, each.bid_size) == (max(self.bids), self.bids[max(self.bids)])
        if self.asks:
            assert (each.ask, each.ask_size) == (min(self.asks), self.asks[min(self.asks)])
        assert each.low <= each.last <= each.high
        assert book.best_bids(5) == sorted(self.bids.items(), reverse=True)[:5]
        assert book.best_asks(5) == sorted(self.asks.items())[:5]


@pytest.mark.long
@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, steps=st.integers(1, 300), index=st.integers(0, 39))
def test_a_book_keeps_its_invariants(seed, steps, index):
    each = instruments_of(universe(seed, 40, ODD), seed)[index]
    for bits in range(20):
        each.step(bits * 7919)  # a walk before anybody asks for its book
    follower = Follower(each)
    for number in range(steps):
        if number % 10 == 9:
            each.trade(number, 1000 + number)
        else:
            each.step(0, 1000 + number)
        follower.check()


@pytest.mark.long
@given(seed=SEEDS)
@settings(max_examples=10, deadline=None)
def test_a_burst_is_as_many_trades_as_asked_for(seed):
    each = instruments_of(universe(seed, 20, ODD), seed)[seed % 20]
    follower = Follower(each)
    trade_id = each.trade_id
    each.burst(1025, 77)
    assert each.trade_id == trade_id + 1025
    assert {fill.unix_ns for fill in follower.fills} == {77}
    follower.check()


@pytest.mark.parametrize("seed", range(8))
def test_a_price_of_a_few_ticks_leaves_room_for_few_bids(seed):
    low = Listing(base="DUST", quote="USDT", price=0.000_000_04)
    each = next(each for each in instruments_of(universe(seed, 1, (low,)), seed) if each.listing is low)
    follower = Follower(each)
    for number in range(300):
        if number % 20 == 5:
            each.burst(30, number)
        else:
            each.step(0, number)
        follower.check()


def test_a_quote_is_new_when_it_differs():
    each = instruments_of(universe(1, 20, ODD), 1)[0]
    each.order_book()
    seen = set()
    for _ in range(500):
        before = (each.bid, each.bid_size, each.ask, each.ask_size)
        each.step(0)
        assert each.is_quote_new == (before != (each.bid, each.bid_size, each.ask, each.ask_size))
        seen.add(each.is_quote_new)
    assert seen == {True, False}, "orders far from the best price leave it alone"


@pytest.mark.long
def test_books_are_deep_where_much_is_traded_and_stay_so():
    instruments = instruments_of(universe(1, 300, ODD), 1)
    for index, low, high in ((0, 1000, 2000), (100, 90, 220), (299, 8, 80)):
        book = instruments[index].order_book()
        for _ in range(8000):
            instruments[index].step(0)
        assert low <= len(book.bids) <= high
        assert low <= len(book.asks) <= high


def test_a_thin_book_has_an_empty_side_now_and_then():
    each = next(each for each in instruments_of(universe(1, 30, ODD), 1) if each.listing.is_thin)
    each.order_book()
    seen = set()
    for _ in range(3000):
        each.step(0)
        seen.add((each.is_bid_empty, each.is_ask_empty))
    assert {(False, False), (True, False), (False, True)} <= seen


def test_a_price_stays_between_its_bounds():
    each = instruments_of(universe(3, 20, ODD), 3)[0]
    start = each.bid
    book = each.order_book()
    for is_up in (True, False):
        for _ in range(25_000):
            book.push(is_up, 0)
        assert start // 2 - 200 <= book.best_bids(1)[0][0] <= start * 2 + 200


def test_the_same_seed_makes_the_same_book():
    def play(seed: int) -> list:
        each = instruments_of(universe(seed, 20, ODD), seed)[2]
        each.order_book()
        for _ in range(500):
            each.step(0)
        return [each.bid, each.ask, each.update_id, each.trade_id, each.book.best_bids(20)]

    assert play(5) == play(5)
    assert play(5) != play(6)


@pytest.mark.parametrize("size", [1, 10**9])
def test_a_market_order_takes_as_much_as_it_asks_for_or_as_is_there(size):
    each = instruments_of(universe(1, 20, ODD), 1)[0]
    book: OrderBook = each.order_book()
    fills: list[Fill] = []
    book.fill_logs.append(fills)
    best = book.best_asks(12)
    book.take(is_sell=False, size=size, unix_ns=1)
    assert sum(fill.size for fill in fills) == min(size, sum(size for _, size in best))
    assert [price for price, _ in best][: len({fill.price for fill in fills})] == list(
        dict.fromkeys(fill.price for fill in fills)
    )
