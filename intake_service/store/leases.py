"""Writes of the orchestrator: claims, reports and heartbeats."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import sqlalchemy as sa

from chassis.errors import PayloadNotReadable
from chassis.many_rows import ManyRows
from intake_service.events import OutboxRow
from intake_service.integration_request import (
    SECOND,
    SUSPECT_CLAIMS,
    SUSPECT_SECONDS,
    WORKER_SILENCE_SECONDS,
    Claimable,
    Failed,
    Sending,
    Standing,
    Step,
    apply_step,
    claim,
    claimable,
    is_stale,
    poison,
)
from intake_service.store.changes import Call, Change, record
from intake_service.store.payloads import payload_keys_of
from intake_service.store.requests import changed
from intake_service.store.rows import StoredRequest, among, listed, lock_requests, opened_by
from intake_service.store.tables import integration_requests as t
from intake_service.store.tables import workers

#: No worker's name: its row says when a step of the clock was last made up for.
CLOCK = ""
_BEAT = ManyRows(workers, ["worker_id", "beat_at"], unless_there=["worker_id"], else_set=["beat_at"])


class Announcement(NamedTuple):
    """The post that follows a claim at once, unless the payload is of a source that is checked first."""

    sending: Sending
    checked_sources: frozenset[str]


class Claim(NamedTuple):
    """One worker's wish for one lease; `announcements` by target."""

    worker_id: str
    request_id: str
    announcements: Mapping[str, Announcement]

    def sending(self, request: StoredRequest) -> Sending | None:
        """The post of a request that is announced with this claim, if it is."""
        announcement = self.announcements.get(request.target_system)
        if announcement is None or request.source_system in announcement.checked_sources:
            return None
        return announcement.sending


class ClaimAnswer(NamedTuple):
    """What became of it; `after` is there when it was granted. `status` is not_found, busy or a Claimable's value."""

    status: str
    claimed_at: int
    before: StoredRequest | None = None
    after: StoredRequest | None = None
    #: Of the whole batch; the first answer carries them out.
    outbox: Sequence[OutboxRow] = ()
    #: Why it was not granted, when that is the hub's own trouble.
    trouble: PayloadNotReadable | None = None


def claim_requests(connection: sa.Connection, now: int, items: Sequence[Claim]) -> list[ClaimAnswer]:
    """Lease requests to workers. A request that another transaction holds is busy.

    It is not waited for, nor taken for another's: an earlier claim of the same worker, whose call is over, may hold it.
    """
    requests = lock_requests(connection, list({item.request_id for item in items}), with_payload=True, skip_locked=True)
    keys = payload_keys_of(connection)
    missing = [item.request_id for item in items if item.request_id not in requests]
    locked = _existing(connection, missing) if missing else set()
    changes: list[Change] = []
    answers: list[ClaimAnswer] = []
    for item in items:
        request = requests.get(item.request_id)
        if request is None:
            answers.append(ClaimAnswer("busy" if item.request_id in locked else "not_found", now))
            continue
        verdict = claimable(request.standing, item.worker_id, now)
        if verdict is Claimable.GRANTED:
            try:
                opened = opened_by(keys, request)
            except PayloadNotReadable as error:  # it waits for its key, or for its end; the others do not wait for it
                answers.append(ClaimAnswer(Claimable.NOT_AVAILABLE.value, now, trouble=error))
                continue
            leased = claim(request.standing, item.worker_id, now, item.sending(request))
            after = requests[item.request_id] = changed(opened, leased, now)
            answers.append(ClaimAnswer(verdict.value, now, before=request, after=after))
            changes.append(Change(request, leased, item.worker_id))
            continue
        answers.append(ClaimAnswer(verdict.value, now))
        if verdict is Claimable.POISONED:
            changes.append(_poison(request, item.worker_id))
            requests[item.request_id] = changed(request, changes[-1].after, now)
    # a claim is a sign of life
    beats = _BEAT, [(worker_id, now) for worker_id in sorted({item.worker_id for item in items})]
    answers[0] = answers[0]._replace(outbox=record(connection, now, changes, beats))
    return answers


def _poison(request: StoredRequest, worker_id: str) -> Change:
    after = poison(request.standing)
    return Change(
        request=request,
        after=after,
        actor=worker_id,
        outcome=after.failure_reason or "",
        detail=after.failure_detail or "",
        dead_letter=True,
    )


class Report(NamedTuple):
    """A worker's word on one request."""

    worker_id: str
    request_id: str
    token: int
    step: Step
    call: Call | None


