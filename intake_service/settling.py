"""Operators' decisions on dead letters: what is selected, checked first, then settled one by one.

A selection is frozen before the first change: its ids are read once, and each is settled by compare-and-set, so that
a repetition of an interrupted run goes on where it stopped and nothing is settled twice.

A dead letter to which nothing can be done gets a result of its own, in a dry run too, and holds up no other:

    not_found    nothing has this id
    not_open     it is settled already
    target_gone  a redrive to a target that the hub no longer has
    in_doubt     a new payload for a request that may be in the target with the old one
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from chassis.access import Caller
from chassis.clock import to_rfc3339
from chassis.errors import InvalidRequest, Violation
from chassis.ids import parse_id
from intake_service.commands import Commands
from intake_service.mapping import optional_instant
from intake_service.queries import Queries
from intake_service.store.dead_letters import Selection, Settle
from intake_service.validation import check_filter, check_payload, prose
from integrationhub.intake.v1 import dead_letters_pb2
from integrationhub.intake.v1.dead_letters_pb2 import SettleResult

MAX_IDS = 1000
#: Why one that could have been settled was not.
_DETAILS = {
    "not_open": "somebody else settled it just now",
    "in_doubt": (
        "it may be in the target with the old payload; redrive it without a payload first, "
        "or say that it is certainly absent"
    ),
}


class Settling:
    """Redrives and discards."""

    def __init__(self, commands: Commands, queries: Queries) -> None:
        self._commands = commands
        self._queries = queries

    async def redrive(self, caller: Caller, request: dead_letters_pb2.RedriveDeadLettersRequest) -> list[SettleResult]:
        """Send requests round again. Raises: InvalidRequest, and nothing is changed."""
        selection = _check(request.selection)
        if request.payload_json:
            _check_corrected(request.payload_json, selection)
        if request.certainly_absent:
            _check_absent(request.reason, selection)
        decision = Settle(
            dead_letter_id="",
            state="redriven",
            operator=caller.subject,
            reason=prose(request.reason),
            payload_json=request.payload_json or None,
            certainly_absent=request.certainly_absent,
        )
        return await self._settle(selection, decision, dry_run=request.dry_run)

    async def discard(self, caller: Caller, request: dead_letters_pb2.DiscardDeadLettersRequest) -> list[SettleResult]:
        """Give requests up for good. Raises: InvalidRequest, and nothing is changed."""
        selection = _check(request.selection)
        if not request.reason.strip():
            raise InvalidRequest("Say why.", [Violation(pointer="/reason", detail="is missing")])
        decision = Settle(dead_letter_id="", state="discarded", operator=caller.subject, reason=prose(request.reason))
        return await self._settle(selection, decision, dry_run=request.dry_run)

    async def _settle(self, selection: Selection, decision: Settle, *, dry_run: bool) -> list[SettleResult]:
        """Do to each letter what `decision`, which names none, says."""
        selected = await self._queries.select_dead_letters(selection, with_request=decision.needs_certainty)
        letters = _newest_of_each(selected) if selection.ids else selected
        refusals = [self._refusal(letter, decision) for letter in letters]
        results = _not_found(selection, letters) + [refusal for refusal in refusals if refusal is not None]
        taken = [letter for letter, refusal in zip(letters, refusals, strict=True) if refusal is None]
        if dry_run:
            return results + [_result(letter, "selected") for letter in taken]
        items = [
            replace(
                decision,
                dead_letter_id=letter.id,
                ttl_seconds=self._commands.ttl_seconds(letter.target_system) or 0,
            )
            for letter in taken
        ]
        settled = await self._commands.settle(items) if items else []
        return results + [
            _result(letter, answer.result, _DETAILS.get(answer.result, ""))
            for letter, answer in zip(taken, settled, strict=True)
        ]

    def _refusal(self, letter: sa.Row[Any], decision: Settle) -> SettleResult | None:
        """Why nothing is done to a letter, as far as that is known before; None when it can be settled."""
        if letter.state != "open":
            return _result(
                letter, "not_open", f"{letter.state} by {letter.settled_by} at {to_rfc3339(letter.settled_at)}"
            )
        if decision.state == "redriven" and self._commands.ttl_seconds(letter.target_system) is None:
            detail = f"{letter.target_system} is no longer a target of this hub; add it first"
            return _result(letter, "target_gone", detail)
        if decision.needs_certainty and letter.in_doubt:
            return _result(letter, "in_doubt", _DETAILS["in_doubt"])
        return None


def _check(message: dead_letters_pb2.DeadLetterSelection) -> Selection:
    if message.ids:
        return Selection(ids=tuple(_ids(message.ids)))
    selection = Selection(
        target_system=check_filter(message.target_system, "/selection/targetSystem"),
        reason=check_filter(message.reason, "/selection/reason"),
        partner_id=check_filter(message.partner_id, "/selection/partnerId"),
        state="open",
        created_after=optional_instant(message, "created_after", "/selection/createdAfter"),
        created_before=optional_instant(message, "created_before", "/selection/createdBefore"),
    )
    if selection == Selection(state="open") and not message.all:
        raise InvalidRequest(
            "The selection is empty: name ids or a filter, or confirm that all are meant.",
            [Violation(pointer="/selection", detail="must name ids or a filter, or set all")],
        )
    return selection


def _ids(texts: Sequence[str]) -> list[str]:
    if len(texts) > MAX_IDS:
        raise InvalidRequest(
            f"At most {MAX_IDS} ids at once.", [Violation(pointer="/selection/ids", detail="too many")]
        )
    try:
        return [parse_id(text) for text in texts]
    except ValueError as error:
        raise InvalidRequest(
            "An id is not a UUID; check it.", [Violation(pointer="/selection/ids", detail="must be UUIDs")]
        ) from error


def _check_corrected(payload_json: str, selection: Selection) -> None:
    violations = check_payload(payload_json)
    if len(selection.ids) != 1:
        violations.append(Violation(pointer="/selection/ids", detail="a corrected payload needs exactly one id"))
    if violations:
        raise InvalidRequest("The corrected payload cannot be used.", violations)


def _check_absent(reason: str, selection: Selection) -> None:
    """Nobody has looked for what a filter finds, and somebody has to answer for a post without a question."""
    violations = []
    if not selection.ids:
        violations.append(Violation(pointer="/selection/ids", detail="name the requests that you have looked for"))
    if not reason.strip():
        violations.append(Violation(pointer="/reason", detail="say how you know that they are absent"))
    if violations:
        raise InvalidRequest("What is certainly absent must be named, with a reason.", violations)


def _newest_of_each(letters: Sequence[sa.Row[Any]]) -> list[sa.Row[Any]]:
    """A request's id means its newest dead letter; the list is newest first."""
    newest: dict[str, sa.Row[Any]] = {}
    for letter in letters:
        newest.setdefault(letter.request_id, letter)
    return list(newest.values())


def _not_found(selection: Selection, letters: Sequence[sa.Row[Any]]) -> list[SettleResult]:
    found = {letter.id for letter in letters} | {letter.request_id for letter in letters}
    detail = "no dead letter and no request with one has this id"
    return [SettleResult(id=each, result="not_found", detail=detail) for each in selection.ids if each not in found]


def _result(letter: sa.Row[Any], result: str, detail: str = "") -> SettleResult:
    return SettleResult(id=letter.id, integration_request_id=letter.request_id, result=result, detail=detail)
