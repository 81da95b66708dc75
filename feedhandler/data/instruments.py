"""Exchange symbol ⇄ canonical `BASE/QUOTE`, or `BASE/QUOTE:SETTLE`, from the exchange's own instrument list.

Lookup tables only. A canonical symbol is never made by splitting a string, and two tradable native
symbols that claim the same canonical one are an error that names both, never a silent overwrite.
"""

import difflib
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from typing import Final

import msgspec

from feedhandler.data import wire
from feedhandler.data.errors import SubscriptionRejected

# The nearest names of so many unknown symbols are looked for: each costs milliseconds, and a list that is short
# lacks thousands.
HINTS_MAX: Final = 5
TICK_MIN: Final = Decimal("1e-18")  # beyond these it is no price's
TICK_MAX: Final = Decimal("1e9")
SPOT: Final = "spot"  # the market whose symbols are named without it


class Instrument(msgspec.Struct, frozen=True):
    """One line of an exchange's instrument list.

    native is the exchange's spelling, after the market's name where that is not spot, so that no two markets share
    one (`Market.prefix`); settle is what a derivative is settled in, "" for what is traded itself. status is the
    exchange's own word for the trading state, for messages only. code is what accounts call the base asset, where
    that is another name. note: what users are to know of it, such as why it cannot be had. tick is the step between
    prices, in quote currency, as `price_tick` has it. contract_size: where sizes are in contracts, how much of the
    base asset one is, as `contract_size` has it.
    """

    native: str
    base: str
    quote: str
    is_trading: bool = True
    status: str = ""
    code: str = ""
    note: str = ""
    tick: str = ""
    market: str = SPOT
    settle: str = ""
    contract_size: str = ""

    @property
    def symbol(self) -> str:
        """The canonical symbol, `BASE/QUOTE` or `BASE/QUOTE:SETTLE`."""
        return f"{self.base}/{self.quote}:{self.settle}" if self.settle else f"{self.base}/{self.quote}"


def pair_of(symbol: str) -> str:
    """Return the canonical symbol of the spot pair that a derivative is about; of a spot symbol, itself."""
    return symbol.partition(":")[0]


def price_tick(stated: object) -> str:
    """Return the step between prices as plain decimal text, without trailing zeros; "" for what is none."""
    try:
        return _plain(Decimal(str(stated) if isinstance(stated, str | int | float) else "NaN"))
    except InvalidOperation:
        return ""


def contract_size(stated: Decimal) -> str:
    """Return how much a contract is, in the same form; "" for what is no size."""
    return _plain(stated)


def _plain(number: Decimal) -> str:
    return f"{number.normalize():f}" if number.is_finite() and TICK_MIN <= number <= TICK_MAX else ""


def decimals(tick: str) -> int | None:
    """Return how many decimals prices have, by their tick; None if that is not known."""
    return len(tick.partition(".")[2]) if tick else None


