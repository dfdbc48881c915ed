"""A message's fields are counted as the parser would find them, and never one too few."""

import pytest
from google.protobuf.duration_pb2 import Duration

from chassis.message_fields import MOST_FIELDS, MOST_OF_ONE, has_few_fields
from integrationhub.intake.v1.intake_pb2 import (
    BatchCreateIntegrationRequestsRequest,
    CreateIntegrationRequestRequest,
    GetIntegrationRequestRequest,
    PartnerLimits,
    SystemNames,
)
from integrationhub.intake.v1.lifecycle_pb2 import CallRecord, InDoubt, Report, ReportRequest

KINDS = {
    "empty item": b"\x0a\x00",
    "item whose tag has two bytes": b"\x8a\x00\x00",
    "item whose length has three bytes": b"\x0a\x80\x80\x00",
    "varint": b"\x10\x96\x01",
    "varint of ten bytes": b"\x10" + b"\xff" * 9 + b"\x01",
    "eight bytes": b"\x11" + b"\xff" * 8,
    "four bytes": b"\x15" + b"\xff" * 4,
}


A_TIME = Duration(seconds=30, nanos=1)


def has_few(message: bytes) -> bool:
    return has_few_fields(message, BatchCreateIntegrationRequestsRequest.DESCRIPTOR)


@pytest.mark.parametrize("field", KINDS.values(), ids=KINDS)
def test_as_many_fields_as_a_message_may_have_pass_and_one_more_does_not(field: bytes) -> None:
    assert has_few(field * MOST_OF_ONE)
    assert not has_few(field * (MOST_OF_ONE + 1))


@pytest.mark.parametrize("field", KINDS.values(), ids=KINDS)
def test_every_kind_of_field_is_one_for_the_parser_too(field: bytes) -> None:
    item = CreateIntegrationRequestRequest(external_id="E", payload_json="x" * 300)
    batch = BatchCreateIntegrationRequestsRequest(requests=[item]).SerializeToString()

    parsed = BatchCreateIntegrationRequestsRequest.FromString(field + batch)

    assert parsed.requests[-1] == item
    assert has_few(field + batch)


def test_the_largest_batch_of_the_fullest_reports_passes() -> None:
    report = Report(
        integration_request_id="r" * 36,
        token=2**40,
        in_doubt=InDoubt(delay=A_TIME, lookup_made=True, timed_out=True, since_sent=A_TIME),
        call=CallRecord(kind="attempt", outcome="UNKNOWN", detail="d", duration=A_TIME, response="x" * 600),
    )

    assert has_few_fields(ReportRequest(reports=[report] * 1000).SerializeToString(), ReportRequest.DESCRIPTOR)


def test_the_largest_batch_of_creates_by_a_token_for_many_systems_passes() -> None:
    names = SystemNames(names=[f"System{number}" for number in range(20)])
    limits = PartnerLimits(sources=names, targets=names, rate_per_minute=600)
    item = CreateIntegrationRequestRequest(external_id="E", payload_json="x" * 600, partner_limits=limits)

    assert has_few(BatchCreateIntegrationRequestsRequest(requests=[item] * 1000).SerializeToString())


def test_fields_within_an_item_count() -> None:
    item = b"\x0a\x0a" + b"\x58\x01" * 5

    assert has_few(item * (MOST_FIELDS // 6))
    assert not has_few(item * (MOST_FIELDS // 6) + b"\x10\x01")


def test_names_within_the_limits_of_a_partner_count() -> None:
    request = GetIntegrationRequestRequest(id="r-1")
    request.partner_limits.targets.names.extend(["a"] * MOST_OF_ONE)
    assert has_few_fields(request.SerializeToString(), request.DESCRIPTOR)

    request.partner_limits.targets.names.append("a")

    assert not has_few_fields(request.SerializeToString(), request.DESCRIPTOR)


def test_a_text_is_one_field_whatever_is_in_it() -> None:
    item = CreateIntegrationRequestRequest(payload_json="\n\0" * MOST_OF_ONE)

    assert has_few(BatchCreateIntegrationRequestsRequest(requests=[item]).SerializeToString())


def test_an_item_that_ends_within_its_field_does_not_pass() -> None:
    assert not has_few(b"\x0a\x02\x0a\x05" + b"abcde")


def test_what_is_within_a_group_counts() -> None:
    assert has_few(b"\x13" + b"\x0a\x00" * (MOST_OF_ONE - 2) + b"\x14")
    assert not has_few(b"\x13" + b"\x0a\x00" * MOST_OF_ONE + b"\x14")


@pytest.mark.parametrize(
    "message",
    [
        b"\x0a",
        b"\x0a\x05abc",
        b"\x0a\x80",
        b"\x11abc",
        b"\x80" * 11 + b"\x00",
        b"\x0a" + b"\xff" * 9 + b"\x01",
        b"\x0a\x80\x80\x80\x80\x10" + b"\x0a\x00" * 10,  # a length of 2^32 is no length of 0
        b"\x0f\x00",
    ],
    ids=["no length", "cut item", "cut length", "cut number", "endless tag", "huge length", "2^32", "no such kind"],
)
def test_what_is_malformed_does_not_pass(message: bytes) -> None:
    assert not has_few(message)
