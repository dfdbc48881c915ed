"""Redis and PostgreSQL over TLS, by their URLs alone: the server is checked, and a password is sent."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis.asyncio as redis
import sqlalchemy as sa

from chassis.database import Database
from chassis.errors import StorageUnavailable
from chassis.settings import HubSettings
from chassis.streams import Streams, StreamsUnavailable
from chassis.tls import TlsFiles
from tests.certificates import Authority
from tests.servers import ValkeyServer
from tests.tls_front import tls_front

PASSWORD = "not-a-word-of-the-book"


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority.make(tmp_path / "authority")


@pytest.fixture
def files(authority: Authority) -> TlsFiles:
    certificate, key = authority.issue("store")
    return TlsFiles(certificate=certificate, key=key)


@pytest.fixture
async def redis_port(files: TlsFiles, own_valkey: ValkeyServer) -> AsyncIterator[int]:
    """The port of a Valkey that wants a password, behind TLS."""
    async with redis.Redis.from_url(own_valkey.url) as client:
        await client.config_set("requirepass", PASSWORD)
    async with tls_front(files, urlsplit(own_valkey.url).port or 0) as port:
        yield port


async def is_reached(url: str) -> bool:
    streams = Streams(url)
    try:
        await streams.publish([("hub:test", {"id": "1"})])
    except StreamsUnavailable:
        return False
    finally:
        await streams.stop()
    return True


async def test_redis_is_reached_over_tls_with_its_password(authority: Authority, redis_port: int) -> None:
    url = f"rediss://:{PASSWORD}@127.0.0.1:{redis_port}/0?ssl_ca_certs={authority.path}"

    HubSettings(redis_url=url).check_redis()
    assert await is_reached(url)


async def test_a_redis_whose_certificate_is_not_trusted_is_not_spoken_to(redis_port: int, tmp_path: Path) -> None:
    stranger = Authority.make(tmp_path / "stranger")

    assert not await is_reached(f"rediss://:{PASSWORD}@127.0.0.1:{redis_port}/0?ssl_ca_certs={stranger.path}")
    assert not await is_reached(f"rediss://:{PASSWORD}@127.0.0.1:{redis_port}/0")


@pytest.mark.parametrize("password", ["", ":wrong@"], ids=["none", "wrong"])
async def test_a_redis_that_wants_another_password_is_not_reached(
    authority: Authority, redis_port: int, password: str
) -> None:
    assert not await is_reached(f"rediss://{password}127.0.0.1:{redis_port}/0?ssl_ca_certs={authority.path}")


def answer(url: str) -> int:
    """What the database says to SELECT 1. Raises: StorageUnavailable."""
    database = Database(url)
    try:
        return database.read(lambda connection: int(connection.execute(sa.text("SELECT 1")).scalar_one()))
    finally:
        database.dispose()


@pytest.fixture
async def postgres_behind_tls(files: TlsFiles, postgres_url: str) -> AsyncIterator[str]:
    """The URL of the session's PostgreSQL behind TLS, without parameters."""
    parts = urlsplit(postgres_url)
    async with tls_front(files, parts.port or 0, postgres=True) as port:
        yield f"postgresql://{parts.username}:{PASSWORD}@127.0.0.1:{port}{parts.path}"


async def test_postgresql_is_reached_over_tls(authority: Authority, postgres_behind_tls: str) -> None:
    url = f"{postgres_behind_tls}?sslmode=verify-full&sslrootcert={authority.path}"

    HubSettings(database_url=url).check_database()
    assert await asyncio.to_thread(answer, url) == 1


async def test_a_postgresql_whose_certificate_is_not_trusted_is_not_spoken_to(
    postgres_behind_tls: str, tmp_path: Path
) -> None:
    stranger = Authority.make(tmp_path / "stranger")

    with pytest.raises(StorageUnavailable):
        await asyncio.to_thread(answer, f"{postgres_behind_tls}?sslmode=verify-full&sslrootcert={stranger.path}")
