"""KuCoin: every message kind on our channels, the token handshake, and what must not be a message."""

import json

import msgspec
import pytest
from table import (
    NAN,
    RECV_NS,
    check_answer,
    check_row,
    check_trades,
    decoded,
    every_answer,
    every_frame,
    load,
    make,
    trade,
    without,
)

from feedhandler.data.errors import DecodeError, ProtocolError, SubscriptionRejected
from feedhandler.data.instruments import InstrumentTable
from feedhandler.exchanges.base import PONG, WELCOME, Ack, Goodbye, Nack
from feedhandler.exchanges.kucoin import SYMBOLS_PER_COMMAND, TOPICS_PER_CONNECTION, KuCoinSpot
from feedhandler.exchanges.state import LAST
from feedhandler.exchanges.state import QUOTE as QUOTE_CHANNEL

QUOTE = {"bid": 97421.4, "bid_size": 0.125, "ask": 97421.6, "ask_size": 3.75}
SNAPSHOT = {
    **QUOTE,
    "last": 97421.5,
    "open_24h": 96000.0,
    "high_24h": 98000.25,
    "low_24h": 95500.125,
    "base_volume_24h": 18234.5,
    "quote_volume_24h": 1770000000.0625,
    "exchange_ns": 1790000000250000000,
}
TICKER = {"last": 97421.5, "exchange_ns": 1790000000260000000, "exchange_sequence": 16100000002}
LEVEL1 = {**QUOTE, "exchange_ns": 1790000000270000000}
BIDS = ((97421.4, 0.125), (97421.1, 2.0), (97420.0, 0.5))
ASKS = ((97421.6, 3.75), (97422.0, 1.5))
DEPTH = {"bids": BIDS, "asks": ASKS, "exchange_ns": 1790000000280000000}
TWENTY_BIDS = tuple((float(f"{97421.4 - i / 10:.1f}"), 0.5 + i) for i in range(20))
TWENTY_ASKS = tuple((float(f"{97421.6 + i / 10:.1f}"), 1.0 + i) for i in range(20))

CASES = [
    ("snapshot", SNAPSHOT),
    ("snapshot_integer_sequence", SNAPSHOT),
    ("snapshot_of_market", SNAPSHOT),
    ("snapshot_empty_high", without(SNAPSHOT, "high_24h")),
    ("snapshot_nulls", {"exchange_ns": 1790000000250000000}),
    ("snapshot_negative_volume", DecodeError),
    ("snapshot_lacks_symbol", DecodeError),
    ("ticker", TICKER),
    ("ticker_capital_time", TICKER),
    ("ticker_all", TICKER),
    ("ticker_nan", DecodeError),
    ("ticker_lacks_price", without(TICKER, "last")),
    ("ticker_null_price", without(TICKER, "last")),
    ("ticker_lacks_all", DecodeError),
    ("ticker_empty_time", without(TICKER, "exchange_ns")),
    ("ticker_huge_sequence", DecodeError),
    ("ticker_time_in_ns", DecodeError),
    ("level1", LEVEL1),
    (
        "level1_empty_side",
        {"bid_size": 0.0, "ask": 97421.6, "ask_size": 3.75, "exchange_ns": 1790000000270000000},
    ),
    ("level1_negative_size", DecodeError),
    ("level1_half_a_level", DecodeError),
    ("level1_lacks_bids", without(LEVEL1, "bid", "bid_size")),
    ("level1_lacks_both", DecodeError),
    ("level1_unknown_symbol", None),
    ("depth", DEPTH),
    ("depth_fifty", {**DEPTH, "bids": TWENTY_BIDS, "asks": TWENTY_ASKS}),
    ("depth_numbers", {**without(DEPTH, "bids"), "asks": ASKS[:1]}),
    ("depth_empty_side", without(DEPTH, "bids")),
    ("depth_empty", without(DEPTH, "bids", "asks")),
    ("depth_crossed", {**DEPTH, "bids": ((97422.0, 1.0),), "is_invalid": True}),
    ("depth_unknown_symbol", None),
    ("depth_lacks_bids", DecodeError),
    ("depth_lacks_time", DecodeError),
    ("depth_empty_lacks_time", DecodeError),
    ("depth_negative_size", DecodeError),
    ("depth_half_a_level", DecodeError),
    ("depth_nan", DecodeError),
    ("level2", None),
    ("welcome", WELCOME),
    ("ack", Ack("7")),
    ("ack_integer_id", Ack("7")),
    ("pong", PONG),
    ("pong_old", PONG),
    ("error_token", Goodbye("token is invalid (code 401)")),
    ("error_ping_timeout", Goodbye("ping timeout (code 400)")),
    ("error_topic", Nack("9", "topic /market/nope is not found (code 404)")),
    ("error_of_connection", Nack("", "topic /market/nope is not found (code 404)")),
    ("error_time_as_id", Nack("", "topic /market/nope is not found (code 404)")),
    (
        "error_session_limit",
        Nack("10", "exceed max subscription count limitation of 300 per session (code 509)"),
    ),
    ("error_busy", Nack("11", "service is busy (code 509)", is_transient=True)),
    ("message_without_data", DecodeError),
    ("unknown_type", DecodeError),
    ("truncated", DecodeError),
    ("bad_utf8", DecodeError),
]


