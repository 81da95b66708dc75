"""What processes say about themselves, in words and as JSON."""

from pathlib import Path

import msgspec
import pytest

from feedhandler.data.status import (
    WORST_FIRST,
    ConnectionStatus,
    ExchangeStatus,
    FeedStatus,
    PollStatus,
    ShardStatus,
    joined,
    worst,
)
from feedhandler.feed.report import feed_state

NOW_NS = 10**18
LIVE = {"phase": "running", "attempt": 0, "topics": 200}


def feed(connections=(), **fields):
    fields = {"exchange": "x", "pid": 1, "started_ns": 5, "state": "live", **fields}
    return FeedStatus(connections=[ConnectionStatus(**{**LIVE, **c}) for c in connections], **fields)


TEXTS = [
    (
        "live; books: 3 valid, 2 wait for a base (A for 12 s, B for 3 s); depth: 5 INVALID (C for 2 s and 4 more)",
        feed(
            [{}],
            books_valid=3,
            books_waiting=2,
            invalid={"book": 2, "depth": 5},
            invalid_topics={
                "book.x.A": NOW_NS - 12 * 10**9,
                "book.x.B": NOW_NS - 3 * 10**9,
                "depth.x.C": NOW_NS - 2 * 10**9,
            },
        ),
    ),
    ("live", feed([{}])),
    ("live", feed([{}, {}])),
    ("subscribing, 7 topics to go", feed([{"pending_topics": 7}])),
    ("subscribing, 150 of 400 topics to go, 62 % done", feed([{"pending_topics": 150}, {}])),
    (
        "subscribing, 350 of 600 topics to go, 41 % done",
        feed([{"pending_topics": 150}, {}, {"phase": "connecting", "attempt": 1}]),
    ),
    ("subscribing, 1 of 1,000 topics to go, 99 % done", feed([{}] * 4 + [{"pending_topics": 1}])),
    ("subscribing, 400 of 400 topics to go, 0 % done", feed([{"phase": "backoff"}] * 2)),
    (
        "subscribing, 250 of 600 topics to go, 58 % done; connecting, attempt 4, in progress, last error: no",
        feed([{"pending_topics": 50}, {}, {"phase": "connecting", "attempt": 4, "last_error": "no"}]),
    ),
    (
        "connecting, attempt 4, in progress, last error: no (and 1 more of 3 connections)",
        feed([{"phase": "connecting", "attempt": 4, "last_error": "no"}] * 2 + [{}]),
    ),
    ("live, 3 channels quiet so far", feed([{"quiet": 3}])),
    ("connected, but no data, and there should be some", feed([{"is_stale": True, "pending_topics": 3}, {}])),
    (
        "connecting, attempt 1, in progress",
        feed([{}, {"phase": "connecting", "attempt": 1, "is_successor": True}]),
    ),
    ("live; rejected: A/B, c", feed([{"rejected_topics": {"c": "no"}}], rejected={"A/B": {"ticker": "no"}})),
    ("live; trades lost: some of b, 7 of c and of 1 more", feed([{}], lost_trades={"a": 2, "b": -1, "c": 7})),
    (
        "live; instrument list: 2 rows are odd (and 1 more)",
        feed([{}], problems=["2 rows are odd", "another"]),
    ),
    (
        "nothing to do: every wanted symbol was rejected",
        feed(wanted={"A/B": ["ticker"]}, rejected={"A/B": {"ticker": "no"}}),
    ),
    ("nothing to do: no symbol is wanted in shard 2/4", feed(shard="2/4")),
    ("nothing to do: no symbol is wanted", feed()),
    ("connecting, attempt 2", feed(starting="connecting, attempt 2")),
    ("stopped", feed([{}], stopping=True)),
]


@pytest.mark.parametrize(("text", "status"), TEXTS, ids=[text for text, _ in TEXTS])
def test_a_feed_says_what_it_is_doing(text, status):
    assert status.text(NOW_NS) == text


