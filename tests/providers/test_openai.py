"""What goes through is what came: bytes are kept, faults mended, ends believed only when they were said."""

import json
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.lib.streaming.chat import ChatCompletionStreamState
from openai.types.chat import ChatCompletionChunk

from gateway.core.call import Body
from gateway.core.errors import BadRequest, Broke, Rejected, Unreachable, UpstreamFailed
from gateway.core.reply import Chunk
from gateway.core.secret import Secret
from gateway.core.usage import Usage
from gateway.providers.openai import OpenAIOptions
from gateway.wire import sse
from tests.providers.test_golden import CASES, Case, attempt, check_chunks, gathered

HEAD = {"id": "c1", "object": "chat.completion.chunk", "created": 1_790_000_000, "model": "m"}
DONE = b"data: [DONE]\n\n"
USAGE = {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}
STREAMED = attempt({"stream": True, "messages": []}, "m")


def openai(**options):
    return OpenAIOptions(**{"api_key": Secret("sk-ours"), **options}).build("openai")


def event(delta: dict[str, Any] | None = None, finish: str | None = None, index: int = 0, **more: Any) -> bytes:
    choices = [] if delta is None else [{"index": index, "delta": delta, "logprobs": None, "finish_reason": finish}]
    return b"data: " + json.dumps({**HEAD, "choices": choices, **more}).encode() + b"\n\n"


def read(*pieces: bytes, vendor: str = "", attempt=STREAMED) -> list[Chunk]:
    reader = openai(vendor=vendor).reader(attempt)
    chunks: list[Chunk] = []
    for piece in pieces:
        chunks += reader.feed(piece)
        if reader.finished:
            break
    return chunks + reader.end()


OPEN = event({"role": "assistant", "content": ""})
HI = event({"content": "Hi"})
STOP = event({}, "stop")


# ── Requests ─────────────────────────────────────────────────────────────────────────────────────────────────────


def sent(raw: bytes, vendor: str = "", stream: bool = False) -> dict[str, msgspec.Raw]:
    fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    call = attempt({"messages": []}, "real-model").but(stream=stream, body=Body(raw, fields))
    return msgspec.json.decode(openai(vendor=vendor).request(call).body, type=dict[str, msgspec.Raw])


def test_all_fields_but_the_model_go_on_byte_for_byte():
    """Unknown ones too, with their spaces, their number formats and their unknown insides."""
    raw = b'{"model":"house","messages":[ {"role" : "user"} ],"temperature":0.10,"new_thing":{"a": [1.0e3]},"seed":4}'
    body = sent(raw)
    assert bytes(body.pop("model")) == b'"real-model"'
    assert {name: bytes(value) for name, value in body.items()} == {
        "messages": b'[ {"role" : "user"} ]',
        "temperature": b"0.10",
        "new_thing": b'{"a": [1.0e3]}',
        "seed": b"4",
    }


def test_a_stream_is_always_asked_for_its_usage():
    """Without it nobody knows the cost; the client's own options stay beside it."""
    raw = b'{"model":"x","stream":true,"stream_options":{"include_usage":false,"include_obfuscation":false}}'
    said = json.loads(bytes(sent(raw, stream=True)["stream_options"]))
    assert said == {"include_usage": True, "include_obfuscation": False}
    assert "stream_options" in sent(b'{"model":"x","stream":true,"stream_options":null}', stream=True)
    assert "stream_options" not in sent(b'{"model":"x"}')
    assert "stream_options" not in sent(raw, vendor="mistral", stream=True)


def test_ids_of_tool_calls_that_were_made_elsewhere_are_written_as_mistral_wants_them():
    """Nine letters and digits; a history may begin at another provider, and a fallback goes on with it."""
    calls = [{"id": id, "function": {"name": "f", "arguments": "{}"}} for id in ("call_from_openai", "aB3dE5gH7")]
    messages: list[Any] = [{"role": "user", "content": "tool_call"}, {"role": "assistant", "tool_calls": calls}]
    messages += [{"role": "tool", "tool_call_id": call["id"], "content": "x"} for call in calls]
    body = sent(json.dumps({"model": "x", "messages": messages}).encode(), vendor="mistral")
    said = json.loads(bytes(body["messages"]))
    first, second = (call.pop("id") for call in said[1]["tool_calls"])
    assert re.fullmatch(r"[a-zA-Z0-9]{9}", first)
    assert second == "aB3dE5gH7"
    assert [message["tool_call_id"] for message in said[2:]] == [first, second]
    for call in calls:
        del call["id"]
    assert said[:2] == messages[:2]


