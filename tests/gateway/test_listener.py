"""Connections of the gateway: slow peers, packed bodies, frames that no browser sends."""

import asyncio
import contextlib
import gzip
import json
import logging
import socket
import time

import pytest
import uvloop
from desk import TOKEN, make
from patience import PATIENCE_S

from feedhandler.gateway import api, listener, operations
from feedhandler.gateway.app import make_app
from feedhandler.gateway.listener import HttpListener, MaskCheck
from feedhandler.gateway.operations import routes
from feedhandler.gateway.screens import routes as screen_routes

SOON_S = 0.3
UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setattr(listener, "UNREAD_BODY_S", 0.05)


def head(method, path, *lines):
    fixed = (f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"Authorization: Bearer {TOKEN}")
    return "\r\n".join((*fixed, *lines, "", "")).encode()


POST = ("POST", "/v1/subscriptions", "Content-Type: application/json")
BODY = json.dumps({"exchange": "bybit", "symbols": ["BTC/USDT"]}).encode()


def play(tmp_path, scene, **settings):
    """Run a scene against a gateway without a merger: it gets what opens connections."""

    async def main():
        parts, screens = make(tmp_path)
        app = make_app(parts, [*routes(api.operations(parts), parts), *screen_routes(screens, parts)])
        served = HttpListener(app, **settings)
        port = await served.start("127.0.0.1", 0)
        try:
            await scene(lambda: asyncio.open_connection("127.0.0.1", port))
        finally:
            await served.close()
            await parts.accounts.close()
            parts.market_data.close()

    uvloop.run(main())


async def answer(reader):
    """Return status line and body of one answer."""
    text = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
    size = next(
        int(line.split()[1]) for line in text.split(b"\r\n") if line.lower().startswith(b"content-length")
    )
    return text.split(b"\r\n")[0].decode(), await asyncio.wait_for(reader.readexactly(size), PATIENCE_S)


async def closed(reader):
    """Return what came until the connection was closed."""
    return await asyncio.wait_for(reader.read(), PATIENCE_S)


@pytest.mark.parametrize(
    "said", [b"", b"G", head("GET", "/live")[:-2], b"GET /live HTTP/1.1\r\nHost: a\r\nA: "]
)
def test_who_says_nothing_or_half_a_request_is_closed(tmp_path, said):
    async def scene(connect):
        reader, writer = await connect()
        writer.write(said)
        assert await closed(reader) == b""
        writer.close()

    play(tmp_path, scene, idle_s=SOON_S)


def test_who_says_a_byte_now_and_then_is_closed_as_well(tmp_path):
    async def scene(connect):
        reader, writer = await connect()
        end = asyncio.ensure_future(closed(reader))
        for byte in b"GET /" + b"x" * 1000:
            writer.write(bytes((byte,)))
            await asyncio.sleep(SOON_S / 5)
            if end.done():
                break
        with contextlib.suppress(ConnectionResetError):  # a byte was on its way when it was closed
            assert await end == b""
        writer.close()

    play(tmp_path, scene, idle_s=SOON_S)


@pytest.mark.long
def test_a_connection_between_requests_and_a_websocket_live_on(tmp_path):
    async def scene(connect):
        idle, idle_writer = await connect()
        browser, browser_writer = await connect()
        browser_writer.write(UPGRADE + b"\r\n")
        assert b"101 Switching" in await asyncio.wait_for(browser.readuntil(b"\r\n\r\n"), PATIENCE_S)
        for _ in range(3):
            idle_writer.write(head("GET", "/v1/exchanges"))
            assert "200" in (await answer(idle))[0]
            await asyncio.sleep(SOON_S / 2)
        await asyncio.sleep(3 * SOON_S)
        browser_writer.write(b"\x89\x80abcd")  # a ping
        assert b"\x8a\x00" in await asyncio.wait_for(browser.read(1000), PATIENCE_S)
        for writer in (idle_writer, browser_writer):
            writer.close()

    play(tmp_path, scene, idle_s=SOON_S)


def test_a_body_that_does_not_come_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(operations, "BODY_S", SOON_S)

    async def scene(connect):
        reader, writer = await connect()
        writer.write(head(*POST, "Content-Length: 1000") + b'{"exchange"')
        status, body = await answer(reader)
        assert "408" in status
        assert b"the body has not come within" in body
        assert await closed(reader) == b""
        writer.close()

    play(tmp_path, scene)


