"""Carries faults out, each in a task of its own, and puts right what it broke."""

import asyncio
import contextlib
import random
import sqlite3
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import aiohttp
import redis.asyncio as redis
from redis.exceptions import RedisError

from tests.chaos.faults import Action, Fault
from tests.chaos.hub import Hub
from tests.chaos.load import Partners
from tests.chaos.part import Part
from tests.chaos.recovery import Kill
from tests.chaos.targets import TARGETS

ADMIN_SECONDS = 10.0
AGAIN_SECONDS = 0.2
#: How many of the newest requests stream faults speak of.
RECENT = 200
#: So few of them that the breaker, which looks at all calls of a target, stays closed.
ORDERS = 2
KILLS = (Action.KILL, Action.KILL_ALL, Action.KILL_VALKEY, Action.LOSE_VALKEY, Action.KILL_DATABASE)
#: Fields of a simulator's fault.
_CALL_FAULTS: Mapping[Action, Mapping[str, Any]] = {
    Action.UNAVAILABLE: {"kind": "status", "status": 503},
    Action.THROTTLED: {"kind": "status", "status": 429},
    Action.REJECTED: {"kind": "status", "status": 422},
    Action.BAD_GATEWAY: {"kind": "status_after", "status": 502},
    Action.SLOW: {"kind": "slow"},
    Action.RESET_BEFORE: {"kind": "reset_before"},
    Action.RESET_AFTER: {"kind": "reset_after"},
    Action.COMMIT_LATER: {"kind": "commit_later"},
    Action.HANG: {"kind": "hang"},
    Action.HANG_AFTER: {"kind": "hang_after"},
    Action.BROKEN_JSON: {"kind": "broken_json"},
    Action.CUT_BODY: {"kind": "cut_body"},
}


