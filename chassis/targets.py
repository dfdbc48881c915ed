"""The targets file: which external systems there are and how the hub treats each.

Intake needs the names and the time to live, the orchestrator the policies, the adapter the connection; each reads
the same file at start. Keys that are not here belong to the target's adapter, which checks them.
"""

import math
import re
import tomllib
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from chassis.errors import ConfigurationError
from chassis.secret_refs import check_secret_reference

RETRY_PROFILES: dict[str, tuple[float, ...]] = {
    "fast": (2, 4, 8),
    "patient": (30, 120, 600, 3600, 14400, 43200),
}
#: Fields of Target that are not the file's to set.
_NOT_KEYS = {"name", "options"}
NAME = re.compile(r"[A-Za-z0-9._:/-]{1,128}")


class Auth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How calls to a target prove who they are; every secret is a reference (env: or file:)."""

    kind: Literal["none", "bearer", "basic", "oauth2"] = "none"
    token: str = ""
    username: str = ""
    password: str = ""
    token_url: str = ""
    client_id: str = ""
    client_secret: str = ""
    scope: str = ""


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One external system."""

    adapter: str
    base_url: str
    auth: Auth = Auth()
    timeout_seconds: float = 60
    #: It honours Idempotency-Key: a post whose outcome is not known may be repeated with the same key.
    idempotent: bool = False
    #: Calls at once, for the hub as a whole.
    concurrency: int = 8
    #: Calls per second, for the hub as a whole; 0 = no limit.
    rate_per_second: float = 0
    retry: str | list[float] = "fast"
    on_timeout: Literal["dead_letter", "retry"] = "dead_letter"
    ttl_seconds: float = 86400
    #: Paths in its answers that are masked before anything is kept: "$.customer.taxId", "$.items[*].price".
    redact: list[str] = []
    #: JSON Schema of the payload by source system.
    schemas: dict[str, str] = {}
    #: The adapter's own keys.
    options: dict[str, object] = {}
    name: str = ""

    @property
    def retry_delays(self) -> tuple[float, ...]:
        """Seconds before the second, third, ... attempt."""
        return RETRY_PROFILES[self.retry] if isinstance(self.retry, str) else tuple(self.retry)


class Targets(msgspec.Struct, frozen=True, kw_only=True):
    """All targets by name, and the folder from which their paths are read."""

    folder: Path
    by_name: dict[str, Target]


def load_targets(path: Path) -> Targets:
    """Read and check the targets file. Raises: ConfigurationError that names the target and the key."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"The targets file {path} cannot be read; set HUB_TARGETS") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"The targets file {path} is not TOML: {error}") from error
    tables = document.get("targets")
    if not isinstance(tables, dict) or not tables or set(document) != {"targets"}:
        raise ConfigurationError(f"The targets file {path} must hold tables [targets.NAME] and nothing else")
    return Targets(folder=path.parent, by_name={name: _read_target(name, table) for name, table in tables.items()})


def _read_target(name: str, table: object) -> Target:
    if not NAME.fullmatch(name):
        raise ConfigurationError(f"The target name {name!r} is not ^[A-Za-z0-9._:/-]{{1,128}}$")
    if not isinstance(table, dict):
        raise ConfigurationError(f"targets.{name} must be a table")
    if given := sorted(_NOT_KEYS.intersection(table)):
        raise ConfigurationError(f"targets.{name}: {given[0]} is no key; the adapter's own stand beside the others")
    known = {key: value for key, value in table.items() if key in Target.__struct_fields__}
    options = {key: value for key, value in table.items() if key not in Target.__struct_fields__}
    try:
        target = msgspec.convert({**known, "options": options, "name": name}, Target)
        _check(target)
    except (msgspec.ValidationError, ConfigurationError, ValueError) as error:
        raise ConfigurationError(f"targets.{name}: {error}") from error
    return target


def _check(target: Target) -> None:
    check_url(target.base_url)
    if isinstance(target.retry, str) and target.retry not in RETRY_PROFILES:
        raise ValueError(f"retry must be one of {sorted(RETRY_PROFILES)} or a list of seconds")
    numbers = (target.timeout_seconds, target.ttl_seconds, target.rate_per_second, *target.retry_delays)
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError("timeout_seconds, ttl_seconds, rate_per_second and retry must be finite")
    if target.timeout_seconds <= 0 or target.ttl_seconds <= 0 or target.concurrency < 1 or target.rate_per_second < 0:
        raise ValueError("timeout_seconds, ttl_seconds and concurrency must be above 0, rate_per_second 0 or more")
    if any(delay < 0 for delay in target.retry_delays):
        raise ValueError("retry must not hold negative seconds")
    for secret in (target.auth.token, target.auth.password, target.auth.client_secret):
        if secret:
            check_secret_reference(secret)
    needed = {"bearer": ("token",), "basic": ("username", "password"), "oauth2": ("token_url", "client_id")}
    for key in needed.get(target.auth.kind, ()):
        if not getattr(target.auth, key):
            raise ValueError(f"auth of kind {target.auth.kind} needs {key}")
    if target.auth.token_url:
        check_url(target.auth.token_url)


def check_url(url: str) -> None:
    """Raises: ValueError unless it is a plain http(s) URL without credentials in it."""
    if not url.isprintable() or " " in url:  # urlsplit passes over some of them, and a client may not
        raise ValueError("a URL must not hold blanks or control characters")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a URL must begin with http:// or https:// and name a host")
    _ = parts.port  # raises when it is no port number
    if parts.username or parts.password:
        raise ValueError("a URL must not hold credentials; use auth with env: or file:")