@pytest.mark.parametrize(
    "messages", [[{"tool_call_id": 7}], [{"tool_calls": [7]}], [{"tool_calls": {}}], {"tool_calls": 1}]
)
def test_messages_that_are_none_are_refused(messages):
    """Where they have to be read; whoever passes them on leaves it to the upstream."""
    with pytest.raises(BadRequest) as refused:
        sent(json.dumps({"model": "x", "messages": messages}).encode(), vendor="mistral")
    assert refused.value.param == "messages"


def test_an_answer_that_mistral_says_has_failed_is_none():
    """Its finish reason `error` is no finish."""
    with pytest.raises(Unreachable, match='ended its answer with "error"'):
        read(OPEN, HI, event({}, "error"), vendor="mistral")


def test_stream_options_that_are_none_are_refused():
    """Rather than replaced by ours."""
    with pytest.raises(BadRequest) as refused:
        sent(b'{"model":"x","stream_options":7}', stream=True)
    assert refused.value.param == "stream_options"


def test_fields_are_renamed_where_a_vendor_knows_them_by_another_name():
    """Ollama ignores `max_completion_tokens` in silence, and Mistral answers 422."""
    body = sent(b'{"model":"x","max_completion_tokens":7,"seed":4,"user":"u"}', vendor="mistral")
    assert {name: bytes(value) for name, value in body.items() if name != "model"} == {
        "max_tokens": b"7",
        "random_seed": b"4",
    }
    both = sent(b'{"model":"x","max_completion_tokens":7,"max_tokens":3}', vendor="ollama")
    assert (bytes(both["max_tokens"]), "max_completion_tokens" in both) == (b"3", False)


def test_reasoning_that_the_client_lost_is_sent_back_empty():
    """DeepSeek answers 400 to a turn that called tools without it; what the client kept is left alone."""
    kept = b'{"role":"assistant","tool_calls":[],"reasoning_content":"x"}'
    raw = b'{"model":"x","messages":[{"role":"user","n":1.50},{"role":"assistant","tool_calls":[]},' + kept + b"]}"
    messages = bytes(sent(raw, vendor="deepseek")["messages"])
    assert messages == (
        b'[{"role":"user","n":1.50},{"role":"assistant","tool_calls":[],"reasoning_content":""},' + kept + b"]"
    )
    assert b"reasoning_content" not in bytes(sent(raw.replace(b',"reasoning_content":"x"', b""))["messages"])


def test_no_header_of_the_client_leaves_the_gateway():
    """Its credential is ours to check, not an upstream's to see."""
    request = openai(organization="org", project="p", headers={"X-Title": "sea"}).request(STREAMED)
    assert request.headers == {
        "content-type": "application/json",
        "authorization": "Bearer sk-ours",
        "openai-organization": "org",
        "openai-project": "p",
        "x-title": "sea",
    }
    assert "authorization" not in openai(api_key=Secret(), base_url="http://localhost:1/v1").request(STREAMED).headers


def test_one_requests_headers_are_not_the_nexts():
    """The trace's id is added to them on the way out."""
    provider = openai()
    provider.request(STREAMED).headers["traceparent"] = "00-1"
    assert "traceparent" not in provider.request(STREAMED).headers


# ── Streams ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_clean_events_keep_their_bytes_and_go_on_together():
    """Decoding and encoding each would double what a stream costs, and could change what we do not know."""
    odd = b'data: {"id":"c1", "object":"chat.completion.chunk","created":1790000000,"model":"m","x":1.50e1,'
    odd += b'"choices":[ {"index":0,"delta":{"content":"\\u00e6","new":[ ]},"finish_reason":null}]}\n\n'
    (chunk, *rest) = read(OPEN + odd + HI, STOP, DONE)
    assert chunk == Chunk(OPEN + odd + HI, "æHi")
    assert rest == [Chunk(STOP, finish_reason="stop")]


def test_a_role_alone_commits_to_nothing():
    """An error right behind it may still be answered by another deployment."""
    reader = openai().reader(STREAMED)
    assert [chunk.silent for chunk in reader.feed(OPEN)] == [True]
    assert [chunk.silent for chunk in reader.feed(HI)] == [False]
    for said in ({"reasoning_content": "x"}, {"refusal": "x"}, {"audio": {"id": "a"}}):
        assert not read(OPEN, event(said), STOP)[1].silent


