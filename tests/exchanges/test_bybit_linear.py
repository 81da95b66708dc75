"""Bybit's linear perpetuals: every message kind on our channels, and what must not be one."""

import json
import math

import msgspec
import pytest
from table import (
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
    trades,
    values,
    without,
)

from feedhandler.data import wire
from feedhandler.data.errors import DecodeError, ProtocolError, SubscriptionRejected
from feedhandler.data.instruments import InstrumentTable
from feedhandler.exchanges.arbitration import Line
from feedhandler.exchanges.base import PONG, Ack, Nack, Resubscribe
from feedhandler.exchanges.books import ASK_AGAIN_NS
from feedhandler.exchanges.bybit import ARGS_LENGTH_MAX, BybitLinear

LINEAR = "bybit_linear"
NATIVE = "BTCUSDT"
ANEW = Resubscribe(f"tickers.{NATIVE}")
STATED = {"bid": 97421.4, "bid_size": 0.125, "ask": 97421.5, "ask_size": 3.75}
TICKER = {
    "last": 97421.5,
    "open_24h": 96000.0,
    "high_24h": 98000.25,
    "low_24h": 95500.125,
    "base_volume_24h": 18234.5,
    "quote_volume_24h": 1770000000.0625,
    "exchange_ns": 1790000000250000000,
    **STATED,  # until orderbook.1 has sent
}
QUOTE = {**STATED, "exchange_sequence": 8100001, "exchange_ns": 1790000000259000000}
BIDS = ((97421.4, 0.125), (97421.1, 2.0), (97420.0, 0.5))
ASKS = ((97421.6, 3.75), (97422.0, 1.5))
DEPTH = {"bids": BIDS, "asks": ASKS, "exchange_sequence": 778, "exchange_ns": 1790000000259000000}

CASES = [
    ("tickers", TICKER),
    ("tickers_other_key_order", TICKER),
    ("tickers_without_sequence", TICKER),
    ("tickers_before_2026", TICKER),
    ("tickers_before_launch", without(TICKER, *STATED)),
    ("tickers_null_funding", TICKER),
    ("tickers_nan", DecodeError),
    ("tickers_negative_price", DecodeError),
    ("tickers_infinite_funding", DecodeError),
    ("tickers_huge_funding_time", DecodeError),
    ("tickers_of_nothing", DecodeError),
    ("tickers_all_empty", DecodeError),
    ("tickers_as_a_list", DecodeError),
    ("tickers_unknown_symbol", None),
    ("tickers_delta", ANEW),
    ("tickers_delta_of_mark", ANEW),
    ("tickers_delta_of_trade", ANEW),
    ("tickers_delta_without_a_change", ANEW),
    ("tickers_delta_of_no_funding", ANEW),
    ("tickers_delta_nan", DecodeError),
    ("orderbook", QUOTE),
    ("orderbook_delta", DecodeError),
    ("depth", DEPTH),
    ("depth_delta", Resubscribe(f"orderbook.50.{NATIVE}")),
    ("kline", DecodeError),
    ("ack", Ack("7")),
    ("pong", PONG),
    ("refused_no_handler", Nack("9", "error:handler not found,topic:tickers.NOPEUSDT")),
    ("refused_already", Nack("11", "error:already subscribed,topic:tickers.BTCUSDT", is_satisfied=True)),
    ("truncated", DecodeError),
]


@pytest.mark.parametrize(("name", "expected"), CASES, ids=[name for name, _ in CASES])
def test_a_frame_decodes_as_the_table_says(name, expected):
    check_row(LINEAR, (NATIVE,), name, expected)


def execution(number, side="buy", *, price=97421.5, **rest):
    trade_id = f"{number:08x}-0000-5000-8000-0000000000ab"
    return trade(trade_id, price, 0.012, side, 1790000000250000000, 3189232173, **rest)


TRADES = {
    "trades": ([execution(1, is_last=False), execution(2, "sell", price=97421.4, index=1)],),
    "trade_without_id": ([execution(2, index=1)], DecodeError),
    "trades_some_bad": ([execution(1, is_last=False), execution(4, index=3)], DecodeError),
}


