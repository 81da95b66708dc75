"""A dead channel is told from a quiet market, flagged in time, and healed."""

import pytest

from feedhandler.data import wire
from feedhandler.data.status import Phase
from feedhandler.data.units import NS_PER_S
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.arbitration import Line
from feedhandler.exchanges.base import Quote, RestTicker
from feedhandler.exchanges.state import LAST, QUOTE, STATISTICS
from feedhandler.feed.freshness import (
    DECIDES_NS,
    FIRST_DATA_NS,
    GAPS_MIN,
    LAG_AGAIN_NS,
    LAG_NS,
    LOOK_NS,
    RENEW_AFTER_NS,
    SILENCE_NS_MIN,
    USUAL_FACTOR,
    VERDICT_NS,
    Freshness,
)

UNIX = 1_790_000_000 * NS_PER_S
STEP_NS = 200_000_000
SAME = Quote(1.0, 2.0, 3.0, 4.0)
OTHER = Quote(1.5, 2.0, 3.0, 4.0)


class Subscriptions:
    def __init__(self):
        self.renewed = []
        self.refused = ()  # or not acknowledged yet
        self.reasons = {}
        self.failure = ""

    def unreadable(self, topic):
        return self.failure if topic.endswith("bookTicker") else ""

    def refusal(self, topic):
        return self.reasons.get(topic, "")

    def renew(self, topics):
        self.renewed += topics

    def answered_ns(self, topic):
        return UNIX

    def is_granted(self, topic):
        return topic not in self.refused


class Connection:
    """What the watch sees of a session: its line, its condition, and what was renewed on it."""

    phase = Phase.RUNNING
    opened_mono_ns = 0
    has_data = True
    is_doubted = False
    lives = True

    def has_lived_since(self, mono_ns):
        return self.lives

    def __init__(self, line):
        self.line = line
        self.condition = 0
        self.subscriptions = Subscriptions()


class Feed:
    """A watch over some symbols, and the clock, the exchange and the network around it."""

    def __init__(self, exchange="binance", natives=("A",), lines=1):
        self.exchange = EXCHANGES[exchange].main()
        self.exchange.add(natives, wire.SIMULATED)
        self.emitted = []
        self.watch = Freshness(self.exchange, lambda state: self.emitted.append(wire.unpack(state.record())))
        self.watch.add(self.exchange.all_states)
        self.connections = [Connection(Line(index)) for index in range(lines)]
        self.now = 1_000 * NS_PER_S
        self.number = 0
        self.asked = []
        self.surveys = 0
        self.statistics = None  # as REST has them
        self.last = wire.NAN

    clock_off_ns = 0  # of this host's clock

    def say(self, native="A", channel=QUOTE, lines=None, quote=SAME, again=False):
        self.number += not again
        state = self.exchange.tickers[native]
        for connection in self.connections if lines is None else [self.connections[i] for i in lines]:
            recv_ns = UNIX + self.now + self.clock_off_ns
            if state.accept(channel, connection.line, 1_000 + self.number, recv_ns):
                if channel == QUOTE:
                    state.set_quote(quote.bid, quote.bid_size, quote.ask, quote.ask_size)
                state.on_news(recv_ns)

    def run(self, seconds, *, every=None, answer=None, **said):
        """Let time pass; say something every so often; answer questions at once, None: there is no answer."""
        end = self.now + int(seconds * NS_PER_S)
        due = self.now
        while self.now < end:
            if every is not None and self.now >= due:
                due = self.now + int(every * NS_PER_S)
                self.say(**said)
            for question in self.watch.advance(self.now, self.connections):
                self.asked.append(question.native)
                question.watch.on_quote(question.native, answer)
            if self.watch.wants_survey:
                self.surveys += 1
                self.watch.on_survey_sent()
                natives = self.exchange.tickers if answer is not None else ()
                self.watch.on_survey(RestTicker(n, answer, self.last, self.statistics) for n in natives)
                self.watch.on_survey_end()
            self.now += STEP_NS

    def is_stale(self, native="A"):
        return bool(self.exchange.tickers[native].flags & wire.STALE)

    def renewed(self, line=0):
        return self.connections[line].subscriptions.renewed


