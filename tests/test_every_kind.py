"""A kind that keeps every record, and that exists in this test alone, from an exchange's frames to subscribers.

Nothing is repeated, nothing is replayed as if it were new, and STALE and DOWN are told without a copy of a record.
"""

import asyncio
import json
import random
from typing import Annotated

import msgspec
import pytest
import uvloop
from registering import registered
from seeds import seeds

from feedhandler.bridge.backlog import Backlog
from feedhandler.client.recovery import Recovery
from feedhandler.data import header, retransmission, wire
from feedhandler.data.connecting import ConnectBudget, Policy
from feedhandler.data.contracts import Fanout
from feedhandler.data.errors import DecodeError
from feedhandler.data.instruments import Instrument, instrument_list
from feedhandler.data.layout import Description, Retention, f64, layout, u64
from feedhandler.data.shard import WHOLE
from feedhandler.data.status import FEED_HEARTBEAT_NS, FeedStatus, Phase
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.base import Endpoint
from feedhandler.feed.batch import Batch
from feedhandler.feed.freshness import SILENCE_NS_MIN
from feedhandler.feed.legs import Legs
from feedhandler.feed.publisher import Publisher
from feedhandler.feed.subscriptions import REJECTION_HOLDS_NS
from feedhandler.feed.universe import Universe
from feedhandler.merger.merge import FEED_SILENCE_NS, TICK_NS, Merger
from feedhandler.runtime import config
from feedhandler.transport import private
from feedhandler.transport.boards import BoardReader, BoardWriter
from feedhandler.transport.follower import Follower
from feedhandler.transport.subscribing import Join, Subscriptions

CODE = 200
EPOCH_NS = 1_790_000_000_000_000_000
NS_PER_S = 1_000_000_000
BTC = "print.binance.BTC/USDT"
NATIVES = ("BTCUSDT", "ETHUSDT")
SYMBOLS = ("BTC/USDT", "ETH/USDT")
FIRST = 1_000_000  # before any number of the exchange's


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
def kind():
    """Register the kind: what a file and a line of the registry are otherwise."""
    with registered(PRINT):
        yield


class Outlet(Fanout):
    def __init__(self):
        self.is_wanted = True
        self.sent = []

    def send(self, *message):
        """Take topic and message, of the hop the message alone."""
        self.sent.append(bytes(message[-1]))

    def flush(self):
        pass


class Printing(EXCHANGES["bybit"].main):
    """A market that sends prints besides, several in a frame and of several symbols, and repeats nothing."""

    exchange = "binance"
    kinds = ("ticker", "print")
    repeats_s = {}
    canary = ""

    def topics(self, native, kind):
        return (f"print.{native}",) if kind == "print" else super().topics(native, kind)

    def decode(self, payload, recv_ns, line, emit):
        frame = json.loads(payload)
        if "prints" not in frame:
            return super().decode(payload, recv_ns, line, emit)
        bad = 0
        for native, number, price in frame["prints"]:
            state = self.states["print"].get(native)
            if price is None:
                bad += 1
            elif state is not None and state.accept(0, line, number, recv_ns):
                state.put(Print("", exchange_sequence=number, price=price))
                state.on_news(recv_ns)
                emit(state)
        if bad:
            raise DecodeError(f"{bad} rows cannot be read")
        return None


