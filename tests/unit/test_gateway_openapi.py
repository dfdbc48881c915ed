"""Routes and their documentation: nothing is open by accident, all is described, no other host is needed."""

import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
from fastapi.openapi.models import OpenAPI
from fastapi.routing import APIRoute

from chassis.access import ROUTE_SCOPES
from chassis.rpc_client import RpcClient
from chassis.telemetry import Telemetry
from chassis.testing import TestKeys
from chassis.tokens import JwksSource, ServiceToken, TokenVerifier
from chassis.tracing import Tracing
from gateway.app import GatewayApp, build_app
from gateway.docs import ASSETS, CONTENT_SECURITY_POLICY, PAGE, STATIC
from gateway.intake_client import IntakeClient
from gateway.openapi import TEXTS, operation
from gateway.problems import STATUSES
from gateway.readiness import Readiness


@pytest.fixture
async def app(tmp_path: Path) -> AsyncIterator[GatewayApp]:
    """The application, with nobody behind it."""
    keys = TestKeys(tmp_path)
    telemetry = Telemetry("gateway")
    client = RpcClient("127.0.0.1:1", ServiceToken(keys.signer, service="gateway", scopes=()), timeout_seconds=1)
    yield build_app(
        intake=IntakeClient(client, telemetry, timeout_seconds=1),
        verifier=TokenVerifier(JwksSource(str(keys.jwks)), issuer="i", audience="a"),
        readiness=Readiness(client),
        telemetry=telemetry,
        tracing=Tracing(),
    )
    await client.stop()


@pytest.fixture
def document(app: GatewayApp) -> dict[str, Any]:
    """The OpenAPI document."""
    return app.openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            yield f"{method.upper()} {path}", described


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_every_route_is_in_the_table_of_scopes(app: GatewayApp) -> None:
    routes = {
        f"{method} {route.path}"
        for route in app.router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }

    assert len(app.router.routes) == len(routes)
    assert routes == set(ROUTE_SCOPES)


def test_a_route_that_nobody_described_cannot_be_served() -> None:
    with pytest.raises(KeyError):
        operation("GET /secret")


async def test_every_route_that_is_not_public_refuses_a_call_without_token(app: GatewayApp) -> None:
    closed = [route for route, scopes in ROUTE_SCOPES.items() if scopes is not None]
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://hub") as client:
        statuses = [(await client.request(*route.replace("{id}", "1").split())).status_code for route in closed]

    assert statuses == [401] * 4


def test_the_document_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    OpenAPI.model_validate(document)


def test_every_route_is_described_with_its_scopes(document: dict[str, Any]) -> None:
    described = dict(operations(document))

    assert described.keys() == ROUTE_SCOPES.keys()
    for route, scopes in ROUTE_SCOPES.items():
        assert described[route]["security"] == ([] if scopes is None else [{"bearer": sorted(scopes)}])


def test_operation_ids_are_words_and_differ(document: dict[str, Any]) -> None:
    ids = [described["operationId"] for _, described in operations(document)]

    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch("[a-zA-Z]+", operation_id) for operation_id in ids)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    schemas = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}

    assert set(references(document)) <= schemas
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"


def test_every_schema_is_a_json_schema(document: dict[str, Any]) -> None:
    for schema in document["components"]["schemas"].values():
        jsonschema_rs.meta.validate(schema)


def test_every_example_fits_its_schema(document: dict[str, Any]) -> None:
    examples = [
        (content["schema"], content["example"])
        for _, described in operations(document)
        for place in (described.get("requestBody", {}), *described["responses"].values())
        for content in place.get("content", {}).values()
        if "example" in content
    ]

    assert len(examples) == 6
    for schema, example in examples:
        whole = {**schema, "components": document["components"]}
        jsonschema_rs.validator_for(whole, validate_formats=True).validate(example)