def test_a_busy_channel_that_falls_silent_is_flagged_within_the_bound_if_rest_has_other_quotes():
    feed = Feed()
    feed.run(60, every=0.5)
    feed.run(SILENCE_NS_MIN / NS_PER_S - 1, answer=OTHER)
    assert not feed.is_stale()
    assert feed.asked == []
    feed.run((DECIDES_NS - SILENCE_NS_MIN) / NS_PER_S + 1, answer=OTHER)
    assert feed.is_stale()
    assert feed.asked == ["A", "A"], "one answer may be a moment ahead"
    assert feed.emitted[-1].flags == wire.STALE | wire.SIMULATED
    assert "REST has another quote" in feed.watch.stale()["a@bookTicker"]
    assert feed.renewed() == ["a@bookTicker"]


def test_the_flag_stays_on_records_of_other_channels_and_goes_when_it_speaks_again():
    feed = Feed()
    feed.run(60, every=0.5)
    feed.run(20, answer=OTHER)
    feed.say(channel=STATISTICS)
    assert feed.is_stale()
    feed.say()
    feed.run(1)
    assert not feed.is_stale()
    assert feed.emitted[-1].flags == wire.SIMULATED
    assert feed.watch.stale() == {}


def test_a_quiet_market_is_no_fault_if_rest_says_the_same():
    feed = Feed()
    feed.run(60, every=0.5)
    feed.run(25, answer=SAME)
    assert not feed.is_stale()
    assert 1 <= len(feed.asked) <= 3, "with growing patience"
    assert feed.renewed() == [], "its next word could fall into the gap"
    feed.run(20, every=0.5)
    assert feed.emitted == []


def test_a_market_that_stands_still_over_rest_too_is_quiet_and_asked_about_ever_more_rarely():
    feed = Feed()
    feed.run(60, every=0.5)
    feed.run(3600, answer=SAME)
    assert not feed.is_stale()
    assert len(feed.asked) <= 18
    assert feed.emitted == []
    feed.run(310, answer=OTHER)
    assert feed.is_stale(), "now it moves, and nobody is told"


def test_without_an_answer_from_rest_it_is_flagged():
    feed = Feed()
    feed.run(60, every=0.5)
    feed.run(DECIDES_NS / NS_PER_S + 1, answer=None)
    assert feed.is_stale()


def test_an_answer_that_never_comes_does_not_spare_a_suspect_for_ever():
    feed = Feed()
    feed.run(60, every=0.5)
    feed.watch.on_quote = lambda native, quote: None  # lost
    feed.run(DECIDES_NS / NS_PER_S + 1)
    assert feed.is_stale()


@pytest.mark.parametrize("usual_s", [5, 20])
def test_how_long_it_may_be_silent_is_learned(usual_s):
    feed = Feed()
    feed.run(usual_s * (GAPS_MIN + 3), every=usual_s)
    feed.run(USUAL_FACTOR * usual_s - usual_s - 2, answer=OTHER)
    assert feed.asked == []
    feed.run(usual_s + 15, answer=OTHER)
    assert feed.is_stale()


def test_what_is_not_known_to_be_unusual_is_no_suspect():
    feed = Feed()
    feed.run(10, every=1)
    feed.run(600)
    assert feed.asked == []
    assert not feed.is_stale()


def test_a_channel_that_promises_to_repeat_itself_and_does_not_needs_no_other_witness():
    feed = Feed("bybit")
    feed.run(20, every=3, again=True)
    feed.run(DECIDES_NS / NS_PER_S + 1)
    assert feed.is_stale()
    assert feed.asked == []
    assert feed.renewed()[0] == "orderbook.1.A"


def test_a_promise_that_was_never_kept_is_none():
    feed = Feed("bybit")
    feed.run(20, every=3)
    feed.run(60)
    assert not feed.is_stale()


def test_another_channel_that_knows_better_proves_it():
    """A slower channel speaks for the quote while the fast one is silent: what it says should have come there."""
    feed = Feed()
    feed.run(5, every=1)
    state = feed.exchange.tickers["A"]
    for number in range(12):
        state.fill_quote(10.0 + number, 1.0, 11.0 + number, 1.0)
        feed.run(1)
    assert feed.is_stale()
    assert "another channel had news" in feed.watch.stale()["a@bookTicker"]


def test_an_acknowledged_channel_that_never_spoke_can_be_proven_dead_as_well():
    feed = Feed()
    feed.say(channel=STATISTICS)
    state = feed.exchange.tickers["A"]
    for number in range(int((FIRST_DATA_NS + VERDICT_NS) / NS_PER_S) + 3):
        state.fill_quote(10.0 + number, 1.0, 11.0 + number, 1.0)
        feed.run(1)
    assert feed.is_stale()


