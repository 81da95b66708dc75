"""What was wrong with data in the last day: differences of totals, and flags at each look."""

import asyncio

import msgspec
from desk import make
from msgspec.structs import replace
from test_events import START_NS, connection, feed, status

from feedhandler.data import wire
from feedhandler.data.instruments import InstrumentList, InstrumentRow
from feedhandler.data.units import NS_PER_S
from feedhandler.gateway import hours as quality
from feedhandler.gateway.hours import HOUR_NS, HOURS_MAX, Hours, is_of_a_symbol

HOUR = START_NS - START_NS % HOUR_NS
SYMBOLS = {"BTCUSDT": "BTC/USDT"}
BOOK = "book.x.BTC/USDT"


def counted(*statuses):
    """The row of the hour in which these statuses came, a second apart."""
    hours = Hours()
    for second, each in enumerate(statuses):
        hours.on_status(each, SYMBOLS, HOUR + second * NS_PER_S)
    return hours.table(HOUR)


def test_what_was_counted_before_the_gateway_began_is_not_of_this_hour():
    table = counted(status(hop_lost=7, feed=feed(connection(connects=9, frames=100, duplicate=50))))
    (row,) = table.exchanges
    assert (row.lost_records, row.reconnects, row.frames, row.duplicates) == (0, 0, 0, 0)


def test_differences_of_totals_are_added_up():
    first = feed(connection(frames=100, duplicate=50, late=1), recovered_trades=2)
    then = feed(connection(frames=130, duplicate=60, late=3, decode_errors=2, connects=2), recovered_trades=5)
    (row,) = counted(
        status(feed=first), status(feed=then, hop_lost=4), status(feed=then, hop_lost=4)
    ).exchanges
    assert (row.frames, row.duplicates, row.late, row.undecodable) == (30, 10, 2, 2)
    assert (row.reconnects, row.recovered_trades, row.lost_records) == (1, 3, 4)


def test_a_connection_that_counts_anew_has_brought_what_it_says():
    two = [connection(leg=0, frames=100), connection(leg=1, frames=100)]
    then = [connection(leg=0, frames=7), connection(leg=1, frames=110)]
    (row,) = counted(status(feed=feed(*two)), status(feed=feed(*then))).exchanges
    assert row.frames == 17


def test_a_feed_that_was_started_anew_counts_from_nothing():
    new = replace(feed(connection(frames=5), recovered_trades=1), pid=2)
    (row,) = counted(
        status(feed=feed(connection(frames=100), recovered_trades=9)), status(feed=new)
    ).exchanges
    assert (row.feed_starts, row.frames, row.recovered_trades, row.reconnects) == (1, 5, 1, 0)


def test_lost_trades_are_of_symbols_as_subscribers_know_them():
    topic = "trade.x.BTCUSDT"
    steps = [{}, {topic: 3}, {topic: 5}, {topic: 5}]
    table = counted(*(status(feed=feed(lost_trades=each)) for each in steps))
    assert table.exchanges[0].lost_trades == 5
    (row,) = table.symbols
    assert (row.symbol, row.kind, row.lost_trades) == ("BTC/USDT", "trade", 5)


def test_trades_of_which_nobody_knows_how_many_were_lost_are_told_apart():
    topic = "trade.x.ETHUSDT"
    table = counted(*(status(feed=feed(lost_trades=each)) for each in ({}, {topic: -1}, {topic: -1})))
    assert (table.exchanges[0].lost_trades, table.exchanges[0].some_trades_lost) == (0, 1)
    assert [(row.symbol, row.lost_trades) for row in table.symbols] == [("ETHUSDT", -1)]


def looked(*looks):
    """The table after looks, a second apart: each is the exchange's state and flags by topic."""
    hours = Hours()
    for second, (state, flags) in enumerate(looks):
        hours.look({"x": state}, flags.items(), HOUR + second * NS_PER_S)
    return hours.table(HOUR + len(looks) * NS_PER_S)


def test_states_and_flags_last_from_look_to_look():
    table = looked(
        ("live", {}),
        ("live", {BOOK: wire.INVALID, "ticker.x.BTC/USDT": 0}),
        ("down", {BOOK: wire.INVALID | wire.DOWN}),
        ("live", {BOOK: 0}),
        ("live", {BOOK: wire.INVALID}),
        ("stale", {"ticker.x.BTC/USDT": wire.STALE}),
    )
    (hour,) = table.exchanges
    assert hour.seconds == {"live": 3.0, "down": 1.0, "stale": 1.0}
    book, ticker = table.symbols
    assert (book.kind, book.invalid_s, book.down_s, book.stale_s, book.times_invalid) == (
        "book",
        3.0,
        1.0,
        0.0,
        2,
    )
    assert (ticker.kind, ticker.stale_s) == ("ticker", 1.0)
    assert table.since_ns == HOUR


