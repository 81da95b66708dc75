"""Canonical symbols come from the exchange's own list, and a clash is an error, not an overwrite."""

import msgspec
import pytest

from feedhandler.data.errors import SubscriptionRejected
from feedhandler.data.instruments import (
    HINTS_MAX,
    Instrument,
    InstrumentList,
    InstrumentTable,
    decimals,
    instrument_list,
    price_tick,
)

BTC = Instrument("BTCUSDT", "BTC", "USDT")


def test_symbols_are_found_both_ways():
    table = InstrumentTable("x", [BTC, Instrument("汉字币USDT", "汉字币", "USDT")])
    assert table.symbol_of("BTCUSDT") == "BTC/USDT"
    assert table.resolve("汉字币/USDT").native == "汉字币USDT"
    assert table.symbol_of("nope") is None
    assert table.problems == []


def test_two_tradable_natives_of_one_canonical_symbol_are_an_error_and_neither_is_published():
    table = InstrumentTable("x", [BTC, Instrument("XBTUSDT", "BTC", "USDT")])
    assert table.problems == ["x: BTC/USDT is claimed by BTCUSDT and XBTUSDT; neither is published"]
    assert table.symbol_of("BTCUSDT") is table.symbol_of("XBTUSDT") is None
    with pytest.raises(SubscriptionRejected, match="claimed by BTCUSDT and XBTUSDT"):
        table.resolve("BTC/USDT")


def test_a_halted_namesake_gives_way_to_the_tradable_one_in_either_order():
    halted = Instrument("BTCUSDT-OLD", "BTC", "USDT", False)
    for listing in ([BTC, halted], [halted, BTC]):
        assert InstrumentTable("x", listing).resolve("BTC/USDT") is BTC


def test_an_unknown_symbol_is_rejected_with_the_nearest_names():
    with pytest.raises(SubscriptionRejected, match=r"x lists no BCT/USDT; did you mean BTC/USDT\?"):
        InstrumentTable("x", [BTC]).resolve("BCT/USDT")


def test_the_nearest_names_are_looked_for_a_few_times_only_and_once_each():
    """Each costs milliseconds of the event loop, and a short list lacks thousands."""
    table = InstrumentTable("x", [BTC])

    def reason(symbol):
        with pytest.raises(SubscriptionRejected) as refusal:
            table.resolve(symbol)
        return str(refusal.value)

    texts = [reason(f"BTC{number}/USDT") for number in range(2 * HINTS_MAX)]
    assert ["did you mean BTC/USDT?" in text for text in texts] == [True] * HINTS_MAX + [False] * HINTS_MAX
    assert [reason(f"BTC{number}/USDT") for number in range(2 * HINTS_MAX)] == texts


def test_a_symbol_that_is_not_trading_is_rejected_with_its_status():
    table = InstrumentTable("x", [Instrument("OLDUSDT", "OLD", "USDT", False, "BREAK")])
    with pytest.raises(SubscriptionRejected, match="not trading, status BREAK"):
        table.resolve("OLD/USDT")


@pytest.mark.parametrize(
    "instrument",
    [
        Instrument("AB", "", "B"),
        Instrument("A/BC", "A/B", "C"),
        Instrument("A B", "A B", "C"),
        Instrument("A\nB", "A\n", "B"),
        Instrument("X" * 64, "X", "Y"),
        Instrument("X", "Y" * 64, "Z"),
    ],
)
def test_an_instrument_that_cannot_be_published_is_left_out_and_named(instrument):
    table = InstrumentTable("x", [instrument, BTC])
    assert list(table.by_native) == ["BTCUSDT"]
    assert len(table.problems) == 1
    assert repr(instrument.native) in table.problems[0]


def test_a_published_list_gives_the_same_table_back():
    listing = instrument_list("x", 7, [BTC, Instrument("OLDUSDT", "OLD", "USDT", False, "BREAK")])
    table = listing.table()
    assert table.by_native["OLDUSDT"] == Instrument("OLDUSDT", "OLD", "USDT", False, "BREAK")
    assert table.resolve("BTC/USDT") == BTC


def test_a_symbol_is_found_as_it_is_spelled_and_another_case_gets_the_right_one_as_a_hint():
    table = InstrumentTable("x", [BTC, Instrument("LYXE-USDT", "LYXe", "USDT")])
    assert table.resolve("LYXe/USDT").native == "LYXE-USDT"
    for symbol in ("LYXE/USDT", "lyxe/usdt"):
        with pytest.raises(SubscriptionRejected, match=r"did you mean LYXe/USDT\?"):
            table.resolve(symbol)


def test_what_could_not_be_read_of_a_list_is_published_and_kept_with_it():
    listing = instrument_list("x", 7, [BTC], ["x list: 1 of 2 rows cannot be read"])
    table = msgspec.json.decode(msgspec.json.encode(listing), type=InstrumentList).table()
    assert table.problems == ["x list: 1 of 2 rows cannot be read"]
    assert table.resolve("BTC/USDT") == BTC


@pytest.mark.parametrize(
    ("stated", "tick", "places"),
    [
        ("0.01000000", "0.01", 2),
        ("0.00000001", "0.00000001", 8),
        ("1.0", "1", 0),
        ("10", "10", 0),
        ("0.25", "0.25", 2),
        ("1e-5", "0.00001", 5),
        (1e-8, "0.00000001", 8),
        (10, "10", 0),
        *(
            (odd, "", None)
            for odd in ("", "0", "-0.1", "NaN", "inf", "1e-400", "9e99", "x", None, 0.0, ["1"])
        ),
    ],
)
def test_a_tick_is_plain_text_and_unknown_if_no_price_could_have_it(stated, tick, places):
    assert price_tick(stated) == tick
    assert decimals(tick) == places


def test_the_list_that_is_published_has_ticks():
    listing = instrument_list("x", 7, [Instrument("BTCUSDT", "BTC", "USDT", tick="0.01")])
    assert listing.instruments[0].tick == "0.01"
    assert listing.table().by_native["BTCUSDT"].tick == "0.01"


def test_what_is_settled_is_named_after_that_and_is_nothing_that_accounts_hold():
    spot = Instrument("BTCUSDT", "BTC", "USDT")
    linear = Instrument("linear:BTCUSDT", "BTC", "USDT", market="linear", settle="USDT")
    odd = Instrument("linear:X", "A:B", "USDT", market="linear", settle="USDT")
    listing = instrument_list("x", 1, [linear, spot, odd, Instrument("linear:E", "E", "U", settle="S")])
    table = msgspec.json.decode(msgspec.json.encode(listing), type=InstrumentList).table()
    assert table.resolve("BTC/USDT:USDT") == linear
    assert table.resolve("BTC/USDT") == spot
    assert table.symbol_of("linear:BTCUSDT") == "BTC/USDT:USDT"
    assert table.symbol_of_code("BTC", "USDT") == "BTC/USDT"
    assert not table.lists("E")
    assert table.problems == ["x: instrument 'linear:X' has the unusable name 'A:B'"]
