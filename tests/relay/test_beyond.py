"""What other hosts connect to: libzmq's own sockets at the other end, and those of our feeds and clients."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest
import zmq
import zmq.auth
from loopback import free_ports
from patience import PATIENCE_S
from zmq.utils import z85

from feedhandler.data import wire
from feedhandler.data.errors import ConfigError
from feedhandler.data.kinds import BY_CODE
from feedhandler.data.layout import Retention
from feedhandler.relay import beyond
from feedhandler.relay.beyond import Beyond
from feedhandler.runtime import config
from feedhandler.transport import keys, remote
from feedhandler.transport.keys import load_pair, load_public
from feedhandler.transport.links import Inlet
from feedhandler.transport.loop import Loop

BTC, ETH = (wire.padded(wire.topic(wire.TICKER, "binance", s)) for s in ("BTC/USDT", "ETH/USDT"))


def ticker(topic, sequence):
    return wire.pack_ticker(wire.Ticker(wire.unpadded(topic), sequence=sequence))


class World:
    """A relay's sockets for other hosts, the merger's for the hop, and whoever connects."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("central", "desk", "late", "near"):
            keys.make(folder / "keys", name)
        for name in ("desk", "near"):
            self.authorize(name)
        self.ticks, self.recover, self.feeds = (f"tcp://127.0.0.1:{port}" for port in free_ports(3))
        path = folder / "test.toml"
        path.write_text(
            f'run_dir = "{folder}/run"\n[exchanges.binance]\n'
            f'[relay]\nremote_ticks = ["{self.ticks}"]\nremote_recover = ["{self.recover}"]\n'
            f'remote_feeds = ["{self.feeds}"]\n'
            f'[curve]\nkey = "{folder}/keys/central.key_secret"\nclients = "{folder}/clients"\n',
            encoding="utf-8",
        )
        self.config = config.load(str(path))
        self.loop = Loop()
        self.context = zmq.Context()
        self.parts = []
        self.cost = 1
        self.beyond = Beyond(self.loop, self.config, self.answer)

    def answer(self, request):
        return [b"head", request[::-1]], self.cost

    def authorize(self, name):
        keys.authorize(f"{self.folder}/keys/{name}.key", self.folder / "clients")

    def revoke(self, name):
        keys.revoke(name, self.folder / "clients")

    def pair(self, name):
        return load_pair(f"{self.folder}/keys/{name}.key_secret", "key")

    def public(self, name="central"):
        return load_public(f"{self.folder}/keys/{name}.key", "server")

    def socket(self, kind, endpoint, name="desk", server="central", prefixes=()):
        sock = self.context.socket(kind)
        sock.set(zmq.LINGER, 0)
        sock.set(zmq.RECONNECT_IVL, 20)
        if name:
            pair = self.pair(name)
            sock.set(zmq.CURVE_PUBLICKEY, z85.encode(pair.public))
            sock.set(zmq.CURVE_SECRETKEY, z85.encode(pair.secret))
            sock.set(zmq.CURVE_SERVERKEY, z85.encode(self.public(server)))
        for prefix in prefixes:
            sock.subscribe(prefix)
        sock.connect(endpoint)
        return sock

    def subscriber(self, *prefixes, **settings):
        return self.socket(zmq.SUB, self.ticks, prefixes=prefixes, **settings)

    def turn(self):
        self.beyond.on_time()
        self.loop.run_once(self.beyond.wait_s(0.01))

    def until(self, condition):
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, "it never came true"
            self.turn()

    def settle(self, seconds=0.3):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.turn()

    def receive(self, sock, count=1):
        messages = []

        def take():
            while len(messages) < count and sock.poll(0):
                messages.append(sock.recv())
            return len(messages) >= count

        self.until(take)
        return messages

    def close(self):
        for part in self.parts:
            part.close()
        self.beyond.close()
        self.loop.close()
        self.context.destroy(linger=0)


@pytest.fixture
def world(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "HANDSHAKE_MS", 300)
    monkeypatch.setattr(keys, "LOOK_EVERY_S", 0.05)
    monkeypatch.setattr(beyond, "LOOK_EVERY_S", 0.05)
    for each in beyond.log.filters:
        each.forget()
    world = World(tmp_path)
    yield world
    world.close()


def flagged(message):
    record = wire.unpack(message)
    return record.sequence, bool(record.flags & wire.SNAPSHOT)


def test_a_key_that_is_authorized_gets_last_values_and_then_what_is_sent(world):
    stream = world.beyond.stream
    stream.send(ticker(BTC, 7))
    stream.send(ticker(ETH, 3))
    sub = world.subscriber(b"ticker.binance.BTC")
    assert list(map(flagged, world.receive(sub))) == [(7, True)]
    stream.send(ticker(ETH, 4))
    stream.send(ticker(BTC, 8))
    assert world.receive(sub) == [ticker(BTC, 8)]
    assert world.beyond.subscribers == 1


