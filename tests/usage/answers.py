"""Answers of every dialect, with usage in the upstream's own words: what a row of `rows.yaml` is put into."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests import frames

Json = dict[str, Any]
CITY = json.dumps({"city": "Oslo"})
HEAD: Json = {"id": "c1", "created": 1_790_000_000, "model": "m"}
TEXT = "Hello there"


@dataclass(frozen=True)
class Answer:
    """Says "Hello there", or calls a tool; `usage` goes where the dialect has it, `beside` next to it."""

    usage: Json | None = None
    beside: Json = field(default_factory=dict[str, Any])
    tool: bool = False


def whole(dialect: str, answer: Answer) -> bytes:
    """Return the whole answer, head and all."""
    body = json.dumps(DIALECTS[dialect][0](answer)).encode()
    length = f"content-length: {len(body)}\r\n\r\n"
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n" + length.encode() + body


def stream(dialect: str, answer: Answer, *, pieces: int = 1000) -> bytes:
    """Return the first `pieces` of the answer as a stream, head and all; it ends when the connection does."""
    kind = {"bedrock": "application/vnd.amazon.eventstream", "ollama": "application/x-ndjson"}
    head = f"HTTP/1.1 200 OK\r\ncontent-type: {kind.get(dialect, 'text/event-stream')}\r\nconnection: close\r\n\r\n"
    return head.encode() + b"".join(DIALECTS[dialect][1](answer)[:pieces])


def _used(answer: Answer, name: str = "usage") -> Json:
    return {} if answer.usage is None else {name: answer.usage}


def _event(said: Json, name: str = "") -> bytes:
    return (f"event: {name}\n" if name else "").encode() + f"data: {json.dumps(said)}\n\n".encode()


# ── chat completions ─────────────────────────────────────────────────────────────────────────────────────────────


def _call(**more: Any) -> Json:
    return {**more, "id": "t1", "type": "function", "function": {"name": "weather", "arguments": CITY}}


def _chat(answer: Answer) -> Json:
    message: Json = {"role": "assistant", "content": None if answer.tool else TEXT}
    message |= {"tool_calls": [_call()]} if answer.tool else {}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if answer.tool else "stop"}
    return {**HEAD, "object": "chat.completion", "choices": [choice], **_used(answer), **answer.beside}


def _chat_events(answer: Answer) -> list[bytes]:
    head = {**HEAD, "object": "chat.completion.chunk"}
    deltas: list[Json] = [{"content": word} for word in ("Hello ", "there")]
    if answer.tool:
        deltas = [{"tool_calls": [_call(index=0)]}]
    deltas[0]["role"] = "assistant"
    said = [{**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    ending = {"index": 0, "delta": {}, "finish_reason": "tool_calls" if answer.tool else "stop"}
    end: Json = {**head, "choices": [ending]}
    if "x_groq" in answer.beside:  # on the chunk that ends the answer, and nowhere else
        said.append({**end, **answer.beside})
    else:
        said += [end, {**head, "choices": [], **_used(answer), **answer.beside}] if answer.usage else [end]
    return [*map(_event, said), b"data: [DONE]\n\n"]


# ── Responses ────────────────────────────────────────────────────────────────────────────────────────────────────


def _response(answer: Answer) -> Json:
    content = [{"type": "output_text", "text": TEXT, "annotations": []}]
    item: Json = {"type": "message", "id": "i1", "role": "assistant", "status": "completed", "content": content}
    if answer.tool:
        item = {"type": "function_call", "id": "i1", "call_id": "t1", "name": "weather", "arguments": CITY}
    beside = dict(answer.beside)
    output = [*beside.pop("output", []), item]
    head = {"id": "resp_1", "object": "response", "created_at": 1_790_000_000, "model": "m", "status": "completed"}
    return {**head, "output": output, **_used(answer), **beside}


def _response_events(answer: Answer) -> list[bytes]:
    done = _response(answer)
    at = {"output_index": len(done["output"]) - 1, "item_id": "i1", "content_index": 0}
    begun = {**done, "status": "in_progress", "output": [], "usage": None}
    said: list[tuple[str, Json]] = [
        ("created", {"response": begun}),
        ("output_item.added", {**at, "item": {**done["output"][-1], "content": [], "arguments": ""}}),
        *([("function_call_arguments.delta", {**at, "delta": CITY})] if answer.tool else _texts(at)),
        ("output_item.done", {**at, "item": done["output"][-1]}),
        ("completed", {"response": done}),
    ]
    return [
        _event({"type": f"response.{name}", "sequence_number": 0, **more}, f"response.{name}") for name, more in said
    ]


def _texts(at: Json) -> list[tuple[str, Json]]:
    return [("output_text.delta", {**at, "delta": word, "logprobs": []}) for word in ("Hello ", "there")]


# ── Messages ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _message(answer: Answer) -> Json:
    block: Json = {"type": "text", "text": TEXT}
    if answer.tool:
        block = {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Oslo"}}
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None}
    return {**head, "content": [block], "stop_reason": "tool_use" if answer.tool else "end_turn", **_used(answer)}


def _message_events(answer: Answer) -> list[bytes]:
    done = _message(answer)
    begun = {**done, "content": [], "stop_reason": None}
    if answer.usage is not None:  # the first numbers are provisional: they count no answer yet, and no search
        begun["usage"] = {**answer.usage, "output_tokens": 1}
        begun["usage"].pop("iterations", None)
        begun["usage"].pop("server_tool_use", None)
    block: Json = {**done["content"][0], **({"input": {}} if answer.tool else {"text": ""})}
    deltas: list[Json] = [{"type": "text_delta", "text": word} for word in ("Hello ", "there")]
    if answer.tool:
        deltas = [{"type": "input_json_delta", "partial_json": CITY}]
    ending = {"stop_reason": done["stop_reason"], "stop_sequence": None}
    said: list[Json] = [
        {"type": "message_start", "message": begun},
        {"type": "content_block_start", "index": 0, "content_block": block},
        *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": ending, **_used(answer)},
        {"type": "message_stop"},
    ]
    return [_event(one, one["type"]) for one in said]


# ── Gemini, Bedrock, Cohere, Ollama ──────────────────────────────────────────────────────────────────────────────


def _gemini_piece(parts: list[Json], answer: Answer, *, last: bool) -> Json:
    candidate: Json = {"content": {"role": "model", "parts": parts}, "index": 0}
    candidate |= {"finishReason": "STOP"} if last else {}
    usage = _used(answer, "usageMetadata")
    if usage and not last:  # it counts no answer yet
        usage = {"usageMetadata": {**answer.usage, "candidatesTokenCount": None}}  # type: ignore[dict-item]
    return {"candidates": [candidate], **usage, "modelVersion": "m", "responseId": "r1"}


def _gemini(answer: Answer) -> Json:
    part: Json = {"functionCall": {"name": "weather", "args": {"city": "Oslo"}}} if answer.tool else {"text": TEXT}
    return _gemini_piece([part], answer, last=True)


def _gemini_events(answer: Answer) -> list[bytes]:
    parts: list[Json] = [{"text": "Hello "}, {"text": "there"}]
    if answer.tool:
        parts = [{"functionCall": {"name": "weather", "args": {"city": "Oslo"}}}]
    return [_event(_gemini_piece([part], answer, last=part is parts[-1])) for part in parts]


def _bedrock(answer: Answer) -> Json:
    block: Json = {"text": TEXT}
    if answer.tool:
        block = {"toolUse": {"toolUseId": "t1", "name": "weather", "input": {"city": "Oslo"}}}
    message = {"message": {"role": "assistant", "content": [block]}}
    stop = "tool_use" if answer.tool else "end_turn"
    return {"output": message, "stopReason": stop, **_used(answer), **answer.beside}


def _bedrock_events(answer: Answer) -> list[bytes]:
    at = {"contentBlockIndex": 0}
    said: list[tuple[str, Json]] = [("messageStart", {"role": "assistant"})]
    if answer.tool:
        said.append(("contentBlockStart", {**at, "start": {"toolUse": {"toolUseId": "t1", "name": "weather"}}}))
        said.append(("contentBlockDelta", {**at, "delta": {"toolUse": {"input": CITY}}}))
    else:
        said += [("contentBlockDelta", {**at, "delta": {"text": word}}) for word in ("Hello ", "there")]
    said += [("contentBlockStop", at), ("messageStop", {"stopReason": "tool_use" if answer.tool else "end_turn"})]
    said += [("metadata", {**_used(answer), **answer.beside})] if answer.usage is not None else []
    return [frames.message("event", name, json.dumps(payload).encode()) for name, payload in said]


def _cohere(answer: Answer) -> Json:
    message: Json = {"role": "assistant", "content": [{"type": "text", "text": TEXT}]}
    if answer.tool:
        message = {"role": "assistant", "tool_calls": [_call()]}
    return {"id": "c1", "message": message, "finish_reason": _cohere_end(answer), **_used(answer)}


def _cohere_end(answer: Answer) -> str:
    return "TOOL_CALL" if answer.tool else "COMPLETE"


def _cohere_events(answer: Answer) -> list[bytes]:
    said: list[tuple[str, Json]] = [("content-delta", {"content": {"text": word}}) for word in ("Hello ", "there")]
    if answer.tool:
        said = [("tool-call-start", {"tool_calls": _call()}), ("tool-call-end", {})]
    said.insert(0, ("message-start", {"role": "assistant", "content": [], "tool_calls": []}))
    events = [_event({"id": "c1", "type": name, "index": 0, "delta": {"message": one}}, name) for name, one in said]
    end = {"type": "message-end", "delta": {"finish_reason": _cohere_end(answer), **_used(answer)}}
    return [*events, _event(end, "message-end"), b"data: [DONE]\n\n"]


def _ollama(answer: Answer) -> Json:
    message: Json = {"role": "assistant", "content": TEXT}
    if answer.tool:
        message = {"role": "assistant", "content": "", "tool_calls": [_ollama_call()]}
    return {"model": "m", "message": message, "done": True, "done_reason": "stop", **(answer.usage or {})}


def _ollama_call() -> Json:
    return {"function": {"name": "weather", "arguments": {"city": "Oslo"}}}


def _ollama_events(answer: Answer) -> list[bytes]:
    said: list[Json] = [{"content": "Hello "}, {"content": "there"}]
    if answer.tool:
        said = [{"content": "", "tool_calls": [_ollama_call()]}]
    lines: list[Json] = [{"model": "m", "message": {"role": "assistant", **one}, "done": False} for one in said]
    lines.append({**_ollama(answer), "message": {"role": "assistant", "content": ""}})
    return [json.dumps(line).encode() + b"\n" for line in lines]


DIALECTS: dict[str, tuple[Callable[[Answer], Json], Callable[[Answer], list[bytes]]]] = {
    "chat": (_chat, _chat_events),
    "responses": (_response, _response_events),
    "messages": (_message, _message_events),
    "gemini": (_gemini, _gemini_events),
    "bedrock": (_bedrock, _bedrock_events),
    "cohere": (_cohere, _cohere_events),
    "ollama": (_ollama, _ollama_events),
}
