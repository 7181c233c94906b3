"""Tries a route's deployments until one begins to answer, and stands by while it answers.

One budget of attempts and time for each call, whatever it is spent on: another deployment is asked at once, one that
was asked before only after a wait. What an upstream asked for (`Retry-After`) is never undercut: if it asks for more
patience than a call has, the client is told instead. An official SDK that is itself retrying takes its tries off ours,
and all calls together have a budget too (`allowance`).
"""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, ClassVar

from msgspec import Meta
from tenacity import AsyncRetrying, RetryCallState
from tenacity.wait import wait_base, wait_exponential_jitter

from gateway.core.call import OF_MODELS, Attempt, Call, Operation
from gateway.core.errors import UnknownModel, UpstreamFailed
from gateway.core.middleware import Handler
from gateway.core.receipt import Why
from gateway.core.reply import Reply
from gateway.core.resources import Resources
from gateway.core.route import Deployment, Hedge
from gateway.core.units import Duration
from gateway.middleware.allowance import Allowance
from gateway.middleware.base import Options
from gateway.middleware.fitting import DROPPED, Fitted, learn
from gateway.middleware.hedge import race
from gateway.middleware.rescue import hold, rescued
from gateway.middleware.through_chat import as_chat, through_chat
from gateway.middleware.tries import Ask, Begun, Place, Tries

JOINS = ("restart", "continue")
"""What joins two streams; only chunks of chat completions can be: others pass through them."""
FLOOR = 100
"""Repeated attempts within ten seconds that are always allowed, however few calls there are."""
HEDGE_FLOOR = 1
"""The same for a route's hedges."""


class RetryOptions(Options, frozen=True, kw_only=True):
    """How often and how patiently to try."""

    operations: ClassVar[frozenset[Operation]] = OF_MODELS
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
    share: Annotated[float, Meta(ge=0, le=1)] = 0.2
    """The most that attempts at deployments that are not well may be of all calls, beyond a hundred in ten seconds."""

    def build(self, resources: Resources) -> "Retry":
        """Make the middleware."""
        return Retry(self, resources)