@pytest.mark.parametrize("name", TRADES)
def test_the_trades_of_a_frame_are_as_the_table_says(name):
    rows, *error = TRADES[name]
    check_trades(LINEAR, (NATIVE,), name, rows, *error)


def liquidation(side="sell", time_ms=1790000000240, size=0.5, price=95000.5, **rest):
    return trade("", price, size, side, time_ms * 1_000_000, **rest)


# "Buy" is a long position: the order that ends it sells.
LIQUIDATIONS = {
    "liquidation": ([liquidation()],),
    "liquidations": (
        [
            liquidation(is_last=False),
            liquidation("buy", 1790000000244, 1.25, 99000.0, index=1, is_last=False),
            liquidation("buy", 1790000000245, 2.0, 99001.0, index=2),
        ],
    ),
    "liquidations_alike": (
        [liquidation(is_last=False), liquidation(index=1, is_last=False), liquidation(index=2)],
    ),
    "liquidations_some_bad": (
        [liquidation(is_last=False), liquidation(time_ms=1790000000249, index=4)],
        DecodeError,
    ),
    "liquidations_all_bad": ([], DecodeError),
    "liquidations_none": ([],),
    "liquidation_of_no_side": ([{**liquidation(), "side": 0}],),
    "liquidation_unknown_symbol": ([],),
    "liquidation_as_an_object": ([], DecodeError),
}


@pytest.mark.parametrize("name", LIQUIDATIONS)
def test_the_liquidations_of_a_frame_are_as_the_table_says(name):
    rows, *error = LIQUIDATIONS[name]
    check_trades(LINEAR, (NATIVE,), name, rows, *error, kind="liquidation")


CONTRACT = {
    "mark": 97420.75,
    "index": 97400.25,
    "funding_rate": -0.000125,
    "open_interest": 25617.25,
    "next_funding_ns": 1790006400000000000,
    "funding_interval_h": 8.0,
    "exchange_sequence": 61000000001,
    "exchange_ns": 1790000000250000000,
}
CONTRACTS = {
    "tickers": CONTRACT,
    "tickers_other_key_order": CONTRACT,
    "tickers_without_sequence": without(CONTRACT, "exchange_sequence"),
    "tickers_before_2026": without(CONTRACT, "funding_interval_h"),
    "tickers_before_launch": {name: CONTRACT[name] for name in ("mark", "exchange_sequence", "exchange_ns")},
    "tickers_null_funding": without(CONTRACT, "funding_rate"),
}


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_snapshot_has_what_is_known_of_a_contract(name):
    assert contract_of(wanting("contract"), load(LINEAR, name)) == CONTRACTS[name]


def test_every_frame_on_disk_has_a_row():
    assert every_frame(LINEAR) == {name for name, _ in CASES} | {*TRADES, *LIQUIDATIONS}


ANSWERS = [
    ("rest/time", 1790000000250123456, ""),
    ("rest/quote", (97421.4, 0.125, 97421.5, 3.75), ""),
    ("rest/quote_unknown_symbol", ProtocolError, "Symbol Invalid .code 10001"),
]


@pytest.mark.parametrize(("name", "expected", "message"), ANSWERS, ids=[name for name, _, _ in ANSWERS])
def test_a_rest_answer_decodes_as_the_table_says(name, expected, message):
    check_answer(LINEAR, name, expected, message)


def test_every_rest_answer_on_disk_has_a_row():
    assert every_answer(LINEAR) == {name for name, _, _ in ANSWERS}


# --- deltas


def wanting(*kinds):
    market = BybitLinear()
    for kind in kinds:
        market.add([NATIVE], wire.SIMULATED, kind)
    return market


def take(market, name, line, recv_ns=RECV_NS, **changed):
    """What one message became: the kinds of what was emitted, and what was returned."""
    payload = load(LINEAR, name)
    if changed:
        payload = msgspec.json.encode(json.loads(payload) | changed)
    emitted = []
    answer = market.decode(payload, recv_ns, line, lambda state: emitted.append(state.kind))
    return emitted, answer


