"""What exchanges' files say that they offer: of each kind, and of the channels that are subscribed to."""

import msgspec
import pytest
from table import MARKETS


@pytest.mark.parametrize("name", MARKETS)
def test_each_kind_of_a_market_has_its_capability_and_no_other(name):
    market = MARKETS[name]
    assert set(market.capabilities) == set(market.kinds)
    for kind, offered in market.capabilities.items():
        words = msgspec.structs.astuple(offered)[1:]
        assert all((offered.pace, offered.gaps, offered.unproven)), kind
        assert not any(word.endswith(".") or "|" in word for word in words), "a cell of a table"


@pytest.mark.parametrize("name", MARKETS)
def test_channels_are_those_that_are_subscribed_to(name):
    market = MARKETS[name]
    for kind, offered in market.capabilities.items():
        topics = market().topics("BTC-USDT-SWAP", kind)
        assert len(topics) == len(offered.channels), kind
        for topic, channel in zip(topics, offered.channels, strict=True):
            assert channel in topic, kind
