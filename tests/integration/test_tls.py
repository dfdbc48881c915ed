"""Encrypted links with real certificates: gRPC, mutual TLS, HTTPS, key sets by https; new files without a restart."""

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chassis.errors import ConfigurationError
from chassis.https_key_sets import MAX_KEY_SET_BYTES
from chassis.rpc import RpcServer
from chassis.rpc_client import ClientTls, RpcClient
from chassis.settings import HubSettings
from chassis.testing import TestKeys, eventually, free_port
from chassis.tls import TlsFiles, channel_credentials, server_credentials, tls_files
from chassis.tokens import JwksSource, ServiceToken
from gateway.readiness import Readiness
from gateway.server import HttpServer
from tests.certificates import Authority, replace_file


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path / "authority")


@asynccontextmanager
async def serving(files: TlsFiles, *, client_auth: bool = False) -> AsyncIterator[str]:
    address = f"127.0.0.1:{free_port()}"
    credentials = server_credentials(files, client_auth=client_auth)
    server = RpcServer(address, [], lambda _: contextlib.nullcontext(), grace_seconds=0.2, credentials=credentials)
    await server.start()
    try:
        yield address
    finally:
        await server.stop()


async def answers(channel: grpc.aio.Channel) -> bool:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    check = stub.Check
    try:
        await check(health_pb2.HealthCheckRequest(), timeout=5)
    except grpc.aio.AioRpcError:
        return False
    return True


async def can_connect(address: str, credentials: grpc.ChannelCredentials) -> bool:
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(address, credentials, options=options) as channel:
        return await answers(channel)


async def test_grpc_is_encrypted_and_the_server_is_checked(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority.make(tmp_path / "stranger")
    async with serving(authority.files("server")) as address:
        trusting = await can_connect(address, grpc.ssl_channel_credentials(authority.path.read_bytes()))
        wary = await can_connect(address, grpc.ssl_channel_credentials(stranger.path.read_bytes()))
        async with grpc.aio.insecure_channel(address) as plain:
            unencrypted = await answers(plain)

    assert (trusting, wary, unencrypted) == (True, False, False)


async def test_mutual_tls_lets_only_the_authoritys_clients_in(authority: Authority, tmp_path: Path) -> None:
    stranger = Authority.make(tmp_path / "stranger")
    async with serving(authority.files("server"), client_auth=True) as address:
        known = await can_connect(address, channel_credentials(authority.files("client").current))
        foreign = stranger.files("client", ca=authority.path)
        unknown = await can_connect(address, channel_credentials(foreign.current))
        nameless = await can_connect(address, grpc.ssl_channel_credentials(authority.path.read_bytes()))

    assert (known, unknown, nameless) == (True, False, False)


async def test_a_grpc_server_takes_a_new_certificate_without_a_restart(authority: Authority) -> None:
    async with serving(authority.files("server")) as address:
        host, port = address.split(":")
        before = await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)))
        authority.issue("server")

        async def is_new() -> bool:
            return await asyncio.to_thread(ssl.get_server_certificate, (host, int(port))) != before

        assert await eventually(is_new, 10)
        assert await can_connect(address, grpc.ssl_channel_credentials(authority.path.read_bytes()))


async def test_a_client_takes_a_new_certificate_without_a_restart(
    authority: Authority, keys: TestKeys, tmp_path: Path
) -> None:
    stranger = Authority.make(tmp_path / "stranger")
    certificate, key = stranger.issue("client")
    files = TlsFiles(certificate=certificate, key=key, ca=authority.path)
    async with serving(authority.files("server"), client_auth=True) as address:
        token = ServiceToken(keys.signer, service="test", scopes=())
        client = RpcClient(address, token, timeout_seconds=5, tls=ClientTls(files=files))
        stub: Any = health_pb2_grpc.HealthStub(client.channel)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Check(health_pb2.HealthCheckRequest(), timeout=2)

        for source, goal in zip(authority.issue("client"), (certificate, key), strict=True):
            replace_file(goal, source.read_bytes())

        async def works() -> bool:
            try:
                await stub.Check(health_pb2.HealthCheckRequest(), timeout=2)
            except grpc.aio.AioRpcError:
                return False
            return True

        assert await eventually(works, 15)
        await client.stop()


