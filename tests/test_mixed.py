"""All markets of all exchanges in one configuration, in a simulated world; `make sim` plays more of these."""

import mixed_plays
import pytest
from played import MARKETS

from feedhandler.data.instruments import SPOT
from feedhandler.exchanges import EXCHANGES


def test_each_market_that_is_offered_is_played():
    offered = {(name, market.name) for name, each in EXCHANGES.items() for market in each.markets}
    assert {each for each in offered if each[1] != SPOT} <= set(MARKETS)


@pytest.mark.world
@pytest.mark.parametrize("seed", [1])
def test_with_one_of_two_legs_down_nothing_is_missing_in_any_market(seed):
    mixed_plays.spared_leg(seed)


@pytest.mark.world
@pytest.mark.parametrize("seed", [2])
def test_whatever_fails_nothing_untrue_is_told_of_any_market_and_all_comes_back(seed):
    mixed_plays.whatever(seed)


@pytest.mark.world
@pytest.mark.parametrize("seed", [1])
def test_contracts_come_and_go_and_are_funded_otherwise(seed):
    mixed_plays.contracts_change(seed)
