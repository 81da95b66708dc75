"""binance-connector, Binance's own client, unmodified but for its URL, receives market data and balances."""

import itertools
import json
import queue

import pytest
from patience import PATIENCE_S

pytest.importorskip("binance", reason="third-party client not installed: pip install -e .[third-party]")

from binance.error import ClientError
from binance.lib.utils import websocket_api_signature
from binance.spot import Spot
from binance.websocket.spot.websocket_api import SpotWebsocketAPIClient
from binance.websocket.spot.websocket_stream import SpotWebsocketStreamClient

from feedhandler.sim import credentials


def connect(simulator, **options):
    """Open a stream client; messages arrive decoded, in a queue."""
    received: queue.Queue = queue.Queue()
    client = SpotWebsocketStreamClient(
        stream_url=simulator.ws_url,
        on_message=lambda _, text: received.put(json.loads(text)),
        timeout=PATIENCE_S,
        **options,
    )
    return client, received


def first(received, is_wanted):
    while True:
        message = received.get(timeout=PATIENCE_S)
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


def test_books_and_trades(binance):
    history = binance.follow("BTCUSDT")
    client, received = connect(binance, is_combined=True)
    rest = Spot(base_url=binance.rest_url, timeout=PATIENCE_S)
    try:
        client.diff_book_depth(symbol="btcusdt", speed=100)
        client.partial_book_depth(symbol="btcusdt", level=20, speed=100)
        client.trade(symbol="btcusdt")
        client.agg_trade(symbol="btcusdt")
        deltas = [first(received, is_of("btcusdt@depth@100ms"))["data"] for _ in range(5)]
        tops = [first(received, is_of("btcusdt@depth20@100ms"))["data"] for _ in range(5)]
        trades = [first(received, is_of("btcusdt@trade"))["data"] for _ in range(5)]
        base = rest.depth("BTCUSDT", limit=1000)
        known = rest.historical_trades("BTCUSDT", fromId=trades[0]["t"], limit=5)
        newest = rest.trades("BTCUSDT", limit=10)
        merged = first(received, is_of("btcusdt@aggTrade"))["data"]
        [again] = rest.agg_trades("BTCUSDT", fromId=merged["a"], limit=1)
    finally:
        client.stop()
        rest.session.close()
    assert all(later["U"] == earlier["u"] + 1 for earlier, later in itertools.pairwise(deltas))
    for book in (*tops, base):
        bids, asks = history.best(book["lastUpdateId"], len(book["bids"]))
        assert [list(map(float, level)) for level in book["bids"]] == bids
        assert [list(map(float, level)) for level in book["asks"]] == asks
    assert [len(book["bids"]) for book in (tops[0], base)] == [20, 1000]
    assert [trade["id"] for trade in known] == [trade["t"] for trade in trades]
    assert [trade["price"] for trade in known] == [trade["p"] for trade in trades]
    assert again.items() <= merged.items()
    assert newest[-1]["id"] >= known[-1]["id"]
    binance.assert_well_behaved()


def is_of(stream):
    return lambda message: message.get("stream") == stream


def test_rest(binance):
    client = Spot(base_url=binance.rest_url, timeout=PATIENCE_S)
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


# Balances.

OPENING = [
    {"asset": "BTC", "free": "1.25000000", "locked": "0.05000000"},
    {"asset": "ETH", "free": "12.50000000", "locked": "0.00000000"},
    {"asset": "USDT", "free": "10000.50000000", "locked": "250.00000000"},
]


@pytest.fixture(params=["hmac", "ed25519"])
def signing(request) -> dict[str, str]:
    """What a client is given to sign with."""
    if request.param == "hmac":
        return {"api_key": credentials.BINANCE.key, "api_secret": credentials.BINANCE.secret}
    return {"api_key": credentials.BINANCE_ED25519_KEY, "private_key": credentials.ed25519_pem()}


def test_account(binance, signing):
    client = Spot(base_url=binance.rest_url, timeout=PATIENCE_S, **signing)
    try:
        assert client.account(omitZeroBalances="true")["balances"] == OPENING
        everything = client.account(recvWindow=60000)["balances"]
        assert everything == [*OPENING, {"asset": "BNB", "free": "0.00000000", "locked": "0.00000000"}]
    finally:
        client.session.close()
    assert binance.state()["violations"] == []


def test_account_with_the_key_of_another_fails(binance):
    client = Spot(api_key="sim-binance-key-of-another", api_secret="secret", base_url=binance.rest_url)
    try:
        with pytest.raises(ClientError) as raised:
            client.account()
    finally:
        client.session.close()
    assert (raised.value.status_code, raised.value.error_code) == (401, -2015)


def test_user_data_over_the_websocket_api(binance):
    """The connector names no method that subscribes: what is sent is ours, signed and carried by it."""
    received: queue.Queue = queue.Queue()
    client = SpotWebsocketAPIClient(
        stream_url=f"{binance.ws_url}/ws-api/v3",
        api_key=credentials.BINANCE.key,
        api_secret=credentials.BINANCE.secret,
        on_message=lambda _, text: received.put(json.loads(text)),
        timeout=PATIENCE_S,
    )
    try:
        client.account(id="status")
        status = first(received, lambda message: message.get("id") == "status")
        params = websocket_api_signature(client.api_key, client.api_secret, {"recvWindow": 60000})
        client.send({"id": 7, "method": "userDataStream.subscribe.signature", "params": params})
        subscribed = first(received, lambda message: message.get("id") == 7)
        binance.fault(fault="deposit", asset="DOGE", amount="100")
        position = first(
            received, lambda message: message.get("event", {}).get("e") == "outboundAccountPosition"
        )
    finally:
        client.stop()
    assert status["status"] == 200
    assert status["result"]["balances"][:3] == OPENING
    assert subscribed["result"] == {"subscriptionId": 0}
    assert position["event"]["B"] == [{"a": "DOGE", "f": "100.00000000", "l": "0.00000000"}]
    assert binance.state()["violations"] == []
