"""The merger's decisions, with the test as feeds, subscribers and clock."""

import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from seeds import seeds

from feedhandler.data import wire
from feedhandler.data.contracts import Fanout
from feedhandler.data.instruments import Instrument, instrument_list
from feedhandler.data.shard import parse as parse_shard
from feedhandler.data.shard import shards
from feedhandler.data.status import ConnectionStatus, ExchangeStatus, FeedStatus
from feedhandler.data.topics import symbol_in
from feedhandler.data.units import NS_PER_S
from feedhandler.merger.merge import FEED_SILENCE_NS, TICK_NS, Merger
from feedhandler.transport.boards import BoardReader, BoardWriter
from feedhandler.transport.links import Downlink, Inlet, Uplink
from feedhandler.transport.loop import Loop
from feedhandler.transport.outlet import Outlet as RealOutlet

EPOCH_NS = 1_790_000_000 * NS_PER_S
NATIVES = {"BTCUSDT": ("BTC", "USDT"), "ETHUSDT": ("ETH", "USDT")}


def tickers(*symbols):
    return {symbol: ["ticker"] for symbol in symbols}


class Outlet(Fanout):
    """What subscribers of one kind are sent."""

    def __init__(self):
        self.is_wanted = True
        self.sent = []

    def send(self, topic, message):
        starts = range(0, len(message), wire.TICKER_SIZE)
        assert topic in [bytes(message[start : start + wire.TOPIC_SIZE]) for start in starts]
        self.sent.append(bytes(message))


class World:
    """A merger of two exchanges; time moves only when told."""

    def __init__(self, session=100, shards=1, ring=None):
        self.shards = shards
        self.mono = 50 * NS_PER_S
        self.each, self.batches = Outlet(), Outlet()
        self.merger = Merger(
            {"binance": self.shards, "bybit": 1},
            self.each,
            self.batches,
            self.clock,
            session=session,
            pid=1,
            now_mono_ns=self.mono,
            ring=ring,
        )

    @property
    def out(self):
        return [wire.unpack(message) for message in self.each.sent]

    def subscribe(self, prefix):
        self.each.sent += filter(None, map(self.merger.last, self.merger.topics(prefix)))

    def clock(self):
        return EPOCH_NS + self.mono

    def tickers(self, topic="ticker."):
        return [record for record in self.out if record.topic.startswith(topic)]

    def instruments(self, exchange="binance", natives=NATIVES, as_of_ns=1):
        listing = instrument_list(exchange, as_of_ns, [Instrument(n, b, q) for n, (b, q) in natives.items()])
        self.document(wire.INSTRUMENTS, exchange, msgspec.json.encode(listing))

    def document(self, kind, exchange, body):
        self.merger.on_message(
            wire.pack_document(wire.Document(wire.topic(kind, exchange), kind=kind, body=body))
        )

    def status(self, exchange="binance", pid=7, started_ns=0, **fields):
        status = FeedStatus(exchange=exchange, pid=pid, started_ns=started_ns, state="live", **fields)
        self.document(wire.STATUS, exchange, msgspec.json.encode(status))

    def feed(self, shard="1/1", exchange="binance"):
        return self.merger.exchanges[exchange].feeds[shard]

    def exchange_status(self, exchange="binance"):
        newest = [r for r in self.out if r.topic == f"status.{exchange}"][-1]
        return msgspec.json.decode(newest.body, type=ExchangeStatus)

    def records(self, *natives, exchange="binance", flags=8, bid=1.0):
        times = {"recv_ns": self.clock() - 5000, "publish_ns": self.clock() - 2000}
        batch = [
            wire.Ticker(wire.topic(wire.TICKER, exchange, n), flags=flags, bid=bid, **times) for n in natives
        ]
        self.merger.on_message(b"".join(map(wire.pack_ticker, batch)))

    def tick(self, seconds=TICK_NS / NS_PER_S, beat=()):
        end = self.mono + int(seconds * NS_PER_S)
        while self.mono < end:
            self.mono += TICK_NS
            for exchange in beat:
                self.document(wire.HEARTBEAT, exchange, b'{"pid":7}')
            self.merger.on_tick(self.mono)


def test_native_symbols_become_canonical_and_each_topic_counts_from_1():
    world = World()
    world.instruments()
    world.records("BTCUSDT", "ETHUSDT", "BTCUSDT")
    world.records("BTCUSDT")
    assert [(r.topic, r.sequence, r.session) for r in world.tickers()] == [
        ("ticker.binance.BTC/USDT", 1, 100),
        ("ticker.binance.ETH/USDT", 1, 100),
        ("ticker.binance.BTC/USDT", 2, 100),
        ("ticker.binance.BTC/USDT", 3, 100),
    ]


def test_everything_that_the_feed_said_is_kept():
    world = World()
    world.instruments()
    sent = wire.Ticker(
        "ticker.binance.BTCUSDT", flags=8 | 16, exchange_ns=11, recv_ns=12, exchange_sequence=13,
        last=1.5, bid=2.5, bid_size=3.5, ask=4.5, ask_size=5.5, open_24h=6.5, high_24h=7.5, low_24h=8.5,
        base_volume_24h=9.5, quote_volume_24h=10.5,
    )  # fmt: skip
    world.merger.on_message(wire.pack_ticker(sent))
    got = world.tickers()[0]
    assert got == msgspec.structs.replace(
        sent, topic="ticker.binance.BTC/USDT", session=100, sequence=1, publish_ns=world.clock()
    )


