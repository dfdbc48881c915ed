"""Dead letters over gRPC, in the words that people and programs read."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from chassis.settings import HubSettings
from console.history import Event
from console.operator_client import OperatorClient
from console.tables import instant_text
from integrationhub.intake.v1.dead_letters_pb2 import (
    DeadLetter as DeadLetterMessage,
)
from integrationhub.intake.v1.dead_letters_pb2 import (
    DeadLetterSelection,
    DeadLetterState,
    DiscardDeadLettersRequest,
    GetDeadLetterRequest,
    ListDeadLettersRequest,
    RedriveDeadLettersRequest,
    SettleResult,
)
from integrationhub.intake.v1.dead_letters_pb2_grpc import DeadLetterServiceStub

PAGE_SIZE = 250
#: That intake takes in one selection.
MAX_IDS = 1000
SETTLING_WAS_LOST = "part of it may be done; run the same command again, nothing is settled twice"
_STATE_PREFIX = "DEAD_LETTER_STATE_"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which dead letters are meant: ids, or a filter over the open ones, or every open one."""

    ids: tuple[str, ...] = ()
    target: str = ""
    failure_reason: str = ""
    partner: str = ""
    every: bool = False

    def to_proto(self) -> DeadLetterSelection:
        """Write it as the contract has it."""
        return DeadLetterSelection(
            ids=self.ids,
            target_system=self.target,
            reason=self.failure_reason,
            partner_id=self.partner,
            all=self.every,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadLetter:
    """One failed request that wants, or wanted, an operator."""

    id: str
    request_id: str
    partner_id: str
    external_id: str
    source_system: str
    target_system: str
    correlation_id: str
    reason: str
    detail: str
    attempts: int
    state: str
    created_at: datetime
    settled_at: datetime | None
    settled_by: str
    settled_reason: str
    #: Only where one is shown.
    payload_json: str
    payload_not_readable: bool

    @classmethod
    def from_proto(cls, message: DeadLetterMessage) -> Self:
        """Read the contract's message."""
        failed = message.integration_request
        return cls(
            id=message.id,
            request_id=failed.id,
            partner_id=failed.partner_id,
            external_id=failed.external_id,
            source_system=failed.source_system,
            target_system=failed.target_system,
            correlation_id=failed.correlation_id,
            reason=message.reason,
            detail=message.detail,
            attempts=message.attempts,
            state=DeadLetterState.Name(message.state).removeprefix(_STATE_PREFIX).lower(),
            created_at=message.created_at.ToDatetime(tzinfo=UTC),
            settled_at=message.settled_at.ToDatetime(tzinfo=UTC) if message.HasField("settled_at") else None,
            settled_by=message.settled_by,
            settled_reason=message.settled_reason,
            payload_json=failed.payload_json,
            payload_not_readable=message.payload_not_readable,
        )

    def row(self) -> tuple[object, ...]:
        """The row of `hub dead-letters list`."""
        return (
            self.request_id,
            instant_text(self.created_at),
            self.target_system,
            self.partner_id,
            self.external_id,
            self.reason,
            self.attempts,
            self.state,
            self.detail,
        )

    def to_json(self) -> dict[str, Any]:
        """Write it with camelCase names and without its payload."""
        item = {
            "id": self.id,
            "requestId": self.request_id,
            "partnerId": self.partner_id,
            "externalId": self.external_id,
            "sourceSystem": self.source_system,
            "targetSystem": self.target_system,
            "correlationId": self.correlation_id,
            "reason": self.reason,
            "detail": self.detail,
            "attempts": self.attempts,
            "state": self.state,
            "createdAt": instant_text(self.created_at),
        }
        if self.settled_at is not None:
            item["settledAt"] = instant_text(self.settled_at)
            item["settledBy"] = self.settled_by
            item["settledReason"] = self.settled_reason
        if self.payload_not_readable:
            item["payloadNotReadable"] = True
        return item


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What became of one dead letter."""

    id: str
    request_id: str
    result: str
    #: Why nothing was done; empty where something was.
    detail: str

    @classmethod
    def from_proto(cls, message: SettleResult) -> Self:
        """Read the contract's message."""
        return cls(
            id=message.id, request_id=message.integration_request_id, result=message.result, detail=message.detail
        )

    def to_json(self) -> dict[str, str]:
        """Write it with camelCase names."""
        return {"id": self.id, "requestId": self.request_id, "result": self.result, "detail": self.detail}


class DeadLetterClient(OperatorClient):
    """Calls DeadLetterService as an operator."""

    def __init__(self, settings: HubSettings) -> None:
        super().__init__(settings, "intake")
        self._stub = DeadLetterServiceStub(self.channel)

    def list_newest(
        self, *, target: str, failure_reason: str, partner: str, state: str, limit: int
    ) -> tuple[list[DeadLetter], bool]:
        """List the newest, `limit` at most, and say whether there are more. Raises: HubError."""
        found: list[DeadLetter] = []
        page_token = ""
        while len(found) < limit:
            request = ListDeadLettersRequest(
                target_system=target,
                reason=failure_reason,
                partner_id=partner,
                state=_state(state),
                page_size=min(PAGE_SIZE, limit - len(found)),
                page_token=page_token,
            )
            page = self.call(self._stub.ListDeadLetters, request)
            found += map(DeadLetter.from_proto, page.dead_letters)
            page_token = page.next_page_token
            if not page_token:
                break
        return found, bool(page_token)

    def get(self, letter_id: str) -> tuple[DeadLetter, list[Event]]:
        """Read one with its payload and history. Raises: HubError when there is none."""
        answer = self.call(self._stub.GetDeadLetter, GetDeadLetterRequest(id=letter_id))
        return DeadLetter.from_proto(answer.dead_letter), [Event.from_proto(entry) for entry in answer.history]

    def redrive(
        self, selection: Selection, *, dry_run: bool, reason: str, payload_json: str, certainly_absent: bool
    ) -> list[Settled]:
        """Redrive what is selected. Idempotent. Raises: OutcomeNotKnown when the answer was lost; HubError."""
        request = RedriveDeadLettersRequest(
            selection=selection.to_proto(),
            dry_run=dry_run,
            reason=reason,
            payload_json=payload_json,
            certainly_absent=certainly_absent,
        )
        return self._settle(self._stub.RedriveDeadLetters, request)

    def discard(self, selection: Selection, *, dry_run: bool, reason: str) -> list[Settled]:
        """Discard what is selected. Idempotent. Raises: OutcomeNotKnown when the answer was lost; HubError."""
        request = DiscardDeadLettersRequest(selection=selection.to_proto(), dry_run=dry_run, reason=reason)
        return self._settle(self._stub.DiscardDeadLetters, request)

    def _settle(self, method: Any, request: Any) -> list[Settled]:
        lost = {} if request.dry_run else {"when_lost": SETTLING_WAS_LOST}
        return [Settled.from_proto(result) for result in self.call(method, request, **lost).results]


def _state(name: str) -> "DeadLetterState.ValueType":
    if name == "all":
        return DeadLetterState.DEAD_LETTER_STATE_UNSPECIFIED
    return DeadLetterState.Value(_STATE_PREFIX + name.upper())
