"""What `hub up` prepares: settings, targets, Valkey's configuration, the environment of the children."""

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from chassis.errors import ConfigurationError
from chassis.settings import HubSettings
from chassis.targets import load_targets
from chassis.testing import free_port
from console.__main__ import app
from console.configuration import (
    ROOT,
    connectable,
    environment_of,
    find_targets,
    hub_version,
    read_settings,
    unknown_variables,
)
from console.launch import SEND_READS, TOKEN_READS, hub_command
from console.simulator_targets import effective_targets, wants_simulator
from console.valkey import valkey_config

TARGETS = """
[targets.TotvsProtheus]
adapter = "totvs_protheus"
base_url = "http://127.0.0.1:8090/t/protheus"
retry = [1, 2.5]
schemas = { SAP = "schemas/sap-order.json" }
path = "/protheus/v1/orders"
[targets.TotvsProtheus.auth]
kind = "oauth2"
token_url = "http://127.0.0.1:8090/oauth2/token"
client_id = "id"
client_secret = "file:secrets/a"

[targets."SAP:QAS"]
adapter = "http_json"
base_url = "https://sap.example/orders"
idempotent = true
headers = { "X-Quote" = "say \\"hi\\" ü" }
"""


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in unknown_variables():
        monkeypatch.delenv(name)
    for name in environment_of(HubSettings()):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def targets_file(tmp_path: Path) -> Path:
    path = tmp_path / "deploy" / "targets.toml"
    path.parent.mkdir()
    path.write_text(TARGETS)
    return path


def test_children_get_the_effective_settings_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = HubSettings(state_dir=Path("state"), redis_port=7000, allow_plaintext=True, grace_seconds=3.5)

    for name, value in environment_of(settings).items():
        monkeypatch.setenv(name, value)
    again = read_settings()

    assert again.model_dump() == {**settings.model_dump(), "state_dir": tmp_path / "state"}


def test_a_bad_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_REDIS_PORT", "no number")
    monkeypatch.setenv("HUB_LOG_LEVEL", "loud")

    with pytest.raises(ConfigurationError) as refused:
        read_settings()

    assert "HUB_REDIS_PORT: Input should be a valid integer" in refused.value.message
    assert "HUB_LOG_LEVEL: Input should be 'debug'" in refused.value.message


def test_a_misspelt_variable_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB_GATEWAY_ADRESS", "127.0.0.1:1")
    monkeypatch.setenv("HUB_SIMULATOR_STATE", "file")

    assert unknown_variables() == ["HUB_GATEWAY_ADRESS"]


def test_the_default_targets_are_found_from_any_folder() -> None:
    assert find_targets(HubSettings()) == ROOT / "deploy" / "targets.toml"


def test_the_current_folders_targets_come_before_the_packages(targets_file: Path) -> None:
    assert find_targets(HubSettings()) == targets_file


def test_targets_that_were_named_are_not_looked_for_elsewhere() -> None:
    with pytest.raises(ConfigurationError, match="HUB_TARGETS"):
        find_targets(HubSettings(targets=Path("deploy/targets.toml")))


def test_the_targets_file_is_used_as_it_is_when_the_simulator_is_where_it_says(targets_file: Path) -> None:
    assert effective_targets(HubSettings(), targets_file) == targets_file


def test_targets_that_were_named_are_never_rewritten(targets_file: Path) -> None:
    settings = HubSettings(targets=targets_file, simulator_address="127.0.0.1:9999")

    assert effective_targets(settings, targets_file) == targets_file


def test_targets_follow_the_simulator_to_another_address(targets_file: Path, tmp_path: Path) -> None:
    settings = HubSettings(state_dir=tmp_path, simulator_address="127.0.0.1:9999")

    moved = load_targets(effective_targets(settings, targets_file)).by_name["TotvsProtheus"]

    assert moved.base_url == "http://127.0.0.1:9999/t/protheus"
    assert moved.auth.token_url == "http://127.0.0.1:9999/oauth2/token"


def test_rewritten_targets_change_in_nothing_else(targets_file: Path, tmp_path: Path) -> None:
    settings = HubSettings(state_dir=tmp_path, simulator_address="127.0.0.1:9999")
    original = load_targets(targets_file).by_name

    moved = load_targets(effective_targets(settings, targets_file)).by_name

    assert moved["SAP:QAS"] == original["SAP:QAS"]
    assert moved["TotvsProtheus"].retry == original["TotvsProtheus"].retry
    assert moved["TotvsProtheus"].options == original["TotvsProtheus"].options
    assert moved["TotvsProtheus"].schemas == {"SAP": str(targets_file.parent / "schemas" / "sap-order.json")}
    assert moved["TotvsProtheus"].auth.client_secret == f"file:{targets_file.parent / 'secrets' / 'a'}"


