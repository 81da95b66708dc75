"""An item's bytes: between feed and recorder, and in the blocks of a segment.

    items = item … item, back to back        item = head, 32 bytes, connection, name, data

Pure. Compiled where there is a compiler, with the types of `packing.pxd`.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import Final, Self

from feedhandler.data import raw
from feedhandler.recordings.traffic import Item, What

# size of all of the item; what, with REPEATED; sizes of connection and name; number, wall_ns, mono_ns
ITEM: Final = struct.Struct("<IBBHQqq")
ITEM_SIZE: Final = 32
REPEATED: Final = 0x80  # in the byte of what an item is
NAME_SIZE_MAX: Final = 4096  # an URL, or a reason
CONNECTION_SIZE_MAX: Final = 255

# For what is compiled: what has a type in the .pxd is not to be had from Python.
_ITEM_SIZE, _REPEATED = ITEM_SIZE, REPEATED
_WHAT_OFFSET, _CONNECTION_SIZE_OFFSET, _NAME_SIZE_OFFSET = 4, 5, 6
_NUMBER_OFFSET, _WALL_NS_OFFSET, _MONO_NS_OFFSET = 8, 16, 24
assert ITEM.size == ITEM_SIZE == _MONO_NS_OFFSET + 8
_RECEIVED, _SENT = int(What.RECEIVED), int(What.SENT)
_WHATS: dict[int, What] = {what.value: what for what in What}  # faster than the class


def pack(item: Item) -> bytes:
    """Return an item's bytes. Raises ValueError for a connection or a name that is too long."""
    connection, name = item.connection.encode(), item.name.encode()
    if len(connection) > CONNECTION_SIZE_MAX or len(name) > NAME_SIZE_MAX:
        raise ValueError(f"{item.connection[:20]!r}, {item.name[:20]!r}: too long for an item")
    size = ITEM_SIZE + len(connection) + len(name) + len(item.data)
    what = item.what | REPEATED if item.is_repeated else item.what
    head = ITEM.pack(size, what, len(connection), len(name), item.number, item.wall_ns, item.mono_ns)
    return b"".join((head, connection, name, item.data))


def put_frame(
    target: bytearray,
    at: int,
    what: int,
    connection: bytes,
    number: int,
    wall_ns: int,
    mono_ns: int,
    payload: bytes | bytearray | memoryview,
) -> int:
    """Write the item of a frame into a buffer; returns where it ends. Raises IndexError beyond the buffer."""
    # hot: `make bench-micro`, recorder
    name_at = at + _ITEM_SIZE
    size = len(connection)
    end = name_at + size
    raw.copy(target, name_at, connection, 0, size)
    end += raw.copy_all(target, end, payload)
    raw.put_u32(target, at, end - at)
    raw.put_u8(target, at + _WHAT_OFFSET, what)
    raw.put_u8(target, at + _CONNECTION_SIZE_OFFSET, size)
    raw.put_u16(target, at + _NAME_SIZE_OFFSET, 0)
    raw.put_u64(target, at + _NUMBER_OFFSET, number)
    raw.put_i64(target, at + _WALL_NS_OFFSET, wall_ns)
    raw.put_i64(target, at + _MONO_NS_OFFSET, mono_ns)
    return end


def unpack(data: bytes) -> Iterator[Item]:
    """Yield the items that stand back to back. Raises ValueError at what is none."""
    return Unpacked(data)


