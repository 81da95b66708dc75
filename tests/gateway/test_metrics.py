"""What Prometheus is told, whether probes are told the truth, and the last minutes that are kept."""

import json
import time
from pathlib import Path

import msgspec
import pytest
import uvloop
from aiohttp.test_utils import TestClient, TestServer
from desk import EXCHANGES, beat, make
from prometheus_client.parser import text_string_to_metric_families

from feedhandler.data import wire
from feedhandler.data.status import (
    LATENCY_BOUNDS_US,
    ConnectionStatus,
    ExchangeStatus,
    FeedStatus,
    PollStatus,
    RecordedFeed,
    RecorderStatus,
    RelayStatus,
)
from feedhandler.gateway import health
from feedhandler.gateway.app import make_app
from feedhandler.gateway.history import COLUMNS, ROWS_MAX, History
from feedhandler.gateway.metrics import Metrics
from feedhandler.runtime.settings import RecorderConfig
from feedhandler.transport.files import Lock, relay_status_path, write_recorder_status, write_relay_status

COUNTS = [1, *[2] * (len(LATENCY_BOUNDS_US) - 1), 5]


def status(name, state="live", connect=True, **feed):
    legs = [
        ConnectionStatus(
            leg=leg, phase="running", attempt=0, connects=1, frames=10, first=7, behind_us=leg * 5.0
        )
        for leg in (0, 0, 1)
    ]
    return ExchangeStatus(
        exchange=name,
        state=state,
        since_ns=1,
        records=42,
        topics=3,
        newest_recv_ns=2_000_000_000,
        latency_counts=COUNTS,
        latency_sum_us=1e6,
        hop_lost=4,
        feed=FeedStatus(exchange=name, pid=1, started_ns=1, connect=connect, connections=legs, **feed),
    )


# asked where the bridge says; tests/e2e/test_bridge_nats.py has it
BRIDGE_NAMES = {"feedhandler_bridge_connected"}
SIMULATED = """
[exchanges.binance]
ws_url = "ws://127.0.0.1:1"
rest_url = "http://127.0.0.1:1"
simulated = true
[exchanges.bybit]
"""


def play(tmp_path, scene, exchanges=EXCHANGES):
    async def main():
        parts, screens = make(tmp_path, exchanges=exchanges)
        metrics = Metrics(parts, screens)
        app = make_app(parts, [metrics.route(), *health.routes(parts)], metrics.middleware())
        async with TestClient(TestServer(app)) as client:
            await scene(parts, client)

    uvloop.run(main())


async def samples(client):
    answer = await client.get("/metrics")
    assert answer.content_type == "text/plain"
    text = await answer.text()
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def recorded(**fields):
    feed = RecordedFeed(is_connected=True, received=7, items_size=700, stored_size=70, lost=3)
    fields = {"free_size": 9, "min_free_size": 5, "size": 80, "feeds": {"binance-1of2": feed}, **fields}
    return RecorderStatus(pid=1, as_of_ns=time.time_ns(), directory="recordings", **fields)


def record(parts):
    parts.config = msgspec.structs.replace(parts.config, recorder=RecorderConfig())


def test_what_the_recorder_does(tmp_path):
    async def scene(parts, client):
        write_recorder_status(parts.config.run_dir, recorded())
        assert ("feedhandler_recorder_recording",) not in await samples(client), "of an earlier configuration"
        record(parts)
        found = await samples(client)
        names = ("recording", "free_bytes", "min_free_bytes", "size_bytes")
        assert [found[f"feedhandler_recorder_{name}",] for name in names] == [1, 9, 5, 80]
        names = ("connected", "frames_total", "raw_bytes_total", "stored_bytes_total", "lost_total")
        assert [found[f"feedhandler_recorder_{name}", "binance-1of2"] for name in names] == [1, 7, 700, 70, 3]
        for status in (recorded(stopped="no room"), recorded()):
            status.as_of_ns -= 0 if status.stopped else 11 * 10**9
            write_recorder_status(parts.config.run_dir, status)
            assert (await samples(client))["feedhandler_recorder_recording",] == 0

    play(tmp_path, scene)


