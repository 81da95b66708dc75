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

A market may have its topics on several paths. Then a connection is a socket for each: it is open when all are, and
ends with the first that ends. Each lives, delivers and is pinged for itself (`SocketSigns`), and the connection is
as well as the worst of them.
"""

import collections
import random
from collections.abc import Iterable
from typing import Final, Protocol

import msgspec

from feedhandler.data import wire
from feedhandler.data.connecting import ConnectBudget, Policy
from feedhandler.data.status import KeptFrame, Phase, Undecodable
from feedhandler.data.units import NS_PER_S
from feedhandler.exchanges.arbitration import Line
from feedhandler.exchanges.base import (
    Ack,
    Emit,
    Goodbye,
    Market,
    Nack,
    Pong,
    Resubscribe,
    Welcome,
)
from feedhandler.exchanges.books import BookDepthState
from feedhandler.exchanges.full_book import FullBookState
from feedhandler.exchanges.state import State
from feedhandler.exchanges.trades import TradeState
from feedhandler.feed.signs import SocketSigns
from feedhandler.feed.subscriptions import LineSubscriptions
from feedhandler.feed.witness import CanaryWitness

TICK_NS: Final = 250_000_000  # how often a running session looks at its clocks
OVERSLEPT_NS: Final = NS_PER_S  # called so late, it was not the exchange that was silent
DRAINS_NS: Final = 5 * NS_PER_S  # how long a connection that is to end is waited for
REPEATS_FACTOR: Final = 2  # promised repetitions, of all channels of a socket, that are missed in a row
WELCOME_TIMEOUT_NS: Final = 10 * NS_PER_S
KEPT_FRAMES_MAX: Final = 8  # undecodable frames kept for inspection,
KEPT_FRAME_SIZE: Final = 256  # the first bytes of each


class Actions(msgspec.Struct):
    """What the caller has to do now, in this order: connect, ping, send, close."""

    connect: bool = False
    ping: bool = False  # with a ping of the WebSocket's own
    send: list[bytes] = msgspec.field(default_factory=list)
    socket: int = 0  # on which of them, as `Session.sockets` has them: at most one has something to send
    close: str = ""  # the reason, if the connection is to be closed


class Owner(Protocol):
    """What a session belongs to: it alone decides the conditions of its symbols."""

    def on_open(self, session: "Session") -> None:
        """The session has a new connection, which has delivered nothing yet."""

    def on_condition(self, session: "Session") -> None:
        """The session's `condition` is another."""

    def on_rejection(self, session: "Session") -> None:
        """The exchange has refused one of the session's topics."""

    def on_unread(self, session: "Session", state: TradeState) -> None:
        """A message of trades cannot be read."""


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
        self._emit = emit
        self._owner = owner
        self.line = line
        self.leg = leg
        self.reason = ""  # why it is to follow another one, as long as it does
        self._policy = policy
        self._budget = budget
        self._rng = rng
        self.subscriptions = LineSubscriptions(market, states, line, canary)
        self.sockets = [SocketSigns(market, path, line, emit, self._keep) for path in market.paths]
        # Of the first one: most connections have no other.
        self.on_frame = self.sockets[0].on_frame
        self.on_ping = self.sockets[0].on_ping
        self.on_endpoint = self.sockets[0].on_endpoint

        self.phase = Phase.BACKOFF
        self.deadline_mono_ns = 0
        self.attempts = 0  # in a row that came to nothing
        self.connects = 0
        self.last_error = (
            ""  # of the present connection, or why there is none; one that runs leaves it behind
        )
        self.ended = ""  # why the last connection, or attempt, ended
        self.condition = wire.DOWN  # what the symbols would be if this were their only connection; 0 = well
        self.goodbye = ""  # why the exchange will end this connection, once it has given notice
        self.decode_errors = 0
        self.kept_frames: collections.deque[KeptFrame] = collections.deque(maxlen=KEPT_FRAMES_MAX)
        # by kind, as `LineSubscriptions.on_undecodable` returns it
        self.undecodable: dict[str, Undecodable] = {}
        self.opened_mono_ns = 0
        self._next_id = 1
        self._reset(0)

    def _reset(self, now: int) -> None:
        """Forget everything about the last connection."""
        self.subscriptions.reset()
        self._next_send = 0
        for socket in self.sockets:
            socket.reset(now)
        self._acknowledged_mono_ns = 0  # when all was, for the first time
        self._answered_mono_ns = 0  # when the newest answer to a request came
        self._looked_mono_ns = now  # whether something has come
        self._drains_mono_ns = 0  # since when it is waited for what is under way; 0 = it is not
        self._has_overslept = False

    # --- what the caller reports

    def on_open(self, now_mono_ns: int) -> None:
        """The WebSocket is open, or all of them are."""
        assert self.phase is Phase.CONNECTING, self.phase
        self.opened_mono_ns = now_mono_ns
        self.goodbye = ""
        for socket in self.sockets:
            socket.on_open(now_mono_ns)
        self._owner.on_open(self)
        self._set_condition(wire.STALE)  # until its first data
        if self.market.awaits_welcome:
            self.phase = Phase.GREETING
            self.deadline_mono_ns = now_mono_ns + WELCOME_TIMEOUT_NS
        else:
            self._start(now_mono_ns)

    @property
    def frames(self) -> int:
        """How many have come, of all sockets."""
        return sum(socket.frames for socket in self.sockets)

    @property
    def has_data(self) -> bool:
        """True if the connection has brought some since it began, on each of its sockets."""
        return all(socket.has_data for socket in self.sockets)

    @property
    def is_stale(self) -> bool:
        """True if data should have come, and did not."""
        return any(socket.is_stale for socket in self.sockets)

    @property
    def is_doubted(self) -> bool:
        """True if REST has contradicted it, or the one before: only data are a success then."""
        return any(socket.is_doubted for socket in self.sockets)

    def on_contradicted(self, topic: str) -> None:
        """REST has news of a topic that the connection is subscribed to, and of which nothing has come."""
        self._socket_of(topic).contradiction = topic

    def _socket_of(self, topic: str) -> SocketSigns:
        return self._socket_on(self.market.path_of(topic))

    def _socket_on(self, path: str) -> SocketSigns:
        return self.sockets[self.market.paths.index(path)]

    def on_closed(self, now_mono_ns: int, reason: str, retry_after_s: float = 0.0) -> None:
        """The connection ended or could not be made; retry_after_s is what the exchange requires."""
        # An exchange may refuse a request and close in one breath: what it refused must not be forgotten.
        self._take_answers(now_mono_ns, Actions())
        self.last_error = self.ended = reason
        if self.has_data:
            self.attempts = 0
        self._set_condition(wire.DOWN)  # whoever is told may ask what it had brought
        self._reset(now_mono_ns)
        for socket in self.sockets:
            socket.is_stale = False
        self.phase = Phase.BACKOFF
        delay = max(self._policy.backoff_s(self.attempts, self._rng), retry_after_s)
        self.deadline_mono_ns = max(
            now_mono_ns + int(delay * NS_PER_S), self._budget.next_mono_ns(now_mono_ns, len(self.sockets))
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
        if not self._budget.take(now, len(self.sockets)):
            self.deadline_mono_ns = max(now + TICK_NS, self._budget.next_mono_ns(now, len(self.sockets)))
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
        for socket in self.sockets:
            socket.start(now)
        self.subscriptions.start(now)

    def _send_due(self, now: int, step: Actions) -> None:
        if now < self._next_send:
            return
        pinged = next((socket for socket in self.sockets if socket.is_ping_due(now)), None)
        if pinged is not None:
            message = self.market.ping(self._new_id())
            if message is None:
                step.ping = True
            else:
                step.send.append(message)
            pinged.on_ping_sent(now)
            step.socket = self.sockets.index(pinged)
        elif (due := self.subscriptions.due_mono_ns) is not None and now >= due:
            step.send.append(self.subscriptions.send(now, self._new_id()))
            step.socket = self.market.paths.index(self.subscriptions.path)
        else:
            return
        self._next_send = now + int(self.market.command_interval_s * NS_PER_S)

    def _new_id(self) -> str:
        self._next_id += 1
        return str(self._next_id)

    def _take_answers(self, now: int, step: Actions) -> None:
        for socket in self.sockets:
            answers, socket.answers = socket.answers, []
            for answer in answers:
                if isinstance(answer, Goodbye):
                    self.goodbye = self.last_error = answer.reason
                    if self.phase is not Phase.RUNNING:
                        step.close = answer.reason
                elif isinstance(answer, Welcome):
                    socket.is_welcome = True
                    if self.phase is Phase.GREETING and all(each.is_welcome for each in self.sockets):
                        self._start(now)
                elif isinstance(answer, Resubscribe):
                    self.subscriptions.renew([answer.topic])
                elif isinstance(answer, Pong):
                    socket.on_pong()
                else:
                    self._take_verdict(answer, now, step, socket)

    def _take_verdict(self, answer: Ack | Nack, now: int, step: Actions, socket: SocketSigns) -> None:
        if isinstance(answer, Nack) and not answer.is_satisfied:
            self.last_error = answer.reason
        # Else it is to something that we no longer wait for.
        if self.subscriptions.is_in_flight(answer.id) and socket.path == self.subscriptions.path:
            count = len(self.subscriptions.rejected)
            step.close = self.subscriptions.on_answer(answer, now, socket.answer_ns) or step.close
            if len(self.subscriptions.rejected) != count:
                self._owner.on_rejection(self)
            self._answered_mono_ns = now
            if not self._acknowledged_mono_ns and self.subscriptions.is_acknowledged:
                self._acknowledged_mono_ns = now

    # --- watching

    def _watch(self, now: int, step: Actions) -> None:
        before, self._looked_mono_ns = self._looked_mono_ns, now
        is_late = now - self.deadline_mono_ns > OVERSLEPT_NS
        for socket in self.sockets:
            has_frames = socket.has_frames(before, now)
            if has_frames and not self._is_data_expected(socket) and self.subscriptions.is_acknowledged:
                socket.note_life()
            if socket.has_new_data:
                socket.note_data(before, now, is_late=is_late)
        if all(socket.has_succeeded for socket in self.sockets):
            self.attempts = 0
        if all(socket.is_well for socket in self.sockets):
            self._set_condition(0)
        # If this process was stopped, what came meanwhile is read first; but no more than once in a row.
        self._has_overslept = not self._has_overslept and is_late
        if self._has_overslept:
            return
        for socket in self.sockets:
            reason = socket.overdue_pong(now) or self._overdue_data(socket, now) or self._contradicted(socket)
            if reason:
                step.close = f"{reason}, on {socket.path}" if socket.path else reason
                return
        step.close = self.subscriptions.watch(now, delivers=self._delivers(now))

    def _delivers(self, now: int) -> bool:
        """True while data come in on the socket of the request that waits for its answer."""
        return self._socket_on(self.subscriptions.path).is_delivering(now)

    def _expected_ns(self, socket: SocketSigns) -> int:
        """Return within what time data come on a socket in any case, 0 if there is no knowing."""
        repeats_ns = REPEATS_FACTOR * self.subscriptions.repeats_ns(socket.path)
        usual_ns = socket.usual_ns if self.subscriptions.has_canary(socket.path) else 0
        if usual_ns and repeats_ns:
            return min(usual_ns, repeats_ns)
        return usual_ns or repeats_ns or int(self._is_mute_beside_others(socket))

    def _is_data_expected(self, socket: SocketSigns) -> bool:
        return self._expected_ns(socket) > 0

    def _overdue_data(self, socket: SocketSigns, now: int) -> str:
        """Flag or give up a connection without data, where some should have come."""
        expected_ns, is_mute = self._expected_ns(socket), self._is_mute_beside_others(socket)
        since = max(socket.data_mono_ns, self._acknowledged_mono_ns if is_mute else 0)
        silence_ns = now - since
        policy = self._policy
        if not expected_ns or silence_ns < max(expected_ns, policy.stale_after_s * NS_PER_S):
            return ""
        self._become_stale(socket)
        if silence_ns < max(expected_ns, policy.reconnect_after_s * NS_PER_S):
            return ""
        socket.give_up(is_promised=is_mute or self.subscriptions.repeats_ns(socket.path) > 0)
        return f"no data for {silence_ns / NS_PER_S:.0f} s"

    def _is_mute_beside_others(self, socket: SocketSigns) -> bool:
        """True if a socket has brought nothing, not even its canary, while another one delivers: it should have."""
        return (
            not socket.has_data
            and self._acknowledged_mono_ns > 0
            and self.subscriptions.has_canary(socket.path)
            and any(other.has_data for other in self.sockets)
        )

    def wants_quote(self, now_mono_ns: int) -> str:
        """Return the native symbol whose quote is to be requested for `witness` now, "" for none."""
        canary = self.subscriptions.canary
        if not self._acknowledged_mono_ns or not canary:
            return ""
        socket = self._quoting
        if socket.has_data or not self.subscriptions.has_canary(socket.path):
            return ""
        return canary if socket.witness.asks(now_mono_ns) else ""

    @property
    def witness(self) -> CanaryWitness:
        """Takes the answer to that."""
        return self._quoting.witness

    @property
    def _quoting(self) -> SocketSigns:
        """The socket on which quotes come."""
        return self._socket_of(self.market.quote_topic(self.subscriptions.canary))

    def _contradicted(self, socket: SocketSigns) -> str:
        """Flag and give up a connection on which nothing has come since it began, though there was something."""
        if socket.witness.is_contradicted:
            socket.contradiction = socket.contradiction or self.subscriptions.canary
        if not socket.contradiction or socket.has_data:
            return ""
        socket.is_doubted = True
        self.attempts = max(1, self.attempts)  # pongs have made it look like a success
        self._become_stale(socket)
        return f"no data at all, while REST has news of {socket.contradiction}"

    def _become_stale(self, socket: SocketSigns) -> None:
        if not socket.is_stale:
            # Also if it has been for want of first data: what REST has filled since is flagged now.
            socket.is_stale, socket.is_well = True, False
            self.condition = wire.STALE
            self._owner.on_condition(self)

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
        since = self._acknowledged_mono_ns + 2 * TICK_NS
        pairs = zip(self.sockets, other.sockets, strict=True)
        if any(not mine.has_data and theirs.data_mono_ns > since for mine, theirs in pairs):
            return False
        line, theirs = self.line.index, other.line.index
        return all(
            channel.heard_ns(line) or channel.heard_ns(theirs) <= answered_ns
            for channel, answered_ns in self.subscriptions.answered_channels()
        )

    def drain(self, now_mono_ns: int) -> bool:
        """Return True once all has come that was sent before the first call, or no more is waited for."""
        if not self._drains_mono_ns:
            self._drains_mono_ns = now_mono_ns
            for socket in self.sockets:
                socket.drain(now_mono_ns)
        return self.is_drained or now_mono_ns - self._drains_mono_ns >= DRAINS_NS

    @property
    def is_drained(self) -> bool:
        """True if pings that were sent after the call of `drain` have been answered: frames come in order."""
        return all(socket.is_drained for socket in self.sockets)

    def stop_draining(self) -> None:
        """Forget the call of `drain`."""
        self._drains_mono_ns = 0
        for socket in self.sockets:
            socket.stop_draining()

    def has_lived_since(self, mono_ns: int) -> bool:
        """True if something has come since: data, where they come in any case, else a sign of life will do."""
        return all(
            (socket.delivered_mono_ns if self._is_data_expected(socket) else socket.lived_mono_ns) >= mono_ns
            for socket in self.sockets
        )

    @property
    def delivered_mono_ns(self) -> int:
        """The look after which data came last, on the socket on which that is longest ago."""
        return min(
            self._looked_mono_ns if socket.has_new_data else socket.delivered_mono_ns
            for socket in self.sockets
        )

    def learn_from(self, other: "Session") -> None:
        """Take over from another connection what was refused to it, its failed attempts, and its usual silences."""
        self.attempts = other.attempts
        for mine, theirs in zip(self.sockets, other.sockets, strict=True):
            mine.learn_from(theirs)
        self.subscriptions.learn_from(other.subscriptions)

    def count_on(self, other: "Session") -> None:
        """Take over the counters and kept frames of the connection that this one has followed."""
        for mine, theirs in zip(self.sockets, other.sockets, strict=True):
            mine.count_on(theirs)
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

    def _keep(self, payload: bytes | bytearray | memoryview, reason: str, recv_ns: int) -> None:
        self.decode_errors += 1
        head = bytes(payload[:KEPT_FRAME_SIZE])
        kept = KeptFrame(recv_ns, reason, len(payload), head.decode(errors="backslashreplace"))
        self.kept_frames.append(kept)
        topic = self.market.topic_of(head)
        kind = self.subscriptions.on_undecodable(topic, recv_ns, reason)
        for state in self.subscriptions.states_of(topic):
            self._doubt(state, topic, recv_ns)
        before = self.undecodable[kind].count if kind in self.undecodable else 0
        self.undecodable[kind] = Undecodable(before + 1, topic, kept)

    def _doubt(self, state: State, topic: str, recv_ns: int) -> None:
        """A message about a state cannot be read: what it had is lost, and the next one may come in an hour."""
        if isinstance(state, FullBookState):
            state.lose(self.line.index, self._emit)
        elif isinstance(state, BookDepthState):
            flags = state.flags
            if state.lose(self.line.index, recv_ns):
                self.subscriptions.renew([topic])
            if state.flags != flags:
                self._emit(state)
        elif isinstance(state, TradeState):
            self._owner.on_unread(self, state)
