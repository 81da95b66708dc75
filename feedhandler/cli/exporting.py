"""`feedhandler export`: recordings as files for research.

What decodes and writes is imported by whoever exports: every process of ours reads the arguments of all commands.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from feedhandler.cli.arguments import Commands, bare_command
from feedhandler.data.errors import EXIT_FAILED, EXIT_OK, ConfigError
from feedhandler.data.kinds import RECORD_WORDS
from feedhandler.exchanges import EXCHANGES
from feedhandler.export.formats import BOOKS, FORMATS
from feedhandler.transport.files import Lock

if TYPE_CHECKING:
    from feedhandler.export.jobs import Exported, Job

MB: Final = 1_000_000


def add(commands: Commands) -> None:
    """Add the command of this module."""
    parser = bare_command(commands, "export", _export, "write recordings as Parquet, or for backtests")
    parser.epilog = (
        "exit status: 0 all of it is there; 1 something could not be read, or a process died; 2 wrong arguments,"
        " no recording, no room. What was done is kept: the same command goes on. docs/recording.md has the"
        " columns."
    )
    parser.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="a directory of recordings, a segment, or a capture in JSON lines",
    )
    parser.add_argument("--to", required=True, metavar="OUT", help="the directory to write to")
    parser.add_argument(
        "--kinds",
        default="",
        metavar="KINDS",
        help=f"of records, with commas between (default: {','.join(RECORD_WORDS)})",
    )
    parser.add_argument(
        "--symbols", default="", metavar="SYMBOLS", help="only these, such as BTC/USDT,ETH/USDT"
    )
    parser.add_argument("--exchanges", default="", metavar="NAMES", help="only these, of a directory")
    parser.add_argument(
        "--exchange",
        default="",
        metavar="NAME",
        help=f"whose traffic it is, where a recording does not tell: {', '.join(EXCHANGES)}",
    )
    parser.add_argument("--format", default=FORMATS[0], choices=FORMATS, help=f"(default: {FORMATS[0]})")
    parser.add_argument(
        "--books",
        default=BOOKS[0],
        choices=BOOKS,
        help="of books: each level that a message has, or the best 20 after each (default: levels)",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=0,
        metavar="N",
        help="processes at a time (default: as many as processors)",
    )
    parser.add_argument("--quiet", action="store_true", help="print nothing but problems")


def _export(arguments: argparse.Namespace) -> int:
    from feedhandler.export import jobs, work
    from feedhandler.export.jobs import Options
    from feedhandler.recordings.runs import find_runs
    from feedhandler.replay import check_exchanges, check_kinds, check_symbols

    kinds = check_kinds(_words(arguments.kinds))
    if arguments.jobs < 0:
        raise ConfigError(f"--jobs {arguments.jobs}: is to be a number of processes")
    if arguments.books != BOOKS[0] and arguments.format != FORMATS[0]:
        raise ConfigError(f"--books {arguments.books} is for Parquet")
    check_exchanges([arguments.exchange] if arguments.exchange else [])
    only = check_exchanges(_words(arguments.exchanges))
    work.check_packages(arguments.format)
    options = Options(
        arguments.format, arguments.books, tuple(sorted(check_symbols(_words(arguments.symbols))))
    )
    runs = [run for source in arguments.sources for run in find_runs(Path(source), only)]
    out = Path(arguments.to)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as exc:
        raise ConfigError(f"--to {out}: {exc.strerror}") from exc
    with Lock(str(out), ".export"):
        manifest = jobs.read(out, options)
        todo = jobs.plan(runs, manifest, kinds, out, arguments.exchange)
        shown = _Shown(todo, len(runs), options.symbols, is_quiet=arguments.quiet)
        try:
            with shown:
                for job, entry in work.do_all(todo, out, arguments.jobs or os.cpu_count() or 1, shown.report):
                    work.complete(job, entry, manifest, out)
                    shown.done(job, entry)
        except KeyboardInterrupt:
            print("feedhandler: stopped; the same command goes on", file=sys.stderr)
            return EXIT_FAILED
        return shown.conclude()


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


class _Shown:
    """A bar on a terminal, and a line for each job at its end."""

    def __init__(self, todo: "list[Job]", runs: int, symbols: Iterable[str], *, is_quiet: bool) -> None:
        self._skipped = runs - len(todo)
        self._unseen = set(symbols)  # of which nothing has come yet
        self._is_quiet = is_quiet
        self._size = sum(job.size for job in todo)
        self._positions: dict[str, int] = {}
        self._records: dict[str, int] = {}
        self._rows = self._gaps = 0
        self._bytes = 0
        self._has_problems = False
        self._started_s = time.monotonic()
        self._bar: _Bar | None = None

    def __enter__(self) -> "_Shown":
        if self._size and not self._is_quiet and sys.stderr.isatty():
            self._bar = _Bar(self._size)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def report(self, name: str, position: int, records: int) -> None:
        """A job has come so far."""
        self._positions[name], self._records[name] = position, records
        if self._bar is not None:
            self._bar.show(sum(self._positions.values()), sum(self._records.values()))

    def done(self, job: "Job", entry: "Exported") -> None:
        """A job is done."""
        rows, size = sum(made.rows for made in entry.outputs), sum(made.size for made in entry.outputs)
        self._rows += rows
        self._bytes += size
        self._gaps += entry.gaps
        self._unseen -= set(entry.symbols)
        self._records[job.name] = entry.records
        for problem in entry.problems:
            self._tell(f"{job.name}: {problem}")
        for what, count in entry.elsewhere.items():
            self._note(f"{job.name}: {count:,} frames were not decoded: {what}")
        if entry.undecodable:
            self._note(
                f"{job.name}: {entry.undecodable:,} frames could not be decoded;"
                " `feedhandler captures decode` shows some of a capture"
            )
        if entry.unnamed:
            self._tell(
                f"{job.name}: {entry.unnamed:,} records were left out: several instruments claim their symbols"
            )

    def _tell(self, text: str) -> None:
        self._has_problems = True
        self._note(text)

    def _note(self, text: str) -> None:
        print(f"feedhandler: {text}", file=sys.stderr)

    def conclude(self) -> int:
        """Say what has come of all, and return the exit status."""
        if self._unseen and not self._skipped:
            self._note(f"there is nothing of {', '.join(sorted(self._unseen))} in these kinds")
        if not self._is_quiet:
            records = sum(self._records.values())
            took_s = max(1e-9, time.monotonic() - self._started_s)
            if self._positions:
                print(
                    f"{records:,} records: {self._rows:,} rows, {self._bytes / MB:,.1f} MB"
                    f" of {self._size / MB:,.1f} MB, in {took_s:,.1f} s ({self._rows / took_s:,.0f} rows/s);"
                    f" {self._gaps:,} gaps in the recording"
                )
            if self._skipped:
                print(f"{self._skipped} of the recordings' runs were there already")
        return EXIT_FAILED if self._has_problems else EXIT_OK


class _Bar:
    """How far it is, on stderr."""

    def __init__(self, size: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self._progress.add_task("exporting", total=size)
        self._progress.start()

    def show(self, position: int, records: int) -> None:
        """Show it."""
        self._progress.update(self._task, completed=position, description=f"{records:,} records")

    def close(self) -> None:
        """Take it away."""
        self._progress.stop()
