"""Each fault of the simulator, seen from the caller and from what the target holds afterwards."""

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any, get_args
from urllib.parse import urlsplit

import httpx
import pytest

from chassis.testing import eventually
from simulator.faults import ReplacedKind, SilentKind, SpoiledKind
from simulator.testing import SimulatorProcess

BEARER = {"Authorization": "Bearer simulator-token"}
STORING = ("reset_after", "hang_after", "status_after", "broken_json", "cut_body", "slow_body", "huge_body", "slow")
NOT_STORING = (*get_args(ReplacedKind), *get_args(SilentKind))


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorProcess]:
    with SimulatorProcess() as process:
        yield process


@pytest.fixture
def target(request: pytest.FixtureRequest) -> str:
    name: str = request.node.name
    return "".join(letter if letter.isalnum() else "-" for letter in name)


@pytest.fixture
async def system(simulator: SimulatorProcess, target: str) -> AsyncIterator[httpx.AsyncClient]:
    """The caller of this test's own target; it gives up after a second."""
    base_url = f"{simulator.base_url}/t/{target}"
    async with httpx.AsyncClient(base_url=base_url, headers=BEARER, trust_env=False, timeout=1.0) as client:
        yield client


async def post_order(system: httpx.AsyncClient, key: str = "k1") -> httpx.Response:
    return await system.post("/protheus/v1/orders", json={"orderId": f"ORDER-{key}", "integrationId": key})


def post_raw(simulator: SimulatorProcess, target: str) -> bytes:
    """Post an order over a bare socket, where a reset can be told from an end, and read to the end."""
    address = urlsplit(simulator.base_url)
    body = json.dumps({"orderId": "1", "integrationId": "k1"})
    request = (
        f"POST /t/{target}/protheus/v1/orders HTTP/1.1\r\nHost: simulator\r\nConnection: close\r\n"
        f"Authorization: {BEARER['Authorization']}\r\nContent-Length: {len(body)}\r\n\r\n{body}"
    )
    received = b""
    with socket.create_connection((str(address.hostname), address.port), timeout=5) as connection:
        connection.sendall(request.encode())
        while data := connection.recv(65536):
            received += data
    return received


def test_every_kind_of_fault_is_in_one_of_the_two_tables() -> None:
    assert {*STORING, "commit_later"} == set(get_args(SpoiledKind))


@pytest.mark.parametrize("kind", NOT_STORING)
async def test_a_fault_instead_of_the_work_stores_nothing(
    simulator: SimulatorProcess, target: str, system: httpx.AsyncClient, kind: str
) -> None:
    await simulator.fault(kind, target=target)

    try:
        await post_order(system)
    except httpx.TransportError:
        assert kind in get_args(SilentKind)

    assert await simulator.order_count(target) == 0
    assert (await post_order(system)).status_code == 200


@pytest.mark.parametrize("kind", STORING)
async def test_a_fault_after_the_work_leaves_exactly_one_order(
    simulator: SimulatorProcess, target: str, system: httpx.AsyncClient, kind: str
) -> None:
    await simulator.fault(kind, target=target, delay_seconds=0.1, mebibytes=1)

    try:
        await post_order(system)
    except httpx.TransportError:
        assert kind in ("reset_after", "hang_after", "cut_body")

    assert await simulator.order_count(target) == 1
    assert (await post_order(system, "k2")).status_code == 200


async def test_status_carries_retry_after_and_the_error_envelope(
    simulator: SimulatorProcess, target: str, system: httpx.AsyncClient
) -> None:
    await simulator.fault("status", target=target, status=429, retry_after="20")
    await simulator.fault("status", target=target, status=503, retry_after="Wed, 21 Oct 2026 07:28:00 GMT")

    seconds, date = await post_order(system), await post_order(system)

    assert (seconds.status_code, seconds.headers["retry-after"]) == (429, "20")
    assert (date.status_code, date.headers["retry-after"]) == (503, "Wed, 21 Oct 2026 07:28:00 GMT")
    assert seconds.json().keys() == {"code", "message", "detailedMessage"}


async def test_status_takes_any_body_and_content_type(
    simulator: SimulatorProcess, target: str, system: httpx.AsyncClient
) -> None:
    await simulator.fault("status", target=target, status=422, body={"code": "103", "message": "no customer"})
    await simulator.fault("status", target=target, status=500, body="plain", content_type="text/plain")
    await simulator.fault("status", target=target, status=200)

    as_json, as_text, empty = [await post_order(system) for _ in range(3)]

    assert (as_json.status_code, as_json.json()["code"]) == (422, "103")
    assert (as_text.text, as_text.headers["content-type"]) == ("plain", "text/plain")
    assert (empty.status_code, empty.content) == (200, b"")


