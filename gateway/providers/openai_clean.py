"""What comes in OpenAI's dialect and is right as it comes: most events of streams, and most whole answers.

They are decoded into structs that refuse whatever needs a second look, and go on as the bytes that they are. To decode
a whole answer to the last field, and to look through it for what may have to be mended, took four times as long.
"""

import re
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from gateway.core.reply import Chunk
from gateway.core.usage import USUAL_TIERS, Usage
from gateway.providers.counting import MOST_TOKENS
from gateway.providers.failures import UNREADABLE
from gateway.providers.openai_stream import StreamMender
from gateway.providers.vendors import Vendor


def clean(data: bytes) -> "CleanEvent | None":
    """Return an event of a stream that may be right as it came; `None`: it needs a second look."""
    try:
        said = _event(data)
        if not data.isascii():
            data.decode()  # fields that we do not know were not decoded
    except UNREADABLE:
        return None
    return said if data.find(b"\n") < 0 else None


def spoken_in(said: "CleanEvent", mender: StreamMender) -> tuple[str, int] | None:
    """Return the text of an event, and how much it says unseen; `None`: it says something else, or needs a second look.

    Args:
        said: the event.
        mender: of the stream; it knows what was said before.
    """
    head = mender.head
    if said.id != head.id or said.model != head.model or said.created != head.created:
        return None
    if not said.choices or said.usage is not None:
        return None
    text, unseen = "", 0
    for choice in said.choices:
        state, delta = mender.choices.get(choice.index), choice.delta
        if state is None or state.finish or choice.finish_reason or delta.role is not None:
            return None
        content = delta.content
        if content and choice.index == 0:
            text += content
        elif content:
            unseen += len(content)
        if delta.tool_calls:
            for call in delta.tool_calls:
                unseen += len(call.function.arguments)
                if not state.straight or not 0 <= call.index < len(state.calls):
                    return None
        elif not content and not delta.reasoning_content and not delta.refusal:
            return None
        if delta.reasoning_content:
            unseen += len(delta.reasoning_content)
        state.spoke = True
    return text, unseen


def turn_in(said: "CleanEvent", data: bytes, mender: StreamMender) -> Chunk | None:
    """Return the event by which a choice begins or ends, or which tells what was used; `None`: it needs a second look.

    Args:
        said: the event.
        data: the same, as it came.
        mender: of the stream; it is told.
    """
    head = mender.head
    if not mender.straight or not (said.id and said.model and said.created):
        return None
    if head.id and (said.id != head.id or said.model != head.model or said.created != head.created):
        return None
    if said.usage is None:
        chunk = _edge_of(said.choices[0], data, mender) if len(said.choices) == 1 else None
        counted = False
    else:
        usage = None if said.choices else _used(said.usage, said.service_tier, mender.vendor, mender.model)
        chunk = None if usage is None else Chunk(_framed(data), usage=usage, silent=True, usage_only=True)
        counted = True
    if chunk is not None:
        head.id, head.model, head.created = said.id, said.model, said.created
        mender.turned(counted=counted)
    return chunk


def _edge_of(choice: "_CleanChoice", data: bytes, mender: StreamMender) -> Chunk | None:
    """Return the event by which a choice begins or ends, if it is no more than that."""
    delta, state, finish = choice.delta, mender.choices.get(choice.index), choice.finish_reason or ""
    if delta.tool_calls or delta.reasoning_content or delta.refusal:
        return None
    content = delta.content or ""
    if state is None and delta.role is not None and not finish:
        mender.begin(choice.index).spoke = bool(content)
    elif state is not None and delta.role is None and finish and not state.finish:
        if finish == "stop" and state.calls:
            return None
        state.finish, state.spoke = finish, state.spoke or bool(content)
    else:
        return None
    silent = not (content or finish)
    if choice.index:
        return Chunk(_framed(data), silent=silent, unseen=len(content))
    return Chunk(_framed(data), content, None, finish, silent)


def _framed(data: bytes) -> bytes:
    return b"data: %b\n\n" % data


LESSONS = 8
"""How often in a stream an event is learnt from; where each differs from the one before it, that is of no use."""


class Alike:
    """What the events of one stream have in common, so that one which says another text need not be decoded.

    Most differ in their text alone, and OpenAI's in a padding too (`obfuscation`). To compare takes a quarter of the
    time of decoding. Whoever knows that an event may change what the next ones mean has this `forget`.
    """

    __slots__ = ("_before", "_behind", "_lessons", "_padded")

    def __init__(self) -> None:
        self._lessons = LESSONS
        self._before = b""
        self._behind = b""
        """What follows the quote behind the text, up to the padding; empty: there is nothing to go by."""
        self._padded = False

    def forget(self) -> None:
        """Know nothing of the events to come."""
        self._behind = b""

    def learn(self, event: bytes, text: str) -> None:
        """Take an event that can go on as it came, and says this text and nothing else, as like those to come."""
        if not self._lessons:
            return
        self._lessons -= 1
        found = _ALIKE.fullmatch(event)
        if found is not None and found[2] == text.encode() and event.count(b'"content"') == 1:
            padding = _PADDED.search(found[3])
            self._before, self._padded = found[1], padding is not None
            self._behind = found[3] if padding is None else found[3][: padding.start(1)]

    def text_in(self, event: bytes) -> str:
        """Return the text of an event that differs from the one learnt in nothing else; empty: it has to be decoded."""
        before, behind = self._before, self._behind
        if not behind or not event.startswith(before):
            return ""
        said, _, rest = event[len(before) :].partition(b'"')
        if self._padded:
            if not (rest.startswith(behind) and rest.endswith(b'"}') and rest[len(behind) : -2].isalnum()):
                return ""
        elif rest != behind:
            return ""
        try:
            text = said.decode()
        except UnicodeDecodeError:
            return ""
        return text if text.isprintable() and said.find(b"\\") < 0 else ""