def test_the_relay_is_up_as_long_as_it_says_so(tmp_path):
    async def scene(parts, client):
        assert (await samples(client))["feedhandler_relay_up",] == 0
        status = RelayStatus(pid=1, as_of_ns=time.time_ns(), requests=7, delays=2, subscribers=3, strangers=4)
        write_relay_status(parts.config.run_dir, status)
        found = await samples(client)
        names = ("up", "requests_total", "delays_total", "refused_total", "subscribers", "strangers_total")
        assert [found[f"feedhandler_relay_{name}",] for name in names] == [1, 7, 2, 0, 3, 4]
        status.as_of_ns -= 6 * 10**9
        write_relay_status(parts.config.run_dir, status)
        found = await samples(client)
        assert found["feedhandler_relay_up",] == 0
        assert ("feedhandler_relay_requests_total",) not in found
        relay_status_path(parts.config.run_dir).write_bytes(b"{")
        assert (await samples(client))["feedhandler_relay_up",] == 0

    play(tmp_path, scene)


def test_what_processes_count_is_handed_on(tmp_path):
    async def scene(parts, client):
        beat(parts)
        parts.market_data.statuses["binance"] = status("binance", clock_offset_ms=250.0, stale=2)
        found = await samples(client)
        assert found["feedhandler_merger_up",] == 1
        assert found["feedhandler_exchange_records_total", "binance"] == 42
        assert found["feedhandler_exchange_state", "binance", "live"] == 1
        assert found["feedhandler_exchange_state", "binance", "down"] == 0
        assert found["feedhandler_exchange_newest_time_seconds", "binance"] == 2
        assert found["feedhandler_exchange_clock_offset_seconds", "binance"] == 0.25
        assert found["feedhandler_exchange_stale_channels", "binance"] == 2
        assert found["feedhandler_leg_connections", "0", "binance"] == 2
        assert found["feedhandler_leg_first", "1", "binance"] == 7
        assert found["feedhandler_leg_behind_seconds", "1", "binance"] == pytest.approx(5e-6)
        assert found["feedhandler_account_state", "bybit", "off"] == 1
        assert ("feedhandler_exchange_records_total", "bybit") not in found, "nothing has come of it"

    play(tmp_path, scene)


def test_records_are_counted_by_kind_from_the_sequences_of_the_stream(tmp_path):
    async def scene(parts, client):
        beat(parts)
        parts.market_data.statuses["binance"] = status(
            "binance",
            lost_trades={"trade.A": 4, "trade.B": -1, "trade.C": 3},
            recovered_trades=9,
            invalid={"book": 2, "depth": 1},
            invalid_topics={"book.binance.A": time.time_ns() - 60 * 10**9},
            polled=[
                PollStatus(
                    market="linear",
                    fields=["open_interest", "next_funding_ns"],
                    every_s=60.0,
                    lasts_s=180.0,
                    symbols=5,
                    known=3,
                    late=2,
                    oldest_ns=7 * 10**9,
                )
            ],
        )
        take = parts.market_data.follower.take
        parts.market_data.session = 7
        take(wire.pack(wire.Ticker("ticker.binance.A/X", session=7, sequence=40)))
        take(wire.pack(wire.Trade("trade.binance.A/X", session=7, sequence=5)))
        take(wire.pack(wire.Trade("trade.binance.B/X", session=7, sequence=6)))
        take(wire.pack(wire.Trade("trade.binance.C/X", session=6, sequence=99)))
        for symbol, flags in (("A/X", wire.INVALID), ("B/X", 0)):
            take(wire.pack(wire.Depth(f"depth.binance.{symbol}", session=7, sequence=2, flags=flags)))
        found = await samples(client)
        records = {
            key[2]: value for key, value in found.items() if key[0] == "feedhandler_kind_records_total"
        }
        assert records == {"ticker": 40, "trade": 11, "depth": 4}, "not of a session that is over"
        assert found["feedhandler_kind_topics", "binance", "trade"] == 2
        assert found["feedhandler_kind_invalid_topics", "binance", "depth"] == 1
        assert found["feedhandler_kind_invalid_topics", "binance", "trade"] == 0
        take(wire.pack(wire.Condition("trade.binance.A/X", session=7, sequence=5, flags=wire.INVALID)))
        found = await samples(client)
        assert found["feedhandler_kind_invalid_topics", "binance", "trade"] == 1
        for sequence, flags, invalid in ((6, 0, 1), (7, wire.SNAPSHOT, 0)):
            take(wire.pack(wire.Trade("trade.binance.A/X", session=7, sequence=sequence, flags=flags)))
            found = await samples(client)
            assert found["feedhandler_kind_invalid_topics", "binance", "trade"] == invalid, "until a snapshot"
        assert found["feedhandler_trades_lost_total", "binance"] == 7
        assert found["feedhandler_trades_lost_unknown_topics", "binance"] == 1
        assert found["feedhandler_trades_recovered_total", "binance"] == 9
        assert found["feedhandler_exchange_invalid_topics", "binance", "book"] == 2
        assert found["feedhandler_exchange_invalid_topics", "binance", "depth"] == 1
        assert found["feedhandler_exchange_invalid_seconds", "binance"] >= 60
        for field in ("open_interest", "next_funding_ns"):
            assert found["feedhandler_exchange_polled_late", *sorted(("binance", field, "linear"))] == 2
            assert (
                found[
                    "feedhandler_exchange_polled_oldest_time_seconds", *sorted(("binance", field, "linear"))
                ]
                == 7
            )

    play(tmp_path, scene)


