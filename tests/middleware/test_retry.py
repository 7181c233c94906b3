"""What is tried, in which order, how patiently, and when it is better to say so."""

import pytest

from gateway.core.call import Headers
from gateway.core.errors import Busy, Rejected, TimedOut, UnknownModel, Unreachable, UpstreamFailed
from gateway.core.principal import Principal
from gateway.core.reply import Chunk, Reply
from gateway.core.resources import Resources
from gateway.core.route import Deployment, Route
from gateway.engine.fleet import LiveFleet
from gateway.engine.routes import RouteCandidates, RouteTable
from gateway.middleware.retry import RetryOptions, Waits
from gateway.middleware.tries import MOMENT_S
from tests.standins import StillClock, call_of

A, B, C = (Deployment(f"{name}/m", name, "m") for name in "abc")


class Script:
    """What the deployments answer, one after the other, and when they were asked."""

    def __init__(self, clock, *steps):
        self.clock, self.steps, self.asked = clock, list(steps), []

    async def __call__(self, attempt):
        self.asked.append((attempt.deployment.provider, round(attempt.clock.now(), 2)))
        step = self.steps.pop(0)
        if isinstance(step, Exception):
            raise step
        return Reply(Chunk(step))

    @property
    def names(self):
        return "".join(name for name, _ in self.asked)


FAST = Route("fast", (A, B))


def retrying(*steps, routes=(FAST,), headers=None, principal=None, **options):
    """A retry room over `routes`, a script behind it, and a call for `fast`."""
    clock = StillClock()
    table, fleet = RouteTable(routes, {}), LiveFleet(clock)
    resources = Resources(
        clock=clock, limiter=None, answers=None, keys=None, prices=None,
        candidates=RouteCandidates(table, fleet, lambda *_: "none"), routes=table, fleet=fleet, objects=None,
        lines=None,
    )  # fmt: skip
    call = call_of(clock, route=table.find("fast"), headers=Headers(headers or {}))
    if principal:
        call = call.but(principal=principal)
    return RetryOptions(**options).build(resources), Script(clock, *steps), call


async def test_another_deployment_is_asked_at_once():
    """Waiting is for those who were asked before."""
    retry, script, call = retrying(Busy("no"), b"yes")
    assert (await retry(call, script)).first.data == b"yes"
    assert script.asked == [("a", 0.0), ("b", 0.0)]
    assert [tried.error for tried in call.receipt.tried] == ["Busy", ""]


async def test_the_same_deployment_is_asked_again_after_a_growing_wait():
    """Twice as long each time, and with jitter, or all clients would come back together."""
    route = Route("fast", (A,))
    retry, script, call = retrying(Unreachable("x"), Unreachable("x"), b"ok", routes=[route], attempts=3)
    await retry(call, script)
    waits = [later - sooner for (_, sooner), (_, later) in zip(script.asked, script.asked[1:], strict=False)]
    assert 0.49 <= waits[0] <= 1.01 and 0.99 <= waits[1] <= 1.51  # rounded when it was noted
    assert len({Waits(RetryOptions()).backoff_s(1) for _ in range(10)}) > 1


async def test_others_come_before_the_same_again_however_long_they_took():
    """That the wait is over meanwhile makes nobody better than one who has not failed."""
    retry, script, call = retrying(*[Unreachable("x")] * 2, b"yes", routes=[Route("fast", (A, B, C))])

    async def slowly(attempt):
        call.clock.passed_s += 5
        return await script(attempt)

    await retry(call, slowly)
    assert script.names == "abc"


async def test_retry_after_is_not_undercut():
    """An upstream that asked for four seconds is not asked before; one that did not, is."""
    retry, script, call = retrying(Busy("no", retry_after_s=4), Busy("no", retry_after_s=9), b"ok")
    await retry(call, script)
    assert script.asked == [("a", 0.0), ("b", 0.0), ("a", 4.0)]


