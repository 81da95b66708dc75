"""Records of any size, of kinds that exist in this test alone: through the merger, to subscribers and recovery.

A bar is longer than a ticker, a ladder has as many steps as its own counts say.
"""

import random
import struct
from typing import Annotated

import msgspec
import pytest
from registering import registered
from seeds import seeds
from transport.ends import World as SocketWorld

from feedhandler.bridge.backlog import Backlog
from feedhandler.client.recovery import Recovery
from feedhandler.data import board_layout, header, kinds, raw, retransmission, wire
from feedhandler.data.contracts import Fanout
from feedhandler.data.errors import DecodeError
from feedhandler.data.instruments import Instrument, instrument_list
from feedhandler.data.layout import Body, Description, Entries, Retention, char, f64, layout, u16, u32, u64
from feedhandler.data.status import FeedStatus
from feedhandler.exchanges.state import RecordState
from feedhandler.feed.batch import Batch
from feedhandler.merger.merge import Merger
from feedhandler.transport.follower import Follower
from feedhandler.transport.recent import RecentReader, RecentWriter, ring_path

EPOCH_NS = 1_790_000_000_000_000_000
STEP = struct.Struct("<dd")


class Bar(header.Record):
    kind: int = 201
    exchange_sequence: Annotated[int, u64("", "its number")] = 0
    values: Annotated[float, f64("", "a value")] = 0.0
    text: Annotated[str, char(128 - 16, "so that it is 40 bytes longer than a ticker")] = "x"


class Ladder(header.Record):
    kind: int = 202
    exchange_sequence: Annotated[int, u64("", "its number")] = 0
    bids: Annotated[int, u16("", "steps down")] = 0
    asks: Annotated[int, u16("", "steps up, which follow")] = 0
    reserved: Annotated[int, u32("", "0")] = 0
    steps: Annotated[bytes, Entries(("bids", "asks"), STEP.size, 512, "price and size, as two f64")] = b""


class Rung(header.Record):
    """Smaller than a ticker, latest."""

    kind: int = 203
    value: Annotated[float, f64("", "a value")] = 0.0


def described(name, record, retention=Retention.EVERY, body=Body.FIXED):
    of = layout(name, "a test", record, header.HEADER)
    return Description(record.__struct_defaults__[1], name, f"a {name}", retention, record, of, body)


BAR = described("bar", Bar)
LADDER = described("ladder", Ladder, body=Body.COUNTED)
RUNG = described("rung", Rung, Retention.LATEST)


@pytest.fixture(autouse=True)
def kinds_of_this_test():
    with registered(BAR, LADDER, RUNG):
        yield


def ladder(bids, asks, **fields):
    steps = b"".join(STEP.pack(number, number + 0.5) for number in range(bids + asks))
    return Ladder("ladder.binance.BTCUSDT", bids=bids, asks=asks, steps=steps, **fields)


class Outlet(Fanout):
    def __init__(self):
        self.is_wanted = True
        self.sent = []
        self.topics = []

    def send(self, *message):
        self.topics.append(message[0])
        self.sent.append(bytes(message[-1]))

    def flush(self):
        pass