def test_each_process_of_this_host_has_its_own_series(tmp_path):
    async def scene(parts, client):
        with Lock(parts.config.run_dir, "gateway"):
            found = await samples(client)
        assert found["feedhandler_process_up", "gateway"] == 1
        assert found["feedhandler_process_resident_memory_bytes", "gateway"] > 1 << 20
        assert found["feedhandler_process_cpu_seconds_total", "gateway"] > 0
        for name in ("merger", "relay", "feed-binance", "feed-bybit"):
            assert found["feedhandler_process_up", name] == 0
            assert found["feedhandler_process_restarts_total", name] == 0
            assert ("feedhandler_process_cpu_seconds_total", name) not in found

    play(tmp_path, scene)


def test_that_data_are_simulated_is_told_with_or_without_a_merger(tmp_path):
    async def scene(parts, client):
        found = await samples(client)
        assert found["feedhandler_exchange_simulated", "binance"] == 1
        assert found["feedhandler_exchange_simulated", "bybit"] == 0

    play(tmp_path, scene, exchanges=SIMULATED)


def test_latencies_are_a_histogram_of_cumulative_buckets(tmp_path):
    async def scene(parts, client):
        beat(parts)
        parts.market_data.statuses["binance"] = status("binance")
        found = await samples(client)
        name = "feedhandler_tick_to_publish_seconds"
        buckets = {key[1]: value for key, value in found.items() if key[0] == f"{name}_bucket"}
        assert buckets["2.5e-05"] == 1
        assert buckets["5e-05"] == 3
        assert buckets["+Inf"] == sum(COUNTS) == found[f"{name}_count", "binance"]
        assert list(buckets.values()) == sorted(buckets.values())
        assert found[f"{name}_sum", "binance"] == 1.0

    play(tmp_path, scene)


def test_what_a_silent_merger_said_is_not_told_as_if_it_were_so(tmp_path):
    async def scene(parts, client):
        beat(parts)
        parts.market_data.statuses["binance"] = status("binance")
        parts.market_data.heartbeat_mono = 0.0
        found = await samples(client)
        assert found["feedhandler_merger_up",] == 0
        told = [key[0] for key in found if key[0].startswith(("feedhandler_exchange", "feedhandler_leg"))]
        assert set(told) == {"feedhandler_exchange_simulated"}, "which the configuration says"

    play(tmp_path, scene)


