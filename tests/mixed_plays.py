"""Plays of all markets in one configuration (`mixed`): what fails, and what is then true of every kind."""

import random

import chain_plays
from chain_plays import PROCESS_FAULTS
from mixed import SYMBOLS, Mixed
from played import DELAY_NS
from world import HEALS_S

from feedhandler.data import wire
from feedhandler.data.book import BOOK
from feedhandler.data.ticker import TICKER
from feedhandler.data.units import NS_PER_S
from feedhandler.exchanges import EXCHANGES
from feedhandler.merger.merge import TICK_NS

BEGINS_S = 12  # lists, connections and books are there by then
SPARED_S, WHATEVER_S = 45, 45
LASTS_S = 3
BOOKS_AGAIN_S = 120  # as in `chain_plays`
SETTLES_NS = 3 * NS_PER_S  # of a connection: what its channels begin with has come
# What was sent has come, also of what is told each 3 s; no longer, for a silent busy market is soon suspected.
RESTS_S = 3.5
ARRIVES_S = 0.5  # at most: what a line that has just begun is told of contracts, over some ticks
TOLD_S = 90
SETTLED, FUNDED = "ETH/USDT:USDT", "SOL/USDT:USDT"  # what is settled, and what is funded otherwise
FUNDED_HOURS = 2
LISTED_S = 24  # lists are fetched each 10 s, what they bring is connected to, and books begin over REST
GONE_S = 80  # what is gone from the list is let go a minute after its last word


def spared_leg(seed, mixed=None):
    """Faults that spare one of two legs: each trade and liquidation comes once, all is true, nothing is flagged."""
    rng = random.Random(f"spared {seed}")
    mixed = mixed or Mixed(seed)
    mixed.run(BEGINS_S)
    assert not mixed.odd(), f"not there after {BEGINS_S} s: {mixed.odd()}"
    flagged = forget_flags(mixed)
    healed = dict.fromkeys(mixed.slots, 0)

    def play():
        slot = rng.choice(mixed.slots)
        feed = slot.feed
        links = feed.open_links
        if mixed.now < healed[slot] or not is_well(feed):
            return
        if any(
            link.delay_ns != DELAY_NS or link.stalled_until > mixed.now or link.is_deaf or link.losing
            for _, link in links
        ):
            for _, link in links:
                link.heal()
            healed[slot] = mixed.now + 5 * NS_PER_S
            return
        healed[slot] = mixed.now + rng.randrange(5, 15) * NS_PER_S
        session, link = rng.choice(links)
        spoil_a_leg(mixed, slot, session, link, rng)

    mixed.run(SPARED_S, play)
    heal(mixed)
    mixed.run(8)
    assert not mixed.odd(), f"not as it should be: {mixed.odd()}"
    flagged += flags_told(mixed)
    assert not flagged, f"flagged, though one leg was spared: {flagged[:5]}"
    rest(mixed, is_spared=True)
    return mixed


def is_well(feed):
    """True if both legs of every market have all that there is."""
    if any(each.is_renewing for each in feed.legs.legs):
        return False
    return all(feed.links.values()) and all(is_settled(session, feed.now) for session in feed.links)


def is_settled(session, now):
    """True once it has begun, and what is quiet since before is known to be so on this connection as well."""
    subscriptions, line = session.subscriptions, session.line.index
    states = subscriptions.states.values()
    return (
        not session.condition
        and subscriptions.is_acknowledged
        and now - session.opened_mono_ns > SETTLES_NS
        and all(state.lines[line].is_known for state in states if state.kind == BOOK.name)
        and all(
            state.channels[channel].is_kept(line)
            for state in states
            if state.kind == TICKER.name and state.recv_ns
            for channel in range(len(session.market.topics("", TICKER.name)))
        )
    )


def spoil_a_leg(mixed, slot, session, link, rng):
    played, feed = slot.market.played, slot.feed
    kind = rng.choice(
        ("unplugged", "stall", "late", "deaf", "order", "a change is lost", "a book begins again")
    )
    mixed.note(f"{slot}, {session.market.name}, line {session.line.index}: {kind}")
    link.is_excused = link.is_excused or kind in ("stall", "deaf")
    match kind:
        case "unplugged":
            feed.close(session, "unplugged")
        case "stall":
            link.stalled_until = mixed.now + rng.randrange(20) * NS_PER_S
        case "late":
            link.delay_ns = rng.randrange(2 * NS_PER_S)
        case "deaf":
            link.is_deaf = True
        case "order":
            feed.legs.renew("by order")
        case "a change is lost":
            played.lose_a_change(link)
        case _:
            played.restart_books()


