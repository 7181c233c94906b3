"""What one call has tried, and whom it may still ask: one budget of attempts and of time, whatever it is spent on."""

from collections.abc import Iterator
from math import inf
from typing import Protocol

from msgspec import Struct

from gateway.core.call import Attempt, Call
from gateway.core.errors import TOO_LONG, Broke, Rejected, Resting, TimedOut, UpstreamFailed
from gateway.core.receipt import Why
from gateway.core.reply import Reply
from gateway.core.resources import Candidates, Fleet, Rest
from gateway.core.route import Deployment, Route
from gateway.middleware.allowance import Allowance

MOMENT_S = 0.01
"""Whoever is asked once more with less time than this left is asked in vain. (Event loops round to a millisecond.)"""


class Place(Struct):
    """A deployment during one call."""

    deployment: Deployment
    asked: int = 0
    """How often it failed, or made us wait until another spoke."""
    ready_s: float = -inf
    """When it may be asked again."""
    refuses_prefill: bool = False
    """It was tried."""


class Begun(Struct):
    """An attempt that has begun to answer."""

    place: Place
    attempt: Attempt
    reply: Reply


class Ask(Protocol):
    """Asks one place."""

    async def __call__(self, call: Call, place: Place, why: Why, /) -> Begun | UpstreamFailed:
        """Return the answer that it begins, or why it does not.

        Raises:
            UpstreamFailed: no other attempt can help.
        """
        ...


class Patience(Protocol):
    """How long to wait; see `RetryOptions`."""

    patience_s: float

    def backoff_s(self, failures: int) -> float:
        """Return how long to wait before asking a place that failed so often."""
        ...


class Means(Struct, frozen=True):
    """What every call's tries go by."""

    patience: Patience
    candidates: Candidates
    fleet: Fleet
    repeats: Allowance
    """What all calls together may ask of those that are not well."""


