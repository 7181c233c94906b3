"""When a deployment rests, for how long, who tries it then, and what is measured of it."""

import asyncio
import random

import pytest
from prometheus_client import REGISTRY

from gateway.core.receipt import Receipt
from gateway.core.resources import Rest
from gateway.core.route import Deployment
from gateway.engine import fleet as fleets
from gateway.engine.fleet import PROBE_LEASE_S, LiveFleet
from gateway.engine.health import FADES_S, FEWEST_WAITS, JITTER, LONGEST_WISH_S, TRIED_S, Rules
from tests.engine.attempts import A, Attempt, B
from tests.standins import StillClock


class Rig:
    """A fleet, and a clock that stands still."""

    def __init__(self, **rules):
        self.clock = StillClock()
        self.fleet = LiveFleet(self.clock, random.Random(1))
        self.fleet.rules = Rules(**rules)

    def begin(self, place=A, call=None):
        return Attempt(self.fleet, self.clock, place, call)

    def fail(self, times, place=A):
        """So many calls fail, one after the other."""
        for _ in range(times):
            self.begin(place).fails()

    def falls_ill(self):
        """Return for how long it rests, which it now does."""
        self.fail(self.fleet.rules.failures)
        return self.fleet.rest(A.name).left_s

    def pass_time(self, seconds):
        self.clock.passed_s += seconds

    async def tried(self):
        """Its rest passes; return the attempt of the one who may try it."""
        self.pass_time(self.fleet.rest(A.name).left_s)
        assert await self.fleet.admit(A)
        return self.begin()


def test_so_many_failures_in_a_row_and_it_rests():
    """One answer between them, and they are not in a row."""
    rig = Rig(failures=3)
    rig.fail(2)
    rig.begin().answers()
    rig.fail(2)
    assert rig.fleet.rest(A.name) is None and not rig.fleet.is_well(A.name)
    rig.fail(1)
    rest = rig.fleet.rest(A.name)
    assert rest.strikes == 1 and 5 <= rest.left_s <= 5 * (1 + JITTER)
    assert rig.fleet.rest(B.name) is None


async def test_whoever_may_be_asked_without_leave_is_free():
    """Most calls look no further. Who asked for patience is free when that has passed; who rested, when it answers."""
    rig = Rig(failures=2)
    assert rig.fleet.is_free(A.name)
    rig.begin().fails(retry_after_s=7)
    assert not rig.fleet.is_free(A.name)
    rig.pass_time(7)
    assert rig.fleet.rest(A.name) is None
    assert rig.fleet.is_free(A.name)
    rig.fail(1)
    assert not rig.fleet.is_free(A.name)
    (await rig.tried()).answers()
    assert rig.fleet.is_free(A.name)


def test_a_call_counts_once():
    """One poisonous request, asked five times over, is one failure: it must not rest a deployment for everybody."""
    rig = Rig(failures=2, of_at_least=2)
    poisonous = Receipt("poisonous")
    for _ in range(5):
        rig.begin(call=poisonous).fails()
    assert rig.fleet.rest(A.name) is None
    rig.begin(B, call=poisonous).fails()
    assert not rig.fleet.is_well(B.name)
    rig.fail(1)
    assert rig.fleet.rest(A.name)


def test_a_share_of_failures_is_too_many_where_it_is_of_enough():
    """Half of two calls says nothing; half of twenty does, though never two in a row failed."""
    rig = Rig(failures=100, of_at_least=20)
    for _ in range(9):
        rig.fail(1)
        rig.begin().answers()
    rig.begin().answers()
    rig.fail(1)
    assert rig.fleet.rest(A.name)
    (condition, *_) = rig.fleet.conditions(9)
    assert condition.error_rate == 0.5


def test_old_failures_count_no_more():
    """The share is that of the window."""
    rig = Rig(failures=100, of_at_least=4, window_s=30)
    rig.fail(3)
    rig.pass_time(31)
    rig.fail(1)
    assert rig.fleet.rest(A.name) is None
    for _ in range(3):
        rig.begin().answers()
    rig.fail(1)
    assert rig.fleet.rest(A.name) is None


