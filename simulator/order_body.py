"""The few fields that a system reads from an order's body; all the rest stays text, untouched."""

from typing import Any

import msgspec


class OrderBody(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Hold what was read; an absent, null or empty field is ''."""

    text: str
    """The body exactly as received."""
    order_id: str
    integration_id: str
    external_id: str


class _Fields(msgspec.Struct, gc=False, rename="camel"):
    order_id: Any = None
    integration_id: Any = None
    external_id: Any = None


_decode = msgspec.json.Decoder(_Fields).decode


def read_order_body(raw: bytes) -> OrderBody | None:
    """Read a body; None when it is not a JSON object in UTF-8."""
    try:
        fields = _decode(raw)
        text = raw.decode()
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return OrderBody(
        text=text,
        order_id=_as_text(fields.order_id),
        integration_id=_as_text(fields.integration_id),
        external_id=_as_text(fields.external_id),
    )


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return "" if value is None else str(value)
