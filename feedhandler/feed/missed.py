"""Trades that were missed while no connection brought them: fetched over REST, and published before newer ones.

    brought ──lost──▶ away ──connected: new ones are held──▶ subscribed to ──REST──▶ missed ones, RECOVERED,
                       ▲                     │                     │                 then those that were held
                       └────────lost─────────┘                     └──not all──▶ STALE, those that were held

They are held for `HOLD_NS` at most; what comes from REST later is published later. Where the numbers of trades
follow each other, those that are missing are fetched too while everything is connected. Pure: times and answers
come in, requests and records go out.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final

import msgspec

from feedhandler.data import wire
from feedhandler.data.rest import RestRequest
from feedhandler.data.trade import TRADE
from feedhandler.data.units import NS_PER_S
from feedhandler.exchanges.base import Emit, Market
from feedhandler.exchanges.state import State
from feedhandler.exchanges.trades import PastTrade, TradeState
from feedhandler.feed.session import Session
from feedhandler.feed.subscriptions import Answered

HOLD_NS: Final = 1_500_000_000  # with the time between two looks it is less than 2 s
PATIENCE_NS: Final = NS_PER_S  # within which another connection may bring what is missing
AGAIN_NS: Final = (
    NS_PER_S  # after a request that failed, or whose answer was behind the connections; doubling
)
CONFIRM_NS: Final = 2 * NS_PER_S  # after an answer, if no trade has come since that REST should have known
UNDER_WAY_NS: Final = 5 * NS_PER_S  # a trade, at most, on a connection that is not stalled
TRIES_MAX: Final = 6  # for a minute
# Where numbers follow each other, past trades can be had for long: as the budget of requests permits.
BUDGET_PATIENCE_NS: Final = 600 * NS_PER_S
UNSEEN_NS: Final = NS_PER_S  # symbols of which numbers are seen to be missing go first
PAGES_MAX: Final = 10  # of one symbol, where the answers are in order and limited
REQUESTS_MAX: Final = 4  # under way at a time
UNKNOWN: Final = -1  # how many are missing, where that cannot be known


class Missed(msgspec.Struct, eq=False):
    """What is to be fetched of one symbol: what is newer than a number, or a time where there are none."""

    state: TradeState
    number: int
    since_ns: int
    next_number: int  # to begin with in the next request
    came_ns: int  # when the last trade came before
    updates: int  # new trades that there had been, those from REST included
    asks_at: int = 0  # on the monotonic clock
    held_at: int = 0  # since when new trades are held; 0: there are none
    tries: int = 0
    pages: int = 0
    is_asking: bool = False
    is_confirming: bool = False
    is_waiting: bool = False  # for the next trade, whose number says whether anything is missing
    gives_up_at: int = 0


class TradesQuestion(msgspec.Struct, eq=False):
    """A request for past trades of one symbol; its answer goes to `watch.on_answer`."""

    request: RestRequest
    missed: Missed
    watch: "MissedTrades"


class MissedTrades:
    """The trades of some symbols that the same connections carry.

    is_brought says whether a connection that is well has subscribed to a state. lost is how many could not be had,
    by topic; told are the states that were flagged for that, until the owner clears them.
    """

    def __init__(self, market: Market, emit: Emit, is_brought: Callable[[State], bool]) -> None:
        self.market = market
        self._emit = emit
        self._is_brought = is_brought
        self.told: list[State] = []
        self._states: dict[TradeState, int] = {}  # and since when numbers are missing, 0: none are
        self._open: dict[TradeState, Missed] = {}
        self._now = 0
        self.lost: dict[str, int] = {}
        self.recovered = 0  # trades that REST gave

    @property
    def is_needed(self) -> bool:
        """True if there are trades whose numbers do not tell whether any are missing."""
        return bool(self._states) and not self.market.trade_ids_are_consecutive

    def add(self, states: Iterable[State]) -> None:
        """Watch these too."""
        if self.market.past_trades_max:
            self._states.update(
                (state, 0)
                for state in states
                if isinstance(state, TradeState) and state.kind == TRADE.name  # no REST has liquidations
            )

    def remove(self, states: Iterable[State]) -> None:
        """Watch these no more."""
        for state in states:
            if isinstance(state, TradeState):
                state.is_followed = False
                state.trades.part()
                self._states.pop(state, None)
                self._open.pop(state, None)
                state.release_held(self._emit)

    def on_down(self, state: State) -> None:
        """No connection brings it any more: what was held came before."""
        if isinstance(state, TradeState) and state.held_count:
            state.release_held(self._emit)

    def is_open(self, state: State) -> bool:
        """True while it is being looked for what of it was missed."""
        missed = self._open.get(state) if isinstance(state, TradeState) else None
        return missed is not None and not missed.is_waiting

    def on_alone(self) -> None:
        """The first connection after none: what comes from now on may have something missing before it."""
        for state in self._states:
            if state.is_followed and state.trades.update_id:
                self._begin(state, state.trades.number, state.trades.newest_ns)
                state.hold()

    def on_gone(self, session: Session, others: Sequence[Session]) -> None:
        """A connection is gone. What it had under way when it last brought anything is missed.

        Of others, one that had subscribed by then has the same under way. Numbers that follow each other tell by
        themselves.
        """
        line = session.line.index
        for state in self._states if not self.market.trade_ids_are_consecutive else ():
            own = session.subscriptions.brings_since(state)
            if own is None or not state.is_followed or not state.trades.update_id:
                continue
            lived_mono_ns = max(own.mono_ns, session.delivered_mono_ns)
            theirs = [other.subscriptions.brings_since(state) for other in others]
            if not any(since and since.mono_ns <= lived_mono_ns - UNDER_WAY_NS for since in theirs):
                reached_ns = state.trades.reached_ns(line) or state.trades.began_ns(line)
                self._begin(state, 0, reached_ns or _answered_ns(state, own))

    def on_unread(self, session: Session, state: TradeState) -> None:
        """A message of a state's trades cannot be read, or a part of it: what it had is missed.

        Numbers that follow each other tell by themselves, from the first one on.
        """
        own = session.subscriptions.brings_since(state)
        if own is None:
            return
        trades, line = state.trades, session.line.index
        if state not in self._states:
            self._tell_unread(state)
        elif self.market.trade_ids_are_consecutive:
            if not trades.number or trades.is_parted:
                self._tell_unread(state)
        elif (
            state in self._open
        ):  # pauses between requests stay as they are: each message may be one of these
            missed = self._open[state]
            missed.came_ns, missed.updates, missed.is_confirming = trades.first_ns, trades.update_id, False
        else:
            # Of the same message something may have been read.
            since_ns = trades.earlier_ns(line) or trades.began_ns(line)
            if not since_ns:  # since it was subscribed to, by our clock, which may have been set since
                answered_ns = _answered_ns(state, own)
                since_ns = min(answered_ns, trades.reached_ns(line) or answered_ns)
            self._begin(state, 0, since_ns)

    def _tell_unread(self, state: TradeState) -> None:
        if not state.flags & wire.STALE:
            self._flag(state, UNKNOWN)

    def _begin(self, state: TradeState, number: int, since_ns: int) -> None:
        if state not in self._open:
            self._open[state] = Missed(
                state, number, since_ns, number + 1, state.trades.first_ns, state.trades.update_id
            )
        else:  # it is lost again: what was asked for is asked for anew
            missed = self._open[state]
            if not state.trades.is_parted:  # else the newest are from before it was wanted
                missed.since_ns = min(missed.since_ns, since_ns)
            missed.tries = missed.pages = missed.asks_at = missed.held_at = 0
            missed.is_confirming = missed.is_waiting = False
            missed.gives_up_at = 0
            missed.came_ns, missed.updates = state.trades.first_ns, state.trades.update_id

    def advance(self, now_mono_ns: int) -> list[TradesQuestion]:
        """Return what to request; call a few times a second."""
        self._now = now_mono_ns
        for state, since in self._states.items():
            # There was no room for it, or there is no number any more to request it by.
            if given_up := state.trades.given_up:
                state.trades.given_up = 0
                self._flag(state, given_up)
            if state.trades.missing and state not in self._open:
                self._states[state] = since or now_mono_ns
                if since and now_mono_ns - since >= PATIENCE_NS:
                    first, _ = state.trades.missing[0]
                    self._begin(state, first - 1, 0)
            elif since:
                self._states[state] = 0
        questions: list[TradesQuestion] = []
        asking = sum(missed.is_asking for missed in self._open.values())
        for state, missed in list(self._open.items()):
            if state.held_count:
                missed.held_at = missed.held_at or now_mono_ns
                missed.asks_at = 0 if missed.is_confirming else missed.asks_at
                if now_mono_ns - missed.held_at >= HOLD_NS:
                    state.release_held(self._emit)
            if missed.is_asking or not self._is_brought(state) or not self._is_due(missed):
                continue
            if asking + len(questions) < REQUESTS_MAX:
                missed.is_asking = True
                request = self.market.past_trades_request(state.native, missed.next_number)
                questions.append(TradesQuestion(request, missed, self))
        return questions

    def _is_due(self, missed: Missed) -> bool:
        """True if a request is to be made now."""
        trades = missed.state.trades
        if self.market.trade_ids_are_consecutive:
            if not missed.gives_up_at:
                missed.gives_up_at = self._now + BUDGET_PATIENCE_NS
                missed.asks_at = 0 if trades.missing else self._now + UNSEEN_NS
            if missed.is_waiting and trades.missing:
                missed.is_waiting, missed.asks_at = False, 0
            elif trades.update_id > missed.updates and not trades.missing:
                self._end(missed)  # what came is what follows
                return False
        return not missed.is_waiting and self._now >= missed.asks_at

    def on_settled(self, state: State) -> None:
        """It is subscribed to: from now on nothing is missed."""
        if isinstance(state, TradeState):
            state.is_followed = True

    def on_refused(self, question: TradesQuestion, wait_s: float = 0.0) -> None:
        """No answer is to be had; wait_s is for how long none is, if that is known."""
        missed = question.missed
        missed.is_asking = False
        if self._open.get(missed.state) is not missed or not self._is_brought(missed.state):
            return
        is_patient = self.market.trade_ids_are_consecutive and self._now < missed.gives_up_at
        if self.market.trade_ids_are_consecutive and not missed.state.trades.missing:
            missed.is_waiting = True
        elif wait_s and is_patient:
            missed.asks_at = self._now + int(wait_s * NS_PER_S)
        else:
            self._try_again(missed)

    def on_answer(
        self, question: TradesQuestion, rows: Sequence[PastTrade], recv_ns: int, *, is_whole: bool = True
    ) -> None:
        """Take the answer. is_whole: all that it states could be read."""
        missed, state = question.missed, question.missed.state
        missed.is_asking = False
        if self._open.get(state) is not missed or not self._is_brought(state):
            return  # nobody wants it any more, or it is away again: then it is requested again
        rows = sorted(rows, key=lambda row: (row.number, row.exchange_ns))
        trades = state.trades
        is_full = len(rows) >= self.market.past_trades_max
        is_joined = missed.pages > 0 or not is_full or any(self._is_past(missed, row) for row in rows)
        is_reached = any(trades.came_ns(row.key) > missed.came_ns for row in rows)
        is_live = trades.update_id > missed.updates
        self._publish([row for row in rows if not self._is_past(missed, row)], missed, recv_ns)
        missed.pages += 1
        if self.market.trade_ids_are_consecutive:
            self._go_on(missed, rows[-1].number if rows else 0, is_full=is_full)
        elif not is_joined or not is_whole:
            self._tell(missed, UNKNOWN)
        elif is_reached or (missed.is_confirming and not is_live):
            self._end(missed)
        elif is_live:
            missed.is_confirming = False
            self._try_again(missed)  # REST is behind the connections
        else:
            missed.is_confirming = True  # it may be: there is nothing yet to tell that by
            missed.asks_at = self._now + CONFIRM_NS

    def _publish(self, rows: Iterable[PastTrade], missed: Missed, recv_ns: int) -> None:
        state = missed.state
        new = [row for row in rows if state.trades.add(row.key, row.exchange_ns, recv_ns, row.number)]
        missed.updates += len(new)
        self.recovered += len(new)
        for row in new:
            state.publish(
                row.trade,
                row.exchange_ns,
                recv_ns,
                self._emit,
                sequence=row.sequence,
                count=row.count,
                bits=row.bits,
                flags=wire.RECOVERED | (wire.LAST if row is new[-1] else 0),
            )

    def _go_on(self, missed: Missed, last: int, *, is_full: bool) -> None:
        """Where numbers tell what is missing: request what follows, or what still is missing, or no more."""
        trades = missed.state.trades
        missing = trades.missing
        # else what follows has come by itself
        has_more = is_full and (bool(missing) or last >= trades.number)
        if has_more and last >= missed.next_number and missed.pages < PAGES_MAX:
            missed.next_number = last + 1
        elif missing:
            missed.next_number = missing[0][0]
            self._try_again(missed)
        else:
            self._end(missed)

    def _is_past(self, missed: Missed, row: PastTrade) -> bool:
        """True for a trade from before anything was missed."""
        if row.number and missed.number:
            return row.number <= missed.number
        return row.exchange_ns < missed.since_ns

    def _try_again(self, missed: Missed) -> None:
        missed.asks_at = self._now + (AGAIN_NS << missed.tries)
        missed.tries += 1
        if missed.tries < TRIES_MAX:
            return
        self._tell(missed, missed.state.trades.missing_count or UNKNOWN)

    def _tell(self, missed: Missed, count: int) -> None:
        """Publish that something is missing: in its place, unless newer ones have waited for too long."""
        self._flag(missed.state, count)
        self._end(missed)

    def _flag(self, state: TradeState, count: int) -> None:
        before = self.lost.get(state.topic, 0)
        self.lost[state.topic] = UNKNOWN if UNKNOWN in (count, before) else before + count
        state.flags = state.base_flags | wire.STALE
        self._emit(state)
        self.told.append(state)

    def _end(self, missed: Missed) -> None:
        state = missed.state
        state.trades.missing = []
        del self._open[state]
        state.release_held(self._emit)


def _answered_ns(state: State, own: Answered) -> int:
    """Return when a subscription was answered, by the exchange's clock as far as it is known."""
    return max(1, own.unix_ns + state.offset_ns)
