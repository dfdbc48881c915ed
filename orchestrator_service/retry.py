"""What follows from what was heard: the whole decision table. Pure; values in, a decision out.

The only time is the database's: `claimed_at` is its now, microseconds as everywhere. An outcome that is not known
is never taken for a failure, nor for a success.

    post ──▶ DELIVERED ───────────────▶ Completed
         ──▶ REJECTED ────────────────▶ Failed external_rejected
         ──▶ UNAVAILABLE, THROTTLED ──▶ Retry by the profile; then Failed external_unavailable
         ──▶ our credentials refused ─▶ Release, as if it had not been sent; a lookup, as if it had not been made
         ──▶ UNKNOWN ── honours the key ▶ Retry at once with the same key, still in doubt
                     └─ otherwise ────▶ InDoubt: look it up at +2, +5, +15, +30 s and, if that is later, at the
                                        conclusive moment; found ─▶ Completed, absent to the last ─▶ as if not applied

What is heard of one post says nothing of an earlier one whose outcome is unknown: while there is one, refusals are
retried and in the end looked up, never taken for the end. Where the key is honoured too: a refusal may be that of a
proxy before the system, or come while the first post still runs, or say that the key is known with another payload.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple, assert_never

SECOND = 1_000_000
JITTER = 0.2
RETRY_AFTER_CEILING_SECONDS = 3600.0
#: When an attempt of unknown outcome is looked up, in seconds after that became known.
LOOKUP_LADDER_SECONDS = (2.0, 5.0, 15.0, 30.0)
#: A slow system may still commit after the attempt's time-out; not before this much more is "absent" a proof.
CONCLUSIVE_MARGIN_SECONDS = 5.0


class Outcome(StrEnum):
    """What came of one attempt."""

    DELIVERED = "DELIVERED"
    REJECTED = "REJECTED"
    UNAVAILABLE = "UNAVAILABLE"
    THROTTLED = "THROTTLED"
    UNKNOWN = "UNKNOWN"


class LookupOutcome(StrEnum):
    """What came of one lookup."""

    FOUND = "FOUND"
    ABSENT = "ABSENT"
    NOT_KNOWN = "NOT_KNOWN"
    UNSUPPORTED = "UNSUPPORTED"


class FailureReason(StrEnum):
    """The reasons for Failed that are decided here."""

    VALIDATION_FAILED = "validation_failed"
    EXTERNAL_REJECTED = "external_rejected"
    EXTERNAL_UNAVAILABLE = "external_unavailable"
    TIMEOUT = "timeout"
    OUTCOME_UNKNOWN = "outcome_unknown"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How the targets file wants a target treated."""

    #: Seconds before the second, third, ... attempt; their number is the budget of retries.
    retry_delays: tuple[float, ...]
    #: It honours the key, so a post of unknown outcome may be repeated with the same one.
    idempotent: bool
    #: What to do with an attempt that ran into its time-out and was not applied.
    retries_timeouts: bool
    timeout_seconds: float


class Progress(NamedTuple):
    """How far a request has come, as its lease says. Instants are microseconds of the database's clock."""

    retries: int
    lookups: int
    #: Whether a post before the one to be decided about may have been applied.
    in_doubt: bool
    timed_out: bool
    sent_at: int
    claimed_at: int
    expires_at: int

    @property
    def has_expired(self) -> bool:
        """Whether its time to live is over."""
        return self.claimed_at >= self.expires_at


