"""Legs in a simulated world: exchange, network and clock are the test's, and everything comes from a seed."""

import itertools

import pytest
import world as worlds
from quiet import Calm
from seeds import first_of
from world import EPOCH_NS, PLAYED, World

from feedhandler.data import wire
from feedhandler.data.connecting import DailyWindow
from feedhandler.data.status import Phase
from feedhandler.data.units import NS_PER_DAY, NS_PER_S

# --- renewal


@pytest.mark.world
@pytest.mark.parametrize("legs", [1, 2, 3])
@pytest.mark.parametrize("exchange", first_of(PLAYED))
def test_connections_are_renewed_before_their_maximum_age_and_no_update_is_missed(exchange, legs):
    world = World(exchange, legs, max_age_s=40.0)
    oldest = 0

    def look():
        nonlocal oldest
        for link in filter(None, world.links.values()):
            oldest = max(oldest, world.now - link.opened_ns)

    world.run(250, look)
    assert world.retired >= 5 * legs
    assert oldest < 40 * NS_PER_S
    assert world.missed() == {}
    assert world.flagged == []


@pytest.mark.long
def test_legs_do_not_come_of_age_together():
    world = World(legs=3, max_age_s=60.0)
    times = []

    def look():
        times.extend([world.now] * (world.retired - len(times)))

    world.run(300, look)
    assert all(b - a > NS_PER_S for a, b in itertools.pairwise(times))


@pytest.mark.parametrize("exchange", first_of(PLAYED))
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
    old.subscriptions.rejected[topic] = "no such thing"
    old.subscriptions._rejected_mono_ns[topic] = world.now
    before = old.frames, old.line.first
    world.legs.renew("by order")
    world.run(3)
    (new,) = world.links
    assert new is not old
    assert new.connects == 2
    assert (new.decode_errors, len(new.kept_frames)) == (1, 1)
    assert new.frames > before[0]
    assert new.line.first > before[1]
    assert new.subscriptions.rejected == {topic: "no such thing"}
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


@pytest.mark.parametrize("exchange", first_of(PLAYED))
@pytest.mark.parametrize("legs", [1, 2])
def test_a_channel_that_is_acknowledged_and_silent_on_the_new_connection_is_asked_for_again(exchange, legs):
    world = World(exchange, legs)
    world.run(5)
    world.mutes_until = world.now + 20 * NS_PER_S  # whatever is subscribed now stays silent
    world.legs.renew("by order")
    world.run(90)
    world.run(30)
    assert legs <= world.retired <= 2 * legs, "or a successor that heard nothing was given up"
    assert len(world.links) == legs
    assert world.all_live()
    assert world.missed() == {}
    assert all(
        not session.subscriptions.silent_topics()
        for session in world.links
        if session.subscriptions.unheard() == 0
    )


def test_goodbyes_one_upon_the_other_are_answered_with_patience():
    world = World("binance")
    greeted = set()

    def bid_farewell():
        for link in filter(None, world.links.values()):
            if link not in greeted:
                greeted.add(link)
                world.post(link, {"e": "serverShutdown", "E": world.ms()})

    world.run(120, bid_farewell)
    assert 5 <= len(world.connects) <= 40
    world.run(90)
    assert world.all_live()


def test_a_successor_without_a_connection_does_not_replace_one_that_hiccups():
    world = World("binance", max_attempts=10)
    world.run(5)
    (old,) = world.links
    world.is_reachable = False
    world.legs.renew("by order")
    world.run(60)
    world.close(old, "a hiccup")
    world.is_reachable = True
    world.run(5)
    assert world.legs.sessions == [old]
    assert not old.has_given_up()
    assert world.all_live()


def test_what_is_followed_is_known_again_after_the_first_leg_died_early():
    world = World(legs=2, quiet=(1,))
    world.run(0.3)
    world.close(world.legs.sessions[0], "unplugged")
    world.run(5)
    world.say(world.natives[1])
    world.run(30)
    world.close(world.legs.sessions[1], "unplugged")
    world.run(20)
    world.close(world.legs.sessions[0], "unplugged")
    world.run(20)
    assert not [flagged for flagged in world.flagged if flagged[1] == world.natives[1]]


def test_a_quiet_book_that_is_repeated_is_news_after_a_renewal_too():
    world = World("bybit", quiet=(0, 1, 2))
    world.run(3)
    world.say(world.natives[0])
    world.run(1)
    world.legs.renew("by order")
    world.run(3)
    (session,) = world.links
    before = session.line.first
    world.run(16)
    assert session.line.first == before + 5, "the exchange repeats it every 3 s"


# --- redundancy


@pytest.mark.parametrize("exchange", first_of(PLAYED))
def test_one_leg_that_dies_costs_no_update_and_says_nothing(exchange):
    world = World(exchange, legs=2)
    world.run(5)
    for _ in range(6):
        world.close(world.legs.sessions[world.rng.randrange(2)], "unplugged")
        world.run(20)
        assert all(session.phase is Phase.RUNNING for session in world.links)
    assert world.missed() == {}
    assert world.flagged == []


