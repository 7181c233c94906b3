"""OpenAI's surface, as clients expect it: answers, errors, models.

Sources: the official SDKs' types and what their parsers crash on (a missing tool index, `choices: null`, a role on
every chunk, a bare `event:` line, a last event without its blank line): none of it is ever written here.
"""

from typing import Any

import msgspec

from gateway.core.call import Body, Call
from gateway.core.errors import GatewayError
from gateway.core.reply import Chunk
from gateway.core.usage import Usage
from gateway.wire.events import Began, Cited, Counted, Ended, Event, Refused, Said, Thought, ToolArgued, ToolBegan

DONE = b"data: [DONE]\n\n"

encode = msgspec.json.Encoder().encode


# ── Errors ───────────────────────────────────────────────────────────────────────────────────────────────────────


def error_body(error: GatewayError) -> bytes:
    """Return OpenAI's error object, all four keys present."""
    said = {"message": error.message, "type": error.kind, "param": error.param, "code": error.code}
    return encode({"error": said})


def error_event(error: GatewayError) -> bytes:
    """Return an in-band error: what a stream says instead of a finish when it cannot go on."""
    return b"data: " + error_body(error) + b"\n\n"


# ── Answers ──────────────────────────────────────────────────────────────────────────────────────────────────────


def usage_object(usage: Usage) -> dict[str, Any]:
    """Return OpenAI's usage object."""
    extras = usage.extras
    sent = {"cached_tokens": usage.cached_tokens, "cache_write_tokens": usage.cache_write_tokens}
    sent |= _said(audio_tokens=extras.audio_prompt_tokens, image_tokens=extras.image_prompt_tokens)
    answered = {"reasoning_tokens": usage.reasoning_tokens}
    answered |= _said(audio_tokens=extras.audio_completion_tokens)
    said: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": sent,
        "completion_tokens_details": answered,
    }
    if usage.estimated:
        said["estimated"] = True
    return said


def _said(**counts: int) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


def with_usage(whole: bytes, usage: Usage) -> bytes:
    """Return a whole chat completion that says what it used, where its upstream did not."""
    return encode({**msgspec.json.decode(whole, type=dict[str, msgspec.Raw]), "usage": usage_object(usage)})


def usage_event(id: str, created: int, model: str, usage: Usage) -> bytes:
    """Return the chunk that says what a stream used, as `include_usage` asks for."""
    said: dict[str, Any] = {
        "id": id,
        "object": "chat.completion.chunk",
        "created": created,
        "model": model,
        "choices": [],
        "usage": usage_object(usage),
    }
    return b"data: " + encode(said) + b"\n\n"


class ChatSurface:
    """`POST /v1/chat/completions`."""

    done = DONE
    id_header = ""

    def chat_body(self, body: Body) -> Body:
        """Return the request as it came."""
        return body

    def writer(self, call: Call) -> "ChatWriter":
        """Return a writer for the answer to `call`."""
        return ChatWriter(call.id, call.model, int(call.clock.wall()))

    def error_body(self, error: GatewayError, call_id: str) -> bytes:
        """Return OpenAI's error object."""
        return error_body(error)

    def error_event(self, error: GatewayError, call_id: str) -> bytes:
        """Return an in-band error."""
        return error_event(error)


