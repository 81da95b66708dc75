"""One path from load to subscriber, as real processes: start it, load it, see what came out, end it.

    generator ══WS══▶ programs of the path ══▶ sink

Everything is on loopback and under one temporary directory. Programs end when this process does: those of the
bench with their standard input, feedhandler's own by the kernel's word.
"""

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from bench import host
from feedhandler.runtime.lifecycle import SUPERVISED_ENV

START_TIMEOUT_S: Final = 120.0  # 500 books begin in ten seconds, on a busy machine in sixty
ANSWER_TIMEOUT_S: Final = 120.0  # a run takes some seconds, and no more than a minute
SETTLE_S: Final = 1.0  # nothing new for so long: all that will come has come
SETTLE_MAX_S: Final = 6.0
AWAKE_S: Final = 0.25  # for what is late after a pause: beats, pings, reports


Say = Callable[[str], object]  # what is under way


class BenchError(Exception):
    """A path that does not work; the message says which, and what it logged last."""


class Program(msgspec.Struct, frozen=True):
    """One process of a path. role names its row in a report: feed, merger, subscriber.

    conflates: a sink that gets some of the messages only, by design.
    """

    role: str
    argv: Sequence[str]
    is_sink: bool = False
    conflates: bool = False


class Load(msgspec.Struct, frozen=True):
    """What to send: messages per second, for how long, and how many at once."""

    rate: float
    seconds: float
    burst: int = 1

    @property
    def count(self) -> int:
        return max(1, round(self.rate * self.seconds / self.burst)) * self.burst


class Received(msgspec.Struct):
    """What one sink noted during one load, as columns."""

    columns: dict[str, np.ndarray[Any, Any]]


class Outcome(msgspec.Struct):
    """One load on one path: what the generator says, what each process used, what each sink noted."""

    load: Load
    sent: dict[str, dict[str, Any]]  # by exchange
    natives: Mapping[str, Sequence[str]]  # by exchange: the symbols, as the generator counts them
    used: dict[str, host.Usage]  # by role; of several processes in one role the sum
    seconds: float  # that the use is over
    received: list[Received]
    kind: str = "ticker"  # of what was sent


class Child:
    """A process with a line protocol on its standard streams, or without; its stderr goes to a file."""

    def __init__(self, name: str, argv: Sequence[str], directory: Path) -> None:
        self.name = name
        self._log = directory / f"{name}.log"
        log = self._log.open("w")
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            bufsize=0,  # so that `select` sees what is there
            env={**os.environ, SUPERVISED_ENV: "1"},
        )
        log.close()
        self.pid = self._process.pid

    def ask(self, line: str) -> str:
        """Send one line, return the answer's line. Raises BenchError if the process is gone, or hangs."""
        self.tell(line)
        return self.line()

    def tell(self, line: str) -> None:
        """Send one line; its answer is to be read with `line`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
        except OSError as exc:
            raise self.failed() from exc

    def line(self) -> str:
        """Return the next line that it prints."""
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], ANSWER_TIMEOUT_S)
        line = self._process.stdout.readline() if ready else b""
        if not line:
            raise self.failed()
        return line.decode().strip()

    def failed(self) -> BenchError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-12:])
        return BenchError(f"{self.name} does not work (exit status {self._process.returncode}):\n{tail}")

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def end(self) -> None:
        self._process.terminate()
        self._process.send_signal(signal.SIGCONT)  # one that is stopped hears nothing else
        with contextlib.suppress(OSError):
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    stream.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Place(msgspec.Struct, frozen=True):
    """Where a path's programs find things."""

    directory: Path
    url: Mapping[str, str]  # exchange → host:port
    symbols: Mapping[str, Sequence[str]]  # exchange → canonical
    natives: Mapping[str, Sequence[str]]  # exchange → its own spelling
    kind: str = "ticker"  # of what is sent

    def ipc(self, name: str) -> str:
        return f"ipc://{self.directory}/{name}.ipc"


def python(module: str, *arguments: str) -> list[str]:
    """Return the command line of one of the bench's own programs."""
    return [sys.executable, "-m", module, *arguments]