async def test_more_patience_than_a_call_has_is_the_clients_matter():
    """It is told at once, with the Retry-After, instead of held for a minute."""
    retry, script, call = retrying(Busy("no", retry_after_s=60), routes=[Route("fast", (A,))])
    with pytest.raises(Busy) as caught:
        await retry(call, script)
    assert (script.names, caught.value.retry_after_s) == ("a", 60)


async def test_no_wait_reaches_beyond_the_deadline():
    """A call that is out of time is not put to sleep first."""
    retry, script, call = retrying(Unreachable("x"), b"never", routes=[Route("fast", (A,))])
    with pytest.raises(Unreachable):
        await retry(call.but(deadline_s=0.1), script)
    assert script.names == "a"


async def test_nobody_is_asked_in_the_last_moment():
    """It could only be cut, and would be paid for."""
    retry, script, call = retrying(Unreachable("x"), b"never")
    with pytest.raises(Unreachable):
        await retry(call.but(deadline_s=MOMENT_S / 2), script)
    assert script.names == "a"


async def test_what_was_rejected_is_not_asked_elsewhere():
    """The request is at fault: it would be rejected everywhere, or worse, answered by a model nobody asked for."""
    retry, script, call = retrying(Rejected("too long", status=400), b"never")
    with pytest.raises(Rejected):
        await retry(call, script)
    assert script.names == "a"


async def test_a_providers_refused_key_is_not_the_end_where_another_provider_can_answer():
    """One revoked key takes down its own deployments, not the route; and it is not tried again."""
    refused = UpstreamFailed("our key was refused")
    refused.retryable, refused.elsewhere = False, True
    again = Deployment("a/other", "a", "other")
    retry, script, call = retrying(refused, b"yes", routes=[Route("fast", (A, again, B))])
    await retry(call, script)
    assert script.names == "ab"
    retry, script, call = retrying(refused, b"never", routes=[Route("fast", (A, again))])
    with pytest.raises(UpstreamFailed):
        await retry(call, script)
    assert script.names == "a"


async def test_attempts_are_one_budget_over_all_deployments():
    """Three are three, not three for each."""
    retry, script, call = retrying(*[TimedOut("t")] * 9, attempts=3)
    with pytest.raises(TimedOut):
        await retry(call, script)
    assert script.names in ("aba", "abb")


async def test_an_sdk_that_retries_takes_its_tries_off_ours():
    """Two layers that retry three times each make nine calls."""
    retry, script, call = retrying(*[Busy("no")] * 9, headers={b"x-stainless-retry-count": b"2"}, attempts=3)
    with pytest.raises(Busy):
        await retry(call, script)
    assert script.names == "a"


async def test_fallbacks_come_after_the_routes_own_and_each_once():
    """A cycle of fallbacks ends; a deployment in two routes is one deployment."""
    routes = [Route("fast", (A, B), fallbacks=("big",)), Route("big", (B, C), fallbacks=("fast",))]
    retry, script, call = retrying(*[Busy("no", retry_after_s=5)] * 3, b"ok", routes=routes, attempts=4)
    await retry(call, script)
    assert script.names == "abca"


async def test_a_fallback_is_no_way_around_a_keys_models():
    """A key for `fast` alone never reaches `big`, however broken `fast` is."""
    routes = [Route("fast", (A,), fallbacks=("big",)), Route("big", (C,))]
    principal = Principal("k", models=("fast",))
    retry, script, call = retrying(*[Busy("no")] * 5, routes=routes, principal=principal)
    with pytest.raises(Busy):
        await retry(call, script)
    assert script.names == "aaa"


async def test_an_unknown_model_is_told_with_near_names():
    """Before anything is asked."""
    retry, script, call = retrying()
    with pytest.raises(UnknownModel, match='"fats" is not a model here; did you mean fast'):
        await retry(call.but(model="fats", route=None), script)
