"""Routes that want a second attempt where there can be none: told at load, not by the first stream that breaks."""

import pytest

from gateway.settings.complaints import ConfigError
from gateway.settings.load import load

TWO = """\
providers: {echo: }
models:
  other: echo/x
  fast:
    deployments: [echo/a, echo/b]
    OPTION
chain:
  - {use: retry, attempts: 2}
"""
ONE = TWO.replace("[echo/a, echo/b]", "[echo/a]")
ONCE = "it takes a second attempt, and only one is made"


def complaints_of(text):
    try:
        load(text, name="gateway.yaml", environment={})
    except ConfigError as error:
        return [line.removeprefix("gateway.yaml:") for line in str(error).splitlines()]
    return []


@pytest.mark.parametrize("option", ["hedge: {}", "hedge: {percentile: 99, share: 0.02}", *(
    f"midstream: {mode}" for mode in ("fail", "restart", "continue", "buffer")
)])  # fmt: skip
def test_what_can_be_done_is_not_complained_of(option):
    """Two deployments and two attempts are enough; to go on, so is one."""
    assert complaints_of(TWO.replace("OPTION", option)) == []
    if "hedge" not in option:
        assert complaints_of(ONE.replace("OPTION", option)) == []


def test_a_hedge_needs_somebody_else():
    """A fallback is somebody."""
    (told,) = complaints_of(ONE.replace("OPTION", "hedge: {}"))
    assert told == "6:12 models.fast.hedge: there is nobody else who could be asked; add a deployment, or a fallback"
    assert complaints_of(ONE.replace("OPTION", "hedge: {}\n    fallbacks: [other]")) == []


@pytest.mark.parametrize(
    ("chain", "cure"),
    [
        ("  - {use: retry, attempts: 1}", "give `retry` more attempts"),
        ("  - use: log", "add `- use: retry` to the chain"),
    ],
)
@pytest.mark.parametrize(
    ("option", "place"),
    [
        ("hedge: {}", "6:12 models.fast.hedge"),
        ("midstream: restart", "6:16 models.fast.midstream"),
        ("midstream: continue", "6:16 models.fast.midstream"),
    ],
)
def test_a_second_attempt_must_be_allowed(option, place, chain, cure):
    """An option that is accepted and ignored is worse than none."""
    text = TWO.replace("OPTION", option).replace("  - {use: retry, attempts: 2}", chain)
    assert complaints_of(text) == [f"{place}: {ONCE}; {cure}"]


@pytest.mark.parametrize("option", ["midstream: fail", "midstream: buffer"])
def test_to_tell_and_to_hold_take_one_attempt(option):
    """A buffered answer that fails is an error with a status, where it would have been half an answer."""
    assert complaints_of(TWO.replace("OPTION", option).replace("attempts: 2", "attempts: 1")) == []


def test_a_retry_that_is_written_wrong_is_one_mistake():
    """Not also a missing one."""
    (told,) = complaints_of(TWO.replace("OPTION", "midstream: continue").replace("attempts: 2", "attempts: 30"))
    assert told == "8:28 chain[0].attempts: expected a whole number from 1 to 10, got 30"


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        (
            "midstream: contineu",
            '6:16 models.fast.midstream: expected one of fail, restart, continue, buffer, got "contineu"',
        ),
        ("hedge: {percentile: 100}", "6:25 models.fast.hedge.percentile: expected a number"),
        ("hedge: {share: 0}", "6:20 models.fast.hedge.share: expected a number"),
        ("client_leaves: stay", '6:20 models.fast.client_leaves: expected one of stop, finish, got "stay"'),
        (
            "context_fallbacks: [othre]",
            '6:25 models.fast.context_fallbacks[0]: unknown model "othre"; did you mean "other"?',
        ),
        (
            'context_fallbacks: ["x/*"]',
            '6:25 models.fast.context_fallbacks[0]: "x/*" is a pattern; a fallback is one model',
        ),
    ],
)
def test_a_mistake_has_its_place_and_its_cure(option, complaint):
    """As everywhere."""
    (told,) = complaints_of(TWO.replace("OPTION", option))
    assert told.startswith(complaint)
