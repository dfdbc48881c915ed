"""When intake is slow, away, overloaded or restarted: what partners are told, and what is never told wrongly."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from structlog.testing import capture_logs

from chassis.access import REQUESTS_READ, REQUESTS_WRITE
from chassis.errors import (
    BacklogFull,
    HubError,
    InternalError,
    OutcomeNotKnown,
    PayloadTooLarge,
    RateLimited,
    ServiceUnavailable,
    StorageUnavailable,
)
from chassis.testing import eventually
from gateway.intake_client import MAX_HELD_BYTES
from tests.fakes import GatewayUnderTest, running_gateway
from tests.rest import CORRELATION_ID, PATH, assert_problem, create_body, post

ID = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
async def impatient(tmp_path: Path) -> AsyncIterator[GatewayUnderTest]:
    """A gateway that waits 1 s for an answer of intake, and so half a second for a connection."""
    async with running_gateway(tmp_path, timeout_seconds=1) as running:
        yield running


def calling(hub: GatewayUnderTest) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=hub.app), base_url="http://hub")


async def test_200_concurrent_creates_travel_in_few_calls(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    answers = await asyncio.gather(*(post(client, hub, create_body(f"E-{number}")) for number in range(200)))

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.json()["id"] for answer in answers}) == 200
    assert sum(len(batch.requests) for batch in hub.intake.batches) == 200
    assert len(hub.intake.batches) <= 20
    assert hub.metric("batch_items_sum", batch="create") == 200


async def test_200_concurrent_creates_of_one_external_id_make_one_request(
    client: httpx.AsyncClient, hub: GatewayUnderTest
) -> None:
    answers = await asyncio.gather(*(post(client, hub, create_body("SAME")) for _ in range(200)))

    statuses = [answer.status_code for answer in answers]
    assert (statuses.count(202), statuses.count(409)) == (1, 199)
    assert len({answer.headers["Location"] for answer in answers}) == 1


async def test_an_item_of_a_batch_keeps_its_own_partner_and_correlation_id(
    client: httpx.AsyncClient, hub: GatewayUnderTest
) -> None:
    def headers(number: int) -> dict[str, str]:
        return {**hub.header(partner=f"partner-{number % 3}"), "X-Correlation-ID": f"call-{number}"}

    answers = await asyncio.gather(
        *(post(client, hub, create_body(f"E-{number}"), headers(number)) for number in range(50))
    )

    assert [answer.json()["correlationId"] for answer in answers] == [f"call-{number}" for number in range(50)]
    stored = {request.external_id: request for request in hub.intake.stored.values()}
    assert [stored[f"E-{number}"].partner_id for number in range(50)] == [f"partner-{n % 3}" for n in range(50)]


async def test_a_batch_is_nobodys_call(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    await post(client, hub)

    assert CORRELATION_ID not in hub.intake.correlation_ids_of_batches


async def test_two_batches_are_in_flight_and_the_rest_gathers(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    hold = asyncio.Event()
    hub.intake.before_batch = hold.wait
    creating = []
    for number in range(20):
        creating.append(asyncio.create_task(post(client, hub, create_body(f"E-{number}"))))
        await eventually(lambda: len(hub.intake.batches) >= min(len(creating), 2))
    await client.get(PATH, headers=hub.header())  # its answer comes after whatever else was sent

    assert [len(batch.requests) for batch in hub.intake.batches] == [1, 1]
    hold.set()
    await asyncio.gather(*creating)
    assert [len(batch.requests) for batch in hub.intake.batches] == [1, 1, 18]


async def test_a_bad_item_of_a_batch_harms_no_other(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    targets = ["SAP", "Oracle"] * 20

    answers = await asyncio.gather(
        *(post(client, hub, create_body(f"E-{number}", target)) for number, target in enumerate(targets))
    )

    assert [answer.status_code for answer in answers] == [202, 422] * 20


async def test_a_batch_stays_below_what_intake_takes(
    client: httpx.AsyncClient, hub: GatewayUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chassis.turns.PAUSE_FACTOR", 0)  # they all have their turn in time
    payload = f'{{"a":"{"x" * 1_000_000}"}}'

    answers = await asyncio.gather(
        *(post(client, hub, create_body(f"E-{number}", payload=payload)) for number in range(30))
    )

    assert {answer.status_code for answer in answers} == {202}
    assert max(batch.ByteSize() for batch in hub.intake.batches) < 9 * 1024 * 1024


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (BacklogFull("Too many requests wait; repeat the call later.", retry_after_seconds=30), 503, "30"),
        (RateLimited("Too fast; slow down.", retry_after_seconds=0.2), 429, "1"),
        (StorageUnavailable("The database is away; repeat the call.", retry_after_seconds=2.5), 503, "3"),
        (PayloadTooLarge("The payload is too large; send less."), 413, None),
        (InternalError(), 500, None),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_a_refusal_by_intake_keeps_its_meaning(
    client: httpx.AsyncClient, hub: GatewayUnderTest, error: HubError, status: int, retry_after: str | None
) -> None:
    hub.intake.refuse_items_with = error

    answer = await post(client, hub)

    assert (answer.status_code, answer.headers.get("Retry-After")) == (status, retry_after)
    assert answer.json()["type"] == f"urn:integration-hub:problem:{error.reason.lower().replace('_', '-')}"


async def test_a_fault_of_intake_says_nothing_about_itself(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    async def fail() -> None:
        raise RuntimeError("secret table name")

    hub.intake.before_batch = fail

    answer = await post(client, hub)

    assert answer.status_code == 500
    assert "secret" not in answer.text
    assert answer.json()["correlationId"] == CORRELATION_ID


async def test_a_bug_of_the_gateway_is_a_problem_without_its_text(
    client: httpx.AsyncClient, hub: GatewayUnderTest
) -> None:
    await post(client, hub)
    hub.intake.stored[ID].status = 0  # type: ignore[assignment]  # a status that never leaves intake

    with capture_logs() as lines:
        answer = await client.get(f"{PATH}/{ID}", headers=hub.header())

    assert (answer.status_code, answer.json()["type"]) == (500, "urn:integration-hub:problem:internal")
    assert "KeyError" not in answer.text
    assert [line["log_level"] for line in lines if line["event"] == "Call failed"] == ["error"]


async def test_a_create_while_intake_is_away_is_certainly_not_stored(impatient: GatewayUnderTest) -> None:
    await impatient.intake_server.stop()

    async with calling(impatient) as client:
        answers = [await post(client, impatient)]
        answers += await asyncio.gather(*(post(client, impatient) for _ in range(20)))

    assert {answer.status_code for answer in answers} == {503}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in answers)


async def test_an_unanswered_create_is_not_called_a_failure(impatient: GatewayUnderTest) -> None:
    hang = asyncio.Event()
    impatient.intake.before_batch = hang.wait

    async with calling(impatient) as client:
        answer = await post(client, impatient)

    hang.set()
    assert answer.status_code == 504
    assert answer.json()["type"] == "urn:integration-hub:problem:outcome-not-known"
    assert "the same externalId" in answer.json()["detail"]


async def test_a_connection_lost_after_the_send_leaves_the_outcome_open(
    client: httpx.AsyncClient, hub: GatewayUnderTest
) -> None:
    hang = asyncio.Event()
    hub.intake.before_batch = hang.wait
    creating = asyncio.create_task(post(client, hub))
    await eventually(lambda: hub.intake.batches)

    await hub.intake_server.stop()
    answer = await creating

    assert answer.status_code == 504
    assert answer.json()["type"] == "urn:integration-hub:problem:outcome-not-known"


async def test_creates_wait_out_a_restart_of_intake(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    await post(client, hub, create_body("BEFORE"))
    await hub.intake_server.stop()

    creating = asyncio.create_task(post(client, hub, create_body("AFTER")))
    await asyncio.sleep(0)
    await hub.intake_server.start()
    answer = await creating

    assert answer.status_code == 202


async def test_too_much_waiting_is_refused_at_once(
    client: httpx.AsyncClient, hub: GatewayUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chassis.turns.PAUSE_FACTOR", 0)  # they all have their turn in time
    hang = asyncio.Event()
    hub.intake.before_batch = hang.wait
    payload = f'{{"a":"{"x" * 1_000_000}"}}'
    count = MAX_HELD_BYTES // 1_000_000 + 5

    creating = [
        asyncio.create_task(post(client, hub, create_body(f"E-{number}", payload=payload))) for number in range(count)
    ]
    await eventually(lambda: any(task.done() for task in creating))
    hang.set()
    answers = await asyncio.gather(*creating)

    statuses = [answer.status_code for answer in answers]
    assert 1 <= statuses.count(503) <= 5
    assert statuses.count(202) == count - statuses.count(503)
    assert {answer.headers.get("Retry-After") for answer in answers if answer.status_code == 503} == {"1"}
    assert (await post(client, hub, create_body("LATER", payload=payload))).status_code == 202


async def test_a_read_is_repeated_once_when_its_connection_broke(
    client: httpx.AsyncClient, hub: GatewayUnderTest
) -> None:
    await post(client, hub)
    hub.intake.refuse_reads_with = [ServiceUnavailable("The connection broke.")]

    answer = await client.get(f"{PATH}/{ID}", headers=hub.header())

    assert answer.status_code == 200


async def test_a_read_without_an_answer_is_not_available(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    hub.intake.refuse_reads_with = [OutcomeNotKnown("The answer did not come in time.")]

    answer = await client.get(PATH, headers=hub.header())

    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")


async def test_reads_while_intake_is_away_are_not_available(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    await hub.intake_server.stop()

    answers = await asyncio.gather(
        client.get(PATH, headers=hub.header()), client.get(f"{PATH}/{ID}/history", headers=hub.header())
    )

    assert {answer.status_code for answer in answers} == {503}


@pytest.mark.parametrize("scopes", [(REQUESTS_READ,), (REQUESTS_READ, REQUESTS_WRITE)])
async def test_a_refusal_of_the_gateways_own_token_is_not_blamed_on_the_partner(
    tmp_path: Path, scopes: tuple[str, ...]
) -> None:
    async with running_gateway(tmp_path, service_scopes=scopes) as hub, calling(hub) as client:
        with capture_logs() as lines:
            created = await post(client, hub)
            listed = await client.get(PATH, headers=hub.header())

    assert (created.status_code, listed.status_code) == (503, 503)
    assert [line["log_level"] for line in lines if line["event"] == "Intake refuses the gateway's token"] == [
        "error"
    ] * 2


async def test_the_process_is_alive_whatever_intake_does(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    await hub.intake_server.stop()

    answer = await client.get("/healthz")

    assert (answer.status_code, answer.json()) == (200, {"status": "ok"})


async def test_the_gateway_is_ready_while_intake_serves(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    ready = await client.get("/readyz")
    await hub.intake_server.stop()
    unready = await client.get("/readyz")

    assert (ready.status_code, ready.json()) == (200, {"status": "ready"})
    assert (unready.status_code, unready.headers["Content-Type"]) == (503, "application/problem+json")
    assert "Retry-After" in unready.headers


async def test_a_gateway_whose_database_takes_no_writes_is_not_ready_and_reads_on(
    client: httpx.AsyncClient, hub: GatewayUnderTest
) -> None:
    await hub.storage.tell(is_there=False)
    unready = await client.get("/readyz")
    listed = await client.get(PATH, headers=hub.header())
    await hub.storage.tell(is_there=True)
    ready = await client.get("/readyz")

    assert_problem(unready, 503, "storage-unavailable")
    assert "database" in unready.json()["detail"]
    assert (listed.status_code, ready.status_code) == (200, 200)


async def test_a_gateway_before_an_intake_that_says_nothing_of_its_storage_is_ready(tmp_path: Path) -> None:
    async with running_gateway(tmp_path, storage_name="unheard of") as hub, calling(hub) as client:
        ready = await client.get("/readyz")

    assert ready.status_code == 200  # a rolling upgrade: the intake is of the version before


async def test_a_draining_gateway_is_not_ready_and_ends_its_connections(
    client: httpx.AsyncClient, hub: GatewayUnderTest
) -> None:
    hub.readiness.draining = True

    probe = await client.get("/readyz")
    answer = await post(client, hub)

    assert (probe.status_code, answer.status_code) == (503, 202)
    assert (probe.headers["Connection"], answer.headers["Connection"]) == ("close", "close")


async def test_a_key_set_that_cannot_be_read_is_the_hubs_trouble(
    client: httpx.AsyncClient, hub: GatewayUnderTest
) -> None:
    header = hub.header()
    hub.keys.jwks.unlink()

    answer = await client.get(PATH, headers=header)

    assert answer.status_code == 503
    assert str(hub.keys.jwks) not in answer.text
