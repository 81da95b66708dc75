"""Simulated exchanges (`feedhandler/sim`) in simulated time, without sockets and clocks, and what is true of them.

    Exchange, Paced, Broadcast ──frames──▶ PlayedLink ──▶ a session of a feed
                └── each message as it is made ──▶ Truth, of each instrument and kind

What records have to be like is known from the simulator's whole numbers, ticks and lots; by which ids and names
they are known, from a reference: an adapter that gets each message once. `MARKETS` has a line for each market that
is not spot.
"""

import collections
import functools
import heapq
import itertools
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit

import msgspec

from feedhandler.data import wire
from feedhandler.data.book import BOOK
from feedhandler.data.contract import CONTRACT
from feedhandler.data.instruments import SPOT
from feedhandler.data.kept_book import Book
from feedhandler.data.units import NS_PER_MS, NS_PER_S
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.arbitration import Line
from feedhandler.sim import binance_linear, kucoin_linear
from feedhandler.sim.broadcast import Broadcast
from feedhandler.sim.market import Instrument
from feedhandler.sim.perpetuals import HOUR_NS, RATE_ONE, Perpetual
from feedhandler.sim.protocol import Dialog, HttpAnswer, HttpRequest, Now, Outbox
from feedhandler.sim.rhythm import Rhythm
from feedhandler.sim.simulated import SIMULATED
from feedhandler.sim.sources import ChangeSource

INSTRUMENTS = 40  # pairs, of each exchange
RANK_OF_BOOKS = 290  # a book has as many levels a side as that of an instrument of this rank: about 50
EVERY_S = (0.3, 0.5, 1.0, 45.0)  # between two changes of the majors, the first first; the fourth is quiet
NEVER_S = 1e7
EARLY_EVERY_S = 0.5  # what has been launched
DELAY_NS = 5 * NS_PER_MS  # of a link that is well
BEST = 20
NAN = float("nan")
HOST = "ws://played"
ADDRESS = "10.0.0.1"
CONTRACT_FIELDS = (
    *("mark", "index", "funding_rate", "open_interest"),
    *("next_funding_ns", "funding_interval_h", "predicted_funding_rate"),
)
TEXT, PING, PONG, CLOSE = "text", "ping", "pong", "close"


# --- what is to be known of a market


def spot_instruments(exchange):
    return {native: each for native, each in exchange.by_symbol.items() if not each.listing.settle}


def coins_per_lot(each):
    """Most print sizes in coins, or so that contracts make as many coins."""
    return Fraction(1, 10**each.size_decimals)


def perpetual_values(perpetual: Perpetual, lot: Fraction, now: Now) -> dict[str, float]:
    each = perpetual.contract
    return {
        "mark": perpetual.mark / 10**each.price_decimals,
        "index": perpetual.index / 10**each.price_decimals,
        "funding_rate": perpetual.rate / RATE_ONE,
        "open_interest": float(perpetual.open_interest * lot),
        "next_funding_ns": perpetual.funding_ns(now.unix_ns),
        "funding_interval_h": perpetual.interval_ns / HOUR_NS,
    }


def okx_contract(exchange, native, now):
    perpetual = exchange.swaps[native]
    return perpetual_values(perpetual, coins_per_lot(perpetual.contract), now)


def kucoin_contract(exchange, native, now):
    """What is predicted comes each minute, and the rate that is due when it is paid."""
    perpetual = exchange.linear.perpetuals[native]
    values = perpetual_values(perpetual, Fraction(kucoin_linear.multiplier_of(perpetual.contract)), now)
    settled = perpetual.settled_rate(now.unix_ns) / RATE_ONE
    return values | {"predicted_funding_rate": values["funding_rate"], "funding_rate": settled}


def bybit_contract(exchange, native, now):
    """The rate is that of the minute."""
    perpetual = exchange.perpetuals[native]
    values = perpetual_values(perpetual, coins_per_lot(perpetual.contract), now)
    return values | {"funding_rate": perpetual.rate_of_minute(now.unix_ns) / RATE_ONE}


def set_interval(instrument, perpetuals, native, hours):
    """Let a contract be funded each so many hours from now on."""
    instrument.listing = msgspec.structs.replace(instrument.listing, funding_hours=hours)
    if native in perpetuals:
        perpetuals[native].interval_ns = hours * HOUR_NS


