"""The symbols and kinds that one feed carries: what is wanted, found in the list, spread over groups of legs.

    wanted ──instrument list──▶ native symbols ──market, limits of a connection──▶ groups, each with its legs

A group is of one market: no connection carries symbols of two. Where all markets meet, native symbols have the
prefix of their market. What is carried are states, one for each kind of each symbol.

Either side may change at any time: `reconcile` makes the difference, and disturbs no state that stays. Pure: times
come in, sessions to be run and to be stopped go out. It knows no exchange.
"""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from typing import Final

from feedhandler.data import wire
from feedhandler.data.board_layout import Slots
from feedhandler.data.contracts import Slot
from feedhandler.data.errors import SubscriptionRejected
from feedhandler.data.instruments import InstrumentTable
from feedhandler.data.units import NS_PER_S
from feedhandler.data.wanted import Kinds
from feedhandler.exchanges.base import Market
from feedhandler.exchanges.state import State, TickerState
from feedhandler.feed.legs import Change, Legs

RENEWING_MAX: Final = 2  # groups whose connections are renewed at the same time
# A symbol that is gone from the list is let go when it had no data for so long: lists have been short before.
GONE_NS: Final = 60 * NS_PER_S


class Universe:
    """The symbols of one feed; see the module's first lines.

    make_legs makes the legs of some states of a market. is_ours says whether a native symbol, with its prefix, is
    this feed's, or another shard's. slots: where tickers are written besides, each under its canonical topic.
    lacking: why some markets cannot be connected to, by name.
    """

    def __init__(
        self,
        markets: Sequence[Market],
        make_legs: Callable[[Market, Sequence[State]], Legs],
        base_flags: int,
        is_ours: Callable[[str], bool] = lambda native: True,
        slots: Slots | None = None,
        lacking: Mapping[str, str] = {},
    ) -> None:
        # spot is what is left
        self._markets = sorted(markets, key=lambda market: market.prefix, reverse=True)
        self._make_legs = make_legs
        self._base_flags = base_flags
        self._is_ours = is_ours
        self._slots = slots
        self._lacking = lacking
        self.legs: list[Legs] = []
        self.wanted: Kinds = {}  # of our symbols
        self.is_waiting = False  # a newer instrument list may bring something that is wanted
        self.rejected: dict[str, dict[str, str]] = {}  # wanted, and not to be had: why, by symbol and kind
        # wanted under a name that the exchange has changed since: the new one
        self.renamed: dict[str, str] = {}
        self._natives: dict[str, str] = {}  # by canonical symbol, as it was found
        self._canaries: dict[Market, str] = {}

    @property
    def states(self) -> list[State]:
        """What all markets carry."""
        return [state for market in self._markets for state in market.all_states]

    @property
    def tickers(self) -> dict[str, TickerState]:
        """The tickers that all markets carry, by native symbols with their prefix."""
        return {
            market.prefix + native: state
            for market in self._markets
            for native, state in market.tickers.items()
        }

    @property
    def natives(self) -> dict[str, int]:
        """The native symbols that are carried, with their prefix, and when each last had data, in Unix time."""
        found: dict[str, int] = {}
        for market in self._markets:
            for state in market.all_states:
                native = market.prefix + state.native
                found[native] = max(market.spoke_ns(state), found.get(native, 0))
        return found

    def _split(self, native: str) -> tuple[Market, str]:
        """Return the market of a native symbol with its prefix, and how that market itself spells it."""
        market = next(market for market in self._markets if native.startswith(market.prefix))
        return market, native.removeprefix(market.prefix)

    def reconcile(
        self,
        table: InstrumentTable,
        wanted: Mapping[str, Sequence[str]],
        now_ns: int,
        is_asked: Callable[[str, str], bool] = lambda symbol, kind: True,
    ) -> Change:
        """Carry what is wanted, kinds by symbol, and nothing else; now is Unix time.

        is_asked: somebody wants that kind of that symbol, and not only of all. Else it is not wanted of a symbol
        whose market has none.
        """
        self.rejected, self.renamed, self.wanted = {}, {}, {}
        self.is_waiting = False
        found: dict[str, str] = {}
        natives = self.natives
        carried: dict[Market, dict[tuple[str, str], None]] = {market: {} for market in self._markets}
        for symbol, kinds in wanted.items():
            native, name, reason = self._find(table, symbol, natives, now_ns)
            self.is_waiting = self.is_waiting or bool(reason)
            if not self._is_ours(native or symbol):  # what has no native spelling is one shard's to report
                continue
            if native:
                found[symbol] = native
                market, own = self._split(native)
                kinds = [kind for kind in kinds if kind in market.kinds or is_asked(symbol, kind)]
                carried[market].update(((own, kind), None) for kind in kinds if kind in market.kinds)
            self.wanted[symbol] = list(kinds)
            if name:
                self.renamed[symbol] = name
            if refused := {
                kind: text for kind in kinds if (text := reason or self._not_offered(native, kind))
            }:
                self.rejected[symbol] = refused
        self._natives = found
        change = Change()
        self._canaries = {market: self._canary(market, table) for market in self._markets}
        for legs in self.legs:
            legs.set_canary(self._canaries[legs.market])
        for market, wishes in carried.items():
            gone = [state for state in market.all_states if (state.native, state.kind) not in wishes]
            self._remove(market, gone, change)
            self._add(market, [wish for wish in wishes if wish[0] not in market.states[wish[1]]], change)
        self._place(table, now_ns)
        return change

    def _canary(self, market: Market, table: InstrumentTable) -> str:
        """Return how a market spells its canary, "" if it has none that trades."""
        native = table.trading(market.canary)
        return native.removeprefix(market.prefix) if native and self._split(native)[0] is market else ""

    def _place(self, table: InstrumentTable, now_ns: int) -> None:
        """Have each ticker written under the name that its symbol has now; what lost its name is DOWN there."""
        if self._slots is None:
            return
        left: list[Slot] = []
        states = self.tickers
        for native, state in states.items():
            if native not in table.by_native:
                continue  # delisted, or the list is short: as long as data come, it is what it was
            symbol = table.symbol_of(native)
            topic = wire.topic(wire.TICKER, self._markets[0].exchange, symbol) if symbol else ""
            slot = self._slots.slot(topic) if topic else None
            if state.slot is not None and state.slot is not slot:
                left.append(state.slot)
            state.slot = slot
        owned = {
            id(state.slot): native
            for native, state in states.items()
            if state.slot is not None and native in table.by_native
        }
        for native, state in states.items():
            if owned.get(id(state.slot), native) != native:
                state.slot = None  # another symbol has taken over its name
        for slot in left:
            if id(slot) not in owned and (newest := slot.newest()) is not None:
                record = bytearray(newest)
                (flags,) = wire.FLAGS.unpack_from(record, wire.FLAGS_OFFSET)
                wire.FLAGS.pack_into(record, wire.FLAGS_OFFSET, flags & ~wire.STALE | wire.DOWN)
                slot.write(record, now_ns)

    def _not_offered(self, native: str, kind: str) -> str:
        """Return why a kind of records cannot be had of a native symbol's market, "" if it can."""
        market, _ = self._split(native)
        return "" if kind in market.kinds else f"{market.exchange} does not offer {kind} records"

    def _find(
        self, table: InstrumentTable, symbol: str, natives: Mapping[str, int], now_ns: int
    ) -> tuple[str, str, str]:
        """Return the native symbol to carry for a wanted one, its new name, and why it is rejected: "" for none."""
        try:
            return table.resolve(symbol).native, "", ""
        except SubscriptionRejected as exc:
            reason = (not table.covers(symbol) and self._not_listed(symbol)) or str(exc)
        native = self._natives.get(symbol, "")
        if native and native in table.by_native:
            name = table.symbol_of(native)
            if name is not None and name != symbol:
                return native, name, ""
            # A halt: it goes on when the exchange does.
            return native if name is not None else "", "", reason
        is_speaking = native in natives and now_ns - natives[native] < GONE_NS
        return native if is_speaking else "", "", reason

    def _not_listed(self, symbol: str) -> str:
        """Return why there is no list in which a symbol would be, "" if the exchange has no such market."""
        for market in self._markets:
            if market.names(symbol):
                text = f"{market.exchange} has not listed anything in {market.name} yet"
                return self._lacking.get(market.name, text)
        return ""

    def _groups(self, market: Market) -> list[Legs]:
        return [legs for legs in self.legs if legs.market is market]

    def _remove(self, market: Market, states: Sequence[State], change: Change) -> None:
        gone = {state.topic for state in states}
        for legs in self._groups(market):
            if parting := [state for topic, state in legs.states.items() if topic in gone]:
                legs.remove(parting)
            if not legs.states:
                change.stop += legs.sessions
        self.legs = [legs for legs in self.legs if legs.states]
        market.remove(states)

    def _add(self, market: Market, wishes: Sequence[tuple[str, str]], change: Change) -> None:
        """Fill what room there is in the market's groups, then make new ones, for native symbols and kinds."""
        left = [state for native, kind in wishes for state in market.add([native], self._base_flags, kind)]
        for legs in self._groups(market):
            if not left:
                return
            present = list(legs.states.values())
            run, *_ = market.connections([*present, *left])
            joining = run[len(present) :]
            if joining:
                legs.add(joining)
                left = left[len(joining) :]
        for run in market.connections(left):
            legs = self._make_legs(market, run)
            legs.set_canary(self._canaries[market])
            self.legs.append(legs)
            change.run += legs.sessions

    def stale(self) -> dict[str, str]:
        """Return the channels that are silent and should not be, and why we think so."""
        return {
            legs.market.prefix + topic: text
            for legs in self.legs
            for topic, text in legs.freshness.stale().items()
        }

    def lost_trades(self) -> dict[str, int]:
        """Return how many trades could be had from nowhere, by topic; -1 where that is not known."""
        return {topic: count for legs in self.legs for topic, count in legs.missed.lost.items()}

    def recovered_trades(self) -> int:
        """Return how many trades REST gave that no connection had brought."""
        return sum(legs.missed.recovered for legs in self.legs)

    def books(self) -> tuple[int, int]:
        """Return how many books are valid, and how many wait for a base."""
        return sum(legs.bases.valid for legs in self.legs), sum(legs.bases.waiting for legs in self.legs)

    def repeat_all_books(self) -> None:
        """Publish all books in full, a few at a time."""
        for legs in self.legs:
            legs.bases.repeat_all()

    def repeat_books(self, natives: Container[str]) -> None:
        """Publish some books in full, a few at a time; natives are as instruments have them."""
        for legs in self.legs:
            legs.bases.repeat(natives)

    # --- renewal

    def renew(self, reason: str) -> None:
        """Renew all connections, a few at a time."""
        for legs in self.legs:
            legs.renew(reason)

    def advance(self, now_mono_ns: int) -> Iterator[Change]:
        """Renew connections that are due, and look who has fallen silent; call a few times a second.

        A group at a time, so that the caller may give others their turn: thousands of symbols take milliseconds.
        """
        for legs in list(self.legs):
            if legs not in self.legs:
                continue  # it was let go meanwhile
            # A few at a time: the budget is there for those that break as well.
            may_renew = sum(each.is_renewing for each in self.legs) < RENEWING_MAX
            yield legs.advance(now_mono_ns, may_renew=may_renew)
