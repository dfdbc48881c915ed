"""The state folder and the ports: made, closed, checked before anything is started."""

import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from chassis.errors import ConfigurationError
from chassis.settings import HubSettings
from console.ports import Listener, check_ports, list_listeners
from console.state_folder import make_own_keys, prepare_state_folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_makes_the_folder_and_the_keys_for_their_owner_alone(tmp_path: Path) -> None:
    said: list[str] = []

    prepare_state_folder(HubSettings(state_dir=tmp_path / "a" / "hub"), said.append)

    folder = tmp_path / "a" / "hub"
    assert [mode(folder), mode(folder / "keys"), mode(folder / "keys" / "private.json")] == [0o700, 0o700, 0o600]
    assert said == [f"Made a key set in {folder / 'keys'}"]


def test_keys_that_are_made_first_make_a_folder_for_their_owner_alone_too(tmp_path: Path) -> None:
    make_own_keys(tmp_path / "hub" / "keys", lambda _: None)

    assert [mode(tmp_path / "hub"), mode(tmp_path / "hub" / "keys")] == [0o700, 0o700]


def test_keeps_the_keys_of_an_earlier_start_and_says_nothing(tmp_path: Path) -> None:
    settings = HubSettings(state_dir=tmp_path / "hub")
    prepare_state_folder(settings, lambda _: None)
    before = settings.effective_service_key.read_bytes()
    said: list[str] = []

    prepare_state_folder(settings, said.append)

    assert settings.effective_service_key.read_bytes() == before
    assert said == []


def test_closes_what_others_could_read_and_says_so(tmp_path: Path) -> None:
    settings = HubSettings(state_dir=tmp_path / "hub")
    prepare_state_folder(settings, lambda _: None)
    open_ones = [settings.state_dir, settings.state_dir / "keys", settings.effective_service_key]
    for path, wide in zip(open_ones, (0o755, 0o750, 0o644), strict=True):
        path.chmod(wide)
    said: list[str] = []

    prepare_state_folder(settings, said.append)

    assert list(map(mode, open_ones)) == [0o700, 0o700, 0o600]
    assert said == [
        f"{settings.state_dir} was open to other users of this machine (mode 0755); it is 0700 now",
        f"{settings.state_dir / 'keys'} was open to other users of this machine (mode 0750); it is 0700 now",
        f"{settings.effective_service_key} was open to other users of this machine (mode 0644); it is 0600 now",
    ]


def test_makes_no_keys_where_both_halves_come_from_elsewhere(tmp_path: Path) -> None:
    settings = HubSettings(state_dir=tmp_path / "hub", jwt_jwks="https://issuer/jwks.json", service_key="/run/key.json")

    prepare_state_folder(settings, lambda _: None)

    assert not (tmp_path / "hub" / "keys").exists()


def test_names_the_setting_of_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigurationError, match="HUB_STATE_DIR"):
        prepare_state_folder(HubSettings(state_dir=tmp_path / "file" / "hub"), lambda _: None)


def test_says_whether_it_made_the_keys(tmp_path: Path) -> None:
    assert make_own_keys(tmp_path / "keys", lambda _: None)
    assert not make_own_keys(tmp_path / "keys", lambda _: None)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_taken_port_is_named_with_its_setting(taken_port: int) -> None:
    listener = Listener(setting="HUB_GATEWAY_ADDRESS", host="127.0.0.1", port=taken_port)

    with pytest.raises(ConfigurationError) as refused:
        check_ports([listener], patience_seconds=0)

    assert refused.value.message == (
        f"Port {taken_port} is taken by another program; stop it, or set HUB_GATEWAY_ADDRESS to a free port"
    )


def test_several_taken_ports_are_named_together() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        ports = [server.getsockname()[1] for server in (one, two)]
        listeners = [Listener(setting=f"HUB_{port}", host="127.0.0.1", port=port) for port in ports]

        with pytest.raises(ConfigurationError) as refused:
            check_ports(listeners, patience_seconds=0)

    named = f"{ports[0]} (HUB_{ports[0]}), {ports[1]} (HUB_{ports[1]})"
    assert refused.value.message.startswith(f"The ports {named} are taken, perhaps by a hub with another state folder")


def test_an_address_of_another_machine_is_named_with_its_setting() -> None:
    with pytest.raises(ConfigurationError, match="set HUB_INTAKE_ADDRESS to another"):
        check_ports([Listener(setting="HUB_INTAKE_ADDRESS", host="192.0.2.1", port=50051)], patience_seconds=0)


def test_one_port_for_two_listeners_is_refused() -> None:
    listeners = [
        Listener(setting="HUB_GATEWAY_ADDRESS", host="0.0.0.0", port=8080),
        Listener(setting="HUB_REDIS_PORT", host="127.0.0.1", port=8080),
    ]

    with pytest.raises(ConfigurationError, match="HUB_GATEWAY_ADDRESS and HUB_REDIS_PORT both name port 8080"):
        check_ports(listeners)


def test_port_zero_is_refused() -> None:
    settings = HubSettings(adapter_metrics_address="127.0.0.1:0")

    with pytest.raises(ConfigurationError, match="HUB_ADAPTER_METRICS_ADDRESS has port 0"):
        list_listeners(settings, valkey=True, simulator=True)


def test_lists_every_port_that_will_be_listened_on() -> None:
    listed = {item.setting: item.port for item in list_listeners(HubSettings(), valkey=True, simulator=True)}

    assert listed == {
        "HUB_ADAPTER_ADDRESS": 50053,
        "HUB_ADAPTER_METRICS_ADDRESS": 9104,
        "HUB_INTAKE_ADDRESS": 50051,
        "HUB_INTAKE_METRICS_ADDRESS": 9102,
        "HUB_ORCHESTRATOR_ADDRESS": 50052,
        "HUB_ORCHESTRATOR_METRICS_ADDRESS": 9103,
        "HUB_GATEWAY_ADDRESS": 8080,
        "HUB_GATEWAY_METRICS_ADDRESS": 9101,
        "HUB_SIMULATOR_ADDRESS": 8090,
        "HUB_REDIS_PORT": 6390,
    }


def test_asks_for_no_port_of_what_is_not_started() -> None:
    listed = {item.setting for item in list_listeners(HubSettings(), valkey=False, simulator=False)}

    assert listed.isdisjoint({"HUB_SIMULATOR_ADDRESS", "HUB_REDIS_PORT"})
