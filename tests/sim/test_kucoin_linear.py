"""The perpetuals of the simulated KuCoin: frames and answers, and that our adapter reads them as they are meant.

Shapes: https://github.com/Kucoin/kucoin-universal-sdk (spec/) and https://www.kucoin.com/docs-new/
"""

import json

import pytest

from feedhandler.data import wire
from feedhandler.exchanges.arbitration import Line
from feedhandler.exchanges.kucoin import KuCoinLinear
from feedhandler.sim.kucoin import Kucoin, KucoinDialog, KucoinRules
from feedhandler.sim.kucoin_linear import DATA_TOPICS, FUNDING_HOURS, multiplier_of
from feedhandler.sim.protocol import HttpRequest

NATIVE = "XBTUSDTM"
KINDS = ("ticker", "trade", "depth", "book", "contract")


@pytest.fixture
def exchange() -> Kucoin:
    exchange = Kucoin(30, seed=1, rules=KucoinRules(snapshot_every_s=0.0))
    exchange.ws_url = "ws://127.0.0.1:1234"
    return exchange


def get(exchange, clock, path, method="GET", **query):
    request = HttpRequest(method=method, path=f"/linear{path}", query=list(query.items()), remote="rest")
    answer = exchange.rest(request, clock.now)
    assert answer.status == 200
    assert int(answer.headers["gw-ratelimit-limit"]) == 2000
    return answer.body


def connect(exchange, clock, bullet="/linear/api/v1/bullet-public", path="/linear/"):
    request = HttpRequest(method="POST", path=bullet, remote="rest")
    data = json.loads(exchange.rest(request, clock.now).body)["data"]
    query = [("token", data["token"]), ("connectId", "me")]
    dialog = exchange.accept(HttpRequest(method="GET", path=path, query=query, remote="test"), clock.now)
    assert isinstance(dialog, KucoinDialog)
    return dialog, dialog.on_open(clock.now), data["instanceServers"][0]["endpoint"]


def adapter(exchange, clock):
    """One that has read the list, and wants the first contract in all kinds."""
    market = KuCoinLinear()
    rows = market.decode_instruments(get(exchange, clock, "/api/v1/contracts/active"))
    assert rows.problem == ""
    market.learn(rows.items)
    for kind in market.kinds:
        market.add([NATIVE], 0, kind)
    return market


def test_what_is_unlisted_is_in_no_list(exchange, clock):
    exchange.unlisted_symbols.add("ETHUSDTM")
    for path in ("contracts/active", "allTickers"):
        symbols = {row["symbol"] for row in json.loads(get(exchange, clock, f"/api/v1/{path}"))["data"]}
        assert "ETHUSDTM" not in symbols
        assert NATIVE in symbols


def move(each, clock, count=1):
    for number in range(count):
        each.step((number * 2654435761 + 12345) % 2**64, clock.now.unix_ns)


def played(exchange, clock, market, stream, emitted):
    """Have the adapter read all that a stream has to send."""
    source, frames = stream.source, []
    while source is None or source.take():
        frames.append(stream.encode(0, clock.now))
        assert market.decode(frames[-1], clock.now.unix_ns, Line(0), emitted.append) is None
        if source is None:
            break
    return [json.loads(frame) for frame in frames]


def test_the_list_has_contracts_of_several_sizes_and_kinds(exchange, clock):
    rows = adapter(exchange, clock).decode_instruments(get(exchange, clock, "/api/v1/contracts/active")).items
    by_symbol = {row.symbol: row for row in rows}
    assert by_symbol["BTC/USDT:USDT"].native == NATIVE
    assert by_symbol["BTC/USDT:USDT"].is_trading
    assert by_symbol["BTC/USD:BTC"].note.startswith("inverse")
    assert {row.status for row in rows} == {"Open", "Paused"}
    assert len({row.contract_size for row in rows}) > 3


