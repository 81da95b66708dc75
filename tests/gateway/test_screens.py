"""/ws with real sockets: what well-behaved clients see, whatever the others do."""

import asyncio
import contextlib
import json
import re
import socket
import time

import aiohttp
import pytest
import uvloop
from desk import TOKEN, beat, make
from patience import PATIENCE_S, until

from feedhandler.data import wire
from feedhandler.data.instruments import Instrument, instrument_list
from feedhandler.data.status import ExchangeStatus, FeedStatus
from feedhandler.gateway import screens as module
from feedhandler.gateway.app import make_app
from feedhandler.gateway.listener import HttpListener
from feedhandler.gateway.screens import framed, routes

SYMBOLS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")


class Desk:
    """A gateway without feeds: the test is the stream."""

    def __init__(self, parts, screens, url):
        self.parts, self.screens, self.url = parts, screens, url
        self.sequence = 0

    def tick(self, symbol="BTC/USDT", exchange="binance", flags=wire.SIMULATED, **values):
        self.sequence += 1
        topic = wire.topic(wire.TICKER, exchange, symbol)
        now = time.time_ns()
        self.screens.newest.take(
            wire.Ticker(
                topic=topic,
                session=7,
                sequence=self.sequence,
                flags=flags,
                recv_ns=now,
                publish_ns=now,
                last=float(self.sequence),
                **values,
            )
        )
        return self.sequence

    def take(self, record):
        """A record of the stream of another kind than tickers."""
        self.parts.market_data.follower.take(wire.pack(record))

    def trade(self, sequence, symbol="BTC/USDT", exchange="binance"):
        self.take(wire.Trade(f"trade.{exchange}.{symbol}", session=7, sequence=sequence, price=1.0, size=2.0))

    def depth(self, sequence, symbol="BTC/USDT", exchange="binance", flags=0):
        levels = [(float(20 - n), 1.0) for n in range(5)], [(float(21 + n), 1.0) for n in range(5)]
        topic = f"depth.{exchange}.{symbol}"
        self.take(wire.Depth.of(topic, *levels, session=7, sequence=sequence, flags=flags))

    def beat(self):
        beat(self.parts)

    @contextlib.asynccontextmanager
    async def client(self, query="", **options):
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"{self.url}/ws{query}", **options) as ws,
        ):
            yield Client(ws)

    async def until(self, condition, what):
        await until(condition, what)


class Client:
    def __init__(self, ws):
        self.ws = ws
        self.last = {}

    async def receive(self):
        message = await self.ws.receive(PATIENCE_S)
        assert message.type is aiohttp.WSMsgType.TEXT, message
        decoded = json.loads(message.data)
        if decoded["type"] == "market_update":
            self.see(decoded["data"])
        elif decoded["type"] == "snapshot":
            for each in decoded["data"]["tickers"]:
                self.last[each["topic"]] = each["sequence"]
        return decoded

    def see(self, data):
        assert data["sequence"] >= self.last.get(data["topic"], 0), "never an old one"
        self.last[data["topic"]] = data["sequence"]

    async def next(self, kind, condition=lambda data: True):
        while True:
            message = await self.receive()
            if message["type"] == kind and condition(message.get("data")):
                return message.get("data")

    async def send(self, **message):
        await self.ws.send_str(json.dumps(message))

    async def closed(self):
        """Return the code with which it is closed."""
        while True:
            message = await self.ws.receive(PATIENCE_S)
            if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSING):
                return self.ws.close_code


def play(tmp_path, scene, gateway="", host="127.0.0.1"):
    async def main():
        parts, screens = make(tmp_path, gateway, host)
        app = make_app(parts, routes(screens, parts))

        async def goodbye(app):
            await screens.close()

        app.on_shutdown.append(goodbye)
        listener = HttpListener(app)
        port = await listener.start("127.0.0.1", 0)
        desk = Desk(parts, screens, f"http://127.0.0.1:{port}")
        desk.port, desk.close = port, listener.close
        desk.beat()
        run = asyncio.create_task(screens.run(parts))
        try:
            await scene(desk)
        finally:
            await listener.close()
            run.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await run

    uvloop.run(main())


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_frames_are_what_rfc_6455_says(size):
    frame = framed(b"x" * size)
    assert frame[0] == 0x81
    head = {0: 2, 125: 2, 126: 4, 65535: 4, 65536: 10}[size]
    assert frame[1] == {2: size, 4: 126, 10: 127}[head]
    assert len(frame) == head + size


