"""What streams of events send: everything, once, in order, whoever comes and goes."""

import json
import re
from decimal import Decimal
from itertools import pairwise
from urllib.parse import parse_qsl

import pytest

from feedhandler.sim.binance import Binance
from feedhandler.sim.bybit import Bybit
from feedhandler.sim.kucoin import Kucoin
from feedhandler.sim.okx import Okx
from feedhandler.sim.protocol import NS_PER_S, DataStream, Exchange, HttpRequest, Now
from feedhandler.sim.rate import FixedRate
from feedhandler.sim.rhythm import Activity, Rhythm
from feedhandler.sim.sources import WindowSource

from .books import (
    BOOKS,
    DEPTH_ENDPOINTS,
    QUOTES,
    SYMBOLS,
    TRADES,
    WITH_SNAPSHOTS,
    GapError,
    KeptBook,
    topic_of,
    truth,
)
from .listener import World

BUSY = Activity(busiest_per_s=1000, busy_symbols=5000)


def play(
    make: type[Exchange], *topics: str, rate: float = 0.0, activity: Activity = BUSY
) -> tuple[World, Exchange]:
    """An exchange with some of its channels subscribed to, in simulated time."""
    exchange = make(40, 1)
    schedule = FixedRate(rate, 1) if rate else Rhythm(exchange.instruments, activity, 1)
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
    if make is Okx:
        rows = [row for message in found if topic_of(message) == TRADES[make] for row in message["data"]]
        return [int(row["tradeId"]) - back for row in rows for back in reversed(range(int(row["count"])))]
    return [row["i"] for message in found if "Trade" in message["topic"] for row in message["data"]]


@pytest.mark.parametrize("make", TRADES)
@pytest.mark.parametrize("rate", [0.0, 500.0], ids=["rhythm", "known rate"])
def test_every_trade_is_sent_once_and_in_order(make, rate):
    world, exchange = play(make, TRADES[make], QUOTES[make], rate=rate)
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
    if make in (Binance, Okx):
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


# Books.


def base_of(world: World, exchange: Exchange, topic: str) -> dict:
    """What a subscriber begins with: an answer of REST, or what it is sent first."""
    now = Now(world.now_ns, world.now_ns)
    if topic and type(exchange) in WITH_SNAPSHOTS:
        stream = world.broadcast.find(topic) or exchange.stream(topic)
        return json.loads(exchange.snapshot(stream, 0, now))
    path, _, query = DEPTH_ENDPOINTS[type(exchange)].partition("?")
    answer = exchange.rest(HttpRequest(method="GET", path=path, query=parse_qsl(query)), now)
    assert answer.status == 200
    return json.loads(answer.body)


def follow(world: World, book: KeptBook, topic: str) -> int:
    """Apply what has come; returns how many messages were new."""
    seen = [json.loads(text) for _, text in world.seen]
    world.seen.clear()
    mine = [m for m in seen if m.get("e") == "depthUpdate" or topic_of(m) == topic]
    return sum(book.apply(message) for message in mine)


def is_newest(stream: DataStream) -> bool:
    """Whether all that has happened was sent."""
    sent = stream.source.update_id if isinstance(stream.source, WindowSource) else stream.source.last_id
    return sent == stream.instrument.update_id


@pytest.mark.long
@pytest.mark.parametrize("make", BOOKS)
@pytest.mark.parametrize("rate", [0.0, 500.0], ids=["rhythm", "known rate"])
def test_a_book_that_is_kept_is_the_one_that_is_simulated(make, rate):
    topic = BOOKS[make]
    world, exchange = play(make, QUOTES[make], TRADES[make], rate=rate)
    world.run(0.3)
    book = KeptBook(make)
    if make in WITH_SNAPSHOTS:
        book.begin(base_of(world, exchange, topic))
        world.add(exchange.stream(topic))
    else:
        world.add(exchange.stream(topic))
        world.run(0.25)
        book.begin(base_of(world, exchange, topic))
    stream = world.broadcast.find(topic)
    compared = count = 0
    for step in range(3000):
        world.run(0.001)
        new = follow(world, book, topic)
        count += new
        is_one_of_many = make is Kucoin and not rate and step % 20
        if new and is_newest(stream) and not is_one_of_many:
            if make in WITH_SNAPSHOTS:
                assert book.levels() == truth(stream.instrument, 400 if make is Okx else 200)
            else:
                assert book.known() == truth(stream.instrument, known=book.range)
            compared += 1
    assert count > 20
    assert compared > 10


