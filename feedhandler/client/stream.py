"""What each subscriber is made of, whatever loop drives it: the stream's socket, the one for what was missed, and
the records that have come and were not seen before.

The loop calls back when there is something to read; `poll` is to be called whenever it turns.
"""

import collections
import functools
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from feedhandler.client.recovery import Recovery
from feedhandler.client.silence import Doubt, nobody_listens, reason, states_of, statuses_in
from feedhandler.client.subscribed_books import BOOKS_MAX, SubscribedBooks, book_prefixes
from feedhandler.client.subscribed_books import WORD as BOOKS
from feedhandler.data import modes, wire
from feedhandler.data.errors import UNDECODABLE
from feedhandler.data.kept_book import Book
from feedhandler.data.kinds import BY_CODE, keeps_every
from feedhandler.transport import endpoints
from feedhandler.transport.follower import Aside, Follower, Loss, Record
from feedhandler.transport.links import Downlink
from feedhandler.transport.loop import Events
from feedhandler.transport.router import Dealer
from feedhandler.transport.subscribing import is_narrow

log = logging.getLogger(__name__)

DEFAULT_ENDPOINT: Final = "tcp://127.0.0.1:5555"
RECONNECT_S: Final = 0.1  # how often a publisher that is away is looked for: on loopback, nobody minds
RELAY_EVERY_S: Final = 1.0  # the same for the relay, which nobody waits for
TICKS_IPC: Final = "/ticks.ipc"
BATCHES_IPC: Final = "/batches.ipc"
# Records that wait for their consumer, some 6 MB. What comes on top waits at the publisher, where the mode decides.
PENDING_MAX: Final = 10_000
HEARTBEATS: Final = b"heartbeat."
STATUSES: Final = [b"status."]
SUBSCRIBED_MAX: Final = wire.TOPIC_SIZE  # of a prefix: it may end with the NUL
FIRST_WORDS: Final = tuple(f"{word}.".encode() for word in wire.TOPIC_WORDS)


class Curve(NamedTuple):
    """Keys for a publisher on another host, as files: our secret key, and its public one."""

    key: str
    server: str

    def sockets(self) -> tuple[Callable[..., Any], Callable[..., Any]]:
        """Return what makes a Downlink and a Dealer of libzmq's. Raises ConfigError that names the file."""
        from feedhandler.transport import remote  # most subscribers need none of it
        from feedhandler.transport.keys import load_pair, load_public

        keys: dict[str, Any] = {
            "keys": load_pair(self.key, "key"),
            "server_key": load_public(self.server, "server"),
        }
        return functools.partial(remote.Downlink, **keys), functools.partial(remote.Dealer, **keys)


