"""The orchestrator's two clients: intake (claims, reports, heartbeats) and the adapter (deliveries, lookups).

A reader claims what it has read in one call; reports travel in natural batches. Deliveries that are submitted in the
same tick of the loop travel in one call whose answers come back one by one, so that a slow external system holds
nobody; any number of such calls may be in flight. What a call's result means for a request is decided elsewhere.
"""

import asyncio
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context
from typing import Any

import grpc

from chassis.batcher import Batcher
from chassis.correlation import correlation_id_var, traceparent_var
from chassis.errors import (
    HubError,
    InternalError,
    InvalidRequest,
    KeySetUnavailable,
    NotFound,
    PayloadTooLarge,
    PermissionDenied,
    TargetNotFound,
    Unauthenticated,
    Unavailable,
)
from chassis.rpc_client import RpcClient
from chassis.telemetry import Telemetry
from integrationhub.adapter.v1 import adapter_pb2, adapter_pb2_grpc
from integrationhub.adapter.v1.adapter_pb2 import (
    DeliverBatchRequest,
    DeliverRequest,
    DeliverResponse,
    LookupRequest,
    LookupResponse,
)
from integrationhub.intake.v1 import lifecycle_pb2_grpc
from integrationhub.intake.v1.lifecycle_pb2 import (
    Announcement,
    ClaimRequest,
    ClaimResponse,
    HeartbeatRequest,
    HeartbeatResponse,
    Report,
    ReportRequest,
    ReportStatus,
)

MAX_ITEMS = 1000
#: Half of what a server takes in one message.
MAX_BYTES = 8 * 1024 * 1024
#: Two keep intake's group commit fed while an answer travels.
BATCHES_IN_FLIGHT = 2
#: Beside so many reports others leave only when they are as many: a batch costs three milliseconds of CPU.
LARGE_BATCH = 48
#: Below the period of the beat, so that a lost one is repeated in time.
HEARTBEAT_TIMEOUT_SECONDS = 4.0
REACHABLE_SECONDS = 1.0
#: How grpc's core says that no connection stood, so that not one byte of the call left this process.
_NEVER_CONNECTED = ("failed to connect to all addresses", "connections to all backends failing")

#: Of a call as a whole, before anything of it was begun.
_REFUSALS = (Unauthenticated, KeySetUnavailable, PermissionDenied, NotFound, InvalidRequest)
#: What the adapter itself says of an item of a batch that it did not try.
_OWN_REFUSALS = (InvalidRequest.reason, TargetNotFound.reason)

_Submitted = tuple[DeliverRequest, asyncio.Future[DeliverResponse]]


class NotDelivered(Unavailable):
    """The adapter never began the delivery: certainly nothing was sent."""

    reason = "NOT_DELIVERED"

    @property
    def concerns_all(self) -> bool:
        """Whether the next delivery would fare alike: the cause does not lie in what was handed over."""
        return self.metadata.get("cause") != InvalidRequest.reason


