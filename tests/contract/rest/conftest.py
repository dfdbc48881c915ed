"""The gateway in front of an intake in memory; every answer is held against the OpenAPI document."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest

from tests.fakes import GatewayUnderTest, running_gateway
from tests.raw_http import Served, serving


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[GatewayUnderTest]:
    """A gateway's application and the intake behind it."""
    async with running_gateway(tmp_path) as running:
        yield running


@pytest.fixture
async def client(hub: GatewayUnderTest) -> AsyncIterator[httpx.AsyncClient]:
    """Calls the application in this loop; fails on an answer that the OpenAPI document does not describe."""

    async def check(response: httpx.Response) -> None:
        await response.aread()
        assert_documented(hub.app.openapi(), response)

    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app=hub.app), base_url="http://hub", event_hooks={"response": [check]}
    ) as calling:
        yield calling


@pytest.fixture
async def served(hub: GatewayUnderTest) -> AsyncIterator[Served]:
    """The gateway on a port."""
    async with serving(hub) as running:
        yield running


def assert_documented(document: dict[str, Any], response: httpx.Response) -> None:
    """Fail unless the document has this answer: route, status, media type, body."""
    request = response.request
    described = find_operation(document, request.method, request.url.raw_path.decode().partition("?")[0])
    if described is None:  # 404 and 405: no route, so nothing to describe
        assert response.status_code in (404, 405)
        return
    answer = described["responses"][str(response.status_code)]
    if not response.content:
        return
    content = answer["content"][response.headers["content-type"].partition(";")[0]]
    if "schema" in content:
        schema = {**content["schema"], "components": document["components"]}
        jsonschema_rs.validator_for(schema, validate_formats=True).validate(response.json())


def find_operation(document: dict[str, Any], method: str, path: str) -> dict[str, Any] | None:
    """The operation that a path belongs to."""
    for template, operations in document["paths"].items():
        wanted, given = template.split("/"), path.split("/")
        fits = len(wanted) == len(given) and all(
            w.startswith("{") or w == g for w, g in zip(wanted, given, strict=True)
        )
        if fits and method.lower().replace("head", "get") in operations:
            found: dict[str, Any] = operations[method.lower().replace("head", "get")]
            return found
    return None
