"""OpenAI's Responses surface, as its clients expect it: a response, whole or as a stream of events.

Every event is numbered; the first has the response as it was asked for, the last as it is. There is no `[DONE]`.
Sources: the official SDK's types and its helper that gathers a stream, which refuses an id that changes and a delta
before its item; Codex, which takes items from `response.output_item.done` and asks again unless it is told the end.
"""

from typing import Any

import msgspec
from msgspec import Raw

from gateway.core.call import Body, Call
from gateway.core.errors import GatewayError
from gateway.core.reply import Chunk
from gateway.core.usage import Usage
from gateway.wire.events import Began, Counted, Ended, Event, Finish, Said
from gateway.wire.openai import encode, error_body, unseen_chars
from gateway.wire.responses_items import Output
from gateway.wire.responses_kept import SEALED
from gateway.wire.responses_request import chat_body
from gateway.wire.responses_tools import Json, read_tools

ECHOED: Json = {
    "background": False,
    "conversation": None,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "service_tier": None,
    "store": True,
    "temperature": None,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "top_p": None,
    "user": None,
}
"""Fields of a request that its response says again, and what they are when they were left out or `null`."""

REASONS: dict[Finish, str] = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Why a response is incomplete. With any other finish it is complete."""


class ResponsesSurface:
    """`POST /v1/responses`."""

    done = b""
    id_header = ""

    def chat_body(self, body: Body) -> Body:
        """Return a request as one for a chat completion.

        Raises:
            BadRequest: a chat completion has no way to say this.
        """
        return chat_body(body)

    def writer(self, call: Call) -> "ResponsesWriter":
        """Return a writer for the answer to `call`."""
        turn = call.turn
        keeps = turn is not None and turn.keeps
        fields = {**call.body.fields, "store": Raw(b"true" if keeps else b"false")}
        if turn is not None and turn.previous:
            fields["previous_response_id"] = Raw(encode(turn.previous))
        body = Body(call.body.raw, fields)
        return ResponsesWriter(call.id, call.model, int(call.clock.wall()), body, keeps=keeps)

    def error_body(self, error: GatewayError, call_id: str) -> bytes:
        """Return OpenAI's error object."""
        return error_body(error)

    def error_event(self, error: GatewayError, call_id: str) -> bytes:
        """Return an error within a stream, in the form that the official SDKs raise."""
        said = msgspec.json.decode(error_body(error))
        return b"event: error\ndata: " + encode({"type": "error", **said}) + b"\n\n"


class ResponsesWriter:
    """Writes neutral events as the events of a response, or as one whole response.

    Args:
        id: of the call.
        model: which was asked for; what the upstream says instead counts.
        created: Unix time in seconds.
        request: the body of `POST /v1/responses`, one that `chat_body` takes; the response says it again.
        keeps: the answer is to be kept: see `Chunk.answer`.
    """

    def __init__(self, id: str, model: str, created: int, request: Body, *, keeps: bool = False) -> None:
        tools = read_tools(request.get("tools") or [])
        self._model = model
        self._keeps = keeps
        self._head: Json = {"id": f"resp_{id}", "object": "response", "created_at": created, "completed_at": None}
        self._echo = _echo(request, tools.offered)
        self._output = Output(id, tools.origins, sealed=SEALED in (request.get("include") or ()), emit=self._emit)
        self._usage: Usage | None = None
        self._finish: Finish | None = None
        self._number = 0
        self._run: list[bytes] = []

    def stream(self, events: list[Event]) -> list[Chunk]:
        """Return the chunks that say `events`. Usage is noted and sent at the end."""
        text, silent, counted = "", True, self._usage
        for event in events:
            match event:
                case Began():
                    self._model = event.model or self._model
                    self._open()
                case Counted():
                    self._usage = event.usage
                case Ended():
                    self._open()
                    self._end(event.reason)
                    silent = False
                case _:
                    self._open()
                    self._output.add(event)
                    text += event.text if isinstance(event, Said) else ""
                    silent = False
        unseen = sum(map(unseen_chars, events))
        chunks = [Chunk(self._taken(), text, silent=silent, unseen=unseen)] if self._run else []
        if self._usage is not counted:
            chunks.append(Chunk(b"", usage=self._usage, usage_only=True, silent=True))
        return chunks

    def end(self) -> list[Chunk]:
        """Return the last event, when nothing more comes; nothing where the answer was not said to have ended."""
        if self._finish is None:
            return []
        status = self._status()
        self._emit(f"response.{status}", response=self._response(status))
        return [Chunk(self._taken(), usage=self._usage, finish_reason=self._finish, answer=self._answer())]

    def whole(self, events: list[Event]) -> Chunk:
        """Return the response that `events` tell."""
        text = "".join(chunk.text for chunk in self.stream(events))
        unseen = sum(map(unseen_chars, events))
        if self._finish is None:
            self._end("stop")
        said = encode(self._response(self._status()))
        return Chunk(said, text, self._usage, self._finish or "", unseen=unseen, answer=self._answer())

    def _open(self) -> None:
        if not self._number:
            self._emit("response.created", response=self._response("in_progress"))
            self._emit("response.in_progress", response=self._response("in_progress"))

    def _end(self, reason: Finish) -> None:
        if self._finish is None:
            self._finish = reason
            self._output.close(cut=reason in REASONS)

    def _status(self) -> str:
        return "incomplete" if self._finish in REASONS else "completed"

    def _answer(self) -> bytes:
        """Return the response as it is to be kept: with all that has to come back to the upstream."""
        return encode(self._response(self._status(), sealed=True)) if self._keeps else b""

    def _response(self, status: str, *, sealed: bool | None = None) -> Json:
        reason = REASONS.get(self._finish) if status == "incomplete" and self._finish else None
        return {
            **self._head,
            "status": status,
            "error": None,
            "incomplete_details": {"reason": reason} if reason else None,
            "model": self._model,
            "output": self._output.shown(sealed=sealed),
            "usage": None if self._usage is None else _usage(self._usage),
            **self._echo,
        }

    def _emit(self, type: str, **fields: object) -> None:
        said = {"type": type, "sequence_number": self._number, **fields}
        self._number += 1
        self._run.append(b"event: " + type.encode() + b"\ndata: " + encode(said) + b"\n\n")

    def _taken(self) -> bytes:
        run, self._run = self._run, []
        return b"".join(run)


def _echo(request: Body, offered: list[Json]) -> Json:
    """Return what a response says of its request: what is in effect, so without tools that the model does not get."""
    said: Json = {}
    for name, default in ECHOED.items():
        value: Any = request.get(name)
        said[name] = default if value is None else value
    said["text"] = {**ECHOED["text"], **said["text"]}
    if isinstance(said["conversation"], str):
        said["conversation"] = {"id": said["conversation"]}
    return {**said, "tools": offered, "top_logprobs": 0, "truncation": "disabled"}


def _usage(usage: Usage) -> Json:
    said: Json = {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": usage.cache_write_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }
    return {**said, "estimated": True} if usage.estimated else said
