"""What is wanted changes while everything runs: real processes, the command line, a raw subscriber."""

import json

import pytest
from harness import DOWN, EXCHANGES, PATIENCE_S, SNAPSHOT, STALE, wait_until

PATIENT = ("--wait", f"{PATIENCE_S:g}")


@pytest.fixture
def s(stack):
    s = stack(extra="refresh_s = 1.0\nstale_after_s = 60\nreconnect_after_s = 120", rate=200)
    s.start()
    return s


def command(s, *arguments):
    return s.run(*arguments, "-c", str(s.config))


def test_symbols_come_and_go_and_no_other_notices(s):
    reader = s.wait_live()
    records = []
    for exchange in EXCHANGES:
        done = command(s, "subscribe", exchange, "DOGE/USDT", *PATIENT)
        assert (done.returncode, done.stdout) == (0, "DOGE/USDT: live\n"), done
        done = command(s, "unsubscribe", exchange, "XRP/USDT", *PATIENT)
        assert (done.returncode, done.stdout) == (0, "XRP/USDT: unsubscribed\n"), done
        records += reader.read(0.5)
    new = {f"ticker.{exchange}.DOGE/USDT" for exchange in EXCHANGES}

    def are_complete():
        records.extend(reader.read(0.5))
        return new <= {record.topic for record in records if record.kind == 1 and record.is_complete}

    wait_until(are_complete, "all values of the new ones")
    records += reader.read(1)
    assert reader.holes == []
    for exchange in EXCHANGES:
        xrp = [r for r in records if r.topic == f"ticker.{exchange}.XRP/USDT"]
        assert xrp[-1].flags & DOWN, "its last word"
        others = [r for r in records if r.topic.startswith(f"ticker.{exchange}.") and "XRP" not in r.topic]
        # A busy machine may stop a feed for a second; then all of it is DOWN, and live again.
        assert any(r.flags & DOWN for r in others) or not any(r.flags & DOWN for r in xrp[:-1])
        assert not any(r.flags & (SNAPSHOT | STALE) for r in others)
        assert all(r.is_fresh for r in {r.topic: r for r in others}.values())
        assert any(r.topic.endswith("DOGE/USDT") and r.is_complete for r in others)
        state = s.sim_state(exchange)
        topics = {topic for connection in state["connections"] for topic in connection["subscriptions"]}
        assert not any("XRP" in topic.upper() for topic in topics)
        assert state["violations"] == [], state["violations"]


def test_what_is_wanted_outlives_everything_and_needs_no_feed(s):
    s.wait_live()
    s.kill("bybit")
    done = command(s, "subscribe", "bybit", "DOGE/USDT", "LTC/USDT", "--wait", "0")
    assert done.returncode == 0
    assert "noted" in done.stdout
    assert command(s, "unsubscribe", "bybit", "LTC/USDT", "BTC/USDT", "--wait", "0").returncode == 0
    s.kill("merger")
    s.start("merger", "bybit")
    reader = s.reader(b"ticker.bybit.")
    wanted = {f"ticker.bybit.{base}/USDT" for base in ("ETH", "SOL", "ADA", "XRP", "DOGE")}
    seen = set()
    reader.read_until(lambda r: r.is_fresh and (seen.add(r.topic) or seen >= wanted), "all that is wanted")
    assert seen == wanted


def test_a_new_listing_is_taken_over_while_everything_runs(s):
    s.wait_live(exchanges=["kucoin"])
    s.fault("kucoin", "unlist", symbol="DOGE-USDT")
    (cache,) = (s.directory / "run" / "instruments").glob("kucoin-*")
    wait_until(lambda: b'"DOGE-USDT"' not in cache.read_bytes(), "the feed's list lacks it")
    assert command(s, "subscribe", "kucoin", "DOGE/USDT").returncode == 1
    done = command(s, "subscribe", "kucoin", "DOGE/USDT", "--unlisted")
    assert done.returncode == 1
    assert "rejected: kucoin lists no DOGE/USDT" in done.stdout
    reader = s.reader(b"ticker.kucoin.DOGE/USDT\0")
    s.fault("kucoin", "none")
    reader.read_until(lambda r: r.is_fresh, "its first record, by itself")


