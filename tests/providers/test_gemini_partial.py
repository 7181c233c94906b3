"""Function calls whose arguments come piece by piece: what the golden file does not show."""

import json
from typing import Any

import pytest

from gateway.core.errors import Unreachable
from gateway.providers.gemini import ContentDecoder
from gateway.providers.gemini_partial import MOST_STEPS, PartialArg, PartialCall
from gateway.wire.events import Ended, ToolArgued, ToolBegan


def gathered(*args: PartialArg) -> Any:
    call = PartialCall(0)
    for arg in args:
        call.add(arg)
    return json.loads(call.json())


def piece(call: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"candidates": [{"content": {"parts": [{"functionCall": call}]}, **more}]}).encode()


def test_a_text_of_several_parts_is_joined_and_every_kind_of_value_is_one():
    """A letter that repeats is no repetition."""
    assert gathered(
        PartialArg("$.a", string_value="x"),
        PartialArg("$.a", string_value="x"),
        PartialArg('$["b.c"][0].d', number_value=2.0),
        PartialArg("$['b.c'][1]", bool_value=False),
        PartialArg(r"$['it\'s']"),
        PartialArg("$.f", number_value=1e300),
        PartialArg("$.f", number_value=0.5),
    ) == {"a": "xx", "b.c": [{"d": 2}, False], "it's": None, "f": 0.5}


@pytest.mark.parametrize(
    "path", ["", "$", "a", "$a", "$.", "$..a", "$.a[", "$.a[-1]", "$.a[*]", "$[0]", "$.a[1]", "$.a[999999]", "$.a b]"]
)
def test_a_place_that_is_none_breaks_the_answer(path: str):
    """Arguments are for programs; and a list of a million places for one value would fill our memory."""
    with pytest.raises(Unreachable):
        gathered(PartialArg(path, string_value="x"))


def test_a_place_within_what_is_no_holder_breaks_the_answer():
    """Nothing is overwritten to make room, and nothing is nested without end."""
    with pytest.raises(Unreachable):
        gathered(PartialArg("$.a", string_value="x"), PartialArg("$.a.b", string_value="y"))
    with pytest.raises(Unreachable):
        gathered(PartialArg("$" + ".a" * (MOST_STEPS + 1), string_value="x"))


def test_a_call_that_was_cut_short_is_told_as_far_as_it_came():
    """The finish reason says that it is not whole."""
    decoder = ContentDecoder()
    events = decoder.feed(piece({"name": "f", "willContinue": True}))
    events += decoder.feed(piece({"partialArgs": [{"jsonPath": "$.a", "stringValue": "x"}], "willContinue": True}))
    events += decoder.feed(piece({"willContinue": True}, finishReason="MAX_TOKENS")) + decoder.end()
    assert events[1:] == [ToolBegan(0, "call__0", "f", ""), ToolArgued(0, '{"a":"x"}'), Ended("length")]
