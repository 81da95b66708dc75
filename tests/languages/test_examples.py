"""Each example, built as it says and run against the socket that the merger has."""

import itertools
import os
import re
import signal
import subprocess
import time

import pytest
from patience import PATIENCE_S
from toolchains import EXAMPLES

from feedhandler.data import wire
from feedhandler.transport.loop import Loop
from feedhandler.transport.outlet import Outlet

BTC, ETH = (wire.topic(wire.TICKER, "binance", symbol) for symbol in ("BTC/USDT", "汉字/USDT"))
pytestmark = pytest.mark.e2e
STATUS = wire.topic(wire.STATUS, "binance")


def ticker(sequence, *, topic=BTC, session=100, flags=0, bid=1.5):
    record = wire.Ticker(topic, session=session, sequence=sequence, flags=flags, last=97421.5, bid=bid)
    record.ask = 1e-08
    return wire.pack_ticker(record)


def document(sequence, body):
    return wire.pack_document(
        wire.Document(STATUS, kind=wire.STATUS, session=100, sequence=sequence, flags=wire.DOWN, body=body)
    )


def line(sequence, *, name=BTC, bid=1.5, note=""):
    return (name, f"#{sequence}", 97421.5, bid, 1e-08, note)


def read(text):
    """Return a line of the output so that the languages' ways to write a number do not matter."""
    found = re.fullmatch(r"(\S+) (#\d+) last (\S+) bid (\S+) ask (\S+?)( NOT LIVE)?", text)
    if not found:
        return text
    numbers = ["nan" if word.lower() == "nan" else float(word) for word in found.group(3, 4, 5)]
    return (found[1], found[2], *numbers, (found[6] or "").strip())


class Play:
    """A publisher as the merger has it, and a program that subscribes to it."""

    def __init__(self, command, endpoint, *prefixes, is_sigpipe_ignored=False):
        self._endpoint = endpoint
        self._loop = Loop()
        self._outlet = None
        self._text = {"out": b"", "err": b""}
        self.asked = []
        self.snapshot = []
        self.publish()
        self._process = subprocess.Popen(
            [*map(str, command), endpoint, *prefixes],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            restore_signals=not is_sigpipe_ignored,
        )
        for name, pipe in (("out", self._process.stdout), ("err", self._process.stderr)):
            os.set_blocking(pipe.fileno(), False)
            self._loop.add_reader(pipe.fileno(), lambda name=name, pipe=pipe: self._read(name, pipe))

    def publish(self):
        """Bind; instead of the publisher of before, if there was one."""
        if self._outlet:
            self._outlet.close()
        self._outlet = Outlet(
            self._loop,
            [self._endpoint],
            self,
            key="test",
            queue_size_max=1_000_000,
            has_modes=True,
            session=100,
        )

    def send(self, message):
        self._outlet.send(message[: wire.TOPIC_SIZE], message)
        self._outlet.flush()

    def wait(self, condition, what):
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"not within {PATIENCE_S:g} s: {what}; {self._text}"
            self._loop.run_once(0.1)

    def lines(self, name="out"):
        return self._text[name].decode().splitlines()

    def close_output(self):
        """As `| head` does."""
        pipe = self._process.stdout
        self._loop.remove_reader(pipe.fileno())
        pipe.close()

    def status(self):
        """Return the program's, None while it runs."""
        return self._process.poll()

    def close(self):
        self._process.kill()
        self._process.wait()
        self._outlet.close()
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe.closed:
                continue
            self._loop.remove_reader(pipe.fileno())
            pipe.close()
        self._loop.close()

    def topics(self, prefix):
        self.asked.append(prefix)
        return sorted(m[: wire.TOPIC_SIZE] for m in self.snapshot if m.startswith(prefix))

    def last(self, topic):
        return next(message for message in self.snapshot if message.startswith(topic))

    def _read(self, name, pipe):
        chunk = pipe.read()
        if not chunk:
            self._loop.remove_reader(pipe.fileno())
        self._text[name] += chunk or b""


