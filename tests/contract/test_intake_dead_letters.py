"""Dead letters on both databases: listing them, and settling each at most once."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from chassis.clock import to_timestamp
from chassis.testing import TestKeys
from intake_service.store import tables
from integrationhub.intake.v1 import dead_letters_pb2 as letters
from integrationhub.intake.v1 import intake_pb2 as pb
from integrationhub.intake.v1 import lifecycle_pb2 as life
from tests.intake import PAYLOAD, IntakeUnderTest, failed, new_request, refused, running_intake, sending

NIL = "00000000-0000-7000-8000-000000000000"


@pytest.fixture
async def hub(database_url: str, keys: TestKeys) -> AsyncIterator[IntakeUnderTest]:
    async with running_intake(database_url, keys) as intake:
        yield intake


async def bury(hub: IntakeUnderTest, external_id: str = "E-1", reason: str = "timeout", **fields: Any) -> str:
    """Make a request that failed and wants an operator; gives its id."""
    lease = await hub.lease((await hub.create(external_id, **fields)).id)
    await hub.report(lease, sending=sending())
    assert await hub.report(lease, failed=failed(reason)) == "ACCEPTED"
    hub.clock.advance(1)
    return lease.integration_request.id


async def listed(hub: IntakeUnderTest, **wanted: Any) -> letters.ListDeadLettersResponse:
    return await hub.dead_letters.ListDeadLetters(letters.ListDeadLettersRequest(**wanted), metadata=hub.operator)


async def requests_of(hub: IntakeUnderTest, **wanted: Any) -> list[str]:
    return [letter.integration_request.id for letter in (await listed(hub, **wanted)).dead_letters]


async def show(hub: IntakeUnderTest, letter_id: str) -> letters.GetDeadLetterResponse:
    return await hub.dead_letters.GetDeadLetter(letters.GetDeadLetterRequest(id=letter_id), metadata=hub.operator)


async def redrive(
    hub: IntakeUnderTest,
    *ids: str,
    dry_run: bool = False,
    payload_json: str = "",
    certainly_absent: bool = False,
    **selection: Any,
) -> letters.RedriveDeadLettersResponse:
    wanted = letters.RedriveDeadLettersRequest(
        selection=letters.DeadLetterSelection(ids=ids, **selection),
        dry_run=dry_run,
        reason="The system is back.",
        payload_json=payload_json,
        certainly_absent=certainly_absent,
    )
    return await hub.dead_letters.RedriveDeadLetters(wanted, metadata=hub.operator)


async def discard(
    hub: IntakeUnderTest, *ids: str, dry_run: bool = False, **selection: Any
) -> letters.DiscardDeadLettersResponse:
    wanted = letters.DiscardDeadLettersRequest(
        selection=letters.DeadLetterSelection(ids=ids, **selection), dry_run=dry_run, reason="Sent by hand."
    )
    return await hub.dead_letters.DiscardDeadLetters(wanted, metadata=hub.operator)


def results(answer: letters.RedriveDeadLettersResponse | letters.DiscardDeadLettersResponse) -> list[str]:
    return [each.result for each in answer.results]


async def test_a_dead_letter_says_what_happened(hub: IntakeUnderTest) -> None:
    request_id = await bury(hub, reason="timeout")

    (letter,) = (await listed(hub)).dead_letters
    shown = await show(hub, letter.id)

    assert (letter.reason, letter.detail, letter.attempts) == ("timeout", "It does not want it.", 1)
    assert (letter.state, letter.settled_by) == (letters.DEAD_LETTER_STATE_OPEN, "")
    assert (letter.integration_request.id, letter.integration_request.partner_id) == (request_id, "acme")
    assert (letter.integration_request.target_system, letter.integration_request.payload_json) == ("TotvsProtheus", "")
    assert shown.dead_letter.integration_request.payload_json == PAYLOAD
    assert [entry.to_status for entry in shown.history] == [1, 2, 3, 5]


async def test_a_dead_letter_is_found_by_its_requests_id_too(hub: IntakeUnderTest) -> None:
    request_id = await bury(hub)
    (letter,) = (await listed(hub)).dead_letters

    assert (await show(hub, request_id)).dead_letter.id == letter.id


async def test_an_absent_dead_letter_is_not_found(hub: IntakeUnderTest) -> None:
    refusal = await refused(show(hub, NIL))

    assert (refusal.code, refusal.reason, refusal.resource) == ("NOT_FOUND", "DEAD_LETTER_NOT_FOUND", NIL)


async def test_a_request_without_a_dead_letter_has_none(hub: IntakeUnderTest) -> None:
    created = await hub.create()

    assert (await refused(show(hub, created.id))).reason == "DEAD_LETTER_NOT_FOUND"
    assert (await listed(hub)).dead_letters == []


async def test_dead_letters_are_listed_newest_first_and_filtered(hub: IntakeUnderTest) -> None:
    first = await bury(hub, "E-1", "timeout")
    second = await bury(hub, "E-2", "outcome_unknown", target_system="SAP")
    await discard(hub, first)

    assert await requests_of(hub) == [second, first]
    assert await requests_of(hub, target_system="SAP") == [second]
    assert await requests_of(hub, reason="timeout") == [first]
    assert await requests_of(hub, partner_id="acme") == [second, first]
    assert await requests_of(hub, partner_id="brix") == []
    assert await requests_of(hub, state=letters.DEAD_LETTER_STATE_OPEN) == [second]
    assert await requests_of(hub, state=letters.DEAD_LETTER_STATE_DISCARDED) == [first]


async def test_the_list_names_each_request_as_its_partner_does(hub: IntakeUnderTest) -> None:
    request_id = await bury(hub, "E-1", correlation_id="trace-me")

    (letter,) = (await listed(hub)).dead_letters
    named = letter.integration_request

    assert (named.id, named.partner_id, named.external_id) == (request_id, "acme", "E-1")
    assert (named.source_system, named.target_system, named.correlation_id) == ("SAP", "TotvsProtheus", "trace-me")
    assert named.payload_json == ""


@pytest.mark.parametrize("size", [1, 3, 7])
async def test_pages_of_dead_letters_have_no_gap_and_no_repeat(hub: IntakeUnderTest, size: int) -> None:
    buried = [await bury(hub, f"E-{number}") for number in range(7)]

    found, token = [], ""
    while True:
        answer = await listed(hub, page_size=size, page_token=token)
        found += [letter.integration_request.id for letter in answer.dead_letters]
        if not (token := answer.next_page_token):
            break

    assert found == list(reversed(buried))


async def test_a_redriven_request_begins_a_new_cycle_under_its_own_id(hub: IntakeUnderTest) -> None:
    request_id = await bury(hub)

    answer = await redrive(hub, request_id)

    again = await hub.get(request_id)
    assert (answer.redriven, results(answer)) == (1, ["redriven"])
    assert answer.results[0].integration_request_id == request_id
    assert (again.status, again.failure_reason) == (pb.INTEGRATION_REQUEST_STATUS_RECEIVED, "")
    lease = await hub.lease(request_id, "w2")
    assert (lease.cycle, lease.retries, lease.integration_request.attempts) == (2, 0, 1)
    assert lease.expires_at.ToMicroseconds() == hub.clock.now() + 86400 * 1_000_000


async def test_a_redrive_is_on_record_with_who_and_why(hub: IntakeUnderTest) -> None:
    request_id = await bury(hub)
    await redrive(hub, request_id)

    last = (await hub.history(request_id))[-1]
    letter = (await show(hub, request_id)).dead_letter

    assert (last.outcome, last.detail, last.actor) == ("redriven", "The system is back.", "ops")
    assert letter.state == letters.DEAD_LETTER_STATE_REDRIVEN
    assert (letter.settled_by, letter.settled_reason) == ("ops", "The system is back.")
    assert letter.settled_at.ToMicroseconds() == hub.clock.now()


async def test_a_redriven_doubt_stays_a_doubt(hub: IntakeUnderTest) -> None:
    request_id = await bury(hub, reason="outcome_unknown")
    await redrive(hub, request_id)

    lease = await hub.lease(request_id, "w2")

    assert lease.in_doubt is True
    assert lease.HasField("sent_at")


async def test_an_operator_who_has_looked_ends_the_doubt_and_answers_for_it(hub: IntakeUnderTest) -> None:
    request_id = await bury(hub, reason="outcome_unknown")

    await redrive(hub, request_id, certainly_absent=True)

    assert not (await hub.lease(request_id)).in_doubt
    (told,) = [entry for entry in await hub.history(request_id) if entry.outcome == "redriven"]
    assert told.actor == "ops"
    assert told.detail == (
        "The system is back. (The operator answers for it that the external system does not hold it.)"
    )


async def test_a_redriven_rejection_leaves_no_doubt(hub: IntakeUnderTest) -> None:
    request_id = await bury(hub, reason="external_rejected")
    await redrive(hub, request_id)

    assert (await hub.lease(request_id, "w2")).in_doubt is False


async def test_a_request_that_fails_again_has_a_second_dead_letter(hub: IntakeUnderTest) -> None:
    request_id = await bury(hub)
    await redrive(hub, request_id)
    lease = await hub.lease(request_id)
    await hub.report(lease, failed=failed("expired"))

    newest, oldest = (await listed(hub)).dead_letters

    assert [newest.reason, oldest.reason] == ["expired", "timeout"]
    assert [newest.state, oldest.state] == [letters.DEAD_LETTER_STATE_OPEN, letters.DEAD_LETTER_STATE_REDRIVEN]
    assert (await show(hub, request_id)).dead_letter.id == newest.id
    assert results(await redrive(hub, oldest.id)) == ["not_open"]
    assert results(await redrive(hub, request_id)) == ["redriven"]


async def test_of_concurrent_redrives_one_wins_and_the_others_are_told(hub: IntakeUnderTest) -> None:
    request_id = await bury(hub)

    answers = await asyncio.gather(*(redrive(hub, request_id) for _ in range(20)))

    assert sorted(result for answer in answers for result in results(answer)) == ["not_open"] * 19 + ["redriven"]
    assert sum(answer.redriven for answer in answers) == 1
    assert [entry.outcome for entry in await hub.history(request_id)].count("redriven") == 1


async def test_a_dead_letter_is_either_redriven_or_discarded(hub: IntakeUnderTest) -> None:
    request_id = await bury(hub)

    redriven, discarded = await asyncio.gather(redrive(hub, request_id), discard(hub, request_id))

    assert sorted(results(redriven) + results(discarded)) in (["discarded", "not_open"], ["not_open", "redriven"])
    assert redriven.redriven + discarded.discarded == 1


async def test_a_discarded_request_stays_failed_with_who_and_why_on_record(hub: IntakeUnderTest) -> None:
    request_id = await bury(hub)

    answer = await discard(hub, request_id)

    last = (await hub.history(request_id))[-1]
    assert (answer.discarded, results(answer)) == (1, ["discarded"])
    assert (await hub.get(request_id)).status == pb.INTEGRATION_REQUEST_STATUS_FAILED
    assert (last.kind, last.outcome, last.detail, last.actor) == ("operation", "discarded", "Sent by hand.", "ops")
    assert results(await redrive(hub, request_id)) == ["not_open"]


async def test_a_dry_run_counts_and_changes_nothing(hub: IntakeUnderTest) -> None:
    first, second = await bury(hub, "E-1"), await bury(hub, "E-2")
    await discard(hub, second)
    everything = [await hub.rows(table) for table in tables.metadata.sorted_tables]

    to_redrive = await redrive(hub, first, second, NIL, dry_run=True)
    to_discard = await discard(hub, all=True, dry_run=True)

    assert (to_redrive.redriven, sorted(results(to_redrive))) == (1, ["not_found", "not_open", "selected"])
    assert (to_discard.discarded, results(to_discard)) == (1, ["selected"])
    assert [await hub.rows(table) for table in tables.metadata.sorted_tables] == everything


async def test_unknown_open_and_settled_ids_are_told_apart(hub: IntakeUnderTest) -> None:
    dead, waiting = await bury(hub, "E-1"), (await hub.create("E-2")).id
    await redrive(hub, dead)
    fresh = await bury(hub, "E-3")

    answer = await redrive(hub, NIL, waiting, dead, fresh)

    told = {each.integration_request_id or each.id: each.result for each in answer.results}
    assert told == {NIL: "not_found", waiting: "not_found", dead: "not_open", fresh: "redriven"}
    assert answer.redriven == 1
    details = {each.result: each.detail for each in answer.results}
    assert details["not_open"].startswith("redriven by ops at 20")
    assert details["redriven"] == ""


async def test_a_filter_selects_open_dead_letters_only(hub: IntakeUnderTest) -> None:
    old = await bury(hub, "E-1")
    since = to_timestamp(hub.clock.now())
    settled = await bury(hub, "E-2")
    await discard(hub, settled)
    fresh, other = await bury(hub, "E-3"), await bury(hub, "E-4", target_system="SAP")

    first = await redrive(hub, target_system="TotvsProtheus", created_after=since)
    second = await redrive(hub, all=True)

    assert [each.integration_request_id for each in first.results] == [fresh]
    assert [each.integration_request_id for each in second.results] == [other, old]


async def test_hundreds_are_redriven_at_once_each_once(hub: IntakeUnderTest) -> None:
    wanted = pb.BatchCreateIntegrationRequestsRequest(requests=[new_request(f"E-{number}") for number in range(300)])
    created = (await hub.requests.BatchCreateIntegrationRequests(wanted, metadata=hub.partner())).results
    reports = [
        life.Report(
            integration_request_id=result.integration_request_id,
            token=result.lease.token,
            failed=failed("external_unavailable"),
        )
        for result in await hub.claim(*(each.integration_request.id for each in created))
    ]
    await hub.lifecycle.Report(life.ReportRequest(worker_id="w1", reports=reports), metadata=hub.worker)

    answers = await asyncio.gather(redrive(hub, all=True), redrive(hub, all=True))

    assert sum(answer.redriven for answer in answers) == 300
    assert {row["status"] for row in await hub.rows(tables.integration_requests)} == {"Received"}
    assert {row["cycle"] for row in await hub.rows(tables.integration_requests)} == {2}


async def test_a_corrected_payload_is_used_and_the_old_one_stays_on_record(hub: IntakeUnderTest) -> None:
    request_id = await bury(hub, reason="external_rejected")

    await redrive(hub, request_id, payload_json='{"amount":15000.01}')

    (version,) = await hub.rows(tables.payload_versions)
    assert (version["request_id"], version["cycle"], version["payload_json"]) == (request_id, 1, PAYLOAD)
    assert (version["replaced_by"], version["replaced_at"]) == ("ops", hub.clock.now())
    last = (await hub.history(request_id))[-1]
    assert (last.outcome, last.actor) == ("redriven", "ops")
    assert last.detail == "The system is back. (With a corrected payload.)"
    assert (await hub.lease(request_id)).integration_request.payload_json == '{"amount":15000.01}'


async def test_a_corrected_payload_is_kept_out_when_the_dead_letter_is_not_open(hub: IntakeUnderTest) -> None:
    request_id = await bury(hub)
    await discard(hub, request_id)

    await redrive(hub, request_id, payload_json='{"amount":1}')

    assert (await hub.get(request_id)).payload_json == PAYLOAD
    assert await hub.rows(tables.payload_versions) == []


async def test_a_late_success_closes_what_was_redriven(hub: IntakeUnderTest) -> None:
    lease = await hub.sent()
    await hub.report(lease, failed=failed("outcome_unknown"))
    await redrive(hub, lease.integration_request.id)

    assert await hub.report(lease, completed=life.Completed()) == "ACCEPTED"

    done = await hub.get(lease.integration_request.id)
    assert done.status == pb.INTEGRATION_REQUEST_STATUS_COMPLETED
    assert [each.status for each in await hub.claim(done.id)] == [life.CLAIM_STATUS_NOT_AVAILABLE]


async def test_prose_with_nul_and_of_any_length_is_kept_within_bounds(hub: IntakeUnderTest) -> None:
    request_id = await bury(hub)
    wanted = letters.DiscardDeadLettersRequest(
        selection=letters.DeadLetterSelection(ids=[request_id]), reason="a\x00b" + "x" * 5000
    )

    await hub.dead_letters.DiscardDeadLetters(wanted, metadata=hub.operator)

    letter = (await show(hub, request_id)).dead_letter
    assert letter.settled_reason == ("a\ufffdb" + "x" * 5000)[:1000]
