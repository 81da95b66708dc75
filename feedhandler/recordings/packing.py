"""An item's bytes: between feed and recorder, and in the blocks of a segment.

    items = item … item, back to back        item = head, 32 bytes, connection, name, data

Pure.
"""

import struct
from collections.abc import Iterable, Iterator
from typing import Final

from feedhandler.recordings.traffic import Item, What

# size of all of the item; what, with REPEATED; sizes of connection and name; number, wall_ns, mono_ns
ITEM: Final = struct.Struct("<IBBHQqq")
ITEM_SIZE: Final = 32
assert ITEM.size == ITEM_SIZE
_WHATS: Final[dict[int, What]] = {what.value: what for what in What}  # faster than the class
REPEATED: Final = 0x80  # in the byte of what an item is
NAME_SIZE_MAX: Final = 4096  # an URL, or a reason
CONNECTION_SIZE_MAX: Final = 255


def pack(item: Item) -> bytes:
    """Return an item's bytes. Raises ValueError for a connection or a name that is too long."""
    connection, name = item.connection.encode(), item.name.encode()
    if len(connection) > CONNECTION_SIZE_MAX or len(name) > NAME_SIZE_MAX:
        raise ValueError(f"{item.connection[:20]!r}, {item.name[:20]!r}: too long for an item")
    size = ITEM_SIZE + len(connection) + len(name) + len(item.data)
    what = item.what | REPEATED if item.is_repeated else item.what
    head = ITEM.pack(size, what, len(connection), len(name), item.number, item.wall_ns, item.mono_ns)
    return b"".join((head, connection, name, item.data))


def unpack(data: bytes) -> Iterator[Item]:
    """Yield the items that stand back to back. Raises ValueError at what is none."""
    # hot: `make bench-micro`, replay
    position = 0
    while position < len(data):
        size, what, connection_size, name_size, number, wall_ns, mono_ns = item_head(data, position)
        start = position + ITEM_SIZE
        name_start = start + connection_size
        data_start = name_start + name_size
        position += size
        yield Item(
            _WHATS.get(what) or What(what & ~REPEATED),
            wall_ns,
            mono_ns,
            data[start:name_start].decode(),
            number,
            data[name_start:data_start].decode() if name_size else "",
            data[data_start:position],
            what >= REPEATED,
        )


def item_head(data: bytes | bytearray, position: int) -> tuple[int, int, int, int, int, int, int]:
    if position + ITEM_SIZE > len(data):
        raise ValueError("an item is cut off")
    head = ITEM.unpack_from(data, position)
    if not ITEM_SIZE + head[2] + head[3] <= head[0] <= len(data) - position:
        raise ValueError("an item has sizes that cannot be")
    return head


def packed(found: Iterable[Item]) -> bytes:
    """Return items back to back."""
    return b"".join(map(pack, found))
