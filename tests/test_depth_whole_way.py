"""Depth from an exchange's frames to subscribers: legs, conditions, last values, and books that lose a change."""

import itertools
import json
import random

import msgspec
import pytest

from feedhandler.data import wire
from feedhandler.data.connecting import ConnectBudget, Policy
from feedhandler.data.contracts import Fanout
from feedhandler.data.instruments import Instrument, instrument_list
from feedhandler.data.status import FEED_HEARTBEAT_NS, FeedStatus, Phase
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.base import Endpoint
from feedhandler.feed.batch import Batch
from feedhandler.feed.legs import Legs
from feedhandler.feed.universe import Universe
from feedhandler.merger.merge import FEED_SILENCE_NS, TICK_NS, Merger

EPOCH_NS = 1_790_000_000_000_000_000
NS_PER_S = 1_000_000_000
SYMBOLS = ("BTC/USDT", "ETH/USDT")
TOPICS = {
    "binance": "{}@depth20@100ms",
    "kucoin": "/spotMarket/level2Depth50:{}",
    "bybit": "orderbook.50.{}",
    "okx": "books:{}",
}
SPELLINGS = {"binance": "{}USDT", "kucoin": "{}-USDT", "bybit": "{}USDT", "okx": "{}-USDT"}
OF_CHANGES = ("bybit", "okx")  # others send all levels each time


class Outlet(Fanout):
    def __init__(self):
        self.is_wanted = True
        self.sent = []

    def send(self, *message):
        self.sent.append(bytes(message[-1]))

    def flush(self):
        pass


class Book:
    """The exchange's own: what a connection was sent of it is that connection's."""

    def __init__(self, rng):
        self.rng = rng
        self.sides = ({}, {})
        self.id = 1_000_000
        for _ in range(60):
            self.change(4)

    def change(self, count=None):
        """Change some levels; returns them, by side."""
        self.id += self.rng.randint(1, 3)
        changes = ({}, {})
        for _ in range(count or self.rng.choice((1, 2, 8))):
            which = self.rng.randrange(2)
            price = float(self.rng.randint(50, 100) if which == 0 else self.rng.randint(101, 150))
            size = self.rng.choice((0.0, 0.5, 1.0, 2.0))
            self.sides[which].pop(price, None)
            if size:
                self.sides[which][price] = size
            changes[which][price] = size
        return [[list(map(str, level)) for level in side.items()] for side in changes]

    def best(self, count):
        bids, asks = self.sides
        return sorted(bids.items(), reverse=True)[:count], sorted(asks.items())[:count]

    def texts(self, count):
        return [[list(map(str, level)) for level in side] for side in self.best(count)]