class Link:
    """A connection to a publisher, with its declared mode, its signs of life, and a follower for what comes."""

    def __init__(
        self,
        events: Events,
        endpoint: str,
        topics: Iterable[str],
        make_follower: Callable[[Aside], Follower],
        *,
        mode: str | int = "",
        curve: Curve | None = None,
        is_patient: bool = False,
    ) -> None:
        """Raises ValueError for an endpoint, topic or mode that cannot be, TypeError if topics is no list, and
        ConfigError for keys that do not exist. is_patient: as for the sockets.
        """
        check_endpoint(endpoint)
        declaration = declaration_of(mode)
        if curve is not None and declaration:
            raise ValueError(
                f"mode is {mode!r}, and the relay has no modes for other hosts: libzmq sends the same to all; leave"
                " mode out"
            )
        self.is_conflated = modes.is_conflated(declaration)
        self.endpoint = endpoint
        self.prefixes = prefixes_of(topics)
        if endpoint.endswith(BATCHES_IPC) and (narrow := list(filter(is_narrow, self.prefixes))):
            raise ValueError(
                f"topics has {narrow[0].decode()!r}, and {endpoint!r} has batches of an exchange or more;"
                " subscribe to all of it there, or take the ticks endpoint"
            )
        self._hands_on_heartbeats = any(
            HEARTBEATS.startswith(prefix) or prefix.startswith(HEARTBEATS) for prefix in self.prefixes
        )
        # What heartbeats come by is the last: with the first of them all the others are in force.
        prefixes = sorted(self.prefixes, key=lambda prefix: prefix.startswith(HEARTBEATS))
        prefixes = [declaration, *prefixes] if declaration else prefixes
        if not self._hands_on_heartbeats:
            prefixes.append(HEARTBEATS)
        self.notice = modes.Notice()  # the last notice of the publisher about this subscriber
        self.heartbeat: wire.Document | None = None
        self._heard_mono_s = -math.inf
        self.follower = make_follower({wire.NOTICE: self._on_notice, wire.HEARTBEAT: self._on_heartbeat})
        connect: Callable[..., Any] = functools.partial(Downlink, is_patient=is_patient)
        self._make_dealer: Callable[..., Any] = functools.partial(Dealer, is_patient=is_patient)
        if curve is not None:
            connect, self._make_dealer = curve.sockets()
        conflated = {"is_conflated": True} if self.is_conflated else {}
        self._downlink = connect(events, endpoint, prefixes, self.follower, **conflated)
        self.is_closed = False
        self._doubt: Doubt | None = Doubt(
            self, lambda follower: connect(events, endpoint, STATUSES, follower)
        )

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection to the publisher, as far as the loop has seen."""
        return bool(self._downlink.is_connected)

    @property
    def silence_s(self) -> float:
        """How long ago the publisher's last sign of life came, of which there is one a second; infinite before."""
        return time.monotonic() - self._heard_mono_s

    def poll(self) -> None:
        """Connect if there is no connection. Raises RuntimeError once this is closed."""
        # hot: `make bench`
        if self.is_closed:
            raise RuntimeError("the subscriber is closed; make another one")
        self._downlink.poll()
        if self._doubt is not None and (self.follower.losses or not self._doubt.look()):
            self._doubt.close()
            self._doubt = None

    def _on_notice(self, document: wire.Document) -> bool:
        try:
            self.notice = msgspec.json.decode(document.body, type=modes.Notice)
        except UNDECODABLE:
            return True
        if self.notice.error:
            log.warning("the declared mode has no effect: %s", self.notice.error)
        return True

    def _on_heartbeat(self, document: wire.Document) -> bool:
        """Note a sign of life; it is a record for those who subscribed to it, and for nobody else."""
        self._heard_mono_s = time.monotonic()
        self.heartbeat = document
        self._on_life(document)
        return not self._hands_on_heartbeats

    def _on_life(self, heartbeat: wire.Document) -> None:
        """Somebody else may want to know."""

    def close(self) -> None:
        """Close the socket; what is queued is dropped."""
        self.is_closed = True
        self._downlink.close()
        if self._doubt is not None:
            self._doubt.close()


