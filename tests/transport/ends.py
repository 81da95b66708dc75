"""Our sockets in a loop of ours, and libzmq's outside: what tests of the sockets share."""

import contextlib
import socket
import time
from collections.abc import Callable

import zmq
from patience import PATIENCE_S

from feedhandler.data import wire
from feedhandler.transport.links import Inlet, Uplink
from feedhandler.transport.loop import Loop
from feedhandler.transport.outlet import Outlet

QUIET_TURNS = (
    300  # of the loop, a millisecond each: who is not given a processor sees time pass, and no turns
)

BTC, ETH = (wire.padded(wire.topic(wire.TICKER, "binance", s)) for s in ("BTC/USDT", "ETH/USDT"))


def ticker(topic=BTC, sequence=1):
    return wire.pack_ticker(wire.Ticker(wire.unpadded(topic), sequence=sequence))


class World:
    """Our loop, an outlet or inlet in it, and libzmq's sockets outside."""

    def __init__(self, tmp_path):
        self.path = tmp_path
        self.loop = Loop()
        self.context = zmq.Context()
        self.snapshots = {}
        self.received = []
        self.joined = 0  # how many subscribers the uplink has announced
        self.parts = []

    def endpoint(self, name="x"):
        return f"ipc://{self.path}/{name}.ipc"

    def outlet(self, endpoint=None, **settings):
        settings = {"queue_size_max": 1_000_000, **settings}
        outlet = Outlet(self.loop, [endpoint or self.endpoint()], self, key="merger.ticks", **settings)
        self.parts.append(outlet)
        return outlet

    def inlet(self):
        inlet = Inlet(
            self.loop, self.endpoint(), lambda m: self.received.append(bytes(m)), key="merger.feeds"
        )
        self.parts.append(inlet)
        return inlet

    def uplink(self, **settings):
        settings = {"queue_size_max": 1_000_000, **settings}
        uplink = Uplink(self.loop, self.endpoint(), self._on_join, **settings)
        self.parts.append(uplink)
        return uplink

    def _on_join(self):
        self.joined += 1

    def until_joined(self, uplink, merger=None, count=1):
        """Let the uplink connect until so many subscribers have joined; libzmq's subscribe when they are called."""

        def is_joined():
            uplink.poll()
            if merger is not None:
                merger.poll(0)
            return self.joined == count

        self.until(is_joined)

    def topics(self, prefix):
        return sorted(topic for topic in self.snapshots if topic.startswith(prefix))

    def last(self, topic):
        return self.snapshots[topic]

    def socket(self, kind, **options):
        sock = self.context.socket(kind)
        sock.set(zmq.LINGER, 0)
        for name, value in options.items():
            sock.set(getattr(zmq, name), value)
        return sock

    def subscriber(self, *prefixes, endpoint=None, **options):
        sock = self.socket(zmq.SUB, **options)
        for prefix in prefixes:
            sock.set(zmq.SUBSCRIBE, prefix)
        sock.connect(endpoint or self.endpoint())
        return sock

    def until(self, condition: Callable[[], object]):
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, "it never came true"
            self.loop.run_once(0.01)

    def receive(self, sock, count=1):
        messages = []

        def take():
            while len(messages) < count and sock.poll(0):
                messages.append(sock.recv())
            return len(messages) >= count

        self.until(take)
        return messages

    def drain(self, sock):
        """Read until nothing has come for a while."""
        messages = []
        quiet = 0
        while quiet < QUIET_TURNS:
            self.loop.run_once(0.001)
            quiet += 1
            while sock.poll(0):
                messages.append(sock.recv())
                quiet = 0
        return messages

    def settle(self, seconds=0.1):
        """Let so much time pass, for what is not to happen."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.loop.run_once(0.01)

    def close(self):
        for part in self.parts:
            part.close()
        self.loop.close()
        self.context.destroy(linger=0)


@contextlib.contextmanager
def black_hole():
    """An address that takes no SYN: its queue is full, and the kernel drops what comes."""
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.socket())
        listening.bind(("127.0.0.9", 0))
        listening.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listening.getsockname())
        yield listening.getsockname()
