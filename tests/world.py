"""A simulated world for the connections of one feed: exchange, network, clock and operator, all from a seed.

    python tests/world.py --seeds 2000            # or `make sim SEEDS=2000`
    python tests/world.py --first 1234 --seeds 1  # one again, with its log

Whatever happens in it, no update older than the newest goes out, no half of one quote with half of another, no
limit of the exchange is exceeded, and nothing grows without bound. While faults spare one of two legs, no update is
missed. After the last fault everything is live again within `HEALS_S`. Some feeds carry trades, depth and books
besides: no trade goes out twice, or is missing and not told, and no depth or book that is not flagged was never the
exchange's.
"""

import argparse
import collections
import heapq
import itertools
import json
import multiprocessing
import os
import random
import sys
import time

import msgspec
from tape import BOOK, COUNT_OF_LINE, DEPTH, TRADE, Taken, Tape, kinds_of, narrow

from feedhandler.data import kept_book, wire
from feedhandler.data.connecting import LEGS_MAX, ConnectBudget, Policy
from feedhandler.data.status import Phase
from feedhandler.data.ticker import TICKER
from feedhandler.data.units import NS_PER_S
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.arbitration import LINES_MAX
from feedhandler.exchanges.base import Endpoint, Quote, RestTicker
from feedhandler.exchanges.full_book import BEST
from feedhandler.exchanges.state import QUOTE
from feedhandler.feed.bases import REPEAT_NS
from feedhandler.feed.bases import REQUESTS_MAX as BASES_MAX
from feedhandler.feed.freshness import DECIDES_NS, SILENCE_NS_MIN, USUAL_FACTOR
from feedhandler.feed.legs import Legs
from feedhandler.feed.missed import UNKNOWN
from feedhandler.feed.survey import Survey
from feedhandler.sim.simulated import SIMULATED

EPOCH_NS = 1_790_000_000 * NS_PER_S
STEP_NS = 20_000_000
STEER_NS = 200_000_000  # how often a feed looks at its connections
DELAY_NS = 5_000_000  # of a link that is well
REST = "REST"
PING = b""  # a ping of the WebSocket's own, or the answer to one
PINGS_EVERY_NS = {"binance": 20 * NS_PER_S}  # the exchange does
HEALS_S = 150  # after the last fault everything is live again
# Why a book may not be valid to who takes all of its records.
BOOK_REASONS = ("", kept_book.NO_SNAPSHOT, kept_book.INVALID, kept_book.DOWN)
LOG_MAX = 300
TRADES, TRADES_QUIETLY = 0.04, 0.001  # a symbol's book is touched at a step
ANSWERS_NS = (20_000_000, 3 * NS_PER_S)  # REST does after so long
BOOK_LATE_S = 8  # a connection is late by two seconds, and another takes over after one of standing still
BASES_EVERY_S = 30  # of a book that is valid
BOOK_HEALS_S = 45  # a lone connection's book that came into doubt is valid again
LONG_EVERY = 10  # seeds: one of so many plays a whole day, too,
CALM_EVERY = 5  # one of so many what dies in a quiet market,
MIXED_EVERY = 20  # one of so many all exchanges with all of their markets,
HOURS_EVERY = 70  # and one of so many 30 hours of one, which cost as much as 20 other plays


# --- the three protocols, as little of them as a session needs


def binance_answer(request, topics):
    return {"result": None, "id": request["id"]}, request["params"], request["method"] == "UNSUBSCRIBE"


def binance_quote(native, number, ms):
    amounts = {"b": f"{number}.5", "B": "1", "a": f"{number + 1}.5", "A": "2"}
    return {"stream": f"{native.lower()}@bookTicker", "data": {"u": number, "s": native, **amounts}}


def binance_statistics(native, number, ms):
    amounts = dict.fromkeys("cohlvq", "7")
    amounts |= {"b": f"{number}.5", "B": "1", "a": f"{number + 1}.5", "A": "2"}
    return {"stream": "x", "data": {"e": "24hrTicker", "E": ms, "s": native, **amounts}}


def kucoin_answer(request, topics):
    if request["type"] == "ping":
        return {"id": request["id"], "type": "pong"}, (), False
    channel, _, symbols = request["topic"].partition(":")
    named = [f"{channel}:{symbol}" for symbol in symbols.split(",")]
    return {"id": request["id"], "type": "ack"}, named, request["type"] == "unsubscribe"


def kucoin_quote(native, number, ms):
    data = {"bids": [f"{number}.5", "1"], "asks": [f"{number + 1}.5", "2"], "timestamp": number}
    return {"type": "message", "topic": f"/spotMarket/level1:{native}", "subject": "level1", "data": data}


def kucoin_statistics(native, number, ms):
    inner = {"symbol": native, "open": 7, "high": 7, "low": 7, "vol": 7, "volValue": 7, "datetime": ms}
    inner |= {"buy": number + 0.5, "bidSize": 1, "sell": number + 1.5, "askSize": 2}
    data = {"sequence": str(number), "data": inner}
    return {
        "type": "message",
        "topic": f"/market/snapshot:{native}",
        "subject": "trade.snapshot",
        "data": data,
    }


def kucoin_ticker(native, number, ms):
    quote = {"bestBid": f"{number}.5", "bestBidSize": "1", "bestAsk": f"{number + 1}.5", "bestAskSize": "2"}
    data = {"sequence": str(number), "price": "7", "time": ms, **quote}
    return {"type": "message", "topic": f"/market/ticker:{native}", "subject": "trade.ticker", "data": data}


def bybit_answer(request, topics):
    text = "pong" if request["op"] == "ping" else request["op"]
    answer = {"success": True, "ret_msg": text, "op": request["op"], "req_id": request["req_id"]}
    named = request.get("args", ())
    if doubles := topics.intersection(named) if text == "subscribe" else ():
        text = f"error:handler not found,topic:{min(doubles)} already subscribed"
        return {**answer, "success": False, "ret_msg": text}, (), False
    return answer, named, text == "unsubscribe"


def bybit_quote(native, number, ms):
    data = {"s": native, "b": [[f"{number}.5", "1"]], "a": [[f"{number + 1}.5", "2"]], "u": number, "seq": 1}
    return {"topic": f"orderbook.1.{native}", "ts": ms, "type": "snapshot", "data": data, "cts": ms}


def bybit_statistics(native, number, ms):
    names = ("lastPrice", "highPrice24h", "lowPrice24h", "prevPrice24h", "volume24h", "turnover24h")
    data = {"symbol": native, **dict.fromkeys(names, "7")}
    return {"topic": f"tickers.{native}", "ts": ms, "type": "snapshot", "cs": ms, "data": data}


