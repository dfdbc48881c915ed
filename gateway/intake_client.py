"""The gateway's side of intake: creates travel in natural batches, reads one by one.

What decides between 503 and 504 is whether a create can have reached intake: without a connection it cannot, after
the call has left it may have.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import grpc

from chassis.access import Caller
from chassis.batcher import Batcher
from chassis.deadlines import Deadlines
from chassis.errors import (
    HubError,
    KeySetUnavailable,
    OutcomeNotKnown,
    Overloaded,
    PermissionDenied,
    ServiceUnavailable,
    Unauthenticated,
)
from chassis.json_text import LONG_BYTES
from chassis.logs import get_logger
from chassis.rpc_client import RpcClient
from chassis.status import from_status
from chassis.telemetry import Telemetry
from chassis.turns import Turns
from gateway.mapping import to_limits
from integrationhub.intake.v1.intake_pb2 import (
    BatchCreateIntegrationRequestsRequest,
    BatchCreateResult,
    CreateIntegrationRequestRequest,
    GetIntegrationRequestRequest,
    IntegrationRequest,
    ListIntegrationRequestHistoryRequest,
    ListIntegrationRequestHistoryResponse,
    ListIntegrationRequestsRequest,
    ListIntegrationRequestsResponse,
)
from integrationhub.intake.v1.intake_pb2_grpc import IntakeServiceStub

log = get_logger()

Response = TypeVar("Response")

MAX_BATCH_ITEMS = 1000
MAX_BATCH_BYTES = 8 * 1024 * 1024
#: Of a system that a partner's token names, at least: intake bounds a message's fields (chassis/message_fields.py).
NAME_WEIGHT = 200
#: Creates held here while intake is slow, or while long ones wait for their turn; beyond it the gateway says so at
#: once instead of growing.
MAX_HELD_BYTES = 64 * 1024 * 1024
#: Of a create's time, so much may pass until its turn comes: what is sent at the last moment ends as not known.
TURN_SHARE = 0.5
BATCHES_IN_FLIGHT = 2
#: Beside a batch of so many another leaves only when it is as large: a batch costs three milliseconds of CPU.
LARGE_BATCH = 24
#: Long enough for intake to be restarted without a partner noticing.
PATIENCE_SECONDS = 2.0
#: Once intake is known to be away, nobody waits for it.
IMPATIENCE_SECONDS = 0.05
#: Of the gateway's own token, before anything of a call was begun.
_REFUSALS = (Unauthenticated, KeySetUnavailable, PermissionDenied)


class IntakeClient:
    """Creates and reads integration requests at intake; a component."""

    def __init__(self, client: RpcClient, telemetry: Telemetry, *, timeout_seconds: float) -> None:
        self._client = client
        self._stub = IntakeServiceStub(client.channel)
        self._deadlines = Deadlines()
        self._timeout_seconds = timeout_seconds
        # well within the timeout: a create that only waited for a connection was not sent, and must be told so
        self._patience_seconds = min(PATIENCE_SECONDS, timeout_seconds / 2)
        self._held_bytes = 0
        self._turns = Turns()
        self._is_reachable = True
        on_batch = telemetry.histogram("batch_items").labels(batch="create").observe
        self._batcher: Batcher[CreateIntegrationRequestRequest, BatchCreateResult] = Batcher(
            self._create_batch,
            max_items=MAX_BATCH_ITEMS,
            max_weight=MAX_BATCH_BYTES,
            weight=_weight,
            concurrency=BATCHES_IN_FLIGHT,
            large=LARGE_BATCH,
            on_batch=on_batch,
        )
        # alone: the items of a batch are answered together, and checking a long one takes its time
        self._long: Batcher[CreateIntegrationRequestRequest, BatchCreateResult] = Batcher(
            self._create_batch, max_items=1, concurrency=BATCHES_IN_FLIGHT, on_batch=on_batch
        )

    async def create(
        self, request: CreateIntegrationRequestRequest, *, deadline: float | None = None
    ) -> BatchCreateResult:
        """Create one integration request; returns once it is durable, with where the partner's rate stands.

        It ends at `deadline`, an instant of the event loop's clock, or after the client's timeout.

        Raises: HubError as intake refused it; ServiceUnavailable when it certainly did not reach intake;
        OutcomeNotKnown when it may have; Overloaded when too much waits here already.
        """
        size = request.ByteSize()
        if self._held_bytes + size > MAX_HELD_BYTES:
            raise _overloaded()
        self._held_bytes += size
        try:
            with self._deadlines.until(deadline) if deadline else self._deadlines.within(self._timeout_seconds):
                return await (self._batcher if size < LONG_BYTES else self._long).submit(request)
        except TimeoutError:
            raise _outcome_not_known() from None
        finally:
            self._held_bytes -= size

    async def create_in_turn(
        self, prepare: Callable[[], CreateIntegrationRequestRequest], *, size: int
    ) -> BatchCreateResult:
        """Create from a body of `size` bytes that takes long to read; `prepare` reads it when its turn comes.

        Raises: as `create`, Overloaded also when the turn does not come in time; what `prepare` raises.
        """
        if self._held_bytes + size > MAX_HELD_BYTES:
            raise _overloaded()
        self._held_bytes += size
        deadline = asyncio.get_running_loop().time() + self._timeout_seconds
        try:
            request = await self._turns.take(prepare, within_seconds=self._timeout_seconds * TURN_SHARE)
        except TimeoutError:
            raise _overloaded() from None
        finally:
            self._held_bytes -= size
        return await self.create(request, deadline=deadline)

    async def get(self, request_id: str, caller: Caller) -> IntegrationRequest:
        """Read a request of the caller's but its payload. Raises: IntegrationRequestNotFound; ServiceUnavailable."""
        request = GetIntegrationRequestRequest(
            id=request_id,
            partner_id=caller.partner_id,
            partner_limits=to_limits(caller.limits),
            without_payload=True,
        )
        response = await self._read(self._stub.GetIntegrationRequest, request)
        return response.integration_request

    async def list_requests(self, request: ListIntegrationRequestsRequest) -> ListIntegrationRequestsResponse:
        """Read one page. Raises: InvalidRequest for a cursor of another list; ServiceUnavailable."""
        return await self._read(self._stub.ListIntegrationRequests, request)

    async def list_history(self, request_id: str, caller: Caller) -> ListIntegrationRequestHistoryResponse:
        """Read the story of one request. Raises: as `get`."""
        request = ListIntegrationRequestHistoryRequest(
            id=request_id, partner_id=caller.partner_id, partner_limits=to_limits(caller.limits)
        )
        return await self._read(self._stub.ListIntegrationRequestHistory, request)

    async def start(self) -> None:
        """Do nothing: the channel connects when it is used."""

    async def stop(self) -> None:
        """Finish the creates that are waiting or in flight."""
        await asyncio.gather(self._batcher.drain(), self._long.drain())

    async def _create_batch(
        self, requests: Sequence[CreateIntegrationRequestRequest]
    ) -> list[BatchCreateResult | BaseException]:
        await self._require_intake()
        try:
            response = await self._client.unary(
                self._stub.BatchCreateIntegrationRequests, BatchCreateIntegrationRequestsRequest(requests=requests)
            )
        except ServiceUnavailable as error:
            raise _outcome_not_known() from error
        except _REFUSALS as error:
            raise _own_trouble(error) from error
        return [_item_result(result) for result in response.results]

    async def _read(self, method: grpc.aio.UnaryUnaryMultiCallable[Any, Response], request: Any) -> Response:
        try:
            await self._require_intake()
            try:
                return await self._client.unary(method, request)
            except ServiceUnavailable:  # the connection broke meanwhile; a read may be repeated
                await self._require_intake()
                return await self._client.unary(method, request)
        except OutcomeNotKnown as error:
            raise ServiceUnavailable("The answer did not come in time; repeat the call in a moment.") from error
        except _REFUSALS as error:
            raise _own_trouble(error) from error

    async def _require_intake(self) -> None:
        """Raises: ServiceUnavailable when there is no connection to intake; nothing has been sent then."""
        patience = self._patience_seconds if self._is_reachable else IMPATIENCE_SECONDS
        self._is_reachable = await self._client.reachable(timeout_seconds=patience)
        if not self._is_reachable:
            raise ServiceUnavailable("The hub cannot take or show requests now; repeat the call in a moment.")


