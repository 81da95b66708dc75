"""OKX: every message kind on our channels, and what must not be one."""

import json

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
from feedhandler.exchanges.base import PONG, Ack, Goodbye, Nack, Resubscribe
from feedhandler.exchanges.okx import ARGS_MAX, SUBSCRIBE_AGAIN_NS, OkxSpot

SECOND = 1_000_000_000
NATIVE = "BTC-USDT"
QUOTE = {"bid": 97421.4, "bid_size": 0.125, "ask": 97421.5, "ask_size": 3.75}
STATISTICS = {
    "last": 97421.5,
    "open_24h": 96000.0,
    "high_24h": 98000.25,
    "low_24h": 95500.125,
    "base_volume_24h": 18234.5,
    "quote_volume_24h": 1770000000.0625,
    "exchange_ns": 1790000000250000000,
}
# What tickers states of the quote is a value until bbo-tbt has sent.
TICKER = STATISTICS | {"bid": 97421.3, "bid_size": 0.5, "ask": 97421.7, "ask_size": 3.0}
BBO = {**QUOTE, "exchange_sequence": 8100001, "exchange_ns": 1790000000259000000}
BIDS = ((97421.4, 0.125), (97421.1, 2.0), (97420.0, 0.5))
ASKS = ((97421.6, 3.75), (97422.0, 1.5))
DEPTH = {"bids": BIDS, "asks": ASKS, "exchange_sequence": 778, "exchange_ns": 1790000000259000000}
GONE = "The connection will soon be closed for a service upgrade. Please reconnect. (code 64008)"
NO_TOPIC = "Subscribe failed, wrong URL or channel:books,instId:NOPE-USDT doesn't exist. (code 60018)"

CASES = [
    ("tickers", TICKER),
    ("tickers_new_field", TICKER),
    ("tickers_lacks_volume", without(TICKER, "base_volume_24h")),
    ("tickers_empty_quote", STATISTICS),
    (
        "tickers_empty_statistics",
        {name: value for name, value in TICKER.items() if not name.endswith("24h")},
    ),
    (
        "tickers_never_traded",
        without(TICKER, "last", "open_24h", "high_24h", "low_24h")
        | {"base_volume_24h": 0.0, "quote_volume_24h": 0.0},
    ),
    ("tickers_lacks_all", DecodeError),
    ("tickers_nan", DecodeError),
    ("tickers_negative_price", DecodeError),
    ("tickers_huge_time", DecodeError),
    ("tickers_lacks_time", DecodeError),
    ("tickers_other_key_order", TICKER),
    ("tickers_unknown_symbol", None),
    ("tickers_two_rows", DecodeError),
    ("tickers_no_rows", DecodeError),
    ("bbo", BBO),
    ("bbo_empty_side", without(BBO, "bid") | {"bid_size": 0.0}),
    ("bbo_empty_book", without(BBO, "bid", "ask") | {"bid_size": 0.0, "ask_size": 0.0}),
    ("bbo_lacks_asks", DecodeError),
    ("bbo_lacks_id", without(BBO, "exchange_sequence")),
    ("bbo_half_a_level", DecodeError),
    ("bbo_negative_size", DecodeError),
    ("bbo_short_levels", BBO),
    ("bbo_unknown_symbol", None),
    ("bbo_of_another_market", None),
    ("books", DEPTH),
    ("books_with_symbol", DEPTH),
    ("books_update", Resubscribe("books:BTC-USDT")),
    ("books_crossed", {**DEPTH, "bids": ((97421.7, 1.0),), "is_invalid": True}),
    ("books_empty_side", without(DEPTH, "bids")),
    ("books_lacks_asks", DecodeError),
    ("books_lacks_id", DecodeError),
    ("books_of_2022", DecodeError),
    ("books_lacks_action", DecodeError),
    ("books_lacks_time", DecodeError),
    ("books_negative_size", DecodeError),
    ("books_half_a_level", DecodeError),
    ("books_unknown_symbol", None),
    ("books5", None),
    ("candles", None),
    ("mark_price", None),
    ("data_without_channel", DecodeError),
    ("ack", Ack("7")),
    ("ack_old", Ack("")),
    ("ack_unsubscribe", Ack("8")),
    ("refused_topic", Nack("9", NO_TOPIC)),
    ("refused_request", Nack("", 'Illegal request: {"op":"subscribe"} (code 60012)')),
    ("refused_too_many", Nack("10", "Requests too frequent (code 60014)", is_transient=True)),
    ("refused_login", Nack("11", "Please log in (code 60011)")),
    ("refused_without_reason", Nack("12", "no reason given (code 60099)")),
    ("notice_closing", Goodbye(GONE)),
    ("notice_other", None),
    ("unknown_event", DecodeError),
    ("pong", PONG),
    ("ping", Ack("ping")),
    ("unknown_kind", DecodeError),
    ("empty", DecodeError),
    ("text", DecodeError),
    ("truncated", DecodeError),
    ("bad_utf8", DecodeError),
]


