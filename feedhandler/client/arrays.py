"""Records as structured NumPy arrays, and as pandas and polars frames: for those who take many at once.

with ArraySubscriber("ipc://run/batches.ipc") as subscriber:
    for array in subscriber.batches(every_s=0.1):
        print((array["bid"] + array["ask"]).mean() / 2)

No object is made of a record; the sequences are followed all the same. An array owns its memory: it stays as it is
for as long as somebody has it, whatever comes afterwards.
"""

import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias, cast

from feedhandler.client.stream import (
    DEFAULT_ENDPOINT,
    PENDING_MAX,
    RECONNECT_S,
    Curve,
    Link,
    Subscription,
    check_count,
)
from feedhandler.data import ticker, wire
from feedhandler.data.errors import DecodeError
from feedhandler.data.layout import numpy_dtype_fields
from feedhandler.transport.follower import Gatherer
from feedhandler.transport.loop import Loop

try:
    import numpy as np
except ImportError as exc:
    raise ImportError("records as arrays need NumPy: pip install 'feedhandler[numpy]'") from exc

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

Array: TypeAlias = "np.ndarray[Any, np.dtype[np.void]]"
Booleans: TypeAlias = "np.ndarray[Any, np.dtype[np.bool_]]"

# every field of header and body, by name
DTYPE: Final[np.dtype[np.void]] = np.dtype(cast(Any, numpy_dtype_fields(ticker.TICKER.layout)))
EVERY_S: Final = 0.1
TIMES: Final = ("exchange_ns", "recv_ns", "publish_ns")
FLAGS: Final = {"is_snapshot": wire.SNAPSHOT, "is_stale": wire.STALE, "is_down": wire.DOWN}
FLAGS_RARE: Final = {"is_simulated": wire.SIMULATED, "has_bad_exchange_time": wire.BAD_EXCHANGE_TIME}
NUMBERS: Final = ("session", "sequence", "exchange_sequence", *wire.TICKER_VALUES)


