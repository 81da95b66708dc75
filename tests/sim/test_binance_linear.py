"""The contracts of the simulated Binance: frames, answers and limits, and that our adapter reads them as meant.

Shapes: https://developers.binance.com/docs/derivatives/usds-margined-futures
"""

import json
from itertools import pairwise
from urllib.parse import parse_qsl

import aiohttp
import pytest
from patience import PATIENCE_S

from feedhandler.data import wire
from feedhandler.exchanges.arbitration import Line
from feedhandler.exchanges.binance import BinanceLinear
from feedhandler.exchanges.polled import take_polled
from feedhandler.sim.binance import Binance, BinanceDialog, BinanceRules
from feedhandler.sim.binance_linear import (
    FUNDING_HOURS,
    IDS_PER_CHANGE,
    MARKET,
    MERGED_NS,
    PUBLIC,
    BinanceLinearRules,
    MergedFills,
    is_liquidation,
    path_of,
)
from feedhandler.sim.protocol import HttpAnswer, HttpRequest
from sim.wire import end_of, run, running, until

NATIVE, LOWER = "BTCUSDT", "btcusdt"
DATED = "BTCUSDT_261225"
KINDS = ("ticker", "trade", "depth", "book", "contract", "liquidation")
FAPI = "/linear/fapi/v1"


@pytest.fixture
def exchange() -> Binance:
    return Binance(60, seed=1)


def request(path, **query):
    return HttpRequest(method="GET", path=path, query=list(query.items()), remote="test")


def get(exchange, clock, path, **query):
    answer = exchange.rest(request(f"{FAPI}/{path}", **query), clock.now)
    assert answer.status == 200, answer.body
    return answer.body


def used(exchange, clock):
    """Return how much weight the address has used, this look aside."""
    answer = exchange.rest(request(f"{FAPI}/ping"), clock.now)
    return int(answer.headers["x-mbx-used-weight-1m"]) - 1


def connect(exchange, clock, path="/linear/public/stream", **query):
    dialog = exchange.accept(request(path, **query), clock.now)
    assert isinstance(dialog, BinanceDialog)
    dialog.first_reply = dialog.on_open(clock.now)
    return dialog


def ask(dialog, clock, **message):
    reply = dialog.on_text(json.dumps(message), clock.pass_s(0.2))
    [text] = reply.texts
    return json.loads(text), reply


def adapter(exchange, clock):
    """One that has read the list, and wants the first contract in all kinds."""
    market = BinanceLinear()
    rows = market.decode_instruments(get(exchange, clock, "exchangeInfo"))
    assert rows.problem == ""
    market.learn(rows.items)
    for kind in KINDS:
        market.add([NATIVE], wire.SIMULATED, kind)
    return market


def move(each, clock, count=1):
    for number in range(count):
        each.step((number * 2654435761 + 12345) % 2**64, clock.now.unix_ns)


def frames_of(stream, clock):
    """Print all that a stream has to send, in combined form."""
    source, found = stream.source, []
    while source is None or source.take():
        found.append(stream.encode(1, clock.now))
        if source is None:
            break
    return found


def started(exchange, *kinds, symbol=LOWER):
    streams = [exchange.stream(f"linear:{symbol}@{kind}") for kind in kinds]
    for stream in streams:
        if stream.source is not None:
            stream.source.start()
    return streams


def data_of(frame):
    return json.loads(frame)["data"]


# Events.

TEXTS = dict.fromkeys
OF_A_PAIR = {"s": str, "ps": str, "st": int}
EVENT_FIELDS = {
    "bookTicker": OF_A_PAIR | {"e": str, "u": int, "T": int, "E": int} | TEXTS("bBaA", str),
    "depth@100ms": OF_A_PAIR | {"e": str} | TEXTS(("E", "T", "U", "u", "pu"), int) | TEXTS("ba", list),
    "depth20@100ms": OF_A_PAIR | {"e": str} | TEXTS(("E", "T", "U", "u", "pu"), int) | TEXTS("ba", list),
    "trade": {"e": str, "s": str, "X": str, "m": bool} | TEXTS("pq", str) | TEXTS(["st", *"ETt"], int),
    "aggTrade": {"s": str, "e": str, "m": bool, "nq": str} | TEXTS("pq", str) | TEXTS(["st", *"EaflT"], int),
    "markPrice@1s": {"e": str, "s": str, "ap": str, "st": int} | TEXTS("piPr", str) | TEXTS("ET", int),
    "markPrice": {"e": str, "s": str, "ap": str, "st": int} | TEXTS("piPr", str) | TEXTS("ET", int),
    "ticker": OF_A_PAIR | {"e": str} | TEXTS("pPwcQohlvq", str) | TEXTS("EOCFLn", int),
    "miniTicker": OF_A_PAIR | {"e": str, "E": int} | TEXTS("cohlvq", str),
    "forceOrder": {"e": str, "E": int, "o": dict, "st": int},
}


