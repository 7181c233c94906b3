"""Reads what Bedrock's Converse and ConverseStream answer."""

import base64
from typing import Any

import msgspec
from msgspec import Raw, Struct

from gateway.core.errors import Unreachable, UpstreamFailed
from gateway.providers.bedrock_errors import failed
from gateway.providers.bedrock_usage import Metadata, usage_of
from gateway.wire.events import Began, Cited, Counted, Ended, Event, Finish, Said, Thought, ToolArgued, ToolBegan

FINISHES: dict[str, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "tool_use": "tool_calls",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "guardrail_intervened": "content_filter",
    "content_filtered": "content_filter",
}
"""By `stopReason`; one yet unknown is a stop."""

FAILURES = frozenset({"malformed_model_output", "malformed_tool_use"})
"""Stop reasons of answers that went wrong: another attempt may do better."""


# ── What Bedrock says ────────────────────────────────────────────────────────────────────────────────────────────


class _Web(Struct):
    url: str | None = None


class _Location(Struct):
    web: _Web | None = None


class _Citation(Struct):
    title: str | None = None
    location: _Location | None = None


class _Text(Struct):
    text: str | None = None


class _Cited(Struct):
    content: list[_Text] | None = None
    citations: list[_Citation] | None = None


class _ReasoningText(Struct):
    text: str | None = None
    signature: str | None = None


class _Reasoning(Struct, rename="camel"):
    """Of a whole answer it has `reasoning_text`, of a stream `text` and `signature`."""

    reasoning_text: _ReasoningText | None = None
    text: str | None = None
    signature: str | None = None
    redacted_content: bytes | None = None


class _Tool(Struct, rename="camel"):
    """A call; `input` is an object of a whole answer's, and a piece of JSON in a stream's."""

    tool_use_id: str | None = None
    name: str | None = None
    type: str | None = None
    input: Raw = Raw(b"{}")  # pyright: ignore[reportCallIssue]


class _Block(Struct, rename="camel"):
    """A block of a whole answer, or the start of one, or a piece."""

    text: str | None = None
    tool_use: _Tool | None = None
    reasoning_content: _Reasoning | None = None
    citations_content: _Cited | None = None
    citation: _Citation | None = None
    image: Any = None


class _Start(Struct, rename="camel"):
    content_block_index: int = 0
    start: _Block | None = None


class _Delta(Struct, rename="camel"):
    content_block_index: int = 0
    delta: _Block | None = None


class _Stop(Struct, rename="camel"):
    stop_reason: str | None = None


class _Frame(Struct, rename="camel"):
    """An event of a stream, as `Frames` writes it."""

    message_start: Any = None
    content_block_start: _Start | None = None
    content_block_delta: _Delta | None = None
    content_block_stop: _Start | None = None
    message_stop: _Stop | None = None
    metadata: Metadata | None = None
    exception: str | None = None
    said: dict[str, Any] | None = None


class _Message(Struct):
    content: list[_Block] | None = None


class _Output(Struct):
    message: _Message | None = None


class _Answer(Metadata, rename="camel"):
    output: _Output | None = None
    stop_reason: str | None = None


_frame = msgspec.json.Decoder(_Frame)
_answer = msgspec.json.Decoder(_Answer)


# ── Decoding ─────────────────────────────────────────────────────────────────────────────────────────────────────


