"""The integration request: its statuses, the legal moves between them and what each report does to it. Pure.

    Received ──▶ Processing ──▶ WaitingExternal ──▶ Completed
        │            │                 │
        └────────────┴─────────────────┴──▶ Failed ──(redrive)──▶ Received

No clock, no database: every function takes the request as it stands and gives the request as it becomes. The store
reads and writes it; the fence (`lease_token`) is compared here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from itertools import pairwise
from typing import Any, NamedTuple, assert_never

SECOND = 1_000_000

#: An entry that nobody claimed is rung again after 15 s, doubling to 10 min.
FIRST_RING_SECONDS = 15
LAST_RING_SECONDS = 600
#: A worker that has not beaten for this long has lost its leases.
WORKER_SILENCE_SECONDS = 15
#: A lease ends by itself this long after a claim, or after the time-out of an attempt, even if its worker lives.
LEASE_SECONDS = 75
LEASE_MARGIN_SECONDS = 15
#: Claimed this often without an outcome, a request is taken to kill its workers.
MAX_CLAIMS = 5
#: What has lost so many workers may be what kills them; each such goes on so long after another.
SUSPECT_CLAIMS = 2
SUSPECT_SECONDS = 1


class Status(StrEnum):
    """Where a request stands; the partners' words, also in SQL and logs."""

    RECEIVED = "Received"
    PROCESSING = "Processing"
    WAITING_EXTERNAL = "WaitingExternal"
    COMPLETED = "Completed"
    FAILED = "Failed"

    #: The value as a plain string: `value` is a property written in Python, and this is read ten times per request.
    word: str

    def __init__(self, word: str) -> None:
        self.word = word

    __hash__ = str.__hash__  # Enum's is written in Python too

    @property
    def is_terminal(self) -> bool:
        """Whether nothing more happens by itself."""
        return self in (Status.COMPLETED, Status.FAILED)


class FailureReason(StrEnum):
    """Why a request ended Failed."""

    VALIDATION_FAILED = "validation_failed"
    EXTERNAL_REJECTED = "external_rejected"
    EXTERNAL_UNAVAILABLE = "external_unavailable"
    TIMEOUT = "timeout"
    OUTCOME_UNKNOWN = "outcome_unknown"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    POISONED = "poisoned"


#: Every legal move with its cause; docs/states.md is generated from this table.
TRANSITIONS: dict[tuple[Status, Status], str] = {
    (Status.RECEIVED, Status.PROCESSING): "a worker claims it",
    (Status.RECEIVED, Status.FAILED): "cancelled, or expired before any worker had it",
    (Status.PROCESSING, Status.WAITING_EXTERNAL): "about to be posted; committed before the first byte",
    (Status.PROCESSING, Status.FAILED): "invalid, cancelled, expired or poisoned",
    (Status.WAITING_EXTERNAL, Status.COMPLETED): "the external system has it",
    (
        Status.WAITING_EXTERNAL,
        Status.FAILED,
    ): "rejected, retries spent, timed out, not known, expired, cancelled, poisoned",
    (Status.FAILED, Status.RECEIVED): "an operator redrives it: a new cycle",
}

#: Reasons that leave no doubt about whether the external system has the request. A payload that is not valid says
#: nothing of what an earlier cycle has posted.
_REASONS_WITHOUT_DOUBT = (
    FailureReason.EXTERNAL_REJECTED,
    FailureReason.EXTERNAL_UNAVAILABLE,
    FailureReason.CANCELLED,
)


class IllegalTransition(Exception):
    """A move that is not in TRANSITIONS; a bug, never input."""


class Standing(NamedTuple):
    """The part of a request that its flow changes. Instants are microseconds, UTC.

    A named tuple, not a dataclass, since it is read, changed and written three times for each request: a changed
    copy costs a third.
    """

    status: Status
    attempts: int = 0
    retries: int = 0
    lookups: int = 0
    claims: int = 0
    cycle: int = 1
    rings: int = 0
    in_doubt: bool = False
    timed_out: bool = False
    lease_token: int = 0
    #: The token under which the last post was announced: an announcement whose answer was lost comes twice.
    sent_token: int = 0
    leased_by: str | None = None
    sent_at: int | None = None
    due_at: int | None = None
    next_attempt_at: int | None = None
    expires_at: int = 0
    failure_reason: str | None = None
    failure_detail: str | None = None
    external_response_json: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sending:
    """About to post: what must be committed before the first byte is sent."""

    timeout_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """The external system has it."""

    external_response_json: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """It ends without success."""

    reason: FailureReason
    detail: str
    dead_letter: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Another attempt after a wait; certainly not applied, unless a post of unknown outcome keeps it in doubt."""

    delay_seconds: float
    spends_retry: bool
    still_in_doubt: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InDoubt:
    """Not known whether applied: a lookup after a wait."""

    delay_seconds: float
    lookup_made: bool
    timed_out: bool
    #: After a post: how long ago it was really sent; between its announcement and that may lie a pause of ours.
    since_sent_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Handed back because of the hub's own trouble; with `not_sent` the attempt was never made."""

    delay_seconds: float
    not_sent: bool
    #: Of a post before the one that was not sent.
    still_in_doubt: bool = False


