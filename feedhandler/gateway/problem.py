"""Answers for what is wrong: `application/problem+json`, as RFC 9457 has it."""

import logging
from http import HTTPStatus
from typing import Final

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from feedhandler.data.errors import ConfigError, SubscriptionRejected

CONTENT_TYPE: Final = "application/problem+json"
DETAIL_SIZE_MAX: Final = 2000


log = logging.getLogger(__name__)


class ProblemBody(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The body of every answer that is an error; field names what in the request it is about."""

    title: str
    status: int
    detail: str
    field: str = ""
    kind: str = ""  # of an account's trouble


class Problem(Exception):
    """A request that cannot be answered as it is; detail names the culprit and the remedy, and no secret."""

    def __init__(
        self, status: HTTPStatus, detail: str, *, field: str = "", kind: str = "", retry_after_s: float = 0.0
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.field, self.kind = status, detail, field, kind
        self.retry_after_s = retry_after_s

    def response(self) -> web.Response:
        """Return it as an answer."""
        body = ProblemBody(
            title=self.status.phrase,
            status=self.status,
            detail=self.detail[:DETAIL_SIZE_MAX],
            field=self.field,
            kind=self.kind,
        )
        headers = {}
        if self.retry_after_s > 0:
            headers["Retry-After"] = str(max(1, round(self.retry_after_s)))
        if self.status == HTTPStatus.UNAUTHORIZED:
            headers["WWW-Authenticate"] = "Bearer"
        return web.Response(
            body=msgspec.json.encode(body), status=self.status, content_type=CONTENT_TYPE, headers=headers
        )


@web.middleware
async def problems(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn everything that goes wrong in a request into such an answer."""
    try:
        return await handler(request)
    except Problem as exc:
        return exc.response()
    except (ConfigError, SubscriptionRejected) as exc:
        return Problem(HTTPStatus.UNPROCESSABLE_ENTITY, str(exc)).response()
    except web.HTTPException as exc:  # aiohttp's own: no such path, no such method, a body that is too large
        if exc.status < HTTPStatus.BAD_REQUEST:
            raise
        answer = Problem(HTTPStatus(exc.status), f"{request.method} {request.path}: {exc.reason}").response()
        if allow := exc.headers.get("Allow"):
            answer.headers["Allow"] = allow
        return answer
