"""Requests to an exchange over HTTP, and its answers."""

from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

DIGITS_MAX: Final = 18  # of a number in a header; Python refuses to read thousands of them


def number_of(text: str) -> int | None:
    """Return a number that a header states; None if it is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= DIGITS_MAX else None


class LimitHeader(NamedTuple):
    """A header of answers in which an exchange tells what of `rest_limit` the address has used, or has left."""

    name: str
    is_left: bool

    def left(self, headers: Mapping[str, str], limit: int) -> int | None:
        """Return what is left in the window that runs; None if the answer does not tell."""
        number = number_of(headers.get(self.name, ""))
        return number if number is None or self.is_left else limit - number


class RestRequest(msgspec.Struct, frozen=True):
    """An HTTP request without a body; path with query, to be appended to `rest_url`.

    weight is what it costs of the exchange's `rest_limit`. is_signed: query and headers are of an account, and are
    not to be printed.
    """

    path: str
    method: str = "GET"
    weight: int = 1
    headers: tuple[tuple[str, str], ...] = ()
    is_signed: bool = False

    def __repr__(self) -> str:
        return f"RestRequest({self.method} {self.path.partition('?')[0]})"


class RestAnswer(msgspec.Struct, frozen=True):
    """An HTTP answer of any status; retry_after_s is how long it has us wait, 0 if it states none."""

    status: int
    body: bytes
    retry_after_s: float = 0.0

    def __repr__(self) -> str:
        return f"RestAnswer({self.status}, {len(self.body)} bytes)"
