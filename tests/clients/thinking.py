"""Answers that begin with reasoning, in each dialect: what `tests/dialects.py` says, and a thought before it."""

import json
from typing import Any

from tests import frames
from tests.dialects import Asked, Says, events, whole

Json = dict[str, Any]
SIGNATURE = "c2lnbmVk"


def thinking_whole(thought: str, says: Says, asked: Asked) -> Json:
    """Return a whole answer."""
    said = json.loads(whole(says, asked))
    match asked.path.rpartition("/")[2]:
        case "completions":
            said["choices"][0]["message"]["reasoning_content"] = thought
        case "messages":
            said["content"].insert(0, {"type": "thinking", "thinking": thought, "signature": SIGNATURE})
        case "responses":
            said["output"].insert(0, _item(thought))
        case "converse":
            block = {"reasoningText": {"text": thought, "signature": SIGNATURE}}
            said["output"]["message"]["content"].insert(0, {"reasoningContent": block})
        case _:
            said["candidates"][0]["content"]["parts"].insert(0, {"text": thought, "thought": True})
    return said


def thinking_events(thought: str, says: Says, asked: Asked) -> list[bytes]:
    """Return a streamed answer."""
    kind = asked.path.rpartition("/")[2]
    if kind == "converse-stream":
        return _converse(thought, says)
    first, *rest = (json.loads(line) for line in map(_data, events(says, asked)) if line != b"[DONE]")
    match kind:
        case "completions":
            choice = {**first["choices"][0], "delta": {"reasoning_content": thought}}
            return [*map(_event, [first, {**first, "choices": [choice]}, *rest]), b"data: [DONE]\n\n"]
        case "messages":
            return [_event(said, said["type"]) for said in [first, *_block(thought), *_moved(rest, "index")]]
        case "responses":
            said = [first, *_reasoned(thought), *_moved(rest, "output_index")]
            said[-1]["response"]["output"].insert(0, _item(thought))
            return [_event({**one, "sequence_number": n}, one["type"]) for n, one in enumerate(said)]
        case _:
            parts = [{"text": thought, "thought": True}]
            candidate = {"content": {"parts": parts, "role": "model"}, "index": 0}
            return [*map(_event, [{**first, "candidates": [candidate]}, first, *rest])]


def _data(event: bytes) -> bytes:
    return event.partition(b"data: ")[2].strip()


def _event(said: Json, name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + b"data: " + json.dumps(said).encode() + b"\n\n"


def _moved(said: list[Json], name: str) -> list[Json]:
    """Return events whose place is one further on."""
    return [{**one, name: one[name] + 1} if name in one else one for one in said]


def _block(thought: str) -> list[Json]:
    """Return a block of Anthropic's."""
    deltas = [
        {"type": "thinking_delta", "thinking": thought},
        {"type": "signature_delta", "signature": SIGNATURE},
    ]
    return [
        {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
    ]


def _item(thought: str) -> Json:
    return {"id": "rs_scripted", "type": "reasoning", "summary": [{"type": "summary_text", "text": thought}]}


def _reasoned(thought: str) -> list[Json]:
    """Return an item of the Responses API."""
    at = {"item_id": "rs_scripted", "output_index": 0, "summary_index": 0}
    part = {"type": "summary_text", "text": thought}
    return [
        {"type": "response.output_item.added", "output_index": 0, "item": {**_item(thought), "summary": []}},
        {"type": "response.reasoning_summary_part.added", **at, "part": {**part, "text": ""}},
        {"type": "response.reasoning_summary_text.delta", **at, "delta": thought},
        {"type": "response.reasoning_summary_text.done", **at, "text": thought},
        {"type": "response.reasoning_summary_part.done", **at, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": _item(thought)},
    ]


def _converse(thought: str, says: Says) -> list[bytes]:
    usage = {
        "inputTokens": says.prompt_tokens - says.cached_tokens,
        "outputTokens": says.used,
        "totalTokens": says.prompt_tokens + says.used,
        "cacheReadInputTokens": says.cached_tokens,
    }
    deltas = [(0, {"reasoningContent": {"text": thought}}), (0, {"reasoningContent": {"signature": SIGNATURE}})]
    words = [(1, {"text": word}) for word in says.words]
    said: list[tuple[str, Json]] = [
        ("messageStart", {"role": "assistant"}),
        *(("contentBlockDelta", {"contentBlockIndex": at, "delta": delta}) for at, delta in deltas),
        ("contentBlockStop", {"contentBlockIndex": 0}),
        *(("contentBlockDelta", {"contentBlockIndex": at, "delta": delta}) for at, delta in words),
        ("contentBlockStop", {"contentBlockIndex": 1}),
        ("messageStop", {"stopReason": "end_turn"}),
        ("metadata", {"usage": usage, "metrics": {"latencyMs": 1}}),
    ]
    return [frames.message("event", name, json.dumps(payload).encode()) for name, payload in said]
