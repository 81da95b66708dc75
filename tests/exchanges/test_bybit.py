"""Bybit: every message kind on our channels, and what must not be one."""

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
    trades,
    values,
    without,
)

from feedhandler.data import wire
from feedhandler.data.errors import DecodeError, ProtocolError
from feedhandler.exchanges.arbitration import Line
from feedhandler.exchanges.base import PONG, Ack, Nack, Resubscribe
from feedhandler.exchanges.bybit import ARGS_LENGTH_MAX, TOPICS_PER_COMMAND, BybitSpot

QUOTE = {"bid": 97421.4, "bid_size": 0.125, "ask": 97421.5, "ask_size": 3.75}
TICKER = {
    "last": 97421.5,
    "open_24h": 96000.0,
    "high_24h": 98000.25,
    "low_24h": 95500.125,
    "base_volume_24h": 18234.5,
    "quote_volume_24h": 1770000000.0625,
    "exchange_ns": 1790000000250000000,
}
BOOK = {**QUOTE, "exchange_sequence": 8100001, "exchange_ns": 1790000000259000000}
NO_BID = {**{k: v for k, v in BOOK.items() if k != "bid"}, "bid_size": 0.0}
BIDS = ((97421.4, 0.125), (97421.1, 2.0), (97420.0, 0.5))
ASKS = ((97421.6, 3.75), (97422.0, 1.5))
DEPTH = {"bids": BIDS, "asks": ASKS, "exchange_sequence": 778, "exchange_ns": 1790000000259000000}

CASES = [
    ("tickers", TICKER),
    ("tickers_empty_index", TICKER),
    ("tickers_other_key_order", TICKER),
    ("tickers_nan", DecodeError),
    ("tickers_negative_price", DecodeError),
    ("tickers_lacks_volume", without(TICKER, "base_volume_24h")),
    ("tickers_empty_turnover", without(TICKER, "quote_volume_24h")),
    ("tickers_empty_numbers", DecodeError),
    ("tickers_delta", DecodeError),
    ("tickers_without_symbol", TICKER),
    ("tickers_of_another_topic", None),
    ("tickers_huge_time", DecodeError),
    ("orderbook", BOOK),
    ("orderbook_without_cts", {**BOOK, "exchange_ns": 1790000000262000000}),
    ("orderbook_empty_side", NO_BID),
    ("orderbook_empty_book", {**{k: v for k, v in NO_BID.items() if k != "ask"}, "ask_size": 0.0}),
    ("orderbook_negative_size", DecodeError),
    ("orderbook_half_a_level", DecodeError),
    ("orderbook_lacks_asks", without(BOOK, "ask", "ask_size")),
    ("orderbook_lacks_both", DecodeError),
    ("orderbook_without_symbol", BOOK),
    ("orderbook_delta", DecodeError),
    ("orderbook_delta_restart", {**BOOK, "exchange_sequence": 1}),
    ("orderbook_unknown_symbol", None),
    ("depth", DEPTH),
    ("depth_other_key_order", DEPTH),
    ("depth_without_cts", {**DEPTH, "exchange_ns": 1790000000262000000}),
    ("depth_without_sequence", DEPTH),
    ("depth_restart", {**DEPTH, "exchange_sequence": 1}),
    ("depth_empty_side", without(DEPTH, "bids")),
    ("depth_lacks_asks", without(DEPTH, "asks")),
    ("depth_lacks_both", DecodeError),
    ("depth_crossed", {**DEPTH, "bids": ((97421.7, 1.0),), "is_invalid": True}),
    ("depth_delta", Resubscribe("orderbook.50.BTCUSDT")),
    ("depth_negative_size", DecodeError),
    ("depth_half_a_level", DecodeError),
    ("depth_unknown_symbol", None),
    ("depth_of_200_levels", None),
    ("ack", Ack("7")),
    ("ack_linear", Ack("7")),
    ("pong", PONG),
    ("pong_with_id", PONG),
    ("pong_private", PONG),
    ("refused_args_size", Nack("", "args size >10")),
    ("refused_invalid_symbol", Nack("9", "Invalid symbol :[orderbook.1.NOPEUSDT]")),
    ("refused_no_handler", Nack("10", "error:handler not found,topic:orderbook.3.BTCUSDT")),
    ("refused_already", Nack("11", "error:already subscribed,topic:tickers.BTCUSDT", is_satisfied=True)),
    ("refused_not_json", Nack("", "Failed to decode incoming data:invalid character")),
    ("data_without_topic", DecodeError),
    ("kline_of_trades", None),
    ("tickers_as_a_list", DecodeError),
    ("unknown_kind", DecodeError),
    ("truncated", DecodeError),
    ("bad_utf8", DecodeError),
]


