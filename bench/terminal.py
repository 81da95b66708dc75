"""What a report says, as tables: built here as plain text, printed here by rich.

`page` puts the same tables into HTML, so both show the same figures. Nothing is left out: a run with problems
keeps its row and is marked "!", with the reason below; a path that could not run is listed with why.
"""

import os
import sys
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from rich.cells import cell_len
from rich.console import Console
from rich.segment import Segments
from rich.table import Table
from rich.text import Text

from bench.report import (
    COMPARED,
    FLOOR,
    PERCENTILES,
    SECTIONS,
    SIMULATOR,
    Load,
    Perpetuals,
    PerpetualsStart,
    Recorded,
    Report,
    Run,
    Target,
)

PIPED_WIDTH: Final = 120  # rich would take 80 for a pipe, and break every row
GAP: Final = 2  # blanks between columns
MESSAGE_WIDTH_MIN: Final = 24  # of a column that holds sentences
NONE: Final = "-"
STYLES: Final = {"ours": "bold", "floor": "dim", "bad": "red", "good": "green", "": ""}
LATENCY_NOTE: Final = (
    "From when a message was due to be sent until the subscriber had it, whatever held it up. "
    f"÷{FLOOR}: as a multiple of the same figure of the floor under the same load, with a ? if the floor's "
    "run has problems itself. CPU, switches (of context) and memory: all processes of the path together, CPU "
    "and switches per message; without the load generator."
)
STAGES_NOTE: Final = "Medians of stages need not add up to the median of the whole; p99s hardly ever do."
RECORDER_ROLES: Final = ("feed", "merger", "recorder")
AXES: Final = {"symbols": 2, "subscribers": 3, "feeds": 4}  # what a section varies: its place in a Load


class Row(msgspec.Struct, frozen=True):
    """One row; tone is a key of STYLES."""

    cells: Sequence[str]
    tone: str = ""


class Sheet(msgspec.Struct):
    """One table. The first left_count columns are text, the others figures."""

    section: str
    title: str
    columns: Sequence[str]
    rows: list[Row]
    notes: list[str] = []  # below the table; one that begins with "!" is bad news
    left_count: int = 1
    is_last_text: bool = False

    def is_text(self, column: int) -> bool:
        """Return whether a column, by its index, holds text; it is then aligned to the left."""
        return column < self.left_count or (self.is_last_text and column == len(self.columns) - 1)


def show(report: Report, console: Console | None = None) -> None:
    """Print the whole report, the verdict last, where a terminal ends up."""
    if console is None:
        console = console_for_tables()
    console.print(Text(headline(report), style="bold"))
    section, told = "", ""
    for sheet in sheets(report):
        if sheet.section != section:
            section = sheet.section
            console.print()
            console.rule(Text(section, style="bold"), align="left", characters="─")
        if (intro := INTROS.get(section, "")) and told != section:
            console.print(Text(intro, style="dim"))
        told = section
        print_sheet(sheet, console)


def console_for_tables() -> Console:
    """Return a console on standard output: rich's own on a terminal, plain and wide on anything else."""
    if sys.stdout.isatty() or os.environ.get("COLUMNS"):
        return Console(highlight=False)
    return Console(highlight=False, width=PIPED_WIDTH)


def print_sheet(sheet: Sheet, console: Console) -> None:
    """Print one table and its notes."""
    console.print()
    if sheet.title:
        console.print(Text(sheet.title, style="bold cyan"))
    table = Table(box=None, pad_edge=False, header_style="dim", padding=(0, GAP, 0, 0))
    last = len(sheet.columns) - 1
    width = MESSAGE_WIDTH_MIN if sheet.is_last_text else 0
    for number, column in enumerate(sheet.columns):
        # Names and figures stay whole; a text at the end may take more lines.
        may_wrap = number == last and sheet.is_last_text
        table.add_column(column, justify="left" if sheet.is_text(number) else "right", no_wrap=not may_wrap)
        if not may_wrap:
            cells = (*column.split("\n"), *(row.cells[number] for row in sheet.rows))
            width += max(map(cell_len, cells)) + GAP
    for row in sheet.rows:
        table.add_row(*(Text(cell) for cell in row.cells), style=STYLES[row.tone])
    if sheet.rows:
        # On a narrow terminal a line may break; a figure that has lost its end would be worse.
        options = console.options.update_width(max(console.width, width))
        console.print(Segments(console.render(table, options)), crop=False, end="")
    for note in sheet.notes:
        console.print(Text(f"  {note}", style=STYLES["bad"] if note.startswith("!") else "dim"))