def test_a_record_of_an_instrument_in_no_list_is_counted_and_not_published():
    world = World()
    world.records("BTCUSDT")
    world.instruments(natives={"ETHUSDT": ("ETH", "USDT")})
    world.records("BTCUSDT", "ETHUSDT")
    assert [r.topic for r in world.tickers()] == ["ticker.binance.ETH/USDT"]
    assert world.merger.exchanges["binance"].unmapped == 2


def test_natives_that_clash_are_not_published():
    world = World()
    world.instruments(natives={"BTCUSDT": ("BTC", "USDT"), "XBTUSDT": ("BTC", "USDT")})
    world.records("BTCUSDT", "XBTUSDT")
    assert world.tickers() == []


def test_a_rename_goes_to_the_new_topic_and_the_count_of_the_old_one_stays():
    world = World()
    world.instruments(natives={"ALT": ("ALT", "USDT")})
    world.records("ALT")
    world.instruments(natives={"ALT": ("NEU", "USDT")})
    world.records("ALT")
    world.instruments(natives={"ALT": ("ALT", "USDT")})
    world.records("ALT")
    assert [(r.symbol, r.sequence, bool(r.flags & wire.DOWN)) for r in world.tickers()] == [
        ("ALT/USDT", 1, False),
        ("ALT/USDT", 2, True),
        ("NEU/USDT", 1, False),
        ("NEU/USDT", 2, True),
        ("ALT/USDT", 3, False),
    ]


def test_an_instrument_list_is_published_once_until_it_changes():
    world = World()
    world.instruments()
    world.instruments()
    world.instruments(natives={"ETHUSDT": ("ETH", "USDT")})
    lists = [r for r in world.out if r.kind == wire.INSTRUMENTS]
    assert [(r.topic, r.sequence) for r in lists] == [
        ("instruments.binance", 1),
        ("instruments.binance", 2),
    ]


# --- joining late


def test_a_new_subscription_gets_the_last_value_of_each_matching_topic_flagged_snapshot():
    world = World()
    world.instruments()
    world.records("BTCUSDT", bid=1.0)
    world.records("BTCUSDT", "ETHUSDT", bid=2.0)
    world.each.sent.clear()
    world.subscribe(b"ticker.binance.BTC/USDT\0")
    assert [(r.symbol, r.sequence, r.bid, r.flag_names) for r in world.out] == [
        ("BTC/USDT", 2, 2.0, ["SNAPSHOT", "SIMULATED"])
    ]
    world.each.sent.clear()
    world.records("BTCUSDT")
    assert (world.out[0].sequence, world.out[0].flags) == (3, 8), "the replay takes no number"


def test_a_subscription_to_everything_gets_documents_too():
    world = World()
    world.instruments()
    world.records("BTCUSDT", "ETHUSDT")
    world.each.sent.clear()
    world.subscribe(b"")
    assert sorted(r.topic for r in world.out) == [
        "instruments.binance",
        "ticker.binance.BTC/USDT",
        "ticker.binance.ETH/USDT",
    ]


def test_states_that_a_feed_repeats_to_a_new_merger_take_numbers_like_any_record():
    world = World()
    world.instruments()
    world.records("BTCUSDT", flags=wire.SNAPSHOT | wire.SIMULATED)
    world.records("BTCUSDT")
    assert [(r.sequence, r.flag_names) for r in world.tickers()] == [(1, ["SIMULATED"]), (2, ["SIMULATED"])]
    assert len(world.feed().traffic.latencies) == 1, "and are no sample of latency"


# --- who is down


def test_a_silent_feed_is_down_within_a_second_and_its_records_say_so_once():
    world = World()
    world.instruments()
    world.status()
    world.records("BTCUSDT", "ETHUSDT", bid=3.0)
    world.tick()
    world.each.sent.clear()
    died = world.mono
    while not world.tickers():
        world.tick()
    assert world.mono - died <= NS_PER_S
    world.tick(5)
    assert [(r.symbol, r.sequence, r.bid, r.flag_names) for r in world.tickers()] == [
        ("BTC/USDT", 2, 3.0, ["DOWN", "SIMULATED"]),
        ("ETH/USDT", 2, 3.0, ["DOWN", "SIMULATED"]),
    ]
    assert (world.exchange_status().state, world.exchange_status().reason) == (
        "down",
        "feed process is silent",
    )


def test_a_feed_that_only_beats_is_not_down():
    world = World()
    world.instruments()
    world.status()
    world.records("BTCUSDT")
    world.tick(30, beat=["binance"])
    assert len(world.tickers()) == 1


def test_one_exchange_down_leaves_the_other_alone():
    world = World()
    for exchange in ("binance", "bybit"):
        world.instruments(exchange)
        world.status(exchange)
        world.records("BTCUSDT", exchange=exchange)
    world.tick(3, beat=["bybit"])
    assert [(r.exchange, r.sequence) for r in world.tickers() if r.flags & wire.DOWN] == [("binance", 2)]


