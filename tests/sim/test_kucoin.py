"""The simulated KuCoin, against its documentation: frames, answers, rules.

Shapes: https://github.com/Kucoin/kucoin-universal-sdk (spec/) and https://www.kucoin.com/docs-new/
"""

import json
from decimal import Decimal
from urllib.parse import parse_qsl

import pytest

from feedhandler.sim.kucoin import Kucoin, KucoinDialog, KucoinRules
from feedhandler.sim.protocol import HttpAnswer, HttpRequest, Reply


@pytest.fixture
def exchange() -> Kucoin:
    exchange = Kucoin(300, seed=1)
    exchange.ws_url = "ws://127.0.0.1:1234"
    return exchange


def get(exchange: Kucoin, clock, path: str, method: str = "GET", **query: str) -> tuple[int, dict]:
    request = HttpRequest(method=method, path=path, query=list(query.items()), remote="rest")
    answer = exchange.rest(request, clock.now)
    if answer.status == 200:
        assert int(answer.headers["gw-ratelimit-limit"]) == 2000
    return answer.status, json.loads(answer.body)


def connect(exchange: Kucoin, clock, token: str | None = None) -> tuple[KucoinDialog, Reply]:
    if token is None:
        token = get(exchange, clock, "/api/v1/bullet-public", "POST")[1]["data"]["token"]
    query = [("token", token), ("connectId", "me")]
    dialog = exchange.accept(HttpRequest(method="GET", path="/", query=query, remote="test"), clock.now)
    assert isinstance(dialog, KucoinDialog)
    return dialog, dialog.on_open(clock.now)


@pytest.fixture
def dialog(exchange, clock) -> KucoinDialog:
    """A session past its welcome."""
    dialog, _ = connect(exchange, clock)
    welcome = dialog.on_tick(clock.pass_s(0.02))
    assert [json.loads(text) for text in welcome.texts] == [{"id": "me", "type": "welcome"}]
    return dialog


def ask(dialog: KucoinDialog, clock, **message: object) -> Reply:
    return dialog.on_text(json.dumps(message), clock.now)


def subscribe(dialog: KucoinDialog, clock, topic: object, **more: object) -> Reply:
    return ask(dialog, clock, id=7, type="subscribe", topic=topic, response=True, **more)


def only(reply: Reply) -> dict:
    [text] = reply.texts
    return json.loads(text)


def push(exchange: Kucoin, clock, topic: str) -> dict:
    stream = exchange.stream(topic)
    assert stream is not None
    if stream.next_instrument is not None:
        stream.instrument = stream.next_instrument(12345 << 20)
    return json.loads(stream.encode(0, clock.now), parse_float=Decimal)


# Pushes.


def test_level1_has_flat_arrays_and_no_symbol(exchange, clock):
    message = push(exchange, clock, "/spotMarket/level1:BTC-USDT")
    data = message.pop("data")
    assert message == {"topic": "/spotMarket/level1:BTC-USDT", "type": "message", "subject": "level1"}
    assert data.keys() == {"asks", "bids", "timestamp"}
    assert all(isinstance(each, str) for each in data["asks"] + data["bids"])
    assert len(data["asks"]) == len(data["bids"]) == 2
    assert Decimal(data["bids"][0]) < Decimal(data["asks"][0])
    assert data["timestamp"] == clock.now.unix_ms


TICKER = dict.fromkeys(("bestAsk", "bestAskSize", "bestBid", "bestBidSize", "price", "sequence", "size"), str)


def test_a_ticker_has_strings_and_its_time_in_ms(exchange, clock):
    message = push(exchange, clock, "/market/ticker:ETH-USDT")
    assert (message["topic"], message["subject"]) == ("/market/ticker:ETH-USDT", "trade.ticker")
    assert {name: type(value) for name, value in message["data"].items()} == TICKER | {"time": int}
    assert "." not in message["data"]["price"] or not message["data"]["price"].endswith("0")


MATCH = (
    "makerOrderId",
    "price",
    "sequence",
    "side",
    "size",
    "symbol",
    "takerOrderId",
    "time",
    "tradeId",
    "type",
)


