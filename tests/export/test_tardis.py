"""Exports with the columns of tardis.dev's CSV files."""

import csv
import gzip
import json
from pathlib import Path

import pytest
from captured import BINANCE, BYBIT, BYBIT_LINEAR, answered, quote
from captured import opened as capture_opened
from captured import received as capture_received
from small_recording import T0, small

from feedhandler.cli import main
from feedhandler.export.tardis import _number

FRAMES = Path(__file__).parent.parent / "frames"
LIST = "https://api.bybit.com/v5/market/instruments-info?category=linear"
BINANCE_LINEAR = "wss://fstream.binance.com/market/stream"
BINANCE_LIST = "https://fapi.binance.com/fapi/v1/exchangeInfo"
DEPTH = {"lastUpdateId": 7, "bids": [["9", "1"], ["8", "2"]], "asks": [["11", "3"]]}


def export(source, out):
    return main.main(
        ["export", str(source), "--to", str(out), "--quiet", "--jobs", "1", "--format", "tardis"]
    )


def rows(out, type_, exchange="binance"):
    (path,) = [path for path in out.iterdir() if f"_{type_}_" in path.name and path.name.startswith(exchange)]
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


def frame(name, market="bybit_linear"):
    return json.loads((FRAMES / market / f"{name}.json").read_bytes())


def linear(out, frames):
    """Export what one connection of Bybit's perpetuals has brought."""
    path = out.with_suffix(".jsonl")
    lines = [answered(LIST, frame("lists/instruments_ticks")), capture_opened(BYBIT_LINEAR)]
    lines += [capture_received(each, ts=1_790_000_000.5 + n) for n, each in enumerate(frames)]
    path.write_text("".join(lines))
    assert export(path, out) == 0


def test_a_contract_has_a_row_for_each_change_of_what_is_known(tmp_path):
    names = ("tickers", "tickers_delta_of_mark", "tickers_delta_of_trade")
    unchanged = {**frame("tickers_delta_of_mark"), "ts": 1_790_000_000_360}
    linear(tmp_path / "out", [*map(frame, names), unchanged])
    head, *found = rows(tmp_path / "out", "derivative_ticker", "bybit")
    assert head[4:] == [
        "funding_timestamp",
        "funding_rate",
        "predicted_funding_rate",
        "open_interest",
        "last_price",
        "index_price",
        "mark_price",
    ]
    assert {tuple(row[:2]) for row in found} == {("bybit", "BTC/USDT:USDT")}
    due, local = "1790006400000000", 1_790_000_000_500_000
    assert [row[2:] for row in found] == [
        ["1790000000250000", f"{local}", due, "-0.000125", "", "25617.25", "97421.5", "97400.25", "97420.75"],
        [
            "1790000000350000",
            f"{local + 1_000_000}",
            due,
            "0.0001",
            "",
            "25617.25",
            "97421.5",
            "97400.25",
            "97425.5",
        ],
        [
            "1790000000350000",
            f"{local + 2_000_000}",
            due,
            "0.0001",
            "",
            "25617.25",
            "97430",
            "97400.25",
            "97425.5",
        ],
    ]


def test_each_exchange_of_a_capture_has_its_own_quotes(tmp_path):
    path = tmp_path / "a.jsonl"
    of_bybit = {"s": "BTCUSDT", "b": [["9", "1"]], "a": [["11", "2"]], "u": 7, "seq": 8}
    frames = [
        quote(7, "9", "1", "11", "2"),
        {"topic": "orderbook.1.BTCUSDT", "type": "snapshot", "data": of_bybit},
    ]
    lines = [capture_opened(BINANCE, "a"), capture_opened(BYBIT, "b")]
    lines += [capture_received(each, conn) for conn, each in zip("ab", frames, strict=True)]
    path.write_text("".join(lines))
    assert export(path, tmp_path / "out") == 0
    for exchange in ("binance", "bybit"):
        _, row = rows(tmp_path / "out", "quotes", exchange)
        assert row[4:] == ["2", "11", "9", "1"]


def test_each_exchange_of_a_capture_has_its_own_last_price_of_a_contract(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [
        answered(LIST, frame("lists/instruments_ticks")),
        answered(BINANCE_LIST, frame("lists/instruments_ticks", "binance_linear")),
        capture_opened(BYBIT_LINEAR, "a"),
        capture_opened(BINANCE_LINEAR, "b"),
        capture_received(frame("tickers"), "a"),
        capture_received(frame("mark_price", "binance_linear"), "b"),
    ]
    path.write_text("".join(lines))
    assert export(path, tmp_path / "out") == 0
    last_prices = {}
    for exchange in ("binance", "bybit"):
        head, *found = rows(tmp_path / "out", "derivative_ticker", exchange)
        last_prices[exchange] = {row[head.index("last_price")] for row in found}
    assert last_prices == {"binance": {""}, "bybit": {"97421.5"}}


def test_a_liquidation_has_the_side_of_its_order(tmp_path):
    linear(tmp_path / "out", [frame("liquidations")])
    head, *found = rows(tmp_path / "out", "liquidations", "bybit")
    assert head[4:] == ["id", "side", "price", "amount"]
    assert [row[4:] for row in found] == [
        ["", "sell", "95000.5", "0.5"],  # of a long position
        ["", "buy", "99000", "1.25"],
        ["", "buy", "99001", "2"],
    ]
    assert found[0][2] == "1790000000240000"


def test_spot_has_no_file_of_derivatives(out):
    assert not [path for path in out.iterdir() if "_derivative_ticker_" in path.name]


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