def test_usage_is_an_event_of_its_own_wherever_it_came():
    """A client that asked gets it in one place; one that did not, does not."""
    for stream in (
        (OPEN, HI, STOP, event(usage=USAGE), DONE),
        (OPEN, HI, event({}, "stop", usage=USAGE), DONE),
        (OPEN, HI, event({}, "stop", x_groq={"usage": USAGE}), DONE),
        (OPEN, HI, event({}, "stop", usage=USAGE), event(usage=USAGE), DONE),
        (OPEN, HI, STOP, event({"role": "assistant", "content": ""}, "stop", usage=USAGE), DONE),
    ):
        *said, counted = read(*stream)
        assert (counted.usage, counted.usage_only, counted.silent) == (Usage(5, 2), True, True)
        assert json.loads(counted.data[6:])["choices"] == []
        assert not any(chunk.usage_only for chunk in said)
        assert said[-1].finish_reason == "stop"
        check_chunks(gathered([*said, counted])["chunks"], complete=True)


@pytest.mark.parametrize(
    ("pieces", "finish"),
    [
        ((OPEN, HI, STOP, DONE), "stop"),
        ((OPEN, HI, STOP), "stop"),
        ((OPEN, HI, DONE), "stop"),
        ((OPEN, HI, b"data: [DONE]"), "stop"),
        ((OPEN, HI, STOP.rstrip()), "stop"),
        ((OPEN, event({"tool_calls": [{"index": 0, "id": "t", "function": {"name": "f"}}]}), DONE), "tool_calls"),
        ((OPEN, STOP), "stop"),
    ],
)
def test_an_answer_is_complete_when_the_upstream_says_so(pieces, finish):
    """By a finish reason, or by `[DONE]`: some servers leave out the one, some the other."""
    assert "".join(chunk.finish_reason for chunk in read(*pieces)) == finish


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        ((OPEN, HI), Broke),
        ((OPEN, HI, STOP[:-9]), Broke),
        ((OPEN, HI, event({"content": "B"}, index=1), STOP), Broke),
        ((OPEN, HI, b'data: {"half\n\n', DONE), Unreachable),
        ((OPEN,), Unreachable),
        ((OPEN, DONE), Unreachable),
        ((DONE,), Unreachable),
        ((b": ping\n\n",), Unreachable),
        ((), Unreachable),
        ((b"<html><title>Hello</title></html>",), Unreachable),
    ],
)
def test_half_an_answer_never_looks_whole(pieces, error):
    """It would be believed, stored and cached. Before anything was said, another deployment may be asked."""
    with pytest.raises(UpstreamFailed) as raised:
        read(*pieces)
    assert type(raised.value) is error


def test_an_answer_is_complete_before_its_stream_is_over():
    """Then a lost connection loses nothing of it; a usage behind the finish is the last that is waited for."""
    reader = openai().reader(STREAMED)
    seen: list[tuple[bool, bool]] = []
    for piece in (OPEN, HI, STOP, event(usage=USAGE)):
        reader.feed(piece)
        seen.append((reader.complete, reader.finished))
    assert seen == [(False, False), (False, False), (True, False), (True, True)]
    assert reader.feed(b'data: {"half') == reader.end() == []


def test_usage_before_the_finish_is_not_the_end():
    """Some say with every event what was used so far."""
    reader = openai().reader(STREAMED)
    for piece in (OPEN, event({"content": "Hi"}, usage=USAGE), event({}, "stop", usage=USAGE)):
        reader.feed(piece)
        assert not reader.finished
    assert reader.complete


def test_what_was_asked_for_besides_is_waited_for():
    """Several answers may come one after the other, and OpenAI's moderation comes behind the usage."""
    two = attempt({"stream": True, "messages": [], "n": 2}, "m")
    reader = openai().reader(two)
    reader.feed(OPEN + HI + STOP + event(usage=USAGE))
    assert not reader.complete and not reader.finished
    with pytest.raises(Broke):
        reader.end()
    reader = openai().reader(attempt({"stream": True, "messages": [], "moderation": {"model": "o"}}, "m"))
    reader.feed(OPEN + HI + STOP + event(usage=USAGE))
    assert not reader.complete and not reader.finished
    reader.feed(event(moderation={"input": {}}))
    assert reader.complete


