"""The life of one connection, with the test as the world: it plays exchange, network and clock."""

import itertools
import json
import random

import pytest

from feedhandler.data import wire
from feedhandler.data.connecting import ConnectBudget, Policy
from feedhandler.data.status import Phase
from feedhandler.data.units import NS_PER_S
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.base import Endpoint
from feedhandler.feed.legs import Legs
from feedhandler.feed.missed import UNKNOWN
from feedhandler.feed.report import Complaints, connection_status
from feedhandler.feed.session import TICK_NS

START = 1_000 * NS_PER_S
EPOCH_NS = 1_790_000_000 * NS_PER_S


def read(message):
    """A request of ours; a ping may be a text."""
    return {"op": "ping", "req_id": ""} if message == b"ping" else json.loads(message)


def okx_answers(request):
    """One for each argument."""
    if request["op"] == "ping":
        return [b"pong"]
    common = {"id": request["id"], "event": request["op"]}
    return [json.dumps({**common, "arg": arg}).encode() for arg in request["args"]]


class World:
    """One session, its clock, and what it sent and emitted."""

    def __init__(
        self,
        exchange="bybit",
        natives=("AUSDT", "BUSDT"),
        seed=1,
        budget=(1000, 1.0),
        kind="ticker",
        market="spot",
        **policy,
    ):
        self.now = START
        self.exchange = next(each for each in EXCHANGES[exchange].markets if each.name == market)()
        self.exchange.add(natives, 0, kind)
        self.emitted = []
        self.sent = []  # (time, decoded request)
        self.sent_times = {}  # connection number → times
        self.closed = []  # (time, reason)
        self.connects = []
        self.pings = []  # of the WebSocket's own
        self.is_half_open = False
        self.legs = Legs(
            self.exchange,
            self.exchange.all_states,
            self.emit,
            count=1,
            policy=Policy(**policy),
            budget=ConnectBudget(*budget),
            rng=random.Random(seed),
        )
        (self.session,) = self.legs.sessions

    def emit(self, state):
        self.emitted.append(wire.unpack(state.record()))

    def advance(self):
        step = self.session.advance(self.now)
        self.sent += [(self.now, read(message)) for message in step.send]
        self.sent_times.setdefault(len(self.connects), []).extend([self.now] * len(step.send))
        if step.connect:
            self.connects.append(self.now)
        if step.ping:
            self.pings.append(self.now)
            if not self.is_half_open:
                self.session.on_ping()
        if step.close:
            self.closed.append((self.now, step.close))
            self.session.on_closed(self.now, step.close)
        return step

    def run(self, seconds, each_tick=lambda: None):
        """Let time pass, the session being called whenever it asked to be."""
        end = self.now + int(seconds * NS_PER_S)
        while self.now < end:
            each_tick()
            self.advance()
            due = max(self.session.deadline_mono_ns, self.now + 1_000_000)
            self.now = min(end, due, self.now + 100_000_000)
        self.advance()

    def until_connecting(self):
        while self.session.phase is not Phase.CONNECTING:
            self.run(0.05)

    def open(self):
        self.until_connecting()
        self.session.on_open(self.now)
        self.advance()

    def frame(self, message):
        payload = message if isinstance(message, bytes) else json.dumps(message).encode()
        if self.session.on_frame(payload, EPOCH_NS + self.now):
            self.advance()

    def requests(self, op="subscribe"):
        return [request for _, request in self.sent if op in (request.get("op"), request.get("type"))]

    def ack_all(self, seconds=5.0):
        """Acknowledge each request as it comes, as Bybit does."""
        done = set()

        def answer():
            for request in self.requests():
                if request["req_id"] not in done:
                    done.add(request["req_id"])
                    self.frame(
                        {
                            "success": True,
                            "ret_msg": "subscribe",
                            "op": "subscribe",
                            "req_id": request["req_id"],
                        }
                    )

        self.run(seconds, answer)

    def book(self, native="AUSDT", update_id=5, bid="1.5"):
        return {
            "topic": f"orderbook.1.{native}",
            "ts": 1790000000000,
            "type": "snapshot",
            "data": {"s": native, "b": [[bid, "2"]], "a": [["1.6", "3"]], "u": update_id, "seq": 1},
            "cts": 1790000000000,
        }

    def ticker(self, native, number=1):
        names = ("lastPrice", "highPrice24h", "lowPrice24h", "prevPrice24h", "volume24h", "turnover24h")
        return {
            "topic": f"tickers.{native}",
            "ts": 1790000000000 + number,
            "type": "snapshot",
            "data": {"symbol": native, **dict.fromkeys(names, "7")},
        }


