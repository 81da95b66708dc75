"""The whole chain in a simulated world: two exchanges, their feeds, the merger and subscribers, all from a seed.

    exchange ──Link──▶ feed 1/2 ──Hop──┐
             ──Link──▶ feed 2/2 ──Hop──┤ merger ──▶ subscribers
    exchange ──Link──▶ feed 1/1 ──Hop──┘

Processes are killed, stopped (SIGSTOP) and told to end, and come back; each feed is wired as `feed/process.py`
does it, the merger as `merger/process.py` does. The plays are in `chain_plays`.
"""

import bisect
import collections
import itertools
import math
import random

import msgspec
from chain_books import File, Reader, Relay
from chain_feed import NS_PER_MS, Reports
from tape import BOOK, DEPTH, TRADE, Taken, Tape, kinds_of
from world import EPOCH_NS, PLAYED, TRADES, TRADES_QUIETLY, World, native_of

from feedhandler.data import wire
from feedhandler.data.connecting import LEGS_MAX, ConnectBudget
from feedhandler.data.contracts import Fanout
from feedhandler.data.instruments import Instrument, instrument_list
from feedhandler.data.kinds import keeps_every, named
from feedhandler.data.shard import shards
from feedhandler.data.status import ExchangeStatus
from feedhandler.data.ticker import TICKER
from feedhandler.data.units import NS_PER_S
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.state import QUOTE
from feedhandler.feed.legs import Change, Legs
from feedhandler.feed.universe import Universe
from feedhandler.merger.merge import TICK_NS, Merger
from feedhandler.sim.simulated import SIMULATED
from feedhandler.transport.follower import Follower

NOT_LIVE = wire.STALE | wire.DOWN
OTHERS = (wire.TRADE, wire.DEPTH, wire.BOOK, wire.CONTRACT, wire.LIQUIDATION)  # kinds beside tickers
DOWN_NS = NS_PER_S  # a feed that is gone is told within this time
SPEAKS = 0.1  # a market does, at a step,
SPEAKS_QUIETLY = 0.001  # or a quiet one
HELD_UP_NS = 120 * NS_PER_S  # a process is stopped, or a line stalls, for less
SYMBOLS = 5  # of each exchange, of which some are wanted at a time
SAYS_NOTHING_S = 5  # so long one status after the other may call all well while a symbol is not
UNFOLLOWED = "S99/USDT"  # wanted, and listed by nobody
TOLD_NS = 90 * NS_PER_S  # a trade that is missing, at the latest: REST is asked several times before
HOP_MESSAGES = (30, 300, 100_000)  # what waits for a merger that does not read


