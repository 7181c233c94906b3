"""Every price of the table, beside its own calculator: the same to the nano-dollar, or unknown with a reason."""

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from functools import cache
from typing import Any

import pytest
from genai_prices import Usage as TableUsage
from genai_prices.data_snapshot import get_snapshot
from genai_prices.types import ModelInfo, ModelPrice, Provider

from gateway.core.usage import Extras, Usage
from gateway.engine.prices import AUDIO_APART, COUNTED, TableSchedule

NOW = datetime(2026, 11, 18, 2, 30, tzinfo=UTC)
"""DeepSeek is dear at this hour."""
VENDORS = "openai azure anthropic google aws groq mistral deepseek x-ai openrouter together fireworks perplexity cohere"
CONTEXTS = {"flex": "service_tier", "priority": "service_tier", "batch": "processing", "fast": "speed"}


@cache
def models() -> list[tuple[Provider, ModelInfo]]:
    return [(one, info) for one in get_snapshot().providers if one.id in VENDORS.split() for info in one.models]


def usage(rng: random.Random) -> Usage:
    """Some usage that adds up: parts within their wholes, each of them now and then."""

    def some(most: int) -> int:
        return rng.choice((0, rng.randint(0, most)))

    def seldom(most: int) -> int:
        return some(most) if rng.random() < 0.1 else 0

    prompt, completion = rng.choice((7, 1234, 100_001, 200_000, 272_001, 400_000)), some(5000)
    cached = some(prompt // 2)
    written = some(prompt // 4)
    audio = some(prompt // 8)
    image = some(prompt // 8)
    return Usage(
        prompt,
        completion,
        cached,
        written,
        some(completion // 2),
        service_tier=rng.choice((*CONTEXTS,)) if rng.random() < 0.2 else "",
        extras=Extras(
            cache_write_1h_tokens=seldom(written),
            audio_prompt_tokens=audio,
            cached_audio_tokens=some(min(audio, cached // 2)),
            image_prompt_tokens=image,
            cached_image_tokens=some(min(image, cached // 2)),
            audio_completion_tokens=some(completion // 4),
            image_completion_tokens=some(completion // 4),
            searches=seldom(3),
            file_searches=seldom(3),
        ),
    )


def as_theirs(used: Usage) -> TableUsage:
    said: dict[str, Any] = {
        "input_tokens": used.prompt_tokens,
        "output_tokens": used.completion_tokens,
        "cache_read_tokens": used.cached_tokens,
        "cache_write_tokens": used.cache_write_tokens,
        "cache_write_1h_tokens": used.extras.cache_write_1h_tokens,
        "output_reasoning_tokens": used.reasoning_tokens,
        "input_audio_tokens": used.extras.audio_prompt_tokens,
        "cache_audio_read_tokens": used.extras.cached_audio_tokens,
        "input_image_tokens": used.extras.image_prompt_tokens,
        "cache_image_read_tokens": used.extras.cached_image_tokens,
        "output_audio_tokens": used.extras.audio_completion_tokens,
        "output_image_tokens": used.extras.image_completion_tokens,
        "web_searches": used.extras.searches,
        "storage_searches": used.extras.file_searches,
        "audio_seconds": used.extras.audio_seconds,
        "input_audio_seconds": used.extras.audio_seconds,
        "input_characters": used.extras.characters,
    }
    return TableUsage(**said)


def context_of(vendor: str, tier: str) -> dict[str, str] | None:
    if tier in ("", "default"):
        return None
    return {"service_tier" if (vendor, tier) == ("openai", "fast") else CONTEXTS[tier]: tier}


def unpriced(vendor: str, info: ModelInfo, used: Usage) -> Iterator[str]:
    """Yield why a cost has to be unknown where the table's calculator leaves a part out, or takes another for it."""
    context = context_of(vendor, used.service_tier)
    held = [one for one in info.price_variants or () if one.constraint is None or one.constraint.active(NOW)]
    if context and context not in [variant.when for variant in held]:
        yield "no price of this tier"
        return
    price, extras = info.get_prices(NOW, context), used.extras
    parts: list[tuple[str, int, ModelPrice | object]] = [
        ("an hour's cache writes", extras.cache_write_1h_tokens, price.cache_write_1h_mtok),
        ("searches", extras.searches, price.web_searches_kcount),
        ("file searches", extras.file_searches, price.storage_searches_kcount),
    ]
    if vendor in AUDIO_APART:
        parts += [
            ("sound", extras.audio_prompt_tokens, price.input_audio_mtok),
            ("sound", extras.audio_completion_tokens, price.output_audio_mtok),
        ]
    if used.cache_write_tokens and price.cache_write_mtok is not None:
        parts += [
            ("sound that was written", extras.audio_prompt_tokens if price.input_audio_mtok else 0, None),
            ("a picture that was written", extras.image_prompt_tokens if price.input_image_mtok else 0, None),
        ]
    if price.input_mtok is None:
        parts.append(("prompt", used.prompt_tokens, None))
    if price.output_mtok is None:
        apart = [(used.reasoning_tokens, price.output_reasoning_mtok)]
        apart += [(extras.audio_completion_tokens, price.output_audio_mtok)]
        apart += [(extras.image_completion_tokens, price.output_image_mtok)]
        parts.append(("completion", used.completion_tokens - sum(n for n, p in apart if p is not None), None))
    yield from (name for name, count, rate in parts if count and rate is None)


def is_finer_than_pico(info: ModelInfo) -> bool:
    """OpenRouter writes a twelfth of a dollar to eighteen places; ours is kept to the pico-dollar a token."""
    prices = [getattr(one, "base", one) for one in vars(info.get_prices(NOW)).values()]
    return any(isinstance(one, Decimal) and one != round(one, 6) for one in prices)


@pytest.mark.parametrize("seed", range(3))
def test_every_model_of_the_table_costs_what_the_table_says_or_what_is_missing_is_named(seed):
    """Some 1,500 models, each with its own usage: cache, tiers of length and of service, sound, pictures, searches."""
    compared = 0
    for number, (vendor, info) in enumerate(models()):
        price = TableSchedule(vendor.id, info, its_own=True).at(NOW)
        if price is None:
            continue  # see the next test
        used = usage(random.Random(f"{seed} {number}"))
        ours, missing = price.cost_nusd(used), list(unpriced(vendor.id, info, used))
        assert (ours is None) == bool(missing), (vendor.id, info.id, used, missing)
        if ours is not None:
            context = context_of(vendor.id, used.service_tier)
            said = info.calc_price(as_theirs(used), vendor, genai_request_timestamp=NOW, price_context=context)
            exact = int((said.total_price * 10**9).to_integral_value(ROUND_HALF_EVEN))
            rounding = used.total_tokens / 2000 if is_finer_than_pico(info) else 0
            assert abs(ours - exact) <= rounding, (vendor.id, info.id, used)
            compared += 1
    assert compared > 600, compared


def test_few_models_have_no_price_at_all_and_each_for_a_reason():
    """They charge for what no answer tells: pages, messages, citations, or which route was taken."""
    for vendor, info in models():
        if TableSchedule(vendor.id, info, its_own=True).at(NOW) is None:
            parts = {name for name, part in vars(info.get_prices(NOW)).items() if part is not None}
            told = {"service_tier", "processing", "speed"}
            contexts = {name for variant in info.price_variants or () for name in variant.when}
            assert parts - COUNTED.keys() or not parts or contexts - told, (vendor.id, info.id)


@pytest.mark.parametrize(
    ("vendor", "model", "used"),
    [
        ("openai", "whisper-1", Extras(audio_seconds=61)),
        ("groq", "whisper-large-v3", Extras(audio_seconds=61)),
        ("groq", "whisper-large-v3-turbo", Extras(audio_seconds=3)),  # charged as ten
        ("openai", "tts-1", Extras(characters=12_345)),
    ],
)
def test_what_is_no_token_is_charged_as_the_table_does(vendor, model, used):
    """Sound by the second, speech by the character."""
    provider, info = next((one, info) for one, info in models() if (one.id, info.id) == (vendor, model))
    price = TableSchedule(vendor, info, its_own=True).at(NOW)
    assert price is not None
    said = info.calc_price(as_theirs(Usage(extras=used)), provider, genai_request_timestamp=NOW).total_price
    assert price.cost_nusd(Usage(extras=used)) == int((said * Decimal(10**9)).to_integral_value(ROUND_HALF_EVEN)) > 0


@pytest.mark.parametrize(
    ("tier", "micro_dollars"),
    [
        ("", 1000 * 5 + 100 * 25),
        ("batch", (1000 * 5 + 100 * 25) / 2),
        ("fast", 1000 * 10 + 100 * 50),
        ("us", (1000 * 5 + 100 * 25) * 1.1),
        ("fast+us", (1000 * 10 + 100 * 50) * 1.1),
        ("batch+us", (1000 * 5 + 100 * 25) / 2 * 1.1),
        ("priority", None),
    ],
)
def test_anthropics_tiers_are_the_tables_and_a_tenth_more_within_the_united_states(tier, micro_dollars):
    """The table does not know where an answer was made; its surcharge is the same for all tokens."""
    info = next(info for one, info in models() if (one.id, info.id) == ("anthropic", "claude-opus-4-8"))
    price = TableSchedule("anthropic", info, its_own=True).at(NOW)
    assert price is not None
    cost = price.cost_nusd(Usage(1000, 100, service_tier=tier))
    assert cost == (None if micro_dollars is None else round(micro_dollars * 1000))


def test_a_tier_that_is_not_yet_or_belongs_to_another_vendor_has_no_price():
    """Before its day OpenAI's flex was not in the table; and Azure's tiers are not OpenAI's."""
    info = next(info for one, info in models() if (one.id, info.id) == ("openai", "gpt-5.6-sol"))
    used = Usage(1000, 100, service_tier="flex")
    costs = [
        price and price.cost_nusd(used)
        for price in (
            TableSchedule("openai", info, its_own=True).at(NOW),
            TableSchedule("openai", info, its_own=True).at(datetime(2026, 10, 11, tzinfo=UTC)),
            TableSchedule("azure", info, its_own=False).at(NOW),
        )
    ]
    assert costs == [1000 * 2000 + 100 * 10_000, None, None]
