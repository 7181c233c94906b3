"""What an answer of Bedrock's used.

Source: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_TokenUsage.html.
"""

from typing import Any

from msgspec import Struct

from gateway.core.usage import NOTHING_ELSE, Extras, Usage, tier_named
from gateway.providers.counting import count


class _Cached(Struct, rename="camel"):
    ttl: str = ""
    input_tokens: int | None = None


class _Tier(Struct):
    type: Any = None


class _Performance(Struct):
    latency: Any = None


class _Usage(Struct, rename="camel"):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_write_input_tokens: int | None = None
    cache_details: list[_Cached] | None = None


class Metadata(Struct, rename="camel"):
    """What an answer says of itself: a field of its own in a stream, among the others of a whole answer."""

    usage: _Usage | None = None
    service_tier: _Tier | None = None
    performance_config: _Performance | None = None


def usage_of(said: Metadata) -> Usage | None:
    """Convert: Bedrock's `inputTokens` leave out what was read from and written to the cache; ours hold it."""
    used = said.usage
    if used is None:
        return None
    read, written = count(used.cache_read_input_tokens), count(used.cache_write_input_tokens)
    hour = sum(count(one.input_tokens) for one in used.cache_details or () if one.ttl == "1h")
    # A model that is made to answer faster is dearer, by a table that AWS has apart.
    names = [
        tier_named(said.service_tier and said.service_tier.type),
        tier_named(said.performance_config and said.performance_config.latency),
    ]
    return Usage(
        prompt_tokens=count(used.input_tokens) + read + written,
        completion_tokens=count(used.output_tokens),
        cached_tokens=read,
        cache_write_tokens=written,
        service_tier="+".join(name for name in names if name),
        extras=Extras(cache_write_1h_tokens=min(hour, written)) if hour and written else NOTHING_ELSE,
    )
