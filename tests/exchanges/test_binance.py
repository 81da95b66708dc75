"""Binance: every message kind on our channels, and what must not be one."""

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
    values,
    without,
)

from feedhandler.data import wire
from feedhandler.data.errors import DecodeError, ProtocolError
from feedhandler.exchanges.arbitration import Line
from feedhandler.exchanges.base import Ack, Goodbye, Nack
from feedhandler.exchanges.binance import COMMAND_SIZE_MAX, STREAMS_PER_CONNECTION, BinanceSpot
from feedhandler.exchanges.books import Base
from feedhandler.exchanges.state import QUOTE as QUOTE_CHANNEL

QUOTE = {"bid": 97421.49, "bid_size": 0.125, "ask": 97421.5, "ask_size": 3.75}
STATISTICS = {
    "last": 97421.5,
    "open_24h": 96000.0,
    "high_24h": 98000.25,
    "low_24h": 95500.125,
    "base_volume_24h": 18234.5,
    "quote_volume_24h": 1770000000.0625,
}
TICKER = {**STATISTICS, **QUOTE, "exchange_ns": 1790000000250125000}
BOOK = {**QUOTE, "exchange_sequence": 79231000001}
BIDS = ((97421.4, 0.125), (97421.1, 2.0), (97420.0, 0.5))
ASKS = ((97421.6, 3.75), (97422.0, 1.5))
DEPTH = {"bids": BIDS, "asks": ASKS, "exchange_sequence": 79231000003}
TWENTY_BIDS = tuple((float(f"{97421.4 - i / 10:.8f}"), 0.125 + i) for i in range(20))
TWENTY_ASKS = tuple((float(f"{97421.6 + i / 10:.8f}"), 1.0 + i) for i in range(20))

CASES = [
    ("ticker", TICKER),
    ("ticker_raw", TICKER),
    ("ticker_milliseconds", {**TICKER, "exchange_ns": 1790000000250000000}),
    (
        "ticker_never_traded",
        {**QUOTE, "base_volume_24h": 0.0, "quote_volume_24h": 0.0, "exchange_ns": 1790000000250125000},
    ),
    ("ticker_not_ascii", TICKER),
    ("ticker_unknown_symbol", None),
    ("ticker_nan", DecodeError),
    ("ticker_infinite", DecodeError),
    ("ticker_huge_time", DecodeError),
    ("ticker_lacks_last", without(TICKER, "last")),
    ("ticker_null_volume", without(TICKER, "base_volume_24h", "high_24h")),
    ("ticker_raw_null_volume", without(TICKER, "base_volume_24h")),
    ("ticker_empty_numbers", DecodeError),
    ("book_ticker", BOOK),
    ("book_ticker_raw", BOOK),
    (
        "book_ticker_empty_bid",
        {"bid_size": 0.0, "ask": 97421.5, "ask_size": 3.75, "exchange_sequence": 79231000001},
    ),
    ("book_ticker_negative_size", DecodeError),
    ("book_ticker_huge_id", DecodeError),
    ("book_ticker_lacks_ask", without(BOOK, "ask")),
    ("book_ticker_empty_size", without(BOOK, "bid_size")),
    ("book_ticker_null_prices", DecodeError),
    ("depth", DEPTH),
    ("depth_twenty", {**DEPTH, "bids": TWENTY_BIDS, "asks": TWENTY_ASKS}),
    ("depth_data_first", DEPTH),
    ("depth_not_ascii", DEPTH),
    ("depth_escaped_stream", DEPTH),
    ("depth_empty_side", without(DEPTH, "bids")),
    ("depth_empty", without(DEPTH, "bids", "asks")),
    ("depth_crossed", {**DEPTH, "bids": ((97421.6, 1.0), *BIDS), "is_invalid": True}),
    ("depth_in_disorder", DEPTH),
    ("depth_zero_levels", DEPTH),
    ("depth_unknown_symbol", None),
    ("depth_of_five_levels", None),
    ("depth_raw", DecodeError),
    ("depth_lacks_asks", DecodeError),
    ("depth_null_side", DecodeError),
    ("depth_lacks_id", DecodeError),
    ("depth_negative_size", DecodeError),
    ("depth_nan", DecodeError),
    ("depth_half_a_level", DecodeError),
    ("mini_ticker", None),
    ("server_shutdown", Goodbye("serverShutdown announced")),
    ("server_shutdown_raw", Goodbye("serverShutdown announced")),
    ("ack", Ack("7")),
    ("list_subscriptions", Ack("8")),
    ("get_property", Ack("9")),
    ("error_flat", Nack("12", "Invalid request: too many parameters (code 2)")),
    ("error_nested", Nack("13", "Invalid request: invalid stream (code 2)")),
    ("error_invalid_json", Nack("", "Invalid JSON: expected value at line 1 column 9 (code 3)")),
    ("truncated", DecodeError),
    ("bad_utf8", DecodeError),
    ("nested_too_deep", DecodeError),
    ("empty", DecodeError),
]


