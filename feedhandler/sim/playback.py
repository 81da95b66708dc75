"""A recording in the place of a market: what was received is sent again, and what REST answered is answered again.

    events ─▶ ahead ──frames that are due──▶ streams that somebody has subscribed to
                └──────answers─────────────▶ requests

Pure: events come from an iterator, times from the caller. A recording may have a topic on several connections; one
of them counts, until it is closed, and then the next that has it.
"""

import hashlib
import re
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from enum import Enum
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from feedhandler.sim.protocol import NS_PER_S, DataStream, Exchange, HttpAnswer, HttpRequest, Now
from feedhandler.sim.reading import Ids, KeptState, TrafficReading

LOOK_AHEAD_NS: Final = 5 * NS_PER_S  # of the recording: a client may ask sooner than whoever recorded it did
LOOK_AHEAD_SIZE: Final = 64 << 20
TICK_SIZE: Final = 256 << 10  # of one exchange, between two looks at what its clients have read
IDLE_NS: Final = NS_PER_S // 20
ANSWERS_MAX: Final = 64  # of one path and query, the newest
ROW_LASTS_NS: Final = 180 * NS_PER_S  # of a list: open interest and the like are promised to be no older
BEHIND_MAX: Final = 64  # frames of a topic by which one connection may be ahead of another
# Parameters of requests for a part: who asks with one wants no answer that was given without, nor the other way.
OF_A_PART: Final = frozenset({"symbol", "instId", "cursor"})
_VERSION: Final = re.compile(r"/v\d+/")
NOTHING: Final = Ids(0, 0)
# where a recorded answer has other levels than are asked for, it is better than none
LEVELS: Final = frozenset({"limit", "sz"})


class EventKind(Enum):
    """RESET: what was recorded from here on follows from nothing before."""

    RECEIVED = 1
    ANSWERED = 2
    CLOSED = 3
    RESET = 4


class RecordedEvent(NamedTuple):
    """One piece of recorded traffic; name is what was answered, as it is asked for here: path and query.

    market is that of the connection, "" the main one.
    """

    kind: EventKind
    at_ns: int
    connection: str = ""
    name: str = ""
    data: bytes = b""
    market: str = ""


