"""The shell around a session, against servers that misbehave below the protocol of any exchange."""

import asyncio
import base64
import contextlib
import gc
import hashlib
import json
import logging
import random
import re
import socket
import ssl
import struct
import time

import picows
import pytest
import trustme
import uvloop
from ends import black_hole
from patience import until

from feedhandler.data.connecting import ConnectBudget, Policy
from feedhandler.data.status import Phase
from feedhandler.exchanges import EXCHANGES
from feedhandler.feed.legs import Legs
from feedhandler.feed.websocket import FRAME_SIZE_MAX, Connection
from feedhandler.runtime.lifecycle import set_up_picows_log
from feedhandler.transport import dial
from feedhandler.transport.http import HttpClient

TEXT, BINARY, CONTINUATION, CLOSE, PING = 1, 2, 0, 8, 9


def book(update_id, bid="1.5"):
    data = {"s": "AUSDT", "b": [[bid, "2"]], "a": [["9.5", "3"]], "u": update_id, "seq": 1}
    message = {"topic": "orderbook.1.AUSDT", "ts": 1790000000000, "type": "snapshot", "data": data}
    return json.dumps(message).encode()


def frame(payload, opcode=TEXT, fin=True):
    size = len(payload)
    head = bytes([opcode | (0x80 if fin else 0)])
    if size < 126:
        return head + bytes([size]) + payload
    if size < 65536:
        return head + b"\x7e" + struct.pack(">H", size) + payload
    return head + b"\x7f" + struct.pack(">Q", size) + payload


async def upgrade(reader, writer):
    """Answer the WebSocket handshake by hand."""
    request = await reader.readuntil(b"\r\n\r\n")
    key = next(
        line.split(b":")[1].strip()
        for line in request.split(b"\r\n")
        if line.lower().startswith(b"sec-websocket-key")
    )
    accept = base64.b64encode(hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
    head = [b"HTTP/1.1 101 Switching Protocols", b"Upgrade: websocket", b"Connection: Upgrade"]
    writer.write(b"\r\n".join([*head, b"Sec-WebSocket-Accept: " + accept, b"", b""]))
    await writer.drain()


@pytest.fixture(params=["plain", "tls"], autouse=True, scope="module")
def encryption(request, tmp_path_factory):
    """Every test here runs without and with TLS: below it are two different transports."""
    Bench.tls = None
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "tls":
            authority = trustme.CA()
            Bench.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            authority.issue_cert("127.0.0.1", "exchange.test").configure_cert(Bench.tls)
            path = tmp_path_factory.mktemp("tls") / "authority.pem"
            authority.cert_pem.write_to_path(path)
            patch.setenv("SSL_CERT_FILE", str(path))
        yield
    Bench.tls = None


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    """Those after what was not foreseen; the back-off is the bench's."""
    monkeypatch.setattr("feedhandler.transport.tasks.PAUSE_S", (0.05, 0.1))


class Bench:
    """A connection to a server that the test plays; flushed is what left after each socket read."""

    tls = None  # of the server
    source_address = ""
    host = "127.0.0.1"

    def __init__(self, **policy):
        self.exchange = EXCHANGES["bybit"].main()
        self.exchange.add(["AUSDT"], 0)
        self.batch, self.flushed = [], []
        settings = {"backoff_min_s": 0.05, "backoff_max_s": 0.1, "max_attempts": 0, **policy}
        legs = Legs(
            self.exchange,
            self.exchange.all_states,
            lambda state: self.batch.append((state.bid, state.flags)),
            count=1,
            policy=Policy(**settings),
            budget=ConnectBudget(1000, 1.0),
            rng=random.Random(1),
        )
        (self.session,) = legs.sessions

    def flush(self):
        if self.batch:
            self.flushed.append(self.batch[:])
            self.batch.clear()

    async def until(self, condition):
        await until(condition, "what the test waits for")

    @contextlib.asynccontextmanager
    async def running(self, serve):
        writers = []

        async def handle(reader, writer):
            writers.append(writer)
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await serve(reader, writer, len(writers))

        server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=self.tls)
        url = f"{'wss' if self.tls else 'ws'}://{self.host}:{server.sockets[0].getsockname()[1]}"
        async with HttpClient("http://127.0.0.1:1") as http:
            connection = self.connection = Connection(
                "test", self.session, self.exchange, http, url, self.flush, self.source_address
            )
            task = asyncio.create_task(connection._failures.endure("test", connection.run))
            try:
                yield writers
            finally:
                await connection.stop()
                await task
                for writer in writers:
                    writer.close()
                server.close()