def test_a_channel_that_speaks_and_is_not_understood_is_told_as_that_and_nothing_is_renewed_for_it():
    feed = Feed()
    feed.run(60, every=0.5)
    feed.connections[0].subscriptions.failure = "Expected `float`, got `object`"
    feed.run(600, answer=OTHER)
    assert feed.is_stale()
    assert feed.watch.stale() == {"a@bookTicker": "it cannot be decoded: Expected `float`, got `object`"}
    assert feed.renewed() == []
    assert feed.watch.renewal == ""
    feed.connections[0].subscriptions.failure = ""
    feed.run(2, every=0.5)
    assert not feed.is_stale()


def test_the_last_price_is_watched_like_the_quote():
    feed = Feed("kucoin")
    feed.run(5, every=1, channel=LAST)
    state = feed.exchange.tickers["A"]
    for number in range(12):
        state.fill_last(10.0 + number)
        feed.run(1)
    assert "/market/ticker:A" in feed.watch.stale()


def test_a_late_replay_is_no_sign_of_life():
    feed = Feed()
    feed.run(60, every=0.5)
    state, line = feed.exchange.tickers["A"], feed.connections[0].line
    for _ in range(20):
        assert not state.accept(QUOTE, line, 1_001, UNIX + feed.now)
        feed.run(1, answer=OTHER)
    assert feed.is_stale()


def test_times_that_stand_still_are_those_of_old_data_and_flagged_until_they_go_on():
    feed = Feed()
    feed.run(40, every=1, channel=STATISTICS, again=False)
    assert not feed.is_stale()
    feed.run(45, every=1, channel=STATISTICS, again=True)
    assert feed.is_stale()
    assert "the same time" in feed.watch.stale()["a@ticker"]
    feed.run(7, every=1, channel=STATISTICS)
    assert not feed.is_stale()


def test_a_quiet_channel_states_the_same_time_and_is_not_blamed():
    feed = Feed()
    feed.run(5, every=1, channel=STATISTICS)
    feed.run(120)
    assert not feed.is_stale()


def test_while_no_connection_delivers_nobody_can_speak():
    feed = Feed()
    feed.run(60, every=0.5)
    feed.connections[0].condition = wire.STALE
    feed.run(300, answer=OTHER)
    feed.connections[0].condition = 0
    feed.run(5, answer=OTHER)
    assert not feed.is_stale()


def test_who_was_stopped_has_heard_nothing_and_holds_it_against_nobody():
    feed = Feed()
    feed.run(60, every=0.5)
    feed.now += 300 * NS_PER_S
    feed.run(5, answer=OTHER)
    assert feed.asked == []


def test_an_outage_of_many_channels_is_not_asked_about_one_by_one():
    natives = [f"S{number}" for number in range(60)]
    feed = Feed(natives=natives)
    for _ in range(40):
        for native in natives:
            feed.say(native)
        feed.run(1)
    feed.run(DECIDES_NS / NS_PER_S + 2, answer=OTHER)
    assert all(feed.is_stale(native) for native in natives)
    assert feed.asked == []
    assert 1 <= feed.surveys < 20, "all at once, and the owner makes one of those within seconds"
    assert len(feed.watch.stale()) == len(natives)


def test_many_markets_that_fall_quiet_at_once_are_vouched_for_by_one_answer():
    natives = [f"S{number}" for number in range(60)]
    feed = Feed(natives=natives)
    for _ in range(40):
        for native in natives:
            feed.say(native)
        feed.run(1)
    feed.run(60, answer=SAME)
    assert feed.emitted == []
    assert feed.asked == []
    assert 1 <= feed.surveys < 20, "the owner makes one of those within seconds"


TRADED = (1.0, 1.0, 1.0, 10.0, 10.0)  # statistics over REST, the fourth being the volume


def speak_of_trades(feed, volume=10.0):
    state = feed.exchange.tickers["A"]
    feed.say(channel=STATISTICS)
    state.set_statistics(1.0, 1.0, 1.0, volume, 10.0)


def test_rest_vouches_for_statistics_too():
    feed = Feed()
    feed.statistics = TRADED
    for _ in range(60):
        speak_of_trades(feed)
        feed.run(1, answer=SAME)
    feed.run(600, answer=SAME)
    assert feed.emitted == []
    assert feed.renewed() == []


