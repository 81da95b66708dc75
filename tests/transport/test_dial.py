"""Connections that are given up at any moment: each descriptor is closed once, and none stays."""

import asyncio
import contextlib
import gc
import os
import socket
import ssl
from pathlib import Path

import aiohttp
import pytest
import trustme
import uvloop
from ends import black_hole
from patience import PATIENCE_S

from feedhandler.data.rest import RestRequest
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.arbitration import Line
from feedhandler.feed.signs import SocketSigns
from feedhandler.feed.websocket import Connection, Socket
from feedhandler.transport import dial
from feedhandler.transport.http import HttpClient

TURNS = (
    12  # of the loop that a request has gone through when it is given up: from none to waiting for its answer
)


def sockets():
    """Which sockets this process has, by descriptor."""
    found = {}
    for fd in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            target = str(fd.readlink())
            if target.startswith("socket:"):
                found[fd.name] = target
    return found


@contextlib.contextmanager
def listener(backlog=4096):
    """A server that accepts nothing: connections are made by its kernel, and nobody answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(backlog)
        yield listening.getsockname()[1]


async def given_up(count, make, folder):
    """Begin `make()` again and again, give it up later each time, and open a file in between.

    Returns how many of these files were closed by somebody else.
    """
    foreign = 0
    gc.collect()
    gc.freeze()  # so that the rounds below are short
    for number in range(count):
        task = asyncio.create_task(make())
        for _ in range(number % TURNS):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])  # which keeps its frames, and in them the socket object
        path = folder / f"{number}"
        fd = os.open(path, os.O_RDWR | os.O_CREAT)  # gets the number that has just become free
        del task
        gc.collect()
        try:
            os.close(fd)
        except OSError:
            foreign += 1
        path.unlink()
    gc.unfreeze()
    return foreign


async def until(condition):
    async with asyncio.timeout(PATIENCE_S):
        while not condition():
            await asyncio.sleep(0.01)


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_requests_that_are_given_up_close_nobody_elses_descriptor(tmp_path, scheme):
    async def main(port):
        before = sockets()
        async with HttpClient(f"{scheme}://127.0.0.1:{port}") as http:
            foreign = await given_up(400, lambda: http.ask(RestRequest("/x")), tmp_path)
            await until(lambda: sockets().items() <= before.items())
        return foreign

    with listener() as port:
        assert uvloop.run(main(port)) == 0


@pytest.mark.long
def test_private_streams_that_are_given_up_close_nobody_elses_descriptor(tmp_path):
    async def main(port):
        before = sockets()
        async with aiohttp.ClientSession(connector=dial.TcpConnector()) as session:
            foreign = await given_up(200, lambda: session.ws_connect(f"ws://127.0.0.1:{port}"), tmp_path)
            await until(lambda: sockets().items() <= before.items())
        return foreign

    with listener() as port:
        assert uvloop.run(main(port)) == 0


@pytest.mark.long
@pytest.mark.parametrize("scheme", ["ws", "wss"])
def test_websockets_that_are_given_up_close_nobody_elses_descriptor(tmp_path, scheme):
    async def main(port):
        before = sockets()
        url = f"{scheme}://127.0.0.1:{port}"
        connection = Connection("test", None, None, None, url, None)
        signs = SocketSigns(EXCHANGES["bybit"].main(), "", Line(0), None, None)

        def opened():
            return connection._open(url, Socket(connection, signs, signs.on_frame, url, None))

        foreign = await given_up(200, opened, tmp_path)
        await until(lambda: sockets().items() <= before.items())
        return foreign

    with listener() as port:
        assert uvloop.run(main(port)) == 0


def test_what_comes_after_it_was_given_up_is_closed():
    closed = []

    async def main():
        here, there = socket.socketpair()
        with here, there:
            answer = asyncio.Event()

            async def opening():
                await answer.wait()
                return "open"

            task = asyncio.create_task(dial.to_its_end(here, opening(), closed.append))
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            there.settimeout(PATIENCE_S)
            assert there.recv(1) == b"", "the other side is told at once"
            answer.set()
            await until(lambda: closed)

    uvloop.run(main())
    assert closed == ["open"]


@pytest.mark.long
def test_a_process_that_ends_meanwhile_closes_it_once(tmp_path):
    """The last act of `asyncio.Runner` is to cancel everything, and so what was to be left alone."""

    async def main(port):
        sock = await dial.dial("127.0.0.1", port)
        number = sock.fileno()
        opening = asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=sock)
        waiting = asyncio.create_task(dial.to_its_end(sock, opening, lambda opened: opened[0].abort()))
        del sock
        await asyncio.sleep(0)
        (inner,) = asyncio.all_tasks() - {waiting, asyncio.current_task()}
        await asyncio.sleep(0)
        inner.cancel()
        await asyncio.wait([inner, waiting])
        fd = os.open(tmp_path, os.O_RDONLY)
        assert fd == number, "it is free"
        del waiting, inner
        gc.collect()
        os.close(fd)  # raises if somebody else has

    with listener() as port:
        uvloop.run(main(port))


# --- addresses


def resolving_to(*addresses):
    async def resolve(host, port):
        if not port:  # a source address
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0))]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in addresses]

    return resolve


@pytest.mark.parametrize("source", ["", "127.0.0.3"])
def test_an_address_that_answers_is_used_though_another_comes_first_and_does_not(monkeypatch, source):
    async def main(dead, port):
        monkeypatch.setattr(dial, "resolve", resolving_to(dead, ("127.0.0.1", port)))
        async with asyncio.timeout(PATIENCE_S):
            sock = await dial.dial("exchange.test", 443, source)
        with sock:
            return dial.address_of(sock), sock.getsockname()[0]

    with black_hole() as dead, listener() as port:
        address, own = uvloop.run(main(dead, port))
    assert address == f"127.0.0.1:{port}"
    assert own == (source or "127.0.0.1")


def test_a_source_address_of_another_family_than_the_hosts_is_refused():
    async def main():
        await dial.dial("127.0.0.1", 1, "::1")

    with pytest.raises(OSError, match=r"127\.0\.0\.1 has no address of the same family"):
        uvloop.run(main())


def test_a_handshake_of_a_given_up_connection_ends_at_once():
    """Not when its own limit has passed: a process would collect them while an exchange is slow."""

    async def main():
        authority = trustme.CA()
        context = ssl.create_default_context()
        authority.configure_trust(context)
        with listener() as port:
            before = sockets()
            sock = await dial.dial("127.0.0.1", port)
            loop = asyncio.get_running_loop()
            opening = loop.create_connection(
                asyncio.Protocol, sock=sock, ssl=context, server_hostname="x", ssl_handshake_timeout=3600.0
            )
            task = asyncio.create_task(dial.to_its_end(sock, opening, lambda opened: opened[0].abort()))
            del sock
            await asyncio.sleep(0.05)
            task.cancel()
            await asyncio.wait([task])
            async with asyncio.timeout(PATIENCE_S):
                while not sockets().items() <= before.items():
                    await asyncio.sleep(0.01)

    uvloop.run(main())