def test_an_answer_that_failed_is_not_complete():
    """An error behind the finish is an error."""
    reader = openai().reader(STREAMED)
    reader.feed(OPEN + HI + STOP + b'data: {"error":{"message":"no","code":500}}\n\n')
    assert (reader.complete, reader.finished) == (False, True)


def test_several_answers_each_come_to_their_end():
    """With `n`, events come in any order; the text that is counted is the first answer's."""
    chunks = read(
        event({"role": "assistant", "content": "a"}, index=1),
        OPEN,
        event({"content": "b"}, index=1) + HI + event({}, "length", index=1),
        STOP,
    )
    assert ("".join(c.text for c in chunks), "".join(c.finish_reason for c in chunks)) == ("Hi", "stop")
    assert [c["choices"][0]["index"] for c in gathered(chunks)["chunks"]] == [1, 0, 1, 0, 1, 0]


def test_what_came_before_an_error_is_delivered_first():
    """The bytes may have come together; the client has paid for what was said."""
    reader = openai().reader(STREAMED)
    (said,) = reader.feed(OPEN + HI + b'data: {"error":{"message":"no","code":500}}\n\n' + HI + DONE)
    assert (said.text, reader.finished) == ("Hi", True)
    with pytest.raises(Unreachable, match="no"):
        reader.feed(HI)
    with pytest.raises(Unreachable, match="no"):
        reader.end()


def test_one_answer_has_one_id():
    """Clients group by it; a server that makes a new one for each chunk would give them as many answers."""
    chunks = read(OPEN, HI.replace(b'"c1"', b'"c2"'), HI.replace(b'"c1"', b'""'), STOP)
    assert {said["id"] for said in gathered(chunks)["chunks"]} == {"c1"}


def test_reasoning_has_one_name_also_beside_text():
    """vLLM and OpenRouter call it `reasoning`; said under both names, it is said once."""
    both = {"content": "x", "reasoning": "y", "reasoning_content": "y"}
    for delta in ({"content": "x", "reasoning": "y"}, both):
        (_, chunk, _) = gathered(read(OPEN, event(delta), STOP))["chunks"]
        assert chunk["choices"][0]["delta"] == {"content": "x", "reasoning_content": "y"}


def called(*deltas: dict[str, Any]) -> list[tuple[int, str]]:
    """Return the index and arguments of every piece of a tool call."""
    said = gathered(read(OPEN, *[event({"tool_calls": [delta]}) for delta in deltas], STOP))["chunks"]
    pieces = [call for chunk in said for call in chunk["choices"][0]["delta"].get("tool_calls", ())]
    return [(call["index"], call["function"]["arguments"]) for call in pieces]


def begun(index: int, id: str) -> dict[str, Any]:
    return {"index": index, "id": id, "type": "function", "function": {"name": "f", "arguments": id}}


def piece(index: int, arguments: str) -> dict[str, Any]:
    return {"index": index, "function": {"arguments": arguments}}


def test_tool_calls_count_from_0_and_their_pieces_stay_theirs():
    """The official helper crashes on a first call with index 1; a piece given to another call is worse."""
    assert called(begun(1, "a"), begun(2, "b"), piece(1, "A"), piece(2, "B")) == [
        (0, "a"),
        (1, "b"),
        (0, "A"),
        (1, "B"),
    ]


def test_two_calls_with_one_index_are_two():
    """Some servers give each the index 0; the id tells them apart."""
    assert called(begun(0, "a"), begun(0, "b"), piece(0, "B")) == [(0, "a"), (1, "b"), (1, "B")]


def test_an_event_called_error_is_one_whatever_it_holds():
    """Official clients look only for an `error` within, and take this for an empty chunk of a good answer."""
    with pytest.raises(Unreachable):
        read(OPEN, b'event: error\ndata: {"reason":"overheated"}\n\n', STOP)


def test_money_that_is_spent_is_not_asked_for_again_within_a_stream_either():
    """No status says it there; the words do."""
    with pytest.raises(Rejected) as raised:
        read(
            OPEN,
            b'data: {"error":{"message":"no","type":"insufficient_quota","code":"project_spend_limit_exceeded"}}\n\n',
        )
    assert (raised.value.status, raised.value.kind, raised.value.retryable) == (429, "insufficient_quota", False)


def test_nothing_is_read_behind_the_end():
    """The connection may be given back as soon as `[DONE]` is here."""
    assert read(OPEN + HI + STOP + DONE + HI)[-1].text == "Hi"


