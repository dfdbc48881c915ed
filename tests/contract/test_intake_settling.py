"""What a redrive must not do, on both databases: hide what may have been sent, or let one letter hold up the others."""

from collections.abc import AsyncIterator

import pytest

from chassis.testing import TestKeys
from intake_service.store import tables
from intake_service.store.dead_letters import Settle, settle_dead_letters
from integrationhub.intake.v1 import dead_letters_pb2 as letters
from integrationhub.intake.v1 import intake_pb2 as pb
from tests.intake import PAYLOAD, TARGETS, IntakeUnderTest, failed, running_intake

CORRECTED = '{"amount":15000.01}'
IN_DOUBT = (
    "it may be in the target with the old payload; redrive it without a payload first, "
    "or say that it is certainly absent"
)


@pytest.fixture
async def hub(database_url: str, keys: TestKeys) -> AsyncIterator[IntakeUnderTest]:
    async with running_intake(database_url, keys) as intake:
        yield intake


async def bury(hub: IntakeUnderTest, external_id: str = "E-1", reason: str = "outcome_unknown") -> str:
    """Make a request that was sent and failed; gives its id."""
    lease = await hub.sent(external_id)
    assert await hub.report(lease, failed=failed(reason)) == "ACCEPTED"
    return lease.integration_request.id


async def redrive(hub: IntakeUnderTest, *ids: str, everything: bool = False, **fields: object) -> list[tuple[str, str]]:
    """Redrive as an operator; gives result and detail of each."""
    wanted = letters.RedriveDeadLettersRequest(
        selection=letters.DeadLetterSelection(ids=ids, all=everything),
        reason="looked for it",
        **fields,  # type: ignore[arg-type]  # the test's own
    )
    answer = await hub.dead_letters.RedriveDeadLetters(wanted, metadata=hub.operator)
    assert answer.redriven == sum(each.result in ("redriven", "selected") for each in answer.results)
    return [(each.result, each.detail) for each in answer.results]


@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize("reason", ["outcome_unknown", "timeout", "expired"])
async def test_a_document_is_not_corrected_while_the_old_one_may_be_in_the_target(
    hub: IntakeUnderTest, reason: str, *, dry_run: bool
) -> None:
    request_id = await bury(hub, reason=reason)

    told = await redrive(hub, request_id, payload_json=CORRECTED, dry_run=dry_run)

    assert told == [("in_doubt", IN_DOUBT)]
    left = await hub.get(request_id)
    assert (left.status, left.payload_json) == (pb.INTEGRATION_REQUEST_STATUS_FAILED, PAYLOAD)
    assert await hub.rows(tables.payload_versions) == []
    assert [row["state"] for row in await hub.rows(tables.dead_letters)] == ["open"]


async def test_a_doubt_that_came_after_the_selection_was_read_keeps_the_old_document_too(hub: IntakeUnderTest) -> None:
    await bury(hub)
    (letter,) = await hub.rows(tables.dead_letters)
    decision = Settle(
        dead_letter_id=letter["id"], state="redriven", operator="ops", reason="", ttl_seconds=60, payload_json=CORRECTED
    )

    (settled,) = await hub.store.write_many(settle_dead_letters, [decision])

    assert (settled.result, await hub.rows(tables.payload_versions)) == ("in_doubt", [])


async def test_a_document_is_corrected_once_an_operator_answers_for_its_absence(hub: IntakeUnderTest) -> None:
    request_id = await bury(hub)

    told = await redrive(hub, request_id, payload_json=CORRECTED, certainly_absent=True)

    lease = await hub.lease(request_id)
    assert told == [("redriven", "")]
    assert (lease.in_doubt, lease.integration_request.payload_json) == (False, CORRECTED)


async def test_a_document_that_was_refused_is_corrected_without_further_words(hub: IntakeUnderTest) -> None:
    request_id = await bury(hub, reason="external_rejected")

    assert await redrive(hub, request_id, payload_json=CORRECTED, dry_run=True) == [("selected", "")]
    assert await redrive(hub, request_id, payload_json=CORRECTED) == [("redriven", "")]


@pytest.mark.parametrize("dry_run", [True, False])
async def test_a_target_that_is_gone_holds_up_no_other_redrive_and_is_told_before(
    database_url: str, keys: TestKeys, monkeypatch: pytest.MonkeyPatch, *, dry_run: bool
) -> None:
    async with running_intake(database_url, keys) as hub:
        lease = await hub.lease((await hub.create("E-1", target_system="SAP")).id)
        await hub.report(lease, failed=failed())
        await bury(hub, "E-2")
    monkeypatch.setattr("tests.intake.TARGETS", TARGETS[: TARGETS.index("[targets.SAP]")])
    async with running_intake(database_url, keys) as hub:
        told = await redrive(hub, everything=True, dry_run=dry_run)

    assert sorted(told) == [
        ("selected" if dry_run else "redriven", ""),
        ("target_gone", "SAP is no longer a target of this hub; add it first"),
    ]


async def test_what_a_target_that_is_gone_has_left_behind_can_be_discarded(
    database_url: str, keys: TestKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_intake(database_url, keys) as hub:
        await bury(hub)
    monkeypatch.setattr("tests.intake.TARGETS", TARGETS[TARGETS.index("[targets.SAP]") :])
    async with running_intake(database_url, keys) as hub:
        wanted = letters.DiscardDeadLettersRequest(selection=letters.DeadLetterSelection(all=True), reason="gone")
        answer = await hub.dead_letters.DiscardDeadLetters(wanted, metadata=hub.operator)

    assert [each.result for each in answer.results] == ["discarded"]
