"""The administration calls below /_sim: faults, settings, and the record of what the targets saw and hold."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import merge
from itertools import islice
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from simulator.answers import Answer, json_answer, timestamp
from simulator.exchange import Call, Calls, Exchange
from simulator.faults import Fault
from simulator.orders import order_record
from simulator.targets import DEFAULT, Targets, TargetSettings

ORDERS_PER_PAGE = 1_000
NO_CONTENT = Answer(204)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminRequest:
    """Carry what an administration call reads and acts on."""

    targets: Targets
    calls: Calls
    query: dict[str, str]
    body: bytes

    @property
    def target(self) -> str | None:
        """Name the target that was asked for; None = all."""
        return self.query.get("target")


def answer(targets: Targets, calls: Calls, exchange: Exchange) -> Answer:
    """Answer one administration call; a mistake in it is 400 with the reason."""
    action = ACTIONS.get((exchange.scope["method"], exchange.scope["path"]))
    if action is None:
        return json_answer(404, {"error": "No such administration call"})
    query = dict(parse_qsl(exchange.scope["query_string"].decode("latin-1")))
    try:
        return action(AdminRequest(targets=targets, calls=calls, query=query, body=exchange.body))
    except (msgspec.DecodeError, ValueError) as error:
        return json_answer(400, {"error": str(error)})


def _add_fault(request: AdminRequest) -> Answer:
    fault = msgspec.convert({"target": request.target or DEFAULT, **_read_object(request.body)}, Fault)
    return json_answer(201, request.targets.get(fault.target).faults.add(fault, request.targets.fault_ids))


def _list_faults(request: AdminRequest) -> Answer:
    waiting = [fault for target in request.targets.selected(request.target) for fault in target.faults.waiting]
    return json_answer(200, {"items": waiting})


def _clear_faults(request: AdminRequest) -> Answer:
    for target in request.targets.selected(request.target):
        target.faults.waiting.clear()
    return NO_CONTENT


def _change_settings(request: AdminRequest) -> Answer:
    changes = _read_object(request.body)
    target = request.targets.get(str(changes.pop("target", request.target or DEFAULT)))
    target.settings = msgspec.convert({**msgspec.structs.asdict(target.settings), **changes}, TargetSettings)
    return json_answer(200, {"target": target.name, **msgspec.structs.asdict(target.settings)})


def _list_settings(request: AdminRequest) -> Answer:
    selected = request.targets.selected(request.target)
    items = [{"target": target.name, **msgspec.structs.asdict(target.settings)} for target in selected]
    return json_answer(200, {"items": items})


def _list_orders(request: AdminRequest) -> Answer:
    books = [target.orders for target in request.targets.selected(request.target)]
    after = int(request.query.get("after", 0))
    orders = merge(*(book.after(after) for book in books), key=lambda order: order.sequence)
    items = [order_record(order) for order in islice(orders, int(request.query.get("limit", ORDERS_PER_PAGE)))]
    return json_answer(200, {"count": sum(len(book.orders) for book in books), "items": items})


def _count_orders(request: AdminRequest) -> Answer:
    books = [target.orders.orders for target in request.targets.selected(request.target)]
    return json_answer(200, {"count": sum(map(len, books))})


def _list_duplicates(request: AdminRequest) -> Answer:
    items = [
        {"target": target.name, "key": identity, "count": len(orders), "ids": [order.id for order in orders]}
        for target in request.targets.selected(request.target)
        for identity, orders in target.orders.held_more_than_once().items()
    ]
    return json_answer(200, {"count": len(items), "items": items})


def _list_calls(request: AdminRequest) -> Answer:
    name = request.target
    items = [_call_record(call) for call in request.calls if name is None or call.target == name]
    limit = int(request.query.get("limit", len(items)))
    return json_answer(200, {"items": items[max(0, len(items) - limit) :]})


def _reset(request: AdminRequest) -> Answer:
    name = request.target
    request.targets.reset(name)
    kept = [] if name is None else [call for call in request.calls if call.target != name]
    request.calls.clear()
    request.calls.extend(kept)
    return NO_CONTENT


def _tell_health(_request: AdminRequest) -> Answer:
    return json_answer(200, {"status": "ok"})


def _call_record(call: Call) -> dict[str, Any]:
    record: dict[str, Any] = msgspec.to_builtins(call)
    record["at"] = timestamp(datetime.fromtimestamp(call.at, UTC))
    return record


def _read_object(body: bytes) -> dict[str, Any]:
    return msgspec.json.decode(body, type=dict[str, Any])


ACTIONS: dict[tuple[str, str], Callable[[AdminRequest], Answer]] = {
    ("POST", "/_sim/faults"): _add_fault,
    ("GET", "/_sim/faults"): _list_faults,
    ("DELETE", "/_sim/faults"): _clear_faults,
    ("POST", "/_sim/settings"): _change_settings,
    ("GET", "/_sim/settings"): _list_settings,
    ("GET", "/_sim/orders"): _list_orders,
    ("GET", "/_sim/orders/count"): _count_orders,
    ("GET", "/_sim/orders/duplicates"): _list_duplicates,
    ("GET", "/_sim/calls"): _list_calls,
    ("POST", "/_sim/reset"): _reset,
    ("GET", "/_sim/health"): _tell_health,
}
