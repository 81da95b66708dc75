"""What is measured, in which order: the loads, the sizes, the search for the ceilings.

Paths are interleaved: every load goes through all of them in turn before the next load, and each ratio is
between neighbours in time, since the machine is shared and its mood changes.
"""

import contextlib
import math
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from bench import measure, traffic
from bench.contenders import (
    AGAIN,
    BATCHES,
    CONTENDERS,
    FLOOR,
    OF_OTHERS,
    OURS,
    RECORDED,
    SILENT,
    Contender,
    subscribed,
)
from bench.report import Ceiling, Memory, Run, Soak
from bench.rig import BenchError, Load, Outcome, Rig
from feedhandler.sim.simulated import SEEDED

BURST: Final = 200
TRIES: Final = 3  # of a run whose generator was late
CEILING_P99_US_MAX: Final = 100_000.0
CEILING_ARRIVED_MIN: Final = 0.9999
EXCHANGES: Final = SEEDED
SYMBOLS: Final = 10


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """How much of everything."""

    seconds: float  # of one run
    rounds: int  # of the loads that have targets; the others once
    rounds_of_p99: int  # the same for ours and the floor, whose tails are compared
    messages_with_targets: int  # in a run of those, at least
    rates: Sequence[float]
    burst_rates: Sequence[float]
    rates_with_targets: Sequence[float] = (1_000, 10_000, 40_000)
    symbols: Sequence[int]
    subscribers: Sequence[int]
    feeds: Sequence[int]
    ceiling_paths: Sequence[str]
    ceiling_from: float
    ceiling_step: float
    ceiling_bursts: bool
    soak_messages: int
    soak_rate: float = 60_000
    soak_symbols: int = 5_000
    exchange_symbols: int = 2_900  # the whole of Binance
    exchange_rate: float = 20_000
    kinds: Sequence[str] = ("ticker", "trade", "depth", "book")
    kind_rates: Sequence[float] = (1_000, 10_000, 40_000)
    kind_symbols: int = 100
    kind_ceilings: bool = True
    books: Sequence[int]  # whose memory is measured
    recorder_rates: Sequence[float] = (1_000, 10_000)
    recorded_frames: int  # of a recording that is exported and played again
    perpetuals: int = 500
    perpetual_rates: Sequence[float] = (1, 100, 300, 1_000)  # changes a second of the busiest
    perpetual_seconds: float = 15.0


FULL: Final = Plan(
    seconds=0.8,
    rounds=3,
    rounds_of_p99=7,
    messages_with_targets=2_500,
    rates=(100, 1_000, 5_000, 10_000, 20_000, 40_000),
    burst_rates=(100, 1_000, 5_000, 10_000, 20_000, 40_000),
    symbols=(10, 100, 1_000, 5_000),
    subscribers=(1, 4, 16, 32),
    feeds=(1, 2, 3),
    ceiling_paths=("floor", "feedhandler", "feedhandler-batches", "cryptofeed", "cryptofeed-zmq"),
    ceiling_from=40_000,
    ceiling_step=1.6,
    ceiling_bursts=True,
    soak_messages=10_000_000,
    books=(100, 500),
    recorded_frames=200_000,
)
QUICK: Final = Plan(
    seconds=0.7,
    rounds=1,
    rounds_of_p99=3,
    messages_with_targets=1_500,
    rates=(1_000, 10_000, 40_000),
    burst_rates=(10_000,),
    symbols=(10, 1_000),
    subscribers=(1, 8),
    feeds=(1,),
    ceiling_paths=("floor", "feedhandler"),
    ceiling_from=40_000,
    ceiling_step=1.6,
    ceiling_bursts=False,
    soak_messages=100_000,
    soak_symbols=500,
    exchange_symbols=500,
    kind_rates=(1_000, 10_000),
    kind_ceilings=False,
    books=(100,),
    recorded_frames=20_000,
    perpetuals=100,
    perpetual_rates=(300,),
    perpetual_seconds=5.0,
)