@pytest.mark.parametrize("kind", EVENT_FIELDS)
def test_an_event_has_the_documented_fields_and_types(exchange, clock, kind):
    event = json.loads(exchange.stream(f"linear:{LOWER}@{kind}").encode(0, clock.now))
    assert {name: type(value) for name, value in event.items()} == EVENT_FIELDS[kind]
    wrapped = json.loads(exchange.stream(f"linear:{LOWER}@{kind}").encode(1, clock.now))
    assert wrapped == {"stream": f"{LOWER}@{kind}", "data": event}


@pytest.mark.parametrize(
    ("kind", "every_ms"),
    [
        ("bookTicker", 0),
        ("depth", 250),
        ("depth@100ms", 100),
        ("depth5@500ms", 500),
        ("aggTrade", 100),
        ("markPrice", 3000),
        ("markPrice@1s", 1000),
        ("ticker", 2000),
        ("forceOrder", 1000),
    ],
)
def test_a_stream_is_as_fast_as_documented(exchange, kind, every_ms):
    assert exchange.stream(f"linear:{LOWER}@{kind}").regular_every_ns == every_ms * 10**6


def test_an_order_of_a_liquidation_has_the_documented_fields(exchange, clock):
    order = json.loads(exchange.stream(f"linear:{LOWER}@forceOrder").encode(0, clock.now))["o"]
    assert {name: type(value) for name, value in order.items()} == {"T": int, "ps": str, "st": int} | TEXTS(
        ["ap", *"sSofqpXlz"], str
    )


def test_a_dated_contract_is_of_its_pair_and_has_no_funding(exchange, clock):
    mark = json.loads(exchange.stream(f"linear:{DATED.lower()}@markPrice@1s").encode(0, clock.now))
    assert (mark["s"], mark["r"], mark["T"]) == (DATED, "", 0)
    quote = json.loads(exchange.stream(f"linear:{DATED.lower()}@bookTicker").encode(0, clock.now))
    assert (quote["s"], quote["ps"]) == (DATED, NATIVE)


def test_what_is_sent_is_read_as_it_is_meant(exchange, clock):
    market, each = adapter(exchange, clock), exchange.linear.by_symbol[NATIVE]
    names = [name for kind in KINDS for name in market.topics(NATIVE, kind)]
    streams = [exchange.stream(f"linear:{name}") for name in names]
    for stream in streams:
        assert exchange.symbols_of(stream) == f"linear:{NATIVE}"
        if stream.source is not None:
            stream.source.start()
    emitted: list = []

    def play():
        for stream in streams:
            for frame in frames_of(stream, clock):
                assert market.decode(frame, clock.now.unix_ns, Line(0), emitted.append) is None

    play()
    state = market.states["book"][NATIVE]
    for _ in range(60):
        clock.pass_s(0.1)
        move(each, clock, 5)
        play()
        if state.leader < 0:
            base = market.decode_base(NATIVE, get(exchange, clock, "depth", symbol=NATIVE, limit="1000"))
            assert state.offer([0], base, clock.now.unix_ns, emitted.append) == 1
    book, known = each.order_book(), state.lines[0]
    assert known.is_known
    assert known.last_id == book.update_id * IDS_PER_CHANGE
    scale, lot = 10.0**each.price_decimals, 10.0**each.size_decimals
    for ours, theirs in ((known.bids, book.best_bids(900)), (known.asks, book.best_asks(900))):
        assert ours[:900] == [
            (pytest.approx(price / scale), pytest.approx(lots / lot)) for price, lots in theirs
        ]
    depth = market.states["depth"][NATIVE]
    assert (depth.bids, depth.asks) == (tuple(known.bids[:20]), tuple(known.asks[:20]))
    ticker = market.tickers[NATIVE]
    assert (ticker.bid, ticker.bid_size) == depth.bids[0]
    assert ticker.last == pytest.approx(each.last / scale)
    assert ticker.base_volume_24h == pytest.approx(each.base_volume / lot)
    assert ticker.base_volume_24h * ticker.last == pytest.approx(ticker.quote_volume_24h, rel=0.2)
    contract = market.states["contract"][NATIVE]
    assert contract.mark == pytest.approx(ticker.last, rel=0.01)
    assert contract.index == pytest.approx(contract.mark, rel=0.01)
    assert abs(contract.funding_rate) < 0.01
    assert {state.kind for state in emitted} == set(KINDS)


def test_ids_of_changes_leave_out_many_and_each_event_names_the_one_before(exchange, clock):
    each = exchange.linear.by_symbol[NATIVE]
    changes, top = started(exchange, "depth@100ms", "depth20@100ms")
    found = {changes: [], top: []}
    for _ in range(30):
        move(each, clock, 3)
        for stream, events in found.items():
            events += map(data_of, frames_of(stream, clock))
    for events in found.values():
        assert len(events) == 30
        assert all(later["pu"] == earlier["u"] for earlier, later in pairwise(events))
        assert all(event["pu"] < event["U"] <= event["u"] for event in events)
        assert any(event["U"] > event["pu"] + 1 for event in events)
    assert len(found[top][-1]["b"]) == 20


