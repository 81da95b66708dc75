"""The simulated Bybit, against its documentation: frames, answers, rules.

Shapes: https://bybit-exchange.github.io/docs/v5/ws/connect and the pages beside it.
"""

import json
import random
from decimal import Decimal
from uuid import UUID

import pytest

from feedhandler.sim.bybit import Bybit, BybitDialog
from feedhandler.sim.protocol import HttpAnswer, HttpRequest, Reply

SPOT = HttpRequest(method="GET", path="/v5/public/spot", remote="test")


@pytest.fixture(scope="module")
def exchange() -> Bybit:
    return Bybit(300, seed=1)


@pytest.fixture
def dialog(exchange, clock) -> BybitDialog:
    dialog = exchange.accept(SPOT, clock.now)
    assert isinstance(dialog, BybitDialog)
    assert dialog.on_open(clock.now) == Reply(), "there is no greeting"
    return dialog


def ask(dialog: BybitDialog, clock, **message: object) -> Reply:
    return dialog.on_text(json.dumps(message), clock.now)


def subscribe(dialog: BybitDialog, clock, *args: object) -> Reply:
    return ask(dialog, clock, req_id="10", op="subscribe", args=list(args))


def only(reply: Reply) -> dict:
    [text] = reply.texts
    return json.loads(text)


def push(exchange: Bybit, clock, topic: str) -> dict:
    stream = exchange.stream(topic)
    assert stream is not None
    return json.loads(stream.encode(0, clock.now))


def get(exchange: Bybit, clock, path: str, **query: str) -> dict:
    answer = exchange.rest(
        HttpRequest(method="GET", path=path, query=list(query.items()), remote="rest"), clock.now
    )
    assert answer.status == 200
    assert "X-Bapi-Limit-Status" in answer.headers
    body = json.loads(answer.body)
    assert body.keys() == {"retCode", "retMsg", "result", "retExtInfo", "time"}
    return body


# Pushes.

TICKER = [
    "symbol",
    "lastPrice",
    "highPrice24h",
    "lowPrice24h",
    "prevPrice24h",
    "volume24h",
    "turnover24h",
    "price24hPcnt",
    "usdIndexPrice",
]


def test_a_ticker_has_no_bid_and_no_ask(exchange, clock):
    message = push(exchange, clock, "tickers.BTCUSDT")
    data = message.pop("data")
    assert message.pop("cs") > 0
    assert message == {"topic": "tickers.BTCUSDT", "ts": clock.now.unix_ms, "type": "snapshot"}
    assert data.keys() == set(TICKER)
    assert all(isinstance(value, str) for value in data.values())
    assert Decimal(data["lowPrice24h"]) <= Decimal(data["lastPrice"]) <= Decimal(data["highPrice24h"])
    change = Decimal(data["lastPrice"]) / Decimal(data["prevPrice24h"]) - 1
    assert abs(change - Decimal(data["price24hPcnt"])) < Decimal("0.0001")


def test_the_index_price_can_be_empty(exchange, clock):
    assert push(exchange, clock, "tickers.THINLYUSDT")["data"]["usdIndexPrice"] == ""


def test_a_book_of_one_level_is_always_complete(exchange, clock):
    message = push(exchange, clock, "orderbook.1.BTCUSDT")
    data = message.pop("data")
    times = {"ts": clock.now.unix_ms, "cts": clock.now.unix_ms}
    assert message == {"topic": "orderbook.1.BTCUSDT", "type": "snapshot"} | times
    assert data.keys() == {"s", "b", "a", "u", "seq"}
    [[bid, _]], [[ask, _]] = data["b"], data["a"]
    assert Decimal(bid) < Decimal(ask)
    assert isinstance(data["u"], int)
    assert isinstance(data["seq"], int)
    assert "." not in bid or not bid.endswith("0"), "numbers are not padded"


def test_a_side_of_the_thin_book_is_empty_now_and_then(exchange, clock):
    stream = exchange.stream("orderbook.1.THINLYUSDT")
    seen = set()
    rng = random.Random(1)
    for _ in range(500):
        stream.instrument.step(rng.getrandbits(64))
        data = json.loads(stream.encode(0, clock.now))["data"]
        seen.add((len(data["b"]), len(data["a"])))
    assert {(1, 1), (0, 1), (1, 0)} <= seen