class World:
    """An exchange, a feed of two legs, a merger with its file of recent records, and what subscribers are sent."""

    def __init__(self, path, legs=2):
        self.mono = NS_PER_S
        self.hop, self.direct = Outlet(), Outlet()
        self.batch = Batch(self.hop, self.direct, self.clock)
        self.each, self.batches = Outlet(), Outlet()
        self.ring = BoardWriter(path, depth=64, slots_max=9, session=100)
        self.merger = self.make_merger()
        self.board = BoardReader(path)
        pairs = {"BTCUSDT": ("BTC", "USDT"), "ETHUSDT": ("ETH", "USDT")}
        self.listing = instrument_list("binance", 1, [Instrument(n, b, q) for n, (b, q) in pairs.items()])
        self.market = Printing()
        self.legs_count = legs
        self.universe = Universe([self.market], self.make_legs, header.SIMULATED)
        self.links = {}  # session → the topics that are subscribed to, None while it is not connected
        self.numbers = dict.fromkeys(NATIVES, FIRST)
        self.sent = {native: [] for native in NATIVES}  # prints that came on some connection
        self.behind_ns = {}  # leg → how long its frames are under way,
        self.under_way = []  # and those that are: when they come, to which connection, with which rows
        self.is_reachable = True
        self.refused = set()  # topics
        self.replays = False  # the newest prints to whoever subscribes
        self.document(wire.INSTRUMENTS, msgspec.json.encode(self.listing))
        self.status()
        self.want({symbol: ["ticker", "print"] for symbol in SYMBOLS})
        self.run(NS_PER_S)
        self.direct.sent.clear()

    def make_merger(self):
        return Merger(
            {"binance": 1},
            self.each,
            self.batches,
            self.clock,
            session=100,
            pid=1,
            now_mono_ns=self.mono,
            ring=self.ring,
        )

    def make_legs(self, market, states):
        return Legs(
            market,
            states,
            self.batch.emit,
            count=self.legs_count,
            policy=Policy(backoff_min_s=0.1, backoff_max_s=0.2, max_attempts=0),
            budget=ConnectBudget(1000, 1.0),
            rng=random.Random(1),
        )

    def clock(self):
        return EPOCH_NS + self.mono

    # --- the feed, and the exchange's side of its connections

    def want(self, wanted):
        self.apply(self.universe.reconcile(self.listing.table(), wanted, self.clock()))
        for state in self.universe.states:
            state.session = 7

    def apply(self, change):
        self.links.update(dict.fromkeys(change.run))
        for session in change.stop:
            del self.links[session]

    def run(self, ns):
        """Let time pass for everybody."""
        end = self.mono + ns
        while self.mono < end:
            self.mono += TICK_NS
            self.arrive()
            for session in list(self.links):
                if self.mono >= session.deadline_mono_ns:
                    self.step(session)
            for change in self.universe.advance(self.mono):
                self.apply(change)
            self.deliver()
            if self.mono % FEED_HEARTBEAT_NS < TICK_NS:
                self.status()
            self.merger.on_tick(self.mono)

    def step(self, session):
        actions = session.advance(self.mono)
        if actions.connect and not self.is_reachable:
            session.on_closed(self.mono, "unreachable")
        elif actions.connect:
            self.links[session] = set()
            session.on_endpoint(Endpoint("ws://x"))
            session.on_open(self.mono)
            self.step(session)
        for message in actions.send:
            self.answer(session, json.loads(message))
        if actions.close:
            self.cut(session)

    def answer(self, session, request):
        if request["op"] == "ping":
            self.post(session, {"op": "pong"})
            return
        change = set.update if request["op"] == "subscribe" else set.difference_update
        if request["op"] == "subscribe" and self.refused & {*request["args"]}:
            self.post(
                session, {"success": False, "ret_msg": "no", "req_id": request["req_id"], "op": "subscribe"}
            )
            return
        change(self.links[session], request["args"])
        self.post(session, {"success": True, "req_id": request["req_id"], "op": request["op"]})
        rows = [
            [native, number, float(number)]
            for native in NATIVES
            if f"print.{native}" in request["args"] and request["op"] == "subscribe" and self.replays
            for number in range(max(FIRST + 1, self.numbers[native] - 2), self.numbers[native] + 1)
        ]
        if rows:
            self.receive(session, rows)

    def post(self, session, frame):
        if session.on_frame(json.dumps(frame).encode(), self.clock()):
            self.step(session)

    def receive(self, session, rows):
        for native, number, price in rows:
            if price is not None and number not in self.sent[native]:
                self.sent[native].append(number)
        self.post(session, {"topic": f"print.{rows[0][0]}", "prints": rows})

    def arrive(self):
        """Frames come that were under way until now, on connections that still are."""
        due = [frame for frame in self.under_way if frame[0] <= self.mono]
        self.under_way = [frame for frame in self.under_way if frame[0] > self.mono]
        for _, session, connects, rows in due:
            if self.links.get(session) is not None and session.connects == connects:
                self.receive(session, rows)

    def cut(self, session):
        self.links[session] = None
        session.on_closed(self.mono, "cut")

    def frame(self, *natives, legs=(0, 1)):
        """The exchange sends some prints in one frame, on these legs."""
        rows = []
        for native in natives:
            self.numbers[native] += 1
            rows.append([native, self.numbers[native], float(self.numbers[native] - FIRST)])
        for session, topics in self.links.items():
            wanted = [row for row in rows if topics and f"print.{row[0]}" in topics]
            if session.leg in legs and wanted:
                due = self.mono + self.behind_ns.get(session.leg, 0)
                self.under_way.append((due, session, session.connects, wanted))
        self.arrive()

    def garble(self, native):
        for session in self.links:
            self.post(session, {"topic": f"print.{native}", "prints": [[native, 1, None]]})

    def ticker(self, native):
        """A ticker that changes nothing in particular."""
        state = self.market.tickers[native]
        state.bid = 1.0
        state.on_news(self.clock())
        self.batch.emit(state)

    def condition(self, native, flags):
        """What the feed decides about a topic is emitted as it is."""
        state = self.market.states["print"][native]
        state.flags = state.base_flags | flags
        self.batch.emit(state)

    # --- the merger

    def document(self, kind, body):
        document = wire.Document(wire.topic(kind, "binance"), kind=kind, body=body)
        self.merger.on_message(wire.pack_document(document))

    def status(self, **more):
        status = FeedStatus(
            exchange="binance", pid=7, started_ns=0, state="live", hop_records=self.batch.records, **more
        )
        self.document(wire.STATUS, msgspec.json.encode(status))

    def deliver(self):
        self.batch.flush()
        sent, self.hop.sent = self.hop.sent, []
        for message in sent:
            self.merger.on_message(message)

    def tick(self, ns):
        """Let time pass for the merger: the feed's process hangs."""
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
    (feed,) = world.merger.exchanges["binance"].feeds.values()
    before = feed.traffic.records
    world.frame("BTCUSDT", "ETHUSDT", "BTCUSDT")
    world.ticker("BTCUSDT")
    world.frame("BTCUSDT")
    world.deliver()
    expected = [(BTC, 1), ("print.binance.ETH/USDT", 1), (BTC, 2), ("ticker.binance.BTC/USDT", 1), (BTC, 3)]
    for outlet in (world.each, world.batches):
        assert [(r.topic, r.sequence) for r in world.published(outlet)] == expected
    assert [r.price for r in world.published() if isinstance(r, Print)] == [1.0, 1.0, 2.0, 3.0]
    world.status()
    assert (feed.traffic.records - before, feed.hop_lost) == (5, 0)


