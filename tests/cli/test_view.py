"""What people see in a terminal."""

from types import SimpleNamespace

import msgspec
import pytest
from rich.console import Console

from feedhandler.cli import view
from feedhandler.cli.view import Watch, plain, status_table
from feedhandler.data import wire
from feedhandler.data.instruments import Instrument, instrument_list
from feedhandler.data.status import ExchangeStatus, FeedStatus, ShardStatus

FEED = FeedStatus(exchange="x", pid=0, started_ns=0, starting="connecting, attempt 1")


def rows(status):
    return [line.split() for line in plain(status_table({"x": status}, 10**9)).splitlines()[1:]]


def test_an_exchange_that_one_process_has_is_one_line():
    status = ExchangeStatus(exchange="x", state="connecting", since_ns=0, feed=FEED)
    assert [row[:4] for row in rows(status)] == [["x", "connecting", "1.0", "s"]]


def test_each_shard_has_a_line_under_its_exchange_with_what_is_wrong_with_it():
    status = ExchangeStatus(exchange="x", state="down", since_ns=0, reason="silent: shard 2/2", feed=FEED)
    status.shards = [
        ShardStatus(shard="1/2", pid=1, state="live", topics=1400, records_per_s=1234.0),
        ShardStatus(shard="2/2", pid=2, state="down", reason="feed process is silent"),
    ]
    first, *shards = rows(status)
    assert " ".join(first).endswith("silent: shard 2/2; the others: connecting, attempt 1")
    assert shards == [
        ["1/2", "live", "1400", "1,234"],
        ["2/2", "down", "0", "0", "feed", "process", "is", "silent"],
    ]


