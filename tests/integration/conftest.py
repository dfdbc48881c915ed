"""What tests share: the orchestrator's neighbours as fakes behind real servers, and the Valkey as a test sees it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio as redis

from tests.orchestrator_fakes import Surroundings, surroundings
from tests.servers import ValkeyServer


@pytest.fixture
async def parts(tmp_path: Path) -> AsyncIterator[Surroundings]:
    """A fake intake and a fake adapter, and a worker's clients of them."""
    async with surroundings(tmp_path) as parts:
        yield parts


@pytest.fixture
async def db(valkey: ValkeyServer) -> AsyncIterator[Any]:
    """Redis as a test sees it, empty."""
    client: Any = redis.Redis.from_url(valkey.url, decode_responses=True)
    await client.flushall()
    yield client
    await client.aclose()


@pytest.fixture
async def watcher(redis_url: str) -> AsyncIterator[redis.Redis]:
    """The streams of the hub under test, as a test reads them."""
    async with redis.Redis.from_url(redis_url, decode_responses=True) as client:
        yield client
