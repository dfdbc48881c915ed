"""Lists and histories on both databases: filters, keyset pages without gaps or repeats, cursors that are forged."""

import base64
import json
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any

import pytest

from chassis.clock import to_timestamp
from chassis.testing import TestKeys
from integrationhub.intake.v1 import intake_pb2 as pb
from integrationhub.intake.v1 import lifecycle_pb2 as life
from tests.intake import (
    IntakeUnderTest,
    failed,
    in_doubt,
    new_request,
    refused,
    release,
    retry,
    running_intake,
    sending,
)


@pytest.fixture
async def hub(database_url: str, keys: TestKeys) -> AsyncIterator[IntakeUnderTest]:
    async with running_intake(database_url, keys) as intake:
        yield intake


async def page(hub: IntakeUnderTest, partner: str = "acme", **wanted: Any) -> pb.ListIntegrationRequestsResponse:
    return await hub.requests.ListIntegrationRequests(
        pb.ListIntegrationRequestsRequest(**wanted), metadata=hub.partner(partner)
    )


async def names(hub: IntakeUnderTest, **wanted: Any) -> list[str]:
    return [each.external_id for each in (await page(hub, **wanted)).integration_requests]


async def every_page(hub: IntakeUnderTest, size: int, **wanted: Any) -> list[list[str]]:
    pages, token = [], ""
    while True:
        answer = await page(hub, page_size=size, page_token=token, **wanted)
        pages.append([each.external_id for each in answer.integration_requests])
        if not (token := answer.next_page_token):
            return pages


async def create_many(hub: IntakeUnderTest, count: int, *, at_once: int = 1) -> list[str]:
    """Create E-0, E-1, ...; each batch of `at_once` shares one instant. Gives the names, newest first."""
    for start in range(0, count, at_once):
        wanted = [new_request(f"E-{number}") for number in range(start, min(start + at_once, count))]
        await hub.requests.BatchCreateIntegrationRequests(
            pb.BatchCreateIntegrationRequestsRequest(requests=wanted), metadata=hub.partner()
        )
        hub.clock.advance(1)
    return [f"E-{number}" for number in reversed(range(count))]


async def test_the_newest_comes_first_and_without_its_payload(hub: IntakeUnderTest) -> None:
    await create_many(hub, 3)

    answer = await page(hub)

    assert [each.external_id for each in answer.integration_requests] == ["E-2", "E-1", "E-0"]
    assert {each.payload_json for each in answer.integration_requests} == {""}
    assert answer.next_page_token == ""


@pytest.mark.parametrize(("size", "at_once"), [(1, 1), (3, 1), (7, 20), (20, 20), (3, 5)])
async def test_pages_have_no_gap_and_no_repeat(hub: IntakeUnderTest, size: int, at_once: int) -> None:
    expected = await create_many(hub, 20, at_once=at_once)

    pages = await every_page(hub, size)

    assert [name for each in pages for name in each] == expected
    assert {len(each) for each in pages[:-1]} <= {size}


async def test_pages_mix_what_waits_and_what_has_ended_in_their_order(hub: IntakeUnderTest) -> None:
    expected = await create_many(hub, 20, at_once=5)
    for each in (await page(hub)).integration_requests[::3]:
        await hub.cancel(each.id)

    assert [name for each in await every_page(hub, 3) for name in each] == expected


async def test_what_is_created_between_two_pages_neither_moves_nor_hides_the_rest(hub: IntakeUnderTest) -> None:
    expected = await create_many(hub, 6)
    first = await page(hub, page_size=3)
    await hub.create("later")

    second = await page(hub, page_size=3, page_token=first.next_page_token)

    both = [*first.integration_requests, *second.integration_requests]
    assert [each.external_id for each in both] == expected


@pytest.mark.parametrize(("asked", "given"), [(0, 50), (250, 250)])
async def test_a_page_holds_50_unless_asked_and_250_at_most(hub: IntakeUnderTest, asked: int, given: int) -> None:
    await create_many(hub, 260, at_once=260)

    assert len((await page(hub, page_size=asked)).integration_requests) == given


async def test_every_filter_narrows_the_list(hub: IntakeUnderTest) -> None:
    await hub.create("E-1", correlation_id="c-1")
    hub.clock.advance(10)
    other = await hub.create("E-2", target_system="SAP")
    await hub.cancel(other.id)
    hub.clock.advance(10)
    await hub.create("E-3")
    second = to_timestamp(hub.clock.now() - 10_000_000)

    assert await names(hub, external_id="E-1") == ["E-1"]
    assert await names(hub, correlation_id="c-1") == ["E-1"]
    assert await names(hub, target_system="SAP") == ["E-2"]
    assert await names(hub, status=pb.INTEGRATION_REQUEST_STATUS_FAILED) == ["E-2"]
    assert await names(hub, status=pb.INTEGRATION_REQUEST_STATUS_RECEIVED) == ["E-3", "E-1"]
    assert await names(hub, created_after=second) == ["E-3", "E-2"]
    assert await names(hub, created_before=second) == ["E-1"]
    assert await names(hub, created_after=second, target_system="TotvsProtheus") == ["E-3"]
    assert await names(hub, external_id="E-9") == []


