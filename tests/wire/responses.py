"""What the tests of the Responses surface share: a request, an answer told in neutral events, and events read back."""

import json
from typing import Any

import msgspec
from msgspec import Raw

from gateway.core.call import Body
from gateway.wire.events import Event
from gateway.wire.responses import ResponsesWriter
from gateway.wire.sse import Splitter

CREATED = 1_790_000_000

PATCH = {"type": "custom", "name": "apply_patch", "description": "Edits files."}
WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "Tells the weather.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    "strict": False,
}
TICKETS = {"type": "namespace", "name": "tickets", "description": "Tickets.", "tools": [{**WEATHER, "name": "find"}]}


def asked(**fields: Any) -> Body:
    """A request; `input` is "Hello" unless said."""
    raw = json.dumps({"model": "fast", "input": "Hello", **fields}).encode()
    return Body(raw, msgspec.json.decode(raw, type=dict[str, Raw]))


def writer(*, keeps: bool = False, **fields: Any) -> ResponsesWriter:
    """A writer of the answer to `asked(**fields)`."""
    return ResponsesWriter("1", "fast", CREATED, asked(**fields), keeps=keeps)


def streamed(events: list[Event], **fields: Any) -> bytes:
    """The stream that tells `events`, each of them on its own."""
    writes = writer(**fields)
    chunks = [chunk for event in events for chunk in writes.stream([event])]
    return b"".join(chunk.data for chunk in [*chunks, *writes.end()])


def read(stream: bytes) -> list[dict[str, Any]]:
    """The events of a stream; each one's name is its type."""
    events = Splitter().feed(stream)
    said = [json.loads(event.data) for event in events]
    assert [event.name.decode() for event in events] == [one["type"] for one in said]
    return said
