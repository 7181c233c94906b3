"""How much a key, a user, a team and a model may use: requests and tokens a minute, and calls at the same time.

A call asks every meter it falls under in one step: all have room and are charged, or none is. Tokens are held by
estimate and settled by what the upstream says was used. A call counts as a request from the moment it passes here,
whatever becomes of it; its tokens and its place come back if no answer began.
"""

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, ClassVar

import msgspec
from msgspec import Meta, Raw, Struct, field

from gateway.core.call import ASKING, Call, Lookup, Operation
from gateway.core.errors import LimitReached
from gateway.core.middleware import Handler
from gateway.core.principal import Limits as Allowed
from gateway.core.principal import Principal
from gateway.core.receipt import Receipt
from gateway.core.reply import Reply
from gateway.core.resources import Denied, Held, Limiter, LooksUp, Meter, Resources, Routes, Standing, WithoutRedis
from gateway.core.usage import NOTHING_ELSE
from gateway.middleware.base import Options
from gateway.wire.estimate import READ, request_tokens

MOST_PLANS = 10_000
"""Callers whose meters are remembered. Tokens of an identity provider may name any number of them."""


class LimitsOptions(Options, frozen=True, kw_only=True):
    """Limits beside those that `keys:` gives to single keys. What is left out is not limited."""

    operations: ClassVar[frozenset[Operation]] = ASKING
    inside: ClassVar[Mapping[str, str]] = {"auth": "limits count by key, and only auth knows whose call it is"}

    each_key: Allowed = Allowed()
    """For every key that says nothing else under its own `limits:`."""
    each_user: Allowed = Allowed()
    """For every user, over all their keys and tokens."""
    each_team: Allowed = Allowed()
    """For every team, over all its keys."""
    each_model: Allowed = Allowed()
    """For every entry of `models:`, over all callers."""
    users: dict[str, Allowed] = field(default_factory=dict[str, Allowed])
    """Single users, where they differ from `each_user`."""
    teams: dict[str, Allowed] = field(default_factory=dict[str, Allowed])
    """Single teams, where they differ from `each_team`."""
    models: dict[str, Allowed] = field(default_factory=dict[str, Allowed])
    """Single entries of `models:`, where they differ from `each_model`."""
    completion_estimate: Annotated[int, Meta(ge=1)] = 500
    """Tokens held for an answer whose request does not say how long it may be (`max_completion_tokens`)."""
    without_redis: WithoutRedis = "local"
    """While Redis is gone: each process counts by itself (`local`; at worst, each lets the whole limit pass), nothing
    is limited (`open`), or calls that have limits get a 503 (`closed`)."""

    def build(self, resources: Resources) -> "Limits":
        """Make the middleware.

        Raises:
            ValueError: a limit is for a model that there is not.
        """
        for name in self.models:
            _check_model(name, resources.routes)
        return Limits(self, resources.limiter)


Asks = tuple[tuple[Meter, int], ...]
"""What a call takes of which meters."""


class Plan(Struct, frozen=True):
    """The meters of one caller at one route."""

    single: Asks
    """Requests and places: each call takes one."""
    tokens: tuple[Meter, ...]
    principal: Principal
    """Whose they are. An id alone does not say: of two tokens that name the same, each may have its team."""

    @property
    def meters(self) -> list[Meter]:
        """All of them."""
        return [*(meter for meter, _ in self.single), *self.tokens]


class Ahead(Struct, frozen=True):
    """Who can look up what the cache behind would, while it holds."""

    limiter: LooksUp
    key_of: Callable[[Call], str]
    """What a call's answer is kept under; empty: it is not to be looked up here."""


