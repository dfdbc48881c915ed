"""Every bad input over gRPC: its code, its reason, the field it names, and nothing stored."""

from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from chassis.access import LIFECYCLE, OPERATIONS, REQUESTS_READ, REQUESTS_WRITE
from chassis.testing import TestKeys
from intake_service.store import tables
from integrationhub.intake.v1 import dead_letters_pb2 as letters
from integrationhub.intake.v1 import intake_pb2 as pb
from integrationhub.intake.v1 import lifecycle_pb2 as life
from tests.intake import IntakeUnderTest, new_request, refused, running_intake

NIL = "00000000-0000-7000-8000-000000000000"
NUL = "a\x00b"
FAR = Timestamp(seconds=2**62)
NOT_SIGNED = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhY21lIn0."


@pytest.fixture
async def hub(database_url: str, keys: TestKeys) -> AsyncIterator[IntakeUnderTest]:
    async with running_intake(database_url, keys) as intake:
        yield intake
        for table in tables.metadata.sorted_tables:
            assert await intake.rows(table) == [], f"{table.name} must hold nothing"


def raw_call(hub: IntakeUnderTest, method: str) -> "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]":
    """A method that takes and gives bytes."""
    return hub.channel.unary_unary(method)


def nested(depth: int) -> str:
    """An object with `depth` levels, objects and arrays by turns."""
    opening = "".join('{"a":' if level % 2 == 0 else "[" for level in range(depth))
    closing = "".join("}" if level % 2 == 0 else "]" for level in reversed(range(depth)))
    return f"{opening}1{closing}"


CREATES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "no external id": ({"external_id": ""}, {"/externalId"}),
    "external id too long": ({"external_id": "x" * 129}, {"/externalId"}),
    "external id with a space": ({"external_id": "a b"}, {"/externalId"}),
    "external id with a line break": ({"external_id": "a\r\nX-Evil: 1"}, {"/externalId"}),
    "external id ending in a line break": ({"external_id": "a\n"}, {"/externalId"}),
    "external id with NUL": ({"external_id": NUL}, {"/externalId"}),
    "external id with a zero-width character": ({"external_id": "a\u200bb"}, {"/externalId"}),
    "external id with a look-alike": ({"external_id": "\u0410"}, {"/externalId"}),
    "no source system": ({"source_system": ""}, {"/sourceSystem"}),
    "source system with NUL": ({"source_system": NUL}, {"/sourceSystem"}),
    "no target system": ({"target_system": ""}, {"/targetSystem"}),
    "unknown target system": ({"target_system": "Nowhere"}, {"/targetSystem"}),
    "target system in another case": ({"target_system": "totvsprotheus"}, {"/targetSystem"}),
    "no payload": ({"payload_json": ""}, {"/payload"}),
    "payload is no object": ({"payload_json": "[1]"}, {"/payload"}),
    "payload is null": ({"payload_json": "null"}, {"/payload"}),
    "payload is cut off": ({"payload_json": '{"a":'}, {"/payload"}),
    "payload has trailing data": ({"payload_json": "{} {}"}, {"/payload"}),
    "payload has a byte order mark": ({"payload_json": "\ufeff{}"}, {"/payload"}),
    "payload has a duplicate key": ({"payload_json": '{"a":1,"a":2}'}, {"/payload"}),
    "payload has a nested duplicate key": ({"payload_json": '{"a":[{"b":1,"b":1}]}'}, {"/payload"}),
    "payload has NaN": ({"payload_json": '{"a":NaN}'}, {"/payload"}),
    "payload has a number out of range": ({"payload_json": '{"a":1e400}'}, {"/payload"}),
    "payload has an endless integer": ({"payload_json": '{"a":' + "9" * 400 + "}"}, {"/payload"}),
    "payload has a lone surrogate": ({"payload_json": '{"a":"\\ud800"}'}, {"/payload"}),
    "payload has a raw control character": ({"payload_json": '{"a":"\x00"}'}, {"/payload"}),
    "payload is nested too deep": ({"payload_json": nested(65)}, {"/payload"}),
    "payload is nested far too deep": ({"payload_json": nested(100_000)}, {"/payload"}),
    "everything at once": (
        {"external_id": "", "source_system": "", "target_system": "", "payload_json": ""},
        {"/externalId", "/sourceSystem", "/targetSystem", "/payload"},
    ),
}


@pytest.mark.parametrize("case", CREATES)
async def test_a_bad_create_names_every_field_at_fault(hub: IntakeUnderTest, case: str) -> None:
    fields, at_fault = CREATES[case]
    message = new_request(**{"external_id": "E-1", **fields})

    refusal = await refused(hub.requests.CreateIntegrationRequest(message, metadata=hub.partner()))

    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")
    assert set(refusal.violations) == at_fault
    assert all(refusal.violations.values())