@pytest.mark.parametrize("rest", [b"", b"zz\r\n", b'5\r\n{"exc'])
def test_a_body_that_is_broken_off_costs_no_traceback(tmp_path, caplog, rest):
    async def scene(connect):
        how = "Transfer-Encoding: chunked" if rest else "Content-Length: 1000"
        for _ in range(3):
            reader, writer = await connect()
            writer.write(head(*POST, how) + rest)
            await asyncio.sleep(0.05)
            writer.transport.abort()
        reader, writer = await connect()
        writer.write(head("GET", "/v1/exchanges"))
        assert "200" in (await answer(reader))[0]
        writer.close()

    caplog.set_level(logging.INFO)
    play(tmp_path, scene)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "GZIP, gzip", "x"])
@pytest.mark.parametrize("has_token", [True, False])
def test_a_packed_body_is_refused_unread(tmp_path, encoding, has_token):
    """A megabyte of them unpacks to a gigabyte."""

    async def scene(connect):
        reader, writer = await connect()
        lines = head(*POST, f"Content-Encoding: {encoding}", "Content-Length: 1000000")
        writer.write(lines if has_token else lines.replace(TOKEN.encode(), b"another"))
        status, body = await answer(reader)  # before a byte of it has been sent
        assert "415" in status
        assert json.loads(body)["field"] == "Content-Encoding"
        writer.close()

    play(tmp_path, scene)


@pytest.mark.long
def test_a_packed_body_is_not_unpacked_even_if_it_comes_with_its_request(tmp_path):
    bomb = gzip.compress(bytes(1 << 26))

    async def scene(connect):
        for _ in range(5):
            reader, writer = await connect()
            writer.write(head(*POST, "Content-Encoding: gzip", f"Content-Length: {len(bomb)}") + bomb)
            assert "415" in (await answer(reader))[0]
            writer.close()

    before = time.process_time()
    for _ in range(5):
        gzip.decompress(bomb)
    between = time.process_time()
    play(tmp_path, scene)
    assert time.process_time() - between < between - before, "less than it takes to unpack them"


def masked(first, payload=b"", mask=b"abcd"):
    size = len(payload)
    length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes((first,)) + length + mask + bytes(c ^ mask[i % 4] for i, c in enumerate(payload))


async def browser(connect, *lines):
    reader, writer = await connect()
    writer.write(UPGRADE + b"".join(line + b"\r\n" for line in lines) + b"\r\n")
    text = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
    assert b"101 Switching" in text
    return text, reader, writer


@pytest.mark.parametrize("before", [b"", masked(0x8A), masked(0x81, b"x" * 200)[:-1] + b"?"])
def test_a_frame_that_is_not_masked_ends_the_connection_with_1002(tmp_path, before):
    async def scene(connect):
        _, reader, writer = await browser(connect)
        writer.write(before + b"\x81\x02{}")
        assert (await closed(reader)).endswith(b"\x88\x02\x03\xea")
        writer.close()

    play(tmp_path, scene)


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 7, 1000])
def test_masked_frames_are_handed_on_however_they_are_cut(cut):
    class Parser:
        data = b""

        def feed_data(self, data):
            self.data += data
            return False, b""

    stream = b"".join(masked(0x81, bytes(size)) for size in (0, 1, 125, 126, 1000)) + masked(0x8A)
    stream += b"\x82\xff" + (70_000).to_bytes(8, "big") + bytes(4 + 70_000) + masked(0x89, b"x")
    refused, parser = [], Parser()
    check = MaskCheck(parser, lambda: refused.append(1))
    for start in range(0, len(stream), cut):
        check.feed_data(stream[start : start + cut])
    assert (parser.data, refused) == (stream, [])
    for byte in b"\x81\x05hello" + stream:
        check.feed_data(bytes((byte,)))
    assert refused == [1]
    assert parser.data.removeprefix(stream) in (b"", b"\x81"), "nothing of it is taken"


def test_packed_frames_are_neither_offered_nor_taken(tmp_path):
    async def scene(connect):
        text, reader, writer = await browser(connect, b"Sec-WebSocket-Extensions: permessage-deflate")
        assert b"extensions" not in text.lower()
        writer.write(masked(0xC1, b"packed"))
        assert b"\x03\xea" in await closed(reader)
        writer.close()

    play(tmp_path, scene)


def test_the_limit_on_unread_answers_is_on_each_connection(tmp_path, monkeypatch):
    seen = []
    made = listener.HttpConnection.connection_made

    def connection_made(self, transport):
        sock = transport.get_extra_info("socket")
        seen.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
        made(self, transport)

    monkeypatch.setattr(listener.HttpConnection, "connection_made", connection_made)

    async def scene(connect):
        reader, writer = await connect()
        writer.write(head("GET", "/v1/exchanges"))
        await answer(reader)
        writer.close()

    play(tmp_path, scene)
    assert seen == [listener.UNREAD_ANSWER_S * 1000]