class Market:
    """One exchange: its instruments, numbered quotes, and who is connected."""

    def __init__(self, chain, name, shard_count):
        self.chain = chain
        self.name = name
        self.listed = [native_of(name, number) for number in range(SYMBOLS)]
        self.symbols = {f"S{number}/USDT": native for number, native in enumerate(self.listed)}
        self.has_canary = chain.rng.random() < 0.8
        self.unlisted = set()  # natives that the exchange has, and does not list yet
        self.relisted_at = 0  # when that changed
        self.wanted = [*list(self.symbols)[:3], UNFOLLOWED]
        self.changed_at = 0  # when that did
        self.number = dict.fromkeys(self.listed, 1000)
        self.said_ns = {}
        self.connects = []
        self.budget = ConnectBudget(*EXCHANGES[name].main.connects)
        self.slots = [Slot(self, shard) for shard in shards(shard_count)]
        self.repeats = EXCHANGES[name].main.repeats_s
        self.tapes = {
            native: Tape(name, native, chain.seed, chain.kinds) for native in self.listed if chain.kinds
        }
        self.is_paused = False
        self.quiet = set()  # they say something now and then, on any channel
        self.tells_slowly_at = 0  # the channels that are no quotes
        self.unwell_since = {}  # topic → since when each status called all well, and it was not

    def as_wanted(self, symbols):
        """Return them as wanted, each as a ticker and in further kinds."""
        return {symbol: [TICKER.name, *self.chain.kinds] for symbol in symbols}

    @staticmethod
    def is_asked(symbol, kind):
        """True if that kind is wanted of that very symbol."""
        return True

    def listing(self):
        rows = [
            Instrument(native, symbol.partition("/")[0], "USDT")
            for symbol, native in self.symbols.items()
            if native not in self.unlisted
        ]
        if self.has_canary:
            rows.append(Instrument(SIMULATED[self.name].native("BTC"), "BTC", "USDT"))
        return instrument_list(self.name, self.chain.unix_ns(), rows)

    def wanted_topics(self):
        """Return the topics that are to be live, and whose quotes they have."""
        return {
            wire.topic(wire.TICKER, self.name, symbol): self.symbols[symbol]
            for symbol in self.wanted
            if symbol in self.symbols and self.symbols[symbol] not in self.unlisted
        }

    def turn(self):
        """Say new quotes, and old ones again where the exchange does."""
        now, rng = self.chain.now, self.chain.rng
        repeats_ns = int(self.repeats.get((TICKER.name, QUOTE), 0) * NS_PER_S)
        for native in self.listed:
            if not self.is_paused and rng.random() < (SPEAKS_QUIETLY if native in self.quiet else SPEAKS):
                self.say(native)
            elif repeats_ns and now - self.said_ns.get(native, now) >= repeats_ns:
                self.tell(native)
        for native, tape in self.tapes.items() if not self.is_paused else ():
            if rng.random() < (TRADES_QUIETLY if native in self.quiet else TRADES):
                self.trade(tape)
        if now >= self.tells_slowly_at:
            self.tells_slowly_at = now + 2 * NS_PER_S
            for feed in self.feeds():
                for link in filter(None, feed.links.values()):
                    for topic in sorted(link.topics - link.muted):
                        if not any(native.lower() in topic.lower() for native in self.quiet):
                            feed.tell_slowly(link, topic)

    def say(self, native):
        self.number[native] += self.chain.rng.randrange(1, 4)
        self.tell(native)

    def trade(self, tape):
        """Something happens in a symbol's book: trades, and levels that change. True if depth has changed."""
        unix_ns = EPOCH_NS + self.chain.now
        frames = [(TRADE, frame) for frame, _ in tape.step(unix_ns)]
        if frame := tape.depth(unix_ns):
            frames.append((DEPTH, frame))
        for kind, frame in frames:
            for feed in self.feeds():
                feed.post_all(tape.topics[kind], msgspec.json.encode(frame))
        if message := tape.changes(unix_ns):
            for feed in self.feeds():
                feed.post_book(tape, message)
        return frames[-1:] != [] and frames[-1][0] == DEPTH

    def tell(self, native):
        self.said_ns[native] = self.chain.now
        for feed in self.feeds():
            feed.tell(native)

    def feeds(self):
        return [slot.feed for slot in self.slots if slot.feed is not None]


class Slot:
    """A feed's place: the process that has it now, if there is one, and what the merger heard from it."""

    def __init__(self, market, shard):
        self.market = market
        self.shard = shard
        self.feed = None
        self.starts_at = 0
        self.stopped_until = 0
        self.heard_at = 0  # when the merger took a message of it
        self.said_at = 0  # when the newest status that it took had been sent
        self.known_pid = 0  # of that

    def __str__(self):
        return f"{self.market.name}{self.shard.suffix}"


class Carried(Universe):
    """A universe that a `World` takes for its legs."""

    @property
    def sessions(self):
        return [session for legs in self.legs for session in legs.sessions]

    def advance(self, now_mono_ns):
        change = Change()
        for each in super().advance(now_mono_ns):
            change.run += each.run
            change.stop += each.stop
            change.ask += each.ask
            change.ask_trades += each.ask_trades
            change.ask_bases += each.ask_bases
        return change


