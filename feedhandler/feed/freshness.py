"""Whether each channel of each symbol and kind still has updates, and what to do about one that has none.

    waiting ──first data──▶ live ──silent for longer than usual──▶ suspected ──no witness for it──▶ stale
                              ▲────────── an update, or REST states the same values ◀─────┘           │
                              ▲──────────────────────────── an update ◀───────────────────────────────┘

A quiet market and a dead channel look alike on their own. They are told apart by how long the channel was silent at
most of late; by its repetitions, where the exchange promises some; by another channel of the symbol that states
something new of this one's fields; by the other legs; and, last, by REST, from which one quote is requested, or
the values of all symbols at once. What is stale is flagged in the records, and subscribed to anew with growing
patience; then the connections are renewed.

Of kinds other than tickers there is no such witness, so silence alone tells nothing: a quiet market has no trades,
a dead channel neither. A broken promise of repetition tells, another leg, messages that cannot be decoded, and a
refusal: what a channel that is refused has stated, or REST in its place, is stale at once.

Silence is counted on a clock that stands still while no connection delivers, or this process is stopped. Pure:
times come in, flagged states and requests for REST go out. It knows no exchange.
"""

import collections
import enum
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from msgspec.structs import astuple

from feedhandler.data import wire
from feedhandler.data.status import Phase
from feedhandler.data.units import NS_PER_S
from feedhandler.exchanges.arbitration import Arbitration
from feedhandler.exchanges.base import Channel, Emit, Market, Quote, RestTicker, is_same
from feedhandler.exchanges.state import LAST, QUOTE, STATISTICS, State, TickerState
from feedhandler.feed.session import Session
from feedhandler.feed.signs import FADES_NS, GAPS_MIN, USUAL_FACTOR
from feedhandler.feed.witness import REST_AGE_NS_MAX, STREAM_DELAY_NS_MAX, CanaryWitness

LOOK_NS: Final = NS_PER_S  # how often each channel is looked at; suspects at each call
STEP_NS_MAX: Final = (
    NS_PER_S  # of the clock between two calls: one that was stopped for longer has received nothing
)
# A suspect has been silent `USUAL_FACTOR` times longer than it usually is, and so long.
SILENCE_NS_MIN: Final = 10 * NS_PER_S
PATIENCE_NS_MAX: Final = 300 * NS_PER_S  # for which REST confirms a silence at most, before the next request
REPEATS_MIN: Final = 3  # seen on any symbol's channel of this kind, before the promise is believed
REPEATS_FACTOR: Final = 3  # promised repetitions missed in a row
CONTRADICTIONS_MIN: Final = 3  # looks at which another channel stated something new
CONTRADICTED_NS_MIN: Final = 5 * NS_PER_S
FIRST_DATA_NS: Final = 15 * NS_PER_S  # after which a channel without any data can be contradicted
STUCK_NS: Final = 30 * NS_PER_S  # updates that all state the same time for so long are repeated, not new
STUCK_UPDATES_MIN: Final = 3
CHECKS_TIME_NS: Final = 5 * NS_PER_S
VERDICT_NS: Final = 5 * NS_PER_S  # within which a new subscription, or REST, can clear a suspect
ASK_AGAIN_NS: Final = 2 * NS_PER_S  # REST that disagrees may be a moment ahead: it is requested twice
ASKED_MAX: Final = 4  # requests for one quote that are under way, of one group; for more, a survey of all,
QUESTIONS_MAX: Final = 20  # and if there were so many
# in this time: a market that stands still makes suspects of all, one by one
QUESTIONS_NS: Final = 60 * NS_PER_S
# When a survey is made for channels whose usual silence is not known yet, and the wait for the next, which doubles.
FIRST_SURVEY_NS: Final = REST_AGE_NS_MAX + 2 * LOOK_NS  # since the acknowledgement, as the looks see it
SURVEYS_NS: Final = (10 * NS_PER_S, 600 * NS_PER_S)
# REST states the same for so long, after channel and connection were made anew: an update was missed, no more.
CONCEDES_NS: Final = 60 * NS_PER_S
RENEW_AFTER_NS: Final = 10 * NS_PER_S  # stale for so long: new connections
RENEW_AGAIN_NS: Final = (300 * NS_PER_S, 3600 * NS_PER_S)  # and again, the wait doubling
SUBSCRIBE_AGAIN_NS: Final = (30 * NS_PER_S, 600 * NS_PER_S)
LAG_NS: Final = 10 * NS_PER_S  # one leg has had nothing of a channel for so long that another has
LAG_UPDATES_MIN: Final = 3
LAG_AGAIN_NS: Final = 30 * NS_PER_S

