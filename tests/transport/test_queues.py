"""One limit for all queues: who is cut, what is counted, and what those get who read again."""

import socket
from collections import deque

import pytest
from test_subscribing import Stream, by_topic

from feedhandler.data import wire
from feedhandler.transport import queues, zmtp
from feedhandler.transport.queues import STEP, Queues

MB = 1 << 20
READY = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB"


class Holder:
    def __init__(self, queued):
        self.queued, self.sent, self.room, self.marks, self.is_open = queued, 0, 0, deque(), True

    def close(self):
        self.is_open = False


def halve(holder):
    holder.queued //= 2
    return True


def test_the_longest_is_cut_first_and_the_others_are_left_alone():
    pool = Queues(10 * STEP)
    long, short, third = Holder(5 * STEP - 1), Holder(2 * STEP - 1), Holder(4 * STEP - 1)
    assert pool.grant(long, halve)
    assert pool.grant(short, halve)
    assert pool.size == 7 * STEP
    assert pool.grant(third, halve), "it was not cut itself"
    assert (long.queued, short.queued, third.queued) == (5 * STEP // 2 - 1, 2 * STEP - 1, 4 * STEP - 1)
    assert (pool.cuts, pool.closed, pool.size) == (1, 0, 9 * STEP)


def test_one_that_outgrows_all_others_is_cut_itself_and_told():
    pool = Queues(4 * STEP)
    greedy = Holder(5 * STEP - 1)
    assert not pool.grant(greedy, halve)
    assert greedy.is_open
    assert pool.size == greedy.room <= 4 * STEP


@pytest.mark.parametrize("cut", [lambda holder: False, lambda holder: True], ids=["cannot", "frees nothing"])
def test_where_cutting_does_not_help_the_connection_ends(cut):
    pool = Queues(4 * STEP)
    greedy = Holder(5 * STEP - 1)
    assert not pool.grant(greedy, cut)
    assert not greedy.is_open
    assert (pool.size, pool.closed, pool.cuts) == (0, 1, 0)


def test_room_comes_back_when_a_queue_is_empty():
    pool = Queues(4 * STEP)
    holder = Holder(3 * STEP)
    pool.grant(holder, halve)
    pool.release(holder)
    pool.release(holder)
    assert (pool.size, holder.room) == (0, 0)


def test_the_default_is_a_share_of_memory_and_not_more_than_the_control_group_may_have():
    assert queues.size_of(7) == 7 * MB
    assert 0 < queues.size_of(0) == queues.memory_size() // queues.SHARE


def raw_subscriber(world):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(world.endpoint().removeprefix("ipc://"))
    sock.sendall(zmtp.GREETING + READY + b"\x00\x08\x01ticker.")
    sock.setblocking(False)
    return sock


def messages_of(data):
    """Return the messages in what a subscriber read, none of them torn."""
    position = len(zmtp.GREETING)
    while position < len(data):
        flags, size = data[position], data[position + 1]
        assert flags in (0, zmtp.COMMAND), "a frame begins where one ended"
        if not flags:
            yield wire.unpack(data[position + 2 : position + 2 + size])
        position += 2 + size
    assert position == len(data)


@pytest.mark.long
@pytest.mark.parametrize("is_batched", [False, True], ids=["each", "batched"])
def test_many_that_do_not_read_stay_under_the_limit_and_end_on_the_newest_when_they_do(world, is_batched):
    pool = Queues(2 * MB)
    stream = Stream(world, 200, is_batched=is_batched, queues=pool)
    socks = [raw_subscriber(world) for _ in range(12)]
    quick = world.subscriber(b"ticker.")
    heard = [0]

    def take():
        while quick.poll(0):
            heard[0] += len(quick.recv()) // wire.TICKER_SIZE

    world.until(lambda: (take(), heard[0] == 200)[1])
    sent = 0
    while pool.cuts < 20:
        stream.publish(200)
        sent += 200
        world.loop.run_once(0)
        take()
        assert pool.size <= pool.size_max
        assert sent < 400_000, "12 queues of 2 MB each would be no limit"
    stream.outlet.flush()
    world.until(lambda: (take(), heard[0] == 200 + sent)[1])  # who reads has lost nothing
    received = [bytearray() for _ in socks]

    def are_current():
        for sock, data in zip(socks, received, strict=True):
            try:
                while chunk := sock.recv(MB):
                    data += chunk
            except BlockingIOError:
                pass
        world.loop.run_once(0)
        return pool.size == 0 and all(
            {wire.padded(r.topic): r.sequence for r in messages_of(whole(data))} == stream.numbers
            for data in received
        )

    world.until(are_current)
    assert pool.closed == 0
    for data in received:
        for of_topic in by_topic(messages_of(data)).values():
            numbers = [r.sequence for r in of_topic if not r.flags & wire.SNAPSHOT]
            assert numbers == sorted(set(numbers)), "in order, once"
    stream.publish(500)
    world.settle()
    for sock, data in zip(socks, received, strict=True):
        fresh = len(data)
        data += sock.recv(MB)
        assert len(data) - fresh == 500 * (2 + wire.TICKER_SIZE), "and all again"


def whole(data):
    """Return what was read up to the last whole frame."""
    position = len(zmtp.GREETING)
    while position + 2 <= len(data) and position + 2 + data[position + 1] <= len(data):
        position += 2 + data[position + 1]
    return data[:position]


def test_one_with_very_many_subscriptions_is_cut_off_instead(world):
    pool = Queues(1 * MB)
    stream = Stream(world, 200, queues=pool)
    sock = raw_subscriber(world)
    sock.setblocking(True)
    for number in range(150):
        sock.sendall(b"\x00\x0b\x01ticker.%03d" % number)
        world.loop.run_once(0)
    world.settle()
    for _ in range(1000):
        stream.publish(200)
        world.loop.run_once(0)
        if pool.closed:
            break
    assert (pool.closed, pool.cuts, pool.size) == (1, 0, 0)
    assert not stream.outlet.is_wanted
