"""The simulated Binance, against its documentation: frames, answers, rules.

Shapes: https://developers.binance.com/en/docs/products/spot/web-socket-streams and
https://github.com/binance/binance-spot-api-docs/blob/master/rest-api.md
"""

import json
from decimal import Decimal

import pytest

from feedhandler.sim.binance import Binance, BinanceDialog, BinanceRules
from feedhandler.sim.protocol import HttpAnswer, HttpRequest, Reply

NAME = "松鼠币"  # the base outside ASCII


@pytest.fixture(scope="module")
def exchange() -> Binance:
    return Binance(300, seed=1)


def connect(exchange: Binance, clock, path: str = "/ws", **query: str) -> BinanceDialog:
    dialog = exchange.accept(
        HttpRequest(method="GET", path=path, query=list(query.items()), remote="test"), clock.now
    )
    assert isinstance(dialog, BinanceDialog)
    dialog.first_reply = dialog.on_open(clock.now)
    return dialog


def ask(dialog: BinanceDialog, clock, **message: object) -> Reply:
    clock.pass_s(0.25)
    return dialog.on_text(json.dumps(message), clock.now)


def only(reply: Reply) -> dict:
    [text] = reply.texts
    return json.loads(text)


def get(exchange: Binance, clock, path: str, **query: str) -> tuple[int, object]:
    answer = exchange.rest(
        HttpRequest(method="GET", path=path, query=list(query.items()), remote="rest"), clock.now
    )
    return answer.status, json.loads(answer.body)


def event(exchange: Binance, clock, topic: str, variant: int = 0) -> dict:
    stream = exchange.stream(topic)
    assert stream is not None
    return json.loads(stream.encode(variant, clock.now))


# Events.

EVENT_FIELDS = {
    "btcusdt@bookTicker": {"u": int, "s": str, "b": str, "B": str, "a": str, "A": str},
    "btcusdt@trade": {
        "e": str,
        "E": int,
        "s": str,
        "t": int,
        "p": str,
        "q": str,
        "T": int,
        "m": bool,
        "M": bool,
    },
    "btcusdt@depth": {"e": str, "E": int, "s": str, "U": int, "u": int, "b": list, "a": list},
    "btcusdt@depth@1000ms": {"e": str, "E": int, "s": str, "U": int, "u": int, "b": list, "a": list},
    "btcusdt@depth20@100ms": {"lastUpdateId": int, "bids": list, "asks": list},
    "btcusdt@miniTicker": {"e": str, "E": int, "s": str} | dict.fromkeys(("c", "o", "h", "l", "v", "q"), str),
    "btcusdt@ticker": {"e": str, "E": int, "s": str}
    | dict.fromkeys(("p", "P", "w", "x", "c", "Q", "b", "B", "a", "A", "o", "h", "l", "v", "q"), str)
    | dict.fromkeys(("O", "C", "F", "L", "n"), int),
}


@pytest.mark.parametrize("topic", EVENT_FIELDS)
def test_an_event_has_the_documented_fields_and_types(exchange, clock, topic):
    assert {name: type(value) for name, value in event(exchange, clock, topic).items()} == EVENT_FIELDS[topic]


def test_every_price_and_size_has_eight_decimals(exchange, clock):
    ticker = event(exchange, clock, "btcusdt@ticker")
    for name in ("p", "w", "x", "c", "Q", "b", "B", "a", "A", "o", "h", "l", "v", "q"):
        assert len(ticker[name].partition(".")[2]) == 8
    assert len(ticker["P"].partition(".")[2]) == 3


@pytest.mark.parametrize(
    "topic", ["btcusdt@ticker", "moonxusdt@ticker", "btccop@ticker", f"{NAME}usdt@ticker"]
)
def test_a_ticker_is_consistent_in_itself(exchange, clock, topic):
    ticker = event(exchange, clock, topic)
    price = {name: Decimal(ticker[name]) for name in "pwcbaohlvq"}
    assert 0 < price["b"] < price["a"]
    assert price["l"] <= price["c"] <= price["h"]
    assert price["l"] <= price["o"] <= price["h"]
    assert price["p"] == price["c"] - price["o"]
    assert price["l"] <= price["w"] <= price["h"]
    assert ticker["C"] - ticker["O"] == 86_400_000
    assert ticker["L"] - ticker["F"] + 1 == ticker["n"]
    assert ticker["E"] == clock.now.unix_ns // 1_000_000


