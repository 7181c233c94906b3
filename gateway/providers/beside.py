"""What OpenAI's dialect has beside generated answers: embeddings, moderations, images, speech, and all that goes on.

Requests and answers pass as they came. Looked at is only what our decisions go by: the model's name in a request, what
was used in an answer, and whether it is one; and a stream is complete only when it says so.
"""

from collections.abc import Sequence
from typing import Any, Protocol, cast

import msgspec
from msgspec import Raw, Struct

from gateway.core.call import OF_MODELS, Attempt, Operation
from gateway.core.errors import Unreachable, UpstreamFailed
from gateway.core.reply import Chunk
from gateway.providers.base import Provider, Reader, Request
from gateway.providers.beside_usage import usage_beside
from gateway.providers.embeddings import as_asked
from gateway.providers.failures import UNREADABLE
from gateway.providers.forward import ForwardReader
from gateway.providers.masking import without_credentials
from gateway.providers.openai_errors import failure_of, is_error
from gateway.providers.reader import Framed
from gateway.providers.vendors import Vendor
from gateway.wire.events import Counted, Ended, Event, Finish, Said

HELD_IN = {"embeddings": "data", "completions": "choices", "moderations": "results", "rerank": "results"}
"""The field of a whole answer without which it is none."""
LAST_EVENTS = frozenset(
    {"image_generation.completed", "image_edit.completed", "transcript.text.done", "speech.audio.done"}
)
"""The types of the events that complete a stream of images, of a transcription, of speech."""
FINISHES: dict[str, Finish] = {"length": "length", "content_filter": "content_filter"}
"""Of a completion; any other reason is a stop."""

OF_THE_CLIENT = ("anthropic-version", "anthropic-beta", "openai-beta")
"""Headers that say which API the client speaks: its word beats ours."""

_fields = msgspec.json.Decoder(dict[str, Raw])


class Server(Protocol):
    """Where requests go, and with which credential."""

    @property
    def headers(self) -> dict[str, str]:
        """Of every request, with lower-case names."""
        ...

    def at(self, attempt: Attempt, path: str) -> str:
        """Return the URL of `path` there, which begins with a slash."""
        ...


def beside_openai(server: Server, row: Vendor) -> dict[Operation, Provider]:
    """Return who does what a server of OpenAI's dialect does beside chat. One that lacks a path says so itself."""
    named: dict[Operation, Provider] = {one: Beside(server, one, row) for one in OF_MODELS if one != "chat"}
    return {**named, "forward": AsItCame(server)}


class Beside:
    """One operation that names a model.

    Args:
        server: who is asked.
        operation: what it is asked for.
        row: what the vendor calls otherwise than OpenAI; `None`: nothing.
    """

    def __init__(self, server: Server, operation: Operation, row: Vendor | None = None) -> None:
        self._server = server
        self._operation = operation
        self._row = row

    def request(self, attempt: Attempt) -> Request:
        """Return what to send: the request as it came, but for the model's name and what the vendor calls otherwise."""
        passage = attempt.passage
        assert passage is not None, "what goes on as it came says how it came"
        model, url = attempt.deployment.model, self._server.at(attempt, passage.path)
        if passage.form is not None:
            headers = {**self._server.headers, "content-type": passage.headers["content-type"]}
            return Request(url, b"", headers, upload=passage.form.to(model))
        changes = {} if self._row is None else self._row.renamed(attempt.body.fields)
        changes["model"] = model
        if self._operation == "completions" and attempt.stream:
            changes["stream_options"] = {"include_usage": True}
        return Request(url, attempt.body.but(**changes), dict(self._server.headers))

    def reader(self, attempt: Attempt) -> Reader:
        """Return a reader for a streamed answer."""
        if self._operation == "completions":
            return CompletionReader(CompletionDecoder(_completions(attempt)))
        return ForwardReader(TypedDecoder())

    def whole(self, attempt: Attempt, body: bytes) -> Chunk:
        """Return a whole answer.

        Raises:
            UpstreamFailed: it is none, whatever its status said.
        """
        body = body.strip()
        try:
            said = _fields.decode(body)
            error = {name: msgspec.json.decode(said[name]) for name in _TELLTALE if name in said}
        except UNREADABLE:
            raise Unreachable("the upstream answered 200, but not in JSON") from None
        needed = HELD_IN.get(self._operation, "")
        if (needed and needed not in said) or is_error({"choices": [], **error}):
            raise failure_of(body) if error else Unreachable(f"the upstream answered 200, but without `{needed}`")
        usage = usage_beside(said, attempt)
        if self._operation == "embeddings":
            body = as_asked(body, said, attempt.body)
        return Chunk(body, usage=usage)

    def error(self, status: int, headers: dict[str, str], body: bytes) -> UpstreamFailed:
        """Return what an error means."""
        return failure_of(without_credentials(body, self._server.headers), status, headers)


_TELLTALE = ("error", "object", "type", "message", "detail")


