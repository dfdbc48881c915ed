"""Whether this gateway can serve: it is not draining, and intake's gRPC health says SERVING, of its storage too."""

import asyncio
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chassis.errors import ServiceUnavailable, StorageUnavailable
from chassis.rpc_client import RpcClient

INTAKE_SERVICE = "integrationhub.intake.v1.IntakeService"
#: Under this name intake's health says whether its database takes writes; reads may work all the same.
STORAGE = "storage"
CHECK_SECONDS = 1.0


class Readiness:
    """What /readyz asks; `draining` is set when the process was told to stop."""

    def __init__(self, client: RpcClient) -> None:
        self._health: Any = health_pb2_grpc.HealthStub(client.channel)
        self.draining = False

    async def check(self) -> None:
        """Return when ready. Raises: ServiceUnavailable; StorageUnavailable when nothing can be accepted."""
        if self.draining:
            raise ServiceUnavailable("The gateway is stopping; use another one, or repeat the call in a moment.")
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                serves, stores = await self._serves(INTAKE_SERVICE), await self._serves(STORAGE)
        except (grpc.aio.AioRpcError, TimeoutError) as error:
            raise ServiceUnavailable("Intake cannot be reached.") from error
        if not serves:
            raise ServiceUnavailable("Intake is not ready.")
        if not stores:
            raise StorageUnavailable("The hub's database takes no writes now; what is stored can still be read.")

    async def _serves(self, name: str) -> bool:
        request = health_pb2.HealthCheckRequest(service=name)
        try:
            response = await self._health.Check(request, timeout=CHECK_SECONDS)
        except grpc.aio.AioRpcError as error:
            if name == STORAGE and error.code() is grpc.StatusCode.NOT_FOUND:
                return True  # an intake of the version before, which has not got that name
            raise
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)
