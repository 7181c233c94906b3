"""What that costs: prices, and money as exact integers.

1 dollar is 10⁹ nano-dollars (`nusd`). A price in dollars per million tokens may be finer than one nano-dollar per
token ($0.0375/M is 37.5), so prices are kept as pico-dollars per token and a cost is rounded once, half to even.

A cost is right or it is unknown, never a guess: what was used and has no price of its own costs what it is part of
only where that is known to be so, and else makes the whole cost unknown.
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal

import msgspec
from msgspec import Struct

from gateway.core.usage import NOTHING_ELSE, Usage

PICO_PER_DOLLAR_A_MILLION = 1_000_000
"""$1 per million tokens is 10⁻⁶ dollars a token: 10⁶ pico-dollars."""
PICO_PER_DOLLAR = 10**12
SECONDS_AN_HOUR = 3600

UNKNOWN = -1
"""A rate: this is charged for, and nobody knows how much."""

Line = tuple[int, int]
"""Of a bill: so many, at this rate."""


class Price(Struct, frozen=True):
    """What a model costs, in pico-dollars a piece. `None`: the same as what it is part of."""

    prompt: int
    completion: int
    cached: int | None = None
    cache_write: int | None = None
    above_tokens: int = 0
    """With `above`: a prompt longer than this is charged by `above` as a whole (long-context prices)."""
    above: "Price | None" = None
    cache_write_1h: int | None = None
    cache_write_12h: int | None = None
    reasoning: int | None = None
    audio_prompt: int | None = None
    image_prompt: int | None = None
    video_prompt: int | None = None
    cached_audio: int | None = None
    cached_image: int | None = None
    audio_completion: int | None = None
    image_completion: int | None = None
    video_completion: int | None = None
    request: int = 0
    """Each call, whatever it used."""
    search: int = UNKNOWN
    file_search: int = UNKNOWN
    image: int = UNKNOWN
    """A picture that was made. Unknown: it is charged by its tokens."""
    audio_hour: int = UNKNOWN
    """An hour of sound: a second is no whole number of pico-dollars everywhere. Unknown: as `image`."""
    character: int = UNKNOWN
    """A character that was read out. Unknown: as `image`."""
    least_audio_s: int = 0
    """The least that is charged of any sound at all."""
    tiers: Mapping[str, "Price"] = {}
    """What it costs by another service than the usual one, by the name that an answer gives that service."""

    @classmethod
    def per_million(
        cls,
        prompt: Decimal | float,
        completion: Decimal | float,
        cached: Decimal | float | None = None,
        cache_write: Decimal | float | None = None,
    ) -> "Price":
        """Build a price from dollars per million tokens, as vendors print them."""
        return cls(
            pico(prompt),
            pico(completion),
            None if cached is None else pico(cached),
            None if cache_write is None else pico(cache_write),
        )

    def cost_nusd(self, usage: Usage) -> int | None:
        """Return what `usage` costs, in nano-dollars; `None`: this price does not say, or the usage does not add up.

        What the upstream itself says it cost is not looked at.
        """
        price = self._for(usage) if usage.service_tier or self.above is not None else self
        if price is None:
            return None
        if usage.extras is NOTHING_ELSE and usage.billed_tokens is None and not usage.cache_write_tokens:
            return price._plain_nusd(usage)
        pico_dollars = 0
        for count, rate in price._bill(usage):
            if count < 0 or (count and rate < 0):
                return None
            pico_dollars += count * rate
        seconds = usage.extras.audio_seconds
        if not seconds or price.audio_hour < 0:
            return half_even(pico_dollars, 1000)
        seconds = max(seconds, price.least_audio_s)
        return half_even(pico_dollars * SECONDS_AN_HOUR + seconds * price.audio_hour, 1000 * SECONDS_AN_HOUR)

    def times(self, factor: Decimal) -> "Price":
        """Return the prices of a service that costs so many times as much; calls and searches cost the same."""
        rates = {name: _times(getattr(self, name), factor) for name in SCALED}
        above = None if self.above is None else self.above.times(factor)
        return msgspec.structs.replace(self, **rates, above=above, tiers={})

    def _for(self, usage: Usage) -> "Price | None":
        """Return the prices of the service that answered, for a prompt of this length."""
        price = self.tiers.get(usage.service_tier) if usage.service_tier else self
        while price is not None and price.above is not None and usage.prompt_tokens > price.above_tokens:
            price = price.above
        return price

    def _plain_nusd(self, usage: Usage) -> int | None:
        """Return what tokens alone cost, all of them charged, and none written to a cache.

        It is what `_bill` comes to, which took 5 µs of each call, where it was measured: most use nothing else.
        """
        cached = 0 if self.cached is None else usage.cached_tokens
        reasoning = 0 if self.reasoning is None else usage.reasoning_tokens
        fresh, said = usage.prompt_tokens - cached, usage.completion_tokens - reasoning
        read, sent = cached * (self.cached or 0), fresh * self.prompt
        thought, answered = reasoning * (self.reasoning or 0), said * self.completion
        if min(cached, fresh, reasoning, said, self.request, read, sent, thought, answered) < 0:
            return None  # it does not add up, or is charged at an `UNKNOWN` rate
        return half_even(self.request + read + sent + thought + answered, 1000)

    def _bill(self, usage: Usage) -> Iterator[Line]:
        """Yield what is charged: all tokens in parts that do not overlap, then what is no token."""
        extras = usage.extras
        yield 1, self.request
        if usage.billed_tokens is None:
            yield from self._prompt(usage)
            yield from self._completion(usage)
        else:  # no cached ones are among them
            yield usage.billed_tokens[0], self.prompt
            yield usage.billed_tokens[1], self.completion
        yield extras.searches, self.search
        yield extras.file_searches, self.file_search
        yield extras.other_tools, UNKNOWN
        told_in_tokens = usage.prompt_tokens or usage.completion_tokens
        for count, rate in ((extras.images, self.image), (extras.characters, self.character)):
            if rate >= 0 or not told_in_tokens:
                yield count, rate
        if self.audio_hour < 0 and not told_in_tokens:
            yield extras.audio_seconds, UNKNOWN

    def _prompt(self, usage: Usage) -> Iterator[Line]:
        extras = usage.extras
        hour, half_day = extras.cache_write_1h_tokens, extras.cache_write_12h_tokens
        cached = 0 if self.cached is None else usage.cached_tokens  # None: they are as good as fresh
        written = 0 if self.cache_write is None else usage.cache_write_tokens - hour - half_day
        fresh = usage.prompt_tokens - cached - written - hour - half_day
        cached_rate, written_rate = _or(self.cached, self.prompt), _or(self.cache_write, self.prompt)
        yield written, written_rate
        yield hour, _or(self.cache_write_1h, written_rate)
        yield half_day, _or(self.cache_write_12h, written_rate)
        for count, rate, among_cached, its_cached_rate in (
            (extras.audio_prompt_tokens, self.audio_prompt, extras.cached_audio_tokens, self.cached_audio),
            (extras.image_prompt_tokens, self.image_prompt, extras.cached_image_tokens, self.cached_image),
            (extras.video_prompt_tokens, self.video_prompt, None, None),
        ):
            if not count or (rate is None and its_cached_rate is None):
                continue
            if not cached:
                among_cached = 0
            if among_cached is None or written or hour or half_day:
                yield count, UNKNOWN  # how much of it was fresh is not said
                return
            fresh -= count - among_cached
            cached -= among_cached
            yield count - among_cached, _or(rate, self.prompt)
            yield among_cached, _or(its_cached_rate, cached_rate)
        yield cached, cached_rate
        yield fresh, self.prompt

    def _completion(self, usage: Usage) -> Iterator[Line]:
        extras, rest = usage.extras, usage.completion_tokens
        for count, rate in (
            (usage.reasoning_tokens, self.reasoning),
            (extras.audio_completion_tokens, self.audio_completion),
            (extras.image_completion_tokens, self.image_completion),
            (extras.video_completion_tokens, self.video_completion),
        ):
            if count and rate is not None:
                rest -= count
                yield count, rate
        yield rest, self.completion


SCALED = tuple(
    name
    for name in Price.__struct_fields__
    if name not in ("above_tokens", "above", "request", "search", "file_search", "least_audio_s", "tiers")
)
"""Rates that another service tier changes."""


def _or(rate: int | None, other: int) -> int:
    return other if rate is None else rate


def _times(rate: int | None, factor: Decimal) -> int | None:
    return rate if rate is None or rate < 0 else int((rate * factor).to_integral_value())


def pico(dollars_a_million: Decimal | float) -> int:
    """Return dollars per million tokens as pico-dollars per token."""
    return int((Decimal(str(dollars_a_million)) * PICO_PER_DOLLAR_A_MILLION).to_integral_value())


def half_even(amount: int, unit: int) -> int:
    """Divide, rounding half to even: the only rounding that money meets here."""
    whole, rest = divmod(amount, unit)
    if 2 * rest > unit or (2 * rest == unit and whole % 2):
        return whole + 1
    return whole


def dollars(nusd: int) -> str:
    """Print nano-dollars as dollars, every digit kept: `0.000012345`."""
    sign, nusd = ("-", -nusd) if nusd < 0 else ("", nusd)
    return sign + "%d.%09d" % divmod(nusd, 10**9)  # noqa: UP031 half the time of an f-string