class Progress:
    """Says on standard error what is under way: one line, rewritten on a terminal."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._is_terminal = sys.stderr.isatty()
        self._section = ""

    def section(self, name: str) -> None:
        self._section = name
        if not self._is_terminal:
            self._print(name)

    def step(self, text: str) -> None:
        if self._is_terminal:
            self._print(f"{self._section}: {text}", end="")

    def notice(self, text: str) -> None:
        """Print what stays on the screen."""
        self._print(text)

    def _print(self, text: str, end: str = "\n") -> None:
        elapsed = int(time.monotonic() - self._started)
        head = "\r\x1b[K" if self._is_terminal else ""
        print(f"{head}[{elapsed // 60}:{elapsed % 60:02d}] {text}", end=end, file=sys.stderr, flush=True)


def available(progress: Progress) -> tuple[list[Contender], dict[str, str]]:
    """Return the paths that can run here, and why the others cannot."""
    missing = {contender.name: contender.missing() for contender in CONTENDERS}
    for name, reason in missing.items():
        if reason:
            progress.notice(f"skipped: {name}: {reason}")
    return [c for c in CONTENDERS if not missing[c.name]], {n: why for n, why in missing.items() if why}


def latency(plan: Plan, contenders: Sequence[Contender], progress: Progress) -> list[Run]:
    """Every rate, steady and in bursts, through every path; all paths stay up, and only one is awake."""
    runs = []
    with _rigs(contenders, progress) as rigs:
        for load in _loads(plan):
            is_target = load.burst == 1 and load.rate in plan.rates_with_targets
            outcomes: dict[str, list[Outcome]] = {contender.name: [] for contender, _ in rigs}
            for number in range(plan.rounds_of_p99 if is_target else 1):
                for contender, rig in list(rigs):
                    if number >= plan.rounds and contender not in (OURS, FLOOR):
                        continue
                    progress.step(f"{load.rate:,.0f}/s, bursts of {load.burst}, {contender.name}")
                    try:
                        outcomes[contender.name].append(_run(rig, load))
                    except BenchError as exc:
                        _leave_out(contender, exc, progress)
                        rigs.remove((contender, rig))
            for contender, _ in rigs:
                run = measure.run_of(
                    contender, outcomes[contender.name], symbols=SYMBOLS, subscribers=1, feeds=1
                )
                runs.append(run)
    return runs


def _loads(plan: Plan) -> list[Load]:
    """Return the loads of the latency section; at low rates a run is longer, so that its p99 means something."""
    loads = []
    for rate in plan.rates:
        least = plan.messages_with_targets if rate in plan.rates_with_targets else 0
        loads.append(Load(rate, max(plan.seconds, least / rate)))
    # A burst every 200 / rate seconds: at least two.
    return loads + [Load(rate, max(plan.seconds, 2 * BURST / rate), BURST) for rate in plan.burst_rates]


@contextlib.contextmanager
def _rigs(
    contenders: Sequence[Contender], progress: Progress, *, symbols: int = SYMBOLS, kind: str = "ticker"
) -> Iterator[list[tuple[Contender, Rig]]]:
    with contextlib.ExitStack() as stack:
        rigs = []
        for contender in contenders:
            progress.step(f"starting {contender.name}")
            try:
                rig = Rig(contender.name, contender.programs, symbols=symbols, kind=kind)
                rigs.append((contender, stack.enter_context(rig)))
            except BenchError as exc:
                _leave_out(contender, exc, progress)
        for _, rig in rigs:  # not before all are there: none is to miss so much that it would connect anew
            rig.pause()
        yield rigs


def _leave_out(contender: Contender, exc: BenchError, progress: Progress) -> None:
    """Go on without an alternative that failed; without ours or the floor there is nothing to report."""
    if contender.is_ours or contender.name == FLOOR.name:
        raise exc
    progress.notice(f"left out from here on: {contender.name}: {exc}")


def _run(rig: Rig, load: Load) -> Outcome:
    """Run until the generator was on time, some times at most; the last one counts. The rig is paused then."""
    rig.resume()
    for _ in range(TRIES):
        outcome = rig.run(load)
        if measure.is_on_time(outcome):
            break
    rig.pause()
    return outcome


def scaling(plan: Plan, section: str, progress: Progress) -> list[Run]:
    """Cost against symbols, subscribers or feeds, of ours; against symbols beside the floor."""
    if section == "symbols":
        sizes = [(symbols, 1, 1) for symbols in plan.symbols]
    elif section == "subscribers":
        sizes = [(SYMBOLS, subscribers, 1) for subscribers in plan.subscribers]
    else:
        sizes = [(SYMBOLS, 1, feeds) for feeds in plan.feeds]
    rate = SCALING_RATE if section != "subscribers" else SUBSCRIBERS_RATE
    cases = []
    with contextlib.ExitStack() as stack:
        for symbols, subscribers, feeds in sizes:
            ours = msgspec.structs.replace(OURS, programs=subscribed("ticks", subscribers))
            for contender in (FLOOR, ours) if section == "symbols" else (ours,):
                progress.step(f"starting {contender.name}: {_size(symbols, subscribers, feeds)}")
                rig = Rig(contender.name, contender.programs, exchanges=EXCHANGES[:feeds], symbols=symbols)
                cases.append(
                    (contender, stack.enter_context(rig), (symbols, subscribers, feeds), list[Outcome]())
                )
        for _, rig, _, _ in cases:
            rig.pause()
        for _ in range(plan.rounds):
            for contender, rig, size, outcomes in cases:
                progress.step(f"{contender.name}: {_size(*size)}")
                outcomes.append(_run(rig, Load(rate / size[2], plan.seconds)))
    return [
        measure.run_of(contender, outcomes, symbols=symbols, subscribers=subscribers, feeds=feeds)
        for contender, _, (symbols, subscribers, feeds), outcomes in cases
    ]


def beside_silent(plan: Plan, progress: Progress) -> list[Run]:
    """Nine subscribers without and with one more that does not read, in turns."""
    nine = msgspec.structs.replace(OURS, programs=subscribed("ticks", READING))
    cases: list[tuple[Contender, Rig, list[Outcome]]] = []
    with contextlib.ExitStack() as stack:
        for contender in (nine, SILENT):
            progress.step(f"starting {contender.name}: {_size(SYMBOLS, READING, 1)}")
            rig = stack.enter_context(Rig(contender.name, contender.programs))
            rig.run(FILL)
            rig.pause()
            cases.append((contender, rig, []))
        for _ in range(plan.rounds_of_p99):
            for contender, rig, outcomes in cases:
                progress.step(f"{contender.name}: {_size(SYMBOLS, READING, 1)}")
                outcomes.append(_run(rig, Load(SUBSCRIBERS_RATE, max(plan.seconds, 2.0))))
    return [
        measure.run_of(contender, outcomes, symbols=SYMBOLS, subscribers=READING, feeds=1)
        for contender, _, outcomes in cases
    ]


def beside_recorder(plan: Plan, progress: Progress) -> list[Run]:
    """One feed that is recorded, and two that are not, in turns: each round begins with another one."""
    runs = []
    with _rigs((OURS, AGAIN, RECORDED), progress) as rigs:
        for rate in plan.recorder_rates:
            load = Load(rate, max(plan.seconds, plan.messages_with_targets / rate, 2.0))
            outcomes: dict[str, list[Outcome]] = {contender.name: [] for contender, _ in rigs}
            for number in range(plan.rounds_of_p99):
                first = number % len(rigs)
                for contender, rig in rigs[first:] + rigs[:first]:
                    progress.step(f"{rate:,.0f}/s, {contender.name}")
                    outcomes[contender.name].append(_run(rig, load))
            runs += [
                measure.run_of(contender, outcomes[contender.name], symbols=SYMBOLS, subscribers=1, feeds=1)
                for contender, _ in rigs
            ]
    return runs


def _size(symbols: int, subscribers: int, feeds: int) -> str:
    return f"{symbols} symbols, {subscribers} subscribers, {feeds} feeds"


SCALING_RATE: Final = 20_000.0
SUBSCRIBERS_RATE: Final = 1_000.0
READING: Final = 9
# more than kernel and merger hold for one who does not read: then it is behind
FILL: Final = Load(5_000, 8.0)


def whole_exchange(plan: Plan, progress: Progress) -> Run:
    """One feed with as many symbols as Binance has, at a high rate."""
    progress.step(f"{plan.exchange_symbols} symbols")
    with Rig(OURS.name, OURS.programs, symbols=plan.exchange_symbols) as rig:
        outcomes = [_run(rig, Load(plan.exchange_rate, plan.seconds * 2)) for _ in range(plan.rounds)]
    return measure.run_of(OURS, outcomes, symbols=plan.exchange_symbols, subscribers=1, feeds=1)


def ceilings(plan: Plan, contenders: Sequence[Contender], progress: Progress) -> dict[str, Ceiling]:
    """Return the highest rate of each path at which all arrives, soon enough."""
    found = {}
    for contender in contenders:
        if contender.name not in plan.ceiling_paths:
            continue
        try:
            with Rig(contender.name, contender.programs) as rig:
                rate, limit, runs = _ceiling(plan, contender, rig, 1, progress)
                burst_rate = 0.0
                if plan.ceiling_bursts:
                    burst_rate, _, burst_runs = _ceiling(plan, contender, rig, BURST, progress)
                    runs += burst_runs
                found[contender.name] = Ceiling(rate, limit, burst_rate, runs)
        except BenchError as exc:
            _leave_out(contender, exc, progress)
    return found


def _ceiling(
    plan: Plan, contender: Contender, rig: Rig, burst: int, progress: Progress
) -> tuple[float, str, list[Run]]:
    """Climb until two runs of a rate fail, or descend until one does not; then try once in between."""
    runs: list[Run] = []
    best, limit, rate, worst = 0.0, "the search", plan.ceiling_from, 0.0
    is_between = False
    while CEILING_RATES[0] <= rate <= CEILING_RATES[1]:
        progress.step(f"{contender.name}: {rate:,.0f}/s, bursts of {burst}")
        try:
            reason = _try(contender, rig, Load(round(rate / burst) * burst, plan.seconds, burst), runs)
        except BenchError as exc:
            return best, f"it failed: {exc}".splitlines()[0], runs
        if reason:
            limit, worst = reason, rate
        else:
            best = rate
        if is_between:
            break
        if best and worst:
            rate, is_between = math.sqrt(best * worst), True
        else:
            rate = rate / plan.ceiling_step if worst else rate * plan.ceiling_step
    return round(best / burst) * burst, limit, runs


def _try(contender: Contender, rig: Rig, load: Load, runs: list[Run]) -> str:
    """Run a load, twice if it fails; returns why it failed, or ""."""
    for _ in range(2):
        outcome = rig.run(load)
        run = measure.run_of(contender, [outcome], symbols=rig.symbols, subscribers=1, feeds=1)
        runs.append(run)
        reason = _why_not(run)
        if not reason:
            break
    return reason


CEILING_RATES: Final = (1_000.0, 500_000.0)


def _why_not(run: Run) -> str:
    """Return what disqualifies a run, "" if it counts. A late generator is the machine's end as well."""
    if run.arrived < CEILING_ARRIVED_MIN:
        return f"{1 - run.arrived:.2%} lost"
    if (p99_us := run.latency_us["p99"]) > CEILING_P99_US_MAX:
        return f"p99 of {p99_us / 1e3:.0f} ms"
    return "; ".join(run.problems)


