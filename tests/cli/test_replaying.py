"""`feedhandler replay`: what of a recording is served, with whose configuration, and to a client of the world."""

import asyncio
import json
import tomllib
from urllib.parse import quote

import aiohttp
import pytest
from captured import BINANCE, BYBIT, BYBIT_LINEAR, KUCOIN, line, received
from captured import opened as capture_opened
from loopback import free_ports
from patience import PATIENCE_S
from small_recording import T0, match, opened, plan, put, small, trade
from small_recording import received as frame

from feedhandler.cli import served
from feedhandler.cli.main import main
from feedhandler.data.errors import ConfigError
from feedhandler.recordings.runs import RunReader, find_runs
from feedhandler.recordings.traffic import Item, What
from feedhandler.runtime import config
from feedhandler.sim.playback import EventKind


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    monkeypatch.setattr(served, "CALM_S", 0.2)
    monkeypatch.setattr(served, "LINGER_S", 0.0)


def kinds(events):
    return [event.kind.name for event in events]


def capture(tmp_path, *lines):
    path = tmp_path / "a.jsonl"
    path.write_text("".join(lines))
    return path


# What is served.


def test_frames_of_all_feeds_of_an_exchange_in_the_order_of_receipt(tmp_path):
    for number, shard in enumerate(("1of2", "2of2")):
        items = [frame(n, T0 + 2 * n + number, match(2 * n + number)) for n in range(1, 4)]
        put(tmp_path, f"kucoin-{shard}", T0, [plan("kucoin", T0), opened(KUCOIN), *items])
    found = served.find([tmp_path], (), "")
    events = [each for each in served.events("kucoin", found["kucoin"]) if each.kind is EventKind.RECEIVED]
    assert [json.loads(each.data)["data"]["sequence"] for each in events] == [str(n) for n in range(2, 8)]
    assert len({each.connection for each in events}) == 2


def test_a_feed_that_was_started_anew_follows_from_nothing_before(tmp_path):
    for begun in (T0, T0 + 10**9):
        put(tmp_path, "binance", begun, [plan("binance", begun), opened(ns=begun), frame(1, begun, trade(1))])
    found = served.find([tmp_path], (), "")
    assert kinds(served.events("binance", found["binance"])) == ["RESET", "RECEIVED"] * 2


def test_after_a_gap_nothing_follows_from_before(tmp_path):
    items = [frame(1, T0, trade(1)), Item(What.GAP, T0, name="full"), frame(4, T0, trade(4))]
    put(tmp_path, "binance", T0, [plan("binance", T0), opened(), *items])
    events = served.events("binance", served.find([tmp_path], (), "")["binance"])
    assert kinds(events) == ["RECEIVED", "RESET", "RECEIVED"]


def test_frames_are_of_the_market_of_their_connection_and_of_no_other(tmp_path):
    inverse = "wss://stream.bybit.com/v5/public/inverse"
    lines = [capture_opened(BYBIT, "a"), capture_opened(BYBIT_LINEAR, "b"), capture_opened(inverse, "c")]
    lines += [received({"topic": "publicTrade.BTCUSDT", "from": conn}, conn) for conn in "abc"]
    found = served.find([capture(tmp_path, *lines)], (), "")
    events = served.events("bybit", found["bybit"])
    assert [(json.loads(each.data)["from"], each.market) for each in events] == [("a", ""), ("b", "linear")]


def test_of_what_market_a_connection_is_its_name_tells_where_its_address_does_not(tmp_path):
    here = "ws://127.0.0.1:9101/"
    head = [plan("okx", T0), opened(here), opened(here, connection="linear.2"), opened(here, connection="x")]
    items = [frame(1, T0, {}, connection) for connection in ("spot.1", "linear.2", "x")]
    put(tmp_path, "okx", T0, [*head, *items])
    events = served.events("okx", served.find([tmp_path], (), "")["okx"])
    assert [each.market for each in events] == ["", "linear", ""]


