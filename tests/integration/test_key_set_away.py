"""A hub that was started while an issuer was away: both doors ask its partners to come again, and serve the others."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey

from chassis.errors import KeySetUnavailable
from chassis.status import from_rpc_error
from chassis.testing import free_port
from integrationhub.intake.v1.intake_pb2 import ListIntegrationRequestsRequest
from integrationhub.intake.v1.intake_pb2_grpc import IntakeServiceStub
from tests.fakes import AUDIENCE, ISSUER, GatewayUnderTest, running_gateway
from tests.rest import assert_problem, post


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[GatewayUnderTest]:
    async with running_gateway(tmp_path, issuers=[f"https://127.0.0.1:{free_port()}/jwks"]) as running:
        yield running


@pytest.fixture
async def client(hub: GatewayUnderTest) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=hub.app), base_url="http://hub") as calling:
        yield calling


@pytest.fixture
def header() -> dict[str, str]:
    """Of a partner of the issuer that is away."""
    key = ECKey.generate_key("P-256", {"kid": "the issuer's"}, private=True)
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "acme", "exp": int(time.time()) + 60, "scope": "requests:write"}
    return {"Authorization": "Bearer " + jwt.encode({"alg": "ES256", "kid": key.kid}, claims, key)}


async def test_rest_asks_its_partners_to_come_again(
    client: httpx.AsyncClient, hub: GatewayUnderTest, header: dict[str, str]
) -> None:
    answer = await post(client, hub, headers=header)

    assert_problem(answer, 503, "key-set-unavailable")
    assert answer.headers["Retry-After"] == "2"
    assert (await post(client, hub)).status_code == 202


async def test_grpc_asks_its_partners_to_come_again(hub: GatewayUnderTest, header: dict[str, str]) -> None:
    async with grpc.aio.insecure_channel(hub.intake_address) as channel:
        call = IntakeServiceStub(channel).ListIntegrationRequests
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(
                ListIntegrationRequestsRequest(), metadata=(("authorization", header["Authorization"]),), timeout=10
            )

    error = from_rpc_error(refused.value)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert (type(error), error.retry_after_seconds) == (KeySetUnavailable, 2.0)


async def test_a_create_that_intake_could_not_check_the_gateways_token_of_is_certainly_not_stored(
    client: httpx.AsyncClient, hub: GatewayUnderTest
) -> None:
    async def refuse() -> None:
        raise KeySetUnavailable("Tokens cannot be checked now; repeat the call in a moment.")

    hub.intake.before_batch = refuse

    assert_problem(await post(client, hub), 503, "service-unavailable")
