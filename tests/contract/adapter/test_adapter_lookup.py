"""Asking a system for a request, for every adapter that can: found, absent, or not known. Never a guess."""

import json
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from chassis.testing import free_port
from integrationhub.adapter.v1 import adapter_pb2 as pb
from tests.contract.adapter.conftest import CORRELATION_ID, TRACEPARENT, System

FOUND, ABSENT, NOT_KNOWN = pb.LOOKUP_OUTCOME_FOUND, pb.LOOKUP_OUTCOME_ABSENT, pb.LOOKUP_OUTCOME_NOT_KNOWN


async def test_a_stored_document_is_found(system: System) -> None:
    await system.deliver(integration_request_id="id-1")

    response = await system.lookup("id-1")

    assert response.outcome == FOUND
    assert "Created" in response.response_json


async def test_a_document_that_was_never_stored_is_absent(system: System) -> None:
    await system.deliver(integration_request_id="id-1")

    assert (await system.lookup("id-2")).outcome == ABSENT


@pytest.mark.parametrize(("kind", "outcome"), [("reset_after", FOUND), ("reset_before", ABSENT)])
async def test_a_lookup_settles_a_lost_answer(system: System, kind: str, outcome: int) -> None:
    await system.fault(kind)
    await system.deliver(integration_request_id="id-1")

    assert (await system.lookup("id-1")).outcome == outcome


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 500},
        {"kind": "status", "status": 503},
        {"kind": "status", "status": 400},
        {"kind": "html", "status": 200},
        {"kind": "html", "status": 404},
        {"kind": "redirect"},
        {"kind": "broken_json"},
        {"kind": "error_200"},
        {"kind": "cut_body"},
        {"kind": "reset_before", "times": 2},
        {"kind": "huge_body", "mebibytes": 2},
    ],
    ids=str,
)
async def test_an_unusable_answer_proves_nothing(system: System, fault: dict[str, Any]) -> None:
    await system.deliver(integration_request_id="id-1")
    await system.simulator.fault(match="lookup", target=system.place, **fault)

    assert (await system.lookup("id-1")).outcome == NOT_KNOWN


async def test_a_lookups_retry_after_is_passed_on(system: System) -> None:
    await system.simulator.fault("status", match="lookup", target=system.place, status=429, retry_after="20")

    response = await system.lookup("id-1")

    assert (response.outcome, response.retry_after.ToSeconds()) == (NOT_KNOWN, 20)


async def test_a_lookup_out_of_order_proves_nothing(system: System) -> None:
    await system.settings(lookup="down")

    assert (await system.lookup("id-1")).outcome == NOT_KNOWN


async def test_a_silent_lookup_is_given_up_at_the_targets_timeout(system: System) -> None:
    system.extra["timeout_seconds"] = 0.3
    await system.fault("hang", match="lookup")

    response = await system.lookup("id-1")

    assert response.outcome == NOT_KNOWN
    assert response.duration.ToMilliseconds() < 8000


async def test_a_system_that_cannot_be_reached_proves_nothing(system: System) -> None:
    system.extra["base_url"] = f"http://127.0.0.1:{free_port()}"

    assert (await system.lookup("id-1")).outcome == NOT_KNOWN


async def test_a_lookup_posts_nothing(system: System) -> None:
    await system.lookup("id-1")

    assert [call["method"] for call in await system.calls()] == ["GET"]


async def test_a_lookup_carries_correlation_and_trace(system: System) -> None:
    adapter = await system.started()
    request = pb.LookupRequest(
        integration_request_id="id-1",
        correlation_id=CORRELATION_ID,
        traceparent=TRACEPARENT,
        target_system=system.name,
    )
    await adapter.stub.Lookup(request, metadata=adapter.metadata)
    (call,) = await system.calls()

    assert (call["correlationId"], call["traceparent"]) == (CORRELATION_ID, TRACEPARENT)


async def test_a_lookup_of_an_unknown_target_is_not_found(system: System) -> None:
    adapter = await system.started()

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await adapter.lookup("Nowhere", "id-1")

    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


async def test_every_target_is_listed_with_what_it_can_do(system: System) -> None:
    adapter = await system.started()

    listed = await adapter.stub.ListTargets(pb.ListTargetsRequest(), metadata=adapter.metadata)

    (target,) = listed.targets
    assert (target.name, target.adapter, target.supports_lookup) == (system.name, system.table["adapter"], True)


async def test_a_found_protheus_order_is_given_as_protheus_holds_it(protheus: System) -> None:
    await protheus.deliver(integration_request_id="id-1")

    found = json.loads((await protheus.lookup("id-1")).response_json)

    assert (found["protheusOrderId"], found["integrationId"]) == ("PRO-000001", "id-1")


