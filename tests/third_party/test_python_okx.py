"""python-okx, the SDK for OKX, unmodified but for where it connects, which is without TLS."""

import asyncio
import itertools
import json
from decimal import Decimal

import pytest
from patience import PATIENCE_S

pytest.importorskip("okx", reason="third-party client not installed: pip install -e .[third-party]")

import websockets
from okx import MarketData, PublicData
from okx.websocket.WebSocketFactory import WebSocketFactory
from okx.websocket.WsPublicAsync import WsPublicAsync


def collect(okx, monkeypatch, count: int, *args: dict) -> list[dict]:
    """Subscribe, and return so many messages, acknowledgements among them."""

    async def connect(self):
        self.websocket = await websockets.connect(self.url)
        return self.websocket

    monkeypatch.setattr(WebSocketFactory, "connect", connect)

    async def run() -> list[dict]:
        received: asyncio.Queue = asyncio.Queue()
        client = WsPublicAsync(f"{okx.ws_url}/ws/v5/public")
        consuming = await client.start()
        try:
            async with asyncio.timeout(PATIENCE_S):
                await client.subscribe(list(args), received.put_nowait, id="one")
                return [json.loads(await received.get()) for _ in range(count)]
        finally:
            await client.stop()
            await consuming

    return asyncio.run(run())


def test_public_channels(okx, monkeypatch):
    history = okx.follow("BTC-USDT")
    channels = ("tickers", "bbo-tbt", "books5", "trades", "books")
    args = [{"channel": channel, "instId": "BTC-USDT"} for channel in channels]
    messages = collect(okx, monkeypatch, 200, *args)
    answers = [message for message in messages if "event" in message]
    assert [(each["event"], each["id"], each["arg"]) for each in answers] == [
        ("subscribe", "one", arg) for arg in args
    ]
    rows = {channel: [] for channel in channels}
    for message in messages:
        if "data" in message:
            rows[message["arg"]["channel"]] += message["data"]
    assert all(rows.values())
    for row in rows["tickers"]:
        assert Decimal(row["bidPx"]) < Decimal(row["askPx"])
    for row in rows["trades"][1:]:
        merged = history.merged(int(row["tradeId"]), int(row["count"]))
        assert (float(row["px"]), float(row["sz"]), row["side"]) == merged
    for row in (*rows["books5"], *rows["bbo-tbt"]):
        bids, asks = history.best(row["seqId"], len(row["bids"]))
        assert ([floats(level) for level in row["bids"]], [floats(level) for level in row["asks"]]) == (
            bids,
            asks,
        )
    assert rows["books"][0]["prevSeqId"] == -1
    assert all(b["prevSeqId"] == a["seqId"] for a, b in itertools.pairwise(rows["books"]))
    okx.assert_well_behaved()


def floats(level: list[str]) -> list[float]:
    return [float(text) for text in level[:2]]


def test_a_symbol_that_is_not_listed_is_refused_alone(okx, monkeypatch):
    wrong, right = ({"channel": "tickers", "instId": symbol} for symbol in ("NOPE-USDT", "BTC-USDT"))
    refused, answer, push = collect(okx, monkeypatch, 3, wrong, right)
    assert (refused["event"], refused["code"]) == ("error", "60018")
    assert (answer["arg"], push["arg"]) == (right, right)
    assert okx.state()["violations_total"] == 1


def test_rest(okx):
    market = MarketData.MarketAPI(domain=okx.rest_url, flag="0")
    public = PublicData.PublicAPI(domain=okx.rest_url, flag="0")
    history = okx.follow("BTC-USDT")
    answers = {
        "time": public.get_system_time(),
        "instruments": public.get_instruments("SPOT"),
        "tickers": market.get_tickers("SPOT"),
        "ticker": market.get_ticker("BTC-USDT"),
        "book": market.get_orderbook("BTC-USDT", "400"),
        "trades": market.get_trades("BTC-USDT", "50"),
        "history": market.get_history_trades("BTC-USDT", limit="10"),
    }
    assert {each["code"] for each in answers.values()} == {"0"}
    symbols = {row["instId"] for row in answers["instruments"]["data"]}
    assert {row["instId"] for row in answers["tickers"]["data"]} == symbols
    [ticker] = answers["ticker"]["data"]
    [book] = answers["book"]["data"]
    assert (ticker["bidPx"], ticker["askPx"]) == (book["bids"][0][0], book["asks"][0][0])
    assert history.best(history._first[0], 400)[0] == [floats(level) for level in book["bids"]]
    assert market.get_ticker("NOPE-USDT")["code"] == "51001"
    assert okx.state()["violations"] == []


def test_channels_of_a_swap(okx, monkeypatch):
    args = [
        {"channel": channel, "instId": "BTC-USDT-SWAP"}
        for channel in ("mark-price", "funding-rate", "open-interest")
    ]
    args.append({"channel": "index-tickers", "instId": "BTC-USDT"})
    args.append({"channel": "liquidation-orders", "instType": "SWAP"})
    messages = collect(okx, monkeypatch, 40, *args)
    rows = {each["arg"]["channel"]: each["data"][0] for each in messages if "data" in each}
    assert rows.keys() == {arg["channel"] for arg in args}
    mark, index = Decimal(rows["mark-price"]["markPx"]), Decimal(rows["index-tickers"]["idxPx"])
    assert abs(mark - index) < index / 20
    [details] = rows["liquidation-orders"]["details"]
    assert Decimal(details["sz"]) > 0
    okx.assert_well_behaved()


def test_rest_of_swaps(okx):
    market = MarketData.MarketAPI(domain=okx.rest_url, flag="0")
    public = PublicData.PublicAPI(domain=okx.rest_url, flag="0")
    answers = [
        public.get_instruments("SWAP"),
        public.get_mark_price("SWAP"),
        public.get_open_interest("SWAP", instFamily="BTC-USDT"),
        public.get_funding_rate("BTC-USDT-SWAP"),
        market.get_index_tickers(quoteCcy="USDT"),
        market.get_tickers("SWAP"),
    ]
    assert {each["code"] for each in answers} == {"0"}
    assert [len(each["data"]) for each in answers[2:4]] == [1, 1]
    assert {row["instId"] for row in answers[1]["data"]} < {row["instId"] for row in answers[0]["data"]}
    assert okx.state()["violations"] == []
