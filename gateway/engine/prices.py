"""What models cost: the configuration's word first, then the table that genai-prices ships. Never the network.

The table's package takes 0.4 s to import and 25 MB, so it is imported by the first question, in a thread, and each
model is looked up once. What a model costs may change with the date and the time of day; that is looked at every time.
"""

import asyncio
import importlib
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Annotated

import msgspec
import yaml
from msgspec import Meta, Struct

from gateway.core.resources import Clock, Priced
from gateway.core.usage import Price, pico

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

MOST_KEPT = 4096
"""Models remembered; clients choose names where a route is a pattern."""
MOST_DESCRIBED = 20_000
"""The same for those that are only shown: upstreams list thousands."""
LOOKUP_S = 5.0
"""How long a call waits for a lookup. The lookup goes on, and the next call finds its answer."""

FREE = Price(0, 0)

UNCOUNTED = ("requests_kcount", "output_reasoning_mtok", "output_citation_mtok")
"""Parts of a price that every call pays and that no `Price` can say: without them a cost would be too low."""

RESOURCE_PATH = re.compile(r"(?:(?:accounts|publishers|projects)/[^/]+/)*models/")
"""As in `models/gemini-…`: a model that the table does not know by such a path, it may know by the rest of the name."""

Schedule = Sequence[tuple[Callable[[datetime], bool], Price]]
"""Prices, each with when it holds; the first that does is the one."""

Dollars = Annotated[float, Meta(ge=0, le=1_000_000)]


