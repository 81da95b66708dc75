"""Hours of a market in which most instruments rest, in the simulated world.

95 of 100 symbols change every 1 to 10 minutes, a few are busy, channels speak on change only, and whoever
subscribes is told nothing. Each symbol has its quote within 5 s, none is ever flagged, and no connection is made
anew. What is dead among all that is found all the same.
"""

import random

import msgspec
from world import PLAYED, World

from feedhandler.data import wire
from feedhandler.data.units import NS_PER_S

HOURS = 30
SYMBOLS, BUSY = 40, 2  # of a connection; every twentieth is busy, as of 100 in 95
LONG_NS, SHORT_NS = 2 * NS_PER_S, NS_PER_S // 10  # steps
CHANGES_S = (60, 600)  # of a quiet symbol, on average
FIRST_QUOTE_S = 5
HALF_OPEN_S = 30
MUTED_S = 17
MUTE_S = 35


class Calm(World):
    """A world of few changes. Each is a new quote, and for some a trade, which all channels tell."""

    tells_first = False

    def __init__(self, exchange, seed, **settings):
        settings = {"symbols": SYMBOLS, "quiet": range(SYMBOLS), **settings}
        super().__init__(exchange, 1, seed=seed, **settings)
        self.busy = self.natives[:BUSY]
        self.every_s = {native: self.rng.uniform(*CHANGES_S) for native in self.natives[BUSY:]}
        self.changes_at = {native: self.later(native) for native in self.every_s}
        self.volume = dict.fromkeys(self.listed, 7)
        self.slow_topics = {
            native: set(self.exchange.topics(native, "ticker")) - self.quote_topics[native]
            for native in self.listed
        }
        self.of_slow_topic = {}  # which instruments a topic is about
        for native, topics in self.slow_topics.items():
            for topic in topics:
                self.of_slow_topic.setdefault(topic, []).append(native)
        self.step_ns = SHORT_NS

    def later(self, native):
        return self.now + int(self.rng.expovariate(1 / self.every_s[native]) * NS_PER_S)

    def each_step(self):
        for native in self.busy:
            self.change(native)
        for native in [native for native, at in self.changes_at.items() if self.now >= at]:
            self.changes_at[native] = self.later(native)
            self.change(native)

    def change(self, native):
        self.say(native)
        if self.rng.random() < 0.5:
            self.volume[native] += 1
            for link in filter(None, self.links.values()):
                for topic in sorted((link.topics - link.muted - self.lost) & self.slow_topics[native]):
                    self.tell_slowly(link, topic)

    def tell_slowly(self, link, topic):
        """Say what has been traded, too."""
        for native in self.of_slow_topic.get(topic, ()):
            if topic.startswith("/market/ticker:"):
                super().tell_slowly(link, topic)
            else:
                frame = self.statistics(native, self.number[native], self.ms())
                set_volume(self.exchange.exchange, frame, self.volume[native])
                self.post(link, frame)

    def row(self, native):
        row = super().row(native)
        return msgspec.structs.replace(row, statistics=(7.0, 7.0, 7.0, float(self.volume[native]), 7.0))


def set_volume(exchange, frame, volume):
    data = frame["data"]
    if exchange == "kucoin":
        data["data"]["vol"] = volume
    else:
        data["v" if exchange == "binance" else "volume24h"] = str(volume)


def calm_hours(seed, world=None, hours=HOURS):
    """A day and a quarter passes: no flag, no new connection, and every symbol was there from the start."""
    world = world or Calm(exchange_of(seed), seed, max_age_s=10 * HOURS * 3600.0)
    world.run(FIRST_QUOTE_S, world.each_step)
    world.run(0.1)  # what was told last is on its way
    known = {native: world.exchange.tickers[native].bid for native in world.natives}
    lacking = [n for n in world.busy if known[n] != known[n]]
    lacking += [n for n in world.natives if n not in world.busy and known[n] != world.number[n] + 0.5]
    assert lacking == [], f"no quote after {FIRST_QUOTE_S} s: {lacking[:5]}"
    world.step_ns = LONG_NS
    world.run(hours * 3600, world.each_step)
    assert world.flagged == [], f"flagged {len(world.flagged)}: {world.flagged[:5]}"
    assert len(world.connects) == 1, f"connected {len(world.connects)} times"
    assert world.legs.state() == "live"
    missed = world.missed()
    assert missed == {}, f"missed {missed}"
    return world


def calm_and_dead(seed, world=None):
    """What dies in a calm market is found: a connection of which nobody says so, and a busy symbol's channel."""
    rng = random.Random(f"calm {seed}")
    world = world or Calm(exchange_of(seed), seed, has_canary=bool(seed % 3))
    world.run(120 + rng.randrange(60), world.each_step)
    (link,) = world.links.values()
    link.stalled_until = 1 << 62
    connects = len(world.connects)
    world.note("half open")
    world.run(HALF_OPEN_S, lambda: None if len(world.connects) > connects else world.each_step())
    assert len(world.connects) > connects, "a half-open connection is found"
    world.run(60, world.each_step)
    world.run(0.1)  # what was told last is on its way
    odd = {native for native, flags in world.flags.items() if flags & (wire.STALE | wire.DOWN)}
    assert not odd, f"it has followed, and these are not live: {odd}"
    # Also what has changed meanwhile and was told nobody.
    known = {
        native: world.exchange.tickers[native].bid - 0.5 for native in set(world.natives) - set(world.busy)
    }
    old = {native: bid for native, bid in known.items() if bid != world.number[native]}
    assert not old, f"it has followed, and these are old: {old}"
    world.flagged.clear()
    victim = world.busy[0]
    world.lost = set(world.quote_topics[victim])
    world.heals = 2
    world.note(f"{victim} is lost")
    world.run(MUTED_S, world.each_step)
    assert {native for _, native, _ in world.flagged} == {victim}, f"flagged: {world.flagged}"
    world.lost = set()
    world.run(30, world.each_step)
    assert not world.flags[victim]
    return world


def calm_and_mute(seed, world=None):
    """A connection that acknowledges all and brings nothing is made anew; what is there meanwhile is STALE."""
    rng = random.Random(f"mute {seed}")
    world = world or Calm(exchange_of(seed), seed, has_canary=bool(seed % 3), backoff_max_s=2.0)
    world.mutes_until = world.now + rng.randrange(40, 120) * NS_PER_S
    world.run(MUTE_S, lambda: None if len(world.connects) > 1 else world.each_step())
    assert len(world.connects) > 1, "a connection without data is found"
    assert {native for _, native, flags in world.flagged if flags & wire.STALE} == set(world.natives)

    def look():
        world.each_step()
        fresh = [native for native in world.newest if not world.flags[native]]
        assert not fresh or world.now > world.mutes_until, f"REST filled it: {fresh}"

    world.run((world.mutes_until - world.now) / NS_PER_S, look)
    for link in filter(None, world.links.values()):
        link.heal()
    # Of what stays quiet REST has to state the same for 60 s, and is asked up to 40 s apart; and a channel that
    # missed something before may have had its connection followed.
    world.run(120, world.each_step)
    world.run(0.1)  # what was told last is on its way
    odd = {native for native, flags in world.flags.items() if flags & (wire.STALE | wire.DOWN)}
    assert not odd, f"data come, and these are not live: {odd}"
    connects = len(world.connects)
    world.flagged.clear()
    world.run(600, world.each_step)
    assert (world.flagged, len(world.connects)) == ([], connects)
    return world


def exchange_of(seed):
    return PLAYED[seed // 10 % len(PLAYED)]
