"""Every deployment's health, the orders that are made of it, and what other processes learn of it.

Each process measures for itself. Where there is Redis, who rests is told to all, so that one process's bad experience
is enough, and one call of all processes tries what has rested. While Redis is gone each goes by what it knows.
"""

import asyncio
import heapq
import logging
import random
from collections.abc import Coroutine, Sequence
from math import inf
from typing import Any

from prometheus_client import Counter, Gauge

from gateway.core.errors import Rejected
from gateway.core.receipt import Receipt, Tried
from gateway.core.resources import Clock, News, Rest, Rests
from gateway.core.route import Deployment, Order
from gateway.engine.health import TRIED_S, Condition, Health, Rules

MOST_REMEMBERED = 10_000
"""Deployments whose measurements are kept; patterns let clients name them, so there is an end."""
SHOW_EVERY_S = 1.0
"""How often this process looks whose `Retry-After` is over, as long as there are any."""
LEARN_EVERY_S = 1.0
"""How often this process looks who rests by the experience of others."""
PROBE_LEASE_S = 60.0
"""After this, another call may try a deployment whose trial has not ended."""

RESTED = Counter(
    "gateway_rests",
    "How often a deployment was left in peace: it was found ill, or its upstream said Retry-After.",
    ["deployment"],
)
RESTING = Gauge(
    "gateway_resting",
    "Deployments that were found ill and have not answered since, or whose upstream's Retry-After is not over.",
    ["deployment"],
    multiprocess_mode="livemax",
)
NEVER_ASKED = Health()
"""How those are of whom nothing is known."""

log = logging.getLogger("gateway")