def test_the_rate_of_a_summary_counts_from_the_first_data_of_each_exchange(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(view.time, "monotonic", lambda: clock.now)
    watch = Watch(["x", "y", "silent"])
    for clock.now, exchange, count in ((9.0, "x", 20), (17.0, "y", 20)):
        for _ in range(count):
            watch.take(wire.Ticker(wire.topic(wire.TICKER, exchange, "BTC/USDT")))
    clock.now = 19.0
    title, heads, *lines = plain(watch.summary(SimpleNamespace(losses={}))).splitlines()
    assert title.startswith("10 s since the first data; ")
    assert heads.split() == ["x", "y", "silent"]
    assert [line.split() for line in lines[:3]] == [
        ["symbols", "0", "0", "0"],
        ["tickers", "20", "20", "0"],
        ["records/s", "2", "10", "-"],
    ]


def test_a_summary_fits_a_terminal_and_counts_nothing_from_data_that_never_came(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(view.time, "monotonic", lambda: clock.now)
    watch = Watch(["x"])
    assert plain(watch.summary(SimpleNamespace(losses={}))).splitlines()[0].strip() == "no data came"
    watch.take(wire.Ticker(wire.topic(wire.TICKER, "x", "BTC/USDT")))
    clock.now = 86_400.0
    title = "86400 s since the first data; latency: receipt to publication"
    assert plain(watch.summary(SimpleNamespace(losses={}))).splitlines()[0].strip() == title
    watch = Watch([f"exchange{n}" for n in range(5)])
    watch.others["exchange0"] = dict.fromkeys(wire.KIND_NAMES.values(), 1_000_000)
    assert max(map(len, plain(watch.summary(SimpleNamespace(losses={}))).splitlines())) <= 80


WIDE = {"last": 104123.4, "bid": 104123.3, "ask": 104123.5, "open_24h": 100000.0}
SMALL = {"last": 2.5, "bid": 2.49999, "ask": 2.5, "open_24h": 2.6}
BASE_FLAGS = wire.SIMULATED


def picture(width, *, flags=0, height=30):
    """The lines of a live picture of three exchanges with a dear and a cheap instrument each."""
    watch = Watch(["binance", "kucoin", "bybit"])
    now_ns = view.time.time_ns()
    for exchange in watch.exchanges:
        rows = [
            Instrument("B", "BTC", "USDT", tick="0.1"),
            Instrument("S", "1000SATS", "USDT", tick="0.00001"),
        ]
        body = msgspec.json.encode(instrument_list(exchange, 1, rows))
        watch.take(wire.Document(wire.topic(wire.INSTRUMENTS, exchange), kind=wire.INSTRUMENTS, body=body))
        status = ExchangeStatus(
            exchange=exchange, state="live", since_ns=0, records_per_s=1234.5, reason="x" * 200
        )
        body = msgspec.json.encode(status)
        watch.take(wire.Document(wire.topic(wire.STATUS, exchange), kind=wire.STATUS, body=body))
        for symbol, values in (("BTC/USDT", WIDE), ("1000SATS/USDT", SMALL)):
            topic = wire.topic(wire.TICKER, exchange, symbol)
            watch.take(
                wire.Ticker(topic, recv_ns=now_ns, publish_ns=now_ns, flags=BASE_FLAGS | flags, **values)
            )
    console = Console(width=width, height=height, color_system=None)
    with console.capture() as capture:
        console.print(watch.picture(20, width))
    return capture.get().splitlines()


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("flags", [0, wire.STALE, wire.DOWN | wire.BAD_EXCHANGE_TIME])
def test_the_live_picture_fits_and_cuts_neither_symbol_nor_price(width, flags):
    lines = picture(width, flags=flags)
    assert max(map(len, lines)) <= width
    cheap = [line.split("1000SATS/USDT")[1].split() for line in lines if "1000SATS/USDT" in line]
    assert [row[:3] for row in cheap] == [["2.50000", "2.49999", "2.50000"]] * 3
    assert sum("104123.4" in line and "104123.3" in line and "104123.5" in line for line in lines) == 3


def test_that_data_are_simulated_or_of_a_recording_is_said_once_above():
    lines = picture(80)
    assert lines[0] == "SIMULATED data, of no real exchange: binance, bybit, kucoin"
    assert sum("SIMULATED" in line for line in lines) == 1
    lines = picture(80, flags=wire.REPLAY)
    assert lines[0] == "REPLAY of a recording, nothing of now: binance, bybit, kucoin"
    assert sum("REPLAY" in line for line in lines) == 1


def test_a_wide_terminal_has_all_columns_and_a_narrow_one_the_flags_all_the_same():
    assert picture(140)[1].split() == [
        "exchange",
        "symbol",
        "last",
        "bid",
        "ask",
        "24",
        "h",
        "age",
        "latency",
    ]
    narrow = picture(80, flags=wire.STALE)
    assert sum("STALE" in line for line in narrow) == 6


def test_prices_have_the_decimals_of_their_tick_and_as_many_as_they_have_where_none_is_known():
    assert view.price(2.5, 5) == "2.50000"
    assert view.price(100.0, 0) == "100"
    assert view.price(2.5, None) == "2.5"
    assert view.price(float("nan"), 2) == "-"


def test_what_is_missing_in_a_shown_stream_is_said_before_the_record_that_follows():
    gaps = view.Gaps()

    def line(sequence, topic="ticker.x.A/B", session=1):
        return gaps.line(wire.Ticker(topic, session=session, sequence=sequence))

    assert line(5) == line(6) == line(3, "ticker.x.C/D") == ""
    assert line(8) == "gap: 1 record is missing before ticker.x.A/B #8"
    assert line(9) == ""
    assert line(6, "ticker.x.C/D") == "gap: 2 records are missing before ticker.x.C/D #6"
    assert line(20, session=2) == "", "what came before it is not known"
    assert line(20, session=2) == "", "the last value again"
    assert line(21, session=2) == ""


def test_a_trade_is_a_line_with_its_side_as_a_word():
    trade = wire.Trade("trade.x.A/B", price=97421.5, size=0.012, side=2, trade_id="17", recv_ns=10**9)
    trade.publish_ns = 10**9 + 55_000
    record = wire.unpack(wire.pack(trade))
    assert view.record_line(record).endswith("trade.x.A/B #0 sell 0.012 at 97421.5, id 17 55 us")
    row = msgspec.json.decode(view.record_json(record))
    assert (row["kind"], row["side"], row["price"], row["trade_id"]) == ("trade", "sell", 97421.5, "17")


def test_a_liquidation_is_a_line_as_a_trade_is():
    record = wire.Liquidation("liquidation.x.A/B:B", price=97421.5, size=0.012, side=2)
    assert view.record_line(wire.unpack(wire.pack(record))).endswith(
        "liquidation.x.A/B:B #0 sell 0.012 at 97421.5"
    )


def test_a_contract_is_a_line_of_what_is_known():
    record = wire.Contract("contract.x.A/B:B", mark=97421.5, index=97420.0)
    assert view.record_line(record).endswith("contract.x.A/B:B #0 mark 97421.5 index 97420")
    record.funding_rate, record.open_interest, record.funding_interval_h = -0.000125, 51.5, 8.0
    record.next_funding_ns = 1_790_006_400_000_000_000
    assert view.record_line(record).endswith(
        " index 97420, funding -0.0125% due 2026-09-21 16:00:00Z every 8 h, open interest 51.5"
    )
    told = msgspec.json.decode(view.record_json(record))
    assert (told["kind"], told["mark"], told["predicted_funding_rate"]) == ("contract", 97421.5, None)


def test_depth_is_shown_by_its_best_and_told_in_full_as_json():
    record = wire.Depth.of(
        "depth.x.A/B", [(2.5, 1.0), (2.25, 4.0)], [], exchange_sequence=7, flags=wire.INVALID
    )
    assert view.record_line(record).endswith(" depth.x.A/B #0 [INVALID] 2 + 0 levels, bid/ask 2.5 x 1 / -")
    told = msgspec.json.decode(view.record_json(record))
    assert (told["bids"], told["asks"], told["exchange_sequence"]) == ([[2.5, 1.0], [2.25, 4.0]], [], 7)
    assert (told["kind"], told["flags"]) == ("depth", ["INVALID"])
    assert "bid_levels" not in told


def test_a_record_of_a_book_is_shown_by_its_ids_and_told_in_full_as_json():
    record = wire.BookRecord.of("book.x.A/B", [(2.5, 0.0)], [(3.0, 1.0)], first_id=5, last_id=9)
    assert view.record_line(record).endswith(" book.x.A/B #0 ids 5 to 9, 1 + 1 levels")
    record.part, record.parts, record.flags = 1, 4, wire.SNAPSHOT
    assert view.record_line(record).endswith(" [SNAPSHOT] ids 5 to 9, part 2 of 4, 1 + 1 levels")
    told = msgspec.json.decode(view.record_json(record))
    assert (told["kind"], told["bids"], told["asks"], told["last_id"]) == (
        "book",
        [[2.5, 0.0]],
        [[3.0, 1.0]],
        9,
    )
    assert "levels" not in told


def status_record(exchange, wanted):
    feed = FeedStatus(exchange=exchange, pid=1, started_ns=1, wanted=wanted)
    body = msgspec.json.encode(ExchangeStatus(exchange=exchange, state="live", since_ns=0, feed=feed))
    return wire.Document(wire.topic(wire.STATUS, exchange), kind=wire.STATUS, body=body)


def watch_of_kinds(**flags):
    """A watch of two exchanges, of one of which trades and depth are wanted, too."""
    watch = Watch(["kucoin", "binance"])
    watch.take(status_record("kucoin", {"BTC/USDT": ["ticker"]}))
    watch.take(status_record("binance", {"BTC/USDT": ["ticker", "trade", "depth"], "A/B": ["trade"]}))
    now_ns = view.time.time_ns()
    for exchange in watch.exchanges:
        for n in range(9):
            topic = wire.topic(wire.TICKER, exchange, f"S{n}/USDT")
            watch.take(wire.Ticker(topic, recv_ns=now_ns, publish_ns=now_ns, **WIDE))
    sides = [(104123.4 - n, 1.0 + n) for n in range(20)], [(104123.5 + n, 2.0 + n) for n in range(20)]
    watch.take(wire.Depth.of("depth.binance.BTC/USDT", *sides, **flags))
    for n in range(30):
        for symbol in ("BTC/USDT", "A/B"):
            trade = wire.Trade(f"trade.binance.{symbol}", price=104000.0 + n, size=0.25, side=wire.Side.SELL)
            watch.take(trade)
    return watch


def shown(watch, width, height):
    console = Console(width=width, height=height, color_system=None)
    with console.capture() as capture:
        console.print(watch.picture(height - 7, width))
    return capture.get().splitlines()


def test_what_an_exchange_is_doing_costs_no_other_column():
    lines = picture(80)
    assert [line.split()[:3] for line in lines if line.endswith("…")] == [
        [name, "live", "1,234/s"] for name in ("binance", "kucoin", "bybit")
    ]


@pytest.mark.parametrize(("width", "height"), [(60, 24), (60, 40), (80, 24), (140, 50)])
def test_perpetuals_leave_room_for_all_else(width, height):
    watch = watch_of_kinds()
    watch.exchanges += ["bybit", "okx"]
    for name in ("binance", "bybit", "okx"):
        for symbol in ("BTC/USDT", "BTC/USDT:USDT"):
            ticker = wire.Ticker(wire.topic(wire.TICKER, name, symbol), flags=wire.SIMULATED, **WIDE)
            watch.take(ticker)
        watch.take(wire.Contract(f"contract.{name}.BTC/USDT:USDT", mark=100_010.0, funding_rate=0.0001))
    console = Console(width=width, height=height, color_system=None)
    with console.capture() as capture:
        console.print(watch.picture(max(5, height - 5 - len(watch.exchanges)), width))
    lines = capture.get().splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) <= height
    assert any("binance BTC/USDT" in line for line in lines), "trades and depth"
    assert sum("+0.0100%" in line for line in lines) == (2 if height == 24 else 3)


@pytest.mark.parametrize("height", [24, 40])
def test_a_perpetual_is_beside_its_spot_pair_below_the_tickers(height):
    watch = watch_of_kinds()
    for symbol, bid, ask in (("BTC/USDT", 99_999.0, 100_001.0), ("BTC/USDT:USDT", 100_009.0, 100_011.0)):
        watch.take(wire.Ticker(wire.topic(wire.TICKER, "binance", symbol), bid=bid, ask=ask))
    watch.take(wire.Contract("contract.binance.BTC/USDT:USDT", mark=100_010.0, funding_rate=0.0001))
    lines = shown(watch, 100, height)
    assert len(lines) < height
    place = next(
        n
        for n, line in enumerate(lines)
        if line.split()[2:] == ["bid", "ask", "mark", "basis", "funding", "due", "in", "OI"]
    )
    assert lines[place + 1].split() == [
        "binance",
        "BTC/USDT:USDT",
        "100009",
        "100011",
        "100010",
        "+1.0",
        "bp",
        "+0.0100%",
        "-",
        "-",
    ]
    assert lines[place + 2].split() == ["BTC/USDT", "99999", "100001"]
    assert "binance BTC/USDT:USDT: mark 100010, basis +1.0 bp to BTC/USDT" in watch.line()


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (160, 50)])
def test_trades_and_depth_of_one_symbol_are_beside_the_tickers(width, height):
    lines = shown(watch_of_kinds(), width, height)
    assert max(map(len, lines)) <= width
    assert len(lines) < height
    assert any("S0/USDT" in line and "104123.4" in line for line in lines)
    assert any("symbol" in line and "binance BTC/USDT" in line for line in lines[:2]), "beside"
    text = "\n".join(" ".join(line.split()) for line in lines)
    assert [n for n in range(5) if f"ask {104123.5 + n}" in text] == [0, 1, 2, 3, 4]
    assert text.index("ask 104127.5") < text.index("ask 104123.5") < text.index("bid 104123.4")
    assert text.index("sell 104029") < text.index("sell 104028"), "the newest trade first"
    assert "A/B" not in text


