"""A request that is longer than a model's context is told apart, whoever says so."""

import json
from typing import Any

import pytest

from gateway.core.errors import Busy, Rejected, UpstreamFailed
from gateway.core.secret import Secret
from gateway.providers.anthropic import AnthropicOptions
from gateway.providers.bedrock import BedrockOptions
from gateway.providers.cohere import CohereOptions
from gateway.providers.gemini import GeminiOptions
from gateway.providers.ollama import OllamaOptions
from gateway.providers.openai import OpenAIOptions
from tests.providers.test_golden import attempt

PROVIDERS = {
    "openai": OpenAIOptions(api_key=Secret("k")).build("openai"),
    "anthropic": AnthropicOptions(api_key=Secret("k")).build("anthropic"),
    "gemini": GeminiOptions(api_key=Secret("k")).build("gemini"),
    "cohere": CohereOptions(api_key=Secret("k")).build("cohere"),
    "ollama": OllamaOptions().build("ollama"),
    "bedrock": BedrockOptions(api_key=Secret("k"), region="us-east-1").build("bedrock"),
}
STREAMED = attempt({"stream": True, "messages": []}, "m")


def failed(dialect: str, status: int, error: dict[str, Any] | str) -> UpstreamFailed:
    """Return what an error means that comes as OpenAI, Anthropic or Gemini write it."""
    return PROVIDERS[dialect].error(status, {}, json.dumps({"error": error}).encode())


def said(message: str, **more: Any) -> dict[str, Any]:
    return {"message": message, "type": "invalid_request_error", **more}


TOO_LONG = {
    "OpenAI": (
        "openai",
        400,
        said(
            "This model's maximum context length is 128000 tokens. However, your messages resulted in 132166 tokens.",
            param="messages",
            code="context_length_exceeded",
        ),
    ),
    "OpenAI, newer": ("openai", 400, said("Your input exceeds the context window of this model. Please adjust it.")),
    "Azure": ("openai", 400, said("Input tokens exceed the configured limit of 272000 tokens.")),
    "Anthropic": ("anthropic", 400, said("prompt is too long: 213462 tokens > 200000 maximum")),
    "Anthropic, with the answer": (
        "anthropic",
        400,
        said("input length and `max_tokens` exceed context limit: 188240 + 21333 > 200000, decrease input length"),
    ),
    "Gemini": (
        "gemini",
        400,
        {
            "code": 400,
            "message": "The input token count (1196265) exceeds the maximum number of tokens allowed (1048575).",
            "status": "INVALID_ARGUMENT",
        },
    ),
    "Gemini, older": (
        "gemini",
        400,
        {"code": 400, "message": "The input token count exceeds the maximum number of tokens allowed 1048575."},
    ),
    "Cohere": ("cohere", 400, "too many tokens: size limit exceeded by 19296 tokens. Try using shorter inputs."),
    "Ollama, its own API": ("ollama", 500, "the input length exceeds the context length"),
    "Claude at Bedrock": ("bedrock", 400, {"message": "Input is too long for requested model."}),
    "Nova at Bedrock": (
        "bedrock",
        400,
        {"message": "Input Tokens Exceeded: Number of input tokens exceeds maximum length. Please update the input."},
    ),
    "vLLM": (
        "openai",
        400,
        {
            "message": "This model's maximum context length is 16384 tokens. However, you requested 19591 tokens "
            "(9591 in the messages, 10000 in the completion). Please reduce the length of the messages or completion.",
            "type": "BadRequestError",
            "code": 400,
        },
    ),
    "Mistral": (
        "openai",
        400,
        said("Prompt contains 300000 tokens, too large for model with 131072 maximum context length", code="3051"),
    ),
    "Groq": ("openai", 400, said("Please reduce the length of the messages or completion.", param="messages")),
    "Cerebras": (
        "openai",
        400,
        said("Please reduce the length of the messages or completion. Current length is 42328 while limit is 40000"),
    ),
    "Together": (
        "openai",
        422,
        said("Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 3997 `inputs` tokens"),
    ),
    "Together, newer": (
        "openai",
        400,
        said("The input (150000 tokens) is longer than the model's context length (131072 tokens)."),
    ),
    "text-generation-inference": (
        "openai",
        422,
        "Input validation error: `inputs` must have less than 1024 tokens. Given: 2048",
    ),
    "llama.cpp": (
        "openai",
        400,
        {"code": 400, "message": "it does not fit", "type": "exceed_context_size_error", "n_ctx": 8192},
    ),
    "llama.cpp, older": (
        "openai",
        500,
        {"code": 500, "message": "the request exceeds the available context size, try increasing it"},
    ),
    "Fireworks": ("openai", 400, said("The prompt is too long: 40177, model maximum context length: 32767")),
    "DeepSeek": (
        "openai",
        400,
        said("This model's maximum context length is 65536 tokens. However, you requested 70000 tokens."),
    ),
    "xAI": (
        "openai",
        400,
        "This model's maximum prompt length is 131072 but the request contains 136973 tokens.",
    ),
    "OpenRouter": (
        "openai",
        400,
        said("This endpoint's maximum context length is 1048576 tokens. However, you requested about 1293741 tokens"),
    ),
    "Moonshot": (
        "openai",
        400,
        said("Invalid request: Your request exceeded model token limit: 262144 (requested: 291351)"),
    ),
    "MiniMax": ("openai", 400, said("invalid params, context window exceeds limit")),
    "Ollama": ("openai", 400, said("prompt too long; exceeded max context length by 4096 tokens")),
    "LM Studio": (
        "openai",
        400,
        "Trying to keep the first 6000 tokens when the number of tokens to keep from the initial prompt is greater "
        "than the context length.",
    ),
    "Alibaba": ("openai", 400, said("Range of input length should be [1, 129024]", code="invalid_parameter_error")),
    "GitHub Models": (
        "openai",
        413,
        {"code": "tokens_limit_reached", "message": "Request body too large for gpt-4o model. Max size: 8000 tokens."},
    ),
}


