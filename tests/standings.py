"""Integration requests of the tests of the status machine: one in every status, and one report of every kind."""

from intake_service.integration_request import (
    SECOND,
    Completed,
    Failed,
    FailureReason,
    InDoubt,
    Release,
    Retry,
    Sending,
    Standing,
    Status,
    Step,
)

NOW = 1_750_000_000 * SECOND
EXPIRES = NOW + 86_400 * SECOND
RECEIVED, PROCESSING, WAITING, COMPLETED, FAILED = Status

STEPS: dict[str, Step] = {
    "sending": Sending(timeout_seconds=60),
    "completed": Completed(external_response_json='{"id":1}'),
    "failed": Failed(reason=FailureReason.TIMEOUT, detail="It took too long.", dead_letter=True),
    "retry": Retry(delay_seconds=2, spends_retry=True),
    "in_doubt": InDoubt(delay_seconds=5, lookup_made=True, timed_out=False),
    "release": Release(delay_seconds=0, not_sent=False),
}


def standing(status: Status = RECEIVED, **fields: object) -> Standing:
    """A request in `status`, with the lease that a worker w1 has on it where one may have one."""
    values: dict[str, object] = {"status": status, "expires_at": EXPIRES, "due_at": NOW}
    if status in (PROCESSING, WAITING):
        values |= {"leased_by": "w1", "lease_token": 7, "due_at": NOW + 75 * SECOND, "claims": 1}
    if status is WAITING:
        values |= {"in_doubt": True, "attempts": 1, "sent_at": NOW, "sent_token": 7}
    if status.is_terminal:
        values |= {"due_at": None, "lease_token": 7}
    return Standing(**{**values, **fields})  # type: ignore[arg-type]  # the fields of a test
