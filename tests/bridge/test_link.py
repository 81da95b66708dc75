"""What is refused before a connection to NATS is tried, and what of a stream is not ours to change."""

import ast
import asyncio
import contextlib
import json
import re
import socket
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
import uvloop
from patience import PATIENCE_S, until

from feedhandler.data.errors import ConfigError
from feedhandler.runtime.config import NATS_ENV, NatsConfig

nats = pytest.importorskip("nats")

from nats.js.api import StorageType, StreamConfig  # noqa: E402

from feedhandler.bridge import link as link_module  # noqa: E402
from feedhandler.bridge.link import Link, check_credentials, check_secrets, difference  # noqa: E402

USER, PASSWORD, TOKEN = NATS_ENV
FAR, FAR_TLS = ("nats://nats.example:4222",), ("tls://nats.example:4222",)


@pytest.mark.parametrize(
    ("settings", "secrets", "message"),
    [
        ({}, {USER: "u"}, f"{USER} and {PASSWORD} go together"),
        ({}, {USER: "u", PASSWORD: "p", TOKEN: "t"}, "two ways to log in"),
        ({"credentials": "x.creds"}, {TOKEN: "t"}, f"x: nats.credentials: is set, and so is {TOKEN}"),
        ({"servers": FAR}, {TOKEN: "hunter2"}, "nats://nats.example:4222 would get .* in the clear"),
        ({"servers": (*NatsConfig().servers, *FAR)}, {TOKEN: "hunter2"}, "in the clear"),
    ],
)
def test_secrets_that_do_not_go_together_or_would_be_read_by_others_are_refused(settings, secrets, message):
    with pytest.raises(ConfigError, match=message) as refused:
        check_secrets(NatsConfig(**settings), secrets, "x: nats")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("servers", "secrets"),
    [(FAR_TLS, {TOKEN: "t"}), (FAR, {}), (("nats://localhost:4222", "nats://[::1]:4222"), {TOKEN: "t"})],
)
def test_other_secrets_are_taken(servers, secrets):
    check_secrets(NatsConfig(servers=servers), secrets, "x: nats")


def test_a_file_that_has_no_credentials_is_refused(tmp_path):
    path = tmp_path / "x.creds"
    with pytest.raises(ConfigError, match=r"nats.credentials: .*x.creds cannot be read"):
        check_credentials(NatsConfig(credentials=str(path)), "nats")
    path.write_text("secret", encoding="utf-8")
    with pytest.raises(ConfigError, match="is no credentials file as `nsc` writes it"):
        check_credentials(NatsConfig(credentials=str(path)), "nats")


WANTED = StreamConfig(name="S", subjects=["a.>", "b.>"], storage=StorageType.FILE)


@pytest.mark.parametrize(
    ("there", "reason"),
    [
        (WANTED, ""),
        (WANTED.evolve(subjects=["b.>", "a.>"], max_bytes=5), ""),
        (WANTED.evolve(subjects=["c"]), "its subjects are c, not a.>, b.>"),
        (WANTED.evolve(storage=StorageType.MEMORY), "its storage is memory, not file"),
        (WANTED.evolve(sealed=True), "it is a mirror of another, or sealed"),
    ],
)
def test_limits_of_a_stream_are_ours_and_what_it_is_is_not(there, reason):
    assert difference(there, WANTED) == reason


WITHOUT_NATS = (
    "import sys; sys.modules['nats'] = None; from feedhandler.cli.main import main; sys.exit(main())"
)


@pytest.mark.parametrize(
    ("table", "command", "message"),
    [
        ("", ["-m", "feedhandler"], "nats: there is no such table; add [nats]"),
        ("[nats]\n", ["-c", WITHOUT_NATS], "-m pip install 'feedhandler[nats]'` installs it"),
    ],
)
def test_the_command_says_what_to_configure_and_what_to_install(tmp_path, table, command, message):
    path = tmp_path / "x.toml"
    path.write_text(f'run_dir = "{tmp_path}/run"\n[exchanges.binance]\n{table}', encoding="utf-8")
    arguments = [sys.executable, *command, "bridge", "nats", "-c", str(path)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr


class Server:
    """NATS's side of connections, as far as the link needs it; the first is not read after its beginning."""

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


def test_a_side_that_does_not_read_is_given_up_and_what_it_did_not_confirm_is_handed_back(monkeypatch):
    monkeypatch.setattr(link_module, "STALL_S", 0.2)
    monkeypatch.setattr(
        link_module, "WINDOW_SIZE", 8 << 20
    )  # more than kernels hold: closing cannot be in order
    records = [bytes([number]) * (1 << 16) for number in range(112)]

    async def main():
        async with Server() as server:
            lost = []
            settings = NatsConfig(servers=(f"nats://127.0.0.1:{server.port}",))
            link = Link(settings, {}, "nats", on_lost=lost.extend, on_change=lambda: None)
            running = asyncio.create_task(link.run())
            await until(lambda: link.is_connected, "the first connection")
            for record in records:
                assert link.has_room()
                await link.publish("a", record)

            def is_second():
                link.on_time()
                return link.is_connected and link.connects == 2

            await until(is_second, "the second")
            assert lost == records
            assert len(link.unconfirmed) == 0
            await link.publish("a", b"newest")

            def is_confirmed():
                link.on_time()
                return not len(link.unconfirmed)

            await until(is_confirmed, "a confirmation")
            assert server.received == [[], [b"newest"]]
            assert len(link._closing) == 1  # it could not be closed in order
            server.goes_on.set()
            await until(lambda: server.received[0] == records, "what it had not read")
            running.cancel()
            await link.close()

    uvloop.run(main())


def test_no_more_connections_are_made_while_many_do_not_end(monkeypatch):
    monkeypatch.setattr(link_module, "CLOSING_MAX", 1)

    async def main():
        async with Server() as server:
            settings = NatsConfig(servers=(f"nats://127.0.0.1:{server.port}",))
            link = Link(settings, {}, "nats", on_lost=lambda lost: None, on_change=lambda: None)
            stuck = asyncio.create_task(server.goes_on.wait())
            link._closing.add(stuck)
            stuck.add_done_callback(link._closing.discard)
            running = asyncio.create_task(link.run())
            for _ in range(10):
                await asyncio.sleep(0)
            assert not server.connections
            server.goes_on.set()
            await until(lambda: link.is_connected, "a connection")
            running.cancel()
            await link.close()

    uvloop.run(main())


def test_attempts_that_fail_leave_nothing_behind(monkeypatch):
    monkeypatch.setattr(link_module, "CLOSE_S", 0.05)
    monkeypatch.setattr(link_module, "BACKOFF_MAX_S", 0.05)
    monkeypatch.setattr(link_module, "BACKOFF_MIN_S", 0.05)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)  # of an authority that nobody trusts

    async def main():
        async with Server(context) as server:
            settings = NatsConfig(servers=(f"tls://127.0.0.1:{server.port}",))
            link = Link(settings, {}, "nats", on_lost=lambda lost: None, on_change=lambda: None)
            running = asyncio.create_task(link.run())
            await until(lambda: server.connections >= 5, "attempts")
            ours = [task for task in asyncio.all_tasks() if "_close" in repr(task.get_coro())]
            assert len(ours) <= 1
            running.cancel()
            await link.close()

    uvloop.run(main())


def test_nothing_private_of_a_library_is_used():
    tree = ast.parse(Path(link_module.__file__).read_text(encoding="utf-8"))
    used = {
        f"line {node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and re.match("_(?!_)", node.attr)
        and ast.unparse(node.value) != "self"
    }
    assert not used