@pytest.mark.parametrize(("name", "expected"), CASES, ids=[name for name, _ in CASES])
def test_a_frame_decodes_as_the_table_says(name, expected):
    check_row("binance", ("BTCUSDT", "汉字币USDT"), name, expected)


BUY = trade("5790000017", 97421.5, 0.012, "buy", 1790000000250125000, 5790000017)
# What each is, in order; and then, perhaps, the error.
TRADES = {
    "trade": ([BUY],),
    "trade_raw": ([BUY],),
    "trade_sold": ([trade("5790000018", 97421.5, 0.012, "sell", 1790000000250125000, 5790000018)],),
    "trade_milliseconds": ([{**BUY, "exchange_ns": 1790000000250000000}],),
    "trade_lacks_side": ([{**BUY, "side": 0}],),
    "trade_unknown_symbol": ([],),
    "trade_lacks_id": ([], DecodeError),
    "trade_lacks_time": ([], DecodeError),
    "trade_price_zero": ([], DecodeError),
    "trade_size_null": ([], DecodeError),
    "trade_negative_price": ([], DecodeError),
    "trade_nan": ([], DecodeError),
    "trade_huge_id": ([], DecodeError),
    "trade_huge_time": ([], DecodeError),
    "agg_trade": ([],),
    "block_trade": ([],),
}


@pytest.mark.parametrize("name", TRADES)
def test_the_trades_of_a_frame_are_as_the_table_says(name):
    rows, *error = TRADES[name]
    check_trades("binance", ("BTCUSDT",), name, rows, *error)


def test_every_frame_on_disk_has_a_row():
    assert every_frame("binance") == {name for name, _ in CASES} | set(TRADES)


ANSWERS = [
    ("rest/time", 1790000000250125000, ""),
    ("rest/time_milliseconds", 1790000000250000000, ""),
    ("rest/time_huge", DecodeError, "of the year"),
    ("rest/time_text", DecodeError, "binance time: .*int"),
    ("rest/quote", (97421.4, 0.125, 97421.6, 3.75), ""),
    ("rest/quote_empty_bid", (NAN, 0.0, 97421.6, 3.75), ""),
    ("rest/quote_unknown_symbol", ProtocolError, "Invalid symbol. .code -1121"),
    ("rest/quote_banned", ProtocolError, "IP banned until"),
    ("rest/quote_lacks_ask", DecodeError, "lacks a price or size"),
    ("rest/quote_of_all", DecodeError, "binance bookTicker: .*array"),
    ("rest/quote_negative_size", DecodeError, ">= 0.0"),
]


@pytest.mark.parametrize(("name", "expected", "message"), ANSWERS, ids=[name for name, _, _ in ANSWERS])
def test_a_rest_answer_decodes_as_the_table_says(name, expected, message):
    check_answer("binance", name, expected, message)


def test_every_rest_answer_on_disk_has_a_row():
    assert every_answer("binance") == {name for name, _, _ in ANSWERS}


def test_a_quote_is_asked_for_with_the_symbol_encoded():
    request = BinanceSpot().quote_request("汉字币USDT")
    assert request.path == "/api/v3/ticker/bookTicker?symbol=%E6%B1%89%E5%AD%97%E5%B8%81USDT"
    assert (request.weight, request.method) == (2, "GET")


