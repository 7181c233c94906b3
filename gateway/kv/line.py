"""A line to Redis: commands that are asked for while a round trip is under way leave together with the next.

A line needs one connection however many calls there are, and round trips cost less where many share one. What is told
and not asked, because nobody waits for the reply, has no round trip of its own: it leaves in front of what is asked
next, or soon. Whatever is asked is answered in time or refused with `Gone`; while Redis is gone, or too slow,
everything is refused at once, and only a probe in the background waits for it. Where one line waited in vain no other
has to: it raises an alarm, and whoever owns the lines has them all `lose` Redis. A round trip has no task of its own: a
timer sees whether it is late.
"""

import asyncio
import contextlib
import logging
import math
from collections.abc import Callable
from typing import Any

from msgspec import Struct
from redis.exceptions import NoScriptError, RedisError

from gateway.core.resources import Clock
from gateway.kv.link import CONNECT_S, Link, client_of, pack

PROBE_EVERY_S = 1.0
PROBE_KEY = "gateway:probe"
LOOK_S = 0.002
"""How often this process looks how late a reply is, if it has the time: what it is busy with meanwhile is no fault of
Redis, and is not counted as waiting for it."""
QUICK = 2
"""Redis is back when a round trip takes no more than this part of the budget: a half."""
SOON_S = 0.005
"""How long what nobody waits for may wait for company."""
MOST_AT_ONCE = 512
"""Commands in one round trip."""
NO_ANSWER = "no answer in time"
STOPPING = "the gateway is stopping"

log = logging.getLogger("gateway")


class Gone(Exception):
    """Redis did not answer, or not in time, or cannot do what it is there for."""


class Asked(Struct):
    """A command on its way."""

    command: bytes
    reply: asyncio.Future[Any] | None
    """`None`: nobody waits for it."""
    until_s: float
    """On the line's clock, `waited_s`: when the reply is late."""
    leaves_s: float
    """When whoever asked does not wait any more, although Redis is not late."""
    more_s: float
    """What it may take on top of the usual."""
    unclaimed: Callable[[Any], None] | None
    """Is given the reply if nobody waits for it any more."""
    whole: Callable[[], bytes] | None
    """Gives the command with the whole script in it, for a Redis that does not know it by its digest."""


