"""What may be set about connections to an exchange, and how many may be made."""

import collections
import random
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from feedhandler.data.units import NS_PER_DAY, NS_PER_MINUTE, NS_PER_S

LEGS_MAX: Final = 3  # connections that carry the same symbols


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator may set about a connection's life."""

    backoff_min_s: float = 1.0
    backoff_max_s: float = 30.0
    max_attempts: int = 10  # in a row that came to nothing; 0 = never give up
    connect_timeout_s: float = 10.0
    # Where data should have come, and none did on the whole connection for so long: its records are flagged STALE,
    stale_after_s: float = 5.0
    reconnect_after_s: float = 30.0  # and after so long there is a new connection
    max_age_s: float = 0.0  # of a connection, which is renewed before; 0 = the exchange's own

    def backoff_s(self, attempts: int, rng: random.Random) -> float:
        """Return how long to wait after so many failures in a row.

        Full jitter: anywhere between now and a ceiling that doubles with each failure.
        """
        exponent = min(max(attempts - 1, 0), 16)
        return rng.uniform(0.0, min(self.backoff_max_s, self.backoff_min_s * 2**exponent))


class ConnectBudget:
    """Permission for new connections, shared by all sessions of a process: `count` in any `per_s`.

    Over processes it is shared by `transport.shared_budget`.
    """

    def __init__(self, count: int, per_s: float) -> None:
        self._per_ns = int(per_s * NS_PER_S)
        self._times: collections.deque[int] = collections.deque(maxlen=count)

    def next_mono_ns(self, now_mono_ns: int, more: int = 1) -> int:
        """Return the earliest time at which so many more connections are permitted."""
        return self._next(self._times, more)

    def _next(self, times: Sequence[int], more: int) -> int:
        """Return the same, as these times of others have it, in order."""
        excess = len(times) + more - (self._times.maxlen or 0)
        return times[excess - 1] + self._per_ns if excess > 0 else 0

    def take(self, now_mono_ns: int, more: int = 1) -> bool:
        """Count so many connections, if they are permitted now."""
        if self.next_mono_ns(now_mono_ns, more) > now_mono_ns:
            return False
        self._times.extend([now_mono_ns] * more)
        return True


class DailyWindow:
    """A part of each day, UTC, such as `04:00-04:30`; it may span midnight. Raises ValueError for anything else."""

    def __init__(self, text: str) -> None:
        match = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)", text)
        if match is None or match[1] + match[2] == match[3] + match[4]:
            raise ValueError(f"{text!r} is no part of a day")
        hour, minute, end_hour, end_minute = map(int, match.groups())
        start, end = ((hour * 60 + minute) * NS_PER_MINUTE, (end_hour * 60 + end_minute) * NS_PER_MINUTE)
        self._start_ns = start
        self._length_ns = (end - start) % NS_PER_DAY
        self._was_inside = True  # what starts inside has new connections anyway

    def opens(self, now_ns: int) -> bool:
        """True at the first look inside, each day; now is Unix time."""
        is_inside = (now_ns - self._start_ns) % NS_PER_DAY < self._length_ns
        was_inside, self._was_inside = self._was_inside, is_inside
        return is_inside and not was_inside
