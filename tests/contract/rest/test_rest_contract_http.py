"""The gateway on a real socket: limits, slow and broken clients, one connection after another, draining."""

import asyncio
from functools import partial
from pathlib import Path

import httpx
import pytest
import uvloop
from structlog.testing import capture_logs

from chassis.json_text import MAX_BYTES
from chassis.testing import eventually
from tests.fakes import GatewayUnderTest, running_gateway
from tests.raw_http import GOOD_HEAD, Served, assert_raw_problem, serving
from tests.rest import PATH, SEED_BODY, create_body, post


async def test_a_connection_serves_one_call_after_another(served: Served) -> None:
    connection = await served.connect()

    first = await connection.send(served.create()).answer()
    second = await connection.send(served.create()).answer()

    assert (first.status, second.status) == (202, 409)
    assert "connection" not in first.headers
    assert "server" not in first.headers
    assert "date" in first.headers


async def test_pipelined_calls_are_answered_in_order(served: Served) -> None:
    connection = await served.connect()
    connection.send(
        served.create(create_body("A")) + served.create(create_body("B")) + b"GET /healthz HTTP/1.1\r\n\r\n"
    )

    answers = [await connection.answer() for _ in range(3)]

    assert [answer.status for answer in answers] == [202, 202, 200]
    assert [b'"A"' in answers[0].body, b'"B"' in answers[1].body] == [True, True]


def test_a_client_that_leaves_amid_pipelined_calls_is_no_fault_of_ours(tmp_path: Path) -> None:
    # uvloop, on which the services run, raises where asyncio's own loop says nothing
    with capture_logs() as lines:
        uvloop.run(_leave_amid_pipelined_calls(tmp_path))

    assert [line for line in lines if line["log_level"] == "error"] == []


async def _leave_amid_pipelined_calls(folder: Path) -> None:
    arrived, left = asyncio.Event(), asyncio.Event()

    async def hold() -> None:
        arrived.set()
        await left.wait()

    async with running_gateway(folder) as hub, serving(hub) as served:
        hub.intake.before_batch = hold
        leaving, other = await served.connect(), await served.connect()
        leaving.send(served.create(create_body("A")) + b"GET /healthz HTTP/1.1\r\n\r\n" * 2)
        await asyncio.wait_for(arrived.wait(), 10)
        leaving.writer.transport.abort()
        await other.send("GET /healthz HTTP/1.1\r\n\r\n").answer()  # by then the server has seen the other's end
        left.set()
        ended = partial(hub.metric, "http_request_duration_ms_count", route=PATH)
        await eventually(lambda: ended(status="202") + ended(status="500"))


async def test_http_1_0_is_served_and_closed(served: Served) -> None:
    connection = await served.connect()

    answer = await connection.send("GET /healthz HTTP/1.0\r\n\r\n").answer()

    assert answer.status == 200
    assert await connection.is_closed()


async def test_a_client_that_waits_for_100_gets_it(served: Served) -> None:
    connection = await served.connect()
    head, _, body = served.create(head="Expect: 100-continue\r\n").partition(b"\r\n\r\n")

    connection.send(head + b"\r\n\r\n")
    assert await asyncio.wait_for(connection.reader.readuntil(b"\r\n\r\n"), 10) == b"HTTP/1.1 100 Continue\r\n\r\n"
    answer = await connection.send(body).answer()

    assert answer.status == 202


async def test_a_client_that_waits_for_100_is_refused_without_sending(served: Served) -> None:
    connection = await served.connect()

    answer = await connection.send(
        f"POST {PATH} HTTP/1.1\r\n{GOOD_HEAD}Expect: 100-continue\r\nContent-Length: 10\r\n\r\n"
    ).answer()

    assert_raw_problem(answer, 401)
    assert answer.headers["connection"] == "close"


async def test_a_small_unread_body_leaves_the_connection_usable(served: Served) -> None:
    connection = await served.connect()
    connection.send(f"POST {PATH} HTTP/1.1\r\n{GOOD_HEAD}Content-Length: 5\r\n\r\n12345")

    refused = await connection.answer()
    served_next = await connection.send("GET /healthz HTTP/1.1\r\n\r\n").answer()

    assert (refused.status, served_next.status) == (401, 200)


async def test_a_declared_length_over_the_limit_is_refused_before_the_body(served: Served) -> None:
    connection = await served.connect()

    answer = await connection.send(
        f"POST {PATH} HTTP/1.1\r\n{GOOD_HEAD}{served.token}Content-Length: {MAX_BYTES + 1}\r\n\r\n"
    ).answer()

    assert_raw_problem(answer, 413)
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("size", [MAX_BYTES + 1, 4 * MAX_BYTES])
async def test_a_client_that_sends_too_much_gets_to_read_why(served: Served, size: int) -> None:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.port}") as client:
        answer = await post(client, served.hub, b"x" * size)

    assert answer.status_code == 413


