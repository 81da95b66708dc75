"""The exchange of docs/exchanges.md, as it stands there: one file and a line in the registry, and it is live."""

import asyncio
import contextlib
import json
import re
import sys
import threading
import time
from pathlib import Path

from aiohttp import WSMsgType, web
from harness import PATIENCE_S, Stack, wait_until
from test_holdings import TOKEN, ask

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "exchanges.md").read_text(encoding="utf-8")
LAUNCHER = """\
import sys
sys.path.insert(0, {folder!r})
from example import EXAMPLE
from feedhandler import exchanges
exchanges.EXCHANGES[EXAMPLE.name] = EXAMPLE
from feedhandler.cli.main import main
sys.exit(main())
"""
TABLE = """\
[exchanges.example]
rest_url = "http://{url}"
ws_url = "ws://{url}"
symbols = ["BTC/USDT", "ETH/USDT"]
"""
SYMBOLS = ("BTC-USDT", "ETH-USDT")
NOW_MS = 1_790_000_000_123


def adapter():
    (code,) = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
    return code


def lines():
    """The messages that the document shows, by what they are about."""
    shown = [json.loads(line) for line in re.findall(r"^    (\{.*\})$", DOCUMENT, re.MULTILINE)]
    return {
        message.get("channel") or ("refused" if "refused" in message else "ack"): message for message in shown
    }


def answer_with(body):
    async def answer(request):
        return web.json_response(body)

    return answer


class Server:
    """The exchange: it answers as the document says, and sends a quote ten times a second.

    path is its socket's; values are in its messages instead of those of the document.
    """

    def __init__(self, path="/v1", **values):
        self.url = ""
        self.sockets = []  # what each that was opened has subscribed to
        self._path, self._values = path, values
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        wait_until(lambda: self.url, "the server")
        return self

    def __exit__(self, *exc):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)

    def _run(self):
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._start())
        self._loop.run_forever()

    async def _start(self):
        app = web.Application()
        rows = [{"id": id, "base": id[:3], "quote": "USDT", "open": True, "tick": "0.10"} for id in SYMBOLS]
        rows.append({"id": "ODD-USDT", "base": None})
        quote, day = lines()["quote"], lines()["day"]
        tickers = [{**quote, **day, **self._values, "id": id} for id in SYMBOLS]
        for path, body in (("/instruments", rows), ("/time", {"ms": NOW_MS}), ("/tickers", tickers)):
            app.router.add_get(path, answer_with(body))
        app.router.add_get(self._path, self._stream)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"127.0.0.1:{runner.addresses[0][1]}"

    async def _stream(self, request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        wanted = set()
        self.sockets.append(wanted)
        task = asyncio.create_task(self._send(socket, wanted))
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                asked = json.loads(message.data)
                change = wanted.update if asked["op"] == "subscribe" else wanted.difference_update
                change(asked["topics"])
                await socket.send_json({"ack": asked["id"]})
        task.cancel()
        return socket

    async def _send(self, socket, wanted):
        number = 0
        with contextlib.suppress(ConnectionError):
            while True:
                number += 1
                for topic in sorted(wanted):
                    channel, _, id = topic.partition(".")
                    message = {**lines()[channel], "id": id, "ms": time.time_ns() // 1_000_000}
                    message |= {name: value for name, value in self._values.items() if name in message}
                    await socket.send_json(message | ({"n": number} if channel == "quote" else {}))
                await asyncio.sleep(0.1)


def test_the_adapter_of_the_document_is_short_and_in_order():
    assert len([line for line in adapter().splitlines() if line.strip()]) <= 120


def test_the_exchange_of_the_document_is_live_and_served_without_an_account_side(tmp_path, monkeypatch):
    monkeypatch.setenv("FEEDHANDLER_API_TOKEN", TOKEN)
    (tmp_path / "example.py").write_text(adapter(), encoding="utf-8")
    launcher = tmp_path / "launch.py"
    launcher.write_text(LAUNCHER.format(folder=str(tmp_path)), encoding="utf-8")
    with Server() as server, contextlib.closing(Stack(tmp_path, exchanges=(), sim_table=False)) as stack:
        table = TABLE.format(url=server.url)
        stack.config.write_text(stack.config.read_text(encoding="utf-8") + table, encoding="utf-8")
        stack.command = [sys.executable, str(launcher)]
        stack.start("merger", "gateway")
        stack.processes["example"] = stack.popen("feed", "example", "-c", str(stack.config), log="example")
        record = stack.reader(b"ticker.").read_until(
            # The first values may come by REST, which states no sequence.
            lambda r: (
                r.topic == "ticker.example.BTC/USDT"
                and r.is_fresh
                and r.is_complete
                and r.exchange_sequence > 0
            ),
            "a live ticker",
        )
        last, bid, _, offer, _, *day = record.values
        assert (last, bid, offer, day[0]) == (97421.5, 97421.4, 97421.5, 96000.0)
        wait_until(lambda: "listening" in stack.log("gateway"), "the gateway listens")

        def problems():
            status = ask(stack, "GET", "/v1/status")[1]["exchanges"]["example"]["status"]
            return status and status["feed"] and status["feed"]["problems"]

        assert "ODD-USDT" in wait_until(problems, "the odd row is told of")[0]
        accounts = ask(stack, "GET", "/v1/balances")[1]["accounts"]
        assert accounts["example"]["state"] == "off"
