"""A market's rhythm, in simulated time: who changes how often, and what is sent of it."""

import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feedhandler.sim.binance import Binance
from feedhandler.sim.bybit import Bybit
from feedhandler.sim.kucoin import Kucoin
from feedhandler.sim.market import Listing, instruments_of, universe
from feedhandler.sim.okx import Okx
from feedhandler.sim.protocol import NS_PER_MS, NS_PER_S, Now
from feedhandler.sim.rhythm import CATCH_UP_NS, QUIET_S, Activity, Rhythm

from .listener import World

ALL_BUSY = Activity(busiest_per_s=1000, busy_symbols=5000)
HALTED = (Listing(base="HALTED", quote="USDT", price=3.0, is_trading=False),)


def living(activity: Activity = Activity(), seed: int = 1, count: int = 100, odd=()) -> World:  # noqa: B008
    instruments = instruments_of(universe(seed, count, odd), seed)
    return World(Rhythm(instruments, activity, seed), instruments)


class Changes:
    """How often each instrument has changed, whoever listens."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.counts: Counter[int] = Counter()
        self._last = [each.update_id for each in world.instruments]

    def follow(self, seconds: float, tick_ms: float) -> None:
        for _ in range(int(seconds * 1000 / tick_ms)):
            self._world.run(tick_ms / 1000, tick_ms)
            for each in self._world.instruments:
                if each.update_id != self._last[each.index]:
                    self._last[each.index] = each.update_id
                    self.counts[each.index] += 1


# Who changes how often.


@pytest.mark.long
@settings(max_examples=200, deadline=None)
@given(
    busiest=st.floats(1, 1000),
    busy=st.integers(1, 400),
    quietest=st.floats(QUIET_S, 86_400),
    count=st.integers(25, 5000),
)
def test_the_profile_falls_from_the_busiest_to_the_quietest(busiest, busy, quietest, count):
    activity = Activity(busiest_per_s=busiest, busy_symbols=busy, quietest_s=quietest)
    every_s = [activity.every_s(rank, count) for rank in range(count)]
    assert every_s[0] == pytest.approx(1 / busiest)
    assert all(later >= earlier * (1 - 1e-9) for earlier, later in itertools.pairwise(every_s))
    assert sum(each < QUIET_S * (1 - 1e-9) for each in every_s) == min(busy, count)
    if count > busy + 1:
        assert every_s[-1] == pytest.approx(quietest)


def test_by_default_few_are_busy_and_most_are_quiet():
    every_s = [Activity().every_s(rank, 300) for rank in range(300)]
    assert every_s[0] == pytest.approx(0.01)
    assert every_s[4] < 0.5, "the fifth of the majors still changes several times a second"
    assert sum(each < 1 for each in every_s) < 15
    assert sum(each >= 60 for each in every_s) == 240
    assert every_s[-1] == pytest.approx(600)


def test_symbols_change_as_often_as_the_profile_says_whoever_listens():
    activity = Activity(busiest_per_s=50, busy_symbols=10)
    world = living(activity)
    changes = Changes(world)
    changes.follow(60, tick_ms=20)
    assert world.seen == []
    assert changes.counts[1] == pytest.approx(
        60 / Activity(busy_symbols=10, busiest_per_s=50).every_s(1, 100), rel=0.3
    )
    changes.follow(3540, tick_ms=1000)
    quiet = [changes.counts[index] for index in range(10, 100)]
    expected = sum(3600 / activity.every_s(index, 100) for index in range(10, 100))
    assert sum(quiet) == pytest.approx(expected, rel=0.1)
    assert max(quiet) < 100


def test_the_last_trade_of_a_symbol_was_some_time_ago_when_all_begins():
    world = living(count=300)
    world.step()
    ages_s = [(world.now_ns - each.traded_unix_ns) / NS_PER_S for each in world.instruments]
    assert ages_s[0] < 1
    assert sum(age_s > 60 for age_s in ages_s) > 150
    world = living(ALL_BUSY)
    world.run(1.0)
    trade_id = world.instruments[0].trade_id
    while world.instruments[0].trade_id == trade_id:
        world.run(0.001)
    assert world.instruments[0].traded_unix_ns == world.now_ns


def test_what_does_not_trade_never_changes():
    world = living(ALL_BUSY, odd=HALTED)
    changes = Changes(world)
    changes.follow(5, tick_ms=10)
    halted = [each.index for each in world.instruments if not each.listing.is_trading]
    assert changes.counts.keys() == set(range(100)) - set(halted)


# What is sent of it.


def test_a_quote_is_sent_once_for_each_change():
    world = living(ALL_BUSY)
    world.add(world.stream(0))
    world.add(world.stream(50))
    world.run(5.0, tick_ms=0.5)
    for index in (0, 50):
        ids = [int(text.split()[2]) for _, text in world.seen if text.split()[1] == str(index)]
        assert len(set(ids)) == len(ids) > 10
        assert ids[-1] == world.instruments[index].update_id


def test_nothing_is_sent_without_a_change_statistics_included():
    world = living()
    last = len(world.instruments) - 1
    for name, options in (
        ("quote", {}),
        ("last", {"at_most_every_ns": 100 * NS_PER_MS}),
        ("statistics", {"regular_every_ns": 2 * NS_PER_S}),
        ("trade", {"is_trade": True}),
    ):
        world.add(world.stream(last, name, **options))
    update_id = world.instruments[last].update_id
    while world.instruments[last].update_id == update_id:
        assert world.seen == []
        world.run(1.0, tick_ms=1000)
    world.run(2.0, tick_ms=100)
    assert world.count("quote") == world.count("statistics") == world.count("last") == {last: 1}


def test_statistics_keep_to_their_clock_and_are_not_repeated():
    world = living(Activity(busiest_per_s=2, busy_symbols=1))
    world.add(world.stream(0))
    world.add(world.stream(0, "statistics", regular_every_ns=NS_PER_S))
    world.run(60.0, tick_ms=5)
    quotes, statistics = world.times("quote"), world.times("statistics")
    assert 30 < len(statistics) < 60, "a second without a change has none"
    for earlier, later in itertools.pairwise(statistics):
        rest_ns = (later - earlier) % NS_PER_S
        assert min(rest_ns, NS_PER_S - rest_ns) <= 20 * NS_PER_MS
        assert any(earlier < at_ns <= later for at_ns in quotes)


def test_a_throttled_stream_ends_on_the_newest_state():
    world = living(Activity(busiest_per_s=200, busy_symbols=1))
    world.add(world.stream(0, "last", at_most_every_ns=100 * NS_PER_MS))
    world.run(3.0)
    times = world.times("last")
    assert all(later - earlier >= 100 * NS_PER_MS for earlier, later in itertools.pairwise(times))
    assert 20 < len(times) <= 31
    quiet = living(Activity(busiest_per_s=1, busy_symbols=1))
    quiet.add(quiet.stream(0, "last", at_most_every_ns=100 * NS_PER_MS))
    quiet.run(30.0, tick_ms=5)
    assert int(quiet.seen[-1][1].split()[2]) == quiet.instruments[0].update_id


def test_what_shows_trades_alone_is_silent_when_only_the_quote_moves():
    world = living(Activity(busiest_per_s=100, busy_symbols=1))
    world.add(world.stream(0))
    world.add(world.stream(0, "day", shows_quote=False))
    world.add(world.stream(0, "trade", is_trade=True))
    trade_id = world.instruments[0].trade_id
    world.run(5.0)
    trades = world.instruments[0].trade_id - trade_id
    assert world.count("day") == world.count("trade") == {0: trades}
    assert world.count("quote")[0] > 2 * trades


def test_what_is_muted_is_silent_and_its_market_goes_on():
    world = living(ALL_BUSY)
    stream = world.stream(0)
    regular = world.stream(0, "statistics", regular_every_ns=NS_PER_S)
    world.add(stream)
    world.add(regular)
    world.run(0.5)
    stream.is_muted = regular.is_muted = True
    world.seen.clear()
    update_id = world.instruments[0].update_id
    world.run(3.0)
    assert world.seen == []
    assert world.instruments[0].update_id > update_id, "so that REST can tell"


def test_while_the_exchange_is_silent_its_market_goes_on():
    world = living(ALL_BUSY)
    world.add(world.stream(0))
    world.run(0.5)
    world.seen.clear()
    update_id = world.instruments[0].update_id
    for _ in range(20):
        world.now_ns += 100 * NS_PER_MS
        world.broadcast.pause(Now(world.now_ns, world.now_ns))
    assert world.instruments[0].update_id > update_id
    world.run(0.001)
    assert len(world.seen) < 10, "what was kept from us does not follow"


def test_a_long_stop_is_made_up_for_in_part_and_counted():
    world = living(Activity(busiest_per_s=1000, busy_symbols=1))
    world.add(world.stream(0))
    world.run(0.1)
    world.seen.clear()
    world.now_ns += 10 * NS_PER_S
    world.step()
    assert len(world.seen) < 1000 * CATCH_UP_NS / NS_PER_S
    assert world.schedule.skipped == pytest.approx(10_000, rel=0.1)
    assert world.schedule.late_ns_max > 9 * NS_PER_S


def test_who_left_hears_nothing_more_not_even_what_waited():
    world = living(ALL_BUSY)
    world.add(world.stream(0, "statistics", regular_every_ns=NS_PER_S))
    world.run(0.01)
    world.broadcast.remove("statistics.0", world.box)
    world.run(3.0, tick_ms=10)
    assert world.seen == []


def test_a_stream_of_all_symbols_has_each_change():
    world = living(ALL_BUSY)
    everything = world.stream(0, "all", next_instrument=lambda bits: world.instruments[0])
    world.add(everything)
    ids = [each.update_id for each in world.instruments]
    everything.encode = lambda variant, now: b"all %d 0 0" % everything.instrument.index
    world.run(2.0)
    changed = {
        each.index for each, before in zip(world.instruments, ids, strict=True) if each.update_id != before
    }
    assert world.count("all").keys() == changed
    assert len(changed) > 50


def test_the_next_turn_is_when_something_is_due():
    world = living(Activity(busiest_per_s=1, busy_symbols=1))
    world.add(world.stream(0, "statistics", regular_every_ns=NS_PER_S))
    for _ in range(200):
        due_ns = world.broadcast.next_due_ns(world.now_ns)
        world.now_ns = max(due_ns, world.now_ns + NS_PER_MS)
        world.step()
    assert world.count("statistics")[0] > 20, "it is sent although its change was long before"


def test_the_same_seed_plays_the_same_market():
    def play(seed: int) -> list[tuple[int, str]]:
        world = living(ALL_BUSY, seed)
        for index in range(20):
            world.add(world.stream(index))
        world.run(1.0)
        return world.seen

    assert play(1) == play(1)
    assert play(1) != play(2)


# Of each exchange: which channels speak, and which repeat.

SPOKEN = {  # in the minute after a change of the quote alone
    Binance: {"{0}@bookTicker": 1, "{0}@ticker": 1, "{0}@miniTicker": 0, "{0}@trade": 0},
    Kucoin: {"/spotMarket/level1:{0}": 1, "/market/ticker:{0}": 1, "/market/snapshot:{0}": 1},
    Bybit: {"orderbook.1.{0}": 20, "tickers.{0}": 0, "publicTrade.{0}": 0},  # the book again every 3 s
    Okx: {"bbo-tbt:{0}": 2, "tickers:{0}": 1, "trades:{0}": 0},  # the book again after a minute
}


@pytest.mark.many
@pytest.mark.parametrize("make", SPOKEN, ids=lambda make: make.name)
def test_a_symbol_that_rests_is_silent_but_for_what_its_exchange_repeats(make):
    world = next(filter(None, (changed_but_not_traded(make, seed) for seed in range(1, 50))))
    world.run(60.0, tick_ms=50)
    spoken = Counter(text for _, text in world.seen)
    for pattern, count in SPOKEN[make].items():
        assert spoken[pattern] == pytest.approx(count, abs=count // 10), pattern


def changed_but_not_traded(make, seed: int) -> World | None:
    """A symbol that is quiet for a day, at its first change; None if that was a trade, or not of the quote."""
    exchange = make(60, seed=seed)
    activity = Activity(busiest_per_s=1, busy_symbols=1, quietest_s=86_400)
    world = World(Rhythm(exchange.instruments, activity, seed), exchange.instruments)
    symbol, instrument = max(exchange.by_symbol.items(), key=lambda item: item[1].index)
    trade_id, update_id = instrument.trade_id, instrument.update_id
    for pattern in SPOKEN[make]:
        stream = exchange.stream(pattern.format(symbol.lower() if make is Binance else symbol))
        stream.encode = lambda variant, now, pattern=pattern: pattern.encode()
        world.add(stream)
    while instrument.update_id == update_id:
        world.seen.clear()
        world.run(1.0, tick_ms=1000)
    return world if instrument.trade_id == trade_id and instrument.is_quote_new else None


@pytest.mark.parametrize(("make", "gives"), [(Binance, False), (Kucoin, False), (Bybit, True)])
def test_only_bybit_gives_a_first_state_on_subscription(make, gives, clock):
    exchange = make(60, seed=1)
    symbol = next(iter(exchange.by_symbol))
    for pattern in SPOKEN[make]:
        stream = exchange.stream(pattern.format(symbol.lower() if make is Binance else symbol))
        is_given = exchange.snapshot(stream, 0, clock.now) is not None
        assert is_given == (gives and not stream.is_trade), pattern
