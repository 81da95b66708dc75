"""Watches an exchange's clock, and this host's: requests over REST, and sets in the states what times cannot be.

`clock.ExchangeClock` decides; here are the requests and the pauses. A REST host that is away costs an estimate that
grows less sure, and a line in the status.
"""

import asyncio
import logging
import time
from typing import ClassVar, Final, Protocol

from feedhandler.data.clock import Estimate, ExchangeClock, Sample
from feedhandler.data.errors import DecodeError, ProtocolError
from feedhandler.data.rest import RestRequest
from feedhandler.data.status import FeedStatus
from feedhandler.data.units import NS_PER_MS, NS_PER_S
from feedhandler.transport.http import HttpClient

# A round: the first answer waits for a connection to be made, the next ones do not; one more if they contradict.
SAMPLES_MIN: Final = 3
SAMPLES_MAX: Final = 6
SAMPLE_EVERY_S: Final = 1.0

ROUND_EVERY_S: Final = 300.0  # 500 ppm of it are 150 ms
RETRY_S: Final = (2.0, 60.0)  # after a round that failed, doubling each time in a row
LOOK_EVERY_S: Final = 1.0  # at our own clocks

log = logging.getLogger(__name__)


class Clocked(Protocol):
    """An exchange whose time can be requested."""

    time_request: ClassVar[RestRequest]

    def decode_time(self, body: bytes) -> int:
        """Return the exchange's time in Unix ns. Raises DecodeError or ProtocolError."""

    def set_clock(self, offset_ns: int = ..., ahead_ns_max: int = ...) -> None:
        """Take how far its clock is ahead of ours, and from how far ahead of ours events are doubted."""


class Timekeeper:
    """Runs `clock` for one exchange; error is why the last round failed, "" if it did not."""

    def __init__(self, exchange: Clocked, http: HttpClient) -> None:
        self.clock = ExchangeClock()
        self.error = ""
        self._failures = 0  # rounds in a row
        self._exchange = exchange
        self._http = http

    def estimate(self) -> Estimate | None:
        """Return how far the exchange's clock is from ours now, None if nothing is known."""
        return self.clock.estimate(time.monotonic_ns())

    def report(self, status: FeedStatus) -> None:
        """Fill in the status' fields about clocks."""
        known = self.estimate()
        status.clock_offset_ms = None if known is None else known.offset_ns / NS_PER_MS
        status.clock_uncertainty_ms = None if known is None else known.uncertainty_ns / NS_PER_MS
        status.clock_error = self.error

    async def run(self) -> None:
        """Ask in rounds, from now on; at once after this host's clock was set."""
        while True:
            await self._watch(await self.refresh())

    async def refresh(self) -> int:
        """Ask now; returns the monotonic time of the next round."""
        pause_s = await self._ask()
        until_mono_ns = time.monotonic_ns() + int(pause_s * NS_PER_S)
        self._exchange.set_clock(*self.clock.bounds(until_mono_ns) or ())
        return until_mono_ns

    def now_ms(self) -> int:
        """Return the exchange's present time in Unix ms, as far as it is known."""
        known = self.estimate()
        return (time.time_ns() + (known.offset_ns if known else 0)) // NS_PER_MS

    async def _ask(self) -> float:
        """Do a round, and return the seconds until the next one."""
        try:
            for count in range(1, SAMPLES_MAX + 1):
                self._look()
                self.clock.add(await self._sample())
                if count >= SAMPLES_MIN and self.clock.is_settled:
                    break
                await asyncio.sleep(SAMPLE_EVERY_S)
        except (ProtocolError, DecodeError, ValueError) as exc:
            return max(self._failed(str(exc)), exc.retry_after_s if isinstance(exc, ProtocolError) else 0.0)
        if not self.clock.is_settled:
            return self._failed("its answers contradict each other")
        self.error, self._failures = "", 0
        return ROUND_EVERY_S

    async def _sample(self) -> Sample:
        sent_mono_ns = time.monotonic_ns()
        body = await self._http.fetch(self._exchange.time_request)
        received_mono_ns, unix_ns = time.monotonic_ns(), time.time_ns()
        return Sample(sent_mono_ns, received_mono_ns, unix_ns, self._exchange.decode_time(body))

    def _failed(self, error: str) -> float:
        """Note why a round failed, and return the seconds until the next one."""
        first_s, last_s = RETRY_S
        retry_s = min(last_s, first_s * 2.0 ** min(self._failures, 10))
        self._failures += 1
        if self._failures == 3:  # a REST host that comes up a moment after us needs no line
            log.warning("the exchange's time is not known any better: %s", error)
        self.error = error
        return retry_s

    async def _watch(self, until_mono_ns: int) -> None:
        """Wait, unless this host's clock is set."""
        while time.monotonic_ns() < until_mono_ns:
            if self._look():
                return
            await asyncio.sleep(LOOK_EVERY_S)

    def _look(self) -> bool:
        """Return whether this host's clock was set."""
        if not self.clock.has_stepped(time.monotonic_ns(), time.time_ns(), time.monotonic_ns()):
            return False
        log.warning("this host's clock was set: what was known of the exchange's is forgotten")
        self._exchange.set_clock()
        return True