class ConverseDecoder:
    """Reads the events of one streamed answer. What was used comes last, behind the stop reason."""

    def __init__(self) -> None:
        self.finished = False
        self.complete = False
        self._began = False
        self._tools = 0
        self._open: dict[int, _Open] = {}
        self._metadata = Metadata()

    def feed(self, data: bytes) -> list[Event]:
        """Return what one event says; nothing for events of types yet unknown.

        Raises:
            UpstreamFailed: it is an error, or the answer went wrong.
        """
        frame = _frame.decode(data)
        if frame.metadata is not None:
            self._metadata = frame.metadata if frame.metadata.usage is not None else self._metadata
            return self._counted() if self.complete else []
        if self.complete:
            return []  # all was said, whatever fails now
        if frame.exception is not None:
            raise failed(frame.exception, {"message": "", **(frame.said or {})})
        if frame.message_stop is not None:
            return self._begin() + self._end(frame.message_stop.stop_reason)
        if (start := frame.content_block_start) is not None and start.start is not None:
            return self._begin() + self._block(start.content_block_index, start.start)
        if (delta := frame.content_block_delta) is not None and delta.delta is not None:
            return self._begin() + self._delta(delta.content_block_index, delta.delta)
        if (stop := frame.content_block_stop) is not None:
            return self._close(stop.content_block_index)
        return self._begin() if frame.message_start is not None else []

    def end(self) -> list[Event]:
        """Return nothing: all that counts was said when it came."""
        return []

    def lose(self) -> None:
        """Go on without an event: nothing is ever filled in but the arguments of a call, and none is read any more."""

    def _begin(self) -> list[Event]:
        if self._began:
            return []
        self._began = True
        return [Began("", "")]

    def _block(self, index: int, block: _Block) -> list[Event]:
        _refuse_image(block)
        tool = block.tool_use
        if tool is None or tool.type is not None:  # the server's own tools say themselves what they found
            return []
        self._open[index] = _Open(tool=self._tools)
        self._tools += 1
        return [ToolBegan(self._tools - 1, tool.tool_use_id or f"call_{self._tools - 1}", tool.name or "")]

    def _delta(self, index: int, delta: _Block) -> list[Event]:
        _refuse_image(delta)
        if delta.text:
            return [Said(delta.text)]
        if delta.citation is not None:
            return _citations([delta.citation])
        if delta.tool_use is not None:
            return self._argue(index, msgspec.json.decode(delta.tool_use.input, type=str))
        if delta.reasoning_content is not None:
            return self._reason(index, delta.reasoning_content)
        return []

    def _argue(self, index: int, fragment: str) -> list[Event]:
        block = self._open.get(index)
        if block is None or block.tool is None or not fragment:
            return []
        block.argued = True
        return [ToolArgued(block.tool, fragment)]

    def _reason(self, index: int, piece: _Reasoning) -> list[Event]:
        """Return the text of a thought; what seals it comes in pieces too, and is told when the block ends."""
        if piece.signature or piece.redacted_content:
            block = self._open.setdefault(index, _Open())
            block.signature += piece.signature or ""
            block.redacted += piece.redacted_content or b""
        return [Thought(piece.text)] if piece.text else []

    def _close(self, index: int) -> list[Event]:
        block = self._open.pop(index, None)
        if block is None:
            return []
        if block.tool is not None:
            return [] if block.argued else [ToolArgued(block.tool, "{}")]
        return _sealed("", block.signature, block.redacted)

    def _end(self, reason: str | None) -> list[Event]:
        closed = [event for index in list(self._open) for event in self._close(index)]
        ended = Ended(_finish(reason))
        self.complete = True
        return [*closed, ended, *self._counted()]

    def _counted(self) -> list[Event]:
        usage = usage_of(self._metadata)
        self.finished = self.finished or usage is not None
        return [] if usage is None else [Counted(usage)]


class _Open(Struct):
    """A block that has begun and not ended."""

    tool: int | None = None
    """Of a call: which of the answer's it is."""
    argued: bool = False
    signature: str = ""
    redacted: bytes = b""


def whole_events(body: bytes) -> list[Event] | None:
    """Return the events of a whole answer; `None`: it is none.

    Raises:
        UpstreamFailed: it went wrong.
        msgspec.DecodeError: it is not what Bedrock writes.
    """
    answer = _answer.decode(body)
    message = answer.output and answer.output.message
    if message is None:
        return None
    events: list[Event] = [Began("", "")]
    tools = 0
    for block in message.content or []:
        if block.tool_use is None:
            events += _block_events(block)
        elif block.tool_use.type is None:
            tool = block.tool_use
            given = "{}" if tool.input == b"null" else msgspec.json.format(tool.input, indent=-1).decode()
            events += [ToolBegan(tools, tool.tool_use_id or f"call_{tools}", tool.name or ""), ToolArgued(tools, given)]
            tools += 1
    events.append(Ended(_finish(answer.stop_reason)))
    usage = usage_of(answer)
    return events if usage is None else [*events, Counted(usage)]


def _block_events(block: _Block) -> list[Event]:
    """Return what a block other than a tool's says; nothing for kinds yet unknown."""
    _refuse_image(block)
    if block.text:
        return [Said(block.text)]
    if (cited := block.citations_content) is not None:
        said: list[Event] = [Said(piece.text) for piece in cited.content or [] if piece.text]
        return said + _citations(cited.citations or [])
    if (reasoning := block.reasoning_content) is not None:
        text = reasoning.reasoning_text or _ReasoningText()
        return _sealed(text.text or "", text.signature or "", reasoning.redacted_content or b"")
    return []


def _sealed(text: str, signature: str, redacted: bytes) -> list[Event]:
    """Return a thought and what it has to come back with."""
    events: list[Event] = [Thought(text, signature)] if text or signature else []
    return [*events, Thought(redacted=base64.b64encode(redacted).decode())] if redacted else events


def _citations(citations: list[_Citation]) -> list[Event]:
    return [
        Cited(citation.location.web.url, citation.title or "")
        for citation in citations
        if citation.location is not None and citation.location.web is not None and citation.location.web.url
    ]


def _refuse_image(block: _Block) -> None:
    if block.image is not None:
        error = UpstreamFailed("the model answered with a picture, which a chat completion cannot carry")
        error.retryable = False
        raise error


def _finish(reason: str | None) -> Finish:
    if reason in FAILURES:
        raise Unreachable(f"the model's answer failed: {reason}", code=reason)
    return FINISHES.get(reason or "", "stop")
