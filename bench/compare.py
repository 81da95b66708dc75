"""Two reports side by side: what became slower, what faster, what only looks so.

Absolute times on a machine that others use too mean little, so the ratio to the floor is compared as well:
the floor suffers the same neighbours.

    python -m bench.compare A B [--fail-above 1.2]

Exit status: 0; 1 if --fail-above finds one of our paths worse; 2 if a file is no report, or nothing could be
judged.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
from rich.console import Console
from rich.text import Text

from bench.report import COMPARED, FLOOR, SECTIONS, Load, Report, ReportError, Run, load
from bench.terminal import (
    NONE,
    STYLES,
    Row,
    Sheet,
    console_for_tables,
    count,
    cpu,
    duration,
    headline,
    print_sheet,
    size,
    times,
    words,
)

NOISE: Final = 0.10  # runs of the same code differ by that much on a quiet machine


class Pair(msgspec.Struct, frozen=True):
    """The same load on the same path in both reports."""

    section: str
    a: Run
    b: Run


class Judgement(msgspec.Struct):
    """What --fail-above found."""

    judged: int  # ratios that could be compared
    worse: list[str]
    unjudged: list[str]  # runs of ours that cannot be compared, and why


def main(argv: Sequence[str] | None = None) -> int:
    """Print the comparison; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m bench.compare", description="Compare two bench reports.")
    parser.add_argument("a", type=Path, metavar="A", help="the report to compare with")
    parser.add_argument("b", type=Path, metavar="B", help="the report that is judged")
    parser.add_argument(
        "--fail-above",
        type=_factor,
        metavar="FACTOR",
        help="exit with 1 if a ratio to the floor of one of our paths grew by more than this factor",
    )
    arguments = parser.parse_args(argv)
    try:
        a, b = load(arguments.a), load(arguments.b)
    except ReportError as exc:
        print(exc, file=sys.stderr)
        return 2
    console = console_for_tables()
    show(a, b, console)
    if arguments.fail_above is None:
        return 0
    return _verdict(judge(a, b, arguments.fail_above), arguments.fail_above, console)


def show(a: Report, b: Report, console: Console) -> None:
    """Print what differs in circumstances, then the figures."""
    for name, report in (("A", a), ("B", b)):
        console.print(Text(f"{name}: {headline(report)}"))
    for warning in warnings(a, b):
        console.print(Text(f"warning: {warning}", style="yellow"))
    found = sheets(a, b)
    for sheet in found:
        print_sheet(sheet, console)
    if not found:
        console.print(Text("There is no load that both reports measured.", style=STYLES["bad"]))


def warnings(a: Report, b: Report) -> list[str]:
    """Return why figures of the two may not be comparable."""
    found = []
    if a.mode != b.mode:
        found.append(f"A is a {a.mode} bench, B a {b.mode} one")
    for what in ("host", "settings"):
        of_a, of_b = getattr(a, what), getattr(b, what)
        for name in dict.fromkeys([*of_a, *of_b]):
            if of_a.get(name) != of_b.get(name):
                found.append(f"{what} differ in {name}: {of_a.get(name, NONE)} / {of_b.get(name, NONE)}")
    for name, only in (("A", _only(a, b)), ("B", _only(b, a))):
        if only:
            runs = "1 run" if only == 1 else f"{only} runs"
            found.append(f"{runs} only in {name}, not shown")
    return found


def pairs(a: Report, b: Report) -> Iterator[Pair]:
    """Yield the runs that both have, in the order of b."""
    for section in SECTIONS:
        others = _by_key(a, section)
        for key, run in _by_key(b, section).items():
            if key in others:
                yield Pair(section, others[key], run)


