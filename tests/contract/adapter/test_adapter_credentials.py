"""Credentials: renewed once for all who wait, never the partner's trouble, never tried until the account is locked."""

import asyncio
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from chassis.testing import eventually
from integrationhub.adapter.v1 import adapter_pb2 as pb
from tests.contract.adapter.conftest import TOKEN, System

CALLS = 50


@pytest.fixture
def oauth2(protheus: System) -> System:
    """Protheus with a token from its token endpoint."""
    protheus.extra["auth"] = {
        "kind": "oauth2",
        "token_url": f"{protheus.table['base_url']}/oauth2/token",
        "client_id": "hub",
        "client_secret": "env:PROTHEUS_SECRET",
    }
    return protheus


async def deliver_many(system: System) -> list[int]:
    await system.started()
    responses = await asyncio.gather(*(system.deliver() for _ in range(CALLS)))
    return [response.outcome for response in responses]


async def test_fifty_calls_at_once_fetch_one_token(oauth2: System) -> None:
    outcomes = await deliver_many(oauth2)

    assert outcomes == [pb.OUTCOME_DELIVERED] * CALLS
    assert len(await oauth2.token_calls()) == 1


async def test_a_token_that_ends_under_fifty_calls_is_renewed_once(oauth2: System) -> None:
    ended = '{"access_token":"ended-long-ago","expires_in":3600}'
    await oauth2.fault("status", match="token", status=200, body=ended)

    outcomes = await deliver_many(oauth2)

    assert outcomes == [pb.OUTCOME_DELIVERED] * CALLS
    assert len(await oauth2.token_calls()) == 2
    assert len(await oauth2.orders()) == CALLS


async def test_a_token_is_renewed_before_it_ends(oauth2: System) -> None:
    await oauth2.settings(token_seconds=2)

    async def has_renewed() -> bool:
        await oauth2.deliver()
        return len(await oauth2.token_calls()) == 2

    await eventually(has_renewed, every=0.02)

    assert {call["status"] for call in await oauth2.posts()} == {200}