def test_a_trade(exchange, clock):
    message = push(exchange, clock, "publicTrade.BTCUSDT")
    assert message.keys() == {"topic", "ts", "type", "data"}
    [trade] = message["data"]
    kinds = {"i": str, "T": int, "p": str, "v": str, "S": str, "seq": int, "s": str, "BT": bool, "RPI": bool}
    assert {name: type(value) for name, value in trade.items()} == kinds
    assert trade["S"] in ("Buy", "Sell")
    assert str(UUID(trade["i"])) == trade["i"]
    assert push(exchange, clock, "publicTrade.BTCUSDT")["data"] == [trade], "its id belongs to it"


@pytest.mark.parametrize("depth", [50, 200, 1000])
def test_a_deep_book_begins_with_a_snapshot(exchange, clock, depth):
    stream = exchange.stream(f"orderbook.{depth}.BTCUSDT")
    message = json.loads(exchange.snapshot(stream, 0, clock.now))
    assert list(message) == ["topic", "ts", "type", "data", "cts"]
    assert (message["topic"], message["type"]) == (f"orderbook.{depth}.BTCUSDT", "snapshot")
    data = message["data"]
    assert list(data) == ["s", "b", "a", "u", "seq"]
    assert len(data["b"]) == len(data["a"]) == depth
    bids, asks = ([Decimal(price) for price, _ in data[side]] for side in "ba")
    assert bids == sorted(bids, reverse=True)
    assert asks == sorted(asks)
    assert bids[0] < asks[0]


def test_a_delta_has_what_has_changed_and_what_left_the_window(clock):
    exchange = Bybit(60, seed=1)
    stream = exchange.stream("orderbook.50.BTCUSDT")
    first = json.loads(exchange.snapshot(stream, 0, clock.now))["data"]
    stream.source.start()
    stream.instrument.book.take(is_sell=True, size=1, unix_ns=0)
    assert stream.source.take()
    data = json.loads(stream.encode(0, clock.now))["data"]
    [[price, _]] = data["b"]
    assert (price, data["a"]) == (first["b"][0][0], [])
    assert (data["u"], data["seq"] > first["seq"]) == (first["u"] + 1, True)
    assert not stream.source.take(), "nothing has changed since"


def test_a_new_subscriber_gets_a_snapshot_of_all_but_trades(exchange, clock):
    for topic, has_one in (
        ("tickers.BTCUSDT", True),
        ("orderbook.1.BTCUSDT", True),
        ("publicTrade.BTCUSDT", False),
    ):
        stream = exchange.stream(topic)
        assert (exchange.snapshot(stream, 0, clock.now) is not None) == has_one


def test_a_book_repeats_after_three_seconds(exchange):
    assert exchange.stream("orderbook.1.BTCUSDT").repeat_every_ns == 3_000_000_000
    assert exchange.stream("tickers.BTCUSDT").repeat_every_ns == 0


# Requests.


def test_ping(dialog, clock):
    answer = only(ask(dialog, clock, req_id="100001", op="ping"))
    assert isinstance(answer.pop("conn_id"), str)
    assert answer == {"success": True, "ret_msg": "pong", "req_id": "100001", "op": "ping"}
    assert "req_id" not in only(ask(dialog, clock, op="ping"))


def test_subscribe_and_unsubscribe(dialog, clock):
    reply = subscribe(dialog, clock, "tickers.BTCUSDT", "orderbook.1.BTCUSDT")
    answer = only(reply)
    assert isinstance(answer.pop("conn_id"), str)
    assert answer == {"success": True, "ret_msg": "subscribe", "req_id": "10", "op": "subscribe"}
    assert reply.subscribe == ["tickers.BTCUSDT", "orderbook.1.BTCUSDT"]
    left = ask(dialog, clock, op="unsubscribe", args=["tickers.BTCUSDT", "tickers.ETHUSDT"])
    assert (only(left)["success"], only(left)["op"]) == (True, "unsubscribe")
    assert left.unsubscribe == ["tickers.BTCUSDT"]


