"""What a joined or buffered answer costs, what is kept of it, and what is left when its client has gone."""

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.usage import Usage
from gateway.middleware import rescue
from tests.calls import a_body, a_call, chunks_of
from tests.http.test_midstream import BREAKS, MODES, ROLE, event
from tests.lean import Lean
from tests.places import RETRY, places
from tests.script import Cut, Events, Floods, Raw, Says, Silent, Stalls
from tests.steady import SteadyLoop

KEY = "test-key-0123456789abcdef"
LIMITED = {"keys": [{"name": "k", "key": KEY, "limits": {"concurrent": 2, "tokens_per_minute": 100_000}}]}
LIMITS = ({"use": "auth"}, {"use": "limits"}, {"use": "cost"}, RETRY)
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"


# ── Money ────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_both_attempts_are_paid_each_at_its_own_price():
    """The client is told the sum of what they used, limits count it, and the cost is what it comes to."""
    async with places(midstream="continue", chain=LIMITS, more=LIMITED) as at:
        at.a.will(BREAKS["cut"])
        at.b.will(Says("three", prompt_tokens=30, completion_tokens=4))
        told = await at.stream(key=KEY, stream_options={"include_usage": True})
        first, second = (tried.usage for tried in told.receipt.tried)
        assert first.estimated and first.completion_tokens == 2
        assert second == Usage(30, 4)
        assert told.receipt.usage == first + second and told.receipt.usage.estimated
        assert told.usage["total_tokens"] == told.receipt.usage.total_tokens and told.usage["estimated"]
        cost_nusd = first.prompt_tokens * 1_000 + 2 * 2_000 + 30 * 10_000 + 4 * 20_000
        assert (told.receipt.cost_nusd, told.cost) == (cost_nusd, f"{cost_nusd / 10**9:.9f}")
        (window,) = at.gateway.live._process.limiter._windows.values()
        assert window.total == told.receipt.usage.total_tokens


@pytest.mark.parametrize(("mode", "step"), [("buffer", BREAKS["cut"]), ("restart", Cut(" \nx", after_events=2))])
async def test_an_attempt_that_gave_the_client_nothing_costs_and_is_not_counted(mode, step):
    """It was paid for: the cost has it. It is no part of the answer: usage and limits have not."""
    async with places(midstream=mode, chain=LIMITS, more=LIMITED) as at:
        at.a.will(step)
        at.b.will(Says("three", prompt_tokens=30, completion_tokens=4))
        told = await at.stream(key=KEY)
        assert told.receipt.tried[0].wasted and told.receipt.usage == Usage(30, 4)
        wasted = told.receipt.tried[0].usage
        cost_nusd = wasted.prompt_tokens * 1_000 + wasted.completion_tokens * 2_000 + 30 * 10_000 + 4 * 20_000
        assert told.receipt.cost_nusd == cost_nusd
        (window,) = at.gateway.live._process.limiter._windows.values()
        assert window.total == 34


async def test_a_stream_that_nobody_went_on_with_is_paid_as_far_as_it_came():
    """Of two halves both, though neither upstream said what it used."""
    async with places(midstream="continue", chain=(*LIMITS[:-1], {**RETRY, "attempts": 2}), more=LIMITED) as at:
        at.a.will(BREAKS["cut"])
        at.b.will(Cut("three four", after_events=2))
        told = await at.stream(key=KEY)
        used = [tried.usage for tried in told.receipt.tried]
        assert told.is_broken and told.receipt.usage == used[0] + used[1] and all(one.estimated for one in used)
        (window,) = at.gateway.live._process.limiter._windows.values()
        assert window.total == told.receipt.usage.total_tokens


async def test_the_log_says_what_was_joined(capfd):
    """Whoever wonders about a style that changes in mid-sentence finds why."""
    chain = ({"use": "log", "format": "json"}, RETRY)
    async with places(midstream="continue", chain=chain) as at:
        at.a.will(BREAKS["cut"])
        await at.stream()
        await at.gateway.settle()
        (line,) = [json.loads(line) for line in capfd.readouterr().out.splitlines() if '"chat"' in line]
    assert (line["joined"], line["failed"]) == (["continue b/m-b"], ["a/m-a Broke 200"])
    assert (line["deployment"], line["outcome"], line["attempts"]) == ("b/m-b", "finished", 2)


@pytest.mark.parametrize("mode", ["continue", "buffer"])
async def test_a_joined_answer_is_not_given_again(mode):
    """It was a makeshift; an answer that one model gave whole is kept, whoever failed before."""
    async with places(midstream=mode, chain=({"use": "cache"}, RETRY)) as at:
        at.a.will(BREAKS["cut"])
        assert (await at.stream()).is_whole
        again = await at.stream()
        assert again.receipt.cache == {"continue": "miss", "buffer": "hit"}[mode]


# ── Buffers ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_buffer_has_an_end(monkeypatch):
    """What is longer is shown as it comes from there on; if it breaks then, the client is told."""
    monkeypatch.setattr(rescue, "MOST_HELD_BYTES", 100_000)
    async with places(midstream="buffer") as at:
        at.a.will(Floods(1), Cut("x" * 200_000 + " y z", after_events=3))
        told = await at.stream()
        assert told.is_whole and len(told.text) > 2**19
        told = await at.stream()
        assert told.is_broken and len(told.text) > 200_000 and at.b.asked == 0


async def test_a_long_answer_is_not_gone_on_with(monkeypatch):
    """All of it would have to be kept here, and sent along."""
    monkeypatch.setattr(rescue, "MOST_CONTINUED_CHARS", 5)
    async with places(midstream="continue") as at:
        at.a.will(BREAKS["cut"])
        assert (await at.stream()).is_broken and at.b.asked == 0


