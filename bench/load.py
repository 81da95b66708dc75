"""Does anything get lost, and does memory stay flat, at many symbols and messages?

    sim ══WS══▶ feed ══ipc══▶ merger ══tcp══▶ this subscriber

Real processes on loopback. Checked before printing: every topic's sequence without a hole, nothing lost
between feed and merger, the simulator not behind its schedule, and as many records as messages were sent.
Memory is each process's resident set, sampled every second; flat means that the second half's mean exceeds
the first half's (after the warm-up) by no more than 5 %. Latency is publish to subscriber and receive to
publish; on a shared machine it says little, so it decides nothing.

    python -m bench.load --symbols 1000 --rate 20000 --seconds 60
"""

import argparse
import contextlib
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import zmq

from bench import host
from feedhandler.data import wire
from feedhandler.sim.simulated import SEEDED

WARM_UP_S = 10.0
FLAT_RATIO_MAX = 1.05
START_TIMEOUT_S = 120.0


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--exchange", default="binance", choices=SEEDED)
    parser.add_argument("--symbols", type=int, default=1000)
    parser.add_argument("--rate", type=int, default=20_000, help="messages per second")
    parser.add_argument("--seconds", type=int, default=60, help="measured, after the warm-up")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, contextlib.ExitStack() as stack:
        run = Run(Path(directory), arguments)
        for name in ("sim", "merger", "feed"):
            stack.enter_context(run.process(name))
        return run.measure()


