"""REST states all symbols at once: who is told, when it is asked again, and that it never disturbs the stream."""

import msgspec
import pytest
from seeds import first_of
from world import PLAYED, World

from feedhandler.data import wire
from feedhandler.data.units import NS_PER_S
from feedhandler.exchanges.base import RestTicker
from feedhandler.exchanges.state import QUOTE
from feedhandler.feed.survey import BACKOFF_NS, DISTANCE_NS, Survey
from feedhandler.transport.http import REST_SHARE


class Group:
    """What a survey sees of legs."""

    def __init__(self):
        self.wants_survey = True
        self.heard = []

    def on_survey_sent(self):
        self.wants_survey = False

    def on_survey(self, rows, recv_ns):
        self.heard += rows

    def on_survey_end(self, *, has_failed):
        self.wants_survey = has_failed


def test_groups_share_an_answer_and_who_comes_later_waits_for_the_next():
    survey, first, second, late = Survey(), Group(), Group(), Group()
    late.wants_survey = False
    assert survey.begin([first, second, late], 1)
    late.wants_survey = True
    assert not survey.begin([first, second, late], 2), "one at a time"
    survey.on_rows([RestTicker("A")], 3)
    survey.end(3)
    assert [len(group.heard) for group in (first, second, late)] == [1, 1, 0]
    assert not survey.begin([late], 3)
    assert survey.begin([late], 3 + DISTANCE_NS)


def test_a_failure_is_followed_by_growing_patience():
    survey, group = Survey(), Group()
    now, waits = 0, []
    for _ in range(10):
        assert survey.begin([group], now)
        survey.end(now, has_failed=True)
        failed = now
        while not survey.begin([group], now):
            now += NS_PER_S // 4
        survey.end(now, has_failed=True, retry_after_s=0.0)
        waits.append(now - failed)
        now += BACKOFF_NS[1]
    assert waits[0] == BACKOFF_NS[0]
    assert waits[-1] == BACKOFF_NS[1]
    assert survey.begin([group], now)
    survey.end(now, has_failed=True, retry_after_s=500.0)
    assert not survey.begin([group], now + 499 * NS_PER_S)


def test_without_a_wish_nothing_is_asked():
    survey, group = Survey(), Group()
    group.wants_survey = False
    assert not survey.begin([group], 1)


# --- in a world


@pytest.mark.parametrize("exchange", first_of(PLAYED))
def test_quiet_symbols_have_their_values_within_seconds_of_the_start(exchange):
    world = World(exchange, symbols=20, quiet=range(20))
    world.run(5)
    for native in world.natives:
        state = world.exchange.tickers[native]
        assert state.bid == world.number[native] + 0.5
        assert (state.last, state.high_24h, state.base_volume_24h) == (7.0, 7.0, 7.0)
        assert state.channels[QUOTE].updates == 0 or exchange == "bybit", "no channel has spoken"
    assert world.all_live()
    assert world.flagged == []
    assert world.surveys <= 2


def test_what_the_stream_says_is_newer_than_any_answer():
    world = World("binance", symbols=2, quiet=(0, 1))
    first, second = world.natives
    world.run(0.3)
    world.say(first)
    world.run(0.2)
    number = world.number[first]
    world.number[first] = number - 100  # what REST states is old
    world.run(20)
    assert world.exchange.tickers[first].bid == number + 0.5
    assert world.exchange.tickers[second].bid == world.number[second] + 0.5


def test_what_a_slower_channel_said_before_rest_was_asked_gives_way_to_the_answer():
    world = World("kucoin", symbols=2, quiet=(0, 1))
    quiet = world.natives[0]
    state = world.exchange.tickers[quiet]
    while state.bid != state.bid:
        world.run(0.02)
    world.number[quiet] += 5  # nobody is told: the quote's own channel is not subscribed to yet
    row = world.row
    world.row = lambda native: msgspec.structs.replace(row(native), last=9.0)  # nor of trades
    world.tells_first = False
    world.run(30)
    assert (state.bid, state.last) == (world.number[quiet] + 0.5, 9.0)
    assert world.flagged == []


def test_what_a_slower_channel_says_after_rest_was_asked_is_kept():
    world = World("kucoin", symbols=2, quiet=(0, 1))
    quiet = world.natives[0]
    while not world.rows or not world.answer_at:
        world.run(0.02)
    world.number[quiet] += 5
    (link,) = world.links.values()
    world.tell_slowly(link, f"/market/snapshot:{quiet}")
    world.answer_at = world.now + NS_PER_S  # it takes its time
    world.run(30)
    assert world.exchange.tickers[quiet].bid == world.number[quiet] + 0.5
    assert world.flagged == []


