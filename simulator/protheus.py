"""The Protheus profile: what it refuses, what it stores, what it answers, and its lookup.

Shapes: the seed's order call and TOTVS's API guide (ErrorModel, items and hasNext). 500 may be a business error there.
"""

from urllib.parse import parse_qsl

import msgspec

from simulator.answers import Answer, encode, json_answer, protheus_error
from simulator.exchange import Exchange
from simulator.order_body import read_order_body
from simulator.orders import Draft, Order
from simulator.targets import KeyConflict, Target

UNAUTHORIZED = protheus_error(401, "401", "Não autorizado", "The bearer token is missing, unknown or expired")
BROKEN_BODY = protheus_error(400, "101", "JSON inválido", "The body is not a JSON object in UTF-8")
ORDER_ID_MISSING = protheus_error(500, "104", "Campo obrigatório não informado: orderId", "orderId is missing or empty")
KEY_CONFLICTS = {
    KeyConflict.IN_PROGRESS: protheus_error(409, "409", "Pedido em processamento", KeyConflict.IN_PROGRESS.value),
    KeyConflict.OTHER_BODY: protheus_error(422, "422", "Chave já usada", KeyConflict.OTHER_BODY.value),
}
LOOKUP_OFF = protheus_error(404, "404", "Recurso não encontrado", "This system has no lookup")
LOOKUP_DOWN = protheus_error(503, "503", "Serviço indisponível", "The lookup is out of order")
LOOKUP_WITHOUT_KEY = protheus_error(400, "101", "Filtro obrigatório", "integrationId or externalId is required")


class _Created(msgspec.Struct, gc=False):
    protheusOrderId: str  # noqa: N815
    status: str
    timestamp: str


def authorize(target: Target, exchange: Exchange) -> Answer | None:
    """Refuse a call without a valid bearer token."""
    return None if target.tokens.accepts(exchange.headers.get(b"authorization")) else UNAUTHORIZED


def begin_order(target: Target, exchange: Exchange) -> Answer | Draft:
    """Check an order call; a Draft is one that is to be stored."""
    body = read_order_body(exchange.body)
    if body is None:
        return BROKEN_BODY
    if not body.order_id:
        return ORDER_ID_MISSING
    key = exchange.header(b"idempotency-key") or ""
    match target.earlier_call(key, body.text):
        case Order() as order:
            return confirm(order)
        case KeyConflict() as conflict:
            return KEY_CONFLICTS[conflict]
    if target.settings.duplicates == "refuse":
        for order in target.orders.by_integration_id.find(body.integration_id):
            return _already_included(order)
    return Draft(
        profile="protheus",
        body=body.text,
        key=key,
        integration_id=body.integration_id,
        order_id=body.order_id,
        external_id=body.external_id,
        correlation_id=exchange.header(b"x-correlation-id") or "",
    )


def confirm(order: Order) -> Answer:
    """Answer for a stored order; the same each time."""
    return Answer(200, encode(_Created(order.id, "Created", order.received_at)))


def look_up(target: Target, exchange: Exchange) -> Answer:
    """Answer with the orders of an integrationId or an externalId; no items = absent."""
    match target.settings.lookup:
        case "off":
            return LOOKUP_OFF
        case "down":
            return LOOKUP_DOWN
    query = dict(parse_qsl(exchange.scope["query_string"].decode("latin-1")))
    if "integrationId" in query:
        found = target.orders.by_integration_id.find(query["integrationId"])
    elif "externalId" in query:
        found = target.orders.by_external_id.find(query["externalId"])
    else:
        return LOOKUP_WITHOUT_KEY
    items = [_item(order) for order in found if order.draft.profile == "protheus"]
    return json_answer(200, {"items": items, "hasNext": False})


def _item(order: Order) -> dict[str, str]:
    return {
        "protheusOrderId": order.id,
        "status": "Created",
        "orderId": order.draft.order_id,
        "externalId": order.draft.external_id,
        "integrationId": order.draft.integration_id,
        "timestamp": order.received_at,
    }


def _already_included(order: Order) -> Answer:
    message = f"Pedido ja incluido anteriormente no pedido do Protheus: {order.id}"
    return protheus_error(500, "111", message, "The integrationId is held already")
