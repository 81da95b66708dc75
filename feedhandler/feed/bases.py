"""What books begin with: bases for lines that have none, in time, and within the exchange's limits.

    line without a book ──another line's is known, ids are of one count──▶ begins as that one is
           │
           ├──base over REST──▶ bridged by changes that were kept ──▶ begins
           │        └──it lags behind them──▶ requested again, with growing pauses
           └──no REST for it──▶ subscribed to anew, with growing pauses

What is published is looked after as well: another base is requested before the best levels could leave what is
known, another line takes over from one that has fallen behind, and it is repeated as a snapshot every ten minutes.
Pure: times and answers come in, requests and records go out.
"""

import random
from collections.abc import Callable, Container, Iterable, Sequence
from typing import Final

import msgspec

from feedhandler.data import wire
from feedhandler.data.rest import RestRequest
from feedhandler.data.status import Phase
from feedhandler.data.units import NS_PER_S
from feedhandler.exchanges.arbitration import LINES_MAX
from feedhandler.exchanges.base import Emit, Market
from feedhandler.exchanges.books import CROSSED_NS, Base
from feedhandler.exchanges.full_book import NOBODY, FullBookState
from feedhandler.exchanges.state import State
from feedhandler.feed.session import Session

LOOK_NS: Final = NS_PER_S  # how often each book is looked at; those without a line that leads, at each call
REPEAT_NS: Final = 600 * NS_PER_S  # a snapshot of each book
REPEATS_MAX: Final = 16  # snapshots at one call: 1 MB
REQUESTED_NS: Final = 10 * NS_PER_S  # between two snapshots of one book that somebody requests
BEHIND_NS: Final = NS_PER_S  # a line that stands still for so long, while another goes on, has failed
LACKS_NS: Final = 2 * NS_PER_S  # for so long a line waits to begin as another is
REPLAYED_NS: Final = NS_PER_S  # and, in a replay, for its first changes
AGAIN_NS: Final = NS_PER_S // 2  # after a base that was of no use; doubling,
AGAIN_SHIFT_MAX: Final = 6  # up to 32 s
SUBSCRIBE_AGAIN_NS: Final = 10 * NS_PER_S  # after a subscription that brought no base; doubling
RENEW_NS: Final = 10 * NS_PER_S  # between two bases of a book that is known
REQUESTS_MAX: Final = 4  # under way at a time

Connections = dict[Session, int]  # and when each was opened


class BookWatch(msgspec.Struct, eq=False):
    """One symbol's book, and what is done about it. Times are of the monotonic clock."""

    state: FullBookState
    is_asking: bool = False
    asks_at: int = 0
    tries: int = 0
    snapshots: int = 0  # of the state, when it was last looked at
    repeats_at: int = 0
    repeated_at: int = 0
    begun_at: int = 0  # with a base over REST
    lacks_at: int = 0  # since when a line has no book; 0 = each has
    behind_at: int = 0  # since when the line that leads stands still behind another; 0 = it does not
    behind_id: int = 0  # where
    crossed_at: dict[int, int] = {}  # by line
    subscribes_at: dict[int, int] = {}
    subscribed_at: dict[int, int] = {}
    subscriptions: dict[int, int] = {}  # by line: how many have brought no base


class BaseQuestion(msgspec.Struct, eq=False):
    """A request for a base; its answer goes to `bases.on_answer`."""

    request: RestRequest
    watched: BookWatch
    connections: Connections  # that had subscribed to it by then
    bases: "Bases"