def test_a_client_gets_a_snapshot_and_then_what_changes(tmp_path):
    async def scene(desk):
        desk.tick()
        async with desk.client() as client:
            snapshot = await client.next("snapshot")
            assert [t["symbol"] for t in snapshot["tickers"]] == ["BTC/USDT"]
            assert snapshot["tickers"][0]["flags"] == ["SIMULATED"]
            assert snapshot["tickers"][0]["bid"] is None, "what is not known is null"
            assert set(snapshot["exchanges"]) == {"binance", "bybit"}
            sequence = desk.tick("ETH/USDT", bid=2.5)
            data = await client.next("market_update")
            assert (data["sequence"], data["symbol"], data["bid"]) == (sequence, "ETH/USDT", 2.5)
            assert (await client.next("heartbeat"))["merger"]["pid"] == 1
            desk.parts.market_data.statuses["binance"] = ExchangeStatus(
                exchange="binance", state="stale", since_ns=1
            )
            desk.screens.on_status("binance")
            assert (await client.next("status_update"))["status"]["state"] == "stale"

    play(tmp_path, scene)


def test_a_client_hears_of_what_it_asked_for_only(tmp_path):
    async def scene(desk):
        async with desk.client("?symbols=ETH/USDT,SOL/USDT&exchanges=binance&per_s=50") as client:
            await client.next("snapshot")
            desk.tick("BTC/USDT")
            desk.tick("ETH/USDT", "bybit")
            desk.tick("ETH/USDT")
            assert (await client.next("market_update"))["topic"] == "ticker.binance.ETH/USDT"
            await client.send(type="subscribe", symbols=["BTC/USDT"], exchanges=None)
            snapshot = await client.next("snapshot")
            assert [t["topic"] for t in snapshot["tickers"]] == ["ticker.binance.BTC/USDT"]
            await client.send(type="subscribe")
            assert len((await client.next("snapshot"))["tickers"]) == 3

    play(tmp_path, scene)


@pytest.mark.long
def test_updates_are_conflated_at_the_clients_own_rate(tmp_path):
    async def scene(desk):
        async with desk.client("?per_s=50") as fast, desk.client() as slow:
            await slow.send(type="rate", per_s=2)
            await slow.next("heartbeat")
            await fast.next("snapshot")
            started = time.monotonic()
            for _ in range(40):
                desk.tick()
                await asyncio.sleep(0.02)
            last = desk.tick()
            received = [0, 0]
            for index, client in enumerate((fast, slow)):
                while client.last.get("ticker.binance.BTC/USDT") != last:
                    received[index] += (await client.receive())["type"] == "market_update"
            periods = 2 * (time.monotonic() - started)
            assert received[1] <= 2 + periods, "one at once, one a period"
            assert 3 < received[0] <= 41

    play(tmp_path, scene)


def test_a_merger_that_falls_silent_is_shown_at_every_symbol_and_its_return_too(tmp_path):
    async def scene(desk):
        desk.tick()
        async with desk.client() as client:
            await client.next("snapshot")
            desk.parts.market_data.heartbeat_mono = 0.0
            assert (await client.next("market_update"))["flags"] == ["DOWN", "SIMULATED"]
            assert await client.next("heartbeat", lambda data: data["merger"] is None)
            desk.beat()
            assert (await client.next("market_update"))["flags"] == ["SIMULATED"]

    play(tmp_path, scene)


