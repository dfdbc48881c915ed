"""Correlation ids: one rule for what they look like, one place where the current one is kept."""

import re
from contextvars import ContextVar

from chassis.ids import new_id

HEADER = "X-Correlation-ID"
METADATA_KEY = "x-correlation-id"
TRACEPARENT = "traceparent"
_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,128}")
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

correlation_id_var: ContextVar[str] = ContextVar("correlation_id", default="")
traceparent_var: ContextVar[str] = ContextVar("traceparent", default="")


def clean_correlation_id(text: str | None) -> str:
    """Take a caller's id when it is safe in headers and logs, else make a new UUID.

    It is one of version 7: requests are found by it, and ids without order scatter their index over all of its pages.
    """
    if text is not None and _PATTERN.fullmatch(text):
        return text
    return new_id()


def clean_traceparent(text: str | None) -> str:
    """Take a caller's W3C trace context when it is well-formed, else nothing."""
    return text if text is not None and _TRACEPARENT.fullmatch(text) else ""
