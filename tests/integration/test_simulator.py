"""The simulator without faults, as a real process; each test has a target of its own."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from chassis.testing import eventually
from simulator.testing import SimulatorProcess

TOKEN = "simulator-token"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def simulator() -> Iterator[SimulatorProcess]:
    with SimulatorProcess(token=TOKEN) as process:
        yield process


@pytest.fixture
def target(request: pytest.FixtureRequest) -> str:
    name: str = request.node.name
    return "".join(letter if letter.isalnum() else "-" for letter in name)


@pytest.fixture
async def system(simulator: SimulatorProcess, target: str) -> AsyncIterator[httpx.AsyncClient]:
    """The caller of this test's own target."""
    base_url = f"{simulator.base_url}/t/{target}"
    async with httpx.AsyncClient(base_url=base_url, headers=BEARER, trust_env=False, timeout=10) as client:
        yield client


async def post_order(system: httpx.AsyncClient, key: str = "k1", **fields: Any) -> httpx.Response:
    body = {"orderId": f"ORDER-{key}", "integrationId": key, **fields}
    return await system.post("/protheus/v1/orders", json=body, headers={"Idempotency-Key": key})


async def find_order(system: httpx.AsyncClient, key: str = "k1") -> list[dict[str, Any]]:
    answer = await system.get("/protheus/v1/orders", params={"integrationId": key})
    assert answer.status_code == 200
    assert answer.json()["hasNext"] is False
    items: list[dict[str, Any]] = answer.json()["items"]
    return items


async def test_an_order_is_created_and_numbered(system: httpx.AsyncClient) -> None:
    answers = [await post_order(system, "k1"), await post_order(system, "k2")]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert [answer.json()["protheusOrderId"] for answer in answers] == ["PRO-000001", "PRO-000002"]
    assert answers[0].json()["status"] == "Created"
    assert answers[0].json()["timestamp"].endswith("Z")


async def test_a_stored_body_is_kept_digit_for_digit(
    simulator: SimulatorProcess, target: str, system: httpx.AsyncClient
) -> None:
    body = '{ "orderId":"ÇÃ-1","totalAmount":15000.00, "big":9007199254740993,"integrationId":"k1","externalId":"E-1"}'
    headers = {"Idempotency-Key": "key-1", "X-Correlation-ID": "corr-1"}
    await system.post("/protheus/v1/orders", content=body.encode(), headers=headers)

    (order,) = await simulator.orders(target)

    assert order["body"] == body
    assert (order["orderId"], order["integrationId"], order["externalId"]) == ("ÇÃ-1", "k1", "E-1")
    assert (order["key"], order["correlationId"], order["profile"]) == ("key-1", "corr-1", "protheus")


async def test_a_call_without_the_right_token_is_refused_and_spends_no_fault(
    simulator: SimulatorProcess, target: str, system: httpx.AsyncClient
) -> None:
    await simulator.fault("status", target=target)

    for authorization in ("", "Bearer wrong", "Basic abc", f"Bearer{TOKEN}"):
        answer = await system.post("/protheus/v1/orders", json={}, headers={"Authorization": authorization})
        assert answer.status_code == 401
        assert answer.json().keys() == {"code", "message", "detailedMessage"}

    assert len(await simulator.faults(target)) == 1
    assert await simulator.orders(target) == []


@pytest.mark.parametrize("body", [b'{"integrationId":"k1"}', b'{"orderId":""}', b'{"orderId":null}'])
async def test_an_order_without_order_id_is_a_business_error_with_status_500(
    system: httpx.AsyncClient, body: bytes
) -> None:
    answer = await system.post("/protheus/v1/orders", content=body)

    assert (answer.status_code, answer.json()["code"]) == (500, "104")
    assert "orderId" in answer.json()["detailedMessage"]


@pytest.mark.parametrize("body", [b'{"orderId":', b"", b"[]", b'"text"', b'{"orderId":"\xe7"}'])
async def test_a_body_that_is_no_json_object_is_a_bad_request(system: httpx.AsyncClient, body: bytes) -> None:
    protheus = await system.post("/protheus/v1/orders", content=body)
    plain = await system.post("/orders", content=body)

    assert (protheus.status_code, protheus.json()["code"]) == (400, "101")
    assert plain.status_code == 400


