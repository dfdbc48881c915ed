"""The query string of the list: which filters there are and what each may say."""

import re
from collections.abc import Callable
from urllib.parse import parse_qsl

from chassis.access import PartnerLimits
from chassis.clock import from_rfc3339, to_timestamp
from chassis.errors import InvalidRequest, Violation
from gateway.mapping import NAME, NAME_RULE, STATUS_NAMES, to_limits
from integrationhub.intake.v1.intake_pb2 import ListIntegrationRequestsRequest

DEFAULT_LIMIT = 50
MAX_LIMIT = 250

_STATUSES = {name: status for status, name in STATUS_NAMES.items()}
_CORRELATION_ID = re.compile("[A-Za-z0-9._-]{1,128}")
_MOST_PARAMETERS = 20
_LONGEST_CURSOR = 1024


def read_list_query(query_string: bytes, *, partner_id: str, limits: PartnerLimits) -> ListIntegrationRequestsRequest:
    """Read the filter and the page. Raises: InvalidRequest with every parameter at fault."""
    request = ListIntegrationRequestsRequest(
        partner_id=partner_id, page_size=DEFAULT_LIMIT, partner_limits=to_limits(limits)
    )
    violations: list[Violation] = []
    seen: set[str] = set()
    for name, value in _parameters(query_string):
        try:
            if name in seen:
                raise ValueError("stands twice; send it once")
            if name not in _READERS:
                raise ValueError(f"is not a parameter of this call; they are {', '.join(_READERS)}")
            seen.add(name)
            _READERS[name](request, value)
        except ValueError as error:
            violations.append(Violation(pointer=f"/{name[:128]}", detail=str(error)))
    if violations:
        raise InvalidRequest("The query breaks the contract; `errors` says where.", violations)
    return request


def _parameters(query_string: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(query_string.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_PARAMETERS)
    except ValueError as error:
        raise InvalidRequest(
            "The query has too many parameters.", [Violation(pointer="", detail=f"at most {_MOST_PARAMETERS}")]
        ) from error


def _status(request: ListIntegrationRequestsRequest, value: str) -> None:
    if value not in _STATUSES:
        raise ValueError(f"must be one of {', '.join(_STATUSES)}")
    request.status = _STATUSES[value]


def _external_id(request: ListIntegrationRequestsRequest, value: str) -> None:
    request.external_id = _matching(NAME, value, NAME_RULE)


def _target_system(request: ListIntegrationRequestsRequest, value: str) -> None:
    request.target_system = _matching(NAME, value, NAME_RULE)


def _correlation_id(request: ListIntegrationRequestsRequest, value: str) -> None:
    rule = "must be 1 to 128 characters out of A-Z a-z 0-9 . _ -"
    request.correlation_id = _matching(_CORRELATION_ID, value, rule)


def _created_after(request: ListIntegrationRequestsRequest, value: str) -> None:
    request.created_after.CopyFrom(to_timestamp(_instant(value)))


def _created_before(request: ListIntegrationRequestsRequest, value: str) -> None:
    request.created_before.CopyFrom(to_timestamp(_instant(value)))


def _limit(request: ListIntegrationRequestsRequest, value: str) -> None:
    if not re.fullmatch("[0-9]{1,3}", value) or not 1 <= int(value) <= MAX_LIMIT:
        raise ValueError(f"must be a number from 1 to {MAX_LIMIT}")
    request.page_size = int(value)


def _cursor(request: ListIntegrationRequestsRequest, value: str) -> None:
    if not value.isascii() or not 1 <= len(value) <= _LONGEST_CURSOR:
        raise ValueError("must be the nextCursor of the page before")
    request.page_token = value


def _matching(pattern: re.Pattern[str], value: str, rule: str) -> str:
    if not pattern.fullmatch(value):
        raise ValueError(rule)
    return value


def _instant(value: str) -> int:
    try:
        return from_rfc3339(value)
    except (ValueError, OverflowError) as error:
        raise ValueError("must be an RFC 3339 time in UTC, such as 2024-01-15T10:30:00Z") from error


_READERS: dict[str, Callable[[ListIntegrationRequestsRequest, str], None]] = {
    "status": _status,
    "externalId": _external_id,
    "targetSystem": _target_system,
    "correlationId": _correlation_id,
    "createdAfter": _created_after,
    "createdBefore": _created_before,
    "limit": _limit,
    "cursor": _cursor,
}
