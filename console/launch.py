"""What `hub up` does: checks and prepares everything, then becomes the supervisor (console.supervise)."""

import os
import secrets
import shlex
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn
from urllib.parse import quote, urlencode

import typer

from chassis.errors import ConfigurationError
from chassis.settings import HubSettings
from chassis.targets import load_targets
from console.configuration import (
    ROOT,
    SIMULATOR_STATE,
    connectable,
    environment_of,
    find_targets,
    read_settings,
    unknown_variables,
    variable_of,
)
from console.example import EXAMPLE_PARTNER, example_body
from console.lock import AlreadyRunning, hold_lock
from console.plan import ChildPlan, Plan, write_plan
from console.ports import check_ports, list_listeners
from console.simulator_targets import SIMULATOR_MODULE, effective_targets, wants_simulator
from console.state_folder import prepare_state_folder, usable
from console.valkey import GRACE_SECONDS as VALKEY_GRACE_SECONDS
from console.valkey import prepare_valkey

#: What a service may need beyond HUB_GRACE_SECONDS to close its connections.
MARGIN_SECONDS = 5.0
PROTHEUS_TOKEN = "PROTHEUS_TOKEN"
#: The settings that `hub token` and `hub send` read.
TOKEN_READS = ("state_dir", "service_key", "jwt_issuer", "jwt_audience")
SEND_READS = (*TOKEN_READS, "gateway_address", "gateway_tls_certificate", "tls_ca", "rpc_timeout_seconds")


def launch(*, quiet: bool, no_simulator: bool, watch: bool) -> NoReturn:
    """Prepare the state folder and the plan, and become the supervisor.

    Raises: ConfigurationError when something is not as it must be; nothing was started then.
    """
    settings = read_settings()
    for name in unknown_variables():
        _say(f"{name} is not a setting of the hub; `hub config` lists those there are")
    prepare_state_folder(settings, _say)
    try:
        with usable(settings.state_dir), hold_lock(settings.state_dir):
            environment, plan = _prepare(settings, quiet=quiet, no_simulator=no_simulator, watch=watch)
    except AlreadyRunning as error:
        raise ConfigurationError(str(error)) from error
    _become_supervisor(environment, plan)


def _prepare(settings: HubSettings, *, quiet: bool, no_simulator: bool, watch: bool) -> tuple[dict[str, str], Path]:
    """Check what can be checked and write what the children read. Returns the environment and the plan's file."""
    targets_file = effective_targets(settings, find_targets(settings))
    simulator = not no_simulator and wants_simulator(settings, load_targets(targets_file))
    valkey = not settings.redis_url
    check_ports(list_listeners(settings, valkey=valkey, simulator=simulator))
    children = [_service(settings, name) for name in ("adapter", "intake", "orchestrator", "gateway")]
    if simulator:
        children.insert(0, _simulator(settings))
    if valkey:
        children.insert(0, _valkey(settings))
    state_dir = settings.state_dir.absolute()
    plan = Plan(
        children=tuple(replace(child, hidden=quiet or child.hidden) for child in children),
        state_dir=str(state_dir),
        ready_line=f"ready {_scheme(settings)}://{connectable(settings.gateway_address)}",
        summary=_summary(settings, simulator=simulator),
        log_format=settings.log_format,
        watcher=_module("console.watch") if watch else (),
    )
    plan_file = state_dir / "plan.json"
    write_plan(plan, plan_file)
    return _environment(settings, targets_file, simulator=simulator), plan_file


def _environment(settings: HubSettings, targets_file: Path, *, simulator: bool) -> dict[str, str]:
    """The environment of every child."""
    environment = {**os.environ, **environment_of(settings), "HUB_TARGETS": str(targets_file), "HUB_LOG_FORMAT": "json"}
    # gRPC's own lines are no JSON and tell of clients that misbehave; what goes wrong in a call is logged by the hub.
    environment.setdefault("GRPC_VERBOSITY", "NONE")
    if simulator:
        # One secret for both ends, new for each run. Its orders outlive its process, as a real system's do.
        environment.setdefault(PROTHEUS_TOKEN, secrets.token_urlsafe(24))
        environment.setdefault(SIMULATOR_STATE, str(settings.state_dir.absolute() / "simulator.jsonl"))
    if (ROOT / "gen").is_dir():  # a source tree, perhaps not installed
        paths = [str(ROOT), str(ROOT / "gen"), *filter(None, [environment.get("PYTHONPATH")])]
        environment["PYTHONPATH"] = os.pathsep.join(paths)
    return environment


