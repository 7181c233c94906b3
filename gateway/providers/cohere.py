"""Cohere's chat API, version 2, spoken for clients of chat completions.

What a request keeps, loses and is refused for is said in `cohere_request`. Of an answer, the plan that comes before
tool calls is told as reasoning, and citations as annotations where their source has an address: one that has none, such
as a tool's result, cannot be said in a chat completion and is left out. Cohere counts all tokens but charges for fewer
(its own preamble is free), so both are kept. Sources: docs.cohere.com, "Chat", "Streaming", "Errors"; its SDK's types.
"""

from typing import Any, ClassVar, TypeVar, cast
from urllib.parse import quote

import msgspec
from msgspec import Struct

from gateway.core.call import Attempt, Operation
from gateway.core.errors import Unreachable, UpstreamFailed
from gateway.core.reply import Chunk
from gateway.core.usage import NOTHING_ELSE, Extras, Usage
from gateway.providers.base import Keyed, ModelPage, Provider, Request
from gateway.providers.cohere_embeddings import CohereEmbeddings
from gateway.providers.cohere_request import chat_body
from gateway.providers.cohere_rerank import CohereRerank
from gateway.providers.counting import count
from gateway.providers.embeddings import Embeddings
from gateway.providers.failures import UNREADABLE, error_object, failure
from gateway.providers.masking import without_credentials
from gateway.providers.model_lists import cohere_page
from gateway.providers.reader import EventReader
from gateway.providers.skipping import must_be_exact
from gateway.wire.chat_request import chat_request
from gateway.wire.events import Began, Cited, Counted, Ended, Event, Finish, Said, Thought, ToolArgued, ToolBegan
from gateway.wire.openai import ChatWriter

One = TypeVar("One")

FINISHES: dict[str, Finish] = {
    "COMPLETE": "stop",
    "STOP_SEQUENCE": "stop",
    "MAX_TOKENS": "length",
    "TOOL_CALL": "tool_calls",
}
"""By `finish_reason`; one yet unknown is a stop."""

FAILURES = {"ERROR": 500, "TIMEOUT": 408}
"""Finish reasons of answers that went wrong, and what each would have been as a status."""

FLAGGED = 498
"""Cohere's status for what its operators do not let through, be it of the prompt or of the answer."""


class CohereOptions(Keyed, frozen=True, kw_only=True):
    """Cohere, or a server that speaks its chat API (version 2)."""

    key_variable: ClassVar[str] = "CO_API_KEY"

    def price_table(self) -> str:
        """The vendor's own prices, at the vendor's own address."""
        return "" if self.base_url else "cohere"

    def build(self, name: str) -> "Cohere":
        """Make the provider."""
        return Cohere(self)


class Cohere:
    """Translates chat completions to Cohere's chat, and back."""

    def __init__(self, options: CohereOptions) -> None:
        base_url = (options.base_url or "https://api.cohere.com").rstrip("/").removesuffix("/v2")
        url = f"{base_url}/v2"
        self._url = f"{url}/chat"
        self._list_url = f"{base_url}/v1/models?page_size=1000"
        self._headers = {
            "content-type": "application/json",
            "authorization": f"Bearer {options.api_key.reveal()}",
            **{name.lower(): value for name, value in options.headers.items()},
        }
        self.beside_chat: dict[Operation, Provider] = {
            "embeddings": Embeddings(CohereEmbeddings(url, self._headers), self.error),
            "rerank": CohereRerank(url, self._headers, self.error),
        }

    def request(self, attempt: Attempt) -> Request:
        """Return what to send.

        Raises:
            BadRequest: Cohere has no way to say this.
        """
        request = chat_request(attempt.body.raw)
        body = chat_body(request, attempt.body, attempt.deployment.model, attempt.stream)
        return Request(self._url, msgspec.json.encode(body), dict(self._headers))

    def reader(self, attempt: Attempt) -> EventReader:
        """Return a reader for a streamed answer."""
        return EventReader(AnswerDecoder(), _writer(attempt), exact=must_be_exact(attempt, calls_come_whole=False))

    def whole(self, attempt: Attempt, body: bytes) -> Chunk:
        """Return a whole answer.

        Raises:
            UpstreamFailed: it is none, whatever its status said.
        """
        try:
            answer = _answer.decode(body)
        except UNREADABLE:
            answer = _Answer()
        if not isinstance(answer.message, _Message) or not answer.finish_reason:
            told = error_object(body)["message"] or "nothing"
            raise Unreachable(f"the upstream answered 200, but with no answer: {told}")
        return _writer(attempt).whole(answer_events(answer, answer.message))

    def list_request(self, page: str, wall_s: float) -> Request:
        """Return what to send for a page of the list of models, which only the first version of the API has."""
        token = f"&page_token={quote(page, safe='')}" if page else ""
        return Request(self._list_url + token, b"", dict(self._headers), "GET")

    def listed(self, body: bytes) -> ModelPage:
        """Return what a page says.

        Raises:
            Unreachable: it is no list of models.
        """
        return cohere_page(body)

    def error(self, status: int, headers: dict[str, str], body: bytes) -> UpstreamFailed:
        """Return what an error means."""
        message: str = error_object(without_credentials(body, self._headers))["message"]
        if status == FLAGGED:
            return failure(400, headers, message, code="content_filter")
        return failure(status, headers, message)


