"""What one connection is asked for, while what is wanted changes."""

import json
import random

import pytest
from registering import registered

from feedhandler.data import header
from feedhandler.data.layout import Description, Retention, layout
from feedhandler.data.units import NS_PER_S
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.arbitration import Line
from feedhandler.exchanges.base import Ack, Nack
from feedhandler.feed.subscriptions import (
    ACK_TIMEOUT_NS,
    COMMAND_TRIES_MAX,
    FIRST_DATA_TIMEOUT_NS,
    RENEWALS_MAX,
    TOGETHER_TIMEOUT_NS,
    LineSubscriptions,
)

UNIX = 1_790_000_000 * NS_PER_S


class Desk:
    """Subscriptions, and the exchange's side of them: it accepts all but what it is told to refuse."""

    def __init__(self, *natives, exchange="bybit"):
        self.exchange = EXCHANGES[exchange].main()
        self.line = Line(0)
        states = self.exchange.add(natives, 0)
        self.subscriptions = LineSubscriptions(self.exchange, states, self.line)
        self.now = NS_PER_S
        self.sent = []
        self.held = set()  # what the exchange believes that we hear
        self.refuses = set()

    def add(self, *natives):
        self.subscriptions.add(self.exchange.add(natives, 0))

    def remove(self, *natives):
        states = [self.exchange.tickers[native] for native in natives]
        self.subscriptions.remove(states)
        self.exchange.remove(states)

    def send(self):
        """Take the next request, unanswered."""
        request = json.loads(self.subscriptions.send(self.now, str(len(self.sent) + 1)))
        self.sent.append((request["op"], tuple(request["args"])))
        return request

    def answer(self, request):
        topics = set(request["args"])
        if request["op"] == "unsubscribe" and topics & self.refuses:
            return self.subscriptions.on_answer(Nack(request["req_id"], "no"), self.now, UNIX)
        if request["op"] == "unsubscribe":
            self.held -= topics
        elif topics & (self.refuses | self.held):
            return self.subscriptions.on_answer(Nack(request["req_id"], "no"), self.now, UNIX)
        else:
            self.held |= topics
        return self.subscriptions.on_answer(Ack(request["req_id"]), self.now, UNIX)

    def settle(self):
        """Send and answer all that is queued; returns the requests."""
        before = len(self.sent)
        while self.subscriptions.due_mono_ns is not None:
            assert self.answer(self.send()) == ""
        assert self.subscriptions.is_settled
        return self.sent[before:]


def topics(*natives):
    return {f"{channel}.{native}" for native in natives for channel in ("tickers", "orderbook.1")}


def test_one_more_is_asked_for_alone():
    desk = Desk("A", "B")
    desk.subscriptions.start(desk.now)
    desk.settle()
    desk.add("C")
    assert desk.settle() == [("subscribe", ("tickers.C", "orderbook.1.C"))]
    assert desk.held == topics("A", "B", "C")


def test_one_less_is_taken_back_alone():
    desk = Desk("A", "B")
    desk.subscriptions.start(desk.now)
    desk.settle()
    desk.remove("A")
    assert desk.settle() == [("unsubscribe", ("tickers.A", "orderbook.1.A"))]
    assert desk.held == topics("B")


def test_what_an_exchange_names_as_refused_is_rejected_and_the_rest_of_the_request_is_granted():
    desk = Desk("A", "B", "C")
    desk.subscriptions.set_canary("D")
    desk.subscriptions.start(desk.now)
    request = desk.send()
    bad = ("tickers.B", "orderbook.1.D")
    assert set(bad) < set(request["args"])
    assert desk.subscriptions.on_answer(Nack(request["req_id"], "no", topics=bad), desk.now, UNIX) == ""
    assert desk.subscriptions.rejected == {"tickers.B": "no"}
    assert not desk.subscriptions.has_canary("")
    assert desk.subscriptions.is_settled, "nothing is asked for again"
    assert desk.subscriptions.is_granted("orderbook.1.B")
    assert all(desk.subscriptions.is_granted(topic) for topic in topics("A", "C"))


