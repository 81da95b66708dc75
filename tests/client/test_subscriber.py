"""The subscriber, with libzmq's publisher at the other end."""

import itertools
import socket
import sys
import threading
import time

import pytest
from patience import PATIENCE_S, wait_until
from publishing import BTC, ETH, Publisher, RawPublisher, document, framed, heartbeat, ticker

from feedhandler.client import Subscriber, exact
from feedhandler.client import subscriber as module
from feedhandler.client.stream import recover_endpoint
from feedhandler.data import wire


@pytest.mark.parametrize("spin_s", [0.0, 0.01])
def test_records_come_in_order_and_losses_are_known(endpoint, spin_s):
    publisher = Publisher(endpoint)
    with Subscriber(endpoint, ["ticker."], spin_s=spin_s) as subscriber:
        publisher.wait_for(subscriber, b"ticker.")
        publisher.send(ticker(1), ticker(2), ticker(2), ticker(5), b"ticker.junk")
        records = [subscriber.receive(PATIENCE_S) for _ in range(3)]
        assert [record.sequence for record in records] == [1, 2, 5]
        wait_until(
            lambda: subscriber.receive(0.05) is None and subscriber.undecodable, "the junk, and no record"
        )
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
            assert subscriber.receive(PATIENCE_S).session == session
            publisher.close()


def test_a_timeout_is_kept_with_and_without_a_publisher(endpoint):
    with Subscriber(endpoint) as subscriber:
        started = time.monotonic()
        assert subscriber.receive(0.25) is None
        assert time.monotonic() - started >= 0.25
        assert subscriber.receive(0.0) is None


@pytest.mark.parametrize("endpoint", ["", "tcp://", "tcp://localhost", "udp://127.0.0.1:5", "ipc://", "x"])
def test_what_is_no_endpoint_is_refused(endpoint):
    with pytest.raises(ValueError, match="is no ZeroMQ endpoint; write it like"):
        Subscriber(endpoint)


@pytest.mark.parametrize(
    ("topics", "error", "message"),
    [
        ("ticker.", TypeError, r"topics is a list of prefixes: write topics=\['ticker.'\]"),
        ([b"ticker."], TypeError, "which is no text"),
        ([], ValueError, "topics is empty"),
        (
            ["binance."],
            ValueError,
            "no topic begins with 'binance.': they begin with one of ticker., status.",
        ),
        (["@latest"], ValueError, "set by mode="),
        (["ticker." + "x" * 64], ValueError, "63 bytes at most"),
    ],
)
def test_topics_that_would_bring_nothing_are_refused(topics, error, message):
    with pytest.raises(error, match=message):
        Subscriber(topics=topics)


def test_topics_may_be_a_part_of_a_word_or_exact(endpoint):
    publisher = Publisher(endpoint)
    with Subscriber(endpoint, ["tick", exact("ticker.binance.BTC/USD")]) as subscriber:
        publisher.wait_for(subscriber, b"tick")
        publisher.wait_for(subscriber, b"ticker.binance.BTC/USD\0")
    publisher.close()
    assert exact(exact("ticker.x.A/B")) == "ticker.x.A/B\0"


@pytest.fixture
def raw(endpoint):
    """A subscriber to all tickers, and its publisher, byte by byte."""
    with RawPublisher(endpoint) as publisher, Subscriber(endpoint, ["ticker."]) as subscriber:
        subscriber.receive(0)
        publisher.accept()
        yield subscriber, publisher


def test_what_was_missed_is_counted_and_the_newest_comes_at_once(endpoint, tmp_path):
    with socket.socket(socket.AF_UNIX) as relay:
        relay.bind(str(tmp_path / "recover.ipc"))
        relay.listen()
        relay.setblocking(False)
        with RawPublisher(endpoint) as publisher, Subscriber(endpoint, ["ticker."]) as subscriber:
            subscriber.receive(0)
            publisher.accept()
            publisher.send(ticker(1), ticker(2), ticker(6), ticker(9))
            assert [subscriber.receive(PATIENCE_S).sequence for _ in range(4)] == [1, 2, 6, 9]
            loss = subscriber.losses[BTC]
            assert (subscriber.lost, loss.lost, loss.gaps, subscriber.recovered) == (5, 5, 2, 0)
            with pytest.raises(BlockingIOError):
                relay.accept()  # nobody asks