async def test_each_rest_is_twice_as_long_and_jittered_up_to_the_longest():
    """What stays down is asked ever less often, and not by all at the same moment."""
    rig = Rig(rest_s=5, longest_rest_s=60)
    rests_s = [rig.falls_ill()]
    for _ in range(5):
        (await rig.tried()).fails()
        rests_s.append(rig.fleet.rest(A.name).left_s)
    for rest_s, least_s in zip(rests_s, (5, 10, 20, 40, 60, 60), strict=True):
        assert least_s <= rest_s <= least_s * (1 + JITTER)
    assert len({rest_s / least_s for rest_s, least_s in zip(rests_s, (5, 10, 20, 40, 60, 60), strict=True)}) == 6


async def test_what_is_down_for_days_still_only_rests():
    """After a thousand rests their doubling is no number any more."""
    rig = Rig()
    rig.falls_ill()
    for _ in range(1100):
        (await rig.tried()).fails()
    assert rig.fleet.rest(A.name).left_s <= 60 * (1 + JITTER)


async def test_one_call_at_a_time_tries_what_has_rested():
    """A thousand waiting calls would throw it down again."""
    rig = Rig()
    rig.falls_ill()
    assert not await rig.fleet.admit(A)
    rig.pass_time(rig.fleet.rest(A.name).left_s)
    assert rig.fleet.rest(A.name) is None
    assert [await rig.fleet.admit(A) for _ in range(3)] == [True, False, False]
    assert rig.fleet.rest(A.name) == Rest(TRIED_S, 1)
    trial = rig.begin()
    assert trial.tried.trial and not await rig.fleet.admit(A)
    assert rig.fleet.conditions(1)[0].state == "trying"
    trial.speaks()
    assert rig.fleet.is_well(A.name) and await rig.fleet.admit(A) and await rig.fleet.admit(A)


async def test_a_rejected_trial_is_an_answer():
    """Only somebody who is there can say no."""
    rig = Rig()
    rig.falls_ill()
    (await rig.tried()).is_rejected()
    assert rig.fleet.is_well(A.name)


async def test_a_trial_that_nobody_waits_for_says_nothing_and_the_next_call_tries():
    """A client that leaves neither heals nor harms."""
    rig = Rig()
    rig.falls_ill()
    (await rig.tried()).is_left()
    assert rig.fleet.rest(A.name) is None and not rig.fleet.is_well(A.name)
    assert await rig.fleet.admit(A)


async def test_leave_to_try_that_is_not_used_ends():
    """The call may have been cancelled before it could begin; nobody else would ever find out."""
    rig = Rig()
    rig.falls_ill()
    rig.pass_time(10)
    assert await rig.fleet.admit(A)
    rig.pass_time(PROBE_LEASE_S - 1)
    assert not await rig.fleet.admit(A)
    rig.pass_time(1)
    assert await rig.fleet.admit(A)


async def test_a_call_that_is_cancelled_while_it_asks_leave_has_none():
    """It waits for Redis then; the next one need not wait for it."""

    class Slow:
        def __init__(self):
            self.given_up = []

        async def may_probe(self, name, seconds):
            await asyncio.Event().wait()

        async def give_up(self, name):
            self.given_up.append(name)

        async def rest(self, name, seconds, strikes):
            return None

    rig = Rig()
    rig.fleet._shared = shared = Slow()
    rig.falls_ill()
    rig.pass_time(10)
    asking = asyncio.ensure_future(rig.fleet.admit(A))
    await asyncio.sleep(0)
    assert rig.fleet.rest(A.name)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert rig.fleet.rest(A.name) is None
    await rig.fleet.close()
    assert shared.given_up == [A.name]


async def test_a_trial_slower_than_its_lease_still_counts():
    """Whole answers may take minutes; if only faster ones counted, such a deployment would never be well again."""
    rig = Rig()
    rig.falls_ill()
    first = await rig.tried()
    rig.pass_time(PROBE_LEASE_S)
    assert await rig.fleet.admit(A)
    second = rig.begin()
    first.answers()
    assert rig.fleet.is_well(A.name)
    second.answers()