def headline(report: Report) -> str:
    """Return the line that says which bench this was."""
    return f"feedhandler bench, {report.mode}, {report.date}, took {span(report.seconds)}"


def sheets(report: Report) -> list[Sheet]:
    """Return all tables of a report, in the order in which they are shown."""
    return [
        *about(report),
        *latencies(report),
        *stages(report),
        *costs(report),
        *(sheet for section in AXES for sheet in scaling(report, section)),
        *kinds(report),
        *ceilings(report),
        *soak(report),
        *recorder(report),
        *perpetuals(report),
        problems(report),
        *targets(report),
    ]


# --- the tables


def about(report: Report) -> list[Sheet]:
    """What was measured, and on what."""
    pairs = [Row((name, value)) for name, value in (report.host | report.settings).items()]
    paths = [
        Row(
            (
                name,
                info.path,
                f"not measured: {info.skipped}" if info.skipped else "; ".join(_said(info.title, info.note)),
            ),
            "bad" if info.skipped else _tone(report, name),
        )
        for name, info in report.paths.items()
    ]
    return [
        Sheet("What was measured", "", ("host, settings", ""), pairs, is_last_text=True),
        Sheet("What was measured", "", ("path", "drawn", ""), paths, left_count=2, is_last_text=True),
    ]


def latencies(report: Report) -> list[Sheet]:
    """Per load, a row for each path."""
    columns = ("path", *PERCENTILES, *(f"{name} ÷{FLOOR}" for name in ("p50", "p99")))
    columns += ("CPU us", f"CPU ÷{FLOOR}", "switches", "MB")
    sheets = []
    for load, runs in by_load(report.latency).items():
        rows = [Row(_figures(report, "latency", run), _tone(report, run.path, run)) for run in runs]
        # A path that was to be measured and has no run here is a finding too.
        there = {run.path for run in runs}
        rows += [
            Row((name, *[NONE] * (len(columns) - 1)), _tone(report, name))
            for name, info in report.paths.items()
            if name not in there and not info.skipped
        ]
        order = {name: place for place, name in enumerate(report.paths)}
        rows.sort(key=lambda row: order.get(row.cells[0].removesuffix(" !"), len(order)))
        title = ", ".join((words(load), *size(load), f"{count(runs[0].count)} messages"))
        sheets.append(Sheet("Latency and cost", title, columns, rows, [*_faults(runs), *_generator(runs)]))
    return sheets


def stages(report: Report) -> list[Sheet]:
    """Where the time goes, of paths that date their records on the way."""
    by_path: dict[str, list[Run]] = {name: [] for name in report.paths}
    for run in report.latency:
        if run.stages:
            by_path.setdefault(run.path, []).append(run)
    sheets = []
    for path, runs in by_path.items():
        names = list(dict.fromkeys(stage.name for run in runs for stage in run.stages))
        rows = []
        for load, alike in by_load(runs).items():
            for run in alike:
                of = {stage.name: stage.latency_us for stage in run.stages}
                for percentile in ("p50", "p99"):
                    cells = [duration(of.get(name, {}).get(percentile)) for name in names]
                    cells.append(duration(run.latency_us.get(percentile)))
                    rows.append(Row((words(load), percentile, *cells), "bad" if run.faults else ""))
        if rows:
            columns = ("load", "", *(name.replace(" → ", "\n→ ") for name in names), "the whole")
            notes = _faults(runs, is_load_said=True)
            sheets.append(Sheet("Stages", path, columns, rows, notes, left_count=2))
    return sheets


