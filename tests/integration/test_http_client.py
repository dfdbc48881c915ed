"""chassis.http_client against servers with bad manners: what was sent, what was not, and nothing in between."""

import asyncio
import contextlib
import gzip
import socket
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from chassis.http_client import MAX_BODY_BYTES, CertificateNotTrusted, HttpAnswer, HttpClient, NoAnswer, NotSent
from chassis.testing import eventually
from tests.bad_server import OK, Server, answering, silent


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    client = HttpClient()
    await client.start()
    yield client
    await client.stop()


async def send(
    client: HttpClient,
    server: Server,
    *,
    method: str = "POST",
    seconds: float = 5,
    origin: str = "http://127.0.0.1",
    size: int | None = 2,
) -> HttpAnswer:
    return await client.send(
        method,
        f"{origin}:{server.port}/orders",
        headers={"Content-Type": "application/json"},
        body=None if size is None else b"x" * size,
        deadline=asyncio.get_running_loop().time() + seconds,
    )


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X-Many: 1\r\n" * 5_000 + b"\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: minus\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\nabcd",
    ],
    ids=["long header", "many headers", "other protocol", "bad length", "bad chunk", "bad gzip"],
)
async def test_an_answer_that_breaks_http_is_no_answer(client: HttpClient, server: Server, answer: bytes) -> None:
    async with server.run(answering(server, answer)):
        with pytest.raises(NoAnswer):
            await send(client, server)


async def test_a_compressed_answer_is_read_though_none_was_asked_for(client: HttpClient, server: Server) -> None:
    body = gzip.compress(b'{"id":1}')
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"

    async with server.run(answering(server, head.encode() + body)):
        answer = await send(client, server)

    assert answer.body == b'{"id":1}'


async def test_a_compression_bomb_is_cut(client: HttpClient, server: Server) -> None:
    body = gzip.compress(b"0" * 64 * 1024 * 1024)
    head = f"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n"

    async with server.run(answering(server, head.encode() + body)):
        answer = await send(client, server)

    assert (len(answer.body), answer.is_complete) == (MAX_BODY_BYTES, False)


async def test_cookies_are_not_kept(client: HttpClient, server: Server) -> None:
    async with server.run(answering(server, OK.replace(b"\r\n\r\n", b"\r\nSet-Cookie: a=b; Path=/\r\n\r\n"))):
        for _ in range(2):
            await send(client, server, origin="http://localhost")  # a cookie jar takes none from an IP address

    assert "cookie" not in server.heads[1].lower()


async def test_a_connection_is_used_again(client: HttpClient, server: Server) -> None:
    async with server.run(answering(server, OK)):
        await send(client, server)
        await send(client, server)

    assert server.connections == 1


async def test_an_idle_connection_that_the_server_closed_costs_nothing(client: HttpClient, server: Server) -> None:
    closed = asyncio.Event()

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.head(reader)
        writer.write(OK)
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        closed.set()

    async with server.run(once):
        await send(client, server)
        await closed.wait()
        for _ in range(10):
            await asyncio.sleep(0)  # turns of the loop, in which the client hears of the end
        answer = await send(client, server)

    assert answer.status == 200