def test_what_a_delta_lacks_is_as_it_was():
    market, line = wanting("ticker", "contract"), Line(0)
    assert take(market, "tickers", line) == (["ticker", "contract"], None)
    assert take(market, "tickers_delta_of_mark", line) == (["contract"], None)
    ticker, contract = market.tickers[NATIVE], market.states["contract"][NATIVE]
    assert values(ticker) == TICKER
    assert values(contract) == {
        **CONTRACT,
        "mark": 97425.5,
        "funding_rate": 0.0001,
        "exchange_sequence": 61000000002,
        "exchange_ns": 1790000000350000000,
    }
    assert take(market, "tickers_delta_of_trade", line, cs=61000000003) == (["ticker"], None)
    assert (ticker.last, ticker.base_volume_24h, ticker.open_24h) == (97430.0, 18235.0, 96000.0)


def test_an_empty_text_in_a_delta_says_that_there_is_no_such_thing():
    market, line = wanting("ticker", "contract"), Line(0)
    take(market, "tickers", line)
    assert take(market, "tickers_delta_of_no_funding", line) == (["contract"], None)
    contract = market.states["contract"][NATIVE]
    assert (contract.mark, contract.next_funding_ns, contract.index) == (97425.5, 0, 97400.25)
    assert math.isnan(contract.funding_rate)


def test_a_delta_that_changes_nothing_of_ours_is_a_sign_of_life():
    market, line = wanting("ticker", "contract"), Line(0)
    take(market, "tickers", line)
    assert take(market, "tickers_delta_without_a_change", line, RECV_NS + 5) == ([], None)
    ticker, contract = market.tickers[NATIVE], market.states["contract"][NATIVE]
    assert ticker.recv_ns == contract.recv_ns == RECV_NS + 5
    ticker.flags |= wire.STALE
    again = take(market, "tickers_delta_without_a_change", line, RECV_NS + 6, cs=61000000003)
    assert again == (["ticker"], None), "it ends a condition"


def test_the_quote_of_a_delta_fills_the_ticker_until_its_own_channel_has_sent():
    market, line = wanting("ticker"), Line(0)
    take(market, "tickers", line)
    assert take(market, "tickers_delta", line) == (["ticker"], None)
    ticker = market.tickers[NATIVE]
    assert (ticker.bid, ticker.bid_size, ticker.ask) == (97421.3, 2.0, 97421.5)
    take(market, "orderbook", line)
    assert take(market, "tickers_delta", line, cs=61000000003) == ([], None)
    assert (ticker.bid, ticker.bid_size) == (97421.4, 0.125)
    assert ticker.stated(1) == (97421.3, 2.0, 97421.5, 3.75), "evidence"


@pytest.mark.parametrize("kinds", [("ticker",), ("contract",), ("ticker", "contract")])
def test_a_new_connection_knows_nothing_until_its_snapshot(kinds):
    market, line = wanting(*kinds), Line(0)
    take(market, "tickers", line)
    for state in market.all_states:
        state.renew(0)
    assert take(market, "tickers_delta_of_mark", line) == ([], ANEW)
    assert take(market, "tickers_delta_of_mark", line) == ([], None), "it is asked for once"
    later_ns = RECV_NS + ASK_AGAIN_NS
    assert take(market, "tickers_delta_of_mark", line, later_ns) == ([], ANEW), "and again"
    take(market, "tickers", line, later_ns, cs=61000000004)
    assert take(market, "tickers_delta_of_mark", line, later_ns, cs=61000000005)[1] is None


def test_each_connection_goes_on_from_its_own_snapshot():
    market, one, two = wanting("ticker", "contract"), Line(0), Line(1)
    take(market, "tickers", one)
    assert take(market, "tickers_delta_of_trade", two, cs=61000000009) == ([], ANEW)
    changed = json.loads(load(LINEAR, "tickers"))["data"] | {"markPrice": "97410", "lastPrice": "97411"}
    assert take(market, "tickers", two, cs=61000000002, data=changed) == (["ticker", "contract"], None)
    assert take(market, "tickers_delta_of_trade", one, cs=61000000003) == (["ticker", "contract"], None)
    ticker, contract = market.tickers[NATIVE], market.states["contract"][NATIVE]
    assert (ticker.last, contract.mark) == (97430.0, 97420.75), "as the first one has it"
    assert take(market, "tickers_delta_of_mark", two, cs=61000000004) == (["ticker", "contract"], None)
    assert (ticker.last, contract.mark) == (97411.0, 97425.5)


