"""Two of every service on PostgreSQL, restarted one after the other while partners go on sending."""

import asyncio
from pathlib import Path

from chassis.testing import eventually
from tests.chaos.hub import SERVICES, Hub
from tests.chaos.ledgers import Stored, read_orders, read_stored
from tests.chaos.load import INVALID_EVERY, Partners

PER_SECOND = 30.0


async def test_a_rolling_restart_under_load_fails_no_request(tmp_path: Path) -> None:
    hub = Hub(tmp_path, on_postgresql=True, log_level="info")
    try:
        await hub.start()
        token = hub.keys.token("acme", "requests:write", "requests:read")
        async with Partners(hub.gateways, token, seed=1) as partners:
            until = asyncio.Event()
            load = asyncio.create_task(partners.send_steadily(per_second=PER_SECOND, until=until))
            statuses = await restart_everything(hub)
            until.set()
            await load
            await partners.all_taken()
            stored = await eventually(lambda: all_ended(hub, partners.sent), 60)
            orders = await asyncio.to_thread(read_orders, hub.external_url)
    finally:
        await hub.stop()

    invalid = -(-partners.sent // INVALID_EVERY)
    assert statuses == dict.fromkeys(statuses, 0)
    assert len(statuses) == 2 * len(SERVICES)
    # no answer (0): the gateway that is being restarted takes no connection, and the partner goes to the other one
    assert set(partners.refusals) <= {0}
    assert len(partners.promises) == partners.sent
    assert sum(each.status == "Completed" for each in stored) == partners.sent - invalid
    assert sorted(order.request_id for order in orders) == sorted(
        each.request_id for each in stored if each.status == "Completed"
    )


async def restart_everything(hub: Hub) -> dict[str, int]:
    """Drain each process in turn, the next only when its successor is healthy; gives their exit statuses."""
    statuses = {}
    for service in SERVICES:
        for part in [part for part in hub.services if part.kind == service]:
            statuses[part.name] = await part.drain()
            async with asyncio.timeout(30):
                await part.healthy()
    return statuses


async def all_ended(hub: Hub, count: int) -> list[Stored] | None:
    stored = await asyncio.to_thread(read_stored, hub.database_url)
    return stored if len(stored) == count and all(each.status in ("Completed", "Failed") for each in stored) else None
