"""What clients ask about models: the list, one of them, a search, a comparison, who has them. In OpenAI's words, or
Anthropic's for its clients. Whoever asks is told of the models that they may use, and of no others.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from gateway.core.call import Call
from gateway.core.errors import BadRequest, UnknownModel
from gateway.core.model import Capabilities
from gateway.core.principal import ANYONE
from gateway.core.reply import Chunk, Reply
from gateway.core.resources import Clock
from gateway.engine.discovery import Discovery, UpstreamList
from gateway.engine.fleet import LiveFleet
from gateway.engine.routes import RouteTable
from gateway.providers.base import ProviderOptions
from gateway.services.catalogue import Catalogue, Entry, squeezed
from gateway.wire.models import (
    AnthropicModel,
    AnthropicPage,
    Compared,
    DiscoveryState,
    Found,
    Model,
    ModelList,
    ProviderHealth,
    ProviderList,
    ProviderObject,
    differences,
)
from gateway.wire.openai import encode

CAPABILITIES = Capabilities.__struct_fields__
MOST_COMPARED = 10
MOST_FOUND = 100
MOST_PAGE = 1000
"""Anthropic's own most."""
MOST_DEPLOYMENTS = 10_000


class Filter(Struct, frozen=True):
    """Which models are meant."""

    provider: str = ""
    """One that can answer for it."""
    capabilities: tuple[str, ...] = ()
    """What it is known to be able to do."""
    text: str = ""
    """Words that all of them occur in its names, its display name or its providers."""

    def fits(self, entry: Entry) -> bool:
        """Tell whether a model is meant."""
        facts = entry.model.gateway
        if self.provider and self.provider not in facts.providers:
            return False
        if any(getattr(facts.capabilities, name) is not True for name in self.capabilities):
            return False
        return all(word in entry.words for word in self.words)

    @property
    def words(self) -> list[str]:
        """The words of the text without what stands between letters and digits: `gpt4o` is `gpt-4o`."""
        return [word for said in self.text.split() if (word := squeezed(said))]

    def rank(self, entry: Entry) -> tuple[int, int, str]:
        """Return a key to sort by: whole names first, then beginnings, then the rest; the short ones first."""
        id, text = squeezed(entry.model.id), "".join(self.words)
        own = squeezed(entry.model.id.rpartition("/")[2])
        best = next((n for n, hit in enumerate((id == text, own == text, own.startswith(text), text in id)) if hit), 4)
        return best, len(entry.model.id), entry.model.id


class Page(Struct, frozen=True):
    """Which part of a list is wanted."""

    limit: int = 20
    offset: int = 0
    after_id: str = ""
    before_id: str = ""


