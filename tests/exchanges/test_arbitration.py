"""Which line is first: a table of cases, over the module in Python and as it was compiled."""

import importlib.util
from pathlib import Path

import pytest

from feedhandler.exchanges import arbitration
from feedhandler.exchanges.arbitration import LINES_MAX

SECOND = 1_000_000_000
RECV_NS = 1_790_000_000_300_000_000
SOURCE = Path(arbitration.__file__).with_name("arbitration.py")

FIRST, DUPLICATE, LATE = "first", "duplicate", "late"
RENEW, RELEASE, RESET = "renew", "release", "reset"

# What happens: to a line, its update's id and when it comes, in seconds, or what becomes of it; and the answer.
CASES = {
    "of two lines the first to bring an update counts": [
        ("A", 100, 0, FIRST),
        ("B", 100, 0, DUPLICATE),
        ("B", 101, 0, FIRST),
        ("A", 101, 0, DUPLICATE),
    ],
    "what one line sends twice is first again, and what it sends late is not": [
        ("A", 100, 0, FIRST),
        ("A", 100, 0, FIRST),
        ("A", 99, 0, LATE),
    ],
    "a line that is behind moves nothing backwards": [
        ("A", 105, 0, FIRST),
        *(("B", 100 + number, number, LATE) for number in range(5)),
        ("B", 105, 5, DUPLICATE),
    ],
    "an exchange that counts anew is followed, and what was under way is late": [
        ("A", 100_000, 0, FIRST),
        ("B", 100_000, 0, DUPLICATE),
        ("A", 1, 1, FIRST),
        ("B", 100_001, 2, LATE),  # of before the restart
        ("A", 2, 3, FIRST),
        ("B", 1, 4, LATE),
        ("B", 2, 5, DUPLICATE),
        ("B", 3, 6, FIRST),
    ],
    "a line whose ids are far behind is believed when nothing else was first for a while": [
        ("A", 100_000, 0, FIRST),
        ("B", 5, 9, LATE),
        ("B", 6, 10, FIRST),
        ("B", 7, 11, FIRST),
    ],
    "what a line brings that was held up is no new count": [
        ("A", 100_000, 0, FIRST),
        *(("B", 90_000 + number, 60, LATE) for number in range(5)),
        ("B", 100_001, 61, FIRST),
    ],
    "a new connection on a line begins with nothing, and goes on in the same count": [
        ("A", 100_000, 0, FIRST),
        ("A", 1, 0, FIRST),
        ("B", RENEW),
        ("B", 1, 0, DUPLICATE),
        ("B", 2, 0, FIRST),
    ],
    "what a line was first with that is gone may be repeated by another": [
        ("A", 100, 0, FIRST),
        ("B", 100, 0, DUPLICATE),
        ("A", RELEASE),
        ("B", 100, 0, FIRST),
        ("A", 100, 0, DUPLICATE),
    ],
    "a line that was silent before a restart follows with its first update": [
        ("A", 100_000, 0, FIRST),
        ("A", 1, 0, FIRST),
        ("B", 2, 0, FIRST),
    ],
    "and an hour later, when that is far above the half": [
        ("A", 100_000, 0, FIRST),
        ("A", 1, 0, FIRST),
        ("A", 90_000, 60, FIRST),
        ("B", 90_001, 60, FIRST),
    ],
    "the backlog of the old count is late after a new one was believed": [
        ("A", 100_000, 0, FIRST),
        ("B", 5, 10, FIRST),
        ("A", 100_001, 11, LATE),
        ("B", 6, 12, FIRST),
        ("A", 7, 13, FIRST),  # it has followed
    ],
    "a late update is no restart while ids are tiny, but for 1": [
        ("A", 9, 0, FIRST),
        ("A", 3, 0, LATE),
        ("A", 1, 0, FIRST),
    ],
}

