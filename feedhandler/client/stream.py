"""What each subscriber is made of, whatever loop drives it: the stream's socket, the one for what was missed, and
the records that have come and were not seen before.

The loop calls back when there is something to read; `poll` is to be called whenever it turns.
"""

import collections
import functools
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, NamedTuple

import msgspec

from feedhandler.client.recovery import Recovery
from feedhandler.client.silence import Doubt, nobody_listens, reason, states_of, statuses_in
from feedhandler.data import modes, wire
from feedhandler.data.errors import UNDECODABLE
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
        self.is_conflated = declaration not in (b"", modes.ALL)
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
        prefixes = [declaration, *self.prefixes] if declaration else list(self.prefixes)
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
        return not self._hands_on_heartbeats

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
        super().__init__(
            events,
            endpoint,
            topics,
            lambda aside: Follower(self.records.append, aside=aside),
            mode=mode,
            curve=curve,
            is_patient=is_patient,
        )
        self._recovery = Recovery(
            self.follower, self.records.append, time.monotonic_ns, takes_latest=bool(recover)
        )
        self._dealer: Dealer | None = None
        if recover is None:
            recover = knows_recover_endpoint(endpoint) and any(map(_keeps_every, self.prefixes))
        where = recover_endpoint(endpoint) if recover is True else recover
        if where and not self.is_conflated:
            check_endpoint(where)
            self._dealer = self._make_dealer(
                relay_events or events, where, self._recovery.on_answer, self._recovery.on_disconnect
            )
            self.follower.on_gap = self._recovery.on_gap
        self._relay_mono_s = -RELAY_EVERY_S

    @property
    def recovered(self) -> int:
        """How many records came after all, because they were requested."""
        return self._recovery.recovered

    @property
    def is_recovering(self) -> bool:
        """True while something is missing and may still come: then `poll` is to be called after each read."""
        return self._recovery.is_recovering

    def poll(self) -> None:
        """Connect what is not connected, and ask for what is missing."""
        # hot: `make bench`
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
            if not any(wire.padded(topic).startswith(prefix) for prefix in stream.prefixes):
                raise ValueError(
                    f"{topic!r} is waited for and not subscribed to; add it to topics="
                    f"{[prefix.decode() for prefix in stream.prefixes]}"
                )

    def is_there(self) -> bool:
        """True once each has had a live record; what waits for the consumer is kept within its limit meanwhile."""
        newest = self._stream.follower.newest
        self._missing = [t for t in self._missing if (r := newest.get(t)) is None or not r.is_live]
        return not self._missing

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
        return f"{seen}; {why}" if why else seen


def exact(topic: str) -> str:
    """Return the prefix that this topic alone begins with: `BTC/USD` is one of `BTC/USDT`, and this is not."""
    return topic.rstrip("\0") + "\0"


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
            f'{mode!r} is no mode; choose "all", "latest", or a number of milliseconds from'
            f" {modes.INTERVAL_MS_MIN} to {modes.INTERVAL_MS_MAX}"
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