def test_microseconds_on_request(exchange, clock):
    dialog = connect(exchange, clock, "/ws", timeUnit="microsecond")
    ticker = event(exchange, clock, "btcusdt@ticker", dialog.variant)
    assert ticker["E"] == clock.now.unix_ns // 1000
    assert ticker["C"] - ticker["O"] == 86_400_000_000


def test_combined_connections_get_events_with_their_stream(exchange, clock):
    dialog = connect(exchange, clock, "/stream", streams="btcusdt@bookTicker/ethusdt@ticker")
    assert dialog.first_reply.subscribe == ["btcusdt@bookTicker", "ethusdt@ticker"]
    wrapped = event(exchange, clock, "btcusdt@bookTicker", dialog.variant)
    assert wrapped.keys() == {"stream", "data"}
    assert wrapped["stream"] == "btcusdt@bookTicker"
    assert wrapped["data"].keys() == EVENT_FIELDS["btcusdt@bookTicker"].keys()


def test_a_symbol_outside_ascii_streams_under_its_own_name(exchange, clock):
    assert event(exchange, clock, f"{NAME}usdt@bookTicker")["s"] == f"{NAME}USDT"


def test_a_raw_stream_in_the_url_is_subscribed_and_a_running_number_there_is_let_pass(exchange, clock):
    assert connect(exchange, clock, "/ws/btcusdt@ticker").first_reply.subscribe == ["btcusdt@ticker"]
    assert connect(exchange, clock, "/ws/17").first_reply == Reply()


@pytest.mark.parametrize("path", ["/", "/wss", "/streams", "/ws-api/v2"])
def test_other_paths_are_no_stream(exchange, clock, path):
    answer = exchange.accept(HttpRequest(method="GET", path=path), clock.now)
    assert isinstance(answer, HttpAnswer)
    assert answer.status == 404


@pytest.mark.parametrize(
    "topic", ["haltedusdt@ticker", "brokenbtc@bookTicker", "nosuchusdt@ticker", "BTCUSDT@ticker"]
)
def test_what_does_not_trade_or_exist_is_acknowledged_and_silent(exchange, clock, topic):
    reply = ask(connect(exchange, clock), clock, method="SUBSCRIBE", params=[topic], id=1)
    assert only(reply) == {"result": None, "id": 1}
    assert reply.subscribe == [topic]
    assert reply.violation == ""
    assert exchange.stream(topic) is None


# Requests.


def test_subscribe_list_unsubscribe(exchange, clock):
    dialog = connect(exchange, clock)
    reply = ask(dialog, clock, method="SUBSCRIBE", params=["btcusdt@ticker", "ethusdt@ticker"], id="a1")
    assert only(reply) == {"result": None, "id": "a1"}
    again = ask(dialog, clock, method="SUBSCRIBE", params=["btcusdt@ticker"], id=-5)
    assert (only(again), again.subscribe) == ({"result": None, "id": -5}, [])
    listed = ask(dialog, clock, method="LIST_SUBSCRIPTIONS", id=3)
    assert only(listed) == {"result": ["btcusdt@ticker", "ethusdt@ticker"], "id": 3}
    left = ask(dialog, clock, method="UNSUBSCRIBE", params=["btcusdt@ticker", "x@trade"], id=None)
    assert (only(left), left.unsubscribe) == ({"result": None, "id": None}, ["btcusdt@ticker"])
    assert list(dialog.topics) == ["ethusdt@ticker"]


def test_the_combined_form_can_be_switched(exchange, clock):
    dialog = connect(exchange, clock, "/ws/btcusdt@ticker")
    assert only(ask(dialog, clock, method="GET_PROPERTY", params=["combined"], id=1)) == {
        "result": False,
        "id": 1,
    }
    reply = ask(dialog, clock, method="SET_PROPERTY", params=["combined", True], id=2)
    assert only(reply) == {"result": None, "id": 2}
    assert reply.unsubscribe == reply.subscribe == ["btcusdt@ticker"], "out of one audience, into the other"
    assert only(ask(dialog, clock, method="GET_PROPERTY", params=["combined"], id=3)) == {
        "result": True,
        "id": 3,
    }


