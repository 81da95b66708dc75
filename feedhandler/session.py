"""Life of one connection to an exchange, as decisions: connect, subscribe, heartbeat, silence, back-off.

Pure: bytes and times come in, frames to send and verdicts go out; the caller owns socket, clock and
timer. It must not know which exchange it talks to: that is `Exchange`'s business.

    BACKOFF ──due──▶ CONNECTING ──open──▶ GREETING ──welcome──▶ RUNNING ──closed──▶ BACKOFF
                          └───────────────failed──────────────────────────────────────▲

The caller calls `advance` whenever `deadline_mono_ns` has come, after `on_open`, after `on_closed`, and when
`on_frame` asks for it; it does what the returned step says and arms its one timer anew.
"""

import collections
import enum
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import msgspec

from feedhandler import wire
from feedhandler.errors import DecodeError
from feedhandler.exchanges.base import (
    Ack,
    Control,
    Endpoint,
    Exchange,
    Goodbye,
    Line,
    Nack,
    Pong,
    State,
    Welcome,
)

NS_PER_S: Final = 1_000_000_000

TICK_NS: Final = 250_000_000  # how often a running session looks at its clocks
OVERSLEPT_NS: Final = NS_PER_S  # called so late, it was not the exchange that was silent
DELIVERS_NS: Final = 3 * NS_PER_S  # data younger than this: the connection delivers
WELCOME_TIMEOUT_NS: Final = 10 * NS_PER_S
ACK_TIMEOUT_NS: Final = 10 * NS_PER_S
FIRST_DATA_TIMEOUT_NS: Final = 15 * NS_PER_S  # from the acknowledgement to the first data of a channel
ASK_AGAIN_SHIFT_MAX: Final = 4  # patience doubles each time, up to 16 fold: 4 minutes
COMMAND_TRIES_MAX: Final = 3  # an unanswered or transiently refused command, before a new connection
KEPT_FRAMES_MAX: Final = 8  # undecodable frames kept for inspection,
KEPT_FRAME_SIZE: Final = 256  # the first bytes of each
# A refusal is believed for so long; the next connection after that asks again, for that topic alone.
REJECTION_HOLDS_NS: Final = 600 * NS_PER_S


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What the operator may set about a connection's life."""

    backoff_min_s: float = 1.0
    backoff_max_s: float = 30.0
    max_attempts: int = 10  # in a row without data; 0 = never give up
    connect_timeout_s: float = 10.0
    stale_after_s: float = 5.0  # no data on the whole connection: its records are flagged STALE
    reconnect_after_s: float = 30.0  # and after so long without data, a new connection
    max_age_s: float = 0.0  # of a connection, which is renewed before; 0 = the exchange's own

    def backoff_s(self, attempts: int, rng: random.Random) -> float:
        """Return how long to wait after so many failures in a row.

        Full jitter: anywhere between now and a ceiling that doubles with each failure.
        """
        exponent = min(max(attempts - 1, 0), 16)
        return rng.uniform(0.0, min(self.backoff_max_s, self.backoff_min_s * 2**exponent))


class Phase(enum.Enum):
    BACKOFF = "backoff"
    CONNECTING = "connecting"
    GREETING = "greeting"
    RUNNING = "running"


class Step(msgspec.Struct):
    """What the caller has to do now, in this order: connect, send, close."""

    connect: bool = False
    send: list[bytes] = msgspec.field(default_factory=list)
    close: str = ""  # the reason, if the connection is to be closed


class KeptFrame(msgspec.Struct):
    """An undecodable message, kept for inspection; head is its beginning, printable."""

    at_ns: int
    reason: str
    size: int
    head: str


class Command(msgspec.Struct):
    """A subscription request: waiting for its turn, or for its answer."""

    topics: tuple[str, ...]
    id: str = ""
    tries: int = 0
    not_before_mono_ns: int = 0


class ConnectBudget:
    """Permission for new connections, shared by all sessions of a process: `count` in any `per_s`.

    Over processes it is shared by `transport.budget`.
    """

    def __init__(self, count: int, per_s: float) -> None:
        self._per_ns = int(per_s * NS_PER_S)
        self._times: collections.deque[int] = collections.deque(maxlen=count)

    def next_mono_ns(self, now_mono_ns: int) -> int:
        """Return the earliest time at which one more connection is permitted."""
        if len(self._times) < (self._times.maxlen or 0):
            return 0
        return self._times[0] + self._per_ns

    def take(self, now_mono_ns: int) -> bool:
        """Count one connection, if it is permitted now."""
        if self.next_mono_ns(now_mono_ns) > now_mono_ns:
            return False
        self._times.append(now_mono_ns)
        return True