# --- connecting


@pytest.mark.parametrize("exchange", ["bybit", "kucoin"])
def test_a_connection_that_runs_has_left_the_errors_before_it_behind(exchange):
    world = World(exchange)
    world.until_connecting()
    world.session.on_closed(world.now, "Cannot connect")
    assert "last error: Cannot connect" in connection_status(world.session, 0, world.now).text(0)
    world.open()
    if exchange == "kucoin":
        assert world.session.last_error == "Cannot connect", "it has not greeted us yet"
        world.frame({"id": "x", "type": "welcome"})
    status = connection_status(world.session, 0, world.now)
    assert (status.last_error, status.ended) == ("", "Cannot connect")
    world.session.on_closed(world.now, "lost")
    status = connection_status(world.session, 0, world.now)
    assert (status.last_error, status.ended) == ("lost", "lost")


def test_the_first_connection_is_made_at_once():
    world = World()
    world.advance()
    assert world.connects == [START]


@pytest.mark.long
def test_backoff_is_full_jitter_under_a_ceiling_that_doubles_from_1_to_30_seconds():
    longest = []
    for seed in range(200):
        world = World(seed=seed, max_attempts=0)
        delays = []
        for _ in range(9):
            world.until_connecting()
            failed = world.now
            world.session.on_closed(failed, "refused")
            delays.append((world.session.deadline_mono_ns - failed) / NS_PER_S)
        longest.append(delays)
    for attempt, ceiling in enumerate((1, 2, 4, 8, 16, 30, 30, 30, 30)):
        delays = [d[attempt] for d in longest]
        assert max(delays) <= ceiling
        assert max(delays) > 0.9 * ceiling
        assert min(delays) < 0.1 * ceiling, "jitter is full"


def test_backoff_starts_over_once_data_flowed():
    world = World(max_attempts=0)
    for _ in range(8):
        world.until_connecting()
        world.session.on_closed(world.now, "refused")
    world.open()
    world.frame(world.book())
    world.session.on_closed(world.now, "lost")
    assert world.session.deadline_mono_ns - world.now <= NS_PER_S


def test_an_exchange_that_asks_for_patience_gets_it():
    world = World()
    world.until_connecting()
    world.session.on_closed(world.now, "HTTP 429", retry_after_s=77.0)
    assert world.session.deadline_mono_ns == world.now + 77 * NS_PER_S


def test_connections_never_exceed_the_budget_even_if_each_one_works_for_a_moment():
    world = World(budget=(5, 60.0))

    def flap():
        if world.session.phase is Phase.CONNECTING:
            world.session.on_open(world.now)
            world.frame(world.book())
            world.session.on_closed(world.now, "lost")

    world.run(600, flap)
    assert len(world.connects) > 20
    for first, sixth in zip(world.connects, world.connects[5:], strict=False):
        assert sixth - first >= 60 * NS_PER_S


def test_after_max_attempts_without_data_the_session_has_given_up():
    world = World(max_attempts=3)
    for _ in range(3):
        assert not world.session.has_given_up()
        world.open()
        world.session.on_closed(world.now, "closed")
    assert world.session.has_given_up()


def test_max_attempts_0_never_gives_up():
    world = World(max_attempts=0)
    for _ in range(50):
        world.until_connecting()
        world.session.on_closed(world.now, "refused")
    assert not world.session.has_given_up()


def test_a_connect_that_hangs_is_given_up_in_time():
    world = World(connect_timeout_s=4.0)
    world.run(5)
    assert [(round((at - START) / NS_PER_S), reason) for at, reason in world.closed] == [
        (4, "no connection within 4 s")
    ]


# --- subscribing


def test_everything_wanted_is_subscribed_one_request_at_a_time_within_the_limits():
    natives = tuple(f"S{i}USDT" for i in range(23))
    world = World(natives=natives)
    world.open()
    world.run(1)
    assert len(world.requests()) == 1, "the next one waits for the answer"
    world.ack_all()
    asked = [topic for request in world.requests() for topic in request["args"]]
    assert asked == [topic for native in natives for topic in world.exchange.topics(native, "ticker")]
    assert world.session.subscriptions.pending() == 0


