"""The tools of a Responses request, as the functions that every dialect knows.

A custom tool becomes a function with one string, `input`; its grammar is told to the model, which is not held to it.
The tools of a namespace become functions of a longer name (the namespace's description is left out). What `origins`
remembers turns a call back into what the client knows. Tools that a provider would run itself are `REFUSED`, or
`DROPPED`: then the model does without, and the response's own `tools` do not name them.
"""

from typing import Any, Literal, NoReturn, TypeVar

import msgspec
from msgspec import Struct

from gateway.core.errors import BadRequest
from gateway.wire.chat_request import FunctionTool, bad_field

T = TypeVar("T")
Json = dict[str, Any]

DROPPED = {
    "web_search": "Codex offers it in every request, whatever the model",
    "tool_search": "Codex offers it where it keeps some tools back; those that are named are all shown at once",
}
"""By type, and why these are no reason to refuse a call."""

REFUSED = {
    "apply_patch": "declare it as a custom tool",
    "code_interpreter": "declare a function that runs code",
    "computer": "declare functions for what it may do",
    "computer_use_preview": "declare functions for what it may do",
    "file_search": "search yourself, and give the model what was found",
    "image_generation": "declare a function, and ask an image model",
    "local_shell": "declare a function that runs commands",
    "mcp": "ask the server yourself, and declare its tools as functions",
    "programmatic_tool_calling": "leave it out",
    "shell": "declare a function that runs commands",
    "web_search_preview": "declare a function that searches",
}
"""By type: tools that only OpenAI runs, and what to do instead."""

INPUT: Json = {
    "type": "object",
    "properties": {"input": {"type": "string"}},
    "required": ["input"],
    "additionalProperties": False,
}
"""The parameters of a function that stands for a custom tool."""


class Origin(Struct, frozen=True):
    """The tool that a function stands for, as the client knows it."""

    name: str
    namespace: str = ""
    custom: bool = False


class Tools(Struct, frozen=True):
    """The tools of a request."""

    functions: list[Json]
    """As a chat completion request has them."""
    origins: dict[str, Origin]
    """By the name of the function."""
    offered: list[Json]
    """As the client wrote them, without the dropped ones."""


class _Grammar(Struct):
    type: str = "text"
    syntax: str = ""
    definition: str = ""


class _Custom(Struct):
    name: str
    description: str | None = None
    format: _Grammar | None = None


class _Namespace(Struct):
    name: str
    tools: list[Json]


class _Allowed(Struct):
    mode: Literal["auto", "required"]
    tools: list[Json]


def refuse(message: str, param: str) -> NoReturn:
    """Refuse what cannot be said to an upstream that has no Responses API.

    Raises:
        BadRequest: always.
    """
    raise BadRequest(message, param=param, code="unsupported_parameter")


def converted(value: object, kind: type[T], where: str) -> T:
    """Return a part of the request as `kind`.

    Raises:
        BadRequest: it is none; `where` stands before the field that is wrong.
    """
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise bad_field(error, where) from None


def function_name(name: str, namespace: str | None) -> str:
    """Return the name of the function that stands for a tool."""
    return f"{namespace.rstrip('_')}__{name}" if namespace else name


def read_tools(asked: list[Json]) -> Tools:
    """Translate the tools of a request.

    Raises:
        BadRequest: no function can stand for one of them, or two would have the same name.
    """
    tools = Tools([], {}, [])
    for number, tool in enumerate(asked):
        if tool.get("type") not in DROPPED:
            tools.offered.append(tool)
            _add(tools, tool, "", f"tools[{number}]")
    return tools


def _add(tools: Tools, tool: Json, namespace: str, where: str) -> None:
    match tool.get("type"):
        case "function":
            function, custom = converted(tool, FunctionTool, where), False
        case "custom":
            function, custom = _function(converted(tool, _Custom, where)), True
        case "namespace" if not namespace:
            inner = converted(tool, _Namespace, where)
            for number, one in enumerate(inner.tools):
                _add(tools, one, inner.name, f"{where}.tools[{number}]")
            return
        case kind:
            cure = REFUSED.get(str(kind), "declare a function")
            refuse(f'a tool of type "{kind}" is run by OpenAI only, not by the provider of this model; {cure}', where)
    name = function_name(function.name, namespace)
    if name in tools.origins:
        raise BadRequest(f'there are two tools "{name}"', param=f"{where}.name", code="invalid_value")
    tools.origins[name] = Origin(function.name, namespace, custom)
    said = {**msgspec.structs.asdict(function), "name": name}
    tools.functions.append({"type": "function", "function": {k: v for k, v in said.items() if v is not None}})


def _function(tool: _Custom) -> FunctionTool:
    told = [tool.description] if tool.description else []
    if tool.format is not None and tool.format.type == "grammar":
        told.append(f"`input` has to match this {tool.format.syntax} grammar:\n{tool.format.definition}")
    return FunctionTool(tool.name, "\n\n".join(told) or None, INPUT)


def tool_fields(tools: Tools, choice: str | Json | None, parallel: bool | None) -> Json:
    """Return `tools`, `tool_choice` and `parallel_tool_calls` of a chat completion request, those that are said.

    Allowed tools become all the tools that there are. Without tools there is nothing to choose.

    Raises:
        BadRequest: the choice is of a tool that is not there, or of one that only OpenAI runs.
    """
    functions = tools.functions
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        allowed = converted(choice, _Allowed, "tool_choice")
        names = {name for number, tool in enumerate(allowed.tools) for name in _named(tools, tool, number)}
        functions = [tool for tool in functions if tool["function"]["name"] in names]
        choice = allowed.mode
    elif isinstance(choice, dict):
        choice = {"type": "function", "function": {"name": _chosen(tools, choice, "tool_choice")}}
    elif choice not in ("auto", "none", "required", None):
        refuse(f'tool_choice is auto, none, required or a tool, got "{choice}"', "tool_choice")
    if not functions:
        if choice == "required":
            refuse("tool_choice asks for a tool, but there are none that this model can be given", "tool_choice")
        return {}
    said = {"tools": functions, "tool_choice": choice, "parallel_tool_calls": parallel}
    return {name: value for name, value in said.items() if value is not None}


def _chosen(tools: Tools, choice: Json, where: str) -> str:
    kind, name = choice.get("type"), choice.get("name")
    if kind not in ("function", "custom"):
        refuse(f'a tool of type "{kind}" cannot be chosen here; name a function or a custom tool', where)
    for function, origin in tools.origins.items():
        if origin.name == name:
            return function
    raise BadRequest(f'there is no tool "{name}"', param=f"{where}.name", code="invalid_value")


def _named(tools: Tools, tool: Json, number: int) -> list[str]:
    """Return the functions that an allowed tool stands for."""
    if tool.get("type") in DROPPED:
        return []
    if tool.get("type") == "namespace":
        return [name for name, origin in tools.origins.items() if origin.namespace == tool.get("name")]
    return [_chosen(tools, tool, f"tool_choice.tools[{number}]")]