class LiveFleet:
    """Measures deployments as they are asked, orders them by what it saw, and lets those rest that fail."""

    def __init__(self, clock: Clock, chance: random.Random | None = None) -> None:
        self.rules = Rules()
        self._clock = clock
        self._chance = chance or random.Random()  # noqa: S311 spreading load is no secret
        self._health: dict[str, Health] = {}
        self._shown = dict[str, int]()
        self._shown_s = -inf
        """When it was."""
        self._wished_until_s = -inf
        """When the last `Retry-After` of all is over: until then, what is shown changes by itself."""
        self._showing: asyncio.Task[None] | None = None
        self._serves = False
        """Whether there is a loop to show it on: from the first `share` until `close`."""
        self._shared: Rests | None = None
        self._learning: asyncio.Task[None] | None = None
        self._telling = set[asyncio.Task[None]]()

    # ── Whom to ask ──────────────────────────────────────────────────────────────────────────────────────────────

    def order(self, deployments: Sequence[Deployment], order: Order) -> list[Deployment]:
        """Return `deployments`, best first.

        `weighted` draws them one after the other, each with the chance of its weight; `least_busy` counts calls in
        flight for their weight; `fastest` goes by the time to the first chunk (`Health.expected_s`); `cheapest` by the
        price of a prompt and a completion token together, the unknown last. Ties keep the order of the configuration.
        A weight of 0 comes last in every order but `as_written`.
        """
        if len(deployments) == 1 or order == "as_written":
            return list(deployments)
        drained = [d for d in deployments if d.weight == 0]
        live = [d for d in deployments if d.weight > 0]
        match order:
            case "weighted":
                live = self._drawn(live)
            case "least_busy":
                live.sort(key=lambda d: self._health.get(d.name, NEVER_ASKED).in_flight / d.weight)
            case "fastest":
                now_s = self._clock.now()
                live.sort(key=lambda d: self._health.get(d.name, NEVER_ASKED).expected_s(now_s))
            case "cheapest":
                live.sort(key=lambda d: d.dearness)
        return live + drained

    def is_free(self, name: str) -> bool:
        """Tell whether everybody may ask the deployment called `name` at once, as nearly always; `rest` tells more."""
        health = self._health.get(name)
        return health is None or (not health.strikes and health.wishes_until_s == -inf)

    def rest(self, name: str) -> Rest | None:
        """Return why the deployment called `name` is not to be asked now; `None`: it may be."""
        return None if self.is_free(name) else self._health[name].rest(self._clock.now())

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
        name, health = deployment.name, self._health.get(deployment.name)
        if health is None or not health.strikes:
            return True
        now_s = self._clock.now()
        if health.rest(now_s) is not None:
            return False
        health.trial_until_s = now_s + PROBE_LEASE_S
        if self._shared is None:
            return True
        try:
            may_try = await self._shared.may_probe(name, PROBE_LEASE_S)
        except asyncio.CancelledError:
            self._give_up(name, health)
            raise
        if not may_try:
            health.trial_until_s = self._clock.now() + TRIED_S
        return may_try

    def conditions(self, most: int) -> list[Condition]:
        """Return how those are that were asked so far, the unwell first."""
        now_s = self._clock.now()
        shown = heapq.nsmallest(most, self._health.items(), key=lambda it: (-it[1].strikes, -it[1].failures))
        return [health.condition(name, now_s, self.rules) for name, health in shown]

    # ── What became of it ────────────────────────────────────────────────────────────────────────────────────────

    def begin(self, deployment: Deployment, tried: Tried) -> None:
        """Note that an attempt began."""
        health = self._health.get(deployment.name) or self._remember(deployment.name)
        health.label = deployment.label
        health.asked_s = tried.began_s
        health.in_flight += 1
        tried.trial = health.strikes > 0

    def spoke(self, tried: Tried, *, stream: bool) -> None:
        """Note that an attempt has begun to answer: of a deployment that is tried, all that was asked for."""
        health, first_chunk_s = self._health[tried.deployment], tried.first_chunk_s or 0.0
        health.spoke(tried.began_s + first_chunk_s, first_chunk_s, stream=stream)
        if tried.trial:
            self._recover(tried.deployment, health)

    def end(self, tried: Tried, receipt: Receipt) -> None:
        """Note that an attempt is over, of the call with this receipt."""
        health, now_s = self._health[tried.deployment], self._clock.now()
        health.in_flight -= 1
        begins_to_rest = False
        if tried.retry_after_s is not None:
            begins_to_rest = health.wish(now_s, tried.retry_after_s)
            self._wished_until_s = max(self._wished_until_s, health.wishes_until_s)
        if tried.unhealthy:
            if self._has_fallen_ill(health, tried, receipt, now_s):
                begins_to_rest = False  # by that, and not by what was asked for
                self._lie_down(tried.deployment, health)
        elif tried.first_chunk_s is not None or tried.error == Rejected.__name__:  # which is an answer, too
            health.well(now_s)
            if tried.trial:
                self._recover(tried.deployment, health)
        elif tried.trial and health.strikes:  # nobody waited for how it would end
            self._give_up(tried.deployment, health)
        if begins_to_rest:
            RESTED.labels(health.label).inc()
        if tried.retry_after_s is not None:
            self._show_wishes()

    def _has_fallen_ill(self, health: Health, tried: Tried, receipt: Receipt, now_s: float) -> bool:
        """Count a failure, and tell whether the deployment is to rest."""
        if health.strikes:
            return tried.trial and health.rests_until_s <= now_s
        is_old = tried.began_s < health.changed_s and not tried.trial
        return not is_old and not _has_failed_before(tried, receipt) and health.failed(now_s, self.rules)

    # ── With other processes ─────────────────────────────────────────────────────────────────────────────────────

    def share(self, rests: Rests | None) -> None:
        """From now on, tell others by `rests` who rests, and learn it from them; `None`: go by what is known here."""
        self._shared, self._serves = rests, True
        if rests is not None and self._learning is None:
            self._learning = asyncio.ensure_future(self._keep_learning())

    async def close(self) -> None:
        """Stop to learn and to show, and tell what is still to be told."""
        self._serves = False
        if self._learning is not None:
            self._learning.cancel()
        if self._showing is not None:
            self._showing.cancel()
        if self._telling:
            await asyncio.wait(self._telling, timeout=1.0)

    async def learn(self) -> bool:
        """Take over who rests by the experience of others, and who is well again; return whether anybody could say.

        What this process has seen since that was told is newer, and perhaps not told yet.
        """
        asked_s = self._clock.now()
        news = None if self._shared is None else await self._shared.news()
        if news is not None and self._has_learnt(news, asked_s, self._clock.now()):
            self._show()
        return news is not None

    def _has_learnt(self, news: News, asked_s: float, now_s: float) -> bool:
        """Go by the news, and tell whether anybody is now ill or well that was not."""
        changed = False
        for name, rest in news.resting.items():
            health = self._health.get(name) or self._remember(name)
            if health.changed_s < asked_s:
                changed |= not health.strikes
                health.strikes = max(health.strikes, rest.strikes)
                health.rests_until_s = max(health.rests_until_s, now_s + rest.left_s)
        for name, ago_s in news.back.items():
            health = self._health.get(name, NEVER_ASKED)
            if health.strikes and health.changed_s < asked_s - ago_s:
                changed = True
                health.recover(asked_s - ago_s)
        return changed

    async def _keep_learning(self) -> None:
        while True:
            await self.learn()
            await self._clock.sleep(LEARN_EVERY_S)

    def _lie_down(self, name: str, health: Health) -> None:
        rest_s = health.lie_down(self._clock.now(), self.rules, self._chance)
        log.warning("%.256a fails, so it rests for %.1f s (%d in a row)", name, rest_s, health.strikes)
        RESTED.labels(health.label).inc()
        if self._shared is not None:
            self._tell(self._shared.rest(name, rest_s, health.strikes))
        self._show()

    def _recover(self, name: str, health: Health) -> None:
        if not health.strikes:
            return
        health.recover(self._clock.now())
        log.warning("%.256a answers again", name)
        if self._shared is not None:
            self._tell(self._shared.back(name))
        self._show()

    def _give_up(self, name: str, health: Health) -> None:
        """Let the next call try it."""
        health.trial_until_s = -inf
        if self._shared is not None:
            self._tell(self._shared.give_up(name))

    def _tell(self, telling: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(telling)
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    def _show(self) -> None:
        """Set the metric: by the configured name, under which a pattern's deployments are one."""
        now_s, resting = self._clock.now(), dict.fromkeys(self._shown, 0)
        for health in self._health.values():
            if health.label:
                resting[health.label] = resting.get(health.label, 0) + health.is_resting(now_s)
        for label, count in resting.items():
            if self._shown.get(label) != count:
                RESTING.labels(label).set(count)
        self._shown, self._shown_s = resting, now_s

    def _show_wishes(self) -> None:
        """Set the metric now and then, until no `Retry-After` is left: of one's end nobody is told."""
        if self._showing is not None and not self._showing.done():
            return
        self._show()
        if self._serves:
            self._showing = asyncio.ensure_future(self._keep_showing())

    async def _keep_showing(self) -> None:
        while self._wished_until_s > self._shown_s:
            await self._clock.sleep(SHOW_EVERY_S)
            self._show()

    # ── Inside ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _remember(self, name: str) -> Health:
        if len(self._health) >= MOST_REMEMBERED:
            idle = [name for name, health in self._health.items() if not health.in_flight]
            idle.sort(key=lambda name: self._health[name].matters_until_s)
            for forgotten in idle[: MOST_REMEMBERED // 2]:
                del self._health[forgotten]
            self._show()
        health = self._health[name] = Health()
        return health

    def _drawn(self, deployments: list[Deployment]) -> list[Deployment]:
        """Sort by u^(1/weight) for uniform u: a weighted draw without replacement (Efraimidis and Spirakis, 2006)."""
        return sorted(deployments, key=lambda d: self._chance.random() ** (1 / d.weight), reverse=True)


def _has_failed_before(tried: Tried, receipt: Receipt) -> bool:
    """Tell whether the same call's earlier attempt speaks against the same deployment: a call counts once."""
    return any(
        other is not tried and other.unhealthy and other.deployment == tried.deployment for other in receipt.tried
    )
