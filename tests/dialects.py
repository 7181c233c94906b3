"""What a scripted upstream says, in the dialect of the path that was asked: OpenAI, Anthropic, Gemini or Bedrock."""

import json
import re
from dataclasses import dataclass, field
from typing import Any, ClassVar

from tests import frames

CREATED = 1_790_000_000


@dataclass(frozen=True)
class Asked:
    """A request as it arrived."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    """Lower-case names."""
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed; `None` when it is empty or no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None

    @property
    def model(self) -> str:
        """The model that is to answer; Gemini's path names it."""
        return (self.json or {}).get("model") or self.path.rpartition("/")[2].partition(":")[0]

    @property
    def stream(self) -> bool:
        """Whether the answer is to be a stream."""
        return self.path.endswith((":streamGenerateContent", "/converse-stream")) or bool(
            (self.json or {}).get("stream")
        )


@dataclass(frozen=True)
class Says:
    """An answer and what it used. `completion_tokens` is the number of words unless said."""

    text: str = ""
    prompt_tokens: int = 10
    completion_tokens: int | None = None
    cached_tokens: int = 0
    finish: str = "stop"
    """OpenAI's word for it: `stop`, `length`, `content_filter`."""
    tool: str = ""
    """The name of a tool to call instead of saying something."""
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def words(self) -> list[str]:
        """The text in the pieces that a stream says one by one."""
        return re.findall(r"\S+\s*|\s+", self.text)

    @property
    def used(self) -> int:
        """Completion tokens."""
        return len(self.words) if self.completion_tokens is None else self.completion_tokens


def whole(says: Says, asked: Asked) -> bytes:
    """Return the whole answer as a body."""
    return json.dumps(_dialect(asked.path).whole(says, asked)).encode()


def events(says: Says, asked: Asked) -> list[bytes]:
    """Return the answer as the events of a stream, the closing ones included."""
    return _dialect(asked.path).events(says, asked)


def pieces(says: Says, asked: Asked) -> list[bytes]:
    """Return the answer in the pieces in which it may come: events, or a body that is cut at its words."""
    if asked.stream:
        return events(says, asked)
    before, _, after = whole(says, asked).partition(json.dumps(says.text).encode())
    return [before + b'"', *(json.dumps(word)[1:-1].encode() for word in says.words), b'"' + after]


def failing(says: Says, message: str, kind: str, asked: Asked) -> list[bytes]:
    """Return a stream that says its text and then, in place of a finish, that it failed."""
    dialect = _dialect(asked.path)
    more = Says(f"{says.text} .") if says.text else Says(".")
    said = dialect.events(more, asked)[: dialect.opening + len(says.words)]
    return [*said, dialect.error(message, kind)]


def _dialect(path: str) -> "type[_OpenAI | _Responses | _Anthropic | _Gemini | _Bedrock]":
    if path.endswith(("/messages", ":rawPredict", ":streamRawPredict")):
        return _Anthropic
    if path.endswith("/responses"):
        return _Responses
    if path.endswith(("/converse", "/converse-stream")):
        return _Bedrock
    return _Gemini if path.endswith("enerateContent") else _OpenAI


def _sse(data: object, name: str = "") -> bytes:
    line = data if isinstance(data, str) else json.dumps(data)
    return (f"event: {name}\n" if name else "").encode() + f"data: {line}\n\n".encode()


