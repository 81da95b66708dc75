"""Boards as files: made by one writer, mapped by any number of readers, who take nothing from it but memory.

What is in them is `board`'s; how a record gets in and out of a slot is `cells`'.

A writer that starts makes a new file, puts it in the place of the old one, and then marks that as superseded. A
file that is mapped is therefore never changed in shape, and a reader that finds its file closed, or nobody writing,
looks whether another one has its name.
"""

import contextlib
import logging
import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, cast

from feedhandler.data import board_layout, wire
from feedhandler.data.errors import DecodeError, FeedError
from feedhandler.data.shard import WHOLE, Shard
from feedhandler.data.shard import parse as parse_shard
from feedhandler.data.topics import Topics
from feedhandler.transport import private
from feedhandler.transport.cells import BoardCells, BoardSlot, Cells, RingCells, RingSlot
from feedhandler.transport.memory import Memory, mapped

log = logging.getLogger(__name__)

# of a board for readers of the newest: a deeper one would only cost caches
DEPTH: Final = board_layout.DEPTH_MIN
GROUP_MAY_READ: Final = 0o640
GROUP_MAY_LIST: Final = 0o750
ALLOCATED_SIZE: Final = 1 << 18  # the file is given room on its disk so much at a time


class BoardWriter:
    """Makes a board and writes it; for one thread of one process. A slot is given once per topic and then kept.

    session is the Unix second at which the writer started.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        depth: int = DEPTH,
        slots_max: int = board_layout.SLOTS_MAX,
        session: int = 0,
        group: int = private.NOBODY,
        form: board_layout.Form = board_layout.BOARD,
    ) -> None:
        """Raises OSError if the file cannot be made. A group may read it, if there is one."""
        self.path = Path(path)
        now_ns = time.time_ns()
        session = session or now_ns // 1_000_000_000
        self._layout = board_layout.FixedHeader(depth, slots_max, os.getpid(), session, now_ns, form)
        self._make_slot: Callable[[Memory, int, int], BoardSlot | RingSlot] = (
            RingSlot if form.is_ring else BoardSlot
        )
        self._slots: dict[str, BoardSlot | RingSlot] = {}
        self._allocated_size = 0
        self._is_full = False
        self._fd = predecessor = -1
        private.make_folder(self.path.parent)
        temporary = self.path.with_name(f"{self.path.name}.tmp")  # one name: a kill leaves one file
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()  # a new inode in any case: the old one may be mapped
        try:
            self._fd = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, private.FILE)
            os.ftruncate(self._fd, self._layout.file_size)
            self._allocate(board_layout.HEADER_SIZE)
            self._file = mapped(mmap.mmap(self._fd, self._layout.file_size))
            self._memory = Memory(self._file)
            self._words = self._file.cast("Q")
            fixed = board_layout.pack_fixed(self._layout)
            self._file[: len(fixed)] = fixed
            self._say_alive()
            predecessor = _open_quietly(self.path, form)
            private.let_in(temporary, GROUP_MAY_READ, group)
            temporary.replace(self.path)
            self._made = private.identity(self.path)
            if group != private.NOBODY:
                private.let_in(self.path.parent, GROUP_MAY_LIST, group)
        except BaseException:
            for fd in {self._fd, predecessor} - {-1}:
                os.close(fd)
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise
        _supersede(predecessor)

    def _allocate(self, size: int) -> None:
        """Have the first so many bytes on the disk. Raises OSError if it is full.

        A page of a sparse file that finds no room when it is first written costs the writer its life (SIGBUS).
        """
        if size > self._allocated_size:
            size = min(self._layout.file_size, max(size, self._allocated_size + ALLOCATED_SIZE))
            os.posix_fallocate(self._fd, self._allocated_size, size - self._allocated_size)
            self._allocated_size = size

    @property
    def session(self) -> int:
        """The Unix second at which the writer started."""
        return self._layout.session

    def slot(self, topic: str, size_max: int = wire.TICKER_SIZE) -> BoardSlot | RingSlot | None:
        """Return where the records of a topic are written, which have at most so many bytes.

        None if they are too large, or if board or disk have no room, logged once.
        """
        if size_max > self._layout.form.record_size:
            return None
        slot = self._slots.get(topic)
        if slot is not None:
            return slot
        index = len(self._slots)
        offset = self._layout.slot_offset(index)
        if self._is_full or not self._has_room(index, offset + self._layout.slot_size):
            return None
        self._file[offset : offset + wire.TOPIC_SIZE] = wire.padded(topic)
        slot = self._slots[topic] = self._make_slot(self._memory, offset, self._layout.depth)
        self._words[board_layout.COUNT_OFFSET >> 3] = index + 1
        return slot

    def _has_room(self, index: int, size: int) -> bool:
        reason = f"it has {index} topics"
        if index < self._layout.slots_max:
            try:
                self._allocate(size)
                return True
            except OSError as exc:
                reason = exc.strerror or str(exc)
        self._is_full = True
        log.warning("%s: no more topics on this board: %s", self.path, reason)
        return False

    def beat(self) -> None:
        """Say that the records are kept current; at least every half of `board.DEAD_NS`.

        Raises FeedError if somebody has cut the file short: what is written is lost, and readers have nothing.
        """
        if self._is_cut():
            raise FeedError(f"{self.path} was cut short while it was in use; a new start makes a new one")
        self._say_alive()

    def _say_alive(self) -> None:
        self._words[board_layout.HEARTBEAT_NS_OFFSET >> 3] = time.time_ns()
        self._words[board_layout.HEARTBEAT_MONO_NS_OFFSET >> 3] = time.monotonic_ns()

    def _is_cut(self) -> bool:
        """True if the file is short, or was, so that what we write is not in it any more."""
        if os.fstat(self._fd).st_size < self._layout.file_size:
            return True
        beat = slice(
            board_layout.HEARTBEAT_MONO_NS_OFFSET, board_layout.HEARTBEAT_MONO_NS_OFFSET + board_layout.WORD
        )
        head = os.pread(self._fd, beat.stop, 0)
        return not head.startswith(self._layout.form.magic) or head[beat] != self._file[beat]

    def look(self) -> None:
        """Raises FeedError if the file is gone or another's: nobody who comes now would find these records."""
        if self._fd >= 0 and private.identity(self.path) != self._made:
            raise FeedError(f"{self.path} is gone, which readers look for; a new start makes a new one")

    def close(self) -> None:
        """Say that nobody keeps the records current any more. The file stays, for its last values."""
        if self._fd >= 0:
            if not self._is_cut():
                self._words[board_layout.CLOSED_OFFSET >> 3] = board_layout.ENDED
            os.close(self._fd)
            self._fd = -1


