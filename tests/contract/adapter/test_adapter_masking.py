"""What a target's configuration wants masked is shown nowhere: neither in the kept answer nor in the words about it."""

from typing import Any

import pytest

from integrationhub.adapter.v1 import adapter_pb2 as pb
from tests.contract.adapter.conftest import TOKEN, System

TAX_ID = "123.456.789-00"
BODY = {"customer": {"taxId": TAX_ID, "name": "Empresa ABC"}, "note": "kept"}


@pytest.mark.parametrize("body", [BODY, str(BODY)], ids=["JSON", "text that was JSON"])
@pytest.mark.parametrize("status", [200, 400, 409, 429, 500, 503])
async def test_a_masked_member_is_in_no_answer_to_a_post(system: System, status: int, body: Any) -> None:
    system.extra["redact"] = ["$.customer.taxId"]
    await system.fault("status", status=status, body=body)

    response = await system.deliver()

    assert TAX_ID not in response.response_json + response.detail
    assert "***" in response.response_json


@pytest.mark.parametrize("status", [200, 400, 404, 429, 503])
async def test_a_masked_member_is_in_no_answer_to_a_lookup(system: System, status: int) -> None:
    system.extra["redact"] = ["$.customer.taxId"]
    await system.fault("status", match="lookup", status=status, body=BODY)

    response = await system.lookup("id-1")

    assert TAX_ID not in response.response_json + response.detail
    assert "***" in response.response_json + response.detail


async def test_a_masked_text_of_protheus_is_not_the_reason_of_the_refusal(protheus: System) -> None:
    protheus.extra["redact"] = ["$.detailedMessage"]
    body = {"code": "103", "message": "Cliente inexistente", "detailedMessage": TAX_ID}
    await protheus.fault("status", status=500, body=body)

    response = await protheus.deliver()

    assert (response.outcome, response.code) == (pb.OUTCOME_REJECTED, "103")
    assert response.detail == "Cliente inexistente: ***"


async def test_a_masked_text_of_protheus_says_all_the_same_that_the_order_is_there(protheus: System) -> None:
    protheus.extra["redact"] = ["$.message"]
    body = {"code": "E7", "message": "Pedido ja incluido no pedido do Protheus: 000123", "detailedMessage": ""}
    await protheus.fault("status", status=500, body=body)

    response = await protheus.deliver()

    assert response.outcome == pb.OUTCOME_DELIVERED
    assert response.response_json == ('{"protheusOrderId":"000123","code":"E7","message":"***","detailedMessage":""}')


async def test_the_number_of_an_order_that_is_there_is_masked_where_it_is_wanted(protheus: System) -> None:
    protheus.extra["redact"] = ["$.protheusOrderId", "$.message"]
    body = {"code": "111", "message": "Pedido ja incluido no pedido do Protheus: 000123"}
    await protheus.fault("status", status=500, body=body)

    response = await protheus.deliver()

    assert response.outcome == pb.OUTCOME_DELIVERED
    assert response.response_json == '{"protheusOrderId":"***","code":"111","message":"***"}'


async def test_an_echo_of_an_escaped_secret_is_masked(orders_api: System) -> None:
    orders_api.extra["auth"] = {"kind": "basic", "username": "hub", "password": "env:ORDERS_PASSWORD"}
    await orders_api.started()
    await orders_api.fault("status", status=400, body='{"seen":"' + TOKEN.replace("-", "\\u002d") + '"}')

    response = await orders_api.deliver()

    assert (response.response_json, response.detail) == ('{"seen":"***"}', 'HTTP 400: {"seen":"***"}')
