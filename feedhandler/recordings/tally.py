"""What is in recorded traffic, and whether the books of it are right, counted while it is decoded.

A book is made of the records, as a subscriber makes it. It is wrong if its best bid is not below its best ask, or
if another channel states other best levels under the same id.
"""

import re
from collections import Counter
from typing import Final

import msgspec

from feedhandler.data import kinds, wire
from feedhandler.data.book import BOOK, BookRecord
from feedhandler.data.depth import DEPTH
from feedhandler.data.kept_book import Book
from feedhandler.data.ticker import TICKER
from feedhandler.data.trade import TRADE
from feedhandler.exchanges.base import Nack, Resubscribe, StatedQuote
from feedhandler.exchanges.trades import TradeState
from feedhandler.recordings.decoding import Decoded, Decoding
from feedhandler.recordings.traffic import Item, What

REASONS_MAX: Final = 5  # undecodable frames that are shown
SHOWN: Final = 200  # bytes of such a frame
IDS_MAX: Final = 4096  # of one symbol's book, and of quotes, that wait to be compared
CHANNELS_MAX: Final = 100  # that are not decoded and told apart


_Four = tuple[float, float, float, float]  # price and size of the best bid, and of the best ask


class UndecodedFrame(msgspec.Struct):
    """A frame or answer that cannot be decoded: when it came, why it cannot, and how it begins."""

    wall_ns: int
    reason: str
    head: str


class BookTally(msgspec.Struct):
    """One symbol's book. began counts how often it was valid anew; compared are ids that a quote has as well."""

    symbol: str
    messages: int = 0
    levels: int = 0  # changed
    began: int = 0
    crossed: int = 0
    gaps: int = 0
    compared: int = 0
    disagreed: int = 0
    first_disagreement: str = ""
    is_valid: bool = False  # at the end
    waits_for: str = ""  # if it never was


class MarketTally(msgspec.Struct):
    """What a market's traffic has come to. trades, depths and tickers are records, changes a book's messages."""

    exchange: str
    market: str
    frames: int = 0
    guessed: int = 0  # of them, on connections whose address is not recorded
    trades: int = 0
    trades_missing: int = 0  # as ids show, where an exchange has such
    depths: int = 0
    depths_invalid: int = 0
    tickers: int = 0
    others: dict[str, int] = {}  # records of further kinds
    changes: int = 0
    levels: int = 0
    snapshots: int = 0  # of books
    bases: int = 0  # answers
    answers: int = 0  # to our commands, and pongs
    refused: int = 0
    other: int = 0  # frames of channels that are not decoded,
    channels: Counter[str] = msgspec.field(default_factory=Counter)  # and of which
    undecodable: int = 0
    problems: list[UndecodedFrame] = []
    books: list[BookTally] = []


class _Checked(msgspec.Struct):
    """A book as the records make it, and what is known of it by id."""

    tally: BookTally
    book: Book = msgspec.field(default_factory=Book)
    was_crossed: bool = False
    bests: dict[int, _Four] = {}
    quotes: dict[int, _Four] = {}
    is_known: bool = False  # to have messages of its own