def costs(report: Report) -> list[Sheet]:
    """CPU per message of each process, under each load."""
    runs = [run for load in by_load(report.latency).values() for run in load if run.cost]
    if not runs:
        return []
    roles = list(dict.fromkeys(role for run in runs for role in run.cost))
    rows = []
    for run in runs:
        cells = [cpu(run.cost[role].cpu_us) if role in run.cost else NONE for role in roles]
        ratio = against_floor(report, "latency", run, "cpu")
        rows.append(
            Row(
                (words(run.load), _marked(run), *cells, cpu(run.cpu_us), ratio),
                _tone(report, run.path, run),
            )
        )
    columns = ("load", "path", *roles, "all", f"÷{FLOOR}")
    return [Sheet("CPU per message, us", "", columns, rows, left_count=2)]


def scaling(report: Report, section: str) -> list[Sheet]:
    """Cost against the number of symbols, subscribers or feeds."""
    place = AXES[section]
    columns = ("path", section, "p50", "p99", "max", *(f"{name} ÷{FLOOR}" for name in ("p50", "p99")))
    columns += ("CPU us", f"CPU ÷{FLOOR}", "switches", "MB")
    groups: dict[Load, list[Run]] = {}
    for run in sorted(report.section(section), key=lambda run: run.load):
        groups.setdefault(_without(run, section), []).append(run)
    found = []
    for load, runs in groups.items():
        paths = list(dict.fromkeys([*report.paths, *(run.path for run in runs)]))
        runs.sort(key=lambda run: paths.index(run.path))  # stable: still sorted by what varies
        rows = []
        for run in runs:
            path, p50, _, p99, _, *rest = _figures(report, section, run)
            rows.append(
                Row((path, count(run.load[place]), p50, p99, *rest), _tone(report, run.path, run)),
            )
        title = ", ".join((words(load), *size(load)))
        notes = [*_faults(runs, is_load_said=True), *_generator(runs)]
        found.append(Sheet(f"Cost against {section}", title, columns, rows, notes))
    return found


def kinds(report: Report) -> list[Sheet]:
    """Of each kind of messages a row for each load and path: latency, and CPU by role; then ceilings and memory."""
    roles = list(dict.fromkeys(role for run in report.kinds for role in run.cost))
    columns = ("load", "path", "p50", "p99", "p50 ÷floor", *roles, "CPU us", "CPU ÷floor", "MB")
    sheets = []
    for kind in dict.fromkeys(run.kind for run in report.kinds):
        runs = [run for load in by_load(r for r in report.kinds if r.kind == kind).values() for run in load]
        rows = [
            Row(
                (
                    words(run.load),
                    _marked(run),
                    *(duration(run.latency_us.get(name)) for name in ("p50", "p99")),
                    against_floor(report, "kinds", run, "p50"),
                    *(cpu(run.cost[role].cpu_us) if role in run.cost else NONE for role in roles),
                    cpu(run.cpu_us),
                    against_floor(report, "kinds", run, "cpu"),
                    count(run.resident_mb),
                ),
                _tone(report, run.path, run),
            )
            for run in runs
        ]
        title = f"{kind}: {', '.join(size(runs[0].load))}"
        notes = [*_faults(runs, is_load_said=True), *_generator(runs)]
        sheets.append(Sheet("Kinds", title, columns, rows, notes, left_count=2))
    return sheets + _kind_ceilings(report) + _books(report)


def _kind_ceilings(report: Report) -> list[Sheet]:
    rows = [
        Row((kind, path, count(each.rate) if each.rate else NONE, each.limited_by), _tone(report, path))
        for kind, by_path in report.kind_ceilings.items()
        for path, each in by_path.items()
    ]
    columns = ("kind", "path", "messages/s", "limited by")
    return [Sheet("Kinds", "ceilings", columns, rows, left_count=2, is_last_text=True)] if rows else []


