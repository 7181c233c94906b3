"""Google's Gemini API (`generateContent`), spoken for clients of chat completions.

What a request keeps, loses and is refused for is said in `gemini_request`. A stream has no last event: it is complete
when it ends after a finish reason. Sources: ai.google.dev/api, "Generating content", "Thought signatures".
"""

import re
from collections.abc import Mapping
from typing import Any, ClassVar, cast
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

from gateway.core.call import Attempt, Operation
from gateway.core.errors import Unreachable, UpstreamFailed
from gateway.core.reply import Chunk
from gateway.core.usage import NOTHING_ELSE, Extras, Usage, tier_named
from gateway.providers.base import Keyed, ModelPage, Provider, Request
from gateway.providers.counting import count
from gateway.providers.embeddings import Embeddings
from gateway.providers.failures import UNREADABLE, credential_refused, error_object, failure
from gateway.providers.gemini_embeddings import GeminiEmbeddings
from gateway.providers.gemini_partial import PartialArg, PartialCall
from gateway.providers.gemini_request import content_request
from gateway.providers.masking import without_credentials
from gateway.providers.model_lists import gemini_page
from gateway.providers.reader import EventReader
from gateway.providers.skipping import must_be_exact
from gateway.wire.chat_request import chat_request
from gateway.wire.events import Began, Counted, Ended, Event, Finish, Refused, Said, Thought, ToolArgued, ToolBegan
from gateway.wire.openai import ChatWriter

FINISHES: dict[str, Finish] = {
    "STOP": "stop",
    "MAX_TOKENS": "length",
    "CONTINUATION": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "MODEL_ARMOR": "content_filter",
    "ESCALATION": "content_filter",
}
"""By `finishReason`; `IMAGE_…` is a content filter too, and one yet unknown is a stop."""

FAILURES = frozenset(
    {
        "MALFORMED_FUNCTION_CALL",
        "MALFORMED_RESPONSE",
        "MISSING_THOUGHT_SIGNATURE",
        "OTHER",
        "TOO_MANY_TOOL_CALLS",
        "UNEXPECTED_TOOL_CALL",
    }
)
"""Finish reasons of answers that went wrong: another attempt may do better, and none of them is a stop."""


class GeminiOptions(Keyed, frozen=True, kw_only=True):
    """Gemini, at Google's Gemini API."""

    key_variable: ClassVar[str] = "GEMINI_API_KEY"

    def price_table(self) -> str:
        """The vendor's own prices, at the vendor's own address."""
        return "" if self.base_url else "google"

    def build(self, name: str) -> "Gemini":
        """Make the provider."""
        base_url = (self.base_url or "https://generativelanguage.googleapis.com").rstrip("/")
        more = {name.lower(): value for name, value in self.headers.items()}
        headers = {"x-goog-api-key": self.api_key.reveal(), **more}
        return Gemini(f"{base_url.removesuffix('/v1beta')}/v1beta/models/", headers)


class Gemini:
    """Translates chat completions to generated content, and back.

    Args:
        models_url: what a model's name is written behind.
        headers: with lower-case names; the key among them, if there is one.
    """

    def __init__(self, models_url: str, headers: Mapping[str, str]) -> None:
        self._url = models_url
        self._headers = {"content-type": "application/json", **headers}
        dialect = GeminiEmbeddings(self._url, self._headers)
        self.beside_chat: dict[Operation, Provider] = {"embeddings": Embeddings(dialect, self.error)}

    def request(self, attempt: Attempt) -> Request:
        """Return what to send.

        Raises:
            BadRequest: Gemini has no way to say this.
        """
        model = attempt.deployment.model.removeprefix("models/")
        method = ":streamGenerateContent?alt=sse" if attempt.stream else ":generateContent"
        body = content_request(chat_request(attempt.body.raw), attempt.body, model)
        url = self._url + quote(model, safe="") + method  # a name with a slash or a question mark stays a name
        return Request(url, msgspec.json.encode(body), dict(self._headers))

    def reader(self, attempt: Attempt) -> EventReader:
        """Return a reader for a streamed answer."""
        return EventReader(ContentDecoder(), _writer(attempt), exact=must_be_exact(attempt, calls_come_whole=True))

    def whole(self, attempt: Attempt, body: bytes) -> Chunk:
        """Return a whole answer.

        Raises:
            UpstreamFailed: it is none, whatever its status said.
        """
        decoder, events = ContentDecoder(), list[Event]()
        try:
            events = decoder.feed(body)
        except UpstreamFailed as error:
            if decoder.began:
                raise
            raise Unreachable(
                f"the upstream answered 200, but with an error: {error.message}", code=error.code
            ) from error
        except UNREADABLE:
            pass  # no JSON, or not Gemini's: told below
        last = decoder.end()
        if not last:
            told = error_object(body)["message"] or "nothing"
            raise Unreachable(f"the upstream answered 200, but with no content: {told}")
        return _writer(attempt).whole(events + last)

    def list_request(self, page: str, wall_s: float) -> Request:
        """Return what to send for a page of the list of models."""
        token = f"&pageToken={quote(page, safe='')}" if page else ""
        return Request(f"{self._url.rstrip('/')}?pageSize=1000{token}", b"", dict(self._headers), "GET")

    def listed(self, body: bytes) -> ModelPage:
        """Return what a page says.

        Raises:
            Unreachable: it is no list of models.
        """
        return gemini_page(body)

    def error(self, status: int, headers: dict[str, str], body: bytes) -> UpstreamFailed:
        """Return what an error means."""
        return _failure(status, headers, error_object(without_credentials(body, self._headers)))


