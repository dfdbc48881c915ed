"""The database of a service: one synchronous engine for SQLite and PostgreSQL, driven from threads.

Writes are group commits: the operations that arrive while a transaction runs share the next one. Every operation
is a plain function `(connection, now, items) -> results`; all SQL belongs to the service's store, none lives here.
SQLite: one writer thread, WAL, synchronous=FULL. PostgreSQL: a few.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError
from sqlalchemy.pool import QueuePool

from chassis import driver
from chassis.batcher import Batcher
from chassis.clock import Clock, Micros, SystemClock
from chassis.errors import ConfigurationError, HubError, OutcomeNotKnown, StorageUnavailable

Result = TypeVar("Result")
Operation = Callable[[sa.Connection, Micros, Sequence[Any]], Sequence[Any]]
#: What one caller hands in together: an operation and its items.
Group = tuple[Operation, Sequence[Any]]

#: Items in a transaction.
BATCH = 1000
BUSY_TIMEOUT_MS = 5_000
#: How often a transaction that the database itself has undone (deadlock, serialization) is run again.
UNDONE_AGAIN = 3
_UNDONE_STATES = ("40001", "40P01")
#: The server takes no writes: it became a standby, or its administrator said so.
_READ_ONLY_STATE = "25006"
#: It has ended a transaction whose process stopped in the middle of it.
_STOPPED_STATE = "25P03"
#: Until a server that is no longer there is given up; the kernel alone would go on asking for a quarter of an hour.
VANISHED_SECONDS = 10
_POSTGRESQL_DRIVER = "postgresql+psycopg"
_DATABASE_NOW = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_BEGIN = f"BEGIN; {_DATABASE_NOW}"


class _Undone(StorageUnavailable):
    """The database has ended the transaction for the sake of another one; nothing of it is stored."""


class Database:
    """Engines for writing and reading; `now` is the database's own clock unless a test brings one."""

    def __init__(self, url: str, *, clock: Clock | None = None, writers: int = 3, readers: int = 4) -> None:
        parsed = _parse(url)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self.writers = 1 if self.is_sqlite else writers
        self.readers = readers
        self._clock = clock if clock is not None else SystemClock() if self.is_sqlite else None
        if self.is_sqlite:
            self.engine = _sqlite_engine(parsed, "BEGIN IMMEDIATE", self.writers + 1)
            self.read_engine = _sqlite_engine(parsed, "BEGIN", readers)
        else:
            self.engine = _postgresql_engine(parsed, self.writers + readers + 2)
            self.read_engine = self.engine

    def now(self, connection: sa.Connection) -> Micros:
        """The instant that decides what is due; on PostgreSQL the server's, so that workers' clocks do not matter."""
        if self._clock is not None:
            return self._clock.now()
        return int(driver.fetch(connection, _DATABASE_NOW)[0][0])

    def _begin(self, connection: sa.Connection) -> Micros:
        """Begin a transaction that writes; gives the same instant, which comes in the server's answer to BEGIN."""
        return self.now(connection) if self._clock is not None else int(driver.converse(connection, _BEGIN))

    def transact(self, operations: Sequence[tuple[Operation, Any]]) -> list[Any]:
        """Run operations in one transaction; those of one kind are handed over together, in order.

        When one of them fails, each is run again alone: its error is its own and stands at its place.
        Raises: StorageUnavailable when the database is away, locked or full, and nothing is stored; OutcomeNotKnown
        when it went away during the commit.
        """
        for _ in range(UNDONE_AGAIN):
            try:
                return self._transact(operations)
            except _Undone:
                continue
        return self._transact(operations)

    def _transact(self, operations: Sequence[tuple[Operation, Any]]) -> list[Any]:
        results: list[Any] = [None] * len(operations)
        by_kind: dict[Operation, list[int]] = {}
        for index, (operation, _) in enumerate(operations):
            by_kind.setdefault(operation, []).append(index)
        is_committing = False
        try:
            with self.engine.begin() as connection:
                now = self._begin(connection)
                for operation, indexes in by_kind.items():
                    answers = operation(connection, now, [operations[index][1] for index in indexes])
                    for index, answer in zip(indexes, answers, strict=True):
                        results[index] = answer
                is_committing = True
        except Exception as error:
            trouble = self._trouble(error, is_committing=is_committing)
            if trouble is not None:
                raise trouble from error
            if len(operations) == 1:
                raise
            return [self._transact_alone(operation) for operation in operations]
        return results

    def _trouble(self, error: Exception, *, is_committing: bool) -> HubError | None:
        """What a failed transaction says of the database; None where the fault is the operation's own."""
        if not isinstance(error, DBAPIError):
            return None
        if getattr(error.orig, "sqlstate", None) in _UNDONE_STATES:
            return _Undone("the database has undone it", cause=type(error.orig).__name__)
        if _is_away(error):
            self.engine.dispose()  # after a failover its connections would lead to the standby for ever
            return _storage_unavailable(error)
        if error.connection_invalidated and is_committing:
            return _outcome_not_known()
        is_storage = error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)
        return _storage_unavailable(error) if is_storage else None

    def read(self, query: Callable[[sa.Connection], Result]) -> Result:
        """Run a query. Raises: StorageUnavailable."""
        try:
            with self.read_engine.connect() as connection:
                return query(connection)
        except (OperationalError, InterfaceError) as error:
            raise _storage_unavailable(error) from error

    def _transact_alone(self, operation: tuple[Operation, Any]) -> Any:
        """One of a batch that failed as a whole: its error shall be its own."""
        try:
            return self.transact([operation])[0]
        except Exception as error:  # noqa: BLE001 - it is handed to the one who waits for it
            return error

    def set_options(self, **options: Any) -> None:
        """Give every connection these execution options; before the first one is used."""
        is_shared = self.read_engine is self.engine
        self.engine = self.engine.execution_options(**options)
        self.read_engine = self.engine if is_shared else self.read_engine.execution_options(**options)

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()
        self.read_engine.dispose()


