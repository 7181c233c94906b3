"""What the tests of kept responses share: upstreams of each kind, two owners, and answers that can be told apart."""

import json

import pytest

from gateway.store import objects
from tests.dialects import whole
from tests.postgres import database, postgres_server
from tests.script import Events, Fails, Says, ScriptedUpstream
from tests.serving import serving

__all__ = ["postgres_server"]

JSON = {"content-type": "application/json"}
KEYS = "keys: [{name: ann, key: secret-ann, models: ['*']}, {name: bob, key: secret-bob, models: ['*']}]\n"
CHAIN = (
    "chain: [{use: metrics}, {use: auth}, {use: limits}, {use: cache}, {use: cost}, {use: retry, first_wait: 1ms}]\n"
)
PLACES = {"openai": "chat completions", "anthropic": "messages", "azure": "Responses"}
WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}


def config(kind, upstream, url="", more=""):
    base_url = upstream.url if kind == "openai" else upstream.origin
    return (
        f"providers: {{{kind}: {{api_key: secret, base_url: '{base_url}'}}}}\n"
        f"models: {{m: {kind}/some-model}}\n{KEYS}{CHAIN}{f'database: {url}' if url else ''}\n{more}"
    )


@pytest.fixture
async def upstream(monkeypatch):
    monkeypatch.setattr(objects, "PATIENCE_S", 30.0)  # a database that is slow is not gone, unless a test says so
    async with ScriptedUpstream() as upstream:
        yield upstream


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def url(request, tmp_path):
    """Where things are kept: nowhere but in memory, or in a database of each kind."""
    if request.param == "postgresql":
        async with database(request.getfixturevalue("postgres_server")) as url:
            yield url
    else:
        yield f"sqlite:///{tmp_path}/gateway.db" if request.param == "sqlite" else ""


@pytest.fixture(params=PLACES, ids=PLACES.values())
async def kind(request):
    return request.param


@pytest.fixture
async def served(kind, upstream, tmp_path):
    """A gateway with a database, and one upstream of each kind."""
    async with serving(config(kind, upstream, f"sqlite:///{tmp_path}/gateway.db")) as gateway:
        yield gateway, upstream


def ann(gateway):
    return gateway.openai("secret-ann")


def said_to(asked):
    """The texts that an upstream was sent, in order."""
    body = asked.json
    items = body.get("messages") or body["input"]
    if isinstance(items, str):
        return [items]
    texts = []
    for item in items:
        content = item.get("content")
        texts += [content] if isinstance(content, str) else [part.get("text") for part in content or ()]
    return texts


def one_by_one(*answers):
    """These answers, each with ids of its own where the upstream's ids are the client's."""
    return [lambda asked, n=n, answer=answer: numbered(asked, n, answer) for n, answer in enumerate(answers)]


def numbered(asked, n, answer):
    says = Says(answer) if isinstance(answer, str) else answer
    if not asked.path.endswith("/responses"):
        return says
    said = json.loads(whole(says, asked).replace(b"_scripted", b"_native_%d" % n))
    if not asked.stream:
        return Fails(200, said, JSON)
    delta = {"type": "response.output_text.delta", "item_id": "i", "output_index": 0, "content_index": 0}
    events = [{**delta, "delta": says.text or "x"}, {"type": "response.completed", "response": said}]
    return Events(*[f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in events])


async def create(client, stream, **fields):
    """The response, however it comes."""
    if not stream:
        return await client.responses.create(model="m", **fields)
    async for event in await client.responses.create(model="m", stream=True, **fields):
        if event.type in ("response.completed", "response.incomplete"):
            return event.response
    raise AssertionError("the stream has no end")
