"""Calls sent before the answer to the one before was read: one is no harm to another, many wait outside."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from chassis.testing import eventually
from gateway.http_protocol import PIECE_BYTES, GatewayProtocol
from tests.raw_http import GOOD_HEAD, Connection, Served, assert_raw_problem
from tests.rest import PATH, create_body

SHORTEST_CALL = b"GET / HTTP/1.1\r\n\r\n"
BROKEN = {
    "chunk": f"POST {PATH} HTTP/1.1\r\n{GOOD_HEAD}{{token}}Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    "port": "GET http://hub:99999/ HTTP/1.1\r\n\r\n",
    "address": "GET http://[::1/ HTTP/1.1\r\n\r\n",
    "no host": "GET http:///x HTTP/1.1\r\n\r\n",
}


@pytest.fixture
async def hold(served: Served) -> AsyncIterator[asyncio.Event]:
    """Creates wait in intake until it is set."""
    held = asyncio.Event()
    served.hub.intake.before_batch = held.wait
    yield held
    held.set()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is slow is cut off when the sweep comes by."""
    monkeypatch.setattr("gateway.http_protocol.HEAD_SECONDS", 0.2)
    monkeypatch.setattr("gateway.http_protocol.REQUEST_SECONDS", 0.2)


@pytest.fixture
def waiting(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[int]]:
    """How many calls waited for their turn when a connection was read, and when a call had come."""
    seen: dict[str, list[int]] = {"data_received": [], "_new_call": []}

    def watch(name: str, counts: list[int]) -> None:
        original = getattr(GatewayProtocol, name)

        def counted(protocol: GatewayProtocol, *args: bytes) -> object:
            counts.append(len(protocol.pipeline))
            return original(protocol, *args)

        monkeypatch.setattr(GatewayProtocol, name, counted)

    for name, counts in seen.items():
        watch(name, counts)
    return seen


async def health(connection: Connection) -> int:
    return (await connection.send("GET /healthz HTTP/1.1\r\n\r\n").answer()).status


@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
async def test_a_broken_call_does_not_take_the_answer_of_the_one_before(
    served: Served, hold: asyncio.Event, broken: str
) -> None:
    connection = await served.connect()
    connection.send(served.create(create_body("A")))
    await eventually(lambda: served.hub.intake.batches)
    connection.send(broken.format(token=served.token))
    await health(await served.connect())  # by then the server has seen it

    hold.set()
    answer = await connection.answer()

    assert (answer.status, b'"A"' in answer.body) == (202, True)
    assert answer.headers["connection"] == "close"
    assert await connection.is_closed()
    assert len(served.hub.intake.stored) == 1


async def test_a_target_that_is_none_is_refused_behind_an_answered_call(served: Served) -> None:
    connection = await served.connect()
    assert await health(connection) == 200

    answer = await connection.send("GET http://hub:99999/ HTTP/1.1\r\n\r\n").answer()

    assert_raw_problem(answer, 400)
    assert await connection.is_closed()


async def test_a_target_without_a_path_is_the_root(served: Served) -> None:
    connection = await served.connect()

    answer = await connection.send("GET http://hub HTTP/1.1\r\n\r\n").answer()

    assert answer.status == 404


@pytest.mark.usefixtures("impatient")
async def test_a_slow_call_does_not_take_the_answer_of_the_one_before(served: Served, hold: asyncio.Event) -> None:
    connection, silent = await served.connect(), await served.connect()
    connection.send(served.create(create_body("A")))
    await eventually(lambda: served.hub.intake.batches)
    connection.send(served.create(create_body("B"))[:20])
    assert await silent.is_closed()  # so the sweep has come by

    hold.set()

    assert (await connection.answer()).status == 202
    assert await connection.is_closed()


async def test_a_flood_of_calls_waits_outside(served: Served, waiting: dict[str, list[int]]) -> None:
    connection, other = await served.connect(), await served.connect()
    calls = 20 * PIECE_BYTES // len(SHORTEST_CALL)
    connection.send(SHORTEST_CALL * calls)

    first = await connection.answer()
    assert await health(other) == 200
    statuses = [(await connection.answer()).status for _ in range(calls - 1)]

    assert {first.status, *statuses} == {404}
    assert max(waiting["_new_call"]) <= PIECE_BYTES // len(SHORTEST_CALL)
    assert await health(connection) == 200


async def test_nothing_is_read_while_a_call_waits(
    served: Served, hold: asyncio.Event, waiting: dict[str, list[int]]
) -> None:
    connection = await served.connect()
    connection.send(served.create(create_body("A")) + served.create(create_body("B")))
    await eventually(lambda: served.hub.intake.batches)  # so A's body was asked for
    connection.send(served.create(create_body("C")))
    await health(await served.connect())  # by then the server could have read it

    hold.set()
    answers = [await connection.answer() for _ in range(3)]

    assert [answer.status for answer in answers] == [202] * 3
    assert set(waiting["data_received"]) == {0}


async def test_calls_longer_than_a_piece_are_answered_in_order(served: Served) -> None:
    connection = await served.connect()
    sizes = [1, 3 * PIECE_BYTES, 1, PIECE_BYTES, 20 * PIECE_BYTES, 1, 1]
    payloads = [create_body(f"E-{number}", payload=f'{{"a":"{"x" * size}"}}') for number, size in enumerate(sizes)]

    connection.send(b"".join(map(served.create, payloads)))
    answers = [await connection.answer() for _ in sizes]

    assert [answer.status for answer in answers] == [202] * len(sizes)
    assert [f'"E-{number}"'.encode() in answer.body for number, answer in enumerate(answers)] == [True] * len(sizes)
    assert [len(text) for text in served.hub.intake.payloads()] == [len('{"a":""}') + size for size in sizes]


async def test_rubbish_behind_many_calls_takes_no_answer(served: Served) -> None:
    connection = await served.connect()
    calls = PIECE_BYTES * 3 // 2 // len(SHORTEST_CALL)  # the end is read with some that wait
    connection.send(SHORTEST_CALL * calls + b"rubbish\r\n\r\n")

    answers = [await connection.answer() for _ in range(calls)]

    assert {answer.status for answer in answers} == {404}
    assert answers[-1].headers["connection"] == "close"
    assert await connection.is_closed()


@pytest.mark.usefixtures("impatient")
async def test_half_a_call_behind_a_whole_one_is_not_waited_for(served: Served) -> None:
    half_a_head, half_a_body = await served.connect(), await served.connect()

    half_a_head.send(SHORTEST_CALL + b"GET /healthz HTT")
    half_a_body.send(SHORTEST_CALL + served.create()[:-1])

    for connection in (half_a_head, half_a_body):
        assert (await connection.answer()).status == 404
        assert_raw_problem(await connection.answer(), 408)
        assert await connection.is_closed()


async def test_a_client_is_not_slow_while_its_call_waits(
    served: Served, hold: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = await served.connect()
    connection.send(served.create(create_body("A")) + served.create(create_body("B"))[:-1])
    await eventually(lambda: served.hub.intake.batches)
    monkeypatch.setattr("gateway.http_protocol.HEAD_SECONDS", 0.2)
    monkeypatch.setattr("gateway.http_protocol.REQUEST_SECONDS", 2.8)
    for _ in range(4):  # a second each: longer in all than a request may take, shorter than a create
        assert await (await served.connect()).is_closed()

    hold.set()
    first = await connection.answer()
    assert await (await served.connect()).is_closed()  # so the sweep has come by
    second = await connection.send(served.create(create_body("B"))[-1:]).answer()

    assert (first.status, second.status) == (202, 202)
