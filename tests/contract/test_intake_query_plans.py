"""No statement of the hub looks at more than it needs, however many finished requests are stored, on both databases.

Every operation of the store runs on a database that is filled with finished requests, and each statement that it sends
is explained. A plan says which index is used, not how far it is walked in vain: so the rows are counted too, on
PostgreSQL by EXPLAIN ANALYZE and on SQLite by the steps of its virtual machine.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from bench.filling import TARGET, fill
from chassis.access import Owner, PartnerLimits
from chassis.database import Database, Operation
from chassis.ids import new_id
from chassis.many_rows import SEVERAL
from chassis.testing import FakeClock
from intake_service.integration_request import Completed, Failed, FailureReason, Sending, Status, Step
from intake_service.store import backlog, dead_letters, due, leases, outbox, reads, requests, retention
from intake_service.store.tables import metadata
from tests.sent import statements

FINISHED = 20_000
WAITING = 1_000
#: Far above what any operation on a few rows needs, far below one look at each row of one of the eight partners.
MOST_ROWS = 500
MOST_STEPS = 10_000
STEPS_AT_ONCE = 100
EXPLAINED = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")

BIG = ("integration_requests", "integration_request_history")
SCANS = tuple(f"SCAN {name}" for name in BIG)
#: It is partial: it holds what waits and nothing else, and is read whole in order to count that.
WHOLE_SCAN_ALLOWED = "USING COVERING INDEX ix_integration_requests_waiting"

#: A token for some systems, of which the partner has used one pair.
NARROW = Owner(
    partner_id="partner-1", limits=PartnerLimits(sources=frozenset({"SAP"}), targets=frozenset({TARGET, "SAP"}))
)

Run = Callable[[Database], Any]


def write(operation: Operation, *items: Any) -> Run:
    return lambda database: database.transact([(operation, item) for item in items])


def read(query: Callable[[sa.Connection], Any]) -> Run:
    return lambda database: database.read(query)


def listing(*, after: reads.Position | None = None, partner_id: str = "partner-1", **filters: Any) -> Run:
    return read(reads.list_requests(reads.Filter(owner=Owner(partner_id=partner_id), **filters), after, 51))


def letters(*, before_id: str = "", limit: int | None = 51, **wanted: Any) -> Run:
    return read(dead_letters.select_dead_letters(dead_letters.Selection(**wanted), before_id=before_id, limit=limit))


def new(request_id: str, external_id: str) -> requests.NewRequest:
    return requests.NewRequest(
        id=request_id,
        partner_id="partner-1",
        external_id=external_id,
        source_system="SAP",
        target_system=TARGET,
        payload_json="{}",
        correlation_id="c",
        traceparent="",
        ttl_seconds=60,
        actor="partner-1",
    )


def report(request_id: str, token: int, step: Step) -> Run:
    item = leases.Report(worker_id="w1", request_id=request_id, token=token, step=step, call=None)
    return write(leases.report_requests, item)


def operations(letter_id: str) -> Iterator[tuple[str, Run]]:
    """Every operation of the store, in an order in which each finds something to do."""
    first, second, third, fourth = (new_id() for _ in range(4))
    claim_first, claim_second = (leases.Claim("w1", each, {}) for each in (first, second))
    yield "create", write(requests.create_requests, *(new(i, f"E-{i}") for i in (first, second, third, fourth)))
    yield "create a duplicate", write(requests.create_requests, new(new_id(), f"E-{first}"))
    yield "claim", write(leases.claim_requests, claim_first, claim_second)
    yield "announce", report(first, 1, Sending(timeout_seconds=60))
    yield "complete", report(first, 1, Completed(external_response_json="{}"))
    failed = Failed(reason=FailureReason.EXTERNAL_REJECTED, detail="no", dead_letter=True)
    yield "fail", report(second, 1, failed)
    yield (
        "cancel",
        write(
            requests.cancel_requests,
            requests.CancelRequest(id=third, owner=Owner(partner_id="partner-1"), detail="", actor="partner-1"),
        ),
    )
    yield "beat", write(leases.beat, leases.Beat(worker_id="w1", leaving=False))
    yield "leave", write(leases.beat, leases.Beat(worker_id="w1", leaving=True))
    yield "due", write(due.take_due, due.Round(gives_up_silent=True, ends_leases=True))
    yield "everything due", write(due.everything_due_now, None)
    decision = dead_letters.Settle(dead_letter_id=letter_id, state="discarded", operator="o", reason="r")
    yield "discard", write(dead_letters.settle_dead_letters, decision)
    old = retention.Sweep(after_id="0", until_id="f", ended_before=2**62)
    yield "sweep", write(retention.sweep, old)
    yield "newest change", read(retention.newest_change)
    yield "forget events", write(outbox.delete_published, [new_id(), new_id()])
    yield "probe", write(outbox.probe, None)
    yield "adopt events", write(outbox.adopt, 0)

    yield "get", read(reads.get_request(first, Owner(partner_id="partner-1")))
    yield "get without payload", read(reads.get_request(first, Owner(partner_id="partner-1"), with_payload=False))
    yield "history", read(reads.list_history(first, Owner(partner_id="partner-1")))
    yield "get with a narrow token", read(reads.get_request(first, NARROW))
    yield "history with a narrow token", read(reads.list_history(first, NARROW))
    yield "list with a narrow token", read(reads.list_requests(reads.Filter(owner=NARROW), None, 51))
    yield from reading(first)


def reading(request_id: str) -> Iterator[tuple[str, Run]]:
    """The lists with each filter, most of them of something rare, and the counts."""
    middle = reads.Position(created_at=1_750_000_000_000_000, id=request_id)
    yield "list", listing()
    yield "list from the middle", listing(after=middle)
    yield "list of nobody", listing(partner_id="nobody")
    yield from ((f"list {status}", listing(status=status.value)) for status in Status)
    yield from ((f"list {status} from the middle", listing(status=status.value, after=middle)) for status in Status)
    yield "list by external id", listing(external_id="FILLED-1")
    yield "list by target", listing(target_system="SAP")
    yield "list by target from the middle", listing(target_system=TARGET, after=middle)
    yield "list by correlation id", listing(correlation_id="never-seen")
    yield "list by age", listing(created_after=1, created_before=2)
    yield (
        "list by everything",
        listing(
            status="Failed", target_system="SAP", correlation_id="never-seen", created_after=1, created_before=2**62
        ),
    )
    yield "dead letters", letters()
    yield "dead letters from the middle", letters(before_id=request_id)
    yield "open dead letters", letters(state="open")
    yield "open dead letters of a target", letters(state="open", target_system=TARGET, limit=None)
    yield "dead letters by id", letters(ids=(request_id, new_id()), limit=None)
    yield "dead letter of a request", letters(ids=(request_id,), limit=1)
    yield "count waiting", read(backlog.count_waiting)
    yield "read waiting", read(backlog.read_waiting)
    yield "read outbox", read(outbox.read_left_behind(2**62, 0))
    yield "oldest event", read(outbox.oldest_unpublished)


@pytest.fixture
def filled(database_url: str) -> Iterator[Database]:
    fill(database_url, FINISHED)
    with closing(database_url) as database:
        yield database


@contextmanager
def closing(url: str) -> Iterator[Database]:
    database = Database(url, clock=FakeClock())
    try:
        yield database
    finally:
        database.dispose()


def open_letter(database: Database) -> str:
    """A dead letter that is open, among thousands that are settled."""
    request_id = new_id()
    database.transact([(requests.create_requests, new(request_id, "E-0"))])
    database.transact([(leases.claim_requests, leases.Claim("w1", request_id, {}))])
    failed = Failed(reason=FailureReason.EXTERNAL_REJECTED, detail="no", dead_letter=True)
    report(request_id, 1, failed)(database)
    query = dead_letters.select_dead_letters(dead_letters.Selection(ids=(request_id,)))
    return str(database.read(query)[0].id)


def test_no_statement_looks_at_what_it_does_not_need(filled: Database) -> None:
    assert all_faults(filled) == {}


def test_a_plan_of_the_first_minute_serves_when_the_tables_have_grown(postgres_url: str) -> None:
    """Prepared statements keep the plan that was made for an empty table."""
    with closing(postgres_url) as database:
        assert all_faults(database) == {}


def test_a_backlog_is_sifted_without_a_look_at_its_rows(filled: Database) -> None:
    write(requests.create_requests, *(new(new_id(), f"E-{number}") for number in range(WAITING)))(filled)

    assert faults_of(filled, ((name, run) for name, run in reading(new_id()) if name.startswith("list"))) == {}


def test_a_large_batch_is_found_by_its_ids(filled: Database) -> None:
    ids = [new_id() for _ in range(SEVERAL + 5)]
    done = Completed(external_response_json="{}")
    batches = (
        ("create", write(requests.create_requests, *(new(each, f"E-{each}") for each in ids))),
        ("claim", write(leases.claim_requests, *(leases.Claim("w1", each, {}) for each in ids))),
        ("complete", write(leases.report_requests, *(leases.Report("w1", each, 1, done, None) for each in ids))),
    )

    assert faults_of(filled, batches) == {}
    stored = [filled.read(reads.get_request(each, Owner(partner_id="partner-1"))) for each in ids]
    assert all(request is not None and request.standing.status is Status.COMPLETED for request in stored)


def test_many_dead_letters_are_settled_by_their_keys(filled: Database) -> None:
    """SQLite finds a group of them by its index of those that are open from version 3.44 on, all of them each time."""
    ids = [new_id() for _ in range(SEVERAL + 5)]
    write(requests.create_requests, *(new(each, f"E-{each}") for each in ids))(filled)
    write(leases.claim_requests, *(leases.Claim("w1", each, {}) for each in ids))(filled)
    failed = Failed(reason=FailureReason.EXTERNAL_REJECTED, detail="no", dead_letter=True)
    write(leases.report_requests, *(leases.Report("w1", each, 1, failed, None) for each in ids))(filled)
    found = filled.read(dead_letters.select_dead_letters(dead_letters.Selection(ids=tuple(ids))))
    decisions = [
        dead_letters.Settle(dead_letter_id=str(row.id), state="discarded", operator="o", reason="r") for row in found
    ]

    with statements(filled.engine) as sent:
        settled = filled.transact([(dead_letters.settle_dead_letters, each) for each in decisions])

    assert {each.result for each in settled} == {"discarded"}
    assert not filled.is_sqlite or not [text for text, _ in sent if "dead_letters" in text and "VALUES" in text]


def all_faults(database: Database) -> dict[str, list[str]]:
    return faults_of(database, operations(open_letter(database)))


def faults_of(database: Database, wanted: Iterable[tuple[str, Run]]) -> dict[str, list[str]]:
    explain = faults_on_sqlite if database.is_sqlite else faults_on_postgresql
    faults = {}
    for name, run in wanted:
        with statements(database.engine) as written, statements(database.read_engine) as were_read:
            run(database)
        for statement, parameters in (*written, *were_read):
            if not statement.startswith(EXPLAINED):
                continue
            if found := explain(database, statement, parameters):
                faults[f"{name}: {statement[:100]}"] = found
    return faults


def test_a_scan_and_a_walk_in_vain_are_found(filled: Database) -> None:
    explain = faults_on_sqlite if filled.is_sqlite else faults_on_postgresql
    scan = "SELECT id FROM integration_requests WHERE failure_detail = 'x'"
    owned = "SELECT id FROM integration_requests WHERE partner_id = 'partner-1'"
    walk = f"{owned} AND attempts = 7 ORDER BY created_at LIMIT 1"

    assert explain(filled, scan, ())
    assert explain(filled, walk, ())


def test_the_migrations_make_the_indexes_of_the_tables(filled: Database) -> None:
    where, there = f"{filled.engine.dialect.name}_where", sa.inspect(filled.engine)
    made = {
        (index["name"], tuple(index["column_names"]), str(index.get("dialect_options", {}).get(where)).strip("()"))
        for name in BIG
        for index in there.get_indexes(name)
        if not index["unique"]
    }
    declared = {
        (index.name, tuple(index.columns.keys()), str(index.dialect_kwargs.get(where)).removeprefix(f"{name}."))
        for name in BIG
        for index in metadata.tables[name].indexes
        if index.columns.keys() != there.get_pk_constraint(name)["constrained_columns"]  # the key is an index
    }

    assert made == declared


def faults_on_sqlite(database: Database, statement: str, parameters: Any) -> list[str]:
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += STEPS_AT_ONCE
        return 0

    with database.read_engine.connect() as connection:
        given = tuple(parameters) if isinstance(parameters, list) else parameters
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", given).all()
        if statement.startswith("SELECT"):
            driver: Any = connection.connection.driver_connection
            driver.set_progress_handler(count, STEPS_AT_ONCE)
            connection.exec_driver_sql(statement, parameters).all()
            driver.set_progress_handler(None, 0)
    scans = [row.detail for row in plan if row.detail.startswith(SCANS) and not row.detail.endswith(WHOLE_SCAN_ALLOWED)]
    return scans + ([f"{steps} steps"] if steps > MOST_STEPS else [])


def faults_on_postgresql(database: Database, statement: str, parameters: Any) -> list[str]:
    is_read = statement.startswith("SELECT")
    with database.read_engine.connect() as connection:
        options = "ANALYZE, FORMAT JSON" if is_read else "FORMAT JSON"
        (plan,) = connection.exec_driver_sql(f"EXPLAIN ({options}) {statement}", parameters or {}).scalar_one()
    faults = []
    for node in nodes(plan["Plan"]):
        if node["Node Type"] == "Seq Scan" and node["Relation Name"] in BIG:
            faults.append(f"scan of {node['Relation Name']}")
        if not is_read and node["Node Type"].startswith("Index") and "Index Cond" not in node:
            faults.append(f"walk along the whole of {node['Index Name']}")
        rows = node.get("Rows Removed by Filter", 0) + (node["Actual Rows"] if is_read else 0)
        if rows > MOST_ROWS:
            faults.append(f"{node['Node Type']} looks at {rows} rows")
    return faults


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes(child)
