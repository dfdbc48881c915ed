"""The simulator as a child process, for tests and measurements. It is driven over HTTP, as anybody else would.

Nothing here belongs to an event loop: one process may serve many tests, each with its own loop.
"""

import asyncio
import os
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

import httpx

START_SECONDS = 20.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.01
CALL_SECONDS = 30.0
REPOSITORY = Path(__file__).resolve().parents[1]


class SimulatorProcess:
    """Run `python -m simulator` and speak to its administration calls.

    A context manager of both kinds: `async with SimulatorProcess() as simulator`, or `with` in a synchronous fixture.
    After `kill` or `stop` the process may be started again: on the same address, and with the same state file.
    """

    def __init__(
        self, *, address: str = "127.0.0.1:0", state: Path | None = None, token: str = "simulator-token"
    ) -> None:
        self.token = token
        self.base_url = ""
        self._address = address
        self._state = state
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # never used; httpx would load every CA for each client
        self._stderr: BinaryIO | None = None
        self._written = ""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Return the process id while it runs."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start the process and return when it listens.

        Raises:
            RuntimeError: it ended, or did not listen within 20 s; the message carries its stderr.
        """
        arguments = [sys.executable, "-m", "simulator", "--address", self._address]
        if self._state is not None:
            arguments += ["--state", str(self._state.resolve())]
        environment = {**os.environ, "PROTHEUS_TOKEN": self.token, "HUB_SIMULATOR_STATE": ""}
        # Appending, since the child shares our file position, which reading moves.
        self._stderr = tempfile.TemporaryFile("a+b")  # noqa: SIM115 (closed when the process has ended)
        self._process = subprocess.Popen(
            arguments, cwd=REPOSITORY, env=environment, stdin=subprocess.DEVNULL, stderr=self._stderr
        )
        self.base_url = self._wait_for_address(time.monotonic() + START_SECONDS)
        self._address = self.base_url.removeprefix("http://")

    def stop(self) -> int:
        """End the process with SIGTERM and return its exit status; SIGKILL when it does not obey within 10 s."""
        if self._process is not None:
            self._process.terminate()
        return self._wait_for_end()

    def kill(self) -> int:
        """End the process with SIGKILL and return its exit status."""
        if self._process is not None:
            self._process.kill()
        return self._wait_for_end()

    def stderr(self) -> str:
        """Return what the process wrote since its last start."""
        if self._stderr is not None:
            self._stderr.seek(0)
            self._written = self._stderr.read().decode(errors="replace")
        return self._written

    async def __aenter__(self) -> Self:
        """Start, without holding the event loop."""
        await asyncio.to_thread(self.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, without holding the event loop."""
        await asyncio.to_thread(self.__exit__, kind, error, trace)

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop."""
        self.stop()

    async def fault(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Switch a fault on; fields as in `simulator.faults.Fault` (once, on posts, unless said otherwise)."""
        return await self._call("POST", "/_sim/faults", body={"kind": kind, **fields})

    async def faults(self, target: str | None = None) -> list[dict[str, Any]]:
        """List the faults that still wait."""
        return await self._items("/_sim/faults", target)

    async def clear_faults(self, target: str | None = None) -> None:
        """Switch off the faults of one target, or of all."""
        await self._call("DELETE", "/_sim/faults", {"target": target})

    async def settings(self, target: str = "default", **changes: Any) -> dict[str, Any]:
        """Change settings (fields of `simulator.targets.TargetSettings`) and return them all."""
        return await self._call("POST", "/_sim/settings", body={"target": target, **changes})

    async def orders(self, target: str | None = None) -> list[dict[str, Any]]:
        """Return every stored order, oldest first."""
        orders: list[dict[str, Any]] = []
        page = await self._items("/_sim/orders", target, after=0)
        while page:
            orders += page
            page = await self._items("/_sim/orders", target, after=page[-1]["sequence"])
        return orders

    async def order_count(self, target: str | None = None) -> int:
        """Count the stored orders."""
        counted = await self._call("GET", "/_sim/orders/count", {"target": target})
        return int(counted["count"])

    async def duplicates(self, target: str | None = None) -> list[dict[str, Any]]:
        """Return the orders held more than once, by integrationId or key."""
        return await self._items("/_sim/orders/duplicates", target)

    async def calls(self, target: str | None = None) -> list[dict[str, Any]]:
        """Return the newest 10,000 calls, oldest first."""
        return await self._items("/_sim/calls", target)

    async def reset(self, target: str | None = None) -> None:
        """Forget orders, faults, settings and calls, of one target or of all."""
        await self._call("POST", "/_sim/reset", {"target": target})

    async def _items(self, path: str, target: str | None, **query: Any) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = (await self._call("GET", path, {"target": target, **query}))["items"]
        return items

    async def _call(
        self, method: str, path: str, query: Mapping[str, Any] | None = None, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        wanted = {name: value for name, value in (query or {}).items() if value is not None}
        # A client for each call: a kept one would belong to the loop of the test that made it.
        async with httpx.AsyncClient(
            base_url=self.base_url, trust_env=False, verify=self._tls, timeout=CALL_SECONDS
        ) as http:
            answer = await http.request(method, path, params=wanted, json=body)
        if answer.is_error:
            raise ValueError(f"{method} {path}: {answer.status_code} {answer.text}")
        content: dict[str, Any] = answer.json() if answer.content else {}
        return content

    def _wait_for_end(self) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        try:
            status = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            status = process.wait(STOP_SECONDS)
        self.stderr()
        if self._stderr is not None:
            self._stderr.close()
            self._stderr = None
        return status

    def _wait_for_address(self, deadline: float) -> str:
        process = self._process
        assert process is not None
        while time.monotonic() < deadline:
            first_line, newline, _ = self.stderr().partition("\n")
            if newline and first_line.startswith("simulator listens on "):
                return first_line.removeprefix("simulator listens on ")
            if process.poll() is not None:
                break
            time.sleep(POLL_SECONDS)
        self.kill()
        raise RuntimeError(f"The simulator did not start: {self.stderr()}")
