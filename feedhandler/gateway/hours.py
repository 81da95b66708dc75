"""The quality of data in the last 24 hours: of each exchange, and of each kind of a symbol.

What feeds and merger count is in their statuses, as totals: here are differences. How many records of a topic came
is what its numbers say, whether the gateway had each or not. How long a topic was STALE, DOWN
or INVALID is what its flags were at each look, one a second. It begins anew with the gateway; what was recorded is
judged by `feedhandler captures verify`. Pure: times, statuses and flags come in.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from feedhandler.data import kinds, wire
from feedhandler.data.status import ConnectionStatus, ExchangeStatus, FeedStatus
from feedhandler.data.units import NS_PER_S

HOUR_NS: Final = 3600 * NS_PER_S
HOURS_MAX: Final = 24
SYMBOLS_MAX: Final = 20_000  # rows of symbols with which something was wrong, of all hours: 8 MB
TOPICS_MAX: Final = 20_000  # of which records are counted, in each hour: 50 MB in a day
LOOK_MAX_NS: Final = 5 * NS_PER_S  # after a longer pause nothing is known of it
BAD_FLAGS: Final = wire.STALE | wire.DOWN | wire.INVALID
UNKNOWN: Final = "unknown"


class ExchangeHour(msgspec.Struct, kw_only=True):
    """One exchange in one hour (UTC).

    seconds: how long it was in each state, `unknown` while the merger was silent.
    some_trades_lost: topics that lost trades of which nobody knows how many.
    """

    exchange: str
    hour_ns: int
    seconds: dict[str, float] = {}
    reconnects: int = 0
    frames: int = 0
    duplicates: int = 0  # updates that another connection was first to bring
    late: int = 0
    undecodable: int = 0
    lost_records: int = 0  # on the way to the merger
    lost_trades: int = 0
    some_trades_lost: int = 0
    recovered_trades: int = 0
    feed_starts: int = 0  # after the first


class SymbolHour(msgspec.Struct, kw_only=True):
    """One kind of one symbol in an hour.

    records: how many were published. lost_trades: how many are missing, -1: nobody knows. unproven: what cannot be
    known of this kind there, as `feedhandler capabilities` has it.
    """

    exchange: str
    symbol: str
    kind: str
    hour_ns: int
    records: int = 0
    stale_s: float = 0.0
    down_s: float = 0.0
    invalid_s: float = 0.0
    times_invalid: int = 0  # that it began to be so
    lost_trades: int = 0
    unproven: str = ""


class QualityTable(msgspec.Struct, kw_only=True):
    """The newest hour first. since_ns: when the gateway began to look. left_out: symbols' rows beyond the limit.

    symbols: those with which something was wrong; all of them where an exchange or a symbol was asked for.
    """

    since_ns: int
    now_ns: int
    exchanges: list[ExchangeHour]
    symbols: list[SymbolHour]
    left_out: int


class Hours:
    """Takes statuses as they come, and looks at flags."""

    def __init__(self) -> None:
        self.left_out = 0
        self.since_ns = 0
        self._looked_ns = 0
        self._exchanges: dict[tuple[int, str], ExchangeHour] = {}
        self._symbols: dict[tuple[int, str], SymbolHour] = {}  # by hour and topic
        self._feeds: dict[str, FeedStatus] = {}
        self._lost_records: dict[str, int] = {}
        self._invalid: set[str] = set()  # topics, at the last look
        self._records: dict[int, dict[str, int]] = {}  # how many came of each topic, by hour
        self._numbers: dict[str, int] = {}  # of the newest, by topic,
        self._session = 0  # in this session of the merger's,
        self._is_whole = False  # which began after the first look

    def on_status(self, status: ExchangeStatus, symbols: Mapping[str, str], now_ns: int) -> None:
        """An exchange's status is new; symbols are its canonical ones by native."""
        hour = self._exchange(status.exchange, now_ns)
        lost = self._lost_records.get(status.exchange, status.hop_lost)
        hour.lost_records += _grown(lost, status.hop_lost)
        self._lost_records[status.exchange] = status.hop_lost
        new = status.feed
        if new is None:
            return
        old = self._feeds.get(status.exchange)
        self._feeds[status.exchange] = new
        if old is None:
            return
        if (old.pid, old.started_ns) != (new.pid, new.started_ns):
            hour.feed_starts += 1
            old = FeedStatus(exchange=new.exchange, pid=new.pid, started_ns=new.started_ns)
        hour.recovered_trades += _grown(old.recovered_trades, new.recovered_trades)
        self._on_connections(hour, old, new)
        for topic, count in new.lost_trades.items():
            before = old.lost_trades.get(topic, 0)
            if count != before:
                self._on_lost_trades(hour, topic, before, count, symbols, now_ns)

    def _on_connections(self, hour: ExchangeHour, old: FeedStatus, new: FeedStatus) -> None:
        before = _by_leg(old.connections)
        for leg, connection in _by_leg(new.connections).items():
            was = before.get(leg)
            if was is not None:
                hour.reconnects += max(0, connection.connects - was.connects)
            hour.frames += _grown(was.frames if was else 0, connection.frames)
            hour.duplicates += _grown(was.duplicate if was else 0, connection.duplicate)
            hour.late += _grown(was.late if was else 0, connection.late)
            hour.undecodable += _grown(was.decode_errors if was else 0, connection.decode_errors)

    def _on_lost_trades(
        self, hour: ExchangeHour, topic: str, before: int, count: int, symbols: Mapping[str, str], now_ns: int
    ) -> None:
        kind, exchange, native = topic.split(".", 2)
        row = self._symbol(f"{kind}.{exchange}.{symbols.get(native, native)}", now_ns)
        if count < 0:
            hour.some_trades_lost += 1
            row.lost_trades = -1
        else:
            more = _grown(max(0, before), count)
            hour.lost_trades += more
            row.lost_trades += more if row.lost_trades >= 0 else 0

    def look(self, states: Mapping[str, str], flags: Iterable[tuple[str, int]], now_ns: int) -> None:
        """Note states of exchanges, and the flags of topics, as they are now."""
        self.since_ns = self.since_ns or now_ns
        past_ns = now_ns - self._looked_ns if self._looked_ns else 0
        self._looked_ns = now_ns
        is_known = 0 <= past_ns <= LOOK_MAX_NS
        past_s = past_ns / NS_PER_S if is_known else 0.0
        for exchange, state in states.items():
            hour = self._exchange(exchange, now_ns)
            hour.seconds[state] = hour.seconds.get(state, 0.0) + past_s
        invalid = set()
        for topic, bits in flags:
            if not bits & BAD_FLAGS:
                continue
            row = self._symbol(topic, now_ns)
            row.stale_s += past_s if bits & wire.STALE else 0.0
            row.down_s += past_s if bits & wire.DOWN else 0.0
            if bits & wire.INVALID:
                row.invalid_s += past_s
                row.times_invalid += topic not in self._invalid
                invalid.add(topic)
        self._invalid = invalid

    def on_numbers(self, session: int, numbers: Iterable[tuple[str, int]], now_ns: int) -> None:
        """Note the numbers of topics' newest records, as they are now.

        What came before a topic was first seen is not counted, unless the merger's session began meanwhile.
        """
        if session != self._session:
            self._is_whole, self._session, self._numbers = bool(self._session), session, {}
        before, self._numbers = self._numbers, dict(numbers)
        records = self._records.setdefault(now_ns - now_ns % HOUR_NS, {})
        for topic, number in self._numbers.items():
            more = number - before.get(topic, 0 if self._is_whole else number)
            if more > 0 and (topic in records or len(records) < TOPICS_MAX):
                records[topic] = records.get(topic, 0) + more

    def _exchange(self, exchange: str, now_ns: int) -> ExchangeHour:
        hour_ns = now_ns - now_ns % HOUR_NS
        row = self._exchanges.get((hour_ns, exchange))
        if row is None:
            self._forget(hour_ns)
            row = ExchangeHour(exchange=exchange, hour_ns=hour_ns, seconds={})
            self._exchanges[hour_ns, exchange] = row
        return row

    def _symbol(self, topic: str, now_ns: int) -> SymbolHour:
        hour_ns = now_ns - now_ns % HOUR_NS
        row = self._symbols.get((hour_ns, topic))
        if row is None:
            row = _row_of(topic, hour_ns)
            if len(self._symbols) >= SYMBOLS_MAX:
                self.left_out += 1
                del self._symbols[next(iter(self._symbols))]
            self._symbols[hour_ns, topic] = row
        return row

    def _forget(self, hour_ns: int) -> None:
        """Forget what is older than a day."""
        oldest_ns = hour_ns - (HOURS_MAX - 1) * HOUR_NS
        self._exchanges = {key: row for key, row in self._exchanges.items() if key[0] >= oldest_ns}
        self._symbols = {key: row for key, row in self._symbols.items() if key[0] >= oldest_ns}
        self._records = {hour: topics for hour, topics in self._records.items() if hour >= oldest_ns}

    def table(self, now_ns: int, exchange: str | None = None, symbol: str | None = None) -> QualityTable:
        """Return what there is, of one exchange, or one symbol, if they are named: then of all its topics."""
        exchanges = [row for row in self._exchanges.values() if exchange in (None, row.exchange)]
        found = {
            key: row
            for key, row in self._symbols.items()
            if exchange in (None, row.exchange) and symbol in (None, row.symbol)
        }
        if exchange is not None or symbol is not None:
            topics = [
                topic for topic in set().union(*self._records.values()) if _is_asked(topic, exchange, symbol)
            ]
            for hour_ns, records in self._records.items():
                for topic in topics:
                    if topic in records and (hour_ns, topic) not in found:
                        found[hour_ns, topic] = _row_of(topic, hour_ns)
        for (hour_ns, topic), row in found.items():
            row.records = self._records.get(hour_ns, {}).get(topic, 0)
        symbols = found.values()
        return QualityTable(
            since_ns=self.since_ns or now_ns,
            now_ns=now_ns,
            exchanges=sorted(exchanges, key=lambda row: (-row.hour_ns, row.exchange)),
            symbols=sorted(symbols, key=lambda row: (-row.hour_ns, row.exchange, row.symbol, row.kind)),
            left_out=self.left_out,
        )


def _is_asked(topic: str, exchange: str | None, symbol: str | None) -> bool:
    _, its_exchange, its_symbol = topic.split(".", 2)
    return exchange in (None, its_exchange) and symbol in (None, its_symbol)


def _row_of(topic: str, hour_ns: int) -> SymbolHour:
    kind, exchange, symbol = topic.split(".", 2)
    return SymbolHour(exchange=exchange, symbol=symbol, kind=kind, hour_ns=hour_ns)


def is_of_a_symbol(topic: str) -> bool:
    """True for topics of records; documents have others."""
    kind, _, rest = topic.partition(".")
    return kind in kinds.RECORD_WORDS and "." in rest


def _grown(before: int, after: int) -> int:
    """Return by how much a total has grown that may have begun anew."""
    return after - before if after >= before else after


def _by_leg(connections: Iterable[ConnectionStatus]) -> dict[tuple[str, int, bool, int], ConnectionStatus]:
    found: dict[tuple[str, int, bool, int], ConnectionStatus] = {}
    for connection in connections:
        key = connection.market, connection.leg, connection.is_successor
        place = sum(each[:3] == key for each in found)
        found[*key, place] = connection
    return found
