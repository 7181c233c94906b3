"""A function call whose arguments come piece by piece, as Vertex AI streams them where it is told to.

Its first piece has the name; the next have values, each with the place in the arguments where it belongs
(`$.recipe.steps[0]`, RFC 9535), a text often in several parts; the last does not say that more follows. Source:
cloud.google.com/vertex-ai/generative-ai/docs, "Streaming function call arguments".
"""

import re
from itertools import pairwise
from typing import Any, cast

import msgspec
from msgspec import Struct

from gateway.providers.skipping import lost

STEP = re.compile(r"""\.([^.\[\]]+)|\[(\d{1,6})\]|\['((?:[^'\\]|\\.)*)'\]|\["((?:[^"\\]|\\.)*)"\]""")
MOST_STEPS = 100
"""No tool's arguments are nested deeper."""
EXACT = 2**53
"""Whole numbers below are exact in a double, which is what Google sends; and they are written without `.0`."""

_NOTHING = object()


class PartialArg(Struct, rename="camel"):
    """A value, or a part of a text, and where it belongs. None of the values: it is null."""

    json_path: str = ""
    string_value: str | None = None
    number_value: float | None = None
    bool_value: bool | None = None

    @property
    def value(self) -> str | float | bool | None:
        """The one of them that was said."""
        number = self.number_value
        if number is not None:
            return int(number) if abs(number) < EXACT and number.is_integer() else number
        return self.bool_value if self.string_value is None else self.string_value


class PartialCall:
    """Gathers the arguments of one call; `index` is which of the answer's calls it is."""

    def __init__(self, index: int) -> None:
        self.index = index
        self._arguments: dict[str, Any] = {}

    def add(self, arg: PartialArg) -> None:
        """Put a value where it belongs; more of a text behind what is there of it.

        Raises:
            Unreachable: there is no such place.
        """
        steps, value, holder = _steps(arg.json_path), arg.value, self._arguments
        for step, following in pairwise(steps):
            holder = _held(holder, step, [] if isinstance(following, int) else {})
        there = _held(holder, steps[-1], _NOTHING)
        holder[steps[-1]] = there + value if isinstance(there, str) and isinstance(value, str) else value

    def json(self) -> str:
        """The arguments so far."""
        return msgspec.json.encode(self._arguments).decode()


def _steps(path: str) -> list[Any]:
    """Return the names and numbers that lead to a place."""
    found = list(STEP.finditer(path, 1))
    if not found or len(found) > MOST_STEPS or path != "$" + "".join(step[0] for step in found):
        raise lost()
    return [int(step[2]) if step[2] else re.sub(r"\\(.)", r"\1", step[1] or step[3] or step[4] or "") for step in found]


def _held(holder: Any, step: Any, new: object) -> Any:
    """Return what stands in a holder at a step: `new`, if nothing did. A list grows by one at a time."""
    if isinstance(holder, dict) and isinstance(step, str):
        return cast("dict[str, Any]", holder).setdefault(step, new)
    if not isinstance(holder, list) or not isinstance(step, int) or step > len(cast("list[Any]", holder)):
        raise lost()
    held = cast("list[Any]", holder)
    held.extend([new] if step == len(held) else [])
    return held[step]
