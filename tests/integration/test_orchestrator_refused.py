"""What an adapter that takes no delivery of a target means for that target's others."""

import pytest

from chassis.errors import HubError, InvalidRequest, TargetNotFound
from integrationhub.adapter.v1.adapter_pb2 import DeliverRequest, DeliverResponse
from orchestrator_service.capacity import WaitReason
from tests.orchestrator_fakes import Surroundings, capacity_for, claim, target

ERP = target(idempotent=True)


@pytest.mark.parametrize(
    ("error", "waits_for"),
    [
        (TargetNotFound("TotvsProtheus"), WaitReason.RETRY_AFTER),  # as of one that was not told of a new target
        (InvalidRequest("this one cannot be made"), None),  # and the next one can
    ],
)
async def test_what_the_adapter_refuses_for_all_makes_the_target_wait(
    parts: Surroundings, error: HubError, waits_for: WaitReason | None
) -> None:
    async def refuse(_: DeliverRequest) -> DeliverResponse:
        raise error

    parts.adapter.answer = refuse
    request_id = parts.intake.add()
    capacity = capacity_for(ERP)
    [lease], [place] = await claim(parts, [request_id]), capacity.take(1)

    await parts.processor(ERP).process(lease, place, ERP)

    wait = capacity.wait()
    assert (wait.reason if wait is not None else None) == waits_for
    assert capacity.calls.ahead() == 0  # no call was made by whose length more could be held
    assert parts.intake.requests[request_id].steps[-1] == "release"
