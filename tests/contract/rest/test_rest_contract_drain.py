"""Stopping the HTTP server: announced, drained, bounded; and starting it where it cannot."""

import asyncio
import socket

import httpx
import pytest
import uvicorn

from chassis.testing import eventually, free_port
from gateway.http_protocol import GatewayProtocol
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


async def test_a_fault_at_one_connection_ends_no_time_out_of_another(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[GatewayProtocol] = []

    def fail_at_the_first(connection: GatewayProtocol) -> None:
        looked_at.append(connection)
        if connection is looked_at[0]:
            raise RuntimeError("a bug")
        cut_off_if_slow(connection)

    cut_off_if_slow = GatewayProtocol.cut_off_if_slow
    monkeypatch.setattr(GatewayProtocol, "cut_off_if_slow", fail_at_the_first)
    monkeypatch.setattr("gateway.http_protocol.HEAD_SECONDS", 0.1)
    silent = [asyncio.create_task((await served.connect()).is_closed()) for _ in range(2)]

    closed, open_ = await asyncio.wait(silent, timeout=5, return_when=asyncio.FIRST_COMPLETED)

    assert [await each for each in closed] == [True]
    for each in open_:
        each.cancel()


async def test_stopping_closes_the_door_though_the_ticks_have_failed(
    hub: GatewayUnderTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_: uvicorn.Server, __: int) -> bool:
        raise RuntimeError("a bug")

    monkeypatch.setattr(uvicorn.Server, "on_tick", fail)
    port = free_port()
    server = HttpServer(hub.app, f"127.0.0.1:{port}", hub.readiness, grace_seconds=1, announce_seconds=0)
    await server.start()

    with pytest.raises(RuntimeError):
        await server.stop()

    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
