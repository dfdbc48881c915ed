"""Intake's LifecycleService in memory, for the orchestrator's tests.

It keeps leases as the real one does: tokens, staleness, a lease granted anew to its own holder, announcements.
"""

import asyncio
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chassis.clock import SECOND, to_timestamp
from chassis.errors import HubError
from chassis.testing import FakeClock
from integrationhub.intake.v1 import lifecycle_pb2, lifecycle_pb2_grpc
from integrationhub.intake.v1.intake_pb2 import IntegrationRequest
from integrationhub.intake.v1.lifecycle_pb2 import Announcement, Lease, Sending


@dataclass
class StoredRequest:
    """What the fake intake keeps of a request."""

    lease: Lease
    holder: str = ""
    is_terminal: bool = False
    sent_token: int = 0
    reports: list[lifecycle_pb2.Report] = field(default_factory=list)

    @property
    def steps(self) -> list[str]:
        """The kinds of the steps on record, in order, whether reported or announced with a claim."""
        return [str(report.WhichOneof("step")) for report in self.reports]


class FakeLifecycle(lifecycle_pb2_grpc.LifecycleServiceServicer):
    """Intake's LifecycleService in memory."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.requests: dict[str, StoredRequest] = {}
        self.claims: list[list[str]] = []
        self.batches: list[int] = []
        self.beats: list[lifecycle_pb2.HeartbeatRequest] = []
        self.live_workers = 1
        self.worker_index = 0
        self.was_given_up = False
        #: Raised by every call while it is set.
        self.away: HubError | None = None
        #: Claims and reports wait for it when a test clears it.
        self.open = asyncio.Event()
        self.open.set()
        #: Another transaction is changing these; claims of them are told so.
        self.busy: set[str] = set()
        #: The next claim is recorded and its answer lost.
        self.loses_next_answer: HubError | None = None
        #: A crowd keeps every claim waiting for so long, and the answer says so unless it is told not to.
        self.crowded_seconds = 0.0
        self.says_how_long = True

    def add(self, target_system: str = "Erp", payload_json: str = '{"orderId":"A"}', **lease: Any) -> str:
        """Store a request that waits for a worker; `lease` overrides fields of the lease it will be claimed with."""
        integration_request = IntegrationRequest(
            id=str(uuid.uuid4()),
            external_id="PARTNER-1",
            source_system=lease.pop("source_system", "SAP"),
            target_system=target_system,
            payload_json=payload_json,
            correlation_id=str(uuid.uuid4()),
            attempts=lease.pop("attempts", 0),
        )
        expires_at = to_timestamp(lease.pop("expires_at", self.clock.now() + 86_400 * SECOND))
        stored = StoredRequest(Lease(integration_request=integration_request, expires_at=expires_at, **lease))
        self.requests[integration_request.id] = stored
        return integration_request.id

    def in_doubt(self, *, seconds_ago: float, **lease: Any) -> str:
        """Store a request whose post may have reached the external system that many seconds ago."""
        sent_at = to_timestamp(self.clock.now() - round(seconds_ago * SECOND))
        return self.add(in_doubt=True, sent_at=sent_at, attempts=1, **lease)

    async def Claim(self, request: lifecycle_pb2.ClaimRequest, _: Any) -> lifecycle_pb2.ClaimResponse:  # noqa: N802
        """Claims leases."""
        await self._answerable()
        await asyncio.sleep(self.crowded_seconds)
        ids = list(request.integration_request_ids)
        self.claims.append(ids)
        announcements = {each.target_system: each for each in request.announcements}
        results = [self._claim(request_id, request.worker_id, announcements) for request_id in ids]
        if (lost := self.loses_next_answer) is not None:
            self.loses_next_answer = None
            raise lost
        response = lifecycle_pb2.ClaimResponse(results=results)
        if self.says_how_long:
            response.waited.FromNanoseconds(round(self.crowded_seconds * 1e9))
        return response

    async def Report(self, request: lifecycle_pb2.ReportRequest, _: Any) -> lifecycle_pb2.ReportResponse:  # noqa: N802
        """Records reports."""
        await self._answerable()
        self.batches.append(len(request.reports))
        results = [
            lifecycle_pb2.ReportResult(
                integration_request_id=report.integration_request_id, status=self._report(report)
            )
            for report in request.reports
        ]
        return lifecycle_pb2.ReportResponse(results=results)

    async def Heartbeat(  # noqa: N802
        self, request: lifecycle_pb2.HeartbeatRequest, _: Any
    ) -> lifecycle_pb2.HeartbeatResponse:
        """Counts beats."""
        await self._answerable()
        self.beats.append(request)
        return lifecycle_pb2.HeartbeatResponse(
            live_workers=self.live_workers, worker_index=self.worker_index, was_given_up=self.was_given_up
        )

    async def _answerable(self) -> None:
        await self.open.wait()
        if self.away is not None:
            raise self.away

    def _claim(
        self, request_id: str, worker_id: str, announcements: Mapping[str, Announcement]
    ) -> lifecycle_pb2.ClaimResult:
        result = lifecycle_pb2.ClaimResult(integration_request_id=request_id)
        stored = self.requests.get(request_id)
        if stored is None:
            result.status = lifecycle_pb2.CLAIM_STATUS_NOT_FOUND
        elif request_id in self.busy:
            result.status = lifecycle_pb2.CLAIM_STATUS_BUSY
        elif stored.is_terminal or stored.holder not in ("", worker_id):
            result.status = lifecycle_pb2.CLAIM_STATUS_NOT_AVAILABLE
        else:
            lease = stored.lease
            own_doubt = lease.in_doubt and stored.holder == worker_id and stored.sent_token == lease.token
            stored.holder = worker_id
            lease.token += 1
            lease.claimed_at.CopyFrom(to_timestamp(self.clock.now()))
            result.status = lifecycle_pb2.CLAIM_STATUS_GRANTED
            in_doubt = lease.in_doubt
            announcement = announcements.get(lease.integration_request.target_system)
            announced = announcement is not None and self._announce(stored, announcement)
            result.lease.CopyFrom(lease)
            result.lease.in_doubt, result.lease.announced, result.lease.own_doubt = in_doubt, announced, own_doubt
        return result

    def _announce(self, stored: StoredRequest, announcement: Announcement) -> bool:
        lease = stored.lease
        is_checked = lease.integration_request.source_system in announcement.checked_sources
        if is_checked or lease.in_doubt or lease.expires_at.ToMicroseconds() <= self.clock.now():
            return False
        self._send(stored)
        stored.reports.append(lifecycle_pb2.Report(token=lease.token, sending=Sending(timeout=announcement.timeout)))
        return True

    def _send(self, stored: StoredRequest) -> None:
        stored.lease.in_doubt = True
        stored.lease.sent_at.CopyFrom(to_timestamp(self.clock.now()))
        stored.lease.integration_request.attempts += 1
        stored.sent_token = stored.lease.token

    def _report(self, report: lifecycle_pb2.Report) -> lifecycle_pb2.ReportStatus.ValueType:
        stored = self.requests[report.integration_request_id]
        step = report.WhichOneof("step")
        is_old = report.token != stored.lease.token or not stored.holder
        if stored.is_terminal or (is_old and step != "completed"):
            return lifecycle_pb2.REPORT_STATUS_STALE
        stored.reports.append(report)
        if step == "sending":
            self._send(stored)
            return lifecycle_pb2.REPORT_STATUS_ACCEPTED
        stored.holder = ""
        stored.is_terminal = step in ("completed", "failed")
        is_settled = step == "retry" or report.release.not_sent
        still_in_doubt = report.retry.still_in_doubt or report.release.still_in_doubt
        stored.lease.in_doubt = stored.lease.in_doubt and (still_in_doubt or not is_settled)
        stored.lease.integration_request.attempts -= report.release.not_sent
        stored.lease.retries += report.retry.spends_retry
        stored.lease.lookups += report.in_doubt.lookup_made
        stored.lease.timed_out = stored.lease.timed_out or report.in_doubt.timed_out
        return lifecycle_pb2.REPORT_STATUS_ACCEPTED
