"""What exchanges themselves tell of a recording's completeness: by symbol, kind and hour.

    Item ──▶ Market.decode ──▶ takers of ids, in the place of states ──▶ ids.py
                               subscriptions, opens and closes ──▶ when each topic was connected

The recorder's own numbers prove that every frame that came was kept. Whether everything came that was sent is known
from the exchange's ids alone, as far as it has such that follow each other. Of the rest it cannot be known; then it
counts whether a connection was there that had subscribed. Frames are decoded as feeds decode them, but no record is
made of them. Pure: items come in, of one feed and in order.
"""

import bisect
import contextlib
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import msgspec

from feedhandler.data.book import BOOK
from feedhandler.data.errors import UNDECODABLE, DecodeError, ProtocolError
from feedhandler.data.ticker import TICKER
from feedhandler.data.trade import TRADE
from feedhandler.data.units import NS_PER_S
from feedhandler.exchanges import EXCHANGES
from feedhandler.exchanges.arbitration import LINES_MAX, Line
from feedhandler.exchanges.base import Market
from feedhandler.exchanges.books import Base
from feedhandler.exchanges.full_book import Changes
from feedhandler.recordings.homes import Homes
from feedhandler.recordings.ids import (
    HOUR_NS,
    ChainedIds,
    IdGap,
    NumberedIds,
    Proof,
    RisingIds,
    Spans,
    UnnumberedIds,
    UpdateIds,
    covered_ns,
)
from feedhandler.recordings.traffic import Item, What

KINDS: Final = (TRADE.name, BOOK.name, TICKER.name)  # depth is neither numbered, nor lost if one is missed
GAPS_MAX: Final = 1000  # that are listed; all are counted
NOTED_MAX: Final = 10_000  # places where something was not recorded
ENDING_NS: Final = 10 * NS_PER_S  # a feed that stops closes its connections within so long
# unsubscribed for so long: it was not wanted; else it was subscribed to anew
PARTED_NS: Final = 60 * NS_PER_S

COMPLETE: Final = "complete"
MISSING: Final = "missing"
QUIET: Final = "no data, connected"
AWAY: Final = "no data, not connected"
UNKNOWN: Final = "cannot be known"
NOT_CONNECTED: Final = "not connected, or not subscribed"
CONNECTED: Final = "connected, and it did not come"


class QualityRow(msgspec.Struct, kw_only=True):
    """One kind of one symbol in one hour. missing is None where nobody can know.

    Received are updates: trades, ids of a book's changes (messages, where those have but one), changes of a ticker.
    Missing count in the hour in which the next one came. connected_s is how long a connection was there that had
    subscribed, of seconds in which something was wanted, and recorded.
    """

    exchange: str
    market: str
    symbol: str  # as the exchange spells it
    kind: str
    hour_ns: int
    verdict: str
    received: int = 0
    recovered: int = 0  # that no connection brought, and REST did
    missing: int | None = None
    undecodable: int = 0
    connected_s: float = 0.0
    seconds: float = 0.0


class MissingIds(msgspec.Struct, frozen=True, kw_only=True):
    """Updates of one symbol that did not come; last 0: how many, or whether any, cannot be known."""

    exchange: str
    market: str
    symbol: str
    kind: str
    first: int
    last: int
    after_ns: int
    before_ns: int
    why: str


class QualityReport(msgspec.Struct, kw_only=True):
    """All of one feed. missing counts what gaps have, of which the first are listed."""

    rows: list[QualityRow]
    gaps: list[MissingIds]
    missing: int
    unknown: int  # places where something may be missing
    legend: dict[str, str]  # what is proven, by market and kind


def proof_of(market: Market, kind: str) -> Proof:
    """Return what ids of a kind prove."""
    if kind == TRADE.name and market.trade_ids_are_consecutive:
        return Proof.NUMBERED
    if kind == BOOK.name:  # one that begins over REST has ids of one count there and on all connections
        return Proof.NUMBERED if market.base_levels else Proof.CHAINED
    return Proof.NOTHING


LEGEND: Final = {
    Proof.NUMBERED: "ids follow each other on all connections: whatever is missing is known",
    Proof.CHAINED: "ids follow each other on each connection: what is missing there is known if no other has it;"
    " what was sent while none was open cannot be known",
    Proof.NOTHING: "ids do not follow each other: what is missing cannot be known",
}


