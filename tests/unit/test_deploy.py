"""docker-compose.yml and the Dockerfile agree with the code, as far as that can be seen without a container engine."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from chassis.settings import HubSettings, split_address
from chassis.targets import load_targets

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "docker-compose.yml"
SERVICES = ("gateway", "intake", "orchestrator", "adapter")
GIVEN = {"POSTGRES_PASSWORD": "letters1", "REDIS_PASSWORD": "letters2"}


def interpolated(text: str) -> str:
    """Fill in ${NAME:-default} and ${NAME:?message} as compose does."""

    def value(match: re.Match[str]) -> str:
        name, operator, rest = match.groups()
        if name in GIVEN:
            return GIVEN[name]
        assert operator == ":-", f"{name} has no value"
        return rest

    return re.sub(r"\$\{(\w+)(:-|:\?)([^}]*)\}", value, text)


COMPOSED: dict[str, Any] = yaml.safe_load(interpolated(COMPOSE.read_text(encoding="utf-8")))
CONTAINERS: dict[str, dict[str, Any]] = COMPOSED["services"]
OURS = {name: container for name, container in CONTAINERS.items() if "build" in container}


def environment(container: str) -> dict[str, str]:
    return {name: str(value) for name, value in CONTAINERS[container].get("environment", {}).items()}


def settings(container: str, monkeypatch: pytest.MonkeyPatch) -> HubSettings:
    """Read the settings as the process in `container` would."""
    for name in [name for name in os.environ if name.startswith("HUB_")]:
        monkeypatch.delenv(name)
    for name, value in environment(container).items():
        monkeypatch.setenv(name, value)
    return HubSettings()


def published(container: str) -> set[int]:
    """Container ports that are published."""
    return {int(str(port).rpartition(":")[2]) for port in CONTAINERS[container].get("ports", [])}


def test_every_service_has_its_container() -> None:
    assert set(OURS) == {*SERVICES, "keys", "simulator"}


@pytest.mark.parametrize("container", OURS)
def test_the_command_names_a_module_that_can_be_run(container: str) -> None:
    module = OURS[container]["command"][0]

    assert importlib.util.find_spec(f"{module}.__main__") is not None


def test_the_key_container_runs_a_command_of_the_console() -> None:
    command = [sys.executable, "-m", *OURS["keys"]["command"], "--help"]

    assert subprocess.run(command, check=False, capture_output=True, cwd=ROOT).returncode == 0


@pytest.mark.parametrize("container", OURS)
def test_every_hub_variable_is_a_setting(container: str) -> None:
    variables = {name.removeprefix("HUB_").lower() for name in environment(container) if name.startswith("HUB_")}

    assert variables - HubSettings.model_fields.keys() == set()


@pytest.mark.parametrize("container", SERVICES)
def test_a_service_listens_where_the_others_look_for_it(container: str, monkeypatch: pytest.MonkeyPatch) -> None:
    host, port = split_address(settings(container, monkeypatch).address_of(container))

    assert host == "0.0.0.0"
    if container != "gateway":
        callers = {settings(caller, monkeypatch).url_of(container) for caller in SERVICES}
        assert callers == {f"{container}:{port}"}


@pytest.mark.parametrize("container", SERVICES)
def test_a_service_keeps_the_port_it_has_outside_containers(container: str, monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = settings("keys", monkeypatch)
    mine = settings(container, monkeypatch)

    assert split_address(mine.address_of(container))[1] == split_address(defaults.address_of(container))[1]
    assert split_address(mine.metrics_address_of(container)) == (
        "0.0.0.0",
        split_address(defaults.metrics_address_of(container))[1],
    )


@pytest.mark.parametrize("container", SERVICES)
def test_its_plain_text_address_is_permitted(container: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = settings(container, monkeypatch)

    mine.check_link(mine.address_of(container))


@pytest.mark.parametrize("container", [*SERVICES, "simulator"])
def test_the_health_check_and_the_published_ports_use_the_service_port(container: str) -> None:
    port = int(environment(container)[f"HUB_{container.upper()}_ADDRESS"].rpartition(":")[2])
    target = CONTAINERS[container]["healthcheck"]["test"][-1]

    assert f"127.0.0.1:{port}" in target
    assert published(container) <= {port}


def test_nothing_is_published_beyond_this_machine() -> None:
    ports = [port for container in CONTAINERS.values() for port in container.get("ports", [])]

    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_only_intake_reaches_the_database_and_the_gateway_no_redis() -> None:
    database = {name for name in OURS if "HUB_DATABASE_URL" in environment(name)}
    redis = {name for name in OURS if "HUB_REDIS_URL" in environment(name)}

    assert database == {"intake"}
    assert redis == {"intake", "orchestrator"}


def test_stores_are_reached_by_their_container_names(monkeypatch: pytest.MonkeyPatch) -> None:
    mine = settings("intake", monkeypatch)

    assert mine.database_url == f"postgresql://hub:{GIVEN['POSTGRES_PASSWORD']}@postgres:5432/hub"
    assert mine.redis_url == f"redis://:{GIVEN['REDIS_PASSWORD']}@redis:6379/0"


def test_redis_wants_the_password_that_the_services_have() -> None:
    command = CONTAINERS["redis"]["command"]

    assert command[command.index("--requirepass") + 1] == GIVEN["REDIS_PASSWORD"]
    assert environment("redis")["REDISCLI_AUTH"] == GIVEN["REDIS_PASSWORD"]


def test_no_password_of_the_stores_has_a_default() -> None:
    text = COMPOSE.read_text(encoding="utf-8")

    assert re.findall(r"\$\{(?:POSTGRES|REDIS)_PASSWORD(?!:\?)", text) == []


def test_a_drain_fits_into_the_stop_grace_period(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {int(container["stop_grace_period"].removesuffix("s")) for container in OURS.values()}

    assert min(seconds) > settings("intake", monkeypatch).grace_seconds


def test_dependencies_and_volumes_are_declared() -> None:
    needed = {name for container in CONTAINERS.values() for name in container.get("depends_on", {})}
    mounted = {volume.partition(":")[0] for container in CONTAINERS.values() for volume in container.get("volumes", [])}

    assert needed <= CONTAINERS.keys()
    assert mounted == COMPOSED["volumes"].keys()


@pytest.mark.parametrize("container", OURS)
def test_containers_of_ours_have_no_more_rights_than_they_need(container: str) -> None:
    mine = OURS[container]

    assert mine["read_only"] is True
    assert [Path(folder).name for folder in mine["tmpfs"]] == ["tmp"]
    assert mine["cap_drop"] == ["ALL"]
    assert "user" not in mine  # the image's own, which is not root
    assert not mine.keys() & {"privileged", "cap_add", "devices", "pid", "network_mode"}
    writable = [volume for volume in mine["volumes"] if not volume.endswith(":ro")]
    assert bool(writable) == (container == "keys")


@pytest.mark.parametrize("container", CONTAINERS)
def test_no_container_can_gain_rights(container: str) -> None:
    assert CONTAINERS[container]["security_opt"] == ["no-new-privileges:true"]


def test_the_targets_of_compose_are_those_of_the_default_run_at_other_addresses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mine = load_targets(ROOT / Path(environment("adapter")["HUB_TARGETS"]).relative_to("/app"))
    defaults = load_targets(ROOT / settings("simulator", monkeypatch).targets)

    assert mine.by_name.keys() == defaults.by_name.keys()
    for name, target in mine.by_name.items():
        assert target.base_url.startswith("http://simulator:8090")
        assert {source: (mine.folder / path).resolve() for source, path in target.schemas.items()} == {
            source: (defaults.folder / path).resolve() for source, path in defaults.by_name[name].schemas.items()
        }
        assert all((mine.folder / path).is_file() for path in target.schemas.values())


def test_the_adapter_has_every_secret_its_targets_refer_to() -> None:
    text = (ROOT / "deploy" / "compose" / "targets.toml").read_text(encoding="utf-8")
    needed = set(re.findall(r'"env:(\w+)"', text))

    assert needed
    assert needed <= environment("adapter").keys()


def copied() -> list[str]:
    """What the Dockerfile copies out of the build context: every source of every COPY, the last word being where to."""
    copies = re.findall(r"^COPY (?!--)(.+)$", (ROOT / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    return [source for words in copies for source in words.split()[:-1]]


def test_the_image_holds_every_package_of_the_product() -> None:
    folders = {source.rstrip("/") for source in copied()}
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")} - {"tests", "tools", "bench"}

    assert packages <= folders
    assert {"gen", "deploy"} <= folders


def test_the_build_context_holds_everything_the_image_copies() -> None:
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").split() if line[0] == "!"}

    assert set(copied()) == allowed
    assert [path for path in copied() if not (ROOT / path).exists()] == []


def test_the_image_installs_pinned_packages_and_does_not_run_as_root() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")

    assert "--require-hashes" in text
    assert re.findall(r"^USER (\S+)$", text, re.MULTILINE) == ["hub"]
