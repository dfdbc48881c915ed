"""`hub up` and the commands against a whole hub of real services."""

import asyncio
import getpass
import json
import os
import pty
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from chassis.testing import eventually
from console.testing import HubProcess

PAYLOAD = '{"orderId": "ORD-1", "customer": "Empresa ABC", "amount": 9007199254740993.10}'


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubProcess]:
    folder = tmp_path_factory.mktemp("hub with a space")
    process = HubProcess(folder)
    asyncio.run(process.start())
    yield process
    assert asyncio.run(process.stop()) == 0


def run(hub: HubProcess, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """Run a `hub` command in another terminal."""
    command = [sys.executable, "-m", "console", *arguments]
    return subprocess.run(
        command, env=hub.environment, input=stdin, capture_output=True, text=True, timeout=60, check=False
    )


def answer(hub: HubProcess, *arguments: str) -> Any:
    """Run a command that must succeed and read the JSON it prints."""
    result = run(hub, *arguments)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def fail_one(hub: HubProcess) -> str:
    """Bring a request to its dead letter; gives its id."""
    fault = {"kind": "status", "status": 400, "times": 1}
    httpx.post(f"{hub.simulator_url}/_sim/faults", json=fault).raise_for_status()
    result = run(hub, "send", "--wait", "--json")
    assert result.returncode == 1, result.stderr
    return str(json.loads(result.stdout)["id"])


def orders_of(hub: HubProcess) -> str:
    """What the simulated systems hold, as text."""
    return httpx.get(f"{hub.simulator_url}/_sim/orders").text


# The hub itself


def test_runs_every_part_under_one_supervisor(hub: HubProcess) -> None:
    assert set(hub.child_pids()) == {"valkey", "simulator", "adapter", "intake", "orchestrator", "gateway"}


def run_as_told(hub: HubProcess, pattern: str) -> str:
    """Run a command that `hub up` has printed in a terminal that knows nothing of this hub."""
    told = re.search(pattern, (hub.folder / "hub.log").read_text())
    assert told is not None
    plain = {name: value for name, value in hub.environment.items() if not name.startswith("HUB_")}
    return subprocess.run(["sh", "-c", told[1]], env=plain, capture_output=True, text=True, check=True).stdout


def test_tells_how_to_get_a_token_in_a_form_that_works(hub: HubProcess) -> None:
    token = run_as_told(hub, r"Bearer \$\((.*)\)")

    headers = {"Authorization": f"Bearer {token.strip()}"}
    assert httpx.get(f"{hub.base_url}/api/integration-requests", headers=headers).status_code == 200


def test_tells_how_to_send_an_order_in_a_form_that_works(hub: HubProcess) -> None:
    sent = run_as_told(hub, r"or: (.* send --wait)")

    assert json.loads(sent)["status"] == "Completed"


def test_tells_where_the_metrics_of_every_service_are(hub: HubProcess) -> None:
    told = re.search(r"Metrics +(.*)", (hub.folder / "hub.log").read_text())

    assert told is not None
    for service in ("gateway", "intake", "orchestrator", "adapter"):
        address = hub.setting(f"{service}_metrics_address")
        assert f"{service} {address}" in told[1]
        assert httpx.get(f"http://{address}/metrics").status_code == 200


def test_points_its_targets_at_its_own_simulator(hub: HubProcess) -> None:
    targets = tomllib.loads((Path(hub.setting("state_dir")) / "targets.toml").read_text())["targets"]

    assert targets["TotvsProtheus"]["base_url"] == hub.simulator_url


def test_keeps_the_state_folder_to_its_owner(hub: HubProcess) -> None:
    assert Path(hub.setting("state_dir")).stat().st_mode & 0o777 == 0o700


def test_refuses_a_second_hub_on_its_folder(hub: HubProcess) -> None:
    result = run(hub, "up")

    assert (result.returncode, result.stdout) == (1, "")
    assert f"Another `hub up` (pid {hub.pid})" in result.stderr


def test_refuses_ports_that_are_taken_before_it_starts_anything(hub: HubProcess, tmp_path: Path) -> None:
    environment = {**hub.environment, "HUB_STATE_DIR": str(tmp_path / "state")}

    command = [sys.executable, "-m", "console", "up"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    assert (result.returncode, result.stdout) == (1, "")
    assert f"{hub.setting('redis_port')} (HUB_REDIS_PORT)" in result.stderr
    assert not (tmp_path / "state" / "logs").exists()


async def test_a_service_that_is_killed_comes_back_and_the_hub_goes_on(hub: HubProcess) -> None:
    before = hub.child_pids()["intake"]

    os.kill(before, signal.SIGKILL)
    await eventually(lambda: hub.child_pids().get("intake", before) != before)
    await eventually(lambda: run(hub, "send", "--wait").returncode == 0, 30)

    assert "intake was ended by SIGKILL (9)" in (hub.folder / "hub.log").read_text()


async def test_leaves_nothing_behind_when_it_is_killed_and_starts_again_at_once(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path)
    await hub.start()
    pids = list(hub.child_pids().values())
    sent = answer(hub, "send", "--wait", "--json")

    await hub.kill()
    await eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 2)
    async with hub:
        assert answer(hub, "get", sent["id"], "--json") == sent


# Requests


def test_sends_the_example_and_waits_for_its_end(hub: HubProcess) -> None:
    sent = answer(hub, "send", "--wait", "--json")

    assert sent["status"] == "Completed"
    assert sent["externalResponse"]["status"] == "Created"


def test_a_payload_reaches_the_target_digit_for_digit(hub: HubProcess) -> None:
    sent = answer(hub, "send", "--payload", PAYLOAD, "--correlation-id", "digits-1", "--wait")

    assert sent["correlationId"] == "digits-1"
    assert "9007199254740993.10" in orders_of(hub)


def test_sends_a_whole_body_from_stdin(hub: HubProcess) -> None:
    body = {"externalId": "F-1", "sourceSystem": "SAP", "targetSystem": "OrdersApi", "payload": {"orderId": "F-1"}}

    result = run(hub, "send", "-", "--partner", "filer", stdin=json.dumps(body))

    assert json.loads(result.stdout)["externalId"] == "F-1"


def test_a_duplicate_is_refused_with_the_existing_id(hub: HubProcess) -> None:
    first = answer(hub, "send", "--external-id", "D-1")

    second = run(hub, "send", "--external-id", "D-1")

    assert (second.returncode, second.stdout) == (1, "")
    assert first["id"] in second.stderr


def test_a_body_the_hub_refuses_is_told_field_by_field(hub: HubProcess) -> None:
    result = run(hub, "send", "-", stdin='{"externalId": "", "extra": 1}')

    assert (result.returncode, len(result.stderr.splitlines())) == (1, 1)
    assert "/externalId" in result.stderr
    assert "/extra" in result.stderr


def test_a_failed_end_is_exit_code_1(hub: HubProcess) -> None:
    result = run(hub, "send", "--payload", '{"no": "order"}', "--wait", "--json")

    assert result.returncode == 1
    assert json.loads(result.stdout)["failureReason"] == "validation_failed"


def test_another_partners_request_is_not_found(hub: HubProcess) -> None:
    sent = answer(hub, "send")

    for what in ([sent["id"]], [sent["id"], "--history"], ["--correlation-id", sent["correlationId"]]):
        result = run(hub, "get", *what, "--partner", "stranger")

        assert (result.returncode, result.stdout) == (1, "")
        assert "There is no integration request" in result.stderr
        assert "asked as the partner stranger, and --partner names another" in result.stderr


def test_shows_the_history_as_a_timeline(hub: HubProcess) -> None:
    sent = answer(hub, "send", "--wait")

    timeline = run(hub, "get", sent["id"], "--history").stdout

    assert "Received > Processing" in timeline
    assert "attempt DELIVERED" in timeline
    assert "WaitingExternal > Completed" in timeline


def test_a_history_for_programs_is_the_rest_contracts(hub: HubProcess) -> None:
    sent = answer(hub, "send", "--wait")

    items = answer(hub, "get", sent["id"], "--history", "--json")["items"]

    assert items[0]["toStatus"] == "Received"
    assert items[-1]["toStatus"] == "Completed"


# Operations


def test_lists_the_targets_with_their_state(hub: HubProcess) -> None:
    items = {item["name"]: item for item in answer(hub, "targets", "--json")["items"]}

    assert items["TotvsProtheus"]["breaker"] == "closed"
    assert items["TotvsProtheus"]["baseUrl"] == hub.simulator_url
    assert "TotvsProtheus  closed" in run(hub, "targets").stdout


def test_a_dead_letter_is_listed_and_shown(hub: HubProcess) -> None:
    request_id = fail_one(hub)

    listed = answer(hub, "dead-letters", "list", "--failure-reason", "external_rejected", "--json")["items"]
    shown = answer(hub, "dead-letters", "show", request_id, "--json")

    assert request_id in [item["requestId"] for item in listed]
    assert (shown["requestId"], shown["state"], shown["payload"]["orderId"]) == (request_id, "open", "ORD-2024-001")
    assert "15000.00" in run(hub, "dead-letters", "show", request_id).stdout


async def test_a_redriven_dead_letter_is_completed_with_its_corrected_payload(hub: HubProcess, tmp_path: Path) -> None:
    request_id = fail_one(hub)
    corrected = tmp_path / "corrected.json"
    corrected.write_text('{"orderId": "CORRECTED-1", "customer": "Empresa ABC", "amount": 1.10}\n')

    dry = answer(hub, "dead-letters", "redrive", request_id, "--dry-run", "--json")["items"]
    result = run(hub, "dead-letters", "redrive", request_id, "--payload", str(corrected), "--reason", "wrong order")
    await eventually(lambda: answer(hub, "get", request_id)["status"] == "Completed", 20)

    assert [item["result"] for item in dry] == ["selected"]
    assert "redriven" in result.stdout
    assert "CORRECTED-1" in orders_of(hub)


def test_discards_by_filter_with_a_reason(hub: HubProcess) -> None:
    request_id = fail_one(hub)

    settled = answer(
        hub, "dead-letters", "discard", "--failure-reason", "external_rejected", "--reason", "test", "--json"
    )["items"]
    shown = answer(hub, "dead-letters", "show", request_id, "--json")

    assert {"discarded"} == {item["result"] for item in settled}
    assert (shown["state"], shown["settledReason"]) == ("discarded", "test")


def test_asks_before_it_settles_anything_on_a_terminal(hub: HubProcess) -> None:
    request_id = fail_one(hub)
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "console", "dead-letters", "redrive", request_id]
    try:
        os.write(ours, b"n\n")
        result = subprocess.run(
            command, env=hub.environment, stdin=theirs, capture_output=True, text=True, timeout=60, check=False
        )
    finally:
        os.close(ours)
        os.close(theirs)

    assert (result.returncode, result.stdout.strip()) == (1, "")
    assert "This will redrive 1 dead letter(s). Go on? [y/N]" in result.stderr
    assert answer(hub, "dead-letters", "show", request_id, "--json")["state"] == "open"


