"""What a feed was to receive: the body of the item that a recording of it begins with. Pure."""

from collections.abc import Mapping, Sequence

import msgspec


class PlannedMarket(msgspec.Struct, frozen=True, kw_only=True):
    """One market of a feed's exchange."""

    name: str
    prefix: str  # of its native symbols, where all markets meet
    instruments_url: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """As the feed states it. Times are Unix time."""

    exchange: str
    shard: str = "1/1"  # all of it
    session_ns: int  # when the feed started: connections and answers are counted since then
    pid: int = 0
    version: str = ""
    simulated: bool = False
    markets: Sequence[PlannedMarket] = ()
    wanted: Mapping[str, Sequence[str]] = {}  # kinds by symbol

    @property
    def lists(self) -> set[str]:
        """The URLs of instrument lists."""
        return {market.instruments_url for market in self.markets}
