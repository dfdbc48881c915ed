"""Every write of the hub: one function each, from checked input to the durable commit.

Nothing is answered before the commit. What follows a commit (events to the relay, counters, log lines) happens in
intake_service.aftermath, whether or not the caller still waits.

Journey 2/5. Before: gateway/routes.py. After: orchestrator_service/process.py.
"""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from chassis.access import NO_LIMITS, Caller, Owner, PartnerLimits
from chassis.correlation import clean_correlation_id, clean_traceparent
from chassis.database import Store
from chassis.errors import HubError, InternalError, InvalidRequest, RateLimited, StorageUnavailable, Violation
from chassis.ids import find_id, new_id
from chassis.json_text import LONG_BYTES
from chassis.logs import get_logger
from chassis.rate_limit import Allowance, RateLimit, RateStanding
from chassis.rpc import Part
from chassis.targets import Targets
from chassis.telemetry import Telemetry
from chassis.turns import Turns
from intake_service.backlog import Backlog
from intake_service.door import Door
from intake_service.store import dead_letters, leases, requests
from intake_service.store.rows import StoredRequest
from intake_service.validation import check_new_request

log = get_logger()


class Draft(NamedTuple):
    """A request as a caller asks for it, not checked yet; `partner_id` is empty for the caller's own."""

    partner_id: str
    external_id: str
    source_system: str
    target_system: str
    payload_json: str
    correlation_id: str
    traceparent: str
    #: Of the partner's own token, as the service says that acts for it.
    limits: PartnerLimits = NO_LIMITS


class Answered(NamedTuple):
    """What became of a draft; `rate` is where its partner stands, where there is a limit."""

    result: StoredRequest | HubError
    rate: RateStanding | None


class Claimed(NamedTuple):
    """An answer for each claim, and how long a crowd of creates kept them waiting before the commit was begun."""

    answers: list[leases.ClaimAnswer]
    waited_seconds: float


