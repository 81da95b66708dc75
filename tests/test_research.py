"""What was exported, as a frame: pruned by partition and by row groups, in order, with the types that are right."""

import datetime
import subprocess
import sys

import pytest
from lazily import pandas as pd
from lazily import polars as pl
from lazily import pyarrow as pa
from lazily import research
from patience import PATIENCE_S
from small_recording import MIDNIGHT, T0, listed, opened, plan, put, received, small, trade

from feedhandler.cli import main
from feedhandler.data.errors import ConfigError

DAY = 86_400 * 10**9


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Two exchanges; of one there are three days."""
    place = tmp_path_factory.mktemp("research")
    small(place / "r")
    times = [MIDNIGHT - 1, MIDNIGHT, MIDNIGHT + DAY - 1, MIDNIGHT + DAY]
    items = [received(n, ns, trade(1000 + n)) for n, ns in enumerate(times, 1)]
    put(place / "r", "binance", T0 + 10**11, [plan("binance", T0 + 10**11), listed(), opened()], items)
    arguments = ["export", str(place / "r"), "--to", str(place / "out"), "--quiet", "--jobs", "1"]
    assert main.main(arguments) == 0
    return place / "out"


def times(table):
    return table["receive_time"].cast(pa.int64()).to_pylist()


def test_a_frame_of_any_of_three_libraries(exported):
    polars = research.read(exported)
    pandas = research.read(exported, to="pandas")
    arrow = research.read(exported, to="arrow")
    assert isinstance(polars, pl.DataFrame)
    assert isinstance(pandas, pd.DataFrame)
    assert isinstance(arrow, pa.Table)
    assert len(polars) == len(pandas) == len(arrow) == 43
    assert polars.schema["receive_time"] == pl.Datetime("ns", "UTC")
    assert str(pandas.dtypes["exchange_time"]) == "datetime64[ns, UTC]"
    assert arrow.schema.field("receive_time").type == pa.timestamp("ns", "UTC")
    assert arrow.schema.field("exchange").type == pa.string()


def test_rows_are_in_the_order_of_receipt_over_all_exchanges(exported):
    found = times(research.read(exported, to="arrow"))
    assert found == sorted(found)


def test_symbols_and_exchanges(exported):
    assert set(research.read(exported, symbols="ETH/USDT")["exchange"]) == {"kucoin"}
    assert set(research.read(exported, exchanges=["binance"])["symbol"]) == {"BTC/USDT"}
    assert len(research.read(exported, symbols=["ETH/USDT"], exchanges="binance")) == 0


@pytest.mark.parametrize(
    ("start", "end", "count"),
    [
        (MIDNIGHT, None, 3),
        (MIDNIGHT + 1, None, 2),
        (None, MIDNIGHT, 40),
        (MIDNIGHT, MIDNIGHT + DAY, 2),
        ("2026-09-22", "2026-09-23", 2),
        ("2026-09-22T02:00:00+02:00", datetime.date(2026, 9, 23), 2),
        (datetime.datetime(2026, 9, 22), None, 3),
        (datetime.datetime(2026, 9, 22, tzinfo=datetime.UTC), "2026-09-22T00:00:00.000001", 1),
        ("2027-01-01", None, 0),
    ],
)
def test_times(exported, start, end, count):
    assert len(research.read(exported, start=start, end=end)) == count


def test_only_what_may_have_it_is_opened(exported, tmp_path):
    """Others are spoiled, and nobody notices; columns are those of the first file."""
    for path in exported.rglob("kind=trade/**/*.parquet"):
        target = tmp_path / path.relative_to(exported)
        target.parent.mkdir(parents=True, exist_ok=True)
        data = path.read_bytes()
        is_spoiled = "exchange=kucoin" in str(path) or "date=2026-09-23" in str(path)
        target.write_bytes(data[:-8] + b"spoiled!" if is_spoiled else data)
    found = research.read(tmp_path, exchanges="binance", start="2026-09-22", end="2026-09-23")
    assert len(found) == 2
    with pytest.raises(Exception, match="Parquet"):
        research.read(tmp_path)


def test_columns(exported):
    found = research.read(exported, columns=["price", "symbol"])
    assert found.columns == ["price", "symbol"]
    assert research.read(exported, kind="gap").columns == [
        "receive_time",
        "exchange",
        "connection",
        "reason",
        "count",
    ]
    with pytest.raises(ConfigError, match="no column 'prize'"):
        research.read(exported, columns=["prize"])


def test_a_recording_without_gaps_has_an_empty_frame_of_them(exported, tmp_path):
    """With the columns and types that it has where there are some."""
    (tmp_path / "kind=trade").symlink_to(exported / "kind=trade")
    found, other = (research.read(place, kind="gap", to="arrow") for place in (tmp_path, exported))
    assert (len(found), len(other)) == (0, 1)
    assert found.schema.equals(other.schema)
    assert research.read(tmp_path, kind="gap", exchanges="binance", start="2026-09-22").is_empty()


def test_what_is_not_there_is_told_with_what_is(exported, tmp_path):
    with pytest.raises(ConfigError, match="there is book, condition, gap, ticker, trade"):
        research.read(exported, kind="trades")
    with pytest.raises(ConfigError, match="no such directory"):
        research.read(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="there is nothing"):
        research.read(tmp_path)
    with pytest.raises(ValueError, match="to='numpy'"):
        research.read(exported, to="numpy")
    with pytest.raises(ValueError, match="start='yesterday': Invalid isoformat"):
        research.read(exported, start="yesterday")


@pytest.mark.long
def test_nothing_of_the_processes_is_loaded():
    code = (
        "import sys, feedhandler.research; print(*(m for m in sys.modules if m.startswith('feedhandler.')))"
    )
    loaded = subprocess.check_output([sys.executable, "-c", code], text=True, timeout=PATIENCE_S).split()
    assert {name.split(".")[1] for name in loaded} <= {"research", "data"}
