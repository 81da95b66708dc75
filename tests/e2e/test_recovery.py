"""Subscribers that were stopped, killed or cut off end where one ends that never was, with real processes."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest
import zmq
from harness import EXCHANGES, MAJORS, PATIENCE_S, Stack, wait_until

from feedhandler.client import Subscriber
from feedhandler.data import wire

pytestmark = pytest.mark.e2e

# A subscriber as a process of its own: it writes the sequence of each record to a file, and its last values.
# It waits for an answer however busy the machine is: what is not answered in a second is lost otherwise, and told.
PROGRAM = """
import sys
from feedhandler.client import Subscriber, recovery
recovery.PATIENCE_NS = 60 * 10**9
endpoint, recover, path, mode = sys.argv[1:]
with Subscriber(endpoint, ["ticker."], mode=mode, recover=recover) as subscriber, open(path, "w", 1) as out:
    for record in subscriber:
        number = record.topic, record.session, record.sequence
        print(*number, record.flags & 1, record.bid, record.last, file=out)
"""


class Follower:
    """The program above."""

    def __init__(self, stack, name, mode="", endpoint=None):
        self.path = stack.directory / f"{name}.txt"
        arguments = [endpoint or stack.endpoint, stack.recover, str(self.path), mode]
        self.process = subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], stdin=subprocess.DEVNULL)
        stack.processes[name] = self.process

    def rows(self):
        with contextlib.suppress(FileNotFoundError):
            text = self.path.read_text(encoding="utf-8")
            return [line.split() for line in text[: text.rfind("\n") + 1].splitlines()]
        return []

    def last(self):
        """Return the last of each topic: session, sequence and values."""
        return {topic: (session, sequence, *values) for topic, session, sequence, _, *values in self.rows()}

    def holes(self):
        """Return the holes in each topic's sequence."""
        before, holes = {}, []
        for topic, session, sequence, *_ in self.rows():
            if before.get(topic, (session, int(sequence) - 1)) != (session, int(sequence) - 1):
                holes.append((topic, before[topic], int(sequence)))
            before[topic] = session, int(sequence)
        return holes


class Proxy:
    """A TCP connection that can be cut."""

    def __init__(self, port):
        self._port = port
        self._server = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self._pairs = []
        self.connects = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                server = socket.create_connection(("127.0.0.1", self._port))
                self._pairs.append((client, server))
                self.connects += 1
                for source, target in ((client, server), (server, client)):
                    threading.Thread(target=self._copy, args=(source, target), daemon=True).start()

    @staticmethod
    def _copy(source, target):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self):
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def close(self):
        self._server.close()
        self.cut()


@pytest.fixture
def stack(tmp_path):
    stack = Stack(tmp_path, rate=1000, merger="recent = 1000")  # seconds, on the slowest machine
    stack.start()
    yield stack
    stack.close()


def end_together(stack, *followers):
    """Stop the stream, and wait until all have the same last values; returns them."""
    for exchange in EXCHANGES:
        os.kill(stack.processes[exchange].pid, signal.SIGTERM)
    for exchange in EXCHANGES:
        stack.processes[exchange].wait(PATIENCE_S)
    count = len(EXCHANGES) * len(MAJORS)

    def agreed():
        last = [follower.last() for follower in followers]
        return last[0] if len(last[0]) == count and all(each == last[0] for each in last) else None

    return wait_until(agreed, "all have the same last values")


def test_one_stopped_one_killed_and_one_cut_off_end_like_one_that_never_was(stack):
    """And of what was published while they were there, nothing is missing."""
    stack.wait_live()
    proxy = Proxy(stack.ports["ticks"])
    steady = Follower(stack, "steady")
    stopped, slow = Follower(stack, "stopped"), Follower(stack, "slow", mode="latest")
    killed, cut = Follower(stack, "killed"), Follower(stack, "cut", endpoint=proxy.endpoint)
    everybody = (steady, stopped, slow, killed, cut)
    wait_until(lambda: all(len(each.last()) == 15 for each in everybody), "everybody hears everything")

    for follower in (stopped, slow):
        os.kill(follower.process.pid, signal.SIGSTOP)
    killed.process.kill()
    killed.process.wait(PATIENCE_S)
    killed = Follower(stack, "killed again")
    for _ in range(5):
        connects, rows = proxy.connects, len(cut.rows())
        proxy.cut()
        wait_until(lambda: proxy.connects > connects and len(cut.rows()) > rows, "it has come back")  # noqa: B023
    time.sleep(10)  # what the stopped ones are to miss: the claim is about so long a stop
    for follower in (stopped, slow):
        os.kill(follower.process.pid, signal.SIGCONT)

    end_together(stack, steady, stopped, slow, killed, cut)
    for follower in (steady, stopped, killed, cut):
        assert not follower.holes(), follower.path
    assert len(slow.rows()) < len(stopped.rows()), "what it missed was passed over"
    proxy.close()


def test_a_merger_or_a_relay_that_is_killed_costs_nothing_that_is_not_told(stack):
    stack.wait_live()
    follower = Follower(stack, "follower")
    wait_until(lambda: len(follower.last()) == 15, "it hears everything")
    stack.kill("relay")
    (session,) = {session for session, *_ in follower.last().values()}
    stack.kill("merger")
    stack.start("relay", "merger")
    wait_until(
        lambda: all(last[0] != session for last in follower.last().values()), "the new merger's session"
    )
    end_together(stack, follower)
    sessions = list(dict.fromkeys(row[1] for row in follower.rows()))
    assert len(sessions) == 2
    with Subscriber(stack.endpoint, ["ticker."], recover=stack.recover) as late:
        newest = {}
        while len(newest) < 15:
            record = late.receive(PATIENCE_S)
            assert record is not None
            newest[record.topic] = (str(record.session), str(record.sequence))
    assert newest == {topic: tuple(last[:2]) for topic, last in follower.last().items()}


def test_last_values_can_be_asked_for_in_any_language(stack):
    stack.wait_live()
    with zmq.Context() as context, context.socket(zmq.REQ) as req:
        req.set(zmq.LINGER, 0)
        req.set(zmq.RCVTIMEO, int(PATIENCE_S * 1000))
        req.connect(stack.recover)
        req.send(b'{"id": 5, "topics": ["ticker.binance.", "status."]}')
        head, records, *documents = req.recv_multipart()
    assert b'"id":5' in head
    symbols = {wire.unpack(each).symbol for each in wire.split(records)}
    assert symbols == set(MAJORS)
    assert {wire.unpack(each).exchange for each in documents} == set(EXCHANGES)