def test_several_feeds_say_together_what_one_would():
    feeds = [
        feed(
            [{}],
            shard="1/3",
            wanted={"A/B": ["ticker"]},
            instruments=3,
            instruments_as_of_ns=7,
            resync=1,
            hop_records=5,
        ),
        feed(
            [{}, {}],
            shard="2/3",
            wanted={"C/D": ["ticker", "trade"], "A/B": ["ticker"]},
            rejected={"C/D": {"trade": "no"}},
            simulated=True,
            replay=True,
            hop_records=6,
        ),
        feed(shard="3/3", state="connecting", starting="connecting, attempt 1", started_ns=4),
    ]
    both = joined(feeds)
    assert both.wanted == {"A/B": ["ticker"], "C/D": ["ticker", "trade"]}
    assert both.rejected == {"C/D": {"trade": "no"}}
    assert (both.state, both.pid, both.shard, both.simulated, both.replay, both.stopping) == (
        "connecting", 0, "1/1", True, True, False,
    )  # fmt: skip
    assert (both.started_ns, both.instruments, both.resync, both.hop_records) == (4, 3, 1, 11)
    assert both.text(0) == "live; shard 3/3: connecting, attempt 1; rejected: C/D (trade)"
    assert len(both.connections) == 3
    assert joined([]) is None


def poll(**fields):
    return PollStatus(
        **{
            "market": "linear",
            "fields": ["open_interest"],
            "every_s": 60.0,
            "lasts_s": 180.0,
            "symbols": 2,
            "known": 2,
            "late": 0,
            "oldest_ns": NOW_NS - 9 * 10**9,
            "newest_ns": NOW_NS,
            **fields,
        }
    )


def test_what_is_polled_is_told_of_while_it_is_not_as_it_should_be():
    assert feed([{}], polled=[poll()]).text(NOW_NS) == "live"
    text = "live; open_interest of linear from REST: 1 of 2 known, the oldest 9 s old"
    assert feed([{}], polled=[poll(known=1, late=1)]).text(NOW_NS) == text
    assert feed([{}], polled=[poll(known=1, problem="HTTP 503")]).text(NOW_NS) == f"{text}: HTTP 503"
    assert feed([{}], polled=[poll(symbols=0, problem="old")]).text(NOW_NS) == "live", "nobody wants it"


def test_what_several_feeds_poll_is_as_old_as_the_oldest_of_it():
    other = poll(symbols=3, known=1, late=2, oldest_ns=NOW_NS - 99, newest_ns=NOW_NS + 1, problem="no")
    intervals = poll(fields=["funding_interval_h"])
    both = joined([feed(polled=[poll(), intervals]), feed(polled=[other]), feed(polled=[poll(oldest_ns=0)])])
    found, alone = both.polled
    assert (found.symbols, found.known, found.late, found.problem) == (7, 5, 2, "no")
    assert (found.oldest_ns, found.newest_ns) == (NOW_NS - 9 * 10**9, NOW_NS + 1)
    assert alone == intervals


def test_the_worst_state_is_that_of_all_and_idleness_is_none():
    for position, state in enumerate(WORST_FIRST):
        assert worst(reversed(WORST_FIRST[position:])) == state
    assert worst(["idle", "live"]) == "live"
    assert worst(["live", "what a newer feed may say"]) == "what a newer feed may say"


def test_a_feed_without_connections_is_idle_only_if_nothing_is_wanted():
    assert feed_state([], is_starting=True, is_idle=True) == "connecting"
    assert feed_state([], is_starting=False, is_idle=True) == "idle"
    assert feed_state([], is_starting=False, is_idle=False) == "down"


def test_an_exchange_tells_which_shards_fail_and_what_the_others_do():
    status = ExchangeStatus(
        exchange="x", state="down", since_ns=0, reason="feed process is silent: shard 1/2"
    )
    status.shards = [
        ShardStatus(shard="1/2", pid=1, state="down"),
        ShardStatus(shard="2/2", pid=2, state="live"),
    ]
    status.feed = feed([{}])
    assert status.text(0) == "feed process is silent: shard 1/2; the others: live"
    status.feed = None
    assert status.text(0) == "feed process is silent: shard 1/2"


@pytest.mark.parametrize("kind", [ExchangeStatus, FeedStatus, ConnectionStatus, ShardStatus, PollStatus])
def test_every_status_field_is_documented(kind):
    text = (Path(__file__).parents[2] / "docs" / "wire.md").read_text(encoding="utf-8")
    prefix = "feed." if kind is FeedStatus else ""
    for name in kind.__struct_fields__:
        assert name == "exchange" or f"`{prefix}{name}`" in text, name


def test_a_status_without_shards_is_read_as_that_of_the_whole():
    old = msgspec.json.decode(b'{"exchange":"x","pid":1,"started_ns":2}', type=FeedStatus)
    assert old.shard == "1/1"
