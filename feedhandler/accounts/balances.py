"""What an account holds, from two sources: REST now and then, and a stream of changes at once.

REST counts in the end, and the stream sooner. If both have worked, they must state the same: where they do not,
that is drift, which is counted and shown. Pure: times are monotonic nanoseconds, given as arguments.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final

import msgspec

from feedhandler.accounts.adapter import EXACT, Balance, Trouble
from feedhandler.data.errors import DecodeError
from feedhandler.data.units import NS_PER_S

# REST may be answered by a copy that is a little behind, and the stream's message may come after REST knew of it.
# What comes within this time before the request, or within it after the answer, is no contradiction.
SETTLE_NS: Final = 3 * NS_PER_S
ASSETS_MAX: Final = 20_000  # more than any exchange lists
DRIFTED_MAX: Final = 20  # listed; the count is complete


class BalanceRow(msgspec.Struct, frozen=True):
    """One asset in JSON: exact, in plain digits."""

    asset: str
    free: str
    locked: str
    total: str


class Drift(msgspec.Struct, frozen=True):
    """An asset of which stream and REST stated different totals."""

    asset: str
    stream: str
    rest: str


class AccountProblem(msgspec.Struct, frozen=True):
    """Why an account, or its stream, cannot be read, and what can be done; kind is a `Trouble`'s value."""

    kind: str
    message: str
    remedy: str


class AccountStatus(msgspec.Struct, kw_only=True):
    """One exchange's account, for people and programs; times are Unix ns, 0 = never."""

    exchange: str
    state: str = "off"  # off: no credentials; syncing: not known yet; live; failed: what is shown is old
    balances: list[BalanceRow] = []
    as_of_ns: int = 0
    stream: str = "off"  # off, connecting, live
    error: AccountProblem | None = None
    incomplete: AccountProblem | None = None  # some of the newest answer could not be read
    stream_error: AccountProblem | None = None
    drifts: int = 0
    drifted: list[Drift] = []  # the newest
    syncs: int = 0
    failures: dict[str, int] = {}  # of syncs, by kind
    stream_connects: int = 0
    undecodable: int = 0  # messages of the stream
    next_sync_ns: int = 0


def problem(trouble: Trouble, message: str, remedy: str = "") -> AccountProblem:
    """Return a trouble with its remedy, its own unless there is a better one."""
    return AccountProblem(trouble.value, message, remedy or trouble.remedy)


def plain(amount: Decimal) -> str:
    """Return an amount in digits, without an exponent and without zeros at its end."""
    text = f"{amount:f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text


