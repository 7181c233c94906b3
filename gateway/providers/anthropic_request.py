"""Writes a chat completion request as a request of Anthropic's Messages API.

Translated: everything that the API can say. Left out, for they are wishes and not demands: `seed`, the penalties,
`prediction`, `metadata`, `verbosity`, `store`, service tiers but `auto` and `default`, the `name` of messages and
schemas, and sampling parameters where the model takes none (or none while it thinks; of `temperature` and `top_p` the
models that take one of them get the temperature). Refused, naming the field: `n` over 1, log probabilities,
`logit_bias`, audio, web search, tools other than functions, files by id.

A system message in mid-conversation becomes text of the user's turn where it stands. `json_object`, which the API
does not have, becomes an instruction. A `reasoning_effort` that a model lacks becomes the next lower one that it has.
"""

import base64
import binascii
from typing import Any, Literal

from msgspec import Struct

from gateway.core.call import Body
from gateway.core.errors import BadRequest
from gateway.core.model import NOTHING_KNOWN, Capabilities, ModelFacts
from gateway.providers import chat
from gateway.wire.chat_request import ChatRequest, Message, Part

Block = dict[str, Any]

LEAST_BUDGET = 1024
BUDGETS = {"minimal": 1024, "low": 2048, "medium": 8192, "high": 24576, "xhigh": 32768, "max": 32768}
"""Thinking tokens for an effort, on models that are told a budget."""

IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")
ONLY_JSON = "Answer with one JSON object and nothing else: no prose, no code fence."


class Facts(Struct, frozen=True):
    """What one family of models takes."""

    max_tokens: int
    """The longest answer, asked for when the client sets no limit: the API has no default."""
    thinking: Literal["none", "budget", "adaptive", "always"]
    """`adaptive` is told an effort; `always` is that too, and cannot be switched off."""
    sampling: Literal["both", "one", "none"] = "none"
    """Whether it takes `temperature` and `top_p` together, one of them, or rejects other values than the defaults."""
    xhigh: bool = True
    """It knows the effort `xhigh`."""
    schemas: bool = True
    """It takes `output_config.format` and `strict` tools."""

    @property
    def prefill(self) -> bool:
        """The last message may be the assistant's own beginning: until 4.5."""
        return self.thinking in ("none", "budget")


MODELS = {
    "": Facts(8192, "budget", "both"),  # not Claude: a server that speaks the same dialect
    "claude-": Facts(128_000, "adaptive"),
    "claude-2": Facts(4096, "none", "both", schemas=False),
    "claude-3-": Facts(4096, "none", "both", schemas=False),
    "claude-3-5-": Facts(8192, "none", "both", schemas=False),
    "claude-3-7-": Facts(64_000, "budget", "both", schemas=False),
    "claude-opus-4": Facts(32_000, "budget", "one", schemas=False),
    "claude-opus-4-1": Facts(32_000, "budget", "one"),
    "claude-opus-4-5": Facts(64_000, "budget", "one"),
    "claude-opus-4-6": Facts(128_000, "adaptive", "one", xhigh=False),
    "claude-opus-4-7": Facts(128_000, "adaptive"),
    "claude-opus-4-8": Facts(128_000, "adaptive"),
    "claude-opus-5-5": Facts(128_000, "always"),
    "claude-sonnet-4": Facts(64_000, "budget", "one", schemas=False),
    "claude-sonnet-4-5": Facts(64_000, "budget", "one"),
    "claude-sonnet-4-6": Facts(128_000, "adaptive", "one", xhigh=False),
    "claude-haiku-4-5": Facts(64_000, "budget", "one"),
    "claude-fable-": Facts(128_000, "always"),
    "claude-mythos-": Facts(128_000, "always"),
}
"""By the beginning of the name, the longest that fits. `GET /v1/models` tells limits and capabilities of a model.

Source: platform.claude.com/docs, "Models overview", "Adaptive thinking", "Effort" and "Structured outputs".
"""


