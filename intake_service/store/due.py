"""What is due: the rows that the scheduler must look at, because nothing else has moved them.

A step of the database's clock is no time that has passed: what a living worker holds stays its own over a step forward,
and the moment at which "absent" becomes a proof moves with it. After a step back nothing waits for the clock to catch
up, but that proof does: it may come late, never early. Every intake sees a step; the first one makes up for it.

Two things go by the time of day as it is after a step forward: a request expires, and the wait of a retry is over. The
sleep of an intake's machine looks like such a step, and then time has passed: nobody wants an order days after its time
to live. One that ends too early is a dead letter, which can be redriven.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import sqlalchemy as sa

from chassis.many_rows import ManyRows
from intake_service.events import OutboxRow
from intake_service.integration_request import SECOND, WORKER_SILENCE_SECONDS, expire, next_ring
from intake_service.store.changes import Change, record
from intake_service.store.leases import CLOCK, give_up_worker, silent_workers
from intake_service.store.rows import StoredRequest, among, listed, lock_requests
from intake_service.store.tables import integration_requests as t
from intake_service.store.tables import workers

BATCH = 500
#: What the database's clock gains on this process' own by more than this is a step.
STEP_SECONDS = 2
#: As long as a transaction waits for another's lock at most: what that one wrote may be so much later than its own now.
LOCK_SECONDS = 5
#: Rows that are brought nearer after a step back, the nearest first; a million would hold every other write up.
MOST_BROUGHT_NEARER = 50_000
#: Rows that are made due in one transaction.
MOST_MADE_DUE = 10_000
_DUE = sa.select(t.c.id).where(t.c.due_at <= sa.bindparam("b_now")).order_by(t.c.due_at).limit(BATCH)
_DUE_AND_FREE = _DUE.where(t.c.leased_by.is_(None))
_MARK_CLOCK = ManyRows(workers, ["worker_id", "beat_at"], unless_there=["worker_id"])
_PUSH = ManyRows(
    t,
    ("due_at", "id", "version"),
    lambda row: (
        sa.update(t)
        .where(t.c.id == row["id"], t.c.version == row["version"])
        .ordered_values((t.c.due_at, row["due_at"]), (t.c.rings, t.c.rings + sa.literal_column("1")))
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A scheduler's wish for a round: which leases are taken, and how it knows a step of the clock."""

    gives_up_silent: bool
    #: Whether a lease that is over is taken though its worker lives.
    ends_leases: bool
    #: On its own monotonic clock: a round that comes later was kept waiting, as all workers may have been.
    stands_until: float = math.inf
    #: The database's clock in its last round, and its own monotonic clock not later than that.
    last_at: int | None = None
    last_monotonic: float = 0.0

    def step(self, now: int) -> int:
        """By how much the database's clock was set forward since, or back (below 0), at least; 0 for no step."""
        if self.last_at is None:
            return 0
        if now < self.last_at:
            return now - self.last_at
        gained = now - self.last_at - self.elapsed()
        return gained if gained > STEP_SECONDS * SECOND else 0

    def elapsed(self) -> int:
        """How long ago its last round was, at most."""
        return round((time.monotonic() - self.last_monotonic) * SECOND)


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """One round of the scheduler: whom to ring for (target, id), what it tells, whether there may be more."""

    rings: list[tuple[str, str]]
    outbox: list[OutboxRow]
    is_full: bool
    #: The database's clock.
    at: int
    #: By how much that was set since the last round: forward, or back (below 0).
    step: int


def take_due(connection: sa.Connection, now: int, items: Sequence[Round]) -> list[Due]:
    """Find due rows and set when each is looked at next.

    A lease that is over is lost; a request whose time is over ends as expired; every other one is to be rung.
    """
    step, elapsed = max(((item.step(now), item.elapsed()) for item in items), key=lambda seen: abs(seen[0]))
    if step and _is_first(connection, now, elapsed):
        if step > 0:
            _keep_over_step(connection, now, step)
        else:
            _bring_nearer(connection, now, -step)
    is_in_time = all(time.monotonic() <= item.stands_until for item in items)
    gives_up_silent = is_in_time and all(item.gives_up_silent for item in items)
    for worker_id in silent_workers(connection, now) if gives_up_silent else ():
        give_up_worker(connection, now, worker_id)
    ends_leases = is_in_time and all(item.ends_leases for item in items)
    ids = list(connection.execute(_DUE if ends_leases else _DUE_AND_FREE, {"b_now": now}).scalars())
    requests = lock_requests(connection, ids, skip_locked=True).values() if ids else []
    still_due = [r for r in requests if r.standing.due_at is not None and r.standing.due_at <= now]
    overdue = [r for r in still_due if r.standing.leased_by is not None]
    expired = [r for r in still_due if r.standing.leased_by is None and _may_expire(r, now)]
    waiting = [r for r in still_due if r.standing.leased_by is None and not _may_expire(r, now)]
    rows = record(connection, now, [_lose(request, now) for request in overdue])
    rows += record(connection, now, [_expire(request) for request in expired])
    _push(connection, now, waiting)
    rings = [(request.target_system, request.id) for request in (*overdue, *waiting)]
    nothing = Due(rings=[], outbox=[], is_full=False, at=now, step=step)
    found = Due(rings=rings, outbox=rows, is_full=len(ids) == BATCH, at=now, step=step)
    return [found] + [nothing] * (len(items) - 1)


