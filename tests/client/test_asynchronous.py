"""The subscriber in a loop: asyncio's and uvloop's, in Python and compiled."""

import asyncio
import contextlib
import random
import socket
import threading
import time

import msgspec
import pytest
import uvloop
import zmq.auth
from patience import PATIENCE_S
from publishing import BTC, ETH, Publisher, RawPublisher, ticker

from feedhandler.client import AsyncSubscriber, Curve, arrays
from feedhandler.data import retransmission, wire
from feedhandler.transport import endpoints, router, zmtp

READ_RECORDS = zmtp.READ_SIZE // wire.TICKER_SIZE  # as many as may come on top of a limit


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request):
    """Run a coroutine to its end, which has to come."""

    def run(coroutine):
        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(asyncio.wait_for(coroutine, 2 * PATIENCE_S))

    return run


@pytest.fixture
def with_publisher(run, endpoint):
    """Run a test with a subscriber to all tickers, and its publisher."""

    def run_with(test, **settings):
        async def main():
            with RawPublisher(endpoint) as publisher:
                async with AsyncSubscriber(endpoint, ["ticker."], **settings) as subscriber:
                    publisher.accept()
                    await test(subscriber, publisher)

        run(main())

    return run_with


def sequences(records):
    return [record.sequence for record in records]


def test_records_are_iterated_and_losses_are_known(with_publisher):
    async def test(subscriber, publisher):
        publisher.send(ticker(1), ticker(2), ticker(2), ticker(5))
        seen = []
        async for record in subscriber:
            seen.append(record.sequence)
            if record.sequence == 5:
                break
        assert seen == [1, 2, 5]
        assert (subscriber.lost, subscriber.undecodable) == (2, 0)
        publisher.send(ticker(6))
        assert (await subscriber.receive()).sequence == 6, "it goes on after a loop that was left"

    with_publisher(test)


def test_a_timeout_is_kept_with_and_without_a_publisher(run, endpoint):
    async def main():
        async with AsyncSubscriber(endpoint) as subscriber:
            started = time.monotonic()
            assert await subscriber.receive(0.2) is None
            assert await subscriber.receive_many(timeout_s=0.2) == []
            assert time.monotonic() - started >= 0.39, "uvloop's clock has milliseconds"
            assert await subscriber.receive(0) is None
            assert not subscriber.is_connected

    run(main())


def test_a_publisher_that_comes_late_or_again_is_found(run, endpoint):
    async def main():
        async with AsyncSubscriber(endpoint, ["ticker."]) as subscriber:
            assert await subscriber.receive(0.05) is None, "nobody is there yet"
            for session in (100, 101):
                with RawPublisher(endpoint) as publisher:
                    # In a thread, since the subscriber connects at its own time.
                    await asyncio.to_thread(publisher.accept)
                    publisher.send(ticker(1, session))
                    assert (await subscriber.receive(PATIENCE_S)).session == session

    run(main())


def test_many_are_received_at_once(with_publisher):
    async def test(subscriber, publisher):
        publisher.send(*map(ticker, range(1, 8)))
        assert sequences(await subscriber.receive_many(3, PATIENCE_S)) == [1, 2, 3]
        assert sequences(await subscriber.receive_many(timeout_s=PATIENCE_S)) == [4, 5, 6, 7]
        with pytest.raises(ValueError, match="max_count is 0"):
            await subscriber.receive_many(0)

    with_publisher(test)


@pytest.mark.long
def test_one_that_does_not_take_its_records_leaves_the_rest_to_the_publisher(with_publisher):
    count = 30_000

    async def test(subscriber, publisher):
        thread = threading.Thread(target=publisher.send, args=map(ticker, range(1, count + 1)))
        thread.start()
        seen, most = [], 0
        while len(seen) < count:
            for _ in range(5):
                await asyncio.sleep(0)
            most = max(most, len(subscriber._records))
            seen += await subscriber.receive_many(37, PATIENCE_S)
        thread.join()
        assert sequences(seen) == list(range(1, count + 1)), "late, and nothing lost"
        assert 100 <= most < 100 + READ_RECORDS + 1

    with_publisher(test, pending_max=100)


def test_without_a_consumer_reading_stops_and_goes_on_with_one(with_publisher):
    async def test(subscriber, publisher):
        publisher.sock.setblocking(False)
        message, sent = zmtp.frame_head(wire.TICKER_SIZE), 0
        blocked = 0
        rest = b""
        while blocked < 50:  # turns of the loop in which the kernel took nothing more
            try:
                if not rest:
                    sent += 1
                    rest = message + ticker(sent)
                rest = rest[publisher.sock.send(rest) :]
                blocked = 0
            except BlockingIOError:
                blocked += 1
                await asyncio.sleep(0)
        assert len(subscriber._records) < 100 + READ_RECORDS + 1
        assert sent > len(subscriber._records) + 100, "the rest is in the kernel"
        seen = []
        while len(seen) < sent - 1:
            seen += await subscriber.receive_many(timeout_s=PATIENCE_S)
        assert sequences(seen) == list(range(1, sent))

    with_publisher(test, pending_max=100)