async def test_two_trials_that_fail_are_one_rest():
    """The second had begun before the first was known to fail."""
    rig = Rig()
    rig.falls_ill()
    first = await rig.tried()
    rig.pass_time(PROBE_LEASE_S)
    assert await rig.fleet.admit(A)
    second = rig.begin()
    first.fails()
    second.fails()
    assert rig.fleet.rest(A.name).strikes == 2


async def test_what_began_before_it_fell_ill_says_nothing_of_how_it_is_now():
    """Fifty calls that time out one by one, long after it answers again, must not rest it a second time."""
    rig = Rig()
    old = [rig.begin() for _ in range(20)]
    rig.pass_time(1)
    rig.falls_ill()
    old.pop().fails()
    old.pop().answers()
    assert rig.fleet.rest(A.name).strikes == 1
    (await rig.tried()).answers()
    for attempt in old:
        attempt.fails()
    assert rig.fleet.is_well(A.name)


@pytest.mark.parametrize("status", [0, 200, 500])
def test_a_client_that_leaves_does_not_count(status):
    """Whatever had come by then: it is no failure, and no success that would hide one."""
    rig = Rig(failures=2)
    for _ in range(5):
        rig.begin().is_left(status)
    rig.fail(1)
    rig.begin().is_left(status)
    assert rig.fleet.rest(A.name) is None
    rig.fail(1)
    assert rig.fleet.rest(A.name)


def test_a_request_that_is_rejected_is_no_failure():
    """Nor are a hundred: whoever says no is there."""
    rig = Rig()
    for _ in range(100):
        rig.begin().is_rejected()
    assert rig.fleet.is_well(A.name) and rig.fleet.rest(A.name) is None


def test_what_an_upstream_asks_for_is_heeded_up_to_a_bound():
    """It may be told in error, or by somebody in between. It is no strike."""
    rig = Rig()
    rig.begin().fails(retry_after_s=7)
    assert rig.fleet.rest(A.name) == Rest(7.0)
    rig.begin().fails(retry_after_s=2)
    assert rig.fleet.rest(A.name) == Rest(7.0), "the longer one holds"
    rig.pass_time(7)
    assert rig.fleet.rest(A.name) is None
    rig.begin().fails(retry_after_s=86_400)
    assert rig.fleet.rest(A.name) == Rest(LONGEST_WISH_S)
    assert rig.fleet.conditions(1)[0].state == "resting"


def test_late_is_later_than_a_share_of_the_last_streams():
    """Of a few, nobody can say; whole answers have no first token."""
    rig = Rig()
    for n in range(1, FEWEST_WAITS + 1):
        assert rig.fleet.late_s(A.name, 0.95) is None
        for stream in (True, False):
            attempt = rig.begin()
            rig.pass_time(n if stream else 1000)
            attempt.speaks(stream=stream).answers()
    assert rig.fleet.late_s(A.name, 0.95) == FEWEST_WAITS
    assert rig.fleet.late_s(A.name, 0.5) == FEWEST_WAITS / 2 + 1
    assert rig.fleet.late_s(A.name, 0.0) == 1


def answered(rig, place, seconds):
    attempt = rig.begin(place)
    rig.pass_time(seconds)
    attempt.answers()


def test_one_that_was_slow_once_gets_another_chance():
    """Or its first, cold answer would be the last that is known of it."""
    rig = Rig()
    answered(rig, A, 4.0)
    answered(rig, B, 1.0)
    names = []
    for _ in range(20):
        best = rig.fleet.order([A, B], "fastest")[0]
        names.append(best.provider)
        rig.pass_time(FADES_S / 4)
        answered(rig, best, 0.5)
    assert names[:4] == ["b"] * 4 and 1 <= names.count("a") <= 4
    assert rig.fleet.conditions(2)[0].first_chunk_s < 1, "what is old counts little beside what is new"


def test_one_call_measures_what_is_not_known():
    """While it does, the others ask somebody who is known to answer."""
    rig = Rig()
    answered(rig, B, 1.0)
    assert rig.fleet.order([A, B], "fastest")[0] is A
    rig.begin(A)
    assert rig.fleet.order([A, B], "fastest")[0] is B