def test_who_is_there_already_gets_last_values_again_that_are_no_gap(world):
    """An XPUB sends to all, so what is repeated must not be newer than what was sent."""
    stream = world.beyond.stream
    first = world.subscriber(b"ticker.")
    world.until(lambda: first.poll(0) or stream.joins == 1)
    stream.send(ticker(BTC, 1))
    assert world.receive(first) == [ticker(BTC, 1)]
    second = world.subscriber(b"ticker.")
    assert list(map(flagged, world.receive(second))) == [(1, True)]
    stream.send(ticker(BTC, 2))
    seen = []
    while (2, False) not in seen:
        seen += map(flagged, world.receive(first))
    assert set(seen) == {(1, True), (2, False)}
    stream.forget()  # the merger has gone
    third = world.subscriber(b"ticker.")
    world.until(lambda: third.poll(0) or stream.joins == 3)
    world.settle()
    assert not third.poll(0)


@pytest.mark.parametrize(
    ("name", "server"),
    [("late", "central"), ("desk", "late"), ("", "")],
    ids=["a key that is not authorized", "another server's key", "no key"],
)
def test_who_may_not_connect_gets_nothing_and_is_told_of_once(world, name, server, caplog):
    world.beyond.stream.send(ticker(BTC, 1))
    stranger = world.subscriber(b"", name=name, server=server)
    guest = world.subscriber(b"")
    world.receive(guest)
    world.until(lambda: world.beyond.strangers >= (2 if name else 1))  # without a key libzmq gives up
    world.beyond.stream.send(ticker(BTC, 2))
    world.receive(guest)
    world.settle()
    assert not stranger.poll(0)
    told = [line for line in caplog.messages if "ended in its handshake" in line]
    assert len(told) == 1, "it knocks again and again"
    not_authorized = [line for line in caplog.messages if "is not authorized (`feedhandler" in line]
    assert len(not_authorized) == (name == "late")


def test_a_key_that_is_added_is_let_in_and_one_that_is_withdrawn_is_thrown_out(world, caplog):
    stream = world.beyond.stream
    stream.send(ticker(BTC, 1))
    desk, late = world.subscriber(b""), world.subscriber(b"", name="late")
    world.receive(desk)
    world.until(lambda: world.beyond.strangers)
    world.authorize("late")
    world.receive(late)  # the same socket: it has tried again
    world.revoke("desk")
    world.until(lambda: any("made anew" in line for line in caplog.messages))
    stream.send(ticker(BTC, 2))
    world.until(lambda: late.poll(0) and flagged(late.recv()) == (2, True))
    while desk.poll(0):
        desk.recv()
    stream.send(ticker(BTC, 3))
    world.until(lambda: late.poll(0) and flagged(late.recv()) == (3, False))
    world.settle()
    assert not desk.poll(0)


@pytest.mark.long
def test_connections_that_say_nothing_keep_nobody_out_and_are_ended(world):
    world.beyond.stream.send(ticker(BTC, 1))
    port = int(world.ticks.rpartition(":")[2])
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(200)]
    sub = world.subscriber(b"")
    assert list(map(flagged, world.receive(sub))) == [(1, True)]
    world.until(lambda: world.beyond.strangers == len(silent) and world.beyond.subscribers == 1)
    for each in silent:
        each.close()


def test_a_kind_that_keeps_every_record_has_no_last_value_but_its_condition(world, monkeypatch):
    every = msgspec.structs.replace(BY_CODE[wire.TICKER], retention=Retention.EVERY)
    monkeypatch.setitem(BY_CODE, wire.TICKER, every)
    stream = world.beyond.stream
    down = wire.pack(wire.Condition(wire.unpadded(BTC), flags=wire.DOWN, sequence=1))
    stream.send(ticker(BTC, 1))
    stream.send(down)
    stream.send(ticker(ETH, 1))
    sub = world.subscriber(b"")
    (first,) = world.receive(sub)
    assert first[: wire.TOPIC_SIZE] == BTC
    assert wire.unpack(first).flags == wire.DOWN | wire.SNAPSHOT
    stream.send(ticker(BTC, 2))  # up again
    world.receive(sub)
    other = world.subscriber(b"")
    world.until(lambda: other.poll(0) or world.beyond.stream.joins == 2)
    world.settle()
    assert not other.poll(0)
    assert not sub.poll(0)


@pytest.mark.long
def test_last_values_for_those_who_join_and_leave_are_so_many_a_second(world, monkeypatch):
    stream = world.beyond.stream
    sent = []
    monkeypatch.setattr(beyond.retransmission, "replayed", lambda message: sent.append(message) or message)
    for number in range(2000):
        stream.send(ticker(wire.padded(f"ticker.binance.A{number}/USDT"), 1))
    now_s = time.monotonic()
    for turn in range(1000):  # ten seconds of it
        stream._on_parts([b"\x01ticker."])
        stream.on_time(now_s + turn / 100)
    assert 10 * beyond.REPLAY_RATE < len(sent) <= 11 * beyond.REPLAY_RATE + 500


