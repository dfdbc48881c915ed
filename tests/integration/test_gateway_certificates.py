"""The gateway's HTTPS certificate is renewed while it serves: the new one is shown alone, and nothing else stops."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from chassis.rpc_client import RpcClient
from chassis.testing import TestKeys, eventually, free_port
from chassis.tls import TlsFiles
from chassis.tokens import ServiceToken
from gateway.readiness import Readiness
from gateway.server import HttpServer
from tests.certificates import Authority, PrivateKey

MakeKey = Callable[[], PrivateKey]
#: Of the server: only the second is said in the handshake (RFC 6066, 3: no addresses).
NAMES = ("127.0.0.1", "localhost")
VERSIONS = (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path / "authority")


@asynccontextmanager
async def serving(keys: TestKeys, files: TlsFiles) -> AsyncIterator[int]:
    """The gateway's server on a port, which is given; nothing calls its application."""
    port = free_port()
    client = RpcClient("127.0.0.1:1", ServiceToken(keys.signer, service="test", scopes=()), timeout_seconds=1)
    application: Any = None
    server = HttpServer(
        application, f"127.0.0.1:{port}", Readiness(client), grace_seconds=1, announce_seconds=0, tls=files
    )
    await server.start()
    try:
        yield port
    finally:
        await server.stop()
        await client.stop()


async def shown_to(authority: Authority, port: int, name: str, version: ssl.TLSVersion) -> bytes:
    """The certificate that a client is shown."""
    trust = ssl.create_default_context(cafile=str(authority.path))
    trust.maximum_version = version
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname=name)
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
    return shown


async def renew(authority: Authority, keys: TestKeys, make_first: MakeKey, make_second: MakeKey) -> None:
    """Fail unless every client is shown the second certificate soon, and until then the first."""
    certificate, key = authority.issue("server", make_first())
    async with serving(keys, TlsFiles(certificate=certificate, key=key)) as port:
        first = ssl.PEM_cert_to_DER_cert(certificate.read_text())
        assert {await shown_to(authority, port, name, version) for name in NAMES for version in VERSIONS} == {first}
        authority.issue("server", make_second())
        second = ssl.PEM_cert_to_DER_cert(certificate.read_text())

        async def is_shown() -> bool:
            return await shown_to(authority, port, NAMES[0], VERSIONS[1]) == second

        assert await eventually(is_shown, 10, every=0.1)
        assert {await shown_to(authority, port, name, version) for name in NAMES for version in VERSIONS} == {second}


def p_256() -> PrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def rsa_2048() -> PrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("kinds", [(p_256, rsa_2048), (rsa_2048, p_256)], ids=["to RSA", "to P-256"])
def test_a_certificate_of_another_kind_of_key_takes_the_place_of_the_old_one(
    authority: Authority,
    keys: TestKeys,
    kinds: tuple[MakeKey, MakeKey],
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:  # the services run on uvloop
        runner.run(renew(authority, keys, *kinds))


async def test_a_fault_at_the_look_for_a_new_certificate_ends_no_time_out_and_no_drain(
    authority: Authority, keys: TestKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: TlsFiles) -> bool:
        raise OSError("the disk is gone")

    monkeypatch.setattr(TlsFiles, "reload", fail)
    monkeypatch.setattr("gateway.http_protocol.HEAD_SECONDS", 0.1)
    certificate, key = authority.issue("server")
    trust = ssl.create_default_context(cafile=str(authority.path))

    async with serving(keys, TlsFiles(certificate=certificate, key=key)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname=NAMES[0])
        received = await asyncio.wait_for(reader.read(), 10)
        writer.close()

    assert received == b""  # cut off: it never said a word
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
