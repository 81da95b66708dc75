"""Records of several feeds in one order: of each feed in blocks, of all together in lists.

    blocks of a feed ──┐
    blocks of a feed ──┼──▶ Merged ──▶ lists of records, or of their bytes
    blocks of a feed ──┘

A block is records back to back, so that a process hands it to another as it is. Compiled where there is a compiler,
with the types of `merged.pxd`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

from feedhandler.data import raw, unpacked, wire

# Records back to back; where each ends, u32; the place of each in the order of all, i64, which never falls.
RecordBlock = tuple[bytes, bytes, bytes]

# For what is compiled: what has a type in the .pxd is not to be had from Python.
_END_SIZE, _PLACE_SIZE = 4, 8
_TOPIC_SIZE = wire.TOPIC_SIZE
_KIND_OFFSET, _RECV_NS_OFFSET = wire.KIND_OFFSET, wire.RECV_NS_OFFSET
_Ticker, _Trade, _Depth, _BookRecord = wire.Ticker, wire.Trade, wire.Depth, wire.BookRecord
_TICKER, _TRADE, _DEPTH, _BOOK = int(wire.TICKER), int(wire.TRADE), int(wire.DEPTH), int(wire.BOOK)
_TICKER_KIND, _TRADE_KIND, _DEPTH_KIND, _BOOK_KIND = wire.TICKER, wire.TRADE, wire.DEPTH, wire.BOOK
_FLAGS_OF, _TOPIC_OF = wire.FLAGS_OF, wire.TOPIC_OF
_SIDES = {side.value: side for side in wire.Side}


def block_of(
    found: list[Any], newest_ns: int, is_wanted: Callable[[bytes], bool] | None = None
) -> tuple[RecordBlock | None, int]:
    """Return the records that are wanted as a block, None if none is, and the place of the last one of all.

    What is no bytes is none of them. A place is the time of receipt, or the latest before it: what clocks that were
    set back say is none.
    """
    # hot: `make bench-micro`, replay
    records: list[bytes] = []
    ends, places = bytearray(_END_SIZE * len(found)), bytearray(_PLACE_SIZE * len(found))
    count = end = 0
    for each in found:
        if not isinstance(each, bytes):
            continue
        newest_ns = max(newest_ns, raw.get_i64(each, _RECV_NS_OFFSET))
        if is_wanted is not None and not is_wanted(each):
            continue
        records.append(each)
        end += len(each)
        raw.put_u32(ends, _END_SIZE * count, end)
        raw.put_i64(places, _PLACE_SIZE * count, newest_ns)
        count += 1
    if not count:
        return None, newest_ns
    block = (
        b"".join(records),
        raw.cut(ends, 0, _END_SIZE * count),
        raw.cut(places, 0, _PLACE_SIZE * count),
    )
    return block, newest_ns


def record_at(data: bytes, start: int, size: int) -> wire.Record:
    """Return the record that stands there, which a merger has made; `wire.unpack` takes four times as long."""
    # hot: `make bench-micro`, replay
    code = raw.get_u8(data, start + _KIND_OFFSET)
    topic = _TOPIC_OF[raw.cut(data, start, _TOPIC_SIZE)]
    if code == _TICKER:
        return unpacked.ticker(_Ticker, topic, _TICKER_KIND, _FLAGS_OF, data, start)
    if code == _TRADE:
        return unpacked.trade(_Trade, topic, _TRADE_KIND, _FLAGS_OF, _SIDES, data, start)
    if code == _DEPTH:
        return unpacked.depth(_Depth, topic, _DEPTH_KIND, _FLAGS_OF, data, start)
    if code == _BOOK:
        return unpacked.book(_BookRecord, topic, _BOOK_KIND, _FLAGS_OF, data, start, size)
    return wire.unpack(raw.cut(data, start, size))


class PlacedBlocks:
    """The blocks of one feed; place_ns is that of the record which is next."""

    def __init__(self, blocks: Iterator[RecordBlock]) -> None:
        self._blocks = blocks
        self._data = self._ends = self._places = b""
        self._count = self._index = self._start = 0  # records of the block; the next one, and where it begins
        self.place_ns = 0

    def is_there(self) -> bool:
        """Whether there is a next record; where a block is used up, another one is asked for."""
        if self._index < self._count:
            return True
        block = next(self._blocks, None)
        if block is None:
            return False
        self._data, self._ends, self._places = block
        self._count, self._index, self._start = len(self._ends) // _END_SIZE, 0, 0
        self.place_ns = raw.get_i64(self._places, 0)
        return True

    def take(self, is_unpacked: bool) -> Any:
        """Return the next record, which has to be there."""
        start, end = self._start, raw.get_u32(self._ends, _END_SIZE * self._index)
        self._start = end
        self._index += 1
        if self._index < self._count:
            self.place_ns = raw.get_i64(self._places, _PLACE_SIZE * self._index)
        if is_unpacked:
            return record_at(self._data, start, end - start)
        return raw.cut(self._data, start, end - start)

    def is_used_up(self) -> bool:
        """Whether the next record is another block's."""
        return self._index == self._count


class Merged:
    """The records of all feeds in the order of their places; of one place, in that of the feeds."""

    def __init__(self, feeds: Sequence[Iterator[RecordBlock]], is_unpacked: bool) -> None:
        self._present = [PlacedBlocks(each) for each in feeds]
        self._is_unpacked = is_unpacked

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> list[Any]:
        # hot: `make bench-micro`, replay
        self._fetch()
        if not self._present:
            raise StopIteration
        return self._taken()

    def _fetch(self) -> None:
        """Have the next record of each feed that has one."""
        present = []
        for each in self._present:
            if each.is_there():
                present.append(each)
        self._present = present

    def _taken(self) -> list[Any]:
        """Return what comes before a block that is not there yet."""
        present, is_unpacked = self._present, self._is_unpacked
        found: list[Any] = []
        while True:
            first = present[0]
            for other in present:
                if other.place_ns < first.place_ns:
                    first = other
            found.append(first.take(is_unpacked))
            if first.is_used_up():
                return found
