"""Live measurements of deployments, and the orders that are made of them."""

import random
from collections.abc import Sequence

from msgspec import Struct

from gateway.core.route import Deployment, Order

MOST_REMEMBERED = 10_000
"""Deployments whose measurements are kept; patterns let clients name them, so there is an end."""

WEIGHT_OF_NEWEST = 0.2
"""How much of a new measurement goes into the mean: about the last ten count."""


class Health(Struct):
    """How one deployment has been doing."""

    in_flight: int = 0
    first_chunk_s: float | None = None
    """A moving mean. `None`: never asked."""


class LiveFleet:
    """Measures deployments as they are asked, and orders them by what it saw."""

    def __init__(self, chance: random.Random | None = None) -> None:
        self._chance = chance or random.Random()  # noqa: S311 spreading load is no secret
        self._health: dict[str, Health] = {}

    def health(self, name: str) -> Health:
        """Return the measurements of the deployment called `name`."""
        health = self._health.get(name)
        if health is None:
            if len(self._health) >= MOST_REMEMBERED:
                self._health = {name: health for name, health in self._health.items() if health.in_flight}
            health = self._health[name] = Health()
        return health

    def begin(self, name: str) -> None:
        """Note that an attempt began."""
        self.health(name).in_flight += 1

    def end(self, name: str, first_chunk_s: float | None) -> None:
        """Note that an attempt is over, and how soon it first spoke, if it did."""
        health = self.health(name)
        health.in_flight -= 1
        if first_chunk_s is not None:
            before = health.first_chunk_s
            health.first_chunk_s = (
                first_chunk_s if before is None else before + WEIGHT_OF_NEWEST * (first_chunk_s - before)
            )

    def order(self, deployments: Sequence[Deployment], order: Order) -> list[Deployment]:
        """Return `deployments`, best first.

        `weighted` draws them one after the other, each with the chance of its weight; `least_busy` counts calls in
        flight for their weight; `fastest` goes by the time to the first chunk, the never-asked first, so that each is
        measured; `cheapest` by the price of a prompt and a completion token together, the unknown last. Ties keep the
        order of the configuration. A weight of 0 comes last in every order but `as_written`.
        """
        if len(deployments) == 1 or order == "as_written":
            return list(deployments)
        drained = [d for d in deployments if d.weight == 0]
        live = [d for d in deployments if d.weight > 0]
        match order:
            case "weighted":
                live = self._drawn(live)
            case "least_busy":
                live.sort(key=lambda d: self.health(d.name).in_flight / d.weight)
            case "fastest":
                live.sort(key=lambda d: self.health(d.name).first_chunk_s or 0.0)
            case "cheapest":
                live.sort(key=lambda d: d.dearness)
        return live + drained

    def _drawn(self, deployments: list[Deployment]) -> list[Deployment]:
        """Sort by u^(1/weight) for uniform u: a weighted draw without replacement (Efraimidis and Spirakis, 2006)."""
        return sorted(deployments, key=lambda d: self._chance.random() ** (1 / d.weight), reverse=True)
