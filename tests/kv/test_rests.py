"""Which deployments rest, as all workers learn it: two stores on one server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from gateway.core.resources import News, Rest
from gateway.engine.clock import SystemClock
from gateway.kv.line import Line
from gateway.kv.redis import RedisStore
from gateway.kv.rests import LONGEST_NAME, MOST, PROBES, RESTS, RedisRests
from tests.kv.test_redis import eventually, store_of
from tests.valkey import Valkey

Pair = tuple[RedisStore, RedisStore]


@pytest.fixture
async def stores(own_valkey: Valkey) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(store_of(own_valkey.url, budget_s=2.0)) for _ in range(2)]
        yield first, second


async def resting(store: RedisStore) -> dict[str, Rest]:
    news = await store.rests.news()
    assert news is not None
    return news.resting


async def test_all_workers_learn_who_rests_and_for_how_long(stores: Pair) -> None:
    """As a duration: their clocks need not agree."""
    one, other = stores
    await one.rests.rest("groq/llama", 30, 2)
    assert await resting(other) == {"groq/llama": Rest(pytest.approx(30, abs=10), 2)}
    await other.rests.back("groq/llama")
    assert await resting(one) == {}


async def test_a_rest_is_over_by_itself(stores: Pair) -> None:
    """The worker that began it may be dead by then. What it struck does not count against the next one."""
    one, other = stores
    await one.rests.rest("a", 0.2, 7)

    async def over() -> bool:
        return await resting(other) == {}

    await eventually(over)
    await other.rests.rest("a", 30, 1)
    assert (await resting(one))["a"].strikes == 1


async def test_no_worker_shortens_what_another_has_found(stores: Pair) -> None:
    """Of two that fail at the same time, one may know less."""
    one, other = stores
    await one.rests.rest("a", 60, 1)
    await other.rests.rest("a", 5, 3)
    found = (await resting(one))["a"]
    assert (found.strikes, found.left_s) == (3, pytest.approx(60, abs=10))


async def test_all_workers_learn_that_it_is_back_also_when_its_rest_was_over(stores: Pair) -> None:
    """As it mostly is: it was tried when its rest had ended. The next rest has nothing to do with the one before."""
    one, other = stores
    await one.rests.rest("a", 0.05, 3)
    await one.rests.back("a")
    news = await other.rests.news()
    assert news == News({}, {"a": pytest.approx(0, abs=10)})
    await one.rests.rest("a", 30, 1)
    news = await other.rests.news()
    assert news == News({"a": Rest(pytest.approx(30, abs=10), 1)}, {})


async def test_one_of_all_workers_probes(stores: Pair) -> None:
    """A deployment that may be well again is not asked by a hundred workers at once to find out."""
    asked = [store.rests.may_probe("a", 30) for store in stores for _ in range(20)]
    assert sorted(await asyncio.gather(*asked)) == [False] * 39 + [True]
    assert await stores[1].rests.may_probe("b", 30)


@pytest.mark.parametrize("ending", ["back", "rest", "time", "given up"])
async def test_a_probe_is_free_again_when_it_is_over(ending: str, stores: Pair) -> None:
    """However it went, and also when nobody is left to say."""
    one, other = stores
    assert await one.rests.may_probe("a", 3 if ending == "time" else 30)
    match ending:
        case "back":
            await one.rests.back("a")
        case "rest":
            await one.rests.rest("a", 30, 2)
        case "given up":
            await other.rests.give_up("a")  # which is not his to give up
            assert not await other.rests.may_probe("a", 30)
            await one.rests.give_up("a")
        case _:
            assert not await other.rests.may_probe("a", 30)

    async def free() -> bool:
        return await other.rests.may_probe("a", 30)

    await eventually(free)


async def test_without_redis_each_worker_is_right_alone(own_valkey: Valkey) -> None:
    """Nobody is told, what was known stays known, everyone may find out for himself; and when Redis is back, all is."""
    async with store_of(own_valkey.url) as store:
        rests = store.rests
        await rests.rest("a", 60, 1)
        own_valkey.stop()
        await rests.rest("b", 60, 1)
        await rests.back("a")
        assert await rests.news() is None
        assert [await rests.may_probe("a", 60) for _ in range(2)] == [True, True]
        own_valkey.start()

        async def known() -> bool:
            return await rests.news() == News({}, {})

        await eventually(known)
        assert [await rests.may_probe("a", 60) for _ in range(2)] == [True, False]


async def test_names_without_end_do_not_fill_redis(own_valkey: Valkey) -> None:
    """Patterns let clients make names up: those that rest longest are kept, and none longer than any model's."""
    line = Line(own_valkey.url, SystemClock(), 2.0, use="rests", lost="nothing is told")
    await line.open()
    rests = RedisRests(line, most=3)
    for n in range(10):
        await rests.rest(f"openai/{n}", 60 + n, 1)
    await rests.rest("x" * (LONGEST_NAME + 1), 600, 1)
    assert list((await rests.news() or News({}, {})).resting) == ["openai/7", "openai/8", "openai/9"]
    assert await rests.may_probe("x" * (LONGEST_NAME + 1), 60)
    assert await line.ask("DBSIZE") == 2  # the rests, and what a line probes by
    await line.close()


async def test_rests_do_not_stay_in_redis_for_ever(stores: Pair) -> None:
    one, _ = stores
    await one.rests.rest("a", 60, 1)
    await one.rests.rest("b", 5, 1)
    await one.rests.may_probe("a", 60)
    for key in (RESTS, f"{PROBES}a"):
        assert 50_000 < await one._limits.ask("PTTL", key) <= 60_000


async def test_as_many_rests_as_are_kept_can_be_read(own_valkey: Valkey) -> None:
    """With the longest names there may be, in the time that there is for it."""
    async with store_of(own_valkey.url, budget_s=5.0) as slow, store_of(own_valkey.url) as store:
        for start in range(0, MOST, 500):
            names = (f"{n:0{LONGEST_NAME}}" for n in range(start, start + 500))
            await asyncio.gather(*(slow.rests.rest(name, 600, 1) for name in names))
        assert len(await resting(store)) == MOST