@pytest.mark.long
@pytest.mark.parametrize("exchange", EXCHANGES)
def test_no_two_frames_of_ours_are_closer_than_the_exchange_permits(exchange):
    native = "A-USDT" if exchange == "kucoin" else "AUSDT"
    world = World(exchange=exchange, natives=tuple(f"{i}{native}" for i in range(300)), reconnect_after_s=1e6)
    world.open()
    if world.exchange.awaits_welcome:
        world.frame({"id": "x", "type": "welcome"})

    def answer_everything():
        for _, request in world.sent[-1:]:
            if exchange == "binance":
                world.frame({"result": None, "id": request["id"]})
            elif exchange == "kucoin":
                world.frame({"id": request["id"], "type": "pong" if request["type"] == "ping" else "ack"})
            elif exchange == "okx":
                for frame in okx_answers(request):
                    world.frame(frame)
            else:
                world.frame({"success": True, "ret_msg": "", "op": "subscribe", "req_id": request["req_id"]})

    world.run(60, answer_everything)
    times = [at for at, _ in world.sent]
    gap = int(world.exchange.command_interval_s * NS_PER_S)
    assert len(times) > 3
    assert all(b - a >= gap for a, b in itertools.pairwise(times))


def test_nothing_is_sent_before_the_welcome():
    world = World(exchange="kucoin", natives=("A-USDT",))
    world.open()
    world.run(2)
    assert world.sent == []
    world.frame({"id": "x", "type": "welcome"})
    assert world.requests()[0]["topic"] == "/market/snapshot:A-USDT"


def test_no_welcome_is_a_reason_for_a_new_connection():
    world = World(exchange="kucoin", natives=("A-USDT",))
    world.open()
    world.run(11)
    assert world.closed[0][1] == "no welcome from the exchange"


def test_one_bad_symbol_is_isolated_and_reported_and_the_others_stream_on():
    world = World(natives=("AUSDT", "BADUSDT", "CUSDT"))
    world.open()
    answered = set()

    def answer():
        for request in world.requests():
            if request["req_id"] in answered:
                continue
            answered.add(request["req_id"])
            bad = [topic for topic in request["args"] if "BADUSDT" in topic]
            world.frame(
                {
                    "success": not bad,
                    "ret_msg": f"Invalid symbol :[{bad[0]}]" if bad else "subscribe",
                    "op": "subscribe",
                    "req_id": request["req_id"],
                }
            )

    world.run(5, answer)
    assert world.session.subscriptions.rejected == {
        "tickers.BADUSDT": "Invalid symbol :[tickers.BADUSDT]",
        "orderbook.1.BADUSDT": "Invalid symbol :[orderbook.1.BADUSDT]",
    }
    world.frame(world.book("CUSDT"))
    assert world.emitted[-1].bid == 1.5
    world.session.on_closed(world.now, "lost")
    world.sent.clear()
    world.open()
    world.run(5, answer)
    again = [topic for request in world.requests() for topic in request["args"]]
    assert sorted(again) == ["orderbook.1.AUSDT", "orderbook.1.CUSDT", "tickers.AUSDT", "tickers.CUSDT"]


@pytest.mark.parametrize("is_in_one_breath", [False, True])
def test_a_bad_name_that_costs_the_connection_is_found_by_asking_one_by_one(is_in_one_breath):
    """Binance answers a malformed stream name with an error, and closes; both may be in one socket read."""
    world = World(exchange="binance", natives=("AUSDT", "B D", "CUSDT"), max_attempts=0)
    answered = set()

    def refuse(request):
        error = {"error": {"code": 2, "msg": "Invalid request: invalid stream"}, "id": request["id"]}
        if is_in_one_breath:
            world.session.on_frame(json.dumps(error).encode(), EPOCH_NS)  # and nobody advances
        else:
            world.frame(error)
        world.session.on_closed(world.now, "closed by the exchange, code 1008")

    def answer():
        if world.session.phase is Phase.CONNECTING:
            world.session.on_open(world.now)
        for _, request in list(world.sent):
            if request["id"] in answered or world.session.phase is not Phase.RUNNING:
                continue
            answered.add(request["id"])
            if any("b d" in stream for stream in request["params"]):
                refuse(request)
            else:
                world.frame({"result": None, "id": request["id"]})

    world.run(60, answer)
    assert sorted(world.session.subscriptions.rejected) == ["b d@bookTicker", "b d@ticker"]
    assert world.session.phase is Phase.RUNNING
    assert world.session.subscriptions.pending() == 0


