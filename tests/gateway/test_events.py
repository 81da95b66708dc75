"""What happened in the last hour, told from statuses as they come."""

from msgspec.structs import replace

from feedhandler.data.status import ConnectionStatus, ExchangeStatus, FeedStatus
from feedhandler.data.units import NS_PER_S
from feedhandler.gateway.events import EVENTS_MAX, KEPT_NS, EventLog

START_NS = 1_790_000_000 * NS_PER_S


def connection(**changes):
    return ConnectionStatus(**{"phase": "running", "attempt": 0, "connects": 1, **changes})


def feed(*connections, **changes):
    return FeedStatus(
        exchange="x",
        pid=1,
        started_ns=START_NS,
        state="live",
        connections=list(connections) or [connection()],
        **changes,
    )


def status(state="live", since_s=0, **changes):
    return ExchangeStatus(
        exchange="x", state=state, since_ns=START_NS + since_s * NS_PER_S, **{"feed": feed(), **changes}
    )


def told(*statuses):
    """The texts of what these statuses make, a second apart, the oldest first."""
    events = EventLog()
    for second, each in enumerate(statuses):
        events.on_status(each, START_NS + second * NS_PER_S)
    return [
        (e.kind, e.is_bad, e.text) for e in reversed(events.newest_first(START_NS + len(statuses) * NS_PER_S))
    ]


def test_what_is_so_when_the_page_begins_is_no_event():
    assert told(status("down", reason="silent")) == []
    assert told(status(), status(), status()) == []


def test_a_state_that_is_worse_says_why_and_its_end_how_long_it_lasted():
    assert told(status(), status("down", 1, reason="silent for 0.9 s"), status("live", 13)) == [
        ("state", True, "down: silent for 0.9 s"),
        ("state", False, "live again, after 12 s down"),
    ]


def test_a_beginning_is_no_fault():
    assert told(status("absent"), status("connecting"), status("live", 2)) == [
        ("state", False, "connecting: live"),
        ("state", False, "live, after 2 s connecting"),
    ]
    assert told(status("live"), status("connecting", 1))[0][1], "but to lose a connection is one"


def test_a_state_that_says_itself_what_it_does_is_named_once():
    connecting = status("connecting", feed=feed(connection(phase="connecting", attempt=1)))
    assert told(status("absent"), connecting) == [("state", False, "connecting, attempt 1, in progress")]


def test_a_connection_that_is_made_anew_says_what_the_last_one_died_of():
    after = feed(connection(connects=2, ended="no frame at all for 30 s"))
    assert told(status(), status(feed=after), status(feed=after)) == [
        ("connection", False, "reconnected after: no frame at all for 30 s")
    ]


def test_it_is_the_connection_that_was_made_anew_that_says_why():
    first, second = connection(connects=2, ended="long ago"), connection()
    after = feed(first, replace(second, connects=2, ended="just now"))
    assert told(status(feed=feed(first, second)), status(feed=after)) == [
        ("connection", False, "reconnected after: just now")
    ]


def test_a_renewal_is_no_reconnection():
    both = feed(connection(), connection(is_successor=True))
    after = feed(connection(connects=2))
    assert told(status(), status(feed=both), status(feed=after)) == [
        ("connection", False, "a connection was renewed, without a gap")
    ]


def test_a_first_connection_and_more_or_fewer_of_them_are_no_reconnection():
    two = feed(connection(), connection(connects=1))
    assert told(status(), status(feed=two), status()) == []
    assert told(status(feed=feed(connection(connects=0))), status()) == []


def test_channels_that_fall_silent_and_speak_again_are_named():
    stale = {f"t{n}": "silent for 11 s" for n in range(5)}
    assert told(status(), status(feed=feed(stale=5, stale_topics=stale)), status()) == [
        ("stale", True, "stale: t0, t1, t2 and 2 more: silent for 11 s"),
        ("stale", False, "current again: t0, t1, t2 and 2 more"),
    ]


def test_lost_records_and_odd_frames_are_one_event_a_minute():
    lost = [status(hop_lost=10 * second) for second in range(90)]
    assert told(*lost) == [
        ("gap", True, "600 records lost on the way to the merger"),
        ("gap", True, "290 records lost on the way to the merger"),
    ]
    odd = [status(feed=feed(connection(decode_errors=count))) for count in (0, 2, 2, 3)]
    assert told(*odd) == [("undecodable", True, "3 frames could not be decoded")]


def test_a_feed_that_is_started_anew_counts_from_zero():
    anew = FeedStatus(exchange="x", pid=2, started_ns=START_NS + 1, state="live", connections=[connection()])
    before = feed(connection(connects=5, decode_errors=7), stale=1, stale_topics={"t": "silent"})
    assert told(status(feed=before), status(feed=anew)) == [("process", True, "its feed was started anew")]


def test_the_merger_is_told_of_when_it_goes_and_when_it_comes():
    events = EventLog()
    events.on_merger(0, START_NS)  # no heartbeat yet: nothing has happened
    events.on_merger(7, START_NS)
    events.on_merger(0, START_NS)
    events.on_merger(0, START_NS)
    events.on_merger(7, START_NS)
    events.on_merger(0, START_NS)
    events.on_merger(8, START_NS)
    assert [event.text.split(":")[0] for event in reversed(events.newest_first(START_NS))] == [
        "the merger is silent",
        "the merger is back",
        "the merger is silent",
        "the merger was started anew",
    ]


def test_what_is_kept_is_an_hour_and_bounded():
    events = EventLog()
    for second in range(2 * EVENTS_MAX):
        events.on_status(status("live" if second % 2 else "stale", second), START_NS + second * NS_PER_S)
    now_ns = START_NS + 2 * EVENTS_MAX * NS_PER_S
    assert len(events.newest_first(now_ns)) == EVENTS_MAX
    assert events.count == 2 * EVENTS_MAX - 1
    assert events.newest_first(now_ns + KEPT_NS + 1) == []


def test_a_reader_sees_by_the_count_that_an_event_has_grown():
    events = EventLog()
    for second in range(3):
        events.on_status(replace(status(), hop_lost=second), START_NS + second * NS_PER_S)
    assert events.count > len(events.newest_first(START_NS))