@pytest.mark.parametrize(("name", "expected"), CASES, ids=[name for name, _ in CASES])
def test_a_frame_decodes_as_the_table_says(name, expected):
    check_row("kucoin", ("BTC-USDT",), name, expected)


BUY = trade("21067996711960577", 97421.5, 0.012, "buy", 1790000000250125000, 21067996711960577)
# What each is, in order; and then, perhaps, the error.
TRADES = {
    "match": ([BUY],),
    "match_sold": (
        [trade("21067996711960580", 97421.5, 0.012, "sell", 1790000000250125000, 21067996711960580)],
    ),
    "match_old_id": ([{**BUY, "trade_id": "6085c00000bc50000095e000"}],),
    "match_lacks_id": ([BUY],),
    "match_lacks_side": ([{**BUY, "side": 0}],),
    "match_unknown_symbol": ([],),
    "match_lacks_sequence": ([], DecodeError),
    "match_lacks_price": ([], DecodeError),
    "match_size_zero": ([], DecodeError),
    "match_empty_time": ([], DecodeError),
    "match_long_id": ([], DecodeError),
    "match_negative_price": ([], DecodeError),
    "match_huge_sequence": ([], DecodeError),
}


@pytest.mark.parametrize("name", TRADES)
def test_the_trades_of_a_frame_are_as_the_table_says(name):
    rows, *error = TRADES[name]
    check_trades("kucoin", ("BTC-USDT",), name, rows, *error)


def test_every_frame_on_disk_has_a_row():
    assert every_frame("kucoin") == {name for name, _ in CASES} | set(TRADES)


ANSWERS = [
    ("rest/time", 1790000000290000000, ""),
    ("rest/time_refused", ProtocolError, "Too Many Requests .code 429000"),
    ("rest/time_negative", DecodeError, ">= 0"),
    ("rest/quote", (97421.4, 0.125, 97421.6, 3.75), ""),
    ("rest/quote_empty_ask", (97421.4, 0.125, NAN, 0.0), ""),
    ("rest/quote_empty_last", (97421.4, 0.125, 97421.6, 3.75), ""),
    ("rest/quote_empty_bid_and_last", (NAN, 0.0, 97421.6, 3.75), ""),
    ("rest/quote_unknown_symbol", ProtocolError, "symbol not exists .code 900001"),
    ("rest/quote_without_data", ProtocolError, "no reason given"),
    ("rest/quote_empty_data", DecodeError, "no quote"),
    ("rest/quote_infinite", DecodeError, "<="),
]


@pytest.mark.parametrize(("name", "expected", "message"), ANSWERS, ids=[name for name, _, _ in ANSWERS])
def test_a_rest_answer_decodes_as_the_table_says(name, expected, message):
    check_answer("kucoin", name, expected, message)


def test_every_rest_answer_on_disk_has_a_row():
    assert every_answer("kucoin") == {name for name, _, _ in ANSWERS}


def test_a_quote_is_asked_for_with_the_symbol_encoded():
    request = KuCoinSpot().quote_request("A&B-USDT")
    assert request.path == "/api/v1/market/orderbook/level1?symbol=A%26B-USDT"
    assert (request.weight, request.method) == (2, "GET")


