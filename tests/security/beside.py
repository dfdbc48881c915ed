"""Watching a neighbour while somebody attacks: what its calls took that met the attack."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from chassis.testing import eventually
from console.testing import HubProcess

_SETTLE_SECONDS = 30.0
_PEACE_SECONDS = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call of the neighbour's."""

    began: float
    seconds: float
    status: int

    @property
    def ended(self) -> float:
        """When its answer was there."""
        return self.began + self.seconds


class Beside:
    """A neighbour in a process of its own (tests.security.neighbour), from `start` to `stop`."""

    def __init__(self, hub: HubProcess) -> None:
        self._hub = hub
        self._calls: list[Call] = []
        self._process: subprocess.Popen[str] | None = None
        self._listener: threading.Thread | None = None

    def start(self) -> "Beside":
        """Let it call."""
        environment = {**os.environ, "HUB_TOKEN": self._hub.token("beside", rate_per_minute=0)}
        command = [sys.executable, "-m", "tests.security.neighbour", self._hub.setting("gateway_address")]
        self._process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        self._listener = threading.Thread(target=self._listen, args=(self._process,), daemon=True)
        self._listener.start()
        return self

    def stop(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._listener is not None:
            self._listener.join()

    async def worst_in_peace(self) -> float:
        """The longest call of a while in which nobody attacks."""
        return await self.worst_during(lambda: asyncio.sleep(_PEACE_SECONDS))

    async def worst_during(self, attack: Callable[[], Awaitable[object]]) -> float:
        """The longest call, in seconds, of those that were under way at any time of the attack."""
        began = time.monotonic()
        await self._calls_since(began)
        await attack()
        ended = time.monotonic()
        await self._calls_since(ended)
        met = [call for call in list(self._calls) if call.ended >= began and call.began <= ended]
        assert {call.status for call in met} <= {200, 202}, met
        return max(call.seconds for call in met)

    async def _calls_since(self, instant: float) -> None:
        async def has_called() -> bool:
            calls = self._calls
            return bool(calls) and calls[-1].began > instant

        assert await eventually(has_called, _SETTLE_SECONDS)

    def _listen(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                began, seconds, status = line.split()
                self._calls.append(Call(began=float(began), seconds=float(seconds), status=int(status)))
