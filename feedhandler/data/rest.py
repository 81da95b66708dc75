"""Requests to an exchange over HTTP, and its answers."""

import msgspec


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