def test_the_slow_channel_fills_and_never_overwrites_what_their_own_have_sent():
    exchange = make("kucoin", "BTC-USDT")
    state = decoded(exchange, load("kucoin", "snapshot"), RECV_NS, exchange.line)
    assert (state.bid, state.last) == (97421.4, 97421.5)
    decoded(exchange, load("kucoin", "level1").replace(b"97421.4", b"97000.1"), RECV_NS, exchange.line)
    decoded(
        exchange,
        load("kucoin", "ticker").replace(b'"price":"97421.5"', b'"price":"97421.7"'),
        RECV_NS,
        exchange.line,
    )
    state = decoded(exchange, load("kucoin", "snapshot"), RECV_NS + 3600_000_000_000, exchange.line)
    assert (state.bid, state.last, state.open_24h) == (97000.1, 97421.7, 96000.0)
    assert (state.stated(QUOTE_CHANNEL)[0], state.stated(LAST)) == (97421.4, (97421.5,))


def test_a_ticker_of_an_old_match_sets_no_time_back_and_no_quote():
    exchange = make("kucoin", "BTC-USDT")
    state = decoded(exchange, load("kucoin", "level1"), RECV_NS, exchange.line)
    known = (state.exchange_ns, state.bid, state.ask)
    old = load("kucoin", "ticker").replace(b"1790000000260", b"1789990000000").replace(b"97421.4", b"1.5")
    state = decoded(exchange, old, RECV_NS + 60_000_000_000, exchange.line)
    assert state.last == 97421.5
    assert (state.exchange_ns, state.bid, state.ask) == known
    new = (
        load("kucoin", "ticker")
        .replace(b"1790000000260", b"1790000000290")
        .replace(b"16100000002", b"16100000003")
    )
    assert decoded(exchange, new, RECV_NS, exchange.line).exchange_ns == 1790000000290000000


def test_a_late_ticker_does_not_move_the_last_price_backwards():
    exchange = make("kucoin", "BTC-USDT")
    state = decoded(exchange, load("kucoin", "ticker"), RECV_NS, exchange.line)
    late = load("kucoin", "ticker").replace(b"16100000002", b"16100000001").replace(b'"97421.5"', b'"1.5"')
    assert decoded(exchange, late, RECV_NS, exchange.line) is None
    assert state.last == 97421.5


def token(**server):
    instance = {"endpoint": "wss://ws.example/", "pingInterval": 18000, "pingTimeout": 10000, "encrypt": True}
    data = {"token": "a+b/c==", "instanceServers": [{**instance, **server}]}
    return msgspec.json.encode({"code": "200000", "data": data})


def test_the_token_answer_names_the_socket_and_the_heartbeat():
    endpoint = KuCoinSpot().endpoint("", token(pingInterval=9000, pingTimeout=4000), "c1")
    assert endpoint.url == "wss://ws.example/?token=a%2Bb%2Fc%3D%3D&connectId=c1"
    assert (endpoint.ping_interval_s, endpoint.pong_timeout_s) == (9.0, 4.0)
    assert (
        KuCoinSpot()
        .endpoint("", token(endpoint="ws://127.0.0.1:9"), "c")
        .url.startswith("ws://127.0.0.1:9/?token")
    )


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b'{"code":"429000","msg":"Too Many Requests"}', "Too Many Requests"),
        (b'{"code":"200000","data":{"token":"t","instanceServers":[]}}', "names no server"),
        (token(endpoint="https://ws.example/"), "no WebSocket address"),
        (token(pingInterval=0), "must be positive"),
    ],
)
def test_an_unusable_token_answer_is_a_protocol_error(body, text):
    with pytest.raises(ProtocolError, match=text):
        KuCoinSpot().endpoint("", body, "c")


def test_a_token_answer_that_is_no_json_is_a_decode_error():
    with pytest.raises(DecodeError, match="kucoin token"):
        KuCoinSpot().endpoint("", b"error 1015", "c")


def test_requests_stay_under_the_limits_and_lose_no_topic():
    exchange = KuCoinSpot()
    natives = [f"C{i}-USDT" for i in range(1001)]
    connections = exchange.connections(exchange.add(natives, 0))
    assert [state.native for run in connections for state in run] == natives
    for run in connections:
        topics = [topic for state in run for topic in exchange.topics(state.native, state.kind)]
        assert len(topics) + 1 <= TOPICS_PER_CONNECTION, "there is the canary"
        batches = list(exchange.batches(topics))
        assert sorted(topic for batch in batches for topic in batch) == sorted(topics)
        assert all(len(batch) <= SYMBOLS_PER_COMMAND for batch in batches)
        assert all(len({topic.partition(":")[0] for topic in batch}) == 1 for batch in batches)


