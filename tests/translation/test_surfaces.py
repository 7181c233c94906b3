"""Requests of Messages and of Responses, as chat completions and from there at every provider.

What they say is found, explained, or refused.
"""

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import strategies as st

from gateway.wire import messages_request as messages
from gateway.wire import responses_request as responses
from tests.translation.checking import Checker, until_shown
from tests.translation.fates import Table
from tests.translation.surface_requests import message_requests, response_requests
from tests.translation.surface_tables import MESSAGES, RESPONSES
from tests.translation.test_chat import TARGETS, body_of, checker_of

TOOL = {"name": "one", "input_schema": {"type": "object"}}
ASKED = {"model": "m", "messages": [{"role": "user", "content": "<1>"}]}
SELDOM_MESSAGES: list[dict[str, Any]] = [
    ASKED | {"thinking": {"type": "disabled"}, "output_config": {"effort": "low"}},
    *(
        ASKED | {"tools": [TOOL], "tool_choice": {"type": kind, "name": "one", "disable_parallel_tool_use": True}}
        for kind in ("auto", "any", "tool")
    ),
]
"""What chance seldom makes."""
FUNCTION = {"type": "function", "name": "one", "parameters": {"type": "object"}}
RESPONSE = {"model": "m", "input": [{"role": "user", "content": "<1>"}]}
SELDOM_RESPONSES: list[dict[str, Any]] = [
    RESPONSE | {"text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}}},
    *(
        RESPONSE | {"tools": [FUNCTION], "tool_choice": choice}
        for choice in ("auto", "none", "required", {"type": "function", "name": "one"})
    ),
    *(RESPONSE | {"tools": [FUNCTION], "parallel_tool_calls": parallel} for parallel in (True, False)),
    RESPONSE | {"tools": [{"type": "mcp", "server_label": "x"}]},
]
Surface = tuple[Callable[[Any], Any], Table, st.SearchStrategy[dict[str, Any]], list[dict[str, Any]]]
SURFACES: dict[str, Surface] = {
    "messages": (messages.chat_body, MESSAGES, message_requests(), SELDOM_MESSAGES),
    "responses": (responses.chat_body, RESPONSES, response_requests(), SELDOM_RESPONSES),
}


@pytest.mark.parametrize("surface", SURFACES)
def test_what_a_request_says_is_found_explained_or_refused(surface: str):
    """And what came of it is, at the next: two translations in a row lose no more than the tables say."""
    chat_body, table, requests, seldom = SURFACES[surface]
    checker = Checker(lambda said: json.loads(chat_body(body_of(said)).raw), table)
    onward = {target: checker_of(target) for target in TARGETS}
    for said in seldom:
        checker.check(said)

    def check(said: dict[str, Any], target: str) -> None:
        onward[target].check(checker.check(said))

    until_shown(checker, check, said=requests, target=st.sampled_from([*TARGETS]))
