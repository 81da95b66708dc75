"""What a request over HTTP is: one table from which both the routes and their description are made.

A handler gets the request, decoded and checked, and returns what is to be answered; here is all around it.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import Any, Final

import msgspec
from aiohttp import web

from feedhandler.data.errors import UNDECODABLE
from feedhandler.gateway.app import Parts, unauthorized
from feedhandler.gateway.listener import BODY_S
from feedhandler.gateway.problem import Problem
from feedhandler.gateway.rates import Rates
from feedhandler.runtime.checks import did_you_mean

JSON: Final = "application/json"
# Requests per second, and at once, of one address; those with the token are counted apart, so that nobody else can
# use them up.
RATE: Final = (100.0, 400.0)


class Query(msgspec.Struct, frozen=True):
    """One parameter of a query; pattern is a regular expression for the whole of its text."""

    name: str
    text: str
    pattern: str = ""
    example: str = ""
    is_required: bool = False


class Asked(msgspec.Struct, frozen=True):
    """A request as its handler gets it: path holds the variable parts of the path."""

    path: Mapping[str, str]
    query: Mapping[str, str]
    body: Any = None
    is_authorized: bool = False


Handler = Callable[[Asked], Awaitable[Any]]


class Operation(msgspec.Struct, frozen=True):
    """One method of one path. body and answer are the types of their JSON; None: there is none."""

    method: str
    path: str
    handler: Handler
    text: str
    answer: type | None = None
    body: type[msgspec.Struct] | None = None
    query: tuple[Query, ...] = ()
    is_private: bool = False  # needs the token even for reading
    problems: tuple[HTTPStatus, ...] = ()  # besides those that all have

    @property
    def name(self) -> str:
        """Its name in the description."""
        return str(getattr(self.handler, "__name__", ""))

    @property
    def needs_token(self) -> bool:
        return self.is_private or self.method != "GET"


def routes(operations: list[Operation], parts: Parts) -> list[web.RouteDef]:
    """Return the operations' routes."""
    rates = Rates(*RATE)
    # GET without the HEAD that aiohttp would add: the description knows none.
    return [web.route(each.method, each.path, _handle(each, parts, rates)) for each in operations]


def _handle(
    operation: Operation, parts: Parts, rates: Rates
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    decode: Callable[[bytes], Any] | None = None
    if operation.body is not None:
        decode = msgspec.json.Decoder(operation.body).decode

    async def handle(request: web.Request) -> web.StreamResponse:
        is_authorized = parts.access.is_authorized(request.headers)
        if wait_s := rates.take((request.remote, is_authorized), time.monotonic()):
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS, "too many requests from this address", retry_after_s=wait_s
            )
        if operation.is_private and not is_authorized:
            raise unauthorized()
        query = _query(operation, request)
        body = None if decode is None else _body(operation, decode, request, await _read(request))
        path = dict(request.match_info)
        if "exchange" in path:
            known_exchange(parts, path["exchange"], HTTPStatus.NOT_FOUND)
        answer = await operation.handler(Asked(path, query, body, is_authorized))
        if answer is None:
            return web.Response(status=HTTPStatus.NO_CONTENT)
        return web.Response(body=msgspec.json.encode(answer), content_type=JSON)

    return handle


async def _read(request: web.Request) -> bytes:
    """Return a request's body. Raises Problem for one that does not come in time, or whole."""
    try:
        async with asyncio.timeout(BODY_S):
            return await request.read()
    except TimeoutError:
        raise Problem(
            HTTPStatus.REQUEST_TIMEOUT, f"the body has not come within {BODY_S:g} s", field="body"
        ) from None
    except (ConnectionError, web.RequestPayloadError):  # mostly nobody is there to read that
        raise Problem(HTTPStatus.BAD_REQUEST, "the body is broken, or broke off", field="body") from None


def known_exchange(parts: Parts, name: str, status: HTTPStatus = HTTPStatus.UNPROCESSABLE_ENTITY) -> None:
    """Raise Problem for an exchange that is not configured."""
    if name not in parts.config.exchanges:
        known = tuple(parts.config.exchanges)
        detail = f"exchange: {name!r} is not configured{did_you_mean(name, known)}"
        raise Problem(status, detail, field="exchange")


def _query(operation: Operation, request: web.Request) -> dict[str, str]:
    found: dict[str, str] = {}
    known = {parameter.name: parameter for parameter in operation.query}
    for name, value in request.query.items():
        if name not in known:
            hint = did_you_mean(name, tuple(known))
            raise Problem(HTTPStatus.BAD_REQUEST, f"{name}: unknown parameter{hint}", field=name)
        if name in found:
            raise Problem(HTTPStatus.BAD_REQUEST, f"{name}: is there twice", field=name)
        pattern, example = known[name].pattern, known[name].example
        if pattern and not re.fullmatch(pattern, value):
            detail = f"{name}: {value[:100]!r} cannot be understood; write it like {example}"
            raise Problem(HTTPStatus.BAD_REQUEST, detail, field=name)
        found[name] = value
    for name, parameter in known.items():
        if parameter.is_required and name not in found:
            raise Problem(HTTPStatus.BAD_REQUEST, f"{name}: is missing: {parameter.text}", field=name)
    return found


def _body(operation: Operation, decode: Callable[[bytes], Any], request: web.Request, body: bytes) -> Any:
    if request.content_type != JSON:
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            f"the body must be JSON, with Content-Type: {JSON}",
            field="Content-Type",
        )
    try:
        return decode(body)
    except msgspec.ValidationError as exc:  # it names types and fields, and quotes no value
        reason, _, path = str(exc).partition(" - at `$")
        field = path.rstrip("`").lstrip(".")
        if unknown := re.search(r"unknown field `(.*)`", reason):
            assert operation.body is not None, "it was decoded"
            field = f"{field}.{unknown[1][:100]}".lstrip(".")
            reason += did_you_mean(unknown[1], operation.body.__struct_fields__)
        detail = f"{field}: {reason}" if field else reason
        raise Problem(HTTPStatus.UNPROCESSABLE_ENTITY, detail.replace("`", ""), field=field) from None
    except UNDECODABLE:
        raise Problem(HTTPStatus.BAD_REQUEST, "the body is no JSON", field="") from None
