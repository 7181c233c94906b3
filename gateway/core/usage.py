"""What a call used: tokens, and what else is charged for."""

from msgspec import Struct

USUAL_TIERS = frozenset({"default", "standard", "standard_only", "auto", "on_demand"})
"""What upstreams call the service whose prices are those of the price list."""


class Extras(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What few calls use: the parts of the tokens that may cost other than the rest, and what is no token.

    A part is counted in its whole too: `audio_prompt_tokens` are among `prompt_tokens`.
    """

    cache_write_1h_tokens: int = 0
    """Of `cache_write_tokens`: kept for an hour, not for five minutes (Anthropic, Bedrock)."""
    cache_write_12h_tokens: int = 0
    """Of `cache_write_tokens`: kept for twelve hours, not for thirty minutes (OpenAI)."""
    audio_prompt_tokens: int = 0
    image_prompt_tokens: int = 0
    video_prompt_tokens: int = 0
    cached_audio_tokens: int | None = None
    """Of `cached_tokens`, and of `audio_prompt_tokens`. `None`: not said."""
    cached_image_tokens: int | None = None
    """Of `cached_tokens`, and of `image_prompt_tokens`. `None`: not said."""
    audio_completion_tokens: int = 0
    image_completion_tokens: int = 0
    video_completion_tokens: int = 0
    searches: int = 0
    """Searches of the web, or what a reranker calls search units."""
    file_searches: int = 0
    """Searches of files that the upstream stores."""
    other_tools: int = 0
    """Uses of the upstream's own tools that it charges for by what no answer says (OpenAI's code interpreter)."""
    images: int = 0
    """Pictures that were made."""
    audio_seconds: int = 0
    """Of sound that was heard or made, where it is measured by time."""
    characters: int = 0
    """Of text, where it is measured so: what was read out."""

    def __add__(self, other: "Extras") -> "Extras":
        """Return what two attempts used together."""
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in self.__struct_fields__}
        return Extras(**{name: (mine or 0) + (its or 0) for name, (mine, its) in pairs.items() if mine or its})


NOTHING_ELSE = Extras()


class Usage(Struct, frozen=True):
    """What one answer used, as its upstream counted it.

    `cached_tokens` and `cache_write_tokens` are part of `prompt_tokens`, `reasoning_tokens` of `completion_tokens`,
    whatever the upstream's own convention is: providers convert.
    """

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False
    """The upstream did not say; counted from the text by rule of thumb."""
    stated_cost_nusd: int | None = None
    """What the upstream itself says this cost (OpenRouter, xAI). It beats any price table."""
    billed_tokens: tuple[int, int] | None = None
    """Prompt and completion tokens that are charged, where those are others than were used (Cohere)."""
    service_tier: str = ""
    """The service that the answer says it came from: `flex`, `priority`, `batch`. Empty: the usual one."""
    extras: Extras = NOTHING_ELSE

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: "Usage") -> "Usage":
        """Return what two attempts used together."""
        mine, its = self.stated_cost_nusd, other.stated_cost_nusd
        bill, more = self.billed_tokens, other.billed_tokens
        plain = self.extras is NOTHING_ELSE and other.extras is NOTHING_ELSE
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            estimated=self.estimated or other.estimated,
            stated_cost_nusd=None if mine is None or its is None else mine + its,
            billed_tokens=None if bill is None or more is None else (bill[0] + more[0], bill[1] + more[1]),
            service_tier=self.service_tier if self.service_tier == other.service_tier else "",
            extras=NOTHING_ELSE if plain else self.extras + other.extras,
        )


def tier_named(said: object) -> str:
    """Return the service tier that an upstream names; empty: the usual one, or none."""
    tier = said.lower() if isinstance(said, str) else ""
    return "" if tier in USUAL_TIERS else tier
