"""When a survey is made, the values of all symbols over REST, and which groups get its rows.

    groups want it ──▶ one survey at a time ──rows──▶ those that wanted it before it was sent
                              └─ failed: again, with growing patience; streams go on meanwhile

A group of connections wants one to have a first value of each symbol, which quiet markets do not state for minutes,
and to have a witness when channels fall silent. Pure: times come in, rows go on. It knows no exchange.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from feedhandler.data.units import NS_PER_S
from feedhandler.exchanges.base import RestTicker
from feedhandler.feed.legs import Legs

DISTANCE_NS: Final = 2 * NS_PER_S  # from one to the next: what is wanted meanwhile is requested at once
BACKOFF_NS: Final = (NS_PER_S, 60 * NS_PER_S)  # after a failure, doubling


class Survey:
    """The surveys of one feed; see the module's first lines."""

    def __init__(self) -> None:
        self._legs: list[Legs] = []
        self._is_under_way = False
        self._failures = 0
        self._next_mono_ns = 0

    def begin(self, legs: Iterable[Legs], now_mono_ns: int) -> bool:
        """True if the requests are to be sent now; then `end` is called in any case."""
        if self._is_under_way or now_mono_ns < self._next_mono_ns:
            return False
        self._legs = [each for each in legs if each.wants_survey]
        for each in self._legs:
            each.on_survey_sent()
        self._is_under_way = bool(self._legs)
        return self._is_under_way

    def on_rows(self, rows: Sequence[RestTicker], recv_ns: int) -> None:
        """Pass on the rows of one answer, which came at recv_ns, in Unix time."""
        for each in self._legs:
            each.on_survey(rows, recv_ns)

    def end(self, now_mono_ns: int, *, has_failed: bool = False, retry_after_s: float = 0.0) -> None:
        """All answers have come, or one did not; retry_after_s is what the exchange requires."""
        for each in self._legs:
            each.on_survey_end(has_failed=has_failed)
        self._legs = []
        self._is_under_way = False
        self._failures = self._failures + 1 if has_failed else 0
        first_ns, last_ns = BACKOFF_NS
        wait_ns = min(first_ns << min(self._failures - 1, 16), last_ns) if has_failed else DISTANCE_NS
        self._next_mono_ns = now_mono_ns + max(wait_ns, int(retry_after_s * NS_PER_S))
