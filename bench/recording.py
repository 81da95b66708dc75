"""The recorder flat out, and what is done with a recording: exported, played again, weighed.

    simulator ══▶ three feeds ══▶ recorder ──▶ a recording of all kinds
                                                │
    raw_feed: its frames, as fast as ══▶ recorder, on one core: is all of it there?
                                                │
                       export, replay and pandas, one after the other

What is done here is timed by CPU, of the processes that replay starts as well: on a machine that is busy with
something else it says the same. Replay is timed by the clock besides, on all cores.
"""

import contextlib
import itertools
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from bench import host
from bench.contenders import free_port
from bench.report import Recorded, StoredKind
from bench.rig import BenchError, Child, Say, python
from feedhandler import replay
from feedhandler.data.kinds import RECORD_WORDS
from feedhandler.data.status import RecorderStatus
from feedhandler.export import jobs, sizes, work
from feedhandler.export.jobs import Options
from feedhandler.recordings import directory
from feedhandler.recordings.runs import find_runs
from feedhandler.recordings.traffic import What
from feedhandler.sim.simulated import SEEDED
from feedhandler.transport.files import read_recorder_status

RATE: Final = 3_000  # messages/s of each exchange that is recorded
SOON_S: Final = 120.0
LOOK_S: Final = 0.25
FLAT_OUT: Final = 5  # times as many frames as are recorded
PLAYED: Final = 3  # times
PANDAS_MAX: Final = 50_000  # messages: it takes kilobytes for each


def measure(frames: int, say: Say) -> Recorded:
    """Record so many frames, and measure. Raises BenchError."""
    found = Recorded()
    with tempfile.TemporaryDirectory(prefix="fhb-") as name:
        place = Path(name)
        say(f"recording {frames:,} frames")
        recordings = _record(place, frames)
        say(f"the recorder, {FLAT_OUT * frames:,} frames")
        _flat_out(place, recordings, FLAT_OUT * frames, found)
        say("export")
        _export(recordings, place / "exported", found)
        say("pandas")
        _pandas(recordings, place / "lines.jsonl", found)
        say("replay")
        _replay(recordings, found)
        say("sizes")
        _weigh(recordings, found)
    return found


@contextlib.contextmanager
def _children(place: Path, commands: Mapping[str, list[str]]) -> Iterator[dict[str, Child]]:
    """Run programs; they end in the order of their names here, each before the next."""
    children: dict[str, Child] = {}
    try:
        for name, argv in commands.items():
            children[name] = Child(name, argv, place)
        yield children
    finally:
        for child in children.values():
            child.end()


def _configuration(place: Path, lines: Iterable[str]) -> str:
    place.mkdir()
    head = [f'run_dir = "{place}"', "[recorder]", f'directory = "{place}/recordings"', "min_free_gb = 0"]
    path = place / "bench.toml"
    path.write_text("\n".join([*head, *lines]) + "\n", encoding="utf-8")
    return str(path)


def _record(place: Path, frames: int) -> Path:
    """Record simulated exchanges with all kinds; returns the directory."""
    place = place / "simulated"
    lines = []
    for name in SEEDED:
        port = free_port()
        lines += [
            f"[exchanges.{name}]",
            f'ws_url = "ws://127.0.0.1:{port}"',
            f'rest_url = "http://127.0.0.1:{port}"',
            "simulated = true",
            'kinds = ["ticker", "trade", "depth", "book"]',
        ]
    config = _configuration(place, [*lines, "[sim]", f"messages_per_s = {RATE}"])
    commands = {name: python("feedhandler", "feed", name, "-c", config) for name in SEEDED}
    commands |= {name: python("feedhandler", name, "-c", config) for name in ("recorder", "sim")}
    with _children(place, commands) as children:
        _wait(place, children, lambda status: sum(each.received for each in status.feeds.values()) >= frames)
    return place / "recordings"


def _wait(
    place: Path, children: Mapping[str, Child], is_reached: Callable[[RecorderStatus], bool]
) -> list[RecorderStatus]:
    """Wait for a recorder's status; returns all of them until then. Raises BenchError."""
    seen: list[RecorderStatus] = []
    deadline = time.monotonic() + SOON_S
    while True:
        status = read_recorder_status(str(place))
        if status is not None and (not seen or status.as_of_ns != seen[-1].as_of_ns):
            seen.append(status)
            deadline = time.monotonic() + SOON_S
            if is_reached(status):
                return seen
        for child in children.values():
            if not child.is_alive():
                raise child.failed()
        if time.monotonic() > deadline:
            raise BenchError(f"the recorder has told nothing for {SOON_S:g} s")
        time.sleep(LOOK_S)


