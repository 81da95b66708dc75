"""A kind that keeps every record, and that exists in this test alone, on its way from a feed to subscribers.

Nothing is repeated, nothing is replayed as if it were new, and STALE and DOWN are told without a copy of a record.
"""

import random
import struct
from typing import Annotated

import msgspec
import pytest

from feedhandler.bridge.backlog import Backlog
from feedhandler.client.recovery import Recovery
from feedhandler.data import header, kinds, retransmission, wire
from feedhandler.data.instruments import Instrument, instrument_list
from feedhandler.data.layout import Description, Retention, f64, layout, u64
from feedhandler.data.status import FeedStatus
from feedhandler.exchanges.state import State
from feedhandler.feed.batch import Batch, Series
from feedhandler.merger.merge import FEED_SILENCE_NS, TICK_NS, Merger
from feedhandler.transport.boards import BoardReader, BoardWriter
from feedhandler.transport.follower import Follower
from feedhandler.transport.subscribing import Join, Subscriptions

CODE = 200
EPOCH_NS = 1_790_000_000_000_000_000
NS_PER_S = 1_000_000_000
BTC = "print.binance.BTC/USDT"


class Print(header.Record):
    """One execution."""

    kind: int = CODE
    exchange_sequence: Annotated[int, u64("", "its number at the exchange")] = 0
    price: Annotated[float, f64("quote currency", "its price")] = 0.0
    size: Annotated[float, f64("base currency", "its size")] = 0.0


PRINT = Description(
    CODE, "print", "a test", Retention.EVERY, Print, layout("print", "one execution", Print, header.HEADER)
)


@pytest.fixture(autouse=True)
def kind(monkeypatch):
    """Register the kind: what a file and a line of the registry are otherwise."""
    monkeypatch.setitem(kinds.BY_CODE, CODE, PRINT)
    monkeypatch.setitem(kinds.NAMES, CODE, PRINT.name)
    monkeypatch.setitem(wire.PACKINGS, CODE, struct.Struct(PRINT.layout.format))
    wire.SIZES[CODE] = PRINT.size
    yield
    wire.SIZES[CODE] = 0


class Outlet:
    is_wanted = True

    def __init__(self):
        self.sent = []

    def send(self, *message):
        """Take topic and message, of the hop the message alone."""
        self.sent.append(bytes(message[-1]))

    def flush(self):
        pass


class World:
    """A feed, a merger with its file of recent records, subscribers that lose messages, and a bridge."""

    def __init__(self, path):
        self.mono = 0
        self.hop, self.direct = Outlet(), Outlet()
        self.batch = Batch(self.hop, self.direct, self.clock)
        self.each, self.batches = Outlet(), Outlet()
        self.ring = BoardWriter(path, depth=64, slots_max=9, session=100)
        self.merger = Merger(
            {"binance": 1},
            self.each,
            self.batches,
            self.clock,
            session=100,
            pid=1,
            now_mono_ns=0,
            ring=self.ring,
        )
        self.board = BoardReader(path)
        self.series = {
            name: Series(f"print.binance.{name}", session=7, flags=header.SIMULATED)
            for name in ("BTCUSDT", "ETHUSDT")
        }
        self.state = State(topic="ticker.binance.BTCUSDT", native="BTCUSDT")
        natives = {"BTCUSDT": ("BTC", "USDT"), "ETHUSDT": ("ETH", "USDT")}
        listing = instrument_list("binance", 1, [Instrument(n, b, q) for n, (b, q) in natives.items()])
        self.document(wire.INSTRUMENTS, msgspec.json.encode(listing))
        self.status()
        self.prints = 0

    def clock(self):
        return EPOCH_NS + self.mono

    def document(self, kind, body):
        document = wire.Document(wire.topic(kind, "binance"), kind=kind, body=body)
        self.merger.on_message(wire.pack_document(document))

    def status(self):
        status = FeedStatus(
            exchange="binance", pid=7, started_ns=0, state="live", hop_records=self.batch.records
        )
        self.document(wire.STATUS, msgspec.json.encode(status))

    def frame(self, *names):
        """A frame of the exchange brings some executions, of whatever symbols."""
        for name in names:
            self.prints += 1
            price, now = float(self.prints), self.clock()
            self.batch.append(
                self.series[name], Print("", exchange_sequence=self.prints, price=price, recv_ns=now)
            )

    def condition(self, name, flags):
        self.batch.append(self.series[name], wire.Condition("", flags=flags, recv_ns=self.clock()))

    def deliver(self):
        self.batch.flush()
        sent, self.hop.sent = self.hop.sent, []
        for message in sent:
            self.merger.on_message(message)

    def tick(self, ns):
        end = self.mono + ns
        while self.mono < end:
            self.mono += TICK_NS
            self.merger.on_tick(self.mono)

    def published(self, outlet=None):
        """All records that were sent at an endpoint, but documents."""
        messages = (outlet or self.each).sent
        records = [wire.unpack(part) for message in messages for part in wire.split(message)]
        return [record for record in records if not isinstance(record, wire.Document)]


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "recent.board")


