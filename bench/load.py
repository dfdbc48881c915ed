"""The load generator: partners that send orders, at a steady rate or as fast as they are answered."""

import asyncio
import time
from dataclasses import dataclass, field
from itertools import count

import aiohttp

ORDER = (
    '{{"externalId":"{key}","sourceSystem":"SAP","targetSystem":"{target}",'
    '"payload":{{"orderId":"ORD-2024-001","customer":"Empresa ABC","amount":15000.00}}}}'
)


@dataclass(slots=True, kw_only=True)
class Sent:
    """What partners saw: when each accepted request was answered, and how many were not accepted."""

    #: Unix time of each 202, by request id.
    accepted_at: dict[str, float] = field(default_factory=dict)
    accept_seconds: list[float] = field(default_factory=list)
    refused: dict[int, int] = field(default_factory=dict)
    #: Refusals that did not say when to come back.
    without_retry_after: int = 0


class Partners:
    """Many partners behind one connection pool."""

    def __init__(
        self, base_url: str, token: str, *, prefix: str, target: str = "TotvsProtheus", connections: int = 64
    ) -> None:
        self._url = f"{base_url}/api/integration-requests"
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._connections = connections
        self._target = target
        self._keys = (f"{prefix}-{number}" for number in count())

    async def send_steadily(self, *, per_second: float, seconds: float) -> Sent:
        """Send at a fixed rate whatever the answers do (open loop), so that a slow hub cannot slow the load."""
        sent = Sent()
        async with self._session() as session:
            tasks = []
            start = time.perf_counter()
            for number in range(round(per_second * seconds)):
                await asyncio.sleep(max(0.0, start + number / per_second - time.perf_counter()))
                tasks.append(asyncio.create_task(self._send(session, sent)))
            await asyncio.gather(*tasks)
        return sent

    async def send_flat_out(self, *, seconds: float) -> Sent:
        """Send over every connection as soon as the answer before it has come (closed loop)."""
        sent = Sent()
        end = time.perf_counter() + seconds

        async def run(session: aiohttp.ClientSession) -> None:
            while time.perf_counter() < end:
                await self._send(session, sent)

        async with self._session() as session:
            await asyncio.gather(*[run(session) for _ in range(self._connections)])
        return sent

    async def _send(self, session: aiohttp.ClientSession, sent: Sent) -> None:
        started = time.perf_counter()
        async with session.post(self._url, data=ORDER.format(key=next(self._keys), target=self._target)) as answer:
            body = await answer.json(content_type=None)
            if answer.status == 202:
                sent.accepted_at[body["id"]] = time.time()
                sent.accept_seconds.append(time.perf_counter() - started)
            else:
                sent.refused[answer.status] = sent.refused.get(answer.status, 0) + 1
                sent.without_retry_after += "Retry-After" not in answer.headers

    def _session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=self._connections)
        return aiohttp.ClientSession(connector=connector, headers=self._headers)