def test_what_another_connection_brought_first_is_not_published_again():
    market, one, two = wanting("contract"), Line(0), Line(1)
    for line in (one, two):
        take(market, "tickers", line)
    assert take(market, "tickers_delta_of_mark", one) == (["contract"], None)
    assert take(market, "tickers_delta_of_mark", two) == ([], None)
    assert (two.duplicate, one.first) == (2, 2)


def test_an_older_delta_changes_nothing():
    market, line = wanting("contract"), Line(0)
    take(market, "tickers", line)
    take(market, "tickers_delta_of_mark", line, cs=61000000005)
    older = {"symbol": NATIVE, "markPrice": "1", "indexPrice": "2"}
    assert take(market, "tickers_delta_of_mark", line, cs=61000000004, data=older) == ([], None)
    take(market, "tickers_delta_without_a_change", line, cs=61000000006)
    contract = market.states["contract"][NATIVE]
    assert (contract.mark, contract.index) == (97425.5, 97400.25)
    assert line.late == 1


@pytest.mark.parametrize("name", ["tickers_delta_nan", "tickers_as_a_list", "tickers_of_nothing"])
def test_a_message_that_cannot_be_read_puts_what_follows_in_doubt(name):
    market, line = wanting("contract"), Line(0)
    take(market, "tickers", line)
    with pytest.raises(DecodeError):
        take(market, name, line)
    assert take(market, "tickers_delta_of_mark", line) == ([], ANEW)
    assert market.states["contract"][NATIVE].mark == 97420.75
    take(market, "tickers", line, cs=61000000003)
    assert take(market, "tickers_delta_of_mark", line, cs=61000000004) == (["contract"], None)


def test_lines_of_another_group_bring_nothing_and_spoil_nothing():
    market, line, others = wanting("ticker", "contract"), Line(0), Line(0, 7)
    take(market, "tickers", line)
    assert take(market, "tickers", others, cs=61000000008) == ([], None)
    assert take(market, "tickers_delta_of_mark", others, cs=61000000009) == ([], ANEW)
    assert take(market, "tickers_delta_of_mark", line) == (["contract"], None)


def test_what_nobody_wants_any_more_is_not_kept():
    market, line = wanting("ticker", "contract"), Line(0)
    take(market, "tickers", line)
    market.remove([market.tickers[NATIVE]])
    assert take(market, "tickers_delta_of_mark", line) == (["contract"], None)
    market.remove([market.states["contract"][NATIVE]])
    assert take(market, "tickers_delta_of_mark", line) == ([], None)
    assert not market._stated


# --- instruments


def listed():
    market = BybitLinear()
    pages = {"": ["instruments_ticks", "page_2"], "PreLaunch": ["before_launch"], "Delivering": ["ending"]}
    found, requested, request = [], [], market.instruments_request
    for name in [page for each in pages.values() for page in each]:
        requested.append(request.path.partition("?")[2])
        body = load(LINEAR, f"lists/{name}")
        found += market.decode_instruments(body).items
        request = market.rest_of_list(request, body)
    assert request is None
    return found, requested


def test_instruments_come_in_pages_and_by_status():
    found, requested = listed()
    assert requested == [
        "category=linear&limit=1000",
        "category=linear&limit=1000&cursor=first%253D1000NEX%2526last%253DBTC",
        "category=linear&limit=1000&status=PreLaunch",
        "category=linear&limit=1000&status=Delivering",
    ]
    assert [(i.native, i.symbol, i.is_trading, i.status) for i in found] == [
        ("BTCUSDT", "BTC/USDT:USDT", True, "Trading"),
        ("BTCPERP", "BTC/USDC:USDC", True, "Trading"),
        ("1000NEXUSDT", "1000NEX/USDT:USDT", True, "Trading"),
        ("MOONXUSDT", "MOONX/USDT:USDT", True, "Trading"),
        ("NEWUSDT", "NEW/USDT:USDT", False, "PreLaunch, CallAuction"),
        ("SOONUSDT", "SOON/USDT:USDT", True, "PreLaunch, ContinuousTrading"),
        ("GONEUSDT", "GONE/USDT:USDT", False, "Delivering"),
        ("DEADUSDT", "DEAD/USDT:USDT", False, "Closed"),
    ], "and no dated future"
    assert [i.native for i in found if i.note] == ["SOONUSDT"]
    assert {i.tick for i in found} == {"0.1"}


