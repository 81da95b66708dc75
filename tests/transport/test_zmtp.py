"""Our end of ZeroMQ's protocol, with libzmq at the other, and with peers that speak nonsense."""

import asyncio
import contextlib
import errno
import gc
import random
import socket
import stat
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import uvloop
import zmq
from ends import BTC, ETH, ticker
from loopback import free_endpoint
from patience import PATIENCE_S

from feedhandler.data import wire
from feedhandler.data.errors import ConfigError
from feedhandler.transport import endpoints, zmtp
from feedhandler.transport.endpoints import Listener
from feedhandler.transport.links import Downlink, Inlet, Uplink
from feedhandler.transport.loop import Loop
from feedhandler.transport.outlet import Outlet
from feedhandler.transport.subscribing import is_narrow


def test_a_subscriber_gets_its_snapshot_first_and_then_what_matches_in_order(world):
    world.snapshots = {BTC: BTC + b"old", ETH: ETH + b"old"}
    outlet = world.outlet()
    sock = world.subscriber(b"ticker.binance.BTC/USDT\0")
    world.until(lambda: outlet.is_wanted)
    for number in range(3):
        outlet.send(BTC, ticker(BTC, number))
        outlet.send(ETH, ticker(ETH, number))
    outlet.flush()
    snapshot, *records = world.receive(sock, 4)
    assert snapshot == BTC + b"old"
    assert [(wire.unpack(r).topic, wire.unpack(r).sequence) for r in records] == [
        (wire.unpadded(BTC), n) for n in range(3)
    ]


def test_a_snapshot_is_for_the_new_subscriber_alone(world):
    outlet = world.outlet()
    first = world.subscriber(b"")
    world.until(lambda: outlet.is_wanted)
    world.snapshots = {BTC: b"snapshot"}
    second = world.subscriber(b"")
    assert world.receive(second) == [b"snapshot"]
    assert not first.poll(50)


def test_over_tcp_as_over_ipc(world):
    endpoint = free_endpoint()
    outlet = world.outlet(endpoint)
    sock = world.subscriber(b"ticker.", endpoint=endpoint)
    world.until(lambda: outlet.is_wanted)
    outlet.send(BTC, ticker())
    outlet.flush()
    assert world.receive(sock) == [ticker()]


@pytest.mark.parametrize("size", [0, 1, 255, 256, 65_536, 3_000_000])
def test_messages_of_any_size_arrive_whole(world, size):
    outlet = world.outlet(queue_size_max=10_000_000)
    sock = world.subscriber(b"")
    world.snapshots = {b"": b"hello"}
    assert world.receive(sock) == [b"hello"]
    message = random.Random(size).randbytes(size)
    outlet.send(b"any", message)
    outlet.send(b"any", b"after")
    outlet.flush()
    assert world.receive(sock, 2) == [message, b"after"]


def test_is_wanted_follows_every_subscription_cancellation_and_end(world):
    outlet = world.outlet()
    status = world.subscriber(b"status.", b"heartbeat.")
    world.settle()
    assert not outlet.is_wanted, "nobody wants tickers"
    narrow, wide = world.subscriber(b"ticker.binance.B"), world.subscriber(b"")
    world.until(lambda: outlet.is_wanted)
    narrow.set(zmq.UNSUBSCRIBE, b"ticker.binance.B")
    world.settle()
    assert outlet.is_wanted
    wide.close()
    world.until(lambda: not outlet.is_wanted)
    narrow.set(zmq.SUBSCRIBE, b"tick")
    world.until(lambda: outlet.is_wanted)
    narrow.close()
    status.close()
    world.until(lambda: not outlet.is_wanted)


@pytest.mark.long
def test_one_that_does_not_read_loses_records_for_itself_alone(world):
    outlet = world.outlet(queue_size_max=100_000)
    slow, quick = world.subscriber(b"", RCVHWM=100), world.subscriber(b"")
    world.snapshots = {b"": b"hello"}
    assert world.receive(quick) == [b"hello"]
    world.receive(slow)
    count = 40_000
    seen = []
    for number in range(count):
        outlet.send(BTC, ticker(BTC, number))
        if number % 100 == 0:
            outlet.flush()
            world.loop.run_once(0)
            while quick.poll(0):
                seen.append(wire.unpack(quick.recv()).sequence)
    outlet.flush()
    seen += [wire.unpack(m).sequence for m in world.receive(quick, count - len(seen))]
    assert seen == list(range(count)), "the quick one has them all"
    late = [wire.unpack(message).sequence for message in world.drain(slow)]
    assert late == sorted(set(late)), "in order, once"
    assert 0 < len(late) < count, "the slow one has holes"
    outlet.send(BTC, ticker(BTC, count))
    outlet.flush()
    assert wire.unpack(world.receive(slow)[0]).sequence == count, "and goes on"