class Feed(Reports, World):
    """One process of a feed: wired as `feed/process.py` does it, its connections those of a `World`."""

    carries_groups = True
    repeats_trades = False  # a feed that was started just now cannot know them

    def __init__(self, chain, slot, pid):
        self.begin_reports(chain, slot, pid)
        seed, kinds = chain.rng.random(), chain.kinds
        super().__init__(self.market.name, chain.legs, 0, seed, spare=SYMBOLS, kinds=kinds, max_age_s=60.0)
        self.now = chain.now
        self.known_at = self.now + NS_PER_S
        self.asks_time = chain.asks_time
        self.log = chain.log
        self.number, self.connects = self.market.number, self.market.connects
        self.lists_at = self.now + chain.rng.randrange(2 * NS_PER_S)

    def make_tapes(self, seed):
        return self.market.tapes

    def make_legs(self, count, policy):
        def legs_of(market, states):
            budget = self.market.budget
            return Legs(market, states, self.emit, count=count, policy=policy, budget=budget, rng=self.rng)

        return Carried([self.exchange], legs_of, 0, self.slot.shard.has)

    def emit(self, state):
        self.chain.note_author(state, self.pid)
        if state.kind != TICKER.name:
            self.batch.emit(state)
            return
        if self.is_seeding or not state.channels[QUOTE].updates:
            self.chain.lent.add(state.recv_ns)
        self.batch.emit(state)

    def take_request(self, link, message):
        """Answer; where quotes are repeated, the present one is told to whoever subscribes, too."""
        before = set(link.topics)
        super().take_request(link, message)
        for native in self.listed if self.market.repeats else ():
            if self.quote_topics[native] & (link.topics - before - link.muted):
                self.post(link, self.quote(native, self.number[native], self.ms()))

    def set_clock(self):
        """This host's clock was set; how far it is off is known after a while."""
        self.clock_off_ns = self.chain.clock_off_ns
        self.exchange.set_clock()
        self.known_at = self.chain.now + 3 * NS_PER_S

    def heal(self):
        """The exchange, and the way to it, have no more faults."""
        self.is_reachable = self.answers_trades = True
        self.mutes_until = 0
        for link in filter(None, self.links.values()):
            link.heal()

    def live(self):
        """Do what is due."""
        self.now = self.chain.now
        self.hop.turn()
        if self.lists_at <= self.now:
            self.fetch_list()
        self.turn()
        self.report()

    # --- what is wanted

    def fetch_list(self):
        self.lists_at = self.now + 10 * NS_PER_S
        if self.is_reachable:
            self.listing = self.market.listing()
            self.table = self.listing.table()
            self.send_instruments()
            self.carry()
        elif self.table is None:
            self.lists_at = self.now + NS_PER_S


class Outlet(Fanout):
    """What one kind of the merger's subscribers is sent: here nothing is lost, or late."""

    def __init__(self):
        super().__init__()
        self.subscribers = []

    def add(self, subscriber):
        self.subscribers.append(subscriber)
        self.is_wanted = True

    def drop(self, subscriber):
        self.subscribers.remove(subscriber)
        self.is_wanted = bool(self.subscribers)

    def send(self, topic, message):
        for subscriber in self.subscribers:
            subscriber.follower.take(bytes(message))


