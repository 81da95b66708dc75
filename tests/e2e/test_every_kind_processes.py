"""A kind that keeps every record, of an exchange that has it, through real processes: each record once, everywhere.

    exchange ══▶ feed ──▶ merger ──▶ subscriber, and one that does not read
                            ├──▶ relay (recovery)
                            └──▶ bridge ──▶ NATS

The kind and the exchange are those of `deals.py`, and exist there alone.
"""

import asyncio
import collections
import contextlib
import itertools
import json
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import zmq
from harness import HEADER, PATIENCE_S, Stack, free_ports, wait_until
from natsworld import NATS_SERVER, nats, needs_server
from test_exchanges_document import TABLE, Server, adapter
from test_recovery import Proxy

pytestmark = needs_server
DEALS = Path(__file__).with_name("deals.py")
DEAL, CONDITION, NOTICE = 210, 11, 5
SNAPSHOT, STALE, DOWN, LAST, RECOVERED = 1, 2, 4, 32, 64
NUMBER = struct.Struct("<Q")  # at the beginning of the body
SIZE = 232
NATIVES = ("BTC-USDT", "ETH-USDT")
FLOOD = 400  # deals of a frame in a flood


class DealingServer(Server):
    """The example's server, which has deals as well: some, ten times a second, and a flood of them on demand."""

    def __init__(self):
        super().__init__()
        self._numbers = collections.Counter()
        self.flood = 0  # frames to be sent at once

    @property
    def sent(self):
        return dict(self._numbers)

    def _frame(self, natives, count):
        deals = []
        for native in itertools.islice(itertools.cycle(natives), count):
            self._numbers[native] += 1
            deals.append([native, self._numbers[native], 1.5])
        return json.dumps({"deals": deals}, separators=(",", ":"))

    async def _send(self, socket, wanted):
        turn = 0
        with contextlib.suppress(ConnectionError):
            while True:
                turn += 1
                natives = sorted(topic.partition(".")[2] for topic in wanted if topic.startswith("deal."))
                if natives:
                    await socket.send_str(self._frame(natives, 1 + turn % 5))
                    while self.flood:
                        self.flood -= 1
                        await socket.send_str(self._frame(natives, FLOOD))
                await asyncio.sleep(0.1)


class Got:
    """What came at one place, and whether it is in order."""

    def __init__(self):
        self.deals = []  # topic, session, sequence, flags, number
        self.conditions = []  # the same
        self.seen = set()

    def take(self, kind, topic, session, sequence, flags, number):
        assert topic.startswith("deal.example."), topic
        if kind == CONDITION:
            self.conditions.append((topic, session, sequence, flags))
            return
        assert kind == DEAL
        assert not flags & SNAPSHOT, "nothing is replayed"
        assert (topic, number) not in self.seen, f"{topic} {number} came twice"
        self.seen.add((topic, number))
        self.deals.append((topic, session, sequence, flags, number))

    def take_bytes(self, message):
        topic, _, kind, flags, session, sequence, *_ = HEADER.unpack_from(message)
        assert len(message) == (SIZE if kind == DEAL else HEADER.size)
        number = NUMBER.unpack_from(message, HEADER.size)[0] if kind == DEAL else 0
        self.take(kind, topic.rstrip(b"\0").decode(), session, sequence, flags, number)

    def of(self, topic="deal.example.BTC/USDT"):
        return [deal for deal in list(self.deals) if deal[0] == topic]

    def check_order(self, *, may_miss=False):
        """Numbers grow, those of the exchange and those of each session; none is missing within a session."""
        for topic in {deal[0] for deal in self.deals}:
            mine = self.of(topic)
            assert [d[4] for d in mine] == sorted(d[4] for d in mine)
            for (_, session, sequence, _, _), (_, after, following, _, _) in itertools.pairwise(mine):
                assert after >= session
                if after == session:
                    assert following > sequence if may_miss else following == sequence + 1

    def missing(self):
        """How many numbers are missing within the newest session."""
        newest = max(deal[1] for deal in self.deals)
        count = 0
        for topic in {deal[0] for deal in self.deals}:
            numbers = [d[2] for d in self.of(topic) if d[1] == newest]
            count += numbers[-1] - numbers[0] + 1 - len(numbers)
        return count


