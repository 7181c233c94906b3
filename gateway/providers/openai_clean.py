"""Events of OpenAI's dialect that are right as they come, which most are.

They are decoded into a struct that refuses whatever needs a second look, so that they can go on as the bytes they are.
"""

from typing import Literal

import msgspec
from msgspec import Struct

from gateway.providers.failures import UNREADABLE
from gateway.providers.openai_stream import StreamMender


def said_in(data: bytes, mender: StreamMender) -> tuple[str, int] | None:
    """Return the text of an event, and how much it says unseen; `None`: it needs a second look.

    Args:
        data: the event's.
        mender: of the stream; it knows what was said before.
    """
    try:
        said = _clean(data)
        if not data.isascii():
            data.decode()  # fields that we do not know were not decoded
    except UNREADABLE:
        return None
    head = mender.head
    if said.id != head.id or said.model != head.model or said.created != head.created or data.find(b"\n") >= 0:
        return None
    if not said.choices:
        return None
    text, unseen = "", 0
    for choice in said.choices:
        state, delta = mender.choices.get(choice.index), choice.delta
        if state is None or state.finish:
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
    role: None = None
    reasoning: None = None


class _CleanChoice(Struct, gc=False):
    index: int
    delta: _CleanDelta
    finish_reason: None


class _Clean(Struct, gc=False):
    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    choices: list[_CleanChoice]
    usage: None = None
    error: None = None


_clean = msgspec.json.Decoder(_Clean).decode