async def test_a_payload_over_one_mebibyte_is_refused_as_too_large(hub: IntakeUnderTest) -> None:
    payload = '{"a":"' + "x" * (1024 * 1024 - 7) + '"}'
    refusal = await refused(hub.create(payload_json=payload))

    assert len(payload) == 1024 * 1024 + 1
    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "PAYLOAD_TOO_LARGE")
    assert refusal.metadata == {"maximum": "1048576"}


async def test_a_message_beyond_the_servers_limit_is_refused(hub: IntakeUnderTest) -> None:
    refusal = await refused(hub.create(payload_json="x" * (17 * 1024 * 1024)))

    assert refusal.code == "RESOURCE_EXHAUSTED"


async def test_bytes_that_are_no_message_are_refused(hub: IntakeUnderTest) -> None:
    method = "/integrationhub.intake.v1.IntakeService/CreateIntegrationRequest"
    refusal = await refused(raw_call(hub, method)(b"\xff\xff\xff", metadata=hub.partner()))

    assert (refusal.code, refusal.reason) == ("INVALID_ARGUMENT", "INVALID_REQUEST")


@pytest.mark.parametrize("count", [0, 1001])
async def test_a_batch_must_hold_1_to_1000_items(hub: IntakeUnderTest, count: int) -> None:
    wanted = pb.BatchCreateIntegrationRequestsRequest(requests=[new_request(f"E-{n}") for n in range(count)])
    refusal = await refused(hub.requests.BatchCreateIntegrationRequests(wanted, metadata=hub.partner()))

    assert (refusal.code, set(refusal.violations)) == ("INVALID_ARGUMENT", {"/requests"})


BAD_IDS = ["", "x", NUL, NIL[:-1], NIL + "0", "{" + NIL[2:] + "}", NIL.replace("-", "_"), "1234_678" + NIL[8:]]
BAD_IDS += ["\uff11" + NIL[1:], "12345678123456781234567812345678----", "x" * 10_000]


@pytest.mark.parametrize("bad", BAD_IDS)
async def test_an_id_that_is_no_uuid_is_refused_by_every_call(hub: IntakeUnderTest, bad: str) -> None:
    refusals = [
        await refused(hub.get(bad)),
        await refused(hub.history(bad)),
        await refused(hub.cancel(bad)),
        await refused(hub.dead_letters.GetDeadLetter(letters.GetDeadLetterRequest(id=bad), metadata=hub.operator)),
    ]

    assert {(refusal.code, refusal.reason) for refusal in refusals} == {("INVALID_ARGUMENT", "INVALID_REQUEST")}
    assert all(set(refusal.violations) == {"/id"} for refusal in refusals)


LISTS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown status": ({"status": 99}, "/status"),
    "negative page": ({"page_size": -1}, "/limit"),
    "page too large": ({"page_size": 251}, "/limit"),
    "external id with NUL": ({"external_id": NUL}, "/externalId"),
    "target with NUL": ({"target_system": NUL}, "/targetSystem"),
    "correlation id with NUL": ({"correlation_id": NUL}, "/correlationId"),
    "time out of range": ({"created_after": FAR}, "/createdAfter"),
    "time before the years": ({"created_before": Timestamp(seconds=-(2**62))}, "/createdBefore"),
}


@pytest.mark.parametrize("case", LISTS)
async def test_a_bad_filter_is_refused(hub: IntakeUnderTest, case: str) -> None:
    fields, at_fault = LISTS[case]
    wanted = pb.ListIntegrationRequestsRequest(**fields)
    refusal = await refused(hub.requests.ListIntegrationRequests(wanted, metadata=hub.partner()))

    assert (refusal.code, set(refusal.violations)) == ("INVALID_ARGUMENT", {at_fault})


LETTER_LISTS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown state": ({"state": 99}, "/state"),
    "negative page": ({"page_size": -1}, "/limit"),
    "forged cursor": ({"page_token": NUL}, "/cursor"),
    "cursor of another kind": ({"page_token": "x" * 10_000}, "/cursor"),
    "target with NUL": ({"target_system": NUL}, "/targetSystem"),
    "reason with NUL": ({"reason": NUL}, "/reason"),
    "partner with NUL": ({"partner_id": NUL}, "/partnerId"),
}


@pytest.mark.parametrize("case", LETTER_LISTS)
async def test_a_bad_filter_for_dead_letters_is_refused(hub: IntakeUnderTest, case: str) -> None:
    fields, at_fault = LETTER_LISTS[case]
    wanted = letters.ListDeadLettersRequest(**fields)
    refusal = await refused(hub.dead_letters.ListDeadLetters(wanted, metadata=hub.operator))

    assert (refusal.code, set(refusal.violations)) == ("INVALID_ARGUMENT", {at_fault})


