"""Real processes on free loopback ports, in a run directory of their own, ended by pid whatever happens."""

import collections
import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import zmq
from loopback import free_ports as free_ports
from patience import PATIENCE_S as PATIENCE_S
from patience import wait_until as wait_until

from feedhandler.sim import simulated

# Its processes meet no authority of the world; else each would read its certificates when it starts.
WITHOUT_AUTHORITIES = {"SSL_CERT_FILE": os.devnull}
STOP_S = 30.0  # whoever has not ended then is killed
EXCHANGES = simulated.SEEDED
MAJORS = ("BTC/USDT", "ETH/USDT", "SOL/USDT", "ADA/USDT", "XRP/USDT")

# The wire format as a stranger reads it in docs/wire.md; deliberately not the project's own definition.
TICKER = struct.Struct("<64sBBHIQqqqQ10d")
HEADER = struct.Struct("<64sBBHIQqqq")
SNAPSHOT, STALE, DOWN, SIMULATED = 1, 2, 4, 8


class Record:
    """One message, unpacked with this file's own struct."""

    def __init__(self, message):
        self.kind = message[65]
        fields = (TICKER if self.kind == 1 else HEADER).unpack_from(message)
        self.topic = fields[0].rstrip(b"\0").decode()
        self.flags, self.session, self.sequence = fields[3:6]
        self.exchange_ns, self.recv_ns, self.publish_ns = fields[6:9]
        self.exchange_sequence = fields[9] if self.kind == 1 else 0
        self.values = fields[10:] if self.kind == 1 else ()
        self.body = None if self.kind == 1 else json.loads(message[HEADER.size :])
        assert len(message) == (TICKER.size if self.kind == 1 else len(message))

    @property
    def is_complete(self):
        return all(value == value for value in self.values)

    @property
    def is_fresh(self):
        return not self.flags & (SNAPSHOT | STALE | DOWN)


