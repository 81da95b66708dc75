"""A segment: one file of what a feed has offered, in blocks that are read each by itself.

    segment = block … block footer          block = head, 64 bytes, and a zstd frame

A block holds whole items. Its head tells how many, of when, and how long it is; a CRC32 of head and frame tells
whether it is as it was written. So whoever ends a file anywhere loses the block that was being written, and nothing
else; what is damaged in the middle costs its own block. docs/recording.md has the tables, and a reader of its own.

Pure: a file is what it is given, with `write`, or `read` and `seek`.
"""

import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from itertools import chain
from typing import BinaryIO, Final, NamedTuple

import msgspec

from feedhandler.data.errors import UNDECODABLE
from feedhandler.recordings.packing import REPEATED, FrameCounts, item_head, size_at, unpack
from feedhandler.recordings.traffic import Item, What

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAGIC: Final = b"FHRB"
VERSION: Final = 1
ITEMS, FOOTER = 1, 2  # what a block holds
# magic, version, what, size of the head; sizes of the frame and of what is in it, items, number of the block;
# number of the first item, when the segment began, first and last time; 0; CRC32 of all before it and of the frame
HEAD: Final = struct.Struct("<4sBBHIIIIQqqqII")
HEAD_SIZE: Final = 64
CRC: Final = struct.Struct("<I")
CRC_OFFSET: Final = HEAD_SIZE - CRC.size
assert HEAD.size == HEAD_SIZE

BLOCK_SIZE: Final = 256 << 10  # of items: zstd gains little from more, and a reader who seeks reads that much
# Of real frames, 3 saves nothing and 6 a tenth, for a third and four times more time: decision 293.
LEVEL: Final = 1
ITEMS_SIZE_MAX: Final = 128 << 20  # of one block: larger numbers are none of ours
SEARCH_SIZE: Final = 1 << 20  # that is read at once, behind damage
FRAMES: Final = (What.SENT, What.RECEIVED)
NO_NUMBERS: Final = (0, 0)


class NotASegment(ValueError):
    """A file begins with something else."""


class Numbers(msgspec.Struct, forbid_unknown_fields=False):
    """The first and the last number of a connection's frames in a segment, in each direction; 0, 0: none."""

    received: tuple[int, int] = NO_NUMBERS
    sent: tuple[int, int] = NO_NUMBERS


class Footer(msgspec.Struct, kw_only=True):
    """What a segment holds, as it says itself at its end. Times are Unix time, sizes in bytes."""

    begun_ns: int
    reason: str = ""  # why it was closed
    blocks: int = 0
    items: int = 0
    received: int = 0  # frames
    sent: int = 0
    answered: int = 0
    gaps: int = 0
    lost: int = 0  # that gaps tell of
    first_ns: int = 0
    last_ns: int = 0
    items_size: int = 0
    stored_size: int = 0  # the footer not counted
    connections: dict[str, Numbers] = {}
    index: list[tuple[int, int, int]] = []  # of each block: offset, number of its first item, its first time


class Block(NamedTuple):
    """A sound block: where it is, and what its head tells."""

    offset: int
    what: int
    size: int  # in the file
    items: int
    number: int  # in the segment, from 0
    first_item: int  # in the segment, from 1
    begun_ns: int
    first_ns: int
    last_ns: int
    data: bytes  # items back to back, or the footer's JSON


class Damage(NamedTuple):
    """A part of a file that is no sound block: what a tear has left at the end, or what has changed since."""

    offset: int
    size: int
    why: str
    is_tail: bool  # nothing sound follows


