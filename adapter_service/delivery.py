"""What is to be delivered, and what is to be asked: values only, checked by mapping.py.

The document's values stay the bytes that the partner sent; nothing here reads a number.
"""

from collections.abc import Mapping

import msgspec

_ENCODER = msgspec.json.Encoder()


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Asks a system for one integration request."""

    request_id: str
    external_id: str
    correlation_id: str
    #: W3C trace context; '' when nobody traces.
    traceparent: str


class Delivery(Question, frozen=True, kw_only=True):
    """One attempt to deliver one integration request."""

    source_system: str
    #: The payload's top-level members, each verbatim.
    document: Mapping[str, msgspec.Raw]
    attempt: int

    def body(self, added: Mapping[str, str]) -> bytes:
        """The document with members of the hub's own; where it has one of that name already, ours stands instead."""
        return _ENCODER.encode({**self.document, **added})
