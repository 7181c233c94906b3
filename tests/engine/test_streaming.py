"""An answer's clocks where its upstream never keeps us waiting: each piece is there before any wait is over."""

import asyncio
from typing import Self

import pytest

from gateway.core.errors import Broke, TimedOut
from gateway.core.route import Deployment, Timeouts
from gateway.engine.passing import Lent
from gateway.engine.patience import Patience
from gateway.engine.streaming import streamed
from gateway.engine.upstream import Place, Upstream
from gateway.providers.openai import OpenAIOptions
from tests.calls import a_body, chunks_of
from tests.standins import StillClock, call_of, hastily

PING = b": ping\n\n"
NOTHING = b'data: {"id":"1","choices":[{"index":0,"delta":{"content":""},"finish_reason":null}]}\n\n'
WORD = NOTHING.replace(b'""', b'"Hello"')
EVERY_S = 1.0
CLOCK_S = 10.0
ENOUGH = 100
"""So many events without content take ten times as long as the clock."""


class Chatter:
    """A body of which something always comes in time, so that no wait for it finds its deadline passed."""

    status = 200
    ended = False
    headers = {"content-type": "text/event-stream"}  # noqa: RUF012 as of every answer

    def __init__(self, *events: bytes) -> None:
        self.left = list(events)

    async def more(self) -> bytes:
        """Return the next event, a second after the one before."""
        await asyncio.sleep(EVERY_S)
        assert self.left, "it was listened to until it had no more to say"
        return self.left.pop(0)

    def whole(self) -> None:
        """Nothing is here yet."""
        return

    def close(self) -> None:
        """It is let go of."""

    async def send(self, *_: object, **__: object) -> Self:
        """It is the transport too: there is but this answer."""
        return self


def told(response, story, **timeouts):
    """Run `story` with what becomes of the answer."""

    async def told():
        clock = StillClock()
        place = Deployment("p/m", "p", "m", timeouts=Timeouts(**timeouts))
        attempt = call_of(clock, stream=True, deadline_s=clock.now() + 10 * ENOUGH).attempt(place)
        reader = OpenAIOptions(kind="openai").build("p").reader(attempt)
        await story(streamed(attempt, reader, Lent(response), Patience(attempt)))

    hastily(told())


@pytest.mark.parametrize("silent", [PING, NOTHING], ids=["comments", "empty deltas"])
def test_an_upstream_that_only_says_that_it_is_there_is_late_with_its_first_token(silent):
    """It must not hold a caller for as long as it likes: signs of life are no content."""
    response = Chatter(*[silent] * ENOUGH)

    async def story(reply):
        with pytest.raises(TimedOut, match=r"timeouts\.first_token has passed"):
            await reply

    told(response, story, first_token_s=CLOCK_S)
    assert len(response.left) >= ENOUGH - CLOCK_S / EVERY_S - 1, "it was heard for longer than the clock"


@pytest.mark.parametrize("silent", [PING, NOTHING], ids=["comments", "empty deltas"])
def test_an_upstream_that_has_spoken_and_then_only_says_that_it_is_there_is_idle(silent):
    """From its last word on, however much comes that says nothing."""
    response = Chatter(WORD, WORD, *[silent] * ENOUGH)

    async def story(reply):
        with pytest.raises(Broke, match=r"timeouts\.idle has passed"):
            async for _ in chunks_of(await reply):
                pass

    told(response, story, idle_s=CLOCK_S)
    assert len(response.left) >= ENOUGH - CLOCK_S / EVERY_S - 1, "it was heard for longer than the clock"


def test_an_upstream_of_whose_whole_answer_only_blank_lines_come_is_idle():
    """They are sent so that nobody in between hangs up; we have a clock."""
    response = Chatter(b'{"id":', *[b"\n"] * ENOUGH)
    response.headers = {"content-type": "application/json"}

    async def story():
        clock, place = StillClock(), Deployment("p/m", "p", "m", timeouts=Timeouts(idle_s=CLOCK_S))
        call = call_of(clock, body=a_body(), deadline_s=clock.now() + 10 * ENOUGH)
        upstream = Upstream({"p": Place(OpenAIOptions(kind="openai").build("p"), response)})
        with pytest.raises(TimedOut, match=r"timeouts\.idle has passed"):
            async with call.attempt(place) as attempt:
                await upstream(attempt)

    hastily(story())
    assert len(response.left) >= ENOUGH - CLOCK_S / EVERY_S - 1, "it was heard for longer than the clock"
