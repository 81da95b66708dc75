"""The simulator on real sockets: loopback, port 0, an aiohttp client. Nothing depends on speed."""

import asyncio
import socket
import zlib

import aiohttp
import pytest

from feedhandler.sim import frames
from feedhandler.sim.binance import BinanceRules
from feedhandler.sim.bybit import BybitRules
from feedhandler.sim.kucoin import KucoinRules
from feedhandler.sim.rhythm import Activity
from feedhandler.sim.server import SimServer, SimSettings, serve
from feedhandler.sim.simulated import SIMULATED

from .wire import HOST, end_of, handshake, is_quote, make, run, running, until

# Streaming.


@pytest.mark.parametrize("exchange", SIMULATED)
def test_a_subscriber_hears_quotes_and_breaks_no_rule(exchange):
    async def scenario() -> None:
        async with running(exchange) as client:
            ws = await client.connect()
            await client.subscribe(ws)
            for _ in range(20):
                await until(ws, is_quote)
            state = await client.state()
            assert len(state["connections"]) == 1
            assert len(state["connections"][0]["subscriptions"]) == 1
            assert state["messages_sent"] >= 20
            await ws.close()
            assert ws.close_code == 1000
            state = await client.wait_for(lambda state: not state["connections"])
            assert state["topics"] == 0
            assert state["violations"] == []

    run(scenario())


@pytest.mark.long
@pytest.mark.parametrize("exchange", SIMULATED)
def test_what_was_sent_on_a_connection_can_be_compared_with_what_came(exchange):
    async def scenario() -> None:
        async with running(exchange) as client:
            ws = await client.connect()
            await client.subscribe(ws)
            texts = [await ws.receive() for _ in range(50)]
            await client.fault(fault="fragment", seconds=0.1)
            texts += [await ws.receive() for _ in range(50)]
            await client.fault(fault="close")
            while (message := await ws.receive()).type is not aiohttp.WSMsgType.CLOSE:
                texts.append(message)
            (closed,) = (await client.wait_for(lambda state: not state["connections"]))["connections_closed"]
            framed = [
                frames.text(each.data.encode()) for each in texts if each.type is aiohttp.WSMsgType.TEXT
            ]
            assert closed["texts_sent"] == len(framed) >= 90
            assert closed["texts_crc"] == zlib.crc32(b"".join(framed))

    run(scenario())


def test_the_kucoin_welcome_comes_unasked():
    async def scenario() -> None:
        async with running("kucoin") as client:
            ws = await client.connect()
            assert (await ws.receive_json()) == {"id": "me", "type": "welcome"}
            await client.subscribe(ws)
            await until(ws, is_quote)
            assert (await client.state())["remarks"] == []

    run(scenario())


def test_a_bybit_subscriber_gets_its_snapshots_at_once_after_the_acknowledgement():
    async def scenario() -> None:
        async with running("bybit", messages_per_s=1) as client:
            ws = await client.connect()
            await ws.send_json({"op": "subscribe", "args": ["tickers.BTCUSDT", "orderbook.1.BTCUSDT"]})
            first = [await ws.receive_json() for _ in range(3)]
            assert first[0]["op"] == "subscribe"
            assert [each["topic"] for each in first[1:]] == ["tickers.BTCUSDT", "orderbook.1.BTCUSDT"]

    run(scenario())


def test_two_connections_hear_the_same_each_in_its_form():
    async def scenario() -> None:
        async with running("binance") as client:
            raw = await client.connect("/ws/btcusdt@bookTicker")
            combined = await client.connect("/stream?streams=btcusdt@bookTicker")
            wrapped = await until(combined, lambda message: "stream" in message)
            found = await until(raw, lambda message: message["u"] == wrapped["data"]["u"])
            assert found == wrapped["data"]

    run(scenario())


def test_no_compression_even_if_offered():
    async def scenario() -> None:
        async with running("binance") as client:
            ws = await client.http.ws_connect(client.server.ws_url + "/ws/btcusdt@bookTicker", compress=15)
            assert ws.compress == 0
            await until(ws, is_quote)

    run(scenario())


@pytest.mark.long
def test_a_client_that_does_not_read_is_cut_off(monkeypatch):
    async def scenario() -> None:
        monkeypatch.setattr("feedhandler.sim.server.WRITE_LIMIT", 200_000)
        async with running("binance", messages_per_s=50_000) as client:
            host, port = client.server.ws_url.removeprefix("ws://").split(":")
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, (host, int(port)))
            await asyncio.get_running_loop().sock_sendall(sock, handshake("/ws/btcusdt@bookTicker"))
            await client.wait_for(lambda state: state["slow_disconnects"] == 1)
            await client.wait_for(lambda state: not state["connections"])
            sock.close()

    run(scenario())


# Rules, over the wire.


def test_a_sixth_message_in_a_second_ends_with_1008():
    async def scenario() -> None:
        async with running("binance", rules=BinanceRules(messages_per_s=5)) as client:
            ws = await client.connect()
            for number in range(6):
                await ws.send_json({"method": "LIST_SUBSCRIPTIONS", "id": number})
            end = await end_of(ws)
            assert (end.type, end.data, end.extra) == (aiohttp.WSMsgType.CLOSE, 1008, "Too many requests")
            state = await client.state()
            assert state["violations_total"] == 1
            assert state["violations"][0].keys() == {"time_ns", "connection", "text"}
            assert state["violations"][0]["connection"] == 1

    run(scenario())


