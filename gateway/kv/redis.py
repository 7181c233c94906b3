"""Short memory that all workers and machines share.

All keys begin with `gateway:`. While Redis is gone, calls go on: limits do what `WithoutRedis` says, and the cache
answers nothing. A cluster is not supported: a call's meters are several keys, and one script charges them all.

A call waits for one round trip: what it holds of its limits is told together with what is kept for it. What it leaves
behind, its settling and its answer, nobody waits for: both leave with the next call's question. As four round trips,
one after the other, that took 32 µs of CPU a call where 64 are under way at a time, and 82 where one is; it takes 12
and 28 (in a loop that does nothing else).
"""

import asyncio
import contextlib
from collections.abc import Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from gateway.core.errors import Unavailable
from gateway.core.resources import Clock, Denied, Held, Meter, Standing, WithoutRedis
from gateway.kv.line import LOOK_S, Gone, Line
from gateway.kv.memory import MemoryLimiter
from gateway.kv.rests import RedisRests
from gateway.kv.script import Script

LIMITS = "gateway:limits:"
ANSWERS = "gateway:answers:"
SCRIPT = Path(__file__).with_name("limits.lua").read_text()
PATIENCE_S = 0.05
"""How long a call waits for Redis, in all, before it goes on without."""
BUDGET_S = PATIENCE_S - LOOK_S
"""How long a command may take, give or take a look."""
LEASE_S = 30.0
"""How long the places of a process that died are still taken. The living renew theirs three times as often."""
RENEWED_AT_ONCE = 500
SMALL_BYTES = 16_384
"""An answer up to this travels with what is said of limits. A larger one would hold that up, and goes by itself."""
SMALL = f"{SMALL_BYTES}"
WRITTEN_BYTES_A_SECOND = 20_000_000
"""How fast an answer is written at least; a large one gets more time than `BUDGET_S`."""
ALONE: dict[WithoutRedis, str] = {
    "local": "each process counts by itself",
    "open": "nothing is limited",
    "closed": "calls that have limits are refused",
}
"""What the log says of limits while Redis is gone."""
RETRY_AFTER_S = 1.0
"""When a call that is refused because Redis is gone may ask again: as often as Redis is probed."""