@pytest.mark.parametrize(("name", "expected"), CASES, ids=[name for name, _ in CASES])
def test_a_frame_decodes_as_the_table_says(name, expected):
    check_row("bybit", ("BTCUSDT",), name, expected)


def row(number, side="buy", time_ms=1790000000250, *, price=97421.5, size=0.012, sequence=3189232173, **rest):
    trade_id = f"{number:08x}-0000-5000-8000-0000000000ab"
    return trade(trade_id, price, size, side, time_ms * 1_000_000, sequence, **rest)


# What each is, in order; and then, perhaps, the error.
TRADES = {
    "trade": ([row(1)],),
    "trade_numeric_id": ([{**row(1), "trade_id": "2100000000188691524"}],),
    "trade_linear": ([row(1)],),
    "trade_lacks_side": ([{**row(1, sequence=0), "side": 0}],),
    "trades": (
        [
            row(1, time_ms=1790000000249, is_last=False),
            row(2, "sell", price=97421.4, sequence=3189232174, index=1, is_last=False),
            row(3, size=12.0, sequence=3189232175, bits=1, index=2),
        ],
    ),
    "trades_other_key_order": ([row(1, "sell")],),
    "trades_of_nulls": ([row(1, sequence=0, is_last=False), row(2, "sell", sequence=0, index=1)],),
    "trades_some_bad": ([row(1, is_last=False), row(4, index=3)], DecodeError),
    "trades_last_bad": ([row(1, is_last=False), row(2, index=1)], DecodeError),
    "trades_all_bad": ([], DecodeError),
    "trades_none": ([],),
    "trade_unknown_symbol": ([],),
    "trades_without_topic": ([], DecodeError),
    "trade_as_an_object": ([], DecodeError),
}


@pytest.mark.parametrize("name", TRADES)
def test_the_trades_of_a_frame_are_as_the_table_says(name):
    rows, *error = TRADES[name]
    check_trades("bybit", ("BTCUSDT",), name, rows, *error)


def test_every_frame_on_disk_has_a_row():
    assert every_frame("bybit") == {name for name, _ in CASES} | set(TRADES) | {"trades_repeated"}


def test_a_trade_that_comes_twice_in_a_message_is_published_once_and_the_last_new_one_is_the_last():
    market, line = BybitSpot(), Line(0)
    market.add(["BTCUSDT"], wire.SIMULATED, "trade")
    found = trades(market, load("bybit", "trades_repeated"), RECV_NS, line)
    assert found == ([row(1, is_last=False), row(2, index=1)], None)
    assert (line.frames, line.first, line.duplicate) == (3, 2, 1)


def test_a_message_of_as_many_trades_as_it_may_have_is_taken_whole_and_so_is_the_rest_in_the_next():
    market, line = BybitSpot(), Line(0)
    market.add(["BTCUSDT"], wire.SIMULATED, "trade")
    frame = json.loads(load("bybit", "trade"))
    rows = [{**frame["data"][0], "i": f"{number}"} for number in range(1025)]
    found = []
    for part in (rows[:1024], rows[1024:]):
        payload = msgspec.json.encode({**frame, "data": part})
        taken, error = trades(market, payload, RECV_NS, line)
        assert error is None
        found += taken
    assert [each["trade_id"] for each in found] == [f"{number}" for number in range(1025)]
    assert [each["index"] for each in found] == [*range(1024), 0]
    assert [number for number, each in enumerate(found) if each["is_last"]] == [1023, 1024]


