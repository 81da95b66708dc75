"""What an account holds: exact, never below zero, changed as a whole or not at all."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedhandler.sim.account import (
    AMOUNT_MAX,
    ASSETS_MAX,
    Account,
    AccountError,
    fixed,
    plain,
    product,
)

NOW_NS = 1_790_000_000_000_000_000


@pytest.fixture
def account() -> Account:
    return Account("spot", 8)


def test_a_deposit_adds_and_says_so(account):
    update = account.transfer("BTC", Decimal("0.00000001"), NOW_NS)
    [change] = update.changes
    assert (change.asset, change.available, change.held) == ("BTC", Decimal("1.25000001"), Decimal("0.05"))
    assert (change.available_change, change.held_change) == (Decimal("0.00000001"), 0)
    assert (update.reason, update.wallet, update.unix_ns) == ("transfer", "spot", NOW_NS)
    assert account.updated_unix_ns == NOW_NS


def test_an_asset_that_was_not_there_appears(account):
    account.transfer("DOGE", Decimal(100), NOW_NS)
    assert account.describe()["DOGE"] == {"available": "100", "held": "0"}


def test_what_is_held_cannot_be_withdrawn(account):
    with pytest.raises(AccountError, match=r"1\.25 BTC available and 0\.05 held"):
        account.transfer("BTC", Decimal("-1.26"), NOW_NS)
    account.transfer("BTC", Decimal("-1.25"), NOW_NS)
    assert account.describe()["BTC"] == {"available": "0", "held": "0.05"}


def test_an_order_holds_and_releases(account):
    [held] = account.hold("USDT", Decimal(500), NOW_NS).changes
    assert (held.available, held.held, held.total) == (Decimal("9500.5"), 750, Decimal("10250.5"))
    with pytest.raises(AccountError):
        account.hold("USDT", Decimal(-751), NOW_NS)
    [released] = account.hold("USDT", Decimal(-750), NOW_NS).changes
    assert (released.available, released.held) == (Decimal("10250.5"), 0)


def test_a_trade_moves_both_assets_at_the_price(account):
    update = account.trade("BTC", "USDT", Decimal("0.1"), Decimal("64000.12345678"), NOW_NS)
    assert [(each.asset, each.available) for each in update.changes] == [
        ("BTC", Decimal("1.35")),
        ("USDT", Decimal("10000.5") - Decimal("6400.01234567")),
    ]


def test_a_trade_that_cannot_be_paid_changes_nothing(account):
    before = account.describe()
    with pytest.raises(AccountError):
        account.trade("BTC", "USDT", Decimal(1), Decimal(64_000), NOW_NS)
    assert account.describe() == before
    assert account.transfer("BTC", Decimal(1), NOW_NS).number == 1


@pytest.mark.parametrize("amount", ["NaN", "Infinity", "-Infinity", "sNaN", "1E+16", "0.000000001"])
def test_an_impossible_amount_is_refused(account, amount):
    with pytest.raises(AccountError):
        account.transfer("BTC", Decimal(amount), NOW_NS)
    with pytest.raises(AccountError):
        account.hold("BTC", Decimal(amount), NOW_NS)
    with pytest.raises(AccountError):
        account.trade("BTC", "USDT", Decimal(amount), Decimal(1), NOW_NS)


@pytest.mark.parametrize("asset", ["", "btc", "B TC", "B,C", "A" * 21, "BTC\n"])
def test_what_is_no_asset_is_refused(account, asset):
    with pytest.raises(AccountError, match="capital letters"):
        account.transfer(asset, Decimal(1), NOW_NS)


def test_assets_are_bounded(account):
    for index in range(ASSETS_MAX - len(account.balances)):
        account.transfer(f"X{index}", Decimal(1), NOW_NS)
    with pytest.raises(AccountError, match=str(ASSETS_MAX)):
        account.transfer("ONEMORE", Decimal(1), NOW_NS)


def test_a_balance_is_bounded(account):
    account.transfer("DOGE", AMOUNT_MAX, NOW_NS)
    with pytest.raises(AccountError, match="cannot hold more"):
        account.transfer("DOGE", Decimal(1), NOW_NS)


AMOUNTS = st.decimals(min_value=-(10**15), max_value=10**15, places=18)


@given(st.lists(AMOUNTS, max_size=20))
def test_no_sequence_of_deposits_rounds_or_overdraws(amounts):
    account = Account("unified", 18)
    expected = _units(Decimal("12.5"))
    for amount in amounts:
        units = _units(amount)
        try:
            account.transfer("ETH", amount, NOW_NS)
        except AccountError:
            assert not 0 <= expected + units <= 10**33
        else:
            expected += units
            assert expected >= 0
    assert _units(account.balances["ETH"].available) == expected


def _units(amount: Decimal) -> int:
    """Count in units of 10**-18, without any context's precision."""
    sign, digits, exponent = amount.as_tuple()
    value = int("".join(map(str, digits)) or "0") * 10 ** (exponent + 18)
    return -value if sign else value


@pytest.mark.parametrize(
    ("amount", "expected"),
    [("1E+3", "1000"), ("0E-8", "0"), ("1.500", "1.5"), ("1E-18", "0." + "0" * 17 + "1")],
)
def test_plain_has_neither_exponent_nor_padding(amount, expected):
    assert plain(Decimal(amount)) == expected


def test_fixed_pads_and_never_rounds():
    assert fixed(Decimal("1.5"), 8) == "1.50000000"
    assert fixed(Decimal(0), 8) == "0.00000000"
    assert fixed(Decimal("999999999999999.12345678"), 8) == "999999999999999.12345678"
    with pytest.raises(ArithmeticError):
        fixed(Decimal("0.123456789"), 8)


def test_a_product_is_rounded_down():
    assert product(Decimal("0.00000003"), Decimal("0.5"), 8) == Decimal("0.00000001")