def test_a_lone_leg_that_reconnects_asks_again_and_one_beside_another_does_not():
    world = World("binance", legs=2, symbols=4, quiet=range(4))
    world.run(20)
    before = world.surveys
    first, second = world.legs.sessions
    world.close(first, "unplugged")
    world.run(10)
    assert world.surveys == before
    assert world.flagged == []
    for session in (first, second):
        world.close(session, "unplugged")
    assert {native for _, native, flags in world.flagged if flags & wire.DOWN} == set(world.natives)
    world.run(10)
    assert world.surveys > before
    assert world.all_live()


def test_rest_that_is_away_disturbs_nobody_and_is_asked_until_it_is_back():
    world = World("binance", symbols=3, quiet=(1,))
    world.answers_rest = world.tells_first = False
    world.run(60)
    assert world.flagged == []
    assert world.exchange.tickers[world.natives[1]].bid != world.exchange.tickers[world.natives[1]].bid
    assert 3 <= world.surveys <= 12
    world.answers_rest = True
    world.run(61)
    assert world.all_live()


def test_an_answer_from_before_a_reconnection_is_not_taken():
    world = World("binance", symbols=2, quiet=(0, 1))
    while not world.answer_at or world.survey_at:
        world.run(0.02)
    (session,) = world.links
    world.say(world.natives[0])
    world.close(session, "unplugged")
    session.deadline_mono_ns = world.now
    world.run(30)
    assert world.exchange.tickers[world.natives[0]].bid == world.number[world.natives[0]] + 0.5


def test_what_only_a_dead_leg_has_said_is_asked_for():
    world = World("kucoin", legs=2, quiet=(1,))
    world.tells_first = False
    quiet = world.natives[1]
    first, second = world.legs.sessions
    world.run(5)
    world.close(second, "unplugged")
    second.deadline_mono_ns = 1 << 62
    world.say(quiet)
    world.run(1)
    second.deadline_mono_ns = world.now
    world.run(0.05)
    world.close(first, "unplugged")
    first.deadline_mono_ns = 1 << 62
    assert world.flags[quiet] & wire.STALE
    world.number[quiet] += 5  # nobody was told
    world.run(10)
    assert not world.flags[quiet] & wire.STALE
    assert world.exchange.tickers[quiet].bid == world.number[quiet] + 0.5


def test_what_a_connection_has_said_that_was_followed_is_newer_than_an_answer_that_was_under_way():
    world = World("kucoin", symbols=2, quiet=(0, 1))
    quiet = world.natives[0]
    world.run(20)
    world.say(quiet)
    world.run(1)
    world.legs.freshness.wants_survey = True
    while not world.rows or world.survey_at or not world.answer_at:
        world.run(0.02)
    world.rows = [world.row(native) for native in world.listed]
    world.say(quiet)
    world.run(0.02)
    world.answer_at = world.now + 10 * NS_PER_S  # it takes its time,
    world.legs.renew("by order")  # and the connection is followed meanwhile
    world.run(9)
    assert world.retired == 1
    world.run(5)
    assert world.exchange.tickers[quiet].bid == world.number[quiet] + 0.5


@pytest.mark.parametrize("exchange", first_of(PLAYED))
@pytest.mark.parametrize("legs", [1, 2])
def test_what_was_said_while_the_connection_that_was_followed_was_dead_is_asked_for(exchange, legs):
    world = World(exchange, legs, symbols=4, quiet=(1, 2))
    world.tells_first = False
    quiet = world.natives[1]
    world.run(60)
    links = list(world.links.values())
    links[0].stalled_until = 1 << 62  # nobody is told,
    if legs == 2:
        world.close(world.legs.sessions[1], "unplugged")
        world.legs.sessions[1].deadline_mono_ns = world.now + NS_PER_S
    world.run(0.1)
    world.number[quiet] += 5  # and nobody hears of this,
    world.legs.renew("by order")  # but somebody comes who hears of the next
    world.run(40)
    state = world.exchange.tickers[quiet]
    assert (state.bid, state.flags) == (world.number[quiet] + 0.5, 0)
    assert world.all_live()


@pytest.mark.parametrize("exchange", first_of(PLAYED))
def test_what_was_lost_is_known_again_when_all_of_an_answer_has_come(exchange):
    world = World(exchange, legs=2, symbols=2, quiet=(0, 1), has_canary=False)
    world.tells_first = False
    world.said_ns = dict.fromkeys(world.natives, world.now)  # what is repeated, where that is promised
    world.run(30)
    quiet = world.natives[0]
    state = world.exchange.tickers[quiet]
    first, second = world.legs.sessions
    world.links[first].stalled_until = 1 << 62
    world.close(second, "unplugged")
    second.deadline_mono_ns = world.now + NS_PER_S
    world.run(0.1)
    world.number[quiet] += 5  # nobody hears of this
    while not world.rows or not world.answer_at:
        world.run(0.02)
    world.answer_at = 0
    values = {"last": 9.0, "statistics": (1.0, 2.0, 3.0, 4.0, 5.0)}
    world.survey.on_rows([RestTicker(quiet, world.row(quiet).quote)], world.unix_ns())
    world.survey.on_rows([RestTicker(quiet, **values)], world.unix_ns())  # each request has a part
    world.survey.end(world.now)
    assert (state.bid, state.last, state.quote_volume_24h) == (world.number[quiet] + 0.5, 9.0, 5.0)
    assert not state.flags


