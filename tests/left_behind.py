"""Outbox rows of a process that died before it published them."""

from collections.abc import Sequence

import sqlalchemy as sa

from intake_service.events import About, created
from intake_service.store.changes import add


def left_behind(connection: sa.Connection, now: int, items: Sequence[Sequence[str]]) -> list[None]:
    """Write requests' events, a row for those of each item, long enough ago to be swept."""
    at = now - 10_000_000
    for names in items:
        about = [
            About(request_id=name, external_id=name, correlation_id="c", traceparent="", target_system="TotvsProtheus")
            for name in names
        ]
        add(connection, at, [], [created(each, at) for each in about])
    return [None] * len(items)