# The decision about a channel that usually has an update every second or more falls within this time of its last.
DECIDES_NS: Final = SILENCE_NS_MIN + LOOK_NS + VERDICT_NS + NS_PER_S
NEVER: Final = 1 << 62


class Stage(enum.Enum):
    WAITING = "waiting"  # for its first data since the connection began
    LIVE = "live"
    SUSPECTED = "suspected"
    STALE = "stale"


class Pulse(msgspec.Struct, eq=False):
    """One channel of one symbol, in one kind. Times are of the clock that the module's first lines describe.

    ticker is the state, if it is one: then slower channels and REST are witnesses.
    """

    state: State
    ticker: TickerState | None
    arbitration: Arbitration  # of the channel
    channel: int
    topic: str
    at: int  # of its last update, to a second
    updates: int = 0  # how many there had been, then
    update_id: int = -1  # of the last one
    stage: Stage = Stage.WAITING
    since: int = 0  # of the stage
    reason: str = ""  # of the suspicion
    # Of one that is waiting:
    granted_at: int = NEVER  # when it was acknowledged on the oldest connection,
    first: tuple[float, ...] = ()  # what REST stated first when any change would have come here,
    differs_at: int = 0  # when it stated something else; 0 = it has not,
    differs_mono_ns: int = 0  # in monotonic time the same,
    is_doubted: bool = False  # and it did so again
    usual_ns: int = 0  # the longest of its latest silences,
    gaps: int = 0  # and how many there were
    patience_ns: int = 0  # what REST has confirmed, until its next update
    # what slower ones stated of its fields at the last look since it fell silent
    values: tuple[float, ...] = ()
    contradictions: int = 0  # how often that has changed since its last update
    is_asking: bool = False  # for its quote over REST,
    is_surveyed: bool = False  # or about all symbols,
    asks_at: int = 0  # or is to at this time; 0 = no
    disagreements: int = 0
    is_proven: bool = False  # stale, and not for its silence alone
    is_refuted: bool = False  # by REST
    stated: tuple[float, ...] = ()  # what REST last stated against it,
    stated_at: int = 0  # and since when
    is_conceded: bool = False  # REST's value is to be taken over for it,
    was_conceded: bool = False  # or was, since its last update: not again
    is_failing: bool = False  # it is refused, or its messages come, and cannot be decoded
    tries: int = 0  # new subscriptions since it was found stale,
    subscribes_at: int = 0  # the next one, after that,
    renewed_at: int = -NEVER  # and when the last one was
    checks_at: int = NEVER  # when to look at the time that it states; far away where it states none
    timed_at: int = 0  # when that was last seen to go on,
    timed_id: int = -1  # what it was,
    timed_gaps: int = 0  # and how many silences there were until then
    is_stuck: bool = False
    lag_line: int = -1  # the line that has no updates of it,
    lag_updates: int = 0  # how many others have had since,
    lagged_at: int = 0  # and when something was done about it; 0 = never

    @property
    def name(self) -> Channel:
        """What it has in common with the same channel of other symbols."""
        return self.state.kind, self.channel

    @property
    def is_quote(self) -> bool:
        return self.ticker is not None and self.channel == QUOTE


class Question(msgspec.Struct, eq=False):
    """A request for the quote of a symbol over REST; its answer goes to `watch.on_quote`."""

    native: str
    watch: "Freshness | CanaryWitness"


