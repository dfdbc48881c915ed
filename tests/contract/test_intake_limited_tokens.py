"""Tokens for some systems only (claims `sources`, `targets`): what they do not name is not there to read or cancel."""

from collections.abc import AsyncIterator, Awaitable

import grpc
import pytest

from chassis.access import REQUESTS_READ, REQUESTS_WRITE
from chassis.testing import TestKeys
from integrationhub.intake.v1 import intake_pb2 as pb
from tests.intake import IntakeUnderTest, Metadata, new_request, refused, running_intake

Systems = tuple[str, str]
SYSTEMS: tuple[Systems, ...] = (("SAP", "TotvsProtheus"), ("SAP", "SAP"), ("Oracle", "TotvsProtheus"))


@pytest.fixture
async def hub(database_url: str, keys: TestKeys) -> AsyncIterator[IntakeUnderTest]:
    async with running_intake(database_url, keys) as intake:
        yield intake


async def create_all(hub: IntakeUnderTest) -> dict[Systems, str]:
    """One request for each pair of systems, with a token for all of them; gives their ids."""
    ids = {}
    for source, target in SYSTEMS:
        created = await hub.create(f"{source}-{target}", source_system=source, target_system=target)
        ids[source, target] = created.id
    return ids


def limited(hub: IntakeUnderTest, **claims: list[str]) -> Metadata:
    return hub.caller("acme", REQUESTS_READ, REQUESTS_WRITE, **claims)


async def is_found(call: Awaitable[object]) -> bool:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.NOT_FOUND  # noqa: PT017 - both ends are tested
        return False
    return True


async def seen(hub: IntakeUnderTest, metadata: Metadata, ids: dict[Systems, str]) -> list[set[Systems]]:
    """Which of the requests are got, listed, told the story of; with one token."""
    got, told = set[Systems](), set[Systems]()
    for systems, request_id in ids.items():
        one = pb.GetIntegrationRequestRequest(id=request_id)
        if await is_found(hub.requests.GetIntegrationRequest(one, metadata=metadata)):
            got.add(systems)
        story = pb.ListIntegrationRequestHistoryRequest(id=request_id)
        if await is_found(hub.requests.ListIntegrationRequestHistory(story, metadata=metadata)):
            told.add(systems)
    page = await hub.requests.ListIntegrationRequests(pb.ListIntegrationRequestsRequest(), metadata=metadata)
    listed = {(each.source_system, each.target_system) for each in page.integration_requests}
    return [got, listed, told]


@pytest.mark.parametrize(
    ("claims", "visible"),
    [
        ({"sources": ["SAP"]}, set(SYSTEMS[:2])),
        ({"targets": ["TotvsProtheus"]}, {SYSTEMS[0], SYSTEMS[2]}),
        ({"sources": ["SAP"], "targets": ["TotvsProtheus"]}, {SYSTEMS[0]}),
        ({"sources": ["Oracle", "SAP"]}, set(SYSTEMS)),
        ({"targets": []}, set[Systems]()),
        ({"sources": ["sap"]}, set[Systems]()),
    ],
    ids=["source", "target", "both", "every_source", "no_target", "other_letters"],
)
async def test_a_token_for_some_systems_reads_the_requests_of_these_alone(
    hub: IntakeUnderTest, claims: dict[str, list[str]], visible: set[Systems]
) -> None:
    ids = await create_all(hub)

    assert await seen(hub, limited(hub, **claims), ids) == [visible] * 3


async def test_a_service_that_acts_for_a_partner_hands_the_limits_on(hub: IntakeUnderTest) -> None:
    ids = await create_all(hub)
    limits = pb.PartnerLimits(sources=pb.SystemNames(names=["Oracle"]))

    page = await hub.requests.ListIntegrationRequests(
        pb.ListIntegrationRequestsRequest(partner_id="acme", partner_limits=limits), metadata=hub.gateway
    )
    refusal = await refused(
        hub.requests.GetIntegrationRequest(
            pb.GetIntegrationRequestRequest(id=ids[SYSTEMS[0]], partner_id="acme", partner_limits=limits),
            metadata=hub.gateway,
        )
    )

    assert [each.id for each in page.integration_requests] == [ids[SYSTEMS[2]]]
    assert refusal.code == "NOT_FOUND"


async def test_a_partner_cannot_widen_its_own_token(hub: IntakeUnderTest) -> None:
    ids = await create_all(hub)
    wider = pb.PartnerLimits(sources=pb.SystemNames(names=["Oracle", "SAP"]))
    metadata = limited(hub, sources=["Oracle"])

    page = await hub.requests.ListIntegrationRequests(
        pb.ListIntegrationRequestsRequest(partner_limits=wider), metadata=metadata
    )

    assert [each.id for each in page.integration_requests] == [ids[SYSTEMS[2]]]


async def test_what_a_token_is_not_for_it_cannot_cancel(hub: IntakeUnderTest) -> None:
    ids = await create_all(hub)
    metadata = limited(hub, sources=["Oracle"])

    for systems, code in ((SYSTEMS[0], "NOT_FOUND"), (SYSTEMS[2], "")):
        call = hub.requests.CancelIntegrationRequest(
            pb.CancelIntegrationRequestRequest(id=ids[systems]), metadata=metadata
        )
        if code:
            assert (await refused(call)).code == code
        else:
            assert (await call).integration_request.failure_reason == "cancelled"


async def test_a_cursor_of_a_wider_token_is_none_of_a_narrower_one(hub: IntakeUnderTest) -> None:
    await create_all(hub)
    first = await hub.requests.ListIntegrationRequests(
        pb.ListIntegrationRequestsRequest(page_size=1), metadata=hub.partner()
    )

    refusal = await refused(
        hub.requests.ListIntegrationRequests(
            pb.ListIntegrationRequestsRequest(page_size=1, page_token=first.next_page_token),
            metadata=limited(hub, sources=["SAP"]),
        )
    )

    assert refusal.code == "INVALID_ARGUMENT"


async def test_who_cancels_for_a_partner_must_say_why(hub: IntakeUnderTest) -> None:
    created = (await hub.requests.CreateIntegrationRequest(new_request(), metadata=hub.partner())).integration_request
    wanted = pb.CancelIntegrationRequestRequest(id=created.id, partner_id="acme")
    operator = hub.caller("ops", REQUESTS_WRITE, "act-for-partner")

    refusal = await refused(hub.requests.CancelIntegrationRequest(wanted, metadata=operator))
    wanted.detail = "asked for by telephone"
    await hub.requests.CancelIntegrationRequest(wanted, metadata=operator)
    last = (await hub.history(created.id))[-1]

    assert refusal.code == "INVALID_ARGUMENT"
    assert (last.actor, last.outcome, last.detail) == ("ops", "cancelled", "asked for by telephone")
