"""The simulated OKX, against its documentation: frames, answers, rules.

Shapes: https://www.okx.com/docs-v5/en/#order-book-trading-market-data and the chapters beside it.
"""

import json
from decimal import Decimal
from itertools import pairwise

import pytest

from feedhandler.sim.okx import Okx, OkxDialog, OkxReading, OkxRules
from feedhandler.sim.protocol import NS_PER_S, HttpAnswer, HttpRequest, Now, Reply
from feedhandler.sim.rhythm import Activity, Rhythm

from .books import GapError, KeptBook, topic_of, truth
from .listener import World
from .wire import end_of, run, running, until

PUBLIC = HttpRequest(method="GET", path="/ws/v5/public", remote="test")
BTC = {"channel": "tickers", "instId": "BTC-USDT"}
ETH = {"channel": "tickers", "instId": "ETH-USDT"}


@pytest.fixture
def exchange() -> Okx:
    return Okx(100, seed=1)


@pytest.fixture
def dialog(exchange, clock) -> OkxDialog:
    dialog = exchange.accept(PUBLIC, clock.now)
    assert isinstance(dialog, OkxDialog)
    assert dialog.on_open(clock.now) == Reply(), "there is no greeting"
    return dialog


def ask(dialog: OkxDialog, clock, **message: object) -> Reply:
    return dialog.on_text(json.dumps(message), clock.now)


def subscribe(dialog: OkxDialog, clock, *args: object) -> Reply:
    return ask(dialog, clock, id="a1", op="subscribe", args=list(args))


def only(reply: Reply) -> dict:
    [text] = reply.texts
    return json.loads(text)


def push(exchange: Okx, clock, topic: str) -> dict:
    stream = exchange.stream(topic)
    assert stream is not None
    return json.loads(stream.encode(0, clock.now))


def get(exchange: Okx, clock, path: str, status: int = 200, **query: str) -> dict:
    request = HttpRequest(method="GET", path=f"/api/v5/{path}", query=list(query.items()), remote="rest")
    answer = exchange.rest(request, clock.now)
    assert answer.status == status
    body = json.loads(answer.body)
    assert body.keys() == {"code", "msg", "data"}
    assert isinstance(body["code"], str)
    return body


def playing(*topics: str, activity: Activity = Activity(busiest_per_s=1000, busy_symbols=5000)) -> tuple:  # noqa: B008
    exchange = Okx(40, 1)
    world = World(Rhythm(exchange.instruments, activity, 1), exchange.instruments)
    for topic in topics:
        world.add(exchange.stream(topic))
    return world, exchange


def data(world: World, topic: str) -> list[dict]:
    """Return the rows that have come of a topic."""
    found = [json.loads(text) for _, text in world.seen]
    return [row for message in found if topic_of(message) == topic for row in message["data"]]


# Pushes.


def test_a_ticker_is_texts_with_the_quote_and_a_day_that_rolls(exchange, clock):
    message = push(exchange, clock, "tickers:BTC-USDT")
    assert message["arg"] == BTC
    [row] = message["data"]
    assert row.keys() == {
        *("instType", "instId", "last", "lastSz", "askPx", "askSz", "bidPx", "bidSz", "open24h", "high24h"),
        *("low24h", "volCcy24h", "vol24h", "ts", "sodUtc0", "sodUtc8"),
    }
    assert all(isinstance(value, str) for value in row.values())
    assert (row["instType"], row["ts"]) == ("SPOT", str(clock.now.unix_ms))
    assert Decimal(row["bidPx"]) < Decimal(row["askPx"])
    assert Decimal(row["low24h"]) <= Decimal(row["last"]) <= Decimal(row["high24h"])
    assert Decimal(row["volCcy24h"]) > Decimal(row["vol24h"]), "of the quote, and of the base"


def test_the_first_ticker_has_the_time_of_its_last_change(exchange, clock):
    stream = exchange.stream("tickers:BTC-USDT")
    pushed = json.loads(stream.encode(0, clock.now))
    clock.pass_s(500)
    assert json.loads(exchange.snapshot(stream, 0, clock.now)) == pushed
    assert get(exchange, clock, "market/ticker", instId="BTC-USDT")["data"] == pushed["data"]
    exchange.by_symbol["BTC-USDT"].trade(1, clock.now.unix_ns)
    [row] = json.loads(exchange.snapshot(stream, 0, clock.now))["data"]
    assert row["ts"] == str(clock.now.unix_ms)


def test_the_best_levels_are_whole_and_a_side_may_be_empty(exchange, clock):
    [row] = push(exchange, clock, "bbo-tbt:BTC-USDT")["data"]
    assert row.keys() == {"asks", "bids", "ts", "seqId"}
    [[price, size, former, orders]] = row["bids"]
    assert (former, Decimal(price) > 0, Decimal(size) > 0, int(orders) > 0) == ("0", True, True, True)
    thin = exchange.by_symbol["THINLY-USDT"]
    empty = 0
    for bits in range(200):
        thin.step(bits * 7919)
        [row] = push(exchange, clock, "bbo-tbt:THINLY-USDT")["data"]
        [ticker] = push(exchange, clock, "tickers:THINLY-USDT")["data"]
        assert (row["bids"] == [], row["asks"] == []) == (ticker["bidPx"] == "", ticker["askSz"] == "")
        empty += row["bids"] == [] or row["asks"] == []
    assert empty > 10