def test_the_shipped_targets_want_the_simulator() -> None:
    assert wants_simulator(HubSettings(), load_targets(find_targets(HubSettings())))


def test_targets_elsewhere_want_no_simulator(tmp_path: Path) -> None:
    file = tmp_path / "targets.toml"
    file.write_text('[targets.A]\nadapter = "http_json"\nbase_url = "https://sap.example"\n')

    assert not wants_simulator(HubSettings(), load_targets(file))


@pytest.mark.parametrize(
    ("address", "expected"),
    [("0.0.0.0:8080", "127.0.0.1:8080"), ("[::]:8080", "[::1]:8080"), ("10.0.0.1:1", "10.0.0.1:1")],
)
def test_a_listener_on_every_interface_is_reached_on_loopback(address: str, expected: str) -> None:
    assert connectable(address) == expected


def test_valkeys_configuration_takes_any_path() -> None:
    assert 'dir "/home/a b/\\"x\\"\\\\y"\n' in valkey_config(Path('/home/a b/"x"\\y'), 6390, "p")


def test_valkey_keeps_every_write_and_spends_no_cpu_on_making_its_file_small() -> None:
    configured = valkey_config(Path("state"), 6390, "p").splitlines()

    assert {"appendonly yes", "maxmemory-policy noeviction", "rdbcompression no"} <= set(configured)


def test_names_the_command_as_it_was_called(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "my env" / "bin" / "hub"
    script.parent.mkdir(parents=True)
    script.touch()
    monkeypatch.setattr(sys, "argv", [str(script)])

    assert hub_command(HubSettings(), SEND_READS, lambda _: None) == "'my env/bin/hub'"
    assert hub_command(HubSettings(), SEND_READS, lambda _: str(script)) == "hub"


@pytest.fixture
def called_as_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "console" / "__main__.py")])
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv" / "bin" / "python"))


@pytest.mark.usefixtures("called_as_module")
def test_names_the_variables_without_which_a_command_would_reach_another_hub() -> None:
    settings = HubSettings(
        state_dir=Path("my state"),
        gateway_address="127.0.0.1:8181",
        jwt_issuer="acme",
        jwt_audience="integration-hub",
        database_url="postgresql://hub:secret@127.0.0.1/hub",
    )

    assert hub_command(settings, TOKEN_READS) == (
        "HUB_STATE_DIR='my state' HUB_JWT_ISSUER=acme .venv/bin/python -m console"
    )
    assert hub_command(settings, SEND_READS) == (
        "HUB_STATE_DIR='my state' HUB_JWT_ISSUER=acme HUB_GATEWAY_ADDRESS=127.0.0.1:8181 .venv/bin/python -m console"
    )


def test_knows_its_version() -> None:
    assert hub_version()[0].isdigit()


@pytest.mark.parametrize("in_the_way", ["hub.lock", "plan.json", "valkey"])
def test_a_state_folder_that_cannot_be_written_is_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, in_the_way: str
) -> None:
    for service in ("GATEWAY", "INTAKE", "ORCHESTRATOR", "ADAPTER"):
        monkeypatch.setenv(f"HUB_{service}_ADDRESS", f"127.0.0.1:{free_port()}")
        monkeypatch.setenv(f"HUB_{service}_METRICS_ADDRESS", f"127.0.0.1:{free_port()}")
    monkeypatch.setenv("HUB_REDIS_PORT", str(free_port()))
    monkeypatch.setenv("HUB_STATE_DIR", str(tmp_path / "state"))
    CliRunner().invoke(app, ["keys"])
    if in_the_way == "valkey":
        (tmp_path / "state" / in_the_way).touch()
    else:
        (tmp_path / "state" / in_the_way).mkdir()

    result = CliRunner().invoke(app, ["up", "--no-simulator"])

    reason = "File exists" if in_the_way == "valkey" else "Is a directory"
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"hub: The state folder {tmp_path / 'state'} cannot be used ({reason}); "
        "make it writable, with room to spare, or set HUB_STATE_DIR to a folder of your own\n"
    )
