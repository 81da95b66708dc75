"""25 hours of a market in which little happens, in the simulated world, in long steps while nothing changes.

Connections live as long as their exchange permits; a window of the day may renew them, and the instrument list
comes every hour. None reaches its exchange's maximum, no update is missed, and nothing is ever flagged.
"""

import random

from chain import Carried
from world import PLAYED, World, native_of

from feedhandler.data.connecting import LEGS_MAX, ConnectBudget, DailyWindow
from feedhandler.data.instruments import Instrument, instrument_list
from feedhandler.data.units import NS_PER_S
from feedhandler.feed.legs import Legs
from feedhandler.sim.simulated import SIMULATED

HOURS = 25
LONG_NS, SHORT_NS = 4 * NS_PER_S, NS_PER_S // 4  # steps; at each long one the busy symbol says something
SLOWLY_NS = 60 * NS_PER_S  # between two words of the slower channels
QUIET = 1 / 300  # the others' share of steps
HOUR_NS = 3600 * NS_PER_S


class Day(World):
    """A feed whose symbols come from an instrument list."""

    carries_groups = True

    def __init__(self, exchange, seed, legs):
        super().__init__(exchange, legs, 0, seed, spare=4)
        self.now += self.rng.randrange(24 * 3600) * NS_PER_S
        self.began_at = self.now
        self.wanted = [f"S{number}/USDT" for number in range(3)]
        self.natives = self.listed[:3]
        self.flags = dict.fromkeys(self.natives, 0)
        self.quiet = set(self.listed)
        self.window = DailyWindow("04:00-04:30") if seed % 2 else None
        self.lists_at = self.tells_at = self.says_at = 0
        self.oldest_ns = 0

    def make_legs(self, count, policy):
        budget = ConnectBudget(*self.exchange.connects)

        def legs_of(market, states):
            return Legs(market, states, self.emit, count=count, policy=policy, budget=budget, rng=self.rng)

        return Carried([self.exchange], legs_of, 0)

    def each_step(self):
        is_changing = self.legs.legs and any(legs.is_renewing for legs in self.legs.legs)
        is_begun = self.now > self.began_at + 10 * NS_PER_S
        self.step_ns = LONG_NS if is_begun and not is_changing else SHORT_NS
        if self.now >= self.lists_at:
            self.lists_at = self.now + HOUR_NS
            self.carry()
        if self.window is not None and self.window.opens(self.unix_ns()):
            self.legs.renew("the window")
        if self.now >= self.says_at:
            self.says_at = self.now + LONG_NS
            self.say(self.natives[0])
        for native in self.natives[1:]:
            if self.rng.random() < QUIET:
                self.say(native)
        if self.now >= self.tells_at:
            self.tells_at = self.now + SLOWLY_NS
            for link in filter(None, self.links.values()):
                for topic in sorted(link.topics):
                    self.tell_slowly(link, topic)
        for link in filter(None, self.links.values()):
            self.oldest_ns = max(self.oldest_ns, self.now - link.opened_ns)
        assert self.oldest_ns < self.exchange.max_age_s * NS_PER_S, "the exchange ends it"

    def carry(self):
        """Take a list in which nothing has changed that is wanted."""
        count = 3 + self.rng.randrange(2)
        rows = [
            Instrument(native_of(self.exchange.exchange, number), f"S{number}", "USDT")
            for number in range(count)
        ]
        rows.append(Instrument(SIMULATED[self.exchange.exchange].native("BTC"), "BTC", "USDT"))
        listing = instrument_list(self.exchange.exchange, self.unix_ns(), rows)
        wanted = {symbol: ["ticker"] for symbol in self.wanted}
        self.apply(self.legs.reconcile(listing.table(), wanted, self.unix_ns()))


def long_day(seed, world=None):
    """A day passes, and nobody notices."""
    rng = random.Random(f"day {seed}")
    exchange = PLAYED[seed // 10 % len(PLAYED)]
    world = world or Day(exchange, seed, rng.randrange(1, LEGS_MAX))
    world.run(HOURS * 3600, world.each_step)
    assert world.flagged == [], f"flagged {world.flagged[:5]}"
    missed = world.missed()
    assert missed == {}, f"missed {missed}"
    legs = len(world.legs.sessions)
    assert world.retired >= legs, "each was renewed"
    assert len(world.connects) == legs + world.retired, "and only that"
    assert world.retired <= 3 * legs
    return world


PLAYS = (long_day,)
