"""Connections under CURVE, with libzmq at the other end, with each other, and with those who may not connect."""

import socket
import time
from pathlib import Path

import pytest
import zmq
import zmq.auth.base
from ends import BTC, ETH, ticker
from loopback import free_endpoint
from zmq.utils import z85

from feedhandler.transport import curve, keys, secure, zmtp
from feedhandler.transport.curve import KeyPair
from feedhandler.transport.router import Dealer, Router
from feedhandler.transport.secure import ClientSecurity, ServerSecurity


def key_pair():
    """As other people make them."""
    return KeyPair(*(z85.decode(key) for key in zmq.curve_keypair()))


SERVER, CLIENT, STRANGER = key_pair(), key_pair(), key_pair()


class Guests:
    def __init__(self, *keys):
        self.keys = {each.public for each in keys}

    def has(self, public_key):
        return public_key in self.keys


@pytest.fixture
def guests():
    return Guests(CLIENT)


@pytest.fixture
def server(guests):
    return ServerSecurity(SERVER, guests)


@pytest.fixture
def endpoint():
    return free_endpoint()


def outlet(world, endpoint, server, **settings):
    settings = {"queue_size_max": 1_000_000, **settings}
    made = zmtp.Outlet(world.loop, [endpoint], world, key="relay.ticks", security=server, **settings)
    world.parts.append(made)
    return made


def curve_socket(world, kind, endpoint, keys=CLIENT, server_key=SERVER.public, prefixes=()):
    sock = world.socket(kind)
    sock.set(zmq.CURVE_PUBLICKEY, z85.encode(keys.public))
    sock.set(zmq.CURVE_SECRETKEY, z85.encode(keys.secret))
    sock.set(zmq.CURVE_SERVERKEY, z85.encode(server_key))
    for prefix in prefixes:
        sock.set(zmq.SUBSCRIBE, prefix)
    sock.connect(endpoint)
    return sock


@pytest.mark.parametrize("size", [0, 1, 168, 255, 256, 70_000, 900_000])
def test_a_libzmq_subscriber_gets_its_snapshot_and_what_follows(world, endpoint, server, size):
    out = outlet(world, endpoint, server)
    world.snapshots = {BTC: BTC + b"old"}
    sub = curve_socket(world, zmq.SUB, endpoint, prefixes=[b"ticker."])
    assert world.receive(sub) == [BTC + b"old"]
    out.send(BTC, BTC + bytes(size))
    out.send(ETH, ticker(ETH))
    out.flush()
    assert world.receive(sub, 2) == [BTC + bytes(size), ticker(ETH)]
    sub.set(zmq.UNSUBSCRIBE, b"ticker.")
    world.until(lambda: not out.is_wanted)


def test_our_subscriber_hears_a_libzmq_publisher_and_sends_it_its_prefixes(world, endpoint):
    publisher = world.socket(zmq.XPUB)
    publisher.set(zmq.CURVE_SERVER, 1)
    publisher.set(zmq.CURVE_SECRETKEY, z85.encode(SERVER.secret))
    publisher.bind(endpoint)
    received = []
    downlink = zmtp.Downlink(
        world.loop,
        endpoint,
        [b"ticker."],
        lambda m: received.append(bytes(m)),
        security=ClientSecurity(CLIENT, SERVER.public),
    )
    world.parts.append(downlink)

    def is_subscribed():
        downlink.poll()
        return publisher.poll(0)

    world.until(is_subscribed)
    assert publisher.recv() == b"\x01ticker."
    for number in range(100):
        publisher.send(ticker(BTC, number))
    world.until(lambda: len(received) == 100)
    assert received == [ticker(BTC, number) for number in range(100)]


