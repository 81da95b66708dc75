"""The simulator on real sockets: loopback, port 0, an aiohttp client. Nothing depends on speed."""

import asyncio
import contextlib
import json
import socket
import zlib
from collections.abc import Callable

import aiohttp
import pytest

from feedhandler.sim import frames
from feedhandler.sim.binance import BinanceRules
from feedhandler.sim.bybit import BybitRules
from feedhandler.sim.kucoin import Kucoin, KucoinRules
from feedhandler.sim.okx import Okx
from feedhandler.sim.rhythm import Activity
from feedhandler.sim.server import SimServer, SimSettings, fault_kinds, serve
from feedhandler.sim.simulated import SIMULATED

from .books import BOOKS, DEPTH_ENDPOINTS, SYMBOLS, TRADES, WITH_SNAPSHOTS, KeptBook, topic_of
from .wire import HOST, end_of, handshake, is_quote, make, okx_request, run, running, until

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
def test_closing_says_so_to_everybody_and_is_quick(exchange):
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


# Faults.


def test_bad_fault_requests_are_400_and_say_why():
    async def scenario() -> None:
        async with running("binance") as client:
            url = f"{client.server.rest_url}/_sim/faults"
            for body in (
                b"",
                b'{"fault":"x"}',
                b'{"fault":"close","connection":99}',
                b'{"fault":"late","symbol":"X"}',
            ):
                async with client.http.post(url, data=body) as answer:
                    assert answer.status == 400
                    assert (await answer.json())["error"]
            async with client.http.get(url) as answer:
                assert await answer.json() == fault_kinds()

    run(scenario())


@pytest.mark.parametrize("exchange", SIMULATED)
def test_close_with_a_code(exchange):
    async def scenario() -> None:
        async with running(exchange) as client:
            ws, other = await client.connect(), await client.connect()
            await client.fault(fault="close", code=1012, reason="restart", connection=1)
            end = await end_of(ws)
            assert (end.type, end.data, end.extra) == (aiohttp.WSMsgType.CLOSE, 1012, "restart")
            await client.wait_for(lambda state: len(state["connections"]) == 1)
            await client.fault(fault="close", code=4000)
            assert (await end_of(other)).data == 4000

    run(scenario())


def test_rst_is_a_reset():
    async def scenario() -> None:
        async with running("binance") as client:
            reader, writer = await client.connect_raw()
            await client.fault(fault="rst")
            with pytest.raises(ConnectionResetError):
                await reader.read()
            writer.close()

    run(scenario())


def test_a_stall_sends_nothing_at_all_and_ends():
    async def scenario() -> None:
        async with running("bybit") as client:
            ws = await client.connect()
            await client.fault(fault="stall", seconds=3600)
            await client.subscribe(ws)
            await ws.send_json({"op": "ping"})
            with pytest.raises(asyncio.TimeoutError):
                await ws.receive(timeout=0.3)
            await client.fault(fault="none")
            assert is_quote(await ws.receive_json()), "the subscription took effect, its answer is lost"

    run(scenario())


@pytest.mark.parametrize("kind", ["stall", "mute", "ack_without_data"])
def test_who_asks_again_because_we_were_silent_breaks_no_rule(kind):
    async def scenario() -> None:
        async with running("bybit") as client:
            ws = await client.connect()
            await client.fault(fault=kind, seconds=3600)
            await client.subscribe(ws)
            await client.wait_for(lambda state: state["connections"][0]["subscriptions"])
            await client.fault(fault="none")
            await client.subscribe(ws)
            refusal = await until(ws, lambda message: message.get("success") is False)
            assert "already subscribed" in refusal["ret_msg"]
            assert (await client.state())["violations"] == []
            await client.subscribe(ws, "ETH")
            await client.subscribe(ws, "ETH")
            await until(ws, lambda message: message.get("success") is False)
            assert (await client.state())["violations_total"] == 1, "nothing was kept from it this time"

    run(scenario())


