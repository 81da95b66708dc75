"""Simulated load of three exchanges with all kinds, recorded; then all of it is held against each other.

    python tests/soak --minutes 60 --rate 150      # or `make soak MINUTES=60`

    simulator ══▶ feeds ══▶ merger ══▶ a subscriber that notes all
        │           └─▶ recorder ─▶ recordings ─┬─▶ captures verify
        └ counts and checksums                  ├─▶ export
                                                └─▶ replay

Claimed is that every message which the simulator sent is in the recording, that `captures verify` calls it
complete, that an export has a row for whatever is decoded, and that a replay gives what was published, byte for
byte. Exit status 0 only if all of it holds.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
import zlib
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "e2e"))

import pyarrow.parquet as pq
import subscriber
from claims import Claim, show
from harness import EXCHANGES, Stack, wait_until
from notes import Notes, compare

from bench import host
from feedhandler import replay
from feedhandler.recordings import directory
from feedhandler.recordings.traffic import What
from feedhandler.runtime.lifecycle import SUPERVISED_ENV
from feedhandler.sim import frames
from feedhandler.transport.files import read_recorder_status

ALL_KINDS = 'kinds = ["ticker", "trade", "depth", "book"]'
PATIENCE_S = 120.0  # of a wait that takes seconds on a machine that is not busy
COMMAND_S = 3600.0
STALL_S = 3600.0  # nothing is sent any more; all ends long before that does
LINE_S = 60.0


def arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60.0, metavar="N", help="of load (%(default)g)")
    parser.add_argument(
        "--rate", type=int, default=150, metavar="N", help="messages/s of each exchange (%(default)s)"
    )
    parser.add_argument(
        "--keep", action="store_true", help="leave recordings, exports and logs where they are"
    )
    parsed = parser.parse_args()
    if parsed.minutes <= 0 or not 1 <= parsed.rate <= 50_000:
        parser.error("--minutes must be positive, and --rate from 1 to 50000")
    return parsed


class Soak:
    """All processes, and what is asked of them."""

    def __init__(self, place, rate):
        self.stack = Stack(place, rate=rate, extra=ALL_KINDS)
        self.recordings, self.noted = place / "recordings", place / "noted.zst"
        with self.stack.config.open("a", encoding="utf-8") as file:
            file.write(f'[recorder]\ndirectory = "{self.recordings}"\nmin_free_gb = 0.5\n')
        self._place = place
        self._usage = {}  # by process, when the last line was printed
        self._said_s = 0.0

    def start(self):
        """Start everything; whoever notes is there before anything is sent."""
        stack = self.stack
        stack.start("recorder", "merger")
        stack.processes["subscriber"] = self._note()
        wait_until(lambda: "ready" in stack.log("subscriber"), "the subscriber")
        stack.start("sim", *EXCHANGES)
        wait_until(lambda: all(map(stack.is_simulated, EXCHANGES)), "the simulator")
        wait_until(lambda: all(self.recorded(exchange) for exchange in EXCHANGES), "some traffic")
        self._usage, self._said_s = self.usage(), time.monotonic()

    def _note(self):
        command = [sys.executable, subscriber.__file__]
        return self.stack.popen(self.stack.endpoint, str(self.noted), log="subscriber", command=command)

    def recorded(self, exchange):
        """How many messages of an exchange are recorded."""
        found = read_recorder_status(str(self._place / "run"))
        return found.feeds[exchange].received if found is not None else 0

    def connections(self, exchange):
        """Return of each connection how many messages the simulator has sent on it, and their checksum."""
        state = self.stack.sim_state(exchange)
        found = [*state["connections"], *state["connections_closed"]]
        return [(each["texts_sent"], each["texts_crc"]) for each in found if each["texts_sent"]]

    def sent(self, exchange):
        return sum(count for count, _ in self.connections(exchange))

    def usage(self):
        return {name: host.usage(process.pid) for name, process in self.stack.processes.items()}

    def watch(self, seconds):
        """Let so much time pass, and see that all processes run."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, 1.0))
            for name, process in self.stack.processes.items():
                if process.poll() is not None:
                    raise AssertionError(f"{name} has ended, with status {process.returncode}")

    def line(self):
        """Say what has come so far, and what it costs."""
        found, now_s = self.usage(), time.monotonic()
        seconds, self._said_s = now_s - self._said_s, now_s
        cores = {name: (each - self._usage[name]).cpu_s / seconds for name, each in found.items()}
        self._usage = found
        sent, recorded = (sum(map(of, EXCHANGES)) for of in (self.sent, self.recorded))
        size = sum(path.stat().st_size for path in self.recordings.rglob("*.segment"))
        return (
            f"{sent:,} messages sent, {recorded:,} recorded, {self.stack.log('subscriber').split()[-1]} records"
            f" noted; {size / 1e6:.1f} MB; {sum(cores.values()):.2f} cores: "
            + ", ".join(
                f"{name} {cores[name]:.3f} and {each.resident_mb:.0f} MB" for name, each in found.items()
            )
        )

    def settle(self):
        """Have nothing more sent, and wait until what was sent is recorded; returns it by exchange."""
        for exchange in EXCHANGES:
            self.stack.fault(exchange, "stall", seconds=STALL_S)
        for exchange in EXCHANGES:
            wait_until(
                lambda exchange=exchange: self.recorded(exchange) >= self.sent(exchange),
                lambda exchange=exchange: f"{exchange}: {self.recorded(exchange)} of {self.sent(exchange)}",
                PATIENCE_S,
            )
        return {exchange: Counter(self.connections(exchange)) for exchange in EXCHANGES}

    def stop(self):
        """End everything in order. Returns whoever did not end well."""
        order = (*EXCHANGES, "recorder", "subscriber", "merger", "sim")
        found = {name: self.stack.kill(name, signal.SIGTERM) for name in order}
        return [f"{name}: status {status}" for name, status in found.items() if status]