def test_direct_subscribers_get_each_record_alone(world):
    world.frame("BTCUSDT")
    world.ticker("BTCUSDT")
    world.condition("BTCUSDT", header.STALE)
    world.batch.flush()
    assert [len(message) for message in world.direct.sent] == [PRINT.size, wire.TICKER_SIZE, wire.HEADER_SIZE]


def test_who_joins_late_gets_no_record_again_but_the_condition(world):
    world.frame("BTCUSDT")
    world.deliver()
    topic, other = world.merger.topics(b"print.")
    assert [*map(world.merger.last, (topic, other))] == [None, None]
    world.condition("BTCUSDT", header.STALE)
    world.deliver()
    assert world.merger.last(other) is None
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
    other = "print.binance.ETH/USDT"
    assert numbers(world.published(), other) == [(0, "DOWN|SIMULATED")], "it has had no print yet"
    assert isinstance(world.published()[-1], wire.Condition)
    world.tick(5 * NS_PER_S)
    assert len(world.published()) == 4, "once"
    world.status()
    assert numbers(world.published())[3:] == [(2, "SIMULATED")]
    world.frame("BTCUSDT")
    world.deliver()
    assert numbers(world.published())[4:] == [(3, "SIMULATED")]
    assert world.published()[-1].price == 3.0


def test_what_the_hop_has_lost_is_told_at_each_topic_whose_records_count(world):
    wanted = {"BTC/USDT": ["ticker", "print"], "ETH/USDT": ["print"]}
    world.status(wanted=wanted)
    world.frame("BTCUSDT", "ETHUSDT")
    world.deliver()
    world.frame("BTCUSDT")
    world.batch.flush()
    world.hop.sent.clear()
    world.status(wanted=wanted)
    assert numbers(world.published())[1:] == [(1, "STALE|SIMULATED")]
    assert numbers(world.published(), "print.binance.ETH/USDT")[1:] == [(1, "STALE|SIMULATED")]
    world.condition("BTCUSDT", 0)
    world.deliver()
    assert numbers(world.published())[2:] == [(1, "SIMULATED")]


# --- what the feed decides


def prints(world, topic=BTC):
    return [
        (r.sequence, r.exchange_sequence - FIRST)
        for r in world.published()
        if r.topic == topic and r.kind == CODE
    ]