def _writer(attempt: Attempt) -> ChatWriter:
    return ChatWriter(attempt.id, attempt.model, int(attempt.clock.wall()))


# ── What Cohere says ─────────────────────────────────────────────────────────────────────────────────────────────


class _Part(Struct):
    text: str | None = None
    thinking: str | None = None


class _Function(Struct):
    name: str | None = None
    arguments: str | None = None


class _Call(Struct):
    id: str | None = None
    function: _Function | None = None


class _Source(Struct):
    document: dict[str, Any] | None = None
    tool_output: dict[str, Any] | None = None


class _Citation(Struct):
    sources: list[_Source] | None = None


class _Message(Struct):
    """Lists in a whole answer; in a stream, the one that the event is about."""

    content: list[_Part] | _Part | None = None
    tool_plan: str | None = None
    tool_calls: list[_Call] | _Call | None = None
    citations: list[_Citation] | _Citation | None = None


class _Tokens(Struct):
    input_tokens: float | None = None
    output_tokens: float | None = None
    search_units: float | None = None


class _Usage(Struct):
    billed_units: _Tokens | None = None
    tokens: _Tokens | None = None
    cached_tokens: float | None = None


class _Answer(Struct):
    id: str | None = None
    message: _Message | str | None = None
    """A text: what went wrong."""
    finish_reason: str | None = None
    error: str | None = None
    usage: _Usage | None = None


class _Event(Struct):
    type: str = ""
    id: str | None = None
    index: int = 0
    delta: _Answer | None = None
    message: str | None = None
    """Of an error, which is no event."""


_answer = msgspec.json.Decoder(_Answer)
_event = msgspec.json.Decoder(_Event)


# ── Decoding ─────────────────────────────────────────────────────────────────────────────────────────────────────


class _Tool(Struct):
    index: int
    argued: bool = False