def test_a_rejection_is_doubted_after_some_minutes():
    world = World(natives=("AUSDT",), max_attempts=0)
    world.open()
    world.run(1)
    request = world.requests()[0]
    refusal = {"success": False, "ret_msg": "no", "op": "subscribe", "req_id": request["req_id"]}
    world.frame(refusal)
    for _ in range(2):
        world.run(0.2)
        world.frame({**refusal, "req_id": world.requests()[-1]["req_id"]})
    assert len(world.session.subscriptions.rejected) == 2
    world.session.on_closed(world.now, "lost")
    world.sent.clear()
    world.open()
    world.run(1)
    assert world.requests() == []
    world.session.on_closed(world.now, "lost")
    world.now += 601 * NS_PER_S
    world.open()
    world.run(1)
    assert world.requests()[0]["args"] == ["tickers.AUSDT"]


def test_an_event_time_in_the_future_is_flagged():
    world = World()
    world.open()
    message = world.book()
    message["cts"] = (EPOCH_NS + world.now) // 1_000_000 + 61_000
    world.frame(message)
    assert world.emitted[-1].flag_names == ["BAD_EXCHANGE_TIME"]
    message["cts"] -= 2_000
    message["data"]["u"] += 1
    world.frame(message)
    assert world.emitted[-1].flags == 0


def test_a_request_without_an_answer_is_repeated_and_then_costs_the_connection():
    world = World(exchange="binance", reconnect_after_s=1000)  # it does not want to be pinged
    world.open()

    def alive():
        world.session.on_ping()

    world.run(45, alive)
    asked = [request["params"] for _, request in world.sent]
    assert asked[:3] == [asked[0]] * 3
    assert "no answer" in world.closed[0][1]


def test_data_are_as_good_as_an_answer():
    """An exchange that never acknowledges, but sends, is not asked again and keeps its connection."""
    world = World(exchange="binance", natives=("AUSDT", "BUSDT"))
    world.open()
    updates = iter(range(10, 100_000))

    def live():
        for native in ("AUSDT", "BUSDT"):
            amounts = {"b": "1", "B": "1", "a": "2", "A": "1"}
            world.frame({"stream": "x", "data": {"u": next(updates), "s": native, **amounts}})
        statistics = dict.fromkeys("cohlvq", "1") | {"b": "1", "B": "1", "a": "2", "A": "1"}
        world.frame(
            {"stream": "x", "data": {"e": "24hrTicker", "E": 1790000000000, "s": "AUSDT", **statistics}}
        )

    world.run(100, live)
    assert world.closed == []
    asked = [request["params"] for _, request in world.sent]
    assert asked[0] == ["ausdt@ticker", "ausdt@bookTicker", "busdt@ticker", "busdt@bookTicker"]
    assert set(map(tuple, asked[1:])) == {("busdt@ticker",)}, "only for what is silent"
    assert world.session.subscriptions.unheard() == 1


def test_a_busy_exchange_is_asked_again_a_little_later():
    world = World(exchange="kucoin", natives=("A-USDT",))
    world.open()
    world.frame({"id": "x", "type": "welcome"})
    first = world.requests()[0]
    world.frame({"id": first["id"], "type": "error", "code": 509, "data": "service is busy"})
    world.run(2)
    assert world.requests()[1]["topic"] == first["topic"]
    assert world.session.subscriptions.rejected == {}


def test_a_channel_that_promises_to_repeat_itself_and_does_not_is_asked_for_again_with_growing_patience():
    world = World(natives=("AUSDT",))
    world.open()
    updates = iter(range(10, 10_000))

    def live():
        world.frame(world.ticker("AUSDT", next(updates)))  # the statistics flow, the quote does not
        for _, request in world.sent:
            world.frame({"success": True, "op": request["op"], "req_id": request["req_id"]})

    world.run(100, live)
    again = [request["args"] for request in world.requests()][1:]
    assert again == [["orderbook.1.AUSDT"]] * 2, "after 15 s and, twice as patient, after 45 s; next at 105 s"
    assert world.requests("unsubscribe") == [], "a quiet market's next word could fall into the gap"
    assert world.session.subscriptions.unheard() == 1
    assert world.session.subscriptions.silent_topics() == ["orderbook.1.AUSDT"]
    assert world.closed == []