def facts(model: str) -> Facts:
    """Return what `model` takes; a vendor's prefix such as `anthropic.` is no part of the name."""
    name = model[max(model.find("claude-"), 0) :]
    return MODELS[max((prefix for prefix in MODELS if name.startswith(prefix)), key=len)]


def shown_facts(model: str) -> ModelFacts:
    """Return what `model` can do, to be shown: nothing of a family that is not in the table by its name."""
    name = model[max(model.find("claude-"), 0) :]
    prefix = max((prefix for prefix in MODELS if name.startswith(prefix)), key=len)
    if prefix in ("", "claude-", "claude-2"):
        return NOTHING_KNOWN
    known = MODELS[prefix]
    return ModelFacts(
        output_tokens=known.max_tokens,
        inputs=("text", "image") if prefix == "claude-3-" else ("text", "image", "file"),
        outputs=("text",),
        capabilities=Capabilities(
            tools=True, vision=True, reasoning=known.thinking != "none", json_schema=known.schemas, streaming=True
        ),
    )


def messages_request(request: ChatRequest, body: Body, model: str, stream: bool) -> dict[str, Any]:
    """Return the body of `POST /v1/messages`, but for the model's name: it depends on where Claude is asked.

    Raises:
        BadRequest: Anthropic has no way to say this.
    """
    chat.refuse_unspeakable(request, body, "Anthropic")
    known = facts(model)
    system, messages = _messages(request, known, model)
    said: dict[str, Any] = {"max_tokens": request.most_tokens or known.max_tokens, "messages": messages}
    if stream:
        said["stream"] = True
    said |= _output(request, known, model)
    if request.response_format is not None and request.response_format.type == "json_object":
        system.append({"type": "text", "text": ONLY_JSON})
    if system:
        said["system"] = system
    said |= _tools(request, known)
    said |= _thinking(request, known, model, said)
    said |= _sampling(request, known, said)
    if request.stops:
        said["stop_sequences"] = request.stops
    if user := request.safety_identifier or request.user:
        said["metadata"] = {"user_id": user}
    if request.service_tier in ("auto", "default"):
        said["service_tier"] = "auto" if request.service_tier == "auto" else "standard_only"
    return said


# ── Messages ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _messages(request: ChatRequest, known: Facts, model: str) -> tuple[list[Block], list[Block]]:
    """Return the system blocks, and turns that alternate: neighbours of one role become one."""
    system: list[Block] = []
    turns: list[Block] = []
    for number, message in enumerate(request.messages):
        where = f"messages[{number}]"
        match message.role:
            case "system" | "developer" if not turns:
                system += _system(message, where)
            case "system" | "developer":
                _add(turns, "user", _system(message, where))
            case "user":
                _add(turns, "user", _blocks(message, where))
            case "assistant":
                _add(turns, "assistant", _assistant(message, where))
            case "tool":
                _add(turns, "user", [_result(message, where)])
            case "function":
                chat.refuse('messages of the role "function" are not translated; use tools', f"{where}.role")
    if not turns:
        raise BadRequest("Anthropic needs a message with content", param="messages", code="invalid_value")
    if turns[-1]["role"] == "assistant" and not known.prefill:
        chat.refuse(f"{model} cannot continue an assistant's message; end with a user's", "messages")
    return system, turns


def _add(turns: list[Block], role: str, blocks: list[Block]) -> None:
    """Append `blocks`; tool results stand before all else in their turn, or the API refuses it."""
    if not blocks:
        return
    if not turns or turns[-1]["role"] != role:
        turns.append({"role": role, "content": blocks})
        return
    content = turns[-1]["content"]
    if blocks[0]["type"] == "tool_result":
        results = sum(block["type"] == "tool_result" for block in content)
        content[results:results] = blocks
    else:
        content += blocks