@pytest.mark.parametrize("name", ["tool_calls", "choices"])
@pytest.mark.parametrize("value", [7, "x", [7], {}])
def test_what_is_none_of_the_dialect_is_skipped_and_told(name, value):
    """Whatever an upstream sends, it is no crash of ours, and no secret."""
    said = event({"tool_calls": value}) if name == "tool_calls" else event(choices=value)
    chunks = read(OPEN, said, HI, STOP)
    assert "".join(chunk.text for chunk in chunks) == "Hi"
    assert sum(chunk.skipped for chunk in chunks) == 1


@pytest.mark.parametrize("bad", [b"\xff", b"{", b'{"choices":' + b"[" * 100_000 + b"]" * 100_000 + b"}", b"[]", b"7"])
def test_what_cannot_be_read_is_skipped_or_an_error(bad):
    """No UTF-8, no JSON, nested without end, no object: of a stream a part, of a whole answer all of it."""
    assert sum(chunk.skipped for chunk in read(OPEN, b"data: " + bad + b"\n\n", HI, STOP)) == 1
    with pytest.raises(Unreachable, match="no completion"):
        openai().whole(STREAMED, bad)


def test_an_event_that_never_ends_is_given_up(monkeypatch):
    """Memory is not the upstream's."""
    monkeypatch.setattr(sse, "MAX_EVENT_BYTES", 1000)
    with pytest.raises(Unreachable, match="more than 1000 bytes"):
        read(OPEN, *[b"data: " + b"x" * 300] * 5)


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=4), lambda s: st.lists(s, max_size=2))
DELTAS = st.dictionaries(st.sampled_from(["role", "content", "reasoning", "reasoning_content", "tool_calls"]), JSON)
CHOICE = st.fixed_dictionaries({}, optional={"index": JSON, "delta": JSON | DELTAS, "finish_reason": JSON})
KEYS = ["id", "created", "model", "choices", "usage", "error", "x_groq"]
EVENTS = st.dictionaries(st.sampled_from(KEYS), JSON | st.lists(CHOICE, max_size=2))


@settings(max_examples=200)
@given(events=st.lists(EVENTS | JSON, max_size=4))
def test_no_json_whatever_breaks_the_reader(events):
    """A stream is an answer or a failure with a name; never a bug of ours."""
    data = b"".join(b"data: " + json.dumps(said).encode() + b"\n\n" for said in events)
    try:
        chunks = read(OPEN, data, DONE)
    except UpstreamFailed:
        return
    for said in gathered(chunks)["chunks"]:
        assert isinstance(said["choices"], list)


@settings(max_examples=200)
@given(said=EVENTS)
def test_no_json_whatever_breaks_a_whole_answer(said):
    """Nor does one that came at once."""
    for choice in said.get("choices") or [] if isinstance(said.get("choices"), list) else []:
        if isinstance(choice, dict) and "delta" in choice:
            choice["message"] = choice.pop("delta")
    try:
        openai().whole(STREAMED, json.dumps(said).encode())
    except UpstreamFailed:
        pass


OURS = [case for case in CASES if (case / "answer.sse").exists() and case.parent.name not in ("anthropic", "gemini")]


@pytest.mark.parametrize("folder", OURS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_official_helper_can_gather_every_stream(folder):
    """`client.chat.completions.stream()` crashes on, or doubles, what this provider mends."""
    outcome = Case(folder).outcome()
    state = ChatCompletionStreamState()
    for said in outcome["chunks"]:
        state.handle_chunk(ChatCompletionChunk.model_validate(said))
    if "error" in outcome:
        return
    choice = state.current_completion_snapshot.choices[0]
    assert ((choice.message.content or ""), choice.finish_reason) == (outcome["text"], outcome["finish_reason"])
    for call in choice.message.tool_calls or []:
        assert call.function.name == "tide"
        assert isinstance(json.loads(call.function.arguments or "{}"), dict)


# ── Whole answers ────────────────────────────────────────────────────────────────────────────────────────────────


WHOLE = {"id": "c1", "object": "chat.completion", "created": 1_790_000_000, "model": "m"}


def whole(message: dict[str, Any], finish: str | None = "stop", **more: Any) -> bytes:
    return json.dumps(
        {**WHOLE, "choices": [{"index": 0, "message": message, "finish_reason": finish}], **more}
    ).encode()


def test_a_whole_answer_that_is_right_keeps_its_bytes():
    """Whatever else stands in it."""
    body = whole({"role": "assistant", "content": "Hi", "new": [1.50]}, usage=USAGE, x={"y": None})
    chunk = openai().whole(STREAMED, b"\n\n " + body + b"\n")
    assert chunk == Chunk(body, "Hi", Usage(5, 2), "stop")


def test_usage_of_zeros_is_no_usage():
    """LocalAI writes zeros where it does not know; free is something else."""
    zeros = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}
    chunk = openai().whole(STREAMED, whole({"content": "Hi"}, usage=zeros))
    assert (chunk.usage, "usage" in json.loads(chunk.data)) == (None, False)