class Retry:
    """Asks candidates, best first, until one answers or the budget is spent."""

    def __init__(self, options: RetryOptions, resources: Resources) -> None:
        self._attempts = options.attempts
        self._waits = Waits(options)
        self._resources = resources
        self._fleet = resources.fleet
        self._fits = resources.fits
        self._repeats = Allowance(resources.clock, options.share, floor=FLOOR)
        self._hedges: dict[str, Allowance] = {}

    async def __call__(self, call: Call, next: Handler) -> Reply:
        """Return the first answer that begins.

        Raises:
            UnknownModel: no route has this name.
            UpstreamFailed: the last failure, when no attempt is left.
            Resting: nobody may be asked at the moment.
        """
        route = call.route
        if route is None:
            near = self._resources.routes.near(call.model)
            raise UnknownModel(f'"{call.model}" is not a model here; {near}', param="model")
        joins = call.stream and call.operation == "chat" and route.midstream in JOINS
        if joins and (chat := as_chat(call)) is not None:
            return await through_chat(call, chat, partial(self.__call__, next=next))
        self._repeats.earn()
        tries = Tries(
            call,
            route,
            max(1, self._attempts - _asked_by_client(call)),
            patience=self._waits,
            candidates=self._resources.candidates,
            fleet=self._fleet,
            repeats=self._repeats,
        )
        ask = partial(self._ask, tries, next)
        begun: Begun | UpstreamFailed | None = None
        while not isinstance(begun, Begun):
            place = await tries.next_place(begun)
            why: Why = "first" if begun is None else "retry"
            if route.hedge is not None and call.stream and begun is None and not _is_upload(call):
                begun = await self._hedged(call, route.hedge, tries, place, ask)
            else:
                begun = await ask(call, place, why)
            if isinstance(begun, Begun) and route.midstream == "buffer" and call.operation == "chat":
                begun = await hold(begun, tries)
        if begun.reply.rest is not None and call.surface == call.operation == "chat" and route.midstream in JOINS:
            prefill = self._resources.candidates.prefill
            return Reply(begun.reply.first, rescued(call, begun, tries, ask=ask, prefill=prefill))
        return begun.reply

    async def _ask(self, tries: Tries, next: Handler, call: Call, place: Place, why: Why) -> Begun | UpstreamFailed:
        """Return the answer that a place begins, or why it does not.

        A place that says which parameter it does not take is asked once more without, where that is no other question.

        Raises:
            BadRequest: the call says what the deployment does not take.
            UpstreamFailed: no other attempt can help.
        """
        deployment = place.deployment
        while True:
            fitted = self._fitted(call, deployment)
            asked = call if fitted is None else fitted.call
            attempt = asked.attempt(deployment, why)
            try:
                reply = await self._begin(attempt, next, fitted)
            except UpstreamFailed as error:
                attempt.tried.wasted = True
                if self._fits is not None and learn(asked, deployment, error, self._fits) and tries.once_more():
                    why = "retry"
                    continue
                tries.failed(place, error)
                if call.passage is not None and call.passage.spent:
                    raise  # its body has gone, and cannot be sent once more
                return error
            if fitted is not None and fitted.dropped:
                call.receipt.headers[DROPPED] = ", ".join(fitted.dropped)
            elif why != "first":
                call.receipt.headers.pop(DROPPED, None)  # of an answer that had begun, and broke
            return Begun(place, attempt, reply)

    def _fitted(self, call: Call, deployment: Deployment) -> Fitted | None:
        """Return the call as the deployment takes it; `None`: as it is."""
        if self._fits is None or call.route is None or call.route.unsupported == "pass":
            return None
        fit = self._fits.of(deployment)
        return None if fit is None else Fitted(call, deployment, fit)

    async def _begin(self, attempt: Attempt, next: Handler, fitted: Fitted | None) -> Reply:
        tried = attempt.tried
        self._fleet.begin(attempt.deployment, tried)
        attempt.at_end(partial(self._fleet.end, tried))
        try:
            if fitted is not None:
                fitted.check()
            reply = await next(attempt)
        except BaseException as error:
            await attempt.over(error)
            raise
        tried.first_chunk_s = attempt.clock.now() - tried.began_s
        self._fleet.spoke(tried, stream=attempt.stream)
        return reply

    async def _hedged(self, call: Call, hedge: Hedge, tries: Tries, place: Place, ask: Ask) -> Begun | UpstreamFailed:
        """Ask a place and, when it is late to speak, another beside it."""
        allowance = self._hedges.get(tries.route.name)
        if allowance is None:
            allowance = Allowance(self._resources.clock, hedge.share, floor=HEDGE_FLOOR)
            self._hedges[tries.route.name] = allowance
        allowance.earn()
        late_s = self._fleet.late_s(place.deployment.name, hedge.percentile)
        if late_s is None:
            return await ask(call, place, "first")
        return await race(call, place, late_s, tries=tries, ask=ask, may_ask=allowance.spend)


class Waits:
    """How long to wait: tenacity's exponential waits with jitter, and the patience for what an upstream asks."""

    def __init__(self, options: RetryOptions) -> None:
        first_s, longest_s = float(options.first_wait), float(options.longest_wait)
        self.patience_s = float(options.patience)
        self._wait: wait_base = wait_exponential_jitter(multiplier=first_s, max=longest_s, jitter=first_s)
        self._retrying = AsyncRetrying()

    def backoff_s(self, failures: int) -> float:
        """Return how long to wait before asking a place that failed so often, in seconds."""
        state = RetryCallState(self._retrying, None, (), {})
        state.attempt_number = failures
        return self._wait(state)


def _is_upload(call: Call) -> bool:
    """Whether there is one body that comes as it is sent on: two cannot read from it at the same time."""
    return call.passage is not None and call.passage.upload is not None


def _asked_by_client(call: Call) -> int:
    """How often the client's own SDK has already retried this very request."""
    said = call.headers.get("x-stainless-retry-count")
    return int(said) if said.isdecimal() and len(said) < 4 else 0
