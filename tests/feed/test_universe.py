"""The symbols of a feed, while the wanted and the listed change."""

import random

import pytest

from feedhandler.data import contracts, wire
from feedhandler.data.connecting import ConnectBudget, Policy
from feedhandler.data.instruments import Instrument, InstrumentTable
from feedhandler.data.units import NS_PER_S
from feedhandler.exchanges import EXCHANGES
from feedhandler.feed.legs import Legs
from feedhandler.feed.universe import GONE_NS, Universe

NOW = 1_790_000_000 * NS_PER_S


class Feed:
    """A universe, and the sessions that it has asked to be run."""

    def __init__(self, exchange="binance", legs=1, slots=None):
        self.exchange = EXCHANGES[exchange].main()
        self.emitted = []
        self.running = set()
        self.count = legs
        self.universe = Universe([self.exchange], self.make_legs, 0, slots=slots)

    def make_legs(self, market, states):
        return Legs(
            market,
            states,
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
        carried = [topic for legs in self.universe.legs for topic in legs.states]
        assert sorted(carried) == sorted(state.topic for state in self.exchange.all_states), "each once"
        return [*change.run, *change.stop]

    def hear(self, native, at=NOW):
        self.exchange.tickers[native].recv_ns = at


def table(*names, halted=(), renamed=None):
    rows = [Instrument(f"{name}USDT", (renamed or {}).get(name, name), "USDT") for name in names]
    return InstrumentTable("x", [*rows, *(Instrument(f"{n}USDT", n, "USDT", False, "BREAK") for n in halted)])


def pairs(*names, kinds=("ticker",)):
    return {f"{name}/USDT": list(kinds) for name in names}


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_the_difference_is_made_and_who_stays_is_not_disturbed(exchange):
    feed = Feed(exchange, legs=2)
    feed.reconcile(table("A", "B", "C"), pairs("A", "B"))
    kept = feed.exchange.tickers["AUSDT"]
    running = set(feed.running)
    assert not feed.reconcile(table("A", "B", "C"), pairs("A", "C"))
    assert set(feed.exchange.tickers) == {"AUSDT", "CUSDT"}
    assert feed.exchange.tickers["AUSDT"] is kept
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
    assert len(feed.reconcile(table("A"), {})) == 2
    assert feed.running == set()
    assert [record.flags for record in feed.emitted] == [wire.DOWN], "the last word about it"
    assert feed.reconcile(table("A"), pairs("A"))


def test_every_group_has_a_canary_while_one_is_listed_and_it_is_not_carried():
    names = [f"S{number}" for number in range(600)]
    feed = Feed()

    def canaries():
        return [legs.sessions[0].subscriptions._canary_topics() for legs in feed.universe.legs]

    feed.reconcile(table(*names), pairs(*names[:10]))
    assert canaries() == [[]]
    feed.reconcile(table(*names, "BTC"), pairs(*names))
    assert canaries() == [["btcusdt@bookTicker"]] * 2
    assert "BTCUSDT" not in feed.exchange.tickers
    feed.reconcile(table(*names, "BTC"), pairs(*names, "BTC"))
    assert canaries() == [["btcusdt@bookTicker"], []], "the group that carries it needs no other"
    feed.reconcile(table(*names, halted=["BTC"]), pairs(*names))
    assert canaries() == [[], []]


def test_a_new_listing_is_taken_over():
    feed = Feed()
    feed.reconcile(table("A"), pairs("A", "NEW"))
    assert "lists no NEW/USDT" in feed.universe.rejected["NEW/USDT"]["ticker"]
    assert feed.universe.is_waiting
    feed.reconcile(table("A", "NEW"), pairs("A", "NEW"))
    assert feed.universe.rejected == {}
    assert "NEWUSDT" in feed.exchange.tickers


def test_a_symbol_that_is_gone_from_the_list_is_let_go_when_it_is_silent():
    feed = Feed()
    feed.reconcile(table("A", "B"), pairs("A", "B"))
    feed.hear("BUSDT")
    feed.reconcile(table("A"), pairs("A", "B"), NOW + GONE_NS - 1)
    assert "BUSDT" in feed.exchange.tickers, "the list may be short: it still speaks"
    assert "lists no B/USDT" in feed.universe.rejected["B/USDT"]["ticker"]
    feed.reconcile(table("A"), pairs("A", "B"), NOW + GONE_NS)
    assert "BUSDT" not in feed.exchange.tickers
    assert feed.emitted[-1].flags == wire.DOWN


def test_a_symbol_whose_foreign_channels_alone_go_on_is_let_go(monkeypatch):
    feed = Feed()
    monkeypatch.setattr(feed.exchange, "foreign", frozenset({("ticker", 0)}), raising=False)
    feed.reconcile(table("A", "B"), pairs("A", "B"))
    state = feed.exchange.tickers["BUSDT"]
    (line,) = (session.line for session in feed.running)
    for number, at in ((1, NOW), (0, NOW + GONE_NS)):
        assert state.accept(number, line, at, at)
        feed.hear("BUSDT", at)
    feed.reconcile(table("A"), pairs("A", "B"), NOW + GONE_NS - 1)
    assert "BUSDT" in feed.exchange.tickers
    feed.reconcile(table("A"), pairs("A", "B"), NOW + GONE_NS)
    assert "BUSDT" not in feed.exchange.tickers


def test_a_halted_symbol_is_reported_and_kept_for_when_it_goes_on():
    feed = Feed()
    feed.reconcile(table("A", "B"), pairs("A", "B"))
    feed.reconcile(table("A", halted=["B"]), pairs("A", "B"), NOW + 10 * GONE_NS)
    assert "BREAK" in feed.universe.rejected["B/USDT"]["ticker"]
    assert "BUSDT" in feed.exchange.tickers


def test_a_halted_symbol_is_not_begun_with():
    feed = Feed()
    feed.reconcile(table("A", halted=["B"]), pairs("A", "B"))
    assert set(feed.exchange.tickers) == {"AUSDT"}


def test_a_rename_is_followed():
    feed = Feed()
    feed.reconcile(table("A", "OLD"), pairs("A", "OLD"))
    renamed = table("A", "OLD", renamed={"OLD": "NEW"})
    assert not feed.reconcile(renamed, pairs("A", "OLD"))
    assert feed.universe.renamed == {"OLD/USDT": "NEW/USDT"}
    assert feed.universe.rejected == {}
    assert "OLDUSDT" in feed.exchange.tickers
    feed.reconcile(renamed, pairs("A", "OLD", "NEW"))
    assert set(feed.exchange.tickers) == {"AUSDT", "OLDUSDT"}, "one instrument under two names is one"


def test_a_symbol_that_comes_to_be_claimed_by_two_is_let_go():
    feed = Feed()
    feed.reconcile(table("A", "B"), pairs("A", "B"))
    rows = [Instrument("AUSDT", "A", "USDT"), Instrument("BUSDT", "A", "USDT")]
    feed.reconcile(InstrumentTable("x", rows), pairs("A", "B"))
    assert feed.exchange.tickers == {}
    assert "claimed by" in feed.universe.rejected["A/USDT"]["ticker"]


def test_a_kind_that_is_wanted_no_more_is_down_and_one_that_is_not_offered_is_rejected():
    feed = Feed()
    feed.reconcile(table("A", "B"), pairs("A", "B", kinds=("ticker", "funding")))
    assert feed.universe.wanted == {"A/USDT": ["ticker", "funding"], "B/USDT": ["ticker", "funding"]}
    assert feed.universe.rejected["A/USDT"] == {"funding": "binance does not offer funding records"}
    assert not feed.universe.is_waiting, "no list can bring it"
    feed.hear("AUSDT")
    feed.reconcile(table("A", "B"), pairs("A", kinds=("funding",)) | pairs("B"))
    (last,) = feed.emitted
    assert (last.topic, last.flags & wire.DOWN) == ("ticker.binance.AUSDT", wire.DOWN)
    assert set(feed.exchange.tickers) == {"BUSDT"}
    assert feed.universe.rejected == {"A/USDT": {"funding": "binance does not offer funding records"}}


def test_a_kind_that_is_wanted_of_all_symbols_is_wanted_where_a_market_has_it():
    feed = Feed()
    wanted = pairs("A", "B", kinds=("ticker", "funding"))
    feed.universe.reconcile(table("A", "B"), wanted, NOW, lambda symbol, kind: symbol == "B/USDT")
    assert feed.universe.rejected == {"B/USDT": {"funding": "binance does not offer funding records"}}
    assert feed.universe.wanted == {"A/USDT": ["ticker"], "B/USDT": ["ticker", "funding"]}


def test_a_symbol_that_is_not_listed_is_rejected_in_every_kind():
    feed = Feed()
    feed.reconcile(table("A"), pairs("NEW", kinds=("ticker", "trade")))
    rejected = feed.universe.rejected["NEW/USDT"]
    assert list(rejected) == ["ticker", "trade"]
    assert all("lists no NEW/USDT" in reason for reason in rejected.values())
    assert feed.universe.is_waiting


class Slot(contracts.Slot):
    """What was written under one topic."""

    def __init__(self):
        self.written = []

    def write(self, record, publish_ns):
        self.written.append((wire.unpack(bytes(record)), publish_ns))

    def newest(self):
        return wire.pack_ticker(self.written[-1][0]) if self.written else None


class Slots:
    """Slots by topic, for so many topics."""

    def __init__(self, room=100):
        self.by_topic = {}
        self.room = room

    def slot(self, topic):
        if topic not in self.by_topic and len(self.by_topic) < self.room:
            self.by_topic[topic] = Slot()
        return self.by_topic.get(topic)

    def of(self, name):
        return self.by_topic[f"ticker.binance.{name}/USDT"]


def test_each_symbol_is_written_under_its_canonical_topic_while_there_is_room():
    slots = Slots(room=2)
    feed = Feed(slots=slots)
    feed.reconcile(table("A", "B", "C"), pairs("A", "B", "C"))
    states = feed.exchange.tickers
    assert [states[n].slot for n in ("AUSDT", "BUSDT", "CUSDT")] == [slots.of("A"), slots.of("B"), None]
    slot = states["AUSDT"].slot
    feed.reconcile(table("A", "B", "C"), pairs("B"))
    feed.reconcile(table("A", "B", "C"), pairs("A", "B"))
    assert states["AUSDT"].slot is slot, "wanted again: the slot that it had"


def test_a_renamed_symbol_is_written_under_its_new_name_and_down_under_the_old():
    slots = Slots()
    feed = Feed(slots=slots)
    feed.reconcile(table("A", "B"), pairs("A", "B"))
    feed.hear("AUSDT")
    state = feed.exchange.tickers["AUSDT"]
    state.slot.write(state.record(), NOW)
    feed.reconcile(table("A", "B", renamed={"A": "N"}), pairs("A", "B"), NOW + 5)
    assert state.slot is slots.of("N")
    newest, publish_ns = slots.of("A").written[-1]
    assert (newest.flags, publish_ns) == (wire.DOWN, NOW + 5)
    feed.reconcile(table("A", "B", renamed={"A": "N"}), pairs("A", "B"), NOW + 9)
    assert len(slots.of("A").written) == 2, "said once"
    assert not slots.of("B").written


def test_a_symbol_that_the_list_lacks_keeps_its_slot_until_another_has_the_name():
    slots = Slots()
    feed = Feed(slots=slots)
    feed.reconcile(table("A", "B"), pairs("A", "B"))
    feed.hear("AUSDT")
    state = feed.exchange.tickers["AUSDT"]
    state.slot.write(state.record(), NOW)
    feed.reconcile(table("B"), pairs("A", "B"))
    assert state.slot is slots.of("A"), "it still speaks"
    feed.hear("BUSDT")
    feed.reconcile(table("B", renamed={"B": "A"}), pairs("A", "B"))
    assert feed.exchange.tickers["BUSDT"].slot is slots.of("A")
    assert state.slot is None or "AUSDT" not in feed.exchange.tickers
    assert len(slots.of("A").written) == 1, "it is another's now, and not down"


def test_a_name_in_conflict_is_nobodys_and_down():
    slots = Slots()
    feed = Feed(slots=slots)
    feed.reconcile(table("A", "B"), pairs("A", "B"))
    state = feed.exchange.tickers["AUSDT"]
    feed.hear("AUSDT")
    feed.hear("BUSDT")
    slot = state.slot
    feed.reconcile(table("A", "B", renamed={"B": "A"}), pairs("A", "B"))
    assert feed.emitted[-1].flags == feed.emitted[-2].flags == wire.DOWN, "said while they had their slots"
    assert state.slot is slot
    assert not feed.exchange.tickers


class _Linear(EXCHANGES["bybit"].main):
    name = "linear"
    canary = "BTC/USDT:USDT"

    def connections(self, states):
        return [[state] for state in states]


def listed(*symbols):
    """Return the instruments of both markets, which spell them alike."""
    spot = [Instrument(f"{name}USDT", name, "USDT") for name in symbols]
    linear = [
        Instrument(f"linear:{name}USDT", name, "USDT", market="linear", settle="USDT") for name in symbols
    ]
    return InstrumentTable("bybit", [*spot, *linear])


def test_no_group_has_symbols_of_two_markets_though_they_are_spelled_alike():
    spot, linear = EXCHANGES["bybit"].main(), _Linear()
    feed = Feed("bybit")
    feed.universe = Universe([spot, linear], feed.make_legs, 0, lambda native: native != "linear:XUSDT")
    symbols = ("A/USDT", "A/USDT:USDT", "B/USDT:USDT", "X/USDT:USDT", "NO/USDT:USDT")
    wanted = {symbol: ["ticker"] for symbol in symbols}
    change = feed.universe.reconcile(listed("A", "B", "X", "BTC"), wanted, NOW)
    groups = [
        (legs.market.name, *(state.native for state in legs.states.values())) for legs in feed.universe.legs
    ]
    assert groups == [("linear", "AUSDT"), ("linear", "BUSDT"), ("spot", "AUSDT")]
    assert [session.market.name for session in change.run] == ["linear", "linear", "spot"]
    assert set(symbols) - set(feed.universe.wanted) == {"X/USDT:USDT"}, "another shard's"
    assert list(feed.universe.rejected) == ["NO/USDT:USDT"]
    topics = {native: state.topic for native, state in feed.universe.tickers.items()}
    assert topics == {
        native: f"ticker.bybit.{native}" for native in ("linear:AUSDT", "linear:BUSDT", "AUSDT")
    }

    change = feed.universe.reconcile(listed("A", "B", "BTC"), {"A/USDT:USDT": ["ticker"]}, NOW)
    assert {session.market.name for session in change.stop} == {"linear", "spot"}
    assert list(feed.universe.tickers) == ["linear:AUSDT"], "of the other market it is another"


def test_each_market_has_a_canary_of_its_own_or_none():
    spot, linear = EXCHANGES["bybit"].main(), _Linear()
    feed = Feed("bybit")
    feed.universe = Universe([spot, linear], feed.make_legs, 0)
    wanted = {symbol: ["ticker"] for symbol in ("A/USDT", "A/USDT:USDT")}
    feed.universe.reconcile(listed("A", "BTC"), wanted, NOW)
    assert {legs.market: legs._canary for legs in feed.universe.legs} == {
        spot: "BTCUSDT",
        linear: "BTCUSDT",
    }
    rows = [Instrument("BTCUSDT", "BTC", "USDT"), *listed("A").by_native.values()]
    feed.universe.reconcile(InstrumentTable("bybit", rows), wanted, NOW)
    assert {legs.market: legs._canary for legs in feed.universe.legs} == {
        spot: "BTCUSDT",
        linear: "",
    }