def _books(report: Report) -> list[Sheet]:
    roles = list(dict.fromkeys(role for each in report.books for role in each.memory_mb))
    rows = [
        Row(
            (
                each.path,
                count(each.books),
                *(count(each.memory_mb[role]) if role in each.memory_mb else NONE for role in roles),
                count(each.resident_mb),
            ),
            "bad" if each.problems else _tone(report, each.path),
        )
        for each in report.books
    ]
    notes = [
        f"! {each.path}, {each.books} books: {'; '.join(each.problems)}"
        for each in report.books
        if each.problems
    ]
    columns = ("path", "books", *roles, "all")
    levels = f"resident MB, books of {count(report.books[0].levels)} levels a side" if rows else ""
    return [Sheet("Kinds", levels, columns, rows, notes)] if rows else []


def ceilings(report: Report) -> list[Sheet]:
    """The highest rates, and what was tried to find them."""
    if not report.ceilings:
        return []
    floor = report.ceilings.get(FLOOR)
    rows, notes = [], []
    for path, ceiling in report.ceilings.items():
        ratio = ceiling.rate / floor.rate if floor is not None and floor.rate else None
        rows.append(
            Row(
                (
                    path,
                    count(ceiling.rate) if ceiling.rate else NONE,
                    times(ratio),
                    count(ceiling.burst_rate) if ceiling.burst_rate else NONE,
                    ceiling.limited_by,
                ),
                _tone(report, path),
            )
        )
        tried = sorted(ceiling.runs, key=lambda run: run.load)
        fine = [_rate(run) for run in tried if not run.faults]
        if fine:
            notes.append(f"{path} was fine at {', '.join(fine)}")
        notes += [f"{path} was not at {_rate(run)}: {run.faults}" for run in tried if run.faults]
    columns = ("path", "messages/s", f"÷{FLOOR}", "in bursts", "limited by")
    return [Sheet("Ceilings", "", columns, rows, notes, is_last_text=True)]


def soak(report: Report) -> list[Sheet]:
    """Was anything lost in a long run, did memory grow?"""
    if report.soak is None:
        return []
    it = report.soak
    rows = []
    for role, samples in it.memory_mb.items():
        if not samples:
            continue
        last = len(samples) - 1
        at = [f"{samples[round(last * share)]:,.1f}" for share in (0, 0.25, 0.5, 0.75, 1)]
        rows.append(Row((role, *at, f"{samples[-1] - samples[0]:+,.1f}", f"{max(samples):,.1f}")))
    load = f"{count(it.rate)}/s, {count(it.symbols)} symbols"
    title = f"{count(it.messages)} messages in {span(it.seconds)}, {load}"
    notes = [
        f"! {count(it.lost)} messages were lost" if it.lost else "nothing was lost",
        "memory is flat" if it.is_flat else "! memory grows",
    ]
    columns = ("resident MB", "start", "25 %", "50 %", "75 %", "end", "change", "most")
    return [Sheet("Soak", title, columns, rows, notes)]


def recorder(report: Report) -> list[Sheet]:
    """What it costs a feed to be recorded, what the recorder takes, and what is done with recordings."""
    sheets = []
    for load, runs in by_load(report.recorder).items():
        rows = [
            Row(
                (
                    _marked(run),
                    *(duration(run.latency_us.get(name)) for name in ("p50", "p99")),
                    *(cpu(run.cost[role].cpu_us) if role in run.cost else NONE for role in RECORDER_ROLES),
                ),
                _tone(report, run.path, run),
            )
            for run in runs
        ]
        columns = ("path", "p50", "p99", *(f"CPU us, {role}" for role in RECORDER_ROLES))
        title = ", ".join((words(load), *size(load), f"{count(runs[0].count)} messages"))
        sheets.append(Sheet("Recorder", title, columns, rows, [*_faults(runs), *_generator(runs)]))
    return sheets + (_recorded(report.recorded) if report.recorded is not None else [])