def test_a_feed_that_returns_goes_on_counting_and_its_records_are_clean():
    world = World()
    world.instruments()
    world.status()
    world.records("BTCUSDT")
    world.tick(2)
    world.status(pid=8)
    world.records("BTCUSDT")
    assert [(r.sequence, r.flag_names) for r in world.tickers()] == [
        (1, ["SIMULATED"]),
        (2, ["DOWN", "SIMULATED"]),
        (3, ["SIMULATED"]),
    ]
    assert world.exchange_status().state == "live"


def test_a_feed_that_returns_before_its_silence_was_noticed_is_down_until_it_has_data():
    world = World()
    world.instruments()
    world.status(pid=7)
    world.records("BTCUSDT")
    world.tick(0.3)
    world.status(pid=8)
    world.tick(0.3, beat=["binance"])
    assert world.tickers()[-1].flag_names == ["DOWN", "SIMULATED"]
    world.records("BTCUSDT")
    assert (world.tickers()[-1].sequence, world.tickers()[-1].flag_names) == (3, ["SIMULATED"])


def test_what_is_made_of_a_recording_says_so():
    world = World()
    world.instruments()
    world.status(replay=True)
    world.records("BTCUSDT", flags=wire.REPLAY)
    world.tick(2)
    assert world.tickers()[-1].flag_names == ["DOWN", "REPLAY"]
    world.status(replay=True, pid=8)
    assert [r.flag_names for r in world.out if r.topic == "status.binance"][-1] == ["REPLAY"]


def test_what_a_feed_left_that_died_before_it_said_who_it_was_is_down():
    world = World()
    world.instruments()
    world.records("BTCUSDT")
    world.tick(2)
    assert world.tickers()[-1].flag_names == ["DOWN", "SIMULATED"]
    assert world.exchange_status().reason == "feed process is silent"


def test_a_new_feed_does_not_take_over_records_of_one_that_never_said_who_it_was():
    world = World()
    world.instruments()
    world.records("BTCUSDT")
    world.tick(0.1)
    world.status(pid=8)
    assert world.tickers()[-1].flag_names == ["DOWN", "SIMULATED"]


def test_a_feed_that_was_only_held_up_gets_its_records_back():
    world = World()
    world.instruments()
    world.status()
    world.records("BTCUSDT", bid=4.0)
    world.tick(2)
    world.each.sent.clear()
    world.tick(0.2, beat=["binance"])
    assert [(r.symbol, r.sequence, r.bid, r.flag_names) for r in world.tickers()] == [
        ("BTC/USDT", 3, 4.0, ["SIMULATED"])
    ]


def test_a_feed_that_was_only_held_up_and_says_itself_that_a_symbol_is_down_is_believed():
    world = World()
    world.instruments()
    world.status()
    world.records("BTCUSDT", "ETHUSDT")
    world.tick(2)
    world.records("BTCUSDT", flags=wire.DOWN)  # the first that it does: its connection has gone meanwhile
    world.tick(0.2, beat=["binance"])
    newest = {record.symbol: record.flag_names for record in world.tickers()}
    assert newest == {"BTC/USDT": ["DOWN"], "ETH/USDT": ["SIMULATED"]}


def test_a_new_feed_process_does_not_revive_what_the_old_one_left():
    world = World()
    world.instruments()
    world.status(pid=7)
    world.records("BTCUSDT")
    world.tick(2)
    world.document(wire.HEARTBEAT, "binance", b'{"pid":8}')
    assert world.tickers()[-1].flag_names == ["DOWN", "SIMULATED"], "nor does its first sign of life"
    world.status(pid=8)
    world.tick(0.3)
    assert world.tickers()[-1].flag_names == ["DOWN", "SIMULATED"]


def test_a_short_list_takes_no_living_instrument_away_and_a_conflict_says_down():
    world = World()
    world.instruments()
    world.records("BTCUSDT", "ETHUSDT")
    world.instruments(natives={"ETHUSDT": ("ETH", "USDT")})
    world.records("BTCUSDT", bid=2.0)
    assert (world.tickers()[-1].symbol, world.tickers()[-1].bid) == ("BTC/USDT", 2.0)
    world.instruments(
        natives={"BTCUSDT": ("BTC", "USDT"), "XBT": ("BTC", "USDT"), "ETHUSDT": ("ETH", "USDT")}
    )
    assert (world.tickers()[-1].symbol, world.tickers()[-1].flag_names) == ("BTC/USDT", ["DOWN", "SIMULATED"])


def test_a_merger_that_was_stopped_itself_does_not_blame_the_feeds():
    world = World()
    world.instruments()
    world.status()
    world.records("BTCUSDT")
    world.tick()
    world.mono += 30 * NS_PER_S
    world.merger.on_tick(world.mono)
    assert not any(r.flags & wire.DOWN for r in world.tickers())
    world.tick(FEED_SILENCE_NS / NS_PER_S + 0.1)
    assert any(r.flags & wire.DOWN for r in world.tickers()), "but silence after that counts"


def test_an_exchange_without_a_feed_is_reported_absent():
    world = World()
    world.tick(2)
    status = world.exchange_status("bybit")
    assert status.state == "absent"
    assert "no feed process for bybit" in status.text(world.clock())


