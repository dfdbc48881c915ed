"""A short run of the fuzzers; the long one is `python -m tests.security.fuzz --cases 100000`."""

import asyncio

import pytest

from console.testing import HubProcess
from tests.security.fuzz import ALLOWED, fuzz_parsers, fuzz_rest, fuzz_rpc, fuzz_stream


def test_no_bytes_break_a_parser() -> None:
    assert fuzz_parsers(2_000) >= 1_000


async def test_no_message_breaks_an_rpc(hub: HubProcess) -> None:
    codes = await asyncio.to_thread(fuzz_rpc, hub, 720)

    assert codes.keys() <= ALLOWED
    assert codes.total() >= 300


@pytest.mark.filterwarnings("default")  # of schemathesis' own dependencies
async def test_no_call_made_from_the_contract_breaks_a_route(hub: HubProcess) -> None:
    assert await asyncio.to_thread(fuzz_rest, hub, 200) >= 50


async def test_no_stream_entry_stops_the_work(hub: HubProcess) -> None:
    assert await asyncio.to_thread(fuzz_stream, hub, 100) >= 50
