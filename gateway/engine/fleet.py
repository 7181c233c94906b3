"""Every deployment's health, the orders that are made of it, and what other processes learn of it.

Each process measures for itself. Where there is Redis, who rests is told to all, so that one process's bad experience
is enough, and one call of all processes tries what has rested. While Redis is gone each goes by what it knows.
"""

import asyncio
import logging
import random
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any

from prometheus_client import Counter, Gauge

from gateway.core.receipt import Tried
from gateway.core.resources import Clock, Rest, Rests
from gateway.core.route import Deployment, Order
from gateway.engine.health import PROBED_S, Health, Rules

MOST_REMEMBERED = 10_000
"""Deployments whose measurements are kept; patterns let clients name them, so there is an end."""
LEARN_EVERY_S = 1.0
"""How often this process looks who rests by the experience of others."""
PROBE_LEASE_S = 60.0
"""After this, another process may try a deployment whose trial has not ended."""

RESTED = Counter("gateway_rests", "How often a deployment was found ill and left in peace.", ["deployment"])
RESTING = Gauge("gateway_resting", "Deployments that rest now.", ["deployment"], multiprocess_mode="livemax")

log = logging.getLogger("gateway")


class LiveFleet:
    """Measures deployments as they are asked, orders them by what it saw, and lets those rest that fail."""

    def __init__(self, clock: Clock, chance: random.Random | None = None) -> None:
        self.rules = Rules()
        self._clock = clock
        self._chance = chance or random.Random()  # noqa: S311 spreading load is no secret
        self._health: dict[str, Health] = {}
        self._shared: Rests | None = None
        self._learning: asyncio.Task[None] | None = None
        self._telling = set[asyncio.Task[None]]()

    # ── Whom to ask ──────────────────────────────────────────────────────────────────────────────────────────────

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
                live.sort(key=lambda d: self._of(d).in_flight / d.weight)
            case "fastest":
                live.sort(key=lambda d: self._of(d).first_chunk_s or 0.0)
            case "cheapest":
                live.sort(key=lambda d: d.dearness)
        return live + drained

    def rest(self, name: str) -> Rest | None:
        """Return why the deployment called `name` is not to be asked now; `None`: it may be."""
        health = self._health.get(name)
        return None if health is None else health.rest(self._clock.now())

    def is_well(self, name: str) -> bool:
        """Tell whether nothing was wrong with it of late."""
        health = self._health.get(name)
        return health is None or not (health.strikes or health.failures)

    def late_s(self, name: str, percentile: float) -> float | None:
        """Return after how long its first token is late; `None`: too few streams were seen to say."""
        health = self._health.get(name)
        return None if health is None else health.late_s(percentile)

    async def admit(self, deployment: Deployment) -> bool:
        """Ask leave for an attempt: of those who want to try what has rested, one gets it, over all processes."""
        health = self._of(deployment)
        if not health.strikes:
            return True
        if health.rest(self._clock.now()) is not None:
            return False
        health.probing = True
        if self._shared is not None and not await self._shared.may_probe(deployment.name, PROBE_LEASE_S):
            health.probing, health.rests_until_s = False, self._clock.now() + PROBED_S
            return False
        return True

    # ── What became of it ────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, deployment: Deployment, tried: Tried) -> None:
        """Note that an attempt began."""
        health = self._of(deployment)
        health.in_flight += 1
        if health.probing and health.probe is None:
            health.probe = tried

    def spoke(self, tried: Tried, *, stream: bool) -> None:
        """Note that an attempt has begun to answer: of a deployment that is tried, all that was asked for."""
        health = self._health[tried.deployment]
        health.spoke(tried.first_chunk_s or 0.0, stream=stream)
        if health.probe is tried:
            self._recover(tried.deployment, health)

    def end(self, tried: Tried) -> None:
        """Note that an attempt is over."""
        health, now_s = self._health[tried.deployment], self._clock.now()
        health.in_flight -= 1
        if tried.retry_after_s is not None:
            health.wish(now_s, tried.retry_after_s)
        if tried.unhealthy:
            too_many = health.failed(now_s, self.rules)
            if health.probe is tried or (too_many and not health.strikes):
                self._lie_down(tried.deployment, health)
        elif tried.first_chunk_s is not None or tried.status >= 400:  # to reject a request is an answer, too
            health.well(now_s)
            if health.probe is tried:
                self._recover(tried.deployment, health)
        elif health.probe is tried:  # nobody waited for how it would end
            health.probing, health.probe = False, None

    def states(self) -> Iterator[tuple[str, Health, Rest | None]]:
        """Yield every deployment that was asked, its health, and why it rests if it does."""
        now_s = self._clock.now()
        for name, health in self._health.items():
            yield name, health, health.rest(now_s)

    # ── With other processes ─────────────────────────────────────────────────────────────────────────────────────

    def share(self, rests: Rests | None) -> None:
        """From now on, tell others by `rests` who rests, and learn it from them; `None`: go by what is known here."""
        self._shared = rests
        if rests is not None and self._learning is None:
            self._learning = asyncio.ensure_future(self._keep_learning())

    async def close(self) -> None:
        """Stop to learn, and tell what is still to be told."""
        if self._learning is not None:
            self._learning.cancel()
        if self._telling:
            await asyncio.wait(self._telling, timeout=1.0)

    async def learn(self) -> None:
        """Take over who rests by the experience of others, and who is well again."""
        resting = None if self._shared is None else await self._shared.resting()
        if resting is None:
            return
        now_s = self._clock.now()
        before = {name for name, health in self._health.items() if health.strikes}
        for name, rest in resting.items():
            health = self._health.setdefault(name, Health())
            if rest.strikes > health.strikes:
                health.strikes, health.rests_until_s = rest.strikes, now_s + rest.left_s
        for name in before - resting.keys():
            health = self._health[name]
            if health.rests_until_s > now_s + LEARN_EVERY_S and not health.probing:
                health.recover()  # its rest is not over, so somebody was answered
        if before != {name for name, health in self._health.items() if health.strikes}:
            self._show()

    async def _keep_learning(self) -> None:
        while True:
            await self.learn()
            await self._clock.sleep(LEARN_EVERY_S)

    def _lie_down(self, name: str, health: Health) -> None:
        rest_s = health.lie_down(self._clock.now(), self.rules, self._chance)
        log.warning("%s fails, so it rests for %.1f s (%d in a row)", name, rest_s, health.strikes)
        RESTED.labels(health.label).inc()
        if self._shared is not None:
            self._tell(self._shared.rest(name, rest_s, health.strikes))
        self._show()

    def _recover(self, name: str, health: Health) -> None:
        health.recover()
        log.warning("%s answers again", name)
        if self._shared is not None:
            self._tell(self._shared.back(name))
        self._show()

    def _tell(self, telling: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(telling)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    def _show(self) -> None:
        """Set the metric: by the configured name, under which a pattern's deployments are one."""
        resting = dict[str, int]()
        for health in self._health.values():
            if health.label:
                resting[health.label] = resting.get(health.label, 0) + bool(health.strikes)
        for label, count in resting.items():
            RESTING.labels(label).set(count)

    # ── Inside ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _of(self, deployment: Deployment) -> Health:
        health = self._health.get(deployment.name)
        if health is None:
            if len(self._health) >= MOST_REMEMBERED:
                self._health = {name: it for name, it in self._health.items() if it.in_flight or it.strikes}
            health = self._health[deployment.name] = Health()
        health.label = deployment.label
        return health

    def _drawn(self, deployments: list[Deployment]) -> list[Deployment]:
        """Sort by u^(1/weight) for uniform u: a weighted draw without replacement (Efraimidis and Spirakis, 2006)."""
        return sorted(deployments, key=lambda d: self._chance.random() ** (1 / d.weight), reverse=True)
