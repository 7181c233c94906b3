"""Anthropic's Messages request as a chat completion request: the neutral form, from which each provider translates.

What a chat completion has no way to say is refused, naming the field, or left out as `DROPPED` says. A field that is
none of Anthropic's and one of a chat completion's (`seed`, `frequency_penalty`) goes on as it came. All others are left
out: betas bring new ones with each release of the official clients, which expect them to be taken.

Thinking becomes `reasoning_effort`: `disabled` is `none`; an `effort` that was said is kept; a budget is the effort
that costs about as much (`EFFORTS_BY_BUDGET`); and what says neither is `high`, as at Anthropic.
"""

from hashlib import sha256
from typing import Any, cast

import msgspec
from msgspec import Raw

from gateway.core.call import Body
from gateway.core.errors import BadRequest
from gateway.wire.chat_request import ChatRequest
from gateway.wire.messages_turns import chat_messages
from gateway.wire.messages_types import OURS, MessagesRequest, Tool, messages_request, refuse

DROPPED = {
    "anthropic_beta": "betas are switches of Anthropic's own API",
    "anthropic_version": "the form of the answer does not depend on the upstream",
    "betas": "betas are switches of Anthropic's own API",
    "cache_control": "automatic caching is Anthropic's; other upstreams that cache do so unasked",
    "container": "it belongs to tools that run at Anthropic, which are refused by themselves",
    "context_management": "nothing is taken from the conversation: the upstream is sent all of it",
    "diagnostics": "it asks for words about Anthropic's own prompt cache",
    "metadata, but for user_id": "clients of this API send nothing else in it",
    "output_config, but for effort and format": "a chat completion has no such fields",
    "speed": "a wish; other upstreams have no such switch",
    "user_profile_id": "it names an account at Anthropic",
    "thinking.display": "reasoning is shown wherever the upstream shows it",
    "tools[].allowed_callers": "tools are called by the model alone",
    "tools[].defer_loading": "the upstream is told of every tool at once",
    "tools[].eager_input_streaming": "a tool's input is streamed as the upstream streams it",
    "tools[].input_examples": "a wish; a chat completion has no place for them",
    "system[] that begins with x-anthropic-billing-header": "it is for Anthropic's books",
    "content[].text.citations": "sources of what was said before are not part of what was said",
    "content[].document.citations": "a wish; other upstreams do not cite documents",
    "content[].tool_use.cache_control": "a chat completion has no place for it; breakpoints at texts and results stay",
    "content[].tool_use.caller": "tools are called by the model alone",
}
"""What is left out on the way to an upstream that does not speak this API, and why."""

UNANSWERABLE = ("n", "logprobs", "top_logprobs", "modalities", "audio")
"""Fields of a chat completion that ask for what a message cannot say."""
KEPT = frozenset(ChatRequest.__struct_fields__) - frozenset(MessagesRequest.__struct_fields__) - {*UNANSWERABLE}
"""Fields of a chat completion that a client may set beside Anthropic's own."""

EFFORTS = ("low", "medium", "high", "xhigh", "max")
EFFORT_UNSAID = "high"
"""How hard Anthropic's models think when they are told to think, and no more."""
EFFORTS_BY_BUDGET = ((4096, "low"), (16_384, "medium"))
"""Up to so many thinking tokens; above them it is `EFFORT_UNSAID`."""
MOST_USER_CHARS = 64
"""OpenAI refuses a longer `safety_identifier`; Claude Code's names are longer, and are hashed."""
SCHEMA_NAME = "answer"
"""A chat completion wants a name for the schema of its answer."""


def chat_body(body: Body) -> Body:
    """Return the body of `POST /v1/messages` as that of a chat completion.

    Raises:
        BadRequest: a chat completion has no way to say this, or a field is of the wrong type.
    """
    request = messages_request(body.raw)
    _refuse_unspeakable(request, body)
    said: dict[str, Any] = {name: raw for name, raw in body.fields.items() if name in KEPT}
    said |= {"model": request.model, "messages": chat_messages(request)}
    said |= _sampling(request) | _tools(request) | _output(request)
    raw = msgspec.json.encode(said)
    return Body(raw, msgspec.json.decode(raw, type=dict[str, Raw]))


def left_out(body: Body) -> dict[str, str]:
    """Return the top-level fields of a request that `chat_body` leaves out, and why."""
    read = frozenset(MessagesRequest.__struct_fields__)
    unread = [name for name in body.fields if name not in read and name not in KEPT]
    return {name: DROPPED.get(name, "a chat completion has no such field") for name in unread}


def without_our_thoughts(body: Body) -> Body:
    """Return a request for Anthropic itself: the same, unless another upstream has reasoned in it before.

    That reasoning we have signed so that clients return it; Anthropic, which checks signatures, would refuse it all.
    """
    if OURS.encode() not in body.raw:
        return body
    turns: list[Any] = body.get("messages", list[Any]) or []
    kept = [turn for turn in map(_without_our_thoughts, turns) if turn is not None]
    raw = body.but(messages=kept)
    return Body(raw, msgspec.json.decode(raw, type=dict[str, Raw]))


