"""The gRPC face of intake: messages in, commands and queries called, messages out. No rule lives here."""

from typing import Any

import grpc

from chassis.access import ACT_FOR_PARTNER, NO_LIMITS, Owner, PartnerLimits
from chassis.correlation import correlation_id_var, traceparent_var
from chassis.errors import HubError, InvalidRequest, Violation
from chassis.rpc import caller_var
from chassis.status import to_status
from intake_service.commands import Answered, Commands, Draft
from intake_service.mapping import (
    REPORT_STATUS,
    STATE_FROM_PROTO,
    STATUS_FROM_PROTO,
    check_id,
    from_announcement,
    from_limits,
    from_report,
    optional_instant,
    to_dead_letter,
    to_history_entry,
    to_integration_request,
    write_claim_result,
    write_integration_request,
    write_rate,
)
from intake_service.queries import Queries
from intake_service.settling import Settling
from intake_service.store.dead_letters import Selection
from intake_service.store.reads import Filter
from intake_service.store.rows import StoredRequest
from intake_service.validation import check_filter, prose
from integrationhub.intake.v1 import dead_letters_pb2, intake_pb2, lifecycle_pb2
from integrationhub.intake.v1.dead_letters_pb2_grpc import DeadLetterServiceServicer
from integrationhub.intake.v1.intake_pb2_grpc import IntakeServiceServicer
from integrationhub.intake.v1.lifecycle_pb2_grpc import LifecycleServiceServicer

MAX_BATCH = 1000
Context = grpc.aio.ServicerContext[Any, Any]
_Owned = (
    intake_pb2.GetIntegrationRequestRequest
    | intake_pb2.ListIntegrationRequestsRequest
    | intake_pb2.ListIntegrationRequestHistoryRequest
    | intake_pb2.CancelIntegrationRequestRequest
)


class IntakeServicer(IntakeServiceServicer):
    """The public door."""

    def __init__(self, commands: Commands, queries: Queries) -> None:
        self._commands = commands
        self._queries = queries

    async def CreateIntegrationRequest(
        self, request: intake_pb2.CreateIntegrationRequestRequest, context: Context
    ) -> intake_pb2.CreateIntegrationRequestResponse:
        """See intake.proto."""
        (created,) = await self._commands.create(caller_var.get(), [_draft(request)])
        if isinstance(created.result, HubError):
            raise created.result
        return intake_pb2.CreateIntegrationRequestResponse(integration_request=to_integration_request(created.result))

    async def BatchCreateIntegrationRequests(
        self, request: intake_pb2.BatchCreateIntegrationRequestsRequest, context: Context
    ) -> intake_pb2.BatchCreateIntegrationRequestsResponse:
        """See intake.proto."""
        _check_batch(len(request.requests), "/requests")
        created = await self._commands.create(caller_var.get(), [_draft(each) for each in request.requests])
        response = intake_pb2.BatchCreateIntegrationRequestsResponse()
        for each in created:
            _write_batch_result(response.results.add(), each)
        return response

    async def GetIntegrationRequest(
        self, request: intake_pb2.GetIntegrationRequestRequest, context: Context
    ) -> intake_pb2.GetIntegrationRequestResponse:
        """See intake.proto."""
        with_payload = not request.without_payload
        found = await self._queries.get(_owner(request), request_id=check_id(request.id), with_payload=with_payload)
        return intake_pb2.GetIntegrationRequestResponse(
            integration_request=to_integration_request(found, with_payload=with_payload)
        )

    async def ListIntegrationRequests(
        self, request: intake_pb2.ListIntegrationRequestsRequest, context: Context
    ) -> intake_pb2.ListIntegrationRequestsResponse:
        """See intake.proto."""
        if request.status and request.status not in STATUS_FROM_PROTO:
            raise InvalidRequest("The status is not one.", [Violation(pointer="/status", detail="is not a status")])
        wanted = Filter(
            owner=_owner(request),
            status=STATUS_FROM_PROTO[request.status].value if request.status else "",
            external_id=check_filter(request.external_id, "/externalId"),
            target_system=check_filter(request.target_system, "/targetSystem"),
            correlation_id=check_filter(request.correlation_id, "/correlationId"),
            created_after=optional_instant(request, "created_after", "/createdAfter"),
            created_before=optional_instant(request, "created_before", "/createdBefore"),
        )
        page, token = await self._queries.list_page(wanted, page_size=request.page_size, page_token=request.page_token)
        return intake_pb2.ListIntegrationRequestsResponse(
            integration_requests=[to_integration_request(each) for each in page], next_page_token=token
        )

    async def ListIntegrationRequestHistory(
        self, request: intake_pb2.ListIntegrationRequestHistoryRequest, context: Context
    ) -> intake_pb2.ListIntegrationRequestHistoryResponse:
        """See intake.proto."""
        story = await self._queries.history(_owner(request), request_id=check_id(request.id))
        return intake_pb2.ListIntegrationRequestHistoryResponse(entries=[to_history_entry(row) for row in story])

    async def CancelIntegrationRequest(
        self, request: intake_pb2.CancelIntegrationRequestRequest, context: Context
    ) -> intake_pb2.CancelIntegrationRequestResponse:
        """See intake.proto."""
        cancelled = await self._commands.cancel(
            caller_var.get(), _owner(request), request_id=check_id(request.id), detail=prose(request.detail)
        )
        return intake_pb2.CancelIntegrationRequestResponse(integration_request=to_integration_request(cancelled))