class MadeDue(NamedTuple):
    """How many rows were made due, and whether there may be more."""

    rows: int
    is_full: bool


def everything_due_now(connection: sa.Connection, now: int, items: Sequence[None]) -> list[MadeDue]:
    """Make waiting rows due, since the streams have lost their memory, MOST_MADE_DUE at most, the farthest first.

    Waits that were promised (retries, lookups) and leases of living workers are left as they are. A million rows at
    once would outlast the time that a statement may take.
    """
    is_waiting = sa.and_(
        t.c.due_at > now,
        t.c.leased_by.is_(None),
        sa.or_(t.c.next_attempt_at.is_(None), t.c.next_attempt_at <= now),
    )
    farthest = sa.select(t.c.id).where(is_waiting).order_by(t.c.due_at.desc()).limit(MOST_MADE_DUE)
    ids = list(connection.execute(farthest).scalars())
    # the condition again: a row may have moved meanwhile
    wanted = sa.update(t).where(among(t.c.id, connection.dialect.name), is_waiting)
    count = connection.execute(wanted.values(due_at=now, rings=0), listed(ids)).rowcount if ids else 0
    return [MadeDue(rows=count, is_full=len(ids) == MOST_MADE_DUE)] * len(items)


def _is_first(connection: sa.Connection, now: int, elapsed: int) -> bool:
    """Whether no other intake has made up for a step since this one's last round; marks that this one has."""
    _MARK_CLOCK.execute(connection, [(CLOCK, 0)])
    is_marked = workers.c.beat_at.between(now - elapsed, now + LOCK_SECONDS * SECOND)
    mark = sa.update(workers).where(workers.c.worker_id == CLOCK, sa.not_(is_marked)).values(beat_at=now)
    return connection.execute(mark).rowcount == 1


def _keep_over_step(connection: sa.Connection, now: int, step: int) -> None:
    """Move what was written before a step forward along with it: leases, signs of life, the instants of posts."""
    before = now - step
    is_older = sa.and_(t.c.updated_at <= before, t.c.due_at.is_not(None))
    moved = sa.case((t.c.sent_at + step > now, now), else_=t.c.sent_at + step)
    connection.execute(sa.update(t).where(is_older, t.c.leased_by.is_not(None)).values(due_at=t.c.due_at + step))
    connection.execute(sa.update(t).where(is_older, t.c.in_doubt, t.c.sent_at.is_not(None)).values(sent_at=moved))
    was_alive = workers.c.beat_at.between(before - WORKER_SILENCE_SECONDS * SECOND + 1, before)
    connection.execute(sa.update(workers).where(was_alive).values(beat_at=now))


def _bring_nearer(connection: sa.Connection, now: int, step: int) -> None:
    """After a step back, let nothing that waits, and no dead worker, wait for the clock to catch up."""
    waits = sa.and_(t.c.due_at.is_not(None), t.c.leased_by.is_(None), t.c.updated_at > now)
    nearer = {
        "due_at": t.c.due_at - step,
        "next_attempt_at": t.c.next_attempt_at - step,
        "version": t.c.version + 1,  # the source of the ETag, under which the next attempt is shown
    }
    nearest = sa.select(t.c.id).where(waits).order_by(t.c.due_at).limit(MOST_BROUGHT_NEARER)
    # the condition twice: PostgreSQL asks it again, of a row that moved meanwhile, only where it stands beside the list
    connection.execute(sa.update(t).where(t.c.id.in_(nearest), waits).values(nearer))
    connection.execute(sa.update(workers).where(workers.c.beat_at > now).values(beat_at=now))


def _may_expire(request: StoredRequest, now: int) -> bool:
    """A request in doubt is asked for first, unless nobody has come to ask for as long again."""
    standing = request.standing
    if standing.expires_at > now:
        return False
    return not standing.in_doubt or now >= 2 * standing.expires_at - request.created_at


def _lose(request: StoredRequest, now: int) -> Change:
    standing = request.standing
    after = standing._replace(leased_by=None, due_at=next_ring(0, now, standing.expires_at), next_attempt_at=None)
    detail = "The worker that holds it lives but has not reported in time; what it did is not known."
    return Change(request=request, after=after, actor=standing.leased_by or "", outcome="lease_lost", detail=detail)


def _expire(request: StoredRequest) -> Change:
    after = expire(request.standing)
    return Change(
        request=request,
        after=after,
        actor="scheduler",
        outcome=after.failure_reason or "",
        detail=after.failure_detail or "",
        dead_letter=True,
    )


def _push(connection: sa.Connection, now: int, waiting: Sequence[StoredRequest]) -> None:
    rows = [
        (next_ring(request.standing.rings, now, request.standing.expires_at), request.id, request.version)
        for request in waiting
    ]
    _PUSH.execute(connection, rows)