def test_trades_of_one_price_and_side_are_merged_and_numbered(exchange, clock):
    each = exchange.linear.by_symbol[NATIVE]
    fills: list = []
    each.order_book().fill_logs.append(fills)
    [stream] = started(exchange, "aggTrade")
    events = []
    for _ in range(100):
        clock.pass_s(0.05)
        move(each, clock, 2)
        events += map(data_of, frames_of(stream, clock))
    assert [event["a"] for event in events] == list(range(events[0]["a"], events[0]["a"] + len(events)))
    assert all(later["f"] == earlier["l"] + 1 for earlier, later in pairwise(events))
    assert (events[0]["f"], events[-1]["l"]) == (fills[0].trade_id, fills[-1].trade_id)
    assert any(event["l"] > event["f"] for event in events)
    by_id = {fill.trade_id: fill for fill in fills}
    for event in events:
        parts = [by_id[number] for number in range(event["f"], event["l"] + 1)]
        assert {fill.is_sell for fill in parts} == {event["m"]}
        assert {fill.price / 10**each.price_decimals for fill in parts} == {float(event["p"])}
        lots = sum(fill.size for fill in parts)
        assert float(event["q"]) == pytest.approx(lots / 10**each.size_decimals)
    known = json.loads(
        get(exchange, clock, "aggTrades", symbol=NATIVE, fromId=str(events[3]["a"]), limit="10")
    )
    fields = ("a", "p", "q", "nq", "f", "l", "T", "m")
    assert known == [{name: event[name] for name in fields} for event in events[3:13]]
    newest = json.loads(get(exchange, clock, "aggTrades", symbol=NATIVE, limit="1"))
    assert newest[0]["a"] == events[-1]["a"]


def test_what_was_read_is_not_added_to(exchange, clock):
    book = exchange.linear.by_symbol[NATIVE].order_book()
    merged = MergedFills(book, MERGED_NS)
    [fill] = book.fills
    for number in range(3):
        merged.append(fill._replace(trade_id=fill.trade_id + 1 + number, unix_ns=5))
    first = merged.kept[-1]
    merged.append(fill._replace(trade_id=fill.trade_id + 4, unix_ns=5 + MERGED_NS))
    assert merged.kept[-1] is not first, "too late"
    second = merged.kept[-1]
    merged.close()
    merged.append(fill._replace(trade_id=fill.trade_id + 5, unix_ns=5 + MERGED_NS))
    assert merged.kept[-1] is not second
    assert [each.last_id - each.first_id for each in merged.kept] == [3, 0, 0]
    assert [each.number - first.number for each in merged.kept] == [0, 1, 2]