class Injector:
    """Does to a hub what a fault says."""

    def __init__(self, hub: Hub, partners: Partners, *, seed: int) -> None:
        self._hub = hub
        self._partners = partners
        self._promises = partners.promises
        self._chance = random.Random(seed)  # noqa: S311 - it must be repeatable
        self._streams: Any = redis.Redis.from_url(hub.valkey.url, socket_timeout=3, legacy_responses=False)
        self._admin = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ADMIN_SECONDS))
        self._valkey_in_use = asyncio.Lock()
        self._database_in_use = asyncio.Lock()
        self._clock_seconds = 0.0
        self.injected: Counter[Action] = Counter()
        self.kills: list[Kill] = []

    async def close(self) -> None:
        """Let go of the connections."""
        await self._streams.aclose()
        await self._admin.close()

    async def inject(self, fault: Fault, *, alone: bool = False) -> None:
        """Carry a fault out and count it; returns when what it broke runs again, though perhaps not yet well."""
        if fault.action in _CALL_FAULTS:
            await self._spoil_calls(fault)
        elif fault.action in KILLS:
            await self._kill(fault, alone=alone)
        else:
            await self._disturb(fault)
        self.injected[fault.action] += 1

    async def all_well(self) -> None:
        """End every fault of the external systems, and wait until every process answers."""
        await self._administer("DELETE", "/_sim/faults", None)
        for target in TARGETS:
            await self._administer("POST", "/_sim/settings", {"target": target, "lookup": "on"})
        async with self._valkey_in_use, self._database_in_use:
            await self._hub.healthy()

    async def _kill(self, fault: Fault, *, alone: bool) -> None:
        match fault.action:
            case Action.KILL:
                await _end(fault, self._hub.service(fault.victim))
                self._remember_kill(fault.victim, alone=alone)
            case Action.KILL_ALL:
                await _end(fault, *self._hub.services)
                self._remember_kill("all services", alone=alone)
            case Action.KILL_VALKEY | Action.LOSE_VALKEY:
                async with self._valkey_in_use:
                    self._remember_kill("valkey", alone=alone)
                    await asyncio.to_thread(self._hub.valkey.kill)
                    if fault.action is Action.LOSE_VALKEY:
                        self._hub.valkey.forget()
                    await asyncio.sleep(fault.seconds)
                    await asyncio.to_thread(self._hub.valkey.start)
            case _:
                assert self._hub.postgres is not None
                async with self._database_in_use:
                    self._remember_kill("postgresql", alone=alone)
                    await asyncio.to_thread(self._hub.postgres.crash)
                    await asyncio.sleep(fault.seconds)
                    await asyncio.to_thread(self._hub.postgres.start)

    async def _disturb(self, fault: Fault) -> None:
        match fault.action:
            case Action.PAUSE | Action.PAUSE_LONG:
                while not await self._hub.service(fault.victim).pause(fault.seconds):  # noqa: ASYNC110 (the same)
                    await asyncio.sleep(AGAIN_SECONDS)
            case Action.FLUSH:
                await _in_the_end(self._streams.flushall)
            case Action.PAUSE_VALKEY:
                async with self._valkey_in_use:
                    with self._hub.valkey.paused():
                        await asyncio.sleep(fault.seconds)
            case Action.LOCK_DATABASE:
                async with self._database_in_use:
                    await asyncio.to_thread(_hold_lock, self._hub.database_url, fault.seconds)
            case Action.JUMP_CLOCK:
                self._clock_seconds += fault.seconds
                self._hub.move_clock(self._clock_seconds)
            case Action.DUPLICATES | Action.REORDER | Action.JUNK:
                await _in_the_end(lambda: self._spoil_stream(fault))
            case Action.LOST_THEN_REFUSED:
                await self._lose_answers(fault)
            case Action.EXTERNAL_DOWN:
                await _end(fault, self._hub.external)
            case _:
                await self._administer("POST", "/_sim/settings", {"target": fault.victim, "lookup": "down"})
                await asyncio.sleep(fault.seconds)
                await self._administer("POST", "/_sim/settings", {"target": fault.victim, "lookup": "on"})

    async def _spoil_calls(self, fault: Fault) -> None:
        fields = {"target": fault.victim, "times": fault.times, "delay_seconds": fault.seconds}
        fields |= _CALL_FAULTS[fault.action]
        if fault.action is Action.THROTTLED:
            fields["retry_after"] = str(round(fault.seconds))
        await self._administer("POST", "/_sim/faults", fields)

    async def _lose_answers(self, fault: Fault) -> None:
        """Have coming orders stored without an answer, and every repetition refused: they are not as absent as said."""
        for key in self._partners.coming(fault.victim, ORDERS):
            lost = {"target": fault.victim, "external_order_id": key, "kind": "reset_after"}
            refused = {"target": fault.victim, "external_order_id": key, "kind": "status", "status": 503, "times": 4}
            await self._administer("POST", "/_sim/faults", lost)
            await self._administer("POST", "/_sim/faults", refused)

    async def _spoil_stream(self, fault: Fault) -> None:
        stream = f"hub:work:{fault.victim}"
        if fault.action is Action.JUNK:
            for _ in range(fault.times):
                await self._streams.xadd(stream, self._junk())
            return
        waiting = await self._streams.xrange(stream, count=fault.times)
        ids = [fields[b"id"] for _, fields in waiting if b"id" in fields] + self._recent(fault)
        if fault.action is Action.DUPLICATES:
            ids = [each for each in ids for _ in range(3)]
        for request_id in reversed(ids):
            await self._streams.xadd(stream, {"id": request_id})
        if fault.action is Action.REORDER and waiting:
            await self._streams.xdel(stream, *(entry_id for entry_id, _ in waiting))

    def _recent(self, fault: Fault) -> list[bytes]:
        recent = list(self._promises.values())[-RECENT:]
        here = [promise.request_id.encode() for promise in recent if promise.target == fault.victim]
        return self._chance.sample(here, min(fault.times, len(here)))

    def _junk(self) -> dict[str, str | bytes]:
        another = self._chance.choice(list(self._promises) or [""])
        junk: list[dict[str, str | bytes]] = [
            {"x": "1"},
            {"id": ""},
            {"id": "not-an-id"},
            {"id": str(uuid.UUID(int=self._chance.getrandbits(128)))},
            {"id": b"\xff\xfe\x00"},
            {"id": "9" * 100_000},
            {"id": another, "type": "perhaps of another target"},
        ]
        return self._chance.choice(junk)

    def _remember_kill(self, victim: str, *, alone: bool) -> None:
        self.kills.append(Kill(victim=victim, at=time.time(), alone=alone))

    async def _administer(self, method: str, path: str, body: dict[str, Any] | None) -> None:
        """Tell the simulator, however often it takes: it may just be starting again."""
        while True:
            try:
                async with self._admin.request(method, self._hub.external_url + path, json=body) as answer:
                    answer.raise_for_status()
                    return
            except (aiohttp.ClientConnectionError, TimeoutError):
                await asyncio.sleep(AGAIN_SECONDS)


async def _end(fault: Fault, *parts: Part) -> None:
    """Kill all that run of these, of which one at least must: what has just ended is waited for."""
    while not sum(part.kill(fault.seconds) for part in parts):  # noqa: ASYNC110 (they are other processes)
        await asyncio.sleep(AGAIN_SECONDS)


async def _in_the_end(act: Callable[[], Awaitable[object]]) -> None:
    """Do something to the streams, however often it takes: Valkey may be away."""
    while True:
        try:
            await act()
            return
        except RedisError:
            await asyncio.sleep(AGAIN_SECONDS)


def _hold_lock(database_url: str, seconds: float) -> None:
    """Hold SQLite's write lock, as a backup or a careless reader does."""
    path = database_url.removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(seconds)
        connection.execute("ROLLBACK")
