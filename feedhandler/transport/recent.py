"""The last records of each topic, of any size: the merger writes them before it sends, the relay reads them.

Two files: a board has tickers and what is smaller, a ring what is larger. There is no ring where no kind needs one.
"""

from pathlib import Path
from typing import Final

from feedhandler.data import board_layout, wire
from feedhandler.data.errors import DecodeError
from feedhandler.data.kinds import BY_CODE
from feedhandler.transport import boards
from feedhandler.transport.boards import BoardReader, BoardWriter
from feedhandler.transport.cells import BoardSlot, RingSlot

BOARD_SIZE_MAX: Final = wire.TICKER_SIZE  # of records on the board


def recent_path(run_dir: str | Path) -> Path:
    """Return the merger's board, of the last few records per topic."""
    return Path(run_dir) / "recent.board"


def ring_path(board: str | Path) -> Path:
    """Return the ring beside a board of recent records."""
    return Path(board).with_suffix(".ring")


class RecentWriter:
    """Gives each topic a slot for its last `count` records; for one thread of one process."""

    def __init__(self, path: Path, count: int, *, session: int) -> None:
        """Disks may be full: then there is no slot, and nobody is in want of one."""
        # One cell more: while one is written, the others are all there.
        depth = count + 1
        ring = None
        # First the ring: who finds the board finds the ring that belongs to it.
        if any(kind.size_max > BOARD_SIZE_MAX for kind in BY_CODE.values()):
            ring = boards.open_board(ring_path(path), depth=depth, session=session, form=board_layout.RING)
        if ring is None:
            boards.retire(ring_path(path), board_layout.RING)
        self._ring = ring
        self._board = boards.open_board(path, depth=depth, session=session)
        self._writers: list[BoardWriter] = [each for each in (self._ring, self._board) if each is not None]

    def slot(self, topic: str, size_max: int = BOARD_SIZE_MAX) -> BoardSlot | RingSlot | None:
        """Return where the records of a topic are written, which have at most so many bytes; None: nowhere."""
        writer = self._board if size_max <= BOARD_SIZE_MAX else self._ring
        return writer.slot(topic, size_max) if writer is not None else None

    def beat(self) -> None:
        """Say that the records are kept current, as `BoardWriter.beat` does."""
        for writer in self._writers:
            writer.beat()

    def look(self) -> None:
        """See that readers can still come, as `BoardWriter.look` does."""
        for writer in self._writers:
            writer.look()

    def close(self) -> None:
        """Say that nobody keeps the records current any more. The files stay."""
        for writer in self._writers:
            writer.close()


class RecentReader:
    """The two files as one; for one thread. It keeps to the files that it opened: see `is_current`.

    The index of a topic is twice that of its slot, and one more in the ring.
    """

    def __init__(self, path: Path) -> None:
        """Raises OSError if there is no such file, DecodeError if one is of another version or writer."""
        self._board = BoardReader(path)
        self._readers = [self._board]
        if ring_path(path).exists():
            ring = BoardReader(ring_path(path), form=board_layout.RING)
            self._readers.append(ring)
            if ring.session != self._board.session:
                raise DecodeError(f"{ring.path} is of another merger; is one starting?")
        self._topics: dict[str, int] = {}
        self._counts = [0] * len(self._readers)

    @property
    def session(self) -> int:
        """The Unix second at which the writer started; with another session numbers start anew."""
        return self._board.session

    def topics(self) -> dict[str, int]:
        """Return the index of each topic. Indices never change while the files live; do not change it."""
        for which, reader in enumerate(self._readers):
            found = reader.topics()
            if len(found) != self._counts[which]:
                self._counts[which] = len(found)
                self._topics.update({topic: 2 * index + which for topic, index in found.items()})
        return self._topics

    def under(self, prefix: bytes) -> list[bytes]:
        """Return the topics that begin with a prefix, padded; `topics` has them all, also those that are new."""
        found = [topic for reader in self._readers for topic in reader.under(prefix)]
        self.topics()
        return found

    def number(self, index: int) -> int:
        """Return the number of the newest record, 0 if there is none."""
        return self._readers[index & 1].number(index >> 1)

    def newest(self, index: int) -> bytes | None:
        """Return the newest record, None if there is none; from the board padded to a ticker's size."""
        return self._readers[index & 1].newest(index >> 1)

    def record(self, index: int, number: int) -> bytes | None:
        """Return one of the last records, None if it is not there; as for newest."""
        return self._readers[index & 1].record(index >> 1, number)

    def is_alive(self) -> bool:
        """True if somebody keeps the records current."""
        return self._board.is_alive()

    def is_current(self) -> bool:
        """True while the paths lead to these files: for when `is_alive` is false."""
        return all(reader.is_current() for reader in self._readers)

    def close(self) -> None:
        """Let go of the files."""
        for reader in self._readers:
            reader.close()