class Commands:
    """The writes, with what they need."""

    def __init__(
        self,
        store: Store,
        backlog: Backlog,
        targets: Targets,
        telemetry: Telemetry,
        rate_limit: RateLimit,
        storage: Part,
        *,
        rate_per_minute: int,
    ) -> None:
        """`storage` is there while the database takes creates and heartbeats, which write whatever they find."""
        self._store = store
        self._storage = storage
        self._backlog = backlog
        self._rate_limit = rate_limit
        self._rate_per_minute = rate_per_minute
        self._door = Door()
        self._long_payloads = Turns()
        self._targets = targets.by_name
        self._persist_ms = telemetry.histogram("integration_requests_persist_duration_ms")

    async def create(self, caller: Caller, drafts: Sequence[Draft]) -> list[Answered]:
        """Accept requests; returns after the durable commit, with a request or an error for each draft.

        Idempotent by (partner, external id). An item's error is PermissionDenied, RateLimited, InvalidRequest,
        BacklogFull or DuplicateExternalId; nothing is stored for it. Raises: StorageUnavailable, and nothing is stored;
        OutcomeNotKnown, when a repetition says DuplicateExternalId if it was.
        """
        started = time.perf_counter()
        owned = [_owner_of(caller, draft) for draft in drafts]
        allowances = [self._allowance(owner) for owner in owned]
        rates = await self._rate_limit.take(Counter(filter(None, allowances)))
        left = {allowance: rate.taken for allowance, rate in rates.items()}
        checked: list[requests.NewRequest | HubError] = []
        for draft, owner, allowance in zip(drafts, owned, allowances, strict=True):
            if isinstance(owner, HubError):
                checked.append(owner)
            elif allowance in left and left[allowance] == 0:
                checked.append(_too_fast(rates[allowance]))
            else:
                if allowance in left:
                    left[allowance] -= 1
                checked.append(await self._check_in_turn(owner, draft))
        items = [item for item in checked if isinstance(item, requests.NewRequest)]
        self._door.arrive(len(items))
        try:
            created = await self._store.write_many(requests.create_requests, items) if items else []
        except StorageUnavailable:
            await self._storage.tell(is_there=False)
            raise
        finally:
            self._door.depart(len(items))
        elapsed_ms = (time.perf_counter() - started) * 1000
        stored = sum(isinstance(each, requests.Created) for each in created)
        if stored:
            await self._storage.tell(is_there=True)
        self._persist_ms.observe(elapsed_ms, stored)
        answers = map(_answer, items, created)
        return [
            Answered(
                result=item if isinstance(item, HubError) else next(answers),
                rate=rates.get(allowance) if allowance else None,
            )
            for item, allowance in zip(checked, allowances, strict=True)
        ]

    async def cancel(self, caller: Caller, owner: Owner, *, request_id: str, detail: str) -> StoredRequest:
        """End a request that has not been sent; who does it for another partner must say why.

        Raises: IntegrationRequestNotFound; NotCancellable; InvalidRequest; StorageUnavailable.
        """
        if owner.partner_id != caller.partner_id and not detail.strip():
            raise InvalidRequest("Say why.", [Violation(pointer="/detail", detail="is missing")])
        item = requests.CancelRequest(id=request_id, owner=owner, detail=detail, actor=caller.subject)
        cancelled: requests.Cancelled = await self._store.write(requests.cancel_requests, item)
        return cancelled.request

    async def claim(
        self, worker_id: str, request_ids: Sequence[str], announcements: Mapping[str, leases.Announcement]
    ) -> Claimed:
        """Lease requests to a worker, each with its own answer; a stranger's stream entry may hold what is no id.

        What follows a claim at once is announced in its commit, by target. While a crowd of creates waits, it waits.
        Raises: StorageUnavailable.
        """
        waited_seconds = await self._door.let_pass(len(request_ids))
        found = [find_id(text) for text in request_ids]
        items = [leases.Claim(worker_id, request_id, announcements) for request_id in found if request_id is not None]
        answers = iter(await self._store.write_many(leases.claim_requests, items) if items else ())
        unknown = leases.ClaimAnswer(status="not_found", claimed_at=0)
        return Claimed([unknown if request_id is None else next(answers) for request_id in found], waited_seconds)

    async def report(self, reports: Sequence[leases.Report]) -> list[leases.ReportAnswer]:
        """Record what a worker says, each with its own answer. Raises: StorageUnavailable."""
        return await self._store.write_many(leases.report_requests, reports)

    async def heartbeat(self, worker_id: str, *, leaving: bool) -> leases.BeatAnswer:
        """Keep a worker's leases. Raises: StorageUnavailable."""
        try:
            answer: leases.BeatAnswer = await self._store.write(
                leases.beat, leases.Beat(worker_id=worker_id, leaving=leaving)
            )
        except StorageUnavailable:
            await self._storage.tell(is_there=False)
            raise
        await self._storage.tell(is_there=True)
        return answer

    async def settle(self, items: Sequence[dead_letters.Settle]) -> list[dead_letters.Settled]:
        """Redrive or discard dead letters, each at most once. Raises: StorageUnavailable."""
        return await self._store.write_many(dead_letters.settle_dead_letters, items)

    def ttl_seconds(self, target_system: str) -> float | None:
        """How long a request for a target may live; None when it is no target any more."""
        target = self._targets.get(target_system)
        return None if target is None else target.ttl_seconds

    def _allowance(self, owner: Owner | HubError) -> Allowance | None:
        """What a create takes its place from; None where there is no limit, and for none that can be made."""
        if isinstance(owner, HubError):
            return None
        own = owner.limits.rate_per_minute
        limit = self._rate_per_minute if own is None else own
        return Allowance(owner.partner_id, limit) if limit else None

    async def _check_in_turn(self, owner: Owner, draft: Draft) -> requests.NewRequest | HubError:
        if len(draft.payload_json) < LONG_BYTES:
            return self._check(owner, draft)
        return await self._long_payloads.take(lambda: self._check(owner, draft))

    def _check(self, owner: Owner, draft: Draft) -> requests.NewRequest | HubError:
        try:
            owner.limits.check_systems(draft.source_system, draft.target_system)
            check_new_request(
                external_id=draft.external_id,
                source_system=draft.source_system,
                target_system=draft.target_system,
                payload_json=draft.payload_json,
                targets=self._targets,
            )
            self._backlog.check(owner.partner_id)
        except HubError as error:
            return error
        return requests.NewRequest(
            id=new_id(),
            partner_id=owner.partner_id,
            external_id=draft.external_id,
            source_system=draft.source_system,
            target_system=draft.target_system,
            payload_json=draft.payload_json,
            correlation_id=clean_correlation_id(draft.correlation_id or None),
            traceparent=clean_traceparent(draft.traceparent),
            ttl_seconds=self._targets[draft.target_system].ttl_seconds,
            actor=owner.partner_id,
        )


def _owner_of(caller: Caller, draft: Draft) -> Owner | HubError:
    try:
        return caller.owner(draft.partner_id, draft.limits)
    except HubError as error:
        return error


def _answer(item: requests.NewRequest, created: object) -> StoredRequest | HubError:
    if isinstance(created, requests.Created):
        return created.request
    if isinstance(created, HubError):
        return created
    log.error(
        "Create failed", correlation_id=item.correlation_id, partner_id=item.partner_id, cause=type(created).__name__
    )
    return InternalError()


def _too_fast(rate: RateStanding) -> RateLimited:
    return RateLimited(
        f"You send more than {rate.limit} requests per minute; nothing was stored. Send this one again later.",
        retry_after_seconds=rate.retry_after_seconds,
        limit=str(rate.limit),
        remaining=str(rate.remaining),
        reset=str(rate.reset_seconds),
    )
