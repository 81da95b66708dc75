"""What simulated perpetuals of Bybit have besides a market: mark, index, funding, open interest, liquidations.

Pure: each value follows from the contract's own market and the time, so REST and streams agree and nothing is kept.
The index moves around the market, in the course of half an hour up to `PREMIUM_MAX` away from it; the funding rate
is the premium, bounded, and is due at the same moments for all contracts of an interval.
"""

import random
from math import pi, sin
from typing import NamedTuple

from feedhandler.sim.market import Instrument
from feedhandler.sim.protocol import NS_PER_S, Now

PREMIUM_MAX = 0.0008
PREMIUM_PERIOD_S = 1800.0
INTEREST_RATE = 0.0001
RATE_BOUND = 0.0005  # the rate is at most so far from the interest
INTERVALS_H = (8, 8, 8, 4, 1)  # in turn
LIQUIDATION_SHARE = 8  # one of so many looks at a market that has changed finds some
LIQUIDATIONS_MAX = 3
RATE_DECIMALS = 8


class ContractValues(NamedTuple):
    """Prices in ticks, open interest in lots, each position counted once, the rate in units of 10**-8."""

    mark_price: int
    index_price: int
    funding_rate: int
    next_funding_ms: int
    interval_h: int
    open_interest: int


class EndedPosition(NamedTuple):
    """A position that was ended: at the price, in ticks, at which it is worth nothing. Size in lots."""

    ago_ms: int  # before it is told
    is_long: bool
    price: int
    size: int

    @property
    def is_sell(self) -> bool:
        """A long position is sold."""
        return self.is_long


def interval_h_of(instrument: Instrument) -> int:
    """Return how many hours are between two fundings."""
    return INTERVALS_H[instrument.index % len(INTERVALS_H)]


def contract_values(instrument: Instrument, now: Now, hour_s: float = 3600.0) -> ContractValues:
    """Return the values at a moment; hour_s: how long an hour of funding takes, for tests."""
    seconds = now.unix_ns / NS_PER_S
    premium = PREMIUM_MAX * sin(2 * pi * seconds / PREMIUM_PERIOD_S + instrument.index)
    middle = (instrument.bid + instrument.ask) / 2
    index = max(1, round(middle * (1 - premium)))
    mark = max(1, round(index + (middle - index) / 2))
    interval_h = interval_h_of(instrument)
    interval_ms = int(interval_h * hour_s * 1000)
    due_ms = (now.unix_ms // interval_ms + 1) * interval_ms
    # As of the minute, and of the premium then.
    minute_s = seconds - seconds % 60
    then = PREMIUM_MAX * sin(2 * pi * minute_s / PREMIUM_PERIOD_S + instrument.index)
    rate = max(INTEREST_RATE - RATE_BOUND, min(INTEREST_RATE + RATE_BOUND, then))
    open_interest = instrument.base_volume // 6 + instrument.trade_id % 97
    return ContractValues(mark, index, round(rate * 10**RATE_DECIMALS), due_ms, interval_h, open_interest)


def liquidations(instrument: Instrument) -> list[EndedPosition]:
    """Return those of the last moments before a change of the market: mostly none."""
    rng = random.Random(f"{instrument.listing.base} {instrument.listing.quote} {instrument.update_id}")
    if rng.randrange(LIQUIDATION_SHARE):
        return []
    found = []
    for number in range(rng.randint(1, LIQUIDATIONS_MAX)):
        is_long = bool(rng.getrandbits(1))
        away = rng.uniform(0.002, 0.02)
        price = instrument.last * (1 - away if is_long else 1 + away)
        size = 1 + int(10 ** rng.uniform(0, 5))
        found.append(EndedPosition(LIQUIDATIONS_MAX - number, is_long, max(1, round(price)), size))
    return found
