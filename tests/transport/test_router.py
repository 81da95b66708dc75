"""ROUTER and DEALER, with libzmq at the other end, with each other, and with those who ask too much."""

import json
import os
import socket

import pytest
import zmq

from feedhandler.data.errors import ConfigError
from feedhandler.transport import endpoints
from feedhandler.transport import router as routers
from feedhandler.transport.router import Dealer, Router


@pytest.fixture
def asked():
    return []


@pytest.fixture
def router(world, asked):
    def on_request(request):
        asked.append(request)
        return [b'{"id":1}', request[::-1]], world.cost

    world.cost = 1
    router = Router(world.loop, [world.endpoint()], on_request, key="relay.recover", request_size_max=1000)
    world.parts.append(router)
    return router


def connect(world, kind):
    sock = world.socket(kind)
    sock.connect(world.endpoint())
    return sock


def answer(world, sock):
    def take():
        return sock.poll(0)

    world.until(take)
    return sock.recv_multipart()


def test_a_req_and_a_dealer_get_their_answers(world, router):
    req, dealer = connect(world, zmq.REQ), connect(world, zmq.DEALER)
    req.send(b"abc")
    dealer.send(b"def")
    dealer.send_multipart([b"", b"ghi"])
    assert answer(world, req) == [b'{"id":1}', b"cba"]
    assert answer(world, dealer) == [b'{"id":1}', b"fed"]
    assert answer(world, dealer) == [b"", b'{"id":1}', b"ihg"]


def test_our_dealer_asks_and_comes_back_when_the_router_does(world, router):
    answers, ends = [], []
    dealer = Dealer(world.loop, world.endpoint(), answers.append, lambda: ends.append(1))
    world.parts.append(dealer)
    dealer.poll()
    world.until(lambda: dealer.is_ready)
    dealer.send(b"x" * 900)
    world.until(lambda: answers)
    assert answers == [[b'{"id":1}', b"x" * 900]]
    router.close()
    world.parts.remove(router)
    world.until(lambda: ends)
    assert not dealer.poll()
    second = Router(world.loop, [world.endpoint()], lambda r: ([b"2"], 1), key="k", request_size_max=10)
    world.parts.append(second)
    world.until(lambda: dealer.poll() and dealer.is_ready)
    dealer.send(b"y")
    world.until(lambda: len(answers) == 2)
    assert answers[1] == [b"2"]


def test_one_that_asks_too_much_waits_and_others_do_not(world, router, asked):
    world.cost = routers.RATE_EACH  # a second's worth each
    greedy, modest = connect(world, zmq.DEALER), connect(world, zmq.REQ)
    for number in range(100):
        greedy.send(b"greedy%d" % number)
    world.until(lambda: router.delays)
    count = len(asked)
    assert count < 5, "what is read already waits as well"
    world.cost = 1
    modest.send(b"modest")
    assert answer(world, modest)[1] == b"tsedom"
    assert len([each for each in asked if each.startswith(b"greedy")]) == count
    world.until(lambda: router.on_time() or len(asked) == 101)
    assert sorted(asked) == sorted([b"modest", *(b"greedy%d" % n for n in range(100))]), (
        "nothing is lost by that"
    )


def test_all_together_are_not_answered_faster_than_is_good_for_the_host(world, router, asked):
    world.cost = routers.RATE_ALL
    first, second = connect(world, zmq.DEALER), connect(world, zmq.DEALER)
    for sock in (first, second):
        for _ in range(10):
            sock.send(b"x")
    world.until(lambda: router.delays >= 2)
    assert len(asked) <= 4


def test_one_that_asks_and_does_not_read_is_cut_off(world, router, asked, monkeypatch):
    monkeypatch.setattr(routers, "ANSWERS_SIZE_MAX", 100_000)
    world.cost = 0
    end = socket.socket(socket.AF_UNIX)
    end.connect(f"{world.path}/x.ipc")
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + bytes(32)
    ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
    end.sendall(greeting + bytes((4, len(ready))) + ready)
    request = bytes((2,)) + (999).to_bytes(8, "big") + b"z" * 999
    end.setblocking(False)

    def is_cut_off():
        try:
            end.send(request * 10)
        except BlockingIOError:
            pass
        except OSError:
            return True
        return False

    world.until(is_cut_off)


