"""Jobs, done: in this process or in several. Files of a job get their names when all of them are complete.

    Job ──▶ Player ──▶ writer ──▶ OUT/.parts/JOB/… ──renamed──▶ OUT/… ──▶ the manifest

Whoever is killed anywhere leaves what is in `.parts`, which the next one removes.
"""

import concurrent.futures
import multiprocessing
import os
import queue
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from feedhandler.data import wire
from feedhandler.data.errors import ConfigError, FeedError
from feedhandler.export import jobs as jobs_
from feedhandler.export.jobs import Exported, Job, Made, Manifest
from feedhandler.replay import Player, RecordingGap

PARTS: Final = ".parts"
ITEMS: Final = 2000  # between two reports
POLL_S: Final = 0.2
PROBLEMS_MAX: Final = 5  # that a manifest keeps of a run

Report = Callable[[str, int, int], object]  # job, bytes read, records


class ExportFailed(FeedError):
    """A process that exported has died."""


class Stopped(Exception):
    """No more is wanted."""


class Writer(Protocol):
    """Makes files of what comes of a run, in a folder of its own."""

    def take(self, record: bytes, recv_ns: int) -> None:
        """Take a record."""

    def take_gap(self, gap: RecordingGap) -> None:
        """Take a gap."""

    def finish(self) -> list[Made]:
        """Complete the files; their paths are in the folder."""

    def abandon(self) -> None:
        """Write no more."""


def writer_of(job: Job, folder: Path) -> Writer:
    """Return what writes a job's format. Raises ImportError for one that needs a package."""
    if job.options.format == "tardis":
        from feedhandler.export.tardis import TardisWriter

        return TardisWriter(job, folder)
    if job.options.format == "hftbacktest":
        from feedhandler.export.backtest import BacktestWriter

        return BacktestWriter(job, folder)
    from feedhandler.export.parquet import ParquetWriter

    return ParquetWriter(job, folder)


def do(job: Job, out: Path, report: Report) -> Exported:
    """Do a job; its files are complete afterwards, and not yet where they belong."""
    folder = out / PARTS / job.name
    inputs = jobs_.looked_at(job.run)
    entry = Exported(kinds=job.kinds, exchange=job.exchange, inputs=inputs, was_open=job.run.is_open)
    writer = writer_of(job, folder)
    player = Player(job.run, job.exchange, job.kinds)
    try:
        _play(job, player, writer, entry, report)
        made = writer.finish()
    except BaseException:
        writer.abandon()
        raise
    sizes = [(folder / each.path).stat().st_size for each in made]
    entry.outputs = [Made(each.path, each.rows, size) for each, size in zip(made, sizes, strict=True)]
    entry.unnamed, entry.undecodable = player.unnamed, player.undecodable
    entry.elsewhere = dict(player.elsewhere)
    entry.problems = player.reader.problems[:PROBLEMS_MAX]
    return entry


def _play(job: Job, player: Player, writer: Writer, entry: Exported, report: Report) -> None:
    symbols, after_ns = frozenset(job.options.symbols), job.after_ns
    wanted: dict[bytes, bool] = {}
    seen: set[str] = set()
    time_of, topic_size, times = wire.TIME.unpack_from, wire.TOPIC_SIZE, wire.RECV_NS_OFFSET
    records, due = 0, ITEMS
    for found in player:
        if not isinstance(found, bytes):
            if found.recv_ns > after_ns:
                writer.take_gap(found)
                entry.gaps += 1
                entry.missing += found.count
            continue
        topic = found[:topic_size]
        is_wanted = wanted.get(topic)
        if is_wanted is None:
            symbol = wire.unpadded(topic).split(".", 2)[2]
            is_wanted = wanted[topic] = not symbols or symbol in symbols
            seen.add(symbol)
        (recv_ns,) = time_of(found, times)
        if is_wanted and recv_ns > after_ns:
            writer.take(found, recv_ns)
            records += 1
            if recv_ns > entry.last_ns:
                entry.last_ns = recv_ns
        if player.items >= due:
            due = player.items + ITEMS
            report(job.name, player.reader.position, records)
    entry.records = records
    entry.symbols = tuple(sorted(symbols & seen))
    report(job.name, player.reader.size, records)


def complete(job: Job, entry: Exported, manifest: Manifest, out: Path) -> None:
    """Put a job's files where they belong, remove those that they replace, and note it. Raises OSError."""
    folder = out / PARTS / job.name
    for made in entry.outputs:
        target = out / made.path
        target.parent.mkdir(parents=True, exist_ok=True)
        with (folder / made.path).open("rb") as file:
            os.fsync(file.fileno())
        (folder / made.path).replace(target)
    kept = {made.path for made in entry.outputs}
    for name in job.replaces:
        was = manifest.runs.pop(name, None)
        for made in was.outputs if was is not None else ():
            if made.path not in kept:
                (out / made.path).unlink(missing_ok=True)
    manifest.runs[job.name] = entry
    jobs_.write(out, msgspec.structs.replace(manifest, runs=dict(sorted(manifest.runs.items()))))
    shutil.rmtree(folder, ignore_errors=True)


def do_all(todo: Sequence[Job], out: Path, processes: int, report: Report) -> Iterator[tuple[Job, Exported]]:
    """Yield jobs as they are done. Raises what a job raised, and ExportFailed."""
    shutil.rmtree(out / PARTS, ignore_errors=True)
    if min(processes, len(todo)) <= 1:
        yield from ((job, do(job, out, report)) for job in todo)
    else:
        yield from _do_apart(todo, out, processes, report)
    shutil.rmtree(out / PARTS, ignore_errors=True)


def _do_apart(
    todo: Sequence[Job], out: Path, processes: int, report: Report
) -> Iterator[tuple[Job, Exported]]:
    context = multiprocessing.get_context("spawn")
    reports: Any = context.Queue()
    stop = context.Event()
    with concurrent.futures.ProcessPoolExecutor(
        min(processes, len(todo)), context, _begin, (reports, stop)
    ) as pool:
        left = {pool.submit(_do_there, job, out): job for job in todo}
        try:
            while left:
                done, _ = concurrent.futures.wait(left, POLL_S, concurrent.futures.FIRST_COMPLETED)
                _pass_on(reports, report)
                for future in done:
                    yield left.pop(future), future.result()
        except concurrent.futures.process.BrokenProcessPool as exc:
            raise ExportFailed("a process that exported was killed: for want of memory, perhaps") from exc
        finally:
            stop.set()
            # What a process that only begins is given goes with this function: all have to have ended by then.
            pool.shutdown(wait=True, cancel_futures=True)


def _pass_on(reports: Any, report: Report) -> None:
    while True:
        try:
            report(*reports.get_nowait())
        except queue.Empty:
            return


# --- in a process of its own

_reports: Any = None
_stop: Any = None


def _begin(reports: Any, stop: Any) -> None:
    global _reports, _stop
    _reports, _stop = reports, stop
    reports.cancel_join_thread()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who is asked to stop asks us
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # whoever asked for it is gone


def _do_there(job: Job, out: Path) -> Exported:
    return do(job, out, _report)


def _report(name: str, position: int, records: int) -> None:
    if _stop.is_set():
        raise Stopped
    _reports.put((name, position, records))


def check_packages(name: str) -> None:
    """Raise ConfigError if a format needs a package that is not there."""
    try:
        if name == "parquet":
            import feedhandler.export.parquet
        elif name == "hftbacktest":
            import feedhandler.export.backtest  # noqa: F401
    except ImportError as exc:
        raise ConfigError(str(exc)) from exc
