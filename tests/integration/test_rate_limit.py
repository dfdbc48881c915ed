"""The rate limit per partner: what passes, what is told, who shares it, and what happens without Redis."""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import redis.asyncio as redis

from chassis import rate_limit
from chassis.access import ACT_FOR_PARTNER, REQUESTS_READ, REQUESTS_WRITE
from chassis.rate_limit import PERIOD_SECONDS, Allowance, RateLimit, RateStanding
from chassis.rpc_client import RpcClient
from chassis.telemetry import Telemetry
from chassis.testing import TestKeys, eventually
from chassis.tokens import JwksSource, ServiceToken, TokenVerifier
from chassis.tracing import Tracing
from gateway.app import build_app
from gateway.intake_client import IntakeClient
from gateway.readiness import Readiness
from integrationhub.intake.v1 import intake_pb2 as pb
from tests.intake import IntakeUnderTest, new_request, refusal_of, refused, running_intake
from tests.rest import PATH, create_body
from tests.servers import ValkeyServer


@asynccontextmanager
async def bucket(url: str) -> AsyncIterator[RateLimit]:
    telemetry = Telemetry("intake")
    limit = RateLimit(url, telemetry.counter("rate_limit_open_total"))
    await warm(limit)
    yield limit
    await limit.stop()


async def warm(limit: RateLimit) -> None:
    """Connect: on a busy machine the first answer may be later than the limit waits for."""
    for _ in range(50):
        if await limit.take({Allowance("warm", 1000): 1}):
            return
        await asyncio.sleep(0.1)


async def take(limit: RateLimit, count: int, *, per_minute: int, partner: str = "acme") -> RateStanding:
    allowance = Allowance(partner, per_minute)
    for _ in range(20):  # a machine that stalls for 50 ms opens the limit for a second
        standing = await limit.take({allowance: count})
        if standing:
            return standing[allowance]
        await asyncio.sleep(0.2)
    raise AssertionError("Redis does not answer")


async def test_a_batch_takes_what_is_left_and_no_more(redis_url: str) -> None:
    async with bucket(redis_url) as limit:
        first = await take(limit, 7, per_minute=10)
        second = await take(limit, 7, per_minute=10)

    assert (first.taken, first.remaining, first.limit) == (7, 3, 10)
    assert (second.taken, second.remaining) == (3, 0)
    assert 0 < second.retry_after_seconds <= 6
    assert 0 < second.reset_seconds <= PERIOD_SECONDS


async def test_the_bucket_fills_as_time_passes(redis_url: str) -> None:
    async with bucket(redis_url) as limit:
        await take(limit, 600, per_minute=600)
        started = time.monotonic()
        refused_one = await take(limit, 1, per_minute=600)

        async def passes() -> bool:
            return (await take(limit, 1, per_minute=600)).taken == 1

        await eventually(passes, 5)

    assert refused_one.retry_after_seconds <= 0.11
    assert time.monotonic() - started < 5


async def test_two_intakes_share_one_bucket_and_partners_do_not(redis_url: str) -> None:
    async with bucket(redis_url) as one, bucket(redis_url) as other:
        await take(one, 10, per_minute=10)

        assert (await take(other, 1, per_minute=10)).taken == 0
        assert (await take(other, 1, per_minute=10, partner="brix")).taken == 1


async def test_a_clock_that_was_set_back_locks_nobody_out(redis_url: str) -> None:
    async with redis.Redis.from_url(redis_url) as client, bucket(redis_url) as limit:
        await client.set("hub:rate:acme", str(round((time.time() + 3600) * 1e6)))

        assert (await take(limit, 1, per_minute=10)).taken == 1


async def test_the_bucket_leaves_nothing_behind(redis_url: str) -> None:
    async with redis.Redis.from_url(redis_url) as client, bucket(redis_url) as limit:
        await take(limit, 5, per_minute=10)

        assert 0 < await client.pttl("hub:rate:acme") <= PERIOD_SECONDS * 1000


async def test_a_script_that_redis_has_forgotten_is_loaded_again(redis_url: str) -> None:
    async with redis.Redis.from_url(redis_url) as client, bucket(redis_url) as limit:
        await take(limit, 1, per_minute=10)
        await client.script_flush()

        assert (await take(limit, 1, per_minute=10)).remaining == 8