def test_how_deployments_are_is_told_the_unwell_first():
    """Those that were asked, no more than somebody can read."""
    rig = Rig()
    rig.fleet.order([Deployment("never/asked", "never", "asked"), B], "fastest")
    for n in range(5):
        answered(rig, Deployment(f"w/{n}", "w", f"{n}"), 0.25)
    rig.fail(2, B)
    rig.falls_ill()
    first, second, third = rig.fleet.conditions(3)
    assert (first.name, first.state, first.failures, first.error_rate) == (A.name, "resting", 5, 1.0)
    assert 5 <= first.rests_for_s <= 6.0 and first.first_chunk_s is None
    assert (second.name, second.state, second.failures, second.rests_for_s) == (B.name, "well", 2, 0.0)
    assert (third.state, third.first_chunk_s, third.in_flight) == ("well", 0.25, 0)


def names_of(rig):
    return {condition.name for condition in rig.fleet.conditions(10**6)}


def test_what_clients_make_of_patterns_is_bounded_also_when_all_of_it_rests(monkeypatch):
    """Names are theirs to choose. What is asked now, and those that matter longest, are kept."""
    monkeypatch.setattr(fleets, "MOST_REMEMBERED", 20)
    rig = Rig(failures=1)
    busy = rig.begin(B)
    rig.begin().fails(retry_after_s=200)
    for n in range(100):
        rig.pass_time(0.1)
        rig.begin(Deployment(f"p/{n}", "p", f"{n}", label="p/*")).fails()
        assert len(names_of(rig)) <= 20
    assert {A.name, B.name, "p/99"} <= names_of(rig)
    for n in range(200):
        rig.pass_time(0.1)
        answered(rig, Deployment(f"q/{n}", "q", f"{n}", label="q/*"), 0)
    left = [name for name in names_of(rig) if name.startswith("p/")]
    assert metric("gateway_resting", "p/*") == len(left) < 10
    busy.answers()


def metric(name, label):
    return REGISTRY.get_sample_value(name, {"deployment": label}) or 0


async def test_metrics_tell_who_rests_by_the_configured_name():
    """A pattern's deployments are one series, whatever clients make of it."""
    rig = Rig(failures=1)
    x, y = (Deployment(f"m/{n}", "m", n, label="m/*") for n in "xy")
    before = metric("gateway_rests_total", "m/*")
    rig.fail(1, x)
    rig.fail(1, y)
    assert metric("gateway_resting", "m/*") == 2
    rig.pass_time(10)
    assert await rig.fleet.admit(x)
    rig.begin(x).answers()
    assert metric("gateway_resting", "m/*") == 1
    assert metric("gateway_rests_total", "m/*") == before + 2


async def test_metrics_tell_who_rests_because_its_upstream_asked_for_it():
    """As long as it asked for, though nobody asks it in the meantime: its end is no call's doing."""
    rig = Rig()
    place = Deployment("w/x", "w", "x", label="w/*")
    before = metric("gateway_rests_total", "w/*")
    rig.begin(place).fails(retry_after_s=0)
    assert (metric("gateway_resting", "w/*"), metric("gateway_rests_total", "w/*")) == (0, before)
    rig.fleet.share(None)
    first, second = rig.begin(place), rig.begin(place)
    first.fails(retry_after_s=7)
    second.fails(retry_after_s=9)
    assert (metric("gateway_resting", "w/*"), metric("gateway_rests_total", "w/*")) == (1, before + 1)
    until_s = rig.clock.now() + 9
    await rig.fleet._showing
    assert until_s <= rig.clock.now() < until_s + 2 * fleets.SHOW_EVERY_S
    assert metric("gateway_resting", "w/*") == 0
    rig.begin(place).fails(retry_after_s=7)
    assert (metric("gateway_resting", "w/*"), metric("gateway_rests_total", "w/*")) == (1, before + 2)
    await rig.fleet.close()


def test_who_rests_for_two_reasons_rests_once():
    """The failure that was one too many said `Retry-After`."""
    rig = Rig(failures=1)
    before = metric("gateway_rests_total", "v/*")
    rig.begin(Deployment("v/x", "v", "x", label="v/*")).fails(retry_after_s=7)
    assert (metric("gateway_resting", "v/*"), metric("gateway_rests_total", "v/*")) == (1, before + 1)
