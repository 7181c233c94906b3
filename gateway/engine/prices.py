"""What models cost: the configuration's word first, then the table that genai-prices ships. Never the network.

The table's package takes 0.4 s to import and 25 MB, so it is imported by the first question, in a thread, and each
model is looked up once. What a model costs may change with the date and the time of day; that is looked at every time.
"""

import asyncio
import importlib
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Protocol

import msgspec
import yaml
from msgspec import Struct

from gateway.core.price import PICO_PER_DOLLAR, UNKNOWN, Price
from gateway.core.resources import Clock, Priced
from gateway.core.usage import USUAL_TIERS
from gateway.engine.price_options import Dollars, PriceOptions

if TYPE_CHECKING:
    from genai_prices.types import ModelInfo, ModelPrice, TieredPrices

MOST_KEPT = 4096
"""Models remembered; clients choose names where a route is a pattern."""
MOST_DESCRIBED = 20_000
"""The same for those that are only shown: upstreams list thousands."""
LOOKUP_S = 5.0
"""How long a call waits for a lookup. The lookup goes on, and the next call finds its answer."""

FREE = Price(0, 0)

COUNTED = {
    "input_mtok": "prompt",
    "output_mtok": "completion",
    "cache_read_mtok": "cached",
    "cache_write_mtok": "cache_write",
    "cache_write_1h_mtok": "cache_write_1h",
    "output_reasoning_mtok": "reasoning",
    "input_audio_mtok": "audio_prompt",
    "input_image_mtok": "image_prompt",
    "input_video_mtok": "video_prompt",
    "cache_audio_read_mtok": "cached_audio",
    "cache_image_read_mtok": "cached_image",
    "output_audio_mtok": "audio_completion",
    "output_image_mtok": "image_completion",
    "output_video_mtok": "video_completion",
    "requests_kcount": "request",
    "web_searches_kcount": "search",
    "rerank_searches_kcount": "search",
    "storage_searches_kcount": "file_search",
    "audio_hours": "audio_hour",
    "input_audio_hours": "audio_hour",
    "input_mchars": "character",
}
"""What the table's prices are of, in our words. A row with any other has no price: a cost without it would be wrong."""
PIECES = {"_mtok": 1_000_000, "_mchars": 1_000_000, "_kcount": 1_000, "_hours": 1}
"""How many of a thing a price of the table is for, by the end of its name."""
TIERS = ({"service_tier"}, {"processing"}, {"speed"})
"""What a price of the table may depend on, and what answers tell as their service tier."""

IN_THE_US = Decimal("1.1")
"""Anthropic's factor: https://platform.claude.com/docs/en/build-with-claude/data-residency."""
AUDIO_APART = frozenset({"openai", "azure"})
"""Vendors whose sound never costs what text does. Where the table has no price of it, nobody knows it."""
TEN_SECONDS_AT_LEAST = frozenset({("groq", "whisper-large-v3"), ("groq", "whisper-large-v3-turbo")})
"""https://console.groq.com/docs/speech-to-text: shorter sound is charged as if it had ten seconds."""

ANY_MOMENT = datetime.fromtimestamp(0, UTC)
"""Stands for all of them, where none differs from another."""

RESOURCE_PATH = re.compile(r"(?:(?:accounts|publishers|projects)/[^/]+/)*models/")
"""As in `models/gemini-…`: a model that the table does not know by such a path, it may know by the rest of the name."""

UNSAID = Price(UNKNOWN, UNKNOWN, cache_write_1h=UNKNOWN, cache_write_12h=UNKNOWN)
"""Of a row of the table that says nothing: what is kept longer than usual never costs what is kept as usual."""


class Schedule(Protocol):
    """What a model costs, by the moment."""

    def at(self, moment: datetime, /) -> Price | None:
        """Return the price; `None`: unknown."""
        ...


class Always(Struct, frozen=True):
    """A `Schedule` that never changes."""

    price: Price | None

    def at(self, moment: datetime, /) -> Price | None:
        """Return the price."""
        return self.price