class _Taker:
    """Stands where a decoder has a symbol's state, notes the ids, and takes no record."""

    def __init__(self, market: Market, native: str, kind: str, context: "_Carried") -> None:
        self.native, self.kind = native, kind
        self.proof = proof_of(market, kind)
        self.ids: UpdateIds = (
            NumberedIds()
            if self.proof is Proof.NUMBERED
            else ChainedIds()
            if self.proof is Proof.CHAINED
            else RisingIds()
            if kind == TICKER.name
            else UnnumberedIds()
        )
        self.connected = Spans()
        self.since_ns = 0  # when it was first wanted, or seen
        self.parted_ns = 0  # when the last subscription was taken back
        self.undecodable: dict[int, int] = {}  # by hour
        self._context = context
        # As a ticker's channels: the newest update is the line's own, so that no change of it is in doubt.
        self.channels = [self] * 3
        self.group = 0  # whose lines carry it: all are of one
        self.update_id = 1
        self.lacking_ns = [0] * LINES_MAX  # since when lines have had no book: nobody asks for one

    def line_update_id(self, line: int) -> int:
        """Return the newest update of a line."""
        return self.update_id

    def note(self, at_ns: int) -> None:
        """A message about it has come."""
        self.since_ns = self.since_ns or at_ns
        context = self._context
        context.met = self
        if self.parted_ns:
            if at_ns - self.parted_ns > PARTED_NS and isinstance(self.ids, NumberedIds | ChainedIds):
                self.ids.part()
            self.parted_ns = 0
        self.connected.start(context.connection, at_ns)

    # --- what decoders call

    def accept(self, channel: int, line: Line, update_id: int, recv_ns: int, is_time: bool = False) -> bool:
        """Note an update of a ticker."""
        self.note(recv_ns)
        if isinstance(self.ids, RisingIds):
            self.ids.take(channel, update_id, recv_ns)
        return False

    def accept_trade(
        self, line: Line, key: object, time_ns: int, recv_ns: int, number: int = 0, count: int = 1
    ) -> bool:
        """Note a trade."""
        self.note(recv_ns)
        if isinstance(self.ids, NumberedIds):
            self.ids.take(number - count + 1, number, recv_ns)
        elif isinstance(self.ids, UnnumberedIds):
            self.ids.take(key, recv_ns)
        return False

    def take(self, line: Line, changes: Changes, update_id: int, recv_ns: int, emit: Any) -> None:
        """Note changes of a book."""
        self.note(recv_ns)
        if isinstance(self.ids, NumberedIds):
            self.ids.take(changes.first_id, changes.last_id, recv_ns)
        elif isinstance(self.ids, ChainedIds):
            self.ids.take(self._context.connection, changes.last_id, update_id, recv_ns, is_base=False)

    def is_known_on(self, line: int) -> bool:
        """Nothing is to be subscribed to anew."""
        return True

    def take_base(self, line: Line, base: Base, update_id: int, recv_ns: int, emit: Any) -> None:
        """Note a book that came whole."""
        self.note(recv_ns)
        if isinstance(self.ids, ChainedIds):
            self.ids.take(self._context.connection, base.last_id, update_id, recv_ns, is_base=True)


class _Takers(dict[str, Any]):
    """Those of one kind, by native symbol: whoever is asked for is there."""

    def __init__(self, market: Market, kind: str, context: "_Carried") -> None:
        self._market, self._kind, self._context = market, kind, context

    def get(self, native: str, default: Any = None) -> Any:
        """Return a symbol's taker."""
        taker = dict.get(self, native)
        if taker is None and native:
            taker = self[native] = _Taker(self._market, native, self._kind, self._context)
        return taker

    def __contains__(self, native: object) -> bool:
        return True


