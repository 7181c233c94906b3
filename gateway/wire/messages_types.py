"""Anthropic's Messages request, as far as it has to be read to be said as a chat completion.

Sources: platform.claude.com/docs, "Messages", and the types of the official SDKs.
"""

from typing import Any, Literal, NoReturn

import msgspec
from msgspec import Raw, Struct

from gateway.core.errors import BadRequest
from gateway.wire.chat_request import decoded

OURS = "llm-gateway."
"""Begins a signature, or redacted thinking, that we wrote in the name of an upstream that signs nothing, or otherwise.

Anthropic would refuse it; see `without_our_thoughts`.
"""
UNSIGNED = f"{OURS}unsigned"
"""The signature of reasoning that its upstream did not sign: clients expect one, and return it."""
GOOGLE = f"{OURS}google."
"""Before Gemini's thought signature of a tool call, in redacted thinking in front of that call.

Gemini wants it back; `tool_use` has no field for it that clients would keep, and thinking is what they do return.
"""


class Source(Struct):
    """Where an image or a document is; `type` says which field is filled."""

    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    content: "str | list[Block] | None" = None


class Block(Struct):
    """One block of content; `type` says which fields are filled."""

    type: str
    text: str | None = None
    source: Source | str | None = None
    title: str | None = None
    context: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str = ""
    name: str = ""
    input: Raw = Raw(b"{}")  # pyright: ignore[reportCallIssue]
    tool_use_id: str = ""
    tool_name: str = ""
    is_error: bool | None = None
    content: "str | list[Block] | dict[str, Any] | None" = None
    cache_control: dict[str, Any] | None = None


class Turn(Struct):
    """One message. `system` may stand between the others."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class Tool(Struct):
    """A tool of the client's (`custom`, or no type), or one that Anthropic defines, and often runs."""

    name: str = ""
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    strict: bool | None = None
    cache_control: dict[str, Any] | None = None


class ToolChoice(Struct):
    """`auto`, `any`, `none`, or `tool` and its name."""

    type: str
    name: str = ""
    disable_parallel_tool_use: bool | None = None


class Thinking(Struct):
    """`enabled` with a budget, `adaptive`, or `disabled`."""

    type: str
    budget_tokens: int | None = None


class Format(Struct):
    """A JSON Schema that the answer must match."""

    type: str
    schema: dict[str, Any] | None = None


class OutputConfig(Struct):
    """How much work the answer is worth, and its form."""

    effort: str | None = None
    format: Format | None = None


class Metadata(Struct):
    """Who asks, in the client's own words."""

    user_id: str | None = None


class MessagesRequest(Struct):
    """`POST /v1/messages`."""

    model: str
    messages: list[Turn]
    system: str | list[Block] | None = None
    max_tokens: int | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    tools: list[Tool] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    output_format: Format | None = None
    """An older name of `output_config.format`."""
    metadata: Metadata | None = None
    service_tier: str | None = None
    inference_geo: str | None = None
    mcp_servers: list[Any] | None = None


_request = msgspec.json.Decoder(MessagesRequest)


def messages_request(raw: bytes) -> MessagesRequest:
    """Read a request for translation.

    Raises:
        BadRequest: a field is of the wrong type; `param` names it.
    """
    return decoded(_request, raw)


def refuse(message: str, param: str) -> NoReturn:
    """Refuse what a chat completion has no way to say.

    Raises:
        BadRequest: always.
    """
    raise BadRequest(message, param=param, code="unsupported_parameter")