@pytest.mark.long
def test_a_channel_that_promises_nothing_is_acknowledged_and_may_be_silent():
    world = World(natives=("AUSDT",))
    world.open()
    updates = iter(range(10, 10_000))

    def live():
        world.frame(world.book(update_id=next(updates)))  # the quote flows, and nobody trades
        for _, request in world.sent:
            world.frame({"success": True, "op": request["op"], "req_id": request["req_id"]})

    world.run(300, live)
    assert len(world.requests()) == 1
    assert world.session.subscriptions.silent_topics() == []


# --- heartbeat and silence


def test_pings_go_out_at_the_interval_that_the_handshake_stated():
    world = World(exchange="kucoin", natives=("A-USDT",), reconnect_after_s=1e6)
    world.until_connecting()
    world.session.on_endpoint(Endpoint("ws://x", ping_interval_s=4.0, pong_timeout_s=3.0))
    world.session.on_open(world.now)
    world.frame({"id": "x", "type": "welcome"})

    def answer():
        for _, request in world.sent[-1:]:
            world.frame({"id": request["id"], "type": "pong" if request["type"] == "ping" else "ack"})

    world.run(40, answer)
    pings = [at for at, request in world.sent if request["type"] == "ping"]
    assert 9 <= len(pings) <= 11
    assert all(3.9 <= (b - a) / NS_PER_S <= 4.5 for a, b in itertools.pairwise(pings))


def test_a_missing_pong_ends_a_connection_without_data():
    world = World(reconnect_after_s=1e6)
    world.open()
    world.run(30)
    assert "no pong" in world.closed[0][1]


def test_a_missing_pong_does_not_end_a_connection_that_delivers():
    world = World()
    world.open()
    updates = iter(range(10, 100_000))
    acked = set()

    def live():
        world.frame(world.book(update_id=next(updates)))
        for request in world.requests():
            if request["req_id"] not in acked:
                acked.add(request["req_id"])
                world.frame({"success": True, "op": "subscribe", "req_id": request["req_id"]})

    world.run(120, live)
    assert len(world.requests("ping")) >= 5
    assert world.closed == []


def test_a_process_that_was_stopped_reads_what_came_meanwhile_before_it_blames_the_exchange():
    world = World()
    world.open()
    world.ack_all(1)
    world.frame(world.book())
    world.run(1)
    world.now += 300 * NS_PER_S  # longer than any limit
    world.advance()
    world.frame(world.book(update_id=6))
    world.run(1)
    assert not world.closed
    assert not any(record.flags & wire.STALE for record in world.emitted)


@pytest.mark.parametrize("stop_s", [8, 300])
def test_a_connection_that_died_while_its_process_was_stopped_is_replaced_at_the_second_look(stop_s):
    world = World(reconnect_after_s=7.0)
    world.open()
    world.ack_all(1)
    world.frame(world.book())
    world.advance()
    world.now += stop_s * NS_PER_S
    woken = world.now
    world.run(1)
    assert len(world.closed) == 1
    assert 0 < world.closed[0][0] - woken <= TICK_NS


def test_a_process_that_is_always_late_still_sees_silence():
    world = World()
    world.open()
    world.ack_all(1)
    opened = world.now
    while not world.closed:
        world.now += 3 * NS_PER_S
        world.advance()
    assert world.closed[0][0] - opened <= 36 * NS_PER_S


def test_silence_counts_from_the_moment_of_subscribing():
    """An acknowledgement with nothing behind it, on the whole connection."""
    world = World(reconnect_after_s=20.0)
    world.open()

    def pongs():
        for request in world.requests("ping"):
            world.frame({"success": True, "ret_msg": "pong", "op": "ping", "req_id": request["req_id"]})
        for request in world.requests():
            world.frame({"success": True, "op": "subscribe", "req_id": request["req_id"]})

    opened = world.now
    world.run(25, pongs)
    at, reason = world.closed[0]
    assert reason == "no data for 20 s"
    assert 20.0 <= (at - opened) / NS_PER_S <= 20.6