def open_board(
    path: Path,
    *,
    depth: int = DEPTH,
    session: int,
    group: int = private.NOBODY,
    form: board_layout.Form = board_layout.BOARD,
) -> BoardWriter | None:
    """Make a board for writing; None, and a warning, if it cannot be: nobody else needs it."""
    try:
        return BoardWriter(path, depth=depth, session=session, group=group, form=form)
    except OSError as exc:
        log.warning("%s: no board for readers of this host: %s", path, exc.strerror)
        return None


class BoardReader:
    """A board mapped for reading; for one thread. It keeps to the file that it opened: see `is_current`."""

    def __init__(self, path: str | Path, *, form: board_layout.Form = board_layout.BOARD) -> None:
        """Raises OSError if there is no such file, DecodeError if it is no board of this version."""
        self.path = Path(path)
        with self.path.open("rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            try:
                head = file.read(board_layout.HEADER_SIZE)
                layout = board_layout.unpack_fixed(head, status.st_size, form)
            except DecodeError as exc:
                raise DecodeError(f"{self.path}: {exc}") from exc
            self._file = mapped(mmap.mmap(file.fileno(), layout.file_size, prot=mmap.PROT_READ))
        self._inode = status.st_dev, status.st_ino
        self.layout = layout
        self._words = self._file.cast("Q")
        self._topics: dict[str, int] = {}
        self._in_order = Topics()
        made: Cells = (RingCells if form.is_ring else BoardCells)(self._file, layout.depth)
        # For those who cannot wait for one more call. Of a ring, what all `Cells` have.
        self.cells = cast(BoardCells, made)
        self.newest = self.cells.newest  # index → the record as it was written, None if there is none
        self.record = self.cells.record  # index, number → one of the last `depth`, None if it is not there
        self.number = self.cells.number  # index → the number of the newest record, 0 if there is none

    def __enter__(self) -> "BoardReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; the memory is given back when nothing refers to it any more."""
        self._topics = {}
        self._in_order.clear()

    @property
    def session(self) -> int:
        """The Unix second at which the writer started; with another session numbers start anew."""
        return self.layout.session

    def topics(self) -> dict[str, int]:
        """Return the index of each topic. Indices never change while a file lives; do not change it."""
        for index in range(len(self._topics), self.cells.count()):
            topic = self.cells.topic(index)
            if (name := wire.unpadded(topic)) not in self._topics:
                self._in_order.add(topic)
            self._topics[name] = index
        return self._topics

    def under(self, prefix: bytes) -> list[bytes]:
        """Return the topics that begin with a prefix, padded, in order."""
        self.topics()
        return self._in_order.under(prefix)

    @property
    def closed(self) -> int:
        """0 while a writer has the board; else `board.ENDED` or `board.SUPERSEDED`."""
        return self._words[board_layout.CLOSED_OFFSET >> 3]

    def is_alive(self) -> bool:
        """True if somebody keeps the records current: its heartbeat is young, and the board not closed."""
        return self.cells.is_alive()

    def writer_age_ns(self, now_mono_ns: int) -> int:
        """Return how long ago the writer was last known to live, by the monotonic clock of this host."""
        return now_mono_ns - self._words[board_layout.HEARTBEAT_MONO_NS_OFFSET >> 3]

    def is_current(self) -> bool:
        """True while the path leads to this file, and all of it is there: for when `is_alive` is false."""
        try:
            status = self.path.stat()
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._inode and status.st_size >= self.layout.file_size


def board_path(run_dir: str | Path, exchange: str, shard: Shard = WHOLE) -> Path:
    """Return the board of a feed: `run/board/binance.board`, or `binance-1of4.board` of a shard."""
    return Path(run_dir) / "board" / f"{exchange}{shard.suffix}.board"


def boards_in(run_dir: str | Path) -> dict[Path, tuple[str, Shard]]:
    """Return the feeds' boards that there are, and whose they are: exchange, and shard of it."""
    found = {}
    for path in sorted((Path(run_dir) / "board").glob("*.board")):
        exchange, _, text = path.stem.partition("-")
        with contextlib.suppress(ValueError):
            found[path] = exchange, parse_shard(text.replace("of", "/")) if text else WHOLE
    return found


def retire(path: Path, form: board_layout.Form = board_layout.BOARD) -> None:
    """Remove a board that has no writer any more, and mark it for its readers; what cannot be removed stays."""
    fd = _open_quietly(path, form)
    try:
        path.unlink(missing_ok=True)
    except OSError as exc:
        log.warning("%s: an old board that cannot be removed: %s", path, exc.strerror)
    _supersede(fd)


def retire_others(run_dir: str | Path, exchange: str, shard: Shard) -> None:
    """Retire the boards of an exchange's feeds of another count of shards: none of those runs any more."""
    for path, (name, other) in boards_in(run_dir).items():
        if name == exchange and other.count != shard.count:
            retire(path)


def _open_quietly(path: Path, form: board_layout.Form) -> int:
    """Open a board that is to be superseded, -1 if there is none, or it is of another version."""
    try:
        fd = private.open_file(path, os.O_RDWR)
    except OSError:
        return -1
    try:
        board_layout.unpack_fixed(os.pread(fd, board_layout.HEADER_SIZE, 0), os.fstat(fd).st_size, form)
    except (DecodeError, OSError):
        os.close(fd)
        return -1
    return fd


def _supersede(fd: int) -> None:
    """Tell a board's readers that it is one no more; not through memory, for it may be cut short by now."""
    if fd >= 0:
        with contextlib.suppress(OSError):
            os.pwrite(fd, board_layout.SUPERSEDED.to_bytes(8, "little"), board_layout.CLOSED_OFFSET)
        os.close(fd)