class Attempt(NamedTuple):
    """One post and what was heard of it."""

    outcome: Outcome
    code: str = ""
    detail: str = ""
    response_json: str = ""
    retry_after_seconds: float = 0.0
    timed_out: bool = False
    #: The system does not take the hub's own credentials, or the hub not its certificate: no fault of the request.
    credentials_refused: bool = False
    #: From its first byte to what was heard; 0 where nobody could say when it began.
    seconds: float = 0.0

    @property
    def said(self) -> str:
        """The system's words, for people."""
        return f"{self.code}: {self.detail}" if self.code and self.detail else self.code or self.detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """One question after a request and what was heard."""

    outcome: LookupOutcome
    detail: str = ""
    response_json: str = ""
    retry_after_seconds: float = 0.0
    #: As in Attempt: the system was not asked.
    credentials_refused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """The external system has it."""

    external_response_json: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """It ends without success; with `dead_letter` an operator must see it."""

    reason: FailureReason
    detail: str
    dead_letter: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """Another attempt after a wait; it counts against the profile."""

    delay_seconds: float
    still_in_doubt: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class InDoubt:
    """Another lookup after a wait; `lookup_made` spends a rung of the ladder."""

    delay_seconds: float
    lookup_made: bool
    timed_out: bool
    #: After a post: how long ago it was sent. The conclusive moment counts from there.
    since_sent_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Back to the queue because of the hub's own trouble: nothing is spent. `not_sent` takes the attempt back."""

    delay_seconds: float
    not_sent: bool = False
    still_in_doubt: bool = False


Decision = Completed | Failed | Retry | InDoubt | Release


def after_attempt(attempt: Attempt, progress: Progress, policy: Policy, *, chance: float) -> Decision:
    """Decide what follows from a post; `chance` in [0, 1) sets the jitter."""
    match attempt.outcome:
        case Outcome.DELIVERED:
            return Completed(external_response_json=attempt.response_json)
        case Outcome.REJECTED if not progress.in_doubt:
            return Failed(reason=FailureReason.EXTERNAL_REJECTED, detail=attempt.said)
        case Outcome.UNAVAILABLE if attempt.credentials_refused:
            delay = _pause_of_refused_credentials(attempt)
            return Release(delay_seconds=delay, not_sent=True, still_in_doubt=progress.in_doubt)
        case Outcome.REJECTED | Outcome.UNAVAILABLE | Outcome.THROTTLED:
            return _retry_later(attempt, progress, policy, chance)
        case Outcome.UNKNOWN:
            return _after_unknown(attempt, progress, policy, chance)
        case _:
            assert_never(attempt.outcome)


def may_post_again(progress: Progress, policy: Policy) -> bool:
    """Whether a request in doubt may be posted without asking first: the target honours the key.

    Not after a time-out, which the seed (4.2) ends or retries by configuration, and not when the retries are spent:
    then asking is the last resort.
    """
    return policy.idempotent and not progress.timed_out and progress.retries < len(policy.retry_delays)


def after_lookup(lookup: Lookup, progress: Progress, policy: Policy) -> Decision:
    """Decide what follows from asking the target for a request in doubt."""
    if lookup.outcome is LookupOutcome.FOUND:
        return Completed(external_response_json=lookup.response_json)
    if progress.has_expired:
        return expired()
    match lookup.outcome:
        case LookupOutcome.UNSUPPORTED:
            return _cannot_be_asked(progress, policy)
        case LookupOutcome.NOT_KNOWN if lookup.credentials_refused:
            delay = _pause_of_refused_credentials(lookup)
            return InDoubt(delay_seconds=delay, lookup_made=False, timed_out=progress.timed_out)
        case LookupOutcome.ABSENT | LookupOutcome.NOT_KNOWN if not _is_last_lookup(progress, policy):
            delay = _seconds_to_next_lookup(progress, policy)
            return InDoubt(delay_seconds=delay, lookup_made=True, timed_out=progress.timed_out)
        case LookupOutcome.ABSENT:
            return _proven_absent(progress, policy)
        case LookupOutcome.NOT_KNOWN:
            detail = f"It is not known whether the external system has it; asking it did not help: {lookup.detail}"
            return Failed(reason=FailureReason.OUTCOME_UNKNOWN, detail=detail)
        case _:
            assert_never(lookup.outcome)


def expired() -> Failed:
    """Decide on a request whose time to live is over."""
    return Failed(reason=FailureReason.EXPIRED, detail="It could not be delivered within its time to live.")