class World:
    """A merger with its files of recent records, and what is published."""

    def __init__(self, path, recent=16, session=100):
        self.each, self.batches = Outlet(), Outlet()
        self.now_ns = EPOCH_NS
        self.ring = RecentWriter(path, recent, session=session)
        self.merger = Merger(
            {"binance": 1},
            self.each,
            self.batches,
            lambda: self.now_ns,
            session=session,
            pid=1,
            now_mono_ns=0,
            ring=self.ring,
        )
        self.reader = RecentReader(path)
        natives = {"BTCUSDT": ("BTC", "USDT"), "ETHUSDT": ("ETH", "USDT")}
        listing = instrument_list("binance", 1, [Instrument(n, b, q) for n, (b, q) in natives.items()])
        self.document(wire.INSTRUMENTS, msgspec.json.encode(listing))
        self.status()
        for outlet in (self.each, self.batches):
            outlet.sent.clear()
            outlet.topics.clear()

    def document(self, kind, body):
        document = wire.Document(wire.topic(kind, "binance"), kind=kind, body=body)
        self.merger.on_message(wire.pack_document(document))

    def status(self, **fields):
        status = FeedStatus(exchange="binance", pid=7, started_ns=0, state="live", **fields)
        self.document(wire.STATUS, msgspec.json.encode(status))

    def bring(self, *records):
        """Have the feed send records in one message."""
        self.merger.on_message(b"".join(map(wire.pack, records)))

    def ask(self, **request):
        answer = retransmission.answer(
            msgspec.json.encode(retransmission.Request(session=100, **request)), self.reader, {}
        )
        head = msgspec.json.decode(answer.frames[0], type=retransmission.Head)
        records = [wire.unpack(part) for part in wire.split(answer.frames[1])]
        assert len(records) == head.records
        assert answer.cost >= len(answer.frames[1]) // wire.TICKER_SIZE
        return head, records


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "recent.board")


def published(outlet):
    return [wire.unpack(part) for message in outlet.sent for part in wire.split(message)]


def test_a_record_has_the_size_that_its_counts_say():
    for bids, asks in ((0, 0), (1, 0), (0, 3), (256, 256)):
        packed = wire.pack(ladder(bids, asks))
        assert len(packed) == wire.size_at(packed + b"more", 0) == 120 + 16 * (bids + asks)
        assert wire.unpack(packed) == ladder(bids, asks)
    assert (LADDER.size, LADDER.size_max) == (120, 120 + 512 * 16)
    for damaged in (packed[:-1], packed[:119], packed + b"\0" * 16):
        with pytest.raises(DecodeError, match="ladder record of"):
            wire.unpack(damaged)
        assert wire.size_at(damaged, 0) == min(len(damaged), len(packed))
    for wrong in (Ladder("x", bids=1), ladder(512, 1), Ladder("x", steps=bytes(16))):
        with pytest.raises(ValueError, match="counts"):
            wire.pack(wrong)


def test_only_two_numbers_of_the_right_type_can_count_entries():
    class Wide(header.Record):
        one: Annotated[int, u32("", "one")] = 0
        two: Annotated[int, u16("", "two")] = 0
        rest: Annotated[bytes, Entries(("one", "two"), 8, 10, "the rest")] = b""

    with pytest.raises(ValueError, match="one and two count entries"):
        layout("wide", "wide", Wide, header.HEADER)


def test_records_of_all_sizes_in_one_message_are_published_each_as_it_was(world):
    sent = [
        Bar("bar.binance.BTCUSDT", exchange_sequence=1),
        ladder(2, 1),
        wire.Ticker("ticker.binance.BTCUSDT", bid=5.0),
        ladder(0, 0),
        ladder(256, 256),
        Rung("rung.binance.ETHUSDT", value=2.0),
    ]
    world.bring(*sent)
    for outlet in (world.each, world.batches):
        found = published(outlet)
        assert [(r.topic.split(".")[0], r.sequence) for r in found] == [
            ("bar", 1), ("ladder", 1), ("ticker", 1), ("ladder", 2), ("ladder", 3), ("rung", 1),
        ]  # fmt: skip
        bodies = [wire.pack(r)[wire.HEADER_SIZE :] for r in found]
        assert bodies == [wire.pack(r)[wire.HEADER_SIZE :] for r in sent]
        assert all(r.publish_ns == EPOCH_NS for r in found)
    kinds_of = [{record.kind for record in map(wire.unpack, wire.split(m))} for m in world.batches.sent]
    assert kinds_of == [{201}, {202}, {wire.TICKER}, {202}, {203}], (
        "as they came, of one kind in each message"
    )
    assert world.merger.malformed == 0


