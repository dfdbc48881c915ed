"""The story of one leased request, told against a real gRPC intake and adapter."""

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from chassis.errors import StorageUnavailable
from chassis.logs import add_bound_fields
from chassis.rpc_client import RpcClient
from chassis.targets import Target
from chassis.testing import eventually
from chassis.tokens import ServiceToken
from integrationhub.adapter.v1 import adapter_pb2
from integrationhub.adapter.v1.adapter_pb2 import DeliverRequest, DeliverResponse, LookupRequest, LookupResponse
from orchestrator_service.capacity import Place, TargetCapacity
from orchestrator_service.clients import AdapterClient
from orchestrator_service.retry import Outcome
from orchestrator_service.validation import PayloadSchema
from tests.fake_lifecycle import StoredRequest
from tests.orchestrator_fakes import Surroundings, always, capacity_for, claim, looked_up, target

ERP = target()
UNAVAILABLE = DeliverResponse(outcome=adapter_pb2.OUTCOME_UNAVAILABLE, detail="503")
UNKNOWN = DeliverResponse(outcome=adapter_pb2.OUTCOME_UNKNOWN, detail="reset")


def place_in(capacity: TargetCapacity) -> Place:
    [place] = capacity.take(1)
    return place


async def process(
    parts: Surroundings,
    request_id: str,
    *,
    by: Target = ERP,
    schemas: dict[tuple[str, str], PayloadSchema] | None = None,
    place: Place | None = None,
) -> StoredRequest:
    """Claim and process once, as a reader does."""
    [lease] = await claim(parts, [request_id])
    await parts.processor(by, schemas=schemas).process(lease, place or place_in(capacity_for(by)), by)
    return parts.intake.requests[request_id]


async def test_a_delivered_request_is_announced_posted_and_completed(parts: Surroundings) -> None:
    request = await process(parts, parts.intake.add())

    assert request.steps == ["sending", "completed"]
    assert request.reports[1].completed.external_response_json == '{"order":"PRO-1"}'
    assert len(parts.adapter.deliveries) == 1


async def test_the_attempts_time_is_announced(parts: Surroundings) -> None:
    request = await process(parts, parts.intake.add())

    assert request.reports[0].sending.timeout.ToSeconds() == ERP.timeout_seconds


async def test_the_call_goes_into_the_history(parts: Surroundings) -> None:
    request = await process(parts, parts.intake.add())

    assert (request.reports[1].call.kind, request.reports[1].call.outcome) == ("attempt", "DELIVERED")


async def test_the_delivery_carries_the_requests_ids_and_payload(parts: Surroundings) -> None:
    request_id = parts.intake.add(payload_json='{"amount":15000.00}')
    request = await process(parts, request_id)
    [delivery] = parts.adapter.deliveries

    assert (delivery.integration_request_id, delivery.payload_json) == (request_id, '{"amount":15000.00}')
    assert delivery.correlation_id == request.lease.integration_request.correlation_id


async def test_the_seeds_log_lines_carry_both_ids(parts: Surroundings) -> None:
    with capture_logs(processors=[add_bound_fields]) as lines:
        request = await process(parts, parts.intake.add())

    assert [line["event"] for line in lines if line["log_level"] == "info"] == [
        "Worker processing integration",
        "Integration completed successfully",
    ]
    ids = {(line["request_id"], line["correlation_id"]) for line in lines}
    assert ids == {(request.lease.integration_request.id, request.lease.integration_request.correlation_id)}


async def test_503_503_503_503_is_four_posts_and_a_dead_letter(parts: Surroundings) -> None:
    parts.adapter.answer = always(UNAVAILABLE)
    request_id = parts.intake.add()
    for _ in range(3):
        await process(parts, request_id)
    request = await process(parts, request_id)

    waits = [report.retry.delay.ToSeconds() for report in request.reports if report.HasField("retry")]
    assert waits == [2, 4, 8]
    assert request.reports[-1].failed.reason == "external_unavailable"
    assert request.reports[-1].failed.dead_letter
    assert len(parts.adapter.deliveries) == 4


async def test_503_503_200_completes_with_three_posts(parts: Surroundings) -> None:
    request_id = parts.intake.add()
    parts.adapter.answer = always(UNAVAILABLE)
    await process(parts, request_id)
    await process(parts, request_id)
    parts.adapter.answer = always(DeliverResponse(outcome=adapter_pb2.OUTCOME_DELIVERED))
    request = await process(parts, request_id)

    assert request.steps[-1] == "completed"
    assert [delivery.attempt for delivery in parts.adapter.deliveries] == [1, 2, 3]


