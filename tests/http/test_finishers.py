"""What becomes of an answer whose client has left, as its route wants: it is stopped, or read to its end."""

import asyncio

import pytest

from gateway.core.usage import Usage
from tests.lean import Lean
from tests.places import RETRY, places
from tests.script import Says, ScriptedUpstream, Silent, Slow, Stalls

KEY = "test-key-0123456789abcdef"
LIMITED = {"keys": [{"name": "k", "key": KEY, "limits": {"concurrent": 1, "tokens_per_minute": 100_000}}]}
LIMITS = ({"use": "auth"}, {"use": "limits"}, {"use": "cost"}, RETRY)
WORDS = "one two three four"


async def leave(at, upstream: ScriptedUpstream, *, stream: bool, reads: bool) -> None:
    """Ask, wait for the upstream to be asked, perhaps for its first word, and leave."""
    client = await Lean.open(at.gateway.url)
    client.send(key=KEY, stream=stream)
    await upstream.until(lambda: upstream.asked)
    if reads:
        await client.head()
        await client.read(10)
    client.close()


def places_taken(at):
    return len(at.gateway.live._process.limiter._live)


@pytest.mark.parametrize(("stream", "reads"), [(True, True), (True, False), (False, False)])
async def test_an_answer_is_read_to_its_end_for_its_usage(stream, reads):
    """Exact, not estimated; the call is one that its client left; its place comes back when it is over."""
    async with places("a", client_leaves="finish", chain=LIMITS, more=LIMITED) as at:
        at.a.will(Slow(WORDS, first_s=0.2, between_s=0.1))
        await leave(at, at.a, stream=stream, reads=reads)
        await asyncio.sleep(0.05)
        assert (places_taken(at), at.a.gone) == (1, [])
        assert (await at.gateway.ask(key=KEY)).status_code == 429, "the place is still taken"
        receipt = await at.receipt()
        assert (receipt.outcome, receipt.usage, at.a.gone) == ("abandoned", Usage(10, 4), [])
        assert receipt.cost_nusd == 10 * 1_000 + 4 * 2_000 and places_taken(at) == 0
        assert receipt.finish_reason == "stop"
        (window,) = at.gateway.live._process.limiter._windows.values()
        assert window.total == 14
        at.a.will(Says("Hello"))
        assert (await at.gateway.ask(key=KEY)).status_code == 200


@pytest.mark.parametrize(("stream", "reads"), [(True, True), (True, False), (False, False)])
async def test_it_is_stopped_at_once_where_nothing_else_is_said(stream, reads):
    """Tokens that nobody reads are not made."""
    async with places("a", chain=LIMITS, more=LIMITED) as at:
        at.a.will(Stalls(WORDS, 3) if reads else Silent())
        await leave(at, at.a, stream=stream, reads=reads)
        await at.a.until(lambda: at.a.gone)
        receipt = await at.receipt()
        assert (receipt.outcome, places_taken(at)) == ("abandoned", 0) and receipt.usage.estimated


@pytest.mark.parametrize(("step", "outcome"), [(Silent(), "failed"), (Stalls(WORDS, 3), "broken")])
async def test_what_goes_on_without_a_client_has_an_end(step, outcome):
    """`total`, as with a client; and what came of it is what would have come of it."""
    async with places("a", client_leaves="finish", timeouts={"total": "500ms"}, chain=LIMITS, more=LIMITED) as at:
        at.a.will(step)
        await leave(at, at.a, stream=True, reads=False)
        receipt = await at.receipt()
        await at.a.until(lambda: at.a.gone)
        assert receipt.outcome == outcome and places_taken(at) == 0
