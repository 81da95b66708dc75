"""The linear perpetuals of the simulated Bybit, against the documentation: frames, answers, rules.

Shapes: https://bybit-exchange.github.io/docs/v5/websocket/public/ticker and the pages beside it.
"""

import json
from decimal import Decimal
from urllib.parse import parse_qsl

import pytest

from feedhandler.sim.bybit import PATHS, SPOT, Bybit, BybitDialog, BybitRules
from feedhandler.sim.bybit_linear import PREMIUM_MAX
from feedhandler.sim.perpetuals import INTEREST, RATE_ONE
from feedhandler.sim.protocol import NS_PER_MS, HttpRequest

LINEAR = HttpRequest(method="GET", path="/v5/public/linear", remote="test")
TICKER = [
    *("symbol", "tickDirection", "price24hPcnt", "lastPrice", "prevPrice24h", "highPrice24h", "lowPrice24h"),
    *("markPrice", "indexPrice", "openInterest", "openInterestValue", "turnover24h", "volume24h"),
    *("fundingIntervalHour", "fundingCap", "singleOpenInterest", "singleOpenInterestValue"),
    *("nextFundingTime", "fundingRate", "bid1Price", "bid1Size", "ask1Price", "ask1Size", "preOpenPrice"),
    *("preQty", "curPreListingPhase"),
]


@pytest.fixture
def exchange() -> Bybit:
    return Bybit(300, seed=1)


def dialog_of(exchange, clock, request=LINEAR) -> BybitDialog:
    dialog = exchange.accept(request, clock.now)
    assert isinstance(dialog, BybitDialog)
    return dialog


def ask(dialog, clock, *args, op="subscribe"):
    return dialog.on_text(json.dumps({"req_id": "7", "op": op, "args": list(args)}), clock.now)


def get(exchange, clock, path, query):
    pairs = parse_qsl(query, keep_blank_values=True)
    request = HttpRequest(method="GET", path=f"/v5/market/{path}", query=pairs, remote="rest")
    return json.loads(exchange.rest(request, clock.now).body)


def snapshot(exchange, clock, topic):
    stream = exchange.stream(topic)
    payload = exchange.snapshot(stream, 0, clock.now)
    return stream, None if payload is None else json.loads(payload)


def move(stream, clock, count=1):
    for number in range(count):
        stream.instrument.step((number * 2654435761 + 12345) % 2**64, clock.now.unix_ns)


def test_a_topic_is_acknowledged_and_beside_that_of_spot(exchange, clock):
    linear = dialog_of(exchange, clock)
    spot = dialog_of(exchange, clock, HttpRequest(method="GET", path="/v5/public/spot", remote="test"))
    [text] = ask(linear, clock, "tickers.BTCUSDT").texts
    answer = json.loads(text)
    assert (answer["success"], answer["ret_msg"], answer["req_id"]) == (True, "", "7")
    assert ask(spot, clock, "tickers.BTCUSDT").subscribe == ["tickers.BTCUSDT"]
    assert list(linear.topics) == ["linear:tickers.BTCUSDT"]
    assert ask(linear, clock, "tickers.BTCUSDT", op="unsubscribe").unsubscribe == ["linear:tickers.BTCUSDT"]
    assert not linear.topics


@pytest.mark.parametrize(
    ("topics", "text"),
    [
        (["tickers.NOSUCH"], "error:handler not found,topic:tickers.NOSUCH"),
        (["tickers.btcusdt"], "error:handler not found,topic:tickers.btcusdt"),
        (["orderbook.30.BTCUSDT"], "error:handler not found,topic:orderbook.30.BTCUSDT"),
        (["liquidation.BTCUSDT"], "error:handler not found,topic:liquidation.BTCUSDT"),
        (
            ["tickers.BTCUSDT", "tickers.BTCUSDT"],
            "error:already subscribed,topic:tickers.BTCUSDT",
        ),
        (["tickers." + "A" * 30_000], "error:handler not found,topic:tickers." + "A" * 30_000),
    ],
)
def test_a_bad_topic_refuses_its_request(exchange, clock, topics, text):
    [answer] = ask(dialog_of(exchange, clock), clock, *topics).texts
    assert (json.loads(answer)["success"], json.loads(answer)["ret_msg"]) == (False, text)


def test_a_request_may_have_many_topics_and_a_connection_21000_characters(exchange, clock):
    dialog = dialog_of(exchange, clock)
    symbols = list(exchange.by_symbol_of["linear"])
    first = [f"{channel}.{symbol}" for symbol in symbols[:250] for channel in ("tickers", "publicTrade")]
    assert ask(dialog, clock, *first).subscribe
    more = [f"orderbook.{depth}.{symbol}" for symbol in symbols for depth in (50, 200, 1000)]
    [answer] = ask(dialog, clock, *more).texts
    assert json.loads(answer)["ret_msg"] == "error:args length >21000"