ANSWERS = [
    ("rest/time", 1790000000250123456, ""),
    ("rest/time_refused", ProtocolError, "Too many visits! .code 10006"),
    ("rest/time_huge", DecodeError, "<="),
    ("rest/quote", (97421.4, 0.125, 97421.6, 3.75), ""),
    ("rest/quote_empty_bid", (NAN, 0.0, 97421.6, 3.75), ""),
    ("rest/quote_null_bid", (NAN, 0.0, 97421.6, 3.75), ""),
    ("rest/quote_unknown_symbol", ProtocolError, "Not supported symbols .code 10001"),
    ("rest/quote_of_none", ProtocolError, "lists no such symbol"),
    ("rest/quote_of_two", DecodeError, "several answered"),
    ("rest/quote_nan", DecodeError, "'nan' is no price or size"),
]


@pytest.mark.parametrize(("name", "expected", "message"), ANSWERS, ids=[name for name, _, _ in ANSWERS])
def test_a_rest_answer_decodes_as_the_table_says(name, expected, message):
    check_answer("bybit", name, expected, message)


def test_every_rest_answer_on_disk_has_a_row():
    assert every_answer("bybit") == {name for name, _, _ in ANSWERS}


def test_a_quote_is_asked_for_with_the_symbol_encoded():
    request = BybitSpot().quote_request("A&BUSDT")
    assert request.path == "/v5/market/tickers?category=spot&symbol=A%26BUSDT"
    assert (request.weight, request.method) == (1, "GET")


def test_both_channels_together_fill_every_field():
    exchange = make("bybit", "BTCUSDT")
    decoded(exchange, load("bybit", "tickers"), RECV_NS, exchange.line)
    state = decoded(exchange, load("bybit", "orderbook"), RECV_NS, exchange.line)
    assert values(state) == {**TICKER, **BOOK}


def test_a_repeated_book_is_a_sign_of_life_and_a_late_one_is_dropped():
    exchange = make("bybit", "BTCUSDT")
    assert decoded(exchange, load("bybit", "orderbook"), RECV_NS, exchange.line) is not None
    assert decoded(exchange, load("bybit", "orderbook"), RECV_NS + 3_000_000_000, exchange.line) is not None
    late = load("bybit", "orderbook").replace(b"8100001", b"8100000")
    assert decoded(exchange, late, RECV_NS, exchange.line) is None


def delta(update_id, bids, asks):
    """A change of the book that the frame `orderbook` has, with id 8100001."""
    frame = json.loads(load("bybit", "orderbook_delta"))
    frame["data"] |= {"u": update_id, "b": bids, "a": asks}
    return json.dumps(frame).encode()


@pytest.mark.parametrize(
    ("bids", "asks", "expected"),
    [
        ([], [], (97421.4, 0.125, 97421.5, 3.75)),
        ([["97421.4", "0.5"]], [], (97421.4, 0.5, 97421.5, 3.75)),
        ([["97421.4", "0"], ["97420.1", "2"]], [], (97420.1, 2.0, 97421.5, 3.75)),
        ([["97420.1", "2"], ["97421.4", "0"]], [], (97420.1, 2.0, 97421.5, 3.75)),
        ([], [["97421.5", "0"]], (97421.4, 0.125, NAN, 0.0)),
        ([["97421.45", "1"]], [["97421.5", "0"], ["97422", "9"]], (97421.45, 1.0, 97422.0, 9.0)),
    ],
)
def test_a_delta_of_the_best_level_is_applied(bids, asks, expected):
    exchange = make("bybit", "BTCUSDT")
    decoded(exchange, load("bybit", "orderbook"), RECV_NS, exchange.line)
    state = decoded(exchange, delta(8100002, bids, asks), RECV_NS, exchange.line)
    assert repr((state.bid, state.bid_size, state.ask, state.ask_size)) == repr(expected)
    assert state.exchange_sequence == 8100002


