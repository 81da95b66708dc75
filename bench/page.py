"""A report as one HTML page that needs nothing else: no network, no other file.

Plots are described here as plotly's JSON and drawn by plotly.js, which is inlined once. The tables are those
of `terminal`, so a reader without JavaScript, or without eyes for plots, gets every figure. Colours are names
such as "@ink" that the page's script replaces, so that plots follow the reader's light or dark setting too.
"""

import html
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from plotly.offline import get_plotlyjs

from bench.report import COMPARED, FLOOR, PERCENTILES, Report, Run
from bench.terminal import (
    AXES,
    INTROS,
    Sheet,
    against_floor,
    by_load,
    count,
    cpu,
    duration,
    headline,
    sheets,
    span,
    words,
)

Json = dict[str, Any]

# Told apart by people with any colour vision, on white and on near-black (after Okabe and Ito); lines differ
# in dash and marker as well.
THEMES: Final[dict[str, dict[str, str]]] = {
    "light": {
        "ink": "#3d4450",
        "grid": "rgba(110,120,135,0.22)",
        "card": "#ffffff",
        "floor": "#868d98",
        "ours0": "#0063b1",
        "ours1": "#00856a",
        "ours2": "#5b3fb0",
        "other0": "#d2600f",
        "other1": "#b0528c",
        "other2": "#a67c00",
        "other3": "#6b4b2a",
        "stage0": "#12436d",
        "stage1": "#2b8cbe",
        "stage2": "#7fcdbb",
        "stage3": "#e0a030",
        "stage4": "#c05a3c",
        "stage5": "#7a4a78",
    },
    "dark": {
        "ink": "#c3c9d3",
        "grid": "rgba(150,160,175,0.20)",
        "card": "#1a1e25",
        "floor": "#8b929e",
        "ours0": "#4ba8ff",
        "ours1": "#2fd0a5",
        "ours2": "#a794ff",
        "other0": "#f08c3e",
        "other1": "#dd8bbd",
        "other2": "#dcb53c",
        "other3": "#bf9b75",
        "stage0": "#3f7fb5",
        "stage1": "#53b4e4",
        "stage2": "#98dccb",
        "stage3": "#efbc5a",
        "stage4": "#e08466",
        "stage5": "#b98ab6",
    },
}
OURS: Final = [(f"@ours{n}", "solid", 3, ("circle", "square", "diamond")[n]) for n in range(3)]
OTHERS: Final = [
    ("@other0", "dash", 1.75, "triangle-up"),
    ("@other1", "dashdot", 1.75, "triangle-down"),
    ("@other2", "longdash", 1.75, "pentagon"),
    ("@other3", "longdashdot", 1.75, "hexagon"),
]
STAGES: Final = [f"@stage{n}" for n in range(6)]
# Ten to a decade, from the median to one in 100,000.
CURVE: Final = [50.0, *(100 - 100 * 10 ** (-n / 10) for n in range(4, 51))]
DECADES_MIN: Final = 0.6  # that a logarithmic y axis spans: chance should not look like a trend
LABELS: Final = {"p50": "p50", "p99": "p99", "p99.9": "p99.9", "cpu": "CPU per message"}

CAPTIONS: Final = {
    "symbols": "The same number of messages, spread over more symbols.",
    "subscribers": "Each message to more subscribers; CPU is that of all of them together.",
    "feeds": "More exchanges at once, each in a process of its own.",
}


class View(msgspec.Struct, frozen=True):
    """One state of a plot; label is its button."""

    label: str
    data: list[Json]
    layout: Json


class Plot(msgspec.Struct, frozen=True):
    """A plot, with a button for each view if there are several, and what it says in a sentence or two."""

    name: str
    title: str
    caption: str
    views: list[View]


def write(report: Report, path: Path) -> None:
    """Write the page."""
    path.write_text(render(report), encoding="utf-8")


