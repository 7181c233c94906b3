"""Public model names: where they lead, and in which order their deployments are asked.

However many there are, a call looks at the same number of them: a name is found in a dictionary, a pattern by its
beginning, and a hint for a name that leads nowhere is looked for among those that begin or end most like it. (To
compare a misspelt name with all of 1,000 took 7 ms, in which nobody else was served, and any client could ask for it.)
"""

import difflib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice

from msgspec.structs import replace

from gateway.core.principal import Principal
from gateway.core.resources import Fleet
from gateway.core.route import Deployment, Prefill, Route

MOST_EXPANDED = 1_000
"""Names matched by patterns that are remembered; clients choose them, so they must not fill the memory."""
NEIGHBOURS = 24
"""Names that a misspelt one is compared with, on either side of where it would stand."""
LONGEST_COMPARED = 200
"""Characters of a name that leads nowhere; clients choose it."""


class RouteTable:
    """The routes of one configuration. Names win over patterns, longer patterns over shorter.

    Those that are off win in the same way, and lead nowhere: whoever named one must not be answered by somebody else.
    """

    def __init__(self, routes: Sequence[Route], off: Mapping[str, str]) -> None:
        """Make the table.

        Args:
            routes: those that can be asked.
            off: the names and patterns of those that cannot, each with the reason.
        """
        self._exact = {route.name: route for route in routes if not route.name.endswith("*")}
        patterns = [route for route in routes if route.name.endswith("*")]
        self._patterns = {it.name: it for it in sorted(patterns, key=lambda route: len(route.name), reverse=True)}
        self._beginnings = Beginnings(self._patterns)
        self._off = off
        self._off_beginnings = Beginnings(name for name in off if name.endswith("*"))
        self._expanded: dict[str, Route] = {}
        self._sorted = sorted(self._exact)
        self._sorted_backwards = sorted(name[::-1] for name in self._exact)

    @property
    def names(self) -> list[str]:
        """The public names, patterns left out."""
        return list(self._exact)

    def __iter__(self) -> Iterator[Route]:
        """Every route, patterns last."""
        yield from self._exact.values()
        yield from self._patterns.values()

    def find(self, model: str) -> Route | None:
        """Return where `model` leads."""
        return self._exact.get(model) or self._expanded.get(model) or self._match(model)

    def read(self, model: str) -> Route | None:
        """Return where `model` leads, and remember nothing: for lists, which have thousands of names."""
        pattern = None if model in self._exact else self._matching(model)
        return self._exact.get(model) if pattern is None else _expanded(pattern, model[len(pattern.name) - 1 :])

    def near(self, model: str) -> str:
        """Return what to tell someone who asked for a name that leads nowhere."""
        off = model if model in self._off else self._off_beginnings.longest(model)
        if off is not None:
            return f"it is off, because {self._off[off]}"
        if close := difflib.get_close_matches(model[:LONGEST_COMPARED], self._alike(model), n=3, cutoff=0.5):
            return f"did you mean {' or '.join(close)}?"
        shown = [route.name for route in islice(self, 10)]
        return f"there are {', '.join(shown)}" if shown else "no model is configured"

    def _alike(self, model: str) -> Iterable[str]:
        """Return the names that begin or end most like `model`; of few, all."""
        if len(self._sorted) <= 4 * NEIGHBOURS:
            return self._exact
        backwards = (name[::-1] for name in _around(self._sorted_backwards, model[::-1]))
        return dict.fromkeys([*_around(self._sorted, model), *backwards])

    def _match(self, model: str) -> Route | None:
        route = self._matching(model)
        if route is None:
            return None
        if len(self._expanded) >= MOST_EXPANDED:
            self._expanded.clear()
        found = self._expanded[model] = _expanded(route, model[len(route.name) - 1 :])
        return found

    def _matching(self, model: str) -> Route | None:
        """Return the pattern that `model` falls under, unless a name or a longer pattern is meant that is off."""
        if model in self._off:
            return None
        pattern, off = self._beginnings.longest(model), self._off_beginnings.longest(model)
        return None if pattern is None or len(off or "") > len(pattern) else self._patterns[pattern]


class Beginnings:
    """Patterns, found by how a name begins: one look for each length that there is."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self._of = {pattern[:-1]: pattern for pattern in patterns}
        self._lengths = sorted(set(map(len, self._of)), reverse=True)

    def longest(self, model: str) -> str | None:
        """Return the longest pattern that `model` falls under; the `*` is one character or more."""
        for length in self._lengths:
            if length < len(model) and (pattern := self._of.get(model[:length])) is not None:
                return pattern
        return None


class RouteCandidates:
    """Which deployments may answer a call: the route's, then its fallbacks', each once.

    Args:
        routes: where names lead.
        fleet: who of a route's deployments is best.
        prefill: what is known of a provider's model, by their names.
    """

    def __init__(self, routes: RouteTable, fleet: Fleet, prefill: Callable[[str, str], Prefill]) -> None:
        self._routes = routes
        self._fleet = fleet
        self._prefill = prefill

    def of(self, route: Route, principal: Principal) -> Iterator[Deployment]:
        """Yield them, best first; a fallback that `principal` may not use is passed over: it would be a way around."""
        if len(route.deployments) == 1 and not route.fallbacks:
            return iter(route.deployments)
        return self._from([route], principal)

    def for_long(self, route: Route, principal: Principal) -> Iterator[Deployment]:
        """Yield who may answer when the prompt is too long for `route`."""
        return self._from(self._usable(route.context_fallbacks, principal), principal)

    def prefill(self, deployment: Deployment) -> Prefill:
        """Return what the configuration says, or else what is known."""
        return deployment.prefill or self._prefill(deployment.provider, deployment.model)

    def _from(self, waiting: list[Route], principal: Principal) -> Iterator[Deployment]:
        asked: set[str] = set()
        seen: set[str] = set()
        while waiting:
            here = waiting.pop(0)
            if here.name in seen:
                continue
            seen.add(here.name)
            for deployment in self._fleet.order(here.deployments, here.order):
                if deployment.name not in asked:
                    asked.add(deployment.name)
                    yield deployment
            waiting += self._usable(here.fallbacks, principal)

    def _usable(self, names: Iterable[str], principal: Principal) -> list[Route]:
        routes = [self._routes.find(name) for name in names if principal.may_use(name)]
        return [route for route in routes if route is not None]


def _around(names: Sequence[str], name: str) -> Sequence[str]:
    """Return the nearest of sorted `names` on both sides of where `name` would stand."""
    place = bisect_left(names, name)
    return names[max(0, place - NEIGHBOURS) : place + NEIGHBOURS]


def _expanded(route: Route, rest: str) -> Route:
    """Fill the part of the name that the pattern left open into the deployments' models."""
    deployments = tuple(
        replace(d, name=d.name.replace("*", rest), model=d.model.replace("*", rest)) if "*" in d.model else d
        for d in route.deployments
    )
    return replace(route, deployments=deployments)
