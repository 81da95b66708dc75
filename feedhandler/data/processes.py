"""What runs on this host, and whether all is well: for operators, scripts and alerts. Pure: times come in.

How often a process was started again is known by what each notes of its own start (`transport/starts.py`), whoever
supervises it.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from feedhandler.data.status import WORST_FIRST, ExchangeStatus, Heartbeat
from feedhandler.data.units import NS_PER_S

# Names of processes; a feed has that of its exchange, and of its shard.
MERGER: Final = "merger"
RELAY: Final = "relay"
GATEWAY: Final = "gateway"
SIM: Final = "sim"
BRIDGE: Final = "bridge-nats"  # no exchange's word has a `-`
RECORDER: Final = "recorder"
# So many starts again within so long: it does not stay up. The supervisor waits 1 s, 2 s, 3 s … in between.
LOOP_COUNT: Final = 3
LOOP_NS: Final = 60 * NS_PER_S
WELL: Final = ("live", "idle")
DEGRADED_STATES: Final = ("stale", "connecting", "starting")
assert {*WELL, *DEGRADED_STATES} < {*WORST_FIRST}, "the others are down"

# Of `--check`, for scripts; what monitoring plugins mean by them.
ALL_WELL: Final = 0
DEGRADED: Final = 1
DOWN: Final = 2
WORDS: Final = {ALL_WELL: "ok", DEGRADED: "degraded", DOWN: "down"}


class Starts(msgspec.Struct, kw_only=True):
    """How often one supervisor has started a process again, and when it did so of late."""

    supervisor: str  # its pid and start: another one counts anew
    restarts: int = 0
    newest_ns: list[int] = []  # of the restarts, the last of them last; at most LOOP_COUNT

    def is_loop(self, now_ns: int) -> bool:
        """True if it has been started again and again just now."""
        return len(self.newest_ns) == LOOP_COUNT and 0 <= now_ns - self.newest_ns[0] < LOOP_NS


def started(before: Starts | None, supervisor: str, now_ns: int) -> Starts:
    """Return what is to be noted at a start."""
    if before is None or before.supervisor != supervisor:
        return Starts(supervisor=supervisor)
    newest_ns = [*before.newest_ns, now_ns][-LOOP_COUNT:]
    return Starts(supervisor=supervisor, restarts=before.restarts + 1, newest_ns=newest_ns)


class ProcessStatus(msgspec.Struct, kw_only=True):
    """One process that the configuration names for this host. What is not known is 0, or None."""

    process: str
    state: str  # up, down, restarting
    pid: int = 0
    started_ns: int = 0
    restarts: int = 0  # by the supervisor that runs now
    cpu_s: float = 0.0  # since it started
    resident_bytes: int = 0
    open_files: int | None = None  # those of a process with secrets are nobody's business
    trouble: str = ""  # what it cannot do, though it runs


def process_state(pid: int | None, starts: Starts | None, now_ns: int) -> str:
    """Return a process's state in one word; pid: of who runs."""
    if starts is not None and starts.is_loop(now_ns):
        return "restarting"
    return "up" if pid else "down"


def is_of_others(heartbeat: Heartbeat | None, processes: Iterable[ProcessStatus]) -> bool:
    """True if the merger whose heartbeat came is none of these processes, though one of them is to be a merger."""
    pids = {each.pid for each in processes if each.process == MERGER}
    return heartbeat is not None and bool(pids) and heartbeat.pid not in pids


class Loops:
    """Which processes are started again and again: each is reported once, until it has stayed up."""

    def __init__(self) -> None:
        self._reported: set[str] = set()

    def new(self, processes: Iterable[ProcessStatus]) -> list[ProcessStatus]:
        """Return those that are to be reported now."""
        looping = {each.process: each for each in processes if each.state == "restarting"}
        found = [each for name, each in looping.items() if name not in self._reported]
        self._reported = {*looping}
        return found


class Verdict(msgspec.Struct, kw_only=True):
    """Whether all is well: the worst of what there is, and in words what is not well, the worst first."""

    status: int = ALL_WELL
    reasons: list[str] = []

    @classmethod
    def of(cls, found: Iterable[tuple[int, str]]) -> "Verdict":
        """Return it of what is not well: how bad each is, and in words."""
        worst_first = sorted(found, key=lambda each: -each[0])
        return cls(
            status=worst_first[0][0] if worst_first else ALL_WELL, reasons=[text for _, text in worst_first]
        )

    def text(self, well: str) -> str:
        """Return it in one line; well: what to print if all is."""
        return f"{WORDS[self.status]}: {'; '.join(self.reasons) or well}"


def verdict(
    heartbeat: Heartbeat | None,
    statuses: Mapping[str, ExchangeStatus],
    processes: Iterable[ProcessStatus],
    now_ns: int,
) -> Verdict:
    """Return whether data flow as they should, and every process runs; None: no heartbeat of a merger."""
    found = [(DEGRADED, _process_text(each)) for each in processes if each.state != "up" or each.trouble]
    if heartbeat is None:
        found.append((DOWN, "no merger answers"))
    for name, state in heartbeat.exchanges.items() if heartbeat is not None else ():
        status = statuses.get(name)
        state = status.state if status is not None else state
        text = f"{name}: {status.stated(now_ns) if status is not None else state}"
        if state not in WELL:
            found.append((DEGRADED if state in DEGRADED_STATES else DOWN, text))
        elif status is not None and status.feed is not None and status.feed.stale:
            found.append((DEGRADED, text))
    return Verdict.of(found)


def _process_text(process: ProcessStatus) -> str:
    if process.state == "restarting":
        return f"{process.process}: started again and again, {process.restarts} times so far"
    return f"{process.process}: {process.trouble if process.state == 'up' else 'does not run'}"
