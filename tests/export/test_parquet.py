"""Exports as they stand are read by others, and have in them what was recorded."""

import datetime
import json

import pytest
from captured import BINANCE, line
from captured import opened as capture_opened
from captured import received as capture_received
from lazily import duckdb, research
from lazily import pandas as pd
from lazily import parquet as pq
from lazily import polars as pl
from lazily import pyarrow as pa
from small_recording import MIDNIGHT, T0, book_base, listed, opened, plan, put, received, small, trade

from feedhandler import replay
from feedhandler.cli import main
from feedhandler.data import wire
from feedhandler.data.kept_book import Book
from feedhandler.data.kinds import KINDS
from feedhandler.data.layout import Body
from feedhandler.export import parquet, tables


def export(source, out, *arguments):
    return main.main(["export", str(source), "--to", str(out), "--quiet", "--jobs", "1", *arguments])


@pytest.fixture
def exported(tmp_path):
    small(tmp_path / "recordings")
    assert export(tmp_path / "recordings", tmp_path / "out") == 0
    return tmp_path / "out"


def files(out):
    return sorted(str(path.relative_to(out)) for path in out.rglob("*.parquet"))


def test_files_are_by_kind_exchange_and_day(exported):
    name = "binance-20260921T141320.000000000Z.parquet"
    folder = "exchange=binance/date=2026-09-21"
    other = "exchange=kucoin/date=2026-09-21/kucoin-20260921T141320.000000005Z.parquet"
    assert files(exported) == sorted(
        [f"kind={kind}/{folder}/{name}" for kind in ("book", "condition", "gap", "ticker", "trade")]
        + [f"kind=trade/{other}"]
    )


def duck(query):
    with duckdb.connect() as session:
        session.execute("set timezone = 'UTC'")
        return session.execute(query).fetchall()


@pytest.mark.long
def test_duckdb_reads_them_as_they_stand(exported):
    first, second = duck(f"""
        select kind, exchange, date, symbol, count(*), min(price)
        from '{exported}/kind=trade/**/*.parquet' group by all order by exchange
    """)
    day = datetime.date(2026, 9, 21)
    assert first == ("trade", "binance", day, "BTC/USDT", 19, 10.5)
    assert second == ("trade", "kucoin", day, "ETH/USDT", 20, 99.5)
    exact, type_ = duck(f"""
        select epoch_ns(max(receive_time)), any_value(typeof(receive_time))
        from '{exported}/kind=trade/exchange=kucoin/**/*.parquet'
    """)[0]
    assert exact == T0 + 40_000_007
    assert type_.startswith("TIMESTAMP")


def test_polars_reads_them_as_they_stand(exported):
    frame = pl.scan_parquet(exported / "kind=trade", hive_partitioning=True)
    found = frame.filter(
        pl.col("exchange") == "kucoin", pl.col("date") == datetime.date(2026, 9, 21)
    ).collect()
    assert found.schema["receive_time"] == pl.Datetime("ns", "UTC")
    assert found["receive_time"].dt.timestamp("ns").to_list() == [
        T0 + n * 2_000_000 + 7 for n in range(1, 21)
    ]
    assert found["exchange_time"].dt.timestamp("ns").to_list() == [T0 + n for n in range(1, 21)]
    assert found["side"].unique().to_list() == ["sell"]


def test_pandas_reads_them_as_they_stand(exported):
    found = pd.read_parquet(exported / "kind=ticker")
    assert str(found.dtypes["receive_time"]) == "datetime64[ns, UTC]"
    assert found["bid_size"].tolist() == [float(n) for n in range(1, 21) if n != 11]
    assert found["last"].isna().all()


def test_rows_are_the_records(exported, tmp_path):
    """Each field of each record, but for what a path has and a recording has not."""
    for kind in (wire.TRADE, wire.TICKER):
        records = [r for r in replay.records(tmp_path / "recordings", kinds=[str(kind)]) if r.kind == kind]
        rows = research.read(exported, kind=str(kind), to="arrow").to_pylist()
        assert len(rows) == len(records) > 10
        for row, record in zip(rows, records, strict=True):
            assert row["exchange"] == record.exchange
            for name in record.__struct_fields__:
                value = getattr(record, name)
                if name in tables.TIMES:
                    stated = row[tables.TIMES[name]]
                    assert (stated.value if stated is not None else 0) == value
                elif name == "side":
                    assert row[name] == str(value)
                elif name in row:
                    assert row[name] == value or (row[name] is None and value != value)
                else:
                    assert name in ("topic", "version", "kind", "publish_ns")


