"""An edge for the benchmark's load generator: it accepts orders and keeps nothing."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Container
from contextlib import asynccontextmanager
from itertools import count

ACCEPTED = b'HTTP/1.1 202 Accepted\r\ncontent-length: %d\r\n\r\n{"id":"%d"}'
REFUSED = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n"


@asynccontextmanager
async def edge(
    *, close_after: int = 10_000_000, refused: Container[int] = (), broken: Container[int] = ()
) -> AsyncIterator[str]:
    """An edge that accepts everything, with ids from 0, and closes each connection after so many answers.

    `refused` are the numbers of those that it refuses, `broken` of those at which it closes the connection instead.
    """
    numbers = count()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):  # the load has ended
            for _ in range(close_after):
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.rpartition(b"Content-Length: ")[2]))
                number = next(numbers)
                if number in broken:
                    break
                accepted = ACCEPTED % (len(f'{{"id":"{number}"}}'), number)
                writer.write(REFUSED if number in refused else accepted)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    serving: set[asyncio.Task[None]] = set()
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        if serving:
            await asyncio.wait(serving, timeout=5)