NOBODY_KNOWS = Always(None)


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
            prices[model] = msgspec.convert(row, PriceOptions, dec_hook=_parsed).price()
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        raise ValueError(f"{where}: {error}") from error
    return prices


def _parsed(type_: type[Dollars], said: object) -> Dollars:
    return type_.parse(said)


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

    def at_hand(self, place: Priced, /) -> Price | None:
        """Return what `place` costs now, if that was asked before; `None`: nobody knows.

        Raises:
            LookupError: it was not.
        """
        if place.price is not None:
            return place.price
        key = (place.provider, place.model)
        schedule = self._kept[key]
        self._kept.move_to_end(key)
        return schedule.price if isinstance(schedule, Always) else schedule.at(self._now())

    async def of(self, place: Priced, /) -> Price | None:
        """Return what `place` costs now; `None`: nobody knows."""
        try:
            return self.at_hand(place)
        except LookupError:
            schedule = await self._resolve((place.provider, place.model))
            return schedule.at(self._now())

    def at_once(self, place: Priced) -> Price | None:
        """Return what `place` costs now, whatever time it takes to find out: for the load of a configuration."""
        key = (place.provider, place.model)
        if place.price is not None:
            return place.price
        if (override := self._overriding(*key)) is not None:
            return override
        vendor = self._vendors.get(place.provider)
        return None if vendor is None else table_prices(vendor, place.model).at(self._now())

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
            known = None if vendor is None or info is None else (_schedule(vendor, info), info.context_window)
            self._described[key] = known or (NOBODY_KNOWS, None)
        schedule, context_tokens = self._described[key]
        price = place.price or self._overriding(*key)
        price = price or schedule.at(self._now())
        if price is None or price.prompt < 0:
            return None, context_tokens  # unknown, or not by tokens
        return msgspec.structs.replace(price, completion=max(price.completion, 0)), context_tokens

    async def warm(self, places: Iterable[Priced]) -> None:
        """Look all of `places` up, so that no call has to wait for it."""
        for place in places:
            await self.of(place)

    async def _resolve(self, key: tuple[str, str]) -> Schedule:
        if (override := self._overriding(*key)) is not None:
            return self._keep(key, Always(override))
        if (vendor := self._vendors.get(key[0])) is None:
            return self._keep(key, NOBODY_KNOWS)
        lookup = self._lookups.get(key)
        if lookup is None:
            lookup = self._lookups[key] = asyncio.ensure_future(self._look_up(key, vendor))
        await asyncio.wait({lookup}, timeout=LOOKUP_S)  # not the task itself: others wait for it too
        return self._kept.get(key, NOBODY_KNOWS)

    def _overriding(self, provider: str, model: str) -> Price | None:
        for name in (f"{provider}/{model}", model):
            if name in self._overrides:
                return self._overrides[name]
        for pattern, price in sorted(self._patterns, key=lambda row: -len(row[0])):
            if fnmatchcase(f"{provider}/{model}", pattern) or fnmatchcase(model, pattern):
                return price
        return FREE if provider in self._free else None

    def _now(self) -> datetime:
        return datetime.fromtimestamp(self._clock.wall(), UTC)

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
    """Return what the table says that `model` costs at `vendor`.

    Slow the first time: call it in a thread.
    """
    info = table_model(vendor, model)
    return NOBODY_KNOWS if info is None else _schedule(vendor, info)


def _schedule(vendor: str, info: "ModelInfo") -> Schedule:
    snapshots = importlib.import_module("genai_prices.data_snapshot")
    own = next(provider.models for provider in snapshots.get_snapshot().providers if provider.id == vendor)
    schedule = TableSchedule(vendor, info, its_own=any(info is one for one in own))
    return schedule if schedule.changes else Always(schedule.at(ANY_MOMENT))


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


