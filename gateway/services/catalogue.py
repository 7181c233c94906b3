"""Which models there are, and what is known of each: the configuration, the upstreams' lists, prices and facts as one.

What a model is said to be holds whichever of its deployments answers: the smallest limits, the highest price, what all
of them can do. Most is worked out in a thread and kept until a list says something new, or a price may have changed.
"""

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence

from msgspec import Struct

from gateway.core.fit import Fit
from gateway.core.model import NOTHING_KNOWN, ModelFacts
from gateway.core.price import Price
from gateway.core.resources import Clock
from gateway.core.route import Deployment, Route
from gateway.engine.discovery import Discovery
from gateway.engine.known_models import facts_of, fit_of
from gateway.engine.prices import PriceBook
from gateway.engine.routes import RouteTable
from gateway.providers.base import ListedModel, ProviderOptions
from gateway.wire.models import GatewayFacts, Model, Prices

_no_word = re.compile(r"[\W_]+")

KEPT_S = 300.0
"""Prices may change with the time of day."""


class Entry(Struct, frozen=True):
    """A model, and by what it can be found."""

    model: Model
    words: str
    """Its names, its display name and its providers, `squeezed`, a line each."""


class Catalogue:
    """The models of one configuration.

    Args:
        routes: the public names.
        providers: the options of every provider, by its name.
        local: the models of those that answer by themselves.
        discovery: what the upstreams say.
        prices: what models cost.
        clock: says how old an entry is.
    """

    def __init__(
        self,
        routes: RouteTable,
        providers: Mapping[str, ProviderOptions],
        local: Mapping[str, Sequence[ListedModel]],
        *,
        discovery: Discovery,
        prices: PriceBook,
        clock: Clock,
    ) -> None:
        self._routes = routes
        self._providers = providers
        self._local = {name: {model.id: model.facts for model in models} for name, models in local.items()}
        self._discovery = discovery
        self._prices = prices
        self._clock = clock
        self._entries: dict[str, Entry] = {}
        self._version = -1
        self._built_s = float("-inf")
        self._building = asyncio.Lock()

    async def entries(self) -> Mapping[str, Entry]:
        """Return all models by their public names: the configuration's, then what patterns stand for by the lists."""
        async with self._building:
            version, now_s = self._discovery.version, self._clock.now()
            if version != self._version or now_s - self._built_s > KEPT_S:
                listed = self._listed()
                self._entries = await asyncio.to_thread(self._built, listed)
                self._version, self._built_s = version, now_s
            return self._entries

    async def find(self, name: str) -> Entry | None:
        """Return one model, be it in no list, as long as a pattern has it; `None`: there is none of this name."""
        entry = (await self.entries()).get(name)
        if entry is not None:
            return entry
        route = self._routes.read(name)
        return None if route is None else await asyncio.to_thread(self._entry, name, route, self._listed())

    def _listed(self) -> "Listed":
        told = {name: list.models for name, list in self._discovery.lists().items()}
        return {**self._local, **told}

    def _built(self, listed: "Listed") -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        for name in (*self._routes.names, *self._found(listed)):
            route = self._routes.read(name)
            assert route is not None, "a name of the table's own"
            entries[name] = self._entry(name, route, listed)
        return entries

    def _found(self, listed: "Listed") -> list[str]:
        """Return the public names that patterns have for what the upstreams list, where no other route has them."""
        names: set[str] = set()
        for pattern in (route for route in self._routes if route.name.endswith("*")):
            for name in _named(pattern, listed):
                route = self._routes.read(name)
                if route is not None and route.name == pattern.name:
                    names.add(name)
        return sorted(names)

    def _entry(self, name: str, route: Route, listed: "Listed") -> Entry:
        deployments = route.deployments
        described = [self._prices.describe(deployment) for deployment in deployments]
        each = [self._facts(it, tokens, listed) for it, (_, tokens) in zip(deployments, described, strict=True)]
        facts = ModelFacts.of_all(each)
        price = _highest([price for price, _ in described])
        providers = list(dict.fromkeys(deployment.provider for deployment in deployments))
        known = GatewayFacts(
            providers=providers,
            display_name=facts.display_name,
            context_window=facts.context_tokens,
            max_output_tokens=facts.output_tokens,
            prices=None if price is None else Prices.of(price),
            input_modalities=facts.inputs,
            output_modalities=facts.outputs,
            capabilities=facts.capabilities,
            unsupported_parameters=sorted({name for it in deployments for name in self._fit(it).rejects}),
        )
        words = [name, *(deployment.model for deployment in deployments), facts.display_name or "", *providers]
        model = Model(id=name, created=facts.created_s or 0, owned_by=deployments[0].provider, gateway=known)
        return Entry(model, "\n".join(map(squeezed, words)))

    def _facts(self, deployment: Deployment, context_tokens: int | None, listed: "Listed") -> ModelFacts:
        """Return what is known of a deployment's model: its upstream's word first, then the price table's."""
        options, model = self._providers[deployment.provider], deployment.model
        said = [
            options.facts(model),
            ModelFacts(context_tokens=context_tokens),
            facts_of(options.known_as(), model),
        ]
        facts = listed.get(deployment.provider, {}).get(model, NOTHING_KNOWN)
        for other in said:
            facts = facts.or_else(other)
        return facts.with_vision()

    def _fit(self, deployment: Deployment) -> Fit:
        options = self._providers[deployment.provider]
        return fit_of(options.known_as(), deployment.model) | Fit(deployment.rejects)


def squeezed(text: str) -> str:
    """Return what of a text is searched: small letters and digits, without what stands between them."""
    return _no_word.sub("", text.lower())


Listed = Mapping[str, Mapping[str, ModelFacts]]
"""By provider, and by the upstream's own name, what was told of a model."""


def _named(pattern: Route, listed: Listed) -> Iterator[str]:
    """Yield the public names that a pattern gives to what its providers list."""
    for deployment in pattern.deployments:
        before, star, behind = deployment.model.partition("*")
        if not star or "*" in behind:
            continue
        for model in listed.get(deployment.provider, ()):
            if len(model) > len(before) + len(behind) and model.startswith(before) and model.endswith(behind):
                yield pattern.name[:-1] + model[len(before) : len(model) - len(behind)]


def _highest(prices: Sequence[Price | None]) -> Price | None:
    """Return what a call costs at most, whichever deployment answers; `None`: of one of them it is not known."""
    known = [price for price in prices if price is not None]
    if not known or len(known) < len(prices):
        return None
    if all(price == known[0] for price in known):
        return known[0]
    rows = [row for price in known for row in _tiers(price)]
    return Price(
        prompt=max(row.prompt for row in rows),
        completion=max(row.completion for row in rows),
        cached=max(row.prompt if row.cached is None else row.cached for row in rows),
        cache_write=max(row.prompt if row.cache_write is None else row.cache_write for row in rows),
    )


def _tiers(price: Price) -> Iterator[Price]:
    """Yield a price, and those of longer and longer prompts."""
    tier: Price | None = price
    while tier is not None:
        yield tier
        tier = tier.above