@pytest.mark.parametrize("exchange", SIMULATED)
def test_mute_stops_data_only(exchange):
    async def scenario() -> None:
        async with running(exchange) as client:
            ws = await client.connect()
            await client.fault(fault="mute", seconds=3600)
            await client.subscribe(ws)
            await until(ws, lambda message: not is_quote(message))
            assert (await client.state())["updates"] == 0
            assert (await client.state())["faults"][0]["fault"] == "mute"
            await client.fault(fault="none")
            await until(ws, is_quote)

    run(scenario())


def test_mute_ends_by_itself():
    async def scenario() -> None:
        async with running("binance") as client:
            ws = await client.connect("/ws/btcusdt@bookTicker")
            await client.fault(fault="mute", seconds=0.2)
            await client.wait_for(lambda state: not state["faults"])
            await until(ws, is_quote)

    run(scenario())


@pytest.mark.parametrize("exchange", SIMULATED)
def test_one_symbol_can_be_muted(exchange):
    async def scenario() -> None:
        async with running(exchange) as client:
            await client.fault(fault="mute_symbol", symbol=SIMULATED[exchange].native("BTC"))
            ws = await client.connect()
            await client.subscribe(ws, "BTC")
            await client.subscribe(ws, "ETH")
            for _ in range(50):
                message = await until(ws, is_quote)
                assert "BTC" not in json.dumps(message)
            await client.fault(fault="none")
            await until(ws, lambda message: "BTC" in json.dumps(message) and is_quote(message))

    run(scenario())


@pytest.mark.parametrize("exchange", SIMULATED)
def test_one_channel_can_be_lost_while_its_market_goes_on(exchange):
    topic = SIMULATED[exchange].quote_topic(SIMULATED[exchange].native("BTC"))

    def is_lost(message: object) -> bool:
        return is_quote(message) and "BTC" in json.dumps(message)

    async def scenario() -> None:
        async with running(exchange) as client:
            ws = await client.connect()
            await client.subscribe(ws, "BTC")
            await client.subscribe(ws, "ETH")
            await until(ws, is_lost)
            await client.fault(fault="lose_topic", topic=topic)
            quotes = [await until(ws, is_quote) for _ in range(200)]
            assert not any(is_lost(message) for message in quotes[100:])  # the first may have been under way
            await client.fault(fault="none")
            await until(ws, is_lost)
            await client.fault(fault="lose_topic", topic=topic, heals=True)
            other = await client.connect()
            await client.subscribe(other, "BTC")
            await until(ws, is_lost)

    run(scenario())


@pytest.mark.parametrize(
    ("exchange", "path", "symbol"),
    [
        ("binance", "/api/v3/exchangeInfo", "BTCUSDT"),
        ("kucoin", "/api/v2/symbols", "BTC-USDT"),
        ("bybit", "/v5/market/instruments-info?category=spot", "BTCUSDT"),
        ("okx", "/api/v5/public/instruments?instType=SPOT", "BTC-USDT"),
    ],
)
def test_a_symbol_can_be_left_out_of_the_instrument_list(exchange, path, symbol):
    async def scenario() -> None:
        async with running(exchange) as client:
            assert f'"{symbol}"' in json.dumps(await client.rest(path))
            await client.fault(fault="unlist", symbol=symbol)
            assert f'"{symbol}"' not in json.dumps(await client.rest(path))
            await client.fault(fault="none")
            assert f'"{symbol}"' in json.dumps(await client.rest(path))

    run(scenario())


@pytest.mark.parametrize("exchange", SIMULATED)
def test_acknowledged_without_data(exchange):
    async def scenario() -> None:
        async with running(exchange) as client:
            ws = await client.connect()
            await client.subscribe(ws, "ETH")
            await until(ws, is_quote)
            await client.fault(fault="ack_without_data", seconds=3600)
            await client.subscribe(ws, "BTC")
            await until(ws, lambda message: not is_quote(message) and message.get("type") != "welcome")
            for _ in range(50):
                assert "BTC" not in json.dumps(await until(ws, is_quote))
            [connection] = (await client.state())["connections"]
            assert len(connection["silent"]) == 1
            assert (await client.state())["fault_effects"]["ack_without_data"] == 1

    run(scenario())