class LifecycleServicer(LifecycleServiceServicer):
    """The orchestrator's door."""

    def __init__(self, commands: Commands) -> None:
        self._commands = commands

    async def Claim(self, request: lifecycle_pb2.ClaimRequest, context: Context) -> lifecycle_pb2.ClaimResponse:
        """See lifecycle.proto."""
        ids = list(request.integration_request_ids)
        _check_batch(len(ids), "/integrationRequestIds")
        announcements = {each.target_system: from_announcement(each) for each in request.announcements}
        claimed = await self._commands.claim(_worker(request.worker_id), ids, announcements)
        response = lifecycle_pb2.ClaimResponse()
        response.waited.FromNanoseconds(round(claimed.waited_seconds * 1e9))
        for request_id, answer in zip(ids, claimed.answers, strict=True):
            write_claim_result(response.results.add(), request_id, answer)
        return response

    async def Report(self, request: lifecycle_pb2.ReportRequest, context: Context) -> lifecycle_pb2.ReportResponse:
        """See lifecycle.proto."""
        _check_batch(len(request.reports), "/reports")
        worker_id = _worker(request.worker_id)
        reports = [from_report(worker_id, each) for each in request.reports]
        answers = await self._commands.report(reports)
        response = lifecycle_pb2.ReportResponse()
        for report, answer in zip(reports, answers, strict=True):
            result = response.results.add()
            result.integration_request_id = report.request_id
            result.status = REPORT_STATUS[answer.status]
        return response

    async def Heartbeat(
        self, request: lifecycle_pb2.HeartbeatRequest, context: Context
    ) -> lifecycle_pb2.HeartbeatResponse:
        """See lifecycle.proto."""
        answer = await self._commands.heartbeat(_worker(request.worker_id), leaving=request.leaving)
        return lifecycle_pb2.HeartbeatResponse(
            live_workers=answer.live_workers, worker_index=answer.worker_index, was_given_up=answer.was_given_up
        )