class Playback:
    """The time of recordings that are played together. speed 0: as fast as clients read."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self.begun_mono_ns = 0  # 0: it has not
        self._first_ns = 0

    def begin(self, first_ns: int, mono_ns: int) -> None:
        """Let time pass from now on, from then on in the recordings."""
        self._first_ns, self.begun_mono_ns = first_ns, mono_ns

    def mono_at(self, at_ns: int) -> int:
        """Return when a moment of the recordings is due."""
        if not self.speed:
            return self.begun_mono_ns
        return self.begun_mono_ns + int((at_ns - self._first_ns) / self.speed)


class RecordedAnswer(NamedTuple):
    at_ns: int
    query: dict[str, str]
    body: bytes


class RecordedAnswers:
    """What REST has answered, by path."""

    def __init__(self) -> None:
        self._by_path: dict[str, dict[str, deque[RecordedAnswer]]] = {}

    def add(self, url: str, at_ns: int, body: bytes) -> None:
        parts = urlsplit(url)
        of_path = self._by_path.setdefault(_unversioned(parts.path), {})
        kept = of_path.setdefault(parts.query, deque(maxlen=ANSWERS_MAX))
        kept.append(RecordedAnswer(at_ns, dict(parse_qsl(parts.query)), body))

    def bodies(self, wanted: Callable[[HttpRequest], bool]) -> Iterator[bytes]:
        """Yield the answers to requests that are wanted."""
        for path, of_path in self._by_path.items():
            for kept in of_path.values():
                if wanted(HttpRequest(method="GET", path=path, query=list(kept[0].query.items()))):
                    yield from (answer.body for answer in kept)

    def newest(self, request: HttpRequest, at_ns: int) -> RecordedAnswer | None:
        """Return what was answered last at that time, or else first; None if nothing was."""
        query = dict(request.query)
        fitting = [
            kept
            for kept in self._by_path.get(_unversioned(request.path), {}).values()
            if _fits(kept[0].query, query)
        ]
        if not fitting:
            return None
        kept = max(fitting, key=lambda each: _likeness(each[0].query, query))
        before = [answer for answer in kept if answer.at_ns <= at_ns]
        return before[-1] if before else kept[0]


def _unversioned(path: str) -> str:
    """Return a path whatever its version: what is recorded may be of an earlier one."""
    return _VERSION.sub("/", path)


def _fits(recorded: dict[str, str], asked: dict[str, str]) -> bool:
    """True if an answer to one query is one to another: nothing that both state differs."""
    shared = recorded.keys() & asked.keys() - LEVELS
    return OF_A_PART & recorded.keys() == OF_A_PART & asked.keys() and all(
        recorded[key] == asked[key] for key in shared
    )


def _likeness(recorded: dict[str, str], asked: dict[str, str]) -> tuple[int, int]:
    """Return how much of what was asked two queries share, and how little else there is."""
    return len(recorded.items() & asked.items()), -len(recorded)


class _Topic:
    """What is known of one topic."""

    def __init__(self, channel: str, symbol: str) -> None:
        self.channel = channel
        self.symbol = symbol
        self.payload = b""  # the newest that was sent
        self.carrier: str | None = None  # the connection that counts
        self.keepers: dict[str, KeptState] = {}  # by connection
        self._sent: OrderedDict[bytes, None] = OrderedDict()  # digests, the newest last
        self._waiting: OrderedDict[bytes, tuple[str, bytes]] = OrderedDict()  # of others, and not sent yet

    def note(self, payload: bytes) -> None:
        """Note what the connection that counts brings."""
        digest = _digest(payload)
        self._waiting.pop(digest, None)
        self._sent[digest] = None
        if len(self._sent) > BEHIND_MAX:
            self._sent.popitem(last=False)

    def wait(self, connection: str, payload: bytes) -> None:
        """Note what another connection brings: it is wanted if the one that counts does not come to it."""
        digest = _digest(payload)
        if digest not in self._sent:
            self._waiting[digest] = connection, payload
            if len(self._waiting) > BEHIND_MAX:
                self._waiting.popitem(last=False)

    def take_over(self, connection: str) -> list[bytes]:
        """Let a connection count; returns what it has brought before, and nobody was sent."""
        self.carrier = connection
        missed = [payload for whose, payload in self._waiting.values() if whose == connection]
        behind = {digest for digest, (whose, _) in self._waiting.items() if whose == connection}
        self._sent.update(dict.fromkeys(behind))
        self._waiting.clear()
        return missed

    def forget(self, connection: str) -> None:
        """A connection is closed."""
        self.keepers.pop(connection, None)
        if self.carrier == connection:
            self.carrier = None

    def reset(self) -> None:
        """What comes follows from nothing before."""
        self.carrier = None
        self.keepers.clear()
        self._sent.clear()
        self._waiting.clear()


def _digest(payload: bytes) -> bytes:
    return hashlib.blake2b(payload, digest_size=8).digest()


class Recording:
    """One exchange's traffic, as a schedule, and as what there is to send.

    The exchange that it joins answers what is no data, and has_room tells whether clients have read.
    recorded and sent count frames by channel: those that one connection brought, and those that a client got.
    """

    def __init__(self, reading: TrafficReading, events: Iterator[RecordedEvent], playback: Playback) -> None:
        self._exchange: Exchange | None = None
        self._has_room: Callable[[], bool] = lambda: True
        self._reading = reading
        self._events = events
        self._playback = playback
        self._ahead: deque[RecordedEvent] = deque()
        self._ahead_size = 0
        # How far it is read, by the clock of whoever recorded it, which may have been set back.
        self._read_ns = 0
        self._position_ns = 0
        self._is_read = False
        self._topics: dict[str, _Topic] = {}
        self._streams: dict[str, DataStream] = {}
        self._first: dict[str, set[str]] = {}  # by market: the topics that are ahead before time passes
        self._had: dict[str, Ids] = {}  # by symbol: what its newest subscriber has had of changes
        self._answers = RecordedAnswers()
        self.recorded: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.others = 0  # frames that are no data
        self.unanswered: Counter[str] = Counter()  # requests, by path
        self.skipped = 0
        self.late_ns = self.late_ns_max = 0
        self._look_ahead()

    def join(self, exchange: Exchange, has_room: Callable[[], bool]) -> None:
        """Have it sent by an exchange."""
        self._exchange, self._has_room = exchange, has_room

    @property
    def first_ns(self) -> int:
        """When the first event that is not sent yet was recorded; 0: there is none."""
        return self._ahead[0].at_ns if self._ahead else 0

    @property
    def is_over(self) -> bool:
        return self._is_read and not self._ahead

    @property
    def unsubscribed(self) -> list[str]:
        """The markets that it begins with, and nobody has subscribed to."""
        return [market for market, topics in self._first.items() if topics.isdisjoint(self._streams)]

    @property
    def begins_later(self) -> bool:
        """Whether data come later than what it has read before time passes: of what market is not known yet."""
        return not self._first and not self._is_read

    # --- what is to come

    def _look_ahead(self) -> None:
        ahead = self._ahead
        while not self._is_read and not (
            ahead and (ahead[-1].at_ns - ahead[0].at_ns > LOOK_AHEAD_NS or self._ahead_size > LOOK_AHEAD_SIZE)
        ):
            event = next(self._events, None)
            if event is None:
                self._is_read = True
            elif event.kind is EventKind.ANSWERED:
                self._answers.add(event.name, event.at_ns, event.data)
            else:
                self._read_ns = max(self._read_ns, event.at_ns)
                if not self._playback.begun_mono_ns:
                    self._note_first(event)
                ahead.append(event._replace(at_ns=self._read_ns))
                self._ahead_size += len(event.data)

    def _note_first(self, event: RecordedEvent) -> None:
        if event.kind is EventKind.RECEIVED:
            topic = self._reading.topic_of(event.data, event.market)
            if topic:
                self._first.setdefault(event.market, set()).add(topic)

    # --- a schedule

    def start(self, stream: DataStream, mono_ns: int) -> None:
        self._streams[stream.topic] = stream

    def stop(self, stream: DataStream) -> None:
        self._streams.pop(stream.topic, None)

    def run(self, now: Now, send: Callable[[DataStream], None]) -> None:
        if self._playback.begun_mono_ns and self._has_room():
            self._advance(now, send)

    def show(self, instrument: object, now: Now, send: Callable[[DataStream], None]) -> None:
        """There is no market that could change by command."""

    def pause(self, now: Now) -> None:
        """What is due is lost; where nothing is due before it is read, it waits."""
        if self._playback.begun_mono_ns and self._playback.speed:
            self._advance(now, None)

    def next_due_ns(self, mono_ns: int) -> int:
        if not self._playback.begun_mono_ns or not self._ahead:
            return mono_ns + IDLE_NS
        return self._playback.mono_at(self._ahead[0].at_ns)

    def _advance(self, now: Now, send: Callable[[DataStream], None] | None) -> None:
        ahead, mono_at, left = self._ahead, self._playback.mono_at, TICK_SIZE
        while ahead and left > 0 and mono_at(ahead[0].at_ns) <= now.mono_ns:
            event = ahead.popleft()
            self._ahead_size -= len(event.data)
            left -= len(event.data)
            self._position_ns = event.at_ns
            self._play(event, send)
            self._look_ahead()
        due_ns = mono_at(ahead[0].at_ns) if ahead else now.mono_ns
        self.late_ns = max(0, now.mono_ns - due_ns) if self._playback.speed else 0
        self.late_ns_max = max(self.late_ns_max, self.late_ns)

    def _play(self, event: RecordedEvent, send: Callable[[DataStream], None] | None) -> None:
        if event.kind is EventKind.CLOSED:
            for topic in self._topics.values():
                topic.forget(event.connection)
        elif event.kind is EventKind.RESET:
            for topic in self._topics.values():
                topic.reset()
        elif name := self._reading.topic_of(event.data, event.market):
            self._receive(name, event, send)
        else:
            self.others += 1

    def _receive(self, name: str, event: RecordedEvent, send: Callable[[DataStream], None] | None) -> None:
        found = self._topic(name)
        is_kept = self._keep(name, found, event)
        if found.carrier is None:
            missed = found.take_over(event.connection)
            if is_kept and found.payload:  # its ids need not be of one count with those before
                shown = found.keepers[event.connection].show()
                missed = [] if shown is None else [shown]
            for payload in missed:
                self._send(name, found, payload, send)
            if is_kept and missed:
                return  # this message is in it
        if found.carrier != event.connection:
            found.wait(event.connection, event.data)
            return
        found.note(event.data)
        self._send(name, found, event.data, send)

    def _topic(self, name: str) -> _Topic:
        found = self._topics.get(name)
        if found is None:
            found = self._topics[name] = _Topic(*self._reading.split(name))
        return found

    def _keep(self, name: str, found: _Topic, event: RecordedEvent) -> bool:
        keeper = found.keepers.get(event.connection) or self._reading.keeper(name)
        if keeper is None:
            return False
        found.keepers[event.connection] = keeper
        keeper.take(event.data)
        return True

    def _send(
        self, name: str, found: _Topic, payload: bytes, send: Callable[[DataStream], None] | None
    ) -> None:
        self.recorded[found.channel] += 1
        found.payload = payload
        stream = self._streams.get(name)
        if stream is None:
            return
        if found.channel in self._reading.changes:
            first, last = self._reading.ids(payload)
            had = self._had.get(found.symbol, NOTHING)
            self._had[found.symbol] = Ids(had.first or first, last)
        if send is None or stream.is_muted:
            return
        self.sent[found.channel] += not (stream.is_lost or stream.lost_messages)
        send(stream)

    # --- what there is to send

    def stream(self, topic: str) -> DataStream | None:
        """Make the stream of a topic, recorded or not."""
        reading, found = self._reading, self._topic(topic)

        def encode(variant: int, now: Now) -> bytes:
            return reading.shown(topic, found.payload, variant)

        assert self._exchange is not None
        return DataStream(topic, self._exchange.instruments[0], encode)  # of which nothing is sent

    def snapshot(self, stream: DataStream, variant: int, now: Now) -> bytes | None:
        found = self._topics[stream.topic]
        if found.channel in self._reading.changes:
            had = self._had.get(found.symbol, NOTHING)
            # this subscriber has had none, and gets those that follow
            self._had[found.symbol] = Ids(0, had.last)
        keeper = found.keepers.get(found.carrier) if found.carrier is not None else None
        shown = keeper.show() if keeper is not None else None
        return None if shown is None else self._reading.shown(stream.topic, shown, variant)

    def symbols_of(self, stream: DataStream) -> str:
        return self._reading.split(stream.topic)[1]

    def rest(self, request: HttpRequest, now: Now) -> HttpAnswer:
        assert self._exchange is not None
        if request.path in self._reading.live:
            return self._exchange.rest(request, now)
        book = self._reading.asked_book(request)
        body = self._base(book) if book else self._answered(request)
        body = body or self._row(request) or self._reading.without_rows(request)
        if body is None:
            self.unanswered[request.path] += 1
            return self._exchange.throttled(503, 1, now)
        return HttpAnswer(body=body)

    def _answered(self, request: HttpRequest) -> bytes | None:
        found = self._answers.newest(request, self._position_ns)
        return None if found is None else found.body

    def _row(self, request: HttpRequest) -> bytes | None:
        """Return what a list said of what is asked for, if it is not of long ago: some of it is of a moment."""
        asked = self._reading.list_with(request)
        found = None if asked is None else self._answers.newest(asked, self._position_ns)
        if found is None or self._position_ns - found.at_ns > ROW_LASTS_NS:
            return None
        return self._reading.row(request, found.body)

    def _base(self, symbol: str) -> bytes | None:
        """Return the book from which what the newest subscriber has had goes on: the newest, or else the next."""
        reading = self._reading
        first, last = self._had.get(symbol, NOTHING)
        bodies = self._answers.bodies(lambda request: reading.asked_book(request) == symbol)
        by_id = {reading.base_id(body): body for body in bodies}
        fitting = sorted(number for number in by_id if number and number >= (first - 1 if first else last))
        reached = [number for number in fitting if number <= last]
        chosen = reached[-1:] or fitting[:1]
        return by_id[chosen[0]] if chosen else None