def play(serve, condition, **policy):
    """Run a connection against `serve(reader, writer, number)` until condition(bench)."""
    bench = Bench(**policy)

    async def main():
        async with bench.running(serve):
            await bench.until(lambda: condition(bench))
        return bench

    return uvloop.run(main())


def test_what_one_read_brought_leaves_as_one_batch_even_behind_a_ping():
    async def serve(reader, writer, number):
        await upgrade(reader, writer)
        writer.write(frame(book(2)) + frame(book(3)) + frame(b"hello", PING))
        await reader.read()

    bench = play(serve, lambda b: b.flushed)
    assert bench.flushed[0] == [(1.5, 0), (1.5, 0)]


def test_a_ping_is_answered_with_its_payload():
    answers = []

    async def serve(reader, writer, number):
        await upgrade(reader, writer)
        writer.write(frame(b"1790000000123", PING))
        while not answers:
            head = await reader.readexactly(2)
            mask = await reader.readexactly(4)
            payload = bytes(c ^ mask[i % 4] for i, c in enumerate(await reader.readexactly(head[1] & 0x7F)))
            if head[0] & 0x0F == 0xA:
                answers.append(payload)

    play(serve, lambda b: answers)
    assert answers == [b"1790000000123"]


def test_a_silent_exchange_is_pinged_by_the_websocket_itself_where_it_has_no_ping_of_its_own():
    opcodes = []

    async def serve(reader, writer, number):
        await upgrade(reader, writer)
        while True:
            head = await reader.readexactly(2)
            size = head[1] & 0x7F
            if size == 126:
                size = int.from_bytes(await reader.readexactly(2), "big")
            await reader.readexactly(4 + size)
            opcodes.append(head[0] & 0x0F)

    bench = Bench()
    bench.exchange.ping = lambda command_id: None

    async def main():
        async with bench.running(serve):
            await bench.until(lambda: bench.session.phase is Phase.RUNNING)
            bench.session.sockets[0].ping_due = 1  # now
            await bench.until(lambda: PING in opcodes)

    uvloop.run(main())


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_a_message_in_fragments_with_a_ping_between_is_one_message(opcode):
    payload = book(2, "7.25")

    async def serve(reader, writer, number):
        await upgrade(reader, writer)
        pieces = [payload[:10], payload[10:50], payload[50:]]
        writer.write(
            frame(pieces[0], opcode, fin=False) + frame(b"", PING) + frame(pieces[1], CONTINUATION, fin=False)
        )
        await asyncio.sleep(0.05)
        writer.write(frame(pieces[2], CONTINUATION))
        await reader.read()

    bench = play(serve, lambda b: b.flushed)
    assert bench.flushed[0][0] == (7.25, 0)
    assert bench.session.decode_errors == 0


def test_a_stream_cut_at_every_byte_gives_the_same_records():
    async def serve(reader, writer, number):
        await upgrade(reader, writer)
        for byte in frame(book(2, "1.25")) + frame(book(3, "2.25")):
            writer.write(bytes([byte]))
            await writer.drain()
            await asyncio.sleep(0)
        await reader.read()

    bench = play(serve, lambda b: sum(map(len, b.flushed)) >= 2)
    assert [r for batch in bench.flushed for r in batch][:2] == [(1.25, 0), (2.25, 0)]


