"""Books over connections that come and go, with each exchange's own messages: right at their id, or INVALID."""

import itertools
import json
import random

import pytest
from seeds import seeds

from feedhandler.data import wire
from feedhandler.data.connecting import ConnectBudget, Policy
from feedhandler.data.kept_book import Book
from feedhandler.data.status import Phase
from feedhandler.exchanges import EXCHANGES, full_book
from feedhandler.exchanges.base import Endpoint
from feedhandler.feed.bases import REPEAT_NS, SUBSCRIBE_AGAIN_NS
from feedhandler.feed.legs import Legs
from feedhandler.feed.session import TICK_NS

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
EPOCH_NS = 1_790_000_000_000_000_000
SYMBOLS = {"binance": "BTCUSDT", "kucoin": "BTC-USDT", "bybit": "BTCUSDT"}
LEVELS = 12  # a side, of a base or a window
BEST = 4
NORMAL_PRICE = 1000


class Exchange:
    """A book, by the number of its last change, and what that makes each connection say."""

    def __init__(self, name, rng):
        self.name, self.rng = name, rng
        self.number = 5000
        self.middle = NORMAL_PRICE
        self.bids = {self.middle - 1 - n: float(1 + n % 5) for n in range(30)}
        self.asks = {self.middle + 1 + n: float(1 + n % 5) for n in range(30)}
        self.offset = 0  # of the numbers that are stated; an exchange may count anew
        self.history = {self.number: self.copy()}
        self.changes = []  # since the last message: number, side, price, size

    def copy(self):
        return dict(self.bids), dict(self.asks)

    def set(self, side, price, size):
        self.number += 1
        (self.bids if side == "bids" else self.asks).pop(price, None)
        if size and price:
            (self.bids if side == "bids" else self.asks)[price] = size
        self.history[self.number] = self.copy()
        self.changes.append((self.number, side, price, size))

    def happen(self):
        rng = self.rng
        if rng.random() < 0.2:
            self.middle += rng.choice((-1, 1))
            for price in [price for price in self.bids if price >= self.middle]:
                self.set("bids", price, 0.0)
            for price in [price for price in self.asks if price <= self.middle]:
                self.set("asks", price, 0.0)
        elif self.name == "kucoin" and rng.random() < 0.1:
            self.set("bids", 0, 0.0)
        else:
            away = min(1 + int(rng.expovariate(0.1)), 50)
            side, price = ("bids", self.middle - away) if rng.random() < 0.5 else ("asks", self.middle + away)
            self.set(side, price, rng.choice((0.0, 1.0, 2.5, 7.0)))

    def best(self, count=LEVELS):
        bids, asks = self.history[self.number]
        return dict(sorted(bids.items(), reverse=True)[:count]), dict(sorted(asks.items())[:count])

    def rest(self, lag):
        numbers = sorted(self.history)
        number = numbers[max(0, len(numbers) - 1 - lag)]
        bids, asks = self.history[number]
        levels = {
            "bids": texts(sorted(bids.items(), reverse=True)[:LEVELS]),
            "asks": texts(sorted(asks.items())[:LEVELS]),
        }
        if self.name == "binance":
            return {"lastUpdateId": number, **levels}
        return {"code": "200000", "data": {"sequence": f"{number}", "time": 1790000000000, **levels}}

    def message(self, connection):
        """What this connection says of the changes since the last message; None for nothing."""
        changes = self.changes
        if self.name == "bybit":
            return self.window(connection)
        if not changes:
            return None
        first, last = changes[0][0], changes[-1][0]
        if self.name == "binance":
            sides = {side: {p: s for _, own, p, s in changes if own == side} for side in ("bids", "asks")}
            data = {"e": "depthUpdate", "E": 1790000000000000, "s": "BTCUSDT", "U": first, "u": last}
            data |= {"b": texts(sides["bids"].items()), "a": texts(sides["asks"].items())}
            return {"stream": "btcusdt@depth@100ms", "data": data}
        sides = {
            side: [[f"{p}", f"{s}", f"{n}"] for n, own, p, s in changes if own == side]
            for side in ("bids", "asks")
        }
        data = {
            "changes": sides,
            "sequenceStart": first,
            "sequenceEnd": last,
            "symbol": "BTC-USDT",
            "time": 1,
        }
        return {
            "topic": "/market/level2:BTC-USDT",
            "type": "message",
            "subject": "trade.l2update",
            "data": data,
        }

    def window(self, connection):
        now, full = self.best(), (self.bids, self.asks)
        if connection.window is None:
            kind, sides = "snapshot", [list(side.items()) for side in now]
            connection.update_id = connection.update_id or self.rng.randint(1000, 9999)
        else:
            kind, sides = "delta", []
            for before, after, whole in zip(connection.window, now, full, strict=True):
                changed = [(p, s) for p, s in after.items() if before.get(p) != s]
                sides.append(changed + [(p, 0.0) for p in before if p not in after and p not in whole])
            if not any(sides):
                return None
        connection.update_id += 1
        connection.window = now
        connection.numbers[connection.update_id] = self.number
        data = {"s": "BTCUSDT", "b": texts(sides[0]), "a": texts(sides[1]), "u": connection.update_id}
        data["seq"] = self.number
        return {"topic": "orderbook.200.BTCUSDT", "type": kind, "ts": 1, "cts": self.number, "data": data}


