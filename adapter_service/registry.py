"""From the targets file to the systems that can be called: the adapter of each target is found by its name.

A new kind of external system is a module in adapters/ and an entry in the targets file; nothing is listed here.
"""

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from adapter_service.adapters.base import Adapter
from adapter_service.auth import make_credentials
from adapter_service.calls import TargetCalls
from adapter_service.masked_paths import read_paths
from chassis.errors import ConfigurationError
from chassis.http_client import HttpClient
from chassis.logs import get_logger
from chassis.settings import LOOPBACK
from chassis.targets import Target, Targets

log = get_logger()

PACKAGE = "adapter_service.adapters"
_NAME = re.compile(r"[a-z][a-z0-9_]*")

Build = Callable[[Target, TargetCalls], Adapter]


@dataclass(frozen=True, slots=True, kw_only=True)
class ExternalSystem:
    """One configured target, ready to be called once started; a component."""

    target: Target
    adapter: Adapter
    calls: TargetCalls
    http: HttpClient

    async def start(self) -> None:
        """Make the connection pool; nothing is connected yet."""
        await self.http.start()

    async def stop(self) -> None:
        """Close the connections."""
        await self.calls.stop()
        await self.http.stop()


def build_systems(targets: Targets) -> dict[str, ExternalSystem]:
    """Make every configured system, and say which of them are called in plain text.

    Raises: ConfigurationError that names the target and the key.
    """
    for name, target in targets.by_name.items():
        for url in (target.base_url, target.auth.token_url):
            if url and is_plain(url):
                log.warning("Target is not encrypted", target=name)
    return {name: build_system(target, targets.folder) for name, target in sorted(targets.by_name.items())}


def is_plain(url: str) -> bool:
    """Whether documents and credentials leave this machine as they are."""
    parts = urlsplit(url)
    return parts.scheme == "http" and parts.hostname not in LOOPBACK


def build_system(target: Target, folder: Path) -> ExternalSystem:
    """Make one system; secret files are found from `folder`. Raises: ConfigurationError."""
    build = find_adapter(target)
    http = HttpClient()
    credentials = make_credentials(target, http, folder)
    calls = TargetCalls(target.name, http, credentials, read_paths(target.redact, target.name))
    return ExternalSystem(target=target, adapter=build(target, calls), calls=calls, http=http)


def find_adapter(target: Target) -> Build:
    """Find the `build` of a target's adapter. Raises: ConfigurationError when there is no such adapter."""
    missing = ConfigurationError(
        f"targets.{target.name}: adapter {target.adapter!r} is not a module of {PACKAGE} that builds one",
        target=target.name,
        key="adapter",
    )
    if not _NAME.fullmatch(target.adapter):
        raise missing
    module_name = f"{PACKAGE}.{target.adapter}"
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name:
            raise  # the adapter is there, and what it imports is not
        raise missing from error
    build = getattr(module, "build", None)
    if not callable(build):
        raise missing
    return cast(Build, build)
