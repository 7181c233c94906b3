"""What upstreams say when they are asked which models they have: the lists of all dialects.

A list is a courtesy, and every vendor adds to it what it likes. So what cannot be read in one entry is left out, and
the rest is told: nothing is guessed. Sources: the vendors' API references, "List models"; OpenRouter, Mistral, Groq,
Together, Fireworks and vLLM say more than OpenAI does, each in words of its own.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn, cast

import msgspec

from gateway.core.errors import Unreachable
from gateway.core.model import Capabilities, ModelFacts
from gateway.providers.base import ListedModel, ModelPage
from gateway.providers.failures import UNREADABLE, brief

Said = Mapping[str, Any]

MOST_ID_CHARS = 256
"""As for the names that clients ask for."""

EMPTY: Said = {}


def openai_page(body: bytes) -> ModelPage:
    """Read `GET /models`: `{"data": […]}`, or Together's bare list."""
    return ModelPage(_models(_entries(body, "data"), "id", _openai_facts))


def anthropic_page(body: bytes) -> ModelPage:
    """Read `GET /v1/models` of Anthropic; the last id asks for the next page."""
    said = _object(body)
    last = said.get("last_id")
    more = said.get("has_more") is True and isinstance(last, str)
    return ModelPage(_models(_entries(body, "data"), "id", _anthropic_facts), str(last) if more else "")


def gemini_page(body: bytes) -> ModelPage:
    """Read `GET /v1beta/models`: names are `models/gemini-…`."""
    models = _models(_entries(body, "models"), "name", _gemini_facts)
    short = [msgspec.structs.replace(model, id=model.id.removeprefix("models/")) for model in models]
    return ModelPage(short, _text(_object(body), "nextPageToken") or "")


def cohere_page(body: bytes) -> ModelPage:
    """Read `GET /v1/models` of Cohere."""
    models = _models(_entries(body, "models"), "name", _cohere_facts)
    return ModelPage(models, _text(_object(body), "next_page_token") or "")


def ollama_page(body: bytes) -> ModelPage:
    """Read `GET /api/tags`: what was pulled."""
    return ModelPage(_models(_entries(body, "models"), "name", _ollama_facts))


def bedrock_page(body: bytes) -> ModelPage:
    """Read `ListFoundationModels`. Inference profiles (`us.…`) are lists of their own, and not here."""
    return ModelPage(_models(_entries(body, "modelSummaries"), "modelId", _bedrock_facts))


# ── What each says ───────────────────────────────────────────────────────────────────────────────────────────────


def _openai_facts(said: Said) -> ModelFacts:
    architecture, top = _part(said, "architecture"), _part(said, "top_provider")
    takes = said.get("supported_parameters")  # OpenRouter
    takes = cast("list[object]", takes) if isinstance(takes, list) else None
    can = _part(said, "capabilities")  # Mistral
    return ModelFacts(
        display_name=_text(said, "display_name", "name"),
        created_s=_count(said, "created"),
        context_tokens=_count(said, "context_window", "context_length", "max_context_length", "max_model_len"),
        output_tokens=_count(said, "max_completion_tokens", "max_output_tokens")
        or _count(top, "max_completion_tokens"),
        inputs=_words(architecture, "input_modalities") or _words(said, "input_modalities"),
        outputs=_words(architecture, "output_modalities") or _words(said, "output_modalities"),
        capabilities=Capabilities(
            tools=_listed("tools", takes, _flag(can, "function_calling"), _flag(said, "supports_tools")),
            vision=_listed("", None, _flag(can, "vision"), _flag(said, "supports_image_input")),
            reasoning=_listed("reasoning", takes, _flag(can, "reasoning")),
            json_schema=_listed("structured_outputs", takes),
        ),
    )


def _anthropic_facts(said: Said) -> ModelFacts:
    can = _part(said, "capabilities")
    images, files = _supported(can, "image_input"), _supported(can, "pdf_input")
    inputs = None if images is None or files is None else ("text", *["image"] * images, *["file"] * files)
    return ModelFacts(
        display_name=_text(said, "display_name"),
        created_s=_moment_s(_text(said, "created_at")),
        context_tokens=_count(said, "max_input_tokens"),
        output_tokens=_count(said, "max_tokens"),
        inputs=inputs,
        capabilities=Capabilities(
            vision=images, reasoning=_supported(can, "thinking"), json_schema=_supported(can, "structured_outputs")
        ),
    )


