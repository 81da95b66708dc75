"""Each market that is offered has a witness in chaos."""

from markets_witness import LINEAR, MARKETS

from feedhandler.data.instruments import SPOT
from feedhandler.exchanges import EXCHANGES


def test_each_market_that_is_offered_has_a_witness():
    offered = {(name, market.name) for name, each in EXCHANGES.items() for market in each.markets}
    witnessed = {(name, "linear" if symbols is LINEAR else SPOT) for name, symbols in MARKETS}
    assert offered == witnessed
