"""The description of the HTTP API, OpenAPI 3.1: made from the table that the routes are made from."""

import re
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any, Final

import msgspec
from aiohttp import web

from feedhandler import __version__
from feedhandler.gateway.operations import JSON, Operation
from feedhandler.gateway.problem import CONTENT_TYPE, ProblemBody

REF: Final = "#/components/schemas/{name}"
PATH: Final = "/v1/openapi.json"
GUARD: Final = (HTTPStatus.FORBIDDEN, HTTPStatus.MISDIRECTED_REQUEST, HTTPStatus.UNSUPPORTED_MEDIA_TYPE)
ALWAYS: Final = (*GUARD, HTTPStatus.BAD_REQUEST, HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS)
WITH_BODY: Final = (
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
    HTTPStatus.UNPROCESSABLE_ENTITY,
)
DESCRIPTION: Final = """\
Changes, and balances, need `Authorization: Bearer` with the token of `FEEDHANDLER_API_TOKEN`, or of the file
`api-token` in the run directory. Where others than this machine can reach the gateway, everything but probes does.
Times in `_ns` are Unix nanoseconds; amounts of accounts are exact, and texts. `/ws` is a WebSocket."""


def document(
    operations: Sequence[Operation], exchanges: Iterable[str], *, needs_token: bool
) -> dict[str, Any]:
    """Return the whole document. exchanges: those configured; needs_token: reading needs the token, too."""
    names = {"type": "string", "enum": list(exchanges)}
    kinds: list[Any] = [each.answer for each in operations if each.answer is not None]
    kinds += [each.body for each in operations if each.body is not None]
    kinds.append(ProblemBody)
    unique = list({id(kind): kind for kind in kinds}.values())
    schemas, components = msgspec.json.schema_components(unique, ref_template=REF)
    schema_of = {id(kind): schema for kind, schema in zip(unique, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(
            operation, schema_of, names, needs_token=needs_token or operation.needs_token
        )
    itself = {"200": _answer("OK", JSON, {"type": "object"})}
    paths[PATH] = {"get": {"operationId": "openapi", "summary": "this description", "responses": itself}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "feedhandler", "version": __version__, "description": DESCRIPTION},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def description(document: dict[str, Any]) -> web.RouteDef:
    """Return the document's route."""
    body = msgspec.json.encode(document)

    async def openapi(request: web.Request) -> web.Response:
        return web.Response(body=body, content_type=JSON)

    return web.get(PATH, openapi)


def _operation(
    operation: Operation, schema_of: dict[int, Any], exchanges: dict[str, Any], *, needs_token: bool
) -> dict[str, Any]:
    found: dict[str, Any] = {"operationId": operation.name, "summary": operation.text}
    part = {"type": "string", "minLength": 1}
    found["parameters"] = [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": exchanges if name == "exchange" else part,
        }
        for name in re.findall(r"\{(\w+)\}", operation.path)
    ]
    for each in operation.query:
        schema: dict[str, Any] = dict(exchanges) if each.name == "exchange" else {"type": "string"}
        if each.pattern:
            schema["pattern"] = f"^({each.pattern})$"
        if each.example:
            schema["examples"] = [each.example]
        found["parameters"].append(
            {
                "name": each.name,
                "in": "query",
                "required": each.is_required,
                "description": each.text,
                "schema": schema,
            }
        )
    if operation.body is not None:
        content = {JSON: {"schema": schema_of[id(operation.body)]}}
        found["requestBody"] = {"required": True, "content": content}
    if needs_token:
        found["security"] = [{"token": []}]
    found["responses"] = _answers(operation, schema_of)
    return found


def _answers(operation: Operation, schema_of: dict[int, Any]) -> dict[str, Any]:
    problem = schema_of[id(ProblemBody)]
    if operation.answer is None:
        answers: dict[str, Any] = {"204": {"description": "done"}}
    else:
        answers = {"200": _answer("OK", JSON, schema_of[id(operation.answer)])}
    statuses = [*ALWAYS, *operation.problems, HTTPStatus.UNPROCESSABLE_ENTITY]
    statuses += WITH_BODY if operation.body is not None else ()
    for status in sorted(set(statuses)):
        answers[str(int(status))] = _answer(status.phrase, CONTENT_TYPE, problem)
    return answers


def _answer(text: str, content_type: str, schema: Any) -> dict[str, Any]:
    return {"description": text, "content": {content_type: {"schema": schema}}}