class Limits:
    """Holds what a call needs of its meters, and settles when it is over."""

    def __init__(self, options: LimitsOptions, limiter: Limiter) -> None:
        self._options = options
        self._limiter = limiter
        self._plans: dict[tuple[str, str], Plan] = {}
        self.ahead: Ahead | None = None
        """Where a cache is behind, and both ask the same Redis: a call waits for it once, not twice."""

    async def __call__(self, call: Call, next: Handler) -> Reply:
        """Pass the call on if every meter has room.

        Raises:
            LimitReached: one has not; the message says which, and when it may.
            Unavailable: nobody can count, and `without_redis` is `closed`.
        """
        plan = self._plan(call)
        asks = plan.single
        if plan.tokens:
            asks += self._token_asks(call, plan.tokens)
        if not asks:
            return await next(call)
        ahead = self.ahead
        if ahead is None:
            key, held = "", await self._limiter.hold(call.id, asks)
        else:
            key = ahead.key_of(call)
            held = await ahead.limiter.hold(call.id, asks, key)
        if isinstance(held, Denied):
            add_headers(call.receipt.headers, held.standings)
            raise _refusal(held, call)
        call.at_end(partial(self._settle, held))  # nothing may be awaited before this: the client may leave
        add_headers(call.receipt.headers, held.standings)
        if held.looked_up and ahead is not None:
            lookup = Lookup(call, key, held.answer, ahead.limiter.put_after_hold)
            return await next(call.but(waited_s=call.waited_s + held.waited_s, lookup=lookup))
        return await next(call.but(waited_s=call.waited_s + held.waited_s) if held.waited_s else call)

    async def explain(self, call: Call) -> Mapping[str, object]:
        """Tell how each meter that the call falls under stands."""
        meters = self._plan(call).meters
        standings = await self._limiter.standings(meters)
        if meters and not standings:
            return {"not counted": f"Redis is gone, and without_redis is {self._options.without_redis}"}
        if apart := self._limiter.apart:
            return {
                meter.id: f"{meter.limit} at most; how many are left is not known here: {apart}" for meter in meters
            }
        return {
            standing.meter.id: f"{standing.remaining} of {standing.meter.limit} left, whole again in "
            f"{go_duration(standing.reset_s)}"
            for standing in standings
        }

    def _settle(self, held: Held, receipt: Receipt) -> Awaitable[None] | None:
        """Settle by the tokens used; `None`: nobody knows, or it is counted otherwise, so what was held counts."""
        usage = receipt.usage
        if receipt.cache == "hit" or receipt.outcome in ("failed", "refused"):
            used = 0
        elif usage is None:
            used = None
        else:
            used = usage.prompt_tokens + usage.completion_tokens
            if not used and usage.extras != NOTHING_ELSE:
                used = None
        return self._limiter.settle(held, used)

    def _token_asks(self, call: Call, meters: tuple[Meter, ...]) -> Asks:
        """Return what to hold: prompt and answer by estimate, or a whole limit where only the prompt fits.

        A prompt that is more than a limit is asked for nevertheless, so that the limiter denies it.
        """
        prompt = request_tokens(call.body.fields)
        wanted = prompt
        if call.operation in ("chat", "completions"):
            wanted += _completion_tokens(call.body.fields, self._options.completion_estimate)
        asks: Asks = ()
        for meter in meters:
            asks += ((meter, max(prompt, min(wanted, meter.limit))),)
        return asks

    def _plan(self, call: Call) -> Plan:
        """Return the meters of a call; they are worked out once for each caller and route."""
        principal, route = call.principal, "" if call.route is None else call.route.name
        plan = self._plans.get((principal.id, route))
        if plan is None or (plan.principal is not principal and plan.principal != principal):
            if len(self._plans) >= MOST_PLANS:
                del self._plans[next(iter(self._plans))]
            plan = self._plans[principal.id, route] = _plan(self._options, principal, route)
        return plan


def _plan(options: LimitsOptions, principal: Principal, route: str) -> Plan:
    scopes = [
        ("key", principal.id, _merged(principal.limits, options.each_key)),
        ("user", principal.user, _merged(options.users.get(principal.user), options.each_user)),
        ("team", principal.team, _merged(options.teams.get(principal.team), options.each_team)),
        ("model", route, _merged(options.models.get(route), options.each_model)),
    ]
    single: list[tuple[Meter, int]] = []
    tokens: list[Meter] = []
    for scope, name, allowed in scopes:
        subject = f"{scope}:{name}"
        if not name:
            continue
        if allowed.requests_per_minute is not None:
            single.append((Meter(subject, "requests", allowed.requests_per_minute), 1))
        if allowed.concurrent is not None:
            single.append((Meter(subject, "concurrent", allowed.concurrent), 1))
        if allowed.tokens_per_minute is not None:
            tokens.append(Meter(subject, "tokens", allowed.tokens_per_minute))
    return Plan(tuple(single), tuple(tokens), principal)


