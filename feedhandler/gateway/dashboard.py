"""The dashboard: static files of this package, served as they are. They hold no data, so they need no token."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from aiohttp import web

PAGE: Final = Path(__file__).parent / "page"
TYPES: Final = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".md": "text/plain",
    "": "text/plain",
}


def routes() -> list[web.RouteDef]:
    """Return the page and what belongs to it; only what is there now, by name."""
    files = {f"/page/{path.relative_to(PAGE)}": path for path in sorted(PAGE.rglob("*")) if path.is_file()}
    return [web.get(where, _serve(path)) for where, path in {"/": PAGE / "index.html", **files}.items()]


def _serve(path: Path) -> Callable[[web.Request], Awaitable[web.Response]]:
    body, kind = path.read_bytes(), TYPES[path.suffix]

    async def serve(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=kind, charset="utf-8")

    return serve
