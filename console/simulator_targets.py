"""Which targets the simulator stands in for, and the targets file of a default run whose simulator is elsewhere."""

import json
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

from chassis.settings import HubSettings
from chassis.targets import Targets, load_targets
from console.configuration import connectable

SIMULATOR_MODULE = "simulator"
DEFAULT_SIMULATOR = str(HubSettings.model_fields["simulator_address"].default)


def effective_targets(settings: HubSettings, found: Path) -> Path:
    """Return the targets file that the services are to read.

    That is the file found, unless it is the default one and HUB_SIMULATOR_ADDRESS says that the simulator is elsewhere:
    then a copy in the state folder, whose URLs name that address.

    Raises: ConfigurationError when the file is not usable.
    """
    load_targets(found)
    if not _must_move(settings):
        return found
    address = connectable(settings.simulator_address)
    document = tomllib.loads(found.read_text())
    moved = {name: _moved(table, address, found.parent) for name, table in document["targets"].items()}
    copy = _copy_of(settings)
    tables = [f"[targets.{json.dumps(name)}]\n{_lines(table)}" for name, table in moved.items()]
    copy.write_text(f"# Made from {found} by `hub up`: HUB_SIMULATOR_ADDRESS is {address}.\n\n" + "\n".join(tables))
    return copy


def targets_in_use(settings: HubSettings, found: Path) -> Path:
    """Return what `effective_targets` returned to the last `hub up`, without writing anything."""
    copy = _copy_of(settings)
    return copy if _must_move(settings) and copy.exists() else found


def wants_simulator(settings: HubSettings, targets: Targets) -> bool:
    """Whether any target is at the simulator's address."""
    address = connectable(settings.simulator_address)
    return any(urlsplit(target.base_url).netloc == address for target in targets.by_name.values())


def _must_move(settings: HubSettings) -> bool:
    return "targets" not in settings.model_fields_set and connectable(settings.simulator_address) != DEFAULT_SIMULATOR


def _copy_of(settings: HubSettings) -> Path:
    return settings.state_dir.absolute() / "targets.toml"


def _moved(value: object, address: str, folder: Path) -> object:
    """Point URLs at `address`, and at their place the files that the original names relative to its own folder."""
    match value:
        case dict():
            return {key: _moved_entry(key, entry, address, folder) for key, entry in value.items()}
        case str() if urlsplit(value).netloc == DEFAULT_SIMULATOR:
            return value.replace(DEFAULT_SIMULATOR, address, 1)
        case str() if value.startswith("file:"):
            return f"file:{(folder / value.removeprefix('file:')).absolute()}"
        case _:
            return value


def _moved_entry(key: str, entry: object, address: str, folder: Path) -> object:
    if key == "schemas" and isinstance(entry, dict):
        return {source: str((folder / path).absolute()) for source, path in entry.items()}
    return _moved(entry, address, folder)


def _lines(table: object) -> str:
    assert isinstance(table, dict)
    return "".join(f"{json.dumps(key)} = {_toml(value)}\n" for key, value in table.items())


def _toml(value: object) -> str:
    """Write a value as TOML; JSON's strings, numbers and booleans are TOML's as well."""
    match value:
        case dict():
            return "{ " + ", ".join(f"{json.dumps(key)} = {_toml(entry)}" for key, entry in value.items()) + " }"
        case list():
            return "[" + ", ".join(map(_toml, value)) + "]"
        case str() | bool() | int() | float():
            return json.dumps(value)
        case _:  # dates and times
            return str(value)
