"""The neutral form of an answer: what was said, in the order it was said.

Every dialect is read into these events, and every client surface is written from them, so that a new provider or a
new surface is one file and never one per pair. A whole answer is the same events, all at once.
"""

from typing import Literal

from msgspec import Struct

from gateway.core.usage import Usage

Finish = Literal["stop", "length", "tool_calls", "content_filter"]


class Began(Struct, frozen=True):
    """The answer has an id and a model. Comes first."""

    id: str
    model: str


class Said(Struct, frozen=True):
    """A piece of the text."""

    text: str


class Thought(Struct, frozen=True):
    """A piece of the reasoning. `signature` and `redacted` are the upstream's, and go back to it untouched."""

    text: str = ""
    signature: str = ""
    redacted: str = ""


class Refused(Struct, frozen=True):
    """Why the model would not answer."""

    text: str


class ToolBegan(Struct, frozen=True):
    """A tool is called. `index` counts the answer's tool calls from 0, without gaps."""

    index: int
    id: str
    name: str
    signature: str = ""
    """Gemini's thought signature, which has to come back with the call."""


class ToolArgued(Struct, frozen=True):
    """A piece of a tool call's arguments, which together are JSON."""

    index: int
    fragment: str


class Cited(Struct, frozen=True):
    """A source of what was said."""

    url: str
    title: str = ""


class Ended(Struct, frozen=True):
    """Why the answer ends."""

    reason: Finish


class Counted(Struct, frozen=True):
    """What was used so far; the last one counts."""

    usage: Usage


Event = Began | Said | Thought | Refused | ToolBegan | ToolArgued | Cited | Ended | Counted