class Tokens(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What tokens cost, in dollars per million."""

    prompt: Dollars
    """Prompt tokens."""
    completion: Dollars
    """Completion tokens, reasoning included."""
    cached: Dollars | None = None
    """Prompt tokens that the upstream had in its cache. Left out: as other prompt tokens."""
    cache_write: Dollars | None = None
    """Prompt tokens that the upstream put into its cache. Left out: as other prompt tokens."""

    def price(self) -> Price:
        """Return it as whole pico-dollars per token."""
        return Price.per_million(self.prompt, self.completion, self.cached, self.cache_write)


class LongPrompt(Tokens, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What tokens of a call with a long prompt cost: all of them."""

    tokens: Annotated[int, Meta(ge=1)]
    """A prompt is long when it has more."""


class Override(Tokens, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A row of `config/prices.yaml`, or the `price:` of a deployment."""

    above: LongPrompt | None = None
    """Other prices for long prompts."""

    def price(self) -> Price:
        """Return it as whole pico-dollars per token."""
        base = Tokens.price(self)
        if self.above is None:
            return base
        return msgspec.structs.replace(base, above_tokens=self.above.tokens, above=self.above.price())


def overrides_of(text: str, name: str) -> dict[str, Price]:
    """Read a table of overrides: `openai/gpt-x: {prompt: 1.25, completion: 10}`, in dollars per million tokens.

    Args:
        text: YAML; nothing but comments is an empty table.
        name: of the file, for complaints.

    Raises:
        ValueError: it is not such a table; the message says where.
    """
    where = name
    prices: dict[str, Price] = {}
    try:
        for model, row in msgspec.convert(yaml.safe_load(text) or {}, dict[str, object]).items():
            where = f'{name}, "{model}"'
            prices[model] = msgspec.convert(row, Override).price()
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise ValueError(f"{where}: {error}") from error
    return prices


class PriceBook:
    """Prices by provider and model.

    Args:
        clock: says which of a model's prices holds now.
        overrides: by `provider/model`, by `model`, or by a pattern of either with `*`; the most exact wins.
        vendors: what the table calls each provider: `{"gemini": "google"}`. A provider that is not in it, such as a
            server of one's own, has no price in the table, whatever its models are called.
        free: providers whose answers cost nothing.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        overrides: Mapping[str, Price] | None = None,
        vendors: Mapping[str, str] | None = None,
        free: frozenset[str] = frozenset(),
    ) -> None:
        self._clock = clock
        self._overrides = overrides or {}
        self._patterns = [(pattern, price) for pattern, price in self._overrides.items() if "*" in pattern]
        self._vendors = vendors or {}
        self._free = free
        self._kept: OrderedDict[tuple[str, str], Schedule] = OrderedDict()
        self._lookups: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._described: dict[tuple[str, str], tuple[Schedule, int | None]] = {}

    async def of(self, place: Priced, /) -> Price | None:
        """Return what `place` costs now; `None`: nobody knows."""
        if place.price is not None:
            return place.price
        key = (place.provider, place.model)
        schedule = self._kept.get(key)
        if schedule is None:
            schedule = await self._resolve(key)
        else:
            self._kept.move_to_end(key)
        if not schedule:
            return None
        return schedule[0][1] if len(schedule) == 1 else _price_at(schedule, self._clock.wall())

    def at_once(self, place: Priced) -> Price | None:
        """Return what `place` costs now, whatever time it takes to find out: for the load of a configuration."""
        key = (place.provider, place.model)
        if place.price is not None:
            return place.price
        if (override := self._overriding(*key)) is not None:
            return override
        vendor = self._vendors.get(place.provider)
        return None if vendor is None else _price_at(table_prices(vendor, place.model), self._clock.wall())

    def describe(self, place: Priced) -> tuple[Price | None, int | None]:
        """Return what `place` costs now, and how many tokens of context the table says it has: to be shown.

        Slow for what it was not asked before: call it in a thread.
        """
        key = (place.provider, place.model)
        if key not in self._described:
            if len(self._described) >= MOST_DESCRIBED:
                self._described.clear()
            vendor = self._vendors.get(place.provider)
            info = None if vendor is None else table_model(vendor, place.model)
            self._described[key] = ((), None) if info is None else (_schedule(info), info.context_window)
        schedule, context_tokens = self._described[key]
        price = place.price or self._overriding(*key)
        return price or (_price_at(schedule, self._clock.wall()) if schedule else None), context_tokens

    async def warm(self, places: Iterable[Priced]) -> None:
        """Look all of `places` up, so that no call has to wait for it."""
        for place in places:
            await self.of(place)

    async def _resolve(self, key: tuple[str, str]) -> Schedule:
        if (override := self._overriding(*key)) is not None:
            return self._keep(key, [(_always, override)])
        if (vendor := self._vendors.get(key[0])) is None:
            return self._keep(key, ())
        lookup = self._lookups.get(key)
        if lookup is None:
            lookup = self._lookups[key] = asyncio.ensure_future(self._look_up(key, vendor))
        await asyncio.wait({lookup}, timeout=LOOKUP_S)  # not the task itself: others wait for it too
        return self._kept.get(key, ())

    def _overriding(self, provider: str, model: str) -> Price | None:
        for name in (f"{provider}/{model}", model):
            if name in self._overrides:
                return self._overrides[name]
        for pattern, price in sorted(self._patterns, key=lambda row: -len(row[0])):
            if fnmatchcase(f"{provider}/{model}", pattern) or fnmatchcase(model, pattern):
                return price
        return FREE if provider in self._free else None

    async def _look_up(self, key: tuple[str, str], vendor: str) -> None:
        try:
            self._keep(key, await asyncio.to_thread(table_prices, vendor, key[1]))
        finally:
            del self._lookups[key]

    def _keep(self, key: tuple[str, str], schedule: Schedule) -> Schedule:
        self._kept[key] = schedule
        if len(self._kept) > MOST_KEPT:
            self._kept.popitem(last=False)
        return schedule


def table_prices(vendor: str, model: str) -> Schedule:
    """Return what the table says that `model` costs at `vendor`; empty: nothing, or not enough for a right cost.

    Slow the first time: call it in a thread.
    """
    info = table_model(vendor, model)
    return _schedule(info) if info is not None else ()


def table_model(vendor: str, model: str) -> "ModelInfo | None":
    """Return the table's entry for `model` at `vendor`. Slow the first time: call it in a thread."""
    # Imported here and not above: see the top of the file.
    snapshots = importlib.import_module("genai_prices.data_snapshot")
    everyone = snapshots.get_snapshot().providers
    provider = next((provider for provider in everyone if provider.id == vendor), None)
    if provider is None:
        return None
    # Not the snapshot's own search: it remembers every name it is asked for, for ever.
    info: ModelInfo | None = provider.find_model(model, all_providers=everyone)
    if info is None and (path := RESOURCE_PATH.match(model)):
        info = provider.find_model(model[path.end() :], all_providers=everyone)
    return info


def _schedule(info: "ModelInfo") -> Schedule:
    if not isinstance(info.prices, list):
        price = _price(info.prices)
        return () if price is None else [(_always, price)]
    schedule: list[tuple[Callable[[datetime], bool], Price]] = []
    for row in reversed(info.prices):  # the last that holds is the one
        price = _price(row.prices)
        if price is None:
            return ()
        schedule.append((_always if row.constraint is None else row.constraint.active, price))
        if row.constraint is None:
            return schedule
    return [*schedule, (_always, schedule[-1][1])]  # none holds: then it is the first


def _price_at(schedule: Schedule, wall_s: float) -> Price | None:
    now = datetime.fromtimestamp(wall_s, UTC)
    return next((price for holds, price in schedule if holds(now)), None)


def _always(_: datetime) -> bool:
    return True


def _price(said: "ModelPrice") -> Price | None:
    """Return a row of the table as ours; `None` when it charges for what we do not count, or says no token's price."""
    if said.input_mtok is None or any(getattr(said, part, None) is not None for part in UNCOUNTED):
        return None
    parts = (said.input_mtok, said.output_mtok, said.cache_read_mtok, said.cache_write_mtok)
    cliffs = sorted({tier.start for part in parts if part is not None for tier in getattr(part, "tiers", ())})
    price = None
    for above, upto in reversed(list(zip([0, *cliffs], [*cliffs, 0], strict=True))):
        prompt, completion, cached, written = (None if part is None else _above(part, above) for part in parts)
        assert prompt is not None
        price = Price(prompt, completion or 0, cached, written, upto if price else 0, price)
    return price


def _above(said: "Decimal | TieredPrices", tokens: int) -> int:
    """Return the price, in pico-dollars per token, for a prompt of more than `tokens`."""
    if isinstance(said, Decimal):
        return pico(said)
    return pico(next((tier.price for tier in reversed(said.tiers) if tier.start <= tokens), said.base))