class Ledger:
    """The balances of one account: of each asset the sum of its parts.

    After each call, `settle` is to be called once SETTLE_NS have passed, and at will.
    """

    def __init__(self) -> None:
        self.balances: dict[str, Balance] = {}
        self._parts: dict[str, dict[str, Balance]] = {}  # of each of these assets, by name
        self.drifts = 0
        self.drifted: list[Drift] = []  # the newest DRIFTED_MAX
        self._stated_mono_ns: dict[str, int] = {}  # by asset: when the stream last stated it
        self._live_since_mono_ns: int | None = None
        self._asked_mono_ns: int | None = None  # the time of the newest answer's request
        self._suspects: dict[str, tuple[int, Decimal, Decimal]] = {}  # since when; what stream and REST state

    def rows(self) -> list[BalanceRow]:
        """Return everything that is held, by asset."""
        return [
            BalanceRow(b.asset, plain(b.free), plain(b.locked), plain(b.total))
            for _, b in sorted(self.balances.items())
        ]

    def on_stream_live(self, now_mono_ns: int) -> None:
        """The stream sends every change from now on."""
        self._live_since_mono_ns = now_mono_ns

    def on_stream_lost(self) -> None:
        """It does not any more; what it sent still holds until REST states otherwise."""
        self._live_since_mono_ns = None
        self._suspects.clear()

    def on_stream(self, balances: Iterable[Balance], now_mono_ns: int) -> bool:
        """Take what the stream sent; returns whether anything is different now. Raises DecodeError for too much."""
        is_changed = False
        for balance in balances:
            if balance.asset not in self._stated_mono_ns and len(self._stated_mono_ns) >= ASSETS_MAX:
                raise DecodeError(f"more than {ASSETS_MAX} assets")
            self._stated_mono_ns[balance.asset] = now_mono_ns
            parts = {**self._parts.get(balance.asset, {}), balance.part: balance}
            is_changed |= self._set(balance.asset, parts)
            suspect = self._suspects.get(balance.asset)
            if suspect is not None and suspect[2] == self._total(balance.asset):
                del self._suspects[balance.asset]  # it was only late
        return is_changed

    def on_sync(
        self,
        balances: Sequence[Balance],
        asked_mono_ns: int,
        now_mono_ns: int,
        *,
        is_complete: bool = True,
    ) -> bool:
        """Take an answer of REST, of all balances; returns whether anything is different now.

        One whose request is older than that of another answer changes nothing. is_complete: what it does not have
        is not held; else nothing is known of that. Raises DecodeError for too much.
        """
        if len(balances) > ASSETS_MAX:
            raise DecodeError(f"more than {ASSETS_MAX} assets")
        if self._asked_mono_ns is not None and asked_mono_ns < self._asked_mono_ns:
            return False
        self.settle(now_mono_ns)
        is_checked = (
            self._live_since_mono_ns is not None
            and self._asked_mono_ns is not None
            and self._live_since_mono_ns + SETTLE_NS <= self._asked_mono_ns  # else that copy was of before
        )
        stated: dict[str, dict[str, Balance]] = (
            {} if is_complete else {a: dict(p) for a, p in self._parts.items()}
        )
        for balance in balances:
            stated.setdefault(balance.asset, {})[balance.part] = balance
        is_changed = False
        for asset in {*stated, *self.balances}:
            if self._stated_mono_ns.get(asset, -SETTLE_NS) > asked_mono_ns - SETTLE_NS:
                continue  # the stream may know better; the next answer decides
            known = self._total(asset)
            is_changed |= self._set(asset, stated.get(asset, {}))
            if is_checked and known != (total := self._total(asset)) and asset not in self._suspects:
                self._suspects[asset] = (now_mono_ns, known, total)
        self._asked_mono_ns = asked_mono_ns
        return is_changed

    def is_open(self, asked_mono_ns: int) -> bool:
        """Return whether the answer to a request left something open, which another one would decide.

        What the stream had just sent, or what came before a stream that was just live.
        """
        latest = [*self._stated_mono_ns.values(), self._live_since_mono_ns or -SETTLE_NS]
        return max(latest) > asked_mono_ns - SETTLE_NS

    def settle(self, now_mono_ns: int) -> bool:
        """Count the contradictions that nothing has explained in time; returns whether there were any."""
        due = [asset for asset, (since, _, _) in self._suspects.items() if now_mono_ns - since >= SETTLE_NS]
        for asset in due:
            _, streamed, stated = self._suspects.pop(asset)
            self.drifts += 1
            self.drifted = [*self.drifted, Drift(asset, plain(streamed), plain(stated))][-DRIFTED_MAX:]
        return bool(due)

    def _total(self, asset: str) -> Decimal:
        balance = self.balances.get(asset)
        return balance.total if balance is not None else Decimal(0)

    def _set(self, asset: str, parts: Mapping[str, Balance]) -> bool:
        """Hold these parts of an asset, and no others; returns whether the sum is different now."""
        before = self.balances.pop(asset, None)
        self._parts.pop(asset, None)
        free = locked = Decimal(0)
        for part in parts.values():
            free, locked = EXACT.add(free, part.free), EXACT.add(locked, part.locked)
        held = {name: part for name, part in parts.items() if part.free or part.locked}
        if held:
            self.balances[asset], self._parts[asset] = Balance(asset, free, locked), held
        return before != self.balances.get(asset)
