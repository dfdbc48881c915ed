"""Dead letters: reading them, and settling each at most once."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from chassis.many_rows import ManyRows
from intake_service.events import OutboxRow
from intake_service.integration_request import Status, redrive
from intake_service.store.changes import Change, LostRace, record
from intake_service.store.payloads import payload_keys_of
from intake_service.store.requests import changed
from intake_service.store.rows import StoredRequest, among, listed, lock_requests
from intake_service.store.tables import dead_letters as d
from intake_service.store.tables import integration_requests as t
from intake_service.store.tables import payload_versions

_SETTLED = ("state", "settled_at", "settled_by", "settled_reason")
_SETTLE = ManyRows(
    d,
    (*_SETTLED, "id"),
    lambda row: (
        sa.update(d)
        .where(d.c.id == row["id"], d.c.state == sa.literal_column("'open'"))
        .ordered_values(*((d.c[name], row[name]) for name in _SETTLED))
    ),
    one_by_one=True,  # of a group SQLite 3.44 reads every open dead letter
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which dead letters: by ids (of dead letters or requests), or by filter."""

    ids: tuple[str, ...] = ()
    target_system: str = ""
    reason: str = ""
    partner_id: str = ""
    state: str = ""
    created_after: int | None = None
    created_before: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Settle:
    """An operator's decision on one dead letter; `payload_json` replaces the payload on a redrive.

    With `certainly_absent` the operator answers for it that the external system does not hold the request.
    """

    dead_letter_id: str
    state: str
    operator: str
    reason: str
    ttl_seconds: float = 0
    payload_json: str | None = None
    certainly_absent: bool = False

    @property
    def needs_certainty(self) -> bool:
        """Not for a request in doubt: the new payload would stand on record for an order made with the old one."""
        return self.payload_json is not None and not self.certainly_absent


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What became of it: redriven, discarded, not_open, in_doubt or not_found; the first one's rows are the batch's."""

    result: str
    request_id: str
    outbox: list[OutboxRow]


def select_dead_letters(
    wanted: Selection, *, before_id: str = "", limit: int | None = None, with_request: bool = False
) -> Callable[[sa.Connection], list[sa.Row[Any]]]:
    """A query for dead letters, newest first; `with_request` adds names of their requests, and whether in doubt."""
    conditions: list[sa.ColumnElement[bool]] = []
    if wanted.ids:
        conditions.append(sa.or_(d.c.id.in_(wanted.ids), d.c.request_id.in_(wanted.ids)))
    named = (d.c.target_system, d.c.reason, d.c.partner_id, d.c.state)
    conditions += [column == value for column in named if (value := getattr(wanted, column.name))]
    if wanted.created_after is not None:
        conditions.append(d.c.created_at >= wanted.created_after)
    if wanted.created_before is not None:
        conditions.append(d.c.created_at < wanted.created_before)
    if before_id:
        conditions.append(d.c.id < before_id)
    named_too = (t.c.external_id, t.c.source_system, t.c.correlation_id, t.c.in_doubt)
    columns = (d, *named_too) if with_request else (d,)
    statement = sa.select(*columns).where(*conditions).order_by(d.c.id.desc())
    if with_request:
        statement = statement.join_from(d, t, t.c.id == d.c.request_id)
    if limit is not None:
        statement = statement.limit(limit)
    return lambda connection: list(connection.execute(statement))


def settle_dead_letters(connection: sa.Connection, now: int, items: Sequence[Settle]) -> list[Settled]:
    """Redrive or discard, each at most once. A request's lock keeps others from settling its dead letters meanwhile."""
    ids = [item.dead_letter_id for item in items]
    owners = {letter.request_id for letter in _letters(connection, ids).values()}
    is_corrected = any(item.payload_json is not None for item in items)
    requests = lock_requests(connection, list(owners), with_payload=is_corrected)
    letters = _letters(connection, ids)  # again, now that nobody else can settle them
    is_open = {letter.id for letter in letters.values() if letter.state == "open"}
    answers: list[Settled] = []
    changes: list[Change] = []
    for item in items:
        letter = letters.get(item.dead_letter_id)
        if letter is None:
            answers.append(Settled(result="not_found", request_id="", outbox=[]))
            continue
        request = requests[letter.request_id]
        if letter.id not in is_open or request.standing.status is not Status.FAILED:
            answers.append(Settled(result="not_open", request_id=request.id, outbox=[]))
            continue
        if item.needs_certainty and request.standing.in_doubt:
            answers.append(Settled(result="in_doubt", request_id=request.id, outbox=[]))
            continue
        is_open.remove(letter.id)
        changes.append(_change(request, item, now))
        requests[request.id] = changed(request, changes[-1].after, now)
        answers.append(Settled(result=item.state, request_id=request.id, outbox=[]))
        if item.payload_json is not None:
            _replace_payload(connection, now, request, item)
    settled = [item for item, answer in zip(items, answers, strict=True) if answer.result == item.state]
    rows = [(item.state, now, item.operator, item.reason, item.dead_letter_id) for item in settled]
    if _SETTLE.execute(connection, rows) != len(settled):
        raise LostRace("a dead letter was settled in spite of its lock")
    # the rows belong to the whole batch; the first answer carries them out
    answers[0].outbox.extend(record(connection, now, changes))
    return answers


def _letters(connection: sa.Connection, ids: Sequence[str]) -> dict[str, sa.Row[str, str, str]]:
    wanted = sa.select(d.c.id, d.c.request_id, d.c.state).where(among(d.c.id, connection.dialect.name))
    return {row.id: row for row in connection.execute(wanted, listed(ids))}


def _change(request: StoredRequest, item: Settle, now: int) -> Change:
    after = request.standing
    if item.state == "redriven":
        after = redrive(after, now, item.ttl_seconds, certainly_absent=item.certainly_absent)
    notes = [item.reason]
    if item.payload_json is not None:
        notes.append("(With a corrected payload.)")
    if item.certainly_absent:
        notes.append("(The operator answers for it that the external system does not hold it.)")
    detail = " ".join(note for note in notes if note)
    return Change(request=request, after=after, actor=item.operator, outcome=item.state, detail=detail)


def _replace_payload(connection: sa.Connection, now: int, request: StoredRequest, item: Settle) -> None:
    connection.execute(
        sa.insert(payload_versions),
        {
            "request_id": request.id,
            "cycle": request.standing.cycle,
            "payload_json": request.payload_json,  # as it is stored: it may be the one that cannot be opened
            "replaced_at": now,
            "replaced_by": item.operator,
        },
    )
    sealed = payload_keys_of(connection).seal(request.id, item.payload_json or "")
    connection.execute(sa.update(t).where(t.c.id == request.id).values(payload_json=sealed))