async def test_what_a_server_says_unasked_is_no_answer(client: HttpClient, server: Server) -> None:
    has_answered, has_spoken = asyncio.Event(), asyncio.Event()

    async def chatter(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.head(reader)
        writer.write(OK)
        await has_answered.wait()
        writer.write(OK)
        await writer.drain()
        has_spoken.set()
        await reader.read()

    async with server.run(chatter):
        await send(client, server)
        has_answered.set()
        await has_spoken.wait()
        for _ in range(10):
            await asyncio.sleep(0)  # turns of the loop, in which the client hears of it
        with pytest.raises(NotSent):
            await send(client, server)
        await send(client, server)

    assert (len(server.heads), server.connections) == (2, 2)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
async def test_nothing_is_repeated_when_a_connection_in_use_ends(
    client: HttpClient, server: Server, method: str
) -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.head(reader)
        writer.write(OK)
        await server.head(reader)  # and no answer to this one

    async with server.run(once):
        await send(client, server, method=method)
        with pytest.raises(NoAnswer):
            await send(client, server, method=method)

    assert len(server.heads) == 2


async def test_a_question_is_repeated_once_when_its_connection_ends(client: HttpClient, server: Server) -> None:
    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.head(reader)
        writer.write(OK)
        await server.head(reader)  # and no answer to this one

    async with server.run(once):
        await send(client, server, method="GET", size=None)
        answer = await send(client, server, method="GET", size=None)

    assert (answer.status, len(server.heads), server.connections) == (200, 3, 2)


async def test_a_question_is_not_repeated_twice(client: HttpClient, server: Server) -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del writer
        await server.head(reader)

    async with server.run(never):
        with pytest.raises(NoAnswer):
            await send(client, server, method="GET", size=None)

    assert len(server.heads) == 2


async def test_a_refusal_is_heard_before_the_whole_body_is_taken(client: HttpClient, server: Server) -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\n{}")
        await asyncio.Event().wait()

    async with server.run(refuse):
        first = await send(client, server, size=32 * 1024 * 1024)
        second = await send(client, server)

    assert (first.status, second.status, server.connections) == (413, 413, 2)


async def test_interim_answers_are_passed_over(client: HttpClient, server: Server) -> None:
    async with server.run(answering(server, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK)):
        answer = await send(client, server)

    assert (answer.status, answer.body) == (200, b"{}")


async def test_an_answer_that_ends_with_its_connection_is_complete(client: HttpClient, server: Server) -> None:
    async def close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.head(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n{}")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with server.run(close):
        answer = await send(client, server)

    assert (answer.body, answer.is_complete) == (b"{}", True)


async def test_silence_is_no_answer_that_timed_out(client: HttpClient, server: Server) -> None:
    async with server.run(silent):
        with pytest.raises(NoAnswer) as raised:
            await send(client, server, seconds=1)

    assert raised.value.timed_out


async def test_a_body_that_the_system_does_not_take_may_have_been_sent(client: HttpClient, server: Server) -> None:
    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        del reader, writer
        await asyncio.Event().wait()

    async with server.run(deaf):
        with pytest.raises(NoAnswer) as raised:
            await send(client, server, seconds=1, size=32 * 1024 * 1024)

    assert raised.value.timed_out


async def test_a_connection_that_does_not_come_about_in_time_was_not_sent(client: HttpClient, server: Server) -> None:
    with contextlib.ExitStack() as sockets:
        listener = sockets.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)  # never accepted: once its queue is full the kernel drops what knocks
        server.port = listener.getsockname()[1]
        for _ in range(4):
            knocking = sockets.enter_context(socket.socket())
            knocking.setblocking(False)
            knocking.connect_ex(("127.0.0.1", server.port))
        with pytest.raises(NotSent):
            await send(client, server, seconds=0.3)


async def test_a_tls_handshake_that_does_not_end_was_not_sent(client: HttpClient, server: Server) -> None:
    async with server.run(silent):
        with pytest.raises(NotSent):
            await send(client, server, seconds=0.3, origin="https://127.0.0.1")


async def test_a_certificate_that_nobody_vouches_for_is_named(
    client: HttpClient, server: Server, tmp_path: Path
) -> None:
    async with server.run(answering(server, OK), tls=self_signed(tmp_path)):
        with pytest.raises(CertificateNotTrusted, match=r"certificate of 127\.0\.0\.1"):
            await send(client, server, origin="https://127.0.0.1")

    assert server.heads == []


async def test_proxies_of_the_environment_are_not_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    client = HttpClient()
    await client.start()

    async with server.run(answering(server, OK)):
        answer = await send(client, server)
    await client.stop()

    assert answer.status == 200


async def test_a_callers_header_stands_instead_of_the_clients_own(client: HttpClient, server: Server) -> None:
    async with server.run(answering(server, OK)):
        await client.send(
            "GET",
            f"http://127.0.0.1:{server.port}/orders?key=a%20b",
            headers={"Accept": "application/xml", "X-Key": "k"},
            deadline=asyncio.get_running_loop().time() + 5,
        )

    [head] = server.heads
    assert head.split("\r\n") == [
        "GET /orders?key=a%20b HTTP/1.1",
        f"Host: 127.0.0.1:{server.port}",
        "User-Agent: integration-hub",
        "Accept: application/xml",
        "Accept-Encoding: identity",
        "X-Key: k",
        "",
        "",
    ]


async def test_a_url_that_would_break_the_call_is_not_sent(client: HttpClient, server: Server) -> None:
    async with server.run(answering(server, OK)):
        with pytest.raises(NotSent):
            await client.send(
                "POST",
                f"http://127.0.0.1:{server.port}/a\x7fb",
                headers={},
                body=b"{}",
                deadline=asyncio.get_running_loop().time() + 5,
            )

    assert server.heads == []


async def test_of_calls_at_once_only_the_late_one_is_given_up(client: HttpClient, server: Server) -> None:
    async def answers_the_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await server.head(reader)
        if server.connections == 2:
            writer.write(OK)
        await silent(reader, writer)

    async with server.run(answers_the_second):
        late = asyncio.create_task(send(client, server, seconds=0.2))
        await eventually(lambda: server.heads)
        in_time = await send(client, server, seconds=5)
        with pytest.raises(NoAnswer) as raised:
            await late

    assert (in_time.status, raised.value.timed_out) == (200, True)


async def test_a_header_that_would_break_the_call_is_not_sent(client: HttpClient, server: Server) -> None:
    async with server.run(answering(server, OK)):
        with pytest.raises(NotSent):
            await client.send(
                "POST",
                f"http://127.0.0.1:{server.port}/",
                headers={"X-Key": "a\r\nX-Other: b"},
                body=b"{}",
                deadline=asyncio.get_running_loop().time() + 5,
            )

    assert server.heads == []


def self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    file = folder / "server.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    return context