# ── The client leaves ────────────────────────────────────────────────────────────────────────────────────────────


STALLS = Stalls("three four five", after_events=3)
COUNTED = Events(ROLE, event(content="one two ", usage={"prompt_tokens": 10, "completion_tokens": 2}), between_s=0)
"""Some say what they have used with every word."""
LEFT = {
    "fail": (BREAKS["stall"], None),
    "buffer": (BREAKS["stall"], None),
    "buffer, in the second": (BREAKS["cut"], STALLS),
    "restart": (BREAKS["stall"], None),
    "restart, in the second": (Cut(" \nx", after_events=2), STALLS),
    "continue": (BREAKS["stall"], None),
    "continue, before the second speaks": (BREAKS["cut"], Silent()),
    "continue, in the second": (BREAKS["cut"], STALLS),
    "continue, when the first had told its usage": (COUNTED, STALLS),
}


@pytest.mark.parametrize("when", LEFT)
async def test_a_client_that_leaves_leaves_nothing_behind(when):
    """Whichever upstream is asked is stopped, the call ends once, and its place and its tokens come back."""
    first, second = LEFT[when]
    async with places(midstream=when.partition(",")[0], chain=LIMITS, more=LIMITED) as at:
        at.a.will(first)
        at.b.will(*[second] if second else [])
        last = at.b if second else at.a
        client = await Lean.open(at.gateway.url)
        client.send(key=KEY, stream=True)
        await last.until(lambda: last.asked and (isinstance(second, Silent) or events_of(last) == 3))
        await asyncio.sleep(0.05)
        in_flight = {one.name: one.in_flight for one in at.gateway.live.fleet.conditions(100)}
        assert in_flight == ({"a/m-a": 0, "b/m-b": 1} if second else {"a/m-a": 1})
        client.close()
        await last.until(lambda: last.gone)
        receipt = await at.receipt()
        assert (receipt.outcome, len(receipt.tried)) == ("abandoned", 2 if second else 1)
        (window,) = at.gateway.live._process.limiter._windows.values()
        assert window.total == receipt.usage.total_tokens and not at.gateway.live._process.limiter._live
        used = [tried.usage for tried in receipt.tried if not tried.wasted]
        assert receipt.usage.total_tokens == sum(usage.total_tokens for usage in used) and receipt.usage.estimated
        assert receipt.cost_nusd is not None
        fleet = at.gateway.live.fleet
        assert not any(one.in_flight for one in fleet.conditions(100))


async def test_a_client_that_leaves_at_the_joint_leaves_a_whole_account():
    """The second had spoken, and none of it was taken yet."""
    async with places(midstream="continue", chain=({"use": "cost"}, RETRY)) as at:
        at.a.will(BREAKS["cut"])
        at.b.will(STALLS)
        gateway = at.gateway.live.gateway
        asked = a_body(stream=True)
        call = a_call(clock=gateway.clock, body=asked, route=gateway.routes.find("mock"), stream=True)
        async with gateway.engine.open(call) as reply:
            async for chunk in chunks_of(reply):
                if b"x-gateway-seam" in chunk.data:
                    break
        first, second = (tried.usage for tried in call.receipt.tried)
        assert call.receipt.usage == first + second and (await at.receipt()).outcome == "abandoned"


def events_of(upstream):
    return max((connection.events for connection in upstream.connections), default=0)


# ── Any text, cut anywhere ───────────────────────────────────────────────────────────────────────────────────────


MARK = "⟂ and so on"
"""What the second upstream says."""
TEXTS = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="⟂"), max_size=8), min_size=1, max_size=8)
CUTS = st.floats(0, 1)


def served(pieces, share):
    """Return a stream of these pieces, cut after a share of its bytes."""
    usage = b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[],"usage":'
    usage += b'{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}\n\n'
    said = [ROLE, *(event(content=piece) for piece in pieces), event("stop"), usage, b"data: [DONE]\n\n"]
    body = b"".join(said)
    return Raw(HEAD + body[: round(share * len(body))])


def is_honest(told, text, mode):
    """Tell whether a client knows from what it was told what it has."""
    if told.seams:
        shown, mark, rest = told.text.partition("⟂")
        joined = told.is_whole and len(told.seams) == 1 and mark + rest == MARK and text.startswith(shown)
        return joined and (mode == "continue" or (mode == "restart" and not shown.strip()))
    if told.error is not None:
        return told.is_broken and text.startswith(told.text) and mode in ("fail", "restart")
    return told.is_whole and told.text in (text, MARK)


@pytest.mark.parametrize("mode", MODES)
def test_a_client_gets_one_answer_or_is_told(mode):
    """For any text in any pieces, cut at any byte: all of it; its beginning and one continuation, marked; or its
    beginning and an error, without a finish and `[DONE]`."""

    @settings(max_examples=60)
    @given(TEXTS, CUTS, st.booleans())
    def holds(pieces, share, echoes):
        runner.run(story(pieces, share, echoes))

    async def story(pieces, share, echoes):
        at.a.script.clear()
        at.b.script.clear()
        at.a.will(served(pieces, share))
        at.b.will(lambda asked: echo(asked) + MARK if echoes else MARK)
        told = await at.stream()
        assert is_honest(told, "".join(pieces), mode), (pieces, share, told.raw)

    with asyncio.Runner(loop_factory=SteadyLoop) as runner:
        rig = places(midstream=mode, each={"b": {"prefill": "prefix"}})
        at = runner.run(rig.__aenter__())
        try:
            holds()
        finally:
            runner.run(rig.__aexit__(None, None, None))


def echo(asked):
    """Return the beginning that an upstream was to go on from, if it was."""
    last = asked.json["messages"][-1]
    return last["content"] if last["role"] == "assistant" else ""
