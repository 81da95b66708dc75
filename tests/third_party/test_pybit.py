"""pybit, Bybit's own client, unmodified but for its URL, receives tickers, trades, books and balances."""

import contextlib
import copy
import queue

import pytest
from patience import PATIENCE_S

pytest.importorskip("pybit", reason="third-party client not installed: pip install -e .[third-party]")

from pybit import unified_trading
from pybit.exceptions import InvalidRequestError

from feedhandler.sim import credentials


@pytest.fixture
def client(bybit, monkeypatch):
    monkeypatch.setattr(unified_trading, "PUBLIC_WSS", f"{bybit.ws_url}/v5/public/{{CHANNEL_TYPE}}")
    client = unified_trading.WebSocket(testnet=False, channel_type="spot", restart_on_error=False)
    yield client
    client.exit()  # its thread ends by itself within 10 s


@contextlib.contextmanager
def noted_first(client):
    """Hold what it sends back until it has noted it: an answer that is quicker ends its connection."""
    held, send = [], client.ws.send
    client.ws.send = held.append
    try:
        yield
    finally:
        client.ws.send = send
    for message in held:
        send(message)


def test_ticker_stream(bybit, client):
    received: queue.Queue = queue.Queue()
    with noted_first(client):
        client.ticker_stream(symbol=["BTCUSDT", "ETHUSDT"], callback=received.put)
    seen = {}
    while len(seen) < 2:
        message = received.get(timeout=PATIENCE_S)
        seen[message["data"]["symbol"]] = message["data"]
    for symbol in ("BTCUSDT", "ETHUSDT"):
        ticker = seen[symbol]
        assert float(ticker["lowPrice24h"]) <= float(ticker["lastPrice"]) <= float(ticker["highPrice24h"])
        assert float(ticker["lastPrice"]) > 0
        assert float(ticker["volume24h"]) > 0
    bybit.assert_well_behaved()


def test_orderbook_stream_of_one_level(bybit, client):
    received: queue.Queue = queue.Queue()
    with noted_first(client):
        client.orderbook_stream(1, "XRPUSDT", received.put)
    books = [received.get(timeout=PATIENCE_S)["data"] for _ in range(5)]
    for book in books:
        assert book["s"] == "XRPUSDT"
        assert 0 < float(book["b"][0][0]) < float(book["a"][0][0])
    sequences = [book["u"] for book in books]
    assert sequences == sorted(set(sequences))
    bybit.assert_well_behaved()


@pytest.mark.parametrize("depth", [50, 200])
def test_orderbook_stream_of_many_levels(bybit, client, depth):
    """It keeps the book itself, and fails where a level is removed that it does not know."""
    history = bybit.follow("BTCUSDT")
    received: queue.Queue = queue.Queue()
    with noted_first(client):
        client.orderbook_stream(
            depth, "BTCUSDT", lambda message: received.put(copy.deepcopy(message["data"]))
        )
    books = [received.get(timeout=PATIENCE_S) for _ in range(15)]
    for book in books:
        bids, asks = (sorted([float(text) for text in level] for level in book[side]) for side in "ba")
        assert (bids[::-1], asks) == history.best(book["seq"] // 7, depth)
    numbers = [book["u"] for book in books]
    assert numbers == list(range(numbers[0], numbers[0] + 15))
    bybit.assert_well_behaved()


def test_trade_stream(bybit, client):
    history = bybit.follow("BTCUSDT")
    received: queue.Queue = queue.Queue()
    with noted_first(client):
        client.trade_stream("BTCUSDT", received.put)
    found: list[dict] = []
    while len(found) < 20:
        found += received.get(timeout=PATIENCE_S)["data"]
    seen = [(float(trade["p"]), float(trade["v"]), trade["S"].lower()) for trade in found]
    assert history.had(seen)
    recent = make_http(bybit, credentials.BYBIT).get_public_trade_history(category="spot", symbol="BTCUSDT")
    ids = [trade["execId"] for trade in recent["result"]["list"]]
    assert len(set(ids) & {trade["i"] for trade in found}) > 10
    bybit.assert_well_behaved()


# Balances.


def make_http(bybit, key: credentials.Credentials) -> unified_trading.HTTP:
    client = unified_trading.HTTP(api_key=key.key, api_secret=key.secret, max_retries=1)
    client.endpoint = bybit.rest_url
    return client


def test_wallet_balance(bybit):
    client = make_http(bybit, credentials.BYBIT)
    everything = client.get_wallet_balance(accountType="UNIFIED")["result"]["list"][0]["coin"]
    assert {coin["coin"]: (coin["walletBalance"], coin["locked"]) for coin in everything} == {
        "BTC": ("1.3", "0.05"),
        "ETH": ("12.5", "0"),
        "USDT": ("10250.5", "250"),
    }
    some = client.get_wallet_balance(accountType="UNIFIED", coin="USDT,DOGE")["result"]["list"][0]["coin"]
    assert [(coin["coin"], coin["walletBalance"]) for coin in some] == [("USDT", "10250.5"), ("DOGE", "0")]
    assert bybit.state()["violations"] == []


def test_wallet_balance_with_a_wrong_secret_fails(bybit):
    client = make_http(bybit, credentials.Credentials(key=credentials.BYBIT.key, secret="wrong"))
    with pytest.raises(InvalidRequestError) as raised:
        client.get_wallet_balance(accountType="UNIFIED")
    assert raised.value.status_code == 10004


def test_wallet_stream(bybit, monkeypatch):
    monkeypatch.setattr(unified_trading, "PRIVATE_WSS", f"{bybit.ws_url}/v5/private")
    received: queue.Queue = queue.Queue()
    key = credentials.BYBIT
    client = unified_trading.WebSocket(
        testnet=False,
        channel_type="private",
        api_key=key.key,
        api_secret=key.secret,
        restart_on_error=False,
        private_auth_expire=int(PATIENCE_S),
    )
    try:
        with noted_first(client):
            client.wallet_stream(received.put)
        bybit.wait_for_topic("wallet")
        bybit.fault(fault="trade", symbol="BTCUSDT", amount="0.01")
        message = received.get(timeout=PATIENCE_S)
    finally:
        client.exit()
    assert message["topic"] == "wallet"
    [account] = message["data"]
    coins = {coin["coin"]: coin for coin in account["coin"]}
    assert coins.keys() == {"BTC", "USDT"}
    assert coins["BTC"]["walletBalance"] == "1.31"
    assert 0 < float(coins["USDT"]["walletBalance"]) < 10250.5
    assert bybit.state()["violations"] == []