def test_before_the_connection_nothing_is_sent_and_then_what_is_wanted_by_then():
    desk = Desk("A", "B")
    desk.add("C")
    desk.remove("A")
    assert desk.subscriptions.due_mono_ns is None
    desk.subscriptions.start(desk.now)
    desk.settle()
    assert desk.held == topics("B", "C")


def test_what_was_not_yet_asked_for_needs_no_taking_back():
    desk = Desk("A")
    desk.subscriptions.start(desk.now)
    first = desk.send()
    desk.add("B", "C")
    desk.remove("B")
    desk.answer(first)
    assert [op for op, _ in desk.settle()] == ["subscribe"]
    assert desk.held == topics("A", "C")


def test_who_is_wanted_again_is_asked_for_again_so_that_the_exchange_says_how_it_stands():
    desk = Desk("A", "B")
    desk.subscriptions.start(desk.now)
    desk.settle()
    desk.remove("B")
    desk.add("B")
    both = ("tickers.B", "orderbook.1.B")
    assert desk.settle() == [("unsubscribe", both), ("subscribe", both)]
    assert desk.held == topics("A", "B")
    desk.remove("B")
    desk.add("B")
    desk.remove("B")
    assert desk.settle() == [("unsubscribe", both)]
    assert desk.held == topics("A")


def test_what_is_being_asked_for_again_is_taken_back_when_it_is_unwanted():
    """Its first request was accepted: the exchange counts it among ours."""
    desk = Desk("A", "B")
    desk.subscriptions.start(desk.now)
    desk.settle()
    desk.now += FIRST_DATA_TIMEOUT_NS
    desk.subscriptions.watch(desk.now, delivers=True)
    assert desk.subscriptions.pending() == 2, "no book has spoken, and that repeats itself"
    desk.remove("B")
    assert [op for op, _ in desk.settle()][-1] == "unsubscribe"
    assert desk.held == topics("A")


def test_what_was_asked_for_without_an_answer_is_taken_back_when_it_is_unwanted():
    desk = Desk("A")
    desk.subscriptions.start(desk.now)
    desk.held |= set(desk.send()["args"])  # it accepts, and its answer is lost
    desk.now += ACK_TIMEOUT_NS
    assert desk.subscriptions.watch(desk.now, delivers=False) == ""
    desk.remove("A")
    desk.settle()
    assert desk.held == set()


def test_data_are_an_answer_where_none_comes():
    desk = Desk("A", "B")
    desk.subscriptions.start(desk.now)
    desk.send()
    heard, silent = desk.exchange.tickers["A"], desk.exchange.tickers["B"]
    for channel in range(2):
        assert heard.accept(channel, desk.line, 5, UNIX + 3)
    assert not desk.subscriptions.brings(heard)
    desk.now += ACK_TIMEOUT_NS
    assert desk.subscriptions.watch(desk.now, delivers=True) == ""
    assert desk.subscriptions.brings(heard), "so what it lacks besides is requested"
    assert desk.subscriptions.answered_ns("tickers.A") == UNIX + 3
    assert not desk.subscriptions.brings(silent)
    desk.now = max(desk.now, desk.subscriptions.due_mono_ns)
    assert set(desk.send()["args"]) == topics("B"), "asked for again"


def test_what_waits_in_two_requests_is_dropped_from_both():
    desk = Desk("A", "B")
    desk.subscriptions.start(desk.now)
    desk.settle()
    for _ in range(2):
        desk.subscriptions.renew(["orderbook.1.B"])
    desk.remove("B")
    desk.settle()
    assert desk.held == topics("A")


def test_an_answer_that_comes_while_its_symbol_is_not_wanted_is_not_missed_later():
    desk = Desk("A", "B")
    desk.subscriptions.start(desk.now)
    request = desk.send()
    desk.remove("B")
    desk.answer(request)
    desk.add("B")
    desk.settle()
    assert all(answered_ns for _, answered_ns in desk.subscriptions.answered_channels())


