"""What `price:` says: of a deployment in gateway.yaml, and of a model in `config/prices.yaml`."""

from decimal import Decimal, InvalidOperation
from typing import Annotated, Self

import msgspec
from msgspec import Meta, Struct

from gateway.core.price import PICO_PER_DOLLAR, SECONDS_AN_HOUR, UNKNOWN, Price, pico
from gateway.core.usage import USUAL_TIERS

MOST_DOLLARS = 1_000_000
"""More than anything costs; a slip of the finger is not to be charged."""


class Dollars(Decimal):
    """Dollars, exactly as written: per million tokens, or each where it says so."""

    unit = "dollars per million tokens like 0.15"

    @classmethod
    def parse(cls, said: object) -> Self:
        """Read a price.

        Raises:
            ValueError: it is no amount of money, or less than nothing.
        """
        try:
            amount = None if isinstance(said, bool) else cls(str(said))
        except InvalidOperation:
            amount = None
        if amount is None or not amount.is_finite() or not 0 <= amount <= MOST_DOLLARS:
            raise ValueError(f"expected {cls.unit}, got {said}")
        return amount


class DollarsEach(Dollars):
    """Dollars for one."""

    unit = "dollars like 0.01"


class Factor(Dollars):
    """How many times as much something costs."""

    unit = "how many times the price, like 0.5"


PAIRS = (
    ("completion", "prompt"),
    ("prompt", "completion"),
    ("cached", "cached_audio"),
    ("cached", "cached_image"),
)
"""What has to have a price where something else has one."""


class Tokens(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What tokens cost, in dollars per million."""

    prompt: Dollars | None = None
    """Tokens that are sent. It may be left out, with `completion`, where nothing is charged by tokens."""
    completion: Dollars | None = None
    """Tokens that are answered, reasoning included."""
    cached: Dollars | None = None
    """Sent tokens that the upstream had in its cache; the same as `prompt` when left out."""
    cache_write: Dollars | None = None
    """Sent tokens that the upstream put into its cache; the same as `prompt` when left out."""
    cache_write_1h: Dollars | None = None
    """Those that it keeps for an hour (Anthropic); the same as `cache_write` when left out."""
    cache_write_12h: Dollars | None = None
    """Those that it keeps for twelve hours (OpenAI); the same as `cache_write` when left out."""
    reasoning: Dollars | None = None
    """Tokens that were thought; the same as `completion` when left out."""
    audio_prompt: Dollars | None = None
    """Sound that is sent; the same as `prompt` when left out."""
    cached_audio: Dollars | None = None
    """Sound that the upstream had in its cache; the same as `cached` when left out."""
    audio_completion: Dollars | None = None
    """Sound that is answered; the same as `completion` when left out."""
    image_prompt: Dollars | None = None
    """Pictures that are sent; the same as `prompt` when left out."""
    cached_image: Dollars | None = None
    """Pictures that the upstream had in its cache; the same as `cached` when left out."""
    image_completion: Dollars | None = None
    """Pictures that are answered; the same as `completion` when left out."""

    def __post_init__(self) -> None:
        """Refuse half a price.

        Raises:
            ValueError: a part has one and its whole has none.
        """
        for missing, given in PAIRS:
            if getattr(self, given) is not None and getattr(self, missing) is None:
                raise ValueError(f"{given} has a price and {missing} has none (0: it is free)")
        if self.prompt is None and any(getattr(self, name) is not None for name in Tokens.__struct_fields__):
            raise ValueError("some tokens have a price, but prompt and completion have none")

    def price(self) -> Price:
        """Return it as whole pico-dollars."""
        said = {name: getattr(self, name) for name in Tokens.__struct_fields__}
        rates = {name: pico(dollars) for name, dollars in said.items() if dollars is not None}
        return msgspec.structs.replace(Price(UNKNOWN, UNKNOWN), **rates)


class LongPrompt(Tokens, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What tokens of a call with a long prompt cost: all of them."""

    tokens: Annotated[int, Meta(ge=1)]
    """A prompt is long when it has more."""

    def __post_init__(self) -> None:
        """Refuse a price that is none.

        Raises:
            ValueError: it leaves prompt or completion out.
        """
        if self.prompt is None:
            raise ValueError("a long prompt has no price: prompt and completion are missing")
        super().__post_init__()


class PriceOptions(Tokens, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What it costs, in place of the price table: tokens in dollars per million, all else in dollars each."""

    request: DollarsEach = DollarsEach(0)
    """Each call, beside what it used."""
    search: DollarsEach | None = None
    """A search of the web, or a reranker's search unit. When left out, what a call that searched costs is unknown."""
    file_search: DollarsEach | None = None
    """A search of stored files. When left out, what a call that did it costs is unknown."""
    image: DollarsEach | None = None
    """A picture that is made. Left out where pictures are charged by their tokens."""
    minute: DollarsEach | None = None
    """A minute of sound, heard or made; charged by the second. Left out where sound is charged by its tokens."""
    character: Dollars | None = None
    """A million characters that are read out. Left out where speech is charged by its tokens."""
    above: LongPrompt | None = None
    """Other prices for calls with a long prompt."""
    tiers: dict[str, Factor] = {}
    """By the service tier that an answer names, how many times as much it costs: `{flex: 0.5, priority: 2}`. Calls
    and searches cost the same. What an answer of a tier that is not named here costs is unknown."""

    def __post_init__(self) -> None:
        """Refuse half a price, and another one for the usual service.

        Raises:
            ValueError: it is either.
        """
        super().__post_init__()
        for usual in USUAL_TIERS & self.tiers.keys():
            raise ValueError(f'tiers: "{usual}" is the usual service; its prices are prompt, completion and so on')

    def price(self) -> Price:
        """Return it as whole pico-dollars."""
        price = self._with_rest(Tokens.price(self))
        if self.above is not None:
            long = self._with_rest(self.above.price())
            price = msgspec.structs.replace(price, above_tokens=self.above.tokens, above=long)
        return msgspec.structs.replace(price, tiers={name: price.times(by) for name, by in self.tiers.items()})

    def _with_rest(self, price: Price) -> Price:
        """Return the price of tokens with those of what is no token."""
        return msgspec.structs.replace(
            price,
            request=_each(self.request),
            search=_each(self.search),
            file_search=_each(self.file_search),
            image=_each(self.image),
            audio_hour=UNKNOWN if self.minute is None else _each(self.minute) * SECONDS_AN_HOUR // 60,
            character=UNKNOWN if self.character is None else pico(self.character),
        )


def _each(dollars: Decimal | None) -> int:
    return UNKNOWN if dollars is None else int((dollars * PICO_PER_DOLLAR).to_integral_value())