class _OpenAI:
    """`/v1/chat/completions`."""

    opening = 1
    """Events before the first word."""

    @staticmethod
    def usage(says: Says) -> dict[str, Any]:
        return {
            "prompt_tokens": says.prompt_tokens,
            "completion_tokens": says.used,
            "total_tokens": says.prompt_tokens + says.used,
            "prompt_tokens_details": {"cached_tokens": says.cached_tokens},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }

    @classmethod
    def whole(cls, says: Says, asked: Asked) -> dict[str, Any]:
        message: dict[str, Any] = {"role": "assistant", "content": says.text, "refusal": None}
        if says.tool:
            function = {"name": says.tool, "arguments": json.dumps(says.arguments)}
            message["content"] = None
            message["tool_calls"] = [{"id": "call_1", "type": "function", "function": function}]
        finish = "tool_calls" if says.tool else says.finish
        return {
            "id": "chatcmpl-scripted",
            "object": "chat.completion",
            "created": CREATED,
            "model": (asked.json or {}).get("model", ""),
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
            "usage": cls.usage(says),
        }

    @classmethod
    def events(cls, says: Says, asked: Asked) -> list[bytes]:
        request = asked.json or {}
        counted = bool((request.get("stream_options") or {}).get("include_usage"))
        head: dict[str, Any] = {
            "id": "chatcmpl-scripted",
            "object": "chat.completion.chunk",
            "created": CREATED,
            "model": request.get("model", ""),
        }
        unsaid: dict[str, Any] = {"usage": None} if counted else {}

        def chunk(delta: dict[str, Any], finish: str | None = None) -> bytes:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
            return _sse({**head, "choices": [choice], **unsaid})

        said = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": word}) for word in says.words)]
        if says.tool:
            function = {"name": says.tool, "arguments": ""}
            call = {"index": 0, "id": "call_1", "type": "function", "function": function}
            said = [chunk({"role": "assistant", "content": None, "tool_calls": [call]})]
            for fragment in _halves(json.dumps(says.arguments)):
                said.append(chunk({"tool_calls": [{"index": 0, "function": {"arguments": fragment}}]}))
        said.append(chunk({}, "tool_calls" if says.tool else says.finish))
        if counted:
            said.append(_sse({**head, "choices": [], "usage": cls.usage(says)}))
        return [*said, _sse("[DONE]")]

    @staticmethod
    def error(message: str, kind: str) -> bytes:
        return _sse({"error": {"message": message, "type": kind, "param": None, "code": None}})


class _Responses:
    """`/v1/responses`."""

    opening = 3

    @classmethod
    def whole(cls, says: Says, asked: Asked) -> dict[str, Any]:
        return cls.response(says, asked, [cls.item(says, "completed")])

    @classmethod
    def events(cls, says: Says, asked: Asked) -> list[bytes]:
        at: dict[str, Any] = {"output_index": 0, "item_id": "it_scripted", "content_index": 0}
        part: dict[str, Any] = {"type": "output_text", "text": "", "annotations": []}
        said = [
            ("created", {"response": cls.response(says, asked, [])}),
            ("output_item.added", {"output_index": 0, "item": cls.item(Says(tool=says.tool), "in_progress")}),
        ]
        if says.tool:
            halves = _halves(json.dumps(says.arguments))
            said += [("function_call_arguments.delta", {**at, "delta": half}) for half in halves]
            said.append(("function_call_arguments.done", {**at, "arguments": json.dumps(says.arguments)}))
        else:
            said.append(("content_part.added", {**at, "part": part}))
            said += [("output_text.delta", {**at, "delta": word, "logprobs": []}) for word in says.words]
            said.append(("content_part.done", {**at, "part": {**part, "text": says.text}}))
        said.append(("output_item.done", {"output_index": 0, "item": cls.item(says, "completed")}))
        said.append(("completed", {"response": cls.whole(says, asked)}))
        return [
            _sse({"type": f"response.{name}", "sequence_number": number, **more}, f"response.{name}")
            for number, (name, more) in enumerate(said)
        ]

    @staticmethod
    def item(says: Says, status: str) -> dict[str, Any]:
        item = {"id": "it_scripted", "status": status}
        if says.tool:
            arguments = json.dumps(says.arguments) if says.arguments else ""
            return {**item, "type": "function_call", "call_id": "call_1", "name": says.tool, "arguments": arguments}
        text = [{"type": "output_text", "text": says.text, "annotations": []}] if says.text else []
        return {**item, "type": "message", "role": "assistant", "content": text}

    @staticmethod
    def response(says: Says, asked: Asked, output: list[dict[str, Any]]) -> dict[str, Any]:
        done = bool(output)
        usage = {
            "input_tokens": says.prompt_tokens,
            "input_tokens_details": {"cached_tokens": says.cached_tokens},
            "output_tokens": says.used,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": says.prompt_tokens + says.used,
        }
        return {
            "id": "resp_scripted",
            "object": "response",
            "created_at": CREATED,
            "status": "completed" if done else "in_progress",
            "model": (asked.json or {}).get("model", ""),
            "output": output,
            "parallel_tool_calls": True,
            "tool_choice": "auto",
            "tools": [],
            "usage": usage if done else None,
        }

    @staticmethod
    def error(message: str, kind: str) -> bytes:
        return _sse({"type": "error", "code": kind, "message": message, "param": None, "sequence_number": 9}, "error")