def _pause_of_refused_credentials(heard: Attempt | Lookup) -> float:
    return max(LOOKUP_LADDER_SECONDS[0], min(heard.retry_after_seconds, RETRY_AFTER_CEILING_SECONDS))


def _retry_later(attempt: Attempt, progress: Progress, policy: Policy, chance: float) -> Decision:
    if progress.retries < len(policy.retry_delays):
        asked_for = min(attempt.retry_after_seconds, RETRY_AFTER_CEILING_SECONDS)
        delay = max(_profile_delay(progress, policy, chance), asked_for)
        return Retry(delay_seconds=delay, still_in_doubt=progress.in_doubt)
    if progress.in_doubt:
        return InDoubt(delay_seconds=LOOKUP_LADDER_SECONDS[0], lookup_made=False, timed_out=False)
    detail = f"The retries are used up; the external system last said: {attempt.said or attempt.outcome}"
    return Failed(reason=FailureReason.EXTERNAL_UNAVAILABLE, detail=detail)


def _after_unknown(attempt: Attempt, progress: Progress, policy: Policy, chance: float) -> Decision:
    is_spent = progress.retries >= len(policy.retry_delays)
    if not policy.idempotent or attempt.timed_out or is_spent:
        return InDoubt(
            delay_seconds=LOOKUP_LADDER_SECONDS[0],
            lookup_made=False,
            timed_out=attempt.timed_out,
            since_sent_seconds=attempt.seconds,
        )
    delay = _profile_delay(progress, policy, chance) if progress.retries else 0.0
    return Retry(delay_seconds=delay, still_in_doubt=True)


def _profile_delay(progress: Progress, policy: Policy, chance: float) -> float:
    return policy.retry_delays[progress.retries] * (1 + JITTER * chance)


def _cannot_be_asked(progress: Progress, policy: Policy) -> Decision:
    if policy.idempotent and progress.timed_out:
        return _after_timeout(progress, policy, still_in_doubt=True)
    detail = "It is not known whether the external system has it, and that system cannot be asked."
    return Failed(reason=FailureReason.OUTCOME_UNKNOWN, detail=detail)


def _proven_absent(progress: Progress, policy: Policy) -> Decision:
    if progress.timed_out:
        return _after_timeout(progress, policy, still_in_doubt=False)
    if progress.retries < len(policy.retry_delays):
        return Retry(delay_seconds=0.0)
    detail = "The external system does not have it; its last answer was lost and the retries are used up."
    return Failed(reason=FailureReason.OUTCOME_UNKNOWN, detail=detail)


def _after_timeout(progress: Progress, policy: Policy, *, still_in_doubt: bool) -> Decision:
    if policy.retries_timeouts and progress.retries < len(policy.retry_delays):
        return Retry(delay_seconds=0.0, still_in_doubt=still_in_doubt)
    detail = f"The external system did not answer within {policy.timeout_seconds:g} s."
    return Failed(reason=FailureReason.TIMEOUT, detail=detail)


def _conclusive_at(progress: Progress, policy: Policy) -> int:
    return progress.sent_at + round((policy.timeout_seconds + CONCLUSIVE_MARGIN_SECONDS) * SECOND)


def _is_last_lookup(progress: Progress, policy: Policy) -> bool:
    """Whether the ladder is through and the conclusive moment has come."""
    return _is_last_rung(progress) and progress.claimed_at >= _conclusive_at(progress, policy)


def _is_last_rung(progress: Progress) -> bool:
    return progress.lookups + 1 >= len(LOOKUP_LADDER_SECONDS)


def _seconds_to_next_lookup(progress: Progress, policy: Policy) -> float:
    """To the next rung, and from the last to the conclusive moment."""
    if _is_last_rung(progress):
        return (_conclusive_at(progress, policy) - progress.claimed_at) / SECOND
    made = progress.lookups + 1
    return LOOKUP_LADDER_SECONDS[made] - LOOKUP_LADDER_SECONDS[made - 1]