def test_a_pause_in_looking_is_of_no_state():
    hours = Hours()
    for second in (0, 1, 60, 61):
        hours.look({"x": "live"}, (), HOUR + second * NS_PER_S)
    assert hours.table(HOUR).exchanges[0].seconds == {"live": 2.0}


def test_a_day_is_kept_and_no_more():
    hours = Hours()
    for hour in range(30):
        now_ns = HOUR + hour * HOUR_NS
        hours.look({"x": "live"}, [(BOOK, wire.DOWN)], now_ns)
    table = hours.table(now_ns)
    assert len(table.exchanges) == len(table.symbols) == HOURS_MAX
    assert table.exchanges[0].hour_ns == now_ns, "the newest first"


def test_symbols_are_bounded_and_those_left_out_counted(monkeypatch):
    monkeypatch.setattr(quality, "SYMBOLS_MAX", 3)
    hours = Hours()
    hours.look({}, [(f"book.x.S{n}/USDT", wire.DOWN) for n in range(5)], HOUR)
    table = hours.table(HOUR)
    assert ([row.symbol for row in table.symbols], table.left_out) == (["S2/USDT", "S3/USDT", "S4/USDT"], 2)


def numbered(*looks):
    """Hours after looks of session, second and numbers."""
    hours = Hours()
    for session, second, numbers in looks:
        hours.on_numbers(session, numbers.items(), HOUR + second * NS_PER_S)
    return hours


def test_records_are_counted_by_the_numbers_of_their_topics():
    hours = numbered(
        (1, 0, {BOOK: 100}),
        (1, 1, {BOOK: 103, "trade.x.BTC/USDT": 2000}),
        (1, 2, {BOOK: 103, "trade.x.BTC/USDT": 2002}),
        (1, 3600, {BOOK: 110, "trade.x.BTC/USDT": 2002}),
        (2, 3601, {BOOK: 4}),
        (2, 3602, {BOOK: 5, "trade.x.BTC/USDT": 1}),
    )
    rows = hours.table(HOUR, exchange="x").symbols
    assert [(row.hour_ns - HOUR, row.kind, row.records) for row in rows] == [
        (HOUR_NS, "book", 12),
        (HOUR_NS, "trade", 1),
        (0, "book", 3),
        (0, "trade", 2),
    ]
    assert not hours.table(HOUR).symbols, "nothing was wrong with them"
    hours.look({}, [(BOOK, wire.INVALID)], HOUR)
    assert [(row.kind, row.records, row.times_invalid) for row in hours.table(HOUR).symbols] == [
        ("book", 3, 1)
    ]
    assert {row.kind for row in hours.table(HOUR, symbol="BTC/USDT").symbols} == {"book", "trade"}
    assert not hours.table(HOUR, symbol="ETH/USDT").symbols


def test_counted_topics_are_bounded_and_a_day_is_kept(monkeypatch):
    monkeypatch.setattr(quality, "TOPICS_MAX", 2)
    day = 24 * 3600
    hours = numbered((1, 0, {}), (2, 1, {f"trade.x.{n}/USDT": 1 for n in range(3)}))
    assert len(hours.table(HOUR, exchange="x").symbols) == 2
    hours.on_numbers(2, [("trade.x.0/USDT", 5)], HOUR + day * NS_PER_S)
    hours.look({"x": "live"}, [], HOUR + day * NS_PER_S)
    assert [row.records for row in hours.table(HOUR, exchange="x").symbols] == [4]


def test_one_exchange_or_symbol_may_be_asked_for():
    hours = Hours()
    flags = [("book.x.A/B", wire.DOWN), ("book.y.A/B", wire.DOWN), ("book.y.C/D", wire.DOWN)]
    hours.look({"x": "live", "y": "live"}, flags, HOUR)
    assert len(hours.table(HOUR, "y").symbols) == 2
    assert [row.exchange for row in hours.table(HOUR, "y").exchanges] == ["y"]
    assert [(row.exchange, row.symbol) for row in hours.table(HOUR, None, "A/B").symbols] == [
        ("x", "A/B"),
        ("y", "A/B"),
    ]


def test_documents_are_of_no_symbol():
    assert is_of_a_symbol("trade.binance.BTC/USDT")
    assert not is_of_a_symbol("status.binance")
    assert not is_of_a_symbol("heartbeat")


def test_symbols_of_an_exchange_are_known_by_native(tmp_path):
    async def main():
        parts, _ = make(tmp_path)
        row = InstrumentRow(native="BTCUSDT", symbol="BTC/USDT", base="BTC", quote="USDT", trading=True)
        listing = InstrumentList("binance", 1, [row])
        document = wire.Document(
            wire.topic(wire.INSTRUMENTS, "binance"),
            kind=wire.INSTRUMENTS,
            body=msgspec.json.encode(listing),
        )
        parts.market_data._take(document)
        assert parts.market_data.symbols_of("binance") == {"BTCUSDT": "BTC/USDT"}
        assert parts.market_data.symbols_of("bybit") == {}
        await parts.accounts.close()
        parts.market_data.close()

    asyncio.run(main())
