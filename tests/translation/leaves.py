"""The leaves of a request: each value in it that says something, and by which way it is reached.

A way is written as in a complaint, but with roles and types in place of numbers: `messages[user].content[text].text` is
said of all such parts. Plain text is taken for one part of text, and `developer` for `system`: they mean the same.
Where a value decides what becomes of its field, it stands behind the way: `tool_choice: required`.
"""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from msgspec import Struct

WHOLE = frozenset(
    {
        *("args", "arguments", "cache_control", "cachePoint", "container", "context_management"),
        *("extra_content", "function_call", "functions", "input", "input_schema", "json"),
        *("logit_bias", "mcp_servers", "moderation", "parameters", "parametersJsonSchema", "prediction"),
        *("prompt_cache_breakpoint", "prompt_cache_options", "responseJsonSchema", "schema"),
        *("stream_options", "thinking", "thinking_blocks", "tool_choice", "toolChoice", "web_search_options"),
    }
)
"""Fields whose value is one thing, whatever is in it."""


class Leaf(Struct, frozen=True):
    """One value."""

    way: str
    at: str
    """The way with numbers, as `BadRequest.param` has it."""
    value: Any


LABELS: dict[str, Callable[[Any], str]] = {
    "messages[user].content[image_url].image_url.url": lambda value: value.partition(":")[0],
    "tool_choice": lambda value: choice_of(value) if isinstance(value, dict) else value,
    "parallel_tool_calls": lambda value: json.dumps(value),
    "service_tier": str,
    "thinking": lambda value: value["type"],
}
"""What stands behind a way whose value matters."""


def choice_of(said: dict[str, Any]) -> str:
    """Return which tool has to be called, and whether no other beside it."""
    return said["type"] + (", one at a time" if said.get("disable_parallel_tool_use") else "")


def leaves(said: Any) -> list[Leaf]:
    """Return the leaves of a translation."""
    return list(_walk(said, "", ""))


def labelled(said: Any) -> list[Leaf]:
    """Return the leaves of a request, with what stands behind their ways."""
    return [Leaf(way_of(leaf), leaf.at, leaf.value) for leaf in leaves(said)]


def way_of(leaf: Leaf) -> str:
    """Return a leaf's way with what stands behind it."""
    label = LABELS.get(leaf.way)
    return leaf.way if label is None else f"{leaf.way}: {label(leaf.value)}"


def _walk(said: Any, way: str, at: str) -> Iterator[Leaf]:
    match said:
        case dict():
            fields = {name: inner for name, inner in said.items() if inner is not None}
            for name, inner in fields.items():
                if name not in ("role", "type") or not isinstance(inner, str):
                    yield from _field(name, inner, f"{way}.{name}".lstrip("."), f"{at}.{name}".lstrip("."))
                elif len(fields) == 1:
                    yield Leaf(f"{way}: {inner}", at, inner)
        case list():
            for number, inner in enumerate(said):
                yield from _walk(inner, f"{way}[{kind_of(inner)}]", f"{at}[{number}]")
        case _:
            yield Leaf(way, at, said)


def _field(name: str, inner: Any, way: str, at: str) -> Iterator[Leaf]:
    if way in ("model", "stream"):
        return
    if name in ("content", "system") and isinstance(inner, str):
        yield Leaf(f"{way}[text].text", at, inner)
    elif _is_whole(name, way, inner):
        yield Leaf(way, at, inner)
    else:
        yield from _walk(inner, way, at)


def _is_whole(name: str, way: str, inner: Any) -> bool:
    if name == "json_schema":  # around a schema at OpenAI, the schema itself at Cohere
        return "schema" not in inner
    if name in ("format", "thinking"):  # elsewhere these have parts, or are texts in parts
        return way == name
    return name in WHOLE and way != "input"


def kind_of(said: Any) -> str:
    """Return what an entry of a list is."""
    if not isinstance(said, dict):
        return ""
    kind = said.get("role") or said.get("type") or ""
    return "system" if kind == "developer" else kind


def carries(found: Any, value: Any) -> bool:
    """Tell whether a leaf of a translation says what a leaf of the request said."""
    if found == value:
        return True
    if isinstance(value, str):
        if any(value in text for text in (*_texts(found), *_texts(_plain(found)))):
            return True
        data = re.fullmatch(r"data:([^;,]+);base64,(.*)", value)
        if data is not None and isinstance(found, str) and found in data.groups():
            return True
    return _plain(found) == _plain(value)


def _texts(said: Any) -> Iterator[str]:
    """Yield every text in a value."""
    if isinstance(said, str):
        yield said
    elif isinstance(said, dict | list):
        for inner in said.values() if isinstance(said, dict) else said:
            yield from _texts(inner)


def _plain(said: Any) -> Any:
    """Return what a text of JSON holds; one value for a list of it."""
    if isinstance(said, str) and said[:1] in ("{", "["):
        try:
            return json.loads(said)
        except ValueError:
            return said
    return said


def without(said: Any, doomed: set[str], at: str = "") -> Any:
    """Return a request without some of its entries; a list that was emptied goes with the last of them."""
    if isinstance(said, dict):
        kept = {}
        for name, inner in said.items():
            place = f"{at}.{name}".lstrip(".")
            if place not in doomed and ((left := without(inner, doomed, place)) != [] or inner == []):
                kept[name] = left
        return kept
    if isinstance(said, list):
        left = [without(inner, doomed, f"{at}[{n}]") for n, inner in enumerate(said) if f"{at}[{n}]" not in doomed]
        return [inner for inner in left if not isinstance(inner, dict) or inner.keys() != {"role"}]
    return said


ENTRY = re.compile(
    r"""
    messages\[\d+\]\.(?:content|tool_calls)\[\d+\] | messages\[\d+\]\.\w+
    | input\[\d+\](?:\.content\[\d+\])? | tools\[\d+\] | \w+
    """,
    re.VERBOSE,
)


def entry_of(at: str) -> str:
    """Return what goes with a leaf that goes: `messages[1].content[0]`, `tools[0]`, `messages[1].name`, `seed`."""
    match = ENTRY.match(at)
    assert match is not None, at
    return match[0]