class DeadLetterServicer(DeadLetterServiceServicer):
    """The operators' door."""

    def __init__(self, queries: Queries, settling: Settling) -> None:
        self._queries = queries
        self._settling = settling

    async def ListDeadLetters(
        self, request: dead_letters_pb2.ListDeadLettersRequest, context: Context
    ) -> dead_letters_pb2.ListDeadLettersResponse:
        """See dead_letters.proto."""
        if request.state not in STATE_FROM_PROTO:
            raise InvalidRequest("The state is not one.", [Violation(pointer="/state", detail="is not a state")])
        wanted = Selection(
            target_system=check_filter(request.target_system, "/targetSystem"),
            reason=check_filter(request.reason, "/reason"),
            partner_id=check_filter(request.partner_id, "/partnerId"),
            state=STATE_FROM_PROTO[request.state],
        )
        page, token = await self._queries.list_dead_letters(
            wanted, page_size=request.page_size, page_token=request.page_token
        )
        return dead_letters_pb2.ListDeadLettersResponse(
            dead_letters=[to_dead_letter(row) for row in page], next_page_token=token
        )

    async def GetDeadLetter(
        self, request: dead_letters_pb2.GetDeadLetterRequest, context: Context
    ) -> dead_letters_pb2.GetDeadLetterResponse:
        """See dead_letters.proto."""
        letter, about, story = await self._queries.get_dead_letter(check_id(request.id))
        return dead_letters_pb2.GetDeadLetterResponse(
            dead_letter=to_dead_letter(letter, about), history=[to_history_entry(row) for row in story]
        )

    async def RedriveDeadLetters(
        self, request: dead_letters_pb2.RedriveDeadLettersRequest, context: Context
    ) -> dead_letters_pb2.RedriveDeadLettersResponse:
        """See dead_letters.proto."""
        results = await self._settling.redrive(caller_var.get(), request)
        count = sum(result.result in ("redriven", "selected") for result in results)
        return dead_letters_pb2.RedriveDeadLettersResponse(results=results, redriven=count)

    async def DiscardDeadLetters(
        self, request: dead_letters_pb2.DiscardDeadLettersRequest, context: Context
    ) -> dead_letters_pb2.DiscardDeadLettersResponse:
        """See dead_letters.proto."""
        results = await self._settling.discard(caller_var.get(), request)
        count = sum(result.result in ("discarded", "selected") for result in results)
        return dead_letters_pb2.DiscardDeadLettersResponse(results=results, discarded=count)


def _draft(request: intake_pb2.CreateIntegrationRequestRequest) -> Draft:
    return Draft(
        partner_id=request.partner_id,
        external_id=request.external_id,
        source_system=request.source_system,
        target_system=request.target_system,
        payload_json=request.payload_json,
        correlation_id=request.correlation_id or correlation_id_var.get(),
        traceparent=request.traceparent or traceparent_var.get(),
        limits=_limits(request),
    )


def _owner(request: _Owned) -> Owner:
    return caller_var.get().owner(request.partner_id, _limits(request))


def _limits(request: _Owned | intake_pb2.CreateIntegrationRequestRequest) -> PartnerLimits:
    """As the caller hands them on for the partner it names; whoever names itself has those of its own token."""
    are_read = request.HasField("partner_limits") and ACT_FOR_PARTNER in caller_var.get().scopes
    return from_limits(request.partner_limits) if are_read else NO_LIMITS


def _write_batch_result(message: intake_pb2.BatchCreateResult, created: Answered) -> None:
    if isinstance(created.result, StoredRequest):
        write_integration_request(message.integration_request, created.result)
    else:
        status = to_status(created.result)
        message.error.code = status.code
        message.error.message = status.message
        message.error.details.extend(status.details)
    if created.rate is not None:
        write_rate(message.rate, created.rate)


def _check_batch(count: int, pointer: str) -> None:
    if not 1 <= count <= MAX_BATCH:
        detail = f"must hold 1 to {MAX_BATCH} items"
        raise InvalidRequest(f"A batch {detail}.", [Violation(pointer=pointer, detail=detail)])


def _worker(worker_id: str) -> str:
    if not worker_id:
        raise InvalidRequest("The worker names no id.", [Violation(pointer="/workerId", detail="is missing")])
    return check_filter(worker_id, "/workerId", maximum=128)