def test_balances_are_for_who_has_the_token(tmp_path):
    async def scene(desk):
        async with desk.client() as client:
            await client.send(type="auth", token="wrong-token-wrong")
            assert "token" in (await client.next("error"))["detail"]
            await client.send(type="auth", token=TOKEN)
            await client.next("authorized")
            states = {(await client.next("balance_update"))["exchange"] for _ in range(2)}
            assert states == {"binance", "bybit"}

    play(tmp_path, scene)


def test_beyond_this_machine_nothing_is_told_before_the_token(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "AUTH_WITHIN_S", 0.3)

    async def scene(desk):
        headers = {"Host": "feeds.example"}
        async with desk.client(headers=headers) as client:
            await client.send(type="subscribe")
            assert await client.closed() == 1008
        async with desk.client(headers=headers) as client:
            assert await client.closed() == 1008
        async with desk.client(headers=headers) as client:
            await client.send(type="auth", token=TOKEN)
            assert (await client.receive())["type"] == "authorized"
            await client.next("snapshot")

    play(tmp_path, scene, 'hosts = ["feeds.example"]\n', host="0.0.0.0")


@pytest.mark.long
def test_trades_and_depth_come_of_the_symbols_that_are_named(tmp_path):
    async def scene(desk):
        desk.depth(3)
        async with desk.client("?per_s=50") as client:
            await client.next("snapshot")
            await client.send(type="subscribe", kind="depth", symbols=["BTC/USDT"], exchanges=["binance"])
            assert (await client.next("depth_update"))["sequence"] == 3, "the last one at once"
            await client.send(type="subscribe", kind="trade", symbols=["BTC/USDT"])
            for exchange in ("binance", "bybit"):
                assert (await client.next("trade_update"))["exchange"] == exchange
            desk.trade(1, "ETH/USDT")
            desk.trade(1)
            desk.trade(2)
            desk.depth(1, "ETH/USDT")
            desk.depth(4, flags=wire.INVALID)
            data = await client.next("trade_update")
            assert data["topic"] == "trade.binance.BTC/USDT"
            assert [each["price"] for each in data["trades"]] == [1.0, 1.0]
            data = await client.next("depth_update")
            assert (data["sequence"], data["bids"][0]) == (4, [20.0, 1.0])
            assert "INVALID" in data["flags"]
            desk.tick()
            await client.next("market_update")  # tickers are a wish of their own
            await client.send(type="subscribe", kind="trade", symbols=[])
            await client.send(type="subscribe", kind="depth", symbols=["ETH/USDT"], exchanges=["binance"])
            assert (await client.next("depth_update"))["symbol"] == "ETH/USDT"
            assert len(desk.screens.watched) == 1
        await desk.until(lambda: not len(desk.screens.watched), "who has gone looks at nothing")

    play(tmp_path, scene)


def test_contracts_and_liquidations_come_of_the_symbols_that_are_named(tmp_path):
    symbol = "BTC/USDT:USDT"

    async def scene(desk):
        desk.take(wire.Contract(f"contract.bybit.{symbol}", session=7, sequence=3, mark=2.5))
        liquidation = wire.Liquidation(f"liquidation.bybit.{symbol}", session=7, sequence=8, price=1.5)
        desk.take(liquidation)
        desk.take(wire.Condition(liquidation.topic, flags=wire.STALE, session=7, sequence=8))
        query = f"?kinds=contract,liquidation&symbols={symbol}&exchanges=bybit&per_s=50"
        async with desk.client(query) as client:
            assert (await client.next("contract_update"))["mark"] == 2.5
            data = await client.next("liquidation_update")
            assert ([each["price"] for each in data["liquidations"]], data["flags"]) == ([1.5], ["STALE"])
            desk.take(wire.Contract(f"contract.bybit.{symbol}", session=7, sequence=4, mark=3.5))
            assert (await client.next("contract_update"))["mark"] == 3.5

    play(tmp_path, scene)