@pytest.mark.parametrize("last", [BAR, LADDER])
def test_who_takes_one_kind_at_the_batch_endpoint_gets_each_record_of_it(tmp_path, last):
    """ZeroMQ filters a message by its beginning, at the subscriber as well."""
    sockets, world = SocketWorld(tmp_path), World(tmp_path / "recent.board")
    try:
        batches = sockets.outlet(is_batched=True)
        got = {name: sockets.subscriber(f"{name}.".encode()) for name in ("ticker", "bar", "ladder")}
        sockets.until(lambda: batches.is_wanted)
        sockets.settle()
        made = Bar("bar.binance.BTCUSDT") if last is BAR else ladder(1, 1)
        for _ in range(100):
            world.bring(Bar("bar.binance.BTCUSDT"), wire.Ticker("ticker.binance.BTCUSDT"), ladder(2, 1), made)
        for topic, message in zip(world.batches.topics, world.batches.sent, strict=True):
            batches.send(topic, message)
        batches.flush()
        for name, sock in got.items():
            parts = [wire.unpack(part) for message in sockets.drain(sock) for part in wire.split(message)]
            numbers = [record.sequence for record in parts]
            assert numbers == list(range(1, 201 if name == last.name else 101))
            assert {record.topic for record in parts} == {f"{name}.binance.BTC/USDT"}
    finally:
        sockets.close()


def test_a_topic_that_is_new_while_last_values_are_looked_for_is_among_them(world, monkeypatch):
    looked, under = [], world.reader.under

    def late(prefix):
        """The merger adds topics just after they were looked at."""
        if not looked:
            looked.append(prefix)
            world.bring(Rung("rung.binance.BTCUSDT"), wire.Ticker("ticker.binance.BTCUSDT"))
        return under(prefix)

    monkeypatch.setattr(world.reader, "under", late)
    _, records = world.ask(topics=["rung.", "ticker."])
    assert sorted(record.kind for record in records) == [wire.TICKER, 203]


@pytest.mark.parametrize(("takes_latest", "kept"), [(True, [203, 201]), (False, [201])])
def test_what_is_missing_is_asked_for_by_what_its_kind_keeps(takes_latest, kept):
    asked = []
    recovery = Recovery(Follower(asked.append), asked.append, lambda: 0, takes_latest=takes_latest)
    recovery.is_connected = True
    document = wire.Document("status.binance", kind=wire.STATUS, session=1, sequence=9)
    for record in (Rung("rung.a.b", session=1, sequence=9), Bar("bar.a.b", session=1, sequence=9), document):
        if recovery.on_gap(record, 5):
            asked.append(record.kind)
    assert asked == kept


@pytest.mark.parametrize("cut", [1, 15, 16, 40])
def test_what_is_cut_short_or_larger_than_its_kind_may_be_is_malformed(world, cut):
    world.merger.on_message(wire.pack(ladder(1, 1)) + wire.pack(ladder(1, 1))[:-cut])
    assert [r.sequence for r in published(world.each)] == [1]
    larger = bytearray(wire.pack(ladder(256, 256)) + bytes(16))
    raw.put_u16(larger, LADDER.layout.offset("asks"), 257)
    world.merger.on_message(bytes(larger))
    assert [r.sequence for r in published(world.each)] == [1]
    assert world.merger.malformed == 2


def test_a_feed_sends_each_record_of_any_size_alone_to_those_that_are_connected_directly():
    hop, direct = Outlet(), Outlet()
    batch = Batch(hop, direct, lambda: EPOCH_NS)
    expected = []
    for kind, made in (
        (LADDER, ladder(3, 3)),
        (BAR, Bar("")),
        (LADDER, ladder(256, 256)),
        (LADDER, ladder(0, 0)),
    ):
        state = RecordState(kind, (), topic=f"{kind.name}.binance.BTCUSDT", native="BTCUSDT")
        state.put(made)
        state.on_news(EPOCH_NS)
        batch.emit(state)
        expected.append(len(wire.pack(made)))
    batch.flush()
    assert [len(message) for message in direct.sent] == expected
    assert [len(part) for message in hop.sent for part in wire.split(message)] == expected
    assert all(isinstance(wire.unpack(message), Ladder | Bar) for message in direct.sent)


