"""How fast a partner may send: one bucket per partner in Redis, shared by every intake (GCRA, in one script).

The limit protects the hub's neighbours, it is not the hub's purpose: when Redis is away or slow, everybody is let
through and a metric says so. What a partner has to do when it is refused is chassis.errors.RateLimited.
"""

import asyncio
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import redis.asyncio as redis
from prometheus_client import Counter
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ReadOnlyError, RedisError

from chassis.logs import get_logger
from chassis.streams import leave

log = get_logger()

PERIOD_SECONDS = 60
#: An answer that takes longer costs partners more than the limit is worth.
PATIENCE_SECONDS = 0.05
#: How long Redis is not asked again after it failed.
PAUSE_SECONDS = 1.0
_KEY_PREFIX = "hub:rate:"

# The stored instant is the one at which the bucket is full again; Redis' own clock decides, so that the clocks of
# the intakes do not matter, and an instant beyond the period (a clock set back) is taken for an empty key.
_SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local period, limit, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local step = period / limit
local full_at = tonumber(redis.call('GET', KEYS[1]) or now)
if full_at < now or full_at > now + period then full_at = now end
local taken = math.min(wanted, math.floor((now + period - full_at) / step + 0.000001))
full_at = full_at + taken * step
if taken > 0 then
  redis.call('SET', KEYS[1], string.format('%.0f', full_at), 'PX', math.ceil((full_at - now) / 1000) + 1)
end
local left = math.floor((now + period - full_at) / step + 0.000001)
return {taken, left, math.ceil(full_at - now), math.ceil(step * (left + 1) - (now + period - full_at))}
"""


class Allowance(NamedTuple):
    """How fast a token lets its partner be; those of one partner take from its one bucket, each at its own price."""

    partner_id: str
    #: Creates per minute, above 0.
    limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RateStanding:
    """Where a partner stands after a batch; `taken` of what was wanted may pass."""

    taken: int
    limit: int
    remaining: int
    #: Until all of the limit is there again.
    reset_seconds: int
    #: Until the next single create may pass.
    retry_after_seconds: float


class RateLimit:
    """The partners' buckets; a component."""

    def __init__(self, url: str, open_total: Counter) -> None:
        self._redis = redis.Redis.from_url(
            url,
            decode_responses=True,
            socket_timeout=PATIENCE_SECONDS,
            socket_connect_timeout=PATIENCE_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )
        self._open_total = open_total
        self._sha = ""
        self._asks_again_at = 0.0

    async def take(self, wanted: Mapping[Allowance, int]) -> dict[Allowance, RateStanding]:
        """Take so many creates out of the partners' buckets; what is not in the answer is let through."""
        if not wanted:
            return {}
        if time.monotonic() >= self._asks_again_at:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    replies = await self._ask(wanted)
            except (RedisError, OSError, TimeoutError) as error:
                self._asks_again_at = time.monotonic() + PAUSE_SECONDS
                log.warning("Rate limit is open", reason=type(error).__name__)
            else:
                return {each: _standing(each.limit, reply) for each, reply in zip(wanted, replies, strict=True)}
        self._open_total.inc(sum(wanted.values()))
        return {}

    async def start(self) -> None:
        """Do nothing: the connection is made when it is used."""

    async def stop(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def _ask(self, wanted: Mapping[Allowance, int]) -> Sequence[Any]:
        if self._sha:
            try:
                return await self._run(wanted)
            except NoScriptError:  # Redis was started anew; nothing of the batch was counted
                pass
        self._sha = await self._redis.script_load(_SCRIPT)
        return await self._run(wanted)

    async def _run(self, wanted: Mapping[Allowance, int]) -> Sequence[Any]:
        pipeline = self._redis.pipeline(transaction=False)
        for (partner_id, limit), count in wanted.items():
            period = str(PERIOD_SECONDS * 1_000_000)
            pipeline.evalsha(self._sha, 1, _KEY_PREFIX + partner_id, period, str(limit), str(count))
        try:
            replies: Sequence[Any] = await pipeline.execute()
        except ReadOnlyError:
            await leave(self._redis)
            raise
        return replies


def _standing(limit: int, reply: Sequence[int]) -> RateStanding:
    taken, remaining, reset_us, retry_us = reply
    return RateStanding(
        taken=taken,
        limit=limit,
        remaining=remaining,
        reset_seconds=math.ceil(reset_us / 1_000_000),
        retry_after_seconds=retry_us / 1_000_000,
    )