def _merged(own: Allowed | None, default: Allowed) -> Allowed:
    """Return `own`, and `default` where it says nothing."""
    if own is None:
        return default
    return Allowed(
        *(mine if mine is not None else other for mine, other in zip(_said(own), _said(default), strict=True))
    )


def _said(allowed: Allowed) -> tuple[int | None, ...]:
    return allowed.requests_per_minute, allowed.tokens_per_minute, allowed.concurrent


def _check_model(name: str, routes: Routes) -> None:
    """Refuse a limit that would never count.

    Raises:
        ValueError: no entry of `models:` has this name.
    """
    route = routes.find(name)
    if route is not None and route.name != name:
        raise ValueError(f'a limit for "{name}": it is counted with "{route.name}", so set the limit for that')
    if route is None and not (near := routes.near(name)).startswith("it is off"):
        raise ValueError(f'a limit for "{name}", which is not under `models:`; {near}')


_LENGTHS = ("max_completion_tokens", "max_tokens", "max_output_tokens")
_count = msgspec.json.Decoder(int | None).decode


def _completion_tokens(fields: Mapping[str, Raw], otherwise: int) -> int:
    """Return how long the answers may be, all choices together."""
    length = otherwise
    for name in _LENGTHS:
        if name in fields and (said := _count(fields[name])):
            length = said
            break
    choices = _count(fields["n"]) if "n" in fields else None
    return length * (choices or 1)


_UNITS = {
    "requests": "make {} requests a minute",
    "tokens": "use {} tokens a minute",
    "concurrent": "have {} calls at once",
}


def _may(meter: Meter) -> str:
    """`key team-a may make 60 requests a minute`."""
    scope, _, name = meter.subject.partition(":")
    return f"{scope} {name} may {_UNITS[meter.kind].format(meter.limit)}"


def _refusal(denied: Denied, call: Call) -> LimitReached:
    wait_s = denied.retry_after_s
    if wait_s is None:  # only tokens are ever asked for in a larger number than there may be, and only for a prompt
        return LimitReached(
            f"{_may(denied.meter)}, and the prompt of this call is about {denied.wanted}: "
            "it can never pass; make it shorter",
            param=next((name for name in READ if name in call.body.fields), None),
            code="request_too_large_for_limit",
        )
    needs = f", and this call needs about {denied.wanted}" if denied.meter.kind == "tokens" else ""
    return LimitReached(f"{_may(denied.meter)}{needs}; try again in {go_duration(wait_s)}", retry_after_s=wait_s)


_REQUESTS = ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests")
_TOKENS = ("x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens")


def add_headers(headers: dict[str, str], standings: Sequence[Standing]) -> None:
    """Add OpenAI's `x-ratelimit-…`, for the requests and for the tokens that leave least."""
    requests: Standing | None = None
    tokens: Standing | None = None
    for standing in standings:
        kind = standing.meter.kind
        if kind == "requests":
            if requests is None or _is_tighter(standing, requests):
                requests = standing
        elif kind == "tokens" and (tokens is None or _is_tighter(standing, tokens)):
            tokens = standing
    reset_s, reset = -1.0, ""
    for told, names in ((requests, _REQUESTS), (tokens, _TOKENS)):
        if told is None:
            continue
        if told.reset_s != reset_s:  # as a rule, all are whole again at the same moment
            reset_s = told.reset_s
            reset = go_duration(reset_s)
        headers[names[0]] = str(told.meter.limit)
        headers[names[1]] = str(told.remaining)
        headers[names[2]] = reset


def _is_tighter(one: Standing, other: Standing) -> bool:
    return (one.remaining, -one.reset_s) < (other.remaining, -other.reset_s)


def go_duration(seconds: float) -> str:
    """Return a duration as Go prints it, and OpenAI's headers with it: `12ms`, `1.5s`, `6m0s`.

    Never too short, but for half a microsecond: so much is an error of the sum.
    """
    ms = math.ceil(seconds * 1000 - 0.0005)
    if 0 < ms < 1000:
        return f"{ms}ms"
    minutes, ms = divmod(ms, 60_000)
    said = f"{ms / 1000:g}s"
    if not minutes:
        return said
    return f"{minutes}m{said}" if minutes < 60 else f"{minutes // 60}h{minutes % 60}m{said}"