class ArraySubscriber(Subscription):
    """Receives the ticker records of the topics that start with one of the prefixes, many at once. For one thread.

    From any endpoint: at `ipc://run/batches.ipc` the records come several in a message, which costs least of all.
    Records that were seen before are left out, gaps are counted in `losses`; missing records are not requested.
    It reads when more is wanted, so a consumer that is slow leaves the rest to the publisher's queue, where
    the mode decides.
    """

    def __init__(
        self,
        endpoint: str = DEFAULT_ENDPOINT,
        topics: Iterable[str] = ("ticker.",),
        *,
        mode: str | int = "",
        curve: Curve | None = None,
    ) -> None:
        """Raises ValueError, TypeError and ConfigError as `Subscriber` does; mode and curve are as there."""
        self._loop = Loop()
        super().__init__(Link(self._loop, endpoint, topics, Gatherer, mode=mode, curve=curve))
        assert isinstance(self._link.follower, Gatherer)
        self._gatherer = self._link.follower
        self._rest: Array = np.empty(0, DTYPE)  # came with the last batch, and was more than that was to have

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the socket; what is queued is dropped."""
        if not self._link.is_closed:
            super().close()
            self._loop.close()

    def receive(
        self, max_count: int = PENDING_MAX, timeout_s: float | None = None, *, every_s: float = 0.0
    ) -> Array:
        """Return what has come, at most max_count records; waits for the first one, none after timeout_s.

        After the first it goes on for every_s, or until there are max_count. In order of arrival; all fields of
        `wire.Ticker` by name, topic as bytes. Raises ValueError if max_count is not positive.
        """
        check_count(max_count)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not self._count and not self._wait(deadline):
            pass
        if every_s and self._count:
            deadline = time.monotonic() + every_s
            while self._count < max_count and not self._wait(deadline):
                pass
        return self._take(max_count)

    def batches(self, max_count: int = PENDING_MAX, *, every_s: float = EVERY_S) -> Iterator[Array]:
        """Yield arrays for ever: what came within every_s after the first record, at most max_count records."""
        while True:
            yield self.receive(max_count, every_s=every_s)

    @property
    def _count(self) -> int:
        return len(self._rest) + self._gatherer.count

    def _take(self, max_count: int) -> Array:
        array: Array = self._rest
        if self._gatherer.count and len(array) < max_count:
            came = np.frombuffer(self._gatherer.collect(), DTYPE)
            array = np.concatenate((array, came)) if len(array) else came
        self._rest = array[max_count:]
        return array[:max_count]

    def _wait(self, deadline: float | None) -> bool:
        """Take what comes within a while; True if it is too late for more."""
        self._link.poll()
        left_s = RECONNECT_S if deadline is None else deadline - time.monotonic()
        self._loop.run_once(min(RECONNECT_S, max(0.0, left_s)))
        return deadline is not None and time.monotonic() >= deadline


def view(message: bytes | bytearray | memoryview) -> Array:
    """Return the ticker records of a message, or of several one after the other, as an array on the same bytes.

    Nothing is copied: what happens to the bytes happens to the array. Raises DecodeError for anything else.
    """
    size = len(memoryview(message).cast("B"))
    if size % wire.TICKER_SIZE:
        raise DecodeError(f"{size} bytes are no whole number of records, which have {wire.TICKER_SIZE}")
    array = np.frombuffer(message, DTYPE)
    if (array["version"] != wire.VERSION).any() or (array["kind"] != wire.TICKER).any():
        raise DecodeError(f"these are not all ticker records of wire version {wire.VERSION}")
    last = np.frombuffer(message, np.uint8).reshape(-1, wire.TICKER_SIZE)[:, wire.TOPIC_BYTES_MAX]
    if last.any():
        raise DecodeError(wire.NO_NUL)
    return array


def is_live(array: Array) -> "Booleans":
    """Return for each record whether it is neither STALE, DOWN nor INVALID."""
    live: Booleans = array["flags"] & wire.NOT_LIVE == 0
    return live


def to_pandas(array: Array) -> "pd.DataFrame":
    """Return a frame: exchange and symbol as categories, flags as booleans, times in UTC with nanoseconds.

    exchange_time is NaT where the exchange states none. Everything is copied.
    """
    try:
        import pandas as pd
    except ImportError as exc:
        raise ImportError("a pandas frame needs pandas: pip install 'feedhandler[pandas]'") from exc
    exchanges, symbols = _words(array)
    columns: dict[str, Any] = {
        "exchange": pd.Categorical.from_codes(exchanges[1], exchanges[0]),
        "symbol": pd.Categorical.from_codes(symbols[1], symbols[0]),
    }
    for name in TIMES:
        times = pd.DatetimeIndex(_times(array, name)).tz_localize("UTC")
        columns[_time_name(name)] = times
    columns.update(_flags(array))
    columns.update({name: np.ascontiguousarray(array[name]) for name in NUMBERS})
    return pd.DataFrame(columns)


def to_polars(array: Array) -> "pl.DataFrame":
    """Return a frame: exchange and symbol as categories, flags as booleans, times in UTC with nanoseconds.

    exchange_time is null where the exchange states none. Everything is copied.
    """
    try:
        import polars as pl
    except ImportError as exc:
        raise ImportError("a polars frame needs polars: pip install 'feedhandler[polars]'") from exc
    columns: dict[str, Any] = {}
    for name, (words, codes) in zip(("exchange", "symbol"), _words(array), strict=True):
        columns[name] = pl.Series(words, dtype=pl.String).gather(codes).cast(pl.Categorical)
    for name in TIMES:
        columns[_time_name(name)] = pl.Series(_times(array, name)).dt.replace_time_zone("UTC")
    columns.update(_flags(array))
    columns.update({name: np.ascontiguousarray(array[name]) for name in NUMBERS})
    return pl.DataFrame(columns)


def _time_name(name: str) -> str:
    return name.removesuffix("_ns") + "_time"


def _times(array: Array, name: str) -> "np.ndarray[Any, np.dtype[np.datetime64]]":
    times = array[name].astype("datetime64[ns]")
    times[array[name] == 0] = np.datetime64("NaT", "ns")
    return times


def _flags(array: Array) -> dict[str, Any]:
    return {name: array["flags"] & bit != 0 for name, bit in {**FLAGS, **FLAGS_RARE}.items()}


def _words(array: Array) -> "tuple[tuple[list[str], Any], tuple[list[str], Any]]":
    """Return the exchanges and the symbols: the words that there are, and for each record the index of its own."""
    topics, of_record = np.unique(array["topic"], return_inverse=True)
    words = [topic.decode().split(".", 2) for topic in topics.tolist()]
    found = []
    for position in (1, 2):
        names = sorted({word[position] for word in words})
        index = {name: number for number, name in enumerate(names)}
        codes = np.array([index[word[position]] for word in words], np.int32)
        found.append((names, codes[of_record]))
    return found[0], found[1]