class AnswerDecoder:
    """Reads the events of one streamed answer."""

    def __init__(self) -> None:
        self.finished = False
        self._began = False
        self._tools = 0
        self._open: dict[int, _Tool] = {}

    @property
    def complete(self) -> bool:
        """The event with the finish reason was seen, which is the last."""
        return self.finished

    def feed(self, data: bytes) -> list[Event]:
        """Return what the data of one event says; nothing for events of types yet unknown.

        Raises:
            UpstreamFailed: it is an error, or the answer went wrong.
        """
        if data.startswith(b"[DONE]"):
            return []
        event = _event.decode(data)
        if not event.type and event.message:
            raise failure(500, {}, event.message)
        delta = event.delta or _Answer()
        said = self._said(event, delta.message if isinstance(delta.message, _Message) else _Message())
        if event.type == "message-end":
            said += [*self._closed(list(self._open)), *_ending(delta, called=self._tools > 0)]
            self.finished = True
        if self._began or not (said or event.type == "message-start"):
            return said
        self._began = True
        return [Began(event.id or delta.id or "", ""), *said]

    def end(self) -> list[Event]:
        """Return nothing: what is not said by the last event is not said."""
        return []

    def lose(self) -> None:
        """Go on without an event: nothing is ever filled in here."""

    def _said(self, event: _Event, message: _Message) -> list[Event]:
        match event.type:
            case "content-start" | "content-delta" | "tool-plan-delta" | "citation-start":
                return _message_events(message)
            case "tool-call-start" | "tool-call-delta":
                return [one for call in _each(message.tool_calls) for one in self._call(event, call)]
            case "tool-call-end":
                return self._closed([event.index])
            case _:
                return []

    def _call(self, event: _Event, call: _Call) -> list[Event]:
        function = call.function or _Function()
        begun: list[Event] = []
        if event.type == "tool-call-start":
            tool = self._open[event.index] = _Tool(self._tools)
            self._tools += 1
            begun = [ToolBegan(tool.index, call.id or f"call_{tool.index}", function.name or "")]
        tool = self._open.get(event.index)
        if tool is None or not function.arguments:
            return begun
        tool.argued = True
        return [*begun, ToolArgued(tool.index, function.arguments)]

    def _closed(self, indexes: list[int]) -> list[Event]:
        """Return the arguments of calls that ended without any."""
        tools = [self._open.pop(index) for index in indexes if index in self._open]
        return [ToolArgued(tool.index, "{}") for tool in tools if not tool.argued]


def answer_events(answer: _Answer, message: _Message) -> list[Event]:
    """Return the events of a whole answer.

    Raises:
        UpstreamFailed: it went wrong.
    """
    events: list[Event] = [Began(answer.id or "", ""), *_message_events(message)]
    for number, call in enumerate(_each(message.tool_calls)):
        function = call.function or _Function()
        events.append(ToolBegan(number, call.id or f"call_{number}", function.name or ""))
        events.append(ToolArgued(number, function.arguments or "{}"))
    return events + _ending(answer, called=len(_each(message.tool_calls)) > 0)


def _message_events(message: _Message) -> list[Event]:
    """Return all that a message says but its tool calls."""
    events: list[Event] = [Thought(message.tool_plan)] if message.tool_plan else []
    for part in _each(message.content):
        events += [Thought(part.thinking)] if part.thinking else []
        events += [Said(part.text)] if part.text else []
    for citation in _each(message.citations):
        events += [cited for source in citation.sources or [] if (cited := _cited(source)) is not None]
    return events


def _cited(source: _Source) -> Cited | None:
    about = source.document or source.tool_output or {}
    url, title = about.get("url"), about.get("title")
    if not isinstance(url, str) or not url:
        return None
    return Cited(url, title if isinstance(title, str) else "")


def _each(said: list[One] | One | None) -> list[One]:
    if said is None:
        return []
    return cast("list[One]", said) if isinstance(said, list) else [said]


def _ending(answer: _Answer, *, called: bool) -> list[Event]:
    """Return why an answer ends and what it used.

    Args:
        answer: with its finish reason.
        called: tools were called, which clients only believe if the reason says so too.

    Raises:
        UpstreamFailed: it went wrong.
    """
    reason = answer.finish_reason or "COMPLETE"
    if reason in FAILURES:
        raise failure(FAILURES[reason], {}, answer.error or f'the upstream ended its answer with "{reason}"')
    finish = FINISHES.get(reason, "stop")
    ended = Ended("tool_calls" if finish == "stop" and called else finish)
    usage = _usage(answer.usage)
    return [ended] if usage is None else [ended, Counted(usage)]


def _usage(said: _Usage | None) -> Usage | None:
    """Convert; where only the billed units are said, they are what was used."""
    if said is None or (said.tokens is None and said.billed_units is None):
        return None
    used = said.tokens or said.billed_units or _Tokens()
    bill = said.billed_units
    prompt = count(used.input_tokens)
    return Usage(
        prompt,
        count(used.output_tokens),
        cached_tokens=min(count(said.cached_tokens), prompt),
        billed_tokens=None if bill is None else (count(bill.input_tokens), count(bill.output_tokens)),
        extras=Extras(searches=searches) if (searches := count(bill and bill.search_units)) else NOTHING_ELSE,
    )