def test_ten_topics_are_let_pass_and_eleven_are_not(exchange, dialog, clock):
    topics = [f"tickers.{each.listing.base}{each.listing.quote}" for each in exchange.instruments[:11]]
    refused = subscribe(dialog, clock, *topics)
    answer = only(refused)
    assert (answer["success"], answer["ret_msg"]) == (False, "args size >10")
    assert "req_id" not in answer
    assert refused.violation
    assert only(subscribe(dialog, clock, *topics[:10]))["success"] is True


REFUSALS = [
    ("tickers.NOSUCHUSDT", "Invalid symbol :[tickers.NOSUCHUSDT]"),
    ("orderbook.1.btcusdt", "Invalid symbol :[orderbook.1.btcusdt]"),
    ("orderbook.30.BTCUSDT", "error:handler not found,topic:orderbook.30.BTCUSDT"),
    ("ticker.BTCUSDT", "error:handler not found,topic:ticker.BTCUSDT"),
    ("tickers", "error:handler not found,topic:tickers"),
    (5, "error:handler not found,topic:5"),
]


@pytest.mark.parametrize(("topic", "text"), REFUSALS)
def test_one_bad_topic_rejects_the_whole_request(dialog, clock, topic, text):
    reply = subscribe(dialog, clock, "tickers.BTCUSDT", topic, "tickers.ETHUSDT")
    assert (only(reply)["success"], only(reply)["ret_msg"]) == (False, text)
    assert reply.subscribe == []
    assert not dialog.topics
    assert reply.violation
    assert reply.close is None
    assert only(subscribe(dialog, clock, "tickers.BTCUSDT"))["success"] is True


def test_a_second_subscription_is_refused_and_the_first_stays(dialog, clock):
    subscribe(dialog, clock, "tickers.BTCUSDT")
    reply = subscribe(dialog, clock, "tickers.ETHUSDT", "tickers.BTCUSDT")
    assert only(reply)["ret_msg"] == "error:already subscribed,topic:tickers.BTCUSDT"
    assert list(dialog.topics) == ["tickers.BTCUSDT"]
    assert not only(subscribe(dialog, clock, "tickers.XRPUSDT", "tickers.XRPUSDT"))["success"]


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ('{"op":"sub","args":["tickers.BTCUSDT"]}', "error:invalid op"),
        ("{}", "error:invalid op"),
        ("ping", "Failed to decode incoming data:"),
        ("", "Failed to decode incoming data:"),
    ],
)
def test_nonsense_is_refused_and_the_connection_stays(dialog, clock, text, start):
    reply = dialog.on_text(text, clock.now)
    assert only(reply)["success"] is False
    assert only(reply)["ret_msg"].startswith(start)
    assert reply.close is None
    assert reply.violation


def test_topics_of_more_than_21000_characters_are_refused(clock):
    exchange = Bybit(1500, seed=1)
    dialog = exchange.accept(SPOT, clock.now)
    symbols = [each.listing.base + each.listing.quote for each in exchange.instruments]
    topics = [f"orderbook.1.{symbol}" for symbol in symbols]
    total = 0
    for start in range(0, len(topics), 10):
        batch = topics[start : start + 10]
        reply = subscribe(dialog, clock, *batch)
        total += sum(map(len, batch))
        if total > 21_000:
            break
        assert only(reply)["success"] is True
    assert only(reply)["success"] is False
    assert reply.violation
    ask(dialog, clock, op="unsubscribe", args=topics[:20])
    assert only(subscribe(dialog, clock, *batch))["success"] is True, "what was left counts no more"


# Life.


def test_neither_subscription_nor_ping_for_a_minute_is_the_end(dialog, clock):
    assert dialog.on_tick(clock.pass_s(60)).close is None
    reply = dialog.on_tick(clock.pass_s(1))
    assert reply.close is not None
    assert reply.close.code == 0, "no close frame: clients see 1006"
    assert reply.violation