@pytest.mark.parametrize("make", BOOKS)
def test_a_second_subscriber_begins_where_the_stream_is(make):
    topic = BOOKS[make]
    world, exchange = play(make, topic)
    world.run(0.512)
    book = KeptBook(make)
    book.begin(base_of(world, exchange, topic))
    world.seen.clear()
    if make not in WITH_SNAPSHOTS:  # what a subscriber would have kept before it asked
        book.update_id = world.broadcast.find(topic).source.last_id
    world.run(1.0)
    assert follow(world, book, topic) > 5


@pytest.mark.parametrize("make", BOOKS)
@pytest.mark.parametrize("how", ["is_lost", "is_muted", "lost_messages", "pause"])
def test_what_is_kept_back_leaves_a_gap(make, how):
    topic = BOOKS[make]
    world, _ = play(make, topic)
    stream = world.broadcast.find(topic)
    world.run(0.5)
    last_id = getattr(stream.source, "last_id", 0) or stream.source.message_id
    if make is Okx:
        last_id = stream.source.sequence
    world.seen.clear()
    book = KeptBook(make)
    book.update_id, book.is_chained = last_id, True
    if how == "pause":
        for _ in range(300):
            world.now_ns += NS_PER_S // 1000
            world.broadcast.pause(Now(world.now_ns, world.now_ns))
    else:
        setattr(stream, how, 1)
        world.run(0.3)
        setattr(stream, how, 0)
    with pytest.raises(GapError):
        for _ in range(1000):
            follow(world, book, topic)
            world.run(0.001)


def test_ids_of_quotes_and_of_depth_are_of_one_count():
    """Of each quote: the newest that is no newer than a depth event is that event's best."""
    world, exchange = play(Binance, "btcusdt@bookTicker", "btcusdt@depth@100ms")
    book = KeptBook(Binance)
    book.begin(base_of(world, exchange, ""))
    quotes: dict[int, tuple] = {}
    compared = 0
    for _ in range(20):
        world.run(0.1)
        for message in [json.loads(text) for _, text in world.seen]:
            if "u" in message and "e" not in message:
                quotes[message["u"]] = tuple(map(Decimal, (message[name] for name in "bBaA")))
                continue
            book.apply(message)
            [bid], [ask] = book.best()
            newest = max((u for u in quotes if u <= message["u"]), default=0)
            if newest:
                assert quotes[newest] == (*bid, *ask)
                compared += 1
        world.seen.clear()
    assert compared > 10


def test_the_quote_of_level1_is_the_best_of_level2():
    calm = Activity(busiest_per_s=100)  # the best price stays within the base
    topics = ("/market/level2:BTC-USDT", "/spotMarket/level1:BTC-USDT")
    world, exchange = play(Kucoin, *topics, activity=calm)
    book = KeptBook(Kucoin)
    book.begin(base_of(world, exchange, ""))
    compared = 0
    for _ in range(3000):
        world.run(0.001)
        for message in [json.loads(text) for _, text in world.seen]:
            if "level2" in message["topic"]:
                book.apply(message)
                continue
            [bid], [ask] = book.best()
            assert [bid, ask] == [tuple(map(Decimal, message["data"][side])) for side in ("bids", "asks")]
            compared += 1
        world.seen.clear()
    assert compared > 100


def test_a_message_of_kucoin_has_several_sequences_also_of_what_no_level_shows():
    world, _ = play(Kucoin, "/market/level2:BTC-USDT")
    world.run(2.0)
    seen = [message["data"] for message in messages(world)]
    assert any(each["sequenceEnd"] > each["sequenceStart"] for each in seen)
    changes = [change for each in seen for side in each["changes"].values() for change in side]
    assert any(price == "0" for price, _, _ in changes)
    for each in seen:
        sequences = sorted(int(sequence) for side in each["changes"].values() for _, _, sequence in side)
        assert sequences == list(range(each["sequenceStart"], each["sequenceEnd"] + 1))