def test_the_newest_record_of_a_latest_kind_of_any_size_is_repeated_as_it_is():
    latest = Description(LADDER.code, "ladder", "a test", Retention.LATEST, Ladder, LADDER.layout)
    hop = Outlet()
    batch = Batch(hop, Outlet(), lambda: EPOCH_NS)
    state = RecordState(latest, (), topic="ladder.binance.BTCUSDT", native="BTCUSDT")
    for made in (ladder(0, 0), ladder(3, 4), ladder(256, 256)):
        state.put(made)
        state.on_news(EPOCH_NS)
        batch.emit(state)
        record = state.record()
        hop.sent.clear()
        batch.repeat([record])
        body = wire.pack(made)[wire.HEADER_SIZE :]
        assert [message[wire.HEADER_SIZE :] for message in hop.sent[-1:]] == [body]
        for other in (record[:-1], record[: wire.HEADER_SIZE], record + bytes(16)):
            with pytest.raises(ValueError, match="one record"):
                batch.repeat([other])


class Subscriber:
    """A subscriber that asks for what it misses."""

    def __init__(self, world):
        self.world = world
        self.out = []
        self.follower = Follower(self.out.append)
        self.recovery = Recovery(self.follower, self.out.append, lambda: 0, takes_latest=False)
        self.recovery.is_connected = True
        self.follower.on_gap = self.recovery.on_gap

    def recover(self):
        while (request := self.recovery.request()) is not None:
            answer = retransmission.answer(request, self.world.reader, {})
            self.recovery.on_answer(answer.frames)


@pytest.mark.parametrize("seed", seeds(20))
def test_each_record_of_any_size_comes_once_and_in_order_whatever_is_lost(seed, world):
    rng = random.Random(seed)
    subscriber, backlog, bridged = Subscriber(world), Backlog(), []
    number = 0
    for turn in range(60):
        records = []
        for _ in range(rng.randrange(1, 4)):
            number += 1
            symbol, flags = rng.choice(("BTCUSDT", "ETHUSDT")), rng.choice((0, wire.LAST, wire.RECOVERED))
            made = Bar("") if rng.random() < 0.4 else ladder(rng.choice((0, 1, 9)), rng.randrange(20))
            made.topic = f"{'bar' if made.kind == 201 else 'ladder'}.binance.{symbol}"
            made.exchange_sequence, made.flags = number, flags
            records.append(made)
        before = len(world.each.sent), len(world.batches.sent)
        world.bring(*records)
        for message in world.each.sent[before[0] :]:
            if turn in (0, 59) or rng.random() < 0.7:
                subscriber.follower.take(message)
        for message in world.batches.sent[before[1] :]:
            backlog.take(message)
        while chunk := backlog.take_chunk():
            bridged += [wire.unpack(record) for record in chunk]
        if rng.random() < 0.6:
            subscriber.recover()
    for topic in ("bar", "ladder"):  # a last one of each, so that nothing is missing behind the newest
        for symbol in ("BTCUSDT", "ETHUSDT"):
            made = Bar("") if topic == "bar" else ladder(0, 1)
            made.topic = f"{topic}.binance.{symbol}"
            world.bring(made)
            subscriber.follower.take(world.each.sent[-1])
    subscriber.recover()
    expected = published(world.each)
    assert not subscriber.recovery.is_recovering
    for topic in {r.topic for r in expected}:
        mine = [r for r in expected if r.topic == topic]
        got = [r for r in subscriber.out if r.topic == topic]
        assert got == mine[len(mine) - len(got) :], "with their flags, too"
        assert got[0].sequence == subscriber.out[[r.topic for r in subscriber.out].index(topic)].sequence
        assert subscriber.follower.losses[topic].lost == 0
    assert bridged == expected[: len(bridged)]


