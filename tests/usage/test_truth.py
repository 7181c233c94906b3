"""Usage is right: of every provider, for clients of every surface, streamed and whole, and so is what it costs."""

import asyncio
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from gateway.core.receipt import Receipt
from gateway.core.usage import Usage
from tests.places import receipts
from tests.script import Raw, ScriptedUpstream
from tests.serving import Serving, serving
from tests.usage.answers import TEXT, Answer, stream, whole
from tests.usage.rows import OWN, SURFACES, Row, dialect_of, page, prices, rows, surfaces_of

PAGE = Path(__file__).parents[2] / "docs" / "usage.md"
PROVIDERS = list(dict.fromkeys(row.provider for row in rows()))
PATHS = {"chat": "/v1/chat/completions", "messages": "/v1/messages", "responses": "/v1/responses"}
CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
UNTIL_HELLO = {"chat": 1, "responses": 3, "messages": 3, "gemini": 1, "bedrock": 2, "cohere": 2, "ollama": 1}
"""Pieces of a stream up to its first word."""


def config(upstream: ScriptedUpstream) -> str:
    """A gateway with a model at every provider, named like it."""
    providers = {name: {"api_key": "secret", "base_url": base_url(name, upstream)} for name in PROVIDERS}
    providers["bedrock"]["region"] = "eu-north-1"
    providers["openai"]["vendor"] = "openai"  # at another address it is taken for a server of one's own
    places = {name: {"deployments": [{"target": f"{name}/m", "price": prices()}]} for name in PROVIDERS}
    chain = [{"use": "tests.places:KeepOptions"}, {"use": "cost"}, {"use": "retry", "attempts": 1}]
    return json.dumps({"providers": providers, "models": places, "chain": chain})


def base_url(provider: str, upstream: ScriptedUpstream) -> str:
    return upstream.origin if provider in OWN else upstream.url


def question(surface: str, model: str, *, streams: bool, tool: bool = False) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model, "stream": streams}
    if surface == "responses":
        tools = [{"type": "function", "name": "weather", "parameters": CITY}]
        return {**body, "input": [{"role": "user", "content": "Hi"}], **({"tools": tools} if tool else {})}
    body["messages"] = [{"role": "user", "content": "Hi"}]
    if surface == "messages":
        tools = [{"name": "weather", "input_schema": CITY}]
        return {**body, "max_tokens": 100, **({"tools": tools} if tool else {})}
    tools = [{"type": "function", "function": {"name": "weather", "parameters": CITY}}]
    body |= {"stream_options": {"include_usage": True}} if streams else {}
    return {**body, **({"tools": tools} if tool else {})}


async def asked(gateway: Serving, surface: str, body: dict[str, Any]) -> tuple[dict[str, Any], Receipt]:
    """Ask, and return the usage object that the client reads, and the receipt."""
    answer = await gateway.post(PATHS[surface], body)
    assert answer.status_code == 200, answer.text
    await gateway.settle()
    return told(answer.text, surface, streams=body["stream"]), receipts[-1]


def told(text: str, surface: str, *, streams: bool) -> dict[str, Any]:
    """Return the last usage object of an answer, where a client of this surface looks for it."""
    if not streams:
        return json.loads(text).get("usage") or {}
    events = [json.loads(data) for data in re.findall(r"^data: (\{.*)$", text, re.MULTILINE)]
    if surface == "responses":
        events = [event["response"] for event in events if event["type"] == "response.completed"]
    found = [event["usage"] for event in events if event.get("usage")]
    return found[-1] if found else {}


def read(usage: dict[str, Any], surface: str) -> dict[str, int]:
    """Return what a client of this surface makes of a usage object: the numbers that all of them know."""

    def part(name: str, of: str) -> int:
        return (usage.get(of) or {}).get(name) or 0

    if surface == "messages":
        return {
            "sent": usage["input_tokens"],
            "cached": usage.get("cache_read_input_tokens") or 0,
            "written": usage.get("cache_creation_input_tokens") or 0,
            "answered": usage["output_tokens"],
            "reasoning": part("thinking_tokens", "output_tokens_details"),
        }
    sent, answered = ("prompt", "completion") if surface == "chat" else ("input", "output")
    return {
        "sent": usage[f"{sent}_tokens"],
        "cached": part("cached_tokens", f"{sent}_tokens_details"),
        "written": part("cache_write_tokens", f"{sent}_tokens_details"),
        "answered": usage[f"{answered}_tokens"],
        "reasoning": part("reasoning_tokens", f"{answered}_tokens_details"),
    }