# The same where each update counts once. RESET: all connections were gone.
ONCE = {
    "what is repeated is a duplicate, whoever repeats it": [
        ("A", 100, 0, FIRST),
        ("A", 100, 0, DUPLICATE),
        ("B", 100, 0, DUPLICATE),
        ("B", 101, 0, FIRST),
    ],
    "also when the line is gone that was first": [
        ("A", 100, 0, FIRST),
        ("A", RELEASE),
        ("B", 100, 0, DUPLICATE),
        ("A", RENEW),
        ("A", 100, 0, DUPLICATE),
    ],
    "a replay after all were gone is nothing new, and what was missed is": [
        ("A", 100, 0, FIRST),
        ("A", RESET),
        ("A", 99, 20, LATE),
        ("A", 100, 20, DUPLICATE),
        ("A", 101, 20, FIRST),
        ("B", 101, 20, DUPLICATE),
    ],
    "an exchange that counts anew is followed all the same": [
        ("A", 100_000, 0, FIRST),
        ("A", RESET),
        ("A", 1, 20, FIRST),
        ("A", 2, 20, FIRST),
    ],
}

# The same of lines that begin while others are behind: C is as far behind as B, or further.
GAPS = {
    "what a line has jumped over that is new counts when another brings it": [
        ("A", 100, 0, FIRST),
        ("B", 100, 0, DUPLICATE),
        ("A", RENEW),
        ("A", 103, 0, FIRST),
        ("B", 101, 0, FIRST),
        ("B", 102, 0, FIRST),
        ("B", 103, 0, DUPLICATE),
        ("B", 104, 0, FIRST),
        ("A", 104, 0, DUPLICATE),
    ],
    "but once, and no more when it was passed": [
        ("B", 100, 0, FIRST),
        ("C", 100, 0, DUPLICATE),
        ("A", 104, 0, FIRST),
        ("B", 102, 0, FIRST),
        ("B", 102, 0, LATE),
        ("C", 101, 0, LATE),
        ("C", 102, 0, LATE),
        ("C", 103, 0, FIRST),
        ("A", 105, 0, FIRST),
        ("B", 104, 0, LATE),
        ("C", 103, 0, LATE),
    ],
    "a line that had none of it closes it": [
        ("B", 100, 0, FIRST),
        ("C", 100, 0, DUPLICATE),
        ("A", 104, 0, FIRST),
        ("B", 104, 0, DUPLICATE),
        ("C", 102, 0, LATE),
    ],
    "the line that began closes nothing, nor does another that begins above it": [
        ("B", 100, 0, FIRST),
        ("A", 103, 0, FIRST),
        ("A", 104, 0, FIRST),
        ("C", 105, 0, FIRST),
        ("C", 106, 0, FIRST),
        ("B", 101, 0, FIRST),
        ("B", 103, 0, LATE),
    ],
    "two that begin one after the other leave a gap each": [
        ("B", 100, 0, FIRST),
        ("A", 102, 0, FIRST),
        ("C", 105, 0, FIRST),
        ("A", 104, 0, FIRST),
        ("B", 101, 0, FIRST),
        ("B", 102, 0, LATE),
        ("B", 103, 0, LATE),
        ("B", 105, 0, DUPLICATE),
    ],
    "a line that begins again fills its own": [
        ("A", 100, 0, FIRST),
        ("A", RENEW),
        ("A", 104, 0, FIRST),
        ("A", RENEW),
        ("A", 103, 0, FIRST),
        ("A", 104, 0, DUPLICATE),
    ],
    "after all were gone it is what the first to come back has jumped over": [
        ("A", 100, 0, FIRST),
        ("B", 110, 0, FIRST),
        ("A", RESET),
        ("A", 115, 20, FIRST),
        ("B", 105, 20, LATE),
        ("B", 114, 20, FIRST),
    ],
    "what an exchange that counts anew has left behind is no gap": [
        ("A", 100_000, 0, FIRST),
        ("B", 100_000, 0, DUPLICATE),
        ("C", 100_010, 0, FIRST),
        ("A", 1, 1, FIRST),
        ("B", 100_005, 2, LATE),
        ("A", 2, 3, FIRST),
    ],
    "so many are remembered, the newest of them": [
        ("C", 100, 0, FIRST),
        *(step for n in range(102, 116, 2) for step in (("A", RENEW), ("A", n, 0, FIRST))),
        ("C", 101, 0, LATE),
        *(("C", n, 0, FIRST if n % 2 else LATE) for n in range(102, 114)),
    ],
}

