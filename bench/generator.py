"""The load: one simulated exchange that sends numbered messages when they are due, whatever happens meanwhile.

    this ══WS══▶ whoever subscribes

The protocol (REST answers, handshakes, acknowledgements, pings, limits) is the simulator's; sockets and the
schedule are this program's, because at 40,000 messages a second the load must cost next to nothing and be on
time to a fraction of a millisecond. Frames are printed before the clock starts. Open loop: message `k` of a
run is due at start + k / rate (in bursts of `burst`: all of a burst at once), and its lateness is reported,
from when it was due to when it was handed to the kernel. Messages are quotes (`numbered`) or, of Binance, trades,
depth or changes of books (`traffic`), whose bases REST has as they are after what was sent.

Driven by one JSON object per line on standard input, answered on standard output; it ends when that closes:

    {"do": "state"}                               → how many symbols are subscribed
    {"do": "render", "count": 5000}               → when the frames of the next run are printed
    {"do": "send", "rate": 1000, "burst": 1}      → what was sent, when, and how late
"""

import argparse
import bisect
import contextlib
import ctypes
import gc
import json
import os
import select
import socket
import sys
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import h11
import msgspec
import numpy as np
from wsproto import ConnectionType
from wsproto.connection import Connection as WsConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.handshake import H11Handshake

from bench import numbered
from bench.traffic import TRAFFIC, ModelBook, Turns
from feedhandler.sim import frames
from feedhandler.sim.binance import Binance
from feedhandler.sim.binance_linear import COMBINED, MICROSECOND
from feedhandler.sim.market import Instrument
from feedhandler.sim.protocol import (
    NS_PER_MS,
    NS_PER_S,
    NS_PER_US,
    BookState,
    Dialog,
    Exchange,
    HttpAnswer,
    HttpRequest,
    Now,
    Reply,
)
from feedhandler.sim.simulated import SEEDED, SIMULATED

QUANTUM_NS: Final = 200_000  # messages due within this of each other may leave in one write
AWAKE_NS: Final = 100_000
AWAKE_WRITES_PER_S: Final = 2_000  # up to a fifth of a core
HOUSEKEEPING_NS: Final = 100_000_000
LEAD_NS: Final = 20_000_000  # from the command to the first message
DRAIN_NS: Final = 2_000_000_000  # after the last message, for a client that reads slowly
BACKLOG_MAX: Final = 256 << 20  # bytes that one client leaves unread before the run is given up
SEND_BUFFER: Final = 4 << 20
PR_SET_TIMERSLACK: Final = 29  # linux/prctl.h: wake on time, not up to 50 us later
WEIGHT_PER_MINUTE: Final = 10**9
NICE: Final = -10  # where permitted: the load must be on time when what it loads needs every core

Encode = Callable[[int, int, Now], bytes]  # of a message's number, the client's variant, the time


class Client:
    """One TCP connection: HTTP requests, then perhaps a WebSocket."""

    def __init__(self, sock: socket.socket, remote: str) -> None:
        self.sock = sock
        self.remote = remote
        self.http = h11.Connection(h11.SERVER)
        self.ws: WsConnection | None = None
        self.dialog: Dialog | None = None
        self.text = ""  # of a message in pieces
        self.backlog = bytearray()  # what it left unread
        self.backlog_max = 0
        self.is_gone = False
        self.frames: list[bytes] = []  # of the present run,
        self.numbers: list[int] = []  # and which messages they are, rising
        self.position = 0

    def write(self, data: bytes) -> None:
        """Send now, or keep what the peer does not take."""
        self.backlog += data
        self.write_backlog()

    def write_backlog(self) -> None:
        """Try again to send what is left."""
        try:
            del self.backlog[: self.sock.send(self.backlog)]
        except BlockingIOError:
            pass
        except OSError:
            self.is_gone = True
        self.backlog_max = max(self.backlog_max, len(self.backlog))

    def write_due(self, number: int) -> None:
        """Send the messages of the present run below `number`."""
        start = self.position
        self.position = bisect.bisect_left(self.numbers, number, start)
        if self.position > start:
            self.write(b"".join(self.frames[start : self.position]))


