"""The supervisor's rules without processes: pauses, counting, words, the plan's file and the lock."""

import os
from pathlib import Path

import pytest

from console.lock import AlreadyRunning, hold_lock
from console.plan import ChildPlan, Plan, read_plan, write_plan
from console.supervisor import count_failures, describe_end, restart_pause


@pytest.mark.parametrize(
    ("failures", "seconds"),
    [(1, 0.2), (2, 0.4), (3, 0.8), (4, 1.6), (5, 3.2), (6, 6.4), (7, 10.0), (8, 10.0), (5000, 10.0)],
)
def test_the_pause_before_a_restart_doubles_up_to_ten_seconds(failures: int, seconds: float) -> None:
    assert restart_pause(failures) == pytest.approx(seconds)


@pytest.mark.parametrize(("before", "healthy_seconds", "after"), [(0, 0, 1), (1, 29.9, 2), (6, 30, 1), (6, 3600, 1)])
def test_thirty_healthy_seconds_wipe_the_record(before: int, healthy_seconds: float, after: int) -> None:
    assert count_failures(before, healthy_seconds) == after


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (0, "ended with exit code 0"),
        (1, "ended with exit code 1"),
        (-9, "was ended by SIGKILL (9)"),
        (-11, "was ended by SIGSEGV (11)"),
        (-33, "was ended by signal (33)"),
    ],
)
def test_says_how_a_process_ended(status: int, words: str) -> None:
    assert describe_end(status) == words


def test_a_plan_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    child = ChildPlan(
        name="gateway", command=("python", "-m", "gateway"), probe="http://h:1/readyz", grace_seconds=25.5, hidden=True
    )
    plan = Plan(children=(child, child), state_dir="/a b", ready_line="ready", summary="é\n", log_format="auto")

    write_plan(plan, tmp_path / "plan.json")

    assert read_plan(tmp_path / "plan.json") == plan


def test_a_held_lock_names_its_holder(tmp_path: Path) -> None:
    with hold_lock(tmp_path), pytest.raises(AlreadyRunning) as refused, hold_lock(tmp_path):
        pass

    assert refused.value.pid == str(os.getpid())
    assert f"kill {os.getpid()}" in str(refused.value)


def test_a_lock_that_was_let_go_can_be_held_again(tmp_path: Path) -> None:
    with hold_lock(tmp_path):
        pass

    with hold_lock(tmp_path):
        assert (tmp_path / "hub.lock").read_text() == f"{os.getpid()}\n"
