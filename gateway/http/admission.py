"""Who is let in, who waits, who is refused: overload is answered early, and never by collapse.

A process that takes every call gets slower with each until none is answered in time. So each worker lets in
`server.max_calls` at a time, whatever they wait for. The next ones wait in a queue that is bounded in length and in
time, and those beyond it are refused at once: before the body is read, JSON is parsed or a key is looked up.

Callers take turns, so that one who floods the queue keeps nobody else from being served. A caller is a digest of the
credential it presents, with a secret of this process: a made-up one has its turn like any other, and `auth` ends it.
"""

import asyncio
import hashlib
import logging
import os
import random
from collections import deque
from functools import partial
from typing import Any, Literal

from litestar.types import Receive
from prometheus_client import Counter, Gauge

from gateway.core.call import Headers
from gateway.core.counting import Count, Counts
from gateway.core.errors import Overloaded
from gateway.http.requests import LARGE_BODY, credential_of
from gateway.settings.schema import Server

log = logging.getLogger("gateway")

RETRY_AFTER_S = (1.0, 3.0)
"""When those refused are asked to come back: each at another time, or they would all return at once."""
LOG_EVERY_S = 1.0

UNDER_WAY = Count(Gauge("gateway_calls_under_way", "Calls let in and not over.", multiprocess_mode="livesum"))
WAITING = Count(Gauge("gateway_calls_waiting", "Calls that wait to be let in.", multiprocess_mode="livesum"))
REFUSED = Counts(Counter("gateway_calls_refused", "Calls refused because of overload, by the reason.", ["reason"]))

Reason = Literal["full", "displaced", "late"]
Fate = Literal["in", "left", "full", "displaced", "late"]
Place = asyncio.Future[Fate]
"""A place in the queue, which becomes what happened to who waited there. `left`: the client has gone."""

REASONS: dict[Reason, str] = {
    "full": "as many calls are under way and waiting as may be",
    "displaced": "as many calls are under way and waiting as may be, and most that wait are yours",
    "late": "as many calls are under way as may be, and none ended in time to let this one in",
}

_refused = {reason: REFUSED[reason] for reason in REASONS}
"""All of them, before there is one: an alert sees no first rise of a series that was not there."""
_secret = os.urandom(16)
_chance = random.Random()  # noqa: S311 spreading load is no secret
os.register_at_fork(after_in_child=_chance.seed)


class Admission:
    """The calls under way in this process, and those that wait. It outlives every configuration."""

    def __init__(self, limits: Server) -> None:
        self.under_way = 0
        self._limits = limits
        self._queue = Queue()
        self._unlogged = 0

    @property
    def waiting(self) -> int:
        """How many calls wait."""
        return self._queue.length

    def follow(self, limits: Server) -> None:
        """Go by other limits from now on. Nobody under way or in the queue is turned out."""
        self._limits = limits
        self._let_in()

    def enter(self) -> bool:
        """Let a call in if there is room for one; while there is, nobody waits."""
        if self.under_way >= self._limits.max_calls:
            return False
        self.under_way += 1
        UNDER_WAY.n += 1
        return True

    def leave(self) -> None:
        """Note that a call is over, and let the next one in."""
        self.under_way -= 1
        UNDER_WAY.n -= 1
        if self._queue.length:
            self._let_in()

    async def let_in(self, headers: Headers, receive: Receive) -> Receive | None:
        """Have a call wait that could not enter at once; return how to read on. `None`: its client has left.

        Raises:
            Overloaded: it is not let in.
        """
        fate, receive = await self._wait(headers, receive)
        if fate not in ("in", "left"):
            raise self._refused(fate)
        return receive if fate == "in" else None

    async def _wait(self, headers: Headers, receive: Receive) -> tuple[Fate, Receive]:
        if not self._limits.queue:
            return "full", receive
        caller = caller_of(headers)
        place = self._place(caller)
        if place is None:
            return "full", receive
        timer = place.get_loop().call_later(self._limits.queue_wait, self._dismiss, caller, place, "late")
        ear = Ear(receive, partial(self._dismiss, caller, place, "left"))
        WAITING.n += 1
        try:
            return await place, ear.receive
        except asyncio.CancelledError:
            if place.cancelled():
                self._queue.remove(caller, place)
            elif place.result() == "in":
                self.leave()
            raise
        finally:
            WAITING.n -= 1
            timer.cancel()
            ear.close()

    def _refused(self, reason: Reason) -> Overloaded:
        """Count a refusal, and return what to say.

        It passes no room of the chain: where it was measured, a refusal took 45 µs of CPU without and 170 µs with them.
        So it has a metric of its own, and the log a line a second: one for each would be a second flood.
        """
        _refused[reason].n += 1
        if not self._unlogged:
            asyncio.get_running_loop().call_later(LOG_EVERY_S, self._log)
        self._unlogged += 1
        return Overloaded(f"{REASONS[reason]}; ask again a little later", retry_after_s=_chance.uniform(*RETRY_AFTER_S))

    def _log(self) -> None:
        log.warning(
            "overload: %d calls refused in %g s; %d of %d under way, %d of %d waiting (`server.max_calls`, `.queue`)",
            *(self._unlogged, LOG_EVERY_S),
            *(self.under_way, self._limits.max_calls, self.waiting, self._limits.queue),
        )
        self._unlogged = 0

    def _let_in(self) -> None:
        while self._queue.length and self.enter():
            self._queue.next().set_result("in")

    def _place(self, caller: bytes) -> Place | None:
        """Return a place in the queue; `None` if there is none for this caller.

        In a full one room is made at the cost of the caller with the most, if it would still have no fewer than this
        one: otherwise those who wait would only be exchanged, the early for the late.
        """
        queue = self._queue
        if queue.length >= self._limits.queue:
            most = queue.longest()
            if queue.places(most) <= queue.places(caller) + 1:
                return None
            self._dismiss(most, queue.newest(most), "displaced")
        return queue.join(caller)

    def _dismiss(self, caller: bytes, place: Place, fate: Fate) -> None:
        if not place.done():
            self._queue.remove(caller, place)
            place.set_result(fate)


