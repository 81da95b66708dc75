"""REST requests: instrument lists and handshakes. aiohttp with limits spelled out."""

from collections.abc import Mapping
from types import TracebackType
from typing import Final

import aiohttp

from feedhandler.errors import ProtocolError
from feedhandler.exchanges.base import Request

TIMEOUT_S: Final = 10.0
BODY_SIZE_MAX: Final = 64 << 20  # Binance's full exchangeInfo is about 10 MB
# Statuses with which exchanges ask for patience; if they do not say how long, the usual ban's length.
PATIENCE_STATUSES: Final = {429: 30.0, 418: 120.0, 403: 600.0}
RETRY_AFTER_MAX_S: Final = 3 * 86400.0  # Binance bans for three days at most


class HttpRefused(ProtocolError):
    """An answer other than 200; retry_after_s is how long the exchange wants us to wait."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class HttpClient:
    """Requests to one exchange's REST host; an async context manager."""

    def __init__(self, rest_url: str) -> None:
        self.rest_url = rest_url
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> "HttpClient":
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
            headers={"User-Agent": "feedhandler"},
            trust_env=False,  # no proxy: the WebSocket would not take it, and loopback must not
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._session is not None
        await self._session.close()

    async def fetch(self, request: Request) -> bytes:
        """Return the body of a 200 answer.

        Raises HttpRefused for any other status and ProtocolError for a failed or oversized transfer.
        """
        assert self._session is not None, "use as a context manager"
        url = self.rest_url + request.path
        try:
            # A redirected POST would arrive as a GET.
            is_safe = request.method == "GET"
            async with self._session.request(
                request.method, url, headers=request.headers, allow_redirects=is_safe
            ) as answer:
                body = await answer.content.read(BODY_SIZE_MAX + 1)
                while len(body) <= BODY_SIZE_MAX and (more := await answer.content.read(BODY_SIZE_MAX)):
                    body += more
        except TimeoutError as exc:
            raise ProtocolError(f"{request.method} {url}: no answer within {TIMEOUT_S:g} s") from exc
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            raise ProtocolError(f"{request.method} {url}: {exc or type(exc).__name__}") from exc
        if len(body) > BODY_SIZE_MAX:
            raise ProtocolError(f"{request.method} {url}: answer exceeds {BODY_SIZE_MAX >> 20} MiB")
        if answer.status != 200:
            head = body[:200].decode(errors="replace")
            raise HttpRefused(
                f"{request.method} {url}: HTTP {answer.status} {head}",
                retry_after_s(answer.headers, answer.status),
            )
        return body


def retry_after_s(headers: Mapping[str, str], status: int) -> float:
    """Return how long an answer asks us to wait, in seconds; 0 if it does not ask.

    Exchanges send Retry-After in seconds, never as a date; some their own header, in milliseconds.
    """
    if status < 400:
        return 0.0
    for name, per_s in (("Retry-After", 1), ("gw-ratelimit-reset", 1000)):
        value = headers.get(name, "")
        if value.isascii() and value.isdigit():
            return min(int(value) / per_s, RETRY_AFTER_MAX_S)
    return PATIENCE_STATUSES.get(status, 0.0)