class PlayedMarket(NamedTuple):
    """What to know of a market: its instruments by native symbol, what a lot is, what a contract's values are."""

    instruments: Callable[[Any], dict[str, Instrument]] = spot_instruments
    lot: Callable[[Instrument], Fraction] = coins_per_lot
    contract: Callable[[Any, str, Now], dict[str, float]] | None = None
    early: str = ""  # what is listed, and does not trade yet, by base
    perpetuals: Callable[[Any], dict[str, Perpetual]] = lambda exchange: {}  # by native symbol
    ids_per_change: int = 1  # of a book, where ids are counted over several


def binance_contract(exchange, native, now):
    perpetual = exchange.linear.perpetuals[native]
    return perpetual_values(perpetual, coins_per_lot(perpetual.contract), now)


MARKETS = {
    ("binance", "linear"): PlayedMarket(
        lambda e: {n: each for n, each in e.linear.by_symbol.items() if not each.listing.delivery},
        contract=binance_contract,
        early="SOONER",
        perpetuals=lambda e: e.linear.perpetuals,
        ids_per_change=binance_linear.IDS_PER_CHANGE,
    ),
    ("bybit", "linear"): PlayedMarket(
        lambda e: e.by_symbol_of["linear"],
        contract=bybit_contract,
        early="EARLY",
        perpetuals=lambda e: e.perpetuals,
    ),
    ("kucoin", "linear"): PlayedMarket(
        lambda e: e.linear.by_symbol,
        lambda each: Fraction(kucoin_linear.multiplier_of(each)),
        kucoin_contract,
        "HALTED",
        lambda e: e.linear.perpetuals,
    ),
    ("okx", "linear"): PlayedMarket(
        lambda e: {n: each for n, each in e.by_symbol.items() if each.listing.settle == each.listing.quote},
        contract=okx_contract,
        early="SOONER",
        perpetuals=lambda e: e.swaps,
    ),
}


# --- what is true


