"""What a message of Anthropic's used.

Sources: the official SDK's types of a message and of its stream's events, and
https://platform.claude.com/docs/en/build-with-claude/prompt-caching.
"""

from typing import Any

from msgspec import Struct

from gateway.core.usage import NOTHING_ELSE, Extras, Usage, tier_named
from gateway.providers.counting import count
from gateway.wire.events import Counted, Event


class _OutputDetails(Struct):
    thinking_tokens: int | None = None


class _Written(Struct):
    ephemeral_1h_input_tokens: int | None = None


class _Tools(Struct):
    web_search_requests: int | None = None


class _Counts(Struct):
    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_creation_input_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation: _Written | None = None
    output_tokens_details: _OutputDetails | None = None


class Used(_Counts):
    """The usage object of a message, or of an event of its stream."""

    iterations: list[_Counts] | None = None
    server_tool_use: _Tools | None = None
    service_tier: Any = None
    speed: Any = None
    inference_geo: Any = None


class Tally:
    """Counts tokens. What is said later replaces what was said before: Anthropic's numbers are running totals."""

    def __init__(self) -> None:
        self._said = Used()
        self._any = False
        self.lossy = False

    def add(self, usage: Used | None) -> None:
        """Note what an event says; it may say a part of it."""
        if usage is None:
            return
        self._any = True
        for name in Used.__struct_fields__:
            value = getattr(usage, name)
            if value is not None:
                setattr(self._said, name, value)

    def counted(self) -> list[Event]:
        """Return the totals, if they were said: half of them, where something was lost, is none."""
        if not self._any or (self.lossy and self._said.input_tokens is None and not self._said.iterations):
            return []
        return [Counted(_usage(self._said))]

    @property
    def so_far(self) -> Usage | None:
        """The totals by now: a stream begins with what was sent."""
        return _usage(self._said) if self._any else None


def _usage(said: Used) -> Usage:
    """Convert: Anthropic's `input_tokens` leave out what was read from and written to the cache; ours hold it.

    With `iterations` (compaction) the plain numbers are those of the last one only, so all are summed.
    """
    counts: list[_Counts] = list(said.iterations) if said.iterations else [said]
    read = sum(count(one.cache_read_input_tokens) for one in counts)
    written = sum(count(one.cache_creation_input_tokens) for one in counts)
    hour = sum(count(one.cache_creation and one.cache_creation.ephemeral_1h_input_tokens) for one in counts)
    searches = count(said.server_tool_use and said.server_tool_use.web_search_requests)
    extra = hour or searches
    details = said.output_tokens_details
    return Usage(
        prompt_tokens=sum(count(one.input_tokens) for one in counts) + read + written,
        completion_tokens=sum(count(one.output_tokens) for one in counts),
        cached_tokens=read,
        cache_write_tokens=written,
        reasoning_tokens=count(details and details.thinking_tokens),
        service_tier=_tier(said),
        extras=Extras(cache_write_1h_tokens=min(hour, written), searches=searches) if extra else NOTHING_ELSE,
    )


def _tier(said: Used) -> str:
    """Return by whose prices the answer came: the tier, how fast it was, and where it was made, if that costs more."""
    named = [tier_named(said.service_tier), tier_named(said.speed), "us" if said.inference_geo == "us" else ""]
    return "+".join(name for name in named if name)