@pytest.mark.parametrize(("name", "expected"), CASES, ids=[name for name, _ in CASES])
def test_a_frame_decodes_as_the_table_says(name, expected):
    check_row("okx", (NATIVE,), name, expected)


def row(number, side="buy", time_ms=1790000000250, *, price=97421.5, size=0.012, **rest):
    trade_id = 1067468268 + number
    return trade(f"{trade_id}", price, size, side, time_ms * 1_000_000, trade_id, **rest)


# What each is, in order; and then, perhaps, the error.
TRADES = {
    "trade": ([row(1)],),
    "trade_merged": ([row(4, "sell") | {"count": 3}],),
    "trade_of_2022": ([row(1)],),
    "trade_lacks_side": ([row(1) | {"side": 0}],),
    "trade_lacks_id": ([], DecodeError),
    "trade_lacks_time": ([], DecodeError),
    "trade_price_zero": ([], DecodeError),
    "trade_nan": ([], DecodeError),
    "trade_count_zero": ([], DecodeError),
    "trade_huge_id": ([], DecodeError),
    "trade_text_id": ([], DecodeError),
    "trade_unknown_symbol": ([],),
    "trades": (
        [
            row(1, is_last=False),
            row(4, "sell", 1790000000251, price=97421.4, index=1, is_last=False) | {"count": 3},
            row(5, size=12.0, index=2),
        ],
    ),
    "trades_some_bad": ([row(1, is_last=False), row(4, index=3)], DecodeError),
    "trades_none": ([],),
    "trades_as_an_object": ([], DecodeError),
}


def trade_frame(number, count=1, time_ms=1790000000250):
    changed = {"tradeId": f"{1067468268 + number}", "count": f"{count}", "ts": f"{time_ms}"}
    frame = json.loads(load("okx", "trade"))
    return json.dumps({**frame, "data": [frame["data"][0] | changed]}).encode()


@pytest.mark.parametrize("name", TRADES)
def test_the_trades_of_a_frame_are_as_the_table_says(name):
    rows, *error = TRADES[name]
    check_trades("okx", (NATIVE,), name, rows, *error, before=trade_frame(0))


def test_every_frame_on_disk_has_a_row():
    assert every_frame("okx") == {name for name, _ in CASES} | set(TRADES)


# --- trades


def trading():
    market = OkxSpot()
    (state,) = market.add([NATIVE], wire.SIMULATED, "trade")
    return market, state


def test_what_a_subscription_brings_first_is_old_and_what_follows_is_counted_from_there():
    market, state = trading()
    one, two = Line(0), Line(1)
    assert trades(market, trade_frame(0), RECV_NS, one) == ([], None)
    assert trades(market, trade_frame(0), RECV_NS, two) == ([], None)
    assert trades(market, trade_frame(3, 3), RECV_NS, one) == ([row(3) | {"count": 3}], None)
    assert state.trades.missing == []
    assert trades(market, trade_frame(3, 3), RECV_NS, Line(2)) == ([], None), "a connection that begins later"
    state.trades.part()
    state.forget()
    assert trades(market, trade_frame(9), RECV_NS, one) == ([], None), "nobody wanted it"
    assert trades(market, trade_frame(10), RECV_NS, one) == ([row(10)], None)
    assert state.trades.missing == []


def test_a_message_that_does_not_begin_where_the_last_one_ended_tells_which_trades_are_missing():
    market, state = trading()
    one, two = Line(0), Line(1)
    for frame in (trade_frame(0), trade_frame(2, 2), trade_frame(10, 3)):
        trades(market, frame, RECV_NS, one)
    first = 1067468268
    assert state.trades.missing == [(first + 3, first + 7)]
    assert trades(market, trade_frame(6, 3), RECV_NS, two) == ([row(6) | {"count": 3}], None)
    assert state.trades.missing == [(first + 3, first + 3), (first + 7, first + 7)]
    for number in (3, 7):
        trades(market, trade_frame(number), RECV_NS, two)
    assert state.trades.missing == []