def _gemini_facts(said: Said) -> ModelFacts:
    methods = _words(said, "supportedGenerationMethods")
    return ModelFacts(
        display_name=_text(said, "displayName"),
        context_tokens=_count(said, "inputTokenLimit"),
        output_tokens=_count(said, "outputTokenLimit"),
        outputs=("embedding",) if methods and "embedcontent" in methods else None,
        capabilities=Capabilities(reasoning=_flag(said, "thinking")),
    )


def _cohere_facts(said: Said) -> ModelFacts:
    features = said.get("features")
    can = cast("list[object]", features) if isinstance(features, list) else None
    return ModelFacts(
        context_tokens=_count(said, "context_length"),
        capabilities=Capabilities(
            tools=_listed("tools", can),
            vision=_listed("vision", can),
            reasoning=_listed("reasoning", can),
            json_schema=_listed("json_schema", can),
        ),
    )


def _ollama_facts(said: Said) -> ModelFacts:
    capabilities = said.get("capabilities")  # newer servers
    can = cast("list[object]", capabilities) if isinstance(capabilities, list) else None
    return ModelFacts(
        created_s=_moment_s(_text(said, "modified_at")),
        capabilities=Capabilities(
            tools=_listed("tools", can), vision=_listed("vision", can), reasoning=_listed("thinking", can)
        ),
    )


def _bedrock_facts(said: Said) -> ModelFacts:
    return ModelFacts(
        display_name=_text(said, "modelName"),
        inputs=_words(said, "inputModalities"),
        outputs=_words(said, "outputModalities"),
        capabilities=Capabilities(streaming=_flag(said, "responseStreamingSupported")),
    )


# ── Reading ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except UNREADABLE:
        _no_list(body)


def _no_list(body: bytes) -> NoReturn:
    shown = brief(body[:100_000].decode("utf-8", "replace"))[:200] or "nothing"
    raise Unreachable(f"the upstream answered 200, but with no list of models: {shown}")


def _object(body: bytes) -> Said:
    said = _decoded(body)
    return cast("Said", said) if isinstance(said, dict) else EMPTY


def _entries(body: bytes, name: str) -> list[Said]:
    """Return the entries of a list that stands alone, or under `name`.

    Raises:
        Unreachable: there is none.
    """
    said = _decoded(body)
    rows = cast("Said", said).get(name) if isinstance(said, dict) else said
    if not isinstance(rows, list):
        _no_list(body)
    return [cast("Said", row) for row in cast("list[object]", rows) if isinstance(row, dict)]


def _models(entries: list[Said], name: str, facts: Callable[[Said], ModelFacts]) -> list[ListedModel]:
    """Return each entry whose id is one that a client could ask for."""
    ids = [(_text(entry, name) or "", entry) for entry in entries]
    return [ListedModel(id, facts(entry)) for id, entry in ids if 0 < len(id) <= MOST_ID_CHARS and id.isprintable()]


def _part(said: Said, name: str) -> Said:
    part = said.get(name)
    return cast("Said", part) if isinstance(part, dict) else EMPTY


def _text(said: Said, *names: str) -> str | None:
    """Return the first of these fields that says something."""
    return next((said[name] for name in names if isinstance(said.get(name), str) and said[name]), None)


def _count(said: Said, *names: str) -> int | None:
    """Return the first of these fields that is a number above nothing."""
    for name in names:
        number = said.get(name)
        if isinstance(number, int | float) and not isinstance(number, bool) and 0 < number < 1e15:
            return int(number)
    return None


def _flag(said: Said, name: str) -> bool | None:
    flag = said.get(name)
    return flag if isinstance(flag, bool) else None


def _supported(said: Said, name: str) -> bool | None:
    return _flag(_part(said, name), "supported")


def _listed(word: str, words: Sequence[object] | None, *flags: bool | None) -> bool | None:
    """Return whether `words` have `word`, or else the first flag that says anything."""
    if words is not None:
        return word in words
    return next((flag for flag in flags if flag is not None), None)


def _words(said: Said, name: str) -> tuple[str, ...] | None:
    """Return a list of words in small letters; `None`: it is none, or empty."""
    words = said.get(name)
    if not isinstance(words, list):
        return None
    return tuple(word.lower() for word in cast("list[object]", words) if isinstance(word, str)) or None


def _moment_s(said: str | None) -> int | None:
    """Return an ISO time in seconds since 1970; the epoch itself is how Anthropic says that it does not know."""
    try:
        moment = datetime.fromisoformat(said or "")
    except ValueError:
        return None
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()) or None
