"""The two ends of a feed: the hop to the merger, and its direct subscribers; what either gets when it joins.

    emit ──▶ Batch ──one message for each socket read──▶ hop to the merger, direct subscribers

Documents (status, instruments, heartbeats) go the same way, after the records that were before them.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

from feedhandler.data import wire
from feedhandler.data.book import BOOK
from feedhandler.data.shard import Shard
from feedhandler.data.topics import Topics
from feedhandler.exchanges.base import Market
from feedhandler.exchanges.state import State
from feedhandler.feed.batch import Batch
from feedhandler.runtime.settings import Config
from feedhandler.transport import zmtp
from feedhandler.transport.links import Uplink
from feedhandler.transport.outlet import Outlet
from feedhandler.transport.queues import Queues, size_of

BOOK_TOPICS: Final = f"{BOOK.name}.".encode()

if TYPE_CHECKING:
    from feedhandler.transport import remote


class Publisher:
    """The feed's two ends: the hop to the merger, one message per socket read, and its direct subscribers.

    A merger that is away or full costs records, never time. on_join is called when one has come.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        config: Config,
        exchange: str,
        markets: Sequence[Market],
        shard: Shard,
        on_join: Callable[[], object],
        group: int,
    ) -> None:
        self._uplink = _uplink(loop, config, on_join)
        self._direct = Outlet(
            loop,
            config.exchange(exchange).direct_of(shard),
            self,
            key=f"exchanges.{exchange}.direct",
            queue_size_max=zmtp.QUEUE_SIZE_MAX,
            group=group,
            queues=Queues(size_of(0)),
        )
        self.look = self._direct.look
        self._batch = Batch(self._uplink, self._direct, time.time_ns)
        self.emit = self._batch.emit
        self.flush = self._batch.flush
        self._topics = Topics()
        self._states: dict[bytes, State] = {}  # by topic
        self._changes = -1  # of the markets' symbols, which were the ones in these two then
        self._call_soon = loop.call_soon
        self._is_flush_due = False
        self._exchange = exchange
        self._markets = markets
        self.session = int(time.time())  # for direct subscribers: numbers start anew
        self._documents: dict[int, int] = {}  # how many of each kind

    @property
    def records(self) -> int:
        """How many records were sent to the merger since `recount`."""
        return self._batch.records

    def recount(self) -> None:
        """Send what there is, and count anew."""
        self.flush()
        self._batch.records = 0

    def flush_soon(self) -> None:
        """Send the message when all sockets that have something to read were read.

        With many connections each has a record or two to give at a time: so they share a message.
        """
        if not self._is_flush_due:
            self._is_flush_due = True
            self._call_soon(self._flush_now)

    def _flush_now(self) -> None:
        self._is_flush_due = False
        self.flush()

    def greet(self) -> None:
        """Repeat all that is known to a merger that joined, or has lost records.

        Books are INVALID there, for a change may have been lost that nothing else shows, until their snapshots.
        """
        self._batch.repeat(filter(None, map(self._greeting, self.topics(b""))))

    def _greeting(self, topic: bytes) -> bytearray | None:
        record = self._newest(topic)
        if record is not None and topic.startswith(BOOK_TOPICS):
            (flags,) = wire.FLAGS.unpack_from(record, wire.FLAGS_OFFSET)
            wire.FLAGS.pack_into(record, wire.FLAGS_OFFSET, flags | wire.INVALID)
        return record

    def topics(self, prefix: bytes) -> list[bytes]:
        """Return the topics that begin with a prefix, padded, in order."""
        self._refresh()
        return self._topics.under(prefix)

    def _refresh(self) -> None:
        changes = sum(market.changes for market in self._markets)
        if self._changes == changes:
            return
        self._changes = changes
        self._topics.clear()
        self._states = {
            wire.padded(state.topic): state for market in self._markets for state in market.all_states
        }
        for topic in self._states:
            self._topics.add(topic)

    def last(self, topic: bytes) -> bytearray | None:
        """Return a topic's newest record, flagged; what was batched before goes first. None if there is none.

        Of a kind that keeps every record it is the condition, also that there is none.
        """
        self.flush()
        return self._newest(topic)

    def _newest(self, topic: bytes) -> bytearray | None:
        """Return the same, whatever is batched: it is nothing new, and takes no number."""
        self._refresh()
        state = self._states.get(topic)
        if state is None or not state.is_known:
            return None
        record = bytearray(state.record())
        wire.FLAGS.pack_into(record, wire.FLAGS_OFFSET, state.flags | wire.SNAPSHOT)
        wire.TIME.pack_into(record, wire.PUBLISH_NS_OFFSET, time.time_ns())
        return record

    def send_document(self, kind: int, body: bytes) -> None:
        """Send a JSON document; what was batched before goes first. Heartbeats go to everybody."""
        self.flush()
        self._documents[kind] = sequence = self._documents.get(kind, 0) + 1
        now = time.time_ns()
        document = wire.Document(
            wire.topic(kind, self._exchange),
            kind=kind,
            session=self.session,
            sequence=sequence,
            recv_ns=now,
            publish_ns=now,
            body=body,
        )
        message = wire.pack_document(document)
        if kind == wire.HEARTBEAT:
            self._direct.send(wire.padded(document.topic), message)
            self._direct.flush()
        self._uplink.send(message)

    def poll(self) -> None:
        """Connect to the merger if it was away; `on_join` is called when it is there."""
        self._uplink.poll()

    def take_loss(self) -> bool:
        """Return, once, that a merger which did not read has lost records, when it reads again."""
        return self._uplink.take_loss()

    def close(self) -> None:
        """Close the sockets, after a moment for what is queued."""
        self._uplink.close()
        self._direct.close()


def _uplink(
    loop: asyncio.AbstractEventLoop, config: Config, on_join: Callable[[], object]
) -> "Uplink | remote.Uplink":
    """Return the hop to the merger, which may be on another host."""
    if not config.is_merger_elsewhere:
        return Uplink(loop, config.merger.feeds, on_join, queue_size_max=zmtp.QUEUE_SIZE_MAX)
    from feedhandler.runtime.curve import client_keys  # most feeds need no libzmq
    from feedhandler.transport import remote

    pair, server_key = client_keys(config)
    return remote.Uplink(loop, config.merger.feeds, on_join, pair, server_key)