class Stream(Link):
    """Records of the topics that start with one of the prefixes, in order, each once.

    mode is how they are wanted: "" or "all", "latest", or the milliseconds of an interval. recover: whether missing
    records are requested, True: of the relay beside the endpoint, or an endpoint; None: there, and only those of
    kinds that keep every record; in conflated modes nothing is missing. relay_events is the loop of that socket, if
    it is another one.
    """

    def __init__(
        self,
        events: Events,
        endpoint: str,
        topics: Iterable[str],
        *,
        mode: str | int = "",
        recover: bool | str | None = None,
        curve: Curve | None = None,
        is_patient: bool = False,
        relay_events: Events | None = None,
    ) -> None:
        self.records: collections.deque[Record] = collections.deque()
        self.books: SubscribedBooks | None = None
        super().__init__(
            events,
            endpoint,
            topics,
            self._make_follower,
            mode=mode,
            curve=curve,
            is_patient=is_patient,
        )
        emit = self.records.append if self.books is None else self.books.take
        self._recovery = Recovery(self.follower, emit, time.monotonic_ns, takes_latest=bool(recover))
        self._ends = 0  # of connections, as far as was noticed
        self._dealer: Dealer | None = None
        if recover is None:
            recover = knows_recover_endpoint(endpoint) and any(map(_keeps_every, self.prefixes))
        where = recover_endpoint(endpoint) if recover is True else recover
        if where and not self.is_conflated:
            check_endpoint(where)
            self._dealer = self._make_dealer(
                relay_events or events, where, self._on_answer, self._on_relay_gone
            )
            self.follower.on_gap = self._recovery.on_gap
        self._relay_mono_s = -RELAY_EVERY_S

    def _make_follower(self, aside: Aside) -> Follower:
        if self.is_conflated or not book_prefixes(self.prefixes):
            return Follower(self.records.append, aside=aside)
        self.books = SubscribedBooks(self.prefixes, self.records.append, time.monotonic_ns)
        follower = Follower(self.records.append, aside=aside, emit_other=self.books.take)
        self.books.newest = follower.newest
        return follower

    @property
    def recovered(self) -> int:
        """How many records came after all, because they were requested."""
        return self._recovery.recovered

    @property
    def is_recovering(self) -> bool:
        """True while something is missing and may still come: then `poll` is to be called after each read."""
        return self._recovery.is_recovering or (self.books is not None and self.books.is_asking)

    def poll(self) -> None:
        """Connect what is not connected, and ask for what is missing."""
        # hot: `make bench`
        if self.books is not None and self._downlink.ends != self._ends:
            self._ends = self._downlink.ends
            self.books.on_disconnect()
        super().poll()
        if self._dealer is not None:
            self._poll_relay(self._dealer)

    def _poll_relay(self, dealer: Dealer) -> None:
        if not dealer.is_ready:
            now_s = time.monotonic()
            if now_s - self._relay_mono_s >= RELAY_EVERY_S:
                self._relay_mono_s = now_s
                dealer.poll()
            return
        self._recovery.is_connected = True
        if self._recovery.is_recovering:
            if (request := self._recovery.request()) is not None:
                dealer.send(request)  # first: a program that was busy for a while has sent none yet
            self._recovery.on_time()
        if self.books is not None:
            self.books.is_connected = True
            if (request := self.books.request()) is not None:
                dealer.send(request)

    def _on_answer(self, frames: list[bytes]) -> None:
        if self.books is None or not self.books.on_answer(frames):
            self._recovery.on_answer(frames)

    def _on_relay_gone(self) -> None:
        self._recovery.on_disconnect()
        if self.books is not None:
            self.books.on_relay_gone()

    def _on_life(self, heartbeat: wire.Document) -> None:
        if self.books is not None:
            self.books.on_heartbeat(heartbeat.session)

    def take(self, count: int) -> list[Record]:
        """Return the first records that wait, at most so many."""
        records = self.records
        if count >= len(records):
            taken = list(records)
            records.clear()
            return taken
        return [records.popleft() for _ in range(count)]

    def condense(self) -> None:
        """Keep only the newest record of each topic of those that wait; the others count as lost."""
        newest = {record.topic: record for record in self.records}
        for record in self.records:
            if newest[record.topic] is not record:
                self.follower.losses[record.topic].lost += 1
        # In order still: a topic has the place of its newest record.
        kept = [record for record in self.records if newest[record.topic] is record]
        self.records.clear()
        self.records.extend(kept)

    def close(self) -> None:
        super().close()
        if self._dealer is not None:
            self._dealer.close()


class Subscription:
    """What every subscriber reports about its stream, whatever it hands on, and however it waits."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def close(self) -> None:
        """Close the sockets; what is queued is dropped."""
        self._link.close()

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection to the publisher, as far as was seen when it was last read from."""
        return self._link.is_connected

    @property
    def silence_s(self) -> float:
        """Seconds since the publisher's last sign of life, as far as this subscriber has read; infinite before one.

        The merger gives one each second, and it is subscribed to in any case. No record can state that the merger
        itself is gone: this does, and `is_connected`.
        """
        return self._link.silence_s

    @property
    def losses(self) -> dict[str, Loss]:
        """What is known of each topic's sequence."""
        return self._link.follower.losses

    @property
    def lost(self) -> int:
        """How many records never arrived, over all topics; in a conflated mode, those that were passed over."""
        return sum(loss.lost for loss in self.losses.values())

    @property
    def undecodable(self) -> int:
        """How many messages this version could not read."""
        return self._link.follower.undecodable

    @property
    def notice(self) -> modes.Notice:
        """The publisher's last notice about this subscriber: its mode, and how much was passed over."""
        return self._link.notice