def test_every_kind_has_columns_named_as_its_fields():
    for kind in KINDS:
        if kind.body is not Body.JSON:
            names = tables.WaitingRows(kind).schema.names
            own = {field.name for field in kind.layout.fields} - {"reserved"} if kind.has_topics else set()
            assert own <= set(names), kind.name
            assert names[:3] == ["receive_time", "exchange_time", "symbol"]
            assert len(names) == len(set(names))


def test_a_level_is_a_row(exported, tmp_path):
    records = [r for r in replay.records(tmp_path / "recordings", kinds=["book"]) if r.kind == wire.BOOK]
    stated = [
        (r.sequence, r.last_id, side, price, size)
        for r in records
        for side, levels in (("bid", r.bids), ("ask", r.asks))
        for price, size in levels
    ]
    rows = research.read(exported, kind="book", to="arrow").to_pylist()
    assert [(r["sequence"], r["last_id"], r["side"], r["price"], r["size"]) for r in rows] == stated


def test_a_book_may_be_its_best_levels_after_each_change(tmp_path):
    small(tmp_path / "recordings")
    assert export(tmp_path / "recordings", tmp_path / "out", "--kinds", "book", "--books", "depth") == 0
    book, states = Book(), []
    for record in replay.records(tmp_path / "recordings", kinds=["book"]):
        if book.apply(record) and book.is_valid and record.kind == wire.BOOK:
            states.append((record.sequence, book.last_id, list(book.bids[:20]), list(book.asks[:20])))
    rows = research.read(tmp_path / "out", kind="book", to="arrow").to_pylist()
    found = [
        (
            row["sequence"],
            row["exchange_sequence"],
            *(
                [(level["price"], level["size"]) for level in row[name]]
                for name in ("bid_levels", "ask_levels")
            ),
        )
        for row in rows
    ]
    assert found == states
    assert len(found) == 10
    query = f"select bid_levels[1].price from '{tmp_path}/out/kind=book/**/*.parquet' limit 1"
    assert duck(query) == [(10.0,)]


def test_gaps_and_conditions_are_rows(exported):
    (gap,) = research.read(exported, kind="gap", to="arrow").to_pylist()
    assert gap["receive_time"].value == T0 + 36_000_000
    assert (gap["exchange"], gap["connection"], gap["count"]) == ("binance", "spot.1", 3)
    assert gap["reason"] == "frames 31 to 33 received are missing, by their numbers"
    (condition,) = research.read(exported, kind="condition", to="arrow").to_pylist()
    assert (condition["symbol"], condition["topic_kind"]) == ("BTC/USDT", "book")
    assert condition["flags"] & wire.INVALID


def test_a_day_has_a_file_of_its_own(tmp_path):
    times = [MIDNIGHT - 2, MIDNIGHT - 1, MIDNIGHT, MIDNIGHT + 1]
    items = [received(n, ns, trade(n)) for n, ns in enumerate(times, 1)]
    put(tmp_path / "r", "binance", T0, [plan("binance", T0), listed(), opened()], items)
    assert export(tmp_path / "r", tmp_path / "out") == 0
    counts = {
        path.parent.name: pq.read_metadata(path).num_rows for path in (tmp_path / "out").rglob("*.parquet")
    }
    assert counts == {"date=2026-09-21": 2, "date=2026-09-22": 2}


