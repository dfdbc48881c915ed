"""The partners: orders at a fixed rate whatever the answers do, each repeated as a real partner would until taken.

What they were promised is the first of the three ledgers: every request id that came with a 202, or with the 409
that follows a 202 whose answer was lost.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import aiohttp

from tests.chaos.targets import TARGETS

ANSWER_SECONDS = 15.0
PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 5.0
#: Every so many orders one does not fit its schema.
INVALID_EVERY = 50
#: The first has a schema at every target; what the second sends is announced with its claim.
SOURCES = ("SAP", "Portal")
#: Orders further ahead than this are not on their way yet.
AHEAD = 10
_ORDER = (
    '{{"externalId":"{key}","sourceSystem":"{source}","targetSystem":"{target}",'
    '"payload":{{"orderId":"{key}","customer":"Empresa ABC","amount":{amount}}}}}'
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """One accepted request, as its partner knows it."""

    request_id: str
    external_id: str
    target: str
    #: Whether its payload fits its schema.
    is_good: bool
    #: Unix time of the answer.
    at: float


class Partners:
    """Sends orders to all gateways in turn."""

    def __init__(self, gateways: Sequence[str], token: str, *, seed: int) -> None:
        self._urls = [f"{gateway}/api/integration-requests" for gateway in gateways]
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._chance = random.Random(seed)  # noqa: S311 - it must be repeatable
        self._sends: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None
        #: By request id.
        self.promises: dict[str, Promise] = {}
        self.sent = 0
        #: Answers other than a promise, by status; 0 = no answer.
        self.refusals: Counter[int] = Counter()
        self.answer_seconds: list[float] = []

    async def __aenter__(self) -> Self:
        """Open the connections."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            headers=self._headers,
            timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS),
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        """Give up what was not taken."""
        for send in self._sends:
            send.cancel()
        await asyncio.gather(*self._sends, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    @property
    def unanswered(self) -> int:
        """Orders that were sent and are not taken yet."""
        return len(self._sends)

    def coming(self, target: str, count: int) -> list[str]:
        """The ids of good orders for a target that will be sent next."""
        numbers = range(self.sent + AHEAD, self.sent + AHEAD + INVALID_EVERY * (count + 1))
        good = [n for n in numbers if TARGETS[n % len(TARGETS)] == target and n % INVALID_EVERY]
        return [f"chaos-{number}" for number in good[:count]]

    async def send_steadily(self, *, per_second: float, until: asyncio.Event) -> None:
        """Send until told to end; orders that were not taken by then go on being repeated."""
        start = time.monotonic()
        while not until.is_set():
            await asyncio.sleep(max(0.0, start + self.sent / per_second - time.monotonic()))
            send = asyncio.create_task(self._send(self.sent))
            self.sent += 1
            self._sends.add(send)
            send.add_done_callback(self._sends.discard)

    async def all_taken(self) -> None:
        """Wait until every order sent is taken."""
        while self._sends:
            await asyncio.wait(self._sends)

    async def _send(self, number: int) -> None:
        target = TARGETS[number % len(TARGETS)]
        key = f"chaos-{number}"
        is_good = number % INVALID_EVERY != 0
        amount = "15000.00" if is_good else '"much"'
        source = SOURCES[number % len(SOURCES)]
        body = _ORDER.format(key=key, source=source, target=target, amount=amount)
        gateway = number
        while (request_id := await self._post(body, self._urls[gateway % len(self._urls)])) is None:
            gateway += 1
        self.promises[request_id] = Promise(
            request_id=request_id, external_id=key, target=target, is_good=is_good, at=time.time()
        )

    async def _post(self, body: str, url: str) -> str | None:
        """Post once; the request's id when it is taken, else None after the wait that was asked for."""
        assert self._session is not None
        started = time.monotonic()
        pause = PAUSE_SECONDS * (1 + self._chance.random())
        try:
            async with self._session.post(url, data=body) as answer:
                content: dict[str, Any] = await answer.json(content_type=None)
                if answer.status == 202:
                    self.answer_seconds.append(time.monotonic() - started)
                    return str(content["id"])
                if answer.status == 409:
                    return str(content["existing"]["id"])
                self.refusals[answer.status] += 1
                pause = max(pause, float(answer.headers.get("Retry-After", 0)))
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            self.refusals[0] += 1
        await asyncio.sleep(min(pause, LONGEST_PAUSE_SECONDS))
        return None
