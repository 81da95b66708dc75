"""What is wanted of one exchange besides the configuration: which symbols, in which kinds, by whom; or nothing.

The control plane writes it to a file in the run directory, and the exchange's feeds follow that file: so it
survives every restart, and a feed that starts later finds it. An owner's wishes are its own, so that two who want
the same do not fight. Pure: where it is kept is `transport/files.py`'s business.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from feedhandler.data.ticker import TICKER

MAJORS: Final = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "ADA/USDT", "XRP/USDT")  # where nothing is configured
DEFAULT_KINDS: Final = (TICKER.name,)  # likewise
LISTED_MAX: Final = 10  # symbols of one owner in a line of a log
OPERATOR: Final = "operator"  # the owner of what is requested by hand,
HOLDINGS: Final = "holdings"  # of what the account holds,
POSITIONS: Final = "positions"  # and of what is stated to be held elsewhere

Kinds = dict[str, list[str]]  # the kinds of records of some symbols: {"BTC/USDT": ["ticker"]}


class Configured(msgspec.Struct, frozen=True):
    """What the configuration wants of an exchange: each of these symbols, in each of these kinds."""

    symbols: tuple[str, ...] = MAJORS
    kinds: tuple[str, ...] = DEFAULT_KINDS


class Wanted(msgspec.Struct, forbid_unknown_fields=True):
    """Symbols as `BASE/QUOTE`, each with kinds. requested: by owner. excluded: configured, and not wanted by hand.

    connect: whether the exchange is to be connected to at all; None: as configured.
    """

    requested: dict[str, Kinds] = {}
    excluded: Kinds = {}
    connect: bool | None = None

    def is_connected(self, configured: bool) -> bool:
        """Return whether the exchange is to be connected to."""
        return configured if self.connect is None else self.connect

    def base(self, configured: Configured) -> Kinds:
        """Return what is wanted without a request: the configured; the majors if none is, and nothing is held."""
        is_held = any(self.requested.get(owner) for owner in (HOLDINGS, POSITIONS))
        symbols = configured.symbols if configured.symbols or is_held else MAJORS
        return {symbol: list(configured.kinds) for symbol in symbols}

    def kinds(self, configured: Configured) -> Kinds:
        """Return all that is wanted, each once, the configured first."""
        found = self.base(configured)
        _remove(found, self.excluded)
        for own in self.requested.values():
            _add(found, own)
        return found

    def replace(self, owner: str, symbols: Iterable[str], kinds: Sequence[str] = DEFAULT_KINDS) -> None:
        """Let an owner want exactly these."""
        self._set(owner, {symbol: list(kinds) for symbol in symbols})

    def subscribe(
        self,
        symbols: Iterable[str],
        configured: Configured,
        owner: str = OPERATOR,
        kinds: Sequence[str] = DEFAULT_KINDS,
    ) -> None:
        """Want these too; what is configured needs no request, only no exclusion."""
        asked = {symbol: list(kinds) for symbol in symbols}
        _remove(self.excluded, asked)
        _remove(asked, self.base(configured))
        own = self.requested.get(owner, {})
        _add(own, asked)
        self._set(owner, own)

    def unsubscribe(
        self,
        symbols: Iterable[str],
        configured: Configured,
        owner: str = OPERATOR,
        kinds: Sequence[str] = DEFAULT_KINDS,
    ) -> None:
        """Want these no more, as far as this owner is concerned; by hand, also if they are configured."""
        asked = {symbol: list(kinds) for symbol in symbols}
        own = self.requested.get(owner, {})
        _remove(own, asked)
        if owner == OPERATOR:
            base = self.base(configured)
            _add(self.excluded, {s: [k for k in each if k in base.get(s, ())] for s, each in asked.items()})
        self._set(owner, own)

    def owners(self, symbol: str, kind: str) -> list[str]:
        """Return who has requested a kind of a symbol."""
        return [owner for owner, own in self.requested.items() if kind in own.get(symbol, ())]

    def besides(self, exchange: str, is_configured: bool) -> str:
        """Return in words what this adds to the configuration, and takes away; is_configured: to be connected."""
        parts = [f"{listed(own)} ({owner})" for owner, own in self.requested.items()]
        if self.excluded:
            parts.append(f"not {listed(self.excluded)}")
        if is_configured and not self.is_connected(is_configured):
            parts.append(f"disconnected by order (`feedhandler connect {exchange}` ends that)")
        elif self.is_connected(is_configured) and not is_configured:
            parts.append(f"connected by order (`feedhandler disconnect {exchange}` ends that)")
        return "; ".join(parts) or "nothing"

    def _set(self, owner: str, own: Kinds) -> None:
        self.requested[owner] = own
        if not own:
            del self.requested[owner]


def spelled(symbol: str, kinds: Iterable[str]) -> str:
    """Return a symbol for people, with the kinds that are meant where it is not the default: `BTC/USDT (trade)`."""
    kinds = tuple(kinds)
    return symbol if kinds == DEFAULT_KINDS else f"{symbol} ({', '.join(kinds)})"


def difference(of: Mapping[str, Sequence[str]], others: Mapping[str, Sequence[str]]) -> Kinds:
    """Return which kinds of which symbols are in the first, and not in the other."""
    found = {symbol: list(kinds) for symbol, kinds in of.items()}
    _remove(found, others)
    return found


def listed(wanted: Kinds) -> str:
    """Return what is wanted for people, at most so much that it stays a line."""
    more = len(wanted) - LISTED_MAX
    first = [spelled(symbol, kinds) for symbol, kinds in list(wanted.items())[:LISTED_MAX]]
    return ", ".join(first) + (f" and {more} more" if more > 0 else "")


def _add(to: Kinds, others: Mapping[str, Sequence[str]]) -> None:
    for symbol, kinds in others.items():
        if kinds:
            to[symbol] = list(dict.fromkeys([*to.get(symbol, ()), *kinds]))


def _remove(of: Kinds, others: Mapping[str, Sequence[str]]) -> None:
    for symbol in [symbol for symbol in of if symbol in others]:
        of[symbol] = [kind for kind in of[symbol] if kind not in others[symbol]]
        if not of[symbol]:
            del of[symbol]
