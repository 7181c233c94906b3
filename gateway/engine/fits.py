"""What deployments do not take: from the configuration, from `config/models.yaml`, and from their own errors."""

import logging
from collections.abc import Callable

from gateway.core.fit import Fit
from gateway.core.resources import Clock
from gateway.core.route import Deployment
from gateway.engine.known_models import fit_of

MOST_KEPT = 4096
"""Deployments remembered; clients choose names where a route is a pattern."""
LEARNT_S = 3600.0
"""How long an upstream's own word counts; then a call pays for finding out whether it still holds."""

log = logging.getLogger("gateway")


class Lessons:
    """What upstreams' errors have taught this process, under whichever configuration."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.learnt: dict[str, tuple[Fit, float]] = {}
        """By deployments' names, and until when each counts."""

    def of(self, name: str) -> Fit | None:
        """Return what was learnt of the deployment called `name`; `None`: nothing that still counts."""
        learnt = self.learnt.get(name)
        if learnt is None:
            return None
        if learnt[1] <= self._clock.now():
            del self.learnt[name]
            return None
        return learnt[0]

    def learn(self, name: str, more: Fit) -> None:
        """Remember it."""
        if len(self.learnt) >= MOST_KEPT:
            self.learnt.clear()
        known = self.of(name)
        self.learnt[name] = (more if known is None else known | more, self._clock.now() + LEARNT_S)


class KnownFits:
    """Satisfies `Fits` for one configuration.

    Args:
        lessons: what was learnt.
        known_as: by which name `config/models.yaml` knows a configured provider.
    """

    def __init__(self, lessons: Lessons, known_as: Callable[[str], str]) -> None:
        self._lessons = lessons
        self._known_as = known_as
        self._known: dict[str, Fit | None] = {}

    def of(self, deployment: Deployment) -> Fit | None:
        """Return what has to be done to a request for it; `None`: nothing."""
        try:
            known = self._known[deployment.name]
        except KeyError:
            known = self._look_up(deployment)
        learnt = self._lessons.of(deployment.name) if self._lessons.learnt else None
        if learnt is None:
            return known
        return learnt if known is None else known | learnt

    def learn(self, deployment: Deployment, more: Fit) -> None:
        """Remember for a while what its upstream has just said."""
        said = ", ".join(sorted(more.rejects | more.renames.keys()))
        log.warning(
            "%.256a does not take %s by its own word; that is believed for %g s", deployment.name, said, LEARNT_S
        )
        self._lessons.learn(deployment.name, more)

    def _look_up(self, deployment: Deployment) -> Fit | None:
        if len(self._known) >= MOST_KEPT:
            self._known.clear()
        fit = fit_of(self._known_as(deployment.provider), deployment.model) | Fit(deployment.rejects)
        known = self._known[deployment.name] = fit or None
        return known