def test_requests_are_counted_by_route_and_no_client_can_make_series(tmp_path):
    async def scene(parts, client):
        for number in range(20):
            await client.get(f"/no/such/{number}")
            await client.request(("PROPFIND", "LOCK", "PATCH", "MKCOL")[number % 4], "/live")
        await client.get("/live")
        found = await samples(client)
        requests = {key[1:]: n for key, n in found.items() if key[0] == "feedhandler_http_requests_total"}
        assert requests["/live", "2xx", "GET"] == 1
        assert sum(requests.values()) == 41
        assert len(requests) <= 4

    play(tmp_path, scene)


def test_there_is_nothing_per_symbol_and_every_metric_is_documented(tmp_path):
    async def scene(parts, client):
        beat(parts)
        for name in parts.config.exchanges:
            parts.market_data.statuses[name] = status(
                name, wanted={f"S{n}/USDT": ["ticker"] for n in range(1000)}
            )
        record(parts)
        write_recorder_status(parts.config.run_dir, recorded())
        text = await (await client.get("/metrics")).text()
        assert "S1/USDT" not in text
        operations = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
        for family in text_string_to_metric_families(text):
            assert f"`{family.name}" in operations, family.name
            assert family.documentation, family.name

    play(tmp_path, scene)


@pytest.mark.parametrize("file", ["alerts.yml", "grafana.json"])
def test_alerts_and_panels_ask_for_metrics_that_there_are(tmp_path, file):
    import re

    async def scene(parts, client):
        beat(parts)
        for name in parts.config.exchanges:
            parts.market_data.statuses[name] = status(name, clock_offset_ms=1.0)
        parts.market_data.follower.take(wire.pack(wire.Depth("depth.binance.A/X", sequence=1)))
        await client.get("/live")
        record(parts)
        write_recorder_status(parts.config.run_dir, recorded())
        with Lock(parts.config.run_dir, "gateway"):
            found = await samples(client)
        names = {key[0] for key in found} | BRIDGE_NAMES
        text = (Path(__file__).parents[2] / "conf" / file).read_text(encoding="utf-8")
        asked = set(re.findall(r"feedhandler_\w+", text))
        assert asked, "it asks for something"
        assert asked <= names, asked - names

    play(tmp_path, scene)


# --- probes


async def ready(client):
    answer = await client.get("/ready")
    body = json.loads(await answer.read())
    assert (answer.status == 200) == body["is_ready"]
    return body["waiting_for"]


def test_ready_is_when_every_wanted_exchange_has_fresh_data(tmp_path):
    async def scene(parts, client):
        assert (await client.get("/live")).status == 200
        assert await ready(client) == {"merger": "is silent"}
        beat(parts)
        assert await ready(client) == {"binance": "is silent", "bybit": "is silent"}
        parts.market_data.statuses = {"binance": status("binance"), "bybit": status("bybit", "stale")}
        assert await ready(client) == {"bybit": "stale"}
        parts.market_data.statuses["bybit"] = status("bybit", "live")
        assert await ready(client) == {}
        parts.market_data.statuses["bybit"] = status("bybit", "idle", connect=False)
        assert await ready(client) == {}, "nobody wants it"
        parts.market_data.statuses["bybit"] = status("bybit", "connecting", connect=False)
        assert await ready(client) == {}
        parts.market_data.heartbeat_mono = 0.0
        assert await ready(client) == {"merger": "is silent"}

    play(tmp_path, scene)


# --- history


def test_a_row_a_second_is_kept_and_no_more_than_ten_minutes():
    history = History()
    for second in range(2 * ROWS_MAX):
        for _ in range(3):  # a change of state is told at once
            history.take(status("binance"), second)
    rows = history.latency().exchanges["binance"]
    assert len(rows) == ROWS_MAX
    assert [row[0] for row in rows] == list(range(ROWS_MAX, 2 * ROWS_MAX))
    assert len(rows[0]) == len(COLUMNS)


def test_a_clock_that_was_set_back_makes_no_gap_in_order():
    history = History()
    for second in (10, 11, 5, 6):
        history.take(status("binance"), second)
    seconds = [row[0] for row in history.latency().exchanges["binance"]]
    assert seconds[-1] == 6