def test_a_finish_is_tool_calls_if_tools_were_called_unless_the_client_forced_it():
    """Ollama and Gemini say `stop`; OpenAI does so too, on purpose, where the client named the function."""
    body = whole({"tool_calls": [{"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}]})
    forced = attempt({"tool_choice": {"type": "function", "function": {"name": "f"}}}, "m")
    assert openai().whole(STREAMED, body).finish_reason == "tool_calls"
    assert openai().whole(forced, body).finish_reason == "stop"


def test_reasoning_tokens_are_added_only_where_the_total_says_that_they_are_missing():
    """So that nothing is counted twice when xAI comes to count as OpenAI does."""
    details = {"completion_tokens_details": {"reasoning_tokens": 3}}
    apart = {**USAGE, **details, "total_tokens": 10}
    inside = {**USAGE, **details, "completion_tokens": 5, "total_tokens": 10}
    for used, completion in ((apart, 5), (inside, 5)):
        counted = openai(vendor="xai").whole(STREAMED, whole({"content": "x"}, usage=used)).usage
        assert (counted.completion_tokens, counted.reasoning_tokens) == (completion, 3)
    assert openai().whole(STREAMED, whole({"content": "x"}, usage=apart)).usage.completion_tokens == 2


@pytest.mark.parametrize("odd", [True, "much", {}, []])
def test_a_stated_cost_that_is_no_number_is_none(odd):
    """An upstream's slip is no crash of ours."""
    beside = {"cost": 1, "is_byok": True, "cost_details": {"upstream_inference_cost": odd}}
    for said, cost_nusd in (({"cost": odd}, None), (beside, 10**9)):
        body = whole({"content": "x"}, usage={**USAGE, **said})
        assert openai(vendor="openrouter").whole(STREAMED, body).usage.stated_cost_nusd == cost_nusd


@pytest.mark.parametrize("ticks", [-50, 10**30, 10**400], ids=["negative", "large", "endless"])
def test_a_stated_cost_that_nobody_would_charge_is_none(ticks):
    """Ticks and dollars alike: below zero they would fill budgets up."""
    for said in ({"cost_in_usd_ticks": ticks}, {"cost": ticks}):
        body = whole({"content": "x"}, usage={**USAGE, **said})
        assert openai(vendor="openrouter").whole(STREAMED, body).usage.stated_cost_nusd is None


def test_a_stated_cost_is_believed_only_of_vendors_that_state_dollars():
    """Another server's `cost` may be cents, or credits."""
    body = whole({"content": "x"}, usage={**USAGE, "cost": 0.0000015})
    assert openai(vendor="openrouter").whole(STREAMED, body).usage.stated_cost_nusd == 1500
    assert openai().whole(STREAMED, body).usage.stated_cost_nusd is None


@pytest.mark.parametrize(("status", "seen"), [(400, 400), (500, 502), (None, 502)])
def test_an_error_in_a_200_is_an_error(status, seen):
    """The official SDK would make an answer of it that is None throughout."""
    error = {"message": "no", "code": status} if status else "no"
    with pytest.raises(UpstreamFailed, match="no") as raised:
        openai().whole(STREAMED, json.dumps({"error": error}).encode())
    assert raised.value.status == seen


def test_a_failed_generation_is_told_to_the_client_and_not_tried_again():
    """Groq's model called a tool wrongly: the request is at fault, not the server."""
    with pytest.raises(Rejected) as raised:
        read(OPEN, b'event: error\ndata: {"error":{"message":"no","code":"tool_use_failed","status_code":400}}\n\n')
    assert (raised.value.status, raised.value.code, raised.value.retryable) == (400, "tool_use_failed", False)
