"""Whatever a client sends where an account, a book or trades are asked for: an answer, never an exception."""

import json
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedhandler.sim import credentials
from feedhandler.sim.kucoin import Kucoin
from feedhandler.sim.protocol import HttpAnswer, HttpRequest, Now
from feedhandler.sim.simulated import ACCOUNTS, SIMULATED

ADDRESSES = count()
NOW = Now(1_000_000_000_000, 1_790_000_000_123_456_789)
EXCHANGES = {name: each.make(50, 1, None) for name, each in SIMULATED.items()}
WORDS = st.sampled_from(
    [
        *("id", "method", "params", "session.logon", "session.logout", "userDataStream.subscribe.signature"),
        *("userDataStream.unsubscribe", "subscriptionId", "account.status", "timestamp", "apiKey"),
        *("signature", "recvWindow", credentials.BINANCE.key, "op", "args", "auth", "subscribe"),
        *(
            "unsubscribe",
            "wallet",
            "ping",
            "channel",
            "instId",
            "books",
            "BTC-USDT",
            "req_id",
            "type",
            "topic",
            "/account/balance",
            "privateChannel",
        ),
    ]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8) | WORDS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=12,
)


def connect(name: str):
    exchange = EXCHANGES[name]
    path = {"binance": "/ws-api/v3", "kucoin": "/", "bybit": "/v5/private", "okx": "/ws/v5/public"}[name]
    token = exchange.new_token(NOW, is_private=True) if isinstance(exchange, Kucoin) else ""
    # Each from an address of its own: limits are not what this is about.
    request = HttpRequest(method="GET", path=path, query=[("token", token)], remote=str(next(ADDRESSES)))
    dialog = exchange.accept(request, NOW)
    dialog.on_open(NOW)
    return dialog


@pytest.mark.long
@pytest.mark.parametrize("name", EXCHANGES)
@given(messages=st.lists(VALUES.map(json.dumps) | st.text(max_size=20), min_size=1, max_size=5))
def test_any_messages_are_answered(name, messages):
    dialog = connect(name)
    for message in messages:
        reply = dialog.on_text(message, NOW)
        for text in reply.texts:
            assert text == b"pong" or isinstance(json.loads(text), dict)


@pytest.mark.long
@pytest.mark.parametrize("name", ACCOUNTS)
@given(
    pairs=st.lists(st.tuples(WORDS | st.text(max_size=4), st.text(max_size=8)), max_size=4),
    raw_query=st.text(max_size=30),
    values=st.lists(st.text(max_size=12) | st.just("1790000000123"), min_size=5, max_size=5),
    is_key_right=st.booleans(),
    body=st.binary(max_size=4),
)
def test_any_request_is_answered(name, pairs, raw_query, values, is_key_right, body):
    exchange = EXCHANGES[name]
    path, names, key = {
        "binance": ("/api/v3/account", ["X-MBX-APIKEY"], credentials.BINANCE.key),
        "kucoin": (
            "/api/v1/accounts",
            [f"KC-API-{each}" for each in ("KEY", "SIGN", "TIMESTAMP", "PASSPHRASE", "KEY-VERSION")],
            credentials.KUCOIN.key,
        ),
        "bybit": (
            "/v5/account/wallet-balance",
            [f"X-BAPI-{each}" for each in ("API-KEY", "SIGN", "TIMESTAMP", "RECV-WINDOW")],
            credentials.BYBIT.key,
        ),
    }[name]
    headers = dict(zip(names, values, strict=False)) | ({names[0]: key} if is_key_right else {})
    request = HttpRequest(
        method="GET",
        path=path,
        query=pairs,
        raw_query=raw_query,
        headers=headers,
        body=body,
        remote=str(values),
    )
    answer = exchange.rest(request, NOW)
    assert isinstance(answer, HttpAnswer)
    assert b"10000.5" not in answer.body, "nobody guesses a signature"


BOOKS_AND_TRADES = {
    "binance": (
        "/api/v3/depth",
        "/api/v3/trades",
        "/api/v3/historicalTrades",
        "/linear/fapi/v1/depth",
        "/linear/fapi/v1/aggTrades",
    ),
    "kucoin": ("/api/v1/market/orderbook/level2_100", "/api/v1/market/histories"),
    "bybit": ("/v5/market/recent-trade",),
    "okx": ("/api/v5/market/books", "/api/v5/market/trades", "/api/v5/market/history-trades"),
}
NAMES = st.sampled_from(
    ["symbol", "limit", "fromId", "category", "symbolStatus", "instId", "sz", "after", "before", "type"]
)
ANSWERS = st.sampled_from(["BTCUSDT", "BTC-USDT", "spot", "HALT", "0", "-1", "9" * 50, "\u0663", ""])


@pytest.mark.long
@pytest.mark.parametrize("name", EXCHANGES)
@given(pairs=st.lists(st.tuples(NAMES, ANSWERS | st.text(max_size=8)), max_size=4), which=st.integers(0, 59))
def test_any_request_for_a_book_or_trades_is_answered(name, pairs, which):
    paths = BOOKS_AND_TRADES[name]
    request = HttpRequest(
        method="GET", path=paths[which % len(paths)], query=pairs, remote=str(next(ADDRESSES))
    )
    answer = EXCHANGES[name].rest(request, NOW)
    assert isinstance(json.loads(answer.body), dict | list)