class _Anthropic:
    """`/v1/messages`."""

    opening = 2

    stops: ClassVar = {"stop": "end_turn", "length": "max_tokens", "content_filter": "refusal"}

    @classmethod
    def stop(cls, says: Says) -> str:
        return "tool_use" if says.tool else cls.stops[says.finish]

    @staticmethod
    def usage(says: Says) -> dict[str, Any]:
        return {
            "input_tokens": says.prompt_tokens - says.cached_tokens,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": says.cached_tokens,
            "output_tokens": says.used,
        }

    @classmethod
    def whole(cls, says: Says, asked: Asked) -> dict[str, Any]:
        block: dict[str, Any] = {"type": "text", "text": says.text}
        if says.tool:
            block = {"type": "tool_use", "id": "toolu_1", "name": says.tool, "input": says.arguments}
        return {
            "id": "msg_scripted",
            "type": "message",
            "role": "assistant",
            "model": (asked.json or {}).get("model", ""),
            "content": [block],
            "stop_reason": cls.stop(says),
            "stop_sequence": None,
            "usage": cls.usage(says),
        }

    @classmethod
    def events(cls, says: Says, asked: Asked) -> list[bytes]:
        begun = {**cls.whole(says, asked), "content": [], "stop_reason": None}
        begun["usage"] = {**cls.usage(says), "output_tokens": 1}
        block: dict[str, Any] = {"type": "text", "text": ""}
        deltas: list[dict[str, Any]] = [{"type": "text_delta", "text": word} for word in says.words]
        if says.tool:
            block = {"type": "tool_use", "id": "toolu_1", "name": says.tool, "input": {}}
            halves = _halves(json.dumps(says.arguments))
            deltas = [{"type": "input_json_delta", "partial_json": half} for half in halves]
        said: list[dict[str, Any]] = [
            {"type": "message_start", "message": begun},
            {"type": "content_block_start", "index": 0, "content_block": block},
            *({"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas),
            {"type": "content_block_stop", "index": 0},
            {
                "type": "message_delta",
                "delta": {"stop_reason": cls.stop(says), "stop_sequence": None},
                "usage": cls.usage(says),
            },
            {"type": "message_stop"},
        ]
        return [_sse(event, event["type"]) for event in said]

    @staticmethod
    def error(message: str, kind: str) -> bytes:
        return _sse({"type": "error", "error": {"type": kind, "message": message}}, "error")


class _Gemini:
    """`/v1beta/models/{model}:generateContent` and `:streamGenerateContent?alt=sse`."""

    opening = 0
    stops: ClassVar = {"stop": "STOP", "length": "MAX_TOKENS", "content_filter": "SAFETY"}

    @classmethod
    def piece(cls, parts: list[dict[str, Any]], says: Says, asked: Asked, last: bool) -> dict[str, Any]:
        candidate: dict[str, Any] = {"content": {"parts": parts, "role": "model"}, "index": 0}
        usage = {"promptTokenCount": says.prompt_tokens, "totalTokenCount": says.prompt_tokens}
        if last:
            candidate["finishReason"] = cls.stops[says.finish]
            usage = {
                "promptTokenCount": says.prompt_tokens,
                "candidatesTokenCount": says.used,
                "totalTokenCount": says.prompt_tokens + says.used,
            }
        if says.cached_tokens:
            usage["cachedContentTokenCount"] = says.cached_tokens
        said = {"candidates": [candidate], "usageMetadata": usage}
        return {**said, "modelVersion": asked.model, "responseId": "scripted"}

    @classmethod
    def parts(cls, says: Says) -> list[dict[str, Any]]:
        if says.tool:
            return [{"functionCall": {"name": says.tool, "args": says.arguments}}]
        return [{"text": word} for word in says.words]

    @classmethod
    def whole(cls, says: Says, asked: Asked) -> dict[str, Any]:
        parts = cls.parts(says) if says.tool else [{"text": says.text}]
        return cls.piece(parts, says, asked, last=True)

    @classmethod
    def events(cls, says: Says, asked: Asked) -> list[bytes]:
        parts = cls.parts(says) or [{"text": ""}]
        return [_sse(cls.piece([part], says, asked, last=part is parts[-1])) for part in parts]

    @staticmethod
    def error(message: str, kind: str) -> bytes:
        return _sse({"error": {"code": 503, "message": message, "status": kind.upper()}})


class _Bedrock:
    """`/model/{model}/converse` and `/model/{model}/converse-stream`."""

    opening = 1
    stops: ClassVar = {"stop": "end_turn", "length": "max_tokens", "content_filter": "content_filtered"}

    @classmethod
    def stop(cls, says: Says) -> str:
        return "tool_use" if says.tool else cls.stops[says.finish]

    @staticmethod
    def usage(says: Says) -> dict[str, Any]:
        return {
            "inputTokens": says.prompt_tokens - says.cached_tokens,
            "outputTokens": says.used,
            "totalTokens": says.prompt_tokens + says.used,
            "cacheReadInputTokens": says.cached_tokens,
            "cacheWriteInputTokens": 0,
        }

    @classmethod
    def whole(cls, says: Says, asked: Asked) -> dict[str, Any]:
        block: dict[str, Any] = {"text": says.text}
        if says.tool:
            block = {"toolUse": {"toolUseId": "tooluse_1", "name": says.tool, "input": says.arguments}}
        return {
            "metrics": {"latencyMs": 1},
            "output": {"message": {"role": "assistant", "content": [block]}},
            "stopReason": cls.stop(says),
            "usage": cls.usage(says),
        }

    @classmethod
    def events(cls, says: Says, asked: Asked) -> list[bytes]:
        blocks: list[tuple[str, dict[str, Any]]] = [
            ("contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": word}}) for word in says.words
        ]
        if says.tool:
            start = {"toolUse": {"toolUseId": "tooluse_1", "name": says.tool}}
            blocks = [("contentBlockStart", {"contentBlockIndex": 0, "start": start})]
            for half in _halves(json.dumps(says.arguments)):
                delta = {"contentBlockIndex": 0, "delta": {"toolUse": {"input": half}}}
                blocks.append(("contentBlockDelta", delta))
        said: list[tuple[str, dict[str, Any]]] = [
            ("messageStart", {"role": "assistant"}),
            *blocks,
            ("contentBlockStop", {"contentBlockIndex": 0}),
            ("messageStop", {"stopReason": cls.stop(says)}),
            ("metadata", {"usage": cls.usage(says), "metrics": {"latencyMs": 1}}),
        ]
        return [frames.message("event", name, json.dumps({**payload, "p": "abc"}).encode()) for name, payload in said]

    @staticmethod
    def error(message: str, kind: str) -> bytes:
        return frames.message("exception", "serviceUnavailableException", json.dumps({"message": message}).encode())


def _halves(text: str) -> list[str]:
    return [text[: len(text) // 2], text[len(text) // 2 :]]