async def test_a_chunked_body_is_taken(served: Served) -> None:
    connection = await served.connect()
    connection.send(f"POST {PATH} HTTP/1.1\r\n{GOOD_HEAD}{served.token}Transfer-Encoding: chunked\r\n\r\n")
    for byte in SEED_BODY[:10]:
        connection.send(f"1\r\n{chr(byte)}\r\n")
    connection.send(f"{len(SEED_BODY) - 10:x}\r\n{SEED_BODY[10:].decode()}\r\n0\r\n\r\n")

    assert (await connection.answer()).status == 202


async def test_a_trailer_is_no_header(served: Served) -> None:
    connection = await served.connect()
    head = f"POST {PATH} HTTP/1.1\r\n{GOOD_HEAD}Transfer-Encoding: chunked\r\n\r\n"
    connection.send(f"{head}2\r\n{{}}\r\n0\r\n{served.token}X-Correlation-ID: from-a-trailer\r\n\r\n")

    answer = await connection.answer()

    assert answer.status == 401
    assert answer.headers["x-correlation-id"] != "from-a-trailer"


@pytest.mark.parametrize("begin", ["0\r\n", "0\r\nA: ", "1;"])
@pytest.mark.parametrize("more", ["a: b\r\n", "b"])
async def test_what_is_around_the_chunks_of_a_body_cannot_be_endless(served: Served, begin: str, more: str) -> None:
    connection = await served.connect()
    head = f"POST {PATH} HTTP/1.1\r\n{GOOD_HEAD}{served.token}Transfer-Encoding: chunked\r\n\r\n"
    connection.send(f"{head}2\r\n{{}}\r\n{begin}").send(more * 2_000_000)

    try:
        said = await asyncio.wait_for(connection.reader.read(), 10)
    except ConnectionResetError:  # it can overtake the answer
        said = b""
    assert not said or said.startswith((b"HTTP/1.1 431", b"HTTP/1.1 400"))


async def test_a_chunked_body_without_end_is_cut_off(served: Served) -> None:
    connection = await served.connect()
    connection.send(f"POST {PATH} HTTP/1.1\r\n{GOOD_HEAD}{served.token}Transfer-Encoding: chunked\r\n\r\n")
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    for _ in range(MAX_BYTES // 65536 + 1):
        connection.send(chunk)

    answer = await connection.answer()

    assert_raw_problem(answer, 413)
    assert served.hub.intake.batches == []

    async def is_cut() -> bool:
        try:
            connection.send(chunk)
            await connection.writer.drain()
        except ConnectionError:
            return True
        return False

    assert await eventually(is_cut)


async def test_a_body_that_breaks_off_stores_nothing(served: Served) -> None:
    connection = await served.connect()
    connection.send(served.create()[:-1])
    await connection.writer.drain()
    connection.writer.close()

    gone = {"route": PATH, "status": "499"}
    await eventually(lambda: served.hub.metric("http_request_duration_ms_count", **gone) == 1)
    assert served.hub.intake.batches == []


async def test_bytes_after_a_body_are_no_part_of_it(served: Served) -> None:
    connection = await served.connect()

    answer = await connection.send(served.create() + b"more of it").answer()

    assert answer.status == 202
    assert len(served.hub.intake.stored) == 1


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"CONNECT hub:443 HTTP/1.1\r\n\r\n",
        b"SUMMON\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nBad Header: x\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nX: a\x00b\r\n\r\n",
        b"POST /healthz HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /healthz HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /healthz HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /healthz HTTP/1.1\r\nContent-Length: 5x\r\n\r\n",
        b"POST /healthz HTTP/1.1\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        b"POST /healthz HTTP/1.1\r\nTransfer-Encoding: xchunked\r\n\r\n",
    ],
    ids=repr,
)
async def test_what_is_not_http_is_refused_with_a_problem(served: Served, request_bytes: bytes) -> None:
    connection = await served.connect()

    answer = await connection.send(request_bytes).answer()

    assert_raw_problem(answer, 400)
    assert answer.headers["connection"] == "close"
    assert await connection.is_closed()


@pytest.mark.parametrize("line", ["SUMMON /healthz", "get /healthz", "M-SEARCHX *", "GETS /no/such/path"])
async def test_a_method_that_nobody_knows_is_not_allowed(served: Served, line: str) -> None:
    connection = await served.connect()

    answer = await connection.send(f"{line} HTTP/1.1\r\n\r\n").answer()

    assert_raw_problem(answer, 405)
    assert (answer.headers["allow"], answer.headers["connection"]) == ("GET, HEAD, POST", "close")
    assert await connection.is_closed()


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        ("GET /healthz HTTP/1.1\r\nX-Correlation-ID: mine\r\nX: y\r\nBad Header: x\r\n\r\n", 400),
        ("GET /healthz HTTP/1.1\r\nX-Correlation-ID: mine\r\n" + "X: y\r\n" * 100 + "\r\n", 431),
        ("nonsense\r\n\r\n", 400),
    ],
    ids=["400", "431", "without an id"],
)
async def test_a_refusal_is_logged_with_the_correlation_id_of_its_answer(
    served: Served, request_text: str, status: int
) -> None:
    connection = await served.connect()

    with capture_logs() as lines:
        answer = await connection.send(request_text).answer()

    assert answer.status == status
    assert [(line["event"], line["correlation_id"]) for line in lines] == [
        ("Call refused", answer.headers["x-correlation-id"])
    ]
    assert ("mine" in request_text) == (answer.headers["x-correlation-id"] == "mine")


