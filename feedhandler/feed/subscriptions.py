"""The subscriptions of one connection: requests in their order, one in flight, their answers, and the first data.

    wanted ──▶ queued ──▶ sent ──▶ acknowledged ──▶ first data
                  ▲         └─ refused: each topic alone; the one refused alone is rejected for a while
                  ├── lost: taken back and requested again, together with others that were lost meanwhile
                  ├── silent, though the exchange promises repetitions: requested again, with growing patience
                  └── a whole request silent, though its symbols have data on other channels: each topic alone, once

What is wanted are symbols, each in some kinds, and may change at any time; a topic that has become unwanted is
unsubscribed, and what still comes of it is ignored. Several kinds may share a topic. One topic more is subscribed
to, to tell a dead connection from quiet markets: the quote of an instrument that is never quiet, the canary. Where
a market has several paths, a request is of one of them, and each has a canary. Pure: times and answers come in,
requests go out. It knows no exchange.
"""

import collections
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

import msgspec

from feedhandler.data.ticker import TICKER
from feedhandler.data.units import NS_PER_S
from feedhandler.exchanges.arbitration import Arbitration, Line
from feedhandler.exchanges.base import Ack, Channel, Market, Nack
from feedhandler.exchanges.state import State
from feedhandler.exchanges.trades import TradeState

ACK_TIMEOUT_NS: Final = 10 * NS_PER_S
# From the acknowledgement to the first data of a channel that repeats itself.
FIRST_DATA_TIMEOUT_NS: Final = 15 * NS_PER_S
# A request whose topics are all silent was acknowledged so long ago, and other channels of so many of its symbols
# (of all, if they are fewer) have had so many updates in sum: it was not meant for several topics, whatever the
# answer is. A few updates prove nothing: where quotes change there need not be trades.
TOGETHER_TIMEOUT_NS: Final = 15 * NS_PER_S
OTHERS_MIN: Final = 3
OTHER_UPDATES_MIN: Final = 20
UNREADABLE_MIN: Final = (
    3  # frames of a channel, none of which could be decoded: it is not silent, and has no updates
)
ASK_AGAIN_SHIFT_MAX: Final = 4  # patience doubles each time, up to 16 fold: 4 minutes
COMMAND_TRIES_MAX: Final = 3  # an unanswered or transiently refused command, before a new connection
# Between two renewals, and how many may come at once. Where requests are limited, renewals take half of them: one
# is two requests, or more where topics are many.
RENEWAL_NS: Final = NS_PER_S
RENEWALS_MAX: Final = 10
RENEWALS_SHARE: Final = 0.5
# A refusal counts for so long; the next connection after that requests that topic again, alone.
REJECTION_HOLDS_NS: Final = 600 * NS_PER_S


class SubscriptionRequest(msgspec.Struct):
    """A request: waiting for its turn, or for its answer. is_leaving: to unsubscribe these topics, of one path."""

    topics: tuple[str, ...]
    is_leaving: bool = False
    id: str = ""
    tries: int = 0
    not_before_mono_ns: int = 0


class Answered(NamedTuple):
    """When the first answer to a topic came. Our own clock may have been set since: the monotonic time orders."""

    unix_ns: int
    mono_ns: int


