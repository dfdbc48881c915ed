"""How a process starts: what prepares it runs in a child, whose failure is the service's and whose memory goes."""

import json
import subprocess
import sys
from pathlib import Path

#: Ends as soon as it is built, and says then whether it holds what `prepare` has loaded.
PROGRAM = """
import asyncio, os, signal, sys
from chassis.errors import StorageUnavailable
from chassis.service import Service, run_service

def prepare(settings):
    import wave
    print("prepared", os.getpid(), flush=True)
    {prepare}

async def build(settings):
    print("built", os.getpid(), "wave" in sys.modules, flush=True)
    asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)
    return Service("test", [])

sys.exit(run_service("test", build, prepare))
"""


def run(tmp_path: Path, prepare: str) -> tuple[int, list[list[str]], list[dict[str, str]]]:
    """Run such a service; gives its exit code, its words and its log."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(prepare=prepare)],
        cwd=tmp_path,
        env={"HUB_LOG_FORMAT": "json"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    words = [line.split() for line in lines if not line.startswith("{")]
    return done.returncode, words, [json.loads(line) for line in lines if line.startswith("{")]


def test_what_the_preparation_loads_is_not_in_the_service(tmp_path: Path) -> None:
    code, (prepared, built), _ = run(tmp_path, "")

    assert code == 0
    assert prepared[1] != built[1]
    assert built[2] == "False"


def test_a_preparation_that_fails_ends_the_start_with_one_line(tmp_path: Path) -> None:
    code, words, (line,) = run(tmp_path, "raise StorageUnavailable('The database is away.')")

    assert (code, len(words)) == (1, 1)
    assert (line["message"], line["detail"]) == ("Service cannot start", "The database is away.")


def test_a_preparation_that_is_killed_ends_the_start_and_says_so(tmp_path: Path) -> None:
    code, words, (line,) = run(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)")

    assert (code, len(words)) == (9, 1)
    assert "ended by signal 9" in line["detail"]


def test_a_service_that_is_told_to_stop_takes_its_preparation_with_it(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(prepare="signal.pause()")],
        cwd=tmp_path,
        env={"HUB_LOG_FORMAT": "json"},
        stdout=subprocess.PIPE,
        text=True,
    ) as service:
        assert service.stdout is not None
        assert service.stdout.readline().startswith("prepared")

        service.terminate()

        assert service.stdout.read() == ""  # its end comes when the child, which holds it too, is gone
        assert service.wait() == -15