async def test_wrong_credentials_are_not_tried_again_and_again(oauth2: System, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("wrong")
    oauth2.extra["auth"]["client_secret"] = "file:secret"

    outcomes = await deliver_many(oauth2)

    assert outcomes == [pb.OUTCOME_UNAVAILABLE] * CALLS
    assert len(await oauth2.token_calls()) == 1


async def test_wrong_credentials_pause_the_target(oauth2: System, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("wrong")
    oauth2.extra["auth"]["client_secret"] = "file:secret"

    response = await oauth2.deliver()

    assert "credentials refused" in response.detail
    assert response.credentials_refused
    assert response.retry_after.ToSeconds() == 60


async def test_the_password_grant_is_used_where_there_is_a_username(oauth2: System) -> None:
    oauth2.extra["auth"] |= {"username": "hub", "password": "env:PROTHEUS_PASSWORD"}
    del oauth2.extra["auth"]["client_secret"]

    assert (await oauth2.deliver()).outcome == pb.OUTCOME_DELIVERED


@pytest.mark.parametrize(
    "fault",
    [
        {"kind": "status", "status": 503},
        {"kind": "reset_before"},
        {"kind": "broken_json"},
        {"kind": "html", "status": 200},
        {"kind": "redirect"},
        {"kind": "status", "status": 200, "body": '{"access_token":"a\\r\\nb"}'},
        {"kind": "status", "status": 200, "body": '{"access_token":""}'},
        {"kind": "status", "status": 200, "body": '{"access_token":"abc","expires_in":"soon"}'},
    ],
    ids=str,
)
async def test_a_token_endpoint_out_of_order_means_nothing_was_sent(oauth2: System, fault: dict[str, Any]) -> None:
    await oauth2.simulator.fault(match="token", target=oauth2.place, **fault)

    response = await oauth2.deliver()

    assert (response.outcome, await oauth2.posts()) == (pb.OUTCOME_UNAVAILABLE, [])


async def test_a_silent_token_endpoint_takes_no_longer_than_the_attempt(oauth2: System) -> None:
    oauth2.extra["timeout_seconds"] = 0.3
    await oauth2.fault("hang", match="token")

    response = await oauth2.deliver()

    assert (response.outcome, response.timed_out) == (pb.OUTCOME_UNAVAILABLE, False)


async def test_a_new_token_that_is_refused_as_well_is_our_trouble(oauth2: System) -> None:
    await oauth2.fault("status", status=401, times=None)

    response = await oauth2.deliver()

    assert (response.outcome, len(await oauth2.posts())) == (pb.OUTCOME_UNAVAILABLE, 2)
    assert "credentials refused" in response.detail


async def test_a_refused_fixed_token_is_our_trouble(protheus: System) -> None:
    await protheus.fault("status", status=401, times=None)

    response = await protheus.deliver()

    assert (response.outcome, len(await protheus.posts())) == (pb.OUTCOME_UNAVAILABLE, 1)
    assert response.credentials_refused


@pytest.mark.parametrize(
    "auth",
    [
        {"kind": "none"},
        {"kind": "bearer", "token": "env:ORDERS_TOKEN"},
        {"kind": "basic", "username": "hub", "password": "env:ORDERS_PASSWORD"},
    ],
    ids=lambda auth: auth["kind"],
)
async def test_the_log_says_that_a_target_refuses_our_credentials(orders_api: System, auth: dict[str, str]) -> None:
    orders_api.extra["auth"] = auth
    await orders_api.fault("status", status=401, times=None)
    with capture_logs() as lines:
        response = await orders_api.deliver()

    assert response.code == "401"
    assert said(lines) == [
        ("Credentials refused", "error", "OrdersApi", "401"),
        ("External system called", "warning", "OrdersApi", "401"),
    ]


async def test_the_log_says_that_a_new_token_is_refused_as_well(oauth2: System) -> None:
    await oauth2.fault("status", status=401, times=None)
    with capture_logs() as lines:
        await oauth2.deliver()

    assert said(lines) == [
        ("Credentials refused", "error", "TotvsProtheus", "401"),
        ("External system called", "warning", "TotvsProtheus", "401"),
    ]


@pytest.mark.parametrize("status", [400, 401, 403])
async def test_the_log_says_how_a_token_endpoint_refuses_us_once_for_all_calls(oauth2: System, status: int) -> None:
    await oauth2.fault("status", match="token", status=status, times=None)
    with capture_logs() as lines:
        await deliver_many(oauth2)
        await oauth2.deliver()

    assert said(lines).count(("Credentials refused", "error", "TotvsProtheus", str(status))) == 1
    calls = ("External system called", "warning", "TotvsProtheus", str(status))
    assert said(lines).count(calls) == CALLS + 1 == len(said(lines)) - 1


@pytest.mark.parametrize("status", [401, 403])
async def test_the_log_says_that_a_lookup_was_refused(orders_api: System, status: int) -> None:
    await orders_api.fault("status", match="lookup", status=status, times=None)
    with capture_logs() as lines:
        response = await orders_api.lookup("id-1")

    assert response.outcome == pb.LOOKUP_OUTCOME_NOT_KNOWN
    assert response.credentials_refused == (status == 401)  # a 403 may be about the question
    assert said(lines)[-1] == ("External system called", "warning", "OrdersApi", str(status))


async def test_a_token_file_that_is_gone_when_it_is_refused_pauses_the_target(protheus: System, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("old-token")
    protheus.extra["auth"] = {"kind": "bearer", "token": "file:token"}
    await protheus.started()
    (tmp_path / "token").unlink()

    response = await protheus.deliver()

    assert (response.credentials_refused, response.retry_after.ToSeconds()) == (True, 60)


async def test_a_token_file_that_was_rotated_is_read_again(protheus: System, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("old-token")
    protheus.extra["auth"] = {"kind": "bearer", "token": "file:token"}
    await protheus.started()
    (tmp_path / "token").write_text(TOKEN)

    assert (await protheus.deliver()).outcome == pb.OUTCOME_DELIVERED


async def test_basic_credentials_are_sent(orders_api: System) -> None:
    orders_api.extra["auth"] = {"kind": "basic", "username": "hub", "password": "env:ORDERS_PASSWORD"}

    assert (await orders_api.deliver()).outcome == pb.OUTCOME_DELIVERED


async def test_an_echo_of_the_token_is_not_kept(protheus: System) -> None:
    await protheus.fault("status", status=400, body={"message": f"unknown: {TOKEN}", "code": "1"})

    response = await protheus.deliver()

    assert TOKEN not in response.response_json + response.detail


def said(lines: list[MutableMapping[str, Any]]) -> list[tuple[str, str, str, str]]:
    """What the log says of credentials and calls: event, level, system, code."""
    wanted = ("Credentials refused", "External system called")
    return [(x["event"], x["log_level"], x["system"], x["code"]) for x in lines if x["event"] in wanted]