class Tally:
    """What the items of one recording come to, in the order in which they are taken."""

    def __init__(self, name: str = "") -> None:
        self.decoding = Decoding(name)
        self.frames = self.sent = self.not_recorded = self.gaps = 0
        self.elsewhere: Counter[str] = Counter()  # frames of markets that are not decoded
        self._markets: dict[tuple[str, str], MarketTally] = {}
        self._checked: dict[tuple[str, str, str], _Checked] = {}

    def take(self, item: Item) -> None:
        """Take the next item. Answers may come before all else as well, as repeated ones."""
        self.sent += item.what is What.SENT
        if item.what is What.GAP:
            self.gaps += 1
            self.not_recorded += item.number
        found = self.decoding.take(item)
        if item.what is What.RECEIVED:
            self.frames += 1
            if found.market is None:
                self.elsewhere[found.where] += 1
            else:
                self._take_frame(self._market(found), found, item)
        elif item.what is What.ANSWERED and found.market is not None and found.kind:
            tally = self._market(found)
            tally.bases += found.kind == BOOK.name and not found.problem and not item.is_repeated
            if found.problem:
                self._note(tally, found.problem, item)
        if found.records:
            self._take_records(self._market(found), found)

    def finish(self) -> list[MarketTally]:
        """Return what it comes to."""
        for tally in self._markets.values():
            tally.books = []
            tally.trades_missing = sum(
                state.trades.missing_count
                for carrier in self.decoding.carriers
                if (carrier.market.exchange, carrier.market.name) == (tally.exchange, tally.market)
                for state in carrier.states.get(TRADE.name, {}).values()
                if isinstance(state, TradeState)
            )
        for (exchange, market, _), checked in sorted(self._checked.items()):
            if checked.is_known:
                checked.tally.is_valid = checked.book.is_valid
                checked.tally.waits_for = "" if checked.tally.began else self._waits_for(exchange, market)
                self._markets[exchange, market].books.append(checked.tally)
        return list(self._markets.values())

    def _waits_for(self, exchange: str, market: str) -> str:
        needs_answer = any(
            carrier.market.base_levels
            for carrier in self.decoding.carriers
            if (carrier.market.exchange, carrier.market.name) == (exchange, market)
        )
        return "an answer from which its changes go on" if needs_answer else "a snapshot"

    def _market(self, found: Decoded) -> MarketTally:
        assert found.market is not None
        key = found.market.exchange, found.market.name
        return self._markets.setdefault(key, MarketTally(*key))

    def _symbol(self, tally: MarketTally, native: str) -> _Checked:
        key = tally.exchange, tally.market, native
        return self._checked.setdefault(key, _Checked(BookTally(native)))

    # --- frames

    def _take_frame(self, tally: MarketTally, found: Decoded, item: Item) -> None:
        tally.frames += 1
        tally.guessed += found.is_guessed
        if found.problem:
            tally.undecodable += 1
            self._note(tally, found.problem, item)
        elif isinstance(found.control, Nack):
            tally.refused += not found.control.is_satisfied
            tally.answers += 1
        elif found.control is not None and not isinstance(found.control, Resubscribe):
            tally.answers += 1
        elif not found.kind:
            self._note_other(tally, found, item)
        if found.kind == BOOK.name:
            checked = self._symbol(tally, found.native)
            checked.is_known = True
            checked.tally.messages += 1
            checked.tally.gaps += found.has_lost and not found.was_crossed
            tally.changes += 1
        if found.quote is not None:
            self._take_quote(self._symbol(tally, found.quote.native), found.quote)

    def _note(self, tally: MarketTally, reason: str, item: Item) -> None:
        """Keep the first of each reason."""
        if len(tally.problems) < REASONS_MAX and all(p.reason != reason for p in tally.problems):
            head = item.data[:SHOWN].decode(errors="backslashreplace")
            tally.problems.append(UndecodedFrame(item.wall_ns, reason, head))

    def _note_other(self, tally: MarketTally, found: Decoded, item: Item) -> None:
        assert found.market is not None
        tally.other += 1
        topic = found.market.topic_of(item.data) or "without a topic"
        for native in self._natives(tally):
            topic = re.sub(rf"(?i)(?<![a-z]){re.escape(native)}(?![a-z])", "…", topic)
        name = topic if topic in tally.channels or len(tally.channels) < CHANNELS_MAX else "others"
        tally.channels[name] += 1

    def _natives(self, tally: MarketTally) -> list[str]:
        """Return the symbols of which there is a book, the longest first."""
        found = [key[2] for key in self._checked if key[:2] == (tally.exchange, tally.market)]
        return sorted(found, key=len, reverse=True)

    # --- records

    def _take_records(self, tally: MarketTally, found: Decoded) -> None:
        assert found.market is not None
        books = f"{BOOK.name}.{found.market.exchange}.{found.market.prefix}"
        for packed in found.records:
            record = wire.unpack(packed)
            if isinstance(record, BookRecord | wire.Condition):
                if record.topic.startswith(books):
                    self._take_book(tally, record, record.topic.removeprefix(books))
            else:
                name = kinds.NAMES[record.kind]
                if name == TRADE.name:
                    tally.trades += 1
                elif name == TICKER.name:
                    tally.tickers += 1
                elif name != DEPTH.name:
                    tally.others[name] = tally.others.get(name, 0) + 1
                else:
                    tally.depths += 1
                    tally.depths_invalid += bool(record.flags & wire.INVALID)

    def _take_book(self, tally: MarketTally, record: wire.Record, native: str) -> None:
        checked = self._symbol(tally, native)
        book = checked.book
        was_valid = book.is_valid
        book.apply(record)
        if isinstance(record, BookRecord):
            is_snapshot = bool(record.flags & wire.SNAPSHOT)
            if is_snapshot:
                tally.snapshots += record.part == 0
            else:
                count = record.bid_count + record.ask_count
                tally.levels += count
                checked.tally.levels += count
        if not book.is_valid:
            checked.was_crossed = False
            return
        checked.tally.began += not was_valid
        best = book.best
        is_crossed = best.bid >= best.ask
        checked.tally.crossed += is_crossed and not checked.was_crossed
        checked.was_crossed = is_crossed
        if book.last_id not in checked.bests:
            _keep(checked.bests, book.last_id, best)
            _compare(checked, book.last_id)

    def _take_quote(self, checked: _Checked, quote: StatedQuote) -> None:
        if quote.last_id not in checked.quotes:
            _keep(checked.quotes, quote.last_id, quote.levels)
            _compare(checked, quote.last_id)


def _keep(known: dict[int, _Four], key: int, value: _Four) -> None:
    """Keep a value, and the newest others."""
    known[key] = value
    if len(known) > IDS_MAX:
        del known[next(iter(known))]


def _compare(checked: _Checked, last_id: int) -> None:
    """Compare book and quote of one id, if both are known."""
    best, quote = checked.bests.get(last_id), checked.quotes.get(last_id)
    if best is None or quote is None:
        return
    tally = checked.tally
    tally.compared += 1
    if not all(_is_same(ours, theirs) for ours, theirs in zip(best, quote, strict=True)):
        tally.disagreed += 1
        tally.first_disagreement = tally.first_disagreement or f"id {last_id}: {tuple(best)}, stated {quote}"


def _is_same(ours: float, theirs: float) -> bool:
    """Compare prices or sizes; an empty side has none, however that is stated."""
    return ours == theirs or not (ours > 0.0 or theirs > 0.0)
