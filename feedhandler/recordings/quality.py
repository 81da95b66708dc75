"""What exchanges themselves tell of a recording's completeness: by symbol, kind and hour.

The recorder's own numbers prove that every frame that came was kept. Whether everything came that was sent is known
from the exchange's ids alone, as far as it has such that follow each other: trades of some, and the chain of a
book's changes. Of the rest it cannot be known. Pure: items come in, of one feed and in order.
"""

from typing import Final
from urllib.parse import parse_qsl, urlsplit

import msgspec

from feedhandler.data import kinds, wire
from feedhandler.data.book import BOOK
from feedhandler.data.errors import DecodeError, ProtocolError
from feedhandler.data.trade import TRADE
from feedhandler.data.units import NS_PER_S
from feedhandler.exchanges.base import Market
from feedhandler.recordings.decoding import Decoded, Decoding
from feedhandler.recordings.traffic import Item, What

HOUR_NS: Final = 3600 * NS_PER_S
RANGES_MAX: Final = 10_000  # of one symbol's missing ids; what is older is settled


class QualityRow(msgspec.Struct, kw_only=True):
    """One kind of one symbol in one hour, as it came. missing is None where nobody can know.

    Of a book received are messages, and missing are places where its chain was broken, or no connection had it: how
    much is missing at each cannot be known.
    """

    exchange: str
    market: str
    symbol: str  # as the exchange spells it
    kind: str
    hour_ns: int
    received: int = 0
    recovered: int = 0  # of them, from answers over REST
    missing: int | None = None
    undecodable: int = 0


class _Ids:
    """Ids of one symbol's trades that follow each other: which have not come."""

    def __init__(self) -> None:
        self.last = 0
        self.missing: list[tuple[int, int, int]] = []  # first, last, and in which hour that was seen

    def take(self, number: int, hour_ns: int) -> bool:
        """Note an id; False if it was there before."""
        if number > self.last:
            if self.last and number > self.last + 1:
                self.missing.append((self.last + 1, number - 1, hour_ns))
                del self.missing[:-RANGES_MAX]
            self.last = number
            return True
        for place in range(len(self.missing) - 1, -1, -1):
            first, last, seen_ns = self.missing[place]
            if first <= number <= last:
                left = [(first, number - 1, seen_ns), (number + 1, last, seen_ns)]
                self.missing[place : place + 1] = [each for each in left if each[0] <= each[1]]
                return True
        return False


class Quality:
    """Takes the items of one feed; name is its exchange's."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._decoding = Decoding(name, has_quotes=False)
        self._rows: dict[tuple[str, str, str, int], QualityRow] = {}
        self._ids: dict[tuple[str, str], _Ids] = {}
        self._answers: set[int] = set()  # those that were taken
        self._ended: set[tuple[str, str]] = set()  # books of which there was no connection any more

    def begin(self) -> None:
        """The feed was started anew: connections and books begin again, ids go on."""
        self._ended.update(self._known_books())
        self._decoding = Decoding(self._name, has_quotes=False)
        self._answers.clear()

    def take(self, item: Item) -> None:
        """Take the next item."""
        hour_ns = item.wall_ns - item.wall_ns % HOUR_NS
        if item.what is What.CLOSED:
            self._take_close(item)
            return
        found = self._decoding.take(item)
        if found.market is None:
            return
        if item.what is What.ANSWERED:
            self._take_answer(found.market, item, hour_ns)
            return
        if item.what is What.RECEIVED and found.kind:
            self._take_frame(found.market, found, hour_ns)
        for packed in found.records:
            record = wire.unpack(packed)
            kind = kinds.NAMES[record.kind]
            if isinstance(record, wire.Trade):
                native = record.topic.split(".", 2)[2]
                self._take_trade(found.market, native, record.exchange_sequence, hour_ns)
            elif kind not in (TRADE.name, BOOK.name) and not isinstance(record, wire.Condition):
                self._row(found.market, record.topic.split(".", 2)[2], kind, hour_ns).received += 1

    def _take_close(self, item: Item) -> None:
        """A book that no connection has any more will have missed something when there is one again."""
        before = self._known_books()
        self._decoding.take(item)
        self._ended.update(before - self._known_books())

    def _known_books(self) -> set[tuple[str, str]]:
        return {
            (carrier.market.name, state.native)
            for carrier in self._decoding.carriers
            for state in carrier.books()
            if any(line.is_known for line in state.lines)
        }

    def _take_frame(self, market: Market, found: Decoded, hour_ns: int) -> None:
        if found.problem:
            self._row(market, found.native, found.kind, hour_ns).undecodable += 1
        if found.kind != BOOK.name:
            return
        row = self._row(market, found.native, BOOK.name, hour_ns)
        row.received += 1
        key = market.name, found.native
        is_broken = (found.has_lost and not found.was_crossed) or key in self._ended
        self._ended.discard(key)
        row.missing = (row.missing or 0) + is_broken

    def _take_trade(
        self, market: Market, native: str, number: int, hour_ns: int, *, is_recovered: bool = False
    ) -> None:
        row = self._row(market, native, TRADE.name, hour_ns)
        is_new = True
        if market.trade_ids_are_consecutive:
            ids = self._ids.setdefault((market.name, native), _Ids())
            is_new = ids.take(number, hour_ns) if ids.last or not is_recovered else False
        if is_new or not is_recovered:
            row.received += 1
            row.recovered += is_recovered

    def _take_answer(self, market: Market, item: Item, hour_ns: int) -> None:
        """Trades that no connection brought are in answers, among others."""
        if item.number in self._answers or not market.past_trades_max or not market.trade_ids_are_consecutive:
            return
        parts = urlsplit(item.name)
        values = {value for _, value in parse_qsl(parts.query)}
        native = next((symbol for name, symbol in self._ids if name == market.name and symbol in values), "")
        if not native or market.past_trades_request(native, 1).path.partition("?")[0] != parts.path:
            return
        self._answers.add(item.number)
        try:
            rows = market.decode_past_trades(item.data)
        except (DecodeError, ProtocolError):
            return
        for trade in rows.items:
            self._take_trade(market, native, trade.number, hour_ns, is_recovered=True)

    def _row(self, market: Market, native: str, kind: str, hour_ns: int) -> QualityRow:
        key = market.name, native, kind, hour_ns
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = QualityRow(
                exchange=market.exchange, market=market.name, symbol=native, kind=kind, hour_ns=hour_ns
            )
            if kind == BOOK.name or (kind == TRADE.name and market.trade_ids_are_consecutive):
                row.missing = 0
        return row

    def rows(self) -> list[QualityRow]:
        """Return what there is to say, by market, symbol, kind and hour."""
        missing: dict[tuple[str, str, int], int] = {}
        for (market, native), ids in self._ids.items():
            for first, last, hour_ns in ids.missing:
                key = market, native, hour_ns
                missing[key] = missing.get(key, 0) + last - first + 1
        for row in self._rows.values():
            if row.kind == TRADE.name and row.missing is not None:
                row.missing = missing.get((row.market, row.symbol, row.hour_ns), 0)
        return [self._rows[key] for key in sorted(self._rows)]