def test_a_connection_has_a_token_and_topics_of_its_market_alone(exchange, clock):
    dialog, reply, endpoint = connect(exchange, clock)
    assert endpoint == "ws://127.0.0.1:1234/linear/"
    assert reply.close is None
    dialog.on_tick(clock.pass_s(0.02))
    for topic, refused in ((f"{DATA_TOPICS[0]}:{NATIVE}", False), ("/market/ticker:BTC-USDT", True)):
        message = {"id": 7, "type": "subscribe", "topic": topic, "response": True}
        answer = dialog.on_text(json.dumps(message), clock.now)
        assert (json.loads(answer.texts[0])["type"] == "error") == refused
    _, reply, _ = connect(exchange, clock, bullet="/api/v1/bullet-public")
    assert reply.close is not None, "a token of spot"
    _, reply, _ = connect(exchange, clock, path="/")
    assert reply.close is not None


@pytest.mark.long
def test_what_is_sent_is_read_as_it_is_meant(exchange, clock):
    market, each = adapter(exchange, clock), exchange.linear.by_symbol[NATIVE]
    size = float(multiplier_of(each))
    topics = [topic for kind in KINDS for topic in market.topics(NATIVE, kind)]
    streams = {topic: exchange.stream(topic) for topic in dict.fromkeys(topics)}
    for stream in streams.values():
        assert exchange.symbols_of(stream) == NATIVE
        if stream.source is not None:
            stream.source.start()
    emitted: list = []
    for stream in streams.values():
        played(exchange, clock, market, stream, emitted)
    base = market.decode_base(NATIVE, get(exchange, clock, "/api/v1/level2/snapshot", symbol=NATIVE))
    state = market.states["book"][NATIVE]
    clock.pass_s(1)
    for _ in range(40):
        move(each, clock, 5)
        for stream in streams.values():
            played(exchange, clock, market, stream, emitted)
        if state.leader < 0:
            assert state.offer([0], base, clock.now.unix_ns, emitted.append) == 1
    book = each.order_book()
    known = state.lines[0]
    assert known.is_known
    assert known.last_id == book.update_id
    for ours, theirs in ((known.bids, book.best_bids(5000)), (known.asks, book.best_asks(5000))):
        scale = 10.0**each.price_decimals
        assert ours[:] == [
            (pytest.approx(price / scale), pytest.approx(lots * size)) for price, lots in theirs
        ]
    depth = market.states["depth"][NATIVE]
    assert (depth.bids, depth.asks) == (tuple(known.bids[:20]), tuple(known.asks[:20]))
    ticker = market.tickers[NATIVE]
    assert (ticker.bid, ticker.bid_size) == depth.bids[0]
    assert ticker.last == pytest.approx(each.last / scale)
    assert ticker.base_volume_24h == pytest.approx(each.base_volume * size)
    assert ticker.base_volume_24h * ticker.last == pytest.approx(ticker.quote_volume_24h, rel=0.2)
    contract = market.states["contract"][NATIVE]
    assert contract.mark == pytest.approx(ticker.last, rel=0.01)
    assert contract.index == pytest.approx(contract.mark, rel=0.01)
    assert abs(contract.predicted_funding_rate) < 0.01
    assert {state.kind for state in emitted} == set(KINDS)


def test_the_rate_that_is_due_comes_when_it_is_paid(exchange, clock):
    market, emitted = adapter(exchange, clock), []
    stream = exchange.stream(f"/contract/instrument:{NATIVE}")
    stream.source.start()
    subjects = [each["data"].get("granularity") for each in played(exchange, clock, market, stream, emitted)]
    assert subjects == [1000, 60000]
    clock.pass_s(3600 * FUNDING_HOURS[0])
    found = [each["data"]["granularity"] for each in played(exchange, clock, market, stream, emitted)]
    assert found == [1000, 60000, FUNDING_HOURS[0] * 3_600_000]
    contract = market.states["contract"][NATIVE]
    assert contract.funding_interval_h == FUNDING_HOURS[0]
    assert abs(contract.funding_rate) < 0.01