async def test_a_certificate_that_does_not_fit_its_key_is_not_taken(
    authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chassis.tls.CHECK_SECONDS", 0.0)
    files = authority.files("server")
    good = files.current
    other, other_key = authority.issue("other")

    replace_file(authority.folder / "server.pem", other.read_bytes())
    assert [files.reload(), files.current is good] == [False, True]

    replace_file(authority.folder / "server.key", other_key.read_bytes())
    assert [files.reload(), files.current is good] == [True, False]


def test_a_pair_that_does_not_fit_is_refused_at_the_start(authority: Authority) -> None:
    certificate, _ = authority.issue("one")
    _, key = authority.issue("two")

    with pytest.raises(ConfigurationError, match="HUB_TLS"):
        TlsFiles(certificate=certificate, key=key)


def test_client_certificates_need_an_authority(authority: Authority) -> None:
    certificate, key = authority.issue("server")

    with pytest.raises(ConfigurationError, match="HUB_TLS_CA"):
        tls_files(HubSettings(tls_certificate=str(certificate), tls_key=str(key), tls_client_auth=True))


async def hello(scope: Any, receive: Any, send: Any) -> None:
    """An application that says hello."""
    del scope, receive
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


@pytest.fixture
async def https(authority: Authority, keys: TestKeys) -> AsyncIterator[str]:
    """An HTTPS server of the gateway's; gives its address."""
    address = f"127.0.0.1:{free_port()}"
    certificate, key = authority.issue("server")
    token = ServiceToken(keys.signer, service="test", scopes=())
    client = RpcClient("127.0.0.1:1", token, timeout_seconds=1)
    server = HttpServer(
        hello,
        address,
        Readiness(client),
        grace_seconds=1,
        announce_seconds=0,
        tls=TlsFiles(certificate=certificate, key=key),
    )
    await server.start()
    yield address
    await server.stop()
    await client.stop()


async def test_the_gateway_speaks_https_and_takes_a_new_certificate_without_a_restart(
    authority: Authority, https: str
) -> None:
    host, port = https.split(":")
    trust = ssl.create_default_context(cafile=str(authority.path))
    async with httpx.AsyncClient(verify=trust) as client:
        answer = await client.get(f"https://{https}/")
    before = await asyncio.to_thread(ssl.get_server_certificate, (host, int(port)))
    authority.issue("server")

    async def is_new() -> bool:
        return await asyncio.to_thread(ssl.get_server_certificate, (host, int(port))) != before

    assert answer.text == "hello"
    assert await eventually(is_new, 10)


async def test_a_client_that_says_nothing_over_tls_holds_nobody_up(authority: Authority, https: str) -> None:
    host, port = https.split(":")
    silent = [await asyncio.open_connection(host, int(port)) for _ in range(50)]
    trust = ssl.create_default_context(cafile=str(authority.path))

    async with httpx.AsyncClient(verify=trust, timeout=5) as client:
        answer = await client.get(f"https://{https}/")

    for _, writer in silent:
        writer.close()
    assert answer.status_code == 200


@asynccontextmanager
async def key_server(authority: Authority, monkeypatch: pytest.MonkeyPatch, body: bytes) -> AsyncIterator[str]:
    """An issuer's key set by https."""
    certificate, key = authority.issue("issuer")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.path))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        with contextlib.suppress(OSError):
            await writer.drain()
        writer.close()

    context = TlsFiles(certificate=certificate, key=key).server_context()
    async with await asyncio.start_server(serve, "127.0.0.1", port := free_port(), ssl=context):
        yield f"https://127.0.0.1:{port}/jwks.json"


async def test_keys_come_by_https_beside_those_of_a_file(
    authority: Authority, keys: TestKeys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    issuer = TestKeys(tmp_path / "issuer")
    async with key_server(authority, monkeypatch, issuer.jwks.read_bytes()) as url:
        source = JwksSource(f"{url}, {keys.jwks}")
        names = {key.kid for key in (await source.keys(refresh=False)).keys}
        await source.stop()

    wanted = [*json.loads(issuer.jwks.read_bytes())["keys"], *json.loads(keys.jwks.read_bytes())["keys"]]
    assert names == {key["kid"] for key in wanted}


async def test_a_key_server_whose_certificate_is_not_trusted_is_not_believed(
    authority: Authority, keys: TestKeys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with key_server(authority, monkeypatch, keys.jwks.read_bytes()) as url:
        monkeypatch.setenv("SSL_CERT_FILE", str(Authority.make(tmp_path / "stranger").path))
        source = JwksSource(url)
        with pytest.raises(ConfigurationError):
            await source.keys(refresh=False)
        await source.stop()


async def test_an_endless_key_set_is_not_read_to_its_end(authority: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    async with key_server(authority, monkeypatch, b" " * (MAX_KEY_SET_BYTES * 2)) as url:
        source = JwksSource(url)
        with pytest.raises(ConfigurationError):
            await source.keys(refresh=False)
        await source.stop()


@pytest.mark.parametrize("variable", ["redis_url", "database_url"])
def test_plain_text_beyond_this_machine_must_be_asked_for(variable: str) -> None:
    urls: dict[str, Any] = {
        "redis_url": "redis://:secret@db.example:6379/0",
        "database_url": "postgresql://hub:secret@db.example/hub",
    }
    check = {"redis_url": HubSettings.check_redis, "database_url": HubSettings.check_database}[variable]

    with pytest.raises(ConfigurationError, match="HUB_ALLOW_PLAINTEXT") as refused:
        check(HubSettings(**{variable: urls[variable]}))

    assert "secret" not in str(refused.value)
    check(HubSettings(**{variable: urls[variable]}, allow_plaintext=True))
    check(
        HubSettings(redis_url="rediss://db.example:6379/0", database_url=f"{urls['database_url']}?sslmode=verify-full")
    )


def test_an_encrypted_link_may_leave_this_machine() -> None:
    HubSettings(tls_certificate="cert.pem").check_link("10.0.0.1:50051")
    with pytest.raises(ConfigurationError, match="HUB_ALLOW_PLAINTEXT"):
        HubSettings(tls_certificate="cert.pem").check_link("10.0.0.1:8080", encrypted=False)