def kinds(plan: Plan, contenders: Sequence[Contender], progress: Progress) -> list[Run]:
    """Tickers, trades, depth and books of many symbols, each kind through every path that has it."""
    runs = []
    for kind in plan.kinds:
        with _rigs(_of_kind(kind, contenders), progress, symbols=plan.kind_symbols, kind=kind) as rigs:
            for rate in plan.kind_rates:
                load = Load(rate, max(plan.seconds, plan.messages_with_targets / rate))
                outcomes: dict[str, list[Outcome]] = {contender.name: [] for contender, _ in rigs}
                for _ in range(plan.rounds):
                    for contender, rig in list(rigs):
                        progress.step(f"{kind}: {rate:,.0f}/s, {contender.name}")
                        try:
                            outcomes[contender.name].append(_run(rig, load))
                        except BenchError as exc:
                            _leave_out(contender, exc, progress)
                            rigs.remove((contender, rig))
                runs += [
                    measure.run_of(
                        contender, outcomes[contender.name], symbols=plan.kind_symbols, subscribers=1, feeds=1
                    )
                    for contender, _ in rigs
                ]
    return runs


def _of_kind(kind: str, contenders: Sequence[Contender]) -> list[Contender]:
    names = {contender.name for contender in contenders}
    return [contender for contender in OF_OTHERS[kind] if contender.name in names]


