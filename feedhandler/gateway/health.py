"""Whether the gateway lives, and whether data are fresh: for probes."""

from collections.abc import Iterator
from http import HTTPStatus

import msgspec
from aiohttp import web

from feedhandler.gateway.app import Parts


class Liveness(msgspec.Struct):
    is_live: bool = True


class Readiness(msgspec.Struct, kw_only=True):
    """The answer of /ready; waiting_for has what is missing, by exchange, or of the merger."""

    is_ready: bool
    waiting_for: dict[str, str] = {}


def routes(parts: Parts) -> list[web.RouteDef]:
    """Return the routes of probes."""

    async def live(request: web.Request) -> web.Response:
        return web.Response(body=msgspec.json.encode(Liveness()), content_type="application/json")

    async def ready(request: web.Request) -> web.Response:
        missing = dict(_missing(parts))
        body = msgspec.json.encode(Readiness(is_ready=not missing, waiting_for=missing))
        status = HTTPStatus.SERVICE_UNAVAILABLE if missing else HTTPStatus.OK
        return web.Response(body=body, status=status, content_type="application/json")

    return [web.get("/live", live), web.get("/ready", ready)]


def _missing(parts: Parts) -> Iterator[tuple[str, str]]:
    """Yield what keeps the whole from being ready: every exchange that is wanted has to have fresh data."""
    if not parts.market_data.is_merger_up:
        yield "merger", "is silent"
        return
    for name in parts.config.exchanges:
        status = parts.market_data.statuses.get(name)
        if status is None:
            yield name, "is silent"
        elif status.feed is not None and not status.feed.connect:
            continue  # nobody wants it
        elif status.state not in ("live", "idle"):
            yield name, status.state
