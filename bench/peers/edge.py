"""The HTTP edge that all peers share: Starlette on uvicorn with uvloop and httptools, no authentication, no log."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bench.peers.work import Order

Accept = Callable[[Order], Awaitable[str]]


def serve(port: int, opened: Callable[[], AbstractAsyncContextManager[Accept]]) -> None:
    """Serve until killed; what `opened` gives stores one order durably and returns its id."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with opened() as accept:
            app.state.accept = accept
            yield

    routes = [Route("/api/integration-requests", _create, methods=["POST"]), Route("/readyz", _ready)]
    app = Starlette(routes=routes, lifespan=lifespan)
    uvicorn.run(app, port=port, loop="uvloop", http="httptools", ws="none", access_log=False, log_level="error")


async def _create(request: Request) -> Response:
    document = orjson.loads(await request.body())
    order = Order(
        external_id=document["externalId"],
        source_system=document["sourceSystem"],
        target_system=document["targetSystem"],
        payload=orjson.dumps(document["payload"]).decode(),
    )
    request_id = await request.app.state.accept(order)
    body = orjson.dumps({"id": request_id, "externalId": order.external_id, "status": "Received"})
    return Response(body, 202, {"Location": f"/api/integration-requests/{request_id}"}, "application/json")


async def _ready(_: Request) -> Response:
    return Response(b"", 200)
