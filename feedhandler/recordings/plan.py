"""What a feed was to receive: the body of the item that a recording of it begins with. Pure."""

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar
from urllib.parse import parse_qsl, urlsplit

import msgspec

T = TypeVar("T")


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

    def list_of(self, url: str) -> str:
        """Return the URL of the first page of the instrument list that this one has a page of, "" if of none."""
        asked = urlsplit(url)
        for market in self.markets:
            first = urlsplit(market.instruments_url)
            # Other pages say more: where the list goes on, or of which state its instruments are.
            if asked[:3] == first[:3] and {*parse_qsl(first.query)} <= {*parse_qsl(asked.query)}:
                return market.instruments_url
        return ""


class KeptLists(Generic[T]):
    """The newest instrument list of each market, page by page, for whoever begins in the middle.

    While one is fetched, the pages of the one before are kept as well, since it may come to nothing.
    """

    def __init__(self) -> None:
        self._lists: dict[str, tuple[list[T], list[T]]] = {}  # the one before and the newest, by first URL

    def take(self, plan: Plan | None, url: str, page: T) -> None:
        """Take an answer, if it is a page of a list."""
        first = plan.list_of(url) if plan is not None else ""
        if not first:
            return
        before, newest = self._lists.get(first, ([], []))
        if url == first:
            before, newest = max(newest, before, key=len), []
        newest.append(page)
        self._lists[first] = ([], newest) if len(newest) >= len(before) else (before, newest)

    @property
    def pages(self) -> list[T]:
        """What is to be had, in order."""
        return [page for before, newest in self._lists.values() for page in (*before, *newest)]

    def clear(self) -> None:
        """Another feed begins."""
        self._lists.clear()
