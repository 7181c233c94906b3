"""Where names lead, and in which order deployments are asked."""

import random
from collections import Counter

from gateway.core.receipt import Receipt, Tried
from gateway.core.route import Deployment, Route
from gateway.engine.fleet import LiveFleet
from gateway.engine.routes import MOST_EXPANDED, RouteTable
from tests.standins import StillClock

A, B, C = (Deployment(f"{name}/m", name, "m") for name in "abc")


def first(fleet, deployments, order):
    return fleet.order(deployments, order)[0].provider


def begun(fleet, deployment):
    """Note that an attempt began, and return it."""
    tried = Tried(deployment.name, deployment.provider, deployment.model, 0.0)
    fleet.begin(deployment, tried)
    return tried


def test_names_win_over_patterns_and_long_patterns_over_short():
    """The most exact is what was meant."""
    star = Deployment("o/*", "o", "*")
    table = RouteTable([Route("o/*", (star,)), Route("o/gpt*", (A,)), Route("o/gpt-4", (B,))], {})
    assert table.find("o/gpt-4").deployments == (B,)
    assert table.find("o/gpt-5").deployments == (A,)
    assert table.find("o/other").deployments[0].model == "other"
    assert table.find("o/other").deployments[0].name == "o/other"
    assert table.find("o/") is None and table.find("x") is None


def test_what_clients_make_of_patterns_is_bounded():
    """Names are theirs to choose; our memory is not theirs to fill."""
    table = RouteTable([Route("*", (Deployment("o/*", "o", "*"),))], {})
    for i in range(3 * MOST_EXPANDED):
        assert table.find(f"model-{i}").name == "*"
    assert len(table._expanded) <= MOST_EXPANDED


def test_a_name_that_is_off_says_why():
    """Not "unknown": the cure is a key, not another name."""
    table = RouteTable([Route("fast", (A,))], {"openai/*": "provider openai is off: its api_key is empty"})
    assert "its api_key is empty" in table.near("openai/gpt-4o")
    assert table.near("fats") == "did you mean fast?"


def test_what_is_off_is_not_answered_by_a_shorter_pattern():
    """Who named a model did not ask for another's; a shorter pattern that is off takes nothing from a longer one."""
    star = Deployment("up/*", "up", "*")
    off = {"x": "provider a is off", "openai/*": "provider openai is off", "u*": "provider u is off"}
    table = RouteTable([Route("*", (star,)), Route("up/*", (star,))], off)
    for lookup in (table.find, table.read):
        assert lookup("x") is None and lookup("openai/gpt-4o") is None
        assert lookup("xy").name == "*" and lookup("openai/").name == "*" and lookup("up/y").name == "up/*"
    assert table.near("x") == "it is off, because provider a is off"
    assert table.near("openai/gpt-4o") == "it is off, because provider openai is off"


def test_weights_are_shares():
    """Over many calls, within what chance allows."""
    fleet = LiveFleet(StillClock(), random.Random(1))
    heavy = Deployment("h/m", "h", "m", weight=3)
    drawn = Counter(first(fleet, [heavy, B], "weighted") for _ in range(4000))
    assert 0.70 < drawn["h"] / 4000 < 0.80


def test_weight_zero_is_for_when_no_other_is_left():
    """Drained, but not forgotten."""
    fleet, drained = LiveFleet(StillClock()), Deployment("d/m", "d", "m", weight=0)
    assert all(fleet.order([drained, A, B], "weighted")[-1] is drained for _ in range(50))


def test_least_busy_counts_calls_in_flight_for_their_weight():
    """Two calls on a place of weight three are less than one on a place of weight one."""
    fleet, heavy = LiveFleet(StillClock()), Deployment("h/m", "h", "m", weight=3)
    asked = [begun(fleet, deployment) for deployment in (heavy, heavy, B)]
    assert first(fleet, [B, heavy], "least_busy") == "h"
    fleet.end(asked[2], Receipt(""))
    assert first(fleet, [B, heavy], "least_busy") == "b"


def test_fastest_goes_by_the_time_to_the_first_chunk():
    """Who was never asked is asked first, or it would never be measured."""
    fleet = LiveFleet(StillClock())
    for deployment, seconds in ((A, 0.9), (B, 0.1)):
        tried = begun(fleet, deployment)
        tried.first_chunk_s = seconds
        fleet.spoke(tried, stream=True)
        fleet.end(tried, Receipt(""))
    assert [d.provider for d in fleet.order([A, B, C], "fastest")] == ["c", "b", "a"]


def test_cheapest_goes_by_price_the_unknown_last():
    """Unknown is not free."""
    cheap, dear = (Deployment(f"{n}/m", n, "m", dearness=p) for n, p in (("cheap", 1), ("dear", 9)))
    assert [d.provider for d in LiveFleet(StillClock()).order([A, dear, cheap], "cheapest")] == ["cheap", "dear", "a"]