def test_what_must_not_be_used_is_told_and_a_narrow_terminal_has_it_below():
    lines = shown(watch_of_kinds(flags=wire.INVALID), 60, 30)
    assert max(map(len, lines)) <= 60
    place = next(n for n, line in enumerate(lines) if "binance BTC/USDT" in line)
    assert place > 5
    assert "INVALID" in lines[place]


def test_output_that_is_no_terminal_tells_trade_and_depth_in_words():
    line = watch_of_kinds().line()
    assert line.endswith(
        "binance BTC/USDT: last trade sell 0.25 at 104029, 20 + 20 levels, bid/ask 104123.4 x 1 / 104123.5 x 2"
    )
    assert "BTC/USDT" not in Watch(["binance"]).line()


def test_a_summary_counts_trades_and_depth_where_there_were_some(monkeypatch):
    monkeypatch.setattr(view.time, "monotonic", lambda: 100.0)
    watch = watch_of_kinds()
    watch.since_mono = dict.fromkeys(watch.exchanges, 90.0)
    watch.take(wire.Contract("contract.binance.BTC/USDT:USDT", mark=1.0))
    lines = plain(watch.summary(SimpleNamespace(losses={}))).splitlines()
    assert lines[1].split() == ["kucoin", "binance"]
    assert [line.split() for line in lines[2:7]] == [
        ["symbols", "0", "0"],
        ["tickers", "9", "9"],
        ["trades", "0", "60"],
        ["depth", "0", "1"],
        ["contracts", "0", "1"],
    ]
    assert lines[7].split() == ["records/s", "1", "7"], "of all kinds"