BAD_REQUESTS = [
    ('{"method":"SUBSCRIBE"', 3),
    ("", 3),
    ("[1]", 2),
    ('{"id":1}', 2),
    ('{"method":"subscribe","params":["btcusdt@ticker"],"id":1}', 2),
    ('{"method":"SUBSCRIBE","params":"btcusdt@ticker","id":1}', 2),
    ('{"method":"SUBSCRIBE","params":["btcusdt@ticker"],"id":1.5}', 2),
    ('{"method":"SUBSCRIBE","params":["btcusdt@ticker"],"id":"not alphanumeric!"}', 2),
    ('{"method":"SUBSCRIBE","params":["btcusdt@ticker"],"id":true}', 2),
    ('{"method":"SUBSCRIBE","params":["btcusdt@ticker"],"id":9223372036854775808}', 2),
    ('{"method":"SET_PROPERTY","params":["combined","yes"],"id":1}', 1),
    ('{"method":"SET_PROPERTY","params":["combined",true,1],"id":1}', 2),
    ('{"method":"GET_PROPERTY","params":[1],"id":1}', 2),
    ('{"method":"GET_PROPERTY","params":["colour"],"id":1}', 0),
]


@pytest.mark.parametrize(("text", "code"), BAD_REQUESTS)
def test_a_bad_request_is_answered_with_a_nested_error_and_counted(exchange, clock, text, code):
    reply = connect(exchange, clock).on_text(text, clock.now)
    error = only(reply)["error"]
    assert error.keys() == {"code", "msg"}
    assert error["code"] == code
    assert reply.violation
    assert reply.close is None


@pytest.mark.parametrize(
    "name", ["btcusdt", "btcusdt@", "@ticker", "btcusdt@tickers", "btc usdt@ticker", "a@b@c", 5]
)
def test_a_malformed_stream_is_answered_and_disconnected(exchange, clock, name):
    reply = ask(connect(exchange, clock), clock, method="SUBSCRIBE", params=["ethusdt@ticker", name], id=98)
    assert only(reply)["error"]["code"] == 2
    assert only(reply)["id"] == 98
    assert reply.close is not None
    assert reply.subscribe == []


# Limits.