@pytest.mark.parametrize("seed", range(10))
def test_nonsense_harms_nobody(world, router, seed):
    end = socket.socket(socket.AF_UNIX)
    end.connect(f"{world.path}/x.ipc")
    end.sendall(os.urandom(500))
    modest = connect(world, zmq.REQ)
    modest.send(b"ab")
    assert answer(world, modest)[1] == b"ba"
    end.close()


def test_a_request_that_is_too_large_ends_the_connection(world, router, asked):
    big = connect(world, zmq.DEALER)
    big.send(b"x" * 1001)
    small = connect(world, zmq.DEALER)
    small.send(json.dumps({}).encode())
    assert answer(world, small)[1] == b"}{"
    assert asked == [b"{}"]


def test_too_many_connections_are_refused_and_counted(world, router, monkeypatch):
    monkeypatch.setattr(routers, "PEERS_MAX", 1)
    first = connect(world, zmq.REQ)
    first.send(b"ab")
    answer(world, first)
    second = connect(world, zmq.REQ)
    second.send(b"cd")
    world.until(lambda: router.refused)
    first.send(b"ef")
    assert answer(world, first)[1] == b"fe"


def test_one_that_goes_while_it_is_answered_takes_nobody_along(world, router, asked):
    """Its end is noticed by the very write of its answer."""
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + bytes(32)
    ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
    for number in range(1, 4):
        end = socket.socket(socket.AF_UNIX)
        end.connect(f"{world.path}/x.ipc")
        end.sendall(greeting + bytes((4, len(ready))) + ready)
        world.until(lambda: router._peers)
        world.settle(0.05)
        end.sendall(b"\x00\x03abc")
        end.close()
        world.until(lambda number=number: len(asked) == number and not router._peers)
    modest = connect(world, zmq.REQ)
    modest.send(b"ab")
    assert answer(world, modest)[1] == b"ba"


def test_an_endpoint_in_use_is_refused_with_its_key(world, router):
    with pytest.raises(ConfigError, match=r"relay\.recover: .* is in use"):
        Router(world.loop, [world.endpoint()], lambda r: ([b""], 1), key="relay.recover", request_size_max=10)


def silent(world, count):
    ends = [socket.socket(socket.AF_UNIX) for _ in range(count)]
    for end in ends:
        end.connect(f"{world.path}/x.ipc")
        end.setblocking(False)
    return ends


def is_closed(end):
    try:
        while end.recv(1000):
            pass
    except BlockingIOError:
        return False
    return True


def test_connections_that_say_nothing_are_closed_in_time(world, router, monkeypatch):
    monkeypatch.setattr(endpoints, "HANDSHAKE_S", 0.2)
    ends = silent(world, 50)
    world.until(lambda: all(map(is_closed, ends)))
    assert not router._peers


def test_connections_that_say_nothing_make_room_for_those_that_ask(world, router, monkeypatch):
    monkeypatch.setattr(routers, "PEERS_MAX", 3)
    ends = silent(world, 10)
    world.until(lambda: sum(map(is_closed, ends)) == 7)
    modest = connect(world, zmq.REQ)
    modest.send(b"ab")
    assert answer(world, modest)[1] == b"ba"


def asking(world, count):
    """Return a connection on which so many requests were sent at once."""
    end = socket.socket(socket.AF_UNIX)
    end.connect(f"{world.path}/x.ipc")
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + bytes(32)
    ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
    end.sendall(greeting + bytes((4, len(ready))) + ready + b"\x00\x03abc" * count)
    return end


def test_what_one_asks_at_once_is_answered_over_several_turns(world, router, asked):
    world.cost = 20
    end = asking(world, 500)
    most = 0

    def is_through():
        nonlocal most
        before = len(asked)
        world.loop.run_once(0.01)
        most = max(most, len(asked) - before)
        return len(asked) == 500

    world.until(is_through)
    assert most <= 2 * routers.TURN_COST // world.cost + 1, "what was left of a turn, and the next one"
    end.close()


def test_what_one_still_asks_who_has_gone_is_not_answered(world, router, asked):
    world.cost = 20
    end = asking(world, 800)
    world.until(lambda: asked)
    end.close()
    world.until(lambda: not router._peers)
    assert len(asked) <= 2 * routers.TURN_COST // world.cost + 1