def test_status_has_the_kinds_and_of_how_many_symbols():
    feed = FeedStatus(exchange="x", pid=0, started_ns=0)
    feed.wanted = {"A/B": ["ticker", "trade"], "C/D": ["ticker"], "E/F": ["ticker", "trade"]}
    feed.rejected = {"E/F": {"trade": "no"}}
    status = ExchangeStatus(exchange="x", state="live", since_ns=0, feed=feed)
    head, line = plain(status_table({"x": status}, 10**9)).splitlines()
    assert line[head.index("kinds") :].startswith("ticker, trade of 1  ")


def test_status_says_what_an_exchange_leaves_out():
    feed = FeedStatus(exchange="x", pid=0, started_ns=0, left_out={"liquidation": "all but one a second"})
    status = ExchangeStatus(exchange="x", state="live", since_ns=0, feed=feed)
    assert view.status_parts({"x": status}, [], 10**9)[-1] == (
        "x: of liquidations the exchange leaves out all but one a second"
    )


def test_the_symbol_that_is_shown_does_not_depend_on_which_status_came_first():
    watch = Watch(["kucoin", "binance"])
    kinds = ["ticker", "trade"]
    watch.take(status_record("binance", {"BTC/USDT": kinds}))
    watch.take(status_record("kucoin", {"X/Y": ["ticker"], "C/D": kinds, "A/B": kinds}))
    assert (watch.panel.exchange, watch.panel.symbol) == ("kucoin", "C/D")
