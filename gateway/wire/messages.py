"""Anthropic's Messages surface, as clients expect it: answers, errors, counts of tokens.

Sources: platform.claude.com/docs, "Messages", "Streaming messages", "Errors", and what the official SDKs do: they skip
events without their `event:` line in silence, take a stream that breaks off for a whole one, and read `usage` from the
`message_delta`, which overwrites what `message_start` said.
"""

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from gateway.core.call import Body, Call
from gateway.core.errors import TOO_LONG, GatewayError
from gateway.core.reply import Chunk
from gateway.core.usage import Usage
from gateway.wire.estimate import prompt_tokens, text_tokens
from gateway.wire.events import Began, Counted, Ended, Event, Finish, Refused, Said
from gateway.wire.messages_blocks import Blocks
from gateway.wire.messages_request import chat_body
from gateway.wire.openai import encode, unseen_chars

STOP_REASONS: dict[Finish, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
}
"""Which stop sequence an answer ended at is not known of other upstreams; such an ending is an `end_turn`."""

ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
"""By status. Others are an `invalid_request_error` below 500, and an `api_error` from there on."""

PROMPT_TOO_LONG = "prompt is too long"
"""What Anthropic's own error begins with. Claude Code looks for it, and then makes the conversation shorter."""


class MessagesSurface:
    """`POST /v1/messages`."""

    done = b""
    id_header = "request-id"

    def chat_body(self, body: Body) -> Body:
        """Return a request as one for a chat completion.

        Raises:
            BadRequest: a chat completion has no way to say this.
        """
        return chat_body(body)

    def writer(self, call: Call) -> "MessagesWriter":
        """Return a writer for the answer to `call`."""
        return MessagesWriter(call.id, call.model, count_tokens(call.body))

    def error_body(self, error: GatewayError, call_id: str) -> bytes:
        """Return an error as an answer."""
        return error_body(error, call_id)

    def error_event(self, error: GatewayError, call_id: str) -> bytes:
        """Return an error within a stream."""
        return error_event(error, call_id)


# ── Errors ───────────────────────────────────────────────────────────────────────────────────────────────────────


def error_body(error: GatewayError, request_id: str) -> bytes:
    """Return Anthropic's error object. The field that it is about stands in its message, as Anthropic has it."""
    usual = "invalid_request_error" if error.status < 500 else "api_error"
    message = error.message
    if error.code == TOO_LONG and not message.lower().startswith(PROMPT_TOO_LONG):
        message = f"{PROMPT_TOO_LONG}: {message}"
    elif error.param and not re.search(rf"(?<!\w){re.escape(error.param)}(?!\w)", message):
        message = f"{error.param}: {message}"
    said: dict[str, Any] = {"type": ERROR_TYPES.get(error.status, usual), "message": message}
    if error.code:
        said["details"] = {"error_code": error.code}
    return encode({"type": "error", "error": said, "request_id": request_id})


def error_event(error: GatewayError, request_id: str) -> bytes:
    """Return an in-band error: what a stream says instead of its end when it cannot go on."""
    return b"event: error\ndata: " + error_body(error, request_id) + b"\n\n"


# ── Answers ──────────────────────────────────────────────────────────────────────────────────────────────────────