class AsItCame(Beside):
    """Whatever names no model: method, path, query and body go on, and any answer comes back."""

    def __init__(self, server: Server) -> None:
        super().__init__(server, "forward")

    def request(self, attempt: Attempt) -> Request:
        """Return what to send."""
        passage = attempt.passage
        assert passage is not None, "what goes on as it came says how it came"
        url = self._server.at(attempt, passage.path)
        if passage.query:
            url += ("&" if "?" in url else "?") + passage.query
        said = passage.headers
        own = {
            name: value
            for name, value in self._server.headers.items()
            if name != "content-type" and not (name in OF_THE_CLIENT and name in said)
        }
        return Request(url, b"", {**said, **own}, passage.method, passage.upload)


class Service(Struct, frozen=True):
    """An HTTP service that is no provider of models. Satisfies `Server`."""

    base_url: str
    headers: dict[str, str]

    def at(self, attempt: Attempt, path: str) -> str:
        """Return the URL of `path` there."""
        return self.base_url + path


# ── Streams ──────────────────────────────────────────────────────────────────────────────────────────────────────


class _Typed(Struct):
    type: str | None = None
    error: object = None


_typed = msgspec.json.Decoder(_Typed)


class TypedDecoder:
    """Reads events that say their `type`, of which some are the last."""

    def __init__(self) -> None:
        self.finished = False

    @property
    def complete(self) -> bool:
        """The last event was seen."""
        return self.finished

    def feed(self, data: bytes) -> list[Event]:
        """Return what the data of one event says.

        Raises:
            UpstreamFailed: it is an error.
        """
        if data.startswith(b"[DONE]"):
            return []
        event = _typed.decode(data)
        if event.error or event.type == "error":
            raise failure_of(data)
        if event.type not in LAST_EVENTS:
            return [Said("")]
        self.finished = True
        usage = usage_beside(_fields.decode(data), images=int(event.type.startswith("image_")))
        return [Ended("stop"), *([Counted(usage)] if usage is not None else [])]

    def end(self) -> list[Event]:
        """Return nothing: what is not said by the last event is not said."""
        return []

    def lose(self) -> None:
        """Go on without an event: nothing is ever filled in here."""


class _Choice(Struct):
    index: int = 0
    text: str | None = None
    finish_reason: str | None = None


class _Completion(Struct):
    choices: list[_Choice] | None = None
    usage: object = None
    error: object = None


_completion = msgspec.json.Decoder(_Completion)


class CompletionDecoder:
    """Reads the chunks of completions, of which `expected` are on their way."""

    def __init__(self, expected: int) -> None:
        self.finished = False
        self._expected = expected
        self._ended: set[int] = set()

    @property
    def complete(self) -> bool:
        """Every completion has its reason to end."""
        return len(self._ended) >= self._expected

    def feed(self, data: bytes) -> list[Event]:
        """Return what one chunk says.

        Raises:
            UpstreamFailed: it is an error.
        """
        if data.startswith(b"[DONE]"):
            self.finished = True
            return []
        chunk = _completion.decode(data)
        if chunk.error:
            raise failure_of(data)
        events: list[Event] = []
        for choice in chunk.choices or []:
            events += [Said(choice.text)] if choice.text else []
            if choice.finish_reason and choice.index not in self._ended:
                self._ended.add(choice.index)
                events += [Ended(FINISHES.get(choice.finish_reason, "stop"))] if self.complete else []
        if isinstance(chunk.usage, dict) and (usage := usage_beside(_fields.decode(data))) is not None:
            events.append(Counted(usage))
        return events

    def end(self) -> list[Event]:
        """Return nothing: what the chunks do not say is not said."""
        return []

    def lose(self) -> None:
        """Go on without a chunk: nothing is ever filled in here."""


class CompletionReader(ForwardReader):
    """Passes the chunks of completions on: the usage apart, for those who asked for it, and without the `[DONE]`."""

    def _chunks(self, events: Sequence[Framed]) -> list[Chunk]:
        chunks: list[Chunk] = []
        for event in events:
            if event.data.startswith(b"[DONE]"):
                self._decoder.feed(event.data)
                break
            try:
                chunks += [_marked(chunk) for chunk in super()._chunks([event])]
            except UpstreamFailed:
                if not chunks:
                    raise
        return chunks


def _marked(chunk: Chunk) -> Chunk:
    is_usage = chunk.usage is not None and not chunk.text and not chunk.finish_reason
    return msgspec.structs.replace(chunk, usage_only=True) if is_usage else chunk


def _completions(attempt: Attempt) -> int:
    """Return how many completions an attempt asks for: `n` for each of its prompts."""
    prompts, each = attempt.body.get("prompt"), attempt.body.get("n")
    many = len(cast("list[Any]", prompts)) if isinstance(prompts, list) else 1
    if isinstance(prompts, list) and all(isinstance(one, int) for one in cast("list[Any]", prompts)):
        many = 1  # one prompt, in tokens
    return many * (each if isinstance(each, int) and each > 0 else 1)
