"""The web application: what every request passes, and where it goes."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from feedhandler.data import wire
from feedhandler.gateway.access import Access
from feedhandler.gateway.control import ControlPlane
from feedhandler.gateway.events import EventLog
from feedhandler.gateway.history import History
from feedhandler.gateway.hours import Hours
from feedhandler.gateway.kept_accounts import Accounts
from feedhandler.gateway.market_data import MarketData
from feedhandler.gateway.problem import Problem, problems
from feedhandler.gateway.rates import Rates
from feedhandler.gateway.rows import ExchangeRow
from feedhandler.runtime.checks import is_listed_here
from feedhandler.runtime.settings import Config

BODY_SIZE_MAX: Final = 2 << 20  # as many positions or symbols as are taken at once, at their longest
UNGUARDED: Final = ("/live", "/ready")  # probes know no token
IDENTITY: Final = "identity"  # of codings of a body: as it is
SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")
# Requests without the token per second, and at once, of one address. The right token is never kept waiting: behind
# one address there may be others, and what they get wrong is to lock nobody out.
FAILED_RATE: Final = (2.0, 50.0)
HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'self'; connect-src 'self' ws: wss:; frame-ancestors 'none';"
    " base-uri 'none'",
    "Cache-Control": "no-store",
}


@dataclass(kw_only=True)
class Parts:
    """What the gateway is made of, for those who answer requests."""

    config: Config
    access: Access
    market_data: MarketData
    history: History
    hours: Hours
    events: EventLog
    accounts: Accounts
    control: ControlPlane

    def row(self, exchange: str) -> ExchangeRow:
        """Return what is known of an exchange."""
        settings = self.config.exchange(exchange)
        status = self.market_data.statuses.get(exchange) if self.market_data.is_merger_up else None
        return ExchangeRow(
            exchange=exchange,
            is_simulated=settings.simulated,
            connect=self.control.is_connected(exchange),
            has_credentials=exchange in self.accounts,
            text=status.text(time.time_ns()) if status is not None else "the merger is silent",
            status=status,
        )

    def unlisted(self, symbols: Iterable[str], exchanges: Sequence[str]) -> str:
        """Return which of some symbols none of the exchanges lists or publishes; "" if that is not known."""
        tables = [self.market_data.tables.get(exchange) for exchange in exchanges]
        known = [table for table in tables if table is not None]
        if not known or len(known) < len(tables):
            return ""
        unlisted = [
            symbol
            for symbol in symbols
            if not any(table.has(symbol) for table in known)
            and all(
                is_listed_here(exchange, symbol, table)
                for exchange, table in zip(exchanges, known, strict=True)
            )
            and not self._is_published(symbol, exchanges)
        ]
        if not unlisted:
            return ""
        hint = next((hint for table in known if (hint := table.hint(unlisted[0]))), "")
        more = f", nor {len(unlisted) - 1} more of these symbols" if len(unlisted) > 1 else ""
        return f"no {unlisted[0]!r} is listed by {', '.join(exchanges)}{more}{hint}"

    def unwanted(self, kind: str, symbols: Iterable[str], exchanges: Sequence[str]) -> str:
        """Return which of some symbols nobody wants of a kind; "" if there is none, or that is not known."""
        statuses = [self.market_data.statuses.get(exchange) for exchange in exchanges]
        feeds = [status.feed for status in statuses if status is not None and status.feed is not None]
        if not feeds or len(feeds) < len(statuses):
            return ""
        for symbol in symbols:
            if not any(kind in feed.kinds_of(symbol) for feed in feeds):
                return (
                    f"{kind} of {symbol!r} is not wanted of {', '.join(exchanges)}: `kinds` in the configuration"
                    f" has it sent, or `feedhandler subscribe EXCHANGE {symbol} --kind {kind}`"
                )
        return ""

    def _is_published(self, symbol: str, exchanges: Sequence[str]) -> bool:
        """What no list has may have been requested all the same (`unlisted`)."""
        try:
            topics = [wire.topic(wire.TICKER, exchange, symbol) for exchange in exchanges]
        except ValueError:
            return False
        return any(topic in self.market_data.tickers for topic in topics)

    def rows(self) -> dict[str, ExchangeRow]:
        """Return what is known of all."""
        return {exchange: self.row(exchange) for exchange in self.config.exchanges}


def make_app(parts: Parts, routes: Iterable[web.RouteDef], *outer: Middleware) -> web.Application:
    """Return the application that answers these routes, behind the guard; outer see all requests first."""
    app = web.Application(
        middlewares=[*outer, problems, _guard(parts.access)],
        client_max_size=BODY_SIZE_MAX,
    )
    app.add_routes(routes)
    app.on_response_prepare.append(_add_headers)
    return app


def _guard(access: Access) -> Middleware:
    failed = Rates(*FAILED_RATE)

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        """Turn away who does not mean us, comes from another page, or has no token where one is needed."""
        if (encoding := request.headers.get("Content-Encoding", IDENTITY)).lower() != IDENTITY:
            raise Problem(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                f"bodies are taken as they are, and not packed as {encoding[:20]!r}",
                field="Content-Encoding",
            )
        if not access.is_our_host(request.headers):
            raise Problem(
                HTTPStatus.MISDIRECTED_REQUEST,
                "the Host header names none of this gateway's names; [gateway] hosts adds some",
                field="Host",
            )
        if not access.is_our_origin(request.headers):
            raise Problem(
                HTTPStatus.FORBIDDEN, "pages of other origins may not ask this gateway", field="Origin"
            )
        if request.path in UNGUARDED:
            return await handler(request)
        needs_token = not access.is_open or request.method not in SAFE_METHODS
        # The page holds no data, and requests the token itself; so does the WebSocket.
        is_page = request.path in ("/", "/ws") or request.path.startswith("/page/")
        if needs_token and not is_page and not access.is_authorized(request.headers):
            if wait_s := failed.take(request.remote, time.monotonic()):
                raise Problem(
                    HTTPStatus.TOO_MANY_REQUESTS,
                    "too many requests without the token from this address",
                    field="Authorization",
                    retry_after_s=wait_s,
                )
            raise unauthorized()
        return await handler(request)

    return guard


def unauthorized() -> Problem:
    """Return the answer to who has no token."""
    return Problem(
        HTTPStatus.UNAUTHORIZED,
        "this needs `Authorization: Bearer` with the token of FEEDHANDLER_API_TOKEN, or of the file that the"
        " gateway's log names",
        field="Authorization",
    )


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
