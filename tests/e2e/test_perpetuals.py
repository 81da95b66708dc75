"""A perpetual beside its spot pair: one feed, two markets of one exchange, all kinds at a subscriber."""

import contextlib
import json
import math
import time

from harness import Stack, wait_until

from feedhandler.client import Subscriber
from feedhandler.data import wire

KINDS = ("ticker", "trade", "depth", "book", "contract", "liquidation")
SPOT, PERPETUAL = "BTC/USDT", "BTC/USDT:USDT"
EXTRA = f"kinds = {json.dumps(KINDS)}"
SIM = "busiest_per_s = 100"


def test_records_of_all_kinds_of_both_markets_come_to_a_subscriber(tmp_path):
    stack = Stack(tmp_path, exchanges=("bybit",), symbols=(SPOT, PERPETUAL), extra=EXTRA, sim=SIM)
    wanted = {(kind, symbol) for kind in KINDS for symbol in (SPOT, PERPETUAL)}
    wanted -= {("contract", SPOT), ("liquidation", SPOT)}
    newest = {}
    with contextlib.closing(stack):
        stack.start("sim", "merger", "relay", "bybit")
        with Subscriber(stack.endpoint, [f"{kind}." for kind in KINDS], recover=stack.recover) as subscriber:
            for record in subscriber:
                if record.kind in (wire.CONDITION, wire.NOTICE) or not record.is_live:
                    continue
                kind, exchange, symbol = record.topic.split(".", 2)
                assert exchange == "bybit"
                newest[kind, symbol] = record
                has_all = isinstance(newest.get(("ticker", PERPETUAL)), wire.Ticker) and all(
                    not math.isnan(getattr(newest["ticker", PERPETUAL], name)) for name in wire.TICKER_VALUES
                )
                if newest.keys() == wanted and has_all:
                    break
            check(newest)
            books = subscriber.books
            assert not books or all(book.best.bid < book.best.ask for book in books.values() if book.is_valid)
        status = stack.status()["exchanges"]["bybit"]["feed"]
        assert status["rejected"] == {}
        assert status["wanted"] == {SPOT: list(KINDS[:4]), PERPETUAL: list(KINDS)}
        assert {connection["market"] for connection in status["connections"]} == {"spot", "linear"}
        assert not any("list" in problem for problem in status["problems"])
        assert sum(connection["decode_errors"] for connection in status["connections"]) == 0
        assert stack.sim_state("bybit")["violations"] == []
        lines = stack.run("tail", "--kind", "contract", "--count", "1", "-c", str(stack.config)).stdout
        assert f"contract.bybit.{PERPETUAL} " in lines
        assert " mark " in lines


def check(newest):
    spot, perpetual = newest["ticker", SPOT], newest["ticker", PERPETUAL]
    assert spot.last != perpetual.last, "each of its own market"
    contract = newest["contract", PERPETUAL]
    assert abs(contract.mark / perpetual.last - 1) < 0.01
    assert abs(contract.index / contract.mark - 1) < 0.01
    assert contract.open_interest > 0
    assert abs(contract.funding_rate) < 0.001
    assert contract.next_funding_ns > contract.recv_ns
    assert contract.funding_interval_h in (1, 4, 8)
    assert math.isnan(contract.predicted_funding_rate), "Bybit states none"
    liquidation = newest["liquidation", PERPETUAL]
    is_long = liquidation.side == wire.Side.SELL
    assert (liquidation.price < perpetual.last * 1.002) == is_long
    assert liquidation.size > 0
    for symbol in (SPOT, PERPETUAL):
        depth = newest["depth", symbol]
        assert depth.bids[0][0] < depth.asks[0][0]
        assert newest["trade", symbol].trade_id


KUCOIN_KINDS = KINDS[:-1]  # it has no channel of liquidations


def test_contracts_of_kucoin_come_in_the_base_asset_beside_spot(tmp_path):
    extra = f"kinds = {json.dumps(KUCOIN_KINDS)}"
    stack = Stack(tmp_path, exchanges=("kucoin",), symbols=(SPOT, PERPETUAL), extra=extra, sim=SIM)
    wanted = {(kind, symbol) for kind in KUCOIN_KINDS for symbol in (SPOT, PERPETUAL)} - {("contract", SPOT)}
    newest = {}
    with contextlib.closing(stack):
        stack.start("sim", "merger", "relay", "kucoin")
        with Subscriber(
            stack.endpoint, [f"{kind}." for kind in KUCOIN_KINDS], recover=stack.recover
        ) as subscriber:
            for record in subscriber:
                if record.kind in (wire.CONDITION, wire.NOTICE) or not record.is_live:
                    continue
                kind, _, symbol = record.topic.split(".", 2)
                newest[kind, symbol] = record
                if newest.keys() == wanted and all(map(is_complete, newest.values())):
                    break
        ticker, contract = newest["ticker", PERPETUAL], newest["contract", PERPETUAL]
        depth = newest["depth", PERPETUAL]
        assert abs(contract.mark / ticker.last - 1) < 0.01
        assert abs(contract.index / contract.mark - 1) < 0.01
        assert abs(contract.predicted_funding_rate) < 0.01
        assert abs(contract.funding_rate) < 0.01
        assert contract.open_interest > 0, "REST has it"
        assert contract.next_funding_ns > contract.recv_ns
        assert contract.funding_interval_h in (1, 4, 8)
        assert abs(ticker.base_volume_24h * ticker.last / ticker.quote_volume_24h - 1) < 0.2, "coins"
        assert depth.bids[0][0] < depth.asks[0][0]
        assert newest["trade", PERPETUAL].size < 100, "coins, and no contracts"
        wait_until(
            lambda: [each["known"] for each in feed_of(stack)["polled"]] == [1], "the status tells of it"
        )
        status = feed_of(stack)
        (polled,) = status["polled"]
        assert (polled["market"], polled["symbols"], polled["late"]) == ("linear", 1, 0)
        assert polled["fields"] == ["open_interest", "next_funding_ns"]
        assert 0 <= time.time_ns() - polled["oldest_ns"] < polled["lasts_s"] * 1e9
        assert status["wanted"] == {SPOT: list(KINDS[:4]), PERPETUAL: list(KUCOIN_KINDS)}
        assert {connection["market"] for connection in status["connections"]} == {"spot", "linear"}
        assert not any("list" in problem for problem in status["problems"])
        assert sum(connection["decode_errors"] for connection in status["connections"]) == 0
        assert stack.sim_state("kucoin")["violations"] == []


def feed_of(stack):
    return stack.status()["exchanges"]["kucoin"]["feed"]


def is_complete(record):
    """All is known that KuCoin has."""
    if isinstance(record, wire.Ticker):
        return not any(math.isnan(getattr(record, name)) for name in wire.TICKER_VALUES)
    if isinstance(record, wire.Contract):
        return not any(
            map(math.isnan, (record.mark, record.index, record.predicted_funding_rate, record.open_interest))
        )
    return True