def test_best_levels_are_pushed_after_ten_ms_at_the_earliest_and_again_after_a_minute():
    world, _ = playing("bbo-tbt:BTC-USDT")
    world.run(1.0)
    times = [at_ns for at_ns, _ in world.seen]
    assert 50 < len(times) <= 100
    assert all(later - earlier >= NS_PER_S // 100 for earlier, later in pairwise(times))
    quiet, exchange = playing(
        "bbo-tbt:XLM-USDT", activity=Activity(busiest_per_s=1, busy_symbols=1, quietest_s=86_400)
    )
    exchange.snapshot(quiet.broadcast.find("bbo-tbt:XLM-USDT"), 0, Now(0, 0))
    quiet.run(185.0, tick_ms=20)
    assert len({text for _, text in quiet.seen}) <= 2
    assert len(quiet.seen) == 3


@pytest.mark.long
def test_a_trade_is_what_one_order_took_at_one_price_under_the_last_id():
    world, exchange = playing("trades:BTC-USDT")
    fills: list = []
    exchange.by_symbol["BTC-USDT"].order_book().fill_logs.append(fills)
    world.run(3.0)
    rows = data(world, "trades:BTC-USDT")
    assert rows[0].keys() == {
        *("instId", "tradeId", "px", "sz", "side", "ts", "count", "source", "seqId"),
    }
    assert any(int(row["count"]) > 1 for row in rows)
    sizes = {fill.trade_id: Decimal(fill.size).scaleb(-5) for fill in fills}
    for row in rows:
        last, count = int(row["tradeId"]), int(row["count"])
        assert Decimal(row["sz"]) == sum(sizes.pop(number) for number in range(last - count + 1, last + 1))
    assert all(int(b["tradeId"]) - int(a["tradeId"]) == int(b["count"]) for a, b in pairwise(rows))
    assert all(b["seqId"] >= a["seqId"] for a, b in pairwise(rows))


def test_the_first_trade_after_a_subscription_is_the_last_old_one():
    world, exchange = playing("trades:BTC-USDT")
    world.run(1.0)
    last = json.loads(world.seen[-1][1])
    stream = world.broadcast.find("trades:BTC-USDT")
    assert json.loads(exchange.snapshot(stream, 0, Now(world.now_ns, world.now_ns))) == last
    world.broadcast.remove("trades:BTC-USDT", world.box)
    world.run(0.2)
    stream = exchange.stream("trades:BTC-USDT")
    [row] = json.loads(exchange.snapshot(stream, 0, Now(world.now_ns, world.now_ns)))["data"]
    fill = exchange.by_symbol["BTC-USDT"].order_book().fills[-1]
    assert (row["tradeId"], row["ts"]) == (str(fill.trade_id), str(fill.unix_ns // 10**6))
    world.seen.clear()
    world.add(stream)
    world.run(0.5)
    first = data(world, "trades:BTC-USDT")[0]
    assert int(first["tradeId"]) - int(first["count"]) == int(row["tradeId"])


# Books.


def snapshot_of(world: World, exchange: Okx, topic: str = "books:BTC-USDT") -> dict:
    stream = world.broadcast.find(topic) or exchange.stream(topic)
    return json.loads(exchange.snapshot(stream, 0, Now(world.now_ns, world.now_ns)))


def test_a_book_begins_with_a_snapshot_and_each_update_names_the_one_before():
    world, exchange = playing()
    first = snapshot_of(world, exchange)
    [base] = first["data"]
    assert (first["action"], base["prevSeqId"], base["checksum"]) == ("snapshot", -1, 0)
    assert base.keys() == {"asks", "bids", "ts", "checksum", "seqId", "prevSeqId"}
    assert len(base["bids"]) == len(base["asks"]) == 400
    world.add(exchange.stream("books:BTC-USDT"))
    world.run(2.0)
    rows = [base, *data(world, "books:BTC-USDT")]
    assert len(rows) > 15
    assert all(later["prevSeqId"] == earlier["seqId"] for earlier, later in pairwise(rows))
    assert len({later["seqId"] - earlier["seqId"] for earlier, later in pairwise(rows)}) > 5, "they jump"
    assert all(level[3] == "0" for row in rows for level in row["bids"] if level[1] == "0")
    book = KeptBook(Okx)
    book.begin(first)
    for _, text in world.seen:
        book.apply(json.loads(text))
        assert len(book.bids) <= 400
    assert book.removed_unknown == 0


def test_a_quiet_book_says_after_a_minute_that_nothing_has_changed():
    quiet = Activity(busiest_per_s=1, busy_symbols=1, quietest_s=86_400)
    world, exchange = playing("books:XLM-USDT", activity=quiet)
    [base] = snapshot_of(world, exchange, "books:XLM-USDT")["data"]
    world.run(130.0, tick_ms=20)
    rows = data(world, "books:XLM-USDT")
    assert [(row["asks"], row["bids"], row["seqId"], row["prevSeqId"]) for row in rows] == [
        ([], [], base["seqId"], base["seqId"])
    ] * 2


def test_after_a_maintenance_ids_begin_anew_and_the_chain_goes_on():
    world, exchange = playing("books:BTC-USDT", "bbo-tbt:BTC-USDT")
    book = KeptBook(Okx)
    book.begin(snapshot_of(world, exchange))
    world.run(0.5)
    stream = world.broadcast.find("books:BTC-USDT")
    assert not exchange.restart_book(world.broadcast.find("bbo-tbt:BTC-USDT"))
    assert exchange.restart_book(stream)
    world.run(1.0)
    rows = data(world, "books:BTC-USDT")
    resets = [row for row in rows if row["seqId"] < row["prevSeqId"]]
    assert len(resets) == 1
    assert resets[0]["seqId"] == 1
    assert all(later["prevSeqId"] == earlier["seqId"] for earlier, later in pairwise(rows))
    rest = get(exchange, _At(world), "market/books", instId="BTC-USDT", sz="400", source="0")["data"]
    assert rest[0]["seqId"] == rows[-1]["seqId"], "of the same count"
    assert data(world, "bbo-tbt:BTC-USDT")[-1]["seqId"] < 10**6
    world.run(0.0)
    for message in (json.loads(text) for _, text in world.seen):
        if topic_of(message) == "books:BTC-USDT":
            [row] = message["data"]
            book.update_id = row["prevSeqId"] if row in resets else book.update_id
            book.is_chained = row not in resets
            book._set(book.bids, row["bids"])
            book._set(book.asks, row["asks"])
    assert book.removed_unknown == 0


class _At:
    """The time of a world, as a clock has it."""

    def __init__(self, world: World) -> None:
        self.now = Now(world.now_ns, world.now_ns)


def test_without_a_snapshot_a_book_of_rest_is_the_base():
    world, exchange = playing()
    exchange.has_snapshots = False
    stream = exchange.stream("books:BTC-USDT")
    assert exchange.snapshot(stream, 0, Now(world.now_ns, world.now_ns)) is None
    world.add(stream)
    for pause_s in (0.0, 0.35, 0.731):
        world.run(pause_s)
        book = KeptBook(Okx)
        book.begin(get(exchange, _At(world), "market/books", instId="BTC-USDT", sz="400", source="0"))
        world.run(0.5)
        applied = 0
        for _, text in world.seen:
            applied += book.apply(json.loads(text))
        assert applied >= 4
        window = stream.source
        assert book.update_id == window.sequence
        window.show_all()
        assert len(book.bids) == len(window.bids) == 400
        assert book.removed_unknown == 0
    exchange.has_snapshots = True
    assert exchange.snapshot(stream, 0, Now(world.now_ns, world.now_ns)) is not None


def test_an_update_that_is_lost_leaves_a_gap_that_the_next_message_shows():
    world, exchange = playing("books:BTC-USDT")
    book = KeptBook(Okx)
    book.begin(snapshot_of(world, exchange))
    world.broadcast.find("books:BTC-USDT").lost_messages = 1
    world.run(0.5)
    with pytest.raises(GapError):
        for _, text in world.seen:
            book.apply(json.loads(text))


def test_five_levels_come_whole_when_one_of_them_has_changed():
    world, exchange = playing("books5:BTC-USDT")
    instrument = exchange.by_symbol["BTC-USDT"]
    compared = 0
    for _ in range(1000):
        world.run(0.001)
        for row in data(world, "books5:BTC-USDT"):
            assert row.keys() == {"asks", "bids", "instId", "ts", "seqId"}
            assert tuple(
                [(Decimal(price), Decimal(size)) for price, size, _, _ in row[side]]
                for side in ("bids", "asks")
            ) == truth(instrument, 5)
            compared += 1
        world.seen.clear()
    assert 5 < compared <= 10
    first = snapshot_of(world, exchange, "books5:BTC-USDT")
    assert "action" not in first
    assert len(first["data"][0]["bids"]) == 5


# Swaps.


@pytest.mark.parametrize(
    ("symbol", "value", "lot"), [("BTC", "0.01", "0.001"), ("XRP", "10", "0.01"), ("MOONX", "100", "0.01")]
)
def test_a_swap_is_listed_in_contracts_of_so_many_coins(exchange, clock, symbol, value, lot):
    [row] = get(exchange, clock, "public/instruments", instType="SWAP", instId=f"{symbol}-USDT-SWAP")["data"]
    assert (row["ctVal"], row["ctMult"], row["ctValCcy"], row["ctType"]) == (value, "1", symbol, "linear")
    assert (row["baseCcy"], row["quoteCcy"], row["settleCcy"]) == ("", "", "USDT")
    assert row["uly"] == row["instFamily"] == f"{symbol}-USDT"
    assert row["lotSz"] == row["minSz"] == lot


def test_swaps_are_in_a_list_of_their_own_with_one_that_is_inverse(exchange, clock):
    rows = {row["instId"]: row for row in get(exchange, clock, "public/instruments", instType="SWAP")["data"]}
    assert rows.keys() == exchange.swaps.keys()
    assert {row["state"] for row in rows.values()} == {"live", "suspend", "preopen", "test"}
    inverse = rows["BTC-USD-SWAP"]
    assert (
        inverse["ctType"],
        inverse["ctVal"],
        inverse["ctValCcy"],
        inverse["settleCcy"],
        inverse["lotSz"],
    ) == (
        "inverse",
        "100",
        "USD",
        "BTC",
        "1",
    )
    tickers = {row["instId"]: row for row in get(exchange, clock, "market/tickers", instType="SWAP")["data"]}
    assert tickers.keys() == rows.keys()
    for symbol, ticker in tickers.items():
        if rows[symbol]["state"] == "live" and symbol != "BTC-USD-SWAP":
            coins = Decimal(ticker["vol24h"]) * Decimal(rows[symbol]["ctVal"])
            assert Decimal(ticker["volCcy24h"]) == coins, "contracts, and coins"
    money = Decimal(tickers["BTC-USD-SWAP"]["vol24h"]) * 100
    coins = money / Decimal(tickers["BTC-USD-SWAP"]["last"])
    assert abs(Decimal(tickers["BTC-USD-SWAP"]["volCcy24h"]) - coins) < Decimal("0.0002")
    of_family = get(exchange, clock, "public/instruments", instType="SWAP", instFamily="BTC-USDT")["data"]
    assert [row["instId"] for row in of_family] == ["BTC-USDT-SWAP"]


def test_trades_and_books_of_a_swap_are_in_contracts():
    world, exchange = playing("trades:BTC-USDT-SWAP", "books:BTC-USDT-SWAP", "bbo-tbt:BTC-USDT-SWAP")
    instrument = exchange.by_symbol["BTC-USDT-SWAP"]
    fills: list = []
    instrument.order_book().fill_logs.append(fills)
    book = KeptBook(Okx)
    book.begin(snapshot_of(world, exchange, "books:BTC-USDT-SWAP"))
    world.run(1.0)
    lots = {fill.trade_id: fill.size for fill in fills}
    rows = data(world, "trades:BTC-USDT-SWAP")
    assert rows
    for row in rows:
        last, count = int(row["tradeId"]), int(row["count"])
        assert Decimal(row["sz"]) == Decimal(sum(lots[n] for n in range(last - count + 1, last + 1))).scaleb(
            -3
        )
    for message in (json.loads(text) for _, text in world.seen):
        if topic_of(message) == "books:BTC-USDT-SWAP":
            book.apply(message)
    while book.update_id != instrument.update_id:
        world.seen.clear()
        world.run(0.001)
        for message in (json.loads(text) for _, text in world.seen):
            if topic_of(message) == "books:BTC-USDT-SWAP":
                book.apply(message)
    bids, asks = truth(instrument, 400)
    assert book.levels() == tuple([(price, size * 100) for price, size in side] for side in (bids, asks))


def test_mark_and_index_move_with_the_market_and_come_without_a_change_too():
    topics = ("mark-price:BTC-USDT-SWAP", "index-tickers:BTC-USDT")
    world, exchange = playing(*topics)
    instrument, spot = exchange.by_symbol["BTC-USDT-SWAP"], exchange.by_symbol["BTC-USDT"]
    for _ in range(2000):
        world.run(0.001)
        for row in data(world, topics[1]):
            assert row["idxPx"] == f"{Decimal(spot.last).scaleb(-1).normalize():f}"
            assert row.keys() == {
                *("instId", "idxPx", "high24h", "low24h", "open24h", "sodUtc0", "sodUtc8", "ts"),
            }
        for row in data(world, topics[0]):
            assert row.keys() == {"instType", "instId", "markPx", "ts"}
            low, high = sorted((instrument.ask, spot.last))
            assert low - 2 <= Decimal(row["markPx"]).scaleb(1) <= high + 2
        world.seen.clear()
    quiet, exchange = playing(
        "mark-price:XLM-USDT-SWAP",
        "index-tickers:XLM-USDT",
        "funding-rate:XLM-USDT-SWAP",
        "open-interest:XLM-USDT-SWAP",
        activity=Activity(busiest_per_s=1, busy_symbols=1, quietest_s=86_400),
    )
    quiet.run(121.0, tick_ms=50)
    counts = [len(data(quiet, topic)) for topic in quiet.broadcast.topics()]
    assert counts == [12, 2, 2, 0]


def test_funding_is_due_at_its_time_and_then_the_next_one_is(exchange, clock):
    symbol = "BTC-USDT-SWAP"

    def funding() -> dict:
        stream = exchange.stream(f"funding-rate:{symbol}")
        [row] = json.loads(exchange.snapshot(stream, 0, clock.now))["data"]
        [answer] = get(exchange, clock, "public/funding-rate", instId=symbol)["data"]
        assert row == answer
        return row

    before = funding()
    hours = (int(before["nextFundingTime"]) - int(before["fundingTime"])) / 3_600_000
    assert hours == 8
    assert int(before["fundingTime"]) % (8 * 3_600_000) == 0
    assert 0 < int(before["fundingTime"]) - clock.now.unix_ms <= 8 * 3_600_000
    assert (before["method"], before["nextFundingRate"]) == ("current_period", "")
    exchange.by_symbol[symbol].bid += 1000
    moved = funding()
    assert Decimal(moved["fundingRate"]) > Decimal(before["fundingRate"])
    left_s = (int(before["fundingTime"]) - clock.now.unix_ms) / 1000
    clock.pass_s(left_s - 1)
    assert funding()["fundingTime"] == before["fundingTime"]
    clock.pass_s(2)
    after = funding()
    assert after["fundingTime"] == before["nextFundingTime"]
    assert after["prevFundingTime"] == before["fundingTime"]
    assert after["settFundingRate"] == moved["fundingRate"]
    exchange.by_symbol[symbol].bid -= 1000
    assert funding()["settFundingRate"] == moved["fundingRate"], "what was paid stays"
    rows = get(exchange, clock, "public/funding-rate", instId="ANY")["data"]
    assert len({int(row["nextFundingTime"]) - int(row["fundingTime"]) for row in rows}) == 3
    assert get(exchange, clock, "public/funding-rate", status=400, instId="BTC-USDT")["code"] == "51000"


def test_open_interest_is_in_contracts_and_coins_and_moves_when_there_are_trades():
    world, exchange = playing("open-interest:BTC-USDT-SWAP", "trades:BTC-USDT-SWAP", activity=Activity())
    world.run(10.0, tick_ms=10)
    rows = data(world, "open-interest:BTC-USDT-SWAP")
    assert 2 <= len(rows) <= 4
    assert len({row["oi"] for row in rows}) == len(rows)
    for row in rows:
        assert Decimal(row["oi"]) * Decimal("0.01") == Decimal(row["oiCcy"]) > 0
        assert Decimal(row["oiUsd"]) > Decimal(row["oiCcy"])
    answer = get(exchange, _At(world), "public/open-interest", instType="SWAP", instId="BTC-USDT-SWAP")[
        "data"
    ]
    assert [row.keys() for row in answer] == [rows[0].keys()]


def test_values_of_all_contracts_are_there_in_one_answer(exchange, clock):
    trading = {symbol for symbol, swap in exchange.swaps.items() if swap.contract.listing.is_trading}
    for path in ("mark-price", "open-interest"):
        rows = get(exchange, clock, f"public/{path}", instType="SWAP")["data"]
        assert {row["instId"] for row in rows} == trading
    rows = get(exchange, clock, "market/index-tickers", quoteCcy="USDT")["data"]
    assert {row["instId"] for row in rows} == {symbol.removesuffix("-SWAP") for symbol in exchange.swaps} - {
        "BTC-USD"
    }
    assert get(exchange, clock, "market/index-tickers", status=400)["code"] == "50014"


def test_liquidations_are_of_all_contracts_and_of_each_at_most_one_a_second():
    world, exchange = playing()
    stream = exchange.stream("liquidation-orders:SWAP")
    assert exchange.snapshot(stream, 0, Now(0, 0)) is None
    world.add(stream)
    world.run(5.0, tick_ms=5)
    found = [json.loads(text) for _, text in world.seen]
    assert all(message["arg"] == {"channel": "liquidation-orders", "instType": "SWAP"} for message in found)
    rows = [row for message in found for row in message["data"]]
    assert len({row["instId"] for row in rows}) > 10
    times: dict[str, int] = {}
    sides = set()
    for row in rows:
        [details] = row["details"]
        assert row["instFamily"] == row["uly"] == row["instId"].removesuffix("-SWAP")
        assert int(details["ts"]) - times.get(row["instId"], 0) >= 1000
        times[row["instId"]] = int(details["ts"])
        assert Decimal(details["bkPx"]) > 0
        assert Decimal(details["sz"]) > 0
        sides.add((details["side"], details["posSide"]))
    assert sides == {("sell", "long"), ("buy", "short"), ("sell", "net"), ("buy", "net")}


def test_a_subscription_to_liquidations_is_of_a_type_whatever_else_it_names(dialog, clock):
    wanted = {"channel": "liquidation-orders", "instType": "SWAP"}
    reply = subscribe(dialog, clock, wanted | {"instId": "BTC-USDT-SWAP"})
    assert only(reply)["arg"] == wanted
    assert reply.subscribe == ["liquidation-orders:SWAP"]
    refused = subscribe(dialog, clock, {"channel": "liquidation-orders", "instId": "BTC-USDT-SWAP"})
    assert only(refused)["code"] == "60018"


@pytest.mark.parametrize("channel", ["mark-price", "funding-rate", "open-interest"])
def test_what_belongs_to_contracts_is_refused_for_a_pair(dialog, clock, channel):
    reply = subscribe(
        dialog, clock, *({"channel": channel, "instId": each} for each in ("BTC-USDT", "BTC-USDT-SWAP"))
    )
    assert [json.loads(text)["event"] for text in reply.texts] == ["error", "subscribe"]
    index = subscribe(
        dialog,
        clock,
        *({"channel": "index-tickers", "instId": each} for each in ("BTC-USDT", "BTC-USDT-SWAP")),
    )
    assert [json.loads(text)["event"] for text in index.texts] == ["subscribe", "error"]


def test_swaps_over_the_wire():
    async def scenario() -> None:
        for rate in (0, 1000):
            async with running("okx", messages_per_s=rate) as client:
                ws = await client.connect()
                args = [
                    {"channel": channel, "instId": "BTC-USDT-SWAP"}
                    for channel in ("tickers", "bbo-tbt", "trades", "books", "mark-price", "funding-rate")
                ]
                args.append({"channel": "liquidation-orders", "instType": "SWAP"})
                await ws.send_json({"op": "subscribe", "args": args})
                wanted = {each["channel"] for each in args}
                while wanted:
                    message = await until(ws, lambda message: "data" in message)
                    wanted.discard(message["arg"]["channel"])
                await client.fault(fault="mute_symbol", symbol="BTC-USDT-SWAP")
                await client.fault(fault="garbage", count=8)
                assert (await client.state())["violations"] == []

    run(scenario())


# Requests.


def test_ping_is_a_text(dialog, clock):
    assert dialog.on_text("ping", clock.now) == Reply(texts=[b"pong"])
    refused = dialog.on_text('{"op":"ping"}', clock.now)
    assert only(refused)["code"] == "60019"
    assert refused.violation


def test_each_channel_is_acknowledged_under_the_requests_id(dialog, clock):
    reply = subscribe(dialog, clock, BTC, {"channel": "books", "instId": "BTC-USDT", "extra": 1})
    answers = [json.loads(text) for text in reply.texts]
    connection = answers[0].pop("connId")
    assert answers[0] == {"id": "a1", "event": "subscribe", "arg": BTC}
    assert answers[1].pop("connId") == connection
    assert answers[1]["arg"] == {"channel": "books", "instId": "BTC-USDT"}
    assert reply.subscribe == ["tickers:BTC-USDT", "books:BTC-USDT"]
    assert not reply.violation
    again = ask(dialog, clock, op="subscribe", args=[BTC])
    assert only(again) == {"event": "subscribe", "arg": BTC, "connId": connection}
    assert again.subscribe == [], "its data are not doubled"
    left = ask(dialog, clock, op="unsubscribe", args=[BTC, ETH])
    assert [json.loads(text)["event"] for text in left.texts] == ["unsubscribe"] * 2
    assert left.unsubscribe == ["tickers:BTC-USDT"]
    assert list(dialog.topics) == ["books:BTC-USDT"]


REFUSALS = [
    ({"channel": "books", "instId": "NOPE-USDT"}, "60018"),
    ({"channel": "tickers", "instId": "btc-usdt"}, "60018"),
    ({"channel": "ticker", "instId": "BTC-USDT"}, "60018"),
    ({"channel": "books-l2-tbt", "instId": "BTC-USDT"}, "60011"),
    ({"channel": "trades-all", "instId": "BTC-USDT"}, "64001"),
    ({"channel": "candle1m", "instId": "BTC-USDT"}, "64001"),
    ({"channel": "tickers"}, "60013"),
    ("tickers", "60013"),
]


@pytest.mark.parametrize(("arg", "code"), REFUSALS)
def test_a_channel_that_is_refused_does_not_concern_the_others(dialog, clock, arg, code):
    reply = subscribe(dialog, clock, BTC, arg, ETH)
    answers = [json.loads(text) for text in reply.texts]
    assert [each["event"] for each in answers] == ["subscribe", "error", "subscribe"]
    assert (answers[1]["code"], answers[1]["id"], "arg" in answers[1]) == (code, "a1", False)
    assert reply.subscribe == ["tickers:BTC-USDT", "tickers:ETH-USDT"]
    assert reply.violation
    assert reply.close is None


def test_a_symbol_that_we_refuse_is_no_fault_of_the_client(exchange, dialog, clock):
    exchange.rejected_symbols.add("BTC-USDT")
    reply = subscribe(dialog, clock, BTC, ETH)
    assert "instId:BTC-USDT" in json.loads(reply.texts[0])["msg"]
    assert (reply.subscribe, reply.violation) == (["tickers:ETH-USDT"], "")


@pytest.mark.parametrize("symbol", ["HALTED-USDT", "SOONER-USDT"])
def test_what_is_listed_and_does_not_trade_is_acknowledged_and_silent(exchange, dialog, clock, symbol):
    reply = subscribe(dialog, clock, {"channel": "trades", "instId": symbol})
    assert only(reply)["event"] == "subscribe"
    assert exchange.stream(f"trades:{symbol}") is None


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "60012"),
        ("hello", "60012"),
        ('{"op":"sub","args":[]}', "60019"),
        ('{"op":"subscribe"}', "60013"),
        ('{"op":"subscribe","args":[]}', "60013"),
        ('{"id":"a-1","op":"subscribe","args":[{"channel":"tickers","instId":"BTC-USDT"}]}', "60033"),
        ('{"id":1,"op":"subscribe","args":[{"channel":"tickers","instId":"BTC-USDT"}]}', "60033"),
        ('{"id":"%s","op":"unsubscribe","args":[]}' % ("x" * 33), "60033"),
    ],
)
def test_nonsense_is_refused_and_the_connection_stays(dialog, clock, text, code):
    reply = dialog.on_text(text, clock.now)
    assert (only(reply)["event"], only(reply)["code"]) == ("error", code)
    assert reply.subscribe == []
    assert reply.close is None
    assert reply.violation