def test_an_address_may_name_the_kinds(tmp_path):
    async def scene(desk):
        query = "?kinds=trade,depth&symbols=BTC/USDT&exchanges=bybit&per_s=50"
        async with desk.client(query) as client:
            assert (await client.next("trade_update"))["topic"] == "trade.bybit.BTC/USDT"
            desk.tick()
            desk.depth(1, exchange="bybit")
            while (message := await client.receive())["type"] != "depth_update":
                assert message["type"] in ("snapshot", "status_update", "heartbeat")
                assert message["type"] != "snapshot" or message["data"]["tickers"] == []

    play(tmp_path, scene)


@pytest.mark.long
def test_a_wish_that_cannot_be_is_refused_once_and_by_name(tmp_path):
    wishes = [
        (
            {"kind": "candle", "symbols": ["BTC/USDT"]},
            "kind: 'candle' is none of ticker, trade, depth, contract, liquidation",
        ),
        ({"kind": "trade"}, "symbols: name those of which trade is wanted; all of them are too many"),
        (
            {"kind": "depth", "symbols": ["BTC/USDT"], "exchanges": ["kraken"]},
            "exchanges: 'kraken' is not configured",
        ),
        (
            {"kind": "depth", "symbols": [f"S{n}/USDT" for n in range(11)]},
            "symbols: 22 topics of depth, 20 at most: name fewer, or the exchanges",
        ),
    ]

    async def scene(desk):
        for wish, detail in wishes:
            async with desk.client() as client:
                await client.send(type="subscribe", **wish)
                assert await client.next("error") == {"detail": detail}
                await client.send(type="rate", per_s=1)
                await client.next("heartbeat")
        feed = FeedStatus(exchange="binance", pid=1, started_ns=1, wanted={"BTC/USDT": ["ticker"]})
        status = ExchangeStatus(exchange="binance", state="live", since_ns=1, feed=feed)
        desk.parts.market_data.statuses["binance"] = status
        async with desk.client() as client:
            await client.send(type="subscribe", kind="trade", symbols=["BTC/USDT"], exchanges=["binance"])
            detail = (await client.next("error"))["detail"]
            assert detail.startswith("symbols: trade of 'BTC/USDT' is not wanted of binance: `kinds`")
            assert desk.screens.clients.copy().pop().mistakes == 0, "it may be wanted tomorrow"
            desk.trade(1)
            assert len((await client.next("trade_update", lambda data: data["trades"]))["trades"]) == 1

    play(tmp_path, scene)


@pytest.mark.long
def test_a_client_that_does_not_read_is_told_how_many_trades_it_does_not_get(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "UNREAD_S", PATIENCE_S)

    async def scene(desk):
        query = "?per_s=50&kinds=trade&symbols=BTC/USDT&exchanges=binance"
        sock = await deaf(desk, query)
        async with desk.client(query) as honest:
            await desk.until(lambda: len(desk.screens.clients) == 2, "both are there")
            await honest.next("trade_update")
            sent, seen = 0, 0
            while not desk.screens.passed_over:
                for _ in range(20):
                    sent += 1
                    desk.trade(sent)
                while seen < sent:
                    data = await honest.next("trade_update")
                    assert data["passed_over"] == 0, "another's slowness costs it nothing"
                    assert [each["sequence"] for each in data["trades"]] == list(
                        range(seen + 1, seen + 1 + len(data["trades"]))
                    )
                    seen += len(data["trades"])
            assert not desk.screens.trades_passed_over
            for _ in range(50):
                for _ in range(20):
                    sent += 1
                    desk.trade(sent)
                await honest.next("trade_update")
            loop, received = asyncio.get_running_loop(), bytearray()
            last = b'"sequence":%d,' % sent

            async def drain():
                while last not in received:
                    received.extend(await loop.sock_recv(sock, 1 << 20))

            await asyncio.wait_for(drain(), PATIENCE_S)
            counts = [int(each) for each in re.findall(rb'"passed_over":(\d+)', received)]
            count = received.count(b'"trade_id"')
            assert count + sum(counts) == sent, "each trade came, or was counted"
            assert sum(counts) == desk.screens.trades_passed_over > 0
        sock.close()

    play(tmp_path, scene)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("?kinds=candle&symbols=BTC/USDT", "kinds"),
        ("?kinds=ticker,trade", "symbols"),
        ("?kinds=depth&symbols=BTC/USDT&exchanges=kraken", "exchanges"),
        ("?per_s=1000", "per_s"),
        ("?per_s=nan", "per_s"),
        ("?per_s=x", "per_s"),
        ("?exchanges=kraken", "exchanges"),
        ("?x=1", "x"),
    ],
)
def test_a_query_that_cannot_be_understood_is_refused_by_name(tmp_path, query, field):
    async def scene(desk):
        async with aiohttp.ClientSession() as session, session.get(f"{desk.url}/ws{query}") as answer:
            assert answer.status == 400
            assert json.loads(await answer.read())["field"] == field

    play(tmp_path, scene)


