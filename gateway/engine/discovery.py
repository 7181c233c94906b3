"""Which models upstreams have, by their own lists: asked in the background, and kept while an upstream cannot say.

A list is asked for again before it is as old as its provider allows. Nobody waits for that, whoever is slow or gone:
the last list stands, and the providers' page tells how old it is and what went wrong.
"""

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from typing import Literal

from msgspec import Struct

from gateway.core.errors import Unreachable, UpstreamFailed
from gateway.core.model import ModelFacts
from gateway.core.resources import Clock
from gateway.engine.transport import Deadline, Transport
from gateway.providers.base import Lister, ProviderOptions

CONNECT_S = 5.0
LIST_S = 30.0
"""How long a list may take, all of its pages."""
MOST_PAGES = 100
MOST_MODELS = 20_000
MOST_PAGE_BYTES = 32 * 1024 * 1024
AGAIN_S = 10.0
"""After a failure the list is asked for again so soon, then after twice as long, and so on up to the usual time."""
MOST_DOUBLINGS = 20
EARLY = 0.8
"""A list is asked for again at this share of its time or later, by chance: or all workers would ask together."""

log = logging.getLogger("gateway")


class Source(Struct, frozen=True):
    """A provider that is to be asked for its list."""

    options: ProviderOptions
    """While they stay the same over a reload, so does what was found."""
    lister: Lister
    transport: Transport
    every_s: float
    """How old its list may become."""


class UpstreamList(Struct):
    """What one upstream last said, and how that went."""

    every_s: float
    models: Mapping[str, ModelFacts] = {}
    """By the upstream's own names."""
    asked_s: float | None = None
    """When it was last asked, in seconds since 1970. `None`: not yet."""
    told_s: float | None = None
    """When it last answered."""
    error: str = ""
    """Why it did not answer the last time; empty: it did."""

    def state(self, now_s: float) -> Literal["never", "fresh", "stale"]:
        """Return how it stands at a time in seconds since 1970."""
        if self.told_s is None:
            return "never"
        return "fresh" if now_s - self.told_s <= self.every_s else "stale"


class Discovery:
    """Follows the lists of the providers that the configuration wants to be asked; shared by all configurations."""

    def __init__(self, clock: Clock) -> None:
        self.version = 0
        """Another number whenever a list says something new."""
        self._clock = clock
        self._followed: dict[str, _Followed] = {}

    def follow(self, sources: Mapping[str, Source]) -> None:
        """Follow these from now on, by the name of their provider, and no others."""
        for name in [name for name, it in self._followed.items() if not it.is_same(sources.get(name))]:
            self._followed.pop(name).stop()
            self.version += 1
        for name, source in sources.items():
            if name not in self._followed:
                self._followed[name] = _Followed(name, source, self._clock, self._changed)

    def lists(self) -> Mapping[str, UpstreamList]:
        """Return what is known of each provider that is followed."""
        return {name: followed.list for name, followed in self._followed.items()}

    async def refresh(self) -> None:
        """Ask everybody now, or join in where somebody is being asked; return when all have answered or failed."""
        if asking := [followed.ask() for followed in self._followed.values()]:
            await asyncio.wait(asking, timeout=LIST_S)

    def close(self) -> None:
        """Ask no more."""
        for followed in self._followed.values():
            followed.stop()

    def _changed(self) -> None:
        self.version += 1


class _Followed:
    """One provider's list, and the task that keeps it fresh."""

    def __init__(self, name: str, source: Source, clock: Clock, changed: Callable[[], None]) -> None:
        self.list = UpstreamList(source.every_s)
        self._name = name
        self._source = source
        self._clock = clock
        self._changed = changed
        self._failures = 0
        self._asking: asyncio.Task[None] | None = None
        self._keeping = asyncio.ensure_future(self._keep())

    def is_same(self, source: Source | None) -> bool:
        """Tell whether `source` is who is followed."""
        return source is not None and source.options == self._source.options

    def stop(self) -> None:
        """Ask no more."""
        self._keeping.cancel()
        if self._asking is not None:
            self._asking.cancel()

    def ask(self) -> "asyncio.Task[None]":
        """Ask now, unless that is being done."""
        if self._asking is None:
            self._asking = asyncio.ensure_future(self._ask())
        return self._asking

    async def _keep(self) -> None:
        while True:
            await asyncio.wait({self.ask()})  # not the task itself: a refresh may wait for it too
            every_s = self._source.every_s
            wait_s = every_s * random.uniform(EARLY, 1)  # noqa: S311 spreading load is no secret
            if self._failures:
                wait_s = min(wait_s, AGAIN_S * 2 ** min(self._failures - 1, MOST_DOUBLINGS))
            await self._clock.sleep(wait_s)

    async def _ask(self) -> None:
        self.list.asked_s = self._clock.wall()
        try:
            models = await self._pages()
        except UpstreamFailed as error:
            self._failed(error.message)
        except Exception as error:
            log.exception("the list of models of %s could not be read, by a bug, of ours or of a provider", self._name)
            self._failed(f"{type(error).__name__}; the gateway's log knows more")
        else:
            self._failures, self.list.error = 0, ""
            self.list.told_s = self._clock.wall()
            if models != self.list.models:
                self.list.models = models
                self._changed()
        finally:
            self._asking = None

    def _failed(self, reason: str) -> None:
        self._failures += 1
        if self._failures == 1:
            kept = len(self.list.models)
            log.warning("%s does not list its models (%s); %d that it listed before are kept", self._name, reason, kept)
        self.list.error = reason

    async def _pages(self) -> dict[str, ModelFacts]:
        """Return all pages of the list.

        Raises:
            UpstreamFailed: one of them is none.
        """
        deadline = Deadline(asyncio.get_running_loop().time() + LIST_S, "total")
        models: dict[str, ModelFacts] = {}
        page = ""
        for _ in range(MOST_PAGES):
            found = self._source.lister.listed(await self._page(page, deadline))
            models |= {model.id: model.facts for model in found.models}
            if not found.next or found.next == page or len(models) >= MOST_MODELS:
                break
            page = found.next
        return models

    async def _page(self, page: str, deadline: Deadline) -> bytes:
        lister = self._source.lister
        request = lister.list_request(page, self._clock.wall())
        response = await self._source.transport.send(request, connect_s=CONNECT_S, deadline=deadline)
        try:
            body = await response.read(MOST_PAGE_BYTES)
        finally:
            response.close()
        if response.status >= 400:
            raise lister.error(response.status, response.headers, body)
        if response.status != 200:  # redirects are not followed: they would carry the key elsewhere
            raise Unreachable(f"the upstream answered {response.status} where its list of models was asked for")
        return body
