"""The bench's own machinery, end to end and small: real processes, every message accounted for."""

import pytest

pytest.importorskip("numpy")
pytest.importorskip("wsproto")

from patience import PATIENCE_S

from bench import contenders, measure, perpetuals
from bench.rig import BenchError, Load, Program, Rig, python
from feedhandler.sim.simulated import SEEDED


@pytest.mark.e2e
@pytest.mark.parametrize(
    "contender",
    [
        contenders.FLOOR,
        contenders.OURS,
        contenders.LIBZMQ,
        contenders.BATCHES,
        contenders.DIRECT,
        contenders.GATEWAY,
    ],
    ids=lambda contender: contender.name,
)
def test_every_message_of_a_small_load_comes_through(contender):
    with Rig(contender.name, contender.programs) as rig:
        for load in (Load(500.0, 0.4), Load(2000.0, 0.2, burst=50)):
            outcome = rig.run(load)
            run = measure.run_of(contender, [outcome], symbols=10, subscribers=1, feeds=1)
            losses = [problem for problem in run.problems if "generator" not in problem]
            assert losses == []
            assert run.count == load.count
            assert min(cost.cpu_us for cost in run.cost.values()) > 0


@pytest.mark.e2e
def test_who_looks_at_the_board_sees_each_symbols_newest():
    contender = contenders.BOARD
    with Rig(contender.name, contender.programs) as rig:
        outcome = rig.run(Load(500.0, 0.4))
        run = measure.run_of(contender, [outcome], symbols=10, subscribers=1, feeds=1)
    assert [
        problem for problem in run.problems if "generator" not in problem and "by design" not in problem
    ] == []
    (received,) = outcome.received
    newest = dict(zip(received.columns["symbol"].tolist(), received.columns["bid"].tolist(), strict=True))
    assert len(newest) == 10
    assert run.arrived > 0.5


@pytest.mark.e2e
def test_three_exchanges_and_two_subscribers_at_once():
    programs = contenders.subscribed("ticks", 2)
    with Rig("ours", programs, exchanges=SEEDED, symbols=4) as rig:
        outcome = rig.run(Load(500.0, 0.4))
        run = measure.run_of(contenders.OURS, [outcome], symbols=4, subscribers=2, feeds=3)
        assert [problem for problem in run.problems if "generator" not in problem] == []
        assert run.count == 3 * 200
        # Each once; on a busy machine one may come again, flagged DOWN while its feed was held up.
        for received in outcome.received:
            names = zip(received.columns["symbol"].tolist(), received.columns["bid"].tolist(), strict=True)
            assert len(set(names)) == 600


@pytest.mark.e2e
def test_perpetuals_begin_and_stay_right_in_all_kinds():
    with perpetuals.Stack(perpetuals.EXCHANGE, 20, 100.0) as stack:
        start = stack.start()
        them = stack.load(1.0)
    assert start.problems == []
    assert set(start.live_s) == {"ticker", "depth", "book", "contract"}
    assert max(start.live_s.values()) < PATIENCE_S
    assert (start.symbols, start.topics) == (20, 20 * 6)
    problems = [text for text in them.problems if "simulator was late" not in text]
    assert problems == []
    assert min(them.records_per_s[kind] for kind in ("ticker", "trade", "depth", "book", "contract")) > 0
    assert set(them.cores) == {*perpetuals.ROLES, "simulator"}
    assert 0 < them.latency_us["p50"] <= them.latency_us["max"]


@pytest.mark.e2e
def test_a_program_that_fails_is_named_with_what_it_said():
    def programs(place):
        argv = python("bench.paths.floor_feed", "ws://127.0.0.1:1", place.ipc("in"), "ticker", "BTCUSDT")
        return [Program("feed", argv)]

    with (
        pytest.raises(BenchError, match=r"(?is)0-feed does not work \(exit status 1\):.*refused"),
        Rig("x", programs),
    ):
        pass
