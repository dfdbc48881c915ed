"""What the benchmark counts as completed, read from an event stream."""

import time
from typing import Any

from bench.completions import EVENTS, Completions
from tests.servers import ValkeyServer


async def tell(db: Any, request_id: str, kind: str) -> None:
    await db.xadd(EVENTS, {"id": request_id, "type": kind})


async def test_what_has_failed_is_not_completed_and_is_not_waited_for(valkey: ValkeyServer, db: Any) -> None:
    started = time.monotonic()
    async with Completions(valkey.url) as completions:
        await tell(db, "a", "IntegrationRequestCompleted")
        await tell(db, "b", "IntegrationRequestFailed")

        assert await completions.all_of({"a", "b"}, seconds=30) == {"b"}

    assert set(completions.completed_at) == {"a"}
    assert time.monotonic() - started < 30


async def test_what_has_not_ended_is_waited_for_and_named(valkey: ValkeyServer, db: Any) -> None:
    async with Completions(valkey.url) as completions:
        await tell(db, "a", "IntegrationRequestCompleted")
        await tell(db, "b", "IntegrationRequestStatusChanged")

        assert await completions.all_of({"a", "b"}, seconds=0.3) == {"b"}
