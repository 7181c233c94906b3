"""A process that records many calls, as one of several workers."""

import asyncio
import sys

from gateway.core.receipt import Receipt
from gateway.engine.clock import SystemClock
from gateway.store.calls import CallTable
from gateway.store.recorder import Recorder
from tests.standins import StillClock, call_of


async def main(url: str, name: str, calls: int) -> None:
    recorder = Recorder(CallTable(url), SystemClock())
    recorder.start()
    for n in range(calls):
        recorder.take("c0ffee", call_of(StillClock()), Receipt(f"{name}-{n}", outcome="finished"))
        if n % 100 == 0:
            await asyncio.sleep(0.1)
    await recorder.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
