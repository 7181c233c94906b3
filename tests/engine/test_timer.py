"""One timer for the waits of many exchanges, on a loop whose time passes at once."""

import asyncio
from math import inf

from gateway.core.errors import TimedOut
from gateway.engine.http1_exchange import Exchange
from gateway.engine.timer import Timer
from gateway.engine.transport import Deadline
from tests.standins import hastily


def exchange_of(within_s: float, timer: Timer | None = None) -> Exchange:
    """Return one that waits, by a timer that its connection lends."""
    loop = asyncio.get_running_loop()
    exchange = Exchange(loop, Deadline(loop.time() + within_s, "total"), wants_body=True)
    if timer is not None:
        exchange.timer, timer.waiting = timer, exchange
    exchange.wait()
    return exchange


def connections() -> Timer:
    return Timer(asyncio.get_running_loop(), stays=True)


def test_a_timer_that_is_left_running_cuts_nobody_short():
    """It rings when the exchange before would have been late, and is then set for whoever waits now."""

    async def story() -> None:
        timer = connections()
        exchange_of(5, timer).end()
        next = exchange_of(60, timer)
        await asyncio.sleep(59)
        assert next.failure is None
        await asyncio.sleep(2)
        assert isinstance(next.failure, TimedOut)

    hastily(story())


def test_whoever_waits_for_less_is_not_kept_waiting_by_a_timer_that_is_left_running():
    """Deployments on one origin may have clocks of their own."""

    async def story() -> None:
        timer = connections()
        exchange_of(60, timer).end()
        next = exchange_of(5, timer)
        await asyncio.sleep(4)
        assert next.failure is None
        await asyncio.sleep(2)
        assert isinstance(next.failure, TimedOut)

    hastily(story())


def test_a_timer_that_rings_for_nobody_is_set_for_whoever_comes():
    """A connection may have been idle when it rang."""

    async def story() -> None:
        timer = connections()
        exchange_of(5, timer).end()
        await asyncio.sleep(10)
        assert timer.at_s == inf
        next = exchange_of(5, timer)
        await asyncio.sleep(6)
        assert isinstance(next.failure, TimedOut)

    hastily(story())


def test_an_exchanges_own_timer_ends_with_it():
    """Where many share a connection there is one each: those left behind would fill the event loop."""

    async def story() -> None:
        exchange = exchange_of(600)
        timer = exchange.timer
        exchange.end()
        assert timer is not None
        assert timer.at_s == inf

    hastily(story())