class RedisStore:
    """Limits and answers, in Redis.

    Args:
        url: where it is.
        clock: this process's; what counts is Redis's own.
        budget_s: see `BUDGET_S`.
        lease_s: see `LEASE_S`.
        script: what runs in Redis; tests give it another clock.

    Raises:
        ValueError: the URL is none.
    """

    def __init__(
        self, url: str, clock: Clock, *, budget_s: float = BUDGET_S, lease_s: float = LEASE_S, script: str = SCRIPT
    ) -> None:
        self._clock = clock
        self._lease_s = lease_s
        self._lease = f"{round(lease_s * 1000)}"
        """The first of the words that the script is told; they have spaces between, so ids of calls have none."""
        self._without: WithoutRedis = "local"
        # Calls wait for the first two; nothing they wait for may stand behind a large answer that is being written.
        self._limits = Line(url, clock, budget_s, use="limits", lost=ALONE["local"], alarm=self._lose)
        self._answers = Line(url, clock, budget_s, use="cache", lost="nothing is found in it", alarm=self._lose)
        self._writing = Line(url, clock, budget_s, use="cache writes", lost="nothing new is kept")
        rests = Line(url, clock, budget_s, use="rests", lost="each process rests deployments by what it sees itself")
        self._lines = (self._limits, self._answers, self._writing, rests)
        self._script = Script(self._limits, script)
        self.rests = RedisRests(rests)
        """Which deployments rest, as all workers have found."""
        self._local = MemoryLimiter(clock)
        self._live: dict[str, Held] = {}
        self._tasks = set[asyncio.Task[None]]()

    @property
    def degraded(self) -> bool:
        """Whether Redis is gone, and calls go on without it."""
        return self._limits.gone or self._answers.gone

    @property
    def apart(self) -> str:
        """Why what is counted and kept is this process's alone; empty: it is not."""
        return "Redis is gone" if self.degraded else ""

    def do_without(self, mode: WithoutRedis) -> None:
        """Say what limits do, from now on, while Redis is gone."""
        self._without = mode
        self._limits.lost = ALONE[mode]

    async def start(self) -> None:
        """Connect, and begin to renew places. If Redis cannot be reached it is tried again, in the background."""
        await asyncio.gather(*(line.open() for line in self._lines))
        self._later(self._keep_renewing())

    async def close(self) -> None:
        """Stop everything in the background and disconnect."""
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1.0)
        await asyncio.gather(*(line.close() for line in self._lines))

    async def ping(self) -> bool:
        """Tell whether Redis answers."""
        try:
            return bool(await self._limits.ask("PING"))
        except Gone:
            return False

    async def hold(self, id: str, asks: Sequence[tuple[Meter, int]], key: str = "") -> Held | Denied:
        """Take all of `asks`, or nothing; of a call that may pass, look up the answer under `key`, too.

        Raises:
            Unavailable: Redis is gone, and without it nothing may pass.
        """
        keys, words = self._asked(asks)
        told = (SMALL,) if key else ()
        if key:
            keys.append(ANSWERS + key)
        before_s = self._limits.waited_s
        try:
            said = await self._script.run(keys, "hold", id, words, *told, unclaimed=partial(self._undo, id, asks))
        except Gone:
            return await self._hold_alone(id, asks)
        found: bytes | int | None = said.pop() if key else 0  # a number: so many bytes, which are too many
        standings = _standings(asks, said)
        failing: int = said[0]
        if failing:
            meter, wanted = asks[failing - 1]
            return Denied(meter, wanted, None if said[2] < 0 else said[2] / 1000, standings)
        waited_s = self._limits.waited_s - before_s
        looked_up = not isinstance(found, int)
        held = Held(id, tuple(asks), said[1], standings, waited_s, looked_up, found if looked_up else None)
        self._live[id] = held
        return held

    def settle(self, held: Held, tokens: int | None) -> None:
        """Free the places of a call and correct its tokens, once: before any call that is held here from now on.

        While Redis is gone the correction is lost: the tokens held stay used for their minute, and the places come
        back when their lease ends.
        """
        if self._live.pop(held.id, None) is None:
            self._local.settle(held, tokens)
            return
        keys: list[str] = []
        words = self._lease
        for meter, amount in held.asks:
            if meter.kind == "concurrent":
                words += " places 0 0"
            elif meter.kind == "tokens" and tokens is not None and tokens != amount:
                words += f" window {tokens - amount} {held.at_s}"
            else:
                continue
            keys.append(LIMITS + meter.id)
        if keys:
            self._script.tell(keys, "settle", held.id, words)

    async def standings(self, meters: Sequence[Meter]) -> tuple[Standing, ...]:
        """Tell how `meters` stand."""
        asks = [(meter, 0) for meter in meters]
        keys, words = self._asked(asks)
        try:
            said = await self._script.run(keys, "look", "", words)
        except Gone:
            return await self._local.standings(meters) if self._without == "local" else ()
        return _standings(asks, said)

    async def get(self, key: str, *, waited_s: float = 0.0) -> bytes | None:
        """Return what is kept under `key`; `None` while Redis is gone, too."""
        try:
            return await self._answers.ask("GET", ANSWERS + key, waited_s=waited_s)
        except Gone:
            return None

    async def put(self, key: str, answer: bytes, ttl_s: float) -> None:
        """Keep `answer`, unless Redis is gone."""
        more_s = len(answer) / WRITTEN_BYTES_A_SECOND
        with contextlib.suppress(Gone):
            await self._writing.ask(*_kept(key, answer, ttl_s), more_s=more_s)

    def put_after_hold(self, key: str, answer: bytes, ttl_s: float) -> Coroutine[Any, Any, None] | None:
        """Keep `answer` as `put` does; a small one leaves with the call's settling, before whatever is held next."""
        if len(answer) > SMALL_BYTES:
            return self.put(key, answer, ttl_s)
        self._limits.tell(*_kept(key, answer, ttl_s))
        return None

    def _asked(self, asks: Sequence[tuple[Meter, int]]) -> tuple[list[str], str]:
        """Return the keys of meters, and what the script is told about them: words with spaces between, in one piece,
        for each argument costs."""
        keys: list[str] = []
        words = self._lease
        for meter, amount in asks:
            keys.append(LIMITS + meter.id)
            words += f" {'places' if meter.kind == 'concurrent' else 'window'} {meter.limit} {amount}"
        return keys, words

    async def _hold_alone(self, id: str, asks: Sequence[tuple[Meter, int]]) -> Held | Denied:
        if self._without == "closed":
            raise Unavailable(
                f"calls cannot be counted against their limits at the moment; try again in {RETRY_AFTER_S:g}s",
                code="limits_unavailable",
                retry_after_s=RETRY_AFTER_S,
            )
        if self._without == "open":
            return Held(id, (), 0, ())
        return await self._local.hold(id, asks)

    def _lose(self, error: Exception) -> None:
        """Have nobody wait for Redis on one line after it was waited for in vain on another."""
        for line in self._lines:
            line.lose(error)

    def _undo(self, id: str, asks: Sequence[tuple[Meter, int]], said: Any) -> None:
        """Settle what was held for a client that left while we asked."""
        if not said[0]:
            held = self._live[id] = Held(id, tuple(asks), said[1], ())
            self.settle(held, 0)

    async def _keep_renewing(self) -> None:
        """Renew the places of all calls in flight here. One that was lost (Redis restarted) is taken anew."""
        while True:
            await self._clock.sleep(self._lease_s / 3)
            held = list(self._live)
            for start in range(0, len(held), RENEWED_AT_ONCE):
                places = [
                    (LIMITS + meter.id, id)
                    for id in held[start : start + RENEWED_AT_ONCE]
                    if id in self._live
                    for meter, _ in self._live[id].asks
                    if meter.kind == "concurrent"
                ]
                if places:
                    words = " ".join([self._lease, *(id for _, id in places)])
                    with contextlib.suppress(Gone):
                        await self._script.run([key for key, _ in places], "renew", "", words)

    def _later(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _kept(key: str, answer: bytes, ttl_s: float) -> tuple[Any, ...]:
    """Return the command that keeps `answer`."""
    return "SET", ANSWERS + key, answer, "PX", max(1, round(ttl_s * 1000))


def _standings(asks: Sequence[tuple[Meter, int]], said: Sequence[int]) -> tuple[Standing, ...]:
    return tuple(
        [
            Standing(meter, remaining, reset_ms / 1000)
            for (meter, _), remaining, reset_ms in zip(asks, said[3::2], said[4::2], strict=True)
        ]
    )