def _without_our_thoughts(turn: Any) -> Any:
    """Return a message without them; `None`: nothing else was in it."""
    if not isinstance(turn, dict) or not isinstance(turn.get("content"), list):  # pyright: ignore[reportUnknownMemberType]
        return cast("object", turn)
    said = cast("dict[str, Any]", turn)
    content = [block for block in said["content"] if not _is_our_thought(block)]
    return {**said, "content": content} if content else None


def _is_our_thought(block: Any) -> bool:
    if not isinstance(block, dict):
        return False
    said = cast("dict[str, Any]", block)
    mark = {"thinking": "signature", "redacted_thinking": "data"}.get(str(said.get("type")), "")
    return str(said.get(mark)).startswith(OURS)


def _refuse_unspeakable(request: MessagesRequest, body: Body) -> None:
    if request.inference_geo not in (None, "global"):
        refuse("where an answer is made is the deployment's to say; ask for a model in that region", "inference_geo")
    if request.mcp_servers:
        refuse("MCP servers are not called from here; connect to them and give their tools as `tools`", "mcp_servers")
    for name in UNANSWERABLE:
        if name in body.fields:
            refuse(f"a message has no place for what {name} asks for; leave it out", name)


def _sampling(request: MessagesRequest) -> dict[str, Any]:
    said: dict[str, Any] = {
        "max_completion_tokens": request.max_tokens,
        "stop": request.stop_sequences or None,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "reasoning_effort": _effort(request),
        "service_tier": _service_tier(request),
    }
    if user := request.metadata and request.metadata.user_id:
        said["safety_identifier"] = user if len(user) <= MOST_USER_CHARS else sha256(user.encode()).hexdigest()
    if request.stream:
        said |= {"stream": True, "stream_options": {"include_usage": True}}
    return {name: value for name, value in said.items() if value is not None}


def _service_tier(request: MessagesRequest) -> str | None:
    if request.service_tier not in (None, "auto", "standard_only"):
        message = f'service_tier is auto or standard_only; got "{request.service_tier}"'
        raise BadRequest(message, param="service_tier", code="invalid_value")
    return "default" if request.service_tier == "standard_only" else request.service_tier


def _effort(request: MessagesRequest) -> str | None:
    asked = request.output_config and request.output_config.effort
    if asked is not None and asked not in EFFORTS:
        message = f'effort is one of {", ".join(EFFORTS)}; got "{asked}"'
        raise BadRequest(message, param="output_config.effort", code="invalid_value")
    thinking = request.thinking
    if thinking is None:
        return asked
    if thinking.type not in ("enabled", "adaptive", "disabled"):
        message = f'thinking is enabled, adaptive or disabled; got "{thinking.type}"'
        raise BadRequest(message, param="thinking.type", code="invalid_value")
    if thinking.type == "disabled":
        return "none"
    if asked is not None or thinking.budget_tokens is None:
        return asked or EFFORT_UNSAID
    budget = thinking.budget_tokens
    return next((effort for most, effort in EFFORTS_BY_BUDGET if budget <= most), EFFORT_UNSAID)


def _output(request: MessagesRequest) -> dict[str, Any]:
    """Return the form of the answer. It is strict: at Anthropic, an answer always matches its schema."""
    form = (request.output_config and request.output_config.format) or request.output_format
    if form is None:
        return {}
    if form.type != "json_schema" or form.schema is None:
        message = f'the form of an answer is json_schema with a schema, got "{form.type}"'
        raise BadRequest(message, param="output_config.format", code="invalid_value")
    schema = {"name": SCHEMA_NAME, "schema": form.schema, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


# ── Tools ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _tools(request: MessagesRequest) -> dict[str, Any]:
    choice = request.tool_choice
    if not request.tools:
        if choice is not None and choice.type in ("any", "tool"):
            refuse("tool_choice asks for a tool, but there are no tools", "tool_choice")
        return {}
    said: dict[str, Any] = {"tools": [_tool(tool, f"tools[{number}]") for number, tool in enumerate(request.tools)]}
    if choice is None:
        return said
    kinds = {"auto": "auto", "any": "required", "none": "none"}
    if choice.type == "tool" and choice.name:
        said["tool_choice"] = {"type": "function", "function": {"name": choice.name}}
    elif choice.type in kinds:
        said["tool_choice"] = kinds[choice.type]
    else:
        message = f'tool_choice is auto, any, none, or tool with a name; got "{choice.type}"'
        raise BadRequest(message, param="tool_choice", code="invalid_value")
    if choice.disable_parallel_tool_use and choice.type != "none":
        said["parallel_tool_calls"] = False
    return said


def _tool(tool: Tool, where: str) -> dict[str, Any]:
    if tool.type not in (None, "custom"):
        refuse(
            f'"{tool.type}" is a tool of Anthropic\'s own; give this model a tool with an input_schema instead', where
        )
    if not tool.name or tool.input_schema is None:
        raise BadRequest("a tool has a name and an input_schema", param=where, code="missing_required_parameter")
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.input_schema}
    if tool.description:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    said: dict[str, Any] = {"type": "function", "function": function}
    return said if tool.cache_control is None else {**said, "cache_control": tool.cache_control}