@pytest.fixture(scope="module", params=EXAMPLES)
def command(request, tmp_path_factory):
    return EXAMPLES[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture
def play(command, tmp_path):
    plays = []

    def start(*prefixes, **settings):
        plays.append(Play(command, f"ipc://{tmp_path}/ticks.ipc", *prefixes, **settings))
        return plays[-1]

    yield start
    for each in plays:
        each.close()


def test_records_gaps_flags_and_batches_are_printed_and_repetitions_are_not(play):
    p = play("ticker.", "status.")
    p.snapshot = [ticker(5, flags=wire.SNAPSHOT)]
    p.wait(lambda: len(p.asked) == 2, "subscriptions")
    assert set(p.asked) == {b"ticker.", b"status."}
    damaged = bytearray(ticker(6))
    damaged[wire.VERSION_OFFSET] = 1
    for message in (
        ticker(5),
        ticker(6),
        ticker(7) + ticker(1, topic=ETH, bid=float("nan")) + ticker(8),
        bytes(damaged),
        ticker(12, flags=wire.STALE | wire.SIMULATED),
        ticker(12, flags=wire.STALE | wire.SNAPSHOT),
        ticker(13, flags=wire.SIMULATED),
        document(1, '{"state": "down", "why": "汉"}'.encode()),
        document(3, b"{}"),
        ticker(2**64 - 1, flags=wire.DOWN),
    ):
        p.send(message)
    expected = [
        line(5),
        line(6),
        line(7),
        line(1, name=ETH, bid="nan"),
        line(8),
        f"{BTC}: 3 lost before #12",
        line(12, note="NOT LIVE"),
        line(13),
        'status.binance #1 {"state": "down", "why": "汉"} NOT LIVE',
        "status.binance: 1 lost before #3",
        "status.binance #3 {} NOT LIVE",
        f"{BTC}: {2**64 - 15} lost before #{2**64 - 1}",
        line(2**64 - 1, note="NOT LIVE"),
    ]
    p.wait(lambda: len(p.lines()) >= len(expected), "all lines")
    assert [read(text) for text in p.lines()] == expected
    p.wait(lambda: p.lines("err"), "the refusal")
    assert "a message of 192 bytes is refused: version" in p.lines("err")[0]


@pytest.mark.parametrize("is_ignored", [False, True])
def test_it_ends_quietly_when_its_output_is_closed(play, is_ignored):
    p = play("ticker.", is_sigpipe_ignored=is_ignored)  # as some shells and supervisors have it
    p.wait(lambda: p.asked, "the subscription")
    p.send(ticker(1))
    p.wait(lambda: p.lines(), "a record")
    p.close_output()

    def has_ended():
        p.send(ticker(next(numbers)))
        return p.status() is not None

    numbers = itertools.count(2)
    p.wait(has_ended, "the end")
    assert p.status() in (0, -signal.SIGPIPE)
    assert p.lines("err") == []


def test_a_mode_is_declared_by_one_more_prefix_and_its_notices_are_not_followed(play):
    p = play("@latest", "ticker.")
    p.wait(lambda: b"ticker." in p.asked, "the subscription")
    p.wait(lambda: p.lines(), "the notice")
    p.send(ticker(7))
    p.wait(lambda: len(p.lines()) >= 2, "a record")
    p.publish()
    p.wait(lambda: p.asked.count(b"ticker.") == 2, "the subscription again")
    p.wait(lambda: len(p.lines()) >= 3, "the notice to the new connection, which has number 1 again")
    first, record, again = p.lines()
    assert read(record) == line(7)
    assert first == again == '@latest #1 {"mode":"latest"}'


def test_a_publisher_that_comes_again_is_found_and_its_new_session_is_no_loss(play):
    p = play()
    p.wait(lambda: p.asked == [b"ticker."], "the subscription")
    p.send(ticker(500))
    p.wait(lambda: p.lines(), "a record")
    p.publish()
    p.wait(lambda: len(p.asked) == 2, "the subscription again")
    p.send(ticker(2, session=101))
    p.wait(lambda: len(p.lines()) >= 3, "the new session")
    assert [read(text) for text in p.lines()] == [line(500), f"{BTC}: the merger was restarted", line(2)]