_ALIKE = re.compile(rb'(\{[^\\]*"content": ?")([^"\\]*)"([^\\]*)')
"""Without escapes, so that every quote begins or ends a string."""
_PADDED = re.compile(rb'"obfuscation": ?"([a-zA-Z0-9]*)"\}$')


class _CleanFunction(Struct, gc=False):
    arguments: str
    name: Literal[""] | None = None


class _CleanCall(Struct, gc=False):
    index: int
    function: _CleanFunction
    id: Literal[""] | None = None


class _CleanDelta(Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[_CleanCall] | None = None
    role: Literal["assistant"] | None = None
    reasoning: None = None
    function_call: None = None
    audio: None = None
    images: None = None
    annotations: Annotated[list[msgspec.Raw], Meta(max_length=0)] | None = None
    reasoning_details: None = None


class _CleanChoice(Struct, gc=False):
    index: int
    delta: _CleanDelta
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"] | None


class CleanEvent(Struct, gc=False):
    """An event of a stream."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[_CleanChoice]
    usage: "_CleanUsage | None" = None
    service_tier: str | None = None
    x_groq: None = None
    error: None = None
    type: None = None


def whole_in(body: bytes, vendor: Vendor, model: str) -> Chunk | None:
    """Return a whole answer; `None`: it needs a second look.

    Args:
        body: the answer.
        vendor: whose it is.
        model: as the vendor calls it.
    """
    try:
        said = _whole(body)
        if not body.isascii():
            body.decode()  # fields that we do not know were not decoded
    except UNREADABLE:
        return None
    used = None
    if said.usage is not None:
        used = _used(said.usage, said.service_tier, vendor, model)
        if used is None:
            return None
    unseen = 0
    for choice in said.choices:
        message = choice.message
        if message.tool_calls and choice.finish_reason != "tool_calls":
            return None
        if message.reasoning_content:
            unseen += len(message.reasoning_content)
        for call in message.tool_calls or ():
            unseen += len(call.function.arguments)
    first = said.choices[0]
    return Chunk(body, first.message.content or "", used, first.finish_reason, unseen=unseen)


def _used(said: "_CleanUsage", tier: str | None, vendor: Vendor, model: str) -> Usage | None:
    """Return what a usage object says; `None`: it has to be looked at by `openai_usage`."""
    prompt, completion = said.prompt_tokens, said.completion_tokens
    sent, answered = said.prompt_tokens_details or _NOTHING_SENT, said.completion_tokens_details or _NOTHING_SAID
    cached, reasoning = sent.cached_tokens or 0, answered.reasoning_tokens or 0
    written = sent.cache_write_tokens or 0
    if vendor.reasoning_tokens != "inside" or vendor.states_cost:
        return None
    if vendor.searching_models and vendor.always_searches(model):
        return None
    if not (prompt or completion) or cached + written > prompt or reasoning > completion:
        return None
    service_tier = "" if not tier or tier in USUAL_TIERS else vendor.tier(tier)
    return Usage(prompt, completion, cached, written, reasoning, service_tier=service_tier)


_Text = Annotated[str, Meta(min_length=1)]
_Count = Annotated[int, Meta(ge=0, le=MOST_TOKENS)]
_Nothing = Literal[0] | None


class _CleanSent(Struct, gc=False):
    cached_tokens: _Count | None = None
    cache_write_tokens: _Count | None = None
    audio_tokens: _Nothing = None
    image_tokens: _Nothing = None
    video_tokens: _Nothing = None


class _CleanSaid(Struct, gc=False):
    reasoning_tokens: _Count | None = None
    audio_tokens: _Nothing = None
    image_tokens: _Nothing = None
    video_tokens: _Nothing = None


_NOTHING_SENT, _NOTHING_SAID = _CleanSent(), _CleanSaid()


class _CleanUsage(Struct, gc=False):
    """Without what only few vendors say: tokens of other names, costs, searches, seconds."""

    prompt_tokens: _Count
    completion_tokens: _Count
    prompt_tokens_details: _CleanSent | None = None
    completion_tokens_details: _CleanSaid | None = None
    prompt_cache_hit_tokens: None = None
    cached_tokens: None = None
    cost_in_usd_ticks: None = None
    num_search_queries: None = None
    prompt_audio_seconds: None = None


class _WholeFunction(Struct, gc=False):
    arguments: str


class _WholeCall(Struct, gc=False):
    id: _Text
    type: Literal["function"]
    function: _WholeFunction
    custom: None = None


class _WholeMessage(Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: Literal[""] | None = None
    tool_calls: list[_WholeCall] | None = None


class _WholeChoice(Struct, gc=False):
    index: int
    message: _WholeMessage
    finish_reason: Literal["stop", "length", "tool_calls", "content_filter"]


class _Whole(Struct, gc=False):
    id: _Text
    object: Literal["chat.completion"]
    created: Annotated[int, Meta(ge=1)]
    model: _Text
    choices: Annotated[list[_WholeChoice], Meta(min_length=1)]
    usage: _CleanUsage | None = None
    service_tier: str | None = None
    error: None = None
    type: None = None


_whole = msgspec.json.Decoder(_Whole).decode
_event = msgspec.json.Decoder(CleanEvent).decode
