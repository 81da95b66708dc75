"""Each market that is offered has a witness in chaos."""

from markets_witness import OFFERED, TABLE


def test_each_market_that_is_offered_has_a_witness():
    assert set(OFFERED) <= set(TABLE)
