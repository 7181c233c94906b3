"""What an answer in OpenAI's dialect used, by each vendor's way to count."""

from decimal import Decimal
from typing import Any, cast

from gateway.core.usage import NOTHING_ELSE, Extras, Usage
from gateway.providers.counting import MOST_TOKENS
from gateway.providers.vendors import Vendor

NANO = 10**9
CACHED = ("prompt_cache_hit_tokens", "cached_tokens")
"""What some call the `cached_tokens` of `prompt_tokens_details`."""
MOST_NUSD = 10**6 * NANO
"""Nobody is charged a million dollars for one call."""
TICKS_A_NANO_DOLLAR = 10
"""xAI counts cost in ticks: 10⁻¹⁰ dollars each."""


def usage_of(said: object, vendor: Vendor, *, tier: object = None, model: str = "") -> Usage | None:
    """Return what a usage object says; `None`: nothing, for LocalAI and others write zeros where they do not know.

    Call `mend_usage` before.

    Args:
        said: the object.
        vendor: whose it is.
        tier: the answer's own `service_tier`.
        model: as the vendor calls it.
    """
    if not isinstance(said, dict):
        return None
    used = cast("dict[str, Any]", said)
    prompt, completion = _count(used, "prompt_tokens"), _count(used, "completion_tokens")
    if not prompt and not completion:
        return None
    sent, answered = _part(used, "prompt_tokens_details"), _part(used, "completion_tokens_details")
    cached = min(_count(sent, "cached_tokens"), prompt)
    return Usage(
        prompt,
        completion,
        cached_tokens=cached,
        cache_write_tokens=min(_count(sent, "cache_write_tokens"), prompt - cached),
        reasoning_tokens=min(_count(answered, "reasoning_tokens"), completion),
        stated_cost_nusd=stated_cost_nusd(used, vendor),
        service_tier=vendor.tier(tier),
        extras=_extras(used, sent, answered, searches=int(vendor.always_searches(model))),
    )


def _extras(used: dict[str, Any], sent: dict[str, Any], answered: dict[str, Any], *, searches: int) -> Extras:
    if not (sent or answered or searches or "num_search_queries" in used or "prompt_audio_seconds" in used):
        return NOTHING_ELSE
    found = {
        "audio_prompt_tokens": _count(sent, "audio_tokens"),
        "image_prompt_tokens": _count(sent, "image_tokens"),
        "video_prompt_tokens": _count(sent, "video_tokens"),
        "audio_completion_tokens": _count(answered, "audio_tokens"),
        "image_completion_tokens": _count(answered, "image_tokens"),
        "searches": _count(used, "num_search_queries") or searches,  # Perplexity's
        "audio_seconds": _count(used, "prompt_audio_seconds"),  # Mistral's
    }
    found = {name: count for name, count in found.items() if count}
    return Extras(**found) if found else NOTHING_ELSE


def mend_usage(used: dict[str, Any], vendor: Vendor) -> bool:
    """Put cached and reasoning tokens where OpenAI's clients look for them; return whether anything was changed."""
    cached = _mend_cached(used)
    return _mend_reasoning(used, vendor) or cached


def _mend_cached(used: dict[str, Any]) -> bool:
    """Say what was cached in OpenAI's words too: DeepSeek, Together and others have words of their own."""
    if not any(name in used for name in CACHED):
        return False
    details = _part(used, "prompt_tokens_details")
    cached = max(_count(used, name) for name in CACHED)
    if not cached or _count(details, "cached_tokens"):
        return False
    used["prompt_tokens_details"] = {**details, "cached_tokens": cached}
    return True


def _mend_reasoning(used: dict[str, Any], vendor: Vendor) -> bool:
    """Put reasoning tokens inside of `completion_tokens`, where they belong.

    Only where the total says that they are missing, so that nothing breaks when a vendor comes to count as OpenAI does.
    """
    if vendor.reasoning_tokens == "inside":
        return False
    prompt, completion = _count(used, "prompt_tokens"), _count(used, "completion_tokens")
    missing = _count(used, "total_tokens") - prompt - completion
    if missing <= 0:
        return False
    used["completion_tokens"] = completion + missing
    details = _part(used, "completion_tokens_details")
    if not _count(details, "reasoning_tokens"):  # Gemini says them by the total alone
        used["completion_tokens_details"] = {**details, "reasoning_tokens": missing}
    return True


def stated_cost_nusd(used: dict[str, Any], vendor: Vendor) -> int | None:
    """Return what a usage object says that the call cost; `None`: nothing."""
    ticks = used.get("cost_in_usd_ticks")
    if isinstance(ticks, int):
        return _rounded(Decimal(ticks) / TICKS_A_NANO_DOLLAR)
    if not vendor.states_cost:
        return None
    cost = used.get("cost")
    if isinstance(cost, dict):  # Perplexity's
        cost = cast("dict[str, Any]", cost).get("total_cost")
    if not _is_number(cost):
        return None
    # With a key of one's own, OpenRouter's cost is its fee alone; the upstream's is charged beside it.
    beside = _part(used, "cost_details").get("upstream_inference_cost") if used.get("is_byok") is True else 0
    return _rounded((Decimal(str(cost)) + Decimal(str(beside if _is_number(beside) else 0))) * NANO)


def _is_number(said: object) -> bool:
    return isinstance(said, int | float) and not isinstance(said, bool)


def _rounded(nano_dollars: Decimal) -> int | None:
    """Return a cost; `None` where it cannot be one."""
    return int(nano_dollars.to_integral_value()) if 0 <= nano_dollars <= MOST_NUSD else None


def _part(used: dict[str, Any], name: str) -> dict[str, Any]:
    part = used.get(name)
    return cast("dict[str, Any]", part) if isinstance(part, dict) else {}


def _count(used: dict[str, Any], name: str) -> int:
    count = used.get(name)
    return count if isinstance(count, int) and 0 < count <= MOST_TOKENS else 0
