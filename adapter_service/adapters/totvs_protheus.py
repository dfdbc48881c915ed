"""TOTVS Protheus: orders over its REST service, as the seed's step 8 and TOTVS's API guide have them.

    answer                                              outcome
    2xx, a JSON object without an error                 DELIVERED
    code 111, or "pedido … já incluído"                 DELIVERED: the order is there, its number is in the text
    409 "já liberado" and the like                      DELIVERED
    409 otherwise                                       asked by the lookup, else REJECTED
    refused, "já incluído" of what is not the order     the same, but for the codes 101 to 118, which say what is wrong
    2xx with an error envelope                          REJECTED
    2xx, {code, message} alone, the code a word         UNKNOWN: "OK" and "E7" cannot be told apart
    2xx otherwise (empty, cut, no JSON object)          UNKNOWN
    500 with an error envelope                          REJECTED: Protheus answers business errors so
    500 with an HTML page                               UNAVAILABLE: Protheus answers in JSON, this is a proxy's page
    503 that speaks of a licence                        THROTTLED
    anything else                                       by its status: see base.py

The envelope and its texts: totvs_errors.py.
Journey 5/5. Before: adapter_service/servicer.py. After: the external system.
"""

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
    settle_conflict,
    throttled,
    verdict_of_status,
)
from adapter_service.adapters.totvs_errors import ErrorEnvelope, may_be_included, read_envelope, speaks_of_licence
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
    Unavailable,
    Unknown,
)
from chassis.targets import Target

_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ENCODER = msgspec.json.Encoder()


class Options(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The keys of a target that are this adapter's."""

    path: str = "/protheus/v1/orders"
    #: Company group and branch, such as "T3,M RJ 01": no space after the comma, spaces in the branch count.
    tenant_id: str = ""
    #: The member that carries the request's id, and the filter that finds it.
    key_field: str = "integrationId"


class Page(msgspec.Struct):
    """A list as TOTVS's API guide has it; older services write hasNext as text."""

    items: list[dict[str, msgspec.Raw]]
    hasNext: bool | str = False  # noqa: N815 (the name on the wire)

    @property
    def is_last(self) -> bool:
        """Whether the list ends with this page."""
        return fold_word(self.hasNext) == "false"


_PAGE = msgspec.json.Decoder(Page)


def build(target: Target, calls: TargetCalls) -> Adapter:
    """Make the adapter of one target. Raises: ConfigurationError that names target and key."""
    options = read_options(target, Options)
    check_member_name(target, "key_field", options.key_field)
    tenant_id = options.tenant_id
    check_option(target, "tenant_id", holds=tenant_id.isascii() and tenant_id.isprintable(), rule="printable ASCII")
    return TotvsProtheus(target, options, join_url(target, "path", options.path), calls)


class TotvsProtheus:
    """One Protheus environment."""

    supports_lookup = True

    def __init__(self, target: Target, options: Options, url: str, calls: TargetCalls) -> None:
        self.url = url
        self._calls = calls
        self._key_field = options.key_field
        self._idempotent = target.idempotent
        self._headers = {"tenantId": options.tenant_id} if options.tenant_id else {}

    async def deliver(self, delivery: Delivery, deadline: float) -> DeliverOutcome:
        """Post the order once and classify the answer. Raises: NotSent; NoAnswer."""
        body = delivery.body({"originSystem": delivery.source_system, self._key_field: delivery.request_id})
        answer = await self._calls.post(self.url, body, delivery, deadline=deadline, headers=self._headers)
        outcome = classify(answer)
        if isinstance(outcome, Rejected) and (answer.status == 409 or may_be_included(answer)):
            may_run_still = self._idempotent and answer.status == 409
            return await settle_conflict(self, delivery, outcome, deadline, idempotent=may_run_still)
        return outcome

    async def lookup(self, question: Question, deadline: float) -> LookupOutcome:
        """Ask by the request's id. Raises: NotSent; NoAnswer."""
        url = f"{self.url}?{self._key_field}={quote(question.request_id, safe='')}"
        answer = await self._calls.get(url, question, deadline=deadline, headers=self._headers)
        return classify_lookup(answer, self._key_field, question.request_id)


def classify(answer: Answer) -> DeliverOutcome:
    """Say what an answer to a posted order means, by the table at the top."""
    envelope = read_envelope(answer)
    if envelope is not None and envelope.says_done(answer.status):
        return Delivered(response_json=_with_order_number(answer, envelope))
    if answer.is_success:
        return _classify_success(answer, envelope)
    code, detail = (envelope.code, envelope.text) if envelope is not None else ("", "")
    match answer.status:
        case 500 if envelope is not None:
            return Rejected(code=code, detail=detail, response_json=answer.response_json)
        case 500 if answer.is_html:
            return Unavailable(code="500", detail=answer.summary, response_json=answer.response_json)
        case 503 if speaks_of_licence(answer):
            return throttled(answer, code or "503", detail or answer.summary)
        case _:
            return verdict_of_status(answer, code=code, detail=detail)


def classify_lookup(answer: Answer, key_field: str, key: str) -> LookupOutcome:
    """Say what an answer to a lookup means; orders that are not ours prove that the filter was not honoured."""
    if answer.status != 200 or not answer.is_json or says_error(answer):
        return not_known(answer)
    try:
        page = _PAGE.decode(answer.text)
    except msgspec.DecodeError:
        return NotKnown(detail=answer.summary)
    if not page.items:
        return Absent(detail="no order has this id") if page.is_last else not_known(answer)
    quoted = _ENCODER.encode(key)
    ours = [item for item in page.items if bytes(item.get(key_field, b"")) == quoted]
    is_single = len(page.items) == 1 and page.is_last
    if not ours and not (is_single and key_field not in page.items[0]):
        return NotKnown(detail="the lookup answered with other orders: it does not honour its filter")
    held = ours or page.items
    detail = f"{len(held)} orders have this id" if len(held) > 1 else ""
    return Found(response_json=answer.keepable(_ENCODER.encode(held[0]).decode()), detail=detail, hits=len(held))


def _classify_success(answer: Answer, envelope: ErrorEnvelope | None) -> DeliverOutcome:
    code = str(answer.status)
    if envelope is not None:
        kind = Rejected if envelope.is_certain or says_error(answer) else Unknown
        return kind(code=envelope.code, detail=envelope.text, response_json=answer.response_json)
    if says_error(answer):
        return Rejected(code=code, detail=answer.summary, response_json=answer.response_json)
    if isinstance(answer.value, dict) and answer.value:
        return Delivered(response_json=answer.response_json)
    return Unknown(code=code, detail=answer.summary, response_json=answer.response_json)


def _with_order_number(answer: Answer, envelope: ErrorEnvelope) -> str:
    """Put the existing order's number where a new order's stands."""
    if not envelope.order_number:
        return answer.response_json
    members = _MEMBERS.decode(answer.response_json)
    number = msgspec.Raw(_ENCODER.encode(envelope.order_number))
    return answer.keepable(_ENCODER.encode({"protheusOrderId": number, **members}).decode())