@pytest.mark.parametrize("make", [Binance, Bybit])
def test_levels_are_removed_that_nobody_has_seen(make):
    """They came and went between two messages, or lie beyond the base."""
    world, exchange = play(make)
    topic = BOOKS[make] if make is Binance else "orderbook.1000.BTCUSDT"
    book = KeptBook(make)
    stream = exchange.stream(topic)
    book.begin(base_of(world, exchange, topic))
    world.add(stream)
    world.run(3.0)
    follow(world, book, topic)
    assert (book.removed_unknown > 0) == (make is Binance)


WHOLE = {
    "btcusdt@depth20@100ms": Binance,
    "btcusdt@depth5": Binance,
    "/spotMarket/level2Depth50:BTC-USDT": Kucoin,
    "/spotMarket/level2Depth5:BTC-USDT": Kucoin,
}


@pytest.mark.parametrize("topic", WHOLE)
def test_best_levels_come_whole_by_the_clock_when_something_has_changed(topic):
    world, exchange = play(WHOLE[topic], topic)
    instrument = exchange.by_symbol[SYMBOLS[WHOLE[topic]]]
    depth = int(re.search(r"[dD]epth(\d+)", topic)[1])
    every_ns = NS_PER_S if topic.endswith("depth5") else NS_PER_S // 10
    compared = 0
    for _ in range(2500):
        world.run(0.001)
        for at_ns, text in world.seen:
            data = json.loads(text)
            data = data.get("data", data)
            bids, asks = truth(instrument, depth)
            assert at_ns == world.now_ns
            assert [tuple(map(Decimal, level)) for level in data["bids"]] == bids
            assert [tuple(map(Decimal, level)) for level in data["asks"]] == asks
            compared += 1
        world.seen.clear()
    assert compared == pytest.approx(2.5 * NS_PER_S / every_ns, abs=1)


def test_a_whole_frame_can_come_twice():
    topic = "/spotMarket/level2Depth50:BTC-USDT"
    world, _ = play(Kucoin, topic)
    world.broadcast.tamper(copies=2, delay=0, symbol_topics={topic})
    world.run(0.5)
    texts = [text for _, text in world.seen]
    assert sum(earlier == later for earlier, later in pairwise(texts)) == 2


@pytest.mark.parametrize("make", [Binance, Kucoin])
@pytest.mark.parametrize("delay", [0, 3])
def test_a_delta_that_comes_again_is_old(make, delay):
    topic = BOOKS[make]
    world, exchange = play(make, topic)
    book = KeptBook(make)
    book.begin(base_of(world, exchange, topic))
    world.broadcast.tamper(copies=5, delay=delay, symbol_topics={topic})
    world.run(2.0)
    seen = len(world.seen)
    assert follow(world, book, topic) == seen - 5
    assert book.known() == truth(exchange.by_symbol[SYMBOLS[make]], known=book.range) or not is_newest(
        world.broadcast.find(topic)
    )


def test_a_quiet_symbol_sends_no_depth():
    exchange = Binance(40, 1)
    quiet = Activity(busiest_per_s=1, busy_symbols=1, quietest_s=86_400)
    world = World(Rhythm(exchange.instruments, quiet, 1), exchange.instruments)
    symbol = next(s.lower() for s, each in exchange.by_symbol.items() if each.index == 39)
    for kind in ("depth20@100ms", "depth@100ms", "trade"):
        world.add(exchange.stream(f"{symbol}@{kind}"))
    world.run(60.0, tick_ms=20)
    assert world.seen == []