def test_what_rest_has_contradicted_is_live_again_when_its_value_is_taken_over():
    world = World("kucoin", symbols=2, quiet=(0, 1))
    world.tells_first = False
    world.run(10)
    quiet = world.natives[0]
    world.say(quiet)
    world.run(20)
    (session,) = world.links
    world.links[session].stalled_until = 1 << 62
    world.number[quiet] += 5
    for _ in range(2):
        world.legs.freshness.wants_survey = True
        world.run(5)
    assert world.flags[quiet] & wire.STALE, "REST has contradicted it twice"
    world.legs.renew("by order")
    world.run(40)
    assert world.exchange.tickers[quiet].bid == world.number[quiet] + 0.5
    assert world.all_live()
    assert world.legs.freshness.stale() == {}


@pytest.mark.many
def test_a_market_that_stands_still_takes_little_of_the_budget_however_many_symbols_it_has():
    world = World("binance", symbols=150, quiet=range(150))
    world.step_ns = NS_PER_S // 5
    weight = world.exchange.quote_request("X").weight
    survey_weight = sum(request.weight for request in world.exchange.survey_requests)
    every_s = {native: 1.0 + number / 15 for number, native in enumerate(world.natives)}
    asked = []
    answer = world.answer_over_rest
    world.answer_over_rest = lambda question: (asked.append((world.now, weight)), answer(question))

    def trade():
        for native, seconds in every_s.items():
            if world.rng.random() < 0.2 / seconds:
                world.say(native)

    world.run(400, trade)
    began, surveys = world.now, world.surveys

    def stand_still():
        nonlocal surveys
        if world.surveys != surveys:
            surveys = world.surveys
            asked.append((world.now, survey_weight))

    world.run(400, stand_still)
    by_minute = [
        sum(weight for at, weight in asked if began + at_s * NS_PER_S <= at < began + (at_s + 60) * NS_PER_S)
        for at_s in range(0, 341, 10)
    ]
    limit, per_s = world.exchange.rest_limit
    assert per_s == 60.0
    assert max(by_minute) <= limit * REST_SHARE * 0.75, "the rest is for other requests"
    assert world.flagged == []


@pytest.mark.long
@pytest.mark.parametrize("exchange", ["binance", "kucoin"])  # Bybit repeats what it said
def test_one_update_that_was_missed_is_no_reason_for_renewals_for_ever(exchange):
    world = World(exchange, symbols=3, quiet=(1,))
    world.tells_first = False
    quiet = world.natives[1]
    world.run(10)
    world.say(quiet)
    world.run(20)
    world.number[quiet] += 5
    world.step_ns = NS_PER_S // 4
    world.run(600)
    assert wire.STALE in {flags for _, native, flags in world.flagged if native == quiet}
    assert world.exchange.tickers[quiet].bid == world.number[quiet] + 0.5
    assert world.all_live()
    before = len(world.connects)
    world.run(3600)
    assert len(world.connects) == before


@pytest.mark.long
def test_rest_stands_in_for_a_dead_channel_once_and_no_more():
    world = World("kucoin", symbols=3, quiet=(1,))
    world.tells_first = False
    dead = world.natives[1]
    world.run(10)
    world.say(dead)
    world.run(20)
    world.lost, world.heals = world.quote_topics[dead], 2
    world.step_ns = NS_PER_S // 4
    stale_s = [0, 0]
    for part in range(2):
        for _ in range(10):
            world.say(dead)  # nobody is told
            for _ in range(36):
                world.run(10)
                stale_s[part] += 10 * bool(world.flags[dead] & wire.STALE)
    assert stale_s[1] == 3600


@pytest.mark.parametrize("exchange", PLAYED)
def test_a_ticker_that_the_exchange_refuses_is_never_live_with_values_of_rest(exchange):
    world = World(exchange)
    refused, *others = world.natives
    (session,) = world.legs.sessions
    for topic in world.exchange.topics(refused, "ticker"):
        session.subscriptions.rejected[topic] = "no such thing"
        session.subscriptions._rejected_mono_ns[topic] = world.now
    flags = []

    def look():
        state = world.exchange.tickers[refused]
        flags.extend([state.flags] if state.is_known else [])

    world.run(30, look)
    assert flags, "REST has values of it"
    assert all(each & wire.STALE for each in flags[10:])
    assert all(not world.exchange.tickers[native].flags & wire.STALE for native in others)
    reasons = [text for text in world.legs.freshness.stale().values() if "refuses" in text]
    assert len(reasons) == len(world.exchange.topics(refused, "ticker"))
