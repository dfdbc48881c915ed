"""A client that goes away while its create is being stored: it is stored once, and whoever asks again is told."""

import asyncio

from chassis.testing import eventually
from tests.raw_http import Served
from tests.rest import PATH


async def test_a_client_that_was_gone_before_its_202_is_told_of_its_request(served: Served) -> None:
    hold = asyncio.Event()
    served.hub.intake.before_batch = hold.wait
    gone, back = await served.connect(), await served.connect()
    gone.send(served.create())
    await eventually(lambda: served.hub.intake.batches)

    gone.writer.transport.abort()
    await back.send("GET /healthz HTTP/1.1\r\n\r\n").answer()  # by then the server has seen the other's end
    hold.set()
    await eventually(lambda: served.hub.intake.stored)
    again = await back.send(served.create()).answer()

    (stored,) = served.hub.intake.stored
    assert (again.status, again.headers["location"]) == (409, f"{PATH}/{stored}")
