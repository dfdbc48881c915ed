"""The supervisor as it runs under `hub up`, on small stand-in children that say what happens to them."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from chassis.testing import eventually, free_port
from console.plan import ChildPlan, Plan, write_plan

STARTER = Path(__file__).parents[2] / "console" / "child.py"

#: Answers its probe, and writes "event name pid" into a diary that the test reads.
STAND_IN = """
import os, signal, socket, subprocess, sys, time
name, port, diary, behaviour = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]

def note(event, pid=os.getpid()):
    with open(diary, "a") as file:
        file.write(f"{event} {name} {pid}\\n")

def stop(*_):
    note("stopped")
    sys.exit(0)

signal.signal(signal.SIGTERM, signal.SIG_IGN if behaviour == "stubborn" else stop)
note("started")
if behaviour == "broken":
    print("no configuration", flush=True)
    sys.exit(3)
if behaviour == "parent":
    note("grandchild", subprocess.Popen(["sleep", "600"]).pid)
if behaviour == "talkative":
    for number in range(20_000):
        print(f"line {number} " + "." * 200)
print("serving", flush=True)
server = socket.create_server(("127.0.0.1", port))
while True:
    connection, _ = server.accept()
    with connection:
        connection.recv(1000)
        connection.sendall(b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
"""


class Hub:
    """A supervisor process over stand-ins."""

    def __init__(self, folder: Path) -> None:
        self.state_dir = folder
        self.diary_file = folder / "diary"
        self.diary_file.touch()
        self._children: list[ChildPlan] = []
        self._processes: list[subprocess.Popen[bytes]] = []

    def add(self, name: str, behaviour: str = "good", *, grace_seconds: float = 10) -> None:
        """Add a child to the plan."""
        port = free_port()
        command = (sys.executable, "-I", "-S", "-c", STAND_IN, name, str(port), str(self.diary_file), behaviour)
        probe = f"http://127.0.0.1:{port}/"
        self._children.append(ChildPlan(name=name, command=command, probe=probe, grace_seconds=grace_seconds))

    def add_unhealthy(self, name: str, *command: str) -> None:
        """Add a child that no probe ever finds healthy."""
        probe = f"http://127.0.0.1:{free_port()}/"
        self._children.append(ChildPlan(name=name, command=command, probe=probe, grace_seconds=10))

    def start(self, *, hidden: bool = False) -> subprocess.Popen[bytes]:
        """Start the supervisor."""
        plan_file = self.state_dir / "plan.json"
        plan = Plan(
            children=tuple(replace(child, hidden=hidden) for child in self._children),
            state_dir=str(self.state_dir),
            ready_line="ready here",
            summary="  This is the summary.\n",
            log_format="auto",
        )
        write_plan(plan, plan_file)
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "console.supervise", str(plan_file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._processes.append(process)
        return process

    async def start_ready(self) -> subprocess.Popen[bytes]:
        """Start the supervisor and wait for its ready line."""
        process = self.start()
        assert process.stdout is not None
        line = await asyncio.wait_for(asyncio.to_thread(process.stdout.readline), 20)
        assert line == b"ready here\n"
        return process

    def diary(self) -> list[tuple[str, str, int]]:
        """What happened: event, name, pid."""
        entries = [line.split() for line in self.diary_file.read_text().splitlines()]
        return [(event, name, int(pid)) for event, name, pid in entries]

    def pids(self, event: str, name: str) -> list[int]:
        """The pids noted with one event of one child."""
        return [pid for noted, child, pid in self.diary() if (noted, child) == (event, name)]

    def log(self, name: str) -> str:
        """What a log file holds."""
        file = self.state_dir / "logs" / f"{name}.log"
        return file.read_text() if file.exists() else ""

    def says(self, text: str, *, times: int) -> Callable[[], bool]:
        """A condition: the supervisor has said `text` so many times."""
        return lambda: self.log("hub").count(text) == times

    def end(self) -> None:
        """Leave nothing behind."""
        for process in self._processes:
            if process.poll() is None:
                process.kill()
            process.communicate()
        for _, _, pid in self.diary():
            if is_alive(pid):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
async def hub(tmp_path: Path) -> AsyncIterator[Hub]:
    hub = Hub(tmp_path)
    yield hub
    hub.end()


async def finish(process: subprocess.Popen[bytes], seconds: float = 20) -> tuple[int, str, str]:
    """Wait for the end: exit code, stdout, stderr."""
    out, err = await asyncio.to_thread(process.communicate, None, seconds)
    return process.returncode, out.decode(), err.decode()


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pids: list[int]) -> Callable[[], bool]:
    return lambda: not any(map(is_alive, pids))


async def test_prints_one_ready_line_on_stdout_and_all_else_on_stderr(hub: Hub) -> None:
    hub.add("alpha")
    hub.add("beta")

    process = await hub.start_ready()
    process.terminate()
    code, out, err = await finish(process)

    assert (code, out) == (0, "")
    assert "alpha | serving" in err
    assert "beta  | serving" in err
    assert "This is the summary." in err


async def test_keeps_the_lines_of_hidden_children_in_their_files(hub: Hub) -> None:
    hub.add("alpha")

    process = hub.start(hidden=True)
    await eventually(lambda: "ready" in hub.log("hub"))
    process.terminate()
    _, _, err = await finish(process)

    assert "serving" not in err
    assert hub.log("alpha") == "serving\n"


async def test_stops_children_one_by_one_in_the_reverse_order_of_the_start(hub: Hub) -> None:
    for name in ("alpha", "beta", "gamma"):
        hub.add(name)

    process = await hub.start_ready()
    process.send_signal(signal.SIGINT)
    code, _, _ = await finish(process)

    assert code == 0
    assert [name for event, name, _ in hub.diary() if event == "stopped"] == ["gamma", "beta", "alpha"]


async def test_starts_a_crashed_child_again_and_says_how_it_ended(hub: Hub) -> None:
    hub.add("alpha")
    process = await hub.start_ready()
    (first,) = hub.pids("started", "alpha")

    os.kill(first, signal.SIGKILL)
    await eventually(lambda: "alpha is back" in hub.log("hub"))

    assert "alpha was ended by SIGKILL (9); it is started again in 0.2 s" in hub.log("hub")
    assert len(hub.pids("started", "alpha")) == 2
    assert process.poll() is None


async def test_waits_twice_as_long_before_the_second_restart(hub: Hub) -> None:
    hub.add("alpha")
    await hub.start_ready()

    for times in (1, 2):
        os.kill(hub.pids("started", "alpha")[-1], signal.SIGKILL)
        await eventually(hub.says("alpha is back", times=times))

    assert "it is started again in 0.4 s" in hub.log("hub")


async def test_ends_what_a_crashed_child_had_started(hub: Hub) -> None:
    hub.add("alpha", "parent")
    await hub.start_ready()
    grandchild = hub.pids("grandchild", "alpha")

    os.kill(hub.pids("started", "alpha")[0], signal.SIGKILL)

    await eventually(gone(grandchild))


async def test_leaves_no_child_when_it_is_killed_itself(hub: Hub) -> None:
    for name in ("alpha", "beta"):
        hub.add(name, "stubborn")
    process = await hub.start_ready()
    pids = [pid for event, _, pid in hub.diary() if event == "started"]
    assert all(map(is_alive, pids))

    process.kill()

    await eventually(gone(pids), 2)


async def test_kills_a_child_that_does_not_keep_its_grace_and_says_so(hub: Hub) -> None:
    hub.add("alpha", "stubborn", grace_seconds=0.3)

    process = await hub.start_ready()
    process.terminate()
    code, _, err = await finish(process)

    assert code == 1
    assert "alpha did not stop within 0.3 s; it is killed" in err


async def test_a_second_signal_ends_everything_at_once(hub: Hub) -> None:
    hub.add("alpha", "stubborn", grace_seconds=60)
    hub.add("beta", "stubborn", grace_seconds=60)
    process = await hub.start_ready()

    process.send_signal(signal.SIGINT)
    await eventually(lambda: "SIGINT: stopping" in hub.log("hub"))
    process.send_signal(signal.SIGINT)
    code, _, _ = await finish(process, 5)

    assert code == 130
    assert gone([pid for _, _, pid in hub.diary()])()


async def test_children_are_out_of_reach_of_the_terminals_interrupt(hub: Hub) -> None:
    hub.add("alpha")
    process = await hub.start_ready()
    (pid,) = hub.pids("started", "alpha")

    assert os.getsid(pid) == pid
    assert os.getpgid(pid) != os.getpgid(process.pid)


async def test_gives_up_on_a_child_that_cannot_start_and_stops_the_others(hub: Hub) -> None:
    hub.add("alpha")
    hub.add("beta", "broken")

    code, out, err = await finish(hub.start())

    assert (code, out) == (1, "")
    assert f"beta cannot start; its log is in {hub.state_dir / 'logs'}" in err
    assert "no configuration" in hub.log("beta")
    assert len(hub.pids("started", "beta")) == 3
    assert hub.pids("stopped", "alpha") == hub.pids("started", "alpha")


async def test_shows_the_last_words_of_a_hidden_child_that_cannot_start(hub: Hub) -> None:
    hub.add("alpha", "broken")

    _, _, err = await finish(hub.start(hidden=True))

    assert "alpha | no configuration" in err


async def test_says_what_cannot_be_run(hub: Hub, tmp_path: Path) -> None:
    hub.add_unhealthy("alpha", str(tmp_path / "absent"))

    code, _, _ = await finish(hub.start())

    assert code == 1
    assert f"{tmp_path / 'absent'} cannot be run: No such file or directory" in hub.log("alpha")


async def test_a_signal_during_the_start_stops_what_has_started(hub: Hub) -> None:
    hub.add("alpha")
    hub.add_unhealthy("beta", "sleep", "600")
    process = hub.start()
    await eventually(lambda: hub.log("alpha") == "serving\n")

    process.terminate()
    code, out, _ = await finish(process)

    assert (code, out) == (0, "")
    assert hub.pids("stopped", "alpha") == hub.pids("started", "alpha")


async def test_a_terminal_that_nobody_reads_stops_no_child(hub: Hub) -> None:
    hub.add("alpha", "talkative")

    await hub.start_ready()  # nobody reads stderr, whose pipe holds 64 KiB

    await eventually(lambda: hub.log("alpha").endswith("serving\n"))


async def test_a_state_folder_has_one_supervisor(hub: Hub) -> None:
    hub.add("alpha")
    first = await hub.start_ready()

    code, out, err = await finish(hub.start())

    assert (code, out) == (1, "")
    assert f"(pid {first.pid})" in err
    assert "HUB_STATE_DIR" in err
    assert first.poll() is None


@pytest.fixture
def start_watched() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Start a command as macOS needs it: under a process that watches the supervisor's pipe."""
    processes = []

    def start(*command: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(STARTER), "watch", str(os.getpid()), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )
        processes.append(process)
        return process

    yield start
    for process in processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


async def test_a_watched_command_ends_when_the_supervisors_pipe_closes(
    start_watched: Callable[..., subprocess.Popen[bytes]],
) -> None:
    process = start_watched("sh", "-c", "echo $$; exec sleep 600")
    assert process.stdin is not None
    assert process.stdout is not None
    pid = int(process.stdout.readline())

    process.stdin.close()

    assert process.wait(5) == -signal.SIGKILL
    await eventually(gone([pid]), 2)


@pytest.mark.parametrize(("command", "status"), [("exit 7", 7), ("kill -KILL $$", -9), ("kill -TERM $$", -15)])
def test_a_watched_command_hands_its_end_on(
    start_watched: Callable[..., subprocess.Popen[bytes]], command: str, status: int
) -> None:
    assert start_watched("sh", "-c", command).wait(5) == status


def test_a_watched_command_is_told_to_stop(start_watched: Callable[..., subprocess.Popen[bytes]]) -> None:
    process = start_watched("sh", "-c", "trap 'exit 5' TERM; echo ready; while :; do sleep 0.05; done")
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"

    process.terminate()

    assert process.wait(5) == 5


def test_a_child_whose_supervisor_has_died_before_it_began_does_not_begin(tmp_path: Path) -> None:
    not_our_pid = "1"

    command = [sys.executable, "-I", "-S", str(STARTER), "deathsig", not_our_pid, "touch", str(tmp_path / "ran")]
    status = subprocess.run(command, check=False).returncode

    assert status == 1
    assert not (tmp_path / "ran").exists()
