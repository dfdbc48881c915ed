"""How long a SIGKILL delayed what had been accepted: watching when requests end, and the figures. No judgement here."""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import psycopg

from tests.chaos.ledgers import read_open
from tests.chaos.load import Promise

POLL_SECONDS = 0.25
#: A request that is older than this is being held up by something.
CALM_AGE_SECONDS = 2.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Kill:
    """One SIGKILL; `alone` when nothing else was wrong before it or until all were well again."""

    victim: str
    #: Unix time.
    at: float
    alone: bool


class Watch:
    """Looks at the database, whose clock may jump, by the run's own clock; an end is seen a quarter second late."""

    def __init__(self, promises: Mapping[str, Promise], database_url: str) -> None:
        self._promises = promises
        self._database_url = database_url
        self._known = 0
        self._task: asyncio.Task[None] | None = None
        #: Promised and not ended, as far as was seen.
        self.open: set[str] = set()
        #: Unix time at which each was seen to have ended.
        self.ended_at: dict[str, float] = {}
        #: Ended, and open again later: nothing in a run does that on purpose.
        self.reopened: set[str] = set()

    async def __aenter__(self) -> Self:
        """Start watching."""
        self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop watching."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    @property
    def oldest_seconds(self) -> float:
        """The age of the oldest open request."""
        return time.time() - min((self._promises[each].at for each in self.open), default=time.time())

    async def look(self) -> None:
        """Look once. Raises: sqlite3.Error; psycopg.Error."""
        promised = list(self._promises)  # before the query: a request that is promised later may be missing in it
        open_now = await asyncio.to_thread(read_open, self._database_url)
        now = time.time()
        self.open.update(promised[self._known :])
        self._known = len(promised)
        for request_id in self.open - open_now:
            self.ended_at[request_id] = now
        self.open &= open_now
        self.reopened |= open_now & self.ended_at.keys()

    async def ended(self, request_ids: Iterable[str]) -> None:
        """Wait until all of these have ended."""
        wanted = set(request_ids)
        while not wanted <= self.ended_at.keys():  # noqa: ASYNC110 (the database is another process)
            await asyncio.sleep(POLL_SECONDS)

    async def calm(self) -> None:
        """Wait until nothing is held up."""
        while self.oldest_seconds > CALM_AGE_SECONDS:  # noqa: ASYNC110 (the same)
            await asyncio.sleep(POLL_SECONDS)

    async def _watch(self) -> None:
        while True:
            with contextlib.suppress(sqlite3.Error, psycopg.Error):  # while it is dead or locked nothing ends
                await self.look()
            await asyncio.sleep(POLL_SECONDS)


def recovery_seconds(
    kills: Iterable[Kill], promises: Mapping[str, Promise], ended_at: Mapping[str, float], targets: Sequence[str]
) -> list[float]:
    """For every kill and every request of these targets that was open then: how long it took to end, ascending."""
    spans = [
        (promise.at, ended_at[request_id])
        for request_id, promise in promises.items()
        if request_id in ended_at and promise.target in targets
    ]
    return sorted(end - kill.at for kill in kills for begin, end in spans if begin < kill.at < end)


def quantile(ascending: Sequence[float], share: float) -> float | None:
    """The nearest-rank quantile; None of nothing."""
    if not ascending:
        return None
    return ascending[min(len(ascending) - 1, max(0, round(share * len(ascending) + 0.5) - 1))]