async def test_no_licence_is_a_503_that_says_so(
    simulator: SimulatorProcess, target: str, system: httpx.AsyncClient
) -> None:
    await simulator.fault("no_licence", target=target, retry_after="5")

    answer = await post_order(system)

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "licen" in answer.json()["detailedMessage"]


async def test_html_redirect_and_error_200_look_like_a_success_or_a_proxy(
    simulator: SimulatorProcess, target: str, system: httpx.AsyncClient
) -> None:
    await simulator.fault("html", target=target, status=500)
    await simulator.fault("redirect", target=target, location="/login")
    await simulator.fault("error_200", target=target)

    html, redirect, error = [await post_order(system) for _ in range(3)]

    assert (html.status_code, html.headers["content-type"]) == (500, "text/html")
    assert html.text.startswith("<html>")
    assert (redirect.status_code, redirect.headers["location"]) == (302, "/login")
    assert (error.status_code, error.json()["code"]) == (200, "102")


async def test_cp1252_is_not_utf8_and_names_no_charset(
    simulator: SimulatorProcess, target: str, system: httpx.AsyncClient
) -> None:
    await simulator.fault("cp1252", target=target)

    answer = await post_order(system)

    assert (answer.status_code, answer.headers["content-type"]) == (500, "application/json")
    with pytest.raises(UnicodeDecodeError):
        answer.content.decode()
    assert json.loads(answer.content.decode("cp1252"))["message"] == "Cliente não encontrado"


@pytest.mark.parametrize("kind", ["broken_json", "broken_json_before"])
async def test_broken_json_is_a_complete_answer_with_half_a_text(
    simulator: SimulatorProcess, target: str, system: httpx.AsyncClient, kind: str
) -> None:
    await simulator.fault(kind, target=target)

    answer = await post_order(system)

    assert answer.status_code == 200
    assert answer.content.startswith(b'{"protheusOrderId"')
    with pytest.raises(json.JSONDecodeError):
        answer.json()


@pytest.mark.parametrize("kind", ["reset_before", "reset_after", "commit_later"])
async def test_a_reset_is_a_real_one(simulator: SimulatorProcess, target: str, kind: str) -> None:
    await simulator.fault(kind, target=target)

    with pytest.raises(ConnectionResetError):
        await asyncio.to_thread(post_raw, simulator, target)

    (call,) = await simulator.calls(target)
    assert (call["status"], call["fault"]) == (None, kind)


async def test_cut_body_ends_in_the_middle(simulator: SimulatorProcess, target: str) -> None:
    await simulator.fault("cut_body", target=target)

    received = await asyncio.to_thread(post_raw, simulator, target)

    head, _, body = received.partition(b"\r\n\r\n")
    announced = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    assert head.startswith(b"HTTP/1.1 200")
    assert 0 < len(body) < announced


async def test_commit_later_shows_the_order_only_after_the_delay(
    simulator: SimulatorProcess, target: str, system: httpx.AsyncClient
) -> None:
    await simulator.fault("commit_later", target=target, delay_seconds=1)
    started = time.monotonic()

    with pytest.raises(httpx.TransportError):
        await post_order(system)

    async def lookup() -> list[Any]:
        items: list[Any] = (await system.get("/protheus/v1/orders?integrationId=k1")).json()["items"]
        return items

    assert await lookup() == []
    await eventually(lookup)
    assert time.monotonic() - started >= 1


async def test_a_reset_of_the_target_forgets_a_commit_that_is_still_to_come(
    simulator: SimulatorProcess, target: str, system: httpx.AsyncClient
) -> None:
    await simulator.fault("commit_later", target=target, delay_seconds=0.2)
    await simulator.fault("slow", target=target, delay_seconds=0.4)
    with pytest.raises(httpx.TransportError):
        await post_order(system, "forgotten")
    slow = asyncio.create_task(post_order(system, "slow"))

    async def both_arrived() -> bool:
        return len(await simulator.calls(target)) == 2

    await eventually(both_arrived)
    await simulator.reset(target)
    await slow

    assert await simulator.orders(target) == []


