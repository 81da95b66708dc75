"""What people see in a terminal: the live table, the status, one line per record, the summary.

It turns records into text and decides nothing.
"""

import enum
import io
import math
import sys
import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from hdrh.histogram import HdrHistogram
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from feedhandler.cli.figures import clock, duration, moment, number, price, rounded
from feedhandler.cli.pairs import Pairs
from feedhandler.client import Subscriber
from feedhandler.data import hints, wire
from feedhandler.data.instruments import InstrumentList, InstrumentTable, decimals
from feedhandler.data.processes import ProcessStatus
from feedhandler.data.status import ExchangeStatus, Heartbeat
from feedhandler.data.units import NS_PER_S

LATENCY_MAX_US: Final = 60_000_000
LINE_WIDTH: Final = 1000
NOT_FRESH: Final = wire.SNAPSHOT | wire.NOT_LIVE
UNREAL: Final = {
    wire.SIMULATED: "SIMULATED data, of no real exchange",
    wire.REPLAY: "REPLAY of a recording, nothing of now",
}
COLUMNS: Final = ("exchange", "symbol", "last", "bid", "ask", "24 h", "age", "latency", "flags")
DROPPED_IN_ORDER: Final = ("latency", "24 h", "age", "exchange")  # where a terminal is too narrow for all
FOR_PANEL: Final = ("latency", "24 h", "age")  # those that trades and depth of one symbol may displace
LADDER_LEVELS: Final = 5  # of a side
TRADES_SHOWN: Final = 10
PANEL_ROWS_BELOW: Final = 9  # where there is no room beside
PANEL_ROWS_MIN: Final = 3  # ask, bid and a trade
TICKERS_MIN: Final = 5
BETWEEN: Final = 3  # blanks between tickers and panel
PLAIN: Final = Console(width=LINE_WIDTH)  # to measure with
PLURALS: Final = {"trade": "trades", "contract": "contracts", "liquidation": "liquidations"}
SIDE_STYLES: Final = {wire.Side.BUY: "green", wire.Side.SELL: "red"}
STATE_STYLES: Final = {
    "live": "green",
    "stale": "yellow",
    "connecting": "yellow",
    "starting": "yellow",
    "idle": "dim",
}