def test_a_create_is_described_with_all_its_answers(document: dict[str, Any]) -> None:
    create = document["paths"]["/api/integration-requests"]["post"]

    statuses = {"202", "400", "401", "403", "405", "408", "409", "413", "415", "422", "429", "431", "500", "503", "504"}
    assert set(create["responses"]) == statuses
    assert "Location" in create["responses"]["202"]["headers"]
    assert "Retry-After" in create["responses"]["503"]["headers"]


def test_every_status_of_an_error_is_described(document: dict[str, Any]) -> None:
    described = {int(status) for _, operation in operations(document) for status in operation["responses"]}

    assert {status for status, _ in STATUSES.values()} <= described
    assert {status for status, _ in STATUSES.values()} == {*TEXTS, 500}


def test_what_any_call_can_be_refused_with_is_described_everywhere(document: dict[str, Any]) -> None:
    for _, described in operations(document):
        assert {"400", "405", "408", "431", "500"} <= set(described["responses"])


async def test_the_assets_of_the_docs_page_are_described_as_they_are_served(
    app: GatewayApp, document: dict[str, Any]
) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://hub") as client:
        answers = [await client.get(f"/docs/{name}") for name in ASSETS]

    served = {answer.headers["Content-Type"].partition(";")[0] for answer in answers}
    assert set(document["paths"]["/docs/{asset}"]["get"]["responses"]["200"]["content"]) == served


def test_the_docs_page_is_described_as_html_alone(document: dict[str, Any]) -> None:
    assert set(document["paths"]["/docs"]["get"]["responses"]["200"]["content"]) == {"text/html"}


def test_every_error_is_described_as_a_problem(document: dict[str, Any]) -> None:
    contents = [
        answer["content"]
        for _, described in operations(document)
        for status, answer in described["responses"].items()
        if int(status) >= 400
    ]

    assert contents
    for content in contents:
        assert content["application/problem+json"]["schema"] == {"$ref": "#/components/schemas/Problem"}


def test_every_answer_is_described_with_its_correlation_id(document: dict[str, Any]) -> None:
    for _, described in operations(document):
        for answer in described["responses"].values():
            assert "X-Correlation-ID" in answer["headers"]


def test_the_docs_page_names_no_foreign_host() -> None:
    for name in (PAGE, "docs.js"):
        assert not re.findall(r"(?:https?:)?//[a-z0-9]", (STATIC / name).read_text())
    assert re.findall(r"https?:[^ ;]*|\*", CONTENT_SECURITY_POLICY) == []


def test_the_style_sheet_fetches_nothing() -> None:
    urls = re.findall(r"url\(([^)]{0,8})", (STATIC / "swagger-ui.css").read_text())

    assert urls
    assert all(url.strip("\"'").startswith(("data:", "#")) for url in urls)


async def test_everything_the_docs_page_names_is_served(app: GatewayApp) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://hub") as client:
        page = await client.get("/docs")
        named = [*re.findall(r'(?:src|href)="([^"]+)"', page.text), "openapi.json"]
        answers = [await client.get(f"/{name}") for name in named]

    assert page.headers["Content-Security-Policy"] == CONTENT_SECURITY_POLICY
    assert {name.removeprefix("docs/") for name in named} == {*ASSETS, "openapi.json"}
    assert {answer.status_code for answer in answers} == {200}
    assert all(len(answer.content) > 100 for answer in answers)


@pytest.mark.parametrize("path", ["/docs", "/docs/docs.js"])
@pytest.mark.parametrize("wanted", ["bytes=abc", "bytes=999999999-", "bytes=0-1", "bytes=0-1,4-5", "lines=1-2"])
async def test_a_page_is_sent_whole_whatever_range_is_asked_for(app: GatewayApp, path: str, wanted: str) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://hub") as client:
        whole = await client.get(path)
        answer = await client.get(path, headers={"Range": wanted})

    assert (answer.status_code, answer.content) == (200, whole.content)
    assert answer.headers["Accept-Ranges"] == "none"


def test_the_licence_of_the_vendored_files_is_beside_them() -> None:
    assert "Apache License" in (STATIC / "swagger-ui.LICENSE.txt").read_text()
    assert "SmartBear" in (STATIC / "swagger-ui.NOTICE.txt").read_text()
