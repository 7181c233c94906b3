"""The official SDK, and its helper that gathers a stream, read what the Responses surface writes."""

import json
from collections.abc import Iterator

import httpx2
import pytest
from openai import APIError, OpenAI
from openai.types.responses import Response

from gateway.core.errors import Broke
from gateway.core.usage import Usage
from gateway.wire.events import Began, Counted, Ended, Event, Refused, Said, Thought, ToolArgued, ToolBegan
from gateway.wire.responses import ResponsesSurface, ResponsesWriter
from tests.wire.responses import CREATED, PATCH, WEATHER, asked

BEGAN = Began("upstream-1", "claude")
COUNTED = Counted(Usage(9, 5, cached_tokens=4, reasoning_tokens=2))
TEXT: list[Event] = [BEGAN, Said("Hello"), Said(" world"), Ended("stop"), COUNTED]
CALLS: list[Event] = [
    BEGAN,
    ToolBegan(0, "call_a", "weather"),
    ToolArgued(0, '{"city":'),
    ToolArgued(0, '"Rome"}'),
    ToolBegan(1, "call_b", "weather"),
    ToolArgued(1, '{"city":"Oslo"}'),
    ToolBegan(2, "call_c", "apply_patch"),
    ToolArgued(2, '{"input":"*** Begin Patch"}'),
    Ended("tool_calls"),
    COUNTED,
]


class Upstream:
    """Answers one request with an answer told in neutral events, cut off where `error` says why."""

    def __init__(self, events: list[Event], error: Broke | None = None) -> None:
        self._events = events
        self._error = error

    def client(self) -> OpenAI:
        transport = httpx2.MockTransport(self._answer)
        http_client = httpx2.Client(transport=transport)
        return OpenAI(base_url="http://gateway.test/v1", api_key="k", http_client=http_client, max_retries=0)

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        body = asked(**json.loads(request.content))
        writer = ResponsesWriter("1", "fast", CREATED, body)
        if not body.get("stream"):
            return httpx2.Response(200, content=writer.whole(self._events).data)
        content = b"".join(self._stream(writer))
        return httpx2.Response(200, content=content, headers={"content-type": "text/event-stream"})

    def _stream(self, writer: ResponsesWriter) -> Iterator[bytes]:
        for event in self._events:
            yield from (chunk.data for chunk in writer.stream([event]))
        if self._error is not None:
            yield ResponsesSurface().error_event(self._error, "1")
        yield from (chunk.data for chunk in writer.end())


def gathered(events: list[Event]) -> Response:
    """The response that the SDK's helper gathers from a stream."""
    with Upstream(events).client().responses.stream(model="fast", input="Hello", tools=[WEATHER, PATCH]) as stream:
        return stream.get_final_response()


def created(events: list[Event]) -> Response:
    """The response that comes whole."""
    return Upstream(events).client().responses.create(model="fast", input="Hello", tools=[WEATHER, PATCH])


@pytest.mark.parametrize("ask", [gathered, created])
def test_text_and_usage_arrive(ask):
    """The commonest call of all."""
    response = ask(TEXT)
    assert (response.output_text, response.status, response.model) == ("Hello world", "completed", "claude")
    assert response.usage is not None
    assert (response.usage.input_tokens, response.usage.total_tokens) == (9, 14)
    assert response.usage.input_tokens_details.cached_tokens == 4
    assert response.usage.output_tokens_details.reasoning_tokens == 2


@pytest.mark.parametrize("ask", [gathered, created])
def test_parallel_calls_arrive_with_their_ids(ask):
    """The id is what the result has to name."""
    told = [
        (item.type, item.call_id, item.name, item.input if item.type == "custom_tool_call" else item.arguments)
        for item in ask(CALLS).output
    ]
    assert told == [
        ("function_call", "call_a", "weather", '{"city":"Rome"}'),
        ("function_call", "call_b", "weather", '{"city":"Oslo"}'),
        ("custom_tool_call", "call_c", "apply_patch", "*** Begin Patch"),
    ]


@pytest.mark.parametrize("ask", [gathered, created])
def test_reasoning_and_refusal_arrive(ask):
    """Each in the place where the SDK's own readers look for it."""
    response = ask([BEGAN, Thought("Let me "), Thought("see."), Refused("I will not."), Ended("stop")])
    reasoning, message = response.output
    assert reasoning.summary[0].text == "Let me see."
    assert message.content[0].refusal == "I will not."


def test_deltas_arrive_as_they_are_said():
    """The helper hands on each piece with all that came before it."""
    with Upstream(TEXT).client().responses.stream(model="fast", input="Hello") as stream:
        deltas = [(event.delta, event.snapshot) for event in stream if event.type == "response.output_text.delta"]
    assert deltas == [("Hello", "Hello"), (" world", "Hello world")]


def test_an_incomplete_answer_says_why():
    """Programs that read events, or the whole, branch on the reason."""
    cut: list[Event] = [BEGAN, Said("Once upon"), Ended("length"), COUNTED]
    whole = created(cut)
    with Upstream(cut).client().responses.create(model="fast", input="Hello", stream=True) as stream:
        *_, last = stream
    assert last.type == "response.incomplete"
    for response in (whole, last.response):
        assert response.incomplete_details.reason == "max_output_tokens"
        assert response.output_text == "Once upon"


def test_a_broken_answer_is_never_gathered_as_a_whole_one():
    """The helper has no response to give; a reader of events is told why."""
    upstream = Upstream([BEGAN, Said("Once upon")], Broke("the upstream's answer broke off"))
    with (
        upstream.client().responses.stream(model="fast", input="Hello") as stream,
        pytest.raises(APIError, match="the upstream's answer broke off"),
    ):
        stream.get_final_response()
    seen: list[str] = []
    with (
        upstream.client().responses.create(model="fast", input="Hello", stream=True) as stream,
        pytest.raises(APIError, match="the upstream's answer broke off"),
    ):
        seen.extend(event.type for event in stream)
    assert "response.output_text.delta" in seen and "response.completed" not in seen