def test_our_uplink_and_inlet_and_our_router_and_dealer_understand_each_other(world, endpoint, server):
    received, answers = [], []
    client = ClientSecurity(CLIENT, SERVER.public)
    inlet = zmtp.Inlet(world.loop, endpoint, lambda m: received.append(bytes(m)), key="k", security=server)
    uplink = zmtp.Uplink(world.loop, endpoint, world._on_join, queue_size_max=1_000_000, security=client)
    router = Router(
        world.loop,
        [world.endpoint()],
        lambda r: ([b"head", r], 1),
        key="k",
        request_size_max=100,
        security=server,
    )
    dealer = Dealer(world.loop, world.endpoint(), answers.append, lambda: None, security=client)
    world.parts += [inlet, uplink, router, dealer]
    world.until_joined(uplink)
    uplink.send(ticker(BTC, 1) + ticker(ETH, 1))
    world.until(lambda: received)
    assert received == [ticker(BTC, 1) + ticker(ETH, 1)]
    world.until(lambda: dealer.poll() and dealer.is_ready)
    dealer.send(b"ask")
    world.until(lambda: answers)
    assert answers == [[b"head", b"ask"]]


def test_a_libzmq_req_is_answered(world, endpoint, server):
    router = Router(
        world.loop,
        [endpoint],
        lambda r: ([b"head", r[::-1]], 1),
        key="k",
        request_size_max=100,
        security=server,
    )
    world.parts.append(router)
    req = curve_socket(world, zmq.REQ, endpoint)
    req.send(b"abc")
    world.until(lambda: req.poll(0))
    assert req.recv_multipart() == [b"head", b"cba"]


def test_heartbeats_of_a_libzmq_subscriber_are_answered_boxed(world, endpoint, server):
    out = outlet(world, endpoint, server)
    sock = world.context.socket(zmq.SUB)
    for option, value in (
        (zmq.LINGER, 0),
        (zmq.HEARTBEAT_IVL, 50),
        (zmq.HEARTBEAT_TIMEOUT, 1000),
        (zmq.SUBSCRIBE, b""),
        (zmq.CURVE_PUBLICKEY, z85.encode(CLIENT.public)),
        (zmq.CURVE_SECRETKEY, z85.encode(CLIENT.secret)),
        (zmq.CURVE_SERVERKEY, z85.encode(SERVER.public)),
    ):
        sock.set(option, value)
    monitor = sock.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    sock.connect(endpoint)
    world.until(lambda: out.is_wanted)
    world.settle(1.3)
    assert not monitor.poll(0), "it was answered in time"
    sock.disable_monitor()


@pytest.mark.parametrize(
    ("keys", "server_key"),
    [(STRANGER, SERVER.public), (CLIENT, STRANGER.public)],
    ids=["a key that is not authorized", "another server's key"],
)
def test_who_may_not_connect_gets_nothing(world, endpoint, server, keys, server_key, caplog):
    out = outlet(world, endpoint, server)
    world.snapshots = {BTC: b"secret"}
    stranger = curve_socket(world, zmq.SUB, endpoint, keys, server_key, prefixes=[b""])
    guest = curve_socket(world, zmq.SUB, endpoint, prefixes=[b""])
    assert world.receive(guest) == [b"secret"]
    world.until(lambda: server.failures >= 3)
    assert server.unauthorized == (server.failures if keys is STRANGER else 0)
    assert len(caplog.messages) == 1, "it knocks again and again, and is told of once"
    out.send(BTC, b"more")
    out.flush()
    world.receive(guest)
    world.settle()
    assert not stranger.poll(0)


def test_without_curve_nothing_is_had_and_with_it_nothing_from_an_open_endpoint(world, endpoint, server):
    out = outlet(world, endpoint, server)
    world.snapshots = {BTC: b"secret"}
    plain = world.subscriber(b"", endpoint=endpoint)
    world.settle(0.2)
    assert not plain.poll(0)
    assert not out.is_wanted
    opened = world.outlet()
    insisting = curve_socket(world, zmq.SUB, world.endpoint(), prefixes=[b""])
    world.settle(0.2)
    assert not insisting.poll(0)
    assert not opened.is_wanted


def test_a_key_that_is_withdrawn_ends_its_connection_and_one_that_is_added_is_let_in(
    world, endpoint, server, guests
):
    out = outlet(world, endpoint, server)
    guest = curve_socket(world, zmq.SUB, endpoint, prefixes=[b""])
    late = curve_socket(world, zmq.SUB, endpoint, STRANGER, prefixes=[b""])
    world.until(lambda: out.is_wanted and server.unauthorized)
    world.snapshots = {BTC: b"hello"}
    guests.keys = {STRANGER.public}
    server.on_time()
    assert world.receive(late) == [b"hello"]
    out.send(BTC, b"more")
    out.flush()
    assert world.receive(late) == [b"more"]
    assert not guest.poll(0)


