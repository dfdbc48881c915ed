"""What the OpenAPI document says of each route: words, parameters, answers, errors.

Schemas come from the structs that are sent (gateway.bodies, gateway.problems), so the two cannot drift apart.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from chassis.access import ROUTE_SCOPES
from gateway.bodies import (
    NAME_PATTERN,
    AcceptedBody,
    CreateBody,
    HealthBody,
    HistoryBody,
    IntegrationRequestBody,
    ListBody,
)
from gateway.docs import ASSETS
from gateway.list_query import DEFAULT_LIMIT, MAX_LIMIT
from gateway.mapping import STATUS_NAMES
from gateway.openapi_examples import ACCEPTED, COMPLETED, CREATE, DUPLICATE, HISTORY
from gateway.problems import COLLECTION, MEDIA_TYPE, Problem

Spec = dict[str, Any]

SECURITY_SCHEME = "bearer"
TEXTS = {
    400: "Malformed: not HTTP/1.1, not JSON, or a call that contradicts itself",
    401: "No token, or one that is not valid here",
    403: "The token does not allow this",
    404: "No such request for this partner, or no such path",
    405: "Not with this method",
    408: "The call did not arrive in time",
    409: "The externalId is in use: `existing` and `Location` name that request",
    413: "The body is over 1 MiB",
    415: "The body is not declared as application/json",
    422: "Fields or parameters break the contract: `errors` names each",
    429: "Too many calls: come back after `Retry-After`",
    431: "The head is over 32 KiB or 100 headers",
    503: "Not taken now, nothing was stored: come back after `Retry-After`",
    504: "Not known whether it was stored: repeat with the same externalId",
}
#: Most of them before the route is known.
_EVERYWHERE = (400, 405, 408, 431, 500)
_RATE = {
    "RateLimit-Policy": "Your limit: `q` requests in `w` seconds",
    "RateLimit": "What is left of it: `r` requests; all of it is there again in `t` seconds",
}
_READ = (401, 403, 422, 503)


def operation(route: str) -> Spec:
    """The arguments of FastAPI's add_api_route that describe a route. Raises: KeyError for one nobody described."""
    described = _OPERATIONS[route]
    errors = {code: _error(code) for code in (*described["errors"], *_EVERYWHERE)}
    scopes = ROUTE_SCOPES[route]
    extra: Spec = {"security": [] if scopes is None else [{SECURITY_SCHEME: sorted(scopes)}]}
    if "parameters" in described:
        extra["parameters"] = described["parameters"]
    if "requestBody" in described:
        extra["requestBody"] = described["requestBody"]
    return {
        "operation_id": described["id"],
        "summary": described["summary"],
        "description": described["description"],
        "status_code": min(described["answers"]),
        "tags": [described["tag"]],
        "responses": {**described["answers"], **errors},
        "openapi_extra": extra,
    }


def components() -> Spec:
    """Schemas and the security scheme."""
    types = [CreateBody, AcceptedBody, IntegrationRequestBody, ListBody, HistoryBody, HealthBody, Problem]
    _, schemas = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    scheme = {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "A token of your identity provider; `hub token` makes one for trying out.",
    }
    return {"schemas": schemas, "securitySchemes": {SECURITY_SCHEME: scheme}}


def _json(text: str, body: type[msgspec.Struct], example: object = None, **headers: str) -> Spec:
    content: Spec = {"schema": {"$ref": f"#/components/schemas/{body.__name__}"}}
    if example is not None:
        content["example"] = example
    return {"description": text, "headers": _headers(headers), "content": {"application/json": content}}


def _error(code: int) -> Spec:
    content: Spec = {"schema": {"$ref": "#/components/schemas/Problem"}}
    headers: dict[str, str] = {}
    if code == 409:
        content["example"] = DUPLICATE
        headers["Location"] = "The request that has the externalId"
    if code in (429, 503):
        headers["Retry-After"] = "Seconds"
    if code == 429:
        headers |= _RATE
    if code in (401, 403):
        headers["WWW-Authenticate"] = "Bearer (RFC 6750)"
    if code == 405:
        headers["Allow"] = "The methods it takes"
    text = TEXTS.get(code, "A fault of the hub; the log has it under the correlation id")
    return {"description": text, "headers": _headers(headers), "content": {MEDIA_TYPE: content}}


def _headers(described: dict[str, str]) -> Spec:
    every = {"X-Correlation-ID": "The call's own, or a new UUID", **described}
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in every.items()}


def _parameter(place: str, name: str, text: str, schema: Spec, *, required: bool = False) -> Spec:
    return {
        "in": place,
        "name": name,
        "description": text,
        "schema": {"type": "string", **schema},
        "required": required,
    }