def _flat_out(place: Path, recordings: Path, count: int, found: Recorded) -> None:
    """Have a recorder on one core take frames as fast as it can."""
    place = place / "flat"
    core = min(os.sched_getaffinity(0))
    lines = [f"cpus = [{core}]", "[exchanges.binance]", "simulated = true", 'ws_url = "ws://127.0.0.1:1"']
    config = _configuration(place, [*lines, 'rest_url = "http://127.0.0.1:1"'])
    feed = python("bench.paths.raw_feed", f"ipc://{place}/binance-raw.ipc", str(recordings), str(count))
    commands = {"feed": feed, "recorder": python("feedhandler", "recorder", "-c", config)}
    with _children(place, commands) as children:
        recorder = children["recorder"]
        _wait(place, children, lambda status: status.feeds["binance"].is_connected)
        began = host.usage(recorder.pid)
        sent = json.loads(children["feed"].ask("begin"))
        seen = _wait(place, children, lambda status: status.feeds["binance"].received >= count)
        used = host.usage(recorder.pid) - began
    report = directory.verify(place / "recordings")[0]
    found.frames, found.lost = count, sent["dropped"] + count - report.received
    # It tells once a second what it has, so this is up to a second too long.
    seconds = (seen[-1].as_of_ns - sent["begun_ns"]) / 1e9
    found.frames_per_s = count / seconds
    found.frame_cpu_us = used.cpu_s / count * 1e6
    found.mb_per_s = seen[-1].feeds["binance"].items_size / seconds / 1e6
    if not report.is_complete:
        found.problems.append(f"the recording is not complete: {report.missing} missing")


def _timed(work_: Callable[[], Any]) -> tuple[Any, float]:
    """Return what comes of it, and the seconds of CPU, of processes that have ended meanwhile as well."""
    started = _cpu_s()
    made = work_()
    return made, _cpu_s() - started


def _cpu_s() -> float:
    return sum(os.times()[:4])


def _messages(recordings: Path) -> Iterator[bytes]:
    """Yield what was received, as it came."""
    for files in directory.find(recordings).values():
        yield from (item.data for item in directory.items(files) if item.what is What.RECEIVED)


def _export(recordings: Path, out: Path, found: Recorded) -> None:
    out.mkdir()
    options = Options()
    todo = jobs.plan(find_runs(recordings), jobs.read(out, options), tuple(RECORD_WORDS), out)
    done, seconds = _timed(lambda: list(work.do_all(todo, out, 1, lambda *_: None)))
    found.messages = sum(1 for _ in _messages(recordings))
    found.export_messages_per_s = found.messages / seconds
    found.export_rows_per_s = sum(made.rows for _, entry in done for made in entry.outputs) / seconds


def _pandas(recordings: Path, path: Path, found: Recorded) -> None:
    """Have pandas read messages as lines of JSON: it neither decodes nor writes anything."""
    import pandas as pd

    count = 0
    with path.open("wb") as file:
        for message in _messages(recordings):
            file.write(message + b"\n")
            count += 1
            if count == PANDAS_MAX:
                break
    frame, seconds = _timed(lambda: pd.read_json(path, lines=True))
    if len(frame) != count:
        found.problems.append(f"pandas has read {len(frame)} of {count} messages")
    found.pandas_messages_per_s = count / seconds


class Played(NamedTuple):
    """A recording that was played again: CPU and time are of all of it, first_s until the first record came."""

    records: int
    cpu_s: float
    clock_s: float
    first_s: float


def _replay(recordings: Path, found: Recorded) -> None:
    rounds = [
        (_played(replay.messages, recordings), _played(replay.records, recordings)) for _ in range(PLAYED)
    ]
    counts = {each.records for pair in rounds for each in pair}
    found.replay_records = max(counts)
    if len(counts) > 1:
        found.problems.append(f"replay: {min(counts)} records, and once {max(counts)}")
    packed, objects = zip(*rounds, strict=True)
    found.replay_messages_per_s = statistics.median(each.records / each.cpu_s for each in packed)
    found.replay_records_per_s = statistics.median(each.records / each.cpu_s for each in objects)
    found.replay_records_by_clock_per_s = statistics.median(each.records / each.clock_s for each in objects)
    found.replay_first_s = statistics.median(each.first_s for each in objects)


def _played(way: Callable[[Path], Iterator[Any]], recordings: Path) -> Played:
    began_mono_s, began_cpu_s = time.monotonic(), _cpu_s()
    records = way(recordings)
    count = sum(1 for _ in itertools.islice(records, 1))
    first_s = time.monotonic() - began_mono_s
    count += sum(1 for _ in records)
    return Played(count, _cpu_s() - began_cpu_s, time.monotonic() - began_mono_s, first_s)


def _weigh(recordings: Path, found: Recorded) -> None:
    runs = find_runs(recordings)
    measured = sizes.measure(runs)
    sizes.add_parquet(measured, runs)
    for each in measured:
        a_message = (size / each.messages for size in (each.received, each.segments, each.parquet, each.gzip))
        found.kinds.append(StoredKind(each.exchange, each.kind, each.messages, *a_message))