def _recorded(it: Recorded) -> list[Sheet]:
    rows = [
        ("recorder: frames, as many as it takes", count(it.frames_per_s), f"{it.mb_per_s:.1f} MB/s"),
        (
            "recorder: CPU of a frame",
            f"{cpu(it.frame_cpu_us)} us",
            f"{count(it.frames)} sent, {it.lost} lost",
        ),
        ("export: messages", count(it.export_messages_per_s), f"{count(it.export_rows_per_s)} rows/s"),
        ("pandas: the same messages, only read", count(it.pandas_messages_per_s), "JSON lines"),
        ("replay: records as objects", count(it.replay_records_per_s), f"{count(it.replay_records)} records"),
        (
            "replay: the same on all cores, by the clock",
            count(it.replay_records_by_clock_per_s),
            f"the first after {it.replay_first_s:.2f} s",
        ),
        ("replay: records as bytes", count(it.replay_messages_per_s), ""),
    ]
    notes = [f"! {problem}" for problem in it.problems]
    figures = Sheet(
        "Recorder",
        "by a second of one core",
        ("", "", ""),
        [Row(row) for row in rows],
        notes,
        is_last_text=True,
    )
    kinds = [
        Row(
            (
                each.exchange,
                each.kind,
                count(each.messages),
                *(f"{size:,.1f}" if size else NONE for size in (each.received, each.segments, each.parquet)),
                f"{each.gzip:,.1f}",
                times(each.received / each.segments),
                times(each.gzip / each.segments),
            )
        )
        for each in it.kinds
    ]
    columns = ("exchange", "kind", "messages", "received", "segments", "Parquet", "gzip", "smaller", "÷gzip")
    note = "smaller: segments, against what was received; ÷gzip: against the same as JSON lines in gzip"
    return [figures, Sheet("Recorder", "bytes a message", columns, kinds, [note], left_count=2)]


def perpetuals(report: Report) -> list[Sheet]:
    """Many perpetuals in all kinds: cost and latency, what the traffic was like, memory, and how they began."""
    them = report.perpetuals
    of_loads = [_perpetual_costs(them), _perpetual_traffic(them), _perpetual_memory(them)] if them else []
    return of_loads + ([_perpetual_starts(report.perpetual_starts)] if report.perpetual_starts else [])


def _perpetual_costs(them: Sequence[Perpetuals]) -> Sheet:
    roles = (*them[0].resident_mb, SIMULATOR)
    rows = [
        (
            f"{each.busiest_per_s:g}/s",
            f"{each.frames_per_s:,.0f}",
            f"{sum(each.records_per_s.values()):,.0f}",
            *(duration(each.latency_us.get(name)) for name in ("p50", "p99", "p99.9")),
            *(f"{each.cores[role]:.2f}" for role in roles),
            cpu(each.cpu_us),
        )
        for each in them
    ]
    columns = ("busiest", "frames/s", "records/s", "p50", "p99", "p99.9")
    title = f"{count(them[0].symbols)} perpetuals of {them[0].exchange} in all kinds"
    return Sheet(
        "Perpetuals",
        title,
        (*columns, *(f"cores,\n{role}" for role in roles), "CPU us\na frame"),
        [Row(row) for row in rows],
        [f"! {each.busiest_per_s:g}/s: {problem}" for each in them for problem in each.problems],
    )


def _perpetual_traffic(them: Sequence[Perpetuals]) -> Sheet:
    kinds = list(dict.fromkeys(kind for each in them for kind in each.records_per_s))
    rows = [
        (
            f"{each.busiest_per_s:g}/s",
            *(f"{each.records_per_s.get(kind, 0.0):,.0f}" for kind in kinds),
            f"{each.busiest_ten:.0%}",
            f"{each.median_per_s:.1f}",
            *(f"{each.levels_mean:.1f}", f"{each.levels_p99:.0f}"),
            f"{each.late_ms:.1f} ms",
        )
        for each in them
    ]
    columns = ("busiest", *(f"{kind}/s" for kind in kinds), "of the ten\nbusiest", "median\nsymbol/s")
    columns += ("levels of\na change", "p99 of\nlevels", "simulator\nlate")
    return Sheet("Perpetuals", "what the traffic was like", columns, [Row(row) for row in rows])