def test_five_messages_in_a_second_are_let_pass_and_a_sixth_is_not(exchange, clock):
    dialog = connect(exchange, clock)
    for number in range(3):
        assert (
            dialog.on_text(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": number}), clock.now).close
            is None
        )
    assert dialog.on_ping(b"x", clock.now).pong == b"x"
    assert dialog.on_pong(b"", clock.now).close is None
    clock.pass_s(0.99)
    close = dialog.on_pong(b"", clock.now).close
    assert close is not None
    assert (close.code, close.reason) == (1008, "Too many requests")


def test_one_message_every_200_ms_is_never_too_much(exchange, clock):
    dialog = connect(exchange, clock)
    for number in range(100):
        clock.pass_s(0.2)
        assert (
            dialog.on_text(json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": number}), clock.now).close
            is None
        )


def test_more_than_1024_streams_are_refused(exchange, clock):
    dialog = connect(exchange, clock)
    names = [f"x{number}usdt@ticker" for number in range(1025)]
    for start in range(0, 1000, 100):
        assert ask(dialog, clock, method="SUBSCRIBE", params=names[start : start + 100], id=1).violation == ""
    refused = ask(dialog, clock, method="SUBSCRIBE", params=names[1000:], id=2)
    assert only(refused)["error"]["code"] == 4
    assert ask(dialog, clock, method="SUBSCRIBE", params=names[1000:1024], id=3).violation == ""
    assert len(dialog.topics) == 1024


def test_a_message_of_more_than_4096_bytes_is_ignored(exchange, clock):
    dialog = connect(exchange, clock)
    reply = ask(
        dialog, clock, method="SUBSCRIBE", params=[f"coin{number}usdt@ticker" for number in range(300)], id=1
    )
    assert reply.texts == []
    assert reply.violation
    assert not dialog.topics


def test_more_than_300_attempts_in_five_minutes_are_refused(clock):
    exchange = Binance(50, seed=1)
    request = HttpRequest(method="GET", path="/ws", remote="10.1.1.1")
    for _ in range(300):
        assert isinstance(exchange.accept(request, clock.now), BinanceDialog)
    refused = exchange.accept(request, clock.pass_s(299))
    assert isinstance(refused, HttpAnswer)
    assert refused.status == 429
    assert refused.violation
    assert isinstance(
        exchange.accept(HttpRequest(method="GET", path="/ws", remote="10.1.1.2"), clock.now), BinanceDialog
    )
    assert isinstance(exchange.accept(request, clock.pass_s(301)), BinanceDialog)


# Heartbeat.


def run_heartbeat(dialog: BinanceDialog, clock, seconds: int, answer) -> list[Reply]:
    """Let time pass; `answer(payload)` gives the pong's payload, or None for no pong."""
    replies = []
    for _ in range(seconds * 2):
        reply = dialog.on_tick(clock.pass_s(0.5))
        if reply.ping is not None and (pong := answer(reply.ping)) is not None:
            assert dialog.on_pong(pong, clock.now).close is None
        replies.append(reply)
        if reply.close is not None:
            break
    return replies


def test_a_ping_every_20_s_and_a_pong_with_its_payload_keeps_the_connection(exchange, clock):
    replies = run_heartbeat(connect(exchange, clock), clock, 600, lambda payload: payload)
    assert sum(reply.ping is not None for reply in replies) == 30
    assert all(reply.close is None and not reply.violation for reply in replies)


@pytest.mark.parametrize(
    "answer", [lambda payload: None, lambda payload: b"", lambda payload: payload + b"x"]
)
def test_without_a_pong_of_the_same_payload_a_minute_after_the_ping_it_is_over(exchange, clock, answer):
    replies = run_heartbeat(connect(exchange, clock), clock, 200, answer)
    assert replies[-1].close is not None
    assert replies[-1].violation
    assert len(replies) / 2 == pytest.approx(80, abs=1)


def test_a_pong_to_the_newest_ping_answers_the_older_ones(exchange, clock):
    pings: list[bytes] = []

    def every_third(payload: bytes) -> bytes | None:
        pings.append(payload)
        return payload if len(pings) % 3 == 0 else None

    assert run_heartbeat(connect(exchange, clock), clock, 300, every_third)[-1].close is None


def test_a_connection_ends_after_a_day(clock):
    exchange = Binance(50, seed=1, rules=BinanceRules(ping_every_s=1e6))
    dialog = connect(exchange, clock)
    assert dialog.on_tick(clock.pass_s(86_399)).close is None
    assert dialog.on_tick(clock.pass_s(2)).close is not None


def test_the_shutdown_notice_has_the_form_of_the_connection(exchange, clock):
    raw = json.loads(exchange.shutdown_notice(connect(exchange, clock), clock.now) or b"")
    combined = json.loads(exchange.shutdown_notice(connect(exchange, clock, "/stream"), clock.now) or b"")
    assert raw == {"e": "serverShutdown", "E": clock.now.unix_ms}
    assert combined == {"stream": "!serverShutdown", "data": raw}


# REST.


def test_time_and_ping(exchange, clock):
    assert get(exchange, clock, "/api/v3/ping") == (200, {})
    assert get(exchange, clock, "/api/v3/time") == (200, {"serverTime": clock.now.unix_ms})


def test_exchange_info_lists_every_status_and_splits_no_name(exchange, clock):
    status, info = get(exchange, clock, "/api/v3/exchangeInfo")
    assert status == 200
    by_symbol = {each["symbol"]: each for each in info["symbols"]}
    assert len(by_symbol) == len(info["symbols"]) >= 300
    assert by_symbol["BTCUSDT"]["status"] == "TRADING"
    assert by_symbol["HALTEDUSDT"]["status"] == "HALT"
    assert by_symbol["BROKENBTC"]["status"] == "BREAK"
    assert (by_symbol["NEXUSDUSDT"]["baseAsset"], by_symbol["NEXUSDT"]["baseAsset"]) == ("NEXUSD", "NEX")
    assert by_symbol[f"{NAME}USDT"]["baseAsset"] == NAME
    assert {limit["rateLimitType"] for limit in info["rateLimits"]} == {
        "REQUEST_WEIGHT",
        "ORDERS",
        "RAW_REQUESTS",
    }
    assert all(each["isSpotTradingAllowed"] is True for each in info["symbols"])


def test_exchange_info_parameters(exchange, clock):
    def symbols(**query: str) -> set[str]:
        status, info = get(exchange, clock, "/api/v3/exchangeInfo", **query)
        assert status == 200
        return {each["symbol"] for each in info["symbols"]}

    assert symbols(symbol="BTCUSDT") == {"BTCUSDT"}
    assert symbols(symbols='["BTCUSDT","ETHUSDT"]') == {"BTCUSDT", "ETHUSDT"}
    assert symbols(symbolStatus="HALT") == {"HALTEDUSDT"}
    assert "BTCUSDT" in symbols(permissions="SPOT")
    assert symbols(permissions="LEVERAGED") == set()
    _, info = get(exchange, clock, "/api/v3/exchangeInfo", symbol="BTCUSDT", showPermissionSets="false")
    assert "permissionSets" not in info["symbols"][0]


BAD_CALLS = [
    ({"symbol": "NOSUCH"}, -1121),
    ({"symbols": '["BTCUSDT","NOSUCH"]'}, -1121),
    ({"symbols": "BTCUSDT"}, -1100),
    ({"symbol": "BTCUSDT", "symbols": '["BTCUSDT"]'}, -1128),
    ({"symbol": "BTCUSDT", "symbolStatus": "TRADING"}, -1128),
    ({"symbolStatus": "ASLEEP"}, -1122),
    ({"limit": "5"}, -1104),
]


@pytest.mark.parametrize(("query", "code"), BAD_CALLS)
def test_a_bad_call_is_a_400_with_its_code(exchange, clock, query, code):
    status, error = get(exchange, clock, "/api/v3/exchangeInfo", **query)
    assert (status, error["code"]) == (400, code)
    assert error.keys() == {"code", "msg"}


def test_rest_tickers(exchange, clock):
    _, every = get(exchange, clock, "/api/v3/ticker/24hr")
    assert len(every) == len(exchange.instruments)
    _, one = get(exchange, clock, "/api/v3/ticker/24hr", symbol="BTCUSDT")
    assert one == every[0]
    assert set(one) >= {
        "lastPrice",
        "bidPrice",
        "bidQty",
        "openPrice",
        "highPrice",
        "lowPrice",
        "volume",
        "quoteVolume",
    }
    _, mini = get(exchange, clock, "/api/v3/ticker/24hr", symbol="BTCUSDT", type="MINI")
    assert "bidPrice" not in mini
    _, books = get(exchange, clock, "/api/v3/ticker/bookTicker", symbols='["BTCUSDT"]')
    assert [set(each) for each in books] == [{"symbol", "bidPrice", "bidQty", "askPrice", "askQty"}]


def test_rows_in_bulk_are_what_the_streams_have_said(clock):
    exchange = Binance(60, seed=3)
    for position, each in enumerate(exchange.instruments):
        for bits in range(position % 5):
            each.step(bits * 7919)
    _, books = get(exchange, clock, "/api/v3/ticker/bookTicker")
    _, days = get(exchange, clock, "/api/v3/ticker/24hr")
    books = {row["symbol"]: row for row in books}
    assert len(books) == len(days) == len(exchange.instruments)
    for row in days:
        stream = exchange.stream(f"{row['symbol'].lower()}@ticker")
        if stream is None:
            continue
        said = json.loads(stream.encode(0, clock.now))
        names = {"lastPrice": "c", "openPrice": "o", "highPrice": "h", "lowPrice": "l", "volume": "v"}
        names |= {"quoteVolume": "q", "closeTime": "C", "lastId": "L"}
        quote = {"bidPrice": "b", "bidQty": "B", "askPrice": "a", "askQty": "A"}
        assert {name: row[name] for name in names | quote} == {n: said[f] for n, f in (names | quote).items()}
        assert {name: books[row["symbol"]][name] for name in quote} == {n: said[f] for n, f in quote.items()}


def test_what_does_not_trade_has_a_row_in_zeros(exchange, clock):
    _, books = get(exchange, clock, "/api/v3/ticker/bookTicker")
    [row] = [each for each in books if each["symbol"] == "HALTEDUSDT"]
    assert set(row.values()) == {"HALTEDUSDT", "0.00000000"}


@pytest.mark.parametrize(
    ("path", "count", "weight"),
    [
        ("ticker/bookTicker", None, 2),  # `symbol`, not a list of one
        ("ticker/bookTicker", 1, 4),
        ("ticker/bookTicker", 21, 4),
        ("ticker/bookTicker", 0, 4),  # all
        ("ticker/24hr", None, 2),
        ("ticker/24hr", 20, 2),
        ("ticker/24hr", 21, 40),
        ("ticker/24hr", 101, 80),
        ("ticker/24hr", 0, 80),
    ],
)
def test_many_symbols_at_once_cost_their_weight(clock, path, count, weight):
    exchange = Binance(300, seed=1)
    names = list(exchange.by_symbol)
    query = [] if count == 0 else [("symbol", "BTCUSDT")]
    if count:
        query = [("symbols", json.dumps(names[:count], ensure_ascii=False))]
    request = HttpRequest(method="GET", path=f"/api/v3/{path}", query=query, remote="10.1.1.1")
    answer = exchange.rest(request, clock.now)
    assert answer.headers["x-mbx-used-weight-1m"] == str(weight)
    rows = json.loads(answer.body)
    assert isinstance(rows, dict) if count is None else len(rows) == (count or len(names))


# Books and trades of REST.


@pytest.mark.parametrize(
    ("limit", "weight", "levels"),
    [
        (None, 5, 100),
        ("5", 5, 5),
        ("101", 25, 101),
        ("501", 50, 501),
        ("1001", 250, 1001),
        ("90000", 250, 1500),
    ],
)
def test_a_book_costs_what_it_is_deep(clock, limit, weight, levels):
    exchange = Binance(50, seed=1)
    query = [("symbol", "BTCUSDT")] + ([("limit", limit)] if limit else [])
    answer = exchange.rest(
        HttpRequest(method="GET", path="/api/v3/depth", query=query, remote="10.1.1.1"), clock.now
    )
    assert answer.headers["x-mbx-used-weight-1m"] == str(weight)
    book = json.loads(answer.body)
    assert list(book) == ["lastUpdateId", "bids", "asks"]
    assert len(book["bids"]) == len(book["asks"]) == levels
    bids, asks = ([Decimal(price) for price, _ in book[side]] for side in ("bids", "asks"))
    assert bids == sorted(set(bids), reverse=True)
    assert asks == sorted(set(asks))
    assert bids[0] < asks[0]
    assert len(book["bids"][0][0].partition(".")[2]) == 8


def test_books_and_trades_that_cannot_be_had(exchange, clock):
    for path in ("depth", "trades", "historicalTrades", "aggTrades"):
        assert get(exchange, clock, f"/api/v3/{path}")[1]["code"] == -1102
        assert get(exchange, clock, f"/api/v3/{path}", symbol="")[1]["code"] == -1102
        assert get(exchange, clock, f"/api/v3/{path}", symbol="NOSUCH")[1]["code"] == -1121
        assert get(exchange, clock, f"/api/v3/{path}", symbol="BTCUSDT", limit="-1")[1]["code"] == -1100
        assert get(exchange, clock, f"/api/v3/{path}", symbol="BTCUSDT", limit="0")[1]["code"] == -1130
        assert get(exchange, clock, f"/api/v3/{path}", symbol="BTCUSDT", at="1")[1]["code"] == -1104
    assert get(exchange, clock, "/api/v3/historicalTrades", symbol="BTCUSDT", fromId="x")[1]["code"] == -1100
    for name in ("fromId", "startTime", "endTime"):
        _, refused = get(exchange, clock, "/api/v3/aggTrades", symbol="BTCUSDT", **{name: "-1"})
        assert refused["code"] == -1100
        assert name in refused["msg"]
    assert get(exchange, clock, "/api/v3/depth", symbol="BTCUSDT", symbolStatus="HALT")[1]["code"] == -1220
    _, halted = get(exchange, clock, "/api/v3/depth", symbol="HALTEDUSDT", symbolStatus="HALT")
    assert (halted["bids"], halted["asks"]) == ([], [])


def test_trades_of_rest_are_those_of_the_stream(clock):
    exchange = Binance(50, seed=1)
    stream = exchange.stream("btcusdt@trade")
    stream.source.start()
    exchange.by_symbol["BTCUSDT"].burst(1200, clock.now.unix_ns)
    said = []
    while stream.source.take():
        said.append(json.loads(stream.encode(0, clock.now)))
    _, newest = get(exchange, clock, "/api/v3/trades", symbol="BTCUSDT", limit="5000")
    assert [row["id"] for row in newest] == [event["t"] for event in said[-1000:]]
    names = {"id": "t", "price": "p", "qty": "q", "time": "T", "isBuyerMaker": "m"}
    assert [newest[-1][name] for name in names] == [said[-1][field] for field in names.values()]
    assert Decimal(newest[0]["price"]) * Decimal(newest[0]["qty"]) == Decimal(newest[0]["quoteQty"])
    query = {"symbol": "BTCUSDT", "fromId": str(said[100]["t"]), "limit": "3"}
    _, old = get(exchange, clock, "/api/v3/historicalTrades", **query)
    assert [row["id"] for row in old] == [event["t"] for event in said[100:103]]
    _, some = get(exchange, clock, "/api/v3/historicalTrades", symbol="BTCUSDT")
    assert [row["id"] for row in some] == [event["t"] for event in said[-500:]]


def test_the_trades_of_one_order_at_one_price_come_merged(clock):
    exchange = Binance(50, seed=1)
    single, merged = (exchange.stream(f"btcusdt@{kind}") for kind in ("trade", "aggTrade"))
    instrument = exchange.by_symbol["BTCUSDT"]
    trades, events = [], []
    for stream in (single, merged):
        stream.source.start()
    for _ in range(40):
        instrument.burst(20, clock.pass_s(0.05).unix_ns)
        for stream, said in ((single, trades), (merged, events)):
            while stream.source.take():
                said.append(json.loads(stream.encode(0, clock.now)))
    assert len(events) < len(trades) == 800
    assert [event["a"] for event in events] == list(range(events[0]["a"], events[0]["a"] + len(events)))
    by_id = {trade["t"]: trade for trade in trades}
    for event in events:
        of = [by_id.pop(number) for number in range(event["f"], event["l"] + 1)]
        assert {(one["p"], one["m"], one["T"]) for one in of} == {(event["p"], event["m"], event["T"])}
        assert sum(Decimal(one["q"]) for one in of) == Decimal(event["q"])
    assert not by_id

    _, newest = get(exchange, clock, "/api/v3/aggTrades", symbol="BTCUSDT", limit="3")
    names = ("a", "p", "q", "f", "l", "T", "m", "M")
    assert newest == [{name: event[name] for name in names} for event in events[-3:]]
    _, some = get(
        exchange, clock, "/api/v3/aggTrades", symbol="BTCUSDT", fromId=str(events[5]["a"]), limit="2"
    )
    assert [row["a"] for row in some] == [event["a"] for event in events[5:7]]
    begin, end = str(events[9]["T"]), str(events[-1]["T"] - 1)
    query = {"symbol": "BTCUSDT", "startTime": begin, "endTime": end, "limit": "1000"}
    _, between = get(exchange, clock, "/api/v3/aggTrades", **query)
    assert [row["a"] for row in between] == [e["a"] for e in events if int(begin) <= e["T"] <= int(end)]


def test_unknown_paths_and_methods(exchange, clock):
    assert exchange.rest(HttpRequest(method="GET", path="/api/v1/time"), clock.now).status == 404
    assert exchange.rest(HttpRequest(method="POST", path="/api/v3/time"), clock.now).status == 405


def test_weight_is_stated_and_beyond_6000_a_minute_refused(clock):
    exchange = Binance(50, seed=1)
    request = HttpRequest(method="GET", path="/api/v3/exchangeInfo", remote="10.1.1.1")
    assert exchange.rest(request, clock.now).headers["x-mbx-used-weight-1m"] == "20"
    for _ in range(299):
        assert exchange.rest(request, clock.now).status == 200
    refused = exchange.rest(request, clock.now)
    assert refused.status == 429
    assert json.loads(refused.body)["code"] == -1003
    assert 1 <= int(refused.headers["Retry-After"]) <= 61
    assert refused.violation
    assert exchange.rest(request, clock.pass_s(60)).status == 200


def test_a_ban_is_a_418(exchange, clock):
    answer = exchange.throttled(418, 120, clock.now)
    assert answer.status == 418
    assert json.loads(answer.body)["code"] == -1003
    assert answer.headers["Retry-After"] == "120"