class Store:
    """The asynchronous face of a database: group-committed writes and pooled reads; a component.

    `on_commit` is given the results of every transaction and the Unix time, in nanoseconds, at which it was begun: on
    the event loop, even when nobody waits for them any more.
    """

    def __init__(
        self,
        database: Database,
        *,
        on_batch: Callable[[int], None] | None = None,
        on_commit: Callable[[Sequence[Any], int], None] | None = None,
    ) -> None:
        self.database = database
        self._on_commit = on_commit
        self._on_batch = on_batch
        self._write_threads = ThreadPoolExecutor(database.writers, thread_name_prefix="db-writer")
        self._read_threads = ThreadPoolExecutor(database.readers, thread_name_prefix="db-reader")
        self._writes: Batcher[Group, list[Any]] = Batcher(
            self._flush, max_weight=BATCH, weight=_size, concurrency=database.writers
        )

    async def write(self, operation: Operation, item: Any) -> Any:
        """Commit one item of an operation, with whatever else is waiting.

        Raises: StorageUnavailable; OutcomeNotKnown; its own error.
        """
        (result,) = await self._writes.submit((operation, (item,)))
        if isinstance(result, Exception):
            raise result
        return result

    async def write_many(self, operation: Operation, items: Sequence[Any]) -> list[Any]:
        """Commit many items; an item's error stands at its place.

        Raises: StorageUnavailable when none of them is stored; OutcomeNotKnown when some may be.
        """
        if len(items) <= BATCH:
            results = await self._writes.submit((operation, items))
        else:
            parts = [items[start : start + BATCH] for start in range(0, len(items), BATCH)]
            answers = await asyncio.gather(
                *(self.write_many(operation, part) for part in parts), return_exceptions=True
            )
            results = []
            for part, answer in zip(parts, answers, strict=True):
                if isinstance(answer, BaseException) and not isinstance(answer, StorageUnavailable | OutcomeNotKnown):
                    raise answer
                results += [answer] * len(part) if isinstance(answer, BaseException) else answer
        for result in results:
            if isinstance(result, StorageUnavailable | OutcomeNotKnown):
                raise result if all(isinstance(each, StorageUnavailable) for each in results) else _outcome_not_known()
        return results

    async def read(self, query: Callable[[sa.Connection], Result]) -> Result:
        """Run a query on a reader thread. Raises: StorageUnavailable."""
        return await asyncio.get_running_loop().run_in_executor(self._read_threads, self.database.read, query)

    async def start(self) -> None:
        """Check that the database answers. Raises: StorageUnavailable."""
        await self.read(lambda connection: connection.execute(sa.text("SELECT 1")).scalar_one())

    async def stop(self) -> None:
        """Finish what is being written, then close."""
        await self._writes.drain()
        self._write_threads.shutdown()
        self._read_threads.shutdown()
        self.database.dispose()

    async def _flush(self, groups: Sequence[Group]) -> Sequence[list[Any]]:
        operations = [(operation, item) for operation, items in groups for item in items]
        if self._on_batch is not None:
            self._on_batch(len(operations))
        loop = asyncio.get_running_loop()
        begun_ns = time.time_ns()
        try:
            results = await loop.run_in_executor(self._write_threads, self.database.transact, operations)
        except StorageUnavailable as error:
            if self.database.writers == 1:  # who waits behind it has waited for the same lock already
                self._writes.fail_waiting(error)
            raise
        except Exception as error:  # noqa: BLE001 - it is handed to whoever waits for it
            results = [error] * len(operations)
        if self._on_commit is not None:
            # here, not in the caller: what follows a commit must not depend on who waits
            self._on_commit(results, begun_ns)
        answers = iter(results)
        return [list(islice(answers, len(items))) for _, items in groups]