def test_answers_are_asked_for_where_the_simulated_market_is(tmp_path):
    urls = {
        "https://api.kucoin.com/api/v2/symbols": "/api/v2/symbols",
        "https://api-futures.kucoin.com/api/v1/ticker?symbol=A": "/linear/api/v1/ticker?symbol=A",
        "http://127.0.0.1:9102/linear/api/v1/contracts/active": "/linear/api/v1/contracts/active",
        "https://api.bybit.com/v5/market/tickers?category=linear": None,
    }
    items = [Item(What.ANSWERED, T0, number=1, name=url, data=b"{}") for url in urls]
    put(tmp_path, "kucoin", T0, [plan("kucoin", T0), *items])
    events = served.events("kucoin", served.find([tmp_path], (), "")["kucoin"])
    assert [each.name for each in events] == [path for path in urls.values() if path]


def test_a_market_may_have_been_at_any_host_that_the_plan_names(tmp_path):
    here = "http://127.0.0.1:7/proxy"
    market = {"name": "linear", "prefix": "linear:", "instruments_url": f"{here}/api/v1/contracts/active"}
    answer = Item(What.ANSWERED, T0, number=1, name=f"{here}/api/v1/ticker?symbol=A", data=b"{}")
    put(tmp_path, "kucoin", T0, [plan("kucoin", T0, markets=[market]), answer])
    (event,) = served.events("kucoin", served.find([tmp_path], (), "")["kucoin"])
    assert event.name == "/linear/api/v1/ticker?symbol=A"


def test_whose_a_capture_is(tmp_path):
    assert list(served.find([capture(tmp_path, capture_opened(BINANCE))], (), "")) == ["binance"]
    assert list(served.find([capture(tmp_path, line("header", exchange="KUCOIN"))], (), "")) == ["kucoin"]
    unknown = capture(tmp_path, received({}))
    assert list(served.find([unknown], (), "bybit")) == ["bybit"]
    with pytest.raises(ConfigError, match="--exchange names one"):
        served.find([unknown], (), "")
    with pytest.raises(ConfigError, match="there is nothing of kucoin"):
        served.find([put(tmp_path / "r", "binance", T0, [plan("binance", T0)]).parent.parent], ["kucoin"], "")


# Configurations.


def test_the_configuration_that_is_printed_is_one(tmp_path, capsys):
    small(tmp_path)
    assert main(["replay", str(tmp_path), "--print-config", "--port", "9301"]) == 0
    text = capsys.readouterr().out
    parsed = tomllib.loads(text)["exchanges"]
    assert parsed["binance"]["symbols"] == ["BTC/USDT"]
    assert parsed["binance"]["kinds"] == ["ticker", "trade", "book"]
    assert parsed["kucoin"]["symbols"] == ["ETH/USDT"]
    settings = config.parse(text, "x")
    assert settings.exchange("kucoin").rest_url == "http://127.0.0.1:9302"
    assert settings.exchange("kucoin").replay
    assert not settings.simulated()


def test_what_was_wanted_is_wanted_again(tmp_path, capsys):
    wanted = {"BTC/USDT": ["ticker"], "XRP/USDT": ["depth"]}
    head = plan("binance", T0, wanted=wanted, simulated=True)
    put(tmp_path, "binance", T0, [head, opened(), frame(1, T0, trade(1))])
    assert main(["replay", str(tmp_path), "--print-config"]) == 0
    parsed = tomllib.loads(capsys.readouterr().out)["exchanges"]["binance"]
    assert parsed["symbols"] == ["BTC/USDT", "XRP/USDT"]
    assert parsed["kinds"] == ["ticker", "depth"]
    assert parsed["simulated"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--speed", "0"], "neither max nor a number above 0"),
        (["--speed", "fast"], "fast is neither max nor a number above 0"),
        (["--exchange", "nosuch"], "is no exchange"),
    ],
)
def test_what_is_refused(tmp_path, capsys, arguments, text):
    try:
        status = main(["replay", str(small(tmp_path)), *arguments])
    except SystemExit as exc:
        status = exc.code
    assert status == 2
    assert text in capsys.readouterr().err


def test_a_configuration_without_the_exchange_is_refused(tmp_path, capsys):
    file = tmp_path / "c.toml"
    file.write_text('[exchanges.binance]\nws_url = "ws://127.0.0.1:1"\nrest_url = "http://127.0.0.1:1"\n')
    assert main(["replay", str(small(tmp_path / "r")), "-c", str(file)]) == 2
    assert "no exchange binance, kucoin with replay = true" in capsys.readouterr().err


