"""What simulated perpetuals of Bybit have besides what `perpetuals.py` says of all: an index, and liquidations.

Pure: each follows from the contract's own market. They are others than the pairs of spot, so each has an index of
its own, which moves around the market, in the course of some trades up to `PREMIUM_MAX` away from it.
"""

import random
from collections.abc import Callable
from math import pi, sin
from typing import NamedTuple

from feedhandler.sim.market import Instrument
from feedhandler.sim.perpetuals import Perpetual
from feedhandler.sim.protocol import NS_PER_S

PREMIUM_MAX = 0.0008
PREMIUM_TRADES = 500  # from one course to the next
INTERVALS_H = (8, 8, 8, 4, 1)  # in turn
LIQUIDATION_SHARE = 8  # one of so many looks at a market that has changed finds some
LIQUIDATIONS_MAX = 3


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
    return instrument.listing.funding_hours or INTERVALS_H[instrument.index % len(INTERVALS_H)]


def perpetual_of(instrument: Instrument, hour_s: float) -> Perpetual:
    """Return the contract; hour_s: how long an hour of funding takes, for tests."""
    return Perpetual(instrument, int(interval_h_of(instrument) * hour_s * NS_PER_S), _index_of(instrument))


def _index_of(instrument: Instrument) -> Callable[[], int]:
    def index() -> int:
        premium = PREMIUM_MAX * sin(2 * pi * instrument.trade_id / PREMIUM_TRADES + instrument.index)
        return max(1, round((instrument.bid + instrument.ask) / 2 * (1 - premium)))

    return index


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
