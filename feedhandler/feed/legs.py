"""The connections that carry the same symbols, so that none of them is missed when it ends.

    leg 0   ──── session ────────────┬─ successor ─────────────▶
    leg 1   ──────────┬─ successor ────────────────────┬───────▶      ages are staggered

Each leg is one connection; the states take what comes first, whoever brings it (`Arbitration`). A connection that
is to end, for its age or by notice of the exchange, is retired when a successor has all the data that it has.
STALE and DOWN of the symbols are decided here, for they depend on all of the connections. What a ticker lacks comes
from REST; of a kind that keeps every record nothing can be lacking but what was missed, which DOWN and STALE tell.

Pure: times come in, sessions to be run and to be stopped go out. It knows no exchange.
"""

import random
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from feedhandler.data import wire
from feedhandler.data.connecting import LEGS_MAX, ConnectBudget, Policy
from feedhandler.data.status import Phase
from feedhandler.data.ticker import TICKER
from feedhandler.data.units import NS_PER_S
from feedhandler.exchanges.arbitration import LINES_MAX, Line
from feedhandler.exchanges.base import Emit, Market, RestTicker, is_same
from feedhandler.exchanges.state import LAST, QUOTE, STATISTICS, State, TickerState
from feedhandler.exchanges.trades import TradeState
from feedhandler.feed.bases import BaseQuestion, Bases
from feedhandler.feed.freshness import Freshness, Question, agrees
from feedhandler.feed.missed import MissedTrades, TradesQuestion
from feedhandler.feed.session import Session

CHANNELS: Final = (STATISTICS, QUOTE, LAST)
assert 2 * LEGS_MAX <= LINES_MAX, "each leg may have a successor"

# A connection is renewed somewhere in this part of its exchange's maximum: never at its end, and not all at once.
AGE_SHARES: Final = (0.90, 0.97)

# An exchange that ends so young a connection by notice may do so again: the next one waits, longer each time.
YOUNG_NS: Final = 60 * NS_PER_S

# Symbols have their first values from REST when everything is subscribed to, since from then on nothing is missed;
# and once before that, if it takes so long.
EARLY_NS: Final = NS_PER_S

# A renewal waits so long for books that the new connection lacks. Of a topic that is silent there may never be one.
BOOKS_NS: Final = 60 * NS_PER_S


class Change(msgspec.Struct):
    """What the caller has to do: run these sessions, stop those; and make these requests over REST."""

    run: list[Session] = []
    stop: list[Session] = []
    ask: list[Question] = []
    ask_trades: list[TradesQuestion] = []
    ask_bases: list[BaseQuestion] = []


class Leg:
    """One of several equal connections, and the one that is to follow it."""

    def __init__(self, session: Session, age_ns: int) -> None:
        self.session = session
        self.successor: Session | None = None
        self.order = ""  # why it is to be renewed, if that was ordered
        self.age_ns = age_ns  # at which it is to be
        self.goodbyes = 0  # in a row, each to a young connection
        self.lacks_books_at = 0  # since when the successor is only waited for because it lacks books


