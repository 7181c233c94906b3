"""When a stream's first token is late, another deployment is asked beside the first; who speaks first is heard."""

import asyncio
import math

import pytest

from gateway.core.reply import Chunk, Reply
from gateway.middleware.hedge import HEDGED, race
from gateway.middleware.tries import Begun, Place
from tests.lean import Lean
from tests.places import PRICES, RETRY, places
from tests.script import Cut, Fails, Says, Silent, Slow
from tests.standins import PLACE, StillClock, call_of

LATE_S = 0.05
HEDGE = {"percentile": 95, "share": 1}
ALONE = ({"use": "cost"}, {**RETRY, "attempts": 1})


def hedged(winner):
    return HEDGED.labels(winner)._value.get()


async def test_nobody_is_late_before_enough_was_measured():
    """Nineteen streams say nothing of a percentile; the twentieth does."""
    async with places(hedge=HEDGE) as at:
        for _ in range(19):
            await at.stream()
        at.a.will(Slow("slow", first_s=0.4), Slow("slow", first_s=0.4))
        assert (await at.stream()).text == "slow" and at.b.asked == 0
        at.a.script.clear()
        at.a.will(Silent())
        assert (await at.stream()).text == "Hello" and at.b.asked == 1


async def test_the_second_speaks_first():
    """The first is left at once; what it was asked is paid for by estimate, and is no part of the answer."""
    async with places(hedge=HEDGE) as at:
        at.measured("a", LATE_S)
        at.a.will(Silent())
        at.b.will(Says("Hello", prompt_tokens=30, completion_tokens=4))
        before = hedged("hedge")
        told = await at.stream()
        await at.a.until(lambda: at.a.gone)
        assert told.is_whole and told.text == "Hello" and hedged("hedge") == before + 1
        first, second = told.receipt.tried
        assert (first.error, first.why, first.wasted, first.unhealthy) == ("Outrun", "first", True, False)
        assert (second.error, second.why, second.wasted) == ("", "hedge", False)
        assert first.usage.estimated and (first.usage.prompt_tokens > 0, first.usage.completion_tokens) == (True, 0)
        assert (told.receipt.usage.prompt_tokens, told.receipt.usage.estimated) == (30, False)
        assert told.receipt.cost_nusd == first.usage.prompt_tokens * 1_000 + 30 * 10_000 + 4 * 20_000
        assert told.cost == f"{told.receipt.cost_nusd / 10**9:.9f}"


async def test_the_first_speaks_first_after_all():
    """Then the second is the one that is left."""
    async with places(hedge=HEDGE) as at:
        at.measured("a", LATE_S)
        at.a.will(Slow("Hello", first_s=0.4))
        at.b.will(Silent())
        before = hedged("first")
        told = await at.stream()
        await at.b.until(lambda: at.b.gone)
        assert told.is_whole and told.text == "Hello" and hedged("first") == before + 1
        first, second = told.receipt.tried
        assert (first.error, first.wasted, second.error, second.wasted) == ("", False, "Outrun", True)
        assert second.usage.estimated and told.receipt.answered_by is first
        assert told.receipt.cost_nusd > second.usage.prompt_tokens * PRICES["b"][0] * 1_000


async def test_whoever_is_in_time_is_asked_alone():
    """The usual case: nothing is spent."""
    async with places(hedge=HEDGE) as at:
        at.measured("a", 5)
        assert (await at.stream()).is_whole and (at.a.asked, at.b.asked) == (1, 0)


async def test_when_both_fail_others_are_asked():
    """As if they had been asked one after the other; each is an attempt."""
    async with places("abc", hedge=HEDGE) as at:
        at.measured("a", LATE_S)
        at.a.will(Fails(500, after_s=0.3))
        at.b.will(Fails(500))
        before = hedged("nobody")
        told = await at.stream()
        assert told.is_whole and [tried.deployment for tried in told.receipt.tried] == ["a/m-a", "b/m-b", "c/m-c"]
        assert [tried.why for tried in told.receipt.tried] == ["first", "hedge", "retry"]
        assert [tried.error for tried in told.receipt.tried] == ["Unreachable", "Unreachable", ""]
        assert hedged("nobody") == before + 1


@pytest.mark.parametrize("status", [400, 500])
async def test_the_first_may_fail_while_the_second_is_asked(status):
    """Nobody else is: one of the two may still answer, even if the first says that nobody could."""
    async with places("abc", hedge=HEDGE) as at:
        at.measured("a", LATE_S)
        at.a.will(Fails(status, after_s=0.3))
        at.b.will(Slow("Hello", first_s=0.6))
        told = await at.stream()
        assert told.is_whole and told.text == "Hello" and at.c.asked == 0


