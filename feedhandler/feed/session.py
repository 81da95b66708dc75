"""Life of one connection to an exchange, as decisions: connect, subscribe, heartbeat, silence, back-off.

Pure: bytes and times come in, frames to send and verdicts go out; the caller owns socket, clock and
timer. It must not know which exchange it talks to: that is `Market`'s business.

    BACKOFF ──due──▶ CONNECTING ──open──▶ GREETING ──welcome──▶ RUNNING ──closed──▶ BACKOFF
                          └───────────────failed──────────────────────────────────────▲

The caller calls `advance` whenever `deadline_mono_ns` has come, after `on_open`, after `on_closed`, and when
`on_frame` asks for it; it does what the returned step says and arms its one timer anew.

Whether the connection lives is seen by its own signs: any frame, and a ping that is answered. Markets may be quiet,
so that data are missed only where some should have come: a channel promises to repeat itself, an instrument that is
never quiet is among them, or REST has news while nothing has come since the connection began.
"""

import collections
import random
from collections.abc import Iterable
from typing import Final, Protocol

import msgspec

from feedhandler.data import wire
from feedhandler.data.connecting import ConnectBudget, Policy
from feedhandler.data.errors import DecodeError
from feedhandler.data.status import KeptFrame, Phase, Undecodable
from feedhandler.data.units import NS_PER_S
from feedhandler.exchanges.arbitration import Line
from feedhandler.exchanges.base import (
    Ack,
    Control,
    Emit,
    Endpoint,
    Goodbye,
    Market,
    Nack,
    Pong,
    Resubscribe,
    Welcome,
)
from feedhandler.exchanges.state import State
from feedhandler.feed.subscriptions import LineSubscriptions
from feedhandler.feed.witness import CanaryWitness

TICK_NS: Final = 250_000_000  # how often a running session looks at its clocks
OVERSLEPT_NS: Final = NS_PER_S  # called so late, it was not the exchange that was silent
DELIVERS_NS: Final = 3 * NS_PER_S  # data younger than this: the connection delivers
# No frame for so long: a ping is sent, and without an answer in `Market.pong_timeout_s` the connection is dead.
DRAINS_NS: Final = 5 * NS_PER_S  # how long a connection that is to end is waited for
PROBE_NS: Final = 10 * NS_PER_S
GAPS_MIN: Final = 20  # silences that were ended by data, before it is known how long they usually are
USUAL_FACTOR: Final = 5  # so many times longer than usual is unusual
FADES_NS: Final = 1800 * NS_PER_S  # what was usual so long ago counts a third: a market's bursts are shorter
REPEATS_FACTOR: Final = 2  # promised repetitions, of a whole connection's channels, that are missed in a row
ODD_MAX: Final = 3  # unusual silences, one upon the other: what was usual is so no more
WELCOME_TIMEOUT_NS: Final = 10 * NS_PER_S
KEPT_FRAMES_MAX: Final = 8  # undecodable frames kept for inspection,
KEPT_FRAME_SIZE: Final = 256  # the first bytes of each


class Actions(msgspec.Struct):
    """What the caller has to do now, in this order: connect, ping, send, close."""

    connect: bool = False
    ping: bool = False  # with a ping of the WebSocket's own
    send: list[bytes] = msgspec.field(default_factory=list)
    close: str = ""  # the reason, if the connection is to be closed


class Owner(Protocol):
    """What a session belongs to: it alone decides the conditions of its symbols."""

    def on_open(self, session: "Session") -> None:
        """The session has a new connection, which has delivered nothing yet."""

    def on_condition(self, session: "Session") -> None:
        """The session's `condition` is another."""

    def on_rejection(self, session: "Session") -> None:
        """The exchange has refused one of the session's topics."""


