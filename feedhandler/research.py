"""What was exported, as a frame: of a kind, of some symbols, exchanges and times.

    from feedhandler import research
    trades = research.read("research", kind="trade", symbols=["BTC/USDT"], start="2026-11-29", end="2026-11-30")

Only the files of those exchanges and days are opened, and only the row groups of those times are read. Needs
pyarrow, and polars or pandas for their frames.
"""

import datetime
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, Literal

from feedhandler.data.errors import ConfigError
from feedhandler.data.units import NS_PER_DAY, NS_PER_S

try:
    import pyarrow as pa
    import pyarrow.dataset as ds
except ImportError as exc:
    raise ImportError("exports are read with pyarrow: pip install 'feedhandler[research]'") from exc

Moment = str | int | datetime.date | datetime.datetime

FRAMES: Final = ("polars", "pandas", "arrow")
PARTITIONS: Final = pa.schema([("exchange", pa.string()), ("date", pa.date32())])
RECEIVED: Final = "receive_time"
TIME: Final = pa.timestamp("ns", tz="UTC")
ORDER: Final = (RECEIVED, "exchange", "symbol", "sequence")
GAP: Final = "gap"
# What the files of gaps have: as `export/tables.py` writes it, which is above this room.
GAPS: Final = pa.schema(
    [
        (RECEIVED, TIME),
        ("connection", pa.string()),
        ("reason", pa.string()),
        ("count", pa.uint64()),
        *PARTITIONS,
    ]
)


def read(
    directory: str | Path,
    *,
    kind: str = "trade",
    symbols: Iterable[str] = (),
    exchanges: Iterable[str] = (),
    start: Moment | None = None,
    end: Moment | None = None,
    columns: Iterable[str] = (),
    to: Literal["polars", "pandas", "arrow"] = "polars",
) -> Any:
    """Return the rows of a kind, in the order of receipt; of these symbols, exchanges and columns, or of all.

    start and end are times of receipt, the end excluded: text in ISO 8601, a date, a datetime, or Unix nanoseconds;
    UTC where nothing else is said. `gap` and `condition` are kinds too. Raises ConfigError for what is not there,
    ValueError for a time or a frame that is none.
    """
    if to not in FRAMES:
        raise ValueError(f"to={to!r}: is one of {', '.join(FRAMES)}")
    names, wanted = [symbols] if isinstance(symbols, str) else [*symbols], list(columns)
    places = [exchanges] if isinstance(exchanges, str) else [*exchanges]
    rows = _rows(Path(directory), kind)
    for name in wanted:
        if name not in rows.schema.names:
            raise ConfigError(f"{kind} has no column {name!r}; it has {', '.join(rows.schema.names)}")
    table = rows.to_table(
        filter=_filter(rows.schema, names, places, start, end),
        columns=_columns(rows.schema, wanted),
    )
    order = [(name, "ascending") for name in ORDER if name in table.schema.names]
    table = table.sort_by(order)
    return _frame(table.select(wanted) if wanted else table, to)


def kinds(directory: str | Path) -> list[str]:
    """Return the kinds that were exported."""
    return sorted(each.name.removeprefix("kind=") for each in Path(directory).glob("kind=*") if each.is_dir())


def _rows(directory: Path, kind: str) -> Any:
    """Return the files of a kind as one; of gaps, where there is none, what has no rows."""
    if not directory.is_dir():
        raise ConfigError(f"{directory}: no such directory")
    folder = directory / f"kind={kind}"
    if folder.is_dir():
        return ds.dataset(folder, format="parquet", partitioning=ds.partitioning(PARTITIONS, flavor="hive"))
    found = kinds(directory)
    if found and kind == GAP:  # always exported: to ask for them is no mistake where all is complete
        return ds.dataset(GAPS.empty_table())
    there = (
        f"there is {', '.join(found)}" if found else "there is nothing; was it made by `feedhandler export`?"
    )
    raise ConfigError(f"{directory} has no {kind}: {there}")


def _columns(schema: Any, wanted: list[str]) -> list[str]:
    """Return the columns to be read: those, and what rows are put in order by."""
    names = [name for name in (RECEIVED, "exchange") if name in schema.names]
    names += [name for name in schema.names if name not in (*names, "date")]
    return [name for name in names if not wanted or name in wanted or name in ORDER]


def _filter(
    schema: Any, symbols: list[str], exchanges: list[str], start: Moment | None, end: Moment | None
) -> Any:
    """Return what rows have to be, None for all."""
    found = []
    if exchanges:
        found.append(ds.field("exchange").isin(exchanges))
    if symbols and "symbol" in schema.names:
        found.append(ds.field("symbol").isin(symbols))
    if start is not None:
        start_ns = _bound("start", start)
        found += [ds.field("date") >= _date(start_ns), ds.field(RECEIVED) >= _scalar(start_ns)]
    if end is not None:
        end_ns = _bound("end", end)
        found += [ds.field("date") <= _date(end_ns - 1), ds.field(RECEIVED) < _scalar(end_ns)]
    whole = None
    for each in found:
        whole = each if whole is None else whole & each
    return whole


def _bound(name: str, moment: Moment) -> int:
    try:
        return unix_ns(moment)
    except ValueError as exc:
        raise ValueError(f"{name}={moment!r}: {exc}") from exc


def _date(ns: int) -> Any:
    return pa.scalar(ns // NS_PER_DAY, pa.int32()).cast(pa.date32())


def _scalar(ns: int) -> Any:
    return pa.scalar(ns, pa.int64()).cast(TIME)


def unix_ns(moment: Moment) -> int:
    """Return a time in Unix nanoseconds. Raises ValueError for a text that is none."""
    if isinstance(moment, int):
        return moment
    if isinstance(moment, str):
        moment = datetime.datetime.fromisoformat(moment)
    elif not isinstance(moment, datetime.datetime):
        moment = datetime.datetime(moment.year, moment.month, moment.day)
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.UTC)
    passed = moment - datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
    return (passed.days * 86_400 + passed.seconds) * NS_PER_S + passed.microseconds * 1000


def _frame(table: Any, to: str) -> Any:
    if to == "arrow":
        return table
    if to == "pandas":
        return table.to_pandas()
    try:
        import polars as pl
    except ImportError as exc:
        raise ImportError("pip install 'feedhandler[research]', or say to='arrow'") from exc
    return pl.from_arrow(table)