def _weight(request: CreateIntegrationRequestRequest) -> int:
    weight = request.ByteSize()
    if request.HasField("partner_limits"):
        limits = request.partner_limits
        weight += NAME_WEIGHT * (len(limits.sources.names) + len(limits.targets.names))
    return weight


def _item_result(result: BatchCreateResult) -> BatchCreateResult | BaseException:
    if result.WhichOneof("result") == "integration_request":
        return result
    error = from_status(result.error.code, result.error.message, list(result.error.details))
    # exactly this class: a refusal with a reason of its own is about the partner
    return _own_trouble(error) if type(error) is PermissionDenied else error


def _own_trouble(error: HubError) -> ServiceUnavailable:
    """Keep a refusal of the gateway's own token from looking like a refusal of the partner's."""
    log.error("Intake refuses the gateway's token", reason=error.reason, detail=error.message)
    return ServiceUnavailable("The hub cannot take or show requests now; repeat the call in a moment.")


def _overloaded() -> Overloaded:
    return Overloaded("The hub takes no more for now; repeat the call in a moment.", retry_after_seconds=1)


def _outcome_not_known() -> OutcomeNotKnown:
    return OutcomeNotKnown(
        "It is not known whether the request was stored; repeat the call with the same externalId: "
        "202 or 409 will tell, and it is never stored twice."
    )
