"""Who wants which symbols, and what remains when one of them changes its mind."""

import hypothesis
from hypothesis import strategies as st

from feedhandler.data.wanted import HOLDINGS, MAJORS, Wanted

CONFIGURED = ("BTC/USDT", "ETH/USDT")
SYMBOLS = st.lists(st.sampled_from(["BTC/USDT", "ETH/USDT", "DOGE/USDT", "LTC/USDT"]), max_size=3)


def test_the_configured_come_first_and_each_once():
    wanted = Wanted({"positions": ["DOGE/USDT", "BTC/USDT"], "api": ["DOGE/USDT"]})
    assert wanted.symbols(CONFIGURED) == ["BTC/USDT", "ETH/USDT", "DOGE/USDT"]


def test_two_owners_of_one_symbol_do_not_fight():
    wanted = Wanted()
    wanted.subscribe(["DOGE/USDT"], CONFIGURED, "positions")
    wanted.subscribe(["DOGE/USDT"], CONFIGURED)
    wanted.unsubscribe(["DOGE/USDT"], CONFIGURED)
    assert "DOGE/USDT" in wanted.symbols(CONFIGURED)
    assert wanted.owners("DOGE/USDT") == ["positions"]
    wanted.unsubscribe(["DOGE/USDT"], CONFIGURED, "positions")
    assert wanted == Wanted()


def test_by_hand_a_configured_symbol_can_be_left_out_and_taken_back():
    wanted = Wanted()
    wanted.unsubscribe(["ETH/USDT"], CONFIGURED)
    assert wanted.symbols(CONFIGURED) == ["BTC/USDT"]
    wanted.subscribe(["ETH/USDT"], CONFIGURED)
    assert wanted == Wanted()


def test_another_owner_cannot_leave_out_what_is_configured():
    wanted = Wanted()
    wanted.unsubscribe(["ETH/USDT"], CONFIGURED, "positions")
    assert wanted.symbols(CONFIGURED) == list(CONFIGURED)


@hypothesis.given(st.lists(st.tuples(st.booleans(), SYMBOLS), max_size=6))
def test_the_last_word_about_each_symbol_counts(words):
    wanted, expected = Wanted(), set(CONFIGURED)
    for is_wanted, symbols in words:
        (wanted.subscribe if is_wanted else wanted.unsubscribe)(symbols, CONFIGURED)
        (expected.update if is_wanted else expected.difference_update)(symbols)
    found = wanted.symbols(CONFIGURED)
    assert set(found) == expected
    assert len(found) == len(expected)


def test_where_nothing_is_configured_the_majors_are_wanted_until_something_is_held():
    wanted = Wanted()
    assert wanted.symbols(()) == list(MAJORS)
    wanted.subscribe(["DOGE/USDT"], (), "desk")
    assert wanted.symbols(()) == [*MAJORS, "DOGE/USDT"]
    wanted.replace(HOLDINGS, ["LTC/USDT", "LTC/USDT"])
    assert wanted.symbols(()) == ["DOGE/USDT", "LTC/USDT"]
    wanted.replace(HOLDINGS, [])
    assert wanted.symbols(()) == [*MAJORS, "DOGE/USDT"]


def test_by_hand_a_major_can_be_left_out_too():
    wanted = Wanted()
    wanted.unsubscribe(["XRP/USDT"], ())
    assert wanted.symbols(()) == list(MAJORS[:-1])


def test_an_exchange_is_connected_as_configured_until_somebody_says_otherwise():
    assert [Wanted().is_connected(c) for c in (True, False)] == [True, False]
    assert [Wanted(connect=False).is_connected(c) for c in (True, False)] == [False, False]
    assert [Wanted(connect=True).is_connected(c) for c in (True, False)] == [True, True]


def test_what_differs_from_the_configuration_is_told_in_one_line():
    assert Wanted().besides("binance", True) == "nothing"
    assert Wanted(connect=True).besides("binance", True) == "nothing"
    wanted = Wanted(requested={"operator": ["DOGE/USDT", "LTC/USDT"], "desk": ["A/B"]}, excluded=["XRP/USDT"])
    assert wanted.besides("binance", True) == "DOGE/USDT, LTC/USDT (operator); A/B (desk); not XRP/USDT"
    assert Wanted(connect=False).besides("bybit", True) == (
        "disconnected by order (`feedhandler connect bybit` ends that)"
    )
    assert Wanted(connect=True).besides("bybit", False) == (
        "connected by order (`feedhandler disconnect bybit` ends that)"
    )
    many = Wanted(requested={"holdings": [f"A{number}/USDT" for number in range(200)]})
    assert many.besides("bybit", True).endswith("A9/USDT and 190 more (holdings)")
