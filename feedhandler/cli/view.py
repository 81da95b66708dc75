"""What people see in a terminal: the live table, the status, one line per record, the summary.

It turns records into text and decides nothing.
"""

import enum
import io
import math
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any, Final

import msgspec
from hdrh.histogram import HdrHistogram
from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.table import Table
from rich.text import Text

from feedhandler.client import Subscriber
from feedhandler.data import hints, wire
from feedhandler.data.instruments import InstrumentList, InstrumentTable, decimals
from feedhandler.data.processes import ProcessStatus
from feedhandler.data.status import ExchangeStatus, Heartbeat
from feedhandler.data.units import NS_PER_S

LATENCY_MAX_US: Final = 60_000_000
LINE_WIDTH: Final = 1000
NOT_FRESH: Final = wire.SNAPSHOT | wire.NOT_LIVE
COLUMNS: Final = ("exchange", "symbol", "last", "bid", "ask", "24 h", "age", "latency", "flags")
DROPPED_IN_ORDER: Final = ("latency", "24 h", "age", "exchange")  # where a terminal is too narrow for all
STATE_STYLES: Final = {
    "live": "green",
    "stale": "yellow",
    "connecting": "yellow",
    "starting": "yellow",
    "idle": "dim",
}


class Watch:
    """What a subscriber has seen so far: newest values, counts and latencies, per exchange."""

    def __init__(self, exchanges: Iterable[str]) -> None:
        self.exchanges = list(exchanges)
        self.tickers: dict[str, wire.Ticker] = {}
        self.statuses: dict[str, ExchangeStatus] = {}
        self.heartbeat: Heartbeat | None = None
        self.records = dict.fromkeys(self.exchanges, 0)  # fresh ones
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

    def _take_document(self, document: wire.Document) -> None:
        if document.kind == wire.STATUS:
            status = msgspec.json.decode(document.body, type=ExchangeStatus)
            self.statuses[status.exchange] = status
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
        topics = sorted(self.tickers, key=lambda topic: topic.split(".")[1:])
        cells = [self._row(self.tickers[topic], now_ns) for topic in topics[:rows_max]]
        names = [name for name in COLUMNS if name != "flags" or any(row["flags"].plain for row in cells)]
        for name in DROPPED_IN_ORDER:
            if _width(cells, names) > width and name in names:
                names.remove(name)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in names:
            justify: JustifyMethod = "left" if name in ("exchange", "symbol", "flags") else "right"
            table.add_column("" if name == "flags" else name, justify=justify, no_wrap=True)
        for row in cells:
            table.add_row(*(row[name] for name in names))
        parts: list[RenderableType] = [table]
        if simulated := sorted({t.exchange for t in self.tickers.values() if t.flags & wire.SIMULATED}):
            parts.insert(0, Text(simulated_text(simulated), style="bold"))
        if len(topics) > rows_max:
            parts.append(Text(f"… {len(topics) - rows_max} more", style="dim"))
        return Group(*parts, "", self._states(now_ns))

    def _row(self, ticker: wire.Ticker, now_ns: int) -> dict[str, Text]:
        """Return the cells of an instrument by column."""
        latency = self._newest_latency_us.get(ticker.topic)
        flags = " ".join(name for name in ticker.flag_names if name not in ("SNAPSHOT", "SIMULATED"))
        is_bad = ticker.flags & (wire.STALE | wire.DOWN)
        table = self._tables.get(ticker.exchange)
        places = decimals(table.tick_of(ticker.symbol)) if table is not None else None
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
        table = Table(box=None, pad_edge=False, show_header=False)
        for name in ("exchange", "state", "rate"):
            table.add_column(name, no_wrap=True, justify="right" if name == "rate" else "left")
        table.add_column("doing", no_wrap=True, overflow="ellipsis")
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
        return " | ".join(parts)

    def summary(self, subscriber: Subscriber) -> Table:
        """Return the final table: records, rate since the first of them, gaps and latency per exchange."""
        now = time.monotonic()
        seconds = {name: now - since for name, since in self.since_mono.items()}
        table = Table(
            box=None,
            pad_edge=False,
            header_style="bold",
            title=f"{max(seconds.values()):.0f} s since the first data;"
            " latency: receipt to publication"  # as wide as the narrowest table: it is wrapped to that
            if seconds
            else "no data came",
            title_justify="left",
        )
        table.add_column("exchange")
        for name in ("symbols", "records", "records/s", "gaps", "lost", "p50", "p99", "max"):
            table.add_column(name, justify="right")
        for name in self.exchanges:
            prefix = f"ticker.{name}."
            losses = [loss for topic, loss in subscriber.losses.items() if topic.startswith(prefix)]
            count, histogram = self.records[name], self.latencies[name]
            quantiles = [histogram.get_value_at_percentile(q) for q in (50, 99, 100)]
            table.add_row(
                name,
                str(len(losses)),
                f"{count:,}",
                f"{count / seconds[name]:,.0f}" if count else "-",
                str(sum(loss.gaps for loss in losses)),
                str(sum(loss.lost for loss in losses)),
                *(f"{us / 1000:.2f} ms" if count else "-" for us in quantiles),
            )
        return table


