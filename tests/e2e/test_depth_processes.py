"""Depth from the simulated exchanges to a subscriber, by real processes: what it shows is what their books were."""

import time

import pytest
from harness import EXCHANGES, PATIENCE_S, Stack, wait_until

from feedhandler.client import Depth, Subscriber, Ticker
from feedhandler.data import wire

TOPICS = {
    "binance": "btcusdt@depth20@100ms",
    "kucoin": "/spotMarket/level2Depth50:BTC-USDT",
    "bybit": "orderbook.50.BTCUSDT",
}
SYMBOLS = ("BTC/USDT", "ETH/USDT")


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    stack = Stack(
        tmp_path_factory.mktemp("depth"),
        extra='kinds = ["ticker", "depth"]',
        sim="busiest_per_s = 50",
        symbols=SYMBOLS,
    )
    stack.start()
    yield stack
    stack.close()


def receive(subscriber, condition, what):
    """Read until there is a record for which the condition holds; returns it, and all that came before it."""
    deadline, came = time.monotonic() + PATIENCE_S, []
    while time.monotonic() < deadline:
        record = subscriber.receive(1.0)
        if record is not None:
            came.append(record)
            if condition(record):
                return record, came
    raise AssertionError(f"not within {PATIENCE_S:g} s: {what}")


def is_fresh(record):
    return isinstance(record, Depth) and record.is_live and not record.is_snapshot


def check(record):
    """What is not flagged is in order, and not crossed."""
    bids, asks = ([price for price, _ in side] for side in (record.bids, record.asks))
    assert bids == sorted(set(bids), reverse=True)
    assert asks == sorted(set(asks))
    assert len(bids) <= 20
    assert len(asks) <= 20
    if record.is_live and bids and asks:
        assert bids[0] < asks[0]


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_the_best_levels_of_each_symbol_come_and_change(stack, exchange):
    with Subscriber(stack.endpoint, [f"depth.{exchange}."]) as subscriber:
        seen = dict.fromkeys(SYMBOLS, 0)
        deadline = time.monotonic() + PATIENCE_S
        while min(seen.values()) < 20:
            assert time.monotonic() < deadline, seen
            record = subscriber.receive(1.0)
            if record is not None and is_fresh(record):
                seen[record.symbol] += 1
                check(record)
                assert record.bid_count == record.ask_count == 20
                assert str(record.flags) == "SIMULATED"
        assert sum(loss.lost for loss in subscriber.losses.values()) == 0


def test_the_quote_of_tickers_is_that_of_their_own_channel_and_agrees(stack):
    """Binance counts both alike: at the same id they are the same."""
    quotes, depths = {}, {}
    with Subscriber(stack.endpoint, ["ticker.binance.BTC/USDT", "depth.binance.BTC/USDT"]) as subscriber:

        def common(record):
            if record.is_live and isinstance(record, Ticker):
                quotes[record.exchange_sequence] = (
                    (record.bid, record.bid_size),
                    (record.ask, record.ask_size),
                )
            elif record.is_live and isinstance(record, Depth):
                depths[record.exchange_sequence] = record.bids[0], record.asks[0]
            return len(quotes.keys() & depths.keys()) >= 3

        receive(subscriber, common, "ids that both have")
    for number in quotes.keys() & depths.keys():
        assert quotes[number] == depths[number]


def test_who_joins_late_gets_the_newest_as_a_snapshot(stack):
    for _ in range(2):
        with Subscriber(stack.endpoint, ["depth."]) as subscriber:
            first, _ = receive(subscriber, lambda record: isinstance(record, Depth), "any")
            assert first.is_snapshot


def test_a_book_that_lost_a_change_is_flagged_and_comes_back_and_the_others_go_on(stack):
    with Subscriber(stack.endpoint, ["depth.bybit."]) as subscriber:
        receive(subscriber, is_fresh, "depth")
        stack.fault("bybit", "lose_messages", topic=TOPICS["bybit"], count=2)
        invalid, came = receive(subscriber, lambda record: record.flags & wire.INVALID, "INVALID")
        assert invalid.symbol == "BTC/USDT"
        again, more = receive(
            subscriber, lambda r: r.symbol == "BTC/USDT" and not r.flags & wire.INVALID, "its end"
        )
        assert again.is_live
        for record in came + more:
            check(record)
            assert not record.flags & (wire.STALE | wire.DOWN)
            assert record.symbol == "BTC/USDT" or not record.flags & wire.INVALID
        receive(subscriber, lambda record: record.symbol == "BTC/USDT" and is_fresh(record), "the next")
    stack.wait_effect("bybit", "lose_messages", 1)


def test_books_that_are_restarted_are_taken_over(stack):
    with Subscriber(stack.endpoint, ["depth.bybit.BTC/USDT"]) as subscriber:
        receive(subscriber, is_fresh, "depth")
        stack.fault("bybit", "restart_books", symbol="BTCUSDT")
        restarted, came = receive(subscriber, lambda record: record.exchange_sequence < 1000, "a new count")
        assert restarted.exchange_sequence >= 1
        _, more = receive(subscriber, lambda r: r.exchange_sequence > restarted.exchange_sequence, "the next")
        for record in came + more:
            check(record)
            assert record.is_live


def test_a_crossed_book_is_flagged(stack):
    with Subscriber(stack.endpoint, ["depth.bybit.BTC/USDT"]) as subscriber:
        receive(subscriber, is_fresh, "depth")
        stack.fault("bybit", "cross_book", topic=TOPICS["bybit"])
        crossed, _ = receive(subscriber, lambda record: record.flags & wire.INVALID, "INVALID")
        assert crossed.bids[0][0] >= crossed.asks[0][0]
        sound, came = receive(subscriber, is_fresh, "a sound one")
        for record in [*came, sound]:
            check(record)


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_lost_connection_is_down_and_comes_back(stack, exchange):
    with Subscriber(stack.endpoint, [f"depth.{exchange}.BTC/USDT"]) as subscriber:
        receive(subscriber, is_fresh, "depth")
        stack.fault(exchange, "rst")
        receive(subscriber, lambda record: record.is_down, "DOWN")
        record, _ = receive(subscriber, is_fresh, "values of the new connection")
        check(record)


def test_kinds_can_be_subscribed_to_and_left_while_everything_runs(stack):
    done = stack.run("subscribe", "binance", "SOL/USDT", "--kind", "depth", "-c", str(stack.config))
    assert done.returncode == 0, done.stderr
    with Subscriber(stack.endpoint, ["depth.binance.SOL/USDT", "ticker.binance.SOL/USDT"]) as subscriber:
        record, _ = receive(subscriber, is_fresh, "depth")
        assert record.symbol == "SOL/USDT"
        done = stack.run("unsubscribe", "binance", "SOL/USDT", "--kind", "depth", "-c", str(stack.config))
        assert done.returncode == 0, done.stderr
        _, came = receive(subscriber, lambda record: record.is_down, "DOWN")
        assert not any(isinstance(record, Ticker) for record in came)
    wait_until(lambda: all("sol" not in topic for topic in stack.silent_topics("binance")), "unsubscribed")


def test_the_records_can_be_looked_at(stack):
    done = stack.run("tail", "--topic", "depth.", "--count", "3", "-c", str(stack.config))
    assert done.returncode == 0, done.stderr
    assert "20 + 20 levels, bid/ask " in done.stdout