def _perpetual_memory(them: Sequence[Perpetuals]) -> Sheet:
    roles = tuple(them[0].resident_mb)
    rows = [
        (
            f"{each.busiest_per_s:g}/s",
            *(f"{each.resident_mb[role]:.0f} ({each.proportional_mb[role]:.0f})" for role in roles),
            f"{sum(each.resident_mb.values()):.0f} ({sum(each.proportional_mb.values()):.0f})",
        )
        for each in them
    ]
    title = "resident MB; in brackets what several share is divided among them"
    return Sheet("Perpetuals", title, ("busiest", *roles, "all"), [Row(row) for row in rows])


def _perpetual_starts(them: Sequence[PerpetualsStart]) -> Sheet:
    kinds = list(dict.fromkeys(kind for each in them for kind in each.live_s))
    limits = list(dict.fromkeys(name for each in them for name in each.bounds))
    rows = [
        (
            each.exchange,
            *(count(number) for number in (each.symbols, each.topics, each.connections)),
            *(f"{each.live_s[kind]:.1f} s" if kind in each.live_s else NONE for kind in kinds),
            f"{each.cpu_s:.1f} s",
            *(f"{each.bounds[name]:.1f} s" if name in each.bounds else NONE for name in limits),
        )
        for each in them
    ]
    columns = ("exchange", "symbols", "topics", "connections", *(f"all live:\n{kind}" for kind in kinds))
    return Sheet(
        "Perpetuals",
        "from the start of the feed until the last symbol has data",
        (*columns, "CPU of\nthe feed", *(f"by limit:\n{name}" for name in limits)),
        [Row(row) for row in rows],
        [f"! {each.exchange}: {problem}" for each in them for problem in each.problems],
    )


def problems(report: Report) -> Sheet:
    """Every run that is not fine; those that looked for a ceiling are in that table, since they must fail."""
    runs = list(report.all_runs())
    rows = [
        Row((section, run.path, ", ".join((words(run.load), *size(run.load))), run.faults), "bad")
        for section, run in runs
        if run.faults
    ]
    note = f"{len(rows)} of {len(runs)} runs have problems" if rows else f"none in {len(runs)} runs"
    columns = ("in", "path", "load", "problem") if rows else ()
    return Sheet("Problems", "", columns, rows, [f"! {note}" if rows else note], 3, is_last_text=True)


def targets(report: Report) -> list[Sheet]:
    """What was wanted, what came of it."""
    if not report.targets:
        return []
    rows = [
        Row((t.figure, t.target, t.stretch or NONE, t.value or NONE, verdict(t)), _verdict_tone(t))
        for t in report.targets
    ]
    missed = sum(t.is_met is False for t in report.targets)
    unknown = sum(t.is_met is None for t in report.targets)
    notes = [f"! {missed} of {len(rows)} targets not met" if missed else ""]
    notes.append(f"{unknown} of {len(rows)} targets could not be judged" if unknown else "")
    columns = ("figure", "target", "stretch", "measured", "")
    return [Sheet("Targets", "", columns, rows, [note for note in notes if note], 4, is_last_text=True)]


def verdict(target: Target) -> str:
    """Return what came of a target, plainly."""
    if target.is_met is None:
        return "not judged"
    if not target.is_met:
        return "NOT MET"
    if target.is_stretch_met is None:
        return "met"
    return "met, stretch too" if target.is_stretch_met else "met, stretch not"


# --- figures as text


def duration(us: float | None) -> str:
    """Return a time span of microseconds with its unit, in three digits or a few more."""
    if us is None:
        return NONE
    if us < 10:
        return f"{us:.1f} us"
    if us < 10_000:
        return f"{us:,.0f} us"
    value, unit = (us / 1e3, "ms") if us < 1e6 else (us / 1e6, "s")
    return f"{value:.{max(0, 3 - len(str(int(value))))}f} {unit}"