def test_a_match_is_one_trade_in_strings(exchange, clock):
    message = push(exchange, clock, "/market/match:BTC-USDT")
    assert (message["topic"], message["subject"]) == ("/market/match:BTC-USDT", "trade.l3match")
    data = message["data"]
    assert {name: type(value) for name, value in data.items()} == dict.fromkeys(MATCH, str)
    assert data["sequence"] == data["tradeId"]
    assert int(data["tradeId"]) > 2**53
    assert (data["symbol"], data["type"]) == ("BTC-USDT", "match")
    assert data["side"] in ("buy", "sell")
    assert len(data["makerOrderId"]) == len(data["takerOrderId"]) == 24


def test_depth_is_whole_and_names_its_symbol_in_the_topic_only(exchange, clock):
    for count in (5, 50):
        message = push(exchange, clock, f"/spotMarket/level2Depth{count}:BTC-USDT")
        assert message["subject"] == "level2"
        data = message["data"]
        assert list(data) == ["asks", "bids", "timestamp"]
        assert [len(data[side]) for side in ("asks", "bids")] == [count, count]
        assert all(isinstance(text, str) for text in data["asks"][0] + data["bids"][0])
        assert Decimal(data["bids"][0][0]) < Decimal(data["asks"][0][0]) < Decimal(data["asks"][1][0])


def test_changes_of_level2_have_numbers_and_sequences(exchange, clock):
    stream = exchange.stream("/market/level2:ETH-USDT")
    stream.source.start()
    while stream.source.last_id < stream.source.first_id + 3:
        stream.instrument.step(0)
        stream.source.take()
    message = json.loads(stream.encode(0, clock.now))
    assert (message["topic"], message["subject"]) == ("/market/level2:ETH-USDT", "trade.l2update")
    data = message["data"]
    assert data.keys() == {"changes", "sequenceStart", "sequenceEnd", "symbol", "time"}
    assert data["sequenceEnd"] - data["sequenceStart"] >= 3
    assert data["time"] == clock.now.unix_ms
    assert data["changes"].keys() == {"asks", "bids"}
    assert all(isinstance(text, str) for side in data["changes"].values() for each in side for text in each)


def test_the_ticker_of_all_has_the_symbol_as_subject(exchange, clock):
    message = push(exchange, clock, "/market/ticker:all")
    assert message["topic"] == "/market/ticker:all"
    assert "-" in message["subject"]
    assert message["data"].keys() == (TICKER | {"time": int}).keys()


SNAPSHOT_NUMBERS = [
    "askSize",
    "averagePrice",
    "bidSize",
    "buy",
    "changePrice",
    "changeRate",
    "close",
    "high",
    "lastTradedPrice",
    "low",
    "makerCoefficient",
    "makerFeeRate",
    "open",
    "sell",
    "takerCoefficient",
    "takerFeeRate",
    "vol",
    "volValue",
]
WINDOW = {"changePrice", "changeRate", "high", "low", "open", "vol", "volValue"}


@pytest.mark.parametrize("symbol", ["BTC-USDT", "MOONX-USDT", "BTC-IDR"])
def test_a_snapshot_has_numbers_in_a_double_data(exchange, clock, symbol):
    message = push(exchange, clock, f"/market/snapshot:{symbol}")
    assert message["data"].keys() == {"sequence", "data"}
    assert isinstance(message["data"]["sequence"], str)
    data = message["data"]["data"]
    assert all(isinstance(data[name], (Decimal, int)) for name in SNAPSHOT_NUMBERS)
    for period in ("marketChange1h", "marketChange4h", "marketChange24h"):
        assert data[period].keys() == WINDOW
    assert (data["symbol"], data["symbolCode"], data["trading"]) == (symbol, symbol, True)
    assert data["low"] <= data["lastTradedPrice"] <= data["high"]
    assert 0 < data["buy"] < data["sell"]
    assert data["changePrice"] == data["lastTradedPrice"] - data["open"]
    assert data["datetime"] == clock.now.unix_ms


def test_the_derived_numbers_of_a_snapshot_end_in_many_zeros(exchange, clock):
    stream = exchange.stream("/market/snapshot:BTC-USDT")
    text = stream.encode(0, clock.now)
    for name in (b"high", b"low", b"open", b"vol", b"volValue", b"changePrice"):
        number = text.split(b'"%b":' % name)[1].split(b",")[0].strip(b"}")
        assert len(number.partition(b".")[2]) == 20
        assert number.endswith(b"0000")