class Owner(Protocol):
    """Who answers for the symbols of a session: it alone decides what is said about them besides data."""

    def on_open(self, session: "Session") -> None:
        """The session has a new connection, which has said nothing yet."""

    def on_condition(self, session: "Session") -> None:
        """The session's `condition` is another."""


class Session:
    """One connection's life; see the module's first lines for the calling convention.

    emit gets each state that data changed, in order. line is what the states know the connection by; leg says
    which of several equal ones it is.
    """

    def __init__(
        self,
        exchange: Exchange,
        natives: Sequence[str],
        emit: Callable[[State], None],
        owner: Owner,
        *,
        line: Line,
        leg: int = 0,
        policy: Policy,
        budget: ConnectBudget,
        rng: random.Random,
    ) -> None:
        self._exchange = exchange
        self._decode = exchange.decode
        self._state_type = exchange.make_state
        self._emit = emit
        self._owner = owner
        self.line = line
        self.leg = leg
        self.reason = ""  # why it is to follow another one, as long as it does
        self._policy = policy
        self._budget = budget
        self._rng = rng
        self.natives = list(natives)
        self.states = [exchange.states[native] for native in natives]
        self._channels = {  # topic → whose it is, and which of its channels
            topic: (state, channel)
            for state in self.states
            for channel, topic in enumerate(exchange.topics(state.native))
        }

        self.phase = Phase.BACKOFF
        self.deadline_mono_ns = 0
        self.attempts = 0  # in a row without data
        self.connects = 0
        self.last_error = ""
        self.is_stale = False  # it had its time to say something
        self.condition = wire.DOWN  # what the symbols would be if this were their only connection; 0 = well
        self.goodbye = ""  # why the exchange will end this connection, once it has said so
        self.rejected: dict[str, str] = {}  # topic → the exchange's reason; kept over reconnections
        self.frames = 0
        self.decode_errors = 0
        self.kept_frames: collections.deque[KeptFrame] = collections.deque(maxlen=KEPT_FRAMES_MAX)
        self.opened_mono_ns = 0
        self._rejected_mono_ns: dict[str, int] = {}
        self._suspects: set[str] = set()  # topics of a refused request, to be asked for one by one
        self._next_id = 1
        self._reset(0)

    def _reset(self, now: int) -> None:
        """Forget everything about the last connection."""
        self._queue: collections.deque[Command] = collections.deque()
        self._in_flight: Command | None = None
        self._answer_due = 0
        self._next_send = 0
        self._ping_due = 0
        self._pong_due = 0
        self._ping_interval_ns = int((self._exchange.ping_interval_s or 0) * NS_PER_S)
        self._pong_timeout_ns = int(self._exchange.pong_timeout_s * NS_PER_S)
        self._data_first = self._data_seen = self.line.frames
        self._data_mono_ns = now
        self._frames_seen = self.frames
        self._frame_mono_ns = now
        self._answers: list[Control] = []
        self._answer_ns = 0  # when the newest of them came, in Unix time
        self._complete_ns = 0  # and when the last subscription was first answered
        self._first_data_due: dict[str, int] = {}  # acknowledged topic → when it must have spoken
        self._first_data_next = 0  # the earliest of these times; 0 = there is none
        self._asked_again: dict[str, int] = {}  # topic → how often
        self._is_all_heard = False
        self._has_overslept = False

    # --- what the caller reports

    def on_endpoint(self, endpoint: Endpoint) -> None:
        """Take over what the handshake said about the heartbeat."""
        if endpoint.ping_interval_s is not None:
            self._ping_interval_ns = int(endpoint.ping_interval_s * NS_PER_S)
        if endpoint.pong_timeout_s is not None:
            self._pong_timeout_ns = int(endpoint.pong_timeout_s * NS_PER_S)

    def on_open(self, now_mono_ns: int) -> None:
        """The WebSocket is open."""
        assert self.phase is Phase.CONNECTING, self.phase
        self.opened_mono_ns = self._data_mono_ns = self._frame_mono_ns = now_mono_ns
        self.goodbye = ""
        self.is_stale = False
        self._owner.on_open(self)
        self._set_condition(wire.STALE)  # until it has said something
        if self._exchange.awaits_welcome:
            self.phase = Phase.GREETING
            self.deadline_mono_ns = now_mono_ns + WELCOME_TIMEOUT_NS
        else:
            self._start(now_mono_ns)

    def on_frame(self, payload: bytes | bytearray | memoryview, recv_ns: int) -> bool:
        """Take one message, on loan until this returns; True asks for `advance` now."""
        # hot: `make bench-micro`, session
        self.frames += 1
        try:
            result = self._decode(payload, recv_ns, self.line)
        except DecodeError as exc:
            self._keep(bytes(payload[:KEPT_FRAME_SIZE]), len(payload), str(exc), recv_ns)
            return False
        if result is None:
            return False
        if type(result) is self._state_type:
            result.on_news(recv_ns)
            self._emit(result)
            return False
        self._answers.append(result)  # type: ignore[arg-type]  # not a State, so a Control
        self._answer_ns = recv_ns
        return True

    def on_ping(self) -> None:
        """A protocol-level ping or pong arrived: the connection lives."""
        self.frames += 1

    def on_closed(self, now_mono_ns: int, reason: str, retry_after_s: float = 0.0) -> None:
        """The connection ended or could not be made; retry_after_s is what the exchange asked for."""
        # An exchange may refuse a request and close in one breath: what it refused must not be forgotten.
        self._take_answers(now_mono_ns, Step())
        self.last_error = reason
        if self.line.frames != self._data_first:
            self.attempts = 0
        self._reset(now_mono_ns)
        self.is_stale = False
        self.phase = Phase.BACKOFF
        delay = max(self._policy.backoff_s(self.attempts, self._rng), retry_after_s)
        self.deadline_mono_ns = max(
            now_mono_ns + int(delay * NS_PER_S), self._budget.next_mono_ns(now_mono_ns)
        )
        self._set_condition(wire.DOWN)

    def has_given_up(self) -> bool:
        """True after `max_attempts` connections in a row that brought no data."""
        limit = self._policy.max_attempts
        return 0 < limit < self.attempts + (self.phase is Phase.BACKOFF)

    # --- what the caller is told

    def advance(self, now_mono_ns: int) -> Step:
        """Do everything that is due, and set `deadline_mono_ns` for the next call."""
        step = Step()
        if self.phase is Phase.BACKOFF:
            self._advance_backoff(now_mono_ns, step)
        elif self.phase is Phase.CONNECTING:
            if now_mono_ns >= self.deadline_mono_ns:
                step.close = f"no connection within {self._policy.connect_timeout_s:g} s"
        else:
            self._advance_open(now_mono_ns, step)
        return step

    def _advance_backoff(self, now: int, step: Step) -> None:
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

    def _advance_open(self, now: int, step: Step) -> None:
        self._take_answers(now, step)
        if not step.close and self.phase is Phase.GREETING and now >= self.deadline_mono_ns:
            step.close = "no welcome from the exchange"
        if not step.close and self.phase is Phase.RUNNING:
            self._watch(now, step)
        if not step.close and self.phase is Phase.RUNNING:
            self._send_due(now, step)
            self.deadline_mono_ns = now + TICK_NS
            if self._queue and self._in_flight is None:
                due = max(self._next_send, self._queue[0].not_before_mono_ns, now)
                self.deadline_mono_ns = min(self.deadline_mono_ns, due)

    # --- subscriptions

    def _start(self, now: int) -> None:
        """Queue the subscription to everything wanted; the caller advances next."""
        self.phase = Phase.RUNNING
        self.deadline_mono_ns = now
        if self._ping_interval_ns:
            # Not at once: the first one would compete with the subscriptions.
            self._ping_due = now + self._ping_interval_ns // 2
        for topic in [t for t, at in self._rejected_mono_ns.items() if now - at >= REJECTION_HOLDS_NS]:
            del self._rejected_mono_ns[topic]
            self.rejected.pop(topic, None)
            self._suspects.add(topic)
        topics = [t for t in self._channels if t not in self.rejected]
        sound = [t for t in topics if t not in self._suspects]
        self._queue.extend(Command(batch) for batch in self._exchange.batches(sound))
        self._queue.extend(Command((t,)) for t in topics if t in self._suspects)

    def _send_due(self, now: int, step: Step) -> None:
        if now < self._next_send:
            return
        if self._ping_due and now >= self._ping_due:
            step.send.append(self._exchange.ping(self._new_id()))
            self._ping_due = now + self._ping_interval_ns
            self._pong_due = self._pong_due or now + self._pong_timeout_ns
        elif self._queue and self._in_flight is None and now >= self._queue[0].not_before_mono_ns:
            command = self._queue.popleft()
            command.id = self._new_id()
            command.tries += 1
            self._in_flight = command
            self._answer_due = now + ACK_TIMEOUT_NS
            step.send.append(self._exchange.subscribe(command.topics, command.id))
        else:
            return
        self._next_send = now + int(self._exchange.command_interval_s * NS_PER_S)

    def _new_id(self) -> str:
        self._next_id += 1
        return str(self._next_id)

    def _take_answers(self, now: int, step: Step) -> None:
        answers, self._answers = self._answers, []
        for answer in answers:
            if isinstance(answer, Goodbye):
                self.goodbye = self.last_error = answer.reason
                if self.phase is not Phase.RUNNING:
                    step.close = answer.reason
            elif isinstance(answer, Welcome):
                if self.phase is Phase.GREETING:
                    self._start(now)
            elif isinstance(answer, Pong):
                self._pong_due = 0
            else:
                self._take_verdict(answer, now, step)

    def _take_verdict(self, answer: Ack | Nack, now: int, step: Step) -> None:
        command = self._in_flight
        if command is None or answer.id not in ("", command.id):
            if isinstance(answer, Nack):
                self.last_error = answer.reason
            return  # an answer to something that we no longer wait for
        self._in_flight = None
        if not self._queue and isinstance(answer, Ack):
            self._complete_ns = self._complete_ns or self._answer_ns
        if isinstance(answer, Ack) or (answer.is_satisfied and len(command.topics) == 1):
            self._await_data(command.topics, now)
            self._suspects.difference_update(command.topics)
            return
        self.last_error = answer.reason
        if answer.is_transient:
            self._retry(command, answer.reason, now, step)
        elif len(command.topics) == 1:
            self._suspects.discard(command.topics[0])
            self.rejected[command.topics[0]] = answer.reason
            self._rejected_mono_ns[command.topics[0]] = now
        else:
            # One bad topic refuses its whole request: ask for each alone, so that only it is refused.
            self._suspects.update(command.topics)
            self._queue.extendleft(Command((topic,)) for topic in reversed(command.topics))

    def _await_data(self, topics: Iterable[str], now: int) -> None:
        """Expect first data of what was asked for, with more patience each time that none came."""
        for topic in topics:
            patience = FIRST_DATA_TIMEOUT_NS << min(self._asked_again.get(topic, 0), ASK_AGAIN_SHIFT_MAX)
            self._first_data_due[topic] = due = now + patience
            self._first_data_next = min(self._first_data_next or due, due)

    def _give_up_waiting(self, command: Command, now: int, step: Step) -> None:
        """No answer: data are one. Without any of either, the connection is to blame."""
        command.topics = tuple(self._silent(command.topics))
        if command.topics and command.tries >= COMMAND_TRIES_MAX and self._delivers(now):
            self._await_data(command.topics, now)
        elif command.topics:
            self._retry(command, "no answer", now, step)

    def _retry(self, command: Command, reason: str, now: int, step: Step) -> None:
        if command.tries >= COMMAND_TRIES_MAX:
            step.close = f"request refused {command.tries} times: {reason}"
            return
        command.not_before_mono_ns = now + command.tries * NS_PER_S
        self._queue.appendleft(command)

    # --- watching

    def _watch(self, now: int, step: Step) -> None:
        if self.line.frames != self._data_seen:
            self._data_seen, self._data_mono_ns = self.line.frames, now
            self.attempts = 0
            self.is_stale = False
            self._set_condition(0)
        if self.frames != self._frames_seen:
            self._frames_seen, self._frame_mono_ns = self.frames, now
        # If this process was stopped, what came meanwhile is read first; but no more than once in a row.
        self._has_overslept = not self._has_overslept and now - self.deadline_mono_ns > OVERSLEPT_NS
        if self._has_overslept:
            return
        step.close = (
            self._overdue(self._frame_mono_ns, self._exchange.frame_silence_s, now, "no frame at all")
            or self._overdue(self._data_mono_ns, self._policy.reconnect_after_s, now, "no data")
            or self._overdue_pong(now)
        )
        if step.close:
            return
        if self._in_flight and now >= self._answer_due:
            command, self._in_flight = self._in_flight, None
            self._give_up_waiting(command, now, step)
        if now - self._data_mono_ns >= self._policy.stale_after_s * NS_PER_S:
            self.is_stale = True
            self._set_condition(wire.STALE)
        self._ask_again(now)

    def _delivers(self, now: int) -> bool:
        """True while data come in; a market that pauses for a second or two still counts."""
        return now - self._data_mono_ns < DELIVERS_NS

    def _overdue(self, since: int, limit_s: float, now: int, what: str) -> str:
        return f"{what} for {limit_s:g} s" if now - since >= limit_s * NS_PER_S else ""

    def _overdue_pong(self, now: int) -> str:
        """A late pong alone never ends a connection that delivers data."""
        if not self._pong_due or now < self._pong_due or self._delivers(now):
            return ""
        return f"no pong within {self._pong_timeout_ns / NS_PER_S:g} s, and no data"

    def _ask_again(self, now: int) -> None:
        """Subscribe again to channels that were acknowledged and then stayed silent."""
        if not 0 < self._first_data_next <= now:
            return
        due = [topic for topic, at in self._first_data_due.items() if now >= at]
        for topic in due:
            del self._first_data_due[topic]
        self._first_data_next = min(self._first_data_due.values(), default=0)
        silent = self._silent(due)
        for topic in silent:
            self._asked_again[topic] = self._asked_again.get(topic, 0) + 1
        self._queue.extend(Command(batch) for batch in self._exchange.batches(silent))

    def _silent(self, topics: Iterable[str]) -> list[str]:
        """Return those of the topics that have not spoken on this connection."""
        return [topic for topic in topics if not self._has_heard(topic)]

    def _has_heard(self, topic: str) -> bool:
        state, channel = self._channels[topic]
        return state.heard_ns(self.line.index, channel) != 0

    def unheard(self) -> int:
        """Return how many channels are wanted, not rejected, and have not spoken on this connection."""
        if self._is_all_heard:  # who has spoken has: no need to look at thousands again each second
            return 0
        line = self.line.index
        count = len(self._channels) - sum(state.heard(line) for state in self.states)
        self._is_all_heard = not count
        return count - len(self._silent(self.rejected))

    def silent_topics(self) -> list[str]:
        """Return those of them that had their time to speak, and did not use it."""
        if self._is_all_heard:
            return []
        return [topic for topic in self._silent(self._asked_again) if topic not in self.rejected]

    def pending_topics(self) -> int:
        """Return how many topics are still to be asked for or to be answered."""
        return sum(len(c.topics) for c in self._queue) + len(
            self._in_flight.topics if self._in_flight else ()
        )

    def has_followed(self, other: "Session") -> bool:
        """True if each channel that another session hears has spoken here too: nobody would miss that one.

        A channel that has been silent there since it was acknowledged here is a quiet market's.
        """
        if self.phase is not Phase.RUNNING or self._queue or self._in_flight:
            return False
        if self.condition > other.condition:
            return False
        line, theirs = self.line.index, other.line.index
        return all(
            state.heard_ns(line, channel) or state.heard_ns(theirs, channel) <= self._complete_ns
            for state, channel in self._channels.values()
        )

    def learn_from(self, other: "Session") -> None:
        """Know already what the exchange refused to another connection, and how often it let it down."""
        self.attempts = other.attempts
        self.rejected |= other.rejected
        self._rejected_mono_ns |= other._rejected_mono_ns
        self._suspects |= other._suspects

    def count_on(self, other: "Session") -> None:
        """Take over the counters and kept frames of the connection that this one has followed."""
        self.frames += other.frames
        self._frames_seen += other.frames
        self._data_first += other.line.frames
        self._data_seen += other.line.frames
        self.connects += other.connects
        self.decode_errors += other.decode_errors
        self.kept_frames = collections.deque([*other.kept_frames, *self.kept_frames], KEPT_FRAMES_MAX)
        for name in ("frames", "news", "repeated", "late", "behind_ns"):
            setattr(self.line, name, getattr(self.line, name) + getattr(other.line, name))

    def _set_condition(self, condition: int) -> None:
        if condition != self.condition:
            self.condition = condition
            self._owner.on_condition(self)

    def _keep(self, head: bytes, size: int, reason: str, recv_ns: int) -> None:
        self.decode_errors += 1
        self.kept_frames.append(KeptFrame(recv_ns, reason, size, head.decode(errors="backslashreplace")))