class World:
    """An exchange whose books change, a feed, a merger, and what subscribers are sent."""

    def __init__(self, exchange, legs=1, seed=1, kinds=("depth",)):
        self.exchange = exchange
        self.rng = random.Random(seed)
        self.mono = NS_PER_S
        self.hop, self.each = Outlet(), Outlet()
        self.batch = Batch(self.hop, Outlet(), self.clock)
        self.merger = Merger(
            {exchange: 1}, self.each, Outlet(), self.clock, session=100, pid=1, now_mono_ns=self.mono
        )
        self.market = EXCHANGES[exchange].main()
        self.market.canary = ""
        self.natives = {symbol: SPELLINGS[exchange].format(symbol.split("/")[0]) for symbol in SYMBOLS}
        self.books = {native: Book(self.rng) for native in self.natives.values()}
        pairs = [Instrument(native, *symbol.split("/")) for symbol, native in self.natives.items()]
        self.listing = instrument_list(exchange, 1, pairs)
        self.legs = legs
        self.universe = Universe([self.market], self.make_legs, wire.SIMULATED)
        self.sent_at = {}  # (session, native) → when a message of its book was sent
        self.links = {}  # session → topic → what it has been sent of it: ids of the connection's own
        self.requests = []
        self.is_reachable = True
        self.loses = 0.0  # this part of the frames
        self.document(wire.INSTRUMENTS, msgspec.json.encode(self.listing))
        self.status()
        self.want({key: list(kinds) for key in SYMBOLS})
        self.run(3 * NS_PER_S)

    def make_legs(self, market, states):
        return Legs(
            market,
            states,
            self.batch.emit,
            count=self.legs,
            policy=Policy(backoff_min_s=0.1, backoff_max_s=0.2, max_attempts=0),
            budget=ConnectBudget(1000, 1.0),
            rng=self.rng,
        )

    def clock(self):
        return EPOCH_NS + self.mono

    def want(self, wanted):
        self.apply(self.universe.reconcile(self.listing.table(), wanted, self.clock()))

    def apply(self, change):
        self.links.update(dict.fromkeys(change.run))
        for session in change.stop:
            del self.links[session]

    def run(self, ns):
        end = self.mono + ns
        while self.mono < end:
            self.mono += TICK_NS
            for session in list(self.links):
                if session in self.links and self.mono >= session.deadline_mono_ns:
                    self.step(session)
            self.repeat()
            for change in self.universe.advance(self.mono):
                self.apply(change)
            self.deliver()
            if self.mono % FEED_HEARTBEAT_NS < TICK_NS:
                self.status()
            self.merger.on_tick(self.mono)

    # --- the exchange

    def step(self, session):
        actions = session.advance(self.mono)
        if actions.connect and not self.is_reachable:
            session.on_closed(self.mono, "unreachable")
        elif actions.connect:
            self.links[session] = {}
            session.on_endpoint(Endpoint("ws://x"))
            session.on_open(self.mono)
            if self.market.awaits_welcome:
                self.post(session, {"type": "welcome", "id": "x"})
            self.step(session)
        if actions.ping:
            session.on_ping()
        for message in actions.send:
            self.answer(session, {"op": "ping"} if message == b"ping" else json.loads(message))
        if actions.close:
            self.cut(session)

    def answer(self, session, request):
        verb = request.get("op") or request.get("method", "").lower() or request["type"]
        if verb == "ping":
            answers = {"bybit": {"op": "pong"}, "okx": b"pong"}
            self.post(session, answers.get(self.exchange) or {"type": "pong", "id": request["id"]})
            return
        if self.exchange == "okx":
            for arg in request["args"]:
                self.post(session, {"id": request["id"], "event": verb, "arg": arg})
        if self.exchange == "kucoin":
            channel, _, natives = request["topic"].partition(":")
            topics = [f"{channel}:{native}" for native in natives.split(",")]
            answer = {"type": "ack", "id": request["id"]}
        elif self.exchange == "binance":
            topics, answer = request["params"], {"result": None, "id": request["id"]}
        elif self.exchange == "okx":
            topics = [f"{arg['channel']}:{arg['instId']}" for arg in request["args"]]
            answer = b"pong"  # a sign of life
        else:
            topics, answer = request["args"], {"success": True, "req_id": request["req_id"], "op": verb}
        self.requests.append((verb, tuple(topics)))
        self.post(session, answer)
        for topic in topics:
            if verb == "unsubscribe":
                self.links[session].pop(topic, None)
            else:
                self.links[session][topic] = self.rng.randint(2, 10_000)
                for native in self.books:
                    if topic == self.topic(native):
                        self.base(session, native)

    def topic(self, native):
        return TOPICS[self.exchange].format(native.lower() if self.exchange == "binance" else native)

    def post(self, session, frame):
        payload = frame if isinstance(frame, bytes) else json.dumps(frame).encode()
        if session.on_frame(payload, self.clock()):
            self.step(session)

    def base(self, session, native):
        """A book in full: all that is ever sent by most."""
        book, topic, ms = self.books[native], self.topic(native), self.clock() // 1_000_000
        if self.exchange == "binance":
            bids, asks = book.texts(20)
            data = {"lastUpdateId": book.id, "bids": bids, "asks": asks}
            self.post(session, {"stream": topic, "data": data})
        elif self.exchange == "kucoin":
            bids, asks = book.texts(50)
            data = {"asks": asks, "bids": bids, "timestamp": ms}
            self.post(session, {"topic": topic, "type": "message", "subject": "level2", "data": data})
        elif self.exchange == "okx":
            self.okx(session, native, "snapshot", book.texts(400))
        else:
            self.bybit(session, native, "snapshot", book.texts(50))

    def repeat(self):
        """Have what promises it say each minute that nothing has changed."""
        for session, native in [(s, n) for s in self.links for n in self.books if self.exchange == "okx"]:
            if self.topic(native) in (self.links[session] or ()):
                since = self.sent_at.setdefault((session, native), self.mono)
                if self.mono - since >= 60 * NS_PER_S:
                    self.okx(session, native, "repeated", [[], []])

    def okx(self, session, native, action, sides):
        channel, instrument = self.topic(native).split(":")
        number = 10 * self.links[session][self.topic(native)]  # ids jump
        levels = [[[*level, "0", "1"] for level in side] for side in sides]
        row = {"bids": levels[0], "asks": levels[1], "ts": str(self.clock() // 1_000_000), "checksum": 0}
        before = {"snapshot": -1, "update": number - 10, "repeated": number}[action]
        row |= {"seqId": number, "prevSeqId": before}
        arg = {"channel": channel, "instId": instrument}
        self.sent_at[session, native] = self.mono
        self.post(session, {"arg": arg, "action": action.replace("repeated", "update"), "data": [row]})

    def bybit(self, session, native, kind, sides):
        topic = self.topic(native)
        data = {"s": native, "b": sides[0], "a": sides[1], "u": self.links[session][topic]}
        data["seq"] = self.books[native].id
        self.post(session, {"topic": topic, "ts": self.clock() // 1_000_000, "type": kind, "data": data})

    def change(self, native, legs=(0, 1, 2), *, is_lost=False):
        """The book changes, and these legs' connections are sent that, unless it is lost on the way."""
        self.mono += 1_000_000
        changes = self.books[native].change()
        for session, topics in list(self.links.items()):
            if not topics or self.topic(native) not in topics:
                continue
            topics[self.topic(native)] += 1
            if is_lost or session.leg not in legs or self.rng.random() < self.loses:
                continue
            if self.exchange == "bybit":
                self.bybit(session, native, "delta", changes)
            elif self.exchange == "okx":
                self.okx(session, native, "update", changes)
            else:
                self.base(session, native)
        self.deliver()

    def cut(self, session):
        self.links[session] = None
        session.on_closed(self.mono, "cut")

    # --- the merger

    def document(self, kind, body):
        document = wire.Document(wire.topic(kind, self.exchange), kind=kind, body=body)
        self.merger.on_message(wire.pack_document(document))

    def status(self):
        status = FeedStatus(
            exchange=self.exchange, pid=7, started_ns=0, state="live", hop_records=self.batch.records
        )
        self.document(wire.STATUS, msgspec.json.encode(status))

    def deliver(self):
        self.batch.flush()
        sent, self.hop.sent = self.hop.sent, []
        for message in sent:
            self.merger.on_message(message)

    def published(self, symbol="BTC/USDT"):
        records = [wire.unpack(message) for message in self.each.sent]
        return [r for r in records if isinstance(r, wire.Depth) and r.symbol == symbol]

    def flags(self, symbol="BTC/USDT"):
        """The flags of what was published, one after the other, each once."""
        found = []
        for record in self.published(symbol):
            if not found or found[-1] != str(record.flags):
                found.append(str(record.flags))
        return found

    def best(self, symbol="BTC/USDT"):
        return tuple(map(tuple, self.books[self.natives[symbol]].best(20)))


@pytest.fixture(params=EXCHANGES)
def exchange(request):
    return request.param


def is_current(world, symbol="BTC/USDT"):
    newest = world.published(symbol)[-1]
    return (newest.bids, newest.asks) == world.best(symbol)


def test_the_best_levels_are_published_as_they_change_and_each_symbol_s_are_its_own(exchange):
    world = World(exchange)
    for _ in range(60):
        for symbol, native in world.natives.items():
            world.change(native)
            assert is_current(world, symbol)
    for symbol in SYMBOLS:
        records = world.published(symbol)
        assert [record.sequence for record in records] == list(range(1, len(records) + 1))
        assert world.flags(symbol) == ["SIMULATED"]
        contents = [(record.bids, record.asks) for record in records]
        assert all(one != other for one, other in itertools.pairwise(contents)), "none is repeated"


def test_who_joins_late_gets_the_newest_levels_as_a_snapshot(exchange):
    world = World(exchange)
    world.change(world.natives["BTC/USDT"])
    (topic,) = world.merger.topics(f"depth.{exchange}.BTC".encode())
    record = wire.unpack(world.merger.last(topic))
    assert (record.bids, record.asks) == world.best()
    assert str(record.flags) == "SNAPSHOT|SIMULATED"


@pytest.mark.long
def test_a_quiet_market_is_quiet(exchange):
    world = World(exchange, legs=2)
    for _ in range(100):
        world.change(world.natives["BTC/USDT"])
        world.run(NS_PER_S // 4)
    before = len(world.each.sent), len(world.requests)
    world.run(600 * NS_PER_S)
    assert world.flags() == ["SIMULATED"]
    assert len(world.published()) == len([r for r in world.published() if r.recv_ns])
    assert len(world.requests) == before[1]
    assert all(session.condition == 0 for session in world.links)


def test_without_a_connection_it_is_down_and_then_whatever_the_new_one_brings(exchange):
    world = World(exchange)
    world.change(world.natives["BTC/USDT"])
    world.is_reachable = False
    for session in list(world.links):
        world.cut(session)
    before = world.best()
    world.change(world.natives["BTC/USDT"])
    world.run(3 * NS_PER_S)
    assert world.flags() == ["SIMULATED", "DOWN|SIMULATED"]
    newest = world.published()[-1]
    assert (newest.bids, newest.asks) == before, "the last known ones"
    world.is_reachable = True
    world.run(3 * NS_PER_S)
    assert world.flags() == ["SIMULATED", "DOWN|SIMULATED", "SIMULATED"]
    assert is_current(world)


def test_a_feed_that_hangs_is_down_by_the_merger_s_word(exchange):
    world = World(exchange)
    end = world.mono + FEED_SILENCE_NS + 2 * TICK_NS
    while world.mono < end:
        world.mono += TICK_NS
        world.merger.on_tick(world.mono)
    assert world.flags() == ["SIMULATED", "DOWN|SIMULATED"]


def test_of_two_legs_either_will_do(exchange):
    world = World(exchange, legs=2)
    native = world.natives["BTC/USDT"]
    for legs in ((0, 1), (0,), (1,), (1, 0)) * 10:
        world.change(native, legs if exchange not in OF_CHANGES else (0, 1))
        assert is_current(world)
    for leg in (0, 1):
        session = next(session for session in world.links if session.leg == leg)
        world.cut(session)
        world.change(native)
        assert is_current(world)
        world.run(5 * NS_PER_S)
        world.change(native)
        assert is_current(world)
    assert world.flags() == ["SIMULATED"]


def test_a_renewal_is_not_noticed(exchange):
    world = World(exchange)
    world.universe.renew("by order")
    for _ in range(40):
        world.change(world.natives["BTC/USDT"])
        world.run(NS_PER_S // 4)
    assert len(world.links) == 1
    assert next(iter(world.links)).connects >= 2
    assert world.flags() == ["SIMULATED"]
    assert is_current(world)


def test_kinds_of_a_symbol_come_and_go_without_each_other(exchange):
    world = World(exchange, kinds=("ticker", "depth"))
    ticker = world.market.tickers[world.natives["BTC/USDT"]]
    before = ticker.record()
    world.change(world.natives["BTC/USDT"])
    assert ticker.record() == before, "the quote of depth is no ticker's"
    world.want({"BTC/USDT": ["ticker"], "ETH/USDT": ["depth"]})
    world.run(2 * NS_PER_S)
    assert world.flags() == ["SIMULATED", "DOWN|SIMULATED"], "nobody wants it any more"
    world.change(world.natives["ETH/USDT"])
    assert is_current(world, "ETH/USDT")
    world.want({key: ["depth", "ticker"] for key in SYMBOLS})
    world.run(2 * NS_PER_S)
    assert world.flags()[-1] == "SIMULATED"
    assert is_current(world)
    assert world.flags("ETH/USDT") == ["SIMULATED"]


def test_a_book_that_lost_a_change_is_invalid_until_it_was_subscribed_to_anew_and_the_others_go_on():
    world = World("bybit")
    btc, eth = world.natives.values()
    world.change(btc, is_lost=True)
    before = len(world.requests)
    lost = world.published()[-1]
    world.mono += 1
    changes = world.books[btc].change()
    (session,) = world.links
    world.links[session][world.topic(btc)] += 1
    world.bybit(session, btc, "delta", changes)
    world.deliver()
    assert world.flags() == ["SIMULATED", "SIMULATED|INVALID"]
    assert world.published()[-1].bids == lost.bids, "what was right before"
    world.run(2 * NS_PER_S)
    assert world.flags() == ["SIMULATED", "SIMULATED|INVALID", "SIMULATED"]
    assert is_current(world)
    topics = (world.topic(btc),)
    assert world.requests[before:] == [("unsubscribe", topics), ("subscribe", topics)]
    world.change(eth)
    assert world.flags("ETH/USDT") == ["SIMULATED"]
    assert len(world.links) == 1
    assert session.connects == 1, "on the same connection"


def test_a_book_that_lost_a_change_on_one_leg_is_the_other_s_meanwhile():
    world = World("bybit", legs=2)
    btc = world.natives["BTC/USDT"]
    world.change(btc, legs=(1,))
    assert is_current(world)
    world.change(btc)
    assert is_current(world)
    world.run(2 * NS_PER_S)
    world.change(btc, legs=(0,))
    assert is_current(world), "it has a new book"
    assert world.flags() == ["SIMULATED"]


def test_a_leg_whose_book_is_lost_takes_over_from_none():
    world = World("bybit", legs=2)
    btc = world.natives["BTC/USDT"]
    first, second = world.links
    world.links[first][world.topic(btc)] += 1
    for _ in range(3):
        world.change(btc)  # the first leg's book is lost, and its new one is on the way
    world.cut(second)
    world.deliver()
    assert world.flags()[-1] in ("STALE|SIMULATED", "SIMULATED|INVALID")
    world.run(3 * NS_PER_S)
    assert is_current(world)
    assert world.flags()[-1] == "SIMULATED"


@pytest.mark.many
@pytest.mark.parametrize("seed", range(12))
def test_whatever_becomes_of_frames_and_connections_what_is_published_is_right_or_flagged(exchange, seed):
    world = World(exchange, legs=1 + seed % 3, seed=seed)
    rng, sound = world.rng, {symbol: {world.best(symbol)} for symbol in SYMBOLS}
    world.loses = 0.01
    for _ in range(150):
        act = rng.random()
        if act < 0.8:
            for symbol, native in world.natives.items():
                world.change(native)
                sound[symbol].add(world.best(symbol))
        elif act < 0.9:
            world.run(rng.choice((TICK_NS, NS_PER_S, 12 * NS_PER_S)))
        elif act < 0.95:
            session = rng.choice(list(world.links))
            if session.phase is Phase.RUNNING:
                world.cut(session)
        elif act < 0.97:
            world.universe.renew("by order")
        else:
            world.is_reachable = rng.random() < 0.7
    world.is_reachable, world.loses = True, 0.0
    world.run(15 * NS_PER_S)
    for _ in range(2):  # the first may show what was lost
        for symbol, native in world.natives.items():
            world.change(native)
            sound[symbol].add(world.best(symbol))
        world.run(15 * NS_PER_S)
    for symbol in SYMBOLS:
        assert is_current(world, symbol)
        assert world.flags(symbol)[-1] == "SIMULATED"
        for record in world.published(symbol):
            if not record.flags & wire.NOT_LIVE:
                assert (record.bids, record.asks) in sound[symbol]