def test_rows_are_in_order_also_where_a_clock_was_set_back(tmp_path, monkeypatch):
    """In many small row groups, of which some have times in common."""
    monkeypatch.setattr(parquet, "GROUP_SIZE", 2000)
    late = [5, 1, 2, 3, 9, 4, 30, 31, 32, 6, 7, 8, *range(33, 90), *range(10, 30), *range(90, 200)]
    items = [received(n, T0 + at * 10**9, trade(n)) for n, at in enumerate(late, 1)]
    put(tmp_path / "r", "binance", T0, [plan("binance", T0), listed(), opened()], items)
    assert export(tmp_path / "r", tmp_path / "out") == 0
    (path,) = (tmp_path / "out").rglob("*.parquet")
    table = pq.read_table(path)
    times = table["receive_time"].cast(pa.int64()).to_pylist()
    assert times == sorted(T0 + at * 10**9 for at in late)
    assert pq.read_metadata(path).num_row_groups > 5
    assert table.num_rows == len(late)


def test_what_comes_at_once_is_in_the_order_of_its_numbers(tmp_path):
    items = [received(n, T0, trade(n)) for n in range(1, 9)]
    put(tmp_path / "r", "binance", T0, [plan("binance", T0), listed(), opened()], items)
    assert export(tmp_path / "r", tmp_path / "out") == 0
    rows = research.read(tmp_path / "out", to="arrow").to_pylist()
    assert [row["sequence"] for row in rows] == list(range(1, 9))


def test_files_say_that_they_are_sorted_and_are_zstd(exported):
    for path in exported.rglob("kind=trade/**/*.parquet"):
        group = pq.read_metadata(path).row_group(0)
        assert group.column(0).compression == "ZSTD"
        assert group.column(0).path_in_schema == "receive_time"
        assert group.column(0).is_stats_set
        assert next(each.column_index for each in group.sorting_columns) == 0


def test_only_some_symbols(tmp_path):
    small(tmp_path / "recordings")
    assert export(tmp_path / "recordings", tmp_path / "out", "--symbols", "ETH/USDT") == 0
    assert files(tmp_path / "out")[-1].startswith("kind=trade/exchange=kucoin/")
    assert {path.split("/")[0] for path in files(tmp_path / "out")} == {"kind=gap", "kind=trade"}


def test_a_capture_is_exported_as_a_recording_is(tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [capture_opened(BINANCE), *(capture_received(trade(n), ts=T0 + n) for n in (1, 2))]
    path.write_text("".join([*lines, line("gap", T0 + 3, count=4, reason="full")]))
    assert export(path, tmp_path / "out") == 0
    assert len(research.read(tmp_path / "out")) == 2
    (gap,) = research.read(tmp_path / "out", kind="gap", to="arrow").to_pylist()
    assert (gap["exchange"], gap["reason"], gap["count"]) == ("binance", "full", 4)


def test_a_line_that_cannot_be_read_is_told_and_the_others_are_there(tmp_path, capsys):
    path = tmp_path / "a.jsonl"
    path.write_text(capture_opened(BINANCE) + "not json\n" + capture_received(trade(1)))
    assert export(path, tmp_path / "out") == 1
    assert "line 2" in capsys.readouterr().err
    assert len(research.read(tmp_path / "out")) == 1


def test_frames_of_which_nothing_comes_are_told(tmp_path, capsys):
    path = tmp_path / "a.jsonl"
    lines = [capture_opened("wss://ws.kraken.com/v2"), capture_received({"arg": 1})]
    bad = trade(1)
    bad["data"]["p"] = "none"
    lines += [capture_opened(BINANCE, "d"), *(capture_received(each, "d") for each in (bad, trade(2)))]
    path.write_text("".join(lines))
    assert export(path, tmp_path / "out") == 0
    told = capsys.readouterr().err
    assert "1 frames were not decoded: ws.kraken.com" in told
    assert "1 frames could not be decoded" in told
    (entry,) = json.loads((tmp_path / "out" / "manifest.json").read_text())["runs"].values()
    assert (entry["undecodable"], entry["elsewhere"]) == (1, {"ws.kraken.com, no exchange of ours": 1})


def test_book_base_is_needed(tmp_path):
    put(tmp_path / "r", "binance", T0, [plan("binance", T0), listed(), opened(), book_base(100)])
    assert export(tmp_path / "r", tmp_path / "out") == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    (entry,) = manifest["runs"].values()
    assert (entry["records"], entry["outputs"]) == (0, [])