SELECTIONS: dict[str, tuple[letters.DeadLetterSelection | None, str]] = {
    "nothing": (None, "/selection"),
    "empty": (letters.DeadLetterSelection(), "/selection"),
    "bad id": (letters.DeadLetterSelection(ids=[NIL, "x"]), "/selection/ids"),
    "too many ids": (letters.DeadLetterSelection(ids=[NIL] * 1001), "/selection/ids"),
    "target with NUL": (letters.DeadLetterSelection(target_system=NUL), "/selection/targetSystem"),
    "time out of range": (letters.DeadLetterSelection(created_after=FAR), "/selection/createdAfter"),
}


@pytest.mark.parametrize("case", SELECTIONS)
async def test_a_bad_selection_is_refused(hub: IntakeUnderTest, case: str) -> None:
    selection, at_fault = SELECTIONS[case]
    redrive = letters.RedriveDeadLettersRequest(selection=selection, reason="again")
    discard = letters.DiscardDeadLettersRequest(selection=selection, reason="no use")

    refusals = [
        await refused(hub.dead_letters.RedriveDeadLetters(redrive, metadata=hub.operator)),
        await refused(hub.dead_letters.DiscardDeadLetters(discard, metadata=hub.operator)),
    ]

    assert [refusal.code for refusal in refusals] == ["INVALID_ARGUMENT"] * 2
    assert [set(refusal.violations) for refusal in refusals] == [{at_fault}] * 2


@pytest.mark.parametrize("reason", ["", "  "])
async def test_a_discard_must_say_why(hub: IntakeUnderTest, reason: str) -> None:
    selection = letters.DeadLetterSelection(all=True)
    wanted = letters.DiscardDeadLettersRequest(selection=selection, reason=reason)
    refusal = await refused(hub.dead_letters.DiscardDeadLetters(wanted, metadata=hub.operator))

    assert (refusal.code, set(refusal.violations)) == ("INVALID_ARGUMENT", {"/reason"})


CORRECTIONS = {"no object": "[1]", "too large": '{"a":"' + "x" * 1024 * 1024 + '"}', "duplicate key": '{"a":1,"a":2}'}


@pytest.mark.parametrize("case", CORRECTIONS)
async def test_a_corrected_payload_is_checked_as_a_new_one_is(hub: IntakeUnderTest, case: str) -> None:
    selection = letters.DeadLetterSelection(ids=[NIL])
    wanted = letters.RedriveDeadLettersRequest(selection=selection, reason="x", payload_json=CORRECTIONS[case])
    refusal = await refused(hub.dead_letters.RedriveDeadLetters(wanted, metadata=hub.operator))

    assert refusal.code == "INVALID_ARGUMENT"


async def test_a_corrected_payload_needs_exactly_one_id(hub: IntakeUnderTest) -> None:
    selection = letters.DeadLetterSelection(all=True)
    wanted = letters.RedriveDeadLettersRequest(selection=selection, reason="x", payload_json='{"a":1}')
    refusal = await refused(hub.dead_letters.RedriveDeadLetters(wanted, metadata=hub.operator))

    assert (refusal.code, set(refusal.violations)) == ("INVALID_ARGUMENT", {"/selection/ids"})


@pytest.mark.parametrize(
    ("selection", "reason", "pointers"),
    [
        (letters.DeadLetterSelection(all=True), "I have looked.", {"/selection/ids"}),
        (letters.DeadLetterSelection(target_system="SAP"), "", {"/selection/ids", "/reason"}),
        (letters.DeadLetterSelection(ids=[NIL]), " ", {"/reason"}),
    ],
)
async def test_what_is_certainly_absent_must_be_named_with_a_reason(
    hub: IntakeUnderTest, selection: letters.DeadLetterSelection, reason: str, pointers: set[str]
) -> None:
    wanted = letters.RedriveDeadLettersRequest(selection=selection, reason=reason, certainly_absent=True)

    refusal = await refused(hub.dead_letters.RedriveDeadLetters(wanted, metadata=hub.operator))

    assert (refusal.code, set(refusal.violations)) == ("INVALID_ARGUMENT", pointers)


@pytest.mark.parametrize("worker", ["", "x" * 129, NUL])
async def test_a_worker_must_have_a_name(hub: IntakeUnderTest, worker: str) -> None:
    refusals = [await refused(hub.claim(NIL, worker=worker)), await refused(hub.beat(worker))]

    assert [(refusal.code, set(refusal.violations)) for refusal in refusals] == [
        ("INVALID_ARGUMENT", {"/workerId"})
    ] * 2


