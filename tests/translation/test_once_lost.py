"""What was once left out without a word, each by itself."""

from typing import Any

import pytest

from gateway.core.errors import BadRequest
from tests.translation.test_chat import TARGETS, bedrock, body_of

USER = {"role": "user", "content": "Hi"}
TRANSLATED = [name for name in TARGETS if name not in ("mistral", "neutral")]


@pytest.mark.parametrize("target", TRANSLATED)
@pytest.mark.parametrize(
    ("said", "param"),
    [
        ({"moderation": {"model": "omni-moderation-latest"}}, "moderation"),
        ({"messages": [USER, {"role": "assistant", "audio": {"id": "audio_1"}}, USER]}, "messages[1].audio"),
        (
            {"messages": [USER, {"role": "assistant", "function_call": {"name": "f", "arguments": "{}"}}, USER]},
            "messages[1].function_call",
        ),
    ],
)
def test_what_only_openai_can_do_is_refused(target: str, said: dict[str, Any], param: str):
    """A policy that nobody applies, an answer that is empty without its audio, a call that never was."""
    with pytest.raises(BadRequest) as raised:
        TARGETS[target][0](body_of({"model": "m", "messages": [USER], **said}))
    assert raised.value.param == param


def test_tools_are_cached_on_bedrock_up_to_where_the_client_says():
    """Claude Code marks the last of dozens; unmarked, every call pays for all of them."""
    tools = [{"type": "function", "function": {"name": name}} for name in ("a", "b")]
    tools[1]["cache_control"] = {"type": "ephemeral", "ttl": "1h"}
    told = bedrock(body_of({"model": "m", "messages": [USER], "tools": tools}))["toolConfig"]["tools"]
    assert [next(iter(tool)) for tool in told] == ["toolSpec", "toolSpec", "cachePoint"]
    assert told[2]["cachePoint"] == {"type": "default", "ttl": "1h"}