Step = Sending | Completed | Failed | Retry | InDoubt | Release


class Claimable(StrEnum):
    """The answer to one claim."""

    GRANTED = "granted"
    NOT_AVAILABLE = "not_available"
    POISONED = "poisoned"


def check_transition(before: Status, after: Status) -> None:
    """Raises: IllegalTransition unless the move is in the table; staying is no move."""
    if before is not after and (before, after) not in TRANSITIONS:
        raise IllegalTransition(f"{before} to {after}")


def claimable(standing: Standing, worker_id: str, now: int) -> Claimable:
    """Say whether a worker may have the lease.

    The worker that holds it already may take it again: its own answer was lost, and it never asks for what it works on.
    Nobody else may before the scheduler has taken the lease, though it is over: it knows when nobody could report.
    """
    if standing.status.is_terminal:
        return Claimable.NOT_AVAILABLE
    is_held = standing.leased_by is not None
    if is_held and standing.leased_by != worker_id:
        return Claimable.NOT_AVAILABLE
    if standing.next_attempt_at is not None and standing.next_attempt_at > now:
        return Claimable.NOT_AVAILABLE
    return Claimable.POISONED if standing.claims >= MAX_CLAIMS and not is_held else Claimable.GRANTED


def claim(standing: Standing, worker_id: str, now: int, sending: Sending | None = None) -> Standing:
    """Give the lease: a new token fences every earlier holder off. With `sending` the post is announced too.

    Whoever holds it already lives, so that its second claim does not speak for a request that kills its workers.
    """
    leased = standing._replace(
        status=Status.PROCESSING if standing.status is Status.RECEIVED else standing.status,
        lease_token=standing.lease_token + 1,
        leased_by=worker_id,
        claims=standing.claims + (standing.leased_by != worker_id),
        rings=0,
        due_at=now + LEASE_SECONDS * SECOND,
        next_attempt_at=None,
    )
    if sending is None or standing.in_doubt or standing.expires_at <= now:
        return leased
    return apply_step(leased, sending, now)


def is_own_doubt(before: Standing, leased: Standing) -> bool:
    """Whether a claim met a doubt of the claimer's own: a post announced with the lease that it still held."""
    return before.in_doubt and before.leased_by == leased.leased_by and before.sent_token == before.lease_token


def poison(standing: Standing) -> Standing:
    """End a request that kills its workers."""
    detail = f"It was claimed {standing.claims} times and no worker came back with an outcome."
    return _end_failed(standing, Failed(reason=FailureReason.POISONED, detail=detail, dead_letter=True))


def is_stale(standing: Standing, token: int, step: Step) -> bool:
    """Whether a report must be refused. A success is true whoever says it, while the request is not terminal."""
    if standing.status.is_terminal:
        return True
    if isinstance(step, Completed):
        return False
    return token != standing.lease_token or standing.leased_by is None


def apply_step(standing: Standing, step: Step, now: int) -> Standing:
    """What a report that is not stale makes of the request."""
    match step:
        case Sending() if standing.sent_token == standing.lease_token:
            return standing
        case Sending():
            return standing._replace(
                status=Status.WAITING_EXTERNAL,
                attempts=standing.attempts + 1,
                in_doubt=True,
                timed_out=False,
                lookups=0,
                sent_at=now,
                sent_token=standing.lease_token,
                due_at=now + round((step.timeout_seconds + LEASE_MARGIN_SECONDS) * SECOND),
            )
        case Completed():
            return _handed_back(
                standing,
                due_at=None,
                status=Status.COMPLETED,
                in_doubt=False,
                external_response_json=step.external_response_json,
                failure_reason=None,
                failure_detail=None,
            )
        case Failed():
            return _end_failed(standing, step)
        case Retry():
            waiting = _handed_back(standing, due_at=_due(standing, step.delay_seconds, now))
            return waiting._replace(
                in_doubt=step.still_in_doubt, timed_out=False, retries=standing.retries + step.spends_retry
            )
        case InDoubt():
            waiting = _handed_back(standing, due_at=_due(standing, step.delay_seconds, now))
            return waiting._replace(
                sent_at=_sent_at(standing, step, now),
                lookups=standing.lookups + step.lookup_made,
                timed_out=standing.timed_out or step.timed_out,
            )
        case Release():
            waiting = _handed_back(standing, due_at=_due(standing, step.delay_seconds, now))
            if not step.not_sent:
                return waiting
            return waiting._replace(
                attempts=max(0, standing.attempts - 1),
                in_doubt=step.still_in_doubt,
                sent_at=standing.sent_at if step.still_in_doubt else None,
                sent_token=0,
            )
        case _:
            assert_never(step)