class SegmentWriter:
    """Writes one segment, from its beginning to its footer; file: as it was opened, unbuffered.

    What `file.write` raises is passed on; the segment is then over, and `unwritten` has what is not in it. on_rare
    gets each item that is no frame, with its byte of what it is.
    """

    def __init__(
        self, file: BinaryIO, begun_ns: int, on_rare: Callable[[int, bytes], None] | None = None
    ) -> None:
        self._file = file
        self._on_rare = on_rare
        self._open = bytearray()
        self._items = 0  # in the open block
        self._first_ns = self._last_ns = 0  # of the open block
        self._compressor = zstd.ZstdCompressor(level=LEVEL)
        self._frames = FrameCounts()  # those of the open block that are not counted yet
        self.footer = Footer(begun_ns=begun_ns)
        self.footer.index = []
        self.size = 0  # in the file

    @property
    def open_size(self) -> int:
        """Bytes of items that are not in the file yet."""
        return len(self._open)

    @property
    def unwritten(self) -> bytes:
        """The items that are not in the file, back to back."""
        return bytes(self._open)

    def add(self, items: bytes | bytearray) -> None:
        """Take items that stand back to back; full blocks are written. Raises ValueError at what is none."""
        position = 0
        try:
            while position < len(items):
                end = self._frames.take(items, position, BLOCK_SIZE - len(self._open))
                if end == position:  # of another sort, or there is no room
                    size = size_at(items, position)
                    if self._open and len(self._open) + size > BLOCK_SIZE:
                        self.flush()
                    end = self._frames.take(items, position, size)
                    if end == position:
                        end += size
                        self._count(items[position:end])
                self._open += items[position:end]
                position = end
        except OSError:
            self._open += items[position:]
            raise
        finally:
            self._count_frames()

    def _count_frames(self) -> None:
        """Add the frames that came since the last call to what is counted."""
        frames, footer = self._frames, self.footer
        if count := frames.received + frames.sent:
            self._items += count
            footer.items += count
            footer.received += frames.received
            footer.sent += frames.sent
            self._note(frames.first_ns, frames.last_ns)
            frames.clear()

    def _note(self, first_ns: int, last_ns: int) -> None:
        """Something in the open block is of this time."""
        self._first_ns = min(self._first_ns, first_ns) if self._first_ns else first_ns
        self._last_ns = max(self._last_ns, last_ns)

    def _count(self, item: bytes | bytearray) -> None:
        """Count what is no frame, or was one of another time."""
        _, what, _, _, number, wall_ns, _ = item_head(item, 0)
        footer = self.footer
        self._items += 1
        footer.items += 1
        if self._on_rare is not None and what not in FRAMES:
            self._on_rare(what, bytes(item))
        if what & REPEATED:
            return  # of another time, and counted where it was new
        self._note(wall_ns, wall_ns)
        if what == What.ANSWERED:
            footer.answered += 1
        elif what == What.GAP:
            footer.gaps += 1
            footer.lost += number

    def flush(self) -> None:
        """Write the open block, if there is anything in it."""
        self._count_frames()
        if not self._items:
            return
        footer = self.footer
        first, offset, data = footer.items - self._items + 1, self.size, bytes(self._open)
        self._write(ITEMS, data, self._items, footer.blocks, first, self._first_ns, self._last_ns)
        footer.index.append((offset, first, self._first_ns))
        if self._first_ns:  # else it has what is repeated alone
            footer.first_ns = min(footer.first_ns, self._first_ns) if footer.first_ns else self._first_ns
            footer.last_ns = max(footer.last_ns, self._last_ns)
        footer.blocks += 1
        footer.items_size += len(data)
        footer.stored_size = self.size
        self.clear()

    def clear(self) -> None:
        """Forget what is open."""
        self._open, self._items = bytearray(), 0
        self._first_ns = self._last_ns = 0

    def close(self, reason: str) -> Footer:
        """Write what is open, and the footer; the file is the caller's to close."""
        self.flush()
        footer = self.footer
        footer.reason = reason
        footer.connections = {
            name.decode(errors="replace"): Numbers(
                (each.first_received, each.last_received), (each.first_sent, each.last_sent)
            )
            for name, each in self._frames.connections.items()
        }
        data = msgspec.json.encode(footer)
        self._write(FOOTER, data, 0, footer.blocks, footer.items + 1, footer.first_ns, footer.last_ns)
        return footer

    def _write(
        self, what: int, data: bytes, items: int, number: int, first: int, first_ns: int, last_ns: int
    ) -> None:
        frame = self._compressor.compress(data, zstd.ZstdCompressor.FLUSH_FRAME)
        begun_ns = self.footer.begun_ns
        sizes = (HEAD_SIZE, len(frame), len(data), items, number)
        head = HEAD.pack(MAGIC, VERSION, what, *sizes, first, begun_ns, first_ns, last_ns, 0, 0)
        head = head[:CRC_OFFSET] + CRC.pack(zlib.crc32(frame, zlib.crc32(head[:CRC_OFFSET])))
        left = memoryview(head + frame)
        while left:  # a file that is not buffered may take a part: the disk is full behind it
            written = self._file.write(left)
            self.size += written
            left = left[written:]


def blocks(file: BinaryIO, *, with_data: bool = True) -> Iterator[Block | Damage]:
    """Yield the blocks of a segment in order, its footer last, and each part that is none.

    Without data a block's frame is looked at for its CRC alone. Raises NotASegment if nothing in it is a block.
    """
    size = file.seek(0, 2)
    offset = 0
    begun_ns: int | None = None
    while offset < size:
        found, why = _block_at(file, offset, size, begun_ns, with_data)
        if found is not None:
            begun_ns = found.begun_ns
            yield found
            offset += found.size
            continue
        behind = _next_block(file, offset + 1, size, begun_ns)
        if begun_ns is None and behind == size:
            raise NotASegment(f"no block of a segment is in it: {why}")
        yield Damage(offset, behind - offset, why, behind == size)
        offset = behind


