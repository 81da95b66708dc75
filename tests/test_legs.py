"""Legs in a simulated world: exchange, network and clock are the test's, and everything comes from a seed."""

import heapq
import itertools
import json
import os
import random

import pytest
import twins

from feedhandler import wire
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.base import LINES_MAX, Endpoint
from feedhandler.legs import LEGS_MAX, NS_PER_DAY, DailyWindow, Legs
from feedhandler.session import NS_PER_S, ConnectBudget, Phase, Policy

EPOCH_NS = 1_790_000_000 * NS_PER_S
SEEDS = int(os.environ.get("SEEDS", "12"))
STEP_NS = 20_000_000
DELAY_NS = 5_000_000  # of a link that is well
NATIVES = {"binance": "S{}USDT", "kucoin": "S{}-USDT", "bybit": "S{}USDT"}


# --- the three protocols, as little of them as a session needs


def binance_answer(request):
    return {"result": None, "id": request["id"]}, request["params"]


def binance_quote(native, number, ms):
    amounts = {"b": f"{number}.5", "B": "1", "a": f"{number + 1}.5", "A": "2"}
    return {"stream": f"{native.lower()}@bookTicker", "data": {"u": number, "s": native, **amounts}}


def binance_statistics(native, number, ms):
    amounts = dict.fromkeys("cohlvq", "7")
    amounts |= {"b": f"{number}.5", "B": "1", "a": f"{number + 1}.5", "A": "2"}
    return {"stream": "x", "data": {"e": "24hrTicker", "E": ms, "s": native, **amounts}}


def kucoin_answer(request):
    if request["type"] == "ping":
        return {"id": request["id"], "type": "pong"}, ()
    channel, _, symbols = request["topic"].partition(":")
    return {"id": request["id"], "type": "ack"}, [f"{channel}:{symbol}" for symbol in symbols.split(",")]


def kucoin_quote(native, number, ms):
    data = {"bids": [f"{number}.5", "1"], "asks": [f"{number + 1}.5", "2"], "timestamp": number}
    return {"type": "message", "topic": f"/spotMarket/level1:{native}", "subject": "level1", "data": data}


def kucoin_statistics(native, number, ms):
    inner = {"symbol": native, "open": 7, "high": 7, "low": 7, "vol": 7, "volValue": 7, "datetime": ms}
    data = {"sequence": str(number), "data": inner}
    return {
        "type": "message",
        "topic": f"/market/snapshot:{native}",
        "subject": "trade.snapshot",
        "data": data,
    }


def bybit_answer(request):
    text = "pong" if request["op"] == "ping" else "subscribe"
    answer = {"success": True, "ret_msg": text, "op": request["op"], "req_id": request["req_id"]}
    return answer, request.get("args", ())


def bybit_quote(native, number, ms):
    data = {"s": native, "b": [[f"{number}.5", "1"]], "a": [[f"{number + 1}.5", "2"]], "u": number, "seq": 1}
    return {"topic": f"orderbook.1.{native}", "ts": ms, "type": "snapshot", "data": data, "cts": ms}


def bybit_statistics(native, number, ms):
    names = ("lastPrice", "highPrice24h", "lowPrice24h", "prevPrice24h", "volume24h", "turnover24h")
    data = {"symbol": native, **dict.fromkeys(names, "7")}
    return {"topic": f"tickers.{native}", "ts": ms, "type": "snapshot", "cs": ms, "data": data}


PROTOCOLS = {
    "binance": (binance_answer, binance_quote, binance_statistics, "{}@bookTicker"),
    "kucoin": (kucoin_answer, kucoin_quote, kucoin_statistics, "/spotMarket/level1:{}"),
    "bybit": (bybit_answer, bybit_quote, bybit_statistics, "orderbook.1.{}"),
}


class Link:
    """One connection between the exchange and a session: in order, and as late as it likes."""

    def __init__(self, opened_ns):
        self.opened_ns = opened_ns
        self.topics = set()
        self.due = 0  # of the newest frame under way: none overtakes another
        self.frames = []
        self.delay_ns = DELAY_NS
        self.stalled_until = 0


