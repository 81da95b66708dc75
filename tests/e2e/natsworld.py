"""A real nats-server, the bridge as a process, and between them a publisher with the merger's own socket."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from loopback import free_ports
from patience import PATIENCE_S, until

from feedhandler.bridge.subjects import subject_of
from feedhandler.data import wire
from feedhandler.transport.outlet import Outlet

nats = pytest.importorskip("nats")

BEAT_S = 0.2
STOP_S = 30.0  # whoever has not ended then is killed
NATS_SERVER = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin:/usr/local/bin")
needs_server = pytest.mark.skipif(NATS_SERVER is None, reason="needs nats-server (Debian: nats-server)")


class LastValues:
    """What the merger has published of late."""

    def __init__(self, newest):
        self.newest = newest

    def topics(self, prefix):
        return sorted(topic for topic in self.newest if topic.startswith(prefix))

    def last(self, topic):
        copy = bytearray(self.newest[topic])
        copy[wire.FLAGS_OFFSET] |= wire.SNAPSHOT
        return copy


class World:
    """One test's processes, ended by pid whatever happens."""

    def __init__(self, path, *, table="", server=(), scheme="nats"):
        self.path = path
        self.port, self.metrics_port = free_ports(2)
        self.url = f"{scheme}://127.0.0.1:{self.port}"
        self.config = path / "bridge.toml"
        self.config.write_text(
            f'run_dir = "{path}/run"\n[exchanges.binance]\n[merger]\nbatches = ["ipc://{path}/b.ipc"]\n'
            f'[nats]\nservers = ["{self.url}"]\nmetrics = "127.0.0.1:{self.metrics_port}"\n{table}\n',
            encoding="utf-8",
        )
        self._server_arguments = server
        self.server = self.bridge = self.outlet = None
        self._beats = None
        self.session = 100
        self.newest = {}  # by topic, padded, what the merger would replay
        self.sent = {}  # every message, by topic
        self.got = {}  # what came from NATS, by subject
        self.clients = []

    # --- processes

    def start_server(self):
        with (self.path / "nats.log").open("ab") as out:
            self.server = subprocess.Popen(
                [NATS_SERVER, "-a", "127.0.0.1", "-p", str(self.port), *self._server_arguments],
                stdout=out,
                stderr=out,
            )

    def end_server(self, number=signal.SIGTERM):
        self.server.send_signal(number)
        self.server.wait(PATIENCE_S)

    def start_bridge(self, **environment):
        with (self.path / "bridge.log").open("ab") as out:
            self.bridge = subprocess.Popen(
                [sys.executable, "-m", "feedhandler", "bridge", "nats", "-c", str(self.config)],
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                env=os.environ | environment,
            )

    def log(self):
        return (self.path / "bridge.log").read_text(encoding="utf-8", errors="replace")

    def memory_kb(self):
        status = Path(f"/proc/{self.bridge.pid}/status").read_text(encoding="ascii")
        return int(status.split("VmRSS:")[1].split()[0])

    async def metrics(self):
        """Return the samples by name and label."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.metrics_port)
        writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
        text = (await reader.read()).decode().partition("\r\n\r\n")[2]
        writer.close()
        rows = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
        return {name: float(value) for name, value in rows}

    # --- the merger

    def start_merger(self, session=100):
        self.session = session
        self.newest = {}
        self.outlet = Outlet(
            asyncio.get_running_loop(),
            [f"ipc://{self.path}/b.ipc"],
            LastValues(self.newest),
            key="test",
            queue_size_max=1 << 24,
            is_batched=True,
        )
        self._beats = asyncio.create_task(self._beat())

    def hang_merger(self):
        """Say nothing any more, and keep the connection."""
        self._beats.cancel()

    def resume_merger(self):
        self._beats = asyncio.create_task(self._beat())

    def end_merger(self):
        self._beats.cancel()
        self.outlet.close()
        self.outlet = None

    async def _beat(self):
        while True:
            self.send(self.document("heartbeat.merger", b"{}"))
            await asyncio.sleep(BEAT_S)

    def _next(self, topic):
        before = self.newest.get(wire.padded(topic))
        return wire.sequence_of(before) + 1 if before else 1

    def document(self, name, body, **fields):
        kind = next(kind for kind, word in wire.KIND_NAMES.items() if name.startswith(word))
        fields = {"session": self.session, "sequence": self._next(name), **fields}
        return wire.pack_document(wire.Document(name, kind=kind, body=body, **fields))

    def ticker(self, symbol="BTC/USDT", **fields):
        topic = wire.topic(wire.TICKER, "binance", symbol)
        fields = {"session": self.session, "sequence": self._next(topic), "recv_ns": time.time_ns(), **fields}
        return wire.pack_ticker(wire.Ticker(topic, **fields))

    def send(self, *records):
        """Publish tickers in one message, or one document."""
        for record in records:
            topic = record[: wire.TOPIC_SIZE]
            self.newest[topic] = record
            self.sent.setdefault(topic.rstrip(b"\0").decode(), []).append(record)
        self.outlet.send(records[0][: wire.TOPIC_SIZE], b"".join(records))
        self.outlet.flush()

    # --- NATS

    async def consume(self, subject=">", **options):
        async def take(message):
            self.got.setdefault(message.subject, []).append(message.data)

        client = await self.client(**options)
        await client.subscribe(subject, cb=take, pending_msgs_limit=0, pending_bytes_limit=0)
        await client.flush()
        return client

    async def client(self, **options):
        async def on_error(error):
            pass  # it connects again

        options = {"max_reconnect_attempts": -1, "reconnect_time_wait": 0.1, "error_cb": on_error, **options}
        self.clients.append(await nats.connect(self.url, **options))
        return self.clients[-1]

    def last(self, topic="ticker.binance.BTC/USDT"):
        """Return the newest record of a topic that came from NATS, None if none has."""
        messages = self.got.get(subject_of(topic.encode()))
        return wire.unpack(messages[-1]) if messages else None

    def status(self):
        """Return what the bridge said last of itself, {} if nothing has come."""
        messages = self.got.get("status.bridge-nats")
        return wire.unpack(messages[-1]).decode() if messages else {}

    async def until_bridged(self):
        """Wait until something that was sent has come through."""
        await until(lambda: self.last("heartbeat.merger"), f"a heartbeat by NATS; {self.log()}")

    async def close(self):
        for process in (self.bridge, self.server):
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
                try:
                    process.wait(STOP_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
        for client in self.clients:
            with contextlib.suppress(TimeoutError, OSError, nats.errors.Error):
                await asyncio.wait_for(client.close(), 2)
        if self._beats is not None:
            self._beats.cancel()
        if self.outlet is not None:
            self.outlet.close()


def play(path, scene, **settings):
    """Run an async scene in a world of its own."""

    async def main():
        world = World(path, **settings)
        try:
            async with asyncio.timeout(4 * PATIENCE_S):
                await scene(world)
        finally:
            await world.close()
            if (path / "bridge.log").exists():
                print(world.log()[-4000:])

    asyncio.run(main())