class Tries:
    """The state of one call's search for an answer.

    Args:
        call: the call.
        route: where its model leads.
        left: attempts in all.
        means: what to go by.
    """

    __slots__ = ("_call", "_had_too_long", "_means", "_seen", "_unseen", "left", "route")

    def __init__(self, call: Call, route: Route, left: int, means: Means) -> None:
        self.left = left
        self.route = route
        self._call = call
        self._means = means
        self._seen: list[Place] = []
        self._unseen: Iterator[Deployment] = means.candidates.of(route, call.principal)
        """Who else may answer, not looked up before somebody wants to know: mostly the first one does."""
        self._had_too_long = False

    def first(self) -> Place | None:
        """Return the best place of all, if it may be asked at once; `None`: see `next_place`."""
        deployment = next(self._unseen, None)
        if deployment is None:
            return None
        place = Place(deployment)
        self._seen.append(place)
        if not self._means.fleet.is_free(deployment.name):
            return None
        self.left -= 1
        return place

    async def next_place(self, failure: UpstreamFailed | None = None) -> Place:
        """Return whom to ask now, when the time has come.

        Raises:
            UpstreamFailed: `failure`, because nobody is left to ask, not soon enough, or no time is.
            Resting: nobody may be asked, and nobody was.
        """
        is_over = failure is not None and (self.left <= 0 or self._is_over())
        while True:
            now_s = self._call.clock.now()
            place, wait_s, rest = self._soonest(now_s)
            if is_over or place is None or (wait_s and not self._is_worth(wait_s, now_s)):
                raise _resting(rest) if failure is None else _when(failure, None if place else rest)
            if wait_s:
                await self._call.clock.sleep(wait_s)
            elif await self._may_ask(place, failure):
                self.left -= 1
                return place

    def once_more(self) -> bool:
        """Take an attempt out of the budget; return whether there was one."""
        had = self.left > 0
        self.left -= had
        return had

    def beside(self, first: Place) -> Place | None:
        """Return who may be asked while `first` makes us wait: somebody well, whom this call has not asked."""
        fleet = self._means.fleet
        for place in self._places():
            name = place.deployment.name
            if place is not first and not place.asked and fleet.is_well(name) and fleet.rest(name) is None:
                return place
        return None

    def failed(self, place: Place, error: UpstreamFailed) -> None:
        """Draw the consequences of a failure.

        Raises:
            UpstreamFailed: `error` itself, if another attempt cannot help.
        """
        now_s = self._call.clock.now()
        place.asked += 1
        patience_s = error.retry_after_s
        place.ready_s = now_s + (self._means.patience.backoff_s(place.asked) if patience_s is None else patience_s)
        if error.elsewhere:
            self._leave(lambda other: other.deployment.provider == place.deployment.provider)
        elif isinstance(error, TimedOut) and error.then != "retry":
            if error.then == "error":
                raise error
            if len(self._places()) > 1:
                self._leave(lambda other: other is place)
        elif isinstance(error, Rejected) and error.code == TOO_LONG and not self._had_too_long:
            self._had_too_long = True
            self._seen, self._unseen = [], self._means.candidates.for_long(self.route, self._call.principal)
        elif not error.retryable and (not isinstance(error, Broke) or isinstance(error.__cause__, Rejected)):
            raise error
        if not self._places():
            raise error

    def _places(self) -> list[Place]:
        """Return all that are not left out, best first."""
        self._seen += [Place(deployment) for deployment in self._unseen]
        return self._seen

    def _leave(self, gone: "Gone") -> None:
        self._seen = [place for place in self._places() if not gone(place)]

    def _soonest(self, now_s: float) -> tuple[Place | None, float, Rest | None]:
        """Return who may be asked soonest, in how many seconds, and the shortest rest of those who may not.

        Of those who may be asked at once, whoever was asked least: the same again only when no other is left.
        """
        best, soonest, shortest = None, (inf, 0), None
        for place in self._places():
            wait_s = max(0.0, place.ready_s - now_s)
            rest = self._means.fleet.rest(place.deployment.name)
            if rest is not None:
                if shortest is None or rest.left_s < shortest.left_s:
                    shortest = rest
                if not rest.strikes:
                    wait_s = max(wait_s, rest.left_s)
                elif rest.left_s > wait_s:
                    continue
            if (wait_s, place.asked) < soonest:
                best, soonest = place, (wait_s, place.asked)
                if soonest == (0, 0):
                    break
        return best, soonest[0], shortest

    def _is_over(self) -> bool:
        return self._call.deadline_s - self._call.clock.now() < MOMENT_S

    def _is_worth(self, wait_s: float, now_s: float) -> bool:
        return wait_s <= self._means.patience.patience_s and now_s + wait_s < self._call.deadline_s

    async def _may_ask(self, place: Place, failure: UpstreamFailed | None) -> bool:
        """Return whether it may be asked: the fleet gives leave, and it does not multiply the trouble that there is."""
        if failure is not None:
            troubled = place.asked or not self._means.fleet.is_well(place.deployment.name)
            if troubled and not self._means.repeats.spend():
                self._leave(lambda other: other is place)  # whoever is well may still be asked
                return False
        return await self._means.fleet.admit(place.deployment)


class Gone(Protocol):
    """Tells who is not to be asked any more."""

    def __call__(self, other: Place, /) -> bool:
        """Return whether `other` is."""
        ...


def _when(failure: UpstreamFailed, rest: Rest | None) -> UpstreamFailed:
    """Return the failure with when to ask again, if its upstream did not say: when whoever comes next may be asked."""
    if rest is not None and failure.retryable and failure.retry_after_s is None:
        failure.retry_after_s = rest.left_s
    return failure


def _resting(rest: Rest | None) -> Resting:
    """Return the refusal of a call for which nobody may be asked."""
    if rest is None:
        return Resting("nobody is left who could answer")
    if not rest.strikes:
        refusal = Resting(
            "the upstream asked not to be asked for a while", retry_after_s=rest.left_s, code="upstream_busy"
        )
        refusal.status, refusal.kind = 429, "rate_limit_error"
        return refusal
    return Resting("whoever could answer has failed too often, and rests", retry_after_s=rest.left_s)