def kind_ceilings(
    plan: Plan, contenders: Sequence[Contender], progress: Progress
) -> dict[str, dict[str, Ceiling]]:
    """Return the highest rate of each path, by kind, at which all arrives, soon enough."""
    found: dict[str, dict[str, Ceiling]] = {}
    for kind in plan.kinds if plan.kind_ceilings else ():
        for contender in _of_kind(kind, contenders):
            try:
                with Rig(contender.name, contender.programs, symbols=plan.kind_symbols, kind=kind) as rig:
                    rate, limit, runs = _ceiling(plan, contender, rig, 1, progress)
            except BenchError as exc:
                _leave_out(contender, exc, progress)
                continue
            found.setdefault(kind, {})[contender.name] = Ceiling(rate, limit, runs=runs)
    return found


def books(plan: Plan, contenders: Sequence[Contender], progress: Progress) -> list[Memory]:
    """Return what books take in memory, once each has its base and has changed ten times."""
    found = []
    for count in plan.books:
        for contender in _of_kind("book", contenders):
            progress.step(f"{count} books, {contender.name}")
            try:
                with Rig(contender.name, contender.programs, symbols=count, kind="book") as rig:
                    outcome = rig.run(Load(BOOKS_RATE, 10 * count / BOOKS_RATE))
            except BenchError as exc:
                _leave_out(contender, exc, progress)
                continue
            run = measure.run_of(contender, [outcome], symbols=count, subscribers=1, feeds=1)
            memory = {role: cost.resident_mb for role, cost in run.cost.items()}
            found.append(Memory(contender.name, count, traffic.BOOK_LEVELS, memory, run.problems))
    return found


