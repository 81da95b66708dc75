"""What is wanted of trades, depth and books: beside cryptofeed in process, and beside tickers."""

import msgspec
import pytest
from example import RECORDED, report, run

from bench.report import Cost, Memory, Report, Run
from bench.targets import judge


def kind_run(path: str, kind: str, cpu_us: float, p50_us: float, **changes: object) -> Run:
    made = run("other", rate=40_000.0, kind=kind, **changes)
    cost, latency = {"feed": Cost(cpu_us, 1.0, 40.0)}, made.latency_us | {"p50": p50_us}
    return msgspec.structs.replace(made, path=path, cost=cost, latency_us=latency)


def verdict(of: Report, figure: str) -> bool | None:
    [found] = [target for target in judge(of) if target.figure.startswith(figure)]
    return found.is_met


@pytest.mark.parametrize(("cpu_us", "is_met"), [(10.0, True), (10.1, False)])
def test_cpu_of_the_whole_path_is_at_most_that_of_the_callback(cpu_us, is_met):
    runs = [kind_run("feedhandler", "book", cpu_us, 100.0), kind_run("cryptofeed", "book", 10.0, 100.0)]
    assert verdict(report(kinds=runs), "CPU of books at 40,000/s") is is_met


@pytest.mark.parametrize(("p50_us", "is_met"), [(130.0, True), (131.0, False)])
def test_the_median_is_beside_that_of_tickers(p50_us, is_met):
    runs = [kind_run("feedhandler", kind, 1.0, us) for kind, us in (("ticker", 100.0), ("trade", p50_us))]
    assert verdict(report(kinds=runs), "p50 of trade at 40,000/s") is is_met


def test_none_may_be_lost():
    lost = kind_run("feedhandler", "depth", 1.0, 100.0, problems=["1 of 1000 lost"])
    assert verdict(report(kinds=[lost]), "depth at 40,000/s") is False
    assert verdict(report(kinds=[kind_run("feedhandler", "depth", 1.0, 100.0)]), "depth at 40,000/s") is True
    assert verdict(report(kinds=[]), "depth at 40,000/s") is None


@pytest.mark.parametrize(("mb", "is_met"), [(400.0, True), (401.0, False)])
def test_memory_is_that_of_all_processes(mb, is_met):
    books = [Memory("feedhandler", 500, 1000, {"feed": 100.0, "relay": mb - 100.0})]
    assert verdict(report(books=books), "memory of 500 books") is is_met


def test_a_run_that_is_not_valid_is_compared_with_nothing():
    runs = [
        kind_run("feedhandler", kind, 1.0, 100.0, is_valid=kind == "trade") for kind in ("ticker", "trade")
    ]
    assert verdict(report(kinds=runs), "p50 of trade at 40,000/s") is None


@pytest.mark.parametrize(("cpu_us", "is_met"), [(10.5, True), (10.6, False)])
def test_to_be_recorded_costs_a_feed_next_to_nothing(cpu_us, is_met):
    runs = [
        msgspec.structs.replace(run("other", rate=1000.0), path=path, cost={"feed": Cost(us, 1.0, 40.0)})
        for path, us in (("feedhandler", 10.0), ("feedhandler-recorded", cpu_us))
    ]
    assert verdict(report(recorder=runs), "CPU of a feed at 1,000/s that is recorded") is is_met
    assert verdict(report(recorder=runs), "CPU of a feed at 10,000/s that is recorded") is None


@pytest.mark.parametrize(("again_us", "is_met"), [(10.0, False), (11.9, False), (12.0, None), (8.3, None)])
def test_what_is_missed_by_no_more_than_two_of_the_same_differ_is_not_judged(again_us, is_met):
    runs = [
        msgspec.structs.replace(run("other", rate=1000.0), path=path, cost={"feed": Cost(us, 1.0, 40.0)})
        for path, us in (
            ("feedhandler", 10.0),
            ("feedhandler-recorded", 12.0),
            ("feedhandler-again", again_us),
        )
    ]
    assert verdict(report(recorder=runs), "CPU of a feed at 1,000/s that is recorded") is is_met


@pytest.mark.parametrize(
    ("figure", "wrong"),
    [
        ("frames/s that a recorder takes", {"frames_per_s": 39_999.0}),
        ("frames/s that a recorder takes", {"lost": 1}),
        ("frames/s that a recorder takes", {"problems": ["the recording is not complete"]}),
        ("records/s played again", {"replay_records_by_clock_per_s": 199_999.0}),
    ],
)
def test_what_is_missed_of_recordings_is_told(figure, wrong):
    assert verdict(report(), figure) is True
    assert verdict(report(recorded=msgspec.structs.replace(RECORDED, **wrong)), figure) is False
    assert verdict(report(recorded=None), figure) is None
