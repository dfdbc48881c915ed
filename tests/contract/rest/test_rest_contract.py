"""The REST contract on the seed's example: statuses, headers, names, their order, digits."""

from datetime import UTC, datetime

import httpx
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from structlog.testing import capture_logs

from chassis.clock import SECOND, to_timestamp
from chassis.logs import add_bound_fields
from chassis.tracing import Tracing
from integrationhub.intake.v1 import intake_pb2 as pb
from tests.fakes import GatewayUnderTest, running_gateway
from tests.rest import CORRELATION_ID, PATH, SEED_BODY, create_body, post


async def test_the_seeds_example_gets_the_seeds_answer(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    answer = await post(client, hub)

    assert answer.status_code == 202
    stored = next(iter(hub.intake.stored))
    assert answer.headers["Location"] == f"/api/integration-requests/{stored}"
    assert answer.headers["X-Correlation-ID"] == CORRELATION_ID
    assert list(answer.json().items()) == [
        ("id", stored),
        ("externalId", "PARTNER-12345"),
        ("status", "Received"),
        ("correlationId", CORRELATION_ID),
        ("createdAt", "2024-01-15T10:30:00.000Z"),
    ]


async def test_an_accepted_answer_is_kept_by_no_cache(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    answer = await post(client, hub)

    assert answer.headers["Cache-Control"] == "no-store"


async def test_intake_learns_who_sent_what(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    await post(client, hub, headers={"traceparent": traceparent})

    [item] = hub.intake.batches[0].requests
    assert (item.partner_id, item.external_id, item.source_system, item.target_system) == (
        "acme",
        "PARTNER-12345",
        "SAP",
        "TotvsProtheus",
    )
    assert (item.correlation_id, item.traceparent) == (CORRELATION_ID, traceparent)


@pytest.mark.parametrize(
    "payload",
    [
        '{"amount": 15000.00}',
        '{"n":9007199254740993,"big":123456789012345678901234567890,"tiny":1E-7}',
        '{"text":"caf\u00e9 \\u00e9 \\/ \U0001f600", "nested":{"a":[1 , 2.50,null]}}',
        "{}",
    ],
)
async def test_a_payload_arrives_digit_for_digit(
    client: httpx.AsyncClient, hub: GatewayUnderTest, payload: str
) -> None:
    answer = await post(client, hub, create_body("A", payload=f" {payload} "))

    assert answer.status_code == 202
    assert hub.intake.payloads() == [payload]


async def test_a_repeated_external_id_is_answered_with_the_existing_request(
    client: httpx.AsyncClient, hub: GatewayUnderTest
) -> None:
    first = await post(client, hub)

    second = await post(client, hub)

    assert second.status_code == 409
    assert second.headers["Location"] == first.headers["Location"]
    assert second.headers["Content-Type"] == "application/problem+json"
    assert second.json()["existing"] == {
        "id": first.json()["id"],
        "status": "Received",
        "href": first.headers["Location"],
    }
    assert len(hub.intake.stored) == 1


async def test_two_partners_may_use_one_external_id(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    await post(client, hub)

    answer = await post(client, hub, headers=hub.header(partner="other"))

    assert answer.status_code == 202


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "Application/JSON",
        "application/vnd.acme.order+json",
    ],
)
async def test_json_media_types_are_taken(client: httpx.AsyncClient, hub: GatewayUnderTest, content_type: str) -> None:
    answer = await post(client, hub, headers={"Content-Type": content_type})

    assert answer.status_code == 202


async def test_a_request_is_read_back_as_the_seed_has_it(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    created = (await post(client, hub)).json()
    stored = hub.intake.stored[created["id"]]
    stored.status = pb.INTEGRATION_REQUEST_STATUS_COMPLETED
    stored.external_response_json = '{"protheusOrderId": "PRO-XYZ-789"}'
    stored.updated_at.CopyFrom(to_timestamp(1_705_314_620 * SECOND))

    answer = await client.get(f"{PATH}/{created['id']}", headers=hub.header())

    assert answer.status_code == 200
    assert list(answer.json().items()) == [
        ("id", created["id"]),
        ("externalId", "PARTNER-12345"),
        ("sourceSystem", "SAP"),
        ("targetSystem", "TotvsProtheus"),
        ("status", "Completed"),
        ("correlationId", CORRELATION_ID),
        ("createdAt", "2024-01-15T10:30:00.000Z"),
        ("updatedAt", "2024-01-15T10:30:20.000Z"),
        ("externalResponse", {"protheusOrderId": "PRO-XYZ-789"}),
    ]


async def test_an_external_answer_is_shown_digit_for_digit(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    created = (await post(client, hub)).json()
    hub.intake.stored[created["id"]].external_response_json = '{"total": 15000.00, "n":9007199254740993}'

    answer = await client.get(f"{PATH}/{created['id']}", headers=hub.header())

    assert '"externalResponse":{"total": 15000.00, "n":9007199254740993}' in answer.text


async def test_a_failed_request_says_why_and_a_pending_one_when(
    client: httpx.AsyncClient, hub: GatewayUnderTest
) -> None:
    created = (await post(client, hub)).json()
    stored = hub.intake.stored[created["id"]]
    stored.attempts = 2
    stored.failure_reason = "external_unavailable"
    stored.failure_detail = "The system did not answer."
    stored.next_attempt_at.CopyFrom(to_timestamp(1_705_314_604 * SECOND))

    answer = await client.get(f"{PATH}/{created['id']}", headers=hub.header())

    assert (
        answer.json().items()
        >= {
            "attempts": 2,
            "failureReason": "external_unavailable",
            "failureDetail": "The system did not answer.",
            "nextAttemptAt": "2024-01-15T10:30:04.000Z",
        }.items()
    )


async def test_an_upper_case_id_names_the_same_request(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    created = (await post(client, hub)).json()

    answer = await client.get(f"{PATH}/{created['id'].upper()}", headers=hub.header())

    assert answer.json()["id"] == created["id"]


@pytest.mark.parametrize("if_none_match", ['"1"', 'W/"1"', '"0", "1"', "*"])
async def test_a_current_copy_is_answered_304(
    client: httpx.AsyncClient, hub: GatewayUnderTest, if_none_match: str
) -> None:
    location = (await post(client, hub)).headers["Location"]

    answer = await client.get(location, headers={**hub.header(), "If-None-Match": if_none_match})

    assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", '"1"')
    assert answer.headers["Cache-Control"] == "private, no-cache"
    assert "X-Correlation-ID" in answer.headers


async def test_a_changed_request_has_another_etag(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    created = await post(client, hub)
    first = await client.get(created.headers["Location"], headers=hub.header())
    hub.intake.stored[created.json()["id"]].version += 1

    second = await client.get(
        created.headers["Location"], headers={**hub.header(), "If-None-Match": first.headers["ETag"]}
    )

    assert (first.headers["ETag"], second.status_code, second.headers["ETag"]) == ('"1"', 200, '"2"')


async def test_a_request_is_read_without_the_payload_that_is_not_shown(
    client: httpx.AsyncClient, hub: GatewayUnderTest
) -> None:
    location = (await post(client, hub)).headers["Location"]

    await client.get(location, headers=hub.header())

    assert [asked.without_payload for asked in hub.intake.gets] == [True]


async def test_head_is_get_without_its_body(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    location = (await post(client, hub)).headers["Location"]

    answer = await client.head(location, headers=hub.header())

    assert (answer.status_code, answer.content, answer.headers["ETag"]) == (200, b"", '"1"')


async def test_the_history_tells_the_story_in_order(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    created = (await post(client, hub)).json()
    at = to_timestamp(1_705_314_600 * SECOND)
    hub.intake.history[created["id"]] = [
        pb.HistoryEntry(kind="transition", at=at, to_status=pb.INTEGRATION_REQUEST_STATUS_RECEIVED, actor="acme"),
        pb.HistoryEntry(
            kind="attempt",
            at=at,
            from_status=pb.INTEGRATION_REQUEST_STATUS_WAITING_EXTERNAL,
            to_status=pb.INTEGRATION_REQUEST_STATUS_WAITING_EXTERNAL,
            attempt=1,
            outcome="UNAVAILABLE",
            detail="503",
            duration_ms=12.5,
            response="<html>",
            actor="worker-1",
        ),
    ]

    answer = await client.get(f"{PATH}/{created['id']}/history", headers=hub.header())

    assert answer.json() == {
        "items": [
            {"kind": "transition", "at": "2024-01-15T10:30:00.000Z", "toStatus": "Received", "actor": "acme"},
            {
                "kind": "attempt",
                "at": "2024-01-15T10:30:00.000Z",
                "fromStatus": "WaitingExternal",
                "toStatus": "WaitingExternal",
                "attempt": 1,
                "outcome": "UNAVAILABLE",
                "detail": "503",
                "durationMs": 12.5,
                "response": "<html>",
                "actor": "worker-1",
            },
        ]
    }


async def test_every_answer_carries_a_correlation_id(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    location = (await post(client, hub)).headers["Location"]
    sent = {"X-Correlation-ID": "my.own-id_1"}
    answers = [
        await client.get(location, headers={**hub.header(), **sent}),
        await client.get(location, headers=sent),
        await client.get("/nowhere", headers=sent),
        await client.delete(location, headers=sent),
        await client.get("/healthz", headers=sent),
        await client.get("/docs", headers=sent),
        await post(client, hub, b"{", sent),
    ]

    assert [answer.headers["X-Correlation-ID"] for answer in answers] == ["my.own-id_1"] * 7


@pytest.mark.parametrize(
    "unsafe",
    ["", "a b", "<script>", "a%0d%0aSet-Cookie: x", "\x1b[31mred", "x" * 129, "caf\u00e9"],
)
async def test_an_unsafe_correlation_id_is_replaced(
    client: httpx.AsyncClient, hub: GatewayUnderTest, unsafe: str
) -> None:
    headers: dict[str, str | bytes] = {**hub.header(), "X-Correlation-ID": unsafe.encode()}
    answer = await client.post(
        PATH,
        content=SEED_BODY,
        headers=[("Content-Type", b"application/json"), *headers.items()],  # type: ignore[arg-type]  # bytes are taken
    )

    given = answer.headers["X-Correlation-ID"]
    assert given != unsafe
    assert len(given) == 36
    assert answer.json()["correlationId"] == given


async def test_a_missing_correlation_id_is_made(client: httpx.AsyncClient) -> None:
    first = await client.get("/healthz")
    second = await client.get("/healthz")

    assert len({first.headers["X-Correlation-ID"], second.headers["X-Correlation-ID"]}) == 2


async def test_no_answer_is_sniffed(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    answers = [await post(client, hub), await client.get("/nowhere"), await client.get("/docs")]

    assert {answer.headers["X-Content-Type-Options"] for answer in answers} == {"nosniff"}


async def test_the_seeds_log_line_is_written(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    with capture_logs(processors=[add_bound_fields]) as lines:
        await post(client, hub, headers={"X-Correlation-ID": "followed"})

    assert [line for line in lines if line["event"] == "Integration request received"] == [
        {
            "event": "Integration request received",
            "log_level": "info",
            "correlation_id": "followed",
            "external_id": "PARTNER-12345",
            "partner_id": "acme",
        }
    ]


async def test_a_refusal_is_one_warning_without_the_callers_bytes(
    client: httpx.AsyncClient, hub: GatewayUnderTest
) -> None:
    with capture_logs() as lines:
        await post(client, hub, b'{"externalId": "\x1b[31mevil')

    assert [(line["event"], line["log_level"], line["reason"], line["status"]) for line in lines] == [
        ("Call refused", "warning", "MALFORMED_REQUEST", 400)
    ]
    assert "evil" not in str(lines)


async def test_the_metric_names_the_route_and_never_the_path(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    location = (await post(client, hub)).headers["Location"]
    await client.get(location, headers=hub.header())
    await client.get("/some/where")

    name = "http_request_duration_ms_count"
    assert hub.metric(name, route=PATH, status="202") == 1
    assert hub.metric(name, route=f"{PATH}/{{id}}", status="200") == 1
    assert hub.metric(name, route="unmatched", status="404") == 1
    routes = {sample.labels.get("route") for metric in hub.telemetry.registry.collect() for sample in metric.samples}
    assert routes <= {None, PATH, f"{PATH}/{{id}}", "unmatched"}


async def test_the_create_is_a_span_whose_context_goes_with_the_item(tmp_path_factory: pytest.TempPathFactory) -> None:
    spans = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(spans))
    sent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

    async with running_gateway(tmp_path_factory.mktemp("traced"), tracing=Tracing(provider)) as hub:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=hub.app), base_url="http://hub") as client:
            await post(client, hub, headers={"traceparent": sent})
        [item] = hub.intake.batches[0].requests

    [span] = spans.get_finished_spans()
    assert span.name == "api.integration-requests.create"
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert item.traceparent == f"00-{span.context.trace_id:032x}-{span.context.span_id:016x}-01"
    provider.shutdown()


async def test_times_are_utc_with_z(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    created_at = (await post(client, hub)).json()["createdAt"]

    assert created_at.endswith("Z")
    assert datetime.fromisoformat(created_at) == datetime(2024, 1, 15, 10, 30, tzinfo=UTC)
