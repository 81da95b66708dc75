"""When the merger counts as silent."""

import pytest

from feedhandler.bridge.merger_silence import ABSENT_NS, HELD_UP_NS, SILENT_NS, MergerSilence

LOOK_NS = 50_000_000


def look(silence, start_ns, until_ns, **settings):
    """Look every 50 ms; returns when it has fallen silent, None if it has not."""
    for now_ns in range(start_ns, until_ns + 1, LOOK_NS):
        if silence.look(now_ns, **settings):
            return now_ns
    return None


def test_a_merger_that_never_sent_does_not_fall_silent():
    silence = MergerSilence(0)
    assert look(silence, 0, 20 * SILENT_NS, is_connected=False) is None
    assert silence.is_silent


@pytest.mark.parametrize(("is_connected", "patience_ns"), [(True, SILENT_NS), (False, ABSENT_NS)])
def test_it_falls_silent_after_its_time_once_and_sends_again(is_connected, patience_ns):
    silence = MergerSilence(0)
    silence.on_receive()
    silence.look(0, is_connected=True)
    assert not silence.is_silent
    fell_ns = look(silence, LOOK_NS, 20 * SILENT_NS, is_connected=is_connected)
    assert patience_ns < fell_ns <= patience_ns + LOOK_NS
    assert look(silence, fell_ns + LOOK_NS, fell_ns + SILENT_NS, is_connected=is_connected) is None
    silence.on_receive()
    assert not silence.look(fell_ns + SILENT_NS + LOOK_NS, is_connected=True)
    assert not silence.is_silent


def test_after_a_pause_of_our_own_it_gets_another_chance():
    silence = MergerSilence(0)
    silence.on_receive()
    silence.look(0, is_connected=True)
    back_ns = 100 * SILENT_NS
    assert back_ns > HELD_UP_NS
    assert not silence.look(back_ns, is_connected=True)
    assert look(silence, back_ns + LOOK_NS, back_ns + 2 * SILENT_NS, is_connected=True) is not None