def test_flags_of_the_feed_arrive_live_and_recovered(world):
    flags = wire.LAST | wire.RECOVERED | wire.INVALID | wire.SNAPSHOT
    world.bring(ladder(1, 1, flags=flags), Bar("bar.binance.BTCUSDT", flags=wire.RECOVERED))
    assert [int(r.flags) for r in published(world.each)] == [flags, wire.RECOVERED]
    _, (one,) = world.ask(missing=[retransmission.Missing("ladder.binance.BTC/USDT", 1, 1)])
    _, (two,) = world.ask(missing=[retransmission.Missing("bar.binance.BTC/USDT", 1, 1)])
    assert (int(one.flags), int(two.flags)) == (flags, wire.RECOVERED)
    assert [one, two] == published(world.each)


def test_an_answer_has_at_most_so_many_bytes_and_the_rest_is_asked_for_again(tmp_path):
    world = World(tmp_path / "recent.board", recent=100)
    for _ in range(60):
        world.bring(ladder(0, 512))
    topic = "ladder.binance.BTC/USDT"
    missing, found = [retransmission.Missing(topic, 1, 60)], []
    while missing:
        head, records = world.ask(missing=missing)
        assert 0 < sum(len(wire.pack(r)) for r in records) <= retransmission.SIZE_MAX
        found[:0] = records
        missing = head.rest
    kept = board_layout.ring_size(101) // LADDER.size_max
    assert [r.sequence for r in found] == list(range(61 - len(found), 61))
    assert len(found) >= kept - 1
    assert head.lost == [retransmission.Missing(topic, 1, 60 - len(found))]


def test_last_values_of_a_kind_smaller_than_a_ticker_are_had_as_they_are_also_when_it_is_down(world):
    world.bring(Rung("rung.binance.BTCUSDT", value=2.0))
    world.merger.on_stop()
    _, (record,) = world.ask(topics=["rung."])
    assert (record.value, record.sequence, str(record.flags)) == (2.0, 2, "SNAPSHOT|DOWN")


def test_there_is_no_ring_where_no_kind_needs_one(tmp_path, monkeypatch):
    path = tmp_path / "recent.board"
    RecentWriter(path, 4, session=1)
    assert ring_path(path).exists()
    for kind in list(kinds.BY_CODE.values()):
        if kind.size_max > wire.TICKER_SIZE:
            monkeypatch.delitem(kinds.BY_CODE, kind.code)
    RecentWriter(path, 4, session=2)
    assert not ring_path(path).exists()
    assert RecentReader(path).session == 2


def test_a_ring_of_another_merger_is_not_taken_for_this_one(tmp_path):
    path = tmp_path / "recent.board"
    RecentWriter(path, 4, session=1)
    RecentWriter(tmp_path / "other.board", 4, session=2)
    ring_path(tmp_path / "other.board").rename(ring_path(path))
    with pytest.raises(DecodeError, match="another merger"):
        RecentReader(path)


@pytest.mark.parametrize("flags", [wire.SNAPSHOT, wire.STALE, wire.DOWN, wire.INVALID])
def test_how_long_a_record_took_that_is_not_live_is_no_latency(world, flags):
    (feed,) = world.merger.exchanges["binance"].feeds.values()
    times = {"recv_ns": EPOCH_NS - 2000, "publish_ns": EPOCH_NS - 1000}
    world.bring(ladder(1, 1, flags=flags, **times))
    assert feed.traffic.latencies == []
    world.bring(ladder(1, 1, **times))
    assert feed.traffic.latencies == [(1000, 1000)]


def test_a_kind_that_is_not_wanted_any_more_is_down_though_its_symbol_is(world):
    world.bring(Rung("rung.binance.BTCUSDT"), wire.Ticker("ticker.binance.BTCUSDT"))
    world.each.sent.clear()
    # Records were lost: what is not wanted may have been flagged in them.
    world.status(hop_records=9, wanted={"BTC/USDT": ["ticker"]})
    flagged = [(r.topic, str(r.flags)) for r in published(world.each) if not isinstance(r, wire.Document)]
    assert flagged == [("rung.binance.BTC/USDT", "DOWN")]
