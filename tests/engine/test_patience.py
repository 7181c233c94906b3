"""The clocks of one attempt, on a loop whose time passes at once."""

import asyncio

import pytest

from gateway.core.errors import TimedOut
from gateway.core.route import Deployment, Timeouts
from gateway.engine.patience import Patience
from tests.standins import StillClock, call_of, hastily


def patience(stream=True, total_s=600.0, uploads=False, **timeouts):
    clock = StillClock()
    call = call_of(clock, stream=stream, deadline_s=clock.now() + total_s)
    return Patience(call.attempt(Deployment("p/m", "p", "m", timeouts=Timeouts(**timeouts))), uploads=uploads)


def left_s(patience):
    """Return how long would be waited now."""
    return patience.at_s - asyncio.get_running_loop().time()


def test_a_reader_that_is_slow_to_take_what_says_nothing_does_not_use_up_the_upstreams_time():
    """A note that an event was skipped says nothing, and yet the client may be slow to take it."""

    async def story():
        waiting = patience(idle_s=10, tokens_per_s=1)
        waiting.heard(0)
        await asyncio.sleep(4)
        waiting.pause()
        await asyncio.sleep(100)
        waiting.resume()
        waiting.check()
        assert left_s(waiting) == pytest.approx(6, abs=0.1)
        waiting.heard(8)
        assert (left_s(waiting), waiting.clock) == (pytest.approx(8, abs=0.1), "throughput")

    hastily(story())


def test_no_reader_is_so_slow_that_the_call_may_take_longer():
    """`total` is the client's own time, whoever spends it."""

    async def story():
        waiting = patience(idle_s=10, total_s=20)
        waiting.heard(0)
        waiting.pause()
        await asyncio.sleep(100)
        waiting.resume()
        with pytest.raises(TimedOut, match=r"timeouts\.total has passed"):
            waiting.check()

    hastily(story())


@pytest.mark.parametrize(("first_token_s", "clock"), [(10, "first_token"), (50, "headers")])
def test_an_upstream_is_not_late_before_it_was_asked(first_token_s, clock):
    """A client may take minutes to send a sound; what is to be said of it is waited for from its end on."""

    async def story():
        waiting = patience(uploads=True, first_token_s=first_token_s, headers_s=20)
        assert (left_s(waiting), waiting.clock) == (pytest.approx(600, abs=0.1), "total")
        await asyncio.sleep(100)
        waiting.has_asked()
        assert (left_s(waiting), waiting.clock) == (pytest.approx(min(first_token_s, 20), abs=0.1), clock)

    hastily(story())


def test_tokens_earn_time_but_not_more_than_idle():
    """Who was fast for an hour may not be silent for one."""

    async def story():
        waiting = patience(idle_s=10, tokens_per_s=2)
        waiting.heard(4_000)
        assert (left_s(waiting), waiting.clock) == (pytest.approx(10, abs=0.1), "idle")
        await asyncio.sleep(5)
        waiting.pause()
        waiting.heard(4 * 4)
        assert (left_s(waiting), waiting.clock) == (pytest.approx(7, abs=0.1), "throughput")

    hastily(story())


@pytest.mark.parametrize(("stream", "clock"), [(True, "first_token"), (False, "total")])
def test_behind_the_head_the_next_clock_runs(stream, clock):
    """A stream has to say something soon; a whole answer may come as late as the call may end."""

    async def story():
        waiting = patience(stream, headers_s=1, first_token_s=5, total_s=50)
        assert waiting.clock == "headers"
        waiting.has_head()
        assert waiting.clock == clock

    hastily(story())