@pytest.mark.parametrize("is_answered", [False, True])
@pytest.mark.parametrize(
    ("nonsense", "words"),
    [
        (
            frame(b"x" * (FRAME_SIZE_MAX + 1)),
            "since the exchange sent more than a message may have: .* (code 1009)",
        ),
        (
            frame(b"x" * (FRAME_SIZE_MAX - 1), fin=False) + frame(b"x" * 100, CONTINUATION),
            "since the exchange sent more than a message may have: .* (code 1009)",
        ),
        (
            b"\xff\xff\xff\xff garbage that is no WebSocket frame",
            "since the exchange broke the WebSocket protocol: .* (code 1002)",
        ),
        (frame(b"\x00", CLOSE), "since the exchange broke the WebSocket protocol: .* (code 1002)"),
    ],
    ids=["large", "large in fragments", "garbage", "half a code"],
)
def test_a_broken_or_oversized_frame_costs_the_connection_and_is_told_once_in_words(
    nonsense, words, is_answered, caplog, monkeypatch
):
    """It was we who closed, whether or not the exchange answers."""
    picows_log = logging.getLogger("picows")
    monkeypatch.setattr(picows_log, "level", picows_log.level)
    set_up_picows_log(is_verbose=False)

    async def serve(reader, writer, number):
        await upgrade(reader, writer)
        if number == 1:
            writer.write(frame(book(2)))
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.write(nonsense)
            if is_answered:
                writer.write(frame(struct.pack(">H", 1002), CLOSE))
        else:
            writer.write(frame(book(3, "8.5")))
        await reader.read()

    bench = play(serve, lambda b: [(8.5, 0)] in b.flushed)
    assert bench.session.connects == 2
    gc.collect()
    assert "never retrieved" not in caplog.text
    told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    pattern = re.escape(f"test: leg 0: closed by us, {words}").replace(re.escape(".*"), ".+")
    assert len(told) == 1, told
    assert re.fullmatch(pattern, told[0]), told
    gc.collect()


@pytest.mark.parametrize("code", [1000, 1001, 1006, 1008, 1012, 1013, 3000, 4001])
def test_a_close_frame_is_answered_and_its_code_reported(code):
    async def serve(reader, writer, number):
        await upgrade(reader, writer)
        if number == 1:
            writer.write(frame(struct.pack(">H", code) + b"Too many requests", CLOSE))
        await reader.read()

    errors = []

    def condition(bench):
        errors.append(bench.session.ended)
        return bench.session.connects >= 2 and bench.session.phase is Phase.RUNNING

    play(serve, condition)
    assert f"closed by the exchange, code {code} 'Too many requests'" in errors


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n", "HTTP 429"),
        (b"HTTP/1.1 403 Forbidden\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n", "HTTP 403"),
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "HTTP 503"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "refused"),
        (b"nonsense\r\n\r\n", "refused"),
        (b"", "closed during the WebSocket handshake"),
    ],
)
def test_a_refused_upgrade_is_tried_again(answer, text):
    errors = []

    async def serve(reader, writer, number):
        if number > 1:
            await upgrade(reader, writer)
            writer.write(frame(book(2)))
            await reader.read()
            return
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    def condition(bench):
        if bench.session.ended:
            errors.append(bench.session.ended)
        return bench.flushed

    play(serve, condition)
    assert text in errors[0]