class IntakeClient:
    """Speaks to intake's LifecycleService for one worker; a component."""

    def __init__(self, rpc: RpcClient, *, worker_id: str, telemetry: Telemetry) -> None:
        self._rpc = rpc
        self._stub = lifecycle_pb2_grpc.LifecycleServiceStub(rpc.channel)
        self.worker_id = worker_id
        sizes = telemetry.histogram("batch_items")
        self._claim_size = sizes.labels(batch="claim")
        self._reports: Batcher[Report, ReportStatus.ValueType] = Batcher(
            self._flush_reports,
            max_items=MAX_ITEMS,
            max_weight=MAX_BYTES,
            weight=Report.ByteSize,
            concurrency=BATCHES_IN_FLIGHT,
            large=LARGE_BATCH,
            on_batch=sizes.labels(batch="report").observe,
        )

    async def claim(
        self, integration_request_ids: Sequence[str], announcement: Announcement | None = None
    ) -> ClaimResponse:
        """Claim leases on up to 1000 requests; gives a result for each, in order.

        The announcement is for those of its target. A crowd of creates may keep the claim waiting, and the answer says
        how long. Raises: HubError; then it is not known whether leases were granted, and claiming again gives them.
        """
        self._claim_size.observe(len(integration_request_ids))
        request = ClaimRequest(
            worker_id=self.worker_id,
            integration_request_ids=integration_request_ids,
            announcements=[announcement] if announcement is not None else (),
        )
        response = await self._rpc.unary(self._stub.Claim, request)
        if len(response.results) != len(integration_request_ids):
            raise InternalError
        return response

    def report(self, report: Report) -> Coroutine[Any, Any, ReportStatus.ValueType]:
        """Report a step. Raises: HubError; then it is not known whether it was recorded, and it may be repeated."""
        return self._reports.submit(report)

    async def heartbeat(self, *, leaving: bool) -> HeartbeatResponse:
        """Keep this worker's leases, or give them all up. Raises: HubError."""
        request = HeartbeatRequest(worker_id=self.worker_id, leaving=leaving)
        return await self._rpc.unary(self._stub.Heartbeat, request, timeout_seconds=HEARTBEAT_TIMEOUT_SECONDS)

    async def start(self) -> None:
        """Do nothing: the channel connects by itself."""

    async def stop(self) -> None:
        """Finish the calls in flight, then close the channel."""
        await self._reports.drain()
        await self._rpc.stop()

    async def _flush_reports(self, batch: Sequence[Report]) -> Sequence[ReportStatus.ValueType]:
        request = ReportRequest(worker_id=self.worker_id, reports=batch)
        response = await self._rpc.unary(self._stub.Report, request)
        return [result.status for result in response.results]