def test_a_narrow_subscription_at_a_batch_endpoint_brings_nothing_and_a_wide_one_everything(world):
    world.snapshots = {BTC: BTC + b"hello"}
    outlet = world.outlet(is_batched=True)
    narrow, wide = world.subscriber(BTC), world.subscriber(b"ticker.binance.")
    assert world.receive(wide) == [BTC + b"hello"]
    batch = ticker(BTC) + ticker(ETH)
    outlet.send(BTC, batch)
    outlet.flush()
    assert world.receive(wide) == [batch]
    assert not narrow.poll(50)


@pytest.mark.parametrize("prefix", [b"", b"t", b"ticker.", b"ticker.bin", b"ticker.binance.", b"status."])
def test_a_prefix_up_to_an_exchange_is_wide(prefix):
    assert not is_narrow(prefix)


@pytest.mark.parametrize("prefix", [b"ticker.binance.B", b"ticker.binance.BTC/USDT\0", b"ticker.a.b.c."])
def test_a_prefix_with_a_symbol_is_narrow(prefix):
    assert is_narrow(prefix)


def test_libzmq_publishers_are_heard_and_may_go_and_come(world):
    world.inlet()
    for round_ in range(2):
        feed = world.socket(zmq.XPUB)
        feed.connect(world.endpoint())
        world.until(lambda feed=feed: feed.poll(0))
        assert feed.recv() == b"\x01", "we subscribe to everything"
        feed.send(b"hello %d" % round_)
        feed.send(bytes(1_000_000))
        feed.send(b"bye %d" % round_)
        world.until(lambda n=3 * round_ + 3: len(world.received) >= n)
        feed.close()
    assert [m for m in world.received if len(m) < 100] == [b"hello 0", b"bye 0", b"hello 1", b"bye 1"]


def test_a_libzmq_subscriber_hears_our_uplink_and_a_new_one_is_announced(world):
    uplink = world.uplink()
    uplink.poll()
    uplink.send(b"lost, by intention: nobody is there yet")
    for count in (1, 2):
        merger = world.socket(zmq.SUB)
        merger.set(zmq.SUBSCRIBE, b"")
        merger.bind(world.endpoint())
        world.until_joined(uplink, merger, count)
        uplink.send(b"x" * 300)
        assert world.receive(merger) == [b"x" * 300]
        merger.close()
        world.settle()


def test_our_uplink_and_our_inlet_understand_each_other(world):
    world.inlet()
    uplink = world.uplink()
    world.until_joined(uplink)
    for number in range(1000):
        uplink.send(b"%d" % number * 50)
    world.until(lambda: len(world.received) == 1000)
    assert world.received == [b"%d" % number * 50 for number in range(1000)]


@pytest.mark.long
def test_a_merger_that_does_not_read_costs_messages_and_no_time(world):
    uplink = world.uplink(queue_size_max=100_000)
    merger = world.socket(zmq.SUB, RCVHWM=1)
    merger.set(zmq.SUBSCRIBE, b"")
    merger.bind(world.endpoint())
    world.until_joined(uplink, merger)
    for number in range(30_000):
        uplink.send(b"%08d" % number * 21)
    numbers = [int(message[:8]) for message in world.drain(merger)]
    assert numbers == sorted(set(numbers))
    assert 0 < len(numbers) < 30_000
    uplink.send(b"99999999")
    assert world.receive(merger) == [b"99999999"]


def test_that_messages_were_dropped_is_told_once_and_when_there_is_room_again(world):
    uplink = world.uplink(queue_size_max=100_000)
    merger = world.socket(zmq.SUB, RCVHWM=1)
    merger.set(zmq.SUBSCRIBE, b"")
    merger.bind(world.endpoint())
    world.until_joined(uplink, merger)
    uplink.send(b"x" * wire.TICKER_SIZE)
    assert not uplink.take_loss(), "nothing was dropped"
    for number in range(30_000):
        uplink.send(b"%08d" % number * 21)
    assert not uplink.take_loss(), "the queue is full"
    world.drain(merger)
    assert uplink.take_loss()
    assert not uplink.take_loss()


