"""Captures: recordings in JSON lines, compressed or not, as other programs make them.

Each line is an object whose `t` says what it is:

    {"t":"header", …}                                     what was recorded; any fields
    {"t":"connect","conn":C,"ts":T,"addr":URL}            a WebSocket was opened
    {"t":"close","conn":C,"ts":T,"reason":TEXT}           and closed
    {"t":"send"|"recv","conn":C,"ts":T,"data":FRAME}      a frame of ours, or of the exchange
    {"t":"http","ts":T,"url":URL,"data":BODY}             the answer to a request
    {"t":"gap","conn":C,"ts":T,"count":N,"reason":TEXT}   frames that were not recorded

C is any name or number. T is Unix time in seconds, milliseconds, microseconds or nanoseconds, a number or a text.
A frame or body is its text, the JSON itself, or bytes as a base64 text. What a line lacks is unknown.
"""

import base64
import binascii
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

import msgspec

from feedhandler.data.errors import UNDECODABLE, ConfigError
from feedhandler.data.units import NS_PER_S
from feedhandler.recordings.compressed import CompressedFile, Damaged, Torn
from feedhandler.recordings.traffic import Item, What

LINE_SIZE_MAX: Final = 256 * 2**20  # a longer one is no line
SHOWN: Final = 60  # characters of a line, in messages

WORDS: Final = {
    "header": What.HEADER,
    "http": What.ANSWERED,
    "connect": What.OPENED,
    "close": What.CLOSED,
    "disconnect": What.CLOSED,
    "send": What.SENT,
    "recv": What.RECEIVED,
    "gap": What.GAP,
}
# A time is in the unit of the first limit that it is below.
UNITS: Final = ((10**11, NS_PER_S), (10**14, 10**6), (10**17, 10**3), (10**20, 1))
COUNT_MAX: Final = 2**53  # of frames that were not recorded; what is no such number is not known
UNTIMED: Final = 1  # the time of lines before the first that states one
NS_MAX: Final = 2**62  # the year 2116: later ones are none, and could not be reckoned with


class _Line(msgspec.Struct):
    t: str
    conn: Any = None
    ts: msgspec.Raw = msgspec.Raw(b"null")
    addr: Any = None
    url: Any = None
    reason: Any = None
    count: Any = None
    data: msgspec.Raw = msgspec.Raw(b"null")


class BadLine(msgspec.Struct, frozen=True):
    """A line that cannot be read, and why."""

    number: int
    reason: str


class CaptureReader:
    """The items of one capture. Raises ConfigError for a file that cannot be opened, or is no capture.

    bad are lines that cannot be read; cut says what is wrong with the end, "" if nothing is, and no line counts as
    bad for that. unknown counts lines of other kinds by what they call themselves.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = 0
        self.bad: list[BadLine] = []
        self.unknown: Counter[str] = Counter()
        self.cut = ""
        self._file: CompressedFile | None = None
        self._decode = msgspec.json.Decoder(_Line).decode
        self._ns = UNTIMED

    @property
    def progress(self) -> float:
        """How much of the file has been read, from 0 to 1."""
        return self._file.position / max(1, self._file.size) if self._file else 0.0

    @property
    def begun_ns(self) -> int:
        """When it begins: the first time that a line states; 0 if none does."""
        return next((item.wall_ns for item in self if item.wall_ns > UNTIMED), 0)

    def answers(self) -> Iterator[Item]:
        """Yield the answers to requests alone, wherever they stand, as items that will come once more."""
        for line in self._read():
            if b'"http"' in line:
                try:
                    item = self._item(line)
                except _BAD:
                    continue  # `__iter__` tells
                if item is not None and item.what is What.ANSWERED:
                    yield msgspec.structs.replace(item, is_repeated=True)

    def __iter__(self) -> Iterator[Item]:
        """Yield everything, in the order of the file."""
        self.bad, self.unknown = [], Counter()
        before = ""  # of the line before, which may be the last one
        for line in self._read():
            if before:
                self.bad.append(BadLine(self.lines - 1, before))
                before = ""
            try:
                item = self._item(line)
            except _BAD as exc:
                before = f"{exc}: {line[:SHOWN].decode(errors='replace')!r}"
                if self.lines == 1 and (not line.lstrip().startswith(b"{") or len(line) >= LINE_SIZE_MAX):
                    raise ConfigError(f"{self.path}: is no recording in JSON lines: {before}") from exc
                continue
            if item is not None:
                yield item
        if not self.lines and not self.bad:
            self.cut = self.cut or "it is empty"
        if before:
            self.cut = self.cut or f"line {self.lines}, the last one, is cut short: {before}"

    def _read(self) -> Iterator[bytes]:
        """Yield the lines that are not empty."""
        self.lines, self.cut, self._ns = 0, "", UNTIMED
        self._file = CompressedFile(self.path)
        try:
            while line := self._file.readline(LINE_SIZE_MAX):
                self.lines += 1
                if line.strip():
                    yield line
        except Torn as exc:
            self.cut = f"the file is cut short after line {self.lines}: {exc}"
        except Damaged as exc:
            self.bad.append(BadLine(self.lines + 1, f"the file is damaged before its end: {exc}"))
        finally:
            self._file.close()
            self._file = None

    def _item(self, text: bytes) -> Item | None:
        line = self._decode(text)
        what = WORDS.get(line.t)
        if what is None:
            self.unknown[line.t[:SHOWN]] += 1
            return None
        self._ns = _time_ns(line.ts) or self._ns  # one without a time is of that of the line before
        connection = "" if line.conn is None else str(line.conn)
        if what is What.HEADER:
            return Item(what, self._ns, connection=connection, data=text)
        if what is What.GAP:
            number = line.count if isinstance(line.count, int) and 0 <= line.count < COUNT_MAX else 0
            return Item(what, self._ns, 0, connection, number, str(line.reason or ""))
        if what is What.CLOSED:
            return Item(what, self._ns, 0, connection, 0, str(line.reason or ""))
        name = str(line.url or line.addr or "")
        return Item(what, self._ns, 0, connection, 0, name, _data(line.data))


_BAD = (*UNDECODABLE, ValueError)


def _data(raw: msgspec.Raw) -> bytes:
    """Return a frame, or a body. Raises ValueError if it is neither text nor JSON."""
    packed = bytes(raw)
    if not packed.startswith(b'"'):
        return b"" if packed == b"null" else packed
    text: str = msgspec.json.decode(packed)
    if text.startswith(("e", "W")):  # what base64 makes of a brace or bracket, whatever follows it
        try:
            packed = base64.b64decode(text, validate=True)
        except binascii.Error:
            packed = b""
        if packed.startswith((b"{", b"[")):
            return packed
    return text.encode("utf-8", "surrogatepass")


def _time_ns(raw: msgspec.Raw) -> int:
    """Return Unix ns, 0 for none. Raises ValueError for what is no time."""
    text = bytes(raw).decode().strip('" ')
    if text in ("null", ""):
        return 0
    try:
        stated = Decimal(text)
        if stated >= 0:
            ns = next(int(stated * unit_ns) for limit, unit_ns in UNITS if stated < limit)
            if ns < NS_MAX:
                return ns
    except (InvalidOperation, StopIteration):
        pass
    raise ValueError(f"{text[:SHOWN]!r} is no time")