def test_both_channels_together_fill_every_field():
    exchange = make("binance", "BTCUSDT")
    decoded(exchange, load("binance", "book_ticker"), RECV_NS, exchange.line)
    state = decoded(exchange, load("binance", "ticker"), RECV_NS, exchange.line)
    assert values(state) == {**TICKER, **BOOK}


def test_the_slow_channel_fills_the_quote_and_never_overwrites_what_its_own_has_sent():
    exchange = make("binance", "BTCUSDT")
    state = decoded(exchange, load("binance", "ticker"), RECV_NS, exchange.line)
    assert state.bid == 97421.49
    decoded(
        exchange, load("binance", "book_ticker").replace(b"97421.49", b"97400.00"), RECV_NS, exchange.line
    )
    later = load("binance", "ticker").replace(b"97421.49", b"97500.00")
    state = decoded(exchange, later, RECV_NS + 3600_000_000_000, exchange.line)
    assert (state.bid, state.stated(QUOTE_CHANNEL)[0]) == (97400.0, 97500.0)


def test_a_late_book_ticker_does_not_move_the_quote_backwards():
    exchange = make("binance", "BTCUSDT")
    state = decoded(exchange, load("binance", "book_ticker"), RECV_NS, exchange.line)
    late = (
        load("binance", "book_ticker").replace(b"79231000001", b"79231000000").replace(b"97421.49", b"1.00")
    )
    assert decoded(exchange, late, RECV_NS, exchange.line) is None
    assert state.bid == 97421.49


def test_a_book_ticker_after_a_ticker_states_no_event_time():
    exchange = make("binance", "BTCUSDT")
    decoded(exchange, load("binance", "ticker"), RECV_NS, exchange.line)
    assert decoded(exchange, load("binance", "book_ticker"), RECV_NS, exchange.line).exchange_ns == 0


def test_streams_are_lower_case_and_microseconds_are_asked_for():
    exchange = BinanceSpot()
    assert exchange.topics("BTCUSDT", "ticker") == ("btcusdt@ticker", "btcusdt@bookTicker")
    assert exchange.endpoint("ws://h:1", b"", "x").url == "ws://h:1/stream?timeUnit=MICROSECOND"


def test_requests_stay_under_the_limits_and_lose_no_stream():
    exchange = BinanceSpot()
    natives = [f"{i}汉字汉字汉字USDT" for i in range(2900)]
    connections = exchange.connections(exchange.add(natives, 0))
    assert [state.native for run in connections for state in run] == natives
    for run in connections:
        topics = [topic for state in run for topic in exchange.topics(state.native, state.kind)]
        assert len(topics) + 1 <= STREAMS_PER_CONNECTION, "there is the canary"
        batches = list(exchange.batches(topics))
        assert [topic for batch in batches for topic in batch] == topics
        for batch in batches:
            assert len(exchange.subscribe(batch, "123456789")) <= COMMAND_SIZE_MAX


def test_a_subscription_is_the_documented_request():
    request = json.loads(BinanceSpot().subscribe(("btcusdt@ticker",), "7"))
    assert request == {"method": "SUBSCRIBE", "params": ["btcusdt@ticker"], "id": 7}


def test_instruments_come_from_exchange_info():
    def row(symbol, base, quote, status="TRADING", spot=True):
        return {
            "symbol": symbol,
            "status": status,
            "baseAsset": base,
            "quoteAsset": quote,
            "isSpotTradingAllowed": spot,
            "permissions": [],
        }

    body = {
        "timezone": "UTC",
        "symbols": [
            row("BTCUSDT", "BTC", "USDT"),
            row("汉字币USDT", "汉字币", "USDT"),
            row("OLDBTC", "OLD", "BTC", status="BREAK"),
            row("LOCKEDEUR", "LOCKED", "EUR", spot=False),
        ],
    }
    instruments = BinanceSpot().decode_instruments(msgspec.json.encode(body))
    assert [(i.native, i.symbol, i.is_trading) for i in instruments.items] == [
        ("BTCUSDT", "BTC/USDT", True),
        ("汉字币USDT", "汉字币/USDT", True),
        ("OLDBTC", "OLD/BTC", False),
        ("LOCKEDEUR", "LOCKED/EUR", False),
    ]


