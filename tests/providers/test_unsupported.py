"""Errors about a parameter that a model does not take, in the vendors' own words, and those that only look like it."""

import json

import pytest

from gateway.core.errors import Rejected
from gateway.providers.failures import failure
from gateway.providers.openai_errors import failure_of

TOLD = [
    ("Unsupported parameter: 'temperature' is not supported with this model.", "temperature", ""),
    ("Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
     "max_tokens", "max_completion_tokens"),
    ("Unsupported value: 'temperature' does not support 0.5 with this model. Only the default (1) value is supported.",
     "temperature", ""),
    ("Unrecognized request argument supplied: reasoning_effort", "reasoning_effort", ""),
    ("Argument not supported on this model: presencePenalty", "presence_penalty", ""),
    ("Model grok-4 does not support parameter presencePenalty.", "presence_penalty", ""),
    ("`temperature` is deprecated for this model.", "temperature", ""),
    ("The model returned the following errors: `temperature` is deprecated for this model.", "temperature", ""),
    ("top_k: Extra inputs are not permitted", "top_k", ""),
    ("body.seed: Extra inputs are not permitted", "seed", ""),
    ("property 'store' is unsupported", "store", ""),
    ("The model doesn't support the temperature field. Remove temperature and try again.", "temperature", ""),
    ('Invalid JSON payload received. Unknown name "seed" at \'generation_config\': Cannot find field.', "seed", ""),
]  # fmt: skip


@pytest.mark.parametrize(("message", "name", "instead"), TOLD, ids=[message[:40] for message, _, _ in TOLD])
def test_a_vendor_says_which_parameter_its_model_does_not_take(message: str, name: str, instead: str):
    """Most have no code for it."""
    failed = failure(400, {}, message)
    assert isinstance(failed, Rejected)
    assert (failed.unsupported, failed.instead) == (name, instead)


@pytest.mark.parametrize("code", ["unsupported_parameter", "unsupported_value"])
def test_openais_code_says_so_whatever_the_sentence(code: str):
    """The sentence is for people, and changes."""
    error = {"message": "No.", "type": "invalid_request_error", "param": "top_p", "code": code}
    failed = failure_of(json.dumps({"error": error}).encode(), 400)
    assert isinstance(failed, Rejected)
    assert failed.unsupported == "top_p"


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (400, "temperature: Input should be less than or equal to 1", None),
        (400, "Invalid 'temperature': decimal above maximum value. Expected <= 2, got 3.", "decimal_above_max_value"),
        (400, "This model does not support effort level 'xhigh'. Supported levels: high, low.", None),
        (400, "`temperature` and `top_p` cannot both be specified for this model. Please use only one.", None),
        (404, "The model `temperature` is deprecated for this model", None),
        (429, "Unsupported parameter: 'temperature'", "unsupported_parameter"),
    ],
)
def test_what_the_client_can_mend_is_something_else(status: int, message: str, code: str | None):
    """A value out of its range, two that exclude each other: to leave it out would be an answer to another question."""
    failed = failure(status, {}, message, code=code, param="temperature")
    assert not isinstance(failed, Rejected) or failed.unsupported == ""
