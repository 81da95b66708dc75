"""Where an act plays: processes under their supervisor, a watching subscriber, witnesses, and the end of it all."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from harness import EXCHANGES, MAJORS, Stack, is_alive, leftovers, programs, wait_until
from observer import NS_PER_S, Watch
from witness import MarketWitness, Witness

from feedhandler.runtime.lifecycle import die_with_parent

PATIENCE_S = 90.0  # of a wait that takes seconds on a machine that is not busy
STOP_S = 40.0
LINE_EVERY_S = 5.0
CATCH_UP_S = 60.0  # for what is still under way to the subscriber
VIOLATION = re.compile(r"simulated (\w+): connection \d+: (.*)")
MAJORS_OF = dict.fromkeys(EXCHANGES, MAJORS)
WANTED = [f"ticker.{exchange}.{symbol}" for exchange in EXCHANGES for symbol in MAJORS]


class Stage:
    """One run of everything, in a directory of its own. extra: TOML lines of all exchanges, or by exchange;
    sim: those of the simulator, instead of a rate; expected: the symbols that are watched, by exchange."""

    def __init__(self, directory, rate, extra, *, symbols=None, sim="", expected=MAJORS_OF):
        self.directory = Path(directory)
        self.directory.mkdir(parents=True)
        self.exchanges = tuple(expected)
        self.expected = expected
        self.stack = Stack(
            self.directory, exchanges=self.exchanges, rate=rate, extra=extra, symbols=symbols, sim=sim
        )
        self.run = self.watch = None
        self.more_kinds = 0  # of each symbol, a topic each
        self.witnesses = {}
        self.pids = set()
        self._said_s = time.monotonic()

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        """End everything, whatever happened; nothing interrupts it."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN) if exc[0] else None
        with contextlib.ExitStack() as ending:
            ending.callback(self._end_processes)
            if self.watch:
                ending.callback(self.watch.close)
            for witness in self.witnesses.values():
                ending.callback(witness.close)

    def start(self):
        """Start everything, and wait until all that is wanted is live."""
        self.launch()
        self.heal(0, PATIENCE_S)
        self.programs()

    def topics(self, kind):
        """Return the topics of a kind of all that is watched."""
        return [f"{kind}.{name}.{symbol}" for name, symbols in self.expected.items() for symbol in symbols]

    def launch(self):
        """Start everything, and wait for nothing."""
        command = [sys.executable, "-m", "feedhandler", "run", "-c", str(self.stack.config)]
        with (self.directory / "run.log").open("ab") as out:
            self.run = self.stack.processes["run"] = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, preexec_fn=die_with_parent
            )
        self.watch = Watch(self.stack.endpoint)

    def programs(self):
        found = programs(self.run)
        self.pids.update(found.values())
        return found

    def witness(self, warm_up_s=1.0, make=Witness):
        """From now on, independent clients note what the exchanges say."""
        time.sleep(warm_up_s)  # what each connection says first is not each update's first time
        with self.watch as observer:
            observer.begin(notes_updates=True)
        for exchange in self.exchanges:
            self.witnesses[exchange] = make(exchange, self.stack.ports[exchange])
        wait_until(
            lambda: all(witness.hears_all for witness in self.witnesses.values()),
            "the witnesses hear everything",
            PATIENCE_S,
        )

    def compare(self):
        """Close the witnesses; returns by exchange how many updates they noted and which of them never came."""
        for witness in self.witnesses.values():
            witness.close()
        deadline = time.monotonic() + CATCH_UP_S
        while True:
            with self.watch as observer:
                found = {name: observer.compare(name, each) for name, each in self.witnesses.items()}
            if not any(missing for _, missing in found.values()) or time.monotonic() > deadline:
                return found
            time.sleep(0.2)

    def witness_market(self):
        """The same, of trades, depth and books."""
        self.wait_for_books()
        self.witness(make=MarketWitness)

    def wait_for_books(self):
        """Wait until all books are valid."""

        def are_valid():
            self.say("waiting for books")
            with self.watch as observer:
                return not observer.not_valid(self.topics("book"))

        wait_until(are_valid, "all books are valid", PATIENCE_S)

    def compare_market(self):
        """Close the witnesses; returns by exchange what `Observer.compare_market` does."""
        for witness in self.witnesses.values():
            witness.close()
        deadline = time.monotonic() + CATCH_UP_S
        while True:
            with self.watch as observer:
                found = {name: observer.compare_market(name, each) for name, each in self.witnesses.items()}
            if not any(missing for _, _, missing, *_ in found.values()) or time.monotonic() > deadline:
                return found
            time.sleep(0.2)

    def heal(self, since_ns, patience_s, wanted=None):
        """Wait until what is wanted is live, with data later than since_ns. Returns the seconds that it took.

        Raises AssertionError that names what is not.
        """
        started = time.monotonic()
        while True:
            with self.watch as observer:
                missing = observer.not_live(wanted or self.topics("ticker"), since_ns)
            if not missing:
                return time.monotonic() - started
            if time.monotonic() - started > patience_s:
                raise AssertionError(f"not live within {patience_s:g} s: {', '.join(missing)}")
            self.say(f"waiting for {len(missing)} topics")
            time.sleep(0.05)

    def pause(self, seconds, what=""):
        """Let so much time pass, and say every few seconds what is going on."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.say(what)
            time.sleep(min(left, 0.25))

    def say(self, what):
        """Print a line, unless there was one just now."""
        if time.monotonic() - self._said_s >= LINE_EVERY_S:
            self._said_s = time.monotonic()
            with self.watch as observer:
                records, flagged = observer.records, len(observer.flagged)
            print(f"    {records:,} records, {flagged} times flagged; {what}", flush=True)

    def status(self, exchange):
        """Return the feed's newest status, None if there is none."""
        with self.watch as observer:
            return observer.statuses.get(exchange, {}).get("feed")

    def is_down(self, topic):
        with self.watch as observer:
            return observer.is_down(topic)

    def command(self, *arguments):
        """Run a command of ours to its end. Raises AssertionError with what it says if it fails."""
        done = self.stack.run(*arguments, "-c", str(self.stack.config))
        if done.returncode:
            raise AssertionError(
                f"{' '.join(arguments)}: status {done.returncode}: {done.stdout}{done.stderr}"
            )

    def count_in_log(self, name, text):
        return self.log(name).count(text)

    def log(self, name):
        path = self.directory / "run" / "log" / f"{name}.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    # --- what holds for every act

    def violations(self):
        """Return the rules of exchanges that somebody broke: what simulators logged, or else what they tell."""
        lines = [json.loads(line) for line in self.log("sim").splitlines() if line.startswith("{")]
        warnings = [VIOLATION.match(line["message"]) for line in lines if line["level"] == "WARNING"]
        logged = [" ".join(match.groups()) for match in warnings if match]
        if logged:
            return logged
        told = []
        for exchange in self.exchanges:
            with contextlib.suppress(OSError):  # one that was killed tells nothing
                told += [
                    f"{exchange} {each['text']}" for each in self.stack.sim_state(exchange)["violations"]
                ]
        return told

    def tracebacks(self):
        logs = (self.directory / "run" / "log").glob("*.log")
        return [path.name for path in logs if "Traceback (most recent call last)" in path.read_text()]

    def leave(self):
        """Stop everything in order. Returns what is wrong with the end, in words."""
        everybody = set(self.programs().values()) | self.pids
        self.run.send_signal(signal.SIGINT)
        try:
            status = self.run.wait(STOP_S)
        except subprocess.TimeoutExpired:
            return [f"not stopped within {STOP_S:g} s"]
        wrong = [f"exit status {status}"] if status else []
        wrong += [f"process {pid} lives" for pid in sorted(everybody) if is_alive(pid)]
        return wrong + [f"{name} is left" for name in sorted(leftovers(self.stack))]

    def _end_processes(self):
        self.stack.close()
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                if is_ours(pid, self.directory):
                    os.kill(pid, signal.SIGKILL)


def is_ours(pid, directory):
    """True if a process runs with this directory's configuration: numbers are used again."""
    try:
        return str(directory).encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def seconds_since(at_ns):
    return (time.time_ns() - at_ns) / NS_PER_S
