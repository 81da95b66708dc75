"""A connection without any data: what the quote of one instrument over REST says about it."""

import pytest

from feedhandler.data.units import NS_PER_S
from feedhandler.data.wire import NAN
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.base import Quote
from feedhandler.feed.witness import WAIT_NS_MAX, CanaryWitness

FIRST, OTHER = Quote(1.0, 2.0, 3.0, 4.0), Quote(1.5, 2.0, 3.0, 4.0)
STEP_NS = NS_PER_S // 5


class Asked:
    """A witness, the time, and when it requested what."""

    def __init__(self):
        self.witness = CanaryWitness(EXCHANGES["binance"].main())
        self.now = 1_000 * NS_PER_S
        self.times_s = []

    def run(self, seconds, answer, takes_s=0.0):
        end = self.now + int(seconds * NS_PER_S)
        due = None
        while self.now < end:
            if self.witness.asks(self.now):
                assert due is None, "one at a time"
                self.times_s.append(round((self.now - 1_000 * NS_PER_S) / NS_PER_S))
                due = self.now + int(takes_s * NS_PER_S)
            if due is not None and self.now >= due:
                due = None
                self.witness.on_quote("BTCUSDT", answer)
            self.now += STEP_NS


def test_a_quote_that_changes_is_found_within_15_seconds():
    asked = Asked()
    asked.run(6, FIRST)
    assert asked.times_s == [5], "what REST states may be some seconds old"
    asked.run(7, OTHER)
    assert not asked.witness.is_contradicted, "REST may be a moment ahead"
    asked.run(3, OTHER)
    assert asked.witness.is_contradicted
    asked.run(600, OTHER)
    assert len(asked.times_s) == 3, "nothing more is to be known"


def test_a_quote_that_changes_once_is_enough():
    asked = Asked()
    asked.run(60, FIRST)
    asked.run(WAIT_NS_MAX / NS_PER_S + 5, OTHER)
    assert asked.witness.is_contradicted


def test_a_quote_that_stays_is_requested_ever_more_rarely():
    asked = Asked()
    asked.run(3600, FIRST)
    assert not asked.witness.is_contradicted
    assert asked.times_s[:5] in ([5, 10, 21, 41, 81], [5, 10, 20, 40, 80], [5, 10, 20, 41, 81])
    assert 55 <= len(asked.times_s) <= 65


def test_a_market_without_orders_is_one_that_stays():
    asked = Asked()
    asked.run(600, Quote(NAN, 0.0, 3.0, 4.0))
    assert not asked.witness.is_contradicted


def test_rest_that_lags_and_comes_back_to_what_it_said_is_no_witness():
    asked = Asked()
    asked.run(8, FIRST)
    asked.run(3, OTHER)
    asked.run(300, FIRST)
    assert not asked.witness.is_contradicted


@pytest.mark.parametrize("takes_s", [0.0, 8.0])
def test_while_there_is_no_answer_nothing_is_known_and_one_that_is_slow_counts_from_its_coming(takes_s):
    asked = Asked()
    asked.run(300, None)
    assert not asked.witness.is_contradicted
    asked.run(130, FIRST)
    asked.run(140, OTHER, takes_s)
    assert asked.witness.is_contradicted
    *_, changed, confirmed = asked.times_s
    assert confirmed - changed >= 3 + int(takes_s)
