"""Binance's USD-M perpetuals: every message kind on our channels, and what must not be one."""

import json

import pytest
from table import (
    FRAMES,
    NAN,
    RECV_NS,
    check_answer,
    check_row,
    check_trades,
    contract_of,
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
from feedhandler.data.errors import DecodeError, ProtocolError, SubscriptionRejected
from feedhandler.data.instruments import InstrumentTable
from feedhandler.data.kept_book import Book
from feedhandler.exchanges.arbitration import Line
from feedhandler.exchanges.base import Ack, Nack, StatedQuote
from feedhandler.exchanges.binance import COMMAND_SIZE_MAX, MARKET, PUBLIC, BinanceLinear, BinanceSpot
from feedhandler.exchanges.trades import PastTrade, numbered

LINEAR = "binance_linear"
NATIVE = "BTCUSDT"


QUOTE = {
    "bid": 97421.4,
    "bid_size": 0.125,
    "ask": 97421.6,
    "ask_size": 3.75,
    "exchange_ns": 1790000000270000000,
    "exchange_sequence": 79231000001,
}
STATISTICS = {
    "last": 97421.5,
    "open_24h": 96000.0,
    "high_24h": 98000.25,
    "low_24h": 95500.125,
    "base_volume_24h": 18234.5,
    "quote_volume_24h": 1770000000.0625,
    "exchange_ns": 1790000000250000000,
}
BIDS = ((97421.4, 0.125), (97421.1, 2.0), (97420.0, 0.5))
ASKS = ((97421.6, 3.75), (97422.0, 1.5))
DEPTH = {
    "bids": BIDS,
    "asks": ASKS,
    "exchange_ns": 1790000000280000000,
    "exchange_sequence": 79231000003,
}
TWENTY_BIDS = tuple((float(f"{97421.4 - i / 10:.1f}"), 0.5 + i) for i in range(20))
TWENTY_ASKS = tuple((float(f"{97421.6 + i / 10:.1f}"), 1.0 + i) for i in range(20))

CASES = [
    ("book_ticker", QUOTE),
    ("book_ticker_zero_bid", {**without(QUOTE, "bid"), "bid_size": 0.0}),
    ("book_ticker_null_bid", without(QUOTE, "bid", "bid_size")),
    ("book_ticker_lacks_times", without(QUOTE, "exchange_ns")),
    ("book_ticker_lacks_prices", DecodeError),
    ("book_ticker_lacks_id", DecodeError),
    ("book_ticker_huge_id", DecodeError),
    ("book_ticker_huge_time", DecodeError),
    ("book_ticker_nan", DecodeError),
    ("book_ticker_negative_size", DecodeError),
    ("book_ticker_unknown_symbol", None),
    ("ticker", STATISTICS),
    (
        "ticker_never_traded",
        {"base_volume_24h": 0.0, "quote_volume_24h": 0.0, "exchange_ns": 1790000000250000000},
    ),
    ("ticker_null_volume", without(STATISTICS, "base_volume_24h")),
    ("ticker_lacks_time", DecodeError),
    ("ticker_infinite", DecodeError),
    ("ticker_empty_numbers", DecodeError),
    ("ticker_unknown_symbol", None),
    ("depth", DEPTH),
    ("depth_twenty", {**DEPTH, "bids": TWENTY_BIDS, "asks": TWENTY_ASKS}),
    ("depth_empty_side", without(DEPTH, "bids")),
    ("depth_crossed", {**DEPTH, "bids": ((97422.0, 1.0),), "is_invalid": True}),
    ("depth_lacks_bids", DecodeError),
    ("depth_lacks_id", DecodeError),
    ("depth_half_a_level", DecodeError),
    ("depth_nan", DecodeError),
    ("depth_negative_size", DecodeError),
    ("depth_of_no_stream", DecodeError),
    ("depth_of_five_levels", None),
    ("depth_changes", None),
    ("depth_unknown_symbol", None),
    ("mark_price_lacks_time", DecodeError),
    ("mark_price_negative", DecodeError),
    ("mark_price_infinite_rate", DecodeError),
    ("mark_price_lacks_numbers", DecodeError),
    ("mark_price_unknown_symbol", None),
    ("kline", None),
    ("ack", Ack("7")),
    ("list_subscriptions", Ack("8")),
    ("error_flat", Nack("12", "Invalid request: too many parameters (code 2)")),
    ("error_nested", Nack("13", "Invalid request: invalid stream (code 2)")),
    ("of_no_event", DecodeError),
    ("truncated", DecodeError),
    ("bad_utf8", DecodeError),
    ("empty", DecodeError),
]


@pytest.mark.parametrize(("name", "expected"), CASES, ids=[name for name, _ in CASES])
def test_a_frame_decodes_as_the_table_says(name, expected):
    check_row(LINEAR, (NATIVE,), name, expected)


BUY = trade("2790000017", 97421.5, 0.012, "buy", 1790000000250000000, 2790000017) | {"count": 3}
TRADES = {
    "agg_trade": ([BUY],),
    "agg_trade_sold": ([trade("2790000018", 97421.5, 0.012, "sell", 1790000000250000000, 2790000018)],),
    "agg_trade_lacks_side": ([{**BUY, "side": 0}],),
    "agg_trade_lacks_id": ([], DecodeError),
    "agg_trade_lacks_time": ([], DecodeError),
    "agg_trade_lacks_last": ([], DecodeError),
    "agg_trade_ends_before_it_begins": ([], DecodeError),
    "agg_trade_price_zero": ([], DecodeError),
    "agg_trade_size_null": ([], DecodeError),
    "agg_trade_huge_id": ([], DecodeError),
    "agg_trade_unknown_symbol": ([],),
}


@pytest.mark.parametrize("name", TRADES)
def test_the_trades_of_a_frame_are_as_the_table_says(name):
    rows, *error = TRADES[name]
    check_trades(LINEAR, (NATIVE,), name, rows, *error)


SOLD = trade("", 97100.5, 0.014, "sell", 1790000000260000000)
LIQUIDATIONS = {
    "force_order": ([SOLD],),
    "force_order_bought": ([{**SOLD, "side": wire.Side.BUY}],),
    "force_order_of_no_side": ([{**SOLD, "side": 0}],),
    "force_order_lacks_time": ([], DecodeError),
    "force_order_lacks_order": ([], DecodeError),
    "force_order_price_zero": ([], DecodeError),
    "force_order_unknown_symbol": ([],),
}


@pytest.mark.parametrize("name", LIQUIDATIONS)
def test_the_liquidations_of_a_frame_are_as_the_table_says(name):
    rows, *error = LIQUIDATIONS[name]
    check_trades(LINEAR, (NATIVE,), name, rows, *error, kind="liquidation")


MARK = {
    "mark": 97420.75,
    "index": 97400.25,
    "funding_rate": 0.0001,
    "next_funding_ns": 1790006400000000000,
    "exchange_ns": 1790000000000000000,
}
CONTRACTS = {
    "mark_price": MARK,
    "mark_price_negative_rate": {**MARK, "funding_rate": -0.000125},
    "mark_price_zero_index": without(MARK, "index"),
    "mark_price_without_funding": without(MARK, "funding_rate", "next_funding_ns"),
}


def wanting(*kinds):
    market = BinanceLinear()
    for kind in kinds:
        market.add([NATIVE], wire.SIMULATED, kind)
    return market


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_frame_has_what_is_known_of_a_contract(name):
    assert contract_of(wanting("contract"), load(LINEAR, name)) == CONTRACTS[name]


def bare(name):
    """A frame as a connection of one stream has it."""
    return json.dumps(json.loads(load(LINEAR, name))["data"]).encode()


def test_frames_of_a_connection_of_one_stream_are_known_by_their_event():
    assert contract_of(wanting("contract"), bare("mark_price")) == MARK
    market = make(LINEAR, NATIVE)
    assert values(decoded(market, bare("book_ticker"), RECV_NS, market.line)) == QUOTE
    assert decoded(market, bare("kline"), RECV_NS, market.line) is None
    with pytest.raises(DecodeError, match="of no stream"):  # of the whole book, or of depth
        market.decode(bare("depth"), RECV_NS, market.line, [].append)
    with pytest.raises(DecodeError):
        market.decode(b"{}", RECV_NS, market.line, [].append)


def test_an_older_mark_price_of_another_line_is_dropped():
    market = wanting("contract")
    contract_of(market, load(LINEAR, "mark_price"))
    late = load(LINEAR, "mark_price_negative_rate").replace(b"1790000000000", b"1789999999000")
    assert decoded(market, late, RECV_NS, Line(1)) is None
    assert market.states["contract"][NATIVE].funding_rate == 0.0001


def test_both_channels_together_fill_every_field_and_each_has_its_own():
    market = make(LINEAR, NATIVE)
    decoded(market, load(LINEAR, "ticker"), RECV_NS, market.line)
    state = decoded(market, load(LINEAR, "book_ticker"), RECV_NS, market.line)
    assert values(state) == {**STATISTICS, **QUOTE}
    assert decoded(market, load(LINEAR, "book_ticker"), RECV_NS, Line(1)) is None


def test_every_frame_on_disk_has_a_row():
    assert every_frame(LINEAR) == {name for name, _ in CASES} | {*TRADES, *LIQUIDATIONS, *CONTRACTS}


ANSWERS = [
    ("rest/time", 1790000000250000000, ""),
    ("rest/time_refused", ProtocolError, "Too many requests. .code -1003"),
    ("rest/quote", (97421.4, 0.125, 97421.6, 3.75), ""),
    ("rest/quote_empty_bid", (NAN, 0.0, 97421.6, 3.75), ""),
    ("rest/quote_unknown_symbol", ProtocolError, "Invalid symbol. .code -1121"),
    ("rest/quote_lacks_ask", DecodeError, "lacks a price or size"),
]


@pytest.mark.parametrize(("name", "expected", "message"), ANSWERS, ids=[name for name, _, _ in ANSWERS])
def test_a_rest_answer_decodes_as_the_table_says(name, expected, message):
    check_answer(LINEAR, name, expected, message)


def test_every_rest_answer_on_disk_has_a_row():
    assert every_answer(LINEAR) == {name for name, _, _ in ANSWERS}


# --- the list


def test_perpetuals_of_both_families_are_taken_and_shown_as_what_they_are():
    rows = BinanceLinear().decode_instruments(load(LINEAR, "lists/instruments_ticks"))
    assert [(i.native, i.symbol, i.is_trading, i.status, i.tick) for i in rows.items] == [
        ("BTCUSDT", "BTC/USDT:USDT", True, "TRADING", "0.1"),
        ("ETHUSDT", "ETH/USDT:USDT", True, "TRADING", "0.01"),
        ("1000PEPEUSDT", "1000PEPE/USDT:USDT", True, "TRADING", "0.0000001"),
        ("BTCUSDC", "BTC/USDC:USDC", True, "TRADING", "0.1"),
        ("TSLAUSDT", "TSLA/USDT:USDT", True, "TRADING", "0.01"),
        ("汉字币USDT", "汉字币/USDT:USDT", True, "TRADING", "0.001"),
        ("OLDUSDT", "OLD/USDT:USDT", False, "SETTLING", "0.1"),
        ("SOONUSDT", "SOON/USDT:USDT", False, "PENDING_TRADING", "0.1"),
    ]
    assert rows.problem == "", "a dated contract is left out, and no mistake"


def test_what_is_settling_is_refused_with_its_status():
    market = BinanceLinear()
    rows = market.decode_instruments(load(LINEAR, "lists/instruments_ticks"))
    table = InstrumentTable("binance", map(market.prefixed, rows.items))
    assert table.resolve("BTC/USDT:USDT").native == "linear:BTCUSDT"
    with pytest.raises(SubscriptionRejected, match="is not trading, status SETTLING"):
        table.resolve("OLD/USDT:USDT")


def test_an_odd_row_costs_itself_alone():
    rows = BinanceLinear().decode_instruments(load(LINEAR, "lists/instruments_odd_rows"))
    assert [i.symbol for i in rows.items] == ["BTC/USDT:USDT", "ETH/USDT:USDT"]
    assert "2 of 4 rows cannot be read" in rows.problem


def test_a_native_symbol_tells_what_it_is_where_there_is_no_list():
    market = BinanceLinear()
    assert market.spelled("BTCUSDT").symbol == "BTC/USDT:USDT"
    assert market.spelled("BTCUSDT_270326") is None


# --- trades over REST, and books


def test_past_trades_have_the_count_and_the_keys_of_those_of_the_stream():
    rows = BinanceLinear().decode_past_trades(NATIVE, load(LINEAR, "trades/answer"))
    one, two, t0, t1 = 2790000017, 2790000018, 1790000000250000000, 1790000000260000000
    assert rows.items == [
        PastTrade(numbered(one, t0), one, t0, one, (str(one), 97421.5, 0.012, wire.Side.BUY), count=3),
        PastTrade(numbered(two, t1), two, t1, two, (str(two), 97421.4, 1.0, wire.Side.SELL)),
    ]
    odd = BinanceLinear().decode_past_trades(NATIVE, load(LINEAR, "trades/one_odd"))
    assert [row.number for row in odd.items] == [two]
    assert "1 of 2 rows" in odd.problem
    with pytest.raises(DecodeError, match="binance aggTrades"):
        BinanceLinear().decode_past_trades(NATIVE, load(LINEAR, "trades/refused"))


LEVELS = [(97421.4, 0.125), (97421.1, 2.0)], [(97421.6, 3.75), (97422.0, 1.5)]
CHANGED = [(97421.4, 0.13), (97421.1, 2.0)]
SAME, LOST = "same", "lost"
STORY = [
    ("delta_before_the_base", SAME),
    ("delta_around_the_base", SAME),
    ("base", (104, CHANGED, LEVELS[1])),
    ("unknown_symbol", SAME),
    ("lacks_what_it_follows", DecodeError),
    ("lacks_a_side", DecodeError),
    ("negative_size", DecodeError),
    ("nan", DecodeError),
    ("ends_before_it_begins", DecodeError),
    ("base_lacks_id", DecodeError),
    ("base_refused", ProtocolError),
    ("delta_next", (115, CHANGED, LEVELS[1][:1])),
    ("delta_after_a_gap", LOST),
    ("base_after_the_gap", (131, [(97421.4, 1.0)], LEVELS[1][:1])),
]


def test_frames_make_a_book_as_the_table_says():
    market, book, line, emitted = wanting("book"), Book(), Line(0), []
    state = market.states["book"][NATIVE]

    def emit(emitting):
        takes_number, packed = emitting.takes_number, bytearray(emitting.record())
        emitting.sequence += takes_number
        wire.SEQUENCE.pack_into(packed, wire.SEQUENCE_OFFSET, emitting.sequence)
        emitted.append(wire.unpack(bytes(packed)))
        book.apply(emitted[-1])

    for name, expected in STORY:
        emitted.clear()
        body = load(LINEAR, f"books/{name}")
        if isinstance(expected, type):
            with pytest.raises(expected):
                market.decode_base(NATIVE, body) if name.startswith("base") else market.decode(
                    body, RECV_NS, line, emit
                )
        elif name.startswith("base"):
            assert state.offer([0], market.decode_base(NATIVE, body), RECV_NS, emit) == 1
        else:
            assert market.decode(memoryview(body), RECV_NS, line, emit) is None
        if expected == SAME or isinstance(expected, type):
            assert emitted == [], name
        elif expected == LOST:
            assert [record.flags & wire.NOT_LIVE for record in emitted] == [wire.INVALID]
        else:
            assert (book.last_id, book.bids[:], book.asks[:]) == expected, name
    assert {name for name, _ in STORY} == {path.stem for path in (FRAMES / LINEAR / "books").glob("*.json")}


def test_a_quote_states_the_best_levels_after_its_id():
    market = BinanceLinear()
    assert market.stated_quote(load(LINEAR, "book_ticker")) == StatedQuote(
        NATIVE, 79231000001, (97421.4, 0.125, 97421.6, 3.75)
    )
    assert market.stated_quote(load(LINEAR, "depth")) is None
    assert market.stated_quote(load(LINEAR, "truncated")) is None


# --- requests


def test_every_stream_is_on_one_of_two_paths_and_each_path_has_a_canary():
    market = BinanceLinear()
    paths = {
        topic: market.path_of(topic) for kind in market.kinds for topic in market.topics("1000PEPEUSDT", kind)
    }
    assert paths == {
        "1000pepeusdt@ticker": MARKET,
        "1000pepeusdt@bookTicker": PUBLIC,
        "1000pepeusdt@aggTrade": MARKET,
        "1000pepeusdt@depth20@100ms": PUBLIC,
        "1000pepeusdt@depth@100ms": PUBLIC,
        "1000pepeusdt@markPrice@1s": MARKET,
        "1000pepeusdt@forceOrder": MARKET,
    }
    assert market.endpoint("ws://h:1/public", b"", "x").url == "ws://h:1/public/stream"
    assert market.paths == (PUBLIC, MARKET)
    assert tuple(map(market.path_of, market.canary_topics("BTCUSDT"))) == market.paths


def test_what_is_wanted_is_spread_by_the_topics_on_each_path():
    market = BinanceLinear()
    natives = [f"A{number}USDT" for number in range(1500)]
    quotes = market.add(natives, 0, "depth")
    others = market.add(natives, 0, "trade")
    mixed = [state for pair in zip(quotes, others, strict=True) for state in pair]
    assert [len(run) for run in market.connections(quotes)] == [1000, 500]
    assert [len(run) for run in market.connections(mixed)] == [2000, 1000], "a thousand on each"


def test_requests_stay_under_the_limits():
    market = BinanceLinear()
    topics = [t for i in range(900) for t in market.topics(f"{i}汉字USDT", "ticker")]
    batches = list(market.batches(topics))
    assert [topic for batch in batches for topic in batch] == topics
    assert all(len(market.subscribe(batch, "123456789")) <= COMMAND_SIZE_MAX for batch in batches)


def test_what_is_requested_over_rest_is_weighed_and_encoded():
    market = BinanceLinear()
    for request, path, weight in (
        (market.quote_request("A&B"), "/fapi/v1/ticker/bookTicker?symbol=A%26B", 2),
        (market.base_request("A&B"), "/fapi/v1/depth?symbol=A%26B&limit=1000", 20),
        (market.past_trades_request("A&B", 7), "/fapi/v1/aggTrades?symbol=A%26B&fromId=7&limit=1000", 20),
    ):
        assert (request.path, request.weight, request.method) == (path, weight, "GET")
    base = "https://fapi.binance.com/fapi/v1/depth?symbol=BTCUSDT"
    assert market.base_at(f"{base}&limit=1000") == (NATIVE, 1000)
    assert market.base_at(base) == (NATIVE, 500)
    assert market.base_at("https://api.binance.com/api/v3/depth?symbol=BTCUSDT") is None


def test_the_markets_tell_their_addresses_apart():
    for url, market in (
        ("wss://fstream.binance.com/public/stream", BinanceLinear),
        ("https://fapi.binance.com/fapi/v1/depth?symbol=BTCUSDT", BinanceLinear),
        ("wss://stream.binance.com:9443/stream", BinanceSpot),
        ("https://api.binance.com/api/v3/depth?symbol=BTCUSDT", BinanceSpot),
    ):
        assert [m for m in (BinanceSpot, BinanceLinear) if m.addresses.match(url)] == [market]


def test_a_survey_is_read_from_both_answers():
    market = BinanceLinear()
    (quote,) = market.decode_survey(json.dumps([json.loads(load(LINEAR, "rest/quote"))]).encode()).items
    assert (quote.native, quote.quote.ask_size) == (NATIVE, 3.75)
    row = {
        "symbol": NATIVE,
        "lastPrice": "7",
        "openPrice": "6",
        "highPrice": "8",
        "lowPrice": "5",
        "volume": "4",
        "quoteVolume": "28",
    }
    (day,) = market.decode_survey(json.dumps([row]).encode()).items
    assert (day.last, day.quote, day.statistics) == (7.0, None, (6.0, 8.0, 5.0, 4.0, 28.0))
