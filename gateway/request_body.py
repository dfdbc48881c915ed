"""Reading a JSON body within its limits: media type, coding, declared and real length.

What the body says is gateway.mapping's; a body that dawdles is cut off by gateway.http_protocol.
"""

import asyncio
import re

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope

from chassis.errors import PayloadTooLarge
from chassis.json_text import MAX_BYTES
from gateway.headers import Headers, headers_of
from gateway.problems import MalformedRequest, UnsupportedMediaType

_BODY_READ = "hub.body_read"
_JSON = re.compile(rb"application/(?:json|[a-z0-9.!#$&^_-]+\+json)\s*(?:;(.*))?", re.IGNORECASE | re.DOTALL)
_CHARSET = re.compile(rb"(?:^|;)\s*charset\s*=\s*\"?([^\";]*)\"?", re.IGNORECASE)
_LINGER_SECONDS = 2.0
_LINGER_BYTES = 8 * MAX_BYTES


async def read_json_body(scope: Scope, receive: Receive) -> bytes:
    """Read the whole body.

    Raises: UnsupportedMediaType; PayloadTooLarge, as soon as it is known; MalformedRequest for a length that is no
    number; ClientDisconnect when the client went away before the end.
    """
    headers = headers_of(scope)
    _require_json(headers)
    if _declared_length(headers) > MAX_BYTES:
        raise _too_large()
    message = await receive()
    body = message.get("body", b"")
    if message.get("more_body"):
        body, message = await _read_rest(body, receive)
    if message["type"] != "http.request":
        raise ClientDisconnect
    if len(body) > MAX_BYTES:
        raise _too_large()
    scope[_BODY_READ] = True
    return bytes(body)


def must_close(scope: Scope) -> bool:
    """Whether a refusal must end the connection: what is unread of the body is long, endless, or may never come."""
    if scope.get(_BODY_READ):
        return False
    headers = headers_of(scope)
    try:
        return b"expect" in headers or b"transfer-encoding" in headers or _declared_length(headers) > MAX_BYTES
    except MalformedRequest:
        return True


async def linger(receive: Receive) -> None:
    """Read and drop what the client still sends, within limits.

    A socket closed with unread bytes is reset, and the reset can overtake the answer that explains it.
    """
    dropped = 0
    try:
        async with asyncio.timeout(_LINGER_SECONDS):
            while dropped < _LINGER_BYTES:
                message = await receive()
                if not message.get("more_body"):
                    return
                dropped += len(message["body"])
    except TimeoutError:
        return


async def _read_rest(first: bytes, receive: Receive) -> tuple[bytearray, Message]:
    """Read until the end, or until it is known to be too much; gives the last message too."""
    body = bytearray(first)
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body") or len(body) > MAX_BYTES:
            return body, message


def _require_json(headers: Headers) -> None:
    types = headers.get(b"content-type", ())
    if types != [b"application/json"] and not (len(types) == 1 and _is_json(types[0])):
        raise UnsupportedMediaType("Send the body as Content-Type: application/json, in UTF-8.")
    codings = headers.get(b"content-encoding")
    if codings and any(coding.strip().lower() != b"identity" for coding in codings):
        raise UnsupportedMediaType("Send the body as it is, without a Content-Encoding.")


def _is_json(content_type: bytes) -> bool:
    match = _JSON.fullmatch(content_type.strip())
    if match is None:
        return False
    charset = _CHARSET.search(match[1] or b"")
    return charset is None or charset[1].strip().lower() == b"utf-8"


def _declared_length(headers: Headers) -> int:
    values = headers.get(b"content-length")
    if not values:
        return 0
    if len(values) > 1 or not values[0].isdigit():
        raise MalformedRequest("The Content-Length is not one number; send it once.")
    return int(values[0][:20])


def _too_large() -> PayloadTooLarge:
    return PayloadTooLarge(f"The body is over {MAX_BYTES} bytes; send a smaller document.", limit=str(MAX_BYTES))