def test_a_request_of_more_than_64_kb_is_the_end(dialog, clock):
    args = [{"channel": "books", "instId": f"A{number}-USDT"} for number in range(1500)]
    reply = subscribe(dialog, clock, *args)
    assert reply.close is not None
    assert reply.close.code == 1009
    assert reply.violation


def test_an_hour_has_480_requests_whatever_is_in_them(dialog, clock):
    for number in range(480):
        operation = "unsubscribe" if number % 2 else "subscribe"
        assert not ask(dialog, clock, op=operation, args=[BTC, ETH]).violation
        clock.pass_s(1)
    for _ in range(2):
        reply = ask(dialog, clock, op="subscribe", args=[BTC])
        assert only(reply)["code"] == "60014"
        assert reply.violation
    assert not dialog.topics
    clock.pass_s(3600)
    assert not ask(dialog, clock, op="subscribe", args=[BTC]).violation


# Life.


def test_neither_data_nor_a_ping_for_30_s_is_the_end(dialog, clock):
    assert dialog.on_tick(clock.pass_s(30)).close is None
    reply = dialog.on_tick(clock.pass_s(1))
    assert (reply.close.code, bool(reply.violation)) == (4004, True)


def test_a_push_a_ping_or_a_subscription_keeps_it(dialog, clock):
    for _ in range(10):
        dialog.on_text("ping", clock.pass_s(25))
        assert dialog.on_tick(clock.pass_s(4)).close is None
    subscribe(dialog, clock, BTC)
    for _ in range(10):
        dialog.pushed += 1
        assert dialog.on_tick(clock.pass_s(29)).close is None
    assert dialog.on_tick(clock.pass_s(31)).close.code == 4004, "no data"