def numbers(records, topic=BTC):
    return [(r.sequence, str(r.flags)) for r in records if r.topic == topic]


def test_many_records_of_one_frame_leave_numbered_in_order_beside_tickers(world):
    world.frame("BTCUSDT", "ETHUSDT", "BTCUSDT")
    world.state.bid = 1.0
    world.batch.emit(world.state)
    world.frame("BTCUSDT")
    world.deliver()
    expected = [(BTC, 1), ("print.binance.ETH/USDT", 1), (BTC, 2), ("ticker.binance.BTC/USDT", 1), (BTC, 3)]
    for outlet in (world.each, world.batches):
        assert [(r.topic, r.sequence) for r in world.published(outlet)] == expected
    assert [r.price for r in world.published() if isinstance(r, Print)] == [1.0, 2.0, 3.0, 4.0]
    (feed,) = world.merger.exchanges["binance"].feeds.values()
    world.status()
    assert (feed.traffic.records, feed.hop_lost) == (5, 0)


def test_direct_subscribers_get_each_record_alone(world):
    world.frame("BTCUSDT")
    world.batch.emit(world.state)
    world.condition("BTCUSDT", header.STALE)
    world.batch.flush()
    assert [len(message) for message in world.direct.sent] == [PRINT.size, wire.TICKER_SIZE, wire.HEADER_SIZE]


def test_who_joins_late_gets_no_record_again_but_the_condition(world):
    world.frame("BTCUSDT")
    world.deliver()
    assert [*map(world.merger.last, world.merger.topics(b"print."))] == [None]
    world.condition("BTCUSDT", header.STALE)
    world.deliver()
    (topic,) = world.merger.topics(b"print.")
    record = wire.unpack(world.merger.last(topic))
    assert isinstance(record, wire.Condition)
    assert (record.topic, record.sequence, str(record.flags)) == (BTC, 1, "SNAPSHOT|STALE|SIMULATED")
    answer = retransmission.answer(b'{"topics":["print."]}', world.board, {})
    assert answer.frames[1] == b""
    world.frame("BTCUSDT")
    world.deliver()
    assert world.merger.last(topic) is None


def test_a_condition_takes_no_number_and_comes_in_its_place(world):
    world.frame("BTCUSDT")
    world.condition("BTCUSDT", header.STALE)
    world.condition("BTCUSDT", header.STALE)
    world.frame("BTCUSDT", "BTCUSDT")
    world.deliver()
    assert numbers(world.published()) == [
        (1, "SIMULATED"),
        (1, "STALE|SIMULATED"),
        (2, "SIMULATED"),
        (3, "SIMULATED"),
    ]
    assert numbers(world.published(world.batches)) == numbers(world.published())


def test_a_feed_that_fell_silent_is_down_by_a_condition_until_it_is_back(world):
    world.frame("BTCUSDT", "BTCUSDT")
    world.deliver()
    world.tick(FEED_SILENCE_NS + 2 * TICK_NS)
    assert numbers(world.published())[2:] == [(2, "DOWN|SIMULATED")]
    assert isinstance(world.published()[-1], wire.Condition)
    world.tick(5 * NS_PER_S)
    assert len(world.published()) == 3, "once"
    world.status()
    assert numbers(world.published())[3:] == [(2, "SIMULATED")]
    world.frame("BTCUSDT")
    world.deliver()
    assert numbers(world.published())[4:] == [(3, "SIMULATED")]
    assert world.published()[-1].price == 3.0


class Subscriber:
    """A subscriber that asks for what it misses, as it does by default for such a kind."""

    def __init__(self, world):
        self.world = world
        self.out = []
        self.follower = Follower(self.out.append)
        self.recovery = Recovery(self.follower, self.out.append, lambda: world.mono, takes_latest=False)
        self.recovery.is_connected = True
        self.follower.on_hole = self.recovery.on_hole

    def take(self, message):
        self.follower.take(message)

    def recover(self):
        while (request := self.recovery.request()) is not None:
            self.recovery.on_answer(retransmission.answer(request, self.world.board, {}).frames)
        self.recovery.on_time()


