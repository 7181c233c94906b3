"""What was used, and what that costs: tokens, prices, and money as exact integers.

1 dollar is 10⁹ nano-dollars (`nusd`). A price in dollars per million tokens may be finer than one nano-dollar per
token ($0.0375/M is 37.5), so prices are kept as pico-dollars per token and a cost is rounded once, half to even.
"""

from decimal import Decimal

from msgspec import Struct

PICO_PER_DOLLAR_A_MILLION = 1_000_000
"""$1 per million tokens is 10⁻⁶ dollars a token: 10⁶ pico-dollars."""


class Usage(Struct, frozen=True):
    """Tokens of one answer, as its upstream counted them.

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

    @property
    def total_tokens(self) -> int:
        """Prompt and completion together."""
        return self.prompt_tokens + self.completion_tokens

    def __add__(self, other: "Usage") -> "Usage":
        """Return what two attempts used together."""
        mine, its = self.stated_cost_nusd, other.stated_cost_nusd
        bill, more = self.billed_tokens, other.billed_tokens
        return Usage(
            self.prompt_tokens + other.prompt_tokens,
            self.completion_tokens + other.completion_tokens,
            self.cached_tokens + other.cached_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
            self.reasoning_tokens + other.reasoning_tokens,
            estimated=self.estimated or other.estimated,
            stated_cost_nusd=None if mine is None or its is None else mine + its,
            billed_tokens=None if bill is None or more is None else (bill[0] + more[0], bill[1] + more[1]),
        )


class Price(Struct, frozen=True):
    """What one token costs, in pico-dollars. `None`: the same as a plain prompt token."""

    prompt: int
    completion: int
    cached: int | None = None
    cache_write: int | None = None
    above_tokens: int = 0
    """With `above`: a prompt longer than this is charged by `above` as a whole (long-context prices)."""
    above: "Price | None" = None

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

    def cost_nusd(self, usage: Usage) -> int:
        """Return what `usage` costs, in nano-dollars. Billed tokens have no cached ones among them."""
        if self.above is not None and usage.prompt_tokens > self.above_tokens:
            return self.above.cost_nusd(usage)
        if usage.billed_tokens is not None:
            prompt, completion = usage.billed_tokens
            return half_even(prompt * self.prompt + completion * self.completion, 1000)
        cached = self.prompt if self.cached is None else self.cached
        written = self.prompt if self.cache_write is None else self.cache_write
        fresh = usage.prompt_tokens - usage.cached_tokens - usage.cache_write_tokens
        pico_dollars = (
            fresh * self.prompt
            + usage.cached_tokens * cached
            + usage.cache_write_tokens * written
            + usage.completion_tokens * self.completion
        )
        return half_even(pico_dollars, 1000)


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
    return f"{sign}{nusd // 10**9}.{nusd % 10**9:09d}"
