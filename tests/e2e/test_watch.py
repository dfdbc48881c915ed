"""Seeing what goes on without Prometheus: `hub up --watch` and `hub get --correlation-id`."""

import asyncio
import json
import signal
import sys
from pathlib import Path

from chassis.testing import eventually
from console.testing import HubProcess


async def run(hub: HubProcess, *arguments: str) -> tuple[int, str, str]:
    """Run a `hub` command in another terminal."""
    command = [sys.executable, "-m", "console", *arguments]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, env=hub.environment, stdout=pipe, stderr=pipe)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, out.decode(), err.decode()


async def test_the_live_table_shows_the_flow_and_ends_with_the_hub(tmp_path: Path) -> None:
    hub = HubProcess(tmp_path)
    said = tmp_path / "terminal"
    with said.open("wb") as terminal:
        command = [sys.executable, "-m", "console", "up", "--watch"]
        process = await asyncio.create_subprocess_exec(
            *command, env=hub.environment, stdout=asyncio.subprocess.DEVNULL, stderr=terminal
        )
    try:
        await eventually(lambda: "TotvsProtheus  closed" in said.read_text(), 60, every=0.1)
        code, out, _ = await run(hub, "send", "--wait", "--json", "--correlation-id", "watched")
        assert (code, json.loads(out)["status"]) == (0, "Completed")
        await eventually(lambda: "API to 202       0." in said.read_text(), 20, every=0.2)
        watchers = [pid for pid in _children(process.pid) if b"console.watch" in _command(pid)]
    finally:
        process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(process.wait(), 60)

    text = said.read_text()
    assert code == 0
    assert len(watchers) == 1
    assert not _is_there(watchers[0])
    assert "SERVICE  gateway  intake  orchestrator  adapter" in text
    assert "Integration request received" not in text


async def test_finds_the_story_of_a_correlation_id(tmp_path: Path) -> None:
    async with HubProcess(tmp_path) as hub:
        ids = []
        for _ in range(2):
            _, out, _ = await run(hub, "send", "--wait", "--json", "--correlation-id", "order-7")
            ids.append(json.loads(out)["id"])

        _, found, _ = await run(hub, "get", "--correlation-id", "order-7", "--json")
        _, story, _ = await run(hub, "get", "--correlation-id", "order-7", "--history")
        unknown = await run(hub, "get", "--correlation-id", "order-8")
        neither = await run(hub, "get")

    assert {json.loads(line)["id"] for line in found.splitlines()} == set(ids)
    assert all(request_id in story for request_id in ids)
    assert story.count("WaitingExternal > Completed") == 2
    assert unknown[0] == 1
    assert "order-8" in unknown[2]
    assert neither[0] == 2


def _children(pid: int) -> list[int]:
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()
