"""Upstreams' lists of models, as each vendor says them, and whatever else an upstream may say."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import Unreachable
from gateway.core.secret import Secret
from gateway.providers.base import Lister
from gateway.providers.bedrock import BedrockOptions
from gateway.providers.gemini import GeminiOptions
from gateway.providers.model_lists import (
    anthropic_page,
    bedrock_page,
    cohere_page,
    gemini_page,
    ollama_page,
    openai_page,
)
from gateway.providers.ollama import OllamaOptions
from gateway.providers.openai import OpenAIOptions

PAGES = (anthropic_page, bedrock_page, cohere_page, gemini_page, ollama_page, openai_page)


def facts(page: Any, entry: dict[str, Any], name: str = "data") -> Any:
    """What is understood of one entry."""
    (model,) = page(json.dumps({name: [entry]}).encode()).models
    return model.facts


@pytest.mark.parametrize(
    ("entry", "context", "output"),
    [
        ({"context_window": 131072, "max_completion_tokens": 8192}, 131072, 8192),  # Groq
        ({"context_length": 200000, "top_provider": {"max_completion_tokens": 64000}}, 200000, 64000),  # OpenRouter
        ({"max_context_length": 32768}, 32768, None),  # Mistral
        ({"max_model_len": 4096}, 4096, None),  # vLLM
        ({"context_length": 0, "max_completion_tokens": None}, None, None),
        ({"context_window": "131072", "max_completion_tokens": True}, None, None),
    ],
)
def test_limits_are_read_by_all_their_names(entry: dict[str, Any], context: int | None, output: int | None):
    """OpenAI says none, and everybody else says them in other words; what is no number is not known."""
    known = facts(openai_page, {"id": "m", **entry})
    assert (known.context_tokens, known.output_tokens) == (context, output)


def test_capabilities_are_read_by_all_their_names():
    """A list of what is supported says no by what it leaves out; a missing one says nothing."""
    router = {
        "id": "m",
        "supported_parameters": ["tools", "structured_outputs"],
        "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["text"]},
    }
    known = facts(openai_page, router)
    can = known.with_vision().capabilities
    assert (can.tools, can.json_schema, can.reasoning, can.vision) == (True, True, False, True)
    assert (known.inputs, known.outputs) == (("text", "image"), ("text",))
    can = facts(openai_page, {"id": "m", "capabilities": {"function_calling": True, "vision": False}}).capabilities
    assert (can.tools, can.vision, can.reasoning) == (True, False, None)
    claude = {"id": "m", "capabilities": {"image_input": {"supported": True}, "pdf_input": {"supported": False}}}
    assert facts(anthropic_page, claude).inputs == ("text", "image")
    ollama = facts(ollama_page, {"name": "m", "capabilities": ["completion", "thinking"]}, "models")
    assert (ollama.capabilities.reasoning, ollama.capabilities.tools) == (True, False)
    assert facts(gemini_page, {"name": "m", "supportedGenerationMethods": ["embedContent"]}, "models").outputs == (
        "embedding",
    )


def test_what_nobody_could_ask_for_is_no_model():
    """Ids that are none, or longer than a client may say."""
    entries = [{"id": ""}, {"id": 7}, {}, {"id": "a\nb"}, {"id": "x" * 257}, "m", None, {"id": "good"}]
    assert [model.id for model in openai_page(json.dumps({"data": entries}).encode()).models] == ["good"]


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("body", [b"", b"<html>", b"{}", b'{"data": 1, "models": {}}', b"null", b"\xff", b"[" * 5000])
def test_what_is_no_list_is_told(page: Any, body: bytes):
    """And is no empty list, which would make every model disappear."""
    with pytest.raises(Unreachable, match="no list of models"):
        page(body)


WORDS = st.sampled_from(
    ["id", "name", "created_at", "capabilities", "architecture", "top_provider", "features", "context_length"]
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | WORDS, inner, max_size=4),
    max_leaves=10,
)


@pytest.mark.parametrize("page", PAGES)
@given(entries=st.lists(st.dictionaries(WORDS, JSON), max_size=4), more=st.dictionaries(WORDS, JSON))
def test_no_entry_spoils_a_list(page: Any, entries: list[Any], more: dict[str, Any]):
    """Whatever a vendor puts into it."""
    said = {**more, "data": entries, "models": entries, "modelSummaries": entries}
    assert len(page(json.dumps(said).encode()).models) <= len(entries)


@pytest.mark.parametrize(
    ("options", "url"),
    [
        (OpenAIOptions(kind="openai", api_key=Secret("k")), "https://api.openai.com/v1/models"),
        (OpenAIOptions(kind="groq", vendor="groq"), "https://api.groq.com/openai/v1/models"),
        (OllamaOptions(base_url="http://host:11434/v1"), "http://host:11434/api/tags"),
        (GeminiOptions(), "https://generativelanguage.googleapis.com/v1beta/models?pageSize=1000"),
        (BedrockOptions(region="eu-west-1"), "https://bedrock.eu-west-1.amazonaws.com/foundation-models"),
    ],
)
def test_each_list_is_asked_for_where_its_vendor_has_it(options: Any, url: str):
    """Bedrock's is at another host than its answers."""
    provider = options.build("p")
    assert isinstance(provider, Lister)
    request = provider.list_request("", 0.0)
    assert (request.method, request.url, request.body) == ("GET", url, b"")


def test_bedrocks_list_is_signed_as_its_answers_are():
    """Whoever has an access key has no other."""
    secrets = {"access_key_id": Secret("AKIDEXAMPLE"), "secret_access_key": Secret("secret")}
    request = BedrockOptions(region="eu-west-1", **secrets).build("p").list_request("", 0.0)
    scope = "AKIDEXAMPLE/19700101/eu-west-1/bedrock/"
    assert request.headers["authorization"].startswith(f"AWS4-HMAC-SHA256 Credential={scope}")