class ChatWriter:
    """Writes neutral events as chat completion chunks, or as one whole chat completion."""

    def __init__(self, id: str, model: str, created: int) -> None:
        self._id = f"chatcmpl-{id}"
        self._model = model
        self._created = created
        self._begun = False
        self._listed = {"thinking_blocks": 0, "annotations": 0}

    def stream(self, events: list[Event]) -> list[Chunk]:
        """Return the chunks that say `events`: one chunk for all that came together, usage apart."""
        chunks: list[Chunk] = []
        run: list[bytes] = []
        text, finish, silent, unseen = "", "", True, 0
        for event in events:
            unseen += unseen_chars(event)
            match event:
                case Began():
                    self._id, self._model = event.id or self._id, event.model or self._model
                    if not self._begun:
                        self._begun = True
                        run.append(self._delta({"role": "assistant", "content": ""}))
                case Counted():
                    data = usage_event(self._id, self._created, self._model, event.usage)
                    chunks.append(Chunk(data, usage=event.usage, usage_only=True, silent=True))
                case Ended():
                    run.append(self._delta({}, event.reason))
                    finish, silent = event.reason, False
                case Said():
                    run.append(self._delta({"content": event.text}))
                    text, silent = text + event.text, False
                case _:
                    run.append(self._delta(self._numbered(_delta_of(event))))
                    silent = False
        if run:
            chunks.insert(0, Chunk(b"".join(run), text, finish_reason=finish, silent=silent, unseen=unseen))
        return chunks

    def end(self) -> list[Chunk]:
        """Return nothing: the edge says `[DONE]`."""
        return []

    def whole(self, events: list[Event]) -> Chunk:
        """Return the chat completion that `events` tell."""
        message, finish, usage = _Message(), "stop", None
        for event in events:
            match event:
                case Began():
                    self._id, self._model = event.id or self._id, event.model or self._model
                case Ended():
                    finish = event.reason
                case Counted():
                    usage = event.usage
                case _:
                    message.add(event)
        choice = {"index": 0, "message": message.object(), "logprobs": None, "finish_reason": finish}
        said: dict[str, Any] = {
            "id": self._id,
            "object": "chat.completion",
            "created": self._created,
            "model": self._model,
            "choices": [choice],
        }
        if usage is not None:
            said["usage"] = usage_object(usage)
        return Chunk(encode(said), message.text, usage, finish, unseen=sum(map(unseen_chars, events)))

    def _numbered(self, delta: dict[str, Any]) -> dict[str, Any]:
        """Give list entries their `index`: the official helper that gathers a stream crashes on the second without."""
        for name in self._listed:
            for entry in delta.get(name, ()):
                entry["index"] = self._listed[name]
                self._listed[name] += 1
        return delta

    def _delta(self, delta: dict[str, Any], finish: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        said = {
            "id": self._id,
            "object": "chat.completion.chunk",
            "created": self._created,
            "model": self._model,
            "choices": [choice],
        }
        return b"data: " + encode(said) + b"\n\n"


def unseen_chars(event: Event) -> int:
    """Return how many characters an event says that are no text."""
    match event:
        case Thought():
            return len(event.text)
        case ToolBegan():
            return len(event.name)
        case ToolArgued():
            return len(event.fragment)
        case _:
            return 0


def _delta_of(event: Said | Thought | Refused | ToolBegan | ToolArgued | Cited) -> dict[str, Any]:
    match event:
        case Said():
            return {"content": event.text}
        case Thought():
            delta: dict[str, Any] = {"reasoning_content": event.text} if event.text else {}
            if event.signature or event.redacted:
                delta["thinking_blocks"] = [_thinking_block(event.text, event)]
            return delta
        case Refused():
            return {"refusal": event.text}
        case ToolBegan():
            tool: dict[str, Any] = {
                "index": event.index,
                "id": event.id,
                "type": "function",
                "function": {"name": event.name, "arguments": ""},
            }
            return {"tool_calls": [_signed(tool, event)]}
        case ToolArgued():
            return {"tool_calls": [{"index": event.index, "function": {"arguments": event.fragment}}]}
        case Cited():
            return {"annotations": [_annotation(event)]}


class _Message:
    """An assistant's message, gathered from events."""

    def __init__(self) -> None:
        self.text = ""
        self._reasoning = ""
        self._unsigned = ""
        self._blocks: list[dict[str, Any]] = []
        self._refusal = ""
        self._tools: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []

    def add(self, event: Said | Thought | Refused | ToolBegan | ToolArgued | Cited) -> None:
        match event:
            case Said():
                self.text += event.text
            case Thought():
                self._think(event)
            case Refused():
                self._refusal += event.text
            case ToolBegan():
                tool = {"id": event.id, "type": "function", "function": {"name": event.name, "arguments": ""}}
                self._tools.append(_signed(tool, event))
            case ToolArgued():
                self._tools[event.index]["function"]["arguments"] += event.fragment
            case Cited():
                self._annotations.append(_annotation(event))

    def object(self) -> dict[str, Any]:
        said: dict[str, Any] = {
            "role": "assistant",
            "content": self.text or (None if self._tools or self._refusal else ""),
            "refusal": self._refusal or None,
        }
        if self._reasoning:
            said["reasoning_content"] = self._reasoning
        if self._blocks:
            said["thinking_blocks"] = self._blocks
        if self._tools:
            said["tool_calls"] = self._tools
        if self._annotations:
            said["annotations"] = self._annotations
        return said

    def _think(self, event: Thought) -> None:
        self._reasoning += event.text
        self._unsigned += event.text
        if event.signature or event.redacted:
            self._blocks.append(_thinking_block(self._unsigned, event))
            self._unsigned = ""


def _thinking_block(text: str, event: Thought) -> dict[str, Any]:
    """Anthropic's block, which has to come back unchanged with the next turn."""
    if event.redacted:
        return {"type": "redacted_thinking", "data": event.redacted}
    return {"type": "thinking", "thinking": text, "signature": event.signature}


def _signed(tool: dict[str, Any], event: ToolBegan) -> dict[str, Any]:
    """Carry Gemini's thought signature where Google's own compatible endpoint puts it."""
    if event.signature:
        tool["extra_content"] = {"google": {"thought_signature": event.signature}}
    return tool


def _annotation(event: Cited) -> dict[str, Any]:
    return {"type": "url_citation", "url_citation": {"url": event.url, "title": event.title}}
