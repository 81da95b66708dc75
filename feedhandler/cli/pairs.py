"""Derivatives beside their spot pairs: mark, basis, funding and open interest, for the live table.

The basis is that of what can be traded: from the middle of the pair's bid and ask to the middle of the contract's,
in basis points of the former. OI is open interest.
"""

import math
from collections.abc import Callable, Mapping
from typing import Final

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from feedhandler.cli.figures import countdown, price, rounded
from feedhandler.data import wire
from feedhandler.data.instruments import pair_of

BASIS_POINTS: Final = 10_000
SHOWN_MAX: Final = 3
ROWS_OF_EACH: Final = 2
COLUMNS: Final = ("exchange", "symbol", "bid", "ask", "mark", "basis", "funding", "due in", "OI")
DROPPED_IN_ORDER: Final = ("OI", "mark", "exchange", "ask")  # where a terminal is too narrow for all
WIDE: Final = Console(width=1000)  # to measure with

Places = Callable[[wire.Record], int | None]  # how many decimals the prices of a symbol have


class Pairs:
    """The newest contracts, and what the tickers say of them and of their spot pairs."""

    def __init__(self, tickers: Mapping[str, wire.Ticker]) -> None:
        self._tickers = tickers  # by topic
        self._contracts: dict[str, wire.Contract] = {}

    def take(self, record: wire.Record) -> None:
        """Take a record, of whatever topic."""
        if isinstance(record, wire.Contract):
            self._contracts[record.topic] = record

    def table(self, places: Places, rows_max: int, width: int, now_ns: int) -> Table | None:
        """Return a row for each contract with one for its spot pair below; None if there is nothing, or no room."""
        count = max(0, min(SHOWN_MAX, (rows_max - 1) // ROWS_OF_EACH))
        shown = sorted(self._contracts)[:count]
        if not shown:
            return None
        rows = [row for topic in shown for row in self._rows(self._contracts[topic], places, now_ns)]
        names = [name for name in (*COLUMNS, "flags") if name in COLUMNS or any(name in row for row in rows)]
        for dropped in (None, *DROPPED_IN_ORDER):
            names = [name for name in names if name != dropped]
            for blanks in (2, 1):
                table = _table(names, rows, blanks)
                if Measurement.get(WIDE, WIDE.options, table).maximum <= width:
                    return table
        return table

    def line(self, now_ns: int) -> str:
        """Return the first of them in words, "" while nothing has come."""
        if not self._contracts:
            return ""
        contract = self._contracts[min(self._contracts)]
        parts = [f"mark {rounded(contract.mark)}"]
        if not math.isnan(basis := self._basis(contract)):
            parts.append(f"basis {basis:+.1f} bp to {pair_of(contract.symbol)}")
        if not math.isnan(contract.funding_rate):
            due = f" due in {countdown(contract.next_funding_ns, now_ns)}" if contract.next_funding_ns else ""
            parts.append(f"funding {contract.funding_rate:+.4%}{due}")
        if not math.isnan(contract.open_interest):
            parts.append(f"open interest {rounded(contract.open_interest)}")
        if not contract.is_live:
            parts.append(str(wire.Flag(contract.flags & wire.NOT_LIVE)))
        return f"{contract.exchange} {contract.symbol}: {', '.join(parts)}"

    def _ticker(self, contract: wire.Contract, symbol: str) -> wire.Ticker | None:
        return self._tickers.get(wire.topic(wire.TICKER, contract.exchange, symbol))

    def _basis(self, contract: wire.Contract) -> float:
        """Return the basis in basis points; NaN while one of the two prices is not known, or not of now."""
        own, pair = (self._ticker(contract, s) for s in (contract.symbol, pair_of(contract.symbol)))
        if own is None or pair is None or not (own.is_live and pair.is_live and pair.mid > 0):
            return math.nan
        return (own.mid / pair.mid - 1) * BASIS_POINTS

    def _rows(self, contract: wire.Contract, places: Places, now_ns: int) -> list[dict[str, Text]]:
        basis, rate = self._basis(contract), contract.funding_rate
        style = "" if contract.is_live else "red"
        rows = [
            {
                "exchange": Text(contract.exchange),
                **self._quote(contract, contract.symbol, places),
                "mark": Text(price(contract.mark, places(contract)), style),
                "basis": _signed("-" if math.isnan(basis) else f"{basis:+.1f} bp"),
                "funding": Text("-") if math.isnan(rate) else _signed(f"{rate:+.4%}"),
                "due in": Text(countdown(contract.next_funding_ns, now_ns), style),
                "OI": Text(rounded(contract.open_interest), style),
            }
        ]
        if not contract.is_live:
            rows[0]["flags"] = Text(str(wire.Flag(contract.flags & wire.NOT_LIVE)), style="bold red")
        if self._ticker(contract, pair_of(contract.symbol)) is not None:
            rows.append(self._quote(contract, pair_of(contract.symbol), places))
        return rows

    def _quote(self, contract: wire.Contract, symbol: str, places: Places) -> dict[str, Text]:
        ticker = self._ticker(contract, symbol)
        if ticker is None:
            return {"symbol": Text(symbol)}
        style = "" if ticker.is_live else "red"
        sides = {name: Text(price(getattr(ticker, name), places(ticker)), style) for name in ("bid", "ask")}
        return {"symbol": Text(symbol), **sides}


def _signed(text: str) -> Text:
    return Text(text, style={"+": "green", "-": "red"}.get(text[0], "") if len(text) > 1 else "")


def _table(names: list[str], rows: list[dict[str, Text]], blanks: int) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, blanks, 0, 0))
    for name in names:
        is_word = name in ("exchange", "symbol", "flags")
        table.add_column(
            "" if name == "flags" else name, justify="left" if is_word else "right", no_wrap=True
        )
    for row in rows:
        table.add_row(*(row.get(name, "") for name in names))
    return table