def test_stopping_says_that_everything_is_down():
    world = World()
    world.instruments()
    world.status()
    world.records("BTCUSDT")
    world.merger.on_stop()
    assert world.tickers()[-1].flag_names == ["DOWN", "SIMULATED"]


# --- counting


def test_records_lost_between_feed_and_merger_are_counted():
    world = World()
    world.instruments()
    world.status(resync=1, hop_records=0)
    world.records("BTCUSDT", "ETHUSDT")
    world.status(resync=1, hop_records=2)
    assert world.feed().hop_lost == 0
    world.status(resync=1, hop_records=7)
    assert world.feed().hop_lost == 5
    world.records("BTCUSDT")
    world.status(resync=1, hop_records=8)
    assert world.feed().hop_lost == 5
    world.status(resync=2, hop_records=0)
    world.records("BTCUSDT")
    world.status(resync=2, hop_records=1)
    assert world.feed().hop_lost == 5


def test_when_records_were_lost_what_is_not_wanted_any_more_is_down():
    world = World()
    world.instruments()
    world.status(resync=1, wanted=tickers("BTC/USDT", "ETH/USDT"))
    world.records("BTCUSDT", "ETHUSDT")
    world.status(resync=1, hop_records=2, wanted=tickers("BTC/USDT"))
    assert [record.flag_names for record in world.tickers()] == [["SIMULATED"]] * 2, "the feed says so itself"
    world.status(resync=1, hop_records=3, wanted=tickers("BTC/USDT"))
    newest = {record.symbol: record.flag_names for record in world.tickers()}
    assert newest == {"BTC/USDT": ["SIMULATED"], "ETH/USDT": ["DOWN", "SIMULATED"]}


def test_what_is_not_wanted_any_more_is_not_revived_after_a_loss():
    world = World()
    world.instruments()
    world.status(resync=1, wanted=tickers("BTC/USDT", "ETH/USDT"))
    world.records("BTCUSDT", "ETHUSDT")
    world.tick(2)
    world.status(resync=1, hop_records=3, wanted=tickers("BTC/USDT"))
    newest = {record.symbol: record.flag_names for record in world.tickers()}
    assert newest == {"BTC/USDT": ["SIMULATED"], "ETH/USDT": ["DOWN", "SIMULATED"]}


def test_status_comes_every_second_with_rate_and_latency():
    world = World()
    world.instruments()
    world.status()
    world.tick(1, beat=["binance"])
    for _ in range(21):
        world.records("BTCUSDT")
        world.tick()
    status = world.exchange_status()
    assert 19 <= status.records_per_s <= 21
    assert status.latency_p50_us == status.latency_p99_us == 5.0
    assert status.newest_recv_ns == world.clock() - TICK_NS - 5000
    beats = [r for r in world.out if r.kind == wire.HEARTBEAT]
    assert [r.sequence for r in beats] == list(range(1, len(beats) + 1))


@given(st.binary(max_size=600))
def test_any_bytes_from_a_feed_leave_the_merger_running(message):
    world = World()
    world.instruments()
    world.merger.on_message(message)
    world.records("BTCUSDT")
    assert world.tickers()[-1].symbol == "BTC/USDT"


@pytest.mark.parametrize("kind", [wire.STATUS, wire.INSTRUMENTS, wire.HEARTBEAT])
@given(body=st.binary(max_size=100) | st.sampled_from([b"[" * 20000, b'{"exchange":"\xff"}', b"null"]))
def test_any_body_from_a_feed_leaves_the_merger_running(kind, body):
    world = World()
    world.instruments()
    world.document(kind, "binance", body)
    world.records("BTCUSDT")
    assert world.tickers()[-1].symbol == "BTC/USDT"


@pytest.mark.parametrize("seed", seeds(30))
def test_no_topic_has_a_hole_and_none_is_reordered_whatever_feeds_do(seed):
    rng = random.Random(seed)
    world = World()
    sent = {}
    number = 0.0
    for _ in range(400):
        exchange = rng.choice(["binance", "bybit"])
        action = rng.randrange(10)
        if action == 0:
            natives = dict(rng.sample(sorted(NATIVES.items()), rng.randrange(1, 3)))
            world.instruments(exchange, natives)
        elif action == 1:
            world.status(exchange, resync=rng.randrange(3), hop_records=rng.randrange(100))
        elif action == 2:
            world.tick(rng.choice((0.05, 0.5, 1.2)))
        elif action == 3:
            world.subscribe(rng.choice((b"", b"ticker.", b"status.")))
        elif action == 4:
            world.merger.on_message(rng.randbytes(rng.randrange(400)))
        else:
            number += 1.0
            native = rng.choice(sorted(NATIVES))
            world.records(native, exchange=exchange, bid=number)
            sent.setdefault((exchange, native), []).append(number)
    newest = {}
    for record in world.out:
        if record.flags & wire.SNAPSHOT:
            assert record.sequence == newest[record.topic][0], "a replay repeats the newest record"
            continue
        sequence, bid = newest.get(record.topic, (0, 0.0))
        assert record.sequence == sequence + 1
        if isinstance(record, wire.Ticker):
            assert record.bid >= bid, "never backwards"
            bid = record.bid
        newest[record.topic] = (record.sequence, bid)


# --- one exchange, several feeds