class Printed:
    """A subscriber process, and what it has printed."""

    def __init__(self, world, endpoint):
        self.got, self.counts, self.error = Got(), [0, 0, 0, 0], None
        arguments = ["subscriber", endpoint, world.stack.recover]
        with (world.path / "subscriber.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*world.stack.command, *arguments], stdout=subprocess.PIPE, stderr=log, text=True
            )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        try:
            for line in self.process.stdout:
                kind, *values = json.loads(line)
                if kind:
                    self.got.take(kind, *values)
                else:
                    self.counts = values
        except AssertionError as exc:  # told by the test's thread
            self.error = exc

    def kill(self):
        self.process.kill()
        self.process.wait(PATIENCE_S)
        self._thread.join(PATIENCE_S)
        assert self.error is None


class Bridged:
    """A consumer of all deals at NATS, in a thread of its own."""

    def __init__(self, url):
        self.got, self.error = Got(), None
        self._url, self._loop = url, asyncio.new_event_loop()
        self._is_ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._is_ready.wait(PATIENCE_S)

    def _run(self):
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        self._loop.run_forever()

    async def _start(self):
        async def take(message):
            try:
                self.got.take_bytes(message.data)
            except AssertionError as exc:  # told by the test's thread
                self.error = exc

        self._client = await nats.connect(self._url)
        await self._client.subscribe("deal.>", cb=take, pending_msgs_limit=0, pending_bytes_limit=0)
        await self._client.flush()
        self._is_ready.set()

    def close(self):
        asyncio.run_coroutine_threadsafe(self._client.close(), self._loop).result(PATIENCE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        assert self.error is None


class World:
    def __init__(self, path):
        self.path = path
        self.ticks = f"ipc://{path}/run/ticks.ipc"  # the kernel holds megabytes for TCP
        (path / "example.py").write_text(adapter(), encoding="utf-8")
        self._parts = contextlib.ExitStack()
        self.server = self._parts.enter_context(DealingServer())
        # Four megabytes for all queues: who does not read is soon known.
        self.stack = Stack(path, exchanges=(), sim_table=False, merger="recent = 1000\nqueues_mb = 4")
        self._parts.callback(self.stack.close)
        port, metrics = free_ports(2)
        url = f"nats://127.0.0.1:{port}"
        table = TABLE.format(url=self.server.url) + 'kinds = ["deal"]\nmax_attempts = 0\n'
        table += f'[nats]\nservers = ["{url}"]\nmetrics = "127.0.0.1:{metrics}"\n'
        with self.stack.config.open("a", encoding="utf-8") as config:
            config.write(table)
        self.stack.command = [sys.executable, str(DEALS), str(path)]
        nats_server = subprocess.Popen(
            [NATS_SERVER, "-a", "127.0.0.1", "-p", str(port)], stderr=subprocess.DEVNULL
        )
        self._parts.callback(nats_server.wait)
        self._parts.callback(nats_server.terminate)
        self.bridged = wait_until(lambda: self._consumer(url), "NATS")
        self._parts.callback(self.bridged.close)
        for name in ("merger", "relay"):
            self.stack.start(name)
        self.stack.processes["bridge"] = self.stack.popen(
            "bridge", "nats", "-c", str(self.stack.config), log="bridge"
        )
        self.start_feed()

    def _consumer(self, url):
        with socket.socket() as probe:
            return None if probe.connect_ex(("127.0.0.1", int(url.rpartition(":")[2]))) else Bridged(url)

    def start_feed(self):
        self.stack.processes["example"] = self.stack.popen(
            "feed", "example", "-c", str(self.stack.config), log="example"
        )

    def close(self):
        self._parts.close()


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    with contextlib.closing(world):
        yield world


def test_each_record_comes_once_whoever_is_started_again_and_gaps_and_conditions_are_told(world):
    stack = world.stack
    subscriber = Printed(world, world.ticks)
    places = lambda: (subscriber.got, world.bridged.got)  # noqa: E731

    def more(count=20, what=""):
        """Wait until so many more deals have come everywhere."""
        before = [len(got.deals) for got in places()]
        wait_until(
            lambda: all(len(g.deals) >= b + count for g, b in zip(places(), before, strict=True)),
            lambda: (
                f"deals {what}: {before}, {[len(g.deals) for g in places()]}, {stack.log('example')[-2000:]}"
            ),
        )

    # Live, of whole frames.
    more(what="at first")
    assert {deal[0] for deal in subscriber.got.deals} == {"deal.example.BTC/USDT", "deal.example.ETH/USDT"}
    assert any(deal[3] & LAST for deal in subscriber.got.deals)
    assert not all(deal[3] & LAST for deal in subscriber.got.deals)
    assert not any(deal[3] & (RECOVERED | STALE | DOWN) for deal in subscriber.got.deals)

    # A connection is cut: what was missed meanwhile comes in its place.
    with contextlib.closing(Proxy(stack.ports["ticks"])) as proxy:
        cut_off = Printed(world, proxy.endpoint)

        def is_recovered():
            if cut_off.got.deals:
                proxy.cut()
            time.sleep(0.5)
            lost, recovered, *_ = cut_off.counts
            return recovered and not lost

        wait_until(is_recovered, lambda: f"what was missed: {cut_off.counts}")
        cut_off.kill()
        cut_off.got.check_order()

    # The merger dies: a new session, and nothing of the last one again.
    session = subscriber.got.deals[-1][1]
    stack.kill("merger")
    time.sleep(1.1)  # a session is a second
    stack.start("merger")
    wait_until(
        lambda: all(got.deals[-1][1] > session for got in places()),
        "the new session everywhere",
    )
    more(what="of the second merger")

    # The feed dies: DOWN by conditions, which are over with its next records.
    last = {
        topic: subscriber.got.of(topic)[-1] for topic in ("deal.example.BTC/USDT", "deal.example.ETH/USDT")
    }
    stack.kill("example")
    for got in places():
        wait_until(
            lambda got=got: {c[0] for c in list(got.conditions) if c[3] & DOWN} >= set(last),
            "DOWN of each topic",
        )
        for topic in last:
            condition = [c for c in got.conditions if c[0] == topic and c[3] & DOWN][-1]
            # Records may be held while what is missing before them is on its way; a condition is not.
            wait_until(
                lambda got=got, topic=topic, number=condition[2]: got.of(topic)[-1][2] == number,
                "the number of the last record",
            )
    world.start_feed()
    more(what="of the second feed")

    # The subscriber dies: the next one gets what is new, and no record again.
    subscriber.kill()
    first, subscriber = subscriber, Printed(world, world.ticks)
    more(what="at the second subscriber")
    assert not first.got.seen & subscriber.got.seen
    assert subscriber.got.deals[0][4] > first.got.of(subscriber.got.deals[0][0])[-1][4]

    for got in (first.got, subscriber.got, world.bridged.got):
        got.check_order()

    # Two do not read for a while: one is stopped, one is libzmq's. Both are told how much they miss.
    context = zmq.Context()
    plain = context.socket(zmq.SUB)
    plain.set(zmq.LINGER, 0)
    plain.set(zmq.RCVHWM, 1)
    plain.set(zmq.SUBSCRIBE, b"deal.")
    plain.connect(world.ticks)
    slow, gaps = Got(), []

    def read(until_gap):
        while plain.poll(5):  # it holds one message at a time: the next one is a moment away
            message = plain.recv()
            if message[65] == NOTICE:
                gaps.append(json.loads(message[HEADER.size :])["gap"])
            else:
                slow.take_bytes(message)
        return bool(gaps) if until_gap else bool(slow.deals)

    wait_until(lambda: read(False), "the plain subscriber has something")
    subscriber.process.send_signal(signal.SIGSTOP)
    world.server.flood = 80
    wait_until(lambda: world.server.flood == 0, "the flood was sent")
    target = dict(world.server.sent)
    wait_until(
        lambda: all(world.bridged.got.of(f"deal.example.{n[:3]}/USDT")[-1][4] >= target[n] for n in NATIVES),
        "the flood is at NATS",
    )
    subscriber.process.send_signal(signal.SIGCONT)
    wait_until(lambda: read(True), "the plain subscriber is told of its gap")
    wait_until(
        lambda: subscriber.counts[2], lambda: f"ours is told: {subscriber.counts} {stack.log('merger')}"
    )
    more(what="after the flood")
    end = {n: world.server.sent[n] for n in NATIVES}
    wait_until(
        lambda: read(False) and all(slow.of(f"deal.example.{n[:3]}/USDT")[-1][4] >= end[n] for n in NATIVES),
        "the plain subscriber has all that is new",
    )
    assert sum(gaps) == slow.missing() > 0

    def is_settled():
        lost, recovered, *_ = subscriber.counts
        return lost == subscriber.got.missing() and recovered + lost > 0

    wait_until(
        is_settled, lambda: f"what is missing is counted: {subscriber.counts}, {subscriber.got.missing()}"
    )
    assert subscriber.counts[3] == 0, "nothing that cannot be read"

    subscriber.kill()
    context.destroy(linger=0)
    for got in (subscriber.got, slow, world.bridged.got):  # NATS may have been slower than the flood
        got.check_order(may_miss=True)