def test_statistics_that_are_silent_while_there_are_trades_are_flagged_and_their_connections_renewed():
    feed = Feed()
    for _ in range(60):
        speak_of_trades(feed)
        feed.run(1, answer=SAME)
    feed.statistics = (1.0, 1.0, 1.0, 11.0, 11.0)
    feed.run(DECIDES_NS / NS_PER_S + 1, answer=SAME)
    assert feed.is_stale()
    assert "REST has other values" in feed.watch.stale()["a@ticker"]
    feed.run(RENEW_AFTER_NS / NS_PER_S + 2, answer=SAME)
    assert feed.watch.renewal == "a@ticker is silent"


def test_no_connection_is_renewed_for_statistics_of_which_rest_says_nothing_else():
    feed = Feed()
    for _ in range(60):
        speak_of_trades(feed)
        feed.run(1, answer=None)
    feed.run(60, answer=None)
    assert feed.is_stale(), "nobody can witness"
    assert feed.watch.renewal == ""
    feed.statistics = TRADED
    feed.run(60, answer=SAME)
    assert not feed.is_stale(), "now somebody can"
    assert feed.watch.renewal == ""


@pytest.mark.parametrize("channel", [STATISTICS, QUOTE])
@pytest.mark.parametrize("answer", [None, SAME])
def test_a_channel_that_becomes_slower_is_flagged_at_most_at_first_and_where_nobody_can_witness(
    channel, answer
):
    """Each second for a minute, and then every 25 s: what ended in an ordinary word was usual."""
    feed = Feed()
    feed.run(60, every=1, channel=channel, answer=answer)
    flagged = 0
    for _ in range(20):
        feed.run(25, answer=answer)
        flagged += feed.is_stale()
        feed.say(channel=channel)
        feed.run(1)
    # REST has no statistics here. For a quote of which nobody knows, connections were renewed at the first time,
    # just before its word: so that taught nothing yet.
    assert flagged <= (2 if channel == QUOTE and answer is None else channel == STATISTICS or answer is None)
    assert feed.watch.renewal == "" or (channel == QUOTE and answer is None)


def test_a_dead_channel_that_comes_back_does_not_teach_that_its_silence_was_usual():
    feed = Feed()
    feed.run(60, every=0.5)
    feed.run(200, answer=OTHER)
    assert feed.is_stale()
    feed.run(60, every=0.5)
    feed.run(DECIDES_NS / NS_PER_S + 1, answer=OTHER)
    assert feed.is_stale(), "as soon as the first time"


def test_one_that_never_spoke_is_found_by_rest_alone():
    feed = Feed()
    state = feed.exchange.tickers["A"]
    state.set_quote(1.0, 2.0, 3.0, 4.0)  # as REST had it in the beginning
    feed.run(120, answer=SAME)
    assert not feed.is_stale()
    assert 1 <= feed.surveys <= 4
    feed.run(130, answer=OTHER)
    assert "REST has another quote" in feed.watch.stale()["a@bookTicker"]


def test_one_that_never_spoke_is_found_within_half_a_minute_and_rest_that_fills_it_is_no_word_of_it():
    """What REST states is in the state by then: it is compared with what it stated before."""
    feed = Feed()
    for number in range(25):
        fill(feed, Quote(float(number), 2.0, 300.0, 4.0), 1)
        feed.watch.on_seed("A", [])
    assert feed.is_stale()
    assert "it has had no data, and REST has another quote" in feed.watch.stale()["a@bookTicker"]
    assert feed.renewed() == ["a@bookTicker"]
    assert feed.surveys <= 4
    assert feed.watch.contradicted == {}, "the connection has brought others"
    feed.say()
    feed.run(1)
    assert not feed.is_stale()


def fill(feed, answer, seconds):
    """Let time pass as in a feed: what REST states is taken over while the channel is without data."""
    for _ in range(seconds):
        state = feed.exchange.tickers["A"]
        state.set_quote(answer.bid, answer.bid_size, answer.ask, answer.ask_size)
        state.on_news(UNIX + feed.now)
        feed.run(1, answer=answer)


def test_one_change_that_never_came_is_enough():
    feed = Feed()
    fill(feed, SAME, 60)
    fill(feed, OTHER, 60)
    assert feed.is_stale()


@pytest.mark.parametrize("side", [wire.NAN, 3.0])
def test_a_market_without_orders_states_the_same_again_and_again(side):
    feed = Feed()
    fill(feed, Quote(1.0, 2.0, side, 0.0), 300)
    assert not feed.is_stale()