# The same of ids that are times: in seconds after the first, and when they come.
TIMES = {
    "a clock that was set back silences its line for some seconds": [
        ("A", 30, 0, FIRST),
        ("A", 1, 1, LATE),
        ("A", 10, 10, FIRST),
        ("A", 11, 11, FIRST),
    ],
    "and another line as well": [
        ("A", 30, 0, FIRST),
        ("B", 1, 1, LATE),
        ("B", 10, 10, FIRST),
        ("B", 11, 11, FIRST),
    ],
    "times of a line that was held up are late, however long the other is silent": [
        ("A", 0, 0, FIRST),
        ("B", -20, 60, LATE),
    ],
    "a line that was not the first to be believed again follows": [
        ("A", 30, 0, FIRST),
        ("B", 30, 0, DUPLICATE),
        ("A", 10, 10, FIRST),
        ("B", 10, 11, DUPLICATE),
        ("B", 11, 11, FIRST),
        ("A", 11, 12, DUPLICATE),
    ],
    "our own clock is set back: a line that is behind stays late": [
        ("A", 0, 0, FIRST),
        ("B", 0, 1, DUPLICATE),
        ("A", 3, -49, FIRST),
        ("B", 1, -49, LATE),
        ("A", 4, -48, FIRST),
        ("B", 3, -47, LATE),
        ("B", 4, -46, DUPLICATE),
    ],
    "also if it is the first to bring anything since": [
        ("B", 0, 1, FIRST),
        ("A", 2, 2, FIRST),
        ("B", 1, -49, LATE),
        ("A", 3, -48, FIRST),
        ("B", 2, -47, LATE),
    ],
    "what counted as of now, since it could not be, is followed by what can": [
        ("A", 0, 0, FIRST),
        ("B", 0, 0, DUPLICATE),
        ("A", -52, -52, FIRST),
        ("A", 3, -49, FIRST),
        ("B", 3, -49, DUPLICATE),
        ("B", 4, -48, FIRST),
        ("A", 4, -48, DUPLICATE),
    ],
    "also if it is of a line that is far behind": [
        ("A", 0, 0, FIRST),
        ("B", -52, -52, FIRST),
        ("A", 1, -51, FIRST),
        ("B", -14, -51, LATE),
        ("A", 2, -50, FIRST),
    ],
    "both clocks are set back, as on one host": [
        ("A", 0, 0, FIRST),
        ("B", 0, 0, DUPLICATE),
        ("A", -3600, -3600, FIRST),
        ("B", -3600, -3600, DUPLICATE),
        ("B", -3599, -3599, FIRST),
        ("A", -3599, -3599, DUPLICATE),
    ],
}


@pytest.fixture(params=["pure", "as imported"])
def module(request):
    if request.param == "as imported":
        return arbitration
    spec = importlib.util.spec_from_file_location("pure_arbitration", SOURCE)
    pure = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pure)
    return pure


def counts(line):
    return {FIRST: line.first, DUPLICATE: line.duplicate, LATE: line.late}


def play(module, steps, *, is_time=False, is_once=False):
    channel = module.Arbitration(is_once=is_once)
    lines = {"A": module.Line(0), "B": module.Line(1), "C": module.Line(2)}
    for number, (name, what, *rest) in enumerate(steps):
        line = lines[name]
        if what in (RENEW, RELEASE):
            getattr(channel, what)(line.index)
            continue
        if what == RESET:
            channel.reset()
            continue
        seconds, answer = rest
        recv_ns = RECV_NS + seconds * SECOND
        update_id = RECV_NS + what * SECOND if is_time else what
        before = counts(line)
        is_first = channel.accept(line, update_id, recv_ns, recv_ns if is_time else 0)
        found = [kind for kind, count in counts(line).items() if count != before[kind]]
        assert (found, is_first) == ([answer], answer == FIRST), f"step {number}"
    for line in lines.values():
        assert line.frames == sum(counts(line).values())


