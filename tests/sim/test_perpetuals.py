"""What belongs to a contract: it follows from the market, and from the clock where it is due."""

import random
from itertools import pairwise

import pytest

from feedhandler.sim.market import Listing, contracts_of, instruments_of
from feedhandler.sim.perpetuals import HOUR_NS, LIQUIDATION_GAP_NS, RATE_MAX, LiquidationSource, Perpetual

PAIR = Listing(base="BTC", quote="USDT", price=86_420.0)
SWAP = Listing(base="BTC", quote="USDT", price=86_420.0, settle="USDT")


def make() -> Perpetual:
    [spot] = instruments_of([PAIR], 1)
    [contract] = contracts_of([(spot, SWAP)], 1)
    return Perpetual(contract, 8 * HOUR_NS)


@pytest.mark.long
@pytest.mark.parametrize("has_book", [False, True])
def test_a_contract_has_a_market_of_its_own_that_stays_near_its_pairs(has_book):
    contract = make().contract
    pair = contract.pair
    assert contract.index == pair.index == 0
    assert contract.price_decimals == pair.price_decimals
    if has_book:
        contract.order_book()
    rng = random.Random(7)
    away = []
    for number in range(20_000):
        pair.step(rng.getrandbits(64), number)
        contract.step(rng.getrandbits(64), number)
        away.append((contract.bid - pair.bid) / pair.bid)
        assert contract.bid < contract.ask
    assert max(map(abs, away)) < 0.01
    assert len(set(away)) > 100
    assert min(away) < 0 < max(away)


def test_mark_is_between_quote_and_index_and_funding_pulls_them_together():
    swap = make()
    calm = swap.rate
    for away in (200, -200):
        swap.contract.bid = swap.index + away
        swap.contract.ask = swap.contract.bid + 1
        low, high = sorted((swap.contract.ask, swap.index))
        assert low <= swap.mark <= high
        assert (swap.rate > calm) == (away > 0)
    swap.contract.bid = swap.contract.ask = swap.index * 2
    assert swap.rate == RATE_MAX


def test_what_was_paid_is_the_rate_when_the_interval_was_over():
    swap = make()
    begin = 1000 * 8 * HOUR_NS
    assert swap.funding_ns(begin) == begin + 8 * HOUR_NS, "on its time the next one is due"
    assert swap.funding_ns(begin - 1) == begin
    first = swap.settled_rate(begin)
    swap.contract.bid += 500
    assert swap.settled_rate(begin + 8 * HOUR_NS - 1) == first
    assert swap.settled_rate(begin + 8 * HOUR_NS) == swap.rate > first


def test_open_interest_goes_up_and_down_with_what_is_traded():
    swap = make()
    found = []
    for _ in range(50):
        found.append(swap.open_interest)
        swap.contract.base_volume += swap.contract.base_volume // 40
    assert min(found) > 0
    assert any(later > earlier for earlier, later in pairwise(found))
    assert any(later < earlier for earlier, later in pairwise(found))


def test_of_a_contract_one_liquidation_a_second_is_told_and_of_a_pair_none():
    swap = make()
    changed = swap.contract
    source = LiquidationSource([swap.contract], lambda: changed, "seed")
    source.start()
    times = []
    for step in range(4000):
        swap.contract.trade(step, 10**18 + step * 5_000_000)
        if source.take():
            times.append(source.message.unix_ns)
            assert not source.take(), "nothing has happened since"
            away = source.message.price - swap.contract.last
            assert (away < 0) == source.message.is_sell
    assert 10 < len(times) <= 20
    assert all(later - earlier >= LIQUIDATION_GAP_NS for earlier, later in pairwise(times))
    changed = swap.contract.pair
    for step in range(200):
        swap.contract.pair.trade(step, 10**18)
        assert not source.take()
