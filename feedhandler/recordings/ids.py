"""Ids of one topic, as an exchange gives them: what they prove of what came, and what did not.

    trades      7  8  9 ────────── 13        10 to 12 are missing, until another connection or REST brings them
    changes   101-104  105-105  107-109      106 is missing; a base over REST does not bring it back

Where ids are counted for each connection, messages of several are put in order by another number of the exchange's.
Pure: ids and times come in.
"""

import enum
import math
from collections import Counter
from typing import Final

import msgspec

from feedhandler.data.units import NS_PER_S

HOUR_NS: Final = 3600 * NS_PER_S
RANGES_MAX: Final = 10_000  # of missing ids of one topic that may still come; older ones are settled
RECENT_MAX: Final = 1000  # keys of one topic, twice: 200 KB
RUNS_MAX: Final = 1000  # of connections of one topic that are compared; then they are settled
SPANS_MAX: Final = 1000
LATE_NS: Final = 60 * NS_PER_S  # after ids began again another connection may still bring some of before


class Proof(enum.Enum):
    """What the ids of a topic's messages prove."""

    NUMBERED = "numbered"  # they follow each other, whichever connection brings them
    CHAINED = "chained"  # they follow each other on each connection
    NOTHING = "nothing"  # they rise at most


class IdGap(msgspec.Struct, kw_only=True):
    """Ids that did not come. last is 0 where nobody can know how many are missing, or whether any is."""

    first: int
    last: int
    after_ns: int  # when the last before it came,
    before_ns: int  # and the next
    why: str = ""

    @property
    def count(self) -> int:
        """How many are missing, as far as that is known."""
        return self.last - self.first + 1 if self.last else 0


class Spans:
    """When something was so, on whichever of some connections."""

    def __init__(self) -> None:
        self.since_ns: dict[str, int] = {}  # of those on which it is so
        self._past: list[tuple[int, int]] = []
        self._past_max = SPANS_MAX

    def start(self, connection: str, at_ns: int) -> None:
        """It is so on a connection from now on."""
        self.since_ns.setdefault(connection, at_ns)

    def stop(self, connection: str, at_ns: int) -> bool:
        """It is so no more; True if it was."""
        since_ns = self.since_ns.pop(connection, None)
        if since_ns is None:
            return False
        self._past.append((since_ns, max(since_ns, at_ns)))
        if len(self._past) >= self._past_max:
            self._past = _union(self._past)
            self._past_max = max(SPANS_MAX, 2 * len(self._past))
        return True

    def until(self, end_ns: int) -> list[tuple[int, int]]:
        """Return the times at which it was so, in order and apart from each other."""
        return _union([*self._past, *((ns, max(ns, end_ns)) for ns in self.since_ns.values())])


def _union(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    for since_ns, until_ns in sorted(spans):
        if found and since_ns <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], until_ns)
        else:
            found.append((since_ns, until_ns))
    return found


def covered_ns(spans: list[tuple[int, int]], from_ns: int, to_ns: int) -> int:
    """Return how much of a time lies in spans."""
    return sum(max(0, min(until, to_ns) - max(since, from_ns)) for since, until in spans)


class UpdateIds:
    """What every kind of ids counts: updates by the hour in which they came, and where some did not."""

    def __init__(self) -> None:
        self.received: Counter[int] = Counter()
        self.recovered: Counter[int] = Counter()  # by the hour in which they were missed
        self.first_ns = self.last_ns = 0  # when the first came, and the newest

    def count(self, updates: int, at_ns: int) -> None:
        """Note that some came."""
        self.received[at_ns - at_ns % HOUR_NS] += updates
        self.first_ns = self.first_ns or at_ns
        self.last_ns = max(self.last_ns, at_ns)

    def gaps(self) -> list[IdGap]:
        """Return what is missing, in order."""
        return []


