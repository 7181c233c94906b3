"""Ollama's own chat API, spoken for clients of chat completions.

Its OpenAI-compatible endpoint (`kind: openai`, `vendor: ollama`) cannot be told how long the context is, and silently
forgets what does not fit; this one can, and says so. What a request keeps, loses and is refused for is said in
`ollama_request`. An answer comes as lines of JSON, its tool calls whole. What a prompt used is not said when Ollama had
it in its cache; then nothing is told of the usage, and it is estimated. Source: docs.ollama.com/api.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import msgspec
from msgspec import Meta, Raw, Struct

from gateway.core.call import Attempt, Operation
from gateway.core.errors import Unreachable, UpstreamFailed
from gateway.core.reply import Chunk
from gateway.core.secret import Secret
from gateway.core.usage import Usage
from gateway.providers.base import Keyed, ModelPage, Provider, Request
from gateway.providers.counting import count
from gateway.providers.embeddings import Embeddings
from gateway.providers.failures import UNREADABLE, error_object, failure
from gateway.providers.masking import without_credentials
from gateway.providers.model_lists import ollama_page
from gateway.providers.ollama_embeddings import OllamaEmbeddings
from gateway.providers.ollama_request import chat_body
from gateway.providers.reader import EventReader
from gateway.providers.skipping import must_be_exact
from gateway.wire import ndjson
from gateway.wire.chat_request import chat_request
from gateway.wire.events import Began, Counted, Ended, Event, Said, Thought, ToolArgued, ToolBegan
from gateway.wire.openai import ChatWriter

NO_ANSWERS = frozenset({"load", "unload"})
"""Values of `done_reason` that tell of the model and not of an answer."""


class OllamaOptions(Keyed, frozen=True, kw_only=True):
    """Ollama, by its own API. Nothing is needed on the same machine; an `api_key` only in Ollama's cloud."""

    key_variable: ClassVar[str] = "OLLAMA_API_KEY"

    api_key: Secret = Secret()
    """Of Ollama's cloud, or of a proxy in front of one's own. Empty: none is sent."""
    base_url: str = ""
    """Where it is, with or without a path; `http://localhost:11434` when left out."""
    num_ctx: Annotated[int, Meta(ge=1)] | None = None
    """Tokens of context, prompt and answer together. Left out: as the model says, or else Ollama's own default."""
    keep_alive: str = ""
    """How long the model stays in memory after a call (`10m`; `-1m`: for ever). Empty: as Ollama is set up."""
    options: Mapping[str, int | float | bool] = {}
    """More of Ollama's options for each call, such as `num_gpu` or `repeat_penalty`. A client's own go before them."""

    def off(self) -> str:
        """Nothing is needed."""
        return ""

    def build(self, name: str) -> "Ollama":
        """Make the provider."""
        return Ollama(self)


class Ollama:
    """Translates chat completions to Ollama's chat, and back."""

    def __init__(self, options: OllamaOptions) -> None:
        base_url = (options.base_url or "http://localhost:11434").rstrip("/")
        url = f"{base_url.removesuffix('/v1').removesuffix('/api')}/api"
        self._url = f"{url}/chat"
        self._headers = {"content-type": "application/json"}
        if options.api_key:
            self._headers["authorization"] = f"Bearer {options.api_key.reveal()}"
        self._headers |= {name.lower(): value for name, value in options.headers.items()}
        context = {} if options.num_ctx is None else {"num_ctx": options.num_ctx}
        self._options: dict[str, Any] = {**options.options, **context}
        self._keep_alive = options.keep_alive
        dialect = OllamaEmbeddings(url, self._headers, self._options, self._keep_alive)
        self.beside_chat: dict[Operation, Provider] = {"embeddings": Embeddings(dialect, self.error)}

    def request(self, attempt: Attempt) -> Request:
        """Return what to send.

        Raises:
            BadRequest: Ollama has no way to say this.
        """
        request = chat_request(attempt.body.raw)
        body = chat_body(request, attempt.body, attempt.deployment.model, attempt.stream, self._options)
        if self._keep_alive:
            body.setdefault("keep_alive", self._keep_alive)
        return Request(self._url, msgspec.json.encode(body), dict(self._headers))

    def reader(self, attempt: Attempt) -> EventReader:
        """Return a reader for a streamed answer."""
        exact = must_be_exact(attempt, calls_come_whole=True)
        return EventReader(LineDecoder(attempt.id), _writer(attempt), exact=exact, splitter=ndjson.Splitter())

    def whole(self, attempt: Attempt, body: bytes) -> Chunk:
        """Return a whole answer; all of its lines, where it was streamed though nobody asked for that.

        Raises:
            UpstreamFailed: it is none, whatever its status said.
        """
        decoder, events = LineDecoder(attempt.id), list[Event]()
        try:
            for line in _line.decode_lines(body):
                events += decoder.take(line)
        except UNREADABLE:
            decoder.finished = False  # told below
        if not decoder.finished:
            told = error_object(body)["message"] or "nothing"
            raise Unreachable(f"the upstream answered 200, but with no whole answer: {told[:200]}")
        return _writer(attempt).whole(events)

    def list_request(self, page: str, wall_s: float) -> Request:
        """Return what to send for the list of the models that were pulled, which is one page."""
        return Request(f"{self._url.removesuffix('/chat')}/tags", b"", dict(self._headers), "GET")

    def listed(self, body: bytes) -> ModelPage:
        """Return which models there are.

        Raises:
            Unreachable: it is no list of models.
        """
        return ollama_page(body)

    def error(self, status: int, headers: dict[str, str], body: bytes) -> UpstreamFailed:
        """Return what an error means."""
        return failure(status, headers, error_object(without_credentials(body, self._headers))["message"])


