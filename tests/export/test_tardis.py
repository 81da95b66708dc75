"""Exports with the columns of tardis.dev's CSV files."""

import csv
import gzip

import pytest
from captured import BINANCE
from captured import opened as capture_opened
from captured import received as capture_received
from small_recording import T0, small

from feedhandler.cli import main
from feedhandler.export.tardis import _number

DEPTH = {"lastUpdateId": 7, "bids": [["9", "1"], ["8", "2"]], "asks": [["11", "3"]]}


def export(source, out):
    return main.main(
        ["export", str(source), "--to", str(out), "--quiet", "--jobs", "1", "--format", "tardis"]
    )


def rows(out, type_):
    (path,) = [
        path for path in out.iterdir() if f"_{type_}_" in path.name and path.name.startswith("binance")
    ]
    with gzip.open(path, "rt", newline="") as file:
        return list(csv.reader(file))


@pytest.fixture
def out(tmp_path):
    small(tmp_path / "r")
    assert export(tmp_path / "r", tmp_path / "out") == 0
    return tmp_path / "out"


def test_files_are_named_as_there_with_the_run_behind(out):
    names = {path.name for path in out.iterdir()} - {"manifest.json"}
    run = "binance-20260921T141320.000000000Z"
    assert f"binance_trades_2026-09-21_BTC-USDT.{run}.csv.gz" in names
    assert len(names) == 4


def test_trades(out):
    head, first, *_ = rows(out, "trades")
    assert head == ["exchange", "symbol", "timestamp", "local_timestamp", "id", "side", "price", "amount"]
    local = T0 // 1000 + 4000
    assert first == ["binance", "BTC/USDT", str(T0 // 1000 + 1), str(local), "1", "sell", "10.5", "0.5"]


def test_changes_of_books(out):
    head, *found = rows(out, "incremental_book_L2")
    assert head == [
        "exchange",
        "symbol",
        "timestamp",
        "local_timestamp",
        "is_snapshot",
        "side",
        "price",
        "amount",
    ]
    assert [row[4:] for row in found[:5]] == [
        ["true", "bid", "10", "1"],
        ["true", "bid", "9", "2"],
        ["true", "ask", "12", "2"],
        ["false", "bid", "10", "2"],
        ["false", "ask", "11", "3"],
    ]


def test_quotes_when_they_change(out):
    head, *found = rows(out, "quotes")
    assert head[4:] == ["ask_amount", "ask_price", "bid_price", "bid_amount"]
    assert found[0] == [
        "binance",
        "BTC/USDT",
        found[0][3],
        found[0][3],
        "2",
        "12",
        "10",
        "1",
    ]  # it states no time
    assert [row[4:] for row in found] == [["2", "12", "10", str(n)] for n in range(1, 21) if n != 11]


def test_depth(tmp_path):
    path = tmp_path / "a.jsonl"
    frame = {"stream": "btcusdt@depth20@100ms", "data": DEPTH}
    path.write_text(capture_opened(BINANCE) + capture_received(frame))
    assert export(path, tmp_path / "out") == 0
    head, row = rows(tmp_path / "out", "book_snapshot_20")
    assert head[4:9] == [
        "asks[0].price",
        "asks[0].amount",
        "bids[0].price",
        "bids[0].amount",
        "asks[1].price",
    ]
    assert len(head) == len(row) == 4 + 80
    assert row[4:12] == ["11", "3", "9", "1", "", "", "8", "2"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1.0, "1"),
        (0.1, "0.1"),
        (1e-9, "0.000000001"),
        (1.5e22, "15000000000000000000000"),
        (float("nan"), ""),
    ],
)
def test_numbers_are_plain_decimals(value, text):
    assert _number(value) == text


@pytest.mark.long
def test_hftbacktest_converts_them(out, capsys):
    """A reader of these columns that we have not written."""
    tardis = pytest.importorskip("hftbacktest.data.utils.tardis")
    files = [next(out.glob(f"binance_{type_}_*")) for type_ in ("trades", "incremental_book_L2")]
    events = tardis.convert([str(path) for path in files], buffer_size=10_000, ss_buffer_size=100)
    assert len(events) > 40