def test_records_are_flagged_stale_when_data_stop_and_clean_when_they_return():
    world = World(stale_after_s=8.0)
    world.open()
    world.ack_all(1)
    world.frame(world.book("AUSDT"))
    world.emitted.clear()
    world.run(7.5)
    assert world.emitted == []
    world.run(2)
    assert [(r.symbol, r.flag_names) for r in world.emitted] == [("AUSDT", ["STALE"])], "BUSDT never spoke"
    assert world.session.is_stale
    world.frame(world.book("AUSDT", update_id=6))
    assert world.emitted[-1].flags == 0
    world.run(1)
    assert not world.session.is_stale


def test_records_are_flagged_down_once_when_the_connection_is_lost():
    world = World()
    world.open()
    world.frame(world.book("AUSDT"))
    world.emitted.clear()
    world.session.on_closed(world.now, "lost")
    assert [(r.symbol, r.flag_names, r.bid) for r in world.emitted] == [("AUSDT", ["DOWN"], 1.5)]
    world.until_connecting()
    world.session.on_closed(world.now, "refused")
    assert len(world.emitted) == 1


def test_after_a_reconnection_no_value_of_the_old_one_is_published_as_new():
    world = World()
    world.open()
    world.frame(world.ticker("AUSDT"))
    assert world.emitted[-1].last == 7.0
    world.session.on_closed(world.now, "lost")
    world.open()
    world.frame(world.book("AUSDT", update_id=3))
    assert world.emitted[-1].last != world.emitted[-1].last
    assert world.emitted[-1].bid == 1.5


def test_a_farewell_is_a_new_connection_at_once():
    world = World(exchange="binance", natives=("AUSDT",))
    world.open()
    world.frame({"stream": "!serverShutdown", "data": {"e": "serverShutdown", "E": 1790000000000}})
    assert world.session.goodbye == "serverShutdown announced"
    assert world.closed == [], "its owner decides"


def test_undecodable_frames_are_counted_and_a_few_are_kept():
    world = World()
    world.open()
    for number in range(100):
        world.frame(b"\xff nonsense %d" % number + b"x" * 1000)
    assert world.session.decode_errors == 100
    assert len(world.session.kept_frames) == 8
    kept = world.session.kept_frames[-1]
    assert kept.size == 1013
    assert kept.head.startswith("\\xff nonsense 99")
    assert len(kept.head) <= 300
    world.frame(world.book())
    assert world.emitted[-1].bid == 1.5


# --- a seeded world of faults


@pytest.mark.world
@pytest.mark.parametrize("seed", range(60))
def test_whatever_happens_the_session_comes_back_and_breaks_no_rule(seed):
    """Exchange and network misbehave at random for ten minutes; then all is well for two."""
    rng = random.Random(seed)
    world = World(
        natives=tuple(f"S{i}USDT" for i in range(12)),
        seed=seed,
        max_attempts=0,
        budget=(50, 60.0),
        reconnect_after_s=15.0,
    )
    answered = set()
    updates = iter(range(10, 10_000_000))

    def play(trouble):
        session = world.session
        if session.phase is Phase.CONNECTING and rng.random() < 0.5:
            if rng.random() < trouble:
                session.on_closed(world.now, "refused", rng.choice((0.0, 3.0)))
            else:
                session.on_open(world.now)
        if session.phase is not Phase.RUNNING:
            return
        for _, request in world.sent[-3:]:
            key = (request["req_id"], len(world.connects))
            if key in answered or rng.random() < trouble:
                continue
            answered.add(key)
            refused = rng.random() < trouble
            world.frame(
                {
                    "success": not refused or request["op"] == "ping",
                    "ret_msg": "pong" if request["op"] == "ping" else "service trouble",
                    "op": request["op"],
                    "req_id": request["req_id"] if rng.random() < 0.8 else "",
                }
            )
        for _ in range(rng.randrange(3)):
            if rng.random() > trouble:
                native = f"S{rng.randrange(12)}USDT"
                world.frame(rng.choice((world.book(native, next(updates)), world.ticker(native))))
            else:
                world.frame(rng.randbytes(rng.randrange(60)))
        if rng.random() < trouble / 20:
            session.on_closed(world.now, "lost")
        if rng.random() < trouble / 20:
            world.now += rng.randrange(40) * NS_PER_S  # we were stopped

    for _ in range(30):
        trouble = rng.choice((0.0, 0.1, 0.5, 1.0))
        world.run(20, lambda trouble=trouble: play(trouble))
    world.session.subscriptions.rejected.clear()
    world.session.on_closed(world.now, "the faults end")
    world.run(120, lambda: play(0.0))
    session = world.session
    assert session.phase is Phase.RUNNING, f"seed {seed}"
    assert session.attempts == 0
    assert not session.is_stale
    assert session.subscriptions.pending() == 0
    for times in world.sent_times.values():
        assert all(b - a >= 0.05 * NS_PER_S for a, b in itertools.pairwise(times)), "pace"
    for first, last in zip(world.connects, world.connects[50:], strict=False):
        assert last - first >= 60 * NS_PER_S, "connect budget"
    assert len(session.kept_frames) <= 8
    assert session.deadline_mono_ns - world.now <= TICK_NS


