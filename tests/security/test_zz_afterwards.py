"""After all the attacks: the same processes, hardly more memory, and a log that an operator can trust."""

import json
import re
from pathlib import Path

import pytest

from chassis.testing import eventually
from console.testing import HubProcess
from tests.security.attack import memory_mb

GROWTH_MB = 50.0
#: What is free is given back three times a minute.
SETTLE_SECONDS = 60.0
#: Control characters: a terminal would obey them.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
SERVICES = ("gateway", "intake", "orchestrator", "adapter")


@pytest.mark.parametrize("service", SERVICES)
async def test_no_process_has_grown_much(before: tuple[dict[str, int], dict[str, float]], service: str) -> None:
    pids, megabytes = before

    await eventually(
        lambda: memory_mb({service: pids[service]}) - megabytes[service] < GROWTH_MB, SETTLE_SECONDS, every=0.5
    )


@pytest.mark.parametrize("service", SERVICES)
def test_no_call_has_failed_for_a_reason_of_ours(hub: HubProcess, service: str) -> None:
    lines = _log_of(hub, service)

    assert lines
    assert [line for line in lines if '"level":"error"' in line or "Traceback" in line] == []


@pytest.mark.parametrize("service", SERVICES)
def test_the_log_is_one_json_object_a_line_without_control_characters(hub: HubProcess, service: str) -> None:
    for line in _log_of(hub, service):
        assert isinstance(json.loads(line), dict)
        assert not CONTROL.search(line)


@pytest.mark.parametrize("service", SERVICES)
def test_the_log_holds_no_token_and_nothing_of_the_attackers(hub: HubProcess, service: str) -> None:
    log = "\n".join(_log_of(hub, service))

    for word in ("eyJ", "Bearer ", "<script>", "DROP TABLE", "onerror", "X-Injected", "Empresa ABC", "/etc/passwd"):
        assert word not in log, word


def test_the_keys_and_the_state_are_closed_to_others(hub: HubProcess) -> None:
    state = Path(hub.setting("state_dir"))
    private = [state, state / "keys", state / "keys" / "private.json", state / "valkey", state / "valkey" / "password"]

    assert {path.name: oct(path.stat().st_mode & 0o077) for path in private} == {path.name: "0o0" for path in private}


def _log_of(hub: HubProcess, service: str) -> list[str]:
    logs = Path(hub.setting("state_dir")) / "logs"
    texts = [path.read_text(encoding="utf-8") for path in sorted(logs.glob(f"{service}*"))]
    return [line for text in texts for line in text.splitlines()]