@pytest.mark.parametrize(
    "nonsense",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + bytes(64),
        zmtp.GREETING.replace(b"NULL", b"CURV"),
        zmtp.GREETING.replace(b"\x03\x00NULL", b"\x02\x00NULL"),
        zmtp.GREETING + b"\x02" + b"\xff" * 8,
        zmtp.GREETING + b"\x00\x01\x01",  # a message before READY
        zmtp.GREETING + b"\x04\x06\x05READY",  # of no socket type
        zmtp.GREETING + b"\x04\x18\x05READY\x0bSocket-Type\x00\x00\x00\xffXX",
        zmtp.GREETING + b"\x04\x00",
    ],
    ids=["http", "curve", "zmtp2", "huge", "early", "typeless", "broken", "empty"],
)
@pytest.mark.parametrize("end", ["outlet", "inlet"])
def test_a_peer_that_speaks_nonsense_is_cut_off_and_harms_nobody(world, end, nonsense):
    getattr(world, end)()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(world.endpoint().removeprefix("ipc://"))
        sock.setblocking(False)
        sock.sendall(nonsense)

        def is_cut_off():
            try:
                return sock.recv(1000) == b""
            except BlockingIOError:
                return False
            except ConnectionError:
                return True

        world.until(is_cut_off)


@pytest.mark.parametrize("seed", range(40))
def test_any_bytes_and_any_cut_leave_the_outlet_running(world, seed):
    rng = random.Random(seed)
    outlet = world.outlet()
    good = zmtp.GREETING + b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB" + b"\x00\x08\x01ticker."
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(world.endpoint().removeprefix("ipc://"))
        data = bytearray(good)
        if seed % 2:
            data[rng.randrange(len(data))] = rng.randrange(256)
        for start in range(0, len(data), size := rng.randrange(1, 30)):
            try:
                sock.sendall(data[start : start + size])
            except OSError:
                break
            world.loop.run_once(0.01)
        if seed % 2:
            world.settle(0.02)
        else:
            world.until(lambda: outlet.is_wanted)  # however it was cut
        outlet.send(BTC, ticker())
        outlet.flush()
    world.until(lambda: not outlet.is_wanted)
    sock = world.subscriber(b"ticker.")
    world.until(lambda: outlet.is_wanted)
    outlet.send(BTC, ticker())
    outlet.flush()
    assert world.receive(sock) == [ticker()]


@pytest.mark.long
def test_heartbeats_of_a_libzmq_subscriber_are_answered(world):
    outlet = world.outlet()
    sock = world.subscriber(b"ticker.", HEARTBEAT_IVL=50, HEARTBEAT_TIMEOUT=1000, HEARTBEAT_TTL=1000)
    monitor = sock.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    world.until(lambda: outlet.is_wanted)
    world.settle(1.3)
    assert not monitor.poll(0), "it would have left"
    monitor.close()


def test_an_address_in_use_is_refused_with_the_key_and_the_remedy(world):
    world.outlet()
    with pytest.raises(ConfigError, match=r"merger\.ticks: .* in use .* configure another address"):
        world.outlet()


def test_the_socket_file_of_a_killed_predecessor_is_taken_over(world):
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(world.endpoint().removeprefix("ipc://"))
    dead.close()
    outlet = world.outlet()
    sock = world.subscriber(b"ticker.")
    world.until(lambda: outlet.is_wanted)
    sock.close()


def test_driven_by_uvloop_as_by_our_own_loop(tmp_path):
    endpoint, received = f"ipc://{tmp_path}/x", []
    message = bytes(1_000_000)

    async def talk():
        loop = asyncio.get_running_loop()
        last = SimpleNamespace(topics=lambda prefix: [BTC], last=lambda topic: b"old")
        outlet = Outlet(loop, [endpoint], last, key="x", queue_size_max=1 << 30)
        downlink = Downlink(loop, endpoint, [b""], lambda m: received.append(bytes(m)))
        async with asyncio.timeout(PATIENCE_S):
            while not outlet.is_wanted:
                downlink.poll()
                await asyncio.sleep(0.001)
            for _ in range(20):
                outlet.send(BTC, message)  # more than the kernel takes at once
            outlet.flush()
            while len(received) < 21:
                await asyncio.sleep(0.001)
        downlink.close()
        outlet.close()

    uvloop.run(talk())
    assert received == [b"old"] + 20 * [message]


