"""Small stand-ins for what rooms borrow: a clock that waits to be told, and calls that need no server."""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any

from gateway.core.call import Body, Call, Headers
from gateway.core.receipt import Receipt
from gateway.core.reply import Chunk, Reply
from gateway.core.route import Deployment, Route
from gateway.core.secret import Secret

MORNING_S = 1_795_000_000.0
"""Wall time at which a `StillClock` starts: 2026-11-18, 11:06:40 UTC."""


class StillClock:
    """Time that passes when a test says so."""

    def __init__(self, wall_s: float = MORNING_S) -> None:
        self.passed_s = 0.0
        self._wall_s = wall_s

    def now(self) -> float:
        return self.passed_s

    def wall(self) -> float:
        return self._wall_s + self.passed_s

    async def sleep(self, seconds: float) -> None:
        self.passed_s += seconds


class HastyLoop(asyncio.SelectorEventLoop):
    """A loop that does not wait for a time to come: when nothing else is left to do, it has come."""

    def __init__(self) -> None:
        self.skipped_s = 0.0
        super().__init__(_HastySelector(self))

    def time(self) -> float:
        return super().time() + self.skipped_s


class _HastySelector(selectors.DefaultSelector):
    def __init__(self, loop: HastyLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        if timeout:
            self._loop.skipped_s += timeout
            timeout = 0
        return super().select(timeout)


def hastily(story: Coroutine[Any, Any, None]) -> None:
    """Run `story` in no time, however long it takes by its own clock."""
    with asyncio.Runner(loop_factory=HastyLoop) as runner:
        runner.run(story)


PLACE = Deployment("openai/gpt-4o-mini", "openai", "gpt-4o-mini")


def call_of(clock: StillClock, *, key: str = "", **changes: Any) -> Call:
    """Return a chat call for `fast`, on its way inward."""
    call = Call(
        id="c1",
        operation="chat",
        surface="chat",
        model="fast",
        stream=False,
        body=Body(),
        headers=Headers(),
        receipt=Receipt("c1", "fast", "fast"),
        deadline_s=clock.now() + 60,
        clock=clock,
        route=Route("fast", (PLACE,)),
        credential=Secret(key),
    )
    return call.but(**changes)


class Inner:
    """What stands behind a room: remembers the calls that reach it."""

    def __init__(self) -> None:
        self.calls: list[Call] = []

    async def __call__(self, call: Call) -> Reply:
        self.calls.append(call)
        return Reply(Chunk(b"{}"))