@pytest.mark.parametrize("exchange", SIMULATED)
def test_garbage_arrives_and_data_goes_on(exchange):
    async def scenario() -> None:
        async with running(exchange) as client:
            reader, writer = await client.connect_raw()
            await client.fault(fault="garbage", count=16)
            await reader.readuntil(b"[" * 5000)
            await client.fault(fault="oversize", size=300_000)
            await reader.readuntil(b'{"padding":"')
            writer.close()

    run(scenario())


@pytest.mark.long
def test_an_oversized_message_arrives_whole():
    async def scenario() -> None:
        async with running("binance") as client:
            ws = await client.http.ws_connect(client.server.ws_url + "/ws", max_msg_size=0)
            await client.fault(fault="oversize", size=20_000_000)
            assert len((await ws.receive()).data) == 20_000_000

    run(scenario())


@pytest.mark.parametrize("how", ["rst", "503"])
def test_new_connections_are_refused_and_old_ones_stay(how):
    async def scenario() -> None:
        async with running("binance") as client:
            ws = await client.connect("/ws/btcusdt@bookTicker")
            await client.fault(fault="refuse", seconds=3600, how=how)
            with pytest.raises(aiohttp.ClientError):
                await client.http.ws_connect(client.server.ws_url + "/ws")
            with pytest.raises(aiohttp.ClientError):
                async with client.http.post(f"{client.server.rest_url}/api/v3/ping", raise_for_status=True):
                    pass
            await until(ws, is_quote)
            assert (await client.state())["fault_effects"]["refuse"] >= 2  # aiohttp may try again
            await client.fault(fault="none")
            await (await client.connect()).close()

    run(scenario())


def test_expired_tokens_end_their_sessions_and_open_no_new_one():
    async def scenario() -> None:
        async with running("kucoin") as client:
            path = await client.path()
            ws = await client.connect(path)
            await client.fault(fault="expired_token")
            error = await until(ws, lambda message: message["type"] == "error")
            assert error["code"] == 401
            assert (await end_of(ws)).type is aiohttp.WSMsgType.CLOSE
            again = await client.connect(path)
            assert (await again.receive_json())["code"] == 401
            fresh = await client.connect()
            assert (await fresh.receive_json())["type"] == "welcome"

    run(scenario())


@pytest.mark.parametrize("exchange", SIMULATED)
@pytest.mark.parametrize("status", [429, 418, 403, 503])
def test_rest_can_be_throttled(exchange, status):
    async def scenario() -> None:
        async with running(exchange) as client:
            await client.fault(fault="http_status", status=status, retry_after=7, seconds=3600)
            async with client.http.get(f"{client.server.rest_url}/api/v3/time") as answer:
                assert answer.status == status
                assert answer.headers["Retry-After"] == "7"
            assert (await client.state())["violations"] == []

    run(scenario())


def test_a_server_shutdown_is_announced_and_comes():
    async def scenario() -> None:
        async with running("binance") as client:
            ws = await client.connect("/stream?streams=btcusdt@bookTicker")
            await client.fault(fault="server_shutdown", seconds=0.1)
            notice = await until(ws, lambda message: message.get("stream") == "!serverShutdown")
            assert notice["data"].keys() == {"e", "E"}
            late = await client.connect("/stream?streams=btcusdt@bookTicker")
            assert (await end_of(ws)).type is aiohttp.WSMsgType.CLOSE
            assert "data" in await until(late, lambda message: True), "one that came later lives on"

    run(scenario())


@pytest.mark.parametrize("fault", ["duplicate", "late"])
def test_old_frames_come_again(fault):
    async def scenario() -> None:
        async with running("binance") as client:
            ws = await client.connect("/ws/btcusdt@bookTicker")
            last = (await until(ws, is_quote))["u"]
            await client.fault(fault=fault, symbol="BTCUSDT")
            while True:
                update_id = (await until(ws, is_quote))["u"]
                if update_id <= last:
                    assert (update_id == last) == (fault == "duplicate")
                    return
                last = update_id

    run(scenario())