def render(report: Report) -> str:
    """Return the page."""
    found = [plot for plot in plots(report) if plot.views]
    tables = sheets(report)
    first = [sheet for sheet in tables if sheet.section in ("Targets", "Problems")]
    first.sort(key=lambda sheet: sheet.section != "Targets")
    rest = [sheet for sheet in tables if sheet not in first]
    figures = {plot.name: [msgspec.to_builtins(view) for view in plot.views] for plot in found}
    data = msgspec.json.encode({"themes": THEMES, "figures": figures}).decode()
    return PAGE.format(
        title=html.escape(headline(report)),
        subtitle=html.escape(f"A {report.mode} bench of {report.date}, which took {span(report.seconds)}"),
        style=STYLE,
        facts=_facts(report),
        reading=READING,
        first=_sections(first),
        navigation="".join(f'<a href="#{p.name}">{html.escape(p.title)}</a>' for p in found),
        plots="".join(_figure(plot) for plot in found),
        tables=_sections(rest),
        plotly=get_plotlyjs(),
        data=data.replace("<", "\\u003c"),  # a "</script>" in a name must not end the script
        script=SCRIPT,
    )


def plots(report: Report) -> list[Plot]:
    """Return all plots; one without views has nothing to show in this report."""
    return [
        _latency_by_rate(report),
        _curves(report),
        _stages(report),
        _ratios(report),
        _cost_by_rate(report),
        *(_scaling(report, section) for section in AXES),
        _ceilings(report),
        _soak(report),
    ]


# --- the plots


def _latency_by_rate(report: Report) -> Plot:
    """Per burst size, three percentiles against the rate; all percentiles where there is one rate only."""
    views = []
    for label, runs in _by_burst(report.latency):
        rates = sorted({run.rate for run in runs})
        if len(rates) > 1:
            panels = [
                (name, [(run, run.rate, run.latency_us.get(name)) for run in runs])
                for name in ("p50", "p99", "p99.9")
            ]
            x = _log_axis("messages per second", rates, count, ticks=rates)
            views.append(_lines(report, label, panels, x, _duration_axis, is_y_shared=True))
        else:
            points = [(run, name, run.latency_us.get(name)) for run in runs for name in PERCENTILES]
            x = _axis("") | {"type": "category"}
            views.append(_lines(report, f"{label}, {count(rates[0])}/s", [("", points)], x, _duration_axis))
    return Plot(
        "latency",
        "Latency by rate",
        "From due to in the subscriber's hands; lower is better. A cross marks a run with problems.",
        views,
    )


def _curves(report: Report) -> Plot:
    views = []
    for load, runs in by_load(report.latency).items():
        data = []
        values: list[float] = []
        deepest = 10.0
        for run in runs:
            curve = run.curve(CURVE)
            if not curve:
                continue
            xs = [100 / (100 - p) for p in curve]
            deepest = max(deepest, *xs)
            values += curve.values()
            of = _look(report, run.path)
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines",
                    "name": _named(run),
                    "x": xs,
                    "y": list(curve.values()),
                    "line": {"color": of["color"], "dash": of["dash"], "width": of["width"]},
                    "customdata": [[f"{p:.5g} %", duration(v)] for p, v in curve.items()],
                    "hovertemplate": "%{customdata[0]}: %{customdata[1]}",
                }
            )
        if not data:
            continue
        x = _axis("percentile") | {
            "type": "log",
            "range": [math.log10(2), math.log10(deepest * 1.1)],
            "tickvals": [2, 10, 100, 1_000, 10_000, 100_000],
            "ticktext": ["50 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %"],
        }
        layout = _layout(400) | {"xaxis": x, "yaxis": _duration_axis("", values)}
        views.append(View(words(load), data, layout))
    return Plot(
        "curves",
        "Latency by percentile",
        "The whole distribution, its slowest part spread out. A curve ends where its messages do.",
        views,
    )


