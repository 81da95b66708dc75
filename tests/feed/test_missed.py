"""Trades over connections that come and go, with each exchange's own messages: none twice, none missing."""

import json
import random

import pytest
from seeds import seeds

from feedhandler.data import wire
from feedhandler.data.connecting import ConnectBudget, Policy
from feedhandler.data.status import Phase
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.base import Endpoint
from feedhandler.exchanges.trades import MISSING_MAX
from feedhandler.feed.legs import Legs
from feedhandler.feed.missed import HOLD_NS, PATIENCE_NS, TRIES_MAX, UNKNOWN
from feedhandler.feed.session import TICK_NS

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
EPOCH_NS = 1_790_000_000_000_000_000
SYMBOLS = {"binance": "BTCUSDT", "kucoin": "BTC-USDT", "bybit": "BTCUSDT"}
STEPS = {"binance": 1, "kucoin": 7, "bybit": 1}  # of a trade's number


class Trade:
    """One trade of the exchange's."""

    def __init__(self, number, ns):
        self.number, self.ns = number, ns // NS_PER_MS * NS_PER_MS

    def frames(self, exchange, trades):
        """What the exchange sends of some trades."""
        if exchange == "bybit":
            rows = [
                {
                    "i": f"id-{t.number}",
                    "T": t.ns // NS_PER_MS,
                    "p": f"{t.number}",
                    "v": "1",
                    "S": "Buy",
                    "seq": t.number,
                }
                for t in trades
            ]
            return [{"topic": "publicTrade.BTCUSDT", "type": "snapshot", "ts": 1, "data": rows}]
        if exchange == "binance":
            return [
                {
                    "stream": "btcusdt@trade",
                    "data": {
                        "e": "trade",
                        "E": 1,
                        "s": "BTCUSDT",
                        "t": t.number,
                        "p": f"{t.number}",
                        "q": "1",
                    }
                    | {"T": t.ns // 1000, "m": False},
                }
                for t in trades
            ]
        return [
            {
                "topic": "/market/match:BTC-USDT",
                "type": "message",
                "data": {
                    "sequence": f"{t.number}",
                    "tradeId": f"{t.number}",
                    "price": f"{t.number}",
                    "size": "1",
                }
                | {"side": "buy", "time": f"{t.ns}"},
            }
            for t in trades
        ]


def past(exchange, trades):
    """What REST answers."""
    if exchange == "binance":
        return [
            {"id": t.number, "price": f"{t.number}", "qty": "1", "time": t.ns // 1000, "isBuyerMaker": False}
            for t in trades
        ]
    if exchange == "kucoin":
        rows = [
            {"sequence": f"{t.number}", "price": f"{t.number}", "size": "1", "side": "buy", "time": t.ns}
            for t in trades
        ]
        return {"code": "200000", "data": rows[::-1]}
    rows = [
        {"execId": f"id-{t.number}", "symbol": "BTCUSDT", "price": f"{t.number}", "size": "1", "side": "Buy"}
        | {"time": f"{t.ns // NS_PER_MS}", "isBlockTrade": False, "seq": f"{t.number}"}
        for t in trades
    ]
    return {"retCode": 0, "retMsg": "OK", "result": {"category": "spot", "list": rows[::-1]}}


class World:
    """An exchange with one symbol, its REST host, and a feed of some legs; what the feed emits."""

    def __init__(self, exchange, legs):
        self.exchange, self.native = exchange, SYMBOLS[exchange]
        self.mono = NS_PER_S
        self.clock_off_ns = 0  # of this host's clock
        self.market = EXCHANGES[exchange].main()
        self.market.canary = ""
        self.trades = []
        self.sent = {}  # session → how many trades it was sent, of all; None while it is not subscribed
        self.links = {}
        self.records = []
        self.is_reachable = True
        self.delays = {}  # session → how long its frames are under way
        self.under_way = []  # (when it comes, session, frame)
        self.has_rest = True
        self.spoils_rest = False  # its newest trade
        self.budget_wait_s = 0.0  # that is stated, where it has none
        self.rest_lag = 0  # trades that REST does not know yet
        self.repeats = 0  # trades that are sent again on subscription
        self.requests = []
        self.states = self.market.add([self.native], wire.SIMULATED, "trade")
        self.legs = Legs(
            self.market,
            self.states,
            self.emit,
            count=legs,
            policy=Policy(backoff_min_s=0.1, backoff_max_s=0.2, max_attempts=0),
            budget=ConnectBudget(1000, 1.0),
            rng=random.Random(1),
        )
        self.links.update(dict.fromkeys(self.legs.sessions))
        self.run(2 * NS_PER_S)

    @property
    def now_ns(self):
        return EPOCH_NS + self.mono

    def emit(self, state):
        self.records.append((self.mono, wire.unpack(state.record())))

    def run(self, ns):
        end = self.mono + ns
        while self.mono < end:
            self.mono += TICK_NS
            self.arrive()
            for session in list(self.links):
                if self.mono >= session.deadline_mono_ns:
                    self.step(session)
            change = self.legs.advance(self.mono)
            self.links.update(dict.fromkeys(change.run))
            for session in change.stop:
                del self.links[session]
                self.sent.pop(session, None)
            for question in change.ask_trades:
                self.answer_rest(question)

    def answer_rest(self, question):
        path = question.request.path
        self.requests.append((self.mono, path))
        if not self.has_rest:
            question.watch.on_refused(question, self.budget_wait_s)
            return
        known = self.trades[: len(self.trades) - self.rest_lag]
        if self.exchange == "binance":
            first = int(path.partition("fromId=")[2].partition("&")[0])
            known = [trade for trade in known if trade.number >= first][: self.market.past_trades_max]
        else:
            known = known[-self.market.past_trades_max :]
        answer = json.dumps(past(self.exchange, known))
        if self.spoils_rest:
            answer = answer.replace(f'"price": "{known[-1].number}"', '"price": "x"')
        rows = self.market.decode_past_trades("", answer.encode())
        question.watch.on_answer(
            question, rows.items, self.now_ns + self.clock_off_ns, is_whole=not rows.problem
        )

    def step(self, session):
        actions = session.advance(self.mono)
        if actions.connect and not self.is_reachable:
            session.on_closed(self.mono, "unreachable")
        elif actions.connect:
            self.links[session] = "open"
            session.on_endpoint(Endpoint("ws://x"))
            session.on_open(self.mono)
            if self.market.awaits_welcome:
                self.post(session, {"id": "x", "type": "welcome"})
            self.step(session)
        if actions.ping:
            session.on_ping()
        for message in actions.send:
            self.answer(session, json.loads(message))
        if actions.close:
            self.cut(session)

    def answer(self, session, request):
        if self.exchange == "binance":
            reply = {"result": None, "id": request["id"]}
            is_subscription = request["method"] == "SUBSCRIBE"
        elif self.exchange == "kucoin":
            reply = {"id": request["id"], "type": "pong" if request["type"] == "ping" else "ack"}
            is_subscription = request["type"] == "subscribe"
        elif request["op"] == "ping":
            reply, is_subscription = {"op": "pong"}, False
        else:
            reply = {"success": True, "req_id": request["req_id"], "op": request["op"]}
            is_subscription = request["op"] == "subscribe"
        if is_subscription:
            self.sent[session] = max(0, len(self.trades) - self.repeats)
        self.post(session, reply)
        self.deliver()

    def post(self, session, frame):
        if delay_ns := self.delays.get(session, 0):
            self.under_way.append((self.mono + delay_ns, session, frame))
        else:
            self.hand_over(session, frame)

    def hand_over(self, session, frame):
        if self.links.get(session) and session.on_frame(
            json.dumps(frame).encode(), self.now_ns + self.clock_off_ns
        ):
            self.step(session)

    def arrive(self):
        """Hand over what has been under way for long enough."""
        while self.under_way and self.under_way[0][0] <= self.mono:
            _, session, frame = self.under_way.pop(0)
            self.hand_over(session, frame)

    def make(self, count, apart_ns=NS_PER_MS):
        for _ in range(count):
            self.mono += apart_ns
            number = (self.trades[-1].number if self.trades else 1000) + STEPS[self.exchange]
            self.trades.append(Trade(number, self.now_ns))

    def deliver(self):
        for session, start in list(self.sent.items()):
            if session in self.links and self.links[session] and session.phase is Phase.RUNNING:
                trades = self.trades[start:]
                self.sent[session] = len(self.trades)
                for frame in trades[:1] and trades[0].frames(self.exchange, trades):
                    self.post(session, frame)

    def trade(self, count=1):
        self.make(count)
        self.deliver()

    def cut(self, session):
        self.links[session] = None
        self.sent.pop(session, None)
        session.on_closed(self.mono, "cut")

    def cut_all(self):
        for session in list(self.links):
            self.cut(session)

    def published(self):
        return [round(r.price) for _, r in self.records if isinstance(r, wire.Trade)]

    def numbers(self):
        return [trade.number for trade in self.trades]

    def story(self, start=0):
        """What was published, in words."""
        words = []
        for _, record in self.records[start:]:
            flags = str(record.flags).replace("|SIMULATED", "").replace("SIMULATED", "")
            number = f"{round(record.price) - 1000}" if isinstance(record, wire.Trade) else "-"
            words.append(f"{number} {flags}".strip().replace("LAST", "").replace("|", " ").strip())
        return words


@pytest.fixture(params=SYMBOLS)
def lone(request):
    return World(request.param, 1)


@pytest.fixture(params=SYMBOLS)
def pair(request):
    return World(request.param, 2)


def test_of_two_legs_each_trade_is_published_once_and_in_order(pair):
    for _ in range(5):
        pair.trade(3)
        pair.run(NS_PER_S)
    assert pair.published() == pair.numbers()
    assert pair.requests == []


def test_what_was_missed_of_one_moment_is_published_in_its_order(lone):
    lone.trade(3)
    lone.cut_all()
    for _ in range(2):
        lone.make(1)
        lone.make(3, apart_ns=0)
    lone.run(2 * NS_PER_S)
    lone.trade(1)
    lone.run(3 * NS_PER_S)
    assert lone.published() == lone.numbers()


def test_one_leg_that_is_renewed_costs_nothing(pair):
    pair.repeats = 2
    pair.run(6 * NS_PER_S)
    for _ in range(6):
        for session in list(pair.links):
            pair.trade(2)
            pair.cut(session)
            pair.trade(2)
            pair.run(6 * NS_PER_S)  # what the other one has under way is no longer from before that
    assert sorted(pair.published()) == pair.numbers()
    assert pair.requests == []
    assert [word for word in pair.story() if "STALE" in word or "DOWN" in word] == []


def test_what_a_lone_leg_missed_is_fetched_and_published_before_newer_ones(lone):
    lone.trade(3)
    lone.cut_all()
    lone.make(4)
    start = len(lone.records)
    lone.run(NS_PER_S)
    lone.trade(2)
    lone.run(2 * NS_PER_S)
    lone.trade(1)
    assert lone.published() == lone.numbers(), "in order"
    trades = [record for _, record in lone.records if isinstance(record, wire.Trade)]
    assert [bool(trade.flags & wire.RECOVERED) for trade in trades] == [False] * 3 + [True] * 4 + [False] * 3
    assert all(not trade.flags & wire.NOT_LIVE for trade in trades)
    assert "-" not in "".join(lone.story(start)).replace("DOWN", ""), "no condition besides"
    assert (lone.legs.missed.lost, lone.legs.missed.recovered) == ({}, 4)
    assert len(lone.requests) <= 2


def test_newer_ones_that_came_first_wait_for_those_that_are_fetched(lone):
    lone.trade(3)
    lone.cut_all()
    lone.make(4)
    lone.has_rest = False
    while not lone.requests:
        lone.run(TICK_NS)
    lone.trade(2)
    assert lone.published() == lone.numbers()[:3], "held"
    lone.has_rest = True
    lone.run(HOLD_NS - 2 * TICK_NS)
    assert lone.published() == lone.numbers()


def test_they_wait_for_less_than_two_seconds(lone):
    lone.trade(3)
    lone.cut_all()
    lone.make(4)
    lone.has_rest = False
    while not lone.requests:
        lone.run(TICK_NS)
    lone.trade(2)
    came = lone.mono
    lone.run(5 * NS_PER_S)
    late = [at for at, record in lone.records if isinstance(record, wire.Trade)][3:]
    assert len(late) == 2
    assert all(at - came < 2 * NS_PER_S for at in late)
    lone.has_rest = True
    lone.run(30 * NS_PER_S)
    assert sorted(lone.published()) == lone.numbers()
    assert lone.legs.missed.lost == {}


def test_what_cannot_be_fetched_is_told_by_a_condition(lone):
    lone.trade(3)
    lone.cut_all()
    lone.make(4)
    lone.has_rest = False
    lone.run(2 * NS_PER_S)
    lone.trade(2)
    start = len(lone.records)
    lone.run(3 * 2**TRIES_MAX * NS_PER_S)
    words = lone.story(start)
    assert words.count("- STALE") == 1
    assert words[-1] == "-", "and it is well again"
    assert lone.published() == lone.numbers()[:3] + lone.numbers()[-2:]
    assert list(lone.legs.missed.lost.values()) == [4 if lone.exchange == "binance" else UNKNOWN]
    assert len(lone.requests) - TRIES_MAX == (lone.exchange == "binance"), "where none was seen to be missing"


def test_where_numbers_tell_what_is_missing_a_budget_that_is_used_up_is_waited_for():
    world = World("binance", 1)
    world.trade(3)
    world.cut_all()
    world.make(4)
    world.has_rest, world.budget_wait_s = False, 20.0
    world.run(3 * NS_PER_S)
    assert world.story()[-1] == "-", "well: the next trade tells whether something is missing"
    world.trade(2)
    world.run(250 * NS_PER_S)
    assert 10 <= len(world.requests) <= 20
    assert world.legs.missed.lost == {}
    world.has_rest = True
    world.run(25 * NS_PER_S)
    assert sorted(world.published()) == world.numbers()
    assert "- STALE" not in world.story()


def test_where_the_next_number_follows_nothing_is_requested():
    world = World("binance", 1)
    world.trade(3)
    world.cut_all()
    while not world.sent:
        world.run(TICK_NS)
    world.trade(2)
    world.run(TICK_NS)
    assert world.published() == world.numbers()
    assert world.requests == []


def test_more_than_rest_has_is_told(lone):
    lone.trade(3)
    lone.cut_all()
    lone.make(lone.market.past_trades_max + 50)
    lone.run(3 * NS_PER_S)
    lone.trade(2)
    lone.run(NS_PER_S)
    if lone.exchange == "binance":
        assert lone.published() == lone.numbers(), "from any number on"
        assert lone.legs.missed.lost == {}
        return
    numbers = lone.numbers()
    assert lone.published() == numbers[:3] + numbers[53:]
    assert list(lone.legs.missed.lost.values()) == [UNKNOWN]
    assert "- STALE" in lone.story()


def test_rest_that_is_behind_is_asked_again(lone):
    lone.trade(3)
    lone.cut_all()
    lone.make(6)
    lone.rest_lag = 4
    lone.run(NS_PER_S // 2)
    lone.trade(1)
    lone.rest_lag = 5
    lone.run(NS_PER_S // 2)
    lone.rest_lag = 0
    lone.run(10 * NS_PER_S)
    lone.trade(1)
    lone.run(10 * NS_PER_S)
    assert sorted(lone.published()) == lone.numbers()
    assert lone.legs.missed.lost == {}


def test_where_nothing_happened_all_is_well_at_once(lone):
    lone.trade(3)
    lone.cut_all()
    start = len(lone.records)
    lone.run(3 * NS_PER_S)
    assert lone.story(start) == ["-"]
    lone.trade(1)
    assert lone.published() == lone.numbers()


def test_a_connection_that_is_lost_again_before_rest_answered_is_down(lone):
    lone.trade(3)
    lone.cut_all()
    lone.make(4)
    lone.has_rest = False
    while not lone.requests:
        lone.run(TICK_NS)
    lone.trade(2)
    lone.is_reachable = False
    lone.cut_all()
    assert lone.story()[-1] == "- DOWN"
    lone.run(30 * NS_PER_S)
    assert lone.story()[-1] == "- DOWN"
    lone.has_rest = lone.is_reachable = True
    lone.make(3)
    lone.run(5 * NS_PER_S)
    assert sorted(lone.published()) == lone.numbers()
    assert lone.legs.missed.lost == {}


def test_before_the_first_subscription_nothing_was_missed(lone):
    lone.make(5)
    lone.cut_all()
    lone.run(3 * NS_PER_S)
    lone.trade(2)
    assert lone.published() == lone.numbers()[-2:]
    assert lone.requests == []


def test_what_nobody_wanted_is_not_fetched(lone):
    lone.trade(3)
    [state] = lone.states
    lone.legs.remove([state])
    lone.market.remove([state])
    lone.make(3)
    lone.legs.add(lone.market.add([lone.native], wire.SIMULATED, "trade"))
    lone.cut_all()
    lone.run(3 * NS_PER_S)
    lone.trade(2)
    lone.run(10 * NS_PER_S)
    assert lone.published() == lone.numbers()[:3] + lone.numbers()[-2:]
    assert lone.requests == []


def test_what_a_leg_had_under_way_is_fetched_when_it_is_gone_if_the_other_one_came_later(pair):
    first, second = pair.links
    pair.trade(3)
    pair.cut(second)
    del pair.sent[first]  # it hangs: what follows is under way until it is gone
    pair.make(4)
    pair.run(2 * NS_PER_S)
    pair.trade(2)
    pair.run(NS_PER_S)
    pair.cut(first)
    pair.run(5 * NS_PER_S)
    pair.trade(1)
    pair.run(5 * NS_PER_S)
    assert sorted(pair.published()) == pair.numbers()
    recovered = [r for _, r in pair.records if isinstance(r, wire.Trade) and r.flags & wire.RECOVERED]
    assert [round(trade.price) for trade in recovered] == pair.numbers()[3:7]
    assert pair.legs.missed.lost == {}


@pytest.mark.parametrize("exchange", ["kucoin", "bybit"])
def test_what_a_leg_had_under_way_is_fetched_though_the_clock_was_set_after_the_other_one_came(exchange):
    world = World(exchange, 2)
    first, second = world.links
    world.run(6 * NS_PER_S)
    world.trade(3)
    world.cut(second)
    world.delays = {first: 3 * NS_PER_S}
    world.trade(1)
    del world.sent[first]  # it hangs: what follows is under way until it is gone
    world.make(3)
    world.run(2 * NS_PER_S)
    world.clock_off_ns = 60 * NS_PER_S
    world.run(2 * NS_PER_S)
    assert world.published() == world.numbers()[:4]
    world.cut(first)
    world.delays = {}
    world.run(5 * NS_PER_S)
    world.trade(1)
    world.run(5 * NS_PER_S)
    assert sorted(world.published()) == world.numbers()
    assert world.legs.missed.lost == {}


@pytest.mark.parametrize("exchange", ["kucoin", "bybit"])
def test_what_a_leg_had_under_way_that_never_brought_any_is_fetched_though_the_clock_was_wrong(exchange):
    world = World(exchange, 2)
    first, second = world.links
    world.run(6 * NS_PER_S)
    world.trade(3)
    world.clock_off_ns = 60 * NS_PER_S
    world.cut(second)
    world.run(NS_PER_S)
    del world.sent[second]  # it hangs
    world.run(6 * NS_PER_S)
    world.trade(1)
    world.cut(first)
    world.make(3)
    world.run(2 * NS_PER_S)
    assert first in world.sent
    assert world.published() == world.numbers()[:4]
    assert world.requests == []
    world.cut(second)
    world.run(5 * NS_PER_S)
    world.trade(1)
    world.run(5 * NS_PER_S)
    assert sorted(world.published()) == world.numbers()
    assert world.legs.missed.lost == {}


def test_a_leg_is_renewed_once_what_it_had_under_way_has_come(lone):
    lone.trade(3)
    (old,) = lone.links
    lone.delays = {old: 4 * NS_PER_S}
    lone.trade(1)
    lone.run(NS_PER_S)
    lone.trade(1)
    lone.legs.renew("by order")
    lone.run(NS_PER_S)
    lone.trade(2)
    lone.run(20 * NS_PER_S)
    lone.trade(1)
    assert old not in lone.links
    assert sorted(lone.published()) == lone.numbers()
    assert lone.legs.missed.lost == {}


@pytest.mark.parametrize("clock_off_ns", [0, -50 * NS_PER_S])
def test_a_leg_that_is_gone_costs_no_request_if_the_other_one_was_there_before(pair, clock_off_ns):
    first, second = pair.links
    pair.run(6 * NS_PER_S)
    pair.clock_off_ns = clock_off_ns
    for session in (second, first):
        pair.trade(1)
        pair.cut(session)
        pair.run(6 * NS_PER_S)
        pair.trade(2)
        pair.run(2 * NS_PER_S)
    assert sorted(pair.published()) == pair.numbers()
    assert pair.requests == []


@pytest.mark.parametrize("exchange", ["kucoin", "bybit"])
def test_what_was_missed_before_a_connection_that_brought_nothing_is_fetched_though_the_clock_was_wrong(
    exchange,
):
    world = World(exchange, 2)
    first, second = world.links
    world.trade(2)
    world.cut(second)
    world.clock_off_ns = 60 * NS_PER_S
    world.run(7 * NS_PER_S)
    del world.sent[second]  # it hangs
    world.trade(1)
    world.is_reachable = False
    world.cut(first)
    world.make(3)
    world.cut(second)
    world.is_reachable = True
    world.run(2 * NS_PER_S)
    world.trade(1)
    world.run(10 * NS_PER_S)
    assert sorted(world.published()) == world.numbers()


def test_a_number_that_is_skipped_is_fetched_where_numbers_follow_each_other():
    world = World("binance", 2)
    world.trade(3)
    world.make(2)
    for session in world.sent:
        world.sent[session] = len(world.trades)
    world.trade(1)
    assert world.published() == world.numbers()[:3] + world.numbers()[-1:]
    world.run(PATIENCE_NS + NS_PER_S)
    assert sorted(world.published()) == world.numbers()
    assert len(world.requests) == 1
    assert world.legs.missed.lost == {}


def test_a_number_that_another_leg_brings_is_not_missing():
    world = World("binance", 2)
    world.trade(3)
    one, two = world.links
    world.make(2)
    world.sent[one] = len(world.trades)
    behind, world.sent[two] = world.sent[two], len(world.trades)
    world.trade(1)
    world.sent[two] = behind
    world.deliver()
    world.run(5 * NS_PER_S)
    assert sorted(world.published()) == world.numbers()
    assert world.requests == []


def test_more_gaps_than_are_noted_are_told_and_the_others_fetched():
    world = World("binance", 1)
    world.has_rest, world.budget_wait_s = False, 5.0
    world.trade(3)
    (session,) = world.sent
    for _ in range(MISSING_MAX + 6):
        world.make(2)
        world.sent[session] = len(world.trades)
        world.trade()
    start = len(world.records)
    world.run(2 * TICK_NS)
    assert world.story(start)[0] == "- STALE"
    assert list(world.legs.missed.lost.values()) == [12]
    world.has_rest = True
    world.run(60 * NS_PER_S)
    assert len(world.published()) == len(world.numbers()) - 12
    assert list(world.legs.missed.lost.values()) == [12]
    assert not world.states[0].flags & wire.STALE


@pytest.mark.parametrize("exchange", SYMBOLS)
@pytest.mark.parametrize("seed", seeds(12, before_commit=3))
def test_whatever_becomes_of_connections_each_trade_is_published_once(exchange, seed):
    rng = random.Random(seed)
    world = World(exchange, rng.choice((1, 1, 2, 3)))
    world.trade(1)
    world.run(NS_PER_S)
    for _ in range(120):
        act = rng.random()
        if act < 0.55:
            world.trade(rng.choice((1, 1, 2, 20)))
        elif act < 0.75:
            world.run(rng.choice((TICK_NS, NS_PER_S, 15 * NS_PER_S)))
        elif act < 0.85:
            session = rng.choice(list(world.links))
            if session.phase is Phase.RUNNING:
                world.cut(session)
        elif act < 0.88:
            world.cut_all()
        elif act < 0.92:
            world.repeats = rng.choice((0, 3, 50))
        elif act < 0.95:
            world.legs.renew("by order")
        else:
            world.is_reachable = rng.random() < 0.7
    world.is_reachable = True
    world.run(30 * NS_PER_S)
    world.trade(1)
    world.run(30 * NS_PER_S)
    published = world.published()
    assert len(published) == len(set(published)), "none twice"
    missing = set(world.numbers()) - set(published)
    assert not missing or UNKNOWN in world.legs.missed.lost.values(), (
        f"none missing without a word: {missing}"
    )
    if exchange == "binance":
        assert not missing
    assert not world.records[-1][1].flags & wire.NOT_LIVE


def test_a_quiet_market_is_quiet(lone):
    for _ in range(30):
        lone.trade(2)
        lone.run(NS_PER_S // 2)
    start = len(lone.records)
    lone.run(900 * NS_PER_S)
    assert lone.records[start:] == []
    assert lone.legs.freshness.stale() == {}
    assert lone.requests == []
    lone.trade(1)
    assert lone.published() == lone.numbers()


def spoiled(frame):
    """The same with a first trade that has no price."""
    frame = json.loads(json.dumps(frame))
    data = frame.get("data")
    trade = data[0] if isinstance(data, list) else data
    if isinstance(trade, dict):
        trade.update({name: "x" for name in ("p", "price") if name in trade})
    return frame


def trade_unreadably(world, count):
    """Some trades, of which each connection is sent what cannot be read, or not all of it."""
    hand_over = world.hand_over
    world.hand_over = lambda session, frame: hand_over(session, spoiled(frame))
    world.trade(count)
    world.hand_over = hand_over


@pytest.mark.parametrize("legs", [1, 2])
@pytest.mark.parametrize("exchange", SYMBOLS)
def test_trades_that_cannot_be_read_are_fetched(exchange, legs):
    world = World(exchange, legs)
    world.trade(3)
    world.run(2 * NS_PER_S)
    trade_unreadably(world, 3)
    world.run(NS_PER_S)
    world.trade(2)
    world.run(10 * NS_PER_S)
    assert sorted(world.published()) == world.numbers()
    assert not world.legs.missed.lost
    assert len(world.requests) <= 3


@pytest.mark.parametrize("exchange", ["kucoin", "bybit"])
def test_what_cannot_be_read_soon_after_the_first_trade_is_fetched_though_our_clock_is_fast(exchange):
    world = World(exchange, 1)
    world.clock_off_ns = 30 * NS_PER_S
    world.cut_all()
    world.run(2 * NS_PER_S)
    world.trade(1)
    world.run(NS_PER_S)
    trade_unreadably(world, 1)
    world.run(NS_PER_S)
    world.trade(2)
    world.run(10 * NS_PER_S)
    assert sorted(world.published()) == world.numbers()


def test_trades_that_neither_connection_nor_rest_can_state_are_told(lone):
    lone.trade(3)
    lone.run(2 * NS_PER_S)
    lone.has_rest = False
    trade_unreadably(lone, 1)
    lone.run(NS_PER_S)
    lone.trade(2)
    start = len(lone.records)
    lone.run(3 * 2**TRIES_MAX * NS_PER_S)
    words = lone.story(start)
    assert words.count("- STALE") == 1
    assert words[-1] == "-"
    assert list(lone.legs.missed.lost.values()) == [1 if lone.exchange == "binance" else UNKNOWN]


@pytest.mark.parametrize("exchange", ["kucoin", "bybit"])
def test_an_answer_of_which_not_all_can_be_read_tells_that_some_are_missing(exchange):
    world = World(exchange, 1)
    world.trade(3)
    world.run(2 * NS_PER_S)
    world.spoils_rest = True
    trade_unreadably(world, 1)
    world.run(10 * NS_PER_S)
    assert world.story().count("- STALE") == 1
    assert list(world.legs.missed.lost.values()) == [UNKNOWN]


@pytest.mark.parametrize("exchange", ["kucoin", "bybit"])
def test_many_that_cannot_be_read_cost_few_requests(exchange):
    world = World(exchange, 2)
    world.trade(3)
    world.run(2 * NS_PER_S)
    for _ in range(100):
        trade_unreadably(world, 1)
        world.run(NS_PER_S // 4)
    world.trade(1)
    world.run(10 * NS_PER_S)
    assert sorted(world.published()) == world.numbers()
    assert len(world.requests) < 30