class Subscriber:
    """Takes everything, and looks whether it can be true."""

    make_taken = Taken

    def __init__(self, chain, name):
        self.chain = chain
        self.name = name
        self.follower = Follower(self.take)
        self.outlet = None
        self.records = {}  # the newest of each ticker topic, of this merger
        self.newest = {}  # number of its quote
        self.got = collections.defaultdict(list)  # all numbers
        self.flagged = []
        self.numbers = {}  # sequence of each topic, in this session
        self.left = {}  # the same as others knew it when this one left
        self.holes = 0  # records that it cannot have: it was not there
        self.away = set()  # topics of which it may have missed something
        self.taken = {key: self.make_taken(tape) for key, tape in chain.tapes.items()}
        self.came_at = {key: {} for key in self.taken}  # of each trade
        # When it was told that trades may be missing, and when a trade, or that all is well, came after that.
        self.told = {key: [] for key in self.taken}
        self.conditions = {}  # flags of topics whose records count, as they are

    def join(self, outlet):
        self.outlet = outlet
        self.away = set(self.numbers)
        outlet.add(self)
        merger = self.chain.merger
        for message in filter(None, map(merger.last, merger.topics(b""))):
            self.follower.take(bytes(message))

    def leave(self):
        self.outlet.drop(self)
        self.outlet = None

    def forget(self):
        """The merger is gone."""
        if self.outlet is not None:
            self.leave()
        self.records.clear()
        self.numbers.clear()
        self.conditions.clear()
        self.away.clear()
        for told in self.told.values():
            told.append([self.chain.now, math.inf])

    @property
    def lost(self):
        return sum(loss.lost for loss in self.follower.losses.values())

    def take(self, record):
        assert record.session == self.chain.session, "what a dead merger said"
        before = self.numbers.get(record.topic, 0)
        is_counted = keeps_every(record.kind) or record.kind == wire.CONDITION  # nothing of these is repeated
        if is_counted and record.topic in self.away:
            self.away.remove(record.topic)
            before_it = record.sequence - (record.kind != wire.CONDITION)
            self.holes += before_it - before
            before = before_it
        if record.kind == wire.CONDITION:
            is_known = record.topic in self.numbers
            assert record.sequence == before or not is_known, "a condition takes no number"
            self.numbers[record.topic] = record.sequence
            self.take_other(record)
            return
        assert record.sequence > before, "a number comes once"
        is_first = not before or record.flags & wire.SNAPSHOT
        if before and record.flags & wire.SNAPSHOT:
            self.holes += record.sequence - before - 1
        assert is_first or record.sequence == before + 1, f"{self.name}: a hole in {record.topic}"
        self.numbers[record.topic] = record.sequence
        if record.kind == wire.TICKER:
            self.take_ticker(record)
        elif record.kind in OTHERS:
            self.take_other(record)
        elif record.kind == wire.STATUS and self is self.chain.first:
            self.chain.look_at_status(record)

    def take_other(self, record):
        """Take trades, depth and books, and conditions of these."""
        key = record.exchange, record.symbol
        taken, now = self.taken[key], self.chain.now
        # Of depth there is no order over feeds that start anew, and clocks that are set.
        taken.take(record, may_go_back=True, is_clock_right=not self.chain.was_clock_set)
        if record.kind == wire.TRADE:
            self.came_at[key][taken.newest] = now
        if record.topic.startswith(TRADE) and record.flags & NOT_LIVE:
            self.told[key].append([now, math.inf])
        elif record.topic.startswith(TRADE):
            for told in reversed(self.told[key]):
                if told[1] < math.inf:
                    break
                told[1] = now
        if record.flags & NOT_LIVE:
            self.chain.note(f"{self.name}: {record.topic} {record.flag_names}")
        if record.kind != wire.DEPTH:
            self.conditions[record.topic] = record.flags & NOT_LIVE

    def untold(self, key):
        """Return the trades that are missing, and of which nothing was told when it happened.

        That is between the trades before and after it, as they came. Both may have come later, by a connection that
        was behind, or over REST: so what was made after it was told, and before anything came, is told of as well.
        """
        came_at, given, made = self.came_at[key], self.taken[key].numbers, self.chain.tapes[key].trades
        numbers = [self.taken[key].first, *(n for n in sorted(came_at) if not given[n] & wire.RECOVERED)]
        untold = []
        for number in self.taken[key].missing():
            after = bisect.bisect(numbers, number)
            since = came_at[numbers[after - 1]]
            until = came_at[numbers[after]] if after < len(numbers) else self.chain.now
            made_at = made[number].unix_ns - self.chain.epoch_ns
            if not any(
                min(since, until) - NS_PER_S <= at <= max(since, until) + TOLD_NS
                or at - NS_PER_S <= made_at <= heard_at
                for at, heard_at in self.told[key]
            ):
                untold.append(number)
        return untold

    def take_ticker(self, record):
        before = self.records.get(record.topic)
        self.records[record.topic] = record
        if record.flags & NOT_LIVE:
            if before is None or not before.flags & NOT_LIVE:
                self.flagged.append((self.chain.now, record.topic, record.flags))
                self.chain.note(f"{self.name}: {record.topic} {record.flag_names}")
        elif not record.flags & wire.DOWN:
            self.chain.look_at_author(record)
        if record.bid != record.bid:
            return
        assert record.ask == record.bid + 1, "never half of one quote and half of another"
        number = int(record.bid)
        newest = self.newest.get(record.topic, 0)
        is_excused = before is not None and self.chain.may_be_older(record.topic, before)
        assert is_excused or number >= newest, f"a ticker never moves backwards: {record.topic}"
        self.newest[record.topic] = number
        if number > newest:
            self.got[record.topic].append(number)