def test_other_paths_are_not_here(exchange, clock):
    for path in ("/ws/v5/business", "/ws/v5/private", "/"):
        answer = exchange.accept(HttpRequest(method="GET", path=path, remote=path), clock.now)
        assert (type(answer), answer.status) == (HttpAnswer, 404)


def test_a_second_has_three_new_connections_of_one_address(exchange, clock):
    assert [type(exchange.accept(PUBLIC, clock.now)) for _ in range(3)] == [OkxDialog] * 3
    refused = exchange.accept(PUBLIC, clock.now)
    assert isinstance(refused, HttpAnswer)
    assert refused.violation
    assert isinstance(exchange.accept(PUBLIC, clock.pass_s(1.1)), OkxDialog)


def test_a_close_that_is_planned_is_announced():
    async def scenario() -> None:
        async with running("okx") as client:
            ws = await client.connect()
            await client.subscribe(ws)
            await client.fault(fault="server_shutdown", seconds=0.1)
            notice = await until(ws, lambda message: message.get("event") == "notice")
            assert (notice["code"], len(notice["connId"])) == ("64008", 8)
            assert (await end_of(ws)).data == 1001

    run(scenario())


def test_a_client_that_is_silent_on_a_quiet_channel_is_cut_off_with_4004():
    async def scenario() -> None:
        quiet = Activity(busiest_per_s=1, busy_symbols=1, quietest_s=86_400)
        rules = OkxRules(silence_s=0.3)
        async with running("okx", rules, messages_per_s=0, activity=quiet) as client:
            ws = await client.connect()
            await client.subscribe(ws, "XLM")
            end = await end_of(ws)
            assert (end.data, end.extra) == (4004, "No data received in 30s.")
            assert (await client.state())["violations_total"] == 1

    run(scenario())