def _size(group: Group) -> int:
    _, items = group
    return len(items)


def _parse(url: str) -> sa.URL:
    try:
        parsed = sa.make_url(url)
        if parsed.get_backend_name() in ("sqlite", "postgresql"):
            return parsed
    except (ArgumentError, ValueError):
        pass  # what it says may hold the password
    raise ConfigurationError("HUB_DATABASE_URL must begin with sqlite:/// or postgresql://")


def driver_parameters(url: str) -> dict[str, Any]:
    """What PostgreSQL's driver is given of a URL, such as `host`; nothing for SQLite. Raises: ConfigurationError."""
    parsed = _parse(url)
    if parsed.get_backend_name() == "sqlite":
        return {}
    parsed = parsed.set(drivername=_POSTGRESQL_DRIVER)
    _, parameters = parsed.get_dialect()().create_connect_args(parsed)
    return dict(parameters)


def _sqlite_engine(url: sa.URL, begin: str, size: int) -> sa.Engine:
    driver.adapt_sqlite_values()
    engine = sa.create_engine(
        url,
        poolclass=QueuePool,
        pool_size=size,
        max_overflow=2,
        connect_args={"check_same_thread": False},
        hide_parameters=True,  # an error's text would hold payloads, and it is logged
    )

    @sa.event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # the driver must not begin by itself: we say BEGIN IMMEDIATE
        for pragma in (
            f"busy_timeout={BUSY_TIMEOUT_MS}",
            "journal_mode=WAL",
            "synchronous=FULL",
            "foreign_keys=ON",
            "temp_store=MEMORY",
            "cache_size=-4000",  # each connection has its own; the kernel's holds the rest
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    @sa.event.listens_for(engine, "begin")
    def begin_transaction(connection: sa.Connection) -> None:
        driver.begin(connection, begin)

    return engine


def _postgresql_engine(url: sa.URL, size: int) -> sa.Engine:
    options = (
        "-c lock_timeout=5000 -c statement_timeout=15000 -c timezone=UTC"
        # rows that the transaction of a dead machine holds would be passed over until the server misses it
        " -c idle_in_transaction_session_timeout=15000"
        # No statement of ours is best served by reading a whole table, or by joining with all of it. While a table is
        # small the planner thinks so, and a prepared statement keeps that plan when the table has grown, until the
        # server analyzes it.
        " -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c jit=off"
    )
    engine = sa.create_engine(
        url.set(drivername=_POSTGRESQL_DRIVER),
        pool_size=size,
        max_overflow=2,
        pool_timeout=5,
        pool_use_lifo=True,  # a server process that has just worked is faster than one that has rested
        hide_parameters=True,  # the same
        connect_args={
            "options": options,
            "connect_timeout": 3,
            "application_name": "integration-hub",
            "keepalives_idle": VANISHED_SECONDS // 2,
            "keepalives_interval": 2,
            "keepalives_count": 3,
            "tcp_user_timeout": VANISHED_SECONDS * 1000,
        },
    )

    @sa.event.listens_for(engine, "do_connect")
    def connect(_: Any, __: Any, arguments: Any, parameters: Any) -> driver.PostgreSQLConnection:
        return driver.PostgreSQLConnection.connect(*arguments, **parameters)

    return engine


def _is_away(error: DBAPIError) -> bool:
    return getattr(error.orig, "sqlstate", None) in (_READ_ONLY_STATE, _STOPPED_STATE)


def _outcome_not_known() -> OutcomeNotKnown:
    return OutcomeNotKnown(
        "The hub's database went away before it had answered: it is not known what is stored; repeat the call, which "
        "stores nothing twice."
    )


def _storage_unavailable(error: DBAPIError) -> StorageUnavailable:
    return StorageUnavailable(
        "The hub's database does not take requests now; repeat the call in a moment.", cause=type(error.orig).__name__
    )