class World:
    """Legs, the connections that they hold, and a market of numbered quotes."""

    make_state = None

    def __init__(self, exchange="binance", legs=1, symbols=3, seed=1, quiet=(), **policy):
        self.rng = random.Random(seed)
        self.now = 1000 * NS_PER_S
        self.exchange = EXCHANGES[exchange](self.make_state)
        self.answer, self.quote, self.statistics, self.topic = PROTOCOLS[exchange]
        self.natives = [NATIVES[exchange].format(number) for number in range(symbols)]
        self.quiet = {self.natives[number] for number in quiet}  # they say something on demand
        self.exchange.add(self.natives, 0)
        self.number = dict.fromkeys(self.natives, 1000)
        self.sent = {native: [] for native in self.natives}  # numbers of quotes
        self.got = {native: [] for native in self.natives}
        self.flags = dict.fromkeys(self.natives, 0)
        self.flagged = []  # (time, native, flags)
        self.links = {}
        self.is_reachable = True
        self.order = itertools.count()
        self.connects = []
        self.retired = 0
        self.legs = Legs(
            self.exchange,
            self.natives,
            self.emit,
            count=legs,
            policy=Policy(max_attempts=0, **policy),
            budget=ConnectBudget(*self.exchange.connects),
            rng=self.rng,
        )
        for session in self.legs.sessions:
            self.links[session] = None

    def emit(self, state):
        record = wire.unpack(state.record())
        if record.flags & (wire.STALE | wire.DOWN) and record.flags != self.flags[state.native]:
            self.flagged.append((self.now, state.native, record.flags))
        self.flags[state.native] = record.flags
        if record.bid != record.bid:
            return
        number = int(record.bid)
        got = self.got[state.native]
        assert record.ask == record.bid + 1, "never half of one quote and half of another"
        assert not got or number >= got[-1], "a ticker never moves backwards"
        if not got or number > got[-1]:
            got.append(number)

    # --- the exchange

    def say(self, native):
        """A new quote of an instrument, on all connections that have subscribed to it."""
        self.number[native] += self.rng.randrange(1, 4)
        self.sent[native].append(self.number[native])
        frame = self.quote(native, self.number[native], self.ms())
        topics = {self.topic.format(native), self.topic.format(native.lower())}
        for link in filter(None, self.links.values()):
            if link.topics & topics:
                self.post(link, frame)

    def ms(self):
        return (EPOCH_NS + self.now) // 1_000_000

    def post(self, link, frame):
        link.due = max(link.due, self.now + link.delay_ns + self.rng.randrange(3_000_000))
        heapq.heappush(link.frames, (link.due, next(self.order), json.dumps(frame).encode()))

    def take_request(self, link, message):
        request = json.loads(message)
        answer, topics = self.answer(request)
        self.post(link, answer)
        link.topics.update(topics)
        for topic in topics:
            for native in self.natives:
                is_quote = topic in (self.topic.format(native), self.topic.format(native.lower()))
                if native.lower() in topic.lower() and not is_quote:
                    self.post(link, self.statistics(native, self.number[native], self.ms()))

    # --- time

    def run(self, seconds, each_step=lambda: None):
        end = self.now + int(seconds * NS_PER_S)
        while self.now < end:
            each_step()
            for native in self.natives:
                if native not in self.quiet and self.rng.random() < 0.3:
                    self.say(native)
            self.deliver()
            for session in list(self.links):
                if self.now >= session.deadline_mono_ns:
                    self.advance(session)
            self.steer()
            self.now += STEP_NS

    def deliver(self):
        for session, link in list(self.links.items()):
            while link and link.frames and max(link.frames[0][0], link.stalled_until) <= self.now:
                _, _, frame = heapq.heappop(link.frames)
                if session.on_frame(frame, EPOCH_NS + self.now):
                    self.advance(session)
                link = self.links.get(session)

    def advance(self, session):
        step = session.advance(self.now)
        if step.connect:
            self.connects.append(self.now)
            if self.is_reachable:
                session.on_endpoint(Endpoint("ws://x"))
                link = self.links[session] = Link(self.now)
                session.on_open(self.now)
                if self.exchange.awaits_welcome:
                    self.post(link, {"id": "c", "type": "welcome"})
                step.send += session.advance(self.now).send
            else:
                session.on_closed(self.now, "refused")
        for message in step.send:
            if self.links[session] is not None:
                self.take_request(self.links[session], message)
        if step.close:
            self.close(session, step.close)

    def steer(self):
        change = self.legs.advance(self.now)
        for session in change.run:
            self.links[session] = None
        for session in change.stop:
            self.retired += 1
            self.close(session, "stopping")
            del self.links[session]
        sessions = self.legs.sessions
        assert set(sessions) == set(self.links)
        lines = [session.line.index for session in sessions]
        assert len(set(lines)) == len(lines) <= LINES_MAX

    def close(self, session, reason):
        self.links[session] = None
        if session.phase is not Phase.BACKOFF:
            session.on_closed(self.now, reason)

    # --- verdicts

    def all_live(self):
        return all(
            not self.flags[native] & (wire.STALE | wire.DOWN) and self.got[native] for native in self.natives
        )

    def missed(self):
        """The quotes that were said since the first that came, and never came."""
        self.quiet = set(self.natives)
        self.run(5)  # what is under way
        missed = {}
        for native, got in self.got.items():
            since = [number for number in self.sent[native] if got and number >= got[0]]
            if lost := sorted(set(since) - set(got)):
                missed[native] = lost
        return missed


