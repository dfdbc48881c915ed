"""JSON ↔ proto: what is read, what is refused, what is shown."""

import msgspec
import pytest

from chassis.access import NO_LIMITS
from chassis.clock import SECOND, to_timestamp
from chassis.errors import InvalidRequest, Violation
from gateway.mapping import (
    STATUS_NAMES,
    etag_matches,
    find_violations,
    read_create_body,
    read_id,
    to_body,
    to_create_request,
    to_history_body,
)
from gateway.problems import MalformedRequest
from integrationhub.intake.v1 import intake_pb2 as pb

GOOD = b'{"externalId":"A","sourceSystem":"SAP","targetSystem":"SAP","payload":{"n":15000.00}}'


def stored(**fields: object) -> pb.IntegrationRequest:
    at = to_timestamp(1_705_314_600 * SECOND)
    request = pb.IntegrationRequest(id="1", status=pb.INTEGRATION_REQUEST_STATUS_FAILED, created_at=at, updated_at=at)
    for name, value in fields.items():
        setattr(request, name, value)
    return request


def test_a_payload_is_carried_as_text() -> None:
    request = to_create_request(
        read_create_body(GOOD), partner_id="acme", limits=NO_LIMITS, correlation_id="c", traceparent="t"
    )

    assert request.payload_json == '{"n":15000.00}'
    assert (request.partner_id, request.correlation_id, request.traceparent) == ("acme", "c", "t")


def test_an_escaped_key_is_the_key_it_spells() -> None:
    body = read_create_body(GOOD.replace(b"externalId", b"extern\\u0061lId"))

    assert body.external_id == "A"


def test_a_key_that_is_repeated_in_disguise_is_malformed() -> None:
    with pytest.raises(MalformedRequest, match="twice"):
        read_create_body(GOOD.replace(b'{"externalId"', b'{"extern\\u0061lId":"B","externalId"', 1))


def test_a_name_may_use_every_character_of_its_rule() -> None:
    name = "AZaz09._:/-"

    assert read_create_body(GOOD.replace(b'"A"', f'"{name}"'.encode())).external_id == name


@pytest.mark.parametrize("length", [1, 128])
def test_a_name_has_1_to_128_characters(length: int) -> None:
    name = "x" * length

    assert read_create_body(GOOD.replace(b'"A"', f'"{name}"'.encode())).external_id == name


def test_a_good_body_has_no_violations() -> None:
    assert find_violations(GOOD) == []


def test_violations_keep_the_order_of_the_contract_then_of_the_body() -> None:
    violations = find_violations(b'{"b":1,"a":2,"payload":0}')

    assert [violation.pointer for violation in violations] == [
        "/externalId",
        "/sourceSystem",
        "/targetSystem",
        "/b",
        "/a",
        "/payload",
    ]


def test_at_most_20_violations_are_told() -> None:
    members = ",".join(f'"{number}":1' for number in range(100))

    assert len(find_violations(f"{{{members}}}".encode())) == 20


def test_a_bad_id_says_what_an_id_looks_like() -> None:
    with pytest.raises(InvalidRequest) as raised:
        read_id("7")

    assert raised.value.violations == (
        Violation(pointer="/id", detail="must be a UUID such as 3fa85f64-5717-4562-b3fc-2c963f66afa6"),
    )


def test_an_id_is_read_in_lower_case() -> None:
    assert read_id("3FA85F64-5717-4562-B3FC-2C963F66AFA6") == "3fa85f64-5717-4562-b3fc-2c963f66afa6"


def test_every_status_that_is_stored_has_its_name() -> None:
    assert set(STATUS_NAMES) == set(pb.IntegrationRequestStatus.values()) - {0}


def test_fields_without_a_value_are_left_out() -> None:
    shown = msgspec.json.decode(msgspec.json.encode(to_body(stored())))

    assert set(shown) == {
        "id",
        "externalId",
        "sourceSystem",
        "targetSystem",
        "status",
        "correlationId",
        "createdAt",
        "updatedAt",
    }


@pytest.mark.parametrize(
    ("kept", "shown"),
    [
        ('{"total": 15000.00}', b'{"total": 15000.00}'),
        ('"text"', b'"text"'),
        ("<html>", b'"<html>"'),
        ('{"capped": "at 64 Ki', b'"{\\"capped\\": \\"at 64 Ki"'),
    ],
)
def test_an_external_answer_is_shown_verbatim_or_as_text(kept: str, shown: bytes) -> None:
    body = msgspec.json.encode(to_body(stored(external_response_json=kept)))

    assert b'"externalResponse":' + shown in body


def test_a_transition_shows_neither_attempt_nor_duration() -> None:
    entry = pb.HistoryEntry(
        kind="transition", at=to_timestamp(SECOND), to_status=pb.INTEGRATION_REQUEST_STATUS_RECEIVED
    )

    shown = msgspec.json.decode(
        msgspec.json.encode(to_history_body(pb.ListIntegrationRequestHistoryResponse(entries=[entry])))
    )

    assert shown == {"items": [{"kind": "transition", "at": "1970-01-01T00:00:01.000Z", "toStatus": "Received"}]}


@pytest.mark.parametrize(
    ("if_none_match", "matches"),
    [
        (None, False),
        ("", False),
        ('"7"', True),
        ('W/"7"', True),
        ('"6","7"', True),
        ('"6" , W/"7"', True),
        ("*", True),
        ('"77"', False),
        ("7", False),
    ],
)
def test_if_none_match_names_tags(if_none_match: str | None, matches: bool) -> None:
    assert etag_matches(if_none_match, '"7"') is matches