@pytest.mark.parametrize("seed", range(5))
def test_a_cancelled_task_takes_no_record_with_it(with_publisher, seed):
    rng = random.Random(seed)

    async def test(subscriber, publisher):
        seen, sent = [], 0
        while len(seen) < 200:
            task = asyncio.ensure_future(rng.choice((subscriber.receive, subscriber.__anext__))())
            for _ in range(rng.randrange(4)):
                if rng.random() < 0.7 and sent < 200:
                    sent += 1
                    publisher.send(ticker(sent))
                await asyncio.sleep(0)
            if rng.random() < 0.5 or sent == len(seen):
                task.cancel()
            try:
                seen.append((await task).sequence)
            except asyncio.CancelledError:
                assert task.cancelled()
        assert seen == list(range(1, 201))

    with_publisher(test)


def test_tasks_may_share_a_subscriber(with_publisher):
    async def test(subscriber, publisher):
        seen = []

        async def take():
            async for record in subscriber:
                seen.append(record.sequence)
                await asyncio.sleep(0)
                if len(seen) >= 100:
                    subscriber.close()

        tasks = [asyncio.create_task(take()) for _ in range(3)]
        publisher.send(*map(ticker, range(1, 101)))
        await asyncio.gather(*tasks)
        assert sorted(seen) == list(range(1, 101))

    with_publisher(test)


@pytest.mark.parametrize("is_coroutine", [False, True])
def test_a_callback_gets_each_record_until_it_stops_or_time_is_up(with_publisher, is_coroutine):
    async def test(subscriber, publisher):
        seen = []

        def take(record):
            seen.append(record.sequence)
            if record.sequence == 3:
                subscriber.stop()

        async def take_slowly(record):
            await asyncio.sleep(0)
            take(record)

        callback = take_slowly if is_coroutine else take
        publisher.send(*map(ticker, range(1, 6)))
        await subscriber.run(callback)
        assert seen == [1, 2, 3]
        await subscriber.run(callback, timeout_s=0.1)
        assert seen == [1, 2, 3, 4, 5]
        asyncio.get_running_loop().call_later(0.02, subscriber.stop)
        await subscriber.run(callback)

    with_publisher(test)


def test_a_callback_that_raises_costs_no_other_record(with_publisher):
    async def test(subscriber, publisher):
        publisher.send(ticker(1), ticker(2))

        async def fail(record):
            raise LookupError(record.sequence)

        with pytest.raises(LookupError, match="1"):
            await subscriber.run(fail)
        assert (await subscriber.receive(PATIENCE_S)).sequence == 2

    with_publisher(test)


def test_waiting_for_topics_takes_nothing_and_names_what_is_missing(with_publisher):
    async def test(subscriber, publisher):
        publisher.send(ticker(1), ticker(2), ticker(1, topic=ETH, flags=wire.STALE))
        found = await subscriber.wait_for("ticker.binance.BTC/USDT", timeout_s=PATIENCE_S)
        assert list(found) == ["ticker.binance.BTC/USDT"]
        with pytest.raises(TimeoutError, match=r"ETH/USDT: its newest record is \['STALE'\]$"):
            await subscriber.wait_for(BTC, ETH, timeout_s=0.05)
        assert sequences(await subscriber.receive_many(timeout_s=0)) == [1, 2, 1]

    with_publisher(test)


def test_waiting_is_not_stopped_by_records_that_wait(with_publisher):
    async def test(subscriber, publisher):
        publisher.send(*map(ticker, range(1, 101)))
        waiting = asyncio.create_task(subscriber.wait_for(ETH, timeout_s=PATIENCE_S))
        while subscriber.newest(BTC) is None or subscriber.newest(BTC).sequence < 100:
            await asyncio.sleep(0)
        publisher.send(ticker(1, topic=ETH))
        assert (await waiting)[ETH].sequence == 1
        seen = await subscriber.receive_many(timeout_s=0)
        assert [record.topic for record in seen][-1] == ETH
        assert len(seen) + subscriber.lost == 101

    with_publisher(test, pending_max=5)


def test_the_end_is_an_end_for_those_who_wait(with_publisher):
    async def test(subscriber, publisher):
        async def iterate():
            return [record async for record in subscriber]

        iterating = asyncio.create_task(iterate())
        receiving = asyncio.create_task(subscriber.receive())
        await asyncio.sleep(0)
        subscriber.close()
        assert await iterating == []
        with pytest.raises(RuntimeError, match="the subscriber is closed; make another one"):
            await receiving

    with_publisher(test)