async def test_slow_stores_the_order_even_when_the_caller_has_gone(
    simulator: SimulatorProcess, target: str, system: httpx.AsyncClient
) -> None:
    await simulator.fault("slow", target=target, delay_seconds=1)

    with pytest.raises(httpx.ReadTimeout):
        await system.post("/protheus/v1/orders", json={"orderId": "1"}, timeout=0.2)
    assert await simulator.order_count(target) == 0

    async def is_stored() -> bool:
        return await simulator.order_count(target) == 1

    await eventually(is_stored)


async def test_slow_body_sends_headers_at_once_and_the_rest_in_drips(
    simulator: SimulatorProcess, target: str, system: httpx.AsyncClient
) -> None:
    await simulator.fault("slow_body", target=target, delay_seconds=0.8)

    async with system.stream("POST", "/protheus/v1/orders", json={"orderId": "1"}) as answer:
        headers_at = time.monotonic()
        pieces = [piece async for piece in answer.aiter_raw()]

    assert time.monotonic() - headers_at > 0.4
    assert len(pieces) > 2
    assert json.loads(b"".join(pieces))["protheusOrderId"] == "PRO-000001"


async def test_huge_body_has_the_asked_size(
    simulator: SimulatorProcess, target: str, system: httpx.AsyncClient
) -> None:
    await simulator.fault("huge_body", target=target, mebibytes=3)

    answer = await post_order(system)

    assert answer.json()["protheusOrderId"] == "PRO-000001"
    assert len(answer.content) > 3 * 1024 * 1024


async def test_status_after_stores_the_order_and_denies_it(
    simulator: SimulatorProcess, target: str, system: httpx.AsyncClient
) -> None:
    await simulator.fault("status_after", target=target, status=500, body={"code": "118", "message": "item 3"})

    answer = await post_order(system)

    assert (answer.status_code, answer.json()["code"]) == (500, "118")
    assert await simulator.order_count(target) == 1


async def test_a_hanging_call_ends_with_its_caller_and_frees_its_place(
    simulator: SimulatorProcess, target: str, system: httpx.AsyncClient
) -> None:
    await simulator.settings(target, concurrency=1)
    await simulator.fault("hang", target=target)

    with pytest.raises(httpx.ReadTimeout):
        await system.post("/protheus/v1/orders", json={"orderId": "1"}, timeout=0.2)

    async def is_free() -> bool:
        return (await post_order(system)).status_code == 200

    await eventually(is_free)


async def test_faults_are_used_up_in_order_and_as_often_as_said(
    simulator: SimulatorProcess, target: str, system: httpx.AsyncClient
) -> None:
    await simulator.fault("status", target=target, status=503, times=2)
    await simulator.fault("status", target=target, status=429)

    assert [(await post_order(system)).status_code for _ in range(4)] == [503, 503, 429, 200]
    assert await simulator.faults(target) == []


async def test_a_fault_without_a_count_lasts_until_it_is_cleared(
    simulator: SimulatorProcess, target: str, system: httpx.AsyncClient
) -> None:
    await simulator.fault("status", target=target, times=None)

    assert [(await post_order(system)).status_code for _ in range(3)] == [503, 503, 503]
    await simulator.clear_faults(target)
    assert (await post_order(system)).status_code == 200


async def test_a_fault_meets_only_the_calls_that_it_names(
    simulator: SimulatorProcess, target: str, system: httpx.AsyncClient
) -> None:
    await simulator.fault("status", target=target, external_order_id="ORDER-k2")
    await simulator.fault("status", target=target, match="lookup", status=504)
    await simulator.fault("status", target=target, match="token", status=500)

    posts = [(await post_order(system, key)).status_code for key in ("k1", "k2", "k2")]
    lookups = [(await system.get("/protheus/v1/orders?integrationId=k1")).status_code for _ in range(2)]
    token = await system.post("/oauth2/token")

    assert posts == [200, 503, 200]
    assert lookups == [504, 200]
    assert token.status_code == 500


async def test_a_fault_for_any_call_meets_posts_and_lookups_of_both_profiles(
    simulator: SimulatorProcess, target: str, system: httpx.AsyncClient
) -> None:
    await simulator.fault("status", target=target, match="any", times=None)

    answers = [
        await post_order(system),
        await system.get("/protheus/v1/orders?integrationId=k1"),
        await system.post("/orders", json={}),
        await system.get("/orders?key=k1"),
    ]

    assert [answer.status_code for answer in answers] == [503] * 4