def test_one_that_is_unwanted_while_its_request_is_under_way_is_taken_back_after_it():
    desk = Desk("A", "B")
    desk.subscriptions.start(desk.now)
    request = desk.send()
    desk.remove("A")
    desk.answer(request)
    desk.settle()
    assert desk.held == topics("B")
    assert desk.subscriptions.unheard() == 2, "of B"


def test_what_was_refused_needs_no_taking_back_and_is_asked_for_when_it_is_wanted_again():
    desk = Desk("A", "BAD")
    desk.refuses = topics("BAD")
    desk.subscriptions.start(desk.now)
    desk.settle()
    assert set(desk.subscriptions.rejected) == topics("BAD")
    desk.remove("BAD")
    assert desk.settle() == []
    assert desk.subscriptions.rejected == {}
    desk.refuses = set()
    desk.add("BAD")
    desk.settle()
    assert desk.held == topics("A", "BAD")


def test_a_refusal_of_the_taking_back_ends_the_matter():
    desk = Desk("A", "B")
    desk.subscriptions.start(desk.now)
    desk.settle()
    desk.remove("A")
    requests = []
    while not desk.subscriptions.is_settled:
        requests.append(request := desk.send())
        nack = Nack(request["req_id"], "never heard of it")
        assert desk.subscriptions.on_answer(nack, desk.now, UNIX) == ""
    assert [len(request["args"]) for request in requests] == [2, 1, 1], "one may spoil it for the others"
    assert desk.subscriptions.rejected == {}


@pytest.mark.parametrize("delivers", [True, False])
def test_a_taking_back_that_nobody_answers_ends_a_connection_only_if_it_delivers_nothing(delivers):
    desk = Desk("A", "B")
    desk.subscriptions.start(desk.now)
    desk.settle()
    desk.remove("A")
    reasons = []
    for _ in range(COMMAND_TRIES_MAX):
        desk.now = max(desk.now, desk.subscriptions.due_mono_ns)
        desk.send()
        desk.now += ACK_TIMEOUT_NS
        reasons.append(desk.subscriptions.watch(desk.now, delivers=delivers))
    assert [bool(reason) for reason in reasons] == [False, False, not delivers]


def test_to_renew_a_topic_is_to_take_it_back_and_ask_again():
    desk = Desk("A", "B")
    desk.subscriptions.start(desk.now)
    desk.settle()
    desk.subscriptions.renew(["orderbook.1.B"])
    assert desk.settle() == [("unsubscribe", ("orderbook.1.B",)), ("subscribe", ("orderbook.1.B",))]
    assert desk.held == topics("A", "B")
    assert desk.subscriptions.rejected == {}


def test_a_topic_that_two_kinds_lack_is_renewed_once():
    desk = Desk("A", "B")
    desk.subscriptions.start(desk.now)
    desk.settle()
    desk.subscriptions.renew(["orderbook.1.B", "orderbook.1.A", "orderbook.1.B"])
    both = ("orderbook.1.B", "orderbook.1.A")
    assert desk.settle() == [("unsubscribe", both), ("subscribe", both)]


def test_a_topic_that_is_being_renewed_is_not_asked_for_beside_other_silent_ones():
    """The exchange would refuse all of that request: it has been subscribed to by then."""
    desk = Desk("A", "B")
    desk.subscriptions.start(desk.now)
    desk.settle()
    desk.now += FIRST_DATA_TIMEOUT_NS
    desk.subscriptions.renew(["orderbook.1.B"])
    taken_back = desk.send()
    assert desk.subscriptions.watch(desk.now, delivers=True) == ""
    desk.answer(taken_back)
    desk.settle()
    asked = [args for op, args in desk.sent[1:] if op == "subscribe"]
    assert asked == [("orderbook.1.B",), ("orderbook.1.A",)]


def test_what_is_lost_while_others_are_renewed_is_renewed_together():
    desk = Desk("A", "B", "C", "D")
    desk.subscriptions.start(desk.now)
    desk.settle()
    desk.subscriptions.renew(["orderbook.1.A"])
    for native in "BCD":
        desk.subscriptions.renew([f"orderbook.1.{native}"])
    desk.remove("C")
    desk.settle()
    desk.sent.clear()
    assert desk.subscriptions.watch(desk.now, delivers=True) == ""
    both = ("orderbook.1.B", "orderbook.1.D")
    assert desk.settle() == [("unsubscribe", both), ("subscribe", both)]
    assert desk.held == topics("A", "B", "D")


