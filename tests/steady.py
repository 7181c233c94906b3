"""A clock for tests that a busy machine cannot turn: it goes while everybody waits, and hardly while anybody works.

Upstream, gateway and client of most tests share one process, one thread and one event loop. By the clock on the wall,
a machine that has others to serve makes them late, or stops them all for half a second: then a clock of 400 ms strikes
that had no reason to. By this loop's own clock it takes hardly any time to work, and none to be woken late. So 400 ms
have passed when nothing was left to do for 400 ms.

What is outside of the process (Redis, PostgreSQL, a gateway that was started as users do it) goes by the wall's clock:
there, what is sure to come is waited for with patience, and what must not come is far away.
"""

import asyncio
import selectors
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")

SLICE_S = 0.02
"""The most that one wait takes, by the loop's clock, if nothing is to happen sooner; and the longest pause it sees."""
LEAST_S, MOST_S = 0.000_05, 0.005
"""How long it takes to work through what is ready, once: something, for what comes later has a later time."""
WORK = 0.25
"""What a second of CPU time counts between the two: a clock strikes though there is always something to do."""


class SteadyLoop(asyncio.SelectorEventLoop):
    """asyncio's event loop, with a clock that goes by what there is to wait for."""

    def __init__(self) -> None:
        self.now_s = time.monotonic()
        super().__init__(_SteadySelector(self))

    def time(self) -> float:
        return self.now_s


class _SteadySelector(selectors.DefaultSelector):
    def __init__(self, loop: SteadyLoop) -> None:
        super().__init__()
        self._loop = loop
        self._worked_s = time.thread_time()

    def select(self, timeout: float | None = None) -> Any:
        loop = self._loop
        worked_s = (time.thread_time() - self._worked_s) * WORK
        loop.now_s += min(max(worked_s, LEAST_S), MOST_S)
        ready = super().select(0)
        until_s = None if timeout is None else loop.now_s + timeout
        while not ready and (until_s is None or loop.now_s < until_s):
            most_s = SLICE_S if until_s is None else min(SLICE_S, until_s - loop.now_s)
            began_s = time.monotonic()
            ready = super().select(most_s)
            waited_s = most_s if not ready else min(most_s, time.monotonic() - began_s)
            loop.now_s += waited_s
        self._worked_s = time.thread_time()
        return ready


def run(story: Coroutine[Any, Any, T]) -> T:
    """Run `story` as a test runs, where no test does: in a fixture of a whole module."""
    with asyncio.Runner(loop_factory=SteadyLoop) as runner:
        return runner.run(story)


class LoopClock:
    """The gateway's clock, by the loop that it serves on."""

    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def wall(self) -> float:
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