class Session:
    """One connection's life; see the module's first lines for the calling convention.

    emit gets each state that data changed, in order. line is the connection, as line arbitration counts it; leg is
    which of several equal ones it is. canary is the native symbol of an instrument that is never quiet, or "".
    """

    def __init__(
        self,
        market: Market,
        states: Iterable[State],
        emit: Emit,
        owner: Owner,
        *,
        line: Line,
        leg: int = 0,
        policy: Policy,
        budget: ConnectBudget,
        rng: random.Random,
        canary: str = "",
    ) -> None:
        self.market = market
        self._decode = market.decode
        self._emit = emit
        self._owner = owner
        self.line = line
        self.leg = leg
        self.reason = ""  # why it is to follow another one, as long as it does
        self._policy = policy
        self._budget = budget
        self._rng = rng
        self.subscriptions = LineSubscriptions(market, states, line, canary)

        self.phase = Phase.BACKOFF
        self.deadline_mono_ns = 0
        self.attempts = 0  # in a row that came to nothing
        self.connects = 0
        self.last_error = (
            ""  # of the present connection, or why there is none; one that runs leaves it behind
        )
        self.ended = ""  # why the last connection, or attempt, ended
        self.is_stale = False  # data should have come, and did not
        self.is_doubted = False  # nor since a connection that REST contradicted: only data are a success
        self.condition = wire.DOWN  # what the symbols would be if this were their only connection; 0 = well
        self.goodbye = ""  # why the exchange will end this connection, once it has given notice
        self.frames = 0
        self._signs = 0  # frames that are no data: pings and pongs, answers
        self._usual_ns = 0  # the longest of the latest silences between data,
        self._gaps = 0  # how many there were,
        self._odd = 0  # and how many of the last, in a row, were unusual
        self.decode_errors = 0
        self.kept_frames: collections.deque[KeptFrame] = collections.deque(maxlen=KEPT_FRAMES_MAX)
        self.undecodable: dict[
            str, Undecodable
        ] = {}  # by kind, as `LineSubscriptions.on_undecodable` returns it
        self.opened_mono_ns = 0
        self._next_id = 1
        self._reset(0)

    def _reset(self, now: int) -> None:
        """Forget everything about the last connection."""
        self.subscriptions.reset()
        self._next_send = 0
        self._ping_due = 0
        self._pong_due = 0
        self._ping_interval_ns = int((self.market.ping_interval_s or 0) * NS_PER_S)
        self._pong_timeout_ns = int(self.market.pong_timeout_s * NS_PER_S)
        self._data_first = self._data_seen = self._data()
        self._data_mono_ns = now
        self._acknowledged_mono_ns = 0  # when all was, for the first time
        self._answered_mono_ns = 0  # when the newest answer to a request came
        self._is_proven = False  # something came after that
        self.witness = CanaryWitness(self.market)  # its own: an answer may come when the connection is gone
        self._contradiction = ""  # what REST has news of, though no data have come
        self._frames_seen = self.frames
        self._frame_mono_ns = now
        self._looked_mono_ns = now  # whether something has come
        self._lived_mono_ns = self._delivered_mono_ns = (
            now  # since when a frame has come at the earliest, and data
        )
        self._pings = self._pongs = 0  # of ours, and their answers
        self._drains_with = 0  # that ping's answer comes after all that is wanted of it; 0 = nothing is
        self._drains_mono_ns = 0  # since then
        self._answers: list[Control] = []
        self._answer_ns = 0  # when the newest of them came, in Unix time
        self._has_overslept = False

    # --- what the caller reports

    def on_endpoint(self, endpoint: Endpoint) -> None:
        """Take over what the handshake stated about the heartbeat."""
        if endpoint.ping_interval_s is not None:
            self._ping_interval_ns = int(endpoint.ping_interval_s * NS_PER_S)
        if endpoint.pong_timeout_s is not None:
            self._pong_timeout_ns = int(endpoint.pong_timeout_s * NS_PER_S)

    def on_open(self, now_mono_ns: int) -> None:
        """The WebSocket is open."""
        assert self.phase is Phase.CONNECTING, self.phase
        self.opened_mono_ns = self._data_mono_ns = self._frame_mono_ns = now_mono_ns
        self.goodbye = ""
        self.is_stale = self.is_doubted
        self._owner.on_open(self)
        self._set_condition(wire.STALE)  # until its first data
        if self.market.awaits_welcome:
            self.phase = Phase.GREETING
            self.deadline_mono_ns = now_mono_ns + WELCOME_TIMEOUT_NS
        else:
            self._start(now_mono_ns)

    def on_frame(self, payload: bytes | bytearray | memoryview, recv_ns: int) -> bool:
        """Take one message, on loan until this returns; True asks for `advance` now."""
        # hot: `make bench-micro`, session
        self.frames += 1
        try:
            answer = self._decode(payload, recv_ns, self.line, self._emit)
        except DecodeError as exc:
            self._keep(bytes(payload[:KEPT_FRAME_SIZE]), len(payload), str(exc), recv_ns)
            return False
        if answer is None:
            return False  # data, perhaps what is known already, or the canary's
        self._signs += not isinstance(answer, Resubscribe)  # that was data
        self._answers.append(answer)
        self._answer_ns = recv_ns
        return True

    def on_ping(self) -> None:
        """A protocol-level ping or pong arrived: the connection lives."""
        self.frames += 1
        self._signs += 1

    def _data(self) -> int:
        """Return how many frames brought data, of any symbol; those that cannot be decoded among them."""
        return self.frames - self._signs

    @property
    def has_data(self) -> bool:
        """True if the connection has brought any since it began."""
        return self._data() != self._data_first

    def on_contradicted(self, what: str) -> None:
        """REST has news of something that the connection is subscribed to, and of which nothing has come."""
        self._contradiction = what

    def on_closed(self, now_mono_ns: int, reason: str, retry_after_s: float = 0.0) -> None:
        """The connection ended or could not be made; retry_after_s is what the exchange requires."""
        # An exchange may refuse a request and close in one breath: what it refused must not be forgotten.
        self._take_answers(now_mono_ns, Actions())
        self.last_error = self.ended = reason
        if self.has_data:
            self.attempts = 0
        self._set_condition(wire.DOWN)  # whoever is told may ask what it had brought
        self._reset(now_mono_ns)
        self.is_stale = False
        self.phase = Phase.BACKOFF
        delay = max(self._policy.backoff_s(self.attempts, self._rng), retry_after_s)
        self.deadline_mono_ns = max(
            now_mono_ns + int(delay * NS_PER_S), self._budget.next_mono_ns(now_mono_ns)
        )

    def has_given_up(self) -> bool:
        """True after `max_attempts` connections in a row that came to nothing."""
        limit = self._policy.max_attempts
        return 0 < limit < self.attempts + (self.phase is Phase.BACKOFF)

    # --- what the caller has to do

    def advance(self, now_mono_ns: int) -> Actions:
        """Do everything that is due, and set `deadline_mono_ns` for the next call."""
        step = Actions()
        if self.phase is Phase.BACKOFF:
            self._advance_backoff(now_mono_ns, step)
        elif self.phase is Phase.CONNECTING:
            if now_mono_ns >= self.deadline_mono_ns:
                step.close = f"no connection within {self._policy.connect_timeout_s:g} s"
        else:
            self._advance_open(now_mono_ns, step)
        return step

    def _advance_backoff(self, now: int, step: Actions) -> None:
        if now < self.deadline_mono_ns:
            return
        if not self._budget.take(now):
            self.deadline_mono_ns = max(now + TICK_NS, self._budget.next_mono_ns(now))
            return
        self.attempts += 1
        self.connects += 1
        self.phase = Phase.CONNECTING
        self.deadline_mono_ns = now + int(self._policy.connect_timeout_s * NS_PER_S)
        step.connect = True

    def _advance_open(self, now: int, step: Actions) -> None:
        self._take_answers(now, step)
        if not step.close and self.phase is Phase.GREETING and now >= self.deadline_mono_ns:
            step.close = "no welcome from the exchange"
        if not step.close and self.phase is Phase.RUNNING:
            self._watch(now, step)
        if not step.close and self.phase is Phase.RUNNING:
            self._send_due(now, step)
            self.deadline_mono_ns = now + TICK_NS
            if (due := self.subscriptions.due_mono_ns) is not None:
                self.deadline_mono_ns = min(self.deadline_mono_ns, max(self._next_send, due, now))

    # --- subscriptions

    def _start(self, now: int) -> None:
        """Queue the subscription to everything wanted; the caller advances next."""
        self.phase = Phase.RUNNING
        self.last_error = ""
        self.deadline_mono_ns = now
        if self._ping_interval_ns:
            # Not at once: the first one would compete with the subscriptions.
            self._ping_due = now + self._ping_interval_ns // 2
        self.subscriptions.start(now)

    def _send_due(self, now: int, step: Actions) -> None:
        if now < self._next_send:
            return
        if self._is_ping_due(now):
            message = self.market.ping(self._new_id())
            if message is None:
                step.ping = True
            else:
                step.send.append(message)
            self._pings += 1
            self._ping_due = now + self._ping_interval_ns
            self._pong_due = self._pong_due or now + self._pong_timeout_ns
        elif (due := self.subscriptions.due_mono_ns) is not None and now >= due:
            step.send.append(self.subscriptions.send(now, self._new_id()))
        else:
            return
        self._next_send = now + int(self.market.command_interval_s * NS_PER_S)

    def _is_ping_due(self, now: int) -> bool:
        """True when the exchange wants to be pinged, and once whenever nothing has come for a while."""
        if self._ping_interval_ns and now >= self._ping_due:
            return True
        return not self._pong_due and now - self._frame_mono_ns >= PROBE_NS

    def _new_id(self) -> str:
        self._next_id += 1
        return str(self._next_id)

    def _take_answers(self, now: int, step: Actions) -> None:
        answers, self._answers = self._answers, []
        for answer in answers:
            if isinstance(answer, Goodbye):
                self.goodbye = self.last_error = answer.reason
                if self.phase is not Phase.RUNNING:
                    step.close = answer.reason
            elif isinstance(answer, Welcome):
                if self.phase is Phase.GREETING:
                    self._start(now)
            elif isinstance(answer, Resubscribe):
                self.subscriptions.renew([answer.topic])
            elif isinstance(answer, Pong):  # that is a sign of life, as any frame is
                self._pongs += 1
            else:
                self._take_verdict(answer, now, step)

    def _take_verdict(self, answer: Ack | Nack, now: int, step: Actions) -> None:
        if isinstance(answer, Nack) and not answer.is_satisfied:
            self.last_error = answer.reason
        if self.subscriptions.is_in_flight(answer.id):  # else it is to something that we no longer wait for
            count = len(self.subscriptions.rejected)
            step.close = self.subscriptions.on_answer(answer, now, self._answer_ns) or step.close
            if len(self.subscriptions.rejected) != count:
                self._owner.on_rejection(self)
            self._answered_mono_ns = now
            if not self._acknowledged_mono_ns and self.subscriptions.is_acknowledged:
                self._acknowledged_mono_ns = now

    # --- watching

    def _watch(self, now: int, step: Actions) -> None:
        before, self._looked_mono_ns = self._looked_mono_ns, now
        if self.frames != self._frames_seen:
            self._frames_seen, self._frame_mono_ns = self.frames, now
            self._lived_mono_ns = before
            self._pong_due = 0
            if not self._is_data_expected():
                self._note_life()
        is_late = now - self.deadline_mono_ns > OVERSLEPT_NS
        if (data := self._data()) != self._data_seen:
            if self._data_seen != self._data_first and not is_late:
                self._learn(now - self._data_mono_ns)
            self._data_seen, self._data_mono_ns = data, now
            self._delivered_mono_ns = before
            self.attempts = 0
            self.is_stale = self.is_doubted = False
            self._set_condition(0)
        # If this process was stopped, what came meanwhile is read first; but no more than once in a row.
        self._has_overslept = not self._has_overslept and is_late
        if self._has_overslept:
            return
        step.close = self._overdue_pong(now) or self._overdue_data(now) or self._contradicted()
        if not step.close:
            step.close = self.subscriptions.watch(now, delivers=self._delivers(now))

    def _note_life(self) -> None:
        """A frame has come: if all is acknowledged, that is as good as data where markets are quiet."""
        if self.subscriptions.is_acknowledged and not self.is_doubted:
            self.is_stale = False
            self._set_condition(0)
            if self._is_proven:  # not the answer itself: whoever hangs up after it is no success
                self.attempts = 0
            self._is_proven = True

    def _learn(self, gap_ns: int) -> None:
        """Note how long data usually are silent; not of a silence that was flagged, unless each is."""
        self._odd = self._odd + 1 if self.is_stale else 0
        if 0 < self._odd < ODD_MAX:
            return
        self._usual_ns = max(gap_ns, self._usual_ns - self._usual_ns * gap_ns // FADES_NS)
        self._gaps += 1

    def _delivers(self, now: int) -> bool:
        """True while data come in; a market that pauses for a second or two still counts."""
        return now - self._data_mono_ns < DELIVERS_NS

    def _expected_ns(self) -> int:
        """Return within what time data come in any case, 0 if there is no knowing."""
        repeats_ns = REPEATS_FACTOR * self.subscriptions.repeats_ns
        if self._gaps >= GAPS_MIN and self.subscriptions.has_canary:
            usual_ns = USUAL_FACTOR * self._usual_ns
            return min(usual_ns, repeats_ns) if repeats_ns else usual_ns
        return repeats_ns

    def _is_data_expected(self) -> bool:
        return self._expected_ns() > 0

    def _overdue_data(self, now: int) -> str:
        """Flag or give up a connection without data, where some should have come."""
        expected_ns = self._expected_ns()
        silence_ns = now - self._data_mono_ns
        policy = self._policy
        if not expected_ns or silence_ns < max(expected_ns, policy.stale_after_s * NS_PER_S):
            return ""
        self._become_stale()
        if silence_ns < max(expected_ns, policy.reconnect_after_s * NS_PER_S):
            return ""
        if not self.has_data:
            self.is_doubted = self.is_doubted or self.subscriptions.repeats_ns > 0  # those were promised
            self._odd += 1
            if self._odd >= ODD_MAX:  # nothing on one connection after the other: what never rested does now
                self._usual_ns = self._gaps = self._odd = 0
        return f"no data for {silence_ns / NS_PER_S:.0f} s"

    def wants_quote(self, now_mono_ns: int) -> str:
        """Return the native symbol whose quote is to be requested for `witness` now, "" for none."""
        if not self._acknowledged_mono_ns or self.has_data or not self.subscriptions.has_canary:
            return ""
        return self.subscriptions.canary if self.witness.asks(now_mono_ns) else ""

    def _contradicted(self) -> str:
        """Flag and give up a connection on which nothing has come since it began, though there was something."""
        if self.witness.is_contradicted:
            self._contradiction = self._contradiction or self.subscriptions.canary
        if not self._contradiction or self.has_data:
            return ""
        self.is_doubted = True
        self.attempts = max(1, self.attempts)  # pongs have made it look like a success
        self._become_stale()
        return f"no data at all, while REST has news of {self._contradiction}"

    def _become_stale(self) -> None:
        if not self.is_stale:
            # Also if it has been for want of first data: what REST has filled since is flagged now.
            self.is_stale, self.condition = True, wire.STALE
            self._owner.on_condition(self)

    def _overdue_pong(self, now: int) -> str:
        """No frame since a ping: the connection is dead. A late pong never ends one that delivers anything."""
        if not self._pong_due or now < self._pong_due:
            return ""
        return f"no pong within {self._pong_timeout_ns / NS_PER_S:g} s, and no other frame"

    def has_followed(self, other: "Session") -> bool:
        """True if each channel with data on another session has had some here too: that one would not be missed.

        A channel that has been silent there since it was acknowledged here is a quiet market's, if that connection
        has lived until then: of one that was dead before, it is not known what it would have brought.
        """
        if self.phase is not Phase.RUNNING or not self.subscriptions.is_settled:
            return False
        if self.condition > other.condition or not other.has_lived_since(self._answered_mono_ns):
            return False
        # What came there since all was acknowledged here should have come here, too: the canary, if nothing else.
        if not self.has_data and other._data_mono_ns > self._acknowledged_mono_ns + 2 * TICK_NS:
            return False
        line, theirs = self.line.index, other.line.index
        return all(
            channel.heard_ns(line) or channel.heard_ns(theirs) <= answered_ns
            for channel, answered_ns in self.subscriptions.answered_channels()
        )

    def drain(self, now_mono_ns: int) -> bool:
        """Return True once all has come that was sent before the first call, or no more is waited for."""
        if not self._drains_with:
            self._drains_with, self._drains_mono_ns = self._pings + 1, now_mono_ns
            self._ping_due = now_mono_ns
        return self.is_drained or now_mono_ns - self._drains_mono_ns >= DRAINS_NS

    @property
    def is_drained(self) -> bool:
        """True if a ping that was sent after the call of `drain` has been answered: frames come in order."""
        return 0 < self._drains_with <= self._pongs

    def stop_draining(self) -> None:
        """Forget the call of `drain`."""
        self._drains_with = 0

    def has_lived_since(self, mono_ns: int) -> bool:
        """True if something has come since: data, where they come in any case, else a sign of life will do."""
        return (self._delivered_mono_ns if self._is_data_expected() else self._lived_mono_ns) >= mono_ns

    @property
    def delivered_mono_ns(self) -> int:
        """The look after which data came last."""
        return self._delivered_mono_ns if self._data() == self._data_seen else self._looked_mono_ns

    def learn_from(self, other: "Session") -> None:
        """Take over from another connection what was refused to it, its failed attempts, and its usual silences."""
        self.attempts, self.is_doubted = other.attempts, other.is_doubted
        self._usual_ns, self._gaps, self._odd = other._usual_ns, other._gaps, other._odd
        self.subscriptions.learn_from(other.subscriptions)

    def count_on(self, other: "Session") -> None:
        """Take over the counters and kept frames of the connection that this one has followed."""
        self._data_first += other._data()
        self._data_seen += other._data()
        self.frames += other.frames
        self._signs += other._signs
        self._frames_seen += other.frames
        self.connects += other.connects
        self.decode_errors += other.decode_errors
        self.kept_frames = collections.deque([*other.kept_frames, *self.kept_frames], KEPT_FRAMES_MAX)
        for kind, known in other.undecodable.items():
            newest = self.undecodable.get(kind, known)
            count = known.count + (newest.count if newest is not known else 0)
            self.undecodable[kind] = Undecodable(count, newest.topic, newest.newest)
        for name in ("frames", "first", "duplicate", "late", "behind_ns"):
            setattr(self.line, name, getattr(self.line, name) + getattr(other.line, name))

    def _set_condition(self, condition: int) -> None:
        if condition != self.condition:
            self.condition = condition
            self._owner.on_condition(self)

    def _keep(self, head: bytes, size: int, reason: str, recv_ns: int) -> None:
        self.decode_errors += 1
        kept = KeptFrame(recv_ns, reason, size, head.decode(errors="backslashreplace"))
        self.kept_frames.append(kept)
        topic = self.market.topic_of(head)
        kind = self.subscriptions.on_undecodable(topic, recv_ns, reason)
        for state in self.subscriptions.books_of(topic):  # it had a change, perhaps
            state.lose(self.line.index, self._emit)
        before = self.undecodable[kind].count if kind in self.undecodable else 0
        self.undecodable[kind] = Undecodable(before + 1, topic, kept)
