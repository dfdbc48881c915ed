"""Stopping the HTTP server: announced, drained, bounded; and starting it where it cannot."""

import asyncio
import socket

import httpx
import pytest

from chassis.testing import eventually, free_port
from gateway.server import HttpServer
from tests.fakes import GatewayUnderTest
from tests.raw_http import Served
from tests.rest import post


async def test_stopping_answers_what_is_in_flight_and_takes_nothing_new(served: Served) -> None:
    hold = asyncio.Event()
    served.hub.intake.before_batch = hold.wait
    idle, busy = await served.connect(), await served.connect()
    await idle.send("GET /healthz HTTP/1.1\r\n\r\n").answer()
    busy.send(served.create())
    await eventually(lambda: served.hub.intake.batches)

    stopping = asyncio.create_task(served.server.stop())

    assert await idle.is_closed()
    with pytest.raises(ConnectionRefusedError):
        await served.connect()
    hold.set()
    answer = await busy.answer()
    assert answer.status == 202
    assert await busy.is_closed()
    await stopping
    assert served.hub.readiness.draining


async def test_stopping_is_announced_before_the_door_is_closed(hub: GatewayUnderTest) -> None:
    port = free_port()
    server = HttpServer(hub.app, f"127.0.0.1:{port}", hub.readiness, grace_seconds=5, announce_seconds=0.5)
    await server.start()

    stopping = asyncio.create_task(server.stop())
    await eventually(lambda: hub.readiness.draining)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
        probe, answer = await client.get("/readyz"), await post(client, hub)

    assert (probe.status_code, answer.status_code, answer.headers["Connection"]) == (503, 202, "close")
    await stopping


async def test_stopping_gives_up_on_a_hanging_call_after_the_grace(hub: GatewayUnderTest) -> None:
    hold = asyncio.Event()
    hub.intake.before_batch = hold.wait
    port = free_port()
    server = HttpServer(hub.app, f"127.0.0.1:{port}", hub.readiness, grace_seconds=1, announce_seconds=0)
    await server.start()
    served = Served(hub, server, port)
    connection = (await served.connect()).send(served.create())
    await eventually(lambda: hub.intake.batches)

    await asyncio.wait_for(server.stop(), 5)

    hold.set()
    await served.close()
    assert await connection.is_closed()


async def test_stop_may_be_called_twice_and_before_start(hub: GatewayUnderTest) -> None:
    server = HttpServer(hub.app, f"127.0.0.1:{free_port()}", hub.readiness, grace_seconds=1, announce_seconds=0)

    await server.stop()
    await server.start()
    await server.stop()
    await server.stop()


async def test_a_taken_port_is_named(hub: GatewayUnderTest) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        server = HttpServer(hub.app, address, hub.readiness, grace_seconds=1)

        with pytest.raises(OSError, match=f"The port of {address} is taken"):
            await server.start()