@pytest.mark.parametrize(
    ("headers", "status"), [({"Host": "evil.example"}, 421), ({"Origin": "https://evil.example"}, 403)]
)
def test_pages_of_others_and_names_of_others_are_refused(tmp_path, headers, status):
    async def scene(desk):
        with pytest.raises(aiohttp.WSServerHandshakeError) as raised:
            async with desk.client(headers=headers):
                pass
        assert raised.value.status == status

    play(tmp_path, scene)


def test_what_breaks_the_rules_is_closed_with_its_code(tmp_path):
    async def scene(desk):
        async with desk.client() as client:
            await client.ws.send_str("x" * (module.MESSAGE_SIZE_MAX + 1))
            assert await client.closed() == 1009
        async with desk.client() as client:
            for _ in range(module.MISTAKES_MAX):
                await client.ws.send_str("{")
            assert await client.closed() == 1008
        async with desk.client() as client:
            for _ in range(module.MESSAGES_PER_S_MAX * 3):
                await client.send(type="rate", per_s=1)
            assert await client.closed() == 1008
        async with desk.client() as client:
            await client.ws.send_bytes(b"x")
            assert await client.closed() == 1003

    play(tmp_path, scene)


def test_more_clients_than_there_is_room_for_are_asked_to_come_later(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CLIENTS_MAX", 2)

    async def scene(desk):
        async with desk.client() as one, desk.client() as two:
            await one.next("snapshot")
            await two.next("snapshot")
            async with desk.client() as third:
                assert await third.closed() == 1013

    play(tmp_path, scene)


def test_those_who_have_not_said_the_token_take_room_too_and_are_told_of_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CLIENTS_MAX", 1)
    monkeypatch.setattr(module, "AUTH_WITHIN_S", PATIENCE_S)

    async def scene(desk):
        headers = {"Host": "feeds.example"}
        async with desk.client(headers=headers) as silent:
            async with desk.client(headers=headers) as second:
                assert await second.closed() == 1013
            closing = asyncio.create_task(silent.closed())
            await desk.close()
            assert await closing == 1001

    play(tmp_path, scene, 'hosts = ["feeds.example"]\n', host="0.0.0.0")


def test_at_the_end_everybody_is_told_and_it_is_quick(tmp_path):
    async def scene(desk):
        async with desk.client() as client:
            await client.next("snapshot")
            closing = asyncio.create_task(client.closed())
            await desk.close()
            assert await closing == 1001

    play(tmp_path, scene)


async def deaf(desk, query="?per_s=50"):
    """Open a WebSocket by hand, and read nothing ever."""
    host, port = desk.url.removeprefix("http://").split(":")
    sock = socket.socket()
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, (host, int(port)))
    request = (
        f"GET /ws{query} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    await loop.sock_sendall(sock, request.encode())
    return sock


@pytest.mark.long
def test_those_who_do_not_read_and_those_who_mean_harm_change_nothing_for_the_others(tmp_path, monkeypatch):
    """200 of the one kind, 50 of the other: five honest ones see every last value, and what waits is bounded."""
    monkeypatch.setattr(module, "UNREAD_S", 2.0)

    async def hostile(desk, number):
        with contextlib.suppress(aiohttp.ClientError, ConnectionError, TimeoutError):
            kind = number % 5
            headers = {3: {"Origin": "https://evil.example"}, 4: {"Host": "evil.example"}}.get(kind, {})
            async with (
                aiohttp.ClientSession() as session,
                session.ws_connect(f"{desk.url}/ws", headers=headers) as ws,
            ):
                for _ in range(100):
                    await ws.send_str(
                        {0: "x" * 200_000, 1: "{nonsense", 2: '{"type":"auth","token":"guess"}'}[kind]
                    )

    async def scene(desk):
        symbols = [f"S{number}/USDT" for number in range(300)]
        for symbol in symbols:
            desk.tick(symbol)
        async with contextlib.AsyncExitStack() as stack:
            honest = [await stack.enter_async_context(desk.client("?per_s=20")) for _ in range(5)]
            sockets = [await deaf(desk) for _ in range(200)]
            attacks = [asyncio.create_task(hostile(desk, number)) for number in range(50)]

            async def read(client):
                while len(done) < len(honest):
                    await client.receive()
                    if all(client.last.get(topic) == sequence for topic, sequence in final.items()) and final:
                        done.add(client)
                        return

            done, final = set(), {}
            readers = [asyncio.create_task(read(client)) for client in honest]
            deadline = time.monotonic() + 3.0
            while time.monotonic() < deadline:
                for symbol in symbols:
                    desk.tick(symbol)
                desk.beat()
                for screen in desk.screens.clients:
                    waiting = screen._transport.get_write_buffer_size()
                    assert waiting < module.WAITING_MAX + 1_000_000, "a snapshot and a flush more, at most"
                await asyncio.sleep(0.05)
            final.update({f"ticker.binance.{symbol}": desk.tick(symbol) for symbol in symbols})
            await asyncio.wait_for(asyncio.gather(*readers), PATIENCE_S)
            await asyncio.gather(*attacks)
            await desk.until(lambda: desk.screens.cut_off >= 200, "who reads nothing is cut off in the end")
            assert desk.screens.passed_over > 200
            await desk.until(lambda: len(desk.screens.clients) == 5, "and nobody else is left")
            for sock in sockets:
                sock.close()

    play(tmp_path, scene)


@pytest.mark.parametrize("in_address", [True, False])
def test_a_client_is_told_of_a_symbol_that_nobody_lists(tmp_path, in_address):
    def lists(desk, exchange, *symbols):
        instruments = [Instrument(symbol.replace("/", ""), *symbol.split("/")) for symbol in symbols]
        desk.parts.market_data.tables[exchange] = instrument_list(exchange, 1, instruments).table()

    async def asks(desk, symbols, exchanges="binance,bybit"):
        """Return what a client that asks for these is told besides its snapshot."""
        query = f"?symbols={symbols}&exchanges={exchanges}" if in_address else ""
        async with desk.client(query) as client:
            if not in_address:
                await client.send(
                    type="subscribe", symbols=symbols.split(","), exchanges=exchanges.split(",")
                )
            await client.send(type="nonsense")  # whose error comes last
            told = []
            while "nonsense" not in (detail := (await client.next("error"))["detail"]):
                told.append(detail)
            return told

    async def scene(desk):
        assert await asks(desk, "BTC/USD") == [], "as long as the lists are not there, nobody knows"
        lists(desk, "binance", "BTC/USDT", "DOGE/EUR")
        assert await asks(desk, "BTC/USD") == []
        assert await asks(desk, "BTC/USD", "binance") == [
            "symbols: no 'BTC/USD' is listed by binance; did you mean BTC/USDT?"
        ]
        lists(desk, "bybit", "SOL/USDT")
        assert await asks(desk, "SOL/USDT,BTC/USDT") == []
        (told,) = await asks(desk, "SOL/USDT,B/X,A/X,C/X")
        assert told.startswith("symbols: no 'A/X' is listed by binance, bybit, nor 2 more of these symbols")
        desk.parts.market_data.tickers[wire.topic(wire.TICKER, "bybit", "A/X")] = None
        assert await asks(desk, "A/X") == [], "it was asked for all the same, and is published"

    play(tmp_path, scene)
