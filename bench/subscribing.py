"""What subscribers can do to each other: `python -m bench.subscribing`.

    feed ══hop══▶ merger ══ipc══▶ an innocent subscriber to everything
                    ▲
                    ╚═ attackers: subscribe and cancel as fast as they can, or are many

15,000 topics, 2,000 records/s in random order. Latency is from when a record was due to the innocent one; silence
is the longest time in which nothing reached it. Each attack is played between two quiet runs. CPU is the merger's,
per second; `after` is what it still worked in the 5 s after the attackers were killed. What counts is the ratio to
the quiet runs beside it: on a busy machine all of them are longer.
"""

import argparse
import contextlib
import multiprocessing
import os
import random
import resource
import select
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec

from bench.host import usage
from feedhandler.data import wire
from feedhandler.data.instruments import Instrument, instrument_list
from feedhandler.merger.merge import FeedHeartbeat
from feedhandler.merger.process import MergerProcess
from feedhandler.runtime import config
from feedhandler.runtime.settings import Config
from feedhandler.transport import zmtp
from feedhandler.transport.files import Lock
from feedhandler.transport.links import Downlink, Uplink
from feedhandler.transport.loop import Loop

SYMBOLS: Final = 15_000
RATE: Final = 2_000
SUBSCRIBERS: Final = 2_000
SNAPSHOT_SIZE: Final = 5_000 * (zmtp.SHORT_HEAD_SIZE + wire.TICKER_SIZE)  # of that many symbols
READY: Final = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB"
NATIVES: Final = [f"S{number:05}USDT" for number in range(SYMBOLS)]
CANONICAL: Final = [
    wire.topic(wire.TICKER, "binance", f"S{number:05}/USDT").encode() for number in range(SYMBOLS)
]


def request(prefix: bytes, kind: int = 1) -> bytes:
    """Return a subscription (1) or its cancellation (0) as a frame."""
    if len(prefix) < 255:
        return bytes((0, 1 + len(prefix), kind)) + prefix
    return b"\x02" + (1 + len(prefix)).to_bytes(8, "big") + bytes((kind,)) + prefix


def merge(settings: Config) -> None:
    """Be the merger, until killed."""
    with Lock(settings.run_dir, "merger") as lock:
        MergerProcess(settings, lock).run()