class ReportAnswer(NamedTuple):
    """What became of it: accepted, stale or not_found; when accepted, the request before and after."""

    status: str
    before: StoredRequest | None = None
    after: StoredRequest | None = None
    #: Of the whole batch; the first answer carries them out.
    outbox: Sequence[OutboxRow] = ()

    @property
    def rings_at_once(self) -> bool:
        """Whether the request may be claimed again without a wait."""
        if self.after is None:
            return False
        standing = self.after.standing
        return standing.leased_by is None and standing.due_at is not None and standing.due_at <= self.after.updated_at


def report_requests(connection: sa.Connection, now: int, items: Sequence[Report]) -> list[ReportAnswer]:
    """Record what workers say; a report with an old token is refused unless it is a success."""
    requests = lock_requests(connection, list({item.request_id for item in items}))
    answers: list[ReportAnswer] = []
    changes: list[Change] = []
    for item in items:
        request = requests.get(item.request_id)
        if request is None:
            answers.append(ReportAnswer(status="not_found"))
        elif is_stale(request.standing, item.token, item.step):
            answers.append(ReportAnswer(status="stale"))
        else:
            after = apply_step(request.standing, item.step, now)
            changes.append(_change(request, item, after))
            requests[item.request_id] = changed(request, after, now)
            answers.append(ReportAnswer(status="accepted", before=request, after=requests[item.request_id]))
    answers[0] = answers[0]._replace(outbox=record(connection, now, changes))
    return answers


def _change(request: StoredRequest, item: Report, after: Standing) -> Change:
    if not isinstance(item.step, Failed):
        return Change(request=request, after=after, actor=item.worker_id, call=item.call)
    return Change(
        request=request,
        after=after,
        actor=item.worker_id,
        call=item.call,
        outcome=item.step.reason.value,
        detail=item.step.detail,
        dead_letter=item.step.dead_letter,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Beat:
    """One worker's sign of life."""

    worker_id: str
    leaving: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BeatAnswer:
    """Who lives; `worker_index` is this worker's place among them."""

    live_workers: int
    worker_index: int
    was_given_up: bool


def beat(connection: sa.Connection, now: int, items: Sequence[Beat]) -> list[BeatAnswer]:
    """Keep the leases of workers; the leases of one that leaves are due at once."""
    known = set(connection.execute(sa.select(workers.c.worker_id)).scalars())
    living = sorted({item.worker_id for item in items if not item.leaving})
    _BEAT.execute(connection, [(worker_id, now) for worker_id in living])
    for item in items:
        if item.leaving:
            give_up_worker(connection, now, item.worker_id)
    recent = sa.and_(workers.c.beat_at > now - WORKER_SILENCE_SECONDS * SECOND, workers.c.worker_id != CLOCK)
    live = list(
        connection.execute(sa.select(workers.c.worker_id).where(recent).order_by(workers.c.worker_id)).scalars()
    )
    return [
        BeatAnswer(
            live_workers=len(live),
            worker_index=live.index(item.worker_id) if item.worker_id in live else 0,
            was_given_up=item.worker_id not in known,
        )
        for item in items
    ]


def give_up_worker(connection: sa.Connection, now: int, worker_id: str) -> None:
    """Forget a worker and make its leases due; each lost lease stands in the history.

    Those that have lost a worker before go on one after the other, in no order: if one of them is what kills the
    workers, the others are rid of it.
    """
    held = sa.select(t.c.id).where(t.c.leased_by == worker_id)
    requests = lock_requests(connection, list(connection.execute(held).scalars()))
    lost = [request for request in requests.values() if request.standing.leased_by == worker_id]
    suspects = [request.id for request in lost if request.standing.claims >= SUSPECT_CLAIMS]
    random.shuffle(suspects)
    waits = {request_id: place * SUSPECT_SECONDS * SECOND for place, request_id in enumerate(suspects)}
    changes = [
        Change(
            request=request,
            after=_freed(request.standing, now, waits.get(request.id, 0)),
            actor=worker_id,
            outcome="lease_lost",
            detail="The worker that held it is gone; what it had not reported is not known.",
        )
        for request in lost
    ]
    record(connection, now, changes)
    connection.execute(sa.delete(workers).where(workers.c.worker_id == worker_id))


def _freed(standing: Standing, now: int, wait: int) -> Standing:
    return standing._replace(leased_by=None, due_at=now + wait, next_attempt_at=now + wait if wait else None)


def silent_workers(connection: sa.Connection, now: int) -> list[str]:
    """Workers whose leases are lost."""
    silent = sa.and_(workers.c.beat_at <= now - WORKER_SILENCE_SECONDS * SECOND, workers.c.worker_id != CLOCK)
    return list(connection.execute(sa.select(workers.c.worker_id).where(silent)).scalars())


def _existing(connection: sa.Connection, ids: Sequence[str]) -> set[str]:
    stored = sa.select(t.c.id).where(among(t.c.id, connection.dialect.name))
    return set(connection.execute(stored, listed(ids)).scalars())
