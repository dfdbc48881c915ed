"""A hub of processes: its services, its database, its Valkey and the external system, each of which may be ended.

On PostgreSQL two of every service share the work; SQLite belongs to one machine, so there it is one of each.
"""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

from chassis.testing import TestKeys, free_port
from tests.chaos.part import Part
from tests.chaos.servers import CrashingPostgres, PausableValkey
from tests.chaos.targets import write_targets

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("adapter", "intake", "orchestrator", "gateway")
START_SECONDS = 60.0
DATABASE = "chaos"


class Hub:
    """Everything that runs; `folder` holds databases, files and logs."""

    def __init__(self, folder: Path, *, on_postgresql: bool, log_level: str) -> None:
        self.folder = folder
        self.logs = folder / "logs"
        self.logs.mkdir()
        self.clock_file = folder / "clock"
        self.move_clock(0.0)
        self.keys = TestKeys(folder / "state" / "keys")
        self.valkey = PausableValkey(folder / "valkey")
        self.postgres = CrashingPostgres() if on_postgresql else None
        self.database_url = ""
        self.external_url = f"http://127.0.0.1:{free_port()}"
        self._instances = 2 if on_postgresql else 1
        self._log_level = log_level
        self._addresses = {
            (service, number): (free_port(), free_port())
            for service in SERVICES
            for number in range(1, self._instances + 1)
        }
        self.services: list[Part] = []
        self.external = self._external()

    @property
    def gateways(self) -> list[str]:
        """Where partners call."""
        return [f"http://{address}" for address in self._listed("gateway")]

    def service(self, name: str) -> Part:
        """One process of the hub, such as intake-1."""
        return next(part for part in self.services if part.name == name)

    def move_clock(self, seconds: float) -> None:
        """Move the clock that decides what is due (SQLite only; PostgreSQL has its own)."""
        new = self.clock_file.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self.clock_file)

    async def start(self) -> None:
        """Start everything. Raises: TimeoutError when it is not all healthy within a minute."""
        await asyncio.to_thread(self.valkey.start)
        if self.postgres is None:
            self.database_url = f"sqlite:///{self.folder / 'state' / 'hub.sqlite3'}"
        else:
            await asyncio.to_thread(self.postgres.start)
            self.database_url = await asyncio.to_thread(self.postgres.create_database, DATABASE)
        targets = write_targets(self.folder, self.external_url)
        self.services = [self._service(*place, targets) for place in self._addresses]
        async with asyncio.timeout(START_SECONDS):
            for part in self._parts():
                await part.start()
            await self.healthy()

    async def healthy(self) -> None:
        """Wait until every process answers its probe."""
        await asyncio.gather(*(part.healthy() for part in self._parts()))

    async def stop_services(self) -> None:
        """Drain the hub; the database, Valkey and the external system go on."""
        for service in reversed(SERVICES):
            await asyncio.gather(*(part.stop() for part in self.services if part.kind == service))

    async def stop(self) -> None:
        """End everything, whatever state it is in."""
        await asyncio.gather(*(part.stop() for part in self._parts()))
        await asyncio.to_thread(self.valkey.stop)
        if self.postgres is not None:
            await asyncio.to_thread(self.postgres.stop)

    def _parts(self) -> Iterator[Part]:
        yield self.external
        yield from self.services

    def _listed(self, service: str) -> list[str]:
        return [f"127.0.0.1:{self._addresses[service, number][0]}" for number in range(1, self._instances + 1)]

    def _external(self) -> Part:
        address = self.external_url.removeprefix("http://")
        state = str(self.folder / "external.jsonl")
        return Part(
            "external",
            kind="external",
            module=("tests.chaos.external_system", "--address", address, "--state", state),
            probe=f"{self.external_url}/_sim/health",
            root=ROOT,
            environment=self._environment(),
            log=self.logs / "external.log",
        )

    def _service(self, service: str, number: int, targets: Path) -> Part:
        port, metrics_port = self._addresses[service, number]
        variables = {
            "HUB_STATE_DIR": str(self.folder / "state"),
            "HUB_DATABASE_URL": self.database_url,
            "HUB_REDIS_URL": self.valkey.url,
            "HUB_TARGETS": str(targets),
            "HUB_INTAKE_URL": ",".join(self._listed("intake")),
            "HUB_ADAPTER_URL": ",".join(self._listed("adapter")),
            "HUB_PARTNER_RATE_PER_MINUTE": "0",
            "HUB_LOG_LEVEL": self._log_level,
            "HUB_LOG_FORMAT": "json",
            f"HUB_{service.upper()}_ADDRESS": f"127.0.0.1:{port}",
            f"HUB_{service.upper()}_METRICS_ADDRESS": f"127.0.0.1:{metrics_port}",
        }
        name = f"{service}-{number}"
        return Part(
            name,
            kind=service,
            module=self._module(service),
            probe=f"http://127.0.0.1:{port}/readyz" if service == "gateway" else f"grpc://127.0.0.1:{port}",
            root=ROOT,
            environment=self._environment() | variables,
            log=self.logs / f"{name}.log",
        )

    def _module(self, service: str) -> tuple[str, ...]:
        if service == "intake" and self.postgres is None:
            return ("tests.chaos.intake_with_clock", str(self.clock_file))
        return ("gateway" if service == "gateway" else f"{service}_service",)

    def _environment(self) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("HUB_", "OTEL_"))}
        paths = os.pathsep.join([str(ROOT), str(ROOT / "gen")])
        return {**inherited, "PYTHONPATH": paths, "PROTHEUS_TOKEN": "simulator-token"}
