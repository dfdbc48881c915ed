"""The HTTP server as a component: uvicorn inside the service's own loop, without its signal handlers.

Stopping drains: /readyz says 503 and every answer closes its connection, then idle connections are closed, then what
is in flight is answered within the grace.
"""

import asyncio
import socket
from collections.abc import Callable

import uvicorn
from starlette.types import ASGIApp

from chassis.logs import get_logger
from chassis.settings import split_address
from chassis.tls import TlsFiles
from gateway.http_protocol import GatewayProtocol
from gateway.readiness import Readiness

log = get_logger()

BACKLOG = 2048
#: Longer than the 60 s of common load balancers: the side that reuses a connection should be the one to close it.
KEEP_ALIVE_SECONDS = 75
#: How long clients are told on their open connections that this gateway goes, before connections are closed.
ANNOUNCE_SECONDS = 0.5


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, tls: TlsFiles | None) -> None:
        super().__init__(config)
        self._tls = tls

    async def on_tick(self, counter: int) -> bool:
        """Once a second cut slow and idle clients off and look for a new certificate (uvicorn calls each 100 ms)."""
        if counter % 10 == 0:
            if self._tls is not None:
                _look(self._tls.reload)
            for connection in list(self.server_state.connections):
                if isinstance(connection, GatewayProtocol):
                    _look(connection.cut_off_if_slow)
        return await super().on_tick(counter)


def _look(at_it: Callable[[], object]) -> None:
    """Do one thing of a tick; a fault in it must not end the others, and with the ticks every time-out."""
    try:
        at_it()
    except Exception:
        log.exception("Tick failed")


class HttpServer:
    """Serves the application on one address; a component."""

    def __init__(
        self,
        app: ASGIApp,
        address: str,
        readiness: Readiness,
        *,
        grace_seconds: float,
        announce_seconds: float = ANNOUNCE_SECONDS,
        tls: TlsFiles | None = None,
    ) -> None:
        """`tls` makes it HTTPS."""
        self._tls = tls
        self._address = address
        self._readiness = readiness
        self._announce_seconds = announce_seconds
        self._config = uvicorn.Config(
            app,
            http=GatewayProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=max(1, round(grace_seconds)),
        )
        self._running: tuple[_Server, socket.socket, asyncio.Task[None]] | None = None

    async def start(self) -> None:
        """Listen. Raises: OSError when the port is taken."""
        host, port = split_address(self._address)
        try:
            listener = socket.create_server(
                (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=BACKLOG
            )
        except OSError as error:
            raise OSError(
                f"The port of {self._address} is taken or not allowed; free it or set HUB_GATEWAY_ADDRESS"
            ) from error
        self._config.load()
        self._config.ssl = self._tls.server_context() if self._tls is not None else None
        server = _Server(self._config, self._tls)
        server.lifespan = self._config.lifespan_class(self._config)
        await server.startup(sockets=[listener])
        self._running = (server, listener, asyncio.create_task(server.main_loop(), name="http-server-ticks"))

    async def stop(self) -> None:
        """Drain: announce, close idle connections, answer what is in flight within the grace."""
        if self._running is None:
            return
        (server, listener, ticks), self._running = self._running, None
        self._readiness.draining = True
        await asyncio.sleep(self._announce_seconds)
        server.should_exit = True
        try:
            await ticks
        finally:
            await server.shutdown(sockets=[listener])