BOOKS_RATE: Final = 2_000.0


def soak(plan: Plan, progress: Progress) -> Soak:
    """Many messages about many symbols: nothing lost, and memory flat?"""
    chunk = Load(plan.soak_rate, 200_000 / plan.soak_rate)
    memory: dict[str, list[float]] = {}
    messages = lost = 0
    started = time.monotonic()
    with Rig(BATCHES.name, BATCHES.programs, symbols=plan.soak_symbols) as rig:
        while messages < plan.soak_messages:
            outcome = rig.run(chunk)
            messages += sum(int(sent["sent"]) for sent in outcome.sent.values())
            share = measure.arrived(BATCHES, outcome)
            lost += round((1 - share) * chunk.count)
            for role, used in outcome.used.items():
                memory.setdefault(role, []).append(used.resident_mb)
            progress.step(f"{messages:,} messages, {lost} lost")
    seconds = time.monotonic() - started
    return Soak(
        messages=messages,
        lost=lost,
        seconds=seconds,
        rate=plan.soak_rate,
        symbols=plan.soak_symbols,
        memory_mb=memory,
        is_flat=all(is_flat(samples) for role, samples in memory.items() if role != "subscriber"),
    )


def is_flat(samples: Sequence[float]) -> bool:
    """True if the last third's mean is no more than 2 % and 1 MB above the middle third's."""
    third = len(samples) // 3
    if not third:
        return False  # nothing is known of so short a run
    middle, last = samples[third : 2 * third], samples[-third:]
    return sum(last) / third <= sum(middle) / third * 1.02 + 1.0


def described(plan: Plan) -> dict[str, str]:
    """Return the settings that a reader of the report should know."""
    return {
        "one run": f"{plan.seconds:g} s, longer at low rates; each path in turn, then the next load",
        "paths that are not under load": "stopped (SIGSTOP)",
        "rounds": f"{plan.rounds} for loads with targets (median of each figure), 1 for others;"
        f" {plan.rounds_of_p99} of ours and the floor, whose tails are compared",
        "burst": f"{BURST} messages due at once",
        "symbols": f"{SYMBOLS} unless varied; {plan.kind_symbols} where kinds are compared",
        "a generator is late": f"beyond {measure.LATE_P99_US_MAX / 1e3:g} ms at p99; such a run is repeated",
        "ceiling": f"all but {1 - CEILING_ARRIVED_MIN:.2%} arrive, p99 under {CEILING_P99_US_MAX / 1e3:g} ms",
        "precision of ceilings": f"rates a factor {math.sqrt(plan.ceiling_step):.2f} apart,"
        f" runs of {plan.seconds:g} s: some percent beyond what would last may pass",
    }