def _stages(report: Report) -> Plot:
    views = []
    names = list(dict.fromkeys(stage.name for run in report.latency for stage in run.stages))
    for label, runs in _by_burst(run for run in report.latency if run.stages):
        order = {name: place for place, name in enumerate(report.paths)}
        # The first bar is drawn at the bottom.
        runs = sorted(runs, key=lambda run: (order.get(run.path, 0), run.load), reverse=True)
        data = []
        for number, name in enumerate(names):
            pairs = [
                (f"{_named(run)}, {count(run.rate)}/s", stage.latency_us.get("p50", 0.0))
                for run in runs
                for stage in run.stages
                if stage.name == name
            ]
            if pairs:
                data.append(
                    {
                        "type": "bar",
                        "orientation": "h",
                        "name": name,
                        "y": [bar for bar, _ in pairs],
                        "x": [value for _, value in pairs],
                        "text": [duration(value) for _, value in pairs],
                        "textposition": "inside",
                        "insidetextanchor": "middle",
                        "textangle": 0,
                        "marker": {
                            "color": STAGES[number % len(STAGES)],
                            "line": {"color": "@card", "width": 1.5},
                        },
                        "hovertemplate": "%{y}: %{text}",
                    }
                )
        y = _axis("") | {"type": "category", "showgrid": False, "automargin": True}
        x = _axis("p50 of each stage, us") | {"rangemode": "tozero"}
        # Plotly would order the bars by the first trace, which need not have them all.
        y |= {
            "categoryorder": "array",
            "categoryarray": [f"{_named(run)}, {count(run.rate)}/s" for run in runs],
        }
        layout = _layout(130 + 34 * len(runs)) | {"xaxis": x, "yaxis": y, "barmode": "stack"}
        layout["uniformtext"] = {"mode": "hide", "minsize": 10}
        layout["legend"] |= {"traceorder": "normal"}  # as the bars read, from the left
        views.append(View(label, data, layout))
    return Plot(
        "stages",
        "Where the time goes",
        "Medians of the stages of our paths, which need not add up to the median of the whole.",
        views,
    )


def _ratios(report: Report) -> Plot:
    """Bars from 1, on a logarithmic scale: twice as slow is as long as twice as fast."""
    views = []
    for figure in COMPARED:
        data: list[Json] = []
        values = [1.0]
        loads = [words(load) for load in by_load(report.latency)]
        for path, runs in _by_path(report, report.latency).items():
            if path == FLOOR:
                continue
            there = [
                (run, ratio) for run in runs if (ratio := report.ratio("latency", run, figure)) is not None
            ]
            if not there:
                continue
            values += [ratio for _, ratio in there]
            texts = [against_floor(report, "latency", run, figure) for run, _ in there]
            data.append(
                {
                    "type": "bar",
                    "name": path,
                    "x": [words(run.load) for run, _ in there],
                    "y": [math.log2(max(ratio, 1e-9)) for _, ratio in there],
                    "text": [
                        f"{text} !" if run.faults else text
                        for text, (run, _) in zip(texts, there, strict=True)
                    ],
                    "textposition": "outside",
                    "textfont": {"size": 11},
                    "constraintext": "none",
                    "cliponaxis": False,
                    "marker": {
                        "color": _look(report, path)["color"],
                        # Faint: the run or the floor's has problems.
                        "opacity": [
                            0.35 if run.faults or text.endswith("?") else 1.0
                            for text, (run, _) in zip(texts, there, strict=True)
                        ],
                    },
                    "hovertemplate": "%{x}: %{text}",
                }
            )
        if not data:
            continue
        low, high = math.log2(max(min(values), 1e-9)), math.log2(max(values))
        exponents = range(math.floor(low), math.ceil(high) + 1)
        y = _axis(f"{LABELS[figure]}, multiple of the floor's") | {
            "range": [min(low, 0) - 0.5, max(high, 0.5) + 0.5],
            "tickvals": list(exponents),
            "ticktext": [f"{2.0**e:g}x" for e in exponents],
        }
        x = _axis("") | {"categoryorder": "array", "categoryarray": loads, "showgrid": False}
        one = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": 0, "y1": 0}
        one["line"] = {"color": "@ink", "width": 1.5}
        layout = _layout(400) | {"xaxis": x, "yaxis": y, "barmode": "group", "shapes": [one], "bargap": 0.25}
        views.append(View(LABELS[figure], data, layout))
    return Plot(
        "ratios",
        "Against the floor",
        "Multiples of the floor under the same load, on a logarithmic scale: above the line is slower or "
        "dearer, below it is faster or cheaper. Faint: this run (!) or the floor's (?) has problems.",
        views,
    )