async def test_a_retry_is_said_as_the_seed_says_it(parts: Surroundings) -> None:
    parts.adapter.answer = always(UNAVAILABLE)
    with capture_logs() as lines:
        await process(parts, parts.intake.add())

    assert ("External system unavailable, will retry", "warning") in {(x["event"], x["log_level"]) for x in lines}


async def test_the_end_of_the_retries_is_said_as_the_seed_says_it(parts: Surroundings) -> None:
    parts.adapter.answer = always(UNAVAILABLE)
    with capture_logs() as lines:
        await process(parts, parts.intake.add(retries=3))

    assert {"event": "Max retries exceeded", "log_level": "error", "system": "Erp"} in lines


async def test_a_rejected_request_is_not_retried(parts: Surroundings) -> None:
    parts.adapter.answer = always(
        DeliverResponse(outcome=adapter_pb2.OUTCOME_REJECTED, code="T01", detail="no customer")
    )
    request = await process(parts, parts.intake.add())

    assert (request.reports[-1].failed.reason, request.reports[-1].failed.detail) == (
        "external_rejected",
        "T01: no customer",
    )


async def test_retry_after_pauses_the_whole_target(parts: Surroundings) -> None:
    throttled = DeliverResponse(outcome=adapter_pb2.OUTCOME_THROTTLED)
    throttled.retry_after.FromSeconds(20)
    parts.adapter.answer = always(throttled)
    capacity = capacity_for(ERP)
    request = await process(parts, parts.intake.add(), place=place_in(capacity))

    assert request.reports[-1].retry.delay.ToSeconds() == 20
    assert capacity.free() == 0


async def test_a_request_waits_while_our_credentials_are_refused(parts: Surroundings) -> None:
    refused = DeliverResponse(outcome=adapter_pb2.OUTCOME_UNAVAILABLE, credentials_refused=True, detail="401")
    refused.retry_after.FromSeconds(60)
    parts.adapter.answer = always(refused)
    capacity = capacity_for(ERP)
    request = await process(parts, parts.intake.add(retries=3), place=place_in(capacity))

    release = request.reports[-1].release
    assert (request.steps, release.not_sent, release.delay.ToSeconds()) == (["sending", "release"], True, 60)
    assert request.reports[-1].call.detail == "401"
    assert capacity.free() == 0


async def test_retry_after_of_a_lookup_pauses_the_target_too(parts: Surroundings) -> None:
    async def busy(_: LookupRequest) -> LookupResponse:
        response = LookupResponse(outcome=adapter_pb2.LOOKUP_OUTCOME_NOT_KNOWN, detail="429")
        response.retry_after.FromSeconds(20)
        return response

    parts.adapter.look_up = busy
    capacity = capacity_for(ERP)
    request = await process(parts, parts.intake.in_doubt(seconds_ago=1), place=place_in(capacity))

    assert request.steps == ["in_doubt"]
    assert capacity.free() == 0


async def test_an_invalid_payload_fails_before_anything_is_sent(parts: Surroundings) -> None:
    schemas = {("Erp", "SAP"): PayloadSchema({"required": ["orderId"]})}
    with capture_logs() as lines:
        request = await process(parts, parts.intake.add(payload_json="{}"), schemas=schemas)

    failed = request.reports[-1].failed
    assert (request.steps, failed.reason, failed.dead_letter) == (["failed"], "validation_failed", False)
    assert parts.adapter.deliveries == []
    assert parts.count("integration_validation_failures_total", field="orderId") == 1
    said = [(line["event"], line["field"]) for line in lines if line["log_level"] == "warning"]
    assert said == [("Validation failed", "orderId"), ("Payload validation failed", "orderId")]


async def test_a_redriven_request_whose_payload_does_not_fit_is_a_dead_letter_again(parts: Surroundings) -> None:
    schemas = {("Erp", "SAP"): PayloadSchema({"required": ["orderId"]})}
    request = await process(parts, parts.intake.add(payload_json="{}", cycle=2), schemas=schemas)

    assert (request.steps, request.reports[-1].failed.reason) == (["failed"], "validation_failed")
    assert request.reports[-1].failed.dead_letter


async def test_a_schema_belongs_to_one_source(parts: Surroundings) -> None:
    schemas = {("Erp", "SAP"): PayloadSchema({"required": ["orderId"]})}
    request = await process(parts, parts.intake.add(payload_json="{}", source_system="Salesforce"), schemas=schemas)

    assert request.steps[-1] == "completed"