class Rig:
    """A path's processes, running; use it in a `with` block.

    programs says what to start, in order, once the generators are there. symbols is per exchange; of another kind
    than quotes there is Binance alone.
    """

    def __init__(
        self,
        name: str,
        programs: Callable[[Place], Sequence[Program]],
        *,
        exchanges: Sequence[str] = ("binance",),
        symbols: int = 10,
        kind: str = "ticker",
    ) -> None:
        self.name = name
        self.kind = kind
        self.symbols = symbols
        self._make_programs = programs
        self._exchanges = exchanges
        self._stack = contextlib.ExitStack()
        self._generators: dict[str, Child] = {}
        self._children: list[tuple[Program, Child]] = []
        self._sinks: list[Child] = []

    def __enter__(self) -> "Rig":
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _start(self) -> None:
        # Not under the temporary directory's usual long name: a socket's path has 107 bytes at most.
        directory = Path(tempfile.mkdtemp(prefix="fhb-"))
        self._stack.callback(shutil.rmtree, directory, ignore_errors=True)
        hello = {}
        for exchange in self._exchanges:
            generator = self._child(
                f"generator-{exchange}",
                python(
                    "bench.generator",
                    "--exchange",
                    exchange,
                    "--kind",
                    self.kind,
                    "--symbols",
                    str(self.symbols),
                ),
                directory,
            )
            self._generators[exchange] = generator
            hello[exchange] = json.loads(generator.line())
        self.place = Place(
            directory,
            {name: f"127.0.0.1:{each['port']}" for name, each in hello.items()},
            {name: each["symbols"] for name, each in hello.items()},
            {name: each["natives"] for name, each in hello.items()},
            self.kind,
        )
        for number, program in enumerate(self._make_programs(self.place)):
            child = self._child(f"{number}-{program.role}", program.argv, directory)
            self._children.append((program, child))
            if program.is_sink:
                self._sinks.append(child)
        self._wait_until_subscribed()
        self._warm_up()

    def _child(self, name: str, argv: Sequence[str], directory: Path) -> Child:
        child = Child(name, argv, directory)
        self._stack.callback(child.end)
        return child

    def _wait_until_subscribed(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        for generator in self._generators.values():
            while (there := json.loads(generator.ask('{"do": "state"}'))["subscribed"]) < self.symbols:
                for _, child in self._children:
                    if not child.is_alive():
                        raise child.failed()
                if time.monotonic() > deadline:
                    raise BenchError(
                        f"{self.name}: {there} of {self.symbols} symbols subscribed in {START_TIMEOUT_S:g} s"
                    )
                time.sleep(0.05)

    def _warm_up(self) -> None:
        """Send a little until every sink gets it: subscriptions travel the other way, unseen."""
        deadline = time.monotonic() + START_TIMEOUT_S
        load = Load(rate=1000.0, seconds=max(0.3, 2 * self.symbols / 1000.0) if self.kind == "book" else 0.3)
        conflating = [program.conflates for program, _ in self._children if program.is_sink]
        while True:
            outcome = self.run(load)
            if all(
                len(received.columns["now_ns"]) >= (1 if conflates else load.count * len(self._generators))
                for received, conflates in zip(outcome.received, conflating, strict=True)
            ):
                return
            if time.monotonic() > deadline:
                counts = [len(r.columns["now_ns"]) for r in outcome.received]
                raise BenchError(f"{self.name}: of {load.count} messages, sinks got {counts}")
            time.sleep(0.2)

    def pause(self) -> None:
        """Stop every process where it is, so that it takes nothing from a path under load."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let them go on, and catch up."""
        self._signal(signal.SIGCONT)
        time.sleep(AWAKE_S)

    def _signal(self, number: int) -> None:
        for child in (*self._generators.values(), *(child for _, child in self._children)):
            child.signal(number)

    def run(self, load: Load) -> Outcome:
        """Send one load, from all generators at once, and return what became of it."""
        for generator in self._generators.values():
            generator.ask(json.dumps({"do": "render", "count": load.count}))
        before = self._usage()
        started = time.monotonic()
        for generator in self._generators.values():
            generator.tell(json.dumps({"do": "send", "rate": load.rate, "burst": load.burst}))
        sent = {name: json.loads(generator.line()) for name, generator in self._generators.items()}
        self._settle(sum(int(each["sent"]) for each in sent.values()))
        for _, child in self._children:
            if not child.is_alive():
                raise child.failed()
        after = self._usage()
        seconds = time.monotonic() - started
        used = {role: after[role] - before[role] for role in after}
        received = [self._save(sink) for sink in self._sinks]
        return Outcome(load, sent, self.place.natives, used, seconds, received, self.kind)

    def _settle(self, count: int) -> None:
        """Wait until all has come, or nothing more does."""
        deadline = time.monotonic() + SETTLE_MAX_S
        for sink in self._sinks:
            seen, quiet_since = -1, time.monotonic()
            while (now := time.monotonic()) < deadline:
                there = int(sink.ask("count"))
                if there >= count:
                    break
                if there != seen:
                    seen, quiet_since = there, now
                elif now - quiet_since > SETTLE_S:
                    break
                time.sleep(0.02)

    def _save(self, sink: Child) -> Received:
        with tempfile.NamedTemporaryFile(suffix=".npz") as file:
            sink.ask(f"save {file.name}")
            with np.load(file.name) as columns:
                return Received({name: columns[name] for name in columns.files})

    def _usage(self) -> dict[str, host.Usage]:
        used: dict[str, host.Usage] = {}
        for program, child in self._children:
            one = host.usage(child.pid)
            there = used.get(program.role, host.Usage(0.0, 0, 0.0))
            used[program.role] = host.Usage(
                there.cpu_s + one.cpu_s,
                there.switches + one.switches,
                there.resident_mb + one.resident_mb,
            )
        return used