def test_books_can_be_made_to_begin_without_a_snapshot():
    async def scenario() -> None:
        async with running("okx") as client:
            await client.fault(fault="no_snapshots", seconds=3600)
            ws = await client.connect()
            args = [{"channel": "books", "instId": "BTC-USDT"}]
            await ws.send_json({"op": "subscribe", "args": args})
            first = await until(ws, lambda message: "action" in message)
            assert first["action"] == "update"
            await client.fault(fault="none")
            await ws.send_json({"op": "unsubscribe", "args": args})
            await ws.send_json({"op": "subscribe", "args": args})
            await until(ws, lambda message: message.get("action") == "snapshot")
            assert (await client.state())["violations"] == []

    run(scenario())


def test_the_count_of_a_book_can_be_made_to_begin_anew():
    async def scenario() -> None:
        async with running("okx") as client:
            ws = await client.connect()
            await ws.send_json({"op": "subscribe", "args": [{"channel": "books", "instId": "BTC-USDT"}]})
            await until(ws, lambda message: message.get("action") == "update")
            await client.fault(fault="restart_books", symbol="BTC-USDT")
            reset = await until(
                ws, lambda message: message.get("action") == "update" and message["data"][0]["seqId"] == 1
            )
            assert reset["data"][0]["prevSeqId"] > 1
            assert (await client.state())["fault_effects"]["restart_books"] == 1

    run(scenario())