@pytest.mark.parametrize("seed", range(30))
def test_each_record_comes_once_and_in_order_whatever_is_lost(seed, world):
    rng = random.Random(seed)
    subscriber = Subscriber(world)
    backlog = Backlog()
    world.frame("BTCUSDT", "ETHUSDT")  # from which on the sequences are followed
    seen = {"each": 0, "batches": 0}
    for turn in range(80):
        act = rng.random()
        if act < 0.75:
            world.frame(*rng.choices(("BTCUSDT", "ETHUSDT"), k=rng.choice((1, 1, 2, 7))))
        elif act < 0.85:
            world.condition(rng.choice(("BTCUSDT", "ETHUSDT")), rng.choice((0, header.STALE)))
        elif act < 0.9:
            world.deliver()
            world.tick(FEED_SILENCE_NS + 2 * TICK_NS)
            world.status()
        world.deliver()
        for message in world.each.sent[seen["each"] :]:
            if turn == 0 or turn == 79 or rng.random() < 0.7:
                subscriber.take(message)
        for message in world.batches.sent[seen["batches"] :]:
            backlog.take(message)
        seen = {"each": len(world.each.sent), "batches": len(world.batches.sent)}
        if rng.random() < 0.5:
            subscriber.recover()
    world.frame("BTCUSDT", "ETHUSDT")
    world.deliver()
    for message in world.each.sent[seen["each"] :]:
        subscriber.take(message)
    subscriber.recover()
    got = [record for record in subscriber.out if isinstance(record, Print)]
    expected = [record for record in world.published() if isinstance(record, Print)]
    for topic in (BTC, "print.binance.ETH/USDT"):
        assert [r for r in got if r.topic == topic] == [r for r in expected if r.topic == topic]
        assert subscriber.follower.losses[topic].lost == 0
    assert not subscriber.recovery.is_recovering
    handed_over = [wire.unpack(record) for record in iter_chunks(backlog)]
    prints = [record for record in handed_over if isinstance(record, Print)]
    assert prints == expected[: len(prints)]
    assert len(prints) >= len(expected) - 2, "all but those of the last frame, which it was not given"


def iter_chunks(backlog):
    while chunk := backlog.take_chunk():
        yield from chunk


def test_a_bridge_that_lost_its_merger_says_so_by_conditions_and_repeats_nothing(world):
    world.frame("BTCUSDT", "BTCUSDT")
    world.deliver()
    backlog = Backlog()
    for message in world.batches.sent:
        backlog.take(message)
    list(iter_chunks(backlog))
    backlog.flag_down()
    backlog.repeat()
    backlog.clear_down()
    backlog.repeat()
    said = [wire.unpack(record) for record in iter_chunks(backlog)]
    said = [record for record in said if record.topic == BTC]
    assert all(isinstance(record, wire.Condition) for record in said)
    assert numbers(said) == [(2, "DOWN|SIMULATED"), (2, "DOWN|SIMULATED"), (2, "SIMULATED")]


def test_what_a_bridge_could_not_hand_over_is_handed_over_later_as_it_was(world):
    world.frame("BTCUSDT")
    world.deliver()
    backlog = Backlog()
    backlog.take(world.batches.sent[-1])
    (record,) = backlog.take_chunk()
    backlog.put_back([record])
    assert backlog.take_chunk() == [record], "not flagged as a repetition: it is none"


def test_a_subscriber_that_was_cut_off_before_a_condition_knows_what_it_missed(world):
    subscriber = Subscriber(world)
    world.frame("BTCUSDT")
    world.deliver()
    subscriber.take(world.each.sent[-1])
    world.frame("BTCUSDT", "BTCUSDT")
    world.condition("BTCUSDT", header.STALE)
    world.deliver()
    subscriber.take(world.each.sent[-1])  # the condition alone
    assert subscriber.follower.losses[BTC].lost == 2
    subscriber.recover()
    assert numbers(subscriber.out) == [
        (1, "SIMULATED"),
        (2, "SIMULATED"),
        (3, "SIMULATED"),
        (3, "STALE|SIMULATED"),
    ]
    assert subscriber.follower.losses[BTC].lost == 0


@pytest.mark.parametrize("is_batched", [False, True])
def test_who_is_still_getting_last_values_gets_each_new_record_at_once(world, is_batched):
    world.frame("BTCUSDT")
    world.batch.emit(world.state)
    world.deliver()
    outlet = world.batches if is_batched else world.each
    join = Join(Subscriptions(), b"", world.merger.topics(b""), is_batched=is_batched)
    outlet.sent.clear()
    world.frame("BTCUSDT")
    world.batch.emit(world.state)
    world.condition("BTCUSDT", header.STALE)
    world.deliver()
    passed = [join.let_through(message[: wire.TOPIC_SIZE], message) for message in outlet.sent]
    records = [wire.unpack(part) for message in passed if message is not None for part in wire.split(message)]
    assert [(record.topic, str(record.flags)) for record in records] == [
        (BTC, "SIMULATED"),
        (BTC, "STALE|SIMULATED"),
    ]