def test_there_are_no_liquidations_on_spot(exchange, clock):
    spot = dialog_of(exchange, clock, HttpRequest(method="GET", path="/v5/public/spot", remote="test"))
    assert not ask(spot, clock, "allLiquidation.BTCUSDT").subscribe
    assert PATHS["/v5/public/spot"] == SPOT


def test_a_ticker_begins_with_a_snapshot_and_goes_on_with_what_has_changed(exchange, clock):
    stream, first = snapshot(exchange, clock, "linear:tickers.BTCUSDT")
    assert list(first) == ["topic", "type", "data", "cs", "ts"]
    assert (first["topic"], first["type"]) == ("tickers.BTCUSDT", "snapshot")
    assert list(first["data"]) == TICKER
    assert stream.regular_every_ns == 100 * NS_PER_MS
    known = dict(first["data"])
    before = first["cs"]
    for _ in range(50):
        clock.pass_s(0.1)
        move(stream, clock, 3)
        assert stream.source.take()
        delta = json.loads(stream.encode(0, clock.now))
        assert delta["type"] == "delta"
        assert delta["cs"] > before
        before = delta["cs"]
        changed = {name for name, text in delta["data"].items() if known[name] != text}
        assert changed, "else it would not have been sent"
        assert ("bid1Price" in delta["data"]) == ("bid1Size" in delta["data"]), "a price comes with its size"
        assert not stream.source.take(), "nothing has changed since"
        known |= delta["data"]
        assert json.loads(exchange.snapshot(stream, 0, clock.now))["data"] == known, "for who joins now"
    assert any(name not in delta["data"] for name in TICKER)


def test_what_is_lost_is_no_part_of_the_next_delta(exchange, clock):
    stream, _ = snapshot(exchange, clock, "linear:tickers.BTCUSDT")
    move(stream, clock, 5)
    stream.lose()
    assert not stream.source.take()


def test_contract_values_move_with_the_market_and_keep_to_it(exchange, clock):
    stream, first = snapshot(exchange, clock, "linear:tickers.ETHUSDT")
    seen = []
    for _ in range(60):
        clock.pass_s(61)
        move(stream, clock, 40)
        data = json.loads(stream.encode(0, clock.now)) and stream.source._sent
        mark, index, last = (Decimal(data[name]) for name in ("markPrice", "indexPrice", "lastPrice"))
        assert abs(mark / last - 1) < Decimal("0.002")
        assert abs(index / mark - 1) < Decimal("0.001")
        rate = float(data["fundingRate"])
        assert abs(rate - INTEREST / RATE_ONE) <= PREMIUM_MAX
        assert Decimal(data["openInterest"]) == 2 * Decimal(data["singleOpenInterest"])
        seen.append((mark, index, rate, data["singleOpenInterest"]))
    assert all(len(set(column)) > 10 for column in zip(*seen, strict=True))
    assert Decimal(first["data"]["singleOpenInterest"]) > 0


def test_funding_is_due_at_its_time_and_then_at_the_next(clock):
    exchange = Bybit(50, seed=1, rules=BybitRules(funding_hour_s=60.0))
    stream, first = snapshot(exchange, clock, "linear:tickers.BTCUSDT")
    interval_ms = int(first["data"]["fundingIntervalHour"]) * 60_000
    due_ms = int(first["data"]["nextFundingTime"])
    assert 0 < due_ms - clock.now.unix_ms <= interval_ms
    assert due_ms % interval_ms == 0
    clock.pass_s((due_ms - clock.now.unix_ms) / 1000)
    move(stream, clock)
    later = json.loads(stream.encode(0, clock.now))["data"]
    assert int(later["nextFundingTime"]) == due_ms + interval_ms


def test_before_its_launch_there_is_no_funding_and_no_index(exchange, clock):
    _, first = snapshot(exchange, clock, "linear:tickers.SOONLYUSDT")
    empty = {name for name, text in first["data"].items() if text == ""}
    assert {"fundingRate", "nextFundingTime", "fundingIntervalHour", "indexPrice"} <= empty
    assert first["data"]["curPreListingPhase"] == "ContinuousTrading"


