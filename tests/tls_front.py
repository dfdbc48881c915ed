"""TLS in front of a server that has none, for tests: encrypted outside, plain to the server behind."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chassis.testing import free_port
from chassis.tls import TlsFiles

#: What a PostgreSQL client asks before it encrypts (protocol 3, SSLRequest), and the answer that says yes.
_SSL_REQUEST, _YES = bytes.fromhex("0000000804d2162f"), b"S"


@asynccontextmanager
async def tls_front(files: TlsFiles, port: int, *, postgres: bool = False) -> AsyncIterator[int]:
    """Serve TLS on a port of its own, which is given; what comes in goes to `port`."""
    context = files.server_context()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if postgres:
                assert await reader.readexactly(len(_SSL_REQUEST)) == _SSL_REQUEST
                writer.write(_YES)
                await writer.drain()
                await writer.start_tls(context)
            inside, outside = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(copy(reader, outside), copy(inside, writer))

    server = await asyncio.start_server(serve, "127.0.0.1", front := free_port(), ssl=None if postgres else context)
    try:
        yield front
    finally:
        server.close()


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hand on what arrives until there is no more, then close."""
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()
