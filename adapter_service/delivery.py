"""What is to be delivered, and what is to be asked: values only, checked by mapping.py.

The document's values stay the bytes that the partner sent; nothing here reads a number.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

_ENCODER = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Asks a system for one integration request."""

    request_id: str
    external_id: str
    correlation_id: str
    #: W3C trace context; '' when nobody traces.
    traceparent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery(Question):
    """One attempt to deliver one integration request."""

    source_system: str
    #: The payload's top-level members, each verbatim.
    document: Mapping[str, msgspec.Raw]
    attempt: int

    def body(self, added: Mapping[str, str]) -> bytes:
        """The document with members of the hub's own; where it has one of that name already, ours stands instead."""
        return _ENCODER.encode({**self.document, **added})
