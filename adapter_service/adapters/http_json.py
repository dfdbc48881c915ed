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
    200 with a non-empty object or list                 FOUND; what is in `items`, `data` and the like, alone or beside
                                                        paging members, or in a bare list, are the hits
    200 with other ids, but not ours, in `key_field`    NOT_KNOWN: the filter is not honoured; beside ours they are no
                                                        hits
    200 with an empty object, or an empty list, bare    ABSENT; NOT_KNOWN where the page says that there are more, or
    or wrapped as above                                 where the list is in an object that holds other things, too
    200 with paging members, words, zeros, nulls only   NOT_KNOWN
    404, 204                                            ABSENT; but a 404 with an HTML page, or in a router's own words
                                                        (ROUTERS), is not the system's: NOT_KNOWN
    200 with nothing                                    ABSENT where it says that its length is 0; without a length it
                                                        may have been cut off, and proves nothing
    anything else                                       NOT_KNOWN

Names are compared in lower case, without `_` and `@odata.`.
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
    fold_word,
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

#: Names under which systems wrap what they hold, and those that stand beside it.
WRAPPERS = ("items", "data", "results", "value", "records", "content", "orders", "d", "result", "embedded")
#: Those that say, with any value but nothing, that there is more than the page holds; and those that do with false.
MORE = frozenset(
    {"hasnext", "hasmore", "more", "next", "nextcursor", "nextlink", "nextpage", "nextpagetoken"}
    | {"total", "totalcount", "totalelements", "totalsize", "count"}
)
LAST = frozenset({"last", "islast", "done"})
PAGING_MEMBERS = (
    MORE
    | LAST
    | {"previous", "prev", "first", "links", "meta", "page", "pageable", "pagesize", "pages", "size", "sort", "context"}
    | {"limit", "offset", "totalpages", "numberofelements", "empty", "success"}
)
#: What no document consists of; the words may be of an error.
WORDS = frozenset({"code", "message", "msg"})
#: What routers say in a 404 when they know no such route: Go's net/http and Traefik; ingress-nginx; Kong.
ROUTERS = ("404 page not found", "default backend - 404", "no route matched with those values")
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
        answer = await self._calls.get(url, question, deadline=deadline)
        return classify_lookup(answer, self._key_field, question.request_id)


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


def classify_lookup(answer: Answer, key_field: str, key: str) -> LookupOutcome:
    """Say what an answer to a lookup means, by the second table at the top; `key` is the request's id."""
    if answer.status == 404 and not answer.is_html and not _is_of_a_router(answer):
        return Absent(detail=answer.summary)
    if (answer.status == 204 and not answer.text) or (answer.status == 200 and answer.is_empty):
        return Absent(detail=answer.summary)
    if answer.status != 200 or not isinstance(answer.value, dict | list) or says_error_in_part(answer):
        return not_known(answer)
    held, is_whole = _unwrap(answer.value)
    if held == [] or not answer.value:
        return Absent(detail=answer.summary) if is_whole else not_known(answer)
    if isinstance(held, dict) and [] in (_members(held).get(name) for name in WRAPPERS):
        return NotKnown(detail="neither found nor absent: an object with an empty list")
    documents = [document for document in (held if isinstance(held, list) else [held]) if not _holds_nothing(document)]
    if not documents:
        return not_known(answer)
    ids = [_id_of(document, _plain(key_field)) for document in documents]
    if key.lower() not in ids and any(ids):
        return NotKnown(detail="the lookup answered with other documents: it does not honour its filter")
    hits = sum(held_id in ("", key.lower()) for held_id in ids)
    detail = f"{hits} documents have this key" if hits > 1 else ""
    return Found(response_json=answer.response_json, detail=detail, hits=hits)


def _is_of_a_router(answer: Answer) -> bool:
    words = answer.members.get("message") if answer.is_json else answer.text
    return fold_word(words) in ROUTERS


def _unwrap(value: object) -> tuple[object, bool]:
    """Give what an answer holds, and whether an empty list there is all that there is."""
    is_whole = True
    while isinstance(value, dict):
        members = _members(value)
        wrapped = next((name for name in WRAPPERS if isinstance(members.get(name), dict | list)), None)
        if wrapped is None:
            break
        inner = members.pop(wrapped)
        said = {name: member for name, member in members.items() if name not in PAGING_MEMBERS}
        if not all(name in WORDS or _is_blank(member) for name, member in said.items()):
            break  # an object of its own: an order's `items` are its lines
        is_proof = all(_is_blank(member) and member is not False for member in said.values())
        is_whole = is_whole and is_proof and not _says_more(members)
        value = inner
    return value, is_whole


def _says_more(members: dict[str, object]) -> bool:
    return any(
        (name in MORE and not _is_blank(member))
        or (name in LAST and member is False)
        or (name in PAGING_MEMBERS and isinstance(member, dict) and _says_more(_members(member)))
        for name, member in members.items()
    )


def _holds_nothing(value: object) -> bool:
    if isinstance(value, list):
        return all(map(_holds_nothing, value))
    if isinstance(value, dict):
        said = (member for name, member in _members(value).items() if name not in PAGING_MEMBERS | WORDS)
        return all(map(_holds_nothing, said))
    return _is_blank(value)


def _is_blank(value: object) -> bool:
    """Whether a value says nothing of a document; some systems write numbers and truth values as text."""
    return not value or fold_word(value) in ("0", "false", "null", "ok", "success")


def _id_of(document: object, key_field: str) -> str:
    """The request's id that a document carries, in lower case; '' when it carries none."""
    held_id = _members(document).get(key_field) if isinstance(document, dict) and key_field else None
    return held_id.strip().lower() if isinstance(held_id, str) else ""


def _members(value: dict[str, object]) -> dict[str, object]:
    return {_plain(name): member for name, member in value.items()}


def _plain(name: str) -> str:
    return name.lower().removeprefix("@odata.").replace("_", "")


def _check_lookup(target: Target, lookup: str) -> None:
    rule = f"a path with {' or '.join('{' + name + '}' for name in PLACEHOLDERS)} in it, and no other braces"
    try:
        names = [name for _, name, _, _ in string.Formatter().parse(lookup) if name is not None]
    except ValueError:
        names = []
    check_option(target, "lookup", holds=bool(names) and set(names) <= set(PLACEHOLDERS), rule=rule)
