"""A connection to NATS that is stuck, or cannot be had; with a server that does as it is asked to."""

import asyncio
import contextlib
import json
import socket
import ssl

import pytest
import trustme
import uvloop
from patience import until

from feedhandler.runtime.settings import NatsConfig

pytest.importorskip("nats")

from feedhandler.bridge import connection as module
from feedhandler.bridge.connection import NatsConnection


class Server:
    """NATS's side of connections, as far as ours needs it; the first is not read after its beginning."""

    def __init__(self, tls=None):
        self._tls = tls
        self.goes_on = asyncio.Event()
        self.connections = 0
        self.received = []  # bodies, by connection
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        listener.bind(("127.0.0.1", 0))
        self._listener, self.port = listener, listener.getsockname()[1]

    async def __aenter__(self):
        self._server = await asyncio.start_server(self._serve, sock=self._listener)
        return self

    async def __aexit__(self, *_):
        self._server.close()

    async def _serve(self, reader, writer):
        self.connections += 1
        bodies = []
        self.received.append(bodies)
        info = {"version": "2.9.0", "max_payload": 1 << 20, "tls_required": self._tls is not None}
        writer.write(f"INFO {json.dumps(info)}\r\n".encode())
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if self._tls is not None:
                await writer.start_tls(self._tls)
            is_first = self.connections == 1
            while line := await reader.readline():
                word, *rest = line.split()
                if word == b"PING":
                    writer.write(b"PONG\r\n")
                    if is_first:
                        await self.goes_on.wait()
                elif word == b"PUB":
                    bodies.append((await reader.readexactly(int(rest[-1]) + 2))[:-2])
        writer.close()


async def ended(task):
    """Cancel a task until it ends: nats-py, and what it waits with, may lose a cancellation."""
    while not task.done():
        task.cancel()
        await asyncio.sleep(0.01)


def test_a_side_that_does_not_read_is_given_up_and_what_it_did_not_confirm_is_handed_back(monkeypatch):
    monkeypatch.setattr(module, "STALL_S", 0.2)
    monkeypatch.setattr(module, "WINDOW_SIZE", 8 << 20)  # more than kernels hold: closing cannot be in order
    records = [bytes([number]) * (1 << 16) for number in range(112)]

    async def main():
        async with Server() as server:
            lost = []
            settings = NatsConfig(servers=(f"nats://127.0.0.1:{server.port}",))
            connection = NatsConnection(settings, {}, "nats", on_lost=lost.extend, on_change=lambda: None)
            running = asyncio.create_task(connection.run())
            await until(lambda: connection.is_connected, "the first connection")
            for record in records:
                assert connection.has_room()
                await connection.publish("a", record)

            def is_second():
                connection.on_time()
                return connection.is_connected and connection.connects == 2

            await until(is_second, "the second")
            assert lost == records
            assert len(connection.unconfirmed) == 0
            monkeypatch.setattr(module, "STALL_S", 1000.0)  # this one may be slow
            await connection.publish("a", b"newest")

            def is_confirmed():
                connection.on_time()
                return not len(connection.unconfirmed)

            await until(is_confirmed, "a confirmation")
            assert server.received == [[], [b"newest"]]
            assert len(connection._closing) == 1  # it could not be closed in order
            server.goes_on.set()
            await until(lambda: server.received[0] == records, "what it had not read")
            await ended(running)
            await connection.close()

    uvloop.run(main())


def test_no_more_connections_are_made_while_many_do_not_end(monkeypatch):
    monkeypatch.setattr(module, "CLOSING_MAX", 1)

    async def main():
        async with Server() as server:
            settings = NatsConfig(servers=(f"nats://127.0.0.1:{server.port}",))
            connection = NatsConnection(
                settings, {}, "nats", on_lost=lambda lost: None, on_change=lambda: None
            )
            stuck = asyncio.create_task(server.goes_on.wait())
            connection._closing.add(stuck)
            stuck.add_done_callback(connection._closing.discard)
            running = asyncio.create_task(connection.run())
            for _ in range(10):
                await asyncio.sleep(0)
            assert not server.connections
            server.goes_on.set()
            await until(lambda: connection.is_connected, "a connection")
            await ended(running)
            await connection.close()

    uvloop.run(main())


def test_attempts_that_fail_leave_nothing_behind(monkeypatch):
    monkeypatch.setattr(module, "CLOSE_S", 0.05)
    monkeypatch.setattr(module, "BACKOFF_MAX_S", 0.05)
    monkeypatch.setattr(module, "BACKOFF_MIN_S", 0.05)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)  # of an authority that nobody trusts

    async def main():
        async with Server(context) as server:
            settings = NatsConfig(servers=(f"tls://127.0.0.1:{server.port}",))
            connection = NatsConnection(
                settings, {}, "nats", on_lost=lambda lost: None, on_change=lambda: None
            )
            running = asyncio.create_task(connection.run())
            await until(lambda: server.connections >= 5, "attempts")
            ours = [task for task in asyncio.all_tasks() if "_close" in repr(task.get_coro())]
            assert len(ours) <= 1
            await ended(running)
            await connection.close()

    uvloop.run(main())