def _cost_by_rate(report: Report) -> Plot:
    views = []
    for label, runs in _by_burst(run for run in report.latency if run.cost):
        panels = [
            ("CPU per message, us", [(run, run.rate, run.cpu_us) for run in runs]),
            ("context switches per message", [(run, run.rate, run.switches) for run in runs]),
        ]
        rates = sorted({run.rate for run in runs})
        x = _log_axis("messages per second", rates, count, ticks=rates)
        views.append(_lines(report, label, panels, x, _number_axis))
    return Plot(
        "cpu",
        "Cost by rate",
        "All processes of a path together, without the load generator. At low rates each message pays for a "
        "wake-up of every process; at high rates several share one.",
        views,
    )


def _scaling(report: Report, section: str) -> Plot:
    place = AXES[section]
    groups: dict[tuple[int, float], list[Run]] = {}
    for run in sorted(report.section(section), key=lambda run: run.load):
        groups.setdefault((run.burst, run.rate), []).append(run)
    views = []
    for (burst, rate), runs in groups.items():
        sizes = sorted({run.load[place] for run in runs})
        panels = [
            (LABELS[name], [(run, run.load[place], run.latency_us.get(name)) for run in runs])
            for name in ("p50", "p99")
        ]
        panels.append(("CPU per message, us", [(run, run.load[place], run.figure("cpu")) for run in runs]))
        x = _log_axis(section, sizes, count, ticks=sizes)
        kinds = [_duration_axis, _duration_axis, _number_axis]
        views.append(_lines(report, words((burst, rate, 0, 0, 0)), panels, x, kinds))
    return Plot(
        section,
        f"Cost against {section}",
        CAPTIONS[section],
        views,
    )


def _ceilings(report: Report) -> Plot:
    paths = list(reversed(report.ceilings))
    if not paths:
        return Plot("ceilings", "Ceilings", "", [])
    data = []
    for name, attribute, shape in (("in bursts", "burst_rate", "/"), ("steady", "rate", "")):
        rates = [getattr(report.ceilings[path], attribute) for path in paths]
        if not any(rates):
            continue
        reasons = [report.ceilings[path].limited_by for path in paths]
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "name": name,
                "y": paths,
                "x": rates,
                "text": [
                    f"{count(rate)}/s" + (f", {reason}" if reason and name == "steady" else "")
                    if rate
                    else ""
                    for rate, reason in zip(rates, reasons, strict=True)
                ],
                "textposition": "outside",
                "cliponaxis": False,
                "marker": {
                    "color": [_look(report, path)["color"] for path in paths],
                    "opacity": 1 if name == "steady" else 0.55,
                    "pattern": {"shape": shape},
                },
                "hovertemplate": "%{y}: %{text}",
            }
        )
    highest = max(max(c.rate, c.burst_rate) for c in report.ceilings.values())
    x = _axis("messages per second") | {"range": [0, highest * 1.45 or 1.0], "tickformat": ",d"}
    y = _axis("") | {"type": "category", "showgrid": False, "automargin": True}
    layout = _layout(80 + 56 * len(paths)) | {"xaxis": x, "yaxis": y, "barmode": "group", "bargap": 0.3}
    # A legend would show the colour of one of the paths.
    layout |= {"showlegend": False, "margin": layout["margin"] | {"t": 16}}
    caption = (
        "The highest rate that was carried, and what kept it from more; higher is better. Hatched: in bursts."
    )
    return Plot("ceilings", "Ceilings", caption, [View("", data, layout)])


