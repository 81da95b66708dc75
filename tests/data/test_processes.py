"""What is said of processes that are started again, and when all is well."""

import pytest

from feedhandler.data.processes import (
    ALL_WELL,
    DEGRADED,
    DOWN,
    LOOP_COUNT,
    LOOP_NS,
    Loops,
    ProcessStatus,
    Starts,
    is_of_others,
    process_state,
    started,
    verdict,
)
from feedhandler.data.status import ExchangeStatus, FeedStatus, Heartbeat

S = 10**9


def starts(*times_s, supervisor="1 1"):
    """Return what is noted after a first start, and one again at each of these times."""
    noted = started(None, supervisor, 0)
    for time_s in times_s:
        noted = started(noted, supervisor, int(time_s * S))
    return noted


def test_restarts_are_counted_and_a_new_supervisor_begins_anew():
    noted = starts(*range(1, 11))
    assert (noted.restarts, noted.newest_ns) == (10, [8 * S, 9 * S, 10 * S])
    assert started(noted, "2 1", 11 * S) == Starts(supervisor="2 1")


def test_who_is_started_again_and_again_is_restarting_until_it_has_stayed_up():
    assert process_state(7, starts(), 0) == process_state(7, None, 0) == "up"
    assert process_state(None, starts(), 0) == "down"
    assert process_state(7, starts(10, 20), 20 * S) == "up"
    loop = starts(10, 20, 30)
    assert process_state(None, loop, 31 * S) == process_state(7, loop, 31 * S) == "restarting"
    assert process_state(7, loop, 10 * S + LOOP_NS) == "up"
    assert process_state(None, loop, 10 * S + LOOP_NS) == "down"


def test_the_waits_of_the_supervisor_are_short_enough_for_a_loop_to_be_seen():
    waits_s = [1, 2, 3, 4]  # it waits a second longer each time; a process takes two to come so far
    times_s = [sum(waits_s[:n]) + 2 * n for n in range(1, LOOP_COUNT + 1)]
    assert starts(*times_s).is_loop(int(times_s[-1]) * S)


def test_a_loop_is_news_once_until_it_is_over():
    def at(state):
        return [ProcessStatus(process="relay", state=state), ProcessStatus(process="merger", state="up")]

    loops = Loops()
    told = [
        [each.process for each in loops.new(at(state))]
        for state in ("up", "down", "restarting", "restarting", "up", "restarting")
    ]
    assert told == [[], [], ["relay"], [], [], ["relay"]]


def heartbeat(*exchanges):
    states = {status.exchange: status.state for status in exchanges}
    return Heartbeat(pid=1, started_ns=1, topics=1, records=1, records_per_s=1.0, exchanges=states)


def exchange(state, **feed):
    of = FeedStatus(
        exchange="x", pid=1, started_ns=1, starting="words" if state == "starting" else "", **feed
    )
    return ExchangeStatus(exchange="x", state=state, since_ns=1, feed=of)


def process(state, name="relay"):
    return ProcessStatus(process=name, state=state, restarts=3)


@pytest.mark.parametrize(
    ("state", "feed", "processes", "status", "reason"),
    [
        ("live", {}, ["up"], ALL_WELL, ""),
        ("idle", {"connect": False}, ["up"], ALL_WELL, ""),
        ("live", {"rejected": {"A/B": {"ticker": "no"}}}, ["up"], ALL_WELL, ""),
        ("live", {"stale": 1, "stale_topics": {"t": "silent"}}, ["up"], DEGRADED, "x: live"),
        ("stale", {}, [], DEGRADED, "x: stale"),
        ("connecting", {}, [], DEGRADED, "x: connecting"),
        ("starting", {}, [], DEGRADED, "x: starting: words"),
        ("down", {}, [], DOWN, "x: down"),
        ("absent", {}, [], DOWN, "x: absent"),
        ("unheard of", {}, [], DOWN, "x: unheard of"),
        ("live", {}, ["down"], DEGRADED, "relay: does not run"),
        ("live", {}, ["restarting"], DEGRADED, "relay: started again and again, 3 times so far"),
        ("down", {}, ["down"], DOWN, "x: down"),
    ],
)
def test_the_verdict_is_that_of_the_worst(state, feed, processes, status, reason):
    of = exchange(state, **feed)
    found = verdict(heartbeat(of), {"x": of}, map(process, processes), 2)
    assert found.status == status
    assert (found.reasons[0] if found.reasons else "").startswith(reason)
    words = {ALL_WELL: "ok: 1 exchange", DEGRADED: f"degraded: {reason}", DOWN: f"down: {reason}"}
    assert found.text("1 exchange").startswith(words[status])


def test_a_process_that_runs_and_cannot_do_its_work_is_no_good_sign():
    recorder = ProcessStatus(process="recorder", state="up", trouble="nothing is recorded: the disk is full")
    of = exchange("live")
    found = verdict(heartbeat(of), {"x": of}, [recorder], 2)
    assert (found.status, found.reasons) == (DEGRADED, ["recorder: nothing is recorded: the disk is full"])
    recorder.state = "down"
    assert verdict(heartbeat(of), {"x": of}, [recorder], 2).reasons == ["recorder: does not run"]


def test_a_merger_of_another_run_dir_is_known_by_its_pid():
    ours, other = (
        ProcessStatus(process="merger", state="up", pid=1),
        ProcessStatus(process="merger", state="down"),
    )
    heard = heartbeat(exchange("live"))
    assert is_of_others(heard, [other, process("up")])
    assert not is_of_others(heard, [ours, process("up")])
    assert not is_of_others(None, [other])
    assert not is_of_others(heard, [process("up", "feed-x")]), "this host has feeds and nothing else"


def test_without_a_merger_it_is_down_whatever_runs():
    found = verdict(None, {}, [process("down", "merger"), process("up")], 2)
    assert (found.status, found.reasons) == (DOWN, ["no merger answers", "merger: does not run"])


def test_an_exchange_that_only_the_heartbeat_tells_of_counts_as_well():
    assert verdict(heartbeat(exchange("down")), {}, [], 2).reasons == ["x: down"]
    assert verdict(heartbeat(exchange("live")), {}, [], 2).status == ALL_WELL
