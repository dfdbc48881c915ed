"""What is measured, each behind the same face: the hub on SQLite and on PostgreSQL, and the peers of rivals.py."""

from pathlib import Path
from typing import Protocol

from bench.hub import HUB_PROCESSES, new_hub
from bench.ledger import HUB, HUB_ON_SQLITE, Ledger
from bench.peers.limits import IN_FLIGHT
from bench.profile import Instruments

TARGETS = """
[targets.TotvsProtheus]
adapter = "http_json"
base_url = "{endpoint}"
path = "/orders"
idempotent = true
concurrency = {in_flight}
timeout_seconds = 10
"""


class System(Protocol):
    """One competitor in one layout, with a database and a folder of its own."""

    @property
    def name(self) -> str:
        """How it is called in the tables."""

    @property
    def base_url(self) -> str:
        """Where partners call."""

    @property
    def token(self) -> str:
        """What partners show; the peers do not look at it, to their favour."""

    @property
    def ledger(self) -> Ledger:
        """Its database's record."""

    @property
    def processes(self) -> dict[str, int]:
        """Its processes while it runs, by name, without PostgreSQL."""

    @property
    def uses_postgres(self) -> bool:
        """Whether PostgreSQL's cost is its cost."""

    @property
    def events_url(self) -> str | None:
        """The Redis with the event stream in which completions can be watched, where it has one."""

    @property
    def instruments(self) -> Instruments | None:
        """Where to read what a request makes it do, where that is of interest."""

    async def start(self) -> None:
        """Start, the second time with what the first has left."""

    async def stop(self) -> None:
        """End as on a normal day."""

    async def kill(self) -> None:
        """SIGKILL for every process of it."""


class HubSystem:
    """The hub as `hub up` runs it, with all its defaults but the limit of requests per partner and TARGETS' keys."""

    def __init__(self, name: str, folder: Path, *, endpoint_url: str, database_url: str = "") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.uses_postgres = bool(database_url)
        targets = TARGETS.format(endpoint=endpoint_url, in_flight=IN_FLIGHT)
        self._hub = new_hub(folder, targets, **({"database_url": database_url} if database_url else {}))
        on_sqlite = Ledger(f"sqlite:///{folder / 'state' / 'hub.sqlite3'}", HUB_ON_SQLITE)
        self.ledger = Ledger(database_url, HUB) if database_url else on_sqlite
        self._token = ""

    @property
    def base_url(self) -> str:
        """The gateway."""
        return self._hub.base_url

    @property
    def token(self) -> str:
        """Signed with this hub's key."""
        self._token = self._token or self._hub.token("bench")
        return self._token

    @property
    def processes(self) -> dict[str, int]:
        """The supervisor and its children."""
        return {"supervisor": self._hub.pid, **self._hub.child_pids()}

    @property
    def events_url(self) -> str | None:
        """Its embedded Valkey."""
        return self._hub.redis_url

    @property
    def instruments(self) -> Instruments:
        """The services' metrics, Valkey and the logs."""
        metrics = {name: self._hub.setting(f"{name}_metrics_address") for name in HUB_PROCESSES}
        return Instruments(
            metrics=metrics, redis_url=self._hub.redis_url, logs=Path(self._hub.setting("state_dir")) / "logs"
        )

    async def start(self) -> None:
        """Wait until it is ready."""
        await self._hub.start()

    async def stop(self) -> None:
        """Drain and end."""
        await self._hub.stop()

    async def kill(self) -> None:
        """The supervisor's death is that of its children, by the kernel."""
        await self._hub.kill()
