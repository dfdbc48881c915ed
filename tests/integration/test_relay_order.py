"""What leaves intake first after a commit, its answer or its events: whatever brings work on its way."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from chassis.testing import TestKeys, eventually
from intake_service.events import COMPLETED, CREATED, STATUS_CHANGED, Event, OutboxRow
from tests.intake import IntakeUnderTest, running_intake


@pytest.fixture
async def hub(database_url: str, keys: TestKeys, redis_url: str) -> AsyncIterator[IntakeUnderTest]:
    async with running_intake(database_url, keys, redis_url=redis_url) as intake:
        await intake.relay.start()
        for name in ("first", "second"):  # the first may still be found by the sweep that follows the start
            await intake.cancel((await intake.create(name, target_system="SAP")).id)
            await eventually(lambda: _is_published(intake))
        yield intake
        await intake.relay.stop()


async def _is_published(hub: IntakeUnderTest) -> bool:
    return await hub.unpublished() == []


def row(event_type: str) -> OutboxRow:
    event = Event(
        type=event_type,
        request_id="r-1",
        correlation_id="c-1",
        traceparent="",
        target_system="SAP",
        rings=event_type == CREATED,
        data="{}",
    )
    return OutboxRow(id=f"row-{event_type}", created_at=0, events=[event])


async def order_of(hub: IntakeUnderTest, event_type: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Hand over as a commit does, whose answer is written in the loop's next turn."""
    order: list[str] = []

    async def publish(entries: Sequence[Any]) -> None:
        del entries
        order.append("published")

    monkeypatch.setattr(hub.streams, "publish", publish)
    await eventually(lambda: _rests(hub))
    hub.relay.hand_over([row(event_type)])
    asyncio.get_running_loop().call_soon(order.append, "answered")
    await eventually(lambda: len(order) == 2)
    return order


async def _rests(hub: IntakeUnderTest) -> bool:
    """Whether the relay waits for something to publish; nothing that anybody else may look at says so."""
    something: Any = hub.relay._something  # noqa: SLF001
    return bool(something._waiters) and not something.is_set()  # noqa: SLF001


@pytest.mark.parametrize("event_type", [CREATED, COMPLETED])
async def test_work_and_results_are_published_before_the_answer(
    hub: IntakeUnderTest, event_type: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await order_of(hub, event_type, monkeypatch) == ["published", "answered"]


async def test_a_claim_is_answered_before_its_events_are_published(
    hub: IntakeUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await order_of(hub, STATUS_CHANGED, monkeypatch) == ["answered", "published"]