# REST.


def test_time(exchange, clock):
    assert get(exchange, clock, "public/time") == {
        "code": "0",
        "msg": "",
        "data": [{"ts": str(clock.now.unix_ms)}],
    }


def test_instruments_have_states_and_texts(exchange, clock):
    rows = get(exchange, clock, "public/instruments", instType="SPOT")["data"]
    by_id = {row["instId"]: row for row in rows}
    assert len(by_id) == len(exchange.instruments) - len(exchange.swaps)
    assert {row["state"] for row in rows} == {"live", "suspend", "preopen", "test"}
    btc = by_id["BTC-USDT"]
    assert (btc["baseCcy"], btc["quoteCcy"], btc["ctVal"], btc["settleCcy"]) == ("BTC", "USDT", "", "")
    assert (Decimal(btc["tickSz"]), Decimal(btc["lotSz"])) == (Decimal("0.1"), Decimal("0.00001"))
    assert int(by_id["SOONER-USDT"]["listTime"]) > clock.now.unix_ms > int(btc["listTime"])
    [one] = get(exchange, clock, "public/instruments", instType="SPOT", instId="BTC-USDT")["data"]
    assert one == btc
    assert get(exchange, clock, "public/instruments", instType="SPOT", instId="NOPE")["code"] == "51001"
    assert get(exchange, clock, "public/instruments", status=400)["code"] == "50014"
    assert get(exchange, clock, "public/instruments", status=400, instType="spot")["code"] == "51000"
    assert get(exchange, clock, "public/instruments", instType="OPTION")["data"] == []


