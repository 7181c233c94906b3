"""Two attempts at once: when the first is late to speak, another is asked, and who speaks first is heard.

The other is cancelled, and what it used is on the receipt all the same.
"""

import asyncio
from collections.abc import Callable

from prometheus_client import Counter

from gateway.core.call import Call
from gateway.core.errors import GatewayError, Outrun, UpstreamFailed
from gateway.core.receipt import Tried
from gateway.middleware.tries import Ask, Begun, Place, Tries

HEDGED = Counter("gateway_hedges", "Streams that were asked for twice, by who spoke first.", ["winner"])

Racing = dict["asyncio.Task[Begun | UpstreamFailed]", Place]


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
    before = len(call.receipt.tried)
    racing = {asyncio.ensure_future(ask(call, first, "first")): first}
    begun: Begun | UpstreamFailed | None = None
    try:
        await asyncio.wait(racing, timeout=late_s)
        other = tries.beside(first) if tries.left and not any(task.done() for task in racing) else None
        if other is not None and may_ask() and tries.once_more():
            racing[asyncio.ensure_future(ask(call, other, "hedge"))] = other
        begun = await _first_to_speak(racing)
        return begun
    finally:
        await _end(racing)
        _note(call.receipt.tried[before:], begun.attempt.tried if isinstance(begun, Begun) else None)


async def _first_to_speak(racing: Racing) -> Begun | UpstreamFailed:
    """Return what the first begins who begins at all, or the failure of the last; leave in `racing` who still runs.

    Raises:
        GatewayError: nobody began, and one of them failed so that no other attempt can help.
    """
    failure: UpstreamFailed | None = None
    hopeless: GatewayError | None = None
    while racing:
        done, _ = await asyncio.wait(racing, return_when=asyncio.FIRST_COMPLETED)
        for task in [task for task in racing if task in done]:
            del racing[task]
            try:
                begun = task.result()
            except GatewayError as error:
                hopeless = hopeless or error  # the other may answer all the same: it was asked already
                continue
            if isinstance(begun, Begun):
                return begun
            failure = begun
    if hopeless is not None:
        raise hopeless
    assert failure is not None
    return failure


async def _end(losing: Racing) -> None:
    """Stop those who were not heard; should the call need another attempt, others are asked before them."""
    for task, place in losing.items():
        task.cancel()
        place.asked += 1
    for ended in await asyncio.gather(*losing, return_exceptions=True):
        if isinstance(ended, Begun):  # it spoke in the same moment
            if ended.reply.rest is not None:
                await ended.reply.rest.aclose()
            await ended.attempt.over(Outrun("another attempt spoke first"))


def _note(raced: list[Tried], winner: Tried | None) -> None:
    """Write down who was outrun. Where nobody was heard, because the client left, it is whoever was asked beside."""
    for tried in raced:
        if tried is not winner and (winner is not None or tried.why == "hedge"):
            tried.wasted = True
            if winner is not None and tried.error == asyncio.CancelledError.__name__:
                tried.error = Outrun.__name__
    if len(raced) > 1:
        HEDGED.labels("nobody" if winner is None else winner.why).inc()
