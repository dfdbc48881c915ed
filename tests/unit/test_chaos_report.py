"""A run of `make chaos` passes only when nothing is found in it and it has done all that was planned."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.checker import Breach, Finding
from tests.chaos.faults import Action
from tests.chaos.ledgers import Stored
from tests.chaos.load import Promise
from tests.chaos.report import is_kept, table
from tests.chaos.run import Outcome, Plan
from tests.chaos.targets import TARGETS

PLAN = Plan(on_postgresql=False, seed=1, requests=3, faults=2, rate=50, seconds_limit=60, log_level="warning")


def promise(number: int) -> Promise:
    return Promise(request_id=f"r{number}", external_id=f"e{number}", target=TARGETS[number], is_good=True, at=1.0)


def stored(number: int, status: str = "Completed") -> Stored:
    return Stored(
        request_id=f"r{number}",
        external_id=f"e{number}",
        target=TARGETS[number],
        status=status,
        failure_reason=None if status == "Completed" else "external_unavailable",
        attempts=1,
        cycle=1,
        is_due=False,
        dead_letters=0,
        history=(),
    )


def outcome(**changes: Any) -> Outcome:
    """A run of three requests, one for each target, and two faults, in which all went well."""
    whole = Outcome(
        plan=PLAN,
        folder=Path("nowhere"),
        sent=3,
        promises={f"r{number}": promise(number) for number in range(3)},
        refusals=Counter(),
        answer_seconds=[0.1],
        injected=Counter({Action.KILL: 1, Action.FLUSH: 1}),
        kills=[],
        ended_at={},
        own_ends={},
        stored=[stored(number) for number in range(3)],
        findings=[],
        load_seconds=1.0,
        settle_seconds=1.0,
    )
    return replace(whole, **changes)


def test_a_whole_run_without_findings_is_kept() -> None:
    assert is_kept(outcome())


def test_a_run_with_a_finding_is_not() -> None:
    assert not is_kept(outcome(findings=[Finding(breach=Breach.LOST, about="r1", text="it is gone")]))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"injected": Counter({Action.KILL: 1})}, "1 of 2 faults were injected"),
        ({"sent": 2, "promises": {"r0": promise(0), "r1": promise(1)}}, "2 of 3 requests were sent"),
        ({"promises": {"r0": promise(0)}}, "1 of the 3 requests sent were accepted"),
        ({"stored": [stored(0), stored(1), stored(2, "Failed")]}, f"nothing was completed at {TARGETS[2]}"),
    ],
    ids=["faults", "requests", "promises", "a target"],
)
def test_a_run_that_did_not_do_what_was_planned_is_not_and_says_so(changes: dict[str, Any], told: str) -> None:
    run = outcome(**changes)

    assert not is_kept(run)
    assert f"left undone: {told}" in table(run).splitlines()