def span(seconds: float) -> str:
    """Return how long something took, for people."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def times(ratio: float | None) -> str:
    """Return a multiple: "1.04x"."""
    if ratio is None:
        return NONE
    return f"{ratio:.2f}x" if ratio < 10 else f"{ratio:,.0f}x"


def against_floor(report: Report, section: str, run: Run, figure: str) -> str:
    """Return a figure as a multiple of the floor's, with a "?" if the floor's run has problems itself."""
    text = times(report.ratio(section, run, figure))
    floor = report.floor_of(section, run)
    return f"{text}?" if floor is not None and floor.faults and floor is not run and text != NONE else text


def count(value: float) -> str:
    """Return a whole number with its thousands set apart."""
    return f"{value:,.0f}"


def cpu(us: float) -> str:
    """Return CPU per message, without its unit."""
    return f"{us:.2f}" if us < 10 else f"{us:,.1f}"


def words(load: Load) -> str:
    """Return rate and burst in words."""
    burst, rate, *_ = load
    return f"{count(rate)}/s " + ("steady" if burst == 1 else f"in bursts of {count(burst)}")


def size(load: Load) -> list[str]:
    """Return symbols, subscribers and feeds in words; what is 0 varies, and is left out."""
    names = ("symbol", "subscriber", "feed")
    return [f"{count(n)} {name}{'s' * (n != 1)}" for n, name in zip(load[2:], names, strict=True) if n]


def by_load(runs: Iterable[Run]) -> dict[Load, list[Run]]:
    """Return runs by load: steady before bursts, slow before fast."""
    found: dict[Load, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.load):
        found.setdefault(run.load, []).append(run)
    return found


INTROS: Final = {
    "Kinds": "Trades, depth and books: one message is one trade, one whole depth, or the changes of one book.",
    "Latency and cost": LATENCY_NOTE,
    "Perpetuals": (
        "The simulator's own market, not numbered messages; it takes part of the same cores. Latency is from "
        "receipt to the subscriber. busiest: changes a second of the busiest symbol, of which there are few. "
        "by limit: how long that alone would hold up a start."
    ),
    "Stages": STAGES_NOTE,
    "Problems": "Losses, disorder, wrong values, late generators. A run that is not valid proves nothing.",
}


def _figures(report: Report, section: str, run: Run) -> tuple[str, ...]:
    """Return the cells of a run: path, percentiles, ratios, cost."""
    p50, p99, of_cpu = (against_floor(report, section, run, name) for name in COMPARED)
    cost = (
        (cpu(run.cpu_us), of_cpu, f"{run.switches:.2f}", count(run.resident_mb)) if run.cost else (NONE,) * 4
    )
    return (_marked(run), *(duration(run.latency_us.get(name)) for name in PERCENTILES), p50, p99, *cost)


def _without(run: Run, section: str) -> Load:
    """Return the load with 0 for what the section varies."""
    symbols, subscribers, feeds = (0 if name == section else int(getattr(run, name)) for name in AXES)
    return (run.burst, run.rate, symbols, subscribers, feeds)


def _marked(run: Run) -> str:
    return f"{run.path} !" if run.faults else run.path


def _tone(report: Report, path: str, run: Run | None = None) -> str:
    if run is not None and run.faults:
        return "bad"
    return "ours" if report.is_ours(path) else "floor" if path == FLOOR else ""


def _verdict_tone(target: Target) -> str:
    return "" if target.is_met is None else "good" if target.is_met else "bad"


def _said(*parts: str) -> list[str]:
    return [part for part in parts if part]


def _rate(run: Run) -> str:
    return f"{count(run.rate)}/s" + ("" if run.burst == 1 else f" in bursts of {count(run.burst)}")


def _faults(runs: Iterable[Run], *, is_load_said: bool = False) -> list[str]:
    notes = []
    for run in runs:
        if run.faults:
            where = f" at {', '.join((words(run.load), *size(run.load)))}" if is_load_said else ""
            notes.append(f"! {run.path}{where}: {run.faults}")
    return notes


def _generator(runs: Iterable[Run]) -> list[str]:
    """Return how late the load was, at worst: what cannot be blamed on the paths."""
    late = [run.generator for run in runs if run.generator]
    if not late:
        return []
    p99, most = (max(each.get(name, 0.0) for each in late) for name in ("late_p99_us", "late_max_us"))
    return [
        f"the load was late by {duration(p99)} at p99, {duration(most)} at most (the worst of these runs)"
    ]


assert set(AXES) | {"latency", "kinds", "recorder"} == set(SECTIONS), "every section of a report is shown"
