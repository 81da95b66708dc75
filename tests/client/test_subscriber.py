"""The subscriber, with libzmq's publisher at the other end."""

import itertools
import threading
import time

import pytest
import zmq

from feedhandler import wire
from feedhandler.client import Subscriber

BTC = wire.topic(wire.TICKER, "binance", "BTC/USDT")


def ticker(sequence, session=100):
    return wire.pack_ticker(wire.Ticker(BTC, session=session, sequence=sequence))


class Publisher:
    """An XPUB that waits for its subscriber."""

    def __init__(self, endpoint):
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)
        self._socket.set(zmq.LINGER, 0)
        self._socket.bind(endpoint)

    def wait_for(self, subscriber, prefix):
        deadline = time.monotonic() + 5
        while not self._socket.poll(0):
            assert time.monotonic() < deadline, "nobody subscribed"
            assert subscriber.receive(0.01) is None
        assert self._socket.recv() == b"\x01" + prefix

    def send(self, *messages):
        for message in messages:
            self._socket.send(message)

    def close(self):
        self._context.destroy(linger=0)


@pytest.fixture
def endpoint(tmp_path):
    return f"ipc://{tmp_path}/ticks.ipc"


@pytest.mark.parametrize("spin_s", [0.0, 0.01])
def test_records_come_in_order_and_losses_are_known(endpoint, spin_s):
    publisher = Publisher(endpoint)
    with Subscriber(endpoint, ["ticker."], spin_s=spin_s) as subscriber:
        publisher.wait_for(subscriber, b"ticker.")
        publisher.send(ticker(1), ticker(2), ticker(2), ticker(5), b"ticker.junk")
        records = [subscriber.receive(5.0) for _ in range(3)]
        assert [record.sequence for record in records] == [1, 2, 5]
        assert subscriber.receive(0.05) is None
        assert (subscriber.lost, subscriber.losses[BTC].gaps, subscriber.undecodable) == (2, 1, 1)
    publisher.close()


def test_a_batch_is_iterated_record_by_record(endpoint):
    publisher = Publisher(endpoint)
    with Subscriber(endpoint) as subscriber:
        publisher.wait_for(subscriber, b"")
        publisher.send(ticker(1) + ticker(2) + ticker(3))
        assert [record.sequence for record in itertools.islice(subscriber, 3)] == [1, 2, 3]
    publisher.close()


def test_a_publisher_that_comes_late_or_again_is_found(endpoint):
    with Subscriber(endpoint, ["ticker."]) as subscriber:
        assert subscriber.receive(0.05) is None, "nobody is there yet"
        for session in (100, 101):
            publisher = Publisher(endpoint)
            publisher.wait_for(subscriber, b"ticker.")
            publisher.send(ticker(1, session))
            assert subscriber.receive(5.0).session == session
            publisher.close()


def test_a_timeout_is_kept_with_and_without_a_publisher(endpoint):
    with Subscriber(endpoint) as subscriber:
        started = time.monotonic()
        assert subscriber.receive(0.25) is None
        assert time.monotonic() - started >= 0.25
        assert subscriber.receive(0.0) is None


def test_other_threads_run_while_a_subscriber_waits(endpoint):
    with Subscriber(endpoint) as subscriber:
        counts = []
        thread = threading.Thread(target=lambda: counts.append(sum(range(1000))))
        thread.start()
        subscriber.receive(0.2)
        thread.join(5)
        assert counts == [499500]


@pytest.mark.parametrize("endpoint", ["", "tcp://", "tcp://localhost", "udp://127.0.0.1:5", "ipc://", "x"])
def test_what_is_no_endpoint_is_refused(endpoint):
    with pytest.raises(ValueError, match="is no endpoint"):
        Subscriber(endpoint)
