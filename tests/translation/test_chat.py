"""A chat completion request, at every provider: what it says is found there, explained, or refused. Never just lost.

The tables are promises: a leaf without a row, a row that never applies, one that says what does not happen, all fail.
"""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from gateway.core.call import Body
from gateway.providers import cohere_request, ollama_request
from gateway.providers.anthropic_request import messages_request
from gateway.providers.bedrock_models import family_of
from gateway.providers.bedrock_request import converse_request
from gateway.providers.gemini_request import content_request
from gateway.providers.openai import OpenAIOptions
from gateway.wire.chat_request import chat_request
from tests.providers.test_golden import attempt
from tests.translation import chat_tables as tables
from tests.translation.checking import Checker, until_shown
from tests.translation.fates import Table
from tests.translation.requests import chat_requests, seldom

CLAUDE = "anthropic.claude-sonnet-4-5"


def body_of(said: dict[str, Any]) -> Body:
    raw = msgspec.json.encode(said)
    return Body(raw, msgspec.json.decode(raw, type=dict[str, msgspec.Raw]))


def anthropic(body: Body) -> Any:
    return messages_request(chat_request(body.raw), body, "claude-sonnet-4-5", stream=False)


def bedrock(body: Body) -> Any:
    return converse_request(chat_request(body.raw), body, CLAUDE, family_of(CLAUDE))


def cohere(body: Body) -> Any:
    return cohere_request.chat_body(chat_request(body.raw), body, "command-a-reasoning-08-2025", stream=False)


def gemini(body: Body) -> Any:
    return content_request(chat_request(body.raw), body, "gemini-2.5-flash")


def ollama(body: Body) -> Any:
    return ollama_request.chat_body(chat_request(body.raw), body, "qwen3", stream=False)


def mistral(body: Body) -> Any:
    provider = OpenAIOptions(kind="mistral").build("mistral")
    return json.loads(provider.request(attempt(json.loads(body.raw), "mistral-large")).body)


def neutral(body: Body) -> Any:
    """What is read of a request, written again."""
    read = msgspec.to_builtins(chat_request(body.raw))
    return {name: value for name, value in read.items() if value is not None}


TARGETS: dict[str, tuple[Callable[[Body], Any], Table]] = {
    "anthropic": (anthropic, tables.ANTHROPIC),
    "bedrock": (bedrock, tables.BEDROCK),
    "cohere": (cohere, tables.COHERE),
    "gemini": (gemini, tables.GEMINI),
    "ollama": (ollama, tables.OLLAMA),
    "mistral": (mistral, tables.MISTRAL),
    "neutral": (neutral, tables.NEUTRAL),
}


def checker_of(target: str) -> Checker:
    translate, table = TARGETS[target]
    return Checker(lambda said: translate(body_of(said)), table)


@pytest.mark.parametrize("target", TARGETS)
def test_what_a_chat_completion_says_is_found_explained_or_refused(target: str):
    """Whatever else a request says: what is lost without a word is missed only by the answer."""
    checker = checker_of(target)
    for said in seldom():
        checker.check(said)

    def check(said: dict[str, Any]) -> None:
        checker.check(said)

    until_shown(checker, check, said=chat_requests())
