"""Calls sent before the answer to the one before was read: what is wrong with one is not taken for another's answer."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from chassis.testing import eventually
from tests.raw_http import GOOD_HEAD, Connection, Served
from tests.rest import PATH, create_body

BROKEN_CHUNK = "Transfer-Encoding: chunked\r\n\r\nzz\r\n"


@pytest.fixture
async def hold(served: Served) -> AsyncIterator[asyncio.Event]:
    """Creates wait in intake until it is set."""
    held = asyncio.Event()
    served.hub.intake.before_batch = held.wait
    yield held
    held.set()


async def health(connection: Connection) -> int:
    return (await connection.send("GET /healthz HTTP/1.1\r\n\r\n").answer()).status


async def test_a_broken_call_does_not_take_the_answer_of_the_one_before(served: Served, hold: asyncio.Event) -> None:
    connection = await served.connect()
    connection.send(served.create(create_body("A")))
    await eventually(lambda: served.hub.intake.batches)
    connection.send(f"POST {PATH} HTTP/1.1\r\n{GOOD_HEAD}{served.token}{BROKEN_CHUNK}")
    await health(await served.connect())  # by then the server has seen it

    hold.set()
    answer = await connection.answer()

    assert (answer.status, b'"A"' in answer.body) == (202, True)
    assert answer.headers["connection"] == "close"
    assert await connection.is_closed()
    assert len(served.hub.intake.stored) == 1


async def test_a_slow_call_does_not_take_the_answer_of_the_one_before(
    served: Served, hold: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.http_protocol.REQUEST_SECONDS", 0.2)
    monkeypatch.setattr("gateway.http_protocol.HEAD_SECONDS", 0.2)
    connection, silent = await served.connect(), await served.connect()
    connection.send(served.create(create_body("A")))
    await eventually(lambda: served.hub.intake.batches)
    connection.send(served.create(create_body("B"))[:-1])
    assert await silent.is_closed()  # so the sweep has come by

    hold.set()

    assert (await connection.answer()).status == 202