def sheets(a: Report, b: Report) -> list[Sheet]:
    """Return the tables of the comparison: one for each section and load, and one for ceilings."""
    columns = ["path"]
    for name in ("p50", "p99", "CPU us"):
        columns += [f"{name}\nA", "\nB", "\nB/A"]
    columns += [f"{name}\n÷{FLOOR}" for name in ("p50", "p99", "CPU")]
    found: dict[tuple[str, str, Load], Sheet] = {}
    for pair in sorted(
        pairs(a, b), key=lambda pair: (SECTIONS.index(pair.section), pair.b.kind, pair.b.load)
    ):
        run = pair.b
        key = (pair.section, run.kind, run.load)
        if key not in found:
            kind = f" of {run.kind}" if pair.section == "kinds" else ""
            title = f"{pair.section}{kind}: {', '.join((words(run.load), *size(run.load)))}"
            found[key] = Sheet(pair.section, title, columns, [])
        found[key].rows.append(_row(a, b, pair))
        for name, side in (("A", pair.a), ("B", pair.b)):
            if side.faults:
                found[key].notes.append(f"! {side.path} in {name}: {side.faults}")
    result = list(found.values())
    if result:
        result[-1].notes.append(
            f"▲ grew, ▼ shrank by more than {NOISE:.0%}; the last three: how the ratio to the floor changed"
        )
    return [*result, *_ceilings(a, b), *_perpetual_loads(a, b), *_perpetual_starts(a, b)]


def ratio_change(a: Report, b: Report, pair: Pair, figure: str) -> float | None:
    """Return by what factor the ratio to the floor grew; None unless all four runs are there, and fine."""
    before, after = a.ratio(pair.section, pair.a, figure), b.ratio(pair.section, pair.b, figure)
    floors = (a.floor_of(pair.section, pair.a), b.floor_of(pair.section, pair.b))
    if any(run is None or run.faults for run in (pair.a, pair.b, *floors)):
        return None
    return after / before if after is not None and before else None


def judge(a: Report, b: Report, factor: float) -> Judgement:
    """Compare the ratios to the floor of our paths.

    A run that was fine in A and lost, reordered or changed messages in B is worse whatever its times are.
    Runs with a late generator say nothing either way.
    """
    found = Judgement(0, [], [])
    for pair in pairs(a, b):
        run = pair.b
        if not b.is_ours(run.path):
            continue
        where = f"{run.path}, {pair.section}, {', '.join((words(run.load), *size(run.load)))}"
        if run.faults and run.is_valid and not pair.a.faults:
            found.judged += 1
            found.worse.append(f"{where}: {run.faults}")
            continue
        changes = {figure: ratio_change(a, b, pair, figure) for figure in COMPARED}
        there = {figure: change for figure, change in changes.items() if change is not None}
        found.judged += len(there)
        found.worse += [
            f"{where}: {figure} ÷{FLOOR} grew {times(change)}"
            for figure, change in there.items()
            if change > factor
        ]
        if not there:
            found.unjudged.append(f"{where}: no ratio to a floor whose run is fine in both")
    return found


def _verdict(found: Judgement, factor: float, console: Console) -> int:
    console.print()
    for line in found.unjudged:
        console.print(Text(f"not judged: {line}", style="yellow"))
    for line in found.worse:
        console.print(Text(f"worse: {line}", style=STYLES["bad"]))
    if not found.judged:
        # A gate that looked at nothing must not open.
        print("nothing of ours could be judged against the floor in both reports", file=sys.stderr)
        return 2
    if not found.worse:
        what = f"none of {found.judged} ratios to the floor grew by more than {factor:g}x"
        console.print(Text(what, style=STYLES["good"]))
    return 1 if found.worse else 0


def _row(a: Report, b: Report, pair: Pair) -> Row:
    cells = [f"{pair.b.path} !" if pair.a.faults or pair.b.faults else pair.b.path]
    for figure in COMPARED:
        before, after = pair.a.figure(figure), pair.b.figure(figure)
        cells += [_amount(figure, before), _amount(figure, after)]
        cells.append(_change(after / before if after is not None and before else None))
    if pair.b.path == FLOOR:
        cells += [NONE] * len(COMPARED)
    else:
        cells += [_change(ratio_change(a, b, pair, figure)) for figure in COMPARED]
    is_bad = bool(pair.b.faults)
    return Row(cells, "bad" if is_bad else "ours" if b.is_ours(pair.b.path) else "")


