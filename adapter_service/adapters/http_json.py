"""Any JSON endpoint, by configuration alone: where to post, what carries the request's id, how to ask for it.

    answer to a post                                    outcome
    2xx with JSON that speaks of no error               DELIVERED
    201, 202 or 204 without a body                      DELIVERED
    2xx with JSON that speaks of an error               REJECTED: see says_error in base.py; UNKNOWN where only some of
                                                        a list's elements do
    2xx with `false` or `null`                          UNKNOWN
    2xx otherwise                                       UNKNOWN
    409                                                 asked by the lookup, else REJECTED
    500                                                 UNKNOWN: nothing is known of this system's manners
    anything else                                       by its status: see base.py

    answer to a lookup
    200 with a non-empty object or list                 FOUND; but an empty list in `items`, `data` and the like,
                                                        alone or with paging members, is ABSENT, else NOT_KNOWN;
                                                        what such a list holds, or a bare one, are the hits
    404 but with an HTML page, 204                      ABSENT; a page is a web server's word, not the system's
    200 with nothing                                    ABSENT where it says that its length is 0; without a length it
                                                        may have been cut off, and proves nothing
    anything else                                       NOT_KNOWN

The document is the payload and `key_field`; what else a system wants to know must be in the payload.
"""

import string
from typing import Literal
from urllib.parse import quote

import msgspec

from adapter_service.adapters.base import (
    Adapter,
    check_member_name,
    check_option,
    join_url,
    not_known,
    read_options,
    says_error,
    says_error_in_part,
    settle_conflict,
    verdict_of_status,
)
from adapter_service.answers import Answer
from adapter_service.calls import TargetCalls
from adapter_service.delivery import Delivery, Question
from adapter_service.outcome import (
    Absent,
    Delivered,
    DeliverOutcome,
    Found,
    LookupOutcome,
    NotKnown,
    Rejected,
    Unknown,
    Unsupported,
)
from chassis.targets import Target

#: Names under which systems wrap a list of hits, and those that stand beside one.
LIST_MEMBERS = ("items", "data", "results", "value", "records", "content", "orders")
PAGING_MEMBERS = frozenset(
    {"hasnext", "hasmore", "next", "nextcursor", "previous", "links", "meta", "page", "pagesize", "pages", "size"}
    | {"limit", "offset", "total", "totalcount", "totalpages", "count", "success"}
)
PLACEHOLDERS = ("id", "externalId")


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of a target that are this adapter's."""

    path: str = "/"
    method: Literal["POST", "PUT", "PATCH"] = "POST"
    #: The member that carries the request's id; "" where the system takes no member it does not know.
    key_field: str = "integrationId"
    #: Where to ask, such as "/orders?key={id}"; {id} is the request's id, {externalId} the partner's; "" = nowhere.
    lookup: str = ""


def build(target: Target, calls: TargetCalls) -> Adapter:
    """Make the adapter of one target. Raises: ConfigurationError that names target and key."""
    options = read_options(target, Options)
    if options.key_field:
        check_member_name(target, "key_field", options.key_field)
    if options.lookup:
        _check_lookup(target, options.lookup)
    lookup_url = join_url(target, "lookup", options.lookup, with_query=True) if options.lookup else ""
    return HttpJson(target, options, join_url(target, "path", options.path), lookup_url, calls)


class HttpJson:
    """One system that takes JSON."""

    def __init__(self, target: Target, options: Options, url: str, lookup_url: str, calls: TargetCalls) -> None:
        self.url = url
        self.supports_lookup = bool(lookup_url)
        self._lookup_url = lookup_url
        self._method = options.method
        self._key_field = options.key_field
        self._idempotent = target.idempotent
        self._calls = calls

    async def deliver(self, delivery: Delivery, deadline: float) -> DeliverOutcome:
        """Post the document once and classify the answer. Raises: NotSent; NoAnswer."""
        body = delivery.body({self._key_field: delivery.request_id} if self._key_field else {})
        answer = await self._calls.post(self.url, body, delivery, deadline=deadline, method=self._method)
        outcome = classify(answer)
        if answer.status == 409 and isinstance(outcome, Rejected):
            return await settle_conflict(self, delivery, outcome, deadline, idempotent=self._idempotent)
        return outcome

    async def lookup(self, question: Question, deadline: float) -> LookupOutcome:
        """Ask as the option `lookup` says. Raises: NotSent; NoAnswer."""
        if not self.supports_lookup:
            return Unsupported()
        url = self._lookup_url.replace("{id}", quote(question.request_id, safe=""))
        url = url.replace("{externalId}", quote(question.external_id, safe=""))
        return classify_lookup(await self._calls.get(url, question, deadline=deadline))


def classify(answer: Answer) -> DeliverOutcome:
    """Say what an answer to a post means, by the first table at the top."""
    if not answer.is_success:
        return verdict_of_status(answer)
    if says_error(answer):
        return Rejected(code=str(answer.status), detail=answer.summary, response_json=answer.response_json)
    is_doubtful = answer.value is None or answer.value is False or says_error_in_part(answer)
    if (answer.is_json and not is_doubtful) or (answer.status in (201, 202, 204) and not answer.text):
        return Delivered(response_json=answer.response_json)
    return Unknown(code=str(answer.status), detail=answer.summary, response_json=answer.response_json)


def classify_lookup(answer: Answer) -> LookupOutcome:
    """Say what an answer to a lookup means, by the second table at the top."""
    if (answer.status == 404 and not answer.is_html) or (answer.status == 204 and not answer.text):
        return Absent(detail=answer.summary)
    if answer.status == 200 and answer.is_empty:
        return Absent(detail=answer.summary)
    if answer.status != 200 or not isinstance(answer.value, dict | list) or says_error_in_part(answer):
        return not_known(answer)
    if not answer.value:
        return Absent(detail=answer.summary)
    wrapped = next((name for name in LIST_MEMBERS if name in answer.value), None)
    if isinstance(answer.value, list) or wrapped is None:
        return _found(answer, answer.value)
    is_list = {str(name).lower() for name in answer.value} - {wrapped} <= PAGING_MEMBERS
    if answer.value[wrapped]:  # an order's own `items` are its lines
        return _found(answer, answer.value[wrapped] if is_list else answer.value)
    if is_list:
        return Absent(detail=answer.summary)
    return NotKnown(detail=f"neither found nor absent: an object with an empty {wrapped}")


def _found(answer: Answer, held: object) -> Found:
    hits = len(held) if isinstance(held, list) else 1
    detail = f"{hits} documents have this key" if hits > 1 else ""
    return Found(response_json=answer.response_json, detail=detail, hits=hits)


def _check_lookup(target: Target, lookup: str) -> None:
    rule = f"a path with {' or '.join('{' + name + '}' for name in PLACEHOLDERS)} in it, and no other braces"
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(lookup) if name is not None]
    except ValueError:
        names = []
    check_option(target, "lookup", holds=bool(names) and set(names) <= set(PLACEHOLDERS), rule=rule)