def test_binance_pings_and_wants_its_payload_back():
    async def scenario() -> None:
        rules = BinanceRules(ping_every_s=0.05, pong_within_s=0.4)
        async with running("binance", rules=rules) as client:
            ws = await client.connect()
            ping = await ws.receive()
            assert ping.type is aiohttp.WSMsgType.PING
            assert ping.data
            await ws.pong(b"something else")
            end = await end_of(ws)
            assert end.type is aiohttp.WSMsgType.CLOSE
            assert (await client.state())["violations_total"] == 1

    run(scenario())


def test_a_broken_frame_is_the_end_and_counted():
    async def scenario() -> None:
        async with running("bybit") as client:
            ws = await client.connect()
            await ws.send_str("x" * 100_000)
            end = await end_of(ws)
            assert (end.type, end.data) == (aiohttp.WSMsgType.CLOSE, 1009)
            assert "broken frame" in (await client.state())["violations"][0]["text"]

    run(scenario())


def test_kucoin_ends_a_session_that_does_not_ping():
    async def scenario() -> None:
        async with running("kucoin", rules=KucoinRules(silence_s=0.2)) as client:
            ws = await client.connect()
            await client.subscribe(ws)
            error = await until(ws, lambda message: message.get("type") == "error")
            assert error == {"type": "error", "code": 400, "data": "ping timeout"}
            assert (await end_of(ws)).data == 1000

    run(scenario())


def test_kucoin_refuses_an_unknown_token_with_an_error_frame():
    async def scenario() -> None:
        async with running("kucoin") as client:
            ws = await client.connect("/?token=made-up&connectId=me")
            assert (await ws.receive_json())["code"] == 401
            assert (await end_of(ws)).type is aiohttp.WSMsgType.CLOSE

    run(scenario())


def test_bybit_drops_an_idle_connection_without_a_close_frame():
    async def scenario() -> None:
        async with running("bybit", rules=BybitRules(idle_s=0.1)) as client:
            ws = await client.connect()
            end = await end_of(ws)
            assert end.type is not aiohttp.WSMsgType.CLOSE
            assert ws.close_code == 1006

    run(scenario())


def test_refused_handshakes_are_http_answers():
    async def scenario() -> None:
        async with running("bybit") as client:
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await client.http.ws_connect(client.server.ws_url + "/v5/public/inverse")
            assert caught.value.status == 404

    run(scenario())


# Listeners.


@pytest.mark.parametrize("exchange", SIMULATED)
def test_rest_and_socket_share_a_port_or_have_their_own(exchange):
    async def scenario() -> None:
        one = make(exchange)
        two = SimServer(exchange, SimSettings(), ws_url=f"ws://{HOST}", rest_url="http://localhost:0")
        await one.start()
        await two.start()
        assert one.ws_url.rsplit(":")[-1] == one.rest_url.rsplit(":")[-1] != "0"
        assert two.ws_url.rsplit(":")[-1] != two.rest_url.rsplit(":")[-1]
        await one.close()
        await two.close()

    run(scenario())


def test_a_taken_port_is_an_error_that_leaves_nothing_open():
    async def scenario() -> None:
        async with running("binance") as client:
            port = client.server.ws_url.rsplit(":")[-1]
            second = SimServer(
                "bybit", SimSettings(), ws_url=f"ws://{HOST}", rest_url=f"http://127.0.0.1:{port}"
            )
            with pytest.raises(OSError, match="address already in use"):
                await second.start()
            await second.close()

    run(scenario())


@pytest.mark.parametrize("exchange", SIMULATED)
def test_closing_says_so_to_everybody_and_is_quick(exchange, monkeypatch):
    monkeypatch.setattr("feedhandler.sim.server.CLOSE_WITHIN_S", 0.1)  # for the one that never answers

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with running(exchange) as client:
            ws = await client.connect()
            await client.subscribe(ws)
            await until(ws, is_quote)
            deaf = await client.connect()  # never answers the close frame
            closing = loop.create_task(client.server.close())
            began = loop.time()
            end = await end_of(ws)
            assert (end.type, end.data) == (aiohttp.WSMsgType.CLOSE, 1001)
            await closing
            assert loop.time() - began < 5
            await deaf.close()

    run(scenario())


def test_serve_runs_until_told_to_stop_and_closes_all():
    async def scenario() -> None:
        servers = [make(name) for name in SIMULATED]
        stop = asyncio.Event()
        serving = asyncio.create_task(serve(servers, stop))
        while any(server.ws_url.endswith(":0") for server in servers):
            await asyncio.sleep(0)
        stop.set()
        await serving
        port = int(servers[0].ws_url.rsplit(":")[-1])
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)

    run(scenario())


def test_settings_out_of_range_are_refused():
    for wrong in (
        {"messages_per_s": 0.5},
        {"messages_per_s": 50_001},
        {"instruments": 0},
        {"instruments": 5001},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            SimSettings(**wrong)
    for wrong in ({"busiest_per_s": 0.5}, {"busy_symbols": 0}, {"quietest_s": 59}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            Activity(**wrong)
    with pytest.raises(ValueError, match="kraken"):
        SimServer("kraken", SimSettings(), ws_url=f"ws://{HOST}", rest_url=f"http://{HOST}")


def test_rest_over_the_wire():
    async def scenario() -> None:
        async with running("binance") as client:
            async with client.http.get(f"{client.server.rest_url}/api/v3/time") as answer:
                assert answer.headers["X-MBX-USED-WEIGHT-1M"] == "1"
                assert answer.content_type == "application/json"
                assert (await answer.json()).keys() == {"serverTime"}
            async with client.http.get(
                f"{client.server.rest_url}/api/v3/time", headers={"X-MBX-TIME-UNIT": "MICROSECOND"}
            ) as answer:
                assert (await answer.json())["serverTime"] > 10**15

    run(scenario())