def received(recordings, exchange):
    """Return what was recorded of each connection, as the simulator counts what it sends."""
    counts, sums = Counter(), Counter()
    for files in directory.find(recordings, [exchange]).values():
        for item in directory.items(files):
            if item.what is What.RECEIVED:
                counts[item.connection] += 1
                sums[item.connection] = zlib.crc32(frames.text(item.data), sums[item.connection])
    return Counter((counts[name], sums[name]) for name in counts)


def is_all_recorded(recordings, exchange, sent):
    found = received(recordings, exchange)
    count = sum(each * times for (each, _), times in found.items())
    measured = f"{count:,} messages on {found.total()} connection{'s' * (found.total() != 1)}"
    if missing := sent - found:
        measured += f"; sent, and not there: {dict(missing)}"
    if more := found - sent:
        measured += f"; there, and not sent: {dict(more)}"
    return Claim(f"recorded = sent: {exchange}", measured, found == sent and count > 0)


def is_verified(stack, recordings):
    answer = stack.run("captures", "verify", str(recordings), timeout=COMMAND_S)
    complete = answer.stdout.count(": complete\n")
    measured = f"{complete} of {len(EXCHANGES)} feeds complete, status {answer.returncode}"
    holds = not answer.returncode and complete == len(EXCHANGES)
    return Claim(
        "captures verify", measured if holds else f"{measured}\n{answer.stdout}{answer.stderr}", holds
    )


def is_exported(stack, recordings, out, wanted):
    """A row for each record, and of books for each level."""
    answer = stack.run("export", str(recordings), "--to", str(out), timeout=COMMAND_S)
    rows = Counter()
    for path in out.rglob("*.parquet"):
        rows[path.relative_to(out).parts[0].removeprefix("kind=")] += pq.read_metadata(path).num_rows
    measured = ", ".join(f"{kind} {count:,}" for kind, count in sorted(rows.items()))
    if answer.returncode:
        measured += f"; status {answer.returncode}: {answer.stdout}{answer.stderr}"
    if rows != wanted:
        measured += f"; decoded were {dict(wanted)}"
    return Claim("rows exported = records decoded", measured, not answer.returncode and rows == wanted)


def claims(soak, sent, wrong):
    """Yield what holds, one after the other: some take minutes after an hour."""
    recordings = soak.recordings
    yield Claim("all processes ended in order", ", ".join(wrong) or "yes", not wrong)
    for exchange in EXCHANGES:
        yield is_all_recorded(recordings, exchange, sent[exchange])
    yield is_verified(soak.stack, recordings)
    live, again = Notes(subscriber.records(soak.noted)), Notes(replay.messages(recordings))
    yield is_exported(soak.stack, recordings, recordings.parent / "exported", again.rows)
    missed = sum(topic.missed for topic in live.topics.values())
    measured = f"{live.counts.total():,} records noted, {missed} missed, {live.flagged} flagged STALE or DOWN"
    yield Claim("published = noted", measured, not missed)
    yield from compare(live, again)


def play(given, place):
    soak = Soak(place, given.rate)
    try:
        soak.start()
        began = soak.usage()
        seconds = given.minutes * 60
        for number in range(1, max(1, round(seconds / LINE_S)) + 1):
            soak.watch(min(LINE_S, seconds))
            print(f"minute {number}: {soak.line()}", flush=True)
        sent, ended = soak.settle(), soak.usage()
        wrong = soak.stop()
        memory = [f"{name} {began[name].resident_mb:.1f} → {ended[name].resident_mb:.1f}" for name in began]
        print(f"memory, begin → end, MB: {', '.join(memory)}", flush=True)
        found = []
        for claim in claims(soak, sent, wrong):
            show([claim])
            found.append(claim)
        return all(claim.holds for claim in found)
    finally:
        soak.stack.close()


def interrupted(number, frame):
    raise KeyboardInterrupt


def main():
    given = arguments()
    signal.signal(signal.SIGTERM, interrupted)
    os.environ[SUPERVISED_ENV] = "1"  # whatever ends this ends its processes
    place = Path(tempfile.mkdtemp(prefix="soak-"))
    print(
        f"{given.minutes:g} minutes, {given.rate} messages/s of each of {len(EXCHANGES)} exchanges; {place}"
    )
    started, is_fine = time.monotonic(), False
    try:
        is_fine = play(given, place)
        said = "every claim holds" if is_fine else "FAILED"
    except KeyboardInterrupt:
        said = "stopped"
    except AssertionError as exc:
        said = f"FAILED: {exc}"
    print(f"{time.monotonic() - started:.0f} s: {said}")
    if is_fine and not given.keep:
        shutil.rmtree(place)
    else:
        print(f"recordings, exports and logs are in {place}")
    return 0 if is_fine else 1


if __name__ == "__main__":
    sys.exit(main())
