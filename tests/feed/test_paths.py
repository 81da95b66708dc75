"""A market whose topics are on several paths: one connection, a socket for each, and each watched for itself."""

import asyncio
import contextlib
import json
import random
import time

import pytest
import uvloop
from aiohttp import web
from patience import until

from feedhandler.data import wire
from feedhandler.data.connecting import ConnectBudget, Policy
from feedhandler.data.status import Phase
from feedhandler.data.units import NS_PER_S
from feedhandler.exchanges.binance import MARKET, PUBLIC, BinanceLinear
from feedhandler.feed.legs import Legs
from feedhandler.feed.tap import Tap
from feedhandler.feed.websocket import Connection
from feedhandler.recordings.decoding import Decoding
from feedhandler.recordings.packing import unpack
from feedhandler.recordings.traffic import CLOSED, OPENED, RECEIVED, SENT, Item
from feedhandler.transport.http import HttpClient

START = 1000 * NS_PER_S
UNIX_NS = 1_790_000_000 * NS_PER_S
TICK_NS = 50_000_000
NATIVE = "ETHUSDT"
CANARY = "BTCUSDT"


def quote(native, number, ms):
    data = {"e": "bookTicker", "u": number, "s": native, "b": "10", "B": "1", "a": "11", "A": "2", "T": ms}
    return json.dumps({"stream": f"{native.lower()}@bookTicker", "data": data}).encode()


def mark(native, ms):
    data = {"e": "markPriceUpdate", "E": ms, "s": native, "p": "10", "i": "10", "r": "0.0001", "T": ms}
    return json.dumps({"stream": f"{native.lower()}@markPrice@1s", "data": data}).encode()


def legs_of(market, count=1, budget=None, emit=lambda state: None, kinds=("ticker", "trade"), **policy):
    for kind in kinds:
        market.add([NATIVE], 0, kind)
    legs = Legs(
        market,
        market.all_states,
        emit,
        count=count,
        policy=Policy(**policy),
        budget=budget or ConnectBudget(1000, 1.0),
        rng=random.Random(7),
    )
    legs.set_canary(CANARY)
    return legs