class Connection:
    """What an exchange knows of one that has subscribed."""

    def __init__(self):
        self.window, self.update_id, self.numbers = None, 0, {}


def texts(levels):
    return [[f"{price}", f"{size}"] for price, size in levels]


class World:
    """An exchange with one symbol, its REST host, and a feed of some legs; what becomes of its records."""

    def __init__(self, exchange, legs=2, seed=1, flags=wire.SIMULATED):
        self.rng = random.Random(seed)
        self.name, self.native = exchange, SYMBOLS[exchange]
        self.exchange = Exchange(exchange, self.rng)
        self.mono = NS_PER_S
        self.market = EXCHANGES[exchange].main()
        self.market.canary = ""
        for name in ("book_levels", "base_levels"):
            if getattr(self.market, name):
                setattr(self.market, name, LEVELS)
        self.subscribed, self.links = {}, {}
        self.records, self.requests = [], []
        self.book = Book()
        self.was_valid = 0
        self.is_reachable = self.has_rest = True
        self.rest_lag = 0
        self.chance = {}  # of faults, by name
        (self.state,) = self.market.add([self.native], flags, "book")
        self.legs = Legs(
            self.market,
            [self.state],
            self.emit,
            count=legs,
            policy=Policy(backoff_min_s=0.1, backoff_max_s=0.2, max_attempts=0),
            budget=ConnectBudget(1000, 1.0),
            rng=self.rng,
        )
        self.links.update(dict.fromkeys(self.legs.sessions))

    @property
    def now_ns(self):
        return EPOCH_NS + self.mono

    def emit(self, state):
        takes_number = state.takes_number
        packed = bytearray(state.record())
        if takes_number:
            state.sequence += 1
            wire.SEQUENCE.pack_into(packed, wire.SEQUENCE_OFFSET, state.sequence)
        record = wire.unpack(bytes(packed))
        self.records.append(record)
        self.book.apply(record)
        self.check()

    def check(self):
        book = self.book
        if not book.is_valid:
            return
        self.was_valid += 1
        number = book.last_id
        if self.name == "bybit":
            number = book.exchange_ns // NS_PER_MS
        bids, asks = self.exchange.history[number]
        assert dict(book.bids).items() <= bids.items()
        assert dict(book.asks).items() <= asks.items()
        assert {p for p in bids if p >= book.known_from} <= dict(book.bids).keys()
        assert {p for p in asks if p <= book.known_to} <= dict(book.asks).keys()

    def run(self, seconds, *, is_quiet=False):
        end = self.mono + int(seconds * NS_PER_S)
        while self.mono < end:
            self.mono += TICK_NS
            if not is_quiet:
                self.say()
            for session in list(self.links):
                if self.mono >= session.deadline_mono_ns:
                    self.step(session)
            change = self.legs.advance(self.mono)
            self.links.update(dict.fromkeys(change.run))
            for session in change.stop:
                del self.links[session]
                self.subscribed.pop(session, None)
            for question in change.ask_bases:
                self.requests.append(question.request.path)
                if self.has_rest:
                    base = self.market.decode_base(
                        self.native, json.dumps(self.exchange.rest(self.rest_lag)).encode()
                    )
                    if self.rng.random() < self.chance.get("late", 0.0):
                        self.say()  # deltas while the answer is on its way
                    question.bases.on_answer(question, base, self.now_ns)
                else:
                    question.bases.on_refused(question)

    def say(self, count=3):
        """Let something happen, and every connection say it."""
        self.exchange.changes = []
        for _ in range(count):
            self.exchange.happen()
        for session, connection in list(self.subscribed.items()):
            if session in self.links and session.phase is Phase.RUNNING:
                self.tell(session, connection)

    def tell(self, session, connection):
        message = self.exchange.message(connection)
        if message is None or self.rng.random() < self.chance.get("loss", 0.0):
            return
        text = json.dumps(message)
        if self.rng.random() < self.chance.get("garbled", 0.0):
            text = text.replace('.0"', '.x"')
        self.post(session, text)
        if self.rng.random() < self.chance.get("twice", 0.0) and session in self.subscribed:
            self.post(session, text)

    def step(self, session):
        actions = session.advance(self.mono)
        if actions.connect and not self.is_reachable:
            session.on_closed(self.mono, "unreachable")
        elif actions.connect:
            session.on_endpoint(Endpoint("ws://x"))
            session.on_open(self.mono)
            if self.market.awaits_welcome:
                self.post(session, '{"id": "x", "type": "welcome"}')
            self.step(session)
        if actions.ping:
            session.on_ping()
        for message in actions.send:
            self.answer(session, json.loads(message))
        if actions.close:
            self.cut(session)

    def answer(self, session, request):
        what = request.get("method") or request.get("type") or request.get("op")
        if self.name == "binance":
            reply = {"result": None, "id": request["id"]}
        elif self.name == "kucoin":
            reply = {"id": request["id"], "type": "pong" if what == "ping" else "ack"}
        elif what == "ping":
            reply = {"op": "pong"}
        else:
            reply = {"success": True, "req_id": request["req_id"], "op": request["op"]}
        if what.lower() == "subscribe":
            self.subscribed[session] = Connection()
        elif what.lower() == "unsubscribe":
            self.subscribed.pop(session, None)
        self.post(session, json.dumps(reply))
        if what.lower() == "subscribe" and self.name == "bybit":
            self.exchange.changes = []
            self.post(session, json.dumps(self.exchange.message(self.subscribed[session])))

    def post(self, session, text):
        if session.on_frame(text.encode(), self.now_ns):
            self.step(session)

    def cut(self, session):
        self.subscribed.pop(session, None)
        session.on_closed(self.mono, "cut")

    def leading(self):
        """The connection whose book is published."""
        return next(s for s in self.legs.sessions if s.line.index == self.state.leader)

    def conditions(self, start=0):
        return [r.flags & wire.NOT_LIVE for r in self.records[start:] if isinstance(r, wire.Condition)]

    def snapshots(self, start=0):
        records = self.records[start:]
        return [
            r for r in records if r.flags & wire.SNAPSHOT and not isinstance(r, wire.Condition) and not r.part
        ]


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(full_book, "BEST", BEST)


