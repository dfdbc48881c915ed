"""What a plain JSON system's answer to a lookup proves: whose documents, how many, and whether there are more."""

import json
from typing import Any

import pytest

from adapter_service.adapters.http_json import classify_lookup
from adapter_service.answers import Answer, read_answer
from adapter_service.outcome import Absent, Found, LookupOutcome, NotKnown
from chassis.http_client import HttpAnswer

KEY = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
OURS, THEIRS = {"integrationId": KEY}, {"integrationId": "theirs-1"}


def answer(status: int, body: Any) -> Answer:
    content = (body if isinstance(body, str) else json.dumps(body)).encode()
    return read_answer(HttpAnswer(status=status, headers={}, body=content, is_complete=True))


def looked_up(body: Any, *, status: int = 200, key_field: str = "integrationId") -> LookupOutcome:
    return classify_lookup(answer(status, body), key_field, KEY)


@pytest.mark.parametrize(
    "body",
    [
        [THEIRS, {"integrationId": "theirs-2"}],
        [THEIRS, {"id": 2}],
        THEIRS,
        {"INTEGRATIONID": "theirs-1"},
        {"items": [THEIRS], "hasNext": True},
        {"d": {"results": [THEIRS]}},
        {"code": 0, "message": "OK", "data": [THEIRS]},
        {"status": "success", "data": {"orders": [THEIRS]}},
        {"_embedded": {"orders": [THEIRS]}, "_links": {"self": "/orders"}, "page": {"totalElements": 1}},
        {"content": [THEIRS], "pageable": {"offset": 0}, "last": True, "number": 0, "empty": False},
    ],
    ids=json.dumps,
)
def test_documents_of_others_prove_that_the_filter_is_not_honoured(body: Any) -> None:
    outcome = looked_up(body)

    assert isinstance(outcome, NotKnown)
    assert outcome.detail == "the lookup answered with other documents: it does not honour its filter"


@pytest.mark.parametrize(
    "body",
    [
        [OURS, THEIRS],
        [{"integrationId": KEY.upper()}],
        [{"IntegrationId": KEY}],
        {"Items": [OURS], "TotalCount": 1},
        {"d": {"results": [OURS]}},
        {"result": OURS},
        {"d": OURS},
        [None, OURS],
        {"integrationId": None, "id": 1},
        {"integrationId": 17, "id": 1},
    ],
    ids=json.dumps,
)
def test_our_document_is_one_hit_whatever_is_beside_it(body: Any) -> None:
    outcome = looked_up(body)

    assert isinstance(outcome, Found)
    assert (outcome.hits, outcome.detail) == (1, "")


@pytest.mark.parametrize(
    "body",
    [
        [OURS, OURS, THEIRS],
        {"D": {"Results": [{"id": 1}, {"id": 2}]}},
        {"result": [OURS, {"id": 2}]},
        {"@odata.context": "x", "value": [OURS, OURS]},
    ],
    ids=json.dumps,
)
def test_two_documents_that_may_both_be_ours_are_two_hits(body: Any) -> None:
    outcome = looked_up(body)

    assert isinstance(outcome, Found)
    assert outcome.hits == 2


def test_a_system_that_takes_no_key_field_is_taken_at_its_word() -> None:
    assert type(looked_up([THEIRS], key_field="")) is Found


@pytest.mark.parametrize(
    "body",
    [
        {"d": {"results": []}},
        {"d": {"results": [], "__count": "0"}},
        {"Items": [], "TotalCount": 0},
        {"data": {"items": []}},
        {"data": {"items": [], "next_cursor": None}},
        {"result": []},
        {"@odata.context": "x", "@odata.count": 0, "value": []},
        {"items": [], "hasNext": "false", "total": "0"},
        {"data": [], "links": {"self": "/orders", "next": None}, "meta": {"total": 0}},
        {"success": True, "results": [], "next": None, "previous": None},
        {"status": "success", "data": {"orders": []}},
        {"code": 0, "message": "OK", "data": []},
        {"content": [], "pageable": {"pageNumber": 0}, "last": True, "totalElements": 0, "number": 0, "empty": True},
    ],
    ids=json.dumps,
)
def test_an_empty_list_is_absence_however_it_is_wrapped(body: Any) -> None:
    assert type(looked_up(body)) is Absent


@pytest.mark.parametrize(
    "body",
    [
        {"items": [], "hasNext": True},
        {"items": [], "HasNext": "true"},
        {"items": [], "total": 5},
        {"items": [], "totalCount": "5"},
        {"orders": [], "nextCursor": "abc"},
        {"data": [], "meta": {"total": 5}},
        {"data": [], "links": {"next": "/orders?page=2"}},
        {"data": {"items": []}, "has_more": True},
        {"value": [], "@odata.nextLink": "/orders?skip=2"},
        {"records": [], "done": False, "totalSize": 3},
        {"content": [], "last": False},
    ],
    ids=json.dumps,
)
def test_an_empty_page_with_more_to_come_proves_no_absence(body: Any) -> None:
    assert type(looked_up(body)) is NotKnown


@pytest.mark.parametrize(
    "body",
    [
        {"total": 0},
        {"found": False},
        {"message": "not found"},
        {"code": 404, "message": "not found", "data": None},
        {"code": 500, "message": "internal error", "data": []},
        {"found": False, "items": []},
        {"status": "ok", "data": {"pedido": None}},
        {"pedidos": []},
        {"data": None},
        {"data": {}},
        {"data": {"pedidos": []}},
        {"items": None, "total": 0},
        [None],
        [{}],
        [[]],
        {"items": [None]},
        {
            "_links": {"self": {"href": "/orders"}},
            "page": {"size": 20, "totalElements": 0, "totalPages": 0, "number": 0},
        },
        {"success": True},
    ],
    ids=json.dumps,
)
def test_an_answer_that_holds_nothing_is_neither_found_nor_absent(body: Any) -> None:
    assert type(looked_up(body)) is NotKnown


@pytest.mark.parametrize(
    "body",
    [
        {"id": 1, "value": 0},
        {"id": 1, "data": None},
        {"id": 1, "found": False, "message": ""},
        {"message": "found", "order": {"id": 1}},
        {"status": "Created"},
        {"status": "Created", "items": [{"line": 1}, {"line": 2}]},
        {"found": True},
        {"data": "ORD-1"},
        [1],
        ["ORD-1"],
    ],
    ids=json.dumps,
)
def test_an_object_or_a_list_that_holds_anything_is_found(body: Any) -> None:
    outcome = looked_up(body)

    assert isinstance(outcome, Found)
    assert outcome.hits == 1


@pytest.mark.parametrize(
    "body",
    [
        "404 page not found",
        "404 page not found\n",
        "default backend - 404",
        {"message": "no Route matched with those values"},
        {"message": "no Route matched with those values", "request_id": "1f"},
    ],
    ids=json.dumps,
)
def test_a_routers_404_is_not_the_systems(body: Any) -> None:
    assert type(looked_up(body, status=404)) is NotKnown


@pytest.mark.parametrize("body", ["", "Not Found", {"message": "Order not found"}, {"detail": "Not found."}])
def test_the_systems_404_is_absence(body: Any) -> None:
    assert type(looked_up(body, status=404)) is Absent