def test_past_trades_are_single_and_those_of_a_merged_message_are_known():
    market, state = trading()
    one = Line(0)
    for frame in (trade_frame(0), trade_frame(3, 3), trade_frame(6, 2)):
        trades(market, frame, RECV_NS, one)
    first = 1067468268
    new = [
        number
        for number in range(7)
        if state.trades.add(f"{number}", 1790000000250000000, RECV_NS, first + number)
    ]
    assert new == [4]
    assert state.trades.missing == []


def test_past_trades_are_the_page_that_begins_with_a_number():
    market = OkxSpot()
    path = "/api/v5/market/history-trades?instId=BTC-USDT&type=1"
    assert market.past_trades_request(NATIVE, 500).path == f"{path}&after=600&limit=100"
    newest = market.past_trades_request(NATIVE, 0)
    assert newest.path == f"{path}&limit=100"
    assert market.past_trades_at(f"https://www.okx.com{newest.path}") == NATIVE
    assert market.past_trades_at("https://www.okx.com/api/v5/market/trades?instId=BTC-USDT") == ""


# --- books and depth


def both():
    market, line = OkxSpot(), Line(0)
    (depth,) = market.add([NATIVE], wire.SIMULATED, "depth")
    (book,) = market.add([NATIVE], wire.SIMULATED, "book")
    return market, line, depth, book


def decode(market, name, line, recv_ns=RECV_NS):
    """What one message was answered with, and the kinds of what was emitted."""
    emitted = []
    answer = market.decode(load("okx", name), recv_ns, line, lambda state: emitted.append(state.kind))
    return answer, emitted


def test_depth_and_book_come_of_the_same_messages():
    market, line, depth, book = both()
    assert market.topics(NATIVE, "depth") == market.topics(NATIVE, "book") == ("books:BTC-USDT",)
    assert decode(market, "books/snapshot", line) == (None, ["book", "depth"])
    assert decode(market, "books/keep_alive_of_another_id", line) == (None, ["book", "depth"])
    assert depth.flags & book.flags & wire.INVALID
    assert decode(market, "books/snapshot", line) == (None, ["book", "depth"])
    assert not (depth.flags | book.flags) & wire.INVALID


def test_a_message_without_changes_is_a_sign_of_life_and_ids_may_go_on_lower():
    market, line, depth, book = both()
    assert decode(market, "books/snapshot", line) == (None, ["book", "depth"])
    assert decode(market, "books/update_next_to_the_base", line) == (None, ["book", "depth"])
    assert depth.bids == ((97421.2, 1.0), (97421.1, 2.0))
    assert decode(market, "books/keep_alive", line, RECV_NS + 70 * SECOND) == (None, [])
    assert depth.channels[0].heard_ns(0) == book.channels[0].heard_ns(0) == RECV_NS + 70 * SECOND
    for minute in range(2, 20):
        assert decode(market, "books/keep_alive", line, RECV_NS + minute * 60 * SECOND) == (None, [])
    assert decode(market, "books/update_next", line) == (None, ["book", "depth"])
    assert decode(market, "books/ids_go_on_lower", line) == (None, ["book", "depth"])
    assert decode(market, "books/update_of_lower_ids", line) == (None, ["book", "depth"])
    assert (depth.exchange_sequence, book.lines[0].last_id) == (45, 45)
    assert book.channels[0].line_update_id(0) == 45, "so that its silence would show"


def test_depth_begins_with_a_book_that_has_begun_over_rest():
    market, line, depth, book = both()
    assert decode(market, "books/update_around_the_base", line) == (None, [])
    emitted = []
    assert (
        book.offer([0], market.decode_base(NATIVE, load("okx", "books/base")), RECV_NS, emitted.append) == 1
    )
    assert decode(market, "books/update_next", line) == (None, ["book", "depth"])
    assert depth.asks == ((97421.6, 4.0), (97422.0, 1.5))


def test_a_lost_book_is_subscribed_to_anew_once_a_minute_at_most():
    """480 requests an hour and connection are permitted."""
    market, line = make("okx", NATIVE), Line(0)
    again = Resubscribe("books:BTC-USDT")
    update = load("okx", "books_update")
    assert decoded(market, update, RECV_NS, line) == again
    assert decoded(market, update, RECV_NS + SUBSCRIBE_AGAIN_NS - 1, line) is None
    assert decoded(market, update, RECV_NS + SUBSCRIBE_AGAIN_NS - 1, Line(1)) == again, "of its own"
    assert decoded(market, update, RECV_NS + SUBSCRIBE_AGAIN_NS, line) == again
    assert 2 * 3600 * SECOND // SUBSCRIBE_AGAIN_NS < 480


