"""Faults on demand: what may be switched on, which call gets one, and the answers that replace the true one.

The faults that act on the connection or on the moment of the commit are carried out in `app`.

Kinds. Nothing is done and something else is answered:
  status               any `status`, with `retry_after`, `body` and `content_type` where given; else the error envelope
  no_licence           503, Protheus has no licence left (saturated, not broken)
  html                 a proxy's HTML page with `status` (502)
  redirect             302 to `location`
  cp1252               the error envelope (500) in Windows-1252, and no charset that says so
  error_200            200 with an error envelope
  broken_json_before   200 with half of a JSON text
Nothing is done and nothing is answered:
  reset_before         TCP reset
  hang                 silence until the caller gives up
The call is done, and its answer is spoiled:
  slow                 done and answered `delay_seconds` late, even when the caller has gone
  commit_later         TCP reset at once, and done `delay_seconds` later
  reset_after          TCP reset
  hang_after           silence until the caller gives up
  status_after         as `status`
  broken_json          half of the JSON text
  cut_body             headers, half of the body that they announce, end of the connection
  slow_body            headers at once, the body dripped over `delay_seconds`
  huge_body            the answer grown by `mebibytes`
"""

from collections.abc import Callable
from itertools import count
from typing import Annotated, Any, Literal

import msgspec

from simulator.answers import NO_LICENCE, Answer, encode, protheus_error, reason_phrase

Match = Literal["post", "lookup", "token"]
SpoiledKind = Literal[
    "slow",
    "commit_later",
    "reset_after",
    "hang_after",
    "status_after",
    "broken_json",
    "cut_body",
    "slow_body",
    "huge_body",
]
ReplacedKind = Literal["status", "no_licence", "html", "redirect", "cp1252", "error_200", "broken_json_before"]
SilentKind = Literal["reset_before", "hang"]

HTML = b"<html><head><title>%d</title></head><body><center><h1>%d %s</h1></center><hr>nginx</body></html>"


class Fault(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Describe one fault; it waits in its target's queue until a call fits."""

    kind: SpoiledKind | ReplacedKind | SilentKind
    target: str = "default"
    times: Annotated[int, msgspec.Meta(ge=1)] | None = 1
    """Calls it has left; None = until cleared."""
    match: Match | Literal["any"] = "post"
    external_order_id: str | None = None
    """Only posts whose body has this orderId."""
    status: Annotated[int, msgspec.Meta(ge=200, le=599)] | None = None
    retry_after: str | None = None
    """Retry-After as sent: seconds or an HTTP date."""
    delay_seconds: Annotated[float, msgspec.Meta(ge=0)] = 1.0
    body: Any = None
    """Text is sent as it is, anything else as JSON."""
    content_type: str = "application/json"
    location: str = "/elsewhere"
    mebibytes: Annotated[int, msgspec.Meta(ge=1, le=256)] = 16
    id: int = 0
    """Given by the queue."""


class FaultQueue:
    """Hand the waiting faults of one target to its calls, the oldest fitting one first."""

    def __init__(self) -> None:
        self.waiting: list[Fault] = []

    def add(self, fault: Fault, ids: "count[int]") -> Fault:
        """Queue a fault and return it with its id."""
        numbered = msgspec.structs.replace(fault, id=next(ids))
        self.waiting.append(numbered)
        return numbered

    def take(self, match: Match, read_order_id: Callable[[], str]) -> Fault | None:
        """Use up one time of the first fault that fits this call."""
        for position, fault in enumerate(self.waiting):
            if fault.match not in (match, "any"):
                continue
            if fault.external_order_id is not None and fault.external_order_id != read_order_id():
                continue
            if fault.times == 1:
                del self.waiting[position]
            elif fault.times is not None:
                self.waiting[position] = msgspec.structs.replace(fault, times=fault.times - 1)
            return fault
        return None


def status_answer(fault: Fault) -> Answer:
    """Answer with the fault's status: its body, else nothing below 400 and the error envelope above."""
    status = fault.status or 503
    headers = () if fault.retry_after is None else ((b"retry-after", fault.retry_after.encode("latin-1")),)
    if status in (204, 304):
        body = b""
    elif fault.body is not None:
        body = fault.body.encode() if isinstance(fault.body, str) else encode(fault.body)
    elif status < 400:
        body = b""
    else:
        body = protheus_error(status, str(status), reason_phrase(status), "A fault of the simulator").body
    return Answer(status, body, fault.content_type.encode("latin-1"), headers)


def replacing_answer(fault: Fault, kind: ReplacedKind) -> Answer:
    """Make the answer of a fault that takes the place of the work."""
    match kind:
        case "status":
            return status_answer(fault)
        case "no_licence":
            headers = () if fault.retry_after is None else ((b"retry-after", fault.retry_after.encode("latin-1")),)
            return Answer(NO_LICENCE.status, NO_LICENCE.body, NO_LICENCE.content_type, headers)
        case "html":
            status = fault.status or 502
            return Answer(status, HTML % (status, status, reason_phrase(status).encode()), b"text/html")
        case "redirect":
            return Answer(302, headers=((b"location", fault.location.encode("latin-1")),))
        case "cp1252":
            refused = protheus_error(fault.status or 500, "103", "Cliente não encontrado", "Código do cliente inválido")
            return Answer(refused.status, refused.body.decode().encode("cp1252"))
        case "error_200":
            refused = protheus_error(200, "102", "Erro na inclusão do pedido", "MsExecAuto MATA410 returned an error")
            return refused
        case "broken_json_before":
            return broken(Answer(200, b'{"protheusOrderId":"PRO-000001","status":"Created"}'))


def broken(answer: Answer) -> Answer:
    """Keep half of the body, as a complete HTTP answer."""
    return Answer(answer.status, answer.body[: len(answer.body) // 2], answer.content_type, answer.headers)


def grown(answer: Answer, mebibytes: int) -> Answer:
    """Add a field of the given size to a JSON object."""
    padding = b',"padding":"' + b"x" * (mebibytes * 1024 * 1024) + b'"}'
    return Answer(answer.status, answer.body[:-1] + padding, answer.content_type, answer.headers)
