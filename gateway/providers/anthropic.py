"""Anthropic's Messages API, spoken for clients of chat completions.

The API version stays 2023-06-01: the newer one rejects sampling parameters even on models that still take them.
What a request keeps, loses and is refused for is said in `anthropic_request`. Sources: platform.claude.com/docs,
"Messages", "Streaming messages", "Stop reasons" and "Errors".
"""

from collections.abc import Mapping
from typing import Any, ClassVar, cast
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

from gateway.core.call import Attempt, Operation, Surface
from gateway.core.errors import Unreachable, UpstreamFailed
from gateway.core.model import ModelFacts
from gateway.core.reply import Chunk
from gateway.core.route import Prefill
from gateway.core.usage import Usage
from gateway.providers.anthropic_request import facts, messages_request, shown_facts
from gateway.providers.anthropic_usage import Tally, Used
from gateway.providers.base import Keyed, ModelPage, Provider, Request
from gateway.providers.beside import AsItCame
from gateway.providers.failures import SPENT, UNREADABLE, error_object, failure
from gateway.providers.forward import ForwardReader, heard
from gateway.providers.masking import without_credentials
from gateway.providers.model_lists import anthropic_page
from gateway.providers.reader import EventReader
from gateway.providers.skipping import lost, must_be_exact
from gateway.wire.chat_request import chat_request
from gateway.wire.events import (
    Began,
    Cited,
    Ended,
    Event,
    Finish,
    Refused,
    Said,
    Thought,
    ToolArgued,
    ToolBegan,
)
from gateway.wire.messages_request import without_our_thoughts
from gateway.wire.openai import ChatWriter

VERSION = "2023-06-01"

FINISHES: dict[str, Finish] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
"""By `stop_reason`. Others, `pause_turn` among them, are a stop: Anthropic may add values at any time."""

LAST_EVENT = b'event: message_stop\ndata: {"type":"message_stop"}\n\n'

STATUSES = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}
"""What an error within a stream would have been as an HTTP status."""


class AnthropicOptions(Keyed, frozen=True, kw_only=True):
    """Claude, at Anthropic or at a server that speaks its Messages API."""

    key_variable: ClassVar[str] = "ANTHROPIC_API_KEY"

    def price_table(self) -> str:
        """The vendor's own prices, at the vendor's own address."""
        return "" if self.base_url else "anthropic"

    def facts(self, model: str) -> ModelFacts:
        """Return what is known of a Claude."""
        return shown_facts(model)

    def prefill(self, model: str) -> Prefill:
        """Claude up to 4.5 does; later models reject it (docs, "Prefill Claude's response")."""
        return "plain" if "claude-" in model and facts(model).prefill else "none"

    def build(self, name: str) -> "Anthropic":
        """Make the provider."""
        base_url = (self.base_url or "https://api.anthropic.com").rstrip("/").removesuffix("/v1")
        more = {name.lower(): value for name, value in self.headers.items()}
        headers = {"anthropic-version": VERSION, "x-api-key": self.api_key.reveal(), **more}
        return Anthropic(f"{base_url}/v1", headers)


