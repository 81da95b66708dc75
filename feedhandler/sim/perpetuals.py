"""What a perpetual contract has beside trades and a book: mark, index, funding, open interest, liquidations.

Pure, and no fact about any exchange. Everything follows from the contract and the spot pair that it is about, or
another index, so it moves with the market. Prices are in ticks, which both have in common, amounts in lots, rates
in 10**-RATE_DECIMALS.
"""

import random
from collections.abc import Callable, Sequence

import msgspec

from feedhandler.sim.market import ContractInstrument, Instrument

RATE_DECIMALS = 8
RATE_ONE = 100_000_000  # as much as the price itself
assert len(str(RATE_ONE)) == 1 + RATE_DECIMALS
RATE_MAX = 750_000  # 0.75 % a period
INTEREST = 10_000  # 0.01 %, that funding tends to
MINUTE_NS = 60 * 1_000_000_000
HOUR_NS = 60 * MINUTE_NS
LIQUIDATION_GAP_NS = 1_000_000_000  # between two that are told of one contract: the others are left out
ONE_IN = 16  # trades, is a liquidation


class Perpetual:
    """One contract; what is paid is settled each time an interval is over. index is its pair's if none is given."""

    def __init__(
        self, contract: Instrument, interval_ns: int, index: Callable[[], int] | None = None
    ) -> None:
        self.contract = contract
        self.interval_ns = interval_ns
        self._index = index
        self._volume = contract.base_volume
        self._period = 0  # number of the interval that was looked at last
        self._settled_rate = INTEREST
        self._minute, self._rate_of_minute = 0, INTEREST

    @property
    def index(self) -> int:
        if self._index is not None:
            return self._index()
        assert isinstance(self.contract, ContractInstrument), "what is about no pair has an index of its own"
        return int(self.contract.pair.last)

    @property
    def mark(self) -> int:
        """Between the contract's quote and the index, so that no single trade moves it far."""
        return int(self.contract.bid + self.contract.ask + 2 * self.index) // 4

    @property
    def premium(self) -> int:
        return (self.mark - self.index) * RATE_ONE // self.index

    @property
    def rate(self) -> int:
        """What longs will pay to shorts when this interval is over, as it looks now."""
        return max(-RATE_MAX, min(RATE_MAX, INTEREST + self.premium))

    def rate_of_minute(self, unix_ns: int) -> int:
        """Return the rate as it looked first in this minute."""
        minute = unix_ns // MINUTE_NS
        if self._minute != minute:
            self._minute, self._rate_of_minute = minute, self.rate
        return self._rate_of_minute

    def funding_ns(self, unix_ns: int) -> int:
        """Return when this interval is over: exactly on a multiple of it."""
        return (unix_ns // self.interval_ns + 1) * self.interval_ns

    def settled_rate(self, unix_ns: int) -> int:
        """Return what was paid when the last interval was over."""
        period = unix_ns // self.interval_ns
        if self._period != period:
            self._period, self._settled_rate = period, self.rate
        return self._settled_rate

    @property
    def open_interest(self) -> int:
        """Every trade opens positions or closes some: it goes up and down with what is traded."""
        swing = self._volume // 4 + 1
        return swing + abs((self.contract.base_volume - self._volume + swing) % (2 * swing) - swing)


class LiquidatedPosition(msgspec.Struct, frozen=True):
    """A position that was closed by force; is_sell: a long one."""

    instrument: Instrument
    is_sell: bool
    price: int
    size: int
    unix_ns: int


class LiquidationSource:
    """Now and then a trade is a liquidation; of each contract at most one a second is told.

    `changed` names the instrument that has changed just now.
    """

    def __init__(self, contracts: Sequence[Instrument], changed: Callable[[], Instrument], seed: str) -> None:
        self._contracts = {id(each) for each in contracts}
        self._changed = changed
        self._random = random.Random(f"liquidations {seed}")
        self._trade_ids: dict[int, int] = {}  # of the newest that was looked at, by contract
        self._told_ns: dict[int, int] = {}
        first = contracts[0]
        self.message = LiquidatedPosition(
            first, first.is_sell, first.last, first.last_size, first.traded_unix_ns
        )

    def start(self) -> None:
        """Nothing that was before is told."""

    def stop(self) -> None:
        self._trade_ids.clear()

    def take(self) -> bool:
        each = self._changed()
        if id(each) not in self._contracts:
            return False
        before = self._trade_ids.get(id(each), each.trade_id)
        self._trade_ids[id(each)] = each.trade_id
        if before == each.trade_id or self._random.randrange(ONE_IN):
            return False
        if each.traded_unix_ns - self._told_ns.get(id(each), 0) < LIQUIDATION_GAP_NS:
            return False
        self._told_ns[id(each)] = each.traded_unix_ns
        away = max(1, each.last // 200)  # the price at which nothing is left of the position
        is_sell = bool(self._random.getrandbits(1))
        price = each.last - away if is_sell else each.last + away
        self.message = LiquidatedPosition(each, is_sell, max(1, price), each.last_size, each.traded_unix_ns)
        return True

    def lose(self) -> bool:
        return self.take()
