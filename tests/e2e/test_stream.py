"""From the simulated exchanges to a subscriber that knows only the documentation."""

import signal
import time

from harness import DOWN, EXCHANGES, MAJORS, PATIENCE_S, SIMULATED, SNAPSHOT, STALE, topics_of, wait_until

from feedhandler.sim.faults import ONLY_ON

LASTING = {"seconds": 3600}  # until it is cleared


def test_a_stranger_sees_every_value_of_every_major_in_sequence(stack):
    s = stack()
    reader = s.reader()
    s.start()
    s.wait_live(reader)
    for record in reader.read(3.0):
        if record.kind != 1:
            continue
        assert record.flags & SIMULATED
        assert 0 < record.recv_ns <= record.publish_ns
        assert record.is_complete
        last, bid, bid_size, ask, ask_size, _, high, low, base_volume, quote_volume = record.values
        assert bid < ask
        assert low <= last <= high
        assert min(bid_size, ask_size, base_volume, quote_volume) > 0
    assert reader.holes == []
    tickers = {topic for topic in reader.newest if topic.startswith("ticker.")}
    assert tickers == {f"ticker.{e}.{m}" for e in EXCHANGES for m in MAJORS}
    for exchange in EXCHANGES:
        state = s.sim_state(exchange)
        assert state["violations"] == [], "we broke no rule of the exchange"


def test_a_late_subscriber_gets_the_last_values_at_once_and_an_exact_topic_nothing_else(stack):
    s = stack(exchanges=("binance",))
    s.start()
    s.wait_live()
    s.fault("binance", "mute", seconds=30)
    everything = s.reader(b"ticker.binance.")
    exact = s.reader(b"ticker.binance.BTC/USDT\0")
    first = {}

    def is_whole(record):
        first.setdefault(record.topic, record)
        return set(first) == {f"ticker.binance.{m}" for m in MAJORS}

    everything.read_until(is_whole, "a snapshot of each")
    assert all(record.flags & SNAPSHOT for record in first.values())
    records = wait_until(lambda: exact.read(0.5), "a snapshot of one")
    assert {record.topic for record in records} == {"ticker.binance.BTC/USDT"}
    s.fault("binance", "none")
    fresh = exact.read_until(lambda record: record.is_fresh, "live data")
    assert fresh.sequence > records[0].sequence
    assert set(exact.newest) == {"ticker.binance.BTC/USDT"}
    assert exact.holes == []


def test_a_killed_feed_is_down_in_the_data_and_the_others_do_not_notice(stack):
    s = stack()
    s.start()
    reader = s.wait_live()
    killed = s.kill("kucoin")
    assert killed == -signal.SIGKILL
    missing = {f"ticker.kucoin.{m}" for m in MAJORS}

    def all_down(record):
        if record.flags & DOWN:
            assert record.topic.startswith("ticker.kucoin.")
            missing.discard(record.topic)
        return not missing

    reader.read_until(all_down, "DOWN on every topic of kucoin")
    s.start("kucoin")
    s.wait_live(reader, exchanges=("kucoin",))
    assert reader.holes == []


def test_a_restarted_merger_has_all_last_values_again_in_a_new_session(stack):
    s = stack()
    s.start()
    reader = s.wait_live()
    session = max(session for session, _ in reader.newest.values())
    s.fault("bybit", "mute", seconds=60)  # its last values must come from the feed's memory
    s.kill("merger")
    s.start("merger")
    found = reader.read_until(
        lambda r: r.topic == "ticker.bybit.XRP/USDT" and r.session > session, "a last value in a new session"
    )
    assert found.is_complete
    s.wait_live(reader, exchanges=("binance", "kucoin"))
    assert reader.holes == []


def test_data_that_stop_on_a_living_connection_are_stale_and_recover(stack):
    s = stack(exchanges=("bybit",), extra="stale_after_s = 2.0")
    s.start()
    reader = s.wait_live()
    s.fault("bybit", "mute", seconds=60)
    stale = reader.read_until(lambda record: record.flags & STALE, "STALE")
    assert stale.is_complete
    assert not stale.flags & DOWN
    s.fault("bybit", "none")
    reader.read_until(lambda record: record.topic == stale.topic and record.is_fresh, "fresh data")
    assert reader.holes == []


FAULTS = [
    ("close", {"code": 1012}),
    ("rst", {}),
    ("garbage", {"count": 50}),
    ("oversize", {"size": 3_000_000}),
    ("fragment", LASTING),
    ("stall", LASTING),
    ("refuse", LASTING),
    ("duplicate", {}),
    ("late", {}),
    ("expired_token", {}),
    ("server_shutdown", {}),
]


