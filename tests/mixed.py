"""All markets in one configuration, in simulated time: each simulated exchange, its feed, a merger, subscribers.

    PlayedExchange (spot, linear, …) ──PlayedLink──▶ feed ──Hop──┐
    PlayedExchange                   ──PlayedLink──▶ feed ──Hop──┴─ merger ──▶ subscribers

The exchanges are the simulator's (`played`), so feeds meet its rules and limits, its lists, handshakes and REST,
and carry every kind that there is. What subscribers get is held against what is true: no trade twice, none that
never was; each book as the exchange's at its id, or not valid; contracts and quotes that were the exchange's,
contracts never older than before. Processes fail as in `chain`. The plays are in `mixed_plays`.
"""

import collections
import heapq
import itertools
import random

import msgspec
from chain import NOT_LIVE, Chain, Slot, Subscriber
from chain_books import Reader
from chain_feed import NS_PER_MS, Reports
from played import CLOSE, CONTRACT_FIELDS, PING, PONG, BookCursor, Given, PlayedExchange
from world import EPOCH_NS, STEER_NS

from feedhandler.data import wire
from feedhandler.data.book import BOOK
from feedhandler.data.connecting import ConnectBudget, Policy
from feedhandler.data.contract import CONTRACT
from feedhandler.data.depth import DEPTH
from feedhandler.data.errors import DecodeError, ProtocolError
from feedhandler.data.instruments import InstrumentList, instrument_list
from feedhandler.data.kinds import RECORD_WORDS
from feedhandler.data.shard import shards
from feedhandler.data.status import ExchangeStatus, Phase
from feedhandler.data.ticker import TICKER
from feedhandler.data.units import NS_PER_DAY, NS_PER_S
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.base import is_same
from feedhandler.feed.legs import Legs
from feedhandler.feed.polling import Polling
from feedhandler.feed.survey import Survey
from feedhandler.feed.universe import Universe
from feedhandler.sim.protocol import Now
from feedhandler.sim.simulated import SIMULATED
from feedhandler.transport.http import POLL_SHARE, SPARE_SHARE, WHOLE_SHARE, HttpRefused, RestBudget

BASES = ("BTC", "ETH", "SOL", "ADA")  # from the busiest to one that is quiet
SYMBOLS = tuple(f"{base}/USDT{settle}" for base in BASES for settle in ("", ":USDT"))
LISTS_NS = 10 * NS_PER_S
SENT_NS, ANSWERED_NS = 200 * NS_PER_MS, 2 * NS_PER_S  # at most: a request is under way, and its answer
LATER_MAX = 100  # of what a feed waits for
FUNDING_AT_S = 25  # from the beginning, a funding of every interval is due


class Venue:
    """One exchange of the configuration: what is wanted of it, and the processes of its feed."""

    def __init__(self, chain, name, shard_count=1):
        self.chain, self.name = chain, name
        self.played = PlayedExchange(name, chain.seed, chain.rng, SYMBOLS, chain.exchange_now())
        self.symbols = self.played.symbols
        self.wanted = list(self.symbols)
        self.kinds = EXCHANGES[name].kinds
        self.budgets = {m.connect_budget: ConnectBudget(*m.connects) for m in EXCHANGES[name].markets}
        self.slots = [Slot(self, shard) for shard in shards(shard_count)]
        self.connects = []
        self.tapes = self.played.truths
        self.changed_at = self.relisted_at = 0
        self.unwell_since = {}

    def as_wanted(self, symbols):
        return {symbol: list(self.kinds) for symbol in symbols}

    @staticmethod
    def is_asked(symbol, kind):
        """Kinds are wanted of those symbols whose market has them."""
        return False

    @property
    def trading(self):
        """What is wanted, and to be had."""
        idle = self.played.idle
        return [symbol for symbol in self.wanted if symbol not in idle]

    def wanted_topics(self):
        return {wire.topic(wire.TICKER, self.name, symbol): self.symbols[symbol] for symbol in self.trading}

    def turn(self):
        self.played.turn(self.chain.exchange_now())

    def feeds(self):
        return [slot.feed for slot in self.slots if slot.feed is not None]