def whatever(seed, mixed=None):
    """Any faults of exchanges and processes, and then none: nothing is untrue meanwhile, and all comes back."""
    rng = random.Random(f"whatever mixed {seed}")
    mixed = mixed or Mixed(seed, legs=rng.randrange(1, 3))
    share = rng.choice((0.01, 0.03))

    def play():
        if rng.random() < share:
            kind = rng.choice(list(PROCESS_FAULTS))
            PROCESS_FAULTS[kind](mixed, rng)
        if rng.random() < 2 * share:
            slot = rng.choice(mixed.slots)
            if slot.feed is not None:
                trouble(mixed, slot, rng)

    mixed.run(BEGINS_S)
    mixed.run(WHATEVER_S, play)
    heal(mixed)
    healed_at, well_s = mixed.now, 0
    while well_s < LASTS_S and mixed.now - healed_at < HEALS_S * NS_PER_S:
        mixed.run(1)
        well_s = 0 if mixed.odd() or mixed.second.outlet is None else well_s + 1
    assert well_s, f"not as it should be: {mixed.odd()}"
    rest(mixed)
    return mixed


def trouble(mixed, slot, rng):
    """One fault of an exchange, of any kind."""
    feed, played = slot.feed, slot.market.played
    links = feed.open_links
    kind = rng.choice([*FAULTS, *(FAULTS_OF_LINKS if links else ())])
    session, link = rng.choice(links) if links else (None, None)
    mixed.note(
        f"fault at {slot}: {kind}" + (f", {session.market.name}, line {session.line.index}" if links else "")
    )
    if kind in FAULTS_OF_LINKS:
        link.is_excused = True
    match kind:
        case "outage":
            feed.is_reachable = not feed.is_reachable
        case "no REST":
            feed.answers_trades = not feed.answers_trades
        case "order":
            feed.legs.renew("by order")
        case "acks only":
            played.mutes_until = mixed.now + rng.randrange(20) * NS_PER_S
        case "books begin again":
            played.restart_books()
        case "a change is lost for all":
            played.lose_a_change()
        case "old books":
            played.exchange.keep_books(mixed.exchange_now())
            feed.at(mixed.now + 10 * NS_PER_S, played.exchange.old_books.clear)
        case "unplugged":
            feed.close(session, "unplugged")
        case "stall":
            link.stalled_until = mixed.now + rng.randrange(30) * NS_PER_S
        case "late":
            link.delay_ns = rng.randrange(3 * NS_PER_S)
        case "mute":
            played.mute(link, rng.randrange(8))
        case "deaf":
            link.is_deaf = not link.is_deaf
        case "a change is lost":
            played.lose_a_change(link)
        case "garbage":
            played.post(
                link, rng.choice((b"{}", b"[]", b'{"data":1}', b'{"type":"message"}', b'"x"', b"\xff"))
            )
        case "again" if link.items:
            played.post(link, *rng.choice(link.items)[:1:-1])
        case "goodbye":
            notice = played.exchange.shutdown_notice(link.dialog, mixed.exchange_now())
            if notice is not None:
                played.post(link, notice)


FAULTS = (
    "outage",
    "no REST",
    "order",
    "acks only",
    "books begin again",
    "a change is lost for all",
    "old books",
)
FAULTS_OF_LINKS = (
    "unplugged",
    "stall",
    "late",
    "mute",
    "deaf",
    "a change is lost",
    "garbage",
    "again",
    "goodbye",
)