class NumberedIds(UpdateIds):
    """Ids that follow each other over all connections. An exchange that begins again far below counts anew."""

    def __init__(self) -> None:
        super().__init__()
        self.newest = 0
        self._ended = self._ended_ns = 0  # with which id the count before this one did, and when
        self._missing: list[IdGap] = []
        self._settled: list[IdGap] = []

    def part(self) -> None:
        """Nobody wanted what is sent from now on until the next id."""
        self.newest = 0

    def take(self, first: int, last: int, at_ns: int) -> None:
        """Note a message with ids from a first to a last one, which is below it where ids begin again."""
        newest = self.newest
        if last < first - 1:
            if newest >= last and first - 1 == self._ended:
                return  # another connection's
            self._note_gap(first, at_ns)
            self._begin_again(last, max(newest, first - 1), at_ns)
            self.count(1, at_ns)
        elif not newest or (last <= newest // 2 and not self._is_missing(last)):
            if newest:
                self._begin_again(last, newest, at_ns)
            self.newest = last
            self.count(last - first + 1, at_ns)
        elif newest < self._ended // 2 < last <= self._ended and at_ns - self._ended_ns < LATE_NS:
            return  # of the count before this one
        elif first > newest:
            self._note_gap(first, at_ns)
            self.newest = last
            self.count(last - first + 1, at_ns)
        else:
            self.newest = max(newest, last)
            self.count(self._fill(first, last) + self.newest - newest, at_ns)

    def _note_gap(self, first: int, at_ns: int) -> None:
        """Note what is missing between the newest id and this one."""
        if 0 < self.newest < first - 1:
            gap = IdGap(first=self.newest + 1, last=first - 1, after_ns=self.last_ns, before_ns=at_ns)
            self._missing.append(gap)
            self._settled += self._missing[:-RANGES_MAX]
            del self._missing[:-RANGES_MAX]

    def _begin_again(self, last: int, ended: int, at_ns: int) -> None:
        """Ids are counted anew: what was missing can come no more."""
        self._settled += self._missing
        self._missing.clear()
        self._ended, self._ended_ns, self.newest = ended, at_ns, last

    def recover(self, number: int, at_ns: int) -> None:
        """Note what was brought otherwise; before any other id it says nothing."""
        if number > self.newest > 0:
            self.take(number, number, at_ns)
            if self.newest == number:  # else it is of before ids began again
                self.received[at_ns - at_ns % HOUR_NS] -= 1
                self.recovered[at_ns - at_ns % HOUR_NS] += 1
            return
        for gap in self._missing:
            if gap.first <= number <= gap.last:
                self.recovered[gap.before_ns - gap.before_ns % HOUR_NS] += self._fill(number, number)
                return

    def _is_missing(self, number: int) -> bool:
        return any(gap.first <= number <= gap.last for gap in self._missing)

    def _fill(self, first: int, last: int) -> int:
        """Take ids out of what is missing; returns how many of them were."""
        count = 0
        for place in range(len(self._missing) - 1, -1, -1):
            gap = self._missing[place]
            if gap.last < first:
                break
            if gap.first > last:
                continue
            count += min(last, gap.last) - max(first, gap.first) + 1
            left = []
            if gap.first < first:
                left.append(msgspec.structs.replace(gap, last=first - 1))
            if last < gap.last:
                left.append(msgspec.structs.replace(gap, first=last + 1))
            self._missing[place : place + 1] = left
        return count

    def gaps(self) -> list[IdGap]:
        return [*self._settled, *self._missing]


class _Run(msgspec.Struct):
    """Messages of one connection whose ids follow each other; first and last are numbers of all connections."""

    first: int
    last: int
    first_id: int
    last_id: int
    first_ns: int
    last_ns: int
    missing: int | None  # ids before it on its connection; None: that cannot be known


class ChainedIds(UpdateIds):
    """Ids that follow each other on one connection. Each message has a number besides that is of all connections.

    What one connection lacks is not missing if another has the messages before and behind it, and nothing lacks
    between them there. How many there were while no connection was there cannot be known.
    """

    def __init__(self) -> None:
        super().__init__()
        self._current: dict[str, _Run] = {}
        self._past: list[_Run] = []
        self._settled: list[IdGap] = []
        self._newest = 0  # number

    def part(self) -> None:
        """Nobody wanted what is sent from now on until the next message."""
        self._settle()

    def take(self, connection: str, update_id: int, number: int, at_ns: int, *, is_base: bool) -> None:
        """Note a message; is_base: it holds whatever came before, so its id may be any below the next."""
        run = self._current.get(connection)
        if run is not None and is_base and number <= run.last // 2:  # it counts anew
            self._settle()
            run, self._newest = None, 0
        if number > self._newest:
            self._newest = number
            self.count(1, at_ns)
        if run is None:
            self._begin(connection, update_id, number, at_ns, None)
        elif update_id > run.last_id + 1:
            self._begin(connection, update_id, number, at_ns, update_id - run.last_id - 1)
        elif is_base or update_id == run.last_id + 1:
            run.last, run.last_id, run.last_ns = max(run.last, number), update_id, at_ns

    def _begin(self, connection: str, update_id: int, number: int, at_ns: int, missing: int | None) -> None:
        self.end(connection)
        self._current[connection] = _Run(number, number, update_id, update_id, at_ns, at_ns, missing)

    def end(self, connection: str) -> None:
        """A connection is closed."""
        if (run := self._current.pop(connection, None)) is not None:
            self._past.append(run)
        if len(self._past) >= RUNS_MAX:
            self._past = self._settle_runs(self._past)

    def _settle(self) -> None:
        self._settled += self.gaps()[len(self._settled) :]
        self._past.clear()
        self._current.clear()

    def _settle_runs(self, runs: list[_Run]) -> list[_Run]:
        """Take note of the gaps between the older half of some runs; returns the others."""
        runs = sorted(runs, key=lambda run: run.first)
        older = runs[: len(runs) // 2]
        self._settled += _between(older)
        return [max(older, key=lambda run: run.last), *runs[len(older) :]]

    def gaps(self) -> list[IdGap]:
        return [*self._settled, *_between([*self._past, *self._current.values()])]


def _between(runs: list[_Run]) -> list[IdGap]:
    """Return what no run has."""
    found = []
    reached: _Run | None = None
    for run in sorted(runs, key=lambda run: (run.first, math.inf if run.missing is None else run.missing)):
        if reached is not None and run.first > reached.last:
            count = run.missing
            gap = IdGap(first=0, last=0, after_ns=reached.last_ns, before_ns=run.first_ns)
            if count is not None:
                gap.first, gap.last = run.first_id - count, run.first_id - 1
            found.append(gap)
        if reached is None or run.last > reached.last:
            reached = run
    return found


class RisingIds(UpdateIds):
    """Ids of channels that rise at most: what is above all before is new."""

    def __init__(self) -> None:
        super().__init__()
        self._newest: dict[int, int] = {}  # by channel

    def take(self, channel: int, update_id: int, at_ns: int) -> None:
        """Note an update. One far below the newest is of a new count."""
        newest = self._newest.get(channel, 0)
        if newest // 2 < update_id <= newest:
            return
        self._newest[channel] = update_id
        self.count(1, at_ns)


class UnnumberedIds(UpdateIds):
    """Ids without an order: the newest ones are kept, to tell what two connections bring."""

    def __init__(self) -> None:
        super().__init__()
        self._recent: set[object] = set()
        self._before: set[object] = set()

    def take(self, key: object, at_ns: int) -> None:
        """Note an update."""
        if key in self._recent or key in self._before:
            return
        if len(self._recent) >= RECENT_MAX:
            self._before, self._recent = self._recent, set()
        self._recent.add(key)
        self.count(1, at_ns)
