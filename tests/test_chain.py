"""Feeds, merger and subscribers in a simulated world; `make sim` plays thousands of these."""

import chain_plays
import days
import pytest
from chain import Chain
from world import PLAYED


# Those from 88 on have each found something: four that a feed's own DOWN was revived over, 1103 that the
# watch over statuses that call all well went on across others.
@pytest.mark.world
@pytest.mark.parametrize("seed", [*range(9), 88, 124, 136, 289, 919, 1103])
def test_whatever_processes_do_nothing_untrue_is_told_and_all_comes_back(seed):
    chain_plays.whole_chain(seed, Chain(seed, kinds=()))


# 24: trades that a full hop had lost were told in the status alone.
# 514, 1061: depth and books were counted anew, unheard, and ids that came later followed those of before.
# 869, 1091: what was lost with the merger was of before trades that came later, over REST or by a slow connection.
@pytest.mark.world
@pytest.mark.parametrize("seed", [3, 4, 20, 24, 33, 514, 869, 1061, 1091])
def test_so_it_is_with_trades_depth_and_books(seed):
    chain_plays.whole_chain(seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", range(4))
def test_processes_that_are_held_up_briefly_are_not_noticed(seed):
    chain_plays.held_up(seed)


@pytest.mark.world
@pytest.mark.parametrize("seed", [0, 10, 25], ids=PLAYED)
def test_a_day_passes_without_an_event(seed):
    days.long_day(seed)
