"""How many requests an address may make. Pure: the time is an argument."""

from collections import OrderedDict
from typing import Final

ADDRESSES_MAX: Final = 1024  # the one without requests for longest is forgotten, and so begins anew


class Rates:
    """How many requests each may still make, as buckets that fill up again."""

    def __init__(self, per_s: float, at_once: float) -> None:
        self._per_s, self._at_once = per_s, at_once
        self._buckets: OrderedDict[object, tuple[float, float]] = OrderedDict()  # left, as of

    def take(self, whom: object, now_s: float) -> float:
        """Count one request; returns 0, or the seconds after which it may come."""
        left, as_of = self._buckets.pop(whom, (self._at_once, now_s))
        left = min(self._at_once, left + (now_s - as_of) * self._per_s)
        wait_s = 0.0 if left >= 1 else (1 - left) / self._per_s
        self._buckets[whom] = left - 1 if left >= 1 else left, now_s
        if len(self._buckets) > ADDRESSES_MAX:
            self._buckets.popitem(last=False)
        return wait_s