SYMBOLS = {f"S{number}USDT": (f"S{number}", "USDT") for number in range(20)}
ALL = list(SYMBOLS)


def of_shard(text):
    return [native for native in ALL if parse_shard(text).has(native)]


def symbols_of(text):
    return [native.replace("USDT", "/USDT") for native in of_shard(text)]


def down(records):
    return [record.symbol for record in records if record.flags & wire.DOWN]


def sharded(count=2):
    """A merger that expects so many shards, all heard, each with its symbols; pids are 1 to count."""
    world = World(shards=count)
    world.instruments(natives=SYMBOLS)
    for shard in shards(count):
        world.status(pid=shard.number, shard=str(shard), started_ns=1)
        world.records(*of_shard(str(shard)))
    world.tick()
    return world


def beat(world, seconds, *texts, pid=0):
    """Let time pass while some shards beat; their pids are pid + number."""
    for _ in range(int(seconds * NS_PER_S / TICK_NS)):
        for text in texts:
            body = {"pid": pid + parse_shard(text).number, "shard": text}
            world.document(wire.HEARTBEAT, "binance", msgspec.json.encode(body))
        world.tick()


def assert_unbroken(world):
    newest = {}
    for record in world.out:
        assert record.sequence == newest.get(record.topic, 0) + 1, record.topic
        newest[record.topic] = record.sequence


def test_the_silence_of_one_shard_is_told_for_its_symbols_only():
    world = sharded(3)
    world.each.sent.clear()
    beat(world, 2, "1/3", "3/3")
    assert down(world.tickers()) == symbols_of("2/3")
    status = world.exchange_status()
    assert (status.state, status.reason) == ("down", "feed process is silent: shard 2/3")
    assert [(row.shard, row.state, row.pid) for row in status.shards] == [
        ("1/3", "live", 1),
        ("2/3", "down", 2),
        ("3/3", "live", 3),
    ]
    assert status.text(0).startswith("feed process is silent: shard 2/3; the others: ")
    beat(world, 0.1, "2/3")
    assert [r.symbol for r in world.tickers()[-len(of_shard("2/3")) :]] == symbols_of("2/3"), "it was held up"
    assert not down(world.tickers()[-len(of_shard("2/3")) :])
    world.status(pid=2, shard="2/3", started_ns=1)
    assert (world.exchange_status().state, world.exchange_status().reason) == ("live", "")


def test_a_new_process_of_one_shard_leaves_the_others_alone():
    world = sharded()
    world.each.sent.clear()
    world.status(pid=9, shard="2/2", started_ns=2)
    assert down(world.tickers()) == symbols_of("2/2")


def test_a_shard_that_never_came_is_named():
    world = World(shards=3)
    world.instruments(natives=SYMBOLS)
    world.status(pid=1, shard="1/3")
    beat(world, 1, "1/3")
    status = world.exchange_status()
    assert (status.state, status.reason) == (
        "absent",
        "no feed process for binance yet: shard 2/3, 3/3",
    )
    assert [row.state for row in status.shards] == ["live", "absent", "absent"]


def test_of_shards_that_are_all_absent_the_exchange_is_told_alone():
    world = World(shards=3)
    world.tick(1)
    assert world.exchange_status().reason == "no feed process for binance yet"


def test_shards_are_one_exchange_to_subscribers():
    world = World(shards=2)
    world.instruments(natives=SYMBOLS)
    connection = ConnectionStatus(phase="running", attempt=1)
    for text in ("1/2", "2/2"):
        world.status(
            pid=int(text[0]),
            shard=text,
            wanted=tickers(*symbols_of(text)),
            rejected={f"X{text[0]}/Y": {"ticker": "no"}},
            connections=[connection],
        )
        for _ in range(5):
            world.records(*of_shard(text))
    beat(world, 1, "1/2", "2/2")
    status = world.exchange_status()
    assert (status.state, status.reason, status.topics, status.records) == ("live", "", 20, 100)
    assert sorted(status.feed.wanted) == sorted(symbols_of("1/2") + symbols_of("2/2"))
    assert status.feed.rejected == {"X1/Y": {"ticker": "no"}, "X2/Y": {"ticker": "no"}}
    assert len(status.feed.connections) == 2
    assert [row.pid for row in status.shards] == [1, 2]
    assert sum(row.topics for row in status.shards) == 20
    assert status.latency_p50_us == 5.0
    heartbeat = [r for r in world.out if r.kind == wire.HEARTBEAT][-1]
    assert msgspec.json.decode(heartbeat.body)["exchanges"]["binance"] == "live"


def test_an_unsharded_exchange_has_no_rows():
    world = World()
    world.status()
    world.tick(1, beat=["binance"])
    assert world.exchange_status().shards == []
    assert world.exchange_status().feed.pid == 7


def test_what_each_shard_lost_on_the_hop_is_counted():
    world = sharded()
    for shard, lost in (("1/2", 3), ("2/2", 4)):
        pid = int(shard[0])
        sent = len(of_shard(shard))
        world.status(pid=pid, shard=shard, started_ns=1, resync=1, hop_records=sent)
        world.records(*of_shard(shard))
        world.status(pid=pid, shard=shard, started_ns=1, resync=1, hop_records=2 * sent + lost)
    world.tick(1)
    assert world.exchange_status().hop_lost == 7