async def test_pages_keep_their_filter(hub: IntakeUnderTest) -> None:
    for number in range(9):
        await hub.create(f"E-{number}", target_system="SAP" if number % 2 else "TotvsProtheus")

    pages = await every_page(hub, 2, target_system="SAP")

    assert pages == [["E-7", "E-5"], ["E-3", "E-1"]]


async def test_a_partner_sees_its_own_requests_only(hub: IntakeUnderTest) -> None:
    await hub.create("E-1", "acme")
    await hub.create("E-2", "brix")

    assert [each.external_id for each in (await page(hub, "acme")).integration_requests] == ["E-1"]
    assert [each.external_id for each in (await page(hub, "brix")).integration_requests] == ["E-2"]
    assert (await page(hub, "brix", external_id="E-1")).integration_requests == []


async def test_the_gateway_sees_the_partner_it_names(hub: IntakeUnderTest) -> None:
    await hub.create("E-1", "acme")
    await hub.create("E-2", "brix")
    wanted = pb.ListIntegrationRequestsRequest(partner_id="brix")

    answer = await hub.requests.ListIntegrationRequests(wanted, metadata=hub.gateway)

    assert [each.external_id for each in answer.integration_requests] == ["E-2"]


def altered(token: str, index: int, value: object) -> str:
    """A cursor whose parts a caller has opened and changed."""
    parts = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    parts[index] = value
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode().rstrip("=")


FORGED = {
    "rubbish": "rubbish",
    "not base64": "a!b",
    "not ASCII": "é",
    "no JSON": base64.urlsafe_b64encode(b"{").decode(),
    "a number": base64.urlsafe_b64encode(b"1").decode(),
    "two parts": base64.urlsafe_b64encode(b"[1,2]").decode(),
    "too long": "A" * 10_000,
    "deep": base64.urlsafe_b64encode(b"[" * 5_000).decode(),
}


@pytest.mark.parametrize("case", FORGED)
async def test_a_forged_cursor_is_refused(hub: IntakeUnderTest, case: str) -> None:
    refusal = await refused(page(hub, page_token=FORGED[case]))

    assert (refusal.code, set(refusal.violations)) == ("INVALID_ARGUMENT", {"/cursor"})


@pytest.mark.parametrize(
    ("index", "value"), [(0, 2**70), (0, "x"), (0, None), (1, 7), (1, "a\x00b"), (1, ""), (2, "x")]
)
async def test_an_altered_cursor_is_refused(hub: IntakeUnderTest, index: int, value: object) -> None:
    await create_many(hub, 2)
    token = altered((await page(hub, page_size=1)).next_page_token, index, value)

    refusal = await refused(page(hub, page_token=token))

    assert (refusal.code, set(refusal.violations)) == ("INVALID_ARGUMENT", {"/cursor"})


async def test_a_cut_off_cursor_is_refused(hub: IntakeUnderTest) -> None:
    await create_many(hub, 2)
    token = (await page(hub, page_size=1)).next_page_token

    refusal = await refused(page(hub, page_token=token[:-8]))

    assert refusal.code == "INVALID_ARGUMENT"


async def test_a_cursor_belongs_to_its_partner_and_its_filter(hub: IntakeUnderTest) -> None:
    await create_many(hub, 2)
    await hub.create("E-9", "brix")
    token = (await page(hub, page_size=1)).next_page_token

    refusals = [
        await refused(page(hub, "brix", page_token=token)),
        await refused(page(hub, target_system="SAP", page_token=token)),
    ]

    assert {refusal.code for refusal in refusals} == {"INVALID_ARGUMENT"}


async def test_a_cursor_moved_by_hand_shows_the_callers_own_rows_only(hub: IntakeUnderTest) -> None:
    await hub.create("E-9", "brix")
    await create_many(hub, 3)
    token = (await page(hub, page_size=1)).next_page_token

    answer = await page(hub, page_token=altered(token, 0, hub.clock.now() + 1))

    assert {each.partner_id for each in answer.integration_requests} == {"acme"}