def test_tickers_of_all_are_there_and_the_dead_have_texts_that_are_empty(exchange, clock):
    rows = {row["instId"]: row for row in get(exchange, clock, "market/tickers", instType="SPOT")["data"]}
    assert len(rows) == len(exchange.instruments) - len(exchange.swaps)
    assert (rows["HALTED-USDT"]["bidPx"], rows["HALTED-USDT"]["askSz"]) == ("", "")
    assert Decimal(rows["HALTED-USDT"]["last"]) > 0
    assert (rows["SOONER-USDT"]["last"], rows["SOONER-USDT"]["vol24h"]) == ("", "0")


def test_a_book_of_rest_has_its_id_for_who_names_the_source(exchange, clock):
    for query in ({}, {"source": "1"}):
        [row] = get(exchange, clock, "market/books", instId="BTC-USDT", **query)["data"]
        assert row.keys() == {"asks", "bids", "ts"}
        assert len(row["asks"]) == len(row["bids"]) == 1
    [row] = get(exchange, clock, "market/books", instId="BTC-USDT", sz="400", source="0")["data"]
    assert len(row["asks"]) == 400
    assert row["seqId"] == exchange.by_symbol["BTC-USDT"].update_id
    assert get(exchange, clock, "market/books", status=400, instId="BTC-USDT", sz="401")["code"] == "51000"
    assert get(exchange, clock, "market/books", instId="NOPE-USDT")["code"] == "51001"