@pytest.mark.parametrize("status", [400, 500])
async def test_a_second_that_fails_does_not_fail_the_first(status):
    """Without it the client would have had its answer; so it has it now."""
    async with places("abc", hedge=HEDGE) as at:
        at.measured("a", LATE_S)
        at.a.will(Slow("Hello", first_s=0.4))
        at.b.will(Fails(status))
        told = await at.stream()
        assert told.is_whole and told.text == "Hello" and (at.b.asked, at.c.asked) == (1, 0)


async def test_what_both_reject_is_rejected():
    """The client is told why."""
    async with places("abc", hedge=HEDGE) as at:
        at.measured("a", LATE_S)
        at.a.will(Fails(400, after_s=0.3))
        at.b.will(Fails(400))
        told = await at.stream()
        assert told.status == 400 and at.c.asked == 0


async def test_of_two_that_speak_at_once_one_is_heard():
    """The other is closed and paid for, though nothing failed."""
    call, spoken, closed = call_of(StillClock(), stream=True), asyncio.Event(), []

    async def chunks(attempt):
        try:
            yield Chunk(b"behind the first")
        finally:
            closed.append(attempt.deployment.name)

    async def ask(call, place, why):
        async with call.attempt(place.deployment, why) as attempt:
            attempt.at_end(lambda _: closed.append(why))
            if why == "hedge":
                asyncio.get_running_loop().call_soon(spoken.set)
            await spoken.wait()
            rest = chunks(attempt)
            return Begun(place, attempt, Reply(await anext(rest), rest))

    class Two:
        left = 2

        def beside(self, first):
            return Place(PLACE)

        def once_more(self):
            return True

    begun = await race(call, Place(PLACE), 0.01, tries=Two(), ask=ask, may_ask=lambda: True)
    winner, loser = call.receipt.tried
    assert begun.attempt.tried is winner and (winner.error, winner.wasted) == ("", False)
    assert (loser.error, loser.wasted) == ("Outrun", True) and closed == [PLACE.name, "hedge"]
    await begun.reply.rest.aclose()


async def test_a_bug_is_no_failure_of_one_of_two():
    """It is told, loudly, though the other might answer."""

    async def ask(call, place, why):
        if why == "hedge":
            raise ZeroDivisionError
        await asyncio.sleep(10)

    class Two:
        left = 2
        beside = staticmethod(lambda first: Place(PLACE))
        once_more = staticmethod(lambda: True)

    with pytest.raises(ZeroDivisionError):
        await race(call_of(StillClock()), Place(PLACE), 0.01, tries=Two(), ask=ask, may_ask=lambda: True)


async def test_a_client_that_leaves_stops_both():
    """Neither had spoken; the call is over once, and what it used is that of the first."""
    async with places(hedge=HEDGE) as at:
        at.measured("a", LATE_S)
        at.a.will(Silent())
        at.b.will(Silent())
        client = await Lean.open(at.gateway.url)
        client.send(stream=True)
        await at.b.until(lambda: at.b.asked)
        client.close()
        await at.a.until(lambda: at.a.gone)
        await at.b.until(lambda: at.b.gone)
        receipt = await at.receipt()
        assert (receipt.outcome, [tried.wasted for tried in receipt.tried]) == ("abandoned", [False, True])
        first, second = (tried.usage.prompt_tokens for tried in receipt.tried)
        assert receipt.usage.prompt_tokens == first and receipt.usage.estimated
        assert receipt.cost_nusd == first * 1_000 + second * 10_000
        assert not any(one.in_flight for one in at.gateway.live.fleet.conditions(100))


async def test_the_budget_holds_over_many_calls():
    """Were all of them late, a tenth would be asked twice, and one more."""
    async with places(hedge={**HEDGE, "share": 0.1}) as at:
        at.measured("a", 0.001)
        at.a.will(*[Slow("Hello", first_s=0.1)] * 100)
        told = await asyncio.gather(*(at.stream() for _ in range(100)))
        assert all(one.is_whole for one in told)
        assert 5 <= at.b.asked <= 11


async def test_a_whole_answer_is_not_asked_for_twice():
    """It has no first token: that it takes long says nothing."""
    async with places(hedge=HEDGE) as at:
        at.measured("a", 0.001)
        at.a.will(Slow("Hello", first_s=0.3))
        assert (await at.gateway.ask()).status_code == 200 and at.b.asked == 0


