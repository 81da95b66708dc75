"""Who stays up after a start."""

import pytest

from feedhandler.cli.daemon import BEGIN_S, STAYS_S, Program, Stays


def up(name, pid, state="RUNNING"):
    return Program(name=name, statename=state, pid=pid)


def test_a_start_is_over_when_each_process_has_been_up_for_so_long_since_it_has_its_lock():
    stays = Stays(0.0)
    assert not stays.take([up("merger", 0, "STOPPED"), up("relay", 7, "STARTING")], (), 0.0)
    assert not stays.take([up("merger", 8, "STARTING"), up("relay", 7)], ("relay",), 10.0)
    assert not stays.take([up("merger", 8), up("relay", 7)], ("relay", "merger"), 11.0)
    assert not stays.take([up("merger", 8), up("relay", 7)], ("relay", "merger"), 10.0 + STAYS_S)
    assert stays.take([up("merger", 8), up("relay", 7)], ("relay", "merger"), 11.0 + STAYS_S)
    assert stays.ended == []


@pytest.mark.parametrize("has_begun", [False, True])
@pytest.mark.parametrize(
    "after",
    [up("merger", 0, "BACKOFF"), up("merger", 9), up("merger", 0, "FATAL"), up("merger", 0, "EXITED")],
)
def test_who_ends_meanwhile_has_not_stayed_up_even_if_it_was_started_again(after, has_begun):
    stays, begun = Stays(0.0), ("merger", "relay") if has_begun else ("relay",)
    stays.take([up("merger", 8), up("relay", 7)], begun, 0.0)
    stays.take([after, up("relay", 7)], begun, 1.0)
    assert stays.take([up("merger", 10), up("relay", 7)], begun, STAYS_S)
    assert stays.ended == ["merger"]


def test_who_does_not_begin_is_not_waited_for_without_end():
    stays = Stays(0.0)
    assert not stays.take([up("merger", 8)], (), BEGIN_S - 0.1)
    assert stays.take([up("merger", 8)], (), BEGIN_S)
    assert stays.ended == ["merger"]


def test_nothing_to_start_is_over_at_once():
    assert Stays(0.0).take([], (), 0.0)