def _writer(attempt: Attempt) -> ChatWriter:
    return ChatWriter(attempt.id, attempt.model, int(attempt.clock.wall()))


def _failure(status: int, headers: dict[str, str], error: dict[str, Any]) -> UpstreamFailed:
    """Return what an error means; when to ask again stands in its details, not in a header."""
    code = error.get("status")
    said = error.get("details")
    for detail in cast("list[Any]", said) if isinstance(said, list) else []:
        if not isinstance(detail, dict):
            continue
        fields = cast("dict[str, Any]", detail)
        if fields.get("reason") == "API_KEY_INVALID":  # comes with a 400
            return credential_refused(status, word="API_KEY_INVALID")
        if match := re.fullmatch(r"(\d+(?:\.\d+)?)s", str(fields.get("retryDelay", ""))):
            headers = {"retry-after": match[1], **headers}
    return failure(status, headers, error["message"], code=code if isinstance(code, str) else None)


# ── What Gemini says ─────────────────────────────────────────────────────────────────────────────────────────────


class _Call(Struct, rename="camel"):
    name: str = ""
    args: Raw = Raw(b"{}")  # pyright: ignore[reportCallIssue]
    id: str | None = None
    partial_args: list[PartialArg] | None = None
    will_continue: bool | None = None


class _Data(Struct, rename="camel"):
    mime_type: str = ""


class _Part(Struct, rename="camel"):
    text: str | None = None
    thought: bool | None = None
    thought_signature: str | None = None
    function_call: _Call | None = None
    inline_data: _Data | None = None


class _Content(Struct):
    parts: list[_Part] | None = None


class _Candidate(Struct, rename="camel"):
    content: _Content | None = None
    finish_reason: str | None = None
    finish_message: str | None = None
    index: int | None = None


class _Feedback(Struct, rename="camel"):
    block_reason: str | None = None
    block_reason_message: str | None = None


class _Modality(Struct, rename="camel"):
    modality: str = ""
    token_count: int | None = None


class _Usage(Struct, rename="camel"):
    prompt_token_count: int | None = None
    candidates_token_count: int | None = None
    thoughts_token_count: int | None = None
    cached_content_token_count: int | None = None
    tool_use_prompt_token_count: int | None = None
    prompt_tokens_details: list[_Modality] | None = None
    cache_tokens_details: list[_Modality] | None = None
    service_tier: Any = None
    traffic_type: str | None = None


class _Answer(Struct, rename="camel"):
    candidates: list[_Candidate] | None = None
    prompt_feedback: _Feedback | None = None
    usage_metadata: _Usage | None = None
    model_version: str | None = None
    response_id: str | None = None
    error: Raw = Raw()


_answer = msgspec.json.Decoder(_Answer)
_answers = msgspec.json.Decoder(list[_Answer])


# ── Decoding ─────────────────────────────────────────────────────────────────────────────────────────────────────