@pytest.fixture(params=twins.KINDS, autouse=True, scope="module")
def make_state(request):
    """Every test here runs over the state in Python, and over its compiled twin."""
    World.make_state = twins.of(request.param).State
    yield


# --- renewal


@pytest.mark.parametrize("legs", [1, 2, 3])
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_connections_are_renewed_before_their_maximum_age_and_no_update_is_missed(exchange, legs):
    world = World(exchange, legs, max_age_s=30.0)
    oldest = 0

    def look():
        nonlocal oldest
        for link in filter(None, world.links.values()):
            oldest = max(oldest, world.now - link.opened_ns)

    world.run(200, look)
    assert world.retired >= 5 * legs
    assert oldest < 30 * NS_PER_S
    assert world.missed() == {}
    assert world.flagged == []


def test_legs_do_not_come_of_age_together():
    world = World(legs=3, max_age_s=60.0)
    times = []

    def look():
        times.extend([world.now] * (world.retired - len(times)))

    world.run(300, look)
    assert all(b - a > NS_PER_S for a, b in itertools.pairwise(times))


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_quiet_market_is_renewed_too_and_stays_what_it_was(exchange):
    world = World(exchange, symbols=3, quiet=(1,), max_age_s=30.0)
    world.run(3)
    world.say(world.natives[1])
    world.run(100)
    assert world.retired >= 2
    assert world.flagged == []
    world.say(world.natives[1])
    world.run(1)
    assert world.missed() == {}


def test_an_exchange_that_says_goodbye_is_left_when_the_successor_has_all():
    world = World("binance")
    world.run(3)
    (link,) = world.links.values()
    world.post(link, {"stream": "!serverShutdown", "data": {"e": "serverShutdown", "E": world.ms()}})
    world.run(5)
    assert world.retired == 1
    assert len(world.links) == 1
    assert world.missed() == {}
    assert world.flagged == []


def test_an_exchange_that_hangs_up_on_the_old_one_leaves_the_successor():
    world = World("binance")
    world.run(3)
    (session,) = world.links
    world.legs.renew("by order")
    world.run(0.1)
    assert len(world.links) == 2
    world.close(session, "gone")
    world.run(5)
    assert world.retired == 1
    assert world.all_live()


def test_a_successor_that_cannot_connect_costs_nothing_while_the_old_one_lives():
    world = World("binance")
    world.run(3)
    world.is_reachable = False
    world.legs.renew("by order")
    world.run(20)
    assert world.retired == 0
    assert world.legs.state() == "live"
    world.is_reachable = True
    world.run(60)
    assert world.retired == 1
    assert world.missed() == {}
    assert world.flagged == []