def test_a_callback_may_close_the_connection_whose_messages_it_gets(world):
    uplink = world.uplink()
    inlet = Inlet(world.loop, world.endpoint(), lambda m: on_message(m), key="merger.feeds")
    kept = []

    def on_message(message):
        kept.append(message)
        inlet.close()

    world.until_joined(uplink)
    for _ in range(100):
        uplink.send(b"x" * 1000)
    world.until(lambda: kept)
    world.settle(0.02)
    assert [bytes(message) for message in kept] == [b"x" * 1000], "what is kept too long is no freed memory"


READY = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB"


def request(prefix, kind=1):
    return bytes((0, 1 + len(prefix), kind)) + prefix


def raw_subscriber(world, outlet, endpoint):
    """A subscriber without a library, that reads nothing unless the test does."""
    family, address = endpoints.address_of(endpoint)
    sock = socket.socket(family)
    sock.connect(address)
    sock.sendall(zmtp.GREETING + READY + request(b"ticker."))
    world.until(lambda: outlet.is_wanted)
    return sock


@pytest.mark.parametrize("scheme", ["ipc", "tcp"])
def test_a_subscriber_that_does_not_read_and_then_dies_takes_nobody_along(world, scheme):
    endpoint = world.endpoint() if scheme == "ipc" else free_endpoint()
    outlet = world.outlet(endpoint)
    sock = raw_subscriber(world, outlet, endpoint)
    for number in range(60_000):
        outlet.send(BTC, ticker(BTC, number))
        outlet.flush()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
    sock.close()
    world.until(lambda: not outlet.is_wanted)
    other = world.subscriber(b"ticker.", endpoint=endpoint)
    world.until(lambda: outlet.is_wanted)
    outlet.send(BTC, ticker())
    outlet.flush()
    assert world.receive(other) == [ticker()]


def test_thousands_of_exact_subscriptions_cost_little_and_each_hears_its_own(world):
    topics = [wire.padded(wire.topic(wire.TICKER, "binance", f"S{n}/USDT")) for n in range(5000)]
    outlet = world.outlet()
    last = max(topics[::2])  # libzmq sends them in the order of its trie
    world.snapshots = {last: last}
    sock = world.subscriber(*topics[::2], SNDHWM=0)  # libzmq drops its own requests beyond 1,000
    assert world.receive(sock) == [last], "the last of them is known"
    started = time.process_time()
    for _ in range(3):
        other = world.subscriber(b"status.")
        world.settle(0.05)
        for topic in topics:
            outlet.send(topic, topic)
        outlet.flush()
        other.close()
        world.settle(0.05)
    print("CPU seconds:", time.process_time() - started)
    assert time.process_time() - started < 5.0, "not the product of topics and prefixes"
    assert world.receive(sock, 7500) == topics[::2] * 3


@pytest.mark.long
def test_one_that_goes_on_subscribing_without_reading_is_not_read_and_gets_it_all_when_it_reads(world):
    """Neither its queue nor what it asks piles up here: that waits in its own kernel's buffer."""
    outlet = world.outlet()
    world.snapshots = {BTC: ticker(BTC)}
    sock = raw_subscriber(world, outlet, world.endpoint())
    sock.setblocking(False)
    asked = number = 0
    rest, refused = b"", 0
    while refused < 100:  # turns of the loop in a row in which nothing was taken from it
        if not rest:
            rest, number = request(b"ticker.binance.BTC", number % 2 ^ 1), number + 1
            asked += number % 2
        try:
            rest, refused = rest[sock.send(rest) :], 0
        except BlockingIOError:
            refused += 1
        world.loop.run_once(0.001)
    assert number > 1000, "libzmq may send so many before it reads"
    other = world.subscriber(b"ticker.")
    assert world.receive(other) == [ticker(BTC)]
    received = 0

    def has_all():
        nonlocal received
        with contextlib.suppress(BlockingIOError):
            received += len(sock.recv(1 << 20))
        return received >= (asked - bool(rest)) * len(ticker(BTC))

    world.until(has_all)


