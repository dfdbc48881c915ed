"""`hub dead-letters`: list, show, redrive and discard what ended Failed, over gRPC (console.dead_letters)."""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from console.history import HEADERS, history_rows
from console.requests_commands import check_payload
from console.tables import clean, print_table, print_text_json

if TYPE_CHECKING:
    from console.dead_letters import DeadLetterClient, Selection, Settled

NOT_ALL_DONE = 1
SELECTED = "selected"
#: The two results of those to which something was done; whatever else intake says, nothing was.
DONE = ("redriven", "discarded")

LIST_EXAMPLES = """\b
Examples:
  hub dead-letters list
  hub dead-letters list --target TotvsProtheus --failure-reason external_unavailable
  hub dead-letters list --state all --json | jq '.items[].requestId'
"""
SHOW_EXAMPLES = """\b
Examples:
  hub dead-letters show 3fa85f64-5717-4562-b3fc-2c963f66afa6
"""
REDRIVE_EXAMPLES = """\b
Examples:
  hub dead-letters redrive 3fa85f64-5717-4562-b3fc-2c963f66afa6
  hub dead-letters redrive --target TotvsProtheus --failure-reason external_unavailable --dry-run
  hub dead-letters redrive --all --reason "Protheus is back" --yes
  hub dead-letters redrive 3fa85f64-5717-4562-b3fc-2c963f66afa6 --payload corrected.json
  hub dead-letters redrive 3fa85f64-5717-4562-b3fc-2c963f66afa6 --certainly-absent --reason "not in SC5, asked Ana"
"""
DISCARD_EXAMPLES = """\b
Examples:
  hub dead-letters discard 3fa85f64-5717-4562-b3fc-2c963f66afa6 --reason "the customer cancelled the order"
  hub dead-letters discard --failure-reason expired --reason "older than the fiscal year" --yes
"""


class State(StrEnum):
    """What an operator did with a dead letter."""

    OPEN = "open"
    REDRIVEN = "redriven"
    DISCARDED = "discarded"
    ALL = "all"


