"""Streams that break when the client has seen something: it is told the truth, and, where the route says so, more."""

import json

import pytest

from gateway.middleware.rescue import GO_ON
from tests.places import RETRY, places
from tests.script import Busy, Cut, Events, Fails, InBand, Says, Silent, Stalls, Tool

SHOWN = "one two "
"""What the first upstream says before it breaks."""
IDLE = {"a": {"timeouts": {"idle": "200ms"}}}
BREAKS = {
    "cut": Cut("one two three", after_events=3),
    "reset": Cut("one two three", after_events=3, resets=True),
    "stall": Stalls("one two three", after_events=3),
    "in-band error": InBand("one two"),
}
FLAGGED = InBand("one two", "that is not allowed", "content_filter")
MODES = ("fail", "restart", "continue", "buffer")


def event(finish=None, usage=None, **delta):
    """Return an event of an OpenAI stream."""
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_790_000_000, "model": "m"}
    return b"data: " + json.dumps({**head, "choices": [choice], "usage": usage}).encode() + b"\n\n"


ROLE = event(role="assistant", content="")


def cut(*said):
    """Return a stream of these deltas that ends without a finish."""
    return Events(ROLE, *(event(**delta) for delta in said), between_s=0)


def begun(asked):
    """Return the text that an upstream was told to go on from."""
    return next(m["content"] for m in reversed(asked.json["messages"]) if m["role"] == "assistant")


# ── What the client sees ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", BREAKS)
@pytest.mark.parametrize("mode", ["fail", "restart"])
async def test_what_cannot_be_rescued_is_told(mode, how):
    """An error, no finish, no `[DONE]`; nobody else is asked once words were shown."""
    async with places(each=IDLE, midstream=mode) as at:
        at.a.will(BREAKS[how])
        told = await at.stream()
        assert told.is_broken and (told.text, told.seams, at.b.asked) == (SHOWN, [], 0)
        assert (told.receipt.outcome, told.receipt.error) == ("broken", "Broke")
        assert told.receipt.usage.estimated and told.receipt.usage.completion_tokens == 2


@pytest.mark.parametrize("how", BREAKS)
async def test_a_broken_stream_is_gone_on_with(how):
    """One answer for the reader: one role, one id, one finish; the seam in a comment and on the receipt."""
    async with places(each=IDLE, midstream="continue") as at:
        at.a.will(BREAKS[how])
        at.b.will("three four")
        told = await at.stream()
        assert told.is_whole and told.text == "one two three four"
        assert told.seams == [": x-gateway-seam: continued by b/m-b after 8 characters"]
        assert len({(one["id"], one["created"], one["model"]) for one in told.chunks}) == 1
        assert sum("role" in choice["delta"] for choice in told.choices) == 1
        first, second = told.receipt.tried
        assert (first.error, second.error, second.why, first.wasted) == ("Broke", "", "continue", False)
        assert told.receipt.outcome == "finished"


@pytest.mark.parametrize("how", BREAKS)
async def test_a_buffered_stream_is_rescued_whole(how):
    """Nobody saw the first attempt, so there is no seam, and what it used is no part of the answer."""
    async with places(each=IDLE, midstream="buffer") as at:
        at.a.will(BREAKS[how])
        at.b.will("all of it")
        told = await at.stream(stream_options={"include_usage": True})
        assert told.is_whole and (told.text, told.seams) == ("all of it", [])
        first, second = told.receipt.tried
        assert (first.wasted, second.why, second.wasted) == (True, "retry", False)
        assert told.usage["completion_tokens"] == told.receipt.usage.completion_tokens == 3
        assert not told.receipt.usage.estimated and first.usage.completion_tokens == 2


@pytest.mark.parametrize("mode", MODES)
async def test_what_was_rejected_is_not_asked_elsewhere(mode):
    """A content filter's verdict is about the question; another model is no way around it."""
    async with places(midstream=mode) as at:
        at.a.will(FLAGGED)
        told = await at.stream()
        assert at.b.asked == 0 and "that is not allowed" in told.error["message"]
        if mode == "buffer":
            assert (told.status, told.text) == (400, "")
        else:
            assert told.is_broken and told.text == SHOWN