@pytest.mark.parametrize("legs", [1, 2])
@pytest.mark.parametrize("exchange", SYMBOLS)
def test_a_book_begins_and_goes_on_as_the_exchange_s_does(exchange, legs):
    world = World(exchange, legs)
    world.run(20)
    assert world.book.is_valid
    assert world.book.best.bid == max(world.exchange.bids)
    assert world.book.best.ask == min(world.exchange.asks)
    assert world.book.is_simulated
    assert (world.legs.bases.valid, world.legs.bases.waiting) == (1, 0)
    assert all(world.state.lines[session.line.index].is_known for session in world.legs.sessions)
    assert set(world.conditions()) <= {wire.INVALID}  # before it began
    assert len(world.requests) <= (0 if exchange == "bybit" else 3)


@pytest.mark.parametrize("exchange", SYMBOLS)
def test_another_line_takes_over_without_a_request(exchange):
    world = World(exchange)
    world.run(10)
    for number in range(6):
        world.run(11)  # between two subscriptions
        start, requests, leading = len(world.records), len(world.requests), world.leading()
        if number % 3 == 0:  # a message is lost
            saved = world.subscribed.pop(leading)
            world.say()
            if exchange == "bybit":
                world.exchange.window(saved)
            world.subscribed[leading] = saved
        elif number % 3 == 1:
            world.cut(leading)
        else:  # one cannot be read
            (topic,) = world.market.topics(world.native, "book")
            key = world.market.topic_key.decode()
            world.post(
                leading, json.dumps({key: topic, "type": "message", "data": {"e": "depthUpdate", "b": 1}})
            )
        world.say()
        assert world.book.is_valid
        world.run(1)
        assert world.conditions(start) == []
        assert world.leading() is not leading or number % 3 == 1
        assert len(world.snapshots(start)) == 1
        assert len(world.requests) == requests
    world.run(15)
    assert all(world.state.lines[session.line.index].is_known for session in world.legs.sessions)


