"""What becomes of a call when deployments rest, and of all calls when everything fails."""

import pytest

from gateway.core.errors import Busy, Resting, Unreachable
from gateway.core.receipt import Receipt, Tried
from gateway.core.route import Route
from gateway.http.answers import error_headers
from gateway.middleware.retry import FLOOR
from tests.middleware.test_retry import A, B, C, retrying
from tests.standins import call_of

ONE = Route("fast", (A,))


def falls_ill(retry, place):
    """Have a deployment fail until it rests."""
    for _ in range(5):
        tried = Tried(place.name, place.provider, place.model, 0.0, error="Unreachable", unhealthy=True)
        retry._fleet.begin(place, tried)
        retry._fleet.end(tried, Receipt(""))


async def test_while_one_rests_another_answers():
    """And nobody waits for it."""
    retry, script, call = retrying(b"yes")
    falls_ill(retry, A)
    assert (await retry(call, script)).first.data == b"yes"
    assert script.asked == [("b", 0.0)]


async def test_while_all_rest_the_client_is_told_when_to_come_back():
    """At once, and its SDK is not kept from it: nobody was asked, so that nothing is multiplied."""
    retry, script, call = retrying()
    falls_ill(retry, A)
    falls_ill(retry, B)
    with pytest.raises(Resting) as caught:
        await retry(call, script)
    headers = dict(error_headers(caught.value))
    assert (caught.value.status, script.names) == (503, "")
    assert 5 <= int(headers[b"retry-after"]) <= 6
    assert b"x-should-retry" not in headers


async def test_the_soonest_of_those_that_rest_is_told():
    """Not that of the last that was looked at."""
    retry, script, call = retrying()
    falls_ill(retry, A)
    call.clock.passed_s = 3
    falls_ill(retry, B)
    with pytest.raises(Resting) as caught:
        await retry(call, script)
    assert caught.value.retry_after_s <= 3


async def test_what_an_upstream_asked_of_one_call_holds_for_all():
    """The next one is told 429 as the first was, and the upstream has its peace."""
    retry, script, call = retrying(Busy("no", retry_after_s=60), routes=[ONE])
    with pytest.raises(Busy):
        await retry(call, script)
    with pytest.raises(Resting) as caught:
        await retry(call_of(call.clock, route=ONE), script)
    assert (caught.value.status, caught.value.code, caught.value.retry_after_s) == (429, "upstream_busy", 60)
    assert script.names == "a"


async def test_what_an_upstream_asked_for_is_waited_for_where_a_call_has_the_patience():
    """Four seconds are less than it takes to come back."""
    retry, script, call = retrying(Busy("no", retry_after_s=4), b"first", b"second", routes=[ONE], attempts=2)
    await retry(call, script)
    retry._fleet._health[A.name].wish(call.clock.now(), 4)
    began_s = call.clock.now()
    assert (await retry(call_of(call.clock, route=ONE), script)).first.data == b"second"
    assert call.clock.now() == began_s + 4


async def test_a_rest_that_begins_in_the_middle_of_a_call_ends_its_tries_there():
    """It is not asked once more because this call has an attempt left."""
    retry, script, call = retrying(*[Unreachable("x")] * 9, routes=[ONE])
    for _ in range(4):
        with pytest.raises(Unreachable):
            await retry(call_of(call.clock, route=ONE).but(deadline_s=call.clock.now()), script)
    asked = len(script.asked)
    with pytest.raises(Unreachable):
        await retry(call_of(call.clock, route=ONE), script)
    assert len(script.asked) == asked + 1


async def test_one_poisonous_request_does_not_rest_a_deployment():
    """However often it is tried again: the next client is served."""
    retry, script, call = retrying(*[Unreachable("boom")] * 8, b"yes", routes=[ONE], attempts=8)
    with pytest.raises(Unreachable):
        await retry(call.but(deadline_s=1e6), script)
    assert len(script.asked) == 8
    assert (await retry(call_of(call.clock, route=ONE), script)).first.data == b"yes"


CALLS = 1000
SHARE = 0.2


async def test_when_everything_fails_attempts_are_the_calls_and_a_share_of_them():
    """Three attempts a call would be three times the load on what is already down. (Here it never rests.)"""
    retry, script, call = retrying(*[Unreachable("x")] * 9 * CALLS, routes=[ONE], share=SHARE, first_wait=0)
    retry._waits.backoff_s = lambda failures: 0.0
    rest, retry._fleet.rest = retry._fleet.rest, lambda name: None
    retry._fleet.admit = lambda deployment: admitted()
    for _ in range(CALLS):
        with pytest.raises(Unreachable):
            await retry(call_of(call.clock, route=ONE), script)
    assert rest(A.name)
    assert CALLS + FLOOR <= len(script.asked) <= CALLS * (1 + SHARE) + FLOOR


async def admitted():
    return True


async def test_a_spent_budget_keeps_nobody_from_one_that_is_well():
    """Neither by the failure before, nor by an ailing deployment that would have been asked first."""
    routes = [Route("fast", (A, B), fallbacks=("spare",)), Route("spare", (C,))]
    retry, script, call = retrying(Unreachable("x"), b"yes", routes=routes, share=0)
    tried = Tried(B.name, "b", "m", 0.0, error="Unreachable", unhealthy=True)
    retry._fleet.begin(B, tried)
    retry._fleet.end(tried, Receipt(""))
    while retry._repeats.spend():
        pass
    assert (await retry(call, script)).first.data == b"yes"
    assert script.names == "ac"
