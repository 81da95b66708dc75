"""pybit and ccxt, unmodified but for their URLs, receive Bybit's perpetuals beside its spot pairs."""

import asyncio
import copy
import queue
import time

import pytest
from patience import PATIENCE_S

pytest.importorskip("pybit", reason="third-party client not installed: pip install -e .[third-party]")

from pybit import unified_trading

from feedhandler.sim import credentials
from third_party.test_pybit import make_http, noted_first

SYMBOL = "BTC/USDT:USDT"


@pytest.fixture(scope="module")
def ccxt():
    return pytest.importorskip("ccxt.pro", reason="third-party client not installed")


@pytest.fixture
def client(bybit, monkeypatch):
    monkeypatch.setattr(unified_trading, "PUBLIC_WSS", f"{bybit.ws_url}/v5/public/{{CHANNEL_TYPE}}")
    client = unified_trading.WebSocket(testnet=False, channel_type="linear", restart_on_error=False)
    yield client
    client.exit()  # its thread ends by itself within 10 s


def test_pybit_merges_tickers(bybit, client):
    """It keeps the whole, from a snapshot and deltas to it."""
    received: queue.Queue = queue.Queue()
    with noted_first(client):
        client.ticker_stream("BTCUSDT", lambda message: received.put(copy.deepcopy(message)))
    seen = [received.get(timeout=PATIENCE_S) for _ in range(10)]
    assert len({message["cs"] for message in seen}) == 10
    for message in seen:
        data = {name: float(text or "nan") for name, text in message["data"].items() if text[:1].isdigit()}
        assert data["bid1Price"] < data["ask1Price"]
        assert abs(data["markPrice"] / data["lastPrice"] - 1) < 0.01
        assert data["openInterest"] == pytest.approx(2 * data["singleOpenInterest"])
        assert data["nextFundingTime"] / 1000 > time.time()
    bybit.assert_well_behaved()


def test_pybit_keeps_a_book(bybit, client):
    history = bybit.follow("BTCUSDT", "linear")
    received: queue.Queue = queue.Queue()
    with noted_first(client):
        client.orderbook_stream(50, "BTCUSDT", lambda message: received.put(copy.deepcopy(message["data"])))
    for book in [received.get(timeout=PATIENCE_S) for _ in range(15)]:
        bids, asks = (sorted([float(text) for text in level] for level in book[side]) for side in "ba")
        assert (bids[::-1], asks) == history.best(book["seq"] // 7, 50)
    bybit.assert_well_behaved()


def test_pybit_gets_trades_and_liquidations(bybit, client):
    history = bybit.follow("BTCUSDT", "linear")
    trades: queue.Queue = queue.Queue()
    liquidations: queue.Queue = queue.Queue()
    with noted_first(client):
        client.trade_stream("BTCUSDT", trades.put)
    with noted_first(client):
        client.all_liquidation_stream("BTCUSDT", liquidations.put)
    found: list[dict] = []
    while len(found) < 20:
        found += trades.get(timeout=PATIENCE_S)["data"]
    assert history.had([(float(each["p"]), float(each["v"]), each["S"].lower()) for each in found])
    message = liquidations.get(timeout=PATIENCE_S)
    assert message["topic"] == "allLiquidation.BTCUSDT"
    assert all(each["s"] == "BTCUSDT" and each["S"] in ("Buy", "Sell") for each in message["data"])
    bybit.assert_well_behaved()


def test_pybit_pages_through_instruments(bybit):
    http = make_http(bybit, credentials.BYBIT)
    symbols: list[str] = []
    cursor = ""
    for _ in range(9):
        result = http.get_instruments_info(category="linear", limit=100, cursor=cursor)["result"]
        symbols += [row["symbol"] for row in result["list"]]
        cursor = result["nextPageCursor"]
        if not cursor:
            break
    assert not cursor
    assert len(symbols) == len(set(symbols)) > 200
    assert {"BTCUSDT", "BTCPERP", "BTCUSDT-25DEC26"} <= set(symbols)
    row = http.get_tickers(category="linear", symbol="BTCUSDT")["result"]["list"][0]
    assert float(row["fundingRate"]) < 0.001
    assert bybit.state()["violations"] == []


def make(ccxt, simulator):
    client = ccxt.bybit({"options": {"defaultType": "swap", "fetchMarkets": {"types": ["spot", "linear"]}}})
    ws = {
        "public": {
            market: f"{simulator.ws_url}/v5/public/{market}" for market in ("spot", "linear", "inverse")
        }
    }
    urls = {"spot": simulator.rest_url, "futures": simulator.rest_url, "public": simulator.rest_url}
    client.urls["api"] = {**client.urls["api"], **urls, "ws": ws}
    return client


def collect(client, call):
    """Return what a coroutine of the client gives, when its markets are loaded."""

    async def run():
        try:
            async with asyncio.timeout(PATIENCE_S):
                await client.load_markets()
                return await call(client)
        finally:
            await client.close()

    return asyncio.run(run())


def test_ccxt_names_a_perpetual_as_we_do(ccxt, bybit):
    async def markets(client):
        return client.markets

    found = collect(make(ccxt, bybit), markets)
    assert {"BTC/USDT", SYMBOL, "BTC/USDC:USDC", "BTC/USDT:USDT-261225"} <= found.keys()
    assert (found[SYMBOL]["id"], found[SYMBOL]["swap"], found[SYMBOL]["linear"]) == ("BTCUSDT", True, True)
    assert bybit.state()["violations"] == []


def test_ccxt_watches_the_ticker_of_a_perpetual(ccxt, bybit):
    async def watch(client):
        return [copy.deepcopy(await client.watch_ticker(SYMBOL)) for _ in range(5)]

    for ticker in collect(make(ccxt, bybit), watch):
        assert ticker["symbol"] == SYMBOL
        assert 0 < ticker["bid"] < ticker["ask"]
        assert ticker["low"] <= ticker["last"] <= ticker["high"]
        assert abs(ticker["markPrice"] / ticker["indexPrice"] - 1) < 0.01
    bybit.assert_well_behaved()


def test_ccxt_watches_trades_and_the_book_of_a_perpetual(ccxt, bybit):
    history = bybit.follow("BTCUSDT", "linear")

    async def watch(client):
        trades: dict[str, dict] = {}
        while len(trades) < 15:
            trades |= {trade["id"]: trade for trade in await client.watch_trades(SYMBOL)}
        return trades, copy.deepcopy(await client.watch_order_book(SYMBOL, 50))

    trades, book = collect(make(ccxt, bybit), watch)
    assert history.had([(each["price"], each["amount"], each["side"]) for each in trades.values()])
    wanted = [level[:2] for level in book["bids"]], [level[:2] for level in book["asks"]]
    assert any(levels == wanted for _, levels in history.states(50))
    bybit.assert_well_behaved()


def test_ccxt_reads_funding(ccxt, bybit):
    async def fetch(client):
        return await client.fetch_funding_rate(SYMBOL)

    funding = collect(make(ccxt, bybit), fetch)
    assert abs(funding["fundingRate"]) < 0.001
    assert funding["fundingTimestamp"] / 1000 > time.time()
    assert funding["markPrice"] > 0
    assert bybit.state()["violations"] == []