@pytest.mark.parametrize("vendor", TOO_LONG)
def test_all_say_it_by_one_code(vendor):
    """So that a fallback with a larger context can be asked, and a client's program knows what to shorten."""
    dialect, status, error = TOO_LONG[vendor]
    failure = failed(dialect, status, error)
    assert isinstance(failure, Rejected)
    assert (failure.status, failure.kind, failure.code) == (400, "invalid_request_error", "context_length_exceeded")
    assert not failure.retryable
    assert failure.message == (error if isinstance(error, str) else error["message"]), "the provider's own words"


@pytest.mark.parametrize("vendor", ["OpenAI", "vLLM", "llama.cpp", "Gemini"])
def test_within_a_stream_too(vendor):
    """vLLM answers 200 before it has counted."""
    dialect, _, error = TOO_LONG[vendor]
    with pytest.raises(Rejected) as raised:
        PROVIDERS[dialect].reader(STREAMED).feed(f"data: {json.dumps({'error': error})}\n\n".encode())
    assert raised.value.code == "context_length_exceeded"


def test_the_field_that_it_is_about_is_kept():
    """OpenAI names it."""
    assert failed(*TOO_LONG["OpenAI"]).param == "messages"


@pytest.mark.parametrize(
    ("dialect", "status", "error"),
    [
        ("anthropic", 413, {"type": "request_too_large", "message": "Request exceeds the maximum size"}),
        ("openai", 400, said("max_tokens is too large: 100000. This model supports at most 16384 completion tokens")),
        ("openai", 400, said("Invalid 'messages[0].content': string too long.", code="string_above_max_length")),
        ("openai", 413, said("Request too large for model `x` on tokens per minute (TPM): Limit 6000, Requested 9000")),
        ("openai", 404, said("The model `maximum-context-length` does not exist", code="model_not_found")),
        ("gemini", 400, {"message": "Request contains an invalid argument.", "status": "INVALID_ARGUMENT"}),
    ],
)
def test_other_mistakes_stay_what_they_are(dialect, status, error):
    """Bytes, output, a rate: a larger context would not help."""
    failure = failed(dialect, status, error)
    assert (failure.status, failure.message) == (status, error["message"])
    assert failure.code != "context_length_exceeded"


def test_a_limit_of_tokens_a_minute_is_waited_for():
    """However it is worded: a 429 is about time."""
    assert isinstance(failed("openai", 429, said("Please reduce the length of the messages")), Busy)