def test_a_delta_to_another_book_than_the_one_that_is_known_is_refused():
    exchange = make("bybit", "BTCUSDT")
    other = Line(1)
    change = delta(8100004, [["97400", "1"]], [])
    with pytest.raises(DecodeError, match="before its snapshot"):
        decoded(exchange, change, RECV_NS, exchange.line)
    decoded(exchange, load("bybit", "orderbook"), RECV_NS, exchange.line)
    newer = load("bybit", "orderbook").replace(b"8100001", b"8100003").replace(b"97421.4", b"97410")
    decoded(exchange, newer, RECV_NS, other)
    with pytest.raises(DecodeError, match="a book that is not known"):
        decoded(exchange, change, RECV_NS, exchange.line)
    assert decoded(exchange, delta(8100003, [["97410", "1"]], []), RECV_NS, exchange.line) is None, "known"
    assert decoded(exchange, change, RECV_NS, exchange.line).bid == 97400.0, "both have come as far"


def test_update_id_1_is_a_restart_and_not_late():
    exchange = make("bybit", "BTCUSDT")
    decoded(exchange, load("bybit", "orderbook"), RECV_NS, exchange.line)
    state = decoded(exchange, load("bybit", "orderbook").replace(b"8100001", b"1"), RECV_NS, exchange.line)
    assert state.exchange_sequence == 1


def test_requests_stay_under_the_limits_and_lose_no_topic():
    exchange = BybitSpot()
    natives = [f"SYMBOL{i}USDT" for i in range(1500)]
    connections = exchange.connections(exchange.add(natives, 0))
    assert [state.native for run in connections for state in run] == natives
    assert len(connections) > 1
    for run in connections:
        topics = [topic for state in run for topic in exchange.topics(state.native, state.kind)]
        with_canary = [*topics, "orderbook.1.BTCUSDT"]
        assert len(json.dumps(with_canary, separators=(",", ":"))) <= ARGS_LENGTH_MAX
        batches = list(exchange.batches(topics))
        assert [topic for batch in batches for topic in batch] == topics
        assert all(len(batch) <= TOPICS_PER_COMMAND for batch in batches)


def test_requests_are_as_documented():
    exchange = BybitSpot()
    topics = exchange.topics("BTCUSDT", "ticker")
    assert json.loads(exchange.subscribe(topics, "7")) == {
        "req_id": "7",
        "op": "subscribe",
        "args": ["tickers.BTCUSDT", "orderbook.1.BTCUSDT"],
    }
    assert json.loads(exchange.ping("8")) == {"req_id": "8", "op": "ping"}
    assert exchange.endpoint("ws://h:1", b"", "c").url == "ws://h:1/v5/public/spot"


def test_instruments_come_from_instruments_info():
    rows = [
        {"symbol": "BTCUSDT", "baseCoin": "BTC", "quoteCoin": "USDT", "status": "Trading", "symbolType": ""},
        {"symbol": "1XUSDUSDT", "baseCoin": "1XUSD", "quoteCoin": "USDT", "status": "Trading"},
    ]
    body = {"retCode": 0, "retMsg": "OK", "result": {"category": "spot", "list": rows}, "time": 1}
    instruments = BybitSpot().decode_instruments(msgspec.json.encode(body))
    assert [(i.native, i.symbol) for i in instruments.items] == [
        ("BTCUSDT", "BTC/USDT"),
        ("1XUSDUSDT", "1XUSD/USDT"),
    ]


def test_an_error_with_http_200_is_told_apart():
    with pytest.raises(ProtocolError, match="10006"):
        BybitSpot().decode_instruments(b'{"retCode":10006,"retMsg":"Too many visits!","result":{}}')


def test_a_survey_is_read_row_by_row():
    row = (
        b'{"symbol":"AUSDT","bid1Price":"1.5","bid1Size":"2","ask1Price":"","ask1Size":"","lastPrice":"7",'
        b'"prevPrice24h":"6","highPrice24h":"8","lowPrice24h":"5","volume24h":"4","turnover24h":"28"}'
    )
    body = b'{"retCode":0,"retMsg":"OK","result":{"category":"spot","list":[%s,{"symbol":"B"},%s]}}'
    rows = BybitSpot().decode_survey(body % (row, row.replace(b'"turnover24h":"28"', b'"turnover24h":""')))
    first, second = rows.items
    assert (first.quote.bid, first.quote.ask_size, first.quote.ask != first.quote.ask) == (1.5, 0.0, True)
    assert (first.last, first.statistics) == (7.0, (6.0, 8.0, 5.0, 4.0, 28.0))
    assert second.statistics is None
    assert "1 of 3 rows" in rows.problem
