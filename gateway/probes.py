"""The endpoints that ask about the process, open to everybody: alive, and ready."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway.bodies import HealthBody
from gateway.readiness import Readiness


class ProbeRoutes:
    """/healthz and /readyz."""

    def __init__(self, readiness: Readiness) -> None:
        self._readiness = readiness

    async def healthz(self, _: Request) -> Response:
        """Answer 200 for as long as the process serves at all; a restart would cure nothing else."""
        return _probe_answer("ok")

    async def readyz(self, _: Request) -> Response:
        """Answer 200 when calls can be served and requests stored, else 503."""
        await self._readiness.check()
        return _probe_answer("ready")


def _probe_answer(status: str) -> Response:
    body = msgspec.json.encode(HealthBody(status=status))
    return Response(body, headers={"Cache-Control": "no-store"}, media_type="application/json")
