"""What streams of events send: everything, once, in order, whoever comes and goes."""

import json
from itertools import pairwise

import pytest

from feedhandler.sim.binance import Binance
from feedhandler.sim.bybit import Bybit
from feedhandler.sim.kucoin import Kucoin
from feedhandler.sim.protocol import NS_PER_S, Exchange
from feedhandler.sim.rate import FixedRate
from feedhandler.sim.rhythm import Activity, Rhythm

from .listener import World

BUSY = Activity(busiest_per_s=1000, busy_symbols=5000)
TRADES = {Binance: "btcusdt@trade", Kucoin: "/market/match:BTC-USDT", Bybit: "publicTrade.BTCUSDT"}
SYMBOLS = {Binance: "BTCUSDT", Kucoin: "BTC-USDT", Bybit: "BTCUSDT"}


def play(make: type[Exchange], *topics: str, rate: float = 0.0) -> tuple[World, Exchange]:
    """An exchange with some of its channels subscribed to, in simulated time."""
    exchange = make(40, 1)
    schedule = FixedRate(rate, 1) if rate else Rhythm(exchange.instruments, BUSY, 1)
    world = World(schedule, exchange.instruments)
    for topic in topics:
        world.add(exchange.stream(topic))
    return world, exchange


def messages(world: World) -> list[dict]:
    return [json.loads(text) for _, text in world.seen]


def trade_ids(make: type[Exchange], found: list[dict]) -> list:
    if make is Binance:
        return [message["t"] for message in found if message.get("e") == "trade"]
    if make is Kucoin:
        return [int(message["data"]["tradeId"]) for message in found if "match" in message["topic"]]
    return [row["i"] for message in found if "Trade" in message["topic"] for row in message["data"]]


@pytest.mark.parametrize("make", TRADES)
@pytest.mark.parametrize("rate", [0.0, 500.0], ids=["rhythm", "known rate"])
def test_every_trade_is_sent_once_and_in_order(make, rate):
    quotes = {
        Binance: "btcusdt@bookTicker",
        Kucoin: "/spotMarket/level1:BTC-USDT",
        Bybit: "orderbook.1.BTCUSDT",
    }
    world, exchange = play(make, TRADES[make], quotes[make], rate=rate)
    instrument = exchange.by_symbol[SYMBOLS[make]]
    fills: list = []
    instrument.order_book().fill_logs.append(fills)
    volume = instrument.base_volume
    world.run(3.0)
    found = trade_ids(make, messages(world))
    assert len(found) > 100
    assert len(set(found)) == len(found)
    sent = fills[: len(found)]
    assert len(fills) - len(sent) < 60, "at a known rate the newest wait for the next slot of their stream"
    if make is Binance:
        assert found == [fill.trade_id for fill in sent]
    elif make is Kucoin:
        assert found == sorted(found)
        assert found[0] > 2**53
    assert volume + sum(fill.size for fill in fills) == instrument.base_volume


@pytest.mark.parametrize("make", TRADES)
def test_a_burst_of_trades_comes_whole(make):
    world, exchange = play(make, TRADES[make])
    instrument = exchange.by_symbol[SYMBOLS[make]]
    instrument.burst(1025, world.now_ns)
    while not world.seen:
        world.run(0.001)
    found = messages(world)
    assert len(trade_ids(make, found)) >= 1025
    if make is Bybit:
        assert len(found[0]["data"]) == 1024
        assert 1 <= len(found[1]["data"]) < 20
        assert found[0]["data"][0]["seq"] < found[0]["data"][1]["seq"], "of one count with the books"


@pytest.mark.parametrize("make", TRADES)
def test_trades_that_nobody_was_sent_do_not_follow(make):
    world, exchange = play(make, TRADES[make])
    world.run(0.5)
    stream = world.broadcast.find(TRADES[make])
    for name in ("is_muted", "is_lost"):
        before = len(world.seen)
        setattr(stream, name, True)
        exchange.by_symbol[SYMBOLS[make]].burst(100, world.now_ns)
        world.run(0.5)
        assert len(world.seen) == before
        setattr(stream, name, False)
        while len(world.seen) == before:
            world.run(0.001)
        assert len(trade_ids(make, messages(world)[before:])) < 30


def test_who_left_costs_nothing_more():
    world, exchange = play(Binance, "btcusdt@trade", "btcusdt@bookTicker")
    book = exchange.by_symbol["BTCUSDT"].order_book()
    assert len(book.fill_logs) == 2, "the instrument's own, and that of the stream"
    world.broadcast.remove("btcusdt@trade", world.box)
    assert len(book.fill_logs) == 1
    world.add(exchange.stream("btcusdt@trade"))
    assert len(book.fill_logs) == 2


def test_who_wants_no_trades_and_no_books_has_none():
    world, exchange = play(Binance, "btcusdt@bookTicker", "btcusdt@ticker", "ethusdt@miniTicker")
    world.run(2.0)
    assert all(each.book is None for each in exchange.instruments)


def test_the_time_of_a_trade_is_when_it_was_made():
    world, exchange = play(Binance, "btcusdt@trade")
    exchange.by_symbol["BTCUSDT"].burst(1, 1_700_000_000 * NS_PER_S)
    while not world.seen:
        world.run(0.001)
    found = messages(world)
    assert found[0]["T"] == 1_700_000_000_000
    assert all(earlier["t"] < later["t"] for earlier, later in pairwise(found))
