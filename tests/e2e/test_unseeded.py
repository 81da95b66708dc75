"""An exchange that no seed plays: all kinds of its, from the simulator to a subscriber, by real processes."""

import json
import threading
import time
import urllib.request
from itertools import pairwise

import pytest
from harness import PATIENCE_S, Stack, wait_until
from test_whole_books import SHOWN, Seen, pair

from feedhandler.client import Depth, Subscriber, Ticker, Trade
from feedhandler.data import wire

KINDS = ("ticker", "trade", "depth", "book")
SYMBOLS = ("BTC/USDT", "ETH/USDT")
BOOK = "books:BTC-USDT"


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    stack = Stack(
        tmp_path_factory.mktemp("unseeded"),
        exchanges=("okx",),
        extra=f"kinds = {json.dumps(KINDS)}",
        sim="busiest_per_s = 20",
        symbols=SYMBOLS,
    )
    stack.start()
    wait_until(lambda: stack.is_simulated("okx"), "the simulator")
    yield stack
    stack.close()


class Reference:
    """The book of REST at its ids."""

    def __init__(self, stack):
        self.at = {}
        self._url = (
            f"http://127.0.0.1:{stack.ports['okx']}/api/v5/market/books?instId=BTC-USDT&sz=400&source=0"
        )
        self._is_stopping = False
        self._thread = threading.Thread(target=self._ask, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc):
        self._is_stopping = True
        self._thread.join(PATIENCE_S)

    def _ask(self):
        while not self._is_stopping:
            time.sleep(0.15)
            with urllib.request.urlopen(self._url, timeout=PATIENCE_S) as answer:
                [row] = json.load(answer)["data"]
            self.at[row["seqId"]] = tuple(
                [pair(level) for level in row[side][:SHOWN]] for side in ("bids", "asks")
            )


def test_all_kinds_of_each_symbol_come(stack):
    with Subscriber(
        stack.endpoint, ["ticker.okx.", "trade.okx.", "depth.okx."], recover=stack.recover
    ) as reader:
        missing = {f"{kind}.okx.{symbol}" for kind in ("ticker", "trade", "depth") for symbol in SYMBOLS}
        ids = {symbol: [] for symbol in SYMBOLS}
        deadline = time.monotonic() + PATIENCE_S
        while missing or min(map(len, ids.values())) < 10:
            assert time.monotonic() < deadline, (missing, ids)
            record = reader.receive(1.0)
            if isinstance(record, Ticker) and record.is_live:
                has_all = record.bid > 0 and record.last > 0 and record.high_24h >= record.low_24h > 0
                if has_all and record.base_volume_24h > 0 and record.quote_volume_24h > 0:
                    assert record.bid < record.ask
                    missing.discard(record.topic)
            elif isinstance(record, Trade):
                ids[record.symbol].append((int(record.trade_id), record.count))
                missing.discard(record.topic)
            elif isinstance(record, Depth) and record.is_live and len(record.bids) == len(record.asks) == 20:
                missing.discard(record.topic)
        for found in ids.values():
            assert all(last - count == before for (before, _), (last, count) in pairwise(found)), (
                "none is missing"
            )
    assert stack.sim_state("okx")["violations"] == []


def test_a_book_is_the_simulated_one_also_after_a_change_was_lost(stack):
    with Reference(stack) as reference, Seen(stack, "okx") as seen:
        seen.read(lambda: seen.book.is_valid, "valid")
        seen.agree(reference)
        stack.fault("okx", "lose_messages", topic=BOOK, count=2)
        seen.read(lambda: any(flags & wire.INVALID for flags in seen.conditions), "INVALID")
        seen.read(lambda: seen.book.is_valid, "valid again")
        seen.agree(reference, seen.book.last_id)


def test_a_book_whose_ids_begin_anew_stays_valid(stack):
    with Seen(stack, "okx") as seen:
        seen.read(lambda: seen.book.is_valid, "valid")
        stack.fault("okx", "restart_books", symbol="BTC-USDT")
        seen.read(lambda: seen.book.is_valid and seen.book.last_id < 10**5, "lower ids")
        with Reference(stack) as reference:
            seen.agree(reference)
        assert not any(flags & wire.INVALID for flags in seen.conditions)


def test_without_snapshots_books_begin_with_those_of_rest(stack):
    stack.fault("okx", "no_snapshots")
    stack.fault("okx", "close", code=1001)
    with Reference(stack) as reference, Seen(stack, "okx") as seen:
        seen.read(lambda: seen.book.is_valid and seen.at, "valid")
        seen.agree(reference)
    stack.fault("okx", "none")


def test_a_close_that_is_announced_costs_a_connection_and_nothing_else(stack):
    with Seen(stack, "okx") as seen:
        seen.read(lambda: seen.book.is_valid, "valid")
        before = stack.sim_state("okx")["connections_opened"]
        stack.fault("okx", "server_shutdown", seconds=2.0)
        wait_until(lambda: stack.sim_state("okx")["connections_opened"] > before, "another connection")
        seen.at.clear()
        seen.read(lambda: seen.book.is_valid and len(seen.at) > 3, "valid again")
    state = stack.sim_state("okx")
    assert state["violations"] == []
    assert state["fault_effects"]["server_shutdown"] >= 1