def test_a_liquidation_is_one_of_the_trades_and_the_newest_of_its_second(exchange, clock):
    each = exchange.linear.by_symbol[NATIVE]
    fills: list = []
    each.order_book().fill_logs.append(fills)
    [stream] = started(exchange, "forceOrder")
    told = 0
    for _ in range(40):
        clock.pass_s(1)
        fills.clear()
        move(each, clock, 40)
        found = [data_of(frame)["o"] for frame in frames_of(stream, clock)]
        liquidated = [fill for fill in fills if is_liquidation(fill)]
        assert len(found) == min(1, len(liquidated))
        for order in found:
            fill = liquidated[-1]
            told += 1
            assert (order["S"], order["T"]) == ("SELL" if fill.is_sell else "BUY", fill.unix_ns // 10**6)
            assert float(order["ap"]) == fill.price / 10**each.price_decimals
            assert float(order["q"]) == float(order["z"]) == fill.size / 10**each.size_decimals
            assert (float(order["p"]) < float(order["ap"])) == fill.is_sell
    assert told > 10


def test_funding_is_due_at_its_time(clock):
    exchange = Binance(60, seed=1, rules=BinanceRules(linear=BinanceLinearRules(funding_hour_s=2.0)))
    stream = exchange.stream(f"linear:{LOWER}@markPrice@1s")
    interval_ms = FUNDING_HOURS[0] * 2000
    due = []
    for _ in range(40):
        clock.pass_s(1)
        event = json.loads(stream.encode(0, clock.now))
        premium = json.loads(get(exchange, clock, "premiumIndex", symbol=NATIVE))
        assert (event["T"], event["r"]) == (premium["nextFundingTime"], premium["lastFundingRate"])
        assert 0 < event["T"] - event["E"] <= interval_ms
        assert event["T"] % interval_ms == 0
        due.append(event["T"])
        [paid] = json.loads(get(exchange, clock, "fundingRate", symbol=NATIVE))
        assert paid["fundingTime"] == event["T"] - interval_ms
    assert len(set(due)) == 3


def test_contract_values_move_with_the_market(exchange, clock):
    each, stream = exchange.linear.by_symbol[NATIVE], exchange.stream(f"linear:{LOWER}@markPrice@1s")
    each.order_book()
    each.pair.order_book()
    seen = []
    for _ in range(20):
        move(each.pair, clock, 50)
        move(each, clock, 50)
        event = json.loads(stream.encode(0, clock.now))
        interest = json.loads(get(exchange, clock, "openInterest", symbol=NATIVE))
        seen.append((event["p"], event["i"], event["r"], interest["openInterest"]))
        low, high = sorted((each.pair.last, (each.bid + each.ask) / 2))
        assert low - 1 <= float(event["p"]) * 10**each.price_decimals <= high + 1
    assert all(len(set(values)) > 10 for values in zip(*seen, strict=True))


# Paths.


def test_every_stream_is_on_one_path():
    assert path_of(f"{LOWER}@bookTicker") == path_of(f"{LOWER}@depth") == PUBLIC
    assert path_of(f"{LOWER}@depth20@500ms") == path_of("!bookTicker") == PUBLIC
    for name in ("markPrice", "markPrice@1s", "ticker", "aggTrade", "forceOrder", "kline_1m"):
        assert path_of(f"{LOWER}@{name}") == MARKET
    for name in ("!markPrice@arr@1s", "!ticker@arr", "btcusdt_perpetual@continuousKline_1m"):
        assert path_of(name) == MARKET
    for name in (LOWER, f"{LOWER}@depth@1000ms", f"{LOWER}@avgPrice", f"{LOWER}@ticker@1s", "@ticker", ""):
        assert path_of(name) is None


@pytest.mark.parametrize(
    ("path", "brings"), [("/public", "bookTicker"), ("/market", "aggTrade"), ("", "bookTicker")]
)
@pytest.mark.parametrize("form", ["ws", "stream"])
def test_a_path_acknowledges_all_streams_and_brings_its_own(exchange, clock, path, brings, form):
    dialog = connect(exchange, clock, f"/linear{path}/{form}")
    names = [f"{LOWER}@bookTicker", f"{LOWER}@aggTrade"]
    answer, reply = ask(dialog, clock, method="SUBSCRIBE", params=names, id=1)
    assert answer == {"result": None, "id": 1}
    assert reply.violation == ""
    streams = [exchange.stream(topic) for topic in reply.subscribe]
    assert [stream is not None for stream in streams] == [name.endswith(brings) for name in names]
    answer, _ = ask(dialog, clock, method="LIST_SUBSCRIPTIONS", id=2)
    assert answer == {"result": names, "id": 2}
    answer, reply = ask(dialog, clock, method="UNSUBSCRIBE", params=names, id=3)
    assert answer == {"result": None, "id": 3}
    assert len(reply.unsubscribe) == 2
    assert not dialog.topics


def test_the_path_of_accounts_can_be_connected_to_and_brings_nothing(exchange, clock):
    dialog = connect(exchange, clock, "/linear/private/stream")
    _, reply = ask(
        dialog, clock, method="SUBSCRIBE", params=[f"{LOWER}@bookTicker", f"{LOWER}@aggTrade"], id=1
    )
    assert [exchange.stream(topic) for topic in reply.subscribe] == [None, None]


def test_streams_may_be_in_the_url(exchange, clock):
    names = f"{LOWER}@ticker/ethusdt@markPrice@1s"
    combined = connect(exchange, clock, "/linear/market/stream", streams=names)
    raw = connect(exchange, clock, f"/linear/market/ws/{names}")
    assert combined.variant != raw.variant
    for dialog in (combined, raw):
        assert all(exchange.stream(topic) for topic in dialog.first_reply.subscribe)
        assert len(dialog.first_reply.subscribe) == 2


@pytest.mark.parametrize("path", ["/linear", "/linear/", "/linear/publics/ws", "/public/ws"])
def test_other_paths_are_no_stream(exchange, clock, path):
    answer = exchange.accept(request(path), clock.now)
    assert isinstance(answer, HttpAnswer)
    assert answer.status == 404


def test_spot_and_contracts_do_not_meet(exchange, clock):
    dialog = connect(exchange, clock, "/stream", streams=f"{LOWER}@bookTicker")
    assert dialog.first_reply.subscribe == [f"{LOWER}@bookTicker"]
    assert exchange.stream(f"{LOWER}@bookTicker").instrument is exchange.by_symbol[NATIVE]
    assert exchange.stream(f"linear:{LOWER}@bookTicker").instrument is exchange.find(f"linear:{NATIVE}")
    assert not any(each.listing.settle for each in exchange.instruments)
    assert DATED not in exchange.by_symbol
    assert exchange.find(DATED) is None
    assert exchange.shutdown_notice(connect(exchange, clock), clock.now) is None
    exchange.rejected_symbols.add(f"linear:{NATIVE}")
    assert (
        "error"
        in ask(connect(exchange, clock), clock, method="SUBSCRIBE", params=[f"{LOWER}@depth"], id=1)[0]
    )
    assert "error" not in ask(dialog, clock, method="SUBSCRIBE", params=[f"{LOWER}@depth"], id=1)[0]
    exchange.unlisted_symbols.add(f"linear:{NATIVE}")
    info = json.loads(get(exchange, clock, "exchangeInfo"))
    assert NATIVE not in {row["symbol"] for row in info["symbols"]}


def test_what_does_not_trade_is_acknowledged_and_silent(exchange, clock):
    names = ["haltedusdt@bookTicker", "soonerusdt@bookTicker", "nosuchusdt@bookTicker", "BTCUSDT@bookTicker"]
    answer, reply = ask(connect(exchange, clock), clock, method="SUBSCRIBE", params=names, id=1)
    assert answer == {"result": None, "id": 1}
    assert [exchange.stream(topic) for topic in reply.subscribe] == [None] * 4
    answer, reply = ask(connect(exchange, clock), clock, method="SUBSCRIBE", params=[f"{LOWER}@tick"], id=2)
    assert "error" in answer
    assert reply.close is not None


# Limits.


def test_the_eleventh_message_in_a_second_ends_the_connection(exchange, clock):
    dialog = connect(exchange, clock)
    text = json.dumps({"method": "LIST_SUBSCRIPTIONS", "id": 1})
    assert [dialog.on_text(text, clock.now).close for _ in range(10)] == [None] * 10
    assert dialog.on_text(text, clock.now).close.code == 1008


def test_1024_streams_and_no_more(exchange, clock):
    dialog = connect(exchange, clock)
    for start in range(0, 1024, 128):
        names = [f"x{number}usdt@depth" for number in range(start, start + 128)]
        assert "error" not in ask(dialog, clock, method="SUBSCRIBE", params=names, id=1)[0]
    answer, reply = ask(dialog, clock, method="SUBSCRIBE", params=["moreusdt@depth"], id=2)
    assert "error" in answer
    assert reply.violation


def test_a_ping_comes_every_three_minutes_and_wants_its_payload_back_within_ten(exchange, clock):
    dialog = connect(exchange, clock)
    assert dialog.on_tick(clock.pass_s(179)).ping is None
    ping = dialog.on_tick(clock.pass_s(1)).ping
    assert ping
    for _ in range(3):
        dialog.on_pong(ping, clock.now)
        ping = dialog.on_tick(clock.pass_s(180)).ping
        assert ping
    assert dialog.on_tick(clock.pass_s(599)).close is None
    assert dialog.on_tick(clock.pass_s(2)).close.code == 1008


def test_a_connection_ends_after_a_day(exchange, clock):
    dialog = connect(exchange, clock)
    assert dialog.on_tick(clock.pass_s(86_401)).close is not None


def test_connection_attempts_are_counted_for_both_paths_and_not_with_those_of_spot(clock):
    exchange = Binance(60, seed=1, rules=BinanceRules(linear=BinanceLinearRules(attempts=4)))
    for path in ("/linear/public/ws", "/linear/market/ws") * 2:
        assert isinstance(exchange.accept(request(path), clock.now), BinanceDialog)
    refused = exchange.accept(request("/linear/public/ws"), clock.now)
    assert isinstance(refused, HttpAnswer)
    assert refused.status == 429
    assert refused.violation
    assert isinstance(exchange.accept(request("/ws"), clock.now), BinanceDialog)


WEIGHTS = [
    ("ping", {}, 1),
    ("exchangeInfo", {}, 1),
    ("depth", {"symbol": NATIVE, "limit": "5"}, 2),
    ("depth", {"symbol": NATIVE, "limit": "100"}, 5),
    ("depth", {"symbol": NATIVE}, 10),
    ("depth", {"symbol": NATIVE, "limit": "1000"}, 20),
    ("trades", {"symbol": NATIVE}, 5),
    ("aggTrades", {"symbol": NATIVE}, 20),
    ("openInterest", {"symbol": NATIVE}, 1),
    ("fundingInfo", {}, 0),
    ("fundingRate", {}, 0),
    ("premiumIndex", {"symbol": NATIVE}, 1),
    ("premiumIndex", {}, 10),
    ("ticker/24hr", {"symbol": NATIVE}, 1),
    ("ticker/24hr", {}, 40),
    ("ticker/bookTicker", {"symbol": NATIVE}, 2),
    ("ticker/bookTicker", {}, 5),
    ("ticker/price", {}, 2),
]


@pytest.mark.parametrize(("path", "query", "weight"), WEIGHTS)
def test_a_request_weighs_what_is_documented(exchange, clock, path, query, weight):
    get(exchange, clock, path, **query)
    assert used(exchange, clock) == weight


def test_who_goes_on_after_429_is_banned_until_the_minute_is_over(exchange, clock):
    for _ in range(60):
        get(exchange, clock, "ticker/24hr")
    answers = [exchange.rest(request(f"{FAPI}/ping"), clock.now) for _ in range(11)]
    assert [answer.status for answer in answers] == [429] * 10 + [418]
    assert all(json.loads(answer.body)["code"] == -1003 and answer.violation for answer in answers)
    left_s = int(answers[0].headers["Retry-After"])
    assert 0 < left_s <= 60
    assert exchange.rest(request("/api/v3/ping"), clock.now).status == 200, "spot has a host of its own"
    clock.pass_s(left_s)
    get(exchange, clock, "ping")


def test_requests_about_funding_have_a_limit_of_their_own(clock):
    exchange = Binance(60, seed=1, rules=BinanceRules(linear=BinanceLinearRules(funding_requests=3)))
    for path in ("fundingInfo", "fundingRate", "fundingInfo"):
        get(exchange, clock, path)
    assert exchange.rest(request(f"{FAPI}/fundingRate"), clock.now).status == 429
    get(exchange, clock, "ping")
    statuses = [exchange.rest(request(f"{FAPI}/fundingRate"), clock.now).status for _ in range(10)]
    assert statuses == [429] * 9 + [418]
    assert exchange.rest(request(f"{FAPI}/ping"), clock.now).status == 418, "a ban is of all"


# REST.


def test_the_list_has_two_families_and_several_states(exchange, clock):
    info = json.loads(get(exchange, clock, "exchangeInfo"))
    by_symbol = {row["symbol"]: row for row in info["symbols"]}
    assert {row["contractType"] for row in info["symbols"]} == {
        "PERPETUAL",
        "TRADIFI_PERPETUAL",
        "CURRENT_QUARTER",
        "NEXT_QUARTER",
    }
    assert by_symbol["XAUUSDT"]["contractType"] == "TRADIFI_PERPETUAL"
    assert {by_symbol[name]["status"] for name in (NATIVE, "HALTEDUSDT", "SOONERUSDT")} == {
        "TRADING",
        "SETTLING",
        "PENDING_TRADING",
    }
    assert not all(symbol.isascii() for symbol in by_symbol)
    assert by_symbol[DATED]["pair"] == NATIVE
    assert by_symbol[DATED]["deliveryDate"] < by_symbol[NATIVE]["deliveryDate"]
    rows = BinanceLinear().decode_instruments(get(exchange, clock, "exchangeInfo"))
    found = {row.symbol: row for row in rows.items}
    assert rows.problem == ""
    assert found["BTC/USDT:USDT"].is_trading
    assert found["BTC/USDT:USDT"].tick == "0.1"
    assert not found["HALTED/USDT:USDT"].is_trading
    assert {"BTC/USDC:USDC", "TSLA/USDT:USDT", "松鼠币/USDT:USDT"} <= found.keys()


def test_intervals_that_were_changed_are_told_and_others_have_eight_hours(exchange, clock):
    rows = {row["symbol"]: row for row in json.loads(get(exchange, clock, "fundingInfo"))}
    hours = {symbol: row["fundingIntervalHours"] for symbol, row in rows.items()}
    assert hours["SOLUSDT"] == 4
    assert hours["ADAUSDT"] == 1
    assert hours["ETHUSDT"] == 8
    assert NATIVE not in rows
    assert DATED not in rows
    due = json.loads(get(exchange, clock, "premiumIndex", symbol="ADAUSDT"))["nextFundingTime"]
    assert 0 < due - clock.now.unix_ms <= 3_600_000


def test_rest_answers_are_read_as_they_are_meant(exchange, clock):
    market, each = adapter(exchange, clock), exchange.linear.by_symbol[NATIVE]
    scale = 10.0**each.price_decimals
    quote = market.decode_quote(get(exchange, clock, "ticker/bookTicker", symbol=NATIVE))
    assert (quote.bid, quote.ask) == (pytest.approx(each.bid / scale), pytest.approx(each.ask / scale))
    for path in ("ticker/bookTicker", "ticker/24hr"):
        rows = market.decode_survey(get(exchange, clock, path))
        assert {NATIVE, DATED} <= {row.native for row in rows.items}
        assert rows.problem == ""
    assert market.decode_time(get(exchange, clock, "time")) // 10**6 == clock.now.unix_ms
    move(each, clock, 100)
    past = market.decode_past_trades(NATIVE, get(exchange, clock, "aggTrades", symbol=NATIVE))
    assert past.problem == ""
    assert [row.number for row in past.items] == list(
        range(past.items[0].number, past.items[0].number + len(past.items))
    )
    day = json.loads(get(exchange, clock, "ticker/24hr", symbol=NATIVE))
    low, average, high = (float(day[name]) for name in ("lowPrice", "weightedAvgPrice", "highPrice"))
    assert low <= average <= high
    assert (
        float(json.loads(get(exchange, clock, "ticker/price", symbol=NATIVE))["price"]) * scale == each.last
    )
    newest = json.loads(get(exchange, clock, "trades", symbol=NATIVE, limit="1"))
    assert newest[0]["id"] == each.trade_id


REFUSED = [
    ("depth", {}, -1102),
    ("depth", {"symbol": "NOPE"}, -1121),
    ("depth", {"symbol": NATIVE, "limit": "7"}, -1130),
    ("depth", {"symbol": NATIVE, "limit": "many"}, -1130),
    ("aggTrades", {"symbol": NATIVE, "limit": "1001"}, -1130),
    ("aggTrades", {"symbol": NATIVE, "limit": "0"}, -1130),
    ("aggTrades", {"symbol": NATIVE, "fromId": "-1"}, -1130),
    ("openInterest", {}, -1102),
    ("premiumIndex", {"symbol": "NOPE"}, -1121),
    ("ticker/24hr", {"symbols": "[]"}, -1104),
]


@pytest.mark.parametrize(("path", "query", "code"), REFUSED)
def test_a_bad_request_is_refused_with_its_code(exchange, clock, path, query, code):
    answer = exchange.rest(request(f"{FAPI}/{path}", **query), clock.now)
    assert (answer.status, json.loads(answer.body)["code"]) == (400, code)


def test_what_does_not_trade_has_an_empty_book(exchange, clock):
    book = json.loads(get(exchange, clock, "depth", symbol="HALTEDUSDT"))
    assert (book["bids"], book["asks"]) == ([], [])


def test_other_requests_are_none(exchange, clock):
    assert exchange.rest(request("/linear/fapi/v1/klines"), clock.now).status == 404
    assert exchange.rest(request("/fapi/v1/ping"), clock.now).status == 404
    post = HttpRequest(method="POST", path=f"{FAPI}/ping")
    assert exchange.rest(post, clock.now).status == 405


# On sockets.


def subscription(*kinds, symbol=LOWER):
    return {"method": "SUBSCRIBE", "params": [f"{symbol}@{kind}" for kind in kinds], "id": 1}


@pytest.mark.parametrize(
    "settings", [{"messages_per_s": 1000}, {"messages_per_s": 0}], ids=["rate", "rhythm"]
)
def test_every_kind_comes_by_its_path_whatever_the_schedule(settings):
    kinds = {
        "public": ["bookTicker", "depth@100ms", "depth20@100ms"],
        "market": ["aggTrade", "markPrice@1s", "ticker", "forceOrder"],
    }

    async def scenario():
        async with running("binance", **settings) as client:
            for path, of_path in kinds.items():
                ws = await client.connect(f"/linear/{path}/stream")
                await ws.send_json(subscription(*of_path))
                wanted = {f"{LOWER}@{kind}" for kind in of_path}
                while wanted:
                    message = await until(ws, lambda message: "stream" in message)
                    wanted.discard(message["stream"])
                await ws.close()
            assert (await client.state())["violations"] == []

    run(scenario())


@pytest.mark.long
def test_marks_come_by_the_clock_of_what_nobody_trades():
    """The last of all changes less than once in ten seconds, on average."""

    async def scenario():
        async with running("binance", messages_per_s=0, instruments=60) as client:
            ws = await client.connect("/linear/market/ws")
            quiet = max(client.server._exchange.linear.trading(), key=lambda each: each.index)
            symbol = f"{quiet.listing.base}{quiet.listing.quote}".lower()
            await ws.send_json(subscription("markPrice@1s", symbol=symbol))
            times = []
            while len(times) < 3:
                times.append((await until(ws, lambda message: "e" in message))["E"])
            assert all(later - earlier > 500 for earlier, later in pairwise(times))

    run(scenario())


def test_the_death_of_one_path_leaves_the_other():
    async def scenario():
        async with running("binance") as client:
            public = await client.connect("/linear/public/ws")
            market = await client.connect("/linear/market/ws")
            await public.send_json(subscription("bookTicker"))
            await market.send_json(subscription("aggTrade"))
            for ws in (public, market):
                await until(ws, lambda message: "e" in message)
            await client.fault(fault="refuse", seconds=PATIENCE_S, how="503", path="/linear/public")
            await client.fault(fault="rst", path="/linear/public")
            assert (await end_of(public)).type in (aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR)
            with pytest.raises(aiohttp.WSServerHandshakeError) as raised:
                await client.connect("/linear/public/ws")
            assert raised.value.status == 503
            await until(market, lambda message: "e" in message)
            assert await client.rest(f"{FAPI}/ping") == {}
            another = await client.connect("/linear/market/ws")
            await client.fault(fault="none")
            public = await client.connect("/linear/public/ws")
            await client.fault(fault="half_open", path="/linear/public")
            state = await client.state()
            assert {
                each["path"]: each["is_half_open"]
                for each in state["connections"]
                if each["subscriptions"] == []
            } == {"/linear/public/ws": True, "/linear/market/ws": False}
            await client.fault(fault="close", path="/linear/market")
            for ws in (market, another):
                assert (await end_of(ws)).type is aiohttp.WSMsgType.CLOSE
            await client.wait_for(lambda state: len(state["connections"]) == 1)

    run(scenario())


def test_one_path_may_be_mute_and_answer_all_the_same():
    async def scenario():
        async with running("binance") as client:
            public = await client.connect("/linear/public/ws")
            market = await client.connect("/linear/market/ws")
            await client.fault(fault="mute", seconds=PATIENCE_S, path="/linear/market")
            await market.send_json(subscription("aggTrade"))
            await public.send_json(subscription("bookTicker"))
            assert await market.receive_json() == {"result": None, "id": 1}
            await until(public, lambda message: "u" in message)
            await client.wait_for(lambda state: state["fault_effects"].get("mute", 0) > 10)
            await market.send_json({"method": "LIST_SUBSCRIPTIONS", "id": 2})
            assert (await market.receive_json())["id"] == 2, "and no data before it"
            await client.fault(fault="none")
            await until(market, lambda message: "a" in message)

    run(scenario())


def test_faults_name_a_contract_with_its_market():
    async def scenario():
        async with running("binance") as client:
            linear = await client.connect("/linear/public/ws")
            spot = await client.connect("/ws")
            for ws in (linear, spot):
                await ws.send_json(subscription("bookTicker"))
                await until(ws, lambda message: "u" in message)
            await client.fault(fault="mute_symbol", symbol=f"linear:{NATIVE}")
            state = await client.state()
            assert state["faults"][0]["symbol"] == f"linear:{NATIVE}"
            await until(spot, lambda message: "u" in message)
            await client.fault(fault="none")
            await client.fault(fault="lose_messages", topic=f"linear:{LOWER}@bookTicker", count=3)
            await client.wait_for(lambda state: state["fault_effects"].get("lose_messages") == 3)
            market = await client.connect("/linear/market/ws")
            await market.send_json(subscription("aggTrade"))
            await until(market, lambda message: message.get("result", "") is None)
            await client.fault(fault="burst", symbol=f"linear:{NATIVE}", count=2000)
            numbers, trades = [], 0
            while trades < 2000:
                event = await until(market, lambda message: "a" in message)
                numbers.append(event["a"])
                trades += event["l"] - event["f"] + 1
            assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
            answer = await client.http.post(
                f"{client.server.rest_url}/_sim/faults", json={"fault": "burst", "symbol": DATED}
            )
            assert "no symbol" in (await answer.json())["error"]

    run(scenario())


def test_old_books_are_those_of_each_market(exchange, clock):
    each = exchange.linear.by_symbol[NATIVE]
    spot = exchange.by_symbol[NATIVE]
    each.order_book()
    spot.order_book()
    exchange.keep_books(clock.now)
    before = json.loads(get(exchange, clock, "depth", symbol=NATIVE, limit="5"))
    move(each, clock, 50)
    after = json.loads(get(exchange, clock, "depth", symbol=NATIVE, limit="5"))
    assert after["lastUpdateId"] == before["lastUpdateId"]
    assert exchange.old_books.keys() == {NATIVE, f"linear:{NATIVE}"}
    exchange.old_books.clear()
    newest = json.loads(get(exchange, clock, "depth", symbol=NATIVE, limit="5"))
    assert newest["lastUpdateId"] == each.order_book().update_id * IDS_PER_CHANGE


def test_a_crossed_book_is_played(exchange, clock):
    each = exchange.linear.by_symbol[NATIVE]
    [stream] = started(exchange, "depth@100ms")
    stream.source.is_crossed_next = True
    move(each, clock, 10)
    [frame] = frames_of(stream, clock)
    best = each.ask / 10**each.price_decimals
    assert max(float(price) for price, size in data_of(frame)["b"] if float(size)) > best


def test_what_no_stream_has_is_polled_as_it_is_meant(exchange, clock):
    """Open interest of each contract, and intervals of those that are not 8 h, as the adapter asks for them."""
    market = BinanceLinear()
    states = market.add([NATIVE, "ETHUSDT", "SOLUSDT"], 0, "contract")
    for state in states:
        state.mark = 1.0
        state.update(clock.now.unix_ns)
    for poll in market.polls:
        asked = [poll.request] if poll.request else [market.poll_request(poll, s.native) for s in states]
        rows = []
        for each in asked:
            path, _, query = each.path.partition("?")
            answer = exchange.rest(request(f"/linear{path}", **dict(parse_qsl(query))), clock.now)
            found = market.decode_poll(poll, answer.body, clock.now.unix_ns)
            assert found.problem == ""
            rows += found.items
        assert take_polled(poll, rows, states, clock.now.unix_ns, [].append) == states
    for state in states:
        perpetual = exchange.linear.perpetuals[state.native]
        each = perpetual.contract
        assert state.open_interest == perpetual.open_interest / 10**each.size_decimals
        assert state.funding_interval_h == FUNDING_HOURS[each.index % len(FUNDING_HOURS)]
    assert len({state.funding_interval_h for state in states}) > 1