class Line:
    """One connection.

    Args:
        url: where Redis is.
        clock: what probes wait by.
        budget_s: how long a command may take, from asking to its reply.
        use: what the line is for, and
        lost: what holds while Redis is gone; both for the log.
        alarm: is told why, when Redis was waited for here in vain.

    Raises:
        ValueError: the URL is none.
    """

    def __init__(
        self,
        url: str,
        clock: Clock,
        budget_s: float,
        *,
        use: str,
        lost: str,
        alarm: Callable[[Exception], None] = lambda _: None,
    ) -> None:
        self.lost = lost
        self.waited_s = 0.0
        """How long Redis was waited for, in all: a clock that stands while nothing is under way."""
        self._clock = clock
        self._budget_s = budget_s
        self._use = use
        self._alarm = alarm
        self._redis = client_of(url)
        self._link: Link | None = None
        self._opening = asyncio.Lock()
        self._waiting: list[Asked] = []
        self._batch: list[Asked] = []
        """What is under way, and"""
        self._trip: asyncio.Future[list[Any]] | None = None
        """its replies, when they are here."""
        self._until_s = 0.0
        """When they are late."""
        self._looked_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._is_sending = False
        self._is_due = False
        """Something that waits is to leave with the next round trip, and not only when another does."""
        self._soon: asyncio.TimerHandle | None = None
        self._is_closed = False
        self._probing: asyncio.Task[None] | None = None

    @property
    def gone(self) -> bool:
        """Whether everything is refused at the moment."""
        return self._probing is not None

    async def open(self) -> None:
        """Connect. If that fails, go on trying in the background."""
        self._is_closed = False
        if (error := await self._unreachable()) is not None:
            self.lose(error)

    async def close(self) -> None:
        """Have written what was told, refuse what still waits and what is still to come, and disconnect."""
        if any(asked.reply is None for asked in (*self._batch, *self._waiting)):
            with contextlib.suppress(Gone, TimeoutError):
                async with asyncio.timeout(CONNECT_S):
                    await self.ask("PING")
        self._is_closed = True
        for timer in (self._soon, self._timer):
            if timer is not None:
                timer.cancel()
        self._soon = self._timer = None
        for task in (self._probing, self._trip):
            if task is not None:
                task.cancel()
                await asyncio.wait((task,), timeout=CONNECT_S)
        self._refuse([*self._batch, *self._waiting], Gone(STOPPING))
        self._batch, self._waiting, self._trip, self._probing = [], [], None, None
        self._is_sending = self._is_due = False
        if self._link is not None:
            await self._link.close()
        await self._redis.aclose()

    async def ask(
        self,
        *command: Any,
        waited_s: float = 0.0,
        more_s: float = 0.0,
        unclaimed: Callable[[Any], None] | None = None,
        whole: Callable[[], bytes] | None = None,
    ) -> Any:
        """Return Redis's reply to `command`.

        Args:
            command: its words.
            waited_s: how long the caller has waited for Redis before, and will not wait now. Its haste is its own:
                Redis is not gone because of it.
            more_s: how long the command may take on top of the usual.
            unclaimed: is given the reply if the caller left, or could not wait, while the command was under way.
            whole: gives what to send where the script that is called by its digest is not known.

        Raises:
            Gone: there was none in time.
        """
        if self._probing is not None:
            raise Gone("Redis is gone")
        if self._is_closed or waited_s >= self._budget_s:
            raise Gone(STOPPING if self._is_closed else NO_ANSWER)
        loop = asyncio.get_running_loop()
        until_s = self.waited_s + self._budget_s
        leaves_s = until_s - waited_s if waited_s else math.inf
        reply = loop.create_future()
        self._waiting.append(Asked(pack(command), reply, until_s, leaves_s, more_s, unclaimed, whole))
        self._is_due = True
        if not self._is_sending:
            self._is_sending = True
            loop.call_soon(self._send)  # with whatever else is asked by then
        try:
            return await reply
        except asyncio.CancelledError:  # the reply may have come in the very moment in which the caller left
            if reply.done() and not reply.cancelled() and reply.exception() is None and unclaimed is not None:
                unclaimed(reply.result())
            raise
        finally:
            reply.cancel()

    def tell(self, *command: Any, whole: Callable[[], bytes] | None = None) -> None:
        """Have `command` sent before whatever is asked from now on; it is lost if Redis is gone.

        Args:
            command: its words.
            whole: see `ask`.
        """
        if self._probing is not None or self._is_closed:
            return
        until_s = self.waited_s + self._budget_s
        self._waiting.append(Asked(pack(command), None, until_s, math.inf, 0.0, None, whole))
        if self._soon is None:
            self._soon = asyncio.get_running_loop().call_later(SOON_S, self._hurry)

    def _hurry(self) -> None:
        """Send what has waited for company."""
        self._soon = None
        self._is_due = True
        if not self._is_sending:
            self._is_sending = True
            self._send()

    def _send(self) -> None:
        """Begin a round trip with what waits, if it is time, and somebody still waits for it or nobody ever did."""
        while self._is_due:
            batch, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
            self._is_due = bool(self._waiting)
            self._batch = [asked for asked in batch if asked.reply is None or not asked.reply.done()]
            if self._batch:
                self._begin(self._batch)
                return
        self._is_sending = False

    def _begin(self, batch: list[Asked]) -> None:
        """Begin a round trip.

        It is late when whoever has waited longest, the first, does not wait any more; or, with large commands in it,
        for which nobody is in a hurry, when these have had their time.
        """
        loop = asyncio.get_running_loop()
        commands: list[bytes] = []
        more_s = 0.0
        for asked in batch:
            commands.append(asked.command)
            more_s += asked.more_s
        self._until_s = self.waited_s + self._budget_s + more_s if more_s else batch[0].until_s
        self._looked_s = loop.time()
        if self._timer is None:
            self._timer = loop.call_later(LOOK_S, self._look)
        link = self._link
        if link is not None and link.is_open:
            self._trip = link.send(commands)
        else:
            self._trip = loop.create_task(self._first(commands))
        self._trip.add_done_callback(self._ended)

    async def _first(self, commands: list[bytes]) -> list[Any]:
        return await (await self._connected()).send(commands)

    async def _connected(self) -> Link:
        async with self._opening:
            if self._link is None or not self._link.is_open:
                if self._link is not None:
                    await self._link.close()
                self._link = await Link.open(self._redis)
            return self._link

    def _wait(self) -> None:
        """Count the time since the last look as waiting, as far as it was."""
        now_s = asyncio.get_running_loop().time()
        self.waited_s += min(LOOK_S, now_s - self._looked_s)
        self._looked_s = now_s

    def _look(self) -> None:
        """See who does not wait any more, and whether Redis is late."""
        self._timer = None
        if self._trip is None:
            return
        self._wait()
        for asked in (*self._batch, *self._waiting):
            if asked.reply is not None and self.waited_s >= asked.leaves_s and not asked.reply.done():
                asked.reply.set_exception(Gone(NO_ANSWER))
        if self.waited_s < self._until_s:
            self._timer = asyncio.get_running_loop().call_later(LOOK_S, self._look)
        else:
            self._fail(TimeoutError(NO_ANSWER))

    def _ended(self, trip: "asyncio.Future[list[Any]]") -> None:
        error = None if trip.cancelled() else trip.exception()
        if trip is not self._trip or trip.cancelled():
            return
        if isinstance(error, Exception):
            self._fail(error)
            return
        self._wait()
        batch, self._batch, self._trip = self._batch, [], None
        unknown: list[Asked] = []
        for asked, reply in zip(batch, trip.result(), strict=True):
            waiting = asked.reply
            if isinstance(reply, NoScriptError):
                unknown.append(asked)
            elif isinstance(reply, Exception):
                self.lose(reply)
                self._refuse([asked], Gone(str(reply)))
            elif waiting is None:
                pass
            elif not waiting.done():
                waiting.set_result(reply)
            elif asked.unclaimed is not None:
                asked.unclaimed(reply)
        if unknown:
            self._ask_again(unknown)
        self._send()

    def _ask_again(self, batch: list[Asked]) -> None:
        """Send whole scripts, before whatever else waits: what was said first is done first."""
        if self.gone:
            self._refuse(batch, Gone("Redis is gone"))
            return
        for asked in batch:
            assert asked.whole is not None, "a script that is called by its digest is there as a whole, too"
            asked.command = asked.whole()
            asked.leaves_s = min(asked.leaves_s, asked.until_s)  # Redis is not late: it is asked for the second time
            asked.until_s = self.waited_s + self._budget_s
        self._waiting[:0] = batch
        self._is_due = True

    def _fail(self, error: Exception) -> None:
        """Refuse what is under way, and everything else for a while."""
        batch, trip, self._batch, self._trip = self._batch, self._trip, [], None
        assert trip is not None
        trip.cancel()
        self._drop()
        self.lose(error)
        self._alarm(error)
        self._refuse(batch, Gone(str(error)))
        self._is_sending = False

    def _drop(self) -> None:
        """Break the connection: a late reply must not be taken for another's."""
        if self._link is not None:
            self._link.abort()

    def _refuse(self, batch: list[Asked], why: Gone) -> None:
        for asked in batch:
            if asked.reply is not None and not asked.reply.done():
                asked.reply.set_exception(why)

    def lose(self, error: Exception) -> None:
        """Refuse everything from now on, until a probe has succeeded; say why, and what holds now, once."""
        if self._is_closed:
            return
        if self._probing is None:
            log.warning("%s: Redis is gone (%s), so %s", self._use, _why(error), self.lost)
            self._probing = asyncio.ensure_future(self._probe())
        self._refuse(self._waiting, Gone("Redis is gone"))
        self._waiting = []

    async def _probe(self) -> None:
        while True:
            await self._clock.sleep(PROBE_EVERY_S)
            # Connected, and quick: a command may have to wait for the round trip before its own, and a Redis that is
            # too slow for that would be gone and back every second.
            if await self._unreachable() is None and await self._is_quick():
                break
        self._probing = None
        log.warning("%s: Redis is back", self._use)

    async def _unreachable(self) -> Exception | None:
        """Return why Redis cannot be used: a replica, a full or a loading one will not take a write."""
        try:
            async with asyncio.timeout(CONNECT_S):
                (reply,) = await (await self._connected()).send([pack(("SET", PROBE_KEY, "1", "EX", 60))])
        except (RedisError, OSError) as error:
            self._drop()
            return error
        return reply if isinstance(reply, Exception) else None

    async def _is_quick(self) -> bool:
        trip: asyncio.Task[Exception | None] = asyncio.ensure_future(self._unreachable())
        try:
            return await _in_time(trip, self._budget_s / QUICK) and trip.result() is None
        finally:
            trip.cancel()


async def _in_time(reply: "asyncio.Future[Any]", left_s: float) -> bool:
    """Wait until `reply` is there, and tell whether it is."""
    while left_s > 0 and not reply.done():
        left_s -= await _look(reply)
    return reply.done()


async def _look(reply: "asyncio.Future[Any]") -> float:
    """Wait for `reply` for a moment; return for how long, as far as it counts."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    await asyncio.wait((reply,), timeout=LOOK_S)
    return min(LOOK_S, loop.time() - began_s)


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__
