"""The random walk keeps its promises, whatever the seed."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedhandler.sim.market import MAJORS, Listing, instruments_of, padded, trimmed, universe

ODD = (Listing(base="TINY", quote="USDT", price=0.000_001_23), Listing(base="HUGE", quote="COP", price=3.5e8))
SEEDS = st.integers(0, 2**32)


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, draws=st.lists(st.integers(0, 2**64 - 1), max_size=400))
def test_the_walk_keeps_its_invariants(seed, draws):
    instruments = instruments_of(universe(seed, 30, ODD), seed)
    for position, bits in enumerate(draws):
        each = instruments[position % len(instruments)]
        before = (each.update_id, each.trade_id, each.base_volume, each.quote_volume)
        each.step(bits)
        assert 0 < each.bid < each.ask
        assert 0 < each.low <= each.last <= each.high
        assert each.low <= each.open <= each.high
        assert each.bid_size > 0
        assert each.ask_size > 0
        assert each.update_id > before[0]
        assert each.trade_id >= before[1]
        assert each.base_volume >= before[2]
        assert each.quote_volume >= before[3]


@given(seed=SEEDS)
@settings(max_examples=20, deadline=None)
def test_a_market_starts_valid(seed):
    for each in instruments_of(universe(seed, 60, ODD), seed):
        assert 0 < each.bid < each.ask
        assert each.low <= each.last <= each.high
        assert each.low <= each.open <= each.high
        average = Decimal(each.quote_volume) / each.base_volume
        assert each.low <= average <= each.high


def test_a_long_walk_stays_near_where_it_began():
    each = instruments_of(universe(3, 20, ODD), 3)[0]
    start = each.bid
    for _ in range(20_000):
        each.step(0b11)  # kind 0: always down
    assert start // 2 - 1 <= each.bid <= start


def test_the_same_seed_makes_the_same_market():
    def walk(seed):
        instruments = instruments_of(universe(seed, 40, ODD), seed)
        for bits in range(1000):
            instruments[bits % 40].step(bits * 7919)
        return [(each.listing, each.bid, each.ask, each.last, each.update_id) for each in instruments]

    assert walk(5) == walk(5)
    assert walk(5) != walk(6)


def test_the_majors_against_usdt_come_first_at_plausible_prices():
    listings = universe(1, 300, ODD)
    assert [(each.base, each.quote) for each in listings[:5]] == [
        ("BTC", "USDT"),
        ("ETH", "USDT"),
        ("SOL", "USDT"),
        ("ADA", "USDT"),
        ("XRP", "USDT"),
    ]
    assert listings[0].price > listings[1].price > listings[2].price > 1 > listings[3].price


@pytest.mark.parametrize("count", [300, 1000, 5000])
def test_a_universe_has_as_many_different_pairs_as_asked_for(count):
    listings = universe(1, count, ODD)
    assert len(listings) == count
    assert len({(each.base, each.quote) for each in listings}) == count
    assert {"USDT", "USDC", "BTC", "EUR", "TRY"} <= {each.quote for each in listings}


def test_a_small_universe_still_has_the_majors_and_the_odd_ones():
    listings = universe(1, 1, ODD)
    assert len(listings) == len(MAJORS) + len(ODD)


@given(value=st.integers(-(10**15), 10**15), decimals=st.integers(0, 8))
def test_padded_prints_the_exact_value(value, decimals):
    text = padded(value, decimals, 8).decode()
    assert Decimal(text) == Decimal(value).scaleb(-decimals)
    assert len(text.partition(".")[2]) == 8


@given(value=st.integers(0, 10**15), decimals=st.integers(0, 12))
def test_trimmed_prints_the_exact_value_in_the_fewest_digits(value, decimals):
    text = trimmed(value, decimals).decode()
    assert Decimal(text) == Decimal(value).scaleb(-decimals)
    assert "." not in text or not text.endswith(("0", "."))
    assert "e" not in text.lower()