def publish(settings: Config, symbols: int) -> None:
    """Be the feed: each symbol once, then RATE records a second, stamped with when they were due."""
    loop, joined = Loop(), []
    uplink = Uplink(loop, settings.merger.feeds, lambda: joined.append(1), queue_size_max=1 << 26)
    while not joined:
        uplink.poll()
        loop.run_once(0.01)
    natives = NATIVES[:symbols]
    rows = [Instrument(native, native.removesuffix("USDT"), "USDT") for native in natives]
    body = msgspec.json.encode(instrument_list("binance", 1, rows))
    uplink.send(document(wire.INSTRUMENTS, body))
    for native in natives:
        uplink.send(record(native, time.time_ns()))
        loop.run_once(0)
    rng, due_ns, every_ns, beat = random.Random(1), time.time_ns(), 1_000_000_000 // RATE, 0
    while True:
        while due_ns <= time.time_ns():
            uplink.send(record(rng.choice(natives), due_ns))
            due_ns += every_ns
            beat += 1
            if beat % (RATE // 5) == 0:
                uplink.send(document(wire.HEARTBEAT, msgspec.json.encode(FeedHeartbeat(pid=os.getpid()))))
        loop.run_once(0.0005)


def document(kind: int, body: bytes) -> bytes:
    """Return a document of the feed's."""
    return wire.pack_document(wire.Document(wire.topic(kind, "binance"), kind=kind, body=body))


def record(native: str, due_ns: int) -> bytes:
    """Return a record that was due then."""
    topic = wire.topic(wire.TICKER, "binance", native)
    return wire.pack_ticker(wire.Ticker(topic, recv_ns=due_ns, publish_ns=due_ns, bid=1.0, ask=2.0))


def connected(path: str) -> socket.socket:
    """Return a subscriber without subscriptions, spoken by hand."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    sock.sendall(zmtp.GREETING + READY)
    sock.setblocking(False)
    return sock


def ask_for_ever(path: str, started: Any, requests: Callable[[int], bytes]) -> None:
    """Send requests without end, and read what comes; connect again if that is needed."""
    started.release()
    while True:
        sock, number, rest = connected(path), 0, b""
        with contextlib.suppress(OSError):
            while True:
                readable, writable, _ = select.select([sock], [sock], [])
                if readable and not sock.recv(1 << 20):
                    break
                if writable:
                    rest = rest or requests(number)
                    number += 1
                    rest = rest[sock.send(rest) :]
        sock.close()


def join_and_leave(path: str, started: Any, patience: int) -> None:
    """Subscribe to everything, read so many bytes of the snapshot, close, and come again."""
    started.release()
    while True:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(1.0)
            sock.connect(path)
            sock.sendall(zmtp.GREETING + READY + request(b""))
            left = patience
            while left > 0 and (data := sock.recv(1 << 20)):
                left -= len(data)


def resubscribe(number: int) -> bytes:
    """Everything, again and again."""
    return request(b"") + request(b"", 0)


def lengths(number: int) -> bytes:
    """A thousand prefixes of as many lengths, and their end."""
    prefixes = [CANONICAL[number % SYMBOLS].ljust(size, b"\0")[:size] for size in range(1000)]
    return b"".join(request(p) for p in prefixes) + b"".join(request(p, 0) for p in prefixes)


def long_ones(number: int) -> bytes:
    """A thousand prefixes that almost name a topic."""
    return b"".join(request(CANONICAL[(number * 1000 + n) % SYMBOLS][:-2]) for n in range(1000))


def crowd(path: str, started: Any) -> None:
    """Two thousand idle subscribers to one topic each, connected as fast as it goes."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    socks, epoll = [], select.epoll()
    started.release()
    for number in range(SUBSCRIBERS):
        sock = connected(path)
        sock.setblocking(True)
        sock.sendall(request(CANONICAL[number].ljust(wire.TOPIC_SIZE, b"\0")))
        sock.setblocking(False)
        epoll.register(sock, select.EPOLLIN)
        socks.append(sock)
    while True:
        for fd, _ in epoll.poll():
            os.read(fd, 1 << 16)


ATTACKS: Final[dict[str, list[tuple[Callable[..., None], tuple[Any, ...]]]]] = {
    "one resubscribes to everything": [(ask_for_ever, (resubscribe,))],
    "three with 1,000 lengths, eight with many long ones": [
        *[(ask_for_ever, (lengths,))] * 3,
        *[(ask_for_ever, (long_ones,))] * 8,
    ],
    f"{SUBSCRIBERS:,} idle subscribers connect": [(crowd, ())],
    "one joins everything and leaves at once": [(join_and_leave, (0,))],
    "one joins everything and leaves when it has some": [(join_and_leave, (10_000,))],
    "one joins everything and leaves when it has it": [(join_and_leave, (SNAPSHOT_SIZE,))],
    "ten join everything and leave when they have it": [(join_and_leave, (SNAPSHOT_SIZE,))] * 10,
    "ten join everything and leave when they have some": [(join_and_leave, (10_000,))] * 10,
}


class Innocent:
    """A subscriber to everything, in this process."""

    def __init__(self, endpoint: str) -> None:
        self._loop = Loop()
        self._downlink = Downlink(self._loop, endpoint, [b"ticker."], self._take)
        self._latencies: list[int] = []
        self._heard_ns = self._silence_ns = 0
        self.seen: set[bytes] = set()

    def _take(self, message: bytes) -> None:
        now = time.time_ns()
        self.seen.add(message[: wire.TOPIC_SIZE])
        (flags,) = wire.FLAGS.unpack_from(message, wire.FLAGS_OFFSET)
        if flags & wire.SNAPSHOT:
            return
        (due_ns,) = wire.TIME.unpack_from(message, wire.RECV_NS_OFFSET)
        self._latencies.append(now - due_ns)
        self._silence_ns = max(self._silence_ns, now - self._heard_ns)
        self._heard_ns = now

    def listen(self, seconds: float) -> tuple[float, float, float]:
        """Return p50, p99 and the longest silence, in ms, of so much time."""
        self._latencies.clear()
        self._heard_ns, self._silence_ns = time.time_ns(), 0
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._downlink.poll()
            self._loop.run_once(0.05)
        ordered = sorted(self._latencies) or [0]
        return tuple(
            ns / 1e6
            for ns in (ordered[len(ordered) // 2], ordered[len(ordered) * 99 // 100], self._silence_ns)
        )  # type: ignore[return-value]


def measure(seconds: float, rounds: int, symbols: int, attacks: list[str]) -> None:
    """Play each attack between two quiet runs, and print what the innocent one saw."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "config.toml"
        ticks = f"{directory}/ticks.ipc"
        path.write_text(
            f'run_dir = "{directory}"\n[exchanges.binance]\n[merger]\nticks = ["ipc://{ticks}"]\n'
            f'batches = []\nfeeds = "ipc://{directory}/feeds.ipc"\nrecent = 0\n'
        )
        settings = config.load(str(path))
        processes = [
            context.Process(target=merge, args=(settings,), daemon=True),
            context.Process(target=publish, args=(settings, symbols), daemon=True),
        ]
        for process in processes:
            process.start()
        merger = processes[0].pid
        assert merger is not None
        innocent = Innocent(f"ipc://{ticks}")
        while len(innocent.seen) < symbols:
            assert all(process.is_alive() for process in processes), "merger or feed ended"
            innocent.listen(0.2)
        print(
            f"{'':>52} {'p50':>8} {'p99':>8} {'silence':>8} ms  {'merger':>7} %  {'after':>6} s  p99, times quiet"
        )
        for name in attacks:
            parts = ATTACKS[name]
            for _ in range(rounds):
                before = usage(merger)
                quiet = [innocent.listen(seconds)]
                quiet_cpu_s = (usage(merger) - before).cpu_s
                started = context.Semaphore(0)
                attackers = [
                    context.Process(target=target, args=(ticks, started, *arguments), daemon=True)
                    for target, arguments in parts
                ]
                for attacker in attackers:
                    attacker.start()
                for _ in attackers:  # to start them takes the processors, too
                    while not started.acquire(block=False):
                        innocent.listen(0.05)
                before = usage(merger)
                during = innocent.listen(seconds)
                used = (usage(merger) - before).cpu_s
                assert all(attacker.is_alive() for attacker in attackers), "an attacker ended by itself"
                for attacker in attackers:
                    attacker.kill()
                before = usage(merger)
                innocent.listen(5.0)
                after = (usage(merger) - before).cpu_s
                quiet.append(innocent.listen(seconds))
                of_quiet = statistics.fmean(each[1] for each in quiet)
                print(
                    "{:>52} {:8.2f} {:8.2f} {:8.1f}     {:7.1f}".format(
                        "quiet", *map(statistics.fmean, zip(*quiet, strict=True)), 100 * quiet_cpu_s / seconds
                    )
                )
                print(
                    f"{name:>52} {during[0]:8.2f} {during[1]:8.2f} {during[2]:8.1f}     {100 * used / seconds:7.1f}"
                    f"    {after:6.2f}    {during[1] / of_quiet:.1f}",
                    flush=True,
                )
        for process in processes:
            process.kill()


def main() -> None:
    """Read the arguments, and measure."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=8.0, help="of each run")
    parser.add_argument("--rounds", type=int, default=3, help="of each attack")
    parser.add_argument("--symbols", type=int, default=SYMBOLS, help="topics, at most as many as by default")
    parser.add_argument("--only", default="", help="attacks whose names have this")
    arguments = parser.parse_args()
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    attacks = [name for name in ATTACKS if arguments.only in name]
    measure(arguments.seconds, arguments.rounds, arguments.symbols, attacks)


if __name__ == "__main__":
    main()
