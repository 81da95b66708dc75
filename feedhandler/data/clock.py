"""How far an exchange's clock is from this host's, and how sure that is.

An exchange's answer to a request for its time is of some moment between request and answer: the offset is known to
half the round trip. Both clocks drift, so the estimate grows less sure, and another answer replaces it sooner or
later. An answer that contradicts the estimate is taken over when a second one agrees with it: what came out of a
cache is older each time.

Pure: it gets times, monotonic and Unix, and looks at no clock. It knows no exchange.
"""

from typing import Final

import msgspec

# What the estimate loses by age: the most that adjtime slews a clock (500 ppm), and more than a crystal is off. A
# faster slew shows as a contradiction.
DRIFT_PPM: Final = 500

# The coarsest unit in which an exchange states its time, cut off, not rounded.
RESOLUTION_NS: Final = 1_000_000

# Unix time that has gone so much further than monotonic time between two looks was set, not slewed: looks are some
# seconds apart, and 500 ppm of a minute are 30 ms.
STEP_NS: Final = 100_000_000

# A time that is further off than ten years is none; and sums stay within an i64.
NS_PER_YEAR: Final = 365 * 86_400 * 1_000_000_000
OFFSET_NS_MAX: Final = 10 * NS_PER_YEAR

# Two readings of clocks that are further apart are not of one moment: the process was stopped between them.
READING_NS_MAX: Final = 10_000_000
assert READING_NS_MAX < STEP_NS // 2

# An exchange's own clocks may differ so much: one answers REST, others stamp events.
TOLERANCE_NS: Final = 1_000_000_000


class Sample(msgspec.Struct, frozen=True):
    """One question for the time and its answer: monotonic times of ours, and the exchange's Unix time.

    unix_ns is this host's Unix time when the answer came.
    """

    sent_mono_ns: int
    received_mono_ns: int
    unix_ns: int
    exchange_ns: int


class Estimate(msgspec.Struct, frozen=True):
    """The exchange's clock is offset_ns ahead of ours, give or take uncertainty_ns, as of a monotonic time."""

    offset_ns: int
    uncertainty_ns: int
    at_mono_ns: int

    def at(self, now_mono_ns: int) -> "Estimate":
        """Return what is left of it at a later time."""
        age_ns = max(0, now_mono_ns - self.at_mono_ns)
        return Estimate(self.offset_ns, self.uncertainty_ns + age_ns * DRIFT_PPM // 1_000_000, now_mono_ns)

    def agrees(self, other: "Estimate") -> bool:
        """True if both can be true, each as of its own time."""
        apart_ns = abs(self.offset_ns - other.offset_ns)
        later = max(self.at_mono_ns, other.at_mono_ns)
        return apart_ns <= self.at(later).uncertainty_ns + other.at(later).uncertainty_ns


class ExchangeClock:
    """What is known of an exchange's clock: nothing until two answers agree, or once this host's clock was set."""

    def __init__(self) -> None:
        self._best: Estimate | None = None
        self._rival: Estimate | None = None  # contradicts it, and has no second
        self._unix_at_mono_0: int | None = (
            None  # this host's Unix time less its monotonic one, at the last look
        )

    @property
    def is_settled(self) -> bool:
        """True if something is known and the last answer did not contradict it."""
        return self._best is not None and self._rival is None

    def estimate(self, now_mono_ns: int) -> Estimate | None:
        """Return what is known now, None for nothing."""
        return None if self._best is None else self._best.at(now_mono_ns)

    def bounds(self, now_mono_ns: int) -> tuple[int, int] | None:
        """Return what `Exchange.set_clock` takes, to hold until now_mono_ns; None for nothing known."""
        known = self.estimate(now_mono_ns)
        if known is None:
            return None
        return known.offset_ns, known.offset_ns + known.uncertainty_ns + TOLERANCE_NS

    def add(self, sample: Sample) -> None:
        """Take one answer into account. Raises ValueError for one whose time cannot be."""
        new = _estimate(sample)
        if abs(new.offset_ns) > OFFSET_NS_MAX:
            raise ValueError(f"the exchange's time is {abs(new.offset_ns) / NS_PER_YEAR:.0f} years off")
        if self._best is not None and self._best.agrees(new):
            self._rival = None
            if new.uncertainty_ns <= self._best.at(new.at_mono_ns).uncertainty_ns:
                self._best = new
        elif self._rival is not None and self._rival.agrees(new):
            rival = self._rival.at(new.at_mono_ns)
            self._best = min(rival, new, key=lambda each: each.uncertainty_ns)
            self._rival = None
        else:
            self._rival = new

    def has_stepped(self, before_mono_ns: int, unix_ns: int, after_mono_ns: int) -> bool:
        """Look at this host's clocks; True if its Unix time was set since the last look, and all is forgotten.

        unix_ns was read between the two monotonic times.
        """
        if after_mono_ns - before_mono_ns > READING_NS_MAX:
            return False  # the next look decides
        last, self._unix_at_mono_0 = self._unix_at_mono_0, unix_ns - after_mono_ns
        if last is None or abs(self._unix_at_mono_0 - last) <= STEP_NS:
            return False
        self._best = self._rival = None
        return True


def _estimate(sample: Sample) -> Estimate:
    """Return the estimate of one answer, whose time was that of the middle, or of any other moment between."""
    half_ns = (sample.received_mono_ns - sample.sent_mono_ns) // 2
    offset_ns = sample.exchange_ns + RESOLUTION_NS // 2 - (sample.unix_ns - half_ns)
    return Estimate(offset_ns, half_ns + RESOLUTION_NS // 2, sample.received_mono_ns)