@pytest.mark.parametrize(
    ("body", "error", "text"),
    [
        (
            b'{"code":-1003,"msg":"Way too much request weight used."}',
            ProtocolError,
            "too much request weight",
        ),
        (b"<html>blocked</html>", DecodeError, "answer starts '<html>"),
        (b'{"symbols":[{"symbol":"BTCUSDT"}]}', ProtocolError, "none of 1 rows can be read.*status"),
        (b'{"x":' + b"[" * 20000, DecodeError, "recursion"),
    ],
)
def test_a_bad_instrument_answer_says_what_is_wrong(body, error, text):
    with pytest.raises(error, match=text):
        BinanceSpot().decode_instruments(body)


def test_a_survey_is_read_row_by_row():
    quotes = b"""[{"symbol":"AUSDT","bidPrice":"1.5","bidQty":"2","askPrice":"1.6","askQty":"3"},
      {"symbol":"BUSDT","bidPrice":"0.00000000","bidQty":"0.0","askPrice":"1.6","askQty":"3"},
      {"symbol":"CUSDT","bidPrice":null,"bidQty":"2","askPrice":"1.6","askQty":"3"}, {"symbol":null}]"""
    rows = BinanceSpot().decode_survey(quotes)
    assert [(row.native, row.quote.ask, row.quote.bid_size) for row in rows.items] == [
        ("AUSDT", 1.6, 2.0),
        ("BUSDT", 1.6, 0.0),
    ]
    assert "2 of 4 rows" in rows.problem
    day = b"""[{"symbol":"AUSDT","lastPrice":"7","openPrice":"6","highPrice":"8","lowPrice":"5","volume":"4",
      "quoteVolume":"28","bidPrice":"1","bidQty":"1","askPrice":"2","askQty":"1"},
      {"symbol":"BUSDT","lastPrice":"7","openPrice":"6","highPrice":"8","lowPrice":"5","volume":null}]"""
    first, second = BinanceSpot().decode_survey(day).items
    assert (first.quote, first.last, first.statistics) == (None, 7.0, (6.0, 8.0, 5.0, 4.0, 28.0))
    assert (second.last, second.statistics) == (7.0, None)


STREAMS = ("trade", "depth@100ms", "depth20@100ms", "depth5@100ms", "bookTicker", "ticker", "x")
DATA = [name for name in sorted(every_frame("binance")) if load("binance", name).startswith(b'{"stream":"')]


@pytest.mark.parametrize("name", [*DATA, "books/changes"])
def test_a_message_is_what_its_data_say_whatever_stream_it_names_and_wherever(name):
    """What begins with the name of a stream is decoded as that first; what does not, as anything."""
    if name == "books/changes":
        data = (
            b'{"e":"depthUpdate","E":1790000000250125,"s":"BTCUSDT","U":101,"u":102,"b":[["9.0","1"]],"a":[]}'
        )
    else:
        data = load("binance", name).partition(b',"data":')[2].rstrip()[:-1]
    for stream in STREAMS:
        named = b'"stream":"btcusdt@%b"' % stream.encode()
        assert outcome(b'{%b,"data":%b}' % (named, data)) == outcome(b'{"data":%b,%b}' % (data, named)), (
            stream
        )


def outcome(payload):
    """What is emitted of a message by a market with symbols of all kinds, and whether it is refused."""
    market, found, line = BinanceSpot(), [], Line(0)
    for kind in market.kinds:
        market.add(["BTCUSDT"], wire.SIMULATED, kind)
    book = market.states["book"]["BTCUSDT"]
    base = Base(100, [(8.0, 1.0)], [(10.0, 1.0)])
    book.offer([0], base, RECV_NS, found.append)
    found = [book.record()]
    try:
        market.decode(payload, RECV_NS, line, lambda state: found.append(state.record()))
    except DecodeError:
        found.append("refused")
    return found, line.frames
