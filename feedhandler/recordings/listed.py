"""Which symbols a market has, as far as a recording tells: what no list has is no symbol.

Only once all pages of a list have come, and each of its rows was read. Pure.
"""

from collections.abc import Iterable
from urllib.parse import urlsplit

from feedhandler.data.errors import DecodeError, ProtocolError
from feedhandler.data.rest import RestRequest
from feedhandler.exchanges.base import Market


class ListedNatives:
    """The native symbols of one market, of all lists that were complete; none, and nothing is known."""

    def __init__(self, market: Market) -> None:
        self.natives: set[str] = set()
        self._market = market
        self._found: set[str] = set()
        self._next = ""  # which page is to come

    def take(self, url: str, body: bytes, natives: Iterable[str], *, is_whole: bool) -> None:
        """Take an answer that has a list, or a page of it; is_whole: all rows were read."""
        parts = urlsplit(url)
        path = f"{parts.path}?{parts.query}" if parts.query else parts.path
        if path == self._market.instruments_request.path:
            self._found = set()
        elif path != self._next:
            return
        self._found.update(natives)
        self._next = ""
        try:
            rest = self._market.rest_of_list(RestRequest(path), body) if is_whole else RestRequest("")
        except (DecodeError, ProtocolError):
            return
        if rest is None:
            self.natives |= self._found
        else:
            self._next = rest.path