app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Ids of dead letters or of their requests.")]
Target = Annotated[str, typer.Option(metavar="NAME", help="Only this target.")]
FailureReason = Annotated[
    str, typer.Option("--failure-reason", metavar="WORD", help="Only what failed so, such as external_unavailable.")
]
Partner = Annotated[str, typer.Option(metavar="NAME", help="Only this partner.")]
All = Annotated[bool, typer.Option("--all", help="Every open dead letter.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done; change nothing.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list", epilog=LIST_EXAMPLES)
def list_dead_letters(
    *,
    target: Target = "",
    failure_reason: FailureReason = "",
    partner: Partner = "",
    state: Annotated[State, typer.Option(help="Only these.")] = State.OPEN,
    limit: Annotated[int, typer.Option(min=1, help="How many at most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List dead letters, newest first."""
    with _client() as client:
        found, more = client.list_newest(
            target=target, failure_reason=failure_reason, partner=partner, state=state.value, limit=limit
        )
    if as_json:
        typer.echo(json.dumps({"items": [item.to_json() for item in found], "more": more}))
        return
    print_table(
        ("REQUEST", "AT", "TARGET", "PARTNER", "EXTERNAL ID", "REASON", "ATTEMPTS", "STATE", "DETAIL"),
        [item.row() for item in found],
    )
    if not found:
        typer.echo("There are none.", err=True)
    if more:
        typer.echo(f"There are more; --limit {limit * 2} shows them.", err=True)


@app.command(epilog=SHOW_EXAMPLES)
def show(
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="Id of a dead letter or of its request.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter with its payload and everything that happened to the request."""
    with _client() as client:
        letter, history = client.get(letter_id)
    if as_json:
        document = json.dumps({**letter.to_json(), "history": [event.to_json() for event in history]})
        # The payload goes in as text: a number read and written again may lose a digit.
        print_text_json(f'{document[:-1]}, "payload": {letter.payload_json or "null"}}}')
        return
    for name, value in letter.to_json().items():
        typer.echo(f"{name:<16} {clean(str(value))}")
    typer.echo(f"{'payload':<16} {clean(letter.payload_json)}\n")
    print_table(HEADERS, history_rows(history))


@app.command(epilog=REDRIVE_EXAMPLES)
def redrive(
    ids: Ids = None,
    *,
    target: Target = "",
    failure_reason: FailureReason = "",
    partner: Partner = "",
    every: All = False,
    payload: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A corrected payload, for exactly one ID that is not in the target with the old one."
        ),
    ] = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; the history keeps it.")] = "",
    certainly_absent: Annotated[
        bool,
        typer.Option(
            "--certainly-absent",
            help="You have looked: the external system does not hold these IDs. They are posted without a lookup.",
        ),
    ] = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Send failed requests round again, each under its own id."""
    selection = _select(ids, target=target, failure_reason=failure_reason, partner=partner, every=every)
    payload_json = ""
    if payload is not None:
        if len(selection.ids) != 1:
            raise typer.BadParameter("--payload corrects exactly one request; name one ID")
        payload_json = _read_payload(payload)
    if certainly_absent and not (selection.ids and reason.strip()):
        raise typer.BadParameter("--certainly-absent needs the IDs that you have looked for, and a --reason")
    with _client() as client:

        def settle(wanted: "Selection", *, dry_run: bool) -> "list[Settled]":
            return client.redrive(
                wanted,
                dry_run=dry_run,
                reason=reason,
                payload_json=payload_json,
                certainly_absent=certainly_absent,
            )

        _settle(settle, selection, "redrive", dry_run=dry_run, yes=yes, as_json=as_json)


@app.command(epilog=DISCARD_EXAMPLES)
def discard(
    ids: Ids = None,
    *,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; required, the history keeps it.")],
    target: Target = "",
    failure_reason: FailureReason = "",
    partner: Partner = "",
    every: All = False,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Give dead letters up for good."""
    selection = _select(ids, target=target, failure_reason=failure_reason, partner=partner, every=every)
    if not reason.strip():
        raise typer.BadParameter("--reason must say why")
    with _client() as client:

        def settle(wanted: "Selection", *, dry_run: bool) -> "list[Settled]":
            return client.discard(wanted, dry_run=dry_run, reason=reason)

        _settle(settle, selection, "discard", dry_run=dry_run, yes=yes, as_json=as_json)


def _select(ids: list[str] | None, *, target: str, failure_reason: str, partner: str, every: bool) -> "Selection":
    """Read which ones are meant; nothing at all is never taken for everything."""
    filtered = bool(target or failure_reason or partner)
    if ids and (filtered or every):
        raise typer.BadParameter("give IDs, or a filter, or --all; not IDs and the others together")
    if not ids and not filtered and not every:
        raise typer.BadParameter(
            "nothing is selected; give IDs, or --target, --failure-reason or --partner, or --all for every open one"
        )
    from console.dead_letters import Selection

    return Selection(ids=tuple(ids or ()), target=target, failure_reason=failure_reason, partner=partner, every=every)


def _settle(
    settle: "Callable[..., list[Settled]]",
    selection: "Selection",
    verb: str,
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Ask where somebody is there to answer, do it, and print what became of each.

    A yes is for those that were counted: they are settled by their ids, and what died since is left alone.
    """
    is_asked = not dry_run and not yes and sys.stdin.isatty()
    settled = settle(selection, dry_run=dry_run or is_asked)
    counted = [item.id for item in settled if item.result == SELECTED]
    if is_asked and counted:
        typer.confirm(f"This will {verb} {len(counted)} dead letter(s). Go on?", abort=True, err=True)
        settled = [item for item in settled if item.result != SELECTED]
        for lot in _lots(counted):
            settled += settle(lot, dry_run=False)
    if as_json:
        typer.echo(json.dumps({"items": [item.to_json() for item in settled]}))
    else:
        print_table(
            ("ID", "REQUEST", "RESULT", "DETAIL"),
            [(item.id, item.request_id, item.result, item.detail) for item in settled],
        )
    typer.echo(_sum_up(settled), err=True)
    if not settled or any(item.result not in (*DONE, SELECTED) for item in settled):
        raise typer.Exit(NOT_ALL_DONE)


def _lots(ids: Sequence[str]) -> "Iterator[Selection]":
    """Name the ids in as many selections as intake takes them in."""
    from console.dead_letters import MAX_IDS, Selection

    for start in range(0, len(ids), MAX_IDS):
        yield Selection(ids=tuple(ids[start : start + MAX_IDS]))


def _sum_up(settled: "list[Settled]") -> str:
    """Say in one line how many came to what."""
    if not settled:
        return "No open dead letter fits; nothing was changed."
    counts = Counter(item.result for item in settled)
    counted = ", ".join(f"{count} {result.replace('_', ' ')}" for result, count in sorted(counts.items()))
    return f"{counted}." if any(result in DONE for result in counts) else f"{counted}; nothing was changed."


def _read_payload(path: Path) -> str:
    try:
        return check_payload(path.read_text().strip())
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{path} cannot be read: {error}") from error


def _client() -> "DeadLetterClient":
    from console.configuration import read_settings
    from console.dead_letters import DeadLetterClient

    return DeadLetterClient(read_settings())