class MixedFeed(Reports):
    """One process of a feed, of all markets of an exchange: wired as `feed/process.py` does it."""

    def __init__(self, chain, slot, pid):
        self.begin_reports(chain, slot, pid)
        self.played = self.market.played
        self.rng = random.Random(chain.rng.random())
        self.now = chain.now
        self.adapters = [make() for make in EXCHANGES[self.market.name].markets]
        count = len(self.market.slots)
        self.budgets = {
            each.rest_budget: RestBudget(each.rest_limit, count, each.rest_header) for each in self.adapters
        }
        self.surveys = {each: Survey() for each in self.adapters}
        self.pollings = [Polling(each, poll, self._emit) for each in self.adapters for poll in each.polls]
        self.legs = Universe(self.adapters, self._make_legs, 0, slot.shard.has)
        self.links = {}  # by session, one on each path of its market; none while it is not connected
        self.attempts = collections.Counter()  # by session
        self.later = []  # heap of (when, order, what to do then)
        self.order = itertools.count()
        self.lists = {}  # by adapter: the newest
        self.lists_at = self.now
        self.steers_at = 0
        self.is_reachable = self.answers_trades = True
        self.retired = 0
        self.clock_off_ns = 0

    def set_clock(self):
        """This host's clock was set; how far it is off is known after a while."""
        for each in self.adapters:
            each.set_clock()
        self.at(self.now + 3 * NS_PER_S, self._learn_clock)

    def _learn_clock(self):
        off_ns = self.chain.clock_off_ns
        for each in self.adapters:
            each.set_clock(-off_ns, -off_ns + 1_100_000_000)

    def _make_legs(self, market, states):
        return Legs(
            market,
            states,
            self._emit,
            count=self.chain.legs,
            policy=Policy(max_attempts=0, max_age_s=self.chain.max_age_s),
            budget=self.market.budgets[market.connect_budget],
            rng=self.rng,
        )

    def _emit(self, state):
        self.chain.note_author(state, self.pid)
        self.batch.emit(state)

    def heal(self):
        """The way to the exchange has no more faults."""
        self.is_reachable = self.answers_trades = True

    def live(self):
        """Do what is due."""
        self.now = self.chain.now
        self.hop.turn()
        if self.lists_at <= self.now:
            self.lists_at = self.now + LISTS_NS
            for adapter in self.adapters:
                self._ask_list(adapter, adapter.instruments_request, [])
        while self.later and self.later[0][0] <= self.now:
            heapq.heappop(self.later)[2]()
        self._deliver()
        for session in list(self.links):
            if self.now >= session.deadline_mono_ns:
                self._advance(session)
        if self.now >= self.steers_at:
            self.steers_at = self.now + STEER_NS
            self._steer()
        self.report()

    def at(self, when, what):
        heapq.heappush(self.later, (when, next(self.order), what))

    # --- REST

    def ask(self, adapter, request, on_body, on_refused, *, share=SPARE_SHARE):
        """Request something: either is called later, the second with how long to wait."""
        try:
            turn = self.budgets[adapter.rest_budget].take(request.weight, self.now, share=share)
        except HttpRefused as exc:
            wait_s = exc.retry_after_s
            self.at(self.now, lambda: on_refused(wait_s))
            return

        def send():
            if not (self.is_reachable and self.answers_trades):
                self.at(self.now + NS_PER_S, lambda: on_refused(self.rng.choice((0.0, 0.0, 5.0))))
                return
            answer = self.played.answer(type(adapter), request, self.chain.exchange_now())
            self.budgets[adapter.rest_budget].on_headers(answer.headers, self.now)
            if answer.status != 200:
                self.at(self.now + NS_PER_S, lambda: on_refused(0.0))
            else:
                self.at(self.now + self.rng.randrange(self.chain.answered_ns), lambda: on_body(answer.body))

        self.at(turn + self.rng.randrange(SENT_NS), send)

    def _ask_list(self, adapter, request, found):
        def on_body(body):
            found.extend(adapter.decode_instruments(body).items)
            rest = adapter.rest_of_list(request, body)
            if rest is not None:
                self._ask_list(adapter, rest, found)
            else:
                self.lists[adapter] = [adapter.prefixed(each) for each in found]
                self._take_lists()

        self.ask(adapter, request, on_body, lambda wait_s: None, share=WHOLE_SHARE)

    def _take_lists(self):
        """Go on with what is listed by now; contracts may come a moment after spot."""
        if len(self.lists) < len(self.adapters):
            return
        rows = [each for adapter in self.adapters for each in self.lists[adapter]]
        self.listing: InstrumentList = instrument_list(self.market.name, self.unix_ns(), rows)
        self.table = self.listing.table()
        for adapter in self.adapters:
            adapter.learn(each for each in self.table.by_native.values() if each.market == adapter.name)
        self.send_instruments()
        self.carry()

    def _steer(self):
        for change in self.legs.advance(self.now):
            for question in change.ask:
                self._ask_quote(question)
            for wanted in change.ask_trades:
                self._ask_trades(wanted)
            for base in change.ask_bases:
                self._ask_base(base)
            self.apply(change)
        for adapter, survey in self.surveys.items():
            if survey.begin([legs for legs in self.legs.legs if legs.market is adapter], self.now):
                self._ask_survey(adapter, survey, list(adapter.survey_requests))
        for polling in self.pollings:
            if (question := polling.advance(self.now)) is not None:
                self._poll(polling, question)
        assert set(self.links) == {session for legs in self.legs.legs for session in legs.sessions}

    def _ask_quote(self, question):
        adapter = question.watch.market

        def on_body(body):
            try:
                quote = adapter.decode_quote(body)
            except (ProtocolError, DecodeError):
                quote = None
            question.watch.on_quote(question.native, quote)

        request = adapter.quote_request(question.native)
        self.ask(adapter, request, on_body, lambda wait_s: question.watch.on_quote(question.native, None))

    def _ask_trades(self, wanted):
        adapter, native = wanted.watch.market, wanted.missed.state.native

        def on_body(body):
            rows = adapter.decode_past_trades(native, body)
            assert not rows.problem, rows.problem
            wanted.watch.on_answer(wanted, rows.items, self.unix_ns())

        self.ask(adapter, wanted.request, on_body, lambda wait_s: wanted.watch.on_refused(wanted, wait_s))

    def _ask_base(self, question):
        adapter, native = question.bases.market, question.watched.state.native

        def on_body(body):
            question.bases.on_answer(question, adapter.decode_base(native, body), self.unix_ns())

        self.ask(
            adapter, question.request, on_body, lambda wait_s: question.bases.on_refused(question, wait_s)
        )

    def _ask_survey(self, adapter, survey, requests):
        def on_body(body):
            rows = adapter.decode_survey(body)
            survey.on_rows(rows.items, self.unix_ns())
            requests.pop(0)
            if requests:
                self._ask_survey(adapter, survey, requests)
            else:
                survey.end(self.now)

        def on_refused(wait_s):
            survey.end(self.now, has_failed=True, retry_after_s=wait_s)

        self.ask(adapter, requests[0], on_body, on_refused)

    def _poll(self, polling, question):
        adapter = polling.market

        def on_body(body):
            rows = adapter.decode_poll(polling.poll, body, self.unix_ns())
            assert not rows.problem, rows.problem
            polling.on_answer(question, rows, self.unix_ns(), self.now)

        def on_refused(wait_s):
            polling.on_refused(question, self.now, "no answer", wait_s)

        self.ask(adapter, question.request, on_body, on_refused, share=POLL_SHARE)

    # --- connections

    def apply(self, change):
        for session in change.run:
            self.note(f"{session.market.name}, line {session.line.index} is to run: {session.reason}")
            self.links[session] = []
        for session in change.stop:
            self.retired += 1
            self.close(session, "stopping")
            del self.links[session]

    def _advance(self, session):
        step = session.advance(self.now)
        if step.connect:
            self.market.connects.append(self.now)
            self._connect(session)
        links = self.links.get(session)
        if step.ping and links:
            self.played.ping(links[step.socket], self.chain.exchange_now())
        for message in step.send:
            if links:
                self.played.send(links[step.socket], message, self.chain.exchange_now())
        if step.close:
            self.close(session, step.close)

    def _connect(self, session):
        """Shake hands, and open the sockets, one after the other."""
        self.attempts[session] += 1
        attempt, adapter, opened = self.attempts[session], session.market, []

        def fail(reason, wait_s=0.0):
            for link in opened:
                self.played.end(link)
            if self.attempts[session] == attempt and session.phase is Phase.CONNECTING:
                session.on_closed(self.now, reason, wait_s)

        def open_next(body):
            if self.attempts[session] != attempt or session.phase is not Phase.CONNECTING:
                fail("given up")
            elif session in self.links and self.is_reachable:
                signs = session.sockets[len(opened)]
                endpoint = adapter.endpoint(self.played.url(type(adapter)) + signs.path, body, "played")
                signs.on_endpoint(endpoint)
                link = self.played.connect(type(adapter), endpoint.url, self.chain.exchange_now())
                if isinstance(link, str):
                    fail(link)
                    return
                opened.append(link)
                if len(opened) < len(session.sockets):
                    shake_hands()
                    return
                self.links[session] = opened
                session.on_open(self.now)
                self._advance(session)
            else:
                fail("refused")

        def shake_hands():
            if (request := adapter.handshake_request) is None:
                open_next(b"")
            else:
                self.ask(
                    adapter, request, open_next, lambda wait_s: fail("no token", wait_s), share=WHOLE_SHARE
                )

        shake_hands()

    def close(self, session, reason):
        links, self.links[session] = self.links[session], []
        self.note(f"{session.market.name}, line {session.line.index} closed: {reason}")
        for link in links:
            self.played.end(link)
        if session.phase is not Phase.BACKOFF:
            session.on_closed(self.now, reason)

    def _deliver(self):
        for session, links in list(self.links.items()):
            for signs, link in zip(session.sockets, links, strict=False):  # there may be none
                while self.links.get(session) is links and link.is_due(self.now):
                    self._take(session, signs, link, *link.next())

    def _take(self, session, signs, link, what, payload):
        if what == CLOSE:
            self.close(session, f"the exchange: {payload.decode()}")
        elif what in (PING, PONG):
            signs.on_ping()
            if what == PING:
                self.played.pong(link, payload, self.chain.exchange_now())
            else:
                signs.on_pong()
        elif signs.on_frame(payload, self.unix_ns()):
            self._advance(session)

    @property
    def open_links(self):
        """Sessions and links."""
        return [(session, link) for session, links in self.links.items() for link in links]