async def test_lookup_finds_by_integration_id_and_external_id(system: httpx.AsyncClient) -> None:
    await post_order(system, "k1", externalId="E 1")

    assert [item["protheusOrderId"] for item in await find_order(system, "k1")] == ["PRO-000001"]
    assert (await find_order(system, "k1"))[0]["integrationId"] == "k1"
    assert await find_order(system, "absent") == []
    by_external_id = await system.get("/protheus/v1/orders", params={"externalId": "E 1"})
    assert [item["integrationId"] for item in by_external_id.json()["items"]] == ["k1"]
    assert (await system.get("/protheus/v1/orders")).status_code == 400


async def test_lookup_can_be_off_or_down(simulator: SimulatorProcess, target: str, system: httpx.AsyncClient) -> None:
    for lookup, status in (("off", 404), ("down", 503), ("on", 200)):
        await simulator.settings(target, lookup=lookup)

        assert (await system.get("/protheus/v1/orders?integrationId=k1")).status_code == status


async def test_protheus_stores_the_same_order_twice_and_says_so_to_the_tester(
    simulator: SimulatorProcess, target: str, system: httpx.AsyncClient
) -> None:
    for key in ("k1", "k2", "k1"):
        await post_order(system, key)

    assert len(await find_order(system, "k1")) == 2
    assert await simulator.order_count(target) == 3
    assert await simulator.duplicates(target) == [
        {"target": target, "key": "k1", "count": 2, "ids": ["PRO-000001", "PRO-000003"]}
    ]


async def test_idempotency_answers_a_repeated_key_again_and_refuses_another_body(
    simulator: SimulatorProcess, target: str, system: httpx.AsyncClient
) -> None:
    await simulator.settings(target, idempotency=True)

    first = await post_order(system, "k1")
    again = await post_order(system, "k1")
    other = await post_order(system, "k1", quantity=2)

    assert (again.status_code, again.content) == (200, first.content)
    assert other.status_code == 422
    assert await simulator.order_count(target) == 1


async def test_idempotency_refuses_a_key_whose_first_call_still_runs(
    simulator: SimulatorProcess, target: str, system: httpx.AsyncClient
) -> None:
    await simulator.settings(target, idempotency=True, latency_seconds=0.5)

    answers = await asyncio.gather(post_order(system, "k1"), post_order(system, "k1"))

    assert sorted(answer.status_code for answer in answers) == [200, 409]
    assert await simulator.order_count(target) == 1


async def test_duplicates_can_be_refused_with_fault_111_that_names_the_order(
    simulator: SimulatorProcess, target: str, system: httpx.AsyncClient
) -> None:
    await simulator.settings(target, duplicates="refuse")
    await post_order(system, "k1")

    answer = await post_order(system, "k1")

    assert (answer.status_code, answer.json()["code"]) == (500, "111")
    assert answer.json()["message"] == "Pedido ja incluido anteriormente no pedido do Protheus: PRO-000001"


async def test_more_calls_than_the_concurrency_get_no_licence(
    simulator: SimulatorProcess, target: str, system: httpx.AsyncClient
) -> None:
    await simulator.settings(target, concurrency=2, latency_seconds=0.5)

    answers = await asyncio.gather(*(post_order(system, f"k{number}") for number in range(5)))

    assert sorted(answer.status_code for answer in answers) == [200, 200, 503, 503, 503]
    refused = next(answer for answer in answers if answer.status_code == 503)
    assert refused.json()["message"] == "Não há licença disponível"


async def test_a_plain_order_is_found_by_its_integration_id_or_else_by_its_header_key(
    system: httpx.AsyncClient,
) -> None:
    with_id = await system.post("/orders", json={"integrationId": "k1"}, headers={"Idempotency-Key": "h1"})
    without_id = await system.post("/orders", json={}, headers={"Idempotency-Key": "h2"})

    assert with_id.json() == {"id": "ORD-000001", "status": "Created"}
    assert without_id.json()["id"] == "ORD-000002"
    found = [(await system.get("/orders", params={"key": key})) for key in ("k1", "h1", "h2")]
    assert [answer.status_code for answer in found] == [200, 404, 200]
    assert found[0].json()["id"] == "ORD-000001"