class Unpacked:
    """The items that stand back to back in some bytes."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0
        self._connections: dict[bytes, str] = {}  # that were met

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        # hot: `make bench-micro`, replay
        if self._position == len(self._data):
            raise StopIteration
        return self._next()

    def _next(self) -> Item:
        data, position = self._data, self._position
        end = position + size_at(data, position)
        what = raw.get_u8(data, position + _WHAT_OFFSET)
        name_at = position + _ITEM_SIZE + raw.get_u8(data, position + _CONNECTION_SIZE_OFFSET)
        data_at = name_at + raw.get_u16(data, position + _NAME_SIZE_OFFSET)
        name = raw.cut(data, position + _ITEM_SIZE, name_at - position - _ITEM_SIZE)
        connection = self._connections.get(name)
        if connection is None:
            connection = self._connections[name] = name.decode()
        self._position = end
        return Item(
            _WHATS.get(what) or What(what & ~_REPEATED),
            raw.get_i64(data, position + _WALL_NS_OFFSET),
            raw.get_i64(data, position + _MONO_NS_OFFSET),
            connection,
            raw.get_u64(data, position + _NUMBER_OFFSET),
            raw.cut(data, name_at, data_at - name_at).decode() if data_at > name_at else "",
            raw.cut(data, data_at, end - data_at),
            what >= _REPEATED,
        )


def size_at(data: bytes | bytearray, position: int) -> int:
    """Return the size of the item that begins there. Raises ValueError if none does."""
    left = len(data) - position
    if left < _ITEM_SIZE:
        raise ValueError("an item is cut off")
    size = raw.get_u32(data, position)
    connection_size = raw.get_u8(data, position + _CONNECTION_SIZE_OFFSET)
    name_size = raw.get_u16(data, position + _NAME_SIZE_OFFSET)
    if size > left or size < _ITEM_SIZE + connection_size + name_size:
        raise ValueError("an item has sizes that cannot be")
    return size


class ConnectionFrames:
    """The first and the last number of a connection's frames, in each direction; 0: there was none."""

    def __init__(self) -> None:
        self.first_received = self.last_received = self.first_sent = self.last_sent = 0


class FrameCounts:
    """Frames, counted as they go by: since `clear`, and by connection since the beginning. Times are Unix ns."""

    def __init__(self) -> None:
        self.connections: dict[bytes, ConnectionFrames] = {}
        self.clear()

    def clear(self) -> None:
        """Count from 0, but for the numbers of connections."""
        self.received = self.sent = 0
        self.first_ns = self.last_ns = 0

    def take(self, items: bytes | bytearray, start: int, room: int) -> int:
        """Count the frames that begin there and fit into so many bytes; returns where something else stands."""
        # hot: `make bench-micro`, recorder
        at = start
        while len(items) - at >= _ITEM_SIZE:
            size = raw.get_u32(items, at)
            what = raw.get_u8(items, at + _WHAT_OFFSET)
            connection_size = raw.get_u8(items, at + _CONNECTION_SIZE_OFFSET)
            head_size = _ITEM_SIZE + connection_size + raw.get_u16(items, at + _NAME_SIZE_OFFSET)
            if size < head_size or size > len(items) - at or at + size - start > room:
                break
            if what != _RECEIVED and what != _SENT:
                break
            wall_ns = raw.get_i64(items, at + _WALL_NS_OFFSET)
            self.first_ns = min(self.first_ns, wall_ns) if self.first_ns else wall_ns
            self.last_ns = max(self.last_ns, wall_ns)
            number = raw.get_u64(items, at + _NUMBER_OFFSET)
            frames = self._of(raw.cut(items, at + _ITEM_SIZE, connection_size))
            if what == _RECEIVED:
                self.received += 1
                frames.first_received = frames.first_received or number
                frames.last_received = number
            else:
                self.sent += 1
                frames.first_sent = frames.first_sent or number
                frames.last_sent = number
            at += size
        return at

    def _of(self, connection: bytes) -> ConnectionFrames:
        frames = self.connections.get(connection)
        if frames is None:
            frames = self.connections[connection] = ConnectionFrames()
        return frames


def item_head(data: bytes | bytearray, position: int) -> tuple[int, int, int, int, int, int, int]:
    """Return what an item begins with. Raises ValueError if none begins there."""
    size_at(data, position)
    return ITEM.unpack_from(data, position)


def packed(found: Iterable[Item]) -> bytes:
    """Return items back to back."""
    return b"".join(map(pack, found))