def test_renewals_that_do_not_end_are_paced_and_none_is_forgotten():
    desk = Desk("A", "B")
    desk.subscriptions.start(desk.now)
    desk.settle()
    desk.sent.clear()
    for _ in range(100):
        desk.now += NS_PER_S // 10
        desk.subscriptions.watch(desk.now, delivers=True)
        desk.subscriptions.renew(["orderbook.1.A"])
        desk.settle()
    assert RENEWALS_MAX < len(desk.sent) // 2 <= RENEWALS_MAX + 10
    desk.sent.clear()
    desk.subscriptions.renew(["orderbook.1.B"])
    for _ in range(20):
        desk.now += NS_PER_S // 10
        desk.subscriptions.watch(desk.now, delivers=True)
        desk.settle()
    assert ("subscribe", ("orderbook.1.A", "orderbook.1.B")) in desk.sent
    assert desk.held == topics("A", "B")


@pytest.mark.parametrize("seed", range(3))
def test_no_hour_of_a_connection_has_more_requests_than_the_exchange_permits(seed):
    """However many topics are lost, however often."""
    rng = random.Random(seed)
    market = EXCHANGES["okx"].main()
    natives = [f"S{number}-USDT" for number in range(60)]
    line, states = Line(0), market.add(natives, 0, "depth")
    subscriptions = LineSubscriptions(market, states, line)
    for state in states:
        assert state.accept(0, line, 1, UNIX), "none is silent"
    now, sent, requested = NS_PER_S, [], set()
    lost_at, waited = {}, []
    subscriptions.start(now)
    while now < 2.5 * 3600 * NS_PER_S:
        now += int(rng.uniform(0.5, 20.0) * NS_PER_S)
        assert subscriptions.watch(now, delivers=True) == ""
        for native in rng.sample(natives, rng.choice((0, 0, 1, 1, 2, 60))):
            lost_at.setdefault(f"books:{native}", now)
            subscriptions.renew([f"books:{native}"])
        while (due := subscriptions.due_mono_ns) is not None and due <= now:
            asks, names = market.requested(subscriptions.send(now, str(len(sent))))
            sent.append(now)
            requested.update(names)
            waited += [now - lost_at.pop(name) for name in names if asks and name in lost_at]
            assert subscriptions.on_answer(Ack(str(len(sent) - 1)), now, UNIX) == ""
    count, per_s = market.requests_max
    for first, last in zip(sent, sent[count:], strict=False):
        assert last - first >= per_s * NS_PER_S
    assert requested == {f"books:{native}" for native in natives}
    assert len(sent) > 2 * RENEWALS_MAX
    assert max(waited) <= 60 * NS_PER_S, "as they go together, none waits for long"


def test_what_is_used_up_is_waited_for(monkeypatch):
    monkeypatch.setattr(EXCHANGES["bybit"].main, "requests_max", (4, 60.0))
    desk = Desk("A")
    desk.subscriptions.start(desk.now)
    desk.settle()
    desk.subscriptions.add(desk.exchange.add(["B"], 0))
    desk.settle()
    for native in "CDE":
        desk.subscriptions.add(desk.exchange.add([native], 0))
    while (due := desk.subscriptions.due_mono_ns) is not None and due <= desk.now:
        desk.answer(desk.send())
    assert len(desk.sent) == 4
    assert desk.subscriptions.due_mono_ns == desk.now + 60 * NS_PER_S


LEVELS = Description(
    200, "levels", "a test", Retention.LATEST, header.Record, layout("l", "l", header.Record, header.HEADER)
)
DEALS = Description(
    201, "deals", "a test", Retention.EVERY, header.Record, layout("d", "d", header.Record, header.HEADER)
)


