"""Books from the simulated exchanges to a subscriber, by real processes: the simulated ones, or not valid."""

import asyncio
import json
import math
import threading
import time
import urllib.request

import aiohttp
import pytest
from harness import PATIENCE_S, Stack, wait_until

from feedhandler.client import Condition, Subscriber
from feedhandler.data import wire

pytestmark = pytest.mark.e2e
TOPICS = {
    "binance": "btcusdt@depth@100ms",
    "kucoin": "/market/level2:BTC-USDT",
    "bybit": "orderbook.200.BTCUSDT",
    "okx": "books:BTC-USDT",
}
EXCHANGES = tuple(TOPICS)
PATHS = {
    "binance": "/api/v3/depth?symbol=BTCUSDT&limit=100",
    "kucoin": "/api/v1/market/orderbook/level2_100?symbol=BTC-USDT",
    "okx": "/api/v5/market/books?instId=BTC-USDT&sz=100&source=0",
}
AGREEMENTS_MIN = 3
SHOWN = 100  # levels a side that are compared
KNOWN_MIN = 10  # levels a side, for a comparison: what lies beyond is there once it has changed


class Reference:
    """The simulated book at some of its ids, as others get it: from REST, or as a client of Bybit's keeps it."""

    def __init__(self, stack, exchange):
        self.exchange, self.at = exchange, {}
        self._url = f"127.0.0.1:{stack.ports[exchange]}"
        self._is_stopping = False
        run = self._follow if exchange == "bybit" else self._ask
        self._thread = threading.Thread(target=run, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._is_stopping = True
        self._thread.join(PATIENCE_S)

    def _ask(self):
        while not self._is_stopping:
            time.sleep(0.15)
            try:
                with urllib.request.urlopen(f"http://{self._url}{PATHS[self.exchange]}") as response:
                    answer = json.load(response)
            except OSError:
                continue  # a fault, or it is too much at a time
            answer = answer.get("data", answer)
            answer = answer[0] if isinstance(answer, list) else answer
            number = int(answer.get("lastUpdateId") or answer.get("sequence") or answer["seqId"])
            self.at[number] = tuple(
                [pair(level) for level in answer[side][:SHOWN]] for side in ("bids", "asks")
            )

    def _follow(self):
        asyncio.run(self._keep())

    async def _keep(self):
        sides = {"b": {}, "a": {}}
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"ws://{self._url}/v5/public/spot") as ws,
        ):
            await ws.send_json({"op": "subscribe", "args": [TOPICS["bybit"]]})
            while not self._is_stopping:
                try:
                    message = await ws.receive(timeout=0.5)
                except TimeoutError:
                    continue
                if message.type is not aiohttp.WSMsgType.TEXT:
                    return  # a fault: what there is remains
                frame = message.json()
                if "data" not in frame:
                    continue
                data = frame["data"]
                for name, levels in sides.items():
                    if frame["type"] == "snapshot":
                        levels.clear()
                    levels.update(map(pair, data[name]))
                    for price in [price for price, size in levels.items() if not size]:
                        del levels[price]
                bids = sorted(sides["b"].items(), reverse=True)[:SHOWN]
                self.at[data["u"]] = bids, sorted(sides["a"].items())[:SHOWN]


def pair(level):
    return float(level[0]), float(level[1])