def _block_at(
    file: BinaryIO, offset: int, size: int, begun_ns: int | None, with_data: bool
) -> tuple[Block | None, str]:
    """Return the block that begins there; None, and why, if none does."""
    file.seek(offset)
    head = file.read(HEAD_SIZE)
    if len(head) < HEAD_SIZE:
        return None, "the head of a block is cut off"
    magic, version, what, head_size, stored, raw, items, number, first, begun, first_ns, last_ns, _, crc = (
        HEAD.unpack(head)
    )
    if magic != MAGIC:
        return None, "no block begins there"
    if version != VERSION or head_size != HEAD_SIZE:
        return None, f"a block of version {version}, which is unknown here"
    if begun_ns is not None and begun != begun_ns:
        return None, "a block of another segment"
    if stored > size - offset - HEAD_SIZE:
        return None, "a block is cut off"
    frame = file.read(stored)
    if zlib.crc32(frame, zlib.crc32(head[:CRC_OFFSET])) != crc:
        return None, "a block is not what was written"
    data = b""
    if with_data or what == FOOTER:
        if raw > ITEMS_SIZE_MAX:
            return None, f"a block of {raw} bytes, which is more than one may have"
        try:
            data = zstd.ZstdDecompressor().decompress(frame, raw + 1)
        except (zstd.ZstdError, MemoryError) as exc:
            return None, f"a block cannot be decompressed: {exc}"
        if len(data) != raw:
            return None, "a block has another size than its head tells"
    return Block(offset, what, HEAD_SIZE + stored, items, number, first, begun, first_ns, last_ns, data), ""


def _next_block(file: BinaryIO, offset: int, size: int, begun_ns: int | None) -> int:
    """Return where the next sound block is, or the size of the file."""
    while offset < size:
        file.seek(offset)
        part = file.read(SEARCH_SIZE)
        at = part.find(MAGIC)
        while at >= 0:
            if _block_at(file, offset + at, size, begun_ns, False)[0] is not None:
                return offset + at
            at = part.find(MAGIC, at + 1)
        if len(part) < len(MAGIC):
            break
        offset += len(part) - len(MAGIC) + 1
    return size


TORN: Final = (
    "the end is torn off"  # of a segment without a footer: whoever wrote it was killed, or could not go on
)
DAMAGED: Final = "damaged"


def items(file: BinaryIO) -> Iterator[Item]:
    """Yield the items of a segment; what is damaged, or torn off, is a GAP in its place.

    Its number is how many items are missing, 0 if that is not known. Raises NotASegment.
    """
    return chain.from_iterable(parts(file))


def parts(file: BinaryIO) -> Iterator[list[Item]]:
    """Yield the same in lists, one a block: who passes on each item alone takes as long as who makes it."""
    expected, last_ns, is_closed = 1, 0, False
    damage: Damage | None = None
    for block in blocks(file):
        if isinstance(block, Damage):
            damage = damage or block
            continue
        if block.first_item > expected or damage is not None:
            yield [_damaged(damage, max(0, block.first_item - expected), last_ns)]
        damage = None
        if block.what == FOOTER:
            is_closed = True
            continue
        found: list[Item] = []
        try:
            found.extend(unpack(block.data))
        except (ValueError, UnicodeDecodeError) as exc:  # what is before it has been added
            found.append(Item(What.GAP, last_ns, name=f"{DAMAGED}: {exc}"))
        yield found
        expected = block.first_item + block.items
        last_ns = block.last_ns or last_ns
    if not is_closed:
        yield [Item(What.GAP, last_ns, name=f"{TORN}: {damage.why}" if damage is not None else TORN)]
    elif damage is not None:
        yield [_damaged(damage, 0, last_ns)]


def _damaged(damage: Damage | None, missing: int, last_ns: int) -> Item:
    if damage is None:
        return Item(What.GAP, last_ns, number=missing, name=f"{DAMAGED}: a block is missing")
    text = f"{DAMAGED}: {damage.size} bytes at {damage.offset}: {damage.why}"
    return Item(What.GAP, last_ns, number=missing, name=text)


def footer(file: BinaryIO) -> Footer | None:
    """Return a segment's footer, None if it has none: it is being written, or was torn. Raises NotASegment.

    All blocks are looked at.
    """
    found = None
    for block in blocks(file, with_data=False):
        if isinstance(block, Block) and block.what == FOOTER:
            found = read_footer(block.data)
    return found


def read_footer(data: bytes) -> Footer | None:
    """Return what a footer's block says, None if that cannot be read."""
    try:
        return msgspec.json.decode(data, type=Footer)
    except UNDECODABLE:
        return None
