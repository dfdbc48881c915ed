"""The effective settings as the console sees them: read once per command, handed on to the children."""

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chassis.settings import HubSettings

#: The folder that holds the packages: the repository, or site-packages.
ROOT = Path(__file__).resolve().parents[1]
PREFIX = "HUB_"
#: Read by the simulator alone, which shares no code with the hub.
SIMULATOR_STATE = "HUB_SIMULATOR_STATE"
ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "[::]": "[::1]"}


def read_settings() -> "HubSettings":
    """Read the settings from the environment. Raises: ConfigurationError that names every bad variable."""
    from pydantic import ValidationError

    from chassis.errors import ConfigurationError
    from chassis.settings import HubSettings

    try:
        return HubSettings()
    except ValidationError as error:
        faults = "; ".join(f"{variable_of(str(fault['loc'][0]))}: {fault['msg']}" for fault in error.errors())
        raise ConfigurationError(f"Correct the environment: {faults}") from error


def variable_of(field: str) -> str:
    """Name the environment variable of a field of HubSettings."""
    return PREFIX + field.upper()


def unknown_variables() -> list[str]:
    """List the HUB_* variables that no part of the hub reads: misspelt ones, most likely."""
    from chassis.settings import HubSettings

    known = {variable_of(field) for field in HubSettings.model_fields} | {SIMULATOR_STATE}
    return sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)


def environment_of(settings: "HubSettings") -> dict[str, str]:
    """Write the settings as the variables that give them again, wherever a child runs."""
    values = {variable_of(field): str(getattr(settings, field)) for field in type(settings).model_fields}
    values["HUB_STATE_DIR"] = str(settings.state_dir.absolute())
    return values


def connectable(address: str) -> str:
    """Where to connect to what listens on `address`: a listener on every interface is reached on loopback."""
    host, _, port = address.rpartition(":")
    return f"{ANY_HOST.get(host, host)}:{port}"


def find_targets(settings: "HubSettings") -> Path:
    """Find the targets file; the default one also beside the packages, wherever the command is run.

    Raises: ConfigurationError when there is none.
    """
    from chassis.errors import ConfigurationError

    candidates = [settings.targets.absolute()]
    if "targets" not in settings.model_fields_set:
        candidates.append(ROOT / settings.targets)
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise ConfigurationError(f"There is no targets file {settings.targets}; set HUB_TARGETS to one")


def hub_version() -> str:
    """The version of the installed package, or of the source tree it runs from."""
    try:
        return version("integration-hub")
    except PackageNotFoundError:
        import tomllib

        document = tomllib.loads((ROOT / "pyproject.toml").read_text())
        return str(document["project"]["version"])
