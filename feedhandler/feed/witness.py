"""Whether a connection that has brought nothing so far misses something: one quote over REST is the witness.

    acknowledged ── 5 s ──▶ first answer ──▶ further ones ── another quote, and again 3 s later ──▶ contradicted

How long a connection is usually silent is known from its data. One without any looks like a quiet market's, until
REST states another quote than before of an instrument that is subscribed to on it. While REST states the same, each
request waits twice as long. Pure: times and answers come in.
"""

from typing import Final

from msgspec.structs import astuple

from feedhandler.data.units import NS_PER_S
from feedhandler.exchanges.base import Market, Quote, is_same

# What REST states may be so old: a change that it shows may have come before what was acknowledged later than that.
REST_AGE_NS_MAX: Final = 5 * NS_PER_S
# And it may be ahead of the stream by so much: KuCoin's statistics come every 2 s.
STREAM_DELAY_NS_MAX: Final = 3 * NS_PER_S
WAIT_NS_MAX: Final = 60 * NS_PER_S  # between two requests: one quote costs little of the budget


class CanaryWitness:
    """The answers about one connection; market is its own."""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.is_contradicted = False  # something should have come, if nothing has
        self._native = ""
        self._first: Quote | None = None  # of that instrument
        self._has_changed = False
        self._is_asking = False
        self._wait_ns = REST_AGE_NS_MAX
        self._asks_at = 0  # 0 = it has not been looked at since the last answer

    def asks(self, now_mono_ns: int) -> bool:
        """True if the quote is to be requested now; call a few times a second, from the acknowledgement on.

        Then `on_quote` is called in any case.
        """
        if self._is_asking or self.is_contradicted:
            return False
        self._asks_at = self._asks_at or now_mono_ns + self._wait_ns
        self._is_asking = now_mono_ns >= self._asks_at
        return self._is_asking

    def on_quote(self, native: str, quote: Quote | None) -> None:
        """Take the answer; None: there is none to be had."""
        self._is_asking, self._asks_at = False, 0
        if quote is not None and (self._first is None or native != self._native):
            self._native, self._first, self._has_changed = native, quote, False
        elif quote is None or self._first is None or is_same(astuple(quote), astuple(self._first)):
            self._has_changed = self._has_changed and quote is None
            self._wait_ns = min(2 * self._wait_ns, WAIT_NS_MAX)
        elif self._has_changed:
            self.is_contradicted = True
        else:  # REST may be a moment ahead
            self._has_changed = True
            self._wait_ns = STREAM_DELAY_NS_MAX