def _soak(report: Report) -> Plot:
    it = report.soak
    memory = {role: samples for role, samples in it.memory_mb.items() if samples} if it is not None else {}
    if it is None or not memory:
        return Plot("soak", "Memory over time", "", [])
    data = []
    for (role, samples), (color, dash, _, _) in zip(
        memory.items(), [*OURS, *OTHERS] * len(memory), strict=False
    ):
        step = it.seconds / max(1, len(samples) - 1)
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "name": role,
                "x": [number * step for number in range(len(samples))],
                "y": samples,
                "line": {"color": color, "dash": dash, "width": 2},
                "hovertemplate": "%{x:.0f} s: %{y:.1f} MB",
            }
        )
    y = _axis("resident, MB") | {"rangemode": "tozero"}
    layout = _layout(340) | {"xaxis": _axis("seconds"), "yaxis": y}
    lost = "nothing was lost" if not it.lost else f"{count(it.lost)} messages were lost"
    caption = (
        f"{count(it.messages)} messages at {count(it.rate)}/s, {count(it.symbols)} symbols: {lost}, "
        f"memory {'is flat' if it.is_flat else 'grows'}."
    )
    return Plot("soak", "Memory over time", caption, [View("", data, layout)])


# --- their parts


Point = tuple[Run, Any, float | None]
MakeAxis = Callable[[str, Sequence[float]], Json]


def _lines(
    report: Report,
    label: str,
    panels: Sequence[tuple[str, Sequence[Point]]],
    x: Json,
    y: MakeAxis | Sequence[MakeAxis],
    *,
    is_y_shared: bool = False,
) -> View:
    """Return a line per path in each of the panels, side by side; their titles stand above them."""
    data: list[Json] = []
    layout = _layout(400) | {"annotations": []}
    gap = 0.04 if is_y_shared else 0.075
    width = (1 - gap * (len(panels) - 1)) / len(panels)
    every = [value for _, points in panels for _, _, value in points if value]
    seen: set[str] = set()
    for number, (title, points) in enumerate(panels):
        suffix = str(number + 1) if number else ""
        start = number * (width + gap)
        values = every if is_y_shared else [value for _, _, value in points if value]
        kind = y if callable(y) else y[number]
        layout[f"xaxis{suffix}"] = x | {"domain": [start, start + width], "anchor": f"y{suffix}"}
        layout[f"yaxis{suffix}"] = kind("", values) | {"anchor": f"x{suffix}"}
        if is_y_shared and number:
            layout[f"yaxis{suffix}"] |= {"showticklabels": False, "matches": "y"}
        heading = {"text": f"<b>{title}</b>", "x": start, "y": 1, "yshift": 6, "showarrow": False}
        heading |= {"xref": "paper", "yref": "paper", "xanchor": "left", "yanchor": "bottom"}
        layout["annotations"].append(heading)
        by_path: dict[str, list[Point]] = {name: [] for name in report.paths}
        for point in points:
            by_path.setdefault(point[0].path, []).append(point)
        for path, own in by_path.items():
            there = [(run, at, value) for run, at, value in own if value is not None]
            if not there:
                continue
            of = _look(report, path)
            shapes = ["x" if run.faults else of["marker"] for run, _, _ in there]
            text = duration if kind is _duration_axis else cpu
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": path,
                    "legendgroup": path,
                    "showlegend": path not in seen,
                    "xaxis": f"x{suffix}",
                    "yaxis": f"y{suffix}",
                    "x": [at for _, at, _ in there],
                    "y": [value for _, _, value in there],
                    "line": {"color": of["color"], "dash": of["dash"], "width": of["width"]},
                    "marker": {"symbol": shapes, "size": 8, "color": of["color"]},
                    "customdata": [
                        [text(value), f"<br>{html.escape(run.faults)}" if run.faults else ""]
                        for run, _, value in there
                    ],
                    "hovertemplate": "%{x}: %{customdata[0]}%{customdata[1]}",
                }
            )
            seen.add(path)
    return View(label, data, layout)


