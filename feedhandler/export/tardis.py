"""CSV files with the columns of tardis.dev's downloads: one a type, exchange, symbol and day.

Times are microseconds, those of the exchange, or ours where it states none. Symbols are the canonical ones, sizes
in the base asset. Depth has 20 levels here. Of contracts each change makes a row of all that is known; the last
price in it is that of tickers. The side of a liquidation is that of its order, there and here: buy closes a short
position. Columns: https://docs.tardis.dev/downloadable-csv-files/data-types, read 2026-11.
"""

import gzip
import math
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Final, NamedTuple

from feedhandler.data import wire
from feedhandler.data.book import BookRecord, without_edges
from feedhandler.data.depth import LEVELS_MAX
from feedhandler.data.units import NS_PER_DAY
from feedhandler.export.days import DayFiles, date_of
from feedhandler.export.jobs import Job, Made
from feedhandler.replay import RecordingGap

SAME: Final = ("exchange", "symbol", "timestamp", "local_timestamp")
TRADES: Final = "trades"
CHANGES: Final = "incremental_book_L2"
QUOTES: Final = "quotes"
DEPTHS: Final = f"book_snapshot_{LEVELS_MAX}"
DERIVATIVES: Final = "derivative_ticker"
LIQUIDATIONS: Final = "liquidations"
COLUMNS: Final = {
    TRADES: ("id", "side", "price", "amount"),
    CHANGES: ("is_snapshot", "side", "price", "amount"),
    QUOTES: ("ask_amount", "ask_price", "bid_price", "bid_amount"),
    DEPTHS: tuple(
        f"{side}[{level}].{what}"
        for level in range(LEVELS_MAX)
        for side in ("asks", "bids")
        for what in ("price", "amount")
    ),
    DERIVATIVES: (
        "funding_timestamp",
        "funding_rate",
        "predicted_funding_rate",
        "open_interest",
        "last_price",
        "index_price",
        "mark_price",
    ),
    LIQUIDATIONS: ("id", "side", "price", "amount"),
}
NS_PER_US: Final = 1000


class _CsvKey(NamedTuple):
    type: str
    exchange: str
    symbol: str
    day: int


class TardisWriter:
    """Writes what comes of one run."""

    def __init__(self, job: Job, folder: Path) -> None:
        self._job = job
        self._files: DayFiles[_CsvKey] = DayFiles(folder, self._path, _zipped, _heading)
        # By exchange and symbol: a capture may be of several exchanges.
        self._last: dict[tuple[str, str], float] = {}  # last prices
        self._contracts: dict[tuple[str, str], wire.Contract] = {}  # the newest
        self._written: dict[tuple[str, str, str], tuple[str, ...]] = {}  # the last row of each, and of a type

    def _path(self, key: _CsvKey) -> str:
        symbol = key.symbol.replace("/", "-").replace(":", "-")
        return f"{key.exchange}_{key.type}_{date_of(key.day)}_{symbol}.{self._job.name}.csv.gz"

    def take(self, record: bytes, recv_ns: int) -> None:
        """Take a record."""
        found = wire.unpack(record)
        if isinstance(found, wire.Trade):
            self._add(TRADES, found, [_one(found)])
        elif isinstance(found, wire.Liquidation):
            self._add(LIQUIDATIONS, found, [_one(found)])
        elif isinstance(found, BookRecord):
            if not found.flags & wire.INVALID:
                self._add(CHANGES, found, _changes(found))
        elif isinstance(found, wire.Ticker):
            self._last[found.exchange, found.symbol] = found.last
            self._add_changed(QUOTES, found, (found.ask_size, found.ask, found.bid, found.bid_size))
            self._add_derivative(found)
        elif isinstance(found, wire.Contract):
            self._contracts[found.exchange, found.symbol] = found
            self._add_derivative(found)
        elif isinstance(found, wire.Depth) and found.is_live:
            self._add(DEPTHS, found, [_depth(found)])

    def _add_derivative(self, record: wire.Record) -> None:
        """Add what is known of a contract, at the time of the record that has changed it."""
        whose = record.exchange, record.symbol
        contract = self._contracts.get(whose)
        if contract is not None:
            due_us = contract.next_funding_ns // NS_PER_US
            known = (
                contract.funding_rate,
                contract.predicted_funding_rate,
                contract.open_interest,
                self._last.get(whose, math.nan),
                contract.index,
                contract.mark,
            )
            self._add_changed(DERIVATIVES, record, known, str(due_us) if due_us else "")

    def _add_changed(self, type_: str, record: wire.Record, values: tuple[float, ...], *before: str) -> None:
        row = (*before, *map(_number, values))
        key = type_, record.exchange, record.symbol
        if self._written.get(key) != row and any(row):
            self._written[key] = row
            self._add(type_, record, [row])

    def take_gap(self, gap: RecordingGap) -> None:
        """These files have no place for it; the manifest counts it."""

    def _add(self, type_: str, record: wire.Record, rows: Iterable[Iterable[str]]) -> None:
        key = _CsvKey(type_, record.exchange, record.symbol, record.recv_ns // NS_PER_DAY)
        local = record.recv_ns // NS_PER_US
        head = f"{record.exchange},{record.symbol},{record.exchange_ns // NS_PER_US or local},{local},"
        lines = [head + ",".join(row) + "\n" for row in rows]
        if lines:
            self._files.add(key, "".join(lines).encode(), len(lines))

    def finish(self) -> list[Made]:
        """Complete all files."""
        return self._files.finish()

    def abandon(self) -> None:
        """Write no more."""


def _one(record: wire.Trade | wire.Liquidation) -> tuple[str, str, str, str]:
    return record.trade_id, str(record.side), _number(record.price), _number(record.size)


def _changes(record: BookRecord) -> Iterable[tuple[str, str, str, str]]:
    is_snapshot = "true" if record.flags & wire.SNAPSHOT else "false"
    for side, levels in zip(("bid", "ask"), without_edges(record), strict=True):
        for price, size in levels:
            yield is_snapshot, side, _number(price), _number(size)


def _depth(record: wire.Depth) -> list[str]:
    row = []
    asks, bids = record.asks, record.bids
    for level in range(LEVELS_MAX):
        for side in (asks, bids):
            row += [_number(value) for value in side[level]] if level < len(side) else ["", ""]
    return row


def _number(value: float) -> str:
    """Return a number as decimal text, shortest; nothing for NaN."""
    if math.isnan(value):
        return ""
    text = repr(value)
    return f"{Decimal(text):f}" if "e" in text else text.removesuffix(".0")


def _heading(key: _CsvKey) -> bytes:
    return ",".join((*SAME, *COLUMNS[key.type])).encode() + b"\n"


def _zipped(data: bytes) -> bytes:
    return gzip.compress(data, 6, mtime=0)