class Numbered:
    """One symbol's numbered messages and who hears them."""

    def __init__(self, instrument: Instrument) -> None:
        self.instrument = instrument
        self.audience: dict[Client, Encode] = {}


class Generator:
    """The exchange, its clients and its schedule, in one loop."""

    def __init__(self, exchange: Exchange, kind: str, symbols: list[str], port: int) -> None:
        self._exchange = exchange
        self._kind = kind
        for symbol in symbols:
            numbered.prepare(exchange.by_symbol[symbol])
        self._numbered = {symbol: Numbered(exchange.by_symbol[symbol]) for symbol in symbols}
        self._stride = numbered.spread_stride(len(symbols))
        self._listener = socket.create_server(("127.0.0.1", port), backlog=256)
        self._listener.setblocking(False)
        self._clients: dict[int, Client] = {}
        self._poll = select.poll()
        self._poll.register(self._listener, select.POLLIN)
        self._poll.register(sys.stdin, select.POLLIN)
        self._input = b""
        self._first = self._next = 0  # messages of the present run
        self._hearers: list[Client] = []  # and who gets some of them
        self._sent = 0  # below it they were sent, of all runs
        if kind == "book":
            self._serve_bases(symbols)
        self._housekeeping_ns = 0
        self._is_over = False
        self.port: int = self._listener.getsockname()[1]
        exchange.ws_url = f"ws://127.0.0.1:{self.port}"

    def run(self) -> None:
        """Serve until standard input closes."""
        os.set_blocking(sys.stdin.fileno(), False)
        while not self._is_over:
            self._serve(HOUSEKEEPING_NS // NS_PER_MS)

    def _serve_bases(self, symbols: list[str]) -> None:
        """Let REST have the books as they are after what was sent."""
        turns, places = Turns(len(symbols)), {symbol: place for place, symbol in enumerate(symbols)}
        books: dict[int, ModelBook] = {}

        def book_state(instrument: Instrument, now: Now) -> BookState:
            place = places[instrument.listing.base + instrument.listing.quote]
            book = books.get(place) or books.setdefault(place, ModelBook(place))
            book.advance(turns.count(place, self._sent))
            return BookState(book.last_id, now, *book.levels())

        self._exchange.book_state = book_state  # type: ignore[method-assign]

    # --- the schedule

    def _send(self, rate: float, burst: int) -> dict[str, object]:
        first, count, clients = self._first, self._next - self._first, self._hearers
        start, start_unix_ns = time.monotonic_ns() + LEAD_NS, time.time_ns() + LEAD_NS
        writes: list[tuple[int, int]] = []  # how many messages were written by when
        cpu_s = time.process_time()
        # Rare writes are waited for awake at the end: to be woken costs some 50 us, which every path would show.
        awake_ns = AWAKE_NS if rate / burst <= AWAKE_WRITES_PER_S else 0
        sent = now = 0
        while sent < count and any(not client.is_gone for client in clients) and not self._is_over:
            due_ns = max(start + int(sent // burst * burst / rate * NS_PER_S), now + QUANTUM_NS)
            self._wait_until(due_ns, awake_ns)
            now = time.monotonic_ns()
            sent = min(count, (int((now - start) * rate / NS_PER_S) // burst + 1) * burst)
            for client in clients:
                client.write_due(first + sent)
            self._sent = first + sent
            writes.append((sent, now - start))
            if any(len(client.backlog) > BACKLOG_MAX for client in clients):
                break
        cpu_s = time.process_time() - cpu_s
        took_ns = time.monotonic_ns() - start
        self._drain(clients)
        return {
            "first": first,
            "sent": sent,
            "rate": rate,
            "burst": burst,
            "start_unix_ns": start_unix_ns,
            "took_s": took_ns / NS_PER_S,
            "cpu_s": cpu_s,
            "writes": len(writes),
            "late_us": _lateness_us(writes, rate, burst),
            "backlog_max": max((client.backlog_max for client in clients), default=0),
            "lost_clients": sum(client.is_gone for client in clients),
        }

    def _render(self, count: int) -> None:
        """Print every frame of the next run, for those who will hear them."""
        first = self._first = self._next
        self._next += count
        symbols = list(self._numbered.values())
        size, stride, now = len(symbols), self._stride, self._now()
        for client in self._clients.values():
            client.frames, client.numbers = [], []
            client.position = client.backlog_max = 0
        for number in range(first, first + count):
            each = symbols[number * stride % size]
            for client, encode in each.audience.items():
                assert client.dialog is not None, "only WebSockets subscribe"
                client.frames.append(frames.text(encode(number, client.dialog.variant, now)))
                client.numbers.append(number)
        self._hearers = [client for client in self._clients.values() if client.frames]

    def _wait_until(self, due_ns: int, awake_ns: int) -> None:
        """Serve until then, and sleep the last stretch precisely: poll counts in milliseconds."""
        self._serve(0)
        while (left_ns := due_ns - time.monotonic_ns()) > 0 and not self._is_over:
            if left_ns > 3 * NS_PER_MS:
                self._serve(left_ns // NS_PER_MS - 1)
            elif left_ns > awake_ns:
                time.sleep((left_ns - awake_ns) / NS_PER_S)

    def _drain(self, clients: list[Client]) -> None:
        """Give slow readers a while for what is left; one that leaves half a frame unread is cut off."""
        deadline = time.monotonic_ns() + DRAIN_NS
        while any(c.backlog and not c.is_gone for c in clients) and time.monotonic_ns() < deadline:
            self._serve(1)
        for client in clients:
            client.is_gone |= bool(client.backlog)
            client.frames, client.numbers = [], []

    # --- sockets

    def _serve(self, wait_ms: int) -> None:
        """Handle what arrived; wait for something that long at most."""
        for fd, _ in self._poll.poll(wait_ms):
            if fd == self._listener.fileno():
                self._accept()
            elif fd == sys.stdin.fileno():
                self._on_input()
            elif fd in self._clients:
                self._on_readable(self._clients[fd])
        now = self._now()
        is_due = now.mono_ns >= self._housekeeping_ns
        if is_due:
            self._housekeeping_ns = now.mono_ns + HOUSEKEEPING_NS
        for client in list(self._clients.values()):
            if is_due and client.dialog is not None:
                self._apply(client, client.dialog.on_tick(now), now)
            if client.backlog:
                client.write_backlog()
            if client.is_gone:
                self._forget(client)

    def _now(self) -> Now:
        return Now(time.monotonic_ns(), time.time_ns())

    def _accept(self) -> None:
        sock, address = self._listener.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        self._clients[sock.fileno()] = Client(sock, address[0])
        self._poll.register(sock, select.POLLIN)

    def _forget(self, client: Client) -> None:
        self._poll.unregister(client.sock)
        del self._clients[client.sock.fileno()]
        client.sock.close()
        for each in self._numbered.values():
            each.audience.pop(client, None)

    def _on_readable(self, client: Client) -> None:
        try:
            data = client.sock.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            client.is_gone = True
        elif client.ws is None:
            self._on_http(client, data)
        else:
            self._on_websocket(client, client.ws, data)

    def _on_http(self, client: Client, data: bytes) -> None:
        client.http.receive_data(data)
        request: h11.Request | None = None
        while client.ws is None:
            event = client.http.next_event()
            if isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.EndOfMessage) and request is not None:
                self._on_request(client, request)
            elif not isinstance(event, h11.Data):
                client.is_gone |= isinstance(event, h11.ConnectionClosed)
                return

    def _on_request(self, client: Client, head: h11.Request) -> None:
        url = urlsplit(head.target.decode())
        headers = {name.decode().lower(): value.decode() for name, value in head.headers}
        request = HttpRequest(
            method=head.method.decode(),
            path=unquote(url.path),
            query=parse_qsl(url.query, keep_blank_values=True),
            headers=headers,
            remote=client.remote,
        )
        now = self._now()
        if headers.get("upgrade", "").lower() != "websocket":
            self._answer(client, self._exchange.rest(request, now))
            return
        dialog = self._exchange.accept(request, now)
        if isinstance(dialog, HttpAnswer):
            self._answer(client, dialog)
            return
        handshake = H11Handshake(ConnectionType.SERVER)
        handshake.initiate_upgrade_connection([(n, v) for n, v in head.headers], head.target)
        client.write(handshake.send(AcceptConnection()))
        client.ws = WsConnection(ConnectionType.SERVER)
        client.dialog = dialog
        self._apply(client, dialog.on_open(now), now)
        if trailing := client.http.trailing_data[0]:
            self._on_websocket(client, client.ws, trailing)

    def _answer(self, client: Client, answer: HttpAnswer) -> None:
        headers = {
            **answer.headers,
            "Content-Type": answer.content_type,
            "Content-Length": str(len(answer.body)),
        }
        http = client.http
        client.write(http.send(h11.Response(status_code=answer.status, headers=list(headers.items()))) or b"")
        client.write((http.send(h11.Data(data=answer.body)) or b"") + (http.send(h11.EndOfMessage()) or b""))
        if http.our_state is h11.MUST_CLOSE:
            client.is_gone = not client.backlog
        else:
            http.start_next_cycle()

    def _on_websocket(self, client: Client, ws: WsConnection, data: bytes) -> None:
        assert client.dialog is not None, "accepted together"
        ws.receive_data(data)
        for event in ws.events():
            now = self._now()
            if isinstance(event, TextMessage | BytesMessage):
                piece = event.data if isinstance(event.data, str) else bytes(event.data).decode()
                client.text += piece
                if event.message_finished:
                    text, client.text = client.text, ""
                    self._apply(client, client.dialog.on_text(text, now), now)
            elif isinstance(event, Ping):
                self._apply(client, client.dialog.on_ping(bytes(event.payload), now), now)
            elif isinstance(event, Pong):
                self._apply(client, client.dialog.on_pong(bytes(event.payload), now), now)
            elif isinstance(event, CloseConnection):
                client.is_gone = True

    def _apply(self, client: Client, reply: Reply, now: Now) -> None:
        if reply.violation:
            print(f"generator: {self._exchange.name}: {reply.violation}", file=sys.stderr, flush=True)
        for text in reply.texts:
            client.write(frames.text(text))
        if reply.ping is not None:
            client.write(frames.frame(frames.PING, reply.ping))
        if reply.pong is not None:
            client.write(frames.frame(frames.PONG, reply.pong))
        for topic in reply.unsubscribe:
            self._subscribe(client, topic, now, is_wanted=False)
        for topic in reply.subscribe:
            self._subscribe(client, topic, now, is_wanted=True)
        if reply.close is not None:
            client.write(frames.close(reply.close.code or 1006, reply.close.reason))
            client.is_gone = True

    def _subscribe(self, client: Client, topic: str, now: Now, *, is_wanted: bool) -> None:
        """What is numbered goes by the schedule; other streams speak once, so that they count as alive."""
        if self._kind != "ticker":
            self._subscribe_traffic(client, topic, is_wanted=is_wanted)
            return
        stream = self._exchange.stream(topic)
        if stream is None:
            return
        each = self._numbered.get(self._exchange.symbols_of(stream))
        if each is None:
            return
        if not stream.moves_quote:
            if is_wanted:
                assert client.dialog is not None, "only WebSockets subscribe"
                client.write(frames.text(stream.encode(client.dialog.variant, now)))
        elif is_wanted:
            instrument, encode = each.instrument, stream.encode

            def quote(number: int, variant: int, now: Now) -> bytes:
                numbered.show(instrument, number)
                return encode(variant, now)

            each.audience[client] = quote
        else:
            each.audience.pop(client, None)

    def _subscribe_traffic(self, client: Client, topic: str, *, is_wanted: bool) -> None:
        native, _, stream = topic.partition("@")
        native, traffic = native.upper(), TRAFFIC[self._kind]
        each = self._numbered.get(native)
        if each is None or stream not in traffic.streams:
            return
        if not is_wanted:
            each.audience.pop(client, None)
            return
        size, index = len(self._numbered), list(self._numbered).index(native)
        symbol, head = native.encode(), b'{"stream":"%b","data":' % topic.encode()

        def encode(number: int, variant: int, now: Now) -> bytes:
            unix = now.unix_ns // (NS_PER_US if variant & MICROSECOND else NS_PER_MS)
            event = traffic.event(stream, symbol, index, number // size, unix)
            return head + event + b"}" if variant & COMBINED else event

        each.audience[client] = encode

    # --- commands

    def _on_input(self) -> None:
        data = os.read(sys.stdin.fileno(), 1 << 16)
        if not data:
            self._is_over = True
            return
        *lines, self._input = (self._input + data).split(b"\n")
        for line in lines:
            command = json.loads(line)
            print(json.dumps(self._do(command)), flush=True)

    def _do(self, command: dict[str, Any]) -> dict[str, object]:
        match command["do"]:
            case "state":
                return {"subscribed": sum(bool(each.audience) for each in self._numbered.values())}
            case "render":
                self._render(command["count"])
                return {"clients": len(self._hearers)}
            case "send":
                return self._send(command["rate"], command["burst"])
            case other:
                raise ValueError(f"no command {other!r}")


def _lateness_us(writes: list[tuple[int, int]], rate: float, burst: int) -> dict[str, float]:
    """Return quantiles of how late messages were handed to the kernel, in microseconds."""
    sent = np.array([count for count, _ in writes], dtype=np.int64)
    written_ns = np.repeat([at_ns for _, at_ns in writes], np.diff(sent, prepend=0))
    number = np.arange(len(written_ns))
    late_us = (written_ns - number // burst * burst / rate * NS_PER_S) / 1e3
    if not len(late_us):
        return {}
    names = {"p50": 50, "p99": 99, "p99.9": 99.9, "max": 100}
    return {
        name: float(value)
        for name, value in zip(names, np.percentile(late_us, list(names.values())), strict=True)
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.generator",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--exchange", default="binance", choices=SEEDED)
    parser.add_argument("--kind", default="ticker", choices=["ticker", *TRAFFIC], help="of messages")
    parser.add_argument("--symbols", type=int, default=10, help="how many symbols have numbered messages")
    parser.add_argument("--port", type=int, default=0, help="0: any that is free; printed in the first line")
    arguments = parser.parse_args()
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1)
    with contextlib.suppress(PermissionError):
        os.nice(NICE)
    exchange = SIMULATED[arguments.exchange].make(max(300, arguments.symbols * 13 // 10), 1, None)
    symbols = plain_symbols(exchange, arguments.symbols)
    if isinstance(exchange, Binance):  # so that hundreds of bases do not take minutes
        exchange.rules = msgspec.structs.replace(exchange.rules, weight_per_minute=WEIGHT_PER_MINUTE)
    elif arguments.kind != "ticker":
        parser.error(f"{arguments.exchange} has quotes alone here")
    generator = Generator(exchange, arguments.kind, symbols, arguments.port)
    canonical = [f"{each.base}/{each.quote}" for each in (exchange.by_symbol[s].listing for s in symbols)]
    print(json.dumps({"port": generator.port, "natives": symbols, "symbols": canonical}), flush=True)
    gc.disable()  # one collection, amid the frames of a run, made the load 40 ms late; nothing here is circular
    generator.run()


def plain_symbols(exchange: Exchange, count: int) -> list[str]:
    """Return the most traded symbols whose book always has two sides and whose name every client can read."""
    plain = [
        symbol
        for symbol, instrument in exchange.by_symbol.items()
        if instrument.listing.is_trading
        and not instrument.listing.is_thin
        and not instrument.listing.renamed_from
        and symbol.isascii()
        and symbol == symbol.upper()
    ]
    if len(plain) < count:
        sys.exit(f"the simulated {exchange.name} has {len(plain)} plain symbols, {count} were asked for")
    return plain[:count]


if __name__ == "__main__":
    main()
