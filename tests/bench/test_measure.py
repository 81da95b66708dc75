"""What the bench says of a load: is every loss and error seen, and is latency counted from when it was due?"""

import pytest

np = pytest.importorskip("numpy")

from bench import contenders, measure, numbered  # noqa: E402
from bench.host import Usage  # noqa: E402
from bench.rig import Load, Outcome, Received  # noqa: E402

NATIVES = ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
START_NS = 1_790_000_000_000_000_000
LATE = {"p50": 50.0, "p99": 300.0, "p99.9": 900.0, "max": 1000.0}


def outcome(numbers, *, count=30, first=100, load=None, latency_ns=200_000, late=LATE, **columns):
    """Return a load of `count` messages of which those with these numbers arrived, in this order."""
    load = load or Load(rate=1000.0, seconds=count / 1000.0)
    number = np.array(numbers, dtype=np.int64)
    bid, bid_size, ask, ask_size = numbered.expected(number)
    due_ns = START_NS + np.rint((number - first) // load.burst * load.burst / load.rate * 1e9).astype(
        np.int64
    )
    topics = [f"ticker.binance.{NATIVES[i][:3]}/USDT" for i in numbered.symbol_indices(number, len(NATIVES))]
    arrived = {
        "now_ns": due_ns + latency_ns,
        "symbol": np.array(topics, dtype=np.bytes_),
        "bid": bid,
        "bid_size": bid_size,
        "ask": ask,
        "ask_size": ask_size,
        "recv_ns": np.array([], dtype=np.int64),
        "publish_ns": np.array([], dtype=np.int64),
        "statuses": np.array([], dtype=np.bytes_),
        **columns,
    }
    sent = {
        "first": first,
        "sent": count,
        "start_unix_ns": START_NS,
        "late_us": late,
        "cpu_s": 0.001,
        "took_s": load.seconds,
        "writes": count,
        "backlog_max": 0,
        "lost_clients": 0,
    }
    used = {"feed": Usage(count * 10e-6, count * 2, 40.0)}
    return Outcome(load, {"binance": sent}, {"binance": NATIVES}, used, 1.0, [Received(arrived)])


def run_of(*outcomes, contender=contenders.OURS):
    return measure.run_of(contender, outcomes, symbols=3, subscribers=1, feeds=1)


def everything(first=100, count=30):
    return list(range(first, first + count))


def test_a_run_in_which_all_is_right_has_no_problems():
    run = run_of(outcome(everything()))
    assert (run.problems, run.is_valid, run.count) == ([], True, 30)
    assert run.cost["feed"].cpu_us == pytest.approx(10.0)
    assert run.cost["feed"].switches == pytest.approx(2.0)


def test_latency_counts_from_when_a_message_was_due_also_in_bursts():
    load = Load(rate=1000.0, seconds=0.03, burst=10)
    run = run_of(outcome(everything(), load=load, latency_ns=250_000))
    assert run.latency_us == pytest.approx(dict.fromkeys(("p50", "p90", "max"), 250.0), rel=1e-3)


def test_a_percentile_without_a_message_beyond_it_is_not_stated():
    load = Load(rate=1000.0, seconds=1.0)
    assert "p99.9" in run_of(outcome(everything(count=1000), count=1000, load=load)).latency_us
    assert "p99.9" not in run_of(outcome(everything(count=999), count=999, load=load)).latency_us


def test_a_lost_message_is_seen():
    assert run_of(outcome(everything()[:-1])).problems == ["1 of 30 lost"]


def test_what_a_path_leaves_out_by_design_is_said_and_not_called_lost():
    run = run_of(outcome(everything()[::2]), contender=contenders.CCXT_PRO)
    assert run.problems == ["50% not delivered, by design"]


def test_a_message_that_came_twice_is_seen():
    assert run_of(outcome([*everything(), 129])).problems == ["1 came twice"]


def test_disorder_within_a_symbol_is_seen_and_between_symbols_is_none():
    numbers = everything()
    numbers[0], numbers[1] = numbers[1], numbers[0]  # neighbours are of different symbols
    assert run_of(outcome(numbers)).problems == []
    numbers = everything()
    numbers[0], numbers[3] = numbers[3], numbers[0]  # three symbols: these two are of one
    assert run_of(outcome(numbers)).problems == ["1 out of order"]


@pytest.mark.parametrize("column", ["bid_size", "ask", "ask_size"])
def test_a_wrong_value_is_seen(column):
    _, bid_size, ask, ask_size = numbered.expected(np.array(everything()))
    values = {"bid_size": bid_size, "ask": ask, "ask_size": ask_size}[column].copy()
    values[7] += 0.001
    assert run_of(outcome(everything(), **{column: values})).problems == ["1 with wrong values"]


def test_a_wrong_symbol_is_seen():
    symbols = outcome(everything()).received[0].columns["symbol"].copy()
    symbols[3] = b"ticker.binance.SOL/USDT" if b"BTC" in symbols[3] else b"ticker.binance.BTC/USDT"
    assert run_of(outcome(everything(), symbol=symbols)).problems == ["1 of the wrong symbol"]


def test_messages_that_nobody_sent_are_seen():
    assert run_of(outcome([*everything(), 5000])).problems == ["1 messages that nobody sent"]


def test_a_straggler_of_the_load_before_is_none_of_this_one():
    assert run_of(outcome([90, *everything()])).problems == []


@pytest.mark.parametrize("late", [{**LATE, "p99": 20_000.0}, {**LATE, "p50": 2000.0}])
def test_a_run_whose_generator_fell_behind_is_not_valid(late):
    run = run_of(outcome(everything(), late=late))
    assert not run.is_valid
    assert "generator was late" in run.problems[0]


def test_of_several_rounds_the_median_counts_and_no_problem_is_forgotten():
    rounds = [outcome(everything(), latency_ns=ns) for ns in (100_000, 200_000, 900_000)]
    rounds.append(outcome(everything()[:-1], latency_ns=200_000))
    run = run_of(*rounds)
    assert run.latency_us["p50"] == pytest.approx(200.0, rel=1e-3)
    assert run.problems == ["1 of 30 lost"]


def test_stages_are_split_where_the_records_state_their_times():
    plain = outcome(everything())
    due_ns = plain.received[0].columns["now_ns"] - 200_000
    staged = outcome(everything(), recv_ns=due_ns + 50_000, publish_ns=due_ns + 120_000)
    stages = {stage.name: stage.latency_us["p50"] for stage in run_of(staged).stages}
    assert stages == pytest.approx(
        {"due → received": 50.0, "received → published": 70.0, "published → subscriber": 80.0}, rel=1e-3
    )


def test_numbers_survive_the_way_through_text_and_float():
    number = np.arange(0, 20_000_000, 9973)
    bid, bid_size, ask, ask_size = numbered.expected(number)
    texts = [f"{numbered.BID_FIRST + n:d}" for n in number.tolist()]
    assert [float(f"{t[:-2]}.{t[-2:]}000000") for t in texts] == bid.tolist()
    assert (numbered.numbers_of(bid) == number).all()
    assert (ask > bid).all()
    assert (bid_size > 0).all()
    assert (ask_size > 0).all()


@pytest.mark.parametrize("symbols", [1, 2, 3, 10, 500, 2900, 5000])
def test_all_symbols_take_turns(symbols):
    index = numbered.symbol_indices(np.arange(symbols), symbols)
    assert sorted(index.tolist()) == list(range(symbols))