class Watcher(Subscriber):
    """Takes everything, and looks whether it can be true, by what exchanges know."""

    make_taken = Given

    def take_ticker(self, record):
        before = self.records.get(record.topic)
        self.records[record.topic] = record
        if record.flags & NOT_LIVE:
            if before is None or not before.flags & NOT_LIVE:
                self.flagged.append((self.chain.now, record.topic, record.flags))
                self.chain.note(f"{self.name}: {record.topic} {record.flag_names}")
            return
        self.chain.look_at_author(record)
        self.taken[record.exchange, record.symbol].take_ticker(record)


class MixedReader(Reader):
    """A subscriber's parts, whose books are looked at in full."""

    def __init__(self, chain):
        super().__init__(chain)
        self.cursors = {key: BookCursor(truth) for key, truth in chain.tapes.items()}

    def _look(self):
        for topic, book in self.books.by_topic.items():
            if self._looked.get(topic) != (book.session, book.sequence):
                self._looked[topic] = book.session, book.sequence
                if book.is_valid:
                    self.cursors[tuple(topic.split(".", 2)[1:])].check(book)


class Mixed(Chain):
    """All of it."""

    max_age_s = 60.0
    answered_ns = ANSWERED_NS

    def __init__(self, seed, exchanges=tuple(SIMULATED), legs=2, hop_messages_max=None):
        self.exchange_names = exchanges
        # Somewhere in a day, at a moment from which every funding is near.
        self.epoch_ns = EPOCH_NS // NS_PER_DAY * NS_PER_DAY - (1000 + FUNDING_AT_S) * NS_PER_S
        kinds = [word for word in RECORD_WORDS if word not in (TICKER.name, "condition")]
        super().__init__(seed, hop_messages_max, tuple(kinds))
        self.legs = legs
        self.reader = MixedReader(self)

    def make_markets(self):
        self.statuses = {}  # by exchange, the newest
        return [Venue(self, name) for name in self.exchange_names]

    def make_feed(self, slot, pid):
        return MixedFeed(self, slot, pid)

    def make_subscriber(self, name):
        return Watcher(self, name)

    def exchange_now(self):
        return Now(self.now, self.epoch_ns + self.now)

    def supervise(self):
        super().supervise()
        for feed in [
            slot.feed for slot in self.slots if slot.feed is not None and self.now < slot.stopped_until
        ]:
            for _, link in feed.open_links:
                link.is_excused = True  # who is stopped answers no pings

    def bury(self, slot, is_gentle=False):
        for _, link in slot.feed.open_links:
            slot.market.played.end(link)
        super().bury(slot, is_gentle)

    def look_at_status(self, record):
        super().look_at_status(record)
        status = msgspec.json.decode(record.body, type=ExchangeStatus)
        self.statuses[status.exchange] = status

    def look_at_author(self, record):
        """As in `Chain`; of what has changed nothing but its time nobody is told, until it is repeated."""
        if self.author_of(record) is not None:
            super().look_at_author(record)

    def look_at_sizes(self):
        merger, topics = self.merger, len(self.slot_of_topic)
        assert len(merger._routes) <= topics
        assert len(merger._documents) == len(merger._sequences) <= 2 * len(self.markets) + 1
        for feed in [slot.feed for slot in self.slots if slot.feed is not None]:
            assert len(feed.links) <= 2 * self.legs * len(feed.adapters)
            assert len(feed.legs.states) <= topics
            assert len(feed.later) <= LATER_MAX

    def odd(self):
        """Return what should be live and is not, by topic."""
        odd = {}
        for venue in self.markets:
            for symbol in venue.trading:
                native = venue.symbols[symbol]
                for kind in venue.played.kinds_of(native):
                    topic = f"{kind}.{venue.name}.{symbol}"
                    if reason := self._why_odd(kind, topic, self.first.taken[venue.name, symbol]):
                        odd[topic] = reason
        return odd

    def _why_odd(self, kind, topic, given):
        if kind == TICKER.name:
            return "" if self.is_live(self.first, topic) else "is not live"
        if kind == BOOK.name:
            return "" if given.book.is_valid else given.book.reason
        if kind in (DEPTH.name, CONTRACT.name):
            record = given.records.get(kind)
            # Of the quiet one nothing may have been sent, or nothing since it was away: depth is not asked of REST.
            is_quiet = topic.split(".", 2)[2].startswith(BASES[-1])
            if record is None:
                return "" if is_quiet else "is not there"
            if is_quiet and kind == DEPTH.name:
                return ""
            return " ".join(record.flag_names) if record.flags & wire.NOT_LIVE else ""
        flags = self.first.conditions.get(topic, 0)
        return f"flags {flags}" if flags & NOT_LIVE else ""

    def untrue(self, *, is_all_known):
        """Return what is not as it is, while markets rest. What a new connection is not told may not be known."""
        each = [(venue, symbol) for venue in self.markets for symbol in venue.trading]
        return {
            topic: text for venue, symbol in each for topic, text in self._untrue(venue, symbol, is_all_known)
        }

    def _untrue(self, venue, symbol, is_all_known):
        native = venue.symbols[symbol]
        truth, given = venue.tapes[native], self.first.taken[venue.name, symbol]
        ticker = self.first.records[wire.topic(wire.TICKER, venue.name, symbol)]
        stated, true = (
            (truth.quote_of(ticker), truth.ticks(ticker.last)),
            (truth.quote(), truth.instrument.last),
        )
        if stated != true:
            yield ticker.topic, f"{stated} is stated, and {true} it is"
        depth = given.records[DEPTH.name]
        # That of a quiet one may be flagged, until something changes there.
        is_told = bool(depth.flags & wire.NOT_LIVE)
        if not is_told and (truth.levels(depth.bids), truth.levels(depth.asks)) != truth.top():
            yield depth.topic, "is not the newest"
        if (contract := given.records.get(CONTRACT.name)) is None:
            return
        reference = venue.played.reference_of(native)
        ours, theirs = ([getattr(each, name) for name in CONTRACT_FIELDS] for each in (contract, reference))
        polled = venue.played.polled_of(native)  # these are as old as their last answer
        theirs = [ours[at] if name in polled else theirs[at] for at, name in enumerate(CONTRACT_FIELDS)]
        if not is_all_known:
            theirs = [them if us == us and us else us for us, them in zip(ours, theirs, strict=True)]
        if not is_same(ours, theirs):
            yield contract.topic, f"{ours} is stated, and the exchange has stated {theirs}"

    # --- what `world.play_all` counts

    @property
    def sent(self):
        return {key: given.numbers for key, given in self.first.taken.items()}