def test_requests_are_as_documented():
    exchange = KuCoinSpot()
    assert json.loads(exchange.subscribe(("/market/ticker:A-B", "/market/ticker:C-D"), "7")) == {
        "id": "7",
        "type": "subscribe",
        "topic": "/market/ticker:A-B,C-D",
        "privateChannel": False,
        "response": True,
    }
    assert json.loads(exchange.ping("8")) == {"id": "8", "type": "ping"}


def test_a_renamed_instrument_is_published_under_its_new_name_and_asked_for_under_the_old():
    def row(symbol, name, base, trading=True):
        return {
            "symbol": symbol,
            "name": name,
            "baseCurrency": base,
            "quoteCurrency": "USDT",
            "enableTrading": trading,
        }

    rows = [
        row("BTC-USDT", "BTC-USDT", "BTC"),
        row("ALT-USDT", "NEU-USDT", "ALT"),
        row("OLD-USDT", "NEW-USDT", "NEW"),
        row("HALT-USDT", "HALT-USDT", "HALT", trading=False),
    ]
    instruments = KuCoinSpot().decode_instruments(msgspec.json.encode({"code": "200000", "data": rows}))
    assert [(i.native, i.symbol, i.is_trading) for i in instruments.items] == [
        ("BTC-USDT", "BTC/USDT", True),
        ("ALT-USDT", "NEU/USDT", True),
        ("OLD-USDT", "NEW/USDT", True),
        ("HALT-USDT", "HALT/USDT", False),
    ]


def test_accounts_have_the_code_of_an_asset_and_a_call_auction_is_shown_as_that():
    row = {"quoteCurrency": "USDT", "enableTrading": True, "callauctionIsEnabled": False}
    rows = [
        {**row, "symbol": "GALAX-USDT", "name": "GALA-USDT", "baseCurrency": "GALAX"},
        {
            **row,
            "symbol": "NEW-USDT",
            "name": "NEW-USDT",
            "baseCurrency": "NEW",
            "callauctionIsEnabled": True,
        },
    ]
    rows.append({**rows[1], "symbol": "NEXT-USDT", "name": "NEXT-USDT", "baseCurrency": "NEXT"})
    rows[2]["enableTrading"] = False
    body = msgspec.json.encode({"code": "200000", "data": rows})
    table = InstrumentTable("kucoin", KuCoinSpot().decode_instruments(body).items)
    assert table.symbol_of_code("GALAX", "USDT") == "GALA/USDT"
    assert table.resolve("NEW/USDT").note == "in its call auction: neither trades nor quotes until it opens"
    with pytest.raises(SubscriptionRejected, match="is not trading, status call auction"):
        table.resolve("NEXT/USDT")


def test_an_error_with_http_200_is_told_apart():
    with pytest.raises(ProtocolError, match="429000"):
        KuCoinSpot().decode_instruments(b'{"code":"429000","msg":"Too Many Requests"}')


def test_a_survey_is_read_row_by_row():
    row = (
        b'{"symbol":"A-USDT","symbolName":"A-USDT","buy":"1.5","bestBidSize":"2","sell":"1.6","bestAskSize":"3",'
        b'"changePrice":"-0.3","last":"99.8","high":"101","low":"98","vol":"4","volValue":"400"}'
    )
    new = b'{"symbol":"B-USDT","buy":null,"bestBidSize":null,"sell":null,"bestAskSize":null,"last":null}'
    odd = row.replace(b'"-0.3"', b'"x"')
    body = b'{"code":"200000","data":{"time":1790000000000,"ticker":[%s,%s,%s]}}' % (row, new, odd)
    rows = KuCoinSpot().decode_survey(body)
    (found,) = rows.items
    (unchanged,) = KuCoinSpot().decode_survey(body.replace(b'"-0.3"', b'""')).items[:1]
    assert (unchanged.last, unchanged.quote) == (found.last, found.quote), (
        "an empty field costs that field alone"
    )
    assert (found.quote.bid, found.quote.bid_size, found.quote.ask, found.quote.ask_size) == (
        1.5,
        2.0,
        1.6,
        3.0,
    )
    assert found.last == 99.8
    assert found.statistics == (100.1, 101.0, 98.0, 4.0, 400.0), "the open price in the exchange's digits"
    assert "2 of 3 rows" in rows.problem
