"""A chat completion request as OpenAI itself takes it: without what other surfaces carry in it for other upstreams.

OpenAI, and many that speak its dialect, refuse fields that they do not know.
"""

from collections.abc import Collection
from typing import Any, cast

import msgspec
from msgspec import Raw

from gateway.core.call import Body

EXTRAS = ("cache_control", "thinking_blocks", "reasoning_content", "extra_content", "top_k")
"""Fields of no OpenAI model: of parts and tools, of messages, of tool calls, of the request."""


def plain_chat(body: Body, keep: Collection[str] = ()) -> Body:
    """Return a translated request without `EXTRAS`, but for those that this upstream knows; unchanged if it has none.

    Args:
        body: of a chat completion, as a surface's `chat_body` writes it.
        keep: names of `EXTRAS`.
    """
    gone = frozenset(name for name in EXTRAS if name not in keep and name.encode() in body.raw)
    if not gone:
        return body
    fields: dict[str, Any] = {name: raw for name, raw in body.fields.items() if name not in gone}
    for name in ("messages", "tools"):
        if name in fields:
            fields[name] = [_without(gone, entry) for entry in msgspec.json.decode(fields[name], type=list[Any])]
    raw = msgspec.json.encode(fields)
    return Body(raw, msgspec.json.decode(raw, type=dict[str, Raw]))


def _without(gone: frozenset[str], entry: Any) -> Any:
    """Return a message, part, tool or tool call without the fields `gone`; a lone text without others is no list."""
    if not isinstance(entry, dict):
        return entry
    said = {name: value for name, value in cast("dict[str, Any]", entry).items() if name not in gone}
    for name in ("content", "tool_calls"):
        if isinstance(said.get(name), list):
            said[name] = [_without(gone, inner) for inner in said[name]]
    match said.get("content"):
        case [{"type": "text", "text": str() as text, **others}] if not others:
            said["content"] = text
        case _:
            pass
    return said
