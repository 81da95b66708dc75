"""Trades, depth and books of the simulator, on real sockets."""

from collections.abc import Callable

import pytest

from feedhandler.sim.kucoin import Kucoin, KucoinRules
from feedhandler.sim.okx import Okx
from feedhandler.sim.rhythm import Activity
from feedhandler.sim.simulated import SIMULATED

from .books import BOOKS, DEPTH_ENDPOINTS, SYMBOLS, TRADES, WITH_SNAPSHOTS, KeptBook, topic_of
from .wire import okx_request, run, running, until


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
            while applied < 8:
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
