"""Every write of the hub: one function each, from checked input to the durable commit.

Nothing is answered before the commit. What follows a commit (events to the relay, counters, log lines) happens in
intake_service.aftermath, whether or not the caller still waits.

Journey 2/5. Before: gateway/routes.py. After: orchestrator_service/process.py.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

from chassis.access import Caller
from chassis.correlation import clean_correlation_id, clean_traceparent
from chassis.database import Store
from chassis.errors import HubError, InternalError, InvalidRequest
from chassis.logs import get_logger
from chassis.targets import Targets
from chassis.telemetry import Telemetry
from intake_service.backlog import Backlog
from intake_service.ids import is_id, new_id, parse_id
from intake_service.store import dead_letters, leases, requests
from intake_service.store.rows import StoredRequest
from intake_service.validation import check_new_request

log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A request as a caller asks for it, not checked yet; `partner_id` is empty for the caller's own."""

    partner_id: str
    external_id: str
    source_system: str
    target_system: str
    payload_json: str
    correlation_id: str
    traceparent: str


class Commands:
    """The writes, with what they need."""

    def __init__(self, store: Store, backlog: Backlog, targets: Targets, telemetry: Telemetry) -> None:
        self._store = store
        self._backlog = backlog
        self._targets = targets.by_name
        self._persist_ms = telemetry.histogram("integration_requests_persist_duration_ms")

    async def create(self, caller: Caller, drafts: Sequence[Draft]) -> list[StoredRequest | HubError]:
        """Accept requests; returns after the durable commit, with a request or an error for each draft.

        Idempotent by (partner, external id). An item's error is PermissionDenied, InvalidRequest, BacklogFull or
        DuplicateExternalId; nothing is stored for it. Raises: StorageUnavailable; then a commit may have happened,
        and a repetition says DuplicateExternalId.
        """
        started = time.perf_counter()
        checked = [self._check(caller, draft) for draft in drafts]
        items = [item for item in checked if isinstance(item, requests.NewRequest)]
        created = await self._store.write_many(requests.create_requests, items) if items else []
        elapsed_ms = (time.perf_counter() - started) * 1000
        by_id = dict(zip((item.id for item in items), created, strict=True))
        return [self._answer(item, by_id, elapsed_ms) for item in checked]

    async def cancel(self, caller: Caller, *, partner_id: str, request_id: str, detail: str) -> StoredRequest:
        """End a request that has not been sent.

        Raises: IntegrationRequestNotFound; NotCancellable; PermissionDenied; StorageUnavailable.
        """
        item = requests.CancelRequest(
            id=request_id, partner_id=caller.act_for(partner_id), detail=detail, actor=caller.subject
        )
        cancelled: requests.Cancelled = await self._store.write(requests.cancel_requests, item)
        return cancelled.request

    async def claim(self, worker_id: str, request_ids: Sequence[str]) -> list[leases.ClaimAnswer]:
        """Lease requests to a worker, each with its own answer; a stranger's stream entry may hold what is no id.

        Raises: StorageUnavailable.
        """
        items = [leases.Claim(worker_id=worker_id, request_id=parse_id(text)) for text in request_ids if is_id(text)]
        answers = iter(await self._store.write_many(leases.claim_requests, items) if items else ())
        unknown = leases.ClaimAnswer(status="not_found", claimed_at=0)
        return [next(answers) if is_id(text) else unknown for text in request_ids]

    async def report(self, reports: Sequence[leases.Report]) -> list[leases.ReportAnswer]:
        """Record what a worker says, each with its own answer. Raises: StorageUnavailable."""
        return await self._store.write_many(leases.report_requests, reports)

    async def heartbeat(self, worker_id: str, *, leaving: bool) -> leases.BeatAnswer:
        """Keep a worker's leases. Raises: StorageUnavailable."""
        answer: leases.BeatAnswer = await self._store.write(
            leases.beat, leases.Beat(worker_id=worker_id, leaving=leaving)
        )
        return answer

    async def settle(self, items: Sequence[dead_letters.Settle]) -> list[dead_letters.Settled]:
        """Redrive or discard dead letters, each at most once. Raises: StorageUnavailable."""
        return await self._store.write_many(dead_letters.settle_dead_letters, items)

    def ttl_seconds(self, target_system: str) -> float:
        """How long a request for a target may live. Raises: InvalidRequest when it is no target any more."""
        if target_system not in self._targets:
            raise InvalidRequest(f"{target_system} is no longer a target of this hub; add it first.")
        return self._targets[target_system].ttl_seconds

    def _check(self, caller: Caller, draft: Draft) -> requests.NewRequest | HubError:
        try:
            owner = caller.act_for(draft.partner_id)
            check_new_request(
                external_id=draft.external_id,
                source_system=draft.source_system,
                target_system=draft.target_system,
                payload_json=draft.payload_json,
                targets=self._targets,
            )
            self._backlog.check(owner)
        except HubError as error:
            return error
        return requests.NewRequest(
            id=new_id(),
            partner_id=owner,
            external_id=draft.external_id,
            source_system=draft.source_system,
            target_system=draft.target_system,
            payload_json=draft.payload_json,
            correlation_id=clean_correlation_id(draft.correlation_id or None),
            traceparent=clean_traceparent(draft.traceparent),
            ttl_seconds=self._targets[draft.target_system].ttl_seconds,
            actor=owner,
        )

    def _answer(
        self, item: requests.NewRequest | HubError, created: dict[str, object], elapsed_ms: float
    ) -> StoredRequest | HubError:
        if isinstance(item, HubError):
            return item
        result = created[item.id]
        if isinstance(result, requests.Created):
            self._persist_ms.observe(elapsed_ms)
            return result.request
        if isinstance(result, HubError):
            return result
        log.error("Create failed", cause=type(result).__name__)
        return InternalError()