@pytest.mark.parametrize("exchange", SIMULATED)
def test_messages_cut_to_pieces_are_the_same_messages(exchange):
    async def scenario() -> None:
        async with running(exchange) as client:
            await client.fault(fault="fragment", seconds=3600)
            ws = await client.connect()
            await client.subscribe(ws)
            sequence = 0
            for _ in range(100):
                message = await until(ws, is_quote)
                data = message.get("data", message)
                [data] = data if isinstance(data, list) else [data]
                now = data.get("u", data.get("timestamp", data.get("seqId")))
                assert now >= sequence, "in order"
                sequence = now
            await ws.close()
            assert (await client.state())["violations"] == []

    run(scenario())


@pytest.mark.parametrize(
    ("exchange", "symbol", "is_refusal"),
    [
        ("binance", "BTCUSDT", lambda message: message.get("error", {}).get("code") == 2),
        ("kucoin", "BTC-USDT", lambda message: message.get("code") == 404),
        ("bybit", "BTCUSDT", lambda message: message.get("ret_msg", "").startswith("Invalid symbol")),
        ("okx", "BTC-USDT", lambda message: message.get("code") == "60018"),
    ],
)
def test_one_symbol_can_be_refused(exchange, symbol, is_refusal):
    async def scenario() -> None:
        async with running(exchange) as client:
            await client.fault(fault="reject_symbol", symbol=symbol)
            ws = await client.connect()
            await client.subscribe(ws, "BTC")
            await until(ws, is_refusal)
            await client.subscribe(ws, "ETH")
            await until(ws, is_quote)
            assert (await client.state())["violations"] == []

    run(scenario())


# Trades and books.


async def subscribe_to(client, ws, topic: str) -> None:
    message = {
        "binance": {"method": "SUBSCRIBE", "params": [topic], "id": 1},
        "kucoin": {"id": "1", "type": "subscribe", "topic": topic, "response": True},
        "bybit": {"req_id": "1", "op": "subscribe", "args": [topic]},
        "okx": okx_request(topic),
    }
    await ws.send_json(message[client.exchange])


def about(topic: str, *, is_event: str = "") -> Callable[[dict], bool]:
    return lambda message: topic_of(message) == topic or (bool(is_event) and message.get("e") == is_event)


@pytest.mark.parametrize("messages_per_s", [0, 1000])
@pytest.mark.parametrize("make_one", BOOKS)
def test_a_book_is_kept_over_the_wire(make_one, messages_per_s):
    topic = BOOKS[make_one]

    async def scenario() -> None:
        async with running(make_one.name, messages_per_s=messages_per_s) as client:
            ws = await client.connect()
            await subscribe_to(client, ws, topic)
            is_wanted = about(topic, is_event="depthUpdate")
            book = KeptBook(make_one)
            kept = [await until(ws, is_wanted)]
            if make_one in WITH_SNAPSHOTS:
                assert "snapshot" in (kept[0].get("type"), kept[0].get("action"))
            while make_one not in WITH_SNAPSHOTS:
                base = await client.rest(DEPTH_ENDPOINTS[make_one])
                book.begin(base)
                first = kept[0].get("U") or kept[0]["data"]["sequenceStart"]
                if first <= book.update_id + 1:
                    break
                kept.append(await until(ws, is_wanted))
            applied = sum([book.apply(message) for message in kept])
            while applied < 20:
                applied += book.apply(await until(ws, is_wanted))
            [bid], [ask] = book.best()
            assert bid[0] < ask[0]
            assert (await client.state())["violations"] == []

    run(scenario())


def test_one_message_of_a_channel_can_be_lost():
    async def scenario() -> None:
        async with running("binance") as client:
            topic = "btcusdt@depth@100ms"
            ws = await client.connect(f"/ws/{topic}")
            last = (await until(ws, about("", is_event="depthUpdate")))["u"]
            await client.fault(fault="lose_messages", topic=topic, count=2)
            is_gap = False
            while not is_gap:
                event = await until(ws, about("", is_event="depthUpdate"))
                is_gap = event["U"] > last + 1
                last = event["u"]
            assert (await client.state())["fault_effects"]["lose_messages"] == 2
            for _ in range(3):
                event = await until(ws, about("", is_event="depthUpdate"))
                assert event["U"] == last + 1
                last = event["u"]

    run(scenario())


