"""The independent checker: compares what was promised, what is on record and what was done. Pure.

It knows the contract, not the code: nothing of the hub is imported here or in ledgers.py.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from tests.chaos.ledgers import Entry, Ledgers, Order, Stored

COMPLETED, FAILED, RECEIVED = "Completed", "Failed", "Received"
TERMINAL = (COMPLETED, FAILED)
#: Every legal move of the contract.
MOVES = {
    (None, RECEIVED),
    (RECEIVED, "Processing"),
    (RECEIVED, FAILED),
    ("Processing", "WaitingExternal"),
    ("Processing", FAILED),
    ("WaitingExternal", COMPLETED),
    ("WaitingExternal", FAILED),
    (FAILED, RECEIVED),
}
INVALID = "validation_failed"
#: Reasons that say: the external system does not have it.
NOT_APPLIED = (INVALID, "external_rejected", "external_unavailable", "timeout", "cancelled")
#: Failures that no operator needs to see.
QUIET = (INVALID, "cancelled")


class Breach(StrEnum):
    """The ways in which the hub can break its promise."""

    LOST = "lost"
    DUPLICATED = "duplicated"
    UNTRUE = "untrue"
    GAP = "history gap"
    LEFT_OVER = "left over"
    ANSWER = "wrong answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One broken promise."""

    breach: Breach
    #: A request, or what is left over.
    about: str
    text: str


def check(ledgers: Ledgers) -> list[Finding]:
    """Find every broken promise; an empty list is the proof."""
    return [
        *_check_promises(ledgers),
        *_check_verdicts(ledgers),
        *_check_uniqueness(ledgers.stored),
        *_check_orders(ledgers),
        *(finding for stored in ledgers.stored for finding in _check_history(stored)),
        *(
            Finding(breach=Breach.LEFT_OVER, about=name, text=f"{count} entries remain")
            for name, count in ledgers.left_over.items()
        ),
    ]


def _check_promises(ledgers: Ledgers) -> Iterator[Finding]:
    """Every promise is on record and has ended; nothing is on record that was not promised."""
    by_id = {stored.request_id: stored for stored in ledgers.stored}
    for promise in ledgers.promises:
        stored = by_id.pop(promise.request_id, None)
        if stored is None:
            yield Finding(breach=Breach.LOST, about=promise.request_id, text="it was accepted and is not on record")
        elif (stored.external_id, stored.target) != (promise.external_id, promise.target):
            yield Finding(breach=Breach.LOST, about=promise.request_id, text="another order is on record under its id")
        elif stored.status not in TERMINAL:
            due = "" if stored.is_due else ", and nobody will look at it again"
            yield Finding(breach=Breach.LOST, about=promise.request_id, text=f"it is still {stored.status}{due}")
    for request_id in by_id:
        yield Finding(breach=Breach.UNTRUE, about=request_id, text="it is on record and nobody was told")


def _check_verdicts(ledgers: Ledgers) -> Iterator[Finding]:
    """Called invalid is what does not fit its schema and nothing else, and the external system never gets it."""
    good = {promise.request_id: promise.is_good for promise in ledgers.promises}
    for stored in ledgers.stored:
        is_good = good.get(stored.request_id)
        if is_good is True and stored.failure_reason == INVALID:
            text = f"its payload is good and it Failed as {INVALID}"
            yield Finding(breach=Breach.UNTRUE, about=stored.request_id, text=text)
        if is_good is False and stored.status == COMPLETED:
            text = "its payload does not fit its schema and it is Completed"
            yield Finding(breach=Breach.UNTRUE, about=stored.request_id, text=text)


def _check_uniqueness(requests: Sequence[Stored]) -> Iterator[Finding]:
    """One request for each order of the partner."""
    for external_id, count in Counter(stored.external_id for stored in requests).items():
        if count > 1:
            yield Finding(breach=Breach.DUPLICATED, about=external_id, text=f"{count} requests have this external id")


def _check_orders(ledgers: Ledgers) -> Iterator[Finding]:
    """Completed means one order, Failed at most one, and none where the reason says so."""
    by_request: dict[str, list[Order]] = defaultdict(list)
    for order in ledgers.orders:
        by_request[order.request_id].append(order)
    for stored in ledgers.stored:
        orders = by_request.pop(stored.request_id, [])
        about = stored.request_id
        if len(orders) > 1:
            yield Finding(breach=Breach.DUPLICATED, about=about, text=f"the external system has {len(orders)} orders")
        if stored.status == COMPLETED and not orders:
            yield Finding(breach=Breach.LOST, about=about, text="it is Completed and the external system has no order")
        if stored.status == FAILED and stored.failure_reason in NOT_APPLIED and orders:
            text = f"it Failed as {stored.failure_reason} and the external system has its order"
            yield Finding(breach=Breach.UNTRUE, about=about, text=text)
        for order in orders:
            if (order.target, order.external_id) != (stored.target, stored.external_id):
                yield Finding(breach=Breach.UNTRUE, about=about, text=f"its order is another one, at {order.target}")
    for request_id, orders in by_request.items():
        text = f"the external system has {len(orders)} orders that nobody sent"
        yield Finding(breach=Breach.UNTRUE, about=request_id, text=text)


def _check_history(stored: Stored) -> Iterator[Finding]:
    """The story is whole: every move follows from the one before, and every attempt is accounted for."""
    for text in (*_broken_moves(stored), *_missing_attempts(stored), *_wrong_ends(stored)):
        yield Finding(breach=Breach.GAP, about=stored.request_id, text=text)


def _broken_moves(stored: Stored) -> Iterator[str]:
    status: str | None = None
    for entry in stored.history:
        if entry.from_status != status:
            yield f"{entry.kind} begins in {entry.from_status}, after {status}"
        if entry.kind == "transition" and (entry.from_status, entry.to_status) not in MOVES:
            yield f"no rule allows {entry.from_status} to {entry.to_status}"
        if entry.kind != "transition" and entry.from_status != entry.to_status:
            yield f"{entry.kind} changes the status from {entry.from_status} to {entry.to_status}"
        status = entry.to_status
    if status != stored.status:
        yield f"the history ends with {status}, the request is {stored.status}"


def _missing_attempts(stored: Stored) -> Iterator[str]:
    """An attempt is recorded with what came of it, or with the loss of the lease under which it was made."""
    accounted = {entry.attempt for entry in stored.history if _accounts_for_attempt(entry)}
    for number in range(1, stored.attempts + 1):
        if number not in accounted:
            yield f"attempt {number} of {stored.attempts} is not on record"
    for number in sorted(accounted):
        if number > stored.attempts:
            yield f"attempt {number} is on record, and only {stored.attempts} are counted"


def _accounts_for_attempt(entry: Entry) -> bool:
    return entry.kind == "attempt" or (entry.outcome == "lease_lost" and entry.attempt > 0)


def _wrong_ends(stored: Stored) -> Iterator[str]:
    ends = [entry for entry in stored.history if entry.kind == "transition" and entry.to_status in TERMINAL]
    if stored.status in TERMINAL and len(ends) != stored.cycle:
        yield f"it ended {len(ends)} times in {stored.cycle} cycles"
    if stored.status in TERMINAL and stored.is_due:
        yield f"it is {stored.status} and still due"
    wants_operator = stored.status == FAILED and stored.failure_reason not in QUIET
    if stored.dead_letters != (1 if wants_operator else 0) and stored.cycle == 1:
        yield f"it is {stored.status} ({stored.failure_reason}) with {stored.dead_letters} dead letters"
