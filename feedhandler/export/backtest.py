"""Files that hftbacktest loads: an array of events in npz, one file an exchange, symbol and day.

Trades, and changes and snapshots of the whole book. Events are in the order of our receipt, and in that of the
exchange: one that the exchange states to be older than others before it stands twice, once for each order. Where it
states no time, or one later than our receipt, that is the time of receipt. The dtype and flags are those of
hftbacktest 2.4 (`hftbacktest/types.py`).
"""

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

from feedhandler.data import wire
from feedhandler.data.book import BookRecord, without_edges
from feedhandler.data.trade import Side
from feedhandler.data.units import NS_PER_DAY
from feedhandler.export.days import DayFiles, date_of
from feedhandler.export.jobs import Job, Made
from feedhandler.replay import RecordingGap

try:
    import numpy as np
except ImportError as exc:
    raise ImportError("hftbacktest's format needs NumPy: pip install 'feedhandler[numpy]'") from exc

Events: TypeAlias = "np.ndarray[Any, np.dtype[np.void]]"
Places: TypeAlias = "np.ndarray[Any, np.dtype[np.int64]]"
Numbers: TypeAlias = "np.ndarray[Any, np.dtype[np.uint64]]"

DEPTH, TRADE, CLEAR, SNAPSHOT = 1, 2, 3, 4
AT_EXCHANGE, HERE, BUY, SELL = 1 << 31, 1 << 30, 1 << 29, 1 << 28
SIDES: Final = {Side.BUY: BUY, Side.SELL: SELL}
# ev, exch_ts, local_ts, px, qty, order_id, ival, fval
EVENT: Final = struct.Struct("<QqqddQqd")
DTYPE: Final = np.dtype(
    [
        ("ev", "<u8"),
        ("exch_ts", "<i8"),
        ("local_ts", "<i8"),
        ("px", "<f8"),
        ("qty", "<f8"),
        ("order_id", "<u8"),
        ("ival", "<i8"),
        ("fval", "<f8"),
    ]
)
assert DTYPE.itemsize == EVENT.size
CHUNK: Final = 1 << 18  # events that are compressed at once
DATED: Final = (1980, 1, 1, 0, 0, 0)  # of what is in the zip: the same input gives the same bytes


class _EventsKey(NamedTuple):
    exchange: str
    symbol: str
    day: int


class BacktestWriter:
    """Writes what comes of one run."""

    def __init__(self, job: Job, folder: Path) -> None:
        self._job = job
        self._folder = folder
        self._files: DayFiles[_EventsKey] = DayFiles(folder, self._raw_path)
        self._newest_ns: dict[str, int] = {}  # of each symbol's events: a clock may be set back

    def _path(self, key: _EventsKey) -> str:
        symbol = key.symbol.replace("/", "-").replace(":", "-")
        return f"{key.exchange}/{symbol}/{date_of(key.day)}.{self._job.name}.npz"

    def _raw_path(self, key: _EventsKey) -> str:
        return self._path(key) + ".events"

    def take(self, record: bytes, recv_ns: int) -> None:
        """Take a record."""
        found = wire.unpack(record)
        if isinstance(found, wire.Trade):
            events = [(TRADE | SIDES.get(found.side, 0), found.price, found.size)]
        elif isinstance(found, BookRecord) and not found.flags & wire.INVALID:
            events = _book_events(found)
        else:
            return
        name = found.topic.split(".", 1)[1]
        local_ns = self._newest_ns[name] = max(recv_ns, self._newest_ns.get(name, 0))
        exchange_ns = min(found.exchange_ns or local_ns, local_ns)
        pack = EVENT.pack
        packed = [pack(ev, exchange_ns, local_ns, price, size, 0, 0, 0.0) for ev, price, size in events]
        key = _EventsKey(found.exchange, found.symbol, local_ns // NS_PER_DAY)
        if packed:
            self._files.add(key, b"".join(packed), len(packed))

    def take_gap(self, gap: RecordingGap) -> None:
        """These files have no place for it; the manifest counts it."""

    def finish(self) -> list[Made]:
        """Complete all files."""
        self._files.finish()
        made = []
        for key in self._files.rows:
            raw = self._files.file(key)
            rows = _write_npz(self._folder / self._path(key), np.memmap(raw, DTYPE, "r"))
            raw.unlink()
            made.append(Made(self._path(key), rows))
        return made

    def abandon(self) -> None:
        """Write no more."""


def _book_events(record: BookRecord) -> list[tuple[int, float, float]]:
    sides = list(zip((BUY, SELL), without_edges(record), strict=True))
    if not record.flags & wire.SNAPSHOT:
        return [(DEPTH | side, price, size) for side, levels in sides for price, size in levels]
    events = []
    if not record.part:
        events += [(CLEAR, 0.0, 0.0)]
    return events + [(SNAPSHOT | side, *level) for side, levels in sides for level in levels]


def _write_npz(path: Path, events: Events) -> int:
    """Write events, in both orders; returns how many there are then."""
    exchange_ns = events["exch_ts"]
    newest_ns = np.maximum.accumulate(exchange_ns)
    late = np.flatnonzero(exchange_ns < newest_ns)
    order: Places = np.arange(len(events))
    flags: Numbers = np.full(len(events), AT_EXCHANGE | HERE, np.uint64)
    if len(late):
        flags[late] = HERE
        late = late[np.argsort(exchange_ns[late], kind="stable")]
        places = np.searchsorted(newest_ns, exchange_ns[late], "right")
        order = np.insert(order, places, late)
        flags = np.insert(flags, places, np.uint64(AT_EXCHANGE))
    header = {"descr": DTYPE.descr, "fortran_order": False, "shape": (len(order),)}
    with zipfile.ZipFile(path, "w") as archive:
        entry = zipfile.ZipInfo("data.npy", DATED)
        entry.compress_type = zipfile.ZIP_DEFLATED
        with archive.open(entry, "w", force_zip64=True) as file:
            write_header: Callable[..., None] = np.lib.format.write_array_header_1_0
            write_header(file, header)
            for first in range(0, len(order), CHUNK):
                part = np.array(events[order[first : first + CHUNK]])
                part["ev"] |= flags[first : first + CHUNK]
                file.write(part.tobytes())
    return len(order)
