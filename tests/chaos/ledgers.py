"""The ledgers of a run, read without any of the hub's code: plain SQL, the simulator's own list, the streams.

What is read here is compared in checker.py.
"""

import contextlib
import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.request import urlopen

import psycopg
import redis

from tests.chaos.load import Promise

PAGE = 1000
CONNECT_SECONDS = 5
_OPEN = "SELECT id FROM integration_requests WHERE status NOT IN ('Completed', 'Failed')"
_REQUESTS = """
    SELECT id, external_id, target_system, status, failure_reason, attempts, cycle, due_at IS NOT NULL
    FROM integration_requests
"""
_HISTORY = """
    SELECT request_id, kind, from_status, to_status, attempt, outcome
    FROM integration_request_history ORDER BY request_id, seq
"""
_DEAD_LETTERS = "SELECT request_id FROM dead_letters"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of a request's history."""

    kind: str
    from_status: str | None
    to_status: str
    attempt: int
    outcome: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One request as the database has it."""

    request_id: str
    external_id: str
    target: str
    status: str
    failure_reason: str | None
    attempts: int
    cycle: int
    #: Whether the hub will look at it again.
    is_due: bool
    dead_letters: int
    history: tuple[Entry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One order as the external system has it."""

    target: str
    #: The id of the request it was made for.
    request_id: str
    #: The partner's id of it, which travelled in the payload.
    external_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledgers:
    """What was promised, what is on record, what was done."""

    promises: Sequence[Promise]
    stored: Sequence[Stored]
    orders: Sequence[Order]
    #: What should be empty in the end and is not, with how much is in it.
    left_over: Mapping[str, int] = field(default_factory=dict)


def read_open(database_url: str) -> set[str]:
    """Ids of the requests that have not ended. Raises: sqlite3.Error; psycopg.Error."""
    with _connected(database_url) as connection:
        return {row[0] for row in connection.execute(_OPEN)}


def read_stored(database_url: str) -> list[Stored]:
    """Every request with its history. Raises: sqlite3.Error; psycopg.Error."""
    history: dict[str, list[Entry]] = defaultdict(list)
    letters: dict[str, int] = defaultdict(int)
    with _connected(database_url) as connection:
        for request_id, kind, from_status, to_status, attempt, outcome in connection.execute(_HISTORY):
            entry = Entry(kind=kind, from_status=from_status, to_status=to_status, attempt=attempt, outcome=outcome)
            history[request_id].append(entry)
        for (request_id,) in connection.execute(_DEAD_LETTERS):
            letters[request_id] += 1
        return [
            Stored(
                request_id=request_id,
                external_id=external_id,
                target=target,
                status=status,
                failure_reason=reason,
                attempts=attempts,
                cycle=cycle,
                is_due=bool(is_due),
                dead_letters=letters[request_id],
                history=tuple(history[request_id]),
            )
            for request_id, external_id, target, status, reason, attempts, cycle, is_due in connection.execute(
                _REQUESTS
            )
        ]


def read_orders(external_url: str) -> list[Order]:
    """Every order that the external systems hold. Raises: OSError."""
    orders: list[Order] = []
    after = 0
    while page := _get(f"{external_url}/_sim/orders?limit={PAGE}&after={after}")["items"]:
        for item in page:
            payload = json.loads(item["body"])
            orders.append(
                Order(
                    target=item["target"],
                    request_id=item["integrationId"],
                    external_id=payload.get("orderId", ""),
                )
            )
        after = page[-1]["sequence"]
    return orders


def read_left_over(database_url: str, redis_url: str) -> dict[str, int]:
    """What is left in the outbox and in the work streams. Raises: sqlite3.Error; psycopg.Error; redis.RedisError."""
    left: dict[str, int] = {}
    with _connected(database_url) as connection:
        left["outbox"] = next(iter(connection.execute("SELECT count(*) FROM outbox_batches")))[0]
    with redis.Redis.from_url(redis_url, decode_responses=True) as streams:
        client: Any = streams  # its hints mix the answers of the blocking and the asynchronous client
        for stream in client.scan_iter("hub:work:*"):
            left[stream] = client.xlen(stream)
            left[f"pending in {stream}"] = sum(group["pending"] for group in client.xinfo_groups(stream))
    return {name: count for name, count in left.items() if count}


@contextlib.contextmanager
def _connected(url: str) -> Iterator[Any]:
    """A connection for reading; its `execute` gives rows on both databases."""
    if url.startswith("sqlite:///"):
        opened: Any = sqlite3.connect(
            f"file:{url.removeprefix('sqlite:///')}?mode=ro", uri=True, timeout=CONNECT_SECONDS
        )
    else:
        opened = psycopg.connect(url, connect_timeout=CONNECT_SECONDS, autocommit=True)
    with contextlib.closing(opened) as connection:
        yield connection


def _get(url: str) -> dict[str, Any]:
    with urlopen(url, timeout=30) as answer:  # noqa: S310 - a loopback URL of our own
        content: dict[str, Any] = json.loads(answer.read())
        return content
