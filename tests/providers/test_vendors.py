"""Vendors are rows of data; a row that cannot be read, or says nothing, is a mistake of ours."""

import pytest

from gateway.core.secret import Secret
from gateway.providers.openai import OpenAIOptions
from gateway.providers.vendors import Vendor, vendor, vendor_at, vendor_names

LOCAL = {"ollama", "vllm", "localai"}


def test_every_row_can_be_read_and_leads_somewhere():
    """Unknown fields are refused, so that a quirk that is misspelt is not one that is silently without effect."""
    for name in vendor_names():
        row = vendor(name)
        assert row.base_url.startswith("http://localhost" if name in LOCAL else "https://"), name
        assert not row.base_url.endswith("/")
        assert row.docs.startswith("https://")
        assert row.key_variable.endswith("_API_KEY")


def test_the_vendors_of_the_documentation_are_there():
    """A name in gateway.yaml that worked has to go on working."""
    assert vendor_names() >= {
        *("openai", "groq", "mistral", "deepseek", "xai", "openrouter", "together", "fireworks", "perplexity"),
        *("ollama", "vllm", "localai", "gemini-openai"),
    }


def test_a_misspelt_vendor_is_told_the_right_one():
    """An error says the cure."""
    with pytest.raises(ValueError, match='did you mean "mistral"'):
        vendor("mistal")
    with pytest.raises(ValueError, match="known are"):
        OpenAIOptions(vendor="zzzz")


def test_a_known_address_brings_its_quirks_along():
    """Many write `kind: openai` and a vendor's base_url; the server is the same one."""
    assert vendor_at("https://api.groq.com/openai/v1/") is vendor("groq")
    assert vendor_at("https://api.groq.com.evil.example/v1") is None
    assert vendor_at("http://localhost:8000/v1") is None
    assert OpenAIOptions(base_url="https://api.mistral.ai/v1").row is vendor("mistral")


@pytest.mark.parametrize(
    ("options", "off"),
    [
        (OpenAIOptions(), "its api_key is empty; set OPENAI_API_KEY"),
        (OpenAIOptions(api_key=Secret("sk")), ""),
        (OpenAIOptions(base_url="http://localhost:1234/v1"), ""),
        (OpenAIOptions(kind="groq"), "its api_key is empty; set GROQ_API_KEY"),
        (OpenAIOptions(kind="groq", base_url="https://proxy.example/v1"), "its api_key is empty; set GROQ_API_KEY"),
        (OpenAIOptions(base_url="https://api.groq.com/openai/v1"), "its api_key is empty; set GROQ_API_KEY"),
        (OpenAIOptions(vendor="ollama"), ""),
        (OpenAIOptions(kind="vllm"), ""),
    ],
)
def test_a_provider_without_a_key_is_off_unless_it_is_a_server_of_ones_own(options, off):
    """The gateway starts with the keys that there are, and says which variable would turn on the rest."""
    assert options.off() == off


def test_prices_are_the_vendors_never_those_of_a_server_of_ones_own():
    """A local model called `gpt-4o` costs nothing that the table knows."""
    assert OpenAIOptions().price_table() == "openai"
    assert OpenAIOptions(vendor="xai").price_table() == "x-ai"
    assert OpenAIOptions(base_url="http://localhost:1234/v1").price_table() == ""
    assert OpenAIOptions(kind="ollama").price_table() == ""


def test_a_row_without_quirks_is_openai_itself():
    """The defaults are the dialect."""
    row = Vendor(base_url="https://x", docs="")
    assert (row.renames, row.drops, row.stream_options, row.reasoning_tokens) == ({}, (), "known", "inside")
