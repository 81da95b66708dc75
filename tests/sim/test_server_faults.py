"""The simulator's faults, on real sockets. Nothing depends on speed."""

import asyncio
import contextlib
import json

import aiohttp
import pytest

from feedhandler.sim.binance import BinanceRules
from feedhandler.sim.rhythm import Activity
from feedhandler.sim.server import fault_kinds
from feedhandler.sim.simulated import SIMULATED

from .wire import end_of, is_quote, run, running, until


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
            # What comes after a subscription of after that was not under way.
            await client.subscribe(ws, "XLM")
            await until(ws, lambda message: is_quote(message) and "XLM" in json.dumps(message))
            quotes = [await until(ws, is_quote) for _ in range(100)]
            assert not any(is_lost(message) for message in quotes)
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


@pytest.mark.long
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
