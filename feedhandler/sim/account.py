"""One simulated account: what it holds, exactly, and what changed.

Pure: times are arguments. Amounts are decimals and never rounded, but for the value of a trade. What an
exchange calls a wallet, and how it prints a change, is in its own file.

Opening holdings, available + held by open orders:

    binance, spot      BTC 1.25 + 0.05   ETH 12.5   USDT 10000.5 + 250   BNB 0
    kucoin, trade      BTC 1.25 + 0.05   ETH 12.5   USDT 10000.5 + 250
    kucoin, trade_hf   nothing
    kucoin, main       BTC 0.1           USDT 500
    bybit, unified     BTC 1.25 + 0.05   ETH 12.5   USDT 10000.5 + 250
"""

from collections.abc import Mapping
from decimal import ROUND_DOWN, Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow

import msgspec

ASSETS_MAX = 1000
AMOUNT_MAX = Decimal(10) ** 15
# 15 digits before the point and 18 behind it, and the product of two such numbers, fit without rounding.
_EXACT = Context(prec=80, traps=[Inexact, InvalidOperation, DivisionByZero, Overflow])
_ROUNDING = Context(prec=80, rounding=ROUND_DOWN)
ZERO = Decimal(0)
HOLDINGS: dict[str, dict[str, tuple[str, str]]] = {
    "spot": {"BTC": ("1.25", "0.05"), "ETH": ("12.5", "0"), "USDT": ("10000.5", "250"), "BNB": ("0", "0")},
    "trade": {"BTC": ("1.25", "0.05"), "ETH": ("12.5", "0"), "USDT": ("10000.5", "250")},
    "trade_hf": {},
    "main": {"BTC": ("0.1", "0"), "USDT": ("500", "0")},
    "unified": {"BTC": ("1.25", "0.05"), "ETH": ("12.5", "0"), "USDT": ("10000.5", "250")},
}


class AccountError(ValueError):
    """The change is impossible; the message is for whoever ordered it."""


class Balance(msgspec.Struct):
    """`held` is reserved for open orders; both are never negative."""

    available: Decimal = ZERO
    held: Decimal = ZERO

    @property
    def total(self) -> Decimal:
        return _EXACT.add(self.available, self.held)


class BalanceChange(msgspec.Struct, frozen=True, kw_only=True):
    """One asset as it is now, and by how much it moved."""

    asset: str
    available: Decimal
    held: Decimal
    available_change: Decimal
    held_change: Decimal

    @property
    def total(self) -> Decimal:
        return _EXACT.add(self.available, self.held)


class Update(msgspec.Struct, frozen=True, kw_only=True):
    """What happened at one instant, in one wallet."""

    wallet: str
    reason: str  # transfer, hold, trade
    number: int  # rises by one with each update of the wallet
    unix_ns: int
    changes: list[BalanceChange]


class Account:
    """One wallet. `decimals`: how finely its exchange counts."""

    def __init__(self, wallet: str, decimals: int) -> None:
        self.wallet = wallet
        self.decimals = decimals
        self.updated_unix_ns = 0  # 0: nothing has changed yet
        self.balances = {
            asset: Balance(Decimal(available), Decimal(held))
            for asset, (available, held) in HOLDINGS[wallet].items()
        }
        self._number = 0

    def transfer(self, asset: str, amount: Decimal, unix_ns: int) -> Update:
        """Deposit, or withdraw what is negative. Raises AccountError for more than is available."""
        return self._change("transfer", {asset: (amount, ZERO)}, unix_ns)

    def hold(self, asset: str, amount: Decimal, unix_ns: int) -> Update:
        """Reserve for an open order, or release what is negative. Raises AccountError if there is less."""
        return self._change("hold", {asset: (amount.copy_negate(), amount)}, unix_ns)

    def trade(self, base: str, quote: str, size: Decimal, price: Decimal, unix_ns: int) -> Update:
        """Buy, or sell what is negative, at `price`; the value is rounded down to what can be counted."""
        self._check_amount(size)
        value = _ROUNDING.quantize(_EXACT.multiply(size, price), Decimal(1).scaleb(-self.decimals))
        return self._change("trade", {base: (size, ZERO), quote: (value.copy_negate(), ZERO)}, unix_ns)

    def _change(self, reason: str, moves: Mapping[str, tuple[Decimal, Decimal]], unix_ns: int) -> Update:
        """Apply all moves, or none."""
        changes = [self._moved(asset, *move) for asset, move in moves.items()]
        for change in changes:
            self.balances[change.asset] = Balance(change.available, change.held)
        self._number += 1
        self.updated_unix_ns = unix_ns
        return Update(
            wallet=self.wallet, reason=reason, number=self._number, unix_ns=unix_ns, changes=changes
        )

    def _moved(self, asset: str, available: Decimal, held: Decimal) -> BalanceChange:
        self._check_amount(available)
        balance = self.balances.get(asset)
        if balance is None:
            self._check_new(asset)
            balance = Balance()
        after = Balance(_EXACT.add(balance.available, available), _EXACT.add(balance.held, held))
        if after.available < 0 or after.held < 0:
            raise AccountError(
                f"{self.wallet} has {plain(balance.available)} {asset} available and {plain(balance.held)} held"
            )
        if after.total > AMOUNT_MAX:
            raise AccountError(f"{self.wallet} cannot hold more than {plain(AMOUNT_MAX)} {asset}")
        return BalanceChange(
            asset=asset,
            available=after.available,
            held=after.held,
            available_change=available,
            held_change=held,
        )

    def _check_amount(self, amount: Decimal) -> None:
        if not amount.is_finite() or abs(amount) > AMOUNT_MAX:
            raise AccountError(f"an amount must be from -{plain(AMOUNT_MAX)} to {plain(AMOUNT_MAX)}")
        exponent = amount.normalize(_EXACT).as_tuple().exponent
        if isinstance(exponent, int) and -exponent > self.decimals:
            raise AccountError(f"{self.wallet} counts {self.decimals} decimals, and {amount} has more")

    def _check_new(self, asset: str) -> None:
        if not 1 <= len(asset) <= 20 or not asset.isalnum() or asset != asset.upper():
            raise AccountError(f"an asset is 1 to 20 capital letters and digits, such as DOGE, not {asset!r}")
        if len(self.balances) >= ASSETS_MAX:
            raise AccountError(f"{self.wallet} holds {ASSETS_MAX} assets already")

    def describe(self) -> dict[str, object]:
        """Print what it holds, for people."""
        return {
            asset: {"available": plain(each.available), "held": plain(each.held)}
            for asset, each in self.balances.items()
        }


def plain(amount: Decimal) -> str:
    """Print without exponent and without trailing zeros: 1000, 0.00000001."""
    return format(amount.normalize(_EXACT), "f") if amount else "0"


def fixed(amount: Decimal, places: int) -> str:
    """Print with exactly `places` decimals; there must not be more."""
    return format(_EXACT.quantize(amount, Decimal(1).scaleb(-places)), "f")


def product(amount: Decimal, price: Decimal, places: int) -> Decimal:
    """Value an amount, rounded down to `places` decimals."""
    return _ROUNDING.quantize(_EXACT.multiply(amount, price), Decimal(1).scaleb(-places))
