"""What people see in a terminal."""

from types import SimpleNamespace

from feedhandler import view, wire
from feedhandler.status import ExchangeStatus, FeedStatus, ShardStatus
from feedhandler.view import Watch, plain, status_table

FEED = FeedStatus(exchange="x", pid=0, started_ns=0, starting="connecting, attempt 1")


def rows(status):
    return [line.split() for line in plain(status_table({"x": status}, 10**9)).splitlines()[1:]]


def test_an_exchange_that_one_process_has_is_one_line():
    status = ExchangeStatus(exchange="x", state="connecting", since_ns=0, feed=FEED)
    assert [row[:4] for row in rows(status)] == [["x", "connecting", "1.0", "s"]]


def test_each_shard_has_a_line_under_its_exchange_with_what_is_wrong_with_it():
    status = ExchangeStatus(exchange="x", state="down", since_ns=0, reason="not heard: shard 2/2", feed=FEED)
    status.shards = [
        ShardStatus(shard="1/2", pid=1, state="live", topics=1400, records_per_s=1234.0),
        ShardStatus(shard="2/2", pid=2, state="down", reason="feed process not heard"),
    ]
    first, *shards = rows(status)
    assert " ".join(first).endswith("not heard: shard 2/2; the others: connecting, attempt 1")
    assert shards == [
        ["1/2", "live", "1400", "1,234"],
        ["2/2", "down", "0", "0", "feed", "process", "not", "heard"],
    ]


def test_the_rate_of_a_summary_counts_from_the_first_data_of_each_exchange(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(view.time, "monotonic", lambda: clock.now)
    watch = Watch(["x", "y", "silent"])
    for clock.now, exchange, count in ((9.0, "x", 20), (17.0, "y", 20)):
        for _ in range(count):
            watch.take(wire.Ticker(wire.topic(wire.TICKER, exchange, "BTC/USDT")))
    clock.now = 19.0
    lines = plain(watch.summary(SimpleNamespace(losses={}))).splitlines()
    assert "".join(lines).strip().startswith("10 s since the first data; ")
    assert [line.split()[:4] for line in lines[-3:]] == [
        ["x", "0", "20", "2"],
        ["y", "0", "20", "10"],
        ["silent", "0", "0", "-"],
    ]
