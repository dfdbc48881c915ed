"""The adapter's gRPC service: one delivery in, one post out, and a plain word on what came of it.

What the external system does, or fails to do, is an outcome; only a bad request or an unknown target is an error.
How a call is made is attempts.py's, what an answer means is each adapter's (adapters/). Nothing is kept or repeated.

Journey 4/5. Before: orchestrator_service/process.py. After: adapter_service/adapters/totvs_protheus.py.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any

from adapter_service.attempts import Attempt, Attempts
from adapter_service.finished import Finished, Pace
from adapter_service.mapping import (
    check_batch,
    read_delivery,
    read_question,
    to_batch_result,
    to_deliver_response,
    to_lookup_response,
    to_target,
)
from adapter_service.outcome import DeliverOutcome, Rejected, Unknown
from adapter_service.registry import ExternalSystem
from chassis.errors import HubError, TargetNotFound
from chassis.logs import get_logger
from chassis.telemetry import Telemetry
from integrationhub.adapter.v1 import adapter_pb2 as pb
from integrationhub.adapter.v1 import adapter_pb2_grpc

log = get_logger()


class AdapterServicer(adapter_pb2_grpc.AdapterServiceServicer):
    """Serves integrationhub.adapter.v1.AdapterService for the configured systems."""

    def __init__(self, systems: Mapping[str, ExternalSystem], attempts: Attempts, telemetry: Telemetry) -> None:
        self._systems = systems
        self._attempts = attempts
        self._pace = Pace()
        self._batch_items = telemetry.histogram("batch_items").labels(batch="deliver")

    async def Deliver(self, request: pb.DeliverRequest, context: Any) -> pb.DeliverResponse:
        """Make one attempt. Raises: InvalidRequest or TargetNotFound; nothing was sent then."""
        del context
        attempt = await self._deliver(request)
        return to_deliver_response(attempt.outcome, attempt.seconds)

    async def DeliverBatch(
        self, request: pb.DeliverBatchRequest, context: Any
    ) -> AsyncIterator[pb.DeliverBatchResponse]:
        """Make many attempts at once and answer with whatever has finished since the last message, see finished.py.

        Posts in flight are cut when the caller goes away: nobody would hear what came of them.
        """
        del context
        check_batch(request)
        self._batch_items.observe(len(request.deliveries))
        finished, loop = Finished(len(request.deliveries), self._pace), asyncio.get_running_loop()
        tasks = [loop.create_task(self._deliver_item(item, finished)) for item in request.deliveries]
        try:
            while results := await finished.take():
                yield pb.DeliverBatchResponse(results=results)
        finally:
            for task in tasks:
                task.cancel()

    async def Lookup(self, request: pb.LookupRequest, context: Any) -> pb.LookupResponse:
        """Ask a system for one request. Raises: InvalidRequest; TargetNotFound."""
        del context
        question = read_question(request)
        attempt = await self._attempts.lookup(self._find(request.target_system), question)
        return to_lookup_response(attempt.outcome, attempt.seconds)

    async def ListTargets(self, request: pb.ListTargetsRequest, context: Any) -> pb.ListTargetsResponse:
        """List the configured targets by name."""
        del request, context
        return pb.ListTargetsResponse(targets=[to_target(self._systems[name]) for name in sorted(self._systems)])

    def _deliver(self, request: pb.DeliverRequest) -> Coroutine[Any, Any, Attempt[DeliverOutcome]]:
        """Raises: InvalidRequest or TargetNotFound, before anything begins."""
        return self._attempts.deliver(self._find(request.target_system), read_delivery(request))

    async def _deliver_item(self, request: pb.DeliverRequest, finished: Finished) -> None:
        request_id = request.integration_request_id
        try:
            attempt = await self._deliver(request)
            result = to_batch_result(request_id, attempt.outcome, attempt.seconds)
        except HubError as error:  # of this item alone; nothing was sent
            result = to_batch_result(request_id, Rejected(code=error.reason, detail=error.message), 0.0)
        except Exception:  # the outermost frame of a task: an item without an answer would hold the batch for ever
            log.exception("Delivery failed", request_id=request_id, correlation_id=request.correlation_id)
            result = to_batch_result(request_id, Unknown(detail="the adapter failed; the log says why"), 0.0)
        finished.add(result)

    def _find(self, target: str) -> ExternalSystem:
        system = self._systems.get(target)
        if system is None:
            raise TargetNotFound(target)
        return system
