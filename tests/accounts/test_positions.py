"""What is watched of what is held."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from feedhandler.accounts import ACCOUNTS
from feedhandler.accounts.positions import UNPAIRED, Dust, by_code, by_name, folded, held, watched
from feedhandler.data.errors import SubscriptionRejected
from feedhandler.data.instruments import Instrument, InstrumentTable

TABLE = InstrumentTable(
    "binance",
    [
        Instrument("BTCUSDT", "BTC", "USDT"),
        Instrument("BTCEUR", "BTC", "EUR"),
        Instrument("DOGEUSDT", "DOGE", "USDT"),
        Instrument("LUNAUSDT", "LUNA", "USDT", is_trading=False),
        Instrument("LDOUSDT", "LDO", "USDT"),
        Instrument("GALAX-USDT", "GALA", "USDT", code="GALAX"),
    ],
)
DUST = Dust(Decimal("0.1"), {"SHIB": Decimal(1000)})


def test_each_asset_is_paired_with_each_quote_asset_that_the_exchange_trades_it_against():
    found = watched(["BTC", "DOGE", "LUNA", "NOBODY", "USDT"], ["USDT", "EUR"], by_code(TABLE))
    assert found.symbols == ["BTC/USDT", "BTC/EUR", "DOGE/USDT"]
    assert found.unpaired == dict.fromkeys(["LUNA", "NOBODY"], UNPAIRED), (
        "halted, and unknown; a quote asset needs no pair"
    )


def test_what_an_account_holds_is_paired_by_the_code_of_the_asset_and_published_by_its_name():
    found = watched(["GALAX", "GALA"], ["USDT"], by_code(TABLE))
    assert (found.symbols, found.unpaired) == (["GALA/USDT"], {"GALA": UNPAIRED}), (
        "another coin may have had that code"
    )


def test_what_somebody_names_is_paired_by_its_name_or_else_by_its_code():
    assert watched(["GALA"], ["USDT"], by_name(TABLE)).symbols == ["GALA/USDT"]
    assert watched(["GALAX"], ["USDT"], by_name(TABLE)).symbols == ["GALA/USDT"]


def test_a_contract_is_watched_itself_against_no_quote_asset_unless_it_cannot_be_had():
    held_now = ["BTC", "BTC/USDT:USDT", "NO/USDT:USDT"]
    refused = {"NO/USDT:USDT": SubscriptionRejected("no such contract")}
    found = watched(held_now, ["USDT", "EUR"], by_name(TABLE), refused)
    assert found.symbols == ["BTC/USDT", "BTC/EUR", "BTC/USDT:USDT"]
    assert found.unpaired == {"NO/USDT:USDT": "no such contract"}


def test_savings_are_the_asset_in_which_they_are_paid_out_and_names_alone_prove_nothing():
    amounts = {asset: Decimal(1) for asset in ("BTC", "LDBTC", "LDUSDT", "LDO", "LDNOBODY", "LD")}
    found = folded(amounts, ACCOUNTS["binance"].underlying, TABLE)
    assert found == {"BTC": 2, "USDT": 1, "LDO": 1, "LDNOBODY": 1, "LD": 1}
    assert folded(amounts, ACCOUNTS["bybit"].underlying, TABLE) == amounts


def test_dust_is_no_holding_and_assets_have_their_own():
    amounts = {"BTC": Decimal("0.11"), "ETH": Decimal("0.1"), "SHIB": Decimal(999), "XRP": Decimal(0)}
    assert held(amounts, DUST) == ["BTC"]
    assert held({"SHIB": Decimal(1001)}, DUST) == ["SHIB"]
    of_contract = Dust(Decimal("0.1"), {"BTC/USDT:USDT": Decimal(2)})
    amounts = {"BTC": Decimal(1), "BTC/USDT:USDT": Decimal(1), "ETH/USDT:USDT": Decimal(1)}
    assert held(amounts, of_contract) == ["BTC", "ETH/USDT:USDT"]


def test_what_goes_up_and_down_about_the_threshold_does_not_flap():
    assert held({"BTC": Decimal("0.06")}, DUST) == []
    assert held({"BTC": Decimal("0.06")}, DUST, before=["BTC"]) == ["BTC"]
    assert held({"BTC": Decimal("0.04")}, DUST, before=["BTC"]) == []
    assert held({"BTC": Decimal(0)}, Dust(Decimal(0)), before=["BTC"]) == []


@given(st.dictionaries(st.sampled_from("ABCDEF"), st.decimals(min_value=-5, max_value=5, places=4)))
def test_what_was_held_only_ever_adds(amounts):
    fresh = held(amounts, DUST)
    assert set(fresh) <= set(held(amounts, DUST, before=amounts))
    assert all(amounts[asset] > 0 for asset in held(amounts, DUST, before=amounts))
