"""Recording changes: the row, its history, its events and its dead letter, all in the caller's transaction.

Every change of state in the hub goes through `record`. The update is compare-and-set on the row's version.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any, NamedTuple

import sqlalchemy as sa

from chassis.ids import new_id
from chassis.many_rows import ManyRows, Write, execute_together
from intake_service import events
from intake_service.events import Event, OutboxRow
from intake_service.integration_request import Standing, Status, path
from intake_service.store import outbox
from intake_service.store.rows import STANDING_COLUMNS, StoredRequest
from intake_service.store.tables import dead_letters, history
from intake_service.store.tables import integration_requests as t

#: The place of `status`, the only field that is no plain value.
_STATUS = STANDING_COLUMNS.index("status")
_INSERT_HISTORY = ManyRows(history, [column.name for column in history.columns if column.name != "seq"])
_INSERT_DEAD_LETTER = ManyRows(
    dead_letters, [column.name for column in dead_letters.columns if not column.name.startswith("settled_")]
)


class Call(NamedTuple):
    """A call to the external system, for the history."""

    kind: str
    outcome: str
    detail: str
    duration_ms: float
    response: str


class Change(NamedTuple):
    """One request before and after; `outcome` and `detail` annotate the history.

    A named tuple for the same reason as Standing.
    """

    request: StoredRequest
    after: Standing
    actor: str
    call: Call | None = None
    outcome: str = ""
    detail: str = ""
    dead_letter: bool = False


class HistoryRow(NamedTuple):
    """One thing that happened, in the order of its columns."""

    request_id: str
    kind: str
    at: int
    from_status: str | None
    to_status: str
    attempt: int
    outcome: str
    detail: str
    duration_ms: float
    response: str
    actor: str


class LostRace(Exception):
    """A row changed between reading and writing, which its lock forbids: the transaction must not commit."""


def record(connection: sa.Connection, now: int, changes: Sequence[Change], *beside: Write) -> list[OutboxRow]:
    """Write changes, and what belongs `beside` them; gives the outbox rows of their events. Raises: LostRace."""
    if not changes:
        execute_together(connection, *beside)
        return []
    *earlier, last = _waves(changes)
    for wave in earlier:
        _check(wave, *execute_together(connection, _update(wave, now)))
    entries: list[HistoryRow] = []
    published: list[Event] = []
    for change in changes:
        moves = path(change.request.standing.status, change.after.status)
        entries += _history_of(change, moves, now)
        published += _events_of(change, moves, now)
    rows = outbox.rows_of(published, now)
    updated, *_ = execute_together(
        connection,
        _update(last, now),
        (_INSERT_HISTORY, entries),
        outbox.insertion(rows),
        (_INSERT_DEAD_LETTER, [_dead_letter_row(change, now) for change in changes if change.dead_letter]),
        *beside,
    )
    _check(last, updated)
    return rows


def add(
    connection: sa.Connection, now: int, entries: Sequence[HistoryRow], published: Sequence[Event]
) -> list[OutboxRow]:
    """Write what happened, and the events that tell of it, beside the change itself; gives their outbox rows."""
    rows = outbox.rows_of(published, now)
    execute_together(connection, (_INSERT_HISTORY, entries), outbox.insertion(rows))
    return rows


def created_row(request_id: str, now: int, actor: str) -> HistoryRow:
    """The first thing that happens to a request."""
    return HistoryRow(request_id, "transition", now, None, Status.RECEIVED.word, 0, "", "", 0.0, "", actor)


def _waves(changes: Sequence[Change]) -> list[list[Change]]:
    """Changes in their order, each request at most once in a wave: one statement changes a row once."""
    if len({change.request.id for change in changes}) == len(changes):
        return [list(changes)]
    waves: list[dict[str, Change]] = [{}]
    for change in changes:
        if change.request.id in waves[-1]:
            waves.append({})
        waves[-1][change.request.id] = change
    return [list(wave.values()) for wave in waves]


def _update(wave: Sequence[Change], now: int) -> Write:
    """Of the columns that have changed in any of them: two fifths of all, most of the time."""
    before = zip(*[change.request.standing for change in wave], strict=True)
    after: list[tuple[Any, ...]] = list(zip(*[change.after for change in wave], strict=True))
    changed = tuple(place for place, values in enumerate(before) if values != after[place])
    columns = [after[place] for place in changed]
    if changed[:1] == (_STATUS,):
        columns[0] = tuple(status.word for status in columns[0])
    ids, versions = [change.request.id for change in wave], [change.request.version for change in wave]
    return _updating(changed), list(zip(*columns, repeat(now, len(wave)), ids, versions, strict=True))


@lru_cache(maxsize=128)
def _updating(places: tuple[int, ...]) -> ManyRows:
    """What sets these fields of a standing."""
    names = (*(STANDING_COLUMNS[place] for place in places), "updated_at")
    version = t.c.version, t.c.version + sa.literal_column("1")
    return ManyRows(
        t,
        (*names, "id", "version"),
        lambda row: (
            sa.update(t)
            .where(t.c.id == row["id"], t.c.version == row["version"])
            .ordered_values(*((t.c[name], row[name]) for name in names), version)
        ),
    )


def _check(wave: Sequence[Change], updated: int) -> None:
    if updated != len(wave):
        raise LostRace(f"{updated} of {len(wave)} rows were as expected")


def _history_of(change: Change, moves: Sequence[tuple[Status, Status]], now: int) -> list[HistoryRow]:
    request_id, call, actor = change.request.id, change.call, change.actor
    outcome, detail = change.outcome, change.detail
    before, after = change.request.standing, change.after
    entries = []
    if call is not None:
        stands = before.status.word
        entries.append(
            HistoryRow(
                request_id,
                call.kind,
                now,
                stands,
                stands,
                before.attempts,
                call.outcome,
                call.detail,
                call.duration_ms,
                call.response,
                actor,
            )
        )
    kind = "transition"
    if not moves and outcome:
        kind, moves = "operation", ((before.status, after.status),)
    for source, target in moves:
        entries.append(
            HistoryRow(request_id, kind, now, source.word, target.word, after.attempts, outcome, detail, 0.0, "", actor)
        )
    return entries


def _events_of(change: Change, moves: Sequence[tuple[Status, Status]], now: int) -> list[Event]:
    about, attempts, reason = change.request.about, change.after.attempts, change.after.failure_reason
    published = [
        events.transition(about, now, source, target, attempts=attempts, failure_reason=reason)
        for source, target in moves
    ]
    if change.dead_letter:
        published.append(events.dead_lettered(about, now, attempts=attempts, failure_reason=reason or ""))
    return published


def _dead_letter_row(change: Change, now: int) -> tuple[Any, ...]:
    request, after = change.request, change.after
    return (
        new_id(),
        request.id,
        request.partner_id,
        request.target_system,
        after.failure_reason,
        after.failure_detail or "",
        after.attempts,
        "open",
        now,
    )