class InstrumentTable:
    """The instruments of one exchange, looked up both ways.

    by_native has every instrument with a usable name; `problems` says in plain words what was left out, after those
    that are known already.
    """

    def __init__(
        self, exchange: str, instruments: Iterable[Instrument], problems: Iterable[str] = ()
    ) -> None:
        self.exchange = exchange
        self.by_native: dict[str, Instrument] = {}
        self.problems = list(problems)
        self._by_symbol: dict[str, Instrument] = {}
        self._by_code: dict[tuple[str, str], Instrument] = {}
        self._assets: set[str] = set()  # as accounts call them
        self._has_contracts = False
        self._conflicts: dict[str, list[str]] = {}
        self._hints: dict[str, str] = {}  # by unknown symbol
        for instrument in instruments:
            self._add(instrument)
        for symbol, natives in self._conflicts.items():
            self.problems.append(self._conflict(symbol, natives))

    def _add(self, instrument: Instrument) -> None:
        if problem := self._name_problem(instrument):
            self.problems.append(problem)
            return
        self.by_native[instrument.native] = instrument
        code = instrument.code or instrument.base
        self._has_contracts = self._has_contracts or bool(instrument.settle)
        if not instrument.settle:  # what accounts hold is traded itself
            self._assets |= {code, instrument.quote}
            self._by_code.setdefault((code, instrument.quote), instrument)
            if instrument.is_trading:
                self._by_code[code, instrument.quote] = instrument
        known = self._by_symbol.get(instrument.symbol)
        if known is None or (instrument.is_trading and not known.is_trading):
            self._by_symbol[instrument.symbol] = instrument
        elif instrument.is_trading and known.native != instrument.native:
            self._conflicts.setdefault(instrument.symbol, [known.native]).append(instrument.native)

    def _name_problem(self, instrument: Instrument) -> str:
        for part in (instrument.base, instrument.quote, *filter(None, (instrument.settle,))):
            if not part or "/" in part or ":" in part or not part.isprintable() or " " in part:
                return f"{self.exchange}: instrument {instrument.native!r} has the unusable name {part!r}"
        for name in (instrument.native, instrument.symbol):
            try:
                wire.topic(wire.TICKER, self.exchange, name)
            except ValueError as exc:
                return f"{self.exchange}: instrument {instrument.native!r} left out: {exc}"
        return ""

    def _conflict(self, symbol: str, natives: list[str]) -> str:
        return f"{self.exchange}: {symbol} is claimed by {' and '.join(natives)}; neither is published"

    def symbol_of(self, native: str) -> str | None:
        """Return the canonical symbol of a native one; None if unknown or in conflict."""
        instrument = self.by_native.get(native)
        if instrument is None or instrument.symbol in self._conflicts:
            return None
        return instrument.symbol

    def tick_of(self, symbol: str) -> str:
        """Return the step between prices of a canonical symbol; "" if it is not known."""
        instrument = self._by_symbol.get(symbol)
        return instrument.tick if instrument is not None else ""

    def lists(self, asset: str) -> bool:
        """Return whether an asset, as accounts call it, is one side of an instrument."""
        return asset in self._assets

    def symbol_of_code(self, code: str, quote: str) -> str:
        """Return the canonical symbol of an asset, as accounts call it, against a quote; "": not tradable."""
        instrument = self._by_code.get((code, quote))
        return instrument.symbol if instrument is not None and self.is_tradable(instrument.symbol) else ""

    def is_tradable(self, symbol: str) -> bool:
        """Return whether there is a tradable instrument behind a canonical symbol."""
        instrument = self._by_symbol.get(symbol)
        return instrument is not None and instrument.is_trading and symbol not in self._conflicts

    def trading(self, symbol: str) -> str:
        """Return the native symbol of a canonical one that is tradable, "" if there is none."""
        return self._by_symbol[symbol].native if self.is_tradable(symbol) else ""

    def resolve(self, symbol: str) -> Instrument:
        """Return the tradable instrument behind a canonical symbol.

        Raises SubscriptionRejected with the reason, and with the nearest names if it is one of the first unknown.
        """
        if symbol in self._conflicts:
            raise SubscriptionRejected(self._conflict(symbol, self._conflicts[symbol]))
        instrument = self._by_symbol.get(symbol)
        if instrument is None:
            raise SubscriptionRejected(f"{self.exchange} lists no {symbol}{self.hint(symbol)}")
        if not instrument.is_trading:
            why = instrument.note or f"not trading, status {instrument.status or 'unknown'}"
            raise SubscriptionRejected(f"{self.exchange}: {symbol} ({instrument.native}) is {why}")
        return instrument

    def covers(self, symbol: str) -> bool:
        """Return whether a list is here in which a symbol of this form would be: a list of contracts is another."""
        return ":" not in symbol or self._has_contracts

    def has(self, symbol: str) -> bool:
        """Return whether the exchange lists a canonical symbol, tradable or not."""
        return symbol in self._by_symbol

    def hint(self, symbol: str) -> str:
        """Return what may have been meant by an unknown symbol, to be appended to a message."""
        if symbol not in self._hints and len(self._hints) < HINTS_MAX:
            folded = symbol.casefold()
            close = [known for known in self._by_symbol if known.casefold() == folded]
            close = close or difflib.get_close_matches(symbol, self._by_symbol, n=3)
            self._hints[symbol] = f"; did you mean {', '.join(close)}?" if close else ""
        return self._hints.get(symbol, "")


class InstrumentRow(msgspec.Struct):
    """One instrument in the JSON body of an `instruments` record."""

    symbol: str
    native: str
    base: str
    quote: str
    trading: bool
    status: str = ""
    code: str = ""
    note: str = ""
    tick: str = ""
    market: str = SPOT
    settle: str = ""
    contract_size: str = ""


class InstrumentList(msgspec.Struct):
    """JSON body of an `instruments` record, and the shape of the cache on disk.

    as_of_ns is the Unix time at which the exchange gave the list; problems are of rows that could not be read.
    """

    exchange: str
    as_of_ns: int
    instruments: list[InstrumentRow]
    problems: list[str] = []

    def table(self) -> InstrumentTable:
        """Return the lookup tables."""
        rows = (
            Instrument(
                r.native,
                r.base,
                r.quote,
                r.trading,
                r.status,
                r.code,
                r.note,
                r.tick,
                r.market,
                r.settle,
                r.contract_size,
            )
            for r in self.instruments
        )
        return InstrumentTable(self.exchange, rows, self.problems)


def instrument_list(
    exchange: str, as_of_ns: int, instruments: Iterable[Instrument], problems: Iterable[str] = ()
) -> InstrumentList:
    """Return the list in the shape that is published and cached."""
    rows = [
        InstrumentRow(
            i.symbol,
            i.native,
            i.base,
            i.quote,
            i.is_trading,
            i.status,
            i.code,
            i.note,
            i.tick,
            i.market,
            i.settle,
            i.contract_size,
        )
        for i in instruments
    ]
    return InstrumentList(exchange, as_of_ns, rows, list(problems))