def test_trades_of_rest_are_one_by_one_and_go_back_by_id(exchange, clock):
    instrument = exchange.by_symbol["BTC-USDT"]
    instrument.burst(700, clock.now.unix_ns)
    newest = get(exchange, clock, "market/trades", instId="BTC-USDT", limit="500")["data"]
    ids = [int(row["tradeId"]) for row in newest]
    assert ids == list(range(instrument.trade_id, instrument.trade_id - 500, -1))
    assert newest[0].keys() == {"instId", "tradeId", "px", "sz", "side", "ts", "source"}
    assert len(get(exchange, clock, "market/trades", instId="BTC-USDT")["data"]) == 100
    page = get(exchange, clock, "market/history-trades", instId="BTC-USDT", after=str(ids[-1]))["data"]
    assert [int(row["tradeId"]) for row in page] == list(range(ids[-1] - 1, ids[-1] - 101, -1))
    newer = get(exchange, clock, "market/history-trades", instId="BTC-USDT", before=str(ids[3]), limit="2")[
        "data"
    ]
    assert newer == newest[:2]
    wrong = get(exchange, clock, "market/history-trades", status=400, instId="BTC-USDT", after="x")
    assert wrong["code"] == "51000"


def test_requests_are_counted_by_path_and_address_in_two_seconds(exchange, clock):
    for _ in range(20):
        get(exchange, clock, "market/tickers", instType="SPOT")
    assert get(exchange, clock, "market/tickers", status=429, instType="SPOT")["code"] == "50011"
    get(exchange, clock, "market/ticker", instId="BTC-USDT")
    other = HttpRequest(
        method="GET", path="/api/v5/market/tickers", remote="other", query=[("instType", "SPOT")]
    )
    assert exchange.rest(other, clock.now).status == 200
    clock.pass_s(2)
    get(exchange, clock, "market/tickers", instType="SPOT")


def test_unknown_paths_and_methods_are_refused(exchange, clock):
    assert get(exchange, clock, "market/nonsense", status=404)["data"] == []
    post = HttpRequest(method="POST", path="/api/v5/public/time", remote="rest")
    assert exchange.rest(post, clock.now).status == 405


# Recordings.


def test_a_recorded_book_is_kept_as_one_snapshot():
    world, exchange = playing()
    first = snapshot_of(world, exchange)
    world.add(exchange.stream("books:BTC-USDT"))
    world.run(1.0)
    reading = OkxReading()
    keeper = reading.keeper("books:BTC-USDT")
    assert keeper.show() is None
    for payload in (json.dumps(first).encode(), *(text.encode() for _, text in world.seen)):
        assert reading.topic_of(payload) == "books:BTC-USDT"
        keeper.take(payload)
    shown = json.loads(keeper.show())
    stream = world.broadcast.find("books:BTC-USDT")
    live = json.loads(exchange.snapshot(stream, 0, Now(world.now_ns, world.now_ns)))
    for message in (shown, live):
        message["data"][0].pop("ts")
    assert shown == live
    keeper.take(b"{")
    assert keeper.show() is None
    assert reading.split("books:BTC-USDT") == ("books", "BTC-USDT")


def test_an_acknowledgement_is_of_no_topic():
    reading = OkxReading()
    assert reading.topic_of(b'{"event":"subscribe","arg":{"channel":"books","instId":"BTC-USDT"}}') == ""
    assert reading.topic_of(b"pong") == ""
    row = b'{"arg":{"channel":"liquidation-orders","instType":"SWAP"},"data":[]}'
    assert reading.topic_of(row) == "liquidation-orders:SWAP"