class Reader:
    """A raw SUB socket that follows each topic's sequence."""

    def __init__(self, endpoint, *prefixes):
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.set(zmq.LINGER, 0)
        self._socket.set(zmq.RCVHWM, 0)
        for prefix in prefixes or (b"",):
            self._socket.set(zmq.SUBSCRIBE, prefix)
        self._socket.connect(endpoint)
        self.newest = {}
        self.holes = []
        self.largest = 0  # records in one message

    def read(self, seconds=0.0):
        """Return the records of so many seconds, or what is queued."""
        records = []
        deadline = time.monotonic() + seconds
        while self._socket.poll(max(0, int((deadline - time.monotonic()) * 1000))):
            message = self._socket.recv()
            is_batch = message[65] == 1
            self.largest = max(self.largest, len(message) // TICKER.size if is_batch else 0)
            for start in range(0, len(message), TICKER.size) if is_batch else [0]:
                record = Record(message[start : start + TICKER.size] if is_batch else message)
                self._follow(record)
                records.append(record)
            if seconds and time.monotonic() >= deadline:
                break
        return records

    def read_until(self, condition, what, patience_s=PATIENCE_S):
        """Read until condition(record) holds for one; returns that one."""
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            for record in self.read(0.05):
                if condition(record):
                    return record
        raise AssertionError(f"not within {patience_s:g} s: {what}")

    def _follow(self, record):
        session, sequence = self.newest.get(record.topic, (record.session, None))
        if sequence is not None and session == record.session:
            if record.flags & SNAPSHOT and record.sequence <= sequence:
                return
            if record.sequence != sequence + 1:
                self.holes.append((record.topic, sequence, record.sequence))
        self.newest[record.topic] = (record.session, record.sequence)

    def close(self):
        self._context.destroy(linger=0)


class Stack:
    """A configuration on free ports, and the processes that were started with it."""

    def __init__(
        self,
        directory,
        *,
        exchanges=EXCHANGES,
        rate=300,
        sim_table=True,
        sim="",  # lines of its table; none: the rate
        extra="",
        symbols=None,
        gateway="",  # further lines of its table
        merger="",  # the same
        board=False,
    ):
        self.directory = Path(directory)
        self.exchanges = exchanges
        self.ports = dict(
            zip((*exchanges, "ticks", "recover", "gateway"), free_ports(len(exchanges) + 3), strict=True)
        )
        self.gateway = f"http://127.0.0.1:{self.ports['gateway']}"
        self.endpoint = f"tcp://127.0.0.1:{self.ports['ticks']}"
        self.recover = f"tcp://127.0.0.1:{self.ports['recover']}"
        self.config = self.directory / "test.toml"
        lines = [f'run_dir = "{self.directory}/run"', *["board = true"] * board]
        for name in exchanges:
            lines += [
                f"[exchanges.{name}]",
                f'ws_url = "ws://127.0.0.1:{self.ports[name]}"',
                f'rest_url = "http://127.0.0.1:{self.ports[name]}"',
                "simulated = true",
                "max_attempts = 0",
                extra if isinstance(extra, str) else extra[name],
            ]
            if symbols:
                lines.append(f"symbols = {json.dumps(list(symbols))}")
        lines += [
            "[merger]",
            f'ticks = ["{self.endpoint}", "ipc://{self.directory}/run/ticks.ipc"]',
            f'feeds = "ipc://{self.directory}/run/feeds.ipc"',
            merger,
            "[relay]",
            f'recover = ["ipc://{self.directory}/run/recover.ipc", "{self.recover}"]',
            "[gateway]",
            f'http = "127.0.0.1:{self.ports["gateway"]}"',
            gateway,
        ]
        if sim_table:
            lines += ["[sim]", sim or f"messages_per_s = {rate}"]
        self.config.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self.command = [sys.executable, "-m", "feedhandler"]
        self.processes = {}
        self._readers = []

    def start(self, *names):
        """Start processes: sim, merger, an exchange's name for its feed, or binance-1of2 for a shard of it."""
        for name in names or ("sim", "merger", "relay", *self.exchanges):
            exchange, _, shard = name.partition("-")
            arguments = ["feed", exchange] if exchange in self.exchanges else [name]
            if shard:
                arguments += ["--shard", shard.replace("of", "/")]
            self.processes[name] = self.popen(*arguments, "-c", str(self.config), log=name)

    def popen(self, *arguments, log, command=()):
        """Start a command of ours, or another program."""
        with (self.directory / f"{log}.log").open("ab") as out:
            return subprocess.Popen(
                [*(command or self.command), *arguments],
                stdout=out,
                stderr=out,
                stdin=subprocess.DEVNULL,
                env=os.environ | WITHOUT_AUTHORITIES,
            )

    def run(self, *arguments, timeout=PATIENCE_S, cwd=None):
        """Run one command to its end."""
        return subprocess.run(
            [*self.command, *arguments],
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            env=os.environ | WITHOUT_AUTHORITIES,
            check=False,
        )

    def kill(self, name, number=signal.SIGKILL):
        process = self.processes[name]
        process.send_signal(number)
        return process.wait(PATIENCE_S)

    def log(self, name):
        return (self.directory / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def reader(self, *prefixes, endpoint=None):
        reader = Reader(endpoint or self.endpoint, *prefixes)
        self._readers.append(reader)
        return reader

    def fault(self, exchange, kind, **settings):
        body = json.dumps({"fault": kind, **settings}).encode()
        url = f"http://127.0.0.1:{self.ports[exchange]}/_sim/faults"
        with urllib.request.urlopen(
            urllib.request.Request(url, body, method="POST"), timeout=PATIENCE_S
        ) as answer:
            return answer.read()

    def is_simulated(self, exchange):
        """True as soon as the simulator answers for an exchange."""
        try:
            return bool(self.sim_state(exchange))
        except OSError:
            return False

    def sim_state(self, exchange):
        url = f"http://127.0.0.1:{self.ports[exchange]}/_sim/state"
        with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
            return json.loads(answer.read())

    def fault_effects(self, exchange):
        """How often each fault has shown at an exchange."""
        return collections.Counter(self.sim_state(exchange)["fault_effects"])

    def wait_effect(self, exchange, kind, count):
        """Wait until a fault has shown so often."""
        wait_until(lambda: self.fault_effects(exchange)[kind] >= count, f"{kind} shows at {exchange}")

    def lose_quotes(self, exchange, symbol):
        """Stop the fastest quotes of a symbol at an exchange; returns their topic."""
        topic = quote_topic(exchange, symbol)
        self.fault(exchange, "lose_topic", topic=topic)
        return topic

    def silent_topics(self, exchange):
        """What is subscribed to in vain."""
        return [topic for each in self.sim_state(exchange)["connections"] for topic in each["silent"]]

    def status(self):
        """Return what `feedhandler status` says, which waits for some seconds for the merger."""

        def answer():
            result = self.run("status", "-c", str(self.config), "--json")
            return json.loads(result.stdout) if result.returncode == 0 else None

        return wait_until(answer, "the status")

    def wait_live(self, reader=None, exchanges=None, since_ns=0):
        """Wait until each major of each exchange has a fresh record with all ten values, received since then."""
        reader = reader or self.reader(b"ticker.")
        missing = {f"ticker.{e}.{s}" for e in exchanges or self.exchanges for s in MAJORS}

        def seen(record):
            if record.kind == 1 and record.is_fresh and record.is_complete and record.recv_ns >= since_ns:
                missing.discard(record.topic)
            return not missing

        reader.read_until(seen, f"all values of {sorted(missing)}")
        return reader

    def close(self):
        for reader in self._readers:
            reader.close()
        for process in reversed(self.processes.values()):
            if process.poll() is None:
                process.terminate()
        for process in self.processes.values():
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def quote_topic(exchange, symbol):
    """The topic of the fastest quotes of a symbol, as the exchange has it."""
    row = simulated.SIMULATED[exchange]
    return row.quote_topic(row.native(*symbol.split("/")))


def topics_of(exchange):
    """How many topics a feed subscribes to for the majors."""
    return simulated.SIMULATED[exchange].channels * len(MAJORS)


def descendants(pid):
    """Return the pids of all living descendants, children first."""
    found = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]


def programs(run):
    """Return the supervised programs' pids by name; that of a shard is binance-1of2."""
    found = {}
    for pid in descendants(run.pid):
        line = command_line(pid)
        if "-m feedhandler" in line:
            words = line.split("-m feedhandler", 1)[1].split()
            name = words[1] if words[0] == "feed" else words[0]
            shard = words[words.index("--shard") + 1].replace("/", "of") if "--shard" in words else ""
            found[f"{name}-{shard}" if shard else name] = pid
        elif "supervisord" in line:
            found["supervisord"] = pid
    return found


def leftovers(stack):
    """Return what a run left behind: sockets, pid files, locks."""
    run_dir = stack.directory / "run"
    expected = {"supervisord.conf", "api-token", "recent.board", "recent.ring"}
    return {
        str(p.relative_to(run_dir))
        for p in run_dir.rglob("*")
        if not p.is_dir()
        and p.parent.name not in ("log", "instruments", "connects", "wanted", "board", "processes")
        and p.name not in expected
    }
