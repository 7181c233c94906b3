"""Writes a chat completion request as a request of Bedrock's Converse API.

Translated: everything that the API can say, and in a model's own fields what is known of its family. Left out, for they
are wishes and not demands: `seed`, the penalties, `prediction`, `user`, `verbosity`, `store`, `detail` of images, cache
points and `strict` of tools where a family has none, `parallel_tool_calls` of models other than Claude, the service
tiers `auto` and `default`, entries of `metadata` with characters that AWS refuses, and sampling parameters where a
model takes none. Refused, naming the field: `n` over 1, log probabilities, `logit_bias`, audio answers, web search,
tools other than functions, files by id, pictures at web addresses; and of models other than Claude `tool_choice: none`
behind earlier calls.

A system message in mid-conversation becomes text of the user's turn where it stands. Text of nothing but blanks is left
out, for the API refuses it. `json_object`, which the API does not have, becomes an instruction. A `reasoning_effort`
that a model lacks becomes its nearest.
"""

import re
from typing import Any

import msgspec

from gateway.core.call import Body
from gateway.core.errors import BadRequest
from gateway.providers import chat
from gateway.providers.anthropic_request import BUDGETS, LEAST_BUDGET, ONLY_JSON, Facts
from gateway.providers.bedrock_content import Block, cache_point, turns_of
from gateway.providers.bedrock_models import Family
from gateway.wire.chat_request import ChatRequest

THREE_LEVELS = {"minimal": "low", "xhigh": "high", "max": "high"}
"""OpenAI's efforts for models that know `low`, `medium` and `high`."""
CHOICES = {"auto": "auto", "required": "any"}

_metadata_key = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,.-]{1,256}")
_metadata_value = re.compile(r"[a-zA-Z0-9\s:_@$#=/+,.-]{0,256}")


def converse_request(request: ChatRequest, body: Body, model: str, family: Family) -> dict[str, Any]:
    """Return the body of `Converse` and `ConverseStream`; `model` is what it is called in complaints.

    Raises:
        BadRequest: Bedrock has no way to say this.
    """
    chat.refuse_unspeakable(request, body, "Bedrock")
    system, turns = turns_of(request, family)
    if turns[-1]["role"] == "assistant" and family.claude is not None and not family.claude.prefill:
        chat.refuse(f"{model} cannot continue an assistant's message; end with a user's", "messages")
    said: dict[str, Any] = {"messages": turns}
    if request.response_format is not None and request.response_format.type == "json_object":
        system.append({"text": ONLY_JSON})
    if system:
        said["system"] = system
    own: dict[str, Any] = {}
    said |= _output(request, family, model)
    said |= _tools(request, family, turns, own)
    _think(request, family, model, said, own)
    if config := _sampling(request, family, own):
        said["inferenceConfig"] = config
    if own:
        said["additionalModelRequestFields"] = own
    if request.service_tier in ("flex", "priority"):
        said["serviceTier"] = {"type": request.service_tier}
    if metadata := _metadata(request):
        said["requestMetadata"] = metadata
    return said


