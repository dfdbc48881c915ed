"""One run on one database: load and faults together, then quiet, then the ledgers."""

import asyncio
import contextlib
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.chaos.checker import Breach, Finding, check
from tests.chaos.faults import Action, Round, draw_rounds
from tests.chaos.hub import Hub
from tests.chaos.injector import Injector
from tests.chaos.ledgers import Ledgers, Stored, read_left_over, read_orders, read_stored
from tests.chaos.load import Partners, Promise
from tests.chaos.recovery import Kill, Watch
from tests.chaos.targets import LATEST_COMMIT_SECONDS

SAY_SECONDS = 5.0
CALM_SECONDS = 60.0
RECOVERED_SECONDS = 60.0
SETTLE_SECONDS = 300.0
EMPTY_SECONDS = 60.0
#: Refusals that ask for a repetition; 0 = no answer.
REPEATABLE = (0, 429, 503, 504)
SCOPES = ("requests:write", "requests:read")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is asked of a run."""

    on_postgresql: bool
    seed: int
    requests: int
    faults: int
    rate: float
    #: After so long the load ends, whatever is missing.
    seconds_limit: float
    log_level: str

    @property
    def database(self) -> str:
        """The database's name."""
        return "postgresql" if self.on_postgresql else "sqlite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of it."""

    plan: Plan
    folder: Path
    sent: int
    promises: Mapping[str, Promise]
    refusals: Counter[int]
    answer_seconds: Sequence[float]
    injected: Counter[Action]
    kills: Sequence[Kill]
    ended_at: Mapping[str, float]
    own_ends: Mapping[str, Sequence[int]]
    stored: Sequence[Stored]
    findings: Sequence[Finding]
    load_seconds: float
    settle_seconds: float


async def run(plan: Plan) -> Outcome:
    """Run once; the folder stays for whoever wants to look. Raises: what kept the hub from starting."""
    folder = Path(tempfile.mkdtemp(prefix=f"hub-chaos-{plan.database}-"))
    hub = Hub(folder, on_postgresql=plan.on_postgresql, log_level=plan.log_level)
    try:
        await hub.start()
        token = hub.keys.token("chaos", *SCOPES, seconds=24 * 3600)
        async with Partners(hub.gateways, token, seed=plan.seed) as partners:
            return await Run(plan, hub, partners).go()
    finally:
        await hub.stop()


class Run:
    """The parts of a run, from the first order to the last finding."""

    def __init__(self, plan: Plan, hub: Hub, partners: Partners) -> None:
        self._plan = plan
        self._hub = hub
        self._partners = partners
        self._watch = Watch(partners.promises, hub.database_url)
        self._injector = Injector(hub, partners, seed=plan.seed)
        self._phase = "load"
        self._started_at = time.monotonic()

    async def go(self) -> Outcome:
        """Do everything in turn."""
        saying = asyncio.create_task(self._say_regularly())
        try:
            async with self._watch:
                await self._load_with_faults()
                load_seconds = self._seconds
                await self._settle()
                settle_seconds = self._seconds - load_seconds
                ledgers = await self._read_ledgers()
        finally:
            saying.cancel()
            await self._injector.close()
        findings = [*check(ledgers), *self._seen()]
        return Outcome(
            plan=self._plan,
            folder=self._hub.folder,
            sent=self._partners.sent,
            promises=self._partners.promises,
            refusals=self._partners.refusals,
            answer_seconds=sorted(self._partners.answer_seconds),
            injected=self._injector.injected,
            kills=self._injector.kills,
            ended_at=self._watch.ended_at,
            own_ends={part.name: part.own_ends for part in self._hub.services if part.own_ends},
            stored=ledgers.stored,
            findings=findings,
            load_seconds=load_seconds,
            settle_seconds=settle_seconds,
        )

    @property
    def _seconds(self) -> float:
        return time.monotonic() - self._started_at

    async def _load_with_faults(self) -> None:
        enough = asyncio.Event()
        sending = asyncio.create_task(self._partners.send_steadily(per_second=self._plan.rate, until=enough))
        rounds = draw_rounds(
            self._plan.seed,
            on_postgresql=self._plan.on_postgresql,
            processes=[part.name for part in self._hub.services],
            faults=self._plan.faults,
        )
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._plan.seconds_limit):
                for each in rounds:
                    await self._play(each)
                self._phase = "load only"
                while self._partners.sent < self._plan.requests:  # noqa: ASYNC110 (a rate, not an event)
                    await asyncio.sleep(0.1)
        enough.set()
        await sending

    async def _play(self, each: Round) -> None:
        alone = await self._calm()
        self._phase = f"recovering from {each.alone.action} {each.alone.victim}"
        await self._injector.inject(each.alone, alone=alone)
        kill = self._injector.kills[-1]
        before = [promise.request_id for promise in self._partners.promises.values() if promise.at < kill.at]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(RECOVERED_SECONDS):
                await self._watch.ended(before)
        self._phase = "burst"
        async with asyncio.TaskGroup() as faults:
            for fault in each.burst:
                await asyncio.sleep(fault.after_seconds)
                faults.create_task(self._injector.inject(fault))

    async def _calm(self) -> bool:
        """Wait until nothing is wrong and nothing is held up; False when that takes too long."""
        self._phase = "calming down"
        await self._injector.all_well()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CALM_SECONDS):
                await self._watch.calm()
                return True
        return False

    async def _settle(self) -> None:
        """Faults off, everything up: wait until every promise is kept, but not for ever."""
        self._phase = "settling"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_SECONDS):
                await self._injector.all_well()
                await self._partners.all_taken()
                await self._watch.look()
                await self._watch.ended(self._partners.promises)

    async def _read_ledgers(self) -> Ledgers:
        self._phase = "comparing"
        deadline = time.monotonic() + EMPTY_SECONDS
        url, redis_url = self._hub.database_url, self._hub.valkey.url
        while left_over := await asyncio.to_thread(read_left_over, url, redis_url):
            if time.monotonic() > deadline:
                break
            await asyncio.sleep(0.5)
        await self._hub.stop_services()
        await asyncio.sleep(LATEST_COMMIT_SECONDS)  # what a late system does now would be a second order
        return Ledgers(
            promises=list(self._partners.promises.values()),
            stored=await asyncio.to_thread(read_stored, url),
            orders=await asyncio.to_thread(read_orders, self._hub.external_url),
            left_over=left_over,
        )

    def _seen(self) -> Iterator[Finding]:
        """What was seen during the run and no ledger shows."""
        for request_id in sorted(self._watch.reopened):
            text = "it was seen to have ended and was open again"
            yield Finding(breach=Breach.DUPLICATED, about=request_id, text=text)
        for status, count in self._partners.refusals.items():
            if status not in REPEATABLE:
                text = f"{count} good orders were refused so; a partner would not send them again"
                yield Finding(breach=Breach.ANSWER, about=f"status {status}", text=text)

    async def _say_regularly(self) -> None:
        while True:
            await asyncio.sleep(SAY_SECONDS)
            say(
                f"{self._plan.database} {self._seconds:4.0f} s  accepted {len(self._partners.promises)}"
                f" (waiting {self._partners.unanswered})  open {len(self._watch.open)}"
                f"  faults {self._injector.injected.total()}/{self._plan.faults}  {self._phase}"
            )


def say(text: str) -> None:
    """Tell people how far it is; the result goes to stdout."""
    print(text, file=sys.stderr, flush=True)