def test_a_rename_leaves_the_symbol(exchange, clock):
    _, answer = get(exchange, clock, "/api/v2/symbols/FENOLD-USDT")
    info = answer["data"]
    assert (info["symbol"], info["name"], info["baseCurrency"]) == ("FENOLD-USDT", "FENNEW-USDT", "FENNEW")
    assert push(exchange, clock, "/spotMarket/level1:FENOLD-USDT")["topic"].endswith("FENOLD-USDT")
    assert exchange.stream("/spotMarket/level1:FENNEW-USDT") is None


# The session.


def test_a_ping_is_answered_with_its_id_and_microseconds(exchange, clock, dialog):
    answer = only(ask(dialog, clock, id=1545, type="ping"))
    assert answer == {"id": "1545", "type": "pong", "timestamp": clock.now.unix_ns // 1000}


def test_several_symbols_are_several_topics(exchange, clock, dialog):
    reply = subscribe(dialog, clock, "/market/ticker:BTC-USDT,ETH-USDT")
    assert only(reply) == {"id": "7", "type": "ack"}
    assert reply.subscribe == ["/market/ticker:BTC-USDT", "/market/ticker:ETH-USDT"]
    left = ask(dialog, clock, id="8", type="unsubscribe", topic="/market/ticker:ETH-USDT", response=True)
    assert (only(left), left.unsubscribe) == ({"id": "8", "type": "ack"}, ["/market/ticker:ETH-USDT"])


def test_no_acknowledgement_unless_asked_for(exchange, clock, dialog):
    assert ask(dialog, clock, id="1", type="subscribe", topic="/market/ticker:BTC-USDT").texts == []
    assert "/market/ticker:BTC-USDT" in dialog.topics


@pytest.mark.parametrize("symbol", ["NOSUCH-USDT", "HALTED-USDT", "BROKEN-BTC"])
def test_what_does_not_trade_or_exist_is_acknowledged_and_silent(exchange, clock, dialog, symbol):
    reply = subscribe(dialog, clock, f"/market/snapshot:{symbol}")
    assert only(reply)["type"] == "ack"
    assert reply.violation == ""
    assert exchange.stream(f"/market/snapshot:{symbol}") is None


REFUSALS = [
    ({"topic": "/market/nonsense:BTC-USDT"}, 404),
    ({"topic": "/market/ticker"}, 400),
    ({"topic": "/market/ticker:"}, 400),
    ({"topic": "/market/ticker:BTC-USDT, ETH-USDT"}, 400),
    ({"topic": "/account/balance"}, 403),
    ({"topic": ""}, 406),
    ({}, 406),
    ({"type": "sub", "topic": "/market/ticker:BTC-USDT"}, 415),
]


@pytest.mark.parametrize(("message", "code"), REFUSALS)
def test_a_refusal_is_an_error_frame_with_its_code(exchange, clock, dialog, message, code):
    reply = ask(dialog, clock, **{"id": "q", "type": "subscribe"} | message)
    answer = only(reply)
    assert {name: type(value) for name, value in answer.items()} == {
        "id": str,
        "type": str,
        "code": int,
        "data": str,
    }
    assert (answer["id"], answer["type"], answer["code"]) == ("q", "error", code)
    assert reply.violation
    assert reply.close is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"ping"'])
def test_what_is_no_object_is_a_400(exchange, clock, dialog, text):
    answer = only(dialog.on_text(text, clock.now))
    assert (answer["id"], answer["code"]) == ("me", 400)


def test_more_than_100_symbols_in_a_message_are_a_509(exchange, clock, dialog):
    symbols = [f"C{number}-USDT" for number in range(101)]
    answer = only(subscribe(dialog, clock, "/market/ticker:" + ",".join(symbols)))
    assert (answer["code"], answer["data"]) == (
        509,
        "exceed max subscription count limitation of 100 per time",
    )
    assert not dialog.topics
    assert only(subscribe(dialog, clock, "/market/ticker:" + ",".join(symbols[:100])))["type"] == "ack"


def test_more_than_300_topics_in_a_session_are_a_509(exchange, clock, dialog):
    symbols = [f"C{number}-USDT" for number in range(301)]
    for start in (0, 100, 200):
        subscribe(dialog, clock, "/market/ticker:" + ",".join(symbols[start : start + 100]))
    assert len(dialog.topics) == 300
    answer = only(subscribe(dialog, clock, f"/market/ticker:{symbols[300]}"))
    assert (answer["code"], answer["data"]) == (
        509,
        "exceed max subscription count limitation of 300 per session",
    )
    assert only(subscribe(dialog, clock, f"/market/ticker:{symbols[0]}"))["type"] == "ack", "it has that one"


def test_more_than_100_messages_in_ten_seconds_are_a_509(exchange, clock, dialog):
    for number in range(100):
        assert ask(dialog, clock, id=number, type="ping").violation == ""
    clock.pass_s(9.9)
    refused = ask(dialog, clock, id=100, type="ping")
    assert only(refused)["code"] == 509
    assert refused.violation


def test_a_message_before_the_welcome_is_served_after_it_and_remarked(exchange, clock):
    dialog, opened = connect(exchange, clock)
    assert opened.texts == []
    reply = subscribe(dialog, clock, "/market/ticker:BTC-USDT")
    assert [json.loads(text)["type"] for text in reply.texts] == ["welcome", "ack"]
    assert reply.remark
    assert reply.violation == ""
    assert dialog.on_tick(clock.pass_s(1)).texts == []


def test_without_a_json_ping_for_a_minute_the_session_ends_although_data_flows(exchange, clock, dialog):
    subscribe(dialog, clock, "/market/ticker:BTC-USDT")
    dialog.on_ping(b"", clock.pass_s(55))
    assert dialog.on_tick(clock.now).close is None
    reply = dialog.on_tick(clock.pass_s(6))
    assert only(reply) == {"type": "error", "code": 400, "data": "ping timeout"}
    assert reply.close is not None
    assert reply.violation


def test_json_pings_keep_the_session_for_a_day(exchange, clock, dialog):
    for _ in range(int(86_000 / 18)):
        ask(dialog, clock, id=1, type="ping")
        assert dialog.on_tick(clock.pass_s(18)).close is None
    assert dialog.on_tick(clock.pass_s(500)).close is not None


# Tokens.


def test_the_token_answer(exchange, clock):
    status, answer = get(exchange, clock, "/api/v1/bullet-public", "POST")
    assert (status, answer["code"]) == (200, "200000")
    [server] = answer["data"]["instanceServers"]
    assert server == {
        "endpoint": "ws://127.0.0.1:1234/",
        "encrypt": False,
        "protocol": "websocket",
        "pingInterval": 18_000,
        "pingTimeout": 10_000,
    }
    assert answer["data"]["token"].endswith("==")
    assert get(exchange, clock, "/api/v1/bullet-public", "GET")[0] == 405


def test_a_token_needs_no_encoding_in_a_url(exchange, clock):
    """As those in the documentation and in examples of clients, some of which put it there as it is."""
    tokens = [exchange.new_token(clock.now) for _ in range(200)]
    assert all(dict(parse_qsl(f"token={token}&connectId=1"))["token"] == token for token in tokens)
    assert all("/" not in token for token in tokens)


@pytest.mark.parametrize("token", ["", "made-up"])
def test_an_unknown_token_is_a_401_and_the_end(exchange, clock, token):
    _, opened = connect(exchange, clock, token)
    assert (only(opened)["code"], only(opened)["id"]) == (401, "me")
    assert opened.close is not None
    assert opened.violation


def test_a_token_lives_a_day_and_dies_on_command(exchange, clock):
    token = exchange.new_token(clock.now)
    assert connect(exchange, clock, token)[1].close is None
    clock.pass_s(86_401)
    assert connect(exchange, clock, token)[1].close is not None
    used, fresh = exchange.new_token(clock.now), exchange.new_token(clock.now)
    connect(exchange, clock, used)
    exchange.expire_tokens(clock.now)
    assert connect(exchange, clock, used)[1].violation
    refused = connect(exchange, clock, fresh)[1]
    assert refused.close is not None
    assert not refused.violation, "it was taken away while its owner was on the way"
    assert connect(exchange, clock, fresh)[1].violation


def test_a_token_used_twice_is_let_pass_with_a_remark(exchange, clock):
    token = exchange.new_token(clock.now)
    assert connect(exchange, clock, token)[1].remark == ""
    reply = connect(exchange, clock, token)[1]
    assert "second" in reply.remark
    assert reply.close is None


def test_more_than_30_connections_in_a_minute_are_remarked(exchange, clock):
    remarks = [connect(exchange, clock)[1].remark for _ in range(31)]
    assert remarks[:30] == [""] * 30
    assert remarks[30]


def test_another_path_is_no_socket(exchange, clock):
    answer = exchange.accept(HttpRequest(method="GET", path="/socket"), clock.now)
    assert isinstance(answer, HttpAnswer)
    assert answer.status == 404


# REST.


def test_symbols(exchange, clock):
    _, answer = get(exchange, clock, "/api/v2/symbols")
    by_symbol = {each["symbol"]: each for each in answer["data"]}
    assert len(by_symbol) >= 300
    assert by_symbol["BTC-USDT"]["enableTrading"] is True
    assert by_symbol["HALTED-USDT"]["enableTrading"] is False
    _, some = get(exchange, clock, "/api/v2/symbols", market="BTC")
    assert {each["quoteCurrency"] for each in some["data"]} == {"BTC"}
    assert get(exchange, clock, "/api/v1/symbols") == (200, answer), "the list of before is still there"


def test_all_tickers_have_strings_and_no_open(exchange, clock):
    _, answer = get(exchange, clock, "/api/v1/market/allTickers")
    rows = {each["symbol"]: each for each in answer["data"]["ticker"]}
    assert rows["FENOLD-USDT"]["symbolName"] == "FENNEW-USDT"
    row = rows["BTC-USDT"]
    assert all(isinstance(value, str) for value in row.values())
    assert "open" not in row
    assert Decimal(row["low"]) <= Decimal(row["last"]) <= Decimal(row["high"])


def test_rows_in_bulk_are_what_the_channels_have_said(clock):
    exchange = Kucoin(60, seed=3)
    for position, each in enumerate(exchange.instruments):
        for bits in range(position % 5):
            each.step(bits * 7919)
    _, answer = get(exchange, clock, "/api/v1/market/allTickers")
    rows = answer["data"]["ticker"]
    assert len(rows) == len(exchange.instruments)
    for row in rows:
        stream = exchange.stream(f"/market/snapshot:{row['symbol']}")
        if stream is None:
            continue
        said = json.loads(stream.encode(0, clock.now), parse_float=Decimal, parse_int=Decimal)["data"]["data"]
        names = {name: name for name in ("buy", "sell", "high", "low", "vol", "volValue", "changePrice")}
        names |= {"bestBidSize": "bidSize", "bestAskSize": "askSize", "last": "lastTradedPrice"}
        assert {name: Decimal(row[name]) for name in names} == {n: said[field] for n, field in names.items()}
        assert Decimal(row["last"]) - Decimal(row["changePrice"]) == said["open"]


def test_all_tickers_are_put_together_every_2_s(clock):
    exchange = Kucoin(60, seed=1)
    instrument = exchange.instruments[0]

    def bid() -> Decimal:
        return Decimal(get(exchange, clock, "/api/v1/market/allTickers")[1]["data"]["ticker"][0]["buy"])

    before, moved = bid(), instrument.bid
    while instrument.bid == moved:
        instrument.step(0b10000)
    clock.pass_s(1.9)
    assert bid() == before
    clock.pass_s(0.2)
    assert bid() != before


def test_the_time_of_a_ticker_is_that_of_the_last_trade(clock):
    exchange = Kucoin(60, seed=1)
    instrument = exchange.by_symbol["BTC-USDT"]
    instrument.trade(1, clock.now.unix_ns)
    traded_ms = clock.now.unix_ms
    later = clock.pass_s(3600)
    for topic in ("/market/ticker:BTC-USDT", "/market/ticker:all"):
        assert json.loads(exchange.stream(topic).encode(0, later))["data"]["time"] == traded_ms
    level1 = json.loads(exchange.stream("/spotMarket/level1:BTC-USDT").encode(0, later))
    assert level1["data"]["timestamp"] == later.unix_ms


def test_what_does_not_trade_has_no_book_and_what_is_unlisted_no_row(clock):
    exchange = Kucoin(60, seed=1)
    exchange.unlisted_symbols.add("ETH-USDT")
    _, answer = get(exchange, clock, "/api/v1/market/allTickers")
    rows = {each["symbol"]: each for each in answer["data"]["ticker"]}
    assert "ETH-USDT" not in rows
    book = ("buy", "sell", "bestBidSize", "bestAskSize")
    assert {rows["HALTED-USDT"][name] for name in book} == {None}


def test_books_and_trades_of_rest(clock):
    exchange = Kucoin(60, seed=1)
    instrument = exchange.by_symbol["BTC-USDT"]
    for count, weight in ((20, 2), (100, 4)):
        request = HttpRequest(
            method="GET",
            path=f"/api/v1/market/orderbook/level2_{count}",
            query=[("symbol", "BTC-USDT")],
            remote=f"10.1.1.{count}",
        )
        answer = exchange.rest(request, clock.now)
        assert answer.headers["gw-ratelimit-remaining"] == str(2000 - weight)
        book = json.loads(answer.body)["data"]
        assert list(book) == ["time", "sequence", "bids", "asks"]
        assert (book["time"], book["sequence"]) == (clock.now.unix_ms, str(instrument.update_id))
        assert [len(book[side]) for side in ("asks", "bids")] == [count, count]
    stream = exchange.stream("/market/match:BTC-USDT")
    stream.source.start()
    instrument.burst(150, clock.now.unix_ns)
    said = []
    while stream.source.take():
        said.insert(0, json.loads(stream.encode(0, clock.now))["data"])
    _, answer = get(exchange, clock, "/api/v1/market/histories", symbol="BTC-USDT")
    assert len(answer["data"]) == 100
    names = ("sequence", "price", "size", "side")
    for row, event in zip(answer["data"], said, strict=False):
        assert [row[name] for name in names] == [event[name] for name in names]
        assert row["time"] == int(event["time"])


def test_books_and_trades_that_cannot_be_had(exchange, clock):
    for path in ("orderbook/level2_20", "orderbook/level2_100", "histories"):
        assert get(exchange, clock, f"/api/v1/market/{path}", symbol="NO-SUCH")[1]["code"] == "900001"
    _, halted = get(exchange, clock, "/api/v1/market/orderbook/level2_100", symbol="HALTED-USDT")
    assert (halted["data"]["bids"], halted["data"]["asks"]) == ([], [])


def test_small_answers(exchange, clock):
    assert get(exchange, clock, "/api/v1/timestamp")[1] == {"code": "200000", "data": clock.now.unix_ms}
    assert get(exchange, clock, "/api/v1/status")[1]["data"]["status"] == "open"
    assert get(exchange, clock, "/api/v1/market/stats", symbol="BTC-USDT")[1]["data"]["symbol"] == "BTC-USDT"
    assert get(exchange, clock, "/api/v1/market/orderbook/level1", symbol="BTC-USDT")[1]["data"]["bestBid"]
    assert get(exchange, clock, "/api/v3/currencies")[1]["data"][0]["currency"] == "BTC"


def test_errors(exchange, clock):
    assert get(exchange, clock, "/api/v1/market/stats", symbol="NO-SUCH")[1]["code"] == "900001"
    assert get(exchange, clock, "/api/v1/nonsense") == (404, {"code": "404000", "msg": "Url Not Found"})


def test_weight_beyond_2000_in_30_s_is_refused(exchange, clock):
    request = HttpRequest(method="GET", path="/api/v1/market/allTickers", remote="10.1.1.1")
    answers = [exchange.rest(request, clock.now) for _ in range(134)]
    assert answers[0].headers["gw-ratelimit-remaining"] == "1985"
    assert answers[132].status == 200
    assert answers[133].status == 429
    assert json.loads(answers[133].body)["code"] == "429000"
    assert int(answers[133].headers["gw-ratelimit-reset"]) > 0
    assert answers[133].violation
    assert exchange.rest(request, clock.pass_s(30)).status == 200


def test_tokens_remembered_are_bounded(clock, monkeypatch):
    monkeypatch.setattr("feedhandler.sim.kucoin.TOKENS", 10)
    exchange = Kucoin(50, seed=1, rules=KucoinRules())
    first = exchange.new_token(clock.now)
    for _ in range(10):
        newest = exchange.new_token(clock.now)
    assert not exchange.is_valid(first, clock.now.mono_ns)
    assert exchange.is_valid(newest, clock.now.mono_ns)