_PATH_ID = _parameter("path", "id", "The id that the create answered.", {"format": "uuid"}, required=True)
_CORRELATION = _parameter(
    "header",
    "X-Correlation-ID",
    "Follows the request everywhere; one that breaks the pattern is replaced.",
    {"pattern": "^[A-Za-z0-9._-]{1,128}$", "examples": ["550e8400-e29b-41d4-a716-446655440000"]},
)
_TRACEPARENT = _parameter("header", "traceparent", "W3C trace context.", {})
_NAME = {"pattern": f"^{NAME_PATTERN}$"}
_FILTERS = [
    _parameter("query", "status", "Only this status.", {"enum": list(STATUS_NAMES.values())}),
    _parameter("query", "externalId", "Only this key of yours.", _NAME),
    _parameter("query", "targetSystem", "Only this target.", _NAME),
    _parameter("query", "correlationId", "Only this correlation id.", {"pattern": "^[A-Za-z0-9._-]{1,128}$"}),
    _parameter("query", "createdAfter", "Accepted at or after this time.", {"format": "date-time"}),
    _parameter("query", "createdBefore", "Accepted before this time.", {"format": "date-time"}),
    _parameter(
        "query",
        "limit",
        "Items on a page.",
        {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
    ),
    _parameter("query", "cursor", "`nextCursor` of the page before, with the same filter.", {"maxLength": 1024}),
]


def _probe(name: str, text: str, *errors: int) -> Spec:
    answers = {200: _json(text, HealthBody)}
    return {"id": name, "tag": "probes", "summary": text, "description": "", "answers": answers, "errors": errors}


def _page(name: str, text: str, media_types: Iterable[str], *errors: int) -> Spec:
    content: Spec = {media_type: {} for media_type in media_types}
    answers = {200: {"description": text, "headers": _headers({}), "content": content}}
    return {
        "id": name,
        "tag": "documentation",
        "summary": text,
        "description": "",
        "answers": answers,
        "errors": errors,
    }


_OPERATIONS: dict[str, Spec] = {
    f"POST {COLLECTION}": {
        "id": "createIntegrationRequest",
        "tag": "integration requests",
        "summary": "Hand over a business document",
        "description": (
            "Answers 202 once the request is durable; from then on the hub sees to it that it ends `Completed` or "
            "`Failed`. Safe to repeat: the same `externalId` is never stored twice, a repetition is answered 409 with "
            "the one that exists."
        ),
        "parameters": [_CORRELATION, _TRACEPARENT],
        "requestBody": {
            "required": True,
            "description": "At most 1 MiB of UTF-8, 50,000 values and 64 levels; no duplicate keys, no NaN.",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/CreateBody"}, "example": CREATE}},
        },
        "answers": {
            202: _json("Accepted and durable", AcceptedBody, ACCEPTED, Location="Where to ask about it", **_RATE)
        },
        "errors": (401, 403, 409, 413, 415, 422, 429, 503, 504),
    },
    f"GET {COLLECTION}": {
        "id": "listIntegrationRequests",
        "tag": "integration requests",
        "summary": "List your requests, newest first",
        "description": "Pages by cursor. Parameters narrow the list together; an unknown one is refused.",
        "parameters": [*_FILTERS, _CORRELATION, _TRACEPARENT],
        "answers": {
            200: _json("One page", ListBody, {"items": [COMPLETED], "nextCursor": "djE6MTcwNTMxNDYwMDAwMDAwMA"})
        },
        "errors": _READ,
    },
    f"GET {COLLECTION}/{{id}}": {
        "id": "getIntegrationRequest",
        "tag": "integration requests",
        "summary": "Ask where a request stands",
        "description": "Send the `ETag` back as `If-None-Match`: while nothing has changed the answer is 304.",
        "parameters": [
            _PATH_ID,
            _parameter("header", "If-None-Match", "ETag of the copy you have.", {}),
            _CORRELATION,
            _TRACEPARENT,
        ],
        "answers": {
            200: _json("The request", IntegrationRequestBody, COMPLETED, ETag="Changes with the request"),
            304: {"description": "Your copy is current", "headers": _headers({"ETag": "As you sent it"})},
        },
        "errors": (404, *_READ),
    },
    f"GET {COLLECTION}/{{id}}/history": {
        "id": "listIntegrationRequestHistory",
        "tag": "integration requests",
        "summary": "Read everything that happened to a request",
        "description": "Every transition, attempt and lookup, in order.",
        "parameters": [_PATH_ID, _CORRELATION, _TRACEPARENT],
        "answers": {200: _json("The story", HistoryBody, HISTORY)},
        "errors": (404, *_READ),
    },
    "GET /healthz": _probe("healthz", "The process is alive"),
    "GET /readyz": _probe("readyz", "Calls can be served and requests stored", 503),
    "GET /openapi.json": _page("openapi", "This document", ["application/json"]),
    "GET /docs": _page("docs", "This document as a page", ["text/html"]),
    "GET /docs/{asset}": {
        **_page("docsAsset", "A file of the page", ASSETS.values(), 404),
        "parameters": [_parameter("path", "asset", "Its name.", {}, required=True)],
    },
}