async def test_without_redis_everybody_is_let_through_and_a_metric_says_so(
    sqlite_url: str, keys: TestKeys, own_valkey: ValkeyServer
) -> None:
    async with running_intake(sqlite_url, keys, redis_url=own_valkey.url, rate_per_minute=1) as hub:
        own_valkey.kill()
        started = time.monotonic()
        for number in range(5):
            await hub.create(f"E-{number}")

        assert hub.metric("rate_limit_open_total") == 5
        assert time.monotonic() - started < 5


@pytest.fixture
async def hub(
    sqlite_url: str, keys: TestKeys, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[IntakeUnderTest]:
    # partners, gateway and intake share this process: a flood of them alone can keep its loop from the answer
    monkeypatch.setattr(rate_limit, "PATIENCE_SECONDS", 5.0)
    async with running_intake(sqlite_url, keys, redis_url=redis_url, rate_per_minute=3) as running:
        await warm_up(running)
        yield running


async def warm_up(hub: IntakeUnderTest) -> None:
    for number in range(50):
        before = hub.metric("rate_limit_open_total")
        await hub.create(f"warm-{number}", f"warm-{number}")
        if hub.metric("rate_limit_open_total") == before:
            return
        await asyncio.sleep(0.2)


async def test_one_too_many_is_refused_with_the_time_to_wait(hub: IntakeUnderTest) -> None:
    for number in range(3):
        await hub.create(f"E-{number}")

    refusal = await refused(hub.create("E-4"))

    assert (refusal.code, refusal.reason) == ("RESOURCE_EXHAUSTED", "RATE_LIMITED")
    assert refusal.metadata["limit"] == "3"
    assert refusal.retry_after_seconds is not None
    assert 0 < refusal.retry_after_seconds <= 20


async def test_the_token_says_how_fast_its_partner_may_be(hub: IntakeUnderTest) -> None:
    faster = hub.caller("acme", REQUESTS_WRITE, rate_per_minute=5)
    slower = hub.caller("brix", REQUESTS_WRITE, rate_per_minute=1)
    without = hub.caller("free", REQUESTS_WRITE, rate_per_minute=0)
    batch = pb.BatchCreateIntegrationRequestsRequest(requests=[new_request(f"E-{number}") for number in range(8)])

    async def accepted(metadata: tuple[tuple[str, str], ...]) -> int:
        answer = await hub.requests.BatchCreateIntegrationRequests(batch, metadata=metadata)
        return sum(result.WhichOneof("result") == "integration_request" for result in answer.results)

    assert [await accepted(metadata) for metadata in (faster, slower, without)] == [5, 1, 8]


async def test_partners_of_one_batch_are_counted_apart(hub: IntakeUnderTest) -> None:
    batch = pb.BatchCreateIntegrationRequestsRequest(
        requests=[new_request(f"E-{number}", partner_id="greedy" if number < 10 else "modest") for number in range(12)]
    )

    answer = await hub.requests.BatchCreateIntegrationRequests(batch, metadata=hub.gateway)
    outcomes = [result.WhichOneof("result") for result in answer.results]

    assert outcomes == ["integration_request"] * 3 + ["error"] * 7 + ["integration_request"] * 2
    assert (answer.results[0].rate.limit, answer.results[11].rate.remaining) == (3, 1)
    error = answer.results[3].error
    assert refusal_of("", error.message, error.details).reason == "RATE_LIMITED"


async def test_tokens_of_one_partner_keep_their_own_limits_in_a_batch(hub: IntakeUnderTest) -> None:
    limits = [0, 0, 0, 0, 0, 2, 4, 4, 0, 4, 4]  # the one of 2 takes half of the partner's bucket
    batch = pb.BatchCreateIntegrationRequestsRequest(
        requests=[
            new_request(f"E-{number}", partner_id="two", partner_limits=pb.PartnerLimits(rate_per_minute=limit))
            for number, limit in enumerate(limits)
        ]
    )

    answer = await hub.requests.BatchCreateIntegrationRequests(batch, metadata=hub.gateway)

    assert [result.WhichOneof("result") for result in answer.results] == ["integration_request"] * 9 + ["error"] * 2
    assert [result.rate.limit for result in answer.results] == limits


async def test_limits_that_an_ordinary_partner_sends_do_not_count(hub: IntakeUnderTest) -> None:
    limits = pb.PartnerLimits(rate_per_minute=0, targets=pb.SystemNames(names=["SAP"]))
    for number in range(3):
        await hub.create(f"E-{number}", partner_limits=limits)

    assert (await refused(hub.create("E-4", partner_limits=limits))).reason == "RATE_LIMITED"


async def test_a_token_for_some_systems_is_refused_others_over_grpc(hub: IntakeUnderTest) -> None:
    limited = hub.caller("acme", REQUESTS_WRITE, sources=["SAP"], targets=["TotvsProtheus"])

    other_target = await refused(
        hub.requests.CreateIntegrationRequest(new_request("E-1", target_system="SAP"), metadata=limited)
    )
    other_source = await refused(
        hub.requests.CreateIntegrationRequest(new_request("E-1", source_system="Oracle"), metadata=limited)
    )
    await hub.requests.CreateIntegrationRequest(new_request("E-1"), metadata=limited)

    assert {(each.code, each.reason) for each in (other_target, other_source)} == {
        ("PERMISSION_DENIED", "SYSTEM_NOT_ALLOWED")
    }


@asynccontextmanager
async def gateway_before(hub: IntakeUnderTest) -> AsyncIterator[httpx.AsyncClient]:
    """A gateway of its own in front of the intake."""
    scopes = (REQUESTS_WRITE, REQUESTS_READ, ACT_FOR_PARTNER)
    client = RpcClient(hub.address, ServiceToken(hub.keys.signer, service="gateway", scopes=scopes), timeout_seconds=5)
    telemetry = Telemetry("gateway")
    intake = IntakeClient(client, telemetry, timeout_seconds=5)
    app = build_app(
        intake=intake,
        verifier=TokenVerifier(JwksSource(str(hub.keys.jwks)), issuer="integration-hub", audience="integration-hub"),
        readiness=Readiness(client),
        telemetry=telemetry,
        tracing=Tracing(),
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://hub") as calling:
        yield calling
    await intake.stop()
    await client.stop()


async def post(client: httpx.AsyncClient, hub: IntakeUnderTest, body: bytes, **claims: object) -> httpx.Response:
    header = hub.keys.header("acme", REQUESTS_WRITE, **claims)
    return await client.post(PATH, content=body, headers={**header, "Content-Type": "application/json"})


async def test_partners_read_their_limit_in_headers_and_gateways_share_it(hub: IntakeUnderTest) -> None:
    async with gateway_before(hub) as one, gateway_before(hub) as other:
        accepted = await post(one, hub, create_body("E-1"))
        await post(other, hub, create_body("E-2"))
        await post(one, hub, create_body("E-3"))
        too_fast = await post(other, hub, create_body("E-4"))

    assert (accepted.status_code, too_fast.status_code) == (202, 429)
    assert accepted.headers["RateLimit-Policy"] == too_fast.headers["RateLimit-Policy"] == '"partner";q=3;w=60'
    assert re.fullmatch(r'"partner";r=2;t=\d+', accepted.headers["RateLimit"])
    assert re.fullmatch(r'"partner";r=0;t=\d+', too_fast.headers["RateLimit"])
    assert 1 <= int(too_fast.headers["Retry-After"]) <= 20


async def test_a_token_for_some_systems_is_refused_others_over_rest(hub: IntakeUnderTest) -> None:
    async with gateway_before(hub) as client:
        refusal = await post(client, hub, create_body("E-1"), targets=["SAP"])
        nothing = await post(client, hub, create_body("E-1"), sources=[])
        accepted = await post(client, hub, create_body("E-1"), targets=["TotvsProtheus"])

    assert (refusal.status_code, nothing.status_code, accepted.status_code) == (403, 403, 202)
    assert refusal.json()["type"] == "urn:integration-hub:problem:system-not-allowed"


async def test_a_limited_partner_does_not_slow_its_neighbours(hub: IntakeUnderTest) -> None:
    async with gateway_before(hub) as client:
        flood = [post(client, hub, create_body(f"E-{number}")) for number in range(200)]
        answers, neighbour = await asyncio.gather(asyncio.gather(*flood), hub.create("E-1", "brix"))

    assert neighbour.id
    assert sorted({answer.status_code for answer in answers}) == [202, 429]
    assert sum(answer.status_code == 202 for answer in answers) == 3
