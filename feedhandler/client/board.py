"""The board: any ticker of this host's feeds, read from memory, without a system call and without a wake-up.

with Board("run") as board:
    ticker = board["ticker.binance.BTC/USDT"]
    ticker = board.wait("ticker.binance.BTC/USDT", ticker.sequence, timeout_s=1.0)

There is no queue: what is read is the newest, and nothing is lost by not reading. It is a process and two wake-ups
earlier than a subscription, and has the same. The files are described in `docs/board.md`.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple

from feedhandler.data import ticker as ticker_kind
from feedhandler.data import wire
from feedhandler.data.errors import DecodeError
from feedhandler.data.layout import numpy_dtype_fields
from feedhandler.transport.boards import BoardReader, boards_in

log = logging.getLogger("feedhandler.client")

REMEDY: Final = "is a feed running, with this run_dir and `board = true` in its configuration?"
LOOK_EVERY_S: Final = (
    0.1  # for boards that have come, or taken the place of others, while something is missing
)
SPIN_S: Final = 0.001
SLEEP_S: Final = 0.0005
SPIN_S_MAX: Final = 0.001  # without a look at signals, and at the writer


class _Place(NamedTuple):
    """Where a topic is read."""

    ticker: Callable[[int], wire.Ticker | None]
    slot: int
    reader: BoardReader


class Board:
    """All boards of the feeds in a run directory, as one. For one thread.

    Feeds may start, restart and end at any time; so may the reader. A topic is there once its feed has a record of
    it. DOWN is set in the flags of what is read if its feed was silent for a second, or has ended.
    """

    def __init__(self, run_dir: str | Path = "run") -> None:
        self._run_dir = run_dir
        self._readers: dict[Path, tuple[str, BoardReader]] = {}  # with the exchange
        self._places: dict[str, _Place] = {}
        self._looked_mono_s = -math.inf
        self._look()
        if not self._readers:
            log.warning("there is no board in %s/board yet: %s", Path(run_dir).absolute(), REMEDY)

    def __enter__(self) -> "Board":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the files."""
        self._readers, self._places = {}, {}
        self._looked_mono_s = math.inf

    def __getitem__(self, topic: str) -> wire.Ticker:
        """Return the newest record of a topic, `ticker.EXCHANGE.SYMBOL`. Raises KeyError if there is none yet."""
        ticker = self.read(topic)
        if ticker is None:
            remedy = "" if self._readers else f": {REMEDY}"
            raise KeyError(f"no board in {self._run_dir}/board/ has a record of {topic!r}{remedy}")
        return ticker

    def __contains__(self, topic: str) -> bool:
        return self.read(topic) is not None

    def read(self, topic: str) -> wire.Ticker | None:
        """Return the newest record of a topic, None if there is none yet."""
        # hot: `make bench-micro`, board
        place = self._places.get(topic)
        if place is not None:
            ticker = place.ticker(place.slot)
            if ticker is not None and not ticker.flags & wire.DOWN:
                return ticker
        place = self._find(topic)
        return None if place is None else place.ticker(place.slot)

    def wait(
        self,
        topic: str,
        after_sequence: int = 0,
        timeout_s: float | None = None,
        *,
        spin_s: float = SPIN_S,
        sleep_s: float = SLEEP_S,
    ) -> wire.Ticker | None:
        """Return the newest record of a topic once its sequence is another than that; None after timeout_s.

        It looks for spin_s without a pause, which takes a processor, and then every sleep_s, which takes little.
        With spin_s = math.inf it never sleeps. timeout_s None: for ever. A feed that has ended writes no more, and
        its end is no record: see the flags of `read`, and `age_s`.
        """
        now = time.monotonic()
        deadline = math.inf if timeout_s is None else now + timeout_s
        awake_until = now + spin_s
        while True:
            # The number first: what is written after this was read ends the wait.
            place = self._places.get(topic) or self._find(topic)
            number = place.reader.number(place.slot) if place else 0
            ticker = self.read(topic)
            if ticker is not None and ticker.sequence != after_sequence:
                return ticker
            now = time.monotonic()
            if now >= deadline:
                return None
            if place is not None and now < awake_until:
                left_s = min(awake_until, deadline) - now
                place.reader.cells.wait(place.slot, number, int(min(left_s, SPIN_S_MAX) * 1e9))
            else:
                time.sleep(min(sleep_s, deadline - now))

    def topics(self) -> list[str]:
        """Return all topics that the boards have a place for, in alphabetical order."""
        self._look_again()
        return sorted({topic for _, reader in self._of() for topic in reader.topics()})

    def exchange(self, name: str) -> Any:
        """Return the newest records of one exchange as a structured NumPy array; needs NumPy.

        It is a copy, with the field names of `wire.Ticker`; each record in it is whole, though not all are of the
        same moment. Symbols without a record are left out; their order may change when a feed starts anew.
        """
        return self._array(reader for exchange, reader in self._of() if exchange == name)

    def all(self) -> Any:
        """Return the newest records of all exchanges, as `exchange` does."""
        return self._array(reader for _, reader in self._of())

    def age_s(self, exchange: str) -> float:
        """Return how long ago the feed of an exchange was last known to live; of several shards the longest.

        A feed that lives writes a heartbeat every 200 ms. Infinite if there is no board of it.
        """
        self._look_again()
        now = time.monotonic_ns()
        ages = [reader.writer_age_ns(now) / 1e9 for name, reader in self._of() if name == exchange]
        return max(0.0, *ages) if ages else math.inf

    def _array(self, readers: Iterator[BoardReader]) -> Any:
        try:
            import numpy as np
        except ImportError as exc:
            raise ImportError("arrays need NumPy: pip install numpy; `read` does not") from exc
        self._look_again()
        records = bytearray().join(reader.cells.copy() for reader in readers)
        fields: Any = numpy_dtype_fields(ticker_kind.TICKER.layout)
        return np.frombuffer(records, dtype=np.dtype(fields))

    def _of(self) -> list[tuple[str, BoardReader]]:
        return list(self._readers.values())

    def _find(self, topic: str) -> _Place | None:
        """Look for a topic, and whether its feed has another board by now."""
        self._look_again()
        place = self._places.get(topic)
        if place is not None:
            return place
        exchange = topic.split(".", 2)[1] if topic.count(".") >= 2 else ""
        found = [
            _Place(reader.cells.ticker, index, reader)
            for name, reader in self._of()
            if name == exchange and (index := reader.topics().get(topic)) is not None
        ]
        if not found:
            return None
        self._places[topic] = place = max(found, key=lambda each: each.reader.is_alive())
        return place

    def _look_again(self) -> None:
        """Look at the directory, a few times a second at most."""
        if time.monotonic() - self._looked_mono_s >= LOOK_EVERY_S:
            self._look()

    def _look(self) -> None:
        self._looked_mono_s = time.monotonic()
        there = boards_in(self._run_dir)
        readers = {
            path: known
            for path, known in self._readers.items()
            if path in there and (known[1].is_alive() or known[1].is_current())
        }
        for path, (exchange, _) in there.items():
            if path not in readers:
                try:
                    readers[path] = exchange, BoardReader(path)
                except (OSError, DecodeError):
                    continue  # it has gone meanwhile, or is of another version
        if list(readers.values()) != list(self._readers.values()):
            self._places.clear()
        self._readers = readers