@pytest.mark.parametrize("kinds", [("book",), ("depth",), ("depth", "book")])
@pytest.mark.parametrize("comes", ["renew", "release and renew", "forget", "remove"])
def test_a_new_connection_is_not_judged_by_what_the_one_before_has_lacked(kinds, comes):
    """It has its own time to bring a book, whichever way it came to carry the symbol."""
    market, line = OkxSpot(), Line(0)
    states = [state for kind in kinds for state in market.add([NATIVE], wire.SIMULATED, kind)]
    patience_ns = 5 * SECOND if "book" in kinds else 0
    lost, now = "books/update_after_a_gap", RECV_NS
    assert decode(market, lost, line, now)[0] is None or not patience_ns
    now += 9 * SECOND
    assert (decode(market, lost, line, now)[0] is not None) == bool(patience_ns), (
        "the other has asked at once"
    )
    for state in states:
        if comes == "remove":
            market.remove([state])
            market.add([NATIVE], wire.SIMULATED, state.kind)
        elif comes == "forget":
            state.forget()
        else:
            for what in comes.split(" and "):
                getattr(state, what)(0)
    now += SECOND
    answers = [decode(market, lost, line, now + second * SECOND)[0] for second in range(66)]
    asked = [second for second, each in enumerate(answers) if each is not None]
    assert asked == [patience_ns // SECOND, patience_ns // SECOND + 60]


def test_depth_and_book_on_connections_of_their_own_do_not_judge_each_other():
    market, line, _, book = both()
    book.group = line.group + 1  # whose line of that number has none
    assert decode(market, "books/snapshot", line) == (None, ["depth"])
    assert decode(market, "books/update_next_to_the_base", line, RECV_NS + 100 * SECOND) == (None, ["depth"])


@pytest.mark.parametrize("kinds", [("book",), ("depth", "book")])
def test_a_book_that_rest_does_not_give_is_subscribed_to_anew(kinds):
    market, line = OkxSpot(), Line(0)
    for kind in kinds:
        market.add([NATIVE], wire.SIMULATED, kind)
    assert decode(market, "books/snapshot", line)[0] is None
    with pytest.raises(DecodeError, match="lacks its id"):
        market.decode_base(NATIVE, load("okx", "rest/book_lacks_id"))
    answers = [
        decode(market, "books/update_after_a_gap", line, RECV_NS + second * SECOND)[0]
        for second in range(150)
    ]
    again = [second for second, each in enumerate(answers) if each == Resubscribe("books:BTC-USDT")]
    assert again == [5, 65, 125]
    assert decode(market, "books/snapshot", line, RECV_NS + 150 * SECOND)[0] is None
    assert decode(market, "books/update_after_a_gap", line, RECV_NS + 151 * SECOND)[0] is None
    assert decode(market, "books/update_after_a_gap", line, RECV_NS + 155 * SECOND)[0] is None
    assert decode(market, "books/update_after_a_gap", line, RECV_NS + 156 * SECOND)[0] is not None


def test_an_older_quote_of_another_connection_is_late_and_a_repeated_one_a_sign_of_life():
    market = make("okx", NATIVE)
    assert decoded(market, load("okx", "bbo"), RECV_NS, market.line) is not None
    assert decoded(market, load("okx", "bbo"), RECV_NS + 60 * SECOND, market.line) is not None
    late = load("okx", "bbo").replace(b"0259", b"0258")
    assert decoded(market, late, RECV_NS + 60 * SECOND, Line(1)) is None


def test_both_channels_together_fill_every_field():
    market = make("okx", NATIVE)
    decoded(market, load("okx", "bbo"), RECV_NS, market.line)
    state = decoded(market, load("okx", "tickers"), RECV_NS, market.line)
    assert values(state) == {**STATISTICS, **QUOTE, "exchange_sequence": 8100001}


# --- requests


def request(market, op, *topics, command_id="7"):
    return json.loads(getattr(market, op)(topics, command_id))


def answer(market, sent, topic, event="subscribe"):
    channel, native = topic.split(":")
    frame = {
        "id": sent["id"],
        "event": event,
        "arg": {"channel": channel, "instId": native},
        "connId": "a4d3",
    }
    return market.decode(json.dumps(frame).encode(), RECV_NS, Line(0), lambda state: None)


def refusal(market, sent, text, code="60018"):
    frame = {"id": sent["id"], "event": "error", "code": code, "msg": text, "connId": "a4d3"}
    return market.decode(json.dumps(frame).encode(), RECV_NS, Line(0), lambda state: None)


def test_requests_are_as_documented():
    market = OkxSpot()
    topics = market.topics(NATIVE, "ticker")
    sent = request(market, "subscribe", *topics)
    assert sent["op"] == "subscribe"
    assert sent["args"] == [
        {"channel": "tickers", "instId": "BTC-USDT"},
        {"channel": "bbo-tbt", "instId": "BTC-USDT"},
    ]
    assert sent["id"].isalnum()
    assert sent["id"].isascii()
    assert len(sent["id"]) <= 32
    assert market.requested(json.dumps(sent).encode()) == (True, [*topics])
    assert market.requested(market.unsubscribe(topics, "8")) == (False, [*topics])
    assert market.requested(market.ping("9")) is None
    assert market.ping("9") == b"ping"
    assert market.endpoint("ws://h:1", b"", "c").url == "ws://h:1/ws/v5/public"


def test_a_request_is_answered_when_each_of_its_topics_is():
    market = OkxSpot()
    sent = request(market, "subscribe", "tickers:BTC-USDT", "bbo-tbt:BTC-USDT", "trades:BTC-USDT")
    other = request(market, "subscribe", "trades:BTC-USDT")
    assert other["id"] != sent["id"], "of another connection, though ours is the same"
    assert answer(market, sent, "bbo-tbt:BTC-USDT") != Ack("7")
    assert answer(market, sent, "bbo-tbt:BTC-USDT") != Ack("7")
    assert answer(market, other, "trades:BTC-USDT") == Ack("7")
    assert answer(market, sent, "trades:BTC-USDT") != Ack("7")
    assert answer(market, sent, "tickers:BTC-USDT") == Ack("7")
    gone = request(market, "unsubscribe", "trades:BTC-USDT", command_id="8")
    assert answer(market, gone, "trades:BTC-USDT", "unsubscribe") == Ack("8")


def test_a_topic_that_is_refused_is_named_and_the_others_are_granted():
    market = OkxSpot()
    text = "Subscribe failed, wrong URL or channel:trades,instId:NOPE-USDT doesn't exist."
    sent = request(market, "subscribe", "trades:NOPE-USDT", "trades:BTC-USDT")
    assert not isinstance(refusal(market, sent, text), Nack)
    assert answer(market, sent, "trades:BTC-USDT") == Nack(
        "7", f"{text} (code 60018)", topics=("trades:NOPE-USDT",)
    )
    sent = request(market, "subscribe", "trades:NOPE-USDT")
    assert refusal(market, sent, text) == Nack("7", f"{text} (code 60018)", topics=("trades:NOPE-USDT",))


def test_a_refusal_that_names_no_topic_of_the_request_is_that_of_all():
    market = OkxSpot()
    for text in ("Please log in", "channel:books,instId:ETH-USDT doesn't exist"):
        sent = request(market, "subscribe", "trades:NOPE-USDT", "trades:BTC-USDT")
        assert refusal(market, sent, text, "60011") == Nack("7", f"{text} (code 60011)")
    sent = request(market, "subscribe", "trades:BTC-USDT")
    assert refusal(market, sent, "Requests too frequent", "60014").is_transient


def test_requests_stay_under_the_limits_and_lose_no_topic():
    market = OkxSpot()
    natives = [f"LONGSYMBOL{i}-USDT" for i in range(1500)]
    runs = market.connections(market.add(natives, 0))
    assert [state.native for run in runs for state in run] == natives
    for run in runs:
        topics = [topic for state in run for topic in market.topics(state.native, state.kind)]
        assert len(topics) <= market.topics_max
        batches = list(market.batches([*topics, "bbo-tbt:BTC-USDT"]))
        assert [topic for batch in batches for topic in batch] == [*topics, "bbo-tbt:BTC-USDT"]
        assert all(len(batch) <= ARGS_MAX for batch in batches)
        assert all(len(market.subscribe(batch, "1")) < 65536 for batch in batches)


def test_requests_of_connections_that_are_gone_are_forgotten_in_time():
    market = OkxSpot()
    first = request(market, "subscribe", "trades:A-USDT")
    for number in range(3000):
        market.subscribe([f"trades:S{number}-USDT"], "2")
    assert answer(market, first, "trades:A-USDT") == Ack(first["id"])
    assert len(market._asked) <= 1024


def test_the_topic_of_what_cannot_be_decoded_is_found():
    market = OkxSpot()
    assert market.topic_of(load("okx", "bbo_half_a_level")) == "bbo-tbt:BTC-USDT"
    assert market.topic_of(load("okx", "truncated")) == "bbo-tbt:BTC-USDT"
    assert market.topic_of(load("okx", "pong")) == ""


# --- REST

ANSWERS = [
    ("rest/time", 1790000000250000000, ""),
    ("rest/time_refused", ProtocolError, "Too Many Requests .code 50011"),
    ("rest/time_huge", DecodeError, "<="),
    ("rest/time_of_none", ProtocolError, "lists no such symbol"),
    ("rest/quote", (97421.4, 0.125, 97421.6, 3.75), ""),
    ("rest/quote_empty_bid", (NAN, 0.0, 97421.6, 3.75), ""),
    ("rest/quote_unknown_symbol", ProtocolError, "doesn't exist .code 51001"),
    ("rest/quote_of_none", ProtocolError, "lists no such symbol"),
    ("rest/quote_of_two", DecodeError, "several answered"),
    ("rest/quote_nan", DecodeError, ">= 0.0|<="),
]


@pytest.mark.parametrize(("name", "expected", "message"), ANSWERS, ids=[name for name, _, _ in ANSWERS])
def test_a_rest_answer_decodes_as_the_table_says(name, expected, message):
    check_answer("okx", name, expected, message)


def test_every_rest_answer_on_disk_has_a_row():
    assert every_answer("okx") == {name for name, _, _ in ANSWERS} | {"rest/book_lacks_id"}


def test_a_quote_is_asked_for_with_the_symbol_encoded():
    request = OkxSpot().quote_request("A&B-USDT")
    assert request.path == "/api/v5/market/ticker?instId=A%26B-USDT"
    assert (request.weight, request.method) == (4, "GET")


def test_states_of_instruments_are_what_they_are():
    rows = OkxSpot().decode_instruments(load("okx", "lists/instruments_states"))
    assert {each.symbol: (each.is_trading, each.status) for each in rows.items} == {
        "A/USDT": (True, "live"),
        "B/USDT": (False, "suspend"),
        "C/USDT": (False, "preopen"),
        "D/USDT": (False, "test"),
        "E/USDT": (False, "rebase"),
        "F/USDT": (True, "post_only"),
        "BTC/USD": (True, "live"),
    }
    assert [each.symbol for each in rows.items if each.note] == ["F/USDT"]


def test_a_survey_is_read_row_by_row():
    body = json.loads(load("okx", "rest/quote"))
    whole = body["data"][0]
    body["data"] = [
        whole,
        {**dict.fromkeys(whole, ""), "instId": "A-USDT"},
        {"instId": "B-USDT", "last": "nan"},
        {**whole, "instId": "C-USDT", "askPx": "", "askSz": "", "open24h": ""},
    ]
    rows = OkxSpot().decode_survey(json.dumps(body).encode())
    first, second = rows.items
    assert (first.native, first.quote.bid, first.quote.ask) == (NATIVE, 97421.4, 97421.6)
    assert (first.last, first.statistics) == (
        97421.5,
        (96000.0, 98000.25, 95500.125, 18234.5, 1770000000.0625),
    )
    assert second.statistics is None
    assert "1 of 4 rows" in rows.problem


def test_a_book_over_rest_is_known_by_its_address():
    market = OkxSpot()
    asked = market.base_request(NATIVE)
    assert market.base_at(f"https://www.okx.com{asked.path}") == (NATIVE, 400)
    assert market.base_at("https://www.okx.com/api/v5/market/books?instId=BTC-USDT") == (NATIVE, 1)
    assert market.base_at("https://www.okx.com/api/v5/market/ticker?instId=BTC-USDT") is None


@pytest.mark.parametrize("native", ["BTC-USDT-SWAP", "BTC-USD-261225", "BTC-USD_UM-261030"])
def test_what_is_of_another_market_is_none_of_spot(native):
    with pytest.raises(ValueError, match="another market"):
        OkxSpot().add([native], 0)