async def test_an_expired_request_is_not_sent(parts: Surroundings) -> None:
    request = await process(parts, parts.intake.add(expires_at=parts.intake.clock.now()))

    assert (request.steps, request.reports[-1].failed.reason) == (["failed"], "expired")
    assert parts.adapter.deliveries == []


async def test_an_expired_request_in_doubt_is_asked_for_first(parts: Surroundings) -> None:
    request_id = parts.intake.in_doubt(seconds_ago=100, expires_at=parts.intake.clock.now())
    request = await process(parts, request_id)

    assert request.steps == ["completed"]


async def test_an_attempt_of_unknown_outcome_is_looked_up_and_found(parts: Surroundings) -> None:
    parts.adapter.answer = always(UNKNOWN)
    request_id = parts.intake.add()
    await process(parts, request_id)
    request = await process(parts, request_id)

    assert request.steps == ["sending", "in_doubt", "completed"]
    assert len(parts.adapter.deliveries) == 1


async def test_a_lease_lost_in_doubt_is_looked_up_not_posted(parts: Surroundings) -> None:
    parts.adapter.look_up = looked_up(adapter_pb2.LOOKUP_OUTCOME_ABSENT)
    request = await process(parts, parts.intake.in_doubt(seconds_ago=1))

    # the next rung is 5 - 2 = 3 s away
    assert (request.steps, request.reports[-1].in_doubt.delay.ToSeconds()) == (["in_doubt"], 3)
    assert request.reports[-1].in_doubt.lookup_made
    assert (request.reports[-1].call.kind, request.reports[-1].call.outcome) == ("lookup", "ABSENT")
    assert parts.adapter.deliveries == []


async def test_a_request_proven_absent_goes_back_for_the_next_attempt(parts: Surroundings) -> None:
    parts.adapter.look_up = looked_up(adapter_pb2.LOOKUP_OUTCOME_ABSENT)
    request_id = parts.intake.in_doubt(seconds_ago=35, lookups=3)
    await process(parts, request_id)
    request = await process(parts, request_id)

    assert request.steps == ["retry", "sending", "completed"]


async def test_a_lease_lost_in_doubt_is_posted_again_where_the_key_is_honoured(parts: Surroundings) -> None:
    request = await process(parts, parts.intake.in_doubt(seconds_ago=1), by=target(idempotent=True))

    assert request.steps == ["sending", "completed"]
    assert parts.adapter.lookups == []


async def test_a_lookup_that_could_not_be_made_spends_no_rung(parts: Surroundings) -> None:
    request_id = parts.intake.in_doubt(seconds_ago=1, timed_out=True)
    await parts.adapter_server.stop()
    request = await process(parts, request_id)

    assert (request.steps, request.reports[-1].in_doubt.lookup_made) == (["in_doubt"], False)
    assert request.reports[-1].in_doubt.timed_out


async def test_an_adapter_that_is_away_spends_nothing(parts: Surroundings) -> None:
    await parts.adapter_server.stop()
    request = await process(parts, parts.intake.add())

    assert request.steps == ["release"]
    assert request.reports[0].release.delay.ToSeconds() == 2


@pytest.mark.parametrize("in_doubt", [False, True])
async def test_a_post_that_never_left_is_taken_back_but_an_older_doubt_stays(
    parts: Surroundings, in_doubt: bool
) -> None:
    token = ServiceToken(parts.keys.signer, service="orchestrator", scopes=["requests:read"])  # the adapter refuses it
    parts.adapter_client = refused = AdapterClient(
        RpcClient(parts.adapter_address, token, timeout_seconds=5), telemetry=parts.telemetry
    )
    request_id = parts.intake.in_doubt(seconds_ago=1) if in_doubt else parts.intake.add()
    request = await process(parts, request_id, by=target(idempotent=True))
    await refused.stop()

    assert (request.steps, request.reports[-1].release.not_sent) == (["sending", "release"], True)
    assert request.lease.in_doubt is in_doubt


async def test_an_answer_that_our_own_hop_lost_leaves_a_doubt(parts: Surroundings) -> None:
    async def fails(_: DeliverRequest) -> DeliverResponse:
        raise RuntimeError("the adapter breaks after it has posted")

    parts.adapter.answer = fails
    capacity = capacity_for(ERP)
    request = await process(parts, parts.intake.add(), place=place_in(capacity))

    assert request.steps == ["sending", "in_doubt"]
    assert (request.reports[-1].call.outcome, request.reports[-1].in_doubt.timed_out) == ("UNKNOWN", False)
    assert request.reports[-1].in_doubt.HasField("since_sent")  # it may have been sent a moment ago
    assert request.reports[-1].in_doubt.since_sent.ToSeconds() == 0


