"""binance-connector, Binance's own client, unmodified but for its URL, receives tickers and quotes."""

import json
import queue

import pytest

pytest.importorskip("binance", reason="third-party client not installed: pip install -e .[third-party]")

from binance.spot import Spot
from binance.websocket.spot.websocket_stream import SpotWebsocketStreamClient

WITHIN_S = 20.0


def connect(simulator, **options):
    """Open a stream client; messages arrive decoded, in a queue."""
    received: queue.Queue = queue.Queue()
    client = SpotWebsocketStreamClient(
        stream_url=simulator.ws_url,
        on_message=lambda _, text: received.put(json.loads(text)),
        timeout=WITHIN_S,
        **options,
    )
    return client, received


def first(received, is_wanted):
    while True:
        message = received.get(timeout=WITHIN_S)
        if is_wanted(message):
            return message


def test_ticker(binance):
    client, received = connect(binance)
    try:
        client.ticker(symbol="btcusdt")
        ticker = first(received, lambda message: message.get("e") == "24hrTicker")
    finally:
        client.stop()
    assert not client.socket_manager.is_alive()
    assert ticker["s"] == "BTCUSDT"
    assert 0 < float(ticker["b"]) < float(ticker["a"])
    assert float(ticker["l"]) <= float(ticker["c"]) <= float(ticker["h"])
    binance.assert_well_behaved()


def test_book_ticker_combined_in_microseconds(binance):
    client, received = connect(binance, is_combined=True, time_unit="microsecond")
    try:
        client.book_ticker(symbol="ethusdt")
        client.trade(symbol="ethusdt")
        quote = first(received, lambda message: message.get("stream") == "ethusdt@bookTicker")["data"]
        trade = first(received, lambda message: message.get("stream") == "ethusdt@trade")["data"]
    finally:
        client.stop()
    assert quote["s"] == "ETHUSDT"
    assert 0 < float(quote["b"]) < float(quote["a"])
    assert trade["E"] > 1_600_000_000_000_000
    binance.assert_well_behaved()


def test_rest(binance):
    client = Spot(base_url=binance.rest_url, timeout=WITHIN_S)
    try:
        assert client.ping() == {}
        assert client.exchange_info(symbol="BTCUSDT")["symbols"][0]["baseAsset"] == "BTC"
        day = client.ticker_24hr("BTCUSDT")
        assert float(day["lowPrice"]) <= float(day["lastPrice"]) <= float(day["highPrice"])
        quotes = client.book_ticker(symbols=["BTCUSDT", "ETHUSDT"])
        assert all(0 < float(quote["bidPrice"]) < float(quote["askPrice"]) for quote in quotes)
    finally:
        client.session.close()
    assert binance.state()["violations"] == []