def test_a_redirected_upgrade_is_not_followed_and_the_target_is_named():
    elsewhere = []

    async def serve(reader, writer, number):
        await reader.readuntil(b"\r\n\r\n")
        port = writer.get_extra_info("sockname")[1]
        elsewhere.append(number)
        target = f"/ws?token=secret-{number}" if number == 1 else f"ws://localhost:{port}/other?token=secret"
        writer.write(f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    errors = set()

    def condition(bench):
        errors.add(bench.session.ended)
        return bench.session.connects == 3

    bench = play(serve, condition, backoff_min_s=0.3)
    assert len(elsewhere) <= bench.session.connects, "each attempt is one connection"
    texts = sorted(re.sub(r":\d+", ":PORT", error) for error in errors if error)
    scheme = "wss" if Bench.tls else "ws"
    head = f"WebSocket handshake refused by {scheme}://127.0.0.1:PORT: HTTP 302, a redirect to "
    tail = ", which is not followed: configure it, if it is the exchange's"
    assert texts == [f"{head}/ws{tail}", f"{head}ws://localhost:PORT/other{tail}"]


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (
            "451 Unavailable For Legal Reasons",
            "HTTP 451 Not here You are elsewhere & more; the exchange does not serve the country",
        ),
        ("403 Forbidden", "HTTP 403 Not here You are elsewhere & more; a firewall of the exchange"),
    ],
)
def test_a_final_refusal_gets_a_long_pause_the_first_words_and_a_remedy(status, words, caplog):
    page = b"<head><style>b{}</style><title>Not here</title></head>You\nare \x1b<b>elsewhere</b> &amp; more"

    async def serve(reader, writer, number):
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 {status}\r\nContent-Type: text/html\r\nContent-Length: {len(page)}\r\n\r\n"
        writer.write(head.encode() + page)
        await writer.drain()
        writer.close()

    bench = Bench()

    async def main():
        async with bench.running(serve):
            await bench.until(lambda: bench.session.ended)
            return bench.session.deadline_mono_ns - time.monotonic_ns(), bench.session.ended

    wait_ns, error = uvloop.run(main())
    assert wait_ns > 500 * 10**9
    assert words in error
    assert error in caplog.text
    assert bench.session.connects == 1


def test_an_upgrade_that_comes_after_we_gave_up_is_let_go():
    """The first attempt's socket opens while the second one is already in use."""
    late = asyncio.Event()
    ended = []

    async def serve(reader, writer, number):
        if number == 1:
            await late.wait()
            try:
                await upgrade(reader, writer)
                with contextlib.suppress(ConnectionError):
                    writer.write(frame(book(9, "666.0")))
                    await writer.drain()
                await reader.read()
            finally:
                ended.append(number)
            return
        await upgrade(reader, writer)
        writer.write(frame(book(2)))
        late.set()
        await reader.read()

    bench = play(serve, lambda b: b.flushed and ended, connect_timeout_s=0.3)
    assert all(bid == 1.5 for batch in bench.flushed for bid, _ in batch)
    assert bench.session.connects == 2


def test_what_the_library_raises_costs_an_attempt(monkeypatch, caplog):
    """Whatever it is: here what uvloop says of a number that another transport has."""
    connect, calls = picows.ws_connect, []

    async def failing(*arguments, **settings):
        calls.append(settings)
        if len(calls) == 1:
            raise RuntimeError("File descriptor 27 is used by transport")
        return await connect(*arguments, **settings)

    monkeypatch.setattr(picows, "ws_connect", failing)

    async def serve(reader, writer, number):
        await upgrade(reader, writer)
        writer.write(frame(book(2)))
        await reader.read()

    bench = play(serve, lambda b: b.flushed)
    assert bench.session.connects == 2
    assert "the WebSocket: unforeseen, 1 times by now" in caplog.text


def test_what_is_raised_while_a_frame_is_taken_costs_the_connection(caplog):
    """picows closes it, and leaves what was raised to who waits for its end."""

    async def serve(reader, writer, number):
        await upgrade(reader, writer)
        writer.write(frame(book(number + 1)))
        await reader.read()

    bench, taken = Bench(), []
    (signs,) = bench.session.sockets
    on_frame = signs.on_frame

    def failing(payload, recv_ns):
        taken.append(recv_ns)
        if len(taken) == 1:
            raise KeyError("of a library")
        return on_frame(payload, recv_ns)

    signs.on_frame = failing

    async def main():
        async with bench.running(serve):
            await bench.until(lambda: bench.flushed)

    uvloop.run(main())
    assert bench.session.connects == 2
    assert "KeyError" in caplog.text
    gc.collect()
    assert "never retrieved" not in caplog.text


