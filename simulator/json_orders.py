"""The plain JSON profile: a system that takes any JSON object, and can be asked by key. No authentication."""

from collections.abc import Iterator
from urllib.parse import parse_qsl

from simulator.answers import Answer, json_answer
from simulator.exchange import Exchange
from simulator.order_body import read_order_body
from simulator.orders import Draft, Order
from simulator.targets import KeyConflict, Target

BROKEN_BODY = json_answer(400, {"error": "The body is not a JSON object in UTF-8"})
KEY_CONFLICTS = {
    KeyConflict.IN_PROGRESS: json_answer(409, {"error": KeyConflict.IN_PROGRESS.value}),
    KeyConflict.OTHER_BODY: json_answer(422, {"error": KeyConflict.OTHER_BODY.value}),
}
NOT_FOUND = json_answer(404, {"error": "No order has this key"})
LOOKUP_OFF = json_answer(404, {"error": "This system has no lookup"})
LOOKUP_DOWN = json_answer(503, {"error": "The lookup is out of order"})
LOOKUP_WITHOUT_KEY = json_answer(400, {"error": "The query needs a key"})


def begin_order(target: Target, exchange: Exchange) -> Answer | Draft:
    """Check an order call; a Draft is one that is to be stored."""
    body = read_order_body(exchange.body)
    if body is None:
        return BROKEN_BODY
    key = exchange.header(b"idempotency-key") or ""
    match target.earlier_call(key, body.text):
        case Order() as order:
            return confirm(order)
        case KeyConflict() as conflict:
            return KEY_CONFLICTS[conflict]
    if target.settings.duplicates == "refuse":
        for order in _held(target, body.integration_id or key):
            return json_answer(409, {"error": "The order is held already", "id": order.id})
    return Draft(
        profile="json",
        body=body.text,
        key=key,
        integration_id=body.integration_id,
        order_id=body.order_id,
        external_id=body.external_id,
        correlation_id=exchange.header(b"x-correlation-id") or "",
    )


def confirm(order: Order) -> Answer:
    """Answer for a stored order; the same each time."""
    return json_answer(200, {"id": order.id, "status": "Created"})


def look_up(target: Target, exchange: Exchange) -> Answer:
    """Answer with the first order that has this integrationId, or has none and this key, else 404."""
    match target.settings.lookup:
        case "off":
            return LOOKUP_OFF
        case "down":
            return LOOKUP_DOWN
    key = dict(parse_qsl(exchange.scope["query_string"].decode("latin-1"))).get("key", "")
    if not key:
        return LOOKUP_WITHOUT_KEY
    for order in _held(target, key):
        if order.draft.profile == "json":
            record = {"id": order.id, "status": "Created", "key": key, "receivedAt": order.received_at}
            return json_answer(200, record)
    return NOT_FOUND


def _held(target: Target, identity: str) -> Iterator[Order]:
    yield from target.orders.by_integration_id.find(identity)
    yield from (order for order in target.orders.by_key.find(identity) if not order.draft.integration_id)