# --- quiet markets


def quiet_world(exchange, canary="", **policy):
    """A connection whose requests and pings are answered, and on which nothing is said."""
    world = World(exchange, natives=("A-USDT" if exchange in ("kucoin", "okx") else "AUSDT",), **policy)
    world.session.subscriptions.set_canary(canary)
    answered = set()

    def answer():
        if world.session.phase is Phase.CONNECTING:
            world.session.on_open(world.now)
            answered.clear()
            if world.exchange.awaits_welcome:
                world.frame({"id": "x", "type": "welcome"})
        for number, (_, request) in enumerate(world.sent):
            if number in answered or world.is_half_open:
                continue
            answered.add(number)
            kind = request.get("type")
            if exchange == "binance":
                world.frame({"result": None, "id": request["id"]})
            elif exchange == "kucoin":
                world.frame({"id": request["id"], "type": "pong" if kind == "ping" else "ack"})
            elif exchange == "okx":
                for frame in okx_answers(request):
                    world.frame(frame)
            else:
                is_ping = request["op"] == "ping"
                answer = {"success": True, "op": request["op"], "req_id": request["req_id"]}
                world.frame({**answer, "ret_msg": "pong" if is_ping else "subscribe"})

    return world, answer


@pytest.mark.long
@pytest.mark.parametrize("exchange", ["binance", "kucoin"])
def test_a_connection_that_is_acknowledged_and_answers_pings_may_be_quiet(exchange):
    world, answer = quiet_world(exchange, max_attempts=1)
    world.run(3600, answer)
    assert len(world.connects) == 1
    assert world.closed == []
    assert (world.session.condition, world.session.is_stale, world.session.attempts) == (0, False, 0)
    assert not world.session.has_given_up()


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_half_open_connection_of_a_quiet_market_is_found_within_30_seconds(exchange):
    world, answer = quiet_world(exchange, stale_after_s=1000.0, reconnect_after_s=2000.0)
    world.run(101, answer)
    assert world.closed == []
    world.is_half_open = True
    world.run(30, answer)
    assert [reason.partition(" within")[0] for _, reason in world.closed][:1] == ["no pong"]


def test_whoever_accepts_acknowledges_and_hangs_up_has_come_to_nothing():
    world, answer = quiet_world("binance", max_attempts=5)
    for _ in range(5):
        assert not world.session.has_given_up()
        while not world.session.subscriptions.is_acknowledged:
            world.run(0.1, answer)
        world.session.on_closed(world.now, "hung up")
        world.sent.clear()
    assert world.session.has_given_up()


def canary_says(world, number):
    amounts = {"b": "1", "B": "1", "a": "2", "A": "1"}
    world.frame({"stream": "x", "data": {"u": number, "s": "BTCUSDT", **amounts}})


def test_the_silence_of_what_never_rests_is_that_of_the_connection():
    world, answer = quiet_world("binance", canary="BTCUSDT", stale_after_s=5.0, reconnect_after_s=30.0)
    numbers = itertools.count(1)

    def busy():
        answer()
        canary_says(world, next(numbers))

    world.run(20, busy)
    assert world.requests() == []
    assert "btcusdt@bookTicker" in world.sent[0][1]["params"]
    assert world.emitted == [], "nobody wants to know it"
    world.run(4.5, answer)
    assert not world.session.is_stale
    world.run(1.5, answer)
    assert world.session.is_stale
    world.run(25, answer)
    assert [reason for _, reason in world.closed] == ["no data for 30 s"]
    assert world.session.attempts == 1


