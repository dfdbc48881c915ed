"""What is in doubt while the target does not take our credentials, told against a real gRPC intake and adapter."""

from integrationhub.adapter.v1 import adapter_pb2
from integrationhub.adapter.v1.adapter_pb2 import LookupRequest, LookupResponse
from tests.orchestrator_fakes import Surroundings, capacity_for, claim, target

ERP = target()


async def test_a_request_in_doubt_spends_no_lookup_while_our_credentials_are_refused(parts: Surroundings) -> None:
    async def refuse(_: LookupRequest) -> LookupResponse:
        response = LookupResponse(outcome=adapter_pb2.LOOKUP_OUTCOME_NOT_KNOWN, credentials_refused=True, detail="401")
        response.retry_after.FromSeconds(60)
        return response

    parts.adapter.look_up = refuse
    request_id = parts.intake.in_doubt(seconds_ago=3600)
    capacity = capacity_for(ERP)
    [lease], [place] = await claim(parts, [request_id]), capacity.take(1)
    await parts.processor(ERP).process(lease, place, ERP)

    request = parts.intake.requests[request_id]
    waiting = request.reports[-1].in_doubt
    assert (request.steps, waiting.lookup_made, waiting.delay.ToSeconds()) == (["in_doubt"], False, 60)
    assert request.reports[-1].call.detail == "401"
    assert capacity.free() == 0
