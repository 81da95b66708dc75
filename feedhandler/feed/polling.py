"""When REST is asked for what no channel has: while somebody wants it, and no more often than the exchange permits.

    contracts that are live ──due──▶ one request at a time ──answer──▶ their states
             ▲                              │
             └───────── `Poll.every_s` ─────┴──refused: again, with growing patience; streams go on meanwhile

Where all symbols are in one answer, it is asked for once; where each has its own, they take turns, the one that has
waited longest first. An answer that does not come costs nothing but the age of the values, which end by themselves
(`exchanges/polled.py`). Pure: times and answers come in, requests and records go out. It knows no exchange.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from feedhandler.data import wire
from feedhandler.data.contract import CONTRACT
from feedhandler.data.rest import RestRequest
from feedhandler.data.status import PollStatus
from feedhandler.data.units import NS_PER_S
from feedhandler.exchanges.base import Emit, Market, Rows
from feedhandler.exchanges.contract_state import ContractState
from feedhandler.exchanges.polled import SINGLES_MAX, Poll, PolledContract, take_polled

# Between two requests for all: symbols that come one after the other share one.
DISTANCE_NS: Final = 2 * NS_PER_S
BACKOFF_NS: Final = (NS_PER_S, 60 * NS_PER_S)  # after a failure, doubling


class PolledState(msgspec.Struct, eq=False):
    """One contract, and when it was asked for. mono_ns are of the monotonic clock."""

    wanted_mono_ns: int
    due_mono_ns: int
    answered_mono_ns: int = 0  # 0: not yet
    recv_ns: int = 0


class PollQuestion(msgspec.Struct, eq=False):
    """A request for what some contracts lack; its answer goes to `polling.on_answer`."""

    request: RestRequest
    states: Sequence[ContractState]
    polling: "Polling"


class Polling:
    """One poll of one market."""

    def __init__(self, market: Market, poll: Poll, emit: Emit) -> None:
        self.market = market
        self.poll = poll
        self._emit = emit
        self._every_ns = int(poll.every_s * NS_PER_S)
        self._lasts_ns = int(poll.lasts_s * NS_PER_S)
        self._watched: dict[ContractState, PolledState] = {}
        self._is_asking = False
        self._next_mono_ns = 0
        self._failures = 0
        self.problem = ""  # of the newest answer, or why there was none; "" once there is one

    def advance(self, now_mono_ns: int) -> PollQuestion | None:
        """Return what is to be requested now; call a few times a second."""
        self._follow(now_mono_ns)
        if self._is_asking or now_mono_ns < self._next_mono_ns:
            return None
        due = [
            state
            for state, each in self._watched.items()
            if each.due_mono_ns <= now_mono_ns and state.is_known and not state.flags & wire.DOWN
        ]
        if not due:
            return None
        poll = self.poll
        if poll.request is not None and not (poll.is_single and len(self._watched) <= SINGLES_MAX):
            request, states = poll.request, [*self._watched]
            self._next_mono_ns = now_mono_ns + DISTANCE_NS
        else:
            states = [min(due, key=lambda state: self._watched[state].due_mono_ns)]
            request = self.market.poll_request(poll, states[0].native)
        for state in states:
            self._watched[state].due_mono_ns = now_mono_ns + self._every_ns
        self._is_asking = True
        return PollQuestion(request, states, self)

    def _follow(self, now_mono_ns: int) -> None:
        """Watch what is wanted, and nothing else."""
        wanted = self.market.states.get(CONTRACT.name, {})
        for state in [state for state in self._watched if wanted.get(state.native) is not state]:
            del self._watched[state]
        if len(self._watched) < len(wanted):
            for state in wanted.values():
                self._watched.setdefault(state, PolledState(now_mono_ns, now_mono_ns))

    def on_answer(
        self, question: PollQuestion, rows: Rows[PolledContract], recv_ns: int, now_mono_ns: int
    ) -> None:
        """Take an answer, which came at recv_ns, in Unix time."""
        self._is_asking = False
        self._failures = 0
        self._take(question.states, rows, recv_ns, now_mono_ns)
        for state in question.states:
            if state in self._watched and not state.is_known:  # it was asked for beside others
                self._watched[state].due_mono_ns = now_mono_ns

    def on_other_answer(self, rows: Rows[PolledContract], recv_ns: int, now_mono_ns: int) -> None:
        """The same request was sent for something else: who has its value by now need not be asked for."""
        for state in self._take([*self._watched], rows, recv_ns, now_mono_ns):
            self._watched[state].due_mono_ns = now_mono_ns + self._every_ns

    def _take(
        self, states: Sequence[ContractState], rows: Rows[PolledContract], recv_ns: int, now_mono_ns: int
    ) -> list[ContractState]:
        self.problem = rows.problem
        states = [state for state in states if state in self._watched]
        found = take_polled(self.poll, rows.items, states, recv_ns, self._emit)
        for state in found:
            watched = self._watched[state]
            watched.answered_mono_ns, watched.recv_ns = now_mono_ns, recv_ns
        return found

    def on_refused(self, question: PollQuestion, now_mono_ns: int, reason: str, wait_s: float = 0.0) -> None:
        """There is no answer; wait_s is for how long none is to be had, if that is known.

        reason "": our own budget has no room, which is no failure.
        """
        self._is_asking = False
        for state in question.states:
            if state in self._watched:
                self._watched[state].due_mono_ns = now_mono_ns
        first_ns, last_ns = BACKOFF_NS
        backoff_ns = min(first_ns << min(self._failures, 16), last_ns) if reason else 0
        self._next_mono_ns = now_mono_ns + max(backoff_ns, int(wait_s * NS_PER_S))
        if reason:
            self._failures += 1
            self.problem = reason

    def status(self, now_mono_ns: int) -> PollStatus:
        """Return how old the values are."""
        known = [
            each
            for each in self._watched.values()
            if each.answered_mono_ns and now_mono_ns - each.answered_mono_ns <= self._lasts_ns
        ]
        late = sum(
            now_mono_ns - max(each.answered_mono_ns, each.wanted_mono_ns) > self._lasts_ns
            for each in self._watched.values()
        )
        return PollStatus(
            market=self.market.name,
            fields=list(self.poll.fields),
            every_s=self.poll.every_s,
            lasts_s=self.poll.lasts_s,
            symbols=len(self._watched),
            known=len(known),
            late=late,
            oldest_ns=min((each.recv_ns for each in known), default=0),
            newest_ns=max((each.recv_ns for each in known), default=0),
            problem=self.problem if self._watched else "",
        )
