"""What every adapter is, and what they share: options, the verdict of a status, the signs of an error in a body.

What a status says when the body says nothing (RFC 9110; `certainly not applied` or nothing):

    303                 UNKNOWN       what was posted may have been carried out; its answer is elsewhere (15.4.4)
    other 3xx           REJECTED      a redirect is not followed: it may lead anywhere
    408, 425            UNAVAILABLE   by definition the request was not read, or not acted on
    429                 THROTTLED     with its Retry-After
    other 4xx           REJECTED      401 never comes here: see calls.py
    501, 505            REJECTED      the system does not know how, and never will
    503                 UNAVAILABLE   with its Retry-After
    503 of a proxy      UNKNOWN       where its words (no JSON) are those of a request that was, or may have been,
                                      passed on: see PASSED_ON
    500 and other 5xx   UNKNOWN       502 and 504 are a proxy's word: the system behind it may have applied it
    anything else       UNKNOWN
"""

import re
from typing import Protocol, TypeVar

import msgspec

from adapter_service.answers import Answer
from adapter_service.delivery import Delivery, Question
from adapter_service.outcome import (
    Delivered,
    DeliverOutcome,
    Found,
    LookupOutcome,
    NotKnown,
    Rejected,
    Throttled,
    Unavailable,
    Unknown,
)
from chassis.errors import ConfigurationError
from chassis.http_client import NoAnswer, NotSent
from chassis.targets import Target

Options = TypeVar("Options", bound=msgspec.Struct)
_PATH = re.compile(r"/[A-Za-z0-9._~:/@!$&'()*+,;=%-]*")
_PATH_AND_QUERY = re.compile(r"/[A-Za-z0-9._~:/@!$&'()*+,;=%?{}-]*")
_MEMBER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,127}")
#: Of these one stands in an error, but for JSend's.
_SIGNS = frozenset({"error", "errors", "success", "ok", "fault", "faultcode", "detailedmessage", "errorcode"})
#: A proxy's words for a request that it had passed on, or may have: Envoy's, unless its one try got no connection, no
#: room or no stream (StreamResetReason in envoy/http/stream_reset_handler.h); Varnish's; Fastly's ("Synthetic errors
#: in VCL"); the page of Heroku's router, which is the same for H12, a request that runs still ("Request Timeout").
PASSED_ON = re.compile(
    r"disconnect/reset before headers(?!\. reset reason: (?:(?:local |remote )?connection failure|connection timeout"
    r"|overflow|(?:local|remote) refused stream reset))"
    r"|backend fetch failed|first byte timeout|between bytes timeout|backend read error"
    r"|herokucdn\.com/error-pages/application-error",
    re.IGNORECASE,
)


class Adapter(Protocol):
    """One target in its own protocol. Both calls may raise NotSent and NoAnswer (chassis.http_client)."""

    #: Where documents are posted; without query and credentials.
    url: str
    supports_lookup: bool

    async def deliver(self, delivery: Delivery, deadline: float) -> DeliverOutcome:
        """Post once and classify the answer; `deadline` is an instant of the event loop's clock."""
        ...

    async def lookup(self, question: Question, deadline: float) -> LookupOutcome:
        """Ask whether the system holds the document; change nothing there."""
        ...


def read_options(target: Target, kind: type[Options]) -> Options:
    """Read the adapter's own keys of a target. Raises: ConfigurationError that names target and key."""
    try:
        return msgspec.convert(target.options, kind)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f"targets.{target.name}: {error}") from error


def check_option(target: Target, key: str, *, holds: bool, rule: str) -> None:
    """Raises: ConfigurationError that names target, key and rule when the rule does not hold."""
    if not holds:
        raise ConfigurationError(f"targets.{target.name}: {key} must be {rule}")


def join_url(target: Target, key: str, path: str, *, with_query: bool = False) -> str:
    """Put a path from the options after the target's base URL. Raises: ConfigurationError."""
    pattern = _PATH_AND_QUERY if with_query else _PATH
    rule = "a quoted path that begins with /" + ("" if with_query else ", without a query")
    check_option(target, key, holds=pattern.fullmatch(path) is not None, rule=rule)
    check_option(target, "base_url", holds=not set("?#") & set(target.base_url), rule="without query and fragment")
    return target.base_url.rstrip("/") + path


def check_member_name(target: Target, key: str, name: str) -> None:
    """Raises: ConfigurationError when `name` is no plain member name."""
    check_option(target, key, holds=_MEMBER_NAME.fullmatch(name) is not None, rule="a member name")


