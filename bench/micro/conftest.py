"""Micro-benchmarks of the hot path: where each nanosecond of a record goes.

    python -m pytest bench/micro --benchmark-only

One function at a time, in this process, without sockets where it can be; `python -m bench` and its paths
say what the whole costs. Each timed call moves RECORDS records and the tables show nanoseconds per
record: the loop that feeds the function is in them, 8 ns; pytest-benchmark's own call is not. Compare `min`,
which repeats within some 5 %. A neighbour on the same core can lift a whole row by half, so run it twice.

Each benchmark checks its result before it is timed. pytest.ini keeps these files out of `make test`.
"""

from collections.abc import Callable
from typing import Any

import pytest
from material import RECORDS

ROUNDS = 200  # of a benchmark that prepares each round; the others run for --benchmark-max-time
WARM_UP_ROUNDS = 5


@pytest.fixture
def measure(benchmark: Any) -> Callable[..., None]:
    """Time a call that moves RECORDS records.

    prepare, if there is one, runs before each round, untimed; it may return the call's (args, kwargs).
    """

    def run(
        group: str,
        name: str,
        call: Callable[..., None],
        prepare: Callable[[], Any] | None = None,
        rounds: int = ROUNDS,
    ) -> None:
        benchmark.group, benchmark.name = group, name
        benchmark.extra_info["records"] = RECORDS
        if prepare is None:
            benchmark(call)
        else:
            benchmark.pedantic(call, setup=prepare, rounds=rounds, warmup_rounds=WARM_UP_ROUNDS)

    return run


def pytest_benchmark_scale_unit(unit: str) -> tuple[str, float]:
    """Show nanoseconds, and operations, per record instead of per call."""
    return ("n", 1e9 / RECORDS) if unit == "seconds" else ("", float(RECORDS))


def pytest_benchmark_update_json(output_json: dict[str, Any]) -> None:
    """Add the same to a JSON report, whose own figures are seconds per call."""
    for row in output_json["benchmarks"]:
        row["extra_info"]["ns_per_record"] = {
            figure: row["stats"][figure] / RECORDS * 1e9 for figure in ("min", "median")
        }