@pytest.mark.parametrize("messages_per_s", [0, 1000])
@pytest.mark.parametrize("make_one", TRADES)
def test_a_burst_of_trades_comes_at_once_however_quiet_the_symbol(make_one, messages_per_s):
    async def scenario() -> None:
        quiet = Activity(busiest_per_s=1, busy_symbols=1, quietest_s=86_400)
        async with running(make_one.name, messages_per_s=messages_per_s, activity=quiet) as client:
            native = SIMULATED[make_one.name].native("XRP")
            topic = TRADES[make_one].replace(SYMBOLS[make_one], native).replace("btcusdt", native.lower())
            ws = await client.connect()
            await subscribe_to(client, ws, topic)
            await until(ws, lambda message: "id" in message or "req_id" in message)
            await client.wait_for(lambda state: state["topics"] == 1)
            await client.fault(fault="burst", symbol=native, count=1025)
            found: list = []
            seen = False
            while len(found) < 1025:
                message = await until(ws, about(topic, is_event="trade"))
                data = message.get("data", message)
                if make_one is Okx:  # one for several; the first is older
                    [merged] = data
                    last, count = int(merged["tradeId"]), int(merged["count"])
                    found += range(last - count + 1, last + 1) if seen else ()
                    seen = True
                    continue
                found += (
                    [each["i"] for each in data]
                    if isinstance(data, list)
                    else [data.get("t") or data["tradeId"]]
                )
            assert len(set(found)) == len(found)
            assert (await client.state())["fault_effects"]["burst"] == 1025

    run(scenario())


@pytest.mark.parametrize("make_one", BOOKS)
def test_a_book_can_be_crossed(make_one):
    topic = BOOKS[make_one]

    async def scenario() -> None:
        async with running(make_one.name) as client:
            ws = await client.connect()
            await subscribe_to(client, ws, topic)
            is_wanted = about(topic, is_event="depthUpdate")
            book = KeptBook(make_one)
            message = await until(ws, is_wanted)
            book.begin(
                message if make_one in WITH_SNAPSHOTS else await client.rest(DEPTH_ENDPOINTS[make_one])
            )
            await client.fault(fault="cross_book", topic=topic)
            while True:
                message = await until(ws, is_wanted)
                if make_one not in WITH_SNAPSHOTS:  # what was missed in between is of no matter here
                    book.update_id = (message.get("U") or message["data"]["sequenceStart"]) - 1
                book.apply(message)
                [bid], [ask] = book.best()
                if bid[0] > ask[0]:
                    return

    run(scenario())


def test_what_has_no_deltas_cannot_be_crossed():
    async def scenario() -> None:
        async with running("binance") as client:
            ws = await client.connect("/ws/btcusdt@trade")
            await until(ws, about("", is_event="trade"))
            url = f"{client.server.rest_url}/_sim/faults"
            for topic in ("btcusdt@trade", "ethusdt@trade"):
                async with client.http.post(url, json={"fault": "cross_book", "topic": topic}) as answer:
                    assert answer.status == 400
                    assert topic in (await answer.json())["error"]

    run(scenario())


def test_bybits_books_can_be_restarted():
    async def scenario() -> None:
        async with running("bybit") as client:
            ws = await client.connect()
            topic = "orderbook.50.BTCUSDT"
            await subscribe_to(client, ws, topic)
            await until(ws, lambda message: message.get("type") == "delta")
            await client.fault(fault="restart_books", symbol="BTCUSDT")
            snapshot = await until(ws, lambda message: message.get("type") == "snapshot")
            assert snapshot["data"]["u"] == 1
            assert (await until(ws, about(topic)))["data"]["u"] == 2
            assert (await client.state())["fault_effects"]["restart_books"] == 1

    run(scenario())


