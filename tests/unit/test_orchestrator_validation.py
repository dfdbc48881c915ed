"""Payload schemas: what is found, in whose words, and which schemas are refused."""

import json
import time
from typing import Any

import pytest

from orchestrator_service.validation import MAX_FINDINGS, WHOLE_PAYLOAD, BadSchema, PayloadSchema

ORDER: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["orderId", "amount"],
    "properties": {
        "orderId": {"type": "string", "minLength": 1},
        "amount": {"type": "number", "minimum": 0},
        "orderedAt": {"type": "string", "format": "date-time"},
        "items": {"type": "array", "items": {"$ref": "#/$defs/item"}},
        "notes": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "additionalProperties": False,
    "$defs": {
        "item": {
            "type": "object",
            "required": ["price"],
            "properties": {"price": {"type": "number"}},
        }
    },
}
VALID = '{"orderId":"ORD-2024-001","amount":15000.00}'


def fields(payload: str, schema: Any = ORDER) -> list[str]:
    return [finding.field for finding in PayloadSchema(schema).check(payload)]


def test_a_valid_payload_has_no_findings() -> None:
    assert fields(VALID) == []


def test_a_missing_field_is_named() -> None:
    assert fields('{"amount":1}') == ["orderId"]


def test_every_wrong_field_is_named() -> None:
    assert sorted(fields('{"orderId":"","amount":-1}')) == ["amount", "orderId"]


def test_a_field_in_a_list_is_named_without_its_position() -> None:
    assert fields('{"orderId":"A","amount":1,"items":[{"price":1},{"price":"x"}]}') == ["items.price"]


def test_a_missing_field_in_a_list_is_named_with_its_path() -> None:
    assert fields('{"orderId":"A","amount":1,"items":[{}]}') == ["items.price"]


def test_formats_are_checked() -> None:
    assert fields('{"orderId":"A","amount":1,"orderedAt":"yesterday"}') == ["orderedAt"]


def test_a_key_of_the_partners_own_never_becomes_a_field() -> None:
    assert fields('{"orderId":"A","amount":1,"evil-label":1}') == [WHOLE_PAYLOAD]


def test_a_path_ends_before_a_key_that_the_schema_does_not_name() -> None:
    assert fields('{"orderId":"A","amount":1,"notes":{"evil-label":1}}') == ["notes"]


@pytest.mark.parametrize(
    "payload",
    [
        '{"orderId":"A","amount":"hunter2"}',
        '{"orderId":"A","amount":1,"hunter2":1}',
        '{"orderId":"A","amount":1,"orderedAt":"hunter2"}',
    ],
)
def test_a_finding_holds_nothing_of_the_payload(payload: str) -> None:
    findings = PayloadSchema(ORDER).check(payload)

    assert findings
    assert all("hunter2" not in finding.detail for finding in findings)


def test_names_of_keys_are_not_quoted_either() -> None:
    schema = {"type": "object", "propertyNames": {"maxLength": 3}}
    [finding] = PayloadSchema(schema).check('{"hunter2":1}')

    assert "hunter2" not in finding.detail


@pytest.mark.parametrize("payload", ["[]", "null", "17", '"text"'])
def test_what_is_not_an_object_is_a_finding_of_the_whole_payload(payload: str) -> None:
    assert fields(payload) == [WHOLE_PAYLOAD]


def test_what_is_not_json_is_a_finding() -> None:
    assert fields("{") == [WHOLE_PAYLOAD]


def test_long_numbers_are_compared_exactly() -> None:
    schema = {"properties": {"n": {"type": "integer", "maximum": 9007199254740992}}}

    assert fields('{"n":9007199254740993}', schema) == ["n"]


def test_findings_are_bounded() -> None:
    schema = {"properties": {"n": {"items": {"type": "string"}}}}

    assert len(fields(json.dumps({"n": [1] * 1000}), schema)) == MAX_FINDINGS


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "https://example.com/order.json"},
        {"properties": {"a": {"$ref": "https://example.com/order.json#/a"}}},
        {"$ref": "file:///etc/passwd"},
        {"$ref": "other.json"},
        {"type": "nonsense"},
        {"properties": {"a": {"format": "no-such-format"}}},
        {"$schema": "https://example.com/own-dialect", "type": "object"},
        "a text",
        7,
    ],
)
def test_a_schema_that_cannot_be_trusted_is_refused_at_start(schema: Any) -> None:
    with pytest.raises(BadSchema):
        PayloadSchema(schema)


@pytest.mark.parametrize("pattern", ["^(a+)+$", r"^(\w+\s?)*$", "^(a|aa)+$", "^(.*a){20}$"])
def test_a_pattern_takes_linear_time_whatever_the_text(pattern: str) -> None:
    schema = PayloadSchema({"properties": {"a": {"pattern": pattern}}})
    started = time.perf_counter()

    schema.check(json.dumps({"a": "a" * 20_000 + "!"}))

    assert time.perf_counter() - started < 1


@pytest.mark.parametrize("pattern", ["(?=a)b", r"(a)\1", "(?<!a)b"])
def test_a_pattern_that_needs_to_look_around_is_refused(pattern: str) -> None:
    with pytest.raises(BadSchema):
        PayloadSchema({"properties": {"a": {"pattern": pattern}}})


@pytest.mark.parametrize("reference", ["http://127.0.0.1:1/schema.json", "file:///etc/passwd", "other.json"])
def test_a_reference_to_another_document_is_refused(reference: str) -> None:
    with pytest.raises(BadSchema):
        PayloadSchema({"properties": {"a": {"$ref": reference}}})
