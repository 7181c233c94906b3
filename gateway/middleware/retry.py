"""Tries a route's deployments until one begins to answer.

One budget of attempts and time for each call, whatever it is spent on: another deployment is asked at once, one that
was asked before only after a wait. What an upstream asked for (`Retry-After`) is never undercut: if it asks for more
patience than a call has, the client is told instead. An official SDK that is itself retrying takes its tries off ours.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar

from msgspec import Meta, Struct
from tenacity import AsyncRetrying, RetryCallState
from tenacity.wait import wait_base, wait_exponential_jitter

from gateway.core.call import Call
from gateway.core.errors import UnknownModel, UpstreamFailed
from gateway.core.middleware import Handler
from gateway.core.reply import Reply
from gateway.core.resources import Candidates, Resources, Routes
from gateway.core.route import Deployment
from gateway.core.units import Duration
from gateway.middleware.base import Options


class RetryOptions(Options, frozen=True, kw_only=True):
    """How often and how patiently to try."""

    inside: ClassVar[Mapping[str, str]] = {
        "cost": "a call is priced once, whichever attempt answered it",
        "cache": "an answer from the cache needs no attempt",
        "limits": "a call counts once, however many attempts it takes",
        "auth": "an attempt spends money, so it must be known whose",
    }

    attempts: Annotated[int, Meta(ge=1, le=10)] = 3
    """Attempts in all, over all deployments and fallbacks."""
    first_wait: Duration = Duration(0.5)
    """Before a deployment is asked again; doubled each time, with jitter."""
    longest_wait: Duration = Duration(8)
    """The most that such a wait grows to."""
    patience: Duration = Duration(20)
    """The most a call waits because an upstream said `Retry-After`; if it said more, the client is told at once."""

    def build(self, resources: Resources) -> "Retry":
        """Make the middleware."""
        return Retry(self, resources)


class Retry:
    """Asks candidates, best first, until one answers or the budget is spent."""

    def __init__(self, options: RetryOptions, resources: Resources) -> None:
        self._attempts = options.attempts
        self._patience_s = float(options.patience)
        self._waits = Waits(options.first_wait, options.longest_wait)
        self._candidates: Candidates = resources.candidates
        self._routes: Routes = resources.routes
        self._clock = resources.clock

    async def __call__(self, call: Call, next: Handler) -> Reply:
        """Return the first answer that begins.

        Raises:
            UnknownModel: no route has this name.
            UpstreamFailed: the last failure, when no attempt is left.
        """
        if call.route is None:
            raise UnknownModel(f'"{call.model}" is not a model here; {self._routes.near(call.model)}', param="model")
        places = [Place(deployment) for deployment in self._candidates.of(call.route, call.principal)]
        left = max(1, self._attempts - _asked_by_client(call))
        while True:
            place = min(places, key=Place.rank)
            try:
                async with call.attempt(place.deployment) as attempt:
                    return await next(attempt)
            except UpstreamFailed as error:
                left -= 1
                if error.elsewhere:
                    places = [other for other in places if other.deployment.provider != place.deployment.provider]
                if left == 0 or not places or not (error.retryable or error.elsewhere):
                    raise
                if not await self._wait_after(error, place, places, call.deadline_s):
                    raise

    async def _wait_after(self, error: UpstreamFailed, place: "Place", places: list["Place"], until_s: float) -> bool:
        """Wait until some place may be asked; return whether that is soon enough."""
        now = self._clock.now()
        place.asked += 1
        place.ready_s = now + (self._waits.before(place.asked) if error.retry_after_s is None else error.retry_after_s)
        wait_s = min(places, key=Place.rank).ready_s - now
        if wait_s <= 0:
            return True
        if wait_s > self._patience_s or now + wait_s >= until_s:
            return False
        await self._clock.sleep(wait_s)
        return True


class Place(Struct):
    """A deployment during one call: how often it was asked, and when it may be asked again."""

    deployment: Deployment
    asked: int = 0
    ready_s: float = float("-inf")

    def rank(self) -> float:
        """Sort key: those never asked come first, in their order; then who is ready soonest."""
        return self.ready_s


class Waits:
    """Tenacity's exponential waits with jitter."""

    def __init__(self, first_s: float, longest_s: float) -> None:
        self._wait: wait_base = wait_exponential_jitter(multiplier=first_s, max=longest_s, jitter=first_s)
        self._retrying = AsyncRetrying()

    def before(self, again: int) -> float:
        """Return how long to wait before asking a place for the time after its `again`-th failure, in seconds."""
        state = RetryCallState(self._retrying, None, (), {})
        state.attempt_number = again
        return self._wait(state)


def _asked_by_client(call: Call) -> int:
    """How often the client's own SDK has already retried this very request."""
    said = call.headers.get("x-stainless-retry-count")
    return int(said) if said.isdecimal() and len(said) < 4 else 0
