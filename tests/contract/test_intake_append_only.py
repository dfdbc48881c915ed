"""Who did what, when and why stays on record: the database itself refuses to change or delete it."""

from collections.abc import AsyncIterator

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from chassis.testing import TestKeys
from intake_service.store.tables import dead_letters, history, integration_requests, metadata, payload_versions
from integrationhub.intake.v1.dead_letters_pb2 import (
    DeadLetterSelection,
    DiscardDeadLettersRequest,
    RedriveDeadLettersRequest,
)
from tests.intake import IntakeUnderTest, failed, running_intake

CORRECTED = '{"orderId":"2","customer":"Empresa XYZ","amount":1.10}'


@pytest.fixture
async def hub(database_url: str, keys: TestKeys) -> AsyncIterator[IntakeUnderTest]:
    async with running_intake(database_url, keys) as intake:
        yield intake


async def operate(hub: IntakeUnderTest) -> None:
    """A request is redriven with a corrected payload, another discarded, a third one cancelled."""
    for external_id in ("redriven", "discarded"):
        await hub.report(await hub.sent(external_id), failed=failed())
    letters = {row["request_id"]: row["id"] for row in await hub.rows(dead_letters)}
    first, second = letters.values()
    await hub.dead_letters.RedriveDeadLetters(
        RedriveDeadLettersRequest(
            selection=DeadLetterSelection(ids=[first]), reason="typing error", payload_json=CORRECTED
        ),
        metadata=hub.operator,
    )
    await hub.dead_letters.DiscardDeadLetters(
        DiscardDeadLettersRequest(selection=DeadLetterSelection(ids=[second]), reason="sold by hand"),
        metadata=hub.operator,
    )
    await hub.cancel((await hub.create("cancelled")).id, detail="ordered twice")


async def test_an_operators_actions_are_on_record_with_who_when_and_why(hub: IntakeUnderTest) -> None:
    await operate(hub)

    actions = [row for row in await hub.rows(history) if row["outcome"] in ("redriven", "discarded", "cancelled")]
    assert [(row["outcome"], row["actor"], row["detail"]) for row in actions] == [
        ("redriven", "ops", "typing error (With a corrected payload.)"),
        ("discarded", "ops", "sold by hand"),
        ("cancelled", "acme", "ordered twice"),
    ]
    assert {row["at"] for row in actions} == {hub.clock.now()}


@pytest.mark.parametrize("table", [history, payload_versions, dead_letters], ids=lambda table: table.name)
@pytest.mark.parametrize("verb", ["update", "delete"])
async def test_what_is_on_record_can_be_neither_changed_nor_deleted(
    hub: IntakeUnderTest, table: sa.Table, verb: str
) -> None:
    await operate(hub)
    before = await hub.rows(table)
    column = next(each for each in table.columns if isinstance(each.type, sa.Text) and not each.primary_key)
    change = sa.update(table).values({column: "forged"}) if verb == "update" else sa.delete(table)

    with pytest.raises(DBAPIError, match="append-only"), hub.store.database.engine.begin() as connection:
        connection.execute(change)

    assert before
    assert await hub.rows(table) == before


def test_every_table_that_keeps_what_happened_is_named() -> None:
    assert set(metadata.tables) == {
        *("integration_requests", "outbox", "outbox_batches", "workers"),  # these change
        *("integration_request_history", "payload_versions", "dead_letters"),
    }


async def test_a_request_that_has_not_ended_cannot_be_deleted(hub: IntakeUnderTest) -> None:
    created = await hub.create("waits")

    with pytest.raises(DBAPIError, match="append-only"), hub.store.database.engine.begin() as connection:
        connection.execute(sa.delete(integration_requests))

    assert (await hub.get(created.id)).external_id == "waits"
