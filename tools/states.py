"""Write docs/states.md from the status machine, or check that it says what the code does.

`write` rewrites the page; `check` changes nothing and fails on a difference. The moves and their causes come from
intake_service.integration_request alone; a word of prose about a status or a reason stands here.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "states.md"
sys.path.insert(0, str(ROOT))

from intake_service.integration_request import (  # noqa: E402 - the path comes first, so that no installation is needed
    FIRST_RING_SECONDS,
    LAST_RING_SECONDS,
    LEASE_MARGIN_SECONDS,
    LEASE_SECONDS,
    MAX_CLAIMS,
    SUSPECT_CLAIMS,
    SUSPECT_SECONDS,
    TRANSITIONS,
    WORKER_SILENCE_SECONDS,
    FailureReason,
    Status,
)

STATUSES = {
    Status.RECEIVED: "Durably accepted; no worker has it yet.",
    Status.PROCESSING: "A worker holds its lease and checks it. Nothing has been sent.",
    Status.WAITING_EXTERNAL: "It was, or is about to be, posted; also while a retry or a lookup is pending.",
    Status.COMPLETED: "The external system has it.",
    Status.FAILED: "It ended without success; the failure reason says why. An operator may redrive it.",
}
REASONS = {
    FailureReason.VALIDATION_FAILED: "The payload does not fit the schema of its target and source.",
    FailureReason.EXTERNAL_REJECTED: "The external system said no, and would say so again.",
    FailureReason.EXTERNAL_UNAVAILABLE: "Every retry was spent on a system that was down.",
    FailureReason.TIMEOUT: "The attempt took too long and the order was not found afterwards.",
    FailureReason.OUTCOME_UNKNOWN: "It was sent, and nobody can find out whether it was applied.",
    FailureReason.EXPIRED: "Its time to live was over first.",
    FailureReason.CANCELLED: "The partner cancelled it before it was sent.",
    FailureReason.POISONED: f"It was claimed {MAX_CLAIMS} times and no worker came back with an outcome.",
}

MOVES = """\
Every other move is refused. Each move is compare-and-set and writes its history entry and its event in the same
transaction. A success that comes late, after a redrive for instance, is recorded with the moves between."""


def page() -> str:
    """Give the whole page."""
    parts = [
        "# The states of an integration request",
        "Made by `tools/states.py` from `intake_service/integration_request.py`; a test fails when the two differ.",
        diagram(),
        "## Statuses",
        table(
            ("status", "meaning", "terminal"),
            [(status.value, text, "yes" if status.is_terminal else "") for status, text in STATUSES.items()],
        ),
        "## Moves",
        table(
            ("from", "to", "cause"),
            [(before.value, after.value, cause) for (before, after), cause in TRANSITIONS.items()],
        ),
        MOVES,
        "## Failure reasons",
        table(("reason", "meaning"), [(f"`{reason.value}`", text) for reason, text in REASONS.items()]),
        "## Times",
        table(
            ("what", "seconds"),
            [
                (
                    "A published request that nobody claims is rung again",
                    f"{FIRST_RING_SECONDS}, doubling to {LAST_RING_SECONDS}",
                ),
                ("A worker that has not beaten for this long has lost its leases", str(WORKER_SILENCE_SECONDS)),
                (
                    f"What has lost its worker {SUSPECT_CLAIMS} times goes on alone: one after another",
                    str(SUSPECT_SECONDS),
                ),
                ("A lease ends after a claim", str(LEASE_SECONDS)),
                ("A lease ends after the time-out of an attempt", str(LEASE_MARGIN_SECONDS)),
            ],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def diagram() -> str:
    """Draw the moves as a mermaid state diagram."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {Status.RECEIVED}: accepted, durably"]
    causes = {move: cause.replace(";", ",").replace(":", ",") for move, cause in TRANSITIONS.items()}  # ends a label
    lines += [f"    {before} --> {after}: {cause}" for (before, after), cause in causes.items()]
    lines += [f"    {status} --> [*]" for status in Status if status.is_terminal]
    return "\n".join([*lines, "```"])


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Write a Markdown table."""
    written = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in written)


def main(arguments: list[str]) -> int:
    match arguments:
        case ["write"]:
            PAGE.parent.mkdir(exist_ok=True)
            PAGE.write_text(page(), encoding="utf-8")
            return 0
        case ["check"]:
            if PAGE.exists() and PAGE.read_text(encoding="utf-8") == page():
                return 0
            print("docs/states.md is not what the code says: run `python tools/states.py write`", file=sys.stderr)
            return 1
        case _:
            print("usage: states.py write | check", file=sys.stderr)
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
