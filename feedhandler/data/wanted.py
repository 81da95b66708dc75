"""What is wanted of one exchange besides what is configured: by whom which symbols, and whether at all.

The control plane writes it to a file in the run directory, and the exchange's feeds follow that file: so it
survives every restart, and a feed that starts later finds it. An owner's symbols are its own, so that two who want
the same do not fight. Pure: where it is kept is `transport/files.py`'s business.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

MAJORS: Final = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "ADA/USDT", "XRP/USDT")  # where nothing is configured
LISTED_MAX: Final = 10  # symbols of one owner in a line of a log
OPERATOR: Final = "operator"  # the owner of what is requested by hand,
HOLDINGS: Final = "holdings"  # of what the account holds,
POSITIONS: Final = "positions"  # and of what is stated to be held elsewhere


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """Symbols as `BASE/QUOTE`. requested: by owner. excluded: configured ones that the operator does not want.

    connect: whether the exchange is to be connected to at all; None: as configured.
    """

    requested: dict[str, list[str]] = {}
    excluded: list[str] = []
    connect: bool | None = None

    def is_connected(self, configured: bool) -> bool:
        """Return whether the exchange is to be connected to."""
        return configured if self.connect is None else self.connect

    def base(self, configured: Sequence[str]) -> Sequence[str]:
        """Return what is wanted without a request: the configured; the majors if none is, and nothing is held."""
        is_held = any(self.requested.get(owner) for owner in (HOLDINGS, POSITIONS))
        return configured if configured or is_held else MAJORS

    def symbols(self, configured: Sequence[str]) -> list[str]:
        """Return all that is wanted, each once, the configured first."""
        excluded = set(self.excluded)
        found = dict.fromkeys(symbol for symbol in self.base(configured) if symbol not in excluded)
        for symbols in self.requested.values():
            found |= dict.fromkeys(symbols)
        return list(found)

    def replace(self, owner: str, symbols: Iterable[str]) -> None:
        """Let an owner want exactly these."""
        self._set(owner, dict.fromkeys(symbols))

    def subscribe(self, symbols: Iterable[str], configured: Sequence[str], owner: str = OPERATOR) -> None:
        """Want these too; what is configured needs no request, only no exclusion."""
        own = dict.fromkeys(self.requested.get(owner, ()))
        for symbol in symbols:
            if symbol in self.excluded:
                self.excluded.remove(symbol)
            if symbol not in self.base(configured):
                own[symbol] = None
        self._set(owner, own)

    def unsubscribe(self, symbols: Iterable[str], configured: Sequence[str], owner: str = OPERATOR) -> None:
        """Want these no more, as far as this owner is concerned; by hand, also if they are configured."""
        own = dict.fromkeys(self.requested.get(owner, ()))
        for symbol in symbols:
            own.pop(symbol, None)
            if owner == OPERATOR and symbol in self.base(configured) and symbol not in self.excluded:
                self.excluded.append(symbol)
        self._set(owner, own)

    def owners(self, symbol: str) -> list[str]:
        """Return who has requested a symbol."""
        return [owner for owner, symbols in self.requested.items() if symbol in symbols]

    def besides(self, exchange: str, is_configured: bool) -> str:
        """Return in words what this adds to the configuration, and takes away; is_configured: to be connected."""
        parts = [f"{_listed(symbols)} ({owner})" for owner, symbols in self.requested.items()]
        if self.excluded:
            parts.append(f"not {_listed(self.excluded)}")
        if is_configured and not self.is_connected(is_configured):
            parts.append(f"disconnected by order (`feedhandler connect {exchange}` ends that)")
        elif self.is_connected(is_configured) and not is_configured:
            parts.append(f"connected by order (`feedhandler disconnect {exchange}` ends that)")
        return "; ".join(parts) or "nothing"

    def _set(self, owner: str, symbols: Iterable[str]) -> None:
        self.requested[owner] = list(symbols)
        if not self.requested[owner]:
            del self.requested[owner]


def _listed(symbols: Sequence[str]) -> str:
    more = len(symbols) - LISTED_MAX
    return ", ".join(symbols[:LISTED_MAX]) + (f" and {more} more" if more > 0 else "")