def test_nothing_readable_is_on_the_wire(world, endpoint, server):
    outlet(world, endpoint, server)
    world.snapshots = {BTC: ticker(BTC, 7)}
    port = int(endpoint.rpartition(":")[2])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sub = curve_socket(
            world, zmq.SUB, f"tcp://127.0.0.1:{listener.getsockname()[1]}", prefixes=[b"ticker."]
        )
        client, _ = listener.accept()
        inner = socket.create_connection(("127.0.0.1", port))
        seen = bytearray()

        def relay():
            for source, target in ((client, inner), (inner, client)):
                source.setblocking(False)
                try:
                    data = source.recv(65536)
                except BlockingIOError:
                    continue
                seen.extend(data)
                target.setblocking(True)
                target.sendall(data)
            return sub.poll(0)

        world.until(relay)
        assert sub.recv() == ticker(BTC, 7)
    for secret in (b"ticker", b"BTC", CLIENT.public, CLIENT.secret, SERVER.public, SERVER.secret):
        assert secret not in seen


def test_connections_that_never_prove_who_they_are_do_not_pile_up(world, endpoint, server, monkeypatch):
    monkeypatch.setattr(secure, "STRANGERS_MAX", 5)
    outlet(world, endpoint, server)
    port = int(endpoint.rpartition(":")[2])
    ends = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    world.snapshots = {BTC: b"hello"}
    guest = curve_socket(world, zmq.SUB, endpoint, prefixes=[b""])
    assert world.receive(guest) == [b"hello"]
    assert len(server._peers.open()) <= 6
    for end in ends:
        end.close()


def test_connecting_to_a_host_that_is_silent_holds_up_nobody(world):
    """The backlog of the listener is full: a connection stays under way."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(address)
        uplink = zmtp.Uplink(
            world.loop,
            f"tcp://127.0.0.1:{address[1]}",
            world._on_join,
            queue_size_max=1000,
            security=ClientSecurity(CLIENT, SERVER.public),
        )
        started = time.monotonic()
        for _ in range(50):
            uplink.poll()
            world.loop.run_once(0)
        assert time.monotonic() - started < zmtp.CONNECT_TIMEOUT_S
        uplink.close()
        for filler in fillers:
            filler.close()


def test_modes_work_under_curve_too(world, endpoint, server):
    out = outlet(world, endpoint, server, has_modes=True)
    sub = curve_socket(world, zmq.SUB, endpoint, prefixes=[b"@interval=60000", b"ticker."])
    world.receive(sub)
    world.until(lambda: out.is_wanted)
    out.on_time(time.monotonic_ns())
    for number in (1, 2, 3):
        out.send(BTC, ticker(BTC, number))
    out.on_time(time.monotonic_ns() + 1)
    assert world.receive(sub) == [ticker(BTC, 3)]


def test_the_documented_way_for_pyzmq_connects(world, endpoint, guests, tmp_path, monkeypatch):
    """The lines of docs/wire.md, as they stand."""
    text = (Path(__file__).parents[2] / "docs" / "wire.md").read_text(encoding="utf-8")
    lines = [line.strip() for line in text.splitlines() if line.startswith("    sub.curve_")]
    assert len(lines) == 2
    for name in ("desk-3", "merger"):
        keys.make(tmp_path, name)
    monkeypatch.chdir(tmp_path)
    theirs = ServerSecurity(keys.load_pair("merger.key_secret", "k"), guests)
    guests.keys = {keys.load_public("desk-3.key", "k")}
    outlet(world, endpoint, theirs)
    world.snapshots = {BTC: b"hello"}
    sub = world.socket(zmq.SUB)
    exec("\n".join(lines), {"sub": sub, "zmq": zmq})
    sub.set(zmq.SUBSCRIBE, b"")
    sub.connect(endpoint)
    assert world.receive(sub) == [b"hello"]


def test_keys_show_nothing_of_themselves():
    assert CLIENT.secret.hex() not in repr(CLIENT)
    assert str(CLIENT) == "KeyPair(…)"
    assert curve.transient().public != curve.transient().public