def test_liquidations_come_each_half_second_if_there_are_any(exchange, clock):
    stream, none = snapshot(exchange, clock, "linear:allLiquidation.BTCUSDT")
    assert none is None, "who joins gets nothing of the past"
    assert stream.regular_every_ns == 500 * NS_PER_MS
    assert not stream.source.take()
    messages = []
    for _ in range(200):
        clock.pass_s(0.5)
        move(stream, clock, 20)
        if stream.source.take():
            messages.append(json.loads(stream.encode(0, clock.now)))
    assert 5 < len(messages) < 100
    sides = {row["S"] for message in messages for row in message["data"]}
    assert sides == {"Buy", "Sell"}
    last = Decimal(stream.instrument.last).scaleb(-stream.instrument.price_decimals)
    for message in messages:
        assert message["type"] == "snapshot"
        for row in message["data"]:
            assert list(row) == ["T", "s", "S", "v", "p"]
            assert row["T"] <= message["ts"]
            assert (Decimal(row["p"]) < last) == (row["S"] == "Buy"), "a long one ends below the market"


def test_books_and_trades_are_of_this_market(exchange, clock):
    for topic in ("orderbook.1.BTCUSDT", "orderbook.50.BTCUSDT"):
        _, linear = snapshot(exchange, clock, f"linear:{topic}")
        _, spot = snapshot(exchange, clock, topic)
        assert linear["topic"] == spot["topic"] == topic
        assert linear["data"]["b"] != spot["data"]["b"]
    stream = exchange.stream("linear:publicTrade.BTCUSDT")
    stream.source.start()
    stream.instrument.trade(7, clock.now.unix_ns)
    assert stream.source.take()
    [row] = json.loads(stream.encode(0, clock.now))["data"]
    recent = get(exchange, clock, "recent-trade", "category=linear&symbol=BTCUSDT&limit=1")["result"]
    assert (recent["category"], recent["list"][0]["execId"]) == ("linear", row["i"])


def test_the_book_of_rest_is_that_of_the_contract(exchange, clock):
    _, told = snapshot(exchange, clock, "linear:orderbook.1000.BTCUSDT")
    book = get(exchange, clock, "orderbook", "category=linear&symbol=BTCUSDT")["result"]
    assert (book["b"], book["u"]) == (told["data"]["b"][:25], told["data"]["u"])


def listed(exchange, clock, query):
    pages, cursor = [], ""
    while not pages or cursor:
        result = get(exchange, clock, "instruments-info", f"category=linear{query}&cursor={cursor}")["result"]
        pages.append(result["list"])
        cursor = result["nextPageCursor"]
    return pages


def test_instruments_come_in_pages_of_500_or_as_many_as_asked_for_up_to_1000(clock):
    exchange = Bybit(700, seed=1)
    first, second = listed(exchange, clock, "")
    assert len(first) == 500
    assert len(second) > 100
    (whole,) = listed(exchange, clock, "&limit=1000")
    assert whole == [*first, *second]
    for limit in ("0", "1001", "many"):
        assert get(exchange, clock, "instruments-info", f"category=linear&limit={limit}")["retCode"] == 10001
    assert get(exchange, clock, "instruments-info", "category=linear&cursor=nonsense")["retCode"] == 10001


def test_instruments_are_listed_by_status_and_there_are_dated_ones_among_them(exchange, clock):
    (trading,) = listed(exchange, clock, "")
    assert {row["status"] for row in trading} == {"Trading"}
    dated = [row["symbol"] for row in trading if row["contractType"] != "LinearPerpetual"]
    assert dated == ["BTCUSDT-25DEC26"]
    assert {(row["symbol"], row["settleCoin"]) for row in trading} >= {
        ("BTCUSDT", "USDT"),
        ("BTCPERP", "USDC"),
    }
    (early,) = listed(exchange, clock, "&status=PreLaunch")
    phases = {row["baseCoin"]: row["preListingInfo"]["curAuctionPhase"] for row in early}
    assert phases == {"EARLY": "CallAuction", "SOONLY": "ContinuousTrading"}
    (ending,) = listed(exchange, clock, "&status=Delivering")
    assert [row["symbol"] for row in ending] == ["GONERUSDT"]
    assert listed(exchange, clock, "&status=Closed") == [[]]


def test_rest_states_what_the_stream_does(exchange, clock):
    _, first = snapshot(exchange, clock, "linear:tickers.BTCUSDT")
    rows = get(exchange, clock, "tickers", "category=linear")["result"]["list"]
    (row,) = [row for row in rows if row["symbol"] == "BTCUSDT"]
    assert {name: row[name] for name in first["data"]} == first["data"]
    assert "GONERUSDT" not in {row["symbol"] for row in rows}
    assert get(exchange, clock, "tickers", "category=linear&symbol=NOSUCH")["retCode"] == 10001


def test_the_market_of_spot_is_what_it_was(clock):
    """Another market takes no chance of spot's: seeds play there what they always did."""
    exchange = Bybit(300, seed=1)
    btc = exchange.by_symbol["BTCUSDT"]
    assert btc is exchange.instruments[0]
    assert btc is not exchange.by_symbol_of["linear"]["BTCUSDT"]
    assert exchange.other_instruments[0].update_id != btc.update_id