def usage_object(usage: Usage) -> dict[str, Any]:
    """Return Anthropic's usage object: its `input_tokens` leave out what was read from and written to the cache."""
    fresh = usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens
    said: dict[str, Any] = {
        "input_tokens": max(0, fresh),
        "cache_creation_input_tokens": usage.cache_write_tokens,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    }
    if hour := usage.extras.cache_write_1h_tokens:
        five_minutes = usage.cache_write_tokens - hour
        said["cache_creation"] = {"ephemeral_5m_input_tokens": five_minutes, "ephemeral_1h_input_tokens": hour}
    if usage.extras.searches:
        said["server_tool_use"] = {"web_search_requests": usage.extras.searches}
    if usage.reasoning_tokens:
        said["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    if usage.estimated:
        said["estimated"] = True
    return said


class MessagesWriter:
    """Writes neutral events as the events of one streamed message, or as one whole message.

    Args:
        id: of the call; the message's own where the upstream says none.
        model: the message's, where the upstream says none.
        prompt_tokens: about how many; told at once, for only the end knows, and clients show how full a context is.
    """

    def __init__(self, id: str, model: str, prompt_tokens: int = 0) -> None:
        self._id = f"msg_{id}"
        self._model = model
        self._prompt_tokens = prompt_tokens
        self._begun = False
        self._blocks = Blocks(id)
        self._refusal = ""
        self._reason: Finish = "stop"
        self._usage: Usage | None = None
        self._chars = 0

    def stream(self, events: list[Event]) -> list[Chunk]:
        """Return the chunks that say `events`, usage apart; why the answer ends, and what it used, is said by `end`.

        Raises:
            Unreachable: a tool call goes on behind its end.
        """
        text = "".join(event.text for event in events if isinstance(event, Said))
        unseen = sum(map(unseen_chars, events))
        self._chars += len(text) + unseen
        said = [message for event in events for message in self._taken(event)]
        grown = list(self._blocks.written())
        silent = not (grown or text or unseen)
        if grown:
            said = [*self._beginning(), *said, *grown]
        chunks = [Chunk(_framed(said), text, silent=silent, unseen=unseen)] if said or not silent else []
        used = [event.usage for event in events if isinstance(event, Counted)]
        if used:
            # Nothing to be sent yet, but those who keep the accounts must know, should the client leave now.
            chunks.append(Chunk(b"", usage=used[-1], usage_only=True, silent=True))
        return chunks

    def end(self) -> list[Chunk]:
        """Return the end of a stream that ended well; asked once."""
        delta = self._ending()
        usage = self._usage or self._estimate()
        said = [
            *self._beginning(),
            *self._blocks.rest(),
            {"type": "message_delta", "delta": delta, "usage": usage_object(usage)},
            {"type": "message_stop"},
        ]
        return [Chunk(_framed(said), usage=self._usage, finish_reason=self._reason)]

    def whole(self, events: list[Event]) -> Chunk:
        """Return the message that `events` tell.

        Raises:
            Unreachable: a tool is called with what is no JSON object.
        """
        text = "".join(event.text for event in events if isinstance(event, Said))
        unseen = sum(map(unseen_chars, events))
        self._chars = len(text) + unseen
        for event in events:
            self._taken(event)
        content = self._blocks.whole(is_cut=self._reason in ("length", "content_filter"))
        usage = self._usage or self._estimate()
        said = {**self._head(), "content": content, **self._ending(), "usage": usage_object(usage)}
        return Chunk(encode(said), text, self._usage, self._reason, unseen=unseen)

    def _taken(self, event: Event) -> list[dict[str, Any]]:
        """Take what an event says; return what it begins."""
        match event:
            case Began():
                self._id, self._model = event.id or self._id, event.model or self._model
                return self._beginning()
            case Ended():
                self._reason = event.reason
            case Counted():
                self._usage = event.usage
            case Refused():
                self._refusal += event.text
            case _:
                self._blocks.add(event)
        return []

    def _beginning(self) -> list[dict[str, Any]]:
        if self._begun:
            return []
        self._begun = True
        usage = usage_object(Usage(self._prompt_tokens))
        nothing: dict[str, Any] = {"content": [], "stop_reason": None, "stop_sequence": None}
        return [{"type": "message_start", "message": {**self._head(), **nothing, "usage": usage}}]

    def _head(self) -> dict[str, Any]:
        return {"id": self._id, "type": "message", "role": "assistant", "model": self._model}

    def _ending(self) -> dict[str, Any]:
        """Return why the answer ends. Upstreams that were told which tool to call say `stop` for its call."""
        reason = STOP_REASONS[self._reason]
        if self._refusal:
            details = {"type": "refusal", "category": None, "explanation": self._refusal}
            return {"stop_reason": "refusal", "stop_sequence": None, "stop_details": details}
        if self._blocks.called and reason == "end_turn":
            reason = "tool_use"
        return {"stop_reason": reason, "stop_sequence": None}

    def _estimate(self) -> Usage:
        return Usage(self._prompt_tokens, text_tokens(self._chars), estimated=True)


def _framed(said: Iterable[dict[str, Any]]) -> bytes:
    return b"".join([b"event: %s\ndata: %s\n\n" % (event["type"].encode(), encode(event)) for event in said])


# ── Counting ─────────────────────────────────────────────────────────────────────────────────────────────────────


def count_tokens(body: Body) -> int:
    """Return about how many tokens a request is for a model."""
    said = (body.fields.get(name) for name in ("system", "messages", "tools"))
    return sum(prompt_tokens(bytes(raw)) for raw in said if raw is not None)


def count_answer(body: Body) -> bytes:
    """Return the answer of `POST /v1/messages/count_tokens`."""
    return msgspec.json.encode({"input_tokens": count_tokens(body)})