def test_an_idle_shard_is_no_fault():
    world = sharded()
    world.document(
        wire.STATUS,
        "binance",
        msgspec.json.encode(FeedStatus(exchange="binance", pid=2, shard="2/2", started_ns=1, state="idle")),
    )
    beat(world, 1, "1/2", "2/2")
    assert world.exchange_status().state == "live"
    assert [row.state for row in world.exchange_status().shards] == ["live", "idle"]


@pytest.mark.parametrize(("old", "new"), [(1, 2), (2, 1), (4, 2), (2, 3)])
@pytest.mark.parametrize("is_noticed", [False, True])
def test_another_count_of_shards_takes_over(old, new, is_noticed):
    world = sharded(old)
    if is_noticed:
        world.tick(2)
    records = world.exchange_status().records if is_noticed else None
    world.each.sent.clear()
    first, *others = shards(new)
    world.status(pid=11, shard=str(first), started_ns=2)
    assert sorted(down(world.tickers())) == ([] if is_noticed else sorted(set(symbols_of("1/1")))), "at once"
    for shard in others:
        world.status(pid=10 + shard.number, shard=str(shard), started_ns=2)
    for shard in shards(new):
        world.records(*of_shard(str(shard)))
    assert not down(world.tickers()[-len(ALL) :])
    world.each.sent.clear()
    beat(world, 0.2, *map(str, shards(new)), pid=10)
    assert not world.tickers()
    beat(world, 2, *map(str, others), pid=10)
    assert sorted(down(world.tickers())) == sorted(symbols_of(str(first))), "of the one that fell silent"
    beat(world, 1, *map(str, shards(new)), pid=10)
    status = world.exchange_status()
    assert status.records >= 2 * len(ALL)
    assert records is None or status.records == records + len(ALL), "counters go on"
    assert status.topics == len(ALL)


def test_no_sequence_breaks_when_the_count_of_shards_changes():
    world = sharded(1)
    for number, count in enumerate((2, 4, 1, 3), 2):
        for shard in shards(count):
            world.status(pid=100 * number + shard.number, shard=str(shard), started_ns=number)
            world.records(*of_shard(str(shard)))
    assert_unbroken(world)
    assert not down(world.tickers()[-3:])


def test_what_a_feed_of_the_old_count_said_last_does_not_bring_it_back():
    world = sharded(1)
    for shard in shards(2):
        world.status(pid=10 + shard.number, shard=str(shard), started_ns=2)
    world.records(*ALL)
    world.each.sent.clear()
    world.status(pid=1, shard="1/1", started_ns=1)
    world.document(wire.HEARTBEAT, "binance", b'{"pid":1}')
    assert world.tickers() == []
    assert list(world.merger.exchanges["binance"].feeds) == ["1/2", "2/2"]


def test_another_count_takes_over_even_if_the_clock_was_set_back_meanwhile():
    world = sharded(1)
    for _ in range(40):
        world.status(pid=11, shard="1/2", started_ns=0)
        world.status(pid=12, shard="2/2", started_ns=0)
        world.records(*ALL)  # as if the old one still spoke
        world.tick()
    assert list(world.merger.exchanges["binance"].feeds) == ["1/2", "2/2"]
    assert world.exchange_status().state == "live"


@pytest.mark.parametrize("text", ["", "0/2", "3/2", "1/99", "x", "1/2/3", "½"])
@pytest.mark.parametrize("kind", [wire.STATUS, wire.HEARTBEAT])
def test_a_shard_that_cannot_be_is_malformed_and_changes_nothing(kind, text):
    world = sharded()
    status = FeedStatus(exchange="binance", pid=3, shard=text, started_ns=9)
    world.document(kind, "binance", msgspec.json.encode(status))
    assert world.merger.exchanges["binance"].malformed == 1
    assert list(world.merger.exchanges["binance"].feeds) == ["1/2", "2/2"]


def test_an_older_instrument_list_of_another_shard_does_not_replace_a_newer_one():
    world = World(shards=2)
    world.instruments(natives={"ALT": ("NEU", "USDT")}, as_of_ns=5)
    world.instruments(natives={"ALT": ("ALT", "USDT")}, as_of_ns=4)
    world.records("ALT")
    assert [r.symbol for r in world.tickers()] == ["NEU/USDT"]
    assert len([r for r in world.out if r.kind == wire.INSTRUMENTS]) == 1
    world.instruments(natives={"ALT": ("ALT", "USDT")}, as_of_ns=6)
    world.records("ALT")
    assert world.tickers()[-1].symbol == "ALT/USDT"


def test_a_symbol_that_is_renamed_into_another_shard_keeps_its_topic_and_follows_its_new_feed():
    world = World(shards=2)
    old, new = of_shard("1/2")[0], of_shard("2/2")[0]
    world.instruments(natives={old: ("A", "USDT")}, as_of_ns=1)
    for text in ("1/2", "2/2"):
        world.status(pid=int(text[0]), shard=text)
    world.records(old)
    world.instruments(natives={new: ("A", "USDT")}, as_of_ns=2)
    world.records(new)
    assert [world.feed(text).traffic.records for text in ("1/2", "2/2")] == [1, 1]
    beat(world, 2, "2/2")
    assert [(r.topic, r.sequence, r.flags & wire.DOWN) for r in world.tickers()] == [
        ("ticker.binance.A/USDT", 1, 0),
        ("ticker.binance.A/USDT", 2, 0),
    ]
    beat(world, 2)
    assert down(world.tickers()) == ["A/USDT"]
    assert world.exchange_status().topics == 1


