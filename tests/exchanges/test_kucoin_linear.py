"""KuCoin's linear perpetuals: every message kind on our channels, contracts converted, and what must not be one."""

import json
from decimal import Decimal

import msgspec
import pytest
from table import (
    FRAMES,
    MARKETS,
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
from feedhandler.exchanges.base import PONG, WELCOME, Ack, Goodbye, Nack
from feedhandler.exchanges.kucoin import SYMBOLS_PER_COMMAND, TOPICS_PER_CONNECTION, KuCoinLinear
from feedhandler.exchanges.trades import PastTrade, numbered

LINEAR = "kucoin_linear"
NATIVE = "XBTUSDTM"


class Listed(KuCoinLinear):
    """One that has read the list of contracts, as a feed has before it wants any."""

    def __init__(self):
        super().__init__()
        self.learn(self.decode_instruments(load(LINEAR, "lists/instruments_ticks")).items)


@pytest.fixture(autouse=True)
def listed(monkeypatch):
    monkeypatch.setitem(MARKETS, LINEAR, Listed)


QUOTE = {
    "bid": 97421.4,
    "bid_size": 0.125,
    "ask": 97421.6,
    "ask_size": 3.75,
    "exchange_ns": 1790000000270125000,
    "exchange_sequence": 1716100000002,
}
LAST = {"last": 97421.5, "exchange_ns": 1790000000250125000}
STATISTICS = {
    "last": 97421.5,  # until there is a trade
    "open_24h": 96000.0,
    "high_24h": 98000.25,
    "low_24h": 95500.125,
    "base_volume_24h": 18234.5,
    "quote_volume_24h": 1770000000.0625,
    "exchange_ns": 1790000000240929239,
}
BIDS = ((97421.4, 0.125), (97421.1, 2.0), (97420.0, 0.5))
ASKS = ((97421.6, 3.75), (97422.0, 1.5))
DEPTH = {
    "bids": BIDS,
    "asks": ASKS,
    "exchange_ns": 1790000000280000000,
    "exchange_sequence": 1716100000010,
}
TWENTY_BIDS = tuple((float(f"{97421.4 - i / 10:.1f}"), 0.5 + i) for i in range(20))
TWENTY_ASKS = tuple((float(f"{97421.6 + i / 10:.1f}"), 1.0 + i) for i in range(20))

CASES = [
    ("ticker_v2", QUOTE),
    ("ticker_v2_sizes_as_texts", QUOTE),
    ("ticker_v2_empty_ask", {**without(QUOTE, "ask"), "ask_size": 0.0}),
    ("ticker_v2_zero_bid", {**without(QUOTE, "bid"), "bid_size": 0.0}),
    ("ticker_v2_null_bid", without(QUOTE, "bid", "bid_size")),
    ("ticker_v2_lacks_prices", DecodeError),
    ("ticker_v2_lacks_sequence", DecodeError),
    ("ticker_v2_nan", DecodeError),
    ("ticker_v2_negative_size", DecodeError),
    ("ticker_v2_huge_time", DecodeError),
    ("ticker_v2_unknown_symbol", None),
    ("execution", LAST),
    ("execution_sold", LAST),
    ("execution_lacks_id", LAST),
    ("execution_lacks_side", LAST),
    ("execution_size_as_text", LAST),
    ("execution_unknown_symbol", None),
    ("snapshot", STATISTICS),
    ("snapshot_nulls", {"exchange_ns": 1790000000240929239}),
    ("snapshot_lacks_time", DecodeError),
    ("snapshot_negative_volume", DecodeError),
    ("snapshot_unknown_symbol", None),
    ("depth", DEPTH),
    ("depth_fifty", {**DEPTH, "bids": TWENTY_BIDS, "asks": TWENTY_ASKS}),
    ("depth_numbers", {**without(DEPTH, "bids"), "asks": ASKS[:1]}),
    ("depth_empty_side", without(DEPTH, "bids")),
    ("depth_crossed", {**DEPTH, "bids": ((97422.0, 1.0),), "is_invalid": True}),
    ("depth_lacks_bids", DecodeError),
    ("depth_lacks_sequence", DecodeError),
    ("depth_half_a_level", DecodeError),
    ("depth_nan", DecodeError),
    ("depth_negative_size", DecodeError),
    ("depth_unknown_symbol", None),
    ("level2", None),
    ("instrument_mark_lacks_time", DecodeError),
    ("instrument_mark_negative", DecodeError),
    ("instrument_mark_infinite", DecodeError),
    ("instrument_funding_lacks_rate", DecodeError),
    ("instrument_funding_infinite", DecodeError),
    ("instrument_unknown_symbol", None),
    ("announcement", None),
    ("welcome", WELCOME),
    ("ack", Ack("7")),
    ("pong", PONG),
    ("error_token", Goodbye("token is invalid (code 401)")),
    ("error_topic", Nack("9", "topic /contractMarket/nope is not found (code 404)")),
    ("message_without_data", DecodeError),
    ("unknown_type", DecodeError),
    ("truncated", DecodeError),
    ("bad_utf8", DecodeError),
]


@pytest.mark.parametrize(("name", "expected"), CASES, ids=[name for name, _ in CASES])
def test_a_frame_decodes_as_the_table_says(name, expected):
    check_row(LINEAR, (NATIVE,), name, expected)


def test_sizes_of_an_instrument_of_which_no_list_has_told_are_refused_and_leave_no_trace():
    market, emitted = make(LINEAR, "NEWUSDTM"), []
    with pytest.raises(DecodeError, match="how much a contract of 'NEWUSDTM' is, is not known"):
        market.decode(load(LINEAR, "ticker_v2_unknown_size"), RECV_NS, market.line, emitted.append)
    assert not emitted
    assert not values(market.tickers["NEWUSDTM"])


BUY = trade("1794100537695", 97421.5, 0.012, "buy", 1790000000250125000, 1794100537695)
TRADES = {
    "execution": ([BUY],),
    "execution_sold": ([trade("1794100537699", 97421.5, 0.012, "sell", 1790000000250125000, 1794100537699)],),
    "execution_lacks_id": ([BUY],),
    "execution_lacks_side": ([{**BUY, "side": 0}],),
    "execution_size_as_text": ([BUY],),
    "execution_lacks_sequence": ([], DecodeError),
    "execution_lacks_price": ([], DecodeError),
    "execution_empty_time": ([], DecodeError),
    "execution_size_zero": ([], DecodeError),
    "execution_long_id": ([], DecodeError),
    "execution_negative_price": ([], DecodeError),
    "execution_huge_sequence": ([], DecodeError),
    "execution_unknown_symbol": ([],),
}


@pytest.mark.parametrize("name", TRADES)
def test_the_trades_of_a_frame_are_as_the_table_says(name):
    rows, *error = TRADES[name]
    check_trades(LINEAR, (NATIVE,), name, rows, *error)


CONTRACTS = {
    "instrument_mark": {"mark": 97420.75, "index": 97400.25, "exchange_ns": 1790000000000000000},
    "instrument_mark_alone": {"mark": 97420.75, "exchange_ns": 1790000000000000000},
    "instrument_mark_zero_index": {"mark": 97420.75, "exchange_ns": 1790000000000000000},
    "instrument_funding_predicted": {"predicted_funding_rate": -0.000125},
    "instrument_funding_due": {"funding_rate": 0.0001, "funding_interval_h": 8.0},
    "instrument_funding_due_of_4_h": {"funding_interval_h": 4.0},  # and a rate of 0
}


def wanting(*kinds):
    market = Listed()
    for kind in kinds:
        market.add([NATIVE], wire.SIMULATED, kind)
    return market


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_frame_has_what_is_known_of_a_contract(name):
    assert contract_of(wanting("contract"), load(LINEAR, name)) == CONTRACTS[name]


def take(market, payload, line=None, recv_ns=RECV_NS):
    """The kinds of what one message had emitted."""
    payload = load(LINEAR, payload) if isinstance(payload, str) else payload
    emitted = []
    assert market.decode(payload, recv_ns, line or Line(0), lambda state: emitted.append(state.kind)) is None
    return emitted


def test_rates_are_older_than_prices_on_their_channel_and_count_all_the_same():
    market = wanting("contract")
    for name in ("instrument_mark", "instrument_funding_predicted", "instrument_funding_due"):
        assert take(market, name) == ["contract"]
        assert take(market, name, Line(1)) == [], "of another connection"
    state = market.states["contract"][NATIVE]
    assert values(state) == {
        **CONTRACTS["instrument_mark"],
        **CONTRACTS["instrument_funding_predicted"],
        **CONTRACTS["instrument_funding_due"],
    }
    late = load(LINEAR, "instrument_funding_predicted").replace(b"1789999980000", b"1789999920000")
    assert take(market, late.replace(b"-0.000125", b"-0.5"), Line(1)) == []
    assert state.predicted_funding_rate == -0.000125
    state.forget()
    assert take(market, late) == ["contract"]


def test_every_frame_on_disk_has_a_row():
    rows = {name for name, _ in CASES} | {*TRADES, *CONTRACTS} | {"ticker_v2_unknown_size"}
    assert every_frame(LINEAR) == rows


ANSWERS = [
    ("rest/time", 1790000000290000000, ""),
    ("rest/time_refused", ProtocolError, "Too Many Requests .code 429000"),
    ("rest/quote", (97421.4, 0.125, 97421.6, 3.75), ""),
    ("rest/quote_empty_ask", (97421.4, 0.125, NAN, 0.0), ""),
    ("rest/quote_unknown_symbol", ProtocolError, "Symbol Not Found .code 300000"),
    ("rest/quote_empty_data", DecodeError, "no quote"),
    ("rest/quote_infinite", DecodeError, "out of range"),
    ("rest/quote_unknown_size", DecodeError, "'NEWUSDTM' is, is not known"),
]


@pytest.mark.parametrize(("name", "expected", "message"), ANSWERS, ids=[name for name, _, _ in ANSWERS])
def test_a_rest_answer_decodes_as_the_table_says(name, expected, message):
    check_answer(LINEAR, name, expected, message)


def test_every_rest_answer_on_disk_has_a_row():
    assert every_answer(LINEAR) == {name for name, _, _ in ANSWERS}


# --- the list


def test_a_contract_is_known_by_the_fields_of_the_list_and_shown_as_what_it_is():
    rows = Listed().decode_instruments(load(LINEAR, "lists/instruments_ticks"))
    assert [(i.native, i.symbol, i.is_trading, i.status, i.tick, i.contract_size) for i in rows.items] == [
        ("XBTUSDTM", "BTC/USDT:USDT", True, "Open", "0.1", "0.001"),
        ("ETHUSDTM", "ETH/USDT:USDT", True, "Open", "0.01", "0.01"),
        ("PUPUSDTM", "PUP/USDT:USDT", False, "Init", "0.00000001", "100000"),
        ("XBTUSDCM", "BTC/USDC:USDC", True, "Open", "0.1", "0.001"),
        ("XBTUSDM", "BTC/USD:BTC", False, "Open", "0.1", ""),
        ("GONUSDTM", "GON/USDT:USDT", False, "BeingSettled", "0.1", "0.001"),
        ("CANUSDTM", "CAN/USDT:USDT", False, "CancelOnly", "0.1", "0.001"),
    ]
    assert rows.problem == "", "a dated future is left out, and no mistake"


@pytest.mark.parametrize("multiplier", ["NaN", "-Infinity", "sNaN"])
def test_a_multiplier_that_is_no_number_costs_its_row_alone(multiplier):
    first, second, *_ = json.loads(load(LINEAR, "lists/instruments_ticks"))["data"]
    rows = KuCoinLinear().decode_instruments(
        msgspec.json.encode({"code": "200000", "data": [first | {"multiplier": multiplier}, second]})
    )
    assert [each.native for each in rows.items] == [second["symbol"]]
    assert "is no size" in rows.problem


def test_what_cannot_be_had_is_refused_with_the_reason():
    market = Listed()
    rows = market.decode_instruments(load(LINEAR, "lists/instruments_ticks"))
    table = InstrumentTable("kucoin", map(market.prefixed, rows.items))
    assert table.resolve("BTC/USDT:USDT").native == "linear:XBTUSDTM"
    with pytest.raises(SubscriptionRejected, match=r"\(linear:XBTUSDM\) is inverse: its sizes are in USD"):
        table.resolve("BTC/USD:BTC")
    with pytest.raises(SubscriptionRejected, match="is not trading, status BeingSettled"):
        table.resolve("GON/USDT:USDT")


def test_an_odd_row_costs_itself_alone():
    rows = Listed().decode_instruments(load(LINEAR, "lists/instruments_odd_rows"))
    assert [i.symbol for i in rows.items] == ["BTC/USDT:USDT", "ETH/USDT:USDT"]
    assert "5 of 7 rows cannot be read" in rows.problem


def test_a_native_symbol_tells_what_it_is_where_there_is_no_list():
    market = KuCoinLinear()
    assert market.spelled("XBTUSDTM").symbol == "BTC/USDT:USDT"
    assert market.spelled("ETHUSDCM").symbol == "ETH/USDC:USDC"
    assert market.spelled("XBTUSDM") is None
    assert market.spelled("XBTMZ26") is None


@pytest.mark.parametrize("lots", [1, 3, 7, 9_007_199_254_740_993])
@pytest.mark.parametrize("size", ["0.1", "0.001", "0.0001", "100000", "2.5"])
def test_a_size_in_contracts_is_converted_in_the_exchanges_digits(size, lots):
    market = KuCoinLinear()
    row = json.loads(load(LINEAR, "lists/instruments_ticks"))["data"][0] | {"multiplier": float(size)}
    body = msgspec.json.encode({"code": "200000", "data": [row]})
    market.learn(map(market.prefixed, market.decode_instruments(body).items))
    count, parts = market.contract_size(NATIVE)
    exact = float(Decimal(size) * lots)
    assert float(lots) * count / parts == pytest.approx(exact, rel=2e-16)
    if lots < 2**53:
        assert float(lots) * count / parts == exact


def test_a_survey_is_read_from_both_answers_and_leaves_out_what_is_not_carried():
    market = Listed()
    quotes = market.decode_survey(load(LINEAR, "lists/tickers"))
    assert [(row.native, row.quote.bid_size, row.quote.ask_size, row.last) for row in quotes.items] == [
        ("XBTUSDTM", 0.125, 3.75, 97421.5),
        ("ETHUSDTM", 0.03, 0.07, 2814.6),
    ]
    statistics = market.decode_survey(load(LINEAR, "lists/instruments_ticks"))
    (found,) = (row for row in statistics.items if row.native == NATIVE)
    assert found.statistics == (96000.0, 98000.25, 95500.125, 18234.5, 1770000000.0625)
    assert (found.quote, found.last) == (None, 97421.5)
    assert not any(row.native == "XBTUSDM" for row in (*quotes.items, *statistics.items))


# --- trades over REST, and books


def test_past_trades_are_converted_and_known_by_the_same_keys():
    rows = Listed().decode_past_trades(NATIVE, load(LINEAR, "trades/answer"))
    one, two, t0, t1 = 1794100537695, 1794100537699, 1790000000250125000, 1790000000250300000
    assert sorted(rows.items, key=lambda row: row.exchange_ns) == [
        PastTrade(numbered(one, t0), one, t0, one, (str(one), 97421.5, 0.012, wire.Side.SELL)),
        PastTrade(numbered(two, t1), two, t1, two, (str(two), 97421.6, 1.0, wire.Side.BUY)),
    ]
    odd = Listed().decode_past_trades(NATIVE, load(LINEAR, "trades/one_odd"))
    assert [row.number for row in odd.items] == [two]
    assert "1 of 2 rows" in odd.problem
    with pytest.raises(ProtocolError, match="429000"):
        Listed().decode_past_trades(NATIVE, load(LINEAR, "trades/refused"))
    with pytest.raises(DecodeError, match="not known"):
        Listed().decode_past_trades("NEWUSDTM", load(LINEAR, "trades/answer"))


LEVELS = [(97421.4, 0.125), (97421.1, 2.0)], [(97421.6, 3.75), (97422.0, 1.5)]
CHANGED = [(97421.4, 0.13), (97421.1, 2.0)]
SAME, LOST = "same", "lost"
STORY = [
    ("change_before_the_base", SAME),
    ("change_next", SAME),
    ("base", (104, CHANGED, LEVELS[1])),
    ("unknown_symbol", SAME),
    ("lacks_a_change", DecodeError),
    ("of_no_side", DecodeError),
    ("negative_size", DecodeError),
    ("nan", DecodeError),
    ("lacks_sequence", DecodeError),
    ("change_removes", (105, CHANGED, LEVELS[1][:1])),
    ("change_of_no_level", (106, CHANGED, LEVELS[1][:1])),
    ("change_after_a_gap", LOST),
    ("base_null_side", (108, [(97421.4, 0.131)], LEVELS[1])),
    ("base_lacks_a_side", DecodeError),
    ("base_unknown_symbol", ProtocolError),
    ("base_unknown_size", DecodeError),
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
                market.decode_base("XBTUSDTM", body) if name.startswith("base") else market.decode(
                    body, RECV_NS, line, emit
                )
        elif name.startswith("base"):
            assert state.offer([0], market.decode_base("XBTUSDTM", body), RECV_NS, emit) == 1
        else:
            assert market.decode(memoryview(body), RECV_NS, line, emit) is None
        if expected == SAME or isinstance(expected, type):
            assert emitted == [], name
        elif expected == LOST:
            assert [record.flags & wire.NOT_LIVE for record in emitted] == [wire.INVALID]
        else:
            assert (book.last_id, book.bids[:], book.asks[:]) == expected, name
    assert {name for name, _ in STORY} == {path.stem for path in (FRAMES / LINEAR / "books").glob("*.json")}


# --- one channel owns its fields


def test_the_last_price_is_that_of_the_newest_trade_and_the_slow_channel_fills_it_until_there_is_one():
    market = make(LINEAR, NATIVE)
    state = decoded(market, load(LINEAR, "snapshot").replace(b"97421.5", b"97000.5"), RECV_NS, market.line)
    assert state.last == 97000.5
    decoded(market, load(LINEAR, "execution"), RECV_NS, market.line)
    assert decoded(market, load(LINEAR, "execution"), RECV_NS, Line(1)) is None
    newer = load(LINEAR, "snapshot").replace(b"97421.5", b"97000.5").replace(b"240929239", b"290929239")
    state = decoded(market, newer, RECV_NS, market.line)
    assert (state.last, state.exchange_ns) == (97421.5, 1790000000290929239)


def test_a_trade_is_of_two_kinds_and_each_has_it():
    market = wanting("ticker", "trade")
    assert take(market, "execution") == ["trade", "ticker"]
    assert take(market, "execution", Line(1)) == []


# --- requests


def test_requests_are_of_one_channel_and_under_the_limits():
    market = KuCoinLinear()
    natives = [f"C{i}USDTM" for i in range(400)]
    states = [state for kind in market.kinds for state in market.add(natives, 0, kind)]
    connections = market.connections(states)
    for run in connections:
        topics = list(
            dict.fromkeys(topic for state in run for topic in market.topics(state.native, state.kind))
        )
        assert len(topics) + 1 <= TOPICS_PER_CONNECTION
        batches = list(market.batches(topics))
        assert sorted(topic for batch in batches for topic in batch) == sorted(topics)
        assert all(len(batch) <= SYMBOLS_PER_COMMAND for batch in batches)
        assert all(len({topic.partition(":")[0] for topic in batch}) == 1 for batch in batches)
    assert sum(map(len, connections)) == len(states)


def test_what_is_requested_over_rest_is_weighed_and_encoded():
    market = KuCoinLinear()
    for request, path, weight in (
        (market.quote_request("A&B"), "/api/v1/ticker?symbol=A%26B", 2),
        (market.base_request("A&B"), "/api/v1/level2/snapshot?symbol=A%26B", 3),
        (market.past_trades_request("A&B", 7), "/api/v1/trade/history?symbol=A%26B", 5),
    ):
        assert (request.path, request.weight, request.method) == (path, weight, "GET")
    assert market.base_at("https://api-futures.kucoin.com/api/v1/level2/snapshot?symbol=XBTUSDTM") == (
        NATIVE,
        0,
    )
    assert market.base_at("https://api-futures.kucoin.com/api/v1/level2/depth100?symbol=XBTUSDTM") == (
        NATIVE,
        100,
    )
    assert market.base_at("https://api-futures.kucoin.com/api/v1/ticker?symbol=XBTUSDTM") is None