@pytest.mark.parametrize("make_one", DEPTH_ENDPOINTS)
def test_books_of_rest_can_be_old_and_late(make_one):
    rules = KucoinRules(snapshot_every_s=0.0) if make_one is Kucoin else None

    async def scenario() -> None:
        async with running(make_one.name, rules) as client:
            ws = await client.connect()
            await subscribe_to(client, ws, BOOKS[make_one])
            is_wanted = about(BOOKS[make_one], is_event="depthUpdate")
            await until(ws, is_wanted)
            await client.fault(fault="old_books", seconds=3600)
            await client.fault(fault="slow_rest", seconds=3600, after_s=0.05)
            old = await client.rest(DEPTH_ENDPOINTS[make_one])
            for _ in range(5):
                await until(ws, is_wanted)
            assert await client.rest(DEPTH_ENDPOINTS[make_one]) == old
            assert (await client.state())["fault_effects"]["slow_rest"] == 2
            await client.fault(fault="none")
            assert await client.rest(DEPTH_ENDPOINTS[make_one]) != old

    run(scenario())


def test_stated_times_can_be_wrong():
    async def scenario() -> None:
        async with running("bybit") as client:
            ws = await client.connect()
            await client.fault(fault="clock", offset_s=-86_400)
            await client.subscribe(ws)
            async with client.http.get(f"{client.server.rest_url}/v5/market/time") as answer:
                now_ms = (await answer.json())["time"]
            quote_ms = (await until(ws, is_quote))["ts"]
            assert abs(now_ms - quote_ms) < 60_000
            await client.fault(fault="none")
            async with client.http.get(f"{client.server.rest_url}/v5/market/time") as answer:
                assert (await answer.json())["time"] - now_ms > 80_000_000

    run(scenario())


def test_a_market_with_a_rhythm_of_its_own_has_no_rate_to_be_changed():
    async def scenario() -> None:
        async with running("binance", messages_per_s=0) as client:
            url = f"{client.server.rest_url}/_sim/faults"
            async with client.http.post(url, json={"fault": "rate", "messages_per_s": 5}) as answer:
                assert answer.status == 400
                assert "sim.messages_per_s" in (await answer.json())["error"]

    run(scenario())


PINGS = {
    "binance": "",
    "kucoin": '{"id": "9", "type": "ping"}',
    "bybit": '{"req_id": "9", "op": "ping"}',
    "okx": "ping",
}


@pytest.mark.parametrize("exchange", SIMULATED)
def test_a_half_open_connection_is_silent_answers_nothing_and_ends_nobody_elses(exchange):
    async def scenario() -> None:
        async with running(exchange, messages_per_s=0) as client:
            dead, alive = await client.connect(), await client.connect()
            for ws in (dead, alive):
                await client.subscribe(ws)
                await until(ws, is_quote)
            await client.fault(fault="half_open", connection=1)
            with contextlib.suppress(TimeoutError):
                while True:  # what was under way
                    await dead.receive(0.1)
            await dead.ping(b"there?")
            if PINGS[exchange]:
                await dead.send_str(PINGS[exchange])
            for _ in range(3):
                await until(alive, is_quote)
            with pytest.raises(TimeoutError):
                await dead.receive(0.5)
            assert [each["is_half_open"] for each in (await client.state())["connections"]] == [True, False]
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await dead.close()  # in vain: nobody answers
            dead._response.close()
            await client.wait_for(lambda state: len(state["connections"]) == 1)

    run(scenario())


@pytest.mark.parametrize("exchange", SIMULATED)
def test_signs_of_life_go_on_however_quiet_the_market(exchange):
    async def scenario() -> None:
        rules = BinanceRules(ping_every_s=0.05) if exchange == "binance" else None
        async with running(exchange, rules, messages_per_s=0, activity=Activity(busy_symbols=1)) as client:
            ws = await client.connect()
            await client.subscribe(ws, "XLM")
            for _ in range(5):
                if exchange == "binance":
                    while (message := await ws.receive()).type is not aiohttp.WSMsgType.PING:
                        pass
                    await ws.pong(message.data)
                else:
                    await ws.send_str(PINGS[exchange])
                    while "pong" not in (await ws.receive()).data:
                        pass

    run(scenario())


def test_the_rate_can_be_changed():
    async def scenario() -> None:
        async with running("binance") as client:
            await client.fault(fault="rate", messages_per_s=5)
            assert (await client.state())["messages_per_s"] == 5

    run(scenario())