def conditions(world, topic=BTC):
    found = [record for record in world.published() if record.topic == topic]
    return [(r.sequence, str(r.flags)) for r in found if isinstance(r, wire.Condition)]


def test_of_two_legs_each_print_counts_once_whichever_brings_it(world):
    world.frame("BTCUSDT", "ETHUSDT", "BTCUSDT")
    world.frame("BTCUSDT", legs=(1,))
    world.frame("BTCUSDT", legs=(0,))
    world.frame("BTCUSDT")
    world.deliver()
    assert prints(world) == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]
    assert [session.line.duplicate + session.line.late for session in world.links] == [0, 4]


def test_of_a_frame_the_rows_that_can_be_read_are_taken_and_the_error_is_counted(world):
    (session, _) = world.links
    world.receive(
        session, [["BTCUSDT", FIRST + 1, 1.0], ["BTCUSDT", FIRST + 2, None], ["ETHUSDT", FIRST + 3, 3.0]]
    )
    world.deliver()
    assert prints(world) == [(1, 1)]
    assert prints(world, "print.binance.ETH/USDT") == [(1, 3)]
    assert session.decode_errors == 1
    assert session.undecodable["print, channel 0"].count == 1


def test_what_no_record_can_hold_is_an_error_of_its_frame_and_costs_no_other_topic_its_condition(world):
    (session, _) = world.links
    world.frame(*NATIVES)
    world.receive(session, [["BTCUSDT", FIRST + 2, 10**400]])
    assert session.decode_errors == 1
    for other in list(world.links):
        world.cut(other)
    world.deliver()
    assert [conditions(world, f"print.binance.{symbol}") for symbol in SYMBOLS] == [
        [(1, "DOWN|SIMULATED")]
    ] * 2
    assert prints(world) == [(1, 1)]


def test_a_lost_connection_is_a_condition_and_what_is_replayed_afterwards_is_nothing_new(world):
    world.replays = True
    world.frame("BTCUSDT", "BTCUSDT")
    world.run(NS_PER_S)
    for session in list(world.links):
        world.cut(session)
    world.deliver()
    assert conditions(world) == [(2, "DOWN|SIMULATED")]
    assert conditions(world, "print.binance.ETH/USDT") == [(0, "DOWN|SIMULATED")]
    world.numbers["BTCUSDT"] += 1  # nobody was there
    world.run(2 * NS_PER_S)
    assert prints(world) == [(1, 1), (2, 2), (3, 3)], (
        "the one that was missed comes by the replay, the others not again"
    )
    assert all(state.flags == header.SIMULATED for state in world.market.states["print"].values())
    assert conditions(world, "print.binance.ETH/USDT")[1:] == [(0, "SIMULATED")], (
        "well, though nothing was sent"
    )


def test_a_quiet_topic_is_well_again_as_soon_as_it_is_subscribed_to_again(world):
    world.frame("BTCUSDT")
    world.is_reachable = False
    for session in list(world.links):
        world.cut(session)
    world.run(3 * NS_PER_S)
    assert conditions(world) == [(1, "DOWN|SIMULATED")], "once, however often a connection fails"
    world.is_reachable = True
    world.run(2 * NS_PER_S)
    assert conditions(world) == [(1, "DOWN|SIMULATED"), (1, "SIMULATED")]
    assert prints(world) == [(1, 1)]


def test_the_loss_of_one_leg_is_no_condition(world):
    world.frame("BTCUSDT")
    for _ in range(3):
        for session in list(world.links):
            world.run(2 * NS_PER_S)
            world.cut(session)
            world.frame("BTCUSDT")
    world.run(NS_PER_S)
    assert conditions(world) == []
    assert prints(world) == [(n, n) for n in range(1, 8)]


def test_what_a_leg_that_is_behind_still_brings_is_not_lost_when_another_has_just_connected(world):
    world.frame("BTCUSDT")
    first, second = world.links
    world.cut(first)
    world.run(NS_PER_S)
    world.behind_ns = {second.leg: 5 * TICK_NS}
    world.links[first].discard("print.BTCUSDT")  # not yet, at the exchange
    world.frame("BTCUSDT")
    world.links[first].add("print.BTCUSDT")
    world.frame("BTCUSDT")
    world.deliver()
    assert prints(world) == [(1, 1), (2, 3)]
    world.run(10 * TICK_NS)
    assert prints(world) == [(1, 1), (2, 3), (3, 2)]
    assert (second.line.duplicate, second.line.late) == (2, 0), "the first, and the third"
    world.frame("BTCUSDT")
    world.run(10 * TICK_NS)
    assert prints(world)[3:] == [(4, 4)]
    assert conditions(world) == []