def test_a_subscription_or_a_ping_keeps_it(exchange, dialog, clock):
    for _ in range(100):
        ask(dialog, clock, op="ping")
        assert dialog.on_tick(clock.pass_s(20)).close is None
    subscribe(dialog, clock, "tickers.BTCUSDT")
    for _ in range(100):
        assert dialog.on_tick(clock.pass_s(20)).close is None


def test_other_categories_have_no_socket_here(exchange, clock):
    answer = exchange.accept(HttpRequest(method="GET", path="/v5/public/inverse"), clock.now)
    assert isinstance(answer, HttpAnswer)
    assert answer.status == 404


def test_more_than_500_connections_in_five_minutes_are_refused(clock):
    exchange = Bybit(50, seed=1)
    for _ in range(500):
        assert isinstance(exchange.accept(SPOT, clock.now), BybitDialog)
    refused = exchange.accept(SPOT, clock.pass_s(10))
    assert isinstance(refused, HttpAnswer)
    assert refused.status == 403
    assert refused.violation
    assert isinstance(exchange.accept(SPOT, clock.pass_s(301)), BybitDialog)


# REST.


def test_time(exchange, clock):
    body = get(exchange, clock, "/v5/market/time")
    assert (body["retCode"], body["retMsg"]) == (0, "OK")
    ns = clock.now.unix_ns
    assert body["result"] == {"timeSecond": str(ns // 10**9), "timeNano": str(ns)}


def test_instruments_come_in_one_page_and_all_trade(exchange, clock):
    result = get(exchange, clock, "/v5/market/instruments-info", category="spot", limit="5")["result"]
    assert result.keys() == {"category", "list"}
    assert len(result["list"]) == len(exchange.instruments) >= 300
    assert {each["status"] for each in result["list"]} == {"Trading"}
    first = result["list"][0]
    assert (first["symbol"], first["baseCoin"], first["quoteCoin"]) == ("BTCUSDT", "BTC", "USDT")
    assert Decimal(first["priceFilter"]["tickSize"]) > 0


def test_rest_tickers_have_the_quote(exchange, clock):
    rows = get(exchange, clock, "/v5/market/tickers", category="spot")["result"]["list"]
    [row] = get(exchange, clock, "/v5/market/tickers", category="spot", symbol="BTCUSDT")["result"]["list"]
    assert row == rows[0]
    assert Decimal(row["bid1Price"]) < Decimal(row["ask1Price"])


def test_rows_in_bulk_are_what_the_topics_have_said(clock):
    exchange = Bybit(60, seed=3)
    for position, each in enumerate(exchange.instruments):
        for bits in range(position % 5):
            each.step(bits * 7919)
    rows = get(exchange, clock, "/v5/market/tickers", category="spot")["result"]["list"]
    assert len(rows) == len(exchange.instruments)
    for row in rows:
        day = exchange.stream(f"tickers.{row['symbol']}").encode(0, clock.now)
        book = json.loads(exchange.stream(f"orderbook.1.{row['symbol']}").encode(0, clock.now))["data"]
        quote = {"bid": (row.pop("bid1Price"), row.pop("bid1Size"))}
        quote["ask"] = (row.pop("ask1Price"), row.pop("ask1Size"))
        assert row == json.loads(day)["data"]
        assert quote == {"bid": tuple(*book["b"]) or ("", ""), "ask": tuple(*book["a"]) or ("", "")}


def test_recent_trades_are_those_of_the_topic_the_newest_first(clock):
    exchange = Bybit(60, seed=1)
    stream = exchange.stream("publicTrade.BTCUSDT")
    stream.source.start()
    exchange.by_symbol["BTCUSDT"].burst(70, clock.now.unix_ns)
    stream.source.take()
    said = json.loads(stream.encode(0, clock.now))["data"]
    result = get(exchange, clock, "/v5/market/recent-trade", category="spot", symbol="BTCUSDT")["result"]
    assert result["category"] == "spot"
    assert [row["execId"] for row in result["list"]] == [row["i"] for row in said[:-61:-1]]
    row, event = result["list"][0], said[-1]
    assert [row[name] for name in ("symbol", "price", "size", "side")] == [event[name] for name in "spvS"]
    assert (row["time"], row["seq"]) == (str(event["T"]), str(event["seq"]))
    some = get(exchange, clock, "/v5/market/recent-trade", category="spot", symbol="BTCUSDT", limit="2")
    assert some["result"]["list"] == result["list"][:2]
    for query in ({"category": "spot"}, {"category": "spot", "symbol": "BTCUSDT", "limit": "many"}):
        assert get(exchange, clock, "/v5/market/recent-trade", **query)["retCode"] == 10001


def test_rest_has_a_book_with_the_numbers_of_the_topic_that_has_most(clock):
    exchange = Bybit(60, seed=1)
    stream = exchange.stream("orderbook.1000.BTCUSDT")
    stream.source.start()
    told = json.loads(exchange.snapshot(stream, 0, clock.now))
    exchange.by_symbol["BTCUSDT"].step(7919)

    def book(**query: str) -> dict:
        query = {"category": "spot", "symbol": "BTCUSDT", **query}
        return get(exchange, clock, "/v5/market/orderbook", **query)["result"]

    whole = book(limit="1000")
    assert whole == {**told["data"], "ts": told["ts"], "cts": told["cts"]}, "not before the topic tells it"
    assert stream.source.take()
    event = json.loads(stream.encode(0, clock.now))["data"]
    later = book(limit="1000")
    assert [later[name] for name in ("u", "seq")] == [event["u"], event["seq"]]
    assert later["u"] == whole["u"] + 1
    assert len(later["b"]) > 25
    assert {len(book()["b"]), len(book(limit="25")["a"])} == {1, 25}
    assert book(limit="3")["b"] == later["b"][:3]


def test_a_book_that_nobody_watches_has_another_number_when_it_has_changed(clock):
    exchange = Bybit(60, seed=1)
    query = {"category": "spot", "symbol": "BTCUSDT", "limit": "1000"}
    first, again = (get(exchange, clock, "/v5/market/orderbook", **query)["result"] for _ in range(2))
    exchange.by_symbol["BTCUSDT"].step(7919)
    later = get(exchange, clock, "/v5/market/orderbook", **query)["result"]
    assert again == first
    assert later["u"] > first["u"]


@pytest.mark.parametrize(
    "query", [{}, {"symbol": "NOSUCH"}, {"limit": "1001"}, {"limit": "0"}, {"limit": "x"}]
)
def test_a_bad_call_for_a_book_is_retcode_10001(exchange, clock, query):
    symbol = {"symbol": "BTCUSDT"} if "limit" in query else {}
    body = get(exchange, clock, "/v5/market/orderbook", category="spot", **symbol, **query)
    assert body["retCode"] == 10001


@pytest.mark.parametrize("category", ["inverse", "option"])
def test_in_categories_that_are_not_played_nothing_is_listed(exchange, clock, category):
    listed = get(exchange, clock, "/v5/market/instruments-info", category=category)
    assert listed["result"] == {"category": category, "list": [], "nextPageCursor": ""}
    tickers = get(exchange, clock, "/v5/market/tickers", category=category)
    assert tickers["result"] == {"category": category, "list": []}
    for path in ("recent-trade", "orderbook"):
        assert get(exchange, clock, f"/v5/market/{path}", category=category)["retCode"] == 10001


@pytest.mark.parametrize("query", [{}, {"category": "margin"}, {"category": "spot", "symbol": "NOSUCH"}])
def test_a_bad_call_is_retcode_10001(exchange, clock, query):
    assert get(exchange, clock, "/v5/market/tickers", **query)["retCode"] == 10001


def test_an_unknown_path_is_a_404(exchange, clock):
    assert exchange.rest(HttpRequest(method="GET", path="/v5/market/nonsense"), clock.now).status == 404


def test_more_than_600_requests_in_5_s_are_a_403(clock):
    exchange = Bybit(50, seed=1)
    request = HttpRequest(method="GET", path="/v5/market/time", remote="10.1.1.1")
    assert all(exchange.rest(request, clock.now).status == 200 for _ in range(600))
    refused = exchange.rest(request, clock.now)
    assert refused.status == 403
    assert "access too frequent" in json.loads(refused.body)["retMsg"]
    assert refused.violation