class ContentDecoder:
    """Reads the pieces of one answer, or the only one of a whole answer."""

    finished = False
    """Never: what was used may stand in a piece behind the finish reason, so the stream's end is waited for."""

    def __init__(self) -> None:
        self._id = ""
        self.began = False
        self._tools = 0
        self._partial: PartialCall | None = None
        self._ending: list[Event] = []
        self._usage: _Usage | None = None

    def feed(self, data: bytes) -> list[Event]:
        """Return what one piece says.

        Raises:
            UpstreamFailed: it is an error, or the answer went wrong.
        """
        answer = _one(data)
        if bytes(answer.error) not in (b"", b"null"):
            raise _streamed_error(data)
        self._usage = answer.usage_metadata or self._usage
        events = self._begin(answer)
        for candidate in answer.candidates or []:
            if not candidate.index:
                events += self._candidate(candidate)
        feedback = answer.prompt_feedback
        if feedback is not None and feedback.block_reason and not answer.candidates:
            why = feedback.block_reason_message or f"the prompt was blocked: {feedback.block_reason}"
            self._ending = [Refused(why), Ended("content_filter")]
        return events

    def end(self) -> list[Event]:
        """Return the finish and what was used; nothing while no finish reason was seen."""
        if not self._ending:
            return []
        return [*self._ending, Counted(_usage(self._usage))] if self._usage is not None else self._ending

    def lose(self) -> None:
        """Go on without a piece: nothing is ever filled in here."""

    @property
    def so_far(self) -> Usage | None:
        """What was used by now."""
        return None if self._usage is None else _usage(self._usage)

    @property
    def complete(self) -> bool:
        """A finish reason was seen."""
        return bool(self._ending)

    def _begin(self, answer: _Answer) -> list[Event]:
        if self.began or not (answer.candidates or answer.prompt_feedback):
            return []
        self.began, self._id = True, answer.response_id or ""
        return [Began(self._id, answer.model_version or "")]

    def _candidate(self, candidate: _Candidate) -> list[Event]:
        parts = (candidate.content and candidate.content.parts) or []
        events = [event for part in parts for event in self._part(part)]
        if reason := candidate.finish_reason:
            events += self._closed()  # cut short, if it was open: the reason says so
            self._ending = self._finish(reason, candidate.finish_message or "")
        return events

    def _part(self, part: _Part) -> list[Event]:
        if part.function_call is not None:
            return self._call(part.function_call, part.thought_signature or "")
        if part.inline_data is not None:
            told = f"the model answered with {part.inline_data.mime_type}, which a chat completion cannot carry"
            error = UpstreamFailed(told)
            error.retryable = False
            raise error
        if not part.text:
            return []
        return [Thought(part.text) if part.thought else Said(part.text)]

    def _call(self, call: _Call, signature: str) -> list[Event]:
        """Return a call, its arguments all at once. Gemini often gives it no id, so one is made of the answer's."""
        if self._partial is not None and not call.name:
            return self._more(self._partial, call)
        index, given = self._tools, bytes(call.args)
        self._tools += 1
        events = [*self._closed(), ToolBegan(index, call.id or f"call_{self._id}_{index}", call.name, signature)]
        if call.will_continue or call.partial_args:
            self._partial = PartialCall(index)
            return events + self._more(self._partial, call)
        compact = "{}" if given == b"null" else msgspec.json.format(given, indent=-1).decode()
        return [*events, ToolArgued(index, compact)]

    def _more(self, partial: PartialCall, call: _Call) -> list[Event]:
        """Take a piece of the call that is open; its arguments are told when all are here: only then are they JSON."""
        for arg in call.partial_args or []:
            partial.add(arg)
        return [] if call.will_continue else self._closed()

    def _closed(self) -> list[Event]:
        partial, self._partial = self._partial, None
        return [] if partial is None else [ToolArgued(partial.index, partial.json())]

    def _finish(self, reason: str, why: str) -> list[Event]:
        """Return the ending. Gemini says STOP for tool calls too."""
        if reason in FAILURES:
            raise Unreachable(f"the model's answer failed: {why or reason}", code=reason.lower())
        finish = "content_filter" if reason.startswith("IMAGE_") else FINISHES.get(reason, "stop")
        if finish == "stop" and self._tools:
            finish = "tool_calls"
        return [Refused(why), Ended(finish)] if finish == "content_filter" and why else [Ended(finish)]


def _one(data: bytes) -> _Answer:
    """Decode a piece; an error may come as a list of one."""
    if data.lstrip()[:1] != b"[":
        return _answer.decode(data)
    answers = _answers.decode(data)
    return answers[0] if answers else _Answer()


def _usage(said: _Usage) -> Usage:
    """Convert: Gemini's candidates leave out its thoughts, and its prompt what its own tools read; ours hold both."""
    thoughts = count(said.thoughts_token_count)
    prompt = count(said.prompt_token_count) + count(said.tool_use_prompt_token_count)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=count(said.candidates_token_count) + thoughts,
        cached_tokens=min(count(said.cached_content_token_count), prompt),
        reasoning_tokens=thoughts,
        service_tier=tier_named(said.service_tier or TRAFFIC.get(said.traffic_type or "", said.traffic_type)),
        extras=_extras(said),
    )


TRAFFIC = {"ON_DEMAND_FLEX": "flex", "ON_DEMAND_PRIORITY": "priority", "TRAFFIC_TYPE_UNSPECIFIED": ""}
"""Vertex's words for the service tiers; `ON_DEMAND` is the usual one."""


def _extras(said: _Usage) -> Extras:
    """Return how many tokens were of sound, of pictures (documents are seen as such) and of video."""
    sent = _by_modality(said.prompt_tokens_details)
    audio, image, video = sent.get("AUDIO", 0), sent.get("IMAGE", 0) + sent.get("DOCUMENT", 0), sent.get("VIDEO", 0)
    if not (audio or image or video):
        return NOTHING_ELSE
    cached = None if said.cache_tokens_details is None else _by_modality(said.cache_tokens_details)
    return Extras(
        audio_prompt_tokens=audio,
        image_prompt_tokens=image,
        video_prompt_tokens=video,
        cached_audio_tokens=None if cached is None else min(cached.get("AUDIO", 0), audio),
        cached_image_tokens=None if cached is None else min(cached.get("IMAGE", 0) + cached.get("DOCUMENT", 0), image),
    )


def _by_modality(details: list[_Modality] | None) -> dict[str, int]:
    return {one.modality: count(one.token_count) for one in details or ()}


def _streamed_error(data: bytes) -> UpstreamFailed:
    error = error_object(data)
    status = error.get("code")
    return _failure(status if isinstance(status, int) and 400 <= status < 600 else 500, {}, error)
