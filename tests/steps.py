"""The steps of a scripted upstream, each the answer to one request. `tests/script.py` lists and plays them."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.dialects import Asked, Says


@dataclass(frozen=True)
class Busy:
    """Too many requests."""

    retry_after: float | str | None = None
    status: int = 429


@dataclass(frozen=True)
class Fails:
    """An error; the body is OpenAI's error object unless said."""

    status: int
    body: bytes | str | dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)
    after_s: float = 0.0


@dataclass(frozen=True)
class Html:
    """A web page."""

    status: int = 200


@dataclass(frozen=True)
class Silent:
    """No answer."""


@dataclass(frozen=True)
class Mumbles:
    """No answer, but signs of life."""

    first: bytes
    again: bytes
    every_s: float = 0.05


@dataclass(frozen=True)
class Slow:
    """An answer that takes its time; a whole one comes after `first_s`."""

    text: str = "Hello"
    first_s: float = 0.0
    between_s: float = 0.0


@dataclass(frozen=True)
class Dribbles:
    """An answer that is said slowly, a whole one too."""

    text: str = "Hello"
    between_s: float = 0.1


@dataclass(frozen=True)
class Stalls:
    """An answer that falls silent."""

    text: str = "Hello"
    after_events: int = 1
    between_s: float = 0.0


@dataclass(frozen=True)
class Held:
    """An answer that goes on when a test says `go.set()`; before that, so many of its events are said."""

    go: asyncio.Event
    text: str = "Hello"
    after_events: int = 0


@dataclass(frozen=True)
class Floods:
    """A stream of so much, in pieces of 16 KB; each is written when the one before it has left."""

    megabytes: int = 50


@dataclass(frozen=True)
class Pings:
    """An answer of which, but for so many events, nothing comes but comments or, if it is a whole one, blank lines.

    With no time between them they come as fast as they are taken.
    """

    text: str = "Hello"
    after_events: int = 0
    every_s: float = 0.01
    between_s: float = 0.0
    """Between the events."""


@dataclass(frozen=True)
class Cut:
    """A stream that is closed too early."""

    text: str = "Hello"
    after_events: int = 1
    resets: bool = False


class Events:
    """A stream of events as they are, blank lines included."""

    def __init__(self, *events: bytes, between_s: float = 0.01) -> None:
        self.events = list(events)
        self.between_s = between_s


@dataclass(frozen=True)
class InBand:
    """A stream that ends in an error."""

    text: str = ""
    message: str = "the model is overloaded"
    kind: str = "overloaded_error"


@dataclass(frozen=True)
class Resets:
    """A reset connection."""

    after: int = 0
    text: str = "Hello"


@dataclass(frozen=True)
class Raw:
    """Bytes, as they are."""

    data: bytes
    closes: bool = True


def Tool(name: str, arguments: dict[str, Any] | None = None) -> Says:
    """A call of the tool `name`. In capitals because it reads as a step among steps."""
    return Says(tool=name, arguments=arguments or {})


Said = (
    str
    | Says
    | Busy
    | Fails
    | Html
    | Silent
    | Mumbles
    | Slow
    | Dribbles
    | Stalls
    | Held
    | Floods
    | Pings
    | Cut
    | Events
    | InBand
    | Resets
    | Raw
)
Step = Said | Callable[[Asked], Said]
"""A step, or one that depends on what was asked."""