def test_each_fault_shows_and_heals_by_itself(stack):
    s = stack(extra="stale_after_s = 1.0\nreconnect_after_s = 4.0\nbackoff_max_s = 2.0")
    s.start()
    reader = s.wait_live()
    for kind, settings in FAULTS:
        exchanges = [each for each in EXCHANGES if each in ONLY_ON.get(kind, EXCHANGES)]
        before = [s.fault_effects(exchange)[kind] for exchange in exchanges]
        for exchange in exchanges:
            s.fault(exchange, kind, **settings)
            if kind == "refuse":
                s.fault(exchange, "rst")  # it concerns who connects
        for exchange, count in zip(exchanges, before, strict=True):
            s.wait_effect(exchange, kind, count + 1)
            s.fault(exchange, "none")
        s.wait_live(reader, exchanges, since_ns=time.time_ns())
    assert reader.holes == []
    feeds = s.status()["exchanges"]
    for exchange in EXCHANGES:
        connection = feeds[exchange]["feed"]["connections"][0]
        assert connection["decode_errors"] >= 10
        assert connection["kept_frames"]
        assert s.processes[exchange].poll() is None, "one process lived through all of it"


def test_who_acknowledges_and_sends_nothing_is_connected_to_anew(stack):
    s = stack(extra="stale_after_s = 1.0\nreconnect_after_s = 4.0\nbackoff_max_s = 2.0")
    s.start()
    reader = s.wait_live()
    known_ns = time.time_ns() + 20_000_000_000  # how long an exchange usually sends nothing
    reader.read_until(lambda record: record.recv_ns > known_ns, "20 s of data")
    for exchange in EXCHANGES:
        s.fault(exchange, "ack_without_data", **LASTING)
        s.fault(exchange, "rst")  # it concerns who subscribes
    for exchange in EXCHANGES:
        s.wait_effect(exchange, "ack_without_data", topics_of(exchange))
        s.fault(exchange, "none")
    s.wait_live(reader, since_ns=time.time_ns())
    wait_until(lambda: not any(s.silent_topics(each) for each in EXCHANGES), "the stream is there again")
    assert reader.holes == []


def test_who_acknowledges_and_sends_nothing_from_the_start_is_found_and_what_rest_fills_is_stale(stack):
    s = stack(sim="instruments = 120", extra="backoff_max_s = 2.0")  # a market that goes on without a stream
    s.start("sim", "merger", "relay")
    wait_until(lambda: all(map(s.is_simulated, EXCHANGES)), "the simulator")
    for exchange in EXCHANGES:
        s.fault(exchange, "ack_without_data", **LASTING)
    reader = s.reader(b"ticker.")
    s.start(*EXCHANGES)
    stale = set()

    def all_stale(record):
        if record.flags & STALE:
            stale.add(record.topic)
        return len(stale) == len(EXCHANGES) * len(MAJORS)

    reader.read_until(all_stale, "STALE on every topic")
    for exchange in EXCHANGES:
        s.wait_effect(exchange, "ack_without_data", 2 * topics_of(exchange))
    again_ns = time.time_ns()
    for record in reader.read(10.0):
        assert not (record.is_fresh and record.recv_ns > again_ns), "a value from REST is not live"
    feeds = s.status()["exchanges"]
    for exchange in EXCHANGES:
        connection = feeds[exchange]["feed"]["connections"][0]
        assert "no data" in connection["ended"]
        assert connection["attempt"] >= 1
        s.fault(exchange, "none")
    s.wait_live(reader, since_ns=time.time_ns())
    assert reader.holes == []


def test_a_feed_starts_from_the_instrument_list_on_disk_when_rest_is_away(stack):
    s = stack(exchanges=("bybit",))
    s.start()
    reader = s.wait_live()
    s.kill("bybit")
    s.fault("bybit", "http_status", status=503, retry_after=60, seconds=60)
    s.start("bybit")
    reader.read_until(lambda record: record.flags & DOWN, "DOWN")
    s.wait_live(reader)
    assert "instrument list from disk" in s.log("bybit")


def test_a_feed_without_any_exchange_gives_up_with_its_documented_status(stack):
    s = stack(exchanges=("binance",), sim_table=False, extra="backoff_max_s = 1.0")
    s.config.write_text(s.config.read_text().replace("max_attempts = 0", "max_attempts = 3"))
    s.start("merger", "binance")
    assert s.processes["binance"].wait(PATIENCE_S) == 75
    assert "no instrument list after 3 attempts, giving up" in s.log("binance")


def test_a_symbol_that_the_exchange_does_not_have_is_reported_and_the_others_stream(stack):
    s = stack(exchanges=("binance",), symbols=["BTC/USDT", "BTCC/USDT", *MAJORS[1:]])
    s.start()
    s.wait_live()
    rejected = s.status()["exchanges"]["binance"]["feed"]["rejected"]
    assert list(rejected) == ["BTCC/USDT"]
    assert "did you mean" in rejected["BTCC/USDT"]["ticker"]