def test_a_peer_that_is_gone_before_it_is_greeted_is_forgotten(world):
    world.outlet()
    inlet_or_outlet_address = world.endpoint().removeprefix("ipc://")
    for _ in range(50):
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(inlet_or_outlet_address)
        world.loop.run_once(0.01)
    sock = world.subscriber(b"ticker.")
    world.until(lambda: world.parts[0].is_wanted)
    sock.close()


def test_an_uplink_survives_a_merger_that_dies_between_connection_and_greeting(world):
    uplink = world.uplink()
    for _ in range(20):
        with socket.socket(socket.AF_UNIX) as dying:
            dying.bind(world.endpoint().removeprefix("ipc://"))
            dying.listen()
            uplink.poll()
        world.loop.run_once(0.01)
        Path(world.endpoint().removeprefix("ipc://")).unlink()
    assert not world.joined
    world.inlet()
    world.until_joined(uplink)


def test_what_is_sent_when_a_merger_joins_is_the_first_that_it_gets(world):
    world.inlet()
    uplink = Uplink(world.loop, world.endpoint(), lambda: uplink.send(b"who I am"), queue_size_max=1_000_000)
    world.parts.append(uplink)

    def send():
        uplink.poll()
        uplink.send(b"record")
        return len(world.received) > 3

    world.until(send)
    assert world.received.index(b"who I am") == 0
    assert world.received.count(b"who I am") == 1


def test_a_merger_that_subscribes_again_and_again_is_announced_once(world):
    uplink = world.uplink()
    merger = world.socket(zmq.SUB)
    merger.set(zmq.SUBSCRIBE, b"")
    merger.bind(world.endpoint())
    world.until_joined(uplink, merger)
    for number in range(100):
        merger.set(zmq.SUBSCRIBE, b"%d" % number)
        merger.poll(0)
    world.settle()
    assert world.joined == 1


def test_a_file_that_is_no_socket_is_left_alone_and_named(world):
    path = Path(world.endpoint().removeprefix("ipc://"))
    path.write_text("precious")
    with pytest.raises(ConfigError, match=r"merger\.ticks: .* no socket; configure another address"):
        world.outlet()
    assert path.read_text() == "precious"


@pytest.mark.parametrize("endpoint", ["tcp://*:5555", "tcp://[::1]:5555", "ipc://" + "x" * 108, "tcp://a:0"])
def test_an_endpoint_that_can_never_work_is_refused(endpoint):
    with pytest.raises(ValueError, match="is no endpoint"):
        endpoints.address_of(endpoint)


def half_open(world, count):
    """Connections that never say a word, or stop in the middle of their greeting."""
    socks = []
    for number in range(count):
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(world.endpoint().removeprefix("ipc://"))
        sock.sendall(zmtp.GREETING[: number % 2 * 20])
        sock.setblocking(False)
        socks.append(sock)
        world.loop.run_once(0)
    return socks


def is_closed(sock):
    try:
        while sock.recv(1000):
            pass
    except BlockingIOError:
        return False
    except ConnectionError:
        pass
    return True


@pytest.mark.parametrize("end", ["outlet", "inlet"])
def test_connections_that_say_nothing_are_closed_in_time_although_nobody_else_comes(world, end, monkeypatch):
    monkeypatch.setattr(endpoints, "HANDSHAKE_S", 0.2)
    getattr(world, end)()
    socks = half_open(world, 50)
    assert not any(map(is_closed, socks)), "they have their time"
    world.until(lambda: all(map(is_closed, socks)))


def test_a_peer_that_is_ready_in_time_stays_however_long_it_says_nothing_more(world, monkeypatch):
    monkeypatch.setattr(endpoints, "HANDSHAKE_S", 0.1)
    outlet = world.outlet()
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(world.endpoint().removeprefix("ipc://"))
        sock.sendall(zmtp.GREETING + READY)
        sock.setblocking(False)
        world.settle(0.5)
        assert not is_closed(sock)
        sock.sendall(request(b"ticker."))
        world.until(lambda: outlet.is_wanted)


