"""What an account holds: REST and the stream agree, or it is drift; nothing moves backwards."""

import random
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seeds import seeds

from feedhandler.accounts import balances as module
from feedhandler.accounts.adapter import Balance
from feedhandler.accounts.balances import DRIFTED_MAX, SETTLE_NS, Drift, Ledger, plain
from feedhandler.data.errors import DecodeError

S = 1_000_000_000
NOW = 1000 * S


def held(asset, free, locked="0", part=""):
    return Balance(asset, Decimal(free), Decimal(locked), part)


def totals(ledger):
    return {row.asset: row.total for row in ledger.rows()}


def synced(*rows, live=True):
    """Return a ledger that was asked for at NOW, while its stream was live and had been for a while."""
    ledger = Ledger()
    if live:
        ledger.on_stream_live(NOW - SETTLE_NS)
    assert ledger.on_sync(rows, NOW, NOW + S // 10) == bool(rows)
    return ledger


def test_the_first_answer_is_what_is_held_and_no_drift():
    ledger = synced(held("BTC", "1.25", "0.05"), held("USDT", "10"))
    assert totals(ledger) == {"BTC": "1.3", "USDT": "10"}
    assert not ledger.settle(NOW + 100 * S)


def test_the_stream_is_believed_at_once_and_an_asset_that_was_sold_is_gone():
    ledger = synced(held("BTC", "1"))
    assert ledger.on_stream([held("DOGE", "100"), held("BTC", "0")], NOW + 5 * S)
    assert totals(ledger) == {"DOGE": "100"}
    assert not ledger.on_stream([held("DOGE", "100.0")], NOW + 6 * S), "the same amount is no change"


def test_what_is_held_of_an_asset_is_the_sum_of_its_parts_and_a_change_of_one_leaves_the_others():
    ledger = synced(held("BTC", "1", "0.5", part="trade"), held("BTC", "2", part="fast"))
    assert totals(ledger) == {"BTC": "3.5"}
    assert ledger.on_stream([held("BTC", "4", part="fast")], NOW + 5 * S)
    assert totals(ledger) == {"BTC": "5.5"}
    assert ledger.on_stream([held("BTC", "0", part="trade")], NOW + 6 * S)
    assert totals(ledger) == {"BTC": "4"}
    ledger.on_sync([held("BTC", "4", part="fast")], NOW + 60 * S, NOW + 60 * S)
    assert not ledger.settle(NOW + 100 * S)
    assert ledger.drifts == 0
    ledger.on_sync([], NOW + 160 * S, NOW + 160 * S)
    assert totals(ledger) == {}


def test_what_an_incomplete_answer_does_not_have_is_not_sold():
    ledger = synced(held("BTC", "1"), held("ETH", "1", part="a"), held("ETH", "2", part="b"))
    ledger.on_sync([held("ETH", "5", part="b")], NOW + 60 * S, NOW + 60 * S, is_complete=False)
    assert totals(ledger) == {"BTC": "1", "ETH": "6"}
    ledger.on_sync([held("ETH", "5", part="b")], NOW + 120 * S, NOW + 120 * S)
    assert totals(ledger) == {"ETH": "5"}


def test_what_the_stream_has_missed_is_drift_and_rest_wins():
    ledger = synced(held("BTC", "1"))
    assert ledger.on_sync([held("BTC", "1"), held("LTC", "3")], NOW + 60 * S, NOW + 60 * S)
    assert totals(ledger) == {"BTC": "1", "LTC": "3"}
    assert not ledger.settle(NOW + 60 * S + SETTLE_NS - 1)
    assert ledger.settle(NOW + 60 * S + SETTLE_NS)
    assert ledger.drifts == 1
    assert ledger.drifted == [Drift("LTC", "0", "3")]


def test_a_stream_that_is_only_late_has_missed_nothing():
    ledger = synced(held("BTC", "1"))
    ledger.on_sync([held("BTC", "2")], NOW + 60 * S, NOW + 60 * S)
    ledger.on_stream([held("BTC", "2")], NOW + 61 * S)
    assert not ledger.settle(NOW + 100 * S)
    assert ledger.drifts == 0


@pytest.mark.parametrize("told_s", [58, 60.05])
def test_about_what_the_stream_has_just_told_an_answer_says_nothing(told_s):
    ledger = synced(held("BTC", "1"))
    asked, told = NOW + 60 * S, NOW + int(told_s * S)
    ledger.on_stream([held("BTC", "5")], told)
    ledger.on_sync([held("BTC", "1"), held("ETH", "7")], asked, asked + S // 5)
    assert totals(ledger) == {"BTC": "5", "ETH": "7"}
    assert ledger.is_open(asked), "so another answer is wanted soon"
    ledger.on_sync([held("BTC", "5"), held("ETH", "7")], asked + 4 * S, asked + 4 * S)
    assert not ledger.is_open(asked + 4 * S)
    ledger.settle(asked + 100 * S)
    assert [drift.asset for drift in ledger.drifted] == ["ETH"]


@pytest.mark.parametrize("live_at_s", [None, 30])
def test_a_stream_that_was_not_live_all_the_time_has_promised_nothing(live_at_s):
    ledger = synced(held("BTC", "1"), live=False)
    if live_at_s:
        ledger.on_stream_live(NOW + live_at_s * S)
    ledger.on_sync([held("BTC", "2")], NOW + 60 * S, NOW + 60 * S)
    assert not ledger.settle(NOW + 100 * S)


def test_a_copy_that_is_older_than_the_stream_is_no_promise_of_it_and_another_answer_is_wanted():
    ledger = Ledger()
    ledger.on_stream_live(NOW)
    ledger.on_sync([held("BTC", "1")], NOW, NOW + S // 10)  # of a moment ago; since then it has become 2
    assert ledger.is_open(NOW)
    asked = NOW + SETTLE_NS
    ledger.on_sync([held("BTC", "2")], asked, asked)
    assert not ledger.is_open(asked)
    assert not ledger.settle(NOW + 100 * S)
    ledger.on_sync([held("BTC", "3")], NOW + 60 * S, NOW + 60 * S)
    assert ledger.settle(NOW + 100 * S), "from then on it counts"


def test_a_stream_that_was_lost_since_has_promised_nothing():
    ledger = synced(held("BTC", "1"))
    ledger.on_stream_lost()
    ledger.on_stream_live(NOW + 30 * S)
    ledger.on_sync([held("BTC", "2")], NOW + 60 * S, NOW + 60 * S)
    assert not ledger.settle(NOW + 100 * S)


def test_an_answer_to_an_older_question_says_nothing():
    ledger = synced(held("BTC", "1"))
    ledger.on_sync([held("BTC", "2")], NOW + 60 * S, NOW + 61 * S)
    assert not ledger.on_sync([held("BTC", "1")], NOW + 59 * S, NOW + 62 * S)
    assert totals(ledger) == {"BTC": "2"}


def test_an_asset_that_rest_does_not_list_any_more_is_gone():
    ledger = synced(held("BTC", "1"), held("ETH", "1"))
    ledger.on_sync([held("ETH", "1")], NOW + 60 * S, NOW + 60 * S)
    assert totals(ledger) == {"ETH": "1"}


def test_the_list_of_drifts_is_bounded_and_the_count_is_complete():
    ledger = synced()
    for number in range(DRIFTED_MAX + 5):
        at = NOW + (60 + 10 * number) * S
        ledger.on_sync([held(f"A{number}", "1")], at, at)
        ledger.settle(at + SETTLE_NS)
    assert ledger.drifts == DRIFTED_MAX + 5 + DRIFTED_MAX + 4, "each new one, and each that is gone again"
    assert len(ledger.drifted) == DRIFTED_MAX


def test_more_assets_than_can_be_are_refused(monkeypatch):
    monkeypatch.setattr(module, "ASSETS_MAX", 3)
    ledger = Ledger()
    with pytest.raises(DecodeError, match="more than 3 assets"):
        ledger.on_sync([held(f"A{number}", "1") for number in range(4)], NOW, NOW)
    with pytest.raises(DecodeError, match="more than 3 assets"):
        ledger.on_stream([held(f"A{number}", "1") for number in range(4)], NOW)


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        ("1E-8", "0.00000001"),
        ("1.50", "1.5"),
        ("100", "100"),
        ("1E+3", "1000"),
        ("0E-8", "0"),
        ("-0.5", "-0.5"),
    ],
)
def test_amounts_are_printed_in_plain_digits(amount, text):
    assert plain(Decimal(amount)) == text


@given(st.decimals(allow_nan=False, allow_infinity=False, places=18, min_value=0, max_value=10**15))
def test_no_digit_is_lost(amount):
    assert Decimal(plain(amount)) == amount


@pytest.mark.parametrize("seed", seeds(40))
@pytest.mark.parametrize("loses", [False, True])
def test_whatever_the_delays_the_ledger_ends_right_and_only_a_lost_message_is_drift(seed, loses):
    """An account, a stream that is in order and late, a REST copy that is behind, both by less than they may be."""
    rng = random.Random(seed)
    ledger, now = Ledger(), NOW
    account = {asset: Decimal(rng.randrange(1, 9)) for asset in ("A", "B", "C")}
    history = [(now, dict(account))]
    told, answers, lost = [], [], set()
    ledger.on_stream_live(now)
    next_sync, last_told = now, now
    for step in range(6000):  # of 50 ms
        now += S // 20
        if step < 5000 and rng.random() < 0.02:
            asset = rng.choice("ABCD")
            account[asset] = Decimal(rng.randrange(9))
            history.append((now, dict(account)))
            # The one that is lost is the last change of its asset for long.
            if loses and step > 4000 and asset not in lost and not lost:
                lost.add(asset)
            elif asset not in lost:
                last_told = max(last_told, now + rng.randrange(S))
                told.append((last_told, asset, account[asset]))
        if now >= next_sync:
            next_sync = now + 10 * S
            as_of = now - rng.randrange(S)  # of a copy
            state = (
                [each for at, each in history if at <= as_of][-1] if history[0][0] <= as_of else history[0][1]
            )
            answers.append((now + rng.randrange(2 * S), now, state))
        while told and told[0][0] <= now:
            _, asset, amount = told.pop(0)
            ledger.on_stream([Balance(asset, amount)], now)
        for answer in [each for each in answers if each[0] <= now]:
            answers.remove(answer)
            rows = [Balance(a, amount) for a, amount in answer[2].items() if amount]
            ledger.on_sync(rows, answer[1], now)
        ledger.settle(now)
    assert {a: b.total for a, b in ledger.balances.items()} == {a: n for a, n in account.items() if n}
    if not loses:
        assert ledger.drifts == 0, ledger.drifted
    elif lost:
        assert {drift.asset for drift in ledger.drifted} == lost