@pytest.mark.parametrize("seed", seeds(20))
def test_no_topic_breaks_and_flags_tell_the_truth_whatever_shards_do(seed):
    rng = random.Random(seed)
    world = World(shards=rng.choice([1, 2, 4]))
    world.instruments(natives=SYMBOLS)
    started = 0
    for _ in range(12):
        started += 1
        count = rng.choice([1, 2, 3, 4])
        alive = [shard for shard in shards(count) if rng.random() < 0.8]
        for shard in alive:
            world.status(pid=100 * started + shard.number, shard=str(shard), started_ns=started)
            world.records(*of_shard(str(shard)))
        ticks = rng.choice([2, 40])
        for _ in range(ticks):
            for shard in alive:
                world.status(pid=100 * started + shard.number, shard=str(shard), started_ns=started)
            world.tick()
        if not alive or ticks < 40:
            continue  # what is silent is not noticed yet
        newest = {record.symbol: record for record in world.tickers()}
        for native in ALL:
            record = newest.get(native.replace("USDT", "/USDT"))
            is_live = any(shard.has(native) for shard in alive)
            assert record is None or bool(record.flags & wire.DOWN) != is_live
            assert record is not None or not is_live
        feeds = world.merger.exchanges["binance"].feeds.values()
        assert sum(len(feed.routes) for feed in feeds) == len(newest), "each route has one owner"
        for feed in feeds:
            for topic, route in feed.routes.items():
                assert feed.shard.has(symbol_in(topic))
                assert route.traffic is feed.traffic
    assert_unbroken(world)


def test_records_that_came_together_leave_together_at_the_batch_endpoint():
    world = World()
    world.instruments()
    world.batches.sent.clear()
    world.records("BTCUSDT", "ETHUSDT", "BTCUSDT")
    (batch,) = world.batches.sent
    assert len(list(wire.split(batch))) == 3
    each = [message for message in world.each.sent if wire.unpack(message).kind == wire.TICKER]
    assert batch == b"".join(each), "the same bytes"


def test_a_record_without_a_canonical_symbol_is_left_out_of_the_batch():
    world = World()
    world.instruments()
    world.batches.sent.clear()
    world.records("BTCUSDT", "NOSUCH", "ETHUSDT")
    (batch,) = world.batches.sent
    assert len(batch) == 2 * wire.TICKER_SIZE


@pytest.mark.parametrize("kind", ["each", "batches"])
def test_nothing_is_sent_to_an_endpoint_without_subscribers_and_no_number_is_lost(kind):
    world = World()
    world.instruments()
    outlet = getattr(world, kind)
    outlet.is_wanted = False
    outlet.sent.clear()
    world.records("BTCUSDT", "ETHUSDT")
    assert not outlet.sent
    outlet.is_wanted = True
    world.records("BTCUSDT")
    assert wire.unpack(outlet.sent[-1]).sequence == 2


LIES_NS = (2**63 - 1, -(2**63), 0, -1, EPOCH_NS * 2)


@pytest.mark.parametrize("lie_ns", LIES_NS)
@pytest.mark.parametrize("field", ["recv_ns", "publish_ns", "exchange_ns"])
def test_a_time_that_lies_is_passed_on_and_is_no_latency_nor_newest_for_ever(field, lie_ns):
    world = World()
    world.instruments()
    world.status()
    topic = wire.topic(wire.TICKER, "binance", "BTCUSDT")
    now = world.clock()
    honest = {"recv_ns": now - 50_000, "publish_ns": now - 30_000, "exchange_ns": now - 90_000, "flags": 8}
    world.merger.on_message(wire.pack_ticker(wire.Ticker(topic, **{**honest, field: lie_ns})))
    assert getattr(world.tickers()[-1], field) == (lie_ns if field != "publish_ns" else now), (
        "not ours to change"
    )
    samples = list(world.feed().traffic.latencies)
    assert samples == ([(20_000, 30_000)] if field == "exchange_ns" else [])
    assert world.feed().traffic.newest_recv_ns <= now
    world.tick(1.1, beat=["binance"])
    assert 0 <= (world.exchange_status().latency_p99_us or 0) < 1000
    world.records("BTCUSDT")
    assert world.feed().traffic.newest_recv_ns == world.clock() - 5000
    assert world.exchange_status().newest_recv_ns <= world.clock()


def test_what_was_newest_by_a_clock_that_was_set_back_is_so_no_longer():
    world = World()
    world.instruments()
    world.status()
    world.records("BTCUSDT")
    world.mono -= 20 * NS_PER_S
    world.records("BTCUSDT")
    assert world.feed().traffic.newest_recv_ns <= world.clock()


