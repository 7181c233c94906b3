"""A line to Redis: commands that are asked for while a round trip is under way leave together with the next.

A round trip of redis-py costs 46 µs of CPU for one command and 11 µs a command where many share it, and a line needs
one connection however many calls there are. Whatever is asked is answered in time or refused with `Gone`; while Redis
is gone, or too slow, everything is refused at once, and only a probe in the background waits for it. Where one line
waited in vain no other has to: it raises an alarm, and whoever owns the lines has them all `lose` Redis.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from msgspec import Struct
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from gateway.core.resources import Clock

CONNECT_S = 1.0
"""How long opening a connection may take, TLS and password included; calls do not wait for that."""
PROBE_EVERY_S = 1.0
PROBE_KEY = "gateway:probe"
LOOK_S = 0.002
"""How often this process looks whether a late reply has come, if it has the time: what it is busy with meanwhile is no
fault of Redis, and is not counted as waiting for it."""
QUICK = 2
"""Redis is back when a round trip takes no more than this part of the budget: a half."""
MOST_AT_ONCE = 512
"""Commands in one round trip."""
NO_ANSWER = "no answer in time"

log = logging.getLogger("gateway")


class Gone(Exception):
    """Redis did not answer, or not in time, or cannot do what it is there for."""


class Asked(Struct):
    """A command on its way."""

    command: tuple[Any, ...]
    reply: asyncio.Future[Any]
    until_s: float
    """On the line's clock, `waited_s`."""
    more_s: float
    """What it may take on top of the usual."""
    unclaimed: Callable[[Any], None] | None
    """Is given the reply if nobody waits for it any more."""


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
        self._redis = _client(url)
        self._waiting: list[Asked] = []
        self._sending: asyncio.Task[None] | None = None
        self._probing: asyncio.Task[None] | None = None

    @property
    def gone(self) -> bool:
        """Whether everything is refused at the moment."""
        return self._probing is not None

    async def open(self) -> None:
        """Connect. If that fails, go on trying in the background."""
        if (error := await self._unreachable()) is not None:
            self.lose(error)

    async def close(self) -> None:
        """Refuse what still waits, and disconnect."""
        for task in (self._probing, self._sending):
            if task is not None:
                task.cancel()
                await asyncio.wait((task,), timeout=CONNECT_S)
        self._refuse(self._waiting, Gone("the gateway is stopping"))
        self._waiting = []
        await self._redis.aclose()

    async def ask(
        self,
        *command: Any,
        waited_s: float = 0.0,
        more_s: float = 0.0,
        unclaimed: Callable[[Any], None] | None = None,
    ) -> Any:
        """Return Redis's reply to `command`.

        Args:
            command: its words.
            waited_s: how long the caller has waited for Redis before, and will not wait now. Its haste is its own:
                Redis is not gone because of it.
            more_s: how long the command may take on top of the usual.
            unclaimed: is given the reply if the caller left, or could not wait, while the command was under way.

        Raises:
            Gone: there was none in time.
            NoScriptError: the script that was called by its digest is not known.
        """
        if self._probing is not None:
            raise Gone("Redis is gone")
        loop = asyncio.get_running_loop()
        asked = Asked(command, loop.create_future(), self.waited_s + self._budget_s, more_s, unclaimed)
        self._waiting.append(asked)
        if self._sending is None:
            self._sending = loop.create_task(self._send())
        reply = asked.reply
        try:
            if waited_s and not await _in_time(reply, self._budget_s - waited_s):
                raise Gone(NO_ANSWER)
            return await reply
        except asyncio.CancelledError:  # the reply may have come in the very moment in which the caller left
            if reply.done() and not reply.cancelled() and reply.exception() is None and unclaimed is not None:
                unclaimed(reply.result())
            raise
        finally:
            reply.cancel()

    async def _send(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[:MOST_AT_ONCE], self._waiting[MOST_AT_ONCE:]
                wanted = [asked for asked in batch if not asked.reply.done()]
                if wanted:
                    await self._round_trip(wanted)
        finally:
            self._sending = None

    async def _round_trip(self, batch: list[Asked]) -> None:
        pipeline: Any = self._redis.pipeline(transaction=False)
        for asked in batch:
            pipeline.execute_command(*asked.command)
        trip: asyncio.Task[list[Any]] = asyncio.ensure_future(pipeline.execute(raise_on_error=False))
        trip.add_done_callback(_look_at)
        try:
            until_s = self._until_s(batch)
            while not trip.done():
                if self.waited_s >= until_s:
                    raise TimeoutError(NO_ANSWER)
                self.waited_s += await _look(trip)
            replies = trip.result()
        except (RedisError, OSError, TimeoutError) as error:
            self.lose(error)
            self._alarm(error)
            self._refuse(batch, Gone(str(error)))
        else:
            for asked, reply in zip(batch, replies, strict=True):
                self._answer(asked, reply)
        finally:
            if not trip.done():
                trip.cancel()
                self._refuse(batch, Gone("the gateway is stopping"))

    def _until_s(self, batch: list[Asked]) -> float:
        """Return when a round trip is late: when whoever has waited longest does not wait any more; or, with large
        commands in it, for which nobody is in a hurry, when these have had their time."""
        if more_s := sum(asked.more_s for asked in batch):
            return self.waited_s + self._budget_s + more_s
        return min(asked.until_s for asked in batch)

    def _answer(self, asked: Asked, reply: Any) -> None:
        if isinstance(reply, NoScriptError):
            if not asked.reply.done():
                asked.reply.set_exception(reply)
        elif isinstance(reply, Exception):
            self.lose(reply)
            self._refuse([asked], Gone(str(reply)))
        elif not asked.reply.done():
            asked.reply.set_result(reply)
        elif asked.unclaimed is not None:
            asked.unclaimed(reply)

    def _refuse(self, batch: list[Asked], why: Gone) -> None:
        for asked in batch:
            if not asked.reply.done():
                asked.reply.set_exception(why)

    def lose(self, error: Exception) -> None:
        """Refuse everything from now on, until a probe has succeeded; say why, and what holds now, once."""
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
                await self._redis.set(PROBE_KEY, "1", ex=60)
        except (RedisError, OSError, TimeoutError) as error:
            return error
        return None

    async def _is_quick(self) -> bool:
        trip: asyncio.Task[Exception | None] = asyncio.ensure_future(self._unreachable())
        try:
            return await _in_time(trip, self._budget_s / QUICK) and trip.result() is None
        finally:
            trip.cancel()


def _client(url: str) -> "Redis":
    try:
        # No timeouts and no retries of its own: a line has them, and two sets of them would add up.
        client: Redis = Redis.from_url(  # pyright: ignore[reportUnknownMemberType]
            url,
            retry=Retry(NoBackoff(), 0),
            socket_timeout=None,
            socket_connect_timeout=CONNECT_S,
        )
        client.connection_pool.make_connection()  # looks at the URL's options
    except (ValueError, TypeError):
        # What is wrong is not quoted: a password with a `/` in it is taken for a port.
        raise ValueError(
            "this is no URL of a Redis: expected redis://host:6379/0, redis://user:password@host:6379/0, rediss://… "
            "for TLS, or unix:///path; characters such as / and # in a password are written %2F and %23"
        ) from None
    return client


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


def _look_at(trip: "asyncio.Task[Any]") -> None:
    """Take notice of how a trip ended that nobody waited for to its end."""
    if not trip.cancelled():
        trip.exception()


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__
