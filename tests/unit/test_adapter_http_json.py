"""What each answer of a plain JSON system means: the tables in the adapter's docstring, row by row."""

import json
from typing import Any

import pytest
from multidict import CIMultiDict

from adapter_service.adapters.http_json import classify, classify_lookup
from adapter_service.answers import Answer, read_answer
from adapter_service.outcome import Absent, Delivered, Found, NotKnown, Rejected, Throttled, Unavailable, Unknown
from chassis.http_client import HttpAnswer

KEY = "3fa85f64-5717-4562-b3fc-2c963f66afa6"
HTML = "<html><head><title>a page</title></head></html>"


def answer(status: int, body: Any = "") -> Answer:
    content = (body if isinstance(body, str) else json.dumps(body)).encode()
    headers = CIMultiDict({"content-length": str(len(content))})
    return read_answer(HttpAnswer(status=status, headers=headers, body=content, is_complete=True))


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, {"id": 1}, Delivered),
        (200, [1], Delivered),
        (200, {}, Delivered),
        (200, '"accepted"', Delivered),
        (200, {"errors": [], "error": None, "success": True}, Delivered),
        (200, {"code": 0, "message": "OK"}, Delivered),
        (201, "", Delivered),
        (202, "", Delivered),
        (204, "", Delivered),
        (200, "", Unknown),
        (203, "", Unknown),
        (201, HTML, Unknown),
        (200, "OK", Unknown),
        (200, '{"id":', Unknown),
        (200, {"error": {"code": "X"}}, Rejected),
        (200, {"errors": ["X"]}, Rejected),
        (200, {"success": False}, Rejected),
        (200, {"code": "102", "message": "Erro", "detailedMessage": "x"}, Rejected),
        (200, {"errorCode": 1, "errorMessage": "x"}, Rejected),
        (301, "", Rejected),
        (400, {"message": "x"}, Rejected),
        (404, "", Rejected),
        (408, "", Unavailable),
        (409, "", Rejected),
        (422, "", Rejected),
        (425, "", Unavailable),
        (429, "", Throttled),
        (500, "", Unknown),
        (500, HTML, Unknown),
        (500, {"code": "1", "message": "x"}, Unknown),
        (501, "", Rejected),
        (502, "", Unknown),
        (503, "", Unavailable),
        (503, HTML, Unavailable),
        (504, "", Unknown),
        (505, "", Rejected),
        (101, "", Unknown),
        (303, "", Unknown),
        (600, "", Unknown),
    ],
)
def test_an_answer_has_its_outcome(status: int, body: Any, outcome: type) -> None:
    assert type(classify(answer(status, body))) is outcome


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, {"id": 1}, Found),
        (200, [{"id": 1}], Found),
        (200, {"items": [{"id": 1}]}, Found),
        (200, {"data": {"id": 1}}, Found),
        (200, {}, Absent),
        (200, [], Absent),
        (200, "", Absent),
        (204, "", Absent),
        (404, "", Absent),
        (404, {"error": "no such order"}, Absent),
        (200, {"items": []}, Absent),
        (200, {"data": [], "total": 0, "hasNext": False}, Absent),
        # An order without items, or a list without hits: nobody can tell.
        (200, {"id": 1, "items": []}, NotKnown),
        # A web server's own page: the path may be wrong.
        (404, HTML, NotKnown),
        (200, HTML, NotKnown),
        (200, "null", NotKnown),
        (200, '"x"', NotKnown),
        (200, '{"id":', NotKnown),
        (200, {"error": "boom"}, NotKnown),
        (202, {"id": 1}, NotKnown),
        (302, "", NotKnown),
        (400, "", NotKnown),
        (403, "", NotKnown),
        (410, "", NotKnown),
        (429, "", NotKnown),
        (500, "", NotKnown),
        (503, "", NotKnown),
    ],
)
def test_a_lookup_has_its_outcome(status: int, body: Any, outcome: type) -> None:
    assert type(classify_lookup(answer(status, body), "integrationId", KEY)) is outcome


@pytest.mark.parametrize(
    "body",
    [
        [{"id": 1}, {"id": 2}],
        {"items": [{"id": 1}, {"id": 2}]},
        {"data": [{"id": 1}, {"id": 2}], "total": 2, "hasNext": False},
    ],
)
def test_a_document_held_twice_is_said_so(body: Any) -> None:
    outcome = classify_lookup(answer(200, body), "integrationId", KEY)

    assert isinstance(outcome, Found)
    assert (outcome.hits, outcome.detail) == (2, "2 documents have this key")


@pytest.mark.parametrize(
    "body",
    [
        {"id": 1},
        [{"id": 1}],
        {"items": [{"id": 1}], "total": 1},
        {"data": {"id": 1, "lines": [1, 2]}},
        {"id": 1, "items": [{"line": 1}, {"line": 2}]},
    ],
)
def test_one_document_is_no_duplicate_however_many_lines_it_has(body: Any) -> None:
    outcome = classify_lookup(answer(200, body), "integrationId", KEY)

    assert isinstance(outcome, Found)
    assert (outcome.hits, outcome.detail) == (1, "")


def test_an_answer_that_ends_with_its_head_and_names_no_length_proves_no_absence() -> None:
    cut_off = read_answer(HttpAnswer(status=200, headers=CIMultiDict(), body=b"", is_complete=True))

    assert type(classify_lookup(cut_off, "integrationId", KEY)) is NotKnown
