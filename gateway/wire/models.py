"""Models as clients are told of them: OpenAI's object and list, Anthropic's object and list, and what we know besides.

`null` is what nobody has said; it is never a guess.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

import msgspec
from msgspec import Struct

from gateway.core.model import Capabilities
from gateway.core.price import PICO_PER_DOLLAR_A_MILLION, Price


class TokenPrices(Struct, frozen=True):
    """What tokens cost, in dollars per million: decimal numbers as text, for binary ones cannot say 0.15."""

    prompt: str
    completion: str
    cached: str
    """Prompt tokens that the upstream had in its cache."""
    cache_write: str
    """Prompt tokens that it put there."""


class LongPromptPrices(TokenPrices, frozen=True):
    """The same of calls whose prompt is longer than so many tokens."""

    tokens: int = 0


class Prices(TokenPrices, frozen=True):
    """What a model costs now."""

    above: Sequence[LongPromptPrices] = ()
    """Of long prompts, where they cost more."""
    unit: Literal["USD per million tokens"] = "USD per million tokens"

    @classmethod
    def of(cls, price: Price) -> "Prices":
        """Return them of a price."""
        above: list[LongPromptPrices] = []
        longer = price
        while longer.above is not None:
            above.append(LongPromptPrices(*_dollars(longer.above), tokens=longer.above_tokens))
            longer = longer.above
        return cls(*_dollars(price), above=above)


class GatewayFacts(Struct, frozen=True):
    """What the gateway knows of a model. Of one with several deployments: what holds whichever of them answers."""

    providers: Sequence[str]
    """Who can answer for it, by their names in gateway.yaml."""
    display_name: str | None = None
    context_window: int | None = None
    """Tokens, prompt and answer together."""
    max_output_tokens: int | None = None
    prices: Prices | None = None
    """Of several deployments, the highest."""
    input_modalities: Sequence[str] | None = None
    output_modalities: Sequence[str] | None = None
    capabilities: Capabilities = Capabilities()
    unsupported_parameters: Sequence[str] = ()
    """Those that some deployment is known to reject; see the route's `unsupported`."""


class Model(Struct, frozen=True, kw_only=True):
    """OpenAI's object, with a `gateway` beside its own fields."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    """In seconds since 1970. 0: not known."""
    owned_by: str
    gateway: GatewayFacts


class ModelList(Struct, frozen=True, kw_only=True):
    """OpenAI's list."""

    object: Literal["list"] = "list"
    data: Sequence[Model]


class Found(ModelList, frozen=True, kw_only=True):
    """What a search found."""

    query: str = ""
    total: int = 0
    """How many models fit, those left out by `limit` and `offset` included."""
    has_more: bool = False


class Compared(ModelList, frozen=True, kw_only=True):
    """Several models side by side."""

    differences: Mapping[str, Mapping[str, Any]] = {}
    """By the field's path, such as `prices.prompt`, what each model says: of the fields in which they differ."""


class AnthropicModel(Struct, frozen=True, kw_only=True):
    """Anthropic's object, with a `gateway` beside its own fields."""

    type: Literal["model"] = "model"
    id: str
    display_name: str
    created_at: str
    max_input_tokens: int | None
    max_tokens: int | None
    gateway: GatewayFacts

    @classmethod
    def of(cls, model: Model) -> "AnthropicModel":
        """Return a model as Anthropic's clients read it; a date that is not known is the epoch, as in its own lists."""
        facts = model.gateway
        created_at = datetime.fromtimestamp(model.created, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return cls(
            id=model.id,
            display_name=facts.display_name or model.id,
            created_at=created_at,
            max_input_tokens=facts.context_window,
            max_tokens=facts.max_output_tokens,
            gateway=facts,
        )


class AnthropicPage(Struct, frozen=True):
    """A page of Anthropic's list."""

    data: Sequence[AnthropicModel]
    has_more: bool
    first_id: str | None
    last_id: str | None


class DiscoveryState(Struct, frozen=True):
    """How a provider's own list of models stands."""

    state: Literal["never", "fresh", "stale"]
    """`stale`: older than `every_s`, because the upstream has not answered since."""
    every_s: float
    models: int
    """How many the upstream listed."""
    asked_at: int | None
    """In seconds since 1970."""
    answered_at: int | None
    error: str | None
    """Why it did not answer the last time."""


class ProviderHealth(Struct, frozen=True):
    """How a provider's deployments have been doing, in this process."""

    asked: int
    resting: int


class ProviderObject(Struct, frozen=True, kw_only=True):
    """A configured provider."""

    id: str
    object: Literal["provider"] = "provider"
    kind: str
    status: Literal["on", "off"]
    reason: str | None
    """Why it is off."""
    models: int
    """How many models of `GET /v1/models` it can answer for, of those that the caller may use."""
    discovery: DiscoveryState | None
    """`null`: it is not asked for its list."""
    health: ProviderHealth | None
    """`null`: nothing was asked of it yet."""


class ProviderList(Struct, frozen=True, kw_only=True):
    """All of them."""

    object: Literal["list"] = "list"
    data: Sequence[ProviderObject]


def differences(models: Sequence[Model]) -> dict[str, dict[str, object]]:
    """Return the fields in which models differ, by their paths, with what each says."""
    flat = {model.id: _flat(msgspec.to_builtins(model.gateway)) for model in models}
    paths = dict.fromkeys(path for fields in flat.values() for path in fields)
    rows = {path: {id: fields.get(path) for id, fields in flat.items()} for path in paths}
    return {path: row for path, row in rows.items() if any(said != row[models[0].id] for said in row.values())}


def _flat(said: Mapping[str, object], path: str = "") -> dict[str, object]:
    fields: dict[str, object] = {}
    for name, value in said.items():
        if isinstance(value, dict):
            fields |= _flat(msgspec.convert(value, dict[str, object]), f"{path}{name}.")
        else:
            fields[f"{path}{name}"] = value
    return fields


def _dollars(price: Price) -> tuple[str, str, str, str]:
    """Return prices of a token, in pico-dollars, as dollars per million."""
    cached = price.prompt if price.cached is None else price.cached
    written = price.prompt if price.cache_write is None else price.cache_write
    each = [Decimal(pico) / PICO_PER_DOLLAR_A_MILLION for pico in (price.prompt, price.completion, cached, written)]
    prompt, completion, cached, written = (format(dollars.normalize(), "f") for dollars in each)
    return prompt, completion, cached, written