def test_one_symbol_that_cannot_be_had_does_not_keep_the_others(s):
    reader = s.wait_live()
    done = command(s, "subscribe", "kucoin", "NOSUCH/USDT", "DOGE/USDT", "doge/usdt")
    assert done.returncode == 1
    assert "DOGE/USDT: live" in done.stdout
    assert "NOSUCH/USDT: not subscribed to: kucoin lists no NOSUCH/USDT" in done.stdout
    assert "doge/usdt: not subscribed to: " in done.stdout
    done = command(s, "unsubscribe", "kucoin", "NOSUCH/USDT", "DOGE/USDT")
    assert done.returncode == 1
    assert "DOGE/USDT: unsubscribed" in done.stdout
    assert "NOSUCH/USDT: is not wanted" in done.stdout
    assert reader.holes == []


def test_a_kind_is_asked_for_by_name_and_taken_back_by_name(s):
    reader = s.wait_live(exchanges=["bybit"])
    done = command(s, "subscribe", "bybit", "DOGE/USDT", "--kind", "ticker", *PATIENT)
    assert (done.returncode, done.stdout) == (0, "DOGE/USDT: live\n"), done
    path = s.directory / "run" / "wanted" / "bybit.json"
    assert json.loads(path.read_text())["requested"] == {"operator": {"DOGE/USDT": ["ticker"]}}

    def is_told():
        wanted = s.status()["exchanges"]["bybit"]["feed"]["wanted"]
        return wanted.get("DOGE/USDT") == wanted["BTC/USDT"] == ["ticker"]

    wait_until(is_told, "the next status has it")
    done = command(s, "subscribe", "bybit", "LTC/USDT", "--kind", "funding")
    assert (done.returncode, done.stdout) == (2, "")
    assert "subscribe bybit: --kind: bybit does not offer 'funding' (known: ticker, " in done.stderr
    assert done.stderr.count("\n") == 1
    done = command(s, "unsubscribe", "bybit", "DOGE/USDT", "--kind", "ticker", *PATIENT)
    assert (done.returncode, done.stdout) == (0, "DOGE/USDT: unsubscribed\n"), done
    assert reader.holes == []


def test_a_wanted_kind_that_the_exchange_does_not_offer_is_rejected_and_the_others_go_on(s):
    reader = s.wait_live(exchanges=["binance"])
    path = s.directory / "run" / "wanted" / "binance.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"requested": {"me": {"BTC/USDT": ["funding"]}}}), encoding="utf-8")
    reason = "binance does not offer funding records"
    wait_until(lambda: f"rejected: {reason}" in s.log("binance"), "the feed says so")

    def feed_status():
        return s.status()["exchanges"]["binance"]["feed"] or {}  # none while it is DOWN

    feed = wait_until(lambda: (f := feed_status()).get("rejected") and f, "the status has it")
    assert feed["rejected"] == {"BTC/USDT": {"funding": reason}}
    assert feed["wanted"]["BTC/USDT"] == ["ticker", "funding"]
    others = [r for r in reader.read(1) if r.topic.startswith("ticker.binance.")]
    assert not any(r.flags & (SNAPSHOT | STALE) for r in others)
    path.write_text("{}", encoding="utf-8")
    wait_until(lambda: feed_status().get("rejected") == {}, "it is forgotten")
    assert reader.holes == []


def test_a_mistake_gets_one_clear_message(s):
    for arguments, text in (
        (("subscribe", "binance", "BTCUSDT"), "subscribe binance: 'BTCUSDT' is not BASE/QUOTE; did you mean"),
        (("unsubscribe", "binance", "FOO/USDT"), "'FOO/USDT' is not wanted; what is: BTC/USDT, "),
        (("unsubscribe", "binance", "BTC/USDT", "--kind", "tiker"), "'tiker'; did you mean \"ticker\"?"),
    ):
        done = command(s, *arguments)
        assert done.returncode == 2
        assert text in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_file_that_cannot_be_understood_changes_nothing_and_is_named(s):
    reader = s.wait_live()
    path = s.directory / "run" / "wanted" / "binance.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text("{", encoding="utf-8")
    wait_until(lambda: f"{path}: cannot be used" in s.log("binance"), "the feed says so")
    done = command(s, "subscribe", "binance", "DOGE/USDT")
    assert done.returncode == 2
    assert "remove it" in done.stderr
    others = [r for r in reader.read(1) if r.topic.startswith("ticker.binance.")]
    assert not any(r.flags & (SNAPSHOT | STALE) for r in others)
    path.write_text(json.dumps({"requested": {"me": {"DOGE/USDT": ["ticker"]}}}), encoding="utf-8")
    s.reader(b"ticker.binance.DOGE/USDT\0").read_until(lambda r: r.is_fresh, "and follows a sound one")