PROTOCOLS = {
    "binance": (binance_answer, binance_quote, binance_statistics),
    "kucoin": (kucoin_answer, kucoin_quote, kucoin_statistics),
    "bybit": (bybit_answer, bybit_quote, bybit_statistics),
}
PLAYED = tuple(PROTOCOLS)  # what a seed plays is not to change with the registry


def native_of(exchange, number):
    """Spell a numbered symbol as the exchange does."""
    return SIMULATED[exchange].native(f"S{number}")


class Link:
    """One connection between the exchange and a session: in order, and as late as it likes."""

    def __init__(self, opened_ns):
        self.opened_ns = opened_ns
        self.topics = set()
        self.due = 0  # of the newest frame under way: none overtakes another
        self.frames = []
        self.delay_ns = DELAY_NS
        self.stalled_until = 0
        self.muted = set()  # topics that are acknowledged, and silent
        self.is_deaf = False  # requests get no answer
        self.asked_ns = 0  # when the last request came
        self.pings_at = opened_ns
        self.published = {}  # of each symbol, the newest trade that it brought first
        self.book_offset = 0  # of the numbers of messages of books
        self.book_faults = {}  # native → what becomes of the next of those
        self.spoils_trades = set()  # natives of whose next trades nobody can read one

    def heal(self):
        self.delay_ns, self.stalled_until, self.is_deaf = DELAY_NS, 0, False
        self.muted.clear()
        self.book_faults.clear()
        self.spoils_trades.clear()