class Anthropic:
    """Translates chat completions to messages, and back; who speaks messages is passed on as they came.

    Args:
        base_url: with the version of the API.
        headers: with lower-case names; the key among them, if there is one.
    """

    surfaces: ClassVar[frozenset[Surface]] = frozenset({"chat", "messages"})
    passed: ClassVar[tuple[str, ...]] = ("anthropic-version", "anthropic-beta")
    """Headers of a client's that go with its own request: the version and the betas that it speaks."""

    def __init__(self, base_url: str, headers: Mapping[str, str]) -> None:
        self._base_url = base_url
        self.beside_chat: dict[Operation, Provider] = {"forward": AsItCame(self)}
        self.headers = {"content-type": "application/json", **headers}

    def at(self, attempt: Attempt, path: str) -> str:
        """Return the URL of `path` there."""
        return self._base_url + path

    def request(self, attempt: Attempt) -> Request:
        """Return what to send.

        Raises:
            BadRequest: Anthropic has no way to say this.
        """
        headers = dict(self.headers)
        if attempt.surface == "messages":
            body = without_our_thoughts(attempt.body).but(**self.named(attempt))
            headers |= {name: said for name in self.passed if (said := attempt.headers.get(name))}
            return Request(self.url(attempt), body, headers)
        request = chat_request(attempt.body.raw)
        said = messages_request(request, attempt.body, attempt.deployment.model, attempt.stream)
        named = {name: value for name, value in self.named(attempt).items() if value is not None}
        return Request(self.url(attempt), msgspec.json.encode(named | said), headers)

    def url(self, attempt: Attempt) -> str:
        """Return where messages are made."""
        return f"{self._base_url}/messages"

    def named(self, attempt: Attempt) -> dict[str, str | None]:
        """Return the fields that say which model, of which version; `None`: a client's own is taken out."""
        return {"model": attempt.deployment.model}

    def reader(self, attempt: Attempt) -> EventReader:
        """Return a reader for a streamed answer."""
        if attempt.surface == "messages":
            return ForwardReader(MessageDecoder(), last=LAST_EVENT)
        return EventReader(MessageDecoder(), _writer(attempt), exact=must_be_exact(attempt, calls_come_whole=False))

    def whole(self, attempt: Attempt, body: bytes) -> Chunk:
        """Return a whole answer.

        Raises:
            Unreachable: it is none, whatever its status said.
        """
        events: list[Event] = []
        try:
            message = _whole.decode(body)
            if message.type == "message":
                events = message_events(message)
        except UNREADABLE:
            pass  # told below
        if not events:
            error = error_object(body)
            told = error["message"] or "nothing"
            raise Unreachable(f"the upstream answered 200, but with no message: {told}", code=_code(error))
        return heard(body, events) if attempt.surface == "messages" else _writer(attempt).whole(events)

    def list_request(self, page: str, wall_s: float) -> Request:
        """Return what to send for a page of the list of models."""
        after = f"&after_id={quote(page, safe='')}" if page else ""
        return Request(f"{self._base_url}/models?limit=1000{after}", b"", dict(self.headers), "GET")

    def listed(self, body: bytes) -> ModelPage:
        """Return what a page says.

        Raises:
            Unreachable: it is no list of models.
        """
        return anthropic_page(body)

    def error(self, status: int, headers: dict[str, str], body: bytes) -> UpstreamFailed:
        """Return what an error means."""
        error = error_object(without_credentials(body, self.headers))
        return failure(status, headers, error["message"], code=_code(error))


def _writer(attempt: Attempt) -> ChatWriter:
    return ChatWriter(attempt.id, attempt.model, int(attempt.clock.wall()))


def _code(error: dict[str, Any]) -> str | None:
    """Return Anthropic's word for an error: its type, or the spend limit that was reached."""
    details = error.get("details")
    reached = cast("dict[str, Any]", details).get("error_code") if isinstance(details, dict) else None
    if isinstance(reached, str) and reached in SPENT:
        return reached
    kind = error.get("type")
    return kind if isinstance(kind, str) else None


# ── What Anthropic says ──────────────────────────────────────────────────────────────────────────────────────────


class _Citation(Struct):
    url: str | None = None
    title: str | None = None


class _Block(Struct):
    type: str
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: Raw = Raw(b"{}")  # pyright: ignore[reportCallIssue]
    citations: list[_Citation] | None = None


class _StopDetails(Struct):
    category: str | None = None
    explanation: str | None = None


class _Message(Struct):
    type: str = ""
    id: str | None = None
    model: str | None = None
    content: list[_Block] | None = None
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None
    usage: Used | None = None


class _Delta(Struct):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    citation: _Citation | None = None
    stop_reason: str | None = None
    stop_details: _StopDetails | None = None


class _Event(Struct):
    type: str = ""
    index: int = 0
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    usage: Used | None = None
    error: Any = None


_whole = msgspec.json.Decoder(_Message)
_event = msgspec.json.Decoder(_Event)

_NO_DELTA = _Delta()


# ── Decoding ─────────────────────────────────────────────────────────────────────────────────────────────────────


class _Tool(Struct):
    index: int
    given: str
    """The input that the block began with; used when no piece of it follows."""
    argued: bool = False


