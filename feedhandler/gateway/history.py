"""The last minutes of each exchange's latency and rate, a row a second: a page that is opened can draw its past."""

import collections
from typing import Final

import msgspec

from feedhandler.data.status import ExchangeStatus

ROWS_MAX: Final = 600  # ten minutes: some 60 kB an exchange

Row = list[float | None]  # as `COLUMNS`
COLUMNS: Final = (
    "unix_s",
    "feed_p50_us",
    "feed_p99_us",
    "hop_p50_us",
    "hop_p99_us",
    "latency_p50_us",
    "latency_p99_us",
    "records_per_s",
)


class LatencyHistory(msgspec.Struct):
    """Rows by exchange, the oldest first; what is not known is null."""

    columns: tuple[str, ...]
    exchanges: dict[str, list[Row]]


class History:
    """Takes statuses as they come, and keeps one a second."""

    def __init__(self) -> None:
        self._rows: dict[str, collections.deque[Row]] = {}

    def take(self, status: ExchangeStatus, unix_s: int) -> None:
        """Note a status as of a second; a later one of the same second replaces it."""
        rows = self._rows.setdefault(status.exchange, collections.deque(maxlen=ROWS_MAX))
        if rows and (rows[-1][0] or 0) >= unix_s:
            rows.pop()
        rows.append(
            [
                unix_s,
                status.feed_p50_us,
                status.feed_p99_us,
                status.hop_p50_us,
                status.hop_p99_us,
                status.latency_p50_us,
                status.latency_p99_us,
                status.records_per_s,
            ]
        )

    def latency(self) -> LatencyHistory:
        """Return what is kept."""
        return LatencyHistory(COLUMNS, {exchange: list(rows) for exchange, rows in self._rows.items()})
