"""Correlation ids: one rule for what they look like, one place where the current one is kept."""

import os
import re
from contextvars import ContextVar

HEADER = "X-Correlation-ID"
METADATA_KEY = "x-correlation-id"
TRACEPARENT = "traceparent"
_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,128}")
#: By the random digit in whose place it stands: two bits of it are RFC 9562's variant.
_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))
#: Random digits drawn ahead: asking the system each time costs as much as the rest of an id.
_drawn: list[str] = []
_DRAWN_AT_ONCE = 256
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

correlation_id_var: ContextVar[str] = ContextVar("correlation_id", default="")
traceparent_var: ContextVar[str] = ContextVar("traceparent", default="")


def clean_correlation_id(text: str | None) -> str:
    """Take a caller's id when it is safe in headers and logs, else make a new UUID."""
    if text is not None and _PATTERN.fullmatch(text):
        return text
    return _new_uuid()


def clean_traceparent(text: str | None) -> str:
    """Take a caller's W3C trace context when it is well-formed, else nothing."""
    return text if text is not None and _TRACEPARENT.fullmatch(text) else ""


def _new_uuid() -> str:
    """Make a UUID of version 4."""
    try:
        digits = _drawn.pop()
    except IndexError:
        block = os.urandom(16 * _DRAWN_AT_ONCE).hex()
        fresh = [block[at : at + 32] for at in range(0, len(block), 32)]
        digits = fresh.pop()
        _drawn.extend(fresh)
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:]}"