@pytest.mark.parametrize("mode", ["restart", "continue"])
@pytest.mark.parametrize("how", BREAKS)
async def test_white_space_is_not_yet_an_answer(mode, how):
    """Another begins anew; its own white space at the beginning is not added to what was shown."""
    breaks = BREAKS[how]
    blank = Events(ROLE, event(content=" \n"), breaks.message.encode()) if how == "in-band error" else None
    if blank is not None:
        blank.events[-1] = b'data: {"error": {"message": "no", "type": "server_error"}}\n\n'
    step = blank or type(breaks)(" \none", after_events=2, **({"resets": True} if how == "reset" else {}))
    async with places(each=IDLE, midstream=mode) as at:
        at.a.will(step)
        at.b.will(" all of it")
        told = await at.stream(stream_options={"include_usage": True})
        assert told.is_whole and told.text == " \nall of it"
        assert told.seams == [": x-gateway-seam: restarted by b/m-b after 2 characters"]
        first, second = told.receipt.tried
        assert (second.why, first.wasted) == ("restart", True)
        assert at.b.requests[0].json == {**at.a.requests[0].json, "model": "m-b"}
        assert told.usage["completion_tokens"] == 4, "the blank is paid for, and no part of the answer"


async def test_the_strictest_reader_sees_one_answer():
    """The official SDK's gathering helper, which joins whatever is said twice."""
    async with places(midstream="continue") as at:
        at.a.will(BREAKS["cut"])
        at.b.will(Says("three four", prompt_tokens=7, completion_tokens=2))
        ask = {"model": "mock", "messages": [{"role": "user", "content": "Hi"}]}
        options = {"include_usage": True}
        async with at.gateway.openai().chat.completions.stream(**ask, stream_options=options) as stream:
            final = await stream.get_final_completion()
        (choice,) = final.choices
        assert (choice.message.role, choice.message.content) == ("assistant", "one two three four")
        assert (choice.finish_reason, final.usage.completion_tokens) == ("stop", 4)


# ── What the second upstream is sent ─────────────────────────────────────────────────────────────────────────────


QUESTION = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]}]
FIELDS = {
    "messages": QUESTION,
    "temperature": 0.5,
    "stop": ["END"],
    "brand_new": {"deep": [1, 2.5]},
    "response_format": {"type": "text"},
    "n": 1,
}
BEGUN = {"role": "assistant", "content": "one two"}
INSTRUCTED = [{**BEGUN, "content": SHOWN}, {"role": "user", "content": GO_ON}]


@pytest.mark.parametrize(
    ("prefill", "added"), [("plain", [BEGUN]), ("prefix", [{**BEGUN, "prefix": True}]), ("none", INSTRUCTED)]
)
async def test_the_next_is_asked_to_go_on_from_what_was_shown(prefill, added):
    """All else is as the client wrote it; the room for the answer is smaller by what was said of it."""
    async with places(each={"b": {"prefill": prefill}}, midstream="continue") as at:
        at.a.will(BREAKS["cut"])
        await at.stream(**FIELDS, max_tokens=100, max_completion_tokens=2)
        asked = at.a.requests[0].json
        more = {"model": "m-b", "messages": [*QUESTION, *added], "max_tokens": 98, "max_completion_tokens": 1}
        assert asked["messages"] == QUESTION
        assert at.b.requests[0].json == {**asked, **more}


async def test_a_prefill_that_is_refused_is_said_in_words():
    """At the same place, within the budget of attempts; and it is not tried there again."""
    async with places(each={"b": {"prefill": "plain"}}, midstream="continue", chain=({**RETRY, "attempts": 5},)) as at:
        at.a.will(BREAKS["cut"], Busy(retry_after=5))  # or, on a busy machine, its turn might come before b's
        at.b.will(Fails(400), Cut("three four", 2), "five")
        told = await at.stream()
        assert told.is_whole and told.text == "one two three five"
        sent = [[m["role"] for m in asked.json["messages"]] for asked in at.b.requests]
        assert sent == [["user", "assistant"], *[["user", "assistant", "user"]] * 2]
        assert [tried.error for tried in told.receipt.tried] == ["Broke", "Rejected", "Broke", "Busy", ""]


async def test_a_refused_prefill_counts_as_an_attempt():
    """With two attempts, nobody is left to be asked in words: the first failure is told."""
    async with places(each={"b": {"prefill": "plain"}}, midstream="continue", chain=({**RETRY, "attempts": 2},)) as at:
        at.a.will(BREAKS["cut"])
        at.b.will(Fails(400))
        told = await at.stream()
        assert told.is_broken and "broke off" in told.error["message"] and at.b.asked == 1


