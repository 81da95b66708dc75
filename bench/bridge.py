"""What the bridge to NATS costs: `python -m bench.bridge` (needs nats-server).

    publisher ══ipc, batches══▶ bridge ══NATS, loopback══▶ nats-server ══▶ one subscriber to everything

The publisher has the merger's own socket and sends what is due every 200 us in one message. CPU is each
process's own, from the scheduler, over the timed part. A run in which a record is missing at the subscriber, or
was conflated, says so. Latency is from the publisher's stamp to the subscriber.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from feedhandler.data import wire
from feedhandler.transport.loop import Loop
from feedhandler.transport.outlet import Outlet

TICK_NS = 200_000
WARM_UP_S = 1.0
SYMBOLS = 1000
SERVER = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin:/usr/local/bin")


def cpu_ns(pid: int) -> int:
    """Return what all threads of a process have used."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def publish(endpoint: str, rate: int, seconds: float) -> None:
    """Publish in a process of its own, once somebody has subscribed."""
    loop = Loop()
    joined: list[bytes] = []

    def topics(prefix: bytes) -> list[bytes]:
        joined.append(prefix)
        return []

    outlet = Outlet(
        loop,
        [endpoint],
        SimpleNamespace(topics=topics),
        key="bench",
        queue_size_max=1 << 26,
        is_batched=True,
    )
    tickers = [
        wire.Ticker(wire.topic(wire.TICKER, "binance", f"S{n}/USDT"), session=1) for n in range(SYMBOLS)
    ]
    beat = wire.topic(wire.HEARTBEAT, "merger")
    while not joined:
        loop.run_once(0.1)
    start = time.monotonic_ns()
    sent = beats = 0
    total = int(rate * seconds)
    while sent < total:
        now = time.monotonic_ns()
        due = min(total, (now - start) * rate // 1_000_000_000)
        batch = []
        while sent < due:
            ticker = tickers[sent % SYMBOLS]
            ticker.sequence += 1
            ticker.publish_ns = time.time_ns()
            batch.append(wire.pack_ticker(ticker))
            sent += 1
        if batch:
            outlet.send(batch[0][: wire.TOPIC_SIZE], b"".join(batch))
        if now - start > beats * 500_000_000:
            beats += 1
            document = wire.Document(beat, kind=wire.HEARTBEAT, session=1, sequence=beats, body=b"{}")
            outlet.send(wire.padded(beat), wire.pack_document(document))
        outlet.flush()
        loop.run_once(0)
        time.sleep(max(0.0, (TICK_NS - (time.monotonic_ns() - now)) / 1e9))
    loop.run_until(time.monotonic_ns() + 2_000_000_000)
    outlet.close()


class Subscriber:
    """Reads NATS's protocol as it is: as cheap as it can be in Python."""

    def __init__(self, port: int) -> None:
        self._sock = socket.create_connection(("127.0.0.1", port))
        self._sock.sendall(b'CONNECT {"verbose":false}\r\nSUB ticker.> 1\r\nPING\r\n')
        self._rest = b""
        self.count = self.size = 0
        self.ages_ns: list[int] = []

    def read(self, timeout_s: float) -> bool:
        """Read once; False if nothing came in time."""
        self._sock.settimeout(timeout_s)
        try:
            data = self._rest + self._sock.recv(1 << 18)
        except TimeoutError:
            return False
        now, position = time.time_ns(), 0
        while (end := data.find(b"\r\n", position)) >= 0:
            words = data[position:end].split()
            if words and words[0] == b"MSG":
                size = int(words[-1])
                if len(data) < end + size + 4:
                    break
                (sent_ns,) = wire.TIME.unpack_from(data, end + 2 + wire.PUBLISH_NS_OFFSET)
                self.ages_ns.append(now - sent_ns)
                self.count += 1
                self.size += end + size + 4 - position
                end += size + 2
            elif words and words[0] == b"PING":
                self._sock.sendall(b"PONG\r\n")
            position = end + 2
        self._rest = data[position:]
        return True

    def close(self) -> None:
        self._sock.close()


def measure(rate: int, seconds: float, table: str, folder: Path) -> dict[str, Any]:
    """Run one load, and return its figures."""
    port, metrics = free_port(), free_port()
    config = folder / "bench.toml"
    config.write_text(
        f'run_dir = "{folder}/run"\n[exchanges.binance]\n[merger]\nbatches = ["ipc://{folder}/b.ipc"]\n'
        f'[nats]\nservers = ["nats://127.0.0.1:{port}"]\nmetrics = "127.0.0.1:{metrics}"\n{table}\n'
    )
    jetstream = ["-js", "-sd", str(folder / "js")]
    processes = []
    server = subprocess.Popen(
        [str(SERVER), "-a", "127.0.0.1", "-p", str(port), *jetstream], stderr=subprocess.DEVNULL
    )
    processes.append(server)
    try:
        while True:
            try:
                subscriber = Subscriber(port)
                break
            except OSError:
                time.sleep(0.05)
        bridge = subprocess.Popen([sys.executable, "-m", "feedhandler", "bridge", "nats", "-c", str(config)])
        processes.append(bridge)
        while _metric(metrics, "feedhandler_bridge_connected") != 1:
            time.sleep(0.05)
        publisher = os.fork()
        if not publisher:
            try:
                publish(f"ipc://{folder}/b.ipc", rate, seconds + WARM_UP_S)
            finally:
                os._exit(0)
        while subscriber.count < rate * WARM_UP_S:
            subscriber.read(0.1)
        used = {process.pid: cpu_ns(process.pid) for process in processes}
        first, size, started = subscriber.count, subscriber.size, time.monotonic()
        subscriber.ages_ns.clear()
        total = int(rate * (seconds + WARM_UP_S))
        deadline = time.monotonic() + seconds + 20
        took = 0.0
        while subscriber.count < total and time.monotonic() < deadline:
            if subscriber.read(0.1):
                took = time.monotonic() - started
        count = subscriber.count - first
        cpu = {pid: cpu_ns(pid) - before for pid, before in used.items()}
        ages = sorted(subscriber.ages_ns)
        result = {
            "rate": rate,
            "missing": total - subscriber.count,
            "conflated": _metric(metrics, 'feedhandler_bridge_conflated_total{kind="ticker"}'),
            "bridge us a record": cpu[bridge.pid] / count / 1000,
            "bridge cores": cpu[bridge.pid] / took / 1e9,
            "server us a record": cpu[server.pid] / count / 1000,
            "bytes to a subscriber": (subscriber.size - size) / count,
            "p50 us": ages[len(ages) // 2] / 1000,
            "p99 us": ages[len(ages) * 99 // 100] / 1000,
            "bridge MB": _metric(metrics, "feedhandler_bridge_process_resident_memory_bytes") / 1e6,
        }
        os.waitpid(publisher, 0)
        subscriber.close()
        return result
    finally:
        for process in reversed(processes):
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def _metric(port: int, name: str) -> float:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    except OSError:
        return -1.0
    return next(
        (float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(f"{name} ")), -1.0
    )


def main() -> None:
    """Print a row for each load and way."""
    parser = argparse.ArgumentParser(description="What the bridge to NATS costs.")
    parser.add_argument("--rates", type=int, nargs="+", default=[1000, 10_000, 40_000])
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if SERVER is None:
        sys.exit("needs nats-server (Debian: nats-server)")
    ways = {
        "core": "",
        "stream in memory": 'stream = "B"\nstorage = "memory"',
        "stream in files": 'stream = "B"',
    }
    for way, table in ways.items():
        for rate in arguments.rates:
            with tempfile.TemporaryDirectory(prefix="fh-bridge-") as folder:
                row = {"way": way, **measure(rate, arguments.seconds, table, Path(folder))}
            if arguments.json:
                print(json.dumps(row), flush=True)
            else:
                shown = (
                    f"{key} {value:.1f}"
                    if isinstance(value, float)
                    else f"{value}"
                    if key == "way"
                    else f"{key} {value}"
                    for key, value in row.items()
                )
                print("; ".join(shown), flush=True)


if __name__ == "__main__":
    main()