def test_one_that_does_not_trade_is_refused_for_what_it_is():
    table = InstrumentTable("bybit", listed()[0])
    for symbol, status in (("NEW/USDT:USDT", "PreLaunch, CallAuction"), ("GONE/USDT:USDT", "Delivering")):
        with pytest.raises(SubscriptionRejected, match=f"is not trading, status {status}"):
            table.resolve(symbol)


def test_a_page_of_which_nothing_can_be_read_costs_itself_alone():
    body = b'{"retCode":0,"result":{"list":[{"symbol":"NEWUSDT","baseCoin":"","status":"PreLaunch"}]}}'
    rows = BybitLinear().decode_instruments(body)
    assert rows.items == []
    assert "1 of 1 rows cannot be read" in rows.problem


def test_a_symbol_is_known_by_its_spelling_where_no_list_is():
    market = BybitLinear()
    spelled = {native: market.spelled(native) for native in ("BTCUSDT", "BTCPERP", "BTCUSDT-25DEC26")}
    symbols = {native: found.symbol if found else None for native, found in spelled.items()}
    assert symbols == {"BTCUSDT": "BTC/USDT:USDT", "BTCPERP": "BTC/USDC:USDC", "BTCUSDT-25DEC26": None}


# --- requests


def test_requests_are_as_documented():
    market = BybitLinear()
    assert market.topics(NATIVE, "ticker") == ("tickers.BTCUSDT", "orderbook.1.BTCUSDT")
    assert market.topics(NATIVE, "contract") == ("tickers.BTCUSDT",)
    assert market.topics(NATIVE, "liquidation") == ("allLiquidation.BTCUSDT",)
    assert market.topics(NATIVE, "book") == ("orderbook.200.BTCUSDT",)
    assert market.endpoint("ws://h:1", b"", "c").url == "ws://h:1/v5/public/linear"
    assert market.quote_request(NATIVE).path == "/v5/market/tickers?category=linear&symbol=BTCUSDT"
    assert market.past_trades_request(NATIVE, 0).path.endswith("category=linear&symbol=BTCUSDT&limit=1000")


def test_requests_stay_under_the_limits_and_lose_no_topic():
    market = BybitLinear()
    natives = [f"SYMBOL{i}USDT" for i in range(500)]
    states = [state for kind in market.kinds for state in market.add(natives, 0, kind)]
    connections = market.connections(states)
    assert [state for run in connections for state in run] == states
    for run in connections:
        topics = {topic: None for state in run for topic in market.topics(state.native, state.kind)}
        assert len(json.dumps([*topics, "orderbook.1.BTCUSDT"], separators=(",", ":"))) <= ARGS_LENGTH_MAX
        batches = list(market.batches(list(topics)))
        assert [topic for batch in batches for topic in batch] == list(topics)


def test_a_survey_has_the_quotes_of_all_that_have_one():
    rows = BybitLinear().decode_survey(load(LINEAR, "lists/tickers"))
    btc, new, dated = rows.items
    assert (btc.native, btc.quote.bid, btc.last, btc.statistics[3]) == (NATIVE, 97421.4, 97421.5, 18234.5)
    assert repr((new.quote.bid, new.quote.bid_size)) == repr((NAN, 0.0))
    assert dated.native == "BTCUSDT-25DEC26"
    assert "1 of 4 rows" in rows.problem


def test_both_channels_together_fill_every_field():
    market = make(LINEAR, NATIVE)
    decoded(market, load(LINEAR, "tickers"), RECV_NS, market.line)
    state = decoded(market, load(LINEAR, "orderbook"), RECV_NS, market.line)
    assert values(state) == {**TICKER, **QUOTE}


def test_liquidations_are_never_fetched_and_trades_are():
    market = wanting("trade", "liquidation")
    assert market.past_trades_max
    line = Line(0)
    assert trades(market, load(LINEAR, "liquidation"), RECV_NS, line) == ([liquidation()], None)