def _output(request: ChatRequest, family: Family, model: str) -> dict[str, Any]:
    """Return `outputConfig` with the schema that the answer must match; the API wants it as text."""
    form = request.response_format
    if form is None or form.type in ("text", "json_object"):
        return {}
    if form.type != "json_schema" or form.json_schema is None or form.json_schema.schema is None:
        raise BadRequest("response_format is text, json_object, or json_schema with a schema", param="response_format")
    if family.claude is not None and not family.claude.schemas:
        chat.refuse(f"{model} cannot be held to a schema; use json_object, or a newer model", "response_format")
    schema = {"schema": msgspec.json.encode(form.json_schema.schema).decode()}
    if form.json_schema.name:
        schema["name"] = form.json_schema.name
    if form.json_schema.description:
        schema["description"] = form.json_schema.description
    return {"outputConfig": {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": schema}}}}


def _metadata(request: ChatRequest) -> dict[str, str]:
    said = (request.metadata or {}).items()
    return {key: value for key, value in said if _metadata_key.fullmatch(key) and _metadata_value.fullmatch(value)}


# ── Tools ────────────────────────────────────────────────────────────────────────────────────────────────────────


def _tools(request: ChatRequest, family: Family, turns: list[Block], own: dict[str, Any]) -> dict[str, Any]:
    """Return `toolConfig`. What it cannot say of the choice goes into `own`, in Claude's words."""
    tools = _specs(request, family)
    kind, name = chat.chosen_tool(request)
    if kind == "none" or not tools:
        return _uncallable(tools, family, turns, own)
    config: dict[str, Any] = {"tools": tools}
    if kind:
        config["toolChoice"] = {"tool": {"name": name}} if kind == "named" else {CHOICES[kind]: {}}
    if request.parallel_tool_calls is False and family.claude is not None:
        own["tool_choice"] = {"disable_parallel_tool_use": True}
        if kind in ("", "auto"):  # a forced choice has its type in toolChoice, and in both places it is refused
            config.pop("toolChoice", None)
            own["tool_choice"] |= {"type": "auto"}
    return {"toolConfig": config}


def _specs(request: ChatRequest, family: Family) -> list[Block]:
    tools: list[Block] = []
    for number, tool in enumerate(request.tools or []):
        function = chat.function_of(tool, number)
        schema = {"type": "object", **(function.parameters or {"properties": {}})}
        spec: Block = {"name": function.name, "inputSchema": {"json": schema}}
        if function.description:
            spec["description"] = function.description
        if function.strict and family.claude is not None and family.claude.schemas:
            spec["strict"] = True
        tools += [{"toolSpec": spec}, *cache_point(tool.cache_control, family)]
    return tools


def _uncallable(tools: list[Block], family: Family, turns: list[Block], own: dict[str, Any]) -> dict[str, Any]:
    """Return no tools, so that none is called; but those of earlier calls must be declared, and then may be called."""
    called = {block["toolUse"]["name"] for turn in turns for block in turn["content"] if "toolUse" in block}
    if not called:
        return {}
    if family.claude is None:
        if tools:
            chat.refuse("on Bedrock only Claude can be kept from calling tools again; use auto", "tool_choice")
        chat.refuse("Bedrock wants the tools that were called earlier; send them again", "tools")
    own["tool_choice"] = {"type": "none"}
    stubs = [{"toolSpec": {"name": name, "inputSchema": {"json": {"type": "object"}}}} for name in sorted(called)]
    return {"toolConfig": {"tools": tools or stubs}}


# ── Thinking and sampling ────────────────────────────────────────────────────────────────────────────────────────


def _think(request: ChatRequest, family: Family, model: str, said: dict[str, Any], own: dict[str, Any]) -> None:
    """Say how hard to think, in the words of the model's family: most go into `own`."""
    asked = chat.effort(request)
    if asked is None:
        return
    if family.claude is not None:
        _think_as_claude(asked, request, family.claude, model, said, own)
    elif family.thinking == "nova":
        level = THREE_LEVELS.get(asked, asked)
        if level == "high" and request.most_tokens is not None:
            level = "medium"  # `high` takes no limit of tokens; that is a demand, and the effort a wish
        if asked != "none":
            own["reasoningConfig"] = {"type": "enabled", "maxReasoningEffort": level}
    elif family.thinking == "reasoning":
        own["reasoning"] = {"effort": "low" if asked == "minimal" else asked}
    elif family.thinking == "effort":
        if asked == "none":
            chat.refuse(f"{model} always thinks; the least reasoning_effort is low", "reasoning_effort")
        own["reasoning_effort"] = THREE_LEVELS.get(asked, asked)
    elif asked != "none":
        why = "does not think" if family.thinking == "none" else "is not known to take one"
        chat.refuse(f"{model} {why}; leave reasoning_effort out", "reasoning_effort")


def _think_as_claude(
    asked: str, request: ChatRequest, known: Facts, model: str, said: dict[str, Any], own: dict[str, Any]
) -> None:
    if asked == "none":
        if known.thinking == "always":
            chat.refuse(f"{model} always thinks; the least reasoning_effort is low", "reasoning_effort")
        if known.thinking != "none":
            own["thinking"] = {"type": "disabled"}
    elif known.thinking == "none":
        chat.refuse(f"{model} does not think; leave reasoning_effort out", "reasoning_effort")
    elif known.thinking == "budget":
        if budget := _budget(asked, request.most_tokens or known.max_tokens, said):
            own["thinking"] = {"type": "enabled", "budget_tokens": budget}
    else:
        level = {"minimal": "low", "xhigh": "xhigh" if known.xhigh else "high"}.get(asked, asked)
        said["outputConfig"] = {**said.get("outputConfig", {}), "effort": level}
        own["thinking"] = {"type": "adaptive", "display": "summarized"}  # newer models omit the text unless asked


def _budget(asked: str, most_tokens: int, said: dict[str, Any]) -> int:
    """Return the tokens that older models may think; 0 where they would refuse the call for it.

    They think neither towards a tool that is forced on them, nor in the middle of a turn whose thinking was not
    returned; those are demands, and the effort is a wish.
    """
    choice = said.get("toolConfig", {}).get("toolChoice", {})
    if choice.keys() & {"any", "tool"} or _thoughtless(said["messages"]):
        return 0
    if most_tokens <= LEAST_BUDGET:
        chat.refuse(f"to think, the answer needs more than {LEAST_BUDGET} tokens", "max_completion_tokens")
    return min(BUDGETS[asked], max(LEAST_BUDGET, most_tokens // 2))


def _thoughtless(turns: list[Block]) -> bool:
    """Whether the turn to be continued has called tools without thinking first."""
    if len(turns) < 2 or "toolResult" not in turns[-1]["content"][0]:
        return False
    return "reasoningContent" not in turns[-2]["content"][0]


def _sampling(request: ChatRequest, family: Family, own: dict[str, Any]) -> dict[str, Any]:
    """Return `inferenceConfig`; `top_k`, which it does not know, goes into `own`."""
    config: dict[str, Any] = {}
    if request.most_tokens is not None:
        config["maxTokens"] = request.most_tokens
    if request.stops:
        config["stopSequences"] = request.stops
    if not _takes_sampling(family, own):
        return config
    if request.temperature is not None:
        config["temperature"] = min(request.temperature, 1.0)  # OpenAI's ends at 2, Bedrock's at 1
    one_only = family.claude is not None and family.claude.sampling == "one"
    if request.top_p is not None and not (one_only and request.temperature is not None):
        config["topP"] = request.top_p
    if request.top_k is not None:
        own |= {"inferenceConfig": {"topK": request.top_k}} if family.top_k == "nested" else {"top_k": request.top_k}
    return config


def _takes_sampling(family: Family, own: dict[str, Any]) -> bool:
    """Whether the model may be told `temperature` and its like: Claude not while it thinks, Nova not at its hardest."""
    if family.claude is not None:
        return family.claude.sampling != "none" and own.get("thinking", {"type": "disabled"})["type"] == "disabled"
    return own.get("reasoningConfig", {}).get("maxReasoningEffort") != "high"