def test_a_loop_calls_back_when_it_is_time_and_not_what_was_called_off():
    loop, called = Loop(), []
    loop.call_later(0.05, lambda: called.append("second"))
    loop.call_later(
        0.0, lambda: (called.append("first"), loop.call_later(0.1, lambda: called.append("third")))
    )
    loop.call_later(0.02, lambda: called.append("never")).cancel()
    started = time.monotonic()
    while len(called) < 3:
        loop.run_once(PATIENCE_S)
        assert time.monotonic() - started < PATIENCE_S, "it sleeps past what is due"
    assert called == ["first", "second", "third"]
    assert time.monotonic() - started >= 0.1
    loop.run_until(time.monotonic_ns() + 1_000_000)
    assert called == ["first", "second", "third"]
    loop.close()


@pytest.mark.parametrize("is_patient", [False, True])
def test_one_that_connects_without_a_descriptor_goes_on_and_tries_again(
    world, monkeypatch, caplog, is_patient
):
    def refuse(*_):
        raise OSError(errno.EMFILE, "Too many open files")

    world.outlet()
    downlink = Downlink(world.loop, world.endpoint(), [b""], lambda message: None, is_patient=is_patient)
    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", refuse)
        assert not downlink.poll()
    assert "no connection can be made: Too many open files" in caplog.text
    world.until(downlink.poll)
    downlink.close()


class Hand:
    """Events by hand: one reader, one timer."""

    def __init__(self):
        self.reader = self.due = None

    def add_reader(self, fd, callback):
        assert self.reader is None
        self.reader = callback

    def remove_reader(self, fd):
        assert self.reader is not None
        self.reader = None

    def call_later(self, delay, callback):
        assert self.due is None
        assert delay > 0
        self.due = callback
        return self

    def cancel(self):
        self.due = None


def test_more_connections_than_the_budget_has_wait_in_the_kernel(tmp_path, monkeypatch):
    monkeypatch.setattr(endpoints, "ACCEPTS_PER_S", 0.001)
    monkeypatch.setattr(endpoints, "ACCEPTS_BURST_S", 3000.0)
    events, accepted = Hand(), []
    listener = Listener(events, [f"ipc://{tmp_path}/x.ipc"], accepted.append, "merger.ticks")
    clients = [endpoints.connected(f"ipc://{tmp_path}/x.ipc") for _ in range(6)]
    while events.reader is not None:
        events.reader()
    assert len(accepted) == 4, "three, and one on credit"
    due, events.due = events.due, None
    due()
    events.reader()
    assert len(accepted) == 5
    assert events.reader is None
    listener.close()
    assert events.due is None
    for sock in (*clients, *accepted):
        sock.close()


def test_a_socket_whose_file_is_gone_is_bound_anew_and_connections_stay(world):
    world.snapshots = {BTC: BTC + b"old"}
    outlet = world.outlet()
    old = world.subscriber(b"")
    assert world.receive(old) == [BTC + b"old"]
    path = world.path / "x.ipc"
    for remove in (path.unlink, lambda: path.rename(world.path / "y")):
        remove()
        outlet.look()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    new = world.subscriber(b"")
    assert world.receive(new) == [BTC + b"old"]
    outlet.send(BTC, ticker())
    outlet.flush()
    for each in (old, new):
        assert world.receive(each) == [ticker()]


def test_an_address_that_another_process_has_taken_over_is_left_to_it(world):
    outlet = world.outlet()
    (world.path / "x.ipc").unlink()
    with socket.socket(socket.AF_UNIX) as thief:
        thief.bind(str(world.path / "x.ipc"))
        thief.listen()
        with pytest.raises(ConfigError, match=r"merger.ticks: .* is in use by another process"):
            outlet.look()
    outlet.close()
    assert (world.path / "x.ipc").exists(), "it is not ours to remove"


@pytest.mark.long
def test_a_connection_that_has_ended_leaves_nothing_to_the_garbage_collector(world):
    """What is old is kept out of its rounds, and a cycle among that would stay for good."""
    world.snapshots = {BTC: BTC + b"old"}
    outlet = world.outlet()

    def come_and_go():
        socks = [endpoints.connected(world.endpoint()) for _ in range(5)]
        for sock in socks:
            sock.sendall(zmtp.GREETING + READY + request(b"") + request(b"ticker.") + request(b"@latest"))
        world.until(lambda: outlet.is_wanted)
        world.settle()
        for sock in socks:
            sock.close()
        world.until(lambda: not outlet.is_wanted)
        world.settle()

    come_and_go()
    gc.collect()
    gc.disable()
    try:
        come_and_go()
        assert gc.collect() == 0
    finally:
        gc.enable()