async def test_an_order_that_protheus_holds_twice_is_found_and_said_so(protheus: System) -> None:
    for _ in range(2):
        await protheus.deliver(integration_request_id="id-1")
    with capture_logs() as lines:
        response = await protheus.lookup("id-1")

    assert (response.outcome, response.detail) == (FOUND, "2 orders have this id")
    assert [line["hits"] for line in lines if line["event"] == "Duplicate in target"] == [2]
    assert len(await protheus.orders()) == 2


async def test_a_document_that_a_system_lists_twice_is_found_and_said_so(orders_api: System) -> None:
    await orders_api.fault("status", match="lookup", status=200, body='[{"id":"ORD-1"},{"id":"ORD-2"}]')
    with capture_logs() as lines:
        response = await orders_api.lookup("id-1")

    assert (response.outcome, response.detail) == (FOUND, "2 documents have this key")
    assert [line["hits"] for line in lines if line["event"] == "Duplicate in target"] == [2]


async def test_a_conflict_about_an_earlier_post_is_settled_by_the_lookup(orders_api: System) -> None:
    await orders_api.settings(duplicates="refuse")
    await orders_api.fault("reset_after")
    await orders_api.deliver(integration_request_id="id-1")

    again = await orders_api.deliver(integration_request_id="id-1")

    assert again.outcome == pb.OUTCOME_DELIVERED


async def test_a_conflict_is_not_settled_by_the_documents_of_others(orders_api: System) -> None:
    await orders_api.settings(duplicates="refuse")
    await orders_api.deliver(integration_request_id="id-1")
    await orders_api.fault(
        "status", match="lookup", status=200, body='[{"integrationId":"id-2"},{"integrationId":"id-3"}]'
    )

    again = await orders_api.deliver(integration_request_id="id-1")

    assert again.outcome == pb.OUTCOME_UNKNOWN


async def test_a_conflict_is_not_known_while_the_lookup_is_down(orders_api: System) -> None:
    await orders_api.settings(duplicates="refuse", lookup="down")
    await orders_api.deliver(integration_request_id="id-1")

    again = await orders_api.deliver(integration_request_id="id-1")

    assert again.outcome == pb.OUTCOME_UNKNOWN


async def test_a_key_whose_first_post_runs_still_is_not_known(orders_api: System) -> None:
    orders_api.extra |= {"idempotent": True, "timeout_seconds": 1}
    await orders_api.deliver(integration_request_id="id-0")  # so that the connection stands
    await orders_api.settings(idempotency=True)
    await orders_api.fault("slow", delay_seconds=20)
    await orders_api.deliver(integration_request_id="id-1")

    again = await orders_api.deliver(integration_request_id="id-1")

    assert (again.outcome, again.code) == (pb.OUTCOME_UNKNOWN, "409")


async def test_a_target_without_a_lookup_says_so(orders_api: System) -> None:
    orders_api.extra |= {"lookup": ""}

    assert (await orders_api.lookup("id-1")).outcome == pb.LOOKUP_OUTCOME_UNSUPPORTED


async def test_protheus_says_that_an_order_is_there_already(protheus: System) -> None:
    await protheus.settings(duplicates="refuse")
    await protheus.deliver(integration_request_id="id-1")

    again = await protheus.deliver(integration_request_id="id-1")

    assert again.outcome == pb.OUTCOME_DELIVERED
    assert json.loads(again.response_json)["protheusOrderId"] == "PRO-000001"


@pytest.mark.parametrize(
    ("is_held", "lookup", "outcome"),
    [
        (True, "on", pb.OUTCOME_DELIVERED),
        (False, "on", pb.OUTCOME_REJECTED),
        (True, "down", pb.OUTCOME_UNKNOWN),
    ],
)
async def test_what_protheus_includes_already_and_does_not_name_is_settled_by_the_lookup(
    protheus: System, is_held: bool, lookup: str, outcome: int
) -> None:
    if is_held:
        await protheus.deliver(integration_request_id="id-1")
    await protheus.settings(lookup=lookup)
    body = {"code": "E7", "message": "Registro ja incluido", "detailedMessage": ""}
    await protheus.fault("status", status=400, body=body)

    assert (await protheus.deliver(integration_request_id="id-1")).outcome == outcome


async def test_protheus_without_a_free_licence_is_throttled(protheus: System) -> None:
    await protheus.fault("no_licence", retry_after="7")

    response = await protheus.deliver()

    assert (response.outcome, response.retry_after.ToSeconds()) == (pb.OUTCOME_THROTTLED, 7)


async def test_a_business_error_of_protheus_is_a_refusal_though_it_is_500(protheus: System) -> None:
    response = await protheus.deliver(payload_json='{"customer":"without orderId"}')

    assert (response.outcome, response.code) == (pb.OUTCOME_REJECTED, "104")


async def test_a_proxys_500_page_in_front_of_protheus_is_no_refusal(protheus: System) -> None:
    await protheus.fault("html", status=500)

    assert (await protheus.deliver()).outcome == pb.OUTCOME_UNAVAILABLE
