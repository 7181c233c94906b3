"""What upstreams say of our credential is passed on, and our credential is not."""

import json

import pytest

from gateway.core.errors import UpstreamFailed
from gateway.core.secret import Secret
from gateway.providers.anthropic import AnthropicOptions
from gateway.providers.azure import AzureOptions
from gateway.providers.base import Keyed
from gateway.providers.gemini import GeminiOptions
from gateway.providers.masking import MASK, masked
from gateway.providers.openai import OpenAIOptions
from tests.providers.test_golden import attempt

KINDS: dict[str, type[Keyed]] = {
    "openai": OpenAIOptions,
    "azure": AzureOptions,
    "anthropic": AnthropicOptions,
    "gemini": GeminiOptions,
}
CANARIES = {  # made up, in the shapes in use
    "OpenAI": "sk-proj-Zk3mQ9xT_canary-Wb7LrP2vNc5Hd8Yf",
    "OpenAI, old": "sk-canaryK3mQ9xTWb7LrP2vNc5Hd8YfT3BlbkFJ",
    "Anthropic": "sk-ant-api03-canary_Qx7-Lm2Vt9Zp4Rk8Wd3-AA",
    "Gemini": "AIzaSyCanary7Qx2Lm9Vt4Zp8Rk3Wd6Hf1Jn5",
    "Google OAuth": "ya29.a0canaryAfB_byQx7Lm2Vt9Zp4Rk8Wd3",
    "Groq": "gsk_canary7Qx2Lm9Vt4Zp8Rk3Wd6Hf1Jn5Bc0",
    "xAI": "xai-canary7Qx2Lm9Vt4Zp8Rk3Wd6Hf1Jn5Bc0Ys",
    "Perplexity": "pplx-canary7qx2lm9vt4zp8rk3wd6hf1jn5bc0",
    "Fireworks": "fw_canary7Qx2Lm9Vt4Zp8Rk3",
    "Hugging Face": "hf_CanaryQxLmVtZpRkWdHfJnBcYs",
    "NVIDIA": "nvapi-canary7Qx2Lm9Vt4Zp8Rk3Wd6Hf1Jn5Bc0Ys",
    "AWS": "AKIACANARY7QX2LM9VT4",
    "Azure, hex": "0c4a9a7e5d2b48f1c4a9a7e5d2b48f1c",
    "Mistral": "cAnArY7Qx2Lm9Vt4Zp8Rk3Wd6Hf1Jn5B",
    "Cohere, letters only": "CanaryQxLmVtZpRkWdHfJnBcYsGuEiOaTbMwKvXq",
    "small letters only": "canaryqxlmvtzprkwdhfjnbcysgueioa",
    "words and numbers": "tide2024canary99harbour",
    "UUID": "ca007e55-d2b4-4811-8044-123456789012",
    "JWT": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJjYW5hcnkifQ.Qx7Lm2Vt9Zp4Rk8Wd3Hf1Jn5",
    "base64": "Y2F/uYXJ5+3Qx/Lm9Vt4+p8Rk3Wd6H==",
    "half of one": "sk-proj-********************Hd8Yf",
    "half of one, dotted": "canary1...Hd8Yf",
}
SENTENCES = [
    "Incorrect API key provided: {}. You can find yours at https://platform.openai.com/account/api-keys.",
    "Key {} may not use this model",
    "Permission denied: Consumer 'api_key:{}' has been suspended.",
    "authorization: Bearer {} is not allowed here",
    'invalid credentials {{"token":"{}"}} for project',
    "see https://example.org/v1?key={}&alt=sse",
    "({})",
    "{}",
]


@pytest.mark.parametrize("canary", CANARIES)
@pytest.mark.parametrize("sentence", SENTENCES)
def test_no_shape_of_a_key_gets_through(sentence, canary):
    """Nor a part of one: what is left of it must not be of use."""
    left = masked(sentence.format(CANARIES[canary]))
    assert MASK in left
    parts = {CANARIES[canary][at : at + 6] for at in range(len(CANARIES[canary]) - 5)}
    assert not any(part in left for part in parts), left


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500])
@pytest.mark.parametrize("key", ["a human's password", "swordfish", *CANARIES.values()])
def test_our_own_key_is_never_repeated_whatever_it_looks_like(kind, status, key):
    """By none of an upstream's errors: that is exactly the word that must not leave."""
    provider = KINDS[kind](api_key=Secret(key), base_url="https://a.example").build("p")
    told = provider.error(status, {}, json.dumps({"error": {"message": f"no, {key} is no good"}}).encode())
    assert key not in told.message
    assert MASK in told.message or status == 401


@pytest.mark.parametrize(
    "reason",
    [
        "Country, region, or territory not supported",
        "Project `proj_tide` does not have access to model `gpt-4o-mini-2024-07-18`",
        "You may not use meta-llama/Meta-Llama-3.1-405B-Instruct-Turbo in us-central1",
        "Your organization must be verified to use the model `o3`. Please go to: "
        "https://platform.openai.com/settings/organization/general and click on Verify Organization.",
        "accounts/fireworks/models/llama-v3p1-405b-instruct is not deployed; ask for claude-sonnet-4-5-20250929",
        "Generative Language API has not been used in project 123456789012 before or it is disabled.",
    ],
)
def test_a_reason_is_passed_on_word_for_word(reason):
    """A region, a project, a model: without it nobody can mend a 403."""
    error = refused(403, {"message": reason})
    assert reason.rstrip(".") in error.message
    assert (error.status, error.code, error.elsewhere, error.retryable) == (502, "upstream_auth_failed", True, False)


def refused(status: int, error: dict[str, object]) -> UpstreamFailed:
    return OpenAIOptions(api_key=Secret("sk-ours")).build("p").error(status, {}, json.dumps({"error": error}).encode())


def test_of_a_key_that_is_not_known_only_the_word_is_said():
    """The message is about nothing but the key."""
    error = refused(401, {"message": "Incorrect API key provided: swordfish", "code": "invalid_api_key"})
    assert "(401 invalid_api_key)" in error.message and "swordfish" not in error.message
    assert "(401)" in refused(401, {"message": "no", "code": "sk_abcdefghij"}).message


def test_a_key_within_a_stream_is_masked_too():
    """Some fail after the 200."""
    reader = OpenAIOptions(api_key=Secret("k")).build("p").reader(attempt({"stream": True, "messages": []}, "m"))
    event = {"error": {"message": "no model for sk-canary12345", "type": "permission_error"}}
    with pytest.raises(UpstreamFailed, match="no model for") as raised:
        reader.feed(f"data: {json.dumps(event)}\n\n".encode())
    assert "canary" not in raised.value.message


def test_a_prompt_that_a_moderation_refused_is_the_clients_matter():
    """OpenRouter says so by a 403: no other key would help."""
    metadata = {"reasons": ["violence"], "flagged_input": "kni...", "provider_name": "OpenAI"}
    error = refused(403, {"code": 403, "message": "requires moderation on OpenAI. Flagged", "metadata": metadata})
    assert (error.status, error.code, error.retryable, error.elsewhere) == (400, "content_filter", False, False)
    assert "requires moderation" in error.message
