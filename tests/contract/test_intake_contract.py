"""What intake promises at its public door, on SQLite and on PostgreSQL alike: creating, reading, cancelling."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from chassis.testing import TestKeys, eventually
from intake_service.store import tables
from integrationhub.intake.v1 import intake_pb2 as pb
from integrationhub.intake.v1 import lifecycle_pb2 as life
from tests.intake import PAYLOAD, IntakeUnderTest, new_request, refusal_of, refused, retry, running_intake, sending

UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@pytest.fixture
async def hub(database_url: str, keys: TestKeys) -> AsyncIterator[IntakeUnderTest]:
    async with running_intake(database_url, keys) as intake:
        yield intake


async def create_batch(hub: IntakeUnderTest, *messages: pb.CreateIntegrationRequestRequest) -> list[Any]:
    """Create together; gives a stored request or a Refusal for each."""
    wanted = pb.BatchCreateIntegrationRequestsRequest(requests=messages)
    answer = await hub.requests.BatchCreateIntegrationRequests(wanted, metadata=hub.partner())
    assert len(answer.results) == len(messages)
    return [
        refusal_of(grpc_code(result.error.code), result.error.message, result.error.details)
        if result.HasField("error")
        else result.integration_request
        for result in answer.results
    ]


def grpc_code(number: int) -> str:
    return next(code.name for code in grpc.StatusCode if code.value[0] == number)


async def test_a_call_is_measured_under_the_code_that_it_ended_with(hub: IntakeUnderTest) -> None:
    def measured(rpc: str, code: str) -> float:
        method = f"/integrationhub.intake.v1.IntakeService/{rpc}"
        return hub.metric("rpc_duration_ms_count", method=method, code=code)

    await hub.create("E-1")
    await refused(hub.get("00000000-0000-4000-8000-000000000000"))

    await eventually(
        lambda: measured("CreateIntegrationRequest", "OK") and measured("GetIntegrationRequest", "NOT_FOUND")
    )
    assert measured("CreateIntegrationRequest", "UNKNOWN") + measured("GetIntegrationRequest", "OK") == 0


async def test_a_new_request_is_stored_as_it_came(hub: IntakeUnderTest) -> None:
    created = await hub.create("E-1", correlation_id="trace-1")

    stored = await hub.get(created.id)

    assert UUID.fullmatch(created.id)
    assert (created.status, created.version) == (pb.INTEGRATION_REQUEST_STATUS_RECEIVED, 1)
    assert created.payload_json == ""
    assert stored.payload_json == PAYLOAD
    assert (stored.partner_id, stored.external_id, stored.correlation_id) == ("acme", "E-1", "trace-1")
    assert (stored.source_system, stored.target_system, stored.attempts) == ("SAP", "TotvsProtheus", 0)
    assert stored.created_at.ToMicroseconds() == stored.updated_at.ToMicroseconds() == hub.clock.now()
    assert not stored.HasField("next_attempt_at")


@pytest.mark.parametrize(
    "payload", ['{"a":15000.00}', '{"a":9007199254740993}', '{ "ç" : "\\u0000 \\ud83d\\ude00" }\n']
)
async def test_a_payload_is_kept_digit_for_digit(hub: IntakeUnderTest, payload: str) -> None:
    created = await hub.create(payload_json=payload)

    assert (await hub.get(created.id)).payload_json == payload


async def test_the_correlation_id_comes_from_the_metadata_when_the_message_has_none(hub: IntakeUnderTest) -> None:
    call = hub.requests.CreateIntegrationRequest(
        new_request(), metadata=(*hub.partner(), ("x-correlation-id", "from-metadata"))
    )

    created = (await call).integration_request

    assert created.correlation_id == "from-metadata"
    assert ("x-correlation-id", "from-metadata") in list(await call.initial_metadata())


@pytest.mark.parametrize("bad", ["a b", "a\r\nX-Evil: 1", "é", "x" * 129, "<script>"])
async def test_a_correlation_id_that_is_not_safe_is_replaced(hub: IntakeUnderTest, bad: str) -> None:
    created = await hub.create(correlation_id=bad)

    assert re.fullmatch(r"[0-9a-f-]{36}", created.correlation_id)


async def test_a_new_request_has_its_history_and_its_event_in_the_same_transaction(hub: IntakeUnderTest) -> None:
    created = await hub.create()

    (entry,) = await hub.history(created.id)
    (event,), (row,) = await hub.unpublished(), await hub.rows(tables.outbox_batches)

    assert (entry.kind, entry.from_status, entry.actor) == ("transition", 0, "acme")
    assert entry.to_status == pb.INTEGRATION_REQUEST_STATUS_RECEIVED
    assert (event.type, event.request_id, event.rings) == ("IntegrationRequestCreated", created.id, True)
    assert row["created_at"] == created.created_at.ToMicroseconds()


async def test_a_repeated_external_id_is_refused_and_names_the_request_that_has_it(hub: IntakeUnderTest) -> None:
    created = await hub.create("E-1")

    refusal = await refused(hub.create("E-1", payload_json='{"other":1}'))

    assert (refusal.code, refusal.reason) == ("ALREADY_EXISTS", "DUPLICATE_EXTERNAL_ID")
    assert refusal.resource == created.id
    assert refusal.metadata == {"externalId": "E-1", "existingId": created.id, "existingStatus": "Received"}
    assert [row["payload_json"] for row in await hub.rows(tables.integration_requests)] == [PAYLOAD]
    assert len(await hub.unpublished()) == len(await hub.rows(tables.history)) == 1


async def test_of_200_concurrent_creates_of_one_external_id_exactly_one_is_stored(hub: IntakeUnderTest) -> None:
    messages = [new_request("E-1", correlation_id=f"c-{number}") for number in range(200)]
    metadata = hub.partner()
    answers = await asyncio.gather(
        *(hub.requests.CreateIntegrationRequest(message, metadata=metadata) for message in messages),
        return_exceptions=True,
    )

    created = [answer for answer in answers if not isinstance(answer, BaseException)]
    refusals = [await refused(_raise(answer)) for answer in answers if isinstance(answer, BaseException)]

    assert (len(created), len(refusals)) == (1, 199)
    assert {refusal.code for refusal in refusals} == {"ALREADY_EXISTS"}
    assert {refusal.resource for refusal in refusals} == {created[0].integration_request.id}
    assert len(await hub.rows(tables.integration_requests)) == 1
    assert len(await hub.unpublished()) == len(await hub.rows(tables.history)) == 1


async def _raise(error: BaseException) -> None:
    raise error


async def test_of_one_external_id_twice_in_a_batch_the_first_is_stored(hub: IntakeUnderTest) -> None:
    first, other, second = await create_batch(hub, new_request("E-1"), new_request("E-2"), new_request("E-1"))

    assert (first.external_id, other.external_id) == ("E-1", "E-2")
    assert (second.code, second.resource) == ("ALREADY_EXISTS", first.id)
    assert len(await hub.rows(tables.integration_requests)) == 2


async def test_200_batches_with_one_external_id_in_common_store_it_once(hub: IntakeUnderTest) -> None:
    answers = await asyncio.gather(
        *(create_batch(hub, new_request(f"own-{number}"), new_request("E-1")) for number in range(200))
    )

    assert {type(own) for own, _ in answers} == {pb.IntegrationRequest}
    assert sum(isinstance(shared, pb.IntegrationRequest) for _, shared in answers) == 1
    assert len(await hub.rows(tables.integration_requests)) == 201


async def test_two_partners_may_use_the_same_external_id(hub: IntakeUnderTest) -> None:
    ours, theirs = await asyncio.gather(hub.create("E-1", "acme"), hub.create("E-1", "brix"))

    assert ours.id != theirs.id
    assert {row["partner_id"] for row in await hub.rows(tables.integration_requests)} == {"acme", "brix"}


async def test_a_bad_item_of_a_batch_changes_nothing_for_the_others(hub: IntakeUnderTest) -> None:
    bad_payload = new_request("E-2", payload_json='{"a":1,"a":2}')
    foreign = new_request("E-3", partner_id="brix")
    unknown = new_request("E-4", target_system="Nowhere")

    good, payload, partner, target, last = await create_batch(
        hub, new_request("E-1"), bad_payload, foreign, unknown, new_request("E-5")
    )

    assert [good.external_id, last.external_id] == ["E-1", "E-5"]
    assert (payload.code, set(payload.violations)) == ("INVALID_ARGUMENT", {"/payload"})
    assert (partner.code, partner.reason) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
    assert (target.code, set(target.violations)) == ("INVALID_ARGUMENT", {"/targetSystem"})
    assert [row["external_id"] for row in await hub.rows(tables.integration_requests)] == ["E-1", "E-5"]


async def test_a_batch_of_1000_is_stored_whole_and_told_of_in_one_row(hub: IntakeUnderTest) -> None:
    created = await create_batch(hub, *(new_request(f"E-{number}") for number in range(1000)))

    assert [item.external_id for item in created] == [f"E-{number}" for number in range(1000)]
    assert [event.request_id for event in await hub.unpublished()] == [item.id for item in created]
    assert len(await hub.rows(tables.outbox_batches)) == 1


async def test_the_gateway_creates_for_the_partner_it_names(hub: IntakeUnderTest) -> None:
    answer = await hub.requests.CreateIntegrationRequest(new_request(partner_id="acme"), metadata=hub.gateway)

    stored = await hub.get(answer.integration_request.id, "acme")

    assert stored.partner_id == "acme"
    assert (await hub.history(stored.id))[0].actor == "acme"


async def test_the_partner_is_the_claim_partner_id_where_the_token_has_one(hub: IntakeUnderTest) -> None:
    metadata = hub.caller("client-7", "requests:write", partner_id="acme")

    created = (await hub.requests.CreateIntegrationRequest(new_request(), metadata=metadata)).integration_request

    assert created.partner_id == "acme"


async def test_another_partners_request_is_not_found_by_any_call(hub: IntakeUnderTest) -> None:
    theirs = await hub.create("E-1", "brix")

    refusals = [
        await refused(hub.get(theirs.id, "acme")),
        await refused(hub.history(theirs.id, "acme")),
        await refused(hub.cancel(theirs.id, "acme")),
    ]

    assert {(refusal.code, refusal.reason, refusal.resource) for refusal in refusals} == {
        ("NOT_FOUND", "INTEGRATION_REQUEST_NOT_FOUND", theirs.id)
    }
    assert (await hub.get(theirs.id, "brix")).status == pb.INTEGRATION_REQUEST_STATUS_RECEIVED


async def test_an_absent_request_is_refused_in_the_same_words_as_another_partners(hub: IntakeUnderTest) -> None:
    theirs = await hub.create("E-1", "brix")
    absent = "00000000-0000-7000-8000-000000000000"

    foreign_refusal, absent_refusal = await refused(hub.get(theirs.id)), await refused(hub.get(absent))

    assert foreign_refusal.message.replace(theirs.id, absent) == absent_refusal.message
    assert foreign_refusal.reason == absent_refusal.reason


async def test_an_id_is_found_in_upper_case_too(hub: IntakeUnderTest) -> None:
    created = await hub.create()

    assert (await hub.get(created.id.upper())).id == created.id


async def test_a_received_request_is_cancelled_at_once(hub: IntakeUnderTest) -> None:
    created = await hub.create()
    hub.clock.advance(5)

    cancelled = await hub.cancel(created.id, detail="Sent by mistake.")

    last = (await hub.history(created.id))[-1]
    assert (cancelled.status, cancelled.failure_reason) == (pb.INTEGRATION_REQUEST_STATUS_FAILED, "cancelled")
    assert (cancelled.failure_detail, cancelled.version) == ("Sent by mistake.", 2)
    assert (last.outcome, last.detail, last.actor) == ("cancelled", "Sent by mistake.", "acme")
    assert await hub.rows(tables.dead_letters) == []
    assert [row["due_at"] for row in await hub.rows(tables.integration_requests)] == [None]


async def test_a_cancelled_request_is_no_longer_its_workers(hub: IntakeUnderTest) -> None:
    lease = await hub.lease((await hub.create()).id)
    await hub.cancel(lease.integration_request.id)

    assert await hub.report(lease, sending=sending()) == "STALE"
    assert await hub.report(lease, completed=life.Completed()) == "STALE"


async def test_a_request_that_may_be_with_the_external_system_is_not_cancelled(hub: IntakeUnderTest) -> None:
    lease = await hub.sent()

    refusal = await refused(hub.cancel(lease.integration_request.id))

    assert (refusal.code, refusal.reason) == ("FAILED_PRECONDITION", "NOT_CANCELLABLE")
    assert refusal.metadata == {"status": "WaitingExternal"}
    assert len(await hub.history(lease.integration_request.id)) == 3


async def test_a_request_that_waits_for_a_retry_is_cancelled(hub: IntakeUnderTest) -> None:
    lease = await hub.sent()
    await hub.report(lease, retry=retry(8))

    cancelled = await hub.cancel(lease.integration_request.id)

    assert (cancelled.failure_reason, cancelled.HasField("next_attempt_at")) == ("cancelled", False)


async def test_a_request_is_cancelled_once(hub: IntakeUnderTest) -> None:
    created = await hub.create()
    answers = await asyncio.gather(*(hub.cancel(created.id) for _ in range(20)), return_exceptions=True)

    refusals = [await refused(_raise(answer)) for answer in answers if isinstance(answer, BaseException)]

    assert {(refusal.code, refusal.reason) for refusal in refusals} == {("FAILED_PRECONDITION", "NOT_CANCELLABLE")}
    assert len(refusals) == 19
    assert len(await hub.history(created.id)) == 2


async def test_nothing_is_acknowledged_without_a_commit(hub: IntakeUnderTest) -> None:
    def fail(_: sa.Connection) -> None:
        raise OperationalError("COMMIT", {}, OSError("the disk is gone"))

    sa.event.listen(hub.store.database.engine, "commit", fail)
    refusal = await refused(hub.create())
    sa.event.remove(hub.store.database.engine, "commit", fail)

    assert (refusal.code, refusal.reason) == ("UNAVAILABLE", "STORAGE_UNAVAILABLE")
    assert refusal.retry_after_seconds == 2
    assert not await hub.rows(tables.integration_requests)
    assert not await hub.unpublished()
    assert hub.metric("integration_requests_received_total") == 0
    assert (await hub.create()).version == 1


@pytest.mark.parametrize(("limits", "others_may"), [({"maximum": 3}, False), ({"maximum_per_partner": 3}, True)])
async def test_a_full_backlog_refuses_new_requests_until_one_has_ended(
    database_url: str, keys: TestKeys, limits: dict[str, Any], *, others_may: bool
) -> None:
    async with running_intake(database_url, keys, **limits) as hub:
        first = await hub.create("E-1")
        await hub.create("E-2")
        await hub.create("E-3")

        refusal = await refused(hub.create("E-4"))
        if others_may:
            await hub.create("E-4", "brix")
        else:
            assert (await refused(hub.create("E-4", "brix"))).reason == "BACKLOG_FULL"
        assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "BACKLOG_FULL")
        assert refusal.retry_after_seconds == 5

        await hub.cancel(first.id)
        await eventually(lambda: hub.create("E-4"))
        assert (await refused(hub.create("E-5"))).reason == "BACKLOG_FULL"


async def test_the_backlog_is_counted_from_the_database(
    hub: IntakeUnderTest, database_url: str, keys: TestKeys
) -> None:
    await hub.create("E-1")
    await hub.cancel((await hub.create("E-2")).id)

    async with running_intake(database_url, keys, maximum=2) as another:
        await another.backlog.count()
        await another.create("E-3")
        assert (await refused(another.create("E-4"))).reason == "BACKLOG_FULL"