def _service(settings: HubSettings, name: str) -> ChildPlan:
    address = connectable(settings.address_of(name))
    return ChildPlan(
        name=name,
        command=_module("gateway" if name == "gateway" else f"{name}_service"),
        probe=_probe(settings, name, address),
        grace_seconds=settings.grace_seconds + MARGIN_SECONDS,
    )


def _probe(settings: HubSettings, name: str, address: str) -> str:
    """Whom to ask; with TLS the files that the probe shows itself with, since a server may want to know its clients."""
    if name == "gateway":
        return f"{_scheme(settings)}://{address}/readyz"
    if not settings.tls_certificate:
        return f"grpc://{address}"
    files = {"certificate": settings.tls_certificate, "key": settings.tls_key}
    return f"grpcs://{address}?{urlencode({name: str(Path(path).absolute()) for name, path in files.items()})}"


def _scheme(settings: HubSettings) -> str:
    return "https" if settings.gateway_tls_certificate else "http"


def _simulator(settings: HubSettings) -> ChildPlan:
    return ChildPlan(
        name="simulator",
        command=_module(SIMULATOR_MODULE),
        probe=f"http://{connectable(settings.simulator_address)}/_sim/health",
        grace_seconds=MARGIN_SECONDS,
    )


def _valkey(settings: HubSettings) -> ChildPlan:
    return ChildPlan(
        name="valkey",
        command=prepare_valkey(settings.state_dir, settings.redis_port),
        probe=f"redis://127.0.0.1:{settings.redis_port}?password={quote(str(settings.redis_password_file.absolute()))}",
        grace_seconds=VALKEY_GRACE_SECONDS,
        hidden=True,  # it says much and little that matters here
    )


def _module(name: str) -> tuple[str, ...]:
    """The command that runs one of our packages; -P keeps a folder of the same name where we stand out of its way."""
    return (sys.executable, "-P", "-m", name)


def _become_supervisor(environment: dict[str, str], plan_file: Path) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    command = [*_module("console.supervise"), str(plan_file)]
    os.execve(command[0], command, environment)  # noqa: S606 (no shell is wanted)


def _summary(settings: HubSettings, *, simulator: bool) -> str:
    gateway = f"{_scheme(settings)}://{connectable(settings.gateway_address)}"
    own_keys = not settings.jwt_jwks
    token = (
        f"$({hub_command(settings, TOKEN_READS)} token --partner {EXAMPLE_PARTNER})" if own_keys else "$TOKEN"
    )  # theirs comes from their issuer
    services = ("gateway", "intake", "orchestrator", "adapter")
    metrics = ", ".join(f"{name} {connectable(settings.metrics_address_of(name))}" for name in services)
    rows = [
        ("REST", f"{gateway}/api/integration-requests (documentation: {gateway}/docs)"),
        ("gRPC", ", ".join(f"{name} {settings.address_of(name)}" for name in services[1:])),
        ("Metrics", f"{metrics}: /metrics"),
        *([("Simulator", f"http://{connectable(settings.simulator_address)}/_sim/orders")] if simulator else []),
        ("Logs", str(settings.state_dir / "logs")),
    ]
    lines = "".join(f"  {name:<10} {text}\n" for name, text in rows)
    shorter = f"  or: {hub_command(settings, SEND_READS)} send --wait\n\n" if own_keys else ""
    return f"""
{lines}
  Send an order from another terminal:

    curl -i {gateway}/api/integration-requests \\
      -H "Authorization: Bearer {token}" \\
      -H 'Content-Type: application/json' \\
      -d '{example_body("PARTNER-12345")}'

{shorter}  Ctrl-C stops the hub.

"""


def hub_command(settings: HubSettings, reads: Sequence[str], which: Callable[[str], str | None] = shutil.which) -> str:
    """How to call a command that `reads` these settings from another terminal in the same folder."""
    script = Path(sys.argv[0])
    if script.name != "hub":
        command = f"{_shortest(Path(sys.executable))} -m console"
    elif (found := which("hub")) is not None and Path(found).samefile(script):
        command = "hub"
    else:
        command = _shortest(script.absolute())
    changed = [name for name in reads if getattr(settings, name) != HubSettings.model_fields[name].default]
    variables = [f"{variable_of(name)}={shlex.quote(str(getattr(settings, name)))}" for name in changed]
    return " ".join([*variables, command])


def _shortest(path: Path) -> str:
    here = Path.cwd()
    return shlex.quote(str(path.relative_to(here) if path.is_relative_to(here) else path))


def _say(text: str) -> None:
    typer.echo(f"hub: {text}", err=True)