async def test_the_plain_system_honours_keys_and_refuses_duplicates_as_set(
    simulator: SimulatorProcess, target: str, system: httpx.AsyncClient
) -> None:
    await simulator.settings(target, idempotency=True)
    key = {"Idempotency-Key": "h1"}
    answers = [
        await system.post("/orders", json={"integrationId": "k1", "n": number}, headers=key) for number in (1, 1, 2)
    ]
    await simulator.settings(target, idempotency=False, duplicates="refuse")
    answers.append(await system.post("/orders", json={"integrationId": "k1", "n": 1}))

    assert [answer.status_code for answer in answers] == [200, 200, 422, 409]
    assert await simulator.order_count(target) == 1


async def test_the_plain_system_honours_no_key_but_the_headers(
    simulator: SimulatorProcess, target: str, system: httpx.AsyncClient
) -> None:
    await simulator.settings(target, idempotency=True)
    for _ in range(2):
        await system.post("/orders", json={"integrationId": "k1"})

    assert await simulator.order_count(target) == 2


@pytest.mark.parametrize("client_auth", ["form", "basic", "password"])
async def test_an_issued_token_is_accepted_until_it_expires(
    simulator: SimulatorProcess, target: str, system: httpx.AsyncClient, client_auth: str
) -> None:
    await simulator.settings(target, token_seconds=1)
    headers = {"Authorization": "Basic " + base64.b64encode(b"hub:secret").decode()} if client_auth == "basic" else {}
    form = {
        "form": {"grant_type": "client_credentials", "client_id": "hub", "client_secret": "secret"},
        "basic": {"grant_type": "client_credentials"},
        "password": {"grant_type": "password", "username": "hub", "password": "secret"},
    }[client_auth]
    issued = (await system.post("/oauth2/token", data=form, headers=headers)).json()
    bearer = {"Authorization": f"Bearer {issued['access_token']}"}

    async def call() -> int:
        return (await system.get("/protheus/v1/orders?integrationId=k1", headers=bearer)).status_code

    assert (issued["token_type"], issued["expires_in"]) == ("Bearer", 1)
    assert await call() == 200

    async def is_refused() -> bool:
        return await call() == 401

    await eventually(is_refused, seconds=5)


async def test_wrong_client_credentials_get_no_token(system: httpx.AsyncClient) -> None:
    for form, status in (
        ({"grant_type": "client_credentials", "client_id": "hub", "client_secret": "wrong"}, 401),
        ({"grant_type": "password", "username": "hub", "password": "wrong"}, 401),
        ({"grant_type": "magic"}, 400),
    ):
        answer = await system.post("/oauth2/token", data=form, headers={"Authorization": ""})

        assert answer.status_code == status


async def test_targets_share_neither_orders_nor_faults_nor_settings(
    simulator: SimulatorProcess, target: str, system: httpx.AsyncClient
) -> None:
    other = f"{target}-other"
    await simulator.fault("status", target=other, times=None)
    await simulator.settings(other, idempotency=True)

    assert (await post_order(system)).status_code == 200
    assert await simulator.orders(other) == []
    assert len(await simulator.orders(target)) == 1


async def test_calls_are_recorded_with_what_was_sent_and_answered(
    simulator: SimulatorProcess, target: str, system: httpx.AsyncClient
) -> None:
    traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    await simulator.fault("no_licence", target=target)
    headers = {"Idempotency-Key": "k1", "X-Correlation-ID": "corr-1", "traceparent": traceparent}
    await system.post("/protheus/v1/orders", json={"orderId": "1"}, headers=headers)
    await find_order(system, "k1")

    post, lookup = await simulator.calls(target)

    assert (post["method"], post["path"], post["status"]) == ("POST", f"/t/{target}/protheus/v1/orders", 503)
    assert (post["idempotencyKey"], post["correlationId"], post["traceparent"]) == ("k1", "corr-1", traceparent)
    assert post["fault"] == "no_licence"
    assert (lookup["method"], lookup["query"], lookup["status"]) == ("GET", "integrationId=k1", 200)


async def test_orders_are_listed_in_pages(simulator: SimulatorProcess, target: str, system: httpx.AsyncClient) -> None:
    for number in range(5):
        await post_order(system, f"k{number}")

    url = f"{simulator.base_url}/_sim/orders"
    first = (await system.get(url, params={"target": target, "limit": 2})).json()
    second = (await system.get(url, params={"target": target, "after": first["items"][-1]["sequence"]})).json()

    assert first["count"] == second["count"] == 5
    assert [item["key"] for item in first["items"] + second["items"]] == ["k0", "k1", "k2", "k3", "k4"]