async def test_a_buffered_stream_is_late_by_its_first_token_too():
    """Not by its last: or every answer would be asked for twice."""
    async with places(hedge=HEDGE, midstream="buffer") as at:
        at.measured("a", 1.5)
        at.a.will(Slow("one two three", between_s=0.5))
        assert (await at.stream()).is_whole and at.b.asked == 0


async def test_a_buffered_hedge_is_rescued_whole():
    """Whoever has not been asked comes before the one that was outrun."""
    async with places("abc", hedge=HEDGE, midstream="buffer") as at:
        at.measured("a", LATE_S)
        at.a.will(Silent())
        at.b.will(Cut("one two", after_events=2))
        at.c.will("one two")
        told = await at.stream()
        assert told.is_whole and told.text == "one two"
        assert [tried.error for tried in told.receipt.tried] == ["Outrun", "Unreachable", ""]


async def test_nobody_unwell_is_asked_beside():
    """More load is the last thing it needs; another is asked instead."""
    async with places("abc", hedge=HEDGE) as at:
        at.measured("a", LATE_S)
        at.measured("b", 0, unhealthy=True)
        at.a.will(Slow("Hello", first_s=0.3))
        await at.stream()
        assert (at.b.asked, at.c.asked) == (0, 1)


@pytest.mark.parametrize(("attempts", "asked"), [(2, (1, 1, 0)), (3, (1, 1, 1))])
async def test_a_hedge_is_an_attempt(attempts, asked):
    """Of one budget with all others."""
    async with places("abc", hedge=HEDGE, chain=({**RETRY, "attempts": attempts},)) as at:
        at.measured("a", LATE_S)
        at.a.will(Fails(500, after_s=0.3))
        at.b.will(Fails(500))
        at.c.will(Fails(500))
        told = await at.stream()
        assert told.status == 502 and (at.a.asked, at.b.asked, at.c.asked) == asked


async def test_where_no_attempt_is_left_the_first_is_waited_for():
    """The client's own SDK has already asked twice. Nothing is taken from the budget of the calls that come."""
    async with places(hedge={**HEDGE, "share": 0.001}) as at:
        at.measured("a", LATE_S)
        at.a.will(Slow("Hello", first_s=0.3), Silent())
        body = {"model": "mock", "stream": True, "messages": [{"role": "user", "content": "Hi"}]}
        answer = await at.gateway.http.post("/v1/chat/completions", json=body, headers={"x-stainless-retry-count": "2"})
        assert "[DONE]" in answer.text and at.b.asked == 0
        assert (await at.stream()).is_whole and at.b.asked == 1


async def test_a_hedge_that_breaks_is_gone_on_with():
    """Rescues and hedges are one search; the loser's share is no part of the joined answer."""
    async with places("abc", hedge=HEDGE, midstream="continue") as at:
        at.measured("a", LATE_S)
        at.a.will(Silent())
        at.b.will(Cut("one two three", after_events=3))
        at.c.will(Says("three", prompt_tokens=30, completion_tokens=4))
        told = await at.stream()
        assert told.is_whole and told.text == "one two three"
        assert [tried.why for tried in told.receipt.tried] == ["first", "hedge", "continue"]
        _, second, third = (tried.usage for tried in told.receipt.tried)
        assert told.receipt.usage == second + third


CALLS = 200
STALLS = (60, 100, 140, 180)
"""Two in a hundred."""
SHARE = 0.1


async def waits(**route):
    """Return how long each call's first token took, and how often the second place was asked."""
    async with places(**route) as at:
        at.a.will(*(Slow("Hello", first_s=1 if n in STALLS else 0.005) for n in range(CALLS)))
        took_s = []
        for _ in range(CALLS):
            client = await Lean.open(at.gateway.url)
            client.send(stream=True)
            began_s = asyncio.get_running_loop().time()
            await client.head()
            took_s.append(asyncio.get_running_loop().time() - began_s)
            client.close()
        return took_s, at.b.asked


async def test_the_slowest_answers_come_soon_for_few_calls_more():
    """Two in a hundred stall: without hedges the 99th percentile is a stall, with them it is a fraction of one."""
    alone, none = await waits()
    together, asked = await waits(hedge={"percentile": 98, "share": SHARE})
    rank = math.ceil(0.99 * CALLS) - 1
    assert (none, asked > 0) == (0, True) and asked <= 1 + SHARE * CALLS
    assert sorted(together)[rank] < sorted(alone)[rank] / 3