def test_a_connection_that_failed_while_it_was_open_is_begun_anew():
    serving = []

    async def serve(reader, writer, number):
        serving.append(number)
        await upgrade(reader, writer)
        writer.write(frame(book(number + 1)))
        await reader.read()

    bench = Bench()

    async def main():
        async with bench.running(serve) as _:
            await bench.until(lambda: bench.flushed)
            advance, failed = bench.session.advance, []

            def failing(now_mono_ns):
                if not failed:
                    failed.append(True)
                    raise RuntimeError("a library's own")
                return advance(now_mono_ns)

            bench.session.advance = failing
            await bench.until(lambda: len(serving) == 2 and bench.session.condition == 0)

    uvloop.run(main())


@pytest.mark.parametrize("source", ["", "127.0.0.3"])
def test_of_two_addresses_of_which_the_first_takes_no_syn_the_second_is_used(monkeypatch, source):
    monkeypatch.setattr(Bench, "host", "exchange.test")
    monkeypatch.setattr(Bench, "source_address", source)

    async def serve(reader, writer, number):
        await upgrade(reader, writer)
        writer.write(frame(book(2)))
        await reader.read()

    bench, seen = Bench(), []

    async def main(dead):
        async def resolve(host, port):
            if not port:
                return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0))]
            assert host == "exchange.test"
            return [
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", address)
                for address in (dead, ("127.0.0.1", port))
            ]

        monkeypatch.setattr(dial, "resolve", resolve)
        async with bench.running(serve):
            await bench.until(lambda: bench.flushed)
            seen.append(bench.connection.address)

    with black_hole() as dead:
        uvloop.run(main(dead))
    assert seen[0].startswith("127.0.0.1:")
    assert bench.session.connects == 1


def test_the_address_that_is_used_is_known_while_it_is():
    seen = []

    async def serve(reader, writer, number):
        await upgrade(reader, writer)
        writer.write(frame(book(2)))
        await reader.read()

    bench = Bench()

    async def main():
        async with bench.running(serve):
            await bench.until(lambda: bench.flushed)
            seen.append(bench.connection.address)
        seen.append(bench.connection.address)

    uvloop.run(main())
    assert re.fullmatch(r"127\.0\.0\.1:\d+", seen[0])
    assert seen[1] == ""


def test_a_connection_comes_from_the_address_that_it_was_given(monkeypatch):
    monkeypatch.setattr(Bench, "source_address", "127.0.0.2")
    peers = []

    async def serve(reader, writer, number):
        peers.append(writer.get_extra_info("peername")[0])
        await upgrade(reader, writer)
        writer.write(frame(book(2)))
        await reader.read()

    play(serve, lambda b: b.flushed)
    assert peers == ["127.0.0.2"]


@pytest.mark.parametrize(
    ("address", "text"),
    [
        ("192.0.2.7", "://127.0.0.1 from 192.0.2.7, which is no address of this machine: "),
        ("::1", "://127.0.0.1 from ::1: "),  # another family than the host's
    ],
)
def test_an_address_that_cannot_be_connected_from_is_named(monkeypatch, address, text):
    monkeypatch.setattr(Bench, "source_address", address)

    async def serve(reader, writer, number):
        raise AssertionError("nobody comes")

    # Not in the next attempt, which this would end for another reason.
    bench = play(serve, lambda b: b.session.ended and b.session.phase is Phase.BACKOFF)
    assert re.sub(r":\d+ from", " from", bench.session.ended).startswith(
        f"cannot connect to {'wss' if Bench.tls else 'ws'}{text}"
    )
    assert bench.session.phase is Phase.BACKOFF


def test_a_peer_that_never_reads_does_not_hold_up_the_end():
    async def serve(reader, writer, number):
        await upgrade(reader, writer)
        writer.write(frame(book(2)))
        await asyncio.sleep(60)

    bench = play(serve, lambda b: b.flushed)
    assert bench.flushed[-1] == [(1.5, 4)], "DOWN is the last word"
