"""The process around the application: socket, HTTP protocol, signals, end.

uvicorn serves; three things are ours: a protocol that lets the application reach its transport, a SIGTERM that ends
with exit status 0, and an end that no hanging call can put off.
"""

import asyncio
import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Generator

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from simulator.app import Simulator
from simulator.exchange import TRANSPORT
from simulator.orders import Journal
from simulator.settings import Settings
from simulator.targets import Targets
from simulator.tokens import Tokens

GRACE_SECONDS = 1.0
BACKLOG = 2048


class SimulatorProtocol(HttpToolsProtocol):
    """Put the transport where the application can reset it."""

    def on_message_begin(self) -> None:
        """Start a request (httptools callback)."""
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT: self.transport}  # type: ignore[dict-item]  # an extension of our own


class SimulatorServer(uvicorn.Server):
    """Serve until SIGTERM or SIGINT, then end within about two seconds."""

    def __init__(self, config: uvicorn.Config, simulator: Simulator) -> None:
        super().__init__(config)
        self._simulator = simulator

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Take the signals as a wish to end; uvicorn would raise them again and so end with their status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._ask_to_exit)
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so on stderr: whoever started us waits for this line."""
        await super().startup(sockets)
        for listener in sockets or []:
            host, port = listener.getsockname()[:2]
            sys.stderr.write(f"simulator listens on http://{f'[{host}]' if ':' in host else host}:{port}\n")
            sys.stderr.flush()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let calls that are nearly done finish, and cut the rest."""
        asyncio.get_running_loop().call_later(GRACE_SECONDS, self._cut_calls)
        await super().shutdown(sockets)

    def _ask_to_exit(self) -> None:
        self.should_exit = True

    def _cut_calls(self) -> None:
        self._simulator.stop()
        for connection in list(self.server_state.connections):
            connection.transport.abort()


def run(settings: Settings, prepare: Callable[[Targets], None] | None = None) -> None:
    """Serve until a signal ends the process; `prepare` sees the targets before anybody can call.

    Raises:
        OSError: the address cannot be listened on, or the state file not opened.
        msgspec.DecodeError: the state file is damaged.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    journal = None if settings.state is None else Journal(settings.state)
    targets = Targets(journal, Tokens(settings.token))
    if prepare is not None:
        prepare(targets)
    simulator = Simulator(targets)
    config = uvicorn.Config(
        simulator,
        loop="uvloop",
        http=SimulatorProtocol,
        ws="none",
        lifespan="off",
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=60,
        timeout_graceful_shutdown=5,
    )
    try:
        SimulatorServer(config, simulator).run(sockets=[listener])
    finally:
        if journal is not None:
            journal.close()
