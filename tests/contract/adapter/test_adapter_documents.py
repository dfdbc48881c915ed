"""What every adapter sends: the partner's document untouched, the request's own key, the headers."""

import json
from typing import Any

import grpc
import pytest

from integrationhub.adapter.v1 import adapter_pb2 as pb
from tests.contract.adapter.conftest import CORRELATION_ID, TRACEPARENT, System

DIGITS = '{"orderId":"O-1","amount":15000.00,"big":9007199254740993,"tiny":1e-30,"nested":{"price":[0.10, 2.50 ]}}'


async def sent(system: System, **fields: Any) -> str:
    """Deliver one document and return the body as the system received it."""
    await system.deliver(**fields)
    (order,) = await system.orders()
    body: str = order["body"]
    return body


@pytest.mark.parametrize("piece", ['"amount":15000.00', '"big":9007199254740993', '"tiny":1e-30', "[0.10, 2.50 ]"])
async def test_numbers_arrive_digit_for_digit(system: System, piece: str) -> None:
    assert piece in await sent(system, payload_json=DIGITS)


async def test_letters_of_every_kind_arrive(system: System) -> None:
    body = await sent(system, payload_json='{"orderId":"O-1","customer":"São João \\u20ac \\ud83d\\ude00 \\"x\\""}')

    assert json.loads(body)["customer"] == 'São João € 😀 "x"'


async def test_the_document_carries_the_requests_id(system: System) -> None:
    assert json.loads(await sent(system, integration_request_id="id-1"))["integrationId"] == "id-1"


async def test_a_key_that_the_partner_sent_does_not_stand_beside_ours(system: System) -> None:
    payload = '{"orderId":"O-1","integrationId":"theirs"}'

    body = await sent(system, integration_request_id="id-1", payload_json=payload)

    assert (body.count('"integrationId"'), json.loads(body)["integrationId"]) == (1, "id-1")


async def test_a_large_document_arrives_whole(system: System) -> None:
    text = "x" * (1024 * 1024)

    body = await sent(system, payload_json=json.dumps({"orderId": "O-1", "text": text}))

    assert json.loads(body)["text"] == text


async def test_the_call_carries_key_correlation_and_trace(system: System) -> None:
    await system.deliver(integration_request_id="id-1")
    (call,) = await system.posts()

    assert call["idempotencyKey"] == "id-1"
    assert call["correlationId"] == CORRELATION_ID
    assert call["traceparent"] == TRACEPARENT


async def test_a_correlation_id_that_no_header_can_carry_is_replaced(system: System) -> None:
    await system.deliver(correlation_id="evil\r\nX-Other: 1")
    (call,) = await system.posts()

    assert "evil" not in call["correlationId"]


async def test_without_a_trace_none_is_sent(system: System) -> None:
    await system.deliver(traceparent="")
    (call,) = await system.posts()

    assert call["traceparent"] is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("payload_json", "[1]"),
        ("payload_json", '{"orderId":'),
        ("payload_json", ""),
        ("integration_request_id", ""),
        ("integration_request_id", "a\r\nb"),
        ("external_id", "a b"),
    ],
)
async def test_a_bad_delivery_is_refused_and_nothing_is_sent(system: System, field: str, value: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await system.deliver(**{field: value})

    assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert await system.posts() == []


async def test_an_unknown_target_is_not_found(system: System) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await system.deliver(target_system="Nowhere")

    assert raised.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_caller_without_a_token_is_turned_away(system: System) -> None:
    adapter = await system.started()

    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await adapter.stub.Deliver(pb.DeliverRequest())

    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_protheus_is_told_where_the_document_comes_from(protheus: System) -> None:
    assert json.loads(await sent(protheus, source_system="SAP"))["originSystem"] == "SAP"


async def test_protheus_gets_its_tenant(protheus: System) -> None:
    protheus.extra |= {"tenant_id": "T3,M RJ 01"}

    assert (await protheus.deliver()).outcome == pb.OUTCOME_DELIVERED


async def test_the_key_has_the_name_that_the_configuration_gives_it(orders_api: System) -> None:
    orders_api.extra |= {"key_field": "hubKey"}

    body = json.loads(await sent(orders_api, integration_request_id="id-1"))

    assert (body["hubKey"], "integrationId" in body) == ("id-1", False)


async def test_a_system_that_takes_no_other_member_gets_the_payload_alone(orders_api: System) -> None:
    orders_api.extra |= {"key_field": ""}

    assert await sent(orders_api, payload_json=DIGITS) == DIGITS
