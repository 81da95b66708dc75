"""Quiet markets in a simulated world; `make sim` plays 30 hours of them."""

import pytest
import quiet
import world
from world import PLAYED

from feedhandler.exchanges.state import TickerState

NAMED = pytest.mark.parametrize("seed", [0, 10, 20], ids=PLAYED)


@pytest.mark.many
@NAMED
def test_hours_of_a_quiet_market_pass_without_an_event_and_every_symbol_has_its_quote_at_once(seed):
    quiet.calm_hours(seed, hours=2)


@pytest.mark.long
@pytest.mark.parametrize("seed", [0, 1, 11, 12, 20, 21])
def test_what_is_dead_in_a_quiet_market_is_found(seed):
    quiet.calm_and_dead(seed)


@pytest.mark.long
@pytest.mark.parametrize(
    "seed", [0, 11, 20, *(pytest.param(seed, marks=pytest.mark.many) for seed in (1, 12, 21))]
)
def test_a_connection_without_data_to_a_quiet_market_is_found_and_what_rest_fills_is_stale(seed):
    quiet.calm_and_mute(seed)


def test_most_seeds_play_a_calm_world_and_some_whole_days():
    plays = [world.plays_of(seed) for seed in range(140)]
    assert sum(quiet.calm_and_dead in each for each in plays) >= 20
    assert sum(quiet.calm_and_mute in each for each in plays) >= 20
    assert sum(quiet.calm_hours in each for each in plays) == 2


def test_worlds_are_made_of_the_class_that_a_feed_runs():
    states = world.make(seed=1).exchange.all_states
    assert {type(state) for state in states} == {TickerState}
