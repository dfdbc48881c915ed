"""`hub config`: the effective settings with the variables that set them, and the targets; no secret is printed."""

import json
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from console.tables import print_table

if TYPE_CHECKING:
    from chassis.settings import HubSettings
    from chassis.targets import Target

EXAMPLES = """\b
Examples:
  hub config
  HUB_TARGETS=/etc/hub/targets.toml hub config --json | jq .targets
"""
MASK = "***"

#: As SQLAlchemy reads a URL: a password may hold / ? #; and on to the last @ before a parameter, to which redis reads.
_USER_INFO = re.compile(r"(?<=://)([^/:]*):[^@]*@(?:[^?#]*@)?")
#: Where no name is expected before the host, what stands there is a password or a token.
_LONE_USER = re.compile(r"((?:rediss?|unix|https?)://)[^:@]+@(?:[^?#]*@)?")
_SECRET_NAME = r"(?:[\w-]*(?:password|passwd|pwd|secret|token|apikey|[_-]key)|pass|key)"
#: A placeholder such as {id} is no secret.
_SECRET_PARAMETER = re.compile(rf"([?&#]{_SECRET_NAME}=)(?!\{{)[^&]*", re.IGNORECASE)
#: As libpq reads "host=db password='a b'": blanks around =, quotes, backslashes.
_SECRET_WORD = re.compile(rf"((?:^|[\s;]){_SECRET_NAME}\s*=\s*)(?:'(?:\\.|[^'])*'|(?:\\.|\S)*)", re.IGNORECASE)


def config(*, as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show the effective settings and targets, secrets masked."""
    from chassis.targets import load_targets
    from console.configuration import find_targets, read_settings, unknown_variables
    from console.simulator_targets import targets_in_use

    settings = read_settings()
    targets_file = targets_in_use(settings, find_targets(settings))
    targets = [describe_target(target) for target in load_targets(targets_file).by_name.values()]
    rows = describe_settings(settings, str(targets_file))
    if as_json:
        described = {
            name: {"value": value, "default": default, "description": description}
            for name, value, default, description in rows
        }
        typer.echo(json.dumps({"settings": described, "targets": targets}))
    else:
        print_table(
            ("VARIABLE", "", "VALUE", "WHAT IT IS"),
            [(name, "default" if default else "set", value, description) for name, value, default, description in rows],
        )
        for target in targets:
            typer.echo(f"\n[targets.{target['name']}]")
            print_table(("KEY", "VALUE"), [(key, value) for key, value in target.items() if key != "name"])
    for name in unknown_variables():
        typer.echo(f"{name} is not a setting of the hub", err=True)


def describe_settings(settings: "HubSettings", targets_file: str) -> list[tuple[str, str, bool, str]]:
    """List every variable with its value, defaults filled in, whether that is the default, and what it is."""
    from console.configuration import variable_of

    effective = {
        "database_url": settings.effective_database_url,
        "redis_url": settings.effective_redis_url,
        "targets": targets_file,
        "jwt_jwks": settings.effective_jwks,
        "service_key": str(settings.effective_service_key),
        **{f"{service}_url": settings.url_of(service) for service in ("intake", "adapter", "orchestrator")},
    }
    return [
        (
            variable_of(field),
            _shown(field, str(effective.get(field, getattr(settings, field)))),
            field not in settings.model_fields_set,
            info.description or "",
        )
        for field, info in type(settings).model_fields.items()
    ]


def describe_target(target: "Target") -> dict[str, Any]:
    """Write a target's keys as the file has them; secrets are references there and stay so."""
    import msgspec

    described: dict[str, Any] = msgspec.to_builtins(target)
    options: dict[str, Any] = described.pop("options")
    described["auth"] = {key: mask(value) for key, value in described["auth"].items() if value}
    described["retry"] = list(target.retry_delays)
    shown = {"name": described.pop("name"), **described, **options}
    return {key: mask(value) if isinstance(value, str) else value for key, value in shown.items()}


def mask(text: str) -> str:
    """Hide the secrets in a URL, before the host or among its parameters, and in a connection's NAME=VALUE words."""
    text = _LONE_USER.sub(rf"\1{MASK}@", _USER_INFO.sub(rf"\1:{MASK}@", text))
    return _SECRET_WORD.sub(rf"\1{MASK}", _SECRET_PARAMETER.sub(rf"\1{MASK}", text))


def _shown(field: str, value: str) -> str:
    """A key ring is shown where it is a reference, and nothing where somebody wrote the document itself."""
    is_ring = field == "payload_keys" and value and not value.startswith(("env:", "file:"))
    return MASK if is_ring or value.lstrip().startswith("{") else mask(value)