class Chain:
    """All of it."""

    epoch_ns = EPOCH_NS  # when its time was 0

    def may_be_older(self, topic, before):
        """True if the word after a record may have been sent before it, and was held up on its way.

        REST and slower channels state no numbers by which to tell (as in `World.emit`); and whoever is wanted again
        begins anew.
        """
        return before.recv_ns in self.lent or self.now - self.left_at.get(topic, -HELD_UP_NS) < HELD_UP_NS

    def __init__(self, seed, hop_messages_max=None, kinds=None):
        self.rng = random.Random(f"chain {seed}")
        self.seed, self.kinds = seed, kinds_of(seed) if kinds is None else kinds
        World.last = self
        self.now = self.began_at = 1000 * NS_PER_S
        self.log = collections.deque(maxlen=300)
        self.clock_off_ns, self.was_clock_set = 0, False
        self.asks_time = bool(seed % 4 > 1)
        self.legs = self.rng.randrange(1, LEGS_MAX)
        self.hop_messages_max = hop_messages_max or self.rng.choice(HOP_MESSAGES)
        self.pids = itertools.count(1)
        self.lent = set()  # when records were received whose quote is of REST, or of a slower channel
        self.left_at = {}  # topic → when it was last not wanted any more
        # (native topic, when it came, when it was made) → pid of the feed that said it; a clock repeats times
        self.authors = {}
        self.told_before = 0  # losses, by feeds that are gone
        self.orphans = []  # hops whose feed is gone, and which still hold something
        self.merger = None
        self.session = 0
        self.merger_starts_at = self.now
        self.merger_since = self.merger_stopped_until = 0
        self.ticks_at = 0
        self.looks_at = 0
        self.markets = self.make_markets()
        self.slots = [slot for market in self.markets for slot in market.slots]
        topics = [
            (wire.topic(code, market.name, symbol), wire.topic(code, market.name, native), market, native)
            for code in [named(name).code for name in (TICKER.name, *self.kinds)]
            for market in self.markets
            for symbol, native in market.symbols.items()
        ]
        self.native_topic = {topic: of_feed for topic, of_feed, _, _ in topics}
        self.slot_of_topic = {
            topic: slot
            for topic, _, market, native in topics
            for slot in market.slots
            if slot.shard.has(native)
        }
        self.tapes = {
            (market.name, symbol): market.tapes[native]
            for market in self.markets
            for symbol, native in market.symbols.items()
            if self.kinds
        }
        self.first, self.second = self.make_subscriber("first"), self.make_subscriber("second")
        self.is_second_there = False
        self.each, self.batches = Outlet(), Outlet()
        self.file = None  # of the newest merger
        self.relay, self.relay_starts_at = None, self.now
        self.requested = []  # topics of books that a relay lacked, as its file has them
        self.reader = Reader(self) if BOOK in self.kinds else None

    def make_markets(self):
        first, second = self.rng.sample(sorted(PLAYED), 2)
        return [Market(self, first, 1), Market(self, second, 2)]

    def make_feed(self, slot, pid):
        return Feed(self, slot, pid)

    def make_subscriber(self, name):
        return Subscriber(self, name)

    def note(self, text):
        self.log.append(f"{self.now / NS_PER_S:.2f} {text}")

    def unix_ns(self):
        return self.epoch_ns + self.now + self.clock_off_ns

    @property
    def is_merging(self):
        return self.merger is not None and self.now >= self.merger_stopped_until

    # --- time

    def run(self, seconds, each_step=lambda: None):
        end = self.now + int(seconds * NS_PER_S)
        while self.now < end:
            each_step()
            self.supervise()
            for market in self.markets:
                market.turn()
            for slot in self.slots:
                if slot.feed is not None and self.now >= slot.stopped_until:
                    slot.feed.live()
            self.now += TICK_NS
            if self.is_merging:
                self.merge()
                self.look()
            for each in filter(None, (self.relay, self.reader)):
                each.turn()

    def supervise(self):
        """Start who is not there."""
        if self.merger is None and self.now >= self.merger_starts_at:
            self.start_merger()
        for slot in self.slots:
            if slot.feed is None and self.now >= slot.starts_at:
                slot.feed = self.make_feed(slot, next(self.pids))
                World.last = self
                slot.stopped_until = 0
                self.note(f"{slot} starts as {slot.feed.pid}")
        if self.reader is not None and self.relay is None and self.now >= self.relay_starts_at:
            self.relay = Relay(self)
            self.note("the relay starts")
        if self.merger is not None:
            if self.first.outlet is None:
                self.first.join(self.each)
            if self.is_second_there and self.second.outlet is None and self.is_merging:
                self.second.join(self.batches)
                self.compare()

    def start_merger(self):
        self.session = max(self.session + 1, self.unix_ns() // NS_PER_S)
        self.merger_since, self.ticks_at = self.now, self.now
        self.told_before = 0
        for market in self.markets:
            market.unwell_since = {}
        self.note("the merger starts")
        self.file = File(self.session) if self.reader is not None else None
        self.merger = Merger(
            {market.name: len(market.slots) for market in self.markets},
            self.each,
            self.batches,
            self.unix_ns,
            session=self.session,
            pid=next(self.pids),
            now_mono_ns=self.now,
            ring=self.file,
        )

    def merge(self):
        if self.now - self.ticks_at > 4 * TICK_NS and self.rng.random() < 0.5:
            self.merger.on_tick(self.now)  # it was stopped, and looks at the clock first
        self.ticks_at = self.now
        hops = self.orphans + [slot.feed.hop for slot in self.slots if slot.feed is not None]
        for hop in hops:
            while hop.peer is self.merger and hop.queue and hop.queue[0][0] <= self.now:
                _, message, told = hop.queue.popleft()
                hop.slot.heard_at = self.now
                if told is not None:
                    hop.told, hop.slot.said_at, hop.slot.known_pid = told
                self.merger.on_message(message)
        for hop in self.orphans:
            if not hop.queue:
                self.told_before += hop.told
        self.orphans = [hop for hop in self.orphans if hop.queue]
        self.merger.on_tick(self.now)

    # --- processes

    def kill_feed(self, slot):
        self.note(f"{slot} is killed")
        self.bury(slot)

    def end_feed(self, slot):
        self.note(f"{slot} ends")
        slot.feed.now = self.now
        slot.feed.end()
        self.bury(slot, is_gentle=True)

    def bury(self, slot, is_gentle=False):
        hop, slot.feed = slot.feed.hop, None
        for _ in range(0 if is_gentle else self.rng.randrange(len(hop.queue) + 1)):
            hop.queue.pop()  # what the kernel had not taken
        if hop.peer is self.merger and self.merger is not None:
            self.orphans.append(hop)
        slot.starts_at = self.now + self.rng.randrange(100 * NS_PER_MS, 5 * NS_PER_S)

    def end_merger(self, is_gentle):
        self.note("the merger ends" if is_gentle else "the merger is killed")
        if is_gentle:
            self.merger.on_stop()
            alive = [record for record in self.first.records.values() if not record.flags & wire.DOWN]
            alive += [topic for topic, flags in self.first.conditions.items() if not flags & wire.DOWN]
            assert not alive, "it says that everything is down"
        self.merger = None
        self.orphans.clear()
        for subscriber in (self.first, self.second):
            subscriber.forget()
        self.merger_starts_at = self.now + self.rng.randrange(100 * NS_PER_MS, 10 * NS_PER_S)

    # --- verdicts

    def look(self):
        """What must hold after each turn of the merger."""
        for slot in self.slots:
            if self.now - max(slot.heard_at, self.merger_since) > DOWN_NS:
                flags = {topic: record.flags for topic, record in self.first.records.items()}
                for topic, flag in (flags | self.first.conditions).items():
                    is_told = self.slot_of_topic[topic] is not slot or flag & wire.DOWN
                    assert is_told, f"{topic}: {slot} is silent, and it is not told"
        told = self.told_before + sum(hop.told for hop in self.hops())
        views = [feed for exchange in self.merger.exchanges.values() for feed in exchange.feeds.values()]
        lost = sum(view.hop_lost for view in views)
        assert lost == told, f"{lost} records counted as lost on the hop, {told} were"
        assert self.first.lost == 0
        assert self.second.lost == self.second.holes
        if self.now >= self.looks_at:
            self.looks_at = self.now + NS_PER_S
            self.look_at_sizes()

    def hops(self):
        hops = self.orphans + [slot.feed.hop for slot in self.slots if slot.feed is not None]
        return [hop for hop in hops if hop.peer is self.merger]

    def note_author(self, state, pid):
        self.authors[state.topic, state.recv_ns, state.exchange_ns] = pid

    def author_of(self, record):
        """Return the pid of the feed that said it, None if nobody did."""
        return self.authors.get((self.native_topic[record.topic], record.recv_ns, record.exchange_ns))

    def look_at_author(self, record):
        """Who is dead is not heard as if he lived."""
        slot, author = self.slot_of_topic[record.topic], self.author_of(record)
        assert author is not None, "somebody said it"
        assert author >= slot.known_pid, f"{record.topic}: {author} said it, who is dead"

    def look_at_status(self, record):
        """Each wanted symbol is live, or rejected, or something is said about it."""
        status = msgspec.json.decode(record.body, type=ExchangeStatus)
        market = next(market for market in self.markets if market.name == status.exchange)
        before = market.unwell_since
        # A status that says something else in between, such as that a feed is down, begins the wait anew.
        market.unwell_since = {
            topic: before.get(topic, self.now) for topic in self.unwell(market, status, record.publish_ns)
        }
        for topic, since in market.unwell_since.items():
            assert self.now - max(self.merger_since, since) < SAYS_NOTHING_S * NS_PER_S, (
                f"{topic} is not live, or reported"
            )

    def unwell(self, market, status, now_ns):
        """Return which topics should be live and are not, though a status that can know of it calls all well."""
        changed_at = max(market.changed_at, market.relisted_at + 11 * NS_PER_S)
        is_known = status.feed is not None and status.state not in ("absent", "starting", "down")
        if not is_known or any(
            slot.said_at < max(changed_at, slot.stopped_until) + 2 * NS_PER_S for slot in market.slots
        ):
            return []
        wanted = market.wanted
        assert sorted(status.feed.wanted) == sorted(wanted), f"{status.feed.wanted}, wanted: {wanted}"
        if status.feed.starting or status.state == "connecting":
            return []
        live = market.wanted_topics()
        topics = {symbol: wire.topic(wire.TICKER, market.name, symbol) for symbol in wanted}
        for symbol in [symbol for symbol, topic in topics.items() if topic not in live]:
            assert symbol in status.feed.rejected, f"{symbol} is not to be had, and nobody says so"
        is_well = status.feed.text(now_ns).partition("; rejected")[0] == "live"
        return [topic for topic in live if is_well and not self.is_live(self.first, topic)]

    def look_at_sizes(self):
        merger, topics = self.merger, len(self.slot_of_topic)
        assert len(merger._routes) <= topics
        assert len(merger._by_topic) <= topics
        assert len(merger._documents) == len(merger._sequences) <= 2 * len(self.markets) + 1
        for exchange in merger.exchanges.values():
            for feed in exchange.feeds.values():
                assert len(feed.flagged) <= len(feed.routes) <= topics
                assert len(feed.traffic.latencies) <= 2000
        for feed in [slot.feed for slot in self.slots if slot.feed is not None]:
            assert len(feed.legs.legs) <= 1
            assert len(feed.links) <= 2 * self.legs
            count = len(feed.exchange.all_states) + len(feed.exchange._parted)
            assert count <= SYMBOLS * (1 + len(self.kinds))
            assert {state.topic for state in feed.exchange.all_states}.isdisjoint(feed.exchange._parted)

    @staticmethod
    def is_live(subscriber, topic):
        record = subscriber.records.get(topic)
        return record is not None and not record.flags & NOT_LIVE and record.bid == record.bid

    def unlive(self):
        """Return what should be live and is not, and what is and should not be, by subscriber."""
        wanted = {topic for market in self.markets for topic in market.wanted_topics()}
        odd = {}
        for subscriber in (self.first, self.second):
            for topic in wanted:
                if not self.is_live(subscriber, topic):
                    odd[subscriber.name, topic] = "is not live"
            for topic, record in subscriber.records.items():
                if topic not in wanted and not record.flags & wire.DOWN:
                    odd[subscriber.name, topic] = "is not wanted"
        return odd

    def compare(self):
        """Whoever joins knows what the others know."""
        ours, theirs = (
            {
                topic: [
                    *msgspec.structs.astuple(record)[4:8],
                    record.flags & ~wire.SNAPSHOT,
                    repr(record.bid),
                ]
                for topic, record in subscriber.records.items()
            }
            for subscriber in (self.first, self.second)
        )
        assert ours == theirs, (
            f"{[(t, ours.get(t), theirs.get(t)) for t in ours if ours.get(t) != theirs.get(t)]}"
        )

    def wanted_keys(self):
        """Return whose trades and depth are to be live."""
        keys = [topic.split(".", 2)[1:] for market in self.markets for topic in market.wanted_topics()]
        return [(name, symbol) for name, symbol in keys if self.kinds]

    def kill_relay(self):
        self.note("the relay is killed")
        self.relay.way.close()
        self.relay = None
        self.relay_starts_at = self.now + self.rng.randrange(100 * NS_PER_MS, 10 * NS_PER_S)

    def odd_books(self, is_at_rest=False):
        """Return which books somebody has that should be valid and are not, or, at rest, are not the newest."""
        odd = {}
        for key in self.wanted_keys() if self.reader is not None else ():
            topic = wire.topic(wire.BOOK, *key)
            for name, made in (("first", self.first.taken[key].book), ("reader", self.reader.book(topic))):
                is_newest = not is_at_rest or self.tapes[key].is_newest(made)
                if not made.is_valid or not is_newest:
                    odd[name, topic] = repr(made)
        return odd

    def untold(self):
        found = {key: self.first.untold(key) for key in self.first.taken}
        return {key: numbers for key, numbers in found.items() if numbers}

    # --- what `world.play_all` counts

    @property
    def sent(self):
        return self.first.got

    @property
    def connects(self):
        return [at for market in self.markets for at in market.connects]

    @property
    def retired(self):
        return sum(feed.retired for market in self.markets for feed in market.feeds())