def test_what_rest_stated_before_the_acknowledgement_had_come_long_enough_is_no_measure():
    feed = Feed()
    feed.connections[0].subscriptions.refused = ("a@bookTicker",)
    fill(feed, SAME, 200)
    feed.connections[0].subscriptions.refused = ()
    fill(feed, OTHER, 4)
    feed.watch.wants_survey = True  # for another reason
    fill(feed, OTHER, 300)
    assert not feed.is_stale()


def test_a_channel_that_was_refused_is_not_called_dead():
    feed = Feed()
    feed.connections[0].subscriptions.refused = ("a@bookTicker",)
    for number in range(300):
        fill(feed, Quote(float(number), 2.0, 300.0, 4.0), 1)
    assert not feed.is_stale()


def test_what_a_refused_channel_has_of_rest_is_stale_until_it_is_granted_and_has_data():
    feed = Feed(natives=("A", "B"))
    feed.connections[0].subscriptions.reasons = {"a@bookTicker": "no such stream"}
    fill(feed, SAME, 3)
    assert feed.is_stale()
    assert not feed.is_stale("B")
    assert feed.watch.stale() == {"a@bookTicker": "the exchange refuses it: no such stream"}
    fill(feed, OTHER, 60)
    assert feed.is_stale()
    assert feed.renewed() == [], "it would be refused again"
    assert feed.watch.renewal == ""
    feed.watch.reset()  # the next connection is refused the same
    fill(feed, SAME, 3)
    assert feed.is_stale()
    feed.connections[0].subscriptions.reasons = {}
    feed.say()
    feed.run(2)
    assert not feed.is_stale()


def test_a_channel_that_one_of_two_connections_has_is_not_refused():
    feed = Feed(lines=2)
    feed.connections[0].subscriptions.reasons = {"a@bookTicker": "no such stream"}
    feed.run(30, every=1, lines=[1])
    assert not feed.is_stale()
    del feed.connections[1]
    feed.run(2)
    assert feed.is_stale()


def test_a_connection_without_any_data_is_reported_with_what_it_should_have_brought():
    feed = Feed()
    feed.connections[0].has_data = False
    for number in range(25):
        fill(feed, Quote(float(number), 2.0, 300.0, 4.0), 1)
    assert feed.watch.contradicted == {feed.connections[0]: "a@bookTicker"}


def test_a_connection_that_shows_no_life_since_the_change_may_be_half_open_and_proves_nothing():
    feed = Feed(lines=2)
    feed.connections[0].lives = False
    for number in range(60):
        fill(feed, Quote(float(number), 2.0, 300.0, 4.0), 1)
    assert not feed.is_stale()
    gone = feed.connections.pop(0)
    fill(feed, SAME, 60)
    assert not feed.is_stale(), f"the other was not there before {gone}"
    fill(feed, OTHER, 60)
    assert feed.is_stale()


def test_what_a_connection_missed_before_its_first_data_is_held_against_none_of_its_channels():
    feed = Feed()
    feed.connections[0].has_data = False
    fill(feed, SAME, 12)
    feed.connections[0].has_data = True
    fill(feed, OTHER, 120)
    assert not feed.is_stale()
    fill(feed, SAME, 120)
    assert feed.is_stale()


def test_symbols_that_join_are_looked_at_as_soon_as_the_first_were():
    feed = Feed()
    feed.run(600, every=1, answer=SAME)
    feed.exchange.add(["B"], 0)
    feed.watch.add([feed.exchange.tickers["B"]])
    for number in range(25):
        feed.run(1, every=1, answer=Quote(float(number), 2.0, 300.0, 4.0))
    assert "b@bookTicker" in feed.watch.stale()


def test_rest_that_goes_on_to_state_the_same_is_taken_over_for_a_channel_that_was_called_dead():
    feed = Feed()
    fill(feed, SAME, 60)
    fill(feed, OTHER, 60)
    assert feed.is_stale()
    conceded = []
    for _ in range(400):
        fill(feed, OTHER, 1)
        conceded += feed.watch.conceded("A")
        feed.watch.on_seed("A", feed.watch.conceded("A"))
    assert conceded == [QUOTE]
    assert feed.watch.stale() == {}


