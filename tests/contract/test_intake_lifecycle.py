"""Claims, reports and heartbeats on both databases: the lease, its fence and the marker `in_doubt`."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from chassis.clock import SECOND
from chassis.testing import TestKeys
from intake_service.store import tables
from intake_service.store.rows import SHORT_PAYLOAD
from integrationhub.intake.v1 import dead_letters_pb2 as letters
from integrationhub.intake.v1 import intake_pb2 as pb
from integrationhub.intake.v1 import lifecycle_pb2 as life
from tests.intake import (
    PAYLOAD,
    TTL_SECONDS,
    IntakeUnderTest,
    failed,
    in_doubt,
    refused,
    release,
    retry,
    running_intake,
    sending,
)

NIL = "00000000-0000-7000-8000-000000000000"
GRANTED, NOT_AVAILABLE = life.CLAIM_STATUS_GRANTED, life.CLAIM_STATUS_NOT_AVAILABLE
NOT_FOUND, POISONED = life.CLAIM_STATUS_NOT_FOUND, life.CLAIM_STATUS_POISONED
BUSY = life.CLAIM_STATUS_BUSY


@pytest.fixture
async def hub(database_url: str, keys: TestKeys) -> AsyncIterator[IntakeUnderTest]:
    async with running_intake(database_url, keys) as intake:
        yield intake


async def test_a_claim_gives_the_lease_and_all_that_a_worker_needs(hub: IntakeUnderTest) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    created = await hub.create(correlation_id="c-1", traceparent=trace)
    hub.clock.advance(3)

    (result,) = await hub.claim(created.id)

    lease = result.lease
    assert (result.integration_request_id, result.status) == (created.id, GRANTED)
    assert (lease.token, lease.in_doubt, lease.retries, lease.lookups, lease.cycle) == (1, False, 0, 0, 1)
    assert lease.integration_request.status == pb.INTEGRATION_REQUEST_STATUS_PROCESSING
    assert (lease.integration_request.payload_json, lease.integration_request.version) == (PAYLOAD, 2)
    assert (lease.integration_request.correlation_id, lease.traceparent) == ("c-1", trace)
    assert lease.claimed_at.ToMicroseconds() == hub.clock.now()
    assert lease.expires_at.ToMicroseconds() == created.created_at.ToMicroseconds() + TTL_SECONDS * SECOND
    assert not lease.HasField("sent_at")


async def test_payloads_of_every_length_are_claimed_as_they_were_accepted(hub: IntakeUnderTest) -> None:
    awkward = '{ "a": 15000.00,\n\t"b": "\\u0000 \\\\ \\" ü 😀", "c": "' + "é\\n" * 10_000 + '"}'
    edge = '{"a":"' + "é" * (SHORT_PAYLOAD - 8) + '"}'
    sent = [PAYLOAD, awkward, edge, edge + " ", " " * 9_000 + PAYLOAD]
    ids = {(await hub.create(f"E-{place}", payload_json=text)).id: text for place, text in enumerate(sent)}

    results = await hub.claim(*ids)

    assert {each.integration_request_id: each.lease.integration_request.payload_json for each in results} == ids


async def test_a_second_claimer_gets_not_available(hub: IntakeUnderTest) -> None:
    created = await hub.create()
    first, second = await hub.claim(created.id, worker="w1"), await hub.claim(created.id, worker="w2")

    assert [first[0].status, second[0].status] == [GRANTED, NOT_AVAILABLE]
    assert not second[0].HasField("lease")


async def test_of_many_concurrent_claimers_one_gets_the_lease(hub: IntakeUnderTest) -> None:
    created = await hub.create()
    answers = await asyncio.gather(*(hub.claim(created.id, worker=f"w{number}") for number in range(30)))

    statuses = [answer[0].status for answer in answers]
    assert statuses.count(GRANTED) == 1
    assert set(statuses) <= {GRANTED, NOT_AVAILABLE, BUSY}  # busy: who asked while the lease was being committed


async def test_a_worker_that_lost_its_answer_claims_again_and_the_first_token_is_stale(hub: IntakeUnderTest) -> None:
    created = await hub.create()
    first, second = await hub.lease(created.id), await hub.lease(created.id)

    assert (first.token, second.token) == (1, 2)
    assert await hub.report(first, sending=sending()) == "STALE"
    assert await hub.report(second, sending=sending()) == "ACCEPTED"


async def test_one_id_twice_in_a_claim_gives_two_tokens_of_which_the_last_counts(hub: IntakeUnderTest) -> None:
    created = await hub.create()
    first, second = await hub.claim(created.id, created.id)

    assert (first.lease.token, second.lease.token) == (1, 2)
    assert await hub.report(first.lease, sending=sending()) == "STALE"


@pytest.mark.parametrize("junk", [NIL, "", "x", "a\x00b", "é", "x" * 10_000, "1' OR '1'='1"])
async def test_junk_from_a_stream_is_not_found_and_harms_no_other_claim(hub: IntakeUnderTest, junk: str) -> None:
    created = await hub.create()

    first, second = await hub.claim(junk, created.id)

    assert (first.integration_request_id, first.status) == (junk, NOT_FOUND)
    assert second.status == GRANTED


async def test_a_terminal_request_is_not_available(hub: IntakeUnderTest) -> None:
    created = await hub.create()
    await hub.cancel(created.id)

    assert [result.status for result in await hub.claim(created.id)] == [NOT_AVAILABLE]


async def test_an_attempt_is_counted_when_it_is_announced_not_when_it_is_claimed(hub: IntakeUnderTest) -> None:
    lease = await hub.lease((await hub.create()).id)
    before = await hub.get(lease.integration_request.id)

    await hub.report(lease, sending=sending())

    after = await hub.get(lease.integration_request.id)
    assert (before.attempts, before.status) == (0, pb.INTEGRATION_REQUEST_STATUS_PROCESSING)
    assert (after.attempts, after.status) == (1, pb.INTEGRATION_REQUEST_STATUS_WAITING_EXTERNAL)


async def test_a_post_that_was_announced_is_in_doubt_for_the_next_worker(hub: IntakeUnderTest) -> None:
    lease = await hub.sent()
    sent_at = hub.clock.now()
    await hub.beat("w1", leaving=True)
    hub.clock.advance(1)

    again = await hub.lease(lease.integration_request.id, "w2")

    assert (again.in_doubt, again.token) == (True, 2)
    assert again.sent_at.ToMicroseconds() == sent_at
    assert again.integration_request.attempts == 1


async def test_a_request_lost_before_its_post_is_simply_claimed_again(hub: IntakeUnderTest) -> None:
    lease = await hub.lease((await hub.create()).id)
    await hub.beat("w1", leaving=True)

    again = await hub.lease(lease.integration_request.id, "w2")

    assert (again.in_doubt, again.integration_request.attempts) == (False, 0)


async def test_a_completed_request_keeps_the_systems_answer(hub: IntakeUnderTest) -> None:
    lease = await hub.sent()
    hub.clock.advance(1)

    accepted = await hub.report(lease, completed=life.Completed(external_response_json='{"n":15000.00}'))

    done = await hub.get(lease.integration_request.id)
    assert (accepted, done.status) == ("ACCEPTED", pb.INTEGRATION_REQUEST_STATUS_COMPLETED)
    assert (done.external_response_json, done.attempts, done.failure_reason) == ('{"n":15000.00}', 1, "")
    assert done.updated_at.ToMicroseconds() == hub.clock.now()
    assert hub.metric("integration_requests_completed_total") == 1


@pytest.mark.parametrize("reason", ["validation_failed", "external_rejected", "external_unavailable", "timeout"])
async def test_a_failed_request_says_why_and_becomes_a_dead_letter_if_asked(hub: IntakeUnderTest, reason: str) -> None:
    lease = await hub.sent()

    await hub.report(lease, failed=failed(reason, dead_letter=reason != "validation_failed"))

    done = await hub.get(lease.integration_request.id)
    assert (done.status, done.failure_reason) == (pb.INTEGRATION_REQUEST_STATUS_FAILED, reason)
    assert done.failure_detail == "It does not want it."
    assert len(await hub.rows(tables.dead_letters)) == (reason != "validation_failed")
    assert hub.metric("integration_requests_failed_total", reason=reason) == 1


async def test_a_retry_is_not_to_be_had_before_its_time(hub: IntakeUnderTest) -> None:
    lease = await hub.sent()
    request_id = lease.integration_request.id
    await hub.report(lease, retry=retry(8))
    waiting = await hub.get(request_id)

    hub.clock.advance(7.999)
    early = await hub.claim(request_id, worker="w2")
    hub.clock.advance(0.001)
    due = await hub.claim(request_id, worker="w2")

    assert waiting.status == pb.INTEGRATION_REQUEST_STATUS_WAITING_EXTERNAL
    assert waiting.next_attempt_at.ToMicroseconds() == hub.clock.now()
    assert [early[0].status, due[0].status] == [NOT_AVAILABLE, GRANTED]
    assert (due[0].lease.retries, due[0].lease.in_doubt) == (1, False)


async def test_a_doubt_waits_for_its_lookup_and_keeps_what_is_known(hub: IntakeUnderTest) -> None:
    lease = await hub.sent()
    request_id = lease.integration_request.id
    await hub.report(lease, in_doubt=in_doubt(2, timed_out=True))
    hub.clock.advance(2)
    second = await hub.lease(request_id)
    await hub.report(second, in_doubt=in_doubt(5, lookup_made=True))
    hub.clock.advance(5)

    third = await hub.lease(request_id)

    assert (second.in_doubt, second.timed_out, second.lookups) == (True, True, 0)
    assert (third.in_doubt, third.timed_out, third.lookups) == (True, True, 1)
    assert third.integration_request.attempts == 1


async def test_a_release_spends_nothing(hub: IntakeUnderTest) -> None:
    lease = await hub.sent()

    await hub.report(lease, release=release(2, not_sent=True))

    hub.clock.advance(2)
    again = await hub.lease(lease.integration_request.id)
    assert (again.integration_request.attempts, again.in_doubt, again.retries) == (0, False, 0)
    assert not again.HasField("sent_at")


@pytest.mark.parametrize(
    "step",
    [
        {"sending": sending()},
        {"failed": failed()},
        {"retry": retry()},
        {"in_doubt": in_doubt()},
        {"release": release()},
    ],
    ids=lambda step: next(iter(step)),
)
async def test_a_stale_token_is_refused_and_changes_nothing(hub: IntakeUnderTest, step: dict[str, Any]) -> None:
    old = await hub.sent()
    await hub.beat("w1", leaving=True)
    await hub.lease(old.integration_request.id, "w2")
    before = await hub.rows(tables.integration_requests)

    assert await hub.report(old, **step) == "STALE"
    assert await hub.rows(tables.integration_requests) == before


async def test_a_stale_success_is_accepted_because_the_order_exists(hub: IntakeUnderTest) -> None:
    old = await hub.sent()
    await hub.beat("w1", leaving=True)
    new = await hub.lease(old.integration_request.id, "w2")

    assert await hub.report(old, completed=life.Completed()) == "ACCEPTED"
    assert await hub.report(new, worker="w2", failed=failed("outcome_unknown")) == "STALE"
    done = await hub.get(old.integration_request.id)
    assert done.status == pb.INTEGRATION_REQUEST_STATUS_COMPLETED


async def test_a_second_outcome_is_stale(hub: IntakeUnderTest) -> None:
    lease = await hub.sent()

    answers = [await hub.report(lease, completed=life.Completed()) for _ in range(2)]

    assert answers == ["ACCEPTED", "STALE"]
    assert hub.metric("integration_requests_completed_total") == 1


async def test_of_two_reports_of_one_request_in_one_call_the_second_sees_the_first(hub: IntakeUnderTest) -> None:
    lease = await hub.sent()
    named: dict[str, Any] = {"integration_request_id": lease.integration_request.id, "token": lease.token}
    reports = [life.Report(**named, completed=life.Completed()), life.Report(**named, failed=failed())]
    unknown = life.Report(integration_request_id=NIL, token=1, completed=life.Completed())
    wanted = life.ReportRequest(worker_id="w1", reports=[*reports, unknown])

    results = (await hub.lifecycle.Report(wanted, metadata=hub.worker)).results

    assert [life.ReportStatus.Name(each.status) for each in results] == [
        "REPORT_STATUS_ACCEPTED",
        "REPORT_STATUS_STALE",
        "REPORT_STATUS_NOT_FOUND",
    ]


async def test_a_worker_that_has_lost_its_lease_by_time_cannot_send(hub: IntakeUnderTest) -> None:
    lease = await hub.lease((await hub.create()).id)
    for _ in range(15):
        hub.clock.advance(5)
        await hub.beat()
    await hub.due()  # 75 s after the claim the lease is over, although the worker lives

    assert await hub.report(lease, sending=sending()) == "STALE"


async def test_a_heartbeat_says_who_lives_and_who_is_who(hub: IntakeUnderTest) -> None:
    await hub.beat("w2")
    await hub.beat("w1")
    hub.clock.advance(10)
    second = await hub.beat("w2")
    hub.clock.advance(6)  # w1's beat is 16 s old, w2's 6 s

    third = await hub.beat("w2")

    assert (second.live_workers, second.worker_index, second.was_given_up) == (2, 1, False)
    assert (third.live_workers, third.worker_index) == (1, 0)


async def test_a_worker_that_was_given_up_is_told_so(hub: IntakeUnderTest) -> None:
    await hub.beat("w1")
    hub.clock.advance(16)
    await hub.due()

    assert (await hub.beat("w1")).was_given_up is True
    assert (await hub.beat("w1")).was_given_up is False


async def test_a_leaving_worker_is_not_counted_and_its_leases_are_free_at_once(hub: IntakeUnderTest) -> None:
    lease = await hub.lease((await hub.create()).id, "w1")
    await hub.beat("w2")

    answer = await hub.beat("w1", leaving=True)

    assert answer.live_workers == 1
    (result,) = await hub.claim(lease.integration_request.id, worker="w2")
    assert (result.status, result.lease.token) == (GRANTED, 2)


async def test_a_claim_is_a_sign_of_life(hub: IntakeUnderTest) -> None:
    created = await hub.create()
    await hub.claim(created.id, worker="w1")

    assert (await hub.beat("w2")).live_workers == 2


async def test_a_request_that_kills_its_workers_is_ended_as_poisoned(hub: IntakeUnderTest) -> None:
    created = await hub.create()
    for number in range(5):
        await hub.lease(created.id, f"w{number}")
        await hub.beat(f"w{number}", leaving=True)

    (result,) = await hub.claim(created.id, worker="w5")

    done = await hub.get(created.id)
    assert result.status == POISONED
    assert (done.status, done.failure_reason) == (pb.INTEGRATION_REQUEST_STATUS_FAILED, "poisoned")
    assert [row["reason"] for row in await hub.rows(tables.dead_letters)] == ["poisoned"]
    assert hub.metric("integration_requests_failed_total", reason="poisoned") == 1


async def test_an_outcome_clears_the_count_of_claims_without_one(hub: IntakeUnderTest) -> None:
    created = await hub.create()
    for _ in range(12):
        lease = await hub.lease(created.id)
        await hub.report(lease, release=release(0))

    assert (await hub.claim(created.id))[0].status == GRANTED


async def test_a_duration_beyond_all_time_is_refused_and_harms_no_other_call(hub: IntakeUnderTest) -> None:
    lease = await hub.lease((await hub.create("E-1")).id)
    step = life.Sending()
    step.timeout.seconds = 2**62

    refusal, created = await asyncio.gather(refused(hub.report(lease, sending=step)), hub.create("E-2"))

    assert refusal.code == "INVALID_ARGUMENT"
    assert created.version == 1


async def test_every_change_has_its_event_in_the_outbox(hub: IntakeUnderTest) -> None:
    first = await hub.sent("E-1")
    await hub.report(first, completed=life.Completed())
    second = await hub.sent("E-2")
    await hub.report(second, failed=failed())
    wanted = letters.RedriveDeadLettersRequest(selection=letters.DeadLetterSelection(all=True), reason="again")
    await hub.dead_letters.RedriveDeadLetters(wanted, metadata=hub.operator)

    events = await hub.unpublished()

    created, changed = "IntegrationRequestCreated", "IntegrationRequestStatusChanged"
    assert [(event.type, event.rings) for event in events] == [
        (created, True),
        (changed, False),
        (changed, False),
        ("IntegrationRequestCompleted", False),
        (created, True),
        (changed, False),
        (changed, False),
        ("IntegrationRequestFailed", False),
        ("IntegrationRequestDeadLettered", False),
        (changed, True),
    ]