async def walk_through(hub: IntakeUnderTest) -> str:
    """Take one request through every kind of step, redrive and late success included."""
    lease = await hub.sent()
    request_id = lease.integration_request.id
    await hub.report(lease, retry=retry(2), call=life.CallRecord(kind="attempt", outcome="UNAVAILABLE"))
    hub.clock.advance(2)
    lease = await hub.lease(request_id)
    await hub.report(lease, sending=sending())
    await hub.report(lease, release=release(0, not_sent=True))
    lease = await hub.lease(request_id)
    await hub.report(lease, sending=sending())
    await hub.report(
        lease, in_doubt=in_doubt(2, timed_out=True), call=life.CallRecord(kind="attempt", outcome="UNKNOWN")
    )
    hub.clock.advance(2)
    lease = await hub.lease(request_id)
    call = life.CallRecord(kind="lookup", outcome="NOT_KNOWN")
    await hub.report(lease, in_doubt=in_doubt(0, lookup_made=True), call=call)
    lease = await hub.lease(request_id)
    await hub.beat("w1", leaving=True)
    lease = await hub.lease(request_id, "w2")
    await hub.report(lease, worker="w2", failed=failed("outcome_unknown"))
    await redrive(hub, request_id)
    assert (
        await hub.report(lease, worker="w2", completed=life.Completed(external_response_json='{"id":1}')) == "ACCEPTED"
    )
    return request_id


async def redrive(hub: IntakeUnderTest, request_id: str) -> None:
    from integrationhub.intake.v1 import dead_letters_pb2 as letters

    wanted = letters.RedriveDeadLettersRequest(
        selection=letters.DeadLetterSelection(ids=[request_id]), reason="The system is back."
    )
    answer = await hub.dead_letters.RedriveDeadLetters(wanted, metadata=hub.operator)
    assert answer.redriven == 1


async def test_a_history_has_no_gap(hub: IntakeUnderTest) -> None:
    story = await hub.history(await walk_through(hub))

    assert story[0].from_status == pb.INTEGRATION_REQUEST_STATUS_UNSPECIFIED
    assert all(later.from_status == earlier.to_status for earlier, later in pairwise(story))
    assert story[-1].to_status == pb.INTEGRATION_REQUEST_STATUS_COMPLETED
    assert [entry.at.ToMicroseconds() for entry in story] == sorted(entry.at.ToMicroseconds() for entry in story)


async def test_a_history_tells_every_step_with_who_did_it(hub: IntakeUnderTest) -> None:
    story = await hub.history(await walk_through(hub))

    names = {
        number: name.removeprefix("INTEGRATION_REQUEST_STATUS_") for name, number in pb.IntegrationRequestStatus.items()
    }
    told = [(entry.kind, names[entry.to_status], entry.outcome, entry.attempt, entry.actor) for entry in story]
    assert told == [
        ("transition", "RECEIVED", "", 0, "acme"),
        ("transition", "PROCESSING", "", 0, "w1"),
        ("transition", "WAITING_EXTERNAL", "", 1, "w1"),
        ("attempt", "WAITING_EXTERNAL", "UNAVAILABLE", 1, "w1"),
        # attempt 2 is announced, never sent and taken back: nothing to tell, and its number is given out again
        ("attempt", "WAITING_EXTERNAL", "UNKNOWN", 2, "w1"),
        ("lookup", "WAITING_EXTERNAL", "NOT_KNOWN", 2, "w1"),
        ("operation", "WAITING_EXTERNAL", "lease_lost", 2, "w1"),
        ("transition", "FAILED", "outcome_unknown", 2, "w2"),
        ("transition", "RECEIVED", "redriven", 2, "ops"),
        # a late success finds the new cycle at its beginning: the steps between are told as well
        ("transition", "PROCESSING", "", 2, "w2"),
        ("transition", "WAITING_EXTERNAL", "", 2, "w2"),
        ("transition", "COMPLETED", "", 2, "w2"),
    ]


async def test_a_history_keeps_the_call_that_led_to_a_step(hub: IntakeUnderTest) -> None:
    lease = await hub.sent()
    call = life.CallRecord(kind="attempt", outcome="REJECTED", detail="No such customer.", response='{"code":"1"}')
    call.duration.FromMilliseconds(1250)
    await hub.report(lease, failed=failed(), call=call)

    (entry,) = [entry for entry in await hub.history(lease.integration_request.id) if entry.kind == "attempt"]

    assert (entry.outcome, entry.detail, entry.duration_ms) == ("REJECTED", "No such customer.", 1250)
    assert entry.response == '{"code":"1"}'


async def test_an_external_answer_with_nul_is_kept_readable(hub: IntakeUnderTest) -> None:
    lease = await hub.sent()
    call = life.CallRecord(kind="attempt", outcome="REJECTED", detail="a\x00b", response="c\x00d")

    assert (
        await hub.report(lease, failed=life.Failed(reason="external_rejected", detail="e\x00f"), call=call)
        == "ACCEPTED"
    )

    (entry,) = [entry for entry in await hub.history(lease.integration_request.id) if entry.kind == "attempt"]
    assert (entry.detail, entry.response) == ("a\ufffdb", "c\ufffdd")
    assert (await hub.get(lease.integration_request.id)).failure_detail == "e\ufffdf"