async def test_a_broken_chunk_stores_nothing(served: Served) -> None:
    connection = await served.connect()
    connection.send(f"POST {PATH} HTTP/1.1\r\n{GOOD_HEAD}{served.token}Transfer-Encoding: chunked\r\n\r\nzz\r\n")

    assert_raw_problem(await connection.answer(), 400)
    assert served.hub.intake.batches == []


async def test_rubbish_behind_a_call_does_not_take_its_answer(served: Served) -> None:
    hold = asyncio.Event()
    served.hub.intake.before_batch = hold.wait
    connection = await served.connect()
    connection.send(served.create() + b"\x00\x00rubbish\r\n\r\n")
    await eventually(lambda: served.hub.intake.batches)

    hold.set()

    assert (await connection.answer()).status == 202
    assert await connection.is_closed()


@pytest.mark.parametrize(
    "head",
    [
        "X-Long: " + "x" * 65_536 + "\r\n",
        "".join(f"X-{number}: 1\r\n" for number in range(10_000)),
        "".join(f"X-{number}: {'x' * 1000}\r\n" for number in range(60)),
        "X: y\r\n" * 101,
    ],
    ids=["a long one", "many", "much", "one too many"],
)
async def test_a_head_over_its_limits_is_refused(served: Served, head: str) -> None:
    connection = await served.connect()

    answer = await connection.send(f"GET /healthz HTTP/1.1\r\n{head}\r\n").answer()

    assert_raw_problem(answer, 431)
    assert await connection.is_closed()


async def test_a_head_without_end_is_refused(served: Served) -> None:
    connection = await served.connect()
    connection.send("GET /healthz HTTP/1.1\r\nX-Endless: ")

    async def is_refused() -> bool:
        connection.send("x" * 4096)
        try:
            await connection.writer.drain()
            return bool(await asyncio.wait_for(connection.reader.read(12), 0.05))
        except TimeoutError:
            return False
        except ConnectionError:
            return True

    assert await eventually(is_refused)


async def test_a_large_body_does_not_count_as_head(served: Served) -> None:
    connection = await served.connect()

    answer = await connection.send(served.create(create_body("A", payload=f'{{"a":"{"x" * 500_000}"}}'))).answer()

    assert answer.status == 202


async def test_slow_clients_are_cut_off(hub: GatewayUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.http_protocol.HEAD_SECONDS", 0.2)
    monkeypatch.setattr("gateway.http_protocol.REQUEST_SECONDS", 0.2)
    async with serving(hub) as served:
        silent, slow_head, slow_body, answered = [await served.connect() for _ in range(4)]
        slow_head.send("GET /healthz HTTP/1.1\r\nX: ")
        slow_body.send(served.create()[:-1])
        answered.send(f"POST {PATH} HTTP/1.1\r\n{GOOD_HEAD}Content-Length: 5\r\n\r\n1")

        assert await silent.is_closed()
        assert_raw_problem(await slow_head.answer(), 408)
        assert_raw_problem(await slow_body.answer(), 408)
        assert (await answered.answer()).status == 401
        assert await answered.is_closed()
        assert hub.intake.batches == []


async def test_an_idle_connection_is_kept(hub: GatewayUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.http_protocol.HEAD_SECONDS", 0.2)
    async with serving(hub) as served:
        idle, silent = await served.connect(), await served.connect()
        await idle.send("GET /healthz HTTP/1.1\r\n\r\n").answer()

        assert await silent.is_closed()  # so the sweep has come by
        assert (await idle.send("GET /healthz HTTP/1.1\r\n\r\n").answer()).status == 200


async def test_an_idle_connection_is_closed_in_the_end(hub: GatewayUnderTest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.server.KEEP_ALIVE_SECONDS", 0)
    async with serving(hub) as served:
        idle = await served.connect()

        assert (await idle.send("GET /healthz HTTP/1.1\r\n\r\n").answer()).status == 200
        assert await idle.is_closed()


async def test_many_idle_connections_hinder_nobody(served: Served) -> None:
    for _ in range(300):
        await served.connect()
    connection = await served.connect()

    assert (await connection.send(served.create()).answer()).status == 202