@pytest.mark.parametrize("exchange", first_of(PLAYED))
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
    before = slow.line.duplicate, slow.line.behind_ns, slow.line.first
    world.run(30)
    repeated = slow.line.duplicate - before[0]
    behind_ns = (slow.line.behind_ns - before[1]) / repeated
    assert slow.line.first - before[2] < repeated / 50
    assert 80_000_000 < behind_ns < 120_000_000
    assert fast.line.first > 100
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
    world = World("kucoin", legs=2, quiet=(1,))
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


@pytest.mark.parametrize("exchange", ["binance", "kucoin"])
@pytest.mark.parametrize("legs", [1, 2])
def test_what_a_half_open_connection_missed_is_not_kept_by_the_one_that_was_made_after_it(exchange, legs):
    """Nothing has come on it yet, so that another is as good, and none has what was missed: REST has it."""
    world = World(exchange, legs, quiet=(1,), has_canary=False)
    world.tells_first = False
    quiet = world.natives[1]
    world.run(3)
    world.say(quiet)
    world.run(3)
    half_open, *others = world.legs.sessions
    for session in others:
        world.close(session, "unplugged")
    world.links[half_open].stalled_until = 1 << 62
    world.say(quiet)
    if legs == 1:
        world.legs.renew("by order")
    world.run(2)
    assert world.exchange.tickers[quiet].bid != world.number[quiet] + 0.5
    world.close(half_open, "no pong")
    closed_at = world.now
    while not (half_open.phase is Phase.RUNNING and half_open.subscriptions.is_acknowledged):
        assert world.now < closed_at + 20 * NS_PER_S
        world.steers_at = world.now + NS_PER_S  # nobody looks in between
        world.run(0.1)
    world.run(20)
    assert len(world.legs.sessions) == legs
    assert world.exchange.tickers[quiet].bid == world.number[quiet] + 0.5
    assert world.all_live()


def test_silence_of_one_leg_says_nothing_and_silence_of_both_does():
    world = World(legs=2)
    world.run(10)  # until it is known that the canary never rests
    for number, session in enumerate(world.legs.sessions):
        world.links[session].stalled_until = 1 << 62
        world.run(6)
        assert bool(world.flagged) == bool(number)
    assert all(flags & wire.STALE for flags in world.flags.values())
    world.run(60)
    assert world.all_live()


# --- acknowledged, and without data from the start

FOREVER = 1 << 62


def all_stale(world):
    return all(world.flags[native] & wire.STALE for native in world.natives)


@pytest.mark.parametrize("exchange", first_of(PLAYED))
@pytest.mark.parametrize("has_canary", [True, False])
def test_a_connection_that_acknowledges_everything_and_brings_nothing_is_found_in_half_a_minute(
    exchange, has_canary
):
    world = World(exchange, has_canary=has_canary, backoff_max_s=2.0)
    world.mutes_until = FOREVER
    (session,) = world.legs.sessions
    states = set()
    while len(world.connects) < 2 and world.now - world.began_at < 35 * NS_PER_S:
        world.run(0.1)
        states.add((world.legs.state(), all_stale(world)))
    assert len(world.connects) == 2, "it is connected anew"
    assert {native for _, native, flags in world.flagged if flags & wire.STALE} == set(world.natives)
    assert "no data" in session.ended
    fresh = set()
    world.run(120, lambda: fresh.update(n for n in world.newest if not world.flags[n]))
    assert fresh == set(), "what REST fills is not live"
    assert 4 <= len(world.connects) <= 15
    assert session.attempts >= 3
    world.mutes_until = 0
    world.run(40)
    assert world.all_live()
    assert (session.attempts, session.is_stale) == (0, False)


@pytest.mark.parametrize("exchange", first_of(PLAYED))
def test_connections_without_data_are_attempts_that_came_to_nothing(exchange):
    world = World(exchange, max_attempts=3)
    world.mutes_until = FOREVER
    (session,) = world.legs.sessions
    while not session.has_given_up():
        assert world.now - world.began_at < 200 * NS_PER_S
        world.run(0.1)
    assert len(world.connects) == 3


