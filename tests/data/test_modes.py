"""What a subscriber with a mode is due, without sockets."""

from hypothesis import given
from hypothesis import strategies as st

from feedhandler.data import modes
from feedhandler.data.modes import Pace

MS = 1_000_000


def test_the_newest_of_each_topic_waits_and_the_longest_waiting_goes_first():
    latest = Pace(b"@latest", 0)
    for topic, message in [(b"a", b"a1"), (b"b", b"b1"), (b"a", b"a2")]:
        latest.note(topic, message)
    assert latest.skipped == 1
    assert latest.take() == [b"a2", b"b1"]
    assert latest.take() == []


def test_a_message_that_its_owner_changes_leaves_as_it_is_then():
    latest, record = Pace(b"@latest", 0), bytearray(b"1")
    latest.note(b"a", record)
    record[:] = b"2"
    latest.note(b"a", record)
    assert latest.take() == [b"2"]


def test_a_part_leaves_at_once_and_no_more():
    latest = Pace(b"@latest", 0)
    for number in range(100):
        latest.note(b"%d" % number, b"")
    sizes = []
    while messages := latest.take():
        sizes.append(len(messages))
    assert max(sizes) == modes.CHUNK_RECORDS
    assert sum(sizes) == 100


def test_an_interval_begins_when_something_leaves():
    slow = Pace(b"@interval=100", 0)
    assert slow.look_mono_ns(500 * MS) == 600 * MS
    slow.note(b"a", b"a1")
    assert slow.look_mono_ns(500 * MS) == 500 * MS, "after a silence at once"
    assert slow.release(500 * MS)
    assert slow.take() == [b"a1"]
    slow.note(b"a", b"a2")
    assert slow.look_mono_ns(520 * MS) == 600 * MS
    assert not slow.release(599 * MS)
    assert slow.take() == []
    assert slow.release(600 * MS)
    assert slow.take() == [b"a2"]


def test_what_was_due_and_has_not_left_goes_first_and_in_its_newest_state():
    slow = Pace(b"@interval=100", 0)
    slow.note(b"a", b"a1")
    slow.release(0)
    slow.note(b"a", b"a2")
    slow.note(b"b", b"b1")
    assert not slow.release(1000 * MS)
    assert slow.look_mono_ns(1000 * MS) == modes.NEVER, "room decides, and nobody turns in circles"
    assert slow.take() == [b"a2"]
    assert slow.release(1000 * MS)
    assert slow.take() == [b"b1"]


def test_a_number_is_told_once_and_each_second_at_most():
    latest = Pace(b"@latest", 0)
    assert latest.report(1, 10_000 * MS, 0) is None
    latest.note(b"a", b"")
    latest.note(b"a", b"")
    assert latest.report(1, 999 * MS, 0) is None
    assert b'"skipped":1' in latest.report(1, 1000 * MS, 0)
    assert latest.report(1, 5000 * MS, 0) is None


def test_what_is_gathered_leaves_when_it_is_due_and_nothing_of_it_is_kept_here():
    gathering = Pace(b"@within=50", 0)
    assert not gathering.is_conflated
    assert gathering.gathered_size == modes.GATHERED_SIZE
    assert gathering.release(0), "after a silence at once"
    assert not gathering.release(49 * MS)
    assert gathering.look_mono_ns(20 * MS) == 50 * MS
    assert gathering.look_mono_ns(70 * MS) == 70 * MS, "or as soon as may be"
    assert gathering.release(70 * MS)
    assert not gathering.release(119 * MS)
    assert gathering.take_all() == []
    assert Pace(b"@all", 0).gathered_size == Pace(b"@interval=50", 0).gathered_size == 0


def test_what_a_full_queue_left_of_a_gathering_one_waits_for_room_alone():
    gathering = Pace(b"@within=50", 0)
    gathering.note(b"a", b"a1")
    gathering.note(b"a", b"a2")
    assert gathering.is_waiting
    assert gathering.take() == [b"a2"]
    assert gathering.skipped == 1


@given(st.binary(max_size=60))
def test_any_bytes_are_a_mode_or_refused_with_the_choices(declaration):
    try:
        Pace(b"@" + declaration, 0)
    except ValueError as exc:
        assert "choose @all" in str(exc)


@given(st.lists(st.tuples(st.sampled_from(["note", "take", "release"]), st.integers(0, 5)), max_size=60))
def test_whatever_happens_each_topic_ends_on_its_newest_and_nothing_is_kept_twice(steps):
    slow, now, newest, got = Pace(b"@interval=10", 0), 0, {}, {}
    number = 0
    for step, which in steps:
        now += 3 * MS
        if step == "note":
            number += 1
            topic = b"%d" % which
            newest[topic] = number
            slow.note(topic, (topic, number))
        elif step == "release":
            slow.release(now)
        else:
            got.update(slow.take())
    rest = slow.take_all()
    assert len(rest) == len({topic for topic, _ in rest})
    got.update(rest)
    assert got == newest
    assert slow.take_all() == []
