"""A success status with a body that speaks of an error, in the words of the systems that answer so."""

import json
from typing import Any

import pytest

from adapter_service.adapters import totvs_protheus
from adapter_service.adapters.http_json import classify, classify_lookup
from adapter_service.answers import Answer, read_answer
from adapter_service.outcome import Delivered, Found, NotKnown, Rejected, Unknown
from chassis.http_client import HttpAnswer

KEY = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
FAILED = {"success": False, "errors": [{"statusCode": "DUPLICATE_VALUE"}]}
DONE = {"success": True, "id": "a01", "errors": []}


def answer(body: Any) -> Answer:
    content = (body if isinstance(body, str) else json.dumps(body)).encode()
    return read_answer(HttpAnswer(status=200, headers={}, body=content, is_complete=True))


ERRORS = [
    # Salesforce's collections: one result for each record.
    [FAILED],
    [FAILED, {"success": False}],
    # JSend.
    {"status": "error", "message": "x"},
    {"status": "fail", "data": {"orderId": "required"}},
    {"status": "Failure", "message": "x"},
    {"status": "failed", "message": "x"},
    {"status": "error"},
    # Omie, and SOAP's faults in JSON.
    {"faultcode": "SOAP-ENV:Client-101", "faultstring": "ERROR: x"},
    {"fault": {"faultstring": "x"}},
    {"ok": False},
    {"Success": "false"},
    {"data": {"success": False}},
    {"data": [FAILED]},
]


@pytest.mark.parametrize("body", ERRORS, ids=json.dumps)
def test_a_body_that_speaks_of_an_error_is_a_refusal(body: Any) -> None:
    assert type(classify(answer(body))) is Rejected


@pytest.mark.parametrize("body", ERRORS, ids=json.dumps)
def test_an_error_is_no_document_that_was_found(body: Any) -> None:
    assert type(classify_lookup(answer(body), "integrationId", KEY)) is NotKnown


@pytest.mark.parametrize("body", [[DONE, FAILED], {"data": [FAILED, DONE]}], ids=json.dumps)
def test_what_was_done_in_part_is_not_known(body: Any) -> None:
    assert type(classify(answer(body))) is Unknown
    assert type(classify_lookup(answer(body), "integrationId", KEY)) is NotKnown


def test_a_list_of_which_a_part_was_done_is_not_known_of_protheus_either() -> None:
    assert type(totvs_protheus.classify(answer([DONE, FAILED]))) is Unknown


@pytest.mark.parametrize("body", ["false", "null"])
def test_neither_false_nor_null_says_that_it_was_done(body: str) -> None:
    assert type(classify(answer(body))) is Unknown


@pytest.mark.parametrize(
    "body",
    [
        [DONE],
        [1],
        {},
        '"accepted"',
        "0",
        "true",
        {"ok": True, "success": "true", "status": "success"},
        {"status": "Created", "message": "x"},
        {"data": {"success": True}},
        {"data": []},
        {"id": 1, "fault": False},
        # A stored document's own state.
        {"id": 1, "status": "error"},
    ],
    ids=json.dumps,
)
def test_a_body_without_an_error_is_a_delivery(body: Any) -> None:
    assert type(classify(answer(body))) is Delivered


def test_a_document_in_a_state_of_its_own_is_found() -> None:
    assert type(classify_lookup(answer({"id": 1, "status": "error"}), "integrationId", KEY)) is Found