def status_parts(
    statuses: dict[str, ExchangeStatus], processes: Sequence[ProcessStatus], now_ns: int
) -> list[str | Table]:
    """Return what `feedhandler status` shows, one below the other; of what is not known there is nothing."""
    simulated = [
        name for name, status in statuses.items() if status.feed is not None and status.feed.simulated
    ]
    parts: list[str | Table] = []
    if simulated:
        parts.append(simulated_text(simulated))
    if statuses:
        parts.append(status_table(statuses, now_ns))
    if processes:
        parts += ["", process_table(processes, now_ns)] if parts else [process_table(processes, now_ns)]
    return parts


def simulated_text(exchanges: Iterable[str]) -> str:
    """Return the line above data that are not real."""
    return f"SIMULATED data, of no real exchange: {', '.join(exchanges)}"


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
            _moment(each.started_ns) if is_known else "-",
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
            status.text(now_ns),
        )
        for row in status.shards:
            state = Text(row.state, style=STATE_STYLES.get(row.state, "red"))
            rate = f"{row.records_per_s:,.0f}"
            table.add_row(f"  {row.shard}", state, "", str(row.topics), rate, "", "", "", row.reason)
    return table


def show(part: str | Table) -> None:
    """Print it: for people in a terminal, else for a file or pipe."""
    if sys.stdout.isatty():
        Console().print(part, highlight=False)
    else:
        print(part if isinstance(part, str) else plain(part))


def plain(table: Table) -> str:
    """Return a table for a file or pipe: no colours, one line per row, however long."""
    text = io.StringIO()  # else rich flushes our output, and ends the process where that is closed
    Console(file=text, width=LINE_WIDTH, color_system=None).print(table, highlight=False)
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
    head = f"{_clock(record.publish_ns)} {record.topic} #{record.sequence}"
    flags = f" [{' '.join(record.flag_names)}]" if record.flags else ""
    if isinstance(record, wire.Document):
        body = record.body.decode(errors="replace")
        return f"{head}{flags} {body if len(body) <= 400 else body[:400] + '…'}"
    if isinstance(record, wire.Unknown):
        return f"{head}{flags} kind {record.kind}, which this version does not know: {len(record.body)} bytes"
    if isinstance(record, wire.Trade):
        trade = f"{record.side} {number(record.size)} at {number(record.price)}, id {record.trade_id}"
        return f"{head}{flags} {trade}{_latency(record)}"
    if isinstance(record, wire.Depth):
        best = (
            f"{number(side[0][0])} x {number(side[0][1])}" if side else "-"
            for side in (record.bids, record.asks)
        )
        return f"{head}{flags} {record.bid_count} + {record.ask_count} levels, bid/ask {' / '.join(best)}"
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


def _latency(record: wire.Record) -> str:
    is_fresh = record.recv_ns and not record.flags & NOT_FRESH
    return f" {record.latency_ns / 1000:.0f} us" if is_fresh else ""


def _values(record: wire.Record) -> list[tuple[str, Any]]:
    """Return names and values of what follows the header; what has a name of its own is in words."""
    names = record.__struct_fields__[len(wire.Record.__struct_fields__) :]
    values = ((name, getattr(record, name)) for name in names)
    return [(name, str(value) if isinstance(value, enum.Enum) else value) for name, value in values]


def price(value: float, places: int | None) -> str:
    """Return a price with so many decimals, its tick's; None: as many as it has. - for unknown."""
    return number(value) if places is None or math.isnan(value) else f"{value:.{places}f}"


def number(value: float) -> str:
    """Return a price or size in plain digits, - for unknown."""
    if math.isnan(value):
        return "-"
    text = f"{value:.8f}" if abs(value) < 1 else f"{value:.10g}"
    if "e" in text:
        text = f"{value:.0f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def duration(seconds: float) -> str:
    """Return a time span with a unit that suits it."""
    if seconds < 120:
        return f"{max(0.0, seconds):.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _change(ticker: wire.Ticker) -> Text:
    if math.isnan(ticker.last) or math.isnan(ticker.open_24h):
        return Text("-")
    change = ticker.last / ticker.open_24h - 1
    return Text(f"{change:+.2%}", style="green" if change >= 0 else "red")


def _width(cells: list[dict[str, Text]], names: list[str]) -> int:
    """Return how wide a table of these columns is, with a blank on each side of what is between two."""
    widths = (max([len(name), *(len(row[name].plain) for row in cells)]) for name in names)
    return sum(widths) + 2 * (len(names) - 1)


def _moment(ns: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(ns // NS_PER_S))


def _clock(ns: int) -> str:
    seconds, rest = divmod(ns, NS_PER_S)
    return f"{time.strftime('%H:%M:%S', time.gmtime(seconds))}.{rest // 1000:06d}"