DIALECTS = [
    ("anthropic", "m-b", [{"role": "assistant", "content": [{"type": "text", "text": SHOWN}]}, GO_ON]),
    ("anthropic", "claude-sonnet-4-5", [{"role": "assistant", "content": [{"type": "text", "text": "one two"}]}]),
    ("anthropic", "claude-opus-4-7", [{"role": "assistant", "content": [{"type": "text", "text": SHOWN}]}, GO_ON]),
    ("gemini", "gemini-2.5-flash", [{"role": "model", "parts": [{"text": SHOWN}]}, GO_ON]),
]


@pytest.mark.parametrize(("kind", "model", "added"), DIALECTS)
async def test_another_dialect_goes_on(kind, model, added):
    """By prefill for the Claudes that are known to take one, in words for all others."""
    each = {"b": {"target": f"b/{model}"}}
    async with places(kinds={"b": kind}, each=each, midstream="continue") as at:
        at.a.will(BREAKS["cut"])
        at.b.will("three")
        told = await at.stream()
        assert told.is_whole and told.text == "one two three"
        asked = at.b.requests[0].json
        first, *rest = asked["messages" if kind == "anthropic" else "contents"]
        assert first["role"] == "user" and len(rest) == len(added)
        assert [
            turn if isinstance(expected, dict) else expected for turn, expected in zip(rest, added, strict=True)
        ] == [expected if isinstance(expected, dict) else GO_ON for expected in added]
        assert rest[0] == added[0]
        if len(added) == 2:
            assert json.dumps(rest[1]).count(json.dumps(GO_ON)) == 1


@pytest.mark.parametrize("kind", ["anthropic", "gemini"])
@pytest.mark.parametrize("mode", ["fail", "continue", "buffer"])
async def test_a_stream_of_another_dialect_breaks_and_is_gone_on_with(kind, mode):
    """What is said of OpenAI's streams holds for translated ones."""
    async with places(kinds={"a": kind}, midstream=mode) as at:
        at.a.will(Cut("one two three", after_events={"anthropic": 4, "gemini": 2}[kind]))
        at.b.will("three")
        told = await at.stream()
        if mode == "fail":
            assert told.is_broken and told.text == SHOWN
        else:
            assert told.is_whole and told.text == {"continue": "one two three", "buffer": "three"}[mode]


# ── What is never gone on with ───────────────────────────────────────────────────────────────────────────────────


