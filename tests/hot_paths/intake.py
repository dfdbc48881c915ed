"""The hot paths of intake on SQLite, from the message to the answer: create, claim, announce, complete, publish."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from chassis.access import ACT_FOR_PARTNER, LIFECYCLE, REQUESTS_WRITE, Caller
from chassis.database import Database, Operation
from chassis.rate_limit import RateLimit
from chassis.rpc import Part, caller_var
from chassis.targets import load_targets
from chassis.telemetry import Telemetry
from chassis.tracing import Tracing
from intake_service.aftermath import Aftermath
from intake_service.backlog import Backlog
from intake_service.commands import Commands
from intake_service.events import OutboxRow
from intake_service.migrations import migrate
from intake_service.outbox import Relay
from intake_service.queries import Queries
from intake_service.servicer import IntakeServicer, LifecycleServicer
from integrationhub.intake.v1 import intake_pb2, lifecycle_pb2
from tests.hot_paths.services import BATCH, PAYLOAD

TARGETS = '[targets.TotvsProtheus]\nadapter = "http_json"\nbase_url = "http://127.0.0.1:1"\npath = "/"\n'


class StoreAtOnce:
    """The store without its threads: each call is a transaction of its own, committed before it returns."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.on_commit: Callable[[Sequence[Any], int], None] = lambda _, __: None

    async def write(self, operation: Operation, item: Any) -> Any:
        """Commit one item."""
        return (await self.write_many(operation, [item]))[0]

    async def write_many(self, operation: Operation, items: Sequence[Any]) -> list[Any]:
        """Commit items together."""
        begun_ns = time.time_ns()
        results = self.database.transact([(operation, item) for item in items])
        self.on_commit(results, begun_ns)
        return results

    async def read(self, query: Callable[[Any], Any]) -> Any:
        """Run a query."""
        return self.database.read(query)


class ForgetfulStreams:
    """Takes what is published and forgets it."""

    def __init__(self) -> None:
        self.is_trimmed = False

    async def publish(self, entries: Sequence[Any]) -> None:
        """Take entries."""
        assert entries

    async def trim_by_age(self) -> None:
        """Do nothing: the relay does this once after its start."""
        self.is_trimmed = True


class RememberingRelay:
    """Keeps rows for the publishing that is counted apart."""

    def __init__(self) -> None:
        self.rows: list[OutboxRow] = []

    def hand_over(self, rows: Sequence[OutboxRow]) -> None:
        """Take rows that were just committed."""
        self.rows.extend(rows)


class Intake:
    """Intake's doors on a database in `folder`; each method is one step of a batch's life."""

    def __init__(self, folder: Path) -> None:
        url = f"sqlite:///{folder / 'hub.sqlite3'}"
        migrate(url)
        (folder / "targets.toml").write_text(TARGETS)
        telemetry, tracing = Telemetry("intake"), Tracing()
        self.database = Database(url)
        store: Any = StoreAtOnce(self.database)
        streams: Any = ForgetfulStreams()
        remembering: Any = RememberingRelay()
        self._streams: ForgetfulStreams = streams
        self._remembered: RememberingRelay = remembering
        self.relay = Relay(store, streams, telemetry, tracing)
        backlog = Backlog(store, maximum=10**6, maximum_per_partner=10**6)
        store.on_commit = Aftermath(remembering, backlog, telemetry, tracing).committed
        commands = Commands(
            store,
            backlog,
            load_targets(folder / "targets.toml"),
            telemetry,
            RateLimit("redis://127.0.0.1:1", telemetry.counter("rate_limit_open_total")),
            Part("storage"),
            rate_per_minute=0,
        )
        self._door = IntakeServicer(commands, Queries(store))
        self._lifecycle = LifecycleServicer(commands)
        self._created = 0
        self._leases: list[lifecycle_pb2.Lease] = []
        self._ids: list[str] = []
        scopes = frozenset({REQUESTS_WRITE, ACT_FOR_PARTNER, LIFECYCLE})
        caller_var.set(Caller(subject="service:gateway", partner_id="gateway", scopes=scopes, expires_at=2**62))

    def is_ready(self) -> bool:
        """Whether the relay has swept its table once; from then on it takes what is handed over."""
        return self._streams.is_trimmed

    async def create(self) -> None:
        """Accept requests."""
        self._remembered.rows.clear()
        request = intake_pb2.BatchCreateIntegrationRequestsRequest(
            requests=[
                intake_pb2.CreateIntegrationRequestRequest(
                    partner_id="acme",
                    external_id=f"E-{self._created + number}",
                    source_system="SAP",
                    target_system="TotvsProtheus",
                    payload_json=PAYLOAD,
                    correlation_id="c-1",
                )
                for number in range(BATCH)
            ]
        )
        self._created += BATCH
        answer = await self._door.BatchCreateIntegrationRequests(request, _NO_CONTEXT)
        self._ids = [result.integration_request.id for result in answer.results]
        assert all(self._ids)

    async def claim(self) -> None:
        """Lease them, to check their payloads."""
        await self._claim()
        assert not any(lease.announced for lease in self._leases)

    async def claim_announced(self) -> None:
        """Lease them, to post them at once."""
        announcement = lifecycle_pb2.Announcement(target_system="TotvsProtheus")
        announcement.timeout.FromSeconds(60)
        await self._claim(announcement)
        assert all(lease.announced for lease in self._leases)

    async def announce(self) -> None:
        """Record that they are about to be posted."""
        sending = lifecycle_pb2.Sending()
        sending.timeout.FromSeconds(60)
        await self._report(sending=sending)

    async def complete(self) -> None:
        """Record that the external system has them."""
        call = lifecycle_pb2.CallRecord(kind="attempt", outcome="DELIVERED", response="{}")
        await self._report(completed=lifecycle_pb2.Completed(external_response_json="{}"), call=call)

    async def publish(self) -> None:
        """Publish the events of all of that."""
        # from the future: the lag falls into the histogram's first bucket, however slow the machine is
        self.relay.hand_over([row._replace(created_at=2**62) for row in self._remembered.rows])
        await self.relay.stop()

    async def _claim(self, *announcements: lifecycle_pb2.Announcement) -> None:
        request = lifecycle_pb2.ClaimRequest(
            worker_id="w1", integration_request_ids=self._ids, announcements=announcements
        )
        answer = await self._lifecycle.Claim(request, _NO_CONTEXT)
        self._leases = [result.lease for result in answer.results]
        assert all(lease.token for lease in self._leases)

    async def _report(self, **step: Any) -> None:
        request = lifecycle_pb2.ReportRequest(
            worker_id="w1",
            reports=[
                lifecycle_pb2.Report(integration_request_id=lease.integration_request.id, token=lease.token, **step)
                for lease in self._leases
            ],
        )
        answer = await self._lifecycle.Report(request, _NO_CONTEXT)
        assert {result.status for result in answer.results} == {lifecycle_pb2.REPORT_STATUS_ACCEPTED}


_NO_CONTEXT: Any = None
