"""The symbols of a feed, while the wanted and the listed change."""

import random

import pytest

from feedhandler import wire
from feedhandler.exchanges import EXCHANGES
from feedhandler.instruments import Instrument, InstrumentTable
from feedhandler.legs import Legs
from feedhandler.session import NS_PER_S, ConnectBudget, Policy
from feedhandler.universe import GONE_NS, Universe

NOW = 1_790_000_000 * NS_PER_S


class Feed:
    """A universe, and the sessions that it has asked to be run."""

    def __init__(self, exchange="binance", legs=1):
        self.exchange = EXCHANGES[exchange]()
        self.emitted = []
        self.running = set()
        self.count = legs
        self.universe = Universe(self.exchange, self.make_legs, 0)

    def make_legs(self, natives):
        return Legs(
            self.exchange,
            natives,
            lambda state: self.emitted.append(wire.unpack(state.record())),
            count=self.count,
            policy=Policy(),
            budget=ConnectBudget(1000, 1.0),
            rng=random.Random(1),
        )

    def reconcile(self, table, wanted, now=NOW):
        change = self.universe.reconcile(table, wanted, now)
        self.running |= set(change.run)
        self.running -= set(change.stop)
        assert self.running == {s for legs in self.universe.legs for s in legs.sessions}
        carried = [native for legs in self.universe.legs for native in legs.states]
        assert sorted(carried) == sorted(self.exchange.states), "each symbol once"
        return [*change.run, *change.stop]

    def hear(self, native, at=NOW):
        self.exchange.states[native].recv_ns = at


def table(*names, halted=(), renamed=None):
    rows = [Instrument(f"{name}USDT", (renamed or {}).get(name, name), "USDT") for name in names]
    return InstrumentTable("x", [*rows, *(Instrument(f"{n}USDT", n, "USDT", False, "BREAK") for n in halted)])


def pairs(*names):
    return [f"{name}/USDT" for name in names]


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_the_difference_is_made_and_who_stays_is_not_disturbed(exchange):
    feed = Feed(exchange, legs=2)
    feed.reconcile(table("A", "B", "C"), pairs("A", "B"))
    kept = feed.exchange.states["AUSDT"]
    running = set(feed.running)
    assert not feed.reconcile(table("A", "B", "C"), pairs("A", "C"))
    assert set(feed.exchange.states) == {"AUSDT", "CUSDT"}
    assert feed.exchange.states["AUSDT"] is kept
    assert feed.running == running, "the same connections"


def test_room_in_a_connection_is_used_before_another_is_made():
    names = [f"S{number}" for number in range(1201)]
    feed = Feed("binance")
    feed.reconcile(table(*names), pairs(*names[:1000]))
    assert len(feed.universe.legs) == 2
    feed.reconcile(table(*names), pairs(*names[100:1000]))
    assert not feed.reconcile(table(*names), pairs(*names[100:1100]))
    assert [len(legs.states) for legs in feed.universe.legs] == [500, 500]
    feed.reconcile(table(*names), pairs(*names[100:1201]))
    assert [len(legs.states) for legs in feed.universe.legs] == [500, 500, 101]


def test_a_connection_without_symbols_is_ended():
    feed = Feed(legs=2)
    feed.reconcile(table("A"), pairs("A"))
    feed.hear("AUSDT")
    assert len(feed.reconcile(table("A"), [])) == 2
    assert feed.running == set()
    assert [record.flags for record in feed.emitted] == [wire.DOWN], "the last word about it"
    assert feed.reconcile(table("A"), pairs("A"))


def test_a_new_listing_is_taken_over():
    feed = Feed()
    feed.reconcile(table("A"), pairs("A", "NEW"))
    assert "lists no NEW/USDT" in feed.universe.rejected["NEW/USDT"]
    assert feed.universe.is_waiting
    feed.reconcile(table("A", "NEW"), pairs("A", "NEW"))
    assert feed.universe.rejected == {}
    assert "NEWUSDT" in feed.exchange.states


def test_a_symbol_that_is_gone_from_the_list_is_let_go_when_it_is_silent():
    feed = Feed()
    feed.reconcile(table("A", "B"), pairs("A", "B"))
    feed.hear("BUSDT")
    feed.reconcile(table("A"), pairs("A", "B"), NOW + GONE_NS - 1)
    assert "BUSDT" in feed.exchange.states, "the list may be short: it still speaks"
    assert "lists no B/USDT" in feed.universe.rejected["B/USDT"]
    feed.reconcile(table("A"), pairs("A", "B"), NOW + GONE_NS)
    assert "BUSDT" not in feed.exchange.states
    assert feed.emitted[-1].flags == wire.DOWN


def test_a_halted_symbol_is_reported_and_kept_for_when_it_goes_on():
    feed = Feed()
    feed.reconcile(table("A", "B"), pairs("A", "B"))
    feed.reconcile(table("A", halted=["B"]), pairs("A", "B"), NOW + 10 * GONE_NS)
    assert "BREAK" in feed.universe.rejected["B/USDT"]
    assert "BUSDT" in feed.exchange.states


def test_a_halted_symbol_is_not_begun_with():
    feed = Feed()
    feed.reconcile(table("A", halted=["B"]), pairs("A", "B"))
    assert set(feed.exchange.states) == {"AUSDT"}


def test_a_rename_is_followed():
    feed = Feed()
    feed.reconcile(table("A", "OLD"), pairs("A", "OLD"))
    renamed = table("A", "OLD", renamed={"OLD": "NEW"})
    assert not feed.reconcile(renamed, pairs("A", "OLD"))
    assert feed.universe.renamed == {"OLD/USDT": "NEW/USDT"}
    assert feed.universe.rejected == {}
    assert "OLDUSDT" in feed.exchange.states
    feed.reconcile(renamed, pairs("A", "OLD", "NEW"))
    assert set(feed.exchange.states) == {"AUSDT", "OLDUSDT"}, "one instrument under two names is one"


def test_a_symbol_that_comes_to_be_claimed_by_two_is_let_go():
    feed = Feed()
    feed.reconcile(table("A", "B"), pairs("A", "B"))
    rows = [Instrument("AUSDT", "A", "USDT"), Instrument("BUSDT", "A", "USDT")]
    feed.reconcile(InstrumentTable("x", rows), pairs("A", "B"))
    assert feed.exchange.states == {}
    assert "claimed by" in feed.universe.rejected["A/USDT"]