@pytest.mark.parametrize("exchange", SYMBOLS)
def test_without_another_line_it_is_invalid_from_the_first_doubt_until_there_is_a_base(exchange):
    world = World(exchange, legs=1)
    world.run(30)
    start = len(world.records)
    (topic,) = world.market.topics(world.native, "book")
    key = world.market.topic_key.decode()
    world.post(
        world.leading(), json.dumps({key: topic, "type": "message", "data": {"e": "depthUpdate", "b": 1}})
    )
    assert not world.book.is_valid
    assert (world.legs.bases.valid, world.legs.bases.waiting) == (0, 1)
    world.run(3)
    assert world.book.is_valid
    assert world.conditions(start) == [wire.INVALID]


@pytest.mark.parametrize("exchange", SYMBOLS)
def test_a_lost_connection_is_down_and_the_book_comes_back_with_a_snapshot(exchange):
    world = World(exchange, legs=1)
    world.run(10)
    world.is_reachable = False
    start = len(world.records)
    world.cut(world.leading())
    world.run(5)
    assert not world.book.is_valid
    assert world.conditions(start)[-1] == wire.DOWN | wire.INVALID
    world.is_reachable = True
    world.run(5)
    assert world.book.is_valid


@pytest.mark.parametrize("exchange", ["binance", "kucoin"])
def test_a_base_that_lags_is_requested_again_with_growing_pauses(exchange):
    world = World(exchange, legs=1)
    world.say(50)
    world.rest_lag = 1000
    world.run(60)
    assert not world.was_valid
    assert 4 <= len(world.requests) <= 10
    world.rest_lag = 0
    world.run(35)
    assert world.book.is_valid


@pytest.mark.parametrize("exchange", ["binance", "kucoin"])
def test_a_base_that_lags_a_little_is_bridged_by_what_was_kept(exchange):
    world = World(exchange, legs=1)
    world.has_rest = False
    world.run(5)
    assert not world.was_valid
    world.has_rest, world.rest_lag = True, 20
    world.run(10)
    assert world.book.is_valid


