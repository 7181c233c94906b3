"""Two attempts at once: when the first is late to speak, another is asked, and who speaks first is heard.

The other is cancelled, and what it used is on the receipt all the same.
"""

import asyncio
from collections.abc import Callable

from prometheus_client import Counter

from gateway.core.call import Call
from gateway.core.errors import Outrun, UpstreamFailed
from gateway.middleware.tries import Ask, Begun, Place, Tries

HEDGED = Counter("gateway_hedges", "Streams that were asked for twice, by who spoke first.", ["winner"])


async def race(
    call: Call, first: Place, late_s: float, *, tries: Tries, ask: Ask, may_ask: Callable[[], bool]
) -> Begun | UpstreamFailed:
    """Return what `first` begins, or what another does that was asked beside it because it was late.

    Args:
        call: what to ask.
        first: who is asked at once.
        late_s: when it is late.
        tries: the call's other places.
        ask: asks one.
        may_ask: takes an extra attempt out of what all calls may ask in this way.

    Raises:
        UpstreamFailed: no other attempt can help.
    """
    receipt = call.receipt
    before = len(receipt.tried)
    racing = {asyncio.ensure_future(ask(call, first, "first"))}
    begun: Begun | UpstreamFailed | None = None
    try:
        await asyncio.wait(racing, timeout=late_s)
        other = None if any(task.done() for task in racing) else tries.beside(first)
        if other is None or not may_ask() or not tries.once_more():
            begun = await _first_to_speak(racing)
            return begun
        racing.add(asyncio.ensure_future(ask(call, other, "hedge")))
        begun = await _first_to_speak(racing)
        HEDGED.labels(begun.attempt.tried.why if isinstance(begun, Begun) else "nobody").inc()
        return begun
    finally:
        await _end(racing)
        if isinstance(begun, Begun):
            for tried in receipt.tried[before:]:
                if tried.error == asyncio.CancelledError.__name__:
                    tried.error, tried.wasted = Outrun.__name__, True


async def _first_to_speak(racing: "set[asyncio.Task[Begun | UpstreamFailed]]") -> Begun | UpstreamFailed:
    """Return what the first begins who begins at all, or the failure of the last; leave in `racing` who still runs."""
    while True:
        done, _ = await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            racing.discard(task)
            begun = task.result()
            if isinstance(begun, Begun) or not racing:
                return begun


async def _end(losing: "set[asyncio.Task[Begun | UpstreamFailed]]") -> None:
    """Stop those who were not heard."""
    for task in losing:
        task.cancel()
    for ended in await asyncio.gather(*losing, return_exceptions=True):
        if isinstance(ended, Begun):  # it spoke in the same moment
            if ended.reply.rest is not None:
                await ended.reply.rest.aclose()
            await ended.attempt.over(Outrun("another attempt spoke first"))
            ended.attempt.tried.wasted = True
