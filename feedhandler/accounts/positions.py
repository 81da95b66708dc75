"""What is to be watched of what is held: each asset against the quote assets that the user reckons in.

A contract is held under its own symbol, and is watched itself. Pure, and by the exchange's own instrument list: no
symbol of an asset is made up that the exchange does not trade.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final

import msgspec

from feedhandler.data.instruments import InstrumentTable

LET_GO: Final = Decimal("0.5")  # of the dust threshold: below it, what was held before is held no more
UNPAIRED: Final = "traded against no quote asset of yours"


class Dust(msgspec.Struct, frozen=True):
    """Up to how much of an asset or contract, in its units, is no holding: of each, and of single ones."""

    default: Decimal
    of: Mapping[str, Decimal] = {}

    def is_held(self, asset: str, amount: Decimal, *, was_held: bool) -> bool:
        """Return whether so much is a holding; one that goes up and down about the threshold does not flap."""
        threshold = self.of.get(asset, self.default)
        return amount > threshold or (was_held and amount > 0 and amount >= threshold * LET_GO)


class Watched(msgspec.Struct, frozen=True):
    """What holdings lead to. symbols: canonical. unpaired: what is held and not watched, and why."""

    symbols: list[str]
    unpaired: dict[str, str]


def is_contract(asset: str) -> bool:
    """Return whether what is held is a contract, by its canonical symbol, `BASE/QUOTE:SETTLE`."""
    return ":" in asset


def held(amounts: Mapping[str, Decimal], dust: Dust, before: Iterable[str] = ()) -> list[str]:
    """Return the assets that are held, by name; before are those that were."""
    known = set(before)
    return sorted(a for a, amount in amounts.items() if dust.is_held(a, amount, was_held=a in known))


def by_code(table: InstrumentTable) -> Callable[[str, str], str]:
    """Return what finds the symbol of an asset that an account holds: accounts have the assets' codes."""
    return table.symbol_of_code


def by_name(table: InstrumentTable) -> Callable[[str, str], str]:
    """Return what finds the symbol of an asset that somebody named: as it is published, else by its code."""

    def find(asset: str, quote: str) -> str:
        symbol = f"{asset}/{quote}"
        return symbol if table.is_tradable(symbol) else table.symbol_of_code(asset, quote)

    return find


def folded(
    amounts: Mapping[str, Decimal], underlying: Callable[[str], str], table: InstrumentTable
) -> dict[str, Decimal]:
    """Return what is held, with what stands for another asset added to that one.

    Only where the exchange lists the other and not the one: names alone prove nothing.
    """
    found: dict[str, Decimal] = {}
    for asset, amount in amounts.items():
        other = underlying(asset)
        if not other or table.lists(asset) or not table.lists(other):
            other = asset
        found[other] = found.get(other, Decimal(0)) + amount
    return found


def watched(
    assets: Iterable[str],
    quotes: Sequence[str],
    find: Callable[[str, str], str],
    refused: Mapping[str, Exception] = {},
) -> Watched:
    """Pair each asset with each quote asset that the exchange trades it against. A quote asset needs no pair.

    find returns the symbol of an asset against a quote, "" if there is none that is tradable. refused: which
    contracts cannot be had, and why.
    """
    symbols: dict[str, None] = {}
    unpaired = {}
    for asset in assets:
        if is_contract(asset):
            if asset in refused:
                unpaired[asset] = str(refused[asset])
            else:
                symbols[asset] = None
            continue
        found = [symbol for quote in quotes if quote != asset and (symbol := find(asset, quote))]
        symbols |= dict.fromkeys(found)
        if not found and asset not in quotes:
            unpaired[asset] = UNPAIRED
    return Watched(list(symbols), unpaired)