CALLED = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{"}}
BOUND = {
    "a tool call": cut({"content": "one"}, {"tool_calls": [CALLED]}),
    "a tool call alone": cut({"tool_calls": [CALLED]}),
    "a function call": cut({"function_call": {"name": "f", "arguments": "{"}}),
    "a refusal": cut({"refusal": "I cannot"}),
    "a refusal behind words": cut({"content": "one", "refusal": "I cannot"}),
    "a finish": Events(
        ROLE, event("stop", content="one"), b'data: {"error": {"message": "no", "type": "server_error"}}\n\n'
    ),
}


@pytest.mark.parametrize("what", BOUND)
async def test_what_only_its_beginner_can_end_is_not_gone_on_with(what):
    """Half a tool call is no text, and an answer that has ended has ended."""
    async with places(midstream="continue") as at:
        at.a.will(BOUND[what])
        told = await at.stream(tools=[{"type": "function", "function": {"name": "f"}}])
        assert told.error is not None and "[DONE]" not in told.raw and at.b.asked == 0


@pytest.mark.parametrize(
    "fields", [{"response_format": {"type": "json_object"}}, {"response_format": {"type": "json_schema"}}, {"n": 2}]
)
async def test_structured_and_manifold_answers_are_not_gone_on_with(fields):
    """Two halves by two models are no JSON that anyone asked for."""
    async with places(midstream="continue") as at:
        at.a.will(BREAKS["cut"])
        told = await at.stream(**fields)
        assert told.is_broken and at.b.asked == 0


async def test_a_continuation_may_call_a_tool():
    """It is another model's own decision, told from its beginning."""
    async with places(midstream="continue") as at:
        at.a.will(BREAKS["cut"])
        at.b.will(Tool("f", {"x": 1}))
        told = await at.stream(tools=[{"type": "function", "function": {"name": "f"}}])
        assert told.is_whole and told.finishes == ["tool_calls"]
        arguments = "".join(c["delta"]["tool_calls"][0]["function"]["arguments"] for c in told.choices[-3:-1])
        assert json.loads(arguments) == {"x": 1}


@pytest.mark.parametrize("mode", ["restart", "continue"])
async def test_thoughts_are_something_that_was_shown(mode):
    """Nobody goes on from another's thoughts: `continue` has the question answered anew, `restart` tells the client.

    The second's own thoughts are not shown: they would be joined to the first's.
    """
    thinks = [
        {"reasoning_content": "Well, "},
        {"thinking_blocks": [{"type": "thinking", "signature": "s", "index": 0}]},
    ]
    async with places(midstream=mode) as at:
        at.a.will(cut(*thinks))
        at.b.will(
            Events(ROLE, event(reasoning_content="Hm."), event(content="yes"), event("stop"), b"data: [DONE]\n\n")
        )
        told = await at.stream()
        thoughts = "".join(choice["delta"].get("reasoning_content") or "" for choice in told.choices)
        assert thoughts == "Well, "
        if mode == "restart":
            assert told.is_broken and at.b.asked == 0
        else:
            assert told.is_whole and told.text == "yes" and "restarted by" in told.seams[0]
            assert told.receipt.tried[0].wasted


# ── Joints ───────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("shown", "prefill", "answer", "whole"),
    [
        ("one two ", "prefix", lambda asked: f"{begun(asked)} three", "one two three"),
        ("one two ", "prefix", lambda asked: f"{begun(asked)}\nthree", "one two three"),
        ("\n\none two", "prefix", lambda asked: f"{begun(asked).strip()} three", "\n\none two three"),
        ("a rather long beginning ", "none", lambda asked: f"{begun(asked)}, three", "a rather long beginning , three"),
        ("one two ", "none", "one two three", "one two one two three"),
        ("one two ", "plain", "  three", "one two three"),
        ("one two ", "plain", " \n three", "one two three"),
        ("one two", "plain", "  three", "one two  three"),
        ("one tw", "plain", "o three", "one two three"),
    ],
)
async def test_nothing_is_shown_twice_and_no_blank_is_doubled(shown, prefill, answer, whole):
    """Mistral repeats what it goes on from, and others may if it is long; a short text may be meant twice."""
    async with places(each={"b": {"prefill": prefill}}, midstream="continue") as at:
        at.a.will(cut({"content": shown}))
        at.b.will(answer)
        told = await at.stream()
        assert told.is_whole and told.text == whole


async def test_a_continuation_that_breaks_is_gone_on_with():
    """The third goes on from what both have said, and the sum of all three is told."""
    async with places("abc", midstream="continue") as at:
        at.a.will(BREAKS["cut"])
        at.b.will(Cut("three four five", after_events=3))
        at.c.will(Says("five", prompt_tokens=50, completion_tokens=1))
        told = await at.stream(stream_options={"include_usage": True})
        assert told.is_whole and told.text == "one two three four five"
        assert [seam.rpartition(": ")[2] for seam in told.seams] == [
            "continued by b/m-b after 8 characters",
            "continued by c/m-c after 19 characters",
        ]
        assert begun(at.c.requests[0]) == "one two three four "
        used = [tried.usage for tried in told.receipt.tried]
        assert told.usage["total_tokens"] == sum(usage.total_tokens for usage in used)


@pytest.mark.parametrize("step", [Fails(500), Fails(400), Silent(), BREAKS["cut"]])
async def test_where_nobody_can_go_on_the_first_failure_is_told(step):
    """What the second said of itself is not what the client has to know; its words are kept."""
    each = {"a": IDLE["a"], "b": {"timeouts": {"first_token": "200ms"}}}
    async with places(each=each, midstream="continue", chain=({**RETRY, "attempts": 2},)) as at:
        at.a.will(BREAKS["stall"])
        at.b.will(step)
        told = await at.stream()
        assert told.is_broken and told.text.startswith(SHOWN) and (at.a.asked, at.b.asked) == (1, 1)
        shown = step is BREAKS["cut"]
        assert ("timeouts.idle" in told.error["message"]) is not shown
        assert bool(told.seams) is shown and told.receipt.outcome == "broken"