REPORTS: dict[str, tuple[life.Report, str]] = {
    "no step": (life.Report(integration_request_id=NIL), "/step"),
    "bad id": (life.Report(integration_request_id="x", completed=life.Completed()), "/integrationRequestId"),
    "unknown reason": (
        life.Report(integration_request_id=NIL, failed=life.Failed(reason="bored")),
        "/failed/reason",
    ),
    "unknown kind of call": (
        life.Report(integration_request_id=NIL, completed=life.Completed(), call=life.CallRecord(kind="x" * 40)),
        "/call/kind",
    ),
    "unknown outcome of a call": (
        life.Report(integration_request_id=NIL, completed=life.Completed(), call=life.CallRecord(outcome="x" * 40)),
        "/call/outcome",
    ),
}


@pytest.mark.parametrize("case", REPORTS)
async def test_a_bad_report_is_refused(hub: IntakeUnderTest, case: str) -> None:
    report, at_fault = REPORTS[case]
    wanted = life.ReportRequest(worker_id="w1", reports=[report])
    refusal = await refused(hub.lifecycle.Report(wanted, metadata=hub.worker))

    assert (refusal.code, set(refusal.violations)) == ("INVALID_ARGUMENT", {at_fault})


@pytest.mark.parametrize("partner_id", [NUL, "x" * 256, "a\nb", "\u202eacme"])
async def test_a_partner_id_that_is_no_name_is_refused_by_every_call(hub: IntakeUnderTest, partner_id: str) -> None:
    named: dict[str, Any] = {"partner_id": partner_id}
    refusals = [
        await refused(hub.requests.CreateIntegrationRequest(new_request(**named), metadata=hub.gateway)),
        await refused(
            hub.requests.ListIntegrationRequests(pb.ListIntegrationRequestsRequest(**named), metadata=hub.gateway)
        ),
        await refused(
            hub.requests.GetIntegrationRequest(pb.GetIntegrationRequestRequest(id=NIL, **named), metadata=hub.gateway)
        ),
    ]

    assert {refusal.code for refusal in refusals} == {"INVALID_ARGUMENT"}
    assert all(set(refusal.violations) == {"/partnerId"} for refusal in refusals)


async def test_a_partner_may_not_name_another(hub: IntakeUnderTest) -> None:
    read = pb.ListIntegrationRequestsRequest(partner_id="brix")
    refusals = [
        await refused(hub.create(partner_id="brix")),
        await refused(hub.requests.ListIntegrationRequests(read, metadata=hub.partner())),
    ]

    assert {(refusal.code, refusal.reason) for refusal in refusals} == {("PERMISSION_DENIED", "PERMISSION_DENIED")}


@pytest.mark.parametrize("token", ["", "Bearer", "Basic YTpi", "Bearer x", "Bearer x.y.z", f"Bearer {NOT_SIGNED}"])
async def test_a_call_without_a_good_token_is_not_answered(hub: IntakeUnderTest, token: str) -> None:
    metadata = (("authorization", token),) if token else ()
    refusal = await refused(hub.requests.CreateIntegrationRequest(new_request(), metadata=metadata))

    assert (refusal.code, refusal.reason) == ("UNAUTHENTICATED", "UNAUTHENTICATED")


ALL_SCOPES = {REQUESTS_WRITE, REQUESTS_READ, OPERATIONS, LIFECYCLE}


@pytest.mark.parametrize(
    ("service", "method", "scope"),
    [
        ("Intake", "CreateIntegrationRequest", REQUESTS_WRITE),
        ("Intake", "BatchCreateIntegrationRequests", REQUESTS_WRITE),
        ("Intake", "CancelIntegrationRequest", REQUESTS_WRITE),
        ("Intake", "GetIntegrationRequest", REQUESTS_READ),
        ("Intake", "ListIntegrationRequests", REQUESTS_READ),
        ("Intake", "ListIntegrationRequestHistory", REQUESTS_READ),
        ("Lifecycle", "Claim", LIFECYCLE),
        ("Lifecycle", "Report", LIFECYCLE),
        ("Lifecycle", "Heartbeat", LIFECYCLE),
        ("DeadLetter", "ListDeadLetters", OPERATIONS),
        ("DeadLetter", "GetDeadLetter", OPERATIONS),
        ("DeadLetter", "RedriveDeadLetters", OPERATIONS),
        ("DeadLetter", "DiscardDeadLetters", OPERATIONS),
    ],
)
async def test_a_token_with_every_other_scope_is_refused(
    hub: IntakeUnderTest, service: str, method: str, scope: str
) -> None:
    call = raw_call(hub, f"/integrationhub.intake.v1.{service}Service/{method}")
    refusal = await refused(call(b"", metadata=hub.caller("acme", *(ALL_SCOPES - {scope}))))

    assert (refusal.code, refusal.reason) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
    assert refusal.metadata == {"scope": scope}


async def test_an_unknown_method_is_unimplemented(hub: IntakeUnderTest) -> None:
    refusal = await refused(raw_call(hub, "/integrationhub.intake.v1.IntakeService/Drop")(b""))

    assert refusal.code == grpc.StatusCode.UNIMPLEMENTED.name