class RecordSubscription(Subscription):
    """The same of those that hand on records as objects."""

    def __init__(self, stream: Stream) -> None:
        super().__init__(stream)
        self._stream = stream
        self._records = stream.records
        self._is_stopping = False

    @property
    def recovered(self) -> int:
        """How many records came after all, because they were requested."""
        return self._stream.recovered

    @property
    def books(self) -> Mapping[str, Book]:
        """The books of all topics of which something has come, as of what has come, whether it was returned or not.

        Empty in a conflated mode: a book needs each record.
        """
        return {} if self._stream.books is None else self._stream.books.by_topic

    def book(self, topic: str) -> Book:
        """Return the book of a topic, which is kept from then on; `is_valid` says whether it may be used.

        Raises ValueError for a topic that is no book's, or is not subscribed to, and in a conflated mode.
        """
        books, topic = self._stream.books, plain(topic)
        check_subscribed(self._stream, topic, "asked for")
        if books is None:
            raise ValueError("a book needs each record; leave mode out")
        if not topic.startswith(BOOKS):
            raise ValueError(f"{topic!r} is no topic of a book: those begin with {BOOKS!r}")
        found = books.book(topic)
        if found is None:
            raise ValueError(f"more than {BOOKS_MAX} books; subscribe to fewer, or in several subscribers")
        return found

    def newest(self, topic: str) -> Record | None:
        """Return a topic's newest record that has come, whether it was returned yet or not; None before one."""
        return self._stream.follower.newest.get(plain(topic))

    def age_s(self, topic: str) -> float:
        """Return how long ago the feed received the newest record's data of a topic, in seconds; inf before one.

        The clocks are this host's and the feed's. STALE and DOWN records are as old as the data that they repeat.
        """
        record = self.newest(topic)
        return math.inf if record is None else max(0.0, (time.time_ns() - record.recv_ns) / 1e9)


class Awaited:
    """Topics of which a live record is waited for."""

    def __init__(self, stream: Stream, topics: Sequence[str]) -> None:
        """Raises ValueError for a topic that is not subscribed to."""
        self._stream = stream
        self._topics = [plain(topic) for topic in topics]
        self._missing = list(self._topics)
        for topic in self._topics:
            check_subscribed(stream, topic, "waited for")

    def is_there(self) -> bool:
        """True once each has had a live record; what waits for the consumer is kept within its limit meanwhile."""
        self._missing = [topic for topic in self._missing if not self._is_live(topic)]
        return not self._missing

    def _is_live(self, topic: str) -> bool:
        record = self._stream.follower.newest.get(topic)
        if self._stream.books is not None and topic.startswith(BOOKS):
            book = self._stream.books.by_topic.get(topic)
            return record is not None and book is not None and book.is_valid
        return record is not None and record.is_live

    def found(self) -> dict[str, Record]:
        """Return the newest record of each."""
        return {topic: self._stream.follower.newest[topic] for topic in self._topics}

    def timeout(self, timeout_s: float | None) -> TimeoutError:
        """Return the error that names what is missing, and why as far as it is known."""
        why = "; ".join(f"{topic}: {self._why(topic)}" for topic in self._missing[:10])
        more = f"; and {len(self._missing) - 10} more" if len(self._missing) > 10 else ""
        return TimeoutError(f"not live within {timeout_s} s: {why}{more}")

    def _why(self, topic: str) -> str:
        stream = self._stream
        if not stream.is_connected:
            return nobody_listens(stream.endpoint)
        record = stream.follower.newest.get(topic)
        statuses = statuses_in(stream.follower.newest.values())
        why = reason(topic, states_of(stream.heartbeat), statuses)
        seen = "no record has come" if record is None else f"its newest record is {record.flag_names}"
        if stream.books is not None and (book := stream.books.by_topic.get(topic)) is not None:
            seen = f"it is not valid: {book.reason}"
        return f"{seen}; {why}" if why else seen


def exact(topic: str) -> str:
    """Return the prefix that this topic alone begins with: `BTC/USD` is one of `BTC/USDT`, and this is not."""
    return topic.rstrip("\0") + "\0"


def check_subscribed(stream: Link, topic: str, what: str) -> None:
    """Raise ValueError for a topic that is not subscribed to; what says what it is for."""
    if not any(wire.padded(topic).startswith(prefix) for prefix in stream.prefixes):
        raise ValueError(
            f"{topic!r} is {what} and not subscribed to; add it to topics="
            f"{[prefix.decode() for prefix in stream.prefixes]}"
        )