class _Carried:
    """One market of the feed."""

    def __init__(self, made: type[Market]) -> None:
        self.market = market = made()
        self.connection = ""  # of the present frame
        self.met: _Taker | None = None  # what that is about
        self.takers = {kind: _Takers(market, kind, self) for kind in KINDS if kind in made.kinds}
        market.states.update(self.takers)
        market.tickers = self.takers.get(TICKER.name, market.tickers)
        self._topics = [
            (*topic.split("\0"), kind) for kind in self.takers for topic in market.topics("\0", kind)
        ]
        self._line = Line(0)
        self._known: dict[str, _Taker | None] = {}

    def all_takers(self) -> list[_Taker]:
        """Return those of all kinds."""
        return [taker for takers in self.takers.values() for taker in takers.values()]

    def taker_of(self, topic: str) -> _Taker | None:
        """Return whose topic it is, None if it is none of these kinds."""
        if topic not in self._known:
            self._known[topic] = self._find(topic)
        return self._known[topic]

    def _find(self, topic: str) -> _Taker | None:
        for before, behind, kind in self._topics:
            if topic.startswith(before) and topic.endswith(behind):
                native = topic[len(before) : len(topic) - len(behind)]
                for spelled in (native.upper(), native):
                    if spelled and topic in self.market.topics(spelled, kind):
                        taker: _Taker = self.takers[kind].get(spelled)
                        return taker
        return None

    def decode(self, item: Item) -> None:
        """Take a frame of the exchange's."""
        self.connection, self.met = item.connection, None
        try:
            self.market.decode(item.data, item.wall_ns, self._line, _emit)
        except DecodeError:
            taker = self.met or self.taker_of(self.market.topic_of(item.data))
            if taker is not None:
                taker.since_ns = taker.since_ns or item.wall_ns
                hour_ns = item.wall_ns - item.wall_ns % HOUR_NS
                taker.undecodable[hour_ns] = taker.undecodable.get(hour_ns, 0) + 1

    def request(self, item: Item) -> None:
        """Take a frame of ours: topics are subscribed to, or no more."""
        asked = self.market.requested(item.data)
        if asked is None:
            return
        is_wanted, topics = asked
        for taker in filter(None, map(self.taker_of, topics)):
            if is_wanted:
                taker.since_ns = taker.since_ns or item.wall_ns
                taker.connected.start(item.connection, item.wall_ns)
            elif taker.connected.stop(item.connection, item.wall_ns) and not taker.connected.since_ns:
                taker.parted_ns = item.wall_ns

    def close(self, connection: str, at_ns: int) -> None:
        """A connection is closed; "": all are."""
        for taker in self.all_takers():
            for name in [connection] if connection else list(taker.connected.since_ns):
                taker.connected.stop(name, at_ns)
                if isinstance(taker.ids, ChainedIds):
                    taker.ids.end(name)

    def answer(self, item: Item) -> None:
        """Take an answer: trades that no connection brought are in some, or how much contracts are."""
        market = self.market
        if market.lists(item.name):
            with contextlib.suppress(DecodeError, ProtocolError):
                market.learn(market.decode_instruments(item.data).items)
        if not market.past_trades_max or not market.trade_ids_are_consecutive:
            return
        parts = urlsplit(item.name)
        values = {value for _, value in parse_qsl(parts.query)}
        takers = self.takers[TRADE.name]
        native = next((symbol for symbol in takers if symbol in values), "")
        if not native or market.past_trades_request(native, 1).path.partition("?")[0] != parts.path:
            return
        ids = takers[native].ids
        assert isinstance(ids, NumberedIds), "they are consecutive"
        try:
            rows = market.decode_past_trades(native, item.data)
        except (DecodeError, ProtocolError):
            return
        for number in sorted(trade.number for trade in rows.items):
            ids.recover(number, item.wall_ns)


def _emit(state: Any) -> None:
    """Nothing is accepted, so nothing is emitted."""