@pytest.mark.parametrize("case", CASES)
def test_which_line_counts(module, case):
    play(module, CASES[case])


@pytest.mark.parametrize("case", TIMES)
def test_which_line_counts_where_ids_are_times(module, case):
    play(module, TIMES[case], is_time=True)


@pytest.mark.parametrize("case", ONCE)
def test_which_line_counts_where_each_update_counts_once(module, case):
    play(module, ONCE[case], is_once=True)


@pytest.mark.parametrize("case", GAPS)
def test_which_line_counts_while_one_that_has_begun_is_ahead_of_others(module, case):
    play(module, GAPS[case], is_once=True)


def test_what_a_newer_update_replaces_leaves_no_gap(module):
    play(module, [("B", 100, 0, FIRST), ("A", 103, 0, FIRST), ("B", 101, 0, LATE), ("B", 103, 0, DUPLICATE)])


@pytest.mark.parametrize("is_live", [False, True])
def test_where_each_update_counts_once_no_condition_makes_a_duplicate_new(module, is_live):
    channel, one, two = module.Arbitration(is_once=True), module.Line(0), module.Line(1)
    assert channel.accept(one, 100, RECV_NS, 0, is_live)
    assert not channel.accept(one, 100, RECV_NS + 5, 0, is_live)
    assert not channel.accept(two, 100, RECV_NS + 7, 0, is_live)
    assert (one.behind_ns, two.behind_ns) == (0, 7), "behind another, not behind itself"
    channel.reset()
    assert (channel.updates, channel.heard_ns(0), channel.update_id) == (0, 0, 100)


def test_a_duplicate_is_measured(module):
    channel, one, two = module.Arbitration(), module.Line(0), module.Line(1)
    channel.accept(one, 100, RECV_NS)
    channel.accept(two, 100, RECV_NS + 250)
    channel.accept(two, 101, RECV_NS + 300)
    channel.accept(one, 101, RECV_NS + 400)
    assert (one.behind_ns, two.behind_ns) == (100, 250)


def test_while_the_newest_update_is_not_known_to_be_current_whoever_repeats_it_is_first(module):
    channel, one, two = module.Arbitration(), module.Line(0), module.Line(1)
    assert channel.accept(one, 100, RECV_NS)
    assert not channel.accept(two, 99, RECV_NS, 0, False), "but never who is late"
    assert channel.accept(two, 100, RECV_NS, 0, False)


def test_updates_count_on_any_line_but_for_those_that_repeat_the_past(module):
    channel, one, two = module.Arbitration(), module.Line(0), module.Line(1)
    for line, update_id in ((one, 100), (two, 100), (one, 99), (two, 101)):
        channel.accept(line, update_id, RECV_NS)
    assert (channel.updates, channel.update_id, channel.line_update_id(0)) == (3, 101, 100)


def test_a_line_that_inherits_keeps_the_newest_update_current_and_has_sent_nothing(module):
    channel = module.Arbitration()
    channel.accept(module.Line(0), 100, RECV_NS)
    assert channel.is_kept(0)
    assert not channel.is_kept(1)
    channel.inherit(1)
    assert channel.is_kept(1)
    assert channel.heard_ns(1) == 0
    channel.renew(1)
    assert not channel.is_kept(1)


def test_what_is_reset_has_no_past(module):
    channel, line = module.Arbitration(), module.Line(0)
    channel.accept(line, 100, RECV_NS)
    channel.reset()
    assert (channel.updates, channel.update_id, channel.heard_ns(0), channel.is_kept(0)) == (0, 0, 0, False)
    assert channel.accept(line, 5, RECV_NS)


def test_lines_beyond_the_last_are_refused(module):
    channel = module.Arbitration()
    for act in (
        channel.renew,
        channel.inherit,
        channel.release,
        channel.is_kept,
        channel.heard_ns,
        module.Line,
    ):
        for index in (-1, LINES_MAX):
            with pytest.raises(IndexError):
                act(index)
