"""Plays of the whole chain (`chain`): processes and exchanges that fail, and those that are only held up."""

import random

from chain import HOP_MESSAGES, NS_PER_MS, TOLD_NS, Chain
from chain_books import Reader
from tape import DEPTH
from world import HEALS_S, trouble

from feedhandler.data import wire
from feedhandler.data.units import NS_PER_S

LASTS_S = 15  # so long all is well, and it is over: who was silent has been suspected by then
# Within this time a book that came into doubt at a subscriber is valid again. Feeds publish snapshots when they
# know of a loss, and when a relay lacks books; a subscriber asks the relay once a minute at least.
BOOKS_AGAIN_S = 120
JOINS_S = 5  # somebody who comes late has all books by then


def whole_chain(seed, chain=None):
    """Any faults of exchanges and processes, and then none: nothing is untrue meanwhile, and all comes back."""
    rng = random.Random(f"whole chain {seed}")
    chain = chain or Chain(seed)
    is_exchange_well = seed % 3 == 0  # then the merger alone must know what quiet markets have said
    for market in chain.markets if is_exchange_well else ():
        market.quiet.update(market.listed[:2])
    share = rng.choice((0.005, 0.02, 0.05))

    def play():
        if rng.random() < share:
            kind = rng.choice(list(PROCESS_FAULTS))
            PROCESS_FAULTS[kind](chain, rng)
        if not is_exchange_well and rng.random() < share:
            feeds = [feed for market in chain.markets for feed in market.feeds()]
            if feeds:
                trouble(rng.choice(feeds), rng, EXCHANGE_FAULTS)

    chain.run(10)
    assert not chain.first.flagged, f"flagged without a fault: {chain.first.flagged[:5]}"
    chain.run(45, play)
    heal(chain)
    healed_at, well_s = chain.now, 0
    while well_s < LASTS_S and chain.now - healed_at < HEALS_S * NS_PER_S:
        chain.run(1)
        well_s = 0 if chain.unlive() or chain.second.outlet is None else well_s + 1
    assert well_s, f"not as it should be: {chain.unlive()}"
    settle(chain)
    return chain


def held_up(seed, chain=None):
    """Feeds are held up for less than the silence that counts, the merger for longer; others come and go.

    Nobody who stays notices anything.
    """
    rng = random.Random(f"held up {seed}")
    chain = chain or Chain(seed, HOP_MESSAGES[-1])
    kept = {market.name: list(market.wanted[:2]) for market in chain.markets}
    for market in chain.markets:
        market.quiet.add(market.listed[1])

    def play():
        if rng.random() < 0.02:
            held_ns = rng.randrange(100, 600) * NS_PER_MS
            slot = rng.choice([None, *chain.slots])
            if slot is None and chain.is_merging:
                hold_merger(chain, rng.choice((held_ns, 10 * held_ns)))
            elif slot is not None and chain.now >= slot.stopped_until + NS_PER_S:
                slot.stopped_until = chain.now + held_ns
        if rng.random() < 0.02:
            change_of_mind(chain, rng, kept)
        if rng.random() < 0.01:
            come_or_go(chain)

    chain.run(10)
    for market in chain.markets:
        market.say(market.listed[1])  # not every exchange repeats its quote for whoever subscribes
    topics = {wire.topic(wire.TICKER, name, symbol) for name, symbols in kept.items() for symbol in symbols}
    started = chain.now
    chain.run(25, play)
    heal(chain)
    chain.run(2)
    flagged = [each for each in chain.first.flagged if each[0] >= started and each[1] in topics]
    assert not flagged, f"flagged {flagged[:5]}"
    settle(chain)
    for name, symbols in kept.items() if chain.kinds else ():
        for symbol in symbols:
            missing = chain.first.taken[name, symbol].missing()
            assert not missing, f"missing of {name} {symbol}: {missing}"
    return chain


