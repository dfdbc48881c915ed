"""Fills a migrated database with finished requests as the hub leaves them, with their histories, in bulk.

Of 100 requests 97 are completed, two have failed and were discarded by an operator, and one is not valid. They were
accepted over the last thirty days, evenly, from eight partners, the benchmark's own among them.
"""

import os
import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from uuid import UUID

import psycopg
import sqlalchemy as sa

from intake_service.store import tables

DAYS = 30
CHUNK = 20_000
PARTNERS = ("bench", *(f"partner-{number}" for number in range(1, 8)))
TARGET = "TotvsProtheus"
_SECOND = 1_000_000
_PAYLOAD = '{{"orderId":"ORD-{number}","customer":"Empresa ABC","amount":15000.00}}'
_RESPONSE = '{{"orderId":"ORD-{number}","protheusId":"P{number:09d}","status":"created"}}'
_WORKER = "orchestrator-4f1c2ab0"

Row = tuple[Any, ...]
Insert = Callable[[sa.Table, Sequence[Row]], None]


def fill(url: str, rows: int) -> float:
    """Add `rows` finished requests; gives the seconds it took. Afterwards the planner knows the tables' sizes."""
    started = time.perf_counter()
    if url.startswith("sqlite"):
        _fill_sqlite(url.removeprefix("sqlite:///"), rows)
    else:
        _fill_postgresql(url, rows)
    os.sync()  # what follows shall not wait for the writing of these rows
    return time.perf_counter() - started


def _fill_sqlite(path: str, rows: int) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous=OFF")  # nobody has been promised these rows
        connection.execute("PRAGMA cache_size=-200000")

        def insert(table: sa.Table, values: Sequence[Row]) -> None:
            marks = ",".join("?" * len(values[0]))
            names = ",".join(_columns(table))
            connection.executemany(f"INSERT INTO {table.name} ({names}) VALUES ({marks})", values)  # noqa: S608

        for chunk in _chunks(rows):
            connection.execute("BEGIN")
            _insert_chunk(insert, chunk)
            connection.execute("COMMIT")
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


def _fill_postgresql(url: str, rows: int) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")

        def insert(table: sa.Table, values: Sequence[Row]) -> None:
            names = ",".join(_columns(table))
            with connection.cursor().copy(f"COPY {table.name} ({names}) FROM STDIN".encode()) as copy:
                copy.write("".join("\t".join(map(_text, row)) + "\n" for row in values))

        for chunk in _chunks(rows):
            _insert_chunk(insert, chunk)
        connection.execute("VACUUM ANALYZE")
        connection.execute("CHECKPOINT")  # what was filled in shall not be written out while it is measured


def _text(value: object) -> str:
    return "\\N" if value is None else str(value)


def _columns(table: sa.Table) -> list[str]:
    """The columns that are filled: the history's numbers are given by the database."""
    return [column.name for column in table.columns if column.name != "seq"]


def _chunks(rows: int) -> Iterator[list["_Finished"]]:
    chance = random.Random(1)  # noqa: S311 - the same rows in every run
    now = time.time_ns() // 1000
    step = DAYS * 86_400 * _SECOND // max(rows, 1)
    for first in range(0, rows, CHUNK):
        numbers = range(first, min(first + CHUNK, rows))
        yield [_Finished(number, now - (rows - number) * step - _SECOND, chance) for number in numbers]


def _insert_chunk(insert: Insert, chunk: Sequence["_Finished"]) -> None:
    insert(tables.integration_requests, [each.request() for each in chunk])
    insert(tables.history, [entry for each in chunk for entry in each.history()])
    if letters := [each.dead_letter() for each in chunk if each.is_rejected]:
        insert(tables.dead_letters, letters)


class _Finished:
    """One finished request, as rows in the tables' order of columns."""

    def __init__(self, number: int, created_at: int, chance: random.Random) -> None:
        self.number = number
        self.created_at = created_at
        self.ended_at = created_at + 8_000
        self.id = _id(created_at, chance)
        self.correlation_id = _id(created_at, chance)
        self.partner_id = PARTNERS[number % len(PARTNERS)]
        self.is_rejected = number % 50 == 3
        self.is_invalid = number % 100 == 7

    def request(self) -> Row:
        reason = self._reason
        values = {
            "id": self.id,
            "partner_id": self.partner_id,
            "external_id": f"FILLED-{self.number}",
            "source_system": "SAP",
            "target_system": TARGET,
            "payload_json": _PAYLOAD.format(number=self.number),
            "status": "Failed" if reason else "Completed",
            "correlation_id": self.correlation_id,
            "traceparent": "",
            "attempts": 0 if self.is_invalid else 1,
            "retries": 0,
            "lookups": 0,
            "claims": 0,
            "cycle": 1,
            "rings": 0,
            "in_doubt": False,
            "timed_out": False,
            "lease_token": 1,
            "sent_token": 1,
            "sent_at": self.created_at + 3_000,
            "expires_at": self.created_at + 86_400 * _SECOND,
            "failure_reason": reason or None,
            "failure_detail": "It does not want it." if reason else None,
            "external_response_json": None if reason else _RESPONSE.format(number=self.number),
            "created_at": self.created_at,
            "updated_at": self.ended_at,
            "version": 4,
        }
        return tuple(values.get(name) for name in _columns(tables.integration_requests))

    def history(self) -> Iterator[Row]:
        """What the hub writes for a request without trouble: four moves and one call."""
        last = "Failed" if self._reason else "Completed"
        yield self._entry("transition", 0, None, "Received", 0, self.partner_id)
        yield self._entry("transition", 2_000, "Received", "Processing", 0, _WORKER)
        if self.is_invalid:
            yield self._entry("transition", 3_000, "Processing", "Failed", 0, _WORKER, outcome="validation_failed")
            return
        yield self._entry("transition", 3_000, "Processing", "WaitingExternal", 1, _WORKER)
        yield self._entry(
            *("attempt", 8_000, "WaitingExternal", "WaitingExternal", 1, _WORKER),
            outcome="REJECTED" if self._reason else "DELIVERED",
            response=_RESPONSE.format(number=self.number),
        )
        yield self._entry("transition", 8_000, "WaitingExternal", last, 1, _WORKER, outcome=self._reason)

    def dead_letter(self) -> Row:
        settled_at = self.ended_at + 3_600 * _SECOND
        return (
            *(_id(self.ended_at, random.Random(self.number)), self.id, self.partner_id, TARGET),  # noqa: S311
            *("external_rejected", "It does not want it.", 1, "discarded", self.ended_at),
            *(settled_at, "operator", "Entered by hand."),
        )

    @property
    def _reason(self) -> str:
        if self.is_rejected:
            return "external_rejected"
        return "validation_failed" if self.is_invalid else ""

    def _entry(
        self,
        kind: str,
        after: int,
        before: str | None,
        to: str,
        attempt: int,
        actor: str,
        *,
        outcome: str = "",
        response: str = "",
    ) -> Row:
        at = self.created_at + after
        return (self.id, kind, at, before, to, attempt, outcome, "", 4.2 if response else 0.0, response, actor)


def _id(at: int, chance: random.Random) -> str:
    """A UUIDv7 of that instant, as the hub's own."""
    value = (at // 1000) << 80 | 0x7 << 76 | chance.getrandbits(12) << 64 | 0x2 << 62 | chance.getrandbits(62)
    return str(UUID(int=value))