class AdapterClient:
    """Speaks to the AdapterService; a component."""

    def __init__(self, rpc: RpcClient, *, telemetry: Telemetry) -> None:
        self._rpc = rpc
        self._stub = adapter_pb2_grpc.AdapterServiceStub(rpc.channel)
        self._size = telemetry.histogram("batch_items").labels(batch="deliver")
        #: By their deadline, since a call has only one.
        self._waiting: dict[float, list[_Submitted]] = {}
        self._calls: set[asyncio.Task[None]] = set()

    async def reachable(self) -> bool:
        """Whether a connection stands, or does so within a second."""
        return await self._rpc.reachable(timeout_seconds=REACHABLE_SECONDS)

    async def deliver(self, request: DeliverRequest, *, timeout_seconds: float) -> DeliverResponse:
        """Make one attempt.

        Raises: NotDelivered when certainly nothing was sent; any other HubError when that is not known.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[DeliverResponse] = loop.create_future()
        if not self._waiting:
            # in an empty context: a call for many must not carry the ids of the first
            loop.call_soon(self._send_waiting, context=Context())
        self._waiting.setdefault(timeout_seconds, []).append((request, future))
        return await future

    async def lookup(self, request: LookupRequest, *, timeout_seconds: float) -> LookupResponse:
        """Ask the target for a request. Raises: HubError."""
        with _on_behalf_of(request):
            return await self._rpc.unary(self._stub.Lookup, request, timeout_seconds=timeout_seconds)

    async def start(self) -> None:
        """Do nothing: the channel connects by itself."""

    async def stop(self) -> None:
        """Give up the calls in flight, then close the channel."""
        for call in self._calls:
            call.cancel()
        if self._calls:
            await asyncio.wait(self._calls)
        await self._rpc.stop()

    def _send_waiting(self) -> None:
        waiting, self._waiting = self._waiting, {}
        for timeout_seconds, submitted in waiting.items():
            for batch in _split(submitted):
                self._size.observe(len(batch))
                deliver = self._deliver_alone if len(batch) == 1 else self._deliver_together
                call = asyncio.create_task(deliver(batch, timeout_seconds))
                self._calls.add(call)
                call.add_done_callback(self._calls.discard)

    async def _deliver_alone(self, batch: Sequence[_Submitted], timeout_seconds: float) -> None:
        request, future = batch[0]
        error: BaseException = asyncio.CancelledError()
        try:
            with _on_behalf_of(request):
                response = await self._rpc.unary(self._stub.Deliver, request, timeout_seconds=timeout_seconds)
            if not future.done():
                future.set_result(response)
        except HubError as raised:
            error = _not_delivered(raised) or raised
        finally:
            _fail([future], error)

    async def _deliver_together(self, batch: Sequence[_Submitted], timeout_seconds: float) -> None:
        left = {request.integration_request_id: future for request, future in batch}
        message = DeliverBatchRequest(deliveries=[request for request, _ in batch])
        error: BaseException = asyncio.CancelledError()
        try:
            answers = self._rpc.stream(self._stub.DeliverBatch, message, timeout_seconds=timeout_seconds)
            async for answer in answers:
                for result in answer.results:
                    future = left.pop(result.integration_request_id, None)
                    if future is None or future.done():
                        continue
                    if _is_refused_by_the_adapter(result.response):
                        future.set_exception(_nothing_was_sent(result.response.code))
                    else:
                        future.set_result(result.response)
            error = InternalError()  # the call ended and did not answer for those that are left
        except HubError as raised:
            has_begun = len(left) < len(batch)
            error = raised if has_begun else _not_delivered(raised) or raised
        finally:
            _fail(left.values(), error)


def _split(submitted: Sequence[_Submitted]) -> Iterator[list[_Submitted]]:
    """Cut into calls that a server takes."""
    batch: list[_Submitted] = []
    total = 0
    for item in submitted:
        weight = item[0].ByteSize()
        if batch and (len(batch) == MAX_ITEMS or total + weight > MAX_BYTES):
            yield batch
            batch, total = [], 0
        batch.append(item)
        total += weight
    yield batch


def _fail(futures: Iterable[asyncio.Future[DeliverResponse]], error: BaseException) -> None:
    for future in futures:
        if future.done():
            continue
        if isinstance(error, asyncio.CancelledError):
            future.cancel()
        else:
            future.set_exception(error)


def _not_delivered(error: HubError) -> NotDelivered | None:
    """Say so if the adapter certainly never began: it refused the call as a whole, or no connection stood."""
    is_refused = isinstance(error, _REFUSALS)
    cause = error.__cause__
    is_unconnected = (
        isinstance(cause, grpc.aio.AioRpcError)
        and cause.code() is grpc.StatusCode.UNAVAILABLE
        and any(text in (cause.details() or "") for text in _NEVER_CONNECTED)
    )
    if not is_unconnected and (not is_refused or isinstance(error, PayloadTooLarge)):
        return None
    refused = _nothing_was_sent(error.reason)
    refused.__cause__ = error
    return refused


def _is_refused_by_the_adapter(response: DeliverResponse) -> bool:
    """Whether an item of a batch got what a call alone would get as an error: no time at all went into an attempt.

    The adapter may not have heard of a new target yet; that is no refusal by the external system.
    """
    is_rejected = response.outcome == adapter_pb2.OUTCOME_REJECTED
    return is_rejected and response.code in _OWN_REFUSALS and not response.duration.ToNanoseconds()


def _nothing_was_sent(reason: str) -> NotDelivered:
    return NotDelivered("The adapter did not take the delivery; nothing was sent.", cause=reason)


@contextmanager
def _on_behalf_of(request: DeliverRequest | LookupRequest) -> Iterator[None]:
    """Let the call's metadata carry the request's own ids."""
    correlation = correlation_id_var.set(request.correlation_id)
    trace = traceparent_var.set(request.traceparent)
    try:
        yield
    finally:
        traceparent_var.reset(trace)
        correlation_id_var.reset(correlation)
