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

from gateway.core.call import OF_MODELS, Call, Operation
from gateway.core.errors import UnknownModel, UpstreamFailed
from gateway.core.middleware import Handler
from gateway.core.receipt import Why
from gateway.core.reply import Reply
from gateway.core.resources import Resources
from gateway.core.route import Hedge
from gateway.core.units import Duration
from gateway.middleware.allowance import Allowance
from gateway.middleware.base import Options
from gateway.middleware.fitting import DROPPED, Fitted, learn
from gateway.middleware.hedge import race
from gateway.middleware.rescue import hold, rescued
from gateway.middleware.through_chat import as_chat, through_chat
from gateway.middleware.tries import Ask, Begun, Means, Place, Tries

JOINS = ("restart", "continue")
"""What joins two streams; only chunks of chat completions can be: others pass through them."""
ASKED = b"x-stainless-retry-count"
"""How often the client's own SDK has already retried this very request."""
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
        self._resources = resources
        self._fleet = resources.fleet
        self._fits = resources.fits
        self._repeats = Allowance(resources.clock, options.share, floor=FLOOR)
        self._waits = Waits(options)
        self._means = Means(self._waits, resources.candidates, resources.fleet, self._repeats)
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
        asked = call.headers.raw.get(ASKED)
        tries = Tries(call, route, self._attempts if asked is None else self._left(asked), self._means)
        place = tries.first() or await tries.next_place()
        if route.hedge is not None and call.stream and not _is_upload(call):
            begun = await self._hedged(call, route.hedge, tries, place, partial(self._ask, tries, next))
        else:
            begun = await self._ask(tries, next, call, place, "first")
        while True:
            if isinstance(begun, Begun) and route.midstream == "buffer" and call.operation == "chat":
                begun = await hold(begun, tries)
            if isinstance(begun, Begun):
                break
            begun = await self._ask(tries, next, call, await tries.next_place(begun), "retry")
        if begun.reply.rest is not None and call.surface == call.operation == "chat" and route.midstream in JOINS:
            ask, prefill = partial(self._ask, tries, next), self._resources.candidates.prefill
            return Reply(begun.reply.first, rescued(call, begun, tries, ask=ask, prefill=prefill))
        return begun.reply

    def _left(self, asked: bytes) -> int:
        """Return how many attempts are left to a call that its client's own SDK has asked so often before."""
        return max(1, self._attempts - int(asked)) if asked.isdigit() and len(asked) < 4 else self._attempts

    async def _ask(self, tries: Tries, next: Handler, call: Call, place: Place, why: Why) -> Begun | UpstreamFailed:
        """Return the answer that a place begins, or why it does not.

        A place that says which parameter it does not take is asked once more without, where that is no other question.

        Raises:
            BadRequest: the call says what the deployment does not take.
            UpstreamFailed: no other attempt can help.
        """
        deployment, fleet = place.deployment, self._fleet
        fits = None if tries.route.unsupported == "pass" else self._fits
        while True:
            fit = None if fits is None else fits.of(deployment)
            fitted = None if fit is None else Fitted(call, deployment, fit)
            asked = call if fitted is None else fitted.call
            attempt = asked.attempt(deployment, why)
            tried = attempt.tried
            fleet.begin(deployment, tried)
            attempt.at_end(partial(fleet.end, tried))
            try:
                if fitted is not None:
                    fitted.check()
                reply = await next(attempt)
            except UpstreamFailed as error:
                await attempt.over(error)
                tried.wasted = True
                if self._can_be_mended(asked, place, error, tries):
                    why = "retry"
                    continue
                return error
            except BaseException as error:
                await attempt.over(error)
                raise
            tried.first_chunk_s = attempt.clock.now() - tried.began_s
            fleet.spoke(tried, stream=attempt.stream)
            if fitted is not None and fitted.dropped:
                call.receipt.headers[DROPPED] = ", ".join(fitted.dropped)
            elif why != "first":
                call.receipt.headers.pop(DROPPED, None)  # of an answer that had begun, and broke
            return Begun(place, attempt, reply)

    def _can_be_mended(self, asked: Call, place: Place, error: UpstreamFailed, tries: Tries) -> bool:
        """Draw the consequences of a failure; return whether the same place is to be asked once more, without what it
        has said that it does not take.

        Raises:
            UpstreamFailed: no other attempt can help.
        """
        if self._fits is not None and learn(asked, place.deployment, error, self._fits) and tries.once_more():
            return True
        tries.failed(place, error)
        if asked.passage is not None and asked.passage.spent:
            raise error  # its body has gone, and cannot be sent once more
        return False

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
