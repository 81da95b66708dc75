"""Exports for hftbacktest: what they have in them, and that the package reads it so."""

import zipfile

import numpy as np
import pytest
from captured import changes
from msgspec.structs import replace
from small_recording import DAY, T0, book_base, listed, opened, plan, put, received, small, trade

from feedhandler import replay
from feedhandler.cli import main
from feedhandler.data.kept_book import Book
from feedhandler.export import backtest
from feedhandler.export.backtest import AT_EXCHANGE, BUY, CLEAR, DEPTH, HERE, SELL, SNAPSHOT, TRADE

BOTH = AT_EXCHANGE | HERE


def export(source, out):
    return main.main(
        ["export", str(source), "--to", str(out), "--quiet", "--jobs", "1", "--format", "hftbacktest"]
    )


def loaded(out, exchange="binance"):
    (path,) = (out / exchange).rglob("*.npz")
    return np.load(path)["data"]


@pytest.fixture
def events(tmp_path):
    small(tmp_path / "r")
    assert export(tmp_path / "r", tmp_path / "out") == 0
    return loaded(tmp_path / "out")


def test_files_are_by_exchange_symbol_and_day(tmp_path):
    small(tmp_path / "r")
    assert export(tmp_path / "r", tmp_path / "out") == 0
    names = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*.npz"))
    assert names == [
        "binance/BTC-USDT/2026-09-21.binance-20260921T141320.000000000Z.npz",
        "kucoin/ETH-USDT/2026-09-21.kucoin-20260921T141320.000000005Z.npz",
    ]


def test_events_are_trades_and_what_books_state(events):
    here = events[events["ev"] & np.uint64(HERE) != 0]
    first = [(int(row["ev"]) & ~BOTH, row["px"], row["qty"]) for row in here[:8]]
    assert first == [
        (CLEAR, 0.0, 0.0),
        (SNAPSHOT | BUY, 10.0, 1.0),
        (SNAPSHOT | BUY, 9.0, 2.0),
        (SNAPSHOT | SELL, 12.0, 2.0),
        (TRADE | SELL, 10.5, 0.5),
        (DEPTH | BUY, 10.0, 2.0),
        (DEPTH | SELL, 11.0, 3.0),
        (TRADE | BUY, 10.5, 0.5),
    ]
    assert len(events[events["ev"] & np.uint64(AT_EXCHANGE) != 0]) == len(here)


def test_times_are_in_order_here_and_at_the_exchange(events):
    for flag, name in ((AT_EXCHANGE, "exch_ts"), (HERE, "local_ts")):
        times = events[name][events["ev"] & np.uint64(flag) != 0]
        assert (np.diff(times) >= 0).all()
    assert (events["exch_ts"] <= events["local_ts"]).all()


def test_what_the_exchange_states_to_be_older_stands_in_both_orders(tmp_path):
    items = [received(n, T0 + n * 10**9, trade(n)) for n in range(1, 5)]
    late = trade(5)
    late["data"]["T"] = T0 // 1000 + 2  # microseconds: between the second and the third
    items.append(received(5, T0 + 5 * 10**9, late))
    put(tmp_path / "r", "binance", T0, [plan("binance", T0), listed(), opened()], items)
    assert export(tmp_path / "r", tmp_path / "out") == 0
    rows = [
        (int(row["exch_ts"]) - T0, int(row["local_ts"]) - T0, int(row["ev"]))
        for row in loaded(tmp_path / "out")
    ]
    taken = TRADE | BUY
    assert rows == [
        (1000, 1 * 10**9, taken | BOTH),
        (2000, 2 * 10**9, taken | BOTH),
        (2000, 5 * 10**9, taken | AT_EXCHANGE),
        (3000, 3 * 10**9, taken | BOTH),
        (4000, 4 * 10**9, taken | BOTH),
        (2000, 5 * 10**9, taken | HERE),
    ]


def test_changes_without_levels_are_no_events(tmp_path):
    items = [received(1, T0 + 1, changes(101, 101)), received(2, T0 + DAY, changes(102, 102))]
    put(tmp_path / "r", "binance", T0, [plan("binance", T0), listed(), opened(), book_base(100)], items)
    assert export(tmp_path / "r", tmp_path / "out") == 0
    assert len(loaded(tmp_path / "out")) == 5  # those of the snapshot


def test_the_same_bytes_each_time(tmp_path):
    small(tmp_path / "r")
    for name in "ab":
        assert export(tmp_path / "r", tmp_path / name) == 0
    first, second = (next((tmp_path / name / "binance").rglob("*.npz")).read_bytes() for name in "ab")
    assert first == second


def test_it_is_what_numpy_would_have_saved(tmp_path, events):
    np.savez_compressed(tmp_path / "own.npz", data=events)
    (path,) = (tmp_path / "out" / "binance").rglob("*.npz")
    with zipfile.ZipFile(path) as ours, zipfile.ZipFile(tmp_path / "own.npz") as own:
        assert ours.namelist() == own.namelist() == ["data.npy"]
        assert ours.read("data.npy") == own.read("data.npy")


@pytest.mark.long
def test_the_package_replays_it_to_the_same_book(tmp_path):
    """Also after a snapshot that has none of the levels of before."""
    package = pytest.importorskip("hftbacktest")
    from hftbacktest.data.validation import validate_event_order
    from hftbacktest.types import event_dtype

    assert event_dtype == backtest.DTYPE
    head = [plan("binance", T0), listed(), opened(), book_base(100)]
    items = [received(1, T0 + 10**9, changes(101, 101, [["10", "3"]])), received(2, T0 + 2 * 10**9, trade(1))]
    gap = received(3, T0 + 3 * 10**9, changes(110, 110, [["8", "1"]]))
    other = book_base(110, T0 + 3 * 10**9, 3)
    data = other.data.replace(b'"10"', b'"7"').replace(b'"9"', b'"6"').replace(b'"11"', b'"21"')
    other = replace(other, data=data)
    last = received(4, T0 + 5 * 10**9, changes(111, 111, [], [["20", "5"], ["12", "0"]]))
    put(tmp_path / "r", "binance", T0, head, [*items, gap, other, last])
    assert export(tmp_path / "r", tmp_path / "out") == 0
    (path,) = (tmp_path / "out" / "binance").rglob("*.npz")
    validate_event_order(np.load(path)["data"])
    book = Book()
    for record in replay.records(tmp_path / "r", kinds=["book"]):
        book.apply(record)
    asset = (
        package.BacktestAsset()
        .data([str(path)])
        .linear_asset(1.0)
        .constant_order_latency(0, 0)
        .risk_adverse_queue_model()
        .no_partial_fill_exchange()
        .trading_value_fee_model(0, 0)
        .tick_size(0.5)
        .lot_size(0.001)
        .last_trades_capacity(10)
    )
    run = package.HashMapMarketDepthBacktest([asset])
    while run.elapse(100_000_000) == 0:
        pass
    depth = run.depth(0)
    assert book.is_valid
    assert (depth.best_bid, depth.best_bid_qty, depth.best_ask, depth.best_ask_qty) == book.best[
        :2
    ] + book.best[2:]
    assert book.best == (7.0, 1.0, 20.0, 5.0)