@pytest.mark.parametrize("seed", seeds(10))
def test_nothing_that_a_steady_leg_brings_is_lost_or_comes_twice_however_far_it_is_behind(seed, tmp_path):
    rng = random.Random(seed)
    world = World(tmp_path / "x.board", legs=3)
    world.frame(*NATIVES)
    world.run(NS_PER_S)
    world.behind_ns = {0: rng.randrange(20) * TICK_NS, 1: rng.randrange(5) * TICK_NS}
    for _ in range(200):
        world.frame(*rng.choices(NATIVES, k=rng.choice((1, 2, 7))))
        world.run(rng.choice((1, 2, 5, 20)) * TICK_NS)
        running = [session for session in world.links if session.leg and session.phase is Phase.RUNNING]
        if running and rng.random() < 0.2:
            world.cut(rng.choice(running))
    world.run(NS_PER_S)
    for native, symbol in zip(NATIVES, SYMBOLS, strict=True):
        found = [number + FIRST for _, number in prints(world, f"print.binance.{symbol}")]
        assert sorted(found) == list(range(FIRST + 1, world.numbers[native] + 1))


@pytest.mark.long
def test_silence_is_no_condition_however_busy_it_was(world):
    for _ in range(60):
        world.frame("BTCUSDT")
        world.run(NS_PER_S // 2)
    world.ticker("BTCUSDT")
    for _ in range(600):
        world.run(NS_PER_S)
    assert conditions(world) == []
    assert not any(topic.startswith("print.") for topic in world.universe.stale())


def test_what_cannot_be_decoded_is_stale_until_a_print_comes_that_can(world):
    world.frame("BTCUSDT", "ETHUSDT")
    for _ in range(2 * SILENCE_NS_MIN // NS_PER_S):
        world.garble("BTCUSDT")
        world.run(NS_PER_S)
    assert conditions(world) == [(1, "STALE|SIMULATED")]
    assert "cannot be decoded" in world.universe.stale()["print.BTCUSDT"]
    world.frame("BTCUSDT")
    world.run(2 * NS_PER_S)
    assert conditions(world) == [(1, "STALE|SIMULATED")], "the print has ended it"
    assert prints(world) == [(1, 1), (2, 2)]
    assert world.published()[-1].flags == header.SIMULATED
    assert world.universe.stale() == {}
    assert conditions(world, "print.binance.ETH/USDT") == []


def test_a_leg_that_lacks_prints_that_another_has_is_renewed(world):
    _, second = world.links
    world.links[second].discard("print.BTCUSDT")
    for _ in range(20):
        world.frame("BTCUSDT")
        world.run(NS_PER_S)
    assert "print.BTCUSDT" in world.links[second], "it was subscribed to anew"
    assert "print.ETHUSDT" in world.links[second]
    assert conditions(world) == []


def test_a_topic_that_is_refused_later_is_stale_where_no_other_leg_has_it_until_it_is_had_again(world):
    world.frame(*NATIVES)
    world.run(NS_PER_S)
    world.refused = {"print.BTCUSDT"}
    for session in list(world.links):
        assert conditions(world) == []
        session.subscriptions.renew(["print.BTCUSDT"])
        world.run(NS_PER_S)
    assert conditions(world) == [(1, "STALE|SIMULATED")], "though no connection has changed"
    world.refused = set()
    (first, _) = world.links
    world.cut(first)
    world.mono += REJECTION_HOLDS_NS
    world.status()
    world.run(5 * NS_PER_S)
    assert conditions(world)[-1] == (1, "SIMULATED")
    world.frame("BTCUSDT")
    world.deliver()
    assert prints(world) == [(1, 1), (2, 2)]
    assert conditions(world, "print.binance.ETH/USDT").count((1, "STALE|SIMULATED")) == 0


def test_kinds_come_and_go_and_leave_the_others_of_their_symbol_alone(world):
    sessions = list(world.links)
    held = {session: set(topics) for session, topics in world.links.items()}
    ticker = world.market.tickers["BTCUSDT"]
    world.frame("BTCUSDT")
    world.want({"BTC/USDT": ["ticker"], "ETH/USDT": ["print"]})
    world.run(NS_PER_S)
    assert list(world.links) == sessions
    assert world.market.tickers == {"BTCUSDT": ticker}
    gone = {"print.BTCUSDT", "tickers.ETHUSDT", "orderbook.1.ETHUSDT"}
    assert [held[session] - topics for session, topics in world.links.items()] == [gone, gone]
    assert conditions(world) == [(1, "DOWN|SIMULATED")], "nobody wants it any more"
    world.frame("BTCUSDT", "ETHUSDT")
    world.want({symbol: ["print", "ticker"] for symbol in SYMBOLS})
    world.run(NS_PER_S)
    assert list(world.links) == sessions
    assert list(world.links.values()) == list(held.values())
    assert conditions(world) == [(1, "DOWN|SIMULATED"), (1, "SIMULATED")]
    world.frame("BTCUSDT")
    world.deliver()
    assert prints(world) == [(1, 1), (2, 3)]


def test_kinds_of_one_symbol_are_cut_into_connections_by_the_number_of_their_topics(world):
    states = [state for kind in ("print", "ticker") for state in world.market.states[kind].values()]
    world.market.topics_max = 3
    runs = EXCHANGES["binance"].main.connections(world.market, states)
    assert [[(state.native, state.kind) for state in run] for run in runs] == [
        [("BTCUSDT", "print"), ("ETHUSDT", "print")],
        [("BTCUSDT", "ticker")],
        [("ETHUSDT", "ticker")],
    ]


def test_two_kinds_of_one_topic_are_subscribed_to_once_and_left_by_the_last(world):
    def topics(native, kind):
        return (f"print.{native}",) if kind == "print" else (f"print.{native}", f"orderbook.1.{native}")

    world.want({})
    world.run(NS_PER_S)
    world.market.topics = topics
    both = {"print.BTCUSDT", "orderbook.1.BTCUSDT"}
    world.want({"BTC/USDT": ["ticker", "print"]})
    world.run(NS_PER_S)
    (session, _) = world.links
    assert session.subscriptions.topic_count == 2
    assert list(world.links.values()) == [both] * 2
    world.want({"BTC/USDT": ["print"]})
    world.run(NS_PER_S)
    assert list(world.links.values()) == [{"print.BTCUSDT"}] * 2
    world.frame("BTCUSDT")
    world.deliver()
    assert prints(world) == [(1, 1)]
    world.want({"BTC/USDT": ["print", "ticker"]})
    world.want({"BTC/USDT": ["ticker"]})
    world.run(NS_PER_S)
    assert list(world.links.values()) == [both] * 2
    assert session.subscriptions.topic_count == 2


def test_a_merger_that_joins_is_given_conditions_and_no_record(world):
    world.frame("BTCUSDT", "BTCUSDT")
    world.deliver()
    world.each.sent.clear()
    world.merger = world.make_merger()
    world.document(wire.INSTRUMENTS, msgspec.json.encode(world.listing))
    world.status()
    known = [state for state in world.universe.states if state.is_known]
    world.batch.repeat(state.record() for state in known)
    world.deliver()
    assert prints(world) == conditions(world) == [], "there is none"
    world.condition("BTCUSDT", header.STALE)
    world.deliver()
    assert conditions(world) == [(0, "STALE|SIMULATED")]
    world.frame("BTCUSDT")
    world.deliver()
    assert prints(world) == [(1, 3)]


def test_direct_subscribers_that_join_are_given_conditions_and_no_record(world, tmp_path):
    async def play():
        settings = config.parse(f'run_dir = "{tmp_path}"\n[exchanges.binance]\n', "test.toml")
        loop = asyncio.get_running_loop()
        publisher = Publisher(loop, settings, "binance", [world.market], WHOLE, lambda: None, private.NOBODY)
        found = []
        for act in (
            lambda: None,
            lambda: world.frame("BTCUSDT"),
            lambda: world.condition("BTCUSDT", header.STALE),
        ):
            act()
            found.append([publisher.last(topic) for topic in publisher.topics(b"print.")])
        publisher.close()
        return found

    found = [[wire.unpack(bytes(record)) for record in records] for records in uvloop.run(play())]
    assert {type(record) for records in found for record in records} == {wire.Condition}
    assert [[(r.symbol, r.sequence, str(r.flags)) for r in records] for records in found] == [
        [("BTCUSDT", 0, "SNAPSHOT|SIMULATED"), ("ETHUSDT", 0, "SNAPSHOT|SIMULATED")],
        [("BTCUSDT", 1, "SNAPSHOT|SIMULATED"), ("ETHUSDT", 0, "SNAPSHOT|SIMULATED")],
        [("BTCUSDT", 1, "SNAPSHOT|STALE|SIMULATED"), ("ETHUSDT", 0, "SNAPSHOT|SIMULATED")],
    ]


@pytest.mark.parametrize("seed", seeds(20))
def test_whatever_becomes_of_connections_and_wishes_each_print_is_published_once(seed, tmp_path):
    rng = random.Random(seed)
    world = World(tmp_path / "x.board", legs=rng.choice((1, 2, 3)))
    world.replays = rng.random() < 0.5
    wanted = {symbol: ["ticker", "print"] for symbol in SYMBOLS}
    for _ in range(120):
        act = rng.random()
        if act < 0.6:
            world.frame(
                *rng.choices(NATIVES, k=rng.choice((1, 2, 7))),
                legs=rng.sample(range(3), rng.choice((1, 2, 3))),
            )
        elif act < 0.7:
            world.run(rng.choice((TICK_NS, NS_PER_S, 15 * NS_PER_S)))
        elif act < 0.8:
            session = rng.choice(list(world.links))
            if session.phase is Phase.RUNNING:
                world.cut(session)
        elif act < 0.85:
            world.universe.renew("by order")
        elif act < 0.9:
            world.is_reachable = rng.random() < 0.7
        elif act < 0.95:
            wanted[rng.choice(SYMBOLS)] = rng.choice((["ticker"], ["print"], ["ticker", "print"]))
            world.want(wanted)
        else:
            world.garble(rng.choice(NATIVES))
    world.is_reachable = True
    world.want({symbol: ["ticker", "print"] for symbol in SYMBOLS})
    world.run(5 * NS_PER_S)
    world.frame(*NATIVES)
    world.deliver()
    (feed,) = world.merger.exchanges["binance"].feeds.values()
    assert feed.hop_lost == 0
    for native, symbol in zip(NATIVES, SYMBOLS, strict=True):
        topic = f"print.binance.{symbol}"
        records = [record for record in world.published() if record.topic == topic]
        found = [record for record in records if record.kind == CODE]
        assert [record.sequence for record in found] == list(range(1, len(found) + 1))
        numbers = [record.exchange_sequence for record in found]
        assert numbers == sorted(set(numbers)), "none again, none out of order"
        assert numbers[-1] == world.numbers[native]
        assert set(numbers) <= set(world.sent[native])
        sequence = 0
        for record in records:
            sequence = record.sequence if record.kind == CODE else sequence
            assert record.sequence == sequence, "a condition has the number of the print before it"
        assert records[-1].flags == header.SIMULATED
        assert world.merger.last(wire.padded(topic)) is None, "it is well"


# --- what becomes of it behind the merger


class Subscriber:
    """A subscriber that asks for what it misses, as it does by default for such a kind."""

    def __init__(self, world):
        self.world = world
        self.out = []
        self.follower = Follower(self.out.append)
        self.recovery = Recovery(self.follower, self.out.append, lambda: world.mono, takes_latest=False)
        self.recovery.is_connected = True
        self.follower.on_gap = self.recovery.on_gap

    def take(self, message):
        self.follower.take(message)

    def recover(self):
        while (request := self.recovery.request()) is not None:
            self.recovery.on_answer(retransmission.answer(request, self.world.board, {}).frames)
        self.recovery.on_time()


@pytest.mark.parametrize("seed", seeds(30))
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
    world.ticker("BTCUSDT")
    world.deliver()
    outlet = world.batches if is_batched else world.each
    join = Join(Subscriptions(), b"", world.merger.topics(b""), is_batched=is_batched)
    outlet.sent.clear()
    world.frame("BTCUSDT")
    world.ticker("BTCUSDT")
    world.condition("BTCUSDT", header.STALE)
    world.deliver()
    passed = [join.let_through(message[: wire.TOPIC_SIZE], message) for message in outlet.sent]
    records = [wire.unpack(part) for message in passed if message is not None for part in wire.split(message)]
    assert [(record.topic, str(record.flags)) for record in records] == [
        (BTC, "SIMULATED"),
        (BTC, "STALE|SIMULATED"),
    ]
