"""What is known of an exchange's clock, from answers that are late, old, or no times at all."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feedhandler.data.clock import (
    DRIFT_PPM,
    OFFSET_NS_MAX,
    READING_NS_MAX,
    RESOLUTION_NS,
    STEP_NS,
    TOLERANCE_NS,
    ExchangeClock,
    Sample,
)

MS = 1_000_000
SECOND = 1_000_000_000
UNIX_NS = 1_790_000_000 * SECOND
MONO_NS = 5_000 * SECOND


def sample(at_s=0.0, *, offset_ms=0.0, there_ms=10.0, back_ms=10.0):
    """An answer that came at_s, from a clock that is offset_ms ahead; the way took so long in each direction."""
    at_ns, back_ns = int(at_s * SECOND), int(back_ms * MS)
    received = MONO_NS + at_ns
    exchange_ns = UNIX_NS + at_ns - back_ns + int(offset_ms * MS)
    return Sample(received - back_ns - int(there_ms * MS), received, UNIX_NS + at_ns, exchange_ns)


def clock_of(*samples):
    clock = ExchangeClock()
    for each in samples:
        clock.add(each)
    return clock


def known_ms(clock, at_s=0.0):
    known = clock.estimate(MONO_NS + int(at_s * SECOND))
    return None if known is None else (known.offset_ns / MS, known.uncertainty_ns / MS)


def test_nothing_is_known_until_two_answers_agree():
    clock = ExchangeClock()
    assert known_ms(clock) is None
    assert clock.bounds(MONO_NS) is None
    clock.add(sample(0))
    assert known_ms(clock) is None
    assert not clock.is_settled
    clock.add(sample(1))
    assert known_ms(clock, 1) == pytest.approx((0.5, 10.5), abs=0.01)
    assert clock.is_settled


def test_an_answer_out_of_a_cache_agrees_with_no_other():
    clock = ExchangeClock()
    for at_s in range(6):
        clock.add(sample(at_s, offset_ms=-300_000 - 1000 * at_s))  # the same time, said again and again
    assert known_ms(clock, 6) is None


def test_the_quickest_answer_is_kept_until_age_has_made_it_less_sure():
    clock = clock_of(sample(0, there_ms=200, back_ms=20), sample(1, there_ms=5, back_ms=5))
    assert known_ms(clock, 1) == pytest.approx((0.5, 5.5), abs=0.1)
    clock.add(sample(2, there_ms=50, back_ms=50, offset_ms=3))
    assert known_ms(clock, 2) == pytest.approx((0.5, 6.0), abs=0.1)
    clock.add(sample(302, there_ms=50, back_ms=50, offset_ms=3))
    assert known_ms(clock, 302) == pytest.approx((3.5, 50.5), abs=0.1)


def test_what_is_known_grows_less_sure_with_age():
    clock = clock_of(sample(0), sample(1))
    _, at_once = known_ms(clock, 1)
    _, later = known_ms(clock, 1001)
    assert later - at_once == pytest.approx(1000 * DRIFT_PPM / 1000)


def test_one_answer_that_contradicts_is_not_believed_and_two_are():
    clock = clock_of(sample(0), sample(1), sample(2, offset_ms=5000))
    assert known_ms(clock, 2)[0] == pytest.approx(0.5, abs=0.1)
    assert not clock.is_settled
    clock.add(sample(3, offset_ms=5000))
    assert known_ms(clock, 3)[0] == pytest.approx(5000.5, abs=0.1)
    assert clock.is_settled


def test_a_contradiction_is_forgotten_when_the_next_answer_confirms_what_was_known():
    clock = clock_of(sample(0), sample(1), sample(2, offset_ms=5000), sample(3), sample(4, offset_ms=5000))
    assert known_ms(clock, 4)[0] == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("exchange_ns", [0, UNIX_NS + OFFSET_NS_MAX + SECOND, 2**63 - 1])
def test_a_time_years_off_is_none(exchange_ns):
    clock = ExchangeClock()
    with pytest.raises(ValueError, match=r"time is \d+ years off"):
        clock.add(Sample(MONO_NS, MONO_NS + MS, UNIX_NS, exchange_ns))
    assert known_ms(clock) is None


def test_what_cannot_be_is_later_than_the_exchanges_clock_may_be_by_a_second():
    clock = clock_of(sample(0, offset_ms=-120_000), sample(1, offset_ms=-120_000))
    offset_ns, ahead_ns_max = clock.bounds(MONO_NS + SECOND)
    known = clock.estimate(MONO_NS + SECOND)
    assert offset_ns == known.offset_ns
    assert ahead_ns_max == known.offset_ns + known.uncertainty_ns + TOLERANCE_NS
    assert ahead_ns_max < -118 * SECOND, (
        "of a host whose clock is two minutes fast, its present is the future"
    )


@given(
    seed=st.integers(0, 2**32),
    offset_ms=st.integers(-10_000_000, 10_000_000),
    unit=st.sampled_from([1, 1000, MS]),
)
def test_the_truth_is_within_what_is_said(seed, offset_ms, unit):
    """Whatever the ways take, and in whatever unit the exchange cuts its time off, while clocks drift apart."""
    rng = random.Random(seed)
    clock, at_s = ExchangeClock(), 0.0
    drift_ppm = rng.uniform(-DRIFT_PPM, DRIFT_PPM)
    for _ in range(rng.randrange(2, 30)):
        at_s += rng.choice([1.0, 1.0, 300.0])
        there_ms, back_ms = rng.expovariate(1 / 50), rng.expovariate(1 / 50)
        true_ms = offset_ms + at_s * drift_ppm / 1000
        stated = sample(at_s, offset_ms=true_ms, there_ms=there_ms, back_ms=back_ms)
        cut = stated.exchange_ns // unit * unit
        clock.add(Sample(stated.sent_mono_ns, stated.received_mono_ns, stated.unix_ns, cut))
        known = clock.estimate(stated.received_mono_ns)
        if known is not None:
            assert abs(known.offset_ns - true_ms * MS) <= known.uncertainty_ns + 1000
    assert known is not None
    assert known.uncertainty_ns >= RESOLUTION_NS // 2


# --- this host's clock


def look(clock, at_s, *, set_by_ns=0, took_ns=0):
    mono_ns = MONO_NS + int(at_s * SECOND)
    return clock.has_stepped(mono_ns, UNIX_NS + int(at_s * SECOND) + set_by_ns, mono_ns + took_ns)


@pytest.mark.parametrize("set_by_ns", [-STEP_NS - 1, STEP_NS + 1, 3600 * SECOND, -UNIX_NS])
def test_a_clock_that_was_set_makes_all_forgotten_once(set_by_ns):
    clock = clock_of(sample(0), sample(1), sample(2, offset_ms=5000))
    assert not look(clock, 2)
    assert look(clock, 3, set_by_ns=set_by_ns)
    assert known_ms(clock, 3) is None
    clock.add(sample(4, offset_ms=5000))
    assert known_ms(clock, 4) is None, "the contradiction of before is forgotten, too"
    assert not look(clock, 4, set_by_ns=set_by_ns)


def test_a_clock_that_is_slewed_was_not_set():
    clock = clock_of(sample(0), sample(1))
    set_by_ns = 0
    for at_s in range(2, 2000):
        set_by_ns += SECOND * DRIFT_PPM // 1_000_000
        assert not look(clock, at_s, set_by_ns=set_by_ns)
    assert set_by_ns > STEP_NS


def test_a_process_that_was_stopped_while_it_looked_has_seen_nothing():
    clock = clock_of(sample(0), sample(1))
    assert not look(clock, 2)
    assert not look(clock, 3, set_by_ns=5 * SECOND, took_ns=READING_NS_MAX + 1)
    assert known_ms(clock, 3) is not None
    assert not look(clock, 4)
    assert look(clock, 5, set_by_ns=5 * SECOND)
