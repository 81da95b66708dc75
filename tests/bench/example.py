"""A small report, built here: what the tests of the bench's presentation change one thing of."""

from typing import Any

from hdrh.histogram import HdrHistogram

from bench.report import (
    Ceiling,
    Cost,
    Memory,
    PathInfo,
    Perpetuals,
    PerpetualsStart,
    Recorded,
    Report,
    Run,
    Soak,
    Stage,
    StoredKind,
    Target,
)

PATHS = {
    "floor": PathInfo("floor: raw frames", "picows → PUB → SUB", is_ours=False),
    "feedhandler": PathInfo("feedhandler", "feed → merger → Subscriber", is_ours=True),
    "other": PathInfo("somebody else's", "other → PUB → SUB", is_ours=False),
    "absent": PathInfo("not here", "absent → SUB", is_ours=False, skipped="absent is not installed"),
}
RECORDED = Recorded(
    frames=1_000_000,
    frames_per_s=50_000.0,
    frame_cpu_us=18.0,
    mb_per_s=15.0,
    messages=200_000,
    export_messages_per_s=60_000.0,
    export_rows_per_s=90_000.0,
    pandas_messages_per_s=30_000.0,
    replay_records=190_000,
    replay_messages_per_s=250_000.0,
    replay_records_per_s=120_000.0,
    replay_records_by_clock_per_s=210_000.0,
    replay_first_s=0.25,
    kinds=[StoredKind("binance", "trade", 1000, 150.0, 40.0, 30.0, 60.0)],
)
PERPETUALS = Perpetuals(
    exchange="bybit",
    symbols=500,
    busiest_per_s=300.0,
    seconds=15.0,
    frames_per_s=2_000.0,
    records_per_s={"ticker": 1_200.0, "book": 800.0},
    busiest_ten=0.2,
    median_per_s=2.5,
    levels_mean=6.0,
    levels_p99=40.0,
    latency_us={"p50": 300.0, "p90": 600.0, "p99": 2_000.0, "p99.9": 5_000.0, "max": 9_000.0},
    held_us={"p50": 150.0},
    cores={"feed": 0.2, "merger": 0.05, "simulator": 0.3},
    resident_mb={"feed": 74.0, "merger": 80.0},
    proportional_mb={"feed": 60.0, "merger": 48.0},
    late_ms=0.4,
)
PERPETUALS_START = PerpetualsStart(
    "bybit", 500, {"ticker": 2.0, "book": 3.0}, 1.5, 3_000, 6, {"requests": 0.65, "connections": 0.0}
)
P50_US = {"floor": 100.0, "feedhandler": 120.0, "other": 500.0}


def run(path: str = "feedhandler", rate: float = 1000.0, burst: int = 1, **changes: Any) -> Run:
    """Return a run whose percentiles are 1, 2, 3, 4 and 5 times the path's median."""
    p50_us = P50_US[path]
    facts: dict[str, Any] = {
        "path": path,
        "rate": rate,
        "burst": burst,
        "seconds": 1.0,
        "symbols": 10,
        "subscribers": 1,
        "feeds": 1,
        "count": 1000,
        "is_valid": True,
        "latency_us": {
            name: p50_us * n for n, name in enumerate(("p50", "p90", "p99", "p99.9", "max"), start=1)
        },
        "histogram": histogram([int(p50_us)] * 500 + [int(p50_us * 2)] * 500),
        "cost": {"feed": Cost(p50_us / 10, 1.5, 40.0), "merger": Cost(p50_us / 20, 0.5, 30.0)},
        "generator": {"late_p99_us": 40.0, "late_max_us": 90.0},
    }
    if path == "feedhandler":
        facts["stages"] = [
            Stage("due → received", {"p50": 70.0, "p99": 200.0}),
            Stage("received → subscriber", {"p50": 50.0, "p99": 160.0}),
        ]
    return Run(**(facts | changes))


def histogram(values_us: list[int]) -> str:
    recorded = HdrHistogram(1, 60_000_000, 3)
    for value in values_us:
        recorded.record_value(value)
    encoded: bytes = recorded.encode()
    return encoded.decode()


def report(**changes: Any) -> Report:
    """Return a report with something in each of its parts."""
    latency = [run(path, rate) for rate in (1000.0, 5000.0) for path in P50_US]
    facts: dict[str, Any] = {
        "date": "2026-11-24T12:00:00Z",
        "mode": "quick",
        "seconds": 90.0,
        "host": {"processor": "some CPU", "cores": "2"},
        "settings": {"seconds per run": "1"},
        "paths": dict(PATHS),
        "latency": [*latency, *(run(path, burst=50) for path in P50_US)],
        "symbols": [run(path, symbols=n) for n in (10, 100) for path in ("floor", "feedhandler")],
        "subscribers": [run(path, subscribers=n) for n in (1, 4) for path in ("floor", "feedhandler")],
        "feeds": [run(feeds=n) for n in (1, 3)],
        "kinds": [run(path, kind=kind) for kind in ("ticker", "book") for path in ("floor", "feedhandler")],
        "kind_ceilings": {"book": {"feedhandler": Ceiling(40_000.0, "the search")}},
        "books": [Memory("feedhandler", 500, 1000, {"feed": 90.0, "merger": 60.0})],
        "ceilings": {"feedhandler": Ceiling(40_000.0, "merger at 99 % of a core", 30_000.0, [run()])},
        "recorder": [run()],
        "recorded": RECORDED,
        "perpetuals": [PERPETUALS],
        "perpetual_starts": [PERPETUALS_START],
        "soak": Soak(600_000, 0, 30.0, 20_000.0, 1000, {"feed": [40.0, 41.0, 41.0]}, is_flat=True),
        "targets": [
            Target("p50 ÷floor", "≤ 1.5x", "≤ 1.1x", "1.20x", is_met=True, is_stretch_met=False),
            Target("CPU ÷floor", "≤ 1.1x", "", "1.20x", is_met=False),
            Target("p50 against absent", "faster", "", "", is_met=None),
        ],
    }
    return Report(**(facts | changes))
