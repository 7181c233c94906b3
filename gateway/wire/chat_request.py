"""OpenAI's chat completion request, as those read it who translate it into another dialect.

Only what other dialects can express, or must refuse. An upstream that speaks OpenAI's own gets the bytes as they came.
"""

from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Struct

from gateway.core.errors import BadRequest

Read = TypeVar("Read")


class ImageURL(Struct):
    """`url` is http(s) or a `data:` URL."""

    url: str
    detail: str | None = None


class InputAudio(Struct):
    """Base64 audio."""

    data: str
    format: str


class File(Struct):
    """`file_data` is a `data:` URL."""

    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class Part(Struct):
    """One part of a message's content; `type` says which field is filled."""

    type: str
    text: str | None = None
    image_url: ImageURL | None = None
    input_audio: InputAudio | None = None
    file: File | None = None
    refusal: str | None = None
    cache_control: dict[str, Any] | None = None


class Function(Struct):
    """A called function; `arguments` is JSON in a string."""

    name: str
    arguments: str = ""


class ToolCall(Struct):
    """A tool call in the history."""

    id: str = ""
    type: str = "function"
    function: Function | None = None
    extra_content: dict[str, Any] | None = None


class Message(Struct):
    """One turn. The reasoning fields are what clients return of an earlier answer, under the names in use."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    thinking_blocks: list[dict[str, Any]] | None = None
    extra_content: dict[str, Any] | None = None
    audio: dict[str, Any] | None = None
    function_call: dict[str, Any] | None = None


class FunctionTool(Struct):
    """A function the model may call; `parameters` is a JSON Schema."""

    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Struct):
    """A tool; only functions are known to every dialect."""

    type: str
    function: FunctionTool | None = None
    cache_control: dict[str, Any] | None = None


class NamedFunction(Struct):
    """A function by name."""

    name: str


class NamedTool(Struct):
    """A tool by name."""

    type: str
    function: NamedFunction | None = None


class JSONSchema(Struct):
    """A schema that the answer must match."""

    name: str = ""
    schema: dict[str, Any] | None = None
    strict: bool | None = None
    description: str | None = None


class ResponseFormat(Struct):
    """`text`, `json_object` or `json_schema`."""

    type: str
    json_schema: JSONSchema | None = None


class StreamOptions(Struct):
    """Options of a stream."""

    include_usage: bool | None = None


class ChatRequest(Struct):
    """A chat completion request: the fields that other dialects can express, or must refuse."""

    model: str
    messages: list[Message]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_completion_tokens: int | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[Tool] | None = None
    tool_choice: str | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    metadata: dict[str, str] | None = None
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    prediction: dict[str, Any] | None = None
    web_search_options: dict[str, Any] | None = None
    moderation: dict[str, Any] | None = None

    @property
    def most_tokens(self) -> int | None:
        """How long the answer may be, under either of its names."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens

    @property
    def stops(self) -> list[str]:
        """The stop sequences, as a list."""
        return [self.stop] if isinstance(self.stop, str) else self.stop or []


_request = msgspec.json.Decoder(ChatRequest)


def chat_request(raw: bytes) -> ChatRequest:
    """Read a request for translation.

    Raises:
        BadRequest: a field is of the wrong type; `param` names it.
    """
    return decoded(_request, raw)


def decoded(decoder: msgspec.json.Decoder[Read], raw: bytes) -> Read:
    """Read a request of any dialect for translation.

    Raises:
        BadRequest: a field is of the wrong type, which `param` names; or the body is nested too deep.
    """
    try:
        return decoder.decode(raw)
    except msgspec.ValidationError as error:
        raise bad_field(error) from None
    except RecursionError:
        raise BadRequest("the body is nested too deep", code="invalid_json") from None


def bad_field(error: msgspec.ValidationError, within: str = "") -> BadRequest:
    """Say which field of a request, or of what stands `within` it, is wrong, as OpenAI's error object does."""
    problem, _, path = str(error).partition(" - at `$")
    param = f"{within}{path.rstrip('`')}".lstrip(".") or None
    return BadRequest(f"{param or 'the body'}: {problem[0].lower()}{problem[1:]}", param=param, code="invalid_type")