class World:
    """Legs, the connections that they hold, and a market of numbered quotes."""

    step_ns = STEP_NS
    last = None  # the newest world
    carries_groups = False  # of legs, in a universe
    tells_first = True  # on subscribing, how it stands on slower channels
    repeats_trades = True  # the newest, to new connections

    def __init__(
        self,
        exchange="binance",
        legs=1,
        symbols=3,
        seed=1,
        quiet=(),
        spare=0,
        has_canary=True,
        kinds=(),
        **policy,
    ):
        self.rng = random.Random(seed)
        World.last = self
        self.now = self.began_at = 1000 * NS_PER_S
        self.log = collections.deque(maxlen=LOG_MAX)
        self.clock_off_ns = 0  # of this host's clock
        self.asks_time = bool(seed % 2)  # of the exchange, as the timekeeper does
        self.known_at = self.now  # when the answer comes
        self.mutes_until = 0  # subscriptions are acknowledged, and no more
        self.exchange = EXCHANGES[exchange].main()
        self.answer, self.quote, self.statistics = PROTOCOLS[exchange]
        self.listed = [native_of(exchange, number) for number in range(symbols + spare)]
        self.natives = self.listed[:symbols]  # those that are wanted
        self.quiet = {self.natives[number] for number in quiet}  # they say something on demand
        self.kinds = kinds  # beside tickers
        narrow(self.exchange)
        self.add(self.natives)
        self.tapes = self.make_tapes(seed)
        self.taken = {native: Taken(tape) for native, tape in self.tapes.items()}
        self.tape_of = {topic: tape for tape in self.tapes.values() for topic in tape.topics.values()}
        self.trades_in = {}  # frames of trades: which
        self.latest = {native: collections.deque(maxlen=3) for native in self.tapes}  # of those
        self.carriers = {}  # of each trade: the link that brought it first
        self.flagged_kinds = []  # (time, topic, flags)
        self.asked_trades = []  # (when it is answered, question)
        self.asked_bases = []  # (when it is answered, question, the answer, did known levels run out?)
        self.bases_asked = []  # (when, weight)
        self.book_numbers = collections.Counter()  # records of books, by symbol
        self.snapshots_at = {}  # of each book that is valid: when it was last published in full
        self.rest_lag_ns = self.rng.randrange(NS_PER_S) if self.tapes else 0  # of trades
        self.answers_trades = True
        self.is_resting = False
        self.number = dict.fromkeys(self.listed, 1000)
        self.quote_topics = {native: {SIMULATED[exchange].quote_topic(native)} for native in self.listed}
        self.sent = {native: [] for native in self.listed}  # numbers of quotes, while it is wanted
        self.got = {native: [] for native in self.listed}
        self.said_ns = {}  # when each was last said
        self.again = set()  # who has come to be wanted,
        self.since = {}  # and which of their quotes were said before that
        self.newest = {}  # number of the quote in the newest record
        self.flags = dict.fromkeys(self.natives, 0)
        self.flagged = []  # (time, native, flags)
        self.links = {}
        self.is_reachable = True
        self.order = itertools.count()
        self.steers_at = 0
        self.connects = []
        self.lost = set()  # topics that nobody is told of, while their market goes on
        self.heals = (
            0  # they come back: 0 = with a new subscription, 1 = with a new connection, 2 = by themselves
        )
        self.asked = []  # (when it is answered, question)
        self.survey = Survey()
        self.is_seeding = False  # what is emitted now is REST's,
        self.speaking = None  # or came on this link
        self.lent = {}  # of whom the newest quote is, if not of its own channel: REST, or a link's slower one
        self.survey_at = 0  # when REST makes its answer about all symbols,
        self.answer_at = 0  # when that comes,
        self.rows = None  # and what it says
        self.surveys = 0
        self.answers_rest = True
        self.retired = 0
        self.canary = SIMULATED[exchange].native("BTC") if has_canary else ""
        self.canary_topics = {SIMULATED[exchange].quote_topic(self.canary)}
        self.legs = self.make_legs(legs, Policy(**{"max_attempts": 0, **policy}))
        for session in self.legs.sessions:
            self.links[session] = None

    def make_legs(self, count, policy):
        legs = Legs(
            self.exchange,
            self.exchange.all_states,
            self.emit,
            count=count,
            policy=policy,
            budget=ConnectBudget(*self.exchange.connects),
            rng=self.rng,
        )
        legs.set_canary(self.canary)
        return legs

    def make_tapes(self, seed):
        name = self.exchange.exchange
        return {native: Tape(name, native, seed, self.kinds) for native in self.listed if self.kinds}

    def add(self, natives):
        """Have the exchange's file make states of all kinds."""
        return [state for kind in (TICKER.name, *self.kinds) for state in self.exchange.add(natives, 0, kind)]

    def note(self, text):
        self.log.append(f"{self.now / NS_PER_S:.2f} {text}")

    def unix_ns(self):
        """What this host takes for the time."""
        return EPOCH_NS + self.now + self.clock_off_ns

    def want(self, native):
        """Somebody wants one more."""
        self.note(f"{native} is wanted")
        self.natives = [*self.natives, native]
        self.sent[native], self.got[native], self.flags[native] = [], [], 0
        self.newest.pop(native, None)
        self.again.add(native)
        if native in self.tapes:
            self.taken[native].begin(EPOCH_NS + self.now)
        self.legs.add(self.add([native]))

    def unwant(self, native):
        """Nobody wants this one any more."""
        self.note(f"{native} is not wanted")
        state = self.exchange.tickers[native]
        had_data = bool(state.recv_ns)
        states = [state, *(self.exchange.states[kind][native] for kind in self.kinds)]
        is_known = [each.kind for each in states[1:] if each.is_known]
        self.legs.remove(states)
        self.exchange.remove(states)
        assert not had_data or self.flags[native] & wire.DOWN, "it says so"
        assert all(self.taken[native].flags[kind] & wire.DOWN for kind in is_known), "so do other kinds"
        self.natives = [each for each in self.natives if each != native]
        del self.flags[native]

    def emit(self, state):
        assert state.native in self.flags, "what is not wanted is not heard of"
        record = wire.unpack(state.record())
        if state.kind != TICKER.name:
            self.take(state, record)
            return
        if record.flags & (wire.STALE | wire.DOWN) and record.flags != self.flags[state.native]:
            self.flagged.append((self.now, state.native, record.flags))
            self.note(f"{state.native} {record.flag_names}")
        self.flags[state.native] = record.flags
        if record.bid != record.bid:
            return
        number = int(record.bid)
        got = self.got[state.native]
        assert record.ask == record.bid + 1, "never half of one quote and half of another"
        # What REST states counts as older than any word of the stream, also than one that was held up on its way;
        # and so does what a slower channel fills, for the quote's own channel on other connections.
        newest, lender = self.newest.get(state.native, 0), self.lent.get(state.native)
        is_own = state.channels[QUOTE].updates and not self.is_seeding
        is_first_word = lender == REST or (is_own and lender not in (None, self.speaking))
        # A slower channel has no id but its time: on a link whose clock is wrong nothing tells its place.
        is_undated = not is_own and bool(record.flags & wire.BAD_EXCHANGE_TIME)
        may_be_older = (is_first_word or is_undated) and not self.is_seeding
        assert may_be_older or number >= newest, "a ticker never moves backwards"
        if number != newest:  # else it may be a flag alone
            self.lent[state.native] = None if is_own else REST if self.is_seeding else self.speaking
        self.newest[state.native] = number
        # As long as slower channels fill the quote, single ones may be passed over.
        has_begun = state.channels[QUOTE].update_id and number > self.since.get(state.native, 0)
        if has_begun and (not got or number > got[-1]):
            got.append(number)

    def take(self, state, record):
        """Look at a record of another kind."""
        taken = self.taken[state.native]
        had_book = taken.had_book
        if state.kind == BOOK:
            record = self.number_book(state.native, record)
        is_clock_right = self.clock_off_ns == 0 and self.known_at <= self.began_at
        taken.take(record, may_go_back=not is_clock_right, is_clock_right=is_clock_right)
        if state.kind == BOOK:
            self.look_at_book(state.native, record)
        if record.flags & wire.NOT_LIVE:
            if state.kind != BOOK or had_book:
                self.flagged_kinds.append((self.now, state.native, f"{state.kind} {record.flag_names}"))
            self.note(f"{state.topic} {record.flag_names}")
        elif record.kind == wire.TRADE and not record.flags & wire.RECOVERED:
            number = taken.newest
            link = self.carriers[state.native, number]
            assert number > link.published.get(state.native, 0), f"{state.topic}: {number} is out of order"
            link.published[state.native] = number

    def number_book(self, native, record):
        """Return a record of a book with the number that the merger would give it."""
        self.book_numbers[native] += record.kind == wire.BOOK
        return msgspec.structs.replace(record, sequence=self.book_numbers[native])

    def look_at_book(self, native, record):
        """Who takes all records has a book that is valid, or the feed has said that it is not."""
        made = self.taken[native].book
        assert made.reason in BOOK_REASONS, f"{made!r}"
        if record.flags & wire.SNAPSHOT:
            self.snapshots_at[native] = self.now
        elif not made.is_valid:
            self.snapshots_at.pop(native, None)

    # --- the exchange

    def say(self, native):
        """A new quote of an instrument, on all connections that have subscribed to it."""
        self.number[native] += self.rng.randrange(1, 4)
        links = [link for link in self.links.values() if link]
        topics = self.quote_topics[native]
        if self.got[native] or (links and all(link.topics & topics for link in links)):
            self.sent[native].append(self.number[native])
        self.said_ns[native] = self.now
        self.tell(native)

    def tell(self, native):
        """Say the present quote to all that have subscribed to it."""
        topics = self.quote_topics[native] - self.lost
        hearing = [link for link in self.links.values() if link and (topics & link.topics) - link.muted]
        if hearing:
            frame = msgspec.json.encode(self.quote(native, self.number[native], self.ms()))
            for link in hearing:
                self.post(link, frame)

    def trade(self, tape):
        """Something happens in a symbol's book: trades, and levels that change."""
        unix_ns = EPOCH_NS + self.now
        for frame, numbers in tape.step(unix_ns):
            encoded = msgspec.json.encode(frame)
            self.trades_in[encoded] = [(tape.native, number) for number in numbers]
            self.latest[tape.native].append(encoded)
            self.post_trades(tape, frame, encoded)
        if frame := tape.depth(unix_ns):
            self.speak_again(tape.topics[DEPTH], frame)
            self.post_all(tape.topics[DEPTH], msgspec.json.encode(frame))
        if message := tape.changes(unix_ns):
            self.speak_again(tape.topics[BOOK], message)
            self.post_book(tape, message)

    def speak_again(self, topic, frame):
        """A service that begins anew sends that everywhere: silent until its small ids fit by chance is none."""
        if frame.get("type") == "snapshot":
            for link in filter(None, self.links.values()):
                link.muted.discard(topic)

    def post_trades(self, tape, frame, encoded):
        """Send trades, to some connections so that they cannot be read."""
        for link in self.hearing(tape.topics[TRADE]):
            if tape.native in link.spoils_trades:
                link.spoils_trades.discard(tape.native)
                spoiled = msgspec.json.encode(tape.spoiled_trades(frame))
                self.trades_in[spoiled] = self.trades_in[encoded][1:]  # the others can be read
                self.post(link, spoiled)
            else:
                self.post(link, encoded)

    def post_book(self, tape, message):
        """Send changes of a whole book, to each connection as it numbers them, and with what befalls them there."""
        topic = tape.topics[BOOK]
        encoded = {}
        for link in self.hearing(topic):
            offset, fault = link.book_offset, link.book_faults.pop(tape.native, "")
            if fault == "gap":
                continue
            if fault == "spoiled":
                self.post(link, tape.spoiled(message))
                continue
            if offset not in encoded:
                encoded[offset] = msgspec.json.encode(tape.numbered(message, offset))
            for _ in range(1 + (fault == "twice")):
                self.post(link, encoded[offset])

    def post_all(self, topic, frame):
        """Send a frame to all that have subscribed to its topic."""
        for link in self.hearing(topic):
            self.post(link, frame)

    def hearing(self, topic):
        """Return the connections that have subscribed to a topic, and on which it is not silent."""
        links = filter(None, self.links.values())
        return [link for link in links if topic in link.topics and topic not in link.muted]

    def begin(self, link, topic):
        """Send what a new subscription to trades, depth or a book is sent at once."""
        tape = self.tape_of[topic]
        if topic == tape.topics[BOOK]:
            if tape.exchange == "bybit":
                self.post(link, tape.numbered(tape.first_book(EPOCH_NS + self.now), link.book_offset))
            return
        if topic == tape.topics[DEPTH]:
            if tape.exchange == "bybit" or self.rng.random() < 0.5:  # else with the next change
                self.post(link, tape.first_depth(EPOCH_NS + self.now))
        elif self.repeats_trades and self.now - link.opened_ns < 5 * NS_PER_S and self.rng.random() < 0.3:
            for frame in self.latest[tape.native]:
                self.post(link, frame)

    def say_canary(self):
        """What never rests has a new quote; nobody wants to know it."""
        hearing = [
            link for link in self.links.values() if link and (self.canary_topics & link.topics) - link.muted
        ]
        if hearing and self.rng.random() < 0.2:
            frame = msgspec.json.encode(self.quote(self.canary, self.number_of_canary(), self.ms()))
            for link in hearing:
                self.post(link, frame)

    def number_of_canary(self):
        return int(self.now // 1_000_000)

    def repeat(self):
        """Say again what has not changed for so long, where the exchange does."""
        repeats_ns = int(self.exchange.repeats_s.get((TICKER.name, QUOTE), 0) * NS_PER_S)
        for native in self.listed if repeats_ns else ():
            if self.now - self.said_ns.get(native, self.now) >= repeats_ns:
                self.said_ns[native] = self.now
                self.tell(native)

    def ms(self):
        return (EPOCH_NS + self.now) // 1_000_000

    def post(self, link, frame):
        frame = frame if isinstance(frame, bytes) else msgspec.json.encode(frame)
        link.due = max(link.due, self.now + link.delay_ns + int(3_000_000 * self.rng.random()))
        heapq.heappush(link.frames, (link.due, next(self.order), frame))

    def take_request(self, link, message):
        interval_ns = int(self.exchange.command_interval_s * NS_PER_S)
        assert not link.asked_ns or self.now - link.asked_ns >= interval_ns, "too many requests"
        link.asked_ns = self.now
        request = json.loads(message)
        if link.is_deaf:
            return
        answer, topics, is_leaving = self.answer(request, link.topics)
        self.post(link, answer)
        if is_leaving:
            link.topics.difference_update(topics)
            # Wanted again before it was taken back: it is taken back and asked for again, and begins then.
            for native in [each for each in self.again if self.quote_topics[each].intersection(topics)]:
                self.sent[native], self.got[native] = [], []
                self.since[native] = self.number[native]  # what is under way was said before
            return
        link.topics.update(topics)
        link.muted.difference_update(topics)
        if self.heals == 0 or (self.heals == 1 and self.now - link.opened_ns < 5 * NS_PER_S):
            self.lost.difference_update(topics)
        if self.now < self.mutes_until:
            link.muted.update(each for each in topics if self.may_mute(each))
        for topic in [topic for topic in topics if topic not in link.muted]:
            if topic in self.tape_of:
                self.begin(link, topic)
            elif self.tells_first:
                self.tell_slowly(link, topic)

    def may_mute(self, topic):
        """Nobody can know that trades are not sent, unless their numbers follow each other."""
        tape = self.tape_of.get(topic)
        return tape is None or tape.exchange == "binance" or topic != tape.topics[TRADE]

    def tell_slowly(self, link, topic):
        """Say on one connection what a slower channel has to say."""
        for native in self.listed if topic not in self.tape_of else ():
            if native.lower() in topic.lower() and topic not in self.quote_topics[native]:
                other = kucoin_ticker if topic.startswith("/market/ticker:") else self.statistics
                self.post(link, other(native, self.number[native], self.ms()))

    # --- time

    def run(self, seconds, each_step=lambda: None):
        end = self.now + int(seconds * NS_PER_S)
        while self.now < end:
            each_step()
            for native in self.listed:
                if native not in self.quiet and self.rng.random() < 0.1:
                    self.say(native)
            for native, tape in self.tapes.items() if not self.is_resting else ():
                if self.rng.random() < (TRADES_QUIETLY if native in self.quiet else TRADES):
                    self.trade(tape)
            self.repeat()
            self.turn()
            self.now += self.step_ns

    def turn(self):
        """Do what the feed does now."""
        if self.asks_time and 0 < self.known_at <= self.now:
            self.known_at = 0
            self.exchange.set_clock(-self.clock_off_ns, -self.clock_off_ns + 1_100_000_000)
        self.ping()
        self.say_canary()
        self.deliver()
        for session in list(self.links):
            if self.now >= session.deadline_mono_ns:
                self.advance(session)
        if self.now >= self.steers_at:
            self.steers_at = self.now + STEER_NS
            self.steer()

    def ping(self):
        """Do so where the exchange does."""
        every_ns = PINGS_EVERY_NS.get(self.exchange.exchange)
        for link in filter(None, self.links.values() if every_ns else ()):
            if self.now >= link.pings_at + every_ns:
                link.pings_at = self.now
                self.post(link, PING)

    def deliver(self):
        for session, link in list(self.links.items()):
            while link and link.frames and max(link.frames[0][0], link.stalled_until) <= self.now:
                _, _, frame = heapq.heappop(link.frames)
                self.speaking = link
                if frame == PING:
                    session.on_ping()
                    continue
                for key in self.trades_in.get(frame, ()) if self.tapes else ():
                    if key[0] in self.flags:  # else nobody takes it
                        self.carriers.setdefault(key, link)
                if session.on_frame(frame, self.unix_ns()):
                    self.advance(session)
                link = self.links.get(session)

    def advance(self, session):
        step = session.advance(self.now)
        if step.connect:
            self.connects.append(self.now)
            count, per_s = self.exchange.connects
            recent = [at for at in self.connects[-count - 1 :] if self.now - at < per_s * NS_PER_S]
            assert len(recent) <= count, "too many connections"
            self.note(f"line {session.line.index} connects")
            if self.is_reachable:
                session.on_endpoint(Endpoint("ws://x"))
                link = self.links[session] = Link(self.now)
                link.book_offset = self.rng.randrange(4) * COUNT_OF_LINE if self.tapes else 0
                session.on_open(self.now)
                if self.exchange.awaits_welcome:
                    self.post(link, {"id": "c", "type": "welcome"})
                step.send += session.advance(self.now).send
            else:
                session.on_closed(self.now, "refused")
        if step.ping and self.links[session] is not None:
            self.post(self.links[session], PING)
        for message in step.send:
            if self.links[session] is not None:
                self.take_request(self.links[session], message)
        if step.close:
            self.close(session, step.close)

    def steer(self):
        change = self.legs.advance(self.now)
        for question in change.ask:
            self.asked.append((self.now + self.rng.randrange(20_000_000, 3_000_000_000), question))
        for due, question in [each for each in self.asked if each[0] <= self.now]:
            self.asked.remove((due, question))
            self.answer_over_rest(question)
        for wanted in change.ask_trades:
            self.asked_trades.append((self.now + self.rng.randrange(*ANSWERS_NS), wanted))
        self.answer_trades()
        for wanted in change.ask_bases:
            self.ask_base(wanted)
        self.answer_bases()
        self.survey_all()
        self.apply(change)
        sessions = self.legs.sessions
        assert set(sessions) == set(self.links)
        lines = [session.line.index for session in sessions]
        assert len(set(lines)) == len(lines) <= LINES_MAX

    def apply(self, change):
        """Run new connections, and stop those that are not needed any more."""
        for session in change.run:
            self.note(f"line {session.line.index} is to follow: {session.reason}")
            self.links[session] = None
        for session in change.stop:
            self.retired += 1
            self.note(f"line {session.line.index} retired")
            self.close(session, "stopping")
            del self.links[session]

    def survey_all(self):
        """Ask REST about all symbols, and take the answer; what it says is a moment old by then."""
        if self.survey.begin(self.legs.legs if self.carries_groups else [self.legs], self.now):
            self.surveys += 1
            self.survey_at = self.now + self.rng.randrange(20_000_000, 2_000_000_000)
            self.answer_at = self.survey_at + self.rng.randrange(500_000_000)
        if 0 < self.survey_at <= self.now:
            self.survey_at = 0
            is_there = self.is_reachable and self.answers_rest
            self.rows = [self.row(native) for native in self.listed] if is_there else None
        if not self.survey_at and 0 < self.answer_at <= self.now:
            self.answer_at = 0
            if self.rows is not None:
                self.is_seeding = True
                self.survey.on_rows(self.rows, self.unix_ns())
                self.is_seeding = False
            self.survey.end(self.now, has_failed=self.rows is None)

    def row(self, native):
        number = self.number[native]
        return RestTicker(native, Quote(number + 0.5, 1.0, number + 1.5, 2.0), 7.0, (7.0, 7.0, 7.0, 7.0, 7.0))

    def answer_over_rest(self, question):
        """The quote as it is, unless REST is away too."""
        number = self.number_of_canary() if question.native == self.canary else self.number[question.native]
        quote = Quote(number + 0.5, 1.0, number + 1.5, 2.0)
        is_there = self.is_reachable and self.answers_rest
        question.watch.on_quote(question.native, quote if is_there else None)

    def answer_trades(self):
        """Answer what is due of requests for past trades: what REST knows, or that it knows nothing."""
        for due, wanted in [each for each in self.asked_trades if each[0] <= self.now]:
            self.asked_trades.remove((due, wanted))
            native = wanted.missed.state.native
            if not (self.is_reachable and self.answers_trades):
                self.note(f"no past trades of {native}")
                wanted.watch.on_refused(wanted, self.rng.choice((0.0, 0.0, 5.0)))
                continue
            known_ns = EPOCH_NS + self.now - self.rest_lag_ns
            past = self.tapes[native].past(wanted.request.path, known_ns)
            rows = self.exchange.decode_past_trades(native, msgspec.json.encode(past))
            assert not rows.problem
            wanted.watch.on_answer(wanted, rows.items, self.unix_ns())

    def ask_base(self, question):
        """Take a request for a book: what is answered was true at some time between now and then, or before."""
        self.note(f"a base of {question.watched.state.native} is requested")
        assert len(self.asked_bases) < BASES_MAX, "too many at a time"
        weight, (limit, per_s) = question.request.weight, self.exchange.rest_limit
        self.bases_asked = [each for each in self.bases_asked if self.now - each[0] < per_s * NS_PER_S]
        self.bases_asked.append((self.now, weight))
        assert sum(each for _, each in self.bases_asked) <= limit, "more than the exchange permits"
        answered_at = self.now + self.rng.randrange(*ANSWERS_NS)
        lag_ns = self.rng.randrange(2 * NS_PER_S) if self.rng.random() < 0.3 else 0
        known_at = self.rng.randrange(self.now, answered_at) - lag_ns
        self.asked_bases.append((answered_at, question, known_at, question.watched.state.runs_out))

    def answer_bases(self):
        """Answer what is due of requests for books."""
        for each in [each for each in self.asked_bases if each[0] <= self.now]:
            self.asked_bases.remove(each)
            _, question, known_at, _ = each
            native = question.watched.state.native
            if not (self.is_reachable and self.answers_trades):
                self.note(f"no base of {native}")
                question.bases.on_refused(question, self.rng.choice((0.0, 0.0, 5.0)))
                continue
            body = msgspec.json.encode(self.tapes[native].base(EPOCH_NS + known_at))
            base = self.exchange.decode_base(native, body)
            self.note(f"a base of {native} at {base.last_id}")
            question.bases.on_answer(question, base, self.unix_ns())

    def books_are_known(self, natives):
        """True if each connection knows all books."""
        states = [self.exchange.states[BOOK][native] for native in natives if BOOK in self.kinds]
        lines = [session.line.index for session in self.legs.sessions]
        return all(state.lines[line].is_known for state in states for line in lines)

    def late_books(self, natives):
        """Return the books that do not have what was sent a while ago."""
        sent_ns = EPOCH_NS + self.now - BOOK_LATE_S * NS_PER_S
        made = {native: self.taken[native].book for native in natives if BOOK in self.kinds}
        return [made[n] for n in made if made[n].is_valid and self.tapes[n].is_behind(made[n], sent_ns)]

    def lost_trades(self, native):
        """Return how many are told to be lost, -1 where that is not known; none where none are."""
        topic = wire.topic(wire.TRADE, self.exchange.exchange, native)
        legs = self.legs.legs if self.carries_groups else [self.legs]
        return next((each.missed.lost[topic] for each in legs if topic in each.missed.lost), None)

    def close(self, session, reason):
        self.links[session] = None
        self.note(f"line {session.line.index} closed: {reason}")
        if session.phase is not Phase.BACKOFF:
            session.on_closed(self.now, reason)

    # --- verdicts

    def all_live(self):
        return all(
            not self.flags[native] & (wire.STALE | wire.DOWN) and native in self.newest
            for native in self.natives
        )

    def missed(self, natives=None):
        """The quotes that were said since the first that came, and never came; of some symbols, or all."""
        self.quiet = set(self.listed)
        self.run(5)  # what is under way
        missed = {}
        for native in natives or self.natives:
            got = self.got[native]
            since = [number for number in self.sent[native] if got and number >= got[0]]
            if lost := sorted(set(since) - set(got)):
                missed[native] = lost
        return missed

    def compare(self, natives, *, is_spared):
        """All has come of other kinds, or is told. is_spared: nothing was to be told."""
        self.quiet, self.is_resting = set(self.listed), True
        self.run(8 if self.tapes else 0)  # what is under way
        for native in natives if self.tapes else ():
            tape, taken = self.tapes[native], self.taken[native]
            missing, lost = taken.missing(), self.lost_trades(native)
            text = f"{native}: missing {len(missing)} {missing[:5]}, told {lost}"
            assert not taken.flags[TRADE] & wire.NOT_LIVE, f"{native}: trades are {taken.flags[TRADE]}"
            if is_spared:
                assert not missing and lost is None, text
            else:
                assert not missing or lost == UNKNOWN or (lost or 0) >= len(missing), text
                assert lost is None or wire.STALE in [flags & wire.STALE for flags in taken.conditions], text
            if DEPTH in self.kinds:
                assert not taken.flags[DEPTH] & wire.NOT_LIVE, f"{native}: depth is {taken.flags[DEPTH]}"
                assert taken.best == tape.best, f"{native}: depth of {taken.key}, of {tape.key} it should be"
            if BOOK in self.kinds:
                made = taken.book
                assert made.is_valid, f"{made!r}"
                assert tape.is_newest(made), f"{made!r} at {made.last_id}, the market is at {tape.book_id}"
        if is_spared:
            flagged = [each for each in self.flagged_kinds if each[1] in natives]
            assert flagged == [], f"flagged {flagged[:5]}"


# --- whole plays


def spare_one_leg(seed, world=None):
    """Two legs, and faults that leave one of them alone: no update is missed, and nothing is flagged."""
    rng = random.Random(f"spare {seed}")
    world = world or make(seed, legs=2, symbols=2, spare=2, quiet=(1,), max_age_s=200.0)
    kept = set(world.natives)  # others come and go
    world.run(5)
    world.say(world.natives[1])
    healed = 0

    def play():
        nonlocal healed
        if rng.random() < 0.001:
            world.say(world.natives[1])
        if rng.random() < 0.002:
            change_of_mind(world, rng, kept)
        late = world.late_books(kept)
        assert not late, f"another leg brings what is not published: {late}"
        sessions = world.legs.sessions
        links = [world.links[session] for session in sessions]
        if world.now < healed or len(sessions) > 2 or not all(links):
            return
        if any(link.delay_ns != DELAY_NS or link.stalled_until > world.now or link.is_deaf for link in links):
            for link in links:
                link.heal()
            healed = world.now + 5 * NS_PER_S
            return
        if any(session.condition or session.subscriptions.unheard() for session in sessions):
            return
        if not world.books_are_known(kept):
            return
        healed = world.now + rng.randrange(5, 40) * NS_PER_S
        victim = rng.choice(sessions)
        link = world.links[victim]
        match rng.randrange(5):
            case 0:
                world.close(victim, "unplugged")
            case 1:
                link.stalled_until = world.now + rng.randrange(60) * NS_PER_S
                world.note(f"line {victim.line.index} stalls")
            case 2:
                link.delay_ns = rng.randrange(2_000_000_000)
                world.note(f"line {victim.line.index} is late by {link.delay_ns / NS_PER_S:.2f} s")
            case 3:
                link.is_deaf = True
                world.note(f"line {victim.line.index} gets no answers")
            case _:
                world.legs.renew("by order")

    world.run(300, play)
    flagged = [each for each in world.flagged if each[1] in kept]
    assert flagged == [], f"flagged {flagged[:5]}"
    missed = world.missed(kept)  # who has just come may be heard by the other leg alone
    assert missed == {}, f"missed {missed}"
    world.compare(kept, is_spared=True)
    return world


def change_of_minds(seed, world=None):
    """Symbols come and go, connections are renewed, and nobody else notices; who has come is missed no more."""
    rng = random.Random(f"minds {seed}")
    legs = rng.randrange(1, LEGS_MAX + 1)
    world = world or make(seed, legs=legs, symbols=3, spare=4, quiet=(1,), max_age_s=60.0)
    kept = set(world.natives)

    def play():
        if rng.random() < 0.001:
            world.say(world.natives[1])
        if rng.random() < 0.01:
            change_of_mind(world, rng, kept)

    world.run(200, play)
    world.run(10)
    assert world.all_live(), f"not live: {world.flags}"
    flagged = [each for each in world.flagged if each[1] in kept]
    assert flagged == [], f"flagged {flagged[:5]}"
    missed = world.missed()
    assert missed == {}, f"missed {missed}"
    world.compare(kept, is_spared=True)
    return world


def bound_ns(world, native):
    """Within this time of its last word a channel is to be flagged: later if it was silent for longer before."""
    (pulse,) = (p for p in world.legs.freshness._tickers[native] if p.channel == QUOTE)
    return DECIDES_NS + NS_PER_S + max(0, USUAL_FACTOR * pulse.usual_ns - SILENCE_NS_MIN)


def silent_channels(seed, world=None):
    """Channels fall silent one at a time: each is flagged in time if its market goes on, and heals; no other is."""
    rng = random.Random(f"silent {seed}")
    world = world or make(seed, legs=rng.randrange(1, 3), symbols=4, quiet=(1,), max_age_s=0.0)
    victim = None
    silenced = healed = 0
    count = 0

    def play():
        nonlocal victim, silenced, healed, count
        if rng.random() < 0.001:
            world.say(world.natives[1])
        if victim is None and world.now >= healed:
            victim, silenced = rng.choice([world.natives[0], *world.natives[2:]]), world.now
            spellings = world.quote_topics[victim]
            world.lost = {topic for link in world.links.values() if link for topic in link.topics & spellings}
            world.heals = rng.randrange(3)
            world.note(f"{victim} is lost, heals {world.heals}")
            count += 1
        elif victim and world.now - silenced > bound_ns(world, victim):
            is_flagged = world.flags[victim] & wire.STALE
            is_well = not world.lost
            assert is_flagged or is_well, f"{victim} is not flagged in time"
            world.lost = set()
            if not world.flags[victim]:
                victim, healed = None, world.now + rng.randrange(30, 60) * NS_PER_S

    world.run(40)
    world.run(250, play)
    world.lost = set()
    world.run(HEALS_S)
    assert world.all_live(), f"not live: {world.flags}"
    assert count > 1
    assert world.natives[1] not in {native for _, native, _ in world.flagged}, "a quiet market is no fault"
    world.compare(world.natives, is_spared=True)
    return world


def whatever_happens(seed, world=None):
    """Any faults at all, and then none: nothing moves backwards, and all comes back."""
    rng = random.Random(f"whatever {seed}")
    world = world or make(
        seed, legs=rng.randrange(1, LEGS_MAX + 1), symbols=rng.randrange(1, 6), spare=2, max_age_s=90.0
    )
    kept = set(world.natives[:1])
    share = rng.choice((0.002, 0.01, 0.05))

    def play():
        if rng.random() < share:
            trouble(world, rng)
        if rng.random() < share / 2:
            change_of_mind(world, rng, kept)

    world.run(200, play)
    world.note("the faults end")
    world.is_reachable = world.answers_trades = True
    world.mutes_until = 0
    for link in filter(None, world.links.values()):
        link.heal()
    world.run(HEALS_S)
    assert world.all_live(), f"not live: {world.flags}"
    assert world.legs.state() == "live", world.legs.state()
    # One that was made just now may wait for a market that has paused since.
    settled = [s for s in world.links if world.now - s.opened_mono_ns > 20 * NS_PER_S]
    unheard = [
        (session.line.index, state.native)
        for session in settled
        for state in session.subscriptions.states.values()
        if state.kind == TICKER.name and not state.channels[QUOTE].heard_ns(session.line.index)
    ]
    assert not unheard, f"quotes not heard, by line: {unheard}"
    assert len(world.links) <= 2 * LEGS_MAX
    world.compare(kept, is_spared=False)
    return world


def doubted_books(seed, world=None):
    """One book at a time comes into doubt: it alone is INVALID, and not for long; with another leg it is not."""
    rng = random.Random(f"doubted {seed}")
    legs = rng.randrange(1, 3)
    world = world or make(seed, legs=legs, symbols=4, kinds=(BOOK,), max_age_s=400.0)
    world.run(15)
    unknown = [native for native in world.natives if not world.taken[native].book.is_valid]
    assert not unknown, f"not known yet: {unknown}"
    # A gap shows with the next message, by which time another one may be in doubt as well.
    victims = collections.deque(maxlen=2)
    victim, since, next_at, is_told = None, 0, 0, False
    count = requests = 0

    def play():
        nonlocal victim, since, next_at, is_told, count, requests
        invalid = {native for native in world.natives if not world.taken[native].book.is_valid}
        assert invalid <= {*victims}, f"{invalid} are not valid, {victims} are in doubt"
        assert legs == 1 or not invalid, f"{victim} is not valid, though another leg has its book"
        for *_, runs_out in world.asked_bases if legs > 1 else ():
            assert runs_out, f"a base is requested, though another leg has one: {victim}"
        if invalid and not is_told:
            is_told, since = True, world.now
        assert not is_told or not invalid or world.now - since < BOOK_HEALS_S * NS_PER_S, (
            f"{victim} stays INVALID"
        )
        is_calm = not invalid and world.books_are_known(world.natives) and not world.asked_bases
        if world.now < next_at or not is_calm:
            return
        requests += len(world.bases_asked)
        next_at, is_told = world.now + rng.randrange(4, 12) * NS_PER_S, False
        victim = rng.choice(world.natives)
        victims.append(victim)
        link = world.links[rng.choice(world.legs.sessions)]
        fault = rng.choice((*BOOK_FAULTS, "restart", "no REST"))
        world.note(f"{victim}: {fault}")
        count += 1
        world.answers_trades = True
        if fault == "restart":
            world.tapes[victim].restart()
        elif fault == "no REST":
            world.answers_trades = False
            link.book_faults[victim] = "gap"
        else:
            link.book_faults[victim] = fault
        if fault == "no REST":
            next_at = world.now + 8 * NS_PER_S

    def step():
        if world.now >= next_at:
            world.answers_trades = True
        play()

    world.run(200, step)
    assert count > 5
    world.answers_trades = True
    world.run(BOOK_HEALS_S)
    world.compare(world.natives, is_spared=False)
    return world


def doubted_trades(seed, world=None):
    """Messages of trades that cannot be read: what they had comes by another way, or is told to be missing."""
    rng = random.Random(f"doubted trades {seed}")
    world = world or make(seed, legs=rng.randrange(1, 3), symbols=4, kinds=(TRADE,))
    world.run(15)
    next_at = world.now

    def play():
        nonlocal next_at
        link = world.links[rng.choice(world.legs.sessions)]
        if link and world.now >= next_at:
            next_at = world.now + rng.randrange(2, 12) * NS_PER_S
            link.spoils_trades.add(rng.choice(world.natives))
            world.answers_trades = rng.random() < 0.8

    world.run(120, play)
    for link in filter(None, world.links.values()):
        link.heal()
    world.answers_trades = True
    world.run(BOOK_HEALS_S)
    world.compare(world.natives, is_spared=False)
    return world


def repeated_books(seed, world=None):
    """Each book is published in full at least every ten minutes, also if nothing happens in its market."""
    world = world or make(seed, symbols=4, quiet=(1, 2), kinds=(BOOK,), max_age_s=0.0)
    world.step_ns = 10 * STEP_NS
    short = {}  # since when the best levels may leave what is known

    def look():
        late = [
            native for native, at in world.snapshots_at.items() if world.now - at > REPEAT_NS + 2 * NS_PER_S
        ]
        assert not late, f"not published in full for ten minutes: {late}"
        states = world.exchange.states[BOOK].values()
        now_short = {s.native for s in states if s.runs_out}
        for native in now_short:
            short.setdefault(native, world.now)
        for native in short.keys() - now_short:
            del short[native]
        late = [native for native, at in short.items() if world.now - at > BASES_EVERY_S * NS_PER_S]
        assert not late, f"the best {BEST} levels may be not known: {late}"

    world.run(30)
    world.trade(world.tapes[world.natives[1]])  # and nothing of the other for a while
    world.run(1500, look)
    assert set(world.snapshots_at) == set(world.natives), "all of them are valid"
    world.compare(world.natives, is_spared=True)
    return world


def change_of_mind(world, rng, kept):
    """One symbol more is wanted, or one less."""
    native = rng.choice([each for each in world.listed if each not in kept])
    if native in world.natives:
        world.unwant(native)
    else:
        world.want(native)


def trouble(world, rng, kinds=None):
    """One fault, of any kind, or of some."""
    sessions = [session for session, link in world.links.items() if link is not None]
    among = [*(kinds or KINDS), *(KINDS_OF_TAPES if world.tapes else ())]
    kind = rng.choice([kind for kind in among if sessions or kind in WITHOUT_CONNECTION])
    victim = rng.choice(sessions) if sessions else None
    link = world.links[victim] if victim else None
    world.note(f"fault: {kind}" + (f", line {victim.line.index}" if victim else ""))
    match kind:
        case "outage":
            world.is_reachable = not world.is_reachable
        case "order":
            world.legs.renew("by order")
        case "stopped":
            world.now += rng.randrange(1, 100) * NS_PER_S
        case "clock":
            world.clock_off_ns = rng.randrange(-100, 100) * NS_PER_S
            world.exchange.set_clock()
            world.known_at = world.now + 3 * NS_PER_S
        case "acks only":
            world.mutes_until = world.now + rng.randrange(40) * NS_PER_S
        case "unplugged":
            world.close(victim, "unplugged")
        case "stall":
            link.stalled_until = world.now + rng.randrange(100) * NS_PER_S
        case "delay":
            link.delay_ns = rng.randrange(3_000_000_000)
        case "mute":
            muted = rng.sample(sorted(link.topics), rng.randrange(len(link.topics) + 1))
            link.muted.update(each for each in muted if world.may_mute(each))
        case "deaf":
            link.is_deaf = not link.is_deaf
        case "garbage":
            world.post(link, rng.choice(({}, [], {"data": 1}, {"type": "message"}, "x")))
        case "again" if link.frames:
            world.post(link, rng.choice(link.frames)[2])
        case "goodbye" if world.exchange.exchange == "binance":
            world.post(link, {"stream": "!serverShutdown", "data": {"e": "serverShutdown", "E": world.ms()}})
        case "goodbye" if world.exchange.exchange == "kucoin":
            world.post(link, {"id": "x", "type": "error", "code": 400, "data": "ping timeout"})
        case "no trades over REST":
            world.answers_trades = not world.answers_trades
        case "books restart":
            for tape in world.tapes.values():
                tape.restart()
        case "book":
            link.book_faults[rng.choice(world.listed)] = rng.choice(BOOK_FAULTS)
        case "trades":
            link.spoils_trades.add(rng.choice(world.listed))


KINDS = (
    "outage", "order", "stopped", "clock", "acks only",
    "unplugged", "stall", "delay", "mute", "deaf", "garbage", "again", "goodbye",
)  # fmt: skip
KINDS_OF_TAPES = ("no trades over REST", "books restart", "book", "trades")
BOOK_FAULTS = ("gap", "spoiled", "twice")
WITHOUT_CONNECTION = (*KINDS[:5], *KINDS_OF_TAPES[:2])
PLAYS = (spare_one_leg, change_of_minds, silent_channels, whatever_happens)
PLAYS_OF_BOOKS = (doubted_books, repeated_books)
PLAYS_OF_TRADES = (doubted_trades,)


def make(seed, **settings):
    """A world of its own for each seed: every exchange in turn."""
    settings.setdefault("kinds", kinds_of(seed))
    return World(PLAYED[seed % len(PLAYED)], seed=seed, **settings)


class Figures(msgspec.Struct):
    """What the plays of one seed were about."""

    simulated_s: float = 0.0
    updates: int = 0
    renewals: int = 0
    connects: int = 0
    failure: str = ""


def plays_of(seed):
    """Return what a seed plays: long worlds are for a few."""
    import chain_plays  # they are made of this world
    import days
    import mixed_plays
    import quiet

    plays = [*PLAYS, *chain_plays.PLAYS]
    plays += PLAYS_OF_BOOKS if BOOK in kinds_of(seed) else ()
    plays += PLAYS_OF_TRADES if TRADE in kinds_of(seed) else ()
    if seed % LONG_EVERY == 0:
        plays += days.PLAYS
    if seed % CALM_EVERY == 1:
        plays.append(quiet.calm_and_dead)
    if seed % CALM_EVERY == 2:
        plays.append(quiet.calm_and_mute)
    if seed % MIXED_EVERY == 3:
        plays += mixed_plays.PLAYS
    if seed % HOURS_EVERY == HOURS_EVERY // 2:
        plays.append(quiet.calm_hours)
    return plays


def play_all(seed):
    """Play all plays of a seed; the failure, if there is one, is told in full."""
    figures = Figures()
    for play in plays_of(seed):
        World.last = None
        try:
            world = play(seed)
        except AssertionError as exc:
            log = "\n".join(list(World.last.log)[-60:]) if World.last else ""
            figures.failure = f"seed {seed}, {play.__name__}: {exc}\nThe last of its log:\n{log}"
            return figures
        figures.simulated_s += (world.now - world.began_at) / NS_PER_S
        figures.updates += sum(map(len, world.sent.values()))
        figures.renewals += world.retired
        figures.connects += len(world.connects)
    return figures


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=200, metavar="N", help="default: %(default)s")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="default: %(default)s")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), metavar="N", help="default: %(default)s")
    arguments = parser.parse_args()
    started = time.monotonic()
    total = Figures()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    with multiprocessing.Pool(arguments.jobs) as pool:
        for done, figures in enumerate(pool.imap(play_all, seeds), 1):
            if figures.failure:
                print(f"\n{figures.failure}")
                print(f"\nagain: python tests/world.py --first {seeds[done - 1]} --seeds 1")
                return 1
            for name in ("simulated_s", "updates", "renewals", "connects"):
                setattr(total, name, getattr(total, name) + getattr(figures, name))
            if done % 20 == 0 or done == arguments.seeds:
                print(
                    f"\r{done} of {arguments.seeds} seeds, {total.simulated_s / 3600:.1f} h"
                    f" of {total.updates:,} updates, {total.connects:,} connections,"
                    f" {total.renewals:,} renewed, {time.monotonic() - started:.0f} s",
                    end="",
                    flush=True,
                )
    print("\nnothing missed, nothing moved backwards, no limit exceeded, everything came back")
    return 0


if __name__ == "__main__":
    import world  # the plays of other files know this one by its name

    sys.exit(world.main())