class Bases:
    """The books of some symbols that the same connections carry; emit gets those that have something to publish.

    sessions returns the connections that carry them now.
    """

    def __init__(
        self, market: Market, emit: Emit, rng: random.Random, sessions: Callable[[], Sequence[Session]]
    ) -> None:
        self.market = market
        self._emit = emit
        self._rng = rng
        self._sessions = sessions
        self._watched: dict[str, BookWatch] = {}  # by topic
        self._order: list[BookWatch] = []
        self._next = 0
        self._now = 0
        self._asking = 0

    def add(self, states: Iterable[State]) -> None:
        """Watch these too."""
        for state in states:
            if isinstance(state, FullBookState):
                self._watched[state.topic] = BookWatch(state)
        self._order = list(self._watched.values())

    def remove(self, states: Iterable[State]) -> None:
        """Watch these no more."""
        for state in states:
            self._watched.pop(state.topic, None)
        self._order = list(self._watched.values())
        self._next = 0

    @property
    def valid(self) -> int:
        """How many books are valid."""
        return sum(watched.state.leader != NOBODY for watched in self._order)

    @property
    def waiting(self) -> int:
        """How many wait for a base."""
        return len(self._order) - self.valid

    def is_ready(self, line: int, other: int) -> bool:
        """True if a line knows all books that another does."""
        return all(
            watched.state.lines[line].is_known or not watched.state.lines[other].is_known
            for watched in self._order
        )

    def is_joining(self, line: int) -> bool:
        """True if a line has a book on which nothing has come since it began: another may have what it lacks."""
        return any(watched.state.is_joining(line) for watched in self._order)

    def on_line_leaving(self, line: int) -> None:
        """A connection is going: those that have begun as it was are where it is now."""
        for watched in self._order:
            watched.state.hand_on(line, self._emit)

    def on_line_gone(self) -> None:
        """A connection is gone: others take over what it led."""
        for watched in self._order:
            watched.state.settle(self._emit)

    def repeat_all(self) -> None:
        """Publish all books again, a few at a time: whoever gets them has none."""
        for watched in self._order:
            watched.repeats_at = min(watched.repeats_at, self._now)
            watched.snapshots = watched.state.snapshots

    def repeat(self, natives: Container[str]) -> None:
        """Publish some books again, a few at a time, and none more often than every ten seconds."""
        for watched in self._order:
            if self.market.prefix + watched.state.native in natives:
                due = max(self._now, watched.repeated_at + REQUESTED_NS)
                watched.repeats_at = min(watched.repeats_at, due)

    # --- time

    def advance(self, now_mono_ns: int) -> list[BaseQuestion]:
        """Look at some books; call a few times a second."""
        if not self._order:
            return []
        step_ns = min(max(0, now_mono_ns - self._now), LOOK_NS)
        self._now = now_mono_ns
        running = [session for session in self._sessions() if session.phase is Phase.RUNNING]
        for watched in self._due(step_ns):
            self._look(watched, running)
        self._repeat()
        return self._questions(running) if self.market.base_levels else self._subscribe(running)

    def _due(self, step_ns: int) -> list[BookWatch]:
        """Return the next in turn, so that everybody's comes once in `LOOK_NS`."""
        count = min(len(self._order), -(-len(self._order) * step_ns // LOOK_NS))
        due = self._order[self._next : self._next + count]
        due += self._order[: count - len(due)]
        self._next = (self._next + count) % len(self._order)
        return due

    def _look(self, watched: BookWatch, running: Sequence[Session]) -> None:
        """See what no message tells: a book that stays crossed, a line that has fallen silent."""
        state, now = watched.state, self._now
        lines = [session.line.index for session in running]
        for line in lines:
            if not state.lines[line].is_crossed:
                watched.crossed_at.pop(line, None)
            elif now - watched.crossed_at.setdefault(line, now) >= CROSSED_NS:
                del watched.crossed_at[line]
                state.lose(line, self._emit)
        foremost = state.foremost(lines)
        if foremost != NOBODY:
            state.hand_on(foremost, self._emit)
        behind_id = state.behind_id(lines)
        if not behind_id or behind_id != watched.behind_id:
            watched.behind_at, watched.behind_id = now, behind_id
        elif now - watched.behind_at >= BEHIND_NS:
            state.hand_over(lines, self._emit)
            watched.behind_id = 0

    def _repeat(self) -> None:
        left = REPEATS_MAX
        for watched in self._order:
            state = watched.state
            if watched.snapshots != state.snapshots:  # there was one just now
                watched.snapshots, watched.repeated_at = state.snapshots, self._now
                watched.repeats_at = self._now + int(self._rng.uniform(0.8, 1.0) * REPEAT_NS)
            elif left and state.leader != NOBODY and self._now >= watched.repeats_at:
                state.repeat(self._emit)
                left -= 1

    # --- bases over REST

    def _questions(self, running: Sequence[Session]) -> list[BaseQuestion]:
        questions: list[BaseQuestion] = []
        for watched in self._order:
            state = watched.state
            lacking = self._lacking(state, running)
            if lacking:
                self._adopt(watched, lacking)
                lacking = [session for session in lacking if not state.lines[session.line.index].is_known]
            is_led = state.leader != NOBODY
            watched.lacks_at = (watched.lacks_at or self._now) if lacking else 0
            has_lasted = is_led and self._now - watched.begun_at >= RENEW_NS
            if has_lasted:
                watched.tries = 0
            is_short = has_lasted and state.runs_out
            is_lacking = bool(lacking) and self._has_waited(watched, lacking)
            if watched.is_asking or self._now < watched.asks_at or not (is_short or is_lacking):
                continue
            if self._asking < REQUESTS_MAX:
                self._asking += 1
                watched.is_asking = True
                connections = {s: s.opened_mono_ns for s in running if s.subscriptions.brings(state)}
                request = self.market.base_request(state.native)
                questions.append(BaseQuestion(request, watched, connections, self))
        return questions

    def _has_waited(self, watched: BookWatch, lacking: Sequence[Session]) -> bool:
        waited_ns, state = self._now - watched.lacks_at, watched.state
        if state.leader != NOBODY:
            return waited_ns >= LACKS_NS
        has_changes = any(state.channels[0].heard_ns(session.line.index) for session in lacking)
        # A base is of no use that lags behind a line's first changes. Without any nothing tells that it does; but
        # that of a replay is as what is replayed, all of which may have come before such a time has passed.
        lag_ns = REPLAYED_NS if state.base_flags & wire.REPLAY else int(self.market.base_lag_s * NS_PER_S)
        return has_changes or waited_ns >= lag_ns

    def _lacking(self, state: FullBookState, running: Sequence[Session]) -> list[Session]:
        """Return the connections that have subscribed to a book, and do not know it."""
        return [
            session
            for session in running
            if not state.lines[session.line.index].is_known and session.subscriptions.brings(state)
        ]

    def _adopt(self, watched: BookWatch, lacking: Sequence[Session]) -> None:
        # Not that of the line that leads: it may stand still, and who is ahead be gone before it takes over.
        state = watched.state
        foremost = state.foremost(range(LINES_MAX))
        for session in lacking if foremost != NOBODY else ():
            state.adopt(session.line.index, foremost, self._emit)

    def on_answer(self, question: BaseQuestion, base: Base, recv_ns: int) -> None:
        """Take the answer."""
        watched = question.watched
        if not self._close(question):
            return
        state = watched.state
        # One that was retired runs until it is closed, and nothing brings its book up to date.
        present = self._sessions()
        lines = [
            session.line.index
            for session, opened in question.connections.items()
            if session in present and session.phase is Phase.RUNNING and session.opened_mono_ns == opened
        ]
        if state.offer(lines, base, recv_ns, self._emit):
            watched.begun_at = self._now
        self._pause(watched)  # also after one that was good: it may not last

    def on_refused(self, question: BaseQuestion, wait_s: float = 0.0) -> None:
        """No answer is to be had; wait_s is for how long none is, if that is known."""
        if not self._close(question):
            return
        self._pause(question.watched)
        question.watched.asks_at = max(question.watched.asks_at, self._now + int(wait_s * NS_PER_S))

    def _close(self, question: BaseQuestion) -> bool:
        """Note that a question has an answer; False if nobody wants it any more."""
        watched = question.watched
        self._asking -= watched.is_asking
        watched.is_asking = False
        return self._watched.get(watched.state.topic) is watched

    def _pause(self, watched: BookWatch) -> None:
        watched.asks_at = self._now + (AGAIN_NS << min(watched.tries, AGAIN_SHIFT_MAX))
        watched.tries += 1

    # --- bases that are the first message of a subscription

    def _subscribe(self, running: Sequence[Session]) -> list[BaseQuestion]:
        for session in running:
            line = session.line.index
            lost = [watched for watched in self._order if self._wants_subscription(watched, session)]
            for watched in lost:
                count = watched.subscriptions.get(line, 0)
                watched.subscriptions[line] = count + 1
                watched.subscribed_at[line] = self._now
                pause_ns = SUBSCRIBE_AGAIN_NS << min(count, AGAIN_SHIFT_MAX)
                watched.subscribes_at[line] = self._now + pause_ns
            if lost:
                natives = [watched.state.native for watched in lost]
                topics = [t for native in natives for t in self.market.topics(native, lost[0].state.kind)]
                session.subscriptions.renew(topics)
        return []

    def _wants_subscription(self, watched: BookWatch, session: Session) -> bool:
        line, state = session.line.index, watched.state
        if state.lines[line].is_known:
            if line in watched.subscriptions:
                lasts_at = watched.subscribed_at[line] + SUBSCRIBE_AGAIN_NS
                if self._now >= lasts_at:  # however often it took, that is over
                    del watched.subscriptions[line]
                    watched.subscribes_at[line] = lasts_at
            return False
        if not session.subscriptions.brings(state):
            watched.subscribes_at.pop(line, None)  # a new connection
            return False
        if line not in watched.subscribes_at and not state.channels[0].heard_ns(line):
            watched.subscribes_at[line] = self._now + SUBSCRIBE_AGAIN_NS  # its base is on its way
        return self._now >= watched.subscribes_at.get(line, 0)