def _writer(attempt: Attempt) -> ChatWriter:
    return ChatWriter(attempt.id, attempt.model, int(attempt.clock.wall()))


# ── What Ollama says ─────────────────────────────────────────────────────────────────────────────────────────────


class _Function(Struct):
    name: str = ""
    arguments: Raw = Raw(b"{}")  # pyright: ignore[reportCallIssue]


class _Call(Struct):
    function: _Function
    id: str = ""


class _Message(Struct):
    content: str | None = None
    thinking: str | None = None
    tool_calls: list[_Call] | None = None


class _Line(Struct):
    model: str = ""
    message: _Message | None = None
    done: bool = False
    done_reason: str | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    error: str | None = None


_line = msgspec.json.Decoder(_Line)


# ── Decoding ─────────────────────────────────────────────────────────────────────────────────────────────────────


class LineDecoder:
    """Reads the lines of one answer, or the only one of a whole answer.

    Args:
        id: of the call; makes ids for tool calls, of which older versions have none.
    """

    def __init__(self, id: str) -> None:
        self.finished = False
        self._id = id
        self._began = False
        self._tools = 0

    @property
    def complete(self) -> bool:
        """The line that says `done` was seen, which is the last."""
        return self.finished

    def feed(self, data: bytes) -> list[Event]:
        """Return what one line says.

        Raises:
            UpstreamFailed: it is an error.
        """
        return self.take(_line.decode(data))

    def take(self, line: _Line) -> list[Event]:
        """Return what one line says.

        Raises:
            UpstreamFailed: it is an error.
        """
        if line.error:
            raise failure(500, {}, line.error)
        message = line.message or _Message()
        events: list[Event] = [] if self._began else [Began("", line.model)]
        self._began = True
        events += [Thought(message.thinking)] if message.thinking else []
        events += [Said(message.content)] if message.content else []
        for call in message.tool_calls or []:
            events += self._call(call)
        return events + self._ending(line) if line.done else events

    def end(self) -> list[Event]:
        """Return nothing: what is not said by the last line is not said."""
        return []

    def lose(self) -> None:
        """Go on without a line: nothing is ever filled in here."""

    def _call(self, call: _Call) -> list[Event]:
        """Return a call, its arguments all at once."""
        index, given = self._tools, bytes(call.function.arguments)
        self._tools += 1
        compact = "{}" if given == b"null" else msgspec.json.format(given, indent=-1).decode()
        id = call.id or f"call_{self._id}_{index}"
        return [ToolBegan(index, id, call.function.name), ToolArgued(index, compact)]

    def _ending(self, line: _Line) -> list[Event]:
        """Return why the answer ends and what it used. Ollama says `stop` for tool calls too.

        Raises:
            Unreachable: it is no answer that ended.
        """
        if line.done_reason in NO_ANSWERS:
            raise Unreachable(f'the upstream ended with "{line.done_reason}" and did not answer')
        self.finished = True
        finish = "length" if line.done_reason == "length" else "tool_calls" if self._tools else "stop"
        prompt = count(line.prompt_eval_count)
        return [Ended(finish), Counted(Usage(prompt, count(line.eval_count)))] if prompt else [Ended(finish)]
