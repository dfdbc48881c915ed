"""How the process is started: command line over environment over defaults. Behaviour at run time is in `targets`."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Hold the start-up settings; port 0 = any free one."""

    host: str
    port: int
    token: str
    state: Path | None


def read_settings(arguments: Sequence[str], environment: Mapping[str, str]) -> Settings:
    """Read the settings; a wrong argument ends the process with a usage message (argparse)."""
    parser = argparse.ArgumentParser(prog="simulator", description="Simulated external systems with faults on demand.")
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        type=_read_address,
        default=environment.get("HUB_SIMULATOR_ADDRESS") or "127.0.0.1:8090",
        help="address to listen on (HUB_SIMULATOR_ADDRESS, default 127.0.0.1:8090; port 0 = any free one)",
    )
    parser.add_argument(
        "--state",
        metavar="FILE",
        type=Path,
        default=environment.get("HUB_SIMULATOR_STATE") or None,
        help="file that keeps the stored orders over a restart (HUB_SIMULATOR_STATE, default none)",
    )
    options = parser.parse_args(arguments)
    host, port = options.address
    token = environment.get("PROTHEUS_TOKEN") or "simulator-token"
    return Settings(host=host, port=port, token=token, state=options.state)


def _read_address(text: str) -> tuple[str, int]:
    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isdecimal() or int(port) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
    return host.strip("[]"), int(port)
