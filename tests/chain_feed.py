"""What a feed of a simulated chain (`chain`) has beside its connections: its hop, and what it reports.

    connections ──states──▶ Batch ──records──▶ Hop ──▶ merger
    Reports ──status, instruments, signs of life──▶ Hop

Wired as `feed/process.py` does it.
"""

import collections

import msgspec

from feedhandler.data import wire
from feedhandler.data.contracts import Fanout
from feedhandler.data.status import FEED_HEARTBEAT_NS, FeedStatus
from feedhandler.data.units import NS_PER_S
from feedhandler.feed.batch import Batch
from feedhandler.feed.legs import Change
from feedhandler.feed.report import connection_status, feed_state

NS_PER_MS = 1_000_000
HEARTBEATS_PER_STATUS = 5
BOOK = "book"
DOCUMENTS = (wire.STATUS, wire.HEARTBEAT, wire.INSTRUMENTS)


def count_of(message):
    """Return how many records are in a message."""
    start = count = 0
    while start < len(message):
        start += wire.size_at(message, start)
        count += 1
    return count


class Hop:
    """The way from one feed to the merger: in order, as `links.Uplink` is, and counted."""

    def __init__(self, chain, slot, on_join):
        self.chain = chain
        self.slot = slot
        self.on_join = on_join
        self.peer = None  # the merger that it is connected to
        self.joins_at = 0
        self.is_subscribed = False
        # (due, message, records lost before it if it is a status, when, pid)
        self.queue = collections.deque()
        self.has_lost = False  # something, since it was asked
        self.lost = 0  # records, since the merger joined
        self.told = 0  # and of them those that a status has told the merger

    def poll(self):
        if self.peer is None and self.chain.merger is not None:
            self.peer = self.chain.merger
            self.joins_at = self.chain.now + self.chain.rng.randrange(NS_PER_S // 2)

    def turn(self):
        """See whether the merger has gone, or has come to subscribe."""
        if self.peer is not None and self.peer is not self.chain.merger:
            self.peer, self.is_subscribed = None, False
            self.queue.clear()
            self.lost = self.told = 0
            self.has_lost = False
        is_due = self.peer is not None and self.chain.is_merging and self.chain.now >= self.joins_at
        if is_due and not self.is_subscribed:
            self.is_subscribed = True
            self.on_join()

    def take_loss(self):
        if not self.has_lost or len(self.queue) > self.chain.hop_messages_max // 2:
            return False
        self.has_lost = False
        return True

    def send(self, message):
        if not self.is_subscribed or self.peer is not self.chain.merger:
            return
        kind = message[wire.KIND_OFFSET]
        if len(self.queue) >= self.chain.hop_messages_max:
            self.has_lost = True
            if kind not in DOCUMENTS:
                self.lost += count_of(message)
            return
        is_status = kind == wire.STATUS
        due = self.chain.now + self.chain.rng.randrange(5 * NS_PER_MS)
        told = (self.lost, self.chain.now, self.slot.feed.pid) if is_status else None
        self.queue.append((due, bytes(message), told))


class Nobody(Fanout):
    """No direct subscriber."""

    def send(self, topic, message):
        raise AssertionError("nobody wants it")

    flush = send


class Reports:
    """What is reported of a feed. Whoever has it has `legs`, a universe, `links` by session, and `apply`."""

    def begin_reports(self, chain, slot, pid):
        self.chain, self.slot, self.market, self.pid = chain, slot, slot.market, pid
        self.hop = Hop(chain, slot, self.greet)
        self.batch = Batch(self.hop, Nobody(), chain.unix_ns)
        self.documents = collections.Counter()
        self.requested = chain.requested
        self.wanted = list(self.market.wanted)
        self.session = chain.unix_ns() // NS_PER_S
        self.table = self.listing = None
        self.beats = 0
        self.beats_at = chain.now
        self.status = FeedStatus(
            exchange=self.market.name,
            shard=str(slot.shard),
            pid=pid,
            started_ns=chain.unix_ns(),
            state="connecting",
            starting="connecting, attempt 1, in progress",
            wanted=self.market.as_wanted(self.wanted),
        )

    def unix_ns(self):
        return self.chain.unix_ns()

    def note(self, text):
        self.chain.note(f"{self.slot}: {text}")

    def carry(self):
        """Carry what is wanted, and nothing else."""
        wanted = self.market.as_wanted(self.wanted)
        if self.table is None:
            self.status.wanted = wanted
            return
        change = self.legs.reconcile(self.table, wanted, self.unix_ns(), self.market.is_asked)
        self.status.wanted = self.legs.wanted
        self.status.rejected, self.status.renamed = self.legs.rejected, self.legs.renamed
        for state in self.legs.states:
            state.session = self.session
        self.apply(change)
        self.status.starting = ""

    def report(self):
        """Send what is due by now."""
        if self.now >= self.beats_at:
            self.beats_at = self.now + FEED_HEARTBEAT_NS
            self.beat()
        self.batch.flush()

    # --- what the merger hears

    def beat(self):
        self.hop.poll()
        if self.hop.take_loss():
            self.send_status()
            self.batch.repeat(self.snapshots())
            self.legs.repeat_all_books()
        if self.chain.requested is not self.requested:
            self.requested = self.chain.requested
            words = [topic.split(".", 2)[1:] for topic in self.requested]
            self.legs.repeat_books({self.market.symbols[s] for name, s in words if name == self.market.name})
        if self.wanted != self.market.wanted:
            self.wanted = list(self.market.wanted)
            self.carry()
            self.send_status()
        if self.beats % HEARTBEATS_PER_STATUS == 0 or self.state() != self.status.state:
            self.send_status()
        else:
            alive = {"pid": self.pid, "shard": str(self.slot.shard)}
            self.send_document(wire.HEARTBEAT, msgspec.json.encode(alive))
        self.beats += 1

    def greet(self):
        self.note("greets the merger")
        self.status.resync += 1
        self.batch.flush()
        self.batch.records = 0
        self.send_status()
        self.send_instruments()
        self.batch.repeat(self.snapshots())
        self.legs.repeat_all_books()

    def snapshots(self):
        for state in self.legs.states:
            if state.is_known:
                record = bytearray(state.record())
                more = wire.SNAPSHOT | (wire.INVALID if state.kind == BOOK else 0)
                wire.FLAGS.pack_into(record, wire.FLAGS_OFFSET, state.flags | more)
                wire.TIME.pack_into(record, wire.PUBLISH_NS_OFFSET, self.unix_ns())
                yield record

    def state(self):
        if self.status.stopping:
            return "down"
        is_idle = not self.status.wanted
        return feed_state(self.legs.legs, is_starting=bool(self.status.starting), is_idle=is_idle)

    def send_status(self):
        stale = self.legs.stale()
        self.status.state = self.state()
        self.status.connections = [
            connection_status(session, self.unix_ns(), self.now) for session in self.links
        ]
        self.status.stale, self.status.stale_topics = len(stale), stale
        self.status.lost_trades = self.legs.lost_trades()
        self.batch.flush()
        self.status.hop_records = self.batch.records
        self.send_document(wire.STATUS, msgspec.json.encode(self.status))

    def send_instruments(self):
        if self.listing is not None:
            self.send_document(wire.INSTRUMENTS, msgspec.json.encode(self.listing))

    def send_document(self, kind, body):
        self.batch.flush()
        self.documents[kind] += 1
        now = self.unix_ns()
        topic = wire.topic(kind, self.market.name)
        number = self.documents[kind]
        self.hop.send(
            wire.pack_document(
                wire.Document(topic, wire.VERSION, kind, 0, self.session, number, 0, now, now, body)
            )
        )

    def end(self):
        """SIGTERM."""
        self.apply(Change(stop=list(self.links)))
        self.status.stopping = True
        self.send_status()