def test_rest_has_the_same_values_as_the_streams(exchange, clock):
    market, each = adapter(exchange, clock), exchange.linear.by_symbol[NATIVE]
    stream = exchange.stream(f"/contractMarket/execution:{NATIVE}")
    stream.source.start()
    move(each, clock, 200)
    emitted: list = []
    trades: list = []
    source = stream.source
    while source.take():
        frame = stream.encode(0, clock.now)
        market.decode(frame, clock.now.unix_ns, Line(0), lambda state: emitted.append(state.record()))
    trades = [record for record in map(wire.unpack, emitted) if isinstance(record, wire.Trade)]
    past = market.decode_past_trades(
        NATIVE, get(exchange, clock, "/api/v1/trade/history", symbol=NATIVE)
    ).items
    newest = {row.trade[0]: row.trade[1:] for row in past}
    assert trades
    for trade in trades[-50:]:
        assert newest[trade.trade_id] == (trade.price, trade.size, trade.side)
    quote = market.decode_quote(get(exchange, clock, "/api/v1/ticker", symbol=NATIVE))
    book = each.order_book()
    assert (quote.bid, quote.ask) == tuple(
        pytest.approx(level[0][0] / 10.0**each.price_decimals)
        for level in (book.best_bids(1), book.best_asks(1))
    )
    for path in ("/api/v1/allTickers", "/api/v1/contracts/active"):
        rows = market.decode_survey(get(exchange, clock, path))
        assert NATIVE in {row.native for row in rows.items}
        assert rows.problem == ""
    assert market.decode_time(get(exchange, clock, "/api/v1/timestamp")) // 10**6 == clock.now.unix_ms
    assert json.loads(get(exchange, clock, f"/api/v1/contracts/{NATIVE}"))["data"]["symbol"] == NATIVE
    for count in (20, 100):
        answer = json.loads(get(exchange, clock, f"/api/v1/level2/depth{count}", symbol=NATIVE))
        assert len(answer["data"]["bids"]) == count
    assert json.loads(get(exchange, clock, "/api/v1/ticker", symbol="NOPE"))["code"] == "300000"


def test_spot_is_as_it_would_be_alone(exchange):
    assert not any(each.listing.settle for each in exchange.instruments)
    assert NATIVE not in exchange.by_symbol
    assert len(exchange.other_instruments) == len(exchange.linear.by_symbol)


def test_what_no_channel_has_is_in_the_list_and_in_one_row_alike(exchange, clock):
    market, perpetual = adapter(exchange, clock), exchange.linear.perpetuals[NATIVE]
    (poll,) = market.polls
    path = market.poll_request(poll, NATIVE).path
    found = []
    for asked in (poll.request.path, path):
        rows = market.decode_poll(poll, get(exchange, clock, asked), clock.now.unix_ns)
        assert rows.problem == ""
        found.append(next(row.values for row in rows.items if row.native == NATIVE))
    assert found[0] == found[1]
    assert found[0] == {
        "open_interest": perpetual.open_interest * float(multiplier_of(perpetual.contract)),
        "next_funding_ns": perpetual.funding_ns(clock.now.unix_ns),
        "funding_rate": perpetual.settled_rate(clock.now.unix_ns) / 1e8,
        "funding_interval_h": FUNDING_HOURS[perpetual.contract.index % len(FUNDING_HOURS)],
    }


def test_answers_that_are_named_by_their_path_agree_with_the_list(exchange, clock):
    one = json.loads(get(exchange, clock, f"/api/v1/contracts/{NATIVE}"))["data"]
    rate = json.loads(get(exchange, clock, f"/api/v1/funding-rate/{NATIVE}/current"))["data"]
    mark = json.loads(get(exchange, clock, f"/api/v1/mark-price/{NATIVE}/current"))["data"]
    assert (rate["symbol"], rate["value"]) == (one["fundingRateSymbol"], one["fundingFeeRate"])
    assert rate["fundingTime"] == one["nextFundingRateDateTime"]
    assert (mark["value"], mark["indexPrice"]) == (one["markPrice"], one["indexPrice"])
    for path in ("/api/v1/funding-rate/NONE/current", "/api/v1/mark-price/NONE/current"):
        assert json.loads(get(exchange, clock, path))["code"] == "300000"
    request = HttpRequest(
        method="GET",
        path="/api/ua/v1/market/open-interest",
        query=[("symbol", f"{NATIVE},ETHUSDTM")],
        remote="rest",
    )
    interests = json.loads(exchange.rest(request, clock.now).body)["data"]
    assert [each["symbol"] for each in interests] == [NATIVE, "ETHUSDTM"]
    assert interests[0]["openInterest"] == one["openInterest"]