def settle(chain):
    """All is well: so it stays, and the markets' last words are everybody's."""
    chain.run(3)
    assert not chain.unlive(), f"it does not last: {chain.unlive()}"
    settled_at = chain.now
    while chain.odd_books() and chain.now - settled_at < BOOKS_AGAIN_S * NS_PER_S:
        chain.run(1)
    chain.note(f"books are valid after {(chain.now - settled_at) / NS_PER_S:.0f} s")
    assert not chain.odd_books(), f"books that are not valid: {chain.odd_books()}"
    if chain.reader is not None:
        chain.reader.way.close()
        chain.reader = Reader(chain)
        chain.run(JOINS_S)
        assert not chain.odd_books(), f"who comes late does not have books: {chain.odd_books()}"
    for market in chain.markets:
        market.is_paused = True
        for native in market.listed:  # what a quiet one said between two subscriptions is not said again
            market.say(native)
        for tape in market.tapes.values():
            count, is_new = len(tape.trades), False
            # Until there is something new among the best levels, and a trade that shows a gap.
            for _ in range(100):
                is_new = market.trade(tape) or is_new
                if is_new and len(tape.trades) > count:
                    break
    chain.run(2)
    for subscriber in (chain.first, chain.second):
        for market in chain.markets:
            for topic, native in market.wanted_topics().items():
                bid = subscriber.records[topic].bid
                assert int(bid) == market.number[native], f"{topic}: {bid}, said: {market.number[native]}"
    chain.compare()
    assert not chain.odd_books(is_at_rest=True), f"books: {chain.odd_books(is_at_rest=True)}"
    for key in chain.wanted_keys():
        taken, tape = chain.first.taken[key], chain.tapes[key]
        flags = chain.first.conditions.get(f"trade.{key[0]}.{key[1]}", 0)
        assert not flags, f"trades of {key} are {flags}"
        if DEPTH in chain.kinds:
            assert not taken.flags[DEPTH] & wire.NOT_LIVE, f"depth of {key} is {taken.flags[DEPTH]}"
            assert taken.best == tape.best or not tape.key, f"depth of {key}: {taken.key}, not {tape.key}"
    settled_at = chain.now
    while chain.untold() and chain.now - settled_at < TOLD_NS:
        chain.run(1)
    assert not chain.untold(), f"trades are missing, and nobody was told: {chain.untold()}"


def heal(chain):
    """No more faults."""
    chain.note("the faults end")
    chain.merger_stopped_until = min(chain.merger_stopped_until, chain.now)
    chain.is_second_there = True
    for each in filter(None, (chain.relay, chain.reader)):
        each.way.is_lossy = False
    for slot in chain.slots:
        slot.stopped_until = min(slot.stopped_until, chain.now)
        if slot.feed is not None:
            slot.feed.heal()


def hold_merger(chain, held_ns):
    chain.note(f"the merger is stopped for {held_ns / NS_PER_S:.1f} s")
    chain.merger_stopped_until = chain.merger_since = chain.now + held_ns


def hold_a_feed(chain, rng):
    slot = rng.choice(chain.slots)
    held_ns = rng.randrange(60) * NS_PER_S
    chain.note(f"{slot} is stopped for {held_ns / NS_PER_S:.0f} s")
    slot.stopped_until = chain.now + held_ns


def kill_a_feed(chain, rng):
    slot = rng.choice(chain.slots)
    if slot.feed is not None:
        chain.kill_feed(slot)


def end_a_feed(chain, rng):
    slot = rng.choice(chain.slots)
    if slot.feed is not None and chain.now >= slot.stopped_until:
        chain.end_feed(slot)


def come_or_go(chain, rng=None):
    """The second subscriber does."""
    chain.is_second_there = not chain.is_second_there
    if chain.second.outlet is not None and not chain.is_second_there:
        chain.second.leave()


def change_of_mind(chain, rng, kept=None):
    """One symbol more is wanted, or one less."""
    market = rng.choice(chain.markets)
    symbol = rng.choice([each for each in market.symbols if each not in (kept or {}).get(market.name, ())])
    wanted = market.wanted
    if symbol in wanted:
        chain.left_at[wire.topic(wire.TICKER, market.name, symbol)] = chain.now
    market.wanted = [each for each in wanted if each != symbol] if symbol in wanted else [*wanted, symbol]
    market.changed_at = chain.now
    chain.note(f"{market.name}: wanted {market.wanted}")


def hinder_books(chain, rng):
    """The relay is killed; or it, or a subscriber, is too slow for a while, or its connection ends."""
    among = [each for each in (chain.relay, chain.reader) if each is not None]
    if not among:
        return
    victim = rng.choice(among)
    kind = rng.randrange(4)
    if kind == 0 and chain.relay is not None:
        chain.kill_relay()
    elif kind == 1 and victim is chain.reader:
        chain.note("the reader's connection ends")
        chain.reader.leave()
    else:
        victim.way.is_lossy = not victim.way.is_lossy
        chain.note(f"{type(victim).__name__} is {'too slow' if victim.way.is_lossy else 'fast'}")


def set_clock(chain, rng):
    chain.clock_off_ns, chain.was_clock_set = rng.randrange(-100, 100) * NS_PER_S, True
    chain.note(f"the clock is set by {chain.clock_off_ns / NS_PER_S:.0f} s")
    for market in chain.markets:
        for feed in market.feeds():
            feed.set_clock()


PROCESS_FAULTS = {
    "kill": kill_a_feed,
    "end": end_a_feed,
    "hold": hold_a_feed,
    "merger": lambda chain, rng: chain.merger is not None and chain.end_merger(rng.random() < 0.5),
    "hold merger": lambda chain, rng: chain.is_merging and hold_merger(chain, rng.randrange(60) * NS_PER_S),
    "subscriber": come_or_go,
    "mind": change_of_mind,
    "clock": set_clock,
    "books": hinder_books,
}
EXCHANGE_FAULTS = (
    "outage", "order", "acks only",
    "unplugged", "stall", "delay", "mute", "deaf", "garbage", "again", "goodbye",
)  # fmt: skip
PLAYS = (whole_chain, held_up)