class Exchange:
    """Two paths, that acknowledge whatever is subscribed to, and bring what is theirs; the clock is the test's."""

    def __init__(self, count=1, **settings):
        self.now = START
        self.market = BinanceLinear()
        self.legs = legs_of(self.market, count, **settings)
        self.asked = []  # session, path, request
        self.silent = set()  # paths of sessions that bring no data
        self.dead = set()  # and that answer nothing
        self.ended = []  # reasons
        self.number = 0
        self.sent_ns = {}  # of each path: when it last brought something

    @property
    def session(self):
        return self.legs.sessions[0]

    def advance(self, session):
        step = session.advance(self.now)
        if step.connect:
            session.on_open(self.now)
            self.advance(session)
            return
        socket = session.sockets[step.socket]
        is_dead = (session, socket.path) in self.dead
        if step.ping and not is_dead:
            socket.on_ping()
        for message in step.send:
            request = json.loads(message)
            self.asked.append((session, socket.path, request))
            if not is_dead:
                socket.on_frame(json.dumps({"result": None, "id": request["id"]}).encode(), self.unix_ns)
        if step.close:
            self.ended.append(step.close)
            session.on_closed(self.now, step.close)

    @property
    def unix_ns(self):
        return UNIX_NS + self.now

    def bring(self, session):
        every = {PUBLIC: NS_PER_S // 5, MARKET: NS_PER_S}
        for socket in session.sockets:
            key = session, socket.path
            if key in self.silent | self.dead or self.now - self.sent_ns.get(key, 0) < every[socket.path]:
                continue
            self.sent_ns[key] = self.now
            ms = self.unix_ns // 1_000_000
            self.number += 1
            frame = quote(CANARY, self.number, ms) if socket.path == PUBLIC else mark(CANARY, ms)
            socket.on_frame(frame, self.unix_ns)

    def run(self, seconds, look=lambda: None):
        end = self.now + int(seconds * NS_PER_S)
        while self.now < end:
            self.now += TICK_NS
            for session in self.legs.sessions:
                if session.phase is Phase.RUNNING and session.subscriptions.is_acknowledged:
                    self.bring(session)
                self.advance(session)
            self.legs.advance(self.now)
            look()

    def topics(self, path):
        return {topic for _, on, request in self.asked for topic in request["params"] if on == path}


# --- decisions


def test_each_request_goes_where_its_topics_are():
    exchange = Exchange(kinds=BinanceLinear.kinds)
    exchange.run(5)
    assert exchange.topics(PUBLIC) == {
        "ethusdt@bookTicker",
        "ethusdt@depth20@100ms",
        "ethusdt@depth@100ms",
        "btcusdt@bookTicker",
    }
    assert exchange.topics(MARKET) == {
        "ethusdt@ticker",
        "ethusdt@aggTrade",
        "ethusdt@markPrice@1s",
        "ethusdt@forceOrder",
        "btcusdt@markPrice@1s",
    }
    numbers = [request["id"] for _, _, request in exchange.asked]
    assert len(set(numbers)) == len(numbers)
    assert exchange.session.subscriptions.is_acknowledged


def test_a_connection_takes_a_socket_for_each_path_from_the_budget():
    budget = ConnectBudget(3, 60.0)
    exchange = Exchange(count=2, budget=budget)
    exchange.run(5)
    assert [session.phase for session in exchange.legs.sessions] == [Phase.RUNNING, Phase.BACKOFF]
    exchange.run(60)
    assert [session.connects for session in exchange.legs.sessions] == [1, 1]


def test_a_connection_is_well_once_each_of_its_sockets_is():
    exchange = Exchange()
    session = exchange.session
    exchange.dead = {(session, path) for path in BinanceLinear.paths}  # nothing is acknowledged
    exchange.run(0.5)
    public, market = session.sockets
    public.on_frame(quote(NATIVE, 1, 1_790_000_000_000), exchange.unix_ns)
    exchange.run(0.5)
    assert (public.is_well, session.condition) == (True, wire.STALE)
    market.on_frame(mark(NATIVE, 1_790_000_000_000), exchange.unix_ns)
    exchange.run(0.5)
    assert session.condition == 0


def test_a_socket_that_is_dead_ends_its_connection_whatever_the_other_brings():
    for path in BinanceLinear.paths:
        exchange = Exchange(reconnect_after_s=300.0)
        exchange.run(10)
        exchange.dead = {(exchange.session, path)}
        exchange.run(26)
        assert exchange.ended == [f"no pong within 15 s, and no other frame, on {path}"]


def test_a_socket_that_lives_and_brings_nothing_any_more_is_found_beside_one_that_does():
    for path in BinanceLinear.paths:
        exchange = Exchange()
        exchange.run(40)
        assert exchange.session.condition == 0
        exchange.silent = {(exchange.session, path)}
        exchange.run(8)
        assert (exchange.session.is_stale, exchange.session.condition) == (True, wire.STALE)
        assert exchange.ended == []
        exchange.run(24)
        assert exchange.ended == [f"no data for 30 s, on {path}"]
        exchange.silent = set()
        exchange.run(10)
        assert exchange.session.condition == 0


@pytest.mark.long
def test_a_socket_that_acknowledges_and_is_silent_from_the_beginning_is_found_and_no_success():
    for path in BinanceLinear.paths:
        exchange = Exchange(kinds=("trade",), backoff_min_s=1.0, backoff_max_s=1.0)
        exchange.silent = {(exchange.session, path)}
        exchange.run(7)
        assert exchange.session.is_stale
        conditions = set()
        exchange.run(12, lambda: conditions.add(exchange.session.condition))  # noqa: B023
        assert conditions == {wire.STALE}, "an answer to our ping is no data"
        exchange.run(30)
        assert exchange.ended == [f"no data for 30 s, on {path}"]
        assert exchange.session.is_doubted
        exchange.run(60)
        assert exchange.session.attempts > 1
        exchange.silent = set()
        exchange.run(30)
        assert (exchange.session.condition, exchange.session.attempts) == (0, 0)


def test_a_refusal_without_an_id_is_of_the_request_on_its_own_socket():
    exchange = Exchange()
    session = exchange.session
    exchange.dead = {(session, path) for path in BinanceLinear.paths}
    exchange.run(0.1)
    ((_, path, request),) = exchange.asked
    assert path == PUBLIC
    refusal = json.dumps({"code": 2, "msg": "Invalid request"}).encode()
    public, market = session.sockets
    market.on_frame(refusal, exchange.unix_ns)
    exchange.run(0.1)
    assert session.subscriptions.pending() == len(exchange.topics(PUBLIC)) + 3, "nothing was answered"
    public.on_frame(refusal, exchange.unix_ns)
    exchange.run(0.5)
    assert [r["params"] for _, _, r in exchange.asked[1:]][:1] == [request["params"][:1]], "each alone"


def test_a_connection_is_renewed_once_both_sockets_have_followed_and_brought_what_was_under_way():
    exchange = Exchange()
    exchange.run(10)
    (old,) = exchange.legs.sessions
    exchange.legs.renew("by order")
    exchange.run(0.1)
    _, successor = exchange.legs.sessions
    exchange.silent = {(successor, MARKET)}
    exchange.run(10)
    assert exchange.session is old, "the other would miss what is on /market"
    exchange.silent = set()
    exchange.run(10)
    assert exchange.legs.sessions == [successor]
    assert successor.frames > old.frames


def test_data_that_were_contradicted_are_those_of_the_topics_own_socket():
    exchange = Exchange()
    exchange.silent = {(exchange.session, MARKET)}
    exchange.run(2)
    exchange.session.on_contradicted("ethusdt@bookTicker")
    exchange.run(1)
    assert exchange.ended == [], "data have come there"
    exchange.session.on_contradicted("ethusdt@ticker")
    exchange.run(1)
    assert exchange.ended == ["no data at all, while REST has news of ethusdt@ticker, on /market"]


# --- sockets


class Server:
    """Real WebSockets on loopback, at the market's two paths."""

    def __init__(self):
        self.sockets = {}  # path → the newest there
        self.opened = []  # paths
        self.requests = []  # path, topics
        self.closed = []  # path, the code with which the other side closed
        self.refused = set()  # paths

    async def handle(self, request):
        path = f"/{request.match_info['path']}"
        if path in self.refused:
            return web.Response(status=503, text="busy")
        socket = web.WebSocketResponse(heartbeat=None)
        await socket.prepare(request)
        self.sockets[path] = socket
        self.opened.append(path)
        async for message in socket:
            command = json.loads(message.data)
            self.requests.append((path, tuple(command["params"])))
            await socket.send_json({"result": None, "id": command["id"]})
        self.closed.append((path, socket.close_code))
        return socket


@contextlib.asynccontextmanager
async def connected(market, tap=None, **policy):
    server = Server()
    app = web.Application()
    app.router.add_get("/{path}/stream", server.handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    (_, port), *_ = runner.addresses
    legs = legs_of(market, backoff_min_s=0.02, backoff_max_s=0.05, max_attempts=0, **policy)
    async with HttpClient("http://127.0.0.1:1") as http:
        connection = Connection(
            "test", legs.sessions[0], market, http, f"ws://127.0.0.1:{port}", lambda: None, tap=tap
        )
        task = asyncio.create_task(connection.run())
        try:
            yield server, connection
        finally:
            await connection.stop()
            await task
            await runner.cleanup()


def is_subscribed(server, connection):
    paths = {path for path, _ in server.requests}
    return paths == set(BinanceLinear.paths) and connection.session.subscriptions.is_acknowledged


def test_a_socket_is_opened_at_each_path_and_gets_its_own_requests():
    async def main():
        market = BinanceLinear()
        async with connected(market) as (server, connection):
            await until(lambda: is_subscribed(server, connection), "both")
            assert server.opened == [PUBLIC, MARKET]
            for path, topics in server.requests:
                assert {market.path_of(topic) for topic in topics} == {path}
            assert connection.address.startswith("127.0.0.1:")
            await server.sockets[PUBLIC].send_bytes(quote(NATIVE, 5, 1_790_000_000_000))
            await server.sockets[MARKET].send_bytes(mark(CANARY, 1_790_000_000_000))
            await until(lambda: connection.session.has_data, "data on both")
            assert market.tickers[NATIVE].bid == 10.0
        await until(lambda: sorted(server.closed) == [(MARKET, 1000), (PUBLIC, 1000)], "both are closed")

    uvloop.run(main())


def test_what_ends_one_socket_ends_the_connection_and_both_are_made_anew():
    async def main(path, other):
        async with connected(BinanceLinear()) as (server, connection):
            await until(lambda: is_subscribed(server, connection), "both")
            await server.sockets[path].close(code=1001, message=b"maintenance")
            await until(lambda: len(server.opened) == 4, "both again")
            assert connection.session.ended == f"closed by the exchange, code 1001 'maintenance', on {path}"
            assert (other, 1000) in server.closed, "with a close frame"
            assert connection.session.connects == 2

    for path, other in ((PUBLIC, MARKET), (MARKET, PUBLIC)):
        uvloop.run(main(path, other))


def test_a_path_that_is_refused_leaves_no_socket_open():
    async def main():
        async with connected(BinanceLinear()) as (server, connection):
            await until(lambda: is_subscribed(server, connection), "both")
            server.refused = {MARKET}
            await server.sockets[PUBLIC].close()
            await until(lambda: connection.session.attempts >= 3, "attempts")
            assert "503" in connection.session.last_error
            await until(lambda: len(server.closed) >= len(server.opened) - 1, "they are closed")
            server.refused = set()
            await until(lambda: connection.session.phase is Phase.RUNNING, "both again")
            assert not server.sockets[PUBLIC].closed
            assert not server.sockets[MARKET].closed

    uvloop.run(main())


def test_a_socket_that_ends_while_the_other_is_being_opened_ends_the_attempt():
    async def main():
        market = BinanceLinear()
        async with connected(market) as (server, connection):
            handle, hold = server.handle, asyncio.Event()
            await until(lambda: is_subscribed(server, connection), "both")
            opened = connection._connect_socket

            async def slow(socket):
                if socket.signs.path == MARKET and not hold.is_set():
                    await server.sockets[PUBLIC].close(code=1001)
                    await hold.wait()
                await opened(socket)

            connection._connect_socket = slow
            await server.sockets[MARKET].close()
            await until(lambda: "1001" in connection.session.last_error, "the attempt has ended")
            hold.set()
            await until(lambda: connection.session.phase is Phase.RUNNING, "both again")
            assert handle is not None

    uvloop.run(main())


# --- recordings


def recorded(play):
    """Return the items of what happens in play, which gets server and connection."""
    sent = []
    tap = Tap(lambda batch: sent.append(batch) or True, time.time_ns, time.monotonic_ns, lambda call: call())

    async def main():
        async with connected(BinanceLinear(), tap) as (server, connection):
            await until(lambda: is_subscribed(server, connection), "both")
            await play(server, connection)
        tap.flush()

    uvloop.run(main())
    return [item for batch in sent for item in unpack(batch)]


def test_the_sockets_of_a_connection_are_recorded_each_under_its_path():
    async def play(server, connection):
        await server.sockets[MARKET].send_bytes(mark(CANARY, 1_790_000_000_000))
        await until(lambda: connection.session.sockets[1].has_data, "data")
        await server.sockets[PUBLIC].close(code=1001)
        await until(lambda: len(server.opened) == 4, "both again")

    items = recorded(play)
    opened = [(item.connection, item.name.partition("/public")[1]) for item in items if item.what is OPENED]
    assert opened == [
        ("linear.1/public", "/public"),
        ("linear.1/market", ""),
        ("linear.2/public", "/public"),
        ("linear.2/market", ""),
    ]
    for item in items:
        if item.what is SENT:
            topic = json.loads(item.data)["params"][0]
            assert item.connection.endswith(BinanceLinear().path_of(topic))
    numbers = [item.number for item in items if (item.what, item.connection) == (RECEIVED, "linear.1/market")]
    assert numbers == list(range(1, len(numbers) + 1))
    closed = [(item.connection, item.number) for item in items if item.what is CLOSED]
    assert closed[:2] == [
        ("linear.1/public", max(1, closed[0][1])),
        ("linear.1/market", len(numbers)),
    ]


def test_recorded_sockets_of_a_connection_are_one_line():
    """So that as many connections as may be are told apart, and what ends one socket ends the line."""
    decoding, connections = Decoding("binance"), {}
    for serial in (1, 2):
        for path in BinanceLinear.paths:
            name = f"linear.{serial}{path}"
            decoding.take(Item(OPENED, UNIX_NS, 0, name, name=f"wss://fstream.binance.com{path}/stream"))
            frame = (
                quote(NATIVE, 5 + serial, 1_790_000_000_000)
                if path == PUBLIC
                else mark(NATIVE, 1_790_000_000_000)
            )
            taken = decoding.take(Item(RECEIVED, UNIX_NS, 0, name, 1, data=frame))
            connections[serial, path] = decoding._connections[name]
            assert taken.problem == ""
    assert connections[1, PUBLIC] is connections[1, MARKET] is not connections[2, PUBLIC]
    assert [connections[serial, PUBLIC].lines[NATIVE] for serial in (1, 2)] == [0, 1]
    (carrier,) = decoding.carriers
    decoding.take(Item(CLOSED, UNIX_NS, 0, "linear.1/market"))
    assert carrier.lines_of(NATIVE) == [1]
    decoding.take(Item(CLOSED, UNIX_NS, 0, "linear.1/public"))
    assert carrier.lines_of(NATIVE) == [1]