def _layout(height: int) -> Json:
    return {
        "height": height,
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": "@ink"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 64, "r": 16, "t": 64, "b": 52},
        "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "top", "yref": "container"},
        "hoverlabel": {"bgcolor": "@card", "bordercolor": "@ink", "font": {"color": "@ink"}},
        "dragmode": False,
    }


def _axis(title: str) -> Json:
    return {
        "title": {"text": title},
        "gridcolor": "@grid",
        "linecolor": "@grid",
        "tickcolor": "@grid",
        "zeroline": False,
        "showline": True,
        "ticks": "outside",
        "ticklen": 4,
    }


def _log_axis(
    title: str,
    values: Sequence[float],
    text: Callable[[float], str],
    *,
    ticks: Sequence[float] | None = None,
    decades_min: float = 0.0,
) -> Json:
    """Return a logarithmic axis around values; with ticks at round numbers if none are given."""
    there = [value for value in values if value > 0] or [1.0]
    low, high = math.log10(min(there)), math.log10(max(there))
    room = max(0.08, (high - low) * 0.06, (decades_min - (high - low)) / 2)
    if ticks is None:
        width = high - low + 2 * room
        steps = (1, 1.5, 2, 3, 4, 5, 7) if width < 0.8 else (1, 2, 5) if width < 3 else (1,)
        decades = range(math.floor(low) - 1, math.ceil(high) + 1)
        ticks = [step * 10.0**decade for decade in decades for step in steps]
    return _axis(title) | {
        "type": "log",
        "range": [low - room, high + room],
        "tickvals": list(ticks),
        "ticktext": [text(tick) for tick in ticks],
    }


def _duration_axis(title: str, values: Sequence[float]) -> Json:
    return _log_axis(title, values, _short, decades_min=DECADES_MIN)


def _number_axis(title: str, values: Sequence[float]) -> Json:
    return _log_axis(title, values, lambda value: f"{value:g}", decades_min=DECADES_MIN)


def _short(us: float) -> str:
    """Return the label of a tick."""
    for unit, size_us in (("s", 1e6), ("ms", 1e3)):
        if us >= size_us:
            return f"{us / size_us:g} {unit}"
    return f"{us:g} us"


def _look(report: Report, path: str) -> Json:
    """Return colour, dash, width and marker of a path: the same in every plot."""
    if path == FLOOR:
        return {"color": "@floor", "dash": "dot", "width": 2.5, "marker": "circle-open"}
    alike = [p for p in report.paths if p != FLOOR and report.is_ours(p) == report.is_ours(path)]
    looks = OURS if report.is_ours(path) else OTHERS
    color, dash, width, marker = looks[(alike.index(path) if path in alike else 0) % len(looks)]
    return {"color": color, "dash": dash, "width": width, "marker": marker}


def _by_burst(runs: Iterable[Run]) -> list[tuple[str, list[Run]]]:
    found: dict[int, list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.load):
        found.setdefault(run.burst, []).append(run)
    return [
        ("steady" if burst == 1 else f"bursts of {count(burst)}", alike) for burst, alike in found.items()
    ]


def _by_path(report: Report, runs: Iterable[Run]) -> dict[str, list[Run]]:
    found: dict[str, list[Run]] = {name: [] for name in report.paths}
    for run in sorted(runs, key=lambda run: run.load):
        found.setdefault(run.path, []).append(run)
    return found


def _named(run: Run) -> str:
    return f"{run.path} !" if run.faults else run.path


# --- HTML


def _facts(report: Report) -> str:
    return "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(value)}</dd></div>"
        for name, value in report.host.items()
    )


