"""Bodies that take long to read, many at once: how many wait for their turn, for how long, and what they are told."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from chassis.testing import eventually
from gateway.intake_client import MAX_HELD_BYTES
from tests.fakes import GatewayUnderTest, running_gateway
from tests.rest import assert_problem, create_body, post

#: Just below what a body may hold, of values and of bytes.
WIDE = '{"a":[' + ",".join(f'"{number:018d}"' for number in range(49_000)) + "]}"
TIMEOUT_SECONDS = 1.0


@pytest.fixture
async def impatient(tmp_path: Path) -> AsyncIterator[GatewayUnderTest]:
    """A gateway that waits TIMEOUT_SECONDS for a create; a few long bodies have their turn in that time."""
    async with running_gateway(tmp_path, timeout_seconds=TIMEOUT_SECONDS) as running:
        yield running


def calling(hub: GatewayUnderTest) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=hub.app), base_url="http://hub")


def sending(client: httpx.AsyncClient, hub: GatewayUnderTest, count: int) -> list[asyncio.Task[httpx.Response]]:
    bodies = [create_body(f"E-{number}", payload=WIDE) for number in range(count)]
    return [asyncio.create_task(post(client, hub, body)) for body in bodies]


def assert_told(hub: GatewayUnderTest, answers: list[httpx.Response]) -> None:
    """Fail unless each was taken, or refused for the moment and not stored."""
    for answer in answers:
        if answer.status_code != 202:
            assert_problem(answer, 503, "overloaded")
            assert answer.headers["Retry-After"] == "1"
    taken = {f"E-{number}" for number, answer in enumerate(answers) if answer.status_code == 202}
    assert {stored.external_id for stored in hub.intake.stored.values()} == taken


async def test_too_much_waiting_for_its_turn_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chassis.turns.PAUSE_FACTOR", 50)  # the first holds the others up for about a second
    size = len(create_body("E-00", payload=WIDE))
    async with running_gateway(tmp_path, timeout_seconds=20) as hub, calling(hub) as client:
        creating = sending(client, hub, MAX_HELD_BYTES // size + 5)
        await eventually(lambda: any(each.done() and each.result().status_code == 503 for each in creating), 5)
        waiting = sum(not each.done() for each in creating)
        monkeypatch.setattr("chassis.turns.PAUSE_FACTOR", 0)
        answers = await asyncio.gather(*creating)

    assert waiting * size > 0.9 * MAX_HELD_BYTES
    assert 1 <= [answer.status_code for answer in answers].count(503) <= 5
    assert_told(hub, answers)


async def test_a_body_whose_turn_does_not_come_in_time_is_certainly_not_stored(
    impatient: GatewayUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chassis.turns.PAUSE_FACTOR", 10)
    async with calling(impatient) as client:
        started = time.monotonic()
        answers = await asyncio.gather(*sending(client, impatient, 30))
        elapsed = time.monotonic() - started
        assert_told(impatient, answers)
        later = await post(client, impatient, create_body("LATER", payload=WIDE))

    assert {answer.status_code for answer in answers} == {202, 503}
    assert elapsed < 3 * TIMEOUT_SECONDS
    assert later.status_code == 202


async def test_a_long_body_that_was_sent_and_not_answered_is_not_called_refused(impatient: GatewayUnderTest) -> None:
    hang = asyncio.Event()
    impatient.intake.before_batch = hang.wait

    async with calling(impatient) as client:
        answer = await post(client, impatient, create_body("E-0", payload=WIDE))

    hang.set()
    assert_problem(answer, 504, "outcome-not-known")
