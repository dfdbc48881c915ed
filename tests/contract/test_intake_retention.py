"""Retention, on both databases: what is deleted with a request, and what is never deleted."""

import time
from collections.abc import AsyncIterator

import pytest
from structlog.testing import capture_logs

from bench.filling import fill
from chassis.clock import SECOND
from chassis.testing import FakeClock, TestKeys, eventually
from intake_service.retention import DAY_SECONDS, STEP_SECONDS, Sweeper
from intake_service.store import tables
from intake_service.store.retention import BATCH, Sweep, Swept, sweep
from integrationhub.intake.v1 import dead_letters_pb2 as letters
from integrationhub.intake.v1 import lifecycle_pb2 as life
from tests.intake import IntakeUnderTest, failed, running_intake

DAYS = 30
PAYLOAD = '{"orderId":"ORD-2"}'


@pytest.fixture
async def hub(database_url: str, keys: TestKeys) -> AsyncIterator[IntakeUnderTest]:
    # the real time, since ids hold it
    async with running_intake(database_url, keys, clock=FakeClock(time.time_ns() // 1000)) as intake:
        yield intake


def sweeper(hub: IntakeUnderTest) -> Sweeper:
    return Sweeper(hub.store, hub.telemetry, days=DAYS)


class Elapsing:
    """A hub and its sweeper, which see the same time pass unless the hub's clock alone is set."""

    def __init__(self, hub: IntakeUnderTest) -> None:
        self.hub = hub
        self.own = FakeClock(0)
        self.sweeper = Sweeper(hub.store, hub.telemetry, days=DAYS, monotonic=lambda: self.own.now() / SECOND)

    async def let_pass(self, days: float) -> list[str]:
        """Let time pass until the next turn of the sweeper; gives its warnings."""
        for clock in (self.hub.clock, self.own):
            clock.advance(days * DAY_SECONDS)
        return await self.take_turn()

    async def take_turn(self) -> list[str]:
        """One turn of the sweeper; gives its warnings."""
        with capture_logs() as lines:
            await self.sweeper.take_turn()
        return [line["event"] for line in lines if line["log_level"] == "warning"]


async def complete(hub: IntakeUnderTest, external_id: str) -> str:
    lease = await hub.sent(external_id)
    assert await hub.report(lease, completed=life.Completed(external_response_json="{}")) == "ACCEPTED"
    return lease.integration_request.id


async def bury(hub: IntakeUnderTest, external_id: str) -> str:
    lease = await hub.sent(external_id)
    assert await hub.report(lease, failed=failed("external_rejected")) == "ACCEPTED"
    return lease.integration_request.id


async def redrive(hub: IntakeUnderTest, request_id: str) -> None:
    wanted = letters.RedriveDeadLettersRequest(
        selection=letters.DeadLetterSelection(ids=[request_id]), reason="It is back.", payload_json=PAYLOAD
    )
    await hub.dead_letters.RedriveDeadLetters(wanted, metadata=hub.operator)


async def kept(hub: IntakeUnderTest) -> set[str]:
    """The external ids of what is still stored."""
    return {row["external_id"] for row in await hub.rows(tables.integration_requests)}


async def test_what_ended_long_ago_is_deleted_with_everything_about_it(hub: IntakeUnderTest) -> None:
    request_id = await bury(hub, "redriven-and-completed")
    await redrive(hub, request_id)
    lease = await hub.lease(request_id)
    await hub.report(lease, completed=life.Completed(external_response_json="{}"))
    hub.clock.advance((DAYS + 1) * DAY_SECONDS)

    assert await sweeper(hub).pass_over(hub.clock.now()) == (1, 0)
    for table in (tables.integration_requests, tables.history, tables.dead_letters, tables.payload_versions):
        assert await hub.rows(table) == []


async def test_its_external_id_can_be_used_again(hub: IntakeUnderTest) -> None:
    first = await complete(hub, "E-1")
    hub.clock.advance((DAYS + 1) * DAY_SECONDS)
    await sweeper(hub).pass_over(hub.clock.now())

    assert (await hub.create("E-1")).id != first


async def test_what_has_not_ended_is_never_deleted(hub: IntakeUnderTest) -> None:
    await hub.create("received")
    await hub.lease((await hub.create("processing")).id)
    await hub.sent("waiting-for-the-external-system")
    hub.clock.advance(10 * DAYS * DAY_SECONDS)

    assert await sweeper(hub).pass_over(hub.clock.now()) == (0, 0)
    assert await kept(hub) == {"received", "processing", "waiting-for-the-external-system"}


async def test_what_has_an_open_dead_letter_is_kept_until_that_is_settled(hub: IntakeUnderTest) -> None:
    request_id = await bury(hub, "nobody-has-settled-it")
    hub.clock.advance((DAYS + 1) * DAY_SECONDS)
    before = await sweeper(hub).pass_over(hub.clock.now())
    await hub.dead_letters.DiscardDeadLetters(
        letters.DiscardDeadLettersRequest(
            selection=letters.DeadLetterSelection(ids=[request_id]), reason="Entered by hand."
        ),
        metadata=hub.operator,
    )
    hub.clock.advance((DAYS + 1) * DAY_SECONDS)

    assert before == (0, 1)
    assert await sweeper(hub).pass_over(hub.clock.now()) == (1, 0)
    assert await hub.rows(tables.dead_letters) == []


async def test_the_time_counts_from_the_end_and_not_from_the_acceptance(hub: IntakeUnderTest) -> None:
    await complete(hub, "accepted-and-ended-long-ago")
    late = await hub.create("accepted-long-ago-and-ended-now")
    hub.clock.advance((DAYS + 1) * DAY_SECONDS)
    await hub.cancel(late.id)

    assert await sweeper(hub).pass_over(hub.clock.now()) == (1, 0)
    assert await kept(hub) == {"accepted-long-ago-and-ended-now"}


async def test_a_step_is_small_and_a_pass_takes_many(database_url: str, hub: IntakeUnderTest) -> None:
    fill(database_url, 3 * BATCH)
    hub.clock.advance((DAYS + 31) * DAY_SECONDS)
    step: Swept = await hub.store.write(sweep, Sweep(after_id="0", until_id="f", ended_before=hub.clock.now()))
    await hub.create("new")

    assert step.deleted == BATCH
    assert await sweeper(hub).pass_over(hub.clock.now()) == (2 * BATCH, 0)
    assert await kept(hub) == {"new"}
    assert await hub.rows(tables.dead_letters) == []


async def test_a_deletion_is_logged_and_counted(hub: IntakeUnderTest) -> None:
    await complete(hub, "E-1")
    await bury(hub, "E-2")
    hub.clock.advance((DAYS + 1) * DAY_SECONDS)
    await hub.create("new")
    running = sweeper(hub)
    with capture_logs() as lines:
        await running.start()
        await eventually(lambda: any(line["event"] == "Finished requests deleted" for line in lines))
        await running.stop()

    said = next(line for line in lines if line["event"] == "Finished requests deleted")
    assert (said["count"], said["kept_for_open_dead_letters"], said["days"]) == (1, 1, DAYS)
    assert hub.metric("integration_requests_deleted_total") == 1


async def test_without_a_number_of_days_everything_is_kept(hub: IntakeUnderTest) -> None:
    await complete(hub, "E-1")
    hub.clock.advance(100 * 365 * DAY_SECONDS)
    keeping = Sweeper(hub.store, hub.telemetry, days=0)
    with capture_logs() as lines:
        await keeping.start()
        await keeping.stop()

    assert lines == []
    assert await kept(hub) == {"E-1"}


async def test_time_that_has_passed_is_believed(hub: IntakeUnderTest) -> None:
    elapsing = Elapsing(hub)
    said = await elapsing.take_turn()  # with nothing stored, nothing says how late it is
    await complete(hub, "E-1")
    said += await elapsing.let_pass(DAYS + 1)

    assert said == []
    assert await kept(hub) == set()


async def goes_after_a_day(hub: IntakeUnderTest, elapsing: Elapsing) -> None:
    """See E-1 stay until a day has passed since the warning, which comes once."""
    said = await elapsing.take_turn() + await elapsing.let_pass(0.9)
    kept_meanwhile = await kept(hub)
    said += await elapsing.let_pass(0.2)

    assert said == ["The clock may be ahead; nothing is deleted for a day"]
    assert kept_meanwhile == {"E-1"}
    assert await kept(hub) == set()


async def test_a_step_of_the_clock_deletes_nothing_for_a_day(hub: IntakeUnderTest) -> None:
    elapsing = Elapsing(hub)
    await complete(hub, "E-1")
    await elapsing.take_turn()
    hub.clock.advance((DAYS + 1) * DAY_SECONDS)
    await goes_after_a_day(hub, elapsing)


async def test_a_step_that_is_taken_back_within_the_day_deletes_nothing(hub: IntakeUnderTest) -> None:
    elapsing = Elapsing(hub)
    await complete(hub, "E-1")
    await elapsing.take_turn()
    hub.clock.advance((DAYS + 1) * DAY_SECONDS)
    said = await elapsing.take_turn()
    hub.clock.advance(-(DAYS + 1) * DAY_SECONDS)
    said += await elapsing.let_pass(DAYS - 1)

    assert len(said) == 1
    assert await kept(hub) == {"E-1"}


async def test_a_step_too_small_to_matter_does_not_keep_the_sweeper(hub: IntakeUnderTest) -> None:
    elapsing = Elapsing(hub)
    await complete(hub, "E-1")
    said = await elapsing.take_turn() + await elapsing.let_pass(DAYS)
    hub.clock.advance(STEP_SECONDS - 60)
    said += await elapsing.take_turn()

    assert said == []
    assert await kept(hub) == set()


async def test_a_start_long_after_the_newest_request_deletes_nothing_for_a_day(hub: IntakeUnderTest) -> None:
    await complete(hub, "E-1")
    hub.clock.advance((DAYS + 1) * DAY_SECONDS)
    elapsing = Elapsing(hub)
    await goes_after_a_day(hub, elapsing)


async def test_a_start_in_a_hub_that_is_used_deletes_at_once(hub: IntakeUnderTest) -> None:
    await complete(hub, "E-1")
    hub.clock.advance((DAYS + 1) * DAY_SECONDS)
    await hub.create("new")

    assert await Elapsing(hub).take_turn() == []
    assert await kept(hub) == {"new"}