class Models:
    """Answers what clients ask about models.

    Args:
        catalogue: the models.
        routes: hints at names that are near.
        providers: the options of every provider, by its name.
        off: why those are off that are.
        discovery: the upstreams' lists.
        fleet: how deployments are doing.
        clock: says how old a list is.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        routes: RouteTable,
        providers: Mapping[str, ProviderOptions],
        off: Mapping[str, str],
        *,
        discovery: Discovery,
        fleet: LiveFleet,
        clock: Clock,
    ) -> None:
        self._catalogue = catalogue
        self._routes = routes
        self._providers = providers
        self._off = off
        self._discovery = discovery
        self._fleet = fleet
        self._clock = clock

    async def all(self, call: Call, wanted: Filter) -> Reply:
        """Answer with OpenAI's list of models."""
        return _reply(ModelList(data=[entry.model for entry in await self._usable(call) if wanted.fits(entry)]))

    async def page(self, call: Call, wanted: Filter, page: Page) -> Reply:
        """Answer with a page of Anthropic's list.

        Raises:
            BadRequest: the page is to begin, or end, at a model that is not in the list.
        """
        models = [AnthropicModel.of(entry.model) for entry in await self._usable(call) if wanted.fits(entry)]
        ids = [model.id for model in models]
        begin = _place(ids, page.after_id, "after_id") + 1 if page.after_id else 0
        end = _place(ids, page.before_id, "before_id") if page.before_id else len(ids)
        if page.before_id and not page.after_id:
            begin = max(0, end - page.limit)
        shown = models[begin:end][: page.limit]
        more = begin > 0 if page.before_id and not page.after_id else begin + len(shown) < end
        return _reply(AnthropicPage(shown, more, shown[0].id if shown else None, shown[-1].id if shown else None))

    async def one(self, call: Call, name: str) -> Reply:
        """Answer with one model.

        Raises:
            UnknownModel: there is none of this name.
        """
        model = await self._one(call, name, "model")
        return _reply(AnthropicModel.of(model) if call.surface == "messages" else model)

    async def search(self, call: Call, wanted: Filter, page: Page) -> Reply:
        """Answer with the models that fit, the best first."""
        fitting = [entry for entry in await self._usable(call) if wanted.fits(entry)]
        if wanted.words:
            fitting.sort(key=wanted.rank)
        shown = [entry.model for entry in fitting[page.offset :][: page.limit]]
        more = page.offset + len(shown) < len(fitting)
        return _reply(Found(data=shown, query=wanted.text, total=len(fitting), has_more=more))

    async def compare(self, call: Call, names: Sequence[str]) -> Reply:
        """Answer with several models, and in what they differ.

        Raises:
            UnknownModel: there is none of one of these names.
        """
        models = [await self._one(call, name, "model_ids") for name in dict.fromkeys(names)]
        return _reply(Compared(data=models, differences=differences(models)))

    async def providers(self, call: Call) -> Reply:
        """Answer with the providers: an operator with all, and others with those whose models they may use.

        Why one is off, and what its upstream said last, is for operators.
        """
        entries = await self._usable(call)
        mine = {name: sum(name in entry.model.gateway.providers for entry in entries) for name in self._providers}
        lists, asked, resting = self._discovery.lists(), dict[str, int](), dict[str, int]()
        for condition in self._fleet.conditions(MOST_DEPLOYMENTS):
            provider = condition.name.partition("/")[0]
            asked[provider] = asked.get(provider, 0) + 1
            resting[provider] = resting.get(provider, 0) + (condition.state == "resting")
        inside = call.principal.admin or call.principal is ANYONE
        shown: list[ProviderObject] = []
        for name, options in self._providers.items():
            if not (inside or mine[name]):
                continue
            off, list_ = self._off.get(name), lists.get(name)
            shown.append(
                ProviderObject(
                    id=name,
                    kind=options.kind,
                    status="on" if off is None else "off",
                    reason=off,
                    models=mine[name],
                    discovery=None if list_ is None else self._state(list_, inside=inside),
                    health=ProviderHealth(asked[name], resting[name]) if name in asked else None,
                )
            )
        return _reply(ProviderList(data=shown))

    async def refresh(self, call: Call) -> Reply:
        """Have every upstream that is followed say its list anew, and answer with the providers when all have."""
        await self._discovery.refresh()
        return await self.providers(call)

    async def _usable(self, call: Call) -> list[Entry]:
        may_use = call.principal.may_use
        return [entry for name, entry in (await self._catalogue.entries()).items() if may_use(name)]

    async def _one(self, call: Call, name: str, param: str) -> Model:
        entry = await self._catalogue.find(name) if call.principal.may_use(name) else None
        if entry is None:
            near = f"; {self._routes.near(name)}" if "*" in call.principal.models else ""
            raise UnknownModel(f'"{name}" is not a model here{near}', param=param)
        return entry.model

    def _state(self, said: UpstreamList, *, inside: bool) -> DiscoveryState:
        return DiscoveryState(
            state=said.state(self._clock.wall()),
            every_s=said.every_s,
            models=len(said.models),
            asked_at=None if said.asked_s is None else int(said.asked_s),
            answered_at=None if said.told_s is None else int(said.told_s),
            error=(said.error or None) if inside else None,
        )


def _place(ids: Sequence[str], id: str, param: str) -> int:
    if id not in ids:
        raise BadRequest(f'{param}: "{id}" is not in the list', param=param, code="invalid_value")
    return ids.index(id)


def _reply(said: Struct) -> Reply:
    return Reply(Chunk(encode(said)))