def _figure(plot: Plot) -> str:
    buttons = ""
    if len(plot.views) > 1:
        buttons = "".join(
            f'<button type="button" data-plot="{plot.name}" data-view="{number}" '
            f'aria-pressed="{str(number == 0).lower()}">{html.escape(view.label)}</button>'
            for number, view in enumerate(plot.views)
        )
        buttons = (
            f'<div class="views" role="group" aria-label="{html.escape(plot.title)}: view">{buttons}</div>'
        )
    height = plot.views[0].layout["height"]
    label = f"{plot.title}; the figures are in the tables below"
    return (
        f'<figure id="{plot.name}"><h2>{html.escape(plot.title)}</h2>'
        f"<figcaption>{html.escape(plot.caption)}</figcaption>{buttons}"
        f'<div class="scroll"><div class="plot" id="plot-{plot.name}" role="img" '
        f'aria-label="{html.escape(label)}" style="min-height:{height}px"></div></div></figure>'
    )


def _sections(found: Sequence[Sheet]) -> str:
    parts, section = [], ""
    for sheet in found:
        if sheet.section != section:
            parts.append("</section>" if section else "")
            section = sheet.section
            intro = f"<p>{html.escape(INTROS[section])}</p>" if section in INTROS else ""
            parts.append(f"<section><h2>{html.escape(section)}</h2>{intro}")
        parts.append(_table(sheet))
    return "".join(parts) + ("</section>" if section else "")


def _table(sheet: Sheet) -> str:
    parts = []
    if sheet.rows:
        caption = f"<caption>{html.escape(sheet.title)}</caption>" if sheet.title else ""
        heads = "".join(
            f'<th scope="col"{_text_class(sheet, n)}>{html.escape(column)}</th>'
            for n, column in enumerate(sheet.columns)
        )
        parts.append(f'<div class="scroll"><table>{caption}<thead><tr>{heads}</tr></thead><tbody>')
        for row in sheet.rows:
            first, *rest = row.cells
            cells = "".join(
                f"<td{_text_class(sheet, n)}>{html.escape(cell)}</td>" for n, cell in enumerate(rest, start=1)
            )
            tone = f' class="{row.tone}"' if row.tone else ""
            parts.append(f'<tr{tone}><th scope="row" class="text">{html.escape(first)}</th>{cells}</tr>')
        parts.append("</tbody></table></div>")
    for note in sheet.notes:
        tone = "note bad" if note.startswith("!") else "note"
        parts.append(f'<p class="{tone}">{html.escape(note)}</p>')
    return "".join(parts)


def _text_class(sheet: Sheet, column: int) -> str:
    return ' class="text"' if sheet.is_text(column) else ""


READING: Final = """
<p>A simulated exchange on the same machine sends numbered quotes over WebSocket, on a fixed schedule that
waits for nobody (open loop). <b>Latency</b> counts from when a message was <em>due</em> to when the
subscribing program had it, so what waits in a queue, or behind a slow program, is counted and not hidden.
Every message is checked at the end of the path: that it came, in order, with the values that were sent.</p>
<p>The <b>floor</b> is the least that can be done over the same hops with the same libraries: it passes the
frames on raw, decodes nothing, checks nothing. What another path takes beyond it is the price of what that
path does. On a machine that others use too, compare multiples of the floor rather than microseconds:
neighbours slow both.</p>
<p><b>CPU</b> and <b>context switches</b> are what the kernel counted for all processes of a path, per
message; the load generator is not among them. A run with problems stays in every plot and table, marked
with a cross or &ldquo;!&rdquo;, and the reason is in the table of problems. It is called not valid if the
generator itself was late: it then says nothing about the path.</p>
<p>p99 is the latency that one message in a hundred exceeds; max is the slowest of all. The fewer messages
are beyond a percentile, the more of it is chance.</p>
"""