async def test_attempts_are_one_budget_before_and_after_the_first_word():
    """Two failed before anything was said; with three in all, nobody goes on."""
    async with places("abc", midstream="continue") as at:
        at.a.will(Fails(500))
        at.b.will(Fails(500))
        at.c.will(BREAKS["cut"])
        told = await at.stream()
        assert told.is_broken and (at.a.asked, at.b.asked, at.c.asked) == (1, 1, 1)


@pytest.mark.parametrize("mode", ["continue", "buffer"])
async def test_when_the_time_is_over_nobody_is_asked(mode):
    """`total` is the call's own, not each attempt's; and that it ran out does not speak against the deployment."""
    async with places(midstream=mode, timeouts={"total": "400ms"}) as at:
        at.a.will(BREAKS["stall"])
        told = await at.stream()
        (tried,) = told.receipt.tried
        assert "timeouts.total" in told.error["message"] and not tried.unhealthy


async def test_a_route_with_one_deployment_asks_it_again():
    """After a moment: what broke may stand again."""
    async with places("a", midstream="continue") as at:
        at.a.will(BREAKS["cut"], "three")
        told = await at.stream()
        assert told.is_whole and told.text == "one two three"
        assert told.seams == [": x-gateway-seam: continued by a/m-a after 8 characters"]


# ── Other surfaces ───────────────────────────────────────────────────────────────────────────────────────────────

MESSAGE = {"model": "mock", "max_tokens": 100, "messages": [{"role": "user", "content": "Hi"}], "stream": True}
RESPONSE = {"model": "mock", "input": "Hi", "stream": True}
OF_SURFACES = [
    ("/v1/messages", MESSAGE, "message_stop", "content_block_delta"),
    ("/v1/responses", RESPONSE, "response.completed", "response.output_text.delta"),
]


def said_in(told, delta):
    """The text of a stream of another surface."""
    events = [json.loads(line[6:]) for line in told.split("\n") if line.startswith("data: {")]
    deltas = [event["delta"] for event in events if event["type"] == delta]
    return "".join(one if isinstance(one, str) else one.get("text", "") for one in deltas)


@pytest.mark.parametrize("kind", ["openai", "anthropic"])
@pytest.mark.parametrize(("path", "body", "last", "delta"), OF_SURFACES)
async def test_streams_of_other_surfaces_are_gone_on_with_too(kind, path, body, last, delta):
    """One answer in the client's own words, also where the upstream speaks them itself; the joint in a comment."""
    async with places(kinds={"a": kind, "b": kind}, midstream="continue") as at:
        at.a.will(BREAKS["in-band error"])
        at.b.will("three four")
        told = (await at.gateway.post(path, body)).text
        assert said_in(told, delta) == "one two three four"
        assert told.count(f'"type":"{last}"') == 1 and "event: error" not in told
        assert ": x-gateway-seam: continued by b/m-b" in told
        receipt = await at.receipt()
        assert receipt.outcome == "finished" and [tried.why for tried in receipt.tried] == ["first", "continue"]


@pytest.mark.parametrize(("path", "body", "last", "delta"), OF_SURFACES)
async def test_a_break_of_another_surface_that_nobody_mends_is_told(path, body, last, delta):
    """In its own words, without its end."""
    async with places(midstream="continue") as at:
        at.a.will(BREAKS["cut"], *[Fails(500)] * 3)
        at.b.will(*[Fails(500)] * 3)
        told = (await at.gateway.post(path, body)).text
        assert said_in(told, delta) == SHOWN and last not in told and '"error"' in told


async def test_what_no_chat_completion_can_say_goes_as_it_came():
    """And is not joined: the break is told."""
    async with places(kinds={"a": "anthropic", "b": "anthropic"}, midstream="continue") as at:
        at.a.will(BREAKS["in-band error"])
        tool = {"type": "web_search_20250305", "name": "web_search"}
        told = (await at.gateway.post("/v1/messages", {**MESSAGE, "tools": [tool]})).text
        assert (
            said_in(told, "content_block_delta").strip() == "one two" and "message_stop" not in told and at.b.asked == 0
        )
        assert at.a.requests[0].json["tools"] == [tool]


async def test_fields_of_other_surfaces_do_not_reach_who_refuses_them():
    """A Messages client's cache marks are dropped for an upstream that knows none, joined or not."""
    async with places(midstream="continue") as at:
        marked = [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral"}}]
        await at.gateway.post("/v1/messages", {**MESSAGE, "system": marked})
        assert b"cache_control" not in at.a.requests[0].body