def plain(topic: str) -> str:
    """Return a topic as records have it."""
    return topic.rstrip("\0")


def check_endpoint(endpoint: str) -> None:
    """Raise ValueError, with the remedy, for what is no endpoint."""
    if not isinstance(endpoint, str):
        raise TypeError(f"the endpoint comes first, and {endpoint!r} is none; write topics={endpoint!r}")
    if endpoint.encode().startswith(FIRST_WORDS):
        raise ValueError(f"{endpoint!r} is no ZeroMQ endpoint but a topic; write topics=[{endpoint!r}]")
    try:
        endpoints.address_of(endpoint)
    except ValueError as exc:
        raise ValueError(
            f"{endpoint!r} is no ZeroMQ endpoint; write it like {DEFAULT_ENDPOINT} or ipc://run/ticks.ipc"
        ) from exc


def check_count(max_count: int) -> None:
    """Raise ValueError for a number of records that cannot be returned."""
    if max_count < 1:
        raise ValueError(f"max_count is {max_count}; it has to be at least 1")


def prefixes_of(topics: Iterable[str]) -> list[bytes]:
    """Return what is subscribed to. Raises TypeError or ValueError for what no topic begins with."""
    if isinstance(topics, str | bytes):
        raise TypeError(f"topics is a list of prefixes: write topics=[{topics!r}]")
    prefixes = []
    for topic in topics:
        if not isinstance(topic, str):
            raise TypeError(f"topics has {topic!r}, which is no text")
        prefix = topic.encode()
        if prefix.startswith(modes.MARK):
            raise ValueError(f"{topic!r} is no topic; how records are wanted is set by mode=")
        if not any(word.startswith(prefix) or prefix.startswith(word) for word in FIRST_WORDS):
            known = ", ".join(word.decode() for word in FIRST_WORDS)
            raise ValueError(
                f"no topic begins with {topic!r}: they begin with one of {known} as `ticker.binance.BTC/USDT` does"
            )
        if len(prefix) > SUBSCRIBED_MAX:
            raise ValueError(
                f"no topic is as long as {topic!r}: they have {wire.TOPIC_BYTES_MAX} bytes at most"
            )
        prefixes.append(prefix)
    if not prefixes:
        raise ValueError('topics is empty, so nothing would come; everything is topics=[""]')
    return prefixes


def declaration_of(mode: str | int) -> bytes:
    """Return what is subscribed to for a mode. Raises ValueError with the choices."""
    if mode == "":
        return b""
    digits = str(mode)
    declaration = (b"%s%s" % (modes.INTERVAL, digits.encode())) if digits.isdecimal() else f"@{mode}".encode()
    try:
        modes.Pace(declaration, 0)
    except ValueError as exc:
        raise ValueError(
            f'{mode!r} is no mode; choose "all", "latest", a number of milliseconds, or "within=" and a number'
            f" of them, from {modes.INTERVAL_MS_MIN} to {modes.INTERVAL_MS_MAX}"
        ) from exc
    return declaration


def _keeps_every(prefix: bytes) -> bool:
    """True for a prefix with which a topic of a kind begins that keeps every record."""
    words = [f"{kind.name}.".encode() for kind in BY_CODE.values() if keeps_every(kind.code)]
    return any(word.startswith(prefix) or prefix.startswith(word) for word in words)


def knows_recover_endpoint(endpoint: str) -> bool:
    """True if it is known where the relay of a publisher is by default."""
    try:
        return bool(recover_endpoint(endpoint))
    except ValueError:
        return False


def recover_endpoint(endpoint: str) -> str:
    """Return where the relay of a publisher is by default. Raises ValueError if that cannot be known."""
    if endpoint.startswith("ipc://") and endpoint.endswith(TICKS_IPC):
        return endpoint.removesuffix(TICKS_IPC) + "/recover.ipc"
    if endpoint.startswith("tcp://"):
        host, _, port = endpoint.rpartition(":")
        if int(port) < 65535:
            return f"{host}:{int(port) + 1}"
    raise ValueError(
        f"recover=True: it is not known where the relay for {endpoint!r} is; write recover=ENDPOINT"
    )