def contracts_change(seed, mixed=None):
    """A contract is launched, another is settled, then gone, and comes again; an interval of funding is another.

    What does not trade is rejected with its status, and what does is live; nobody else notices.
    """
    rng = random.Random(f"contracts {seed}")
    mixed = mixed or Mixed(seed, tuple(name for name, each in EXCHANGES.items() if len(each.markets) > 1))
    mixed.run(BEGINS_S)
    assert not mixed.odd(), f"not there after {BEGINS_S} s: {mixed.odd()}"
    venues = mixed.markets
    early = {venue: next(symbol for symbol in venue.symbols if symbol not in SYMBOLS) for venue in venues}
    changed = {(venue.name, symbol) for venue in venues for symbol in (early[venue], SETTLED)}
    look_at_idle(mixed, early)
    for venue in venues:
        venue.played.set_trading(early[venue], True, mixed.exchange_now())
        venue.played.set_funding_hours(FUNDED, FUNDED_HOURS)
        venue.relisted_at = mixed.now
    mixed.run(LISTED_S)
    assert not mixed.odd(), f"not live after the launch: {mixed.odd()}"
    forget_flags(mixed)
    for venue in venues:
        mixed.note(f"{venue.name}: {SETTLED} is settled")
        venue.played.set_trading(SETTLED, False, mixed.exchange_now())
        venue.relisted_at = mixed.now
    mixed.run(LISTED_S)
    look_at_idle(mixed, dict.fromkeys(venues, SETTLED))
    for venue in venues:
        venue.played.set_listed(SETTLED, False)
    mixed.run(GONE_S)
    for venue in venues:
        record = mixed.first.records[f"ticker.{venue.name}.{SETTLED}"]
        assert record.flags & wire.DOWN, f"{record.topic} is gone from the list, and is {record.flag_names}"
        contract = mixed.first.taken[venue.name, FUNDED].records["contract"]
        is_due = "funding_interval_h" not in venue.played.polled_of(venue.symbols[FUNDED], GONE_S)
        known = contract.funding_interval_h
        assert known == FUNDED_HOURS or not is_due, f"{contract.topic}: {known} h"
    others = [each for each in flags_told(mixed) if not is_about(each, changed)]
    assert not others, f"others are flagged: {others[:5]}"
    for venue in venues:
        venue.played.set_listed(SETTLED, True)
        venue.played.set_trading(SETTLED, True, mixed.exchange_now())
        venue.relisted_at = mixed.now
    heal(mixed)
    mixed.run(LISTED_S + rng.randrange(5))
    assert not mixed.odd(), f"not live again: {mixed.odd()}"
    rest(mixed)
    return mixed


def look_at_idle(mixed, idle):
    """What does not trade is rejected, and it is said what it is instead."""
    for venue, symbol in idle.items():
        reasons = mixed.statuses[venue.name].feed.rejected.get(symbol, {})
        assert reasons, f"{venue.name} does not trade {symbol}, and it is not rejected"
        told = [f"{symbol}: {text}" for text in reasons.values() if "not trading, status" not in text]
        assert not told, f"{venue.name}: it is not said why: {told}"


def is_about(flagged, changed):
    topic = next(each for each in flagged if isinstance(each, str) and "." in each)
    return tuple(topic.split(".", 2)[1:]) in changed


def heal(mixed):
    """No more faults: of processes, nor of exchanges, whether a feed is there to meet them or not."""
    chain_plays.heal(mixed)
    for venue in mixed.markets:
        venue.played.heal(mixed.exchange_now())


def rest(mixed, *, is_spared=False):
    """All is well, and markets rest: everybody knows the same, and it is what is true."""
    settled_at = mixed.now
    while mixed.odd_books() and mixed.now - settled_at < BOOKS_AGAIN_S * NS_PER_S:
        mixed.run(1)
    for venue in mixed.markets:
        venue.played.rhythm.is_paused = True
    mixed.run(1)
    for venue in mixed.markets:  # what a quiet one said between two subscriptions is not said again
        for _ in range(3):
            venue.played.stir(mixed.exchange_now())
    mixed.run(RESTS_S)
    mixed.compare()
    odd = mixed.odd_books(is_at_rest=True) or mixed.odd()
    assert not odd, f"at rest: {odd}"
    rested_at = mixed.now
    while (untrue := mixed.untrue(is_all_known=is_spared)) and mixed.now - rested_at < ARRIVES_S * NS_PER_S:
        # Contracts change at rest, too, of which whoever subscribes just now is told: that is under way.
        mixed.run(TICK_NS / NS_PER_S)
    assert not untrue, f"at rest: {untrue}"
    if is_spared:
        for key, given in mixed.first.taken.items():
            assert not given.missing(), f"trades of {key} are missing: {given.missing()}"
            assert not given.missing_liquidations(), f"of {key}: {given.missing_liquidations()}"
            assert not given.flagged, f"{key}: {given.flagged[:3]}"
    settled_at = mixed.now
    while mixed.untold() and mixed.now - settled_at < TOLD_S * NS_PER_S:
        mixed.run(1)
    assert not mixed.untold(), f"trades are missing, and nobody was told: {mixed.untold()}"


def forget_flags(mixed):
    mixed.first.flagged.clear()
    for given in mixed.first.taken.values():
        given.flagged.clear()
    return []


def flags_told(mixed):
    return [*mixed.first.flagged, *(each for given in mixed.first.taken.values() for each in given.flagged)]


PLAYS = (spared_leg, whatever, contracts_change)
