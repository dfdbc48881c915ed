"""What tests of every service need: a clock to turn, waiting for a condition, free ports, tokens."""

import asyncio
import contextlib
import inspect
import itertools
import os
import socket
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from chassis.clock import SECOND, Micros
from chassis.tokens import TokenSigner, make_keys

_PORTS = range(10_000, 32_000)
_port_numbers = itertools.count(os.getpid() * 7919)


class FakeClock:
    """A clock that a test turns."""

    def __init__(self, at: Micros = 1_750_000_000 * SECOND) -> None:
        self.at = at

    def now(self) -> Micros:
        """The instant the test set."""
        return self.at

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.at += round(seconds * SECOND)


async def eventually(
    condition: Callable[[], Any | Awaitable[Any]], seconds: float = 10.0, *, every: float = 0.01
) -> Any:
    """Wait until `condition` gives something true and return it.

    Raises: AssertionError with the condition's last value when it does not within `seconds`.
    """
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not true within {seconds} s; last value: {value!r}")
        await asyncio.sleep(every)


def free_port() -> int:
    """A port that is free and that this process has not given before.

    Below the range from which systems take the ports of outgoing calls (RFC 6335 names 49152, Linux begins at 32768):
    one of those may be taken by anybody's call before its server starts. Each process begins at a place of its own.
    """
    for _ in _PORTS:
        port = _PORTS[next(_port_numbers) % len(_PORTS)]
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port")


class TestKeys:
    """A key pair of a test's own and tokens signed with it."""

    __test__ = False

    def __init__(self, folder: Path, *, issuer: str = "integration-hub", audience: str = "integration-hub") -> None:
        make_keys(folder)
        self.jwks = folder / "jwks.json"
        self.private = folder / "private.json"
        self.signer = TokenSigner(self.private, issuer=issuer, audience=audience)

    def token(self, partner: str, *scopes: str, seconds: int = 3600, **claims: object) -> str:
        """A token for `partner`."""
        return self.signer.sign(subject=partner, scopes=scopes, seconds=seconds, **claims)

    def header(self, partner: str, *scopes: str, **claims: Any) -> dict[str, str]:
        """An HTTP Authorization header for `partner`."""
        return {"Authorization": f"Bearer {self.token(partner, *scopes, **claims)}"}