class Legs:
    """The legs of some symbols, each in some kinds; see the module's first lines. count is 1 to `LEGS_MAX`."""

    def __init__(
        self,
        market: Market,
        states: Iterable[State],
        emit: Emit,
        *,
        count: int,
        policy: Policy,
        budget: ConnectBudget,
        rng: random.Random,
    ) -> None:
        self.market = market
        self._group = market.new_group()
        self._channels = range(len(market.topics("", TICKER.name)))  # of each ticker
        self._canary = ""
        self._unseeded: set[str] = set()  # symbols whose tickers want their values from REST
        # all that were carried at the request; for others its answer may be too old
        self._surveyed: set[str] = set()
        # Channels of them that no live connection keeps current, though they are known: how often they had sent.
        self._lost: dict[tuple[str, int], tuple[int, int]] = {}
        self._stated: dict[str, bool] = {}  # those of them in the answer: whether it has only what is known
        self._witnessed: dict[Session, int] = {}  # connections that had subscribed to all by then: since when
        self._is_early = False  # there were none
        self._was_early = False
        self._wants_seeds = False
        self._has_filled_stale = False  # values of REST were flagged, since nothing came that should
        self.states: dict[str, State] = {}  # by the topics of records
        self._tickers: dict[str, TickerState] = {}  # those of them that are, by native symbol
        self._unsettled: dict[str, State] = {}  # those that keep every record, and are not known to be well
        self._enter(states)
        self._emit = emit
        self._policy = policy
        self._budget = budget
        self._rng = rng
        self.freshness = Freshness(market, emit)
        self.missed = MissedTrades(market, emit, self._is_brought)
        self.missed.add(self.states.values())
        self.bases = Bases(market, emit, rng, lambda: self.sessions)
        self.bases.add(self.states.values())
        self.freshness.add(self.states.values())
        self._followed: set[Session] = set()  # those that have all the data that any has
        self._next_line = 0
        self._max_age_ns = int((policy.max_age_s or market.max_age_s) * NS_PER_S)
        self.legs: list[Leg] = []
        for number in range(count):
            # A first life of its own length for each, so that they never come of age together.
            age_ns = int(self._age_ns() * (count - number) / count)
            self.legs.append(Leg(self._session(number), age_ns))

    @property
    def sessions(self) -> list[Session]:
        """All connections, successors beside those that they follow."""
        found = []
        for leg in self.legs:
            found += [leg.session] if leg.successor is None else [leg.session, leg.successor]
        return found

    def _session(self, leg: int) -> Session:
        taken = {session.line.index for session in self.sessions}
        # In turn: one that was retired may still deliver something for a second.
        order = [(self._next_line + number) % LINES_MAX for number in range(LINES_MAX)]
        index = next(index for index in order if index not in taken)
        self._next_line = index + 1
        return Session(
            self.market,
            self.states.values(),
            self._emit,
            self,
            line=Line(index, self._group),
            leg=leg,
            policy=self._policy,
            budget=self._budget,
            rng=self._rng,
            canary=self._canary,
        )

    def _enter(self, states: Iterable[State]) -> None:
        for state in states:
            state.group = self._group
            self.states[state.topic] = state
            if isinstance(state, TickerState):
                self._tickers[state.native] = state
            if state.keeps_every:
                self._unsettled[state.topic] = state

    def _age_ns(self) -> int:
        return int(self._rng.uniform(*AGE_SHARES) * self._max_age_ns)

    # --- what the caller orders

    def add(self, states: Sequence[State]) -> None:
        """Carry these too; the others notice nothing."""
        self._enter(states)
        self.freshness.add(states)
        self.missed.add(states)
        self.bases.add(states)
        for session in self.sessions:
            session.subscriptions.add(states)
        # Which is as good as another is to be seen anew: the first of them is the measure of the others.
        measures = [session for session in self.sessions if session in self._followed]
        self._followed = set(measures[:1])
        self._unseeded.update(state.native for state in states if isinstance(state, TickerState))

    def remove(self, states: Sequence[State]) -> None:
        """Carry these no more; they are flagged DOWN."""
        self.freshness.remove(states)
        self.missed.remove(states)
        self.bases.remove(states)
        for session in self.sessions:
            session.subscriptions.remove(states)
        for state in states:
            del self.states[state.topic]
            if isinstance(state, TickerState):
                del self._tickers[state.native]
                self._unseeded.discard(state.native)
                self._surveyed.discard(state.native)
            self._flag(state, wire.DOWN)
            self._unsettled.pop(state.topic, None)

    def set_canary(self, native: str) -> None:
        """Have each connection subscribe to an instrument that is never quiet, "" for none, without records."""
        self._canary = native
        for session in self.sessions:
            session.subscriptions.set_canary(native)

    @property
    def is_renewing(self) -> bool:
        return any(leg.successor is not None for leg in self.legs)

    def advance(self, now_mono_ns: int, *, may_renew: bool = True) -> Change:
        """Renew what is due; call a few times a second. Without may_renew, only what its exchange gives up."""
        self._follow()
        self._end_conditions()
        change = Change(ask=self.freshness.advance(now_mono_ns, self.sessions))
        for session in self.sessions:
            if native := session.wants_quote(now_mono_ns):
                change.ask.append(Question(native, session.witness))
        change.ask_trades = self.missed.advance(now_mono_ns)
        change.ask_bases = self.bases.advance(now_mono_ns)
        self._plan_seeds(now_mono_ns)
        self._take_orders(change)
        for leg in self.legs:
            if leg.successor is not None:
                self._promote(leg, now_mono_ns, change)
            elif reason := self._why_renew(leg, now_mono_ns, may_renew):
                leg.successor = self._session(leg.session.leg)
                leg.successor.reason = reason
                leg.successor.learn_from(leg.session)
                leg.successor.deadline_mono_ns = now_mono_ns + self._patience_ns(leg, now_mono_ns)
                change.run.append(leg.successor)
        return change

    # --- what REST states of all symbols

    @property
    def wants_survey(self) -> bool:
        """True if a survey is to be made; while nothing is connected, it would be of no use."""
        is_wanted = self._wants_seeds or self.freshness.wants_survey
        return is_wanted and any(session.phase is Phase.RUNNING for session in self.sessions)

    def _plan_seeds(self, now: int) -> None:
        """See whether there are symbols of which live connections may have no data for a while."""
        running = [session for session in self.sessions if session.phase is Phase.RUNNING]
        if not self._unseeded or not running:
            return
        is_settled = any(session.subscriptions.is_acknowledged for session in running)
        is_slow = now - min(session.opened_mono_ns for session in running) >= EARLY_NS
        self._wants_seeds = is_settled or (is_slow and not self._was_early)

    def on_survey_sent(self) -> None:
        """The requests to REST are on their way."""
        running = [session for session in self.sessions if session.phase is Phase.RUNNING]
        self._witnessed = {s: s.opened_mono_ns for s in running if s.subscriptions.is_acknowledged}
        self._is_early = not self._witnessed
        self._was_early = True
        self._surveyed, self._stated = set(self._tickers), {}
        lines = [session.line.index for session in running]
        self._lost = {
            (native, channel): _sent(state, channel)
            for native, state in self._tickers.items()
            for channel in self._unkept(state, lines)
        }
        self._wants_seeds = False
        self.freshness.on_survey_sent()

    def on_survey(self, rows: Iterable[RestTicker], recv_ns: int) -> None:
        """Take what REST states: as a witness, and for what no live connection has sent."""
        self.freshness.on_survey(rows)
        running = [session for session in self.sessions if session.phase is Phase.RUNNING]
        flag = wire.STALE if all(session.is_stale for session in running) else 0
        self._has_filled_stale = self._has_filled_stale or bool(flag)
        for row in rows if running else ():
            if row.native in self._surveyed:
                state = self._tickers[row.native]
                self._seed(state, row, recv_ns, flag)
                is_known = all(agrees(state, channel, row) is not False for channel in self._channels)
                self._stated[row.native] = self._stated.get(row.native, True) and is_known

    def on_survey_end(self, *, has_failed: bool) -> None:
        """There are no more rows, or none were to be had: then there is another survey."""
        self.freshness.on_survey_end()
        if not self._is_early and not has_failed:
            self._unseeded -= self._surveyed
            for session in self.sessions:
                if self._witnessed.get(session) == session.opened_mono_ns and session.phase is Phase.RUNNING:
                    for native in self._surveyed:
                        if self._stated.get(native):
                            self._tickers[native].inherit(session.line.index)
        self._surveyed, self._witnessed = set(), {}

    def _seed(self, state: TickerState, row: RestTicker, recv_ns: int, flag: int) -> None:
        """Fill what the stream has not sent: whatever it sends is newer. No channel is fresher for it.

        flag is STALE while nothing comes that should: REST's values are current when they come, and not for long.

        Values of a line that is gone hold, since another line followed it; unless they were lost by the time of the
        request, and nothing has come since.
        """
        conceded = self.freshness.conceded(state.native)
        unsent = [
            channel
            for channel in CHANNELS
            if channel in conceded
            or self._is_lost(state, channel)
            or not (state.channels[channel].updates or _is_filled(state, channel))
        ]
        # Of one without any data REST's value is no more than REST's: what is held against it stands.
        settled = [c for c in unsent if c in conceded or state.channels[c].updates]
        self.freshness.on_seed(state.native, settled)
        before = _values(state)
        if row.quote is not None and QUOTE in unsent:
            state.set_quote(row.quote.bid, row.quote.bid_size, row.quote.ask, row.quote.ask_size)
        has_last = LAST in conceded or (LAST in unsent and (LAST in self._channels or STATISTICS in unsent))
        if row.last == row.last and has_last:  # where it has no channel of its own, statistics bring it
            state.last = row.last
        if row.statistics is not None and STATISTICS in unsent:
            state.set_statistics(*row.statistics)
        is_changed = not is_same(before, _values(state))
        if is_changed or state.flags & wire.STALE & ~(state.base_flags | flag):
            if len(unsent) == len(CHANNELS):
                state.exchange_ns = 0  # REST states no time
            state.on_news(recv_ns)
            state.flags |= flag
            self._emit(state)

    def _is_lost(self, state: TickerState, channel: int) -> bool:
        """True if no line kept a channel current at the request to REST, and nothing of it has come since."""
        return self._lost.get((state.native, channel)) == _sent(state, channel)

    def _take_orders(self, change: Change) -> None:
        """Renew what the watch over the channels has given up; a successor makes room for another one."""
        if self.freshness.renewal:
            self.renew(self.freshness.renewal)
            self.freshness.renewal = ""
        for session, topic in self.freshness.contradicted.items():
            session.on_contradicted(topic)
        self.freshness.contradicted.clear()
        for leg in self.legs:
            if reason := self.freshness.laggards.pop(leg.session, ""):
                leg.order = reason
            if leg.successor is not None and leg.successor in self.freshness.laggards:
                leg.order = leg.order or leg.successor.reason
                change.stop.append(leg.successor)
                self._release(leg.successor)
                leg.successor = None
        self.freshness.laggards.clear()

    def _patience_ns(self, leg: Leg, now: int) -> int:
        """Return how long a successor waits before it connects: not at all, unless goodbyes follow each other."""
        is_hasty = bool(leg.session.goodbye) and now - leg.session.opened_mono_ns < YOUNG_NS
        leg.goodbyes = leg.goodbyes + 1 if is_hasty else 0
        return int(self._policy.backoff_s(leg.goodbyes, self._rng) * NS_PER_S) if leg.goodbyes > 1 else 0

    def renew(self, reason: str) -> None:
        """Renew every leg, one after the other; one that is being renewed already is left alone."""
        for leg in self.legs:
            leg.order = reason

    def _follow(self) -> None:
        """See which has come to have all the data of another: from then on each is as good as the other."""
        live = [session for session in self.sessions if session.condition == 0]
        if not any(session in self._followed for session in live):
            self._followed.update(live[:1])  # one that lives is the measure, if all that were are gone
        for session in self.sessions:
            measures = [] if session in self._followed else [s for s in live if s in self._followed]
            if other := next((each for each in measures if session.has_followed(each)), None):
                self._followed.add(session)
                self._inherit(session, other)

    def _inherit(self, session: Session, other: Session) -> None:
        """Have a connection keep what another keeps. What was lost before both, it does not."""
        for state in self.states.values():
            for channel in state.channels:
                if channel.is_kept(other.line.index):
                    channel.inherit(session.line.index)

    def _why_renew(self, leg: Leg, now: int, may_renew: bool) -> str:
        session = leg.session
        if session.phase is not Phase.RUNNING:
            leg.order = ""  # it makes a new connection anyway
            return ""
        if session.goodbye:
            return session.goodbye
        if self.is_renewing or not may_renew:
            return ""  # one at a time
        age_ns = now - session.opened_mono_ns
        return leg.order or (f"{age_ns / NS_PER_S / 3600:.1f} h old" if age_ns >= leg.age_ns else "")

    def _lacks_books(self, leg: Leg, successor: Session, now: int) -> bool:
        """True while a successor lacks books that the connection has; one that cannot be had is not waited for."""
        if self.bases.is_ready(successor.line.index, leg.session.line.index):
            return False
        leg.lacks_books_at = leg.lacks_books_at or now
        return now - leg.lacks_books_at < BOOKS_NS

    def _promote(self, leg: Leg, now: int, change: Change) -> None:
        """Let the successor take over if no data of the other would be missed, or if the other is gone."""
        successor = leg.successor
        assert successor is not None, "the caller has looked"
        is_gone = leg.session.phase in (Phase.BACKOFF, Phase.CONNECTING)
        if is_gone and successor.phase in (Phase.BACKOFF, Phase.CONNECTING):
            change.stop.append(successor)  # neither is connected: the first goes on by its own rules
            leg.successor, leg.order = None, ""
            return
        if not is_gone:
            if not successor.has_followed(leg.session):
                leg.session.stop_draining()
                return
            if self._lacks_books(leg, successor, now):
                return
            is_under_way = self.missed.is_needed or self.bases.is_joining(successor.line.index)
            if is_under_way and not self._is_drained(leg.session, now):
                return
            self._inherit(successor, leg.session)
            if leg.session in self._followed:  # else it lacks something that another has
                self._followed.add(successor)
        successor.count_on(leg.session)
        change.stop.append(leg.session)
        self._release(leg.session)
        leg.session, leg.successor, leg.order, leg.lacks_books_at = successor, None, "", 0
        leg.age_ns = self._age_ns()
        successor.reason = ""
        self._seed_unkept()
        self._flag_conditions()

    def _is_drained(self, session: Session, now: int) -> bool:
        """True once trades that are under way on a connection have come, which its successor is not sent."""
        if not session.drain(now):
            return False
        if not session.is_drained:
            self.missed.on_gone(session, [])
        return True

    def state(self) -> str:
        """Return the state of the symbols in one word: that of the best connection."""
        sessions = self.sessions
        if not any(session.phase is Phase.RUNNING and session.frames for session in sessions):
            return "connecting"
        return "live" if any(s.phase is Phase.RUNNING and not s.is_stale for s in sessions) else "stale"

    # --- what the sessions report

    def on_open(self, session: Session) -> None:
        """The session has a new connection; if it is the only one, nothing is known any more."""
        is_alone = all(other is session or other.condition == wire.DOWN for other in self.sessions)
        self._followed.discard(session)
        if is_alone:
            self._followed.add(session)
            self.freshness.reset()
            self.missed.on_alone()
            self._unseeded, self._surveyed, self._was_early = set(self._tickers), set(), False
        for state in self.states.values():
            if is_alone:
                state.forget()
            else:
                state.renew(session.line.index)

    def on_condition(self, session: Session) -> None:
        """A session's condition changed; of one that is retired already it does not matter."""
        if session not in self.sessions:
            return
        if session.condition == wire.DOWN:
            others = [s for s in self.sessions if s is not session and s.condition != wire.DOWN]
            self.missed.on_gone(session, others)
            self._release(session)
        elif session.condition == 0 and self._has_filled_stale:  # data have come: what is quiet is live again
            self._unseeded.update(self._tickers)
            self._has_filled_stale = False
        self._seed_unkept()
        if session.condition:  # better flags nothing: others may have data too, and are looked at after it
            self._flag_conditions()

    def on_rejection(self, session: Session) -> None:
        """A topic was refused: kinds that keep every record are not brought; others are watched."""
        if session in self.sessions:
            self._flag_conditions(state for state in self.states.values() if state.keeps_every)

    def _release(self, session: Session) -> None:
        """A connection is gone: others may bring again what it brought last."""
        self._followed.discard(session)
        self.freshness.contradicted.pop(session, None)
        self.bases.on_line_leaving(session.line.index)
        for state in self.states.values():
            state.release(session.line.index)
        self.bases.on_line_gone()

    def _flag_conditions(self, states: Iterable[State] | None = None) -> None:
        """Flag what has become worse, of all states or some that have had data and are not kept current."""
        best = min(session.condition for session in self.sessions)  # 0, STALE, DOWN
        lines = self._live_lines()
        for state in self.states.values() if states is None else states:
            flag = best
            if not flag and state.keeps_every:
                flag = 0 if self._is_brought(state) else wire.STALE
            elif not flag:
                unkept = self._unkept(state, lines)
                flag = wire.STALE if unkept and len(unkept) == len(self._channels_of(state)) else 0
            self._flag(state, flag)

    def _seed_unkept(self) -> None:
        """Have REST tell what holds where nobody knows, or where data have come again and it is quiet."""
        lines = self._live_lines()
        for state in self._tickers.values() if lines else ():
            if state.flags & wire.STALE & ~state.base_flags or self._unkept(state, lines):
                self._unseeded.add(state.native)

    def _live_lines(self) -> list[int]:
        return [session.line.index for session in self.sessions if session.condition == 0]

    def _channels_of(self, state: State) -> range:
        return self._channels if isinstance(state, TickerState) else range(len(state.channels))

    def on_unread(self, session: Session, state: TradeState) -> None:
        """A message of trades cannot be read: what it had is missed."""
        if session in self.sessions:
            self.missed.on_unread(session, state)

    def _unkept(self, state: State, lines: Sequence[int]) -> list[int]:
        """Return the channels of a state that is known which none of some lines keeps current."""
        return [
            channel
            for channel in (self._channels_of(state) if state.recv_ns else ())
            if not any(state.channels[channel].is_kept(line) for line in lines)
        ]

    def _is_brought(self, state: State) -> bool:
        """True if a connection that is well has subscribed to a state: from then on nothing is missed."""
        return any(
            session.condition == 0 and session.subscriptions.brings(state) for session in self.sessions
        )

    def _flag(self, state: State, flag: int) -> None:
        if flag == wire.DOWN:
            self.missed.on_down(state)
        if flag and state.is_known and state.flags & (wire.STALE | wire.DOWN) < flag:
            state.flags = state.base_flags | flag | state.flags & wire.INVALID  # that holds until a snapshot
            self._emit(state)
            if state.keeps_every:
                self._unsettled[state.topic] = state

    def _end_conditions(self) -> None:
        """Publish of kinds that keep every record that all is well again: the next one may come in hours."""
        self._unsettled.update((state.topic, state) for state in self.missed.told)
        self.missed.told.clear()
        for topic, state in list(self._unsettled.items()):
            if self._is_brought(state) and not self.missed.is_open(state):
                self.missed.on_settled(state)
                del self._unsettled[topic]
                is_flagged = state.flags & (wire.STALE | wire.DOWN)
                if is_flagged or not state.recv_ns:  # else it has had a record since
                    state.flags = state.base_flags | state.flags & wire.INVALID
                    self._emit(state)


def _sent(state: TickerState, channel: int) -> tuple[int, int]:
    """Return how often a channel has sent, and the slower one that fills its fields, 0 while that does not."""
    filling = state.channels[STATISTICS].updates if _is_filled(state, channel) else 0
    return state.channels[channel].updates, filling


def _is_filled(state: TickerState, channel: int) -> bool:
    """Return whether a slower channel has stated what this one, that has not sent yet, owns."""
    is_stated = any(value == value for value in state.stated(channel))
    return is_stated and not state.channels[channel].updates


def _values(state: TickerState) -> tuple[float, ...]:
    return tuple(getattr(state, name) for name in wire.TICKER_VALUES)
