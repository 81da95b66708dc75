"""A subscriber for which nothing comes says why on the log, once, and goes on."""

import asyncio
import logging
import time

import msgspec
import pytest
from patience import PATIENCE_S
from publishing import BTC, Publisher, document, heartbeat, ticker

from feedhandler.client import AsyncSubscriber, Board, Subscriber, arrays, silence
from feedhandler.data import wire
from feedhandler.data.status import ExchangeStatus, FeedStatus


@pytest.fixture(autouse=True)
def soon(monkeypatch):
    monkeypatch.setattr(silence, "LOGS_AFTER_S", 0.3)


@pytest.fixture
def endpoint(tmp_path):
    return f"ipc://{tmp_path}/ticks.ipc"


def status(exchange="binance", state="live", wanted=("BTC/USDT", "ETH/USDT"), **rejected):
    feed = FeedStatus(
        exchange=exchange,
        pid=1,
        started_ns=1,
        wanted={symbol: ["ticker"] for symbol in wanted},
        rejected={symbol: {"ticker": why} for symbol, why in rejected.items()},
    )
    body = msgspec.json.encode(ExchangeStatus(exchange=exchange, state=state, since_ns=1, feed=feed))
    return document(f"status.{exchange}", wire.STATUS, body)


def told(caplog):
    return [record.getMessage() for record in caplog.records if record.name == "feedhandler.client"]


def read_until(subscriber, condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        subscriber.receive(0.02)


@pytest.mark.parametrize(
    ("topic", "why"),
    [
        ("ticker.binance.BTC/USDD", "did you mean 'ticker.binance.BTC/USDT'?"),
        ("ticker.binance.btc/usdt", "did you mean 'ticker.binance.BTC/USDT'?"),
        ("ticker.binanec.BTC/USDT", "of no 'binanec'; did you mean 'ticker.binance.BTC/USDT'?"),
        ("ticker.kraken.", "the merger knows of binance, kucoin, and of no 'kraken'"),
        ("ticker.binance.LUNA/USDT", "binance does not have it: delisted"),
        ("ticker.binance.DOGE/EUR", "is it wanted? `feedhandler subscribe binance DOGE/EUR`"),
        ("trade.binance.BTC/USDT", "is it wanted? `feedhandler subscribe binance BTC/USDT --kind trade`"),
        ("trade.binance.LUNA/USDT", "is it wanted? `feedhandler subscribe binance LUNA/USDT --kind trade`"),
        ("ticker.kucoin.BTC/USDT", "kucoin is connecting"),
        ("ticker.kuc", ""),
        ("ticker.", ""),
    ],
)
def test_the_reason_names_what_is_meant(topic, why):
    statuses = silence.statuses_in([wire.unpack(status(**{"LUNA/USDT": "delisted"}))])
    states = {"binance": "live", "kucoin": "connecting"}
    found = silence.reason(topic, states, statuses)
    assert found.endswith(why)
    assert bool(found) == bool(why)


def test_that_nobody_listens_is_told_once_with_the_remedy(endpoint, caplog):
    with Subscriber(endpoint, ["ticker."]) as subscriber:
        read_until(subscriber, lambda: told(caplog))
        for _ in range(30):
            subscriber.receive(0.02)
    assert told(caplog) == [
        f"nothing has come in 0.3 s: there is no publisher at {endpoint}; start one with `feedhandler run`"
    ]


def test_a_relative_endpoint_is_told_with_the_place_that_it_means(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    with Subscriber("ipc://run/ticks.ipc", ["ticker."]) as subscriber:
        read_until(subscriber, lambda: told(caplog))
    assert f"which from here is {tmp_path}/run/ticks.ipc" in told(caplog)[0]


def test_an_asynchronous_subscriber_says_it_too(endpoint, caplog):
    async def main():
        async with AsyncSubscriber(endpoint, ["ticker."]) as subscriber:
            async with asyncio.timeout(PATIENCE_S):
                while not told(caplog):
                    assert await subscriber.receive(0.05) is None

    asyncio.run(main())
    assert "no publisher at" in told(caplog)[0]


def test_and_one_for_arrays(endpoint, caplog):
    with arrays.ArraySubscriber(endpoint, ["ticker."]) as subscriber:
        deadline = time.monotonic() + PATIENCE_S
        while not told(caplog):
            assert time.monotonic() < deadline
            subscriber.receive(timeout_s=0.05)
    assert "no publisher at" in told(caplog)[0]


def test_a_topic_that_nothing_begins_with_is_told_by_what_the_merger_has(endpoint, caplog, monkeypatch):
    # until the merger has been heard, however long that takes
    monkeypatch.setattr(silence, "LOGS_AFTER_S", PATIENCE_S)
    monkeypatch.setattr(silence, "STATUSES_S", PATIENCE_S)
    publisher = Publisher(endpoint)

    def publish():
        publisher.send(heartbeat(binance="live"), status())

    try:
        with Subscriber(endpoint, ["ticker.binance.BTC/USDD"]) as subscriber:
            read_until(subscriber, lambda: publish() or subscriber._stream.heartbeat)
            monkeypatch.setattr(silence, "LOGS_AFTER_S", 0.3)
            read_until(subscriber, lambda: publish() or told(caplog))
            publisher.send(ticker(1, topic="ticker.binance.BTC/USDD"))
            assert subscriber.receive(PATIENCE_S).symbol == "BTC/USDD", "and it goes on"
    finally:
        publisher.close()
    assert told(caplog) == [
        "nothing has come in 0.3 s: no topic begins with 'ticker.binance.BTC/USDD': binance is live: is it wanted?"
        " `feedhandler subscribe binance BTC/USDD`; did you mean 'ticker.binance.BTC/USDT'?"
    ]


def test_who_has_had_something_is_told_nothing(endpoint, caplog):
    publisher = Publisher(endpoint)
    try:
        with Subscriber(endpoint, ["ticker."]) as subscriber:
            publisher.wait_for(subscriber, b"ticker.")
            publisher.send(ticker(1, topic=BTC))
            assert subscriber.receive(PATIENCE_S) is not None
            for _ in range(30):
                subscriber.receive(0.02)
    finally:
        publisher.close()
    assert told(caplog) == []


def test_who_does_something_else_meanwhile_has_not_waited(endpoint, monkeypatch, caplog):
    caplog.set_level(logging.WARNING)
    monkeypatch.setattr(silence, "WAITS_S", 0.0)  # each look is a first one
    with Subscriber(endpoint, ["ticker."]) as subscriber:
        for _ in range(30):
            subscriber.receive(0.02)
    assert told(caplog) == []


def test_a_run_dir_without_boards_is_told_with_the_place_that_it_means(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    with Board("run") as board, pytest.raises(KeyError, match="`board = true` in its configuration"):
        board["ticker.binance.BTC/USDT"]
    assert told(caplog) == [
        f"there is no board in {tmp_path}/run/board yet: is a feed running, with this run_dir and `board = true`"
        " in its configuration?"
    ]
