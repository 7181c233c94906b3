"""What both limiters promise, in memory and on Redis: the same tests."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from gateway.core.resources import Denied, Held
from tests.kv.rigs import BEGIN_S, Kind, Rig, rig_of


@pytest.fixture(params=["memory", "redis"])
async def rig(request: pytest.FixtureRequest, valkey_url: str) -> AsyncIterator[Rig]:
    async with rig_of(request.param, valkey_url) as rig:
        yield rig


STEPS = st.lists(
    st.tuples(
        st.integers(0, 25_000),  # ms until the next call
        st.integers(1, 12),  # tokens held
        st.none() | st.integers(0, 12),  # tokens used
        st.integers(0, 20_000),  # ms until it is settled
    ),
    max_size=30,
)


@pytest.mark.parametrize("kind", ["memory", "redis"])
@given(steps=STEPS)
@settings(max_examples=60, phases=(Phase.explicit, Phase.generate))  # to shrink takes minutes on Redis
def test_no_sixty_seconds_pass_more_than_the_limit(kind: Kind, valkey_url: str, steps: list) -> None:
    """A window that begins anew each minute lets twice the limit pass around its seam."""
    asyncio.run(_check_against_a_log(kind, valkey_url, steps))


async def _check_against_a_log(kind: Kind, url: str, steps: list) -> None:
    """Compare with the simplest limiter there is: a list of what was used when. Excess at a settlement is allowed."""
    limit = 20
    async with rig_of(kind, url) as rig:
        meter = rig.meter("tokens", limit)
        log: list[list[float]] = []  # when, how much
        for after_ms, wanted, used, settled_after_ms in steps:
            await rig.to(rig.now_s + after_ms / 1000)
            counted = sum(amount for at, amount in log if int(at) >= int(rig.now_s) - 60)
            held = await rig.hold((meter, wanted))
            assert isinstance(held, Held) == (counted + wanted <= limit)
            if isinstance(held, Denied):
                continue
            entry = [rig.now_s, wanted]
            log.append(entry)
            within = sum(amount for at, amount in log if at > rig.now_s - 60)
            assert within <= limit
            assert held.standings[0].remaining == limit - counted - wanted
            await rig.to(rig.now_s + settled_after_ms / 1000)
            await rig.settle(held, used)
            if used is not None and used > wanted:
                log.append([rig.now_s, used - wanted])
            elif used is not None and int(entry[0]) >= int(rig.now_s) - 60:
                entry[1] = used


async def test_a_denied_call_charges_nothing_anywhere(rig: Rig) -> None:
    """A call that one meter refuses must not use up another: retries would lock the whole team out."""
    requests, tokens = rig.meter("requests", 10), rig.meter("tokens", 100)
    places = rig.meter("concurrent", 1)
    first = await rig.hold((requests, 1), (tokens, 10), (places, 1))
    before = await rig.limiter.standings([requests, tokens, places])
    for _ in range(5):
        assert isinstance(await rig.hold((requests, 1), (tokens, 10), (places, 1)), Denied)
    assert await rig.limiter.standings([requests, tokens, places]) == before
    assert isinstance(first, Held)


async def test_a_denial_names_the_meter_that_is_to_be_waited_for_longest(rig: Rig) -> None:
    """To be told of the shorter wait would mean to be denied twice."""
    places, requests = rig.meter("concurrent", 1), rig.meter("requests", 1)
    await rig.hold((places, 1), (requests, 1))
    denied = await rig.hold((places, 1), (requests, 1))
    assert isinstance(denied, Denied)
    assert denied.meter == requests
    assert denied.retry_after_s == pytest.approx(61.0)


async def test_a_denial_says_when_there_is_room(rig: Rig) -> None:
    """Asking again at that moment succeeds, and a moment earlier does not."""
    tokens = rig.meter("tokens", 100)
    await rig.to(BEGIN_S + 0.5)
    await rig.hold((tokens, 30))
    await rig.to(BEGIN_S + 10.25)
    await rig.hold((tokens, 60))
    denied = await rig.hold((tokens, 40))
    assert isinstance(denied, Denied)
    assert denied.retry_after_s == pytest.approx(50.75)
    await rig.to(BEGIN_S + 60.999)
    assert isinstance(await rig.hold((tokens, 40)), Denied)
    await rig.to(BEGIN_S + 61)
    assert isinstance(await rig.hold((tokens, 40)), Held)


async def test_what_is_more_than_the_whole_limit_never_fits(rig: Rig) -> None:
    """No time to wait is told, because waiting cannot help."""
    denied = await rig.hold((rig.meter("tokens", 100), 101))
    assert isinstance(denied, Denied)
    assert denied.retry_after_s is None


async def test_tokens_that_were_not_used_can_be_used_by_others(rig: Rig) -> None:
    """What is held is an estimate."""
    tokens = rig.meter("tokens", 100)
    held = await rig.hold((tokens, 100))
    assert isinstance(held, Held)
    await rig.to(BEGIN_S + 5)
    await rig.settle(held, 30)
    (standing,) = await rig.limiter.standings([tokens])
    assert standing.remaining == 70
    assert standing.reset_s == pytest.approx(56)


async def test_a_meter_that_is_whole_again_says_so(rig: Rig) -> None:
    """`x-ratelimit-reset` of a call that failed is not the minute it would have taken."""
    tokens = rig.meter("tokens", 100)
    first = await rig.hold((tokens, 10))
    await rig.to(BEGIN_S + 20)
    second = await rig.hold((tokens, 10))
    assert isinstance(first, Held) and isinstance(second, Held)
    await rig.settle(second, 0)
    assert [(s.remaining, s.reset_s) for s in await rig.limiter.standings([tokens])] == [(90, pytest.approx(41))]
    await rig.settle(first, 0)
    assert [(s.remaining, s.reset_s) for s in await rig.limiter.standings([tokens])] == [(100, 0)]


async def test_a_call_without_tokens_does_not_put_off_when_they_are_whole(rig: Rig) -> None:
    """Nothing was taken: the tokens of the call before it come back when they would have."""
    tokens = rig.meter("tokens", 100)
    for second, amount, left, reset_s in ((0, 0, 100, 0), (1, 10, 90, 61), (21, 0, 90, 41)):
        await rig.to(BEGIN_S + second)
        held = await rig.hold((tokens, amount))
        assert [(s.remaining, s.reset_s) for s in held.standings] == [(left, pytest.approx(reset_s))]


async def test_tokens_beyond_what_was_held_are_charged(rig: Rig) -> None:
    """Even where that is more than the limit: they were used, and others wait for them."""
    tokens = rig.meter("tokens", 100)
    held = await rig.hold((tokens, 90))
    assert isinstance(held, Held)
    await rig.to(BEGIN_S + 30)
    await rig.settle(held, 250)
    (standing,) = await rig.limiter.standings([tokens])
    assert (standing.remaining, standing.reset_s) == (0, pytest.approx(61))
    await rig.to(BEGIN_S + 61)
    assert isinstance(await rig.hold((tokens, 1)), Denied)
    await rig.to(BEGIN_S + 91)
    assert isinstance(await rig.hold((tokens, 100)), Held)


async def test_a_refund_of_a_minute_ago_is_nothing_now(rig: Rig) -> None:
    """It left the window together with what was held."""
    tokens = rig.meter("tokens", 100)
    held = await rig.hold((tokens, 60))
    assert isinstance(held, Held)
    await rig.to(BEGIN_S + 70)
    await rig.hold((tokens, 80))
    await rig.settle(held, 0)
    assert (await rig.limiter.standings([tokens]))[0].remaining == 20


async def test_what_was_held_stays_used_where_nobody_knows_better(rig: Rig) -> None:
    """An answer whose upstream never said what it used is not free."""
    tokens = rig.meter("tokens", 100)
    held = await rig.hold((tokens, 60))
    assert isinstance(held, Held)
    await rig.settle(held, None)
    assert (await rig.limiter.standings([tokens]))[0].remaining == 40


async def test_a_call_is_settled_once(rig: Rig) -> None:
    """Settling twice would give back what was never taken, or charge an excess twice."""
    tokens, places = rig.meter("tokens", 100), rig.meter("concurrent", 5)
    held = await rig.hold((tokens, 50), (places, 1))
    other = await rig.hold((tokens, 20), (places, 1))
    assert isinstance(held, Held) and isinstance(other, Held)
    for used in (20, 20, 90):
        await rig.settle(held, used)
    assert [s.remaining for s in await rig.limiter.standings([tokens, places])] == [60, 4]


async def test_places_are_free_when_calls_are_over(rig: Rig) -> None:
    """However long they took, and in whichever order they end."""
    places = rig.meter("concurrent", 2)
    first, second = await rig.hold((places, 1)), await rig.hold((places, 1))
    third = await rig.hold((places, 1))
    assert isinstance(first, Held) and isinstance(second, Held) and isinstance(third, Denied)
    assert third.retry_after_s == pytest.approx(1.0)
    await rig.settle(first, None)
    assert isinstance(await rig.hold((places, 1)), Held)
    assert isinstance(await rig.hold((places, 1)), Denied)


async def test_limits_of_one_subject_share_its_count(rig: Rig) -> None:
    """A reload that changes a limit forgets nothing of the minute before."""
    await rig.hold((rig.meter("requests", 5), 1))
    await rig.hold((rig.meter("requests", 5), 1))
    assert isinstance(await rig.hold((rig.meter("requests", 2), 1)), Denied)
    assert isinstance(await rig.hold((rig.meter("requests", 3), 1)), Held)


async def test_subjects_do_not_share(rig: Rig) -> None:
    """One tenant's calls are nothing to another's limits."""
    await rig.hold((rig.meter("requests", 1, "team-a"), 1))
    assert isinstance(await rig.hold((rig.meter("requests", 1, "team-b"), 1)), Held)


async def test_an_idle_meter_is_whole(rig: Rig) -> None:
    """After an hour as after 61 seconds."""
    tokens = rig.meter("tokens", 100)
    for second in (0, 59, 61, 3_700):
        await rig.to(BEGIN_S + second)
        await rig.hold((tokens, 50))
    (standing,) = await rig.limiter.standings([tokens])
    assert (standing.remaining, standing.reset_s) == (50, pytest.approx(61))