@pytest.mark.parametrize(
    ("holds", "joins", "is_renewed"),
    [
        ("ticker", "levels", True),
        ("levels", "ticker", True),
        ("levels", "deals", False),
        ("deals", "levels", False),
    ],
)
def test_a_latest_kind_that_joins_a_topic_has_its_snapshot_unless_records_of_another_would_be_lost(
    holds, joins, is_renewed
):
    with registered(LEVELS, DEALS):
        desk = Desk()
        desk.exchange.kinds = ("ticker", "levels", "deals")
        desk.exchange.repeats_s = {("levels", 0): 2.0, ("ticker", 0): 1.0, ("deals", 0): 3.0}
        desk.exchange.states.update({"levels": {}, "deals": {}})
        desk.exchange.topics = lambda native, kind: (f"orderbook.1.{native}",)
        desk.subscriptions.add(desk.exchange.add(["A"], 0, holds))
        desk.subscriptions.add(desk.exchange.add(["B"], 0, joins))
        desk.subscriptions.start(desk.now)
        desk.settle()
        promised_ns = desk.subscriptions.repeats_ns("")
        desk.subscriptions.remove([desk.exchange.states[joins]["B"]])
        desk.settle()
        desk.subscriptions.add(desk.exchange.add(["A"], 0, joins))
        renewal = [("unsubscribe", ("orderbook.1.A",)), ("subscribe", ("orderbook.1.A",))]
        assert desk.settle() == renewal * is_renewed
        assert desk.subscriptions.repeats_ns("") == promised_ns


def test_a_new_connection_is_asked_for_all_of_it_again():
    desk = Desk("A")
    desk.subscriptions.start(desk.now)
    desk.settle()
    desk.add("B")
    desk.subscriptions.reset()
    desk.held.clear()
    assert desk.subscriptions.due_mono_ns is None
    desk.subscriptions.start(desk.now)
    desk.settle()
    assert desk.held == topics("A", "B")


def test_a_canary_is_asked_for_with_the_others_and_is_not_one_of_them():
    desk = Desk("A")
    desk.subscriptions.set_canary("BTC")
    desk.subscriptions.start(desk.now)
    desk.settle()
    assert desk.held == topics("A") | {"orderbook.1.BTC"}
    assert desk.subscriptions.has_canary("")
    assert (desk.subscriptions.topic_count, desk.subscriptions.unheard()) == (2, 2)
    desk.subscriptions.set_canary("XBT")
    assert desk.settle() == [("unsubscribe", ("orderbook.1.BTC",)), ("subscribe", ("orderbook.1.XBT",))]
    desk.subscriptions.set_canary("")
    desk.settle()
    assert desk.held == topics("A")
    assert not desk.subscriptions.has_canary("")


def test_a_canary_that_is_wanted_is_asked_for_as_what_is_wanted_and_back():
    desk = Desk("A")
    desk.subscriptions.set_canary("BTC")
    desk.subscriptions.start(desk.now)
    desk.settle()
    desk.add("BTC")
    desk.settle()
    assert desk.held == topics("A", "BTC")
    assert desk.subscriptions.has_canary("")
    desk.remove("BTC")
    desk.settle()
    assert desk.held == topics("A") | {"orderbook.1.BTC"}
    assert desk.subscriptions.has_canary("")


def test_a_canary_that_is_refused_costs_the_others_nothing():
    desk = Desk("A")
    desk.subscriptions.set_canary("BTC")
    desk.refuses = {"orderbook.1.BTC"}
    desk.subscriptions.start(desk.now)
    desk.settle()
    assert desk.held == topics("A")
    assert desk.subscriptions.rejected == {}
    assert not desk.subscriptions.has_canary("")
    assert desk.subscriptions.is_acknowledged


def test_the_numbers_of_a_symbol_go_on_when_it_is_wanted_again():
    desk = Desk("A")
    state = desk.exchange.tickers["A"]
    state.sequence, state.recv_ns, state.bid = 7, UNIX, 1.0
    desk.remove("A")
    desk.add("A")
    again = desk.exchange.tickers["A"]
    assert again.sequence == 7
    assert again.recv_ns == 0
    assert again.bid != again.bid


