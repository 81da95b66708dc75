"""Measure latency, cost and ceiling of feedhandler, beside the floor and other libraries; write the report.

Real processes on loopback, one path loaded at a time. Every figure is checked before it is printed: each
message arrived once, in order per symbol, with the values that were sent. docs/performance.md explains it.
"""

import argparse
import datetime
import sys
import time
from pathlib import Path

from bench import host, page, perpetuals, plan, recording, terminal
from bench.contenders import AGAIN, CONTENDERS, FLOOR, RECORDED, SILENT, cryptofeed_version
from bench.report import PathInfo, Report, save
from bench.rig import BenchError
from bench.targets import judge

SECTIONS = ("latency", "symbols", "subscribers", "feeds", "ceilings", "soak", "kinds", "recorder")
BY_REQUEST = ("perpetuals",)  # it waits for the limits of exchanges, ten minutes in all


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the same shape in about a minute; says less")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", default=Path("bench-results"), help="default: %(default)s"
    )
    parser.add_argument(
        "--only", action="append", choices=(*SECTIONS, *BY_REQUEST), help="measure this alone (repeatable)"
    )
    parser.add_argument(
        "--path", action="append", metavar="NAME", help="measure this path and the floor alone"
    )
    arguments = parser.parse_args()
    try:
        return measure(arguments)
    except BenchError as exc:
        print(f"bench: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted; nothing was written", file=sys.stderr)
        return 130


def measure(arguments: argparse.Namespace) -> int:
    """Run the plan, show the report, write it; returns the exit status."""
    progress = plan.Progress()
    chosen = plan.QUICK if arguments.quick else plan.FULL
    wanted = arguments.only or SECTIONS
    contenders, skipped = plan.available(progress)
    if arguments.path:
        contenders = [c for c in contenders if c.name in (*arguments.path, FLOOR.name)]
    started = time.monotonic()
    report = Report(
        date=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        mode="quick" if arguments.quick else "full",
        seconds=0.0,
        host={**host.description(), "cryptofeed": cryptofeed_version() or "not installed"},
        settings=plan.described(chosen),
        paths={
            c.name: PathInfo(c.title, c.path, c.is_ours, skipped.get(c.name, ""), c.note)
            for c in (*CONTENDERS, SILENT, AGAIN, RECORDED)
        },
    )
    for section in wanted:
        progress.section(section)
        match section:
            case "latency":
                report.latency = plan.latency(chosen, contenders, progress)
            case "symbols":
                report.symbols = plan.scaling(chosen, section, progress)
                report.whole_exchange = plan.whole_exchange(chosen, progress)
            case "subscribers":
                report.subscribers = plan.scaling(chosen, section, progress)
                report.subscribers += plan.beside_silent(chosen, progress)
            case "feeds":
                report.feeds = plan.scaling(chosen, section, progress)
            case "ceilings":
                report.ceilings = plan.ceilings(chosen, contenders, progress)
            case "soak":
                report.soak = plan.soak(chosen, progress)
            case "kinds":
                report.kinds = plan.kinds(chosen, contenders, progress)
                report.kind_ceilings = plan.kind_ceilings(chosen, contenders, progress)
                report.books = plan.books(chosen, contenders, progress)
            case "recorder":
                report.recorder = plan.beside_recorder(chosen, progress)
                report.recorded = recording.measure(chosen.recorded_frames, progress.step)
            case "perpetuals":
                report.perpetuals = perpetuals.loads(
                    chosen.perpetuals,
                    chosen.perpetual_rates,
                    chosen.perpetual_seconds,
                    progress.step,
                )
                report.perpetual_starts = perpetuals.starts(chosen.perpetuals, progress.step)
    report.seconds = time.monotonic() - started
    report.targets = judge(report)
    progress.notice(f"measured in {report.seconds / 60:.1f} minutes")
    return show(report, arguments.out)


def show(report: Report, directory: Path) -> int:
    """Print the report, and write it as JSON and as a page."""
    terminal.show(report)
    directory.mkdir(parents=True, exist_ok=True)
    name = directory / f"{report.date.replace(':', '').removesuffix('+0000')}-{report.mode}"
    save(report, name.with_suffix(".json"))
    page.write(report, name.with_suffix(".html"))
    print(f"\nwritten: {name.with_suffix('.json')}\n         {name.with_suffix('.html')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
