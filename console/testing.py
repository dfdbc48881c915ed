"""A whole hub as child processes, for end-to-end tests and benchmarks: own folder, own ports, ended by its pid."""

import asyncio
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from chassis.settings import HubSettings
from chassis.testing import free_port
from chassis.tokens import TokenSigner

_READY_SECONDS = 60.0
_STOP_SECONDS = 60.0
_SERVICES = ("gateway", "intake", "orchestrator", "adapter")


class HubProcess:
    """`hub up` in a folder of its own; `start` again after `stop` or `kill` goes on with the same state.

    `settings` are HUB_* variables without the prefix, in lower case, that differ from the defaults.
    """

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        addresses = {f"{name}_address": f"127.0.0.1:{free_port()}" for name in (*_SERVICES, "simulator")}
        metrics = {f"{name}_metrics_address": f"127.0.0.1:{free_port()}" for name in _SERVICES}
        chosen = {"state_dir": str(folder / "state"), "redis_port": str(free_port()), **addresses, **metrics}
        self._variables = {f"HUB_{name.upper()}": value for name, value in {**chosen, **settings}.items()}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """What `hub` commands need to talk to this hub."""
        inherited: Mapping[str, str] = {k: v for k, v in os.environ.items() if not k.startswith("HUB_")}
        return {**inherited, **self._variables}

    def setting(self, name: str) -> str:
        """One setting, by its variable's name without HUB_, in lower case."""
        return self._variables[f"HUB_{name.upper()}"]

    @property
    def base_url(self) -> str:
        """Where partners call."""
        scheme = "https" if "HUB_GATEWAY_TLS_CERTIFICATE" in self._variables else "http"
        return f"{scheme}://{self.setting('gateway_address')}"

    @property
    def redis_url(self) -> str:
        """The embedded Valkey, with the password it was given at the first start."""
        settings = HubSettings(state_dir=Path(self.setting("state_dir")), redis_port=int(self.setting("redis_port")))
        return settings.effective_redis_url

    @property
    def simulator_url(self) -> str:
        """Where the simulator is."""
        return f"http://{self.setting('simulator_address')}"

    @property
    def pid(self) -> int:
        """The supervisor's."""
        assert self._process is not None, "the hub is not running"
        return self._process.pid

    def token(self, partner: str, *scopes: str, **claims: object) -> str:
        """A token signed with this hub's key."""
        defaults = HubSettings()
        keys = Path(self.setting("state_dir")) / "keys" / "private.json"
        signer = TokenSigner(keys, issuer=defaults.jwt_issuer, audience=defaults.jwt_audience)
        return signer.sign(
            subject=partner, scopes=scopes or ("requests:write", "requests:read"), seconds=3600, **claims
        )

    async def start(self, *, seconds: float = _READY_SECONDS) -> Self:
        """Start it and wait for its ready line. Raises: RuntimeError with the end of its log."""
        await asyncio.to_thread(self._start, seconds)
        return self

    async def stop(self) -> int:
        """End it as Ctrl-C does; gives its exit code."""
        return await asyncio.to_thread(self._end, signal.SIGTERM)

    async def kill(self) -> None:
        """End the supervisor as a crash does; its children end with it."""
        await asyncio.to_thread(self._end, signal.SIGKILL)

    def child_pids(self) -> dict[str, int]:
        """The processes it started, by name: found through /proc, so that the hub is not asked about itself."""
        children: dict[str, int] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and _parent_of(entry) == self.pid:
                children[_name_of(entry)] = int(entry.name)
        return children

    async def __aenter__(self) -> Self:
        """Start it."""
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it."""
        if self._process is not None:
            await self.stop()

    def _start(self, seconds: float) -> None:
        log = self.folder / "hub.log"
        with log.open("ab") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "console", "up", "--quiet"],
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )
        assert self._process.stdout is not None
        is_told, _, _ = select.select([self._process.stdout], [], [], seconds)
        if not is_told or not self._process.stdout.readline().startswith(b"ready"):
            self._end(signal.SIGTERM)
            what = "did not start" if is_told else f"was not ready within {seconds:g} s"
            raise RuntimeError(f"the hub {what}:\n{log.read_text()[-4000:]}")

    def _end(self, signum: signal.Signals) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(signum)
        code = process.wait(_STOP_SECONDS)
        if process.stdout is not None:
            process.stdout.close()
        return code


def _parent_of(entry: Path) -> int:
    try:
        return int((entry / "stat").read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):
        return 0


def _name_of(entry: Path) -> str:
    words = (entry / "cmdline").read_bytes().decode(errors="replace").split("\0")
    if "-m" in words:
        return words[words.index("-m") + 1].removesuffix("_service")
    return Path(words[0]).name.removesuffix("-server")
