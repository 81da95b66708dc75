"""An exchange of two markets on two hosts that spell their symbols alike: the document's, and a linear one."""

import array
import contextlib
import sys

from harness import Stack
from test_exchanges_document import LAUNCHER, SYMBOLS, Server, adapter

from feedhandler.data import wire

LINEAR = """

class Linear(Spot):
    name = "linear"
    ws_url = "wss://linear.example.com"
    rest_url = "https://linear.example.com"
    rest_limit = (300, 60.0)
    rest_budget = "linear"
    canary = "BTC/USDT:USDT"

    def _instrument(self, raw: msgspec.Raw) -> Instrument:
        return msgspec.structs.replace(super()._instrument(raw), settle="USDT")

    def endpoint(self, ws_url: str, handshake: bytes, connect_id: str) -> base.Endpoint:
        return base.Endpoint(f"{ws_url}/linear")

    topics_max = 2  # a symbol


EXAMPLE = base.Exchange("example", (Spot, Linear))
"""
TABLE = """\
[exchanges.example]
rest_url = "http://{spot}"
ws_url = "ws://{spot}"
symbols = ["BTC/USDT", "ETH/USDT", "BTC/USDT:USDT", "ETH/USDT:USDT"]

[exchanges.example.markets.linear]
rest_url = "http://{linear}"
ws_url = "ws://{linear}"
"""
TOPICS = [f"{channel}.{id}" for id in SYMBOLS for channel in ("day", "quote")]


def test_both_markets_are_live_each_on_its_own_connections_within_one_budget(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "runtime"))
    (tmp_path / "example.py").write_text(adapter() + LINEAR, encoding="utf-8")
    launcher = tmp_path / "launch.py"
    launcher.write_text(LAUNCHER.format(folder=str(tmp_path)), encoding="utf-8")
    with (
        Server() as spot,
        Server("/linear", last="97000.5", bid="97000.4", ask="97000.6") as linear,
        contextlib.closing(Stack(tmp_path, exchanges=(), sim_table=False)) as stack,
    ):
        table = TABLE.format(spot=spot.url, linear=linear.url)
        stack.config.write_text(stack.config.read_text(encoding="utf-8") + table, encoding="utf-8")
        stack.command = [sys.executable, str(launcher)]
        stack.start("merger")
        stack.processes["example"] = stack.popen("feed", "example", "-c", str(stack.config), log="example")
        reader = stack.reader(b"ticker.")
        for base in ("BTC", "ETH"):
            for symbol, last in ((f"{base}/USDT", 97421.5), (f"{base}/USDT:USDT", 97000.5)):
                record = reader.read_until(
                    lambda r, symbol=symbol: r.topic == f"ticker.example.{symbol}" and r.is_complete, symbol
                )
                assert record.is_fresh
                assert record.values[0] == last, "of its own market"

        assert [sorted(topics) for topics in spot.sockets] == [sorted(TOPICS)], "one connection"
        canary = "quote.BTC-USDT"  # of that market: each of its connections has it
        own = [sorted(topics - {canary}) for topics in linear.sockets]
        assert sorted(own) == [TOPICS[:1], TOPICS[2:]], "a symbol a connection"
        assert all(canary in topics for topics in linear.sockets)
        (budget,) = (tmp_path / "runtime" / "feedhandler" / "connects").iterdir()
        assert len(array.array("q", budget.read_bytes())) == len(spot.sockets) + len(linear.sockets)

        listing = stack.reader(b"instruments.").read_until(lambda r: r.kind == wire.INSTRUMENTS, "the list")
        rows = {row["symbol"]: row for row in listing.body["instruments"]}
        assert {symbol: (row["market"], row["native"]) for symbol, row in rows.items()} == {
            "BTC/USDT": ("spot", "BTC-USDT"),
            "ETH/USDT": ("spot", "ETH-USDT"),
            "BTC/USDT:USDT": ("linear", "linear:BTC-USDT"),
            "ETH/USDT:USDT": ("linear", "linear:ETH-USDT"),
        }
        direct = stack.reader(b"ticker.example.linear:", endpoint=f"ipc://{tmp_path}/run/example.ipc")
        record = direct.read_until(lambda r: r.kind == wire.TICKER, "a record from the feed itself")
        assert record.topic.startswith("ticker.example.linear:")