def test_requests_are_answered_and_who_asks_too_much_waits(world):
    req = world.socket(zmq.REQ, world.recover)
    req.send(b"abc")
    world.until(lambda: req.poll(0))
    assert req.recv_multipart() == [b"head", b"cba"]
    world.cost = 30_000  # more than a second's worth
    dealer = world.socket(zmq.DEALER, world.recover)
    for _ in range(3):
        dealer.send_multipart([b"", b"x"])
    world.until(lambda: dealer.poll(0))
    assert world.beyond.answers.delays == 1
    assert world.beyond.answers.requests == 2
    world.settle(0.1)
    assert world.beyond.answers.requests == 2


def test_a_request_that_is_too_long_ends_its_connection_alone(world):
    long, good = world.socket(zmq.DEALER, world.recover), world.socket(zmq.REQ, world.recover)
    long.send_multipart([b"", bytes(1 << 17)])
    good.send(b"abc")
    world.until(lambda: good.poll(0))
    assert world.beyond.answers.requests == 1


class Merger:
    """The merger's end of the hop."""

    def __init__(self, world):
        self.received = []
        self._inlet = Inlet(
            world.loop,
            world.config.merger.feeds,
            lambda m: self.received.append(bytes(m)),
            key="merger.feeds",
        )
        self.close = self._inlet.close


def test_a_feed_of_another_host_reaches_the_merger_and_repeats_all_for_the_next_one(world):
    joined = []
    uplink = remote.Uplink(
        world.loop, world.feeds, lambda: joined.append(1), world.pair("near"), world.public()
    )
    world.parts.append(uplink)

    def have(count):
        def is_so():
            uplink.poll()
            return len(joined) >= count

        return is_so

    uplink.poll()
    world.settle()
    assert not joined, "there is no merger yet"
    merger = Merger(world)
    world.until(have(1))
    uplink.send(ticker(BTC, 1) + ticker(ETH, 1))
    world.until(lambda: merger.received)
    assert merger.received == [ticker(BTC, 1) + ticker(ETH, 1)]
    merger.close()
    world.settle()
    merger = Merger(world)
    world.until(have(2))
    uplink.send(ticker(BTC, 2))
    world.until(lambda: merger.received)
    merger.close()


def test_a_feed_without_a_key_that_may_connect_reaches_nobody(world, caplog):
    merger = Merger(world)
    joined = []
    uplink = remote.Uplink(
        world.loop, world.feeds, lambda: joined.append(1), world.pair("late"), world.public()
    )
    world.parts.append(uplink)
    uplink.poll()
    world.until(lambda: any("is our key authorized there" in line for line in caplog.messages))
    uplink.send(ticker(BTC, 1))
    world.settle()
    assert not joined
    assert not merger.received
    merger.close()


def test_an_address_that_is_taken_is_named_with_its_key(world):
    with pytest.raises(ConfigError, match=r"relay\.remote_ticks: cannot bind .*stop what holds it"):
        Beyond(world.loop, world.config, world.answer)


def test_the_documented_way_for_pyzmq_connects(world, monkeypatch):
    """The lines of docs/wire.md, as they stand."""
    text = (Path(__file__).parents[2] / "docs" / "wire.md").read_text(encoding="utf-8")
    lines = [line.strip() for line in text.splitlines() if line.startswith("    sub.curve_")]
    assert len(lines) == 2
    folder = world.folder / "keys"
    (folder / "desk.key_secret").rename(folder / "desk-3.key_secret")
    monkeypatch.chdir(folder)
    sub = world.context.socket(zmq.SUB)
    exec("\n".join(lines), {"sub": sub, "zmq": zmq})
    sub.subscribe(b"")
    sub.connect(world.ticks)
    world.beyond.stream.send(ticker(BTC, 1))
    assert list(map(flagged, world.receive(sub))) == [(1, True)]
    sub.close()


def test_requests_have_what_a_relay_answers(world):
    """A DEALER of our own client."""
    answers, ended = [], []
    dealer = remote.Dealer(
        world.loop,
        world.recover,
        answers.append,
        lambda: ended.append(1),
        world.pair("desk"),
        world.public(),
    )
    world.parts.append(dealer)
    world.until(dealer.poll)
    dealer.send(json.dumps({"topics": [""]}).encode())
    world.until(lambda: answers)
    assert answers[0][0] == b"head"
    world.beyond._close()
    world.until(lambda: ended)
    world.until(dealer.poll)


@pytest.mark.e2e
@pytest.mark.parametrize("module", ["client", "feed.process", "merger.process", "relay.process"])
def test_libzmq_is_loaded_for_other_hosts_alone(module):
    code = f"import sys, feedhandler.{module}; sys.exit('zmq' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