async def test_an_announcement_that_took_too_long_is_taken_back(parts: Surroundings) -> None:
    request_id = parts.intake.add()
    [lease] = await claim(parts, [request_id])
    await parts.processor(ERP, announcement_seconds=0.0).process(lease, place_in(capacity_for(ERP)), ERP)
    request = parts.intake.requests[request_id]

    assert (request.steps, parts.adapter.deliveries) == (["sending", "release"], [])
    assert request.reports[-1].release.not_sent


async def test_another_targets_request_is_handed_back(parts: Surroundings) -> None:
    request = await process(parts, parts.intake.add(target_system="Other"))

    assert (request.steps, parts.adapter.deliveries) == (["release"], [])


async def test_a_lease_that_is_no_longer_ours_is_not_sent(parts: Surroundings) -> None:
    request_id = parts.intake.add()
    [lease] = await claim(parts, [request_id])
    parts.intake.requests[request_id].lease.token += 1  # another worker has it
    await parts.processor(ERP).process(lease, place_in(capacity_for(ERP)), ERP)

    assert (parts.intake.requests[request_id].steps, parts.adapter.deliveries) == ([], [])


async def test_an_outcome_that_intake_does_not_take_any_more_is_said(parts: Surroundings) -> None:
    request_id = parts.intake.add()

    async def delivers_too_late(_: DeliverRequest) -> DeliverResponse:
        parts.intake.requests[request_id].is_terminal = True  # it has ended otherwise meanwhile
        return DeliverResponse(outcome=adapter_pb2.OUTCOME_DELIVERED)

    parts.adapter.answer = delivers_too_late
    with capture_logs(processors=[add_bound_fields]) as lines:
        await process(parts, request_id)

    said = [(line["event"], line["request_id"], line["step"], line["outcome"]) for line in lines if "step" in line]
    assert said == [("Report was refused", request_id, "Completed", "DELIVERED")]
    assert [line["log_level"] for line in lines if "step" in line] == ["warning"]
    assert "Integration completed successfully" not in {line["event"] for line in lines}


async def test_a_target_that_closed_after_the_claim_is_not_called(parts: Surroundings) -> None:
    capacity = capacity_for(target(concurrency=11))
    place = place_in(capacity)
    for _ in range(10):
        other = place_in(capacity)
        other.record(Outcome.UNAVAILABLE)
        other.leave()
    request = await process(parts, parts.intake.add(), place=place)

    assert request.steps == ["release"]
    assert 29 < request.reports[0].release.delay.ToMilliseconds() / 1000 <= 30


async def test_an_outcome_is_kept_until_intake_is_back(parts: Surroundings) -> None:
    async def delivers_and_intake_goes(_: DeliverRequest) -> DeliverResponse:
        parts.intake.away = StorageUnavailable("The database is away.")
        return DeliverResponse(outcome=adapter_pb2.OUTCOME_DELIVERED)

    parts.adapter.answer = delivers_and_intake_goes
    request_id = parts.intake.add()
    with capture_logs() as lines:
        working = asyncio.create_task(process(parts, request_id))
        await eventually(lambda: any(line["event"] == "Report waits for intake" for line in lines))
        parts.intake.away = None
        request = await working

    assert request.steps == ["sending", "completed"]
    assert len(parts.adapter.deliveries) == 1


async def test_a_fault_of_ours_hands_the_request_back(parts: Surroundings) -> None:
    class Broken(PayloadSchema):
        def check(self, payload_json: str) -> list[Any]:
            raise ZeroDivisionError(len(payload_json))

    schemas: dict[tuple[str, str], PayloadSchema] = {("Erp", "SAP"): Broken({})}
    with capture_logs() as lines:
        request = await process(parts, parts.intake.add(), schemas=schemas)

    assert request.steps == ["release"]
    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["Error processing integration request"]


async def test_no_log_line_holds_the_payload(parts: Surroundings) -> None:
    schemas = {("Erp", "SAP"): PayloadSchema({"properties": {"amount": {"type": "number"}}})}
    with capture_logs() as lines:
        await process(parts, parts.intake.add(payload_json='{"amount":"hunter2"}'), schemas=schemas)

    assert lines
    assert "hunter2" not in repr(lines)