def test_one_that_the_exchange_knows_no_more_does_not_keep_others_of_its_request():
    """It refuses a whole request for one bad topic, as it may for a symbol that was delisted."""
    desk = Desk("A", "B", "GONE")
    desk.subscriptions.start(desk.now)
    desk.settle()
    desk.refuses = topics("GONE")
    desk.remove("B", "GONE")
    desk.settle()
    assert desk.held == topics("A", "GONE")


# --- requests of several topics that are acknowledged, and of which nothing comes

NATIVES = ("A-B", "C-D", "E-F", "G-H")


class KuCoinDesk:
    """A connection to an exchange that has a request per channel, each of several symbols."""

    def __init__(self, *natives):
        self.exchange = EXCHANGES["kucoin"].main()
        self.line = Line(0)
        states = self.exchange.add(natives, 0)
        self.subscriptions = LineSubscriptions(self.exchange, states, self.line)
        self.now = NS_PER_S
        self.sent = []
        self.subscriptions.start(self.now)
        self.settle()

    def settle(self):
        """Send and acknowledge all that is queued; returns the topics of each request."""
        before = len(self.sent)
        while self.subscriptions.due_mono_ns is not None:
            request = json.loads(self.subscriptions.send(self.now, str(len(self.sent) + 1)))
            self.sent.append(request["topic"])
            assert self.subscriptions.on_answer(Ack(request["id"]), self.now, UNIX) == ""
        return self.sent[before:]

    def say(self, channel, *natives):
        for number, native in enumerate(natives):
            data = {"asks": ["2", "1"], "bids": ["1", "1"], "timestamp": UNIX // 1_000_000 + number}
            if channel == "/market/snapshot":
                data = {"data": {"symbol": native, "open": 1.0, "datetime": UNIX // 1_000_000}}
            frame = {"topic": f"{channel}:{native}", "type": "message", "subject": "s", "data": data}
            emitted = []
            assert self.exchange.decode(json.dumps(frame).encode(), UNIX, self.line, emitted.append) is None
            assert len(emitted) == 1

    def wait(self, periods=1):
        """Let time pass; returns what is asked for then."""
        asked = []
        for _ in range(periods):
            self.now += TOGETHER_TIMEOUT_NS
            assert self.subscriptions.watch(self.now, delivers=True) == ""
            asked += self.settle()
        return asked


def test_a_request_of_which_nothing_comes_is_asked_again_topic_by_topic_if_its_symbols_speak_elsewhere():
    desk = KuCoinDesk(*NATIVES)
    assert desk.sent[0] == "/market/snapshot:A-B,C-D,E-F,G-H"
    desk.say("/spotMarket/level1", *NATIVES[:2] * 10)
    assert desk.wait() == [], "too few of them"
    desk.say("/spotMarket/level1", NATIVES[2])
    assert desk.wait() == [
        *(f"/market/snapshot:{native}" for native in NATIVES),
        *(f"/market/ticker:{native}" for native in NATIVES),
    ]
    assert desk.wait(20) == [], "once"


def test_a_quiet_market_is_asked_for_once():
    desk = KuCoinDesk(*NATIVES)
    assert desk.wait(5) == []
    desk.say("/spotMarket/level1", *NATIVES)
    assert desk.wait(5) == [], "a quote may change where nobody trades"
    assert desk.subscriptions.silent_topics() == []


def test_a_request_of_which_something_comes_is_as_it_should_be():
    desk = KuCoinDesk(*NATIVES)
    desk.say("/spotMarket/level1", *NATIVES * 9)
    desk.say("/market/snapshot", NATIVES[0])
    assert not any(topic.startswith("/market/snapshot") for topic in desk.wait(3))


def test_what_is_not_wanted_any_more_is_not_asked_for_apart():
    desk = KuCoinDesk(*NATIVES)
    desk.say("/spotMarket/level1", *NATIVES * 9)
    desk.subscriptions.remove([desk.exchange.tickers[native] for native in NATIVES[:3]])
    desk.settle()
    assert desk.wait(3) == []