class Panel:
    """Trades and depth of one symbol: the first wanted one of which there are some."""

    def __init__(self) -> None:
        self.exchange = self.symbol = ""
        self._trades: deque[wire.Trade] = deque(maxlen=TRADES_SHOWN)
        self._depth: wire.Depth | None = None
        self._flags = 0  # of its trades

    def choose(self, statuses: Iterable[ExchangeStatus | None]) -> None:
        """Take the first symbol of which trades or depth are wanted; one that has not come is waited for."""
        for status in statuses if not self.symbol else ():
            if status is None:
                return
            feed = status.feed
            for symbol, kinds in feed.wanted.items() if feed is not None else ():
                if "trade" in kinds or "depth" in kinds:
                    assert feed is not None, "it wants this"
                    self.exchange, self.symbol = status.exchange, feed.renamed.get(symbol, symbol)
                    return

    def take(self, record: wire.Record) -> None:
        """Take a record, of whatever topic."""
        if not self.symbol or record.symbol != self.symbol or record.exchange != self.exchange:
            return
        if isinstance(record, wire.Depth):
            self._depth = record
        elif isinstance(record, wire.Trade):
            self._flags = record.flags
            self._trades.appendleft(record)
        elif isinstance(record, wire.Condition):
            self._flags = record.flags

    @property
    def is_empty(self) -> bool:
        return self._depth is None and not self._trades

    def table(self, places: int | None, rows_max: int, *, has_times: bool) -> Table:
        """Return the ladder, the dearest on top, and below it the last trades, the newest first."""
        depth, flags = self._depth, self._flags | (self._depth.flags if self._depth is not None else 0)
        title = f"{self.exchange} {self.symbol}"
        if conditions := _conditions(flags):
            title += f" {conditions}"
        style = "bold red" if conditions else "bold"
        table = Table(
            box=None, pad_edge=False, show_header=False, title=title, title_justify="left", title_style=style
        )
        for name in ("time", "side", "price", "size")[not has_times :]:
            table.add_column(name, no_wrap=True, justify="right" if name in ("price", "size") else "left")
        levels = max(1, min(LADDER_LEVELS, (rows_max - 2) // 2)) if depth is not None else 0
        times = [""] if has_times else []
        for level in reversed(depth.asks[:levels] if depth is not None else ()):
            table.add_row(*times, "ask", *_level(level, places), style="red")
        for level in depth.bids[:levels] if depth is not None else ():
            table.add_row(*times, "bid", *_level(level, places), style="green")
        for trade in list(self._trades)[: max(1, rows_max - 2 * levels)]:
            if has_times:
                times = [clock(trade.exchange_ns or trade.recv_ns)[:8]]
            side = Text(str(trade.side), style=SIDE_STYLES.get(trade.side, ""))
            table.add_row(*times, side, *_level((trade.price, trade.size), places))
        return table

    def line(self) -> str:
        """Return the same in words, "" while nothing has come."""
        parts = []
        if self._trades:
            trade = self._trades[0]
            parts.append(f"last trade {trade.side} {number(trade.size)} at {number(trade.price)}")
        if self._depth is not None:
            parts.append(_depth_text(self._depth))
        if flags := _conditions(self._flags | (self._depth.flags if self._depth is not None else 0)):
            parts.append(flags)
        return f"{self.exchange} {self.symbol}: {', '.join(parts)}" if parts else ""


def _level(level: tuple[float, float], places: int | None) -> tuple[str, str]:
    return price(level[0], places), rounded(level[1])


def _conditions(flags: int) -> str:
    return " ".join(name for bit, name in wire.FLAG_NAMES.items() if flags & bit & wire.NOT_LIVE)


class Watch:
    """What a subscriber has seen so far: newest values, counts and latencies, per exchange."""

    def __init__(self, exchanges: Iterable[str]) -> None:
        self.exchanges = list(exchanges)
        self.tickers: dict[str, wire.Ticker] = {}
        self.statuses: dict[str, ExchangeStatus] = {}
        self.heartbeat: Heartbeat | None = None
        self.panel = Panel()
        self.pairs = Pairs(self.tickers)
        self.records = dict.fromkeys(self.exchanges, 0)  # fresh ones of tickers,
        self.others: dict[str, dict[str, int]] = {name: {} for name in self.exchanges}  # and of other kinds
        self.since_mono: dict[str, float] = {}  # when the first of them came
        # Tick to publish, microseconds. Not to this subscriber: it draws, and would measure its own drawing.
        self.latencies = {name: HdrHistogram(1, LATENCY_MAX_US, 3) for name in self.exchanges}
        self._newest_latency_us: dict[str, float] = {}
        self._tables: dict[str, InstrumentTable] = {}

    def take(self, record: wire.Record) -> None:
        """Take one record."""
        if isinstance(record, wire.Document):
            self._take_document(record)
        if not isinstance(record, wire.Ticker):
            self._take_other(record)
            return
        self.tickers[record.topic] = record
        exchange = record.exchange
        if record.flags & NOT_FRESH or exchange not in self.records:
            return
        if not self.records[exchange]:
            self.since_mono[exchange] = time.monotonic()
        self.records[exchange] += 1
        latency_us = (record.publish_ns - record.recv_ns) / 1000
        self._newest_latency_us[record.topic] = latency_us
        self.latencies[exchange].record_value(min(max(1, int(latency_us)), LATENCY_MAX_US))

    def _take_other(self, record: wire.Record) -> None:
        """Take a record of another kind, or a condition."""
        self.panel.take(record)
        self.pairs.take(record)
        if isinstance(record, wire.Document | wire.Condition) or record.flags & NOT_FRESH:
            return
        if (counts := self.others.get(record.exchange)) is not None:
            kind = wire.KIND_NAMES.get(record.kind, "unknown")
            counts[kind] = counts.get(kind, 0) + 1

    def _take_document(self, document: wire.Document) -> None:
        if document.kind == wire.STATUS:
            status = msgspec.json.decode(document.body, type=ExchangeStatus)
            self.statuses[status.exchange] = status
            self.panel.choose(self.statuses.get(name) for name in self.exchanges)
        elif document.kind == wire.INSTRUMENTS:
            listing = msgspec.json.decode(document.body, type=InstrumentList)
            self._tables[listing.exchange] = listing.table()
        elif document.kind == wire.HEARTBEAT:
            self.heartbeat = msgspec.json.decode(document.body, type=Heartbeat)

    def picture(self, rows_max: int, width: int) -> Group:
        """Return the live picture: at most rows_max instruments, then what each exchange is doing.

        Symbols and prices are never cut: on a narrow terminal there are fewer columns.
        """
        now_ns = time.time_ns()
        pairs = self.pairs.table(self._places, (rows_max - TICKERS_MIN) // 2, width, now_ns)
        if pairs is not None:
            rows_max -= 2 + pairs.row_count  # a blank line and the heads
        topics = sorted(self.tickers, key=lambda topic: topic.split(".")[1:])
        panel, beside = self._panel(topics[:rows_max], rows_max, width, now_ns)
        if panel is not None and not beside:
            rows_max = max(TICKERS_MIN, rows_max - 2 - panel.row_count)
        cells = [self._row(self.tickers[topic], now_ns) for topic in topics[:rows_max]]
        names = _columns(cells)
        for name in DROPPED_IN_ORDER:
            if _width(cells, names) > (beside or width) and name in names:
                names.remove(name)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in names:
            justify: JustifyMethod = "left" if name in ("exchange", "symbol", "flags") else "right"
            table.add_column("" if name == "flags" else name, justify=justify, no_wrap=True)
        for row in cells:
            table.add_row(*(row[name] for name in names))
        parts: list[RenderableType] = [table]
        if panel is not None and beside:
            grid = Table.grid(padding=(0, BETWEEN, 0, 0))
            grid.add_row(table, panel)
            parts = [grid]
        elif panel is not None:
            parts = [table, "", panel]
        for flag, words in UNREAL.items():
            if exchanges := sorted({t.exchange for t in self.tickers.values() if t.flags & flag}):
                parts.insert(0, Text(unreal_text(words, exchanges), style="bold"))
        if len(topics) > rows_max:
            parts.append(Text(f"… {len(topics) - rows_max} more", style="dim"))
        if pairs is not None:
            parts += ["", pairs]
        return Group(*parts, "", self._states(now_ns))

    def _panel(
        self, topics: Sequence[str], rows_max: int, width: int, now_ns: int
    ) -> tuple[Table | None, int]:
        """Return trades and depth of one symbol, and how wide tickers may be beside that: 0, they go above."""
        if self.panel.is_empty:
            return None, 0
        cells = [self._row(self.tickers[topic], now_ns) for topic in topics]
        least = _width(cells, [name for name in _columns(cells) if name not in FOR_PANEL])
        places = self._places(self.panel)
        for has_times in (True, False):
            panel = self.panel.table(places, rows_max, has_times=has_times)
            beside = width - BETWEEN - Measurement.get(PLAIN, PLAIN.options, panel).maximum
            if beside >= least:
                return panel, beside
        rows_max = max(PANEL_ROWS_MIN, min(PANEL_ROWS_BELOW, rows_max - 2 - TICKERS_MIN))
        return self.panel.table(places, rows_max, has_times=True), 0

    def _places(self, of: wire.Record | Panel) -> int | None:
        """Return how many decimals the prices of a symbol have; None where that is not known."""
        table = self._tables.get(of.exchange)
        return decimals(table.tick_of(of.symbol)) if table is not None else None

    def _row(self, ticker: wire.Ticker, now_ns: int) -> dict[str, Text]:
        """Return the cells of an instrument by column."""
        latency = self._newest_latency_us.get(ticker.topic)
        flags = " ".join(
            name for name in ticker.flag_names if name not in ("SNAPSHOT", "SIMULATED", "REPLAY")
        )
        is_bad = ticker.flags & (wire.STALE | wire.DOWN)
        places = self._places(ticker)
        return {
            "exchange": Text(ticker.exchange),
            "symbol": Text(ticker.symbol),
            "last": Text(price(ticker.last, places)),
            "bid": Text(price(ticker.bid, places)),
            "ask": Text(price(ticker.ask, places)),
            "24 h": _change(ticker),
            "age": Text(duration((now_ns - ticker.recv_ns) / NS_PER_S) if ticker.recv_ns else "-"),
            "latency": Text(f"{latency / 1000:.2f} ms" if latency is not None else "-"),
            "flags": Text(flags, style="bold red" if is_bad else "dim"),
        }

    def _states(self, now_ns: int) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False, expand=True)
        for name in ("exchange", "state", "rate"):
            table.add_column(name, no_wrap=True, justify="right" if name == "rate" else "left")
        table.add_column("doing", no_wrap=True, overflow="ellipsis", ratio=1)  # what the others leave
        for name in self.exchanges:
            table.add_row(name, *self._status_cells(name, now_ns))
        return table

    def _status_cells(self, name: str, now_ns: int) -> tuple[Text | str, ...]:
        status = self.statuses.get(name)
        if status is None:
            return (Text("unknown", style="red"),)
        state = Text(status.state, style=STATE_STYLES.get(status.state, "red"))
        return (state, f"{status.records_per_s:,.0f}/s", hints.spelled(status.text(now_ns)))

    def line(self) -> str:
        """Return one line of text for output that is no terminal."""
        parts = []
        now_ns = time.time_ns()
        for name in self.exchanges:
            status = self.statuses.get(name)
            text = (
                f"{status.text(now_ns)}, {status.records_per_s:,.0f} records/s" if status else "no status yet"
            )
            parts.append(f"{name}: {text}")
        parts += [line for line in (self.panel.line(), self.pairs.line(now_ns)) if line]
        return " | ".join(parts)

    def summary(self, subscriber: Subscriber) -> Group:
        """Return the final table: records of each exchange by kind, rate since the first, gaps and latency."""
        now = time.monotonic()
        seconds = {name: now - since for name, since in self.since_mono.items()}
        title = "no data came"
        if seconds:
            title = f"{max(seconds.values()):.0f} s since the first data; latency: receipt to publication"
        rows: dict[str, list[str]] = {}
        for name in self.exchanges:
            found = ((topic.split("."), loss) for topic, loss in subscriber.losses.items())
            of_kinds = [(words[0], loss) for words, loss in found if len(words) > 2 and words[1] == name]
            losses = [loss for _, loss in of_kinds]
            count, histogram = self.records[name], self.latencies[name]
            of_all = count + sum(self.others[name].values())
            cells = {
                "symbols": str(sum(kind == "ticker" for kind, _ in of_kinds)),
                "tickers": f"{count:,}",
                **{
                    PLURALS.get(kind, kind): f"{self.others[name].get(kind, 0):,}"
                    for kind in self._kinds_seen()
                },
                "records/s": f"{of_all / seconds[name]:,.0f}" if count else "-",
                "gaps": str(sum(loss.gaps for loss in losses)),
                "lost": str(sum(loss.lost for loss in losses)),
            }
            for word, share in (("p50", 50), ("p99", 99), ("max", 100)):
                us = histogram.get_value_at_percentile(share)
                cells[word] = f"{us / 1000:.2f} ms" if count else "-"
            for word, cell in cells.items():
                rows.setdefault(word, []).append(cell)
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("")
        for name in self.exchanges:
            table.add_column(name, justify="right", no_wrap=True)
        for word, row in rows.items():
            table.add_row(word, *row)
        return Group(Text(title), table)

    def _kinds_seen(self) -> list[str]:
        """Return the kinds besides tickers of which some came."""
        return [kind for kind in wire.TOPIC_WORDS if any(kind in counts for counts in self.others.values())]


def status_parts(
    statuses: dict[str, ExchangeStatus], processes: Sequence[ProcessStatus], now_ns: int
) -> list[str | Table]:
    """Return what `feedhandler status` shows, one below the other; of what is not known there is nothing."""
    parts: list[str | Table] = []
    feeds = {name: status.feed for name, status in statuses.items() if status.feed is not None}
    if simulated := [name for name, feed in feeds.items() if feed.simulated]:
        parts.append(unreal_text(UNREAL[wire.SIMULATED], simulated))
    if replay := [name for name, feed in feeds.items() if feed.replay]:
        parts.append(unreal_text(UNREAL[wire.REPLAY], replay))
    if statuses:
        parts.append(status_table(statuses, now_ns))
    parts += [
        f"{name}: of {PLURALS.get(kind, kind)} the exchange leaves out {text}"
        for name, feed in feeds.items()
        for kind, text in feed.left_out.items()
    ]
    if processes:
        parts += ["", process_table(processes, now_ns)] if parts else [process_table(processes, now_ns)]
    parts += [f"{each.process}: {each.trouble}" for each in processes if each.trouble]
    return parts


def unreal_text(words: str, exchanges: Iterable[str]) -> str:
    """Return the line above data that are not of a market as it is now."""
    return f"{words}: {', '.join(exchanges)}"


def process_table(processes: Sequence[ProcessStatus], now_ns: int) -> Table:
    """Return the table of the processes of a host."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("process", "state"):
        table.add_column(name, no_wrap=True)
    for name in ("pid", "up since", "for", "restarts", "CPU", "memory"):
        table.add_column(name, justify="right", no_wrap=True)
    for each in processes:
        age_s = (now_ns - each.started_ns) / NS_PER_S
        is_known = each.pid and each.started_ns
        table.add_row(
            each.process,
            Text(each.state, style="green" if each.state == "up" else "red"),
            str(each.pid) if each.pid else "-",
            moment(each.started_ns) if is_known else "-",
            duration(age_s) if is_known else "-",
            str(each.restarts),
            f"{each.cpu_s / max(age_s, 1.0):.1%}" if is_known else "-",
            f"{each.resident_bytes / 1e6:.0f} MB" if is_known else "-",
        )
    return table


def status_table(statuses: dict[str, ExchangeStatus], now_ns: int) -> Table:
    """Return the table of `feedhandler status`."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("exchange", "state", "for"):
        table.add_column(name, no_wrap=True)
    for name in ("symbols", "records/s", "newest", "p50", "p99"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("kinds", no_wrap=True)
    table.add_column("doing")
    for name, status in statuses.items():
        latencies = (status.latency_p50_us, status.latency_p99_us)
        table.add_row(
            name,
            Text(status.state, style=STATE_STYLES.get(status.state, "red")),
            duration((now_ns - status.since_ns) / NS_PER_S),
            str(status.symbols),
            f"{status.records_per_s:,.0f}",
            duration((now_ns - status.newest_recv_ns) / NS_PER_S) if status.newest_recv_ns else "-",
            *(f"{us:,.0f} us" if us is not None else "-" for us in latencies),
            _kinds(status),
            status.text(now_ns),
        )
        for row in status.shards:
            state = Text(row.state, style=STATE_STYLES.get(row.state, "red"))
            rate = f"{row.records_per_s:,.0f}"
            table.add_row(f"  {row.shard}", state, "", str(row.topics), rate, "", "", "", "", row.reason)
    return table


def _kinds(status: ExchangeStatus) -> str:
    """Return the kinds that are wanted; of how many symbols, where not of all."""
    kinds = status.kinds
    texts = (kind if count == status.symbols else f"{kind} of {count}" for kind, count in kinds.items())
    return ", ".join(texts) or "-"


def show(part: str | Table) -> None:
    """Print it: for people in a terminal, else for a file or pipe."""
    if sys.stdout.isatty():
        Console().print(part, highlight=False)
    else:
        print(part if isinstance(part, str) else plain(part))


def plain(table: RenderableType, width: int = LINE_WIDTH) -> str:
    """Return a table for a file or pipe: no colours, one line per row unless width is less."""
    text = io.StringIO()  # else rich flushes our output, and ends the process where that is closed
    Console(file=text, width=width, color_system=None).print(table, highlight=False)
    return "\n".join(line.rstrip() for line in text.getvalue().rstrip().splitlines())


def record_json(record: wire.Record) -> bytes:
    """Return a record as one line of JSON; NaN is null, documents carry their body."""
    fields: dict[str, Any] = {
        "topic": record.topic,
        "kind": wire.KIND_NAMES.get(record.kind, record.kind),
    }
    fields["flags"] = record.flag_names
    for name in ("session", "sequence", "exchange_ns", "recv_ns", "publish_ns"):
        fields[name] = getattr(record, name)
    if isinstance(record, wire.Document):
        fields["body"] = record.decode()
    elif isinstance(record, wire.Unknown):
        fields["body"] = record.body.hex()
    elif isinstance(record, wire.Depth):
        fields |= {name: getattr(record, name) for name in ("exchange_sequence", "bids", "asks")}
    elif isinstance(record, wire.BookRecord):
        names = ("first_id", "last_id", "part", "parts", "bids", "asks")
        fields |= {name: getattr(record, name) for name in names}
    else:
        fields |= {name: None if value != value else value for name, value in _values(record)}
    return msgspec.json.encode(fields)


class Gaps:
    """What is missing in a stream that is shown, topic by topic."""

    def __init__(self) -> None:
        self._newest: dict[str, tuple[int, int]] = {}  # session and sequence

    def line(self, record: wire.Record) -> str:
        """Return what is missing before a record; "" if nothing is, or it is the first of its topic or session."""
        if isinstance(record, wire.UNNUMBERED):
            return ""
        session, sequence = self._newest.get(record.topic, (0, 0))
        self._newest[record.topic] = record.session, record.sequence
        missing = record.sequence - sequence - 1
        if session != record.session or missing <= 0:
            return ""
        records = "1 record is" if missing == 1 else f"{missing} records are"
        return f"gap: {records} missing before {record.topic} #{record.sequence}"


def record_line(record: wire.Record) -> str:
    """Return a record as one line for people."""
    head = f"{clock(record.publish_ns)} {record.topic} #{record.sequence}"
    flags = f" [{' '.join(record.flag_names)}]" if record.flags else ""
    if isinstance(record, wire.Document):
        body = record.body.decode(errors="replace")
        return f"{head}{flags} {body if len(body) <= 400 else body[:400] + '…'}"
    if isinstance(record, wire.Unknown):
        return f"{head}{flags} kind {record.kind}, which this version does not know: {len(record.body)} bytes"
    if isinstance(record, wire.Trade):
        trade = f"{record.side} {number(record.size)} at {number(record.price)}, id {record.trade_id}"
        return f"{head}{flags} {trade}{_latency(record)}"
    if isinstance(record, wire.Liquidation):
        return (
            f"{head}{flags} {record.side} {number(record.size)} at {number(record.price)}{_latency(record)}"
        )
    if isinstance(record, wire.Contract):
        return f"{head}{flags} {_contract_text(record)}{_latency(record)}"
    if isinstance(record, wire.Depth):
        return f"{head}{flags} {_depth_text(record)}"
    if isinstance(record, wire.BookRecord):
        part = f", part {record.part + 1} of {record.parts}" if record.parts != 1 else ""
        ids = f"{record.first_id} to {record.last_id}"
        return f"{head}{flags} ids {ids}{part}, {record.bid_count} + {record.ask_count} levels"
    if not isinstance(record, wire.Ticker):
        return " ".join([head + flags, *(f"{name} {value}" for name, value in _values(record))])
    quote = (
        f"{number(record.bid)} x {number(record.bid_size)} / {number(record.ask)} x {number(record.ask_size)}"
    )
    return f"{head}{flags} last {number(record.last)} bid/ask {quote}{_latency(record)}"


def _contract_text(contract: wire.Contract) -> str:
    parts = [f"mark {number(contract.mark)} index {number(contract.index)}"]
    if not math.isnan(contract.funding_rate):
        due = f" due {moment(contract.next_funding_ns)}" if contract.next_funding_ns else ""
        every = "" if math.isnan(contract.funding_interval_h) else f" every {contract.funding_interval_h:g} h"
        parts.append(f"funding {contract.funding_rate:+.4%}{due}{every}")
    if not math.isnan(contract.open_interest):
        parts.append(f"open interest {number(contract.open_interest)}")
    return ", ".join(parts)


def _depth_text(depth: wire.Depth) -> str:
    best = (
        f"{number(side[0][0])} x {number(side[0][1])}" if side else "-" for side in (depth.bids, depth.asks)
    )
    return f"{depth.bid_count} + {depth.ask_count} levels, bid/ask {' / '.join(best)}"


def _latency(record: wire.Record) -> str:
    is_fresh = record.recv_ns and not record.flags & NOT_FRESH
    return f" {record.latency_ns / 1000:.0f} us" if is_fresh else ""


def _values(record: wire.Record) -> list[tuple[str, Any]]:
    """Return names and values of what follows the header; what has a name of its own is in words."""
    names = record.__struct_fields__[len(wire.Record.__struct_fields__) :]
    values = ((name, getattr(record, name)) for name in names)
    return [(name, str(value) if isinstance(value, enum.Enum) else value) for name, value in values]


def _change(ticker: wire.Ticker) -> Text:
    if math.isnan(ticker.last) or math.isnan(ticker.open_24h):
        return Text("-")
    change = ticker.last / ticker.open_24h - 1
    return Text(f"{change:+.2%}", style="green" if change >= 0 else "red")


def _width(cells: list[dict[str, Text]], names: list[str]) -> int:
    """Return how wide a table of these columns is, with a blank on each side of what is between two."""
    widths = (max([len(name), *(len(row[name].plain) for row in cells)]) for name in names)
    return sum(widths) + 2 * (len(names) - 1)


def _columns(cells: list[dict[str, Text]]) -> list[str]:
    """Return the columns of a table of tickers; that of flags is there if one has any."""
    return [name for name in COLUMNS if name != "flags" or any(row["flags"].plain for row in cells)]
