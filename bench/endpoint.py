"""`python -m bench.endpoint`: the external system of a measurement; prints its port. A process of its own.

It costs every competitor the same and as little as can be (the simulator, with its faults and records, costs six times
as much), answers a POST after the delay that was set, and counts what it received: calls, and distinct
`Idempotency-Key`s. So each completion can be counted at the other end too.

POST /delay/MILLISECONDS, POST /reset, GET /counts -> {"posts", "distinct"}; any other POST is an order.
"""

import asyncio
import json
from typing import cast
from urllib.request import Request, urlopen

import uvloop

_END = b"\r\n\r\n"
_ANSWER = b'{"id":"EXT-1","status":"accepted"}'


class Counts:
    """What was received since the last reset."""

    def __init__(self) -> None:
        self.delay_seconds = 0.0
        self.posts = 0
        self.keys: set[bytes] = set()

    def reset(self) -> None:
        """Forget what was received; the delay stays."""
        self.posts = 0
        self.keys = set()


class _Connection(asyncio.Protocol):
    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._loop = asyncio.get_running_loop()
        self._received = b""
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)  # uvloop's is none by its type

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(_END)) >= 0:
            head = self._received[:end].lower()
            whole = end + len(_END) + int(_field(head, b"content-length:") or 0)
            if len(self._received) < whole:
                return
            self._received = self._received[whole:]
            self._answer(head)

    def _answer(self, head: bytes) -> None:
        path = head.split(b" ", 2)[1]
        if path == b"/counts":
            counted = {"posts": self._counts.posts, "distinct": len(self._counts.keys)}
            self._write(json.dumps(counted).encode())
        elif path == b"/reset":
            self._counts.reset()
            self._write(b"{}")
        elif path.startswith(b"/delay/"):
            self._counts.delay_seconds = int(path.rpartition(b"/")[2]) / 1000
            self._write(b"{}")
        else:
            self._counts.posts += 1
            self._counts.keys.add(_field(head, b"idempotency-key:"))
            if self._counts.delay_seconds:
                self._loop.call_later(self._counts.delay_seconds, self._write, _ANSWER)
            else:
                self._write(_ANSWER)

    def _write(self, body: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
            self._transport.write(head + body)


def _field(head: bytes, name: bytes) -> bytes:
    start = head.find(b"\r\n" + name)
    if start < 0:
        return b""
    end = head.find(b"\r\n", start + 2)
    return head[start + 2 + len(name) : end if end >= 0 else len(head)].strip()


class EndpointClient:
    """How the benchmark speaks to it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def delay(self, milliseconds: int) -> None:
        """Answer orders after that long from now on."""
        self._call("POST", f"/delay/{milliseconds}")

    def reset(self) -> None:
        """Count from nothing."""
        self._call("POST", "/reset")

    def counts(self) -> tuple[int, int]:
        """Calls, and distinct keys among them."""
        counted = self._call("GET", "/counts")
        return counted["posts"], counted["distinct"]

    def _call(self, method: str, path: str) -> dict[str, int]:
        with urlopen(Request(self.url + path, method=method), timeout=10) as answer:  # noqa: S310 - our own address
            content: dict[str, int] = json.load(answer)
        return content


async def main() -> None:
    """Serve until killed."""
    counts = Counts()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(counts), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