def test_it_has_to_be_entered_and_may_be_made_before_there_is_a_loop(run, endpoint):
    subscriber = AsyncSubscriber(endpoint)

    async def main():
        with pytest.raises(RuntimeError, match="use it in `async with`"):
            await subscriber.receive(0)
        async with subscriber:
            assert await subscriber.receive(0) is None

    run(main())
    with pytest.raises(ValueError, match="max_count is 0"):
        AsyncSubscriber(endpoint, pending_max=0)


def test_a_host_that_does_not_answer_stops_neither_the_loop_nor_the_end(run, endpoint, monkeypatch):
    def wait(endpoint):
        raise AssertionError("the loop waits")

    monkeypatch.setattr(endpoints, "connected", wait)

    async def main():
        with socket.socket(socket.AF_UNIX) as hung, contextlib.ExitStack() as stack:
            hung.bind(endpoint.removeprefix("ipc://"))
            hung.listen(0)
            full = 0
            while not full:  # its queue; what is accepted later would be served
                sock = stack.enter_context(socket.socket(socket.AF_UNIX))
                sock.setblocking(False)
                full = sock.connect_ex(endpoint.removeprefix("ipc://"))
            async with AsyncSubscriber(endpoint) as subscriber:
                assert await subscriber.receive(0.05) is None
                assert not subscriber.is_connected

    run(main())


def test_what_was_missed_is_asked_for_and_comes_in_its_place(run, endpoint, tmp_path):
    def answer(request):
        asked = msgspec.json.decode(request, type=retransmission.Request)
        records = [
            ticker(number, asked.session)
            for missing in asked.missing
            for number in range(missing.first, missing.last + 1)
        ]
        head = retransmission.Head(id=asked.id, session=asked.session, records=len(records))
        return [msgspec.json.encode(head), b"".join(records)], 1

    async def main():
        relay = router.Router(
            asyncio.get_running_loop(),
            [f"ipc://{tmp_path}/recover.ipc"],
            answer,
            key="relay.recover",
            request_size_max=65536,
        )
        with RawPublisher(endpoint) as publisher:
            async with AsyncSubscriber(endpoint, ["ticker."], pending_max=2, recover=True) as subscriber:
                publisher.accept()
                while not subscriber._stream._recovery.is_connected:
                    await asyncio.sleep(0.01)
                publisher.send(ticker(1), ticker(2), ticker(6), ticker(7))
                seen = [await subscriber.receive(PATIENCE_S) for _ in range(7)]
                assert sequences(seen) == [1, 2, 3, 4, 5, 6, 7]
                assert (subscriber.lost, subscriber.recovered) == (0, 3)
        relay.close()

    run(main())


def test_libzmq_is_understood_as_well(run, endpoint):
    async def main():
        publisher = Publisher(endpoint)
        async with AsyncSubscriber(endpoint, ["ticker."]) as subscriber:
            while not publisher.is_subscribed():
                assert await subscriber.receive(0.01) is None
            publisher.send(ticker(1) + ticker(2))
            assert sequences(
                [await subscriber.receive(PATIENCE_S), await subscriber.receive(PATIENCE_S)]
            ) == [1, 2]
        publisher.close()

    run(main())


def test_another_host_is_reached_with_its_key_and_ours(run, tmp_path):
    for name in ("server", "desk"):
        zmq.auth.create_certificates(tmp_path, name)
    publisher = Publisher("tcp://127.0.0.1:*", server_key=tmp_path / "server.key_secret")
    keys = Curve(str(tmp_path / "desk.key_secret"), str(tmp_path / "server.key"))

    async def main():
        async with AsyncSubscriber(publisher.endpoint, ["ticker."], curve=keys) as subscriber:
            while not publisher.is_subscribed():
                assert await subscriber.receive(0.01) is None
            publisher.send(ticker(1))
            assert (await subscriber.receive(PATIENCE_S)).sequence == 1
        settings = {"curve": keys, "recover": "", "pending_max": 100}
        async with AsyncSubscriber(publisher.endpoint, ["ticker."], **settings) as subscriber:
            while not publisher.is_subscribed():
                assert await subscriber.receive(0.01) is None
            publisher.send(*map(ticker, range(1, 901)))  # more than is read, or may wait, at a time
            for sequence in range(1, 901):
                assert (await subscriber.receive(PATIENCE_S)).sequence == sequence

    run(main())
    with pytest.raises(ValueError, match="mode is 'latest', and the relay has no modes for other hosts"):
        AsyncSubscriber(publisher.endpoint, ["ticker."], curve=keys, mode="latest")
    with arrays.ArraySubscriber(publisher.endpoint, curve=keys) as subscriber:
        while not publisher.is_subscribed():
            assert len(subscriber.receive(timeout_s=0.01)) == 0
        publisher.send(ticker(2))
        assert subscriber.receive(timeout_s=PATIENCE_S)["sequence"].tolist() == [2]
    publisher.close()
