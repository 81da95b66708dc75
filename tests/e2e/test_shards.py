"""One exchange over several feed processes, seen by a subscriber that knows only the documentation."""

import signal
import zlib

from harness import DOWN, MAJORS, wait_until

SHARDS = ("binance-1of2", "binance-2of2")


def topics_of(number):
    natives = {symbol: symbol.replace("/", "") for symbol in MAJORS}
    return {
        f"ticker.binance.{s}"
        for s, native in natives.items()
        if zlib.crc32(native.encode()) % 2 + 1 == number
    }


def test_each_symbol_is_sent_once_and_a_killed_shard_takes_down_its_own_only(stack):
    s = stack(exchanges=("binance",), rate=3000, extra="shards = 2", symbols=[*MAJORS, "BTCC/USDT"])
    s.start("sim", "merger", *SHARDS)
    reader = s.wait_live()
    assert topics_of(1) and topics_of(2), "both have something to do"
    for number, name in enumerate(SHARDS, 1):
        direct = s.reader(b"ticker.", endpoint=f"ipc://{s.directory}/run/{name}.ipc")
        wait_until(lambda direct=direct: direct.read(0.5), "records")
        native = {topic.replace("/", "") for topic in topics_of(number)}
        direct.read_until(lambda _, d=direct, n=native: set(d.newest) >= n, "all of them")
        direct.read(1.0)
        assert set(direct.newest) == native, "nothing is sent twice, and nothing by nobody"
    told = s.status()["exchanges"]["binance"]["feed"]
    assert list(told["rejected"]) == ["BTCC/USDT"], "one of them says so"
    assert sorted(told["wanted"]) == sorted([*MAJORS, "BTCC/USDT"])
    second = s.run("feed", "binance", "--shard", "1/2", "-c", str(s.config))
    assert second.returncode == 2
    assert "feed-binance-1of2 runs already" in second.stderr
    whole = s.run("feed", "binance", "-c", str(s.config))
    assert whole.returncode == 2
    assert "start it with --shard 1/2 to --shard 2/2" in whole.stderr
    renewed = s.run("renew", "binance", "-c", str(s.config))
    assert (renewed.returncode, renewed.stdout.count("asked the feed of binance, shard")) == (0, 2)

    reader.read()
    assert s.kill(SHARDS[0]) == -signal.SIGKILL
    missing = topics_of(1)

    def all_down(record):
        if record.flags & DOWN:
            assert record.topic in topics_of(1)
            missing.discard(record.topic)
        return not missing

    reader.read_until(all_down, "DOWN on every topic of the shard")
    status = wait_until(
        lambda: (e := s.status()["exchanges"]["binance"])["state"] == "down" and e, "it is down"
    )
    assert status["reason"] == "feed process is silent: shard 1/2"
    assert [row["state"] for row in status["shards"]] == ["down", "live"]
    s.start(SHARDS[0])
    back = topics_of(1)

    def all_back(record):
        assert record.topic in topics_of(1) or not record.flags & DOWN
        if record.is_fresh:
            back.discard(record.topic)
        return not back

    reader.read_until(all_back, "live again")
    reader.read(1.0)
    assert reader.holes == []
    wait_until(lambda: s.status()["exchanges"]["binance"]["state"] == "live", "live")
    assert s.sim_state("binance")["violations"] == []


def test_a_shard_without_symbols_is_idle_and_another_count_follows_without_a_trace(stack):
    only = sorted(topic.removeprefix("ticker.binance.") for topic in topics_of(2))
    s = stack(exchanges=("binance",), symbols=only)
    s.start("sim", "merger", *SHARDS)
    reader = s.reader(b"ticker.")
    reader.read_until(lambda record: record.is_fresh, "data")
    status = wait_until(
        lambda: (e := s.status()["exchanges"]["binance"])["state"] == "live" and e,
        "live in spite of an idle shard",
    )
    assert [(row["state"], row["reason"]) for row in status["shards"]] == [("idle", ""), ("live", "")]
    assert sorted(status["feed"]["wanted"]) == only
    refused = s.run("feed", "binance", "-c", str(s.config))
    assert refused.returncode == 2
    assert "feed-binance runs already in" in refused.stderr
    for name in SHARDS:
        assert s.kill(name, signal.SIGTERM) == 0
    s.start("binance")
    reader.read_until(lambda record: record.is_fresh, "data of the whole")
    status = wait_until(
        lambda: (e := s.status()["exchanges"]["binance"])["state"] == "live" and e, "live, unsharded"
    )
    assert status["shards"] == []
    assert status["topics"] == len(only)
    assert reader.holes == []
