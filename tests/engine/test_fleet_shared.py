"""Two processes' fleets and a real server between them: one's bad experience is enough for both."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from gateway.core.route import Deployment
from gateway.engine.clock import SystemClock
from gateway.engine.fleet import LiveFleet
from gateway.engine.health import Rules
from gateway.kv import rests
from tests.engine.attempts import A, Attempt
from tests.kv.test_redis import eventually, store_of, until_back
from tests.valkey import Valkey

LONG = Rules(rest_s=60.0)
SHORT = Rules(rest_s=3.0, longest_rest_s=60.0)


class Process:
    """One fleet, and what it shares."""

    def __init__(self, fleet: LiveFleet, store) -> None:
        self.fleet = fleet
        self.store = store

    def begin(self, place: Deployment = A) -> Attempt:
        return Attempt(self.fleet, self.fleet._clock, place)

    def falls_ill(self, place: Deployment = A) -> None:
        for _ in range(self.fleet.rules.failures):
            self.begin(place).fails()

    async def told(self) -> None:
        """Wait until all that it had to tell is told."""
        if self.fleet._telling:
            await asyncio.wait(self.fleet._telling)

    async def until(self, *, rests: bool, within_s: float = 30.0) -> None:
        """Wait until it has learnt, by its own polls, whether it rests."""

        async def so() -> bool:
            return (self.fleet.rest(A.name) is not None) == rests

        await eventually(so, within_s=within_s)


@asynccontextmanager
async def process(url: str) -> AsyncIterator[Process]:
    async with store_of(url, budget_s=2.0) as store:
        fleet = LiveFleet(SystemClock())
        fleet.share(store.rests)
        try:
            yield Process(fleet, store)
        finally:
            await fleet.close()


@pytest.fixture
async def both(own_valkey: Valkey) -> AsyncIterator[tuple[Process, Process]]:
    async with AsyncExitStack() as stack:
        one, other = [await stack.enter_async_context(process(own_valkey.url)) for _ in range(2)]
        yield one, other


async def test_the_other_learns_who_rests(both):
    """Within its poll, without having asked it; and lets it rest for as long."""
    one, other = both
    one.fleet.rules = LONG
    one.falls_ill()
    await other.until(rests=True)
    rest, theirs = one.fleet.rest(A.name), other.fleet.rest(A.name)
    assert theirs.strikes == 1 and theirs.left_s == pytest.approx(rest.left_s, abs=10)
    assert not await other.fleet.admit(A)


async def test_one_call_over_both_tries_it_and_both_learn_that_it_is_back(both):
    """Though its rest is over when it is tried, as it always is: no second trial has to find out."""
    one, other = both
    one.fleet.rules = other.fleet.rules = SHORT
    one.falls_ill()
    await one.told()
    await other.fleet.learn()
    assert other.fleet.rest(A.name)
    await one.until(rests=False)
    await other.until(rests=False)
    trial = [await p.fleet.admit(A) for p in (one, other, one, other)]
    assert trial == [True, False, False, False]
    one.begin().answers()
    await one.told()
    await other.fleet.learn()
    assert other.fleet.is_well(A.name) and one.fleet.is_well(A.name)


async def test_a_trial_that_fails_is_a_longer_rest_for_both(both):
    """The rest grows with the trials of all, not with each one's own."""
    one, other = both
    one.fleet.rules = other.fleet.rules = SHORT
    one.falls_ill()
    await one.told()
    await other.fleet.learn()
    await other.until(rests=False)
    assert await other.fleet.admit(A)
    other.begin().fails()
    await other.told()
    await one.fleet.learn()
    assert one.fleet.rest(A.name).strikes == other.fleet.rest(A.name).strikes == 2


async def test_a_trial_that_nobody_waits_for_is_free_for_the_other(both):
    """At once, not when its lease is over."""
    one, other = both
    one.fleet.rules = other.fleet.rules = SHORT
    one.falls_ill()
    await one.told()
    await other.fleet.learn()
    await one.until(rests=False)
    await other.until(rests=False)
    assert await one.fleet.admit(A)
    one.begin().is_left()
    await one.told()
    assert await other.fleet.admit(A)


async def test_who_fell_ill_again_is_not_taken_for_well(both):
    """What one has just seen is newer than what is told of the time before."""
    one, other = both
    one.fleet.rules = other.fleet.rules = LONG
    await one.store.rests.back(A.name)
    one.falls_ill()
    await one.fleet.learn()
    assert one.fleet.rest(A.name)
    await one.told()
    await other.fleet.learn()
    assert other.fleet.rest(A.name) and one.fleet.rest(A.name)


async def test_a_second_illness_is_learnt_by_who_had_not_heard_of_the_end_of_the_first(both):
    """It is as ill as before, but until later."""
    one, other = both
    one.fleet.rules = SHORT
    one.falls_ill()
    await one.told()
    await other.fleet.learn()
    await other.until(rests=False)
    one.fleet.rules = LONG
    await one.until(rests=False)
    assert await one.fleet.admit(A)
    one.begin().answers()
    one.falls_ill()
    await one.told()
    await other.fleet.learn()
    assert other.fleet.rest(A.name).left_s > 30


async def test_without_redis_each_goes_by_what_it_knows(both, own_valkey):
    """Nobody is told, nothing is forgotten, each may try; and a server that comes back empty heals nobody."""
    one, other = both
    one.fleet.rules = other.fleet.rules = LONG
    one.falls_ill()
    await one.told()
    await other.fleet.learn()
    own_valkey.stop()
    alone = Deployment("b/m", "b", "m")
    one.falls_ill(alone)
    await one.told()
    for each in both:
        await each.fleet.learn()
        assert each.fleet.rest(A.name)
    assert one.fleet.rest(alone.name) and other.fleet.rest(alone.name) is None
    own_valkey.start()
    for each in both:
        await until_back(each.store)
        await each.fleet.learn()
        assert each.fleet.rest(A.name)


async def test_without_redis_each_lets_one_call_try(both, own_valkey):
    """One in each process, not all that come."""
    one, other = both
    one.fleet.rules = other.fleet.rules = SHORT
    own_valkey.stop()
    for each in both:
        each.falls_ill()
        await each.until(rests=False)
        assert [await each.fleet.admit(A) for _ in range(3)] == [True, False, False]
        each.begin().answers()
        assert each.fleet.is_well(A.name)


async def test_names_that_clients_make_up_are_bounded(both, monkeypatch):
    """In Redis, and in who learns them; those that rest longest are kept."""
    one, other = both
    monkeypatch.setattr("gateway.engine.fleet.MOST_REMEMBERED", 10)
    one.store.rests._most = 5
    one.fleet.rules = Rules(failures=1, rest_s=60.0)
    for n in range(30):
        one.falls_ill(Deployment(f"p/{n}", "p", f"{n}"))
    one.falls_ill(Deployment("p/" + "x" * rests.LONGEST_NAME, "p", "x"))
    await one.told()
    await other.fleet.learn()
    assert len(other.fleet.conditions(100)) == 5
    assert len(one.fleet.conditions(100)) <= 10