@pytest.mark.parametrize("lie_ns", [2**63 - 1, EPOCH_NS * 2, 10**25])
def test_a_list_of_instruments_from_the_future_is_followed_by_the_next_one(lie_ns):
    world = World()
    world.instruments(as_of_ns=lie_ns)
    world.tick(1)
    world.instruments(natives={"NEWUSDT": ("NEW", "USDT")}, as_of_ns=world.clock())
    world.status()
    world.records("NEWUSDT")
    assert [record.symbol for record in world.tickers()] == ["NEW/USDT"]


def test_the_status_tells_the_feeds_share_of_the_latency_from_the_hops():
    world = World()
    world.instruments()
    world.status()
    record = wire.Ticker(wire.topic(wire.TICKER, "binance", "BTCUSDT"))
    record.recv_ns, record.publish_ns = world.clock() - 70_000, world.clock() - 50_000
    world.merger.on_message(wire.pack_ticker(record))
    world.tick(1, beat=["binance"])
    status = world.exchange_status()
    assert (status.feed_p50_us, status.hop_p50_us, status.latency_p50_us) == (20.0, 50.0, 70.0)


class LateMerger:
    """Outlets are there before the merger whose last values they send."""

    def __init__(self, world):
        self.topics = lambda prefix: world.merger.topics(prefix)
        self.last = lambda topic: world.merger.last(topic)


def test_from_a_feed_to_subscribers_through_real_sockets(tmp_path):
    loop = Loop()
    ends = {name: f"ipc://{tmp_path}/{name}" for name in ("each", "batches", "feeds")}
    world = World()
    outlets = [
        RealOutlet(loop, [ends[name]], LateMerger(world), key=name,
                       queue_size_max=1 << 20)
        for name in ("each", "batches")
    ]  # fmt: skip
    world.merger = Merger(
        {"binance": 1, "bybit": 1}, *outlets, world.clock, session=100, pid=1, now_mono_ns=0,
    )  # fmt: skip
    inlet = Inlet(loop, ends["feeds"], world.merger.on_message, key="feeds", outlets=outlets)
    joined = []
    uplink = Uplink(loop, ends["feeds"], lambda: joined.append(True), queue_size_max=1 << 20)
    received = {"each": [], "batches": []}
    links = [
        Downlink(loop, ends[name], [b"ticker."], lambda m, to=to: to.append(bytes(m)))
        for name, to in received.items()
    ]
    world.instruments()
    for _ in range(200):
        uplink.poll()
        if all(link.poll() for link in links) and joined and all(o.is_wanted for o in outlets):
            break
        loop.run_once(0.01)
    for number in range(1000):
        pair = [wire.Ticker(wire.topic(wire.TICKER, "binance", n), bid=float(number)) for n in NATIVES]
        uplink.send(b"".join(map(wire.pack_ticker, pair)))
        loop.run_once(0)
    for _ in range(200):
        if len(received["each"]) == 2000 and len(received["batches"]) == 1000:
            break
        loop.run_once(0.01)
    assert b"".join(received["each"]) == b"".join(received["batches"])
    records = [wire.unpack(message) for message in received["each"]]
    assert [(r.symbol, r.sequence, r.bid) for r in records] == [
        (symbol, number + 1, number) for number in range(1000) for symbol in ("BTC/USDT", "ETH/USDT")
    ]
    for part in (uplink, inlet, *links, *outlets, loop):
        part.close()


class RingOutlet(Outlet):
    """Looks for each record in the ring while it is sent."""

    reader = None

    def send(self, topic, message):
        super().send(topic, message)
        record = wire.unpack(message)
        if record.kind == wire.TICKER:
            index = self.reader.topics()[record.topic]
            assert self.reader.record(index, record.sequence) == bytes(message)


def test_whoever_sees_a_record_finds_it_in_the_ring_under_its_number(tmp_path):
    ring = BoardWriter(tmp_path / "x.board", depth=4)
    world = World(ring=ring)
    world.each.__class__ = RingOutlet
    world.each.reader = reader = BoardReader(tmp_path / "x.board")
    world.instruments()
    world.status(wanted=tickers("BTC/USDT", "ETH/USDT"))
    for bid in range(1, 8):
        world.records("BTCUSDT", "ETHUSDT", "BTCUSDT", bid=bid)
    world.tick(2.0)  # the feed falls silent: records of ours, not of the feed
    world.status()
    world.merger.on_stop()
    assert len(world.tickers()) == 27
    assert [r.flags for r in world.tickers("ticker.binance.ETH")][-3:] == [12, 8, 12]
    newest = {topic: wire.unpack(reader.newest(index)).sequence for topic, index in reader.topics().items()}
    assert newest == {"ticker.binance.BTC/USDT": 17, "ticker.binance.ETH/USDT": 10}
    assert [
        None if (found := reader.record(0, number)) is None else wire.unpack(found).sequence
        for number in range(12, 19)
    ] == [None, None, 14, 15, 16, 17, None]


def test_a_topic_without_room_in_the_ring_is_published_all_the_same(tmp_path):
    world = World(ring=BoardWriter(tmp_path / "x.board", slots_max=1))
    world.instruments()
    world.records("BTCUSDT", "ETHUSDT", "ETHUSDT")
    assert [r.sequence for r in world.tickers("ticker.binance.ETH")] == [1, 2]
    assert BoardReader(tmp_path / "x.board").topics() == {"ticker.binance.BTC/USDT": 0}