class TableSchedule:
    """A `Schedule` of the table. Its prices begin on a day, or hold for some hours of each, service tiers and all.

    Args:
        vendor: who is asked for the model.
        info: the table's row.
        its_own: the row is the vendor's, not that of who made the model: then its tiers are the vendor's too.
    """

    def __init__(self, vendor: str, info: "ModelInfo", *, its_own: bool) -> None:
        self._info = info
        self._vendor = vendor
        variants = info.price_variants or []
        rows = [*(info.prices if isinstance(info.prices, list) else []), *variants]
        self._conditions = [row.constraint for row in rows if row.constraint is not None]
        self._variants = variants if its_own else []
        self._made: dict[tuple[bool, ...], Price | None] = {}

    @property
    def changes(self) -> bool:
        """Whether the price depends on the moment."""
        return bool(self._conditions)

    def at(self, moment: datetime, /) -> Price | None:
        """Return the price at `moment`; each combination of conditions is worked out once."""
        holds = tuple(condition.active(moment) for condition in self._conditions)
        if holds not in self._made:
            self._made[holds] = self._price(moment)
        return self._made[holds]

    def _price(self, moment: datetime) -> Price | None:
        usual = self._of(moment, None)
        tiers: dict[str, Price] = {}
        for variant in self._variants:
            if set(variant.when) not in TIERS:
                return None  # it depends on what no answer tells
            if variant.constraint is None or variant.constraint.active(moment):
                price = self._of(moment, variant.when)
                if price is None:
                    return None
                tiers |= {tier: price for tier in variant.when.values() if tier not in USUAL_TIERS}
        if usual is None:
            return None
        if self._vendor == "anthropic":
            tiers |= {f"{tier}+us": price.times(IN_THE_US) for tier, price in tiers.items()}
            tiers["us"] = usual.times(IN_THE_US)
        return msgspec.structs.replace(usual, tiers=tiers)

    def _of(self, moment: datetime, context: Mapping[str, str] | None) -> Price | None:
        price = price_of(self._info.get_prices(moment, context))
        if price is None:
            return None
        if self._vendor in AUDIO_APART:
            price = _audio_apart(price)
        least_audio_s = 10 if (self._vendor, self._info.id) in TEN_SECONDS_AT_LEAST else 0
        return msgspec.structs.replace(price, least_audio_s=least_audio_s)


def price_of(said: "ModelPrice") -> Price | None:
    """Return a row of the table as ours; `None` when it charges for what we do not count, or for nothing."""
    parts = {name: part for name, part in vars(said).items() if part is not None}
    if not parts or any(name not in COUNTED for name in parts):
        return None
    cliffs = sorted({tier.start for part in parts.values() for tier in getattr(part, "tiers", ())})
    price = None
    for above, upto in reversed(list(zip([0, *cliffs], [*cliffs, 0], strict=True))):
        rates: dict[str, int] = {}
        for name, part in parts.items():
            rate = _rate(name, part, above)
            if rates.setdefault(COUNTED[name], rate) != rate:
                return None  # by two prices, and which of them is not clear
        price = msgspec.structs.replace(UNSAID, **rates, above_tokens=upto if price else 0, above=price)
    return price


def _rate(name: str, said: "Decimal | TieredPrices", tokens: int) -> int:
    """Return the price, in pico-dollars a piece, for a prompt of more than `tokens`."""
    if not isinstance(said, Decimal):
        said = next((tier.price for tier in reversed(said.tiers) if tier.start <= tokens), said.base)
    pieces = next(pieces for end, pieces in PIECES.items() if name.endswith(end))
    return int((said * (PICO_PER_DOLLAR // pieces)).to_integral_value())


def _audio_apart(price: Price) -> Price:
    heard = UNKNOWN if price.audio_prompt is None else price.audio_prompt
    said = UNKNOWN if price.audio_completion is None else price.audio_completion
    above = None if price.above is None else _audio_apart(price.above)
    return msgspec.structs.replace(price, audio_prompt=heard, audio_completion=said, above=above)
