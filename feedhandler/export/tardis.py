"""CSV files with the columns of tardis.dev's downloads: one a type, exchange, symbol and day.

Times are microseconds, those of the exchange ours where it states none. Symbols are the canonical ones. Depth has
20 levels here. Columns: https://docs.tardis.dev/downloadable-csv-files/data-types, read 2026-11.
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
        self._quotes: dict[str, tuple[float, ...]] = {}  # the last of each topic

    def _path(self, key: _CsvKey) -> str:
        symbol = key.symbol.replace("/", "-").replace(":", "-")
        return f"{key.exchange}_{key.type}_{date_of(key.day)}_{symbol}.{self._job.name}.csv.gz"

    def take(self, record: bytes, recv_ns: int) -> None:
        """Take a record."""
        found = wire.unpack(record)
        if isinstance(found, wire.Trade):
            self._add(
                TRADES, found, [(found.trade_id, str(found.side), _number(found.price), _number(found.size))]
            )
        elif isinstance(found, BookRecord):
            if not found.flags & wire.INVALID:
                self._add(CHANGES, found, _changes(found))
        elif isinstance(found, wire.Ticker):
            quote = (found.ask_size, found.ask, found.bid, found.bid_size)
            shown = tuple(map(_number, quote))
            if self._quotes.get(found.topic) != quote and any(shown):
                self._quotes[found.topic] = quote
                self._add(QUOTES, found, [shown])
        elif isinstance(found, wire.Depth) and found.is_live:
            self._add(DEPTHS, found, [_depth(found)])

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