def _system(message: Message, where: str) -> list[Block]:
    chat.text_of(message, where)  # refuses all but text
    return _blocks(message, where)


def _assistant(message: Message, where: str) -> list[Block]:
    blocks = _thoughts(message)
    blocks += _blocks(message, where)
    if message.refusal:
        blocks.append({"type": "text", "text": message.refusal})
    for number, call in enumerate(message.tool_calls or []):
        at = f"{where}.tool_calls[{number}]"
        given = chat.arguments(call, at)
        assert call.function is not None
        blocks.append(
            {"type": "tool_use", "id": chat.call_id(call.id, f"{at}.id"), "name": call.function.name, "input": given}
        )
    return blocks


def _thoughts(message: Message) -> list[Block]:
    return [
        {"type": "redacted_thinking", "data": thought.redacted}
        if thought.redacted
        else {"type": "thinking", "thinking": thought.text, "signature": thought.signature}
        for thought in chat.thoughts(message)
    ]


def _result(message: Message, where: str) -> Block:
    block: Block = {
        "type": "tool_result",
        "tool_use_id": chat.call_id(message.tool_call_id or "", f"{where}.tool_call_id"),
    }
    if content := _blocks(message, where):
        block["content"] = content
    return block


def _blocks(message: Message, where: str) -> list[Block]:
    """Return the content as blocks; empty text is left out, for the API refuses it."""
    blocks: list[Block] = []
    for number, part in enumerate(chat.parts(message)):
        block = _block(part, f"{where}.content[{number}]")
        if block is not None:
            blocks.append(block if part.cache_control is None else {**block, "cache_control": part.cache_control})
    return blocks


def _block(part: Part, where: str) -> Block | None:
    if part.type in ("text", "refusal"):
        text = part.text or part.refusal
        return {"type": "text", "text": text} if text else None
    if part.type == "image_url" and part.image_url is not None:
        return {"type": "image", "source": _image(part.image_url.url, f"{where}.image_url.url")}
    if part.type == "file" and part.file is not None:
        if not part.file.file_data:
            chat.refuse("files are not known by id here; send them as file_data", f"{where}.file")
        block: Block = {"type": "document", "source": _document(part.file.file_data, f"{where}.file.file_data")}
        return {**block, "title": part.file.filename} if part.file.filename else block
    return chat.refuse(f'a part of type "{part.type}" cannot be sent to Anthropic', where)


def _image(url: str, where: str) -> Block:
    if url.startswith(("https://", "http://")):
        return {"type": "url", "url": url}
    data = chat.data_url(url, where)
    if data.media_type not in IMAGES:
        chat.refuse(f"Anthropic takes jpeg, png, gif and webp images, got {data.media_type}", where)
    return {"type": "base64", "media_type": data.media_type, "data": data.base64}


def _document(url: str, where: str) -> Block:
    data = chat.data_url(url, where)
    if data.media_type == "application/pdf":
        return {"type": "base64", "media_type": data.media_type, "data": data.base64}
    if data.media_type != "text/plain":
        chat.refuse(f"Anthropic takes PDF and plain text files, got {data.media_type}", where)
    try:
        return {"type": "text", "media_type": "text/plain", "data": base64.b64decode(data.base64).decode()}
    except (binascii.Error, UnicodeDecodeError):
        raise BadRequest("the file is not base64 of UTF-8 text", param=where, code="invalid_value") from None


# ── Tools, thinking, sampling ────────────────────────────────────────────────────────────────────────────────────


