"""Trades of three exchanges through real processes: each once, whatever becomes of connections."""

import collections
import json
import time
import urllib.request

import pytest
from harness import Stack
from patience import PATIENCE_S

from feedhandler.client import Condition, Subscriber, Trade
from feedhandler.data import wire

SYMBOLS = ("BTC/USDT", "ETH/USDT")
EXCHANGES = ("binance", "kucoin", "bybit")
REST = {
    "binance": ("/api/v3/trades?symbol=BTCUSDT&limit=50", lambda rows: [str(row["id"]) for row in rows]),
    "kucoin": (
        "/api/v1/market/histories?symbol=BTC-USDT",
        lambda answer: [row["sequence"] for row in answer["data"][:50]],
    ),
    "bybit": (
        "/v5/market/recent-trade?category=spot&symbol=BTCUSDT&limit=50",
        lambda answer: [row["execId"] for row in answer["result"]["list"]],
    ),
}


class Follower:
    """What a subscriber to trades has received."""

    def __init__(self, stack):
        self.subscriber = Subscriber(f"ipc://{stack.directory}/run/ticks.ipc", topics=["trade."])
        self.trades = collections.defaultdict(list)
        self.conditions = collections.Counter()

    def read(self, seconds):
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.take(self.subscriber.receive_many(timeout_s=left))

    def read_until(self, condition, what):
        end = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < end, what
            self.take(self.subscriber.receive_many(timeout_s=0.1))

    def take(self, records):
        for record in records:
            if isinstance(record, Trade):
                self.trades[record.topic].append(record)
            elif isinstance(record, Condition):
                self.conditions.update(record.flag_names)

    def ids(self, topic):
        return [trade.trade_id for trade in self.trades[topic]]

    def check(self):
        """No id twice, and nothing lost on the way."""
        assert self.subscriber.lost == 0
        for topic, trades in self.trades.items():
            ids = self.ids(topic)
            assert len(ids) == len(set(ids)), topic
            assert {str(trade.side) for trade in trades} <= {"buy", "sell"}

    def is_gapless(self):
        """True if no number is missing where they follow each other."""
        found = [sorted(map(int, self.ids(f"trade.binance.{symbol}"))) for symbol in SYMBOLS]
        return all(numbers == list(range(numbers[0], numbers[0] + len(numbers))) for numbers in found)

    def has_all(self):
        return all(self.trades[f"trade.{exchange}.{symbol}"] for exchange in EXCHANGES for symbol in SYMBOLS)


@pytest.fixture(params=[1, 2])
def legs(request):
    return request.param


@pytest.fixture
def stack(tmp_path, legs):
    stack = Stack(
        tmp_path, symbols=SYMBOLS, extra=f'kinds = ["ticker", "trade"]\nlegs = {legs}\nbackoff_max_s = 1.0'
    )
    yield stack
    stack.close()


def recent(stack, exchange):
    """The ids of the exchange's newest trades, as its REST host states them."""
    path, ids = REST[exchange]
    with urllib.request.urlopen(
        f"http://127.0.0.1:{stack.ports[exchange]}{path}", timeout=PATIENCE_S
    ) as answer:
        return ids(json.loads(answer.read()))


def test_each_trade_is_published_once_over_reconnections(stack, legs):
    follower = Follower(stack)
    stack.start()
    follower.read_until(follower.has_all, "trades of each")
    for _ in range(2):  # the older one of two
        for exchange in EXCHANGES:
            stack.fault(
                exchange, "close", connection=stack.sim_state(exchange)["connections"][0]["connection"]
            )
        follower.read(4.0)
    newest = {exchange: set(recent(stack, exchange)) for exchange in EXCHANGES}

    def has_newest():
        return all(ids <= set(follower.ids(f"trade.{exchange}.BTC/USDT")) for exchange, ids in newest.items())

    follower.read_until(has_newest, "what REST has")
    follower.read_until(follower.is_gapless, "what is missing comes when the budget of requests permits")
    follower.check()
    recovered = sum(bool(t.flags & wire.RECOVERED) for trades in follower.trades.values() for t in trades)
    if legs == 1:
        assert follower.conditions["DOWN"] >= 2
        assert recovered
    assert all(trades[-1].flags & wire.SIMULATED for trades in follower.trades.values())