def test_what_stays_silent_is_subscribed_to_again_with_patience_and_then_the_connections_are_renewed():
    feed = Feed()
    feed.run(60, every=0.5)
    feed.run(20, answer=OTHER)
    assert feed.is_stale()
    assert feed.watch.renewal == ""
    feed.run(RENEW_AFTER_NS / NS_PER_S + 2, answer=OTHER)
    assert feed.watch.renewal == "a@bookTicker is silent"
    feed.watch.renewal = ""
    feed.run(250, answer=OTHER)
    assert feed.watch.renewal == "", "not in a row"
    assert 3 <= len(feed.renewed()) <= 6
    feed.run(100, answer=OTHER)
    assert feed.watch.renewal
    feed.run(3600, answer=OTHER)
    assert len(feed.renewed()) < 20


def test_of_two_legs_the_one_that_hears_nothing_is_mended_and_nothing_is_flagged():
    feed = Feed(lines=2)
    feed.run(30, every=0.5)
    feed.run(LAG_NS / NS_PER_S + 5, every=0.5, lines=[1])
    assert feed.renewed(0) == ["a@bookTicker"]
    assert feed.renewed(1) == []
    feed.run(LAG_AGAIN_NS / NS_PER_S + 2, every=0.5, lines=[1])
    assert list(feed.watch.laggards.values()) == ["a@bookTicker is silent on it alone"]
    assert feed.emitted == []


def test_what_a_new_connection_is_told_at_once_is_no_evidence_against_an_old_one():
    feed = Feed(lines=2)
    feed.say(lines=[0])
    feed.run(60)
    feed.say(lines=[1])
    feed.run(10)
    assert feed.renewed(0) == []


def test_what_a_gone_line_heard_before_the_clock_was_set_back_silences_nobody():
    feed = Feed(lines=2)
    feed.run(60, every=0.5)
    gone = feed.connections.pop(0)
    feed.exchange.tickers["A"].release(gone.line.index)
    feed.clock_off_ns = -600 * NS_PER_S
    feed.run(60, every=0.5, answer=OTHER)
    assert feed.asked == []
    assert not feed.is_stale()


def test_a_new_only_connection_begins_without_a_flag():
    feed = Feed()
    feed.run(60, every=0.5)
    feed.run(20, answer=OTHER)
    assert feed.is_stale()
    feed.watch.reset()
    state = feed.exchange.tickers["A"]
    state.forget()
    assert state.base_flags == state.flags == wire.SIMULATED
    feed.run(30)
    feed.say()
    feed.run(1)
    assert not feed.is_stale()


def test_symbols_come_and_go_under_watch():
    feed = Feed(natives=("A", "B"))
    for _ in range(60):
        feed.say("A")
        feed.say("B")
        feed.run(1)
    feed.run(12, answer=OTHER)
    gone = [feed.exchange.tickers["B"]]
    feed.watch.remove(gone)
    feed.exchange.remove(gone)
    feed.run(10, answer=OTHER)
    assert list(feed.watch.stale()) == ["a@bookTicker"]
    feed.watch.add(feed.exchange.add(["B"], 0))
    feed.say("B")
    feed.run(2)
    assert not feed.is_stale("B")


def test_each_channel_is_looked_at_once_a_second_however_many_there_are():
    natives = [f"S{number}" for number in range(500)]
    feed = Feed(natives=natives)
    looked = []
    look = feed.watch._look
    feed.watch._look = lambda pulse, live, renewed: (looked.append(pulse.topic), look(pulse, live, renewed))
    feed.run(LOOK_NS / NS_PER_S * 3)
    assert all(looked.count(f"{native.lower()}@bookTicker") in (2, 3, 4) for native in natives)


def test_a_market_that_trades_in_bursts_is_not_taken_for_dead_when_one_is_over():
    feed = Feed()
    feed.run(20 * (GAPS_MIN + 3), every=20, channel=STATISTICS)
    feed.run(180, every=1, channel=STATISTICS)
    feed.run(60)
    assert not feed.is_stale()
    feed.run(60)
    assert feed.is_stale(), "that is longer than ever"


def test_a_suspect_that_speaks_by_itself_teaches_how_long_its_market_may_be_silent():
    feed = Feed()
    feed.run(60, every=1, channel=STATISTICS)
    feed.run(SILENCE_NS_MIN / NS_PER_S + 3)
    assert not feed.is_stale()
    feed.run(60, every=1, channel=STATISTICS)
    feed.run(2 * SILENCE_NS_MIN / NS_PER_S)
    assert not feed.is_stale()