@pytest.mark.many
@pytest.mark.parametrize("exchange", ["binance", "kucoin"])
@pytest.mark.parametrize("every_s", [50, 3600])
@pytest.mark.parametrize("legs", [1, 2])
def test_an_exchange_on_which_hardly_anything_changes_is_no_dead_one(exchange, every_s, legs):
    """Its canary rests as well."""
    world = World(exchange, legs, symbols=2, quiet=(0, 1), max_attempts=1)
    world.say_canary, world.number_of_canary = lambda: None, lambda: 7
    world.tells_first = False
    world.step_ns = NS_PER_S // 10
    for _ in range(3600 // every_s):
        world.run(every_s / 2)
        world.say(world.natives[0])
        world.run(every_s / 2)
        world.say(world.natives[1])
    assert world.flagged == []
    assert len(world.connects) == legs
    assert world.missed() == {}


@pytest.mark.parametrize("exchange", first_of(PLAYED))
@pytest.mark.parametrize("lost", [1, 3])
@pytest.mark.parametrize("heals", [0, 1])
def test_symbols_without_data_from_the_start_are_found_and_mended(exchange, lost, heals):
    """A canary that comes, or other symbols, say nothing for them."""
    world = World(exchange, symbols=3)
    world.tells_first = False
    world.run(0.05)
    victims = set(world.natives[:lost])
    topics = {topic for native in victims for topic in world.quote_topics[native]}
    world.lost, world.heals = set(topics), 2
    world.run(30)
    assert {native for _, native, _ in world.flagged} == victims
    assert set(world.legs.freshness.stale()) == {t for t in topics if "@" in t or "." in t or ":" in t}
    assert all(world.flags[native] & wire.STALE for native in victims)
    world.heals = heals
    world.run(60)
    assert world.all_live()
    assert world.missed() == {}


@pytest.mark.parametrize("exchange", first_of(PLAYED))
def test_a_quote_without_data_from_the_start_stays_stale_while_there_are_trades(exchange):
    """Slower channels fill it, and no answer of REST has only what is known."""
    world = Calm(exchange, 1, symbols=2, quiet=(0, 1))
    victim, other = world.natives
    world.lost, world.heals = set(world.quote_topics[victim]), 2
    world.tells_first = True
    fresh_s = []

    def trade():
        if world.survey_at:
            world.volume[victim] += 1  # of which the statistics come later than REST's answer
        if world.now // world.step_ns % 30 == 0:
            world.change(victim)
        world.change(other)
        if not world.flags[victim] & wire.STALE:
            fresh_s.append((world.now - world.began_at) / NS_PER_S)

    world.run(300, trade)
    assert 10 < max(fresh_s) < 35
    world.lost = set()
    world.run(30, trade)
    assert world.all_live()


@pytest.mark.parametrize("exchange", first_of(PLAYED))
@pytest.mark.parametrize("has_canary", [True, False])
def test_a_leg_that_never_brings_anything_is_found_beside_one_that_does(exchange, has_canary):
    world = World(exchange, legs=2, has_canary=has_canary)
    mute, _ = world.legs.sessions
    take_request = world.take_request

    def acknowledge_alone(link, message):
        world.mutes_until = FOREVER if link is world.links.get(mute) and mute.connects == 1 else 0
        take_request(link, message)

    world.take_request = acknowledge_alone
    world.run(30 if has_canary else 60)
    sessions = world.legs.sessions
    assert mute not in sessions or mute.connects > 1
    world.run(5)
    assert all(session.has_data for session in world.legs.sessions)
    assert world.flagged == []
    assert world.missed() == {}


def test_a_successor_that_never_brings_anything_is_connected_anew():
    world = World("binance")
    world.run(3)
    world.mutes_until = world.now + 25 * NS_PER_S
    world.legs.renew("by order")
    world.run(90)
    assert world.retired == 1
    assert world.all_live()
    assert world.flagged == []
    assert world.missed() == {}


# --- whatever happens; `make sim` plays thousands of these


# The last seeds of each are what longer plays have found.
@pytest.mark.world
@pytest.mark.parametrize("seed", [*range(15), 405, 1332])
def test_no_update_is_missed_while_faults_spare_one_leg(seed):
    worlds.spare_one_leg(seed)


@pytest.mark.world
@pytest.mark.parametrize("seed", [*range(10), 174, 297, 871, 1027, 1318])
def test_symbols_come_and_go_and_nobody_else_notices(seed):
    worlds.change_of_minds(seed)


@pytest.mark.world
@pytest.mark.parametrize("seed", [*range(8), 86])
def test_channels_that_fall_silent_are_flagged_in_time_and_quiet_ones_are_not(seed):
    worlds.silent_channels(seed)


FOUND = (150, 191, 299, 434, 494, 554, 567, 980, 1149, 1198, 1276, 1291, 1301, 1514, 1540, 1554, 1622)


@pytest.mark.world
@pytest.mark.parametrize("seed", [*range(20), *FOUND])
def test_whatever_happens_nothing_moves_backwards_and_all_comes_back(seed):
    worlds.whatever_happens(seed)


@pytest.mark.world
@pytest.mark.parametrize("seed", [4, 20, 28, 30, 33])
def test_a_book_in_doubt_is_invalid_alone_and_not_for_long(seed):
    worlds.doubted_books(seed)


@pytest.mark.world
@pytest.mark.parametrize("seed", [2, 4, 8, 10, 11, 12])
def test_what_trades_that_cannot_be_read_had_comes_by_another_way_or_is_told(seed):
    worlds.doubted_trades(seed)


@pytest.mark.world
@pytest.mark.parametrize("seed", [4, 20, 30])
def test_books_are_repeated_whatever_happens_in_their_markets(seed):
    worlds.repeated_books(seed)