def _tools(request: ChatRequest, known: Facts) -> dict[str, Any]:
    tools: list[Block] = []
    for number, tool in enumerate(request.tools or []):
        function = chat.function_of(tool, number)
        schema = {"type": "object", **(function.parameters or {"properties": {}})}
        block: Block = {"name": function.name, "input_schema": schema}
        if function.description:
            block["description"] = function.description
        if function.strict and known.schemas:
            block["strict"] = True
        if tool.cache_control is not None:
            block["cache_control"] = tool.cache_control
        tools.append(block)
    kind, name = chat.chosen_tool(request)
    if not tools:
        return {}
    choice: Block = {"type": {"required": "any", "named": "tool"}.get(kind, kind or "auto")}
    if kind == "named":
        choice["name"] = name
    if request.parallel_tool_calls is False and kind != "none":
        choice["disable_parallel_tool_use"] = True
    return {"tools": tools} if choice == {"type": "auto"} and not kind else {"tools": tools, "tool_choice": choice}


def _output(request: ChatRequest, known: Facts, model: str) -> dict[str, Any]:
    """Return `output_config` with the schema that the answer must match."""
    form = request.response_format
    if form is None or form.type in ("text", "json_object"):
        return {}
    if form.type != "json_schema" or form.json_schema is None or form.json_schema.schema is None:
        raise BadRequest("response_format is text, json_object, or json_schema with a schema", param="response_format")
    if not known.schemas:
        chat.refuse(f"{model} cannot be held to a schema; use json_object, or a newer model", "response_format")
    return {"output_config": {"format": {"type": "json_schema", "schema": form.json_schema.schema}}}


def _thinking(request: ChatRequest, known: Facts, model: str, said: dict[str, Any]) -> dict[str, Any]:
    asked = chat.effort(request)
    if asked is None:
        return {}
    if asked == "none":
        if known.thinking == "always":
            chat.refuse(f"{model} always thinks; the least reasoning_effort is low", "reasoning_effort")
        return {"thinking": {"type": "disabled"}} if known.thinking != "none" else {}
    if known.thinking == "none":
        chat.refuse(f"{model} does not think; leave reasoning_effort out", "reasoning_effort")
    if known.thinking == "budget":
        return _budget(asked, said)
    level = {"minimal": "low", "xhigh": "xhigh" if known.xhigh else "high"}.get(asked, asked)
    thinking = {"type": "adaptive", "display": "summarized"}  # newer models omit the text unless it is asked for
    return {"thinking": thinking, "output_config": {**said.get("output_config", {}), "effort": level}}


def _budget(asked: str, said: dict[str, Any]) -> dict[str, Any]:
    """Return the thinking of older models, or none where they would refuse the call for it.

    They think neither towards a tool that is forced on them, nor in the middle of a turn whose thinking was not
    returned; those are demands, and the effort is a wish.
    """
    if said.get("tool_choice", {}).get("type") in ("any", "tool") or _thoughtless(said["messages"]):
        return {}
    if said["max_tokens"] <= LEAST_BUDGET:
        chat.refuse(f"to think, the answer needs more than {LEAST_BUDGET} tokens", "max_completion_tokens")
    budget = min(BUDGETS[asked], max(LEAST_BUDGET, said["max_tokens"] // 2))
    return {"thinking": {"type": "enabled", "budget_tokens": budget}}


def _thoughtless(turns: list[Block]) -> bool:
    """Whether the turn to be continued has called tools without thinking first."""
    if turns[-1]["role"] != "user" or turns[-1]["content"][0]["type"] != "tool_result" or len(turns) < 2:
        return False
    return turns[-2]["content"][0]["type"] not in ("thinking", "redacted_thinking")


def _sampling(request: ChatRequest, known: Facts, said: dict[str, Any]) -> dict[str, Any]:
    if known.sampling == "none" or said.get("thinking", {}).get("type") in ("enabled", "adaptive"):
        return {}
    sampling: dict[str, Any] = {}
    if request.temperature is not None:
        sampling["temperature"] = min(request.temperature, 1.0)  # OpenAI's ends at 2, Anthropic's at 1
    if request.top_p is not None and (known.sampling == "both" or request.temperature is None):
        sampling["top_p"] = request.top_p
    if request.top_k is not None:
        sampling["top_k"] = request.top_k
    return sampling
