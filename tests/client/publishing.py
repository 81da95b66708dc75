"""Publishers for subscribers under test: libzmq's, and one that sends byte by byte."""

import socket
import time
from pathlib import Path

import msgspec
import zmq
import zmq.auth
from patience import PATIENCE_S

from feedhandler.data import wire
from feedhandler.data.status import Heartbeat
from feedhandler.transport import zmtp

BTC, ETH = (wire.topic(wire.TICKER, "binance", symbol) for symbol in ("BTC/USDT", "ETH/USDT"))


def ticker(sequence, session=100, topic=BTC, **fields):
    return wire.pack_ticker(wire.Ticker(topic, session=session, sequence=sequence, **fields))


def document(topic, kind, body, sequence=1):
    return wire.pack_document(wire.Document(topic, kind=kind, session=100, sequence=sequence, body=body))


def heartbeat(sequence=1, **states):
    body = Heartbeat(pid=1, started_ns=1, topics=0, records=0, records_per_s=0.0, exchanges=states)
    return document("heartbeat.merger", wire.HEARTBEAT, msgspec.json.encode(body), sequence)


def framed(*messages):
    return b"".join(zmtp.frame_head(len(message)) + message for message in messages)


class Publisher:
    """An XPUB of libzmq that waits for its subscriber."""

    def __init__(self, endpoint, server_key=None):
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.set(zmq.XPUB_VERBOSE, 1)  # a subscription that another had before is told as well
        self._socket.set(zmq.LINGER, 0)
        if server_key is not None:
            self._socket.set(zmq.CURVE_SERVER, 1)
            self._socket.set(zmq.CURVE_SECRETKEY, zmq.auth.load_certificate(server_key)[1])
        self._socket.bind(endpoint)
        self.endpoint = self._socket.get_string(zmq.LAST_ENDPOINT)
        self._deadline = time.monotonic() + PATIENCE_S

    def is_subscribed(self):
        """True once for each subscription to tickers; bounds who waits for one."""
        assert time.monotonic() < self._deadline, "nobody subscribed"
        while self._socket.poll(0):
            if self._socket.recv() == b"\x01ticker.":
                return True
        return False

    def wait_for(self, subscriber, prefix):
        deadline = time.monotonic() + PATIENCE_S
        while not self._socket.poll(0):
            assert time.monotonic() < deadline, "nobody subscribed"
            assert subscriber.receive(0.01) is None
        assert self._socket.recv() == b"\x01" + prefix

    def send(self, *messages):
        for message in messages:
            self._socket.send(message)

    def close(self):
        self._context.destroy(linger=0)


class RawPublisher:
    """One end of a connection; bytes leave when the test says so."""

    def __init__(self, endpoint):
        self._path = Path(endpoint.removeprefix("ipc://"))
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self._path))
        self._listener.listen(5)
        self._listener.settimeout(PATIENCE_S)
        self.sock = None

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()

    def accept(self):
        """Take the connection that was made, or is being made in another thread, and shake hands."""
        self.sock, _ = self._listener.accept()
        self.sock.settimeout(PATIENCE_S)
        self.send_bytes(zmtp.GREETING + zmtp.ready_frame(b"XPUB"))

    def send(self, *messages):
        self.send_bytes(framed(*messages))

    def send_bytes(self, data):
        self.sock.sendall(data)

    def heard(self):
        """Return what the subscriber has sent, so far."""
        self.sock.setblocking(False)
        return self.sock.recv(65536)

    def close(self):
        self._listener.close()
        self._path.unlink(missing_ok=True)
        if self.sock is not None:
            self.sock.close()
