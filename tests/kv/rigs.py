"""The two limiters behind one face: whose clock a test sets, however it is kept."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from gateway.core.resources import Denied, Held, Limiter, Meter
from gateway.engine.clock import SystemClock
from gateway.kv.memory import MemoryLimiter
from gateway.kv.redis import SCRIPT, RedisStore
from tests.calls import FakeClock

Kind = Literal["memory", "redis"]
BEGIN_S = 1_000.0


class Rig:
    """A limiter, and its clock. Meters are this rig's own, whoever else uses the server."""

    def __init__(self, limiter: Limiter, clock: FakeClock | None, store: RedisStore | None, clock_key: str) -> None:
        self.limiter = limiter
        self._clock = clock
        self._store = store
        self._clock_key = clock_key
        self._holds = 0
        self.now_s = BEGIN_S

    def meter(self, kind: str, limit: int, name: str = "team-a") -> Meter:
        return Meter(f"key:{name}-{self._clock_key}", kind, limit)

    async def to(self, now_s: float) -> None:
        """Let it be `now_s`."""
        self.now_s = now_s
        if self._clock is not None:
            self._clock.passed_s = now_s
        if self._store is not None:
            second, micros = divmod(round(now_s * 10**6), 10**6)
            await self._store._limits.ask("HSET", self._clock_key, "s", second, "us", micros)

    async def hold(self, *asks: tuple[Meter, int]) -> Held | Denied:
        self._holds += 1
        return await self.limiter.hold(f"call-{self._holds}", asks)

    async def settle(self, held: Held, tokens: int | None) -> None:
        await settled(self.limiter, held, tokens)


async def settled(limiter: Limiter, held: Held, tokens: int | None) -> None:
    """Settle, and wait if there is something to wait for."""
    waiting = limiter.settle(held, tokens)
    if waiting is not None:
        await waiting


@asynccontextmanager
async def rig_of(kind: Kind, url: str) -> AsyncIterator[Rig]:
    name = uuid.uuid4().hex[:12]
    if kind == "memory":
        clock = FakeClock()
        rig = Rig(MemoryLimiter(clock), clock, None, name)
        await rig.to(BEGIN_S)
        yield rig
        return
    key = f"gateway:test:{name}"
    told = SCRIPT.replace("redis.call('TIME')", f"redis.call('HMGET', '{key}', 's', 'us')")
    assert told != SCRIPT
    store = RedisStore(url, SystemClock(), budget_s=2.0, script=told)
    await store.start()
    rig = Rig(store, None, store, key)
    try:
        await rig.to(BEGIN_S)
        yield rig
        assert not store.degraded
        await store._limits.ask("DEL", key)
    finally:
        await store.close()