STYLE: Final = """
:root { color-scheme: light dark; --back: #f5f6f8; --card: #ffffff; --ink: #1d222b; --soft: #5a6270;
  --line: #d9dde3; --ours: #0063b1; --good: #1a7340; --bad: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --back: #12151a; --card: #1a1e25; --ink: #e4e7ec;
  --soft: #a0a8b5; --line: #333a45; --ours: #4ba8ff; --good: #5cc98a; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 28px 20px 60px; }
h1 { font-size: 24px; margin: 0 0 4px; font-weight: 650; }
h2 { font-size: 17px; margin: 0 0 4px; font-weight: 650; }
header p { margin: 0 0 16px; color: var(--soft); }
dl { display: flex; flex-wrap: wrap; gap: 4px 22px; margin: 0 0 18px; font-size: 13px; }
dl div { display: flex; gap: 6px; }
dt { color: var(--soft); }
dd { margin: 0; font-variant-numeric: tabular-nums; }
nav { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 0 0 18px; font-size: 13px; }
a { color: var(--ours); }
section, figure, details { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: 16px 18px; margin: 0 0 18px; }
section p, details p { max-width: 85ch; }
section > p { margin: 0 0 8px; color: var(--soft); font-size: 13px; }
summary { font-weight: 650; font-size: 17px; cursor: pointer; }
figcaption { color: var(--soft); font-size: 13px; max-width: 100ch; }
.views { display: flex; flex-wrap: wrap; gap: 6px; margin: 10px 0 0; }
button { font: inherit; font-size: 13px; color: var(--ink); background: transparent;
  border: 1px solid var(--line); border-radius: 5px; padding: 2px 10px; cursor: pointer; }
button[aria-pressed="true"] { background: var(--ours); border-color: var(--ours); color: var(--card); }
.scroll { overflow-x: auto; } .plot { min-width: 640px; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; margin: 8px 0 4px; }
caption { text-align: left; font-weight: 650; padding: 8px 0 4px; }
th, td { padding: 3px 14px 3px 0; text-align: right; font-weight: 400; vertical-align: baseline;
  white-space: nowrap; }
thead th { color: var(--soft); border-bottom: 1px solid var(--line); white-space: pre-line;
  vertical-align: bottom; }
tbody tr + tr > * { border-top: 1px solid color-mix(in srgb, var(--line) 55%, transparent); }
.text { text-align: left; } td.text:last-child { white-space: normal; }
tr.ours > * { font-weight: 650; } tr.floor > * { color: var(--soft); }
tr.bad > *, .note.bad { color: var(--bad); } tr.good td:last-child { color: var(--good); font-weight: 650; }
.note { margin: 2px 0; color: var(--soft); font-size: 13px; }
h2.apart { margin: 30px 0 10px; font-size: 20px; }
@media print { figure, section { break-inside: avoid; } nav, .views { display: none; } }
"""

SCRIPT: Final = """
const page = JSON.parse(document.getElementById("data").textContent);
const dark = matchMedia("(prefers-color-scheme: dark)");
const shown = {};
function draw(name) {
  const colours = page.themes[dark.matches ? "dark" : "light"];
  const text = JSON.stringify(page.figures[name][shown[name] || 0]);
  const view = JSON.parse(text, (key, value) =>
    typeof value === "string" && value[0] === "@" && value.slice(1) in colours
      ? colours[value.slice(1)] : value);
  Plotly.react("plot-" + name, view.data, view.layout, {responsive: true, displayModeBar: false});
}
for (const button of document.querySelectorAll("button[data-plot]")) {
  button.addEventListener("click", () => {
    shown[button.dataset.plot] = Number(button.dataset.view);
    for (const other of button.parentNode.children) {
      other.setAttribute("aria-pressed", String(other === button));
    }
    draw(button.dataset.plot);
  });
}
const drawAll = () => Object.keys(page.figures).forEach(draw);
dark.addEventListener("change", drawAll);
drawAll();
"""

PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<header><h1>feedhandler bench</h1><p>{subtitle}</p><dl>{facts}</dl></header>
{first}
<details open><summary>How this was measured, how to read it</summary>{reading}</details>
<nav aria-label="Contents">{navigation}<a href="#tables">Tables</a></nav>
{plots}
<h2 class="apart" id="tables">Tables</h2>
{tables}
</main>
<script>{plotly}</script>
<script type="application/json" id="data">{data}</script>
<script>{script}</script>
</body>
</html>
"""
