"""What goes back over the wire: an answer, the Protheus error envelope, a time. Pure values: `exchange` sends them."""

from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import msgspec

JSON = b"application/json"
JSON_UTF8 = b"application/json; charset=utf-8"

encode = msgspec.json.Encoder().encode


class Answer(msgspec.Struct, frozen=True, gc=False):
    """Hold one HTTP answer; Content-Length is added when it is sent."""

    status: int
    body: bytes = b""
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


class ErrorEnvelope(msgspec.Struct, frozen=True, gc=False):
    """TOTVS's ErrorModel, with its three required fields."""

    code: str
    message: str
    detailedMessage: str  # noqa: N815 (the name on the wire)


def json_answer(status: int, value: Any) -> Answer:
    """Answer with a value as JSON."""
    return Answer(status, encode(value))


def protheus_error(status: int, code: str, message: str, detail: str) -> Answer:
    """Answer as Protheus does when it refuses."""
    return Answer(status, encode(ErrorEnvelope(code, message, detail)), JSON_UTF8)


def reason_phrase(status: int) -> str:
    """Name a status; codes that the standard does not know are named by their number."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"Status {status}"


def timestamp(moment: datetime) -> str:
    """Write a UTC time as RFC 3339 with milliseconds and `Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


NO_LICENCE = protheus_error(
    503,
    "503",
    "Não há licença disponível",
    "No licence available: every connection of the License Server is in use",
)
