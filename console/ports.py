"""Checks, before anything is started, that every port the hub will listen on is free."""

import errno
import socket
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chassis.errors import ConfigurationError
from chassis.settings import HubSettings, split_address
from console.configuration import connectable, variable_of

SERVICES = ("adapter", "intake", "orchestrator", "gateway")
#: A hub that was killed a moment ago lets go of its ports within this time.
PATIENCE_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A port to be, and the setting that names it."""

    setting: str
    host: str
    port: int


def list_listeners(settings: HubSettings, *, valkey: bool, simulator: bool) -> list[Listener]:
    """List what `hub up` will listen on. Raises: ConfigurationError for an address without a port."""
    fields = [f"{service}_{kind}" for service in SERVICES for kind in ("address", "metrics_address")]
    if simulator:
        fields.append("simulator_address")
    listeners = []
    for field in fields:
        host, port = split_address(str(getattr(settings, field)))
        if port == 0:
            raise ConfigurationError(f"{variable_of(field)} has port 0; name the port, so that others can find it")
        listeners.append(Listener(setting=variable_of(field), host=host, port=port))
    if valkey:
        listeners.append(Listener(setting="HUB_REDIS_PORT", host="127.0.0.1", port=settings.redis_port))
    return listeners


def check_ports(listeners: Sequence[Listener], *, patience_seconds: float = PATIENCE_SECONDS) -> None:
    """Check that every port is free and asked for once. Raises: ConfigurationError that names each one at fault."""
    by_address: dict[str, Listener] = {}
    for listener in listeners:
        other = by_address.setdefault(connectable(f"{listener.host}:{listener.port}"), listener)
        if other is not listener:
            raise ConfigurationError(
                f"{other.setting} and {listener.setting} both name port {listener.port}; give one of them another"
            )
    deadline = time.monotonic() + patience_seconds
    while faults := {listener: error for listener in listeners if (error := _fault_of(listener))}:
        if time.monotonic() > deadline:
            raise ConfigurationError(_describe(faults))
        time.sleep(0.05)


def _fault_of(listener: Listener) -> OSError | None:
    """Try to listen; the error says why that does not go."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(listener.host, listener.port, type=socket.SOCK_STREAM)[
            0
        ]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the services do: TIME_WAIT is no obstacle
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        return error
    return None


def _describe(faults: Mapping[Listener, OSError]) -> str:
    taken = [listener for listener, error in faults.items() if error.errno == errno.EADDRINUSE]
    others = {listener: error for listener, error in faults.items() if listener not in taken}
    lines = [
        f"{listener.host}:{listener.port} cannot be listened on ({error.strerror}); set {listener.setting} to another"
        for listener, error in others.items()
    ]
    if len(taken) == 1:
        lines.append(
            f"Port {taken[0].port} is taken by another program; stop it, or set {taken[0].setting} to a free port"
        )
    elif taken:
        named = ", ".join(f"{listener.port} ({listener.setting})" for listener in taken)
        lines.append(
            f"The ports {named} are taken, perhaps by a hub with another state folder; "
            "stop it, or set these variables to free ports"
        )
    return "\n".join(lines)