class Freshness:
    """The channels of some symbols that the same connections carry; emit gets states whose flags have changed."""

    def __init__(self, market: Market, emit: Emit) -> None:
        self.market = market
        self._emit = emit
        self._pulses: dict[str, list[Pulse]] = {}  # by the topic of the state,
        self._tickers: dict[str, list[Pulse]] = {}  # and those of tickers by native symbol
        self._order: list[Pulse] = []  # in which they are looked at
        self._next = 0
        self._open: dict[Pulse, None] = {}  # suspected and stale
        self._clock = 0
        self._last_mono_ns = 0
        self._asking = 0
        self._asked: collections.deque[int] = collections.deque(maxlen=QUESTIONS_MAX)  # when the latest were
        # Of the connections, when it was opened, and whether it has had data.
        self._oldest: tuple[Session | None, int, bool] = (None, 0, False)
        self._plan_surveys()
        self._survey_sent_at = 0
        self.wants_survey = False  # a survey of all symbols is to be made, until it is sent
        self._repeats: collections.Counter[Channel] = collections.Counter()  # updates that repeated the last
        self._renewed_at = 0
        self._renew_again_ns = 0
        self.renewal = ""  # why the connections should be renewed; the owner clears it
        self.laggards: dict[Session, str] = {}  # single ones that should be, and why; likewise
        # Those without any data, and a topic of which REST has news that should have come there; likewise.
        self.contradicted: dict[Session, str] = {}

    def add(self, states: Iterable[State]) -> None:
        """Watch these too."""
        for state in states:
            ticker = state if isinstance(state, TickerState) else None
            topics = enumerate(self.market.topics(state.native, state.kind))
            pulses = [
                Pulse(state, ticker, state.channels[channel], channel, topic, self._clock)
                for channel, topic in topics
            ]
            for pulse in pulses:
                if pulse.name in self.market.clocked:
                    pulse.checks_at = self._clock
            self._pulses[state.topic] = pulses
            if ticker is not None:
                self._tickers[state.native] = pulses
        self._reorder()
        self._plan_surveys()

    def remove(self, states: Iterable[State]) -> None:
        """Watch these no more; their flags are somebody else's business from now on."""
        for state in states:
            for pulse in self._pulses.pop(state.topic):
                self._enter(pulse, Stage.WAITING)
            if isinstance(state, TickerState):
                del self._tickers[state.native]
        self._reorder()

    def _reorder(self) -> None:
        self._order = [pulse for pulses in self._pulses.values() for pulse in pulses]
        self._next = 0

    def _plan_surveys(self) -> None:
        self._survey_wait_ns = SURVEYS_NS[0] // 2
        self._surveys_at = self._clock + FIRST_SURVEY_NS
        self._survey_again_at = NEVER  # when to ask again about what REST has contradicted once

    def reset(self) -> None:
        """All values are unknown again: a first connection has begun. What is usual is remembered."""
        for pulse in self._order:
            pulse.state.base_flags &= ~wire.STALE
            self._enter(pulse, Stage.WAITING)
            pulse.updates, pulse.at, pulse.is_stuck, pulse.disagreements = 0, self._clock, False, 0
            pulse.is_failing = False
            pulse.values, pulse.contradictions = (), 0
            pulse.stated, pulse.is_conceded, pulse.was_conceded = (), False, False
        self._plan_surveys()

    def stale(self) -> dict[str, str]:
        """Return the stale channels, and why they are taken to be."""
        return {
            pulse.topic: pulse.reason
            if pulse.is_failing
            else f"{pulse.reason}; silent for {(self._clock - pulse.at) / NS_PER_S:.0f} s"
            for pulse in self._open
            if pulse.stage is Stage.STALE
        }

    # --- time

    def advance(self, now_mono_ns: int, sessions: Sequence[Session]) -> list[Question]:
        """Look at some channels; call a few times a second. sessions are the connections that carry them."""
        step_ns = min(max(0, now_mono_ns - self._last_mono_ns), STEP_NS_MAX)
        self._last_mono_ns = now_mono_ns
        live = [s for s in sessions if s.phase is Phase.RUNNING and _may_deliver(s)]
        if not live:
            return []
        self._clock += step_ns
        self._note_oldest(live)
        renewed: list[Pulse] = []
        for pulse in list(self._open):
            self._look(pulse, live, renewed)
        for pulse in self._unusual(self._due(step_ns), is_alone=len(live) == 1):
            self._look(pulse, live, renewed)
        for session in live if renewed else ():
            session.subscriptions.renew([pulse.topic for pulse in renewed])
        return self._questions()

    def _note_oldest(self, live: Sequence[Session]) -> None:
        """See on which connection a channel without data would have had some: the one that has lived longest."""
        session = min(live, key=lambda session: session.opened_mono_ns)
        before, oldest = self._oldest, (session, session.opened_mono_ns, session.has_data)
        if before != oldest:
            self._oldest = oldest
            # What was missed until its first data says nothing of what comes from now on.
            for pulse in self._order:
                pulse.granted_at = NEVER
                _forget_witness(pulse)
            if before[:2] == oldest[:2]:
                self._plan_surveys()

    def _due(self, step_ns: int) -> list[Pulse]:
        """Return the next in turn, so that everybody's comes once in `LOOK_NS`."""
        count = min(len(self._order), -(-len(self._order) * step_ns // LOOK_NS))
        due = self._order[self._next : self._next + count]
        due += self._order[: count - len(due)]
        self._next = (self._next + count) % max(1, len(self._order))
        return due

    def _unusual(self, pulses: Iterable[Pulse], *, is_alone: bool) -> list[Pulse]:
        """Return those that need a longer look: not the many with an update every second, as before."""
        # Thousands a second: at 7 us each, those of 5,000 symbols would hold up a feed for milliseconds.
        clock, live, waiting = self._clock, Stage.LIVE, Stage.WAITING
        unusual = []
        for pulse in pulses:
            stage = pulse.stage
            is_usual = is_alone and clock - pulse.at < 2 * LOOK_NS and not pulse.values
            if stage is live and is_usual and clock < pulse.checks_at:
                updates = pulse.arbitration.updates
                if updates != pulse.updates:
                    pulse.usual_ns -= pulse.usual_ns * (clock - pulse.at) // FADES_NS
                    pulse.updates, pulse.at = updates, clock
                    pulse.gaps += 1
            elif stage is live or stage is waiting:
                unusual.append(pulse)
        return unusual

    def _look(self, pulse: Pulse, live: Sequence[Session], renewed: list[Pulse]) -> None:
        if self._clock >= pulse.checks_at:
            self._check_time(pulse)
        updates = pulse.arbitration.updates
        if updates != pulse.updates and not pulse.is_stuck:
            self._on_update(pulse, updates)
            if len(live) > 1:
                self._find_laggards(pulse, live)
            return
        oldest = self._oldest[0]
        if pulse.granted_at == NEVER and oldest is not None and oldest.subscriptions.is_granted(pulse.topic):
            pulse.granted_at = self._clock
        if pulse.is_doubted:
            self._condemn_unheard(pulse)
        self._compare(pulse)
        failure = _refusal(pulse, live)
        if not failure and self._clock - pulse.at >= SILENCE_NS_MIN:
            failure = _undecoded(pulse, live)
        if failure:
            # No silence: a new subscription, here or elsewhere, would bring the same.
            if not pulse.is_failing or pulse.stage is not Stage.STALE:
                self._mark_stale(pulse, failure, is_proven=True)
                pulse.is_failing = True
            return
        pulse.is_failing = False
        if pulse.stage is Stage.SUSPECTED:
            self._decide(pulse)
        elif pulse.stage is Stage.STALE:
            self._escalate(pulse, renewed)
        elif reason := self._suspicion(pulse):
            self._enter(pulse, Stage.SUSPECTED)
            pulse.reason = reason
            # REST can tell a quiet market from a dead channel; no request is needed where that is clear.
            pulse.asks_at = 0 if self._is_clear(pulse) else self._clock
            if self._is_clear(pulse):  # else a quiet market's next update could fall in between
                pulse.renewed_at = self._clock
                renewed.append(pulse)

    def _check_time(self, pulse: Pulse) -> None:
        """See whether the time that a channel states goes on with its updates."""
        pulse.checks_at = self._clock + CHECKS_TIME_NS
        update_id = pulse.arbitration.update_id
        if update_id != pulse.timed_id or not pulse.updates:
            pulse.timed_id, pulse.timed_at, pulse.timed_gaps = update_id, self._clock, pulse.gaps
            pulse.is_stuck = False
        elif (
            pulse.stage is Stage.LIVE
            and self._clock - pulse.timed_at >= STUCK_NS
            and pulse.gaps - pulse.timed_gaps >= STUCK_UPDATES_MIN
        ):
            pulse.is_stuck = True
            self._mark_stale(
                pulse, is_proven=True, reason=f"it has stated the same time for {STUCK_NS / NS_PER_S:g} s"
            )

    def _on_update(self, pulse: Pulse, updates: int) -> None:
        """There was an update since the last look."""
        gap_ns = self._clock - pulse.at
        update_id = pulse.arbitration.update_id
        # Where the id is the time of sending, no update has that of the one before.
        self._repeats[pulse.name] += update_id == pulse.update_id or pulse.name in self.market.clocked
        pulse.update_id = update_id
        if self._was_usual(pulse):
            pulse.usual_ns = max(gap_ns, pulse.usual_ns - pulse.usual_ns * gap_ns // FADES_NS)
            pulse.gaps += 1
        was_stale = pulse.stage is Stage.STALE
        if pulse.stage is not Stage.LIVE:
            self._enter(pulse, Stage.LIVE)
        pulse.updates, pulse.at, pulse.is_failing = updates, self._clock, False
        pulse.contradictions = pulse.patience_ns = pulse.disagreements = 0
        pulse.values = ()
        pulse.stated, pulse.is_conceded, pulse.was_conceded = (), False, False
        if was_stale:
            self._unflag(pulse.state)

    def _was_usual(self, pulse: Pulse) -> bool:
        """True if the silence that an update ends was a quiet market's, from which there is something to learn."""
        if pulse.stage is Stage.SUSPECTED:
            return not self._is_clear(pulse)  # the update came by itself
        if (
            pulse.stage is Stage.STALE
        ):  # for its silence alone, and not since it was subscribed to anew just now
            renewed_at = max(pulse.renewed_at, self._renewed_at)
            return not pulse.is_proven and self._clock - renewed_at >= VERDICT_NS
        return pulse.stage is Stage.LIVE

    def _compare(self, pulse: Pulse) -> None:
        """While it is silent, slower channels state what it owns: if that changes, it should have had it first."""
        if self._clock - pulse.at < LOOK_NS and pulse.updates:
            return
        if pulse.ticker is None:
            return
        values = pulse.ticker.stated(pulse.channel)
        is_known = any(value == value for value in values)
        if is_known and not (pulse.values and is_same(values, pulse.values)):
            # A slower channel that comes round to what this one has sent is late, and contradicts nobody.
            is_new = not pulse.updates or not is_same(values, _values(pulse.ticker, pulse.channel))
            pulse.contradictions += bool(pulse.values) and is_new
            pulse.values = values

    def _enter(self, pulse: Pulse, stage: Stage) -> None:
        pulse.stage, pulse.since, pulse.asks_at = stage, self._clock, 0
        pulse.is_surveyed = False
        _forget_witness(pulse)
        if stage in (Stage.SUSPECTED, Stage.STALE):
            self._open[pulse] = None
        else:
            self._open.pop(pulse, None)

    # --- suspicion

    def _suspicion(self, pulse: Pulse) -> str:
        """Return why a silent channel may be dead, "" if its silence is nothing unusual."""
        silence_ns = self._clock - pulse.at
        if pulse.contradictions >= CONTRADICTIONS_MIN and silence_ns >= (
            CONTRADICTED_NS_MIN if pulse.updates else FIRST_DATA_NS
        ):
            return "another channel had news that it had not"
        if not pulse.updates:
            return ""
        repeats_ns = self._repeats_ns(pulse)
        if repeats_ns and silence_ns >= max(SILENCE_NS_MIN, REPEATS_FACTOR * repeats_ns):
            return f"it repeats itself every {repeats_ns / NS_PER_S:g} s, and did not"
        if repeats_ns or pulse.gaps < GAPS_MIN or pulse.ticker is None:
            return ""
        limit_ns = max(SILENCE_NS_MIN, USUAL_FACTOR * pulse.usual_ns, pulse.patience_ns)
        usual_s = max(1.0, pulse.usual_ns / NS_PER_S)
        return f"it was never silent for more than {usual_s:.0f} s of late" if silence_ns >= limit_ns else ""

    def _repeats_ns(self, pulse: Pulse) -> int:
        """Return the promised time between repetitions, 0 if there is none, or it was never seen to be kept."""
        is_kept = self._repeats[pulse.name] >= REPEATS_MIN
        return int(self.market.repeats_s.get(pulse.name, 0.0) * NS_PER_S) if is_kept else 0

    def _is_clear(self, pulse: Pulse) -> bool:
        """True if no quiet market can be as silent as this channel."""
        return pulse.contradictions >= CONTRADICTIONS_MIN or self._repeats_ns(pulse) > 0

    # --- REST

    def _questions(self) -> list[Question]:
        """Return whose quotes to request over REST now: a few. For more, and other channels, want a survey."""
        if self._clock >= self._survey_again_at:
            self._survey_again_at, self.wants_survey = NEVER, True
        if self._clock >= self._surveys_at:
            self._survey_wait_ns = min(2 * self._survey_wait_ns, SURVEYS_NS[1])
            self._surveys_at = self._clock + self._survey_wait_ns
            self.wants_survey = self.wants_survey or any(self._is_unknown(pulse) for pulse in self._order)
        due = [
            pulse
            for pulse in self._open
            if pulse.asks_at and self._clock >= pulse.asks_at and pulse.ticker is not None
        ]
        singles = [pulse for pulse in due if pulse.is_quote and pulse.stage is Stage.SUSPECTED]
        latest = [at for at in self._asked if self._clock - at < QUESTIONS_NS]
        if len(singles) > min(ASKED_MAX - self._asking, QUESTIONS_MAX - len(latest)):
            singles = []
        questions = []
        for pulse in due:
            pulse.asks_at = 0
            if pulse in singles:
                pulse.is_asking = True
                self._asking += 1
                self._asked.append(self._clock)
                questions.append(Question(pulse.state.native, self))
            else:
                pulse.is_surveyed = self.wants_survey = True
        return questions

    def _is_unknown(self, pulse: Pulse) -> bool:
        """True if only REST can tell whether a channel's silence means something: its updates were too few."""
        is_due = self._clock - pulse.at >= FIRST_DATA_NS
        if pulse.ticker is None:
            return False
        if pulse.stage is Stage.WAITING:
            return is_due or self._clock - pulse.granted_at >= REST_AGE_NS_MAX
        return is_due and pulse.stage is Stage.LIVE and pulse.gaps < GAPS_MIN

    def on_quote(self, native: str, quote: Quote | None) -> None:
        """Take the answer to a request; None: there is none to be had."""
        self._asking -= 1
        for pulse in self._tickers.get(native, ()):
            if pulse.is_asking:
                pulse.is_asking = False
                if pulse.stage is Stage.SUSPECTED and quote is not None:
                    self._on_witness(pulse, RestTicker(native, quote))

    def on_survey_sent(self) -> None:
        """The requests for a survey are on their way."""
        self.wants_survey, self._survey_sent_at = False, self._clock

    def on_survey(self, rows: Iterable[RestTicker]) -> None:
        """Take what REST states of all symbols; others' are among them.

        It confirms all that are silent: one that is no suspect yet needs no request a moment later.
        """
        for row in rows:
            for pulse in self._tickers.get(row.native, ()):
                if pulse.stage is Stage.WAITING:
                    self._on_witness_of_unheard(pulse, row)
                elif pulse.is_surveyed or self._is_unknown(pulse):
                    self._on_witness(pulse, row)
                elif self._is_resting(pulse) and _is_confirmed(pulse, row):
                    self._be_patient(pulse)

    def on_survey_end(self) -> None:
        """There are no more rows, or none were to be had."""
        for pulse in self._open:
            pulse.is_surveyed = False

    def conceded(self, native: str) -> list[int]:
        """Return the channels for which REST's present value is to be taken over; then `on_seed` is called."""
        return [pulse.channel for pulse in self._tickers[native] if pulse.is_conceded]

    def on_seed(self, native: str, channels: Sequence[int]) -> None:
        """The values of some channels were lost, or conceded, and are REST's now: its contradictions are settled.

        They may be dead all the same, and are found anew. The caller emits the state.
        """
        pulses = self._tickers[native]
        for pulse in pulses:
            if pulse.is_conceded:
                pulse.is_conceded, pulse.was_conceded = False, True
            if pulse.channel in channels and pulse.stage in (Stage.SUSPECTED, Stage.STALE):
                self._enter(pulse, Stage.LIVE if pulse.updates else Stage.WAITING)
                pulse.contradictions = pulse.disagreements = 0
                pulse.values = ()
        if not any(pulse.stage is Stage.STALE for pulse in pulses):
            pulses[0].state.base_flags &= ~wire.STALE

    def _on_witness(self, pulse: Pulse, row: RestTicker) -> None:
        found = _is_confirmed(pulse, row)
        if found is None:
            return
        pulse.is_surveyed = False
        is_filled = pulse.stage is Stage.STALE and pulse.is_refuted and not pulse.updates
        if found and not is_filled:  # else it is REST's own value
            self._confirm(pulse)
            return
        pulse.disagreements += 1
        if pulse.stage is Stage.STALE:
            pulse.is_proven = pulse.is_refuted = True
            self._consider(pulse, row)
        elif pulse.disagreements > 1:
            reason = pulse.reason if pulse.stage is Stage.SUSPECTED else "it has had no data"
            self._refute(pulse, reason)
        elif pulse.stage is Stage.SUSPECTED:
            pulse.asks_at = self._clock + ASK_AGAIN_NS
        else:
            self._survey_again_at = self._clock + ASK_AGAIN_NS

    def _refute(self, pulse: Pulse, reason: str) -> None:
        what = "another quote" if pulse.is_quote else "other values"
        self._mark_stale(pulse, f"{reason}, and REST has {what}", is_proven=True)
        pulse.is_refuted = True

    def _on_witness_of_unheard(self, pulse: Pulse, row: RestTicker) -> None:
        """Compare what REST states of a channel without data with what it stated before: our values are REST's own.

        If that has changed since the acknowledgement, and nothing comes a moment later, the channel is dead; so is
        the connection, if it has brought nothing else either.
        """
        stated = _stated(pulse.channel, row)
        if not stated or pulse.arbitration.updates:
            return
        if not pulse.first:
            if self._survey_sent_at - pulse.granted_at >= REST_AGE_NS_MAX:
                pulse.first = stated
        elif not _is_news(pulse.channel, stated, pulse.first):
            pulse.differs_at, pulse.is_doubted = 0, False
        elif not pulse.differs_at:
            pulse.differs_at, pulse.differs_mono_ns = self._clock, self._last_mono_ns
            self._survey_again_at = self._clock + STREAM_DELAY_NS_MAX
        elif self._clock - pulse.differs_at >= STREAM_DELAY_NS_MAX:
            pulse.is_doubted = True
            self._condemn_unheard(pulse)

    def _condemn_unheard(self, pulse: Pulse) -> None:
        """Flag a channel without data, if its connection has lived since REST stated something else.

        A half-open one is found as that. Then what is gone with it is requested anew.
        """
        oldest = self._oldest[0]
        if oldest is not None and oldest.has_lived_since(pulse.differs_mono_ns):
            self._refute(pulse, "it has had no data")
            if not oldest.has_data:
                self.contradicted[oldest] = pulse.topic

    def _consider(self, pulse: Pulse, row: RestTicker) -> None:
        """Take over REST's value, once, if it states the same since the channel was subscribed to anew.

        What it states of a dead channel's market changes; of a quiet one from which an update is missing it stays.
        """
        stated = _stated(pulse.channel, row)
        if not pulse.stated or _is_news(pulse.channel, stated, pulse.stated):
            pulse.stated, pulse.stated_at = stated, self._clock
            return
        since = max(pulse.stated_at, self._renewed_at)
        is_silent = pulse.arbitration.updates == pulse.updates and not pulse.is_failing
        may_rest = not pulse.was_conceded and not self._is_clear(pulse)
        pulse.is_conceded = may_rest and is_silent and self._clock - since >= CONCEDES_NS

    def _confirm(self, pulse: Pulse) -> None:
        """REST states what is known: the market is quiet."""
        if pulse.stage is Stage.LIVE:
            pulse.disagreements = 0
        if pulse.stage is Stage.SUSPECTED or (pulse.stage is Stage.STALE and not pulse.is_proven):
            self._be_patient(pulse)
            pulse.disagreements = 0
            was_stale = pulse.stage is Stage.STALE
            self._enter(pulse, Stage.LIVE if pulse.updates else Stage.WAITING)
            if was_stale:
                self._unflag(pulse.state)

    def _is_resting(self, pulse: Pulse) -> bool:
        """True if a channel is silent, and no suspect yet."""
        return pulse.stage is Stage.LIVE and self._clock - pulse.at >= SILENCE_NS_MIN

    def _be_patient(self, pulse: Pulse) -> None:
        silence_ns = self._clock - pulse.at
        pulse.patience_ns = silence_ns + min(silence_ns, PATIENCE_NS_MAX)

    # --- verdict

    def _decide(self, pulse: Pulse) -> None:
        """Flag a suspect that had no witness in its time; a survey has twice that."""
        if self._clock - pulse.since >= VERDICT_NS * (2 if pulse.is_surveyed else 1):
            is_clear = self._is_clear(pulse)
            self._mark_stale(pulse, pulse.reason, is_proven=is_clear)

    def _mark_stale(self, pulse: Pulse, reason: str, *, is_proven: bool) -> None:
        self._enter(pulse, Stage.STALE)
        pulse.reason, pulse.tries, pulse.subscribes_at = reason, 0, 0
        pulse.is_proven, pulse.is_refuted = is_proven, False
        # REST may be back, and confirm it, or give a reason to renew
        pulse.asks_at = self._clock + VERDICT_NS
        state = pulse.state
        if state.base_flags & wire.STALE:
            return
        if not state.keeps_every:  # else its next record ends it
            state.base_flags |= wire.STALE
        if state.is_known and not state.flags & (wire.STALE | wire.DOWN):
            state.flags |= wire.STALE
            self._emit(state)

    def _unflag(self, state: State) -> None:
        """Publish that a symbol is current again, if all its channels are."""
        if any(pulse.stage is Stage.STALE for pulse in self._pulses[state.topic]):
            return
        state.base_flags &= ~wire.STALE
        if state.flags & wire.STALE:
            state.flags &= ~wire.STALE
            self._emit(state)

    def _escalate(self, pulse: Pulse, renewed: list[Pulse]) -> None:
        """Subscribe anew, with growing patience; and order new connections, more patiently still."""
        stale_ns = self._clock - pulse.since
        if stale_ns >= pulse.subscribes_at:
            first_ns, last_ns = SUBSCRIBE_AGAIN_NS
            pulse.subscribes_at = stale_ns + min(first_ns << pulse.tries, last_ns)
            pulse.tries += 1
            pulse.renewed_at = self._clock
            renewed.append(pulse)
            pulse.asks_at = pulse.asks_at or self._clock + VERDICT_NS
        # Statistics and last prices are no reason for new connections, unless REST has others.
        if pulse.ticker is not None and not pulse.is_quote and not pulse.is_refuted:
            return
        first_ns, last_ns = RENEW_AGAIN_NS
        if self._clock - self._renewed_at >= 2 * last_ns:
            self._renew_again_ns = 0  # what was long ago is no reason for patience
        is_due = not self._renew_again_ns or self._clock - self._renewed_at >= self._renew_again_ns
        if stale_ns >= RENEW_AFTER_NS and is_due and not self.renewal:
            self._renewed_at = self._clock
            self._renew_again_ns = min(2 * self._renew_again_ns or first_ns, last_ns)
            self.renewal = f"{pulse.topic} is silent"

    def _find_laggards(self, pulse: Pulse, live: Sequence[Session]) -> None:
        """See whether one leg has no updates of a channel of which another has."""
        # One without any could have had some since its subscription was answered.
        heard_ns = {
            session: pulse.arbitration.heard_ns(session.line.index)
            or session.subscriptions.answered_ns(pulse.topic)
            for session in live
        }
        newest_ns = max(heard_ns.values())
        laggard = next(
            (each for each, at_ns in heard_ns.items() if at_ns and newest_ns - at_ns >= LAG_NS), None
        )
        line = laggard.line.index if laggard else -1
        pulse.lag_updates = pulse.lag_updates + 1 if line == pulse.lag_line else 1
        pulse.lag_line = line
        # A new connection may get at once what others got long ago: one update is no evidence.
        if laggard is None or pulse.lag_updates < LAG_UPDATES_MIN:
            return
        if not pulse.lagged_at or self._clock - pulse.lagged_at >= 2 * LAG_AGAIN_NS:
            pulse.lagged_at = self._clock
            laggard.subscriptions.renew([pulse.topic])
        elif self._clock - pulse.lagged_at >= LAG_AGAIN_NS:
            pulse.lagged_at = self._clock
            self.laggards[laggard] = f"{pulse.topic} is silent on it alone"


def _values(state: TickerState, channel: int) -> tuple[float, ...]:
    """Return the fields of a channel that slower ones state as well."""
    if channel == QUOTE:
        return state.bid, state.bid_size, state.ask, state.ask_size
    return (state.last,) if channel == LAST else ()


def _refusal(pulse: Pulse, live: Sequence[Session]) -> str:
    """Return why a channel has values and no updates: each connection was refused it; "" if that is not so.

    A ticker without it has values of REST's, that nothing brings up to date.
    """
    if pulse.ticker is None and not pulse.updates:
        return ""
    refusals = [session.subscriptions.refusal(pulse.topic) for session in live]
    return f"the exchange refuses it: {refusals[0]}" if all(refusals) else ""


def _undecoded(pulse: Pulse, live: Sequence[Session]) -> str:
    """Return why a channel that has no updates on any connection cannot be decoded, "" if that is not so."""
    for session in live:
        if failure := session.subscriptions.unreadable(pulse.topic):
            return f"it cannot be decoded: {failure}"
    return ""


def _is_confirmed(pulse: Pulse, row: RestTicker) -> bool | None:
    """Return whether REST states what is known from a channel, None if there is no telling."""
    return None if pulse.ticker is None else agrees(pulse.ticker, pulse.channel, row)


def _forget_witness(pulse: Pulse) -> None:
    pulse.first, pulse.differs_at, pulse.is_doubted = (), 0, False


def _may_deliver(session: Session) -> bool:
    """Return whether data of a connection that runs may come: doubt is no proof against a further one."""
    return session.condition == 0 or (session.is_doubted and session.subscriptions.is_acknowledged)


def _stated(channel: int, row: RestTicker) -> tuple[float, ...]:
    """Return what REST states of a channel, as far as it can be compared; () for nothing.

    Of statistics the volume counts: within 24 h that roll on it falls by itself, and grows only by trades.
    """
    if channel == QUOTE:
        return () if row.quote is None else astuple(row.quote)
    if channel == LAST:
        return () if row.last != row.last else (row.last,)
    return () if row.statistics is None else (row.statistics[3],)


def _is_news(channel: int, stated: tuple[float, ...], known: tuple[float, ...]) -> bool:
    """Return whether something has happened between two such statements."""
    return stated > known if channel == STATISTICS else not is_same(stated, known)


def agrees(state: TickerState, channel: int, row: RestTicker) -> bool | None:
    """Return whether REST states what is known from a channel, None if it states nothing, or nothing is known."""
    stated = _stated(channel, row)
    known = (state.base_volume_24h,) if channel == STATISTICS else _values(state, channel)
    if not stated or all(value != value for value in known):
        return None
    return not _is_news(channel, stated, known)
