"""How upstreams say that a request is longer than their model's context: one thing, for which each has other words.

Told apart because its cure is not another attempt but a model of larger context. Only what is said of tokens counts: a
body of too many bytes (Anthropic's `request_too_large`) or a too large `max_tokens` alone is another mistake.
"""

import re

CODE = "context_length_exceeded"
"""OpenAI's code, given to all of them."""

WORDS = frozenset(
    {
        CODE,  # OpenAI, Groq, Cerebras
        "context_window_exceeded",  # LM Studio
        "exceed_context_size_error",  # llama.cpp
        "model_context_window_exceeded",  # Z.ai
        "tokens_limit_reached",  # GitHub Models
    }
)
"""Codes and types that say so by themselves."""

SENTENCES = (
    "maximum context length",  # OpenAI, vLLM, SGLang, OpenRouter, DeepSeek, Mistral, Fireworks
    "exceeds the context window",  # OpenAI's newer models
    "input tokens exceed the configured limit",  # OpenAI, Azure
    "longer than the model's context length",  # Together, SGLang
    "prompt is too long",  # Anthropic, Fireworks
    "input length and `?max_tokens`? exceed context limit",  # Anthropic
    "input is too long for requested model",  # Claude at Bedrock
    "number of input tokens exceeds maximum length",  # Nova at Bedrock
    r"input token count[^.]{0,40} exceeds the maximum number of tokens",  # Gemini
    r"maximum prompt length is \d+",  # xAI
    "reduce the length of the (?:messages|prompt|input)",  # Groq, Cerebras
    r"`inputs` tokens \+ `max_new_tokens` must be <=",  # Together, text-generation-inference
    r"`inputs` must have less than \d+ tokens",  # text-generation-inference
    "exceeds the available context size",  # llama.cpp
    "initial prompt is greater than the context length",  # LM Studio
    "prompt too long; exceeded (?:max )?context length",  # Ollama
    "input length exceeds the context length",  # Ollama
    "too many tokens: size limit exceeded",  # Cohere
    "exceeded model token limit",  # Moonshot
    "context window exceeds limit",  # MiniMax
    "range of input length should be",  # Alibaba
)
"""Patterns of messages."""

STATUSES = frozenset({400, 413, 422, 500})
"""Under which they come: some servers call it a fault of their own, and another attempt would be as long."""

_sentence = re.compile("|".join(SENTENCES), re.IGNORECASE)


def is_too_long(status: int, message: str, *words: str | None) -> bool:
    """Tell whether an error means that the request exceeds the model's context; `words` are its code and type."""
    return status in STATUSES and (not WORDS.isdisjoint(words) or _sentence.search(message) is not None)