class Queue:
    """Places to wait in: callers take turns, and of one caller's calls the first comes first."""

    def __init__(self) -> None:
        self._callers: dict[bytes, dict[Place, None]] = {}
        """Callers in the order of their turns; of each its places in the order of their coming."""
        self.length = 0
        """How many wait."""

    def join(self, caller: bytes) -> Place:
        """Return a new place behind all others of `caller`."""
        place: Place = asyncio.get_running_loop().create_future()
        self._callers.setdefault(caller, {})[place] = None
        self.length += 1
        return place

    def next(self) -> Place:
        """Take out the place whose turn it is; its caller's next turn comes after everybody else's."""
        caller = next(iter(self._callers))
        places = self._callers.pop(caller)
        place = next(iter(places))
        del places[place]
        if places:
            self._callers[caller] = places
        self.length -= 1
        return place

    def remove(self, caller: bytes, place: Place) -> None:
        """Take out this place."""
        places = self._callers[caller]
        del places[place]
        if not places:
            del self._callers[caller]
        self.length -= 1

    def longest(self) -> bytes:
        """Return the caller with the most places; looks at each, some 20 µs for 500 of them."""
        return max(self._callers, key=self.places)

    def places(self, caller: bytes) -> int:
        """Return how many places `caller` has."""
        return len(self._callers.get(caller, ()))

    def newest(self, caller: bytes) -> Place:
        """Return the place that `caller` took last."""
        return next(reversed(self._callers[caller]))


class Ear:
    """Listens to a client that waits: tells when it leaves, and keeps what it says for whoever reads its call.

    A body that is larger than `LARGE_BODY` is not taken in, and its sender not heard leaving: that shows when the rest
    is read.
    """

    def __init__(self, receive: Receive, left: partial[None]) -> None:
        self._receive = receive
        self._heard = deque[Any]()
        self._task = asyncio.ensure_future(self._listen(left))

    async def receive(self) -> Any:
        """Return ASGI's next message: those heard first."""
        return self._heard.popleft() if self._heard else await self._receive()

    def close(self) -> None:
        """Listen no more. Nothing is lost: uvicorn hands a message over without waiting in between."""
        self._task.cancel()

    async def _listen(self, left: partial[None]) -> None:
        size, more = 0, True
        while size <= LARGE_BODY or not more:
            message: Any = await self._receive()
            if message["type"] == "http.disconnect":
                left()
                return
            self._heard.append(message)
            size += len(message.get("body", b""))
            more = message.get("more_body", False)


def caller_of(headers: Headers) -> bytes:
    """Return who asks, as far as the credential tells, and nothing that would tell the credential."""
    credential = credential_of(headers).reveal().encode()
    return hashlib.blake2b(credential, digest_size=16, key=_secret).digest()
