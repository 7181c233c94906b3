"""Requests of Messages and of Responses, as chat completions: what they say is found, explained, or refused."""

import json
from typing import Any

from hypothesis import Phase, given, settings

from gateway.wire import messages_request as messages
from gateway.wire import responses_request as responses
from tests.translation.checking import Checker
from tests.translation.surface_requests import message_requests, response_requests
from tests.translation.surface_tables import MESSAGES, RESPONSES
from tests.translation.test_chat import body_of

TOOL = {"name": "one", "input_schema": {"type": "object"}}
SELDOM_MESSAGES: list[dict[str, Any]] = [
    {"thinking": {"type": "disabled"}, "output_config": {"effort": "low"}},
    *(
        {"tools": [TOOL], "tool_choice": {"type": kind, "name": "one", "disable_parallel_tool_use": True}}
        for kind in ("auto", "any", "tool")
    ),
]
"""What chance seldom makes."""
FUNCTION = {"type": "function", "name": "one", "parameters": {"type": "object"}}
SELDOM_RESPONSES: list[dict[str, Any]] = [
    {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}}},
    *(
        {"tools": [FUNCTION], "tool_choice": choice}
        for choice in ("auto", "none", "required", {"type": "function", "name": "one"})
    ),
]
often = settings(max_examples=200, deadline=None, derandomize=True, phases=[Phase.generate])


def test_what_a_message_request_says_is_found_explained_or_refused():
    checker = Checker(lambda said: json.loads(messages.chat_body(body_of(said)).raw), MESSAGES)
    for said in SELDOM_MESSAGES:
        checker.check({"model": "m", "messages": [{"role": "user", "content": "<1>"}], **said})

    @often
    @given(said=message_requests())
    def check(said: dict[str, Any]) -> None:
        checker.check(said)

    check()
    assert not (unshown := checker.unshown()), unshown


def test_what_a_response_request_says_is_found_explained_or_refused():
    checker = Checker(lambda said: json.loads(responses.chat_body(body_of(said)).raw), RESPONSES)
    for said in SELDOM_RESPONSES:
        checker.check({"model": "m", "input": [{"role": "user", "content": "<1>"}], **said})

    @often
    @given(said=response_requests())
    def check(said: dict[str, Any]) -> None:
        checker.check(said)

    check()
    assert not (unshown := checker.unshown()), unshown