def test_a_restart_of_bybits_service_begins_with_a_snapshot_of_number_one():
    topic = "orderbook.50.BTCUSDT"
    world, exchange = play(Bybit, topic, "orderbook.1.BTCUSDT")
    world.run(0.3)
    world.seen.clear()
    assert not exchange.restart_book(world.broadcast.find("orderbook.1.BTCUSDT"))
    assert exchange.restart_book(world.broadcast.find(topic))
    world.run(0.3)
    while not is_newest(world.broadcast.find(topic)):
        world.run(0.001)
    seen = [message for message in messages(world) if message["topic"] == topic]
    assert (seen[0]["type"], seen[0]["data"]["u"]) == ("snapshot", 1)
    assert [message["type"] for message in seen[1:]] == ["delta"] * (len(seen) - 1)
    assert [message["data"]["u"] for message in seen] == list(range(1, len(seen) + 1))
    book = KeptBook(Bybit)
    for message in seen:
        book.apply(message)
    assert book.levels() == truth(exchange.by_symbol["BTCUSDT"], 50)


def test_a_thin_book_is_followed_through_empty_sides():
    topic = "orderbook.50.THINLYUSDT"
    world, exchange = play(Bybit)
    book = KeptBook(Bybit)
    book.begin(base_of(world, exchange, topic))
    world.add(exchange.stream(topic))
    stream = world.broadcast.find(topic)
    empty = 0
    for _ in range(5000):
        world.run(0.001)
        if follow(world, book, topic) and is_newest(stream):
            assert book.levels() == truth(stream.instrument, 50)
            empty += not book.bids or not book.asks
    assert empty > 0


def test_bybits_messages_go_on_counting_while_nobody_is_subscribed():
    topic = "orderbook.50.BTCUSDT"
    world, exchange = play(Bybit, topic)
    world.run(0.3)
    world.broadcast.remove(topic, world.box)
    before = messages(world)[-1]["data"]["u"]
    world.seen.clear()
    world.run(0.1)
    base = base_of(world, exchange, topic)
    assert base["data"]["u"] > before + 1
    world.add(exchange.stream(topic))
    world.run(0.1)
    assert messages(world)[0]["data"]["u"] == base["data"]["u"] + 1


def test_what_would_have_sent_nothing_is_no_lost_message():
    """A change behind the best 50 levels is none of this channel's."""
    topic = "orderbook.50.BTCUSDT"
    world, _ = play(Bybit, topic, activity=Activity(busiest_per_s=50))
    stream = world.broadcast.find(topic)
    world.run(1.0)
    for _ in range(300):
        before = messages(world)[-1]["data"]["u"]
        world.seen.clear()
        stream.lost_messages = 1
        while not world.seen:
            world.run(0.02)
        assert messages(world)[0]["data"]["u"] == before + 2
    assert world.broadcast.effects["lose_messages"] == 300


def test_a_snapshot_of_kucoin_lags_behind_its_stream():
    world, exchange = play(Kucoin, "/market/level2:BTC-USDT")
    lags = []
    for _ in range(75):
        world.run(0.02)
        base = base_of(world, exchange, "")["data"]
        lags.append(exchange.by_symbol["BTC-USDT"].update_id - int(base["sequence"]))
    assert max(lags) > 100
    assert min(lags) < 60
    assert sum(later < earlier for earlier, later in pairwise(lags)) == 2, "a new one every half second"


@pytest.mark.parametrize("make", DEPTH_ENDPOINTS)
def test_rest_can_be_made_to_have_old_books(make):
    world, exchange = play(make, BOOKS[make])
    world.run(0.7)
    exchange.keep_books(Now(world.now_ns, world.now_ns))
    old = base_of(world, exchange, "")
    world.run(0.7)
    again = base_of(world, exchange, "")
    assert again == old
    exchange.old_books.clear()
    assert base_of(world, exchange, "") != old


# Trades and books alike.


def test_who_left_costs_nothing_more():
    world, exchange = play(Binance, "btcusdt@trade", "btcusdt@bookTicker")
    book = exchange.by_symbol["BTCUSDT"].order_book()
    assert len(book.fill_logs) == 2, "the instrument's own, and that of the stream"
    world.broadcast.remove("btcusdt@trade", world.box)
    assert len(book.fill_logs) == 1
    world.add(exchange.stream("btcusdt@trade"))
    assert len(book.fill_logs) == 2
    for topic in ("btcusdt@depth", "btcusdt@depth@100ms"):
        world.add(exchange.stream(topic))
        world.broadcast.remove(topic, world.box)
    assert book.change_logs == []


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
