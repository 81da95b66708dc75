"""Who wants which symbols, and what remains when one of them changes its mind."""

import hypothesis
from hypothesis import strategies as st

from feedhandler.data.wanted import HOLDINGS, MAJORS, Configured, Wanted, difference, spelled

CONFIGURED = Configured(("BTC/USDT", "ETH/USDT"))
BOTH = Configured(("BTC/USDT", "ETH/USDT"), ("ticker", "trade"))
NONE = Configured(())
SYMBOLS = st.lists(st.sampled_from(["BTC/USDT", "ETH/USDT", "DOGE/USDT", "LTC/USDT"]), max_size=3)


def tickers(*symbols):
    return {symbol: ["ticker"] for symbol in symbols}


def test_the_configured_come_first_and_each_once():
    wanted = Wanted({"positions": tickers("DOGE/USDT", "BTC/USDT"), "api": tickers("DOGE/USDT")})
    assert wanted.kinds(CONFIGURED) == tickers("BTC/USDT", "ETH/USDT", "DOGE/USDT")


def test_two_owners_of_one_symbol_do_not_fight():
    wanted = Wanted()
    wanted.subscribe(["DOGE/USDT"], CONFIGURED, "positions")
    wanted.subscribe(["DOGE/USDT"], CONFIGURED)
    wanted.unsubscribe(["DOGE/USDT"], CONFIGURED)
    assert "DOGE/USDT" in wanted.kinds(CONFIGURED)
    assert wanted.owners("DOGE/USDT", "ticker") == ["positions"]
    wanted.unsubscribe(["DOGE/USDT"], CONFIGURED, "positions")
    assert wanted == Wanted()


def test_by_hand_a_configured_symbol_can_be_left_out_and_taken_back():
    wanted = Wanted()
    wanted.unsubscribe(["ETH/USDT"], CONFIGURED)
    assert wanted.kinds(CONFIGURED) == tickers("BTC/USDT")
    wanted.subscribe(["ETH/USDT"], CONFIGURED)
    assert wanted == Wanted()


def test_another_owner_cannot_leave_out_what_is_configured():
    wanted = Wanted()
    wanted.unsubscribe(["ETH/USDT"], CONFIGURED, "positions")
    assert wanted.kinds(CONFIGURED) == tickers("BTC/USDT", "ETH/USDT")


@hypothesis.given(st.lists(st.tuples(st.booleans(), SYMBOLS), max_size=6))
def test_the_last_word_about_each_symbol_counts(words):
    wanted, expected = Wanted(), set(CONFIGURED.symbols)
    for is_wanted, symbols in words:
        (wanted.subscribe if is_wanted else wanted.unsubscribe)(symbols, CONFIGURED)
        (expected.update if is_wanted else expected.difference_update)(symbols)
    found = wanted.kinds(CONFIGURED)
    assert set(found) == expected
    assert len(found) == len(expected)


def test_where_nothing_is_configured_the_majors_are_wanted_until_something_is_held():
    wanted = Wanted()
    assert wanted.kinds(NONE) == tickers(*MAJORS)
    wanted.subscribe(["DOGE/USDT"], NONE, "desk")
    assert wanted.kinds(NONE) == tickers(*MAJORS, "DOGE/USDT")
    wanted.replace(HOLDINGS, ["LTC/USDT", "LTC/USDT"])
    assert wanted.kinds(NONE) == tickers("DOGE/USDT", "LTC/USDT")
    wanted.replace(HOLDINGS, [])
    assert wanted.kinds(NONE) == tickers(*MAJORS, "DOGE/USDT")


def test_by_hand_a_major_can_be_left_out_too():
    wanted = Wanted()
    wanted.unsubscribe(["XRP/USDT"], NONE)
    assert wanted.kinds(NONE) == tickers(*MAJORS[:-1])


def test_an_exchange_is_connected_as_configured_until_somebody_says_otherwise():
    assert [Wanted().is_connected(c) for c in (True, False)] == [True, False]
    assert [Wanted(connect=False).is_connected(c) for c in (True, False)] == [False, False]
    assert [Wanted(connect=True).is_connected(c) for c in (True, False)] == [True, True]


def test_what_differs_from_the_configuration_is_told_in_one_line():
    assert Wanted().besides("binance", True) == "nothing"
    assert Wanted(connect=True).besides("binance", True) == "nothing"
    wanted = Wanted(
        requested={"operator": tickers("DOGE/USDT", "LTC/USDT"), "desk": {"A/B": ["ticker", "trade"]}},
        excluded={"XRP/USDT": ["trade"]},
    )
    assert wanted.besides("binance", True) == (
        "DOGE/USDT, LTC/USDT (operator); A/B (ticker, trade) (desk); not XRP/USDT (trade)"
    )
    assert Wanted(connect=False).besides("bybit", True) == (
        "disconnected by order (`feedhandler connect bybit` ends that)"
    )
    assert Wanted(connect=True).besides("bybit", False) == (
        "connected by order (`feedhandler disconnect bybit` ends that)"
    )
    many = Wanted(requested={"holdings": tickers(*(f"A{number}/USDT" for number in range(200)))})
    assert many.besides("bybit", True).endswith("A9/USDT and 190 more (holdings)")


def test_what_is_wanted_of_a_symbol_is_each_kind_for_itself():
    wanted = Wanted()
    wanted.subscribe(["DOGE/USDT", "BTC/USDT"], CONFIGURED, kinds=["trade"])
    assert wanted.requested == {"operator": {"DOGE/USDT": ["trade"], "BTC/USDT": ["trade"]}}
    assert wanted.kinds(CONFIGURED) == {
        "BTC/USDT": ["ticker", "trade"],
        "ETH/USDT": ["ticker"],
        "DOGE/USDT": ["trade"],
    }
    wanted.subscribe(["DOGE/USDT"], CONFIGURED, "desk", ["trade", "ticker"])
    wanted.unsubscribe(["DOGE/USDT", "BTC/USDT"], CONFIGURED, kinds=["trade"])
    assert wanted == Wanted({"desk": {"DOGE/USDT": ["trade", "ticker"]}})
    assert (wanted.owners("DOGE/USDT", "trade"), wanted.owners("BTC/USDT", "trade")) == (["desk"], [])


def test_by_hand_one_of_two_configured_kinds_can_be_left_out_and_taken_back():
    wanted = Wanted()
    wanted.unsubscribe(["ETH/USDT", "DOGE/USDT"], BOTH, kinds=["trade"])
    assert wanted.excluded == {"ETH/USDT": ["trade"]}
    assert wanted.kinds(BOTH) == {"BTC/USDT": ["ticker", "trade"], "ETH/USDT": ["ticker"]}
    wanted.subscribe(["ETH/USDT"], BOTH, kinds=["ticker", "trade"])
    assert wanted == Wanted()


def test_the_difference_is_by_symbol_and_kind():
    both, one = {"A/B": ["ticker", "trade"], "C/D": ["ticker"]}, {"A/B": ["ticker"]}
    assert difference(both, one) == {"A/B": ["trade"], "C/D": ["ticker"]}
    assert difference(one, both) == {}


def test_the_default_kind_is_not_spelled():
    assert spelled("A/B", ["ticker"]) == "A/B"
    assert spelled("A/B", ["trade", "ticker"]) == "A/B (trade, ticker)"