@pytest.mark.parametrize(
    ("endpoint", "where"),
    [
        ("ipc://run/ticks.ipc", "ipc://run/recover.ipc"),
        ("tcp://127.0.0.1:5555", "tcp://127.0.0.1:5556"),
        ("ipc://run/binance.ipc", None),
        ("tcp://127.0.0.1:65535", None),
    ],
)
def test_the_relay_is_beside_the_endpoint_or_has_to_be_named(endpoint, where):
    if where is not None:
        assert recover_endpoint(endpoint) == where
        return
    with pytest.raises(ValueError, match="write recover=ENDPOINT"):
        Subscriber(endpoint, recover=True)


@pytest.fixture
def no_forced_switches():
    """A thread that does not let others run by itself, goes on running."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(PATIENCE_S)
    yield
    sys.setswitchinterval(usual)


def test_other_threads_run_while_a_subscriber_waits(raw, no_forced_switches):
    """What it waits for is sent by one of them, after many turns that it has only because the waiting lets it."""
    subscriber, publisher = raw

    def send_in_a_while():
        for _ in range(200):
            time.sleep(0.001)
        publisher.send(ticker(1))

    thread = threading.Thread(target=send_in_a_while)
    thread.start()
    record = subscriber.receive(PATIENCE_S)
    thread.join()
    assert record is not None, "hardly anybody else ran until the time was up"


def test_many_are_received_at_once(raw):
    subscriber, publisher = raw
    publisher.send(*map(ticker, range(1, 8)))
    assert [r.sequence for r in subscriber.receive_many(3, PATIENCE_S)] == [1, 2, 3]
    assert [r.sequence for r in subscriber.receive_many(timeout_s=PATIENCE_S)] == [4, 5, 6, 7]
    assert subscriber.receive_many(timeout_s=0.0) == []
    with pytest.raises(ValueError, match="max_count is 0"):
        subscriber.receive_many(0)


def test_a_callback_gets_each_record_until_it_stops_or_time_is_up(raw):
    subscriber, publisher = raw
    seen = []

    def take(record):
        seen.append(record.sequence)
        if record.sequence == 3:
            subscriber.stop()

    publisher.send(*map(ticker, range(1, 6)))
    subscriber.run(take)
    assert seen == [1, 2, 3]
    subscriber.run(take, timeout_s=0.05)
    assert seen == [1, 2, 3, 4, 5]
    subscriber.stop()
    subscriber.run(take)
    assert seen == [1, 2, 3, 4, 5], "a stop before a run ends it"


def test_another_thread_may_stop_a_run(raw):
    subscriber, _ = raw
    threading.Timer(0.05, subscriber.stop).start()
    subscriber.run(lambda record: None)


def test_a_callback_that_raises_costs_no_other_record(raw):
    subscriber, publisher = raw
    publisher.send(ticker(1), ticker(2))

    def fail(record):
        raise LookupError(record.sequence)

    with pytest.raises(LookupError, match="1"):
        subscriber.run(fail)
    assert subscriber.receive(PATIENCE_S).sequence == 2


def test_waiting_for_topics_takes_nothing(raw):
    subscriber, publisher = raw
    publisher.send(ticker(1), ticker(2), ticker(1, topic=ETH))
    found = subscriber.wait_for(
        "ticker.binance.BTC/USDT", exact("ticker.binance.ETH/USDT"), timeout_s=PATIENCE_S
    )
    assert {topic: record.sequence for topic, record in found.items()} == {
        "ticker.binance.BTC/USDT": 2,
        "ticker.binance.ETH/USDT": 1,
    }
    assert len(subscriber.receive_many(timeout_s=0.0)) == 3
    assert subscriber.newest(BTC) is found["ticker.binance.BTC/USDT"], "also once it was returned"
    with pytest.raises(ValueError, match=r"'status.binance' is waited for and not subscribed to"):
        subscriber.wait_for("status.binance", timeout_s=0)


def test_one_that_waits_is_not_blind_with_records_that_wait(endpoint):
    """The spinning wait looks on although there is something to return."""
    with RawPublisher(endpoint) as publisher, Subscriber(endpoint, ["ticker."], spin_s=0.01) as subscriber:
        subscriber.receive(0)
        publisher.accept()
        publisher.send(ticker(1))
        subscriber.wait_for(BTC, timeout_s=PATIENCE_S)
        publisher.send(ticker(1, topic=ETH))
        subscriber.wait_for(BTC, ETH, timeout_s=PATIENCE_S)
        assert len(subscriber.receive_many()) == 2


def test_waiting_holds_no_more_than_the_newest_beyond_a_limit(raw, monkeypatch):
    monkeypatch.setattr(module, "PENDING_MAX", 5)
    subscriber, publisher = raw
    publisher.send(*map(ticker, range(1, 11)))
    with pytest.raises(TimeoutError):
        subscriber.wait_for(ETH, timeout_s=0.1)
    assert [record.sequence for record in subscriber.receive_many()] == [10]
    assert subscriber.lost == 9, "and says so"


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([], "ticker.binance.BTC/USDT: no record has come$"),
        ([ticker(1, flags=wire.DOWN)], r"its newest record is \['DOWN'\]$"),
        ([heartbeat(binance="connecting")], "no record has come; binance is connecting$"),
        ([heartbeat(kucoin="live")], "the merger knows of kucoin, and of no 'binance'$"),
        ([heartbeat(binance="live")], "is it wanted. `feedhandler subscribe binance BTC/USDT`$"),
        (
            [
                document(
                    "status.binance",
                    wire.STATUS,
                    b'{"exchange":"binance","state":"down","since_ns":1,"reason":"x"}',
                )
            ],
            "binance is down, x$",
        ),
        ([document("status.binance", wire.STATUS, b"no JSON")], "no record has come$"),
    ],
)
def test_what_was_waited_for_in_vain_is_named_with_the_reason(endpoint, messages, why):
    with RawPublisher(endpoint) as publisher, Subscriber(endpoint, ["ticker.", "status."]) as subscriber:
        subscriber.receive(0)
        publisher.accept()
        publisher.send(*messages)
        with pytest.raises(TimeoutError, match=why):
            subscriber.wait_for("ticker.binance.BTC/USDT", timeout_s=0.1)


def test_a_publisher_that_is_away_is_the_reason(endpoint):
    with (
        Subscriber(endpoint) as subscriber,
        pytest.raises(TimeoutError, match=f"no publisher at {endpoint}; start one"),
    ):
        subscriber.wait_for(BTC, timeout_s=0)


def test_the_age_of_a_topic_is_that_of_its_data(raw):
    subscriber, publisher = raw
    assert subscriber.age_s(BTC) == float("inf")
    publisher.send(ticker(1, recv_ns=time.time_ns() - 5_000_000_000, flags=wire.STALE))
    record = subscriber.receive(PATIENCE_S)
    assert record.is_stale
    assert subscriber.age_s("ticker.binance.BTC/USDT") >= 5.0


def test_silence_is_told_by_heartbeats_that_nobody_asked_for(raw):
    subscriber, publisher = raw
    assert subscriber.silence_s == float("inf")
    publisher.send(heartbeat(binance="live"), ticker(1))
    assert subscriber.receive(PATIENCE_S).kind == wire.TICKER, "they are not returned"
    assert 0 <= subscriber.silence_s < float("inf")
    assert set(subscriber.losses) == {BTC}
    assert subscriber.is_connected
    assert b"\x01heartbeat." in publisher.heard()


@pytest.mark.parametrize("topics", [[""], ["heart"], ["heartbeat."], [exact("heartbeat.merger")]])
def test_heartbeats_that_were_asked_for_are_returned(endpoint, topics):
    with RawPublisher(endpoint) as publisher, Subscriber(endpoint, topics) as subscriber:
        subscriber.receive(0)
        publisher.accept()
        publisher.send(heartbeat(binance="live"))
        assert subscriber.receive(PATIENCE_S).kind == wire.HEARTBEAT
        assert subscriber.silence_s < float("inf")


def test_a_connection_that_ended_is_known(raw):
    subscriber, publisher = raw
    subscriber.receive(0)
    assert subscriber.is_connected
    publisher.close()
    assert subscriber.receive(0.25) is None
    assert not subscriber.is_connected


def test_after_its_end_a_subscriber_says_so(raw):
    subscriber, _ = raw
    subscriber.close()
    subscriber.close()
    with pytest.raises(RuntimeError, match="the subscriber is closed; make another one"):
        subscriber.receive(0)


def test_a_cut_message_waits_for_its_rest(raw):
    subscriber, publisher = raw
    data = framed(ticker(1))
    publisher.send_bytes(data[:50])
    assert subscriber.receive(0.0) is None
    publisher.send_bytes(data[50:])
    assert subscriber.receive(PATIENCE_S).sequence == 1


def test_a_slow_consumer_of_the_latest_gets_what_is_newest_when_it_looks(endpoint):
    """Not what was the newest when it was sent: all that lies in buffers is read first."""
    with RawPublisher(endpoint) as publisher, Subscriber(endpoint, ["ticker."], mode="latest") as subscriber:
        assert subscriber.receive(0.01) is None
        publisher.accept()
        for first in (1, 101):
            numbers = range(first, first + 100)
            publisher.send(*(ticker(n, topic=topic) for n in numbers for topic in (BTC, ETH)))
            seen = [subscriber.receive(PATIENCE_S) for _ in range(2)]
            assert {(r.topic, r.sequence) for r in seen} == {(BTC, numbers[-1]), (ETH, numbers[-1])}
            assert subscriber.receive(0.01) is None
            publisher.send(*(ticker(n, topic=BTC) for n in range(first, first + 100)))  # again: nothing new


def test_one_who_hangs_up_is_not_asked_without_a_pause(endpoint):
    connects = []
    with RawPublisher(endpoint) as publisher, Subscriber(endpoint) as subscriber:

        def hang_up():
            while len(connects) < 1000:
                try:
                    sock, _ = publisher._listener.accept()
                except OSError:
                    return
                connects.append(sock)
                sock.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        assert subscriber.receive(0.5) is None
        publisher._listener.shutdown(2)
    thread.join(20)
    assert 1 <= len(connects) <= 7


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((["ticker."],), TypeError, r"the endpoint comes first.*write topics=\['ticker.'\]"),
        (("ticker.binance.BTC/USDT",), ValueError, r"no ZeroMQ endpoint but a topic; write topics="),
        (
            ("ipc://run/batches.ipc", ["ticker.binance.BTC/USDT"]),
            ValueError,
            "has batches of an exchange or more",
        ),
    ],
)
def test_what_is_easily_mistaken_is_told_with_the_remedy(arguments, error, text):
    with pytest.raises(error, match=text):
        Subscriber(*arguments)


@pytest.mark.parametrize("mode", ["newest", 5, "5", 3_600_001, -1, "@latest", "within=", "within=5"])
def test_a_mode_that_is_none_is_told_with_the_choices(mode):
    with pytest.raises(ValueError, match=r'choose "all", "latest", .* or "within=".* from 10 to 3600000'):
        Subscriber(mode=mode)