def test_sigterm_ends_each_process_cleanly_and_leaves_no_file_but_caches(stack):
    s = stack()
    s.start()
    reader = s.wait_live()
    assert s.kill("kucoin", signal.SIGTERM) == 0
    reader.read_until(lambda r: r.topic.startswith("ticker.kucoin.") and r.flags & DOWN, "DOWN at once")
    for name in ("binance", "bybit", "merger", "relay", "sim"):
        assert s.kill(name, signal.SIGTERM) == 0
    left = {
        str(p.relative_to(s.directory / "run")) for p in (s.directory / "run").rglob("*") if not p.is_dir()
    }
    lists = {f"instruments/{name}-http-127.0.0.1-{s.ports[name]}.json" for name in EXCHANGES}
    connects = {f"connects/{name}-ws-127.0.0.1-{s.ports[name]}" for name in EXCHANGES}
    assert left == lists | connects | {"recent.board", "recent.ring"}
    for name in EXCHANGES:
        assert "Traceback" not in s.log(name)


def test_a_second_merger_or_feed_is_refused(stack):
    s = stack(exchanges=("binance",))
    s.start()
    s.wait_live()
    for arguments in (["merger"], ["feed", "binance"]):
        second = s.run(*arguments, "-c", str(s.config))
        assert second.returncode == 2
        assert "runs already" in second.stderr


def test_under_load_every_subscriber_that_joins_gets_the_last_value_before_newer_ones(stack):
    """Also with the same subscription as somebody else, and while others come and go."""
    s = stack(exchanges=("binance",), rate=3000)
    s.start()
    steady = s.wait_live()
    for number in range(30):
        prefix = (b"ticker.binance.", b"ticker.binance.BTC/USDT\0", b"ticker.")[number % 3]
        joined = s.reader(prefix)
        first = {}
        while len(first) < (1 if prefix.endswith(b"\0") else len(MAJORS)):
            for record in joined.read(0.02):
                first.setdefault(record.topic, record)
        assert all(record.flags & SNAPSHOT for record in first.values()), number
        steady.read()
        if number % 2:
            joined.close()
    assert steady.holes == []


def test_the_batch_endpoint_has_the_same_records_several_in_a_message(stack):
    s = stack(exchanges=("binance",), rate=5000)
    s.start()
    s.wait_live()
    single, batched = (
        s.reader(b"ticker."),
        s.reader(b"ticker.", endpoint=f"ipc://{s.directory}/run/batches.ipc"),
    )
    narrow = s.reader(b"ticker.binance.BTC", endpoint=f"ipc://{s.directory}/run/batches.ipc")
    topics = {f"ticker.binance.{m}" for m in MAJORS}
    batched.read_until(
        lambda _: batched.largest > 1 and set(batched.newest) == topics, "several in a message"
    )
    single.read_until(lambda _: set(single.newest) == topics, "the same")
    batched.read(1.0)
    single.read(1.0)
    assert batched.holes == single.holes == []
    assert single.largest == 1
    wait_until(lambda: "narrower than an exchange" in s.log("merger"), "less than an exchange is refused")
    assert narrow.read(0.5) == []


def test_a_subscriber_at_the_feeds_own_endpoint_needs_no_merger(stack):
    s = stack(exchanges=("binance",), rate=1000)
    s.start("sim", "binance")
    direct = s.reader(b"", endpoint=f"ipc://{s.directory}/run/binance.ipc")
    native = {f"ticker.binance.{m.replace('/', '')}" for m in MAJORS}
    seen = set()

    def all_live(record):
        if record.is_fresh and record.kind == 1:
            seen.add(record.topic)
        return seen == native

    direct.read_until(all_live, "all majors")
    late = s.reader(b"ticker.binance.BTCUSDT\0", endpoint=f"ipc://{s.directory}/run/binance.ipc")
    first = wait_until(lambda: late.read(0.2), "a snapshot")[0]
    assert first.flags & SNAPSHOT
    assert first.recv_ns > 0
    records = direct.read(1.5)
    fresh = [record for record in records if record.kind == 1]
    assert all(0 < record.recv_ns <= record.publish_ns for record in fresh)
    assert {record.topic for record in records} - native == {"heartbeat.binance"}
    session = fresh[-1].session
    s.kill("binance")
    s.start("binance")
    again = direct.read_until(lambda record: record.session != session, "a new session")
    assert again.flags & SNAPSHOT or again.sequence == 1
    assert direct.holes == late.holes == []