def expected(usage: Usage, surface: str) -> dict[str, int]:
    """Return what a client of this surface should make of it: Anthropic's count what was cached and written apart."""
    apart = usage.cached_tokens + usage.cache_write_tokens if surface == "messages" else 0
    return {
        "sent": usage.prompt_tokens - apart,
        "cached": usage.cached_tokens,
        "written": usage.cache_write_tokens,
        "answered": usage.completion_tokens,
        "reasoning": usage.reasoning_tokens,
    }


async def test_every_row_of_the_table():
    """What the upstream says, what each client reads of it, what the receipt says, and what it costs."""
    wrong: list[str] = []
    async with ScriptedUpstream() as upstream, serving(config(upstream)) as gateway:
        for row in rows():
            for surface in row.surfaces:
                for streams in (True,) if row.streams_only else (False, True):
                    wrong += await problems(gateway, upstream, row, surface, streams=streams)
    assert not wrong, "\n".join(wrong)


async def problems(gateway: Serving, upstream: ScriptedUpstream, row: Row, surface: str, *, streams: bool) -> list[str]:
    answer = Answer(row.says, row.beside, row.tool)
    upstream.will(Raw((stream if streams else whole)(row.dialect, answer)))
    body = question(surface, row.provider, streams=streams, tool=row.tool)
    usage, receipt = await asked(gateway, surface, body)
    where = f"{row.provider} {row.case!r} for {surface} {'streamed' if streams else 'whole'}"
    found: list[str] = []
    if receipt.usage != row.usage:
        found.append(f"{where}: usage {receipt.usage}")
    if receipt.cost_nusd != row.cost_nusd:
        found.append(f"{where}: cost {receipt.cost_nusd}")
    right = read(row.says or {}, surface) if row.passes_on(surface) else expected(row.usage, surface)
    if read(usage, surface) != right:
        found.append(f"{where}: the client reads {usage}")
    return found


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("streams", [False, True])
async def test_usage_that_no_upstream_says_is_estimated_and_marked(surface, streams):
    """From what was sent and what came back, whoever it was. What is passed on as it came is not added to."""
    async with ScriptedUpstream() as upstream, serving(config(upstream)) as gateway:
        for provider in PROVIDERS:
            dialect = surface if surface in surfaces_of(provider) else dialect_of(provider)
            upstream.will(Raw((stream if streams else whole)(dialect, Answer())))
            usage, receipt = await asked(gateway, surface, question(surface, provider, streams=streams))
            assert receipt.usage is not None and receipt.usage.estimated, provider
            assert (receipt.usage.prompt_tokens > 0, receipt.usage.completion_tokens) == (True, -(-len(TEXT) // 4))
            assert receipt.cost_nusd == receipt.usage.prompt_tokens * 1000 + receipt.usage.completion_tokens * 10_000
            if dialect != surface or surface == "chat":
                assert usage["estimated"] is True, provider
                assert read(usage, surface) == expected(receipt.usage, surface), provider


async def left(gateway: Serving, upstream: ScriptedUpstream, surface: str, provider: str, answer: Answer) -> Receipt:
    """Leave when the first word has come; return the receipt."""
    dialect = surface if surface in surfaces_of(provider) else dialect_of(provider)
    upstream.will(Raw(stream(dialect, answer, pieces=UNTIL_HELLO[dialect]), closes=False))
    body = question(surface, provider, streams=True)
    async with gateway.http.stream("POST", PATHS[surface], json=body) as answering:
        said = ""
        async for piece in answering.aiter_text():
            said += piece
            if "Hello" in said:
                break
    async with asyncio.timeout(30):
        while gateway.live.gateway.engine.busy:
            await asyncio.sleep(0.005)
    return receipts[-1]


@pytest.mark.parametrize("surface", SURFACES)
async def test_what_an_answer_used_whose_client_left_is_known_too(surface):
    """The upstream charges for it; the receipt says how much, as far as anybody can know it then."""
    async with ScriptedUpstream() as upstream, serving(config(upstream)) as gateway:
        for provider in PROVIDERS:
            receipt = await left(gateway, upstream, surface, provider, Answer())
            assert (receipt.outcome, receipt.usage and receipt.usage.estimated) == ("abandoned", True), provider
            assert receipt.usage is not None
            assert (receipt.usage.prompt_tokens > 0, receipt.usage.completion_tokens) == (True, 2), provider
            assert receipt.cost_nusd == receipt.usage.prompt_tokens * 1000 + 20_000, provider


SENT = Usage(1000, 2, cached_tokens=600, estimated=True)
EARLY = {
    "anthropic": {"input_tokens": 400, "cache_read_input_tokens": 600, "output_tokens": 50},
    "gemini": {"promptTokenCount": 1000, "cachedContentTokenCount": 600, "candidatesTokenCount": 50},
}


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("provider", EARLY)
async def test_what_was_said_before_the_client_left_is_not_estimated(provider, surface):
    """Anthropic and Gemini say at once what was sent: ten times as much, if nobody knew that it was cached."""
    async with ScriptedUpstream() as upstream, serving(config(upstream)) as gateway:
        receipt = await left(gateway, upstream, surface, provider, Answer(EARLY[provider]))
        assert receipt.usage == SENT
        assert receipt.cost_nusd == 400_000 + 60_000 + 20_000


async def test_an_unknown_cost_is_counted_and_the_log_says_by_whose_prices(capfdbinary):
    """By provider, so that somebody can be told; and the line has all that a cost is made of."""
    says = {"prompt_tokens": 1000, "completion_tokens": 50, "prompt_tokens_details": {"cache_write_tokens": 300}}
    chain = '"chain": [{"use": "log", "format": "json"}, {"use": "metrics"}, {"use": "cost"}, '
    async with ScriptedUpstream() as upstream:
        text = config(upstream)
        async with serving(text[: text.index('"chain"')] + chain + text[text.index('{"use": "retry"') :]) as gateway:
            for tier in ("ultrafast", "flex"):
                upstream.will(Raw(whole("chat", Answer(says, {"service_tier": tier}))))
                await gateway.post(PATHS["chat"], question("chat", "fireworks", streams=False))
            await gateway.settle()
            metrics = (await gateway.http.get("/metrics")).text
    assert 'gateway_cost_unknown_total{model="fireworks",provider="fireworks"} 1.0' in metrics
    assert 'chat_tokens_total{kind="cache_write",model="fireworks",provider="fireworks"} 600.0' in metrics
    lines = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines() if line.startswith(b"{")]
    told = [{name: line.get(name) for name in ("service_tier", "cache_write_tokens", "cost_usd")} for line in lines]
    assert told == [
        {"service_tier": "ultrafast", "cache_write_tokens": 300, "cost_usd": "unknown"},
        {"service_tier": "flex", "cache_write_tokens": 300, "cost_usd": "0.000787500"},
    ]


def test_the_page_is_printed_from_the_rows():
    """`GATEWAY_WRITE_DOCS=1` writes it anew."""
    if os.environ.get("GATEWAY_WRITE_DOCS") == "1":
        PAGE.write_text(page())
    assert PAGE.read_text() == page()


def test_the_table_is_about_every_provider_and_every_kind_of_usage():
    """A column that is empty for all would be a promise about nothing."""
    assert {row.provider for row in rows()} >= set(OWN)
    for name in ("cached_tokens", "cache_write_tokens", "reasoning_tokens", "service_tier", "billed_tokens"):
        assert sum(bool(getattr(row.usage, name)) for row in rows()) >= 2, name
    for name in ("cache_write_1h_tokens", "searches", "audio_prompt_tokens", "image_prompt_tokens"):
        assert sum(bool(getattr(row.usage.extras, name)) for row in rows()) >= 2, name
    tools = {row.dialect for row in rows() if row.tool}
    assert tools == {"chat", "responses", "messages", "gemini", "bedrock", "cohere", "ollama"}