class Seen:
    """What a subscriber's book was at each id."""

    def __init__(self, stack, exchange, **settings):
        self.topic = f"book.{exchange}.BTC/USDT"
        self.subscriber = Subscriber(stack.endpoint, [self.topic], recover=stack.recover, **settings)
        self.at, self.conditions = {}, []

    def __enter__(self):
        self.subscriber.__enter__()
        return self

    def __exit__(self, *exc):
        self.subscriber.__exit__(*exc)

    @property
    def book(self):
        return self.subscriber.book(self.topic)

    def read(self, condition, what):
        """Read until the condition holds."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"{what}: {self.book!r}"
            record = self.subscriber.receive(0.5)
            if isinstance(record, Condition):
                self.conditions.append(record.flags)
            book = self.book
            if record is not None and book.is_valid:
                bids = [level for level in book.bids[:SHOWN] if level[0] >= book.known_from]
                asks = [level for level in book.asks[:SHOWN] if level[0] <= book.known_to]
                if min(len(bids), len(asks)) >= KNOWN_MIN:
                    self.at[book.last_id] = bids, asks

    def agree(self, reference, since=0):
        """Compare what both know, until that is enough; levels that the base did not have are left out."""

        def common():
            return [number for number in reference.at.keys() & self.at.keys() if number > since]

        self.read(lambda: len(common()) >= AGREEMENTS_MIN, "ids that both have")
        for number in common():
            for ours, theirs in zip(self.at[number], reference.at[number], strict=True):
                count = min(len(ours), 50)
                assert ours[:count] == theirs[:count], number


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    stack = Stack(
        tmp_path_factory.mktemp("books"),
        exchanges=EXCHANGES,
        extra='kinds = ["book"]',
        sim="busiest_per_s = 20",
        symbols=("BTC/USDT", "ETH/USDT"),
    )
    stack.start()
    wait_until(lambda: all(map(stack.is_simulated, EXCHANGES)), "the simulator")
    yield stack
    stack.close()


def feed(stack, exchange):
    return stack.status()["exchanges"][exchange]["feed"]


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_book_is_the_simulated_one(stack, exchange):
    with Reference(stack, exchange) as reference, Seen(stack, exchange) as seen:
        seen.read(lambda: seen.book.is_valid, "valid")
        seen.agree(reference)
        best = seen.book.best
        assert 0 < best.bid < best.ask
        assert len(seen.book.bids) >= 90
        assert seen.book.is_simulated


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_book_that_lost_a_change_is_invalid_and_right_again(stack, exchange):
    with Seen(stack, exchange) as seen:
        seen.read(lambda: seen.book.is_valid, "valid")
        stack.fault(exchange, "lose_messages", topic=TOPICS[exchange], count=2)
        seen.read(lambda: any(flags & wire.INVALID for flags in seen.conditions), "INVALID")
        seen.read(lambda: seen.book.is_valid, "valid again")
        last_id = seen.book.last_id
        with Reference(stack, exchange) as reference:
            seen.agree(reference, last_id)
        assert not any(flags & (wire.STALE | wire.DOWN) for flags in seen.conditions)


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_book_that_stays_crossed_is_invalid_until_it_has_begun_anew(stack, exchange):
    with Seen(stack, exchange) as seen:
        seen.read(lambda: seen.book.is_valid, "valid")
        asked_at = -math.inf

        def is_invalid():
            nonlocal asked_at
            if (
                time.monotonic() - asked_at > 5
            ):  # the market may move past the level within a second: then once more
                asked_at = time.monotonic()
                stack.fault(exchange, "cross_book", topic=TOPICS[exchange])
            return any(flags & wire.INVALID for flags in seen.conditions)

        seen.read(is_invalid, "INVALID")
        # The level that crossed it may be in what follows the new base, since the exchange did send it.
        seen.read(lambda: seen.book.is_valid and seen.book.best.bid < seen.book.best.ask, "valid again")


@pytest.mark.parametrize("exchange", ["binance", "kucoin"])
def test_without_rest_books_wait_and_the_status_says_so(stack, exchange):
    with Seen(stack, exchange) as seen:
        seen.read(lambda: seen.book.is_valid, "valid")
        wait_until(lambda: feed(stack, exchange)["books_valid"] == 2, "the other one, too")
        stack.fault(exchange, "http_status", status=503, seconds=15.0)
        stack.fault(exchange, "lose_messages", topic=TOPICS[exchange], count=2)
        seen.read(lambda: not seen.book.is_valid, "INVALID")
        told = wait_until(lambda: (f := feed(stack, exchange))["books_waiting"] and f, "waiting")
        assert (told["books_valid"], told["books_waiting"]) == (1, 1)
        named = wait_until(lambda: feed(stack, exchange)["invalid_topics"], "its name")
        assert list(named) == [f"book.{exchange}.{'BTCUSDT' if exchange == 'binance' else 'BTC-USDT'}"]
        seen.read(lambda: seen.book.is_valid, "valid again")
    wait_until(lambda: not feed(stack, exchange)["books_waiting"], "none waits")


@pytest.mark.parametrize("exchange", ["binance", "kucoin"])
def test_bases_that_are_older_than_what_is_kept_are_not_taken(stack, exchange):
    with Reference(stack, exchange) as reference, Seen(stack, exchange) as seen:
        seen.read(lambda: seen.book.is_valid, "valid")
        stack.fault(exchange, "old_books", seconds=3.0)
        stack.fault(exchange, "lose_messages", topic=TOPICS[exchange], count=2)
        seen.read(lambda: any(flags & wire.INVALID for flags in seen.conditions), "INVALID")
        seen.read(lambda: seen.book.is_valid, "valid again")
        seen.agree(reference, seen.book.last_id)


def test_bybit_s_restart_is_another_base(stack):
    with Seen(stack, "bybit") as seen:
        seen.read(lambda: seen.book.is_valid and seen.book.last_id > 30, "valid")
        stack.fault("bybit", "restart_books", symbol="BTCUSDT")
        seen.read(lambda: seen.book.last_id < 30, "a new count")
        assert seen.book.is_valid
        assert seen.conditions == []


def test_okx_s_ids_that_go_on_lower_are_another_base(stack):
    with Seen(stack, "okx") as seen:
        seen.read(lambda: seen.book.is_valid, "valid")
        before = seen.book.last_id
        stack.fault("okx", "restart_books", symbol="BTC-USDT")
        seen.read(lambda: seen.book.last_id < before, "lower ids")
        assert seen.book.is_valid
        assert seen.conditions == []
        seen.at.clear()
        with Reference(stack, "okx") as reference:
            seen.agree(reference)


def test_okx_s_books_begin_over_rest_where_no_snapshot_comes(stack):
    stack.fault("okx", "no_snapshots", seconds=20.0)
    stack.fault("okx", "close")
    with Seen(stack, "okx") as seen, Reference(stack, "okx") as reference:
        seen.read(lambda: seen.book.is_valid, "valid")
        seen.agree(reference, seen.book.last_id)
        seen.conditions.clear()
        stack.fault("okx", "lose_messages", topic=TOPICS["okx"], count=2)
        seen.read(lambda: any(flags & wire.INVALID for flags in seen.conditions), "INVALID")
        seen.read(lambda: seen.book.is_valid, "valid again")
        seen.agree(reference, seen.book.last_id)


def test_a_feed_that_is_killed_leaves_books_that_are_down_and_its_successor_begins_anew(stack):
    for exchange in EXCHANGES:
        with Seen(stack, exchange) as seen:
            seen.read(lambda: seen.book.is_valid, "valid")
            stack.kill(exchange)
            seen.read(lambda: not seen.book.is_valid, "DOWN")
            assert seen.book.bids[:] == []
            stack.start(exchange)
            seen.read(lambda: seen.book.is_valid, "valid again")
            with Reference(stack, exchange) as reference:
                seen.agree(reference, seen.book.last_id)


def test_a_merger_that_is_started_anew_gets_all_books(stack):
    stack.kill("merger")
    stack.start("merger")
    for exchange in EXCHANGES:
        with Seen(stack, exchange) as seen:
            seen.read(lambda: seen.book.is_valid, "valid")


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_relay_that_is_killed_has_all_books_again_soon(stack, exchange):
    """Its successor requests them: the merger's file has no snapshot any more, and the next one is minutes away."""
    with Seen(stack, exchange) as seen:
        seen.read(lambda: seen.book.is_valid, "valid")
        seen.conditions.clear()
        first = seen.book.sequence
        seen.read(lambda: seen.book.is_valid and seen.book.sequence > first + 150, "more than the file has")
        stack.kill("relay")
        stack.start("relay")
        before = time.monotonic()
        with Seen(stack, exchange) as late:
            late.read(lambda: late.book.is_valid, "valid for who joins late")
            assert time.monotonic() - before < PATIENCE_S
            with Reference(stack, exchange) as reference:
                late.agree(reference, late.book.last_id)
        seen.read(lambda: seen.book.is_valid, "still valid")
        assert seen.conditions == []