@cache
def path(before: Status, after: Status) -> Sequence[tuple[Status, Status]]:
    """The legal moves from one status to another, so that a history never has a gap.

    Only two changes are more than one move: a claim that announces its post, and a late success, which may find the
    request in an earlier status, after a redrive for instance.
    """
    if before is after:
        return ()
    announces = before is Status.RECEIVED and after is Status.WAITING_EXTERNAL
    if after is not Status.COMPLETED and not announces:
        check_transition(before, after)
        return ((before, after),)
    order = (Status.RECEIVED, Status.PROCESSING, Status.WAITING_EXTERNAL, Status.COMPLETED)
    steps = order[order.index(before) : order.index(after) + 1]
    return tuple(pairwise(steps))


def expire(standing: Standing) -> Standing:
    """End a request whose time is over and that no worker holds."""
    detail = "It could not be delivered within its time to live."
    return _end_failed(standing, Failed(reason=FailureReason.EXPIRED, detail=detail, dead_letter=True))


def is_cancellable(standing: Standing) -> bool:
    """Whether nothing has been sent, or what was sent is known not to have been applied."""
    return not standing.status.is_terminal and not standing.in_doubt


def cancel(standing: Standing, detail: str) -> Standing:
    """End it as the partner wishes; the token rises, so that a worker that holds it can no longer send it."""
    step = Failed(reason=FailureReason.CANCELLED, detail=detail, dead_letter=False)
    return _end_failed(standing, step)._replace(lease_token=standing.lease_token + 1)


def redrive(standing: Standing, now: int, ttl_seconds: float, *, certainly_absent: bool = False) -> Standing:
    """Start a new cycle. A doubt stays, so that the next worker asks the external system before it posts.

    Unless an operator has looked there and found nothing.
    Raises: IllegalTransition unless it has failed.
    """
    if standing.status is not Status.FAILED:
        raise IllegalTransition(f"{standing.status} to {Status.RECEIVED}")
    return standing._replace(
        status=Status.RECEIVED,
        cycle=standing.cycle + 1,
        retries=0,
        lookups=0,
        claims=0,
        rings=0,
        in_doubt=standing.in_doubt and not certainly_absent,
        timed_out=False,
        lease_token=standing.lease_token + 1,
        leased_by=None,
        due_at=now + FIRST_RING_SECONDS * SECOND,
        next_attempt_at=None,
        expires_at=now + round(ttl_seconds * SECOND),
        failure_reason=None,
        failure_detail=None,
    )


def next_ring(rings: int, now: int, expires_at: int) -> int:
    """When an entry that nobody claims is rung again, but not after its expiry: 15 s, 30 s, 60 s, ... 10 min."""
    seconds = min(FIRST_RING_SECONDS << min(rings, 10), LAST_RING_SECONDS)
    ring_at = now + seconds * SECOND
    return min(ring_at, expires_at) if expires_at > now else ring_at


def _end_failed(standing: Standing, step: Failed) -> Standing:
    return _handed_back(
        standing,
        due_at=None,
        status=Status.FAILED,
        in_doubt=standing.in_doubt and step.reason not in _REASONS_WITHOUT_DOUBT,
        failure_reason=step.reason.value,
        failure_detail=step.detail,
    )


def _handed_back(standing: Standing, *, due_at: int | None, **changes: Any) -> Standing:
    """The lease ends with an outcome, so the claims without one start anew."""
    return standing._replace(leased_by=None, claims=0, rings=0, due_at=due_at, next_attempt_at=due_at, **changes)


def _sent_at(standing: Standing, step: InDoubt, now: int) -> int | None:
    if step.since_sent_seconds is None or standing.sent_at is None:
        return standing.sent_at
    return max(standing.sent_at, now - round(step.since_sent_seconds * SECOND))


def _due(standing: Standing, delay_seconds: float, now: int) -> int:
    due_at = now + round(max(0.0, delay_seconds) * SECOND)
    return min(due_at, standing.expires_at) if standing.expires_at > now else due_at