class LineSubscriptions:
    """The topics of one line's connections; see the module's first lines.

    The caller reports when a connection begins (`start`) and ends (`reset`), sends what `send` returns at
    `due_mono_ns`, and passes answers on; a reason that is returned is why the connection must be replaced.
    canary is the native symbol of the instrument that is never quiet, "" if there is none.
    """

    def __init__(self, market: Market, states: Iterable[State], line: Line, canary: str = "") -> None:
        self._market = market
        self._canary = canary
        self._line = line.index
        self.states: dict[str, State] = {}  # all that is wanted, by the topics of records
        self._kinds: collections.Counter[str] = collections.Counter()  # how many of each symbol
        requests, per_s = market.requests_max or (0, 0.0)
        self._requests_max, self._per_ns = requests, int(per_s * NS_PER_S)
        limited_ns = int(2 * self._per_ns / (requests * RENEWALS_SHARE)) if requests else 0
        self._renewal_ns = max(RENEWAL_NS, limited_ns)
        self._now = 0
        # The exchange's topic → whose it is, and which of its channels; every other topic here is the exchange's.
        self._channels: dict[str, list[tuple[State, int]]] = {}
        self.rejected: dict[str, str] = {}  # topic → the exchange's reason; kept over reconnections
        self._rejected_mono_ns: dict[str, int] = {}
        self._suspects: set[str] = set()  # topics of a refused request, to be requested one by one
        self.reset()
        self._enter(states)

    def reset(self) -> None:
        """The connection is gone: what was asked for on it is forgotten."""
        self._is_started = False
        self._queue: collections.deque[SubscriptionRequest] = collections.deque()
        self._in_flight: SubscriptionRequest | None = None
        self.path = self._market.paths[0]  # of the request that was sent last
        self._held: set[str] = set()  # what the exchange may be sending: asked for, and not taken back since
        # when requests were
        self._sent: collections.deque[int] = collections.deque(maxlen=self._requests_max)
        self._renewing: dict[str, None] = {}  # topics that are to be renewed,
        self._renewed_until = 0  # and how far the permission for that is used up
        self._answer_due = 0
        self._answered: dict[str, Answered] = {}  # by topic
        self._first_data_due: dict[str, int] = {}  # acknowledged topic → when its first data are due
        self._first_data_next = 0  # the earliest of these times; 0 = there is none
        self._asked_again: dict[str, int] = {}  # topic → how often
        # acknowledged requests: when to look, their topics
        self._together: list[tuple[int, tuple[str, ...]]] = []
        self._together_next = 0  # the earliest of these times; 0 = there is none
        # Topic → frames that could not be decoded since its last update: how many, when the last came, and why.
        self._unreadable: dict[str, tuple[int, int, str]] = {}
        self._is_all_heard = False
        self._refused_canaries: set[str] = set()  # topics
        self._promised: set[Channel] = set()  # of what is acknowledged: channels that repeat themselves

    # --- what is wanted

    def start(self, now: int) -> None:
        """A connection begins: subscribe to all that is wanted."""
        self._is_started, self._now = True, now
        for topic in [t for t, at in self._rejected_mono_ns.items() if now - at >= REJECTION_HOLDS_NS]:
            del self._rejected_mono_ns[topic]
            self.rejected.pop(topic, None)
            self._suspects.add(topic)
        self._ask([*self._channels, *self._canary_topics()])

    def add(self, states: Iterable[State]) -> None:
        """Want these too."""
        canary = self._canary_topics()
        states = list(states)
        joined = self._joined(states)
        topics = self._enter(states)
        self._is_all_heard = False
        for topic in canary:
            if topic in self._channels:
                self._give_up_canary(topic)  # now it is one of those that are wanted
        if self._is_started:
            # Also what is still to be unsubscribed: its values are forgotten, and a quiet market has them but once.
            self._ask(topics)
            self._promised |= self._repeating(joined)
            self.renew([topic for topic in joined if not self._has_every(topic)])

    def _joined(self, states: Iterable[State]) -> list[str]:
        """Return the topics of new states that are had already, for another kind; their snapshots came before."""
        topics = [topic for state in states for topic in self._market.topics(state.native, state.kind)]
        had = self._channels.keys() & self._answered.keys() - self.rejected.keys()
        return [topic for topic in dict.fromkeys(topics) if topic in had]

    def _has_every(self, topic: str) -> bool:
        """True if records of a topic each count: to leave it for a moment would lose some."""
        return any(state.keeps_every for state, _ in self._channels[topic])

    def remove(self, states: Iterable[State]) -> None:
        """Want these no more."""
        topics: list[str] = []
        for state in states:
            del self.states[state.topic]
            self._kinds[state.native] -= 1
            if not self._kinds[state.native]:
                del self._kinds[state.native]
            for channel, topic in enumerate(self._market.topics(state.native, state.kind)):
                self._channels[topic].remove((state, channel))
                if not self._channels[topic]:  # else another kind has it as well
                    topics.append(topic)
        self._promised.intersection_update(self._repeating())
        for topic in topics:
            del self._channels[topic]
            for known in (
                self.rejected,
                self._rejected_mono_ns,
                self._first_data_due,
                self._asked_again,
                self._unreadable,
                self._renewing,
            ):
                known.pop(topic, None)
            self._answered.pop(topic, None)
        self._suspects.difference_update(topics)
        if self._is_started:
            self._unask(topics)
            leaving = {topic for command in self._queue if command.is_leaving for topic in command.topics}
            self._leave([topic for topic in topics if topic in self._held and topic not in leaving])
            self._ask([topic for topic in self._canary_topics() if topic in topics])

    def set_canary(self, native: str) -> None:
        """Have another canary, "" for none."""
        if native == self._canary:
            return
        for topic in self._canary_topics():
            self._give_up_canary(topic)
        self._canary, self._refused_canaries = native, set()
        if self._is_started:
            self._ask(self._canary_topics())

    def _canary_topics(self) -> list[str]:
        """Return what to subscribe to besides what is wanted: nothing, if the canary is wanted anyway."""
        return [topic for topic in self._all_canary_topics if topic not in self._channels]

    @property
    def _all_canary_topics(self) -> Sequence[str]:
        return self._market.canary_topics(self._canary) if self._canary else ()

    def _give_up_canary(self, topic: str) -> None:
        self._answered.pop(topic, None)
        self._suspects.discard(topic)
        if self._is_started:
            self._unask([topic])
            if topic in self._held:
                self._leave([topic])

    def renew(self, topics: Sequence[str]) -> None:
        """Unsubscribe topics and subscribe to them again: the exchange seems to have lost them.

        Those that are lost while other requests are under way, or too soon after the last renewal, go together.
        """
        topics = [t for t in dict.fromkeys(topics) if t in self._answered and t not in self.rejected]
        for topic in self._silent(topics):
            self._asked_again[topic] = self._asked_again.get(topic, 0) + 1
        self._renewing.update(dict.fromkeys(topics))
        self._renew_due()

    def _renew_due(self) -> None:
        if not self._renewing or not self.is_settled:
            return
        if self._renewed_until - self._now > (RENEWALS_MAX - 1) * self._renewal_ns:
            return
        self._renewed_until = max(self._renewed_until, self._now) + self._renewal_ns
        topics = [t for t in self._renewing if t in self._answered and t not in self.rejected]
        self._renewing.clear()
        self._leave(topics)
        self._ask(topics)

    def _enter(self, states: Iterable[State]) -> list[str]:
        """Take states in; returns the topics that nobody wanted before."""
        topics: list[str] = []
        for state in states:
            self.states[state.topic] = state
            self._kinds[state.native] += 1
            for channel, topic in enumerate(self._market.topics(state.native, state.kind)):
                if topic not in self._channels:
                    self._channels[topic] = []
                    topics.append(topic)
                self._channels[topic].append((state, channel))
        return topics

    def _ask(self, topics: Iterable[str]) -> None:
        """Queue requests for topics; those under suspicion each alone."""
        topics = [topic for topic in topics if topic not in self.rejected]
        sound = [topic for topic in topics if topic not in self._suspects]
        self._queue.extend(SubscriptionRequest(batch) for batch in self._batches(sound))
        self._queue.extend(SubscriptionRequest((topic,)) for topic in topics if topic in self._suspects)

    def _leave(self, topics: Sequence[str]) -> None:
        self._queue.extend(SubscriptionRequest(batch, True) for batch in self._batches(topics))

    def _batches(self, topics: Sequence[str]) -> Iterator[tuple[str, ...]]:
        for path in self._market.paths:
            yield from self._market.batches(
                [topic for topic in topics if self._market.path_of(topic) == path]
            )

    def _unask(self, topics: Iterable[str]) -> None:
        """Drop topics from the requests for them that are still to be sent, or to be sent again."""
        dropped = set(topics)
        for command in self._queue:
            if not command.is_leaving:
                command.topics = tuple(topic for topic in command.topics if topic not in dropped)
        self._queue = collections.deque(command for command in self._queue if command.topics)

    # --- requests and answers

    @property
    def is_settled(self) -> bool:
        """True if no request is to be sent, and no answer to come."""
        return not self._queue and self._in_flight is None

    @property
    def due_mono_ns(self) -> int | None:
        """When the next request may go, as far as the others are concerned; None = not yet known."""
        if not self._queue or self._in_flight is not None:
            return None
        is_used_up = self._requests_max > 0 and len(self._sent) == self._requests_max
        return max(self._queue[0].not_before_mono_ns, self._sent[0] + self._per_ns if is_used_up else 0)

    def send(self, now: int, command_id: str) -> bytes:
        """Return the next request, for the socket on `path`; it is in flight until it is answered."""
        assert self._in_flight is None, "one at a time, so that a refusal without an id is understood"
        command = self._in_flight = self._queue.popleft()
        command.id = command_id
        command.tries += 1
        self._sent.append(now)
        self.path = self._market.path_of(command.topics[0])
        self._answer_due = now + ACK_TIMEOUT_NS
        if command.is_leaving:
            self._held.difference_update(command.topics)
            return self._market.unsubscribe(command.topics, command.id)
        self._held.update(command.topics)
        return self._market.subscribe(command.topics, command.id)

    def is_in_flight(self, command_id: str) -> bool:
        """True if this is the request that waits for its answer; "" is an answer that does not name its request."""
        return self._in_flight is not None and command_id in ("", self._in_flight.id)

    def on_answer(self, answer: Ack | Nack, now: int, recv_ns: int) -> str:
        """Take the answer to the request in flight, which came at recv_ns, in Unix time."""
        command, self._in_flight = self._in_flight, None
        assert command is not None, "the caller has looked"
        if isinstance(answer, Nack) and answer.is_transient:
            return self._retry(command, answer.reason, now)
        canary = self._canary_topics()
        topics = [topic for topic in command.topics if topic in self._channels or topic in canary]
        if command.is_leaving:
            if isinstance(answer, Nack) and len(command.topics) > 1:
                # As below: of one that it does not know any more, the others are not to be kept.
                self._queue.extendleft(
                    SubscriptionRequest((topic,), True) for topic in reversed(command.topics)
                )
            return ""  # refused alone or not: what it still says is nobody's
        if isinstance(answer, Nack) and answer.topics:
            refused = [topic for topic in topics if topic in answer.topics]
            self._on_refusal(refused, answer.reason, now, recv_ns)
            self._on_ack([topic for topic in topics if topic not in refused], now, recv_ns)
        elif isinstance(answer, Ack) or (answer.is_satisfied and len(command.topics) == 1):
            self._on_ack(topics, now, recv_ns)
            if isinstance(answer, Nack) and (
                mute := [t for t in self._silent(topics) if t in self._asked_again]
            ):
                self.renew(mute)  # the exchange believes to be sending, and would refuse for ever
        elif len(command.topics) == 1:
            self._on_refusal(topics, answer.reason, now, recv_ns)
        else:
            # One bad topic refuses its whole request: ask for each alone, so that only it is refused.
            self._suspects.update(topics)
            self._queue.extendleft(SubscriptionRequest((topic,)) for topic in reversed(topics))
        return ""

    def _on_refusal(self, topics: Sequence[str], reason: str, now: int, recv_ns: int) -> None:
        """Each of these was refused, and nothing else with it."""
        for topic in topics:
            if topic not in self._channels:
                self._refused_canaries.add(topic)
                self._held.discard(topic)
                continue
            self._suspects.discard(topic)
            self.rejected[topic] = reason
            self._rejected_mono_ns[topic] = now
            if topic not in self._answered:
                self._held.discard(topic)
            self._answered.setdefault(topic, Answered(recv_ns, now))

    def _on_ack(self, topics: Sequence[str], now: int, recv_ns: int) -> None:
        self._suspects.difference_update(topics)
        for topic in topics:
            if topic not in self._answered:
                self._answered[topic] = Answered(recv_ns, now)
                self._begin_trades(topic)
        promised = {topic: own for topic in topics if (own := self._repeating([topic]))}
        self._promised.update(*promised.values())
        self._await_data(promised, now)  # the others may be a quiet market's
        if len(topics) > 1:
            self._look_later(now + TOGETHER_TIMEOUT_NS, tuple(topics))

    def _begin_trades(self, topic: str) -> None:
        for state, _ in self._channels.get(topic, ()):
            if isinstance(state, TradeState):
                state.trades.begin(self._line)

    def _repeating(self, topics: Iterable[str] | None = None) -> set[Channel]:
        """Return the channels of some topics, or of all, that promise to repeat themselves."""
        repeats = self._market.repeats_s
        if not repeats:
            return set()
        wanted = self._channels if topics is None else [topic for topic in topics if topic in self._channels]
        found = {(state.kind, channel) for topic in wanted for state, channel in self._channels[topic]}
        return found & repeats.keys()

    def _retry(self, command: SubscriptionRequest, reason: str, now: int) -> str:
        if command.tries >= COMMAND_TRIES_MAX:
            return f"request refused {command.tries} times: {reason}"
        command.not_before_mono_ns = now + command.tries * NS_PER_S
        self._queue.appendleft(command)
        return ""

    # --- first data

    def watch(self, now: int, *, delivers: bool) -> str:
        """Look for answers and first data that are overdue; delivers: data of others come on this connection."""
        self._now = now
        if self._in_flight is not None and now >= self._answer_due:
            command, self._in_flight = self._in_flight, None
            if reason := self._give_up_waiting(command, now, delivers):
                return reason
        self._ask_again(now)
        self._ask_apart(now)
        self._renew_due()
        return ""

    def _give_up_waiting(self, command: SubscriptionRequest, now: int, delivers: bool) -> str:
        """No answer: data are one. Without any of either, the connection is to blame."""
        is_last = command.tries >= COMMAND_TRIES_MAX and delivers
        if command.is_leaving:
            return "" if is_last else self._retry(command, "no answer", now)
        wanted = [topic for topic in command.topics if topic in self._channels]
        for topic in wanted:
            if heard_ns := self._heard_ns(topic):
                self._on_ack([topic], now, heard_ns)
        command.topics = (*self._silent(wanted), *[t for t in self._canary_topics() if t in command.topics])
        if command.topics and is_last:
            self._await_data(command.topics, now)
        elif command.topics:
            return self._retry(command, "no answer", now)
        return ""

    def _await_data(self, topics: Iterable[str], now: int) -> None:
        """Expect first data, or an answer, to what was requested: with more patience each time that none came."""
        for topic in topics:
            patience = FIRST_DATA_TIMEOUT_NS << min(self._asked_again.get(topic, 0), ASK_AGAIN_SHIFT_MAX)
            self._first_data_due[topic] = due = now + patience
            self._first_data_next = min(self._first_data_next or due, due)

    def _ask_again(self, now: int) -> None:
        """Subscribe again to channels whose first data are overdue, or that were never answered."""
        if not 0 < self._first_data_next <= now:
            return
        due = [topic for topic, at in self._first_data_due.items() if now >= at]
        for topic in due:
            del self._first_data_due[topic]
        self._first_data_next = min(self._first_data_due.values(), default=0)
        under_way = self._under_way()  # they are being renewed, and are looked at again when that is answered
        silent = [topic for topic in self._silent(due) if topic not in under_way]
        for topic in silent:
            self._asked_again[topic] = self._asked_again.get(topic, 0) + 1
        self._ask(silent)  # not unsubscribed before: a quiet market's next update could fall in between

    def _look_later(self, at: int, topics: tuple[str, ...]) -> None:
        self._together.append((at, topics))
        self._together_next = min(self._together_next or at, at)

    def _ask_apart(self, now: int) -> None:
        """Repeat topic by topic what was acknowledged and brought nothing, though others deliver."""
        if not 0 < self._together_next <= now:
            return
        looked, self._together, self._together_next = self._together, [], 0
        for at, topics in looked:
            topics = tuple(
                topic for topic in topics if topic in self._channels and topic not in self.rejected
            )
            if len(topics) < 2 or len(self._silent(topics)) < len(topics):
                continue
            if at > now or not self._do_others_deliver(topics):
                self._look_later(at if at > now else now + TOGETHER_TIMEOUT_NS, topics)
                continue
            under_way = self._under_way()
            self._queue.extend(SubscriptionRequest((topic,)) for topic in topics if topic not in under_way)

    def _under_way(self) -> set[str]:
        """Return the topics of requests that are to be sent, or to be answered."""
        return {topic for command in self._open_requests() for topic in command.topics}

    def _open_requests(self) -> list[SubscriptionRequest]:
        return [*self._queue, *([self._in_flight] if self._in_flight is not None else [])]

    def _do_others_deliver(self, topics: Sequence[str]) -> bool:
        """Return whether other channels of the symbols of some silent topics have had data on this connection."""
        natives = {state.native for topic in topics for state, _ in self._channels[topic]}
        delivering = [
            state for state in self.states.values() if state.native in natives and state.heard(self._line)
        ]
        updates = sum(channel.updates for state in delivering for channel in state.channels)
        count = len({state.native for state in delivering})
        return count >= min(OTHERS_MIN, len(natives)) and updates >= OTHER_UPDATES_MIN

    def _silent(self, topics: Iterable[str]) -> list[str]:
        """Return those of the topics of our symbols without data on this connection."""
        return [topic for topic in topics if topic in self._channels and not self._has_heard(topic)]

    def _has_heard(self, topic: str) -> bool:
        return self._heard_ns(topic) != 0 or topic in self._unreadable

    def _heard_ns(self, topic: str) -> int:
        """Return when a topic last had data on this connection, 0 if it had none."""
        heard: list[int] = [
            state.channels[channel].heard_ns(self._line) for state, channel in self._channels[topic]
        ]
        return max(heard)

    # --- what is not understood

    def on_undecodable(self, topic: str, recv_ns: int, reason: str) -> str:
        """Note a frame that could not be decoded; return of what kind it is, "" if it is of no topic of ours."""
        if topic not in self._channels:
            return ""
        state, channel = self._channels[topic][0]
        count, last_ns, _ = self._unreadable.get(topic, (0, 0, ""))
        if self._heard_ns(topic) > last_ns:
            count = 0
        self._unreadable[topic] = (count + 1, recv_ns, reason)
        return f"channel {channel}" if state.kind == TICKER.name else f"{state.kind}, channel {channel}"

    def states_of(self, topic: str) -> list[State]:
        """Return the states that a topic is about."""
        return [state for state, _ in self._channels.get(topic, ())]

    def unreadable(self, topic: str) -> str:
        """Return why nothing of a channel could be decoded since its last update, "" if that is not so."""
        if topic not in self._unreadable:
            return ""
        count, last_ns, reason = self._unreadable[topic]
        is_failing = count >= UNREADABLE_MIN and last_ns > self._heard_ns(topic)
        return reason if is_failing else ""

    # --- what is known of it

    def unheard(self) -> int:
        """Return how many channels are wanted, not rejected, and without data on this connection."""
        if self._is_all_heard:  # that stays so: no need to look at thousands again each second
            return 0
        heard = sum(state.heard(self._line) for state in self.states.values())
        count = sum(map(len, self._channels.values())) - heard
        self._is_all_heard = not count
        return count - len(self._silent(self.rejected))

    def silent_topics(self) -> list[str]:
        """Return those of them that should have had data."""
        if self._is_all_heard:
            return []
        return [topic for topic in self._silent(self._asked_again) if topic not in self.rejected]

    @property
    def symbol_count(self) -> int:
        """How many symbols are wanted, in whatever kinds."""
        return len(self._kinds)

    @property
    def topic_count(self) -> int:
        """How many topics are wanted."""
        return len(self._channels)

    @property
    def canary(self) -> str:
        """The native symbol of an instrument that is never quiet, "" for none."""
        return self._canary

    def has_canary(self, path: str) -> bool:
        """Return whether an instrument that is never quiet has been subscribed to on a path."""
        return any(
            topic in self._answered
            and topic not in (self.rejected if topic in self._channels else self._refused_canaries)
            for topic in self._all_canary_topics
            if self._market.path_of(topic) == path
        )

    def repeats_ns(self, path: str) -> int:
        """Return within what time a channel that was acknowledged on a path repeats itself; 0: none promises to."""
        repeats_s = [
            self._market.repeats_s[kind, channel]
            for kind, channel in self._promised
            if self._market.path_of(self._market.topics("", kind)[channel]) == path
        ]
        return int(min(repeats_s, default=0) * NS_PER_S)

    @property
    def is_acknowledged(self) -> bool:
        """True if all that is wanted was requested and answered, and not all of it refused."""
        return self.is_settled and any(topic not in self.rejected for topic in self._answered)

    def pending(self) -> int:
        """Return how many topics are still to be requested or to be answered."""
        return sum(len(command.topics) for command in self._open_requests())

    def answered_ns(self, topic: str) -> int:
        """Return when a topic was first answered on this connection, in Unix time; 0 = not yet."""
        return self._answered[topic].unix_ns if topic in self._answered else 0

    def is_granted(self, topic: str) -> bool:
        """True if a topic was acknowledged on this connection."""
        return topic in self._answered and topic not in self.rejected

    def refusal(self, topic: str) -> str:
        """Return why a topic was refused, "" if it was not."""
        return self.rejected.get(topic, "")

    def answered_channels(self) -> Iterator[tuple[Arbitration, int]]:
        """Yield each channel, and when it was first answered, in Unix ns; 0 = not yet.

        One whose refusal is known from another connection is not requested: it counts as answered with the last.
        """
        newest_ns = max((answered.unix_ns for answered in self._answered.values()), default=0)
        for topic, own in self._channels.items():
            answered_ns = self.answered_ns(topic) or (newest_ns if topic in self.rejected else 0)
            for state, channel in own:
                yield state.channels[channel], answered_ns

    def brings(self, state: State) -> bool:
        """True if all channels of a state were acknowledged on this connection."""
        topics = self._market.topics(state.native, state.kind)
        return all(topic in self._answered and topic not in self.rejected for topic in topics)

    def brings_since(self, state: State) -> Answered | None:
        """Return since when this connection brings a state; None = it does not."""
        if not self.brings(state):
            return None
        topics = self._market.topics(state.native, state.kind)
        return max((self._answered[topic] for topic in topics), key=lambda answered: answered.mono_ns)

    def learn_from(self, other: "LineSubscriptions") -> None:
        """Take over what the exchange refused to another connection."""
        self.rejected |= other.rejected
        self._rejected_mono_ns |= other._rejected_mono_ns
        self._suspects |= other._suspects