def test_a_successor_counts_on_and_does_not_ask_again_for_what_was_refused():
    world = World("bybit")
    world.run(3)
    (old,) = world.links
    old.on_frame(b"garbage", EPOCH_NS + world.now)
    topic = f"tickers.{world.natives[1]}"
    old.rejected[topic] = "no such thing"
    old._rejected_mono_ns[topic] = world.now
    before = old.frames, old.line.news
    world.legs.renew("by order")
    world.run(3)
    (new,) = world.links
    assert new is not old
    assert new.connects == 2
    assert (new.decode_errors, len(new.kept_frames)) == (1, 1)
    assert new.frames > before[0]
    assert new.line.news > before[1]
    assert new.rejected == {topic: "no such thing"}
    assert topic not in world.links[new].topics


def test_only_one_leg_is_renewed_at_a_time_by_order():
    world = World(legs=3)
    world.run(3)
    world.legs.renew("by order")
    most = 0

    def look():
        nonlocal most
        most = max(most, len(world.links))

    world.run(10, look)
    assert world.retired == 3
    assert most == 4


@pytest.mark.parametrize(("text", "hours"), [("04:00-04:30", 4), ("23:45-00:15", 23.75), ("00:00-23:59", 0)])
def test_a_window_opens_once_a_day(text, hours):
    window = DailyWindow(text)
    midnight = 20_000 * NS_PER_DAY
    minute = 60 * NS_PER_S
    looks = range(midnight + NS_PER_DAY // 2, midnight + 3 * NS_PER_DAY + NS_PER_DAY // 2, minute)
    opened = [(now % NS_PER_DAY) / NS_PER_S / 3600 for now in looks if window.opens(now)]
    assert opened == [hours] * 3


@pytest.mark.parametrize(
    "text", ["", "04:00", "04:00-04:00", "4-5", "04:00-25:00", "a-b", "04:00-04:30-05:00"]
)
def test_what_is_no_window_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        DailyWindow(text)


def test_a_process_that_starts_inside_a_window_has_new_connections_already():
    window = DailyWindow("00:00-12:00")
    assert not window.opens(20_000 * NS_PER_DAY + 1)
    assert not window.opens(20_000 * NS_PER_DAY + NS_PER_DAY // 4)


# --- redundancy


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_one_leg_that_dies_costs_no_update_and_says_nothing(exchange):
    world = World(exchange, legs=2)
    world.run(5)
    for _ in range(6):
        world.close(world.legs.sessions[world.rng.randrange(2)], "unplugged")
        world.run(20)
        assert all(session.phase is Phase.RUNNING for session in world.links)
    assert world.missed() == {}
    assert world.flagged == []


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_one_leg_that_stalls_costs_no_update_and_is_replaced(exchange):
    world = World(exchange, legs=2)
    world.run(5)
    stalled = world.legs.sessions[0]
    world.links[stalled].stalled_until = 1 << 62
    world.run(60)
    assert stalled.connects >= 2
    assert world.missed() == {}
    assert world.flagged == []


def test_the_slower_leg_is_counted_and_its_distance_measured():
    world = World(legs=2)
    world.run(5)
    fast, slow = world.legs.sessions
    world.links[slow].delay_ns = 105_000_000
    before = slow.line.repeated, slow.line.behind_ns, slow.line.news
    world.run(30)
    repeated = slow.line.repeated - before[0]
    behind_ns = (slow.line.behind_ns - before[1]) / repeated
    assert slow.line.news - before[2] < repeated / 50
    assert 80_000_000 < behind_ns < 120_000_000
    assert fast.line.news > 100
    assert world.missed() == {}


def test_without_any_leg_everything_is_down_and_then_comes_back():
    world = World(legs=2)
    world.run(5)
    world.is_reachable = False
    for session in world.legs.sessions:
        world.close(session, "unplugged")
    assert {native for _, native, flags in world.flagged if flags & wire.DOWN} == set(world.natives)
    world.run(5)
    assert world.legs.state() == "connecting"
    world.is_reachable = True
    world.run(60)
    assert world.all_live()
    assert world.legs.state() == "live"


def test_what_only_the_dead_leg_has_said_is_stale_until_the_other_says_it_too():
    world = World(legs=2, quiet=(1,))
    quiet = world.natives[1]
    first, second = world.legs.sessions
    world.run(5)
    world.close(second, "unplugged")
    second.deadline_mono_ns = 1 << 62  # it cannot come back for now
    world.say(quiet)
    world.run(1)
    second.deadline_mono_ns = world.now
    world.run(0.05)  # it is connected again, and has not subscribed to everything yet
    world.close(first, "unplugged")
    first.deadline_mono_ns = 1 << 62
    assert world.flags[quiet] & wire.STALE
    world.run(3)
    world.say(quiet)
    world.run(1)
    assert world.all_live()


def test_silence_of_one_leg_says_nothing_and_silence_of_both_does():
    world = World(legs=2)
    world.run(5)
    for number, session in enumerate(world.legs.sessions):
        world.links[session].stalled_until = 1 << 62
        world.run(6)
        assert bool(world.flagged) == bool(number)
    assert all(flags & wire.STALE for flags in world.flags.values())
    world.run(60)
    assert world.all_live()


# --- whatever happens


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_no_update_is_missed_while_faults_leave_one_leg_alone(exchange, seed):
    world = World(exchange, legs=2, seed=seed, max_age_s=200.0, symbols=2, quiet=(1,))
    world.run(5)
    world.say(world.natives[1])
    rng = world.rng
    healed = 0

    def play():
        nonlocal healed
        if rng.random() < 0.001:
            world.say(world.natives[1])
        sessions = world.legs.sessions
        links = [world.links[session] for session in sessions]
        if world.now < healed or len(sessions) > 2 or not all(links):
            return
        if any(link.delay_ns != DELAY_NS or link.stalled_until > world.now for link in links):
            for link in links:
                link.delay_ns, link.stalled_until = DELAY_NS, 0
            healed = world.now + 5 * NS_PER_S
            return
        if any(session.condition or session.unheard() for session in sessions):
            return
        healed = world.now + rng.randrange(5, 40) * NS_PER_S
        victim = rng.choice(sessions)
        kind = rng.randrange(4)
        if kind == 0:
            world.close(victim, "unplugged")
        elif kind == 1:
            world.links[victim].stalled_until = world.now + rng.randrange(60) * NS_PER_S
        elif kind == 2:
            world.links[victim].delay_ns = rng.randrange(2_000_000_000)
        else:
            world.legs.renew("by order")

    world.run(300, play)
    assert world.missed() == {}, f"seed {seed}"
    assert world.flagged == [], f"seed {seed}"


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize("seed", range(SEEDS))
def test_whatever_happens_nothing_moves_backwards_and_all_comes_back(exchange, seed):
    rng = random.Random(seed)
    world = World(exchange, legs=rng.randrange(1, LEGS_MAX + 1), seed=seed, max_age_s=90.0)

    def play():
        if rng.random() < 0.01:
            sessions = [session for session, link in world.links.items() if link is not None]
            kind = rng.randrange(7)
            if kind == 0:
                world.is_reachable = rng.random() < 0.5
            elif kind == 1:
                world.legs.renew("by order")
            elif kind == 2:
                world.now += rng.randrange(1, 100) * NS_PER_S  # this process was stopped
            elif sessions:
                victim = rng.choice(sessions)
                link = world.links[victim]
                if kind == 3:
                    world.close(victim, "unplugged")
                elif kind == 4:
                    link.stalled_until = world.now + rng.randrange(100) * NS_PER_S
                elif kind == 5:
                    link.delay_ns = rng.randrange(3_000_000_000)
                elif link.frames:
                    _, _, frame = rng.choice(link.frames)
                    world.post(link, json.loads(frame))  # once more, and late

    world.run(200, play)
    world.is_reachable = True
    for link in filter(None, world.links.values()):
        link.stalled_until, link.delay_ns = 0, DELAY_NS
    world.run(150)
    assert world.all_live(), f"seed {seed}"
    assert world.legs.state() == "live"
    assert len(world.links) <= 2 * LEGS_MAX
    for first, last in zip(world.connects, world.connects[world.exchange.connects[0] :], strict=False):
        assert last - first >= world.exchange.connects[1] * NS_PER_S, "connect budget"
