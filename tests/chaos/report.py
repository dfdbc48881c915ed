"""The table that a run prints, and whether it is a pass."""

from collections import Counter
from collections.abc import Iterator, Sequence

from tests.chaos.checker import COMPLETED, Breach, Finding
from tests.chaos.recovery import Kill, quantile, recovery_seconds
from tests.chaos.run import Outcome
from tests.chaos.targets import HONOURS_KEY, MUST_BE_ASKED, PLAIN_JSON, TARGETS

#: DESIGN: on a target that honours the key, after a SIGKILL.
GOAL_SECONDS = 20.0
SHOWN = 20
WIDTH = 38
GROUPS = {"honours the key": (HONOURS_KEY,), "must be asked": (MUST_BE_ASKED, PLAIN_JSON)}


def is_kept(outcome: Outcome) -> bool:
    """Whether every promise was kept, in a run that did all it was to do."""
    return not outcome.findings and not list(_left_undone(outcome))


def meets_goal(outcome: Outcome) -> bool:
    """Whether a lone SIGKILL delayed what was open by no more than the goal."""
    p99 = quantile(_recovery(outcome, [kill for kill in outcome.kills if kill.alone], (HONOURS_KEY,)), 0.99)
    return p99 is None or p99 <= GOAL_SECONDS


def table(outcome: Outcome) -> str:
    """Write the result of a run."""
    plan = outcome.plan
    spans = f"{plan.rate:g}/s for {outcome.load_seconds:.0f} s, settled in {outcome.settle_seconds:.0f} s"
    lines = [
        f"{plan.database}, seed {plan.seed}: {spans}",
        *(f"{name:<{WIDTH}}{value:>12}" for name, value in _rows(outcome)),
        *(f"left undone: {text}" for text in _left_undone(outcome)),
        *_findings(outcome.findings),
    ]
    return "\n".join(lines)


def _left_undone(outcome: Outcome) -> Iterator[str]:
    """What the run was to do and has not done: it proves nothing of that."""
    plan = outcome.plan
    if outcome.injected.total() != plan.faults:
        yield f"{outcome.injected.total()} of {plan.faults} faults were injected"
    if outcome.sent < plan.requests:
        yield f"{outcome.sent} of {plan.requests} requests were sent"
    if len(outcome.promises) != outcome.sent:
        yield f"{len(outcome.promises)} of the {outcome.sent} requests sent were accepted"
    served = {stored.target for stored in outcome.stored if stored.status == COMPLETED}
    for target in TARGETS:
        if target not in served:
            yield f"nothing was completed at {target}"


def _rows(outcome: Outcome) -> Iterator[tuple[str, str]]:
    ends = Counter((stored.status, stored.failure_reason) for stored in outcome.stored)
    broken = Counter(finding.breach for finding in outcome.findings)
    yield "requests sent", str(outcome.sent)
    yield "accepted", str(len(outcome.promises))
    yield "accept p50 / p99", _pair(outcome.answer_seconds)
    for code, count in sorted(outcome.refusals.items()):
        yield f"  refused with {code}, repeated" if code else "  no answer, repeated", str(count)
    yield "faults", str(outcome.injected.total())
    for action, count in sorted(outcome.injected.items()):
        yield f"  {action}", str(count)
    yield "processes that ended by themselves", str(sum(map(len, outcome.own_ends.values())))
    yield "completed", str(ends[COMPLETED, None])
    for (status, reason), count in sorted(ends.items(), key=str):
        if status != COMPLETED:
            yield f"  {status} {reason or ''}", str(count)
    for breach in Breach:
        yield breach, str(broken[breach])
    yield from _recoveries(outcome)


def _recoveries(outcome: Outcome) -> Iterator[tuple[str, str]]:
    alone = [kill for kill in outcome.kills if kill.alone]
    yield "recovery p50 / p99 after a lone SIGKILL", f"{len(alone)} kills"
    for name, targets in GROUPS.items():
        yield f"  {name}", _pair(_recovery(outcome, alone, targets))
    yield "recovery p50 / p99, other faults too", f"{len(outcome.kills)} kills"
    for name, targets in GROUPS.items():
        yield f"  {name}", _pair(_recovery(outcome, outcome.kills, targets))


def _recovery(outcome: Outcome, kills: Sequence[Kill], targets: Sequence[str]) -> list[float]:
    return recovery_seconds(kills, outcome.promises, outcome.ended_at, targets)


def _pair(ascending: Sequence[float]) -> str:
    middle, high = quantile(ascending, 0.5), quantile(ascending, 0.99)
    return "none open" if middle is None or high is None else f"{middle:.2f} / {high:.2f} s"


def _findings(findings: Sequence[Finding]) -> Iterator[str]:
    for finding in findings[:SHOWN]:
        yield f"{finding.breach}: {finding.about}: {finding.text}"
    if len(findings) > SHOWN:
        yield f"... and {len(findings) - SHOWN} more"
