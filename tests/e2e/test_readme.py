"""The README's commands, run as a new user runs them."""

import json
import re
import subprocess
from pathlib import Path

from chassis.testing import eventually
from console.testing import HubProcess

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def curl_commands() -> list[str]:
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    return [block for block in blocks if block.startswith("curl")]


def shown_answers() -> list[str]:
    return [line for line in README.splitlines() if line.startswith(('{"id":', '{"items":'))]


async def test_the_readmes_curl_lines_give_what_the_readme_shows(tmp_path: Path) -> None:
    async with HubProcess(tmp_path) as hub:

        def run(command: str) -> str:
            at_hub = command.replace("http://127.0.0.1:8080", hub.base_url)
            done = subprocess.run(
                ["bash", "-c", at_hub], cwd=ROOT, env=hub.environment, capture_output=True, text=True, check=True
            )
            return done.stdout

        send, read = curl_commands()
        sent = run(send)
        found = await eventually(lambda: _completed(run(read)), 20)

    shown_sent, shown_found = (json.loads(answer) for answer in shown_answers())
    assert "202 Accepted" in sent
    assert re.search(r"^location: /api/integration-requests/[0-9a-f-]{36}$", sent, re.MULTILINE)
    assert list(json.loads(sent.splitlines()[-1])) == list(shown_sent)
    assert _shape(found) == _shape(shown_found)


def _completed(answer: str) -> dict[str, object] | None:
    body: dict[str, object] = json.loads(answer)
    return body if '"status":"Completed"' in answer else None


def _shape(value: object) -> object:
    """The names and kinds of an answer, without what differs from run to run."""
    if isinstance(value, dict):
        return {key: _shape(member) for key, member in value.items()}
    if isinstance(value, list):
        return [_shape(member) for member in value]
    return type(value).__name__
