"""The ASGI application: from a call to its endpoint, through the faults that wait for it.

The profiles decide what is refused and stored; this module decides when it happens and whether anybody hears of it.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import assert_never

from simulator import admin, json_orders, protheus
from simulator.answers import NO_LICENCE, Answer, json_answer
from simulator.exchange import CALLS_KEPT, Call, Calls, Exchange, Receive, Scope, Send
from simulator.faults import Fault, Match, broken, grown, replacing_answer, status_answer
from simulator.order_body import read_order_body
from simulator.orders import Draft, Order, Profile
from simulator.targets import DEFAULT, Target, Targets
from simulator.tokens import answer_token_request


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Name the two steps of a call: who may, and what is to be done."""

    match: Match
    begin: Callable[[Target, Exchange], Answer | Draft]
    authorize: Callable[[Target, Exchange], Answer | None] | None = None


def begin_token(target: Target, exchange: Exchange) -> Answer:
    """Answer a token request with the target's token life."""
    seconds = target.settings.token_seconds
    return answer_token_request(target.tokens, seconds, exchange.header(b"authorization"), exchange.body)


ENDPOINTS: dict[tuple[str, str], Endpoint] = {
    ("POST", "/protheus/v1/orders"): Endpoint(match="post", authorize=protheus.authorize, begin=protheus.begin_order),
    ("GET", "/protheus/v1/orders"): Endpoint(match="lookup", authorize=protheus.authorize, begin=protheus.look_up),
    ("POST", "/orders"): Endpoint(match="post", begin=json_orders.begin_order),
    ("GET", "/orders"): Endpoint(match="lookup", begin=json_orders.look_up),
    ("POST", "/oauth2/token"): Endpoint(match="token", begin=begin_token),
}
CONFIRM: dict[Profile, Callable[[Order], Answer]] = {"protheus": protheus.confirm, "json": json_orders.confirm}
NO_SUCH_ENDPOINT = json_answer(404, {"error": "No such endpoint"})


class Stopping(Exception):
    """The simulator ends; the call is cut and what it had not done is not done."""


class Simulator:
    """Serve every target of this process."""

    def __init__(self, targets: Targets) -> None:
        self._targets = targets
        self._calls = Calls(maxlen=CALLS_KEPT)
        self._stopping = asyncio.Event()
        self._late_commits: set[asyncio.Task[None]] = set()

    def stop(self) -> None:
        """Give up every wait; may be called twice."""
        self._stopping.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call (ASGI)."""
        exchange = Exchange(scope, receive, send)
        if not await exchange.read_body():
            return
        path: str = scope["path"]
        if path.startswith("/_sim/"):
            await exchange.answer(admin.answer(self._targets, self._calls, exchange))
            return
        name = DEFAULT
        if path.startswith("/t/"):
            name, _, rest = path[3:].partition("/")
            path = f"/{rest}"
        endpoint = ENDPOINTS.get((scope["method"], path))
        if endpoint is None:
            await exchange.answer(NO_SUCH_ENDPOINT)
            return
        self._record(exchange, name)
        try:
            await self._serve(endpoint, self._targets.get(name), exchange)
        except Stopping:
            await exchange.reset()

    def _record(self, exchange: Exchange, target: str) -> None:
        exchange.call = Call(
            at=time.time(),
            target=target,
            method=exchange.scope["method"],
            path=exchange.scope["path"],
            query=exchange.scope["query_string"].decode("latin-1"),
            correlation_id=exchange.header(b"x-correlation-id"),
            traceparent=exchange.header(b"traceparent"),
            idempotency_key=exchange.header(b"idempotency-key"),
        )
        self._calls.append(exchange.call)

    async def _serve(self, endpoint: Endpoint, target: Target, exchange: Exchange) -> None:
        refusal = None if endpoint.authorize is None else endpoint.authorize(target, exchange)
        if refusal is not None:
            await exchange.answer(refusal)
            return
        if target.settings.concurrency is not None and target.in_flight >= target.settings.concurrency:
            await exchange.answer(NO_LICENCE)
            return
        fault = _take_fault(endpoint, target, exchange) if target.faults.waiting else None
        target.in_flight += 1
        try:
            if fault is None:
                await exchange.answer(await self._do(endpoint, target, exchange))
            else:
                await self._serve_with_fault(fault, endpoint, target, exchange)
        finally:
            target.in_flight -= 1

    async def _do(self, endpoint: Endpoint, target: Target, exchange: Exchange, extra_seconds: float = 0.0) -> Answer:
        begun = endpoint.begin(target, exchange)
        seconds = target.settings.latency_seconds + extra_seconds
        if isinstance(begun, Answer):
            if seconds:
                await self._pause(seconds)
            return begun
        order = await self._store(begun, target, seconds) if seconds else target.orders.store(begun)
        return CONFIRM[begun.profile](order)

    async def _store(self, draft: Draft, target: Target, seconds: float) -> Order:
        target.keys_in_progress.add(draft.key)
        try:
            await self._pause(seconds)
            return target.orders.store(draft)
        finally:
            target.keys_in_progress.discard(draft.key)

    async def _serve_with_fault(self, fault: Fault, endpoint: Endpoint, target: Target, exchange: Exchange) -> None:
        if exchange.call is not None:
            exchange.call.fault = fault.kind
        match fault.kind:
            case "reset_before":
                await exchange.reset()
            case "hang":
                await exchange.wait_for_disconnect()
            case "commit_later":
                self._commit_later(fault.delay_seconds, endpoint, target, exchange)
                await exchange.reset()
            case "slow":
                await exchange.answer(await self._do(endpoint, target, exchange, fault.delay_seconds))
            case "reset_after" | "hang_after" | "status_after" | "broken_json" | "cut_body" | "slow_body" | "huge_body":
                await self._spoil(await self._do(endpoint, target, exchange), fault, exchange)
            case (
                "status" | "no_licence" | "html" | "redirect" | "cp1252" | "error_200" | "broken_json_before"
            ) as kind:
                await exchange.answer(replacing_answer(fault, kind))
            case _:
                assert_never(fault.kind)

    async def _spoil(self, answer: Answer, fault: Fault, exchange: Exchange) -> None:
        match fault.kind:
            case "reset_after":
                await exchange.reset()
            case "hang_after":
                await exchange.wait_for_disconnect()
            case "status_after":
                await exchange.answer(status_answer(fault))
            case "broken_json":
                await exchange.answer(broken(answer))
            case "cut_body":
                await exchange.cut(answer)
            case "slow_body":
                await exchange.drip(answer, fault.delay_seconds, self._pause)
            case "huge_body":
                await exchange.answer_in_chunks(grown(answer, fault.mebibytes))

    def _commit_later(self, seconds: float, endpoint: Endpoint, target: Target, exchange: Exchange) -> None:
        begun = endpoint.begin(target, exchange)
        if isinstance(begun, Draft):
            task = asyncio.create_task(self._commit_after(begun, target, seconds))
            self._late_commits.add(task)
            task.add_done_callback(self._late_commits.discard)

    async def _commit_after(self, draft: Draft, target: Target, seconds: float) -> None:
        try:
            await self._store(draft, target, seconds)
        except Stopping:
            return

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return
        raise Stopping


def _take_fault(endpoint: Endpoint, target: Target, exchange: Exchange) -> Fault | None:
    def read_order_id() -> str:
        body = read_order_body(exchange.body)
        return "" if body is None else body.order_id

    return target.faults.take(endpoint.match, read_order_id)