async def test_a_reset_forgets_one_target_and_starts_its_numbers_again(
    simulator: SimulatorProcess, target: str, system: httpx.AsyncClient
) -> None:
    await post_order(system)
    await simulator.fault("status", target=target)
    await simulator.settings(target, duplicates="refuse")
    others = await simulator.order_count()

    await simulator.reset(target)

    assert await simulator.calls(target) == []
    assert await simulator.order_count() == others - 1
    assert (await post_order(system)).json()["protheusOrderId"] == "PRO-000001"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/_sim/faults", {"kind": "no_such_kind"}),
        ("/_sim/faults", {"kind": "status", "tmes": 2}),
        ("/_sim/faults", {"kind": "status", "times": 0}),
        ("/_sim/settings", {"latency": 1}),
        ("/_sim/settings", {"lookup": "sometimes"}),
        ("/_sim/settings", []),
    ],
)
async def test_a_mistaken_administration_call_is_refused_with_a_reason(
    system: httpx.AsyncClient, simulator: SimulatorProcess, path: str, body: Any
) -> None:
    answer = await system.post(f"{simulator.base_url}{path}", json=body)

    assert answer.status_code == 400
    assert answer.json()["error"]


async def test_an_unknown_path_is_not_found(system: httpx.AsyncClient, simulator: SimulatorProcess) -> None:
    for path in ("/", "/t/x", "/t/x/nothing", "/_sim/nothing"):
        assert (await system.get(f"{simulator.base_url}{path}")).status_code == 404
    assert (await system.delete("/orders")).status_code == 404


async def test_stored_orders_survive_a_kill_and_a_torn_last_line(tmp_path: Path) -> None:
    state = tmp_path / "state" / "orders.jsonl"
    async with SimulatorProcess(state=state) as simulator:
        async with httpx.AsyncClient(base_url=simulator.base_url, headers=BEARER, trust_env=False) as system:
            await post_order(system, "gone")
            await simulator.reset()
            await post_order(system, "k1", amount=1)
            await system.post("/t/other/orders", content=b'{"v":1.00}')
        before = await simulator.orders()
        simulator.kill()
        with state.open("ab") as file:
            file.write(b'{"order":{"id":"PRO')

        simulator.start()

        assert await simulator.orders() == before
        async with httpx.AsyncClient(base_url=simulator.base_url, headers=BEARER, trust_env=False) as system:
            assert len(await find_order(system, "k1")) == 1
            assert (await post_order(system, "k2")).json()["protheusOrderId"] == "PRO-000002"
        after = await simulator.orders()
        assert [order["sequence"] for order in after] == sorted({order["sequence"] for order in after})


async def test_sigterm_ends_with_status_0_even_while_calls_hang() -> None:
    async with SimulatorProcess() as simulator:
        async with httpx.AsyncClient(
            base_url=simulator.base_url, headers=BEARER, trust_env=False, timeout=30
        ) as system:
            await simulator.fault("hang", external_order_id="ORDER-hangs")
            await simulator.fault("slow", external_order_id="ORDER-slow", delay_seconds=60)
            await simulator.settings(latency_seconds=0.4)
            names = ("hangs", "slow", "quick")
            posts = [asyncio.create_task(post_order(system, name)) for name in names]

            async def all_arrived() -> bool:
                return len(await simulator.calls()) == len(names)

            await eventually(all_arrived)
            started = time.monotonic()
            status = await asyncio.to_thread(simulator.stop)
            answers = await asyncio.gather(*posts, return_exceptions=True)

        assert status == 0
        assert time.monotonic() - started < 4
        assert all(isinstance(answer, httpx.TransportError) for answer in answers[:2])
        assert isinstance(answers[2], httpx.Response)
        assert simulator.stderr() == f"simulator listens on {simulator.base_url}\n"


def test_an_address_in_use_is_said_and_not_waited_for(simulator: SimulatorProcess) -> None:
    second = SimulatorProcess(address=simulator.base_url.removeprefix("http://"))

    with pytest.raises(RuntimeError, match=r"cannot start: .*[Aa]ddress"):
        second.start()
