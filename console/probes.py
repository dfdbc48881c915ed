"""Asks a child whether it is healthy: `http(s)://host:port/path`, `grpc(s)://host:port` or `redis://host:port`.

Written on bare sockets, because the supervisor stays for the hub's whole life and importing gRPC would cost it more
memory than all the rest of it. The gRPC question is grpc.health.v1.Health/Check for the whole server (RFC 9113).
"""

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qsl, urlsplit

PROBE_SECONDS = 2.0

_DATA, _HEADERS, _RESET, _SETTINGS, _GOAWAY = 0x0, 0x1, 0x3, 0x4, 0x7
_END_STREAM, _END_HEADERS = 0x1, 0x4
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_EMPTY_MESSAGE = bytes(5)  # gRPC's length prefix; HealthCheckRequest{} has no bytes of its own
_SERVING = bytes([0, 0, 0, 0, 2, 0x08, 0x01])  # HealthCheckResponse{status: SERVING}


async def is_healthy(probe: str) -> bool:
    """Ask once; whatever is not a clear yes within two seconds is a no."""
    url = urlsplit(probe)
    asks = {"http": _ask_http, "https": _ask_http, "grpc": _ask_grpc, "grpcs": _ask_grpc, "redis": _ask_redis}
    ask = asks[url.scheme]
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            tls = _context(url) if url.scheme in ("https", "grpcs") else None
            reader, writer = await asyncio.open_connection(url.hostname, url.port, ssl=tls)
            try:
                return await ask(url, reader, writer)
            finally:
                writer.close()
    except (OSError, EOFError, ValueError):
        return False


def _context(url: SplitResult) -> Any:
    """Encrypt without asking who answers: our own child does, and it is told nothing."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if url.scheme == "grpcs":
        context.set_alpn_protocols(["h2"])
    if certificate := _file(url, "certificate"):
        context.load_cert_chain(certificate, _file(url, "key"))
    return context


def _file(url: SplitResult, name: str) -> str:
    return dict(parse_qsl(url.query)).get(name, "")


async def _ask_http(url: SplitResult, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    writer.write(f"GET {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: close\r\n\r\n".encode())
    status_line = await reader.readline()
    return status_line.split(b" ")[1:2] == [b"200"]


async def _ask_redis(url: SplitResult, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    if password_file := _file(url, "password"):
        password = Path(password_file).read_bytes()  # noqa: ASYNC240 - one short line
        writer.write(b"AUTH " + password.strip() + b"\r\n")
        if await reader.readline() != b"+OK\r\n":
            return False
    writer.write(b"PING\r\n")
    return await reader.readline() == b"+PONG\r\n"  # while it reads its file back it says -LOADING


async def _ask_grpc(url: SplitResult, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    headers = b"".join(
        _header(name, value)
        for name, value in (
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", b"/grpc.health.v1.Health/Check"),
            (b":authority", url.netloc.encode()),
            (b"content-type", b"application/grpc"),
            (b"te", b"trailers"),
        )
    )
    writer.write(
        _PREFACE
        + _frame(_SETTINGS, 0, 0, b"")
        + _frame(_HEADERS, _END_HEADERS, 1, headers)
        + _frame(_DATA, _END_STREAM, 1, _EMPTY_MESSAGE)
    )
    while True:
        head = await reader.readexactly(9)
        kind, flags = head[3], head[4]
        payload = await reader.readexactly(int.from_bytes(head[:3], "big"))
        if kind == _DATA:
            return payload == _SERVING
        if kind in (_RESET, _GOAWAY) or (kind == _HEADERS and flags & _END_STREAM):
            return False


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload


def _header(name: bytes, value: bytes) -> bytes:
    """One HPACK literal without indexing; names and values here are shorter than 127 bytes."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value
