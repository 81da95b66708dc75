"""What is wanted of one exchange besides what its configuration names: who asked for which symbols.

The control plane writes it to a file in the run directory, and the exchange's feeds follow that file: so it
survives every restart, and a feed that starts later finds it. An owner's symbols are its own, so that two who want
the same do not fight. Pure: where it is kept is `transport/files.py`'s business.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

OPERATOR: Final = "operator"  # the owner of what is asked for by hand


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """Symbols as `BASE/QUOTE`. requested: by owner. excluded: configured ones that the operator does not want."""

    requested: dict[str, list[str]] = {}
    excluded: list[str] = []

    def symbols(self, configured: Sequence[str]) -> list[str]:
        """Return all that is wanted, each once, the configured first."""
        excluded = set(self.excluded)
        found = dict.fromkeys(symbol for symbol in configured if symbol not in excluded)
        for symbols in self.requested.values():
            found |= dict.fromkeys(symbols)
        return list(found)

    def subscribe(self, symbols: Iterable[str], configured: Sequence[str], owner: str = OPERATOR) -> None:
        """Want these too; what is configured needs no request, only no exclusion."""
        own = dict.fromkeys(self.requested.get(owner, ()))
        for symbol in symbols:
            if symbol in self.excluded:
                self.excluded.remove(symbol)
            if symbol not in configured:
                own[symbol] = None
        self._set(owner, own)

    def unsubscribe(self, symbols: Iterable[str], configured: Sequence[str], owner: str = OPERATOR) -> None:
        """Want these no more, as far as this owner is concerned; by hand, also if they are configured."""
        own = dict.fromkeys(self.requested.get(owner, ()))
        for symbol in symbols:
            own.pop(symbol, None)
            if owner == OPERATOR and symbol in configured and symbol not in self.excluded:
                self.excluded.append(symbol)
        self._set(owner, own)

    def owners(self, symbol: str) -> list[str]:
        """Return who has requested a symbol."""
        return [owner for owner, symbols in self.requested.items() if symbol in symbols]

    def _set(self, owner: str, symbols: Iterable[str]) -> None:
        self.requested[owner] = list(symbols)
        if not self.requested[owner]:
            del self.requested[owner]
