"""Who may call: tokens, scopes, partners. Nothing of a call is looked at before its token is."""

import json
from typing import Any

import httpx
import pytest

from chassis.access import REQUESTS_READ, REQUESTS_WRITE
from chassis.testing import TestKeys
from tests.fakes import GatewayUnderTest
from tests.rest import PATH, SEED_BODY, assert_problem, post


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("authorization", "challenge"),
    [
        (None, "Bearer"),
        ("", 'Bearer error="invalid_token"'),
        ("Bearer", 'Bearer error="invalid_token"'),
        ("Basic dXNlcjpwYXNz", 'Bearer error="invalid_token"'),
        ("Bearer nonsense", 'Bearer error="invalid_token"'),
        ("Bearer a.b.c", 'Bearer error="invalid_token"'),
        ("Bearer " + "." * 1000, 'Bearer error="invalid_token"'),
        ("Bearer " + "x" * 20_000, 'Bearer error="invalid_token"'),
    ],
    ids=lambda value: str(value)[:20],
)
async def test_a_call_without_a_good_token_is_not_authenticated(
    client: httpx.AsyncClient, hub: GatewayUnderTest, method: str, authorization: str | None, challenge: str
) -> None:
    headers = {
        "Content-Type": "application/json",
        **({} if authorization is None else {"Authorization": authorization}),
    }

    answer = await client.request(method, PATH, headers=headers, content=SEED_BODY if method == "POST" else None)

    assert_problem(answer, 401, "unauthenticated")
    assert answer.headers["WWW-Authenticate"] == challenge
    assert hub.intake.batches == []


async def test_a_token_that_is_not_utf_8_is_not_authenticated(client: httpx.AsyncClient) -> None:
    answer = await client.get(PATH, headers=[(b"Authorization", b"Bearer \xff\xfe.\xff.\xff")])

    assert_problem(answer, 401, "unauthenticated")


async def test_an_expired_token_is_not_authenticated(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    token = hub.keys.token("acme", "requests:read", seconds=-60)

    answer = await client.get(PATH, headers={"Authorization": f"Bearer {token}"})

    assert_problem(answer, 401, "unauthenticated")


async def test_a_token_of_another_issuers_key_is_not_authenticated(
    client: httpx.AsyncClient, tmp_path_factory: pytest.TempPathFactory
) -> None:
    stranger = TestKeys(tmp_path_factory.mktemp("stranger"))

    answer = await client.get(PATH, headers=stranger.header("acme", "requests:read"))

    assert_problem(answer, 401, "unauthenticated")


async def test_a_lower_case_scheme_is_taken(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    header = hub.header()["Authorization"].replace("Bearer", "bearer")

    answer = await client.get(PATH, headers={"Authorization": header})

    assert answer.status_code == 200


async def test_two_authorization_headers_are_malformed(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    good = hub.header()["Authorization"]

    answer = await client.get(PATH, headers=[("Authorization", good), ("Authorization", good)])

    assert_problem(answer, 400, "malformed-request")


async def test_a_token_is_asked_for_before_the_body_is_looked_at(
    client: httpx.AsyncClient, hub: GatewayUnderTest
) -> None:
    read = False

    async def body() -> Any:
        nonlocal read
        read = True
        yield b"{"

    answer = await client.post(PATH, content=body(), headers={"Content-Type": "text/plain"})

    assert_problem(answer, 401, "unauthenticated")
    assert hub.intake.batches == []
    # the answer is complete; what the client still sends is dropped afterwards
    assert answer.headers["Connection"] == "close"
    assert read


async def test_a_writer_may_not_read_and_a_reader_may_not_write(
    client: httpx.AsyncClient, hub: GatewayUnderTest
) -> None:
    location = (await post(client, hub)).headers["Location"]

    written = await post(client, hub, headers=hub.header(REQUESTS_READ))
    read = await client.get(location, headers=hub.header(REQUESTS_WRITE))

    assert (written.status_code, read.status_code) == (403, 403)
    assert 'error="insufficient_scope", scope="requests:write"' in written.headers["WWW-Authenticate"]


async def test_another_partners_request_looks_absent(client: httpx.AsyncClient, hub: GatewayUnderTest) -> None:
    location = (await post(client, hub)).headers["Location"]
    absent = f"{PATH}/11111111-2222-4333-8444-555555555555"
    foreign = hub.header(partner="other")

    answers = [
        await client.get(path, headers={**foreign, "X-Correlation-ID": "same"})
        for path in (location, f"{location}/history", absent, f"{absent}/history")
    ]

    assert {answer.status_code for answer in answers} == {404}
    told = [{key: value for key, value in answer.json().items() if key != "instance"} for answer in answers]
    expected_id = [location.rpartition("/")[2]] * 2 + [absent.rpartition("/")[2]] * 2
    assert [json.dumps(body).replace(id_, "ID") for body, id_ in zip(told, expected_id, strict=True)] == [
        json.dumps(told[0]).replace(expected_id[0], "ID")
    ] * 4