def verdict_of_status(answer: Answer, *, code: str = "", detail: str = "") -> DeliverOutcome:
    """Classify by the status alone, by the table above; `code` and `detail` are the body's words where it has any."""
    code = code or str(answer.status)
    detail = detail or answer.summary
    match answer.status:
        case 429:
            return throttled(answer, code, detail)
        case 503 if not answer.is_json and PASSED_ON.search(answer.text[:10_000]) is not None:
            return Unknown(code=code, detail=detail, response_json=answer.response_json)
        case 408 | 425 | 503:
            return Unavailable(
                detail=detail,
                code=code,
                retry_after_seconds=answer.retry_after_seconds,
                response_json=answer.response_json,
            )
        case status if (300 <= status < 500 and status != 303) or status in (501, 505):
            return Rejected(code=code, detail=detail, response_json=answer.response_json)
        case _:
            return Unknown(code=code, detail=detail, response_json=answer.response_json)


def throttled(answer: Answer, code: str, detail: str) -> Throttled:
    """The system is saturated."""
    return Throttled(
        detail=detail, code=code, retry_after_seconds=answer.retry_after_seconds, response_json=answer.response_json
    )


def not_known(answer: Answer) -> NotKnown:
    """An answer to a lookup that says neither."""
    return NotKnown(detail=answer.summary, code=str(answer.status), retry_after_seconds=answer.retry_after_seconds)


async def settle_conflict(
    adapter: Adapter, delivery: Delivery, refusal: Rejected, deadline: float, *, idempotent: bool
) -> DeliverOutcome:
    """Decide a 409, which may be about an earlier post of this very request, by asking the system.

    Where it honours the key and holds nothing, the first post may be running still
    (draft-ietf-httpapi-idempotency-key-header).
    """
    try:
        found = await adapter.lookup(delivery, deadline) if adapter.supports_lookup else None
    except (NotSent, NoAnswer) as error:  # of the lookup: the earlier post may have been applied all the same
        found = NotKnown(detail=error.detail)
    if isinstance(found, Found):
        return Delivered(response_json=found.response_json, hits=found.hits)
    if idempotent or isinstance(found, NotKnown):
        return Unknown(code=refusal.code, detail=refusal.detail, response_json=refusal.response_json)
    return refusal


def says_error(answer: Answer) -> bool:
    """Whether a JSON body that came with a success status speaks of an error all the same, and of nothing else."""
    if "data" not in answer.members and isinstance(answer.value, dict):  # as most are: nothing to look through
        return _is_error(answer.members)
    return _errors(answer.value) == {True}


def says_error_in_part(answer: Answer) -> bool:
    """Whether any part of such a body speaks of an error: of a list's elements, some may have succeeded."""
    if "data" not in answer.members and isinstance(answer.value, dict):
        return _is_error(answer.members)
    return True in _errors(answer.value)


def _errors(value: object) -> set[bool]:
    """For each object in the body whether it is an error; a list, and what is wrapped in `data`, is looked through."""
    if isinstance(value, list):
        return {is_error for element in value for is_error in _errors(element)}
    if not isinstance(value, dict):
        return {False}
    members = {name.lower(): member for name, member in value.items()}
    if _is_error(members):
        return {True}
    return _errors(members.get("data"))


def _is_error(members: dict[str, object]) -> bool:
    """Know an error by its members, named in lower case: common ones, JSend's, SOAP's and TOTVS's."""
    if "status" in members and _is_jsend_error(members):
        return True
    if _SIGNS.isdisjoint(members):  # as most are
        return False
    return (
        bool(members.get("error") or members.get("errors"))
        or _is_false(members.get("success"))
        or _is_false(members.get("ok"))
        or (isinstance(members.get("fault"), dict) and bool(members["fault"]))
        or ("faultcode" in members and "faultstring" in members)
        or ("detailedmessage" in members and "message" in members)
        or ("errorcode" in members and "errormessage" in members)
    )


def _is_false(value: object) -> bool:
    return value is False or (isinstance(value, str) and fold_word(value) == "false")


def _is_jsend_error(members: dict[str, object]) -> bool:
    """With a message, with data or alone: a document may have a status of its own, and hold "error" in it."""
    is_jsend = "message" in members or "data" in members or len(members) == 1
    return is_jsend and fold_word(members["status"]) in ("error", "fail", "failure", "failed")


def fold_word(value: object) -> str:
    """A text, number, truth value or null in lower case, as some systems write each as text; '' for all else."""
    return "" if isinstance(value, list | dict) else str(value).strip().lower()