class Run:
    """One measurement: its configuration, processes and subscriber."""

    def __init__(self, directory: Path, arguments: argparse.Namespace) -> None:
        self._arguments = arguments
        self._directory = directory
        self._pids: dict[str, int] = {}
        exchange_port, ticks_port = free_ports(2)
        self._url = f"http://127.0.0.1:{exchange_port}"
        self._ticks = f"tcp://127.0.0.1:{ticks_port}"
        self._config = directory / "load.toml"
        self._write_config(["BTC/USDT"])

    def _write_config(self, symbols: list[str]) -> None:
        address = self._url.removeprefix("http://")
        self._config.write_text(
            f"""
run_dir = "{self._directory}/run"
[exchanges.{self._arguments.exchange}]
ws_url = "ws://{address}"
rest_url = "{self._url}"
simulated = true
symbols = {json.dumps(symbols, ensure_ascii=False)}
[merger]
ticks = ["{self._ticks}"]
feeds = "ipc://{self._directory}/feeds.ipc"
[sim]
messages_per_s = {self._arguments.rate}
instruments = {max(300, self._arguments.symbols * 13 // 10)}
""",
            encoding="utf-8",
        )

    @contextlib.contextmanager
    def process(self, name: str) -> Iterator[None]:
        if name == "feed":
            self._want_symbols()
        words = ["feed", self._arguments.exchange] if name == "feed" else [name]
        with (self._directory / f"{name}.log").open("w") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "feedhandler", *words, "-c", str(self._config)], stdout=log, stderr=log
            )
        self._pids[name] = process.pid
        try:
            yield
        finally:
            process.terminate()
            process.wait(20)

    def _want_symbols(self) -> None:
        """Ask the running simulator what it trades, through the feed's own eyes."""
        from feedhandler.data.instruments import InstrumentTable
        from feedhandler.exchanges import EXCHANGES

        exchange = EXCHANGES[self._arguments.exchange].main()
        body = retry(lambda: fetch(self._url + exchange.instruments_request.path))
        table = InstrumentTable(exchange.name, exchange.decode_instruments(body).items)
        symbols = [i.symbol for i in table.by_native.values() if i.is_trading and table.symbol_of(i.native)]
        symbols = [symbol for symbol in symbols if symbol == symbol.upper()]
        if len(symbols) < self._arguments.symbols:
            sys.exit(f"the simulator trades {len(symbols)} symbols only; ask for fewer")
        self._write_config(symbols[: self._arguments.symbols])

    def measure(self) -> int:
        subscriber = zmq.Context().socket(zmq.SUB)
        subscriber.set(zmq.RCVHWM, 0)
        subscriber.set(zmq.LINGER, 0)
        subscriber.set(zmq.SUBSCRIBE, b"ticker.")
        subscriber.connect(self._ticks)
        counter = Counter()
        deadline = time.monotonic() + START_TIMEOUT_S
        while len(counter.sequences) < self._arguments.symbols:
            counter.read(subscriber, 1.0)
            print(f"\r{len(counter.sequences)} of {self._arguments.symbols} symbols live", end="", flush=True)
            if time.monotonic() > deadline:
                print(f"\nnot all symbols came alive within {START_TIMEOUT_S:g} s")
                return 1
        print("\nwarming up")
        counter.read(subscriber, WARM_UP_S)
        sent_before, cpu_before = self._sent(), self._cpu()
        counter.start()
        memory: dict[str, list[float]] = {name: [] for name in self._pids}
        started = time.monotonic()
        for second in range(self._arguments.seconds):
            counter.read(subscriber, 1.0)
            for name, pid in self._pids.items():
                memory[name].append(host.usage(pid).resident_mb)
            print(f"\r{second + 1} s, {counter.records:,} records", end="", flush=True)
        elapsed = time.monotonic() - started
        sent, cpu = self._sent() - sent_before, self._cpu()
        counter.read(subscriber, 1.0)  # what was under way
        print()
        return self._report(counter, sent, elapsed, memory, {n: cpu[n] - cpu_before[n] for n in cpu})

    def _report(
        self,
        counter: "Counter",
        sent: int,
        elapsed: float,
        memory: dict[str, list[float]],
        cpu: dict[str, float],
    ) -> int:
        rate = sent / elapsed
        half = self._arguments.seconds // 2
        problems = []
        for name, samples in memory.items():
            first, second = statistics.fmean(samples[:half]), statistics.fmean(samples[half:])
            per_message = cpu[name] / max(1, sent) * 1e6
            print(f"{name:7} {first:6.1f} → {second:6.1f} MB, {per_message:5.1f} us CPU per message")
            if name != "sim" and second > first * FLAT_RATIO_MAX:
                problems.append(f"memory of {name} grows")
        print(f"{sent:,} messages sent at {rate:,.0f}/s, {counter.records:,} records received")
        for what, values in (
            ("receive to publish", counter.own_ns),
            ("publish to here", counter.delivery_ns),
        ):
            ordered = sorted(values)
            quantiles = (f"{ordered[int(q * (len(ordered) - 1))] / 1e6:.2f}" for q in (0.5, 0.99, 1.0))
            print(f"{what}: p50 {next(quantiles)} ms, p99 {next(quantiles)} ms, max {next(quantiles)} ms")
        if counter.holes:
            problems.append(f"{counter.holes} holes in sequences")
        if counter.records < sent:
            problems.append(f"{sent - counter.records} records missing")
        if rate < 0.99 * self._arguments.rate:
            problems.append(f"the simulator reached {rate:,.0f}/s only: the run is invalid")
        print("problems: " + "; ".join(problems) if problems else "nothing lost, memory flat")
        return 1 if problems else 0

    def _sent(self) -> int:
        return int(json.loads(fetch(self._url + "/_sim/state"))["messages_sent"])

    def _cpu(self) -> dict[str, float]:
        return {name: host.usage(pid).cpu_s for name, pid in self._pids.items()}


class Counter:
    """Follows every topic's sequence."""

    def __init__(self) -> None:
        self.sequences: dict[bytes, int] = {}
        self.start()

    def start(self) -> None:
        self.records = self.holes = 0
        self.own_ns: list[int] = []
        self.delivery_ns: list[int] = []

    def read(self, subscriber: "zmq.Socket[bytes]", seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            if not subscriber.poll(int(left * 1000) + 1):
                return
            with contextlib.suppress(zmq.Again):
                for _ in range(1000):
                    self._take(subscriber.recv(zmq.NOBLOCK))

    def _take(self, message: bytes) -> None:
        topic, _, _, flags, _, sequence, _, recv_ns, publish_ns = wire.HEADER.unpack_from(message)
        if flags & wire.SNAPSHOT:
            self.sequences.setdefault(topic, sequence)
            return
        previous = self.sequences.get(topic)
        self.holes += previous is not None and sequence != previous + 1
        self.sequences[topic] = sequence
        self.records += 1
        if not self.records & 63:
            self.own_ns.append(publish_ns - recv_ns)
            self.delivery_ns.append(time.time_ns() - publish_ns)


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return bytes(answer.read())


def retry(call: Callable[[], bytes]) -> bytes:
    for _ in range(100):
        with contextlib.suppress(OSError):
            return call()
        time.sleep(0.1)
    return call()


if __name__ == "__main__":
    sys.exit(main())
