"""OrchestratorService: what this worker knows of its targets, for operators."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any

import grpc

from chassis.clock import SystemClock, seconds_to_micros, to_timestamp
from chassis.errors import TargetNotFound
from chassis.streams import Streams, StreamsUnavailable, work_stream
from chassis.targets import Target
from integrationhub.orchestrator.v1 import orchestrator_pb2, orchestrator_pb2_grpc
from integrationhub.orchestrator.v1.orchestrator_pb2 import GetStatusRequest, GetStatusResponse, TargetStatus
from orchestrator_service.breaker import BreakerState
from orchestrator_service.capacity import TargetCapacity, Wait, WaitReason
from orchestrator_service.heartbeat import Heartbeat

_BREAKER_STATES: Mapping[BreakerState, orchestrator_pb2.BreakerState.ValueType] = {
    BreakerState.CLOSED: orchestrator_pb2.BREAKER_STATE_CLOSED,
    BreakerState.OPEN: orchestrator_pb2.BREAKER_STATE_OPEN,
    BreakerState.HALF_OPEN: orchestrator_pb2.BREAKER_STATE_HALF_OPEN,
}


class OrchestratorServicer(orchestrator_pb2_grpc.OrchestratorServiceServicer):
    """Answers from memory; only the backlog is asked of Redis."""

    def __init__(
        self,
        *,
        worker_id: str,
        targets: Mapping[str, Target],
        capacities: Mapping[str, TargetCapacity],
        heartbeat: Heartbeat,
        streams: Streams,
    ) -> None:
        self._worker_id = worker_id
        self._targets = targets
        self._capacities = capacities
        self._heartbeat = heartbeat
        self._streams = streams

    async def GetStatus(self, request: GetStatusRequest, _: grpc.aio.ServicerContext[Any, Any]) -> GetStatusResponse:
        """Show the state of one target or of all. Raises: TargetNotFound."""
        if request.target_system and request.target_system not in self._targets:
            raise TargetNotFound(request.target_system)
        names = [request.target_system] if request.target_system else sorted(self._targets)
        return GetStatusResponse(
            worker_id=self._worker_id,
            live_workers=self._heartbeat.live_workers,
            targets=await asyncio.gather(*(self._status_of(name) for name in names)),
        )

    async def _status_of(self, name: str) -> TargetStatus:
        capacity, target = self._capacities[name], self._targets[name]
        wait = capacity.held_back_by()
        try:
            waiting, oldest = await self._streams.waiting(work_stream(name))
        except StreamsUnavailable:
            waiting, oldest = 0, None
            wait = Wait(reason=WaitReason.REDIS_AWAY)
        status = TargetStatus(
            name=name,
            breaker=_BREAKER_STATES[capacity.breaker],
            in_flight=capacity.in_flight,
            concurrency_limit=capacity.limit,
            concurrency=target.concurrency,
            waiting=waiting,
            rate_per_second=target.rate_per_second,
        )
        if oldest is not None:
            status.oldest_waiting_at.CopyFrom(to_timestamp(seconds_to_micros(oldest)))
        if wait is not None:
            status.wait_reason = wait.reason
            if wait.until is not None:
                from_now = seconds_to_micros(max(0.0, wait.until - time.monotonic()))
                status.waits_until.CopyFrom(to_timestamp(SystemClock().now() + from_now))
        return status