def test_an_unknown_dead_letter_is_exit_code_1(hub: HubProcess) -> None:
    unknown = "00000000-0000-7000-8000-000000000000"

    shown = run(hub, "dead-letters", "show", unknown)
    redriven = run(hub, "dead-letters", "redrive", unknown)

    assert (shown.returncode, redriven.returncode) == (1, 1)
    assert f"There is no dead letter {unknown}" in shown.stderr
    assert "not_found" in redriven.stdout
    assert "no dead letter and no request with one has this id" in redriven.stdout
    assert "1 not found; nothing was changed." in redriven.stderr


def test_what_is_settled_already_is_told_with_who_did_it_and_changes_nothing(hub: HubProcess) -> None:
    request_id = fail_one(hub)
    discarded = run(hub, "dead-letters", "discard", request_id, "--reason", "test")
    again = run(hub, "dead-letters", "redrive", request_id)

    assert (discarded.returncode, again.returncode) == (0, 1)
    assert "1 discarded." in discarded.stderr
    assert f"discarded by {getpass.getuser()} at " in again.stdout
    assert "1 not open; nothing was changed." in again.stderr
    assert answer(hub, "dead-letters", "show", request_id, "--json")["state"] == "discarded"


def test_a_filter_that_fits_nothing_says_so(hub: HubProcess) -> None:
    result = run(hub, "dead-letters", "redrive", "--target", "Nowhere")

    assert (result.returncode, "No open dead letter fits; nothing was changed." in result.stderr) == (1, True)


def test_config_shows_where_everything_is(hub: HubProcess) -> None:
    settings = answer(hub, "config", "--json")["settings"]

    targets = answer(hub, "config", "--json")["targets"]

    assert targets[0]["base_url"] == hub.simulator_url
    assert (settings["HUB_GATEWAY_ADDRESS"]["value"], settings["HUB_GATEWAY_ADDRESS"]["default"]) == (
        hub.setting("gateway_address"),
        False,
    )
