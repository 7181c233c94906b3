"""Costs: known before the head where they can be, exact, and unknown rather than nothing."""

from types import SimpleNamespace
from typing import Any

import pytest

from gateway.core.call import Call
from gateway.core.errors import Busy
from gateway.core.price import Price
from gateway.core.receipt import Receipt
from gateway.core.reply import Chunk, Reply
from gateway.core.usage import Usage
from gateway.middleware.cost import CostOptions
from tests.standins import PLACE, StillClock, call_of

PRICE = Price.per_million(prompt=1, completion=10, cached=0.1)
USED = Usage(1000, 100, cached_tokens=500)
COST = 500_000 + 50_000 + 1_000_000


class Upstream:
    """Stands in for `retry` and all behind it: fails as often as told, then answers."""

    def __init__(self, *chunks: Chunk, failures: int = 0) -> None:
        self.chunks, self.failures = chunks, failures

    async def __call__(self, call: Call) -> Reply:
        for _ in range(self.failures):
            try:
                async with call.attempt(PLACE):
                    raise Busy("busy")
            except Busy as error:
                failure = error
        if not self.chunks:
            raise failure
        async with call.attempt(PLACE):
            return Reply.of(*self.chunks)


class Book:
    def __init__(self, price: Price | None) -> None:
        self.price = price
        self.asked: list[str] = []

    def at_hand(self, place: Any, /) -> Price | None:
        raise LookupError

    async def of(self, place: Any, /) -> Price | None:
        self.asked.append(f"{place.provider}/{place.model}")
        return place.price or self.price


async def receipt_of(upstream: Upstream, *, price: Price | None = PRICE, stream: bool = False, **end: Any) -> Receipt:
    """Send a call through the room and end it as the engine does."""
    call = call_of(StillClock(), stream=stream)
    resources: Any = SimpleNamespace(prices=Book(price))
    try:
        await CostOptions().build(resources)(call, upstream)
    except Busy:
        assert not upstream.chunks
    for name, value in end.items():
        setattr(call.receipt, name, value)
    assert call.end() is None, "the ending of this room has nothing to wait for"
    return call.receipt


async def test_a_whole_answer_is_priced_before_its_head_leaves():
    """So that the client can be told in a header."""
    call = call_of(StillClock())
    resources: Any = SimpleNamespace(prices=Book(PRICE))
    await CostOptions().build(resources)(call, Upstream(Chunk(b"{}", usage=USED)))
    assert call.receipt.cost_nusd == COST
    assert resources.prices.asked == ["openai/gpt-4o-mini"]


async def test_a_price_at_hand_is_waited_for_by_nobody():
    """Nearly every call's is."""

    class Known(Book):
        def at_hand(self, place: Any, /) -> Price | None:
            return self.price

    call = call_of(StillClock())
    resources: Any = SimpleNamespace(prices=Known(PRICE))
    await CostOptions().build(resources)(call, Upstream(Chunk(b"{}", usage=USED)))
    assert call.receipt.cost_nusd == COST and resources.prices.asked == []


@pytest.mark.parametrize("outcome", ["finished", "abandoned", "broken"])
async def test_a_stream_is_charged_for_what_was_used_however_it_ends(outcome):
    """What the upstream said until then, or what was estimated: a client that leaves does not leave its bill."""
    upstream = Upstream(Chunk(b"a"), Chunk(b"b"))
    assert (await receipt_of(upstream, stream=True, usage=USED, outcome=outcome)).cost_nusd == COST


async def test_an_answer_that_says_no_usage_is_charged_by_the_estimate():
    """Which is there when the call is over; until then the cost is unknown."""
    assert (await receipt_of(Upstream(Chunk(b"{}")), usage=USED)).cost_nusd == COST
    assert (await receipt_of(Upstream(Chunk(b"{}")))).cost_nusd is None


async def test_what_the_upstream_says_it_cost_beats_every_table():
    """It knows its discounts; zero is its word too."""
    for stated in (7, 0):
        answer = Chunk(b"{}", usage=Usage(1000, 100, stated_cost_nusd=stated))
        assert (await receipt_of(Upstream(answer))).cost_nusd == stated
        assert (await receipt_of(Upstream(answer), price=None)).cost_nusd == stated


@pytest.mark.parametrize("stream", [False, True])
async def test_an_unknown_price_is_an_unknown_cost(stream):
    """Never $0: a budget that believed it would never end."""
    receipt = await receipt_of(Upstream(Chunk(b"{}", usage=USED)), price=None, stream=stream, usage=USED)
    assert receipt.cost_nusd is None


async def test_failed_attempts_cost_nothing_and_the_one_that_answered_is_charged_once():
    """Retries are not billed again; a call that got no answer is free."""
    assert (await receipt_of(Upstream(Chunk(b"{}", usage=USED), failures=2))).cost_nusd == COST
    assert (await receipt_of(Upstream(failures=3))).cost_nusd == 0


async def test_an_answer_from_our_cache_costs_nothing():
    """Whether the cache stands further out or further in, and whatever usage the kept answer tells."""

    async def cached(call: Call) -> Reply:
        call.receipt.cache = "hit"
        return Reply(Chunk(b"{}", usage=USED))

    upstream: Any = cached
    assert (await receipt_of(upstream, usage=USED)).cost_nusd == 0
    assert (await receipt_of(upstream, usage=USED, stream=True)).cost_nusd == 0


async def test_a_cost_that_another_room_has_written_stays():
    """A third party's room further in may know better."""

    async def knows(call: Call) -> Reply:
        call.receipt.cost_nusd = 42
        return Reply(Chunk(b"{}", usage=USED))

    upstream: Any = knows
    assert (await receipt_of(upstream, usage=USED)).cost_nusd == 42


async def test_the_deployments_own_price_reaches_the_bill():
    """The attempt is made further in; its price comes out on the receipt."""
    call = call_of(StillClock())
    resources: Any = SimpleNamespace(prices=Book(None))

    async def upstream(call: Call) -> Reply:
        async with call.attempt(PLACE.__class__("x/y", "x", "y", price=PRICE)):
            return Reply(Chunk(b"{}", usage=USED))

    await CostOptions().build(resources)(call, upstream)
    assert call.receipt.cost_nusd == COST
