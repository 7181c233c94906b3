"""The rows of config/models.yaml: each right by itself, and none against what translators know."""

import pytest

from gateway.core.fit import SYNONYMS, WISHES
from gateway.engine.known_models import _rows, facts_of, fit_of
from gateway.providers.anthropic_request import MODELS
from gateway.providers.vendors import vendor_names
from gateway.settings.plugins import PROVIDERS


@pytest.mark.parametrize("row", _rows(), ids=lambda row: row.models[0])
def test_a_row_is_about_somebody_and_says_where_it_was_read(row):
    """A name that nobody has would be a row that never counts; a demand would never be left out."""
    assert set(row.at) <= PROVIDERS.keys() | vendor_names()
    assert row.docs.startswith("https://")
    assert set(row.rejects or ()) <= WISHES
    assert all(SYNONYMS[ours] == theirs for ours, theirs in (row.renames or {}).items())
    assert all(pattern == pattern.lower() for pattern in row.models)


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("claude-") and name != "claude-"])
def test_what_claude_rejects_is_what_its_translator_leaves_out(name):
    """Two tables, one truth: messages pass the one, chat completions both."""
    for model in (name, f"us.anthropic.{name}-20990101-v1:0" if name[-1].isdigit() else f"us.anthropic.{name}x"):
        kind = "bedrock" if model != name else "anthropic"
        assert bool(fit_of(kind, model).rejects) == (MODELS[name].sampling == "none"), model


def test_vertex_writes_the_date_of_a_claude_in_its_own_way():
    """And takes what the same model takes elsewhere."""
    assert not fit_of("vertex", "claude-opus-4@20250514")
    assert not fit_of("vertex", "claude-opus-4-1@20250805")
    assert fit_of("vertex", "claude-opus-5@20990101").rejects == {"temperature", "top_p", "top_k"}


def test_a_later_row_wins_field_by_field():
    """The old exception, and what the others still say of it."""
    old, new = facts_of("openai", "gpt-4o-2024-05-13"), facts_of("openai", "gpt-4o-2024-08-06")
    assert (old.output_tokens, new.output_tokens) == (4096, 16384)
    assert (old.capabilities.json_schema, new.capabilities.json_schema) == (False, True)
    assert old.inputs == new.inputs == ("text", "image")


def test_a_servers_own_models_are_not_taken_for_a_vendors():
    """Whatever they are called."""
    assert facts_of("", "gpt-4o") == facts_of("vllm", "gpt-4o") == facts_of("openai", "my-gpt-4o")
    assert not fit_of("", "o3")
