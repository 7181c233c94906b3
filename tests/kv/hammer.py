"""A process that asks for many calls at once and prints how many passed; or that takes a place and is killed."""

import asyncio
import sys

from gateway.core.resources import Held, Meter
from gateway.engine.clock import SystemClock
from gateway.kv.redis import RedisStore


async def main(url: str, subject: str, kind: str, limit: int, calls: int, lease_s: float) -> None:
    store = RedisStore(url, SystemClock(), budget_s=10.0, lease_s=lease_s)
    await store.start()
    meter = Meter(subject, kind, limit)
    ids = (f"{subject}-{id(store)}-{call}" for call in range(calls))
    passed = await asyncio.gather(*(store.hold(id, [(meter, 1)]) for id in ids))
    print(sum(isinstance(one, Held) for one in passed), store.degraded, flush=True)
    if kind == "concurrent":
        await asyncio.sleep(60)
    await store.close()


if __name__ == "__main__":
    url, subject, kind, limit, calls, lease_s = sys.argv[1:]
    asyncio.run(main(url, subject, kind, int(limit), int(calls), float(lease_s)))
