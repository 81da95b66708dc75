"""pybit, Bybit's own client, unmodified but for its URL, receives tickers and books."""

import queue

import pytest

pytest.importorskip("pybit", reason="third-party client not installed: pip install -e .[third-party]")

from pybit import unified_trading

WITHIN_S = 20.0


@pytest.fixture
def client(bybit, monkeypatch):
    monkeypatch.setattr(unified_trading, "PUBLIC_WSS", f"{bybit.ws_url}/v5/public/{{CHANNEL_TYPE}}")
    client = unified_trading.WebSocket(testnet=False, channel_type="spot", restart_on_error=False)
    yield client
    client.exit()
    client.wst.join(WITHIN_S)
    assert not client.wst.is_alive()


def test_ticker_stream(bybit, client):
    received: queue.Queue = queue.Queue()
    client.ticker_stream(symbol=["BTCUSDT", "ETHUSDT"], callback=received.put)
    seen = {}
    while len(seen) < 2:
        message = received.get(timeout=WITHIN_S)
        seen[message["data"]["symbol"]] = message["data"]
    for symbol in ("BTCUSDT", "ETHUSDT"):
        ticker = seen[symbol]
        assert float(ticker["lowPrice24h"]) <= float(ticker["lastPrice"]) <= float(ticker["highPrice24h"])
        assert float(ticker["lastPrice"]) > 0
        assert float(ticker["volume24h"]) > 0
    bybit.assert_well_behaved()


def test_orderbook_stream_of_one_level(bybit, client):
    received: queue.Queue = queue.Queue()
    client.orderbook_stream(1, "XRPUSDT", received.put)
    books = [received.get(timeout=WITHIN_S)["data"] for _ in range(5)]
    for book in books:
        assert book["s"] == "XRPUSDT"
        assert 0 < float(book["b"][0][0]) < float(book["a"][0][0])
    sequences = [book["u"] for book in books]
    assert sequences == sorted(set(sequences))
    bybit.assert_well_behaved()
