"""Whether this gateway can serve: it is not draining, and intake's gRPC health says SERVING."""

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chassis.errors import ServiceUnavailable
from chassis.rpc_client import RpcClient

INTAKE_SERVICE = "integrationhub.intake.v1.IntakeService"
CHECK_SECONDS = 1.0


class Readiness:
    """What /readyz asks; `draining` is set when the process was told to stop."""

    def __init__(self, client: RpcClient) -> None:
        self._health: Any = health_pb2_grpc.HealthStub(client.channel)
        self.draining = False

    async def check(self) -> None:
        """Return when ready. Raises: ServiceUnavailable otherwise."""
        if self.draining:
            raise ServiceUnavailable("The gateway is stopping; use another one, or repeat the call in a moment.")
        request = health_pb2.HealthCheckRequest(service=INTAKE_SERVICE)
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                response = await self._health.Check(request, timeout=CHECK_SECONDS)
        except (grpc.aio.AioRpcError, TimeoutError) as error:
            raise ServiceUnavailable("Intake cannot be reached.") from error
        if response.status != health_pb2.HealthCheckResponse.SERVING:
            raise ServiceUnavailable("Intake is not ready.")