class Quality:
    """Takes the items of one feed, of all its starts; name is its exchange's."""

    def __init__(self, name: str) -> None:
        self._exchange = EXCHANGES[name]
        self._carried: dict[str, _Carried] = {}
        self._homes = Homes()
        self._session_ns = 0
        self._end_ns = 0  # when the last item came
        self._noted: list[tuple[int, str]] = []  # where something was not recorded, and why

    def take(self, item: Item) -> None:
        """Take the next item."""
        what = item.what
        if what is What.RECEIVED:
            self._of(item.connection).decode(item)
        elif what is What.SENT:
            self._of(item.connection).request(item)
        elif what is What.CLOSED:
            self._of(item.connection).close(item.connection, item.wall_ns)
        elif what is What.ANSWERED:
            item = self._homes.at_home(item)
            for made in self._exchange.markets:
                self._of(made.name).answer(item)
        elif what is What.HEADER:
            self._begin(item)
        elif what is What.GAP and len(self._noted) < NOTED_MAX:
            self._noted.append((item.wall_ns or self._end_ns, item.name))
        if not item.is_repeated:
            self._end_ns = max(self._end_ns, item.wall_ns)

    def _of(self, connection: str) -> _Carried:
        """Return the market of a connection, whose name begins with it."""
        name = connection.partition(".")[0]
        carried = self._carried.get(name)
        if carried is None:
            exchange = self._exchange
            made = next((made for made in exchange.markets if made.name == name), exchange.main)
            carried = self._carried[name] = _Carried(made)
        return carried

    def _begin(self, item: Item) -> None:
        """The feed was started anew: connections begin again, ids go on."""
        self._homes.read(item.data)
        try:
            session_ns = msgspec.json.decode(item.data, type=_Session).session_ns
        except UNDECODABLE:
            return
        if session_ns == self._session_ns:
            return
        self._session_ns = session_ns
        for carried in self._carried.values():
            carried.close("", self._end_ns)

    # --- what comes of it

    def report(self) -> QualityReport:
        """Return what there is to say, in the order of market, symbol, kind and hour."""
        self._noted.sort()
        rows: list[QualityRow] = []
        gaps: list[MissingIds] = []
        legend = {}
        missing = unknown = 0
        for carried in self._carried.values():
            market = carried.market
            for taker in sorted(carried.all_takers(), key=lambda taker: (taker.native, taker.kind)):
                if not taker.since_ns:
                    continue
                names: dict[str, Any] = {
                    "exchange": market.exchange,
                    "market": market.name,
                    "symbol": taker.native,
                    "kind": taker.kind,
                }
                legend[f"{market.name} {taker.kind}"] = LEGEND[taker.proof]
                connected = taker.connected.until(self._end_ns)
                found = taker.ids.gaps()
                missing += sum(gap.count for gap in found)
                unknown += sum(not gap.last for gap in found)
                for gap in found[: max(0, GAPS_MAX - len(gaps))]:
                    gap.why = self._why(gap, connected)
                    gaps.append(MissingIds(**names, **msgspec.structs.asdict(gap)))
                rows += self._rows(taker, names, connected, found)
        return QualityReport(rows=rows, gaps=gaps, missing=missing, unknown=unknown, legend=legend)

    def _why(self, gap: IdGap, connected: list[tuple[int, int]]) -> str:
        place = bisect.bisect_left(self._noted, (gap.after_ns, ""))
        if place < len(self._noted) and self._noted[place][0] <= gap.before_ns:
            return f"not recorded: {self._noted[place][1]}"
        is_connected = covered_ns(connected, gap.after_ns, gap.before_ns) == gap.before_ns - gap.after_ns
        return CONNECTED if is_connected else NOT_CONNECTED

    def _rows(
        self, taker: _Taker, names: dict[str, Any], connected: list[tuple[int, int]], gaps: list[IdGap]
    ) -> list[QualityRow]:
        ids = taker.ids
        missing: dict[int, int] = {}
        open_hours: set[int] = set()  # of which something is missing, or may be, that counts in a later one
        doubted: set[int] = set()
        for gap in gaps:
            hour_ns = gap.before_ns - gap.before_ns % HOUR_NS
            missing[hour_ns] = missing.get(hour_ns, 0) + gap.count
            touched = range(gap.after_ns - gap.after_ns % HOUR_NS, hour_ns + 1, HOUR_NS)
            (open_hours if gap.last else doubted).update(touched)
        rows = []
        end_ns = self._end_ns
        if connected and connected[-1][1] >= end_ns - ENDING_NS:
            end_ns = connected[-1][1]  # the feed stops there, one connection after the other
        for hour_ns in range(taker.since_ns - taker.since_ns % HOUR_NS, end_ns + 1, HOUR_NS):
            start_ns, stop_ns = max(hour_ns, taker.since_ns), min(hour_ns + HOUR_NS, end_ns)
            if taker.parted_ns:
                stop_ns = min(stop_ns, taker.parted_ns)
            if stop_ns < start_ns:
                continue
            received = ids.received[hour_ns]
            on_ns = covered_ns(connected, start_ns, stop_ns)
            row = QualityRow(
                **names,
                hour_ns=hour_ns,
                verdict=UNKNOWN,
                received=received + ids.recovered[hour_ns],
                recovered=ids.recovered[hour_ns],
                undecodable=taker.undecodable.get(hour_ns, 0),
                connected_s=round(on_ns / NS_PER_S, 3),
                seconds=round((stop_ns - start_ns) / NS_PER_S, 3),
            )
            is_connected = on_ns >= stop_ns - start_ns
            if taker.proof is not Proof.NOTHING:
                row.missing = missing.get(hour_ns, 0)
            if row.missing or hour_ns in open_hours:
                row.verdict = MISSING
            elif taker.proof is Proof.NOTHING:
                row.verdict = UNKNOWN if received else QUIET if is_connected else AWAY
            elif hour_ns in doubted or not _is_proven(taker, connected, start_ns, stop_ns):
                row.verdict = UNKNOWN if received else AWAY
            else:
                row.verdict = COMPLETE if received or not is_connected else QUIET
            rows.append(row)
        return rows


class _Session(msgspec.Struct):
    session_ns: int = 0


def _is_proven(taker: _Taker, connected: list[tuple[int, int]], start_ns: int, stop_ns: int) -> bool:
    """True if what there was before the first id and behind the last one would have come, in some time."""
    ids = taker.ids
    outside = [(start_ns, stop_ns)]
    if ids.first_ns:
        outside = [(start_ns, min(stop_ns, ids.first_ns)), (max(start_ns, ids.last_ns), stop_ns)]
    return all(
        covered_ns(connected, since, until) >= until - since for since, until in outside if until > since
    )