class Truth:
    """What is true of one instrument, by kind, and what its market has sent."""

    def __init__(self, instrument: Instrument, lot: Fraction, book_topics, ids_per_change):
        self.instrument = instrument
        self._ids_per_change = ids_per_change
        self._book_topics = book_topics
        self._per_price = 10**instrument.price_decimals
        self._per_size = float(1 / lot)
        self.lot = lot
        rank, instrument.index = instrument.index, RANK_OF_BOOKS
        self.book = instrument.order_book()
        instrument.index = rank
        self.quotes = set()  # each that there was
        self._fills = []
        self._by_id = {}  # all of them since
        self.book.fill_logs.append(self._fills)
        self.lasts = {instrument.last}
        self.tops = set()  # best levels of both sides, each time that a message has shown some
        self.changes = []  # of the book, since
        self.first = dict(self.book.bids), dict(self.book.asks), self.book.update_id
        self.book.change_logs.append(self.changes)
        self.ids = {}  # the exchange's ids of its messages of the book → the book's own: some begin again
        self.trades = {}  # each fill that was told, by its number, from 1
        self.names = {}  # numbers of the fills of a trade, by its id and count
        self.liquidations = {}  # what each states: how often
        self.contract = {}  # by field, the values that there were, in order
        self.note()

    def ticks(self, price):
        return round(price * self._per_price)

    def lots(self, size):
        count = round(size * self._per_size)
        assert abs(size * self._per_size - count) < 1e-6 * max(count, 1), f"{size} is no number of lots"
        return count

    def levels(self, levels):
        return tuple((self.ticks(price), self.lots(size)) for price, size in levels)

    def quote_of(self, record):
        """Return the quote of a record of ours."""
        return (
            *(self.ticks(record.bid), self.lots(record.bid_size)),
            *(self.ticks(record.ask), self.lots(record.ask_size)),
        )

    def quote(self):
        each = self.instrument
        return (each.bid, each.bid_size, each.ask, each.ask_size)

    def note(self):
        """Note the quote, which may have changed, and what was traded."""
        self.quotes.add(self.quote())
        self.lasts.update(fill.price for fill in self._fills)
        self._by_id.update((fill.trade_id, fill) for fill in self._fills)
        self._fills.clear()

    def top(self):
        return tuple(self.book.best_bids(BEST)), tuple(self.book.best_asks(BEST))

    def note_message(self, stream):
        """Note what a message shows of the book, and by which id."""
        if stream.shows_book:
            self.tops.add(self.top())
        source = stream.source
        if not stream.topic.endswith(self._book_topics):
            return
        if isinstance(source, ChangeSource):
            number, update_id = source.last_id * self._ids_per_change, source.last_id
        else:  # a window has a count of its own
            number, update_id = getattr(source, "sequence", source.message_id), source.update_id
        self.ids.setdefault(number, []).append(update_id)

    def note_trades(self, records, message):
        """Note what a message has of some fills; exchanges may merge several to a trade, and not so over REST."""
        fills = message
        if not isinstance(message, list):
            fills = [self._by_id[number] for number in range(message.first_id, message.last_id + 1)]
        assert sum(record.count for record in records) == len(fills), f"{records}: {fills}"
        first = len(self.trades) + 1
        self.trades.update(enumerate(fills, first))
        for record in records:
            numbers = tuple(range(first, first + record.count))
            first += record.count
            assert (record.trade_id, record.count) not in self.names, "the exchange itself has no trade twice"
            self.names[record.trade_id, record.count] = numbers
            self.check_trade(record, numbers)
            for number in numbers if record.count > 1 else ():
                self.names.setdefault((str(self.trades[number].trade_id), 1), (number,))

    def check_trade(self, record, numbers):
        """Look whether a trade is what its fills are."""
        fills = [self.trades[number] for number in numbers]
        is_sell = record.side == wire.Side.SELL
        stated = self.ticks(record.price), self.lots(record.size), is_sell
        made = fills[-1].price, sum(fill.size for fill in fills), fills[-1].is_sell
        times = {fill.unix_ns // NS_PER_MS for fill in fills}
        assert stated == made and record.exchange_ns // NS_PER_MS in times, (
            f"{record.topic}: {record.trade_id} is {stated}, it was {made}"
        )

    def note_liquidations(self, records, positions):
        """Note what a message has of positions that were ended, one or several."""
        told = positions if isinstance(positions, list) else [positions]
        made = [(each.size, each.is_sell) for each in told]
        found = [(self.lots(r.size), r.side == wire.Side.SELL) for r in records]
        assert found == made, f"liquidations {found}, there were {made}"
        for record in records:
            self.liquidations[stated(record)] = self.liquidations.get(stated(record), 0) + 1

    def note_contract(self, values):
        for field, value in values.items():
            known = self.contract.setdefault(field, [])
            if not known or known[-1] != value:
                known.append(value)

    def at(self, last_id):
        """Return the ids that the book itself had when the exchange called it so; of what REST alone told, too."""
        return self.ids.get(last_id, [last_id // self._ids_per_change])[::-1]

    def is_newest(self, book):
        """True for a book that has all levels as they are."""
        sides = (book.bids, self.book.bids), (book.asks, self.book.asks)
        return book.is_valid and all(dict(self.levels(ours)) == now for ours, now in sides)


class BookCursor:
    """The simulated book as it was at one of its ids, and then at the next."""

    def __init__(self, truth: Truth):
        self._truth = truth
        self._begin()

    def _begin(self):
        bids, asks, self._update_id = self._truth.first
        self.bids, self.asks = dict(bids), dict(asks)
        self._count = 0

    def move(self, update_id):
        """Be as the book was then. False if it never was."""
        if update_id < self._update_id:
            self._begin()
        changes = self._truth.changes
        while self._count < len(changes) and changes[self._count].update_id <= update_id:
            change = changes[self._count]
            self._count += 1
            self._update_id = change.update_id
            side = self.bids if change.is_bid else self.asks
            if change.size and change.price:
                side[change.price] = change.size
            elif change.price:
                side.pop(change.price, None)
        return self._update_id == update_id

    def check(self, book):
        """Compare a book of ours with what was, at its id."""
        odd = ["it never was there"]
        for update_id in self._truth.at(book.last_id):
            if self.move(update_id) and not (odd := self._difference(book)):
                return
        raise AssertionError(f"{book.topic} at {book.last_id} is wrong, and nobody is told: {odd}")

    def _difference(self, book):
        truth, found = self._truth, []
        for side, was, known, is_bids in (
            (book.bids, self.bids, book.known_from, True),
            (book.asks, self.asks, book.known_to, False),
        ):
            levels = dict(truth.levels(side))
            if 0.0 < known < float("inf"):
                limit = truth.ticks(known)
                levels, was = (
                    {p: s for p, s in each.items() if (p >= limit if is_bids else p <= limit)}
                    for each in (levels, was)
                )
            found += sorted(levels.items() ^ was.items())[:4]
        return found


class Pace:
    """How often symbols change: the majors often, the others never."""

    @staticmethod
    def every_s(rank, count):
        return EVERY_S[rank] if rank < len(EVERY_S) else NEVER_S


class Paced(Rhythm):
    """The market's rhythm, of which each change is noted; it can be paused."""

    def __init__(self, exchange, seed, on_change):
        super().__init__(exchange.instruments, Pace, seed, exchange.other_instruments)
        self.is_paused = False
        self._on_change = on_change

    def follow(self, instrument, now):
        """Let an instrument change from now on, or no more, as it trades."""
        position = self._position[id(instrument)]
        self._changes = [each for each in self._changes if each[1] != position]
        self._every_ns[position] = 0.0
        if instrument.listing.is_trading:
            self._every_ns[position] = EARLY_EVERY_S * NS_PER_S
            self._changes.append((now.mono_ns + self._pause_ns(position), position))
        heapq.heapify(self._changes)

    def _changes_due(self, now):
        due = super()._changes_due(now)
        return [] if self.is_paused else due

    @property
    def instruments(self):
        return self._instruments

    def change(self, position, unix_ns):
        return self._change(position, unix_ns)

    def _change(self, position, unix_ns):
        is_traded = super()._change(position, unix_ns)
        self._on_change(self._instruments[position])
        return is_traded


# --- an exchange and its connections


class PlayedLink:
    """One connection: frames come in order, and as late as it likes."""

    numbers = itertools.count(1)

    def __init__(self, market, dialog: Dialog, opened_ns):
        self.number = next(self.numbers)
        self.market = market  # of which adapters of it are
        self.dialog = dialog
        self.opened_ns = opened_ns
        self.outbox = Outbox()
        self.items = []  # heap of (due, order, what, payload)
        self.due = 0
        self.sent = 0
        self.delay_ns = DELAY_NS
        self.stalled_until = 0
        self.is_deaf = False  # what is sent to the exchange does not arrive
        self.is_excused = False  # of what follows from that, and from other faults
        self.muted = set()  # topics that are acknowledged, and silent
        self.losing = set()  # ids of streams of books whose next message does not come
        self.is_over = False

    def is_due(self, now):
        return bool(self.items) and max(self.items[0][0], self.stalled_until) <= now

    def next(self):
        """Return what arrives, and its payload."""
        return heapq.heappop(self.items)[2:]

    def heal(self):
        self.delay_ns, self.stalled_until, self.is_deaf = DELAY_NS, 0, False
        self.losing.clear()


class PlayedExchange:
    """One of `SIMULATED`, all of its markets, as feeds meet it."""

    def __init__(self, name, seed, rng, symbols, now):
        self.name = name
        self.rng = rng
        self.exchange = SIMULATED[name].make(INSTRUMENTS, seed, None)
        self.exchange.ws_url = HOST
        self.markets = EXCHANGES[name].markets
        self.links = []
        self.order = itertools.count()
        self.truths = {}  # by the native symbol with its prefix
        self._of_instrument = collections.defaultdict(list)  # truths, by id
        self._contracts = collections.defaultdict(list)  # (truth, values), by id of what they are about
        self._references = {}
        self._messages = {}  # payload → stream, of this tick
        self._keeper = Outbox()  # the reference's
        self.delisted = set()
        self._is_snapshot = False
        self.mutes_until = 0
        self.now = now.mono_ns
        self.rhythm = Paced(self.exchange, seed, self._on_change)
        self.rhythm.pause(now)  # time begins: from then on it is known when all was traded last
        self.broadcast = Broadcast(self.rhythm)
        for market in self.markets:
            self._take(market, symbols, now)

    def _take(self, market, symbols, now):
        """Note what is true of a market's instruments, and have a reference of it."""
        played = MARKETS[self.name, market.name] if market.name != SPOT else PlayedMarket()
        reference = self._references[market] = Reference(market, self)
        found = {}
        for native, each in played.instruments(self.exchange).items():
            symbol = f"{each.listing.base}/{each.listing.quote}"
            symbol += f":{each.listing.quote}" if market.name != SPOT else ""
            is_early = market.name != SPOT and each.listing.base == played.early
            if (symbol in symbols and each.listing.is_trading) or is_early:
                found[symbol] = native
                topics = reference.adapter.topics(native, BOOK.name)
                truth = Truth(each, played.lot(each), topics, played.ids_per_change)
                self.truths[reference.adapter.prefix + native] = truth
                self._of_instrument[id(each)].append(truth)
                if played.contract is not None:
                    value = functools.partial(played.contract, self.exchange, native)
                    for about in {id(each): each, id(getattr(each, "pair", each)): each}:
                        self._contracts[about].append((truth, value))
        reference.begin(found, now)

    @property
    def symbols(self):
        """Native symbols with their prefix, by canonical ones."""
        return {
            symbol: reference.adapter.prefix + native
            for reference in self._references.values()
            for symbol, native in reference.natives.items()
        }

    @property
    def idle(self):
        """Canonical symbols of what does not trade, or is not listed."""
        return {
            symbol
            for symbol, native in self.symbols.items()
            if not self.truths[native].instrument.listing.is_trading or native in self.delisted
        }

    def set_trading(self, symbol, is_trading, now):
        """Launch what does not trade yet, or again; or let what trades be settled, or halted."""
        each = self.truths[self.symbols[symbol]].instrument
        each.listing = msgspec.structs.replace(each.listing, is_trading=is_trading)
        self.rhythm.follow(each, now)

    def set_listed(self, symbol, is_listed):
        """Take something out of the list, so that it cannot be subscribed to any more, or put it back."""
        native = self.symbols[symbol]
        (self.delisted.discard if is_listed else self.delisted.add)(native)
        each = self.truths[native].instrument
        known_as = native if self.exchange.find(native) is each else native.partition(":")[2]
        for symbols in (self.exchange.unlisted_symbols, self.exchange.rejected_symbols):
            (symbols.discard if is_listed else symbols.add)(known_as)
        for stream in self.broadcast.streams():  # nothing is repeated of what is gone
            if stream.instrument is each:
                stream.is_lost = not is_listed

    def set_funding_hours(self, symbol, hours):
        native = self.symbols[symbol]
        market = next(r for r in self._references.values() if r.has(native)).adapter
        perpetuals = MARKETS[self.name, market.name].perpetuals(self.exchange)
        set_interval(self.truths[native].instrument, perpetuals, native.removeprefix(market.prefix), hours)

    def kinds_of(self, native):
        """Return the kinds that there are of a native symbol with its prefix."""
        return next(r.adapter.kinds for r in self._references.values() if r.has(native))

    def reference_of(self, native):
        """Return the state of a contract, as messages have it."""
        found = next(r for r in self._references.values() if r.has(native))
        return found.adapter.states[CONTRACT.name].get(native.removeprefix(found.adapter.prefix))

    def polled_of(self, native, every_s=0.0):
        """Return the fields of a contract that come over REST, or do at first; those that are polled so seldom."""
        found = next(r for r in self._references.values() if r.has(native))
        polls = [poll for poll in found.adapter.polls if poll.every_s >= every_s]
        return {name for poll in polls for name in (*poll.fields, *poll.fills)}

    def heal(self, now):
        """Let everything that is subscribed to be sent."""
        self.mutes_until = 0
        self.exchange.old_books.clear()
        for stream in self.broadcast.streams():
            stream.lost_messages = 0  # a loss that waits for a message is a fault, too
        for link in self.links:
            link.heal()
            self.unmute(link, now)

    def _on_change(self, instrument):
        for truth in self._of_instrument[id(instrument)]:
            truth.note()

    # --- requests

    def answer(self, market, request, now):
        """Answer over REST."""
        main = self.markets[0]
        path = request.path if market.rest_url == main.rest_url else f"/{market.name}{request.path}"
        answer = self.exchange.rest(_http(request.method, path, now), now)
        assert not answer.violation, f"{self.name}: {answer.violation}"
        self._note_contracts(None, now)
        return answer

    def connect(self, market, url, now):
        """Return the link, or why there is none."""
        parts = urlsplit(url)
        found = self.exchange.accept(_http("GET", parts.path or "/", now, parts.query), now)
        if isinstance(found, HttpAnswer):
            assert not found.violation, f"{self.name}: {found.violation}"
            return f"HTTP {found.status}"
        link = PlayedLink(market, found, now.mono_ns)
        self.links.append(link)
        self.take(link, found.on_open(now), now)
        return link

    def url(self, market):
        return HOST if market.ws_url == self.markets[0].ws_url else f"{HOST}/{market.name}"

    def send(self, link, text, now):
        """Take a frame of a client's."""
        if not link.is_over and not link.is_deaf:
            self.take(link, link.dialog.on_text(text.decode(), now), now)

    def ping(self, link, now):
        if not link.is_over and not link.is_deaf:
            self.take(link, link.dialog.on_ping(b"", now), now)

    def pong(self, link, payload, now):
        if not link.is_over and not link.is_deaf:
            self.take(link, link.dialog.on_pong(payload, now), now)

    def take(self, link, reply, now):
        """Do what a dialog has decided."""
        is_excused = link.is_excused or reply.repeats in link.muted
        assert not reply.violation or is_excused, f"{self.name}, link {link.number}: {reply.violation}"
        for text in reply.texts:
            self.post(link, text)
        if reply.ping is not None:
            self.post(link, reply.ping, PING)
        if reply.pong is not None:
            self.post(link, reply.pong, PONG)
        for topic in reply.unsubscribe:
            self.broadcast.remove(topic, link.outbox)
            link.muted.discard(topic)
        for topic in reply.subscribe:
            self._subscribe(link, topic, now)
        if reply.close is not None:
            self.post(link, f"{reply.close.code} {reply.close.reason}".encode(), CLOSE)
            self.end(link)

    def _subscribe(self, link, topic, now):
        stream, variant = self.broadcast.find(topic), link.dialog.variant
        if stream is None:
            stream = self._make(link.market, topic, variant, now)
        if stream is None:
            return
        if now.mono_ns < self.mutes_until and may_mute(stream):
            link.muted.add(topic)
            return
        link.muted.discard(topic)
        payload = self._snapshot(stream, variant, now)
        if payload is not None:
            self.post(link, payload)
            link.sent += 1
            if stream.source is None:  # it may be newer than all that was sent
                self._references[link.market].take(payload, None, now)
        self.broadcast.add(stream, variant, link.outbox, now.mono_ns)

    def _snapshot(self, stream, variant, now):
        self._is_snapshot = True
        payload = self.exchange.snapshot(stream, variant, now)
        self._is_snapshot = False
        if payload is not None:
            self._note_message(stream, now)
        return payload

    def _make(self, market, topic, variant, now):
        """Make a stream, which goes on from now on for the reference."""
        stream = self.exchange.stream(topic)
        if stream is None:
            return None
        encode, encode_repeat, reference = stream.encode, stream.encode_repeat, self._references[market]

        def noted(variant, now, encode=encode):
            payload = encode(variant, now)
            if not self._is_snapshot:
                self._messages[payload] = stream
                self._note_message(stream, now)
                reference.take(payload, stream, now)
            return payload

        def noted_repeat(variant, now):
            return noted(variant, now, encode_repeat)

        stream.encode = noted
        stream.encode_repeat = noted_repeat if encode_repeat is not None else None
        first = self._snapshot(stream, variant, now)
        if first is not None:
            reference.take(first, None, now)
        self.broadcast.add(stream, variant, self._keeper, now.mono_ns)
        return stream

    def _note_message(self, stream, now):
        for truth in self._of_instrument[id(stream.instrument)]:
            truth.note()
            truth.note_message(stream)
        self._note_contracts(stream.instrument, now)

    def _note_contracts(self, instrument, now):
        known = self._contracts.values() if instrument is None else [self._contracts[id(instrument)]]
        for truth, value in [each for some in known for each in some]:
            truth.note_contract(value(now))

    def end(self, link):
        """The connection is over for the exchange; what was sent before still arrives."""
        if link.is_over:
            return
        link.is_over = True
        for topic in link.dialog.topics:
            self.broadcast.remove(topic, link.outbox)
        link.outbox.frames.clear()
        self.links = [each for each in self.links if each is not link]

    def mute(self, link, count):
        """Let some topics be silent on a connection, of those whose silence can be known."""
        streams = [self.broadcast.find(topic) for topic in sorted(link.dialog.topics)]
        may = [each.topic for each in streams if each is not None and may_mute(each)]
        for topic in self.rng.sample(may, min(count, len(may))):
            self.broadcast.remove(topic, link.outbox)
            link.muted.add(topic)

    def unmute(self, link, now):
        """Let them be sent again from now on."""
        for topic in sorted(link.muted & link.dialog.topics.keys()):
            if (stream := self.broadcast.find(topic)) is not None:
                self.broadcast.add(stream, link.dialog.variant, link.outbox, now.mono_ns)
        link.muted.clear()

    # --- time

    def turn(self, now):
        """Let the market move, and connections be looked after."""
        self.now = now.mono_ns
        dirty = []
        self.broadcast.run(now, dirty)
        self._flush(dirty)
        for link in list(self.links):
            if link.stalled_until <= now.mono_ns and not link.is_deaf:
                link.dialog.pushed = link.sent
                self.take(link, link.dialog.on_tick(now), now)

    def _flush(self, dirty):
        """Send what is in outboxes."""
        by_outbox = {id(link.outbox): link for link in self.links}
        for outbox in dirty:
            link = by_outbox.get(id(outbox))
            for frame in outbox.frames if link is not None else ():
                payload = unframed(frame)
                stream = self._messages.get(payload)
                if stream is not None and id(stream) in link.losing:
                    link.losing.discard(id(stream))
                    continue
                self.post(link, payload)
                link.sent += 1
            outbox.frames.clear()
        self._messages.clear()

    def post(self, link, payload, what=TEXT):
        link.due = max(link.due, self.now + link.delay_ns + int(3 * NS_PER_MS * self.rng.random()))
        heapq.heappush(link.items, (link.due, next(self.order), what, payload))

    def stir(self, now):
        """Let something happen in each market that is wanted, and be told."""
        dirty = []
        for position, each in enumerate(self.rhythm.instruments):
            if self._of_instrument[id(each)]:
                self.rhythm.change(position, now.unix_ns)
                self.broadcast.show(each, now, dirty)
        self._flush(dirty)

    def restart_books(self):
        """Let the ids of some book begin again, where exchanges do that."""
        streams = [s for s in self.broadcast.streams() if s.shows_book and s.source is not None]
        if streams:
            self.exchange.restart_book(self.rng.choice(streams))

    def lose_a_change(self, link=None):
        """Let the next message about a book not arrive, on one connection or on any."""
        streams = [s for s in self.broadcast.streams() if s.shows_book and s.source is not None]
        if streams and link is not None:
            link.losing.add(id(self.rng.choice(streams)))
        elif streams:
            self.rng.choice(streams).lost_messages = 1


class Reference:
    """An adapter that gets each message of a market once, and whose records are what the messages say."""

    def __init__(self, market, played):
        self.adapter = market()
        self.played = played
        self.natives = {}
        self.line = Line(0, 0)
        self._emitted = []

    def begin(self, natives, now):
        """Carry these, by canonical symbols, in all kinds."""
        self.natives = natives
        request = self.adapter.instruments_request
        while request is not None:
            body = self.played.answer(type(self.adapter), request, now).body
            rows = self.adapter.decode_instruments(body).items
            self.adapter.learn(map(self.adapter.prefixed, rows))
            request = self.adapter.rest_of_list(request, body)
        for kind in self.adapter.kinds:
            self.adapter.add(natives.values(), 0, kind)
        group = self.adapter.new_group()
        self.line = Line(0, group)
        for state in self.adapter.all_states:
            state.group = group

    def has(self, native):
        prefix = self.adapter.prefix
        return native.startswith(prefix) and native.removeprefix(prefix) in self.natives.values()

    def take(self, payload, stream, now):
        self._emitted.clear()
        self.adapter.decode(payload, now.unix_ns, self.line, self._emit)
        if not self._emitted:
            return
        truth, kind = self._emitted[0][0], self._emitted[0][1].kind
        records = [record for _, record in self._emitted]
        if kind == wire.TRADE:
            truth.note_trades(records, stream.source.message)
        else:
            truth.note_liquidations(records, stream.source.message)

    def _emit(self, state):
        record = wire.unpack(state.record())
        truth = self.played.truths[self.adapter.prefix + state.native]
        if record.kind in (wire.TRADE, wire.LIQUIDATION):
            self._emitted.append((truth, record))


def stated(record):
    """Return what a liquidation says, which has no id."""
    return record.price, record.size, int(record.side), record.exchange_ns


class Given:
    """What somebody was given of one symbol, each record of it looked at; raises AssertionError."""

    def __init__(self, truth):
        self.truth = truth
        self.numbers = {}  # of fills, in their order: the flags of each
        self.first = self.newest = 0  # numbers of the first and the last
        self.liquidations = {}  # as in the truth
        self.flags = {}  # as they are now, by kind
        self.flagged = []  # topics and flags, each time that it was not live
        self.book = Book()
        self._cursor = BookCursor(truth)
        self.records = {}  # the newest, of the kinds that are conflated
        self._places = {}  # of contracts' fields: how far their values have come

    def take(self, record, *, may_go_back=False, is_clock_right=True):
        """Look whether a record can be true."""
        kind = record.topic.partition(".")[0]
        self.flags[kind] = record.flags
        if record.flags & wire.NOT_LIVE:
            self.flagged.append((record.topic, record.flag_names))
        if kind == BOOK.name:
            self._take_book(record)
        elif record.kind == wire.TRADE:
            self._take_trade(record, is_clock_right=is_clock_right)
        elif record.kind == wire.LIQUIDATION:
            self._take_liquidation(record)
        elif record.kind in (wire.DEPTH, wire.CONTRACT):
            self.records[kind] = record
            if not record.flags & wire.NOT_LIVE:
                if record.kind == wire.DEPTH:
                    self._take_depth(record)
                else:
                    self._take_contract(record, may_go_back=not is_clock_right)

    def take_ticker(self, record):
        """Quote and last price were the exchange's."""
        truth = self.truth
        if record.bid == record.bid:
            quote = truth.quote_of(record)
            assert quote in truth.quotes, f"{record.topic}: {quote} never was a quote"
        if record.last == record.last:
            assert truth.ticks(record.last) in truth.lasts, f"{record.topic}: last {record.last} never was"

    def _take_book(self, record):
        self.book.apply(record)
        if self.book.is_valid:
            self._cursor.check(self.book)

    def _take_trade(self, record, *, is_clock_right):
        numbers = self.truth.names.get((record.trade_id, record.count))
        assert numbers is not None, f"{record.topic}: {record.trade_id} was never made"
        self.truth.check_trade(record, numbers)
        # Feeds that follow each other know their trades by time alone, and that has been set.
        is_excused = bool(record.flags & wire.RECOVERED) and not is_clock_right
        for number in numbers:
            assert number not in self.numbers or is_excused, (
                f"{record.topic}: {record.trade_id} is given twice"
            )
            self.numbers[number] = record.flags
        self.newest = numbers[-1]
        self.first = self.first or self.newest

    def _take_liquidation(self, record):
        count = self.liquidations[stated(record)] = self.liquidations.get(stated(record), 0) + 1
        known = self.truth.liquidations.get(stated(record), 0)
        assert count <= known, (
            f"{record.topic}: {stated(record)} is given {count} times, and was {known} times"
        )

    def _take_depth(self, record):
        best = self.truth.levels(record.bids), self.truth.levels(record.asks)
        assert best in self.truth.tops, f"{record.topic}: depth that never was"

    def _take_contract(self, record, *, may_go_back):
        """Each value was the exchange's, and none is older than before, unless clocks tell their order."""
        for field in CONTRACT_FIELDS:
            value = getattr(record, field)
            if value != value or (field == "next_funding_ns" and not value):
                continue
            known, start = (
                self.truth.contract.get(field, ()),
                0 if may_go_back else self._places.get(field, 0),
            )
            place = next((at for at in range(start, len(known)) if known[at] == value), None)
            assert place is not None, (
                f"{record.topic}: {field} {value} never was, or is older than before; it was {known[-3:]}"
            )
            self._places[field] = place

    def missing(self):
        """Return the trades since the first that came which were made, and not given."""
        return (
            [n for n in self.truth.trades if n > self.first and n not in self.numbers] if self.first else []
        )

    def missing_liquidations(self):
        """Return the same of liquidations."""
        order = list(self.truth.liquidations)
        first = next((at for at, each in enumerate(order) if each in self.liquidations), len(order))
        counts = self.truth.liquidations
        return [each for each in order[first:] if self.liquidations.get(each) != counts[each]]


def may_mute(stream):
    """True for streams of quotes and books: of trades and contracts nobody can know that they are silent."""
    return stream.moves_quote or stream.shows_book


def unframed(frame):
    """Return the payload of a frame as the simulator makes them."""
    size = frame[1] & 127
    return frame[4 if size == 126 else 10 if size == 127 else 2 :]


def _http(method, path, now, query=""):
    path, _, own = path.partition("?")
    query = query or own
    pairs = parse_qsl(query, keep_blank_values=True)
    return HttpRequest(method=method, path=path, query=pairs, raw_query=query, remote=ADDRESS)