def test_without_replay_real_addresses_are_no_recording():
    with pytest.raises(ConfigError, match="replay: is true, but ws_url or rest_url is left out"):
        config.parse("[exchanges.binance]\nreplay = true\n", "x")


# To a client of the world.


class World:
    """Plain clients of a recording that is served."""

    def __init__(self, found, options):
        self.found = found
        self.options = options
        ports = free_ports(len(found))
        self.addresses = {
            name: (f"ws://127.0.0.1:{port}", f"http://127.0.0.1:{port}")
            for name, port in zip(found, ports, strict=True)
        }

    async def run(self, *scenarios):
        """Serve it to the end, beside the scenarios."""
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(PATIENCE_S)) as self.http,
            asyncio.timeout(PATIENCE_S),
            asyncio.TaskGroup() as group,
        ):
            serving = served.serve(self.found, self.addresses, self.options, asyncio.Event())
            group.create_task(serving)
            done = [group.create_task(each(self)) for each in scenarios]
        return [each.result() for each in done]

    async def rest(self, name, path, method="GET"):
        while True:
            try:
                async with self.http.request(method, self.addresses[name][1] + path) as answer:
                    return answer.status, await answer.read()
            except aiohttp.ClientConnectorError:
                await asyncio.sleep(0.02)  # it is about to begin

    async def frames(self, name, path, *commands):
        """Subscribe, and return what comes until the end."""
        got = []
        async with self.http.ws_connect(self.addresses[name][0] + path) as ws:
            for command in commands:
                await ws.send_json(command)
            async for message in ws:
                got.append(message.data.encode())
            return got, ws.close_code


def recorded(root, exchange):
    (run,) = find_runs(root / exchange / next((root / exchange).iterdir()).name)
    return [item.data for item in RunReader(run) if item.what is What.RECEIVED]


async def binance(world):
    await world.rest("binance", "/api/v3/ping")
    command = {"method": "SUBSCRIBE", "params": ["btcusdt@trade", "btcusdt@depth@100ms"], "id": 7}
    return await world.frames("binance", "/stream", command)


async def kucoin(world):
    status, body = await world.rest("kucoin", "/api/v1/bullet-public", "POST")
    assert status == 200
    data = json.loads(body)["data"]
    assert data["instanceServers"][0]["endpoint"].startswith(world.addresses["kucoin"][0])
    await world.rest("kucoin", "/api/v1/timestamp")
    token = quote(data["token"], safe="")
    command = {"id": "1", "type": "subscribe", "topic": "/market/match:ETH-USDT", "response": True}
    return await world.frames("kucoin", f"/?token={token}", command)


@pytest.mark.parametrize("speed", [0.0, 10.0])
def test_clients_get_the_frames_that_they_have_subscribed_to(tmp_path, capsys, speed):
    small(tmp_path)
    world = World(served.find([tmp_path], (), ""), served.Timing(speed=speed))
    (of_binance, code), (of_kucoin, _) = asyncio.run(world.run(binance, kucoin))
    assert code == 1001
    assert json.loads(of_binance[0]) == {"result": None, "id": 7}
    everything = [
        item.data for item in RunReader(find_runs(tmp_path, ["binance"])[0]) if item.what is What.RECEIVED
    ]
    wanted = [each for each in everything if b"bookTicker" not in each]
    assert len(wanted) < len(everything)
    assert of_binance[1:] == wanted
    assert [json.loads(each)["type"] for each in of_kucoin[:2]] == ["welcome", "ack"]
    assert of_kucoin[2:] == recorded(tmp_path, "kucoin")
    printed = capsys.readouterr().out
    assert "  /market/match: 20\n" in printed
    assert "  bookTicker: 0 of 19\n" in printed


def bybit(topic, market="spot"):
    async def subscribes(world):
        await world.rest("bybit", "/v5/market/time")
        return await world.frames("bybit", f"/v5/public/{market}", {"op": "subscribe", "args": [topic]})

    return subscribes


def two_markets(tmp_path):
    """Return a recording of a trade of spot and one of the perpetual."""
    lines = [capture_opened(BYBIT, "a"), capture_opened(BYBIT_LINEAR, "b")]
    lines += [received({"topic": "publicTrade.BTCUSDT", "from": conn}, conn) for conn in "ab"]
    return World(served.find([capture(tmp_path, *lines)], (), ""), served.Timing())