class MessageDecoder:
    """Reads the events of one streamed message."""

    def __init__(self) -> None:
        self.finished = False
        self.complete = False
        self._began = False
        self._tools = 0
        self._open: dict[int, _Tool] = {}
        self._tally = Tally()

    def feed(self, data: bytes) -> list[Event]:
        """Return what the data of one event says; nothing for pings and for events of types yet unknown.

        Raises:
            UpstreamFailed: it is an error.
        """
        event = _event.decode(data)
        delta = event.delta or _NO_DELTA
        match event.type:
            case "message_start" if event.message is not None:
                return self._begin(event.message)
            case "content_block_start" if event.content_block is not None:
                return self._began_first() + self._block(event.index, event.content_block)
            case "content_block_delta":
                return self._began_first() + self._delta(event.index, delta)
            case "content_block_stop":
                return self._close(event.index)
            case "message_delta":
                self._tally.add(event.usage)
                return self._end(delta.stop_reason, delta.stop_details) if delta.stop_reason else []
            case "message_stop":
                if self._tally.lossy and not self.complete:
                    raise lost()  # the stop reason, perhaps
                last = self._end("end_turn", None)  # nothing, unless the message_delta is missing
                self.finished = True
                return last + self._tally.counted()
            case "error":
                raise _streamed_error(data)
            case _:
                return []

    @property
    def so_far(self) -> Usage | None:
        """What was used by now."""
        return self._tally.so_far

    def end(self) -> list[Event]:
        """Return what was used, when the answer has its stop reason but the stream ends without `message_stop`."""
        return self._tally.counted() if self.complete and not self.finished else []

    def lose(self) -> None:
        """Go on without an event, which may have been the stop reason, or the prompt's tokens."""
        self._tally.lossy = True

    def _begin(self, message: _Message) -> list[Event]:
        self._tally.add(message.usage)
        if self._began:
            return []  # some intermediaries say it twice
        self._began = True
        return [Began(message.id or "", message.model or "")]

    def _began_first(self) -> list[Event]:
        return [] if self._began else self._begin(_Message())

    def _block(self, index: int, block: _Block) -> list[Event]:
        if block.type != "tool_use":
            return _block_events(block)
        tool = self._open[index] = _Tool(self._tools, _given(block))
        self._tools += 1
        return [ToolBegan(tool.index, block.id or f"call_{tool.index}", block.name or "")]

    def _delta(self, index: int, delta: _Delta) -> list[Event]:
        match delta.type:
            case "text_delta" if delta.text:
                return [Said(delta.text)]
            case "thinking_delta" if delta.thinking:
                return [Thought(delta.thinking)]
            case "signature_delta" if delta.signature:
                return [Thought(signature=delta.signature)]
            case "input_json_delta" if delta.partial_json and (tool := self._open.get(index)) is not None:
                tool.argued = True
                return [ToolArgued(tool.index, delta.partial_json)]
            case "citations_delta" if delta.citation is not None:
                return _citations([delta.citation])
            case _:
                return []

    def _close(self, index: int) -> list[Event]:
        tool = self._open.pop(index, None)
        return [] if tool is None or tool.argued else [ToolArgued(tool.index, tool.given)]

    def _end(self, reason: str | None, details: _StopDetails | None) -> list[Event]:
        if self.complete:
            return []
        self.complete = True
        closed = [event for index in list(self._open) for event in self._close(index)]
        return [*self._began_first(), *closed, *_ending(reason, details)]


def message_events(message: _Message) -> list[Event]:
    """Return the events of a whole message."""
    events: list[Event] = [Began(message.id or "", message.model or "")]
    tools = 0
    for block in message.content or []:
        if block.type == "tool_use":
            events.append(ToolBegan(tools, block.id or f"call_{tools}", block.name or ""))
            events.append(ToolArgued(tools, _given(block)))
            tools += 1
        else:
            events += _block_events(block)
    tally = Tally()
    tally.add(message.usage)
    return [*events, *_ending(message.stop_reason, message.stop_details), *tally.counted()]


def _given(block: _Block) -> str:
    """Return a tool's input as compact JSON: an object, also when nothing was said."""
    given = bytes(block.input)
    return "{}" if given == b"null" else msgspec.json.format(given, indent=-1).decode()


def _block_events(block: _Block) -> list[Event]:
    """Return what a block other than a tool's says; nothing for server tools and kinds yet unknown."""
    match block.type:
        case "text":
            said: list[Event] = [Said(block.text)] if block.text else []
            return said + _citations(block.citations or [])
        case "thinking" if block.thinking or block.signature:
            return [Thought(block.thinking or "", block.signature or "")]
        case "redacted_thinking" if block.data:
            return [Thought(redacted=block.data)]
        case _:
            return []


def _citations(citations: list[_Citation]) -> list[Event]:
    return [Cited(citation.url, citation.title or "") for citation in citations if citation.url]


def _ending(reason: str | None, details: _StopDetails | None) -> list[Event]:
    finish = FINISHES.get(reason or "", "stop")
    why = details and (details.explanation or details.category)
    return [Refused(why), Ended(finish)] if why and reason == "refusal" else [Ended(finish)]


def _streamed_error(data: bytes) -> UpstreamFailed:
    error = error_object(data)
    code = _code(error)
    return failure(STATUSES.get(str(error.get("type")), 500), {}, error["message"], code=code)