@pytest.mark.long
def test_what_was_never_seen_to_be_busy_is_no_canary():
    """Where the instrument rests as the others do, its silence says nothing."""
    world, answer = quiet_world("binance", canary="BTCUSDT", stale_after_s=5.0, reconnect_after_s=30.0)
    for number in range(30):
        canary_says(world, number + 1) if number else world.run(2, answer)
        world.run(50, answer)
    assert world.closed == []
    assert not world.session.is_stale


def test_a_canary_that_comes_to_rest_is_none_after_a_while():
    world, answer = quiet_world("binance", canary="BTCUSDT", stale_after_s=5.0, reconnect_after_s=30.0)
    numbers = itertools.count(1)

    def busy():
        answer()
        canary_says(world, next(numbers))

    world.run(20, busy)
    flags = 0
    for _ in range(20):
        world.run(25, answer)
        flags += world.session.is_stale
        canary_says(world, next(numbers))
        world.run(1, answer)
    assert flags <= 3
    assert world.closed == []


# --- what cannot be decoded


def test_a_channel_that_fails_to_decode_is_neither_silent_nor_a_reason_for_a_new_connection():
    world = World(natives=("AUSDT",), max_attempts=1)
    world.open()
    acked = set()

    def live():
        broken = world.book()
        broken["data"]["u"] = "not a number"
        world.frame(broken)
        for request in world.requests():
            if request["req_id"] not in acked:
                acked.add(request["req_id"])
                world.frame({"success": True, "op": "subscribe", "req_id": request["req_id"]})

    world.run(100, live)
    subscriptions = world.session.subscriptions
    assert world.closed == []
    assert len(world.requests()) == 1, "to ask again would bring the same"
    assert subscriptions.silent_topics() == []
    assert "u" in subscriptions.unreadable("orderbook.1.AUSDT")
    assert subscriptions.unreadable("tickers.AUSDT") == ""
    world.frame(world.book())
    assert subscriptions.unreadable("orderbook.1.AUSDT") == ""


def test_the_log_is_told_once_a_minute_for_each_kind_of_what_cannot_be_decoded():
    world = World(natives=("AUSDT",))
    world.open()
    complaints = Complaints()
    texts = []

    def live():
        broken = world.book()
        broken["data"]["u"] = "not a number"
        world.frame(broken)
        world.frame(b"\xff nonsense")
        texts.extend(complaints.due([world.session], EPOCH_NS + world.now))

    world.run(125, live)
    assert len(texts) == 6
    assert sum("orderbook.1.AUSDT" in text and "Expected" in text for text in texts) == 3
    assert sum("no topic" in text and "nonsense" in text for text in texts) == 3
    assert complaints.due([world.session], EPOCH_NS + world.now + 1000 * NS_PER_S)
    assert not complaints.due([world.session], EPOCH_NS + world.now + 2000 * NS_PER_S), "no more came"


def test_depth_of_which_a_change_cannot_be_read_is_invalid_at_once_and_subscribed_to_anew():
    world = World(natives=("AUSDT",), kind="depth")
    world.open()
    world.ack_all()
    data = {"s": "AUSDT", "b": [["10", "1"]], "a": [["11", "1"]], "u": 5, "seq": 50}
    frame = {"topic": "orderbook.50.AUSDT", "ts": 1, "cts": 1, "type": "snapshot", "data": data}
    world.frame(frame)
    world.frame(frame | {"type": "delta", "data": data | {"u": 6, "seq": 51, "b": [["x", "1"]]}})
    assert [depth.flags for depth in world.emitted] == [0, wire.INVALID]
    world.run(1)
    (left,) = world.requests("unsubscribe")
    assert left["args"] == ["orderbook.50.AUSDT"]
    world.frame(frame | {"data": data | {"u": 9, "seq": 60}})
    assert world.emitted[-1].flags == 0
    assert world.emitted[-1].exchange_sequence == 9


def test_a_liquidation_that_cannot_be_read_is_told():
    world = World(natives=("AUSDT",), kind="liquidation", market="linear")
    world.open()
    world.ack_all()
    before = len(world.emitted)
    row = {"T": 1, "s": "AUSDT", "S": "Sell", "v": "1", "p": "x"}
    world.frame({"topic": "allLiquidation.AUSDT", "type": "snapshot", "ts": 1, "data": [row]})
    world.legs.advance(world.now)
    assert [record.flags for record in world.emitted[before:]] == [wire.STALE, 0]
    assert list(world.legs.missed.lost.values()) == [UNKNOWN]