def logged(caplog, text):
    return any(text in record.getMessage() for record in caplog.records)


def test_a_market_whose_subscribers_come_late_has_its_beginning(tmp_path, caplog):
    caplog.set_level("INFO", served.__name__)

    async def late(world):
        while not logged(caplog, "waits for subscriptions to bybit linear, for"):
            await asyncio.sleep(0.02)
        return await bybit("publicTrade.BTCUSDT", "linear")(world)

    (spot, _), (linear, _) = asyncio.run(two_markets(tmp_path).run(bybit("publicTrade.BTCUSDT"), late))
    assert [json.loads(each)["from"] for each in (spot[-1], linear[-1])] == ["a", "b"]
    assert not logged(caplog, "nobody has subscribed")


def test_a_market_without_subscribers_is_named_and_waited_for_no_longer(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(served, "OTHERS_S", 0.5)
    ((linear, _),) = asyncio.run(two_markets(tmp_path).run(bybit("publicTrade.BTCUSDT", "linear")))
    assert json.loads(linear[-1])["from"] == "b"
    assert logged(caplog, "nobody has subscribed to bybit spot:")


def test_an_exchange_whose_data_come_later_has_its_subscribers_waited_for(tmp_path, caplog):
    """Later than it is read before time passes: of what markets they are is not known then."""
    caplog.set_level("INFO", served.__name__)
    first_s, ack = 1_790_000_000, {"op": "subscribe", "success": True}
    acks = [received(ack, ts=first_s + at) for at in (0, 60)]
    data = received({"topic": "publicTrade.BTCUSDT", "price": "7"}, ts=first_s + 61)
    captures = []
    for name, lines in (
        ("binance", [capture_opened(BINANCE), received(trade(1), ts=first_s)]),
        ("bybit", [capture_opened(BYBIT), *acks, data]),
    ):
        (tmp_path / name).mkdir()
        captures.append(capture(tmp_path / name, *lines))

    async def late(world):
        while not logged(caplog, "waits for subscriptions to bybit, for"):
            await asyncio.sleep(0.02)
        return await bybit("publicTrade.BTCUSDT")(world)

    found = served.find(captures, (), "")
    _, (spot, _) = asyncio.run(World(found, served.Timing(speed=0.0)).run(binance, late))
    assert json.loads(spot[-1])["price"] == "7"
    assert not logged(caplog, "nobody has subscribed")


@pytest.mark.long
def test_rest_is_answered_as_it_was(tmp_path):
    small(tmp_path)

    async def asks(world):
        return [
            await world.rest("binance", path)
            for path in (
                "/api/v3/exchangeInfo?showPermissionSets=false",
                "/api/v3/depth?symbol=BTCUSDT&limit=1000",
                "/api/v3/ticker/24hr",
            )
        ]

    world = World(served.find([tmp_path], ["binance"], ""), served.Timing(wait_s=2.0))
    ((listed, book, day),) = asyncio.run(world.run(asks))
    assert listed[0] == book[0] == 200
    assert json.loads(listed[1])["symbols"][0]["symbol"] == "BTCUSDT"
    assert json.loads(book[1])["lastUpdateId"] == 100
    assert day[0] == 503


def test_faults_are_ordered_as_of_the_simulator(tmp_path):
    small(tmp_path)

    async def disturbs(world):
        frames = asyncio.create_task(binance(world))
        url = world.addresses["binance"][1] + "/_sim/"
        await world.rest("binance", "/api/v3/ping")

        async def order(**fault):
            async with world.http.post(f"{url}faults", json=fault) as answer:
                return answer.status

        while True:
            async with world.http.get(f"{url}state") as answer:
                if (await answer.json())["topics"] == 2:
                    break
        assert await order(fault="burst", symbol="BTCUSDT", count=3) == 400
        assert await order(fault="mute_symbol", symbol="BTCUSDT") == 200
        return await frames

    world = World(served.find([tmp_path], ["binance"], ""), served.Timing(speed=0.0))
    (((answers, code)),) = asyncio.run(world.run(disturbs))
    assert len(answers) == 1
    assert code == 1001