@pytest.mark.parametrize("exchange", ["binance", "kucoin"])
def test_another_base_is_requested_before_the_best_levels_leave_what_is_known(exchange):
    world = World(exchange, legs=2, seed=3)
    world.run(10)
    requests = len(world.requests)
    for _ in range(40):
        world.exchange.middle += 1
        for price in [price for price in world.exchange.asks if price <= world.exchange.middle]:
            world.exchange.set("asks", price, 0.0)
        world.exchange.set("asks", world.exchange.middle + 30, 3.0)
        world.exchange.set("bids", world.exchange.middle - 1, 2.0)
        for session, connection in list(world.subscribed.items()):
            world.tell(session, connection)
        world.exchange.changes = []
        world.run(2)
        assert world.book.is_valid
    assert len(world.requests) - requests >= 2
    assert world.conditions(len(world.records) // 2) == []
    asks = sorted(world.exchange.asks.items())[:BEST]
    assert world.book.asks[:BEST] == asks


@pytest.mark.parametrize("exchange", SYMBOLS)
def test_a_book_that_stays_crossed_is_invalid_after_a_second_and_no_other_time(exchange):
    world = World(exchange, legs=1)
    world.run(15)
    world.exchange.changes = []
    world.exchange.set("bids", world.exchange.middle + 5, 1.0)
    for session, connection in world.subscribed.items():
        world.tell(session, connection)
    world.run(0.5, is_quiet=True)
    assert world.book.is_valid
    world.run(2.5, is_quiet=True)
    assert wire.INVALID in world.conditions(-3)


@pytest.mark.parametrize("exchange", SYMBOLS)
def test_a_line_that_stands_still_while_another_goes_on_leads_no_more(exchange):
    world = World(exchange)
    world.run(10)
    leading = world.leading()
    world.subscribed.pop(leading)
    world.run(4)
    assert world.leading() is not leading
    assert world.conditions(len(world.records) // 2) == []


@pytest.mark.parametrize("exchange", ["binance", "kucoin"])
def test_a_line_begins_with_the_book_that_is_ahead_not_with_that_of_a_leader_which_stands_still(exchange):
    world = World(exchange, 3)
    world.run(10)
    leading = world.leading()
    ahead, begins = (session for session in world.legs.sessions if session is not leading)
    world.has_rest = False
    world.subscribed.pop(leading)
    world.say()
    world.cut(begins)
    world.run(1, is_quiet=True)
    assert world.leading() is leading, "not for so long that it is noticed"
    newest = world.state.lines[ahead.line.index].last_id
    assert newest > world.state.lines[leading.line.index].last_id
    assert world.state.lines[begins.line.index].last_id == newest


def begun_while_a_change_is_under_way(exchange):
    """Return a world at rest, a line with a change that another one, which began later, does not get, and that."""
    world = World(exchange)
    world.run(10)
    behind, begins = world.legs.sessions
    world.has_rest = False
    world.cut(begins)
    world.exchange.changes = []
    world.exchange.set("bids", world.exchange.middle - 5, 4.0)
    message = json.dumps(world.exchange.message(None))
    world.run(3, is_quiet=True)
    assert world.state.lines[begins.line.index].is_known
    world.post(behind, message)
    assert world.book.last_id == world.exchange.number
    return world, behind, begins


@pytest.mark.parametrize("is_at_once", [True, False])
@pytest.mark.parametrize("exchange", ["binance", "kucoin"])
def test_who_takes_over_from_a_line_that_was_behind_has_what_that_had_under_way(exchange, is_at_once):
    world, behind, begins = begun_while_a_change_is_under_way(exchange)
    if not is_at_once:
        world.run(2, is_quiet=True)
    world.is_reachable = False
    world.cut(behind)
    world.run(1, is_quiet=True)
    assert world.leading() is begins
    assert world.book.is_valid
    assert world.book.last_id == world.exchange.number


def test_a_quiet_book_does_not_begin_with_what_rest_had_seconds_ago():
    world = World("kucoin", legs=1)
    world.exchange.happen()  # just before it is subscribed to
    world.rest_lag = 1
    world.run(4, is_quiet=True)
    world.rest_lag = 0
    world.run(6, is_quiet=True)
    assert world.book.is_valid
    assert world.book.last_id == world.exchange.number


def test_a_quiet_book_of_a_replay_is_there_before_the_replay_may_be_over():
    world = World("kucoin", legs=1, flags=wire.REPLAY)
    world.run(2, is_quiet=True)
    assert world.book.is_valid


@pytest.mark.long
@pytest.mark.parametrize("exchange", SYMBOLS)
def test_a_quiet_book_is_quiet_and_is_repeated(exchange):
    world = World(exchange, legs=1)
    world.run(5)
    world.run(15, is_quiet=True)  # perhaps another base
    start = len(world.records)
    world.run(REPEAT_NS // NS_PER_S * 0.75, is_quiet=True)
    assert world.records[start:] == []
    world.run(REPEAT_NS // NS_PER_S * 2, is_quiet=True)
    assert 2 <= len(world.snapshots(start)) <= 3
    assert world.conditions(start) == []


@pytest.mark.parametrize("exchange", SYMBOLS)
def test_who_joins_gets_all_books(exchange):
    world = World(exchange)
    world.run(5)
    start = len(world.records)
    world.book = Book()
    world.legs.bases.repeat_all()
    world.run(1)
    assert len(world.snapshots(start)) == 1
    assert world.book.is_valid


@pytest.mark.parametrize("exchange", SYMBOLS)
def test_a_snapshot_that_is_requested_comes_soon_and_not_too_often(exchange):
    world = World(exchange)
    world.run(15)
    start = len(world.records)
    natives = {world.native}
    world.legs.bases.repeat({"another"})
    world.run(1)
    assert world.snapshots(start) == []
    for _ in range(30):
        world.legs.bases.repeat(natives)
        world.run(1)
    assert 3 <= len(world.snapshots(start)) <= 4, "perhaps with another base"
    assert world.conditions(start) == []


@pytest.mark.long
def test_a_subscription_that_brings_no_base_is_repeated_with_growing_pauses():
    world = World("bybit", legs=1)
    world.run(15)
    sent = []
    subscribe = world.market.subscribe
    world.market.subscribe = lambda topics, command: sent.append(world.mono) or subscribe(topics, command)
    world.chance["garbled"] = 1.0
    answer = world.answer

    def garbled(session, request):
        post, world.post = world.post, lambda session, text: post(session, text.replace('.0"', '.x"'))
        answer(session, request)
        world.post = post

    world.answer = garbled
    world.run(200)
    pauses = [later - earlier for earlier, later in itertools.pairwise(sent)]
    assert pauses == sorted(pauses)
    assert pauses[0] >= SUBSCRIBE_AGAIN_NS
    assert 3 <= len(sent) <= 6
    world.chance.clear()
    world.answer = answer
    world.run(400)
    assert world.book.is_valid


def test_a_subscription_that_brought_a_base_does_not_make_the_next_one_wait():
    world = World("bybit", legs=1)
    world.run(15)
    for lasted_s, waits_s in ((0, 1), (7, 4), (11, 1), (11, 1)):  # then a message is lost
        world.run(lasted_s)
        world.chance["loss"] = 1.0
        world.say(50)
        world.chance.clear()
        snapshots = len(world.snapshots())
        world.run(waits_s)
        assert world.book.is_valid
        assert len(world.snapshots()) == snapshots + 1


@pytest.mark.parametrize("legs", [1, 2])
@pytest.mark.parametrize("exchange", SYMBOLS)
def test_connections_are_renewed_and_nobody_notices_but_by_a_snapshot(exchange, legs):
    world = World(exchange, legs)
    world.run(20)
    start = len(world.records)
    before = world.legs.sessions
    world.legs.renew("by order")
    world.run(60)
    assert not set(before) & set(world.legs.sessions)
    assert world.conditions(start) == []


def test_a_connection_is_renewed_once_changes_that_it_had_under_way_have_come():
    world = World("binance", legs=1)
    world.run(10)
    (old,) = world.legs.sessions
    world.has_rest = False
    world.exchange.changes = []
    world.exchange.set("bids", world.exchange.middle - 5, 4.0)
    message = json.dumps(world.exchange.message(None))
    world.legs.renew("by order")
    world.run(3, is_quiet=True)
    old.sockets[0].on_ping()  # other symbols go on, and all of it comes late
    world.run(1, is_quiet=True)
    assert [world.state.lines[session.line.index].is_known for session in world.legs.sessions] == [True, True]
    world.post(old, message)
    world.run(10, is_quiet=True)
    assert world.book.last_id == world.exchange.number
    world.run(10)
    assert old not in world.legs.sessions
    assert world.book.is_valid


@pytest.mark.long
@pytest.mark.parametrize("seed", seeds(8, before_commit=2))
@pytest.mark.parametrize("exchange", SYMBOLS)
def test_whatever_happens_a_book_is_right_or_invalid(exchange, seed):
    world = World(exchange, legs=1 + seed % 2, seed=seed)
    rng = world.rng
    for _ in range(60):
        world.chance = {
            "loss": rng.choice((0.0, 0.0, 0.05)),
            "twice": rng.choice((0.0, 0.1)),
            "garbled": rng.choice((0.0, 0.0, 0.03)),
            "late": rng.choice((0.0, 0.5)),
        }
        world.has_rest = rng.random() < 0.8
        world.rest_lag = rng.choice((0, 0, 2, 7, 40, 1000))
        world.is_reachable = rng.random() < 0.9
        if rng.random() < 0.2 and world.subscribed:
            world.cut(rng.choice(list(world.subscribed)))
        if rng.random() < 0.05:
            world.legs.renew("by order")
        world.run(rng.choice((1, 2, 5)), is_quiet=rng.random() < 0.1)
    world.chance, world.has_rest, world.rest_lag, world.is_reachable = {}, True, 0, True
    world.run(120)
    assert world.book.is_valid
    assert world.was_valid > 100
    assert world.book.best.bid == max(world.exchange.bids)