def _ceilings(a: Report, b: Report) -> list[Sheet]:
    both = [path for path in b.ceilings if path in a.ceilings]
    rows = []
    for path in both:
        cells = [path]
        for name in ("rate", "burst_rate"):
            before, after = getattr(a.ceilings[path], name), getattr(b.ceilings[path], name)
            cells += [count(value) if value else NONE for value in (before, after)]
            cells.append(_change(after / before if before and after else None))
        rows.append(Row(cells, "ours" if b.is_ours(path) else ""))
    columns = ("path", "steady\nA", "\nB", "\nB/A", "bursts\nA", "\nB", "\nB/A")
    return [Sheet("ceilings", "ceilings, messages/s (more is better)", columns, rows)] if rows else []


def _perpetual_loads(a: Report, b: Report) -> list[Sheet]:
    before = {(each.exchange, each.symbols, each.busiest_per_s): each for each in a.perpetuals}
    rows = []
    for after in b.perpetuals:
        was = before.get((after.exchange, after.symbols, after.busiest_per_s))
        if was is None:
            continue
        cells = [f"{after.exchange}, {count(after.symbols)}, {after.busiest_per_s:g}/s"]
        for name in ("p50", "p99"):
            cells += _compared(duration, was.latency_us.get(name), after.latency_us.get(name))
        cells += _compared(cpu, was.cpu_us, after.cpu_us)
        cells += _compared(count, *(sum(each.resident_mb.values()) for each in (was, after)))
        rows.append(Row(cells, "bad" if after.problems else ""))
    columns = ["exchange, symbols,\nbusiest"]
    for name in ("p50", "p99", "CPU us", "MB"):
        columns += [f"{name}\nA", "\nB", "\nB/A"]
    return [Sheet("perpetuals", "perpetuals in all kinds", columns, rows)] if rows else []


def _perpetual_starts(a: Report, b: Report) -> list[Sheet]:
    before = {(each.exchange, each.symbols): each.live_s for each in a.perpetual_starts}
    rows = [
        Row(
            (
                f"{after.exchange}, {count(after.symbols)}: {kind}",
                *_compared(lambda s: f"{s:.1f} s", before[after.exchange, after.symbols][kind], after_s),
            ),
            "bad" if after.problems else "",
        )
        for after in b.perpetual_starts
        for kind, after_s in after.live_s.items()
        if kind in before.get((after.exchange, after.symbols), ())
    ]
    title = "perpetuals: from the start of the feed until the last symbol has data"
    return [Sheet("perpetuals", title, ("exchange, symbols", "A", "B", "B/A"), rows)] if rows else []


def _compared(shown: Callable[[float], str], before: float | None, after: float | None) -> tuple[str, ...]:
    """Return both values, and by what factor the second is more."""
    both = (NONE if value is None else shown(value) for value in (before, after))
    return (*both, _change(after / before if before and after is not None else None))


def _by_key(report: Report, section: str) -> dict[tuple[str, str, Load], Run]:
    found: dict[tuple[str, str, Load], Run] = {}
    for run in report.section(section):
        found.setdefault((run.path, run.kind, run.load), run)
    return found


def _only(one: Report, other: Report) -> int:
    """Return how many runs one report has and the other lacks."""
    return sum(len(_by_key(one, section).keys() - _by_key(other, section).keys()) for section in SECTIONS)


def _amount(figure: str, value: float | None) -> str:
    if value is None:
        return NONE
    return cpu(value) if figure == "cpu" else duration(value)


def _change(ratio: float | None) -> str:
    """Return a factor; marked in front, where it does not push the figures out of line, if beyond noise."""
    mark = "" if ratio is None or abs(ratio - 1) <= NOISE else "▲" if ratio > 1 else "▼"
    return f"{mark}{times(ratio)}"


def _factor(text: str) -> float:
    """Read --fail-above. A factor below 1 would fail what became better."""
    value = float(text)
    if not 1 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text}: a factor of 1 or more, such as 1.2")
    return value


if __name__ == "__main__":
    sys.exit(main())
